//! A cold load: bytes in memory -> a model ready to score, beside one checksum pass over the bytes. By
//! the clock, since it takes two threads, and in the processor's time of both.
//!
//!     cargo bench --bench snapshot
//!     cargo bench --bench snapshot -- once PASSES   # for valgrind: decodes only
#![allow(clippy::expect_used, clippy::print_stdout, missing_docs)]

mod rounds;

use std::fmt::Write;
use std::hint::black_box;

use criterion::Criterion;
use rounds::{
    FEATURES, SAMPLES, TREES, Work, cpu, cpu_of_all, forest, measure, params, points, wall,
};
use sawlog_model::{Features, Model, Provenance, ValidSpec, Value};
use sha2::{Digest, Sha256};

const ROUNDS: usize = 60;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|one| one == "once") {
        let passes = arguments.get(1).and_then(|text| text.parse().ok()).expect("once PASSES");
        let bytes = snapshot(3);
        for _ in 0..passes {
            black_box(Model::decode(black_box(&bytes)).expect("its own bytes"));
        }
        return;
    }
    let rounds = if arguments.iter().any(|one| one == "--test") { 1 } else { ROUNDS };
    let mut criterion = Criterion::default().configure_from_args();
    let lines: Vec<String> =
        FEATURES.iter().map(|&features| compare(&mut criterion, features, rounds)).collect();
    criterion.final_summary();
    println!("\n{TREES} trees x {SAMPLES}, medians of {rounds} rounds in which both took turns.\n");
    println!(
        "| features | snapshot, bytes | in memory, bytes | decode, µs | of all threads, µs | SHA-256, µs | ratio | of all threads | target |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    lines.iter().for_each(|line| println!("{line}"));
    println!("\nTarget for the size at 3 features: 600,000 bytes.");
}

fn compare(criterion: &mut Criterion, features: usize, rounds: usize) -> String {
    let bytes = snapshot(features);
    let memory = Model::decode(&bytes).expect("its own bytes").forest().memory_bytes();
    let decode = || drop(black_box(Model::decode(black_box(&bytes)).expect("its own bytes")));
    let mut works = [
        Work::new("decode", 1, |_| wall(decode)),
        Work::new("decode, all threads", 1, |_| cpu_of_all(decode)),
        Work::new("SHA-256", 1, |_| {
            cpu(|| {
                black_box(Sha256::digest(black_box(&bytes)));
            })
        }),
    ];
    measure(&mut works, rounds);
    let mut group = criterion.benchmark_group(format!("snapshot of {features} features"));
    works.iter().for_each(|work| rounds::report(&mut group, work));
    group.finish();
    let [decode, of_all, checksum] = works.each_ref().map(Work::micros);
    format!(
        "| {features} | {} | {memory} | {decode:.0} | {of_all:.0} | {checksum:.0} | {:.2} | {:.2} | ≤ 3 |",
        bytes.len(),
        decode / checksum,
        of_all / checksum
    )
}

/// A model as `sawlog train` would make it, of features that are taken as they are.
fn snapshot(features: usize) -> Vec<u8> {
    let mut spec = String::from("format = \"json\"\n");
    for at in 0..features {
        let feature =
            format!("[[feature]]\nname = \"x{at}\"\nfield = \"/x{at}\"\ntransform = \"none\"\n");
        spec.write_str(&feature).expect("a string grows");
    }
    let (training, _) = points(features);
    let values: Vec<Vec<Value>> = training
        .rows()
        .map(|row| row.iter().map(|&x| Value::Number(f64::from(x))).collect())
        .collect();
    let rows: Vec<&[Value]> = values.iter().map(Vec::as_slice).collect();
    let spec = ValidSpec::from_toml(&spec).expect("good specification");
    let fitted = Features::fit(spec, &rows).expect("not all constant");
    let forest = forest(&training, TREES, SAMPLES);
    let provenance = Provenance { tool: "bench".into(), ..Provenance::default() };
    Model::new(params(TREES, SAMPLES), fitted, forest, None, provenance).encode()
}
