//! Whatever the function is invoked with: an answer or an error, never a panic, and exactly one
//! outcome for every record. The events are those of tests/events, each changed in a few places.

use proptest::prelude::*;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};

use super::tests::Fixture;
use super::{Outcome, response};
use crate::deadline::Until;
use crate::event::Invocation;

/// The events of every source, and all that may be within them.
fn events() -> Vec<Value> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/events");
    let files = std::fs::read_dir(folder).expect("a folder").map(|file| file.expect("a file"));
    let mut paths: Vec<_> = files.map(|file| file.path()).collect();
    paths.sort();
    let read = |path| std::fs::read_to_string(path).expect("a file");
    let mut events: Vec<Value> =
        paths.iter().map(|path| serde_json::from_str(&read(path)).expect("json")).collect();
    // Each of them in a message, too.
    let message = |event: &Value| {
        json!({"Records": [{"eventSource": "aws:sqs", "messageId": "m",
            "eventSourceARN": "arn:aws:sqs:r:1:q", "body": event.to_string()}]})
    };
    let messages: Vec<Value> = events.iter().map(message).collect();
    events.extend(messages);
    events
}

/// A value to put in the place of another; none removes it.
fn replacement() -> impl Strategy<Value = Option<Value>> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        prop::collection::vec(any::<u8>(), 0..40)
            .prop_map(|bytes| base64_simd::STANDARD.encode_to_string(bytes).into()),
        prop::sample::select(vec![
            "aws:kafka",
            "SelfManagedKafka",
            "aws:kinesis",
            "aws:s3",
            "aws:sqs",
            "s3:TestEvent",
            "t-0",
            "84mawg==",
            "H4sIAAAAAAAA",
            "KLUv/Q==",
            "W10=",
            "%FF+%2B",
            "arn:aws:sqs:r:1:q",
        ])
        .prop_map(Value::from),
    ];
    let value = leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(name(), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    });
    prop::option::weighted(0.8, value)
}

fn name() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "eventSource",
        "records",
        "Records",
        "instances",
        "features",
        "id",
        "model",
        "body",
        "payload",
        "origin",
        "payload_base64",
        "kinesis",
        "data",
        "s3",
        "object",
        "key",
        "value",
        "offset",
        "source",
    ])
    .prop_map(str::to_owned)
}

/// Walks down by indexes, each taken modulo what is there, and changes what it comes to.
fn change(value: &mut Value, path: &[usize], by: Option<Value>) {
    let Some((&at, rest)) = path.split_first() else {
        *value = by.unwrap_or(Value::Null);
        return;
    };
    match value {
        Value::Array(entries) if !entries.is_empty() => {
            let at = at % entries.len();
            match by {
                None if rest.is_empty() => drop(entries.remove(at)),
                by => change(&mut entries[at], rest, by),
            }
        }
        Value::Object(entries) if !entries.is_empty() => {
            let at = at % entries.len();
            let name = entries.keys().nth(at).expect("an entry").clone();
            match by {
                None if rest.is_empty() => drop(entries.remove(&name)),
                by => change(&mut entries[&name], rest, by),
            }
        }
        leaf => *leaf = by.unwrap_or(Value::Null),
    }
}

#[test]
fn every_record_of_any_event_has_one_outcome() {
    let events = events();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let fixture = runtime.block_on(Fixture::start(true));
    let check = async |raw: &RawValue| {
        let event = match Invocation::read(raw) {
            Err(_) => return Ok(()),
            Ok(Invocation::Request(request)) => {
                if let Ok(handled) = fixture.app.answer_request(request, Until::FOREVER).await {
                    let report = handled.report;
                    let done =
                        report.stored + report.dead_lettered + report.answered + report.no_history;
                    prop_assert_eq!(done, report.records);
                }
                return Ok(());
            }
            Ok(Invocation::Event(event)) => event,
        };
        let written = fixture.app.process(&event, Until::FOREVER).await;
        let (outcomes, report) = written.expect("the model fits its features");
        prop_assert_eq!(outcomes.len(), event.records.len());
        prop_assert_eq!(report.records, event.records.len());
        prop_assert_eq!(report.stored + report.dead_lettered + report.failed, report.records);
        for (record, outcome) in event.records.iter().zip(&outcomes) {
            let is_failed = matches!(outcome, Outcome::Failed { .. });
            let comes_again = event.payload(record).err().is_some_and(|fault| fault.comes_again());
            // The sinks are files, so nothing else fails; and a payload in S3 is not fetched here.
            prop_assert!(is_failed == comes_again, "{:?}: {:?}", record, outcome);
        }
        let unread: Vec<usize> = (0..event.notices.len()).collect();
        for unread in [&unread[..], &[]] {
            let _ = response::answer(&event, &outcomes, unread, true);
        }
        Ok(())
    };
    let path = prop::collection::vec(any::<usize>(), 1..6);
    let changes = prop::collection::vec((path, replacement()), 0..4);
    let strategy = (any::<prop::sample::Index>(), changes);
    let config = ProptestConfig { cases: 1000, failure_persistence: None, ..Default::default() };
    proptest!(config, |((which, changes) in strategy)| {
        let mut event = which.get(&events).clone();
        for (path, by) in changes {
            change(&mut event, &path, by);
        }
        let raw = to_raw_value(&event).expect("json");
        runtime.block_on(check(&raw))?;
    });
}
