//! A whole batch through the function: a Kafka event's bytes in, every record's outcome ready, beside
//! what can't be saved (one look at each value's JSON, and the scores) and beside a Python handler.
//!
//!     cargo bench --bench pipeline
//!     cargo bench --bench pipeline -- files FOLDER  # the event and training values, for the peer
//!     cargo bench --bench pipeline -- rounds        # an event for each line of standard input
//!
//! Sinks are off (`RESULTS=none`, and nothing is poison): what they take is their servers' time.
#![allow(clippy::expect_used, clippy::print_stdout, missing_docs)]

mod rounds;

use std::hint::black_box;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::time::Duration;

use criterion::Criterion;
use ndarray::{Array1, Array2};
use rounds::{BATCH, SAMPLES, TREES, Work, cpu, cpu_of_all, measure, median, params};
use sawlog_lambda::config::Config;
use sawlog_lambda::handler::BatchReport;
use sawlog_lambda::{App, handler::Handled};
use sawlog_model::{
    Calibration, Features, Forest, Model, Provenance, ThresholdRule, ValidSpec, Value, read_record,
};
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use tokio::runtime::Runtime;

const ROUNDS: usize = 30;
/// Partitions of the topic: each has its list in the event.
const PARTITIONS: usize = 8;
/// Share of the batch that is flagged and explained.
const FLAGGED: f64 = 0.01;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let lines = lines();
    match arguments.first().map(String::as_str) {
        Some("files") => files(Path::new(arguments.get(1).expect("files FOLDER")), &lines),
        Some("rounds") => rounds(&lines),
        _ => {
            let rounds = if arguments.iter().any(|one| one == "--test") { 1 } else { ROUNDS };
            compare(&lines, rounds);
        }
    }
}

/// Everything in turns, and the table of docs/performance.md.
fn compare(lines: &[Vec<u8>], rounds: usize) {
    let function = Function::start(lines);
    let event = event(&lines[..BATCH]);
    let model = &function.model;
    let points = points(model, &lines[..BATCH]);
    let mut reports = Vec::new();
    let mut works = [
        Work::new("event to outcomes", BATCH, |round| {
            let mut report = None;
            // Scores are worked out on all cores.
            let time = cpu_of_all(|| report = Some(function.handle(&event)));
            if round > 0 {
                reports.extend(report);
            }
            time
        }),
        Work::new("scores alone", BATCH, |_| {
            let mut scores = Array1::zeros(BATCH);
            cpu(|| {
                rounds::score(model.forest(), points.view(), &mut scores);
                black_box(&scores);
            })
        }),
        Work::new("serde_json over the values", BATCH, |_| {
            cpu(|| {
                for line in &lines[..BATCH] {
                    black_box(serde_json::from_slice::<IgnoredAny>(black_box(line)).expect("json"));
                }
            })
        }),
        Work::new("serde_json over the event", BATCH, |_| {
            cpu(|| {
                black_box(serde_json::from_str::<IgnoredAny>(black_box(&event)).expect("json"));
            })
        }),
    ];
    measure(&mut works, rounds);
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("pipeline");
    works.iter().for_each(|work| rounds::report(&mut group, work));
    group.finish();
    criterion.final_summary();
    let [whole, scores, values, envelope] = works.each_ref().map(Work::micros);
    drop(works);

    println!(
        "\n{} records, an event of {} bytes, {} x {}, {} features; CPU microseconds a record of all \
         threads, medians of {rounds} rounds in turns\n",
        BATCH,
        event.len(),
        TREES,
        SAMPLES,
        model.features().names().count(),
    );
    println!("| work | µs a record | records a second |\n|---|---|---|");
    for (name, micros) in [
        ("event's bytes to outcomes", whole),
        ("scores alone", scores),
        ("one pass of serde_json over the values", values),
        ("one pass of serde_json over the event", envelope),
    ] {
        println!("| {name} | {micros:.2} | {:.0} |", 1e6 / micros);
    }
    println!(
        "\nto outcomes / (scores + one pass over the values) = {:.2} (target: at most 2.5)\n",
        whole / (scores + values)
    );
    let stage = |of: fn(&BatchReport) -> Duration| {
        let times: Vec<Duration> = reports.iter().map(of).collect();
        median(&times) * 1e6 / BATCH as f64
    };
    println!("| stage | µs a record, wall clock |\n|---|---|");
    for (name, micros) in [
        ("decode: the event taken apart", stage(|report| report.decode)),
        ("features: payloads to points", stage(|report| report.features)),
        ("score, and explanation of the flagged", stage(|report| report.score)),
        ("outcomes settled", stage(|report| report.store)),
    ] {
        println!("| {name} | {micros:.2} |");
    }
}

/// A function and its model.
struct Function {
    app: App,
    model: Model,
    runtime: Runtime,
    _folder: tempfile::TempDir,
}

impl Function {
    fn start(lines: &[Vec<u8>]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| format!("file://{}", folder.path().join(name).display());
        let model = train(lines);
        std::fs::write(folder.path().join("model"), model.encode()).expect("the model written");
        let config = Config::from_vars(|name| match name {
            "MODEL_URI" => Some(at("model")),
            "RESULTS" => Some("none".to_owned()),
            "DEAD_LETTERS_URI" => Some(at("dead.jsonl")),
            _ => None,
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let app = runtime.block_on(App::start(config.expect("sound"))).expect("started");
        Self { app, model, runtime, _folder: folder }
    }

    /// Handles an event as the Runtime API hands it over: text that is looked at for the first time.
    fn handle(&self, event: &str) -> BatchReport {
        let event: Box<RawValue> = serde_json::from_str(black_box(event)).expect("json");
        let handled = self.runtime.block_on(self.app.handle(&event, None));
        let Handled { response, report } = handled.expect("handled");
        black_box(response);
        assert_eq!(
            (report.records, report.failed, report.dead_lettered),
            (BATCH, 0, 0),
            "records, failed and dead-lettered: {report:?}"
        );
        report
    }
}

/// Requests of the shipped example.
fn lines() -> Vec<Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/nezha/requests.jsonl.gz");
    let file = std::fs::File::open(&path).expect("the shipped log");
    let lines = BufReader::new(flate2::read::GzDecoder::new(file)).split(b'\n');
    let lines: Vec<Vec<u8>> = lines.map(|line| line.expect("a line")).collect();
    assert!(lines.len() >= BATCH + TRAINING, "{} lines", lines.len());
    lines
}

/// Lines after those of the batch that the model is trained on: one for each place in the samples.
const TRAINING: usize = rounds::TRAINING;

fn train(lines: &[Vec<u8>]) -> Model {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/nezha/spec.toml");
    let text = std::fs::read_to_string(path).expect("the shipped specification");
    let spec = ValidSpec::from_toml(&text).expect("sound");
    let values: Vec<Vec<Value>> =
        training(lines).map(|line| read_record(&spec, line).expect("a request")).collect();
    let rows: Vec<&[Value]> = values.iter().map(Vec::as_slice).collect();
    let features = Features::fit(spec, &rows).expect("features");
    let encoded: Vec<Vec<f32>> = values
        .iter()
        .map(|values| {
            let mut row = vec![0.0; features.dimensions()];
            features.encode(values, &mut row).expect("a point");
            row
        })
        .collect();
    let forest = Forest::build(features.dimensions(), &params(TREES, SAMPLES), |tree| {
        // Trees have every hundredth record each, so that all of them have seen the whole log.
        encoded.iter().skip(tree).step_by(TREES as usize).map(Vec::as_slice)
    });
    let forest = forest.expect("sound points");
    let mut model = Model::new(
        params(TREES, SAMPLES),
        features.clone(),
        forest.clone(),
        None,
        Provenance::default(),
    );
    // So that the flagged share of the batch is known.
    let points = points(&model, &lines[..BATCH]);
    let mut scores = Array1::zeros(BATCH);
    rounds::score(&forest, points.view(), &mut scores);
    let rule = ThresholdRule::Quantile(1.0 - FLAGGED);
    let calibration = Calibration::new(rule, scores.as_slice().expect("whole"));
    model =
        Model::new(params(TREES, SAMPLES), features, forest, calibration, Provenance::default());
    model
}

fn training(lines: &[Vec<u8>]) -> impl Iterator<Item = &Vec<u8>> {
    lines[BATCH..].iter().take(TRAINING)
}

fn points(model: &Model, lines: &[Vec<u8>]) -> Array2<f32> {
    let features = model.features();
    let mut points = Array2::zeros((lines.len(), features.dimensions()));
    for (line, mut row) in lines.iter().zip(points.rows_mut()) {
        let values = features.read(line).expect("a request");
        features.encode(&values, row.as_slice_mut().expect("whole rows")).expect("a point");
    }
    points
}

/// An event as Amazon MSK's mapping delivers it.
fn event(lines: &[Vec<u8>]) -> String {
    let mut partitions = vec![Vec::new(); PARTITIONS];
    for (index, line) in lines.iter().enumerate() {
        let partition = index % PARTITIONS;
        partitions[partition].push(serde_json::json!({
            "topic": "requests", "partition": partition, "offset": 1_000_000 + index / PARTITIONS,
            "timestamp": 1_661_140_339_572_u64 + index as u64, "timestampType": "CREATE_TIME",
            "value": base64_simd::STANDARD.encode_to_string(line), "headers": [],
        }));
    }
    let records: serde_json::Map<String, serde_json::Value> = partitions
        .into_iter()
        .enumerate()
        .map(|(partition, records)| (format!("requests-{partition}"), records.into()))
        .collect();
    serde_json::json!({
        "eventSource": "aws:kafka",
        "eventSourceArn":
            "arn:aws:kafka:eu-central-1:123456789012:cluster/logs/751d2973-a626-431c-9d4e-d7975eb44dd7-2",
        "bootstrapServers": "b-1.logs.example.com:9098,b-2.logs.example.com:9098",
        "records": records,
    })
    .to_string()
}

/// What the Python handler reads: the event, and the records that it trains on.
fn files(folder: &Path, lines: &[Vec<u8>]) {
    std::fs::write(folder.join("event.json"), event(&lines[..BATCH])).expect("written");
    let mut out = std::fs::File::create(folder.join("training.jsonl")).expect("a file");
    for line in training(lines) {
        out.write_all(line).and_then(|()| out.write_all(b"\n")).expect("written");
    }
}

/// An event for each line of standard input, answered by its CPU nanoseconds a record.
fn rounds(lines: &[Vec<u8>]) {
    let function = Function::start(lines);
    let event = event(&lines[..BATCH]);
    let run = || cpu_of_all(|| drop(black_box(function.handle(&event)))).as_nanos() / BATCH as u128;
    run();
    println!("ready");
    for line in std::io::stdin().lock().lines() {
        line.expect("a line");
        println!("{}", run());
    }
}
