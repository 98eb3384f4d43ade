//! What is kept of a batch: every verdict, the anomalies and a summary, or nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::{Value, json};

use crate::batch::{Batch, Kafka, assert_same_ids};
use crate::function::{Function, Variables, model};
use crate::servers::{DynamoDb, Item};

/// Several calls of a sink.
const LEN: usize = 300;
const UNUSUAL: usize = 30;
const ALL_DONE: &str = r#"{"batchItemFailures":[]}"#;
const DAY: i64 = 86_400;

/// A function with its model and dead letters in files.
fn variables(folder: &tempfile::TempDir) -> Variables {
    let file = |name: &str| format!("file://{}", folder.path().join(name).display());
    std::fs::write(folder.path().join("model"), model()).expect("the model written");
    Variables::default().set("MODEL_URI", file("model")).set("DEAD_LETTERS_URI", file("dead.jsonl"))
}

/// Every verdict on a batch by the record's identity, as `RESULTS=all` keeps them.
fn verdicts(batch: &Batch) -> BTreeMap<String, Value> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("results.jsonl");
    let variables = variables(&folder)
        .set("RESULTS", "all")
        .set("RESULTS_URI", format!("file://{}", path.display()));
    let answer = Function::start(&variables).invoke(&batch.event);
    assert_eq!((answer.status, answer.body.as_str()), (200, ALL_DONE));
    let text = std::fs::read_to_string(&path).expect("a file");
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("a json line"));
    lines.map(|line| (line["id"].as_str().expect("an id").to_owned(), line)).collect()
}

fn anomalies(verdicts: &BTreeMap<String, Value>) -> BTreeSet<&str> {
    let anomalies = verdicts.iter().filter(|(_, verdict)| verdict["anomaly"] == true);
    anomalies.map(|(id, _)| id.as_str()).collect()
}

fn invoke(function: &Function, batch: &Batch) {
    let answer = function.invoke(&batch.event);
    assert_eq!((answer.status, answer.body.as_str()), (200, ALL_DONE));
}

/// An item as JSON; numbers as numbers.
fn json_of(value: &AttributeValue) -> Value {
    match value {
        AttributeValue::S(text) => json!(text),
        AttributeValue::N(digits) => serde_json::from_str(digits).expect("a number"),
        AttributeValue::Bool(flag) => json!(flag),
        AttributeValue::Null(_) => Value::Null,
        AttributeValue::L(list) => list.iter().map(json_of).collect(),
        AttributeValue::M(map) => {
            map.iter().map(|(name, value)| (name.clone(), json_of(value))).collect()
        }
        other => panic!("an attribute of another kind: {other:?}"),
    }
}

/// The item of the table that is a summary, and the others.
fn split(items: BTreeMap<String, Item>) -> (Value, BTreeMap<String, Item>) {
    let (summaries, others): (BTreeMap<_, _>, BTreeMap<_, _>) =
        items.into_iter().partition(|(id, _)| id.starts_with("batch/"));
    assert_eq!(summaries.len(), 1, "summaries: {summaries:?}");
    let summary = summaries.values().next().expect("one");
    let summary = summary.iter().map(|(name, value)| (name.clone(), json_of(value))).collect();
    (summary, others)
}

#[test]
fn by_default_anomalies_are_stored_and_a_summary_that_counts_the_rest() {
    let mut batch = Batch::new(Kafka::Msk, LEN);
    let unusual = batch.make_unusual(UNUSUAL);
    let verdicts = verdicts(&batch);
    let expected = anomalies(&verdicts);
    assert_same_ids("anomalous", unusual.iter().map(String::as_str), expected.iter().copied());

    let (folder, dynamodb) = (tempfile::tempdir().expect("a temporary folder"), DynamoDb::start());
    dynamodb.create_table("results");
    let function = Function::start(
        &variables(&folder)
            .set("RESULTS_URI", "dynamodb://results")
            .set("RESULTS_TTL_DAYS", "36500")
            .set("AWS_ENDPOINT_URL_DYNAMODB", &dynamodb.url),
    );
    invoke(&function, &batch);
    let first = dynamodb.items("results");
    let (summary, items) = split(first.clone());
    assert_same_ids("stored", expected.iter().copied(), items.keys().map(String::as_str));

    let mut scores: Vec<f64> =
        verdicts.values().map(|verdict| verdict["score"].as_f64().expect("a score")).collect();
    scores.sort_unstable_by(f64::total_cmp);
    let at = |percent: usize| scores[(scores.len() * percent).div_ceil(100) - 1];
    let model = &verdicts.values().next().expect("a verdict")["model"];
    let counts = json!({
        "records": LEN,
        "stored": batch.stored().len(),
        "dead_lettered": batch.dead().len(),
        "failed": 0,
        "anomalies": expected.len(),
        "scores": {"p50": at(50), "p90": at(90), "p99": at(99), "max": at(100)},
        "models": [model],
        "partitions_left_out": 0,
    });
    for (name, expected) in counts.as_object().expect("an object") {
        assert_eq!(&summary[name], expected, "{name} of {summary}");
    }
    let partitions = summary["partitions"].as_array().expect("a list");
    let records: u64 = partitions.iter().filter_map(|part| part["records"].as_u64()).sum();
    assert_eq!((partitions.len(), records), (3, LEN as u64), "{summary}");
    assert_eq!(partitions[1]["first"], "1000000", "{summary}");

    invoke(&function, &batch);
    assert_eq!(dynamodb.items("results"), first, "delivered again");
}

#[test]
fn a_normal_record_is_reported_if_its_summary_can_not_be_stored() {
    let batch = Batch::new(Kafka::SelfManaged, LEN);
    let (folder, dynamodb) = (tempfile::tempdir().expect("a temporary folder"), DynamoDb::start());
    let function = Function::start(
        &variables(&folder)
            .set("RESULTS_URI", "dynamodb://results")
            .set("PARTIAL_BATCH", "true")
            .set("AWS_ENDPOINT_URL_DYNAMODB", &dynamodb.url),
    );
    // There is no table.
    let answer = function.invoke(&batch.event).json();
    let failures = answer["batchItemFailures"].as_array().expect("failures");
    assert_eq!(failures.len(), batch.stored().len(), "normal or not");

    dynamodb.create_table("results");
    invoke(&function, &batch);
    let (summary, _) = split(dynamodb.items("results"));
    assert_eq!(summary["stored"], batch.stored().len());
}

#[test]
fn without_results_the_function_needs_no_place_for_them() {
    let batch = Batch::new(Kafka::Msk, LEN);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let function = Function::start(&variables(&folder).set("RESULTS", "none"));
    invoke(&function, &batch);
    let log = function.log();
    let stored = format!("stored={}", batch.stored().len());
    assert!(log.contains(&stored), "expected {stored} in the log, got {log}");
    let dead = std::fs::read_to_string(folder.path().join("dead.jsonl")).expect("a file");
    assert_eq!(dead.lines().count(), batch.dead().len());
}

#[test]
fn an_item_expires_a_term_after_its_record_was_made() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis();
    let now = i64::try_from(now).expect("a time");
    let mut batch = Batch::new(Kafka::SelfManaged, 120);
    // All of an hour ago but one, which is of last year.
    let mut event: Value = serde_json::from_str(&batch.event).expect("json");
    let partitions = event["records"].as_object_mut().expect("partitions");
    for record in partitions.values_mut().filter_map(Value::as_array_mut).flatten() {
        record["timestamp"] = json!(now - 3_600_000);
    }
    event["records"]["requests-1"][1]["timestamp"] = json!(now - 365 * DAY * 1000);
    batch.event = event.to_string();

    let dynamodb = DynamoDb::start();
    for (table, days) in [("week", 7), ("forever", 0)] {
        dynamodb.create_table(table);
        let folder = tempfile::tempdir().expect("a temporary folder");
        let function = Function::start(
            &variables(&folder)
                .set("RESULTS", "all")
                .set("RESULTS_URI", format!("dynamodb://{table}"))
                .set("RESULTS_TTL_DAYS", days.to_string())
                .set("AWS_ENDPOINT_URL_DYNAMODB", &dynamodb.url),
        );
        invoke(&function, &batch);
        let items = dynamodb.items(table);
        assert_same_ids(table, batch.stored(), items.keys().map(String::as_str));
        for (id, item) in items {
            let got = item.get("expires_at").map(json_of).and_then(|value| value.as_i64());
            if days == 0 {
                assert_eq!(got, None, "{id}");
            } else if id == "kafka/requests/1/1000001" {
                // It would be gone before it is seen: the end of this day counts.
                let midnight = got.expect("a time") - days * DAY;
                assert_eq!(midnight % DAY, 0, "{id}");
                assert!((0..=DAY).contains(&(midnight - now / 1000)), "{id}: {midnight}");
            } else {
                assert_eq!(got, Some((now - 3_600_000) / 1000 + days * DAY), "{id}");
            }
        }
    }
}
