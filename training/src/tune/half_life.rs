//! Which half-life suits records whose times are known.
//!
//! A model is for the records that come after those that it is made of. So the newest fifth of the records is set
//! aside, models of the others are made with several half-lives, and each is asked what it makes of that fifth. A
//! threshold promises to flag a share of the records that are like those it is made of; where what is usual has
//! moved, a model of all of the past flags far more. Of the half-lives that exceed the promise least, to a factor
//! of three, the longest is taken, since it knows most; no half-life is the longest of all. With labels the one is
//! taken that finds most in the newest fifth.

use std::cmp::Reverse;
use std::io::Write;

use anyhow::ensure;
use sawlog_model::Decay;
use sawlog_model::sketch::MIN_HALF_LIFE_MS;
use serde::Serialize;

use super::{Found, QUANTILE, Setting, Trial, Tried, points, scores};
use crate::describe::{grouped, percent, table};

/// One record in so many is of the newest.
const NEWEST_ONE_IN: usize = 5;
/// Fewest of them that a share of one in a hundred is seen in.
const MIN_NEWEST: usize = 200;
/// The longest half-life that is tried is the time between the oldest and the newest of the other records; the
/// shortest leaves only the last sixteenth of it much weight.
const PARTS_TRIED: [u64; 5] = [1, 2, 4, 8, 16];
/// Share of the oldest and of the newest records whose times are not trusted to say how long that is.
const OUTSIDE_SHARE: usize = 100;
/// A longer half-life whose share exceeds the promise by no more than this factor more is taken: unusual records
/// come together, so shares of a few hundred records are uncertain by nearly as much.
const PROMISE_MARGIN: f64 = 3.0;
/// A longer half-life that finds less by no more than this, in average precision, is taken.
const PRECISION_MARGIN: f64 = 0.01;
/// A half-life is shown in whole days, hours or minutes of which it has at least so many.
const MIN_UNITS: u64 = 3;

const UNITS_MS: [u64; 3] = [86_400_000, 3_600_000, 60_000];

/// What was tried.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// The newest records, which each was tried on.
    newest: usize,
    /// The field with their times.
    time_field: String,
    /// None, then the longest first.
    tried: Vec<Outcome>,
    /// The index of what is recommended.
    recommended: usize,
}

/// How a half-life did: means of all seeds.
#[derive(Debug, Serialize)]
struct Outcome {
    /// As `sawlog train` takes it.
    half_life: Option<String>,
    /// The share of records like those it was made of that the threshold flags.
    promised: f64,
    /// The share of the newest that it flagged.
    flagged: f64,
    /// Of the newest, against the labels.
    average_precision: Option<f64>,
    roc_auc: Option<f64>,
}

impl Outcome {
    /// How far more is flagged than promised, as the logarithm of a factor; 0 if it isn't.
    fn excess(&self, newest: usize) -> f64 {
        // Half a record more, so that none has a logarithm too.
        let half = 0.5 / as_f64(newest as u64);
        ((self.flagged + half) / (self.promised + half)).ln().max(0.0)
    }
}

/// Tries half-lives with a setting.
///
/// # Errors
/// Too few records, or times that are all the same.
pub(super) fn tune(trial: &Trial<'_>, setting: Setting, field: &str) -> anyhow::Result<Report> {
    let mut by_time: Vec<&Tried> = trial.records.iter().collect();
    by_time.sort_by_key(|record| (record.time_ms, record.key));
    let (older, newest) = by_time.split_at(by_time.len() - by_time.len() / NEWEST_ONE_IN);
    ensure!(
        newest.len() >= MIN_NEWEST,
        "--time-field: the newest fifth of {} records is too few to try half-lives on: {} records at least",
        by_time.len(),
        MIN_NEWEST * NEWEST_ONE_IN
    );
    let outside = older.len() / OUTSIDE_SHARE;
    let (first_ms, last_ms) = (older[outside].time_ms, older[older.len() - 1 - outside].time_ms);
    let half_lives = half_lives(last_ms.abs_diff(first_ms));
    ensure!(
        !half_lives.is_empty(),
        "--time-field {field}: the records' times are within {MIN_HALF_LIFE_MS} ms: there is no half-life to look for"
    );
    let mut tried = Vec::new();
    for half_life_ms in [None].into_iter().chain(half_lives.into_iter().map(Some)) {
        let decay =
            half_life_ms.map(|half_life_ms| Decay { half_life_ms, time_field: field.to_owned() });
        tried.push(try_one(trial, setting, decay, older, newest)?);
    }
    let recommended = recommended(&tried, newest.len());
    let (newest, time_field) = (newest.len(), field.to_owned());
    Ok(Report { newest, time_field, tried, recommended })
}

/// Half-lives of records of so long a time, the longest first.
fn half_lives(span_ms: u64) -> Vec<u64> {
    let rounded = PARTS_TRIED.map(|parts| {
        let len_ms = span_ms / parts;
        let unit_ms = UNITS_MS.into_iter().find(|unit_ms| len_ms >= MIN_UNITS * unit_ms);
        unit_ms.map_or(0, |unit_ms| len_ms / unit_ms * unit_ms)
    });
    let mut tried: Vec<u64> =
        rounded.into_iter().filter(|len_ms| *len_ms >= MIN_HALF_LIFE_MS).collect();
    tried.sort_by_key(|len_ms| Reverse(*len_ms));
    tried.dedup();
    tried
}

fn try_one(
    trial: &Trial<'_>,
    setting: Setting,
    decay: Option<Decay>,
    older: &[&Tried],
    newest: &[&Tried],
) -> anyhow::Result<Outcome> {
    let (mut promised, mut flagged, mut all) = (0.0, 0.0, Vec::new());
    for seed in trial.seeds() {
        let model = trial.model(setting, seed, older.iter().copied(), decay.clone())?;
        let scores = scores(&model, &points(&model, newest)?)?;
        if let Some(calibration) = model.calibration() {
            // Of few held-out records the threshold is the greatest score, which one more may exceed too.
            promised += (1.0 - QUANTILE).max(1.0 / (as_f64(calibration.records) + 1.0));
            let is_flagged = |score: &&f32| f64::from(**score) > calibration.threshold;
            flagged += as_f64(scores.iter().filter(is_flagged).count() as u64)
                / as_f64(scores.len() as u64);
        }
        all.push(scores);
    }
    let found = Found::of(newest, &all);
    let seeds = as_f64(all.len() as u64);
    Ok(Outcome {
        half_life: decay.as_ref().map(Decay::half_life),
        promised: promised / seeds,
        flagged: flagged / seeds,
        average_precision: found.average_precision,
        roc_auc: found.roc_auc,
    })
}

/// The longest that does what the best does, but for a margin.
fn recommended(tried: &[Outcome], newest: usize) -> usize {
    let precisions = tried.iter().filter_map(|outcome| outcome.average_precision);
    if let Some(best) = precisions.max_by(f64::total_cmp) {
        let near = best - PRECISION_MARGIN;
        let finds = |outcome: &Outcome| outcome.average_precision.is_some_and(|it| it >= near);
        return tried.iter().position(finds).unwrap_or_default();
    }
    let excesses = || tried.iter().map(|outcome| outcome.excess(newest));
    let least = excesses().min_by(f64::total_cmp).unwrap_or_default();
    excesses().position(|excess| excess <= least + PROMISE_MARGIN.ln()).unwrap_or_default()
}

impl Report {
    /// Prints the table; returns the options to train with, a space before each.
    pub(super) fn print(&self, out: &mut impl Write) -> std::io::Result<String> {
        writeln!(
            out,
            "\nHalf-lives by `{}`, with the recommended setting: models of the older records, tried on the newest {}.\n",
            self.time_field,
            grouped(self.newest as u64)
        )?;
        let is_labelled = self.tried.iter().any(|outcome| outcome.average_precision.is_some());
        let mut head = vec!["half-life", "promised to flag", "flagged of the newest"];
        if is_labelled {
            head.extend(["average precision", "ROC-AUC"]);
        }
        let mut rows = vec![head.into_iter().map(str::to_owned).collect::<Vec<String>>()];
        for (at, outcome) in self.tried.iter().enumerate() {
            let half_life = outcome.half_life.clone();
            let mut row = vec![
                half_life.unwrap_or_else(|| "none".to_owned()),
                percent(outcome.promised),
                percent(outcome.flagged),
            ];
            if is_labelled {
                let number = |of: Option<f64>| of.map(|of| format!("{of:.3}")).unwrap_or_default();
                row.extend([number(outcome.average_precision), number(outcome.roc_auc)]);
            }
            row.extend((at == self.recommended).then(|| "recommended".to_owned()));
            rows.push(row);
        }
        table(out, &rows)?;
        let half_life = self.tried[self.recommended].half_life.as_ref();
        let options =
            |half_life| format!(" --time-field {} --half-life {half_life}", self.time_field);
        Ok(half_life.map(options).unwrap_or_default())
    }
}

#[expect(clippy::cast_precision_loss, reason = "a number of records or seeds")]
fn as_f64(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: u64 = UNITS_MS[1];
    const DAY_MS: u64 = UNITS_MS[0];

    #[test]
    fn half_lives_are_whole_units_from_the_whole_time_to_a_sixteenth() {
        assert_eq!(
            half_lives(30 * DAY_MS),
            [30, 15, 7, 3]
                .map(|days| days * DAY_MS)
                .into_iter()
                .chain([45 * HOUR_MS])
                .collect::<Vec<_>>()
        );
        assert_eq!(half_lives(4 * 60_000), [4 * 60_000]);
        assert!(half_lives(0).is_empty());
    }

    fn outcome(flagged: f64, average_precision: Option<f64>) -> Outcome {
        Outcome { half_life: None, promised: 0.01, flagged, average_precision, roc_auc: None }
    }

    #[test]
    fn the_longest_that_exceeds_its_promise_about_as_little_is_taken() {
        let of = |flagged: &[f64]| {
            let tried: Vec<Outcome> = flagged.iter().map(|&it| outcome(it, None)).collect();
            recommended(&tried, 2_000)
        };
        assert_eq!(of(&[0.012, 0.011, 0.01]), 0);
        assert_eq!(of(&[0.5, 0.028, 0.01]), 1);
        assert_eq!(of(&[0.5, 0.3, 0.11]), 1);
        assert_eq!(of(&[0.5, 0.5, 0.48]), 0);
        assert_eq!(
            of(&[0.0, 0.004, 0.01]),
            0,
            "fewer than promised is no sign that anything has moved"
        );
    }

    #[test]
    fn with_labels_the_longest_that_finds_as_much_is_taken() {
        let tried = [0.5, 0.695, 0.7].map(|precision| outcome(0.01, Some(precision)));
        assert_eq!(recommended(&tried, 2_000), 1);
    }
}
