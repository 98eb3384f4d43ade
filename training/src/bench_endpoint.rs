//! `sawlog bench-endpoint`: what a batch takes in process, and what it takes through an endpoint.
//!
//! Both are given the same rows and give the same kind of answer, an f32 a row. In process that is one
//! call of what the Lambda scores a batch by, on as many cores as there are; through the endpoint it is
//! all that the Lambda's own client does, with its chunks and its calls at the same time. The two take
//! turns, a few batches each, so that whatever else the machine does slows down both.

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use ndarray::{Array1, Array2, ArrayView2, Axis};
use sawlog_lambda::config::{EndpointConfig, RowFormat};
use sawlog_lambda::content::RowKind;
use sawlog_lambda::deadline::Until;
use sawlog_lambda::endpoint::Endpoint;
use sawlog_lambda::scorer;
use sawlog_model::{Model, Value};
use serde::Serialize;

use crate::output::print;
use crate::serve::row_kind;
use crate::{input, inspect};

mod cost;

use cost::{Costs, Prices};

/// Batches in a row of either, as a function does that scores one way; then it is the other's turn.
const BLOCK: usize = 5;
/// Longest that a batch may take.
const BATCH_TIMEOUT: Duration = Duration::from_secs(60);
/// Largest batch: what a Lambda is given at once.
const MAX_BATCH: usize = 100_000;

/// Measures a SageMaker endpoint beside the model in process.
///
/// Region and credentials are those of the environment; AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME leads
/// elsewhere, such as to `sawlog serve`. A real endpoint bills as ever: this makes some hundreds of calls.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  sawlog bench-endpoint --endpoint-name sawlog --model model.sawlog --input later.log")]
pub(crate) struct Args {
    /// The endpoint
    #[arg(long, value_name = "NAME")]
    endpoint_name: String,
    /// The model that scores in process and makes rows of the records
    #[arg(long)]
    model: PathBuf,
    /// Records to score: files, folders, globs, s3://BUCKET/PREFIX, or -; plain, gzip, zstd or bzip2, or Parquet. Used
    /// again and again if there are too few
    #[arg(long, required = true, num_args = 1.., value_name = "PATH")]
    input: Vec<String>,
    /// Sizes of batches, in records
    #[arg(
        long,
        value_delimiter = ',',
        default_values_t = [1, 100, 1000, 10_000],
        value_parser = batch,
        value_name = "N,N..."
    )]
    batches: Vec<usize>,
    /// How often each batch is scored
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// What a row is: points, for `sawlog serve` of this model; values, for an endpoint trained on raw
    /// columns
    #[arg(long, default_value = "points", value_parser = row_kind, value_name = "KIND")]
    rows: RowKind,
    /// Rows as csv or json
    #[arg(long, value_enum, default_value_t = Format::Csv)]
    format: Format,
    #[command(flatten)]
    prices: Prices,
    /// As one JSON object, for programs
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Csv,
    Json,
}

fn batch(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (1..=MAX_BATCH).contains(number));
    number.ok_or_else(|| format!("not a number of records from 1 to {MAX_BATCH}"))
}

/// What was measured of one size of batch.
#[derive(Debug, Serialize)]
struct Measured {
    batch: usize,
    in_process: Times,
    endpoint: Times,
    /// Of the medians.
    ratio: f64,
    costs: Costs,
}

/// How long a batch took.
#[derive(Debug, Clone, Copy, Serialize)]
struct Times {
    p50_ms: f64,
    p99_ms: f64,
    records_per_sec: f64,
}

impl Times {
    /// Of at least one time.
    #[expect(clippy::cast_precision_loss, reason = "counts of records and of rounds")]
    fn of(mut times: Vec<Duration>, batch: usize) -> Self {
        times.sort_unstable();
        let total: Duration = times.iter().sum();
        let ms = |per_cent: usize| {
            // The nearest rank: of a hundred rounds the 50th and the 99th.
            let rank = (times.len() * per_cent).div_ceil(100).max(1);
            times[rank - 1].as_secs_f64() * 1e3
        };
        let records = (batch * times.len()) as f64;
        Self { p50_ms: ms(50), p99_ms: ms(99), records_per_sec: records / total.as_secs_f64() }
    }
}

#[derive(Debug, Serialize)]
struct Report<'a> {
    endpoint: &'a str,
    rounds: u16,
    /// Whether every score of the endpoint was the model's own, bit for bit.
    scores_equal: bool,
    measured: Vec<Measured>,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let model = inspect::load(&args.model)?;
    args.rows.width(model.features())?;
    let largest = args.batches.iter().copied().max().context("no batch")?;
    let rows = Rows::read(&model, &args.input, args.rows, largest)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut config = EndpointConfig::new(args.endpoint_name.as_str());
    config.format = match args.format {
        Format::Csv => RowFormat::Csv,
        Format::Json => RowFormat::Json,
    };
    config.timeout_ms = u64::try_from(BATCH_TIMEOUT.as_millis())?;
    let endpoint = runtime.block_on(Endpoint::connect(config));
    let mut report = Report {
        endpoint: &args.endpoint_name,
        rounds: args.rounds,
        scores_equal: true,
        measured: Vec::new(),
    };
    for &batch in &args.batches {
        let (mut in_process, mut through) = (Vec::new(), Vec::new());
        let points = rows.points.view().split_at(Axis(0), batch).0;
        let sent = rows.sent.view().split_at(Axis(0), batch).0;
        for block in 0..=usize::from(args.rounds).div_ceil(BLOCK) {
            let mut local = Array1::zeros(0);
            let mut scores = Vec::new();
            let mut times = (Vec::new(), Vec::new());
            for _ in 0..BLOCK {
                let started = Instant::now();
                local = scorer::score_batch(model.forest(), points)?;
                times.0.push(started.elapsed());
            }
            for _ in 0..BLOCK {
                let started = Instant::now();
                scores = runtime.block_on(ask(&endpoint, sent, block))?;
                times.1.push(started.elapsed());
            }
            report.scores_equal &=
                scores.iter().zip(&local).all(|(a, b)| a.to_bits() == b.to_bits());
            // Of the first, connections are made and caches filled.
            if block > 0 {
                let left = usize::from(args.rounds) - in_process.len();
                in_process.extend(times.0.into_iter().take(left));
                through.extend(times.1.into_iter().take(left));
            }
        }
        let (in_process, endpoint) = (Times::of(in_process, batch), Times::of(through, batch));
        let costs = args.prices.of(batch, in_process.p50_ms / 1e3, endpoint.p50_ms / 1e3);
        let ratio = endpoint.p50_ms / in_process.p50_ms;
        report.measured.push(Measured { batch, in_process, endpoint, ratio, costs });
    }
    print(args.json, &report, |out| text(out, &report, &args.prices))
}

/// All scores of a batch, or why there is one missing.
async fn ask(
    endpoint: &Endpoint,
    rows: ArrayView2<'_, f32>,
    block: usize,
) -> anyhow::Result<Vec<f32>> {
    let name = format!("bench-{}-{block}", rows.nrows());
    let until = Until::FOREVER.within(BATCH_TIMEOUT);
    let scores = endpoint.scores(rows, &name, until).await;
    scores.into_iter().collect::<Result<_, _>>().context("the endpoint gave no score")
}

/// The same records as the forest sees them and as the endpoint is sent them.
struct Rows {
    points: Array2<f32>,
    sent: Array2<f32>,
}

impl Rows {
    fn read(model: &Model, inputs: &[String], kind: RowKind, count: usize) -> anyhow::Result<Self> {
        let features = model.features();
        let dimensions = features.dimensions();
        let (mut points, mut values) = (Vec::new(), Vec::new());
        for source in &input::resolve(inputs)? {
            input::read_source(source, features.spec(), &|_| {}, |record| {
                let Ok(Some(point)) = record.point else { return };
                let start = points.len();
                if start == count * dimensions {
                    return;
                }
                points.resize(start + dimensions, 0.0);
                let numbers = numbers(point);
                let is_sendable = kind == RowKind::Points || numbers.is_some();
                if !is_sendable || features.encode(point, &mut points[start..]).is_err() {
                    return points.truncate(start);
                }
                values.extend(numbers.unwrap_or_default());
            })?;
        }
        ensure!(!points.is_empty(), "no record could be read");
        let whole = |width: usize, numbers: &[f32]| {
            let numbers = numbers.iter().copied().cycle().take(count * width).collect();
            Array2::from_shape_vec((count, width), numbers)
        };
        let points = whole(dimensions, &points)?;
        let sent = match kind {
            RowKind::Points => points.clone(),
            RowKind::Values => whole(features.names().len(), &values)?,
        };
        Ok(Self { points, sent })
    }
}

/// The values of a record that has nothing but numbers.
#[expect(clippy::cast_possible_truncation, reason = "an endpoint's numbers are f32")]
fn numbers(values: &[Value]) -> Option<Vec<f32>> {
    let number = |value: &Value| match value {
        Value::Number(number) => Some(*number as f32),
        Value::Missing | Value::Category(_) => None,
    };
    values.iter().map(number).collect()
}

fn text(out: &mut impl Write, report: &Report<'_>, prices: &Prices) -> std::io::Result<()> {
    let Report { endpoint, rounds, scores_equal, measured } = report;
    writeln!(out, "{rounds} rounds, {BLOCK} in a row; endpoint {endpoint}")?;
    let equal = if *scores_equal { "equal to the model's own" } else { "not the model's own" };
    writeln!(out, "scores     {equal}, bit for bit\n")?;
    writeln!(
        out,
        "{:>7}  {:>12} {:>12} {:>12}  {:>12} {:>12} {:>12}  {:>8}  {:>12} {:>12}",
        "batch",
        "in process",
        "p99",
        "records/s",
        "endpoint",
        "p99",
        "records/s",
        "ratio",
        "$ a million",
        "by endpoint"
    )?;
    for Measured { batch, in_process, endpoint, ratio, costs } in measured {
        let times = |times: &Times| {
            let Times { p50_ms, p99_ms, records_per_sec } = times;
            format!("{p50_ms:>9.3} ms {p99_ms:>9.3} ms {records_per_sec:>12.0}")
        };
        writeln!(
            out,
            "{batch:>7}  {}  {}  {ratio:>8.1}  {:>12.4} {:>12.4}",
            times(in_process),
            times(endpoint),
            costs.in_process,
            costs.endpoint
        )?;
    }
    writeln!(out, "\n{prices}")?;
    Ok(())
}
