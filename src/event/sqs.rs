//! Events of SQS: dead letters that are redriven, events of other sources, or log records.
//!
//! ```json
//! {"Records": [{"eventSource": "aws:sqs", "eventSourceARN": "arn:aws:sqs:REGION:ACCOUNT:QUEUE",
//!   "messageId": "059f36b4-…", "body": "…", "attributes": {"SentTimestamp": "1545082649183"}}]}
//! ```
//!
//! A body is, by its form:
//!
//! - a dead letter of Sawlog's: the record is taken to be where it first was, so that what is written
//!   of it now is what would have been written then;
//! - an event of Kafka, Kinesis or S3, or Lambda's own record of an asynchronous invocation that failed
//!   with such an event in it: the event's records;
//! - anything else: one log record.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{DecodeFault, Envelope, Event, EventError, Payload, Queue, Record, Source, name, text};
use crate::origin::Origin;

/// Longest payload that is fetched for a dead letter: one log record, of which the dead letter's own
/// writer knew no longer one.
pub const MAX_POINTED_LEN: u64 = 16 << 20;

/// Where a dead letter's payload is that was too large for its message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointer {
    /// The bucket.
    pub bucket: String,
    /// The key.
    pub key: String,
    /// Its length in bytes, at most `MAX_POINTED_LEN`.
    pub len: u64,
    /// Its SHA-256, hexadecimal.
    pub sha256: String,
}

pub(super) fn decode<'a>(envelope: &Envelope<'a>) -> Result<Event<'a>, EventError> {
    let texts = envelope.list()?;
    let len: usize = texts.iter().map(|text| text.get().len()).sum();
    let mut event = Event::empty(Source::Sqs, len);
    for (index, text) in texts.into_iter().enumerate() {
        let text = text.get();
        let group = event.groups.len();
        match Message::read(text) {
            Ok(message) => {
                event.groups.push(message.id.to_string());
                event.queue.get_or_insert_with(|| message.queue.clone());
                message.push(&mut event, group, text);
            }
            Err(fault) => {
                event.groups.push(String::new());
                event.push_unplaced(group, index, text, fault);
            }
        }
    }
    Ok(event)
}

/// What is read of a message; fields of any type.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields<'a> {
    #[serde(borrow)]
    message_id: Option<&'a RawValue>,
    #[serde(borrow)]
    body: Option<&'a RawValue>,
    #[serde(borrow, rename = "eventSourceARN")]
    event_source_arn: Option<&'a RawValue>,
    #[serde(borrow)]
    attributes: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Attributes<'a> {
    #[serde(borrow, rename = "SentTimestamp")]
    sent_timestamp: Option<&'a RawValue>,
}

/// A message whose place can be read.
struct Message {
    queue: Queue,
    id: Arc<str>,
    body: Option<String>,
    timestamp_ms: Option<i64>,
}

impl Message {
    fn read(text: &str) -> Result<Self, DecodeFault> {
        let place = |field, expected| DecodeFault::Place { field, expected };
        if !text.starts_with('{') {
            return Err(DecodeFault::NotAnObject);
        }
        let fields: Fields<'_> =
            serde_json::from_str(text).map_err(|error| DecodeFault::Record(Arc::new(error)))?;
        let id = name(fields.message_id).ok_or(place("messageId", "a string that is not empty"))?;
        let queue = name(fields.event_source_arn).and_then(|arn| Queue::of_arn(&arn));
        let queue = queue.ok_or(place("eventSourceARN", "the ARN of a queue"))?;
        let attributes = fields.attributes.map(|attributes| attributes.get());
        let attributes =
            attributes.and_then(|text| serde_json::from_str::<Attributes<'_>>(text).ok());
        let sent = attributes.and_then(|attributes| name(attributes.sent_timestamp));
        let timestamp_ms = sent.and_then(|sent| sent.parse().ok()).filter(|&ms: &i64| ms >= 0);
        Ok(Self { queue, id: id.into(), body: fields.body.and_then(super::text), timestamp_ms })
    }

    fn origin(&self) -> Origin {
        Origin::Sqs { queue: Arc::clone(&self.queue.name), message_id: Arc::clone(&self.id) }
    }

    /// Adds the records that are in it.
    fn push<'a>(&self, event: &mut Event<'a>, group: usize, text: &'a str) {
        let one = |payload, fault| Record {
            origin: self.origin(),
            timestamp_ms: self.timestamp_ms,
            group,
            stream: group,
            payload,
            fault,
        };
        let Some(body) = &self.body else {
            let fault = DecodeFault::Place { field: "body", expected: "a string" };
            event.records.push(one(Payload::Text(text), Some(fault)));
            return;
        };
        // Of a letter the payload is shorter than its body, and of an event its records are.
        if !event.has_room(1, body.len()) {
            event.records.push(one(Payload::Text(text), Some(DecodeFault::NoRoom)));
            return;
        }
        let fault = match Body::of(body) {
            Body::Letter(letter) => match letter.record(event, group) {
                Ok(record) => {
                    event.records.push(record);
                    return;
                }
                Err(what) => DecodeFault::Letter { what },
            },
            Body::Event(Ok(inner)) => match absorb(event, group, &inner) {
                Ok(()) => return,
                Err(fault) => fault,
            },
            Body::Event(Err(error)) => DecodeFault::Event(Arc::new(error)),
            Body::Record => {
                let payload = event.keep(body.as_bytes());
                event.records.push(one(payload, None));
                return;
            }
        };
        let payload = event.keep(body.as_bytes());
        event.records.push(one(payload, Some(fault)));
    }
}

/// Takes over the records of an event that was in a message.
fn absorb(event: &mut Event<'_>, group: usize, inner: &Event<'_>) -> Result<(), DecodeFault> {
    let len = inner.records.iter().map(|record| inner.original(record).len()).sum();
    if !event.has_room(inner.records.len(), len) {
        return Err(DecodeFault::NoRoom);
    }
    let mut streams = HashMap::new();
    for record in &inner.records {
        let payload = event.keep(inner.original(record));
        let stream = *streams.entry(inner.stream(record)).or_insert_with(|| {
            event.groups.push(format!("{}/{}", event.groups[group], inner.stream(record)));
            event.groups.len() - 1
        });
        event.records.push(Record {
            origin: record.origin.clone(),
            timestamp_ms: record.timestamp_ms,
            group,
            stream,
            payload,
            fault: record.fault.clone(),
        });
    }
    let notices = inner.notices.iter().cloned();
    event.notices.extend(notices.map(|notice| super::Notice { group, ..notice }));
    Ok(())
}

/// What a message is.
enum Body<'b> {
    Letter(Letter<'b>),
    Event(Result<Event<'b>, EventError>),
    Record,
}

/// A dead letter, as `sinks.rs` writes it; fields of any type.
#[derive(Deserialize)]
struct Letter<'b> {
    #[serde(borrow)]
    id: Option<&'b RawValue>,
    #[serde(borrow)]
    origin: Option<&'b RawValue>,
    #[serde(borrow)]
    payload_base64: Option<&'b RawValue>,
    #[serde(borrow)]
    payload_s3: Option<&'b RawValue>,
    #[serde(borrow)]
    payload_bytes: Option<&'b RawValue>,
    #[serde(borrow)]
    payload_sha256: Option<&'b RawValue>,
    #[serde(borrow)]
    undecoded: Option<&'b RawValue>,
}

/// Lambda's record of an asynchronous invocation that failed.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FailedInvocation<'b> {
    #[serde(borrow)]
    request_context: Option<&'b RawValue>,
    #[serde(borrow)]
    request_payload: Option<&'b RawValue>,
}

impl<'b> Body<'b> {
    fn of(body: &'b str) -> Self {
        let Ok(raw) = serde_json::from_str::<&RawValue>(body) else { return Self::Record };
        if !raw.get().starts_with('{') {
            return Self::Record;
        }
        if let Ok(letter) = serde_json::from_str::<Letter<'b>>(raw.get())
            && letter.id.is_some()
            && letter.origin.is_some()
            && (letter.payload_base64.is_some() || letter.payload_s3.is_some())
        {
            return Self::Letter(letter);
        }
        let failed = serde_json::from_str::<FailedInvocation<'b>>(raw.get()).ok();
        let failed = failed.filter(|failed| failed.request_context.is_some());
        let event = failed.and_then(|failed| failed.request_payload).unwrap_or(raw);
        match Envelope::read(event).ok().and_then(|envelope| envelope.source()) {
            // A message in a message would be one without end.
            None | Some(Source::Sqs) => Self::Record,
            Some(_) => Self::Event(Event::decode(event)),
        }
    }
}

impl Letter<'_> {
    /// The record that it is of, where it first was.
    fn record<'a>(&self, event: &mut Event<'a>, group: usize) -> Result<Record<'a>, &'static str> {
        let origin = self.origin.map(|origin| serde_json::from_str::<Origin>(origin.get()));
        let origin = origin.and_then(Result::ok).ok_or("its origin can't be read")?;
        if self.id.and_then(text) != Some(origin.identity()) {
            return Err("its id is not that of its origin");
        }
        let payload = match (self.payload_base64, self.payload_s3) {
            (Some(payload), None) => {
                let payload = text(payload).ok_or("its payload is no string")?;
                let payload = base64_simd::STANDARD.decode_to_vec(payload);
                event.keep(&payload.map_err(|_| "its payload is not base64")?)
            }
            (None, Some(uri)) => Payload::Elsewhere(self.pointer(uri)?),
            _ => return Err("it has a payload and a pointer"),
        };
        let undecoded = self.undecoded.is_some_and(|undecoded| undecoded.get() == "true");
        let fault = undecoded.then_some(DecodeFault::NeverDecoded);
        Ok(Record { origin, timestamp_ms: None, group, stream: group, payload, fault })
    }

    fn pointer(&self, uri: &RawValue) -> Result<Pointer, &'static str> {
        let uri = text(uri);
        let place = uri.as_deref().and_then(|uri| uri.strip_prefix("s3://")?.split_once('/'));
        let place = place.filter(|(bucket, key)| !bucket.is_empty() && !key.is_empty());
        let (bucket, key) = place.ok_or("its payload_s3 is not s3://bucket/key")?;
        let len = self.payload_bytes.and_then(|len| len.get().parse().ok());
        let len = len.filter(|len| *len <= MAX_POINTED_LEN);
        let len = len.ok_or("its payload_bytes is no length, or too great")?;
        let sha256 = self.payload_sha256.and_then(text).filter(|hash| hash.len() == 64);
        let sha256 = sha256.ok_or("its payload_sha256 is no hash")?.to_ascii_lowercase();
        Ok(Pointer { bucket: bucket.to_owned(), key: key.to_owned(), len, sha256 })
    }
}

impl Queue {
    /// The queue of `arn:aws:sqs:region:account:name`.
    fn of_arn(arn: &str) -> Option<Self> {
        let mut parts = arn.split(':').skip(2);
        let (service, _region) = (parts.next()?, parts.next()?);
        let (account, name) = (parts.next()?, parts.next()?);
        let sound = service == "sqs" && !name.is_empty() && parts.next().is_none();
        sound.then(|| Self { account: account.to_owned(), name: name.into() })
    }

    /// The queue of `https://host/account/name`.
    pub(crate) fn of_url(url: &str) -> Option<Self> {
        let (rest, name) = url.rsplit_once('/')?;
        let (_, account) = rest.rsplit_once('/')?;
        Some(Self { account: account.to_owned(), name: name.into() })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::sinks::DeadLetter;

    fn event(bodies: &[&str]) -> Box<RawValue> {
        let record = |(index, body): (usize, &&str)| {
            json!({
                "eventSource": "aws:sqs",
                "eventSourceARN": "arn:aws:sqs:eu-central-1:123456789012:redrive",
                "messageId": format!("m-{index}"),
                "body": body,
                "attributes": { "SentTimestamp": "1545082649183" },
            })
        };
        let records: Vec<_> = bodies.iter().enumerate().map(record).collect();
        serde_json::value::to_raw_value(&json!({ "Records": records })).expect("json")
    }

    /// Message, identity and payload of every record.
    fn read(raw: &RawValue) -> Vec<(String, String, Result<String, String>)> {
        let event = Event::decode(raw).expect("an event");
        let of = |record: &Record<'_>| {
            let payload = event.payload(record).map(|bytes| String::from_utf8_lossy(bytes).into());
            let group = event.group(record).to_owned();
            (group, record.origin.identity(), payload.map_err(ToString::to_string))
        };
        event.records.iter().map(of).collect()
    }

    fn letter(undecoded: bool) -> String {
        let origin = Origin::Kafka { cluster: None, topic: "t".into(), partition: 3, offset: 7 };
        let reason = "why".into();
        let letter =
            DeadLetter { origin: &origin, reason, time_ms: 5, payload: b"payload", undecoded };
        serde_json::to_string(&letter).expect("json")
    }

    #[test]
    fn a_dead_letter_is_its_record_again() {
        let records = read(&event(&[&letter(false), &letter(true)]));
        let identity = "kafka/t/3/7".to_owned();
        assert_eq!(records[0], ("m-0".into(), identity.clone(), Ok("payload".into())));
        assert_eq!((&records[1].0[..], &records[1].1), ("m-1", &identity));
        let fault = records[1].2.as_ref().expect_err("it never was a payload");
        assert!(fault.contains("could not be decoded"), "{fault}");
    }

    #[test]
    fn a_broken_dead_letter_is_the_message_itself_and_poison() {
        for (from, to, what) in [
            ("kafka/t/3/7", "kafka/t/3/8", "its id is not that of its origin"),
            ("\"kafka\"", "\"carrier pigeon\"", "its origin can't be read"),
            ("cGF5bG9hZA==", "*", "its payload is not base64"),
            (
                "\"payload_base64\"",
                "\"payload_s3\":\"s3://b/k\",\"payload_base64\"",
                "it has a payload and a pointer",
            ),
        ] {
            let body = letter(false).replace(from, to);
            let records = read(&event(&[&body]));
            let expected = Err(format!("it is a broken dead letter: {what}"));
            assert_eq!(records, [("m-0".into(), "sqs/redrive/m-0".into(), expected)]);
        }
    }

    #[test]
    fn a_letter_that_points_to_s3_waits_for_its_payload() {
        let hash = "0A".repeat(32);
        let pointer = format!(
            r#""payload_s3":"s3://dead/a/b.bin","payload_bytes":7,"payload_sha256":"{hash}""#
        );
        let body = letter(false).replace(r#""payload_base64":"cGF5bG9hZA==""#, &pointer);
        let raw = event(&[&body, &body]);
        let mut event = Event::decode(&raw).expect("an event");
        let pointers: Vec<(usize, Pointer)> =
            event.pointers().map(|(at, pointer)| (at, pointer.clone())).collect();
        let pointer = Pointer {
            bucket: "dead".into(),
            key: "a/b.bin".into(),
            len: 7,
            sha256: "0a".repeat(32),
        };
        assert_eq!(pointers, [(0, pointer.clone()), (1, pointer)]);
        event.fetched(0, Ok(b"payload"));
        event.fetched(1, Err(DecodeFault::Fetch { reason: "gone".into() }));
        assert_eq!(event.payload(&event.records[0]).expect("fetched"), b"payload");
        assert!(event.payload(&event.records[1]).expect_err("gone").comes_again());
    }

    #[test]
    fn an_event_in_a_message_is_its_records() {
        let kafka = r#"{"eventSource":"SelfManagedKafka","records":{"t-0":[
            {"offset":1,"value":"YQ=="},{"offset":2,"value":"*"},{"offset":3,"value":{"b":1}}]}}"#;
        let records = read(&event(&["a line", kafka]));
        let got: Vec<(&str, &str)> =
            records.iter().map(|(group, id, _)| (group.as_str(), id.as_str())).collect();
        let expected = [
            ("m-0", "sqs/redrive/m-0"),
            ("m-1", "kafka/t/0/1"),
            ("m-1", "kafka/t/0/2"),
            ("m-1", "kafka/t/0/3"),
        ];
        assert_eq!(got, expected);
        let payloads: Vec<_> = records.into_iter().map(|(_, _, payload)| payload).collect();
        let ok = |text: &str| Ok(text.to_owned());
        let fault = Err("its value is not base64".to_owned());
        assert_eq!(payloads, [ok("a line"), ok("a"), fault, ok(r#"{"b":1}"#)]);

        let records = read(&event(&[r#"{"eventSource":"aws:kafka","records":7}"#]));
        assert!(records[0].2.as_ref().expect_err("no records").contains("the event in it"));
    }

    #[test]
    fn notices_of_s3_in_a_message_are_filed_under_it() {
        let s3 = r#"{"Records":[{"eventSource":"aws:s3","s3":{"bucket":{"name":"b"},"object":{"key":"a+b"}}}]}"#;
        let failed = format!(
            r#"{{"version":"1.0","requestContext":{{"condition":"RetriesExhausted"}},"requestPayload":{s3}}}"#
        );
        let test = r#"{"Service":"Amazon S3","Event":"s3:TestEvent","Bucket":"b"}"#;
        let raw = event(&[s3, &failed, test]);
        let event = Event::decode(&raw).expect("an event");
        assert!(event.records.is_empty());
        let notices: Vec<_> = event
            .notices
            .iter()
            .map(|notice| (event.group_of_notice(notice), &*notice.key))
            .collect();
        assert_eq!(notices, [("m-0", "a b"), ("m-1", "a b")]);
    }

    #[test]
    fn anything_else_is_a_log_record() {
        let nested = r#"{"Records":[{"eventSource":"aws:sqs","messageId":"m","body":"b"}]}"#;
        for body in ["", "a line", "{}", "[1]", r#"{"id":"x","origin":{}}"#, nested, "{\"a\":"] {
            let records = read(&event(&[body]));
            assert_eq!(records, [("m-0".into(), "sqs/redrive/m-0".into(), Ok(body.into()))]);
        }
        let raw = event(&["a"]);
        let event = Event::decode(&raw).expect("an event");
        assert_eq!(event.records[0].timestamp_ms, Some(1_545_082_649_183));
        let url = "http://127.0.0.1:9324/123456789012/redrive";
        assert_eq!(event.queue, Queue::of_url(url));
    }

    #[test]
    fn a_message_without_a_place_or_body_is_poison() {
        let sound = event(&["a"]).get().to_owned();
        for (from, to, fault) in [
            (r#""messageId":"m-0""#, r#""messageId":null"#, "its messageId is not"),
            ("arn:aws:sqs:", "arn:aws:sns:", "its eventSourceARN is not"),
            (r#""body":"a""#, r#""body":{"a":1}"#, "its body is not a string"),
        ] {
            let changed = sound.replace(from, to);
            assert_ne!(changed, sound);
            let raw = RawValue::from_string(changed).expect("json");
            let got = read(&raw)[0].2.clone().expect_err(fault);
            assert!(got.contains(fault), "{got}");
        }
    }
}
