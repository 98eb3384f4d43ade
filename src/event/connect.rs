//! Records that a sink connector of Kafka Connect invokes the function with.
//!
//! ```json
//! [{"payload": {"timestamp": 1562844607000, "topic": "orders", "partition": 1, "offset": 43822,
//!    "key": "key1", "value": "a log line"}}, …]
//! ```
//!
//! That is what Confluent's AWS Lambda Sink sends, in batches. A value is text as it stands, where
//! Lambda's own events have base64; a JSON converter makes it an object, whose text is the payload.
//! Nothing else of a record is read but its place and time.
//!
//! The connector takes an answer for success, whatever it says. So there are no partial answers: one
//! failed record fails the invocation.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::kafka::{Fields, count, place_of};
use super::{DecodeFault, Event, EventError, MAX_RECORDS, Payload, Record, Source};
use crate::origin::Origin;

/// One entry of the list.
#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
}

/// Takes an event apart; `None` if it is no list whose first entry has a `payload`.
pub(super) fn decode(event: &RawValue) -> Option<Result<Event<'_>, EventError>> {
    let entries: Vec<&RawValue> = serde_json::from_str(event.get()).ok()?;
    let first: Entry<'_> = entry(entries.first()?.get())?;
    first.payload?;
    if entries.len() > MAX_RECORDS {
        return Some(Err(EventError::TooMany));
    }
    let mut event = Event::empty(Source::KafkaConnect, event.get().len());
    let mut groups = HashMap::new();
    for (index, text) in entries.into_iter().enumerate() {
        match placed(&mut event, &mut groups, text.get()) {
            Ok(record) => event.records.push(record),
            // Of no group: there is nothing that it could be filed under.
            Err(fault) => event.push_unplaced(usize::MAX, index, text.get(), fault),
        }
    }
    Some(Ok(event))
}

/// An entry, if it is an object.
fn entry(text: &str) -> Option<Entry<'_>> {
    text.starts_with('{').then(|| serde_json::from_str(text).ok()).flatten()
}

/// A record whose place can be read.
fn placed<'a>(
    event: &mut Event<'a>,
    groups: &mut HashMap<String, usize>,
    text: &'a str,
) -> Result<Record<'a>, DecodeFault> {
    let payload = entry(text).ok_or(DecodeFault::NotAnObject)?.payload;
    let payload = payload.map(RawValue::get).filter(|payload| payload.starts_with('{'));
    let payload = payload.ok_or(DecodeFault::NotAnObject)?;
    let fields: Fields<'a> =
        serde_json::from_str(payload).map_err(|error| DecodeFault::Record(Arc::new(error)))?;
    let (topic, partition) = place_of(&fields, None)?;
    let offset = fields
        .offset
        .and_then(count)
        .ok_or(DecodeFault::Place { field: "offset", expected: "an integer of 0 or more" })?;
    let group = *groups.entry(format!("{topic}-{partition}")).or_insert_with_key(|key| {
        event.groups.push(key.clone());
        event.groups.len() - 1
    });
    let (payload, fault) = match value(event, fields.value) {
        Ok(payload) => (payload, None),
        Err(fault) => (Payload::Text(text), Some(fault)),
    };
    Ok(Record {
        origin: Origin::Kafka { cluster: None, topic, partition, offset },
        timestamp_ms: fields.timestamp.and_then(count),
        group,
        stream: group,
        payload,
        fault,
    })
}

/// The bytes of a value: a string's text, or the text of any other JSON.
fn value<'a>(
    event: &mut Event<'a>,
    value: Option<&'a RawValue>,
) -> Result<Payload<'a>, DecodeFault> {
    let value = value.ok_or(DecodeFault::NoValue)?.get();
    if !value.starts_with('"') {
        return Ok(Payload::Text(value));
    }
    match serde_json::from_str::<String>(value) {
        Ok(text) => Ok(event.keep(text.as_bytes())),
        Err(error) => Err(DecodeFault::Record(Arc::new(error))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(json: &str) -> Box<RawValue> {
        RawValue::from_string(json.to_owned()).expect("json")
    }

    #[test]
    fn a_sound_record_gives_its_payload_place_and_time() {
        let raw = decode(
            r#"[{"payload":{"timestamp":1562844607000,"topic":"my-topic","partition":1,"offset":43822,
            "key":"k","value":"ms=1 \"path\"=/","headers":[]}},
            {"payload":{"topic":"my-topic","partition":2,"offset":7,"key":null,"value":{"ms": 1.50}}}]"#,
        );
        let event = Event::decode(&raw).expect("sound");
        assert_eq!(event.source, Source::KafkaConnect);
        let [line, object] = &event.records[..] else { panic!("{:?}", event.records) };
        assert_eq!(event.payload(line).expect("sound"), br#"ms=1 "path"=/"#);
        assert_eq!(line.timestamp_ms, Some(1_562_844_607_000));
        assert_eq!(line.origin.identity(), "kafka/my-topic/1/43822");
        assert_eq!((event.group(line), event.stream(line)), ("my-topic-1", "my-topic-1"));
        assert_eq!(event.payload(object).expect("sound"), br#"{"ms": 1.50}"#);
        assert_eq!((object.timestamp_ms, event.stream(object)), (None, "my-topic-2"));
    }

    #[test]
    fn a_poison_record_keeps_its_text_and_leaves_the_others_alone() {
        let good = r#"{"payload":{"topic":"t","partition":0,"offset":99,"value":"good"}}"#;
        for (record, fault, placed) in [
            (
                r#"{"payload":{"topic":"t","partition":0,"offset":5,"value":null}}"#,
                "it has no value (a tombstone)",
                true,
            ),
            (r#"{"payload":{"topic":"t","partition":0,"offset":5}}"#, "it has no value", true),
            (
                r#"{"payload":{"topic":"t","partition":0,"offset":5,"value":"\ud800"}}"#,
                "can't be read",
                true,
            ),
            (r#"{"payload":{"partition":0,"offset":5,"value":"a"}}"#, "its topic is not", false),
            (r#"{"payload":{"topic":"t","offset":5,"value":"a"}}"#, "its partition is not", false),
            (r#"{"payload":{"topic":"t","partition":0,"value":"a"}}"#, "its offset is not", false),
            (
                r#"{"payload":{"topic":"t","topic":"t","value":"a"}}"#,
                "can't be read: duplicate field",
                false,
            ),
            (r#"{"payload":"a log line"}"#, "the record is no json object", false),
            (r#"{"value":"a"}"#, "the record is no json object", false),
            ("17", "the record is no json object", false),
        ] {
            let raw = decode(&format!("[{good},{record}]"));
            let event = Event::decode(&raw).expect(record);
            assert_eq!(event.payload(&event.records[0]).expect("good"), b"good", "{record}");
            let poison = &event.records[1];
            let got = event.payload(poison).expect_err(record);
            assert!(got.to_string().contains(fault), "{record}: {got}");
            assert_eq!(event.original(poison), record.as_bytes(), "the text is kept");
            let is_placed = matches!(poison.origin, Origin::Kafka { offset: 5, .. });
            assert_eq!(is_placed, placed, "{record}: {:?}", poison.origin);
        }
    }

    #[test]
    fn a_list_of_anything_else_is_refused() {
        for json in ["[]", "[1]", r#"[{"value":"a"}]"#, r#"["payload"]"#, "[[]]"] {
            let error = Event::decode(&decode(json)).map(|event| event.records.len());
            assert!(matches!(error, Err(EventError::Unsupported { .. })), "{json}: {error:?}");
        }
        let entry = r#"{"payload":{}}"#;
        let over = decode(&format!("[{}]", vec![entry; MAX_RECORDS + 1].join(",")));
        assert!(matches!(Event::decode(&over), Err(EventError::TooMany)));
    }
}
