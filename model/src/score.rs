//! The score, plainly: AWS's formulas in f64, one point and one tree at a time.
//!
//! The score of x is the mean over trees of the depth at which a random cut would set x apart,
//! turned round so that it is large for a point that is cut off early, and averaged over all random
//! insertions of x into the tree. With M the tree's mass, d a node's depth, m a leaf's mass:
//!
//! ```text
//! leaf    x equals its point   s = (1 - m / 2M) / (d + log2(m + 1)), and the nodes above don't change it
//!         x differs            s = 1 / (d + 1)
//! node    p = probability that a cut of the box merged with x separates them
//!         s = p / (d + 1) + (1 - p) s          stop where p = 0: every box above holds x too
//! tree    s * log2(M + 1)
//! forest  mean over trees
//! ```
//!
//! Logarithms come from `libm`, so that the same model gives the same bits on every machine.

use ndarray::{ArrayView2, ArrayViewMut1};

use crate::bounds::separation;
use crate::forest::{DimensionError, Forest, LeafRule, TreeSpan};

/// What a leaf at depth `d` of mass `m` says of a point that equals it, before the tree's factor.
pub(crate) fn seen(rule: LeafRule, depth: usize, mass: u32, tree_mass: u64) -> f64 {
    let (d, m) = (as_f64(depth), f64::from(mass));
    match rule {
        LeafRule::Damped => {
            #[expect(clippy::cast_precision_loss, reason = "a mass is far below 2^53")]
            let damp = 1.0 - m / (2.0 * tree_mass as f64);
            // Nearly every leaf holds one record, and log2(2) is exactly 1.
            damp / (d + if mass == 1 { 1.0 } else { libm::log2(m + 1.0) })
        }
        // A tree of one leaf has d + log2 m = 0 where it holds one record: as at depth 1 then.
        LeafRule::Sagemaker => 1.0 / (d + libm::log2(m)).max(1.0),
    }
}

/// What a leaf or a separation at depth `d` says of a point that was not in the sample.
pub(crate) fn unseen(depth: usize) -> f64 {
    1.0 / (as_f64(depth) + 1.0)
}

/// The factor of a tree of mass M, log2(M + 1).
pub(crate) fn normaliser(tree_mass: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a mass is far below 2^53")]
    libm::log2(tree_mass as f64 + 1.0)
}

#[expect(clippy::cast_precision_loss, reason = "depths and counts are far below 2^53")]
pub(crate) fn as_f64(count: usize) -> f64 {
    count as f64
}

impl Forest {
    /// The score of one point, in f64: the reference that the fast path agrees with.
    ///
    /// `point` has [`Forest::dimensions`] finite coordinates. About 1 is usual for a point of the
    /// trained kind, below for a dense place, above for a rare one; never negative.
    ///
    /// # Errors
    /// [`DimensionError`] for another number of coordinates.
    pub fn score(&self, point: &[f32]) -> Result<f64, DimensionError> {
        self.check_dimensions(point.len())?;
        let mut path = Vec::new();
        let sum: f64 = self.trees.iter().map(|tree| self.tree_score(tree, point, &mut path)).sum();
        Ok(sum / as_f64(self.trees.len().max(1)))
    }

    /// Scores a batch: one row of `points` a point, one entry of `scores` a row. The fast path: it
    /// agrees with [`Forest::score`] to about 1e-6 of a score's size.
    ///
    /// # Errors
    /// [`DimensionError`] for another number of columns.
    ///
    /// # Panics
    /// If `scores` is not as long as `points` has rows.
    #[expect(clippy::cast_possible_truncation, reason = "scores are f32 to callers")]
    pub fn score_batch(
        &self,
        points: ArrayView2<'_, f32>,
        mut scores: ArrayViewMut1<'_, f32>,
    ) -> Result<(), DimensionError> {
        self.check_dimensions(points.ncols())?;
        assert_eq!(points.nrows(), scores.len(), "one score a row");
        let Some(kernel) = self.kernel() else {
            for (point, score) in points.rows().into_iter().zip(&mut scores) {
                *score = self.score(&point.to_vec())? as f32;
            }
            return Ok(());
        };
        match scores.as_slice_mut() {
            Some(scores) => kernel.score(self, points.rows().into_iter(), scores),
            None => {
                let mut gathered = vec![0.0; points.nrows()];
                kernel.score(self, points.rows().into_iter(), &mut gathered);
                scores.iter_mut().zip(gathered).for_each(|(score, one)| *score = one);
            }
        }
        Ok(())
    }

    /// Walks down to the leaf where `point` falls. `path` gets the ranks of the internal nodes from
    /// the root; the rank of the leaf is returned, its depth is the length of `path`.
    pub(crate) fn descend(&self, tree: &TreeSpan, point: &[f32], path: &mut Vec<usize>) -> usize {
        path.clear();
        let nodes = self.nodes_of(tree);
        let mut node = nodes[0];
        while !node.is_leaf() {
            path.push(node.rank());
            node = nodes[node.child(point[node.dimension()])];
        }
        node.rank()
    }

    fn tree_score(&self, tree: &TreeSpan, point: &[f32], path: &mut Vec<usize>) -> f64 {
        let leaf = self.descend(tree, point, path);
        let depth = path.len();
        let factor = normaliser(tree.mass);
        if self.point_of(tree, leaf) == point {
            let mass = self.leaf_mass[tree.leaf + leaf];
            return factor * seen(self.leaf_rule, depth, mass, tree.mass);
        }
        let mut s = unseen(depth);
        for (depth, &rank) in path.iter().enumerate().rev() {
            let p = separation(self.box_of(tree, rank), point);
            if p == 0.0 {
                break;
            }
            s = p * unseen(depth) + (1.0 - p) * s;
        }
        factor * s
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;
    use rand_core::SeedableRng;
    use rand_xoshiro::Xoshiro256PlusPlus;

    use super::*;
    use crate::forest::{Params, ValidParams};
    use crate::tree::uniform;

    /// Inserts `x`, which no leaf equals, into a fixed tree by random cuts, and says at which depth
    /// it comes to hang. The slow oracle: of the tree it takes the cuts and the points, and boxes
    /// are looked up among the points below a node.
    fn insertion_depth(forest: &Forest, x: &[f32], rng: &mut Xoshiro256PlusPlus) -> usize {
        let tree = &forest.trees[0];
        let nodes = forest.nodes_of(tree);
        let mut below: Vec<&[f32]> =
            (0..tree.leaves).map(|leaf| forest.point_of(tree, leaf)).collect();
        let (mut node, mut depth) = (nodes[0], 0);
        loop {
            let side = |i: usize| {
                let column = || below.iter().map(|point| point[i]).chain([x[i]]);
                (column().fold(f32::MAX, f32::min), column().fold(f32::MIN, f32::max))
            };
            let sides: Vec<(f32, f32)> = (0..x.len()).map(side).collect();
            let total: f64 = sides.iter().map(|(low, high)| f64::from(high - low)).sum();
            let mut at = uniform(rng) * total;
            let mut i = 0;
            while i + 1 < sides.len() && at >= f64::from(sides[i].1 - sides[i].0) {
                at -= f64::from(sides[i].1 - sides[i].0);
                i += 1;
            }
            let cut = f64::from(sides[i].0) + at;
            let is_left = |point: &[f32]| f64::from(point[i]) <= cut;
            if below.iter().all(|point| is_left(point) != is_left(x)) {
                return depth;
            }
            // The box stays in one piece with x: the tree's own cut stands. At a leaf there is none,
            // and only a cut rounded onto the point comes here.
            if !node.is_leaf() {
                let (dimension, cut) = (node.dimension(), node.cut);
                below.retain(|point| (point[dimension] <= cut) == (x[dimension] <= cut));
                node = nodes[node.child(x[dimension])];
                depth += 1;
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(3), ..ProptestConfig::with_cases(40) })]

        /// Also where rows are repeated: quarters of a small range often are.
        #[test]
        fn a_trees_score_is_the_average_over_random_insertions(
            (rows, x) in (1_usize..4).prop_flat_map(|d| {
                let row = || prop::collection::vec((-8_i8..8).prop_map(|x| f32::from(x) / 4.0), d);
                (prop::collection::vec(row(), 1..25), prop::collection::vec(-3.0_f32..3.0, d))
            }),
            seed: u64,
        ) {
            prop_assume!(!rows.contains(&x));
            let params = ValidParams::new(Params { trees: 1, seed, ..Params::default() }).unwrap();
            let forest =
                Forest::build(x.len(), &params, |_| rows.iter().map(Vec::as_slice)).unwrap();
            let mut rng = Xoshiro256PlusPlus::seed_from_u64(!seed);
            let draws = 3000;
            let factor = (as_f64(rows.len()) + 1.0).log2();
            let scores: Vec<f64> = (0..draws)
                .map(|_| factor / (as_f64(insertion_depth(&forest, &x, &mut rng)) + 1.0))
                .collect();
            let n = f64::from(draws);
            let mean = scores.iter().sum::<f64>() / n;
            let variance = scores.iter().map(|score| (score - mean).powi(2)).sum::<f64>() / n;
            let got = forest.score(&x).unwrap();
            // Five standard errors, and a few draws for depths too rare to be drawn.
            let tolerance = 5.0 * (variance / n).sqrt() + 5.0 * factor / n;
            prop_assert!(
                (got - mean).abs() <= tolerance,
                "average over insertions {mean}, got {got}, tolerance {tolerance}"
            );
        }
    }
}
