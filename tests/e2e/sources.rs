//! Sources that need a server: objects in S3, and dead letters that are redriven through SQS.

use std::io::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use crate::batch::{Batch, Kafka, assert_same_ids};
use crate::function::{Answer, Function, Variables, model, repository};
use crate::servers::{S3, Sqs};

pub(crate) const BUCKET: &str = "landed-logs";
const ALL_DONE: &str = r#"{"batchItemFailures":[]}"#;

/// A function on files, but for what a test sets otherwise.
pub(crate) fn variables(folder: &Path) -> Variables {
    let file = |name: &str| format!("file://{}", folder.join(name).display());
    std::fs::write(folder.join("model"), model()).expect("the model written");
    Variables::default()
        .set("MODEL_URI", file("model"))
        .set("RESULTS", "all")
        .set("RESULTS_URI", file("results.jsonl"))
        .set("DEAD_LETTERS_URI", file("dead.jsonl"))
}

pub(crate) fn entries(folder: &Path, name: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.join(name)).expect("a file");
    text.lines().map(|line| serde_json::from_str(line).expect("a json line")).collect()
}

pub(crate) fn ids(entries: &[Value]) -> impl Iterator<Item = &str> {
    entries.iter().map(|entry| entry["id"].as_str().expect("an id"))
}

/// The notification in a file of tests/events, of an object as it was put.
pub(crate) fn notice(name: &str, (etag, version): &(String, Option<String>)) -> String {
    let path = repository("tests/events").join(name);
    let text = std::fs::read_to_string(&path).expect("an event");
    let mut event: Value = serde_json::from_str(&text).expect("json");
    let object = &mut event["Records"][0]["s3"]["object"];
    object["eTag"] = json!(etag);
    if let Some(version) = version {
        object["versionId"] = json!(version);
    }
    event.to_string()
}

pub(crate) fn request(ms: usize) -> String {
    format!("{{\"duration_us\":{ms},\"n_spans\":50}}\n")
}

pub(crate) fn assert_refused(answer: &Answer, words: &[&str]) {
    assert_eq!(answer.status, 500, "{}", answer.body);
    let message = answer.json()["errorMessage"].as_str().expect("a message").to_owned();
    for words in words {
        assert!(message.contains(words), "expected {words:?} in {message:?}");
    }
}

#[test]
fn every_line_of_an_object_is_stored_or_dead_lettered_however_it_is_compressed() {
    let s3 = S3::start();
    s3.create_bucket(BUCKET);
    // More than two pieces; blank lines, and poison in the first and last piece.
    let mut text = String::from("not json\n\n");
    (0..20_000).for_each(|at| text.push_str(&request(at)));
    text.push_str("{\"n_spans\":1}");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(text.as_bytes()).expect("compressed");
    let gzip = gzip.finish().expect("compressed");
    let zstd = zstd::encode_all(text.as_bytes(), 3).expect("compressed");
    // The key as the notification in tests/events/s3.json has it, decoded.
    let key = "requests/2026-09-03 19:37.jsonl.gz";
    for bytes in [text.into_bytes(), gzip, zstd] {
        let put = s3.put(BUCKET, key, bytes);
        let folder = tempfile::tempdir().expect("a temporary folder");
        let function =
            Function::start(&variables(folder.path()).set("AWS_ENDPOINT_URL_S3", &s3.url));
        let event = notice("s3.json", &put);
        let id = |line: usize| {
            format!("s3/landed-logs/requests/2026-09-03%2019%3A37.jsonl.gz/{}/{line}", put.0)
        };
        for _delivery in 0..2 {
            let answer = function.invoke(&event);
            assert_eq!((answer.status, answer.body.as_str()), (200, "{}"), "{}", function.log());
            let stored: Vec<String> = (3..20_003).map(id).collect();
            let results = entries(folder.path(), "results.jsonl");
            assert_same_ids("stored", stored.iter().map(String::as_str), ids(&results));
            let dead = entries(folder.path(), "dead.jsonl");
            let expected = [id(1), id(20_003)];
            assert_same_ids("dead", expected.iter().map(String::as_str), ids(&dead));
        }
    }
}

#[test]
fn the_version_that_was_told_of_is_read_and_no_other() {
    let s3 = S3::start();
    s3.create_bucket(BUCKET);
    s3.keep_versions(BUCKET);
    // As tests/events/s3_version.json has it, decoded.
    let key = "requests/web 1+2=3.jsonl";
    let first = s3.put(BUCKET, key, request(1).into_bytes());
    let second = s3.put(BUCKET, key, [request(2), request(3)].concat().into_bytes());
    let folder = tempfile::tempdir().expect("a temporary folder");
    let function = Function::start(&variables(folder.path()).set("AWS_ENDPOINT_URL_S3", &s3.url));
    let mut expected = Vec::new();
    for (put, lines) in [(&first, 1), (&second, 2)] {
        let answer = function.invoke(&notice("s3_version.json", put));
        assert_eq!((answer.status, answer.body.as_str()), (200, "{}"), "{}", function.log());
        let version = put.1.as_deref().expect("a version");
        expected.extend(
            (1..=lines).map(|line| {
                format!("s3/landed-logs/requests/web%201%2B2%3D3.jsonl/{version}/{line}")
            }),
        );
        let results = entries(folder.path(), "results.jsonl");
        assert_same_ids("stored", expected.iter().map(String::as_str), ids(&results));
    }
}

#[test]
fn an_object_that_can_not_be_read_fails_the_invocation() {
    let s3 = S3::start();
    s3.create_bucket(BUCKET);
    let key = "requests/2026-09-03 19:37.jsonl.gz";
    let folder = tempfile::tempdir().expect("a temporary folder");
    let function = Function::start(&variables(folder.path()).set("AWS_ENDPOINT_URL_S3", &s3.url));
    let place = "s3://landed-logs/requests/2026-09-03 19:37.jsonl.gz";

    let gone = notice("s3.json", &("0".repeat(32), None));
    assert_refused(&function.invoke(&gone), &[place, "NoSuchKey"]);
    s3.put(BUCKET, key, request(1).into_bytes());
    assert_refused(&function.invoke(&gone), &[place, "PreconditionFailed"]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
    (0..20_000).for_each(|at| gzip.write_all(request(at).as_bytes()).expect("compressed"));
    let mut bytes = gzip.finish().expect("compressed");
    bytes.truncate(bytes.len() - 100);
    let put = s3.put(BUCKET, key, bytes);
    let answer = function.invoke(&notice("s3.json", &put));
    assert_refused(&answer, &[place, "reading stopped at line", "1 object is not read to its end"]);
    assert!(!function.log().contains("panicked"), "{}", function.log());

    // In a message of SQS it is that message that comes again.
    let body = notice("s3.json", &put);
    let message = |id: &str, body: &str| {
        json!({"eventSource": "aws:sqs", "eventSourceARN": "arn:aws:sqs:eu-central-1:1:q",
            "messageId": id, "body": body})
    };
    let event = json!({"Records": [message("m-1", &request(1)), message("m-2", &body)]});
    let folder = tempfile::tempdir().expect("a temporary folder");
    let partial = variables(folder.path()).set("PARTIAL_BATCH", "true");
    let function = Function::start(&partial.set("AWS_ENDPOINT_URL_S3", &s3.url));
    let answer = function.invoke(&event.to_string());
    let expected = r#"{"batchItemFailures":[{"itemIdentifier":"m-2"}]}"#;
    assert_eq!((answer.status, answer.body.as_str()), (200, expected));
    assert!(ids(&entries(folder.path(), "results.jsonl")).any(|id| id == "sqs/q/m-1"));
}

/// Everything is dead-lettered for want of a model; then one is deployed, and the queue is redriven.
#[test]
fn a_redriven_queue_is_stored_under_the_first_names_and_nothing_twice() {
    let batch = Batch::new(Kafka::Msk, 60);
    let sqs = Sqs::start();
    let queue = sqs.create_queue("dead");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let with_models = |models: Value| {
        variables(folder.path())
            .set("MODEL_URI", models.to_string())
            .set("DEAD_LETTERS_URI", &queue)
            .set("PARTIAL_BATCH", "true")
            .set("AWS_ENDPOINT_URL_SQS", &sqs.url)
    };
    let model = format!("file://{}", folder.path().join("model").display());

    let function = Function::start(&with_models(json!({"other": &model})));
    let answer = function.invoke(&batch.event);
    assert_eq!((answer.status, answer.body.as_str()), (200, ALL_DONE));
    assert!(entries(folder.path(), "results.jsonl").is_empty());
    drop(function);
    let letters = sqs.drain(&queue);
    assert_same_ids("dead-lettered", batch.fates.keys().map(String::as_str), ids(&letters));

    let messages = |queue: &str| {
        let message = |(at, letter): (usize, &Value)| {
            json!({"eventSource": "aws:sqs", "messageId": format!("m-{at}"), "body": letter.to_string(),
                "eventSourceARN": format!("arn:aws:sqs:eu-central-1:000000000000:{queue}")})
        };
        let records: Vec<Value> = letters.iter().enumerate().map(message).collect();
        json!({ "Records": records }).to_string()
    };
    let function = Function::start(&with_models(json!({"requests": &model})));
    for _delivery in 0..2 {
        let answer = function.invoke(&messages("redrive"));
        assert_eq!((answer.status, answer.body.as_str()), (200, ALL_DONE));
        let results = entries(folder.path(), "results.jsonl");
        assert_same_ids("stored", batch.stored(), ids(&results));
        assert_same_ids("poison still", batch.dead(), ids(&sqs.drain(&queue)));
    }
    // From the dead-letter queue itself, what is poison stays there instead of being sent anew.
    let answer = function.invoke(&messages("dead"));
    assert_eq!(answer.status, 200, "{}", answer.body);
    let failures = answer.json()["batchItemFailures"].as_array().expect("failures").len();
    assert_eq!(failures, batch.dead().len());
    assert!(sqs.drain(&queue).is_empty());
}
