//! The threshold, from the scores of records that no tree was built from.
//!
//! A record's own tree leaf would make its score too low, so calibration uses records held out of
//! all samples, chosen by their keys. What is kept are order statistics and moments: enough to set
//! another threshold later without the records.

use bincode::{Decode, Encode};
use serde::Serialize;

use crate::score::as_f64;

/// The quantiles that are kept, as shares of held-out records at or below.
pub const QUANTILES: [f64; 17] =
    [0.0, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.995, 0.999, 1.0];

/// How a threshold follows from held-out scores.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Encode, Decode)]
#[serde(rename_all = "snake_case")]
pub enum ThresholdRule {
    /// The score that this share of held-out records does not exceed.
    Quantile(f64),
    /// Mean + this many standard deviations: SageMaker's documentation takes 3.
    Deviations(f64),
    /// This score.
    Value(f64),
}

impl Default for ThresholdRule {
    /// One record in a thousand. Three standard deviations would flag hundreds where scores are
    /// skewed, as they are on logs.
    fn default() -> Self {
        Self::Quantile(0.999)
    }
}

impl std::fmt::Display for ThresholdRule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Quantile(share) => write!(f, "quantile:{share}"),
            Self::Deviations(count) => write!(f, "{count}sd"),
            Self::Value(value) => write!(f, "value:{value}"),
        }
    }
}

/// A threshold that can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no threshold; write quantile:0.999 (above 0, below 1), 3sd or value:1.8")]
pub struct ThresholdRuleError(String);

impl std::str::FromStr for ThresholdRule {
    type Err = ThresholdRuleError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || ThresholdRuleError(text.to_owned());
        let number = |text: &str| text.parse::<f64>().ok().filter(|number| number.is_finite());
        let rule = if let Some(share) = text.strip_prefix("quantile:") {
            number(share).filter(|&share| share > 0.0 && share < 1.0).map(Self::Quantile)
        } else if let Some(value) = text.strip_prefix("value:") {
            number(value).filter(|&value| value >= 0.0).map(Self::Value)
        } else if let Some(count) = text.strip_suffix("sd") {
            number(count).filter(|&count| count >= 0.0).map(Self::Deviations)
        } else {
            None
        };
        rule.ok_or_else(refused)
    }
}

/// The distribution of held-out scores and the threshold that follows from it.
#[derive(Debug, Clone, PartialEq, Serialize, Encode, Decode)]
pub struct Calibration {
    /// How the threshold was chosen.
    pub rule: ThresholdRule,
    /// A score above it is anomalous.
    pub threshold: f64,
    /// Number of held-out records, at least 1.
    pub records: u64,
    /// How many of them are above the threshold.
    pub flagged: u64,
    /// Mean of their scores.
    pub mean: f64,
    /// Standard deviation of their scores.
    pub deviation: f64,
    /// Their scores at [`QUANTILES`].
    pub quantiles: Vec<f64>,
}

impl Calibration {
    /// Calibrates on held-out scores; `None` if there are none. Their order makes no difference.
    pub fn new(rule: ThresholdRule, scores: &[f32]) -> Option<Self> {
        let mut sorted: Vec<f64> = scores.iter().map(|&score| f64::from(score)).collect();
        sorted.sort_unstable_by(f64::total_cmp);
        let (&first, &last) = (sorted.first()?, sorted.last()?);
        let n = as_f64(sorted.len());
        let mean = sorted.iter().sum::<f64>() / n;
        let variance = sorted.iter().map(|score| (score - mean).powi(2)).sum::<f64>() / n;
        let deviation = variance.sqrt();
        let threshold = match rule {
            // The order statistic that a further record of the same kind exceeds with probability
            // of at most 1 - share; the largest where there are too few records to tell.
            ThresholdRule::Quantile(share) => {
                let rank = (share * (n + 1.0)).ceil();
                if rank < 1.0 { first } else { at_rank(&sorted, rank - 1.0).min(last) }
            }
            ThresholdRule::Deviations(count) => mean + count * deviation,
            ThresholdRule::Value(value) => value,
        };
        let flagged = sorted.iter().filter(|&&score| score > threshold).count() as u64;
        let quantiles = QUANTILES.iter().map(|share| at_rank(&sorted, (share * (n - 1.0)).round()));
        Some(Self {
            rule,
            threshold,
            records: sorted.len() as u64,
            flagged,
            mean,
            deviation,
            quantiles: quantiles.collect(),
        })
    }

    /// Share of the held-out records above the threshold.
    pub fn flagged_share(&self) -> f64 {
        as_f64(self.flagged as usize) / as_f64(self.records.max(1) as usize)
    }

    /// True for what a snapshot may hold: finite numbers, one a quantile, ascending.
    pub(crate) fn is_sound(&self) -> bool {
        let numbers = [self.threshold, self.mean, self.deviation];
        numbers.iter().chain(&self.quantiles).all(|number| number.is_finite())
            && self.quantiles.len() == QUANTILES.len()
            && self.quantiles.is_sorted()
            && self.flagged <= self.records
    }
}

/// Pairs of an [`EndpointCalibration`]: one a percent, and two between the last of them, where
/// thresholds are.
pub const PAIRS: usize = 103;

/// The share of records at or below the pair with this index.
fn share_of_pair(index: usize) -> f64 {
    match index {
        0..=99 => as_f64(index) / 100.0,
        100 => 0.995,
        101 => 0.999,
        _ => 1.0,
    }
}

/// What an endpoint's scores are held against, and how they compare with the model's own.
///
/// The two live on near but not equal scales: another sampling, another forest. So the endpoint has a
/// threshold of its own, by the same rule from the scores of the same records; and the quantiles of
/// both, pair by pair, bring its scores to the model's scale.
#[derive(Debug, Clone, PartialEq, Serialize, Encode, Decode)]
pub struct EndpointCalibration {
    /// The endpoint's name.
    pub endpoint: String,
    /// The distribution of its scores, and its threshold.
    pub calibration: Calibration,
    /// [`PAIRS`] pairs of quantiles, ascending: the model's score and the endpoint's.
    pub pairs: Vec<(f64, f64)>,
}

impl EndpointCalibration {
    /// Longest name of an endpoint, in bytes.
    pub const MAX_NAME_LEN: usize = 256;

    /// Calibrates on the scores that the model and the endpoint gave the same records; `None` if there
    /// are none, or not as many of both. Their order makes no difference.
    pub fn new(
        endpoint: impl Into<String>,
        rule: ThresholdRule,
        local: &[f32],
        remote: &[f32],
    ) -> Option<Self> {
        let calibration = Calibration::new(rule, remote)?;
        if local.len() != remote.len() {
            return None;
        }
        let sorted = |scores: &[f32]| {
            let mut sorted: Vec<f64> = scores.iter().map(|&score| f64::from(score)).collect();
            sorted.sort_unstable_by(f64::total_cmp);
            sorted
        };
        let (local, remote) = (sorted(local), sorted(remote));
        let pair = |index| {
            let rank = (share_of_pair(index) * (as_f64(local.len()) - 1.0)).round();
            (at_rank(&local, rank), at_rank(&remote, rank))
        };
        let pairs = (0..PAIRS).map(pair).collect();
        Some(Self { endpoint: endpoint.into(), calibration, pairs })
    }

    /// A score of the endpoint on the model's scale: the model's score of the same rank, with straight
    /// lines between the pairs, and in proportion beyond the first and the last.
    pub fn to_local(&self, score: f64) -> f64 {
        let above = self.pairs.partition_point(|&(_, remote)| remote < score);
        let in_proportion = |(local, remote): (f64, f64)| {
            if remote > 0.0 { score * (local / remote) } else { local + (score - remote) }
        };
        match (above.checked_sub(1).map(|below| self.pairs[below]), self.pairs.get(above)) {
            (Some((local_a, remote_a)), Some(&(local_b, remote_b))) => {
                // Below the score and not below it: they differ.
                let part = (score - remote_a) / (remote_b - remote_a);
                local_a + part * (local_b - local_a)
            }
            (None, Some(&first)) => in_proportion(first),
            (Some(last), None) => in_proportion(last),
            (None, None) => score,
        }
    }

    /// True for what a snapshot may hold.
    pub(crate) fn is_sound(&self) -> bool {
        let ascending = |of: fn(&(f64, f64)) -> f64| self.pairs.iter().map(of).is_sorted();
        self.endpoint.len() <= Self::MAX_NAME_LEN
            && self.calibration.is_sound()
            && self.pairs.len() == PAIRS
            && self.pairs.iter().all(|(local, remote)| local.is_finite() && remote.is_finite())
            && ascending(|pair| pair.0)
            && ascending(|pair| pair.1)
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the slice")]
fn at_rank(sorted: &[f64], rank: f64) -> f64 {
    sorted[(rank.max(0.0) as usize).min(sorted.len() - 1)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoints_scores_come_to_the_models_scale_by_rank() {
        let local: Vec<f32> = (0..1000_u16).map(|i| 0.5 + f32::from(i) / 500.0).collect();
        // Another scale, bent, and another order of the records.
        let remote: Vec<f32> = local.iter().rev().map(|score| score * score * 3.0).collect();
        let rule = ThresholdRule::Quantile(0.99);
        let map = EndpointCalibration::new("rcf", rule, &local, &remote).expect("scores");
        assert!(map.is_sound());
        assert_eq!(map.pairs.len(), PAIRS);
        for score in [0.5_f64, 0.777, 1.5, 2.25, 2.498] {
            let got = map.to_local(score * score * 3.0);
            assert!((got / score - 1.0).abs() < 1e-3, "{got} for {score}");
        }
        // Beyond what was seen, order and proportion are kept.
        let last = map.to_local(2.498 * 2.498 * 3.0);
        assert!((map.to_local(2.0 * 2.498 * 2.498 * 3.0) / last - 2.0).abs() < 0.01);
        assert!(map.to_local(0.1) < map.to_local(0.75) && map.to_local(0.1) > 0.0);
        // Both thresholds stand at the same rank.
        let own = Calibration::new(rule, &local).expect("scores");
        let mapped = map.to_local(map.calibration.threshold);
        assert!((mapped / own.threshold - 1.0).abs() < 1e-3, "{mapped} for {}", own.threshold);
    }

    #[test]
    fn equal_scores_and_too_few_of_them_make_a_map_too() {
        let rule = ThresholdRule::default();
        let one = EndpointCalibration::new("rcf", rule, &[2.0], &[4.0]).expect("a score");
        assert_eq!([3.0, 4.0, 8.0].map(|score| one.to_local(score)), [1.5, 2.0, 4.0]);
        let zero = EndpointCalibration::new("rcf", rule, &[1.0, 2.0], &[0.0, 0.0]).expect("scores");
        assert!(zero.is_sound() && zero.to_local(0.0).is_finite() && zero.to_local(5.0) > 0.0);
        assert_eq!(EndpointCalibration::new("rcf", rule, &[], &[]), None);
        assert_eq!(EndpointCalibration::new("rcf", rule, &[1.0], &[1.0, 2.0]), None);
    }

    #[test]
    fn a_quantile_threshold_keeps_its_rate() {
        let scores: Vec<f32> = (0..10_000_u16).rev().map(f32::from).collect();
        let calibration =
            Calibration::new(ThresholdRule::Quantile(0.999), &scores).expect("scores");
        assert_eq!((calibration.threshold, calibration.flagged), (9990.0, 9));
        assert_eq!(calibration.quantiles[7], 5000.0);
        assert!(calibration.is_sound());
        let few = Calibration::new(ThresholdRule::Quantile(0.999), &scores[..10]).expect("scores");
        assert_eq!((few.threshold, few.flagged), (9999.0, 0), "too few to tell: the largest");
    }

    #[test]
    fn the_other_rules() {
        let scores = [1.0, 1.0, 1.0, 5.0];
        let sd = Calibration::new(ThresholdRule::Deviations(1.0), &scores).expect("scores");
        assert_eq!((sd.mean, sd.threshold, sd.flagged), (2.0, 2.0 + 3.0_f64.sqrt(), 1));
        let value = Calibration::new(ThresholdRule::Value(0.5), &scores).expect("scores");
        assert_eq!((value.threshold, value.flagged), (0.5, 4));
        assert_eq!(Calibration::new(ThresholdRule::default(), &[]), None);
    }

    #[test]
    fn rules_are_written_as_they_are_read() {
        for text in ["quantile:0.999", "3sd", "value:1.8"] {
            assert_eq!(text.parse::<ThresholdRule>().expect("good").to_string(), text);
        }
        for text in ["quantile:1", "quantile:NaN", "sd", "-1sd", "value:inf", "0.999"] {
            assert!(text.parse::<ThresholdRule>().is_err(), "{text} must be refused");
        }
    }
}
