//! What keeps the function from coming up, said so that a person knows what to mend.

use std::path::Path;

use crate::function::{Variables, failed_cold_start, model};
use crate::servers::S3;

/// A sound deployment on files.
fn sound(folder: &Path) -> Variables {
    let file = |name: &str| format!("file://{}", folder.join(name).display());
    std::fs::write(folder.join("model"), model()).expect("the model written");
    Variables::default()
        .set("MODEL_URI", file("model"))
        .set("RESULTS_URI", file("results.jsonl"))
        .set("DEAD_LETTERS_URI", file("dead.jsonl"))
}

/// The cold start fails, and the log has all of `expected`.
fn assert_fails(what: &str, variables: &Variables, expected: &[&str]) {
    let (status, log) = failed_cold_start(variables);
    assert!(!status.success(), "{what}: expected a failed start, got {status}");
    assert!(!log.contains("panicked"), "{what}: {log}");
    for words in expected {
        assert!(log.contains(words), "{what}: expected {words:?} in the log, got:\n{log}");
    }
}

#[test]
fn each_variable_that_is_missing_is_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for name in ["MODEL_URI", "RESULTS_URI", "DEAD_LETTERS_URI"] {
        assert_fails(name, &sound(folder.path()).unset(name), &[name]);
        assert_fails(name, &sound(folder.path()).set(name, ""), &[name]);
    }
}

#[test]
fn each_variable_that_is_malformed_is_named_with_its_value() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, value) in [
        ("MODEL_URI", "models/requests.model"),
        ("MODEL_URI", "https://models/requests.model"),
        ("MODEL_URI", "s3://models"),
        ("MODEL_URI", "s3://models/"),
        ("MODEL_URI", "file://relative/path"),
        ("RESULTS_URI", "results"),
        ("RESULTS_URI", "dynamodb://"),
        ("RESULTS_URI", "dynamodb://no table"),
        ("RESULTS_URI", "s3://results/here"),
        ("DEAD_LETTERS_URI", "dead"),
        ("DEAD_LETTERS_URI", "sqs://dead"),
        ("DEAD_LETTERS_URI", "https://sqs.eu-central-1.amazonaws.com/123456789012/dead.fifo"),
        ("PARTIAL_BATCH", "yes"),
        ("PARTIAL_BATCH", "TRUE"),
        ("DEADLINE_RESERVE_MS", "soon"),
        ("DEADLINE_RESERVE_MS", "-1"),
        ("DEADLINE_RESERVE_MS", "99999999999999999999"),
    ] {
        let variables = sound(folder.path()).set(name, value);
        assert_fails(&format!("{name}={value}"), &variables, &[name, value]);
    }
}

#[test]
fn a_model_that_is_not_in_s3_is_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let s3 = S3::start();
    let variables = sound(folder.path())
        .set("MODEL_URI", "s3://models/prod/requests.model")
        .set("AWS_ENDPOINT_URL_S3", &s3.url);
    let place = "s3://models/prod/requests.model";
    assert_fails("no bucket", &variables, &["MODEL_URI", place, "NoSuchBucket"]);
    s3.create_bucket("models");
    assert_fails("no object", &variables, &["MODEL_URI", place, "NoSuchKey"]);
    let half = model()[..model().len() / 2].to_vec();
    s3.put("models", "prod/requests.model", half);
    assert_fails("half an object", &variables, &["MODEL_URI", place]);
}

#[test]
fn an_s3_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let place = "s3://models/prod/requests.model";
    let variables = sound(folder.path())
        .set("MODEL_URI", place)
        .set("AWS_ENDPOINT_URL_S3", format!("http://127.0.0.1:{}", crate::process::free_port()));
    assert_fails("no server", &variables, &["MODEL_URI", place]);
}

#[test]
fn a_damaged_model_is_refused_with_its_place() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let variables = sound(folder.path());
    let path = folder.path().join("model");
    let place = format!("file://{}", path.display());
    let len = model().len();

    let damaged = |what: &str, bytes: &[u8]| {
        std::fs::write(&path, bytes).expect("the model written");
        assert_fails(what, &variables, &["MODEL_URI", &place]);
    };
    for kept in [0, 1, 7, 8, 64, len / 2, len - 1] {
        damaged(&format!("the first {kept} of {len} bytes"), &model()[..kept]);
    }
    for place in [0, 8, 16, 40, len / 4, len / 2, len - 1] {
        let mut bytes = model().to_vec();
        bytes[place] ^= 0x10;
        damaged(&format!("a bit of byte {place} of {len} flipped"), &bytes);
    }
    damaged("a byte too many", &[model(), &[0]].concat());
    damaged("no model at all", b"{\"format\": \"json\"}\n");
}

#[test]
fn sinks_that_can_not_be_opened_are_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let nowhere = format!("file://{}/none/here.jsonl", folder.path().display());
    for name in ["RESULTS_URI", "DEAD_LETTERS_URI"] {
        let variables = sound(folder.path()).set(name, &nowhere);
        assert_fails(name, &variables, &[name, "none/here.jsonl"]);
    }
}
