//! Invocation bytes to an [`Event`]: which source called, and every record by itself.
//!
//! The source is found first, by `eventSource`; only then are the records looked at, and each one
//! alone: its JSON text is borrowed from the event, and whatever is wrong with it becomes that
//! record's [`DecodeFault`], never the batch's. Payloads are decoded into one buffer for the whole
//! batch.
//!
//! Where one record of the source holds several log records (a Kinesis record of many lines, an SQS
//! message with a whole event in it), each is a [`Record`] here. All of them are filed under the
//! source's own record ([`Event::group`]), since that is what the answer names.

mod connect;
mod direct;
mod kafka;
mod kinesis;
mod kpl;
mod pieces;
mod s3;
mod sqs;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use sawlog_model::MAX_RECORD_LEN;
use serde::Deserialize;
use serde_json::value::RawValue;

pub use self::direct::{Asked, Form, Request, RequestError, values};
pub use self::s3::Notice;
pub use self::sqs::Pointer;
use crate::origin::Origin;

/// Most records in one event. It is the largest batch of Kafka, Kinesis and SQS; an event source
/// mapping sends no more, and a function sized for its batches would not have the memory for many
/// more.
pub const MAX_RECORDS: usize = 10_000;

/// Most log records taken out of one event where a record may hold several. What is beyond is not
/// looked at and reported failed, so that it comes again. Ten times a batch: an event of 6 MB with
/// more has lines of less than fifty bytes.
pub const MAX_LOG_RECORDS: usize = 100_000;
/// Most bytes of payload taken out of one event, in the same way: ten times an event's own size, since
/// payloads may be compressed, and little enough for a function of 256 MB.
pub const MAX_DECODED_LEN: usize = 64 << 20;

/// Longest piece of an event's own text that an error or an origin quotes, in characters.
const MAX_QUOTED_CHARS: usize = 300;

/// One invocation's records.
#[derive(Debug)]
pub struct Event<'a> {
    /// Who called.
    pub source: Source,
    /// The records, in the order of the event.
    pub records: Vec<Record<'a>>,
    /// Objects whose lines are records too, and are read one object after the other.
    pub notices: Vec<Notice>,
    /// The queue that an event of SQS comes from.
    pub queue: Option<Queue>,
    /// The header that names the columns of these records, if they come with one.
    pub header: Option<Arc<str>>,
    /// The names of [`Event::group`] and [`Event::stream`].
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
    /// A sink connector of Kafka Connect, which invokes the function itself.
    KafkaConnect,
    /// Amazon Kinesis, `aws:kinesis`.
    Kinesis,
    /// Notifications of Amazon S3, `aws:s3`.
    S3,
    /// Amazon SQS, `aws:sqs`.
    Sqs,
    /// Somebody who invokes the function directly.
    Direct,
}

impl Source {
    fn named(name: &str) -> Option<Self> {
        let all = [Self::Msk, Self::SelfManagedKafka, Self::Kinesis, Self::S3, Self::Sqs];
        all.into_iter().find(|source| source.name() == name)
    }

    /// As `eventSource` names it, if the event has one.
    pub fn name(self) -> &'static str {
        match self {
            Self::Msk => "aws:kafka",
            Self::SelfManagedKafka => "SelfManagedKafka",
            Self::KafkaConnect => "kafka-connect",
            Self::Kinesis => "aws:kinesis",
            Self::S3 => "aws:s3",
            Self::Sqs => "aws:sqs",
            Self::Direct => "direct",
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An SQS queue, by its ARN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// The account that has it.
    pub account: String,
    /// Its name.
    pub name: Arc<str>,
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
    /// Index of the name of the ordered stream that it is of.
    stream: usize,
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
    /// In S3, and not fetched yet.
    Elsewhere(Pointer),
}

/// What the function was invoked with.
#[derive(Debug)]
pub enum Invocation<'a> {
    /// An event of a source.
    Event(Event<'a>),
    /// A direct request.
    Request(Request<'a>),
}

impl<'a> Invocation<'a> {
    /// Takes an invocation apart.
    ///
    /// # Errors
    /// [`EventError`] for what is no event of a source that is known and no request, or whose records
    /// are not where they must be. What is wrong with a single record is not among them: see
    /// [`Event::payload`].
    pub fn read(event: &'a RawValue) -> Result<Self, EventError> {
        if let Some(event) = connect::decode(event) {
            return event.map(Self::Event);
        }
        let envelope = Envelope::read(event)?;
        let event = match envelope.source() {
            Some(source @ (Source::Msk | Source::SelfManagedKafka)) => {
                kafka::decode(source, &envelope)
            }
            Some(Source::Kinesis) => kinesis::decode(&envelope),
            Some(Source::S3) => s3::decode(&envelope),
            Some(Source::Sqs) => sqs::decode(&envelope),
            None | Some(Source::Direct | Source::KafkaConnect) => match envelope.request() {
                Some(request) => return Ok(Self::Request(request?)),
                None => Err(EventError::Unsupported { got: envelope.describe() }),
            },
        };
        event.map(Self::Event)
    }
}

impl<'a> Event<'a> {
    /// Takes an event of a source apart.
    ///
    /// # Errors
    /// As [`Invocation::read`], and for a direct request.
    pub fn decode(event: &'a RawValue) -> Result<Self, EventError> {
        match Invocation::read(event)? {
            Invocation::Event(event) => Ok(event),
            Invocation::Request(_) => {
                Err(EventError::Unsupported { got: "a direct request".to_owned() })
            }
        }
    }

    /// A piece of an object's lines, empty yet. `header` is the first line of a CSV that has one.
    pub(crate) fn of_lines(header: Option<Arc<str>>) -> Self {
        Self { header, ..Self::empty(Source::S3, 0) }
    }

    /// Adds a line.
    pub(crate) fn push_line(&mut self, origin: Origin, line: &[u8], fault: Option<DecodeFault>) {
        let payload = self.keep(line);
        self.records.push(Record {
            origin,
            timestamp_ms: None,
            group: 0,
            stream: 0,
            payload,
            fault,
        });
    }

    /// Bytes of all payloads that are decoded.
    pub(crate) fn decoded_len(&self) -> usize {
        self.decoded.len()
    }

    fn empty(source: Source, decoded_len: usize) -> Self {
        Self {
            source,
            records: Vec::new(),
            notices: Vec::new(),
            queue: None,
            header: None,
            groups: Vec::new(),
            decoded: Vec::with_capacity(decoded_len.min(MAX_DECODED_LEN)),
        }
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
            Payload::Elsewhere(_) => &[],
        }
    }

    /// The key that a record is filed under, by which the answer names it: for Kafka
    /// `topic-partition`, for Kinesis the sequence number, for SQS the message's id. Empty if it can't
    /// be read, and for S3, which is not answered.
    pub fn group(&self, record: &Record<'a>) -> &str {
        self.groups.get(record.group).map_or("", String::as_str)
    }

    /// The ordered stream that a record is of, within which those before it are its history: a partition,
    /// a shard, an object, a request. A message of SQS is one by itself, since a queue has no order.
    pub fn stream(&self, record: &Record<'a>) -> &str {
        self.groups.get(record.stream).map_or("", String::as_str)
    }

    /// The key that an object is filed under, as for [`Event::group`].
    pub fn group_of_notice(&self, notice: &Notice) -> &str {
        self.groups.get(notice.group).map_or("", String::as_str)
    }

    /// Payloads that are in S3, with the index of each one's record.
    pub fn pointers(&self) -> impl Iterator<Item = (usize, &Pointer)> {
        let records = self.records.iter().enumerate();
        records.filter_map(|(index, record)| match &record.payload {
            Payload::Elsewhere(pointer) => Some((index, pointer)),
            Payload::Decoded(_) | Payload::Text(_) => None,
        })
    }

    /// Puts what a pointer leads to in its place, or why it can't be had.
    pub fn fetched(&mut self, record: usize, bytes: Result<&[u8], DecodeFault>) {
        let Some(at) = self.records.get_mut(record) else { return };
        match bytes {
            Ok(bytes) => {
                let start = self.decoded.len();
                self.decoded.extend_from_slice(bytes);
                at.payload = Payload::Decoded(start..self.decoded.len());
            }
            Err(fault) => at.fault = Some(fault),
        }
    }

    /// Appends a payload to the buffer.
    fn keep(&mut self, payload: &[u8]) -> Payload<'static> {
        let start = self.decoded.len();
        self.decoded.extend_from_slice(payload);
        Payload::Decoded(start..self.decoded.len())
    }

    /// True if there is room for so many more records with payloads of so many bytes.
    fn has_room(&self, records: usize, bytes: usize) -> bool {
        self.records.len() + records <= MAX_LOG_RECORDS
            && self.decoded.len() + bytes <= MAX_DECODED_LEN
    }

    /// Adds a record whose place can't be read.
    fn push_unplaced(&mut self, group: usize, index: usize, text: &'a str, fault: DecodeFault) {
        let origin = Origin::Unplaced {
            service: self.source.name().into(),
            index,
            content_hash: xxhash_rust::xxh3::xxh3_128(text.as_bytes()),
        };
        let payload = Payload::Text(text);
        self.records.push(Record {
            origin,
            timestamp_ms: None,
            group,
            stream: group,
            payload,
            fault: Some(fault),
        });
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
    /// Where the sources other than Kafka have theirs.
    #[serde(borrow, rename = "Records")]
    capital_records: Option<&'a RawValue>,
    #[serde(borrow, rename = "Event")]
    capital_event: Option<&'a RawValue>,
    /// Of direct requests.
    #[serde(borrow)]
    instances: Option<&'a RawValue>,
    #[serde(borrow)]
    model: Option<&'a RawValue>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
}

impl<'a> Envelope<'a> {
    fn read(event: &'a RawValue) -> Result<Self, EventError> {
        if !event.get().starts_with('{') {
            return Err(EventError::Unsupported { got: "json that is no object".to_owned() });
        }
        serde_json::from_str(event.get()).map_err(EventError::Envelope)
    }

    /// True for what S3 sends when its notifications are set up.
    fn is_s3_test(&self) -> bool {
        self.capital_event.and_then(text).as_deref() == Some("s3:TestEvent")
    }

    /// The source, if it is one that is known.
    fn source(&self) -> Option<Source> {
        if self.is_s3_test() {
            return Some(Source::S3);
        }
        let named = self.event_source.or_else(|| self.first_source());
        named.and_then(text).and_then(|name| Source::named(&name))
    }

    /// The direct request, if it is one: what has an `eventSource` is none.
    fn request(&self) -> Option<Result<Request<'a>, RequestError>> {
        if self.event_source.is_some() || self.capital_records.is_some() {
            return None;
        }
        direct::read(self)
    }

    /// What the first of `Records` says of its source.
    fn first_source(&self) -> Option<&'a RawValue> {
        #[derive(Deserialize)]
        struct First<'a> {
            #[serde(borrow, rename = "eventSource", alias = "EventSource")]
            event_source: Option<&'a RawValue>,
        }
        let first = *self.list().ok()?.first()?;
        serde_json::from_str::<First<'a>>(first.get()).ok()?.event_source
    }

    /// The texts of `Records`.
    fn list(&self) -> Result<Vec<&'a RawValue>, EventError> {
        let records = self.capital_records.ok_or(EventError::NoList)?;
        let records: Vec<&'a RawValue> =
            serde_json::from_str(records.get()).map_err(|_| EventError::NoList)?;
        if records.len() > MAX_RECORDS {
            return Err(EventError::TooMany);
        }
        Ok(records)
    }

    /// What the event says of its source, for a person to read.
    fn describe(&self) -> String {
        match (self.event_source, self.first_source()) {
            (Some(source), _) => format!("eventSource {}", quoted(source.get())),
            (None, Some(source)) => format!("Records[0].eventSource {}", quoted(source.get())),
            (None, None) => "an event without eventSource".to_owned(),
        }
    }
}

/// The text of a JSON string; `None` for any other JSON.
fn text(raw: &RawValue) -> Option<String> {
    serde_json::from_str(raw.get()).ok()
}

/// The text of a JSON string that is not empty.
fn name(raw: Option<&RawValue>) -> Option<String> {
    raw.and_then(text).filter(|text| !text.is_empty())
}

/// At most [`MAX_QUOTED_CHARS`] of a text.
fn quoted(text: &str) -> String {
    text.chars().take(MAX_QUOTED_CHARS).collect()
}

/// Why an invocation can't be taken apart. Nothing of it is processed then.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    /// From a source that is not supported.
    #[error(
        "got {got}; supported are Kafka, Kafka Connect, Kinesis, S3 and SQS (eventSource aws:kafka, \
         SelfManagedKafka, aws:kinesis, aws:s3, aws:sqs), and requests with `instances` or `records`"
    )]
    Unsupported {
        /// What came.
        got: String,
    },
    /// An envelope that contradicts itself, as by naming a field twice.
    #[error("the event's outermost object can't be read")]
    Envelope(#[source] serde_json::Error),
    /// No records, in an event of Kafka.
    #[error("the event's `records` is no object of lists by topic-partition")]
    Records,
    /// No records, in an event of another source.
    #[error("the event's `Records` is no list")]
    NoList,
    /// A direct request that can't be answered.
    #[error(transparent)]
    Request(#[from] RequestError),
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
    /// Of a direct request, neither a string nor an object.
    #[error("it is neither a string nor a json object")]
    NeitherTextNorObject,
    /// The record names a field twice.
    #[error("the record can't be read: {0}")]
    Record(#[source] Arc<serde_json::Error>),
    /// A part of the record's place is absent or can't be.
    #[error("its {field} is not {expected}")]
    Place {
        /// The field, as the event names it.
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
    /// Nothing but white space.
    #[error("it is empty")]
    Empty,
    /// A compressed payload that breaks off, is damaged or too large.
    #[error("its compressed payload can't be read: {0}")]
    Compressed(#[source] Arc<std::io::Error>),
    /// A payload that is longer than one may be.
    #[error("it has more than {limit} bytes")]
    TooLong {
        /// The greatest length.
        limit: usize,
    },
    /// A line of an object that is longer than a record may be.
    #[error(
        "the line has {len} bytes; at most {MAX_RECORD_LEN} are read, and the first {kept} kept"
    )]
    LineTooLong {
        /// Its length.
        len: u64,
        /// How much of it is kept.
        kept: usize,
    },
    /// More log records than one record may hold.
    #[error("it holds more than {limit} log records")]
    TooManyPieces {
        /// The most.
        limit: usize,
    },
    /// Made by the Kinesis Producer Library, and broken.
    #[error("it is a broken aggregate of the Kinesis Producer Library: {what}")]
    Aggregate {
        /// What is wrong with it.
        what: &'static str,
    },
    /// In the form of a dead letter, and broken.
    #[error("it is a broken dead letter: {what}")]
    Letter {
        /// What is wrong with it.
        what: &'static str,
    },
    /// A dead letter of a record whose payload could not be taken out of its event.
    #[error("its payload could not be decoded when it came, and what was kept is no log record")]
    NeverDecoded,
    /// An event within a message that can't be taken apart.
    #[error("the event in it can't be read: {0}")]
    Event(#[source] Arc<EventError>),
    /// The invocation's records are too many already.
    #[error(
        "the invocation has more than {MAX_LOG_RECORDS} log records or {MAX_DECODED_LEN} bytes"
    )]
    NoRoom,
    /// A payload in S3 that can't be had.
    #[error("its payload can't be fetched from S3: {reason}")]
    Fetch {
        /// Why.
        reason: Arc<str>,
    },
}

impl DecodeFault {
    /// True if the record may be readable when it comes again: it is no poison.
    pub fn comes_again(&self) -> bool {
        matches!(self, Self::NoRoom | Self::Fetch { .. })
    }
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
            (r#"{"Records":[{"eventSource":"aws:dynamodb"}]}"#, "aws:dynamodb"),
            (r#"{"Records":[{"EventSource":"aws:sns"}]}"#, "aws:sns"),
            (r#"{"eventSource":"aws:mq","records":{}}"#, "aws:mq"),
            (r#"{"eventSource":7}"#, "eventSource 7"),
            (r#"{"things":[]}"#, "without eventSource"),
            (r#"{"eventSource":"aws:mq","instances":[]}"#, "aws:mq"),
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
