//! `sawlog inspect`: what is in a model.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use sawlog_model::Model;

use crate::describe;
use crate::output::print;

/// Prints specification, features, parameters, calibration, provenance and size of a model.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  sawlog inspect model.sawlog --json | jq .calibration")]
pub(crate) struct Args {
    /// The model
    model: PathBuf,
    /// As one JSON object, for programs
    #[arg(long)]
    json: bool,
}

/// Reads a model from a file.
///
/// # Errors
/// Names the file, and for a bad snapshot the section and the offset.
pub(crate) fn load(path: &Path) -> anyhow::Result<Model> {
    let name = || format!("model {}", path.display());
    ensure!(
        !path.starts_with("s3:"),
        "{}: a model is read from a file; `aws s3 cp` fetches one, and `sawlog history` says which one a pointer \
         leads to",
        name()
    );
    let bytes = std::fs::read(path).with_context(name)?;
    Model::decode(&bytes).with_context(name)
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let model = load(&args.model)?;
    print(args.json, &as_json(&model), |out| {
        writeln!(out, "{}", args.model.display())?;
        describe::model(out, &model)
    })
}

fn as_json(model: &Model) -> serde_json::Value {
    let features = model.features();
    serde_json::json!({
        "id": model.id(),
        "bytes": model.snapshot_len(),
        "spec": features.spec().spec(),
        "fitted": features.fitted(),
        "dimensions": features.dimensions(),
        "params": model.params(),
        "distinct_points": model.forest().leaves(),
        "memory_bytes": model.forest().memory_bytes(),
        "calibration": model.calibration(),
        "endpoint_calibration": model.endpoint_calibration(),
        "provenance": model.provenance(),
    })
}
