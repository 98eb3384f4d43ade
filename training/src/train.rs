//! `sawlog train`: historical logs to a model.
//!
//! One pass over the input. Each record is read by the specification and offered to the keyed
//! sketches: nine in ten to the trees' samples, one in ten to the held-out sample. What the sketches
//! keep is all that stays in memory. Transforms are learned from the sampled records, trees built
//! from them, and the threshold set by the held-out ones. With a shingle, what is sampled is a record
//! with those of its series before it.
//!
//! `--compat sagemaker` follows the endpoint instead: contiguous chunks of the rows in place of the
//! sketch while the rows are few, its leaf rule, no record held out (docs/sagemaker.md).

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use ndarray::{Array1, Array2};
use sawlog_model::spec::{Encoding, Transform};
use sawlog_model::{
    Calibration, Features, Forest, LeafRule, Model, Params, Provenance, RecordKey, Sampling,
    Shingle, Sketch, ThresholdRule, ValidParams, ValidSpec, Value,
};

use crate::describe;
use crate::input::{self, Source};
use crate::output::{Output, refuse_overlap};
use crate::progress::Progress;
use crate::tally::Tally;

/// One record in so many is held out to calibrate the threshold.
const HELD_OUT_ONE_IN: u64 = 10;
/// Most records scored to calibrate the threshold: at a quantile of 0.999 twenty of them lie above the threshold.
const MAX_HELD_OUT: usize = 20_000;
/// Samples a tree unless the user says otherwise, as in SageMaker.
const DEFAULT_SAMPLES: u32 = 256;
/// Where records are few, a tree takes at most this part of them: an anomaly that is in most of the
/// trees' own samples hides in them (see docs/accuracy.md).
const SAMPLED_PART: u64 = 16;
/// ... but not fewer than this.
const MIN_SAMPLES: u32 = 32;

/// The deviations above the mean that SageMaker's documentation takes as its threshold.
const SAGEMAKER_DEVIATIONS: f64 = 3.0;

/// Rejected records beyond this share fail the run unless the user says otherwise.
pub(crate) const MAX_REJECT_SHARE: f64 = 0.05;

/// Trains a model on historical logs.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sawlog train --spec spec.toml --input logs/ 'archive/*.gz' --output model.sawlog
  zcat old.gz | sawlog train --spec spec.toml --input - --output model.sawlog
  sawlog train --spec spec.toml --input taxi.csv --output taxi.sawlog --shingle 48")]
pub(crate) struct Args {
    /// The feature specification (TOML): the format of a record and the fields that are features
    #[arg(long, value_name = "SPEC.toml")]
    spec: PathBuf,
    /// Files, folders, globs, or - for standard input; plain, gzip or zstd
    #[arg(long, required = true, num_args = 1.., value_name = "PATH")]
    input: Vec<String>,
    /// Where to write the model
    #[arg(long, value_name = "MODEL")]
    output: PathBuf,
    /// Number of trees
    #[arg(long, default_value_t = Params::default().trees)]
    trees: u32,
    /// Records sampled for each tree [default: 256, or a sixteenth of the records (at least 32)
    /// where they are fewer than 4,096; always 256 with --compat sagemaker]
    #[arg(long)]
    samples: Option<u32>,
    /// Seed of sampling and cuts: the same input, parameters and seed give the same bytes
    #[arg(long, default_value_t = Params::default().seed)]
    seed: u64,
    /// How to set the threshold from held-out scores: quantile:Q, Nsd or value:X [default:
    /// quantile:0.999; with --compat sagemaker 3sd, from the scores of the training records]
    #[arg(long)]
    threshold: Option<ThresholdRule>,
    /// Sample, score and calibrate by the rules of another implementation, to reproduce its scores.
    /// sagemaker: the records of each tree are a contiguous chunk of the input in its order while
    /// there are no more records than trees x samples (the remainder is dropped), a sample of all
    /// beyond; the endpoint's leaf rule; no record is held out. Give numbers `transform = "none"`
    #[arg(long, value_enum)]
    compat: Option<Compat>,
    /// Make a point of the last N records of a series, in the order of the file: what a value
    /// follows then tells whether it is unusual. 1: of one record. In place of the specification's
    #[arg(long, value_name = "N")]
    shingle: Option<u32>,
    /// The field whose values tell the series of a file apart, such as the host [default: the
    /// specification's; without one a file is one series]
    #[arg(long, value_name = "FIELD")]
    shingle_key: Option<String>,
    /// Fail if more than this share of the records is rejected
    #[arg(long, default_value_t = MAX_REJECT_SHARE, value_parser = share, value_name = "SHARE")]
    max_reject_share: f64,
}

/// Whose rules to follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Compat {
    /// The built-in Random Cut Forest of Amazon SageMaker.
    Sagemaker,
}

/// Reads a share, 0 to 1.
pub(crate) fn share(text: &str) -> Result<f64, String> {
    let share = text.parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "a number from 0 to 1".to_owned())
}

impl Args {
    /// The defaults for one input.
    pub(crate) fn new(spec: &str, input: &str, output: &str, threshold: ThresholdRule) -> Self {
        let (trees, seed) = (Params::default().trees, Params::default().seed);
        Self {
            spec: spec.into(),
            input: vec![input.to_owned()],
            output: output.into(),
            trees,
            samples: None,
            seed,
            threshold: Some(threshold),
            compat: None,
            shingle: None,
            shingle_key: None,
            max_reject_share: MAX_REJECT_SHARE,
        }
    }

    /// The specification with the shingle that the user asks for.
    fn shingled(&self, spec: ValidSpec) -> anyhow::Result<ValidSpec> {
        if self.shingle.is_none() && self.shingle_key.is_none() {
            return Ok(spec);
        }
        let given = spec.shingle();
        let size = self.shingle.or(given.map(|shingle| shingle.size));
        let size =
            size.context("--shingle-key goes with --shingle or a specification's shingle")?;
        let key = self.shingle_key.clone();
        let key = key.or_else(|| given.and_then(|shingle| shingle.key.clone()));
        let shingle = Some(Shingle { size, key });
        spec.with_shingle(shingle).context("as --shingle or --shingle-key has it")
    }

    fn threshold(&self) -> ThresholdRule {
        self.threshold.unwrap_or_else(|| match self.compat {
            Some(Compat::Sagemaker) => ThresholdRule::Deviations(SAGEMAKER_DEVIATIONS),
            None => ThresholdRule::default(),
        })
    }

    /// What the user asks for, before the number of records is known.
    fn params(&self) -> Params {
        let asked = Params {
            trees: self.trees,
            samples: self.samples.unwrap_or(DEFAULT_SAMPLES),
            seed: self.seed,
            ..Params::default()
        };
        match self.compat {
            Some(Compat::Sagemaker) => {
                Params { leaf_rule: LeafRule::Sagemaker, sampling: Sampling::Contiguous, ..asked }
            }
            None => asked,
        }
    }
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    train_to_file(args, &mut std::io::stdout().lock())
}

/// Trains, writes the model and says what was done.
pub(crate) fn train_to_file(args: &Args, out: &mut impl Write) -> anyhow::Result<()> {
    let named = || format!("specification {}", args.spec.display());
    let text = std::fs::read_to_string(&args.spec).with_context(named)?;
    // What is wrong with it says itself that it is a specification's.
    let spec = ValidSpec::from_toml(&text).with_context(|| args.spec.display().to_string())?;
    let spec = args.shingled(spec)?;
    let sources = input::resolve(&args.input)?;
    let mut read: Vec<&Path> = sources.iter().map(|source| Path::new(&source.name)).collect();
    read.push(&args.spec);
    refuse_overlap(&[Some(&args.output)], &read)?;
    let (model, tally) = train(&spec, args, sources)?;
    let mut output = Output::create(Some(&args.output))?;
    output.write_all(&model.encode())?;
    output.finish()?;
    describe::tally(out, &tally)?;
    describe::model(out, &model)?;
    if args.compat == Some(Compat::Sagemaker) {
        warn_of_transforms(out, &spec)?;
    }
    writeln!(out, "\nwrote      {}", args.output.display())?;
    Ok(())
}

/// The endpoint scores numbers as they are.
fn warn_of_transforms(out: &mut impl Write, spec: &ValidSpec) -> std::io::Result<()> {
    for feature in spec.features() {
        if feature.encoding != Encoding::Number(Transform::None) {
            writeln!(
                out,
                "warning: SageMaker's scores are of raw numbers; they compare only if `{}` has \
                 transform = \"none\"",
                feature.name
            )?;
        }
    }
    Ok(())
}

/// Reads the input, samples, learns the features, builds the forest and calibrates.
fn train(spec: &ValidSpec, args: &Args, sources: Vec<Source>) -> anyhow::Result<(Model, Tally)> {
    let asked = args.params();
    ValidParams::new(asked)?;
    let mut gathered = Gathered::new(&asked, args.compat);
    let progress = Progress::over_bytes("reading", sources.iter().map(|source| source.size).sum());
    let mut spec = spec.clone();
    for source in &sources {
        let read = input::read_source(source, &spec, &|bytes| progress.add(bytes), |record| {
            gathered.take(record);
        })?;
        if spec.needs_header() {
            spec = read;
        }
    }
    progress.finish();
    gathered.check(args.max_reject_share)?;
    let params = gathered.settle(asked, args.samples)?;
    let mut inputs: Vec<String> = sources.into_iter().map(|source| source.name).collect();
    // Keyed samples don't depend on the order of the inputs; nor does what is said of them.
    if args.compat.is_none() {
        inputs.sort_unstable();
    }
    gathered.build(spec, params, args.threshold(), inputs)
}

/// The default number of samples a tree for a number of records.
fn fitting_samples(records: u64) -> u32 {
    let part = u32::try_from(records / SAMPLED_PART).unwrap_or(u32::MAX);
    part.clamp(MIN_SAMPLES, DEFAULT_SAMPLES)
}

/// One record: its identity and the values of its point.
type Row = (RecordKey, Vec<Value>);

/// The records that trees are built from: at most trees x samples of them.
struct Sample {
    /// With [`Sampling::Contiguous`] all records in the order of the input, until they are more than
    /// trees x samples. Beyond that SageMaker's documentation describes reservoir sampling; the
    /// sketch, which then takes over, is a uniform sample without replacement too.
    in_order: Option<Vec<Row>>,
    sketch: Sketch<Vec<Value>>,
    trees: usize,
    capacity: usize,
}

impl Sample {
    fn new(params: &Params) -> Self {
        let (trees, samples) = (params.trees as usize, params.samples as usize);
        Self {
            in_order: (params.sampling == Sampling::Contiguous).then(Vec::new),
            sketch: Sketch::new(params.seed, trees, samples),
            trees,
            capacity: trees * samples,
        }
    }

    fn take(&mut self, key: RecordKey, point: &[Value]) {
        match &mut self.in_order {
            None => self.sketch.offer(key, || point.to_vec()),
            Some(rows) if rows.len() < self.capacity => rows.push((key, point.to_vec())),
            Some(_) => {
                let rows = self.in_order.take().unwrap_or_default();
                for (key, values) in rows.into_iter().chain([(key, point.to_vec())]) {
                    self.sketch.offer(key, || values);
                }
            }
        }
    }

    /// The rows of all chunks and the length of one: what is left over belongs to none.
    fn chunks(&self) -> Option<(&[Row], usize)> {
        let rows = self.in_order.as_ref()?;
        let len = rows.len() / self.trees;
        Some((&rows[..len * self.trees], len))
    }

    /// All records of any tree, once each.
    fn records(&self) -> Vec<(RecordKey, &Vec<Value>)> {
        match self.chunks() {
            Some((rows, _)) => rows.iter().map(|(key, values)| (*key, values)).collect(),
            None => self.sketch.records(),
        }
    }

    fn keys(&self, tree: usize) -> Vec<RecordKey> {
        match self.chunks() {
            Some((rows, len)) => {
                rows[tree * len..(tree + 1) * len].iter().map(|(key, _)| *key).collect()
            }
            None => self.sketch.keys(tree),
        }
    }
}

/// What one pass over the input leaves in memory.
struct Gathered {
    seed: u64,
    compat: Option<Compat>,
    sample: Sample,
    /// The records whose scores set the threshold.
    calibration: Sketch<Vec<Value>>,
    sampled_from: u64,
    tally: Tally,
}

impl Gathered {
    fn new(params: &Params, compat: Option<Compat>) -> Self {
        Self {
            seed: params.seed,
            compat,
            sample: Sample::new(params),
            calibration: Sketch::new(params.seed, 1, MAX_HELD_OUT),
            sampled_from: 0,
            tally: Tally::default(),
        }
    }

    fn take(&mut self, record: input::Record<'_>) {
        self.tally.read += 1;
        let point = match record.point {
            Ok(Some(point)) => point,
            Ok(None) => return self.tally.no_history += 1,
            Err(error) => return self.tally.reject(record.place, error),
        };
        let key = RecordKey::new(record.place.source, record.place.offset);
        if self.compat == Some(Compat::Sagemaker) {
            self.calibration.offer(key, || point.to_vec());
        } else if key.is_held_out(self.seed, HELD_OUT_ONE_IN) {
            return self.calibration.offer(key, || point.to_vec());
        }
        self.sampled_from += 1;
        self.sample.take(key, point);
    }

    /// Fixes what the number of records decides: samples a tree, and how they were taken.
    fn settle(&mut self, asked: Params, samples: Option<u32>) -> anyhow::Result<ValidParams> {
        let settled = match (self.compat, self.sample.chunks()) {
            (None, _) => {
                let samples = samples.unwrap_or_else(|| fitting_samples(self.sampled_from));
                self.sample.sketch.shrink(samples as usize);
                Params { samples, ..asked }
            }
            (Some(Compat::Sagemaker), None) => Params { sampling: Sampling::Keyed, ..asked },
            (Some(Compat::Sagemaker), Some((_, len))) => {
                ensure!(
                    len >= 2,
                    "{} records in {} chunks, one a tree, are fewer than 2 each: with --compat \
                     sagemaker give at least {} records, or fewer --trees; no model is written",
                    self.sampled_from,
                    asked.trees,
                    2 * asked.trees,
                );
                Params { samples: u32::try_from(len)?, ..asked }
            }
        };
        Ok(ValidParams::new(settled)?)
    }

    fn check(&self, max_reject_share: f64) -> anyhow::Result<()> {
        let tally = &self.tally;
        tally.check(max_reject_share)?;
        ensure!(
            self.sampled_from > 1,
            "{} record kept, too few to build a tree; no model is written",
            tally.kept()
        );
        Ok(())
    }

    fn build(
        self,
        spec: ValidSpec,
        params: ValidParams,
        rule: ThresholdRule,
        inputs: Vec<String>,
    ) -> anyhow::Result<(Model, Tally)> {
        let records = self.sample.records();
        let rows: Vec<&[Value]> = records.iter().map(|(_, values)| values.as_slice()).collect();
        let features = Features::fit(spec, &rows).context("no model is written")?;
        let dimensions = features.dimensions();
        let mut points: HashMap<RecordKey, Vec<f32>> = HashMap::with_capacity(records.len());
        for (key, values) in &records {
            let mut row = vec![0.0; dimensions];
            features.encode(values, &mut row)?;
            points.insert(*key, row);
        }
        let mut distinct = points.values();
        let first = distinct.next();
        ensure!(
            distinct.any(|point| Some(point) != first),
            "all sampled records give the same point; no model is written"
        );
        let progress = Progress::over_items("building", u64::from(params.get().trees));
        let forest = Forest::build(dimensions, &params, |tree| {
            progress.add(1);
            let keys = self.sample.keys(tree);
            keys.into_iter()
                .filter_map(|key| points.get(&key).map(Vec::as_slice))
                .collect::<Vec<_>>()
                .into_iter()
        })?;
        progress.finish();
        let calibration = self.calibrate(&features, &forest, rule)?;
        let provenance = Provenance {
            tool: concat!("sawlog ", env!("CARGO_PKG_VERSION")).to_owned(),
            inputs,
            read: self.tally.read,
            rejected: self.tally.rejected,
            sampled_from: self.sampled_from,
            held_out: self.tally.kept() - self.sampled_from,
        };
        Ok((Model::new(params, features, forest, calibration, provenance), self.tally))
    }

    fn calibrate(
        &self,
        features: &Features,
        forest: &Forest,
        rule: ThresholdRule,
    ) -> anyhow::Result<Option<Calibration>> {
        let records = self.calibration.records();
        let mut points = Array2::zeros((records.len(), features.dimensions()));
        for ((_, values), mut row) in records.iter().zip(points.rows_mut()) {
            if let Some(row) = row.as_slice_mut() {
                features.encode(values, row)?;
            }
        }
        let mut scores = Array1::zeros(records.len());
        forest.score_batch(points.view(), scores.view_mut())?;
        Ok(scores.as_slice().and_then(|scores| Calibration::new(rule, scores)))
    }
}
