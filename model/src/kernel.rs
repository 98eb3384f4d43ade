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
//! - **A leaf is a box without sides.** Seen from a point that differs, the probability of separation
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
//! - **A box is (-minima, maxima)** and a point (-x, x): both kinds of gap are one subtraction and one
//!   maximum.
//!
//! A point's score does not depend on the rest of its batch, to the bit: a record that is delivered
//! again gives the same item. Scores are summed in f32 and agree with the plain path to about 1e-6. Coordinates beyond
//! [`MAX_COORDINATE`] count as that far out, NaN as inside every box.

use crate::bounds::range_sum;
use crate::forest::{Forest, TreeSpan};
use crate::score::{normaliser, seen, unseen};
use crate::tree::{MAX_COORDINATE, Node};

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

/// The way up from a leaf.
#[derive(Debug, Clone, PartialEq)]
#[repr(C)]
struct Path {
    /// The leaf's box and those of its nearest ancestors: offsets in floats from the tree's first.
    boxes: [u32; LANES],
    /// The sums of their sides.
    ranges: [f32; LANES],
    /// What the leaf says of a point that equals it.
    seen: f32,
    /// Where the leaf's row of [`Kernel::unseen`] begins.
    unseen_from: u32,
}

/// One tree's place in the arrays. An entry is a box: the leaves' come first, then the internal
/// nodes', then one that holds everything and is its own parent.
#[derive(Debug, Clone, PartialEq)]
struct KernelTree {
    block: usize,
    /// Most blocks on a way from the root to a leaf.
    steps: usize,
    entry: usize,
    leaf: usize,
    leaves: usize,
    /// log2(M + 1).
    factor: f32,
}

/// A forest laid out for scoring.
#[derive(Debug, Clone)]
pub(crate) struct Kernel {
    /// Floats of half a box: the dimensions rounded up to 4 or to a multiple of 8.
    half: usize,
    dimensions: usize,
    trees: Vec<KernelTree>,
    blocks: Vec<Block>,
    /// Negated minima, then maxima, of each entry.
    boxes: Vec<f32>,
    /// For each entry its parent, counted from the tree's first.
    parents: Vec<u32>,
    /// For each entry the sum of the sides of its box.
    ranges: Vec<f32>,
    /// One a leaf.
    paths: Vec<Path>,
    /// 1 / (D + 1), 1 / D, ... 1, 0, 0, ... for the greatest depth D: a leaf at depth d reads from
    /// D - d on what it and its ancestors say of a point that is not in the sample.
    unseen: Vec<f32>,
}

impl Kernel {
    /// Lays a forest out; `None` if a tree is so large that its offsets don't fit (16 GiB of boxes).
    pub(crate) fn new(forest: &Forest) -> Option<Self> {
        let d = forest.dimensions;
        let half = if d <= 4 { 4 } else { d.next_multiple_of(8) };
        let fits = |tree: &TreeSpan| u32::try_from(2 * tree.leaves * 2 * half).is_ok();
        if !forest.trees.iter().all(fits) {
            return None;
        }
        let leaves = forest.leaves();
        let entries = 2 * leaves;
        let mut kernel = Self {
            half,
            dimensions: d,
            trees: Vec::with_capacity(forest.trees.len()),
            blocks: Vec::with_capacity(leaves / 2),
            boxes: vec![0.0; entries * 2 * half],
            parents: vec![0; entries],
            ranges: vec![0.0; entries],
            paths: Vec::with_capacity(leaves),
            unseen: Vec::new(),
        };
        let mut scratch = Scratch::default();
        let mut deepest = 0;
        for tree in &forest.trees {
            deepest = kernel.push_tree(forest, tree, &mut scratch).max(deepest);
        }
        // The table is as deep as the deepest leaf, which is known only now.
        for path in &mut kernel.paths {
            path.unseen_from = deepest - path.unseen_from;
        }
        #[expect(clippy::cast_possible_truncation, reason = "scores are f32 here")]
        let says = |depth: u32| unseen(depth as usize) as f32;
        kernel.unseen = (0..=deepest).rev().map(says).collect();
        kernel.unseen.extend([0.0; 2 * LANES]);
        Some(kernel)
    }

    /// Adds one tree and returns the depth of its deepest leaf.
    #[expect(clippy::cast_possible_truncation, reason = "ranks are below 2^18; scores are f32")]
    fn push_tree(&mut self, forest: &Forest, tree: &TreeSpan, scratch: &mut Scratch) -> u32 {
        let nodes = forest.nodes_of(tree);
        let (d, leaves, width) = (forest.dimensions, tree.leaves, 2 * self.half);
        let (entry, leaf) = (2 * tree.leaf, tree.leaf);
        let everything = 2 * leaves - 1;
        let boxes = &mut self.boxes[entry * width..(entry + 2 * leaves) * width];
        let parents = &mut self.parents[entry..entry + 2 * leaves];
        let ranges = &mut self.ranges[entry..entry + 2 * leaves];
        boxes[everything * width..].fill(f32::MAX);
        ranges[everything] = 1.0;
        parents[everything] = everything as u32;
        let entry_of = |node: Node| if node.is_leaf() { node.rank() } else { leaves + node.rank() };
        let depths = &mut scratch.depths;
        depths.clear();
        depths.resize(nodes.len(), 0);
        parents[entry_of(nodes[0])] = everything as u32;
        for (at, &node) in nodes.iter().enumerate() {
            let mine = entry_of(node);
            let (minus, plus) = boxes[mine * width..(mine + 1) * width].split_at_mut(self.half);
            let (min, max) = if node.is_leaf() {
                let point = forest.point_of(tree, node.rank());
                (point, point)
            } else {
                let bounds = forest.box_of(tree, node.rank());
                ranges[mine] = range_sum(bounds) as f32;
                let (left, right) = children(node);
                for child in [left, right] {
                    depths[child] = depths[at] + 1;
                    parents[entry_of(nodes[child])] = mine as u32;
                }
                bounds.split_at(d)
            };
            minus.iter_mut().zip(min).for_each(|(minus, min)| *minus = -min);
            plus[..d].copy_from_slice(max);
        }
        let mut deepest = 0;
        for (node, &depth) in nodes.iter().zip(&*depths).filter(|(node, _)| node.is_leaf()) {
            let mass = forest.leaf_mass[leaf + node.rank()];
            let mut path = Path {
                boxes: [0; LANES],
                ranges: [0.0; LANES],
                seen: seen(forest.leaf_rule, depth as usize, mass, tree.mass) as f32,
                unseen_from: depth,
            };
            let mut at = node.rank();
            for (offset, range) in path.boxes.iter_mut().zip(&mut path.ranges) {
                (*offset, *range) = ((at * width) as u32, ranges[at]);
                at = parents[at] as usize;
            }
            self.paths.push(path);
            deepest = deepest.max(depth);
        }
        let block = self.blocks.len();
        let steps = self.push_blocks(nodes, scratch);
        let factor = normaliser(tree.mass) as f32;
        self.trees.push(KernelTree { block, steps, entry, leaf, leaves, factor });
        deepest
    }

    /// Cuts a tree into blocks, breadth first, and returns the most blocks on a way to a leaf. A tree
    /// of one leaf has one block that always leads to it.
    #[expect(clippy::cast_possible_truncation, reason = "ranks and blocks are below 2^18")]
    fn push_blocks(&mut self, nodes: &[Node], scratch: &mut Scratch) -> usize {
        let below = &mut scratch.leaves_below;
        below.clear();
        below.resize(nodes.len(), 1);
        for at in (0..nodes.len()).rev().filter(|&at| !nodes[at].is_leaf()) {
            let (left, right) = children(nodes[at]);
            below[at] = below[left] + below[right];
        }
        // Root of each block and its step, in the order of the blocks.
        let roots = &mut scratch.roots;
        roots.clear();
        roots.push((0, 1));
        let mut next = 0;
        let mut steps = 1;
        while let Some(&(root, step)) = roots.get(next) {
            (next, steps) = (next + 1, step);
            let shape = Shape::best(nodes, below, root);
            let mut block = Block {
                cuts: [f32::INFINITY; 8],
                coordinates: [0; 8],
                children: [0; 8],
                flips: shape.flips,
            };
            for (place, &at) in shape.places.iter().enumerate() {
                if !nodes[at].is_leaf() {
                    block.cuts[place] = nodes[at].cut;
                    block.coordinates[place] = (self.half + nodes[at].dimension()) as u32;
                }
            }
            for (child, &at) in block.children.iter_mut().zip(&shape.exits) {
                *child = if nodes[at].is_leaf() {
                    LEAF_BIT | nodes[at].rank() as u32
                } else {
                    roots.push((at, step + 1));
                    ((roots.len() - 1) * size_of::<Block>()) as u32
                };
            }
            self.blocks.push(block);
        }
        steps
    }

    /// Scores a batch: `points` yields one row of coordinates for each of `scores`.
    pub(crate) fn score<'a>(
        &self,
        mut points: impl Iterator<Item = ndarray::ArrayView1<'a, f32>>,
        scores: &mut [f32],
    ) {
        let width = 2 * self.half;
        let mut rows = vec![0.0; width * scores.len().min(CHUNK)];
        for scores in scores.chunks_mut(CHUNK) {
            let rows = &mut rows[..width * scores.len()];
            for (row, point) in rows.chunks_exact_mut(width).zip(points.by_ref()) {
                let (minus, plus) = row.split_at_mut(self.half);
                for ((minus, plus), &x) in minus.iter_mut().zip(plus).zip(point) {
                    *plus = x.clamp(-MAX_COORDINATE, MAX_COORDINATE);
                    *minus = -*plus;
                }
            }
            scores.fill(0.0);
            self.add_scores(rows, scores);
            #[expect(clippy::cast_precision_loss, reason = "at most 10,000 trees")]
            let share = 1.0 / self.trees.len().max(1) as f32;
            scores.iter_mut().for_each(|score| *score *= share);
        }
    }

    /// Adds what each tree says of each row.
    fn add_scores(&self, rows: &[f32], sums: &mut [f32]) {
        #[cfg(target_arch = "x86_64")]
        if simd::is_available() {
            return simd::add_scores(self, rows, sums);
        }
        for tree in &self.trees {
            self.add_scores_plainly(tree, rows, sums);
        }
    }

    /// What one tree adds, without instructions that not every machine has.
    fn add_scores_plainly(&self, tree: &KernelTree, rows: &[f32], sums: &mut [f32]) {
        for (row, sum) in rows.chunks_exact(2 * self.half).zip(sums) {
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
            *sum += tree.factor * self.climb_plainly(tree, (at & !LEAF_BIT) as usize, row);
        }
    }

    fn climb_plainly(&self, tree: &KernelTree, leaf: usize, row: &[f32]) -> f32 {
        let path = &self.paths[tree.leaf + leaf];
        let mut s = path.seen;
        let mut at = leaf;
        for unseen in &self.unseen[path.unseen_from as usize..] {
            let bounds = &self.boxes[(tree.entry + at) * row.len()..][..row.len()];
            let gap = |(&x, &bound): (&f32, &f32)| if x > bound { x - bound } else { 0.0 };
            let out: f32 = row.iter().zip(bounds).map(gap).sum();
            if out == 0.0 {
                break;
            }
            s += out / (out + self.ranges[tree.entry + at]) * (unseen - s);
            at = self.parents[tree.entry + at] as usize;
        }
        s
    }

    /// Bytes of the layout in memory.
    pub(crate) fn memory_bytes(&self) -> usize {
        size_of_val(&self.trees[..])
            + size_of_val(&self.blocks[..])
            + size_of_val(&self.boxes[..])
            + size_of_val(&self.parents[..])
            + size_of_val(&self.ranges[..])
            + size_of_val(&self.paths[..])
            + size_of_val(&self.unseen[..])
    }
}

/// Buffers that serve one tree after the other.
#[derive(Default)]
struct Scratch {
    depths: Vec<u32>,
    leaves_below: Vec<u32>,
    roots: Vec<(usize, usize)>,
}

/// Left and right child of an internal node.
fn children(node: Node) -> (usize, usize) {
    (2 * node.rank() + 1, 2 * node.rank() + 2)
}

/// Which nodes of the tree a block holds, and which its ways out lead to.
struct Shape {
    places: [usize; 7],
    exits: [usize; 8],
    flips: u32,
}

impl Shape {
    /// The shape after which less is left to do: leaves behind a way out times the levels that they
    /// would take in a balanced tree.
    fn best(nodes: &[Node], leaves_below: &[u32], root: usize) -> Self {
        let left = |shape: &Self| -> f64 {
            let work = |&exit: &usize| {
                let leaves = leaves_below[exit];
                f64::from(leaves * (leaves.ilog2() + 1))
            };
            shape.exits.iter().filter(|&&exit| !nodes[exit].is_leaf()).map(work).sum()
        };
        let (levels, chain) = (Self::levels(nodes, root), Self::chain(nodes, leaves_below, root));
        if left(&chain) < left(&levels) { chain } else { levels }
    }

    /// Three whole levels.
    fn levels(nodes: &[Node], root: usize) -> Self {
        let mut places = [root; 15];
        for place in 0..7 {
            let at = places[place];
            let (left, right) = if nodes[at].is_leaf() { (at, at) } else { children(nodes[at]) };
            (places[2 * place + 1], places[2 * place + 2]) = (left, right);
        }
        let mut shape = Self { places: [root; 7], exits: [root; 8], flips: 0 };
        shape.places.copy_from_slice(&places[..7]);
        shape.exits.copy_from_slice(&places[7..]);
        shape
    }

    /// Seven nodes down the side with more leaves: way out i leaves it at node i.
    fn chain(nodes: &[Node], leaves_below: &[u32], root: usize) -> Self {
        let mut shape = Self { places: [root; 7], exits: [root; 8], flips: CHAIN };
        let mut at = root;
        for place in 0..7 {
            shape.places[place] = at;
            if nodes[at].is_leaf() {
                shape.exits[place] = at;
                continue;
            }
            let (left, right) = children(nodes[at]);
            let heavy_right = leaves_below[right] > leaves_below[left];
            shape.flips |= u32::from(heavy_right) << place;
            (shape.exits[place], at) = if heavy_right { (left, right) } else { (right, left) };
        }
        shape.exits[7] = at;
        shape
    }
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
                kernel.score(views(), &mut fast);
                for (at, row) in queries.iter().enumerate() {
                    let want = forest.score(row).expect("its dimensions");
                    let mut wide = vec![0.0; 2 * kernel.half];
                    for (i, &x) in row.iter().enumerate() {
                        (wide[i], wide[kernel.half + i]) = (-x, x);
                    }
                    let mut plain = [0.0];
                    kernel
                        .trees
                        .iter()
                        .for_each(|tree| kernel.add_scores_plainly(tree, &wide, &mut plain));
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
                kernel.score(std::iter::once(row), score);
            }
            for count in [0, 1, 7, 8, 9, 511, 512, 519, CHUNK - 1, CHUNK, CHUNK + 1, CHUNK + 21] {
                let mut scores = vec![0.0; count];
                kernel.score(views(count), &mut scores);
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
        kernel.score(points.iter().map(|row| ndarray::ArrayView1::from(&row[..])), &mut scores);
        assert!(scores.iter().all(|score| score.is_finite() && *score >= 0.0), "{scores:?}");
    }

    /// Once a point closer to a leaf than the least normal float was taken for the leaf's own.
    #[test]
    fn the_closest_point_is_not_the_leaf() {
        let forest = forest(&[vec![0.0, 0.0], vec![1.0, 1.0], vec![0.5, 3.0]]);
        let kernel = Kernel::new(&forest).expect("small");
        for point in [[1e-45, 1e-45], [0.0, -1e-45], [0.0, 0.0]] {
            let mut got = [0.0];
            kernel.score(std::iter::once(ndarray::ArrayView1::from(&point)), &mut got);
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
