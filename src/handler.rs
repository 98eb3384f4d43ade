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
mod batch;
mod direct;
mod judge;
mod report;
#[cfg(test)]
mod tests;

use std::error::Error;
use std::time::Instant;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::SdkError;
use lambda_runtime::Diagnostic;
use sawlog_model::DimensionError;
use serde_json::value::RawValue;

use crate::app::App;
use crate::config::Kept;
use crate::deadline::Until;
use crate::endpoint::EndpointFault;
use crate::event::{
    DecodeFault, Event, EventError, Invocation, MAX_DECODED_LEN, Notice, RequestError,
};
use crate::models::{Chosen, Held};
use crate::object::{self, Object};
use crate::response::{self, Response};
use crate::sinks::SinkError;
use crate::trust::Reason;
use crate::verdict::Verdict;

use batch::{Batch, Judged, Sorted};
pub use report::BatchReport;

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
    /// Its model is missing, and the endpoint gave no score.
    #[error("there is no model to score it")]
    NotScored(#[source] EndpointFault),
    /// Its model can't be trusted, and nobody else is to score it.
    #[error("its model is {reason}, and FALLBACK lets nobody score it")]
    NotTrusted {
        /// Why it can't.
        reason: Reason,
    },
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
            report.sink_retries = self.retries.take();
            if let Some(endpoint) = &self.endpoint {
                report.calls = endpoint.take_counts();
                report.breaker = Some(endpoint.breaker());
            }
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
        // If S3 hangs, there is time for the records that don't need it.
        let until = until.half();
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
            let held = self.held_for(&notice.bucket);
            let features = held.as_ref().map(Held::features);
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
        let models = Chosen::new(topics, |topic| self.held_for(topic));
        let mut batch = Batch::new(&models, event);
        batch.is_redriven = event.queue.is_some() && event.queue == self.dead_letter_queue;
        // There is no way to stop in the middle of local scores, so it is asked before.
        if until.is_over() {
            return Ok(batch.finish());
        }
        let judged = batch.score(self, until).await?;
        Ok(self.write(batch, judged, until).await)
    }

    /// Stores verdicts and sends dead letters.
    async fn write<'a>(
        &'a self,
        mut batch: Batch<'a>,
        judged: Vec<Judged<'a>>,
        until: Until,
    ) -> (Vec<Outcome>, BatchReport) {
        let started = Instant::now();
        let Sorted { verdicts, rest, mut scores, letters } =
            batch.sort(judged, self.results_kept, self.endpoint_name());
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
        batch.finish_samplings(self).await;
        batch.finish()
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

/// The status of the answer that made a call of AWS fail, ` (HTTP 503)`; empty if there was no answer. A
/// service in trouble often says nothing else.
pub fn status_of<E>(error: &SdkError<E>) -> String {
    let status = |answer: &HttpResponse| format!(" (HTTP {})", answer.status().as_u16());
    error.raw_response().map(status).unwrap_or_default()
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
