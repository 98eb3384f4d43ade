//! `sawlog sketch` and `sawlog merge`: training in parts, on as many machines as one likes.
//!
//! A sketch is all that training keeps of its input. Each worker sketches its files, the sketches are
//! merged in any order, and `sawlog train --from-sketch` builds the model, the same bytes as if one
//! machine had read everything. A file is the unit of the split: a record's identity is its file's
//! name, as given, and its place in it.

use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use sawlog_model::TrainingSketch;

use crate::describe;
use crate::input::{self, Source};
use crate::output::{Output, refuse_overlap};
use crate::train::{Input, SamplingArgs};

/// Longest list of inputs that is read, decompressed: millions of names.
const MAX_LIST_LEN: u64 = 1 << 30;
/// Bytes of a sketch that say how long it is.
const PREFIX_LEN: u64 = TrainingSketch::PREFIX_LEN as u64;

/// Keeps of some inputs what training needs of them.
///
/// `sawlog merge` joins sketches of different inputs, `sawlog train --from-sketch` makes a model of one.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sawlog sketch --spec spec.toml --input logs/2026-11-19/ --output 19.sketch
  sawlog sketch --spec spec.toml --input logs/ --list > inputs    # split it among workers, then on each
  sawlog sketch --spec spec.toml --input-list part > part.sketch")]
pub(crate) struct SketchArgs {
    /// The feature specification (TOML): the format of a record and the fields that are features
    #[arg(long, value_name = "SPEC.toml")]
    spec: PathBuf,
    /// Files, folders, globs, s3://BUCKET/PREFIX, or - for standard input; plain, gzip, zstd or bzip2, or Parquet
    #[arg(long, required_unless_present = "input_list", num_args = 1.., value_name = "PATH")]
    input: Vec<String>,
    /// Only print which inputs those are, one a line: bytes, a tab, and the name
    #[arg(long, conflicts_with_all = ["base", "output"])]
    list: bool,
    /// Read the inputs of a list, as --list prints it, or of some of its lines; - for standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["input", "list"])]
    input_list: Option<PathBuf>,
    /// Go on from a sketch of other inputs
    #[arg(long, value_name = "SKETCH")]
    base: Option<PathBuf>,
    /// Where to write the sketch [default: standard output]
    #[arg(long, value_name = "SKETCH")]
    output: Option<PathBuf>,
    /// Read all records and keep none: what benches/training.py compares sampling with
    #[arg(long, hide = true)]
    discard: bool,
    #[command(flatten)]
    sampling: SamplingArgs,
}

/// Joins sketches of different inputs, made by one specification and alike in trees, samples, seed, shingle and
/// half-life.
#[derive(Debug, clap::Args)]
pub(crate) struct MergeArgs {
    /// The sketches, in any order; - for standard input, with any number of sketches one behind the other
    #[arg(required = true, value_name = "SKETCH")]
    sketches: Vec<PathBuf>,
    /// Where to write the merged sketch [default: standard output]
    #[arg(long, value_name = "SKETCH")]
    output: Option<PathBuf>,
}

/// Runs `sawlog sketch`. Rejected records are counted in the sketch, and judged when a model is made
/// of it.
pub(crate) fn run(args: &SketchArgs) -> anyhow::Result<()> {
    let sources = match &args.input_list {
        Some(path) => listed(path)?,
        None => input::resolve(&args.input)?,
    };
    let outputs: Vec<&Path> = args.output.as_deref().into_iter().collect();
    let also = args.base.as_deref();
    let input = Input::open(&args.spec, sources, &args.sampling, &outputs, also)?;
    if args.list {
        return list(input.sources());
    }
    if args.discard {
        let tally = input.discard(&args.sampling)?;
        return Ok(describe::tally(&mut io::stderr().lock(), &tally)?);
    }
    refuse_terminal(args.output.as_deref())?;
    let mut gathered = input.gather(&args.sampling, None)?;
    if let Some(base) = also {
        gathered.merge(base)?;
    }
    // Standard output may be the sketch.
    describe::tally(&mut std::io::stderr().lock(), &gathered.tally)?;
    write(&gathered.sketch, args.output.as_deref())
}

/// Prints sources as [`listed`] reads them.
fn list(sources: &[Source]) -> anyhow::Result<()> {
    let mut out = Output::create(None)?;
    for Source { name, size, .. } in sources {
        ensure!(name != "-", "standard input can't be listed: workers have another one");
        ensure!(!name.contains('\n'), "input {name:?}: a name of two lines can't be listed");
        writeln!(out, "{size}\t{name}")?;
    }
    out.finish()
}

/// Reads a list of sources. Names are taken as they stand: a star is no glob here.
fn listed(path: &Path) -> anyhow::Result<Vec<Source>> {
    let bytes = input::read_whole(&path.to_string_lossy(), MAX_LIST_LEN)?;
    let text = std::str::from_utf8(&bytes).with_context(|| format!("list {}", path.display()))?;
    let mut names = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let parts = line.split_once('\t').and_then(|(size, name)| Some((size.parse().ok()?, name)));
        let (size, name) = parts.with_context(|| {
            format!("list {}: line {}: not bytes, a tab and a name", path.display(), at + 1)
        })?;
        names.push((name.to_owned(), size));
    }
    ensure!(!names.is_empty(), "list {}: it names no input", path.display());
    names.sort();
    let twice = names.windows(2).find(|pair| pair[0].0 == pair[1].0);
    if let Some(pair) = twice {
        bail!("list {}: it has {} twice", path.display(), pair[0].0);
    }
    Ok(input::named(names)?)
}

/// Runs `sawlog merge`.
pub(crate) fn run_merge(args: &MergeArgs) -> anyhow::Result<()> {
    refuse_terminal(args.output.as_deref())?;
    let read: Vec<&Path> = args.sketches.iter().map(PathBuf::as_path).collect();
    refuse_overlap(&[args.output.as_deref()], &read)?;
    let mut merged: Option<TrainingSketch> = None;
    let mut take = |name: &str, next| match &mut merged {
        None => {
            merged = Some(next);
            Ok(())
        }
        Some(merged) => {
            merged.merge(next).with_context(|| format!("sketch {name} and those before it"))
        }
    };
    for path in &args.sketches {
        if path.as_os_str() == "-" {
            each_of(&mut io::stdin().lock(), &mut take)?;
        } else {
            take(&path.display().to_string(), load(path)?)?;
        }
    }
    let merged = merged.context("there is no sketch to merge")?;
    write(&merged, args.output.as_deref())
}

/// Reads sketches that stand one behind the other; only one of them is in memory.
fn each_of(
    input: &mut impl Read,
    take: &mut impl FnMut(&str, TrainingSketch) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    for number in 1_u64.. {
        let name = format!("{number} of standard input");
        let named = || format!("sketch {name}");
        let mut bytes = Vec::new();
        input.by_ref().take(PREFIX_LEN).read_to_end(&mut bytes).with_context(named)?;
        if bytes.is_empty() {
            break;
        }
        let len = TrainingSketch::encoded_len(&bytes).with_context(named)?;
        // The length is a stranger's word: memory grows with what comes.
        let rest = len.saturating_sub(PREFIX_LEN);
        input.by_ref().take(rest).read_to_end(&mut bytes).with_context(named)?;
        take(&name, TrainingSketch::decode(&bytes).with_context(named)?)?;
    }
    Ok(())
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
