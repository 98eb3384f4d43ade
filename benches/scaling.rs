//! How the cost grows: one of trees, samples, features and batch at a time, the others as usual.
//!
//!     cargo bench --bench scaling | python3 benches/scaling.py docs/scaling.svg
#![allow(clippy::expect_used, clippy::print_stdout, missing_docs)]

mod rounds;

use std::hint::black_box;

use ndarray::{Array1, Axis};
use rounds::{BATCH, Points, SAMPLES, TREES, Work, cpu, forest, measure, points};

const ROUNDS: usize = 15;

fn main() {
    println!("of,at,micros,memory");
    let usual = points(3);
    for trees in [10, 25, 50, 100, 200, 400, 1_000] {
        print_one("trees", trees as usize, &usual, trees, SAMPLES, BATCH);
    }
    for samples in [32, 64, 128, 256, 512, 1_024, 2_048, 4_096] {
        print_one("samples", samples as usize, &usual, TREES, samples, BATCH);
    }
    for features in [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64, 128] {
        print_one("features", features, &points(features), TREES, SAMPLES, BATCH);
    }
    for batch in [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_000, 10_000] {
        print_one("batch", batch, &usual, TREES, SAMPLES, batch);
    }
}

/// Scores as many whole batches as there are queries for, but at most 2,000 points in small ones.
fn print_one(
    of: &str,
    at: usize,
    (training, queries): &(Points, Points),
    trees: u32,
    samples: u32,
    batch: usize,
) {
    let forest = forest(training, trees, samples);
    let batches = (2_000 / batch).max(1);
    let mut scores = Array1::zeros(batch);
    let mut works = [Work::new(of, batches * batch, |_| {
        cpu(|| {
            for points in queries.view().axis_chunks_iter(Axis(0), batch).take(batches) {
                rounds::score(&forest, black_box(points), &mut scores);
                black_box(&scores);
            }
        })
    })];
    measure(&mut works, ROUNDS);
    println!("{of},{at},{:.4},{}", works[0].micros(), forest.memory_bytes());
}
