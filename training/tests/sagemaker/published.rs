//! What a SageMaker endpoint published of two metrics, and `sawlog train --compat sagemaker` on the
//! same files: shared by the quick test and by the bench that prints the tables.

use std::path::Path;
use std::process::Command;

/// One figure of an endpoint.
pub struct Figure {
    /// What it is of.
    pub name: &'static str,
    /// As published.
    pub published: f64,
    /// Where it comes from in a run.
    of: Of,
}

enum Of {
    /// Rows above the threshold.
    Flagged,
    Threshold,
    Largest,
    /// Score of the row on this line of the file; the header is line 1.
    Line(usize),
}

/// One metric and what is known of its scores.
pub struct Metric {
    /// File in examples/nab.
    pub file: &'static str,
    /// Its rows.
    pub rows: usize,
    /// Rows a tree with 50 trees.
    pub samples: usize,
    /// What was published.
    pub figures: &'static [Figure],
}

/// The two public notebooks: 50 trees of up to 512 rows asked for.
pub const METRICS: [Metric; 2] = [
    Metric {
        file: "nyc_taxi.csv",
        rows: 10_320,
        samples: 206,
        figures: &[
            Figure { name: "rows above mean + 3 sd", published: 236.0, of: Of::Flagged },
            Figure { name: "mean + 3 sd (at most)", published: 1.6555, of: Of::Threshold },
            Figure { name: "largest score (off a plot)", published: 4.65, of: Of::Largest },
            Figure { name: "score of the value 29985", published: 3.114, of: Of::Line(136) },
            Figure { name: "score of the value 10844", published: 0.943, of: Of::Line(2) },
        ],
    },
    Metric {
        file: "elb_request_count_8c0756.csv",
        rows: 4_032,
        samples: 80,
        figures: &[
            Figure { name: "rows above mean + 3 sd", published: 101.0, of: Of::Flagged },
            Figure { name: "score of the value 656", published: 5.1025, of: Of::Line(3684) },
        ],
    },
];

/// Trains by the endpoint's rules and scores the same rows: one value a figure.
pub fn run(metric: &Metric, seed: u64) -> Vec<f64> {
    let folder = tempfile::tempdir().expect("a folder");
    let model = folder.path().join("model.sawlog").display().to_string();
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/nab");
    let input = examples.join(metric.file).display().to_string();
    let spec = examples.join("spec.toml").display().to_string();
    let seed = seed.to_string();
    let forest = ["--trees", "50", "--samples", "512", "--seed", &seed, "--compat", "sagemaker"];
    let files = ["train", "--spec", &spec, "--input", &input, "--output", &model];
    sawlog(&[&files[..], &forest].concat());

    let inspected = sawlog(&["inspect", "--json", &model]);
    let inspected: serde_json::Value = serde_json::from_str(&inspected).expect("json");
    assert_eq!(inspected["params"]["sampling"], "contiguous");
    assert_eq!(inspected["params"]["leaf_rule"], "sagemaker");
    assert_eq!(inspected["params"]["samples"], metric.samples);
    assert_eq!(inspected["calibration"]["records"], metric.rows);
    let threshold = inspected["calibration"]["threshold"].as_f64().expect("a number");

    // score,anomaly,source,line
    let table = sawlog(&["score", "--model", &model, "--input", &input, "--format", "csv"]);
    let rows: Vec<(f64, bool)> = table
        .lines()
        .skip(1)
        .map(|row| {
            let mut cells = row.split(',');
            let score = cells.next().and_then(|cell| cell.parse().ok()).expect("a score");
            (score, cells.next() == Some("1"))
        })
        .collect();
    assert_eq!(rows.len(), metric.rows, "every row has a score");
    let flagged = rows.iter().filter(|(_, anomaly)| *anomaly).count();
    let figure = |figure: &Figure| match figure.of {
        Of::Flagged => flagged as f64,
        Of::Threshold => threshold,
        Of::Largest => rows.iter().map(|(score, _)| *score).fold(0.0, f64::max),
        Of::Line(line) => rows[line - 2].0,
    };
    metric.figures.iter().map(figure).collect()
}

fn sawlog(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_sawlog")).args(arguments).output().expect("runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "sawlog {arguments:?}: {said}");
    String::from_utf8(output.stdout).expect("text")
}

/// Mean and standard deviation of one forest.
pub fn mean_and_deviation(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    (mean, (values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt())
}
