//! Metrics of an invocation, as one line of CloudWatch's embedded metric format.
//!
//! ```json
//! {"_aws":{"Timestamp":1661140339572,"CloudWatchMetrics":[{"Namespace":"Sawlog",
//!    "Dimensions":[["service","Source"]],"Metrics":[{"Name":"Records","Unit":"Count"},…]}]},
//!  "service":"requests","Source":"aws:kafka","Records":10000,…,
//!  "Score":{"Values":[0.39,0.41],"Counts":[7100,2900]},"model":"5f0c…"}
//! ```
//!
//! The line goes to standard output as it is, apart from the log's own format: CloudWatch takes the
//! metrics out of it and keeps the rest as a log event. `model` and the like are properties, to be
//! searched for; as dimensions each of their values would make every metric anew.
//!
//! The line is written with serde and not with a crate. `metrique` brings a hundred crates, some of
//! them second versions of what is here; `metrics_cloudwatch_embedded` counts in one recorder for the
//! process, which mixes invocations that run at the same time, and keeps a hundred scores of a batch
//! of ten thousand.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use crate::endpoint::BreakerState;
use crate::handler::{BatchReport, Handled, HandlerError};
use crate::trust::Reason;
use crate::validation::Agreement;
use crate::validation::sampling::Known;

/// Where metrics are filed unless `POWERTOOLS_METRICS_NAMESPACE` says otherwise.
const NAMESPACE: &str = "Sawlog";
/// Most values of one metric in one line; CloudWatch drops a line that has more.
const MAX_VALUES: usize = 100;

/// Writes the metrics of a function's invocations.
#[derive(Debug)]
pub struct Metrics {
    namespace: String,
    service: String,
    /// True until the first line is written.
    cold: AtomicBool,
}

impl Metrics {
    /// Reads `POWERTOOLS_METRICS_NAMESPACE` and `POWERTOOLS_SERVICE_NAME`; the latter is by default
    /// the function's name.
    pub fn from_env() -> Self {
        Self::from_vars(|name| std::env::var(name).ok())
    }

    fn from_vars(lookup: impl Fn(&str) -> Option<String>) -> Self {
        // CloudWatch refuses an empty name, and with it the line.
        let get = |name| lookup(name).filter(|value| !value.trim().is_empty());
        let service = || get("POWERTOOLS_SERVICE_NAME").or_else(|| get("AWS_LAMBDA_FUNCTION_NAME"));
        Self {
            namespace: get("POWERTOOLS_METRICS_NAMESPACE").unwrap_or_else(|| NAMESPACE.to_owned()),
            service: service().unwrap_or_else(|| NAMESPACE.to_lowercase()),
            cold: AtomicBool::new(true),
        }
    }

    /// Writes the line of an invocation to standard output. One that was refused as a whole has none:
    /// Lambda's own metric `Errors` counts it.
    pub fn write(&self, request_id: &str, result: &Result<Handled, HandlerError>) {
        let report = match result {
            Ok(handled) => &handled.report,
            Err(HandlerError::Incomplete { report }) => report,
            Err(_) => return,
        };
        let cold_start = self.cold.swap(false, Ordering::Relaxed);
        let mut line = self.line(request_id, report, cold_start, SystemTime::now()).to_string();
        line.push('\n');
        // Whole, so that no log line of another thread stands in it. Nobody could be told of a fault.
        let _ = std::io::stdout().lock().write_all(line.as_bytes());
    }

    fn line(
        &self,
        request_id: &str,
        report: &BatchReport,
        cold_start: bool,
        now: SystemTime,
    ) -> Value {
        let mut metrics = Vec::new();
        let mut line = Map::new();
        let mut put = |name: &str, unit: &str, value: Value| {
            metrics.push(json!({"Name": name, "Unit": unit}));
            line.insert(name.to_owned(), value);
        };
        for (name, count) in [
            ("Records", report.records),
            ("Stored", report.stored),
            ("DeadLettered", report.dead_lettered),
            ("Failed", report.failed),
            ("NoHistory", report.no_history),
            ("Answered", report.answered),
            ("UnreadObjects", report.unread_objects),
            ("Anomalies", report.anomalies),
            ("ScoredByEndpoint", report.by_endpoint),
            ("Degraded", report.degraded),
            ("ModelStale", usize::from(matches!(report.reason, Reason::Stale { .. }))),
            ("ModelMissing", usize::from(report.reason == Reason::Missing)),
            ("ModelSuspect", usize::from(report.reason == Reason::Suspect)),
            ("AlertsSent", report.alerts.sent),
            ("AlertsHeldBack", report.alerts.held_back),
            ("AlertsFailed", report.alerts.failed),
            ("SinkRetries", report.sink_retries),
            ("ColdStart", usize::from(cold_start)),
        ] {
            put(name, "Count", count.into());
        }
        for (name, count) in [
            ("ModelsReplaced", report.checks.replaced),
            ("ModelsRefused", report.checks.refused),
            ("ModelChecksFailed", report.checks.failed),
        ] {
            put(name, "Count", count.into());
        }
        put("EventBytes", "Bytes", report.event_bytes.into());
        for (name, duration) in [
            ("DecodeMs", report.decode),
            ("FeaturesMs", report.features),
            ("ScoreMs", report.score),
            ("StoreMs", report.store),
            ("TotalMs", report.total),
        ] {
            put(name, "Milliseconds", ms(duration).into());
        }
        if let Some(breaker) = report.breaker {
            for (name, count) in [
                ("EndpointCalls", report.calls.calls),
                ("EndpointFailed", report.calls.failed),
                ("EndpointNotAsked", report.calls.not_asked),
                ("EndpointBreakerOpen", u64::from(breaker != BreakerState::Closed)),
            ] {
                put(name, "Count", count.into());
            }
            put("EndpointMs", "Milliseconds", ms(report.endpoint).into());
        }
        if let Some(validation) = &report.validation {
            for (name, count) in [
                ("ValidationSampled", validation.sampled),
                ("ValidationCompared", validation.compared),
                ("ValidationFailed", validation.failed),
                ("ValidationDropped", validation.dropped),
                ("CaptureFailed", validation.capture_failed),
            ] {
                put(name, "Count", count.into());
            }
            if let Some(known) = &validation.known {
                put_known(&mut put, known);
            }
        }
        if let Some(age) = report.model_age {
            put("ModelAgeSecs", "Seconds", age.as_secs().into());
        }
        // A metric without a value would spoil the line.
        if !report.scores.is_empty() {
            let (values, counts): (Vec<f32>, Vec<u64>) = report.scores.values().unzip();
            put("Score", "None", json!({"Values": values, "Counts": counts}));
        }
        line.insert(
            "_aws".to_owned(),
            json!({
                "Timestamp": u64::try_from(since_epoch(now).as_millis()).unwrap_or(u64::MAX),
                "CloudWatchMetrics": [{
                    "Namespace": self.namespace,
                    "Dimensions": [["service", "Source"]],
                    "Metrics": metrics,
                }],
            }),
        );
        line.insert("service".to_owned(), self.service.as_str().into());
        line.insert("Source".to_owned(), report.source.to_string().into());
        line.insert("model".to_owned(), report.model.as_str().into());
        line.insert("scorer".to_owned(), report.scorer().into());
        line.insert("reason".to_owned(), report.reason.name().into());
        if let Some(breaker) = report.breaker {
            line.insert("breaker".to_owned(), breaker.name().into());
        }
        if let Some(agreement) = report.agreement() {
            line.insert("agreement".to_owned(), agreement.to_string().into());
        }
        line.insert("requestId".to_owned(), request_id.into());
        Value::Object(line)
    }
}

/// What is known of a model from its window of sampled records.
fn put_known(put: &mut impl FnMut(&str, &str, Value), known: &Known) {
    let table = known.decisions;
    for (name, count) in [
        ("ValidationBoth", table.both),
        ("ValidationOnlyLocal", table.only_local),
        ("ValidationOnlyEndpoint", table.only_endpoint),
        ("ValidationNeither", table.neither),
        ("ValidationWindow", known.records),
        ("ModelDisagrees", usize::from(known.agreement == Agreement::Disagree)),
        ("ModelDrifting", usize::from(known.agreement == Agreement::Drifting)),
        ("FeaturesShifted", known.features_shifted),
    ] {
        put(name, "Count", count.into());
    }
    let shifts = known.shifts.map_or([None; 3], |shifts| shifts.map(Some));
    for (name, value) in [
        ("ValidationTopsMissing", known.tops_missing),
        ("ValidationRankCorrelation", known.rank_correlation),
        ("ValidationShiftP50", shifts[0]),
        ("ValidationShiftP90", shifts[1]),
        ("ValidationShiftP99", shifts[2]),
        ("FeatureShiftMax", known.greatest_shift),
        ("FeatureMissingMax", Some(known.most_missing)),
        ("FeatureOutsideMax", Some(known.most_outside)),
    ] {
        if let Some(value) = value {
            put(name, "None", value.into());
        }
    }
    if let Some(endpoint) = known.endpoint {
        put("ValidationLocalMs", "Milliseconds", ms(known.local).into());
        put("ValidationEndpointMs", "Milliseconds", ms(endpoint).into());
    }
}

/// A duration in milliseconds.
pub(crate) fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn since_epoch(now: SystemTime) -> Duration {
    now.duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// How a batch's scores are distributed: exact to 0.4 %, in a few hundred numbers whatever the batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scores(BTreeMap<u16, u64>);

/// Bits of an `f32` that are left out of a key: positive floats are in the order of their bits, and
/// the upper 16 are the exponent and 7 bits behind the point.
const KEY_SHIFT: u32 = 16;

impl Scores {
    /// Adds a score. One that is not positive counts as zero.
    pub fn add(&mut self, score: f32) {
        let bits = if score > 0.0 { score.to_bits() } else { 0 };
        let key = (bits >> KEY_SHIFT) as u16;
        *self.0.entry(key).or_default() += 1;
    }

    /// Adds the scores of another batch.
    pub fn merge(&mut self, other: Self) {
        for (key, count) in other.0 {
            *self.0.entry(key).or_default() += count;
        }
    }

    /// True without a score.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// At most [`MAX_VALUES`] values in ascending order with how many scores each stands for: as fine
    /// as that allows, each the middle of the scores that it may stand for.
    fn values(&self) -> impl Iterator<Item = (f32, u64)> {
        let mut coarser = 0;
        let mut counts = self.0.clone();
        while counts.len() > MAX_VALUES {
            coarser += 1;
            counts.clear();
            for (key, count) in &self.0 {
                *counts.entry(key >> coarser).or_default() += count;
            }
        }
        counts.into_iter().map(move |(key, count)| {
            let shift = KEY_SHIFT + coarser;
            let (low, half) = (u32::from(key) << shift, 1 << (shift - 1));
            // Zero stands for itself.
            (f32::from_bits(if low == 0 { 0 } else { low | half }), count)
        })
    }
}

impl Extend<f32> for Scores {
    fn extend<I: IntoIterator<Item = f32>>(&mut self, scores: I) {
        scores.into_iter().for_each(|score| self.add(score));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::EndpointCounts;
    use crate::event::Source;
    use crate::model_slot::CheckCounts;
    use crate::sinks::alerts::AlertCounts;

    fn report(scores: impl IntoIterator<Item = f32>) -> BatchReport {
        let mut report = BatchReport::of(Source::Msk, 3);
        report.model = "5f0c".into();
        (report.stored, report.dead_lettered, report.failed) = (1, 1, 1);
        report.score = Duration::from_micros(1500);
        report.model_age = Some(Duration::from_secs(90));
        report.checks = CheckCounts { replaced: 1, refused: 2, failed: 3 };
        report.alerts = AlertCounts { sent: 4, held_back: 5, failed: 6 };
        report.sink_retries = 7;
        report.scores.extend(scores);
        report.reason = Reason::Stale { age_secs: 90 };
        (report.by_local, report.by_endpoint, report.degraded) = (1, 2, 1);
        report.calls = EndpointCounts { calls: 7, failed: 2, not_asked: 4 };
        report.breaker = Some(BreakerState::HalfOpen);
        report
    }

    fn metrics(vars: &[(&str, &str)]) -> Metrics {
        Metrics::from_vars(|name| {
            let found = vars.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn a_line_has_every_metric_that_it_declares_and_no_more_than_allowed() {
        let metrics = metrics(&[("AWS_LAMBDA_FUNCTION_NAME", "requests")]);
        let now = UNIX_EPOCH + Duration::from_millis(1_661_140_339_572);
        let line = metrics.line("id-1", &report([0.5, 0.5, 2.0]), true, now);
        assert_eq!(line["_aws"]["Timestamp"], 1_661_140_339_572_u64);
        let directive = &line["_aws"]["CloudWatchMetrics"][0];
        assert_eq!(directive["Namespace"], "Sawlog");
        assert_eq!(directive["Dimensions"], json!([["service", "Source"]]));
        assert_eq!((&line["service"], &line["Source"]), (&json!("requests"), &json!("aws:kafka")));
        let declared = directive["Metrics"].as_array().expect("a list");
        assert!(declared.len() <= 100);
        for metric in declared {
            let name = metric["Name"].as_str().expect("a name");
            let value = &line[name];
            assert!(value.is_number() || value["Values"].is_array(), "{name}: {value}");
        }
        for (name, value) in [
            ("Records", json!(3)),
            ("Failed", json!(1)),
            ("ColdStart", json!(1)),
            ("ModelsRefused", json!(2)),
            ("AlertsSent", json!(4)),
            ("AlertsHeldBack", json!(5)),
            ("AlertsFailed", json!(6)),
            ("SinkRetries", json!(7)),
            ("ScoredByEndpoint", json!(2)),
            ("Degraded", json!(1)),
            ("ModelStale", json!(1)),
            ("ModelMissing", json!(0)),
            ("EndpointCalls", json!(7)),
            ("EndpointFailed", json!(2)),
            ("EndpointNotAsked", json!(4)),
            ("EndpointBreakerOpen", json!(1)),
            ("scorer", json!("both")),
            ("reason", json!("stale")),
            ("breaker", json!("half_open")),
            ("ScoreMs", json!(1.5)),
            ("ModelAgeSecs", json!(90)),
            ("model", json!("5f0c")),
            ("requestId", json!("id-1")),
        ] {
            assert_eq!(line[name], value, "{name}");
        }
        assert_eq!(line["Score"]["Counts"], json!([2, 1]));
    }

    #[test]
    fn what_is_not_known_is_not_declared() {
        let mut report = report([]);
        report.model_age = None;
        report.breaker = None;
        let line = metrics(&[]).line("", &report, false, UNIX_EPOCH);
        let text = line.to_string();
        assert!(!text.contains("\"Score\"") && !text.contains("ModelAgeSecs"), "{text}");
        assert!(!text.contains("\"EndpointCalls\""), "there is no endpoint: {text}");
        assert_eq!((&line["service"], &line["ColdStart"]), (&json!("sawlog"), &json!(0)));
    }

    #[test]
    fn names_are_those_of_the_environment() {
        let metrics = metrics(&[
            ("POWERTOOLS_METRICS_NAMESPACE", "Logs"),
            ("POWERTOOLS_SERVICE_NAME", "web"),
            ("AWS_LAMBDA_FUNCTION_NAME", "requests"),
        ]);
        assert_eq!((metrics.namespace.as_str(), metrics.service.as_str()), ("Logs", "web"));
    }

    #[test]
    fn scores_keep_their_number_order_and_size_in_few_values() {
        // From an everyday spread to one over all sizes there are.
        for (low, step, error) in [(0.3_f32, 1.0001_f32, 0.02), (1e-30, 1.02, 3.1)] {
            let mut scores = Scores::default();
            let given: Vec<f32> =
                std::iter::successors(Some(low), |score| Some(score * step)).take(7000).collect();
            scores.extend(given.iter().copied());
            let values: Vec<(f32, u64)> = scores.values().collect();
            assert!(
                values.len() <= MAX_VALUES && values.len() > MAX_VALUES / 3,
                "{}",
                values.len()
            );
            assert!(values.is_sorted_by(|a, b| a.0 < b.0));
            let told = values
                .iter()
                .flat_map(|&(value, count)| std::iter::repeat_n(value, count as usize));
            let told: Vec<f32> = told.collect();
            assert_eq!(told.len(), given.len());
            for (told, given) in told.iter().zip(&given).filter(|(_, given)| given.is_finite()) {
                assert!((told / given - 1.0).abs() < error, "{told} for {given}");
            }
        }
        let mut few = Scores::default();
        few.extend([0.0, -1.0, 1.0]);
        let values: Vec<(f32, u64)> = few.values().collect();
        assert_eq!((values[0], values[1].1), ((0.0, 2), 1));
        assert!((values[1].0 - 1.0).abs() < 0.005);
    }
}
