//! The last records that both scored: a window that moves with them, bounded in memory.
//!
//! A record counts once however often it is delivered: a batch that comes again and again would
//! otherwise fill the window with itself. Nothing is said before records of several batches are in it:
//! those of one batch may have their fault in common.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use super::agreement::{self, Agreement, Judgement, Measures, Sample};

/// Most records in a window. With a thousand, a top of 5 % is known to about a tenth; of twice as many
/// the older half no longer tells of now.
pub const CAPACITY: usize = 2048;
/// Most calls whose times and failures are remembered.
const MAX_CALLS: usize = 256;
/// Fewest batches that anything is said of.
pub const MIN_BATCHES: usize = 3;

/// One call of the endpoint with a batch's sampled records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// How long the batch's local scores took.
    pub local: Duration,
    /// How long the endpoint took.
    pub endpoint: Duration,
    /// Records that the endpoint gave no score for.
    pub failed: usize,
    /// Records that it was asked for.
    pub asked: usize,
}

/// Sampled records of the latest batches.
#[derive(Debug, Default)]
pub struct Window {
    /// Oldest first, each with the number of its batch.
    records: VecDeque<(u64, Sample)>,
    seen: Recent,
    calls: VecDeque<Call>,
    batches: u64,
}

impl Window {
    /// Adds what became of a batch's sampled records: those that both scored, each with a hash of its
    /// identity, and the call. Returns how many are new to the window.
    pub fn add(&mut self, records: impl IntoIterator<Item = (u64, Sample)>, call: Call) -> usize {
        let mut added = 0;
        for (hash, sample) in records {
            if !self.seen.insert(hash) {
                continue;
            }
            if self.records.len() == CAPACITY {
                self.records.pop_front();
            }
            self.records.push_back((self.batches, sample));
            added += 1;
        }
        if self.calls.len() == MAX_CALLS {
            self.calls.pop_front();
        }
        self.calls.push_back(call);
        self.batches += u64::from(added > 0);
        added
    }

    /// The records in it.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// True without a record.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// What is measured of the records in it, and what the rule says of that.
    pub fn judge(&self) -> (Measures, Judgement) {
        let samples: Vec<Sample> = self.records.iter().map(|(_, sample)| *sample).collect();
        let measures = Measures::of(&samples);
        let mut batches: Vec<u64> = self.records.iter().map(|(batch, _)| *batch).collect();
        batches.dedup();
        if batches.len() < MIN_BATCHES {
            let reason = format!("records of {} batches of {MIN_BATCHES} at least", batches.len());
            return (measures, Judgement { agreement: Agreement::TooFew, reason });
        }
        let judgement = agreement::judge(&measures);
        (measures, judgement)
    }

    /// The latest calls, oldest first.
    pub fn calls(&self) -> impl Iterator<Item = &Call> {
        self.calls.iter()
    }
}

/// The names that were seen last: as many as a window has records.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    order: VecDeque<u64>,
    set: HashSet<u64>,
}

impl Recent {
    /// True if a name is new. It is remembered until [`CAPACITY`] others have come.
    pub(crate) fn insert(&mut self, name: u64) -> bool {
        if !self.set.insert(name) {
            return false;
        }
        self.order.push_back(name);
        if self.order.len() > CAPACITY
            && let Some(oldest) = self.order.pop_front()
        {
            self.set.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALL: Call = Call {
        local: Duration::from_micros(10),
        endpoint: Duration::from_millis(5),
        failed: 0,
        asked: 100,
    };

    fn sample(score: u64) -> Sample {
        let score = score as f32;
        Sample { local: score, endpoint: score, flagged: None }
    }

    #[test]
    fn the_oldest_records_leave_first() {
        let mut window = Window::default();
        for batch in 0..40 {
            let records = (batch * 100..(batch + 1) * 100).map(|hash| (hash, sample(hash)));
            assert_eq!(window.add(records, CALL), 100);
        }
        assert_eq!(window.len(), CAPACITY);
        let (measures, _) = window.judge();
        assert_eq!(measures.records, CAPACITY);
        // The least score left is that of the oldest record.
        let least = window.records.iter().map(|(_, sample)| sample.local as u64).min();
        assert_eq!(least, Some(4000 - CAPACITY as u64));
        (0..300).for_each(|_| {
            window.add([], CALL);
        });
        assert_eq!(window.calls().count(), MAX_CALLS);
    }

    #[test]
    fn a_record_that_comes_again_counts_once() {
        let mut window = Window::default();
        let batch = || (0..50).map(|hash| (hash, sample(hash)));
        assert_eq!(window.add(batch(), CALL), 50);
        for _again in 0..100 {
            assert_eq!(window.add(batch(), CALL), 0);
        }
        assert_eq!(window.len(), 50);
    }

    #[test]
    fn one_batch_is_not_judged_however_large() {
        let mut window = Window::default();
        window.add((0..1500).map(|hash| (hash, sample(hash))), CALL);
        assert_eq!(window.judge().1.agreement, Agreement::TooFew);
        for batch in 0..2 {
            window.add([(10_000 + batch, sample(batch))], CALL);
        }
        let (_, judgement) = window.judge();
        assert_eq!(judgement.agreement, Agreement::Agree, "{}", judgement.reason);
    }
}
