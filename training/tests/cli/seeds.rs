//! `sawlog evaluate --seeds`: what forests agree on that differ in nothing but their seeds.

use serde_json::Value;

use crate::folder::{Folder, example};

/// A taxi model of so many trees, and what three seeds of it agree on.
fn stability(folder: &Folder, trees: &str) -> (Value, String) {
    let spec = example("nab/spec.toml").display().to_string();
    let log = example("nab/nyc_taxi.csv").display().to_string();
    let train = ["train", "--spec", &spec, "--input", &log, "--output", "model"];
    let more = ["--trees", trees, "--shingle", "4", "--threshold", "quantile:0.99"];
    folder.ok(&[&train[..], &more[..]].concat());
    let evaluate = ["evaluate", "--model", "model", "--input", &log, "--top", "0"];
    let evaluate = [&evaluate[..], &["--seeds", "3", "--train-input", &log]].concat();
    let json = folder.json(&[&evaluate[..], &["--json"]].concat());
    (json["stability"].clone(), folder.ok(&evaluate))
}

#[test]
fn more_trees_agree_more() {
    let folder = Folder::new();
    let (few, said) = stability(&folder, "5");
    let (many, _) = stability(&folder, "60");
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
    let folder = Folder::new();
    let log = example("nab/nyc_taxi.csv").display().to_string();
    let ask = ["evaluate", "--model", "model", "--input", &log, "--seeds", "3"];
    let said = String::from_utf8(folder.run(&ask).stderr).expect("text");
    assert!(said.contains("--train-input"), "{said}");
    let spec = example("nab/spec.toml").display().to_string();
    let train = ["train", "--spec", &spec, "--input", &log, "--output", "model", "--trees", "5"];
    folder.ok(&[&train[..], &["--compat", "sagemaker"]].concat());
    let said = folder.fails(&[&ask[..], &["--train-input", &log]].concat());
    assert!(said.contains("its own rules"), "{said}");
}
