//! `sawlog diff`: what changes if one model takes the place of another.
//!
//! Both score a sample of records, each reading it by its own specification; a record is the same one by
//! its place. What is measured of the two scores is what validation measures
//! (`sawlog_lambda::validation`), and beside it stand the records whose verdict changes and what the
//! models have learned of each feature. Only a score and a place a record are kept, so the records that
//! are shown are scored once more, by the model that flags them, to say why it does.

mod learned;
mod text;

use std::borrow::Cow;
use std::collections::HashSet;
use std::path::PathBuf;

use anyhow::{Context, ensure};
use sawlog_lambda::validation::agreement::{self, Flagged};
use sawlog_lambda::validation::proportion::Bounded;
use sawlog_lambda::validation::{Agreement, Measures, Sample};
use sawlog_lambda::{Origin, Verdict};
use sawlog_model::{Calibration, Model, Params};
use serde::{Serialize, Serializer};

use crate::input::{self, Source};
use crate::inspect;
use crate::output::print;
use crate::scoring::{Found, Scoring};
use learned::Feature;

/// Most records of a sample: their places and scores take 800 MB with both models'.
const MAX_RECORDS: usize = 1 << 24;
/// Most records shown of either direction.
const MAX_TOP: usize = 1000;
/// The shares of records at which the scores are shown.
const SHARES: [f64; 6] = [0.5, 0.9, 0.99, 0.999, 0.9999, 1.0];

/// Says what changes if one model takes the place of another.
///
/// Both score the records of a sample. Said are the verdicts that change, with the records and why; how far
/// the two rank the records alike; the quantiles of both scores; and how features and what was learned of
/// them differ.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  sawlog diff live.sawlog new.sawlog --input yesterday.log.gz")]
pub(crate) struct Args {
    /// The model that is in use
    old: PathBuf,
    /// The model that would take its place
    new: PathBuf,
    /// Records to compare them on: files, folders, globs or s3://BUCKET/PREFIX; plain, gzip or zstd. They are read twice or
    /// more often
    #[arg(long, required = true, num_args = 1.., value_name = "PATH")]
    input: Vec<String>,
    /// How many of the records to show whose verdict changes, of either direction, at most 1000
    #[arg(long, default_value_t = 10, value_parser = top, value_name = "N")]
    top: usize,
    /// As one JSON object, for programs
    #[arg(long)]
    json: bool,
}

fn top(text: &str) -> Result<usize, String> {
    let count = text.parse().ok().filter(|count| *count <= MAX_TOP);
    count.ok_or_else(|| format!("a number from 0 to {MAX_TOP}"))
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let (old, new) = (inspect::load(&args.old)?, inspect::load(&args.new)?);
    let sources = input::resolve(&args.input)?;
    let is_standard = sources.iter().any(|source| source.name == "-");
    ensure!(!is_standard, "input -: it is read more than once, so it has to be a file");
    let diff = Diff::new(&old, &new, &sources, args.top)?;
    print(args.json, &diff, |out| text::write(out, &diff))
}

/// All that is said of two models.
#[derive(Debug, Serialize)]
struct Diff<'m> {
    old: Side<'m>,
    new: Side<'m>,
    /// Records with two scores.
    compared: usize,
    /// How many of them change their verdict; none if one of the models has no threshold.
    verdicts: Option<Verdicts>,
    #[serde(serialize_with = "bounds")]
    differing: Option<Bounded>,
    #[serde(serialize_with = "bounds")]
    tops_missing: Option<Bounded>,
    #[serde(serialize_with = "bounds")]
    rank_correlation: Option<Bounded>,
    /// Whether the two agree as forests of the same data do, and why.
    agreement: Agreement,
    reason: String,
    quantiles: Vec<Quantile>,
    features: Vec<Feature<'m>>,
    /// Records that only the new model flags, the most unusual to it first.
    newly_flagged: Vec<Flip<'m>>,
    /// Records that only the old model flags, the most unusual to it first.
    no_longer_flagged: Vec<Flip<'m>>,
}

/// One of both models, and the sample as it reads it.
#[derive(Debug, Serialize)]
struct Side<'m> {
    model: &'m str,
    params: &'m Params,
    dimensions: usize,
    /// Records a point is made of.
    shingle: usize,
    calibration: Option<&'m Calibration>,
    /// Records that it has a score for.
    scored: usize,
    /// Records that it can't read.
    rejected: u64,
    /// Records with too few of their series before them.
    no_history: u64,
}

/// Records by who flags them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
struct Verdicts {
    both: usize,
    only_old: usize,
    only_new: usize,
    neither: usize,
}

/// One quantile of both scores.
#[derive(Debug, Serialize)]
struct Quantile {
    share: f64,
    old: f32,
    new: f32,
}

/// A record whose verdict changes.
#[derive(Debug, Serialize)]
struct Flip<'m> {
    /// Of the model that flags it.
    #[serde(flatten)]
    verdict: Verdict<'m>,
    /// The other one's score.
    other_score: f32,
    /// Its threshold.
    other_threshold: f64,
}

fn bounds<S: Serializer>(bounds: &Option<Bounded>, serializer: S) -> Result<S::Ok, S::Error> {
    bounds.map(|Bounded { value, low, high }| (value, low, high)).serialize(serializer)
}

/// A record that a model has a score for: the number of its source, its byte there, its score.
type Entry = (usize, u64, f32);

/// The sample as one model reads it, in its order.
struct Seen {
    entries: Vec<Entry>,
    rejected: u64,
    no_history: u64,
}

impl Seen {
    fn by(model: &Model, sources: &[Source]) -> anyhow::Result<Self> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut source = 0;
        let tally = Scoring::new(model).run(
            sources,
            |_, _, _| Ok(()),
            |origin, found| {
                let Found::Scored { scored, .. } = found else { return Ok(()) };
                let Some(offset) = place(origin, sources, &mut source) else { return Ok(()) };
                ensure!(
                    entries.len() < MAX_RECORDS,
                    "more than {MAX_RECORDS} records: compare on a part of them"
                );
                entries.push((source, offset, scored.score));
                Ok(())
            },
        )?;
        tally.check_scored().with_context(|| format!("by model {}", model.id()))?;
        Ok(Self { entries, rejected: tally.rejected, no_history: tally.no_history })
    }

    fn side<'m>(&self, model: &'m Model) -> Side<'m> {
        Side {
            model: model.id(),
            params: model.params(),
            dimensions: model.features().dimensions(),
            shingle: model.features().spec().shingle_size(),
            calibration: model.calibration(),
            scored: self.entries.len(),
            rejected: self.rejected,
            no_history: self.no_history,
        }
    }
}

/// The byte where a record stands, and in `source` the number of its source; sources come in their order.
fn place(origin: &Origin, sources: &[Source], source: &mut usize) -> Option<u64> {
    let Origin::File { path, offset, .. } = origin else { return None };
    while sources.get(*source)?.name != **path {
        *source += 1;
    }
    Some(*offset)
}

/// A record with two scores: its entry by the old model, and the new one's score.
type Both = (Entry, f32);

/// The records that both have a score for. Each list is in the order of the input.
fn joined(old: &[Entry], new: &[Entry]) -> Vec<Both> {
    let mut new = new.iter().peekable();
    let mut both = Vec::new();
    for entry in old {
        let at = (entry.0, entry.1);
        while new.next_if(|other| (other.0, other.1) < at).is_some() {}
        if let Some(same) = new.next_if(|other| (other.0, other.1) == at) {
            both.push((*entry, same.2));
        }
    }
    both
}

impl<'m> Diff<'m> {
    fn new(old: &'m Model, new: &'m Model, sources: &[Source], top: usize) -> anyhow::Result<Self> {
        let (by_old, by_new) = (Seen::by(old, sources)?, Seen::by(new, sources)?);
        let both = joined(&by_old.entries, &by_new.entries);
        ensure!(!both.is_empty(), "no record of the sample has a score of both models");
        let thresholds = old.calibration().zip(new.calibration());
        let thresholds = thresholds.map(|(old, new)| (old.threshold, new.threshold));
        let flagged = |&((_, _, old), new): &Both| {
            thresholds.map(|(of_old, of_new)| Flagged {
                local: f64::from(old) > of_old,
                endpoint: f64::from(new) > of_new,
            })
        };
        let samples: Vec<Sample> = both
            .iter()
            .map(|it| Sample { local: it.0.2, endpoint: it.1, flagged: flagged(it) })
            .collect();
        let measures = Measures::of(&samples);
        let judgement = agreement::judge(&measures);
        let decisions = measures.decisions;
        let flips = |is_new: bool| {
            let is_flip = |it: &&Both| {
                flagged(it).is_some_and(|by| (by.local, by.endpoint) == (!is_new, is_new))
            };
            let mut flips: Vec<Both> = both.iter().filter(is_flip).copied().collect();
            let score = |it: &Both| if is_new { it.1 } else { it.0.2 };
            flips.sort_by(|a, b| score(b).total_cmp(&score(a)));
            flips.truncate(top);
            flips
        };
        let (of_old, of_new) = thresholds.unwrap_or_default();
        let explain = |by: &'m Model, is_new: bool| {
            let other = |it: &Both| if is_new { (it.0.2, of_old) } else { (it.1, of_new) };
            explained(by, sources, &flips(is_new), other)
        };
        Ok(Self {
            old: by_old.side(old),
            new: by_new.side(new),
            compared: both.len(),
            verdicts: thresholds.map(|_| Verdicts {
                both: decisions.both,
                only_old: decisions.only_local,
                only_new: decisions.only_endpoint,
                neither: decisions.neither,
            }),
            differing: measures.differing,
            tops_missing: measures.missing,
            rank_correlation: measures.ranks,
            agreement: judgement.agreement,
            reason: judgement.reason,
            quantiles: quantiles(&samples),
            features: learned::features(old.features(), new.features()),
            newly_flagged: explain(new, true)?,
            no_longer_flagged: explain(old, false)?,
        })
    }
}

/// The verdicts of the model that flags them on some records, in their order. `other` is what the other
/// model says: its score and its threshold.
fn explained<'m>(
    model: &'m Model,
    sources: &[Source],
    flips: &[Both],
    other: impl Fn(&Both) -> (f32, f64),
) -> anyhow::Result<Vec<Flip<'m>>> {
    if flips.is_empty() {
        return Ok(Vec::new());
    }
    let wanted: HashSet<(usize, u64)> = flips.iter().map(|(at, _)| (at.0, at.1)).collect();
    let mut found = Vec::with_capacity(flips.len());
    let mut source = 0;
    Scoring::new(model).run(
        sources,
        |_, _, _| Ok(()),
        |origin, of| {
            let Found::Scored { scored, .. } = of else { return Ok(()) };
            if let Some(offset) = place(origin, sources, &mut source)
                && wanted.contains(&(source, offset))
            {
                let origin = Cow::Owned(origin.clone());
                found.push(((source, offset), Verdict::new(model, origin, None, scored)));
            }
            Ok(())
        },
    )?;
    let flips = flips.iter().filter_map(|flip| {
        let at = found.iter().position(|(at, _)| *at == (flip.0.0, flip.0.1))?;
        let (other_score, other_threshold) = other(flip);
        Some(Flip { verdict: found.swap_remove(at).1, other_score, other_threshold })
    });
    Ok(flips.collect())
}

/// The same quantiles of both scores.
fn quantiles(samples: &[Sample]) -> Vec<Quantile> {
    let sorted = |score: fn(&Sample) -> f32| {
        let mut scores: Vec<f32> = samples.iter().map(score).collect();
        scores.sort_unstable_by(f32::total_cmp);
        scores
    };
    let (old, new) = (sorted(|sample| sample.local), sorted(|sample| sample.endpoint));
    let last = samples.len() - 1;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a share of the length"
    )]
    let at = |share: f64| ((share * last as f64).round() as usize).min(last);
    let quantile = |share| Quantile { share, old: old[at(share)], new: new[at(share)] };
    // Of few records the higher ones are all the same.
    let distinct = |share: &f64| at(*share) < last || *share == 1.0;
    SHARES.into_iter().filter(distinct).map(quantile).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_joined_by_their_places() {
        let old = [(0, 0, 1.0), (0, 5, 2.0), (0, 9, 3.0), (1, 0, 4.0)];
        let new = [(0, 5, 20.0), (0, 7, 25.0), (1, 0, 40.0), (1, 3, 50.0)];
        let both = joined(&old, &new);
        assert_eq!(both, [((0, 5, 2.0), 20.0), ((1, 0, 4.0), 40.0)]);
        assert_eq!(joined(&old, &[]), []);
    }
}
