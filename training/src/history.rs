//! `sawlog history` and `sawlog rollback`: which models a place has had, and back to one of them.

use std::io::Write;

use anyhow::{Context, bail, ensure};
use sawlog_lambda::config::S3Prefix;
use sawlog_lambda::pointer::{How, ModelId, Move, Pointer};

use crate::describe::{grouped, table};
use crate::publish::registry::{Next, Registry, Seen, Which, new_move, place};
use crate::publish::report;

/// Fewest digits of an id that name a model.
const MIN_DIGITS: usize = 4;

/// Shows which models a place has had: the last hundred moves of its pointer, the latest first.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  sawlog history s3://models/web")]
pub(crate) struct HistoryArgs {
    /// The folder with models and pointers
    #[arg(value_name = "s3://BUCKET/PREFIX", value_parser = place)]
    place: S3Prefix,
    /// Of the candidate's pointer
    #[arg(long)]
    candidate: bool,
    /// As one JSON object, for programs: the pointer itself
    #[arg(long)]
    json: bool,
}

/// Makes an earlier model the current one again.
///
/// Without --to that is the one before the current model was published: after one rollback, the next goes
/// one further back. There is no gate, but the model must be there and sound. A rollback counts as publishing:
/// the model's age, MODEL_MAX_AGE_SECS, begins anew.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sawlog rollback s3://models/web
  sawlog rollback s3://models/web --to 05ad4b")]
pub(crate) struct RollbackArgs {
    /// The folder with models and pointers
    #[arg(value_name = "s3://BUCKET/PREFIX", value_parser = place)]
    place: S3Prefix,
    /// The model's id, or its first digits if it is in the history
    #[arg(long, value_name = "ID")]
    to: Option<String>,
}

/// Shows the history.
pub(crate) fn run(args: &HistoryArgs) -> anyhow::Result<()> {
    let which = if args.candidate { Which::Candidate } else { Which::Current };
    let registry = Registry::open(&args.place)?;
    let seen = registry.read(which)?;
    let Seen { pointer, .. } = seen.with_context(|| nothing_published(&registry, which))?;
    let mut out = std::io::stdout().lock();
    if args.json {
        out.write_all(&pointer.to_json()?)?;
        return Ok(());
    }
    writeln!(out, "{}", registry.uri(which))?;
    let head = ["", "number", "when", "what", "bytes", "model"].map(str::to_owned);
    let row = |moved: &Move| {
        let mark = if moved.number == pointer.current.number { "now" } else { "" };
        [
            mark.to_owned(),
            moved.number.to_string(),
            moved.at.clone(),
            moved.how.name().to_owned(),
            grouped(moved.bytes),
            moved.model.as_str().to_owned(),
        ]
    };
    let rows: Vec<_> = std::iter::once(head).chain(pointer.moves().map(row)).collect();
    table(&mut out, &rows)?;
    for moved in pointer.moves() {
        if let Some(reason) = &moved.forced {
            writeln!(out, "\nnumber {} was forced: {reason}", moved.number)?;
            moved.overruled.iter().try_for_each(|found| writeln!(out, "  {found}"))?;
        }
    }
    Ok(())
}

/// Rolls back.
pub(crate) fn run_rollback(args: &RollbackArgs) -> anyhow::Result<()> {
    let registry = Registry::open(&args.place)?;
    let mut out = std::io::stdout().lock();
    // What the command was given for.
    let mut first: Option<Move> = None;
    let (pointer, is_moved) = registry.update(Which::Current, |seen| {
        let seen = seen.with_context(|| nothing_published(&registry, Which::Current))?;
        let now = &seen.pointer.current;
        let target = match &args.to {
            Some(digits) => named(&seen.pointer, digits)?,
            None => {
                let first = first.get_or_insert_with(|| now.clone());
                // "One back" from what somebody has made current meanwhile may be what was to be left.
                ensure!(
                    first.number == now.number,
                    "{} was moved from {} to {} meanwhile: look at `sawlog history`, and name the model \
                     with --to",
                    registry.uri(Which::Current),
                    first.model.as_str(),
                    now.model.as_str()
                );
                one_back(&seen.pointer).with_context(|| {
                    let uri = registry.uri(Which::Current);
                    format!("{uri}: its history has no model before {}", now.model.as_str())
                })?
            }
        };
        if target == now.model {
            return Ok(Next::Stay);
        }
        let model = registry.fetch(&target)?;
        Ok(Next::Move(Box::new(new_move(Some(seen), &model, How::RolledBack)?)))
    })?;
    if let Some(moved) = first.filter(|_| is_moved) {
        writeln!(out, "before     {}", moved.model.as_str())?;
    }
    report(&mut out, &registry, Which::Current, pointer.as_ref(), is_moved)
}

fn nothing_published(registry: &Registry, which: Which) -> String {
    format!("{}: nothing is published there", registry.uri(which))
}

/// The model that was current before the current one was published. Rolling back is no publishing: it
/// leads to a model whose own publication is further back, and one back from there is meant.
fn one_back(pointer: &Pointer) -> Option<ModelId> {
    let now = &pointer.current.model;
    let mut published =
        pointer.moves().skip_while(|moved| moved.model != *now || moved.how == How::RolledBack);
    published.find(|moved| moved.model != *now).map(|moved| moved.model.clone())
}

/// The model whose id begins with some digits; a whole id need not be in the history.
fn named(pointer: &Pointer, digits: &str) -> anyhow::Result<ModelId> {
    if let Ok(id) = ModelId::try_from(digits.to_owned()) {
        return Ok(id);
    }
    ensure!(digits.len() >= MIN_DIGITS, "--to {digits}: at least {MIN_DIGITS} digits are needed");
    let mut found: Vec<&ModelId> = Vec::new();
    for moved in pointer.moves() {
        if moved.model.as_str().starts_with(digits) && !found.contains(&&moved.model) {
            found.push(&moved.model);
        }
    }
    match found.as_slice() {
        [id] => Ok((*id).clone()),
        [] => bail!("--to {digits}: the history has no such model"),
        several => bail!("--to {digits}: {} models begin so", several.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(digit: char) -> ModelId {
        String::from(digit).repeat(32).try_into().expect("an id")
    }

    /// A pointer that was moved to these models in turn; of those in upper case by rolling back.
    fn pointer(models: &str) -> Pointer {
        let mut pointer: Option<Pointer> = None;
        for digit in models.chars() {
            let how = if digit.is_uppercase() { How::RolledBack } else { How::Published };
            let moved = Move {
                number: Pointer::next_number(pointer.as_ref()),
                model: id(digit.to_ascii_lowercase()),
                bytes: 1,
                at: String::new(),
                how,
                token: String::new(),
                forced: None,
                overruled: Vec::new(),
            };
            pointer = Some(Pointer::after(pointer.as_ref(), moved));
        }
        pointer.expect("a move")
    }

    #[test]
    fn one_back_is_before_the_current_model_was_published() {
        for (models, expected) in [
            ("a", None),
            ("ab", Some('a')),
            ("abc", Some('b')),
            // Back to b, then from there to a, and no further.
            ("abcB", Some('a')),
            ("abcBA", None),
            // Published again: what was before that.
            ("abcBb", Some('c')),
            ("abcBd", Some('b')),
            ("aab", Some('a')),
            ("aa", None),
        ] {
            assert_eq!(one_back(&pointer(models)), expected.map(id), "{models}");
        }
    }

    #[test]
    fn a_model_is_named_by_its_first_digits() {
        let pointer = pointer("abab");
        assert_eq!(named(&pointer, "aaaa").expect("one"), id('a'));
        assert_eq!(named(&pointer, &"c".repeat(32)).expect("any"), id('c'));
        for (digits, words) in [("aaa", "at least 4"), ("cccc", "no such model")] {
            let error = named(&pointer, digits).expect_err(words).to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
