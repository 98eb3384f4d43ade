//! Which records each tree is built from: a keyed bottom-k sample.
//!
//! Every (record, tree) has a priority that is a function of the seed, the tree and the record's
//! identity alone; a tree keeps the k records of the lowest priorities. So a sample does not depend
//! on the order of the records, on threads or on how files were split, the sample of a union is the
//! bottom-k of the union of samples, and sketches merge in any order. Since priorities are
//! exchangeable, each set of k records is equally likely: a uniform sample without replacement.
//!
//! **Not one hash a tree.** A record's priorities come from a Poisson process of its own, keyed by
//! the seed and its identity: arrivals at rate T (the number of trees), each marked with a tree drawn
//! uniformly. A tree's priority is the time of the first arrival with its mark. By the splitting of
//! Poisson processes the T priorities are independent and Exp(1) each. To find the trees that want
//! a record one walks the arrivals until they pass the highest threshold of any tree: in
//! expectation 1 + T * threshold steps, that is O(1 + trees that want it), and once N records have
//! gone by, a threshold is about k / N.
//!
//! **Collected, then chosen.** Until as many records were offered as all samples have places, they are only
//! collected. Then a threshold is guessed from their weights, so that each tree finds a few more arrivals than
//! it wants, and raised if one finds fewer. The k lowest are the same however they are found, and a
//! threshold that sank from record to record would let several times as many arrivals in on its way.
//!
//! **Taken, then settled.** From then on what trees take is put on one list; when that is a quarter of what they
//! hold, each tree gets its part and keeps its lowest. So memory is gone through in its order, where a place in
//! some tree for every arrival is a wait for memory.
//!
//! **Weights.** A record of weight w has its times divided by w: they are Exp(w), and the lowest k are a
//! sample without replacement in which each next record is drawn with a probability proportional to its
//! weight (Efraimidis and Spirakis 2006). A weight that halves with age is 2^(time / half-life), beyond
//! any float within a few years; so priorities are kept as logarithms, ln(arrival) - ln(weight), which are in
//! the same order. Without weights all logarithms are 0.

use std::cmp::Ordering;
use std::collections::HashMap;

use rand_core::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128};

use crate::score::as_f64;

/// A record's identity: a hash of where it stands in the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordKey(u128);

/// What the records of a source have in common in their identities: its name, hashed once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceKey(u128);

impl SourceKey {
    /// Of a path or an object's URL, as the user named it.
    pub fn new(source: &str) -> Self {
        Self(xxh3_128(source.as_bytes()))
    }

    /// The identity of the record at byte `offset` of the decompressed stream; of a table's row, at its
    /// number from 0.
    pub fn record(self, offset: u64) -> RecordKey {
        let mut bytes = [0; 24];
        bytes[..16].copy_from_slice(&self.0.to_le_bytes());
        bytes[16..].copy_from_slice(&offset.to_le_bytes());
        RecordKey(xxh3_128(&bytes))
    }
}

impl RecordKey {
    /// The identity of a record by its source and its place in it: [`SourceKey::record`].
    pub fn new(source: &str, offset: u64) -> Self {
        SourceKey::new(source).record(offset)
    }

    pub(crate) fn to_le_bytes(self) -> [u8; 16] {
        self.0.to_le_bytes()
    }

    pub(crate) fn from_le_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_le_bytes(bytes))
    }

    /// 64 bits of a hash of the key under a seed.
    fn hash(self, seed: u64) -> u64 {
        xxh3_64_with_seed(&self.0.to_le_bytes(), seed)
    }

    /// True for a share of all keys, the same whatever else is in the input: `1 / one_in` of them.
    pub fn is_held_out(self, seed: u64, one_in: u64) -> bool {
        self.hash(mix(seed, HELD_OUT)).is_multiple_of(one_in)
    }
}

/// Tells the held-out choice from a tree's number.
const HELD_OUT: u64 = u64::MAX;

/// A seed for one use of a user's seed.
pub(crate) fn mix(seed: u64, use_of: u64) -> u64 {
    xxh3_64_with_seed(&use_of.to_le_bytes(), seed)
}

/// The arrivals of one record's Poisson process: (time, tree), times ascending.
struct Arrivals {
    rng: Xoshiro256PlusPlus,
    trees: u64,
    time: f64,
}

impl Arrivals {
    fn new(seed: u64, trees: usize, key: RecordKey) -> Self {
        let rng = Xoshiro256PlusPlus::seed_from_u64(key.hash(seed));
        Self { rng, trees: trees as u64, time: 0.0 }
    }

    /// U in (0, 1), never 0, so that its logarithm is finite.
    fn uniform(&mut self) -> f64 {
        crate::tree::uniform(&mut self.rng) + f64::EPSILON / 4.0
    }

    fn next(&mut self) -> (f64, usize) {
        // libm's logarithm is the same everywhere.
        self.time -= libm::log(self.uniform()) / as_f64(self.trees as usize);
        // The high half of a 64 x 64 bit product: uniform over the trees to 2^-64.
        let tree = (u128::from(self.rng.next_u64()) * u128::from(self.trees)) >> 64;
        (self.time, tree as usize)
    }
}

/// Tells of a record, apart from the sketch, whether any tree might take it: so threads can choose records
/// without waiting for one another. As a sketch goes on it takes ever less, so a sieve that is behind
/// lets too many through and never holds back one too many.
#[derive(Debug, Clone)]
pub struct Sieve {
    seed: u64,
    trees: usize,
    limit: f64,
    /// The step that the logarithm of the last record's weight was on.
    step: f64,
    /// Least U of a first arrival within the limit, of a record whose weight is on that step.
    least: f64,
}

/// A sieve takes weights in steps of so much of their logarithm: logs are in the order of time, so two
/// exponentials are done for one step and not for each record, and 3 % too many pass at most.
const SIEVE_STEPS: f64 = 64.0;

impl Sieve {
    fn new(seed: u64, trees: usize, limit: f64) -> Self {
        let mut sieve = Self { seed, trees, limit, step: f64::NAN, least: 0.0 };
        sieve.step_to(0.0);
        sieve
    }

    fn step_to(&mut self, step: f64) {
        self.step = step;
        // The step above the next one: what rounding does to a logarithm lets none through too few.
        let log_weight = (step + 2.0) / SIEVE_STEPS;
        self.least = libm::exp(-libm::exp(self.limit + log_weight) * as_f64(self.trees));
    }

    /// False for a record that no tree takes. `log_weight` as for [`Sketch::offer`].
    pub fn passes(&mut self, key: RecordKey, log_weight: f64) -> bool {
        let step = (log_weight * SIEVE_STEPS).floor();
        if step != self.step {
            self.step_to(step);
        }
        Arrivals::new(self.seed, self.trees, key).uniform() >= self.least
    }
}

/// Walks records' first arrivals at the trees.
#[derive(Debug)]
struct Walker {
    seed: u64,
    /// Records walked.
    walked: u64,
    /// For each tree, the number of the last record that arrived at it.
    arrived: Vec<u64>,
}

impl Walker {
    fn new(seed: u64, trees: usize) -> Self {
        Self { seed, walked: 0, arrived: vec![0; trees] }
    }

    /// Gives each priority of a record that is within the limit, with its tree.
    fn walk(
        &mut self,
        key: RecordKey,
        log_weight: f64,
        limit: f64,
        mut give: impl FnMut(f64, usize),
    ) {
        self.walked += 1;
        let mut arrivals = Arrivals::new(self.seed, self.arrived.len(), key);
        let mut pending = self.arrived.len();
        while pending > 0 {
            let (time, tree) = arrivals.next();
            let priority = libm::log(time) - log_weight;
            if priority > limit {
                return;
            }
            // Only the first arrival at a tree is its priority.
            if self.arrived[tree] != self.walked {
                self.arrived[tree] = self.walked;
                pending -= 1;
                give(priority, tree);
            }
        }
    }
}

/// A record's place in a tree's sample.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Entry {
    priority: f64,
    /// Where the record is held.
    slot: u32,
    tree: u32,
}

/// A record that is held. One that no tree leads to any more stays until its place is taken, or is let go of.
#[derive(Debug)]
struct Slot<T> {
    key: RecordKey,
    log_weight: f64,
    record: Option<T>,
}

/// A record of a sketch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Kept<'a, T> {
    /// Its identity.
    pub key: RecordKey,
    /// The natural logarithm of its weight.
    pub log_weight: f64,
    /// The lowest of its priorities in the samples that have it.
    pub priority: f64,
    /// The record.
    pub record: &'a T,
}

/// A guessed threshold has so many deviations more arrivals at a tree than it wants, in expectation: of 256 samples,
/// it is too low for one tree in 100,000.
const MARGIN: f64 = 5.0;
/// What trees have taken and not got yet is one part in so many of what they hold.
const TAKEN_PART: usize = 4;

/// Bottom-k samples of `trees` trees over records of type `T`, each record stored once.
#[derive(Debug)]
pub struct Sketch<T> {
    samples: usize,
    walker: Walker,
    /// False while records are only collected: `slots` are then all that were offered.
    is_chosen: bool,
    /// The lowest `samples` entries of each tree, of all records but those in `taken`; in no order.
    trees: Vec<Vec<Entry>>,
    /// For each tree a priority that none of its lowest exceeds; infinite until that is known.
    thresholds: Vec<f64>,
    /// The highest threshold of all trees.
    limit: f64,
    /// Entries that trees have taken since they were settled.
    taken: Vec<Entry>,
    slots: Vec<Slot<T>>,
    /// Slots that nothing leads to, the first one last: they are used in the order of memory.
    free: Vec<u32>,
}

impl<T> Sketch<T> {
    /// An empty sketch. `trees` and `samples` are at least 1.
    pub fn new(seed: u64, trees: usize, samples: usize) -> Self {
        Self {
            samples,
            walker: Walker::new(seed, trees),
            is_chosen: false,
            trees: vec![Vec::new(); trees],
            thresholds: vec![f64::INFINITY; trees],
            limit: f64::INFINITY,
            taken: Vec::new(),
            slots: Vec::new(),
            free: Vec::new(),
        }
    }

    /// What tells records apart from the sketch as it is now.
    pub fn sieve(&self) -> Sieve {
        Sieve::new(self.walker.seed, self.trees.len(), self.limit)
    }

    /// Offers a record; `make` is called only if a tree may take it. A key is offered once, with the natural
    /// logarithm of its weight, which is finite: 0 where records weigh the same.
    pub fn offer(&mut self, key: RecordKey, log_weight: f64, make: impl FnOnce() -> T) {
        let places = self.trees.len() * self.samples;
        if !self.is_chosen {
            self.hold(key, log_weight, make());
            if self.slots.len() >= places {
                self.settle();
            }
            return;
        }
        let (slot, before) = (self.next_slot(), self.taken.len());
        self.walker.walk(key, log_weight, self.limit, |priority, tree| {
            if priority <= self.thresholds[tree] {
                self.taken.push(entry(priority, slot, tree));
            }
        });
        if self.taken.len() > before {
            self.hold(key, log_weight, make());
        }
        if self.taken.len() >= places.div_ceil(TAKEN_PART) {
            self.settle();
        }
    }

    /// Where the next record is held.
    #[expect(clippy::cast_possible_truncation, reason = "fewer records than places in trees")]
    fn next_slot(&self) -> u32 {
        self.free.last().copied().unwrap_or(self.slots.len() as u32)
    }

    fn hold(&mut self, key: RecordKey, log_weight: f64, record: T) -> u32 {
        let held = Slot { key, log_weight, record: Some(record) };
        let at = self.next_slot();
        match self.free.pop() {
            Some(_) => self.slots[at as usize] = held,
            None => self.slots.push(held),
        }
        at
    }

    /// The priority x within which a tree expects to find what it wants of the collected records, and a margin:
    /// the sum of min(1, weight * x) is that number. Infinite if there are not so many.
    fn guess(&self) -> f64 {
        let samples = as_f64(self.samples);
        let wanted = samples + MARGIN * samples.sqrt();
        let mut weights: Vec<f64> = self.slots.iter().map(|slot| slot.log_weight).collect();
        weights.sort_unstable_by(f64::total_cmp);
        let (mut limit, mut lighter) = (f64::INFINITY, f64::NEG_INFINITY);
        // What the records up to this one weigh, in its weight: no float holds all weights.
        let mut sum = 0.0;
        for (heavier, log_weight) in (0..weights.len()).rev().zip(weights) {
            sum = 1.0 + sum * libm::exp(lighter - log_weight);
            lighter = log_weight;
            // Of the heavier ones each is sure to be found.
            let of_these = wanted - as_f64(heavier);
            if of_these > 0.0 && of_these <= sum {
                limit = libm::log(of_these / sum) - log_weight;
            }
        }
        limit
    }

    /// For each tree its lowest entries of all collected records, and some more.
    fn choose(&self) -> Vec<Vec<Entry>> {
        let wanted = self.samples.min(self.slots.len());
        let mut limit = self.guess();
        let mut walker = Walker::new(self.walker.seed, self.trees.len());
        loop {
            let mut trees = vec![Vec::new(); self.trees.len()];
            for (at, slot) in (0..).zip(&self.slots) {
                walker.walk(slot.key, slot.log_weight, limit, |priority, tree| {
                    trees[tree].push(entry(priority, at, tree));
                });
            }
            if trees.iter().all(|entries| entries.len() >= wanted) {
                return trees;
            }
            // Twice as many at most.
            limit += std::f64::consts::LN_2;
        }
    }

    /// The lowest entries of each tree, of all records.
    fn lowest(&self) -> Vec<Vec<Entry>> {
        let mut trees = if self.is_chosen { self.trees.clone() } else { self.choose() };
        self.add_taken(&mut trees);
        trees
    }

    fn add_taken(&self, trees: &mut [Vec<Entry>]) {
        for entry in &self.taken {
            trees[entry.tree as usize].push(*entry);
        }
        for entries in trees {
            if entries.len() > self.samples {
                entries.select_nth_unstable_by(self.samples, |a, b| order(a, b, &self.slots));
                entries.truncate(self.samples);
            }
        }
    }

    /// Brings the trees up to date with what was offered.
    pub(crate) fn settle(&mut self) {
        let mut trees = match self.is_chosen {
            true => std::mem::take(&mut self.trees),
            false => self.choose(),
        };
        self.add_taken(&mut trees);
        self.taken.clear();
        self.is_chosen = true;
        self.set_trees(trees);
    }

    /// Sets the trees' lowest entries, and finds what they take from now on and which slots are free.
    fn set_trees(&mut self, trees: Vec<Vec<Entry>>) {
        let mut is_held = vec![false; self.slots.len()];
        for (known, entries) in self.thresholds.iter_mut().zip(&trees) {
            *known = threshold(entries, self.samples);
            entries.iter().for_each(|entry| is_held[entry.slot as usize] = true);
        }
        self.limit = self.thresholds.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        self.trees = trees;
        self.free.clear();
        self.free.extend((0..).zip(is_held).filter(|(_, is_held)| !is_held).map(|(at, _)| at));
        self.free.reverse();
    }

    /// Lets go of the records that no tree leads to.
    fn let_go(&mut self) {
        for &at in &self.free {
            self.slots[at as usize].record = None;
        }
    }

    /// Joins another sketch of the same seed, trees and samples: the result is the sketch of both
    /// inputs together. Commutative and associative; a record that is in both counts once.
    ///
    /// # Errors
    /// [`MergeError`] if the two were not made with the same seed, trees and samples.
    pub fn merge(&mut self, mut other: Self) -> Result<(), MergeError> {
        let shape = |sketch: &Self| (sketch.walker.seed, sketch.trees.len(), sketch.samples);
        if shape(self) != shape(&other) {
            return Err(MergeError { ours: shape(self), theirs: shape(&other) });
        }
        for sketch in [&mut *self, &mut other] {
            sketch.settle();
            sketch.let_go();
        }
        let known: HashMap<RecordKey, u32> = (0..)
            .zip(&self.slots)
            .filter(|(_, slot)| slot.record.is_some())
            .map(|(at, slot)| (slot.key, at))
            .collect();
        let mut here = Vec::with_capacity(other.slots.len());
        for Slot { key, log_weight, record, .. } in other.slots {
            here.push(match (known.get(&key), record) {
                (Some(&slot), _) => slot,
                (None, Some(record)) => self.hold(key, log_weight, record),
                // Nothing leads to a free slot.
                (None, None) => 0,
            });
        }
        let mut trees = std::mem::take(&mut self.trees);
        for (mine, theirs) in trees.iter_mut().zip(other.trees) {
            let moved = |entry: Entry| Entry { slot: here[entry.slot as usize], ..entry };
            mine.extend(theirs.into_iter().map(moved));
            mine.sort_unstable_by(|a, b| order(a, b, &self.slots));
            mine.dedup_by_key(|entry| entry.slot);
            mine.truncate(self.samples);
        }
        self.set_trees(trees);
        self.let_go();
        Ok(())
    }

    /// Keeps the lowest `samples` of each tree: the sketch that would have been made with fewer.
    pub fn shrink(&mut self, samples: usize) {
        self.samples = self.samples.min(samples);
        self.settle();
        self.let_go();
    }

    /// Number of trees.
    pub fn trees(&self) -> usize {
        self.trees.len()
    }

    /// The keys of each tree's sample, in ascending order.
    pub fn keys(&self) -> Vec<Vec<RecordKey>> {
        let sorted = |entries: Vec<Entry>| {
            let keys = entries.iter().map(|entry| self.slots[entry.slot as usize].key);
            let mut keys: Vec<RecordKey> = keys.collect();
            keys.sort_unstable();
            keys
        };
        self.lowest().into_iter().map(sorted).collect()
    }

    /// All records in any tree's sample, once each, in ascending order of their keys.
    pub fn kept(&self) -> Vec<Kept<'_, T>> {
        let mut priorities = vec![None; self.slots.len()];
        for entry in self.lowest().into_iter().flatten() {
            let lowest = &mut priorities[entry.slot as usize];
            *lowest = Some(entry.priority.min(lowest.unwrap_or(f64::INFINITY)));
        }
        let kept = |(slot, priority)| {
            let Slot { key, log_weight, record, .. }: &Slot<T> = slot;
            let (key, log_weight, priority, record) =
                (*key, *log_weight, priority?, record.as_ref()?);
            Some(Kept { key, log_weight, priority, record })
        };
        let mut all: Vec<Kept<'_, T>> =
            self.slots.iter().zip(priorities).filter_map(kept).collect();
        all.sort_unstable_by_key(|kept| kept.key);
        all
    }

    /// The same without what they weigh.
    pub fn records(&self) -> Vec<(RecordKey, &T)> {
        self.kept().into_iter().map(|kept| (kept.key, kept.record)).collect()
    }
}

#[expect(clippy::cast_possible_truncation, reason = "there are at most 2^26 places in trees")]
fn entry(priority: f64, slot: u32, tree: usize) -> Entry {
    Entry { priority, slot, tree: tree as u32 }
}

/// The order of a tree's entries: that of priority, then of identity.
fn order<T>(a: &Entry, b: &Entry, slots: &[Slot<T>]) -> Ordering {
    let key = |entry: &Entry| slots[entry.slot as usize].key;
    a.priority.total_cmp(&b.priority).then_with(|| key(a).cmp(&key(b)))
}

/// The highest priority of a sample, if it is whole; else any is taken.
fn threshold(entries: &[Entry], samples: usize) -> f64 {
    if entries.len() < samples {
        return f64::INFINITY;
    }
    entries.iter().map(|entry| entry.priority).fold(f64::NEG_INFINITY, f64::max)
}

/// Two sketches that can't be merged: (seed, trees, samples) of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("sketches of different (seed, trees, samples) can't be merged: {ours:?} and {theirs:?}")]
pub struct MergeError {
    /// Of the one merged into.
    pub ours: (u64, usize, usize),
    /// Of the one merged.
    pub theirs: (u64, usize, usize),
}

#[cfg(test)]
mod tests;
