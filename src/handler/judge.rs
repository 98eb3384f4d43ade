//! Who scores the points of a batch, and what becomes of those that the endpoint should score and
//! doesn't.

use std::time::Instant;

use sawlog_model::DimensionError;

use super::{BatchReport, chain};
use crate::app::App;
use crate::config::RowKind;
use crate::deadline::Until;
use crate::endpoint::{Endpoint, EndpointFault, value_features};
use crate::models::Held;
use crate::scorer::{Points, Scored, Unscorable};
use crate::trust::{By, Choice, Fallback, Reason, Scorer, ThresholdOf};
use crate::verdict;

type Judgements = Result<Vec<Result<Scored, Unscorable>>, DimensionError>;

impl App {
    /// Scores points by what is held, or by the endpoint where that can't be trusted. There is one entry
    /// a record of the points, in their order. `name` is what the endpoint knows the batch by.
    pub(super) async fn judge(
        &self,
        held: &Held,
        points: Points,
        name: impl FnOnce() -> String,
        until: Until,
        report: &mut BatchReport,
    ) -> Judgements {
        let choice = self.trust.choose(held);
        let Choice { reason, fallback, degraded } = choice;
        report.reason = report.reason.max(reason);
        if reason != Reason::Fresh {
            tracing::warn!(
                model = held.model().map_or("none", |model| model.id()),
                %reason,
                by = ?fallback,
                degraded,
                "the local model can't be trusted"
            );
        }
        match (fallback, held.model(), &self.endpoint) {
            (Fallback::Local, Some(model), _) => {
                let started = Instant::now();
                let by = By { reason, degraded, ..By::local(model) };
                let scores = points.local_scores(model)?;
                report.by_local += scores.len();
                report.degraded += if degraded { scores.len() } else { 0 };
                let scored = scores.into_iter().map(|score| Ok((score, by)));
                let judged = points.judged(scored, Some(model));
                report.score += started.elapsed();
                judged
            }
            (Fallback::Endpoint, _, Some(endpoint)) => {
                let started = Instant::now();
                // What is scored has to be written, too; and a stale model may have to stand in.
                let scores = ask(endpoint, held, &points, &name(), until.half()).await?;
                report.endpoint += started.elapsed();
                settle(endpoint, held, points, reason, scores, report)
            }
            (Fallback::Local | Fallback::Endpoint | Fallback::Fail, ..) => {
                let nobody = std::iter::repeat_with(|| Err(Unscorable::NotTrusted { reason }));
                points.judged(nobody, None)
            }
        }
    }
}

impl App {
    /// The score of the endpoint above which a record of what is held is an anomaly; none without an
    /// endpoint, or without calibration.
    pub(super) fn endpoint_threshold(&self, held: &Held) -> Option<f64> {
        let endpoint = self.endpoint.as_ref()?;
        by_endpoint(endpoint, held, Reason::Fresh).threshold
    }
}

/// The endpoint's scores of points, as the rows that it takes.
async fn ask(
    endpoint: &Endpoint,
    held: &Held,
    points: &Points,
    name: &str,
    until: Until,
) -> Result<Vec<Result<f32, EndpointFault>>, DimensionError> {
    let rows = points.rows()?;
    // Without a model the points are the values already.
    let (RowKind::Values, Some(model)) = (endpoint.config().rows, held.model()) else {
        return Ok(endpoint.scores(rows, name, until).await);
    };
    let features = model.features();
    let plain = match value_features(features.spec(), Some(features.fitted())) {
        Ok(plain) => plain,
        Err(fault) => return Ok(vec![Err(fault.into()); rows.nrows()]),
    };
    let (rows, dimensions) = (points.rows_of(&plain), plain.dimensions());
    // A record that the one takes, the other does: the specification is the same.
    let rows = rows.unwrap_or_default();
    let count = rows.len() / dimensions;
    let rows = ndarray::ArrayView2::from_shape((count, dimensions), &rows)
        .map_err(|_| DimensionError { expected: dimensions, got: rows.len() })?;
    Ok(endpoint.scores(rows, name, until).await)
}

/// What the endpoint scored, and in place of what it didn't the local model's scores, if there is one.
fn settle(
    endpoint: &Endpoint,
    held: &Held,
    points: Points,
    reason: Reason,
    scores: Vec<Result<f32, EndpointFault>>,
    report: &mut BatchReport,
) -> Judgements {
    let started = Instant::now();
    let by_endpoint = by_endpoint(endpoint, held, reason);
    let failed = scores.iter().filter(|score| score.is_err()).count();
    report.by_endpoint += scores.len() - failed;
    let model = held.model();
    let local = match (model, failed) {
        (Some(model), 1..) => Some((points.local_scores(model)?, By::local(model))),
        _ => None,
    };
    if let (Some(_), Some(fault)) = (&local, scores.iter().find_map(|score| score.as_ref().err())) {
        report.by_local += failed;
        report.degraded += failed;
        let why = chain(fault);
        report.note(format!("{failed} records are scored by the {reason} model instead: {why}"));
    }
    let scores = scores.into_iter().enumerate().map(|(row, score)| match (score, &local) {
        (Ok(score), _) => Ok((score, by_endpoint)),
        (Err(_), Some((local, by))) => Ok((local[row], By { reason, degraded: true, ..*by })),
        (Err(fault), None) => Err(Unscorable::Endpoint(fault)),
    });
    let judged = points.judged(scores, model);
    report.score += started.elapsed();
    judged
}

/// What a score of the endpoint is held against.
fn by_endpoint(endpoint: &Endpoint, held: &Held, reason: Reason) -> By {
    let configured = endpoint.config().threshold.map(|it| (it, ThresholdOf::Configured));
    let model = held.model();
    let learned = model.and_then(|model| model.endpoint_calibration());
    let learned = learned.map(|it| (it.calibration.threshold, ThresholdOf::Endpoint));
    let local = model.and_then(verdict::threshold).map(|it| (it, ThresholdOf::Local));
    let (threshold, threshold_of) = configured.or(learned).or(local).unzip();
    By {
        scorer: Scorer::Endpoint,
        reason,
        degraded: false,
        threshold,
        threshold_of: threshold_of.unwrap_or_default(),
    }
}
