//! What one pass over the records leaves in memory, and the figures that follow from it.

use std::borrow::Cow;
use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use anyhow::ensure;
use sawlog_lambda::scorer::Scored;
use sawlog_lambda::{Origin, Verdict};
use sawlog_model::calibration::QUANTILES;
use sawlog_model::{Model, ThresholdRule};
use serde::{Serialize, Serializer};

use super::ranking::Ranking;
use super::stability::Stability;
use crate::describe;
use crate::ranges::Range;
use crate::tally::Tally;

/// Most records that are evaluated together: their scores and labels take 320 MiB, and 512 MiB more
/// while they are sorted.
pub(crate) const MAX_RECORDS: usize = 1 << 26;
/// Stretches of records that the course of the scores is drawn by.
const STRETCHES: usize = 1000;
/// Bars of the distribution of scores.
const BARS: usize = 72;

/// The shares of calibration's scores at or below what is tried, beside the model's own threshold and three
/// deviations. A rule `quantile:Q` takes a rank that is a little higher, so that it promises its rate: these are
/// not called by its name.
const TRIED: [f64; 3] = [0.99, 0.995, 0.999];
/// SageMaker's documentation flags what is above the mean by so many standard deviations.
const DEVIATIONS: f64 = 3.0;

/// What is known of a set of records under a model.
#[derive(Debug, Serialize)]
pub(crate) struct Evaluation<'m> {
    /// The model's id.
    #[serde(rename = "model", serialize_with = "model_id")]
    pub model: &'m Model,
    #[serde(flatten, serialize_with = "counts")]
    pub tally: Tally,
    /// Records with a score.
    pub scored: u64,
    /// Mean of the scores.
    pub mean: f64,
    /// Their standard deviation.
    pub deviation: f64,
    /// Their quantiles beside those of calibration.
    pub quantiles: Vec<Quantile>,
    /// What several thresholds would flag.
    pub thresholds: Vec<Threshold>,
    /// How well the scores find labelled anomalies.
    pub labels: Option<Ranking>,
    /// What models of several seeds agree on, if that was asked for.
    pub stability: Option<Stability>,
    /// Where the values of each feature lie.
    pub features: Vec<Range>,
    /// The most unusual records, the most unusual first; of equal ones the earlier.
    pub top: Vec<Top<'m>>,
    /// How many records are labelled as anomalies and as normal; `None` where labels were not asked for.
    #[serde(skip)]
    pub labelled: Option<[usize; 2]>,
    #[serde(skip)]
    pub course: Vec<Stretch>,
    #[serde(skip)]
    pub distribution: Distribution,
    /// Where each input begins: the number of its first scored record, and its name.
    #[serde(skip)]
    pub inputs: Vec<(usize, String)>,
}

/// A quantile of the scores.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Quantile {
    /// Share of records at or below.
    pub share: f64,
    /// The score.
    pub score: f32,
    /// The score of the same share at calibration.
    pub calibration: Option<f64>,
}

/// What a threshold would flag.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Threshold {
    /// How it is chosen.
    pub rule: String,
    /// Flagged are scores above it.
    pub threshold: f64,
    /// The share that it was to flag; `None` where the rule names none.
    pub expected: Option<f64>,
    /// Records flagged here.
    pub flagged: u64,
    /// Their share.
    pub share: f64,
}

/// One of the most unusual records.
#[derive(Debug, Serialize)]
pub(crate) struct Top<'m> {
    /// What is said of it, with the attribution even if it is no anomaly.
    #[serde(flatten)]
    pub verdict: Verdict<'m>,
    /// Whether it is known to be an anomaly.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<bool>,
    /// Its coordinates.
    #[serde(skip)]
    pub point: Vec<f32>,
}

/// Consecutive records.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Stretch {
    /// Least, mean and greatest score.
    pub min: f32,
    pub mean: f32,
    pub max: f32,
    /// Share of labelled anomalies.
    pub anomalies: f32,
}

/// How the scores are distributed over bars of equal width from the least to the greatest.
#[derive(Debug, Default)]
pub(crate) struct Distribution {
    pub min: f32,
    pub max: f32,
    pub counts: Vec<u64>,
    /// Labelled anomalies among them.
    pub anomalies: Vec<u64>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde has it")]
fn model_id<S: Serializer>(model: &&Model, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(model.id())
}

fn counts<S: Serializer>(tally: &Tally, serializer: S) -> Result<S::Ok, S::Error> {
    use serde::ser::SerializeMap;
    let mut map = serializer.serialize_map(Some(3))?;
    map.serialize_entry("read", &tally.read)?;
    map.serialize_entry("rejected", &tally.rejected)?;
    map.serialize_entry("no_history", &tally.no_history)?;
    map.end()
}

/// What is kept of the records while they go by.
pub(crate) struct Gathered<'m> {
    model: &'m Model,
    scores: Vec<f32>,
    labels: Vec<Label>,
    features: Vec<Range>,
    most: usize,
    /// The most unusual records so far, the least unusual of them on top.
    top: BinaryHeap<Reverse<Candidate>>,
    inputs: Vec<(usize, String)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Label {
    None,
    Normal,
    Anomaly,
}

/// A record that may be among the most unusual.
struct Candidate {
    scored: Scored,
    number: usize,
    origin: Origin,
    point: Vec<f32>,
    label: Option<bool>,
}

impl Candidate {
    /// The higher score; of equal ones the earlier record.
    fn rank(&self) -> (f32, Reverse<usize>) {
        (self.scored.score, Reverse(self.number))
    }
}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        let (mine, others) = (self.rank(), other.rank());
        mine.0.total_cmp(&others.0).then(mine.1.cmp(&others.1))
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Candidate {}

impl<'m> Gathered<'m> {
    /// No records yet; the `most` unusual ones will be told one by one.
    pub(crate) fn new(model: &'m Model, most: usize) -> Self {
        let features = model.features();
        let range = |(name, fitted)| Range::new(name, fitted);
        Self {
            model,
            scores: Vec::new(),
            labels: Vec::new(),
            features: features.names().zip(features.fitted()).map(range).collect(),
            most,
            top: BinaryHeap::new(),
            inputs: Vec::new(),
        }
    }

    /// Takes a scored record.
    ///
    /// # Errors
    /// Beyond [`MAX_RECORDS`].
    pub(crate) fn take(
        &mut self,
        origin: &Origin,
        scored: Scored,
        point: &[f32],
        label: Option<bool>,
    ) -> anyhow::Result<()> {
        ensure!(
            self.scores.len() < MAX_RECORDS,
            "more than {MAX_RECORDS} records: evaluate a part of them"
        );
        let number = self.scores.len();
        if let Origin::File { path, .. } = origin
            && self.inputs.last().is_none_or(|(_, last)| **last != **path)
        {
            self.inputs.push((number, path.to_string()));
        }
        self.scores.push(scored.score);
        self.labels.push(match label {
            None => Label::None,
            Some(false) => Label::Normal,
            Some(true) => Label::Anomaly,
        });
        let is_flagged = scored.by.is_anomaly(scored.score);
        let fitted = self.model.features().fitted();
        for ((range, fitted), value) in self.features.iter_mut().zip(fitted).zip(&scored.values) {
            range.take(fitted, value, is_flagged);
        }
        let is_full = self.top.len() >= self.most;
        let least = self.top.peek().map(|least| least.0.scored.score);
        if is_full && least.is_none_or(|least| scored.score <= least) {
            return Ok(());
        }
        if is_full {
            self.top.pop();
        }
        let (origin, point) = (origin.clone(), point.to_vec());
        self.top.push(Reverse(Candidate { scored, number, origin, point, label }));
        Ok(())
    }

    /// The figures; `None` without records.
    pub(crate) fn finish(self, tally: Tally, is_labelled: bool) -> Option<Evaluation<'m>> {
        let Self { model, mut scores, labels, features, top, inputs, .. } = self;
        let course = course(&scores, &labels);
        let distribution = Distribution::new(&scores, &labels)?;
        let top = explained(model, top.into_sorted_vec());
        let mut labelled: Vec<(f32, bool)> = Vec::new();
        if is_labelled {
            let both = scores.iter().zip(&labels).filter(|(_, label)| **label != Label::None);
            labelled.extend(both.map(|(&score, &label)| (score, label == Label::Anomaly)));
        }
        let unlabelled = (scores.len() - labelled.len()) as u64;
        let counts = [true, false]
            .map(|kind| labelled.iter().filter(|(_, is_anomaly)| *is_anomaly == kind).count());
        drop(labels);
        scores.sort_unstable_by(f32::total_cmp);
        let n = scores.len() as f64;
        let mean = scores.iter().map(|&score| f64::from(score)).sum::<f64>() / n;
        let squares = scores.iter().map(|&score| (f64::from(score) - mean).powi(2)).sum::<f64>();
        Some(Evaluation {
            model,
            tally,
            scored: scores.len() as u64,
            mean,
            deviation: (squares / n).sqrt(),
            quantiles: quantiles(model, &scores),
            thresholds: thresholds(model, &scores),
            labels: Ranking::new(&mut labelled, unlabelled, model.calibration()),
            stability: None,
            features,
            top,
            labelled: is_labelled.then_some(counts),
            course,
            distribution,
            inputs,
        })
    }
}

/// The records from the most unusual down, each with what makes it so.
fn explained(model: &Model, ascending: Vec<Reverse<Candidate>>) -> Vec<Top<'_>> {
    let points = ascending.iter().map(|candidate| candidate.0.point.as_slice());
    // The points are the model's own, so there is no other error.
    let explained = model.explain_batch(points).unwrap_or_default();
    let tops = ascending.into_iter().zip(explained).map(|(Reverse(candidate), shares)| {
        let Candidate { scored, origin, point, label, .. } = candidate;
        let scored = Scored { attribution: Some(shares), ..scored };
        let verdict = Verdict::new(model, Cow::Owned(origin), None, scored);
        Top { verdict, label, point }
    });
    tops.collect()
}

/// The quantiles that a calibration has, of sorted scores.
fn quantiles(model: &Model, sorted: &[f32]) -> Vec<Quantile> {
    let last = sorted.len() - 1;
    let then = |at: usize| model.calibration().and_then(|known| known.quantiles.get(at).copied());
    let quantile = |(at, &share): (usize, &f64)| Quantile {
        share,
        score: sorted[((share * last as f64).round() as usize).min(last)],
        calibration: then(at),
    };
    QUANTILES.iter().enumerate().map(quantile).collect()
}

fn thresholds(model: &Model, sorted: &[f32]) -> Vec<Threshold> {
    let row = |rule: String, threshold: f64, expected: Option<f64>| {
        let below = sorted.partition_point(|&score| f64::from(score) <= threshold);
        let flagged = sorted.len() - below;
        let share = flagged as f64 / sorted.len() as f64;
        Threshold { rule, threshold, expected, flagged: flagged as u64, share }
    };
    let Some(calibration) = model.calibration() else { return Vec::new() };
    let own_share = match calibration.rule {
        ThresholdRule::Quantile(share) => Some(share),
        ThresholdRule::Deviations(_) | ThresholdRule::Value(_) => None,
    };
    let own = format!("the model's ({})", calibration.rule);
    let mut rows = vec![row(own, calibration.threshold, own_share.map(|share| 1.0 - share))];
    // Beside the model's own, the plain quantile of the same share would look like another threshold for one rule.
    for share in TRIED.into_iter().filter(|share| Some(*share) != own_share) {
        let at = QUANTILES.iter().position(|quantile| *quantile == share);
        if let Some(&threshold) = at.and_then(|at| calibration.quantiles.get(at)) {
            let below = describe::share(share);
            rows.push(row(format!("{below} at calibration"), threshold, Some(1.0 - share)));
        }
    }
    let threshold = calibration.mean + DEVIATIONS * calibration.deviation;
    rows.push(row(ThresholdRule::Deviations(DEVIATIONS).to_string(), threshold, None));
    rows
}

fn course(scores: &[f32], labels: &[Label]) -> Vec<Stretch> {
    let len = scores.len().div_ceil(STRETCHES).max(1);
    let stretch = |(scores, labels): (&[f32], &[Label])| Stretch {
        min: scores.iter().copied().fold(f32::INFINITY, f32::min),
        mean: scores.iter().sum::<f32>() / scores.len() as f32,
        max: scores.iter().copied().fold(f32::NEG_INFINITY, f32::max),
        anomalies: labels.iter().filter(|&&label| label == Label::Anomaly).count() as f32
            / labels.len() as f32,
    };
    scores.chunks(len).zip(labels.chunks(len)).map(stretch).collect()
}

impl Distribution {
    /// The bar of a score.
    pub(crate) fn bar(&self, score: f64) -> f64 {
        let (min, max) = (f64::from(self.min), f64::from(self.max));
        if max > min { (score - min) / (max - min) * BARS as f64 } else { 0.0 }
    }

    fn new(scores: &[f32], labels: &[Label]) -> Option<Self> {
        let min = scores.iter().copied().min_by(f32::total_cmp)?;
        let max = scores.iter().copied().max_by(f32::total_cmp)?;
        let mut all = Self { min, max, counts: vec![0; BARS], anomalies: vec![0; BARS] };
        for (&score, &label) in scores.iter().zip(labels) {
            let bar = (all.bar(f64::from(score)) as usize).min(BARS - 1);
            all.counts[bar] += 1;
            all.anomalies[bar] += u64::from(label == Label::Anomaly);
        }
        Some(all)
    }
}
