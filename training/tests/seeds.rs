//! `sawlog evaluate --seeds`: what forests agree on that differ in nothing but their seeds.
#![allow(clippy::expect_used)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn example(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(path)
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sawlog"));
    command.current_dir(folder).args(arguments).output().expect("it starts")
}

fn sawlog(folder: &Path, arguments: &[&str]) -> String {
    let output = run(folder, arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?} failed: {said}");
    String::from_utf8(output.stdout).expect("text")
}

/// A taxi model of so many trees, and what three seeds of it agree on.
fn stability(folder: &Path, trees: &str) -> (Value, String) {
    let spec = example("nab/spec.toml").display().to_string();
    let log = example("nab/nyc_taxi.csv").display().to_string();
    let train = ["train", "--spec", &spec, "--input", &log, "--output", "model"];
    let more = ["--trees", trees, "--shingle", "4", "--threshold", "quantile:0.99"];
    sawlog(folder, &[&train[..], &more[..]].concat());
    let evaluate = ["evaluate", "--model", "model", "--input", &log, "--top", "0"];
    let evaluate = [&evaluate[..], &["--seeds", "3", "--train-input", &log]].concat();
    let json = sawlog(folder, &[&evaluate[..], &["--json"]].concat());
    let json: Value = serde_json::from_str(&json).expect("json");
    (json["stability"].clone(), sawlog(folder, &evaluate))
}

#[test]
fn more_trees_agree_more() {
    let folder = tempfile::tempdir().expect("a folder");
    let (few, said) = stability(folder.path(), "5");
    let (many, _) = stability(folder.path(), "60");
    let number = |of: &Value| of.as_f64().expect("a number");
    for found in [&few, &many] {
        assert_eq!(
            (&found["models"], found["flagged"].as_array().map(Vec::len)),
            (&3.into(), Some(3))
        );
        assert!(found["least_rank_correlation"].as_f64() <= found["rank_correlation"].as_f64());
        let sizes: Vec<u64> = found["tops"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|top| top["records"].as_u64().expect("a count"))
            .collect();
        assert_eq!(sizes, [10, 100, 1000]);
    }
    let ranks = [&few, &many].map(|found| number(&found["rank_correlation"]));
    let tops = [&few, &many].map(|found| number(&found["tops"][1]["shared"]));
    assert!(ranks[0] + 0.05 < ranks[1] && ranks[1] < 0.9999, "{ranks:?}");
    assert!(tops[0] < tops[1] && tops[1] < 1.0, "{tops:?}");
    assert!(said.contains("3 models that differ in nothing else"), "{said}");
    assert!(said.contains("of the 100 most unusual are the same"), "{said}");
}

#[test]
fn what_the_model_was_trained_on_is_needed_for_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let log = example("nab/nyc_taxi.csv").display().to_string();
    let ask = ["evaluate", "--model", "model", "--input", &log, "--seeds", "3"];
    let said = String::from_utf8(run(folder, &ask).stderr).expect("text");
    assert!(said.contains("--train-input"), "{said}");
    let spec = example("nab/spec.toml").display().to_string();
    let train = ["train", "--spec", &spec, "--input", &log, "--output", "model", "--trees", "5"];
    sawlog(folder, &[&train[..], &["--compat", "sagemaker"]].concat());
    let output = run(folder, &[&ask[..], &["--train-input", &log]].concat());
    let said = String::from_utf8(output.stderr).expect("text");
    assert!(!output.status.success() && said.contains("its own rules"), "{said}");
}
