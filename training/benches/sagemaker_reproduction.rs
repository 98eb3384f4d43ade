//! Forty seeds of `sawlog train --compat sagemaker` beside what an endpoint published: the tables of
//! docs/sagemaker.md.
//!
//!     cargo bench -p sawlog-training --bench sagemaker_reproduction
#![allow(clippy::expect_used, clippy::print_stdout)]

#[path = "../tests/sagemaker/published.rs"]
mod published;

use published::{METRICS, mean_and_deviation, run};

const SEEDS: u64 = 40;

fn main() {
    for metric in &METRICS {
        let runs: Vec<Vec<f64>> = (0..SEEDS).map(|seed| run(metric, seed)).collect();
        println!("\n{}, 50 trees of {} rows, {SEEDS} seeds\n", metric.file, metric.samples);
        println!("| | published | Sawlog, mean ± deviation of one forest | off, in deviations |");
        println!("|---|---|---|---|");
        for (at, figure) in metric.figures.iter().enumerate() {
            let values: Vec<f64> = runs.iter().map(|run| run[at]).collect();
            let (mean, deviation) = mean_and_deviation(&values);
            // The published figure is one forest's, ours a mean of forty.
            let of_difference = deviation * (1.0 + 1.0 / values.len() as f64).sqrt();
            let off = (mean - figure.published) / of_difference;
            println!(
                "| {} | {} | {mean:.3} ± {deviation:.3} | {off:+.1} |",
                figure.name, figure.published
            );
        }
    }
}
