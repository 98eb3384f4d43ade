//! Why a file is no forest that can be read: the place, the value, and what is allowed there.

use super::PackedFault;
use crate::forest::{ParamError, StructureFault};
use crate::{FeatureError, SpecError};

/// Why a file is no forest that can be read.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// Not JSON, or cut off; line and column are named.
    #[error("not json: {0}")]
    Json(#[source] serde_json::Error),
    /// JSON, and one of its values is not as it must be.
    #[error("{path}: {fault}")]
    At {
        /// Where, as `forestState.pointStoreState.refCount`; members of arrays from 0.
        path: String,
        /// What is wrong with it.
        #[source]
        fault: ImportFault,
    },
}

/// What is wrong with one value of a file.
#[derive(Debug, thiserror::Error)]
pub enum ImportFault {
    /// Absent or null.
    #[error("it is missing")]
    Missing,
    /// Another kind of value.
    #[error("expected {expected}, got `{got}`")]
    Kind {
        /// The kind it must be.
        expected: &'static str,
        /// The beginning of what is there.
        got: String,
    },
    /// Another kind of value inside an array of numbers.
    #[error("it is no {expected}")]
    Member {
        /// What the array is of.
        expected: &'static str,
    },
    /// An integer out of its range.
    #[error("it is {got}; {low} to {high} are allowed")]
    Range {
        /// Its value.
        got: i64,
        /// Least value allowed.
        low: i64,
        /// Greatest value allowed.
        high: i64,
    },
    /// An array of more members than there can be.
    #[error("it has more than {limit} members")]
    TooLong {
        /// How many there can be.
        limit: usize,
    },
    /// A part of other dimensions than the forest.
    #[error("it is {got}, but the forest has {expected} dimensions")]
    Dimensions {
        /// The part's.
        got: usize,
        /// The forest's.
        expected: usize,
    },
    /// A value of the format that this program doesn't take.
    #[error("`{got}` is not supported; supported: {}", supported.join(", "))]
    Unsupported {
        /// Its value.
        got: String,
        /// The values that are.
        supported: &'static [&'static str],
    },
    /// A part of the state that was not saved.
    #[error("the {part} were not saved in this file, and {why}; save the state with {path} = true")]
    NotSaved {
        /// The part.
        part: &'static str,
        /// Why the forest can't be had without it.
        why: &'static str,
        /// The switch of the library's mapper.
        path: &'static str,
    },
    /// A forest that the library doesn't score with yet.
    #[error(
        "the forest has seen {got} points and answers 0 to everything before it has seen {needed}"
    )]
    NotReady {
        /// Points it has seen.
        got: i64,
        /// Points it needs, `outputAfter`.
        needed: i64,
    },
    /// Text that isn't base64.
    #[error("it is not base64")]
    Base64 {
        /// The decoder's, which says no more.
        #[source]
        source: base64_simd::Error,
    },
    /// Bytes that are not whole floats.
    #[error("it has {bytes} bytes, which is no multiple of 4")]
    NotFloats {
        /// How many.
        bytes: usize,
    },
    /// Integers that are no packed array, or too many.
    #[error(transparent)]
    Packed(#[from] PackedFault),
    /// Another number of values than another field asks for.
    #[error("it has {got} values; {other} asks for {needed}")]
    Length {
        /// How many.
        got: usize,
        /// The field that asks for another number.
        other: &'static str,
        /// How many that is, or at least is.
        needed: usize,
    },
    /// A number of a point that is not in the point store.
    #[error("its value {at} is point {point}, which the point store does not have")]
    NoSuchPoint {
        /// Where in the array, after unpacking, from 0.
        at: usize,
        /// The number.
        point: i64,
    },
    /// A point outside the data.
    #[error("point {point} starts at value {start} and has {dimensions}, but there are {got}")]
    Location {
        /// Number of the point.
        point: usize,
        /// Where it starts in `pointData`.
        start: i64,
        /// Coordinates of a point.
        dimensions: usize,
        /// Values in `pointData`.
        got: usize,
    },
    /// A coordinate that is NaN or infinite.
    #[error("coordinate {dimension} of point {point} is {value}")]
    Coordinate {
        /// Number of the point.
        point: usize,
        /// The coordinate, from 0.
        dimension: usize,
        /// Its value.
        value: f32,
    },
    /// A node that two nodes have as child, or that none has, or a child that is no node.
    #[error("node {node} is not the child of exactly one node before it")]
    Shape {
        /// The node's number in the file.
        node: i64,
    },
    /// A cut in a dimension that there isn't.
    #[error("node {node} cuts dimension {got}; 0 to {high} are allowed")]
    Cut {
        /// The node's number in the file.
        node: usize,
        /// The dimension.
        got: i64,
        /// The highest there is.
        high: usize,
    },
    /// A tree that holds no point. A forest is saved so before its first point.
    #[error("the tree holds no point")]
    EmptyTree,
    /// A leaf that none of the tree's points falls to.
    #[error("none of the sample's points falls to leaf {leaf} of {leaves}: cuts and sample differ")]
    EmptyLeaf {
        /// Its rank, breadth first.
        leaf: usize,
        /// How many there are.
        leaves: usize,
    },
    /// Two different points at one leaf.
    #[error("point {point} falls to the leaf of another point: cuts and sample differ")]
    NotSeparated {
        /// Number of the later point.
        point: usize,
    },
    /// A tree that scoring can't take.
    #[error(transparent)]
    Structure(StructureFault),
    /// A forest much larger than its file, see the limit's reason.
    #[error(
        "the forest would take {bytes} bytes of memory; a file of this length may take {limit}"
    )]
    TooLarge {
        /// Bytes of the arrays.
        bytes: usize,
        /// Limit: 64 bytes a byte of the file and 64 MiB.
        limit: usize,
    },
    /// A parameter out of its range.
    #[error(transparent)]
    Params(ParamError),
    /// Columns that are no specification.
    #[error(transparent)]
    Spec(Box<SpecError>),
    /// Statistics that don't go with the columns.
    #[error(transparent)]
    Features(FeatureError),
}
