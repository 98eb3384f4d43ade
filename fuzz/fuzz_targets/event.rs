//! Any bytes where an invocation has bytes of strangers: the whole event, and what a record of each
//! source carries, so that base64, compression, aggregates and messages within messages are passed.
//! The first byte picks the place. Every record that comes of it has an identity, bytes to keep and
//! a point or a reason.
#![no_main]

use std::sync::LazyLock;

use base64_simd::STANDARD;
use libfuzzer_sys::fuzz_target;
use md5::{Digest as _, Md5};
use sawlog_fuzz::event::{Asked, Event, Invocation, MAX_LOG_RECORDS, values};
use sawlog_fuzz::origin::MAX_IDENTITY_LEN;
use sawlog_fuzz::{encodes, within};
use sawlog_model::{Features, ValidSpec, Value, read_record};
use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};

static FEATURES: LazyLock<Features> = LazyLock::new(|| {
    let toml = r#"
format = "json"
[[feature]]
name = "a"
field = "/a"
[[feature]]
name = "b"
field = "/b"
encode = "one_hot"
"#;
    let spec = ValidSpec::from_toml(toml).expect("good specification");
    let rows: Vec<Vec<Value>> = [br#"{"a":1,"b":"x"}"#, br#"{"a":2,"b":"y"}"#]
        .iter()
        .map(|record| read_record(&spec, *record).expect("good record"))
        .collect();
    let rows: Vec<&[Value]> = rows.iter().map(Vec::as_slice).collect();
    Features::fit(spec, &rows).expect("not constant")
});

/// What is taken out of one event by its own limits, with the reallocation that brings it there, and
/// the records; then the text itself in several forms.
const BASE: usize = 256 << 20;
const FACTOR: usize = 64;

fuzz_target!(|data: &[u8]| {
    let Some((&place, payload)) = data.split_first() else { return };
    let Some(event) = event(place, payload) else { return };
    within(FACTOR * data.len() + BASE, || match Invocation::read(&event) {
        Ok(Invocation::Event(event)) => every_record(&event),
        Ok(Invocation::Request(request)) => match request.asked {
            Asked::Records(event) => every_record(&event),
            Asked::Instances(instances) => {
                for instance in instances {
                    match values(&FEATURES, instance) {
                        Ok(values) => assert_eq!(values.len(), FEATURES.names().count()),
                        Err(reason) => assert!(!reason.is_empty()),
                    }
                }
            }
        },
        Err(error) => assert!(!error.to_string().is_empty()),
    });
});

fn event(place: u8, payload: &[u8]) -> Option<Box<RawValue>> {
    let base64 = || STANDARD.encode_to_string(payload);
    let text = || String::from_utf8_lossy(payload);
    let kinesis = |data: String| {
        json!({"Records": [{"eventSource": "aws:kinesis", "eventID": "shardId-000000000000:49",
            "eventSourceARN": "arn:aws:kinesis:r:1:stream/s",
            "kinesis": {"sequenceNumber": "49", "data": data}}]})
    };
    let message = |body: &str| {
        json!({"Records": [{"eventSource": "aws:sqs", "messageId": "m",
            "eventSourceARN": "arn:aws:sqs:r:1:q", "body": body}]})
    };
    let event = match place % 8 {
        0 => return serde_json::from_slice(payload).ok(),
        1 => json!({"eventSource": "aws:kafka", "records": {"t-0": [
            {"topic": "t", "partition": 0, "offset": 0, "value": base64()}]}}),
        2 => kinesis(base64()),
        3 => {
            // An aggregate whose digest is right, so that its message is looked at.
            let digest = Md5::digest(payload);
            let whole = [&[0xf3, 0x89, 0x9a, 0xc2], payload, digest.as_slice()].concat();
            kinesis(STANDARD.encode_to_string(whole))
        }
        4 => message(&text()),
        5 => message(
            &json!({"id": "kafka/t/0/1", "reason": "r", "time_ms": 1, "payload_base64": base64(),
                "origin": {"source": "kafka", "topic": "t", "partition": 0, "offset": 1}})
            .to_string(),
        ),
        6 => json!({"id": "i", "records": [text()]}),
        _ => json!({"Records": [{"eventSource": "aws:s3", "eventName": "ObjectCreated:Put",
            "s3": {"bucket": {"name": "logs"}, "object": {"key": text(), "size": 1}}}]}),
    };
    Some(to_raw_value(&event).expect("json"))
}

/// An outcome for every record: a point, or a reason to say with its bytes.
fn every_record(event: &Event<'_>) {
    assert!(event.records.len() <= MAX_LOG_RECORDS + 1, "{} records", event.records.len());
    for record in &event.records {
        let identity = record.origin.identity();
        assert!((1..=MAX_IDENTITY_LEN).contains(&identity.len()), "identity {identity:?}");
        let _ = (event.group(record), event.stream(record), event.original(record));
        match event.payload(record) {
            Ok(payload) => drop(encodes(&FEATURES, payload)),
            Err(fault) => assert!(!fault.to_string().is_empty()),
        }
    }
    for notice in &event.notices {
        let _ = event.group_of_notice(notice);
    }
}
