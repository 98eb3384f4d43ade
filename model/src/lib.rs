//! A Random Cut Forest (RCF) with everything it needs to judge a log record.
//!
//! A tree cuts a sample of points again and again: it picks a dimension in proportion to the side
//! of the points' bounding box, cuts it at a uniform place, and goes on with both halves until each
//! distinct point stands alone. A point that lies apart is cut off early, near the root, whatever
//! the cuts; one in a crowd only far down. So the depth at which a new point *would* be set apart,
//! averaged over a hundred trees of 256 records each, tells how unusual it is.
//!
//! A [`Model`] is three things that are only ever moved together: the [`Features`] that turn a
//! record's bytes into a point, the [`Forest`] that turns a point into a score, and the
//! [`Calibration`] that turns a score into a verdict. [`Model::encode`] and [`Model::decode`] are its
//! snapshot. Nothing here reads a clock, a file, the environment or a global random number; seeds
//! are arguments, and the same arguments give the same bits.
//!
//! ```
//! use ndarray::{Array1, arr2};
//! use sawlog_model::{Forest, Params, ValidParams};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let rows: Vec<[f32; 2]> = (0..200_u8).map(|i| [f32::from(i % 10), f32::from(i / 10)]).collect();
//! let params = ValidParams::new(Params { trees: 50, ..Params::default() })?;
//! let forest = Forest::build(2, &params, |_tree| rows.iter().map(|row| row.as_slice()))?;
//!
//! let points = arr2(&[[4.5, 9.5], [40.0, -30.0]]);
//! let mut scores = Array1::zeros(2);
//! forest.score_batch(points.view(), scores.view_mut())?;
//! assert!(scores[1] > 2.0 * scores[0], "the far point scores higher: {scores}");
//! # Ok(())
//! # }
//! ```

mod attribution;
mod beside;
mod bounds;
pub mod calibration;
pub mod features;
pub mod forest;
pub mod import;
mod kernel;
pub mod record;
pub mod sample;
mod score;
pub mod shingle;
pub mod sketch;
pub mod snapshot;
pub mod spec;
mod tree;

pub use attribution::Attribution;
pub use calibration::{Calibration, EndpointCalibration, ThresholdRule};
pub use features::{FeatureError, Features, Fitted, Scaling, read_in_series, read_record};
pub use forest::{
    DimensionError, Forest, LeafRule, ParamError, Params, Sampling, StructureError, ValidParams,
};
pub use import::{ImportError, Imported};
pub use record::{MAX_RECORD_LEN, Reading, RecordError, Value};
pub use sample::{RecordKey, Sketch, SourceKey};
pub use shingle::{SeriesError, Shingler};
pub use sketch::{Decay, SketchError, SketchMergeError, TrainingSieve, TrainingSketch};
pub use snapshot::{FeatureShare, Model, Peak, Provenance, SnapshotError};
pub use spec::{Shingle, Spec, SpecError, ValidSpec};
pub use tree::{MAX_COORDINATE, MAX_DIMENSIONS, MAX_SAMPLES};
