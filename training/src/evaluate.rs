//! `sawlog evaluate`: how a model's scores are distributed over some records, what thresholds would
//! flag, which records are the most unusual and why; and, where labels say which records are
//! anomalies, how well the scores find them.
//!
//! What is kept in memory: a score and a label a record, in their order (5 bytes; a bound of
//! [`gather::MAX_RECORDS`]), because every figure is then exact, ties included; the few most unusual
//! records whole; counts of the features' values. Nothing else grows with the input.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use sawlog_model::{LeafRule, Model, Sampling};

use crate::describe::{self, grouped, percent, share, table};
use crate::input::{self, HalfLife, PeriodArgs, Source};
use crate::inspect;
use crate::output::{Output, print, refuse_overlap};
use crate::scoring::{self, Found, Scoring};
use crate::train::{self, SamplingArgs};

mod chart;
mod gather;
pub(crate) mod ranking;
mod report;
pub(crate) mod shown;
pub(crate) mod stability;

use gather::{Evaluation, Gathered, MAX_RECORDS};
use ranking::{At, Ranking};
use stability::Stability;

/// Most records shown one by one.
const MAX_TOP: usize = 1000;

/// Says how a model's scores are distributed over records, and how well they find labelled anomalies.
///
/// Without labels: quantiles, what several thresholds would flag, the most unusual records with the
/// features that make them so. With --label also ROC-AUC, average precision, precision of the most
/// unusual records, and precision, recall and F1 over thresholds. Records are scored as `sawlog score`
/// scores them.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sawlog evaluate --model model.sawlog --input later.log --report report.html
  sawlog evaluate --model model.sawlog --input labelled.csv --label is_fault --json
  sawlog evaluate --model model.sawlog --input later.log --seeds 5 --train-input logs/")]
pub(crate) struct Args {
    /// The model
    #[arg(long)]
    model: PathBuf,
    /// Files, folders, globs, s3://BUCKET/PREFIX, or - for standard input; plain, gzip, zstd or bzip2, or Parquet
    #[arg(long, required = true, num_args = 1.., value_name = "PATH")]
    input: Vec<String>,
    /// The field that says whether a record is an anomaly: 1 or true, 0 or false; records without it
    /// have no label
    #[arg(long, value_name = "FIELD")]
    label: Option<String>,
    /// Train models of the same parameters with other seeds on --train-input, so that there are so many
    /// with this one, 2 to 20, and say what they agree on
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(2..=20), requires = "train_input")]
    seeds: Option<u64>,
    /// What the model was trained on, for --seeds: it is read for each of them
    #[arg(long, num_args = 1.., value_name = "PATH", requires = "seeds")]
    train_input: Vec<String>,
    /// The half-life that the model was trained with, for --seeds
    #[arg(long, value_name = "DURATION", requires_all = ["seeds", "time_field"])]
    half_life: Option<HalfLife>,
    /// The field with a record's time, for --half-life
    #[arg(long, value_name = "FIELD", requires = "half_life")]
    time_field: Option<String>,
    /// How many of the most unusual records to show, at most 1000
    #[arg(long, default_value_t = 20, value_parser = top, value_name = "N")]
    top: usize,
    /// As one JSON object, for programs
    #[arg(long)]
    json: bool,
    /// Also write a page to look at: one HTML file that needs nothing else. It holds field values of
    /// the records shown
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
}

fn top(text: &str) -> Result<usize, String> {
    let count = text.parse().ok().filter(|count| *count <= MAX_TOP);
    count.ok_or_else(|| format!("a number from 0 to {MAX_TOP}"))
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let model = inspect::load(&args.model)?;
    let sources = input::resolve(&args.input)?;
    let mut read: Vec<&Path> = sources.iter().map(|source| Path::new(&source.name)).collect();
    read.push(&args.model);
    refuse_overlap(&[args.report.as_deref()], &read)?;
    let seeds = match args.seeds {
        Some(count) => Some((others(args, &model)?, count, input::resolve(&args.train_input)?)),
        None => None,
    };
    let report = args.report.as_deref().map(|path| Output::create(Some(path))).transpose()?;
    let scoring = match &args.label {
        Some(field) => Scoring::with_label(&model, field)?,
        None => Scoring::new(&model),
    };
    let mut gathered = Gathered::new(&model, args.top);
    let tally = scoring.run(
        &sources,
        |_, _, _| Ok(()),
        |origin, found| match found {
            Found::Scored { scored, point, label } => gathered.take(origin, scored, point, label),
            Found::NoHistory | Found::Rejected => Ok(()),
        },
    )?;
    tally.check_scored()?;
    let mut evaluation =
        gathered.finish(tally, args.label.is_some()).context("the input has no record")?;
    if let Some((sampling, count, trained_on)) = seeds {
        evaluation.stability = Some(stability(&model, sampling, count, &trained_on, &sources)?);
    }
    if let Some(mut file) = report {
        let name = args.model.file_name().unwrap_or_default().to_string_lossy();
        file.write_all(report::page(&evaluation, &name).as_bytes())?;
        file.finish()?;
    }
    print(args.json, &evaluation, |out| {
        text(out, &evaluation, args.label.as_deref())?;
        match &args.report {
            Some(path) => writeln!(out, "\nwrote      {}", path.display()),
            None => Ok(()),
        }
    })
}

/// How models are trained that differ from this one in their seeds alone.
fn others(args: &Args, model: &Model) -> anyhow::Result<SamplingArgs> {
    let params = model.params();
    ensure!(
        params.sampling == Sampling::Keyed && params.leaf_rule != LeafRule::Sagemaker,
        "--seeds: the model was not trained by `sawlog train` with its own rules"
    );
    let mut sampling = SamplingArgs::new(params.trees, Some(params.samples), params.seed);
    sampling.half_life = args.half_life;
    sampling.period = PeriodArgs::timed_by(args.time_field.clone());
    let given = sampling.decay()?.map(|decay| decay.to_string());
    let had = model.provenance().half_life();
    ensure!(
        given.as_deref() == had,
        "--seeds: the model was trained with {}, and the others need the same: give {}",
        had.unwrap_or("no half-life"),
        if had.is_some() { "--half-life and --time-field" } else { "none" }
    );
    Ok(sampling)
}

/// What a model and those of other seeds agree on.
fn stability(
    model: &Model,
    mut sampling: SamplingArgs,
    count: u64,
    trained_on: &[Source],
    sources: &[Source],
) -> anyhow::Result<Stability> {
    let first_seed = sampling.seed;
    let rule = model.calibration().map(|calibration| calibration.rule).unwrap_or_default();
    let (mut scores, mut flagged) = (Vec::new(), Vec::new());
    let mut take = |model: &Model| {
        let of_model = scoring::scores(model, sources, MAX_RECORDS)?;
        let threshold = model.calibration().map_or(f64::INFINITY, |known| known.threshold);
        let above = of_model.iter().filter(|&&score| f64::from(score) > threshold);
        flagged.push(above.count() as u64);
        scores.push(of_model);
        anyhow::Ok(())
    };
    take(model)?;
    for more in 1..count {
        sampling.seed = first_seed.wrapping_add(more);
        let spec = model.features().spec().clone();
        let other = train::train_on(trained_on, spec, &sampling, rule)
            .with_context(|| format!("--train-input, seed {}", sampling.seed))?;
        take(&other)?;
    }
    ensure!(
        scores.iter().all(|of_one| of_one.len() == scores[0].len()),
        "--seeds: the models can't read the same records"
    );
    Ok(Stability::of(&scores, flagged))
}

fn text(
    out: &mut impl Write,
    evaluation: &Evaluation<'_>,
    label: Option<&str>,
) -> std::io::Result<()> {
    describe::tally(out, &evaluation.tally)?;
    print_scores(out, evaluation)?;
    print_thresholds(out, evaluation)?;
    if let Some(ranking) = &evaluation.labels {
        print_ranking(out, ranking)?;
    } else if let (Some(counts), Some(field)) = (evaluation.labelled, label) {
        let [anomalies, normal] = counts.map(|count| grouped(count as u64));
        writeln!(
            out,
            "\nwarning: --label {field}: labels of both kinds are needed to say how well the scores find anomalies: \
             {anomalies} records are labelled as anomalies, {normal} as normal"
        )?;
    }
    if let Some(stability) = &evaluation.stability {
        print_stability(out, stability)?;
    }
    print_top(out, evaluation)
}

fn print_stability(out: &mut impl Write, stability: &Stability) -> std::io::Result<()> {
    writeln!(out, "\nseeds      {} models that differ in nothing else", stability.models)?;
    if let (Some(mean), Some(least)) =
        (stability.rank_correlation, stability.least_rank_correlation)
    {
        writeln!(out, "ranks      correlation {mean:.3} of two of them, at least {least:.3}")?;
    }
    for top in &stability.tops {
        let [shared, by_chance] = [top.shared, top.by_chance].map(percent);
        let records = grouped(top.records as u64);
        writeln!(
            out,
            "tops       {shared} of the {records} most unusual are the same to two of them ({by_chance} by \
             chance)"
        )?;
    }
    let flagged: Vec<String> = stability.flagged.iter().map(|count| grouped(*count)).collect();
    writeln!(out, "flagged    {}, each at its own threshold", flagged.join(", "))
}

fn print_scores(out: &mut impl Write, evaluation: &Evaluation<'_>) -> std::io::Result<()> {
    writeln!(
        out,
        "\nscores     mean {:.3}, deviation {:.3}; at or below",
        evaluation.mean, evaluation.deviation
    )?;
    let mut rows = vec![["share", "score here", "at calibration"].map(str::to_owned)];
    for quantile in &evaluation.quantiles {
        let then = quantile.calibration.map(|score| format!("{score:.4}")).unwrap_or_default();
        rows.push([share(quantile.share), format!("{:.4}", quantile.score), then]);
    }
    table(out, &rows)
}

fn print_thresholds(out: &mut impl Write, evaluation: &Evaluation<'_>) -> std::io::Result<()> {
    writeln!(out)?;
    let mut rows = vec![["threshold", "score", "expected", "flagged", "share"].map(str::to_owned)];
    for row in &evaluation.thresholds {
        rows.push([
            row.rule.clone(),
            format!("{:.4}", row.threshold),
            row.expected.map(share).unwrap_or_default(),
            grouped(row.flagged),
            percent(row.share),
        ]);
    }
    table(out, &rows)
}

fn print_ranking(out: &mut impl Write, ranking: &Ranking) -> std::io::Result<()> {
    writeln!(
        out,
        "\nlabels     {} anomalies, {} normal records, {} without a label",
        grouped(ranking.anomalies),
        grouped(ranking.normal),
        grouped(ranking.unlabelled),
    )?;
    writeln!(out, "ROC-AUC    {:.4}", ranking.roc_auc)?;
    writeln!(out, "average precision  {:.4}", ranking.average_precision)?;
    let mut rows = vec![["most unusual", "precision", "recall"].map(str::to_owned)];
    for first in &ranking.first {
        rows.push([grouped(first.records), percent(first.precision), percent(first.recall)]);
    }
    table(out, &rows)?;
    let mut rows =
        vec![["threshold", "score", "flagged", "precision", "recall", "F1"].map(str::to_owned)];
    let row = |name: &str, at: &At| {
        [
            name.to_owned(),
            format!("{:.4}", at.threshold),
            grouped(at.flagged),
            percent(at.precision),
            percent(at.recall),
            format!("{:.4}", at.f1),
        ]
    };
    rows.push(row("greatest F1", &ranking.best));
    rows.extend(ranking.calibrated.as_ref().map(|at| row("calibrated", at)));
    table(out, &rows)
}

fn print_top(out: &mut impl Write, evaluation: &Evaluation<'_>) -> std::io::Result<()> {
    if evaluation.top.is_empty() {
        return Ok(());
    }
    writeln!(out, "\nthe {} most unusual records:", evaluation.top.len())?;
    let mut rows = vec![["score", "because of", "record"].map(str::to_owned)];
    for top in &evaluation.top {
        let label = top.label.filter(|label| *label).map(|_| " (labelled)").unwrap_or_default();
        rows.push([
            format!("{:.4}", top.verdict.score()),
            shown::because(&top.verdict),
            format!("{}{label}", shown::place(&top.verdict)),
        ]);
    }
    table(out, &rows)
}
