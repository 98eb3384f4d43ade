//! `sawlog evaluate` as a user runs it, its figures beside those that follow from `sawlog score`.

use serde_json::Value;

use crate::folder::{Folder, SPEC};

/// Requests of which every fiftieth takes long; two in three say whether they do.
fn requests(count: u32) -> String {
    let line = |i: u32| {
        let is_slow = i % 50 == 49;
        let duration = 100 + i * 7919 % 101 + if is_slow { 60 * (i % 7) } else { 0 };
        let label = match i % 3 {
            0 => String::new(),
            1 => format!(",\"slow\":{is_slow}"),
            _ => format!(",\"slow\":\"{}\"", u8::from(is_slow)),
        };
        format!("{{\"duration\":{duration},\"path\":\"/{}\"{label}}}\n", i % 4)
    };
    (0..count).map(line).collect()
}

fn trained() -> Folder {
    let folder = Folder::new();
    folder.write("spec.toml", SPEC);
    folder.write("log", requests(6000));
    let odd = "no json\n{\"duration\":9e6,\"path\":\"/new\"}\n";
    folder.write("later", requests(5000) + odd);
    folder.ok("train --spec spec.toml --input log --output model --threshold quantile:0.99");
    folder
}

fn evaluate(folder: &Folder, more: &[&str]) -> Value {
    let fixed = ["evaluate", "--model", "model", "--input", "later", "--json"];
    folder.json(&[&fixed[..], more].concat())
}

/// Score and line of each record that `sawlog score` scores.
fn scored(folder: &Folder) -> Vec<(f32, u64)> {
    let csv = folder.ok("score --model model --input later --format csv");
    let row = |line: &str| {
        let mut cells = line.split(',');
        let score = cells.next().and_then(|cell| cell.parse().ok()).expect("a score");
        (score, cells.next_back().and_then(|cell| cell.parse().ok()).expect("a line"))
    };
    csv.lines().skip(1).map(row).collect()
}

#[test]
fn figures_are_those_of_the_scores() {
    let folder = trained();
    let evaluation = evaluate(&folder, &["--top", "7"]);
    let scored = scored(&folder);
    assert_eq!(evaluation["scored"], 5001);
    assert_eq!((&evaluation["read"], &evaluation["rejected"]), (&5002.into(), &1.into()));
    assert_eq!(scored.len(), 5001);

    let mut sorted: Vec<(f32, u64)> = scored.clone();
    sorted.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let top = evaluation["top"].as_array().expect("a list");
    let got: Vec<_> = top.iter().map(|top| top["origin"]["line"].as_u64()).collect();
    let want: Vec<_> = sorted.iter().take(7).map(|(_, line)| Some(*line)).collect();
    assert_eq!(got, want, "the most unusual, of equal ones the earlier");
    assert_eq!(top[0]["origin"]["line"], 5002);
    let share = top[0]["attribution"]["duration"]["high"].as_f64().expect("a share");
    assert!(share > 0.5, "it is the duration: {}", top[0]);

    let thresholds = evaluation["thresholds"].as_array().expect("a list");
    // One threshold for one rule: no plain quantile stands beside the model's own of the same share.
    let rules: Vec<_> = thresholds.iter().filter_map(|row| row["rule"].as_str()).collect();
    let want =
        ["the model's (quantile:0.99)", "99.5 % at calibration", "99.9 % at calibration", "3sd"];
    assert_eq!(rules, want);
    let quantiles = evaluation["quantiles"].as_array().expect("a list");
    for (rule, share) in [(1, 0.995), (2, 0.999)] {
        let quantile = quantiles.iter().find(|row| row["share"] == share).expect("a quantile");
        assert_eq!(thresholds[rule]["threshold"], quantile["calibration"], "{share}");
    }
    for row in thresholds {
        let threshold = row["threshold"].as_f64().expect("a number");
        let want = scored.iter().filter(|(score, _)| f64::from(*score) > threshold).count();
        assert_eq!(row["flagged"], want, "{row}");
    }
    let median = &evaluation["quantiles"][7];
    assert_eq!(median["share"], 0.5);
    assert_eq!(median["score"].to_string().parse(), Ok(sorted[2500].0));
    assert!(evaluation["labels"].is_null());
    let duration = &evaluation["features"][0];
    assert_eq!((&duration["above"], &duration["max"]), (&1.into(), &9e6.into()), "{duration}");
    assert_eq!(evaluation["features"][1]["unseen"], 1);
}

#[test]
fn labels_do_not_touch_scores_and_count_only_where_they_are() {
    let folder = trained();
    let labelled = evaluate(&folder, &["--label", "/slow"]);
    let plain = evaluate(&folder, &[]);
    assert_eq!(labelled["quantiles"], plain["quantiles"]);
    // Of 5,000 records a third has no label, and so does the odd one.
    let labels = &labelled["labels"];
    let is_slow = |line: u64| (line - 1) % 50 == 49;
    let known: Vec<(f32, bool)> = scored(&folder)
        .into_iter()
        .filter(|(_, line)| *line <= 5000 && (line - 1) % 3 != 0)
        .map(|(score, line)| (score, is_slow(line)))
        .collect();
    let slow = known.iter().filter(|record| record.1).count();
    assert_eq!(labels["anomalies"], slow);
    assert_eq!(labels["normal"], known.len() - slow);
    assert_eq!(labels["unlabelled"], 5001 - known.len());
    let (mut won, mut pairs) = (0.0, 0.0);
    for anomaly in known.iter().filter(|record| record.1) {
        for normal in known.iter().filter(|record| !record.1) {
            pairs += 1.0;
            won += if anomaly.0 > normal.0 { 1.0 } else { 0.0 };
            won += if anomaly.0 == normal.0 { 0.5 } else { 0.0 };
        }
    }
    let auc: f64 = labels["roc_auc"].as_f64().expect("a number");
    assert!((auc - won / pairs).abs() < 1e-12, "got {auc}, want {}", won / pairs);
    let said = folder.ok("evaluate --model model --input later --label /slow");
    for want in ["ROC-AUC", "average precision", "greatest F1", "calibrated"] {
        assert!(said.contains(want), "want {want} in:\n{said}");
    }
}

#[test]
fn a_shingled_model_is_judged_by_the_newest_record_s_label() {
    let folder = Folder::new();
    let spec = "format = \"csv\"\n[[feature]]\nname = \"v\"\nfield = \"v\"\n[shingle]\nsize = 4\n";
    folder.write("spec.toml", spec);
    let row = |i: u32| format!("{},{}\n", i * 31 % 17, u8::from(i % 100 == 99));
    let rows: String = (0..3000).map(row).collect();
    folder.write("train", format!("v,other\n{rows}"));
    folder.write("later", format!("v,label\n{rows}"));
    folder.ok("train --spec spec.toml --input train --output model");
    // The training file had no such column; the header of the later one says where it stands.
    let evaluation = evaluate(&folder, &["--label", "label"]);
    assert_eq!((&evaluation["scored"], &evaluation["no_history"]), (&2997.into(), &3.into()));
    assert_eq!(evaluation["labels"]["anomalies"], 30);
    assert_eq!(evaluation["quantiles"], evaluate(&folder, &[])["quantiles"]);
}

#[test]
fn what_can_not_be_evaluated_is_said_with_its_place() {
    let folder = trained();
    let fixed = ["evaluate", "--model", "model", "--input"];
    let bad = "{\"duration\":1,\"slow\":0}\n{\"duration\":1,\"slow\":\"secret\"}\n";
    folder.write("bad", bad);
    let said = folder.fails(&[&fixed[..], &["bad", "--label", "/slow"]].concat());
    assert!(said.contains("input bad: line 2: label `/slow`"), "{said}");
    assert!(!said.contains("secret"), "{said}");
    folder.write("empty", "");
    let said = folder.fails(&[&fixed[..], &["empty", "--report", "page.html"]].concat());
    assert!(said.contains("no record"), "{said}");
    assert!(!folder.path("page.html").exists(), "nothing half-written");
    let said = folder.fails(&[&fixed[..], &["later", "--report", "later"]].concat());
    assert!(said.contains("output later is also an input"), "{said}");
    // One kind of label is no contradiction, and nothing to rank.
    folder.write("one", "{\"duration\":1,\"slow\":0}\n");
    let said = folder.ok(&[&fixed[..], &["one", "--label", "/slow"]].concat());
    for words in [
        "warning: --label /slow: labels of both kinds are needed",
        "0 records are labelled as anomalies, 1 as normal",
    ] {
        assert!(said.contains(words), "want {words}, got {said}");
    }
}

#[test]
fn a_label_that_is_not_there_is_named_as_it_was_written() {
    let folder = trained();
    folder.write("rows", "a,b\n".to_owned() + &"1,0\n2,1\n".repeat(1000));
    folder.write("plain.toml", "format = \"csv\"\n[[feature]]\nname = \"a\"\nfield = \"a\"\n");
    folder.ok("train --spec plain.toml --input rows --output csv");
    let no_column =
        "--label nope: input rows: line 1: there is no column named `nope`; there are `a`, `b`";
    for (model, spec, input, label, want) in [
        ("model", "spec.toml", "later", "slow", "--label slow: `slow` is not a JSON pointer"),
        ("csv", "plain.toml", "rows", "nope", no_column),
    ] {
        let more = format!("--input {input} --label {label}");
        let evaluate = folder.fails(&format!("evaluate --model {model} {more}"));
        let tune = folder.fails(&format!("tune --spec {spec} {more}"));
        for said in [evaluate, tune] {
            assert!(said.starts_with(&format!("sawlog: {want}")), "want {want}, got {said}");
            assert!(!said.contains("feature"), "nobody wrote a feature: {said}");
        }
    }
    // A pointer that leads nowhere may be a label that few records have.
    let said = folder.ok("evaluate --model model --input later --label /none");
    let words = "warning: --label /none: labels of both kinds are needed";
    assert!(said.contains(words) && said.contains(": 0 records are labelled"), "{said}");
    let said = folder.fails("tune --spec spec.toml --input later --label /none");
    assert!(said.contains("--label /none: labels of both kinds are needed"), "{said}");
}

#[test]
fn a_calibration_is_not_said_to_be_of_held_out_records() {
    let folder = trained();
    let said = folder.ok("calibrate --model model --input log --output again");
    assert!(said.contains(" of 6,000 calibration records"), "{said}");
    for said in [said, folder.ok("inspect again"), folder.ok("inspect model")] {
        assert!(!said.contains("held-out"), "{said}");
    }
}
