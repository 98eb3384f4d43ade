//! The calibrated false-alarm rate on records that neither trees nor threshold have seen: series of
//! the Numenta Anomaly Benchmark without anomalies, and the tail of a web shop's request logs.
use std::io::Read;

use serde_json::Value;

use crate::folder::{Folder, example};

/// The shipped requests, a line each.
fn requests() -> Vec<String> {
    let file = std::fs::File::open(example("nezha/requests.jsonl.gz")).expect("there");
    let mut text = String::new();
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).expect("readable");
    text.lines().map(str::to_owned).collect()
}

/// What the model's threshold flags, and what three standard deviations would: flagged, records.
fn flagged(folder: &Folder, input: &str) -> ([f64; 2], f64) {
    let command = ["evaluate", "--model", "model", "--input", input, "--json", "--top", "0"];
    let evaluation = folder.json(&command);
    let rows = evaluation["thresholds"].as_array().expect("a list");
    let flagged = |row: &Value| row["flagged"].as_f64().expect("a count");
    let three = rows.iter().find(|row| row["rule"] == "3sd").expect("three deviations");
    ([flagged(&rows[0]), flagged(three)], evaluation["scored"].as_f64().expect("a count"))
}

/// The most of `records` that a threshold may flag that was placed by as many of `held_out` records
/// as `rate` says: four deviations above what is expected, where both the place of the threshold and
/// the count vary.
fn most(rate: f64, records: f64, held_out: f64) -> f64 {
    let expected = records * rate.max(1.0 / (held_out + 1.0));
    expected + 4.0 * (expected * (1.0 + records / held_out)).sqrt()
}

#[test]
fn series_without_anomalies_are_flagged_as_often_as_calibration_says() {
    for name in ["art_noisy.csv", "art_daily_small_noise.csv"] {
        for shingle in ["1", "24"] {
            let folder = Folder::new();
            let text = std::fs::read_to_string(example(&format!("nab/{name}"))).expect("readable");
            let rows: Vec<&str> = text.lines().skip(1).collect();
            for (part, rows) in rows.chunks(rows.len().div_ceil(3)).enumerate() {
                folder.write(&part.to_string(), rows.join("\n"));
            }
            let spec = example("nab/spec.toml").display().to_string();
            let train = ["train", "--spec", &spec, "--input", "0", "--output", "model"];
            folder.ok(&[&train[..], &["--shingle", shingle]].concat());
            let threshold = ["--threshold", "quantile:0.99"];
            let calibrate = ["calibrate", "--model", "model", "--input", "1"];
            folder.ok(&[&calibrate[..], &threshold[..]].concat());
            let ([got, _], records) = flagged(&folder, "2");
            let most = most(0.01, records, records);
            assert!(got <= most, "{name}, shingle {shingle}: {got} of {records}, most {most:.1}");
        }
    }
}

#[test]
fn the_tail_of_request_logs_is_not_flooded_by_the_default_and_is_by_three_deviations() {
    let folder = Folder::new();
    let lines = requests();
    let (earlier, later) = lines.split_at(lines.len() * 7 / 10);
    folder.write("earlier", earlier.join("\n"));
    folder.write("later", later.join("\n"));
    let spec = example("nezha/spec.toml").display().to_string();
    folder.ok(&["train", "--spec", &spec, "--input", "earlier", "--output", "model"]);
    let inspected = folder.json("inspect --json model");
    assert_eq!(inspected["calibration"]["rule"]["quantile"], 0.999, "the default");
    let held_out = inspected["calibration"]["records"].as_f64().expect("a count");
    let ([got, three], records) = flagged(&folder, "later");
    let most = most(0.001, records, held_out);
    assert!(got <= most, "{got} of {records} flagged, most {most:.1}");
    // A normal distribution has 0.13 % above three deviations; these scores are skewed.
    assert!(three > 0.01 * records, "three deviations flag only {three} of {records}");
}

#[test]
fn a_rate_in_time_holds_on_requests_that_were_not_seen() {
    let folder = Folder::new();
    let lines = requests();
    let part = |is_fifth: bool| {
        let of = lines.iter().enumerate().filter(|(at, _)| at.is_multiple_of(5) == is_fifth);
        of.map(|(_, line)| line.as_str()).collect::<Vec<_>>().join("\n")
    };
    folder.write("four", part(false));
    folder.write("fifth", part(true));
    let spec = example("nezha/spec.toml").display().to_string();
    let train = ["train", "--spec", &spec, "--input", "four", "--output", "model"];
    let rate = ["--threshold", "rate:1/min", "--records-per-hour", "5000"];
    folder.ok(&[&train[..], &rate[..]].concat());
    let inspected = folder.json("inspect --json model");
    assert_eq!(inspected["calibration"]["rule"]["quantile"], 0.988, "60 of 5,000");
    let held_out = inspected["calibration"]["records"].as_f64().expect("a count");
    let ([got, _], records) = flagged(&folder, "fifth");
    let hours = records / 5000.0;
    let (expected, most) = (60.0 * hours, most(0.012, records, held_out));
    let least = 2.0 * expected - most;
    assert!(least <= got && got <= most, "{got} in {hours} h, not {least:.0} to {most:.0}");
}
