//! What is kept of a batch whose normal records are not stored one by one.
//!
//! With `RESULTS=anomalies` a normal record leaves no item of its own; that it was there, and was
//! scored, is said by its batch's summary alone. So it counts as stored only once the summary is.
//!
//! ```json
//! {"id":"batch/7d0c…","records":500,"stored":499,"dead_lettered":1,"no_history":0,"failed":0,"anomalies":3,
//!  "scores":{"p50":0.9,"p90":1.1,"p99":1.7,"max":4.1},"models":["5f0c…"],
//!  "first_timestamp_ms":1545084650987,"last_timestamp_ms":1545084651903,
//!  "partitions":[{"partition":"kafka/orders/3","records":500,"first":"12345","last":"12844"}],
//!  "partitions_left_out":0}
//! ```
//!
//! It is a function of the records and of what became of them: no time of day is in it, so that the
//! batch delivered again gives the same summary under the same id.

use std::collections::BTreeMap;

use serde::Serialize;
use xxhash_rust::xxh3::xxh3_128;

use crate::event::Record;
use crate::trust::Reason;

/// Most partitions that a summary names. With the longest names they are 300 KB, and an item of
/// DynamoDB's may have 400 KB.
const MAX_PARTITIONS: usize = 250;

/// What became of a batch. `stored` counts the records that are stored by this summary too.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// `batch/` and a hash of the records' identities, in any order.
    pub id: String,
    /// Records in the batch: the sum of the next four.
    pub records: usize,
    /// Records whose verdicts are stored.
    pub stored: usize,
    /// Records that are with the dead letters.
    pub dead_lettered: usize,
    /// Records without enough of their series before them to have a score.
    pub no_history: usize,
    /// Records that must come again.
    pub failed: usize,
    /// Records judged anomalous.
    pub anomalies: usize,
    /// Records that the endpoint scored; left out if it was not asked.
    #[serde(skip_serializing_if = "is_zero")]
    pub by_endpoint: usize,
    /// Records scored by another than should have; left out if there are none.
    #[serde(skip_serializing_if = "is_zero")]
    pub degraded: usize,
    /// Why a model could not be trusted; left out if all could.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// How the scores are distributed; none if no record could be scored.
    pub scores: Option<Scores>,
    /// Ids of the models that scored it.
    pub models: Vec<String>,
    /// Time of the earliest record, in milliseconds since 1970, if any is known.
    pub first_timestamp_ms: Option<i64>,
    /// Time of the latest.
    pub last_timestamp_ms: Option<i64>,
    /// Where the records stood, by partition, in the order of their names.
    pub partitions: Vec<Partition>,
    /// Partitions beyond those named.
    pub partitions_left_out: usize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// Scores that so many of a hundred records don't exceed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Scores {
    /// The median.
    pub p50: f64,
    /// The 90th percentile.
    pub p90: f64,
    /// The 99th percentile.
    pub p99: f64,
    /// The greatest.
    pub max: f64,
}

/// The records of a partition, or of what else keeps records in an order: a shard, a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Partition {
    /// What the identities of its records begin with.
    pub partition: String,
    /// How many there are.
    pub records: usize,
    /// What the first one's identity ends with; the first as they came.
    pub first: String,
    /// What the last one's ends with.
    pub last: String,
}

/// What became of a batch's records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Records whose verdicts are stored.
    pub stored: usize,
    /// Records that are with the dead letters.
    pub dead_lettered: usize,
    /// Records without enough of their series before them to have a score.
    pub no_history: usize,
    /// Records that must come again.
    pub failed: usize,
    /// Records judged anomalous.
    pub anomalies: usize,
    /// Records that the endpoint scored.
    pub by_endpoint: usize,
    /// Records scored by another than should have.
    pub degraded: usize,
}

impl Summary {
    /// Sums a batch up. `reason` is the worst that was found of its models, `scores` are those of the records that have one, in any order.
    pub fn new(
        records: &[Record<'_>],
        counts: Counts,
        reason: Reason,
        scores: &mut [f32],
        models: Vec<String>,
    ) -> Self {
        let mut partitions: BTreeMap<String, Partition> = BTreeMap::new();
        let mut identities = Identities::default();
        for record in records {
            let identity = record.origin.identity();
            identities.add(&identity);
            let (partition, place) = record.origin.split(&identity);
            match partitions.get_mut(partition) {
                Some(known) => {
                    known.records += 1;
                    place.clone_into(&mut known.last);
                }
                None => {
                    let (partition, place) = (partition.to_owned(), place.to_owned());
                    let (first, last) = (place.clone(), place);
                    let new = Partition { partition: partition.clone(), records: 1, first, last };
                    partitions.insert(partition, new);
                }
            }
        }
        let times = || records.iter().filter_map(|record| record.timestamp_ms);
        let Counts { stored, dead_lettered, no_history, failed, anomalies, by_endpoint, degraded } =
            counts;
        Self {
            id: format!("batch/{}", identities.hash()),
            records: records.len(),
            stored,
            dead_lettered,
            no_history,
            failed,
            anomalies,
            by_endpoint,
            degraded,
            reason: Some(reason).filter(|it| *it != Reason::Fresh).map(Reason::name),
            scores: Scores::of(scores),
            models,
            first_timestamp_ms: times().min(),
            last_timestamp_ms: times().max(),
            partitions_left_out: partitions.len().saturating_sub(MAX_PARTITIONS),
            partitions: partitions.into_values().take(MAX_PARTITIONS).collect(),
        }
    }
}

impl Scores {
    fn of(scores: &mut [f32]) -> Option<Self> {
        scores.sort_unstable_by(f32::total_cmp);
        let last = scores.len().checked_sub(1)?;
        // The nearest rank: a score that a record really has.
        let at = |percent: usize| shortest(scores[(scores.len() * percent).div_ceil(100) - 1]);
        Some(Self { p50: at(50), p90: at(90), p99: at(99), max: shortest(scores[last]) })
    }
}

/// The f64 with the fewest digits that is this f32: 0.1 rather than 0.10000000149.
fn shortest(score: f32) -> f64 {
    score.to_string().parse().unwrap_or_else(|_| f64::from(score))
}

/// A name for a set of records, whatever their order: event sources keep no order between partitions.
#[derive(Debug, Clone, Copy, Default)]
pub struct Identities(u128);

impl Identities {
    /// Adds one.
    pub fn add(&mut self, identity: &str) {
        self.0 = self.0.wrapping_add(xxh3_128(identity.as_bytes()));
    }

    /// 32 hexadecimal digits.
    pub fn hash(self) -> String {
        format!("{:032x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;
    use crate::event::Event;

    const NONE: Counts = Counts {
        stored: 0,
        dead_lettered: 0,
        no_history: 0,
        failed: 0,
        anomalies: 0,
        by_endpoint: 0,
        degraded: 0,
    };

    /// The summary of a batch with these offsets and times of each partition of topic `t`.
    fn summary(partitions: &[(u32, &[(u64, i64)])]) -> Summary {
        let list = |records: &[(u64, i64)]| -> String {
            let record = |(offset, time): &(u64, i64)| {
                format!(r#"{{"offset":{offset},"timestamp":{time},"value":"YQ=="}}"#)
            };
            records.iter().map(record).collect::<Vec<_>>().join(",")
        };
        let partitions = partitions.iter();
        let partitions = partitions
            .map(|(partition, records)| format!(r#""t-{partition}":[{}]"#, list(records)));
        let partitions = partitions.collect::<Vec<_>>().join(",");
        let json = format!(r#"{{"eventSource":"aws:kafka","records":{{{partitions}}}}}"#);
        let raw = RawValue::from_string(json).expect("json");
        let event = Event::decode(&raw).expect("event");
        Summary::new(&event.records, NONE, Reason::Fresh, &mut [], Vec::new())
    }

    #[test]
    fn a_batch_has_one_name_in_any_order_of_its_partitions_and_no_other_batch_has_it() {
        let (zero, one): (&[_], &[_]) = (&[(5, 30), (6, 40)], &[(9, -1), (11, 20)]);
        let batch = summary(&[(0, zero), (1, one)]);
        assert_eq!(batch, summary(&[(1, one), (0, zero)]));
        assert_eq!(batch.id.len(), "batch/".len() + 32);
        let part = |partition: &str, first: &str, last: &str| Partition {
            partition: partition.into(),
            records: 2,
            first: first.into(),
            last: last.into(),
        };
        let parts = [part("kafka/t/0", "5", "6"), part("kafka/t/1", "9", "11")];
        assert_eq!((batch.partitions, batch.partitions_left_out), (parts.to_vec(), 0));
        assert_eq!((batch.first_timestamp_ms, batch.last_timestamp_ms), (Some(20), Some(40)));
        // The same ends, other records between them; and a record twice.
        let others: [&[_]; 3] =
            [&[(9, 0), (10, 0), (11, 0)], &[(9, 0), (11, 0), (11, 0)], &[(9, 0), (9, 0), (11, 0)]];
        let names = others.map(|records| summary(&[(0, zero), (1, records)]).id);
        for name in &names {
            assert_eq!(names.iter().filter(|other| *other == name).count(), 1, "{names:?}");
            assert_ne!(*name, batch.id);
        }
    }

    #[test]
    fn quantiles_are_scores_that_were_given() {
        assert_eq!(Scores::of(&mut []), None);
        let one = Scores { p50: 0.1, p90: 0.1, p99: 0.1, max: 0.1 };
        assert_eq!(Scores::of(&mut [0.1]), Some(one));
        let mut hundred: Vec<f32> = (1..=100_u8).rev().map(f32::from).collect();
        let expected = Scores { p50: 50.0, p90: 90.0, p99: 99.0, max: 100.0 };
        assert_eq!(Scores::of(&mut hundred), Some(expected));
        let expected = Scores { p50: 2.0, p90: 3.0, p99: 3.0, max: 3.0 };
        assert_eq!(Scores::of(&mut [3.0, 1.0, 2.0]), Some(expected));
    }

    #[test]
    fn a_batch_of_more_partitions_than_an_item_could_hold_says_how_many_are_left_out() {
        let record: &[(u64, i64)] = &[(7, 1)];
        let partitions: Vec<_> = (0..300).map(|partition| (partition, record)).collect();
        let summary = summary(&partitions);
        assert_eq!((summary.records, summary.partitions.len()), (300, MAX_PARTITIONS));
        assert_eq!(summary.partitions_left_out, 50);
    }
}
