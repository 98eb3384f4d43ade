//! `sawlog tune` as a user runs it: what it tries, and what it recommends.
#![allow(clippy::expect_used)]

use std::fmt::Write as _;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

const SPEC: &str = r#"format = "csv"
[[feature]]
name = "a"
field = "a"
[[feature]]
name = "b"
field = "b"
"#;

/// A number between 0 and 1 that looks drawn by chance.
fn noise(seed: u64) -> f64 {
    let mixed = seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    (mixed >> 40) as f64 / (1_u64 << 24) as f64
}

/// Records of which one in forty is an anomaly: `b` is then away from all others, on a scale that is far below
/// that of `a`, so that a forest of raw values hardly sees it.
fn folder(spec: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let mut text = "a,b,fault\n".to_owned();
    for at in 0..2000_u64 {
        let fault = at % 40 == 7;
        let b = if fault { 3.0 + noise(at) } else { noise(at + 10_000) };
        writeln!(text, "{},{b},{}", 1e6 * noise(at + 20_000), u8::from(fault)).expect("a string");
    }
    std::fs::write(folder.path().join("log.csv"), text).expect("written");
    std::fs::write(folder.path().join("spec.toml"), spec).expect("written");
    folder
}

fn run(folder: &TempDir, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sawlog"));
    let command = command.current_dir(folder.path()).args(["tune", "--spec", "spec.toml"]);
    command.args(["--input", "log.csv"]).args(more).output().expect("it starts")
}

fn ok(folder: &TempDir, more: &[&str]) -> String {
    let output = run(folder, more);
    assert!(output.status.success(), "{more:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

fn json(folder: &TempDir, more: &[&str]) -> Value {
    serde_json::from_str(&ok(folder, &[more, &["--json"]].concat())).expect("json")
}

fn outcome<'r>(report: &'r Value, which: &str) -> &'r Value {
    let at = report[which].as_u64().expect("an index");
    &report["tried"][usize::try_from(at).expect("small")]
}

fn number(outcome: &Value, name: &str) -> f64 {
    outcome[name].as_f64().expect("a number")
}

#[test]
fn what_is_recommended_is_best_by_its_criterion_and_labels_show_what_hides_the_anomalies() {
    let folder = folder(SPEC);
    let few = ["--records", "600", "--seeds", "2"];
    for (more, criterion) in
        [(&[][..], "top_agreement"), (&["--label", "fault"][..], "average_precision")]
    {
        let report = json(&folder, &[&few[..], more].concat());
        assert_eq!(report["criterion"], criterion);
        assert_eq!((&report["read"], &report["records"]), (&2000.into(), &600.into()));
        let best = outcome(&report, "recommended");
        let tried = report["tried"].as_array().expect("a list");
        // Without labels it can't be told: a feature that drowns all others makes for stable tops, too.
        for raw in
            tried.iter().filter(|it| criterion != "top_agreement" && it["transform"] == "none")
        {
            assert!(number(raw, criterion) < number(best, criterion), "{raw} {best}");
        }
        assert_eq!(outcome(&report, "default")["transform"], "auto");
        let greatest = tried.iter().map(|it| number(it, criterion)).fold(0.0, f64::max);
        assert!(number(best, criterion) >= greatest - 0.0101, "{best}, {greatest}");
    }
}

#[test]
fn a_transform_that_is_specified_stays() {
    let folder = folder(
        &SPEC
            .replace("field = \"a\"", "field = \"a\"\ntransform = \"standard\"")
            .replace("field = \"b\"", "field = \"b\"\ntransform = \"none\""),
    );
    let report = json(&folder, &["--records", "400", "--seeds", "2"]);
    let tried = report["tried"].as_array().expect("a list");
    assert!(tried.iter().all(|it| it["transform"].is_null()), "{report}");
    let said = ok(&folder, &["--records", "400", "--seeds", "2"]);
    assert!(said.contains("train with --samples ") && said.contains("because "), "{said}");
    assert!(said.contains("recommended") && said.contains("the default"), "{said}");
    assert!(said.contains("transform = as specified"), "{said}");
}

#[test]
fn what_cannot_be_tuned_says_why() {
    let folder = folder(SPEC);
    let fails = |more: &[&str]| {
        let output = run(&folder, more);
        assert_eq!(output.status.code(), Some(1), "{more:?}");
        String::from_utf8(output.stderr).expect("text")
    };
    assert!(fails(&["--label", "a"]).contains("line 2: label `a` is not 0, 1, true or false"));
    std::fs::write(folder.path().join("log.csv"), "a,b\n1,2\n3,4\n").expect("written");
    assert!(fails(&[]).contains("2 records make a point, too few"));
}
