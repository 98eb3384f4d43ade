//! `sawlog tune`: which transform, how many samples a tree, how many trees and which half-life suit some records.
//!
//! The records are read once and a uniform sample of them is kept, chosen by their identities. Forests of each
//! setting are built from it with several seeds and score all of it. Without labels the settings are judged by
//! what the seeds agree on: of the most unusual records by one forest, the share that is among another's. An
//! anomaly that is in the data stands out whichever records and cuts a forest is made of; what comes and goes with
//! the seed is luck. With labels they are judged by average precision. docs/tune.md says how far the first finds
//! what the second would.
//!
//! A feature that drowns all others makes for tops that any two seeds agree on, so without labels a setting whose
//! top is nearly all one feature's is not taken while there are others.
//!
//! Transforms and samples are tried with each other. The number of trees comes after: more always agree more, so
//! the fewest are taken that agree nearly as well as the most. The half-life is last, and by another question
//! ([`half_life`]).

mod half_life;

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, anyhow, ensure};
use ndarray::{Array1, Array2};
use sawlog_model::sketch::DEFAULT_SAMPLES;
use sawlog_model::spec::{Encoding, Transform};
use sawlog_model::{
    Decay, Model, Params, RecordKey, Sketch, ThresholdRule, TrainingSketch, ValidSpec, Value,
};
use serde::Serialize;

use crate::describe::{grouped, percent, table};
use crate::evaluate::ranking::Ranking;
use crate::evaluate::stability::{self, Stability};
use crate::input::{self, PeriodArgs};
use crate::output::print;
use crate::progress::Progress;
use crate::scoring;
use crate::tally::Tally;
use crate::train;

/// The share of the records whose agreement is measured: what validation takes as the top, too (docs/tune.md has
/// figures).
const TOP_SHARE: f64 = 0.05;
/// Fewest records that a top is made of.
const MIN_TOP: usize = 10;
/// Fewest records that anything is said of.
const MIN_RECORDS: usize = 200;
/// Trees while transforms and samples are tried.
const TREES: u32 = 100;
/// Then so many are tried of the best.
const TREES_TRIED: [u32; 4] = [50, 100, 200, 400];
/// Samples a tree that are tried; those above half of the records are left out.
const SAMPLES_TRIED: [u32; 5] = [256, 512, 128, 64, 32];
/// Transforms that are tried for features that leave it to the data.
const TRANSFORMS_TRIED: [Transform; 5] =
    [Transform::Auto, Transform::Robust, Transform::Standard, Transform::Log1p, Transform::None];
/// Thresholds are held against what they promise; with few held-out records a higher one promises nothing.
const QUANTILE: f64 = 0.99;
/// Chooses the records that are tried, apart from the seeds of the forests.
const SAMPLE_SEED: u64 = 0x7475_6e65;
/// A feature with more than this share of the top's attribution drowns the others (docs/tune.md has examples).
const DROWNING_SHARE: f64 = 0.95;
/// Fewer trees that are worse by no more than this are taken.
const TREES_MARGIN: f64 = 0.01;

/// Finds the transform, the samples a tree, the trees and the half-life that suit some records.
///
/// A half-life is looked for if --time-field says what time a record has. Features whose specification has a
/// transform of its own keep it. Nothing is written: the lines after the tables say what to train with, and why.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sawlog tune --spec spec.toml --input logs/2026-11-20.gz
  sawlog tune --spec spec.toml --input labelled.csv --label is_fault
  sawlog tune --spec spec.toml --input logs/ --time-field /time --records 50000")]
pub(crate) struct Args {
    /// The feature specification (TOML)
    #[arg(long, value_name = "SPEC.toml")]
    spec: PathBuf,
    /// Files, folders, globs, s3://BUCKET/PREFIX, or - for standard input; plain, gzip, zstd or bzip2, or Parquet
    #[arg(long, required = true, num_args = 1.., value_name = "PATH")]
    input: Vec<String>,
    #[command(flatten)]
    period: PeriodArgs,
    /// The field that says whether a record is an anomaly: 1 or true, 0 or false. Then settings are judged by
    /// how well they find these
    #[arg(long, value_name = "FIELD")]
    label: Option<String>,
    /// How many records to try settings on, a uniform sample of the input
    #[arg(long, default_value_t = 10_000, value_name = "N", value_parser = clap::value_parser!(u32).range(200..=1_000_000))]
    records: u32,
    /// How many forests of each setting are compared, 2 to 20
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u64).range(2..=20))]
    seeds: u64,
    /// As one JSON object, for programs
    #[arg(long)]
    json: bool,
}

/// A record that settings are tried on.
struct Tried {
    key: RecordKey,
    /// In milliseconds since 1970, 0 if times are not read.
    time_ms: i64,
    /// Of its point.
    values: Vec<Value>,
    /// Whether it is known to be an anomaly.
    label: Option<bool>,
}

/// What is tried.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Setting {
    /// Of the features that leave it to the data; none if no feature does.
    transform: Option<Transform>,
    samples: u32,
    trees: u32,
}

/// How a setting did.
#[derive(Debug, Serialize)]
struct Outcome {
    #[serde(flatten)]
    setting: Setting,
    /// Of the most unusual records by one seed, the share that is among another's: the mean of all pairs.
    top_agreement: f64,
    /// Spearman's correlation of two seeds' scores; the mean of all pairs.
    rank_correlation: Option<f64>,
    /// The feature that has most of the top's attribution by the first seed, and its share.
    foremost_feature: String,
    foremost_share: f64,
    /// Whether it drowns others.
    drowns: bool,
    /// Against the labels: the mean of all seeds.
    average_precision: Option<f64>,
    roc_auc: Option<f64>,
}

impl Outcome {
    /// The greater, the better.
    fn criterion(&self) -> f64 {
        self.average_precision.unwrap_or(self.top_agreement)
    }
}

/// All that is said.
#[derive(Debug, Serialize)]
struct Report {
    read: u64,
    rejected: u64,
    /// Records that settings were tried on.
    records: usize,
    /// How many make the top.
    top: usize,
    seeds: u64,
    criterion: &'static str,
    /// Transforms and samples, then trees.
    tried: Vec<Outcome>,
    /// Indexes of what `sawlog train` would take by default, and of what is recommended, in `tried`.
    default: usize,
    recommended: usize,
    /// What was tried then, if records have times.
    half_lives: Option<half_life::Report>,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let toml = std::fs::read_to_string(&args.spec)
        .with_context(|| format!("specification {}", args.spec.display()))?;
    let spec = ValidSpec::from_toml(&toml).with_context(|| args.spec.display().to_string())?;
    let (spec, records, tally) = read(spec, args)?;
    let report = tune(&spec, &records, &tally, args)?;
    print(args.json, &report, |out| text(out, &report))
}

/// Reads the input and keeps a uniform sample of it. The specification comes back with the columns that a header
/// gave, and without the label.
fn read(spec: ValidSpec, args: &Args) -> anyhow::Result<(ValidSpec, Vec<Tried>, Tally)> {
    let features = spec.features().len();
    let spec = match &args.label {
        Some(field) => scoring::labelled(&spec, field)?,
        None => spec,
    };
    let mut sources = input::resolve(&args.input)?;
    input::choose(&mut sources, &args.period)?;
    let mut way = args.period.way(spec).context("--time-field")?;
    let progress = Progress::over_bytes("reading", sources.iter().map(|source| source.size).sum());
    let mut kept: Sketch<(i64, Vec<Value>, Option<bool>)> =
        Sketch::new(SAMPLE_SEED, 1, args.records as usize);
    let mut tally = Tally::default();
    for source in &sources {
        // The reader calls back and can't pass an error on: the first is kept and told after it.
        let mut result = Ok(());
        let read = input::read_by(source, &way, &|bytes| progress.add(bytes), |record| {
            tally.read += 1;
            let place = record.place;
            let point = match record.point {
                Ok(Some(point)) => point,
                Ok(None) => return tally.no_history += 1,
                Err(error) => return tally.reject(place, error),
            };
            let label = match &args.label {
                None => None,
                Some(field) => scoring::label(point.last()).unwrap_or_else(|| {
                    let (source, line) = (place.source, place.line);
                    if result.is_ok() {
                        result = Err(anyhow!(
                            "input {source}: line {line}: label `{field}` is not 0, 1, true or false"
                        ));
                    }
                    None
                }),
            };
            let width = features + usize::from(args.label.is_some());
            kept.offer(record.key, 0.0, || {
                let records = point.chunks_exact(width);
                let values = records.flat_map(|record| &record[..features]).cloned().collect();
                (record.time_ms, values, label)
            });
        });
        let read = read.map_err(|error| scoring::unread(error, features, args.label.as_deref()))?;
        result?;
        if way.spec.needs_header() {
            way = read;
        }
    }
    progress.finish();
    tally.check(train::MAX_REJECT_SHARE)?;
    let mut plain = way.spec.spec().clone();
    plain.features.truncate(features);
    let records = kept.records().into_iter().map(|(key, (time_ms, values, label))| Tried {
        key,
        time_ms: *time_ms,
        values: values.clone(),
        label: *label,
    });
    let records: Vec<Tried> = records.collect();
    ensure!(
        records.len() >= MIN_RECORDS,
        "{} records make a point, too few to tell settings apart: {MIN_RECORDS} at least",
        records.len()
    );
    if let Some(field) = &args.label {
        let has = |kind: bool| records.iter().any(|record| record.label == Some(kind));
        ensure!(
            has(true) && has(false),
            "--label {field}: labels of both kinds are needed, among the records that are tried"
        );
    }
    Ok((ValidSpec::new(plain)?, records, tally))
}

fn tune(spec: &ValidSpec, records: &[Tried], tally: &Tally, args: &Args) -> anyhow::Result<Report> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a share of the records"
    )]
    let top = ((TOP_SHARE * records.len() as f64) as usize).max(MIN_TOP);
    let leaves_it =
        spec.features().iter().any(|of| of.encoding == Encoding::Number(Transform::Auto));
    let transforms: Vec<Option<Transform>> =
        if leaves_it { TRANSFORMS_TRIED.map(Some).to_vec() } else { vec![None] };
    let default_samples = default_samples(records.len());
    let mut samples = vec![default_samples];
    samples.extend(
        SAMPLES_TRIED.into_iter().filter(|samples| {
            *samples != default_samples && 2 * *samples as usize <= records.len()
        }),
    );
    let trial = Trial { spec, records, top, seeds: args.seeds };
    let settings = transforms.len() * samples.len() + TREES_TRIED.len() - 1;
    let progress = Progress::over_items("trying", settings as u64);
    let mut tried = Vec::new();
    for &transform in &transforms {
        for &samples in &samples {
            tried.push(trial.of(Setting { transform, samples, trees: TREES })?);
            progress.add(1);
        }
    }
    let best = first_near_best(&tried, &without_drowning(&tried), 0.0);
    let start = tried.len();
    for trees in TREES_TRIED {
        if trees != TREES {
            tried.push(trial.of(Setting { trees, ..tried[best].setting })?);
            progress.add(1);
        }
    }
    progress.finish();
    let mut by_trees: Vec<usize> = (start..tried.len()).chain([best]).collect();
    by_trees.sort_by_key(|&at| tried[at].setting.trees);
    let recommended = first_near_best(&tried, &by_trees, TREES_MARGIN);
    let is_labelled = tried.iter().any(|outcome| outcome.average_precision.is_some());
    let half_lives = match args.period.time_field() {
        Some(field) => Some(half_life::tune(&trial, tried[recommended].setting, field)?),
        None => None,
    };
    Ok(Report {
        read: tally.read,
        rejected: tally.rejected,
        records: records.len(),
        top,
        seeds: args.seeds,
        criterion: if is_labelled { "average_precision" } else { "top_agreement" },
        tried,
        default: 0,
        recommended,
        half_lives,
    })
}

/// The samples a tree that `sawlog train` takes of so many records.
fn default_samples(records: usize) -> u32 {
    let fitting = u32::try_from(records / 16).unwrap_or(u32::MAX);
    fitting.clamp(32, DEFAULT_SAMPLES)
}

/// Those that may be recommended. Labels tell by themselves what is drowned.
fn without_drowning(tried: &[Outcome]) -> Vec<usize> {
    let all = || 0..tried.len();
    let is_sound = |at: &usize| tried[*at].average_precision.is_some() || !tried[*at].drowns;
    let sound: Vec<usize> = all().filter(is_sound).collect();
    if sound.is_empty() { all().collect() } else { sound }
}

/// The first of some outcomes that is as good as the best of them, but for a margin.
fn first_near_best(tried: &[Outcome], among: &[usize], margin: f64) -> usize {
    let best = among.iter().map(|&at| tried[at].criterion()).fold(f64::NEG_INFINITY, f64::max);
    let near = among.iter().find(|&&at| tried[at].criterion() >= best - margin);
    near.copied().unwrap_or_default()
}

/// What settings are tried on.
struct Trial<'a> {
    spec: &'a ValidSpec,
    records: &'a [Tried],
    top: usize,
    seeds: u64,
}

impl Trial<'_> {
    fn of(&self, setting: Setting) -> anyhow::Result<Outcome> {
        let models: Vec<Model> = self
            .seeds()
            .map(|seed| self.model(setting, seed, self.records, None))
            .collect::<anyhow::Result<_>>()?;
        let all: Vec<&Tried> = self.records.iter().collect();
        let points = models.iter().map(|model| points(model, &all));
        let points: Vec<Array2<f32>> = points.collect::<anyhow::Result<_>>()?;
        let scores = models.iter().zip(&points).map(|(model, points)| scores(model, points));
        let scores: Vec<Vec<f32>> = scores.collect::<anyhow::Result<_>>()?;
        let found = Found::of(&all, &scores);
        let (foremost_feature, foremost_share) =
            foremost(&models[0], &points[0], &scores[0], self.top)?;
        Ok(Outcome {
            setting,
            top_agreement: stability::shared_top(&scores, self.top),
            rank_correlation: Stability::of(&scores, Vec::new()).rank_correlation,
            foremost_feature,
            foremost_share,
            drowns: self.spec.features().len() > 1 && foremost_share > DROWNING_SHARE,
            average_precision: found.average_precision,
            roc_auc: found.roc_auc,
        })
    }

    /// The seeds of a setting's forests, at least one.
    fn seeds(&self) -> std::ops::Range<u64> {
        Params::default().seed..Params::default().seed + self.seeds
    }

    /// A model of some records.
    fn model<'t>(
        &self,
        setting: Setting,
        seed: u64,
        records: impl IntoIterator<Item = &'t Tried>,
        decay: Option<Decay>,
    ) -> anyhow::Result<Model> {
        let mut spec = self.spec.spec().clone();
        for feature in &mut spec.features {
            if let (Encoding::Number(Transform::Auto), Some(transform)) =
                (feature.encoding, setting.transform)
            {
                feature.encoding = Encoding::Number(transform);
            }
        }
        let spec = ValidSpec::new(spec)?;
        let mut sketch = TrainingSketch::new(spec, seed, setting.trees, Some(setting.samples))?
            .with_decay(decay);
        for record in records {
            sketch.read += 1;
            sketch.take(record.key, record.time_ms, &record.values);
        }
        train::build(sketch, ThresholdRule::Quantile(QUANTILE))
    }
}

/// What is found by scores of several seeds, against the labels: the means.
struct Found {
    average_precision: Option<f64>,
    roc_auc: Option<f64>,
}

impl Found {
    /// `None` where labels are not of both kinds.
    fn of(records: &[&Tried], scores: &[Vec<f32>]) -> Self {
        let ranking = |scores: &Vec<f32>| {
            let labels = records.iter().map(|record| record.label);
            let both = scores.iter().zip(labels);
            let mut both: Vec<(f32, bool)> =
                both.filter_map(|(score, label)| Some((*score, label?))).collect();
            Ranking::new(&mut both, 0, None)
        };
        let rankings: Vec<Ranking> = scores.iter().filter_map(ranking).collect();
        #[expect(clippy::cast_precision_loss, reason = "a handful of seeds")]
        let mean = |of: fn(&Ranking) -> f64| {
            let sum: f64 = rankings.iter().map(of).sum();
            (!rankings.is_empty()).then(|| sum / rankings.len() as f64)
        };
        Self {
            average_precision: mean(|ranking| ranking.average_precision),
            roc_auc: mean(|ranking| ranking.roc_auc),
        }
    }
}

/// One row a record.
fn points(model: &Model, records: &[&Tried]) -> anyhow::Result<Array2<f32>> {
    let mut points = Array2::zeros((records.len(), model.features().dimensions()));
    for (record, mut row) in records.iter().zip(points.rows_mut()) {
        if let Some(row) = row.as_slice_mut() {
            model.features().encode(&record.values, row)?;
        }
    }
    Ok(points)
}

fn scores(model: &Model, points: &Array2<f32>) -> anyhow::Result<Vec<f32>> {
    let mut scores = Array1::zeros(points.nrows());
    model.forest().score_batch(points.view(), scores.view_mut())?;
    Ok(scores.to_vec())
}

/// The feature with most of the attribution of the `top` highest scores, and its mean share of them.
fn foremost(
    model: &Model,
    points: &Array2<f32>,
    scores: &[f32],
    top: usize,
) -> anyhow::Result<(String, f64)> {
    let mut highest: Vec<usize> = (0..scores.len()).collect();
    highest.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    highest.truncate(top);
    let rows = highest.iter().filter_map(|&at| points.row(at).to_slice());
    let explained = model.explain_batch(rows)?;
    let names: Vec<&str> = model.features().names().collect();
    let mut sums = vec![0.0; names.len()];
    for share in explained.iter().flatten() {
        sums[share.feature] += f64::from(share.high + share.low);
    }
    let foremost = names.iter().zip(sums).max_by(|a, b| a.1.total_cmp(&b.1));
    #[expect(clippy::cast_precision_loss, reason = "a number of records")]
    let mean = |sum: f64| sum / explained.len().max(1) as f64;
    Ok(foremost.map(|(name, sum)| ((*name).to_owned(), mean(sum))).unwrap_or_default())
}

fn text(out: &mut impl Write, report: &Report) -> std::io::Result<()> {
    writeln!(
        out,
        "read       {} records, {} rejected",
        grouped(report.read),
        grouped(report.rejected)
    )?;
    writeln!(
        out,
        "tried on   {} of them, with {} seeds each; the top is the {} most unusual\n",
        grouped(report.records as u64),
        report.seeds,
        grouped(report.top as u64),
    )?;
    let is_labelled = report.criterion == "average_precision";
    let mut head = vec![
        "transform",
        "samples",
        "trees",
        "top agreement",
        "rank correlation",
        "foremost feature",
    ];
    if is_labelled {
        head.extend(["average precision", "ROC-AUC"]);
    }
    let mut rows = vec![head.into_iter().map(str::to_owned).collect::<Vec<String>>()];
    for (at, outcome) in report.tried.iter().enumerate() {
        let number = |of: Option<f64>| of.map(|of| format!("{of:.3}")).unwrap_or_default();
        let mut row = vec![
            transform(outcome.setting),
            outcome.setting.samples.to_string(),
            outcome.setting.trees.to_string(),
            percent(outcome.top_agreement),
            number(outcome.rank_correlation),
            format!("{} {}", outcome.foremost_feature, percent(outcome.foremost_share)),
        ];
        if is_labelled {
            row.extend([number(outcome.average_precision), number(outcome.roc_auc)]);
        }
        let marks = [(report.default, "the default"), (report.recommended, "recommended")];
        row.extend(marks.into_iter().filter(|(of, _)| *of == at).map(|(_, mark)| mark.to_owned()));
        rows.push(row);
    }
    table(out, &rows)?;
    let (best, default) = (&report.tried[report.recommended], &report.tried[report.default]);
    let Setting { samples, trees, .. } = best.setting;
    let half_life = match &report.half_lives {
        Some(half_lives) => half_lives.print(out)?,
        None => String::new(),
    };
    writeln!(out, "\ntrain with --samples {samples} --trees {trees}{half_life}")?;
    if best.setting.transform.is_some() {
        let transform = transform(best.setting);
        writeln!(
            out,
            "and, in the specification, transform = {transform} of numbers that have none"
        )?;
    }
    if let (Some(of_best), Some(of_default)) = (best.average_precision, default.average_precision) {
        return writeln!(
            out,
            "because its average precision is {of_best:.3}, and {of_default:.3} with the defaults"
        );
    }
    writeln!(
        out,
        "because {} of the most unusual records are the same to two seeds, and {} with the defaults",
        percent(best.top_agreement),
        percent(default.top_agreement),
    )?;
    let drowned = report.tried.iter().find(|it| it.drowns);
    match drowned {
        Some(Outcome { foremost_feature, .. }) if best.drowns => writeln!(
            out,
            "warning: the most unusual records are so by `{foremost_feature}` alone, by every setting: it drowns the \
             other features; leave it out, or give it a transform that fits it"
        ),
        Some(Outcome { foremost_feature, .. }) => writeln!(
            out,
            "not taken, whatever seeds agree on: settings by which the most unusual records are so by \
             `{foremost_feature}` alone"
        ),
        None => Ok(()),
    }
}

fn transform(setting: Setting) -> String {
    // As a specification has it.
    let name = setting.transform.and_then(|of| serde_json::to_string(&of).ok());
    name.unwrap_or_else(|| "as specified".to_owned())
}
