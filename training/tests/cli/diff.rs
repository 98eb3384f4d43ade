//! `sawlog diff` as a user runs it: what it says of two models on a sample.

use std::fmt::Write as _;

use serde_json::Value;

use crate::folder::{Folder, noise};

const SPEC: &str = r#"format = "json"
[[feature]]
name = "ms"
field = "/ms"
transform = "none"
missing = "reject"
[[feature]]
name = "path"
field = "/path"
encode = "one_hot"
"#;

/// The same without the path, with the time in seconds, and with the size of the answer.
const OTHER: &str = r#"format = "json"
[[feature]]
name = "ms"
field = "/seconds"
transform = "none"
[[feature]]
name = "bytes"
field = "/bytes"
"#;

/// Requests, a sample with two slow ones, and the models of `(name, specification, more arguments)`.
fn with_models(models: &[(&str, &str, &str)]) -> Folder {
    let folder = Folder::new();
    folder.write("log", log(0..6000, &[]));
    folder.write("sample", log(6000..9000, &[6100, 7200]));
    for (name, spec, more) in models {
        folder.write("spec.toml", spec);
        folder.ok(&format!("train --spec spec.toml --input log --output {name} {more}"));
    }
    folder
}

/// A request a number; those at `slow` take five times as long as any other.
fn log(numbers: std::ops::Range<u64>, slow: &[u64]) -> String {
    let mut text = String::new();
    for at in numbers {
        let ms = if slow.contains(&at) { 1000.0 } else { 100.0 + 100.0 * noise(at) };
        let (path, bytes) = (at % 3, (1e4 * noise(at + 1_000_000)).round());
        let seconds = ms / 1000.0;
        writeln!(
            text,
            r#"{{"ms":{ms:.3},"seconds":{seconds:.6},"path":"/{path}","bytes":{bytes}}}"#
        )
        .expect("a string");
    }
    text
}

fn counts(diff: &Value) -> [u64; 4] {
    let count = |name: &str| diff["verdicts"][name].as_u64().expect("a count");
    ["both", "only_old", "only_new", "neither"].map(count)
}

#[test]
fn a_model_and_itself_differ_in_nothing() {
    let folder = with_models(&[("a", SPEC, "")]);
    let diff = folder.json("diff a a --input sample --json");
    let [both, only_old, only_new, neither] = counts(&diff);
    assert_eq!((only_old, only_new, both + neither), (0, 0, 3000), "{diff}");
    assert!(both >= 2, "the slow ones are flagged by both: {diff}");
    assert_eq!((&diff["compared"], &diff["agreement"]), (&3000.into(), &"agree".into()));
    assert_eq!(diff["rank_correlation"][0], 1.0);
    for quantile in diff["quantiles"].as_array().expect("a list") {
        assert_eq!(quantile["old"], quantile["new"]);
    }
    for feature in diff["features"].as_array().expect("a list") {
        assert_eq!(feature["status"], "kept", "{feature}");
    }
    let said = folder.ok("diff a a --input sample");
    assert!(
        said.contains("compared   3,000 records") && said.contains("they agree as two"),
        "{said}"
    );
    assert!(!said.contains("most unusual of"), "no record's verdict changes: {said}");
}

#[test]
fn another_threshold_flips_the_records_between_the_two() {
    let folder = with_models(&[
        ("strict", SPEC, "--threshold quantile:0.9"),
        ("lenient", SPEC, "--threshold quantile:0.999"),
    ]);
    let diff = folder.json("diff strict lenient --input sample --top 5 --json");
    let [both, only_old, only_new, neither] = counts(&diff);
    assert!(both >= 2 && only_old > 100 && only_new == 0 && neither > 2000, "{diff}");
    assert_eq!(diff["rank_correlation"][0], 1.0);
    assert_eq!(diff["newly_flagged"], Value::Array(Vec::new()));
    let flips = diff["no_longer_flagged"].as_array().expect("a list");
    assert_eq!(flips.len(), 5);
    let mut last = f64::INFINITY;
    for flip in flips {
        let number = |name: &str| flip[name].as_f64().expect("a number");
        assert_eq!(number("score"), number("other_score"), "one forest, one score");
        assert!(number("threshold") < number("score"), "{flip}");
        assert!(number("score") <= number("other_threshold"), "{flip}");
        assert!(number("score") <= last, "the most unusual first");
        last = number("score");
        assert_eq!(flip["origin"]["path"], "sample");
        assert!(flip["attribution"]["ms"]["share"].is_number(), "{flip}");
    }
    // The other way round the same records begin to be flagged.
    let back = folder.json("diff lenient strict --input sample --top 5 --json");
    assert_eq!(counts(&back), [both, 0, only_old, neither]);
    assert_eq!(back["newly_flagged"], diff["no_longer_flagged"]);
    let said = folder.ok("diff strict lenient --input sample --top 5");
    assert!(
        said.contains(&format!("is flagged and would not be: the 5 most unusual of {only_old}"))
    );
    assert!(said.contains("sample:") && said.contains("ms high"), "{said}");
}

#[test]
fn features_that_come_go_and_change_are_named() {
    let folder = with_models(&[("old", SPEC, ""), ("new", OTHER, "--seed 1")]);
    // A record that only one of the two can read is not compared.
    let sample =
        format!("{}{}\n", log(6000..7000, &[]), r#"{"path":"/1","seconds":0.1,"bytes":7}"#);
    folder.write("sample", &sample);
    let diff = folder.json("diff old new --input sample --json");
    assert_eq!((&diff["compared"], &diff["new"]["scored"]), (&1000.into(), &1001.into()));
    assert_eq!(diff["old"]["rejected"], 1);
    let features = diff["features"].as_array().expect("a list");
    let found: Vec<(&str, &str)> = features
        .iter()
        .map(|it| (it["name"].as_str().expect("text"), it["status"].as_str().expect("text")))
        .collect();
    assert_eq!(found, [("ms", "changed"), ("bytes", "added"), ("path", "removed")]);
    assert!(features[0]["old"]["number"]["median"].as_f64() > Some(100.0));
    assert!(features[0]["new"]["number"]["median"].as_f64() < Some(1.0));
    let said = folder.ok("diff old new --input sample");
    for part in ["changed", "added", "removed", "old: 1 can't be read by it", "/seconds"] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn categories_that_are_new_are_named() {
    let folder = with_models(&[("old", SPEC, "")]);
    folder.write("log", log(0..6000, &[]).replace("\"/2\"", "\"/new\""));
    folder.write("spec.toml", SPEC);
    folder.ok("train --spec spec.toml --input log --output new");
    let diff = folder.json("diff old new --input sample --json");
    let path = &diff["features"][1];
    let got = (&path["status"], &path["categories_added"][0], &path["categories_removed"][0]);
    assert_eq!(got, (&"kept".into(), &"/new".into(), &"/2".into()));
    let said = folder.ok("diff old new --input sample");
    assert!(said.contains("path: knows the new categories /new"), "{said}");
}

#[test]
fn what_cannot_be_compared_says_why() {
    let folder = with_models(&[("a", SPEC, "--trees 10")]);
    assert!(folder.fails("diff a a --input -").contains("read more than once"));
    assert!(folder.fails("diff a none --input sample").contains("model none"));
    folder.write("bad", "no json\n");
    assert!(folder.fails("diff a a --input bad").contains("no record could be scored"));
}
