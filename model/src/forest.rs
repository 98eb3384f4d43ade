//! The forest: trees in flat arrays, checked once, then scored without checks that can fail.

use std::hint::select_unpredictable;
use std::sync::OnceLock;

use bincode::{Decode, Encode};
use serde::Serialize;

use crate::bounds::Side;
use crate::kernel::Kernel;
use crate::tree::{self, DistinctPoints, MAX_COORDINATE, MAX_SAMPLES, Node};

/// Most trees a forest may have, ten times SageMaker's limit.
pub const MAX_TREES: usize = 10_000;

/// What a leaf that equals the scored point says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Encode, Decode)]
#[serde(rename_all = "snake_case")]
pub enum LeafRule {
    /// (1 - m / 2M) / (d + log2(m + 1)), as AWS's open library has it.
    #[default]
    Damped,
    /// 1 / (d + log2 m), which the SageMaker endpoint's published in-sample scores fit better.
    Sagemaker,
}

/// How a tree came by its sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Encode, Decode)]
#[serde(rename_all = "snake_case")]
pub enum Sampling {
    /// Keyed bottom-k: a function of the records alone, see [`crate::sample`].
    #[default]
    Keyed,
    /// Contiguous chunks of the rows, as the SageMaker endpoint does when the rows are few.
    Contiguous,
    /// Read from a forest saved by AWS's library.
    Imported,
}

/// What a forest is built with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Encode, Decode)]
pub struct Params {
    /// Number of trees, 1 to [`MAX_TREES`].
    pub trees: u32,
    /// Records sampled for each tree, 2 to [`MAX_SAMPLES`].
    pub samples: u32,
    /// Seed of the sampling and of the cuts.
    pub seed: u64,
    /// What a leaf that equals the scored point says.
    pub leaf_rule: LeafRule,
    /// How a tree came by its sample.
    pub sampling: Sampling,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            trees: 100,
            samples: 256,
            seed: 42,
            leaf_rule: LeafRule::Damped,
            sampling: Sampling::Keyed,
        }
    }
}

/// A parameter out of its range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{name} is {got}; {low} to {high} are allowed")]
pub struct ParamError {
    /// The parameter.
    pub name: &'static str,
    /// Its value.
    pub got: u64,
    /// Least value allowed.
    pub low: u64,
    /// Greatest value allowed.
    pub high: u64,
}

/// Parameters within their ranges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ValidParams(Params);

impl ValidParams {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`ParamError`] names the parameter and its range.
    pub fn new(params: Params) -> Result<Self, ParamError> {
        let check = |name, got: u32, low: usize, high: usize| {
            let (got, low, high) = (u64::from(got), low as u64, high as u64);
            if (low..=high).contains(&got) {
                Ok(())
            } else {
                Err(ParamError { name, got, low, high })
            }
        };
        check("trees", params.trees, 1, MAX_TREES)?;
        check("samples", params.samples, 2, MAX_SAMPLES)?;
        Ok(Self(params))
    }

    /// The plain values.
    pub fn get(&self) -> &Params {
        &self.0
    }
}

/// Why trees can't make a forest.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("tree {tree}: {fault}")]
pub struct StructureError {
    /// Index of the tree.
    pub tree: usize,
    /// What is wrong with it.
    #[source]
    pub fault: StructureFault,
}

/// What is wrong with a tree.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum StructureFault {
    /// No leaf, or too many.
    #[error("it has {leaves} leaves; 1 to {MAX_SAMPLES} are allowed")]
    Leaves {
        /// How many.
        leaves: usize,
    },
    /// A child that is not after its parent, or a node without one: not a tree.
    #[error("node {node} does not hang on an earlier node")]
    Shape {
        /// Position of the node in the tree.
        node: usize,
    },
    /// A cut in a dimension that there isn't.
    #[error("node {node} cuts dimension {dimension} of {dimensions}")]
    Dimension {
        /// Position of the node in the tree.
        node: usize,
        /// The dimension it cuts.
        dimension: usize,
        /// How many there are.
        dimensions: usize,
    },
    /// A cut that doesn't separate the points below it, NaN among them.
    #[error("the cut {cut} of node {node} does not separate the points below it")]
    Cut {
        /// Position of the node in the tree.
        node: usize,
        /// Its cut.
        cut: f32,
    },
    /// A leaf without mass.
    #[error("leaf {leaf} has mass 0")]
    Mass {
        /// Rank of the leaf in the tree.
        leaf: usize,
    },
    /// A coordinate that is NaN, infinite or too large.
    #[error("leaf {leaf} has the coordinate {value}")]
    Coordinate {
        /// Rank of the leaf in the tree.
        leaf: usize,
        /// The coordinate.
        value: f32,
    },
}

/// A point of another number of dimensions than the forest's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the points have {got} dimensions, the forest {expected}")]
pub struct DimensionError {
    /// The forest's.
    pub expected: usize,
    /// The points'.
    pub got: usize,
}

/// Where one tree stands in the forest's arrays.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct TreeSpan {
    /// Index of its root in `nodes`.
    pub node: usize,
    /// Index of its first leaf among all, and of its first box: it has as many boxes as leaves, the
    /// internal nodes' by rank and then one that holds everything.
    pub leaf: usize,
    /// Number of its leaves.
    pub leaves: usize,
    /// Records in its sample, copies included.
    pub mass: u64,
}

/// A Random Cut Forest, frozen: it scores and explains and does not change.
#[derive(Debug, Clone)]
pub struct Forest {
    pub(crate) dimensions: usize,
    pub(crate) leaf_rule: LeafRule,
    pub(crate) trees: Vec<TreeSpan>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) leaf_mass: Vec<u32>,
    /// Floats of a point and of half a box: the dimensions rounded up to 4 or to a multiple of 8, as
    /// vectors want them, with zeros behind the coordinates.
    pub(crate) half: usize,
    /// A row of `half` floats for each leaf.
    pub(crate) points: Vec<f32>,
    /// `2 * half` floats for each box, see [`crate::bounds`].
    pub(crate) boxes: Vec<f32>,
    /// What scoring batches wants beside, made from the rest when first needed; none for trees that
    /// are too large for it.
    kernel: OnceLock<Option<Kernel>>,
}

impl PartialEq for Forest {
    fn eq(&self, other: &Self) -> bool {
        self.dimensions == other.dimensions
            && self.leaf_rule == other.leaf_rule
            && self.trees == other.trees
            && self.nodes == other.nodes
            && self.leaf_mass == other.leaf_mass
            && self.points == other.points
    }
}

/// One tree as someone else has it, so that a snapshot's bytes need no copy between.
pub(crate) trait TreeSource {
    /// Number of leaves.
    fn leaves(&self) -> usize;
    /// Whether the node at a position is internal.
    fn is_internal(&self, node: usize) -> bool;
    /// Dimension and value of the cut of the internal node of a rank; anything for one that isn't there.
    fn cut(&self, rank: usize) -> (usize, f32);
    /// Mass of the leaf of a rank.
    fn mass(&self, rank: usize) -> u32;
    /// Fills in the coordinates of the leaf of a rank.
    fn read_point(&self, rank: usize, point: &mut [f32]);
}

impl Forest {
    /// A forest without trees, to be filled by [`Forest::push_tree`].
    pub(crate) fn empty(dimensions: usize, leaf_rule: LeafRule) -> Self {
        Self {
            dimensions,
            leaf_rule,
            trees: Vec::new(),
            nodes: Vec::new(),
            leaf_mass: Vec::new(),
            half: if dimensions <= 4 { 4 } else { dimensions.next_multiple_of(8) },
            points: Vec::new(),
            boxes: Vec::new(),
            kernel: OnceLock::new(),
        }
    }

    /// The layout that batches are scored with.
    pub(crate) fn kernel(&self) -> Option<&Kernel> {
        self.kernel.get_or_init(|| Kernel::new(self)).as_ref()
    }

    /// Makes room for what is to come: allocated once, none a node.
    pub(crate) fn reserve(&mut self, trees: usize, leaves: usize) {
        self.trees.reserve_exact(trees);
        self.nodes.reserve_exact(2 * leaves);
        self.leaf_mass.reserve_exact(leaves);
        self.points.reserve_exact(self.half * leaves);
        self.boxes.reserve_exact(2 * self.half * leaves);
    }

    /// Builds a forest from one sample a tree. `rows(tree)` gives the tree's points, each of
    /// `dimensions` finite coordinates of at most [`MAX_COORDINATE`]; their order makes no
    /// difference. Tree `t` draws its cuts from a generator of its own, seeded by `seed` and `t`.
    ///
    /// # Errors
    /// [`StructureError`] for a tree without points or with a coordinate out of range.
    pub fn build<'a, I: Iterator<Item = &'a [f32]>>(
        dimensions: usize,
        params: &ValidParams,
        rows: impl Fn(usize) -> I,
    ) -> Result<Self, StructureError> {
        let mut forest = Self::empty(dimensions, params.get().leaf_rule);
        for tree in 0..params.get().trees as usize {
            let sample = DistinctPoints::collapse(dimensions, rows(tree));
            let leaves = sample.mass.len();
            if leaves == 0 || leaves > MAX_SAMPLES {
                return Err(StructureError { tree, fault: StructureFault::Leaves { leaves } });
            }
            let parts = tree::build(&sample, crate::sample::mix(params.get().seed, tree as u64));
            forest.push_tree(&parts)?;
        }
        Ok(forest)
    }

    /// Adds a tree after checking everything that scoring relies on, in this order: number of
    /// leaves, shape, dimensions, masses, coordinates, then, from the leaves up while the boxes are
    /// made, that each cut separates the points below it.
    pub(crate) fn push_tree(&mut self, source: &impl TreeSource) -> Result<(), StructureError> {
        let tree = self.trees.len();
        self.push_checked(source).map_err(|fault| StructureError { tree, fault })
    }

    fn push_checked(&mut self, source: &impl TreeSource) -> Result<(), StructureFault> {
        let leaves = source.leaves();
        if leaves == 0 || leaves > MAX_SAMPLES {
            return Err(StructureFault::Leaves { leaves });
        }
        let span = TreeSpan { node: self.nodes.len(), leaf: self.leaf_mass.len(), leaves, mass: 0 };
        self.push_nodes(source)?;
        let mass = self.push_leaves(source)?;
        self.push_boxes(source, &span)?;
        self.trees.push(TreeSpan { mass, ..span });
        Ok(())
    }

    fn push_nodes(&mut self, source: &impl TreeSource) -> Result<(), StructureFault> {
        let internals = source.leaves() - 1;
        let (mut internal, mut leaf) = (0, 0);
        let first = self.nodes.len();
        self.nodes.resize(first + internals + source.leaves(), Node::LEAF);
        for (node, place) in self.nodes[first..].iter_mut().enumerate() {
            // The parent of the node at p is the internal node of rank (p - 1) / 2; it must have
            // come already.
            if node > 0 && (node - 1) / 2 >= internal {
                return Err(StructureFault::Shape { node });
            }
            // Which it is can't be predicted, that there is nothing wrong with it can.
            let is_internal = source.is_internal(node);
            if select_unpredictable(is_internal, internal == internals, leaf > internals) {
                return Err(StructureFault::Shape { node });
            }
            let (dimension, cut) = source.cut(internal);
            if select_unpredictable(is_internal, dimension, 0) >= self.dimensions {
                let dimensions = self.dimensions;
                return Err(StructureFault::Dimension { node, dimension, dimensions });
            }
            *place = Node::new(is_internal, dimension, cut, internal, leaf);
            internal += usize::from(is_internal);
            leaf += usize::from(!is_internal);
        }
        Ok(())
    }

    fn push_leaves(&mut self, source: &impl TreeSource) -> Result<u64, StructureFault> {
        let mut total = 0;
        let first = self.points.len();
        self.points.resize(first + source.leaves() * self.half, 0.0);
        let rows = self.points[first..].chunks_exact_mut(self.half);
        for (leaf, row) in rows.enumerate() {
            let mass = source.mass(leaf);
            if mass == 0 {
                return Err(StructureFault::Mass { leaf });
            }
            total += u64::from(mass);
            self.leaf_mass.push(mass);
            let point = &mut row[..self.dimensions];
            source.read_point(leaf, point);
            // No range holds NaN.
            let is_sound = |value: &f32| (-MAX_COORDINATE..=MAX_COORDINATE).contains(value);
            if let Some(&value) = point.iter().find(|value| !is_sound(value)) {
                return Err(StructureFault::Coordinate { leaf, value });
            }
        }
        Ok(total)
    }

    /// Makes the boxes from the leaves up: every child comes after its parent, so backwards.
    fn push_boxes(
        &mut self,
        source: &impl TreeSource,
        span: &TreeSpan,
    ) -> Result<(), StructureFault> {
        let (half, width) = (self.half, 2 * self.half);
        let base = self.boxes.len();
        self.boxes.resize(base + span.leaves * width, 0.0);
        let (nodes, points) = (&self.nodes[span.node..], &self.points[span.leaf * half..]);
        for (rank, pair) in nodes[1..].as_chunks::<2>().0.iter().enumerate().rev() {
            // Children are of a higher rank: their boxes lie behind this one's.
            let (before, behind) = self.boxes[base..].split_at_mut((rank + 1) * width);
            let [left, right] = pair.map(|child| {
                let is_leaf = child.is_leaf();
                // Both are read, and one is meant: the choice can't be predicted.
                let point = &points[child.rank() * half..][..half];
                let place = select_unpredictable(is_leaf, 0, child.rank().wrapping_sub(rank + 1));
                Side::new(is_leaf, point, &behind[place * width..][..width])
            });
            left.merge(&right, &mut before[rank * width..]);
            let (dimension, cut) = source.cut(rank);
            if !(left.highest(dimension) <= cut && right.lowest(dimension) > cut) {
                let mut internal = nodes.iter().enumerate().filter(|(_, node)| !node.is_leaf());
                let node = internal.nth(rank).map_or(0, |(node, _)| node);
                return Err(StructureFault::Cut { node, cut });
            }
        }
        self.boxes[base + (span.leaves - 1) * width..].fill(f32::MAX);
        Ok(())
    }

    /// Coordinates of a point.
    pub fn dimensions(&self) -> usize {
        self.dimensions
    }

    /// Number of trees.
    pub fn trees(&self) -> usize {
        self.trees.len()
    }

    /// Number of leaves, that is of distinct points, in all trees.
    pub fn leaves(&self) -> usize {
        self.leaf_mass.len()
    }

    /// Points that the trees hold, each with how many records of its tree's sample it stands for: those
    /// of whole trees, evenly chosen, about `most` of them or fewer (but one tree at least). They are a
    /// sample of the records that the forest was built from; a record may be in several trees.
    pub fn sampled_points(&self, most: usize) -> impl Iterator<Item = (&[f32], u32)> {
        let every = self.leaves().div_ceil(most.max(1)).max(1);
        self.trees.iter().step_by(every).flat_map(move |span| {
            let leaves = 0..span.leaves;
            leaves.map(move |rank| (self.point_of(span, rank), self.leaf_mass[span.leaf + rank]))
        })
    }

    /// What a leaf that equals the scored point says.
    pub fn leaf_rule(&self) -> LeafRule {
        self.leaf_rule
    }

    /// Bytes of the forest's arrays in memory.
    pub fn memory_bytes(&self) -> usize {
        self.bytes() + self.kernel().map_or(0, Kernel::memory_bytes)
    }

    /// The same without what scoring batches wants beside.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&self.trees[..])
            + size_of_val(&self.nodes[..])
            + size_of_val(&self.leaf_mass[..])
            + size_of_val(&self.points[..])
            + size_of_val(&self.boxes[..])
    }

    /// The nodes of a tree in breadth-first order.
    pub(crate) fn nodes_of(&self, span: &TreeSpan) -> &[Node] {
        &self.nodes[span.node..span.node + 2 * span.leaves - 1]
    }

    /// The box of the internal node of a rank.
    pub(crate) fn box_of(&self, span: &TreeSpan, rank: usize) -> &[f32] {
        let width = 2 * self.half;
        &self.boxes[(span.leaf + rank) * width..][..width]
    }

    /// The point of the leaf of a rank.
    pub(crate) fn point_of(&self, span: &TreeSpan, rank: usize) -> &[f32] {
        &self.points[(span.leaf + rank) * self.half..][..self.dimensions]
    }

    /// The leaves' points, one after the other.
    pub(crate) fn points(&self) -> impl Iterator<Item = &[f32]> {
        self.points.chunks_exact(self.half).map(|row| &row[..self.dimensions])
    }

    /// Refuses points of another number of dimensions.
    pub(crate) fn check_dimensions(&self, got: usize) -> Result<(), DimensionError> {
        if got == self.dimensions {
            Ok(())
        } else {
            Err(DimensionError { expected: self.dimensions, got })
        }
    }
}
