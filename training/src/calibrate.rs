//! `sawlog calibrate`: the threshold of a model from the scores of records; with `--endpoint`, that of a
//! SageMaker endpoint from its scores of the same records, beside the model's own.
//!
//! The records should be ones that the model was not trained on: a record that is in the trees'
//! samples scores too low, and the threshold with it.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use ndarray::{ArrayView2, ArrayViewMut1};
use sawlog_lambda::config::{EndpointConfig, RowKind};
use sawlog_lambda::deadline::Until;
use sawlog_lambda::endpoint::{Endpoint, value_features};
use sawlog_model::{Calibration, EndpointCalibration, Features, Model};

use crate::describe;
use crate::input;
use crate::inspect;
use crate::output::Output;
use crate::progress::Progress;
use crate::tally::Tally;
use crate::threshold::{self, Threshold};
use crate::train;

/// Records scored in one call.
const BATCH: usize = 1024;
/// Calls of an endpoint that a batch makes, so that several are under way.
const CALLS: usize = 8;

/// Sets the threshold of a model by the scores of other records.
///
/// All records of the input are scored; the model's old threshold, if any, is replaced. With --endpoint
/// it stays, and the threshold of that endpoint is set beside it, by the endpoint's scores of the records.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  sawlog calibrate --model model.sawlog --input recent.log --threshold quantile:0.995")]
pub(crate) struct Args {
    /// The model
    #[arg(long)]
    model: PathBuf,
    /// Files, folders, globs, s3://BUCKET/PREFIX, or - for standard input; plain, gzip, zstd or bzip2, or Parquet
    #[arg(long, required = true, num_args = 1.., value_name = "PATH")]
    input: Vec<String>,
    /// Where to write the model [default: over the old one]
    #[arg(long, value_name = "MODEL")]
    output: Option<PathBuf>,
    /// How to set the threshold from the scores: quantile:Q, Nsd, value:X, or rate:N/h (or /s, /min, /d)
    /// for so many false alarms [default: quantile:0.999; with --endpoint as the model's own]
    #[arg(long)]
    threshold: Option<Threshold>,
    /// How many records an hour has where the model is used, for --threshold rate:N/h
    #[arg(long, value_name = "COUNT", value_parser = threshold::records_per_hour)]
    records_per_hour: Option<f64>,
    /// Calibrate this SageMaker endpoint; the variables ENDPOINT_ROWS, ENDPOINT_FORMAT and the like say how
    /// it is called, as they do in the Lambda
    #[arg(long, value_name = "NAME")]
    endpoint: Option<String>,
    /// Fail if more than this share of the records is rejected
    #[arg(
        long,
        default_value_t = train::MAX_REJECT_SHARE,
        value_parser = train::share,
        value_name = "SHARE"
    )]
    max_reject_share: f64,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let threshold = args.threshold.map(|it| it.rule(args.records_per_hour)).transpose()?;
    let model = inspect::load(&args.model)?;
    let remote = match &args.endpoint {
        Some(name) => Some(Remote::new(EndpointConfig::from_env(name)?, &model)?),
        None => None,
    };
    let (scores, tally) = score_all(&model, remote.as_ref(), &args.input)?;
    tally.check(args.max_reject_share)?;
    // The check has seen a record that was kept.
    let model = match &args.endpoint {
        None => {
            let rule = threshold.unwrap_or_default();
            let calibration = Calibration::new(rule, &scores.local);
            model.with_calibration(Some(calibration.context("no record was kept")?))
        }
        Some(name) => {
            let own = model.calibration().map(|calibration| calibration.rule);
            let rule = threshold.or(own).unwrap_or_default();
            let endpoint = EndpointCalibration::new(name, rule, &scores.local, &scores.remote);
            model.with_endpoint_calibration(Some(endpoint.context("no record was kept")?))
        }
    };
    let path = args.output.as_ref().unwrap_or(&args.model);
    let mut output = Output::create(Some(path))?;
    output.write_all(&model.encode())?;
    output.finish()?;
    let mut out = std::io::stdout().lock();
    describe::tally(&mut out, &tally)?;
    describe::model(&mut out, &model)?;
    writeln!(out, "\nwrote      {}", path.display())?;
    Ok(())
}

/// The scores of all records that the model can read, and of an endpoint's the same.
fn score_all(
    model: &Model,
    remote: Option<&Remote>,
    inputs: &[String],
) -> anyhow::Result<(Scores, Tally)> {
    let sources = input::resolve(inputs)?;
    let progress = Progress::over_bytes("scoring", sources.iter().map(|source| source.size).sum());
    let mut tally = Tally::default();
    let mut scorer = Scorer::new(model, remote);
    for source in &sources {
        // The reader calls back and can't pass an error on: the first is kept and told after it.
        let mut result = Ok(());
        let spec = model.features().spec();
        input::read_source(source, spec, &|bytes| progress.add(bytes), |record| {
            tally.read += 1;
            let point = match record.point {
                Ok(Some(point)) => point,
                Ok(None) => return tally.no_history += 1,
                Err(error) => return tally.reject(record.place, error),
            };
            match scorer.take(point) {
                Ok(()) if result.is_ok() => result = scorer.score_full_batch(),
                Ok(()) => {}
                Err(error) => tally.reject(record.place, &error),
            }
        })?;
        result?;
    }
    scorer.score_batch()?;
    progress.finish();
    Ok((scorer.scores, tally))
}

/// The same records' scores, in the same order.
#[derive(Default)]
struct Scores {
    local: Vec<f32>,
    /// Empty without an endpoint.
    remote: Vec<f32>,
}

/// An endpoint and the rows that it takes.
struct Remote {
    endpoint: Endpoint,
    runtime: tokio::runtime::Runtime,
    /// What makes rows of values; none if it takes the model's own points.
    plain: Option<Features>,
}

impl Remote {
    fn new(config: EndpointConfig, model: &Model) -> anyhow::Result<Self> {
        let features = model.features();
        let plain = match config.rows {
            RowKind::Points => None,
            RowKind::Values => Some(value_features(features.spec(), Some(features.fitted()))?),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let endpoint = runtime.block_on(Endpoint::connect(config));
        Ok(Self { endpoint, runtime, plain })
    }

    /// The endpoint's scores of rows; all of them, or why not.
    fn scores(&self, rows: ArrayView2<'_, f32>) -> anyhow::Result<Vec<f32>> {
        let scores = self.endpoint.scores(rows, "calibrate", Until::FOREVER);
        let scores: Result<Vec<f32>, _> = self.runtime.block_on(scores).into_iter().collect();
        let name = &self.endpoint.config().name;
        scores.with_context(|| format!("endpoint {name}"))
    }
}

/// Scores points a batch at a time.
struct Scorer<'m> {
    model: &'m Model,
    remote: Option<&'m Remote>,
    /// The points that are not scored yet, one row each.
    points: Vec<f32>,
    /// The same records as rows of values, for an endpoint that takes them.
    values: Vec<f32>,
    scores: Scores,
}

impl<'m> Scorer<'m> {
    fn new(model: &'m Model, remote: Option<&'m Remote>) -> Self {
        let (points, values) = (Vec::new(), Vec::new());
        Self { model, remote, points, values, scores: Scores::default() }
    }

    fn take(&mut self, values: &[sawlog_model::Value]) -> Result<(), sawlog_model::RecordError> {
        encode(self.model.features(), values, &mut self.points)?;
        match self.remote.and_then(|remote| remote.plain.as_ref()) {
            // What one takes the other does: the specification is the same.
            Some(plain) => encode(plain, values, &mut self.values),
            None => Ok(()),
        }
    }

    fn score_full_batch(&mut self) -> anyhow::Result<()> {
        let batch = match self.remote {
            Some(remote) => CALLS * remote.endpoint.config().chunk_rows,
            None => BATCH,
        };
        let is_full = self.points.len() >= batch * self.model.features().dimensions();
        if is_full { self.score_batch() } else { Ok(()) }
    }

    fn score_batch(&mut self) -> anyhow::Result<()> {
        let dimensions = self.model.features().dimensions();
        let count = self.points.len() / dimensions;
        let points = ArrayView2::from_shape((count, dimensions), &self.points)?;
        let start = self.scores.local.len();
        self.scores.local.resize(start + count, 0.0);
        let scores = ArrayViewMut1::from(&mut self.scores.local[start..]);
        self.model.forest().score_batch(points, scores)?;
        if let Some(remote) = self.remote {
            let rows = match &remote.plain {
                Some(plain) => ArrayView2::from_shape((count, plain.dimensions()), &self.values)?,
                None => points,
            };
            self.scores.remote.extend(remote.scores(rows)?);
        }
        self.points.clear();
        self.values.clear();
        Ok(())
    }
}

/// Adds the row of a point.
fn encode(
    features: &Features,
    values: &[sawlog_model::Value],
    rows: &mut Vec<f32>,
) -> Result<(), sawlog_model::RecordError> {
    let start = rows.len();
    rows.resize(start + features.dimensions(), 0.0);
    let taken = features.encode(values, &mut rows[start..]);
    if taken.is_err() {
        rows.truncate(start);
    }
    taken
}
