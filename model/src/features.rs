//! Values to points: what training learns of each feature, and the one piece of code that applies
//! it in training and in serving.
//!
//! [`Features::fit`] looks at a sample of records and fixes for each feature its transform and the
//! numbers it needs; [`Features::encode`] applies them. Statistics are taken from sorted values of
//! the sample, so the order of the records can't change a bit of them.

use bincode::{Decode, Encode};
use serde::Serialize;

use crate::record::{FieldFault, Reading, RecordError, Value};
use crate::score::as_f64;
use crate::spec::{Encoding, FeatureSpec, MissingRule, Transform, ValidSpec};
use crate::tree::{MAX_COORDINATE, MAX_DIMENSIONS};

/// Most categories one feature keeps, the commonest; the others share a bucket.
pub const MAX_CATEGORIES: usize = 64;

/// A number's way to a coordinate: x -> (g(x) - center) / scale, with g the identity or a
/// logarithm.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Encode, Decode)]
pub struct Scaling {
    /// g(x) = sign(x) ln(1 + |x| / unit) if above 0, x if 0.
    pub log_unit: f64,
    /// Subtracted from g(x).
    pub center: f64,
    /// Divides what is left; above 0.
    pub scale: f64,
}

impl Scaling {
    pub(crate) const NONE: Self = Self { log_unit: 0.0, center: 0.0, scale: 1.0 };

    fn curve(&self, x: f64) -> f64 {
        if self.log_unit > 0.0 { libm::log1p(x.abs() / self.log_unit).copysign(x) } else { x }
    }

    /// The coordinate of a finite number: finite, and at most [`MAX_COORDINATE`] in magnitude.
    pub fn apply(&self, x: f64) -> f32 {
        coordinate((self.curve(x) - self.center) / self.scale)
    }
}

/// To f32 within the forest's limits; -0 becomes +0.
#[expect(clippy::cast_possible_truncation, reason = "coordinates are f32; the cast saturates")]
fn coordinate(x: f64) -> f32 {
    (x as f32).clamp(-MAX_COORDINATE, MAX_COORDINATE) + 0.0
}

/// What training learned of one feature.
#[derive(Debug, Clone, PartialEq, Serialize, Encode, Decode)]
#[serde(rename_all = "snake_case")]
pub enum Fitted {
    /// Always the same in the training sample: it has no scale, so it is left out of the points.
    Constant,
    /// A number: one coordinate.
    Number {
        /// Its way to a coordinate.
        scaling: Scaling,
        /// Least value in the training sample, before the transform.
        min: f64,
        /// 1st percentile.
        p01: f64,
        /// Median.
        median: f64,
        /// 99th percentile.
        p99: f64,
        /// Greatest value.
        max: f64,
    },
    /// One coordinate for each category, then one for any other: 1 where it applies, else 0.
    OneHot {
        /// In descending order of frequency.
        categories: Vec<String>,
    },
    /// One coordinate: -ln(share) of the category.
    Frequency {
        /// Category and its coordinate, in descending order of frequency.
        categories: Vec<(String, f64)>,
        /// The coordinate of any other.
        other: f64,
    },
}

impl Fitted {
    /// Coordinates it takes.
    pub fn dimensions(&self) -> usize {
        match self {
            Self::Constant => 0,
            Self::Number { .. } | Self::Frequency { .. } => 1,
            Self::OneHot { categories } => categories.len() + 1,
        }
    }

    /// What the snapshot's reader checks: everything that encoding relies on.
    fn is_sound(&self, encoding: Encoding) -> bool {
        match (self, encoding) {
            (Self::Constant, _) => true,
            (Self::Number { scaling, min, p01, median, p99, max }, Encoding::Number(_)) => {
                let Scaling { log_unit, center, scale } = *scaling;
                let quantiles = [*min, *p01, *median, *p99, *max];
                [log_unit, center, scale].iter().chain(&quantiles).all(|x| x.is_finite())
                    && log_unit >= 0.0
                    && scale > 0.0
                    && quantiles.is_sorted()
            }
            (Self::OneHot { categories }, Encoding::OneHot) => categories.len() <= MAX_CATEGORIES,
            (Self::Frequency { categories, other }, Encoding::Frequency) => {
                categories.len() <= MAX_CATEGORIES
                    && categories.iter().all(|(_, x)| x.is_finite())
                    && other.is_finite()
            }
            _ => false,
        }
    }
}

/// Why features can't be fitted or read from a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FeatureError {
    /// Nothing to learn from.
    #[error("there is no record to learn the features from")]
    NoRecord,
    /// Every feature is constant.
    #[error("every feature is constant in the training sample: {names}")]
    AllConstant {
        /// Their names.
        names: String,
    },
    /// More coordinates than a point may have.
    #[error(
        "the features have {got} dimensions, a shingle's times; at most {MAX_DIMENSIONS} are allowed"
    )]
    TooMany {
        /// How many.
        got: usize,
    },
    /// The learned part doesn't go with the specification.
    #[error("feature `{name}`: what was learned does not go with its specification")]
    Mismatch {
        /// Its name.
        name: String,
    },
}

/// The specification and what training learned for it: bytes in, points out.
#[derive(Debug, Clone, PartialEq)]
pub struct Features {
    spec: ValidSpec,
    fitted: Vec<Fitted>,
    dimensions: usize,
}

impl Features {
    /// Joins a specification with what was learned for it.
    ///
    /// # Errors
    /// [`FeatureError`] if the two don't go together, or have no or too many dimensions.
    pub fn new(spec: ValidSpec, fitted: Vec<Fitted>) -> Result<Self, FeatureError> {
        let mut parts = fitted.iter();
        for feature in spec.features() {
            if !parts.next().is_some_and(|fitted| fitted.is_sound(feature.encoding)) {
                return Err(FeatureError::Mismatch { name: feature.name.clone() });
            }
        }
        if parts.next().is_some() {
            return Err(FeatureError::Mismatch { name: "after the last".to_owned() });
        }
        let of_record: usize = fitted.iter().map(Fitted::dimensions).sum();
        let dimensions = of_record * spec.shingle_size();
        if dimensions == 0 {
            let names: Vec<&str> = spec.features().iter().map(|f| f.name.as_str()).collect();
            return Err(FeatureError::AllConstant { names: names.join(", ") });
        }
        if dimensions > MAX_DIMENSIONS {
            return Err(FeatureError::TooMany { got: dimensions });
        }
        Ok(Self { spec, fitted, dimensions })
    }

    /// Learns transforms and categories from a sample of points, one slice of values each, as
    /// [`crate::Shingler::take`] gives them: those of one record as a rule. A feature is learned once,
    /// from its values in all records of the points, and the same for all of them.
    ///
    /// # Errors
    /// [`FeatureError`] for no record, or nothing but constants.
    pub fn fit(spec: ValidSpec, sample: &[&[Value]]) -> Result<Self, FeatureError> {
        if sample.is_empty() {
            return Err(FeatureError::NoRecord);
        }
        let count = spec.features().len();
        let fitted = spec
            .features()
            .iter()
            .enumerate()
            .map(|(index, feature)| {
                let of_feature = |values| in_records(values, index, count);
                fit_feature(feature, sample.iter().copied().flat_map(of_feature))
            })
            .collect();
        Self::new(spec, fitted)
    }

    /// The specification.
    pub fn spec(&self) -> &ValidSpec {
        &self.spec
    }

    /// What was learned, one entry a feature.
    pub fn fitted(&self) -> &[Fitted] {
        &self.fitted
    }

    /// Coordinates of a point, at least 1.
    pub fn dimensions(&self) -> usize {
        self.dimensions
    }

    /// Names of the features, in the order of a record's values.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.spec.features().iter().map(|feature| feature.name.as_str())
    }

    /// The same features for a CSV with other columns: see [`ValidSpec::with_header`].
    ///
    /// # Errors
    /// As there.
    pub fn with_header(&self, header: &str) -> Result<Self, crate::SpecError> {
        Ok(Self { spec: self.spec.with_header(header)?, ..self.clone() })
    }

    /// Reads one record's bytes: one [`Value`] a feature.
    ///
    /// # Errors
    /// [`RecordError`] with the field and the reason; the record is poison then, not the batch.
    pub fn read(&self, payload: &[u8]) -> Result<Vec<Value>, RecordError> {
        read_record(&self.spec, payload)
    }

    /// The same with the series that the record belongs to.
    pub fn read_in_series(&self, payload: &[u8]) -> Reading {
        read_in_series(&self.spec, payload)
    }

    /// Turns the values of a point's records into the point. There are [`Features::names`] values a
    /// record and as many records as the shingle has, one without; `row` has
    /// [`Features::dimensions`] entries, and every one is finite afterwards.
    ///
    /// # Errors
    /// [`RecordError::Field`] for a missing value under `missing = "reject"`.
    pub fn encode(&self, values: &[Value], row: &mut [f32]) -> Result<(), RecordError> {
        let of_record = row.chunks_exact_mut(self.dimensions / self.spec.shingle_size());
        for (values, row) in values.chunks_exact(self.fitted.len()).zip(of_record) {
            self.encode_record(values, row)?;
        }
        Ok(())
    }

    fn encode_record(&self, values: &[Value], row: &mut [f32]) -> Result<(), RecordError> {
        let mut rest = row;
        for ((feature, fitted), value) in self.spec.features().iter().zip(&self.fitted).zip(values)
        {
            if *value == Value::Missing && feature.missing == MissingRule::Reject {
                let (field, fault) = (feature.field.clone(), FieldFault::Missing);
                return Err(RecordError::Field { field, fault });
            }
            let (mine, others) = rest.split_at_mut(fitted.dimensions());
            encode_value(fitted, feature.missing, value, mine);
            rest = others;
        }
        Ok(())
    }

    /// The index of the feature that each coordinate belongs to.
    pub fn feature_of_dimension(&self) -> impl Iterator<Item = usize> {
        let repeated =
            |(index, fitted): (usize, &Fitted)| std::iter::repeat_n(index, fitted.dimensions());
        let of_record = self.fitted.iter().enumerate().flat_map(repeated);
        of_record.cycle().take(self.dimensions)
    }
}

/// The values of one feature in each record of a point.
fn in_records(values: &[Value], feature: usize, features: usize) -> impl Iterator<Item = &Value> {
    values.iter().skip(feature).step_by(features)
}

/// Reads one record's bytes by a specification: one [`Value`] a feature.
///
/// # Errors
/// [`RecordError`] with the field and the reason.
pub fn read_record(spec: &ValidSpec, payload: &[u8]) -> Result<Vec<Value>, RecordError> {
    read_in_series(spec, payload).values
}

/// The same with the series that the record belongs to.
pub fn read_in_series(spec: &ValidSpec, payload: &[u8]) -> Reading {
    let Reading { series, values } = spec.extractor().read(spec.spec(), payload);
    let values = values.and_then(|values| {
        for (feature, value) in spec.features().iter().zip(&values) {
            if *value == Value::Missing && feature.missing == MissingRule::Reject {
                let (field, fault) = (feature.field.clone(), FieldFault::Missing);
                return Err(RecordError::Field { field, fault });
            }
        }
        Ok(values)
    });
    Reading { series, values }
}

fn encode_value(fitted: &Fitted, missing: MissingRule, value: &Value, row: &mut [f32]) {
    match fitted {
        Fitted::Constant => {}
        Fitted::Number { scaling, median, .. } => {
            row[0] = scaling.apply(match (value, missing) {
                (Value::Number(number), _) => *number,
                (_, MissingRule::Zero) => 0.0,
                _ => *median,
            });
        }
        Fitted::OneHot { categories } => {
            let at = position(value, categories.iter().map(String::as_str));
            row.fill(0.0);
            row[at.unwrap_or(categories.len())] = 1.0;
        }
        Fitted::Frequency { categories, other } => {
            let at = position(value, categories.iter().map(|(name, _)| name.as_str()));
            row[0] = coordinate(at.map_or(*other, |at| categories[at].1));
        }
    }
}

fn position<'a>(value: &Value, mut categories: impl Iterator<Item = &'a str>) -> Option<usize> {
    match value {
        Value::Category(name) => categories.position(|known| known == name.as_ref()),
        _ => None,
    }
}

fn fit_feature<'a>(feature: &FeatureSpec, values: impl Iterator<Item = &'a Value>) -> Fitted {
    match feature.encoding {
        Encoding::Number(transform) => fit_number(transform, feature.missing, values),
        Encoding::OneHot => {
            let counts = count_categories(values);
            if counts.len() < 2 {
                return Fitted::Constant;
            }
            let kept = counts.into_iter().take(MAX_CATEGORIES);
            Fitted::OneHot { categories: kept.filter_map(|(name, _)| name).collect() }
        }
        Encoding::Frequency => {
            let counts = count_categories(values);
            if counts.len() < 2 {
                return Fitted::Constant;
            }
            let total = as_f64(counts.iter().map(|(_, count)| count).sum());
            let surprise = |count: usize| -libm::log(as_f64(count) / total);
            let (kept, rest) = counts.split_at(counts.len().min(MAX_CATEGORIES));
            let named = kept
                .iter()
                .filter_map(|(name, count)| Some((name.clone()?, surprise(*count))))
                .collect();
            // A category never seen is as rare as one seen once.
            let unnamed = rest.iter().chain(kept.iter().filter(|(name, _)| name.is_none()));
            let other = unnamed.map(|(_, count)| *count).sum::<usize>().max(1);
            Fitted::Frequency { categories: named, other: surprise(other) }
        }
    }
}

/// Categories (`None`: missing) with their counts, the commonest first, then by name.
fn count_categories<'a>(values: impl Iterator<Item = &'a Value>) -> Vec<(Option<String>, usize)> {
    let mut counts = std::collections::BTreeMap::new();
    for value in values {
        let name = match value {
            Value::Category(name) => Some(name.as_ref()),
            _ => None,
        };
        *counts.entry(name).or_insert(0_usize) += 1;
    }
    let mut counts: Vec<_> =
        counts.into_iter().map(|(name, count)| (name.map(str::to_owned), count)).collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counts
}

fn fit_number<'a>(
    transform: Transform,
    missing: MissingRule,
    values: impl Iterator<Item = &'a Value>,
) -> Fitted {
    let mut missed = false;
    let mut sorted: Vec<f64> = Vec::new();
    for value in values {
        match value {
            Value::Number(number) => sorted.push(*number),
            _ => missed = true,
        }
    }
    sorted.sort_unstable_by(f64::total_cmp);
    let (Some(&min), Some(&max)) = (sorted.first(), sorted.last()) else {
        return Fitted::Constant;
    };
    let zeros = missed && missing == MissingRule::Zero;
    if min == max && (!zeros || min == 0.0) {
        return Fitted::Constant;
    }
    let [p01, median, p99] = [0.01, 0.5, 0.99].map(|share| quantile(&sorted, share));
    let scaling = match transform {
        Transform::None => Scaling::NONE,
        Transform::Standard => standard(&sorted),
        Transform::Robust => robust(&sorted, 0.0),
        Transform::Log1p => robust(&sorted, 1.0),
        Transform::Auto => auto(&sorted),
    };
    Fitted::Number { scaling, min, p01, median, p99, max }
}

/// The value at a share of sorted values, the lower of two.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of the length"
)]
pub(crate) fn quantile(sorted: &[f64], share: f64) -> f64 {
    sorted[(share * as_f64(sorted.len() - 1)) as usize]
}

/// A scale that can divide: the first of the candidates above zero and finite, else 1.
fn scale(candidates: impl IntoIterator<Item = f64>) -> f64 {
    candidates.into_iter().find(|x| x.is_normal() && *x > 0.0).unwrap_or(1.0)
}

fn mean_and_deviation(values: &[f64]) -> (f64, f64) {
    let n = as_f64(values.len());
    // Divided before they are summed: the sum of huge values stays finite.
    let mean = values.iter().map(|x| x / n).sum::<f64>();
    let variance = values.iter().map(|x| (x - mean) * ((x - mean) / n)).sum::<f64>();
    (mean, variance.sqrt())
}

fn standard(sorted: &[f64]) -> Scaling {
    let (mean, deviation) = mean_and_deviation(sorted);
    Scaling { log_unit: 0.0, center: mean, scale: scale([deviation]) }
}

/// Quantile pairs and their distance in a normal distribution, in standard deviations, narrowest
/// first: where more than half of the values are equal, the next pair gives the spread.
const SPREADS: [(f64, f64, f64); 3] =
    [(0.25, 0.75, 1.348_98), (0.05, 0.95, 3.289_71), (0.01, 0.99, 4.652_70)];

/// Distance between quantiles in units in which a normal distribution's deviation is 1.
fn spread(sorted: &[f64]) -> f64 {
    let spreads = SPREADS.map(|(low, high, deviations)| {
        (quantile(sorted, high) - quantile(sorted, low)) / deviations
    });
    scale(spreads.into_iter().chain([mean_and_deviation(sorted).1]))
}

fn curved(sorted: &[f64], log_unit: f64) -> Vec<f64> {
    let bare = Scaling { log_unit, ..Scaling::NONE };
    sorted.iter().map(|&x| bare.curve(x)).collect()
}

fn robust(sorted: &[f64], log_unit: f64) -> Scaling {
    let curved = curved(sorted, log_unit);
    Scaling { log_unit, center: quantile(&curved, 0.5), scale: spread(&curved) }
}

/// A distribution is heavy-tailed if its 1st or 99th percentile lies further than this from the
/// median, in spreads; 2.3 is a normal distribution's.
const HEAVY_TAIL: f64 = 5.0;

/// Picks the transform. A heavy tail goes through a logarithm, linear up to about the median, so
/// that it can't drown the other features. The scale is the geometric mean of the spread and the
/// standard deviation: a tail weighs more by the spread alone, less by the deviation alone, and
/// neither is better on all sets. `docs/accuracy.md` has the figures.
fn auto(sorted: &[f64]) -> Scaling {
    let (median, width) = (quantile(sorted, 0.5), spread(sorted));
    let tail = (quantile(sorted, 0.99) - median).max(median - quantile(sorted, 0.01));
    let log_unit = if tail > HEAVY_TAIL * width { median.abs().max(width) } else { 0.0 };
    let curved = curved(sorted, log_unit);
    let (width, (_, deviation)) = (spread(&curved), mean_and_deviation(&curved));
    let scale = scale([(width * deviation).sqrt(), width]);
    Scaling { log_unit, center: quantile(&curved, 0.5), scale }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fit(transform: &str, values: &[f64]) -> Result<Features, FeatureError> {
        let toml = format!(
            "format = \"json\"\n[[feature]]\nname = \"x\"\nfield = \"/x\"\ntransform = \"{transform}\""
        );
        let spec = ValidSpec::from_toml(&toml).expect("good specification");
        let rows: Vec<[Value; 1]> = values.iter().map(|&x| [Value::Number(x)]).collect();
        Features::fit(spec, &rows.iter().map(|row| row.as_slice()).collect::<Vec<_>>())
    }

    fn scaling(transform: &str, values: &[f64]) -> Scaling {
        match &fit(transform, values).expect("not constant").fitted()[0] {
            Fitted::Number { scaling, .. } => *scaling,
            other => panic!("a number, got {other:?}"),
        }
    }

    #[test]
    fn transforms_are_what_they_say() {
        let values: Vec<f64> = (0..=100).map(f64::from).collect();
        assert_eq!(scaling("none", &values), Scaling { log_unit: 0.0, center: 0.0, scale: 1.0 });
        assert_eq!(scaling("none", &values).apply(7.0), 7.0);
        let standard = scaling("standard", &values);
        assert!((standard.center - 50.0).abs() < 1e-9 && (standard.scale - 29.154_76).abs() < 1e-4);
        let robust = scaling("robust", &values);
        assert_eq!((robust.center, robust.scale), (50.0, 50.0 / 1.348_98));
        let log = scaling("log1p", &values);
        assert_eq!(log.log_unit, 1.0);
        assert_eq!(log.apply(50.0), 0.0, "the median");
        assert_eq!(log.apply(-50.0), 2.0 * log.apply(0.0), "odd around zero");
    }

    #[test]
    fn auto_takes_the_logarithm_of_a_heavy_tail_only() {
        let uniform: Vec<f64> = (0..1000).map(f64::from).collect();
        assert_eq!(scaling("auto", &uniform).log_unit, 0.0);
        let tailed: Vec<f64> = (0..1000).map(|i| (f64::from(i) / 100.0).exp()).collect();
        assert!(scaling("auto", &tailed).log_unit > 0.0);
        let shifted: Vec<f64> = uniform.iter().map(|x| 3.0 * x - 1e6).collect();
        let (a, b) = (scaling("auto", &uniform), scaling("auto", &shifted));
        assert_eq!(
            a.apply(900.0),
            b.apply(3.0 * 900.0 - 1e6),
            "shift and scale make no difference"
        );
    }

    #[test]
    fn no_number_makes_an_infinite_or_nan_coordinate() {
        let wild = [f64::MIN, -1e300, -1.0, -0.0, 0.0, 5e-324, 1e-300, 1.0, 1e300, f64::MAX];
        for transform in ["auto", "none", "log1p", "standard", "robust"] {
            for training in [&wild[..], &wild[3..7], &wild[..2], &[0.0, f64::MAX]] {
                let scaling = scaling(transform, training);
                for x in wild {
                    let got = scaling.apply(x);
                    assert!(
                        got.abs() <= MAX_COORDINATE,
                        "{transform} of {x} is {got} by {scaling:?}"
                    );
                    assert!(got.to_bits() != (-0.0_f32).to_bits(), "-0 becomes +0");
                }
            }
        }
    }

    #[test]
    fn constants_are_left_out_and_nothing_else_is_an_error() {
        assert_eq!(fit("auto", &[3.0; 5]), Err(FeatureError::AllConstant { names: "x".into() }));
        assert_eq!(fit("auto", &[]), Err(FeatureError::NoRecord));
    }

    fn two_features(second: &str) -> ValidSpec {
        let toml = format!(
            "format = \"json\"\n[[feature]]\nname = \"n\"\nfield = \"/n\"\ntransform = \"none\"\n\
             [[feature]]\nname = \"c\"\nfield = \"/c\"\n{second}"
        );
        ValidSpec::from_toml(&toml).expect("good specification")
    }

    fn fit_json(spec: &ValidSpec, records: &[&str]) -> Features {
        let rows: Vec<Vec<Value>> =
            records.iter().map(|text| read_record(spec, text.as_bytes()).expect("good")).collect();
        Features::fit(spec.clone(), &rows.iter().map(Vec::as_slice).collect::<Vec<_>>())
            .expect("fits")
    }

    fn point(features: &Features, record: &str) -> Vec<f32> {
        let mut row = vec![f32::NAN; features.dimensions()];
        let values = features.read(record.as_bytes()).expect("good record");
        features.encode(&values, &mut row).expect("nothing is required");
        row
    }

    const METHODS: [&str; 4] =
        [r#"{"n":1,"c":"GET"}"#, r#"{"n":2,"c":"GET"}"#, r#"{"n":3,"c":"PUT"}"#, r#"{"n":9}"#];

    #[test]
    fn one_hot_has_a_place_for_what_it_never_saw() {
        let features = fit_json(&two_features("encode = \"one_hot\""), &METHODS);
        assert_eq!(features.dimensions(), 4);
        assert_eq!(point(&features, r#"{"n":5,"c":"GET"}"#), [5.0, 1.0, 0.0, 0.0]);
        assert_eq!(point(&features, r#"{"n":5,"c":"PUT"}"#), [5.0, 0.0, 1.0, 0.0]);
        assert_eq!(point(&features, r#"{"c":"NEW"}"#), [2.0, 0.0, 0.0, 1.0], "and the median of n");
        assert_eq!(features.feature_of_dimension().collect::<Vec<_>>(), [0, 1, 1, 1]);
    }

    #[test]
    fn a_rare_category_lies_far_out() {
        let features = fit_json(&two_features("encode = \"frequency\""), &METHODS);
        let at = |record| point(&features, record)[1];
        assert_eq!(at(r#"{"c":"GET"}"#), 2.0_f32.ln());
        assert_eq!(at(r#"{"c":"PUT"}"#), 4.0_f32.ln());
        assert_eq!(at(r#"{"c":"NEW"}"#), 4.0_f32.ln(), "as rare as one seen once");
    }

    #[test]
    fn missing_values_follow_their_rule() {
        let zero = fit_json(
            &two_features("missing = \"zero\"\ntransform = \"none\""),
            &[r#"{"n":1,"c":5}"#, r#"{"n":2,"c":7}"#],
        );
        assert_eq!(point(&zero, r#"{"n":1}"#), [1.0, 0.0]);
        let reject = two_features("missing = \"reject\"");
        let said = read_record(&reject, br#"{"n":1,"c":null}"#).expect_err("c is required");
        assert_eq!(said.to_string(), "field `/c` is missing");
    }
}
