//! Whether two scorers agree: what is measured of a number of records, and the rule that judges it.
//!
//! Each of three measures is compared with two marks. What is claimed is always the safe side of a
//! bound, never the estimate, so every judgement but the last says what chance alone would hardly have
//! brought about ([`ERROR_RATE`]):
//!
//! 1. **disagree**: one of the measures is surely beyond its mark for *disagree*.
//! 2. **drifting**: none is, but one is surely beyond its mark for *drifting*.
//! 3. **agree**: none is, and tops and ranks are both surely short of their marks for *disagree* (so is
//!    the decisions' estimate, as far as there are decisions to compare).
//! 4. **too few** records to say any of these.
//!
//! | measure | drifting | disagree | seen between forests of the same data |
//! |---|---|---|---|
//! | decisions: of the records that either flags, the share that only one flags | 0.80 | 0.90 | 0.1 to 0.99 |
//! | tops: of one's most unusual 5 %, the share that is not among the other's | 0.30 | 0.45 | 0.01 to 0.28 |
//! | ranks: Spearman's correlation of the scores | 0.75 | 0.50 | 0.79 to 0.99 |
//!
//! Decisions weigh least: far out in the tail two forests that are equally good differ in every other
//! record, and how many each flags is a matter of its threshold. What they do show is a threshold that
//! fits nothing any more: one flags everything. `docs/validation.md` says where the marks are from, and
//! how often the rule errs.

use std::fmt;

use serde::Serialize;

use super::proportion::{self, Bounded, as_f64};
use super::ranks;

/// The chance that a window of agreement is judged otherwise, at most: that each of three measures
/// crosses its bound adds up to it, even if the truth lies on the mark itself.
pub const ERROR_RATE: f64 = 0.001;
/// The chance of each measure's bound.
const BOUND_ERROR: f64 = ERROR_RATE / 3.0;
/// A standard normal variable is beyond it with the chance [`BOUND_ERROR`].
const BOUND_DEVIATIONS: f64 = 3.402_932_835;

/// Fewest records that anything is said of. Below, a handful of records would decide: a top of 5 % has
/// ten.
pub const MIN_RECORDS: usize = 200;
/// The share of the records that tops are made of: enough to count in a window of a few hundred, and
/// few enough to be what would be looked into.
pub const TOP_SHARE: f64 = 0.05;
/// Fewest records flagged by either from which their decisions stand in the way of agreement.
const MIN_FLAGGED: usize = 10;

/// Beyond the first it is surely drifting, beyond the second it disagrees.
struct Marks {
    drifting: f64,
    disagree: f64,
}

const DECISIONS: Marks = Marks { drifting: 0.8, disagree: 0.9 };
const TOPS: Marks = Marks { drifting: 0.3, disagree: 0.45 };
/// Below, not above.
const RANKS: Marks = Marks { drifting: 0.75, disagree: 0.5 };

/// The shares of records at which the scores of both are compared.
pub const SHIFT_QUANTILES: [f64; 3] = [0.5, 0.9, 0.99];

/// One record as both scored it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// The local score, finite.
    pub local: f32,
    /// The endpoint's score, finite.
    pub endpoint: f32,
    /// What each decided at its own threshold; none if one of them has none.
    pub flagged: Option<Flagged>,
}

/// What both decided of one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flagged {
    /// True if the local score is above the local threshold.
    pub local: bool,
    /// True if the endpoint's score is above the endpoint's threshold.
    pub endpoint: bool,
}

/// Records by who flags them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Table {
    /// Flagged by both.
    pub both: usize,
    /// Flagged by the local model alone.
    pub only_local: usize,
    /// Flagged by the endpoint alone.
    pub only_endpoint: usize,
    /// Flagged by neither.
    pub neither: usize,
}

impl Table {
    /// Counts one record.
    pub fn add(&mut self, flagged: Flagged) {
        *match (flagged.local, flagged.endpoint) {
            (true, true) => &mut self.both,
            (true, false) => &mut self.only_local,
            (false, true) => &mut self.only_endpoint,
            (false, false) => &mut self.neither,
        } += 1;
    }

    /// Records flagged by one of them at least.
    pub fn either(&self) -> usize {
        self.both + self.only_local + self.only_endpoint
    }

    /// Of the records that either flags, the share that only one flags; `None` if none is flagged.
    fn differing(&self) -> Option<Bounded> {
        proportion::bounds(self.only_local + self.only_endpoint, self.either(), BOUND_ERROR)
    }
}

/// What is measured of a number of records.
#[derive(Debug, Clone, PartialEq)]
pub struct Measures {
    /// How many records.
    pub records: usize,
    /// Decisions at each one's own threshold, of the records of which both are known.
    pub decisions: Table,
    /// Of the records that either flags, the share that only one flags. `None` if none is flagged.
    pub differing: Option<Bounded>,
    /// Of the most unusual 5 % by one, the share that is not among the other's. `None` without records.
    pub missing: Option<Bounded>,
    /// Spearman's correlation of the scores. `None` for fewer than eight records, and if all scores of
    /// both are equal.
    pub ranks: Option<Bounded>,
    /// The scores' quantiles at [`SHIFT_QUANTILES`], local and the endpoint's. `None` without records.
    pub quantiles: Option<[(f32, f32); SHIFT_QUANTILES.len()]>,
}

impl Measures {
    /// Measures records. Their order makes no difference.
    pub fn of(samples: &[Sample]) -> Self {
        let mut decisions = Table::default();
        samples.iter().filter_map(|sample| sample.flagged).for_each(|both| decisions.add(both));
        let sorted = |score: fn(&Sample) -> f32| {
            let mut scores: Vec<f32> = samples.iter().map(score).collect();
            scores.sort_unstable_by(f32::total_cmp);
            scores
        };
        let (local, endpoint) = (sorted(|sample| sample.local), sorted(|sample| sample.endpoint));
        let pairs: Vec<(f32, f32)> = samples.iter().map(|s| (s.local, s.endpoint)).collect();
        let quantiles =
            SHIFT_QUANTILES.map(|share| quantile(&local, share).zip(quantile(&endpoint, share)));
        let quantiles = match quantiles {
            [Some(a), Some(b), Some(c)] => Some([a, b, c]),
            _ => None,
        };
        Self {
            records: samples.len(),
            decisions,
            differing: decisions.differing(),
            missing: missing(samples, &local, &endpoint),
            ranks: ranks::correlation(&pairs, BOUND_DEVIATIONS),
            quantiles,
        }
    }

    /// How far the endpoint's quantiles lie from the local ones, each as a share of the local one: 0 for
    /// the same. `to_local` brings a score of the endpoint to the model's scale, as a learned map does.
    pub fn shifts(&self, to_local: impl Fn(f64) -> f64) -> Option<[f64; SHIFT_QUANTILES.len()]> {
        let shift = |(local, endpoint): (f32, f32)| {
            let local = f64::from(local);
            if local == 0.0 { 0.0 } else { to_local(f64::from(endpoint)) / local - 1.0 }
        };
        self.quantiles.map(|quantiles| quantiles.map(shift))
    }
}

/// Of the most unusual records by one, the share that is not among the other's.
///
/// Where equal scores stand at the edge of a top, it is not known which of them belong to it. A record
/// counts as being in one's top if it surely is, and as missing from the other's if it surely is not.
/// With tops of one size, what one has too many the other has too few, so that one side is counted: the
/// one of which more is known.
fn missing(samples: &[Sample], local: &[f32], endpoint: &[f32]) -> Option<Bounded> {
    let (top_local, top_endpoint) = (Top::of(local)?, Top::of(endpoint)?);
    let count = |which: &dyn Fn(&Sample) -> bool| samples.iter().filter(|s| which(s)).count();
    let of_local = count(&|s| s.local > top_local.below);
    let of_endpoint = count(&|s| s.endpoint > top_endpoint.below);
    let only_local = || count(&|s| s.local > top_local.below && s.endpoint < top_endpoint.least);
    let only_endpoint = || count(&|s| s.endpoint > top_endpoint.below && s.local < top_local.least);
    if of_local >= of_endpoint {
        proportion::bounds(only_local(), of_local, BOUND_ERROR)
    } else {
        proportion::bounds(only_endpoint(), of_endpoint, BOUND_ERROR)
    }
}

/// The edge of the most unusual 5 %.
struct Top {
    /// The least score in it.
    least: f32,
    /// The greatest score outside; the same where equal ones stand on both sides.
    below: f32,
}

impl Top {
    fn of(sorted: &[f32]) -> Option<Self> {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "of the length"
        )]
        let size = (TOP_SHARE * as_f64(sorted.len())).round() as usize;
        let least = sorted.len().checked_sub(size)?;
        let below = least.checked_sub(1)?;
        Some(Self { least: *sorted.get(least)?, below: *sorted.get(below)? })
    }
}

/// The score that a share of sorted ones doesn't exceed.
fn quantile(sorted: &[f32], share: f64) -> Option<f32> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "of the length")]
    let at = (share * as_f64(sorted.len())) as usize;
    sorted.get(at.min(sorted.len().saturating_sub(1))).copied()
}

/// Whether the local model still says what the endpoint would say. The greater, the worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Agreement {
    /// There are too few records to say.
    #[default]
    TooFew,
    /// It does.
    Agree,
    /// Less than it should, and more than two strangers would.
    Drifting,
    /// It does not.
    Disagree,
}

impl fmt::Display for Agreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooFew => "too few to say",
            Self::Agree => "agree",
            Self::Drifting => "drifting",
            Self::Disagree => "disagree",
        })
    }
}

/// What the rule says of a number of records, and why.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Judgement {
    /// The judgement.
    pub agreement: Agreement,
    /// The measures that it follows from, in words.
    pub reason: String,
}

/// The rule, as the module has it.
pub fn judge(measures: &Measures) -> Judgement {
    if measures.records < MIN_RECORDS {
        let reason = format!("{} records of {MIN_RECORDS} at least", measures.records);
        return Judgement { agreement: Agreement::TooFew, reason };
    }
    let found = [
        measures.differing.map(|share| share_beyond(share, &DECISIONS, DECISIONS_TEXT)),
        measures.missing.map(|share| share_beyond(share, &TOPS, TOPS_TEXT)),
        measures.ranks.map(ranks_beyond),
    ];
    let found: Vec<Found> = found.into_iter().flatten().collect();
    let told = |of: Agreement| {
        let reasons: Vec<&str> =
            found.iter().filter(|f| f.surely == of).map(|f| &*f.text).collect();
        (!reasons.is_empty()).then(|| Judgement { agreement: of, reason: reasons.join("; ") })
    };
    told(Agreement::Disagree).or_else(|| told(Agreement::Drifting)).unwrap_or_else(|| {
        let texts: Vec<&str> = found.iter().map(|found| &*found.text).collect();
        let differ = measures.differing.is_some_and(|share| share.value > DECISIONS.disagree)
            && measures.decisions.either() >= MIN_FLAGGED;
        let is_proven = measures.missing.is_none_or(|share| share.high < TOPS.disagree)
            && measures.ranks.is_none_or(|ranks| ranks.low > RANKS.disagree);
        let agreement = if is_proven && !differ { Agreement::Agree } else { Agreement::TooFew };
        Judgement { agreement, reason: texts.join("; ") }
    })
}

/// A measure in words, and what it alone proves.
struct Found {
    surely: Agreement,
    text: String,
}

const DECISIONS_TEXT: &str = "of the records that either flags only one flags";
const TOPS_TEXT: &str = "of the most unusual 5 % by one are not among the other's";

fn share_beyond(share: Bounded, marks: &Marks, what: &str) -> Found {
    let Bounded { value, low, high } = share;
    let surely = match low {
        low if low > marks.disagree => Agreement::Disagree,
        low if low > marks.drifting => Agreement::Drifting,
        _ => Agreement::TooFew,
    };
    let [value, low, high] = [value, low, high].map(|share| 100.0 * share);
    Found { surely, text: format!("{value:.0} % ({low:.0} to {high:.0}) {what}") }
}

fn ranks_beyond(ranks: Bounded) -> Found {
    let Bounded { value, low, high } = ranks;
    let surely = match high {
        high if high < RANKS.disagree => Agreement::Disagree,
        high if high < RANKS.drifting => Agreement::Drifting,
        _ => Agreement::TooFew,
    };
    Found { surely, text: format!("rank correlation {value:.2} ({low:.2} to {high:.2})") }
}

#[cfg(test)]
mod tests {
    use sawlog_model::{EndpointCalibration, ThresholdRule};

    use super::*;

    #[test]
    fn another_scale_is_no_shift_once_the_map_is_learned() {
        let local: Vec<f32> = (1..=1000_u16).map(|at| f32::from(at) / 500.0).collect();
        let remote = |score: f32| 3.0 * score * score;
        let samples: Vec<Sample> = local
            .iter()
            .map(|&local| Sample { local, endpoint: remote(local), flagged: None })
            .collect();
        let measures = Measures::of(&samples);
        let raw = measures.shifts(|score| score).expect("records");
        assert!(raw.iter().all(|shift| *shift > 1.5), "3 s^2 / s - 1 from s = 1 on: {raw:?}");
        let told: Vec<f32> = local.iter().copied().map(remote).collect();
        let rule = ThresholdRule::Quantile(0.99);
        let map = EndpointCalibration::new("rcf", rule, &local, &told).expect("scores");
        let mapped = measures.shifts(|score| map.to_local(score)).expect("records");
        assert!(mapped.iter().all(|shift| shift.abs() < 0.01), "{mapped:?}");
        assert_eq!(Measures::of(&[]).shifts(|score| score), None);
    }
}
