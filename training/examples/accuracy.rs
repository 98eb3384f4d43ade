//! How well scores tell labelled anomalies apart: the tables of docs/accuracy.md.
//!
//!     cargo run --release -p sawlog-training --example accuracy -- [OPTIONS] FILE...
//!
//! FILE is a table with a header, comma-separated, gzip or plain, whose last column `label` is 1 for
//! an anomaly; or a metric of the Numenta Anomaly Benchmark (`timestamp,value`), which is cut into
//! points of 48 consecutive values, labelled by the window that its last value falls into. For every
//! file, over five seeds: mean and deviation of ROC-AUC and average precision, in per cent, over a
//! grid of transforms and samples with 100 trees, over numbers of trees, and of krcf (AWS's forest).
//!
//!     --windows JSON    the benchmark's combined_windows.json, for its metrics
//!     --points FOLDER   write the transformed points there, for isolation_forest.py
//!     --warp            put a heavy tail on every column of a table, x -> exp(2 (x - mean) /
//!                       deviation), and print only the transforms with the default samples
#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::collections::HashMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use ndarray::{Array1, Array2};
use sawlog_model::{
    Features, Fitted, Forest, Params, RecordKey, Scaling, Sketch, ValidParams, ValidSpec, Value,
    read_record,
};

const SEEDS: u64 = 5;
/// The transforms that there are, and what `auto` might have been.
const TRANSFORMS: [Transform; 8] = [
    Transform { name: "auto", spec: "auto", instead: None },
    Transform { name: "none", spec: "none", instead: None },
    Transform { name: "log1p", spec: "log1p", instead: None },
    Transform { name: "standard", spec: "standard", instead: None },
    Transform { name: "robust", spec: "robust", instead: None },
    Transform { name: "auto, scaled by spread", spec: "auto", instead: Some((true, 0.0)) },
    Transform { name: "auto, scaled by deviation", spec: "auto", instead: Some((true, 1.0)) },
    Transform { name: "auto, never a logarithm", spec: "auto", instead: Some((false, 0.5)) },
];
const SAMPLES: [u32; 5] = [32, 64, 128, 256, 512];
const TREES: [u32; 5] = [25, 50, 100, 200, 400];
/// Values a point of a metric is made of: a day of half hours, four hours of five minutes.
const SHINGLE: usize = 48;

struct Transform {
    name: &'static str,
    /// As a specification has it.
    spec: &'static str,
    /// In place of what was learned: whether to keep its logarithm, and the scale as
    /// spread^(1 - e) * deviation^e.
    instead: Option<(bool, f64)>,
}

struct Set {
    name: String,
    header: String,
    lines: Vec<String>,
    labels: Vec<bool>,
}

struct Options {
    windows: Option<PathBuf>,
    points: Option<PathBuf>,
    warp: bool,
    files: Vec<PathBuf>,
}

fn main() {
    let mut options = Options { windows: None, points: None, warp: false, files: Vec::new() };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--windows" => options.windows = args.next().map(PathBuf::from),
            "--points" => options.points = args.next().map(PathBuf::from),
            "--warp" => options.warp = true,
            file => options.files.push(file.into()),
        }
    }
    assert!(!options.files.is_empty(), "name at least one file; see the head of this example");
    for path in &options.files {
        let set = read(path, options.windows.as_deref());
        if options.warp {
            by_transform(&warped(set), &[]);
        } else {
            report(&set, options.points.as_deref());
        }
    }
}

fn report(set: &Set, points: Option<&Path>) {
    by_transform(set, &SAMPLES);
    let default = default_samples(set.lines.len());
    let auto = Table::new(set, &TRANSFORMS[0]);
    println!("\nBy trees, auto, {default} samples\n");
    println!("| {} |", TREES.map(|trees| trees.to_string()).join(" | "));
    println!("|{}", "---|".repeat(TREES.len()));
    let cells = TREES.map(|trees| over_seeds(set, |seed| auto.sawlog(trees, default, seed)));
    println!("| {} |", cells.map(|cell| cell.to_string()).join(" | "));

    println!("\nkrcf, 100 trees, points of auto\n");
    for samples in [256, default] {
        let cell = over_seeds(set, |seed| auto.krcf(100, samples, seed));
        println!("{samples} samples: {cell}");
        if samples == default {
            break;
        }
    }
    if let Some(folder) = points {
        auto.write_points(folder, set);
    }
}

/// Prints a row a transform, a column a number of samples, the default where there is none.
fn by_transform(set: &Set, samples: &[u32]) {
    let rows = set.lines.len();
    let anomalies = set.labels.iter().filter(|&&label| label).count();
    let default = [default_samples(rows)];
    let samples = if samples.is_empty() { &default } else { samples };
    println!("\n## {}: {rows} rows, {anomalies} anomalies\n", set.name);
    println!("ROC-AUC / average precision by transform and samples a tree, 100 trees\n");
    let head: Vec<String> = samples.iter().map(u32::to_string).collect();
    println!("| transform | {} |", head.join(" | "));
    println!("|---|{}", "---|".repeat(samples.len()));
    for transform in &TRANSFORMS {
        let table = Table::new(set, transform);
        let cell =
            |&samples: &u32| over_seeds(set, |seed| table.sawlog(100, samples, seed)).to_string();
        let cells: Vec<String> = samples.iter().map(cell).collect();
        println!("| {} | {} |", transform.name, cells.join(" | "));
    }
}

/// The set with heavy tails: every column's deviations from its mean become factors.
fn warped(mut set: Set) -> Set {
    let cells = |line: &String| -> Vec<f64> {
        line.split(',').map(|cell| cell.parse().expect("a number")).collect()
    };
    let mut rows: Vec<Vec<f64>> = set.lines.iter().map(cells).collect();
    let n = rows.len() as f64;
    for column in 0..rows[0].len() - 1 {
        let mean = rows.iter().map(|row| row[column]).sum::<f64>() / n;
        let squares = rows.iter().map(|row| (row[column] - mean).powi(2)).sum::<f64>();
        let deviation = (squares / n).sqrt();
        let unit = if deviation > 0.0 { deviation } else { 1.0 };
        for row in &mut rows {
            // Shuttle has values 150 deviations out: exp(100) is far enough.
            row[column] = (2.0 * (row[column] - mean) / unit).min(100.0).exp();
        }
    }
    let line = |row: &Vec<f64>| row.iter().map(f64::to_string).collect::<Vec<_>>().join(",");
    set.lines = rows.iter().map(line).collect();
    set
}

/// As `sawlog train` has it where the user doesn't say.
fn default_samples(rows: usize) -> u32 {
    u32::try_from(rows / 16).unwrap_or(u32::MAX).clamp(32, 256)
}

/// A set read through one specification.
struct Table {
    transform: &'static Transform,
    spec: ValidSpec,
    values: Vec<Vec<Value>>,
}

impl Table {
    fn new(set: &Set, transform: &'static Transform) -> Self {
        let mut toml = "format = \"csv\"\n".to_owned();
        for column in set.header.split(',').filter(|&column| column != "label") {
            toml += &format!(
                "[[feature]]\nname = \"{column}\"\nfield = \"{column}\"\ntransform = \"{}\"\n",
                transform.spec
            );
        }
        let spec = ValidSpec::from_toml(&toml).expect("specification");
        let spec = spec.with_header(&set.header).expect("header");
        let read = |line: &String| read_record(&spec, line.as_bytes()).expect("record");
        let values = set.lines.iter().map(read).collect();
        Self { transform, spec, values }
    }

    /// The keyed sample of each tree and the features learned from all of them, as in training.
    fn sample(&self, trees: u32, samples: u32, seed: u64) -> (Sketch<usize>, Features) {
        let mut sketch = Sketch::new(seed, trees as usize, samples as usize);
        for row in 0..self.values.len() {
            sketch.offer(RecordKey::new("rows", row as u64), 0.0, || row);
        }
        let records = sketch.records();
        let rows: Vec<&[Value]> =
            records.iter().map(|(_, row)| self.values[**row].as_slice()).collect();
        let mut features = Features::fit(self.spec.clone(), &rows).expect("features");
        if let Some((log, exponent)) = self.transform.instead {
            let refitted = features.fitted().iter().enumerate().map(|(at, fitted)| match fitted {
                Fitted::Number { scaling, min, p01, median, p99, max } => {
                    let log_unit = if log { scaling.log_unit } else { 0.0 };
                    let values = rows.iter().map(|row| match row[at] {
                        Value::Number(number) => number,
                        _ => *median,
                    });
                    let scaling = scaled(log_unit, values, exponent);
                    let (min, p01, median, p99, max) = (*min, *p01, *median, *p99, *max);
                    Fitted::Number { scaling, min, p01, median, p99, max }
                }
                other => other.clone(),
            });
            features = Features::new(self.spec.clone(), refitted.collect()).expect("features");
        }
        (sketch, features)
    }

    fn points(&self, features: &Features) -> Array2<f32> {
        let mut points = Array2::zeros((self.values.len(), features.dimensions()));
        for (values, mut row) in self.values.iter().zip(points.rows_mut()) {
            features.encode(values, row.as_slice_mut().expect("a row")).expect("a point");
        }
        points
    }

    /// Scores of all rows by a forest of samples of the same rows.
    fn sawlog(&self, trees: u32, samples: u32, seed: u64) -> Vec<f32> {
        let (sketch, features) = self.sample(trees, samples, seed);
        let points = self.points(&features);
        let row_of: HashMap<RecordKey, usize> =
            sketch.records().into_iter().map(|(key, row)| (key, *row)).collect();
        let keys = sketch.keys();
        let params = ValidParams::new(Params { trees, samples, seed, ..Params::default() });
        let forest = Forest::build(features.dimensions(), &params.expect("params"), |tree| {
            keys[tree]
                .iter()
                .filter_map(|key| points.row(row_of[key]).to_slice())
                .collect::<Vec<_>>()
                .into_iter()
        });
        let mut scores = Array1::zeros(points.nrows());
        forest.expect("forest").score_batch(points.view(), scores.view_mut()).expect("scores");
        scores.to_vec()
    }

    /// The same by AWS's forest, which takes the rows one by one: without time decay and taking
    /// every early row, its sample is uniform too.
    fn krcf(&self, trees: usize, samples: u32, seed: u64) -> Vec<f32> {
        let (_, features) = self.sample(100, samples, seed);
        let points = self.points(&features);
        let options = krcf::RandomCutForestOptions {
            dimensions: points.ncols(),
            shingle_size: 1,
            num_trees: Some(trees),
            sample_size: Some(samples as usize),
            random_seed: Some(seed),
            lambda: Some(0.0),
            initial_accept_fraction: Some(1.0),
            ..Default::default()
        };
        let mut forest = krcf::RandomCutForest::new(options).expect("krcf");
        for row in points.rows() {
            forest.update(row.to_slice().expect("a row")).expect("krcf");
        }
        let score = |row: ndarray::ArrayView1<'_, f32>| {
            forest.score(row.to_slice().expect("a row")).expect("krcf") as f32
        };
        points.rows().into_iter().map(score).collect()
    }

    fn write_points(&self, folder: &Path, set: &Set) {
        std::fs::create_dir_all(folder).expect("folder");
        let (_, features) = self.sample(100, default_samples(self.values.len()), 0);
        let path = folder.join(format!("{}-{}.csv", set.name, self.transform.name));
        let mut out = std::io::BufWriter::new(std::fs::File::create(path).expect("file"));
        for (row, label) in self.points(&features).rows().into_iter().zip(&set.labels) {
            row.iter().for_each(|x| write!(out, "{x},").expect("written"));
            writeln!(out, "{}", u8::from(*label)).expect("written");
        }
    }
}

/// As in the model's features, with another exponent: `auto` takes 0.5.
fn scaled(log_unit: f64, values: impl Iterator<Item = f64>, exponent: f64) -> Scaling {
    let curve = |x: f64| if log_unit > 0.0 { (x.abs() / log_unit).ln_1p().copysign(x) } else { x };
    let mut curved: Vec<f64> = values.map(curve).collect();
    curved.sort_unstable_by(f64::total_cmp);
    let n = curved.len() as f64;
    let at = |share: f64| curved[(share * (n - 1.0)) as usize];
    let mean = curved.iter().map(|x| x / n).sum::<f64>();
    let deviation = curved.iter().map(|x| (x - mean).powi(2) / n).sum::<f64>().sqrt();
    let spreads = [(0.25, 0.75, 1.348_98), (0.05, 0.95, 3.289_71), (0.01, 0.99, 4.652_70)];
    let spread = spreads
        .map(|(low, high, deviations)| (at(high) - at(low)) / deviations)
        .into_iter()
        .find(|&spread| spread > 0.0)
        .unwrap_or(deviation);
    let scale = spread.powf(1.0 - exponent) * deviation.powf(exponent);
    Scaling { log_unit, center: at(0.5), scale }
}

fn read(path: &Path, windows: Option<&Path>) -> Set {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut text = String::new();
    if bytes.starts_with(&[0x1f, 0x8b]) {
        flate2::read::MultiGzDecoder::new(bytes.as_slice())
            .read_to_string(&mut text)
            .expect("gzip");
    } else {
        text = String::from_utf8(bytes).expect("text");
    }
    let file = path.file_name().expect("a file").to_string_lossy().into_owned();
    let name = file.trim_end_matches(".gz").trim_end_matches(".csv").to_owned();
    let mut lines = text.lines().map(str::to_owned);
    let header = lines.next().expect("a header");
    let lines: Vec<String> = lines.collect();
    if header == "timestamp,value" {
        return shingled(name, &file, &lines, windows.expect("--windows for a metric"));
    }
    assert!(header.ends_with(",label"), "{file}: the last column must be `label`");
    let labels = lines.iter().map(|line| line.ends_with(",1")).collect();
    Set { name, header, lines, labels }
}

/// Points of [`SHINGLE`] consecutive values of a metric.
fn shingled(name: String, file: &str, lines: &[String], windows: &Path) -> Set {
    let json = std::fs::read_to_string(windows).expect("windows");
    let windows: HashMap<String, Vec<[String; 2]>> = serde_json::from_str(&json).expect("windows");
    let (_, windows) = windows.iter().find(|(key, _)| key.ends_with(file)).expect("its windows");
    // `2014-10-30 15:30:00` and `2014-10-30 15:30:00.000000`: such times sort as text.
    let is_labelled = |time: &str| {
        windows.iter().any(|[from, to]| (&from[..time.len()]..=&to[..time.len()]).contains(&time))
    };
    let rows: Vec<(&str, &str)> =
        lines.iter().map(|line| line.split_once(',').expect("two columns")).collect();
    let header = (0..SHINGLE).map(|at| format!("v{at}")).collect::<Vec<_>>().join(",");
    let point = |window: &[(&str, &str)]| {
        window.iter().map(|(_, value)| *value).collect::<Vec<_>>().join(",")
    };
    let labels = rows.windows(SHINGLE).map(|window| is_labelled(window[SHINGLE - 1].0)).collect();
    Set { name, header, lines: rows.windows(SHINGLE).map(point).collect(), labels }
}

/// ROC-AUC and average precision over seeds, each as mean and sample deviation.
struct Cell {
    auc: (f64, f64),
    precision: (f64, f64),
}

impl std::fmt::Display for Cell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (auc, precision) = (self.auc, self.precision);
        write!(
            f,
            "{:.1} ± {:.1} / {:.1} ± {:.1}",
            100.0 * auc.0,
            100.0 * auc.1,
            100.0 * precision.0,
            100.0 * precision.1
        )
    }
}

fn over_seeds(set: &Set, scores: impl Fn(u64) -> Vec<f32>) -> Cell {
    let runs: Vec<(f64, f64)> =
        (0..SEEDS).map(|seed| auc_and_precision(&scores(seed), &set.labels)).collect();
    let spread = |of: fn(&(f64, f64)) -> f64| {
        let n = runs.len() as f64;
        let mean = runs.iter().map(of).sum::<f64>() / n;
        let squares = runs.iter().map(|run| (of(run) - mean).powi(2)).sum::<f64>();
        (mean, (squares / (n - 1.0)).sqrt())
    };
    Cell { auc: spread(|run| run.0), precision: spread(|run| run.1) }
}

/// Area under the ROC curve and average precision; equal scores are taken together.
fn auc_and_precision(scores: &[f32], labels: &[bool]) -> (f64, f64) {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    let positives = labels.iter().filter(|&&label| label).count() as f64;
    let negatives = labels.len() as f64 - positives;
    let (mut hits, mut misses, mut area, mut precision) = (0.0, 0.0, 0.0, 0.0);
    for tie in order.chunk_by(|&a, &b| scores[a] == scores[b]) {
        let tied_hits = tie.iter().filter(|&&at| labels[at]).count() as f64;
        let tied_misses = tie.len() as f64 - tied_hits;
        area += tied_misses * (hits + tied_hits / 2.0);
        hits += tied_hits;
        misses += tied_misses;
        precision += tied_hits / positives * hits / (hits + misses);
    }
    (area / (positives * negatives), precision)
}
