//! What inputs may be: Parquet and bzip2, parts of them by time, and a look before all is read.

use std::io::Write as _;

use parquet::basic::{Compression, ZstdLevel};

use crate::folder::Folder;
use crate::rows::{SPEC, json, rows, write_parquet};

fn folder() -> Folder {
    let folder = Folder::new();
    folder.write("spec.toml", SPEC);
    folder
}

/// The scores of a file in order.
fn scores(folder: &Folder, input: &str) -> Vec<String> {
    folder.said(&format!("score --model model --input {input} --format csv --output scores"));
    let text = folder.text("scores");
    let score = |line: &str| line.split(',').next().expect("a score").to_owned();
    text.lines().skip(1).map(score).collect()
}

#[test]
fn rows_of_parquet_are_the_records_that_arrive_as_json() {
    let folder = folder();
    let rows = rows(4500);
    folder.write("rows.jsonl", json(&rows));
    let zstd = Compression::ZSTD(ZstdLevel::default());
    for (name, compression) in [
        ("plain", Compression::UNCOMPRESSED),
        ("snappy", Compression::SNAPPY),
        ("zstd", zstd),
        ("gzip", Compression::GZIP(parquet::basic::GzipLevel::default())),
        ("lz4", Compression::LZ4_RAW),
    ] {
        write_parquet(&folder.path(name), compression, &rows);
        let said =
            folder.said(&format!("train --spec spec.toml --input {name} --output model --trees 5"));
        assert!(said.contains("kept       4,500"), "{name}: {said}");
        let (of_json, of_rows) = (scores(&folder, "rows.jsonl"), scores(&folder, name));
        assert_eq!(of_json.len(), 4500);
        assert!(of_json == of_rows, "{name}: other scores");
    }
    // By a pipe, which can't be read from its end.
    let file = std::fs::File::open(folder.path("zstd")).expect("it is there");
    let piped =
        folder.command("score --model model --input -").stdin(file).output().expect("it starts");
    assert_eq!(String::from_utf8_lossy(&piped.stdout).lines().count(), 4500);
    for threads in 1..4 {
        let line =
            "sketch --spec spec.toml --trees 5 --input plain zstd rows.jsonl --output sketch";
        folder.said(&format!("{line}{threads} --threads {threads}"));
    }
    let sketch = |at: u32| folder.bytes(&format!("sketch{at}"));
    assert!(sketch(1) == sketch(2) && sketch(2) == sketch(3));
}

#[test]
fn a_parquet_file_that_cannot_be_used_says_why_and_where() {
    let folder = folder();
    write_parquet(&folder.path("rows"), Compression::SNAPPY, &rows(2500));
    let whole = folder.bytes("rows");
    folder.write("cut", &whole[..whole.len() / 2]);
    folder.write("tiny", "PAR1");
    let mut damaged = whole.clone();
    let middle = whole.len() / 2;
    damaged[middle..middle + 4000].fill(0x55);
    folder.write("damaged", damaged);
    let fails = |input: &str, words: &[&str]| {
        let said = folder.fails(&format!("train --spec spec.toml --input {input} --output out"));
        for words in words {
            assert!(said.contains(words), "{input}: want {words}, got {said}");
        }
    };
    fails("cut", &["input cut: ", "footer"]);
    fails("tiny", &["input tiny: "]);
    fails("damaged", &["input damaged: row group "]);
    let spec = |from: &str, to: &str| folder.write("spec.toml", SPEC.replace(from, to));
    spec("/duration", "/request");
    fails("rows", &["input rows: column `request`, to which `/request` leads, is a group"]);
    folder.write("spec.toml", "format = \"json\"\n[[feature]]\nname = \"a\"\nfield = \"/a\"\n");
    fails("rows", &["no feature's pointer leads to a column", "`duration`, `request`, `at`"]);
    folder.write("spec.toml", "format = \"csv\"\n[[feature]]\nname = \"a\"\nfield = \"a\"\n");
    fails("rows", &["input rows: a Parquet file is read by a specification of JSON records"]);
    // Text where a number is wanted is a fault of each record, as it is in JSON.
    spec("/duration", "/request/path");
    fails("rows", &["field `/request/path` is not a number", "rows:2 (byte 1)"]);
}

/// No change of a byte makes it panic: it is read, or it is refused with its name.
#[test]
fn damaged_parquet_is_refused() {
    let folder = folder();
    write_parquet(&folder.path("rows"), Compression::UNCOMPRESSED, &rows(20));
    let whole = folder.bytes("rows");
    for at in (4..whole.len()).step_by(29) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x41;
        folder.write("damaged", damaged);
        let run = folder.run("sketch --spec spec.toml --input damaged --output sketch --trees 2");
        let said = String::from_utf8_lossy(&run.stderr);
        let is_named = run.status.code() == Some(1) && said.contains("input damaged");
        assert!(run.status.success() || is_named, "byte {at}: {said}");
        assert!(!said.contains("panicked"), "byte {at}: {said}");
    }
}

#[test]
fn bzip2_is_read_as_what_it_holds() {
    let folder = folder();
    let text = json(&rows(3000));
    folder.write("log", &text);
    let bzip2 = |text: &[u8]| {
        let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        encoder.write_all(text).expect("compressed");
        encoder.finish().expect("compressed")
    };
    // Two streams, as parallel compressors write them.
    let (first, second) = text.as_bytes().split_at(70_000);
    let whole = [bzip2(first), bzip2(second)].concat();
    let sketch = || {
        folder.ok("sketch --spec spec.toml --input log --output sketch --trees 2");
        folder.bytes("sketch")
    };
    let plain = sketch();
    folder.write("log", &whole);
    assert!(sketch() == plain, "another sketch");
    folder.write("cut", &whole[..whole.len() - 20]);
    let said = folder.fails("sketch --spec spec.toml --input cut --output out --trees 2");
    assert!(said.contains("input cut: at byte "), "{said}");
}

#[test]
fn a_period_is_chosen_by_names_and_by_the_records_own_times() {
    let folder = folder();
    let rows = rows(7200);
    // The hour of writing: records come ten minutes late.
    folder.write("logs/2026/11/21/10/a", json(&rows[..3000]));
    folder.write("logs/2026/11/21/11/a", json(&rows[3000..6600]));
    folder.write("logs/2026/11/21/12/a", json(&rows[6600..]));
    let sketch = |more: &str| {
        let said = folder.said(&format!(
            "sketch --spec spec.toml --input logs --output sketch --trees 2 {more}"
        ));
        let read = said.lines().find_map(|line| line.strip_prefix("read       "));
        read.and_then(|read| read.strip_suffix(" records")).expect("counted").replace(',', "")
    };
    let eleven = "--since 2026-11-21T11:00:00Z";
    assert_eq!(sketch(""), "7200");
    assert_eq!(sketch(eleven), "4200", "two files");
    assert_eq!(sketch(&format!("{eleven} --until 2026-11-21T12:00:00Z")), "3600", "one");
    assert_eq!(sketch("--until 2026-11-22 --since 2026-11-21"), "7200");
    let timed = format!("{eleven} --time-field /at");
    assert_eq!(sketch(&timed), "3600", "the records from eleven on");
    assert_eq!(sketch(&format!("{timed} --until 2026-11-21T12:30:00+01:00")), "1800");
    // The time is no feature: with all records it makes no difference.
    let whole = |more: &str| {
        sketch(more);
        folder.bytes("sketch")
    };
    assert!(whole("") == whole("--time-field /at"));
    let fails = |more: &str| {
        folder.fails(&format!("sketch --spec spec.toml --input logs --output out --trees 2 {more}"))
    };
    assert!(fails("--since 2026-11-22").contains("none of the 3 inputs is of the time"));
    folder.write("logs/b", "");
    let said = fails("--since 2026-11-21");
    assert!(said.contains("input logs/b: no folder of it is a date"), "{said}");
    assert_eq!(sketch(&timed), "3600", "with times of their own no date is needed");
    folder.write("logs/b", "{\"duration\":1,\"at\":\"2026-11-21 12:00:00\"}\n{\"duration\":1}\n");
    let said = folder
        .said(&format!("sketch --spec spec.toml --input logs --output sketch --trees 2 {timed}"));
    assert!(said.contains("logs/b:1 (byte 0): field `/at` is a time without a zone"), "{said}");
    assert!(said.contains("logs/b:2 (byte 42): field `/at` is missing"), "{said}");
}

#[test]
fn a_dry_run_shows_what_becomes_of_each_feature_and_writes_nothing() {
    let folder = folder();
    folder.write("logs/a", json(&rows(3000)) + "no json\n{}\n");
    folder.write("logs/b", json(&rows(500)));
    let said = folder.said("train --spec spec.toml --input logs --dry-run");
    for want in [
        "up to 5,000 records each of 2 of 2 inputs; nothing is written",
        "read       3,502 records",
        "rejected   2 (0.057 %)",
        "logs/a:3001 (byte ",
        "1 x not JSON",
        "1 x field `/duration` is missing",
        "format     json",
        "duration  missing in 0.0 %",
        "path  missing in 9.1 %",
        "coordinate         values",
        "########",
    ] {
        assert!(said.contains(want), "want {want} in:\n{said}");
    }
    let names: Vec<_> = std::fs::read_dir(folder.root()).expect("readable").collect();
    assert_eq!(names.len(), 2, "the specification and the logs: {names:?}");
    folder.write("constant", "{\"duration\":1}\n{\"duration\":1}\n");
    let said = folder.fails("train --spec spec.toml --input constant --dry-run");
    assert!(said.contains("every feature is constant"), "{said}");
}
