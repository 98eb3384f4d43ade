//! The snapshot: what is written is read again, and no other bytes are taken for a model.
#![expect(clippy::expect_used, reason = "helpers of tests")]

use ndarray::{Array1, ArrayView2};
use proptest::prelude::*;
use sawlog_model::{
    Calibration, EndpointCalibration, Features, Forest, Model, Params, Provenance, Shingle,
    SnapshotError, ThresholdRule, ValidParams, ValidSpec, Value,
};
use sha2::{Digest, Sha256};

const SPEC: &str = r#"
format = "json"
[[feature]]
name = "duration"
field = "/duration"
[[feature]]
name = "method"
field = "/method"
encode = "one_hot"
missing = "zero"
[[feature]]
name = "fixed"
field = "/fixed"
"#;

fn records() -> Vec<Vec<Value>> {
    let methods = ["GET", "GET", "GET", "PUT", "DELETE"];
    (0..150_u32)
        .map(|i| {
            let duration = f64::from(i * i % 97) + 0.5;
            let method = Value::Category(methods[i as usize % 5].into());
            vec![Value::Number(duration), method, Value::Number(7.0)]
        })
        .collect()
}

/// What the records teach of the features, and their points one behind the other.
fn encoded(spec: ValidSpec, records: &[Vec<Value>]) -> (Features, Vec<f32>) {
    let rows: Vec<&[Value]> = records.iter().map(Vec::as_slice).collect();
    let features = Features::fit(spec, &rows).expect("not all constant");
    let dimensions = features.dimensions();
    let mut points = vec![0.0; dimensions * records.len()];
    for (values, row) in records.iter().zip(points.chunks_mut(dimensions)) {
        features.encode(values, row).expect("nothing is required");
    }
    (features, points)
}

fn model() -> Model {
    shingled(1)
}

/// The same of points of several records each, all of one series.
fn shingled(size: usize) -> Model {
    let shingle = Shingle { size: size as u32, key: Some("/host".into()) };
    let spec = ValidSpec::from_toml(SPEC).and_then(|spec| spec.with_shingle(Some(shingle)));
    let spec = spec.expect("good specification");
    let records: Vec<Vec<Value>> = records().windows(size).map(<[_]>::concat).collect();
    let (features, points) = encoded(spec, &records);
    let dimensions = features.dimensions();
    let params =
        ValidParams::new(Params { trees: 6, samples: 30, ..Params::default() }).expect("in range");
    let forest = Forest::build(dimensions, &params, |tree| {
        points.chunks(dimensions).skip(20 * tree).take(30)
    })
    .expect("sound points");
    let mut scores = Array1::zeros(records.len());
    let view = ArrayView2::from_shape((records.len(), dimensions), &points).expect("its shape");
    forest.score_batch(view, scores.view_mut()).expect("its dimensions");
    let calibration = Calibration::new(ThresholdRule::Quantile(0.99), &scores.to_vec());
    let provenance = Provenance {
        tool: "test".into(),
        inputs: vec!["a.log".into(), "b.log".into()],
        read: 160,
        rejected: 10,
        sampled_from: 130,
        held_out: 20,
    };
    Model::new(params, features, forest, calibration, provenance)
}

/// Makes the checksum right again, so that what lies behind it is tested.
fn seal(mut bytes: Vec<u8>) -> Vec<u8> {
    let at = bytes.len() - 32;
    let checksum = Sha256::digest(&bytes[..at]);
    bytes[at..].copy_from_slice(&checksum);
    bytes
}

fn refused(bytes: &[u8]) -> SnapshotError {
    Model::decode(bytes).expect_err("must be refused")
}

#[test]
fn what_is_written_is_read_again() {
    let model = model();
    let bytes = model.encode();
    let read = Model::decode(&bytes).expect("its own bytes");
    assert_eq!(read, model);
    assert_eq!(read.encode(), bytes);
    assert_eq!(read.id().len(), 32);
    assert_eq!(read.snapshot_len(), bytes.len());
}

/// One that is large enough to be taken apart on two threads: 40 trees of 130 different points.
fn large() -> Model {
    let spec = ValidSpec::from_toml(SPEC).expect("good specification");
    let records: Vec<Vec<Value>> = (0..5200_u32)
        .map(|i| {
            let (duration, method) = (f64::from(i) + 0.5, if i % 3 == 0 { "GET" } else { "PUT" });
            vec![Value::Number(duration), Value::Category(method.into()), Value::Number(7.0)]
        })
        .collect();
    let (features, points) = encoded(spec, &records);
    let dimensions = features.dimensions();
    let params = Params { trees: 40, samples: 130, ..Params::default() };
    let params = ValidParams::new(params).expect("in range");
    let forest = Forest::build(dimensions, &params, |tree| {
        points.chunks(dimensions).skip(tree).step_by(40).take(130)
    });
    Model::new(params, features, forest.expect("sound points"), None, Provenance::default())
}

#[test]
fn a_large_snapshot_is_read_and_refused_as_a_small_one_is() {
    let model = large();
    let bytes = model.encode();
    assert!(bytes.len() > 128 << 10, "{} bytes are not large", bytes.len());
    let read = Model::decode(&bytes).expect("its own bytes");
    assert_eq!((&read, read.encode()), (&model, bytes.clone()));
    let dimensions = model.features().dimensions();
    let points: Vec<f32> = (0..4 * dimensions as u8).map(|i| f32::from(i) - 5.0).collect();
    let points = ArrayView2::from_shape((4, dimensions), &points).expect("its shape");
    let (mut got, mut want) = (Array1::zeros(4), Array1::zeros(4));
    read.forest().score_batch(points, got.view_mut()).expect("its dimensions");
    model.forest().score_batch(points, want.view_mut()).expect("its dimensions");
    assert_eq!(got, want);
    // The last coordinate of all, made too large; and an earlier tree's, too.
    let leaves = model.forest().leaves();
    let last = bytes.len() - 32 - 4;
    let earlier = bytes.len() - 32 - 4 * dimensions * leaves;
    let mut damaged = bytes;
    damaged[last..last + 4].copy_from_slice(&f32::INFINITY.to_le_bytes());
    assert!(matches!(refused(&damaged), SnapshotError::Checksum { .. }), "before what it leads to");
    let error = refused(&seal(damaged.clone())).to_string();
    assert!(error.contains("tree 39: leaf 129 has the coordinate inf"), "{error}");
    damaged[earlier..earlier + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    let error = refused(&seal(damaged)).to_string();
    assert!(error.contains("tree 0: leaf 0 has the coordinate NaN"), "the first of two: {error}");
}

#[test]
fn explanations_name_the_feature_and_the_direction() {
    let model = model();
    let mut row = vec![0.0; model.features().dimensions()];
    let values =
        model.features().read(br#"{"duration":9000,"method":"GET","fixed":1}"#).expect("good");
    model.features().encode(&values, &mut row).expect("good");
    let shares = model.explain(&row).expect("its dimensions");
    assert_eq!(shares.len(), 3, "one a feature, the constant one included");
    let total: f32 = shares.iter().map(|share| share.high + share.low).sum();
    assert!((total - 1.0).abs() < 1e-5, "shares add up to {total}");
    assert!(shares[0].high > 0.9, "the duration is too high: {shares:?}");
    assert_eq!((shares[2].high, shares[2].low), (0.0, 0.0), "a constant feature explains nothing");
}

#[test]
fn a_shingled_model_is_written_and_read_with_its_key() {
    let model = shingled(3);
    let bytes = model.encode();
    assert_eq!(bytes[8], 2, "a version that programs without shingles refuse");
    let read = Model::decode(&bytes).expect("its own bytes");
    assert_eq!(read, model);
    assert_eq!(read.encode(), bytes);
    assert_eq!(read.features().spec().shingle(), model.features().spec().shingle());
    assert_eq!(model.features().dimensions(), 3 * 5);
    // Its size or its version changed, the rest is another header.
    let mut bytes = self::model().encode();
    bytes[8] = 2;
    refused(&seal(bytes.clone()));
    bytes[8] = 3;
    refused(&seal(bytes.clone()));
    bytes[8] = 4;
    assert!(refused(&seal(bytes)).to_string().contains("reads versions 1 to 3"));
}

/// A model with an endpoint's calibration, of points of so many records.
fn with_endpoint(size: usize) -> Model {
    let local: Vec<f32> = (0..200_u8).map(|i| 0.5 + f32::from(i) / 100.0).collect();
    let remote: Vec<f32> = local.iter().map(|score| score * 1.5).collect();
    let rule = ThresholdRule::Quantile(0.99);
    let endpoint = EndpointCalibration::new("rcf", rule, &local, &remote).expect("scores");
    shingled(size).with_endpoint_calibration(Some(endpoint))
}

#[test]
fn an_endpoints_calibration_is_written_and_read_and_makes_another_model() {
    for size in [1, 3] {
        let model = with_endpoint(size);
        let bytes = model.encode();
        assert_eq!(bytes[8], 3, "a version of its own");
        let read = Model::decode(&bytes).expect("its own bytes");
        assert_eq!((&read, read.encode()), (&model, bytes.clone()));
        assert_eq!(read.endpoint_calibration(), model.endpoint_calibration());
        assert_eq!(read.features().spec().shingle(), model.features().spec().shingle());
        let plain = shingled(size);
        assert_ne!(model.id(), plain.id());
        assert_eq!(model.with_endpoint_calibration(None), plain, "taken out, it is as before");
        // Read as another version, there are bytes too many.
        for version in [1, 2] {
            let mut bytes = bytes.clone();
            bytes[8] = version;
            refused(&seal(bytes));
        }
    }
}

#[test]
fn an_endpoints_calibration_that_can_not_be_is_refused() {
    let model = with_endpoint(1);
    let bytes = model.encode();
    let pairs = &model.endpoint_calibration().expect("one").pairs;
    let (least, _) = pairs[0];
    // The first pair stands after the number of pairs, which is 103.
    let number = 103_u64.to_le_bytes();
    let mut places = bytes
        .windows(16)
        .enumerate()
        .filter(|(_, window)| window[..8] == number && window[8..] == least.to_le_bytes());
    let (at, _) = places.next().expect("the pairs");
    for value in [f64::NAN, f64::INFINITY, 1e9] {
        let mut bytes = bytes.clone();
        bytes[at + 8..at + 16].copy_from_slice(&value.to_le_bytes());
        assert!(matches!(refused(&seal(bytes)), SnapshotError::Calibration), "{value}");
    }
    for count in [0_u64, 102, 104, u64::MAX] {
        let mut bytes = bytes.clone();
        bytes[at..at + 8].copy_from_slice(&count.to_le_bytes());
        refused(&seal(bytes));
    }
}

/// A feature is one thing, learned once, wherever in a point it stands.
#[test]
fn a_shingled_feature_is_encoded_alike_in_all_records_of_a_point() {
    let model = shingled(3);
    let features = model.features();
    let read = |text: &str| features.read(text.as_bytes()).expect("good");
    let texts = [r#"{"duration":50,"method":"PUT","host":"a"}"#, r#"{"duration":9000,"host":"a"}"#];
    let [usual, odd] = texts.map(read);
    for lag in 0..3 {
        let mut records = [&usual, &usual, &usual];
        records[2 - lag] = &odd;
        let mut point = vec![f32::NAN; features.dimensions()];
        let values: Vec<Value> = records.into_iter().flatten().cloned().collect();
        features.encode(&values, &mut point).expect("good");
        let parts: Vec<&[f32]> = point.chunks_exact(5).collect();
        assert!((0..3).all(|at| (parts[at] == parts[2 - lag]) == (at == 2 - lag)), "{parts:?}");
        let shares = model.explain(&point).expect("its dimensions");
        let total: f32 = shares.iter().map(|share| share.high + share.low).sum();
        assert!((total - 1.0).abs() < 1e-5, "shares add up to {total}");
        let peak = shares[0].peak.expect("with a shingle");
        assert_eq!(peak.lag, lag, "the record that is odd: {shares:?}");
        assert!(shares[0].high > 0.5 && peak.share <= shares[0].high + shares[0].low);
    }
}

#[test]
fn every_flipped_bit_and_every_cut_is_noticed() {
    let bytes = model().encode();
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        refused(&flipped);
        refused(&bytes[..at]);
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(matches!(refused(&longer), SnapshotError::Length { .. }));
}

#[test]
fn errors_name_section_and_offset() {
    let bytes = model().encode();
    let with = |at: usize, new: &[u8]| {
        let mut bytes = bytes.clone();
        bytes[at..at + new.len()].copy_from_slice(new);
        seal(bytes)
    };
    let header_len = u32::from_le_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]) as usize;
    let leaves_at = (24 + header_len).next_multiple_of(4);
    let shape_at = leaves_at + 4 * 6;
    let points_len = 4 * 5 * Model::decode(&bytes).expect("good").forest().leaves();
    let points_at = bytes.len() - 32 - points_len;
    let leaves = points_len / 20;
    let cuts_at = points_at - 4 * leaves - 4 * (leaves - 6);
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (b"PK\x03\x04".repeat(20), "at offset 0 is a zip archive"),
        (
            b"time,value\n".to_vec(),
            "not a sawlog model (`sawlog train` writes one): at offset 0 is text",
        ),
        (b"\x1f\x8b".to_vec(), "at offset 0 is gzip"),
        (bytes[..7].to_vec(), "snapshot truncated: prefix needs 56 bytes at offset 0, 7 are there"),
        (with(8, &[9]), "snapshot version 9 at offset 8"),
        (with(12, &[255; 4]), "snapshot truncated: header needs 4294967295 bytes at offset 24"),
        (with(24, &[77]), "header at offset 24:"),
        (with(leaves_at, &[255; 4]), "snapshot truncated: shape needs"),
        (with(leaves_at, &[0; 4]), "leaves at offset"),
        (with(shape_at, &[0]), "shape at offset"),
        (with(shape_at, &[255; 2]), "shape at offset"),
        (with(cuts_at, &f32::NAN.to_le_bytes()), "tree 0: the cut NaN of node 0"),
        (with(cuts_at, &1e30_f32.to_le_bytes()), "tree 0: the cut 1"),
        (with(points_at - 4 * leaves, &[0; 4]), "tree 0: leaf 0 has mass 0"),
        (with(points_at, &f32::INFINITY.to_le_bytes()), "tree 0: leaf 0 has the coordinate inf"),
        (with(points_at, &f32::NAN.to_le_bytes()), "tree 0: leaf 0 has the coordinate NaN"),
        (seal(bytes[..100].to_vec()), "snapshot length at offset 16"),
        (Vec::new(), "at offset 0 is the end: it is empty"),
    ];
    for (bytes, want) in cases {
        let got = refused(&bytes).to_string();
        assert!(got.contains(want), "want {want}, got {got}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    /// Behind a right checksum any bytes may stand: an error or a model that scores, never a panic.
    #[test]
    fn no_bytes_make_it_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        use std::sync::LazyLock;
        static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| model().encode());
        let mut bytes = BYTES.clone();
        for (at, value) in changes {
            let at = at.index(bytes.len() - 32);
            bytes[at] = value;
        }
        if let Ok(model) = Model::decode(&seal(bytes)) {
            let row = vec![0.5; model.features().dimensions()];
            let score = model.forest().score(&row).expect("its dimensions");
            prop_assert!(score.is_finite() && score >= 0.0, "score {}", score);
            model.explain(&row).expect("its dimensions");
        }
    }
}

/// A snapshot of each version as it was first written, with the scores it gave: read forever.
#[test]
fn the_golden_snapshot_of_version_1_is_read_as_ever() {
    is_read_as_ever("v1", model);
}

#[test]
fn the_golden_snapshot_of_version_3_is_read_as_ever() {
    is_read_as_ever("v3", || with_endpoint(1));
}

#[test]
fn the_golden_snapshot_of_version_2_is_read_as_ever() {
    is_read_as_ever("v2", || shingled(3));
}

fn is_read_as_ever(name: &str, model: impl Fn() -> Model) {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");
    if std::env::var("SAWLOG_WRITE_GOLDEN").is_ok_and(|asked| asked == name) {
        let model = model();
        std::fs::write(format!("{folder}/{name}.sawlog"), model.encode()).expect("written");
        let scores: String = golden_scores(&model).map(|line| line + "\n").collect();
        std::fs::write(format!("{folder}/{name}.scores.csv"), scores).expect("written");
    }
    let bytes = std::fs::read(format!("{folder}/{name}.sawlog")).expect("it is committed");
    let model = Model::decode(&bytes).expect("readable forever");
    assert_eq!(model.encode(), bytes, "written as it was");
    let want = std::fs::read_to_string(format!("{folder}/{name}.scores.csv")).expect("committed");
    let got: Vec<String> = golden_scores(&model).collect();
    assert_eq!(got, want.lines().collect::<Vec<_>>());
}

fn golden_scores(model: &Model) -> impl Iterator<Item = String> {
    let payloads = [
        r#"{"host":"a","duration":1,"method":"GET"}"#,
        r#"{"host":"a","duration":50.5,"method":"PUT"}"#,
        r#"{"host":"a","duration":1e6,"method":"NEW"}"#,
        r#"{"host":"a"}"#,
    ];
    payloads.into_iter().map(|payload| {
        let mut row = vec![0.0; model.features().dimensions()];
        let values = model.features().read(payload.as_bytes()).expect("good record");
        let values = vec![values; model.features().spec().shingle_size()].concat();
        model.features().encode(&values, &mut row).expect("nothing is required");
        format!("{:.12}", model.forest().score(&row).expect("its dimensions"))
    })
}
