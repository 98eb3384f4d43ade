//! `sawlog compare` as a user runs it: captures in files, the report in a terminal, as JSON and as a page.

use std::fmt::Write as _;

use serde_json::Value;

use crate::folder::{Folder, noise};

/// Captures of `count` records: the endpoint's score follows the local one, but for an `error` of its
/// own, as a share of all.
fn captures(count: u64, error: f64) -> String {
    let mut text = String::new();
    for at in 0..count {
        // Mostly about 0.5, seldom up to 5.
        let usual = |seed| 0.5 - 0.4 * f64::ln(1.0 - noise(seed));
        let local = usual(at);
        let endpoint = (1.0 - error) * local + error * usual(at + 1_000_000);
        let (anomaly, told) = (local > 2.0, endpoint > 2.0);
        writeln!(
            text,
            r#"{{"id":"kafka/orders/3/{at}","timestamp_ms":{at},"local":{{"model":"05ad","score":{local:.6},"threshold":2.0,"anomaly":{anomaly},"ms":0.8,"rows":400}},"endpoint":{{"name":"rcf","score":{endpoint:.6},"threshold":2.0,"anomaly":{told},"ms":14.5,"rows":20}}}}"#
        )
        .expect("text");
    }
    text
}

#[test]
fn each_of_the_three_sentences_has_its_captures() {
    let folder = Folder::new();
    for (name, count, error, advice, agreement) in [
        ("alike", 3000, 0.02, "turn the endpoint off", "agree"),
        ("few", 150, 0.02, "keep watching", "too_few"),
        ("less", 9000, 0.47, "keep watching", "drifting"),
        ("strangers", 3000, 1.0, "retrain", "disagree"),
    ] {
        folder.write(name, captures(count, error));
        let report = folder.json(&format!("compare {name} --json"));
        assert_eq!(
            (&report["advice"], &report["agreement"]),
            (&advice.into(), &agreement.into()),
            "{name}: {}",
            report["reason"]
        );
        let text = folder.ok(&format!("compare {name}"));
        let last = text.lines().last().expect("a line");
        assert!(last.starts_with(&format!("{advice}: ")), "{name}: {last}");
    }
}

#[test]
fn every_record_counts_once_and_in_its_place() {
    let folder = Folder::new();
    let all = captures(400, 0.1);
    let (first, second) = all.split_at(all.len() / 2);
    let at = second.find('\n').expect("lines") + 1;
    folder.write("a.jsonl", format!("{first}{}", &second[..at]));
    folder.write("b.jsonl", &second[at..]);
    let failed = all.lines().next().expect("a line");
    let failed = failed.replace("orders/3/0", "orders/9/0");
    let score = failed.find(r#""rcf","#).expect("the endpoint") + 6;
    let ms = failed[score..].find(r#""ms""#).expect("its time") + score;
    let failed = format!("{}\"error\":\"it timed out\",{}", &failed[..score], &failed[ms..]);
    let other = all
        .lines()
        .nth(1)
        .expect("a line")
        .replace("05ad", "ffff")
        .replace(r#""timestamp_ms":1,"#, "");
    folder.write("c.jsonl", format!("{failed}\n\n{other}\n{all}"));
    let report = folder.json("compare *.jsonl --json");
    let told = [&report["pairs"], &report["failed"], &report["repeated"], &report["others"]];
    assert_eq!(told, [400, 1, 400, 1], "{report}");
    assert_eq!(report["failures"][0], serde_json::json!(["it timed out", 1]));
    let decisions = &report["decisions"];
    let sum: u64 = ["both", "only_local", "only_endpoint", "neither"]
        .map(|key| decisions[key].as_u64().expect("a count"))
        .iter()
        .sum();
    assert_eq!(sum, 400);
    let other = folder.fails("compare *.jsonl --model abc");
    assert!(other.contains("no pair is of model abc; there are 05ad, ffff"), "{other}");
    assert_eq!(folder.json("compare *.jsonl --model ff --json")["pairs"], 1);
}

#[test]
fn the_records_on_which_they_differ_most_come_first() {
    let folder = Folder::new();
    let mut all = captures(1000, 0.01);
    all.push_str(
        r#"{"id":"kafka/orders/3/odd","timestamp_ms":5,"local":{"model":"05ad","score":9.0,"threshold":2.0,"anomaly":true,"ms":0.8,"rows":400},"endpoint":{"name":"rcf","score":0.1,"threshold":2.0,"anomaly":false,"ms":14.5,"rows":20},"features":{"duration_ms":930250}}"#,
    );
    folder.write("pairs", &all);
    let report = folder.json("compare pairs --top 3 --json");
    let most = report["differ_most"].as_array().expect("a list");
    assert_eq!(most.len(), 3);
    assert_eq!(most[0]["id"], "kafka/orders/3/odd");
    assert_eq!(most[0]["times"], 1001.0);
    assert_eq!(most[0]["features"]["duration_ms"], 930_250);
    let text = folder.ok("compare pairs");
    assert!(text.contains("kafka/orders/3/odd") && text.contains("930250"), "{text}");
}

#[test]
fn the_page_is_one_file_without_a_way_to_the_network() {
    let folder = Folder::new();
    let all = captures(9000, 0.1).replacen("kafka/orders/3/7\"", "<script>alert(1)</script>\"", 1);
    folder.write("pairs", &all);
    folder.ok("compare pairs --report report.html --top 9000");
    let page = folder.text("report.html");
    for never in ["<script", "http://", "https://", "src=", "url(", "@import", "<link"] {
        assert!(!page.contains(never), "{never} is in the page");
    }
    assert!(page.contains("default-src 'none'") && page.contains("&lt;script&gt;"));
    assert!(page.contains("<h1>Turn the endpoint off</h1>"));
    let dots = page.matches("<circle").count();
    assert!((1000..=6100).contains(&dots), "{dots} dots");
    let said = folder.fails("compare pairs --report pairs");
    assert!(said.contains("is also an input"), "{said}");
}

#[test]
fn a_bad_line_is_named_with_its_file() {
    let folder = Folder::new();
    let good = captures(3, 0.1);
    for (bad, said) in [
        ("{\"id\":\"a\"}", "bad.jsonl: line 4: not a captured pair: missing field `local`"),
        ("no json", "bad.jsonl: line 4: not a captured pair: "),
        (&good.lines().next().expect("one")[..80], "bad.jsonl: line 4: not a captured pair: EOF"),
        ("{\"id\":17}", "bad.jsonl: line 4: not a captured pair: expected a"),
    ] {
        folder.write("bad.jsonl", format!("{good}{bad}\n{good}"));
        let told = folder.fails("compare bad.jsonl");
        assert!(told.contains(said), "expected {said:?}, got {told:?}");
    }
    folder.write("empty.jsonl", "\n\n");
    assert!(folder.fails("compare empty.jsonl").contains("there is no pair"));
    assert!(folder.fails("compare missing.jsonl").contains("there is no such file"));
}

#[test]
fn scores_without_thresholds_are_compared_by_their_ranks() {
    let folder = Folder::new();
    let all = captures(3000, 0.02);
    let all =
        all.replace(r#""threshold":2.0,"anomaly":true"#, r#""threshold":null,"anomaly":null"#);
    let all =
        all.replace(r#""threshold":2.0,"anomaly":false"#, r#""threshold":null,"anomaly":null"#);
    folder.write("pairs", &all);
    let report = folder.json("compare pairs --json");
    assert_eq!((&report["agreement"], &report["differing"]), (&"agree".into(), &Value::Null));
    let text = folder.ok("compare pairs");
    assert!(text.contains("not compared: one of both has no threshold"), "{text}");
}
