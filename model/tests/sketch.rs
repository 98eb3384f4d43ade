//! Sketches of a training input: merging, and their bytes.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, missing_docs)]

use std::collections::HashMap;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use sawlog_model::{
    Decay, RecordKey, SketchError, SketchMergeError, TrainingSketch, ValidSpec, Value, read_record,
};

fn spec() -> ValidSpec {
    ValidSpec::from_toml(
        r#"
        format = "json"
        [[feature]]
        name = "ms"
        field = "/ms"
        [[feature]]
        name = "path"
        field = "/path"
        encode = "one_hot"
        "#,
    )
    .expect("spec")
}

const SECOND_MS: u64 = 1_000;
const DAY_MS: u64 = 86_400_000;

fn decay(half_life_ms: u64) -> Decay {
    Decay { half_life_ms, time_field: "/time".to_owned() }
}

/// Of a record: in each input there is one each ten seconds.
fn time_ms(at: u64) -> i64 {
    i64::try_from(1_795_255_200_000 + 10 * SECOND_MS * at).expect("of today")
}

/// The sketch of some inputs, each of so many records.
fn sketch(inputs: &[(String, u64)], trees: u32, samples: Option<u32>) -> TrainingSketch {
    decayed(inputs, trees, samples, None)
}

/// The same with a half-life.
fn decayed(
    inputs: &[(String, u64)],
    trees: u32,
    samples: Option<u32>,
    half_life_ms: Option<u64>,
) -> TrainingSketch {
    let spec = spec();
    let mut sketch = TrainingSketch::new(spec.clone(), 7, trees, samples)
        .expect("in range")
        .with_decay(half_life_ms.map(decay));
    for (name, records) in inputs {
        sketch.inputs.insert(name.clone());
        for at in 0..*records {
            let json = match at % 5 {
                0 => format!(r#"{{"path":"/{}"}}"#, at % 3),
                _ => format!(r#"{{"ms":{}.5,"path":"/{}"}}"#, at * 31 % 97, at % 3),
            };
            let values = read_record(&spec, json.as_bytes()).expect("a record");
            sketch.read += 1;
            sketch.take(RecordKey::new(name, at), time_ms(at), &values);
        }
    }
    sketch
}

fn inputs(count: usize) -> Vec<(String, u64)> {
    (0..count).map(|at| (format!("logs/{at}"), 20 + at as u64 * 7 % 60)).collect()
}

/// None, one of six records, and one beside which all are of today.
fn half_lives() -> impl Strategy<Value = Option<u64>> {
    prop::sample::select(vec![None, Some(60 * SECOND_MS), Some(1_000_000 * DAY_MS)])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, rng_seed: RngSeed::Fixed(5), ..ProptestConfig::default() })]

    /// However an input is split over workers, in whatever order and shape their sketches are merged,
    /// and whether these were files in between: the bytes are those of one pass.
    #[test]
    fn merged_parts_are_the_sketch_of_the_whole(
        ways in prop::sample::select(vec![1_usize, 2, 7, 64]),
        order in prop::collection::vec(any::<prop::sample::Index>(), 256),
        samples in prop::sample::select(vec![None, Some(8), Some(300)]),
        trees in 1_u32..20,
        half_life_ms in half_lives(),
    ) {
        let inputs = inputs(64);
        let whole = decayed(&inputs, trees, samples, half_life_ms).encode();
        let mut parts = vec![Vec::new(); ways];
        for (at, input) in inputs.into_iter().enumerate() {
            parts[order[at].index(ways)].push(input);
        }
        let mut parts: Vec<Vec<u8>> =
            parts.iter().map(|part| decayed(part, trees, samples, half_life_ms).encode()).collect();
        let mut picks = order[64..].iter();
        while parts.len() > 1 {
            let mut pick = |len| picks.next().expect("enough").index(len);
            let a = parts.swap_remove(pick(parts.len()));
            let b = parts.swap_remove(pick(parts.len()));
            let mut merged = TrainingSketch::decode(&a).expect("a sketch");
            merged.merge(TrainingSketch::decode(&b).expect("a sketch")).expect("of one kind");
            parts.push(merged.encode());
        }
        prop_assert!(parts[0] == whole, "{ways} ways, {trees} trees, {samples:?} samples, {half_life_ms:?}");
    }

    /// Threads that look through their records by sieves of their own, and give what passes in whenever
    /// they like, fill the sketch as one that offers every record.
    #[test]
    fn a_sketch_filled_through_sieves_is_that_of_all_records(
        threads in 1_usize..5, trees in 1_u32..20,
        samples in prop::sample::select(vec![Some(2), Some(8), Some(300)]),
        turns in prop::collection::vec((any::<prop::sample::Index>(), prop::bool::weighted(0.1)), 2000),
        half_life_ms in half_lives(),
    ) {
        let inputs = [("logs/0".to_owned(), 2000)];
        let whole = decayed(&inputs, trees, samples, half_life_ms);
        let all = sketch(&inputs, 1, Some(2000));
        let mut filled = TrainingSketch::new(spec(), 7, trees, samples)
            .expect("in range")
            .with_decay(half_life_ms.map(decay));
        filled.inputs.insert("logs/0".to_owned());
        filled.read = 2000;
        let mut passed = vec![(filled.sieve(), Vec::new()); threads];
        let at_of: HashMap<RecordKey, u64> =
            (0..2000).map(|at| (RecordKey::new("logs/0", at), at)).collect();
        let records = all.sampled.records().into_iter().chain(all.held_out.records());
        for ((key, values), (turn, gives_in)) in records.zip(turns) {
            let (sieve, passed) = &mut passed[turn.index(threads)];
            let time_ms = time_ms(at_of[&key]);
            if sieve.passes(key, time_ms) {
                passed.push((key, time_ms, values.clone()));
            }
            if gives_in {
                filled.take_sieved(sieve, passed.drain(..));
            }
        }
        for (mut sieve, passed) in passed {
            filled.take_sieved(&mut sieve, passed);
        }
        prop_assert!(filled.encode() == whole.encode());
    }

    #[test]
    fn changed_bytes_are_refused_and_never_panic(
        at in any::<prop::sample::Index>(), to: u8, cut in any::<prop::sample::Index>(),
        half_life_ms in half_lives(),
    ) {
        let bytes = decayed(&inputs(3), 3, Some(8), half_life_ms).encode();
        let mut changed = bytes.clone();
        let at = at.index(bytes.len());
        changed[at] = to;
        prop_assert_eq!(TrainingSketch::decode(&changed).is_ok(), changed == bytes);
        prop_assert!(TrainingSketch::decode(&bytes[..cut.index(bytes.len())]).is_err());
        // With a checksum that holds, so that what is behind it is tried as well.
        let end = changed.len() - 32;
        let checksum = sha2::Digest::finalize(sha2::Digest::chain_update(
            <sha2::Sha256 as sha2::Digest>::new(),
            &changed[..end],
        ));
        changed.truncate(end);
        changed.extend(checksum);
        match TrainingSketch::decode(&changed) {
            // What is read is written the same: no two files are one sketch.
            Ok(sketch) => prop_assert!(sketch.encode() == changed, "byte {at} to {to}"),
            Err(error) => prop_assert!(error.to_string().contains("offset"), "{error}"),
        }
    }
}

#[test]
fn what_does_not_belong_together_is_not_merged() {
    let merge = |a: &TrainingSketch, b: &TrainingSketch| {
        let again =
            |sketch: &TrainingSketch| TrainingSketch::decode(&sketch.encode()).expect("own");
        again(a).merge(again(b)).expect_err("not to be merged")
    };
    let a = sketch(&inputs(1), 3, Some(8));
    assert!(
        matches!(merge(&a, &a), SketchMergeError::Input { name } if name == "logs/0"),
        "records would be counted twice"
    );
    let other = |trees, samples| sketch(&[("other".to_owned(), 5)], trees, samples);
    assert!(matches!(merge(&a, &other(4, Some(8))), SketchMergeError::Sample(_)));
    assert!(matches!(merge(&a, &other(3, Some(9))), SketchMergeError::Samples { .. }));
    let mut differently_read = other(3, Some(8));
    differently_read.spec =
        ValidSpec::from_toml("format = \"json\"\n[[feature]]\nname = \"ms\"\nfield = \"/ms\"\n")
            .expect("spec");
    differently_read.inputs.clear();
    let bytes = TrainingSketch::new(differently_read.spec.clone(), 7, 3, Some(8)).expect("new");
    assert!(matches!(merge(&a, &bytes), SketchMergeError::Spec));
}

#[test]
fn sketches_of_different_half_lives_are_not_merged() {
    let part =
        |name: &str, half_life_ms| decayed(&[(name.to_owned(), 20)], 3, Some(8), half_life_ms);
    for (theirs, said) in [
        (None, "one was made with a half-life of 7d by `/time`, the other with no half-life"),
        (
            Some(36 * 3600 * SECOND_MS),
            "one was made with a half-life of 7d by `/time`, the other with a half-life of 36h by `/time`",
        ),
    ] {
        let error = part("a", Some(7 * DAY_MS)).merge(part("b", theirs)).expect_err("not alike");
        assert_eq!(error.to_string(), said);
    }
    part("a", Some(7 * DAY_MS)).merge(part("b", Some(7 * DAY_MS))).expect("alike");
}

/// What is calibrated on stands for the records of today, however few they are.
#[test]
fn held_out_records_count_by_their_age() {
    let records = 20_000_u64;
    let all = [("logs/0".to_owned(), records)];
    let times: HashMap<RecordKey, u64> =
        (0..records).map(|at| (RecordKey::new("logs/0", at), at)).collect();
    assert_eq!(
        decayed(&all, 2, Some(8), None).calibration_records().len(),
        decayed(&all, 2, Some(8), None).held_out.records().len()
    );
    // Four half-lives in all.
    let sketch = decayed(&all, 2, Some(8), Some(5_000 * 10 * SECOND_MS));
    let (mut held_out, mut counted) = ([0_u32; 4], [0_u32; 4]);
    for (key, _) in sketch.held_out.records() {
        held_out[(times[&key] / 5_000) as usize] += 1;
    }
    for (key, _) in sketch.calibration_records() {
        counted[(times[&key] / 5_000) as usize] += 1;
    }
    for quarter in 0..4 {
        // The mean of 1 - exp(-w) over a half-life, that ends with w = 2^-(3 - quarter).
        let steps = 1_000;
        let mean = (0..steps)
            .map(|at| {
                let half_lives = (f64::from(at) + 0.5) / f64::from(steps) - 1.0;
                1.0 - (-(half_lives + quarter as f64 - 3.0).exp2()).exp()
            })
            .sum::<f64>()
            / f64::from(steps);
        let (of, got) = (f64::from(held_out[quarter]), f64::from(counted[quarter]));
        let within = 4.0 * (of * mean * (1.0 - mean)).sqrt();
        assert!(
            (got - of * mean).abs() < within,
            "half-life {quarter}: {got} of {of} held-out records, want {} within {within}",
            of * mean
        );
    }
    // One clock that is a year fast makes no other record old.
    let mut sketch = sketch;
    let stranger = (0..).map(|at| RecordKey::new("logs/1", at)).find(|key| {
        let mut alone = decayed(&[], 2, Some(8), None);
        alone.take(*key, 0, &[Value::Missing, Value::Missing]);
        alone.held_out.records().len() == 1
    });
    let before = sketch.calibration_records().len();
    let late_ms = time_ms(0) + i64::try_from(365 * DAY_MS).expect("a year");
    sketch.take(stranger.expect("a key"), late_ms, &[Value::Missing, Value::Missing]);
    let after = sketch.calibration_records().len();
    assert!((before..=before + 2).contains(&after), "{before} records, then {after}");
}

#[test]
fn errors_name_the_part_and_the_offset() {
    let bytes = sketch(&inputs(2), 3, Some(8)).encode();
    let error = |bytes: &[u8]| TrainingSketch::decode(bytes).expect_err("no sketch").to_string();
    assert!(error(b"").starts_with("sketch truncated: prefix at offset 0"), "{}", error(b""));
    assert!(error(b"SAWLOGRF....").starts_with("not a sawlog sketch"));
    let mut newer = bytes.clone();
    newer[8] = 9;
    assert_eq!(error(&newer), "sketch version 9 at offset 8; this program reads versions 1 and 2");
    let mut damaged = bytes.clone();
    damaged[100] ^= 1;
    assert!(matches!(TrainingSketch::decode(&damaged), Err(SketchError::Checksum { .. })));
    let short = &bytes[..bytes.len() - 1];
    assert!(error(short).contains(&format!("there are {} bytes", short.len())), "{}", error(short));
}

/// Found by `fuzz/run sketch`: a shingle of 0 was read as none, and written as 1.
#[test]
fn a_shingle_of_none_or_of_one_with_a_key_is_refused() {
    let bytes = sketch(&inputs(1), 3, None).encode();
    let header_len = u32::from_le_bytes(bytes[12..16].try_into().expect("four")) as usize;
    // Behind them in the header: whether there is a key, seed, trees, whether there are samples, counts.
    let size_at = 24 + header_len - (4 * 8 + 1 + 4 + 8 + 1 + 4);
    assert_eq!(bytes[size_at..size_at + 5], [1, 0, 0, 0, 0], "no shingle");
    let refused = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut changed = bytes[..bytes.len() - 32].to_vec();
        change(&mut changed);
        let len = changed.len() as u64 + 32;
        changed[16..24].copy_from_slice(&len.to_le_bytes());
        let checksum = <sha2::Sha256 as sha2::Digest>::digest(&changed);
        changed.extend(checksum);
        TrainingSketch::decode(&changed).expect_err("no sketch").to_string()
    };
    let none = refused(&|bytes| bytes[size_at] = 0);
    assert!(none.starts_with("header at offset 24: "), "{none}");
    let key = refused(&|bytes| {
        bytes[size_at + 4] = 1;
        let key = [1_u64.to_le_bytes().as_slice(), b"k"].concat();
        bytes.splice(size_at + 5..size_at + 5, key);
        bytes[12..16].copy_from_slice(&u32::try_from(header_len + 9).expect("small").to_le_bytes());
    });
    assert!(key.ends_with("a point of one record has no key of a series"), "{key}");
}

/// Found by `fuzz/run sketch`: the sum of what two files said that they had read was beyond a u64.
#[test]
fn counts_that_cannot_be_are_merged_in_any_order() {
    let part = |name: &str, count: u64| {
        let mut part = sketch(&[(name.to_owned(), 20)], 3, None);
        (part.read, part.rejected) = (count, count);
        (part.no_history, part.sampled_from) = (count, count);
        part
    };
    let (mut ab, mut ba) = (part("a", u64::MAX), part("b", 7));
    ab.merge(part("b", 7)).expect("merged");
    ba.merge(part("a", u64::MAX)).expect("merged");
    assert_eq!(ab.encode(), ba.encode());
    assert_eq!((ab.read, ab.sampled_from), (u64::MAX, u64::MAX));
    assert_eq!(ab.settle().expect("in range").get().samples, 256);
}

#[test]
fn a_sketch_of_nothing_is_a_sketch() {
    let empty = sketch(&[], 5, None);
    let again = TrainingSketch::decode(&empty.encode()).expect("its own bytes");
    assert_eq!(again.encode(), empty.encode());
    let mut whole = sketch(&inputs(2), 5, None);
    let bytes = whole.encode();
    whole.merge(again).expect("merged");
    assert_eq!(whole.encode(), bytes);
    let _: Vec<(RecordKey, &Vec<Value>)> = whole.sampled.records();
}
