//! A specification and records read by it: text up to a line `---`, then a record a line. The text
//! is refused with its line, or what can be read of the records is fitted, turned into points, and
//! made a model whose snapshot is read again: whatever people write and log, training ends in a
//! model that serving takes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sawlog_fuzz::{encodes, within};
use sawlog_model::{
    FeatureError, Features, Forest, Model, Params, Provenance, ValidParams, ValidSpec, Value,
    read_record,
};

const SEPARATOR: &[u8] = b"\n---\n";

/// A regex may take 1 MiB compiled, and its search tables twice that each; a tree of TOML takes
/// some hundred bytes for each of the text.
const BASE: usize = 24 << 20;
const FACTOR: usize = 512;
/// Longest shingle that is tried out.
const MAX_SHINGLE: usize = 4;

fuzz_target!(|data: &[u8]| {
    let at = data.windows(SEPARATOR.len()).position(|window| window == SEPARATOR);
    let (text, records) = match at {
        Some(at) => (&data[..at], &data[at + SEPARATOR.len()..]),
        None => (data, &[][..]),
    };
    let Ok(text) = std::str::from_utf8(text) else { return };
    within(FACTOR * data.len() + BASE, || train(text, records));
});

fn train(text: &str, records: &[u8]) {
    let mut spec = match ValidSpec::from_toml(text) {
        Ok(spec) => spec,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    // A point is as large as its shingle, however short the text.
    if spec.shingle_size() > MAX_SHINGLE {
        return;
    }
    let mut lines = records.split(|&byte| byte == b'\n');
    if spec.needs_header() {
        let Some(Ok(header)) = lines.next().map(std::str::from_utf8) else { return };
        match spec.with_header(header) {
            Ok(known) => spec = known,
            Err(error) => return assert!(!error.to_string().is_empty()),
        }
    }
    let lines: Vec<&[u8]> = lines.collect();
    let size = spec.shingle_size();
    let point = |line: &&[u8]| Some(vec![read_record(&spec, line).ok()?; size].concat());
    let rows: Vec<Vec<Value>> = lines.iter().filter_map(point).collect();
    let sample: Vec<&[Value]> = rows.iter().map(Vec::as_slice).collect();
    let features = match Features::fit(spec, &sample) {
        Ok(features) => features,
        Err(
            error @ (FeatureError::NoRecord
            | FeatureError::AllConstant { .. }
            | FeatureError::TooMany { .. }),
        ) => return assert!(!error.to_string().is_empty()),
        Err(error) => panic!("what was learned does not hold: {error}"),
    };
    let points: Vec<Vec<f32>> = lines.iter().filter_map(|line| encodes(&features, line)).collect();
    assert_eq!(points.len(), rows.len(), "what was learned from can be encoded");
    let params = Params { trees: 2, samples: 16, ..Params::default() };
    let params = ValidParams::new(params).expect("in range");
    let forest = Forest::build(features.dimensions(), &params, |_tree| {
        points.iter().take(16).map(Vec::as_slice)
    })
    .expect("points of features are sound");
    let score = forest.score(&points[0]).expect("its dimensions");
    assert!(score.is_finite() && score >= 0.0, "{score}");
    let model = Model::new(params, features, forest, None, Provenance::default());
    let read = Model::decode(&model.encode()).expect("just written");
    assert_eq!(read, model);
}
