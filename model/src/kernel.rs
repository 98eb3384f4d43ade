//! The fast path: a batch of points over frozen trees.
//!
//! The formulas are those of [`crate::score`]; what differs is the order of the work and the layout.
//!
//! - **Trees outside, points inside.** One tree's arrays stay in the near caches while a chunk of
//!   points goes through it.
//! - **Seven nodes a step.** A [`Block`] holds seven nodes, compared with the point all at once; the
//!   seven bits are looked up in [`EXITS`] and give one of eight ways out. Its shape is either three
//!   whole levels or a chain of seven down the heavier side, whichever leaves less to do: random cuts
//!   peel outliers off one by one, so chains are common, and 11.6 levels become 3.4 steps.
//! - **A leaf is a box without sides**, kept as its point. Seen from a point that differs, the probability of separation
//!   is 1 there and the score 1 / (d + 1), just as for a box; seen from a point that is equal it is 0,
//!   and so is it in every box above, and what the leaf says stands. So there is no case apart.
//! - **Eight levels a step.** For a leaf and its seven nearest ancestors ([`Path`]) the gaps and the
//!   probabilities are computed together, without asking after each whether the box holds the point:
//!   where it does, p is 0 and changes nothing. Only where the eighth still has a gap does it go on.
//! - **Leaf by leaf.** Many points are sorted by the leaf on which they fell, so that those that see the
//!   same boxes follow one another while these are near. With at most four dimensions they climb
//!   together, eight points a vector, one level after the other.
//! - **Eight points in one tree, or one point in eight trees**, whichever there are: so that a batch of
//!   one, too, has eight searches on their way at any time.
//! - **The next tree is asked for while points go through this one**: a batch seldom finds the forest in
//!   the caches, since other work was done since the last.
//! - **A box is (-minima, maxima)** and a point (-x, x): both kinds of gap are one subtraction each.
//! - **Nothing is held twice**: points and boxes are the forest's own, padded there to whole vectors;
//!   what is made here is ways down ([`Block`]) and up ([`Path`]).
//!
//! A point's score does not depend on the rest of its batch, to the bit: a record that is delivered
//! again gives the same item. Scores are summed in f32 and agree with the plain path to about 1e-6. Coordinates beyond
//! [`MAX_COORDINATE`] count as that far out, NaN as inside every box.

use crate::forest::Forest;
use crate::tree::MAX_COORDINATE;

#[cfg(target_arch = "x86_64")]
mod ahead;
mod layout;
#[cfg(target_arch = "x86_64")]
mod simd;

/// Points that go through a tree before the next tree's turn: enough to make what is prepared for a
/// tree worth it, few enough for their rows to stay near.
const CHUNK: usize = 4096;
/// Points that go through a tree together, and levels that are climbed together.
const LANES: usize = 8;
/// Marks a child that is a leaf.
const LEAF_BIT: u32 = 1 << 31;
/// Added to the bits of a chain to look them up in [`EXITS`].
const CHAIN: u32 = 256;

/// Seven nodes of a tree. One that isn't there has an infinite cut, so that everything goes left.
#[derive(Debug, Clone, PartialEq)]
#[repr(C, align(32))]
struct Block {
    cuts: [f32; 8],
    /// Where in a point's row the coordinate stands that each node cuts.
    coordinates: [u32; 8],
    /// For each way out the offset in bytes of a block of the tree, or a leaf with [`LEAF_BIT`].
    children: [u32; 8],
    /// Bits to turn round before the look-up: in a chain those of nodes whose heavier side is right,
    /// and [`CHAIN`].
    flips: u32,
}

/// The way out that seven comparisons lead to; bit i is set where the point goes right at node i.
/// First for three whole levels: node 0, below it 1 and 2, below these 3 to 6. Then for a chain: it is
/// left at the first node whose bit is set.
const EXITS: [u8; 512] = {
    let mut exits = [0; 512];
    let mut bits = 0;
    while bits < 256 {
        let first = bits & 1;
        let second = (bits >> (1 + first)) & 1;
        let third = (bits >> (3 + 2 * first + second)) & 1;
        exits[bits] = (4 * first + 2 * second + third) as u8;
        exits[CHAIN as usize + bits] = (bits | 128).trailing_zeros() as u8;
        bits += 1;
    }
    exits
};

/// The way up from a leaf: one line of the cache.
#[derive(Debug, Clone, PartialEq)]
#[repr(C, align(64))]
struct Path {
    /// The leaf's depth, 0 for a root.
    depth: u32,
    /// The boxes of its nearest ancestors: offsets in floats from the tree's first.
    boxes: [u32; LANES - 1],
    /// What the leaf says of a point that equals it.
    seen: f32,
    /// The sums of the boxes' sides.
    ranges: [f32; LANES - 1],
}

/// One tree's place in the arrays.
#[derive(Debug, Clone, PartialEq)]
struct KernelTree {
    block: usize,
    /// Most blocks on a way from the root to a leaf.
    steps: usize,
    /// The first of its leaves, and of its boxes.
    leaf: usize,
    leaves: usize,
    /// log2(M + 1).
    factor: f32,
}

/// What scoring wants of a forest beside its points and boxes.
#[derive(Debug, Clone)]
pub(crate) struct Kernel {
    trees: Vec<KernelTree>,
    blocks: Vec<Block>,
    /// For each box its parent, by rank. The one that holds everything is the root's and its own.
    parents: Vec<u32>,
    /// For each box the sum of its sides.
    ranges: Vec<f32>,
    /// One a leaf.
    paths: Vec<Path>,
    /// 1 / (D + 1), 1 / D, ... 1, 0, 0, ... for the greatest depth D: a leaf at depth d reads from
    /// D - d on what it and its ancestors say of a point that is not in the sample.
    unseen: Vec<f32>,
    /// D.
    deepest: u32,
}

impl Kernel {
    /// Scores a batch with the forest that the kernel was made from: `points` yields one row of
    /// coordinates for each of `scores`.
    pub(crate) fn score<'a>(
        &self,
        forest: &Forest,
        mut points: impl Iterator<Item = ndarray::ArrayView1<'a, f32>>,
        scores: &mut [f32],
    ) {
        let width = 2 * forest.half;
        let mut rows = vec![0.0; width * scores.len().min(CHUNK)];
        for scores in scores.chunks_mut(CHUNK) {
            let rows = &mut rows[..width * scores.len()];
            for (row, point) in rows.chunks_exact_mut(width).zip(points.by_ref()) {
                let (minus, plus) = row.split_at_mut(forest.half);
                for ((minus, plus), &x) in minus.iter_mut().zip(plus).zip(point) {
                    *plus = x.clamp(-MAX_COORDINATE, MAX_COORDINATE);
                    *minus = -*plus;
                }
            }
            scores.fill(0.0);
            self.add_scores(forest, rows, scores);
            #[expect(clippy::cast_precision_loss, reason = "at most 10,000 trees")]
            let share = 1.0 / self.trees.len().max(1) as f32;
            scores.iter_mut().for_each(|score| *score *= share);
        }
    }

    /// Adds what each tree says of each row.
    fn add_scores(&self, forest: &Forest, rows: &[f32], sums: &mut [f32]) {
        #[cfg(target_arch = "x86_64")]
        if simd::is_available() {
            return simd::add_scores(self, forest, rows, sums);
        }
        for tree in &self.trees {
            self.add_scores_plainly(forest, tree, rows, sums);
        }
    }

    /// What one tree adds, without instructions that not every machine has.
    fn add_scores_plainly(
        &self,
        forest: &Forest,
        tree: &KernelTree,
        rows: &[f32],
        sums: &mut [f32],
    ) {
        for (row, sum) in rows.chunks_exact(2 * forest.half).zip(sums) {
            let mut at = 0;
            while at & LEAF_BIT == 0 {
                let block = &self.blocks[tree.block + at as usize / size_of::<Block>()];
                let mut bits = 0;
                for (place, (cut, &coordinate)) in
                    block.cuts.iter().zip(&block.coordinates).enumerate()
                {
                    bits |= u32::from(row[coordinate as usize] > *cut) << place;
                }
                at = block.children[usize::from(EXITS[(bits ^ block.flips) as usize])];
            }
            let leaf = tree.leaf + (at & !LEAF_BIT) as usize;
            *sum += tree.factor * self.climb_plainly(forest, tree, leaf, row);
        }
    }

    fn climb_plainly(&self, forest: &Forest, tree: &KernelTree, leaf: usize, row: &[f32]) -> f32 {
        let (half, width) = (forest.half, 2 * forest.half);
        let path = &self.paths[leaf];
        let point = &forest.points[leaf * half..][..half];
        // NaN is apart from nothing.
        let apart = |(&x, &y): (&f32, &f32)| (x - y).abs() > 0.0;
        if !row[half..].iter().zip(point).any(apart) {
            return path.seen;
        }
        let mut unseen = self.unseen[self.unseen_from(path)..].iter();
        let mut s = unseen.next().copied().unwrap_or(0.0);
        let mut at = path.boxes[0] as usize / width;
        for unseen in unseen {
            let bounds = &forest.boxes[(tree.leaf + at) * width..][..width];
            let gap = |(&x, &bound): (&f32, &f32)| if x > bound { x - bound } else { 0.0 };
            let out: f32 = row.iter().zip(bounds).map(gap).sum();
            if out == 0.0 {
                break;
            }
            s += out / (out + self.ranges[tree.leaf + at]) * (unseen - s);
            at = self.parents[tree.leaf + at] as usize;
        }
        s
    }

    /// Where the row of [`Kernel::unseen`] of a path's leaf begins.
    #[inline(always)]
    fn unseen_from(&self, path: &Path) -> usize {
        (self.deepest - path.depth) as usize
    }

    /// Bytes of the layout in memory.
    pub(crate) fn memory_bytes(&self) -> usize {
        size_of_val(&self.trees[..])
            + size_of_val(&self.blocks[..])
            + size_of_val(&self.parents[..])
            + size_of_val(&self.ranges[..])
            + size_of_val(&self.paths[..])
            + size_of_val(&self.unseen[..])
    }
}

/// Runs plain code as the compiler makes it for AVX2, where the machine has it: the same operations in
/// the same order, more of them at a time. It must be marked to be inlined always.
#[inline]
pub(crate) fn with_vectors<T>(work: impl FnOnce() -> T) -> T {
    #[cfg(target_arch = "x86_64")]
    if simd::is_available() {
        return simd::with_vectors(work);
    }
    work()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forest::{Params, ValidParams};
    use crate::tree::uniform;
    use rand_core::SeedableRng;
    use rand_xoshiro::Xoshiro256PlusPlus;

    /// Rows with a dense middle, a long tail, copies and neighbours of one another.
    fn rows(count: usize, dimensions: usize, seed: u64) -> Vec<Vec<f32>> {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        let mut rows: Vec<Vec<f32>> = (0..count)
            .map(|_| {
                let far = if uniform(&mut rng) < 0.05 { 50.0 } else { 1.0 };
                (0..dimensions).map(|_| (far * (uniform(&mut rng) - 0.5)) as f32).collect()
            })
            .collect();
        for at in (0..count).step_by(7) {
            rows[at] = rows[at / 2].clone();
        }
        rows
    }

    fn forest(rows: &[Vec<f32>]) -> Forest {
        let params = ValidParams::new(Params { trees: 7, ..Params::default() }).expect("in range");
        let step = |tree: usize| rows.iter().skip(tree % rows.len()).map(Vec::as_slice);
        Forest::build(rows[0].len(), &params, step).expect("sound")
    }

    /// The fast path, its plain twin and the formulas agree on points inside, outside, equal to and
    /// next to the sample's, whatever the dimensions and however full the last group.
    #[test]
    fn every_path_gives_the_same_scores() {
        for dimensions in [1, 2, 3, 4, 5, 8, 9, 16, 17, 32, 40] {
            for count in [1, 2, 3, 40, 300] {
                let sample = rows(count, dimensions, 11);
                let forest = forest(&sample);
                let kernel = Kernel::new(&forest).expect("small");
                let mut queries = rows(61, dimensions, 12);
                queries.extend(sample.iter().take(30).cloned());
                queries.extend(
                    sample.iter().take(10).map(|row| row.iter().map(|x| x.next_up()).collect()),
                );
                queries.push(vec![1e30; dimensions]);
                queries.push(vec![-1e30; dimensions]);
                queries.push(vec![0.0; dimensions]);
                let views = || queries.iter().map(|row| ndarray::ArrayView1::from(&row[..]));
                let mut fast = vec![f32::NAN; queries.len()];
                kernel.score(&forest, views(), &mut fast);
                for (at, row) in queries.iter().enumerate() {
                    let want = forest.score(row).expect("its dimensions");
                    let mut wide = vec![0.0; 2 * forest.half];
                    for (i, &x) in row.iter().enumerate() {
                        (wide[i], wide[forest.half + i]) = (-x, x);
                    }
                    let mut plain = [0.0];
                    kernel.trees.iter().for_each(|tree| {
                        kernel.add_scores_plainly(&forest, tree, &wide, &mut plain)
                    });
                    for (path, got) in [("fast", fast[at]), ("plain twin", plain[0] / 7.0)] {
                        assert!(
                            (f64::from(got) - want).abs() < 2e-6 * want.max(1.0),
                            "{dimensions} dimensions, {count} rows, query {at}: {path} {got}, want {want}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn a_score_does_not_depend_on_its_batch_by_a_bit() {
        for dimensions in [1, 2, 3, 4, 5, 16, 32, 40] {
            let forest = forest(&rows(256, dimensions, 3));
            let kernel = Kernel::new(&forest).expect("small");
            let queries = rows(CHUNK + 21, dimensions, 4);
            let views = |count: usize| {
                queries.iter().take(count).map(|row| ndarray::ArrayView1::from(&row[..]))
            };
            let mut one_by_one = vec![0.0; queries.len()];
            for (score, row) in one_by_one.chunks_mut(1).zip(views(queries.len())) {
                kernel.score(&forest, std::iter::once(row), score);
            }
            for count in [0, 1, 7, 8, 9, 1023, 1024, 1031, CHUNK - 1, CHUNK, CHUNK + 1, CHUNK + 21]
            {
                let mut scores = vec![0.0; count];
                kernel.score(&forest, views(count), &mut scores);
                for (at, (got, want)) in scores.iter().zip(&one_by_one).enumerate() {
                    assert_eq!(got, want, "{dimensions} dimensions, {at} of {count}; want: alone");
                }
            }
        }
    }

    #[test]
    fn coordinates_that_are_no_numbers_or_too_large_do_no_harm() {
        let forest = forest(&rows(100, 2, 5));
        let kernel = Kernel::new(&forest).expect("small");
        let mut scores = [0.0; 4];
        let points = [[f32::NAN, 0.0], [f32::INFINITY, f32::MIN], [f32::NAN; 2], [f32::MAX; 2]];
        kernel.score(
            &forest,
            points.iter().map(|row| ndarray::ArrayView1::from(&row[..])),
            &mut scores,
        );
        assert!(scores.iter().all(|score| score.is_finite() && *score >= 0.0), "{scores:?}");
    }

    /// Once a point closer to a leaf than the least normal float was taken for the leaf's own.
    #[test]
    fn the_closest_point_is_not_the_leaf() {
        let forest = forest(&[vec![0.0, 0.0], vec![1.0, 1.0], vec![0.5, 3.0]]);
        let kernel = Kernel::new(&forest).expect("small");
        for point in [[1e-45, 1e-45], [0.0, -1e-45], [0.0, 0.0]] {
            let mut got = [0.0];
            kernel.score(&forest, std::iter::once(ndarray::ArrayView1::from(&point)), &mut got);
            let want = forest.score(&point).expect("its dimensions");
            assert!((f64::from(got[0]) - want).abs() < 1e-6, "{point:?}: {got:?}, want {want}");
        }
    }

    #[test]
    fn exits_follow_the_bits() {
        assert_eq!(EXITS[0b000_0000], 0);
        assert_eq!(EXITS[0b000_0001], 4, "right, then left, left");
        assert_eq!(EXITS[0b000_0010], 2, "left, right, left");
        assert_eq!(EXITS[0b111_1111], 7);
        assert_eq!(EXITS[0b000_0101], 6, "right, right, left");
        assert_eq!(EXITS[CHAIN as usize], 7, "a chain to its end");
        assert_eq!(EXITS[CHAIN as usize + 0b101_0100], 2, "left at its third node");
    }
}
