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

/// A record's place in a tree's sample.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Entry {
    priority: f64,
    /// Where the record is held.
    slot: u32,
}

/// A record that is held for the trees that have it in their samples, and while it is offered.
#[derive(Debug)]
struct Slot<T> {
    key: RecordKey,
    log_weight: f64,
    record: Option<T>,
    /// How often it is held; a slot without a record is free.
    held_by: u32,
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

/// Bottom-k samples of `trees` trees over records of type `T`, each record stored once.
///
/// A tree's entries are in no order, and may be a quarter more than it wants: only when there is no room
/// left are the highest let go of, all at once. That costs a few nanoseconds an entry, where a heap for
/// each of a thousand trees costs the time of the memory that they take.
#[derive(Debug)]
pub struct Sketch<T> {
    seed: u64,
    samples: usize,
    /// The entries of each tree, at least its lowest `samples`.
    trees: Vec<Vec<Entry>>,
    /// For each tree a priority that none of its lowest exceeds; infinite until that is known.
    thresholds: Vec<f64>,
    /// The highest threshold of all trees.
    limit: f64,
    /// For each tree, the number of the last offered record that arrived at it.
    arrived: Vec<u64>,
    offered: u64,
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

impl<T> Sketch<T> {
    /// An empty sketch. `trees` and `samples` are at least 1.
    pub fn new(seed: u64, trees: usize, samples: usize) -> Self {
        Self {
            seed,
            samples,
            trees: vec![Vec::new(); trees],
            thresholds: vec![f64::INFINITY; trees],
            limit: f64::INFINITY,
            arrived: vec![0; trees],
            offered: 0,
            slots: Vec::new(),
            free: Vec::new(),
        }
    }

    /// What tells records apart from the sketch as it is now.
    pub fn sieve(&self) -> Sieve {
        Sieve::new(self.seed, self.trees.len(), self.limit)
    }

    /// Offers a record; `make` is called only if a tree takes it. A key is offered once, with the natural
    /// logarithm of its weight, which is finite: 0 where records weigh the same.
    pub fn offer(&mut self, key: RecordKey, log_weight: f64, make: impl FnOnce() -> T) {
        self.offered += 1;
        let trees = self.trees.len();
        let mut arrivals = Arrivals::new(self.seed, trees, key);
        let mut make = Some(make);
        let mut held = None;
        let mut pending = trees;
        while pending > 0 {
            let (time, tree) = arrivals.next();
            let priority = libm::log(time) - log_weight;
            if priority > self.limit {
                break;
            }
            // Only the first arrival at a tree is its priority.
            if self.arrived[tree] == self.offered {
                continue;
            }
            self.arrived[tree] = self.offered;
            pending -= 1;
            if priority > self.thresholds[tree] {
                continue;
            }
            let slot = match (held, make.take()) {
                (Some(slot), _) => slot,
                (None, Some(make)) => self.hold(key, log_weight, make()),
                (None, None) => return,
            };
            held = Some(slot);
            self.slots[slot as usize].held_by += 1;
            self.trees[tree].push(Entry { priority, slot });
            if self.trees[tree].len() >= self.samples + self.samples.div_ceil(4) {
                self.settle(tree);
            }
        }
        if let Some(slot) = held {
            self.let_go(slot);
        }
    }

    /// Finds a place for a record, and holds it there until it is let go of.
    #[expect(clippy::cast_possible_truncation, reason = "fewer records than places in trees")]
    fn hold(&mut self, key: RecordKey, log_weight: f64, record: T) -> u32 {
        let held = Slot { key, log_weight, record: Some(record), held_by: 1 };
        match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = held;
                slot
            }
            None => {
                self.slots.push(held);
                (self.slots.len() - 1) as u32
            }
        }
    }

    fn let_go(&mut self, at: u32) {
        let slot = &mut self.slots[at as usize];
        slot.held_by -= 1;
        if slot.held_by == 0 {
            slot.record = None;
            self.free.push(at);
        }
    }

    /// Lets go of a tree's entries but the lowest, which sets its threshold.
    fn settle(&mut self, tree: usize) {
        let mut entries = std::mem::take(&mut self.trees[tree]);
        let lowest = lowest(&mut entries, self.samples, &self.slots);
        for displaced in entries.drain(lowest..) {
            self.let_go(displaced.slot);
        }
        let before = self.thresholds[tree];
        self.thresholds[tree] = threshold(&entries, self.samples);
        self.trees[tree] = entries;
        // The limit is one tree's threshold; only when that tree's has sunk is there a new one.
        if before >= self.limit {
            self.limit = self.highest_threshold();
        }
    }

    fn highest_threshold(&self) -> f64 {
        self.thresholds.iter().copied().fold(f64::NEG_INFINITY, f64::max)
    }

    /// Joins another sketch of the same seed, trees and samples: the result is the sketch of both
    /// inputs together. Commutative and associative; a record that is in both counts once.
    ///
    /// # Errors
    /// [`MergeError`] if the two were not made with the same seed, trees and samples.
    pub fn merge(&mut self, other: Self) -> Result<(), MergeError> {
        let shape = |sketch: &Self| (sketch.seed, sketch.trees.len(), sketch.samples);
        if shape(self) != shape(&other) {
            return Err(MergeError { ours: shape(self), theirs: shape(&other) });
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
        for (mine, theirs) in self.trees.iter_mut().zip(other.trees) {
            let moved = |entry: Entry| Entry { slot: here[entry.slot as usize], ..entry };
            mine.extend(theirs.into_iter().map(moved));
            mine.sort_unstable_by(|a, b| order(a, b, &self.slots));
            mine.dedup_by_key(|entry| entry.slot);
            mine.truncate(self.samples);
        }
        self.recount();
        Ok(())
    }

    /// Keeps the lowest `samples` of each tree: the sketch that would have been made with fewer.
    pub fn shrink(&mut self, samples: usize) {
        if samples >= self.samples {
            return;
        }
        self.samples = samples;
        for entries in &mut self.trees {
            let lowest = lowest(entries, samples, &self.slots);
            entries.truncate(lowest);
        }
        self.recount();
    }

    /// Counts anew what trees of no more than `samples` entries lead to, and what they take.
    fn recount(&mut self) {
        self.slots.iter_mut().for_each(|slot| slot.held_by = 0);
        for entry in self.trees.iter().flatten() {
            self.slots[entry.slot as usize].held_by += 1;
        }
        self.free.clear();
        for (at, slot) in (0..).zip(&mut self.slots) {
            if slot.held_by == 0 {
                slot.record = None;
                self.free.push(at);
            }
        }
        for (known, entries) in self.thresholds.iter_mut().zip(&self.trees) {
            *known = threshold(entries, self.samples);
        }
        self.limit = self.highest_threshold();
    }

    /// Number of trees.
    pub fn trees(&self) -> usize {
        self.trees.len()
    }

    /// The entries of a tree's sample.
    fn sample(&self, tree: usize) -> Vec<Entry> {
        let mut entries = self.trees[tree].clone();
        let lowest = lowest(&mut entries, self.samples, &self.slots);
        entries.truncate(lowest);
        entries
    }

    /// The keys of a tree's sample, in ascending order.
    pub fn keys(&self, tree: usize) -> Vec<RecordKey> {
        let key = |entry: &Entry| self.slots[entry.slot as usize].key;
        let mut keys: Vec<RecordKey> = self.sample(tree).iter().map(key).collect();
        keys.sort_unstable();
        keys
    }

    /// All records in any tree's sample, once each, in ascending order of their keys.
    pub fn kept(&self) -> Vec<Kept<'_, T>> {
        let mut priorities = vec![None; self.slots.len()];
        for entry in (0..self.trees.len()).flat_map(|tree| self.sample(tree)) {
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

/// The order of a tree's entries: that of priority, then of identity.
fn order<T>(a: &Entry, b: &Entry, slots: &[Slot<T>]) -> Ordering {
    let key = |entry: &Entry| slots[entry.slot as usize].key;
    a.priority.total_cmp(&b.priority).then_with(|| key(a).cmp(&key(b)))
}

/// Puts the lowest entries, at most so many, before all others; returns how many they are.
fn lowest<T>(entries: &mut [Entry], samples: usize, slots: &[Slot<T>]) -> usize {
    if entries.len() > samples {
        entries.select_nth_unstable_by(samples, |a, b| order(a, b, slots));
    }
    entries.len().min(samples)
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
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    fn key(id: u64) -> RecordKey {
        RecordKey::new("records", id)
    }

    /// The slow oracle's first arrival at a tree: walks the record's whole process.
    fn arrival(seed: u64, trees: usize, tree: usize, id: u64) -> f64 {
        let mut arrivals = Arrivals::new(seed, trees, key(id));
        loop {
            let (time, at) = arrivals.next();
            if at == tree {
                return time;
            }
        }
    }

    /// The logarithm of the weight of a record that is `id` times so much of a half-life old.
    fn log_weight(id: u64, part: f64) -> f64 {
        id as f64 * part * std::f64::consts::LN_2
    }

    /// The slow oracle: the priority of every (record, tree), sorted, the first k. The weight itself is used.
    fn oracle(
        seed: u64,
        trees: usize,
        samples: usize,
        part: f64,
        ids: &[u64],
    ) -> Vec<Vec<RecordKey>> {
        let of_tree = |tree| {
            let priority = |id| arrival(seed, trees, tree, id) / log_weight(id, part).exp();
            let mut all: Vec<(f64, RecordKey)> =
                ids.iter().map(|&id| (priority(id), key(id))).collect();
            all.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            let mut keys: Vec<RecordKey> = all.iter().take(samples).map(|(_, key)| *key).collect();
            keys.sort();
            keys
        };
        (0..trees).map(of_tree).collect()
    }

    fn weighted(seed: u64, trees: usize, samples: usize, part: f64, ids: &[u64]) -> Sketch<u64> {
        let mut sketch = Sketch::new(seed, trees, samples);
        ids.iter().for_each(|&id| sketch.offer(key(id), log_weight(id, part), || id));
        sketch
    }

    fn sketch(seed: u64, trees: usize, samples: usize, ids: &[u64]) -> Sketch<u64> {
        weighted(seed, trees, samples, 0.0, ids)
    }

    fn all_keys<T>(sketch: &Sketch<T>) -> Vec<Vec<RecordKey>> {
        (0..sketch.trees()).map(|tree| sketch.keys(tree)).collect()
    }

    fn held<T: Copy>(sketch: &Sketch<T>) -> Vec<T> {
        sketch.records().into_iter().map(|(_, record)| *record).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(4), ..ProptestConfig::with_cases(64) })]

        #[test]
        fn the_sketch_is_the_oracles(
            seed: u64, trees in 1_usize..12, samples in 1_usize..20, count in 0_u64..300,
            part in prop_oneof![Just(0.0), -0.5..2.0_f64],
        ) {
            let ids: Vec<u64> = (0..count).collect();
            let sketch = weighted(seed, trees, samples, part, &ids);
            prop_assert_eq!(all_keys(&sketch), oracle(seed, trees, samples, part, &ids));
        }

        #[test]
        fn a_sieve_holds_back_nothing_that_the_sketch_takes(
            seed: u64, trees in 1_usize..12, samples in 1_usize..20, before in 0_u64..300,
            part in prop_oneof![Just(0.0), -0.5..0.5_f64, Just(1e5)],
        ) {
            let mut sketch = weighted(seed, trees, samples, part, &(0..before).collect::<Vec<_>>());
            let mut sieve = sketch.sieve();
            for id in before..before + 100 {
                let log_weight = log_weight(id, part);
                let mut is_taken = false;
                sketch.offer(key(id), log_weight, || {
                    is_taken = true;
                    id
                });
                prop_assert!(!is_taken || sieve.passes(key(id), log_weight), "record {}", id);
            }
        }

        /// Years in half-lives of a minute: such weights are beyond any float.
        #[test]
        fn only_differences_of_age_count(
            seed: u64, samples in 1_usize..10, part in 0.0..2.0_f64, halvings in -1_000_000..1_000_000_i64,
        ) {
            let ids: Vec<u64> = (0..200).collect();
            let mut later = Sketch::new(seed, 5, samples);
            let shift = halvings as f64 * std::f64::consts::LN_2;
            ids.iter().for_each(|&id| later.offer(key(id), log_weight(id, part) + shift, || id));
            prop_assert_eq!(all_keys(&later), all_keys(&weighted(seed, 5, samples, part, &ids)));
        }

        #[test]
        fn order_and_splits_make_no_difference(
            seed: u64, samples in 1_usize..10, part in prop_oneof![Just(0.0), 0.0..0.1_f64], mut ids in prop::collection::hash_set(0_u64..1000, 0..200)
                .prop_map(|ids| ids.into_iter().collect::<Vec<_>>()), cut in 0.0..1.0_f64,
        ) {
            let whole = weighted(seed, 5, samples, part, &ids);
            let at = (as_f64(ids.len()) * cut) as usize;
            let (a, b) = ids.split_at(at);
            let mut ab = weighted(seed, 5, samples, part, a);
            ab.merge(weighted(seed, 5, samples, part, b)).expect("same shape");
            let mut ba = weighted(seed, 5, samples, part, b);
            ba.merge(weighted(seed, 5, samples, part, a)).expect("same shape");
            prop_assert_eq!(all_keys(&ab), all_keys(&whole));
            prop_assert_eq!(all_keys(&ba), all_keys(&whole));
            prop_assert_eq!(held(&ab), held(&whole));
            ids.reverse();
            prop_assert_eq!(all_keys(&weighted(seed, 5, samples, part, &ids)), all_keys(&whole));
            let mut shrunk = weighted(seed, 5, samples + 7, part, &ids);
            shrunk.shrink(samples);
            prop_assert_eq!(all_keys(&shrunk), all_keys(&whole));
            prop_assert_eq!(held(&shrunk), held(&whole));
        }

        /// Of three sketches that may share records and may have fewer than a tree wants.
        #[test]
        fn merging_is_associative_and_commutative_and_a_record_counts_once(
            seed: u64, trees in 1_usize..8, samples in 1_usize..20,
            parts in prop::array::uniform3(prop::collection::btree_set(0_u64..120, 0..80)),
        ) {
            let [a, b, c] = parts.each_ref().map(|ids| ids.iter().copied().collect::<Vec<_>>());
            let part = |ids: &[u64]| sketch(seed, trees, samples, ids);
            let merged = |mut ours: Sketch<u64>, theirs| {
                ours.merge(theirs).expect("same shape");
                ours
            };
            let union: std::collections::BTreeSet<u64> = parts.iter().flatten().copied().collect();
            let want = part(&union.into_iter().collect::<Vec<_>>());
            for (order, got) in [
                ("(a b) c", merged(merged(part(&a), part(&b)), part(&c))),
                ("a (b c)", merged(part(&a), merged(part(&b), part(&c)))),
                ("c (b a)", merged(part(&c), merged(part(&b), part(&a)))),
                ("(c a) b", merged(merged(part(&c), part(&a)), part(&b))),
            ] {
                prop_assert_eq!(all_keys(&got), all_keys(&want), "{}", order);
                prop_assert_eq!(held(&got), held(&want), "{}", order);
            }
        }
    }

    #[test]
    fn inclusion_is_uniform() {
        // 300 records, samples of 30, 2,000 trees: each record is wanted 200 times in expectation.
        let (records, samples, trees) = (300_u64, 30, 2_000);
        let sketch = sketch(11, trees, samples, &(0..records).collect::<Vec<_>>());
        let mut hits: HashMap<RecordKey, f64> = HashMap::new();
        for keys in all_keys(&sketch) {
            assert_eq!(keys.len(), samples);
            keys.into_iter().for_each(|key| *hits.entry(key).or_default() += 1.0);
        }
        let p = 30.0 / 300.0;
        let expected = 2_000.0 * p;
        let chi2: f64 = (0..records)
            .map(|id| {
                (hits.get(&key(id)).copied().unwrap_or(0.0) - expected).powi(2)
                    / (expected * (1.0 - p))
            })
            .sum();
        // About chi-square with 299 degrees of freedom: mean 299, deviation 24.5; 5 deviations.
        assert!((chi2 - 299.0).abs() < 123.0, "chi-square {chi2}, want 299 within 123");
    }

    /// Of n records of weights w the first is i with w_i / W, the second then j with w_j / (W - w_i).
    #[test]
    fn inclusion_follows_the_weights() {
        let (records, trees) = (20_u64, 10_000);
        let part = 0.25;
        let weight = |id| log_weight(id, part).exp();
        let whole: f64 = (0..records).map(weight).sum();
        let sketch = weighted(12, trees, 2, part, &(0..records).collect::<Vec<_>>());
        let mut hits: HashMap<RecordKey, f64> = HashMap::new();
        for keys in all_keys(&sketch) {
            keys.into_iter().for_each(|key| *hits.entry(key).or_default() += 1.0);
        }
        for id in 0..records {
            let others = (0..records).filter(|&other| other != id);
            let second: f64 = others
                .map(|other| weight(other) / whole * weight(id) / (whole - weight(other)))
                .sum();
            let p = weight(id) / whole + second;
            let (n, got) = (trees as f64, hits.get(&key(id)).copied().unwrap_or(0.0));
            let deviation = (n * p * (1.0 - p)).sqrt();
            assert!(
                (got - n * p).abs() < 4.5 * deviation,
                "record {id} of weight {}: in {got} samples, want {} within {}",
                weight(id),
                n * p,
                4.5 * deviation
            );
        }
    }

    #[test]
    fn priorities_of_different_trees_are_independent_and_exponential() {
        let n = 20_000;
        let (mut mean, mut both, mut one) = (0.0, 0.0, 0.0);
        for id in 0..n {
            let (a, b) = (arrival(3, 7, 2, id), arrival(3, 7, 5, id));
            mean += a;
            let (low_a, low_b) = (f64::from(u8::from(a < 0.5)), f64::from(u8::from(b < 0.5)));
            one += low_a;
            both += low_a * low_b;
        }
        let n = n as f64;
        let q = 1.0 - (-0.5_f64).exp();
        assert!((mean / n - 1.0).abs() < 0.035, "mean {} of Exp(1)", mean / n);
        assert!((one / n - q).abs() < 0.017, "P(a < 0.5) {} want {q}", one / n);
        assert!((both / n - q * q).abs() < 0.013, "P(both < 0.5) {} want {}", both / n, q * q);
    }

    #[test]
    fn the_work_a_record_does_not_grow_with_the_trees_that_do_not_want_it() {
        // Arrivals walked for one more record after 100,000: 1 + trees * 32 / 100,000 expected, and more by
        // what a threshold lags behind.
        for (trees, most) in [(10, 1.1), (1000, 1.8)] {
            let ids: Vec<u64> = (0..100_000).collect();
            let sketch = sketch(5, trees, 32, &ids);
            let mut walked = 0;
            for id in 100_000..110_000 {
                let mut arrivals = Arrivals::new(5, trees, key(id));
                walked += 1;
                while libm::log(arrivals.next().0) <= sketch.limit {
                    walked += 1;
                }
            }
            let mean = f64::from(walked) / 10_000.0;
            assert!(mean < most, "{mean} arrivals a record with {trees} trees, want below {most}");
        }
    }

    #[test]
    fn sketches_of_different_shape_do_not_merge() {
        let mut a: Sketch<()> = Sketch::new(1, 2, 3);
        assert!(a.merge(Sketch::new(1, 2, 4)).is_err());
        assert!(a.merge(Sketch::new(2, 2, 3)).is_err());
    }
}
