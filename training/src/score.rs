//! `sawlog score`: the verdicts of a model on the records of files, by the Lambda's own code.

use std::borrow::Cow;
use std::fmt::Display;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use sawlog_lambda::scorer::Scored;
use sawlog_lambda::sinks::DeadLetter;
use sawlog_lambda::{Origin, Verdict};
use sawlog_model::{Model, RecordError};
use serde::Serialize;

use crate::describe::{grouped, percent};
use crate::input;
use crate::inspect;
use crate::output::{Output, refuse_overlap};
use crate::scoring::{Found, Scoring};
use crate::tally::Tally;

/// Scores the records of files with a model.
///
/// Writes one line a record in the order of the input, a summary on standard error. With a shingle, a
/// record that has too few of its series before it in its file has a line without a score.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sawlog score --model model.sawlog --input later.log
  sawlog score --model model.sawlog --input logs/ --output scores.csv --format csv
  tail -n 1000 app.log | sawlog score --model model.sawlog --input -")]
pub(crate) struct Args {
    /// The model
    #[arg(long)]
    model: PathBuf,
    /// Files, folders, globs, s3://BUCKET/PREFIX, or - for standard input; plain, gzip, zstd or bzip2, or Parquet
    #[arg(long, required = true, num_args = 1.., value_name = "PATH")]
    input: Vec<String>,
    /// Where to write the scores [default: standard output]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Where to write rejected records, one JSON line each with place, reason and original bytes
    /// (of a line over 1 MiB its beginning)
    #[arg(long, value_name = "FILE")]
    rejects: Option<PathBuf>,
    /// json: one object a record with score, verdict, features and, for an anomaly, their shares;
    /// csv: the columns score, anomaly, source, line
    #[arg(long, value_enum, default_value_t = Format::Json)]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Json,
    Csv,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let model = inspect::load(&args.model)?;
    let sources = input::resolve(&args.input)?;
    let mut read: Vec<&Path> = sources.iter().map(|source| Path::new(&source.name)).collect();
    read.push(&args.model);
    refuse_overlap(&[args.output.as_deref(), args.rejects.as_deref()], &read)?;
    let mut rejects = args.rejects.as_deref().map(|path| Output::create(Some(path))).transpose()?;
    let mut run = Run {
        model: &model,
        format: args.format,
        out: Output::create(args.output.as_deref())?,
        anomalies: 0,
    };
    if args.format == Format::Csv {
        writeln!(run.out, "score,anomaly,source,line")?;
    }
    let tally = Scoring::new(&model).run(
        &sources,
        |origin, error, payload| write_reject(rejects.as_mut(), origin, error, payload),
        |origin, found| match found {
            Found::Scored { scored, .. } => run.write_score(origin, scored),
            Found::NoHistory => run.write_no_history(origin),
            Found::Rejected => Ok(()),
        },
    )?;
    run.finish(&tally, rejects)
}

struct Run<'m> {
    model: &'m Model,
    format: Format,
    out: Output,
    anomalies: u64,
}

/// What is written of a record that has too few of its series before it.
#[derive(Serialize)]
struct NoHistory<'a> {
    id: String,
    origin: &'a Origin,
    score: (),
    no_history: bool,
}

fn write_reject(
    out: Option<&mut Output>,
    origin: &Origin,
    error: &RecordError,
    payload: &[u8],
) -> anyhow::Result<()> {
    let Some(out) = out else { return Ok(()) };
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let time_ms = u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX);
    let reason = Cow::Owned(error.to_string());
    let letter = DeadLetter { origin, reason, time_ms, payload, undecoded: false };
    serde_json::to_writer(&mut *out, &letter)?;
    Ok(writeln!(out)?)
}

impl Run<'_> {
    fn write_no_history(&mut self, origin: &Origin) -> anyhow::Result<()> {
        if self.format == Format::Csv {
            return self.write_row(origin, "", "");
        }
        let (id, score, no_history) = (origin.identity(), (), true);
        serde_json::to_writer(&mut self.out, &NoHistory { id, origin, score, no_history })?;
        Ok(writeln!(self.out)?)
    }

    fn write_row(
        &mut self,
        origin: &Origin,
        score: impl Display,
        anomaly: impl Display,
    ) -> anyhow::Result<()> {
        if let Origin::File { path, line, .. } = origin {
            let path = path.replace('"', "\"\"");
            writeln!(self.out, "{score},{anomaly},\"{path}\",{line}")?;
        }
        Ok(())
    }

    fn write_score(&mut self, origin: &Origin, scored: Scored) -> anyhow::Result<()> {
        let verdict = Verdict::new(self.model, Cow::Borrowed(origin), None, scored);
        self.anomalies += u64::from(verdict.is_anomaly());
        if self.format == Format::Csv {
            return self.write_row(origin, verdict.score(), u8::from(verdict.is_anomaly()));
        }
        serde_json::to_writer(&mut self.out, &verdict)?;
        Ok(writeln!(self.out)?)
    }

    fn finish(self, tally: &Tally, rejects: Option<Output>) -> anyhow::Result<()> {
        self.out.finish()?;
        if let Some(rejects) = rejects {
            rejects.finish().context("rejects")?;
        }
        let scored = tally.kept();
        #[expect(clippy::cast_precision_loss, reason = "a share")]
        let share = self.anomalies as f64 / scored.max(1) as f64;
        let mut err = std::io::stderr().lock();
        writeln!(
            err,
            "scored {} of {} records: {} above the threshold ({}), {} rejected",
            grouped(scored),
            grouped(tally.read),
            grouped(self.anomalies),
            percent(share),
            grouped(tally.rejected),
        )?;
        if tally.no_history > 0 {
            let count = grouped(tally.no_history);
            writeln!(err, "  {count} began a series: too few before them for a score")?;
        }
        if self.model.calibration().is_none() {
            writeln!(err, "the model has no threshold: `sawlog calibrate` sets one")?;
        }
        for line in tally.first_rejects() {
            writeln!(err, "  {line}")?;
        }
        tally.check_scored()
    }
}
