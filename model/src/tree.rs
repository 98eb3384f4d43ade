//! One tree: recursive random cuts of a sample down to its distinct points.
//!
//! A cut picks a dimension in proportion to the side of the bounding box and a value uniformly on
//! that side; `x[dimension] <= value` goes left. Copies of a point collapse into one leaf's mass.
//!
//! **Order.** The nodes are numbered breadth first, so that the two children of the `j`-th internal
//! node (from 0, in that order) stand at `2 j + 1` and `2 j + 2`: siblings are neighbours, a child
//! comes after its parent, and the shape of a tree is one bit a node. A tree of `n + 1` leaves has
//! `n` internal nodes and `2 n + 1` nodes in all.

use std::hint::select_unpredictable;

use rand_core::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use crate::bounds;
use crate::forest::TreeSource;

/// One node in 8 bytes: the cut and where the children are, or a leaf and which.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Node {
    /// The cut's value; unused in a leaf.
    pub cut: f32,
    /// Dimension of the cut in the upper bits, [`LEAF`] for a leaf; in the lower bits the rank
    /// among the tree's internal nodes or among its leaves.
    link: u32,
}

/// Bits of a rank: trees of up to 262,144 leaves.
const RANK_BITS: u32 = 18;
const RANK_MASK: u32 = (1 << RANK_BITS) - 1;
/// The value in place of a dimension that marks a leaf.
const LEAF: u32 = u32::MAX >> RANK_BITS;

/// Most dimensions a point may have: SageMaker's limit, and the packed node's is just above it.
pub const MAX_DIMENSIONS: usize = 10_000;

/// Most points a tree's sample may have.
pub const MAX_SAMPLES: usize = 1 << (RANK_BITS - 1);

/// Largest magnitude of a coordinate: the difference of two, summed over 10,000 dimensions, stays
/// finite in f32.
pub const MAX_COORDINATE: f32 = 1e30;

#[expect(clippy::cast_possible_truncation, reason = "both are below their limits by construction")]
impl Node {
    /// A leaf, the first of its tree.
    pub(crate) const LEAF: Self = Self { cut: 0.0, link: LEAF << RANK_BITS };

    /// An internal node with its cut and rank, or the leaf of a rank; without a branch, since which it
    /// is can't be predicted.
    pub(crate) fn new(
        is_internal: bool,
        dimension: usize,
        cut: f32,
        internal: usize,
        leaf: usize,
    ) -> Self {
        debug_assert!(!is_internal || dimension < MAX_DIMENSIONS && internal < MAX_SAMPLES);
        debug_assert!(is_internal || leaf < MAX_SAMPLES);
        let (dimension, rank) = (
            select_unpredictable(is_internal, dimension as u32, LEAF),
            select_unpredictable(is_internal, internal, leaf),
        );
        // A mask, since the compiler makes a branch of a choice that ends in a float.
        let cut = f32::from_bits(cut.to_bits() & u32::from(is_internal).wrapping_neg());
        Self { cut, link: dimension << RANK_BITS | rank as u32 }
    }
}

impl Node {
    pub(crate) fn is_leaf(self) -> bool {
        self.link >> RANK_BITS == LEAF
    }

    /// Dimension of the cut of an internal node.
    pub(crate) fn dimension(self) -> usize {
        (self.link >> RANK_BITS) as usize
    }

    /// Rank among the internal nodes or among the leaves, each from 0 in the order of the tree.
    pub(crate) fn rank(self) -> usize {
        (self.link & RANK_MASK) as usize
    }

    /// The child on the side of the cut where `x` lies.
    pub(crate) fn child(self, x: f32) -> usize {
        2 * self.rank() + 1 + usize::from(x > self.cut)
    }
}

/// A tree's sample with equal points collapsed: `points` holds one row a distinct point, in
/// ascending order of its coordinates; `mass` its copies.
pub(crate) struct DistinctPoints {
    pub dimensions: usize,
    pub points: Vec<f32>,
    pub mass: Vec<u32>,
}

impl DistinctPoints {
    /// Collapses rows of equal coordinates. The order of the rows makes no difference.
    pub(crate) fn collapse<'a>(dimensions: usize, rows: impl Iterator<Item = &'a [f32]>) -> Self {
        let mut rows: Vec<&[f32]> = rows.collect();
        rows.sort_unstable_by(|a, b| {
            a.iter().map(|x| Ordered(*x)).cmp(b.iter().map(|x| Ordered(*x)))
        });
        let mut distinct = Self { dimensions, points: Vec::new(), mass: Vec::new() };
        let mut last: Option<&[f32]> = None;
        for row in rows {
            match distinct.mass.last_mut() {
                Some(mass) if last == Some(row) => *mass += 1,
                _ => {
                    distinct.points.extend_from_slice(row);
                    distinct.mass.push(1);
                }
            }
            last = Some(row);
        }
        distinct
    }

    fn row(&self, index: usize) -> &[f32] {
        &self.points[index * self.dimensions..(index + 1) * self.dimensions]
    }
}

/// Total order of finite floats.
#[derive(PartialEq)]
struct Ordered(f32);
impl Eq for Ordered {}
impl PartialOrd for Ordered {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Ordered {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// The shape and contents of one tree, before it joins a forest's arrays.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct TreeParts {
    /// One bit a node in breadth-first order: true for an internal node.
    pub is_internal: Vec<bool>,
    /// Dimension and value of the cut of each internal node.
    pub cuts: Vec<(usize, f32)>,
    /// Mass of each leaf.
    pub mass: Vec<u32>,
    /// Coordinates of each leaf's point, one row a leaf.
    pub points: Vec<f32>,
}

impl TreeSource for TreeParts {
    fn leaves(&self) -> usize {
        self.mass.len()
    }
    fn is_internal(&self, node: usize) -> bool {
        self.is_internal[node]
    }
    fn cut(&self, rank: usize) -> (usize, f32) {
        self.cuts.get(rank).copied().unwrap_or_default()
    }
    fn mass(&self, rank: usize) -> u32 {
        self.mass[rank]
    }
    fn read_point(&self, rank: usize, point: &mut [f32]) {
        point.copy_from_slice(&self.points[rank * point.len()..][..point.len()]);
    }
}

/// Builds a tree over distinct points by recursive cuts.
pub(crate) fn build(sample: &DistinctPoints, seed: u64) -> TreeParts {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut parts = TreeParts::default();
    let mut order: Vec<usize> = (0..sample.mass.len()).collect();
    let mut bounds = vec![0.0; 2 * sample.dimensions];
    // Breadth first: the ranges of `order` that are still to be cut, in the order of the nodes.
    let mut queue = std::collections::VecDeque::from([(0, order.len())]);
    while let Some((start, end)) = queue.pop_front() {
        let members = &mut order[start..end];
        if let [only] = members {
            parts.is_internal.push(false);
            parts.mass.push(sample.mass[*only]);
            parts.points.extend_from_slice(sample.row(*only));
            continue;
        }
        box_of(sample, members, &mut bounds);
        let (dimension, cut) = random_cut(&bounds, &mut rng);
        let left = partition(members, |&point| sample.row(point)[dimension] <= cut);
        parts.is_internal.push(true);
        parts.cuts.push((dimension, cut));
        queue.push_back((start, start + left));
        queue.push_back((start + left, end));
    }
    parts
}

fn box_of(sample: &DistinctPoints, members: &[usize], bounds: &mut [f32]) {
    bounds::set_to_point(bounds, sample.row(members[0]));
    for &member in &members[1..] {
        bounds::merge_point(bounds, sample.row(member));
    }
}

/// Moves the members that satisfy `goes_left` to the front and counts them. The order within each
/// side doesn't matter: a node is a set.
fn partition(members: &mut [usize], goes_left: impl Fn(&usize) -> bool) -> usize {
    let mut left = 0;
    for at in 0..members.len() {
        if goes_left(&members[at]) {
            members.swap(left, at);
            left += 1;
        }
    }
    left
}

/// A uniform f64 in [0, 1): 53 bits.
pub(crate) fn uniform(rng: &mut Xoshiro256PlusPlus) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit an f64 exactly")]
    let bits = (rng.next_u64() >> 11) as f64;
    bits * f64::EPSILON / 2.0
}

/// A random cut of a box with at least one side above zero: (dimension, value).
///
/// break = U[0,1) * range sum; the first dimension whose side is not below what remains of the
/// break is cut at min + break, or just below max where rounding reaches it, so that both children
/// hold a point.
fn random_cut(bounds: &[f32], rng: &mut Xoshiro256PlusPlus) -> (usize, f32) {
    let (minus, max) = bounds.split_at(bounds.len() / 2);
    let mut remaining = uniform(rng) * bounds::range_sum(bounds);
    let mut last = 0;
    for dimension in 0..max.len() {
        let gap = f64::from(max[dimension] + minus[dimension]);
        if gap > 0.0 {
            last = dimension;
            if remaining <= gap {
                break;
            }
        }
        remaining -= gap;
    }
    // The sum of the gaps can round below the break by a last bit: then the last side is cut.
    let gap = f64::from(max[last] + minus[last]);
    #[expect(clippy::cast_possible_truncation, reason = "cuts are f32, as the points are")]
    let cut = (f64::from(-minus[last]) + remaining.clamp(0.0, gap)) as f32;
    (last, if cut >= max[last] { max[last].next_down() } else { cut })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(rows: &[[f32; 2]]) -> DistinctPoints {
        DistinctPoints::collapse(2, rows.iter().map(<[f32; 2]>::as_slice))
    }

    #[test]
    fn copies_become_mass_whatever_the_order() {
        let a = sample(&[[1.0, 2.0], [0.0, 5.0], [1.0, 2.0], [1.0, -2.0]]);
        let b = sample(&[[1.0, -2.0], [1.0, 2.0], [1.0, 2.0], [0.0, 5.0]]);
        assert_eq!(a.points, [0.0, 5.0, 1.0, -2.0, 1.0, 2.0]);
        assert_eq!(a.mass, [1, 1, 2]);
        assert_eq!((a.points, a.mass), (b.points, b.mass));
    }

    #[test]
    fn a_cut_picks_dimensions_by_length_and_values_uniformly() {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(7);
        let bounds = [0.0, -10.0, -5.0, 3.0, 10.0, 6.0]; // sides 3, 0 and 1
        let (mut first, mut below_middle) = (0, 0);
        let draws = 40_000;
        for _ in 0..draws {
            let (dimension, cut) = random_cut(&bounds, &mut rng);
            match dimension {
                0 => {
                    assert!((0.0..3.0).contains(&cut), "cut {cut} outside [0, 3)");
                    first += 1;
                    below_middle += i32::from(cut < 1.5);
                }
                2 => assert!((5.0..6.0).contains(&cut), "cut {cut} outside [5, 6)"),
                other => panic!("dimension {other} has no length"),
            }
        }
        // Five standard deviations of a binomial: about 430 and 430.
        assert!(
            (i32::abs(first - 30_000)) < 450,
            "first dimension cut {first} of 40000, want 30000"
        );
        assert!(
            (i32::abs(below_middle - first / 2)) < 450,
            "{below_middle} of {first} below the middle"
        );
    }

    #[test]
    fn a_cut_between_neighbouring_floats_still_separates_them() {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(1);
        let low = 1.0_f32;
        let high = low.next_up();
        for _ in 0..100 {
            assert_eq!(random_cut(&[-low, high], &mut rng), (0, low));
        }
    }

    #[test]
    fn one_point_is_one_leaf() {
        let parts = build(&sample(&[[1.0, 2.0], [1.0, 2.0]]), 1);
        assert_eq!(parts.is_internal, [false]);
        assert_eq!((parts.mass, parts.points), (vec![2], vec![1.0, 2.0]));
    }
}
