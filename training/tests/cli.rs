//! The `sawlog` command as a user runs it: the real binary on real files.
#![allow(clippy::expect_used)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

const SPEC: &str = r#"format = "json"
[[feature]]
name = "duration"
field = "/duration"
missing = "reject"
[[feature]]
name = "size"
field = "/size"
"#;

struct Bench {
    folder: TempDir,
}

impl Bench {
    fn new() -> Self {
        let bench = Self { folder: tempfile::tempdir().expect("a folder") };
        bench.write("spec.toml", SPEC);
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), text).expect("written");
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sawlog"));
        command.current_dir(self.folder.path()).args(arguments).output().expect("it starts")
    }

    /// Runs a command that must succeed and returns its standard output.
    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?} failed: {said}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// Runs a command that must fail cleanly and returns its standard error.
    fn fails(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let said = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(1), "{arguments:?} said: {said}");
        assert!(!said.contains("panicked"), "{said}");
        said
    }

    fn train(&self, input: &str) -> Vec<String> {
        ["train", "--spec", "spec.toml", "--input", input, "--output", "model"]
            .map(str::to_owned)
            .to_vec()
    }

    fn fails_to_train(&self, input: &str) -> String {
        let arguments = self.train(input);
        self.fails(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }
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
    let bench = Bench::new();
    bench.write("log", requests(3000));
    let train = |output: &str, seed: &str| {
        let seed = ["--seed", seed];
        let fixed = ["train", "--spec", "spec.toml", "--input", "log", "--output", output];
        bench.ok(&[&fixed[..], &seed[..]].concat());
        std::fs::read(bench.path(output)).expect("written")
    };
    let first = train("a", "7");
    assert_eq!(first, train("b", "7"), "the same seed");
    assert_ne!(first, train("c", "8"), "another seed");
}

#[test]
fn train_says_what_it_did_and_inspect_shows_it() {
    let bench = Bench::new();
    bench.write("log", requests(3000) + "no json\n{\"size\":1}\n");
    let said = bench.ok(&["train", "--spec", "spec.toml", "--input", "log", "--output", "model"]);
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
    let shown = bench.ok(&["inspect", "model"]);
    assert!(shown.contains("/duration") && shown.contains("seed 42"), "{shown}");
    let json: Value =
        serde_json::from_str(&bench.ok(&["inspect", "--json", "model"])).expect("json");
    assert_eq!(json["params"]["trees"], 100);
    let sampled_from = json["provenance"]["sampled_from"].as_u64().expect("a count");
    assert_eq!(json["params"]["samples"], sampled_from / 16, "a sixteenth of them");
    assert_eq!(json["provenance"]["rejected"], 2);
    assert_eq!(json["provenance"]["inputs"], serde_json::json!(["log"]));
}

#[test]
fn every_record_is_scored_or_rejected_with_its_place() {
    let bench = Bench::new();
    bench.write("log", requests(2000));
    bench.ok(&["train", "--spec", "spec.toml", "--input", "log", "--output", "model"]);
    let odd = "{\"duration\":90000,\"size\":3}\nno json\n{\"duration\":150,\"size\":3}\n";
    bench.write("later", odd);
    let score = ["score", "--model", "model", "--input", "later", "--rejects", "rejects"];
    let lines = bench.ok(&score);
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
    let rejects = std::fs::read_to_string(bench.path("rejects")).expect("written");
    let reject: Value = serde_json::from_str(rejects.trim()).expect("one line of json");
    assert_eq!(reject["origin"]["line"], 2);
    assert_eq!(reject["payload_base64"], "bm8ganNvbg==");

    let csv = bench.ok(&["score", "--model", "model", "--input", "later", "--format", "csv"]);
    let rows: Vec<&str> = csv.lines().collect();
    assert_eq!(rows[0], "score,anomaly,source,line");
    assert_eq!(rows[1], format!("{},1,\"later\",1", verdicts[0]["score"]));
    assert_eq!(rows.len(), 3);
}

#[test]
fn csv_columns_may_stand_in_another_order_than_in_training() {
    let bench = Bench::new();
    bench.write("spec.toml", "format = \"csv\"\n[[feature]]\nname = \"a\"\nfield = \"a\"\n");
    let rows: String = (0..1000).map(|i| format!("{},x,{}\n", i, i * 7 % 50)).collect();
    bench.write("one.csv", format!("id,note,a\n{rows}"));
    bench.ok(&["train", "--spec", "spec.toml", "--input", "one.csv", "--output", "model"]);
    let scores = |file: &str| {
        let csv = bench.ok(&["score", "--model", "model", "--input", file, "--format", "csv"]);
        csv.lines()
            .skip(1)
            .map(|row| row.split(',').next().unwrap_or_default().to_owned())
            .collect::<Vec<_>>()
    };
    bench.write("same.csv", "id,note,a\n1,x,7\n2,x,900\n");
    bench.write("other.csv", "a\n7\n900\n");
    bench.write("none.csv", "1,x,7\n2,x,900\n");
    let want = scores("same.csv");
    assert_eq!(want.len(), 2);
    assert_eq!(scores("other.csv"), want);
    assert_eq!(scores("none.csv"), want, "without a header: the columns of training");
}

#[test]
fn nothing_to_learn_from_is_an_error_and_leaves_the_old_model_whole() {
    let bench = Bench::new();
    bench.write("model", "the old model");
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
        bench.write("log", text);
        let said = bench.fails_to_train("log");
        assert!(said.contains(want), "want {want}, got {said}");
        let model = std::fs::read_to_string(bench.path("model")).expect("still there");
        assert_eq!(model, "the old model", "after: {want}");
        folder_is_clean(bench.folder.path());
    }
}

#[test]
fn inputs_that_are_not_there_or_are_damaged_are_named() {
    let bench = Bench::new();
    bench.write("log", requests(100));
    bench.write("cut.gz", [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 1, 2]);
    std::fs::create_dir(bench.path("empty")).expect("created");
    for (input, want) in [
        ("missing.log", "input missing.log: there is no such file"),
        ("missing*.log", "input missing*.log: it has no files"),
        ("empty", "input empty: it has no files"),
        ("cut.gz", "input cut.gz: at byte 0"),
    ] {
        let said = bench.fails_to_train(input);
        assert!(said.contains(want), "want {want}, got {said}");
    }
    let said =
        bench.fails(&["train", "--spec", "none.toml", "--input", "log", "--output", "model"]);
    assert!(said.contains("specification none.toml"), "{said}");
    let said =
        bench.fails(&["train", "--spec", "spec.toml", "--input", "log", "--output", "none/model"]);
    assert!(said.contains("output none/model"), "{said}");
    let said = bench.fails(&[
        "train",
        "--spec",
        "spec.toml",
        "--input",
        "log",
        "--output",
        "model",
        "--trees",
        "0",
    ]);
    assert!(said.contains("trees is 0; 1 to"), "{said}");
    bench.write("text", "no model\n");
    bench.write("nothing", "");
    for (model, want) in [("text", "is text"), ("nothing", "it is empty"), ("cut.gz", "is gzip")] {
        let said = bench.fails(&["inspect", model]);
        assert!(said.starts_with(&format!("sawlog: model {model}: not a sawlog model")), "{said}");
        assert!(said.contains(want), "want {want}, got {said}");
    }
    bench.write("spec.toml", SPEC.replace("json", "csv").replace('/', ""));
    bench.write("semicolons.csv", "duration;size\n1;2\n");
    let said = bench.fails_to_train("semicolons.csv");
    assert!(said.contains("delimiter = \";\""), "{said}");
    bench.write("tabs.csv", "duration\tsize\n1\t2\n");
    let said = bench.fails_to_train("tabs.csv");
    assert!(said.contains("delimiter = \"\\t\""), "{said}");
    bench.write("spec.toml", SPEC.replace("missing =", "mising ="));
    let said = bench.fails_to_train("log");
    assert_eq!(said.matches("specification").count(), 1, "said once: {said}");
    assert!(
        said.contains("spec.toml") && said.contains("line 5") && said.contains("mising"),
        "{said}"
    );
}

#[test]
fn a_damaged_model_is_named_with_section_and_offset() {
    let bench = Bench::new();
    bench.write("log", requests(500));
    bench.ok(&["train", "--spec", "spec.toml", "--input", "log", "--output", "model"]);
    let mut bytes = std::fs::read(bench.path("model")).expect("written");
    bytes[500] ^= 1;
    bench.write("flipped", &bytes);
    bench.write("cut", &bytes[..1000]);
    let said = bench.fails(&["inspect", "flipped"]);
    assert!(said.contains("model flipped: checksum at offset"), "{said}");
    let said = bench.fails(&["score", "--model", "cut", "--input", "log"]);
    assert!(said.contains("model cut: snapshot length at offset 16"), "{said}");
}

#[test]
fn standard_input_and_compressed_files_train_alike() {
    let bench = Bench::new();
    bench.write("log", requests(1000));
    bench.write("log.zst", zstd::encode_all(requests(1000).as_bytes(), 3).expect("encoded"));
    std::fs::create_dir(bench.path("logs")).expect("created");
    bench.write("logs/a.zst", zstd::encode_all(requests(1000).as_bytes(), 3).expect("encoded"));
    for input in ["log", "log.zst", "logs", "lo?.zst"] {
        let arguments = bench.train(input);
        let said = bench.ok(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(said.contains("kept       1,000"), "{input}: {said}");
    }
    let mut child = Command::new(env!("CARGO_BIN_EXE_sawlog"))
        .current_dir(bench.folder.path())
        .args(["train", "--spec", "spec.toml", "--input", "-", "--output", "model"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
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
    let bench = Bench::new();
    bench.write("log", requests(2000));
    bench.ok(&["train", "--spec", "spec.toml", "--input", "log", "--output", "model"]);
    bench.write("later", requests(700) + "no json\n" + &requests(300));
    let replay =
        ["replay", "--model", "model", "--input", "later", "--output", "out", "--batch", "128"];
    let said = bench.ok(&replay);
    assert!(said.contains("replayed   1,001 records in 8 batches"), "{said}");
    assert!(said.contains("1,000 stored, 1 dead-lettered, 0 failed"), "{said}");
    let results = std::fs::read(bench.path("out/results.jsonl")).expect("written");
    assert_eq!(results.iter().filter(|&&byte| byte == b'\n').count(), 1000);
    bench.ok(&replay);
    assert_eq!(std::fs::read(bench.path("out/results.jsonl")).expect("written"), results);
}

#[test]
fn a_replay_of_other_logs_into_the_same_folder_keeps_both() {
    let bench = Bench::new();
    bench.write("log", requests(2000));
    bench.ok(&["train", "--spec", "spec.toml", "--input", "log", "--output", "model"]);
    bench.write("far", "{\"duration\":90000,\"size\":3}\n".to_owned() + &requests(99));
    bench.write("near", requests(100));
    let replay =
        |input| bench.ok(&["replay", "--model", "model", "--input", input, "--output", "out"]);
    let said = replay("far");
    assert!(said.contains("90,000"), "the far one is shown: {said}");
    let said = replay("near");
    assert!(!said.contains("90,000"), "the far one is not of this replay: {said}");
    let results = std::fs::read_to_string(bench.path("out/results.jsonl")).expect("written");
    assert_eq!(results.lines().count(), 200);
}

#[test]
fn no_output_replaces_what_is_read_or_another_output() {
    let bench = Bench::new();
    bench.write("log", requests(1000));
    bench.ok(&["train", "--spec", "spec.toml", "--input", "log", "--output", "model"]);
    let train = ["train", "--spec", "spec.toml", "--input", "log", "--output"];
    let score = ["score", "--model", "model", "--input", "log", "--output"];
    for (command, more, want) in [
        (train, &["log"][..], "output log is also an input"),
        (train, &["spec.toml"][..], "output spec.toml is also an input"),
        (score, &["./log"][..], "output ./log is also an input"),
        (score, &["model"][..], "output model is also an input"),
        (score, &["same", "--rejects", "same"][..], "same is named for two outputs"),
    ] {
        let said = bench.fails(&[&command[..], more].concat());
        assert!(said.contains(want), "want {want}, got {said}");
    }
    assert_eq!(std::fs::read_to_string(bench.path("log")).expect("there"), requests(1000));
}

#[test]
fn scoring_nothing_but_rejects_fails() {
    let bench = Bench::new();
    bench.write("log", requests(1000));
    bench.ok(&["train", "--spec", "spec.toml", "--input", "log", "--output", "model"]);
    bench.write("other", "a,b\n1,2\n");
    let said =
        bench.fails(&["score", "--model", "model", "--input", "other", "--output", "scores"]);
    assert!(said.contains("not JSON") && said.contains("no record could be scored"), "{said}");
}

#[test]
fn the_same_files_in_another_order_give_the_same_bytes() {
    let bench = Bench::new();
    bench.write("a", requests(1500));
    bench.write("b", requests(700));
    let train = |inputs: &[&str]| {
        let fixed = ["train", "--spec", "spec.toml", "--output", "model", "--input"];
        bench.ok(&[&fixed[..], inputs].concat());
        std::fs::read(bench.path("model")).expect("written")
    };
    let want = train(&["a", "b"]);
    assert_eq!(train(&["b", "a"]), want);
    assert_eq!(train(&["b", "a", "b"]), want, "a file named twice is read once");
}

#[test]
fn every_example_specification_is_valid() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut count = 0;
    for folder in std::fs::read_dir(examples).expect("readable") {
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
    let bench = Bench::new();
    let said = bench.ok(&["demo"]);
    for want in [
        "sawlog train",
        "sawlog replay",
        "18,750 stored, 0 dead-lettered, 0 failed",
        "most unusual",
        "Next:",
    ] {
        assert!(said.contains(want), "want {want} in:\n{said}");
    }
    let results =
        std::fs::read_to_string(bench.path("sawlog-demo/results.jsonl")).expect("written");
    let flagged = results.lines().filter(|line| line.contains("\"anomaly\":true")).count();
    assert!(flagged > 0 && said.contains(&format!("of {flagged} flagged")), "{flagged}: {said}");
}

#[test]
fn compat_sagemaker_takes_chunks_of_few_rows_and_a_sample_of_many() {
    let bench = Bench::new();
    let train = |rows: u32| {
        bench.write("log", requests(rows));
        let compat = ["--compat", "sagemaker", "--trees", "10", "--samples", "50"];
        let mut arguments = bench.train("log");
        arguments.extend(compat.map(str::to_owned));
        let said = bench.ok(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        let json = bench.ok(&["inspect", "--json", "model"]);
        (said, serde_json::from_str::<Value>(&json).expect("json"))
    };
    // 500 rows are trees x samples, the most that are cut into chunks; 497 leave 7 over.
    for (rows, sampling, samples) in
        [(500, "contiguous", 50), (497, "contiguous", 49), (501, "keyed", 50)]
    {
        let (said, json) = train(rows);
        assert_eq!(json["params"]["sampling"], sampling, "{rows} rows");
        assert_eq!(json["params"]["samples"], samples, "{rows} rows");
        assert_eq!(json["params"]["leaf_rule"], "sagemaker");
        assert_eq!(json["calibration"]["records"], rows, "no row is held out");
        assert_eq!(json["calibration"]["rule"], serde_json::json!({"deviations": 3.0}));
        assert!(said.contains("`duration` has transform"), "a warning: {said}");
    }
    bench.write("log", requests(19));
    let said = bench.fails(&[
        "train",
        "--spec",
        "spec.toml",
        "--input",
        "log",
        "--output",
        "few",
        "--compat",
        "sagemaker",
        "--trees",
        "10",
    ]);
    assert!(said.contains("at least 20 records"), "{said}");
    assert!(!bench.path("few").exists());
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

fn saw_bench() -> Bench {
    let bench = Bench::new();
    bench.write("saw.toml", SAW_SPEC);
    bench.write("log", saws(&["a", "b"], 0..1000, &[]));
    bench
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
    let bench = saw_bench();
    let said = bench.ok(&TRAIN_SAWS);
    for want in [
        "read       2,000 records",
        "beginning  6 records began a series",
        "kept       1,994",
        "a point is 4 consecutive records of the same `/host`",
        "4 dimensions",
    ] {
        assert!(said.contains(want), "want {want} in:\n{said}");
    }
    let json: Value =
        serde_json::from_str(&bench.ok(&["inspect", "--json", "model"])).expect("json");
    assert_eq!(json["spec"]["shingle"], serde_json::json!({"size": 4, "key": "/host"}));
    let from = &json["provenance"];
    let count = |name: &str| from[name].as_u64().expect("a count");
    assert_eq!(count("sampled_from") + count("held_out"), 1994);

    // The values are those of training: 3 where 7 belongs.
    bench.write("later", saws(&["b", "a"], 0..40, &[(23, 3)]));
    let lines = bench.ok(&["score", "--model", "model", "--input", "later"]);
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
    let csv = bench.ok(&["score", "--model", "model", "--input", "later", "--format", "csv"]);
    assert_eq!(csv.lines().nth(6), Some(",,\"later\",6"));
    assert_eq!(csv.lines().count(), 81);
}

#[test]
fn the_shingle_may_stand_in_the_specification_and_an_option_goes_before_it() {
    let bench = saw_bench();
    bench.ok(&TRAIN_SAWS);
    let by_options = std::fs::read(bench.path("model")).expect("written");
    let train = |more: &[&str]| {
        bench.ok(&[&TRAIN_SAWS[..7], more].concat());
        std::fs::read(bench.path("model")).expect("written")
    };
    let plain = train(&[]);
    bench.write("saw.toml", SAW_SPEC.to_owned() + "[shingle]\nsize = 4\nkey = \"/host\"\n");
    assert_eq!(train(&[]), by_options);
    assert_eq!(train(&["--shingle", "1"]), plain, "1: none");
    bench.write("saw.toml", SAW_SPEC.to_owned() + "[shingle]\nsize = 9\nkey = \"/host\"\n");
    assert_eq!(train(&["--shingle", "4"]), by_options, "the specification's key");
    bench.write("saw.toml", SAW_SPEC.to_owned() + "[shingle]\nsize = 4\n");
    assert_eq!(train(&["--shingle-key", "/host"]), by_options, "the specification's size");
}

#[test]
fn no_history_reaches_from_one_file_into_the_next() {
    let bench = saw_bench();
    bench.ok(&TRAIN_SAWS);
    bench.write("one", saws(&["a", "b"], 0..20, &[(9, 1)]));
    bench.write("two", saws(&["b", "c"], 20..40, &[]));
    let score = |inputs: &[&str]| {
        let fixed = ["score", "--model", "model", "--input"];
        scores(&bench.ok(&[&fixed[..], inputs].concat()))
    };
    let apart = [score(&["one"]), score(&["two"])].concat();
    assert_eq!(score(&["one", "two"]), apart);
    assert_eq!(apart.iter().filter(|score| score.is_none()).count(), 2 * 6);

    // A record that can't be read is a gap in its own series, if that is known.
    let gap = |line: &str| {
        let (before, after) = (saws(&["a", "b"], 0..8, &[]), saws(&["a", "b"], 8..16, &[]));
        bench.write("gap", before + line + &after);
        score(&["gap"]).iter().filter(|score| score.is_none()).count()
    };
    assert_eq!(gap("{\"host\":\"a\",\"load\":\"x\"}\n"), 6 + 3);
    assert_eq!(gap("no json\n"), 6);
}

#[test]
fn a_replay_gives_a_record_its_score_or_none_at_any_batch() {
    let bench = saw_bench();
    bench.ok(&TRAIN_SAWS);
    bench.write("one", saws(&["a", "b"], 0..100, &[(50, 6)]));
    bench.write("two", saws(&["b"], 0..40, &[]));
    let want = scores(&bench.ok(&["score", "--model", "model", "--input", "one", "two"]));
    for (batch, no_history) in [("1000", 6 + 3), ("48", 4 * 6 + 2 * 3 + 3)] {
        let replay = ["replay", "--model", "model", "--input", "one", "two", "--batch", batch];
        let said = bench.ok(&[&replay[..], &["--output", batch]].concat());
        let stored = want.len() - no_history;
        assert!(said.contains(&format!("outcomes   {stored} stored, 0 dead-lettered")), "{said}");
        assert!(said.contains(&format!("{no_history} with too few of their series")), "{said}");
        let results = std::fs::read_to_string(bench.path(batch).join("results.jsonl"));
        let results = results.expect("written");
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
    let bench = saw_bench();
    let fails = |more: &[&str]| bench.fails(&[&TRAIN_SAWS[..7], more].concat());
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
    bench.write("log", keys);
    let said = fails(&["--shingle", "4", "--shingle-key", "/host"]);
    let want =
        "input log: line 65537: field `/host`, the key of the shingle, has more than 65536 values";
    assert!(said.contains(want), "{said}");
    assert!(!bench.path("model").exists());
}

#[test]
fn a_shingled_model_is_calibrated_by_its_points() {
    let bench = saw_bench();
    bench.ok(&TRAIN_SAWS);
    let said = bench.ok(&["calibrate", "--model", "model", "--input", "log"]);
    assert!(said.contains("beginning  6 records") && said.contains("of 1,994"), "{said}");
}
