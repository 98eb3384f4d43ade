//! A model: how records are read, the forest that scores them, what its scores mean, and where it comes from.
//!
//! As bytes, which training writes and the Lambda loads, it is a snapshot (`file`).

mod file;

use bincode::{Decode, Encode};
use serde::Serialize;

pub use file::SnapshotError;
use file::id_of;
pub(crate) use file::{MAX_HEADER, decode_plain, encode_header, u32_at};

use crate::attribution::Attribution;
use crate::calibration::{Calibration, EndpointCalibration};
use crate::features::Features;
use crate::forest::{Forest, Params, ValidParams};

/// Where a model comes from. There is no time of day in it: the same input, parameters and seed
/// give the same bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Encode, Decode)]
pub struct Provenance {
    /// Version of the program that made it, and in parentheses the half-life if there was one.
    pub tool: String,
    /// The inputs as they were named.
    pub inputs: Vec<String>,
    /// Records read.
    pub read: u64,
    /// Records rejected.
    pub rejected: u64,
    /// Records that the samples were drawn from.
    pub sampled_from: u64,
    /// Records held out of the samples.
    pub held_out: u64,
}

impl Provenance {
    /// The half-life by which records were weighed, in the words of [`crate::Decay`].
    pub fn half_life(&self) -> Option<&str> {
        let (_, words) = self.tool.split_once(" (")?;
        words.strip_suffix(')')
    }
}

/// A model: its features, its forest and its calibration, with where it comes from.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    params: ValidParams,
    features: Features,
    forest: Forest,
    calibration: Option<Calibration>,
    endpoint: Option<EndpointCalibration>,
    provenance: Provenance,
    id: String,
    snapshot_len: usize,
}

/// How much of a score is due to one feature, in all records of the point.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FeatureShare {
    /// Index of the feature, in the order of [`Features::names`].
    pub feature: usize,
    /// Share due to its coordinates lying above what was seen, 0 to 1.
    pub high: f32,
    /// Share due to them lying below.
    pub low: f32,
    /// With a shingle, the record that most of it is due to.
    pub peak: Option<Peak>,
}

/// The record of a point that most of a feature's share is due to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Peak {
    /// How many records of the series before the newest, 0 for the newest itself.
    pub lag: usize,
    /// The share of the feature in this one record, both directions.
    pub share: f32,
}

impl Model {
    /// Joins the parts of a model.
    ///
    /// # Panics
    /// If the forest's dimensions aren't the features'; they are made together.
    pub fn new(
        params: ValidParams,
        features: Features,
        forest: Forest,
        calibration: Option<Calibration>,
        provenance: Provenance,
    ) -> Self {
        assert_eq!(features.dimensions(), forest.dimensions(), "dimensions of features and forest");
        let mut model = Self {
            params,
            features,
            forest,
            calibration,
            endpoint: None,
            provenance,
            id: String::new(),
            snapshot_len: 0,
        };
        model.name();
        model
    }

    /// Gives the model the id of what it has become.
    fn name(&mut self) {
        let bytes = self.encode();
        self.id = id_of(&bytes);
        self.snapshot_len = bytes.len();
    }

    /// The model with another calibration, and so another id.
    pub fn with_calibration(mut self, calibration: Option<Calibration>) -> Self {
        self.calibration = calibration;
        self.name();
        self
    }

    /// The model with another calibration of an endpoint, and so another id.
    ///
    /// # Panics
    /// If the endpoint's name is longer than [`EndpointCalibration::MAX_NAME_LEN`].
    pub fn with_endpoint_calibration(mut self, endpoint: Option<EndpointCalibration>) -> Self {
        assert!(endpoint.as_ref().is_none_or(EndpointCalibration::is_sound), "an endpoint's name");
        self.endpoint = endpoint;
        self.name();
        self
    }

    /// What the forest was built with.
    pub fn params(&self) -> &Params {
        self.params.get()
    }

    /// The features: bytes to points.
    pub fn features(&self) -> &Features {
        &self.features
    }

    /// The forest: points to scores.
    pub fn forest(&self) -> &Forest {
        &self.forest
    }

    /// The calibration: scores to verdicts. `None` if there was nothing to calibrate on.
    pub fn calibration(&self) -> Option<&Calibration> {
        self.calibration.as_ref()
    }

    /// What scores of a SageMaker endpoint are held against, if that was learned.
    pub fn endpoint_calibration(&self) -> Option<&EndpointCalibration> {
        self.endpoint.as_ref()
    }

    /// Where the model comes from.
    pub fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    /// The first half of the snapshot's SHA-256 as 32 hex digits.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Length of the snapshot in bytes.
    pub fn snapshot_len(&self) -> usize {
        self.snapshot_len
    }

    /// How much of the score of a point is due to each feature, in the order of
    /// [`Features::names`]; the shares add up to 1, or are all 0 where the score is.
    ///
    /// # Errors
    /// [`crate::DimensionError`] for another number of coordinates.
    pub fn explain(&self, point: &[f32]) -> Result<Vec<FeatureShare>, crate::DimensionError> {
        Ok(self.shares(&self.forest.attribution(point)?))
    }

    /// The same of several points, one entry each in their order; less work than one by one.
    ///
    /// # Errors
    /// [`crate::DimensionError`] for another number of coordinates.
    pub fn explain_batch<'p>(
        &self,
        points: impl IntoIterator<Item = &'p [f32]>,
    ) -> Result<Vec<Vec<FeatureShare>>, crate::DimensionError> {
        // A few at a time, so that what is added up for them stays in the near caches.
        const TOGETHER: usize = 128;
        let points: Vec<_> = points.into_iter().collect();
        let mut shares = Vec::with_capacity(points.len());
        for points in points.chunks(TOGETHER) {
            let attributions = self.forest.attributions(points.iter().copied())?;
            shares.extend(attributions.iter().map(|attribution| self.shares(attribution)));
        }
        Ok(shares)
    }

    fn shares(&self, attribution: &Attribution) -> Vec<FeatureShare> {
        let total = attribution.total();
        let unit = if total > 0.0 { 1.0 / total } else { 0.0 };
        let records = self.features.spec().shingle_size();
        let of_record = self.features.dimensions() / records;
        let features = self.features.names().len();
        // One entry a feature of each record, the oldest record first.
        let mut parts = vec![(0.0, 0.0); features * records];
        for (dimension, feature) in self.features.feature_of_dimension().enumerate() {
            let part = &mut parts[dimension / of_record * features + feature];
            part.0 += attribution.high[dimension] * unit;
            part.1 += attribution.low[dimension] * unit;
        }
        #[expect(clippy::cast_possible_truncation, reason = "shares between 0 and 1")]
        let share = |feature: usize| {
            let in_records = || parts.iter().skip(feature).step_by(features);
            let newest_first = in_records().rev().map(|(high, low)| (high + low) as f32);
            // Of equal ones the newest.
            let peak = newest_first
                .enumerate()
                .reduce(|peak, other| if other.1 > peak.1 { other } else { peak })
                .filter(|_| records > 1)
                .map(|(lag, share)| Peak { lag, share });
            FeatureShare {
                feature,
                high: in_records().map(|(high, _)| high).sum::<f64>() as f32,
                low: in_records().map(|(_, low)| low).sum::<f64>() as f32,
                peak,
            }
        };
        (0..features).map(share).collect()
    }
}
