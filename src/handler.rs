//! The whole way of one invocation, from the event to the answer.
//!
//! Faults are sorted here by what is to be done about them:
//!
//! - **poison**: this record will never be readable, or never be storable. It is dead-lettered and
//!   is done.
//! - **transient**: it could not be written now. It is reported failed and comes again.
//! - **fatal**: the invocation can't be understood at all. It fails as a whole.

#[cfg(test)]
mod any_event;
mod direct;

use std::borrow::Cow;
use std::error::Error;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use lambda_runtime::Diagnostic;
use sawlog_model::{DimensionError, Model};
use serde_json::value::RawValue;

use crate::alert::Alert;
use crate::app::App;
use crate::config::Kept;
use crate::deadline::Until;
use crate::event::{
    DecodeFault, Event, EventError, Invocation, MAX_DECODED_LEN, Notice, Record, RequestError,
    Source,
};
use crate::metrics::{Scores, ms};
use crate::model_slot::CheckCounts;
use crate::models::Chosen;
use crate::object::{self, Object};
use crate::response::{self, Response};
use crate::scorer::{Points, Scored, Unscorable};
use crate::sinks::alerts::AlertCounts;
use crate::sinks::{DeadLetter, SinkError};
use crate::summary::{Counts, Summary};
use crate::verdict::{self, Verdict};

/// Different reasons that a batch's log line gives for failures, and as many for poison.
const MAX_REASONS: usize = 3;

/// Anomalies of one batch that are logged, with `LOG_FIELDS=true`: enough to look into; the rest are in
/// the results.
const MAX_LOGGED: usize = 100;

/// What became of one record.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// Its verdict is stored, or it is a normal record that the batch's stored summary counts, or
    /// no results are kept.
    Stored,
    /// Its bytes are with the dead letters.
    DeadLettered,
    /// It can be read, but begins a series in this batch: it has no score, and nothing is written. A
    /// verdict without a score could only overwrite the one that the record had in another batch.
    NoHistory,
    /// Neither; it must come again.
    Failed {
        /// Why.
        reason: Failure,
    },
}

/// Why a record must come again.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Failure {
    /// It could not be written.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// It could not be read now.
    #[error(transparent)]
    Unread(DecodeFault),
    /// It is poison, and came from the queue that dead letters go to: sent there once more it would go
    /// round for ever, and each time as new. Failed, it stays there, and the queue counts its receipts.
    #[error("it is poison still, and stays in the dead-letter queue: {reason}")]
    StillPoison {
        /// What is wrong with it.
        reason: String,
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
    /// Records in the event: the sum of the next five.
    pub records: usize,
    /// Records that end as [`Outcome::Stored`].
    pub stored: usize,
    /// Records that are with the dead letters.
    pub dead_lettered: usize,
    /// Records that must come again.
    pub failed: usize,
    /// Records with too few of their series before them in the batch to have a score.
    pub no_history: usize,
    /// Records of a direct request of which nothing is stored.
    pub answered: usize,
    /// Objects of S3 that were not read to their end, and must come again.
    pub unread_objects: usize,
    /// Records judged anomalous, whatever became of them afterwards.
    pub anomalies: usize,
    /// What became of the alerts about them.
    pub alerts: AlertCounts,
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
    /// Time to store verdicts and to send dead letters and alerts.
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
    /// A direct request that can't be answered.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// An answer that can't be written as JSON.
    #[error("the answer can't be written")]
    Answer(#[source] serde_json::Error),
    /// Records failed, and the source has no other way to be told.
    #[error("{}", report.failure())]
    Incomplete {
        /// What was done.
        report: Box<BatchReport>,
    },
}

impl From<HandlerError> for Diagnostic {
    fn from(error: HandlerError) -> Self {
        let error_type = match &error {
            HandlerError::Event(EventError::Request(_)) | HandlerError::Request(_) => {
                "Sawlog.Request"
            }
            HandlerError::Event(_) => "Sawlog.Event",
            HandlerError::Model(_) => "Sawlog.Model",
            HandlerError::Answer(_) => "Sawlog.Answer",
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
        // Boxed: the futures of all sources, nested in one type, are too deep for the compiler.
        let mut result = Box::pin(self.answer(event, until)).await;
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
        let mut event = match Invocation::read(event)? {
            Invocation::Event(event) => event,
            Invocation::Request(request) => return self.answer_request(request, until).await,
        };
        self.fetch_payloads(&mut event, until).await;
        let decode = started.elapsed();
        let (outcomes, mut report) = self.process(&event, until).await?;
        report.decode = decode;
        let mut unread = Vec::new();
        for (index, notice) in event.notices.iter().enumerate() {
            if !self.process_object(notice, until, &mut report).await? {
                unread.push(index);
            }
        }
        report.unread_objects = unread.len();
        match response::answer(&event, &outcomes, &unread, self.partial_batch) {
            Some(response) => Ok(Handled { response, report }),
            None => Err(HandlerError::Incomplete { report: Box::new(report) }),
        }
    }

    /// Fetches the payloads that redriven dead letters only point to.
    async fn fetch_payloads(&self, event: &mut Event<'_>, until: Until) {
        let pointers: Vec<_> =
            event.pointers().map(|(record, pointer)| (record, pointer.clone())).collect();
        for (record, pointer) in pointers {
            let room = MAX_DECODED_LEN.saturating_sub(event.decoded_len());
            let bytes = if usize::try_from(pointer.len).is_ok_and(|len| len <= room) {
                object::fetch_payload(self.aws.s3().await, &pointer, until).await
            } else {
                Err(DecodeFault::NoRoom)
            };
            event.fetched(record, bytes.as_deref().map_err(Clone::clone));
        }
    }

    /// Scores and writes the lines of an object, piece by piece. True if all of them are done.
    async fn process_object(
        &self,
        notice: &Notice,
        until: Until,
        report: &mut BatchReport,
    ) -> Result<bool, HandlerError> {
        let unread = |report: &mut BatchReport, error| {
            let reason = format!("s3://{}/{}: {}", notice.bucket, notice.key, chain(&error));
            report.reasons.insert(0, reason);
            report.reasons.truncate(2 * MAX_REASONS);
            Ok(false)
        };
        let client = self.aws.s3().await;
        let mut object = match Object::open(client, notice, until).await {
            Ok(object) => object,
            Err(error) => return unread(report, error),
        };
        loop {
            let started = Instant::now();
            let model = self.model_for(&notice.bucket);
            let features = model.as_ref().map(|model| model.features());
            let event = match object.next_piece(features, until).await {
                Ok(Some(event)) => event,
                Ok(None) => return Ok(true),
                Err(error) => return unread(report, error),
            };
            let decode = started.elapsed();
            let (_, mut piece) = self.process(&event, until).await?;
            piece.decode = decode;
            let failed = piece.failed;
            report.add(piece);
            if failed > 0 {
                return Ok(false);
            }
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
        batch.is_redriven = event.queue.is_some() && event.queue == self.dead_letter_queue;
        // There is no way to stop in the middle of the scores, so it is asked before.
        if until.is_over() {
            return Ok(batch.finish());
        }
        let judged = batch.score()?;
        Ok(self.write(batch, judged, until).await)
    }

    /// Stores verdicts and sends dead letters.
    async fn write<'a>(
        &self,
        mut batch: Batch<'a>,
        judged: Vec<Judged<'a>>,
        until: Until,
    ) -> (Vec<Outcome>, BatchReport) {
        let started = Instant::now();
        let Sorted { verdicts, rest, mut scores, letters } = batch.sort(judged, self.results_kept);
        if self.log_fields {
            log_anomalies(&verdicts.entries);
        }
        let (stored, sent) = futures_util::future::join(
            self.results.store(&verdicts.entries, until),
            self.dead_letters.send(&letters.entries, until),
        )
        .await;
        batch.settle(&letters.records, sent, Outcome::DeadLettered);
        let unstorable = batch.settle(&verdicts.records, stored, Outcome::Stored);
        // A verdict that no retry will make storable: rare, so a second pass after the first.
        let letters = batch.letters(unstorable);
        let sent = self.dead_letters.send(&letters.entries, until).await;
        batch.settle(&letters.records, sent, Outcome::DeadLettered);
        // After them, since it says what became of all the others.
        if self.results_kept == Kept::Anomalies && !batch.event.records.is_empty() {
            let summary = batch.summary(rest.len(), &mut scores);
            let written = self.results.store_summary(&summary, until).await;
            if let (Err(fault), []) = (&written, &rest[..]) {
                tracing::warn!(reason = chain(fault), id = summary.id, "summary not stored");
            }
            let written = vec![written; rest.len()];
            batch.settle(&rest, written, Outcome::Stored);
        }
        if let Some(alerts) = &self.alerts {
            let about = batch.alerts(&verdicts);
            batch.report.alerts = alerts.send(&about, until).await;
        }
        batch.report.store = started.elapsed();
        batch.finish()
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
    /// True if the batch comes from the queue that dead letters go to.
    is_redriven: bool,
}

/// What was found of a record, and by which model; or why it can't be scored.
type Judged<'a> = Result<(&'a Model, Scored), Unscorable>;

/// What is to be done about each record of a batch.
struct Sorted<'a> {
    /// To be stored one by one.
    verdicts: Addressed<Verdict<'a>>,
    /// Normal records that only the summary counts.
    rest: Vec<usize>,
    /// The scores of all that have one.
    scores: Vec<f32>,
    /// To be dead-lettered.
    letters: Addressed<DeadLetter<'a>>,
}

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
            outcomes: vec![
                Outcome::Failed { reason: SinkError::OutOfTime.into() };
                event.records.len()
            ],
            report: BatchReport {
                model: models.ids(),
                ..BatchReport::of(event.source, event.records.len())
            },
            time_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
            is_redriven: false,
        }
    }

    /// Scores the records, model by model; one entry a record, in their order.
    fn score(&mut self) -> Result<Vec<Judged<'a>>, DimensionError> {
        let event = self.event;
        let payload = |record: &'a Record<'a>| {
            let fault = |fault: &DecodeFault| Unscorable::Decode(fault.clone());
            (event.stream(record), event.payload(record).map_err(fault))
        };
        // What no model is chosen for stays as it is here.
        let unscored = |record| Err(payload(record).1.err().unwrap_or(Unscorable::NoModel));
        let mut judged: Vec<Judged<'a>> = event.records.iter().map(unscored).collect();
        for (model, records) in self.models.groups() {
            let started = Instant::now();
            let points = Points::read(
                model,
                event.header.as_deref(),
                records.iter().map(|&at| payload(&event.records[at])),
            );
            self.report.features += started.elapsed();
            let started = Instant::now();
            for (at, scored) in records.into_iter().zip(points.score(model)?) {
                judged[at] = scored.map(|scored| (model, scored));
            }
            self.report.score += started.elapsed();
        }
        Ok(judged)
    }

    /// Verdicts on what was scored, as far as they are kept; dead letters of what never will be.
    fn sort(&mut self, judged: Vec<Judged<'a>>, kept: Kept) -> Sorted<'a> {
        let (mut verdicts, mut letters) = (Addressed::default(), Addressed::default());
        let (mut rest, mut scores) = (Vec::new(), Vec::with_capacity(judged.len()));
        for (index, (record, judged)) in self.event.records.iter().zip(judged).enumerate() {
            let (model, scored) = match judged {
                Ok(judged) => judged,
                Err(Unscorable::NoHistory) => {
                    self.outcomes[index] = Outcome::NoHistory;
                    continue;
                }
                Err(Unscorable::Decode(fault)) if fault.comes_again() => {
                    self.outcomes[index] = Outcome::Failed { reason: Failure::Unread(fault) };
                    continue;
                }
                Err(fault) => {
                    self.bury(index, record, chain(&fault), &mut letters);
                    continue;
                }
            };
            scores.push(scored.score);
            self.report.scores.add(scored.score);
            let anomaly = verdict::is_anomaly(model, scored.score);
            self.report.anomalies += usize::from(anomaly);
            if anomaly || kept == Kept::All {
                let origin = Cow::Borrowed(&record.origin);
                let verdict = Verdict::new(model, origin, record.timestamp_ms, scored);
                verdicts.push(index, verdict);
            } else if kept == Kept::Nothing {
                self.outcomes[index] = Outcome::Stored;
            } else {
                rest.push(index);
            }
        }
        Sorted { verdicts, rest, scores, letters }
    }

    /// The batch's summary, by which `rest` records more will be stored.
    fn summary(&self, rest: usize, scores: &mut [f32]) -> Summary {
        let count = |which: fn(&Outcome) -> bool| {
            self.outcomes.iter().filter(|outcome| which(outcome)).count()
        };
        let counts = Counts {
            stored: count(|outcome| matches!(outcome, Outcome::Stored)) + rest,
            dead_lettered: count(|outcome| matches!(outcome, Outcome::DeadLettered)),
            no_history: count(|outcome| matches!(outcome, Outcome::NoHistory)),
            failed: count(|outcome| matches!(outcome, Outcome::Failed { .. })) - rest,
            anomalies: self.report.anomalies,
        };
        let mut models: Vec<String> =
            self.models.groups().map(|(model, _)| model.id().to_owned()).collect();
        // They come in the order of the topics in the event, which is not always the same.
        models.sort_unstable();
        Summary::new(&self.event.records, counts, scores, models)
    }

    /// The alerts about anomalies of which all is done: of one that comes again they are given then.
    fn alerts<'v>(&'v self, verdicts: &'v Addressed<Verdict<'a>>) -> Vec<Alert<'v>> {
        let settled = verdicts.records.iter().zip(&verdicts.entries).filter(|(record, verdict)| {
            verdict.is_anomaly() && matches!(self.outcomes[**record], Outcome::Stored)
        });
        let origins = self.event.records.iter().map(|record| &record.origin);
        Alert::of_batch(origins, settled.map(|(_, verdict)| verdict))
    }

    /// Dead letters of records whose verdicts are refused for what they are.
    fn letters(&mut self, poison: Vec<(usize, SinkError)>) -> Addressed<DeadLetter<'a>> {
        let mut letters = Addressed::default();
        for (index, fault) in poison {
            if let Some(record) = self.event.records.get(index) {
                let reason = format!("its verdict can't be stored: {}", chain(&fault));
                self.bury(index, record, reason, &mut letters);
            }
        }
        letters
    }

    /// Adds the dead letter of a record that is poison, unless it would go to where it came from.
    fn bury(
        &mut self,
        index: usize,
        record: &'a Record<'a>,
        reason: String,
        letters: &mut Addressed<DeadLetter<'a>>,
    ) {
        self.report.give_reason(record, "is poison", &reason);
        if self.is_redriven {
            self.outcomes[index] = Outcome::Failed { reason: Failure::StillPoison { reason } };
            return;
        }
        let letter = DeadLetter {
            origin: &record.origin,
            reason: reason.into(),
            time_ms: self.time_ms,
            payload: self.event.original(record),
            undecoded: self.event.payload(record).is_err(),
        };
        letters.push(index, letter);
    }

    /// Takes a sink's answers over. Returns the records that it will never take.
    fn settle(
        &mut self,
        records: &[usize],
        written: Vec<Result<(), SinkError>>,
        done: Outcome,
    ) -> Vec<(usize, SinkError)> {
        let mut poison = Vec::new();
        for (index, written) in records.iter().copied().zip(written) {
            self.outcomes[index] = match written {
                Ok(()) => done.clone(),
                Err(reason) => {
                    if reason.is_permanent() {
                        poison.push((index, reason.clone()));
                    }
                    Outcome::Failed { reason: reason.into() }
                }
            };
        }
        poison
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
                        self.report.give_reason(record, "failed", &chain(reason));
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
            | Self::NoPlaceInS3 { .. }
            | Self::S3(_)
            | Self::DynamoDb(_)
            | Self::Sqs(_)
            | Self::Sns(_)
            | Self::NotAsked
            | Self::Ledger(_)
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
            answered: 0,
            unread_objects: 0,
            anomalies: 0,
            alerts: AlertCounts::default(),
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

    fn give_reason(&mut self, record: &Record<'_>, what: &str, reason: &str) {
        let reasons = &mut self.reasons;
        if reasons.len() < MAX_REASONS && !reasons.iter().any(|said| said.ends_with(reason)) {
            reasons.push(format!("{} {what}: {reason}", record.origin.identity()));
        }
    }

    /// Adds what was done with a piece of the same invocation.
    fn add(&mut self, piece: Self) {
        if self.model.is_empty() {
            self.model = piece.model;
        }
        self.records += piece.records;
        self.stored += piece.stored;
        self.dead_lettered += piece.dead_lettered;
        self.failed += piece.failed;
        self.no_history += piece.no_history;
        self.anomalies += piece.anomalies;
        self.alerts.add(piece.alerts);
        self.scores.merge(piece.scores);
        self.decode += piece.decode;
        self.features += piece.features;
        self.score += piece.score;
        self.store += piece.store;
        let room = MAX_REASONS.saturating_sub(self.reasons.len());
        self.reasons.extend(piece.reasons.into_iter().take(room.max(piece.failed.min(1))));
    }

    /// Why the invocation fails.
    fn failure(&self) -> String {
        let mut text = format!("{} of {} records failed", self.failed, self.records);
        if self.unread_objects > 0 {
            text = format!("{} objects are not read to their end, {text}", self.unread_objects);
        }
        format!("{text}: {}", self.reasons.join("; "))
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
            answered = self.answered,
            unread_objects = self.unread_objects,
            anomalies = self.anomalies,
            alerts_sent = self.alerts.sent,
            alerts_held_back = self.alerts.held_back,
            alerts_failed = self.alerts.failed,
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
        Err(_) => None,
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
    use crate::response::Item;
    use crate::scorer::tests::{model, shingled_model};

    pub(super) struct Fixture {
        folder: tempfile::TempDir,
        pub(super) app: App,
    }

    impl Fixture {
        pub(super) async fn start(partial_batch: bool) -> Self {
            Self::keeping(Kept::All, partial_batch).await
        }

        async fn keeping(kept: Kept, partial_batch: bool) -> Self {
            let model = model(Some(ThresholdRule::Value(1.0)));
            Self::with(&model, kept, partial_batch).await
        }

        async fn with(model: &Model, kept: Kept, partial_batch: bool) -> Self {
            let folder = tempfile::tempdir().expect("folder");
            let path = |name: &str| folder.path().join(name);
            std::fs::write(path("m.model"), model.encode()).expect("written");
            let config = Config {
                model_refresh_secs: 0,
                results_kept: kept,
                partial_batch,
                log_fields: false,
                deadline_reserve_ms: 100,
                ..Config::new(
                    ModelUri::File(path("m.model")),
                    ResultsUri::File(path("results.jsonl")),
                    DeadLettersUri::File(path("dead.jsonl")),
                )
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
    async fn what_is_normal_is_stored_with_the_summary_of_its_batch() {
        let fixture = Fixture::keeping(Kept::Anomalies, false).await;
        let (raw, sound, poison) = mixed();
        for delivery in 0..2 {
            let report = fixture.app.handle(&raw, None).await.expect("handled").report;
            assert_eq!((report.records, report.failed), (sound + poison, 0), "{delivery}");
            assert_eq!((report.stored, report.dead_lettered), (sound, poison), "{delivery}");
            let results = fixture.lines("results.jsonl");
            assert_eq!(results.len(), sound - 1 + 1, "the anomalies and the summary");
            assert!(results[..sound - 1].iter().all(|result| result["anomaly"] == true));
            let summary = &results[sound - 1];
            assert!(summary["id"].as_str().is_some_and(|id| id.starts_with("batch/")));
            let counts = ["records", "stored", "dead_lettered", "failed", "anomalies"]
                .map(|name| summary[name].as_u64().expect("a count") as usize);
            assert_eq!(counts, [sound + poison, sound, poison, 0, sound - 1], "{summary}");
            assert!(
                summary["scores"]["max"].as_f64() > Some(1.0),
                "above the threshold: {summary}"
            );
            assert_eq!(
                summary["models"],
                serde_json::json!([fixture.app.model_for("t").expect("a model").id()])
            );
        }
    }

    #[tokio::test]
    async fn a_normal_record_whose_summary_is_not_stored_is_failed() {
        let mut fixture = Fixture::keeping(Kept::Anomalies, true).await;
        // A table that no server has: what is sent there fails at once.
        let settings = aws_sdk_dynamodb::Config::builder()
            .behavior_version_latest()
            .endpoint_url("http://127.0.0.1:1")
            .region(aws_sdk_dynamodb::config::Region::new("eu-west-1"))
            .allow_no_auth();
        let client = aws_sdk_dynamodb::Client::from_conf(settings.build());
        let table = crate::sinks::dynamodb::DynamoDbResults::new(client, "results".into(), 0);
        fixture.app.results = crate::sinks::ResultsSink::DynamoDb(table);
        let raw = event(&[record(8, r#"{"ms":20,"path":"/1"}"#), record(9, "poison")]);
        let handled = fixture.app.handle(&raw, None).await.expect("answered");
        let report = handled.report;
        assert_eq!((report.stored, report.dead_lettered, report.failed), (0, 1, 1));
        let answer = serde_json::to_value(&handled.response).expect("json");
        let failed = serde_json::json!([{"itemIdentifier": {"partition": "t-0", "offset": 8}}]);
        assert_eq!(answer["batchItemFailures"], failed);
        assert!(report.reasons[0].contains("writing to DynamoDB failed"), "{:?}", report.reasons);
    }

    #[tokio::test]
    async fn without_results_every_record_that_can_be_scored_is_done() {
        let fixture = Fixture::keeping(Kept::Nothing, false).await;
        let (raw, sound, poison) = mixed();
        let report = fixture.app.handle(&raw, None).await.expect("handled").report;
        assert_eq!((report.stored, report.dead_lettered), (sound, poison));
        assert!(!fixture.folder.path().join("results.jsonl").exists(), "not even a file");
        assert_eq!(fixture.lines("dead.jsonl").len(), poison);
    }

    #[tokio::test]
    async fn redelivery_changes_nothing() {
        let fixture = Fixture::start(false).await;
        let (raw, sound, poison) = mixed();
        for _delivery in 0..3 {
            let handled = fixture.app.handle(&raw, None).await.expect("handled");
            assert!(handled.response.failures().is_empty());
            assert_eq!((handled.report.stored, handled.report.dead_lettered), (sound, poison));
        }
        assert_eq!(fixture.lines("results.jsonl").len(), sound);
        assert_eq!(fixture.lines("dead.jsonl").len(), poison);
    }

    #[tokio::test]
    async fn a_record_that_begins_its_series_is_not_written_and_takes_nothing_back() {
        let shingle = Shingle { size: 3, key: Some("/host".into()) };
        let model = shingled_model(Some(ThresholdRule::Value(100.0)), Some(shingle));
        let fixture = Fixture::with(&model, Kept::All, false).await;
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
        let item = |offset| Item::Kafka { partition: "t-0".into(), offset };
        assert_eq!(handled.response.failures(), [item(8), item(9)]);
        for fixture in [whole, partial] {
            assert!(fixture.lines("results.jsonl").is_empty());
            assert!(fixture.lines("dead.jsonl").is_empty());
        }
    }

    #[tokio::test]
    async fn an_empty_batch_is_done() {
        let fixture = Fixture::start(false).await;
        let handled = fixture.app.handle(&event(&[]), None).await.expect("handled");
        assert_eq!((handled.response.failures(), handled.report.records), (&[][..], 0));
    }

    fn messages(queue: &str, bodies: &[&str]) -> Box<RawValue> {
        let message = |(at, body): (usize, &&str)| {
            serde_json::json!({
                "eventSource": "aws:sqs",
                "eventSourceARN": format!("arn:aws:sqs:eu-central-1:1:{queue}"),
                "messageId": format!("m-{at}"),
                "body": body,
            })
        };
        let records: Vec<Value> = bodies.iter().enumerate().map(message).collect();
        serde_json::value::to_raw_value(&serde_json::json!({ "Records": records })).expect("json")
    }

    #[tokio::test]
    async fn a_redriven_dead_letter_is_stored_under_its_first_name() {
        let fixture = Fixture::start(true).await;
        let (raw, _, poison) = mixed();
        fixture.app.handle(&raw, None).await.expect("handled");
        // As they are in the queue; of one the payload is mended, as a new specification would.
        let mut letters = fixture.lines("dead.jsonl");
        letters[6]["payload_base64"] = base64(r#"{"ms":20,"path":"/1"}"#).into();
        let bodies: Vec<String> = letters.iter().map(Value::to_string).collect();
        let bodies: Vec<&str> = bodies.iter().map(String::as_str).collect();
        let redriven = messages("redrive", &bodies);
        let handled = fixture.app.handle(&redriven, None).await.expect("handled");
        let report = handled.report;
        assert_eq!((report.stored, report.dead_lettered), (1, poison - 1), "{report:?}");
        let results = fixture.lines("results.jsonl");
        assert_eq!(results.last().expect("a result")["id"], letters[6]["id"]);
        assert_eq!(fixture.lines("dead.jsonl").len(), poison, "none came again under another name");
    }

    #[tokio::test]
    async fn what_is_still_poison_stays_in_the_dead_letter_queue() {
        let mut fixture = Fixture::start(true).await;
        fixture.app.dead_letter_queue =
            crate::event::Queue::of_url("https://sqs.eu-central-1.amazonaws.com/1/dead");
        let sound = r#"{"ms":20,"path":"/1"}"#;
        let handled = fixture.app.handle(&messages("dead", &["poison", sound]), None).await;
        let handled = handled.expect("answered");
        assert_eq!(handled.response.failures(), [Item::Named("m-0".into())]);
        assert_eq!((handled.report.stored, handled.report.failed), (1, 1));
        assert!(fixture.lines("dead.jsonl").is_empty());
        let other = fixture.app.handle(&messages("other", &["poison"]), None).await;
        assert!(other.expect("answered").response.failures().is_empty());
        assert_eq!(fixture.lines("dead.jsonl").len(), 1);
    }

    #[tokio::test]
    async fn a_direct_request_is_answered_and_stored_only_with_an_id() {
        let fixture = Fixture::start(false).await;
        let ask = async |json: &str| {
            let raw = RawValue::from_string(json.to_owned()).expect("json");
            let handled = fixture.app.handle(&raw, None).await;
            handled.map(|handled| {
                let answer = serde_json::to_string(&handled.response).expect("json");
                (serde_json::from_str::<Value>(&answer).expect("json"), handled.report)
            })
        };
        let (answer, report) =
            ask(r#"{"instances":[{"features":[20,"/1"]},{"features":[1e6,"/1"]}]}"#)
                .await
                .expect("scores");
        assert_eq!((report.records, report.answered, report.anomalies), (2, 2, 1));
        let scores = answer["scores"].as_array().expect("scores");
        let score = |at: usize| scores[at]["score"].as_f64().expect("a score");
        assert!(score(1) > 1.5 * score(0), "{answer}");

        let records = r#""records":[{"ms":20,"path":"/1"},"{\"ms\":1e6,\"path\":\"/1\"}","x"]}"#;
        let (answer, report) = ask(&format!("{{{records}")).await.expect("verdicts");
        assert_eq!((report.records, report.answered, report.stored), (3, 3, 0));
        let verdicts = answer["verdicts"].as_array().expect("verdicts");
        assert_eq!((verdicts.len(), &verdicts[0]["id"]), (3, &"direct//0".into()));
        assert_eq!(
            (&verdicts[0]["score"], &verdicts[1]["anomaly"]),
            (&scores[0]["score"], &true.into())
        );
        assert!(verdicts[2]["error"].as_str().is_some_and(|error| error.contains("JSON")));
        assert!(
            fixture.lines("results.jsonl").is_empty() && fixture.lines("dead.jsonl").is_empty()
        );

        for _again in 0..2 {
            let with_id = ask(&format!(r#"{{"id":"b-1",{records}"#)).await;
            let (_, report) = with_id.expect("verdicts");
            assert_eq!((report.answered, report.stored, report.dead_lettered), (0, 2, 1));
            assert_eq!(fixture.lines("results.jsonl").len(), 2);
            assert_eq!(fixture.lines("dead.jsonl")[0]["id"], "direct/b-1/2");
        }

        let error = ask(r#"{"instances":[{"features":[1,"/1"]},{"features":[1]}]}"#).await;
        let diagnostic = Diagnostic::from(error.expect_err("one value"));
        assert_eq!(diagnostic.error_type, "Sawlog.Request");
        assert!(diagnostic.error_message.starts_with("instances[1]: it has 1 values"));
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
        let poison = batch.settle(&[0, 1, 2], written, Outcome::Stored);
        let letters = batch.letters(poison);
        assert_eq!(letters.records, [1]);
        assert_eq!(
            letters.entries[0].reason,
            "its verdict can't be stored: it has 500000 bytes; DynamoDB takes 409600"
        );
        batch.settle(&letters.records, vec![Ok(())], Outcome::DeadLettered);
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
