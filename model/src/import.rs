//! Forests saved by AWS's Java library, as the JSON of its `RandomCutForestMapper` state.
//!
//! [`from_aws_json`] reads the plain state and the one inside a thresholded forest. What is in the
//! file and where:
//!
//! ```text
//! pointStoreState              the points, once each: floats, big-endian, and where each one starts
//! compactSamplerStates[t]      which points tree t holds, copies included
//! compactRandomCutTreeStates[t].nodeStoreState
//!                              its cuts, and for each node which children are nodes; the rest are
//!                              leaves
//! ```
//!
//! A tree's leaves and their masses come from letting its points fall through its cuts; boxes
//! follow from the leaves. So the forest here is the one that was saved, to the bit, and scores as
//! the library does. Nothing is drawn at random: a file that leaves something open, such as one
//! saved without its trees, is refused with the field and the reason.
//!
//! The library shingles for itself; here a point is given whole, so a forest of shingle size 8 over
//! one value reads 8 columns. What a thresholded forest does to points before the forest sees them
//! is not here: one with a transform or with time as a dimension is refused.
//!
//! Nothing in the file is trusted. Lengths are checked before anything of that length is made;
//! memory stays within a small multiple of the file's own size, see [`ImportFault::TooLarge`].

mod error;
mod json;
mod packed;
mod points;
mod trees;

use json::{Json, Object};
use points::{PointStore, read_sample};
use trees::Cuts;

pub use error::{ImportError, ImportFault};
pub use packed::PackedFault;

use crate::features::{Features, Fitted, Scaling, quantile};
use crate::forest::{Forest, LeafRule, MAX_TREES, Params, Sampling, ValidParams};
use crate::snapshot::{Model, Provenance};
use crate::spec::{Encoding, FeatureSpec, Format, MissingRule, Spec, Transform, ValidSpec};
use crate::tree::{MAX_DIMENSIONS, MAX_SAMPLES};

/// Versions of a forest's state.
const FOREST_VERSIONS: &[&str] = &["2.0", "2.1", "3.0", "4.0"];
/// Versions of a thresholded forest's state: those of the forests and two that changed only what is
/// around them.
const THRESHOLDED_VERSIONS: &[&str] = &["2.0", "2.1", "3.0", "3.5", "3.7", "4.0"];
/// Precision of points and cuts. The library itself converts forests of doubles by growing new
/// trees, so their scores can't be reproduced.
const PRECISIONS: &[&str] = &["FLOAT_32"];
/// What a thresholded forest may do to a point before the forest sees it: nothing.
const TRANSFORMS: &[&str] = &["NONE"];
/// How a thresholded forest may make points of its input: as given, gaps filled.
const FOREST_MODES: &[&str] = &["STANDARD", "STREAMING_IMPUTE"];

/// Most preprocessors read; the library writes one.
const MAX_PREPROCESSORS: usize = 16;

/// Memory a forest may take beyond its file's length times [`MEMORY_PER_FILE_BYTE`], in bytes. Small
/// files of long shingles are such: each value stands in the file once and in as many points as the
/// shingle is long.
const MEMORY_BASE: usize = 64 << 20;
/// See [`MEMORY_BASE`]. A forest without shingles takes about 4.
const MEMORY_PER_FILE_BYTE: usize = 64;

/// A forest read from a file, with the features that it takes.
#[derive(Debug, Clone, PartialEq)]
pub struct Imported {
    params: ValidParams,
    features: Features,
    forest: Forest,
    updates: u64,
}

impl Imported {
    /// The forest.
    pub fn forest(&self) -> &Forest {
        &self.forest
    }

    /// Its features: the columns `x0`, `x1`, ... of a CSV, one a dimension, as they are. A record
    /// that lacks one is refused.
    pub fn features(&self) -> &Features {
        &self.features
    }

    /// Points that the forest had seen when it was saved.
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// A model without a calibration. `tool` is the program and its version, `input` the name of
    /// the file.
    pub fn into_model(self, tool: impl Into<String>, input: impl Into<String>) -> Model {
        let provenance = Provenance {
            tool: tool.into(),
            inputs: vec![input.into()],
            read: self.updates,
            rejected: 0,
            sampled_from: self.updates,
            held_out: 0,
        };
        Model::new(self.params, self.features, self.forest, None, provenance)
    }
}

/// Reads a forest from the JSON text of its state.
///
/// Versions 2.0, 2.1, 3.0 and 4.0 are read, alone or in a thresholded forest; bytes as base64 or as
/// arrays of signed bytes; integers packed or plain; single precision; with saved trees.
///
/// # Errors
/// [`ImportError`] names the place in the file, the value and what is allowed there; no bytes make
/// this panic.
pub fn from_aws_json(bytes: &[u8]) -> Result<Imported, ImportError> {
    let state = forest_state(&Json::root(bytes)?)?;
    let shape = Shape::read(&state)?;
    let updates = check_ready(&state)?;
    let params = Params {
        trees: as_u32(shape.trees),
        samples: as_u32(shape.samples),
        seed: 0,
        leaf_rule: LeafRule::Damped,
        sampling: Sampling::Imported,
    };
    let params = ValidParams::new(params)
        .map_err(|error| at(&state, "sampleSize", ImportFault::Params(error)))?;
    let (samplers, trees) = tree_states(&state, shape.trees)?;
    let points = PointStore::read(&state, &shape, bytes.len())?;
    let mut forest = Forest::empty(shape.dimensions, params.get().leaf_rule);
    let limit = bytes.len().saturating_mul(MEMORY_PER_FILE_BYTE).saturating_add(MEMORY_BASE);
    for (sampler, tree) in samplers.iter().zip(&trees) {
        let sample = read_sample(sampler, &shape, &points)?;
        let cuts = Cuts::read(tree, &shape)?;
        let bytes = forest_bytes(forest.leaves() + cuts.leaves(), shape.dimensions);
        if bytes > limit {
            return Err(tree.fault(ImportFault::TooLarge { bytes, limit }));
        }
        let parts = cuts.fill(tree, &sample, &points)?;
        forest
            .push_tree(&parts)
            .map_err(|error| tree.fault(ImportFault::Structure(error.fault)))?;
    }
    let features = features(&forest).map_err(|fault| at(&state, "dimensions", fault))?;
    Ok(Imported { params, features, forest, updates })
}

fn at(object: &Object<'_>, field: &str, fault: ImportFault) -> ImportError {
    ImportError::At { path: object.path_of(field), fault }
}

#[expect(clippy::cast_possible_truncation, reason = "counts checked against limits far below")]
fn as_u32(count: usize) -> u32 {
    count as u32
}

const FOREST_FIELDS: &[&str] = &[
    "forestState",
    "transformMethod",
    "forestMode",
    "preprocessorStates",
    "version",
    "precision",
    "numberOfTrees",
    "sampleSize",
    "dimensions",
    "shingleSize",
    "totalUpdates",
    "outputAfter",
    "saveTreeStateEnabled",
    "saveSamplerStateEnabled",
    "saveCoordinatorStateEnabled",
    "pointStoreState",
    "compactSamplerStates",
    "compactRandomCutTreeStates",
];

/// The forest's state: the root, or what a thresholded forest has inside.
fn forest_state<'a>(root: &Json<'a>) -> Result<Object<'a>, ImportError> {
    let root = root.object(FOREST_FIELDS)?;
    let Some(inner) = root.get("forestState") else {
        root.need("version")?.one_of(FOREST_VERSIONS)?;
        return Ok(root);
    };
    root.need("version")?.one_of(THRESHOLDED_VERSIONS)?;
    check_transform(&root)?;
    if let Some(preprocessors) = root.get("preprocessorStates") {
        for preprocessor in preprocessors.items(MAX_PREPROCESSORS)? {
            check_transform(&preprocessor.object(&["transformMethod", "forestMode"])?)?;
        }
    }
    let state = inner.object(FOREST_FIELDS)?;
    state.need("version")?.one_of(FOREST_VERSIONS)?;
    Ok(state)
}

fn check_transform(state: &Object<'_>) -> Result<(), ImportError> {
    state.get("transformMethod").map_or(Ok(()), |method| method.one_of(TRANSFORMS))?;
    state.get("forestMode").map_or(Ok(()), |mode| mode.one_of(FOREST_MODES))
}

/// How many of everything there are.
struct Shape {
    trees: usize,
    samples: usize,
    dimensions: usize,
}

impl Shape {
    fn read(state: &Object<'_>) -> Result<Self, ImportError> {
        state.need("precision")?.one_of(PRECISIONS)?;
        Ok(Self {
            trees: state.need("numberOfTrees")?.count(1, MAX_TREES)?,
            samples: state.need("sampleSize")?.count(2, MAX_SAMPLES)?,
            dimensions: state.need("dimensions")?.count(1, MAX_DIMENSIONS)?,
        })
    }
}

/// Points seen; enough of them for the library to score.
fn check_ready(state: &Object<'_>) -> Result<u64, ImportError> {
    let count = |name| state.get(name).map_or(Ok(0), |field: Json<'_>| field.integer(0..=i64::MAX));
    let Some(updates) = state.get("totalUpdates") else {
        return Ok(0);
    };
    let (got, needed) = (count("totalUpdates")?, count("outputAfter")?);
    if got < needed {
        return Err(updates.fault(ImportFault::NotReady { got, needed }));
    }
    Ok(got.cast_unsigned())
}

/// The samplers and the trees, one each a tree.
fn tree_states<'a>(
    state: &Object<'a>,
    trees: usize,
) -> Result<(Vec<Json<'a>>, Vec<Json<'a>>), ImportError> {
    let saved = |switch: &'static str, field: &'static str, part, why| {
        let is_off = state.get(switch).map_or(Ok(false), |value| value.truth().map(|on| !on))?;
        let found = if is_off { None } else { state.get(field) };
        found.ok_or_else(|| ImportError::At {
            path: state.path_of(if is_off { switch } else { field }),
            fault: ImportFault::NotSaved { part, why, path: switch },
        })
    };
    let tree_states = saved(
        "saveTreeStateEnabled",
        "compactRandomCutTreeStates",
        "trees",
        "the library grows new ones at random when it reads it, so that its scores can't be reproduced",
    )?;
    let sampler_states = saved(
        "saveSamplerStateEnabled",
        "compactSamplerStates",
        "samples",
        "the leaves of the trees come from them",
    )?;
    saved(
        "saveCoordinatorStateEnabled",
        "pointStoreState",
        "points",
        "the leaves of the trees are made of them",
    )?;
    let all = |states: Json<'a>| {
        let items = states.items(trees)?;
        if items.len() < trees {
            let (got, needed) = (items.len(), trees);
            return Err(states.fault(ImportFault::Length { got, other: "numberOfTrees", needed }));
        }
        Ok(items)
    };
    Ok((all(sampler_states)?, all(tree_states)?))
}

/// An array of integers, packed or plain, of at most `limit` values.
fn unpacked(array: &Json<'_>, compressed: bool, limit: usize) -> Result<Vec<i32>, ImportError> {
    let numbers = array.integers()?;
    packed::unpack(numbers, compressed, limit).map_err(|fault| array.fault(fault.into()))
}

fn check_dimensions(object: &Object<'_>, shape: &Shape) -> Result<(), ImportError> {
    let Some(field) = object.get("dimensions") else {
        return Ok(());
    };
    // Older trees leave it at 0.
    let got = field.count(0, MAX_DIMENSIONS)?;
    if got == 0 || got == shape.dimensions {
        return Ok(());
    }
    Err(field.fault(ImportFault::Dimensions { got, expected: shape.dimensions }))
}

/// Bytes of a forest's arrays: two boxes' sides and a point a leaf, two nodes and a mass.
fn forest_bytes(leaves: usize, dimensions: usize) -> usize {
    leaves.saturating_mul(12 * dimensions + 20)
}

/// The columns x0, x1, ... of a CSV as they are, with statistics over the leaves of all trees. A
/// dimension without spread stays in: it is one of the forest's.
fn features(forest: &Forest) -> Result<Features, ImportFault> {
    let dimensions = forest.dimensions();
    let columns: Vec<String> = (0..dimensions).map(|dimension| format!("x{dimension}")).collect();
    let feature = |name: &String| FeatureSpec {
        name: name.clone(),
        field: name.clone(),
        encoding: Encoding::Number(Transform::None),
        missing: MissingRule::Reject,
    };
    let features = columns.iter().map(feature).collect();
    // A point is given whole, so a record is a point whatever the library's shingle was.
    let spec = Spec { format: Format::Csv { delimiter: b',', columns }, features, shingle: None };
    let spec = ValidSpec::new(spec).map_err(|error| ImportFault::Spec(Box::new(error)))?;
    let fitted = (0..dimensions).map(|dimension| {
        let values = forest.points().map(|point| point[dimension]);
        let mut values: Vec<f64> = values.map(f64::from).collect();
        values.sort_unstable_by(f64::total_cmp);
        Fitted::Number {
            scaling: Scaling::NONE,
            min: quantile(&values, 0.0),
            p01: quantile(&values, 0.01),
            median: quantile(&values, 0.5),
            p99: quantile(&values, 0.99),
            max: quantile(&values, 1.0),
        }
    });
    Features::new(spec, fitted.collect()).map_err(ImportFault::Features)
}
