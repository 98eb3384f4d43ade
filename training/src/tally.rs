//! What became of the records of a run: how many were read and rejected, and why, and how many made
//! no point.

use std::collections::{BTreeMap, HashMap};

use anyhow::{bail, ensure};
use sawlog_model::{RecordError, Value};

use crate::input::{Place, Record};

/// Rejects shown one by one.
const SHOWN: usize = 5;
/// Reasons told apart; the message of a reason is bounded, their number must be too.
const MAX_REASONS: usize = 1000;

/// Counts of read and rejected records, the first few rejects, and the reasons with their counts.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Records read.
    pub read: u64,
    /// Records rejected.
    pub rejected: u64,
    /// Records with too few of their series before them to make a point.
    pub no_history: u64,
    /// By their places in the input, whatever the order in which they were met.
    first: BTreeMap<(usize, u64), String>,
    reasons: HashMap<String, u64>,
}

impl Tally {
    /// Counts a record, and returns the values of its point if it makes one.
    pub(crate) fn count<'r>(&mut self, record: &Record<'r>) -> Option<&'r [Value]> {
        self.read += 1;
        match record.point {
            Ok(Some(point)) => return Some(point),
            Ok(None) => self.no_history += 1,
            Err(error) => self.reject(record.place, error),
        }
        None
    }

    /// Counts a rejected record.
    pub(crate) fn reject(&mut self, place: Place<'_>, error: &RecordError) {
        self.rejected += 1;
        let Place { source, at, line, offset } = place;
        if self.is_among_first((at, line)) {
            self.show((at, line), format!("{source}:{line} (byte {offset}): {error}"));
        }
        self.count_reason(error.class(), 1);
    }

    /// Adds what another thread has counted of the same input.
    pub(crate) fn add(&mut self, other: Self) {
        self.read += other.read;
        self.rejected += other.rejected;
        self.no_history += other.no_history;
        for (place, reject) in other.first {
            self.show(place, reject);
        }
        for (reason, count) in other.reasons {
            self.count_reason(reason, count);
        }
    }

    fn is_among_first(&self, place: (usize, u64)) -> bool {
        let last = self.first.last_key_value();
        self.first.len() < SHOWN || last.is_some_and(|(last, _)| place < *last)
    }

    fn show(&mut self, place: (usize, u64), reject: String) {
        self.first.insert(place, reject);
        if self.first.len() > SHOWN {
            self.first.pop_last();
        }
    }

    fn count_reason(&mut self, reason: String, count: u64) {
        if self.reasons.len() < MAX_REASONS || self.reasons.contains_key(&reason) {
            *self.reasons.entry(reason).or_default() += count;
        }
    }

    /// Records that make a point.
    pub(crate) fn kept(&self) -> u64 {
        self.read - self.rejected - self.no_history
    }

    /// Rejected / read; 0 if nothing was read.
    #[expect(clippy::cast_precision_loss, reason = "a share")]
    pub(crate) fn rejected_share(&self) -> f64 {
        if self.read == 0 { 0.0 } else { self.rejected as f64 / self.read as f64 }
    }

    /// Fails if more than a share of the records was rejected, or if nothing was kept.
    ///
    /// # Errors
    /// With the counts, the commonest reasons and the first rejects.
    pub(crate) fn check(&self, max_reject_share: f64) -> anyhow::Result<()> {
        if self.rejected_share() > max_reject_share {
            // Of a sketch only the counts are known.
            let reasons = if self.first.is_empty() {
                String::new()
            } else {
                let commonest = self.commonest();
                let first: Vec<&str> = self.first_rejects().collect();
                format!(
                    ". Commonest reasons:\n  {}\nFirst:\n  {}",
                    commonest.join("\n  "),
                    first.join("\n  ")
                )
            };
            bail!(
                "{} of {} records were rejected, more than the share of {max_reject_share} that \
                 --max-reject-share allows; no model is written{reasons}",
                self.rejected,
                self.read,
            );
        }
        ensure!(self.read > 0, "the input has no record; no model is written");
        ensure!(
            self.kept() > 0 || self.no_history == 0,
            "no series is as long as the shingle in any one file: all {} records have too few of \
             theirs before them; no model is written",
            self.no_history
        );
        ensure!(self.kept() > 0, "no record was kept; no model is written");
        Ok(())
    }

    /// Fails if there were records and none of them could be scored.
    ///
    /// # Errors
    /// With the reason.
    pub(crate) fn check_scored(&self) -> anyhow::Result<()> {
        ensure!(
            self.kept() > 0 || self.no_history == 0,
            "no series is as long as the shingle in any one file: no record could be scored"
        );
        ensure!(self.kept() > 0 || self.read == 0, "no record could be scored");
        Ok(())
    }

    /// The first few rejects, each with place and reason.
    pub(crate) fn first_rejects(&self) -> impl Iterator<Item = &str> {
        self.first.values().map(String::as_str)
    }

    /// The commonest reasons, one line each: count and reason.
    pub(crate) fn commonest(&self) -> Vec<String> {
        let mut reasons: Vec<(&String, &u64)> = self.reasons.iter().collect();
        reasons.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
        reasons.iter().take(SHOWN).map(|(reason, count)| format!("{count} x {reason}")).collect()
    }
}
