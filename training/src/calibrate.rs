//! `sawlog calibrate`: the threshold of a model from the scores of records.
//!
//! The records should be ones that the model was not trained on: a record that is in the trees'
//! samples scores too low, and the threshold with it.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use ndarray::{ArrayView2, ArrayViewMut1};
use sawlog_model::{Calibration, Model, ThresholdRule};

use crate::describe;
use crate::input;
use crate::inspect;
use crate::output::Output;
use crate::progress::Progress;
use crate::tally::Tally;
use crate::train;

/// Records scored in one call.
const BATCH: usize = 1024;

/// Sets the threshold of a model by the scores of other records.
///
/// All records of the input are scored; the model's old threshold, if any, is replaced.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  sawlog calibrate --model model.sawlog --input recent.log --threshold quantile:0.995")]
pub(crate) struct Args {
    /// The model
    #[arg(long)]
    model: PathBuf,
    /// Files, folders, globs, or - for standard input; plain, gzip or zstd
    #[arg(long, required = true, num_args = 1.., value_name = "PATH")]
    input: Vec<String>,
    /// Where to write the model [default: over the old one]
    #[arg(long, value_name = "MODEL")]
    output: Option<PathBuf>,
    /// How to set the threshold from the scores: quantile:Q, Nsd or value:X
    #[arg(long, default_value_t)]
    threshold: ThresholdRule,
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
    let model = inspect::load(&args.model)?;
    let (scores, tally) = score_all(&model, &args.input)?;
    tally.check(args.max_reject_share)?;
    // The check has seen a record that was kept.
    let calibration = Calibration::new(args.threshold, &scores).context("no record was kept")?;
    let model = model.with_calibration(Some(calibration));
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

/// The scores of all records that the model can read.
fn score_all(model: &Model, inputs: &[String]) -> anyhow::Result<(Vec<f32>, Tally)> {
    let sources = input::resolve(inputs)?;
    let progress = Progress::over_bytes("scoring", sources.iter().map(|source| source.size).sum());
    let mut tally = Tally::default();
    let mut scorer = Scorer::new(model);
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

/// Scores points a batch at a time.
struct Scorer<'m> {
    model: &'m Model,
    /// The points that are not scored yet, one row each.
    points: Vec<f32>,
    scores: Vec<f32>,
}

impl<'m> Scorer<'m> {
    fn new(model: &'m Model) -> Self {
        Self { model, points: Vec::new(), scores: Vec::new() }
    }

    fn take(&mut self, values: &[sawlog_model::Value]) -> Result<(), sawlog_model::RecordError> {
        let start = self.points.len();
        self.points.resize(start + self.model.features().dimensions(), 0.0);
        let taken = self.model.features().encode(values, &mut self.points[start..]);
        if taken.is_err() {
            self.points.truncate(start);
        }
        taken
    }

    fn score_full_batch(&mut self) -> anyhow::Result<()> {
        let is_full = self.points.len() >= BATCH * self.model.features().dimensions();
        if is_full { self.score_batch() } else { Ok(()) }
    }

    fn score_batch(&mut self) -> anyhow::Result<()> {
        let dimensions = self.model.features().dimensions();
        let points =
            ArrayView2::from_shape((self.points.len() / dimensions, dimensions), &self.points)?;
        let start = self.scores.len();
        self.scores.resize(start + points.nrows(), 0.0);
        let scores = ArrayViewMut1::from(&mut self.scores[start..]);
        self.model.forest().score_batch(points, scores)?;
        self.points.clear();
        Ok(())
    }
}
