//! Dead letters that a message has no room for: their bytes in S3, and a message that says where.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::batch::{assert_same_ids, base64};
use crate::deployment::TIMEOUT;
use crate::faults_model::s3_error;
use crate::faults_sinks::epoch_ms_in;
use crate::function::{Function, Variables, model};
use crate::lambda::Lambda;
use crate::proxy::{Fault, Proxy, status};
use crate::servers::{S3, Sqs};
use crate::sources::{entries, ids};

const ALL_DONE: &str = r#"{"batchItemFailures":[]}"#;

/// A batch of a sound record, a poisoned one of 300 KB and a poisoned one of a few bytes.
struct Poison {
    event: String,
    large: Vec<u8>,
}

impl Poison {
    fn new() -> Self {
        let sound = br#"{"duration_us":5000,"n_spans":3,"service":"cart"}"#;
        let large: Vec<u8> = (0..300_000_u32).map(|i| b'a' + (i % 23) as u8).collect();
        let record = |offset: usize, payload: &[u8]| {
            let (topic, value) = ("requests", base64(payload));
            json!({"topic": topic, "partition": 0, "offset": offset, "value": value})
        };
        let records = [record(0, sound), record(1, &large), record(2, b"small")];
        let event = json!({"eventSource": "SelfManagedKafka", "records": {"requests-0": records}});
        Self { event: event.to_string(), large }
    }
}

struct Setting {
    folder: tempfile::TempDir,
    s3: S3,
    sqs: Sqs,
    queue: String,
}

impl Setting {
    fn start() -> Self {
        let (s3, sqs) = (S3::start(), Sqs::start());
        let queue = sqs.create_queue("dead");
        Self { folder: tempfile::tempdir().expect("a temporary folder"), s3, sqs, queue }
    }

    /// Where the model is.
    fn model(&self) -> String {
        let path = self.folder.path().join("model");
        std::fs::write(&path, model()).expect("the model written");
        format!("file://{}", path.display())
    }

    fn variables(&self, payloads: &str) -> Variables {
        Variables::default()
            .set("MODEL_URI", self.model())
            .set("RESULTS", "none")
            .set("DEAD_LETTERS_URI", &self.queue)
            .set("DEAD_LETTERS_S3_URI", payloads)
            .set("PARTIAL_BATCH", "true")
            .set("AWS_ENDPOINT_URL_SQS", &self.sqs.url)
            .set("AWS_ENDPOINT_URL_S3", &self.s3.url)
    }

    fn function(&self, payloads: &str) -> Function {
        Function::start(&self.variables(payloads))
    }
}

/// SHA-256 by another program than ours.
fn sha256(bytes: &[u8]) -> String {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), bytes).expect("bytes written");
    let run = Command::new("sha256sum").arg(file.path()).output().expect("sha256sum runs");
    let text = String::from_utf8(run.stdout).expect("text");
    text.split_whitespace().next().expect("a checksum").to_owned()
}

fn letter<'l>(letters: &'l [Value], id: &str) -> &'l Value {
    let found: Vec<&Value> = letters.iter().filter(|letter| letter["id"] == id).collect();
    assert_eq!(found.len(), 1, "letters of {id} in {letters:?}");
    found[0]
}

#[test]
fn what_a_message_has_no_room_for_is_in_s3_under_one_key_however_often_delivered() {
    let (setting, poison) = (Setting::start(), Poison::new());
    setting.s3.create_bucket("payloads");
    let function = setting.function("s3://payloads/dead");
    let key = format!("dead/{}", sha256(b"kafka/requests/0/1"));
    for delivery in ["first", "second"] {
        let answer = function.invoke(&poison.event);
        assert_eq!((answer.status, answer.body.as_str()), (200, ALL_DONE), "{delivery}");
        let objects = setting.s3.objects("payloads");
        assert_eq!(objects.keys().collect::<Vec<_>>(), [&key], "{delivery}");
        assert!(objects[&key] == poison.large, "{delivery}: the bytes as they came");

        let letters = setting.sqs.drain(&setting.queue);
        assert_eq!(letters.len(), 2, "{delivery}: {letters:?}");
        let large = letter(&letters, "kafka/requests/0/1");
        assert_eq!(large["payload_s3"], format!("s3://payloads/{key}"), "{large}");
        assert_eq!(large["payload_bytes"], poison.large.len(), "{large}");
        assert_eq!(large["payload_sha256"], sha256(&poison.large), "{large}");
        assert_eq!(large["origin"]["offset"], 1, "{large}");
        assert!(large["reason"].as_str().is_some_and(|reason| reason.len() > 10), "{large}");
        assert!(large.get("payload_base64").is_none(), "{large}");
        let small = letter(&letters, "kafka/requests/0/2");
        assert_eq!(small["payload_base64"], base64(b"small"), "{small}");
        assert!(small.get("payload_s3").is_none(), "{small}");
    }
}

#[test]
fn a_large_record_is_reported_if_s3_does_not_take_it_or_is_not_named() {
    let (setting, poison) = (Setting::start(), Poison::new());
    // There is no bucket.
    for (payloads, words) in [("s3://payloads/dead", "NoSuchBucket"), ("", "DEAD_LETTERS_S3_URI")] {
        let function = setting.function(payloads);
        let answer = function.invoke(&poison.event);
        let failures = json!([{"itemIdentifier": {"partition": "requests-0", "offset": 1}}]);
        let expected = json!({ "batchItemFailures": failures });
        assert_eq!(answer.json(), expected, "{payloads:?}");
        let letters = setting.sqs.drain(&setting.queue);
        assert_eq!(letters.len(), 1, "{payloads:?}: the small one alone: {letters:?}");
        let log = function.log();
        assert!(log.contains(words), "{payloads:?}: expected {words:?} in the log, got {log}");
    }
}

/// The answer that reports the large record alone.
fn large_reported() -> Value {
    let failures = json!([{"itemIdentifier": {"partition": "requests-0", "offset": 1}}]);
    json!({ "batchItemFailures": failures })
}

#[test]
fn a_large_record_is_reported_while_s3_refuses_fails_or_hangs() {
    let (setting, poison) = (Setting::start(), Poison::new());
    setting.s3.create_bucket("payloads");
    let proxy = Proxy::before(&setting.s3.url, 81);
    let variables = setting.variables("s3://payloads/dead").set("AWS_ENDPOINT_URL_S3", &proxy.url);
    let lambda = Lambda::new(&variables, TIMEOUT);
    lambda.warm_up();
    for fault in [
        s3_error(403, "AccessDenied"),
        s3_error(503, "SlowDown"),
        status(500),
        Fault::Close,
        Fault::Hang,
    ] {
        let what = format!("{fault:?}");
        proxy.rule(move |_, _| fault.clone());
        let time = Duration::from_secs(8);
        let deadline = Instant::now() + time;
        let answer = lambda.invoke_until(&poison.event, epoch_ms_in(time));
        assert!(Instant::now() < deadline, "{what}: answered after the deadline");
        assert_eq!(answer.json(), large_reported(), "{what}");
        let letters = setting.sqs.drain(&setting.queue);
        assert!(letters.iter().all(|letter| letter["id"] == "kafka/requests/0/2"), "{what}");
        assert!(setting.s3.objects("payloads").is_empty(), "{what}");
    }
    // Put, but the answer is lost: put again, under the same key.
    let mut left = Some(Fault::LoseAnswer);
    proxy.rule(move |_, _| left.take().unwrap_or(Fault::None));
    let answer = lambda.invoke(&poison.event);
    assert_eq!((answer.status, answer.body.as_str()), (200, ALL_DONE));
    let objects = setting.s3.objects("payloads");
    assert!(objects.len() == 1 && objects.values().all(|bytes| *bytes == poison.large));
    let letters = setting.sqs.drain(&setting.queue);
    letter(&letters, "kafka/requests/0/1");
}

#[test]
fn a_letter_whose_bytes_are_in_s3_is_stored_when_redriven_and_comes_again_while_they_can_not_be_had()
 {
    let setting = Setting::start();
    setting.s3.create_bucket("payloads");
    // Sound records, one of them large, that are dead-lettered for want of a model.
    let large = format!(r#"{{"pad":"{}","duration_us":5000,"n_spans":3}}"#, "x".repeat(300_000));
    let record = |offset: usize, payload: &str| {
        let value = base64(payload.as_bytes());
        json!({"topic": "requests", "partition": 0, "offset": offset, "value": value})
    };
    let records = [record(0, r#"{"duration_us":5000,"n_spans":3}"#), record(1, &large)];
    let event = json!({"eventSource": "SelfManagedKafka", "records": {"requests-0": records}});
    let variables = setting.variables("s3://payloads/dead");
    let models = json!({"other": setting.model()}).to_string();
    let function = Function::start(&variables.clone().set("MODEL_URI", models));
    let answer = function.invoke(&event.to_string());
    assert_eq!((answer.status, answer.body.as_str()), (200, ALL_DONE), "{}", function.log());
    let letters = setting.sqs.drain(&setting.queue);
    let names = ["kafka/requests/0/0", "kafka/requests/0/1"];
    assert_same_ids("dead-lettered", names, ids(&letters));
    assert!(letter(&letters, names[1])["payload_s3"].is_string(), "{letters:?}");

    let message = |letter: &Value| {
        let id = letter["origin"]["offset"].to_string();
        json!({"eventSource": "aws:sqs", "messageId": id, "body": letter.to_string(),
            "eventSourceARN": "arn:aws:sqs:eu-central-1:000000000000:redrive"})
    };
    let messages: Vec<Value> = letters.iter().map(message).collect();
    let event = json!({ "Records": messages }).to_string();
    let proxy = Proxy::before(&setting.s3.url, 82);
    let results = format!("file://{}", setting.folder.path().join("results.jsonl").display());
    let variables = variables
        .set("RESULTS", "all")
        .set("RESULTS_URI", results)
        .set("AWS_ENDPOINT_URL_S3", &proxy.url);
    let lambda = Lambda::new(&variables, TIMEOUT);
    lambda.warm_up();
    for (fault, words) in [
        (s3_error(404, "NoSuchKey"), "NoSuchKey"),
        (s3_error(403, "AccessDenied"), "HTTP 403"),
        (status(503), "HTTP 503"),
        (Fault::Close, ""),
        (Fault::Truncate, ""),
        (Fault::Corrupt, ""),
        (Fault::Hang, "no time left"),
    ] {
        let what = format!("{fault:?}");
        proxy.rule(move |_, _| fault.clone());
        let time = Duration::from_secs(8);
        let deadline = Instant::now() + time;
        let answer = lambda.invoke_until(&event, epoch_ms_in(time));
        assert!(Instant::now() < deadline, "{what}: answered after the deadline");
        let expected = json!({"batchItemFailures": [{"itemIdentifier": "1"}]});
        assert_eq!(answer.json(), expected, "{what}");
        assert_same_ids(
            "stored",
            [names[0]],
            ids(&entries(setting.folder.path(), "results.jsonl")),
        );
        let log = lambda.log();
        assert!(log.contains(words), "{what}: expected {words:?} in the log, got {log}");
    }
    proxy.rule(|_, _| Fault::None);
    for _delivery in 0..2 {
        let answer = lambda.invoke(&event);
        assert_eq!((answer.status, answer.body.as_str()), (200, ALL_DONE));
        assert_same_ids("stored", names, ids(&entries(setting.folder.path(), "results.jsonl")));
    }
    assert!(setting.sqs.drain(&setting.queue).is_empty());
}
