//! Invocation bytes to an [`Event`]: which source called, and every record by itself.
//!
//! The source is found first, by `eventSource`; only then are the records looked at, and each one
//! alone: its JSON text is borrowed from the event, and whatever is wrong with it becomes that
//! record's [`DecodeFault`], never the batch's. Payloads are decoded into one buffer for the whole
//! batch.

mod kafka;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::origin::Origin;

/// Most records in one event. It is Kafka's largest batch; an event source mapping sends no more,
/// and a function sized for its batches would not have the memory for many more.
pub const MAX_RECORDS: usize = 10_000;

/// Longest piece of an event's own text that an error or an origin quotes, in characters.
const MAX_QUOTED_CHARS: usize = 300;

/// One invocation's records.
#[derive(Debug)]
pub struct Event<'a> {
    /// Who called.
    pub source: Source,
    /// The records, in the order of the event.
    pub records: Vec<Record<'a>>,
    /// The keys that records are filed under, for a Kafka event `topic-partition` each.
    groups: Vec<String>,
    /// The decoded payloads, end to end.
    decoded: Vec<u8>,
}

/// An event source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Amazon MSK, `aws:kafka`.
    Msk,
    /// Any other Kafka, `SelfManagedKafka`.
    SelfManagedKafka,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Msk => "aws:kafka",
            Self::SelfManagedKafka => "SelfManagedKafka",
        })
    }
}

/// One record of an event.
#[derive(Debug)]
pub struct Record<'a> {
    /// Where it comes from.
    pub origin: Origin,
    /// When it was made, in milliseconds since 1970, if that is known.
    pub timestamp_ms: Option<i64>,
    /// Index of the key that it is filed under.
    group: usize,
    /// Its payload.
    payload: Payload<'a>,
    /// Why it can't be read, if it can't.
    fault: Option<DecodeFault>,
}

/// Where a record's bytes are.
#[derive(Debug)]
enum Payload<'a> {
    /// In the buffer of decoded payloads.
    Decoded(Range<usize>),
    /// In the event itself: JSON that was delivered as such, or the text of a record that can't be
    /// taken apart.
    Text(&'a str),
}

impl<'a> Event<'a> {
    /// Takes an invocation apart.
    ///
    /// # Errors
    /// [`EventError`] for what is no event of a source that is known, or whose records are not where
    /// they must be. What is wrong with a single record is not among them: see [`Event::payload`].
    pub fn decode(event: &'a RawValue) -> Result<Self, EventError> {
        let envelope = Envelope::read(event)?;
        let source = match envelope.event_source.and_then(text).as_deref() {
            Some("aws:kafka") => Source::Msk,
            Some("SelfManagedKafka") => Source::SelfManagedKafka,
            _ => return Err(EventError::Unsupported { got: envelope.describe() }),
        };
        kafka::decode(source, &envelope)
    }

    /// A record's payload.
    ///
    /// # Errors
    /// Why the record can't be read.
    pub fn payload<'r>(&'r self, record: &'r Record<'a>) -> Result<&'r [u8], &'r DecodeFault> {
        match &record.fault {
            Some(fault) => Err(fault),
            None => Ok(self.original(record)),
        }
    }

    /// The bytes to keep of a record, whatever is wrong with it: its decoded payload, or the JSON
    /// text of the whole record if it has none that can be decoded.
    pub fn original<'r>(&'r self, record: &'r Record<'a>) -> &'r [u8] {
        match &record.payload {
            Payload::Decoded(range) => self.decoded.get(range.clone()).unwrap_or_default(),
            Payload::Text(text) => text.as_bytes(),
        }
    }

    /// The key that a record is filed under in the event, which is how a Kafka answer names its
    /// partition.
    pub fn group(&self, record: &Record<'a>) -> &str {
        self.groups.get(record.group).map_or("", String::as_str)
    }
}

/// The outermost fields of an event, any of them absent and of any type.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, rename = "eventSource")]
    event_source: Option<&'a RawValue>,
    #[serde(borrow, rename = "eventSourceArn")]
    event_source_arn: Option<&'a RawValue>,
    #[serde(borrow)]
    records: Option<&'a RawValue>,
    /// Where other sources keep theirs.
    #[serde(borrow, rename = "Records")]
    capital_records: Option<&'a RawValue>,
}

impl<'a> Envelope<'a> {
    fn read(event: &'a RawValue) -> Result<Self, EventError> {
        if !event.get().starts_with('{') {
            return Err(EventError::Unsupported { got: "json that is no object".to_owned() });
        }
        serde_json::from_str(event.get()).map_err(EventError::Envelope)
    }

    /// What the event says of its source, for a person to read.
    fn describe(&self) -> String {
        if let Some(source) = self.event_source {
            return format!("eventSource {}", quoted(source.get()));
        }
        #[derive(Deserialize)]
        struct First<'a> {
            #[serde(borrow, rename = "eventSource", alias = "EventSource")]
            event_source: Option<&'a RawValue>,
        }
        let first = self
            .capital_records
            .and_then(|records| serde_json::from_str::<Vec<First<'_>>>(records.get()).ok())
            .and_then(|records| records.first().and_then(|first| first.event_source));
        match first {
            Some(source) => format!("Records[0].eventSource {}", quoted(source.get())),
            None => "an event without eventSource".to_owned(),
        }
    }
}

/// The text of a JSON string; `None` for any other JSON.
fn text(raw: &RawValue) -> Option<String> {
    serde_json::from_str(raw.get()).ok()
}

/// At most [`MAX_QUOTED_CHARS`] of a text.
fn quoted(text: &str) -> String {
    text.chars().take(MAX_QUOTED_CHARS).collect()
}

/// Why an invocation can't be taken apart. Nothing of it is processed then.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    /// From a source that is not supported.
    #[error("got {got}; events of Kafka are supported (eventSource aws:kafka or SelfManagedKafka)")]
    Unsupported {
        /// What came.
        got: String,
    },
    /// An envelope that contradicts itself, as by naming a field twice.
    #[error("the event's outermost object can't be read")]
    Envelope(#[source] serde_json::Error),
    /// No records.
    #[error("the event's `records` is no object of lists by topic-partition")]
    Records,
    /// More records than a batch may have.
    #[error("the event has more than {MAX_RECORDS} records")]
    TooMany,
}

/// Why a record can't be read. No message quotes the record.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DecodeFault {
    /// A partition's records are no list.
    #[error("the records of its partition are no list")]
    NotAList,
    /// The record is no JSON object.
    #[error("the record is no json object")]
    NotAnObject,
    /// The record names a field twice.
    #[error("the record can't be read: {0}")]
    Record(#[source] Arc<serde_json::Error>),
    /// A part of the record's place is absent or can't be.
    #[error("its {field} is not {expected}")]
    Place {
        /// `topic`, `partition` or `offset`.
        field: &'static str,
        /// What it must be.
        expected: &'static str,
    },
    /// Topic and partition are other than those of the list that it stands in.
    #[error("its topic and partition are not those that it is filed under")]
    Misfiled,
    /// No value: in Kafka a tombstone, which deletes a key.
    #[error("it has no value (a tombstone)")]
    NoValue,
    /// The value is no base64.
    #[error("its value is not base64")]
    Base64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> Box<RawValue> {
        RawValue::from_string(json.to_owned()).expect("json")
    }

    #[test]
    fn any_other_source_is_refused_by_its_name() {
        for (json, named) in [
            (r#"{"Records":[{"eventSource":"aws:kinesis","kinesis":{}}]}"#, "aws:kinesis"),
            (r#"{"Records":[{"EventSource":"aws:sns"}]}"#, "aws:sns"),
            (r#"{"eventSource":"aws:mq","records":{}}"#, "aws:mq"),
            (r#"{"eventSource":7}"#, "eventSource 7"),
            (r#"{"instances":[]}"#, "without eventSource"),
            (r#"{"Records":[]}"#, "without eventSource"),
            ("[1]", "no object"),
            ("null", "no object"),
        ] {
            let error = Event::decode(&raw(json)).expect_err(json);
            assert!(matches!(error, EventError::Unsupported { .. }), "{json}: {error:?}");
            let message = error.to_string();
            assert!(message.contains(named) && message.contains("Kafka"), "{json}: {message}");
        }
    }

    #[test]
    fn a_long_source_is_not_quoted_at_length() {
        let json = format!(r#"{{"eventSource":"{}"}}"#, "x".repeat(100_000));
        let error = Event::decode(&raw(&json)).expect_err("unknown");
        assert!(error.to_string().len() < 500);
    }

    #[test]
    fn an_envelope_that_contradicts_itself_is_refused() {
        let twice = r#"{"eventSource":"aws:kafka","records":{},"records":{}}"#;
        assert!(matches!(Event::decode(&raw(twice)), Err(EventError::Envelope(_))));
    }
}
