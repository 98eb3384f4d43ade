//! Which records are also sent to the endpoint, and what is made of its answer.
//!
//! A record is sampled by a hash of its identity: delivered again it is sampled again, and a greater
//! share has all that a smaller one had. What is asked runs beside the sinks, in a task of its own that
//! changes nothing of the batch. The answer of the invocation waits for its end, since Lambda freezes
//! the process afterwards; but no longer than [`SAMPLE_TIMEOUT`] from when the scores were there, which
//! as a rule the sinks take anyhow. An endpoint that hangs costs three batches that time and is then
//! left alone for a while, by a circuit breaker of its own: what sampling finds of it must not keep a
//! batch from it that needs it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ndarray::{Array1, ArrayView2};
use sawlog_model::{Features, Model, Value};
use tokio::task::JoinHandle;
use tracing::Instrument as _;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::agreement::{Agreement, Judgement, Measures, SHIFT_QUANTILES, Sample, Table};
use super::capture::Capture;
use super::pair::{Decision, Pair, Time};
use super::quality::Quality;
use super::window::{Call, Window};
use crate::config::RowKind;
use crate::deadline::Until;
use crate::endpoint::{Endpoint, EndpointFault, value_features};
use crate::event::Record;
use crate::handler::chain;
use crate::metrics::ms;
use crate::scorer::{Points, Scored, Unscorable};
use crate::trust::Scorer;
use crate::verdict::FeatureValue;

/// Longest that sampling may take, from when the batch is scored. An endpoint of one instance answers
/// in 10 to 100 ms, and S3 takes the pairs in 50.
pub const SAMPLE_TIMEOUT: Duration = Duration::from_millis(500);
/// Nothing is sampled with less time left than this: it belongs to the sinks.
const LEAST_TIME: Duration = Duration::from_secs(2);
/// Most records of a batch and model that are sampled: one call of the endpoint's usual size.
const MAX_SAMPLED: usize = 1000;
/// Models watched at the same time; of more the one that was longest without a sample is forgotten.
const MAX_WATCHED: usize = 64;
/// Another than that by which training holds records out, so that the two samples are independent.
const SEED: u64 = 0x5341_4d50_4c45;

/// Samples records and remembers what both scorers said of the last of them.
#[derive(Debug)]
pub struct Validation {
    share: f64,
    /// None: only the records themselves are looked at.
    endpoint: Option<Endpoint>,
    capture: Option<Capture>,
    with_features: bool,
    watched: Mutex<Vec<Watched>>,
}

/// What is known of one model, the one that was sampled last standing last.
#[derive(Debug)]
struct Watched {
    model: String,
    window: Window,
    quality: Quality,
    agreement: Agreement,
    shifted: Vec<String>,
}

/// The sampled records of a batch and model, before they are scored.
#[derive(Debug)]
pub struct Chosen {
    records: Vec<ChosenRecord>,
    /// The records that they were chosen from.
    of: usize,
}

#[derive(Debug)]
struct ChosenRecord {
    /// Its index among the records of its model.
    at: usize,
    id: String,
    hash: u64,
    timestamp_ms: Option<i64>,
    values: Vec<Value>,
    point: Vec<f32>,
}

/// What became of the sampling of a batch.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ValidationReport {
    /// Records that were sampled.
    pub sampled: usize,
    /// Those of them that both scored.
    pub compared: usize,
    /// Those that the endpoint gave no score for.
    pub failed: usize,
    /// Records that were not sampled, or not to an end, for want of time.
    pub dropped: usize,
    /// Batches whose pairs could not be captured.
    pub capture_failed: usize,
    /// What is known of the model since; of several, of the one that fares worst.
    pub known: Option<Known>,
}

/// What is known of a model from its window.
#[derive(Debug, Clone, PartialEq)]
pub struct Known {
    /// The model's id.
    pub model: String,
    /// What the rule says.
    pub agreement: Agreement,
    /// Records in the window.
    pub records: usize,
    /// They by who flags them.
    pub decisions: Table,
    /// Of one's most unusual 5 %, the share that is not among the other's.
    pub tops_missing: Option<f64>,
    /// Spearman's correlation of the scores.
    pub rank_correlation: Option<f64>,
    /// How far the endpoint's quantiles lie from the local ones, as shares of these; brought to the local
    /// scale first if the model has learned how.
    pub shifts: Option<[f64; SHIFT_QUANTILES.len()]>,
    /// Time of the local scores of the whole batch.
    pub local: Duration,
    /// Time of the endpoint's of the sampled records; none if it was not asked.
    pub endpoint: Option<Duration>,
    /// Features whose values are distributed otherwise than in training.
    pub features_shifted: usize,
    /// The greatest population stability index of a feature.
    pub greatest_shift: Option<f64>,
    /// The greatest share of records without a feature.
    pub most_missing: f64,
    /// The greatest share of records with a value of a feature that was not in training's range.
    pub most_outside: f64,
}

impl ValidationReport {
    /// Adds what became of another batch's.
    pub(crate) fn add(&mut self, other: Self) {
        self.sampled += other.sampled;
        self.compared += other.compared;
        self.failed += other.failed;
        self.dropped += other.dropped;
        self.capture_failed += other.capture_failed;
        let worse = match (&self.known, &other.known) {
            (Some(known), Some(other)) => other.agreement >= known.agreement,
            (known, _) => known.is_none(),
        };
        if worse {
            self.known = other.known;
        }
    }
}

/// Sampling on its way.
#[derive(Debug)]
pub struct Sampling {
    task: JoinHandle<ValidationReport>,
    records: usize,
}

impl Sampling {
    /// Waits for its end, which is near: see [`SAMPLE_TIMEOUT`].
    pub(crate) async fn finish(self) -> ValidationReport {
        let lost = ValidationReport { dropped: self.records, ..ValidationReport::default() };
        self.task.await.unwrap_or(lost)
    }
}

impl Validation {
    /// Samples a share of the records, 0 to 1. With an endpoint, both are compared; `with_features`, the
    /// captured pairs have the records' features.
    pub fn new(
        share: f64,
        endpoint: Option<Endpoint>,
        capture: Option<Capture>,
        with_features: bool,
    ) -> Self {
        Self { share, endpoint, capture, with_features, watched: Mutex::default() }
    }

    /// Chooses records of one model by their identities. `record` gives the record of an index.
    pub(crate) fn choose<'r>(
        &self,
        points: &Points,
        record: impl Fn(usize) -> &'r Record<'r>,
    ) -> Chosen {
        let mut records = Vec::new();
        let mut of = 0;
        for (at, values, point) in points.with_values() {
            of += 1;
            let record = record(at);
            let id = record.origin.identity();
            let hash = xxh3_64_with_seed(id.as_bytes(), SEED);
            if !is_within(hash, self.share) {
                continue;
            }
            let (values, point) = (values.to_vec(), point.to_vec());
            let timestamp_ms = record.timestamp_ms;
            records.push(ChosenRecord { at, id, hash, timestamp_ms, values, point });
        }
        if records.len() > MAX_SAMPLED {
            // Those of the lowest hashes, so that redelivery chooses the same.
            records.sort_unstable_by_key(|record| record.hash);
            records.truncate(MAX_SAMPLED);
            records.sort_unstable_by_key(|record| record.at);
        }
        Chosen { records, of }
    }

    /// Sets out to compare what was chosen, now that it is scored. `threshold` is what the endpoint's
    /// scores are held against; `local` how long the local scores took.
    pub(crate) fn begin(
        self: &Arc<Self>,
        model: &Arc<Model>,
        chosen: Chosen,
        scored: &[Result<Scored, Unscorable>],
        threshold: Option<f64>,
        local: Duration,
        until: Until,
    ) -> Option<Sampling> {
        let Chosen { records, of } = chosen;
        let said: Vec<(ChosenRecord, (f32, Scorer, bool))> = records
            .into_iter()
            .filter_map(|record| {
                let scored = scored.get(record.at)?.as_ref().ok()?;
                Some((record, (scored.score, scored.by.scorer, scored.by.degraded)))
            })
            .collect();
        if said.is_empty() {
            return None;
        }
        let records = said.len();
        let (validation, model) = (Arc::clone(self), Arc::clone(model));
        let time = Time { ms: ms(local), rows: of };
        let has_time = until.is_after(Instant::now() + LEAST_TIME);
        let task = async move {
            if !has_time {
                return ValidationReport { dropped: records, ..ValidationReport::default() };
            }
            let until = until.within(SAMPLE_TIMEOUT);
            validation.compare(&model, said, threshold, time, local, until).await
        };
        Some(Sampling { task: tokio::spawn(task.in_current_span()), records })
    }

    async fn compare(
        &self,
        model: &Model,
        said: Vec<(ChosenRecord, (f32, Scorer, bool))>,
        threshold: Option<f64>,
        local_time: Time,
        local: Duration,
        until: Until,
    ) -> ValidationReport {
        let (records, said): (Vec<ChosenRecord>, Vec<_>) = said.into_iter().unzip();
        let asked = Instant::now();
        let answers = match &self.endpoint {
            None => None,
            Some(_)
                if said
                    .iter()
                    .any(|(_, scorer, degraded)| *scorer == Scorer::Endpoint || *degraded) =>
            {
                Some(known_already(model, &records, &said))
            }
            Some(endpoint) => {
                let scores = ask(endpoint, model.features(), &records, until).await;
                let both = said.iter().zip(scores).map(|((local, ..), told)| (*local, told));
                Some(both.collect())
            }
        };
        let endpoint_time = asked.elapsed();
        let mut report = ValidationReport { sampled: records.len(), ..ValidationReport::default() };
        let decide = |score: f32, threshold: Option<f64>| Decision { score, threshold };
        let of_model = crate::verdict::threshold(model);
        let name = self.endpoint.as_ref().map_or("", |endpoint| endpoint.config().name.as_str());
        let mut samples = Vec::new();
        let mut pairs = Vec::new();
        for (record, (score, told)) in records.iter().zip(answers.iter().flatten()) {
            let told = match told {
                Ok(told) => Ok(decide(*told, threshold)),
                Err(fault) => {
                    report.failed += 1;
                    Err(Cow::Owned(chain(fault)))
                }
            };
            let pair = Pair {
                id: Cow::Borrowed(&record.id),
                timestamp_ms: record.timestamp_ms,
                model: Cow::Borrowed(model.id()),
                local: decide(*score, of_model),
                local_time,
                endpoint_name: Cow::Borrowed(name),
                endpoint: told,
                endpoint_time: Time { ms: ms(endpoint_time), rows: records.len() },
                features: self.with_features.then(|| features_of(model.features(), &record.values)),
            };
            samples.extend(pair.sample().map(|sample| (record.hash, sample)));
            pairs.push(pair);
        }
        report.compared = samples.len();
        let call = answers.is_some().then_some(Call {
            local,
            endpoint: endpoint_time,
            failed: report.failed,
            asked: records.len(),
        });
        report.known = Some(self.learn(model, &records, samples, call));
        if let Some(capture) = &self.capture {
            let written = until.limit(capture.write(&pairs)).await;
            match written {
                Some(Ok(())) => {}
                Some(Err(fault)) => {
                    report.capture_failed = 1;
                    tracing::warn!(reason = chain(&fault), "pairs not captured");
                }
                None => {
                    report.capture_failed = 1;
                    tracing::warn!(reason = "there was no time left", "pairs not captured");
                }
            }
        }
        report
    }

    /// Takes what was found into the model's window, and says what is known since.
    fn learn(
        &self,
        model: &Model,
        records: &[ChosenRecord],
        samples: Vec<(u64, Sample)>,
        call: Option<Call>,
    ) -> Known {
        let mut all = self.watched();
        let place = all.iter().position(|watched| watched.model == model.id());
        let mut watched = match place {
            Some(place) => all.remove(place),
            None => Watched {
                model: model.id().to_owned(),
                window: Window::default(),
                quality: Quality::new(model),
                agreement: Agreement::default(),
                shifted: Vec::new(),
            },
        };
        for record in records {
            watched.quality.add(record.hash, model.features(), &record.values, &record.point);
        }
        if let Some(call) = call {
            watched.window.add(samples, call);
        }
        let map = model.endpoint_calibration();
        let known = watched.known(call, |score| map.map_or(score, |map| map.to_local(score)));
        all.push(watched);
        if all.len() > MAX_WATCHED {
            all.remove(0);
        }
        known
    }

    fn watched(&self) -> MutexGuard<'_, Vec<Watched>> {
        // Whoever panicked with it left every window sound.
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watched {
    /// What is known, told in the log where it is news. `to_local` brings a score of the endpoint to the
    /// model's scale.
    fn known(&mut self, call: Option<Call>, to_local: impl Fn(f64) -> f64) -> Known {
        let (measures, Judgement { agreement, reason }) = self.window.judge();
        let model = self.model.as_str();
        if agreement != self.agreement {
            let records = measures.records;
            match agreement {
                Agreement::Disagree | Agreement::Drifting => {
                    tracing::warn!(model, %agreement, records, reason, "validation");
                }
                Agreement::Agree | Agreement::TooFew => {
                    tracing::info!(model, %agreement, records, reason, "validation");
                }
            }
            self.agreement = agreement;
        }
        let features = self.quality.features();
        let shifted: Vec<String> = features
            .iter()
            .filter(|feature| feature.is_shifted)
            .map(|feature| feature.name.clone())
            .collect();
        if shifted != self.shifted {
            for feature in features.iter().filter(|feature| feature.is_shifted) {
                tracing::warn!(
                    model,
                    feature = feature.name,
                    index = feature.shift,
                    missing = feature.missing,
                    outside = feature.outside,
                    "data quality: a feature is distributed otherwise than in training"
                );
            }
            self.shifted = shifted;
        }
        let greatest = |of: &dyn Fn(&super::quality::FeatureQuality) -> Option<f64>| {
            features.iter().filter_map(of).max_by(f64::total_cmp)
        };
        let Measures { records, decisions, ref missing, ref ranks, .. } = measures;
        Known {
            model: self.model.clone(),
            agreement,
            records,
            decisions,
            tops_missing: missing.map(|share| share.value),
            rank_correlation: ranks.map(|ranks| ranks.value),
            shifts: measures.shifts(to_local),
            local: call.map_or(Duration::ZERO, |call| call.local),
            endpoint: call.map(|call| call.endpoint),
            features_shifted: self.shifted.len(),
            greatest_shift: greatest(&|feature| feature.shift),
            most_missing: greatest(&|feature| Some(feature.missing)).unwrap_or_default(),
            most_outside: greatest(&|feature| Some(feature.outside)).unwrap_or_default(),
        }
    }
}

type Told = Result<f32, EndpointFault>;

/// Pairs of a batch that the endpoint was asked about already: its scores are there, and the local ones
/// cost little. Where the local model stood in, the endpoint gave none.
fn known_already(
    model: &Model,
    records: &[ChosenRecord],
    said: &[(f32, Scorer, bool)],
) -> Vec<(f32, Told)> {
    let rows: Vec<f32> = records.iter().flat_map(|record| record.point.iter().copied()).collect();
    let mut scores = Array1::zeros(records.len());
    let points = ArrayView2::from_shape((records.len(), model.forest().dimensions()), &rows);
    let is_scored =
        points.is_ok_and(|points| model.forest().score_batch(points, scores.view_mut()).is_ok());
    if !is_scored {
        return Vec::new();
    }
    let told = said.iter().zip(scores).map(|((score, scorer, _), local)| match scorer {
        Scorer::Endpoint => (local, Ok(*score)),
        Scorer::Local => (local, Err(EndpointFault::OutOfTime)),
    });
    told.collect()
}

/// The endpoint's scores of records, one a record.
async fn ask(
    endpoint: &Endpoint,
    features: &Features,
    records: &[ChosenRecord],
    until: Until,
) -> Vec<Told> {
    let mut rows: Vec<f32> = Vec::new();
    let mut dimensions = features.dimensions();
    match endpoint.config().rows {
        RowKind::Points => records.iter().for_each(|record| rows.extend(&record.point)),
        RowKind::Values => {
            let plain = match value_features(features.spec(), Some(features.fitted())) {
                Ok(plain) => plain,
                Err(fault) => return vec![Err(fault.into()); records.len()],
            };
            dimensions = plain.dimensions();
            rows.resize(dimensions * records.len(), 0.0);
            for (record, row) in records.iter().zip(rows.chunks_exact_mut(dimensions)) {
                // A record that the model's features take, these do.
                let _ = plain.encode(&record.values, row);
            }
        }
    }
    let mut identities = crate::summary::Identities::default();
    records.iter().for_each(|record| identities.add(&record.id));
    match ArrayView2::from_shape((records.len(), dimensions), &rows) {
        Ok(rows) => endpoint.scores(rows, &format!("sample-{}", identities.hash()), until).await,
        Err(_) => vec![Err(EndpointFault::NotFinite); records.len()],
    }
}

/// True for a hash below a share of all.
fn is_within(hash: u64, share: f64) -> bool {
    #[expect(clippy::cast_precision_loss, reason = "53 bits of a hash are as good as 64")]
    let place = (hash >> 11) as f64 / (1_u64 << 53) as f64;
    place < share
}

/// A record's features as a JSON object.
fn features_of(features: &Features, values: &[Value]) -> Cow<'static, str> {
    let named: BTreeMap<&str, FeatureValue<'_>> =
        features.names().zip(values.iter().map(FeatureValue)).collect();
    Cow::Owned(serde_json::to_string(&named).unwrap_or_else(|_| "{}".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_share_and_a_greater_one_has_all_of_a_smaller() {
        let hashes: Vec<u64> =
            (0..20_000_u32).map(|at| xxh3_64_with_seed(&at.to_le_bytes(), SEED)).collect();
        let within = |share: f64| {
            let hashes = hashes.iter().copied();
            hashes.filter(|hash| is_within(*hash, share)).collect::<Vec<u64>>()
        };
        assert_eq!((within(0.0).len(), within(1.0).len()), (0, hashes.len()));
        let (few, many) = (within(0.05), within(0.2));
        assert!((900..=1100).contains(&few.len()), "{}", few.len());
        assert!(few.iter().all(|hash| many.contains(hash)));
    }
}
