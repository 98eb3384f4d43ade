//! `sawlog import`: a forest saved by another implementation to a model.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use sawlog_model::import;

use crate::describe;
use crate::input;
use crate::output::Output;

/// Most bytes of a file, decompressed: a forest of 100 trees of 256 points of 10,000 dimensions takes
/// about 1.4 GB, the largest that SageMaker's limits allow with the default of trees and samples.
const MAX_FILE_LEN: u64 = 2 << 30;

/// Makes a model of a forest that another implementation saved.
///
/// The model reads a CSV with the columns x0, x1, ... of the forest's dimensions, as they are; other
/// columns are passed over. Its scores are those of the implementation. It has no threshold until
/// `sawlog calibrate` sets one.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  sawlog import --from aws-rcf-json forest.json --output model.sawlog")]
pub(crate) struct Args {
    /// What wrote the file. aws-rcf-json: AWS's Java library, the JSON of its RandomCutForestMapper's
    /// state, saved with its trees (saveTreeStateEnabled)
    #[arg(long, value_enum)]
    from: Source,
    /// The file, or - for standard input; plain, gzip or zstd
    #[arg(value_name = "FILE")]
    file: String,
    /// Where to write the model
    #[arg(long, value_name = "MODEL")]
    output: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Source {
    AwsRcfJson,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let bytes = input::read_whole(&args.file, MAX_FILE_LEN)?;
    let imported = match args.from {
        Source::AwsRcfJson => import::from_aws_json(&bytes),
    };
    let imported = imported.with_context(|| format!("input {}: no model is written", args.file))?;
    // The file can be as large as the model.
    drop(bytes);
    let tool = concat!("sawlog ", env!("CARGO_PKG_VERSION"));
    let model = imported.into_model(tool, args.file.as_str());
    let mut output = Output::create(Some(&args.output))?;
    output.write_all(&model.encode())?;
    output.finish()?;
    let mut out = std::io::stdout().lock();
    describe::model(&mut out, &model)?;
    writeln!(out, "\nwrote      {}", args.output.display())?;
    Ok(())
}
