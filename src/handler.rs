//! The whole way of one invocation, from the event to the answer.
//!
//! Faults are sorted here by what is to be done about them:
//!
//! - **poison**: this record will never be readable, or never be storable. It is dead-lettered and
//!   is done.
//! - **transient**: it could not be written now. It is reported failed and comes again.
//! - **fatal**: the invocation can't be understood at all. It fails as a whole.

use std::borrow::Cow;
use std::error::Error;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use lambda_runtime::Diagnostic;
use sawlog_model::{DimensionError, Model};
use serde_json::value::RawValue;

use crate::app::App;
use crate::deadline::Until;
use crate::event::{DecodeFault, Event, EventError, Record, Source};
use crate::metrics::{Scores, ms};
use crate::model_slot::CheckCounts;
use crate::models::Chosen;
use crate::response::{self, Response};
use crate::scorer::{Points, Scored, Unscorable};
use crate::sinks::{DeadLetter, SinkError};
use crate::verdict::Verdict;

/// Different reasons that a batch's log line gives for failures, and as many for poison.
const MAX_REASONS: usize = 3;

/// Anomalies of one batch that are logged, with `LOG_FIELDS=true`: enough to look into; the rest are in
/// the results.
const MAX_LOGGED: usize = 100;

/// What became of one record.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// Its verdict is stored.
    Stored,
    /// Its bytes are with the dead letters.
    DeadLettered,
    /// It can be read, but begins a series in this batch: it has no score, and nothing is written. A
    /// verdict without a score could only overwrite the one that the record had in another batch.
    NoHistory,
    /// Neither; it must come again.
    Failed {
        /// Why.
        reason: SinkError,
    },
}

/// An invocation that can be answered.
#[derive(Debug, Clone)]
pub struct Handled {
    /// The answer.
    pub response: Response,
    /// What was done.
    pub report: BatchReport,
}

/// What was done with a batch. Holds nothing of the records' contents.
#[derive(Debug, Clone)]
pub struct BatchReport {
    /// Who called.
    pub source: Source,
    /// Id of the model that scored it; of several, joined by commas.
    pub model: String,
    /// Records in the event: the sum of the next four.
    pub records: usize,
    /// Records whose verdicts are stored.
    pub stored: usize,
    /// Records that are with the dead letters.
    pub dead_lettered: usize,
    /// Records that must come again.
    pub failed: usize,
    /// Records with too few of their series before them in the batch to have a score.
    pub no_history: usize,
    /// Records judged anomalous, whatever became of them afterwards.
    pub anomalies: usize,
    /// The event's length.
    pub event_bytes: usize,
    /// How long ago the oldest of the models in use was published, if that is known.
    pub model_age: Option<Duration>,
    /// What became of checks for new models since the last report.
    pub checks: CheckCounts,
    /// The scores' distribution.
    pub scores: Scores,
    /// Time for everything, up to the answer.
    pub total: Duration,
    /// Time to take the event apart.
    pub decode: Duration,
    /// Time to make points of the payloads.
    pub features: Duration,
    /// Time to score them and to explain the anomalies.
    pub score: Duration,
    /// Time to store verdicts and to send dead letters.
    pub store: Duration,
    /// Reasons why records failed or were poison, each with the first record that it is true of; the
    /// first few of both.
    pub reasons: Vec<String>,
}

/// Why an invocation fails. The event source delivers the batch again, as its mapping says.
#[derive(Debug, thiserror::Error)]
pub enum HandlerError {
    /// It can't be understood.
    #[error(transparent)]
    Event(#[from] EventError),
    /// The model doesn't fit its own features.
    #[error(transparent)]
    Model(#[from] DimensionError),
    /// Records failed, and the source has no other way to be told.
    #[error("{} of {} records failed: {}", report.failed, report.records, report.reasons.join("; "))]
    Incomplete {
        /// What was done.
        report: Box<BatchReport>,
    },
}

impl From<HandlerError> for Diagnostic {
    fn from(error: HandlerError) -> Self {
        let error_type = match &error {
            HandlerError::Event(_) => "Sawlog.Event",
            HandlerError::Model(_) => "Sawlog.Model",
            HandlerError::Incomplete { .. } => "Sawlog.Incomplete",
        };
        Self { error_type: error_type.to_owned(), error_message: chain(&error) }
    }
}

impl App {
    /// Handles one invocation: every record ends stored, dead-lettered, failed or, with a shingle,
    /// without history, and the answer names the failed ones if it can. Work stops `DEADLINE_RESERVE_MS` before the deadline. One log
    /// line says what was done.
    ///
    /// # Errors
    /// [`HandlerError`] when the invocation must fail for the batch to come again.
    pub async fn handle(
        &self,
        event: &RawValue,
        deadline: Option<Instant>,
    ) -> Result<Handled, HandlerError> {
        let until = Until::before(deadline, self.deadline_reserve);
        let started = Instant::now();
        let checking = self.models.check_if_due();
        let mut result = self.answer(event, until).await;
        if let Some(checking) = checking {
            checking.wait(until).await;
        }
        if let Some(report) = report_of(&mut result) {
            report.event_bytes = event.get().len();
            report.model_age = self.models.age();
            report.checks = self.models.take_counts();
            report.total = started.elapsed();
        }
        match &result {
            Ok(Handled { report, .. }) => report.log(),
            Err(HandlerError::Incomplete { report }) => report.log(),
            Err(error) => tracing::error!(reason = chain(error), "invocation refused"),
        }
        result
    }

    async fn answer(&self, event: &RawValue, until: Until) -> Result<Handled, HandlerError> {
        let started = Instant::now();
        let event = Event::decode(event)?;
        let decode = started.elapsed();
        let (outcomes, mut report) = self.process(&event, until).await?;
        report.decode = decode;
        match response::answer(&event, &outcomes, self.partial_batch) {
            Some(response) => Ok(Handled { response, report }),
            None => Err(HandlerError::Incomplete { report: Box::new(report) }),
        }
    }

    /// Scores and writes a batch; one outcome a record, in their order.
    async fn process(
        &self,
        event: &Event<'_>,
        until: Until,
    ) -> Result<(Vec<Outcome>, BatchReport), HandlerError> {
        let topics = event.records.iter().map(|record| record.origin.topic());
        let models = Chosen::new(topics, |topic| self.model_for(topic));
        let mut batch = Batch::new(&models, event);
        // There is no way to stop in the middle of the scores, so it is asked before.
        if until.is_over() {
            return Ok(batch.finish());
        }
        let judged = batch.score()?;
        let started = Instant::now();
        let (verdicts, letters) = batch.sort(judged);
        if self.log_fields {
            log_anomalies(&verdicts.entries);
        }
        let (stored, sent) = futures_util::future::join(
            self.results.store(&verdicts.entries, until),
            self.dead_letters.send(&letters.entries, until),
        )
        .await;
        batch.settle(letters.records, sent, Outcome::DeadLettered);
        let unstorable = batch.settle(verdicts.records, stored, Outcome::Stored);
        // A verdict that no retry will make storable: rare, so a second pass after the first.
        let letters = batch.letters(unstorable);
        let sent = self.dead_letters.send(&letters.entries, until).await;
        batch.settle(letters.records, sent, Outcome::DeadLettered);
        batch.report.store = started.elapsed();
        Ok(batch.finish())
    }
}

/// A batch on its way. Every record's outcome is there from the start, as failed for want of time,
/// and is only ever replaced: so there is exactly one a record whatever happens.
struct Batch<'a> {
    models: &'a Chosen,
    event: &'a Event<'a>,
    outcomes: Vec<Outcome>,
    report: BatchReport,
    time_ms: u64,
}

/// What was found of a record, and by which model; or why it can't be scored.
type Judged<'a> = Result<(&'a Model, Scored), Unscorable>;

/// Entries for a sink, with the index of each one's record.
struct Addressed<T> {
    records: Vec<usize>,
    entries: Vec<T>,
}

impl<T> Default for Addressed<T> {
    fn default() -> Self {
        Self { records: Vec::new(), entries: Vec::new() }
    }
}

impl<T> Addressed<T> {
    fn push(&mut self, record: usize, entry: T) {
        self.records.push(record);
        self.entries.push(entry);
    }
}

impl<'a> Batch<'a> {
    fn new(models: &'a Chosen, event: &'a Event<'a>) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            models,
            event,
            outcomes: vec![Outcome::Failed { reason: SinkError::OutOfTime }; event.records.len()],
            report: BatchReport {
                model: models.ids(),
                ..BatchReport::of(event.source, event.records.len())
            },
            time_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// Scores the records, model by model; one entry a record, in their order.
    fn score(&mut self) -> Result<Vec<Judged<'a>>, DimensionError> {
        let event = self.event;
        let payload = |record: &'a Record<'a>| {
            let fault = |fault: &DecodeFault| Unscorable::Decode(fault.clone());
            (event.group(record), event.payload(record).map_err(fault))
        };
        // What no model is chosen for stays as it is here.
        let unscored = |record| Err(payload(record).1.err().unwrap_or(Unscorable::NoModel));
        let mut judged: Vec<Judged<'a>> = event.records.iter().map(unscored).collect();
        for (model, records) in self.models.groups() {
            let started = Instant::now();
            let points = Points::read(model, records.iter().map(|&at| payload(&event.records[at])));
            self.report.features += started.elapsed();
            let started = Instant::now();
            for (at, scored) in records.into_iter().zip(points.score(model)?) {
                judged[at] = scored.map(|scored| (model, scored));
            }
            self.report.score += started.elapsed();
        }
        Ok(judged)
    }

    /// Verdicts on what was scored, dead letters of what never will be.
    fn sort(
        &mut self,
        judged: Vec<Judged<'a>>,
    ) -> (Addressed<Verdict<'a>>, Addressed<DeadLetter<'a>>) {
        let (mut verdicts, mut letters) = (Addressed::default(), Addressed::default());
        for (index, (record, judged)) in self.event.records.iter().zip(judged).enumerate() {
            match judged {
                Ok((model, scored)) => {
                    self.report.scores.add(scored.score);
                    let origin = Cow::Borrowed(&record.origin);
                    let verdict = Verdict::new(model, origin, record.timestamp_ms, scored);
                    self.report.anomalies += usize::from(verdict.is_anomaly());
                    verdicts.push(index, verdict);
                }
                Err(Unscorable::NoHistory) => self.outcomes[index] = Outcome::NoHistory,
                Err(fault) => letters.push(index, self.letter(record, chain(&fault))),
            }
        }
        (verdicts, letters)
    }

    /// Dead letters of records whose verdicts are refused for what they are.
    fn letters(&mut self, poison: Vec<(usize, SinkError)>) -> Addressed<DeadLetter<'a>> {
        let mut letters = Addressed::default();
        for (index, fault) in poison {
            if let Some(record) = self.event.records.get(index) {
                let reason = format!("its verdict can't be stored: {}", chain(&fault));
                letters.push(index, self.letter(record, reason));
            }
        }
        letters
    }

    fn letter(&mut self, record: &'a Record<'a>, reason: String) -> DeadLetter<'a> {
        self.give_reason(record, "is poison", &reason);
        DeadLetter {
            origin: &record.origin,
            reason: reason.into(),
            time_ms: self.time_ms,
            payload: self.event.original(record),
        }
    }

    /// Takes a sink's answers over. Returns the records that it will never take.
    fn settle(
        &mut self,
        records: Vec<usize>,
        written: Vec<Result<(), SinkError>>,
        done: Outcome,
    ) -> Vec<(usize, SinkError)> {
        let mut poison = Vec::new();
        for (index, written) in records.into_iter().zip(written) {
            self.outcomes[index] = match written {
                Ok(()) => done.clone(),
                Err(reason) => {
                    if reason.is_permanent() {
                        poison.push((index, reason.clone()));
                    }
                    Outcome::Failed { reason }
                }
            };
        }
        poison
    }

    fn give_reason(&mut self, record: &Record<'_>, what: &str, reason: &str) {
        let reasons = &mut self.report.reasons;
        if reasons.len() < MAX_REASONS && !reasons.iter().any(|said| said.ends_with(reason)) {
            reasons.push(format!("{} {what}: {reason}", record.origin.identity()));
        }
    }

    fn finish(mut self) -> (Vec<Outcome>, BatchReport) {
        // Failures are said first: they are what somebody has to do something about.
        let poison = std::mem::take(&mut self.report.reasons);
        let outcomes = std::mem::take(&mut self.outcomes);
        for (record, outcome) in self.event.records.iter().zip(&outcomes) {
            match outcome {
                Outcome::Stored => self.report.stored += 1,
                Outcome::DeadLettered => self.report.dead_lettered += 1,
                Outcome::NoHistory => self.report.no_history += 1,
                Outcome::Failed { reason } => {
                    self.report.failed += 1;
                    if self.report.reasons.len() < MAX_REASONS {
                        self.give_reason(record, "failed", &chain(reason));
                    }
                }
            }
        }
        self.report.reasons.extend(poison);
        (outcomes, self.report)
    }
}

impl SinkError {
    /// True if the entry will never be taken, however often it is tried.
    fn is_permanent(&self) -> bool {
        match self {
            Self::TooLarge { .. } | Self::Json(_) | Self::Request(_) | Self::Refused { .. } => true,
            Self::OutOfTime
            | Self::NotAccepted { .. }
            | Self::DynamoDb(_)
            | Self::Sqs(_)
            | Self::File(_) => false,
        }
    }
}

impl BatchReport {
    /// The report of so many records of which nothing is known yet.
    pub(crate) fn of(source: Source, records: usize) -> Self {
        Self {
            source,
            model: String::new(),
            records,
            stored: 0,
            dead_lettered: 0,
            failed: 0,
            no_history: 0,
            anomalies: 0,
            event_bytes: 0,
            model_age: None,
            checks: CheckCounts::default(),
            scores: Scores::default(),
            total: Duration::ZERO,
            decode: Duration::ZERO,
            features: Duration::ZERO,
            score: Duration::ZERO,
            store: Duration::ZERO,
            reasons: Vec::new(),
        }
    }

    fn log(&self) {
        tracing::info!(
            source = %self.source,
            model = self.model,
            records = self.records,
            stored = self.stored,
            dead_lettered = self.dead_lettered,
            failed = self.failed,
            no_history = self.no_history,
            anomalies = self.anomalies,
            event_bytes = self.event_bytes,
            model_age_secs = self.model_age.map(|age| age.as_secs()),
            total_ms = ms(self.total),
            decode_ms = ms(self.decode),
            features_ms = ms(self.features),
            score_ms = ms(self.score),
            store_ms = ms(self.store),
            reasons = self.reasons.join("; "),
            "batch"
        );
    }
}

fn log_anomalies(verdicts: &[Verdict<'_>]) {
    for verdict in verdicts.iter().filter(|verdict| verdict.is_anomaly()).take(MAX_LOGGED) {
        match serde_json::to_string(verdict) {
            Ok(verdict) => tracing::info!(verdict, "anomaly"),
            Err(error) => tracing::warn!(id = verdict.id(), reason = chain(&error), "anomaly"),
        }
    }
}

fn report_of(result: &mut Result<Handled, HandlerError>) -> Option<&mut BatchReport> {
    match result {
        Ok(handled) => Some(&mut handled.report),
        Err(HandlerError::Incomplete { report }) => Some(report),
        Err(HandlerError::Event(_) | HandlerError::Model(_)) => None,
    }
}

/// An error with its causes on one line, leaving out a cause whose text is in the one above already.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use sawlog_model::{Shingle, ThresholdRule};
    use serde_json::Value;

    use super::*;
    use crate::config::{Config, DeadLettersUri, ModelUri, ResultsUri};
    use crate::scorer::tests::{model, shingled_model};

    struct Fixture {
        folder: tempfile::TempDir,
        app: App,
    }

    impl Fixture {
        async fn start(partial_batch: bool) -> Self {
            Self::with(&model(Some(ThresholdRule::Value(1.0))), partial_batch).await
        }

        async fn with(model: &Model, partial_batch: bool) -> Self {
            let folder = tempfile::tempdir().expect("folder");
            let path = |name: &str| folder.path().join(name);
            std::fs::write(path("m.model"), model.encode()).expect("written");
            let config = Config {
                models: ModelUri::File(path("m.model")).into(),
                model_refresh_secs: 0,
                results: ResultsUri::File(path("results.jsonl")),
                dead_letters: DeadLettersUri::File(path("dead.jsonl")),
                partial_batch,
                log_fields: false,
                deadline_reserve_ms: 100,
                s3_path_style: false,
            };
            let app = App::start(config).await.expect("started");
            Self { folder, app }
        }

        fn lines(&self, name: &str) -> Vec<Value> {
            let text = std::fs::read_to_string(Path::join(self.folder.path(), name)).expect("text");
            text.lines().map(|line| serde_json::from_str(line).expect("json")).collect()
        }
    }

    fn base64(payload: &str) -> String {
        base64_simd::STANDARD.encode_to_string(payload)
    }

    fn event(records: &[String]) -> Box<RawValue> {
        let records = records.join(",");
        let json = format!(r#"{{"eventSource":"aws:kafka","records":{{"t-0":[{records}]}}}}"#);
        RawValue::from_string(json).expect("json")
    }

    fn record(offset: usize, payload: &str) -> String {
        let value = base64(payload);
        format!(
            r#"{{"topic":"t","partition":0,"offset":{offset},"timestamp":5,"value":"{value}"}}"#
        )
    }

    /// Every kind of poison, each between sound records.
    fn mixed() -> (Box<RawValue>, usize, usize) {
        let poison = [
            r#"{"topic":"t","partition":0,"offset":OFFSET,"value":"*"}"#.to_owned(),
            r#"{"topic":"t","partition":0,"offset":OFFSET,"value":null}"#.to_owned(),
            r#"{"topic":"t","partition":0,"offset":OFFSET,"value":{"path":"/1"}}"#.to_owned(),
            r#"{"topic":"t","partition":1,"offset":OFFSET,"value":"YQ=="}"#.to_owned(),
            r#"{"topic":"t","partition":0,"value":"YQ=="}"#.to_owned(),
            "7".to_owned(),
            record(0, "not json").replace(r#""offset":0"#, r#""offset":OFFSET"#),
            record(0, r#"{"ms":"x"}"#).replace(r#""offset":0"#, r#""offset":OFFSET"#),
        ];
        let mut records = vec![record(0, r#"{"ms":20,"path":"/1"}"#)];
        for (index, poison) in poison.iter().enumerate() {
            records.push(poison.replace("OFFSET", &(2 * index + 1).to_string()));
            records.push(record(2 * index + 2, r#"{"ms":1e6,"path":"/1"}"#));
        }
        (event(&records), poison.len() + 1, poison.len())
    }

    #[tokio::test]
    async fn every_record_has_one_outcome_and_no_poison_fails_its_neighbours() {
        let fixture = Fixture::start(false).await;
        let (raw, sound, poison) = mixed();
        let event = Event::decode(&raw).expect("event");
        let (outcomes, report) =
            fixture.app.process(&event, Until::FOREVER).await.expect("processed");
        assert_eq!(outcomes.len(), event.records.len());
        for (index, outcome) in outcomes.iter().enumerate() {
            let as_it_should = if index % 2 == 0 {
                matches!(outcome, Outcome::Stored)
            } else {
                matches!(outcome, Outcome::DeadLettered)
            };
            assert!(as_it_should, "record {index}: {outcome:?}");
        }
        assert_eq!((report.records, report.stored), (sound + poison, sound));
        assert_eq!((report.dead_lettered, report.failed), (poison, 0));
        assert_eq!(report.anomalies, sound - 1, "all but the first are far out");
        let results = fixture.lines("results.jsonl");
        assert_eq!(results.len(), sound);
        assert_eq!(results[1]["id"], "kafka/t/0/2");
        assert_eq!((&results[0]["anomaly"], &results[1]["anomaly"]), (&false.into(), &true.into()));
        let dead = fixture.lines("dead.jsonl");
        assert_eq!(dead.len(), poison);
        assert_eq!(dead[6]["payload_base64"], base64("not json"), "the decoded payload is kept");
        assert_eq!(dead[5]["payload_base64"], base64("7"), "else the text");
        assert!(dead.iter().all(|letter| letter["reason"].as_str().is_some_and(|r| r.len() > 10)));
    }

    #[tokio::test]
    async fn redelivery_changes_nothing() {
        let fixture = Fixture::start(false).await;
        let (raw, sound, poison) = mixed();
        for _delivery in 0..3 {
            let handled = fixture.app.handle(&raw, None).await.expect("handled");
            assert_eq!(handled.response, Response::default());
            assert_eq!((handled.report.stored, handled.report.dead_lettered), (sound, poison));
        }
        assert_eq!(fixture.lines("results.jsonl").len(), sound);
        assert_eq!(fixture.lines("dead.jsonl").len(), poison);
    }

    #[tokio::test]
    async fn a_record_that_begins_its_series_is_not_written_and_takes_nothing_back() {
        let shingle = Shingle { size: 3, key: Some("/host".into()) };
        let model = shingled_model(Some(ThresholdRule::Value(100.0)), Some(shingle));
        let fixture = Fixture::with(&model, false).await;
        let text = |ms: usize| format!(r#"{{"host":"a","ms":{ms},"path":"/{}"}}"#, ms % 2);
        let mut records: Vec<String> = (0..8).map(|at| record(at, &text(at))).collect();
        // A key that is known and a field that is not: poison, and a gap.
        records[5] = record(5, r#"{"host":"a","path":"/1"}"#);
        let handle = async |records: &[String]| {
            let raw = event(records);
            let report = fixture.app.handle(&raw, None).await.expect("handled").report;
            assert_eq!(report.anomalies, 0);
            let BatchReport { stored, dead_lettered, failed, no_history, .. } = report;
            [stored, dead_lettered, failed, no_history]
        };
        assert_eq!(handle(&records).await, [3, 1, 0, 4]);
        let ids = || -> Vec<Value> {
            fixture.lines("results.jsonl").iter().map(|line| line["id"].clone()).collect()
        };
        assert_eq!(ids(), ["kafka/t/0/2", "kafka/t/0/3", "kafka/t/0/4"]);
        let before = fixture.lines("results.jsonl");
        // The later part comes again, with less before it.
        assert_eq!(handle(&records[2..5]).await, [1, 0, 0, 2]);
        assert_eq!(fixture.lines("results.jsonl"), before);
    }

    #[tokio::test]
    async fn without_time_every_record_is_failed_and_nothing_is_written() {
        let raw = event(&[record(8, r#"{"ms":20,"path":"/1"}"#), record(9, "poison")]);
        // Before the reserve of 100 ms begins, there are 50 ms left.
        let deadline = || Some(Instant::now() + Duration::from_millis(50));
        let whole = Fixture::start(false).await;
        let error = whole.app.handle(&raw, deadline()).await.expect_err("no time");
        let HandlerError::Incomplete { report } = &error else { panic!("{error:?}") };
        assert_eq!((report.records, report.failed), (2, 2));
        let message = Diagnostic::from(error).error_message;
        assert!(message.contains("2 of 2 records failed: kafka/t/0/8 failed: there was no time"));
        let partial = Fixture::start(true).await;
        let handled = partial.app.handle(&raw, deadline()).await.expect("answered");
        let offsets: Vec<i64> = handled
            .response
            .batch_item_failures
            .iter()
            .map(|failure| failure.item_identifier.offset)
            .collect();
        assert_eq!(offsets, [8, 9]);
        for fixture in [whole, partial] {
            assert!(fixture.lines("results.jsonl").is_empty());
            assert!(fixture.lines("dead.jsonl").is_empty());
        }
    }

    #[tokio::test]
    async fn an_empty_batch_is_done() {
        let fixture = Fixture::start(false).await;
        let handled = fixture.app.handle(&event(&[]), None).await.expect("handled");
        assert_eq!((handled.response, handled.report.records), (Response::default(), 0));
    }

    #[tokio::test]
    async fn an_event_of_another_source_fails_the_invocation() {
        let fixture = Fixture::start(true).await;
        let raw = RawValue::from_string(r#"{"Records":[]}"#.to_owned()).expect("json");
        let error = fixture.app.handle(&raw, None).await.expect_err("unknown");
        assert_eq!(Diagnostic::from(error).error_type, "Sawlog.Event");
    }

    #[test]
    fn a_verdict_that_will_never_be_taken_becomes_a_dead_letter() {
        let model = Arc::new(model(None));
        let raw = event(&[record(1, "{}"), record(2, "{}"), record(3, "{}")]);
        let event = Event::decode(&raw).expect("event");
        let models = Chosen::new(["t"; 3].into_iter(), |_| Some(Arc::clone(&model)));
        let mut batch = Batch::new(&models, &event);
        let large = SinkError::TooLarge { service: "DynamoDB", bytes: 500_000, limit: 409_600 };
        let written = vec![Ok(()), Err(large), Err(SinkError::OutOfTime)];
        let poison = batch.settle(vec![0, 1, 2], written, Outcome::Stored);
        let letters = batch.letters(poison);
        assert_eq!(letters.records, [1]);
        assert_eq!(
            letters.entries[0].reason,
            "its verdict can't be stored: it has 500000 bytes; DynamoDB takes 409600"
        );
        batch.settle(letters.records, vec![Ok(())], Outcome::DeadLettered);
        let (outcomes, report) = batch.finish();
        assert!(matches!(
            outcomes[..],
            [Outcome::Stored, Outcome::DeadLettered, Outcome::Failed { .. }]
        ));
        assert_eq!((report.stored, report.dead_lettered, report.failed), (1, 1, 1));
    }

    #[test]
    fn a_cause_that_is_said_already_is_not_said_again() {
        #[derive(Debug, thiserror::Error)]
        #[error("header: {0}")]
        struct Quoting(#[source] std::fmt::Error);
        #[derive(Debug, thiserror::Error)]
        #[error("model")]
        struct Plain(#[source] Quoting);
        let error = Plain(Quoting(std::fmt::Error));
        assert_eq!(chain(&error), format!("model: header: {}", std::fmt::Error));
    }

    #[test]
    fn an_app_is_shared_between_threads_and_so_is_its_work() {
        fn send<T: Send>(value: T) -> T {
            value
        }
        fn shared<T: Send + Sync>() {}
        shared::<App>();
        // Compiles only if the future of an invocation may move between threads.
        let check =
            |app: &'static App, event: &'static RawValue| drop(send(app.handle(event, None)));
        let _: fn(&'static App, &'static RawValue) = check;
    }
}
