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
    assert!(!said.contains("in the specification"), "nothing is left to choose there: {said}");
}

#[test]
fn what_cannot_be_tuned_says_why() {
    let folder = folder(SPEC);
    let fails = |more: &[&str]| folder.fails(&tune(more));
    assert!(fails(&["--label", "a"]).contains("line 2: label `a` is not 0, 1, true or false"));
    folder.write("log.csv", "a,b\n1,2\n3,4\n");
    assert!(fails(&[]).contains("2 records make a point, too few"));
}

/// Records of 50 days, a text line each; after `changes_at` of that time `b` is another.
fn timed(changes_at: f64) -> Folder {
    let folder = Folder::new();
    let records = 2000_u64;
    let mut text = "time,a,b,fault\n".to_owned();
    for at in 0..records {
        let is_new = at as f64 >= changes_at * records as f64;
        let b = noise(at) + if is_new { 20.0 } else { 0.0 };
        let time = 1_795_255_200 + at * 50 * 86_400 / records;
        let fault = u8::from(at % 40 == 7);
        writeln!(text, "{time},{},{b},{fault}", noise(at + 20_000)).expect("a string");
    }
    folder.write("log.csv", text);
    let standard = |field: &str| format!("{field}\ntransform = \"standard\"");
    let (a, b) = ("field = \"a\"", "field = \"b\"");
    folder.write("spec.toml", SPEC.replace(a, &standard(a)).replace(b, &standard(b)));
    folder
}

const TIMED: [&str; 6] = ["--records", "2000", "--seeds", "2", "--time-field", "time"];

#[test]
fn a_half_life_is_recommended_where_what_is_usual_has_changed() {
    // Four of the forty days that models are made of are as the newest ten.
    let folder = timed(0.72);
    let report = json(&folder, &TIMED)["half_lives"].take();
    assert_eq!(report["newest"], 400, "{report}");
    let none = &report["tried"][0];
    assert_eq!(none["half_life"], Value::Null, "{report}");
    assert_eq!(report["tried"][1]["half_life"], "39d", "of 40 days without the ends: {report}");
    let recommended = outcome(&report, "recommended");
    let excess = |of: &Value| number(of, "flagged") / number(of, "promised");
    assert!(excess(none) > 5.0 && excess(recommended) < excess(none) / 2.0, "{report}");
}

#[test]
fn a_half_life_is_part_of_what_to_train_with_and_is_judged_by_labels_if_there_are_any() {
    let folder = timed(0.76);
    let said = folder.ok(&tune(&[&TIMED[..], &["--label", "fault"]].concat()));
    let table = said.split("Half-lives by `time`").nth(1).expect("a second table");
    for column in ["promised to flag", "flagged of the newest", "average precision"] {
        assert!(table.contains(column), "{said}");
    }
    let chosen = table.lines().find(|line| line.ends_with("recommended")).expect("one");
    let half_life = chosen.split_whitespace().next().expect("a half-life");
    let option = format!(" --time-field time --half-life {half_life}\n");
    assert_eq!(said.contains(&option), half_life != "none", "{said}");
}

#[test]
fn half_lives_need_records_and_times() {
    let fails = |folder: &Folder, more: &[&str]| folder.fails(&tune(more));
    let few = fails(&timed(2.0), &["--records", "400", "--seeds", "2", "--time-field", "time"]);
    assert!(few.contains("the newest fifth of 400 records is too few"), "{few}");
    let folder = folder(SPEC);
    let none = fails(&folder, &["--records", "1200", "--seeds", "2", "--time-field", "fault"]);
    assert!(none.contains("--time-field fault: the records' times are within"), "{none}");
}
