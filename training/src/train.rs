//! `sawlog train`: historical logs to a model.
//!
//! One pass over the input, on all cores. Each record is read by the specification and offered to the keyed
//! sketches, which are the same in whatever order they are filled: nine in ten to the trees' samples, one in ten to
//! the held-out sample. What the sketches keep is all that stays in memory. Transforms are learned from the sampled
//! records, trees built from them, and the threshold set by the held-out ones. With a shingle, what is sampled is a
//! record with those of its series before it.
//!
//! `--compat sagemaker` follows the endpoint instead: contiguous chunks of the rows in place of the
//! sketch while the rows are few, its leaf rule, no record held out (docs/sagemaker.md).

use std::collections::HashMap;
use std::io::Write;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, bail, ensure};
use ndarray::{Array1, Array2};
use sawlog_model::sketch::DEFAULT_SAMPLES;
use sawlog_model::spec::{Encoding, Transform};
use sawlog_model::{
    Calibration, Decay, Features, Forest, LeafRule, Model, Params, RecordKey, Sampling, Shingle,
    ThresholdRule, TrainingSieve, TrainingSketch, ValidParams, ValidSpec, Value,
};

use crate::describe;
use crate::dry_run;
use crate::input::{self, HalfLife, PeriodArgs, Source, Taker, Way};
use crate::output::{Output, refuse_overlap};
use crate::progress::Progress;
use crate::sketch;
use crate::tally::Tally;
use crate::threshold::{self, Threshold};

/// The deviations above the mean that SageMaker's documentation takes as its threshold.
const SAGEMAKER_DEVIATIONS: f64 = 3.0;

/// What a model says it was made by.
const TOOL: &str = concat!("sawlog ", env!("CARGO_PKG_VERSION"));

/// Rejected records beyond this share fail the run unless the user says otherwise.
pub(crate) const MAX_REJECT_SHARE: f64 = 0.05;

/// Trains a model on historical logs.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sawlog train --spec spec.toml --input logs/ 'archive/*.gz' --output model.sawlog
  zcat old.gz | sawlog train --spec spec.toml --input - --output model.sawlog
  sawlog train --spec spec.toml --input taxi.csv --output taxi.sawlog --shingle 48
  sawlog train --spec spec.toml --input s3://logs/requests/ --since 2026-11-01 --output model.sawlog
  sawlog train --spec spec.toml --input logs/ --time-field /time --half-life 7d --output model.sawlog
  sawlog train --spec spec.toml --input logs/ --dry-run")]
pub(crate) struct Args {
    /// The feature specification (TOML): the format of a record and the fields that are features
    #[arg(long, required_unless_present = "from_sketch", value_name = "SPEC.toml")]
    spec: Option<PathBuf>,
    /// Files, folders, globs, s3://BUCKET/PREFIX, or - for standard input; plain, gzip, zstd or bzip2, or Parquet
    #[arg(long, required_unless_present = "from_sketch", num_args = 1.., value_name = "PATH")]
    input: Vec<String>,
    /// Build from a sketch, as `sawlog sketch` and `sawlog merge` write it, in place of logs: the model
    /// is, to the byte, that of training on all of its inputs at once
    #[arg(
        long,
        value_name = "SKETCH",
        conflicts_with_all =
            ["spec", "input", "base", "compat", "trees", "samples", "seed", "shingle", "shingle_key", "half_life"]
    )]
    from_sketch: Option<PathBuf>,
    /// Go on from a sketch of other inputs: the same as training on those and these together
    #[arg(long, value_name = "SKETCH", conflicts_with = "compat")]
    base: Option<PathBuf>,
    /// Where to write the model
    #[arg(long, required_unless_present = "dry_run", value_name = "MODEL")]
    output: Option<PathBuf>,
    /// Only read a few records and show each feature as the specification makes it, with a histogram:
    /// the first 10,000 of up to 20 inputs. Writes nothing
    #[arg(long, conflicts_with_all = ["from_sketch", "base"])]
    dry_run: bool,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// How to set the threshold from held-out scores: quantile:Q, Nsd, value:X, or rate:N/h (or /s, /min,
    /// /d) for so many false alarms [default: quantile:0.999; with --compat sagemaker 3sd, from the scores
    /// of the training records]
    #[arg(long)]
    threshold: Option<Threshold>,
    /// How many records an hour has where the model will be used, for --threshold rate:N/h
    #[arg(long, value_name = "COUNT", value_parser = threshold::records_per_hour)]
    records_per_hour: Option<f64>,
    /// Sample, score and calibrate by the rules of another implementation, to reproduce its scores.
    /// sagemaker: the records of each tree are a contiguous chunk of the input in its order while
    /// there are no more records than trees x samples (the remainder is dropped), a sample of all
    /// beyond; the endpoint's leaf rule; no record is held out. Give numbers `transform = "none"`
    #[arg(long, value_enum, conflicts_with = "half_life")]
    compat: Option<Compat>,
    /// Fail if more than this share of the records is rejected
    #[arg(long, default_value_t = MAX_REJECT_SHARE, value_parser = share, value_name = "SHARE")]
    max_reject_share: f64,
}

/// How records are sampled, and what a point is made of.
#[derive(Debug, clap::Args)]
pub(crate) struct SamplingArgs {
    /// Number of trees
    #[arg(long, default_value_t = Params::default().trees)]
    trees: u32,
    /// Records sampled for each tree [default: 256, or a sixteenth of the records (at least 32)
    /// where they are fewer than 4,096; always 256 with --compat sagemaker]
    #[arg(long)]
    samples: Option<u32>,
    /// Seed of sampling and cuts: the same input, parameters and seed give the same bytes
    #[arg(long, default_value_t = Params::default().seed)]
    pub seed: u64,
    /// Make a point of the last N records of a series, in the order of the file: what a value
    /// follows then tells whether it is unusual. 1: of one record. In place of the specification's
    #[arg(long, value_name = "N")]
    shingle: Option<u32>,
    /// The field whose values tell the series of a file apart, such as the host [default: the
    /// specification's; without one a file is one series]
    #[arg(long, value_name = "FIELD")]
    shingle_key: Option<String>,
    /// Weigh records by their age: one this much older than another counts half as much, as 7d, 12h or 30min; a
    /// minute at least. Their times are read from --time-field. Fewer records then set the threshold
    #[arg(long, value_name = "DURATION", requires = "time_field")]
    pub half_life: Option<HalfLife>,
    /// Threads that read; how many makes no difference to the result [default: one a core]
    #[arg(long, value_name = "N")]
    threads: Option<NonZero<usize>>,
    #[command(flatten)]
    pub period: PeriodArgs,
}

/// Whose rules to follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Compat {
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
        let Params { trees, seed, .. } = Params::default();
        Self {
            spec: Some(spec.into()),
            input: vec![input.to_owned()],
            from_sketch: None,
            base: None,
            output: Some(output.into()),
            dry_run: false,
            sampling: SamplingArgs::new(trees, None, seed),
            threshold: Some(Threshold::Rule(threshold)),
            records_per_hour: None,
            compat: None,
            max_reject_share: MAX_REJECT_SHARE,
        }
    }

    fn threshold(&self) -> anyhow::Result<ThresholdRule> {
        match (self.threshold, self.compat) {
            (Some(threshold), _) => threshold.rule(self.records_per_hour),
            (None, Some(Compat::Sagemaker)) => Ok(ThresholdRule::Deviations(SAGEMAKER_DEVIATIONS)),
            (None, None) => Ok(ThresholdRule::default()),
        }
    }
}

impl SamplingArgs {
    /// For a specification that has its shingle.
    pub(crate) fn new(trees: u32, samples: Option<u32>, seed: u64) -> Self {
        Self {
            trees,
            samples,
            seed,
            shingle: None,
            shingle_key: None,
            half_life: None,
            threads: None,
            period: PeriodArgs::default(),
        }
    }

    /// How much a record of some age weighs.
    ///
    /// # Errors
    /// A half-life without the field that has the times.
    pub(crate) fn decay(&self) -> anyhow::Result<Option<Decay>> {
        self.period.decay(self.half_life)
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
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    train_to_file(args, &mut std::io::stdout().lock())
}

/// Trains, writes the model and says what was done.
pub(crate) fn train_to_file(args: &Args, out: &mut impl Write) -> anyhow::Result<()> {
    if args.dry_run {
        let spec = args.spec.as_deref().context("--spec is missing")?;
        let sources = input::resolve(&args.input)?;
        let Input { way, sources } = Input::open(spec, sources, &args.sampling, &[], None)?;
        return dry_run::run(out, &way, &sources);
    }
    let output = args.output.as_deref().context("--output is missing")?;
    let threshold = args.threshold()?;
    let gathered = match (&args.from_sketch, &args.spec) {
        (Some(path), _) => {
            refuse_overlap(&[Some(output)], &[path])?;
            Gathered::of_sketch(sketch::load(path)?)
        }
        (None, Some(spec)) => {
            let also = args.base.as_deref();
            let sources = input::resolve(&args.input)?;
            let input = Input::open(spec, sources, &args.sampling, &[output], also)?;
            let mut gathered = input.gather(&args.sampling, args.compat)?;
            gathered.tally.check(args.max_reject_share)?;
            if let Some(base) = also {
                gathered.merge(base)?;
            }
            gathered
        }
        (None, None) => bail!("--spec is missing"),
    };
    gathered.tally.check(args.max_reject_share)?;
    let (model, tally) = gathered.build(threshold)?;
    let mut file = Output::create(Some(output))?;
    file.write_all(&model.encode())?;
    file.finish()?;
    describe::tally(out, &tally)?;
    describe::model(out, &model)?;
    if args.compat == Some(Compat::Sagemaker) {
        warn_of_transforms(out, model.features().spec())?;
    }
    writeln!(out, "\nwrote      {}", output.display())?;
    Ok(())
}

/// Trains a model on sources by a specification, as the command does by default.
pub(crate) fn train_on(
    sources: &[Source],
    spec: ValidSpec,
    sampling: &SamplingArgs,
    threshold: ThresholdRule,
) -> anyhow::Result<Model> {
    let gathered = Input { way: sampling.period.way(spec)?, sources: sources.to_vec() }
        .gather(sampling, None)?;
    gathered.tally.check(MAX_REJECT_SHARE)?;
    Ok(gathered.build(threshold)?.0)
}

/// Builds a model of what was read elsewhere.
pub(crate) fn build(sketch: TrainingSketch, threshold: ThresholdRule) -> anyhow::Result<Model> {
    Ok(Gathered::of_sketch(sketch).build(threshold)?.0)
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

/// What is to be read, and how.
pub(crate) struct Input {
    way: Way,
    sources: Vec<Source>,
}

impl Input {
    /// Reads the specification and keeps the sources of the period. None of `outputs` may be among what is
    /// read; `also` is read too.
    pub(crate) fn open(
        spec: &Path,
        mut sources: Vec<Source>,
        sampling: &SamplingArgs,
        outputs: &[&Path],
        also: Option<&Path>,
    ) -> anyhow::Result<Self> {
        let named = || format!("specification {}", spec.display());
        let text = std::fs::read_to_string(spec).with_context(named)?;
        // What is wrong with it says itself that it is a specification's.
        let valid = ValidSpec::from_toml(&text).with_context(|| spec.display().to_string())?;
        let valid = sampling.shingled(valid)?;
        let way = sampling.period.way(valid).context("--time-field")?;
        input::choose(&mut sources, &sampling.period)?;
        let mut read: Vec<&Path> = sources.iter().map(|source| Path::new(&source.name)).collect();
        read.push(spec);
        read.extend(also);
        let outputs: Vec<Option<&Path>> = outputs.iter().map(|path| Some(*path)).collect();
        refuse_overlap(&outputs, &read)?;
        Ok(Self { way, sources })
    }

    /// Reads all of it and keeps nothing but counts.
    pub(crate) fn discard(self, sampling: &SamplingArgs) -> anyhow::Result<Tally> {
        let tallies = (0..threads(sampling.threads)).map(|_| Tally::default()).collect();
        let (_, tallies) = input::read_all(&self.sources, self.way, &|_| {}, tallies)?;
        let mut all = Tally::default();
        tallies.into_iter().for_each(|tally| all.add(tally));
        Ok(all)
    }

    /// What is to be read.
    pub(crate) fn sources(&self) -> &[Source] {
        &self.sources
    }

    /// Reads all of it, once.
    pub(crate) fn gather(
        self,
        sampling: &SamplingArgs,
        compat: Option<Compat>,
    ) -> anyhow::Result<Gathered> {
        let Self { mut way, sources } = self;
        let mut gathered = Gathered::new(ValidSpec::clone(&way.spec), sampling, compat)?;
        let total = sources.iter().map(|source| source.size).sum();
        let progress = Progress::over_bytes("reading", total);
        let moved = |bytes| progress.add(bytes);
        if compat.is_some() {
            // Chunks are of the records in their order.
            for source in &sources {
                let read = input::read_by(source, &way, &moved, |record| gathered.take(record))?;
                if way.spec.needs_header() {
                    way = read;
                }
            }
        } else {
            way = gathered.take_all(&sources, way, &moved, threads(sampling.threads))?;
        }
        gathered.inputs.extend(sources.into_iter().map(|source| source.name));
        progress.finish();
        gathered.finish(Arc::unwrap_or_clone(way.spec));
        Ok(gathered)
    }
}

impl Taker for Tally {
    fn take(&mut self, record: input::Record<'_>) {
        self.count(&record);
    }

    fn pause(&mut self) {}
}

/// As many threads as the user asks for, or one a core.
fn threads(asked: Option<NonZero<usize>>) -> usize {
    asked.or_else(|| std::thread::available_parallelism().ok()).map_or(1, NonZero::get)
}

/// The logarithm of a weight of 1: SageMaker has no other.
const NO_WEIGHT: f64 = 0.0;
/// Values that one thread keeps for the sketch at most before it adds them to it.
const MAX_PASSED: usize = 1 << 16;

/// One of the threads that fill a sketch. It looks through what it reads by itself, and waits for the others
/// only with what the sketch may want: soon that is one record in hundreds.
struct Filler<'a> {
    sketch: &'a Mutex<&'a mut TrainingSketch>,
    sieve: TrainingSieve,
    /// What has passed, with its time.
    passed: Vec<(RecordKey, i64, Vec<Value>)>,
    tally: Tally,
}

impl Taker for Filler<'_> {
    fn take(&mut self, record: input::Record<'_>) {
        let Some(point) = self.tally.count(&record) else { return };
        if self.sieve.passes(record.key, record.time_ms) {
            self.passed.push((record.key, record.time_ms, point.to_vec()));
            if self.passed.len() * point.len() >= MAX_PASSED {
                self.pause();
            }
        }
    }

    fn pause(&mut self) {
        let mut sketch = self.sketch.lock().unwrap_or_else(PoisonError::into_inner);
        sketch.take_sieved(&mut self.sieve, self.passed.drain(..));
    }
}

/// One record: its identity and the values of its point.
type Row = (RecordKey, Vec<Value>);

/// What one pass over the input leaves in memory.
pub(crate) struct Gathered {
    pub sketch: TrainingSketch,
    pub tally: Tally,
    compat: Option<Compat>,
    /// Names of the inputs in the order in which they were read.
    inputs: Vec<String>,
    /// With `--compat sagemaker` all records in the order of the input, until they are more than trees
    /// x samples. Beyond that SageMaker's documentation describes reservoir sampling; the sketch, which
    /// then takes over, is a uniform sample without replacement too.
    in_order: Option<Vec<Row>>,
    trees: usize,
    capacity: usize,
}

impl Gathered {
    fn new(
        spec: ValidSpec,
        sampling: &SamplingArgs,
        compat: Option<Compat>,
    ) -> anyhow::Result<Self> {
        let SamplingArgs { trees, samples, seed, .. } = *sampling;
        // As the endpoint has it, however few the records are.
        let samples = samples.or(compat.map(|Compat::Sagemaker| DEFAULT_SAMPLES));
        let capacity = trees as usize * samples.unwrap_or(DEFAULT_SAMPLES) as usize;
        Ok(Self {
            sketch: TrainingSketch::new(spec, seed, trees, samples)?.with_decay(sampling.decay()?),
            tally: Tally::default(),
            compat,
            inputs: Vec::new(),
            in_order: compat.map(|Compat::Sagemaker| Vec::new()),
            trees: trees as usize,
            capacity,
        })
    }

    /// Takes all records of the sources, on so many threads. Returns the way, with the columns that the
    /// first header gave.
    fn take_all(
        &mut self,
        sources: &[Source],
        way: Way,
        moved: input::Moved<'_>,
        threads: usize,
    ) -> Result<Way, input::InputError> {
        let sieve = self.sketch.sieve();
        let sketch = Mutex::new(&mut self.sketch);
        let filler = || Filler {
            sketch: &sketch,
            sieve: sieve.clone(),
            passed: Vec::new(),
            tally: Tally::default(),
        };
        let fillers = (0..threads).map(|_| filler()).collect();
        let (way, fillers) = input::read_all(sources, way, moved, fillers)?;
        for filler in fillers {
            self.tally.add(filler.tally);
        }
        Ok(way)
    }

    /// What was read elsewhere.
    fn of_sketch(sketch: TrainingSketch) -> Self {
        let mut tally = Tally::default();
        (tally.read, tally.rejected, tally.no_history) =
            (sketch.read, sketch.rejected, sketch.no_history);
        let trees = sketch.sampled.trees();
        let (inputs, in_order) = (Vec::new(), None);
        Self { sketch, tally, compat: None, inputs, in_order, trees, capacity: 0 }
    }

    /// Takes the next record in the order of the input, as `--compat sagemaker` wants it.
    fn take(&mut self, record: input::Record<'_>) {
        let Some(point) = self.tally.count(&record) else { return };
        self.sketch.sampled_from += 1;
        self.sketch.held_out.offer(record.key, NO_WEIGHT, || point.to_vec());
        self.take_in_order(record.key, point);
    }

    fn take_in_order(&mut self, key: RecordKey, point: &[Value]) {
        match &mut self.in_order {
            None => self.sketch.sampled.offer(key, NO_WEIGHT, || point.to_vec()),
            Some(rows) if rows.len() < self.capacity => rows.push((key, point.to_vec())),
            Some(_) => {
                let rows = self.in_order.take().unwrap_or_default();
                for (key, values) in rows.into_iter().chain([(key, point.to_vec())]) {
                    self.sketch.sampled.offer(key, NO_WEIGHT, || values);
                }
            }
        }
    }

    /// Completes the sketch when all is read.
    fn finish(&mut self, spec: ValidSpec) {
        let Self { sketch, tally, inputs, .. } = self;
        sketch.spec = spec;
        sketch.inputs.extend(inputs.iter().cloned());
        (sketch.read, sketch.rejected, sketch.no_history) =
            (tally.read, tally.rejected, tally.no_history);
    }

    /// Joins a sketch of other inputs.
    pub(crate) fn merge(&mut self, base: &Path) -> anyhow::Result<()> {
        let named = || format!("sketch {} and what is read now", base.display());
        self.sketch.merge(sketch::load(base)?).with_context(named)?;
        self.tally.read = self.sketch.read;
        self.tally.rejected = self.sketch.rejected;
        self.tally.no_history = self.sketch.no_history;
        Ok(())
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
            None => self.sketch.sampled.records(),
        }
    }

    /// The keys of each tree's records.
    fn keys(&self) -> Vec<Vec<RecordKey>> {
        match self.chunks() {
            Some((rows, len)) => rows
                .chunks_exact(len)
                .map(|rows| rows.iter().map(|(key, _)| *key).collect())
                .collect(),
            None => self.sketch.sampled.keys(),
        }
    }

    /// Fixes what the number of records decides: samples a tree, and how they were taken.
    fn settle(&mut self) -> anyhow::Result<ValidParams> {
        let chunk = self.chunks().map(|(_, len)| len);
        if self.compat.is_none() {
            return Ok(self.sketch.settle()?);
        }
        let trees = self.trees;
        let (samples, sampling) = match chunk {
            None => (self.capacity / trees, Sampling::Keyed),
            Some(len) => {
                ensure!(
                    len >= 2,
                    "{} records in {trees} chunks, one a tree, are fewer than 2 each: with --compat \
                     sagemaker give at least {} records, or fewer --trees; no model is written",
                    self.sketch.sampled_from,
                    2 * trees,
                );
                (len, Sampling::Contiguous)
            }
        };
        let samples = u32::try_from(samples)?;
        let keyed = *self.sketch.settle()?.get();
        Ok(ValidParams::new(Params { samples, sampling, leaf_rule: LeafRule::Sagemaker, ..keyed })?)
    }

    /// Learns the features, builds the forest and calibrates.
    fn build(mut self, rule: ThresholdRule) -> anyhow::Result<(Model, Tally)> {
        ensure!(
            self.sketch.sampled_from > 1,
            "{} record kept, too few to build a tree; no model is written",
            self.tally.kept()
        );
        let params = self.settle()?;
        let records = self.records();
        let rows: Vec<&[Value]> = records.iter().map(|(_, values)| values.as_slice()).collect();
        let features =
            Features::fit(self.sketch.spec.clone(), &rows).context("no model is written")?;
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
        let keys = self.keys();
        let forest = Forest::build(dimensions, &params, |tree| {
            progress.add(1);
            keys[tree]
                .iter()
                .filter_map(|key| points.get(key).map(Vec::as_slice))
                .collect::<Vec<_>>()
                .into_iter()
        })?;
        progress.finish();
        let calibration = self.calibrate(&features, &forest, rule)?;
        let mut provenance = self.sketch.provenance(TOOL);
        // Keyed samples don't depend on the order of the inputs; chunks do.
        if self.compat.is_some() {
            provenance.inputs = self.inputs;
        }
        Ok((Model::new(params, features, forest, calibration, provenance), self.tally))
    }

    fn calibrate(
        &self,
        features: &Features,
        forest: &Forest,
        rule: ThresholdRule,
    ) -> anyhow::Result<Option<Calibration>> {
        let records = self.sketch.calibration_records();
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
