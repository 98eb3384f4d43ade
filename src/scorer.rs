//! A batch of payloads to scores: every payload a point, all points in one array, one call.

use ndarray::{Array1, ArrayView2};
use sawlog_model::{DimensionError, FeatureShare, Model, RecordError, Value};

use crate::event::DecodeFault;
use crate::verdict;

/// What was found of one record.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    /// The score, finite; the higher, the more unusual.
    pub score: f32,
    /// One value a feature, as the record had it.
    pub values: Vec<Value>,
    /// For an anomaly, how much of the score comes from each feature.
    pub attribution: Option<Vec<FeatureShare>>,
}

/// Why a record can't be scored, now or ever: it is poison.
#[derive(Debug, thiserror::Error)]
pub enum Unscorable {
    /// It can't be taken out of the event.
    #[error(transparent)]
    Decode(#[from] DecodeFault),
    /// Its payload is not what the features are read from.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// There is no model for its topic.
    #[error("MODEL_URI names no model for its topic")]
    NoModel,
    /// Its score is no number that could be stored.
    #[error("its score is not finite")]
    NotFinite,
}

/// The points of a batch, record by record: values, or why there are none.
#[derive(Debug)]
pub struct Points {
    records: Vec<Result<Vec<Value>, Unscorable>>,
    /// The rows of the records that have values, end to end.
    rows: Vec<f32>,
}

impl Points {
    /// Reads payloads by the model's features. There is one entry a payload, in their order.
    pub fn read<'p>(
        model: &Model,
        payloads: impl Iterator<Item = Result<&'p [u8], Unscorable>>,
    ) -> Self {
        Self::of_values(model, payloads.map(|payload| Ok(model.features().read(payload?)?)))
    }

    /// Takes records whose values are read already. There is one entry a record, in their order.
    pub fn of_values(
        model: &Model,
        records: impl Iterator<Item = Result<Vec<Value>, Unscorable>>,
    ) -> Self {
        let features = model.features();
        let mut rows = Vec::with_capacity(records.size_hint().0 * features.dimensions());
        let records = records.map(|values| {
            let values = values?;
            let start = rows.len();
            rows.resize(start + features.dimensions(), 0.0);
            if let Err(error) = features.encode(&values, &mut rows[start..]) {
                rows.truncate(start);
                return Err(error.into());
            }
            Ok(values)
        });
        Self { records: records.collect(), rows }
    }

    /// Scores the batch in one call and explains its anomalies. There is one entry a payload, in
    /// their order.
    ///
    /// # Errors
    /// [`DimensionError`] for points of another model.
    pub fn score(self, model: &Model) -> Result<Vec<Result<Scored, Unscorable>>, DimensionError> {
        let dimensions = model.features().dimensions();
        let (expected, got) = (model.forest().dimensions(), dimensions);
        let points = ArrayView2::from_shape((self.rows.len() / dimensions, dimensions), &self.rows)
            .map_err(|_| DimensionError { expected, got })?;
        let mut scores = Array1::zeros(points.nrows());
        model.forest().score_batch(points, scores.view_mut())?;
        let mut scored = scores.into_iter().zip(self.rows.chunks_exact(dimensions));
        let mut out = Vec::with_capacity(self.records.len());
        for record in self.records {
            out.push(match record {
                Ok(values) => match scored.next() {
                    Some((score, point)) if score.is_finite() => {
                        let anomaly = verdict::is_anomaly(model, score);
                        let attribution = anomaly.then(|| model.explain(point)).transpose()?;
                        Ok(Scored { score, values, attribution })
                    }
                    _ => Err(Unscorable::NotFinite),
                },
                Err(fault) => Err(fault),
            });
        }
        Ok(out)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use sawlog_model::{
        Calibration, Features, Forest, Params, Provenance, ThresholdRule, ValidParams, ValidSpec,
    };

    use super::*;

    /// A model of requests with a duration in milliseconds and a path, the threshold as given.
    pub(crate) fn model(rule: Option<ThresholdRule>) -> Model {
        let spec = ValidSpec::from_toml(
            r#"
            format = "json"
            [[feature]]
            name = "duration_ms"
            field = "/ms"
            transform = "none"
            missing = "reject"
            [[feature]]
            name = "path"
            field = "/path"
            encode = "one_hot"
            "#,
        )
        .expect("spec");
        let read = |i: u32| {
            let json = format!(r#"{{"ms":{},"path":"/{}"}}"#, i % 50, i % 2);
            sawlog_model::read_record(&spec, json.as_bytes()).expect("record")
        };
        let values: Vec<Vec<Value>> = (0..200).map(read).collect();
        let sample: Vec<&[Value]> = values.iter().map(Vec::as_slice).collect();
        let features = Features::fit(spec.clone(), &sample).expect("features");
        let mut rows = Vec::new();
        for values in &values {
            let mut row = vec![0.0; features.dimensions()];
            features.encode(values, &mut row).expect("point");
            rows.push(row);
        }
        let params = ValidParams::new(Params { trees: 20, samples: 200, ..Params::default() });
        let params = params.expect("params");
        let forest =
            Forest::build(features.dimensions(), &params, |_| rows.iter().map(Vec::as_slice));
        let forest = forest.expect("forest");
        let calibration = rule.and_then(|rule| Calibration::new(rule, &[0.5]));
        Model::new(params, features, forest, calibration, Provenance::default())
    }

    #[test]
    fn every_payload_has_an_entry_in_its_place() {
        let model = model(Some(ThresholdRule::Value(1.0)));
        let usual = br#"{"ms":20,"path":"/1"}"#;
        let payloads: [Result<&[u8], Unscorable>; 6] = [
            Ok(usual),
            Err(DecodeFault::Base64.into()),
            Ok(br#"{"ms":1e6,"path":"/1"}"#),
            Ok(b"no json"),
            Ok(br#"{"path":"/1"}"#),
            Ok(usual),
        ];
        let scored = Points::read(&model, payloads.into_iter()).score(&model).expect("same model");
        assert!(matches!(
            &scored[..],
            [
                Ok(_),
                Err(Unscorable::Decode(DecodeFault::Base64)),
                Ok(_),
                Err(Unscorable::Record(RecordError::Json(_))),
                Err(Unscorable::Record(RecordError::Field { .. })),
                Ok(_),
            ]
        ));
        let of = |index: usize| scored[index].as_ref().expect("scored");
        assert_eq!(of(0), of(5), "the same payload, the same score");
        assert!(of(2).score > 1.5 * of(0).score, "{} {}", of(2).score, of(0).score);
        assert_eq!(of(2).values[0], Value::Number(1e6));
        let shares = of(2).attribution.as_ref().expect("an anomaly is explained");
        assert!(shares[0].high > 0.5, "it comes from the duration: {shares:?}");
        assert_eq!(of(0).attribution, None);
    }

    #[test]
    fn a_batch_without_points_has_no_scores() {
        let model = model(None);
        let none = Points::read(&model, std::iter::empty()).score(&model).expect("same model");
        assert!(none.is_empty());
    }
}
