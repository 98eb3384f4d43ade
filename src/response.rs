//! Outcomes to the answer that the event source expects.
//!
//! Poison is never an error to the source: a record that was dead-lettered is done. What failed must
//! come again, and how that is said depends on the source's mapping:
//!
//! - As a rule a Kafka mapping takes no partial answer: one failed record fails the invocation, and
//!   the whole batch comes again. Records already written are then written again, which changes
//!   nothing.
//! - With `PARTIAL_BATCH=true` (a mapping in provisioned mode with `ReportBatchItemFailures`) the
//!   answer is `{"batchItemFailures":[{"itemIdentifier":{"partition":"orders-3","offset":100}}]}`.
//!   AWS's documentation says that the items named come again; others say that reading resumes at
//!   the offset named. Every unfinished offset is named, in ascending order, so that under either
//!   reading none is passed over.

use serde::Serialize;

use crate::event::Event;
use crate::handler::Outcome;
use crate::origin::Origin;

/// The answer to the event source. An empty list says that every record is done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Response {
    /// The records that must come again.
    pub batch_item_failures: Vec<ItemFailure>,
}

/// A record that must come again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ItemFailure {
    /// Which one.
    pub item_identifier: KafkaItem,
}

/// A record of a Kafka event.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct KafkaItem {
    /// The key that the event files it under, `topic-partition`.
    pub partition: String,
    /// Its offset.
    pub offset: i64,
}

/// The answer, or `None` where only a failed invocation makes the failed records come again: without
/// `partial_batch`, or if one of them has no offset that could be named.
pub fn answer(event: &Event<'_>, outcomes: &[Outcome], partial_batch: bool) -> Option<Response> {
    let records = event.records.iter().zip(outcomes);
    let mut failed = Vec::new();
    for (record, _) in records.filter(|(_, outcome)| matches!(outcome, Outcome::Failed { .. })) {
        let Origin::Kafka { offset, .. } = record.origin else { return None };
        if !partial_batch {
            return None;
        }
        failed.push(KafkaItem { partition: event.group(record).to_owned(), offset });
    }
    failed.sort_unstable();
    failed.dedup();
    let failures = failed.into_iter().map(|item_identifier| ItemFailure { item_identifier });
    Some(Response { batch_item_failures: failures.collect() })
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
                _ if failed.contains(&index) => Outcome::Failed { reason: SinkError::OutOfTime },
                5 => Outcome::DeadLettered,
                _ => Outcome::Stored,
            })
            .collect();
        let response = answer(&event, &outcomes, partial_batch)?;
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
}
