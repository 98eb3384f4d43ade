//! `sawlog import` and `sawlog calibrate` as a user runs them, on forests that AWS's Java library
//! saved and with the scores that it gave.
use std::io::Read;
use std::path::Path;

use crate::folder::Folder;

/// What `sawlog score` may differ by: it scores in f32.
const TOLERANCE: f64 = 1e-5;

fn golden(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/golden/java");
    folder.join(name).to_str().expect("utf-8").to_owned()
}

/// Imports a state of the library as `model`: what is said of it.
fn import(folder: &Folder, state: &str) -> String {
    let state = golden(state);
    folder.ok(&["import", "--from", "aws-rcf-json", &state, "--output", "model"])
}

/// One column of a CSV with a header.
fn column(text: &str, name: &str) -> Vec<f64> {
    let mut lines = text.lines();
    let header = lines.next().expect("a header");
    let at = header.split(',').position(|column| column == name).expect("the column");
    let cell = |line: &str| line.split(',').nth(at).and_then(|cell| cell.parse().ok());
    lines.map(|line| cell(line).expect("a number")).collect()
}

#[test]
fn an_imported_forest_scores_a_table_as_the_library_does() {
    let folder = Folder::new();
    for name in ["aws_core_state_1_v2.0", "java_dup_d2", "java_shingle8_d8"] {
        import(&folder, &format!("{name}.json.gz"));
        let queries = golden(&format!("{name}.golden.csv.gz"));
        let scored =
            folder.ok(&["score", "--model", "model", "--input", &queries, "--format", "csv"]);
        let want = {
            let mut text = String::new();
            let file = std::fs::File::open(&queries).expect("committed");
            flate2::read::GzDecoder::new(file).read_to_string(&mut text).expect("gzip");
            column(&text, "score")
        };
        let got = column(&scored, "score");
        assert_eq!(got.len(), want.len());
        for (got, want) in got.iter().zip(&want) {
            assert!((got - want).abs() <= TOLERANCE, "{name}: {got} where the library says {want}");
        }
    }
}

#[test]
fn calibration_gives_an_imported_forest_its_threshold() {
    let folder = Folder::new();
    let said = import(&folder, "java_trained_forest_d3.json.gz");
    assert!(said.contains("100 trees of up to 256 records, 3 dimensions"), "{said}");
    assert!(said.contains("threshold  none"), "{said}");
    let before = folder.bytes("model");

    let queries = golden("java_trained_forest_d3.golden.csv.gz");
    std::fs::copy(&queries, folder.path("queries.csv.gz")).expect("copied");
    let calibrate =
        |more: &str| folder.ok(&format!("calibrate --model model --input queries.csv.gz {more}"));
    let said = calibrate("--threshold quantile:0.95 --output calibrated");
    assert!(said.contains("read       400 records"), "{said}");
    let words = "by quantile:0.95: above it are 19 of 400 calibration records";
    assert!(said.contains(words), "{said}");
    assert_eq!(folder.bytes("model"), before, "not in place");
    let scored =
        folder.ok(&["score", "--model", "calibrated", "--input", &queries, "--format", "csv"]);
    let anomalies: f64 = column(&scored, "anomaly").iter().sum();
    assert_eq!(anomalies, 19.0, "as many as calibration counted");

    // In place, by another rule; and again, which replaces it.
    calibrate("--threshold 3sd");
    let said = calibrate("--threshold value:1.5");
    assert!(said.contains("threshold  1.5000 by value:1.5"), "{said}");
    let said = folder.ok("inspect model");
    assert!(said.contains("threshold  1.5000 by value:1.5"), "{said}");

    let model = folder.bytes("model");
    folder.write("bad.csv", "x0,x1,x2\n1,2,3\n1,,3\nx,2,3\n");
    let said = folder.fails("calibrate --model model --input bad.csv");
    assert!(said.contains("2 of 3 records were rejected") && said.contains("bad.csv:3"), "{said}");
    folder.write("empty.csv", "x0,x1,x2\n");
    let said = folder.fails("calibrate --model model --input empty.csv");
    assert!(said.contains("no record"), "{said}");
    assert_eq!(folder.bytes("model"), model, "as it was");
}

#[test]
fn a_file_that_is_no_forest_leaves_no_model() {
    let folder = Folder::new();
    let import = |file: &str| {
        let said = folder.fails(&["import", "--from", "aws-rcf-json", file, "--output", "model"]);
        assert!(!folder.path("model").exists());
        said
    };
    assert!(import("nowhere.json").contains("input nowhere.json: there is no such file"));
    folder.write("cut.json", r#"{"version":"4.0","#);
    let said = import("cut.json");
    assert!(said.contains("input cut.json: no model is written: not json: EOF"), "{said}");
    folder.write("old.json", r#"{"version":"1.0"}"#);
    let said = import("old.json");
    assert!(said.contains("version: `1.0` is not supported; supported: 2.0, 2.1"), "{said}");
    let zipped = std::fs::read(golden("java_dup_d2.json.gz")).expect("committed");
    folder.write("cut.json.gz", &zipped[..1000]);
    let said = import("cut.json.gz");
    assert!(said.contains("input cut.json.gz: at byte"), "{said}");
}
