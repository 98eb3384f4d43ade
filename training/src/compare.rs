//! `sawlog compare`: captured pairs to a report: do the local model and the endpoint agree?
//!
//! What is measured and the rule that judges it are the Lambda's own (`sawlog_lambda::validation`),
//! over all pairs instead of the last ones.

mod page;
mod text;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use sawlog_lambda::validation::agreement::{self, SHIFT_QUANTILES, Table};
use sawlog_lambda::validation::pair::{Decision, Time};
use sawlog_lambda::validation::proportion::Bounded;
use sawlog_lambda::validation::{Agreement, Judgement, Measures, Pair, Sample};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::input;
use crate::output::{Output, print, refuse_overlap};
use crate::progress::Progress;

/// Most pairs that are compared: they are all in memory, at some 300 bytes each without features.
const MAX_PAIRS: usize = 2_000_000;
/// Fewest pairs on which the endpoint is given up: agreement of fewer may be that of one quiet hour.
const MIN_TO_TURN_OFF: usize = 1000;
/// Different reasons for missing scores that are told.
const MAX_REASONS: usize = 5;

/// Compares captured pairs of scores and says whether the endpoint is still needed.
///
/// PAIRS are what a function with VALIDATE_SHARE and CAPTURE_URI writes: JSON lines, plain, gzip or
/// zstd. A record that was captured twice counts once.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  sawlog compare pairs/ --report report.html")]
pub(crate) struct Args {
    /// Files, folders, globs, s3://BUCKET/PREFIX, or - for standard input; plain, gzip, zstd or bzip2
    #[arg(required = true, num_args = 1.., value_name = "PAIRS")]
    pairs: Vec<String>,
    /// The model whose pairs are compared, by the beginning of its id [default: that of the latest pair]
    #[arg(long, value_name = "ID")]
    model: Option<String>,
    /// How many of the records are shown on which both differ most
    #[arg(long, default_value_t = 10, value_name = "COUNT")]
    top: usize,
    /// Where to write the report as a page: one file that needs nothing else
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// As one JSON object, for programs
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let sources = input::resolve(&args.pairs)?;
    let read: Vec<&Path> = sources.iter().map(|source| Path::new(&source.name)).collect();
    refuse_overlap(&[args.report.as_deref()], &read)?;
    let pairs = Pairs::read(&sources)?;
    let report = Report::new(pairs, args.model.as_deref(), args.top)?;
    if let Some(path) = &args.report {
        let mut page = Output::create(Some(path))?;
        page::write(&mut page, &report)?;
        page.finish()?;
    }
    print(args.json, &report, |out| text::write(out, &report))
}

/// Captured pairs, each record of a model once.
#[derive(Default)]
struct Pairs {
    /// In the order in which they were read.
    kept: Vec<Kept>,
    /// Ids of models and names of endpoints, each once.
    names: Vec<(String, String)>,
    repeated: usize,
}

struct Kept {
    /// Index in the names.
    of: usize,
    pair: Pair<'static>,
}

impl Pairs {
    fn read(sources: &[input::Source]) -> anyhow::Result<Self> {
        let progress = Progress::over_bytes("reading", sources.iter().map(|s| s.size).sum());
        let mut pairs = Self::default();
        let mut places: HashMap<(usize, String), usize> = HashMap::new();
        for source in sources {
            // The reader calls back and can't pass an error on: the first is kept and told after it.
            let mut result = Ok(());
            input::read_lines(source, &|bytes| progress.add(bytes), |place, line| {
                if result.is_ok() {
                    let taken = pairs.take(&mut places, line);
                    result =
                        taken.with_context(|| format!("{}: line {}", place.source, place.line));
                }
            })?;
            result?;
        }
        progress.finish();
        ensure!(!pairs.kept.is_empty(), "there is no pair in the input");
        Ok(pairs)
    }

    fn take(
        &mut self,
        places: &mut HashMap<(usize, String), usize>,
        line: &[u8],
    ) -> anyhow::Result<()> {
        let pair = Pair::read(line)?.into_owned();
        ensure!(self.kept.len() < MAX_PAIRS, "more than {MAX_PAIRS} pairs; compare fewer files");
        let is_it = |(model, endpoint): &(String, String)| {
            *model == pair.model && *endpoint == pair.endpoint_name
        };
        let of = self.names.iter().position(is_it).unwrap_or_else(|| {
            self.names.push((pair.model.to_string(), pair.endpoint_name.to_string()));
            self.names.len() - 1
        });
        match places.entry((of, pair.id.to_string())) {
            std::collections::hash_map::Entry::Occupied(place) => {
                self.repeated += 1;
                // A score is worth more than a failure to have one.
                let before = &mut self.kept[*place.get()];
                if pair.endpoint.is_ok() || before.pair.endpoint.is_err() {
                    before.pair = pair;
                }
            }
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert(self.kept.len());
                self.kept.push(Kept { of, pair });
            }
        }
        Ok(())
    }

    /// The index of the names that are compared.
    fn chosen(&self, model: Option<&str>) -> anyhow::Result<usize> {
        if let Some(asked) = model {
            let found = self.kept.iter().rev().find(|kept| kept.pair.model.starts_with(asked));
            let Some(found) = found else {
                let known: Vec<&str> = self.names.iter().map(|(model, _)| model.as_str()).collect();
                bail!("no pair is of model {asked}; there are {}", known.join(", "));
            };
            return Ok(found.of);
        }
        // Of equally late ones the last.
        let latest = self.kept.iter().max_by_key(|kept| kept.pair.timestamp_ms);
        latest.map(|kept| kept.of).context("there is no pair in the input")
    }
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum Advice {
    #[serde(rename = "turn the endpoint off")]
    TurnOff,
    #[serde(rename = "keep watching")]
    KeepWatching,
    #[serde(rename = "retrain")]
    Retrain,
}

impl Advice {
    fn sentence(self) -> &'static str {
        match self {
            Self::TurnOff => "turn the endpoint off",
            Self::KeepWatching => "keep watching",
            Self::Retrain => "retrain",
        }
    }

    /// The advice that follows from a judgement, and why.
    fn of(judgement: &Judgement, measures: &Measures) -> (Self, String) {
        let reason = &judgement.reason;
        match judgement.agreement {
            Agreement::Agree if measures.records >= MIN_TO_TURN_OFF => {
                (Self::TurnOff, format!("the local model says what the endpoint says: {reason}"))
            }
            Agreement::Agree => (
                Self::KeepWatching,
                format!(
                    "so far they agree, but {} pairs are few ({MIN_TO_TURN_OFF} at least): {reason}",
                    measures.records
                ),
            ),
            Agreement::TooFew => (Self::KeepWatching, format!("too few pairs to say: {reason}")),
            Agreement::Drifting => (
                Self::KeepWatching,
                format!("they agree less than forests of the same data do: {reason}"),
            ),
            Agreement::Disagree => {
                (Self::Retrain, format!("they disagree by more than chance: {reason}"))
            }
        }
    }
}

/// All that is said of the pairs.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    advice: Advice,
    reason: String,
    agreement: Agreement,
    model: String,
    endpoint: String,
    /// Pairs with two scores.
    pairs: usize,
    /// Records that the endpoint gave no score for.
    failed: usize,
    /// Pairs left out because their record is there already.
    repeated: usize,
    /// Pairs left out because they are of another model or endpoint.
    others: usize,
    decisions: Table,
    #[serde(serialize_with = "bounds")]
    differing: Option<Bounded>,
    #[serde(serialize_with = "bounds")]
    tops_missing: Option<Bounded>,
    #[serde(serialize_with = "bounds")]
    rank_correlation: Option<Bounded>,
    quantiles: Vec<Quantile>,
    local_latency: Option<Latency>,
    endpoint_latency: Option<Latency>,
    /// Why there are no scores, the commonest first.
    failures: Vec<(String, usize)>,
    /// The records on which both differ most.
    differ_most: Vec<Difference>,
    /// Not in the JSON: the captures have them.
    #[serde(skip)]
    dots: Vec<Dot>,
}

fn bounds<S: serde::Serializer>(
    bounds: &Option<Bounded>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    bounds.map(|Bounded { value, low, high }| (value, low, high)).serialize(serializer)
}

/// One quantile of both scores.
#[derive(Debug, Serialize)]
pub(crate) struct Quantile {
    share: f64,
    local: f32,
    endpoint: f32,
}

/// How long calls took, in milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Latency {
    p50_ms: f64,
    p99_ms: f64,
    /// Records that the median call scored.
    rows: usize,
}

/// A record on which both differ.
#[derive(Debug, Serialize)]
pub(crate) struct Difference {
    id: String,
    local: Side,
    endpoint: Side,
    /// How many times more unusual one finds it than the other: the ratio of the shares of records that
    /// score at least as high.
    times: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    features: Option<Box<RawValue>>,
}

/// What one of both says of a record.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Side {
    score: f32,
    threshold: Option<f64>,
    anomaly: Option<bool>,
    /// The share of the records that score at least as high.
    at_least: f64,
}

/// A record in the scatter.
#[derive(Debug)]
pub(crate) struct Dot {
    id: String,
    sample: Sample,
    thresholds: (Option<f64>, Option<f64>),
}

impl Report {
    fn new(pairs: Pairs, model: Option<&str>, top: usize) -> anyhow::Result<Self> {
        let of = pairs.chosen(model)?;
        let Pairs { kept, mut names, repeated } = pairs;
        let all = kept.len();
        let chosen: Vec<Pair<'_>> =
            kept.into_iter().filter(|kept| kept.of == of).map(|kept| kept.pair).collect();
        let others = all - chosen.len();
        let failures = failures(&chosen);
        let (local_latency, endpoint_latency) = (
            Latency::of(chosen.iter().map(|pair| pair.local_time)),
            Latency::of(chosen.iter().map(|pair| pair.endpoint_time)),
        );
        let failed = chosen.iter().filter(|pair| pair.endpoint.is_err()).count();
        let (scored, samples): (Vec<Pair<'_>>, Vec<Sample>) = chosen
            .into_iter()
            .filter_map(|pair| pair.sample().map(|sample| (pair, sample)))
            .unzip();
        ensure!(!samples.is_empty(), "the endpoint gave no score in any of {failed} pairs");
        let measures = Measures::of(&samples);
        let judgement = agreement::judge(&measures);
        let (advice, reason) = Advice::of(&judgement, &measures);
        let quantiles = measures.quantiles.into_iter().flatten().zip(SHIFT_QUANTILES);
        let quantiles =
            quantiles.map(|((local, endpoint), share)| Quantile { share, local, endpoint });
        let (model, endpoint) = names.swap_remove(of);
        Ok(Self {
            advice,
            reason,
            agreement: judgement.agreement,
            model,
            endpoint,
            pairs: samples.len(),
            failed,
            repeated,
            others,
            decisions: measures.decisions,
            differing: measures.differing,
            tops_missing: measures.missing,
            rank_correlation: measures.ranks,
            quantiles: quantiles.collect(),
            local_latency,
            endpoint_latency,
            failures,
            differ_most: differ_most(&scored, &samples, top),
            dots: scored.iter().zip(samples).map(|(pair, sample)| Dot::new(pair, sample)).collect(),
        })
    }
}

impl Dot {
    fn new(pair: &Pair<'_>, sample: Sample) -> Self {
        let of_endpoint = pair.endpoint.as_ref().ok().and_then(|told| told.threshold);
        Self { id: pair.id.to_string(), sample, thresholds: (pair.local.threshold, of_endpoint) }
    }
}

impl Latency {
    fn of(times: impl Iterator<Item = Time>) -> Option<Self> {
        let mut sorted: Vec<Time> = times.collect();
        sorted.sort_unstable_by(|a, b| a.ms.total_cmp(&b.ms));
        let at = |percent: usize| {
            sorted.get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1)))
        };
        Some(Self { p50_ms: at(50)?.ms, p99_ms: at(99)?.ms, rows: at(50)?.rows })
    }
}

/// The commonest reasons for which there is no score.
fn failures(pairs: &[Pair<'_>]) -> Vec<(String, usize)> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for error in pairs.iter().filter_map(|pair| pair.endpoint.as_ref().err()) {
        *counts.entry(error).or_default() += 1;
    }
    let mut counts: Vec<(String, usize)> =
        counts.into_iter().map(|(reason, count)| (reason.to_owned(), count)).collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counts.truncate(MAX_REASONS);
    counts
}

/// The records that one finds by far more unusual than the other.
fn differ_most(pairs: &[Pair<'_>], samples: &[Sample], top: usize) -> Vec<Difference> {
    let local = at_least(samples.iter().map(|sample| sample.local));
    let endpoint = at_least(samples.iter().map(|sample| sample.endpoint));
    let times = |at: usize| (local[at] / endpoint[at]).max(endpoint[at] / local[at]);
    let mut order: Vec<usize> = (0..samples.len()).collect();
    order.sort_by(|&a, &b| times(b).total_cmp(&times(a)).then(pairs[a].id.cmp(&pairs[b].id)));
    let difference = |at: usize| {
        let pair = &pairs[at];
        let told = *pair.endpoint.as_ref().ok()?;
        let side = |decision: Decision, at_least| Side {
            score: decision.score,
            threshold: decision.threshold,
            anomaly: decision.is_anomaly(),
            at_least,
        };
        Some(Difference {
            id: pair.id.to_string(),
            local: side(pair.local, local[at]),
            endpoint: side(told, endpoint[at]),
            times: times(at),
            features: pair.features.as_deref().and_then(|text| serde_json::from_str(text).ok()),
        })
    };
    order.into_iter().take(top).filter_map(difference).collect()
}

/// For each score the share of scores that are at least as high.
fn at_least(scores: impl Iterator<Item = f32>) -> Vec<f64> {
    let scores: Vec<f32> = scores.collect();
    let mut sorted = scores.clone();
    sorted.sort_unstable_by(f32::total_cmp);
    let share = |score: &f32| {
        let below = sorted.partition_point(|other| other < score);
        as_f64(sorted.len() - below) / as_f64(sorted.len())
    };
    scores.iter().map(share).collect()
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn as_f64(count: usize) -> f64 {
    count as f64
}
