//! Weighing records by their age: a model of logs of thirty days, of which the last three are slow.

use crate::folder::Folder;

const SPEC: &str = r#"format = "json"
[[feature]]
name = "duration"
field = "/duration"
[[feature]]
name = "status"
field = "/status"
"#;

const DAYS: u64 = 30;
const SLOW_DAYS: u64 = 3;
const RECORDS_A_DAY: u64 = 400;

/// A folder of a log a day. A request takes about 100 ms, in the last days about 300.
fn with_logs() -> Folder {
    let folder = Folder::new();
    for day in 0..DAYS {
        let line = |at: u64| {
            let i = day * RECORDS_A_DAY + at;
            let usual = if day < DAYS - SLOW_DAYS { 100 } else { 300 };
            let (duration, status) = (usual + i * 7919 % 31, i * 31 % 5);
            let time = 1_795_255_200 + day * 86_400 + at * 86_400 / RECORDS_A_DAY;
            format!("{{\"time\":{time},\"duration\":{duration},\"status\":{status}}}\n")
        };
        folder.write(
            &format!("logs/{day:02}.jsonl"),
            (0..RECORDS_A_DAY).map(line).collect::<String>(),
        );
    }
    folder.write("spec.toml", SPEC);
    folder
}

/// The share of the records of a log that a model flags.
fn share_flagged(folder: &Folder, model: &str, log: &str) -> f64 {
    let scored = folder.ok(&format!("score --model {model} --input {log}"));
    let flagged = scored.lines().filter(|line| line.contains("\"anomaly\":true")).count();
    flagged as f64 / scored.lines().count() as f64
}

#[test]
fn a_model_with_a_half_life_knows_the_last_days() {
    let folder = with_logs();
    folder.ok("train --spec spec.toml --input logs --threshold quantile:0.98 --output plain.model");
    let weighed =
        "train --spec spec.toml --input logs --threshold quantile:0.98 --time-field /time";
    let said = folder.ok(&format!("{weighed} --half-life 12h --output recent.model"));
    assert!(said.contains("(a half-life of 12h by `/time`)"), "{said}");
    let (old, new) = ("logs/10.jsonl", "logs/29.jsonl");
    for (model, log, low, high) in [
        // Slow requests are unusual among those of a month, and usual among those of yesterday.
        ("plain.model", old, 0.0, 0.05),
        ("plain.model", new, 0.1, 1.0),
        ("recent.model", old, 0.9, 1.0),
        ("recent.model", new, 0.0, 0.05),
    ] {
        let share = share_flagged(&folder, model, log);
        assert!((low..=high).contains(&share), "{model}: {share} of {log}, want {low} to {high}");
    }
    // A half-life beside which all are of today is none, but for its name.
    folder.ok(&format!("{weighed} --half-life 1000000d --output long.model"));
    for log in [old, new] {
        let (long, plain) =
            (share_flagged(&folder, "long.model", log), share_flagged(&folder, "plain.model", log));
        assert!((long - plain).abs() < 0.1, "{log}: {long} with a long half-life, {plain} without");
    }
}

#[test]
fn parts_with_a_half_life_give_the_model_of_all_logs() {
    let folder = with_logs();
    let how = "--spec spec.toml --time-field /time --half-life 3d";
    folder.ok(&format!("train {how} --input logs --output whole.model"));
    let whole = folder.bytes("whole.model");
    for ways in [2_u64, 7] {
        let parts: Vec<String> = (0..ways).map(|part| format!("{part}.sketch")).collect();
        for (part, name) in (0..ways).zip(&parts) {
            let logs: Vec<String> = (part..DAYS)
                .step_by(usize::try_from(ways).expect("few"))
                .map(|day| format!("logs/{day:02}.jsonl"))
                .collect();
            folder.ok(&format!("sketch {how} --input {} --output {name}", logs.join(" ")));
        }
        let reversed: Vec<&str> = parts.iter().rev().map(String::as_str).collect();
        folder.ok(&format!("merge {} --output all.sketch", reversed.join(" ")));
        folder.ok("train --from-sketch all.sketch --output all.model");
        assert!(folder.bytes("all.model") == whole, "{ways} ways: another model");
    }
    // Day after day.
    let days: Vec<String> = (0..DAYS).map(|day| format!("logs/{day:02}.jsonl")).collect();
    let (before, today) = days.split_at(29);
    folder.ok(&format!("sketch {how} --input {} --output old.sketch", before.join(" ")));
    let input = today.join(" ");
    folder.ok(&format!("train {how} --base old.sketch --input {input} --output new.model"));
    assert!(folder.bytes("new.model") == whole, "from yesterday's sketch: another model");
    for threads in [1, 3] {
        folder.ok(&format!("train {how} --threads {threads} --input logs --output new.model"));
        assert!(folder.bytes("new.model") == whole, "{threads} threads: another model");
    }
}

#[test]
fn models_of_other_seeds_need_the_half_life_too() {
    let folder = with_logs();
    let how = "--time-field /time --half-life 3d";
    folder.ok(&format!("train --spec spec.toml {how} --input logs --output model --trees 30"));
    let ask = "evaluate --model model --input logs/29.jsonl --seeds 2 --train-input logs --top 0";
    for (more, want) in [
        (
            "",
            "the model was trained with a half-life of 3d by `/time`, and the others need the same",
        ),
        ("--time-field /time --half-life 4d", "the model was trained with a half-life of 3d"),
    ] {
        let said = folder.fails(&format!("{ask} {more}"));
        assert!(said.contains(want), "want `{want}`: {said}");
    }
    let found = folder.json(&format!("{ask} {how} --json"));
    assert_eq!(found["stability"]["models"], 2, "{found}");
    // Those of today are usual to both.
    let flagged = found["stability"]["flagged"].as_array().expect("a list");
    assert!(flagged.iter().all(|count| count.as_u64().is_some_and(|it| it < 40)), "{found}");
    folder.ok("train --spec spec.toml --input logs --output model --trees 30");
    assert!(folder.fails(&format!("{ask} {how}")).contains("with no half-life"));
}

#[test]
fn a_half_life_that_cannot_be_says_why() {
    let folder = with_logs();
    for (more, want) in [
        ("--half-life 7d", "--time-field <FIELD>"),
        ("--half-life 7 --time-field /time", "write 7d, 12h or 30min"),
        ("--half-life 10s --time-field /time", "10s is shorter than a minute"),
        ("--half-life 7d --time-field /time --compat sagemaker", "cannot be used with"),
    ] {
        let line = format!("train --spec spec.toml --input logs --output out {more}");
        let run = folder.run(&line);
        let said = String::from_utf8(run.stderr).expect("text");
        assert!(run.status.code() == Some(2) && said.contains(want), "{more}: {said}");
    }
    let timeless = "--input logs --time-field /when --half-life 7d --output out";
    let said = folder.fails(&format!("train --spec spec.toml {timeless}"));
    assert!(said.contains("field `/when` is missing"), "{said}");
    folder.ok("sketch --spec spec.toml --input logs/00.jsonl --output plain.sketch");
    let how = "--spec spec.toml --time-field /time --half-life 36h";
    let said = folder
        .fails(&format!("train {how} --input logs/01.jsonl --base plain.sketch --output out"));
    let want = "one was made with a half-life of 36h by `/time`, the other with no half-life";
    assert!(said.contains(want), "{said}");
}
