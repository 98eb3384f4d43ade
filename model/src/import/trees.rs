//! The cuts and the shape of a saved tree, and its leaves from the points it holds.

use super::json::{Json, Object};
use super::points::{Floats, PointStore, Run};
use super::{ImportError, ImportFault, PRECISIONS, Shape, check_dimensions, unpacked};
use crate::tree::{MAX_SAMPLES, TreeParts};

const TREE_FIELDS: &[&str] = &["root", "dimensions", "nodeStoreState"];
const NODE_STORE_FIELDS: &[&str] = &[
    "precision",
    "capacity",
    "compressed",
    "canonicalAndNotALeaf",
    "size",
    "leftIndex",
    "rightIndex",
    "cutDimension",
    "cutValueData",
];

/// The cuts of a tree and its shape, breadth first: as the file has them, or renumbered.
pub(super) struct Cuts {
    /// Dimension and value of each internal node's cut.
    cuts: Vec<(usize, f32)>,
    /// Whether its left and its right child are internal.
    inner: Vec<[bool; 2]>,
}

/// Where a child is, by rank among the internal nodes or among the leaves, breadth first.
#[derive(Clone, Copy)]
enum Child {
    Node(usize),
    Leaf(usize),
}

impl Cuts {
    pub(super) fn read(tree: &Json<'_>, shape: &Shape) -> Result<Self, ImportError> {
        let state = tree.object(TREE_FIELDS)?;
        check_dimensions(&state, shape)?;
        let store = state.need("nodeStoreState")?.object(NODE_STORE_FIELDS)?;
        store.get("precision").map_or(Ok(()), |precision| precision.one_of(PRECISIONS))?;
        // A sample of n points takes at most n - 1 cuts.
        let capacity = store.need("capacity")?.count(1, MAX_SAMPLES)?;
        let compressed = store.is_true("compressed")?;
        if store.is_true("canonicalAndNotALeaf")? {
            let size = store.need("size")?.count(1, capacity.min(shape.samples - 1))?;
            let raw = RawNodes::read(&store, compressed, capacity, size)?;
            return Ok(Self {
                cuts: (0..size).map(|node| raw.cut(node, shape)).collect::<Result<_, _>>()?,
                inner: (0..size).map(|node| raw.children(node).map(|child| child != 0)).collect(),
            });
        }
        // Without that mark a root that is a node's number means a tree whose children are node
        // numbers, in any order; otherwise the root is a leaf, or nothing at all.
        let root =
            state.get("root").map_or(Ok(-1), |root| root.integer(-1..=i64::from(i32::MAX)))?;
        match usize::try_from(root) {
            Ok(root) if root < capacity && store.get("leftIndex").is_some() => {
                let raw = RawNodes::read(&store, compressed, capacity, capacity)?;
                raw.breadth_first(root, capacity, shape)
            }
            _ => Ok(Self { cuts: Vec::new(), inner: Vec::new() }),
        }
    }

    pub(super) fn leaves(&self) -> usize {
        self.cuts.len() + 1
    }

    /// The children by rank. Every node but the root must be the child of one before it.
    fn children(&self, tree: &Json<'_>) -> Result<Vec<[Child; 2]>, ImportError> {
        let nodes = self.cuts.len();
        let shape_fault = |node: usize| tree.fault(ImportFault::Shape { node: node as i64 });
        // The root is there before any child.
        let (mut node, mut leaf) = (1, 0);
        let mut children = Vec::with_capacity(nodes);
        for (at, inner) in self.inner.iter().enumerate() {
            if at >= node {
                return Err(shape_fault(at));
            }
            children.push(inner.map(|is_node| {
                let rank = if is_node { &mut node } else { &mut leaf };
                *rank += 1;
                if is_node { Child::Node(*rank - 1) } else { Child::Leaf(*rank - 1) }
            }));
        }
        if nodes > 0 && node != nodes { Err(shape_fault(node.min(nodes))) } else { Ok(children) }
    }

    /// Lets the sample's points fall to the leaves.
    pub(super) fn fill(
        self,
        tree: &Json<'_>,
        sample: &[Run],
        points: &PointStore<'_>,
    ) -> Result<TreeParts, ImportError> {
        if sample.is_empty() {
            return Err(tree.fault(ImportFault::EmptyTree));
        }
        let children = self.children(tree)?;
        let (leaves, d) = (self.leaves(), points.dimensions);
        let mut mass = vec![0_u32; leaves];
        let mut rows = vec![0.0; leaves * d];
        let mut row = vec![0.0; d];
        for run in sample {
            points.copy(run.point, &mut row)?;
            let leaf = self.leaf_of(&children, &row);
            let mine = &mut rows[leaf * d..(leaf + 1) * d];
            if mass[leaf] == 0 {
                mine.copy_from_slice(&row);
            } else if *mine != row {
                return Err(tree.fault(ImportFault::NotSeparated { point: run.point }));
            }
            // A sample has at most MAX_SAMPLES points.
            mass[leaf] += run.copies;
        }
        if let Some(leaf) = mass.iter().position(|&mass| mass == 0) {
            return Err(tree.fault(ImportFault::EmptyLeaf { leaf, leaves }));
        }
        let root = [!self.cuts.is_empty()];
        let is_internal = root.into_iter().chain(self.inner.into_iter().flatten()).collect();
        Ok(TreeParts { is_internal, cuts: self.cuts, mass, points: rows })
    }

    /// Rank of the leaf to which a point falls. Children have higher ranks than their parents, so
    /// the walk ends.
    fn leaf_of(&self, children: &[[Child; 2]], row: &[f32]) -> usize {
        let mut at = if children.is_empty() { Child::Leaf(0) } else { Child::Node(0) };
        loop {
            match at {
                Child::Leaf(leaf) => return leaf,
                Child::Node(node) => {
                    let (dimension, cut) = self.cuts[node];
                    at = children[node][usize::from(row[dimension] > cut)];
                }
            }
        }
    }
}

/// The node arrays as the file has them.
struct RawNodes<'a> {
    dimension_path: Json<'a>,
    left_path: Json<'a>,
    left: Vec<i32>,
    right: Vec<i32>,
    dimensions: Vec<i32>,
    values: Floats,
}

impl<'a> RawNodes<'a> {
    /// At least `needed` of each, at most `capacity`.
    fn read(
        store: &Object<'a>,
        compressed: bool,
        capacity: usize,
        needed: usize,
    ) -> Result<RawNodes<'a>, ImportError> {
        let enough = |array: &Json<'_>, got: usize| {
            if got >= needed {
                return Ok(());
            }
            Err(array.fault(ImportFault::Length { got, other: "the number of nodes", needed }))
        };
        let integers = |array: &Json<'_>| {
            let values = unpacked(array, compressed, capacity)?;
            enough(array, values.len()).map(|()| values)
        };
        let (left, right) = (store.need("leftIndex")?, store.need("rightIndex")?);
        let dimensions = store.need("cutDimension")?;
        let values_field = store.need("cutValueData")?;
        let values = Floats::read(&values_field)?;
        enough(&values_field, values.len())?;
        Ok(Self {
            left: integers(&left)?,
            right: integers(&right)?,
            dimensions: integers(&dimensions)?,
            dimension_path: dimensions,
            left_path: left,
            values,
        })
    }

    fn children(&self, node: usize) -> [i32; 2] {
        [self.left[node], self.right[node]]
    }

    fn cut(&self, node: usize, shape: &Shape) -> Result<(usize, f32), ImportError> {
        let got = self.dimensions[node];
        match usize::try_from(got) {
            Ok(dimension) if dimension < shape.dimensions => Ok((dimension, self.values.get(node))),
            _ => {
                let (got, high) = (i64::from(got), shape.dimensions - 1);
                Err(self.dimension_path.fault(ImportFault::Cut { node, got, high }))
            }
        }
    }

    /// Renumbers nodes whose children are node numbers below `capacity`, or leaves from there on.
    fn breadth_first(
        &self,
        root: usize,
        capacity: usize,
        shape: &Shape,
    ) -> Result<Cuts, ImportError> {
        let mut cuts = Cuts { cuts: Vec::new(), inner: Vec::new() };
        let mut seen = vec![false; capacity];
        seen[root] = true;
        let mut queue = vec![root];
        // The queue is read as it grows; `seen` bounds it.
        let mut next = 0;
        while let Some(&node) = queue.get(next) {
            next += 1;
            cuts.cuts.push(self.cut(node, shape)?);
            let mut inner = [false; 2];
            for (inner, child) in inner.iter_mut().zip(self.children(node)) {
                let shape_fault =
                    || self.left_path.fault(ImportFault::Shape { node: i64::from(child) });
                let child = usize::try_from(child).map_err(|_| shape_fault())?;
                *inner = child < capacity;
                if *inner {
                    if std::mem::replace(&mut seen[child], true) {
                        return Err(shape_fault());
                    }
                    queue.push(child);
                }
            }
            cuts.inner.push(inner);
        }
        Ok(cuts)
    }
}
