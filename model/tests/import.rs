//! Forests of AWS's Java library: read, scored as the library scores them, and refused with the
//! place and the reason where they can't be.
#![expect(clippy::expect_used, reason = "helpers of tests")]

use std::io::Read;
use std::path::Path;

use ndarray::{Array1, ArrayView2};
use proptest::prelude::*;
use sawlog_model::import::{ImportError, Imported, from_aws_json};
use sawlog_model::{FeatureShare, Model, Sampling};
use serde_json::{Value, json};

/// f64 against f64, for scores and attributions: what differs is the order of summation.
const TOLERANCE: f64 = 1e-13;
/// An attribution's sum against the score. In the library's own answers the two differ by up to
/// 9.2e-8: it takes the sides of merged boxes in f32.
const SUM_TOLERANCE: f64 = 2e-7;
/// The batch path in f32.
const BATCH_TOLERANCE: f32 = 1e-5;

fn golden(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/java");
    let file = std::fs::File::open(folder.join(name)).expect("committed");
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(file).read_to_end(&mut bytes).expect("gzip");
    bytes
}

fn import(name: &str) -> Imported {
    from_aws_json(&golden(&format!("{name}.json.gz"))).expect("readable")
}

/// The library's answers: queries, their scores, and their attributions (high, then low).
struct Answers {
    dimensions: usize,
    queries: Vec<f32>,
    scores: Vec<f64>,
    attributions: Vec<f64>,
}

fn answers(name: &str) -> Answers {
    let text = String::from_utf8(golden(name)).expect("utf-8");
    let mut lines = text.lines();
    let columns: Vec<&str> = lines.next().expect("a header").split(',').collect();
    let dimensions = columns.iter().position(|column| *column == "score").expect("a score");
    let mut answers =
        Answers { dimensions, queries: Vec::new(), scores: Vec::new(), attributions: Vec::new() };
    for line in lines {
        let row: Vec<f64> = line.split(',').map(|x| x.parse().expect("a number")).collect();
        assert_eq!(row.len(), 3 * dimensions + 1);
        answers.queries.extend(row[..dimensions].iter().map(|&x| x as f32));
        answers.scores.push(row[dimensions]);
        answers.attributions.extend(&row[dimensions + 1..]);
    }
    answers
}

/// Compares everything with the library's answers.
fn agrees(name: &str, answers_of: &str) {
    let imported = import(name);
    let answers = answers(&format!("{answers_of}.golden.csv.gz"));
    let d = answers.dimensions;
    assert_eq!((imported.forest().dimensions(), answers.scores.len()), (d, 400));
    let (mut score_off, mut high_low_off, mut sum_off) = (0.0_f64, 0.0_f64, 0.0_f64);
    let rows = answers.queries.chunks(d).zip(answers.attributions.chunks(2 * d));
    for ((query, parts), &score) in rows.zip(&answers.scores) {
        let got = imported.forest().score(query).expect("its dimensions");
        score_off = score_off.max((got - score).abs());
        let attribution = imported.forest().attribution(query).expect("its dimensions");
        sum_off = sum_off.max((attribution.total() - got).abs());
        for (got, want) in attribution.high.iter().chain(&attribution.low).zip(parts) {
            // The library's entries fall below 0 by a rounding error, as low as -1.3e-10 here; ours
            // end at 0.
            high_low_off = high_low_off.max((got - want.max(0.0)).abs());
        }
    }
    let mut batch = Array1::zeros(400);
    let view = ArrayView2::from_shape((400, d), &answers.queries).expect("whole rows");
    imported.forest().score_batch(view, batch.view_mut()).expect("its dimensions");
    let off = batch.iter().zip(&answers.scores).map(|(got, want)| (got - *want as f32).abs());
    let batch_off = off.fold(0.0, f32::max);
    assert!(score_off <= TOLERANCE, "scores off by {score_off:e}");
    assert!(high_low_off <= TOLERANCE, "attributions off by {high_low_off:e}");
    assert!(sum_off <= SUM_TOLERANCE, "sums of attributions off by {sum_off:e}");
    assert!(batch_off <= BATCH_TOLERANCE, "batch scores off by {batch_off:e}");

    // The snapshot is the same model: the same bits of every score.
    let forest = imported.forest().clone();
    let model = imported.into_model("test", name);
    assert_eq!(model.params().sampling, Sampling::Imported);
    assert_eq!(model.calibration(), None);
    let read = Model::decode(&model.encode()).expect("just written");
    assert_eq!(read, model);
    for query in answers.queries.chunks(d) {
        let (ours, read) = (forest.score(query), read.forest().score(query));
        assert_eq!(ours.map(f64::to_bits), read.map(f64::to_bits));
    }
}

#[test]
fn version_2_0() {
    agrees("aws_core_state_1_v2.0", "aws_core_state_1_v2.0");
}

#[test]
fn version_2_1_inside_a_thresholded_forest() {
    // It holds the same forest, so the library's answers are the same bytes.
    agrees("aws_trcf_state_1_v2.1", "aws_core_state_1_v2.0");
}

#[test]
fn version_4_0_with_many_copies_of_points() {
    agrees("java_dup_d2", "java_dup_d2");
}

#[test]
fn version_4_0_before_its_samples_are_full() {
    agrees("java_partial_d3", "java_partial_d3");
}

#[test]
fn version_4_0_that_shingled_its_input_itself() {
    agrees("java_shingle8_d8", "java_shingle8_d8");
}

#[test]
fn version_4_0_of_a_hundred_trees() {
    agrees("java_trained_forest_d3", "java_trained_forest_d3");
}

/// Three distinct points, one of them twice, in one tree:
///
/// ```text
/// x0 <= 0.5 ? (0, 0) : x1 <= 2 ? (1, 1) twice : (2, 5)
/// ```
fn small() -> Value {
    json!({
        "version": "4.0",
        "precision": "FLOAT_32",
        "numberOfTrees": 1,
        "sampleSize": 4,
        "dimensions": 2,
        "shingleSize": 1,
        "totalUpdates": 9,
        "outputAfter": 1,
        "saveTreeStateEnabled": true,
        "saveSamplerStateEnabled": true,
        "saveCoordinatorStateEnabled": true,
        "pointStoreState": {
            "version": "3.0",
            "dimensions": 2,
            "shingleSize": 1,
            "precision": "FLOAT_32",
            "compressed": true,
            "indexCapacity": 8,
            // Points 1, 3 and 4 are in use, each of them at most once a tree, and point 4 twice.
            "refCount": [0, 1, 8, 26],
            "duplicateRefs": [4, 1],
            "locationList": [0, 2, 3, 21],
            "pointData": floats(&[0.0, 0.0, 2.0, 5.0, 1.0, 1.0]),
            "rotationEnabled": false,
            "internalShingle": null,
        },
        "compactSamplerStates": [
            { "size": 4, "capacity": 4, "compressed": true, "pointIndex": [1, 4, 4, 248] },
        ],
        "compactRandomCutTreeStates": [{
            "version": "3.0",
            "root": 0,
            "dimensions": 2,
            "nodeStoreState": {
                "version": "3.0",
                "capacity": 3,
                "size": 2,
                "compressed": true,
                "canonicalAndNotALeaf": true,
                "precision": "FLOAT_32",
                "leftIndex": [0, 0],
                "rightIndex": [1, 0],
                "cutDimension": [0, 1],
                "cutValueData": floats(&[0.5, 2.0]),
            },
        }],
    })
}

/// Big-endian floats as base64.
fn floats(values: &[f32]) -> String {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_be_bytes()).collect();
    base64_simd::STANDARD.encode_to_string(bytes)
}

/// The same as an array of signed bytes.
fn signed(values: &[f32]) -> Vec<i8> {
    values.iter().flat_map(|value| value.to_be_bytes()).map(u8::cast_signed).collect()
}

fn read(state: &Value) -> Result<Imported, String> {
    from_aws_json(state.to_string().as_bytes()).map_err(|error| error.to_string())
}

/// The small state with values changed; null takes a field out.
fn changed(changes: &[(&str, Value)]) -> Value {
    let mut state = small();
    for (pointer, value) in changes {
        if let Some(place) = state.pointer_mut(pointer) {
            *place = value.clone();
            continue;
        }
        let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
        state.pointer_mut(parent).expect("there")[name] = value.clone();
    }
    state
}

const STORE: &str = "/compactRandomCutTreeStates/0/nodeStoreState";

#[test]
fn a_small_forest_scores_by_the_formulas() {
    let imported = read(&small()).expect("good");
    let forest = imported.forest();
    assert_eq!((forest.trees(), forest.leaves(), imported.updates()), (1, 3, 9));
    let score = |point: [f32; 2]| forest.score(&point).expect("two dimensions");
    // Leaves of mass 1 at depth 1 and of mass 2 at depth 2, in a tree of mass 4.
    let close = |got: f64, want: f64| assert!((got - want).abs() < 1e-12, "{got} is not {want}");
    close(score([0.0, 0.0]), (1.0 - 1.0 / 8.0) / (1.0 + 1.0) * 5_f64.log2());
    close(score([1.0, 1.0]), (1.0 - 2.0 / 8.0) / (2.0 + 3_f64.log2()) * 5_f64.log2());
    // Two below the box (0, 0)-(2, 5) of sides 7, and below the leaf: cut off at depth 0 or 1.
    close(score([-2.0, 0.0]), (2.0 / 9.0 + 7.0 / 9.0 / 2.0) * 5_f64.log2());
}

#[test]
fn every_way_of_writing_the_same_forest_is_read() {
    let want = read(&small()).expect("good");
    let points = [0.0, 0.0, 2.0, 5.0, 1.0, 1.0];
    let old_store = [
        ("/version", json!("2.0")),
        ("/pointStoreState/version", json!("2.0")),
        // A float offset for every number, whatever stands where none is in use; masses are whole.
        ("/pointStoreState/locationList", json!([-1, 0, -1, 2, 4, -1, -1, -1])),
        ("/pointStoreState/refCount", json!([0, 1, 0, 1, 2, 0, 0, 0])),
        ("/pointStoreState/duplicateRefs", Value::Null),
        ("/pointStoreState/compressed", json!(false)),
    ];
    let node_numbers = [
        ("/compactRandomCutTreeStates/0/root", json!(2)),
        (&format!("{STORE}/canonicalAndNotALeaf"), json!(false)),
        (&format!("{STORE}/compressed"), json!(false)),
        (&format!("{STORE}/leftIndex"), json!([3, -1, 4])),
        (&format!("{STORE}/rightIndex"), json!([5, -1, 0])),
        (&format!("{STORE}/cutDimension"), json!([1, 0, 0])),
        (&format!("{STORE}/cutValueData"), json!(floats(&[2.0, 0.0, 0.5]))),
    ];
    let node_numbers = node_numbers.each_ref().map(|(pointer, value)| (*pointer, value.clone()));
    let ways: [(&str, Value); 8] = [
        ("as it is", small()),
        ("version 3.0", changed(&[("/version", json!("3.0"))])),
        ("version 2.0", changed(&old_store)),
        ("signed bytes", changed(&[("/pointStoreState/pointData", json!(signed(&points)))])),
        ("nodes in any order", changed(&node_numbers)),
        (
            "thresholded",
            json!({
                "version": "2.1",
                "transformMethod": "NONE",
                "forestMode": "STANDARD",
                "preprocessorStates": [{ "transformMethod": "NONE", "forestMode": "STANDARD" }],
                "thresholderState": { "anything": [1, { "at": "all" }] },
                "forestState": small(),
            }),
        ),
        (
            "negative zero",
            changed(&[(
                "/pointStoreState/pointData",
                json!(floats(&[-0.0, 0.0, 2.0, 5.0, 1.0, 1.0])),
            )]),
        ),
        (
            "plain numbers",
            changed(&[
                ("/compactSamplerStates/0/compressed", json!(false)),
                ("/compactSamplerStates/0/pointIndex", json!([4, 1, 3, 4])),
            ]),
        ),
    ];
    for (way, state) in ways {
        assert_eq!(read(&state).expect(way), want, "{way}");
    }
}

#[test]
fn rotated_shingles_are_put_in_order() {
    // Values 0, 1, 5, 2 of a shingle of 2: the points start at 0, 1 and 2 and overlap; where the
    // start is odd the coordinates change places.
    let shingled = |rotated: bool, cuts: Value| {
        read(&changed(&[
            ("/shingleSize", json!(2)),
            ("/pointStoreState/shingleSize", json!(2)),
            ("/pointStoreState/locationList", json!([0, 2, 3, 21])),
            ("/pointStoreState/pointData", json!(floats(&[0.0, 1.0, 5.0, 2.0]))),
            ("/pointStoreState/rotationEnabled", json!(rotated)),
            (&format!("{STORE}/leftIndex"), json!([0, 0])),
            (&format!("{STORE}/cutValueData"), cuts),
        ]))
    };
    // (0, 1), (1, 5), (5, 2), the last twice.
    let plain = shingled(false, json!(floats(&[0.5, 2.0]))).expect("good");
    let mass_2 = (1.0 - 2.0 / 8.0) / (2.0 + 3_f64.log2()) * 5_f64.log2();
    let score = |imported: &Imported, point: [f32; 2]| imported.forest().score(&point);
    assert!((score(&plain, [5.0, 2.0]).expect("two") - mass_2).abs() < 1e-12);
    // (0, 1), (5, 1), (5, 2), the last twice.
    let rotated = shingled(true, json!(floats(&[0.5, 1.5]))).expect("good");
    let (once, twice) = (score(&rotated, [5.0, 1.0]), score(&rotated, [5.0, 2.0]));
    assert!((twice.expect("two") - mass_2).abs() < 1e-12);
    let mass_1 = (1.0 - 1.0 / 8.0) / (2.0 + 1.0) * 5_f64.log2();
    assert!((once.expect("two") - mass_1).abs() < 1e-12);
}

#[test]
fn a_tree_of_one_point_has_no_nodes() {
    let leaf = [
        ("/compactRandomCutTreeStates/0/root", json!(3)),
        ("/compactSamplerStates/0/pointIndex", json!([4, 4, 2])),
        ("/compactSamplerStates/0/size", json!(2)),
        (&format!("{STORE}/canonicalAndNotALeaf"), json!(false)),
        (&format!("{STORE}/size"), json!(0)),
        (&format!("{STORE}/leftIndex"), Value::Null),
        (&format!("{STORE}/rightIndex"), Value::Null),
        (&format!("{STORE}/cutDimension"), Value::Null),
        (&format!("{STORE}/cutValueData"), Value::Null),
    ];
    let leaf = leaf.each_ref().map(|(pointer, value)| (*pointer, value.clone()));
    let one = read(&changed(&leaf)).expect("good");
    let score = one.forest().score(&[1.0, 1.0]).expect("two dimensions");
    assert!((score - 0.5 / 3_f64.log2() * 3_f64.log2()).abs() < 1e-12, "{score}");
    // Both dimensions are constant, and both are still there.
    let model = one.into_model("test", "small");
    assert_eq!(model.features().dimensions(), 2);
    let mut other = leaf.to_vec();
    other[1].1 = json!([4, 1]);
    let said = read(&changed(&other)).expect_err("two points and no cut");
    assert!(said.contains("compactRandomCutTreeStates[0]: point 4"), "got: {said}");
    other[1].1 = json!([]);
    other[2].1 = json!(0);
    let said = read(&changed(&other)).expect_err("no point");
    assert!(said.contains("compactRandomCutTreeStates[0]: the tree holds no point"), "got: {said}");
}

#[test]
fn a_model_reads_its_columns_in_any_order_among_others() {
    let model = read(&small()).expect("good").into_model("sawlog 1", "small.json");
    let features = model.features();
    let point = |features: &sawlog_model::Features, line: &str| {
        let mut row = [f32::NAN; 2];
        let values = features.read(line.as_bytes()).expect("good record");
        features.encode(&values, &mut row).expect("nothing is missing");
        row
    };
    assert_eq!(point(features, "-1.5,7e2"), [-1.5, 700.0], "as they are");
    let table = features.with_header("label,x1,host,x0").expect("has both");
    assert_eq!(point(&table, "no,2,a,1"), [1.0, 2.0]);
    assert!(features.with_header("label,x1,host").is_err(), "x0 is not there");
    assert!(table.read(b"no,2,a,").is_err(), "x0 is empty");
    let said = table.read(b"no,two,a,1").expect_err("no number").to_string();
    assert!(said.contains("x1"), "got: {said}");
    let shares = model.explain(&[9.0, 1.0]).expect("two dimensions");
    assert!(matches!(shares[..], [FeatureShare { feature: 0, high, .. }, _] if high > 0.9));
    let from = model.provenance();
    assert_eq!((from.inputs.as_slice(), from.read), (&["small.json".to_owned()][..], 9));
}

#[test]
fn what_cannot_be_read_is_refused_with_place_and_reason() {
    let absurd = i32::MAX;
    let store = |name: &str| format!("{STORE}/{name}");
    let points = |name: &str| format!("/pointStoreState/{name}");
    let sampler = |name: &str| format!("/compactSamplerStates/0/{name}");
    let cases: Vec<(String, Value, &str, &str)> = vec![
        // Not what this program reads.
        ("/version".into(), json!("1.0"), "version: `1.0`", "2.0, 2.1, 3.0, 4.0"),
        ("/version".into(), Value::Null, "version", "missing"),
        ("/precision".into(), json!("FLOAT_64"), "precision: `FLOAT_64`", "FLOAT_32"),
        (store("precision"), json!("FLOAT_64"), "nodeStoreState.precision", "FLOAT_32"),
        (points("precision"), json!("FLOAT_64"), "pointStoreState.precision", "FLOAT_32"),
        (points("version"), json!("5.0"), "pointStoreState.version: `5.0`", "3.0"),
        (points("directLocationMap"), json!(true), "directLocationMap: `true`", "false"),
        // Not saved.
        ("/saveTreeStateEnabled".into(), json!(false), "saveTreeStateEnabled", "at random"),
        ("/compactRandomCutTreeStates".into(), Value::Null, "compactRandomCutTreeStates", "random"),
        ("/saveSamplerStateEnabled".into(), json!(false), "saveSamplerStateEnabled", "leaves"),
        ("/pointStoreState".into(), Value::Null, "pointStoreState", "leaves"),
        ("/outputAfter".into(), json!(10), "totalUpdates", "answers 0"),
        // Out of range.
        ("/numberOfTrees".into(), json!(0), "numberOfTrees: it is 0", "1 to 10000"),
        ("/numberOfTrees".into(), json!(absurd), "numberOfTrees", "1 to 10000"),
        ("/numberOfTrees".into(), json!(2), "compactSamplerStates", "2"),
        ("/sampleSize".into(), json!(absurd), "sampleSize", "131072"),
        ("/dimensions".into(), json!(absurd), "dimensions", "10000"),
        ("/dimensions".into(), json!(3), "pointStoreState.dimensions: it is 2", "3"),
        ("/dimensions".into(), json!("2"), "dimensions: expected an integer", "2"),
        (points("indexCapacity"), json!(absurd), "indexCapacity: it is 2147483647", "allowed"),
        (points("shingleSize"), json!(3), "shingleSize", "1 to 2"),
        (store("capacity"), json!(-1), "capacity: it is -1", "131072"),
        (store("size"), json!(4), "size: it is 4", "1 to 3"),
        (sampler("size"), json!(5), "compactSamplerStates[0].size: it is 5", "0 to 4"),
        (sampler("size"), json!(1.5), "compactSamplerStates[0].size", "an integer"),
        // Packed arrays.
        (points("refCount"), json!([1, 1, absurd]), "refCount: it has 2147483647", "at most 8"),
        (points("locationList"), json!([0, 0, absurd]), "locationList", "at most 8"),
        (points("duplicateRefs"), json!([4, 4, absurd]), "duplicateRefs", "at most 16"),
        (points("refCount"), json!([0, 1, -8, 26]), "refCount", "length"),
        (points("refCount"), json!([1, 0, 8, 26]), "refCount", "above its greatest"),
        (points("refCount"), json!([0, 1, 8, 26, 1]), "refCount", "take 1 codes, 2"),
        (sampler("pointIndex"), json!([3, 3, absurd]), "pointIndex", "at most 4"),
        (store("leftIndex"), json!([0, 0, absurd]), "leftIndex", "at most 3"),
        // Inconsistent.
        (points("locationList"), json!([0, 2]), "locationList: it has 2", "refCount"),
        (
            points("locationList"),
            json!([0, 3, 3, 48]),
            "locationList: point 4 starts at value 6",
            "6",
        ),
        (
            points("locationList"),
            json!([-1, 2, 3, 49]),
            "locationList: point 3 starts at value -2",
            "6",
        ),
        (points("duplicateRefs"), json!([8, 1]), "duplicateRefs: its value 0 is point 8", "not"),
        (points("duplicateRefs"), json!([4]), "duplicateRefs", "pair"),
        (points("pointData"), json!([0, 0, 0]), "pointData: it has 3 bytes", "4"),
        (points("pointData"), json!([0, 200]), "pointData[1]", "signed byte"),
        (points("pointData"), json!("A*=="), "pointData", "base64"),
        (points("pointData"), json!(7), "pointData: expected base64", "`7`"),
        (
            points("pointData"),
            json!(floats(&[0.0, 0.0, 2.0, f32::NAN, 1.0, 1.0])),
            "pointData: coordinate 1 of point 3",
            "NaN",
        ),
        (
            points("pointData"),
            json!(floats(&[0.0, 0.0, 2.0, 3e38, 1.0, 1.0])),
            "compactRandomCutTreeStates[0]",
            "coordinate",
        ),
        (sampler("pointIndex"), json!([1, 4]), "pointIndex: it has 2", "size asks for 4"),
        (sampler("pointIndex"), json!([3, 3, 4]), "compactRandomCutTreeStates[0]", "leaf 0 of 3"),
        (sampler("pointIndex"), json!([-1, 4, 4, 0]), "pointIndex: its value 0 is point -1", "not"),
        (sampler("pointIndex"), json!([2, 2, 4]), "pointIndex: its value 0 is point 2", "not"),
        (sampler("pointIndex"), json!([1, "a"]), "pointIndex[1]", "32-bit integer"),
        (store("rightIndex"), json!([0, 0]), "compactRandomCutTreeStates[0]: node 1", "child"),
        (store("leftIndex"), json!([1, 0]), "compactRandomCutTreeStates[0]: node 2", "child"),
        (store("leftIndex"), json!([0]), "leftIndex: it has 1", "asks for 2"),
        (store("cutDimension"), json!([0, 2]), "cutDimension: node 1 cuts dimension 2", "0 to 1"),
        (store("cutDimension"), json!([0, -1]), "cutDimension: node 1 cuts dimension -1", "0 to 1"),
        (store("cutValueData"), json!(floats(&[0.5])), "cutValueData: it has 1", "asks for 2"),
        (store("cutValueData"), json!(floats(&[f32::NAN, 2.0])), "States[0]", "cuts and sample"),
        (store("cutValueData"), json!(floats(&[0.5, 9.0])), "States[0]", "cuts and sample differ"),
    ];
    for (pointer, value, place, reason) in cases {
        let state = changed(&[(&pointer, value)]);
        let said = read(&state).expect_err(&pointer);

        assert!(said.contains(place) && said.contains(reason), "{pointer}: {said}");
        let wrapped = json!({ "version": "4.0", "forestState": state });
        let said = read(&wrapped).expect_err("still refused");
        assert!(said.starts_with("forestState."), "{pointer}: {said}");
    }
}

#[test]
fn node_numbers_that_make_no_tree_are_refused() {
    let tree = |left: [i32; 3], right: [i32; 3]| {
        let changes = [
            ("/compactRandomCutTreeStates/0/root", json!(0)),
            (&format!("{STORE}/canonicalAndNotALeaf"), json!(false)),
            (&format!("{STORE}/compressed"), json!(false)),
            (&format!("{STORE}/leftIndex"), json!(left)),
            (&format!("{STORE}/rightIndex"), json!(right)),
            (&format!("{STORE}/cutDimension"), json!([0, 1, 0])),
            (&format!("{STORE}/cutValueData"), json!(floats(&[0.5, 2.0, 0.0]))),
        ];
        let changes = changes.each_ref().map(|(pointer, value)| (*pointer, value.clone()));
        read(&changed(&changes))
    };
    assert!(tree([3, 3, 3], [1, 3, 3]).is_ok());
    for (left, right, node) in [
        ([3, 3, 3], [0, 3, 3], "node 0"),
        ([1, 3, 3], [1, 3, 3], "node 1"),
        ([3, 0, 3], [1, 3, 3], "node 0"),
        ([3, 3, 3], [-1, 3, 3], "node -1"),
    ] {
        let said = tree(left, right).expect_err("no tree");
        assert!(said.contains("leftIndex") && said.contains(node), "got: {said}");
    }
}

#[test]
fn a_thresholded_forest_with_a_transform_is_refused() {
    let with = |field: &str, value: &str| {
        let mut state = json!({ "version": "4.0", "forestState": small() });
        state[field] = json!(value);
        let outside = read(&state).expect_err("refused");
        let state = json!({
            "version": "4.0",
            "preprocessorStates": [{ field: value }],
            "forestState": small(),
        });
        (outside, read(&state).expect_err("refused"))
    };
    let (outside, inside) = with("transformMethod", "NORMALIZE");
    assert_eq!(outside, "transformMethod: `NORMALIZE` is not supported; supported: NONE");
    assert!(inside.starts_with("preprocessorStates[0].transformMethod: `NORMALIZE`"), "{inside}");
    let (outside, inside) = with("forestMode", "TIME_AUGMENTED");
    assert!(outside.ends_with("supported: STANDARD, STREAMING_IMPUTE"), "{outside}");
    assert!(inside.starts_with("preprocessorStates[0].forestMode"), "{inside}");
    let version = json!({ "version": "1.0", "forestState": small() });
    assert!(read(&version).expect_err("refused").starts_with("version: `1.0`"));
}

#[test]
fn a_file_that_claims_more_than_it_holds_is_refused() {
    // A shingle of 10,000 over a file of a few numbers: each leaf would take 120 KB.
    let (d, leaves) = (10_000, 1000);
    let data: Vec<f32> = (0..d + leaves).map(|i| i as f32).collect();
    let index: Vec<usize> = (0..leaves).collect();
    let state = changed(&[
        ("/dimensions", json!(d)),
        ("/sampleSize", json!(leaves)),
        ("/pointStoreState/dimensions", json!(d)),
        ("/pointStoreState/shingleSize", json!(d)),
        ("/pointStoreState/compressed", json!(false)),
        ("/pointStoreState/indexCapacity", json!(leaves)),
        ("/pointStoreState/refCount", json!(vec![1; leaves])),
        ("/pointStoreState/duplicateRefs", Value::Null),
        ("/pointStoreState/locationList", json!(index)),
        ("/pointStoreState/pointData", json!(floats(&data))),
        ("/compactSamplerStates/0/compressed", json!(false)),
        ("/compactSamplerStates/0/size", json!(leaves)),
        ("/compactSamplerStates/0/pointIndex", json!(index)),
        ("/compactRandomCutTreeStates/0/dimensions", json!(d)),
        (&format!("{STORE}/capacity"), json!(leaves)),
        (&format!("{STORE}/compressed"), json!(false)),
        (&format!("{STORE}/size"), json!(leaves - 1)),
        (&format!("{STORE}/leftIndex"), json!(vec![0; leaves - 1])),
        (&format!("{STORE}/rightIndex"), json!(vec![1; leaves - 1])),
        (&format!("{STORE}/cutDimension"), json!(vec![0; leaves - 1])),
        (&format!("{STORE}/cutValueData"), json!(floats(&data[..leaves - 1]))),
    ]);
    let said = read(&state).expect_err("too large");
    assert!(
        said.contains("compactRandomCutTreeStates[0]: the forest would take 120"),
        "got: {said}"
    );
}

#[test]
fn a_file_cut_off_anywhere_is_refused() {
    let bytes = small().to_string().into_bytes();
    for end in 0..bytes.len() {
        let said = from_aws_json(&bytes[..end]).expect_err("cut off").to_string();
        assert!(said.starts_with("not json") && said.contains("line 1"), "at {end}: {said}");
    }
    let real = golden("java_partial_d3.json.gz");
    for part in 1..100 {
        let said = from_aws_json(&real[..real.len() * part / 100]).expect_err("cut off");
        assert!(matches!(said, ImportError::Json(_)), "got: {said}");
    }
    // Deep nesting is passed over without recursion or refused, never a stack overflow.
    for deep in ["[".repeat(1 << 20), "{\"a\":".repeat(1 << 20)] {
        assert!(from_aws_json(deep.as_bytes()).is_err());
    }
    let nested = format!("{}{}", "[".repeat(1 << 20), "]".repeat(1 << 20));
    let state = small().to_string().replacen('{', &format!("{{\"unknown\":{nested},"), 1);
    assert!(from_aws_json(state.as_bytes()).is_ok());
}

/// Any bytes give a forest that scores, or an error.
fn survives(bytes: &[u8]) {
    if let Ok(imported) = from_aws_json(bytes) {
        let point = vec![0.5; imported.forest().dimensions()];
        let score = imported.forest().score(&point).expect("its dimensions");
        assert!(score.is_finite() && score >= 0.0, "{score}");
        let model = imported.into_model("test", "changed");
        assert!(Model::decode(&model.encode()).is_ok());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn bytes_of_a_real_file_may_change(
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        thread_local! {
            static REAL: Vec<u8> = golden("java_partial_d3.json.gz");
        }
        let mut bytes = REAL.with(Clone::clone);
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            // Mostly digits, so that it stays JSON.
            bytes[at] = if byte < 64 { byte } else { b'0' + byte % 10 };
        }
        survives(&bytes);
    }

    #[test]
    fn numbers_of_a_small_file_may_change(
        edits in proptest::collection::vec(
            (any::<prop::sample::Index>(), prop_oneof![-2..40_i64, any::<i32>().prop_map(i64::from)]),
            1..4,
        ),
    ) {
        let text = small().to_string();
        let mut pieces: Vec<String> = Vec::new();
        let mut in_number = false;
        for letter in text.chars() {
            let is_digit = letter.is_ascii_digit();
            match pieces.last_mut() {
                Some(piece) if is_digit == in_number => piece.push(letter),
                _ => pieces.push(letter.to_string()),
            }
            in_number = is_digit;
        }
        let numbers: Vec<usize> = (0..pieces.len())
            .filter(|&at| pieces[at].starts_with(|letter: char| letter.is_ascii_digit()))
            .collect();
        for (at, number) in edits {
            pieces[numbers[at.index(numbers.len())]] = number.to_string();
        }
        survives(pieces.concat().as_bytes());
    }

    #[test]
    fn any_bytes_may_come(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        survives(&bytes);
    }
}
