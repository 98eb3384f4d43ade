//! What fuzzing found, by its bytes, so that it stays mended; and that the seeds it starts from are
//! still taken, without which it would only try the front door.
#![expect(clippy::expect_used, reason = "helpers of tests")]

use std::path::Path;

use sawlog_model::{Model, TrainingSketch, ValidSpec, import::from_aws_json};

/// Name and bytes of the seeds of a target.
fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds").join(target);
    let files = std::fs::read_dir(folder).expect("committed");
    let seed = |file: std::io::Result<std::fs::DirEntry>| {
        let path = file.expect("readable").path();
        (path.display().to_string(), std::fs::read(&path).expect("readable"))
    };
    let seeds: Vec<_> = files.map(seed).collect();
    assert!(!seeds.is_empty(), "{target} has no seeds");
    seeds
}

#[test]
fn the_seeds_are_taken() {
    for (name, bytes) in seeds("snapshot") {
        Model::decode(&bytes).expect(&name);
    }
    for (name, bytes) in seeds("sketch") {
        TrainingSketch::decode(&bytes).expect(&name);
    }
    for (name, bytes) in seeds("import") {
        from_aws_json(&bytes).expect(&name);
    }
    for (name, bytes) in seeds("spec") {
        let text = String::from_utf8(bytes).expect(&name);
        let (spec, _records) = text.split_once("\n---\n").expect(&name);
        ValidSpec::from_toml(spec).expect(&name);
    }
}
