//! How well scores tell labelled anomalies apart.
//!
//! All of it follows from one walk over the scores from the greatest down, a group of equal scores at
//! a time: equal scores can't be told apart, so no figure may depend on how they are ordered. Counts
//! are integers to the end.

use sawlog_model::Calibration;
use serde::Serialize;

/// The counts of most unusual records whose precision is told, besides the number of anomalies.
const FIRST: [u64; 5] = [10, 50, 100, 500, 1000];
/// A point of the curve is kept if precision or recall has moved by this since the last one.
const CURVE_STEP: f64 = 1.0 / 400.0;

/// How well scores agree with labels.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Ranking {
    /// Records labelled as anomalies.
    pub anomalies: u64,
    /// Records labelled as normal.
    pub normal: u64,
    /// Records without a label, which count for nothing here.
    pub unlabelled: u64,
    /// The chance that an anomaly scores above a normal record, an equal score counted half.
    pub roc_auc: f64,
    /// The mean precision over the anomalies: at each group of equal scores its precision, weighted
    /// by the anomalies in it.
    pub average_precision: f64,
    /// Among the most unusual records.
    pub first: Vec<First>,
    /// At the threshold that gives the greatest F1; of equal ones the highest.
    pub best: At,
    /// At the model's threshold, if it has one.
    pub calibrated: Option<At>,
    /// Precision, recall and F1 over thresholds, from the highest down.
    pub curve: Vec<At>,
}

/// The most unusual records.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct First {
    /// How many.
    pub records: u64,
    /// Share of anomalies among them: the expected one over all orders of equal scores.
    pub precision: f64,
    /// Share of all anomalies that is among them, likewise.
    pub recall: f64,
}

/// What a threshold would flag.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct At {
    /// Flagged are scores above it.
    pub threshold: f64,
    /// Records flagged.
    pub flagged: u64,
    /// Anomalies among them.
    pub hits: u64,
    /// Their share of the flagged; 1 where none is flagged.
    pub precision: f64,
    /// Their share of all anomalies.
    pub recall: f64,
    /// The harmonic mean of both.
    pub f1: f64,
}

impl At {
    fn new(threshold: f64, flagged: u64, hits: u64, anomalies: u64) -> Self {
        Self {
            threshold,
            flagged,
            hits,
            precision: if flagged == 0 { 1.0 } else { ratio(hits, flagged) },
            recall: ratio(hits, anomalies),
            f1: ratio(2 * hits, flagged + anomalies),
        }
    }
}

/// Equal scores.
struct Group {
    score: f32,
    records: u64,
    anomalies: u64,
}

impl Ranking {
    /// Judges finite scores by their labels, in any order; sorts them. `None` unless there are both
    /// anomalies and normal records.
    pub(crate) fn new(
        scored: &mut [(f32, bool)],
        unlabelled: u64,
        calibration: Option<&Calibration>,
    ) -> Option<Self> {
        let anomalies = scored.iter().filter(|(_, is_anomaly)| *is_anomaly).count() as u64;
        let normal = scored.len() as u64 - anomalies;
        if anomalies == 0 || normal == 0 {
            return None;
        }
        scored.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
        let calibrated = calibration.map(|calibration| {
            let threshold = calibration.threshold;
            let above = scored.partition_point(|(score, _)| f64::from(*score) > threshold);
            let hits = scored[..above].iter().filter(|(_, is_anomaly)| *is_anomaly).count();
            At::new(threshold, above as u64, hits as u64, anomalies)
        });
        let mut walk = Walk::new(anomalies, normal);
        let mut groups = scored.chunk_by(|a, b| a.0 == b.0).peekable();
        while let Some(group) = groups.next() {
            let below = groups.peek().map(|next| next[0].0);
            walk.take(
                &Group {
                    score: group[0].0,
                    records: group.len() as u64,
                    anomalies: group.iter().filter(|(_, is_anomaly)| *is_anomaly).count() as u64,
                },
                below,
            );
        }
        Some(walk.finish(unlabelled, calibrated))
    }
}

/// What is known of the groups from the greatest score down to here.
struct Walk {
    anomalies: u64,
    normal: u64,
    flagged: u64,
    hits: u64,
    /// Twice the pairs of an anomaly and a normal record in which the anomaly is above, an equal pair
    /// counted once.
    twice_won: u128,
    precision_sum: f64,
    first: Vec<First>,
    /// Counts of [`First`] still to come, the next one last.
    counts: Vec<u64>,
    best: At,
    curve: Vec<At>,
}

impl Walk {
    fn new(anomalies: u64, normal: u64) -> Self {
        let mut counts: Vec<u64> = FIRST.into_iter().chain([anomalies]).collect();
        counts.retain(|&count| count <= anomalies + normal);
        counts.sort_unstable_by(|a, b| b.cmp(a));
        counts.dedup();
        Self {
            anomalies,
            normal,
            flagged: 0,
            hits: 0,
            twice_won: 0,
            precision_sum: 0.0,
            first: Vec::new(),
            counts,
            best: At::new(f64::INFINITY, 0, 0, anomalies),
            curve: Vec::new(),
        }
    }

    /// Takes the next group; `below` is the score of the one after it.
    fn take(&mut self, group: &Group, below: Option<f32>) {
        while let Some(&count) = self.counts.last()
            && count <= self.flagged + group.records
        {
            let part = ratio(count - self.flagged, group.records);
            let hits = float(self.hits) + part * float(group.anomalies);
            let (precision, recall) = (hits / float(count), hits / float(self.anomalies));
            self.first.push(First { records: count, precision, recall });
            self.counts.pop();
        }
        let normal_here = group.records - group.anomalies;
        let normal_above = self.flagged - self.hits;
        let normal_below = self.normal - normal_above - normal_here;
        self.twice_won +=
            u128::from(group.anomalies) * (2 * u128::from(normal_below) + u128::from(normal_here));
        self.flagged += group.records;
        self.hits += group.anomalies;
        // Between this group and the next, so that the last bit of a score decides nothing.
        let threshold = match below {
            Some(below) => f64::midpoint(f64::from(group.score), f64::from(below)),
            None => f64::from(group.score.next_down()),
        };
        let at = At::new(threshold, self.flagged, self.hits, self.anomalies);
        self.precision_sum += at.precision * float(group.anomalies);
        // F1 as a fraction, compared without rounding.
        let f1 = |at: &At| (u128::from(at.hits), u128::from(at.flagged + self.anomalies));
        let ((hits, of), (best, of_best)) = (f1(&at), f1(&self.best));
        if hits * of_best > best * of {
            self.best = at;
        }
        let moved = self.curve.last().is_none_or(|last: &At| {
            (at.precision - last.precision).abs() >= CURVE_STEP
                || (at.recall - last.recall).abs() >= CURVE_STEP
        });
        if moved || below.is_none() {
            self.curve.push(at);
        }
    }

    fn finish(self, unlabelled: u64, calibrated: Option<At>) -> Ranking {
        #[expect(clippy::cast_precision_loss, reason = "a share")]
        let won = self.twice_won as f64;
        Ranking {
            anomalies: self.anomalies,
            normal: self.normal,
            unlabelled,
            roc_auc: won / 2.0 / float(self.anomalies) / float(self.normal),
            average_precision: self.precision_sum / float(self.anomalies),
            first: self.first,
            best: self.best,
            calibrated,
            curve: self.curve,
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of records, far below 2^53")]
fn float(count: u64) -> f64 {
    count as f64
}

fn ratio(part: u64, whole: u64) -> f64 {
    float(part) / float(whole)
}

#[cfg(test)]
mod tests {
    use sawlog_model::ThresholdRule;

    use super::*;

    /// Scores with many ties or few, a seventh of them anomalies, which score higher on the whole.
    fn scored(count: u32, steps: u32) -> Vec<(f32, bool)> {
        let scramble = |i: u32| i.wrapping_mul(2_654_435_761).rotate_left(13) % 10_007;
        let record = |i: u32| {
            let is_anomaly = scramble(i) % 7 == 0;
            let level = (scramble(i + count) + if is_anomaly { 4000 } else { 0 }) * steps / 14_007;
            #[expect(clippy::cast_precision_loss, reason = "small numbers")]
            (0.5 + level as f32 / steps as f32, is_anomaly)
        };
        (0..count).map(record).collect()
    }

    /// Every pair of an anomaly and a normal record.
    fn slow_auc(scored: &[(f32, bool)]) -> f64 {
        let of = |wanted: bool| {
            scored.iter().filter(move |record| record.1 == wanted).map(|record| record.0)
        };
        let (mut won, mut pairs) = (0.0, 0.0);
        for anomaly in of(true) {
            for normal in of(false) {
                pairs += 1.0;
                won += match anomaly.total_cmp(&normal) {
                    std::cmp::Ordering::Greater => 1.0,
                    std::cmp::Ordering::Equal => 0.5,
                    std::cmp::Ordering::Less => 0.0,
                };
            }
        }
        won / pairs
    }

    /// Counts at one threshold, by looking at every record: flagged, hits, anomalies.
    fn count(scored: &[(f32, bool)], flagged: impl Fn(f32) -> bool) -> (f64, f64, f64) {
        let mut counts = (0.0, 0.0, 0.0);
        for &(score, is_anomaly) in scored {
            let (flagged, anomaly) = (f64::from(flagged(score)), f64::from(is_anomaly));
            counts.0 += flagged;
            counts.1 += flagged * anomaly;
            counts.2 += anomaly;
        }
        counts
    }

    fn distinct(scored: &[(f32, bool)]) -> Vec<f32> {
        let mut scores: Vec<f32> = scored.iter().map(|record| record.0).collect();
        scores.sort_by(|a, b| b.total_cmp(a));
        scores.dedup();
        scores
    }

    /// The sum over thresholds of the step in recall times the precision there.
    fn slow_average_precision(scored: &[(f32, bool)]) -> f64 {
        let (mut sum, mut recall_before) = (0.0, 0.0);
        for threshold in distinct(scored) {
            let (flagged, hits, anomalies) = count(scored, |score| score >= threshold);
            sum += (hits / anomalies - recall_before) * hits / flagged;
            recall_before = hits / anomalies;
        }
        sum
    }

    fn slow_best_f1(scored: &[(f32, bool)]) -> f64 {
        let f1 = |threshold: f32| {
            let (flagged, hits, anomalies) = count(scored, |score| score >= threshold);
            2.0 * hits / (flagged + anomalies)
        };
        distinct(scored).into_iter().map(f1).fold(0.0, f64::max)
    }

    /// The mean over `rounds` orders of equal scores, each a rotation of its group.
    fn slow_precision_of_first(scored: &[(f32, bool)], first: usize) -> f64 {
        let mut sorted = scored.to_vec();
        sorted.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut hits = 0.0;
        for (rank, &(score, _)) in sorted.iter().enumerate().take(first) {
            // Each member of the group stands at this rank in the same share of all orders.
            let group: Vec<_> = sorted.iter().filter(|record| record.0 == score).collect();
            let anomalies = group.iter().filter(|record| record.1).count();
            assert!(rank < sorted.len());
            hits += f64::from(u32::try_from(anomalies).expect("few")) / group.len() as f64;
        }
        hits / first as f64
    }

    fn same(got: f64, want: f64, what: &str) {
        assert!((got - want).abs() < 1e-12, "{what}: got {got}, want {want}");
    }

    #[test]
    fn figures_agree_with_slow_and_obvious_ones_with_ties_and_without() {
        for (records, steps) in [(30, 3), (400, 1), (400, 5), (700, 100), (1500, 14_007)] {
            let scored = scored(records, steps);
            let named = |what: &str| format!("{what} of {records} records at {steps} levels");
            let calibration = Calibration::new(ThresholdRule::Value(1.0), &[1.0]).expect("scores");
            let mut sorted = scored.clone();
            let ranking = Ranking::new(&mut sorted, 0, Some(&calibration)).expect("both kinds");
            same(ranking.roc_auc, slow_auc(&scored), &named("ROC-AUC"));
            let want = slow_average_precision(&scored);
            same(ranking.average_precision, want, &named("average precision"));
            same(ranking.best.f1, slow_best_f1(&scored), &named("best F1"));
            for at in ranking.curve.iter().chain(&ranking.calibrated).chain([&ranking.best]) {
                let flagged = |score: f32| f64::from(score) > at.threshold;
                let (flagged, hits, anomalies) = count(&scored, flagged);
                same(float(at.flagged), flagged, &named("flagged"));
                same(float(at.hits), hits, &named("hits"));
                same(at.recall, hits / anomalies, &named("recall"));
                same(at.f1, 2.0 * hits / (flagged + anomalies), &named("F1"));
            }
            assert!(!ranking.first.is_empty(), "{}", named("precision of the first"));
            for first in &ranking.first {
                let count = usize::try_from(first.records).expect("few");
                let want = slow_precision_of_first(&scored, count);
                same(first.precision, want, &named(&format!("precision of the first {count}")));
            }
        }
    }

    #[test]
    fn a_perfect_and_a_useless_ranking() {
        let mut perfect: Vec<(f32, bool)> = (0..20_u8).map(|i| (f32::from(i), i >= 15)).collect();
        let ranking = Ranking::new(&mut perfect, 3, None).expect("both kinds");
        assert_eq!((ranking.roc_auc, ranking.average_precision, ranking.best.f1), (1.0, 1.0, 1.0));
        assert_eq!((ranking.best.threshold, ranking.best.flagged), (14.5, 5));
        assert_eq!((ranking.anomalies, ranking.normal, ranking.unlabelled), (5, 15, 3));
        let mut useless: Vec<(f32, bool)> = (0..20_u8).map(|i| (1.0, i >= 15)).collect();
        let ranking = Ranking::new(&mut useless, 0, None).expect("both kinds");
        assert_eq!((ranking.roc_auc, ranking.average_precision), (0.5, 0.25));
        assert_eq!(ranking.first[0], First { records: 5, precision: 0.25, recall: 0.25 });
        assert_eq!(ranking.best.flagged, 20);
    }

    #[test]
    fn one_kind_alone_can_not_be_ranked() {
        assert_eq!(Ranking::new(&mut [(1.0, true), (2.0, true)], 0, None), None);
        assert_eq!(Ranking::new(&mut [(1.0, false)], 0, None), None);
        assert_eq!(Ranking::new(&mut [], 7, None), None);
    }
}
