//! Kafka events of real log records, as the event source mapping makes them, with what must become
//! of each record.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};

use serde_json::{Value, json};

use crate::function::repository;

pub(crate) const TOPIC: &str = "requests";
const CLUSTER: &str = "751d2973-a626-431c-9d4e-d7975eb44dd7-2";
const PARTITIONS: usize = 3;
/// Offsets of a topic that has been in use for a while.
const FIRST_OFFSET: usize = 1_000_000;

/// A kind of Kafka.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kafka {
    Msk,
    SelfManaged,
}

/// What must become of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    Stored,
    /// With these words in the reason, and these bytes if they are known.
    DeadLettered {
        reason: &'static str,
        payload: Option<Vec<u8>>,
    },
}

/// An event and the fate of its records by identity.
pub(crate) struct Batch {
    pub(crate) event: String,
    pub(crate) fates: BTreeMap<String, Fate>,
}

impl Batch {
    /// `len` records of the shipped log over three partitions. Five of them, in different
    /// places and partitions, can't be read, each for another reason.
    pub(crate) fn new(kafka: Kafka, len: usize) -> Self {
        let lines = lines(len);
        let mut partitions = vec![Vec::new(); PARTITIONS];
        let mut fates = BTreeMap::new();
        for (index, line) in lines.iter().enumerate() {
            let partition = index % PARTITIONS;
            let offset = FIRST_OFFSET + index / PARTITIONS;
            let mut record = record(partition, offset, index, line);
            // Spread over the batch, its first and last record among them.
            let at = |share: usize| index == (len - 1) * share / 100;
            let fate = if at(0) {
                record["value"] = json!("{not base64}");
                Fate::DeadLettered { reason: "base64", payload: None }
            } else if at(33) {
                record["value"] = Value::Null;
                Fate::DeadLettered { reason: "tombstone", payload: None }
            } else if at(34) {
                let mut bytes = line.clone();
                // Within the first value, so that it is JSON in all but its encoding.
                bytes[10] = 0xff;
                poison(&mut record, "utf-8", bytes)
            } else if at(70) {
                poison(&mut record, "json", line[..line.len() / 2].to_vec())
            } else if at(100) {
                let mut request: Value = serde_json::from_slice(line).expect("a json line");
                request.as_object_mut().expect("an object").remove("duration_us");
                poison(&mut record, "duration_us", request.to_string().into_bytes())
            } else {
                Fate::Stored
            };
            let doubled = fates.insert(kafka.identity(partition, offset), fate);
            assert!(doubled.is_none(), "two records of one place");
            partitions[partition].push(record);
        }
        Self { event: kafka.event(partitions), fates }
    }

    /// Payloads, all in one partition, each with its fate.
    pub(crate) fn of(kafka: Kafka, payloads: impl IntoIterator<Item = (Vec<u8>, Fate)>) -> Self {
        let (mut records, mut fates) = (Vec::new(), BTreeMap::new());
        for (offset, (payload, fate)) in payloads.into_iter().enumerate() {
            let record = json!({
                "topic": TOPIC, "partition": 0, "offset": offset, "value": base64(&payload),
            });
            records.push(record);
            fates.insert(kafka.identity(0, offset), fate);
        }
        Self { event: kafka.event(vec![records]), fates }
    }

    /// Identities of the records of one fate.
    pub(crate) fn stored(&self) -> Vec<&str> {
        let stored = self.fates.iter().filter(|(_, fate)| **fate == Fate::Stored);
        stored.map(|(id, _)| id.as_str()).collect()
    }

    /// Identities of the records that must be dead-lettered.
    pub(crate) fn dead(&self) -> Vec<&str> {
        let dead = self.fates.iter().filter(|(_, fate)| **fate != Fate::Stored);
        dead.map(|(id, _)| id.as_str()).collect()
    }
}

impl Batch {
    /// Makes the first `count` sound records of the last partition take hours; returns their
    /// identities, in the order of their offsets.
    pub(crate) fn make_unusual(&mut self, count: usize) -> Vec<String> {
        let mut event: Value = serde_json::from_str(&self.event).expect("json");
        let partition = PARTITIONS - 1;
        let last = event["records"][format!("{TOPIC}-{partition}")].as_array_mut();
        let mut ids = Vec::new();
        for record in last.expect("a list") {
            let place = format!("/{partition}/{}", record["offset"]);
            let sound = self.fates.iter().find(|(id, fate)| {
                id.ends_with(&place) && **fate == Fate::Stored && ids.len() < count
            });
            let Some((id, _)) = sound else { continue };
            let value = record["value"].as_str().expect("base64");
            let line = base64_simd::STANDARD.decode_to_vec(value).expect("base64");
            let mut line: Value = serde_json::from_slice(&line).expect("a json line");
            line["duration_us"] = json!(3_600_000_000_u64 * (ids.len() as u64 + 1));
            record["value"] = json!(base64(line.to_string().as_bytes()));
            ids.push(id.clone());
        }
        assert_eq!(ids.len(), count, "sound records in the last partition");
        self.event = event.to_string();
        ids
    }
}

impl Kafka {
    /// A record's name: what `Origin::identity` promises, written down a second time.
    pub(crate) fn identity(
        self,
        partition: impl std::fmt::Display,
        offset: impl std::fmt::Display,
    ) -> String {
        match self {
            Self::Msk => format!("kafka/{CLUSTER}/{TOPIC}/{partition}/{offset}"),
            Self::SelfManaged => format!("kafka/{TOPIC}/{partition}/{offset}"),
        }
    }

    /// An event but for its records.
    pub(crate) fn envelope(self) -> Value {
        match self {
            Self::Msk => json!({
                "eventSource": "aws:kafka",
                "eventSourceArn":
                    format!("arn:aws:kafka:eu-central-1:123456789012:cluster/logs/{CLUSTER}"),
                "bootstrapServers": "b-1.logs.example.com:9098,b-2.logs.example.com:9098",
            }),
            Self::SelfManaged => json!({
                "eventSource": "SelfManagedKafka",
                "bootstrapServers": "pkc-1.example.com:9092",
            }),
        }
    }

    fn event(self, partitions: Vec<Vec<Value>>) -> String {
        let mut event = self.envelope();
        event["records"] = partitions
            .into_iter()
            .enumerate()
            .map(|(partition, records)| (format!("{TOPIC}-{partition}"), Value::from(records)))
            .collect();
        event.to_string()
    }
}

/// A record as the mapping gives it; now and then with one of the oddities that are no faults.
fn record(partition: usize, offset: usize, index: usize, line: &[u8]) -> Value {
    let mut record = json!({
        "topic": TOPIC,
        "partition": partition,
        "offset": offset,
        "timestamp": 1_661_140_339_572_i64 + i64::try_from(index).expect("a small number"),
        "timestampType": "CREATE_TIME",
        "value": base64(line),
        "headers": [],
    });
    match index % 1000 {
        1 => record["headers"] = json!([{"trace": [200, 255, 0]}]),
        2 => record["headers"] = json!([{"trace": [-56, -1, 0]}]),
        3 => record["headers"] = Value::Null,
        4 => drop(record.as_object_mut().expect("an object").remove("headers")),
        5 => record["timestamp"] = json!(-1),
        6 => record["key"] = json!(base64(b"a key")),
        7 => record["key"] = Value::Null,
        _ => {}
    }
    record
}

fn poison(record: &mut Value, reason: &'static str, payload: Vec<u8>) -> Fate {
    record["value"] = json!(base64(&payload));
    Fate::DeadLettered { reason, payload: Some(payload) }
}

/// The first lines of the shipped log.
pub(crate) fn lines(len: usize) -> Vec<Vec<u8>> {
    let path = repository("examples/nezha/requests.jsonl.gz");
    let file =
        std::fs::File::open(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let lines = BufReader::new(flate2::read::GzDecoder::new(file)).split(b'\n').take(len);
    let lines: Vec<Vec<u8>> = lines.map(|line| line.expect("a line")).collect();
    assert_eq!(lines.len(), len, "lines in {}", path.display());
    lines
}

pub(crate) fn base64(bytes: &[u8]) -> String {
    base64_simd::STANDARD.encode_to_string(bytes)
}

/// Two sets of identities, and what is only in one of them if they are not the same.
pub(crate) fn assert_same_ids<'a>(
    what: &str,
    expected: impl IntoIterator<Item = &'a str>,
    got: impl IntoIterator<Item = &'a str>,
) {
    let mut expected: Vec<&str> = expected.into_iter().collect();
    let mut got: Vec<&str> = got.into_iter().collect();
    expected.sort_unstable();
    got.sort_unstable();
    if expected == got {
        return;
    }
    let mut message = format!("{what}: expected {} records, got {}", expected.len(), got.len());
    for (whose, these, those) in [("missing", &expected, &got), ("unexpected", &got, &expected)] {
        let only: Vec<&&str> = these.iter().filter(|id| those.binary_search(id).is_err()).collect();
        let _ =
            write!(message, "; {} {whose}, such as {:?}", only.len(), &only[..only.len().min(5)]);
    }
    panic!("{message}");
}
