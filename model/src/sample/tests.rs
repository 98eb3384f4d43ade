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
fn oracle(seed: u64, trees: usize, samples: usize, part: f64, ids: &[u64]) -> Vec<Vec<RecordKey>> {
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
    sketch.keys()
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
        seed: u64, samples in 1_usize..10, part in prop_oneof![Just(0.0), 0.0..0.1_f64, Just(1e5)], mut ids in prop::collection::hash_set(0_u64..1000, 0..200)
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

/// Of as many records as are chosen from at once, some of them older than others by more than floats can tell.
#[test]
fn a_guessed_threshold_finds_about_what_is_wanted() {
    let (trees, samples) = (40_u64, 100);
    let old = |id: u64| if id < 60 { 0.0 } else { -1e6 };
    let cases: [(&str, &dyn Fn(u64) -> f64); 4] = [
        ("all alike", &|_| 3.0),
        ("a half-life of 50 records", &|id| log_weight(id, 0.02)),
        ("a half-life of a record", &|id| log_weight(id, 1.0)),
        ("too few new ones", &old),
    ];
    for (case, log_weight) in cases {
        let mut sketch = Sketch::new(6, trees as usize, samples);
        for id in 0..trees * samples as u64 - 1 {
            sketch.offer(key(id), log_weight(id), || id);
        }
        let limit = sketch.guess();
        let found: usize = (0..sketch.slots.len())
            .map(|at| {
                let (slot, mut found) = (&sketch.slots[at], 0);
                let mut walker = Walker::new(6, trees as usize);
                walker.walk(slot.key, slot.log_weight, limit, |_, _| found += 1);
                found
            })
            .sum();
        let mean = as_f64(found) / trees as f64;
        assert!((100.0..165.0).contains(&mean), "{case}: {mean} a tree, want 100 to 150 or so");
        assert!(sketch.keys().iter().all(|keys| keys.len() == samples), "{case}");
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
            (hits.get(&key(id)).copied().unwrap_or(0.0) - expected).powi(2) / (expected * (1.0 - p))
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
        let second: f64 =
            others.map(|other| weight(other) / whole * weight(id) / (whole - weight(other))).sum();
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
