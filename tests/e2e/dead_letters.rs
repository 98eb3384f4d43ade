//! Dead letters that a message has no room for: their bytes in S3, and a message that says where.

use std::process::Command;

use serde_json::{Value, json};

use crate::batch::base64;
use crate::function::{Function, Variables, model};
use crate::servers::{S3, Sqs};

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

    fn function(&self, payloads: &str) -> Function {
        let path = self.folder.path().join("model");
        std::fs::write(&path, model()).expect("the model written");
        Function::start(
            &Variables::default()
                .set("MODEL_URI", format!("file://{}", path.display()))
                .set("RESULTS", "none")
                .set("DEAD_LETTERS_URI", &self.queue)
                .set("DEAD_LETTERS_S3_URI", payloads)
                .set("PARTIAL_BATCH", "true")
                .set("AWS_ENDPOINT_URL_SQS", &self.sqs.url)
                .set("AWS_ENDPOINT_URL_S3", &self.s3.url),
        )
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
