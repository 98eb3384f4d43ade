//! A sink that is down or not there: nothing is claimed that was not done, and redelivery mends it.

use serde_json::Value;

use crate::batch::{Batch, Kafka, TOPIC, assert_same_ids};
use crate::function::{Answer, Function, Variables, model};
use crate::process::free_port;
use crate::servers::{DynamoDb, Sqs};

/// Three partitions, several calls of the sink.
const LEN: usize = 120;
pub(crate) const ALL_DONE: &str = r#"{"batchItemFailures":[]}"#;

/// A function with its model in a file and its results in a table `results`.
fn variables(folder: &tempfile::TempDir, dynamodb_url: &str) -> Variables {
    let model_path = folder.path().join("model");
    std::fs::write(&model_path, model()).expect("the model written");
    Variables::default()
        .set("MODEL_URI", format!("file://{}", model_path.display()))
        .set("RESULTS", "all")
        .set("RESULTS_URI", "dynamodb://results")
        .set("DEAD_LETTERS_URI", format!("file://{}", folder.path().join("dead.jsonl").display()))
        .set("AWS_ENDPOINT_URL_DYNAMODB", dynamodb_url)
}

/// The records that an answer reports as failed are these, each named once.
fn assert_reported<'a>(expected: impl IntoIterator<Item = &'a str>, answer: &Answer) {
    let expected: Vec<&str> = expected.into_iter().map(place).collect();
    let got = reported(answer);
    assert_same_ids("reported", expected.iter().copied(), got.iter().map(String::as_str));
}

/// The records that an answer reports as failed, as `partition/offset`, in the order of the answer.
pub(crate) fn reported(answer: &Answer) -> Vec<String> {
    assert_eq!(answer.status, 200, "{}", answer.body);
    let answer = answer.json();
    let failures = answer["batchItemFailures"].as_array().expect("a list of failures");
    failures.iter().map(|failure| place_of(&failure["itemIdentifier"])).collect()
}

/// `partition/offset` of an identity, which ends with them.
pub(crate) fn place(id: &str) -> &str {
    let (rest, offset) = id.rsplit_once('/').expect("an offset");
    let (_, partition) = rest.rsplit_once('/').expect("a partition");
    &id[id.len() - partition.len() - 1 - offset.len()..]
}

/// `partition/offset` of an item identifier.
fn place_of(item: &Value) -> String {
    let partition = item["partition"].as_str().and_then(|name| name.strip_prefix(TOPIC));
    let partition = partition.and_then(|rest| rest.strip_prefix('-'));
    format!("{}/{}", partition.expect("topic-partition"), item["offset"])
}

#[test]
fn without_partial_answers_a_dead_table_fails_the_invocation_until_it_is_back() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let batch = Batch::new(Kafka::Msk, LEN);
    let port = free_port();
    let function = Function::start(&variables(&folder, &format!("http://127.0.0.1:{port}")));

    let answer = function.invoke(&batch.event);
    assert_eq!(answer.status, 500, "nothing listens for the results: {}", answer.body);
    let error = answer.json();
    assert!(error["errorMessage"].is_string(), "expected a function error, got {error}");

    // The server is back, but without the table.
    let dynamodb = DynamoDb::start_at(port);
    let answer = function.invoke(&batch.event);
    assert_eq!(answer.status, 500, "there is no table: {}", answer.body);

    dynamodb.create_table("results");
    let answer = function.invoke(&batch.event);
    assert_eq!((answer.status, answer.body.as_str()), (200, ALL_DONE));
    let items = dynamodb.items("results");
    assert_same_ids("stored", batch.stored(), items.keys().map(String::as_str));
}

#[test]
fn with_partial_answers_a_missing_table_is_answered_by_every_unfinished_offset() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let batch = Batch::new(Kafka::SelfManaged, LEN);
    let dynamodb = DynamoDb::start();
    let function = Function::start(&variables(&folder, &dynamodb.url).set("PARTIAL_BATCH", "true"));

    assert_reported(batch.stored(), &function.invoke(&batch.event));
    let dead = std::fs::read_to_string(folder.path().join("dead.jsonl")).expect("a file");
    assert_eq!(dead.lines().count(), batch.dead().len(), "poison is done even so: {dead}");

    dynamodb.create_table("results");
    let answer = function.invoke(&batch.event);
    assert_eq!((answer.status, answer.body.as_str()), (200, ALL_DONE));
    let items = dynamodb.items("results");
    assert_same_ids("stored", batch.stored(), items.keys().map(String::as_str));
}

#[test]
fn a_dead_letter_that_can_not_be_sent_is_reported() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let batch = Batch::new(Kafka::Msk, LEN);
    let sqs = Sqs::start();
    let results = folder.path().join("results.jsonl");
    let variables = variables(&folder, "http://127.0.0.1:1")
        .set("RESULTS_URI", format!("file://{}", results.display()))
        .set("DEAD_LETTERS_URI", format!("{}/000000000000/not-there", sqs.url))
        .set("AWS_ENDPOINT_URL_SQS", &sqs.url);

    let function = Function::start(&variables.clone().set("PARTIAL_BATCH", "true"));
    assert_reported(batch.dead(), &function.invoke(&batch.event));
    drop(function);

    let function = Function::start(&variables);
    let answer = function.invoke(&batch.event);
    assert_eq!(answer.status, 500, "{}", answer.body);
}
