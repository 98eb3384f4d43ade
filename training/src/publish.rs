//! `sawlog publish` and `sawlog promote`: a model into a place that functions read, past the gate.
//!
//! First the snapshot is put under its id, then the pointer moves. A publisher that dies between the two
//! leaves an object that nothing points to, and the same command again finds it there.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use sawlog_lambda::config::S3Prefix;
use sawlog_lambda::pointer::{How, MAX_REASON_LEN, ModelId, Move, Pointer};
use sawlog_model::Model;

use crate::describe::grouped;
use crate::inspect;

pub(crate) mod gate;
pub(crate) mod registry;

use gate::{Bounds, Flags};
use registry::{Next, Registry, Seen, Which, id_of, new_move, place};

/// Publishes a model for the Lambda, or as a candidate.
///
/// The snapshot is put under its id, ID.sawlog, then the pointer current.json (or candidate.json) is moved to
/// it, on the condition that nobody else has moved it meanwhile. Functions with
/// MODEL_URI=s3://bucket/prefix/current.json take the model over while they are warm.
///
/// A gate comes before: the model must have the features of the current one, in the same order, and, if
/// there is a --sample, flag about as many of its records.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sawlog publish model.sawlog --to s3://models/web --sample yesterday.log.gz
  sawlog publish model.sawlog --to s3://models/web --candidate
  sawlog publish model.sawlog --to s3://models/web --force 'new feature: status'

Needs s3:GetObject and s3:PutObject on the folder, s3:ListBucket on the bucket.")]
pub(crate) struct PublishArgs {
    /// The model
    model: PathBuf,
    /// The folder for models and pointers
    #[arg(long, value_name = "s3://BUCKET/PREFIX", value_parser = place)]
    to: S3Prefix,
    /// Only make it the candidate, which `sawlog promote` makes the current one. The gate is there
    #[arg(long, conflicts_with_all = ["sample", "bounds", "force"])]
    candidate: bool,
    #[command(flatten)]
    gate: GateArgs,
}

/// Makes the candidate the current model, past the gate.
///
/// The candidate is what `sawlog publish --candidate` published last; it stays the candidate.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  sawlog promote s3://models/web --sample yesterday.log.gz")]
pub(crate) struct PromoteArgs {
    /// The folder with models and pointers
    #[arg(value_name = "s3://BUCKET/PREFIX", value_parser = place)]
    place: S3Prefix,
    #[command(flatten)]
    gate: GateArgs,
}

#[derive(Debug, clap::Args)]
struct GateArgs {
    /// Recent records, of which the model must flag about as many as the current one does; at least 1,000.
    /// Files, folders, globs or s3://BUCKET/PREFIX; plain, gzip, zstd or bzip2, or Parquet
    #[arg(long, num_args = 1.., value_name = "PATH")]
    sample: Vec<String>,
    /// How many times as many it may flag at least and at most [default: 0.33..3]. What chance explains
    /// is let through all the same
    #[arg(long, value_name = "LEAST..MOST", requires = "sample")]
    bounds: Option<Bounds>,
    /// Overrule the gate, for this reason, which the history keeps with what the gate found
    #[arg(long, value_name = "REASON", value_parser = reason)]
    force: Option<String>,
}

fn reason(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() || text.len() > MAX_REASON_LEN || text.contains(char::is_control) {
        return Err(format!("not a line of 1 to {MAX_REASON_LEN} bytes"));
    }
    Ok(text.to_owned())
}

/// Publishes.
pub(crate) fn run(args: &PublishArgs) -> anyhow::Result<()> {
    let model = inspect::load(&args.model)?;
    let name = || format!("model {}", args.model.display());
    ensure!(
        !model.features().spec().needs_header(),
        "{} does not name the columns of its csv; train it with `columns` in the specification",
        name()
    );
    let bytes = model.encode();
    let id = id_of(&model)?;
    let registry = Registry::open(&args.to)?;
    let which = if args.candidate { Which::Candidate } else { Which::Current };
    let mut gate = Gate::new(&args.gate, &model, Wanted::File(&args.model))?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "model      {} ({} bytes)", id.as_str(), grouped(bytes.len() as u64))?;
    let mut bytes = Some(bytes);
    let (pointer, is_moved) = registry.update(which, |seen| {
        let is_there = is_at(seen, &id);
        let mut moved = new_move(seen, &model, How::Published)?;
        if which == Which::Current && !is_there {
            gate.pass(&registry, seen, &mut moved, &mut out)?;
        }
        // Even if the pointer is there already: the snapshot may have been lost since.
        if let Some(bytes) = bytes.take() {
            let is_new = registry.upload(&id, bytes)?;
            let was = if is_new { "uploaded" } else { "is there" };
            writeln!(out, "{was:10} {}", registry.snapshot_uri(&id))?;
        }
        Ok(if is_there { Next::Stay } else { Next::Move(Box::new(moved)) })
    })?;
    report(&mut out, &registry, which, pointer.as_ref(), is_moved)
}

/// Promotes.
pub(crate) fn run_promote(args: &PromoteArgs) -> anyhow::Result<()> {
    let registry = Registry::open(&args.place)?;
    let candidate = registry.read(Which::Candidate)?.with_context(|| {
        let uri = registry.uri(Which::Candidate);
        format!("{uri}: there is no candidate; `sawlog publish --candidate` makes one")
    })?;
    let id = candidate.pointer.current.model;
    let model = registry.fetch(&id)?;
    let mut gate = Gate::new(&args.gate, &model, Wanted::Candidate(&id))?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "candidate  {}", id.as_str())?;
    let (pointer, is_moved) = registry.update(Which::Current, |seen| {
        if is_at(seen, &id) {
            return Ok(Next::Stay);
        }
        let mut moved = new_move(seen, &model, How::Promoted)?;
        gate.pass(&registry, seen, &mut moved, &mut out)?;
        Ok(Next::Move(Box::new(moved)))
    })?;
    report(&mut out, &registry, Which::Current, pointer.as_ref(), is_moved)
}

fn is_at(seen: Option<&Seen>, id: &ModelId) -> bool {
    seen.is_some_and(|seen| seen.pointer.current.model == *id)
}

/// Says what a pointer is now.
pub(crate) fn report(
    out: &mut impl Write,
    registry: &Registry,
    which: Which,
    pointer: Option<&Pointer>,
    is_moved: bool,
) -> anyhow::Result<()> {
    let current = &pointer.context("a pointer that was just there")?.current;
    let (name, id, number) = (which.name(), current.model.as_str(), current.number);
    if is_moved {
        writeln!(out, "{name:10} {id}, {} as number {number}", current.how.name())?;
    } else {
        writeln!(out, "{name:10} {id} already, since number {number}: nothing to do")?;
    }
    writeln!(out, "MODEL_URI  {}", registry.uri(which))?;
    Ok(())
}

/// Where the model is that wants through.
#[derive(Clone, Copy)]
enum Wanted<'a> {
    /// In a file.
    File(&'a Path),
    /// In the place, under this id.
    Candidate(&'a ModelId),
}

/// The gate with what it has seen of the model that wants through.
struct Gate<'a> {
    args: &'a GateArgs,
    model: &'a Model,
    wanted: Wanted<'a>,
    /// What it flags of the sample.
    flags: Option<Flags>,
}

impl<'a> Gate<'a> {
    fn new(args: &'a GateArgs, model: &'a Model, wanted: Wanted<'a>) -> anyhow::Result<Self> {
        gate::check_sample(&args.sample)?;
        let flags = match args.sample.as_slice() {
            [] => None,
            sample => Some(Flags::of(model, sample)?),
        };
        Ok(Self { args, model, wanted, flags })
    }

    /// Lets a move through, or says why not. What is overruled is written into it.
    fn pass(
        &mut self,
        registry: &Registry,
        seen: Option<&Seen>,
        moved: &mut Move,
        out: &mut impl Write,
    ) -> anyhow::Result<()> {
        let Some(seen) = seen else {
            writeln!(out, "gate       nothing to compare with: this is the first model")?;
            return Ok(());
        };
        let current = &seen.pointer.current.model;
        let (found, is_readable) = match registry.fetch(current) {
            Ok(old) => (self.compare(&old, out)?, true),
            Err(error) => {
                (vec![format!("the current model can't be compared with: {error:#}")], false)
            }
        };
        if found.is_empty() {
            return Ok(());
        }
        let Some(reason) = &self.args.force else {
            bail!(
                "the gate refuses this model, and {} stays as it is:\n  {}\n{}",
                registry.uri(Which::Current),
                found.join("\n  "),
                self.next(registry, is_readable.then_some(current))
            );
        };
        writeln!(
            out,
            "gate       overruled: {reason}\n             {}",
            found.join("\n             ")
        )?;
        moved.forced = Some(reason.clone());
        moved.overruled = found;
        Ok(())
    }

    /// What somebody who is refused may do next, as commands: see what would change, try the model beside the
    /// current one, overrule the gate.
    fn next(&self, registry: &Registry, current: Option<&ModelId>) -> String {
        let mut next = Vec::new();
        if let Some(current) = current {
            let copy = |id, file: &str| format!("aws s3 cp {} {file}", registry.snapshot_uri(id));
            next.push("to see what would change:".to_owned());
            next.push(format!("  {}", copy(current, "current.sawlog")));
            let new = match self.wanted {
                Wanted::File(path) => path.display().to_string(),
                Wanted::Candidate(id) => {
                    next.push(format!("  {}", copy(id, "candidate.sawlog")));
                    "candidate.sawlog".to_owned()
                }
            };
            let sample = match self.args.sample.as_slice() {
                [] => "SAMPLE".to_owned(),
                sample => sample.join(" "),
            };
            next.push(format!("  sawlog diff current.sawlog {new} --input {sample}"));
        }
        if let Wanted::File(path) = self.wanted {
            let folder = registry.folder();
            next.push("to try it beside the current one, on a function of its own:".to_owned());
            next.push(format!("  sawlog publish {} --to {folder} --candidate", path.display()));
        }
        next.push("to overrule the gate: the same command with --force REASON".to_owned());
        next.join("\n")
    }

    /// What speaks against the model in the place of the old one.
    fn compare(&self, old: &Model, out: &mut impl Write) -> anyhow::Result<Vec<String>> {
        let mut found = gate::differences(old.features().spec(), self.model.features().spec());
        found.extend(gate::threshold(old, self.model));
        if found.is_empty() {
            writeln!(out, "gate       the features are those of {}", old.id())?;
        }
        match &self.flags {
            None => writeln!(out, "gate       no --sample: what it flags is not compared")?,
            Some(new) => {
                let old = Flags::of(old, &self.args.sample)?;
                writeln!(out, "gate       it flags {new}; the current model {old}")?;
                found.extend(gate::flags(&old, new, self.args.bounds.unwrap_or_default()));
            }
        }
        Ok(found)
    }
}
