//! Training, scoring and replaying, from the specification to the verdicts; what is damaged or missing is named.

use std::path::Path;
use std::process::Stdio;

use serde_json::Value;

use crate::folder::{Folder, example};

const SPEC: &str = r#"format = "json"
[[feature]]
name = "duration"
field = "/duration"
missing = "reject"
[[feature]]
name = "size"
field = "/size"
"#;

/// A folder with the specification of requests.
fn folder() -> Folder {
    let folder = Folder::new();
    folder.write("spec.toml", SPEC);
    folder
}

/// The arguments that train on an input.
fn train(input: &str) -> Vec<&str> {
    vec!["train", "--spec", "spec.toml", "--input", input, "--output", "model"]
}

fn requests(count: u32) -> String {
    let line =
        |i: u32| format!("{{\"duration\":{},\"size\":{}}}\n", 100 + i * 7919 % 101, i * 31 % 17);
    (0..count).map(line).collect()
}

fn folder_is_clean(path: &Path) {
    let names: Vec<String> = std::fs::read_dir(path)
        .expect("readable")
        .map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned())
        .collect();
    assert!(!names.iter().any(|name| name.starts_with(".tmp")), "left behind: {names:?}");
}

#[test]
fn the_same_input_parameters_and_seed_give_the_same_bytes() {
    let folder = folder();
    folder.write("log", requests(3000));
    let train = |output: &str, seed: &str| {
        let seed = ["--seed", seed];
        let fixed = ["train", "--spec", "spec.toml", "--input", "log", "--output", output];
        folder.ok(&[&fixed[..], &seed[..]].concat());
        folder.bytes(output)
    };
    let first = train("a", "7");
    assert_eq!(first, train("b", "7"), "the same seed");
    assert_ne!(first, train("c", "8"), "another seed");
}

#[test]
fn train_says_what_it_did_and_inspect_shows_it() {
    let folder = folder();
    folder.write("log", requests(3000) + "no json\n{\"size\":1}\n");
    let said = folder.ok("train --spec spec.toml --input log --output model");
    for want in [
        "read       3,002 records",
        "rejected   2 (0.067 %)",
        "log:3001 (byte ",
        "not JSON",
        "field `/duration` is missing",
        "kept       3,000",
        "threshold",
        "quantile:0.999",
        "wrote      model",
    ] {
        assert!(said.contains(want), "want {want} in:\n{said}");
    }
    let shown = folder.ok("inspect model");
    assert!(shown.contains("/duration") && shown.contains("seed 42"), "{shown}");
    let json = folder.json("inspect --json model");
    assert_eq!(json["params"]["trees"], 100);
    let sampled_from = json["provenance"]["sampled_from"].as_u64().expect("a count");
    assert_eq!(json["params"]["samples"], sampled_from / 16, "a sixteenth of them");
    assert_eq!(json["provenance"]["rejected"], 2);
    assert_eq!(json["provenance"]["inputs"], serde_json::json!(["log"]));
}

#[test]
fn every_record_is_scored_or_rejected_with_its_place() {
    let folder = folder();
    folder.write("log", requests(2000));
    folder.ok("train --spec spec.toml --input log --output model");
    let odd = "{\"duration\":90000,\"size\":3}\nno json\n{\"duration\":150,\"size\":3}\n";
    folder.write("later", odd);
    let score = ["score", "--model", "model", "--input", "later", "--rejects", "rejects"];
    let lines = folder.ok(&score);
    let verdicts: Vec<Value> =
        lines.lines().map(|line| serde_json::from_str(line).expect("json")).collect();
    assert_eq!(verdicts.len(), 2);
    assert_eq!(
        verdicts[0]["origin"],
        serde_json::json!({"source":"file","path":"later","line":1,"offset":0})
    );
    assert_eq!(verdicts[0]["anomaly"], true);
    assert_eq!(verdicts[0]["features"], serde_json::json!({"duration":90000,"size":3}));
    let share = verdicts[0]["attribution"]["duration"]["high"].as_f64().expect("a share");
    assert!(share > 0.5, "it is the duration: {}", verdicts[0]);
    assert_eq!(verdicts[1]["anomaly"], false);
    let rejects = folder.text("rejects");
    let reject: Value = serde_json::from_str(rejects.trim()).expect("one line of json");
    assert_eq!(reject["origin"]["line"], 2);
    assert_eq!(reject["payload_base64"], "bm8ganNvbg==");

    let csv = folder.ok("score --model model --input later --format csv");
    let rows: Vec<&str> = csv.lines().collect();
    assert_eq!(rows[0], "score,anomaly,source,line");
    assert_eq!(rows[1], format!("{},1,\"later\",1", verdicts[0]["score"]));
    assert_eq!(rows.len(), 3);
}

#[test]
fn csv_columns_may_stand_in_another_order_than_in_training() {
    let folder = folder();
    folder.write("spec.toml", "format = \"csv\"\n[[feature]]\nname = \"a\"\nfield = \"a\"\n");
    let rows: String = (0..1000).map(|i| format!("{},x,{}\n", i, i * 7 % 50)).collect();
    folder.write("one.csv", format!("id,note,a\n{rows}"));
    folder.ok("train --spec spec.toml --input one.csv --output model");
    let scores = |file: &str| {
        let csv = folder.ok(&["score", "--model", "model", "--input", file, "--format", "csv"]);
        csv.lines()
            .skip(1)
            .map(|row| row.split(',').next().unwrap_or_default().to_owned())
            .collect::<Vec<_>>()
    };
    folder.write("same.csv", "id,note,a\n1,x,7\n2,x,900\n");
    folder.write("other.csv", "a\n7\n900\n");
    folder.write("none.csv", "1,x,7\n2,x,900\n");
    let want = scores("same.csv");
    assert_eq!(want.len(), 2);
    assert_eq!(scores("other.csv"), want);
    assert_eq!(scores("none.csv"), want, "without a header: the columns of training");
}

#[test]
fn nothing_to_learn_from_is_an_error_and_leaves_the_old_model_whole() {
    let folder = folder();
    folder.write("model", "the old model");
    let same = "{\"duration\":5,\"size\":5}\n".repeat(500);
    let cases = [
        (String::new(), "no record"),
        ("\n\n".to_owned(), "no record"),
        ("{\"duration\":5}\n".to_owned(), "too few"),
        (same, "every feature is constant in the training sample: duration, size"),
        ("x\n".repeat(10) + &requests(90), "10 of 100 records were rejected"),
        ("{\"duration\":\"abc\"}\n".repeat(100), "100 x field `/duration` is not a number"),
    ];
    for (text, want) in cases {
        folder.write("log", text);
        let said = folder.fails(&train("log"));
        assert!(said.contains(want), "want {want}, got {said}");
        let model = folder.text("model");
        assert_eq!(model, "the old model", "after: {want}");
        folder_is_clean(folder.root());
    }
}

#[test]
fn inputs_that_are_not_there_or_are_damaged_are_named() {
    let folder = folder();
    folder.write("log", requests(100));
    folder.write("cut.gz", [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 1, 2]);
    std::fs::create_dir(folder.path("empty")).expect("created");
    for (input, want) in [
        ("missing.log", "input missing.log: there is no such file"),
        ("missing*.log", "input missing*.log: it has no files"),
        ("empty", "input empty: it has no files"),
        ("cut.gz", "input cut.gz: at byte 0"),
    ] {
        let said = folder.fails(&train(input));
        assert!(said.contains(want), "want {want}, got {said}");
    }
    let said = folder.fails("train --spec none.toml --input log --output model");
    assert!(said.contains("specification none.toml"), "{said}");
    let said = folder.fails("train --spec spec.toml --input log --output none/model");
    assert!(said.contains("output none/model"), "{said}");
    let said = folder.fails("train --spec spec.toml --input log --output model --trees 0");
    assert!(said.contains("trees is 0; 1 to"), "{said}");
    folder.write("text", "no model\n");
    folder.write("nothing", "");
    for (model, want) in [("text", "is text"), ("nothing", "it is empty"), ("cut.gz", "is gzip")] {
        let said = folder.fails(&["inspect", model]);
        assert!(said.starts_with(&format!("sawlog: model {model}: not a sawlog model")), "{said}");
        assert!(said.contains(want), "want {want}, got {said}");
    }
    folder.write("spec.toml", SPEC.replace("json", "csv").replace('/', ""));
    folder.write("semicolons.csv", "duration;size\n1;2\n");
    let said = folder.fails(&train("semicolons.csv"));
    assert!(said.contains("delimiter = \";\""), "{said}");
    folder.write("tabs.csv", "duration\tsize\n1\t2\n");
    let said = folder.fails(&train("tabs.csv"));
    assert!(said.contains("delimiter = \"\\t\""), "{said}");
    folder.write("spec.toml", SPEC.replace("missing =", "mising ="));
    let said = folder.fails(&train("log"));
    assert_eq!(said.matches("specification").count(), 1, "said once: {said}");
    assert!(
        said.contains("spec.toml") && said.contains("line 5") && said.contains("mising"),
        "{said}"
    );
}

#[test]
fn a_damaged_model_is_named_with_section_and_offset() {
    let folder = folder();
    folder.write("log", requests(500));
    folder.ok("train --spec spec.toml --input log --output model");
    let mut bytes = folder.bytes("model");
    bytes[500] ^= 1;
    folder.write("flipped", &bytes);
    folder.write("cut", &bytes[..1000]);
    let said = folder.fails("inspect flipped");
    assert!(said.contains("model flipped: checksum at offset"), "{said}");
    let said = folder.fails("score --model cut --input log");
    assert!(said.contains("model cut: snapshot length at offset 16"), "{said}");
}

#[test]
fn standard_input_and_compressed_files_train_alike() {
    let folder = folder();
    folder.write("log", requests(1000));
    folder.write("log.zst", zstd::encode_all(requests(1000).as_bytes(), 3).expect("encoded"));
    folder.write("logs/a.zst", zstd::encode_all(requests(1000).as_bytes(), 3).expect("encoded"));
    for input in ["log", "log.zst", "logs", "lo?.zst"] {
        let said = folder.ok(&train(input));
        assert!(said.contains("kept       1,000"), "{input}: {said}");
    }
    let mut child = folder
        .command(&train("-"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut stdin = child.stdin.take().expect("piped");
    std::io::Write::write_all(&mut stdin, requests(1000).as_bytes()).expect("written");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    let said = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success() && said.contains("kept       1,000"), "{said}");
}

#[test]
fn a_replay_accounts_for_every_record_and_again_changes_nothing() {
    let folder = folder();
    folder.write("log", requests(2000));
    folder.ok("train --spec spec.toml --input log --output model");
    folder.write("later", requests(700) + "no json\n" + &requests(300));
    let replay =
        ["replay", "--model", "model", "--input", "later", "--output", "out", "--batch", "128"];
    let said = folder.ok(&replay);
    assert!(said.contains("replayed   1,001 records in 8 batches"), "{said}");
    assert!(said.contains("1,000 stored, 1 dead-lettered, 0 failed"), "{said}");
    let results = folder.bytes("out/results.jsonl");
    assert_eq!(results.iter().filter(|&&byte| byte == b'\n').count(), 1000);
    folder.ok(&replay);
    assert_eq!(folder.bytes("out/results.jsonl"), results);
}

#[test]
fn a_replay_of_other_logs_into_the_same_folder_keeps_both() {
    let folder = folder();
    folder.write("log", requests(2000));
    folder.ok("train --spec spec.toml --input log --output model");
    folder.write("far", "{\"duration\":90000,\"size\":3}\n".to_owned() + &requests(99));
    folder.write("near", requests(100));
    let replay =
        |input| folder.ok(&["replay", "--model", "model", "--input", input, "--output", "out"]);
    let said = replay("far");
    assert!(said.contains("90,000"), "the far one is shown: {said}");
    let said = replay("near");
    assert!(!said.contains("90,000"), "the far one is not of this replay: {said}");
    let results = folder.text("out/results.jsonl");
    assert_eq!(results.lines().count(), 200);
}

#[test]
fn no_output_replaces_what_is_read_or_another_output() {
    let folder = folder();
    folder.write("log", requests(1000));
    folder.ok("train --spec spec.toml --input log --output model");
    let train = ["train", "--spec", "spec.toml", "--input", "log", "--output"];
    let score = ["score", "--model", "model", "--input", "log", "--output"];
    for (command, more, want) in [
        (train, &["log"][..], "output log is also an input"),
        (train, &["spec.toml"][..], "output spec.toml is also an input"),
        (score, &["./log"][..], "output ./log is also an input"),
        (score, &["model"][..], "output model is also an input"),
        (score, &["same", "--rejects", "same"][..], "same is named for two outputs"),
    ] {
        let said = folder.fails(&[&command[..], more].concat());
        assert!(said.contains(want), "want {want}, got {said}");
    }
    assert_eq!(folder.text("log"), requests(1000));
}

#[test]
fn scoring_nothing_but_rejects_fails() {
    let folder = folder();
    folder.write("log", requests(1000));
    folder.ok("train --spec spec.toml --input log --output model");
    folder.write("other", "a,b\n1,2\n");
    let said = folder.fails("score --model model --input other --output scores");
    assert!(said.contains("not JSON") && said.contains("no record could be scored"), "{said}");
}

#[test]
fn the_same_files_in_another_order_give_the_same_bytes() {
    let folder = folder();
    folder.write("a", requests(1500));
    folder.write("b", requests(700));
    let train = |inputs: &[&str]| {
        let fixed = ["train", "--spec", "spec.toml", "--output", "model", "--input"];
        folder.ok(&[&fixed[..], inputs].concat());
        folder.bytes("model")
    };
    let want = train(&["a", "b"]);
    assert_eq!(train(&["b", "a"]), want);
    assert_eq!(train(&["b", "a", "b"]), want, "a file named twice is read once");
}

#[test]
fn every_example_specification_is_valid() {
    let mut count = 0;
    for folder in std::fs::read_dir(example("")).expect("readable") {
        for file in std::fs::read_dir(folder.expect("readable").path()).expect("a folder") {
            let path = file.expect("readable").path();
            if path.extension().is_some_and(|extension| extension == "toml") {
                let text = std::fs::read_to_string(&path).expect("text");
                let spec = sawlog_model::ValidSpec::from_toml(&text);
                assert!(spec.is_ok(), "{}: {spec:?}", path.display());
                count += 1;
            }
        }
    }
    assert!(count >= 4, "{count} specifications");
}

#[test]
fn the_demo_ends_with_a_table_of_anomalies_from_real_logs() {
    let folder = folder();
    let said = folder.ok("demo");
    for want in [
        "sawlog train",
        "sawlog replay",
        "18,750 stored, 0 dead-lettered, 0 failed",
        "most unusual",
        "Next:",
    ] {
        assert!(said.contains(want), "want {want} in:\n{said}");
    }
    let results = folder.text("sawlog-demo/results.jsonl");
    let flagged = results.lines().filter(|line| line.contains("\"anomaly\":true")).count();
    assert!(flagged > 0 && said.contains(&format!("of {flagged} flagged")), "{flagged}: {said}");
}

#[test]
fn compat_sagemaker_takes_chunks_of_few_rows_and_a_sample_of_many() {
    let folder = folder();
    let sagemaker = ["--compat", "sagemaker", "--trees", "10", "--samples", "50"];
    let trained = |rows: u32| {
        folder.write("log", requests(rows));
        let said = folder.ok(&[train("log"), sagemaker.to_vec()].concat());
        (said, folder.json("inspect --json model"))
    };
    // 500 rows are trees x samples, the most that are cut into chunks; 497 leave 7 over.
    for (rows, sampling, samples) in
        [(500, "contiguous", 50), (497, "contiguous", 49), (501, "keyed", 50)]
    {
        let (said, json) = trained(rows);
        assert_eq!(json["params"]["sampling"], sampling, "{rows} rows");
        assert_eq!(json["params"]["samples"], samples, "{rows} rows");
        assert_eq!(json["params"]["leaf_rule"], "sagemaker");
        assert_eq!(json["calibration"]["records"], rows, "no row is held out");
        assert_eq!(json["calibration"]["rule"], serde_json::json!({"deviations": 3.0}));
        assert!(said.contains("`duration` has transform"), "a warning: {said}");
    }
    folder.write("log", requests(19));
    let said = folder
        .fails("train --spec spec.toml --input log --output few --compat sagemaker --trees 10");
    assert!(said.contains("at least 20 records"), "{said}");
    assert!(!folder.path("few").exists());
}

/// A saw of eight values for each host, line by line in turn; at some lines another value of the same.
fn saws(hosts: &[&str], lines: std::ops::Range<u32>, odd: &[(u32, u32)]) -> String {
    let mut text = String::new();
    for at in lines {
        let value = odd.iter().find(|(line, _)| *line == at).map_or(at % 8, |(_, value)| *value);
        for host in hosts {
            text += &format!("{{\"host\":\"{host}\",\"load\":{value}}}\n");
        }
    }
    text
}

const SAW_SPEC: &str = r#"format = "json"
[[feature]]
name = "load"
field = "/load"
missing = "reject"
"#;

const TRAIN_SAWS: [&str; 11] = [
    "train",
    "--spec",
    "saw.toml",
    "--input",
    "log",
    "--output",
    "model",
    "--shingle",
    "4",
    "--shingle-key",
    "/host",
];

fn saws_folder() -> Folder {
    let folder = folder();
    folder.write("saw.toml", SAW_SPEC);
    folder.write("log", saws(&["a", "b"], 0..1000, &[]));
    folder
}

fn scores(lines: &str) -> Vec<Option<f64>> {
    let score = |line: &str| {
        let line: Value = serde_json::from_str(line).expect("json");
        assert_eq!(line["score"].is_null(), line["no_history"] == true, "{line}");
        line["score"].as_f64()
    };
    lines.lines().map(score).collect()
}

#[test]
fn with_a_shingle_a_usual_value_out_of_its_order_is_unusual() {
    let folder = saws_folder();
    let said = folder.ok(&TRAIN_SAWS);
    for want in [
        "read       2,000 records",
        "beginning  6 records began a series",
        "kept       1,994",
        "a point is 4 consecutive records of the same `/host`",
        "4 dimensions",
    ] {
        assert!(said.contains(want), "want {want} in:\n{said}");
    }
    let json = folder.json("inspect --json model");
    assert_eq!(json["spec"]["shingle"], serde_json::json!({"size": 4, "key": "/host"}));
    let from = &json["provenance"];
    let count = |name: &str| from[name].as_u64().expect("a count");
    assert_eq!(count("sampled_from") + count("held_out"), 1994);

    // The values are those of training: 3 where 7 belongs.
    folder.write("later", saws(&["b", "a"], 0..40, &[(23, 3)]));
    let lines = folder.ok("score --model model --input later");
    let got = scores(&lines);
    assert_eq!(got.len(), 80);
    assert!(got[..6].iter().all(Option::is_none) && got[6..].iter().all(Option::is_some));
    let odd = got[46].expect("scored");
    let usual = got[6..46].iter().flatten().fold(0.0_f64, |a, &b| a.max(b));
    assert!(odd > usual, "{odd} after at most {usual}");
    let verdict: Value = serde_json::from_str(lines.lines().nth(46).expect("there")).expect("json");
    assert_eq!(verdict["features"], serde_json::json!({"load": 3}), "its own record's");
    let first: Value = serde_json::from_str(lines.lines().next().expect("there")).expect("json");
    assert_eq!(
        first,
        serde_json::json!({"id":"file/later/1","score":null,"no_history":true,
            "origin":{"source":"file","path":"later","line":1,"offset":0}})
    );
    let csv = folder.ok("score --model model --input later --format csv");
    assert_eq!(csv.lines().nth(6), Some(",,\"later\",6"));
    assert_eq!(csv.lines().count(), 81);
}

#[test]
fn the_shingle_may_stand_in_the_specification_and_an_option_goes_before_it() {
    let folder = saws_folder();
    folder.ok(&TRAIN_SAWS);
    let by_options = folder.bytes("model");
    let train = |more: &[&str]| {
        folder.ok(&[&TRAIN_SAWS[..7], more].concat());
        folder.bytes("model")
    };
    let plain = train(&[]);
    folder.write("saw.toml", SAW_SPEC.to_owned() + "[shingle]\nsize = 4\nkey = \"/host\"\n");
    assert_eq!(train(&[]), by_options);
    assert_eq!(train(&["--shingle", "1"]), plain, "1: none");
    folder.write("saw.toml", SAW_SPEC.to_owned() + "[shingle]\nsize = 9\nkey = \"/host\"\n");
    assert_eq!(train(&["--shingle", "4"]), by_options, "the specification's key");
    folder.write("saw.toml", SAW_SPEC.to_owned() + "[shingle]\nsize = 4\n");
    assert_eq!(train(&["--shingle-key", "/host"]), by_options, "the specification's size");
}

#[test]
fn no_history_reaches_from_one_file_into_the_next() {
    let folder = saws_folder();
    folder.ok(&TRAIN_SAWS);
    folder.write("one", saws(&["a", "b"], 0..20, &[(9, 1)]));
    folder.write("two", saws(&["b", "c"], 20..40, &[]));
    let score = |inputs: &[&str]| {
        let fixed = ["score", "--model", "model", "--input"];
        scores(&folder.ok(&[&fixed[..], inputs].concat()))
    };
    let apart = [score(&["one"]), score(&["two"])].concat();
    assert_eq!(score(&["one", "two"]), apart);
    assert_eq!(apart.iter().filter(|score| score.is_none()).count(), 2 * 6);

    // A record that can't be read is a gap in its own series, if that is known.
    let gap = |line: &str| {
        let (before, after) = (saws(&["a", "b"], 0..8, &[]), saws(&["a", "b"], 8..16, &[]));
        folder.write("gap", before + line + &after);
        score(&["gap"]).iter().filter(|score| score.is_none()).count()
    };
    assert_eq!(gap("{\"host\":\"a\",\"load\":\"x\"}\n"), 6 + 3);
    assert_eq!(gap("no json\n"), 6);
}

#[test]
fn a_replay_gives_a_record_its_score_or_none_at_any_batch() {
    let folder = saws_folder();
    folder.ok(&TRAIN_SAWS);
    folder.write("one", saws(&["a", "b"], 0..100, &[(50, 6)]));
    folder.write("two", saws(&["b"], 0..40, &[]));
    let want = scores(&folder.ok("score --model model --input one two"));
    for (batch, no_history) in [("1000", 6 + 3), ("48", 4 * 6 + 2 * 3 + 3)] {
        let replay = ["replay", "--model", "model", "--input", "one", "two", "--batch", batch];
        let said = folder.ok(&[&replay[..], &["--output", batch]].concat());
        let stored = want.len() - no_history;
        assert!(said.contains(&format!("outcomes   {stored} stored, 0 dead-lettered")), "{said}");
        assert!(said.contains(&format!("{no_history} with too few of their series")), "{said}");
        let results = folder.text(&format!("{batch}/results.jsonl"));
        assert_eq!(results.lines().count(), stored);
        for line in results.lines() {
            let line: Value = serde_json::from_str(line).expect("json");
            let place = |name: &str| line["origin"][name].as_u64().expect("a number") as usize;
            let at = 200 * place("partition") + place("offset");
            assert_eq!(line["score"].as_f64(), want[at], "{line}");
        }
    }
}

#[test]
fn shingles_that_cannot_be_are_named() {
    let folder = saws_folder();
    let fails = |more: &[&str]| folder.fails(&[&TRAIN_SAWS[..7], more].concat());
    for (more, want) in [
        (&["--shingle", "0"][..], "size of the shingle: 0 records a point; 1 to 10000 are allowed"),
        (&["--shingle", "10001"], "10001 records a point; 1 to 10000 are allowed"),
        (&["--shingle", "4", "--shingle-key", "host"], "key of the shingle: `host` is not a JSON"),
        (&["--shingle-key", "/host"], "--shingle-key goes with --shingle"),
        (&["--shingle", "1001", "--shingle-key", "/host"], "no series is as long as the shingle"),
        (&["--shingle", "4", "--shingle-key", "/none"], "field `/none` is missing"),
    ] {
        let said = fails(more);
        assert!(said.contains(want), "want {want}, got {said}");
    }
    let keys: String =
        (0..=65_536).map(|id| format!("{{\"host\":\"h{id}\",\"load\":1}}\n")).collect();
    folder.write("log", keys);
    let said = fails(&["--shingle", "4", "--shingle-key", "/host"]);
    let want =
        "input log: line 65537: field `/host`, the key of the shingle, has more than 65536 values";
    assert!(said.contains(want), "{said}");
    assert!(!folder.path("model").exists());
}

#[test]
fn a_shingled_model_is_calibrated_by_its_points() {
    let folder = saws_folder();
    folder.ok(&TRAIN_SAWS);
    let said = folder.ok("calibrate --model model --input log");
    assert!(said.contains("beginning  6 records") && said.contains("of 1,994"), "{said}");
}
