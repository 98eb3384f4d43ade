//! From checked trees to a [`Kernel`]: ways down in blocks, and ways up.
//!
//! A cold start waits for this, and whether a node is a leaf can't be predicted. So nothing here asks:
//! nodes are numbered by *slot*, the internal ones by rank and then the leaves by rank, and a leaf is its
//! own child, below which everything stays as it is. Ways down and ways up need nothing of one another
//! and are made on two threads.

use std::hint::select_unpredictable;

use super::{Block, CHAIN, Kernel, KernelTree, LANES, LEAF_BIT, Path};
use crate::beside::beside;
use crate::bounds::range_sum;
use crate::forest::{Forest, TreeSpan};
use crate::score::{normaliser, seen, unseen};
use crate::tree::Node;

impl Kernel {
    /// Lays a forest out; `None` if a tree is so large that its offsets don't fit (16 GiB of boxes).
    pub(crate) fn new(forest: &Forest) -> Option<Self> {
        let fits = |tree: &TreeSpan| u32::try_from(tree.leaves * 2 * forest.half).is_ok();
        if !forest.trees.iter().all(fits) {
            return None;
        }
        let ((trees, blocks), up) =
            beside(forest.bytes(), || ways_down(forest), || WaysUp::new(forest));
        #[expect(clippy::cast_possible_truncation, reason = "scores are f32 here")]
        let says = |depth: u32| unseen(depth as usize) as f32;
        let mut unseen: Vec<f32> = (0..=up.deepest).rev().map(says).collect();
        unseen.extend([0.0; 2 * LANES]);
        let WaysUp { parents, ranges, paths, deepest } = up;
        Some(Self { trees, blocks, parents, ranges, paths, unseen, deepest })
    }
}

/// The slot of a node in a tree of so many internal ones.
#[expect(clippy::cast_possible_truncation, reason = "ranks are below 2^18")]
fn slot_of(node: Node, internals: usize) -> u32 {
    (node.rank() + select_unpredictable(node.is_leaf(), internals, 0)) as u32
}

/// What a kernel holds of the ways from the leaves to the roots.
struct WaysUp {
    parents: Vec<u32>,
    ranges: Vec<f32>,
    paths: Vec<Path>,
    /// Depth of the deepest leaf.
    deepest: u32,
}

/// A node's place in its tree.
#[derive(Clone, Copy)]
struct Place {
    /// 1 + the rank of the internal node above; 0 for the root.
    above: u32,
    depth: u32,
}

/// Boxes and the sums of their sides, as in a [`Path`].
#[derive(Clone, Copy)]
struct WayUp {
    boxes: [u32; LANES - 1],
    ranges: [f32; LANES - 1],
}

/// Buffers that serve one tree after the other.
#[derive(Default)]
struct UpScratch {
    /// By slot.
    places: Vec<Place>,
    /// First that of nothing but the box that holds everything; then for each internal node its own
    /// box and those of its ancestors, the nearest first.
    ways: Vec<WayUp>,
}

impl WaysUp {
    fn new(forest: &Forest) -> Self {
        let leaves = forest.leaves();
        let mut up = Self {
            parents: Vec::with_capacity(leaves),
            ranges: Vec::with_capacity(leaves),
            paths: Vec::with_capacity(leaves),
            deepest: 0,
        };
        let mut scratch = UpScratch::default();
        forest.trees.iter().for_each(|tree| up.push(forest, tree, &mut scratch));
        up
    }

    /// Adds the next tree.
    #[expect(clippy::cast_possible_truncation, reason = "ranks are below 2^18; scores are f32")]
    fn push(&mut self, forest: &Forest, tree: &TreeSpan, scratch: &mut UpScratch) {
        let UpScratch { places, ways } = scratch;
        let nodes = forest.nodes_of(tree);
        // As many boxes as internal nodes, and behind them the one that holds everything.
        let (internals, width) = (tree.leaves - 1, 2 * forest.half);
        places.clear();
        places.resize(nodes.len(), Place { above: 0, depth: 0 });
        // Nodes but the root come in pairs, a parent's two, and after their parent.
        for (parent, pair) in nodes[1..].as_chunks::<2>().0.iter().enumerate() {
            let place = Place { above: parent as u32 + 1, depth: places[parent].depth + 1 };
            for &node in pair {
                places[slot_of(node, internals) as usize] = place;
            }
        }

        let first = self.parents.len();
        self.parents.extend(places[..internals].iter().map(|place| place.above.wrapping_sub(1)));
        self.parents.push(internals as u32);
        // The root's is the box that holds everything.
        self.parents[first] = internals as u32;
        let boxes = &forest.boxes[tree.leaf * width..][..internals * width];
        self.ranges.extend(boxes.chunks_exact(width).map(|bounds| range_sum(bounds) as f32));
        self.ranges.push(1.0);

        // Above the box that holds everything is that box again.
        let top =
            WayUp { boxes: [(internals * width) as u32; LANES - 1], ranges: [1.0; LANES - 1] };
        ways.clear();
        ways.resize(tree.leaves, top);
        let ranges = &self.ranges[first..];
        for (rank, (place, &range)) in places[..internals].iter().zip(ranges).enumerate() {
            let (above, rest) = ways.split_at_mut(rank + 1);
            let (above, way) = (&above[place.above as usize], &mut rest[0]);
            (way.boxes[0], way.ranges[0]) = ((rank * width) as u32, range);
            way.boxes[1..].copy_from_slice(&above.boxes[..LANES - 2]);
            way.ranges[1..].copy_from_slice(&above.ranges[..LANES - 2]);
        }
        let masses = &forest.leaf_mass[tree.leaf..];
        let path = |(&Place { above, depth }, &mass): (&Place, &u32)| {
            self.deepest = self.deepest.max(depth);
            let seen = seen(forest.leaf_rule, depth as usize, mass, tree.mass) as f32;
            let way = &ways[above as usize];
            Path { depth, boxes: way.boxes, seen, ranges: way.ranges }
        };
        self.paths.extend(places[internals..].iter().zip(masses).map(path));
    }
}

/// A node as the ways down look at it.
#[derive(Clone, Copy)]
struct Below {
    /// Slots of the left and the right child; a leaf's are itself.
    children: [u32; 2],
    /// Infinite for a leaf.
    cut: f32,
    /// Where in a point's row the coordinate stands that it cuts; 0 for a leaf.
    coordinate: u32,
    /// Leaves from here on down.
    leaves: u32,
    /// These times the levels that they would take in a balanced tree; 0 for a leaf.
    work: u32,
    /// Which of the children has more leaves, the left one if neither has.
    heavy: u32,
    /// Work of the other.
    light_work: u32,
}

/// Buffers that serve one tree after the other.
#[derive(Default)]
struct DownScratch {
    /// By slot.
    below: Vec<Below>,
    /// Slot of the root of each block and its step, in the order of the blocks; then room for one more.
    roots: Vec<(u32, u32)>,
}

/// Each tree's place, and the blocks of all.
fn ways_down(forest: &Forest) -> (Vec<KernelTree>, Vec<Block>) {
    let mut blocks = Vec::with_capacity(forest.leaves() / 2);
    let mut scratch = DownScratch::default();
    #[expect(clippy::cast_possible_truncation, reason = "scores are f32 here")]
    let place = |tree: &TreeSpan| {
        let block = blocks.len();
        scratch.read(forest.nodes_of(tree), forest.half);
        let steps = scratch.push_blocks(&mut blocks);
        let factor = normaliser(tree.mass) as f32;
        KernelTree { block, steps, leaf: tree.leaf, leaves: tree.leaves, factor }
    };
    let trees = forest.trees.iter().map(place).collect();
    (trees, blocks)
}

impl DownScratch {
    /// Takes up a tree.
    #[expect(clippy::cast_possible_truncation, reason = "widths are below 2^15")]
    fn read(&mut self, nodes: &[Node], half: usize) {
        let internals = nodes.len() / 2;
        let alone = |node: Node| {
            let is_leaf = node.is_leaf();
            let cut = select_unpredictable(is_leaf, f32::INFINITY.to_bits(), node.cut.to_bits());
            Below {
                children: [slot_of(node, internals); 2],
                cut: f32::from_bits(cut),
                coordinate: select_unpredictable(is_leaf, 0, (half + node.dimension()) as u32),
                leaves: 1,
                work: 0,
                heavy: 0,
                light_work: 0,
            }
        };
        let below = &mut self.below;
        below.clear();
        below.resize(nodes.len(), alone(nodes[0]));
        for (parent, pair) in nodes[1..].as_chunks::<2>().0.iter().enumerate() {
            below[parent].children = pair.map(|node| slot_of(node, internals));
            for &node in pair {
                below[slot_of(node, internals) as usize] = alone(node);
            }
        }
        for at in (0..internals).rev() {
            let [left, right] = below[at].children.map(|child| &below[child as usize]);
            let is_right = right.leaves > left.leaves;
            let (leaves, light_work) =
                (left.leaves + right.leaves, select_unpredictable(is_right, left.work, right.work));
            let at = &mut below[at];
            (at.leaves, at.work) = (leaves, leaves * (leaves.ilog2() + 1));
            (at.heavy, at.light_work) = (u32::from(is_right), light_work);
        }
    }

    /// Cuts the tree into blocks, breadth first, and returns the most blocks on a way to a leaf. A tree
    /// of one leaf has one block that always leads to it.
    #[expect(clippy::cast_possible_truncation, reason = "ranks and blocks are below 2^18")]
    fn push_blocks(&mut self, blocks: &mut Vec<Block>) -> usize {
        let Self { below, roots } = self;
        let internals = below.len() / 2;
        // An internal node is the root of one block at most.
        roots.clear();
        roots.resize(internals + 2, (0, 1));
        let (mut next, mut count, mut steps) = (0, 1, 1);
        let mut shapes = Shapes([[0; 15]; 2]);
        while next < count {
            let (root, step) = roots[next];
            (next, steps) = (next + 1, step);
            let (shape, flips) = shapes.best(below, root);
            // Written in its place: read again so soon, it would be waited for.
            let at = blocks.len();
            blocks.push(Block {
                cuts: [f32::INFINITY; 8],
                coordinates: [0; 8],
                children: [0; 8],
                flips,
            });
            let block = &mut blocks[at];
            for (place, &at) in shape[..7].iter().enumerate() {
                let node = &below[at as usize];
                (block.cuts[place], block.coordinates[place]) = (node.cut, node.coordinate);
            }
            for (child, &at) in block.children.iter_mut().zip(&shape[7..]) {
                let is_leaf = at as usize >= internals;
                let leaf = LEAF_BIT | at.wrapping_sub(internals as u32);
                *child = select_unpredictable(is_leaf, leaf, (count * size_of::<Block>()) as u32);
                roots[count] = (at, step + 1);
                count += usize::from(!is_leaf);
            }
        }
        steps as usize
    }
}

/// The two shapes that a block may have, each as the slots of seven nodes and then of the eight that its
/// ways out lead to: three whole levels, and seven nodes down the side with more leaves.
struct Shapes([[u32; 15]; 2]);

impl Shapes {
    /// The shape of a block at a root whose ways out have less work behind them, and its flips.
    fn best(&mut self, below: &[Below], root: u32) -> (&[u32; 15], u32) {
        let [levels, chain] = &mut self.0;
        levels[0] = root;
        for place in 0..7 {
            let [left, right] = below[levels[place] as usize].children;
            (levels[2 * place + 1], levels[2 * place + 2]) = (left, right);
        }
        let left_by_levels: u32 = levels[7..].iter().map(|&exit| below[exit as usize].work).sum();
        let (mut at, mut flips, mut left_by_chain) = (root, CHAIN, 0);
        for place in 0..7 {
            let node = &below[at as usize];
            let heavy = node.heavy as usize & 1;
            flips |= node.heavy << place;
            left_by_chain += node.light_work;
            // Way out i leaves the chain at node i.
            (chain[place], chain[7 + place]) = (at, node.children[heavy ^ 1]);
            at = node.children[heavy];
        }
        chain[14] = at;
        left_by_chain += below[at as usize].work;
        let is_chain = left_by_chain < left_by_levels;
        (&self.0[usize::from(is_chain)], select_unpredictable(is_chain, flips, 0))
    }
}
