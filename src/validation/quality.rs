//! Data quality: are the records still of the kind that the model was trained on?
//!
//! Of each feature, over the last few thousand sampled records:
//!
//! - **missing**: the share of records without it;
//! - **outside**: the share whose number lies outside the range of the training sample, or whose
//!   category is not one that the model knows;
//! - **shift**: the population stability index, sum over bins of (p - q) ln(p / q), with p the share of
//!   the sampled records in the bin and q that of the training points. The bins are the deciles of the
//!   training points; for a one-hot category, its categories. By custom 0.1 is worth a look and 0.25 is
//!   a shift.
//!
//! The baseline is what the frozen forest holds: its leaves' points, with how many records each stands
//! for. So a model that is in use needs nothing more for it. Both sides are compared as coordinates,
//! encoded alike, with a missing value where training put it; of a point of several records, the newest.
//!
//! The index is never 0 for two samples of one kind: with n and m records and B bins it is distributed
//! like (1/n + 1/m) times a chi-squared variable of B - 1 degrees of freedom. A feature counts as
//! *shifted* only if the index is above 0.25 **and** chance would bring it about in fewer than one of a
//! thousand windows, over all features of the model together.

use std::collections::VecDeque;

use sawlog_model::{Features, Fitted, Model, Value};
use statrs::function::gamma::gamma_ur;

use super::proportion::as_f64;
use super::window::Recent;

/// An index above it is a shift, by custom.
pub const SHIFT: f64 = 0.25;
/// The chance that any feature of a model counts as shifted when none is.
pub const ERROR_RATE: f64 = 0.001;
/// Bins of a number: deciles.
const BINS: usize = 10;
/// Coordinates that a baseline is made of: sorting a million takes a tenth of a second, once a model.
const MAX_BASELINE_VALUES: usize = 1 << 20;
/// Records of a window, in pieces that leave it together, so that it is a few counts a feature however
/// many records it has.
const PIECE_RECORDS: usize = 256;
/// Pieces of a window.
const MAX_PIECES: usize = 8;

/// What is known of a model's features from training.
#[derive(Debug)]
struct Baseline {
    features: Vec<OfFeature>,
    /// Records that it is known from, at most.
    records: usize,
}

#[derive(Debug)]
struct OfFeature {
    name: String,
    bins: Bins,
    /// Of the training points, how many are in each bin.
    counts: Vec<f64>,
}

/// Where a feature's coordinates stand in a point, and how they fall into bins.
#[derive(Debug)]
enum Bins {
    /// It has no coordinate: it was the same throughout training.
    None,
    /// The bin of a coordinate is how many of the ascending edges lie below it.
    Edges { at: usize, edges: Vec<f32> },
    /// One bin a coordinate; the one that is 1.
    OneHot { at: usize, count: usize },
}

impl Bins {
    fn count(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Edges { edges, .. } => edges.len() + 1,
            Self::OneHot { count, .. } => *count,
        }
    }

    fn of(&self, point: &[f32]) -> Option<usize> {
        match self {
            Self::None => None,
            Self::Edges { at, edges } => {
                let x = *point.get(*at)?;
                Some(edges.partition_point(|edge| *edge < x))
            }
            Self::OneHot { at, count } => {
                point.get(*at..at + count)?.iter().position(|x| *x == 1.0)
            }
        }
    }
}

/// The last sampled records, counted by what is to be known of each feature.
#[derive(Debug)]
pub struct Quality {
    baseline: Baseline,
    pieces: VecDeque<Piece>,
    seen: Recent,
}

/// Records counted together.
#[derive(Debug)]
struct Piece {
    records: usize,
    /// Of each feature.
    counts: Vec<Counts>,
}

#[derive(Debug, Clone)]
struct Counts {
    missing: usize,
    outside: usize,
    bins: Vec<usize>,
}

/// What is known of one feature.
#[derive(Debug, Clone, PartialEq)]
pub struct FeatureQuality {
    /// Its name.
    pub name: String,
    /// The share of the records without it.
    pub missing: f64,
    /// The share of the records whose value was not in training's range, or is a category that was not
    /// in training.
    pub outside: f64,
    /// The population stability index; `None` for a feature that has no coordinate, because it was the
    /// same throughout training.
    pub shift: Option<f64>,
    /// True if the index is more than [`SHIFT`] and more than chance.
    pub is_shifted: bool,
}

impl Quality {
    /// Takes the baseline from a model.
    pub fn new(model: &Model) -> Self {
        Self { baseline: Baseline::of(model), pieces: VecDeque::new(), seen: Recent::default() }
    }

    /// Adds a record: a hash of its identity, its values and the point that it makes. One that is
    /// in the window already counts once.
    pub fn add(&mut self, hash: u64, features: &Features, values: &[Value], point: &[f32]) {
        if !self.seen.insert(hash) {
            return;
        }
        if self.pieces.back().is_none_or(|piece| piece.records == PIECE_RECORDS) {
            if self.pieces.len() == MAX_PIECES {
                self.pieces.pop_front();
            }
            self.pieces.push_back(self.baseline.piece());
        }
        let Some(piece) = self.pieces.back_mut() else { return };
        piece.records += 1;
        let parts = self.baseline.features.iter().zip(features.fitted()).zip(values);
        for (counts, ((of_feature, fitted), value)) in piece.counts.iter_mut().zip(parts) {
            counts.missing += usize::from(*value == Value::Missing);
            counts.outside += usize::from(is_outside(fitted, value));
            if let Some(bin) = of_feature.bins.of(point).and_then(|bin| counts.bins.get_mut(bin)) {
                *bin += 1;
            }
        }
    }

    /// Records in the window.
    pub fn records(&self) -> usize {
        self.pieces.iter().map(|piece| piece.records).sum()
    }

    /// What is known of each feature, in the order of the specification; nothing without a record.
    pub fn features(&self) -> Vec<FeatureQuality> {
        let records = self.records();
        if records == 0 {
            return Vec::new();
        }
        let error = ERROR_RATE / as_f64(self.baseline.features.len());
        let of_feature = |(index, trained): (usize, &OfFeature)| {
            let counts = || self.pieces.iter().filter_map(|piece| piece.counts.get(index));
            let share =
                |count: fn(&Counts) -> usize| as_f64(counts().map(count).sum()) / as_f64(records);
            let mut live = vec![0.0; trained.bins.count()];
            for counts in counts() {
                live.iter_mut().zip(&counts.bins).for_each(|(sum, bin)| *sum += as_f64(*bin));
            }
            let shift = (live.len() > 1).then(|| stability_index(&live, &trained.counts));
            let noise = 1.0 / as_f64(records) + 1.0 / as_f64(self.baseline.records);
            let is_shifted = shift.is_some_and(|shift| {
                let chance = gamma_ur(0.5 * as_f64(live.len() - 1), 0.5 * shift / noise);
                shift > SHIFT && chance < error
            });
            FeatureQuality {
                name: trained.name.clone(),
                missing: share(|counts| counts.missing),
                outside: share(|counts| counts.outside),
                shift,
                is_shifted,
            }
        };
        self.baseline.features.iter().enumerate().map(of_feature).collect()
    }
}

/// The population stability index of counts. Half a record is added to every bin, so that an empty one
/// has a logarithm.
fn stability_index(live: &[f64], trained: &[f64]) -> f64 {
    let shares = |counts: &[f64]| {
        let sum: f64 = counts.iter().map(|count| count + 0.5).sum();
        counts.iter().map(|count| (count + 0.5) / sum).collect::<Vec<f64>>()
    };
    let (p, q) = (shares(live), shares(trained));
    p.iter().zip(&q).map(|(p, q)| (p - q) * (p / q).ln()).sum()
}

fn is_outside(fitted: &Fitted, value: &Value) -> bool {
    match (fitted, value) {
        (Fitted::Number { min, max, .. }, Value::Number(x)) => !(*min..=*max).contains(x),
        (Fitted::OneHot { categories }, Value::Category(name)) => {
            !categories.iter().any(|known| known == name.as_ref())
        }
        (Fitted::Frequency { categories, .. }, Value::Category(name)) => {
            !categories.iter().any(|(known, _)| known == name.as_ref())
        }
        _ => false,
    }
}

impl Baseline {
    fn of(model: &Model) -> Self {
        let dimensions = model.forest().dimensions();
        let points: Vec<(&[f32], u32)> =
            model.forest().sampled_points(MAX_BASELINE_VALUES / dimensions).collect();
        let mass: usize = points.iter().map(|(_, mass)| *mass as usize).sum();
        // With many trees for few records, the same records are in most of them.
        let sampled_from = usize::try_from(model.provenance().sampled_from).unwrap_or(usize::MAX);
        let records = if sampled_from == 0 { mass } else { mass.min(sampled_from) };
        // Of a point of several records, the newest stands last.
        let newest = dimensions - dimensions / model.features().spec().shingle_size();
        let mut at = newest;
        let named = model.features().names().zip(model.features().fitted());
        let features = named.map(|(name, fitted)| {
            let bins = match fitted {
                Fitted::Constant => Bins::None,
                Fitted::OneHot { .. } => Bins::OneHot { at, count: fitted.dimensions() },
                Fitted::Number { .. } | Fitted::Frequency { .. } => {
                    Bins::Edges { at, edges: deciles(&points, at) }
                }
            };
            at += fitted.dimensions();
            let mut counts = vec![0.0; bins.count()];
            for (point, mass) in &points {
                if let Some(count) = bins.of(point).and_then(|bin| counts.get_mut(bin)) {
                    *count += f64::from(*mass);
                }
            }
            OfFeature { name: name.to_owned(), bins, counts }
        });
        Self { features: features.collect(), records: records.max(1) }
    }

    fn piece(&self) -> Piece {
        let counts = |of_feature: &OfFeature| Counts {
            missing: 0,
            outside: 0,
            bins: vec![0; of_feature.bins.count()],
        };
        Piece { records: 0, counts: self.features.iter().map(counts).collect() }
    }
}

/// The distinct coordinates below or at which lie a tenth of the mass, two tenths, and so on; but for
/// the greatest coordinate of all, behind which there is nothing.
fn deciles(points: &[(&[f32], u32)], at: usize) -> Vec<f32> {
    let mut sorted: Vec<(f32, u32)> =
        points.iter().filter_map(|(point, mass)| Some((*point.get(at)?, *mass))).collect();
    sorted.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    let total: f64 = sorted.iter().map(|(_, mass)| f64::from(*mass)).sum();
    let Some((greatest, _)) = sorted.last().copied() else { return Vec::new() };
    let mut edges: Vec<f32> = Vec::new();
    let mut below = 0.0;
    let mut next = 1;
    for (x, mass) in sorted {
        below += f64::from(mass);
        while next < BINS && below >= total * as_f64(next) / as_f64(BINS) {
            next += 1;
            if x < greatest && edges.last().is_none_or(|last| *last < x) {
                edges.push(x);
            }
        }
    }
    edges
}

#[cfg(test)]
mod tests {
    use sawlog_model::{Forest, Params, Provenance, ValidParams, ValidSpec};

    use super::*;
    use crate::validation::tests::Random;

    const SPEC: &str = r#"
        format = "json"
        [[feature]]
        name = "ms"
        field = "/ms"
        transform = "auto"
        [[feature]]
        name = "path"
        field = "/path"
        encode = "one_hot"
        [[feature]]
        name = "host"
        field = "/host"
        encode = "frequency"
        [[feature]]
        name = "same"
        field = "/same"
    "#;

    /// What records are made of: the number's mean, the share of missing ones, the paths.
    #[derive(Clone, Copy)]
    struct Kind {
        mean: f32,
        missing: f32,
        paths: &'static [&'static str],
    }

    const USUAL: Kind = Kind { mean: 5.0, missing: 0.1, paths: &["/a", "/a", "/b", "/c"] };

    fn record(random: &mut Random, kind: Kind) -> Vec<Value> {
        let ms = f64::from(random.normal() + kind.mean);
        let path = kind.paths[(random.uniform() * kind.paths.len() as f32) as usize];
        let host = if random.uniform() < 0.2 { "rare" } else { "often" };
        vec![
            if random.uniform() < kind.missing { Value::Missing } else { Value::Number(ms) },
            Value::Category(path.into()),
            Value::Category(host.into()),
            Value::Number(1.0),
        ]
    }

    fn model(random: &mut Random, records: usize) -> Model {
        let spec = ValidSpec::from_toml(SPEC).expect("spec");
        let values: Vec<Vec<Value>> = (0..records).map(|_| record(random, USUAL)).collect();
        let sample: Vec<&[Value]> = values.iter().map(Vec::as_slice).collect();
        let features = Features::fit(spec, &sample).expect("features");
        let rows: Vec<Vec<f32>> = values.iter().map(|values| point(&features, values)).collect();
        let params = Params { trees: 10, samples: 200, ..Params::default() };
        let params = ValidParams::new(params).expect("params");
        let of_tree = |tree: usize| rows.iter().skip(tree).step_by(10).map(Vec::as_slice);
        let forest = Forest::build(features.dimensions(), &params, of_tree).expect("forest");
        let provenance = Provenance { sampled_from: records as u64, ..Provenance::default() };
        Model::new(params, features, forest, None, provenance)
    }

    fn point(features: &Features, values: &[Value]) -> Vec<f32> {
        let mut row = vec![0.0; features.dimensions()];
        features.encode(values, &mut row).expect("a point");
        row
    }

    fn watch(model: &Model, random: &mut Random, kind: Kind, records: u64) -> Quality {
        let mut quality = Quality::new(model);
        for hash in 0..records {
            let values = record(random, kind);
            quality.add(hash, model.features(), &values, &point(model.features(), &values));
        }
        quality
    }

    #[test]
    fn the_baseline_is_what_the_forest_holds_in_tenths() {
        let mut random = Random::new(5);
        let model = model(&mut random, 2000);
        let Quality { baseline, .. } = Quality::new(&model);
        assert_eq!(baseline.records, 2000);
        let of_number = &baseline.features[0];
        assert_eq!(of_number.counts.iter().sum::<f64>(), 2000.0);
        // One in ten is missing and stands at the median: two tenths fall together there.
        for (bin, count) in of_number.counts.iter().enumerate() {
            assert!((60.0..=420.0).contains(count), "bin {bin}: {count} of 2000");
        }
        let of_path = &baseline.features[1].counts;
        assert!((of_path[0] / 2000.0 - 0.5).abs() < 0.05 && of_path[3] == 0.0, "{of_path:?}");
        assert_eq!(baseline.features[2].bins.count(), 2);
        assert_eq!(baseline.features[3].bins.count(), 0);
    }

    #[test]
    fn records_of_the_same_kind_are_not_shifted_in_a_thousand_windows() {
        let mut random = Random::new(6);
        let model = model(&mut random, 2000);
        let mut sum = 0.0;
        for _window in 0..300 {
            let quality = watch(&model, &mut random, USUAL, 200);
            for feature in quality.features() {
                assert!(!feature.is_shifted, "{feature:?}");
                assert!(feature.outside < 0.1, "{feature:?}");
            }
            sum += quality.features()[0].shift.expect("it varies");
        }
        // The mean of chi-squared is its degrees of freedom. The baseline is one sample only.
        let bins = as_f64(Quality::new(&model).baseline.features[0].bins.count());
        let expected = (bins - 1.0) * (1.0 / 200.0 + 1.0 / 2000.0);
        let mean = sum / 300.0;
        assert!((mean / expected - 1.0).abs() < 0.3, "expected about {expected}, got {mean}");
    }

    #[test]
    fn what_changed_is_seen_in_its_own_feature() {
        let mut random = Random::new(7);
        let model = model(&mut random, 2000);
        let shifted = |kind: Kind, random: &mut Random| {
            let features = watch(&model, random, kind, 500).features();
            features.into_iter().map(|feature| feature.is_shifted).collect::<Vec<bool>>()
        };
        let higher = Kind { mean: 6.0, ..USUAL };
        assert_eq!(shifted(higher, &mut random), [true, false, false, false]);
        let renamed = Kind { paths: &["/a", "/new"], ..USUAL };
        assert_eq!(shifted(renamed, &mut random), [false, true, false, false]);
        // A value that is missing stands at the median.
        let gone = Kind { missing: 0.8, ..USUAL };
        assert_eq!(shifted(gone, &mut random), [true, false, false, false]);
    }

    #[test]
    fn shares_of_missing_and_of_what_was_never_seen() {
        let mut random = Random::new(8);
        let model = model(&mut random, 2000);
        let kind = Kind { mean: 100.0, missing: 0.25, paths: &["/a", "/new"] };
        let features = watch(&model, &mut random, kind, 1000).features();
        assert!((features[0].missing - 0.25).abs() < 0.05, "{:?}", features[0]);
        assert!((features[0].outside - 0.75).abs() < 0.05, "{:?}", features[0]);
        assert!((features[1].outside - 0.5).abs() < 0.05, "{:?}", features[1]);
        assert_eq!(features[3].shift, None);
    }

    #[test]
    fn ten_records_are_never_a_shift_and_old_ones_leave() {
        let mut random = Random::new(9);
        let model = model(&mut random, 2000);
        let kind = Kind { mean: 5.8, ..USUAL };
        for _window in 0..50 {
            let few = watch(&model, &mut random, kind, 10);
            assert!(few.features().iter().all(|feature| !feature.is_shifted));
        }
        let mut quality = watch(&model, &mut random, kind, 10_000);
        assert!(quality.records() <= MAX_PIECES * PIECE_RECORDS, "{}", quality.records());
        for hash in 20_000..24_000 {
            let values = record(&mut random, USUAL);
            quality.add(hash, model.features(), &values, &point(model.features(), &values));
        }
        assert!(quality.features().iter().all(|feature| !feature.is_shifted));
        let before = quality.records();
        let values = record(&mut random, USUAL);
        quality.add(23_999, model.features(), &values, &point(model.features(), &values));
        assert_eq!(quality.records(), before, "one that comes again counts once");
    }
}
