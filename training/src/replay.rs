//! `sawlog replay`: later logs as Kafka batches through the handler that the Lambda runs.
//!
//! Each batch is an event in the shape in which Amazon MSK's mapping delivers it, and goes through
//! the same `App::handle` from its bytes to the answer. What is measured is that call.
//!
//! Records go to the partitions in turn. With a shingle each file is a partition of its own, as a
//! producer's key would have it: the records of a series stay together and in their order.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use sawlog_lambda::config::{DeadLettersUri, Kept, ModelUri, ResultsUri};
use sawlog_lambda::event::MAX_RECORDS;
use sawlog_lambda::handler::BatchReport;
use sawlog_lambda::{App, Config};
use sawlog_model::{Fitted, Model};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::describe::{self, grouped, percent};
use crate::input;
use crate::progress::Progress;

/// Partitions that the replayed topic has.
const PARTITIONS: u64 = 3;
/// Most bytes of payload in one event: the mapping stays below 6 MB after base64.
const MAX_EVENT_PAYLOAD: usize = 4 << 20;
/// Anomalies shown.
const SHOWN: usize = 12;
/// Records shown that were not stored, with their reasons.
const REASONS: usize = 5;
/// Least share of a score that is told.
const TOLD_SHARE: f64 = 0.15;
/// Bars of the histogram, and their greatest width.
const BARS: usize = 12;
const BAR_WIDTH: usize = 40;

/// Replays log files as Kafka batches through the Lambda's handler, without AWS.
///
/// Results and dead letters are written as JSON lines beside each other; records that are there
/// already are not written again.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  sawlog replay --model model.sawlog --input later.log --output replayed")]
pub(crate) struct Args {
    /// The model
    #[arg(long)]
    model: PathBuf,
    /// Files, folders, globs, s3://BUCKET/PREFIX, or - for standard input; plain, gzip, zstd or bzip2, or Parquet
    #[arg(long, required = true, num_args = 1.., value_name = "PATH")]
    input: Vec<String>,
    /// Folder for results.jsonl and dead-letters.jsonl
    #[arg(long, value_name = "FOLDER")]
    output: PathBuf,
    /// Records a batch, as the event source mapping's BatchSize
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u16).range(1..=MAX_RECORDS as i64))]
    batch: u16,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let replay = Replay {
        model: &args.model,
        input: &args.input,
        output: &args.output,
        batch: usize::from(args.batch),
    };
    replay.run(&mut std::io::stdout().lock())
}

/// What to replay, and where results go.
pub(crate) struct Replay<'a> {
    pub(crate) model: &'a Path,
    pub(crate) input: &'a [String],
    pub(crate) output: &'a Path,
    pub(crate) batch: usize,
}

impl Replay<'_> {
    /// Replays and reports.
    pub(crate) fn run(&self, out: &mut impl Write) -> anyhow::Result<()> {
        std::fs::create_dir_all(self.output)
            .with_context(|| format!("output folder {}", self.output.display()))?;
        let folder = self.output.canonicalize()?;
        let results = folder.join("results.jsonl");
        let dead_letters = folder.join("dead-letters.jsonl");
        let model = self.model.canonicalize();
        let model = model.with_context(|| format!("model {}", self.model.display()))?;
        let config = Config {
            // What is shown afterwards is made of every verdict.
            results_kept: Kept::All,
            model_refresh_secs: 0,
            ..Config::new(
                ModelUri::File(model),
                ResultsUri::File(results.clone()),
                DeadLettersUri::File(dead_letters.clone()),
            )
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let app = runtime.block_on(App::start(config))?;
        let model = app.model_for("").context("a model")?;
        let topic = topic(&model, self.input);
        let is_shingled = model.features().spec().shingle().is_some();
        // Points are the handler's business; here only lines are read.
        let spec = model.features().spec().with_shingle(None)?;
        let mut run = Run {
            app,
            runtime,
            events: EventBuilder::new(topic.clone(), self.batch, is_shingled),
            batches: Vec::new(),
        };
        let sources = input::resolve(self.input)?;
        let bytes = sources.iter().map(|source| source.size).sum();
        let progress = Progress::over_bytes("replaying", bytes);
        for source in &sources {
            let mut result = Ok(());
            input::read_source(source, &spec, &|bytes| progress.add(bytes), |record| {
                if result.is_ok() && run.events.push(record.bytes) {
                    result = run.invoke();
                }
            })?;
            result?;
            run.events.end_file();
        }
        run.invoke()?;
        progress.finish();
        ensure!(!run.batches.is_empty(), "the input has no record");
        report(out, &run.batches)?;
        let scored = read_results(&results, &topic)?;
        histogram(out, &scored, &model)?;
        anomalies(out, &scored, &model)?;
        writeln!(out, "\nresults       {}", self.output.join("results.jsonl").display())?;
        writeln!(out, "dead letters  {}", self.output.join("dead-letters.jsonl").display())?;
        Ok(())
    }
}

struct Run {
    app: App,
    runtime: tokio::runtime::Runtime,
    events: EventBuilder,
    batches: Vec<(Duration, BatchReport)>,
}

impl Run {
    fn invoke(&mut self) -> anyhow::Result<()> {
        let Some(event) = self.events.take()? else { return Ok(()) };
        let started = Instant::now();
        let handled = self.runtime.block_on(self.app.handle(&event, None))?;
        self.batches.push((started.elapsed(), handled.report));
        Ok(())
    }
}

/// Gathers payloads into an event as MSK's mapping makes it.
struct EventBuilder {
    topic: String,
    batch: usize,
    time_ms: u64,
    /// Whether a file is a partition, and if so which one is next.
    file: Option<u64>,
    /// Records sent; with a file a partition, of the current file.
    sent: u64,
    count: usize,
    payload_len: usize,
    partitions: BTreeMap<String, Vec<Value>>,
}

/// A topic of its own for each model and input: the records of another replay into the same folder
/// must not pass for these.
fn topic(model: &Model, input: &[String]) -> String {
    let what = format!("{}\n{}", model.id(), input.join("\n"));
    format!("replay-{:08x}", xxhash_rust::xxh3::xxh3_64(what.as_bytes()) >> 32)
}

impl EventBuilder {
    fn new(topic: String, batch: usize, by_file: bool) -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time_ms = u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX);
        Self {
            topic,
            batch,
            time_ms,
            file: by_file.then_some(0),
            sent: 0,
            count: 0,
            payload_len: 0,
            partitions: BTreeMap::new(),
        }
    }

    /// Adds a record; true if the event is full then.
    fn push(&mut self, payload: &[u8]) -> bool {
        let (partition, offset) = match self.file {
            Some(file) => (file, self.sent),
            None => (self.sent % PARTITIONS, self.sent / PARTITIONS),
        };
        let record = json!({
            "topic": self.topic,
            "partition": partition,
            "offset": offset,
            "timestamp": self.time_ms,
            "timestampType": "CREATE_TIME",
            "value": base64_simd::STANDARD.encode_to_string(payload),
            "headers": [],
        });
        self.partitions.entry(format!("{}-{partition}", self.topic)).or_default().push(record);
        self.sent += 1;
        self.count += 1;
        self.payload_len += payload.len();
        self.count == self.batch || self.payload_len >= MAX_EVENT_PAYLOAD
    }

    /// What follows is of another file.
    fn end_file(&mut self) {
        if let Some(file) = &mut self.file {
            (*file, self.sent) = (*file + 1, 0);
        }
    }

    /// The event so far, if there is anything in it.
    fn take(&mut self) -> anyhow::Result<Option<Box<RawValue>>> {
        if self.count == 0 {
            return Ok(None);
        }
        let records = std::mem::take(&mut self.partitions);
        (self.count, self.payload_len) = (0, 0);
        let event = json!({
            "eventSource": "aws:kafka",
            "bootstrapServers": "localhost:9092",
            "records": records,
        });
        Ok(Some(serde_json::value::to_raw_value(&event)?))
    }
}

fn report(out: &mut impl Write, batches: &[(Duration, BatchReport)]) -> anyhow::Result<()> {
    let sum = |of: fn(&BatchReport) -> usize| -> u64 {
        batches.iter().map(|(_, report)| of(report) as u64).sum()
    };
    let records = sum(|report| report.records);
    let total: Duration = batches.iter().map(|(time, _)| *time).sum();
    let mut times: Vec<f64> = batches.iter().map(|(time, _)| 1e3 * time.as_secs_f64()).collect();
    times.sort_unstable_by(f64::total_cmp);
    let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or_default();
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rate"
    )]
    let rate = (records as f64 / total.as_secs_f64().max(1e-9)) as u64;
    writeln!(
        out,
        "replayed   {} records in {} batches: {} records a second on one thread",
        grouped(records),
        grouped(batches.len() as u64),
        grouped(rate),
    )?;
    writeln!(
        out,
        "a batch    {:.2} ms in the middle, {:.2} ms at the 99th percentile",
        at(50),
        at(99)
    )?;
    let stage = |of: fn(&BatchReport) -> Duration| -> f64 {
        let sum: Duration = batches.iter().map(|(_, report)| of(report)).sum();
        100.0 * sum.as_secs_f64() / total.as_secs_f64().max(1e-9)
    };
    writeln!(
        out,
        "           {:.0} % decode, {:.0} % features, {:.0} % score, {:.0} % store",
        stage(|report| report.decode),
        stage(|report| report.features),
        stage(|report| report.score),
        stage(|report| report.store),
    )?;
    writeln!(
        out,
        "outcomes   {} stored, {} dead-lettered, {} failed",
        grouped(sum(|report| report.stored)),
        grouped(sum(|report| report.dead_lettered)),
        grouped(sum(|report| report.failed)),
    )?;
    let no_history = sum(|report| report.no_history);
    if no_history > 0 {
        let count = grouped(no_history);
        writeln!(out, "           {count} with too few of their series before them in the batch")?;
    }
    let anomalies = sum(|report| report.anomalies);
    #[expect(clippy::cast_precision_loss, reason = "a share")]
    let share = anomalies as f64 / records.max(1) as f64;
    writeln!(out, "anomalies  {} ({})", grouped(anomalies), percent(share))?;
    for reason in batches.iter().flat_map(|(_, report)| &report.reasons).take(REASONS) {
        writeln!(out, "             {reason}")?;
    }
    Ok(())
}

/// One line of the results file, as far as it is shown.
struct Scored {
    score: f64,
    line: Value,
}

/// The results of one topic: the file may hold those of other replays too.
fn read_results(path: &Path, topic: &str) -> anyhow::Result<Vec<Scored>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let mut results = Vec::new();
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).with_context(|| path.display().to_string())?;
        if line["origin"]["topic"] != topic {
            continue;
        }
        results.push(Scored { score: line["score"].as_f64().unwrap_or_default(), line });
    }
    Ok(results)
}

/// Scores as bars of logarithmic length, the threshold between them.
fn histogram(out: &mut impl Write, results: &[Scored], model: &Model) -> anyhow::Result<()> {
    let scores = || results.iter().map(|result| result.score);
    let (low, high) = (scores().fold(f64::MAX, f64::min), scores().fold(0.0, f64::max));
    if high <= low {
        return Ok(());
    }
    let width = (high - low) / BARS as f64;
    let mut counts = [0_u64; BARS];
    for score in scores() {
        counts[(((score - low) / width) as usize).min(BARS - 1)] += 1;
    }
    let threshold = model.calibration().map(|calibration| calibration.threshold);
    let longest = counts.iter().map(|&count| (count as f64 + 1.0).log2()).fold(1.0, f64::max);
    writeln!(out, "\n  score        records (bars are logarithmic)")?;
    for (bar, &count) in counts.iter().enumerate() {
        let from = low + bar as f64 * width;
        let is_at = |threshold: f64| threshold >= from && threshold < from + width;
        let len = ((count as f64 + 1.0).log2() / longest * BAR_WIDTH as f64).round() as usize;
        let mark = if threshold.is_some_and(is_at) { "  <- threshold" } else { "" };
        writeln!(
            out,
            "  {from:>5.2}-{:<5.2}  {:<BAR_WIDTH$} {}{mark}",
            from + width,
            "#".repeat(len),
            grouped(count),
        )?;
    }
    Ok(())
}

/// The highest anomalies beside what is normal.
fn anomalies(out: &mut impl Write, results: &[Scored], model: &Model) -> anyhow::Result<()> {
    let mut flagged: Vec<&Scored> =
        results.iter().filter(|result| result.line["anomaly"] == true).collect();
    flagged.sort_by(|a, b| b.score.total_cmp(&a.score));
    if flagged.is_empty() {
        writeln!(out, "\nno record is above the threshold")?;
        return Ok(());
    }
    let names: Vec<&str> = model.features().names().collect();
    let mut rows = Vec::new();
    let mut heading = vec!["score".to_owned()];
    heading.extend(names.iter().map(|name| (*name).to_owned()));
    heading.extend(["because of".to_owned(), "record".to_owned()]);
    rows.push(heading);
    for result in flagged.iter().take(SHOWN) {
        let mut row = vec![format!("{:.3}", result.score)];
        row.extend(names.iter().map(|name| shown(&result.line["features"][*name])));
        row.push(because(&result.line["attribution"], &names));
        row.push(result.line["id"].as_str().unwrap_or_default().to_owned());
        rows.push(row);
    }
    let mut normal = vec!["normal".to_owned()];
    normal.extend(model.features().fitted().iter().map(|fitted| match fitted {
        Fitted::Number { p01, p99, .. } => {
            format!("{} to {}", describe::value(*p01), describe::value(*p99))
        }
        Fitted::OneHot { categories } => categories.join(" "),
        Fitted::Frequency { categories, .. } => {
            categories.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(" ")
        }
        Fitted::Constant => "constant".to_owned(),
    }));
    normal.extend(["(98 % of the training records)".to_owned(), String::new()]);
    rows.push(normal);
    writeln!(
        out,
        "\nthe {} most unusual of {} flagged:",
        flagged.len().min(SHOWN),
        grouped(flagged.len() as u64)
    )?;
    describe::table(out, &rows)?;
    Ok(())
}

fn shown(value: &Value) -> String {
    match value {
        Value::Number(number) => describe::value(number.as_f64().unwrap_or_default()),
        Value::String(text) => text.chars().take(24).collect(),
        _ => "missing".to_owned(),
    }
}

/// The features that a score comes from, the greatest first, as long as they matter.
fn because(attribution: &Value, names: &[&str]) -> String {
    let part = |name: &str, side: &str| attribution[name][side].as_f64().unwrap_or_default();
    let mut parts: Vec<(f64, &str, &str)> = names
        .iter()
        .flat_map(|name| ["high", "low"].map(|side| (part(name, side), *name, side)))
        .collect();
    parts.sort_by(|a, b| b.0.total_cmp(&a.0));
    let told = parts.iter().filter(|(share, ..)| *share >= TOLD_SHARE).take(2);
    let told = told.map(|(share, name, side)| {
        format!("{name} {side} {:.0} %{}", 100.0 * share, most(&attribution[*name], name))
    });
    told.collect::<Vec<_>>().join(", ")
}

/// With a shingle, the record that most of a feature's share comes from, if it matters by itself.
fn most(share: &Value, name: &str) -> String {
    let of_record = share["lag_share"].as_f64().unwrap_or_default();
    match share["lag"].as_u64().filter(|_| of_record >= TOLD_SHARE) {
        None => String::new(),
        Some(0) => format!(" (the newest {:.0} %)", 100.0 * of_record),
        Some(lag) => format!(" ({name}[-{lag}] {:.0} %)", 100.0 * of_record),
    }
}
