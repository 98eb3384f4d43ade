//! Which features a score comes from, and in which direction.
//!
//! At each box on a point's path the probability of separation is a sum of gaps over the sides of
//! the merged box, so each gap's part of it says how much of the score is due to that dimension
//! being above (high) or below (low) what the tree has seen. The entries of an attribution add up
//! to the score. Where the point equals a leaf, the boxes are taken as if its copies were not
//! there, and the result is scaled to the score.

use crate::bounds::{merge, set_to_point};
use crate::forest::{DimensionError, Forest, TreeSpan};
use crate::kernel::with_vectors;
use crate::score::{as_f64, normaliser, seen, unseen};

/// A score split by dimension and direction; the entries of both add up to the score.
#[derive(Debug, Clone, PartialEq)]
pub struct Attribution {
    /// Part of the score due to each coordinate lying above the boxes.
    pub high: Vec<f64>,
    /// Part due to it lying below.
    pub low: Vec<f64>,
}

impl Attribution {
    fn zero(dimensions: usize) -> Self {
        Self { high: vec![0.0; dimensions], low: vec![0.0; dimensions] }
    }

    /// The score: the sum of all entries.
    pub fn total(&self) -> f64 {
        self.high.iter().sum::<f64>() + self.low.iter().sum::<f64>()
    }

    fn entries(&mut self) -> impl Iterator<Item = &mut f64> {
        self.high.iter_mut().chain(&mut self.low)
    }
}

impl Forest {
    /// Splits the score of one point by dimension and direction.
    ///
    /// # Errors
    /// [`DimensionError`] for another number of coordinates than [`Forest::dimensions`].
    pub fn attribution(&self, point: &[f32]) -> Result<Attribution, DimensionError> {
        let mut one = self.attributions([point])?;
        Ok(one.pop().unwrap_or_else(|| Attribution::zero(self.dimensions)))
    }

    /// The same of several points, one entry each in their order: each is as it would be alone, and
    /// together they take less time, since they go through a tree while it is in the near caches.
    ///
    /// # Errors
    /// [`DimensionError`] for another number of coordinates than [`Forest::dimensions`].
    pub fn attributions<'p>(
        &self,
        points: impl IntoIterator<Item = &'p [f32]>,
    ) -> Result<Vec<Attribution>, DimensionError> {
        let mut sums = Vec::new();
        let mut rows: Vec<f32> = Vec::new();
        for point in points {
            self.check_dimensions(point.len())?;
            // As wide as half a box is: entries of dimensions that there aren't stay 0.
            sums.push(Attribution::zero(self.half));
            rows.extend(point);
            rows.resize(sums.len() * self.half, 0.0);
        }
        let mut part = Attribution::zero(self.half);
        let mut scratch = Scratch::new(2 * self.half);
        with_vectors(
            #[inline(always)]
            || {
                for tree in &self.trees {
                    let factor = normaliser(tree.mass);
                    for (row, sum) in rows.chunks_exact(self.half).zip(&mut sums) {
                        self.tree_attribution(tree, row, &mut part, &mut scratch);
                        // Two loops, because a zip of chains is no loop that becomes vectors.
                        let high = sum.high.iter_mut().zip(&part.high);
                        high.for_each(|(sum, part)| *sum += part * factor);
                        let low = sum.low.iter_mut().zip(&part.low);
                        low.for_each(|(sum, part)| *sum += part * factor);
                    }
                }
            },
        );
        let trees = as_f64(self.trees.len().max(1));
        for sum in &mut sums {
            // Below 0 only by the rounding error that `blend` speaks of.
            sum.entries().for_each(|entry| *entry = (*entry / trees).max(0.0));
            sum.high.truncate(self.dimensions);
            sum.low.truncate(self.dimensions);
        }
        Ok(sums)
    }

    /// One tree's part, before its factor. `row` is the point, as wide as half a box.
    #[inline(always)]
    fn tree_attribution(
        &self,
        tree: &TreeSpan,
        row: &[f32],
        part: &mut Attribution,
        scratch: &mut Scratch,
    ) {
        let point = &row[..self.dimensions];
        let leaf = self.descend(tree, point, &mut scratch.path);
        let depth = scratch.path.len();
        let leaf_point = self.point_of(tree, leaf);
        if leaf_point != point {
            set_to_point(&mut scratch.bounds, leaf_point);
            part.entries().for_each(|entry| *entry = 0.0);
            blend(part, &scratch.bounds, row, unseen(depth));
            for (depth, &rank) in scratch.path.iter().enumerate().rev() {
                if blend(part, self.box_of(tree, rank), row, unseen(depth)) == 0.0 {
                    break;
                }
            }
            return;
        }
        let s = seen(self.leaf_rule, depth, self.leaf_mass[tree.leaf + leaf], tree.mass);
        let even = s / as_f64(2 * self.dimensions);
        part.high[..self.dimensions].fill(even);
        part.low[..self.dimensions].fill(even);
        // The boxes as if the leaf were not there: the union of the siblings on the way up.
        let nodes = self.nodes_of(tree);
        let mut below = None;
        for (depth, &rank) in scratch.path.iter().enumerate().rev() {
            let (left, right) = (nodes[2 * rank + 1], nodes[2 * rank + 2]);
            let came_from_left = match below {
                None => left.is_leaf() && left.rank() == leaf,
                Some(below) => !left.is_leaf() && left.rank() == below,
            };
            let sibling = if came_from_left { right } else { left };
            if sibling.is_leaf() {
                set_to_point(&mut scratch.sibling, self.point_of(tree, sibling.rank()));
            } else {
                scratch.sibling.copy_from_slice(self.box_of(tree, sibling.rank()));
            }
            match below {
                None => scratch.bounds.copy_from_slice(&scratch.sibling),
                Some(_) => merge(&mut scratch.bounds, &scratch.sibling),
            }
            below = Some(rank);
            if blend(part, &scratch.bounds, row, unseen(depth)) == 0.0 {
                break;
            }
        }
        let total = part.total();
        if total > 0.0 {
            part.entries().for_each(|entry| *entry *= s / total);
        }
    }
}

struct Scratch {
    path: Vec<usize>,
    bounds: Vec<f32>,
    sibling: Vec<f32>,
}

impl Scratch {
    fn new(width: usize) -> Self {
        Self { path: Vec::new(), bounds: vec![0.0; width], sibling: vec![0.0; width] }
    }
}

/// One step up: entry_i = gap_i / range of the merged box * `unseen` + (1 - p) * entry_i, where p is
/// the sum of the gaps over that range. Returns p; 0 leaves the entries as they are.
///
/// As in AWS's library, and unlike in the score, gaps are f64 differences and the sides of the
/// merged box f32 ones. So p may pass 1 by a rounding error, and the entries add up to the score
/// only to about 1e-7.
#[inline(always)]
fn blend(part: &mut Attribution, bounds: &[f32], row: &[f32], unseen: f64) -> f64 {
    let (minus, max) = bounds.split_at(row.len());
    // Four sums of each kind, which the compiler makes vectors of: rows are multiples of four.
    let (mut gap_sums, mut sides) = ([0.0_f64; 4], [0.0_f64; 4]);
    let fours =
        minus.as_chunks::<4>().0.iter().zip(max.as_chunks::<4>().0).zip(row.as_chunks::<4>().0);
    for ((minus, max), x) in fours {
        for i in 0..4 {
            let (low, high) = gaps(minus[i], max[i], x[i]);
            gap_sums[i] += low + high;
            sides[i] += f64::from(greater(x[i], max[i]) + greater(-x[i], minus[i]));
        }
    }
    let gap_sum: f64 = gap_sums.iter().sum();
    if gap_sum == 0.0 {
        return 0.0;
    }
    let merged: f64 = sides.iter().sum();
    let p = gap_sum / merged;
    let (share, kept) = (unseen / merged, 1.0 - p);
    let ends = minus.iter().zip(max).zip(row);
    for ((entry_high, entry_low), ((&minus, &max), &x)) in
        part.high.iter_mut().zip(&mut part.low).zip(ends)
    {
        let (low, high) = gaps(minus, max, x);
        *entry_high = high * share + kept * *entry_high;
        *entry_low = low * share + kept * *entry_low;
    }
    p
}

/// How far `x` lies below and above a side: (low, high), at most one of them above zero.
#[inline(always)]
fn gaps(minus: f32, max: f32, x: f32) -> (f64, f64) {
    let (minus, max, x) = (f64::from(minus), f64::from(max), f64::from(x));
    let positive = |gap: f64| if gap > 0.0 { gap } else { 0.0 };
    (positive(-x - minus), positive(x - max))
}

/// The greater of both; `bound` where `x` is NaN. One instruction, unlike [`f32::max`].
#[inline(always)]
fn greater(x: f32, bound: f32) -> f32 {
    if x > bound { x } else { bound }
}
