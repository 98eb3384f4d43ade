//! The forest beside krcf on the same points, and the ratios that docs/performance.md shows.
//!
//!     cargo bench --bench score
//!     cargo bench --bench score -- csv FOLDER            # the points, for the peers' scripts
//!     cargo bench --bench score -- rounds FEATURES       # a batch for each line of standard input
//!     cargo bench --bench score -- caches                # batches in a row, and after other work
//!     cargo bench --bench score -- once FEATURES PASSES  # for callgrind: no clock, no peer
#![allow(clippy::expect_used, clippy::print_stdout, missing_docs)]

mod rounds;

use std::hint::black_box;
use std::io::{BufRead, Write};
use std::time::Duration;

use criterion::Criterion;
use krcf::{RandomCutForest, RandomCutForestOptions};
use ndarray::{Array1, Axis};
use rounds::{BATCH, FEATURES, Points, SAMPLES, TREES, Work, cpu, forest, measure, points, wall};
use sawlog_model::Forest;

const ROUNDS: usize = 40;
/// Queries a round where a batch would take too long: the next of them each time.
const SLICE: usize = 1_000;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| arguments.get(at).and_then(|text| text.parse().ok());
    match arguments.first().map(String::as_str) {
        Some("csv") => {
            let folder = arguments.get(1).expect("csv FOLDER");
            FEATURES.iter().for_each(|&features| write_csv(folder, features));
        }
        Some("rounds") => rounds(number(1).expect("rounds FEATURES")),
        Some("caches") => caches(),
        Some("once") => {
            once(number(1).expect("once FEATURES PASSES"), number(2).expect("once FEATURES PASSES"))
        }
        _ => {
            let rounds = if arguments.iter().any(|one| one == "--test") { 1 } else { ROUNDS };
            let mut criterion = Criterion::default().configure_from_args();
            let lines: Vec<Vec<String>> = FEATURES
                .iter()
                .map(|&features| compare(&mut criterion, features, rounds))
                .collect();
            criterion.final_summary();
            print_table(&lines, rounds);
        }
    }
}

/// Measures everything for one number of features and returns its lines of the table.
fn compare(criterion: &mut Criterion, features: usize, rounds: usize) -> Vec<String> {
    let (training, queries) = points(features);
    let forest = forest(&training, TREES, SAMPLES);
    let peer = krcf(&training);
    let threshold = top_one_per_cent(&forest, &queries);
    let slice = |round: usize| {
        let start = round * SLICE % BATCH;
        queries.view().split_at(Axis(0), start).1.split_at(Axis(0), SLICE).0
    };
    let batch = || {
        let mut scores = Array1::zeros(BATCH);
        rounds::score(&forest, queries.view(), &mut scores);
        scores
    };
    let mut works = [
        Work::new("one batch", BATCH, |_| cpu(|| drop(black_box(batch())))),
        Work::new("one batch by the wall clock", BATCH, |_| wall(|| drop(black_box(batch())))),
        Work::new("two threads by the wall clock", BATCH, |_| {
            wall(|| _ = black_box(on_two_threads(&forest, &queries)))
        }),
        Work::new("the slower of two threads", BATCH, |_| on_two_threads(&forest, &queries)),
        Work::new("with attribution of the top 1 %", BATCH, |_| {
            cpu(|| {
                let scores = batch();
                let flagged = queries.rows().zip(&scores).filter(|(_, score)| **score > threshold);
                let points = flagged.map(|(point, _)| point);
                black_box(forest.attributions(points).expect("their dimensions"));
            })
        }),
        Work::new("one point alone", SLICE, |round| {
            let mut score = Array1::zeros(1);
            cpu(|| {
                for point in slice(round).axis_chunks_iter(Axis(0), 1) {
                    rounds::score(&forest, black_box(point), &mut score);
                    black_box(&score);
                }
            })
        }),
        Work::new("krcf", SLICE, |round| {
            cpu(|| {
                for point in slice(round).rows() {
                    let point = point.to_slice().expect("rows of a slice");
                    black_box(peer.score(black_box(point)).expect("trained"));
                }
            })
        }),
    ];
    measure(&mut works, rounds);
    let mut group = criterion.benchmark_group(format!("{features} features"));
    works.iter().for_each(|work| rounds::report(&mut group, work));
    group.finish();

    let [batch, one, two, slower, explained, alone, krcf] = works.each_ref().map(Work::micros);
    let line = |work: &str, micros: f64, beside: String, ratio: f64, target: &str| {
        let rate = format!("{:.0}", 1e6 / micros);
        format!(
            "| {features} | {work} | {micros:.2} | {} | {beside} | {ratio:.2} | {target} |",
            in_thousands(&rate)
        )
    };
    let peer = format!("krcf {krcf:.1}");
    let target = if features == 3 { "≥ 20" } else { "≥ 12" };
    let mut lines = vec![
        line("one batch of 10,000", batch, peer.clone(), krcf / batch, target),
        line("one point alone", alone, peer, krcf / alone, "≥ 5"),
        line(
            "attribution of the top 1 % too",
            explained,
            format!("without {batch:.2}"),
            explained / batch,
            "≤ 1.10",
        ),
        line("two threads, wall clock", two, format!("one {one:.2}"), one / two, "≥ 1.8"),
        line(
            "two threads, CPU time of the slower",
            slower,
            format!("one {batch:.2}"),
            batch / slower,
            "",
        ),
    ];
    lines.push(format!("{:.0} % at {features} features", 100.0 * (one / batch - 1.0)));
    lines
}

fn print_table(lines: &[Vec<String>], rounds: usize) {
    println!("\n{TREES} trees x {SAMPLES}, medians of {rounds} rounds in which all took turns.");
    println!("µs: CPU time of the one thread a point.\n");
    println!("| features | work | µs a point | points a second | beside, µs | ratio | target |");
    println!("|---|---|---|---|---|---|---|");
    lines.iter().flat_map(|lines| &lines[..lines.len() - 1]).for_each(|line| println!("{line}"));
    let stolen: Vec<&str> =
        lines.iter().filter_map(|lines| lines.last()).map(String::as_str).collect();
    println!("\nOthers had the core for this share of a batch's CPU time: {}", stolen.join(", "));
}

fn in_thousands(digits: &str) -> String {
    let first = digits.len() % 3;
    let (head, tail) = digits.split_at(first);
    let mut parts: Vec<&str> = if head.is_empty() { Vec::new() } else { vec![head] };
    parts.extend((0..tail.len()).step_by(3).map(|at| &tail[at..at + 3]));
    parts.join(",")
}

/// krcf with the same trees and samples, one thread, everything else as it comes.
fn krcf(training: &Points) -> RandomCutForest {
    let mut forest = RandomCutForest::new(RandomCutForestOptions {
        dimensions: training.features,
        shingle_size: 1,
        num_trees: Some(TREES as usize),
        sample_size: Some(SAMPLES as usize),
        random_seed: Some(42),
        ..Default::default()
    })
    .expect("good options");
    training.rows().for_each(|row| forest.update(row).expect("good points"));
    forest
}

/// Scores the batch in two halves and returns the CPU time of the thread that took more: what it
/// would take on two free cores.
fn on_two_threads(forest: &Forest, queries: &Points) -> Duration {
    let mut scores = Array1::zeros(BATCH);
    let (first, second) = queries.view().split_at(Axis(0), BATCH / 2);
    let (head, tail) = scores.view_mut().split_at(Axis(0), BATCH / 2);
    let half = |points, scores| cpu(|| forest.score_batch(points, scores).expect("its dimensions"));
    let slower = std::thread::scope(|scope| {
        let other = scope.spawn(|| half(second, tail));
        half(first, head).max(other.join().expect("no panic"))
    });
    black_box(scores);
    slower
}

/// Batches of all sizes, one after the other, and each after other work has filled the caches. Prints the
/// table by the clock on the wall, since waiting for memory is what it is about.
fn caches() {
    const SIZES: [usize; 6] = [10, 32, 100, 300, 1_000, 10_000];
    // Twice the largest last cache of a core's neighbours.
    let others = vec![1_u64; 64 << 17];
    println!("µs a point, medians of {ROUNDS} rounds: in a row / after 64 MiB of other memory\n");
    println!("| features | {} |", SIZES.map(|size| size.to_string()).join(" | "));
    println!("|---{}|", "|---".repeat(SIZES.len()));
    for features in FEATURES {
        let (training, queries) = points(features);
        let forest = forest(&training, TREES, SAMPLES);
        let cells = SIZES.map(|size| {
            let batch = queries.view().split_at(Axis(0), size).0;
            let mut scores = Array1::zeros(size);
            let mut time = |after_other_work: bool| {
                let mut times = Vec::new();
                for _ in 0..ROUNDS {
                    rounds::score(&forest, batch, &mut scores);
                    if after_other_work {
                        black_box(others.iter().step_by(8).sum::<u64>());
                    }
                    times.push(wall(|| rounds::score(&forest, batch, &mut scores)));
                }
                rounds::median(&times) * 1e6 / size as f64
            };
            format!("{:.2} / {:.2}", time(false), time(true))
        });
        println!("| {features} | {} |", cells.join(" | "));
    }
}

/// The score that one query in a hundred exceeds.
fn top_one_per_cent(forest: &Forest, queries: &Points) -> f32 {
    let mut scores = Array1::zeros(BATCH);
    rounds::score(forest, queries.view(), &mut scores);
    let mut sorted = scores.to_vec();
    sorted.sort_by(f32::total_cmp);
    sorted[BATCH - BATCH / 100 - 1]
}

fn write_csv(folder: &str, features: usize) {
    let (training, queries) = points(features);
    for (name, points) in [("training", training), ("queries", queries)] {
        let path = format!("{folder}/{name}-{features}.csv");
        let file = std::fs::File::create(&path).expect("a folder to write to");
        let mut file = std::io::BufWriter::new(file);
        for row in points.rows() {
            let cells: Vec<String> = row.iter().map(f32::to_string).collect();
            writeln!(file, "{}", cells.join(",")).expect("room on the disk");
        }
        file.flush().expect("room on the disk");
    }
}

/// As the peers' programs in `benches/peers` do: `ready` when warm, then for each line the CPU
/// nanoseconds a point of one batch, and of points alone.
fn rounds(features: usize) {
    let (training, queries) = points(features);
    let forest = forest(&training, TREES, SAMPLES);
    let mut scores = Array1::zeros(BATCH);
    let mut batch = || cpu(|| rounds::score(&forest, queries.view(), &mut scores));
    let alone = || {
        let mut score = Array1::zeros(1);
        cpu(|| {
            for point in queries.view().axis_chunks_iter(Axis(0), 1).take(SLICE) {
                rounds::score(&forest, black_box(point), &mut score);
                black_box(&score);
            }
        })
    };
    let of_points = |time: Duration, points: usize| time.as_nanos() / points as u128;
    black_box((batch(), alone()));
    println!("ready");
    for _ in std::io::stdin().lock().lines() {
        println!("{} {}", of_points(batch(), BATCH), of_points(alone(), SLICE));
    }
}

/// Scores the batch a number of times: the difference between two numbers is the scoring alone.
fn once(features: usize, passes: usize) {
    let (training, queries) = points(features);
    let forest = forest(&training, TREES, SAMPLES);
    let mut scores = Array1::zeros(BATCH);
    for _ in 0..passes {
        rounds::score(&forest, black_box(queries.view()), &mut scores);
        black_box(&scores);
    }
}
