//! What was done with a batch, counted and timed; holds nothing of the records' contents.

use std::time::Duration;

use super::MAX_REASONS;
use crate::endpoint::{BreakerState, EndpointCounts};
use crate::event::{Record, Source};
use crate::metrics::{Scores, ms};
use crate::model_slot::CheckCounts;
use crate::sinks::alerts::AlertCounts;
use crate::trust::Reason;
use crate::validation::{Agreement, ValidationReport};

/// What was done with a batch. Holds nothing of the records' contents.
#[derive(Debug, Clone)]
pub struct BatchReport {
    /// Who called.
    pub source: Source,
    /// Id of the model that scored it; of several, joined by commas.
    pub model: String,
    /// Records in the event: the sum of the next five.
    pub records: usize,
    /// Records that end as [`Outcome::Stored`](super::Outcome::Stored).
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
    /// Records that a model in the function scored.
    pub by_local: usize,
    /// Records that the endpoint scored.
    pub by_endpoint: usize,
    /// Records that were scored by another than `FALLBACK` says, for want of it.
    pub degraded: usize,
    /// Why the endpoint scored, or should have: of several reasons the worst.
    pub reason: Reason,
    /// What became of calls of the endpoint since the last report.
    pub calls: EndpointCounts,
    /// Whether the endpoint is called at present; none without an endpoint.
    pub breaker: Option<BreakerState>,
    /// What became of sampled records; none if nothing is sampled.
    pub validation: Option<ValidationReport>,
    /// What became of the alerts about them.
    pub alerts: AlertCounts,
    /// Calls of the sinks that were made again, by the SDK or for what was left undone.
    pub sink_retries: usize,
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
    /// Time to have the endpoint score them.
    pub endpoint: Duration,
    /// Time to score them here and to explain the anomalies.
    pub score: Duration,
    /// Time to store verdicts and to send dead letters and alerts.
    pub store: Duration,
    /// Reasons why records failed or were poison, each with the first record that it is true of; the
    /// first few of both. And why the endpoint scored fewer records than it should have.
    pub reasons: Vec<String>,
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
            by_local: 0,
            by_endpoint: 0,
            degraded: 0,
            reason: Reason::default(),
            calls: EndpointCounts::default(),
            breaker: None,
            validation: None,
            alerts: AlertCounts::default(),
            sink_retries: 0,
            event_bytes: 0,
            model_age: None,
            checks: CheckCounts::default(),
            scores: Scores::default(),
            total: Duration::ZERO,
            decode: Duration::ZERO,
            features: Duration::ZERO,
            endpoint: Duration::ZERO,
            score: Duration::ZERO,
            store: Duration::ZERO,
            reasons: Vec::new(),
        }
    }

    pub(super) fn give_reason(&mut self, record: &Record<'_>, what: &str, reason: &str) {
        let reasons = &mut self.reasons;
        if reasons.len() < MAX_REASONS && !reasons.iter().any(|said| said.ends_with(reason)) {
            reasons.push(format!("{} {what}: {reason}", record.origin.identity()));
        }
    }

    /// Who gave the scores: `local`, `endpoint`, `both` or `none`.
    pub fn scorer(&self) -> &'static str {
        match (self.by_local, self.by_endpoint) {
            (0, 0) => "none",
            (_, 0) => "local",
            (0, _) => "endpoint",
            (_, _) => "both",
        }
    }

    /// What validation says of the model, if it is asked.
    pub fn agreement(&self) -> Option<Agreement> {
        Some(self.validation.as_ref()?.known.as_ref()?.agreement)
    }

    /// Adds a reason that is none record's own.
    pub(super) fn note(&mut self, reason: String) {
        if self.reasons.len() < MAX_REASONS {
            self.reasons.push(reason);
        }
    }

    /// Adds what was done with a piece of the same invocation.
    pub(super) fn add(&mut self, piece: Self) {
        if self.model.is_empty() {
            self.model = piece.model;
        }
        self.records += piece.records;
        self.stored += piece.stored;
        self.dead_lettered += piece.dead_lettered;
        self.failed += piece.failed;
        self.no_history += piece.no_history;
        self.anomalies += piece.anomalies;
        self.by_local += piece.by_local;
        self.by_endpoint += piece.by_endpoint;
        self.degraded += piece.degraded;
        self.reason = self.reason.max(piece.reason);
        self.add_validation(piece.validation);
        self.alerts.add(piece.alerts);
        self.scores.merge(piece.scores);
        self.decode += piece.decode;
        self.features += piece.features;
        self.endpoint += piece.endpoint;
        self.score += piece.score;
        self.store += piece.store;
        let room = MAX_REASONS.saturating_sub(self.reasons.len());
        self.reasons.extend(piece.reasons.into_iter().take(room.max(piece.failed.min(1))));
    }

    /// Adds what became of sampled records.
    pub(super) fn add_validation(&mut self, other: Option<ValidationReport>) {
        if let Some(other) = other {
            self.validation.get_or_insert_default().add(other);
        }
    }

    /// Why the invocation fails.
    pub(super) fn failure(&self) -> String {
        let mut text = format!("{} of {} records failed", self.failed, self.records);
        if self.unread_objects > 0 {
            let objects = match self.unread_objects {
                1 => "1 object is not read to its end".to_owned(),
                count => format!("{count} objects are not read to their end"),
            };
            text = format!("{objects}, {text}");
        }
        format!("{text}: {}", self.reasons.join("; "))
    }

    pub(super) fn log(&self) {
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
            scorer = self.scorer(),
            reason = self.reason.name(),
            by_endpoint = self.by_endpoint,
            degraded = self.degraded,
            endpoint_calls = self.calls.calls,
            endpoint_failed = self.calls.failed,
            endpoint_not_asked = self.calls.not_asked,
            breaker = self.breaker.map(BreakerState::name),
            sampled = self.validation.as_ref().map(|validation| validation.sampled),
            agreement = self.agreement().map(tracing::field::display),
            alerts_sent = self.alerts.sent,
            alerts_held_back = self.alerts.held_back,
            alerts_failed = self.alerts.failed,
            sink_retries = self.sink_retries,
            event_bytes = self.event_bytes,
            model_age_secs = self.model_age.map(|age| age.as_secs()),
            total_ms = ms(self.total),
            decode_ms = ms(self.decode),
            features_ms = ms(self.features),
            endpoint_ms = ms(self.endpoint),
            score_ms = ms(self.score),
            store_ms = ms(self.store),
            reasons = self.reasons.join("; "),
            "batch"
        );
    }
}
