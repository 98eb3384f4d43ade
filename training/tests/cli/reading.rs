//! Reading on all cores: how many threads read makes no difference to what is made of it, nor to what is said.

use std::io::Write as _;

use crate::folder::{Folder, SPEC};

/// Those of a run that is not told, too.
const THREADS: [&str; 5] = ["--threads 1", "--threads 2", "--threads 3", "--threads 7", ""];

fn folder(spec: &str) -> Folder {
    let folder = Folder::new();
    folder.write("spec.toml", spec);
    folder
}

/// Runs a command by each number of threads: its file and what it says, each time the same.
fn same(folder: &Folder, line: &str, output: &str) -> (Vec<u8>, String) {
    let runs = THREADS.map(|threads| {
        let said = folder.said(&format!("{line} --output {output} {threads}"));
        (folder.bytes(output), said)
    });
    for (run, threads) in runs.iter().zip(THREADS) {
        assert!(run.0 == runs[0].0, "other bytes with {threads:?} than with {:?}", THREADS[0]);
        assert_eq!(run.1, runs[0].1, "{threads:?} and {:?}", THREADS[0]);
    }
    let [first, ..] = runs;
    first
}

/// Runs a command that fails by each number of threads: what it says, each time the same.
fn same_failure(folder: &Folder, line: &str) -> String {
    let said = THREADS.map(|threads| folder.fails(&format!("{line} --output out {threads}")));
    for (other, threads) in said.iter().zip(THREADS) {
        assert_eq!(*other, said[0], "{threads:?} and {:?}", THREADS[0]);
    }
    let [first, ..] = said;
    first
}

fn lines(records: std::ops::Range<u32>) -> String {
    let line = |i: u32| {
        let (duration, path) = (100 + i.wrapping_mul(7919) % 1013, i * 31 % 7);
        format!("{{\"duration\":{duration},\"path\":\"/{path}\"}}\n")
    };
    records.map(line).collect()
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text.as_bytes()).expect("compressed");
    encoder.finish().expect("compressed")
}

fn zstd(text: &str) -> Vec<u8> {
    zstd::encode_all(text.as_bytes(), 1).expect("compressed")
}

/// Files of many blocks and of a few lines, plain and compressed, with bad records in several.
fn with_logs() -> Folder {
    let folder = folder(SPEC);
    let bad =
        |from: u32| format!("{}bad\n{}\n{{}}\n", lines(from..from + 10_000), "9".repeat(2 << 20));
    folder.write("logs/a.jsonl", bad(0) + &lines(30_000..40_000));
    folder.write("logs/b.jsonl.gz", gzip(&(bad(60_000) + &lines(90_000..93_000))));
    folder.write("logs/c.jsonl.zst", zstd(&bad(100_000)));
    for small in 0..40 {
        folder.write(&format!("logs/d{small:02}"), lines(200_000 + small..200_000 + 3 * small));
    }
    folder
}

#[test]
fn a_sketch_and_a_model_are_the_same_bytes_for_any_number_of_threads() {
    let folder = with_logs();
    let (_, said) = same(&folder, "sketch --spec spec.toml --input logs --trees 20", "sketch");
    assert!(said.contains("rejected   9 ("), "{said}");
    // The first five in the order of the input, with their lines.
    let shown = [
        "a.jsonl:10001 ",
        "a.jsonl:10002 ",
        "a.jsonl:10003 ",
        "b.jsonl.gz:10001 ",
        "b.jsonl.gz:10002 ",
    ];
    for place in shown {
        assert!(said.contains(place), "want {place} in:\n{said}");
    }
    assert!(said.contains("the record has 2097152 bytes"), "{said}");
    let (model, said) = same(&folder, "train --spec spec.toml --input logs --trees 20", "model");
    assert!(said.contains("kept       44,560"), "{said}");
    folder.ok("train --from-sketch sketch --output from-sketch");
    assert!(folder.bytes("from-sketch") == model);
}

#[test]
fn shingles_are_of_a_file_s_order_for_any_number_of_threads() {
    let folder = with_logs();
    let line = "sketch --spec spec.toml --input logs --shingle 4 --shingle-key /path --trees 20";
    let (_, said) = same(&folder, line, "sketch");
    assert!(said.contains("records began a series"), "{said}");
}

#[test]
fn columns_are_those_of_the_first_header_for_any_number_of_threads() {
    let spec = SPEC.replace("json", "csv").replace('/', "");
    let folder = folder(&spec);
    let rows = |from: u32, to: u32| -> String {
        (from..to).map(|i| format!("{},x{}\n", i * 31 % 997, i % 5)).collect()
    };
    // Empty ones first; one without a header, which is read by the first one's columns; one in another
    // order.
    folder.write("logs/a.csv", "\n\n");
    folder.write("logs/b.csv", "");
    folder.write("logs/c.csv", format!("\nduration,path\n{}", rows(0, 40_000)));
    folder.write("logs/d.csv", rows(60_000, 61_000));
    folder.write("logs/e.csv", "path,more,duration\nx1,0,17\n");
    let (_, said) = same(&folder, "train --spec spec.toml --input logs --trees 20", "model");
    assert!(said.contains("kept       41,001") && said.contains("columns duration,path"), "{said}");
    folder.write("logs/b.csv", "duration;path\n1;2\n");
    let said = same_failure(&folder, "sketch --spec spec.toml --input logs");
    assert!(said.contains("input logs/b.csv: line 1: "), "{said}");
}

#[test]
fn of_several_damaged_inputs_the_first_is_told_for_any_number_of_threads() {
    let folder = with_logs();
    let long = gzip(&lines(0..60_000));
    // The one that is named takes longest to fail.
    folder.write("logs/a1.gz", &long[..long.len() - 9]);
    for name in ["b1.gz", "b2.gz", "c1.gz"] {
        folder.write(&format!("logs/{name}"), &gzip(&lines(0..100))[..200]);
    }
    let said = same_failure(&folder, "sketch --spec spec.toml --input logs");
    assert!(said.contains("input logs/a1.gz: at byte "), "{said}");
}

#[test]
fn a_thread_at_least_is_needed() {
    let folder = with_logs();
    let run = folder.run("sketch --spec spec.toml --input logs --output sketch --threads 0");
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.code() == Some(2) && said.contains("--threads"), "{said}");
}
