//! `sawlog sketch` and `sawlog merge`: training in parts, on as many machines as one likes.
//!
//! A sketch is all that training keeps of its input. Each worker sketches its files, the sketches are
//! merged in any order, and `sawlog train --from-sketch` builds the model, the same bytes as if one
//! machine had read everything. A file is the unit of the split: a record's identity is its file's
//! name, as given, and its place in it.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use sawlog_model::TrainingSketch;

use crate::describe;
use crate::output::{Output, refuse_overlap};
use crate::train::{Input, SamplingArgs};

/// Keeps of some inputs what training needs of them.
///
/// `sawlog merge` joins sketches of different inputs, `sawlog train --from-sketch` makes a model of one.
#[derive(Debug, clap::Args)]
pub(crate) struct SketchArgs {
    /// The feature specification (TOML): the format of a record and the fields that are features
    #[arg(long, value_name = "SPEC.toml")]
    spec: PathBuf,
    /// Files, folders, globs, or - for standard input; plain, gzip or zstd
    #[arg(long, required = true, num_args = 1.., value_name = "PATH")]
    input: Vec<String>,
    /// Go on from a sketch of other inputs
    #[arg(long, value_name = "SKETCH")]
    base: Option<PathBuf>,
    /// Where to write the sketch [default: standard output]
    #[arg(long, value_name = "SKETCH")]
    output: Option<PathBuf>,
    #[command(flatten)]
    sampling: SamplingArgs,
}

/// Joins sketches of different inputs, made by one specification and alike in trees, samples and seed.
#[derive(Debug, clap::Args)]
pub(crate) struct MergeArgs {
    /// The sketches, in any order
    #[arg(required = true, value_name = "SKETCH")]
    sketches: Vec<PathBuf>,
    /// Where to write the merged sketch [default: standard output]
    #[arg(long, value_name = "SKETCH")]
    output: Option<PathBuf>,
}

/// Runs `sawlog sketch`. Rejected records are counted in the sketch, and judged when a model is made
/// of it.
pub(crate) fn run(args: &SketchArgs) -> anyhow::Result<()> {
    refuse_terminal(args.output.as_deref())?;
    let outputs: Vec<&Path> = args.output.as_deref().into_iter().collect();
    let also = args.base.as_deref();
    let input = Input::open(&args.spec, &args.input, &args.sampling, &outputs, also)?;
    let mut gathered = input.gather(&args.sampling, None)?;
    if let Some(base) = also {
        gathered.merge(base)?;
    }
    // Standard output may be the sketch.
    describe::tally(&mut std::io::stderr().lock(), &gathered.tally)?;
    write(&gathered.sketch, args.output.as_deref())
}

/// Runs `sawlog merge`.
pub(crate) fn run_merge(args: &MergeArgs) -> anyhow::Result<()> {
    refuse_terminal(args.output.as_deref())?;
    let read: Vec<&Path> = args.sketches.iter().map(PathBuf::as_path).collect();
    refuse_overlap(&[args.output.as_deref()], &read)?;
    let mut merged: Option<TrainingSketch> = None;
    for path in &args.sketches {
        let next = load(path)?;
        match &mut merged {
            None => merged = Some(next),
            Some(merged) => merged
                .merge(next)
                .with_context(|| format!("sketch {} and those before it", path.display()))?,
        }
    }
    let merged = merged.context("there is no sketch to merge")?;
    write(&merged, args.output.as_deref())
}

/// Reads a sketch from a file.
pub(crate) fn load(path: &Path) -> anyhow::Result<TrainingSketch> {
    let named = || format!("sketch {}", path.display());
    let bytes = std::fs::read(path).with_context(named)?;
    TrainingSketch::decode(&bytes).with_context(named)
}

fn refuse_terminal(output: Option<&Path>) -> anyhow::Result<()> {
    ensure!(
        output.is_some() || !std::io::stdout().is_terminal(),
        "a sketch is not for reading: give --output, or send it to a file"
    );
    Ok(())
}

fn write(sketch: &TrainingSketch, path: Option<&Path>) -> anyhow::Result<()> {
    let mut output = Output::create(path)?;
    output.write_all(&sketch.encode())?;
    output.finish()
}
