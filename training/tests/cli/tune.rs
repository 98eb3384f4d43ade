//! `sawlog tune` as a user runs it: what it tries, and what it recommends.

use std::fmt::Write as _;

use serde_json::Value;

use crate::folder::{Folder, noise};

const SPEC: &str = r#"format = "csv"
[[feature]]
name = "a"
field = "a"
[[feature]]
name = "b"
field = "b"
"#;

/// Records of which one in forty is an anomaly: `b` is then away from all others, on a scale that is far below
/// that of `a`, so that a forest of raw values hardly sees it.
fn folder(spec: &str) -> Folder {
    let folder = Folder::new();
    let mut text = "a,b,fault\n".to_owned();
    for at in 0..2000_u64 {
        let fault = at % 40 == 7;
        let b = if fault { 3.0 + noise(at) } else { noise(at + 10_000) };
        writeln!(text, "{},{b},{}", 1e6 * noise(at + 20_000), u8::from(fault)).expect("a string");
    }
    folder.write("log.csv", text);
    folder.write("spec.toml", spec);
    folder
}

/// The command with more arguments.
fn tune<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["tune", "--spec", "spec.toml", "--input", "log.csv"], more].concat()
}

fn json(folder: &Folder, more: &[&str]) -> Value {
    folder.json(&tune(&[more, &["--json"]].concat()))
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
    let said = folder.ok(&tune(&["--records", "400", "--seeds", "2"]));
    assert!(said.contains("train with --samples ") && said.contains("because "), "{said}");
    assert!(said.contains("recommended") && said.contains("the default"), "{said}");
    assert!(said.contains("transform = as specified"), "{said}");
}

#[test]
fn what_cannot_be_tuned_says_why() {
    let folder = folder(SPEC);
    let fails = |more: &[&str]| folder.fails(&tune(more));
    assert!(fails(&["--label", "a"]).contains("line 2: label `a` is not 0, 1, true or false"));
    folder.write("log.csv", "a,b\n1,2\n3,4\n");
    assert!(fails(&[]).contains("2 records make a point, too few"));
}
