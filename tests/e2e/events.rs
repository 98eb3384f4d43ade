//! The events in tests/events: small, one a source and variant, with what becomes of each record.

use std::path::Path;

use serde_json::Value;

use crate::batch::assert_same_ids;
use crate::function::{Function, Variables, model, repository};

/// File, identities stored, identities dead-lettered.
const SCORED: [(&str, &[&str], &[&str]); 10] = [
    (
        "msk.json",
        &[
            "kafka/751d2973-a626-431c-9d4e-d7975eb44dd7-2/requests/0/15",
            "kafka/751d2973-a626-431c-9d4e-d7975eb44dd7-2/requests/0/16",
            "kafka/751d2973-a626-431c-9d4e-d7975eb44dd7-2/requests/1/7",
        ],
        &[],
    ),
    (
        "msk_poison.json",
        &[
            "kafka/751d2973-a626-431c-9d4e-d7975eb44dd7-2/requests/0/15",
            "kafka/751d2973-a626-431c-9d4e-d7975eb44dd7-2/requests/0/21",
        ],
        &[
            "kafka/751d2973-a626-431c-9d4e-d7975eb44dd7-2/requests/0/16",
            "kafka/751d2973-a626-431c-9d4e-d7975eb44dd7-2/requests/0/17",
            "kafka/751d2973-a626-431c-9d4e-d7975eb44dd7-2/requests/0/18",
            "kafka/751d2973-a626-431c-9d4e-d7975eb44dd7-2/requests/0/19",
            "kafka/751d2973-a626-431c-9d4e-d7975eb44dd7-2/requests/0/20",
        ],
    ),
    (
        "self_managed.json",
        &["kafka/requests/0/0", "kafka/requests/2/9223372036854775807", "kafka/web-shop.v2/0/3"],
        &[],
    ),
    (
        "self_managed_odd.json",
        &[
            "kafka/requests/0/1",
            "kafka/requests/0/2",
            "kafka/requests/0/3",
            "kafka/requests/0/4",
            "kafka/requests/0/5",
            "kafka/requests/0/6",
        ],
        &[],
    ),
    ("self_managed_empty.json", &[], &[]),
    // A line, an object, a tombstone, another line, half a line.
    (
        "kafka_connect.json",
        &["kafka/requests/0/15", "kafka/requests/0/16", "kafka/requests/1/8"],
        &["kafka/requests/1/7", "kafka/requests/1/9"],
    ),
    (
        "kinesis.json",
        &[
            "kinesis/logs/shardId-000000000006/49590338271490256608559692538361571095921575989136588898/0",
        ],
        &[],
    ),
    // Lines, a list, an aggregate, gzip; a broken aggregate, no base64, a line that is no record.
    (
        "kinesis_many.json",
        &[
            "kinesis/logs/shardId-000000000006/49590338271490256608559692538361571095921575989136588899/0",
            "kinesis/logs/shardId-000000000006/49590338271490256608559692538361571095921575989136588899/1",
            "kinesis/logs/shardId-000000000006/49590338271490256608559692538361571095921575989136588900/0",
            "kinesis/logs/shardId-000000000006/49590338271490256608559692538361571095921575989136588900/1",
            "kinesis/logs/shardId-000000000006/49590338271490256608559692538361571095921575989136588901/0",
            "kinesis/logs/shardId-000000000006/49590338271490256608559692538361571095921575989136588901/1",
            "kinesis/logs/shardId-000000000006/49590338271490256608559692538361571095921575989136588901/2",
            "kinesis/logs/shardId-000000000006/49590338271490256608559692538361571095921575989136588902/0",
            "kinesis/logs/shardId-000000000006/49590338271490256608559692538361571095921575989136588905/0",
        ],
        &[
            "kinesis/logs/shardId-000000000006/49590338271490256608559692538361571095921575989136588903/0",
            "kinesis/logs/shardId-000000000006/49590338271490256608559692538361571095921575989136588904/0",
            "kinesis/logs/shardId-000000000006/49590338271490256608559692538361571095921575989136588905/1",
        ],
    ),
    ("sqs.json", &["sqs/logs/059f36b4-87a3-44ab-83d2-661975830a7d"], &[]),
    // A letter, one that is poison still, one that never was a record, an event, a letter whose id is
    // another's, a line.
    (
        "sqs_redrive.json",
        &["kafka/requests/0/41", "kafka/requests/2/9"],
        &[
            "kafka/requests/0/42",
            "kafka/requests/0/43",
            "kafka/requests/2/10",
            "sqs/redrive/059f36b4-87a3-44ab-83d2-661975830005",
            "sqs/redrive/059f36b4-87a3-44ab-83d2-661975830006",
        ],
    ),
];

/// File, and words that the function error has.
const REFUSED: [(&str, &str); 1] = [("kafka_without_records.json", "records")];

fn start(folder: &Path) -> Function {
    let file = |name: &str| format!("file://{}", folder.join(name).display());
    std::fs::write(folder.join("model"), model()).expect("the model written");
    Function::start(
        &Variables::default()
            .set("MODEL_URI", file("model"))
            .set("RESULTS", "all")
            .set("RESULTS_URI", file("results.jsonl"))
            .set("DEAD_LETTERS_URI", file("dead.jsonl")),
    )
}

fn event(name: &str) -> String {
    let path = repository("tests/events").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The entries of a file of JSON lines, beginning at an offset.
fn entries(path: &Path, from: usize) -> Vec<Value> {
    let text = std::fs::read_to_string(path).expect("a file");
    text[from..].lines().map(|line| serde_json::from_str(line).expect("a json line")).collect()
}

fn ids(entries: &[Value]) -> Vec<&str> {
    entries.iter().map(|entry| entry["id"].as_str().expect("an id")).collect()
}

#[test]
fn each_record_of_an_event_is_stored_or_dead_lettered() {
    for (name, stored, dead) in SCORED {
        // Its own files: the same records come in several events.
        let folder = tempfile::tempdir().expect("a temporary folder");
        let function = start(folder.path());
        let answer = function.invoke(&event(name));
        let expected = r#"{"batchItemFailures":[]}"#;
        assert_eq!((answer.status, answer.body.as_str()), (200, expected), "{name}");
        let results = entries(&folder.path().join("results.jsonl"), 0);
        assert_same_ids(name, stored.iter().copied(), ids(&results));
        let letters = entries(&folder.path().join("dead.jsonl"), 0);
        assert_same_ids(name, dead.iter().copied(), ids(&letters));
    }
}

#[test]
fn a_request_unlike_all_others_is_an_anomaly_and_says_why() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let function = start(folder.path());
    // The second record of partition 0 takes 15 minutes.
    function.invoke(&event("msk.json"));
    let results = entries(&folder.path().join("results.jsonl"), 0);
    let by_offset = |offset: u64| {
        let found = results.iter().find(|result| result["origin"]["offset"] == offset);
        found.unwrap_or_else(|| panic!("no result of offset {offset}: {results:?}"))
    };
    let (usual, slow) = (by_offset(15), by_offset(16));
    assert_eq!((&usual["anomaly"], &slow["anomaly"]), (&false.into(), &true.into()), "{results:?}");
    let share = |result: &Value, name: &str| result["attribution"][name]["share"].as_f64();
    let (duration, spans) = (share(slow, "duration_us"), share(slow, "n_spans"));
    assert!(duration > spans, "expected the duration to weigh most, got {slow}");
}

#[test]
fn an_event_of_another_source_is_a_function_error_that_names_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let function = start(folder.path());
    for (name, words) in REFUSED {
        let answer = function.invoke(&event(name));
        assert_eq!(answer.status, 500, "{name}: {}", answer.body);
        let error = answer.json();
        let message = error["errorMessage"].as_str().expect("an error message");
        assert!(message.contains(words), "{name}: expected {words:?} in {message:?}");
        assert!(error["errorType"].is_string(), "{name}: {error}");
    }
    for event in ["{}", "[]", "null", "17", "\"text\"", r#"{"eventSource":7}"#, r#"{"Records":[]}"#]
    {
        let answer = function.invoke(event);
        assert_eq!(answer.status, 500, "{event}: {}", answer.body);
    }
    // It still works.
    let answer = function.invoke(&self::event("msk.json"));
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert!(!function.log().contains("panicked"), "{}", function.log());
}

#[test]
fn s3s_test_event_is_done_with_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let function = start(folder.path());
    let answer = function.invoke(&event("s3_test.json"));
    assert_eq!((answer.status, answer.body.as_str()), (200, "{}"));
    assert!(entries(&folder.path().join("results.jsonl"), 0).is_empty());
}

#[test]
fn a_direct_request_is_answered_with_scores_or_verdicts() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let function = start(folder.path());
    let answer = function.invoke(&event("direct.json"));
    assert_eq!(answer.status, 200, "{}", answer.body);
    let scores = answer.json();
    assert!(scores["scores"][0]["score"].as_f64().is_some_and(|score| score > 0.0), "{scores}");
    assert_eq!(scores["scores"].as_array().map(Vec::len), Some(1));

    let records = event("direct_records.json");
    let answer = function.invoke(&records);
    assert_eq!(answer.status, 200, "{}", answer.body);
    let answer = answer.json();
    let verdicts = answer["verdicts"].as_array().expect("verdicts");
    assert_eq!(verdicts.len(), 3, "{answer}");
    // The first is the record that direct.json has the values of.
    assert_eq!(verdicts[0]["score"], scores["scores"][0]["score"]);
    assert!(verdicts[1]["anomaly"].is_boolean() && verdicts[2]["error"].is_string(), "{answer}");
    let [results, dead] = ["results.jsonl", "dead.jsonl"].map(|name| folder.path().join(name));
    assert!(entries(&results, 0).is_empty() && entries(&dead, 0).is_empty(), "without an id");

    let with_id = records.replacen('{', "{\"id\": \"batch 17\",", 1);
    for _again in 0..2 {
        assert_eq!(function.invoke(&with_id).status, 200);
        let stored = entries(&results, 0);
        assert_same_ids("stored", ["direct/batch%2017/0", "direct/batch%2017/1"], ids(&stored));
        assert_same_ids("dead", ["direct/batch%2017/2"], ids(&entries(&dead, 0)));
    }

    let wrong = r#"{"instances":[{"features":[1,2]},{"features":["x",2]}]}"#;
    let answer = function.invoke(wrong);
    assert_eq!(answer.status, 500, "{}", answer.body);
    let message = answer.json()["errorMessage"].to_string();
    assert!(message.contains("instances[1]: feature `duration_us` is not a number"), "{message}");
}
