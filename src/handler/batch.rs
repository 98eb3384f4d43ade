//! A batch between its event and its outcomes: what was found of each record, what is to be written
//! about it, and what became of that.

use std::borrow::Cow;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use sawlog_model::DimensionError;

use super::{BatchReport, Failure, MAX_REASONS, Outcome, chain};
use crate::alert::Alert;
use crate::app::App;
use crate::config::Kept;
use crate::deadline::Until;
use crate::event::{DecodeFault, Event, Record};
use crate::models::{Chosen, Held};
use crate::scorer::{Points, Scored, Unscorable};
use crate::sinks::{DeadLetter, SinkError};
use crate::summary::{Counts, Identities, Summary};
use crate::validation::Agreement;
use crate::validation::sampling::Sampling;
use crate::verdict::Verdict;

/// A batch on its way. Every record's outcome is there from the start, as failed for want of time,
/// and is only ever replaced: so there is exactly one a record whatever happens.
pub(super) struct Batch<'a> {
    models: &'a Chosen,
    pub(super) event: &'a Event<'a>,
    pub(super) outcomes: Vec<Outcome>,
    pub(super) report: BatchReport,
    time_ms: u64,
    /// True if the batch comes from the queue that dead letters go to.
    pub(super) is_redriven: bool,
    /// Sampled records that are being compared.
    samplings: Vec<Sampling>,
}

/// What was found of a record, and by what it was read; or why it can't be scored.
pub(super) type Judged<'a> = Result<(&'a Held, Scored), Unscorable>;

/// What is to be done about each record of a batch.
pub(super) struct Sorted<'a> {
    /// To be stored one by one.
    pub(super) verdicts: Addressed<Verdict<'a>>,
    /// Normal records that only the summary counts.
    pub(super) rest: Vec<usize>,
    /// The scores of all that have one.
    pub(super) scores: Vec<f32>,
    /// To be dead-lettered.
    pub(super) letters: Addressed<DeadLetter<'a>>,
}

/// Entries for a sink, with the index of each one's record.
pub(super) struct Addressed<T> {
    pub(super) records: Vec<usize>,
    pub(super) entries: Vec<T>,
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
    pub(super) fn new(models: &'a Chosen, event: &'a Event<'a>) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            models,
            event,
            outcomes: vec![
                Outcome::Failed { reason: SinkError::OutOfTime.into() };
                event.records.len()
            ],
            report: BatchReport {
                model: models.ids().join(","),
                ..BatchReport::of(event.source, event.records.len())
            },
            time_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
            is_redriven: false,
            samplings: Vec::new(),
        }
    }

    /// Scores the records, model by model; one entry a record, in their order.
    pub(super) async fn score(
        &mut self,
        app: &App,
        until: Until,
    ) -> Result<Vec<Judged<'a>>, DimensionError> {
        let event = self.event;
        let payload = |record: &'a Record<'a>| {
            let fault = |fault: &DecodeFault| Unscorable::Decode(fault.clone());
            (event.stream(record), event.payload(record).map_err(fault))
        };
        // What no model is chosen for stays as it is here.
        let unscored = |record| Err(payload(record).1.err().unwrap_or(Unscorable::NoModel));
        let mut judged: Vec<Judged<'a>> = event.records.iter().map(unscored).collect();
        let name = || {
            let mut identities = Identities::default();
            event.records.iter().for_each(|record| identities.add(&record.origin.identity()));
            identities.hash()
        };
        for (held, records) in self.models.groups() {
            let started = Instant::now();
            let points = Points::read(
                held.features(),
                event.header.as_deref(),
                records.iter().map(|&at| payload(&event.records[at])),
            );
            self.report.features += started.elapsed();
            let sampled = app
                .validation
                .as_ref()
                .map(|validation| validation.choose(&points, |at| &event.records[records[at]]));
            let before = self.report.score;
            let scored = app.judge(held, points, name, until, &mut self.report).await?;
            let local = self.report.score.saturating_sub(before);
            if let (Some(validation), Some(sampled), Held::Model { model, .. }) =
                (&app.validation, sampled, held)
            {
                let threshold = app.endpoint_threshold(held);
                self.samplings
                    .extend(validation.begin(model, sampled, &scored, threshold, local, until));
            }
            for (at, scored) in records.into_iter().zip(scored) {
                judged[at] = scored.map(|scored| (held, scored));
            }
        }
        Ok(judged)
    }

    /// Waits for what is being compared, and notes which model is suspect for it. One that was found to
    /// disagree stays so until it is found to agree.
    pub(super) async fn finish_samplings(&mut self, app: &App) {
        for sampling in std::mem::take(&mut self.samplings) {
            let report = sampling.finish().await;
            if let Some(known) = &report.known {
                match known.agreement {
                    Agreement::Disagree => app.trust.suspects().set(&known.model, true),
                    Agreement::Agree => app.trust.suspects().set(&known.model, false),
                    Agreement::Drifting | Agreement::TooFew => false,
                };
            }
            self.report.add_validation(Some(report));
        }
    }

    /// Verdicts on what was scored, as far as they are kept; dead letters of what never will be.
    /// `endpoint` is the name of the endpoint that may have scored some.
    pub(super) fn sort(
        &mut self,
        judged: Vec<Judged<'a>>,
        kept: Kept,
        endpoint: Option<&'a str>,
    ) -> Sorted<'a> {
        let (mut verdicts, mut letters) = (Addressed::default(), Addressed::default());
        let (mut rest, mut scores) = (Vec::new(), Vec::with_capacity(judged.len()));
        for (index, (record, judged)) in self.event.records.iter().zip(judged).enumerate() {
            let (held, scored) = match judged {
                Ok(judged) => judged,
                Err(Unscorable::NoHistory) => {
                    self.outcomes[index] = Outcome::NoHistory;
                    continue;
                }
                Err(Unscorable::Decode(fault)) if fault.comes_again() => {
                    self.outcomes[index] = Outcome::Failed { reason: Failure::Unread(fault) };
                    continue;
                }
                Err(Unscorable::Endpoint(fault)) => {
                    let reason = Failure::NotScored(fault);
                    self.outcomes[index] = Outcome::Failed { reason };
                    continue;
                }
                Err(Unscorable::NotTrusted { reason }) => {
                    let reason = Failure::NotTrusted { reason };
                    self.outcomes[index] = Outcome::Failed { reason };
                    continue;
                }
                Err(fault) => {
                    self.bury(index, record, chain(&fault), &mut letters);
                    continue;
                }
            };
            // Of one scale, or the distribution would be of two.
            let score = held.on_local_scale(scored.score, scored.by.scorer);
            scores.push(score);
            self.report.scores.add(score);
            let anomaly = scored.by.is_anomaly(scored.score);
            self.report.anomalies += usize::from(anomaly);
            if anomaly || kept == Kept::All {
                let origin = Cow::Borrowed(&record.origin);
                let time = record.timestamp_ms;
                let verdict = Verdict::by(held, endpoint, origin, time, scored);
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
    pub(super) fn summary(&self, rest: usize, scores: &mut [f32]) -> Summary {
        let count = |which: fn(&Outcome) -> bool| {
            self.outcomes.iter().filter(|outcome| which(outcome)).count()
        };
        let counts = Counts {
            stored: count(|outcome| matches!(outcome, Outcome::Stored)) + rest,
            dead_lettered: count(|outcome| matches!(outcome, Outcome::DeadLettered)),
            no_history: count(|outcome| matches!(outcome, Outcome::NoHistory)),
            failed: count(|outcome| matches!(outcome, Outcome::Failed { .. })) - rest,
            anomalies: self.report.anomalies,
            by_endpoint: self.report.by_endpoint,
            degraded: self.report.degraded,
        };
        let mut models: Vec<String> = self.models.ids().into_iter().map(str::to_owned).collect();
        // They come in the order of the topics in the event, which is not always the same.
        models.sort_unstable();
        Summary::new(&self.event.records, counts, self.report.reason, scores, models)
    }

    /// The alerts about anomalies of which all is done: of one that comes again they are given then.
    pub(super) fn alerts<'v>(&'v self, verdicts: &'v Addressed<Verdict<'a>>) -> Vec<Alert<'v>> {
        let settled = verdicts.records.iter().zip(&verdicts.entries).filter(|(record, verdict)| {
            verdict.is_anomaly() && matches!(self.outcomes[**record], Outcome::Stored)
        });
        let origins = self.event.records.iter().map(|record| &record.origin);
        Alert::of_batch(origins, settled.map(|(_, verdict)| verdict))
    }

    /// Dead letters of records whose verdicts are refused for what they are.
    pub(super) fn letters(&mut self, poison: Vec<(usize, SinkError)>) -> Addressed<DeadLetter<'a>> {
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
    pub(super) fn settle(
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

    pub(super) fn finish(mut self) -> (Vec<Outcome>, BatchReport) {
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
