//! How far scores depend on chance: the same records, scored by forests that differ in their seeds alone.
//!
//! A seed decides which records a tree is built from and where it cuts. What the forests of several seeds
//! agree on is in the data; the rest is luck, of which more trees leave less. No labels are needed.

use sawlog_lambda::validation::ranks;
use serde::Serialize;

/// The numbers of most unusual records that are compared.
const TOPS: [usize; 3] = [10, 100, 1000];

/// What several forests agree on, pair by pair.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Stability {
    /// Forests that were compared.
    pub models: usize,
    /// Spearman's correlation of two forests' scores: the mean of all pairs, and the least; `None` where
    /// all scores are equal or records fewer than eight.
    pub rank_correlation: Option<f64>,
    pub least_rank_correlation: Option<f64>,
    /// Of the most unusual records by one the share that is among the other's, as many.
    pub tops: Vec<Top>,
    /// Records that each forest flags at its own threshold.
    pub flagged: Vec<u64>,
}

/// The most unusual records by two forests.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Top {
    /// How many.
    pub records: usize,
    /// The share that both have: the mean of all pairs.
    pub shared: f64,
    /// What two forests would share that have nothing in common.
    pub by_chance: f64,
}

impl Stability {
    /// Compares the scores that forests give to the same records, in the same order.
    pub(crate) fn of(scores: &[Vec<f32>], flagged: Vec<u64>) -> Self {
        let records = scores.first().map_or(0, Vec::len);
        let correlations: Option<Vec<f64>> = pairs(scores.len())
            .map(|(a, b)| {
                let both: Vec<(f32, f32)> =
                    scores[a].iter().copied().zip(scores[b].iter().copied()).collect();
                ranks::correlation(&both, 1.0).map(|found| found.value)
            })
            .collect();
        let correlations = correlations.unwrap_or_default();
        // Of more than half of the records most are shared anyway.
        let sizes = TOPS.into_iter().filter(|size| 2 * size <= records);
        let tops = sizes.map(|size| {
            let by_chance = as_f64(size) / as_f64(records);
            Top { records: size, shared: shared_top(scores, size), by_chance }
        });
        Self {
            models: scores.len(),
            rank_correlation: mean(&correlations),
            least_rank_correlation: correlations.iter().copied().min_by(f64::total_cmp),
            tops: tops.collect(),
            flagged,
        }
    }
}

/// All pairs of so many.
fn pairs(count: usize) -> impl Iterator<Item = (usize, usize)> {
    (1..count).flat_map(|b| (0..b).map(move |a| (a, b)))
}

/// Of the `size` most unusual records by one forest the share that is among another's: the mean of all pairs.
/// `size` is from 1 to the number of records.
pub(crate) fn shared_top(scores: &[Vec<f32>], size: usize) -> f64 {
    let weights: Vec<Vec<f64>> = scores.iter().map(|one| in_top(one, size)).collect();
    let shared = pairs(scores.len()).map(|(a, b)| {
        let both = weights[a].iter().zip(&weights[b]).map(|(a, b)| a * b);
        both.sum::<f64>() / as_f64(size)
    });
    mean(&shared.collect::<Vec<f64>>()).unwrap_or(1.0)
}

/// For each record the chance that it is among the `size` most unusual, where equal scores that stand at
/// the edge are drawn by lot: 1 or 0 for all others.
fn in_top(scores: &[f32], size: usize) -> Vec<f64> {
    let mut sorted = scores.to_vec();
    sorted.sort_unstable_by(|a, b| b.total_cmp(a));
    let edge = sorted[size - 1];
    let above = sorted.partition_point(|score| *score > edge);
    let equal = sorted.partition_point(|score| *score >= edge) - above;
    let at_edge = as_f64(size - above) / as_f64(equal);
    let weight = |score: &f32| {
        if *score > edge {
            1.0
        } else if *score < edge {
            0.0
        } else {
            at_edge
        }
    };
    scores.iter().map(weight).collect()
}

fn mean(of: &[f64]) -> Option<f64> {
    (!of.is_empty()).then(|| of.iter().sum::<f64>() / as_f64(of.len()))
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn as_f64(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scores that look drawn by chance, no two alike.
    fn scores(seed: u32) -> Vec<f32> {
        let mixed = |at: u32| (at ^ seed).wrapping_mul(0x9E37_79B1).rotate_left(13) ^ seed;
        (0..1000).map(|at| (mixed(at).wrapping_mul(0x85EB_CA6B) >> 8) as f32).collect()
    }

    #[test]
    fn one_forest_agrees_with_itself_and_strangers_by_chance() {
        let same = Stability::of(&[scores(1), scores(1)], vec![1, 1]);
        assert!(same.rank_correlation.expect("ranks") > 1.0 - 1e-12, "{same:?}");
        assert_eq!(same.tops.iter().map(|top| top.shared).collect::<Vec<_>>(), [1.0, 1.0]);
        let strangers = Stability::of(&[scores(1), scores(77_777), scores(123_456)], Vec::new());
        let ranks = strangers.rank_correlation.expect("ranks");
        assert!(ranks.abs() < 0.1 && strangers.least_rank_correlation <= Some(ranks), "{ranks}");
        let top = strangers.tops[1];
        assert!((top.shared - top.by_chance).abs() < 0.07, "{top:?}");
        assert_eq!(strangers.tops.len(), 2, "a thousand of a thousand are no top");
    }

    #[test]
    fn equal_scores_at_the_edge_are_drawn_by_lot() {
        let mut some = vec![1.0; 100];
        some[3] = 2.0;
        // Nine of 99 equal ones are in the top of ten, whichever.
        let weights = in_top(&some, 10);
        assert_eq!(weights[3], 1.0);
        assert!((weights.iter().sum::<f64>() - 10.0).abs() < 1e-9);
        let all = Stability::of(&[vec![1.0; 100], vec![1.0; 100]], Vec::new());
        assert_eq!((all.rank_correlation, all.least_rank_correlation), (None, None));
        assert!((all.tops[0].shared - all.tops[0].by_chance).abs() < 1e-12, "{all:?}");
    }
}
