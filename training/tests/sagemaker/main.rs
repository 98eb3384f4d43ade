//! `sawlog train --compat sagemaker` goes by the endpoint's rules: a few seeds against its published
//! figures. `cargo bench -p sawlog-training --bench sagemaker_reproduction` runs 40.
#![allow(clippy::expect_used)]

mod published;

use published::{METRICS, mean_and_deviation, run};

#[test]
fn the_published_figures_come_out() {
    // The deviation of one forest, as 40 seeds gave it (docs/sagemaker.md).
    let deviations: [&[f64]; 2] = [&[15.0, 0.023, 0.04, 0.061, 0.036], &[4.8, 0.017]];
    for (metric, deviations) in METRICS.iter().zip(deviations) {
        let runs: Vec<Vec<f64>> = (0..4).map(|seed| run(metric, seed)).collect();
        for (at, (figure, deviation)) in metric.figures.iter().zip(deviations).enumerate() {
            let values: Vec<f64> = runs.iter().map(|run| run[at]).collect();
            let (mean, _) = mean_and_deviation(&values);
            // Loose: the mean of four within four deviations of one, and what is published beside it
            // comes from one forest of theirs.
            let off = (mean - figure.published).abs() / deviation;
            assert!(
                off < 5.0,
                "{} of {}: {mean}, published {} ({off:.1} deviations)",
                figure.name,
                metric.file,
                figure.published
            );
        }
    }
}
