//! The event source mapping: reads a topic and invokes the function, as AWS documents it for Amazon
//! MSK and self-managed Kafka.
//!
//! - A batch ends at the batch size, at the batching window or at 6 MB of event, whichever is first.
//! - A batch comes again until it is done: as a whole on a function error; in halves with
//!   `bisect`; with `ReportBatchItemFailures` what the answer names, under either [`Reading`].
//! - After the last of `max_retries` what is left goes to the OnFailure destination. Here that is a
//!   list, so that the ledger can count it.
//! - A partition's offset is committed, to the broker, when its batch is settled. A poller that is
//!   lost before that is followed by one that reads the batch again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _, Timestamp};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::{Value, json};

use crate::batch::{Kafka, TOPIC, base64};
use crate::broker::Broker;
use crate::function::{Answer, MAX_EVENT_LEN};

/// Room in an event for all that is not records.
const ENVELOPE_LEN: usize = 4096;
/// A broker on loopback that gives nothing for so long has nothing, or is broken.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest pause before a retry; the first is a hundredth of it. (AWS waits longer.)
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// What a partial answer means: the documentation says the one, other implementations do the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reading {
    /// The items named come again.
    ItemsAgain,
    /// Of a partition everything from the lowest offset named comes again.
    ResumeAtOffset,
}

/// An event source mapping of the topic.
#[derive(Debug, Clone)]
pub(crate) struct Mapping {
    pub(crate) kafka: Kafka,
    pub(crate) batch_size: usize,
    pub(crate) window: Duration,
    /// Partitions are dealt to so many pollers, each with one invocation at a time.
    pub(crate) pollers: usize,
    /// `ReportBatchItemFailures`, and how it is read.
    pub(crate) partial: Option<Reading>,
    pub(crate) bisect: bool,
    pub(crate) max_retries: Option<usize>,
    /// Pollers are lost after so many batches, before they commit the last.
    pub(crate) lost_after: Option<usize>,
}

impl Default for Mapping {
    /// The topic has all its records when a test reads it, so the window is only ever reached by a
    /// machine that is too busy: then batches would be others than expected.
    fn default() -> Self {
        Self {
            kafka: Kafka::SelfManaged,
            batch_size: 1000,
            window: Duration::from_secs(10),
            pollers: 1,
            partial: None,
            bisect: false,
            max_retries: None,
            lost_after: None,
        }
    }
}

/// What a mapping did.
#[derive(Debug, Default)]
pub(crate) struct Delivered {
    pub(crate) invocations: usize,
    /// Invocations that failed as a whole, and what the first of them said.
    pub(crate) errors: usize,
    pub(crate) first_error: Option<String>,
    /// Invocations whose answer named failures.
    pub(crate) partial_answers: usize,
    /// Most records of one event, and most bytes.
    pub(crate) max_records: usize,
    pub(crate) max_bytes: usize,
    /// Identities given to the OnFailure destination.
    pub(crate) on_failure: Vec<String>,
}

/// A record as the event has it.
#[derive(Debug, Clone)]
struct Record {
    partition: i32,
    offset: i64,
    json: String,
}

/// A batch, or part of one, that is still to be delivered.
struct Portion {
    records: Vec<Record>,
    retries: usize,
}

impl Mapping {
    /// Delivers the topic up to its end of now. `progress` counts the records settled.
    pub(crate) fn deliver(
        &self,
        broker: &Broker,
        invoke: &(dyn Fn(&str) -> Answer + Sync),
        progress: &AtomicUsize,
    ) -> Delivered {
        std::thread::scope(|scope| {
            let poll = |poller| move || Poller::new(self, broker, poller).run(invoke, progress);
            let pollers: Vec<_> = (0..self.pollers).map(|n| scope.spawn(poll(n))).collect();
            let mut all = Delivered::default();
            for poller in pollers {
                all.add(poller.join().expect("a poller"));
            }
            all
        })
    }

    /// What of a portion must come again by the answer to it.
    fn left(&self, records: &[Record], answer: &Answer) -> Left {
        if answer.status != 200 {
            return Left::Error;
        }
        let Some(reading) = self.partial else { return Left::Items(Vec::new()) };
        let Some(named) = named(answer) else { return Left::Error };
        let sent: BTreeSet<_> = records.iter().map(|r| (r.partition, r.offset)).collect();
        if !named.iter().all(|place| sent.contains(place)) {
            return Left::Error;
        }
        let again = |record: &&Record| match reading {
            Reading::ItemsAgain => named.contains(&(record.partition, record.offset)),
            Reading::ResumeAtOffset => {
                let lowest = named.range((record.partition, i64::MIN)..).next();
                lowest.is_some_and(|(partition, offset)| {
                    *partition == record.partition && *offset <= record.offset
                })
            }
        };
        Left::Items(records.iter().filter(again).cloned().collect())
    }

    fn event(&self, records: &[Record]) -> String {
        let mut by_partition: BTreeMap<i32, Vec<&str>> = BTreeMap::new();
        for record in records {
            by_partition.entry(record.partition).or_default().push(&record.json);
        }
        let lists = by_partition
            .iter()
            .map(|(partition, records)| format!("\"{TOPIC}-{partition}\":[{}]", records.join(",")));
        let lists: Vec<String> = lists.collect();
        let envelope = self.kafka.envelope().to_string();
        let open = envelope.strip_suffix('}').expect("an object");
        format!("{open},\"records\":{{{}}}}}", lists.join(","))
    }
}

/// What must come again.
enum Left {
    /// Everything: a function error, or an answer that can't be one.
    Error,
    /// These, perhaps none.
    Items(Vec<Record>),
}

/// The places that an answer names; `None` if it is no such answer.
fn named(answer: &Answer) -> Option<BTreeSet<(i32, i64)>> {
    let answer: Value = serde_json::from_str(&answer.body).ok()?;
    let failures = match &answer["batchItemFailures"] {
        Value::Null => return Some(BTreeSet::new()),
        failures => failures.as_array()?,
    };
    let place = |failure: &Value| {
        let item = &failure["itemIdentifier"];
        let partition = item["partition"].as_str()?.strip_prefix(TOPIC)?.strip_prefix('-')?;
        Some((partition.parse().ok()?, item["offset"].as_i64()?))
    };
    failures.iter().map(place).collect()
}

impl Delivered {
    fn add(&mut self, other: Self) {
        self.invocations += other.invocations;
        self.errors += other.errors;
        self.first_error = self.first_error.take().or(other.first_error);
        self.partial_answers += other.partial_answers;
        self.max_records = self.max_records.max(other.max_records);
        self.max_bytes = self.max_bytes.max(other.max_bytes);
        self.on_failure.extend(other.on_failure);
    }
}

/// The offsets that are committed, once the broker has found who keeps them: right after its start
/// that takes a moment.
fn committed(consumer: &BaseConsumer, partitions: &TopicPartitionList) -> TopicPartitionList {
    let patience = Instant::now() + READ_TIMEOUT;
    loop {
        match consumer.committed_offsets(partitions.clone(), READ_TIMEOUT) {
            Ok(committed) => return committed,
            Err(error) => assert!(Instant::now() < patience, "committed offsets: {error}"),
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// One reader of some of the partitions.
struct Poller<'a> {
    mapping: &'a Mapping,
    consumer: BaseConsumer,
    /// By partition, the next offset and the end.
    ranges: BTreeMap<i32, (i64, i64)>,
    /// Read, but too much for the batch before.
    held: Option<Record>,
    done: Delivered,
}

impl<'a> Poller<'a> {
    fn new(mapping: &'a Mapping, broker: &Broker, number: usize) -> Self {
        let consumer: BaseConsumer = broker
            .client()
            .set("group.id", "mapping")
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest")
            .set("fetch.message.max.bytes", "8388608")
            .set("queued.max.messages.kbytes", "32768")
            .create()
            .expect("a consumer");
        let metadata = consumer.fetch_metadata(Some(TOPIC), READ_TIMEOUT).expect("a topic");
        let mut assigned = TopicPartitionList::new();
        for partition in metadata.topics()[0].partitions().iter().map(|found| found.id()) {
            if usize::try_from(partition).expect("a partition") % mapping.pollers == number {
                assigned.add_partition(TOPIC, partition);
            }
        }
        let assigned = committed(&consumer, &assigned);
        let mut ranges = BTreeMap::new();
        for (topic, partition) in
            assigned.to_topic_map().into_keys().collect::<BTreeSet<(String, i32)>>()
        {
            let (low, high) =
                consumer.fetch_watermarks(&topic, partition, READ_TIMEOUT).expect("its ends");
            let mut element = assigned.find_partition(&topic, partition).expect("an element");
            let next = match element.offset() {
                Offset::Offset(offset) => offset,
                // TRIM_HORIZON.
                _ => low,
            };
            element.set_offset(Offset::Offset(next)).expect("an offset");
            ranges.insert(partition, (next, high));
        }
        consumer.assign(&assigned).expect("partitions");
        Self { mapping, consumer, ranges, held: None, done: Delivered::default() }
    }

    fn run(
        mut self,
        invoke: &(dyn Fn(&str) -> Answer + Sync),
        progress: &AtomicUsize,
    ) -> Delivered {
        let mut batches = 0;
        loop {
            let batch = self.gather();
            if batch.is_empty() {
                return self.done;
            }
            let len = batch.len();
            self.settle(batch, invoke);
            batches += 1;
            if self.mapping.lost_after == Some(batches) {
                return self.done;
            }
            self.commit();
            progress.fetch_add(len, Ordering::Relaxed);
        }
    }

    /// The next batch; empty at the end of the topic.
    fn gather(&mut self) -> Vec<Record> {
        let (mut batch, mut bytes) = (Vec::new(), ENVELOPE_LEN);
        let mut window_end = None;
        while batch.len() < self.mapping.batch_size {
            let is_over = |(next, end): &(i64, i64)| next >= end;
            let Some(record) = self.held.take().or_else(|| {
                if self.ranges.values().all(is_over) {
                    return None;
                }
                let wait = window_end.map_or(READ_TIMEOUT, |end: Instant| {
                    end.saturating_duration_since(Instant::now())
                });
                let read = self.consumer.poll(wait)?.expect("a record");
                Some(Record::new(&read))
            }) else {
                let over = self.ranges.values().all(is_over);
                assert!(over || !batch.is_empty(), "nothing read in {READ_TIMEOUT:?}");
                break;
            };
            window_end.get_or_insert_with(|| Instant::now() + self.mapping.window);
            bytes += record.json.len() + 1;
            if bytes > MAX_EVENT_LEN {
                assert!(!batch.is_empty(), "a record that no event holds");
                self.held = Some(record);
                break;
            }
            let range = self.ranges.get_mut(&record.partition).expect("an assigned partition");
            range.0 = record.offset + 1;
            batch.push(record);
        }
        batch
    }

    /// Delivers a batch until every record is done or given up.
    fn settle(&mut self, batch: Vec<Record>, invoke: &(dyn Fn(&str) -> Answer + Sync)) {
        let mut portions = vec![Portion { records: batch, retries: 0 }];
        let mut pause = MAX_PAUSE / 100;
        while let Some(Portion { records, retries }) = portions.pop() {
            let event = self.mapping.event(&records);
            self.done.invocations += 1;
            self.done.max_records = self.done.max_records.max(records.len());
            self.done.max_bytes = self.done.max_bytes.max(event.len());
            let answer = invoke(&event);
            let (mut again, failed) = match self.mapping.left(&records, &answer) {
                Left::Items(again) => (again, false),
                Left::Error => (records, true),
            };
            if again.is_empty() {
                continue;
            }
            if failed {
                self.done.errors += 1;
                self.done.first_error.get_or_insert(answer.body);
            } else {
                self.done.partial_answers += 1;
            }
            if failed && self.mapping.bisect && again.len() > 1 {
                // That it was split does not count as a retry.
                let second = again.split_off(again.len() / 2);
                portions.push(Portion { records: second, retries });
                portions.push(Portion { records: again, retries });
            } else if self.mapping.max_retries.is_some_and(|max| retries >= max) {
                let identity = |r: &Record| self.mapping.kafka.identity(r.partition, r.offset);
                self.done.on_failure.extend(again.iter().map(identity));
                continue;
            } else {
                portions.push(Portion { records: again, retries: retries + 1 });
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    fn commit(&self) {
        let mut offsets = TopicPartitionList::new();
        for (partition, (next, _)) in &self.ranges {
            let added = offsets.add_partition_offset(TOPIC, *partition, Offset::Offset(*next));
            added.expect("an offset");
        }
        self.consumer.commit(&offsets, CommitMode::Sync).expect("committed");
    }
}

impl Record {
    fn new(read: &BorrowedMessage<'_>) -> Self {
        let (timestamp_ms, kind) = match read.timestamp() {
            Timestamp::NotAvailable => (-1, "NO_TIMESTAMP_TYPE"),
            Timestamp::CreateTime(ms) => (ms, "CREATE_TIME"),
            Timestamp::LogAppendTime(ms) => (ms, "LOG_APPEND_TIME"),
        };
        let headers = read.headers().into_iter().flat_map(|headers| headers.iter());
        // Java's bytes have a sign.
        let signed = |bytes: &[u8]| bytes.iter().map(|byte| byte.cast_signed()).collect::<Vec<_>>();
        let headers: Vec<Value> = headers
            .map(|header| json!({ header.key: signed(header.value.unwrap_or_default()) }))
            .collect();
        let mut record = json!({
            "topic": read.topic(),
            "partition": read.partition(),
            "offset": read.offset(),
            "timestamp": timestamp_ms,
            "timestampType": kind,
            "value": read.payload().map(base64),
            "headers": headers,
        });
        if let Some(key) = read.key() {
            record["key"] = json!(base64(key));
        }
        Self { partition: read.partition(), offset: read.offset(), json: record.to_string() }
    }
}
