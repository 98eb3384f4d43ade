//! A full batch from either kind of Kafka: every record accounted for, delivered once or twice.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::batch::{Batch, Fate, Kafka, assert_same_ids};
use crate::function::{Function, Variables, model};
use crate::servers::{DynamoDb, Item, S3, Sqs};

const LEN: usize = 10_000;
const ALL_DONE: &str = r#"{"batchItemFailures":[]}"#;

#[test]
fn msk_batch_ends_in_table_and_queue() {
    accounts_for_every_record_on_servers(Kafka::Msk);
}

#[test]
fn self_managed_batch_ends_in_table_and_queue() {
    accounts_for_every_record_on_servers(Kafka::SelfManaged);
}

#[test]
fn msk_batch_ends_in_files() {
    accounts_for_every_record_in_files(Kafka::Msk);
}

#[test]
fn self_managed_batch_ends_in_files() {
    accounts_for_every_record_in_files(Kafka::SelfManaged);
}

/// Model in S3, results in DynamoDB, dead letters in SQS; then the same batch again.
fn accounts_for_every_record_on_servers(kafka: Kafka) {
    let batch = Batch::new(kafka, LEN);
    let (s3, dynamodb, sqs) = (S3::start(), DynamoDb::start(), Sqs::start());
    s3.create_bucket("models");
    s3.put("models", "prod/requests.model", model().to_vec());
    dynamodb.create_table("results");
    let queue = sqs.create_queue("dead");
    let function = Function::start(
        &Variables::default()
            .set("MODEL_URI", "s3://models/prod/requests.model")
            .set("RESULTS", "all")
            .set("RESULTS_URI", "dynamodb://results")
            // The records are years old, and no delivery may change when they expire.
            .set("RESULTS_TTL_DAYS", "36500")
            .set("DEAD_LETTERS_URI", &queue)
            .set("AWS_ENDPOINT_URL_S3", &s3.url)
            .set("AWS_ENDPOINT_URL_DYNAMODB", &dynamodb.url)
            .set("AWS_ENDPOINT_URL_SQS", &sqs.url),
    );

    let answer = function.invoke(&batch.event);
    assert_eq!((answer.status, answer.body.as_str()), (200, ALL_DONE));
    let items = dynamodb.items("results");
    assert_same_ids("stored", batch.stored(), items.keys().map(String::as_str));
    for (id, item) in &items {
        assert_item(id, item);
    }
    assert_dead_letters(&batch, &sqs.drain(&queue));

    let answer = function.invoke(&batch.event);
    assert_eq!((answer.status, answer.body.as_str()), (200, ALL_DONE), "delivered again");
    let again = dynamodb.items("results");
    assert_eq!(again.len(), items.len(), "items after the batch was delivered again");
    for (id, item) in &items {
        assert_eq!(again.get(id), Some(item), "{id} after the batch was delivered again");
    }
    // A standard queue does not know a message again: its reader does, by the id.
    assert_dead_letters(&batch, &sqs.drain(&queue));
}

/// Everything in files, no server but the Runtime API; then the same batch again.
fn accounts_for_every_record_in_files(kafka: Kafka) {
    let batch = Batch::new(kafka, LEN);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let [model_path, results, dead] =
        ["model", "results.jsonl", "dead.jsonl"].map(|name| folder.path().join(name));
    std::fs::write(&model_path, model()).expect("the model written");
    let function = Function::start(
        &Variables::default()
            .set("MODEL_URI", format!("file://{}", model_path.display()))
            .set("RESULTS", "all")
            .set("RESULTS_URI", format!("file://{}", results.display()))
            .set("DEAD_LETTERS_URI", format!("file://{}", dead.display())),
    );

    let answer = function.invoke(&batch.event);
    assert_eq!((answer.status, answer.body.as_str()), (200, ALL_DONE));
    let verdicts = json_lines(&results);
    assert_same_ids("stored", batch.stored(), verdicts.iter().map(id));
    for verdict in &verdicts {
        let id = id(verdict);
        assert!(verdict["score"].as_f64().is_some_and(|score| score > 0.0), "{id}: {verdict}");
        assert!(verdict["anomaly"].is_boolean(), "{id}: {verdict}");
    }
    assert_dead_letters(&batch, &json_lines(&dead));

    let before = [&results, &dead].map(|path| std::fs::read(path).expect("a file"));
    let answer = function.invoke(&batch.event);
    assert_eq!((answer.status, answer.body.as_str()), (200, ALL_DONE), "delivered again");
    let after = [&results, &dead].map(|path| std::fs::read(path).expect("a file"));
    assert!(before == after, "the files have changed when the batch was delivered again");
}

fn assert_item(id: &str, item: &Item) {
    let number = |name: &str| item.get(name).and_then(|value| value.as_n().ok()).cloned();
    let score: Option<f64> = number("score").and_then(|score| score.parse().ok());
    assert!(score.is_some_and(|score| score > 0.0), "{id}: {item:?}");
    assert!(item.get("anomaly").is_some_and(|value| value.is_bool()), "{id}: {item:?}");
    let place = format!(
        "{}/{}",
        number("partition").expect("a partition"),
        number("offset").expect("an offset")
    );
    assert!(id.ends_with(&place), "expected {id} to end with the item's {place}");
}

/// The letters are those of the poisoned records, each with its reason and its bytes.
fn assert_dead_letters(batch: &Batch, letters: &[Value]) {
    assert_same_ids("dead-lettered", batch.dead(), letters.iter().map(id));
    let by_id: BTreeMap<&str, &Value> = letters.iter().map(|letter| (id(letter), letter)).collect();
    for (id, fate) in &batch.fates {
        let Fate::DeadLettered { reason: expected, payload } = fate else { continue };
        let letter = by_id[id.as_str()];
        let reason = letter["reason"].as_str().expect("a reason").to_lowercase();
        assert!(
            reason.contains(expected),
            "{id}: expected {expected:?} in the reason, got {reason:?}"
        );
        assert!(letter["time_ms"].as_u64().is_some_and(|time| time > 0), "{id}: {letter}");
        assert_eq!(letter["origin"]["topic"], crate::batch::TOPIC, "{id}: {letter}");
        let got = letter["payload_base64"].as_str().expect("a payload");
        let got = base64_simd::STANDARD.decode_to_vec(got).expect("base64");
        match payload {
            Some(payload) => assert_eq!(&got, payload, "{id}: payload"),
            // No payload came out of the record: the letter has the record itself.
            None => {
                let record: Value = serde_json::from_slice(&got).expect("the record's json");
                assert!(id.ends_with(&format!("/{}", record["offset"])), "{id}: {record}");
            }
        }
    }
}

fn json_lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).expect("a file");
    text.lines().map(|line| serde_json::from_str(line).expect("a json line")).collect()
}

fn id(entry: &Value) -> &str {
    entry["id"].as_str().expect("an id")
}
