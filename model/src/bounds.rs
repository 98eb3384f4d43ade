//! Bounding boxes: the smallest axis-parallel box that holds a node's points.
//!
//! A box is a slice of two equal halves, the negated minima and then the maxima, so that a gap on
//! either side is one subtraction from (-x, x) and merging two boxes is one maximum. Halves may be
//! longer than the point, then with zeros; a forest keeps all its boxes in one array.

use std::hint::select_unpredictable;

/// Sum of the side lengths. Sides are f32 differences, summed in f64, as AWS's library does.
pub(crate) fn range_sum(bounds: &[f32]) -> f64 {
    let (minus, max) = bounds.split_at(bounds.len() / 2);
    minus.iter().zip(max).map(|(&minus, &max)| f64::from(max + minus)).sum()
}

/// Sum over dimensions of the distance from `point` to the box.
pub(crate) fn gap_sum(bounds: &[f32], point: &[f32]) -> f64 {
    let (minus, max) = bounds.split_at(bounds.len() / 2);
    let gap = |((&minus, &max), &x): ((&f32, &f32), &f32)| {
        // At most one of them is above zero.
        f64::from((-minus - x).max(0.0)) + f64::from((x - max).max(0.0))
    };
    minus.iter().zip(max).zip(point).map(gap).sum()
}

/// Probability that a random cut of the box merged with `point` separates the two:
/// gap sum / (range sum + gap sum). 0 if the box holds the point.
pub(crate) fn separation(bounds: &[f32], point: &[f32]) -> f64 {
    let out = gap_sum(bounds, point);
    if out == 0.0 { 0.0 } else { out / (range_sum(bounds) + out) }
}

/// Makes `bounds` the box of one point.
pub(crate) fn set_to_point(bounds: &mut [f32], point: &[f32]) {
    let (minus, max) = bounds.split_at_mut(bounds.len() / 2);
    for ((minus, max), &x) in minus.iter_mut().zip(max).zip(point) {
        (*minus, *max) = (-x, x);
    }
}

/// A box or a point as one side of a cut, without a branch on which it is.
pub(crate) struct Side<'a> {
    minus: &'a [f32],
    plus: &'a [f32],
    /// -1 if `minus` is still to be negated, else 1.
    sign: f32,
}

impl<'a> Side<'a> {
    /// The point, or else the box.
    #[inline(always)]
    pub(crate) fn new(is_point: bool, point: &'a [f32], bounds: &'a [f32]) -> Self {
        let (minus, plus) = bounds.split_at(bounds.len() / 2);
        Self {
            minus: select_unpredictable(is_point, point, minus),
            plus: select_unpredictable(is_point, point, plus),
            sign: if is_point { -1.0 } else { 1.0 },
        }
    }

    /// Makes `bounds` the box of both sides, whose halves are a multiple of four long.
    #[inline(always)]
    pub(crate) fn merge(&self, other: &Self, bounds: &mut [f32]) {
        let (minus, plus) = bounds.split_at_mut(bounds.len() / 2);
        merge_halves(minus, (self.minus, self.sign), (other.minus, other.sign));
        merge_halves(plus, (self.plus, 1.0), (other.plus, 1.0));
    }

    /// Its greatest coordinate in a dimension.
    #[inline(always)]
    pub(crate) fn highest(&self, dimension: usize) -> f32 {
        self.plus[dimension]
    }

    /// Its least coordinate in a dimension.
    #[inline(always)]
    pub(crate) fn lowest(&self, dimension: usize) -> f32 {
        -(self.sign * self.minus[dimension])
    }
}

/// The greater of each two, after their signs, which are factors so that it can be one instruction.
#[inline(always)]
fn merge_halves(merged: &mut [f32], mine: (&[f32], f32), theirs: (&[f32], f32)) {
    // Four at a time, as many as halves have at least.
    let (merged, sides) =
        (merged.as_chunks_mut::<4>().0, (mine.0.as_chunks::<4>().0, theirs.0.as_chunks::<4>().0));
    for ((merged, left), right) in merged.iter_mut().zip(sides.0).zip(sides.1) {
        for i in 0..4 {
            let (left, right) = (mine.1 * left[i], theirs.1 * right[i]);
            merged[i] = if right > left { right } else { left };
        }
    }
}

/// Grows `bounds` until it holds `other` too.
pub(crate) fn merge(bounds: &mut [f32], other: &[f32]) {
    for (mine, &theirs) in bounds.iter_mut().zip(other) {
        *mine = if theirs > *mine { theirs } else { *mine };
    }
}

/// Grows `bounds` until it holds `point` too.
pub(crate) fn merge_point(bounds: &mut [f32], point: &[f32]) {
    let (minus, max) = bounds.split_at_mut(bounds.len() / 2);
    for ((minus, max), &x) in minus.iter_mut().zip(max).zip(point) {
        *minus = if -x > *minus { -x } else { *minus };
        *max = if x > *max { x } else { *max };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;
    use rand_core::SeedableRng;
    use rand_xoshiro::Xoshiro256PlusPlus;

    use super::*;
    use crate::tree::uniform;

    /// For each dimension a side's two ends and a coordinate of the point, in whole units: sides of
    /// length 0 and points on an edge are common.
    fn whole_box_and_point() -> impl Strategy<Value = (Vec<f32>, Vec<f32>)> {
        prop::collection::vec((-9_i8..9, -9_i8..9, -12_i8..12), 1..6).prop_map(|sides| {
            let min = sides.iter().map(|&(a, b, _)| f32::from(a.min(b)));
            let max = sides.iter().map(|&(a, b, _)| f32::from(a.max(b)));
            let point = sides.iter().map(|&(_, _, x)| f32::from(x));
            (min.chain(max).collect(), point.collect())
        })
    }

    /// The box as it is kept, from its minima and maxima.
    fn kept(bounds: &[f32]) -> Vec<f32> {
        let (min, max) = bounds.split_at(bounds.len() / 2);
        min.iter().map(|min| -min).chain(max.iter().copied()).collect()
    }

    /// The box merged with the point: (low, high) of each side.
    fn merged(bounds: &[f32], point: &[f32]) -> Vec<(f64, f64)> {
        let (min, max) = bounds.split_at(point.len());
        let ends = min.iter().zip(max).zip(point);
        ends.map(|((&min, &max), &x)| (min.min(x).into(), max.max(x).into())).collect()
    }

    /// Whether a cut has the whole box on one side and the point on the other.
    fn separates(bounds: &[f32], point: &[f32], dimension: usize, cut: f64) -> bool {
        let (min, max) = bounds.split_at(point.len());
        let is_left = |x: f32| f64::from(x) <= cut;
        let box_is_whole = is_left(min[dimension]) == is_left(max[dimension]);
        box_is_whole && is_left(point[dimension]) != is_left(min[dimension])
    }

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(1), ..ProptestConfig::with_cases(500) })]

        /// Between whole coordinates a cut does the same wherever it falls, and every unit of every
        /// side is as likely: so one cut in the middle of each is a count of all cuts.
        #[test]
        fn separation_is_the_share_of_all_cuts_that_separate((bounds, point) in whole_box_and_point()) {
            let (mut all, mut separating) = (0.0, 0.0);
            for (dimension, &(low, high)) in merged(&bounds, &point).iter().enumerate() {
                let mut cut = low + 0.5;
                while cut < high {
                    all += 1.0;
                    separating += f64::from(u8::from(separates(&bounds, &point, dimension, cut)));
                    cut += 1.0;
                }
            }
            let want = if all == 0.0 { 0.0 } else { separating / all };
            let got = separation(&kept(&bounds), &point);
            prop_assert!((got - want).abs() < 1e-12, "{separating} of {all} cuts are {want}, got {got}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(2), ..ProptestConfig::with_cases(64) })]

        #[test]
        fn separation_is_the_share_of_random_cuts_that_separate(
            sides in prop::collection::vec((-4.0_f32..4.0, -4.0_f32..4.0, -5.0_f32..5.0), 1..6),
            seed: u64,
        ) {
            let min = sides.iter().map(|&(a, b, _)| a.min(b));
            let max = sides.iter().map(|&(a, b, _)| a.max(b));
            let bounds: Vec<f32> = min.chain(max).collect();
            let point: Vec<f32> = sides.iter().map(|&(_, _, x)| x).collect();
            let merged = merged(&bounds, &point);
            let total: f64 = merged.iter().map(|(low, high)| high - low).sum();
            prop_assume!(total > 0.0, "one point is never cut");
            let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
            let mut is_separating = || {
                let mut at = uniform(&mut rng) * total;
                for (dimension, (low, high)) in merged.iter().enumerate() {
                    if at < high - low {
                        return separates(&bounds, &point, dimension, low + at);
                    }
                    at -= high - low;
                }
                unreachable!("a uniform below the total falls on a side")
            };
            let draws = 10_000;
            let separating = (0..draws).filter(|_| is_separating()).count();
            let share = crate::score::as_f64(separating) / f64::from(draws);
            let got = separation(&kept(&bounds), &point);
            // Five standard deviations of a binomial, and one cut for probabilities near 0 and 1.
            let tolerance = 5.0 * (got * (1.0 - got) / f64::from(draws)).sqrt() + 1e-4;
            prop_assert!(
                (got - share).abs() <= tolerance,
                "{separating} of {draws} cuts separate, got {got}, tolerance {tolerance}"
            );
        }
    }

    #[test]
    fn separation_is_the_share_of_cuts_that_fall_outside() {
        // Sides 2 and 1; the point is 1 above the first side and 2 below the second.
        let bounds = [0.0, 0.0, 2.0, 1.0]; // minima are 0
        assert_eq!(range_sum(&bounds), 3.0);
        assert_eq!(gap_sum(&bounds, &[3.0, -2.0]), 3.0);
        assert_eq!(separation(&bounds, &[3.0, -2.0]), 0.5);
        assert_eq!(separation(&bounds, &[2.0, 0.0]), 0.0);
        assert_eq!(separation(&[-1.0, 1.0], &[1.0]), 0.0, "a box of one point, the point itself");
    }
}
