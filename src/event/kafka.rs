//! Kafka events, of MSK and of self-managed clusters.
//!
//! ```json
//! {"eventSource": "aws:kafka", "eventSourceArn": "arn:…", "bootstrapServers": "…",
//!  "records": {"orders-3": [{"topic": "orders", "partition": 3, "offset": 12345,
//!    "timestamp": 1545084650987, "key": "base64", "value": "base64", "headers": [{"name": [1, 2]}]}]}}
//! ```
//!
//! Of a record only its place, time and value are read; keys and headers may be anything. Within a
//! partition records stand in the order of their offsets.

use std::borrow::Cow;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{
    DecodeFault, Envelope, Event, EventError, MAX_RECORDS, Payload, Record, Source, quoted,
};
use crate::origin::Origin;

/// Kafka's own limit for the name of a topic, in bytes.
const MAX_TOPIC_LEN: usize = 249;

pub(super) fn decode<'a>(source: Source, envelope: &Envelope<'a>) -> Result<Event<'a>, EventError> {
    let records = envelope.records.ok_or(EventError::Records)?;
    let cluster = envelope.event_source_arn.and_then(super::text);
    let mut decoder = Decoder {
        cluster: cluster.as_deref().map(cluster_of).map(Arc::from),
        // Four characters of base64 are three bytes: one allocation for the whole batch.
        event: Event::empty(source, records.get().len() / 4 * 3),
    };
    // Lists of records as a rule, and so all in one pass; what else there is, is looked at one by one.
    if let Ok(Partitions(partitions)) = serde_json::from_str::<Partitions<Vec<_>>>(records.get()) {
        for (key, texts) in partitions {
            decoder.partition(key, texts)?;
        }
        return Ok(decoder.event);
    }
    let Ok(Partitions(partitions)) = serde_json::from_str::<Partitions<&RawValue>>(records.get())
    else {
        return Err(EventError::Records);
    };
    for (key, list) in partitions {
        match serde_json::from_str(list.get()) {
            Ok(texts) => decoder.partition(key, texts)?,
            Err(_) => decoder.no_list(key, list.get()),
        }
    }
    Ok(decoder.event)
}

/// The last part of a cluster's ARN: its unique id.
fn cluster_of(arn: &str) -> String {
    let (_, id) = arn.rsplit_once('/').unwrap_or_default();
    quoted(if id.is_empty() { arn } else { id })
}

/// The lists by key, in the order of the event and with no key lost, even one that comes twice.
struct Partitions<T>(Vec<(String, T)>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Partitions<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Lists<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Lists<T> {
            type Value = Partitions<T>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object of lists")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut lists = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    lists.push(entry);
                }
                Ok(Partitions(lists))
            }
        }
        deserializer.deserialize_map(Lists(PhantomData))
    }
}

/// What is read of a record; fields of any type.
#[derive(Deserialize)]
pub(super) struct Fields<'a> {
    #[serde(borrow)]
    pub(super) topic: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) partition: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) offset: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) timestamp: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) value: Option<&'a RawValue>,
}

struct Decoder<'a> {
    cluster: Option<Arc<str>>,
    event: Event<'a>,
}

/// A topic's partition.
pub(super) type Place = (Arc<str>, i32);

impl<'a> Decoder<'a> {
    fn no_list(&mut self, key: String, text: &'a str) {
        let group = self.event.groups.len();
        self.event.groups.push(key);
        let record = self.unplaced(group, 0, text, DecodeFault::NotAList);
        self.event.records.push(record);
    }

    fn partition(&mut self, key: String, texts: Vec<&'a RawValue>) -> Result<(), EventError> {
        let filed_under = place_of_key(&key);
        let group = self.event.groups.len();
        self.event.groups.push(key);
        if self.event.records.len() + texts.len() > MAX_RECORDS {
            return Err(EventError::TooMany);
        }
        for (index, text) in texts.into_iter().enumerate() {
            let text = text.get();
            let record = match self.placed(filed_under.as_ref(), group, text) {
                Ok(record) => record,
                Err(fault) => self.unplaced(group, index, text, fault),
            };
            self.event.records.push(record);
        }
        Ok(())
    }

    /// A record whose place can be read.
    fn placed(
        &mut self,
        filed_under: Option<&Place>,
        group: usize,
        text: &'a str,
    ) -> Result<Record<'a>, DecodeFault> {
        if !text.starts_with('{') {
            return Err(DecodeFault::NotAnObject);
        }
        let fields: Fields<'a> =
            serde_json::from_str(text).map_err(|error| DecodeFault::Record(Arc::new(error)))?;
        let (topic, partition) = place_of(&fields, filed_under)?;
        let offset = fields
            .offset
            .and_then(count)
            .ok_or(DecodeFault::Place { field: "offset", expected: "an integer of 0 or more" })?;
        let (payload, fault) = match self.payload(fields.value) {
            Ok(payload) => (payload, None),
            Err(fault) => (Payload::Text(text), Some(fault)),
        };
        let cluster = self.cluster.clone();
        Ok(Record {
            origin: Origin::Kafka { cluster, topic, partition, offset },
            timestamp_ms: fields.timestamp.and_then(count),
            group,
            stream: group,
            payload,
            fault,
        })
    }

    fn unplaced(
        &self,
        group: usize,
        index: usize,
        text: &'a str,
        fault: DecodeFault,
    ) -> Record<'a> {
        let key = self.event.groups.get(group).map_or("", String::as_str);
        let origin = Origin::KafkaUnplaced {
            cluster: self.cluster.clone(),
            topic_partition: quoted(key).into(),
            index,
            content_hash: xxhash_rust::xxh3::xxh3_128(text.as_bytes()),
        };
        let payload = Payload::Text(text);
        Record { origin, timestamp_ms: None, group, stream: group, payload, fault: Some(fault) }
    }

    /// The bytes of a value. A string is base64; anything else was put there by a schema registry
    /// that delivers JSON, and its text is the payload.
    fn payload(&mut self, value: Option<&'a RawValue>) -> Result<Payload<'a>, DecodeFault> {
        let value = value.ok_or(DecodeFault::NoValue)?.get();
        let Some(inner) = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
            return Ok(Payload::Text(value));
        };
        // Base64 needs no escapes, but `\/` is a lawful way to write one of its characters.
        let base64: Cow<'_, str> = if inner.contains('\\') {
            serde_json::from_str(value).map_err(|_| DecodeFault::Base64)?
        } else {
            Cow::Borrowed(inner)
        };
        let decoded = &mut self.event.decoded;
        let start = decoded.len();
        match base64_simd::STANDARD.decode_append(base64.as_bytes(), decoded) {
            Ok(()) => Ok(Payload::Decoded(start..decoded.len())),
            Err(_) => {
                decoded.truncate(start);
                Err(DecodeFault::Base64)
            }
        }
    }
}

/// Topic and partition of a record, which the key of its list stands in for where they are absent
/// and must not contradict.
pub(super) fn place_of(
    fields: &Fields<'_>,
    filed_under: Option<&Place>,
) -> Result<Place, DecodeFault> {
    let topic = match (fields.topic, filed_under) {
        // As a rule it is the one that the list is filed under, and there is nothing to allocate.
        (Some(own), Some((known, _))) if is_text(own, known) => Some(Arc::clone(known)),
        (Some(own), _) => super::text(own).filter(|name| is_topic(name)).map(Arc::from),
        (None, Some((topic, _))) => Some(Arc::clone(topic)),
        (None, None) => None,
    };
    let topic: Arc<str> = topic.ok_or(DecodeFault::Place {
        field: "topic",
        expected: "the name of a topic (1 to 249 of A-Z a-z 0-9 . _ -)",
    })?;
    let partition = match (fields.partition, filed_under) {
        (Some(own), _) => count(own).and_then(|partition| i32::try_from(partition).ok()),
        (None, Some((_, partition))) => Some(*partition),
        (None, None) => None,
    };
    let partition = partition
        .ok_or(DecodeFault::Place { field: "partition", expected: "an integer of 0 or more" })?;
    match filed_under {
        // Shared with the others of the list.
        Some((known, at)) if *known == topic && *at == partition => Ok((Arc::clone(known), *at)),
        Some(_) => Err(DecodeFault::Misfiled),
        // A key of another form says nothing against the record.
        None => Ok((topic, partition)),
    }
}

/// Topic and partition of a key, `topic-partition`.
fn place_of_key(key: &str) -> Option<Place> {
    let (topic, partition) = key.rsplit_once('-')?;
    let digits = partition.bytes().all(|byte| byte.is_ascii_digit());
    let partition = partition.parse().ok().filter(|_| digits)?;
    is_topic(topic).then(|| (topic.into(), partition))
}

/// True if JSON is this text in its plainest form.
fn is_text(raw: &RawValue, text: &str) -> bool {
    let inner = raw.get().strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    inner == Some(text)
}

fn is_topic(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=MAX_TOPIC_LEN).contains(&name.len()) && name.bytes().all(allowed)
}

/// An integer of 0 or more; Kafka's -1 for "none" is none.
pub(super) fn count(raw: &RawValue) -> Option<i64> {
    raw.get().parse().ok().filter(|&count| count >= 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARN: &str =
        "arn:aws:kafka:eu-west-1:123456789012:cluster/logs/751d2973-a626-431c-9d4e-d7975eb44dd7-2";

    fn event(source: &str, records: &str) -> Box<RawValue> {
        let arn = if source == "aws:kafka" { ARN } else { "" };
        let arn =
            if arn.is_empty() { String::new() } else { format!(r#""eventSourceArn":"{arn}","#) };
        let json = format!(r#"{{"eventSource":"{source}",{arn}"records":{records}}}"#);
        RawValue::from_string(json).expect("json")
    }

    fn self_managed(records: &str) -> Box<RawValue> {
        event("SelfManagedKafka", records)
    }

    fn base64(payload: &str) -> String {
        base64_simd::STANDARD.encode_to_string(payload)
    }

    #[test]
    fn a_sound_record_gives_its_payload_place_and_time() {
        let value = base64(r#"{"ms":1}"#);
        let json = format!(
            r#"{{"my-topic-12":[{{"topic":"my-topic","partition":12,"offset":7,"timestamp":1545084650987,
            "timestampType":"CREATE_TIME","key":"a2V5","value":"{value}","headers":[{{"h":[1]}}]}}]}}"#
        );
        let raw = event("aws:kafka", &json);
        let event = Event::decode(&raw).expect("sound");
        assert_eq!((event.source, event.records.len()), (Source::Msk, 1));
        let record = &event.records[0];
        assert_eq!(event.payload(record).expect("sound"), br#"{"ms":1}"#);
        assert_eq!(record.timestamp_ms, Some(1_545_084_650_987));
        assert_eq!(event.group(record), "my-topic-12");
        assert_eq!(
            record.origin.identity(),
            "kafka/751d2973-a626-431c-9d4e-d7975eb44dd7-2/my-topic/12/7"
        );
    }

    #[test]
    fn what_is_odd_but_harmless_is_read() {
        let value = base64("payload");
        for (what, record) in [
            ("null headers", format!(r#"{{"offset":1,"value":"{value}","headers":null}}"#)),
            ("no headers", format!(r#"{{"offset":1,"value":"{value}"}}"#)),
            (
                "header bytes above 127",
                format!(r#"{{"offset":1,"value":"{value}","headers":[{{"h":[200]}}]}}"#),
            ),
            (
                "signed header bytes",
                format!(r#"{{"offset":1,"value":"{value}","headers":[{{"h":[-56]}}]}}"#),
            ),
            ("timestamp -1", format!(r#"{{"offset":1,"value":"{value}","timestamp":-1}}"#)),
            (
                "a timestamp that is text",
                format!(r#"{{"offset":1,"value":"{value}","timestamp":"now"}}"#),
            ),
            (
                "a key that is an object",
                format!(r#"{{"offset":1,"value":"{value}","key":{{"id":1}}}}"#),
            ),
            ("escaped base64", r#"{"offset":1,"value":"\u0063GF5bG9hZA=="}"#.to_owned()),
        ] {
            let raw = self_managed(&format!(r#"{{"t-0":[{record}]}}"#));
            let event = Event::decode(&raw).expect(what);
            assert_eq!(event.payload(&event.records[0]).expect(what), b"payload", "{what}");
            assert_eq!(event.records[0].timestamp_ms, None, "{what}");
            assert_eq!(event.records[0].origin.identity(), "kafka/t/0/1", "{what}");
        }
    }

    #[test]
    fn json_delivered_by_a_schema_registry_is_its_own_payload() {
        let raw = self_managed(
            r#"{"t-0":[{"offset":1,"value":{"ms": 1.50, "path": "/"}},{"offset":2,"value":[1, 2]},{"offset":3,"value":12}]}"#,
        );
        let event = Event::decode(&raw).expect("sound");
        let payloads: Vec<&[u8]> =
            event.records.iter().map(|record| event.payload(record).expect("sound")).collect();
        assert_eq!(payloads, [&br#"{"ms": 1.50, "path": "/"}"#[..], b"[1, 2]", b"12"]);
    }

    #[test]
    fn a_poison_record_keeps_its_text_and_leaves_the_others_alone() {
        let good =
            format!(r#"{{"topic":"t","partition":0,"offset":99,"value":"{}"}}"#, base64("good"));
        for (record, fault, placed) in [
            (r#"{"offset":5,"value":"*not base64*"}"#, "its value is not base64", true),
            (r#"{"offset":5,"value":"YQ"}"#, "its value is not base64", true),
            (r#"{"offset":5,"value":null,"key":"a2V5"}"#, "it has no value (a tombstone)", true),
            (r#"{"offset":5}"#, "it has no value (a tombstone)", true),
            (r#"{"value":"YQ=="}"#, "its offset is not an integer of 0 or more", false),
            (r#"{"offset":"5","value":"YQ=="}"#, "its offset is not", false),
            (r#"{"offset":-5,"value":"YQ=="}"#, "its offset is not", false),
            (r#"{"offset":1e3,"value":"YQ=="}"#, "its offset is not", false),
            (
                r#"{"offset":5,"partition":4294967296,"value":"YQ=="}"#,
                "its partition is not",
                false,
            ),
            (r#"{"offset":5,"topic":"a/b","value":"YQ=="}"#, "its topic is not", false),
            (r#"{"offset":5,"topic":7,"value":"YQ=="}"#, "its topic is not", false),
            (r#"{"offset":5,"partition":1,"value":"YQ=="}"#, "filed under", false),
            (r#"{"offset":5,"offset":6,"value":"YQ=="}"#, "can't be read: duplicate field", false),
            (r#"["t",0,5,0,"YQ=="]"#, "the record is no json object", false),
            ("null", "the record is no json object", false),
            ("17", "the record is no json object", false),
        ] {
            let raw = self_managed(&format!(r#"{{"t-0":[{record},{good}]}}"#));
            let event = Event::decode(&raw).expect(record);
            assert_eq!(event.records.len(), 2, "{record}");
            let poison = &event.records[0];
            let got = event.payload(poison).expect_err(record);
            assert!(got.to_string().contains(fault), "{record}: {got}");
            assert_eq!(event.original(poison), record.as_bytes(), "the text is kept");
            let is_placed = matches!(poison.origin, Origin::Kafka { offset: 5, .. });
            assert_eq!(is_placed, placed, "{record}: {:?}", poison.origin);
            assert_eq!(event.payload(&event.records[1]).expect("good"), b"good", "{record}");
        }
    }

    #[test]
    fn a_partition_that_is_no_list_is_one_poison_record() {
        let raw = self_managed(r#"{"t-0":{"offset":1},"t-1":null,"t-2":[]}"#);
        let event = Event::decode(&raw).expect("sound");
        let faults: Vec<&DecodeFault> =
            event.records.iter().filter_map(|record| event.payload(record).err()).collect();
        assert!(matches!(faults[..], [DecodeFault::NotAList, DecodeFault::NotAList]), "{faults:?}");
        assert_eq!(event.original(&event.records[0]), br#"{"offset":1}"#);
    }

    #[test]
    fn broken_records_alike_in_all_but_their_place_have_identities_of_their_own() {
        let raw = self_managed(r#"{"t-0":[1,1,2],"t-1":[1],"t-0":[3]}"#);
        let event = Event::decode(&raw).expect("sound");
        let mut identities: Vec<String> =
            event.records.iter().map(|record| record.origin.identity()).collect();
        identities.sort();
        identities.dedup();
        assert_eq!(identities.len(), 5);
    }

    #[test]
    fn a_key_of_another_form_does_not_speak_against_its_records() {
        let raw = self_managed(
            r#"{"odd":[{"topic":"t","partition":2,"offset":3,"value":"YQ=="},{"offset":4,"value":"YQ=="}]}"#,
        );
        let event = Event::decode(&raw).expect("sound");
        assert_eq!(event.records[0].origin.identity(), "kafka/t/2/3");
        assert_eq!(event.group(&event.records[0]), "odd");
        assert!(event.payload(&event.records[1]).is_err(), "no topic anywhere");
    }

    #[test]
    fn an_event_without_lists_by_partition_is_refused() {
        for records in ["null", "[]", "7", r#""t-0""#] {
            let raw = self_managed(records);
            assert!(matches!(Event::decode(&raw), Err(EventError::Records)), "{records}");
        }
        let raw = self_managed("{}");
        assert!(Event::decode(&raw).expect("an empty batch").records.is_empty());
    }

    #[test]
    fn more_records_than_a_batch_has_are_refused() {
        let list = |count: usize| format!("[{}]", vec!["0"; count].join(","));
        let fits = self_managed(&format!(r#"{{"t-0":{},"t-1":{}}}"#, list(9_999), list(1)));
        assert_eq!(Event::decode(&fits).expect("fits").records.len(), MAX_RECORDS);
        let over = self_managed(&format!(r#"{{"t-0":{},"t-1":{}}}"#, list(9_999), list(2)));
        assert!(matches!(Event::decode(&over), Err(EventError::TooMany)));
    }
}
