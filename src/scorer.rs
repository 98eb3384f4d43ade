//! A batch of payloads to scores: every payload a point, all points in one array, one call.
//!
//! With a shingle a point is made of the records before it too: those of its own stream in this
//! batch and in no other, so that scores depend on nothing but the event.

use std::collections::HashMap;
use std::num::NonZero;
use std::panic::resume_unwind;

use ndarray::{Array1, ArrayView2, Axis};
use sawlog_model::{
    DimensionError, FeatureShare, Features, Forest, Model, RecordError, Shingler, Value,
};

use crate::endpoint::EndpointFault;
use crate::event::DecodeFault;
use crate::trust::{By, Reason};

/// What was found of one record.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    /// The score, finite; the higher, the more unusual.
    pub score: f32,
    /// Who gave it, why, and the threshold that it is held against.
    pub by: By,
    /// One value a feature, as the record had it.
    pub values: Vec<Value>,
    /// For an anomaly, how much of the local model's score comes from each feature; none without a
    /// model.
    pub attribution: Option<Vec<FeatureShare>>,
}

/// Why a record has no score. But for [`Unscorable::NoHistory`] and what comes again it is poison: it
/// can't be scored now or ever.
#[derive(Debug, thiserror::Error)]
pub enum Unscorable {
    /// It can be read, and has too few records of its series before it in the batch.
    #[error("it has too few records of its series before it")]
    NoHistory,
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
    /// The endpoint should score it and doesn't, and there is no model. It comes again.
    #[error("there is no model, and no score of the endpoint")]
    Endpoint(#[source] EndpointFault),
    /// The model can't be trusted, and `FALLBACK` is `fail`. It comes again.
    #[error("its model is {reason}, and FALLBACK lets nobody score it")]
    NotTrusted {
        /// Why it can't.
        reason: Reason,
    },
}

/// Points that a thread is started for: some 4 ms of work beside the tenth of one that it costs.
const POINTS_A_THREAD: usize = 2048;

/// Scores of points, a row each, worked out on as many cores as the function has. A point's score
/// doesn't depend on how they are shared out, to the bit.
///
/// # Errors
/// [`DimensionError`] for points of another model.
pub fn score_batch(
    forest: &Forest,
    points: ArrayView2<'_, f32>,
) -> Result<Array1<f32>, DimensionError> {
    let mut scores = Array1::zeros(points.nrows());
    let threads = match points.nrows() / POINTS_A_THREAD {
        0 | 1 => 1,
        // How many cores there are is read from files, which takes longer than a small batch.
        most => std::thread::available_parallelism().map_or(1, NonZero::get).min(most),
    };
    let share = points.nrows().div_ceil(threads).max(1);
    let points = points.axis_chunks_iter(Axis(0), share);
    let mut parts = points.zip(scores.axis_chunks_iter_mut(Axis(0), share));
    // The first share is the calling thread's own.
    let Some((points, part)) = parts.next() else { return Ok(scores) };
    std::thread::scope(|scope| {
        let others: Vec<_> = parts
            .map(|(points, part)| scope.spawn(move || forest.score_batch(points, part)))
            .collect();
        let first = forest.score_batch(points, part);
        // A panic goes on in the thread that waits for it.
        let joined = others
            .into_iter()
            .map(|other| other.join().unwrap_or_else(|panic| resume_unwind(panic)));
        joined.fold(first, Result::and)
    })?;
    Ok(scores)
}

/// The points of a batch, record by record: values, or why there are none.
#[derive(Debug)]
pub struct Points {
    dimensions: usize,
    /// The values of each point's newest record.
    records: Vec<Result<Vec<Value>, Unscorable>>,
    /// The rows of the records that have values, end to end.
    rows: Vec<f32>,
}

impl Points {
    /// No points yet, of these features.
    pub fn new(features: &Features) -> Self {
        Self { dimensions: features.dimensions(), records: Vec::new(), rows: Vec::new() }
    }

    /// Reads payloads by features, each with the name of the ordered stream that it is of. A header may
    /// say in which columns the features stand. There is one entry a payload, in their order.
    pub fn read<'p>(
        features: &Features,
        header: Option<&str>,
        payloads: impl Iterator<Item = (&'p str, Result<&'p [u8], Unscorable>)>,
    ) -> Self {
        let by_header = header.and_then(|header| features.with_header(header).ok());
        let features = by_header.as_ref().unwrap_or(features);
        let is_shingled = features.spec().shingle().is_some();
        let count = payloads.size_hint().0;
        let mut points = Self {
            dimensions: features.dimensions(),
            records: Vec::with_capacity(count),
            rows: Vec::with_capacity(count * features.dimensions()),
        };
        let mut streams: HashMap<&str, Shingler> = HashMap::new();
        for (stream, payload) in payloads {
            let stream = if is_shingled { stream } else { "" };
            let shingler = streams.entry(stream).or_insert_with(|| Shingler::new(features.spec()));
            let record = payload.inspect_err(|_| shingler.gap()).and_then(|payload| {
                let next = features.read_in_series(payload);
                // Beyond the limits of histories, which a batch can hardly reach, there is none.
                let point = shingler.take(&next).unwrap_or_default();
                let encoded = point.map(|point| points.encode(features, point)).transpose()?;
                let values = next.values?;
                encoded.map(|()| values).ok_or(Unscorable::NoHistory)
            });
            points.records.push(record);
        }
        points
    }

    /// Adds a point: the values of its records, the newest last.
    pub fn push(&mut self, features: &Features, point: &[Value]) {
        let newest = point.len().saturating_sub(features.names().len());
        let record = self.encode(features, point).map(|()| point[newest..].to_vec());
        self.records.push(record.map_err(Unscorable::from));
    }

    fn encode(&mut self, features: &Features, point: &[Value]) -> Result<(), RecordError> {
        let start = self.rows.len();
        self.rows.resize(start + self.dimensions, 0.0);
        let encoded = features.encode(point, &mut self.rows[start..]);
        if encoded.is_err() {
            self.rows.truncate(start);
        }
        encoded
    }

    /// The points of the records that have one, a row each.
    ///
    /// # Errors
    /// [`DimensionError`] for features without dimensions.
    pub fn rows(&self) -> Result<ArrayView2<'_, f32>, DimensionError> {
        let (rows, dimensions) = (self.rows.len() / self.dimensions.max(1), self.dimensions);
        ArrayView2::from_shape((rows, dimensions), &self.rows)
            .map_err(|_| DimensionError { expected: dimensions, got: self.rows.len() })
    }

    /// The records that have a point: index, values and point.
    pub(crate) fn with_values(&self) -> impl Iterator<Item = (usize, &[Value], &[f32])> {
        let records = self.records.iter().enumerate();
        let records = records.filter_map(|(at, values)| Some((at, values.as_ref().ok()?)));
        let rows = self.rows.chunks_exact(self.dimensions.max(1));
        records.zip(rows).map(|((at, values), row)| (at, values.as_slice(), row))
    }

    /// The same records as points of other features, which read records alike.
    ///
    /// # Errors
    /// [`RecordError`] for a record that these features can't take.
    pub fn rows_of(&self, features: &Features) -> Result<Vec<f32>, RecordError> {
        let mut rows = vec![0.0; features.dimensions() * self.records.iter().flatten().count()];
        let each = rows.chunks_exact_mut(features.dimensions());
        for (row, values) in each.zip(self.records.iter().flatten()) {
            features.encode(values, row)?;
        }
        Ok(rows)
    }

    /// Scores the batch by the model in one call and explains its anomalies. There is one entry a
    /// payload, in their order.
    ///
    /// # Errors
    /// [`DimensionError`] for points of another model.
    pub fn score(self, model: &Model) -> Result<Vec<Result<Scored, Unscorable>>, DimensionError> {
        let by = By::local(model);
        let scores = self.local_scores(model)?;
        self.judged(scores.into_iter().map(|score| Ok((score, by))), Some(model))
    }

    /// The model's scores of the records that have a point.
    pub(crate) fn local_scores(&self, model: &Model) -> Result<Array1<f32>, DimensionError> {
        let points = self.rows()?;
        score_batch(model.forest(), points)
    }

    /// Joins the records that have a point with what became of it, a score or the reason why there is
    /// none, and explains anomalies by the model. There is one entry a payload, in their order.
    pub(crate) fn judged(
        self,
        scores: impl Iterator<Item = Result<(f32, By), Unscorable>>,
        model: Option<&Model>,
    ) -> Result<Vec<Result<Scored, Unscorable>>, DimensionError> {
        type Score = Result<(f32, By), Unscorable>;
        let points = self.rows.chunks_exact(self.dimensions.max(1));
        let scores: Vec<Score> = scores.take(points.len()).collect();
        let is_anomaly = |score: f32, by: &By| score.is_finite() && by.is_anomaly(score);
        let anomalies = scores.iter().zip(points).filter_map(|(score, point)| match score {
            Ok((score, by)) => is_anomaly(*score, by).then_some(point),
            Err(_) => None,
        });
        let explained = model.map(|model| model.explain_batch(anomalies)).transpose()?;
        let mut explained = explained.unwrap_or_default().into_iter();
        let mut scores = scores.into_iter();
        let mut out = Vec::with_capacity(self.records.len());
        for record in self.records {
            out.push(match record {
                Ok(values) => match scores.next() {
                    Some(Ok((score, by))) if score.is_finite() => {
                        let attribution =
                            is_anomaly(score, &by).then(|| explained.next()).flatten();
                        Ok(Scored { score, by, values, attribution })
                    }
                    Some(Err(fault)) => Err(fault),
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
    use ndarray::Array2;
    use sawlog_model::{
        Calibration, Features, Forest, Params, Provenance, Shingle, ThresholdRule, ValidParams,
        ValidSpec,
    };

    use super::*;

    /// A model of requests with a duration in milliseconds and a path, the threshold as given.
    pub(crate) fn model(rule: Option<ThresholdRule>) -> Model {
        shingled_model(rule, None)
    }

    /// The same of several requests of a host each.
    pub(crate) fn shingled_model(rule: Option<ThresholdRule>, shingle: Option<Shingle>) -> Model {
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
        .and_then(|spec| spec.with_shingle(shingle))
        .expect("spec");
        let mut shingler = Shingler::new(&spec);
        let read = |i: u32| {
            let json = format!(r#"{{"host":"a","ms":{},"path":"/{}"}}"#, i % 50, i % 2);
            let next = sawlog_model::read_in_series(&spec, json.as_bytes());
            shingler.take(&next).expect("a short history").map(<[Value]>::to_vec)
        };
        let values: Vec<Vec<Value>> = (0..200).filter_map(read).collect();
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
        let scored =
            Points::read(model.features(), None, payloads.into_iter().map(|payload| ("", payload)));
        let scored = scored.score(&model).expect("same model");
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
    fn a_batch_is_shared_out_without_a_change_to_a_bit() {
        let model = model(None);
        let dimensions = model.features().dimensions();
        for count in [0, 1, 3 * POINTS_A_THREAD + 5] {
            let point = |at: usize, i: usize| ((at * 7 + i * 13) % 61) as f32;
            let points = Array2::from_shape_fn((count, dimensions), |(at, i)| point(at, i));
            let mut want = Array1::zeros(count);
            model.forest().score_batch(points.view(), want.view_mut()).expect("same model");
            let got = score_batch(model.forest(), points.view()).expect("same model");
            assert_eq!(got, want, "{count} points");
        }
        let other = Array2::zeros((3 * POINTS_A_THREAD, dimensions + 1));
        let fault = score_batch(model.forest(), other.view()).expect_err("another width");
        assert_eq!(fault, DimensionError { expected: dimensions, got: dimensions + 1 });
    }

    /// The number of each record that makes a point, and its score.
    fn scores(model: &Model, records: &[(&str, String)]) -> Vec<Option<f32>> {
        let payloads = records.iter().map(|(stream, text)| (*stream, Ok(text.as_bytes())));
        let scored =
            Points::read(model.features(), None, payloads).score(model).expect("same model");
        let score = |scored: Result<Scored, Unscorable>| match scored {
            Ok(scored) => Some(scored.score),
            Err(Unscorable::NoHistory) => None,
            Err(fault) => panic!("{fault}"),
        };
        scored.into_iter().map(score).collect()
    }

    #[test]
    fn a_point_is_made_of_its_own_series_in_its_own_stream() {
        let shingle = Shingle { size: 3, key: Some("/host".into()) };
        let model = shingled_model(None, Some(shingle));
        let record =
            |host: &str, ms: usize| format!(r#"{{"host":"{host}","ms":{ms},"path":"/1"}}"#);
        let of = |stream: &'static str, host: &str| {
            (0..6).map(|ms| (stream, record(host, ms))).collect::<Vec<_>>()
        };
        let alone = scores(&model, &of("t-0", "a"));
        assert_eq!(alone.iter().flatten().count(), 4, "{alone:?}");
        assert_eq!(alone[..2], [None, None]);
        let parts = [of("t-0", "a"), of("t-0", "b"), of("t-1", "a")];
        let mixed: Vec<_> = (0..18).map(|at| parts[at % 3][at / 3].clone()).collect();
        for part in 0..3 {
            let scores: Vec<_> = scores(&model, &mixed).into_iter().skip(part).step_by(3).collect();
            assert_eq!(scores, alone);
        }
    }

    #[test]
    fn what_cannot_be_read_is_a_gap_in_its_series() {
        let good = || Ok(br#"{"host":"a","ms":20,"path":"/1"}"#.as_slice());
        let bad: [(Result<&[u8], Unscorable>, bool); 3] = [
            (Ok(br#"{"host":"a","ms":"x","path":"/1"}"#), true),
            (Ok(b"no json"), false),
            (Err(DecodeFault::Base64.into()), false),
        ];
        for (bad, key_is_known) in bad {
            let named = bad.as_ref().map_or_else(ToString::to_string, |_| "record".into());
            for key in [Some("/host".to_owned()), None] {
                let is_gap = key_is_known || key.is_none();
                let model = shingled_model(None, Some(Shingle { size: 2, key }));
                let again = match &bad {
                    Ok(bytes) => Ok(*bytes),
                    Err(_) => Err(DecodeFault::Base64.into()),
                };
                let payloads = [good(), good(), again, good(), good()];
                let read = Points::read(
                    model.features(),
                    None,
                    payloads.into_iter().map(|bytes| ("t-0", bytes)),
                );
                let scored = read.score(&model).expect("same model");
                let has_score: Vec<bool> = scored.iter().map(Result::is_ok).collect();
                assert_eq!(has_score, [false, true, false, !is_gap, true], "{named}");
                assert!(!matches!(scored[2], Err(Unscorable::NoHistory)), "{named}: poison");
            }
        }
    }

    #[test]
    fn a_batch_without_points_has_no_scores() {
        let model = model(None);
        let none = Points::read(model.features(), None, std::iter::empty())
            .score(&model)
            .expect("same model");
        assert!(none.is_empty());
    }
}
