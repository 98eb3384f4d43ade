//! Sketches of a training input: merging, and their bytes.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, missing_docs)]

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use sawlog_model::{
    RecordKey, SketchError, SketchMergeError, TrainingSketch, ValidSpec, Value, read_record,
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

/// The sketch of some inputs, each of so many records.
fn sketch(inputs: &[(String, u64)], trees: u32, samples: Option<u32>) -> TrainingSketch {
    let spec = spec();
    let mut sketch = TrainingSketch::new(spec.clone(), 7, trees, samples).expect("in range");
    for (name, records) in inputs {
        sketch.inputs.insert(name.clone());
        for at in 0..*records {
            let json = match at % 5 {
                0 => format!(r#"{{"path":"/{}"}}"#, at % 3),
                _ => format!(r#"{{"ms":{}.5,"path":"/{}"}}"#, at * 31 % 97, at % 3),
            };
            let values = read_record(&spec, json.as_bytes()).expect("a record");
            sketch.read += 1;
            sketch.take(RecordKey::new(name, at), &values);
        }
    }
    sketch
}

fn inputs(count: usize) -> Vec<(String, u64)> {
    (0..count).map(|at| (format!("logs/{at}"), 20 + at as u64 * 7 % 60)).collect()
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
    ) {
        let inputs = inputs(64);
        let whole = sketch(&inputs, trees, samples).encode();
        let mut parts = vec![Vec::new(); ways];
        for (at, input) in inputs.into_iter().enumerate() {
            parts[order[at].index(ways)].push(input);
        }
        let mut parts: Vec<Vec<u8>> =
            parts.iter().map(|part| sketch(part, trees, samples).encode()).collect();
        let mut picks = order[64..].iter();
        while parts.len() > 1 {
            let mut pick = |len| picks.next().expect("enough").index(len);
            let a = parts.swap_remove(pick(parts.len()));
            let b = parts.swap_remove(pick(parts.len()));
            let mut merged = TrainingSketch::decode(&a).expect("a sketch");
            merged.merge(TrainingSketch::decode(&b).expect("a sketch")).expect("of one kind");
            parts.push(merged.encode());
        }
        prop_assert!(parts[0] == whole, "{ways} ways, {trees} trees, {samples:?} samples");
    }

    /// Threads that look through their records by sieves of their own, and give what passes in whenever
    /// they like, fill the sketch as one that offers every record.
    #[test]
    fn a_sketch_filled_through_sieves_is_that_of_all_records(
        threads in 1_usize..5, trees in 1_u32..20,
        samples in prop::sample::select(vec![Some(2), Some(8), Some(300)]),
        turns in prop::collection::vec((any::<prop::sample::Index>(), prop::bool::weighted(0.1)), 2000),
    ) {
        let inputs = [("logs/0".to_owned(), 2000)];
        let whole = sketch(&inputs, trees, samples);
        let all = sketch(&inputs, 1, Some(2000));
        let mut filled = TrainingSketch::new(spec(), 7, trees, samples).expect("in range");
        filled.inputs.insert("logs/0".to_owned());
        filled.read = 2000;
        let mut passed = vec![(filled.sieve(), Vec::new()); threads];
        let records = all.sampled.records().into_iter().chain(all.held_out.records());
        for ((key, values), (turn, gives_in)) in records.zip(turns) {
            let (sieve, passed) = &mut passed[turn.index(threads)];
            if sieve.passes(key) {
                passed.push((key, values.clone()));
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
    ) {
        let bytes = sketch(&inputs(3), 3, Some(8)).encode();
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
fn errors_name_the_part_and_the_offset() {
    let bytes = sketch(&inputs(2), 3, Some(8)).encode();
    let error = |bytes: &[u8]| TrainingSketch::decode(bytes).expect_err("no sketch").to_string();
    assert!(error(b"").starts_with("sketch truncated: prefix at offset 0"), "{}", error(b""));
    assert!(error(b"SAWLOGRF....").starts_with("not a sawlog sketch"));
    let mut newer = bytes.clone();
    newer[8] = 9;
    assert_eq!(error(&newer), "sketch version 9 at offset 8; this program reads version 1");
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
