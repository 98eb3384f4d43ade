//! Direct requests: scores or verdicts come back to the caller.

use std::borrow::Cow;
use std::time::Instant;

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::{Batch, BatchReport, Handled, HandlerError, Judged, chain};
use crate::app::App;
use crate::deadline::Until;
use crate::event::{Asked, Event, Request, RequestError, Source, values};
use crate::models::Chosen;
use crate::models::Held;
use crate::response::Response;
use crate::scorer::{Points, Scored, Unscorable};
use crate::verdict::Verdict;

/// Most bytes of an answer: Lambda's own limit.
const MAX_ANSWER_LEN: usize = 6 << 20;

impl App {
    /// Answers a direct request. It fails as a whole if its records are to be stored and one can't be:
    /// the caller tries it again.
    pub(super) async fn answer_request(
        &self,
        request: Request<'_>,
        until: Until,
    ) -> Result<Handled, HandlerError> {
        match request.asked {
            Asked::Instances(instances) => {
                self.answer_instances(request.model.as_deref(), &instances, until).await
            }
            Asked::Records(event) => self.answer_records(&event, request.id.is_some(), until).await,
        }
    }

    async fn answer_instances(
        &self,
        topic: Option<&str>,
        instances: &[&RawValue],
        until: Until,
    ) -> Result<Handled, HandlerError> {
        let topic = topic.unwrap_or_default();
        let held = self.held_for(topic);
        let held = held.ok_or_else(|| RequestError::NoModel { model: topic.to_owned() })?;
        let mut report = BatchReport {
            model: held.model().map_or(String::new(), |model| model.id().to_owned()),
            ..BatchReport::of(Source::Direct, instances.len())
        };
        let started = Instant::now();
        let instance = |index: usize, reason| RequestError::Instance { index, reason };
        let features = held.features();
        let mut points = Points::new(features);
        for (index, raw) in instances.iter().enumerate() {
            let values = values(features, raw);
            points.push(features, &values.map_err(|reason| instance(index, reason))?);
        }
        report.features = started.elapsed();
        // A request has no name of its own, and no place in a stream.
        let name = || "direct".to_owned();
        let scored = self.judge(&held, points, name, until, &mut report).await?;
        let mut scores = Vec::with_capacity(instances.len());
        for (index, scored) in scored.into_iter().enumerate() {
            let scored: Scored = scored.map_err(|fault| instance(index, chain(&fault)))?;
            report.anomalies += usize::from(scored.by.is_anomaly(scored.score));
            report.scores.add(scored.score);
            scores.push(scored.score);
        }
        report.answered = instances.len();
        Ok(Handled { response: Response::Scores(scores), report })
    }

    async fn answer_records(
        &self,
        event: &Event<'_>,
        is_stored: bool,
        until: Until,
    ) -> Result<Handled, HandlerError> {
        let topics = event.records.iter().map(|record| record.origin.topic());
        let models = Chosen::new(topics, |topic| self.held_for(topic));
        let mut batch = Batch::new(&models, event);
        let judged = batch.score(self, until).await?;
        // Before anything is stored: a caller that gets no answer would try again.
        let verdicts = verdicts(event, &judged, self.endpoint_name())?;
        let report = if is_stored {
            let (_, report) = self.write(batch, judged, until).await;
            if report.failed > 0 {
                return Err(HandlerError::Incomplete { report: Box::new(report) });
            }
            report
        } else {
            batch.finish_samplings(self).await;
            let mut report = batch.report;
            report.no_history =
                judged.iter().filter(|judged| matches!(judged, Err(Unscorable::NoHistory))).count();
            report.answered = judged.len() - report.no_history;
            for (_, scored) in judged.iter().flatten() {
                report.scores.add(scored.score);
                report.anomalies += usize::from(scored.by.is_anomaly(scored.score));
            }
            report
        };
        Ok(Handled { response: Response::Verdicts(verdicts), report })
    }
}

/// What is said of each record: its verdict, or why there is none.
fn verdicts(
    event: &Event<'_>,
    judged: &[Judged<'_>],
    endpoint: Option<&str>,
) -> Result<Vec<Box<RawValue>>, HandlerError> {
    #[derive(Serialize)]
    struct Error {
        error: String,
    }
    let mut len = 0;
    let mut verdicts = Vec::with_capacity(judged.len());
    for (record, judged) in event.records.iter().zip(judged) {
        let json = match judged {
            Ok((held, scored)) => {
                let (origin, time) = (Cow::Borrowed(&record.origin), record.timestamp_ms);
                let held: &Held = held;
                to_raw_value(&Verdict::by(held, endpoint, origin, time, scored.clone()))
            }
            Err(fault) => to_raw_value(&Error { error: chain(fault) }),
        };
        let json = json.map_err(HandlerError::Answer)?;
        len += json.get().len() + 1;
        verdicts.push(json);
    }
    // Around the list stand `{"verdicts":[` and `]}`.
    let (len, limit) = (len + 15, MAX_ANSWER_LEN);
    if len > limit {
        return Err(RequestError::AnswerTooLong { len, limit }.into());
    }
    Ok(verdicts)
}
