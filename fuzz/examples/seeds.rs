//! Writes the seeds of the target `snapshot` to the folder it is given: small models, so that a
//! mutation hits something. The golden snapshot of the model's tests is one more.
//!
//!     cargo run --manifest-path fuzz/Cargo.toml --example seeds -- fuzz/seeds/snapshot

use sawlog_model::{
    Calibration, Features, Forest, LeafRule, Model, Params, Provenance, ThresholdRule, ValidParams,
    ValidSpec, Value, read_record,
};

fn main() {
    let folder = std::env::args().nth(1).expect("a folder");
    let number = "[[feature]]\nname = \"a\"\nfield = \"a\"\n";
    let category = "[[feature]]\nname = \"b\"\nfield = \"b\"\nencode = \"one_hot\"\n";
    let share = "[[feature]]\nname = \"c\"\nfield = \"c\"\nencode = \"frequency\"\n";
    let csv = "format = \"csv\"\ncolumns = [\"a\", \"b\", \"c\"]\n";
    let logfmt = "format = \"logfmt\"\n";
    let regex = "format = \"regex\"\npattern = '(?<a>[0-9]+),(?<b>[a-z])'\n";
    let damped = LeafRule::Damped;
    let cases = [
        ("number", csv.to_owned() + number, 1, 8, damped),
        ("mixed", csv.to_owned() + number + category + share, 2, 12, LeafRule::Sagemaker),
        ("chain", logfmt.to_owned() + number, 1, 40, damped),
        ("pattern", regex.to_owned() + number + category, 3, 5, damped),
        ("leaf", csv.to_owned() + number, 2, 1, damped),
        // A point alone goes through eight trees at once.
        ("trees", csv.to_owned() + number, 11, 4, damped),
    ];
    for (name, toml, trees, samples, leaf_rule) in cases {
        let spec = ValidSpec::from_toml(&toml).expect("good specification");
        let model = model(&spec, trees, samples, leaf_rule);
        std::fs::write(format!("{folder}/{name}"), model.encode()).expect("a writable folder");
    }
}

fn model(spec: &ValidSpec, trees: u32, samples: usize, leaf_rule: LeafRule) -> Model {
    let line = |i: usize| {
        let (a, b) = (i * i * i % 1009, ["x", "y", "z"][i % 3]);
        let csv = format!("{a},{b},{b}");
        read_record(spec, csv.as_bytes())
            .ok()
            .filter(|values| values.iter().any(|value| *value != Value::Missing))
            .or_else(|| read_record(spec, format!("a={a} b={b}").as_bytes()).ok())
            .expect("one of the two formats")
    };
    let rows: Vec<Vec<Value>> = (0..60).map(line).collect();
    let sample: Vec<&[Value]> = rows.iter().map(Vec::as_slice).collect();
    let features = Features::fit(spec.clone(), &sample).expect("not all constant");
    let points: Vec<Vec<f32>> = rows
        .iter()
        .map(|values| {
            let mut point = vec![0.0; features.dimensions()];
            features.encode(values, &mut point).expect("nothing is required");
            point
        })
        .collect();
    let params = Params { trees, samples: 256, leaf_rule, ..Params::default() };
    let params = ValidParams::new(params).expect("in range");
    let forest = Forest::build(features.dimensions(), &params, |tree| {
        points.iter().skip(3 * tree).take(samples).map(Vec::as_slice)
    })
    .expect("sound points");
    let calibration = Calibration::new(ThresholdRule::default(), &[0.5, 1.0]);
    let provenance = Provenance { tool: "fuzz".into(), ..Provenance::default() };
    Model::new(params, features, forest, calibration, provenance)
}
