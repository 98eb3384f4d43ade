//! What training keeps of its input: a mergeable sketch of any number of records.
//!
//! One pass over the input offers each record to two keyed samples ([`crate::sample`]): one record in
//! ten, by its key, to the held-out ones, which set the threshold; the others to the trees'. Beside them
//! stand counts and the names of the inputs, and nothing else: transforms are learned from the sampled
//! records, so no statistic of the whole is needed, and no sum depends on an order. Therefore the
//! sketch of an input is the merged sketches of its parts, byte for byte, whatever the parts, their
//! order and the shape of the merge; and what a model is built from fits a file that workers can send.
//!
//! # Time decay
//! With a half-life ([`Decay`]) a record's weight is 2^(its time / half-life), and both samples are drawn by
//! weights. The held-out records stand for what a record of today is like: where they are fewer than the
//! sample takes, each counts with the share that its weight has ([`TrainingSketch::calibration_records`]).

mod file;

use std::collections::BTreeSet;
use std::fmt;

use bincode::{Decode, Encode};

pub use file::SketchError;

use crate::forest::{ParamError, Params, ValidParams};
use crate::record::Value;
use crate::sample::{MergeError, RecordKey, Sieve, Sketch};
use crate::score::as_f64;
use crate::snapshot::Provenance;
use crate::spec::ValidSpec;

/// One record in so many is held out to calibrate the threshold.
const HELD_OUT_ONE_IN: u64 = 10;
/// Most records held out: at a quantile of 0.999 twenty of them lie above the threshold.
pub const MAX_HELD_OUT: usize = 20_000;
/// Samples a tree unless the user says otherwise, as in SageMaker.
pub const DEFAULT_SAMPLES: u32 = 256;
/// Where records are few, a tree takes at most this part of them: an anomaly that is in most of the
/// trees' own samples hides in them (see docs/accuracy.md).
const SAMPLED_PART: u64 = 16;
/// ... but not fewer than this.
const MIN_SAMPLES: u32 = 32;
/// Most places in all trees' samples together, 2 GiB of them: ten times SageMaker's largest forest is
/// far below.
const MAX_PLACES: u64 = 1 << 26;
/// Names of inputs that a model's provenance lists; of more, it says how many.
const MAX_NAMED: usize = 1_000;

/// Shortest half-life in milliseconds. Times are to the millisecond, and beyond the year 5138 there are none:
/// so logarithms of weights are below 10^10, and of records a second apart the younger weighs more.
pub const MIN_HALF_LIFE_MS: u64 = 60_000;
/// Of held-out records' weights, the one at this quantile is that of today. Not the largest, since one record
/// with a time in the future would make all others old.
const NEWEST_QUANTILE: f64 = 0.99;

/// How a record's weight follows from its time: it halves with each half-life of age.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Decay {
    /// In milliseconds, at least [`MIN_HALF_LIFE_MS`].
    pub half_life_ms: u64,
    /// The field with a record's time.
    pub time_field: String,
}

impl Decay {
    /// The half-life in the greatest unit that it is a whole number of: 7d, 36h, 90min.
    pub fn half_life(&self) -> String {
        let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1_000, "s")];
        let unit = units.into_iter().find(|(len_ms, _)| self.half_life_ms.is_multiple_of(*len_ms));
        let (len_ms, unit) = unit.unwrap_or((1, "ms"));
        format!("{}{unit}", self.half_life_ms / len_ms)
    }

    /// The natural logarithm of the weight of a record of this time, in milliseconds since 1970.
    fn log_weight(&self, time_ms: i64) -> f64 {
        // Below 2^53 for thousands of years.
        #[expect(clippy::cast_precision_loss, reason = "exact for times that clocks have")]
        let half_lives = time_ms as f64 / self.half_life_ms as f64;
        half_lives * std::f64::consts::LN_2
    }
}

/// What one pass over the input leaves: see the module.
#[derive(Debug)]
pub struct TrainingSketch {
    /// How records are read. Sketches merge only if theirs are the same.
    pub spec: ValidSpec,
    /// Names of the inputs, as records' keys have them.
    pub inputs: BTreeSet<String>,
    /// Records read, whatever became of them.
    pub read: u64,
    /// Records rejected.
    pub rejected: u64,
    /// Records with too few of their series before them to make a point.
    pub no_history: u64,
    /// Records offered to the trees' samples.
    pub sampled_from: u64,
    /// The records of the trees.
    pub sampled: Sketch<Vec<Value>>,
    /// The records that set the threshold.
    pub held_out: Sketch<Vec<Value>>,
    seed: u64,
    /// Samples a tree, if the user gave a number.
    samples: Option<u32>,
    decay: Option<Decay>,
}

/// One thread's view of a sketch that several threads fill: see [`TrainingSketch::sieve`].
#[derive(Debug, Clone)]
pub struct TrainingSieve {
    seed: u64,
    sampled: Sieve,
    held_out: Sieve,
    /// Records seen that are not to be held out.
    sampled_from: u64,
    decay: Option<Decay>,
}

impl TrainingSieve {
    /// Whether the sketch might take the record of this time. Counts it, so a key is given once.
    pub fn passes(&mut self, key: RecordKey, time_ms: i64) -> bool {
        let log_weight = log_weight(self.decay.as_ref(), time_ms);
        if key.is_held_out(self.seed, HELD_OUT_ONE_IN) {
            return self.held_out.passes(key, log_weight);
        }
        self.sampled_from += 1;
        self.sampled.passes(key, log_weight)
    }
}

fn log_weight(decay: Option<&Decay>, time_ms: i64) -> f64 {
    decay.map_or(0.0, |decay| decay.log_weight(time_ms))
}

/// Why sketches can't be merged.
#[derive(Debug, thiserror::Error)]
pub enum SketchMergeError {
    /// Their records were read by different specifications.
    #[error("their specifications differ")]
    Spec,
    /// Different parameters.
    #[error(transparent)]
    Sample(#[from] MergeError),
    /// One was made with a number of samples, the other by default.
    #[error("one was made with samples a tree {ours:?}, the other with {theirs:?}")]
    Samples {
        /// Of the one merged into.
        ours: Option<u32>,
        /// Of the one merged.
        theirs: Option<u32>,
    },
    /// One weighs records otherwise than the other.
    #[error("one was made with {}, the other with {}", half_life(.ours.as_ref()), half_life(.theirs.as_ref()))]
    Decay {
        /// Of the one merged into.
        ours: Option<Decay>,
        /// Of the one merged.
        theirs: Option<Decay>,
    },
    /// An input of both, whose records would be counted twice.
    #[error("both have the input {name}")]
    Input {
        /// Its name.
        name: String,
    },
}

fn half_life(decay: Option<&Decay>) -> String {
    decay.map_or("no half-life".to_owned(), Decay::to_string)
}

impl fmt::Display for Decay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a half-life of {} by `{}`", self.half_life(), self.time_field)
    }
}

impl TrainingSketch {
    /// The sketch of no records. `samples` a tree are [`DEFAULT_SAMPLES`], or fewer where records are
    /// few, unless they are given.
    ///
    /// # Errors
    /// [`ParamError`] for trees or samples out of range.
    pub fn new(
        spec: ValidSpec,
        seed: u64,
        trees: u32,
        samples: Option<u32>,
    ) -> Result<Self, ParamError> {
        let most = samples.unwrap_or(DEFAULT_SAMPLES);
        ValidParams::new(Params { trees, samples: most, seed, ..Params::default() })?;
        let got = u64::from(trees) * u64::from(most);
        if got > MAX_PLACES {
            return Err(ParamError { name: "trees x samples", got, low: 2, high: MAX_PLACES });
        }
        Ok(Self {
            spec,
            inputs: BTreeSet::new(),
            read: 0,
            rejected: 0,
            no_history: 0,
            sampled_from: 0,
            sampled: Sketch::new(seed, trees as usize, most as usize),
            held_out: Sketch::new(seed, 1, MAX_HELD_OUT),
            seed,
            samples,
            decay: None,
        })
    }

    /// The same for records that weigh by their age. Only of a sketch of no records.
    #[must_use]
    pub fn with_decay(self, decay: Option<Decay>) -> Self {
        Self { decay, ..self }
    }

    /// Takes the values of one point, and its time in milliseconds since 1970, which counts only with a
    /// half-life. A key is given once.
    pub fn take(&mut self, key: RecordKey, time_ms: i64, point: &[Value]) {
        let log_weight = log_weight(self.decay.as_ref(), time_ms);
        if key.is_held_out(self.seed, HELD_OUT_ONE_IN) {
            self.held_out.offer(key, log_weight, || point.to_vec());
        } else {
            self.sampled_from += 1;
            self.sampled.offer(key, log_weight, || point.to_vec());
        }
    }

    /// What tells a thread which records the sketch might take.
    pub fn sieve(&self) -> TrainingSieve {
        TrainingSieve {
            seed: self.seed,
            sampled: self.sampled.sieve(),
            held_out: self.held_out.sieve(),
            sampled_from: 0,
            decay: self.decay.clone(),
        }
    }

    /// Takes what has passed a sieve since this was last done, and brings the sieve up to date. It is as
    /// if [`TrainingSketch::take`] had been given every record that the sieve has seen.
    pub fn take_sieved(
        &mut self,
        sieve: &mut TrainingSieve,
        passed: impl IntoIterator<Item = (RecordKey, i64, Vec<Value>)>,
    ) {
        for (key, time_ms, point) in passed {
            let log_weight = log_weight(self.decay.as_ref(), time_ms);
            match key.is_held_out(self.seed, HELD_OUT_ONE_IN) {
                true => self.held_out.offer(key, log_weight, || point),
                false => self.sampled.offer(key, log_weight, || point),
            }
        }
        self.sampled_from += sieve.sampled_from;
        *sieve = self.sieve();
    }

    /// Records that make a point.
    pub fn kept(&self) -> u64 {
        self.read.saturating_sub(self.rejected).saturating_sub(self.no_history)
    }

    /// Joins the sketch of other inputs: the result is that of both together.
    ///
    /// # Errors
    /// [`SketchMergeError`] if they were not made alike, or share an input.
    pub fn merge(&mut self, other: Self) -> Result<(), SketchMergeError> {
        if self.spec.spec() != other.spec.spec() {
            return Err(SketchMergeError::Spec);
        }
        if self.samples != other.samples {
            let (ours, theirs) = (self.samples, other.samples);
            return Err(SketchMergeError::Samples { ours, theirs });
        }
        if self.decay != other.decay {
            return Err(SketchMergeError::Decay { ours: self.decay.clone(), theirs: other.decay });
        }
        if let Some(name) = self.inputs.intersection(&other.inputs).next() {
            return Err(SketchMergeError::Input { name: name.clone() });
        }
        self.sampled.merge(other.sampled)?;
        self.held_out.merge(other.held_out)?;
        self.inputs.extend(other.inputs);
        // Whatever a file says that they are: in any order of merging the same.
        self.read = self.read.saturating_add(other.read);
        self.rejected = self.rejected.saturating_add(other.rejected);
        self.no_history = self.no_history.saturating_add(other.no_history);
        self.sampled_from = self.sampled_from.saturating_add(other.sampled_from);
        Ok(())
    }

    /// The held-out records that stand for those of today, by ascending key: all of them, or with a
    /// half-life as many of each age as its weight says. A record of weight w is kept if its priority,
    /// Exp(w), is at most that of one half-life's decay of today's, 1 / w': with 1 - exp(-w / w').
    pub fn calibration_records(&self) -> Vec<(RecordKey, &Vec<Value>)> {
        if self.decay.is_none() {
            return self.held_out.records();
        }
        let kept = self.held_out.kept();
        let mut weights: Vec<f64> = kept.iter().map(|kept| kept.log_weight).collect();
        weights.sort_unstable_by(f64::total_cmp);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a part of the records"
        )]
        let newest = (as_f64(weights.len()) * NEWEST_QUANTILE) as usize;
        let limit = weights.get(newest).map_or(f64::INFINITY, |log_weight| -log_weight);
        let counts = kept.into_iter().filter(|kept| kept.priority <= limit);
        counts.map(|kept| (kept.key, kept.record)).collect()
    }

    /// Records that the trees' samples are in effect drawn from: with a half-life those of the last one or
    /// two. Estimated by the held-out ones, of which each stands for as many.
    fn effective_len(&self) -> u64 {
        match &self.decay {
            None => self.sampled_from,
            Some(_) => {
                let held_out = self.calibration_records().len() as u64;
                self.sampled_from.min(held_out * (HELD_OUT_ONE_IN - 1))
            }
        }
    }

    /// Fixes the number of samples a tree, now that the records are counted.
    ///
    /// # Errors
    /// [`ParamError`], which can't happen to a sketch made by [`TrainingSketch::new`].
    pub fn settle(&mut self) -> Result<ValidParams, ParamError> {
        let fitting = u32::try_from(self.effective_len() / SAMPLED_PART).unwrap_or(u32::MAX);
        let fitting = fitting.clamp(MIN_SAMPLES, DEFAULT_SAMPLES);
        let samples = self.samples.unwrap_or(fitting);
        self.sampled.shrink(samples as usize);
        ValidParams::new(Params { samples, ..self.params() })
    }

    fn params(&self) -> Params {
        let trees = u32::try_from(self.sampled.trees()).unwrap_or(u32::MAX);
        let samples = self.samples.unwrap_or(DEFAULT_SAMPLES);
        Params { trees, samples, seed: self.seed, ..Params::default() }
    }

    /// Where a model that is built from this comes from.
    pub fn provenance(&self, tool: &str) -> Provenance {
        let mut inputs: Vec<String> = self.inputs.iter().take(MAX_NAMED).cloned().collect();
        if self.inputs.len() > MAX_NAMED {
            inputs.push(format!("and {} more", self.inputs.len() - MAX_NAMED));
        }
        let tool = match &self.decay {
            None => tool.to_owned(),
            Some(decay) => format!("{tool} ({decay})"),
        };
        Provenance {
            tool,
            inputs,
            read: self.read,
            rejected: self.rejected,
            sampled_from: self.sampled_from,
            held_out: self.kept().saturating_sub(self.sampled_from),
        }
    }
}
