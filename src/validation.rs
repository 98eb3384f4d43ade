//! Validation: is what the local model says still what the endpoint would say?
//!
//! A share of the records is scored by both. The two are forests of their own, built from other
//! samples by other cuts, so their scores are never equal and need not be: what must agree is which
//! records are unusual. Three things are compared over a window of sampled records, each with a bound
//! on what chance may have done:
//!
//! - **decisions** ([`agreement::Table`]): each at its own threshold. Of the records that either
//!   flags, how many does only one flag? The rarer the anomalies, the longer this takes to tell.
//! - **tops**: the most unusual records of the window by each, whatever the thresholds. Of one's top,
//!   how many are not in the other's? It needs no threshold and no common scale.
//! - **ranks** ([`ranks`]): Spearman's correlation of the scores over all records.
//!
//! [`agreement::judge`] is the written rule that turns them into agree, drifting or disagree, or into
//! nothing while there are too few records to say. [`quality`] looks at the records themselves beside
//! it, since most drift is in the data and not in the forest. [`sampling`] chooses the records, has them
//! scored beside the sinks, and keeps a [`window`] of them a model. [`pair`] is how a sampled record is
//! written down, and [`capture`] where.

pub mod agreement;
pub mod capture;
pub mod pair;
pub mod proportion;
pub mod quality;
pub mod ranks;
pub mod sampling;
pub mod window;

pub use agreement::{Agreement, Judgement, Measures, Sample};
pub use pair::Pair;
pub use sampling::{Validation, ValidationReport};
pub use window::Window;

#[cfg(test)]
mod simulation;

#[cfg(test)]
pub(crate) mod tests {
    use rand_core::{Rng as _, SeedableRng as _};
    use rand_xoshiro::Xoshiro256PlusPlus;

    /// Random numbers of a seed.
    pub(crate) struct Random(Xoshiro256PlusPlus);

    impl Random {
        pub(crate) fn new(seed: u64) -> Self {
            Self(Xoshiro256PlusPlus::seed_from_u64(seed))
        }

        /// Above 0, below 1.
        pub(crate) fn uniform(&mut self) -> f32 {
            (self.0.next_u64() >> 41) as f32 / 8_388_608.0 + 1e-8
        }

        /// Of a standard normal distribution.
        pub(crate) fn normal(&mut self) -> f32 {
            let radius = (-2.0 * self.uniform().ln()).sqrt();
            radius * (std::f32::consts::TAU * self.uniform()).cos()
        }
    }
}
