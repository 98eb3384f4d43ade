//! Outcomes to the answer that the event source expects.
//!
//! Poison is never an error to the source: a record that was dead-lettered is done. What failed must
//! come again, and how that is said depends on the source and on its mapping:
//!
//! - As a rule a mapping takes no partial answer: one failed record fails the invocation, and the
//!   whole batch comes again. Records already written are then written again, which changes nothing.
//! - With `PARTIAL_BATCH=true` (a mapping with `ReportBatchItemFailures`, for Kafka in provisioned mode)
//!   the answer names what failed:
//!   - Kafka `{"batchItemFailures":[{"itemIdentifier":{"partition":"orders-3","offset":100}}]}`. AWS's
//!     documentation says that the items named come again; others say that reading resumes at the
//!     offset named. Every unfinished offset is named, in ascending order, so that under either
//!     reading none is passed over.
//!   - Kinesis `{"batchItemFailures":[{"itemIdentifier":"4959033…"}]}`, by sequence number. The lowest
//!     is the checkpoint, and everything after it comes again; every one that failed is named.
//!   - SQS in the same form, by message id.
//! - A connector of Kafka Connect takes every answer for success: one failed record fails the invocation.
//! - S3's notifications are not answered: one object that isn't done fails the invocation, and Lambda
//!   tries it again.
//! - Who invokes directly is answered with scores or verdicts.

use serde::ser::{SerializeMap as _, Serializer};
use serde::{Serialize, ser};
use serde_json::value::RawValue;

use crate::event::{Event, Source};
use crate::handler::Outcome;
use crate::origin::Origin;

/// The answer to whoever invoked the function.
#[derive(Debug, Clone)]
pub enum Response {
    /// `{"batchItemFailures":[…]}`: what must come again; nothing if every record is done.
    Batch(Vec<Item>),
    /// `{}`: done, and nobody reads it.
    Done,
    /// `{"scores":[{"score":0.02},…]}`, as SageMaker's endpoint answers.
    Scores(Vec<f32>),
    /// `{"verdicts":[…]}`: each a verdict, or `{"error":…}`.
    Verdicts(Vec<Box<RawValue>>),
}

/// Something that must come again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Item {
    /// A record of Kafka.
    Kafka {
        /// The key that the event files it under, `topic-partition`.
        partition: String,
        /// Its offset.
        offset: i64,
    },
    /// A record of Kinesis by its sequence number, a message of SQS by its id.
    Named(String),
}

impl Response {
    /// What must come again, as far as the answer names it.
    pub fn failures(&self) -> &[Item] {
        match self {
            Self::Batch(items) => items,
            Self::Done | Self::Scores(_) | Self::Verdicts(_) => &[],
        }
    }
}

/// `{key: value}`
struct One<T>(&'static str, T);

impl<T: Serialize> Serialize for One<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry(self.0, &self.1)?;
        map.end()
    }
}

impl Serialize for Response {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Batch(items) => {
                let items = items.iter().map(|item| One("itemIdentifier", item));
                One("batchItemFailures", items.collect::<Vec<_>>()).serialize(serializer)
            }
            Self::Done => ser::SerializeMap::end(serializer.serialize_map(Some(0))?),
            Self::Scores(scores) => {
                let scores = scores.iter().map(|score| One("score", score));
                One("scores", scores.collect::<Vec<_>>()).serialize(serializer)
            }
            Self::Verdicts(verdicts) => One("verdicts", verdicts).serialize(serializer),
        }
    }
}

impl Serialize for Item {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Kafka { partition, offset } => {
                let mut map = serializer.serialize_map(Some(2))?;
                map.serialize_entry("partition", partition)?;
                map.serialize_entry("offset", offset)?;
                map.end()
            }
            Self::Named(name) => serializer.serialize_str(name),
        }
    }
}

/// The answer, or `None` where only a failed invocation makes what failed come again: without
/// `partial_batch`, from S3 or Kafka Connect, or if something failed that the answer has no name for. `unread` are the
/// indexes of the notices whose objects are not done.
pub fn answer(
    event: &Event<'_>,
    outcomes: &[Outcome],
    unread: &[usize],
    partial_batch: bool,
) -> Option<Response> {
    let records = event.records.iter().zip(outcomes);
    let failed: Vec<_> =
        records.filter(|(_, outcome)| matches!(outcome, Outcome::Failed { .. })).collect();
    if failed.is_empty() && unread.is_empty() {
        return Some(match event.source {
            Source::S3 | Source::Direct => Response::Done,
            _ => Response::Batch(Vec::new()),
        });
    }
    if !partial_batch {
        return None;
    }
    let named = |name: &str| (!name.is_empty()).then(|| Item::Named(name.to_owned()));
    let records = failed.into_iter().map(|(record, _)| match (event.source, &record.origin) {
        (Source::Msk | Source::SelfManagedKafka, Origin::Kafka { offset, .. }) => {
            Some(Item::Kafka { partition: event.group(record).to_owned(), offset: *offset })
        }
        (Source::Kinesis | Source::Sqs, _) => named(event.group(record)),
        _ => None,
    });
    let notices = unread.iter().map(|&notice| match event.source {
        Source::Sqs => named(event.group_of_notice(event.notices.get(notice)?)),
        _ => None,
    });
    let mut items: Vec<Item> = records.chain(notices).collect::<Option<_>>()?;
    items.sort_unstable();
    items.dedup();
    Some(Response::Batch(items))
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;
    use crate::sinks::SinkError;

    const RECORDS: &str = r#"{"eventSource":"SelfManagedKafka","records":{
        "b-1":[{"offset":100,"value":"YQ=="},{"offset":101,"value":"YQ=="},{"offset":102,"value":"YQ=="}],
        "a-0":[{"offset":9,"value":"YQ=="},{"offset":10,"value":"YQ=="},{"value":"YQ=="}]}}"#;

    /// The answer if the records at the given indexes failed.
    fn answer_to(failed: &[usize], partial_batch: bool) -> Option<String> {
        let raw = RawValue::from_string(RECORDS.to_owned()).expect("json");
        let event = Event::decode(&raw).expect("event");
        let outcomes: Vec<Outcome> = (0..event.records.len())
            .map(|index| match index {
                _ if failed.contains(&index) => {
                    Outcome::Failed { reason: SinkError::OutOfTime.into() }
                }
                5 => Outcome::DeadLettered,
                _ => Outcome::Stored,
            })
            .collect();
        let response = answer(&event, &outcomes, &[], partial_batch)?;
        Some(serde_json::to_string(&response).expect("json"))
    }

    #[test]
    fn a_batch_that_is_done_is_answered_by_an_empty_list() {
        for partial_batch in [false, true] {
            let done = answer_to(&[], partial_batch);
            assert_eq!(done.as_deref(), Some(r#"{"batchItemFailures":[]}"#));
        }
    }

    #[test]
    fn without_partial_answers_one_failure_fails_the_batch() {
        assert_eq!(answer_to(&[1], false), None);
    }

    #[test]
    fn every_unfinished_offset_is_named_in_ascending_order() {
        assert_eq!(
            answer_to(&[2, 1, 4], true).as_deref(),
            Some(concat!(
                r#"{"batchItemFailures":["#,
                r#"{"itemIdentifier":{"partition":"a-0","offset":10}},"#,
                r#"{"itemIdentifier":{"partition":"b-1","offset":101}},"#,
                r#"{"itemIdentifier":{"partition":"b-1","offset":102}}]}"#
            ))
        );
    }

    #[test]
    fn a_failed_record_without_an_offset_fails_the_batch() {
        assert_eq!(answer_to(&[0, 5], true), None);
    }

    #[test]
    fn kinesis_and_sqs_are_answered_by_name_and_each_name_once() {
        let kinesis = |number: u32, data: &str| {
            format!(
                r#"{{"eventSource":"aws:kinesis","eventID":"s:{number}","eventSourceARN":"arn:aws:kinesis:r:1:stream/l",
                "kinesis":{{"sequenceNumber":"{number}","data":"{}"}}}}"#,
                base64_simd::STANDARD.encode_to_string(data)
            )
        };
        let json = format!(r#"{{"Records":[{},{}]}}"#, kinesis(1, "a\nb"), kinesis(2, "c\nd"));
        let raw = RawValue::from_string(json).expect("json");
        let event = Event::decode(&raw).expect("event");
        let failed = Outcome::Failed { reason: SinkError::OutOfTime.into() };
        let answered = |outcomes: [&Outcome; 4], partial_batch| {
            let outcomes = outcomes.map(Clone::clone);
            let response = answer(&event, &outcomes, &[], partial_batch)?;
            Some(serde_json::to_string(&response).expect("json"))
        };
        let (stored, failed) = (&Outcome::Stored, &failed);
        assert_eq!(answered([stored, failed, stored, stored], false), None);
        assert_eq!(
            answered([failed, failed, stored, failed], true).as_deref(),
            Some(r#"{"batchItemFailures":[{"itemIdentifier":"1"},{"itemIdentifier":"2"}]}"#)
        );
        assert_eq!(
            answered([stored, stored, stored, failed], true).as_deref(),
            Some(r#"{"batchItemFailures":[{"itemIdentifier":"2"}]}"#)
        );

        let s3 = r#"{\"Records\":[{\"eventSource\":\"aws:s3\",\"s3\":{\"bucket\":{\"name\":\"b\"},\"object\":{\"key\":\"k\"}}}]}"#;
        let message = |id: &str, body: &str| {
            format!(
                r#"{{"eventSource":"aws:sqs","eventSourceARN":"arn:aws:sqs:r:1:q","messageId":"{id}","body":"{body}"}}"#
            )
        };
        let json = format!(
            r#"{{"Records":[{},{},{},7]}}"#,
            message("m-1", "a"),
            message("m-2", s3),
            message("m-3", "b")
        );
        let raw = RawValue::from_string(json).expect("json");
        let event = Event::decode(&raw).expect("event");
        let outcomes = [failed, stored, stored].map(Clone::clone);
        let response = answer(&event, &outcomes, &[0], true).expect("all have names");
        assert_eq!(
            serde_json::to_string(&response).expect("json"),
            r#"{"batchItemFailures":[{"itemIdentifier":"m-1"},{"itemIdentifier":"m-2"}]}"#
        );
        let outcomes = [stored, stored, failed].map(Clone::clone);
        assert!(answer(&event, &outcomes, &[], true).is_none(), "the last has no name");
    }

    #[test]
    fn s3_is_told_by_failing_alone() {
        let json = r#"{"Records":[{"eventSource":"aws:s3","s3":{"bucket":{"name":"b"},"object":{"key":"k"}}}]}"#;
        let raw = RawValue::from_string(json.to_owned()).expect("json");
        let event = Event::decode(&raw).expect("event");
        assert!(answer(&event, &[], &[0], true).is_none());
        let done = answer(&event, &[], &[], false).expect("done");
        assert_eq!(serde_json::to_string(&done).expect("json"), "{}");
    }
    #[test]
    fn kafka_connect_is_told_by_failing_alone() {
        let json = r#"[{"payload":{"topic":"t","partition":0,"offset":1,"value":"a"}}]"#;
        let raw = RawValue::from_string(json.to_owned()).expect("json");
        let event = Event::decode(&raw).expect("event");
        let failed = Outcome::Failed { reason: SinkError::OutOfTime.into() };
        for partial_batch in [false, true] {
            assert!(answer(&event, std::slice::from_ref(&failed), &[], partial_batch).is_none());
            assert!(answer(&event, &[Outcome::Stored], &[], partial_batch).is_some());
        }
    }
}
