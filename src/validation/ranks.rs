//! Spearman's rank correlation of two scores, with ties and with bounds.
//!
//! Equal scores share the mean of their ranks, and the correlation is that of the ranks, so it is
//! right with any number of ties. Its bounds come from the sample itself: each record's influence on
//! the correlation (how much it would move if the record weighed a little more) has a variance that
//! holds whatever the two scores are distributed like and however many are tied, where the usual
//! formula, (1 + rho^2 / 2) / (n - 3) for Fisher's z, holds near a normal distribution without ties.
//! The larger of the two is taken: the first is too small where there is hardly any variation, such as
//! at a correlation of 1. All of it is O(n log n).

use super::proportion::{Bounded, as_f64};

/// Fewest records of which a correlation is told.
const MIN_RECORDS: usize = 8;
/// Nearer to 1 Fisher's z is no number.
const MAX_CORRELATION: f64 = 1.0 - 1e-12;

/// The rank correlation of pairs of finite scores; the truth lies beyond a bound about as often as a
/// standard normal variable beyond `deviations`.
///
/// `None` for fewer than eight pairs, or if both scores are the same in all of them. If one of
/// them alone is, it tells nothing of the other: 0.
pub fn correlation(pairs: &[(f32, f32)], deviations: f64) -> Option<Bounded> {
    if pairs.len() < MIN_RECORDS {
        return None;
    }
    let x = Grades::of(pairs.iter().map(|pair| pair.0));
    let y = Grades::of(pairs.iter().map(|pair| pair.1));
    let n = as_f64(pairs.len());
    let (a, b) = (mean_product(&x.grades, &x.grades), mean_product(&y.grades, &y.grades));
    if a == 0.0 && b == 0.0 {
        return None;
    }
    let plain = |rho: f64| (1.0 + 0.5 * rho * rho) / (n - 3.0);
    if a == 0.0 || b == 0.0 {
        return Some(within(0.0, deviations * plain(0.0).sqrt()));
    }
    let c = mean_product(&x.grades, &y.grades);
    let rho = (c / (a * b).sqrt()).clamp(-1.0, 1.0);
    let (x_of_x, y_of_y) = (x.moved(&x.grades), y.moved(&y.grades));
    let (y_of_x, x_of_y) = (x.moved(&y.grades), y.moved(&x.grades));
    let influence = (0..pairs.len()).map(|i| {
        let (u, v) = (x.grades[i], y.grades[i]);
        let dc = u * v + y_of_x[i] + x_of_y[i] - 3.0 * c;
        let da = u * u + 2.0 * x_of_x[i] - 3.0 * a;
        let db = v * v + 2.0 * y_of_y[i] - 3.0 * b;
        dc / (a * b).sqrt() - 0.5 * rho * (da / a + db / b)
    });
    let variance = influence.map(|of_record| of_record * of_record).sum::<f64>() / (n * (n - 1.0));
    // Fisher's z = atanh(rho) has the derivative 1 / (1 - rho^2).
    let slope = 1.0 / (1.0 - rho.abs().min(MAX_CORRELATION).powi(2));
    let variance_of_z = (variance * slope * slope).max(plain(rho));
    Some(within(rho, deviations * variance_of_z.sqrt()))
}

/// A correlation with bounds so far off in Fisher's z.
fn within(rho: f64, reach: f64) -> Bounded {
    let z = rho.clamp(-MAX_CORRELATION, MAX_CORRELATION).atanh();
    Bounded { value: rho, low: (z - reach).tanh().min(rho), high: (z + reach).tanh().max(rho) }
}

fn mean_product(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>() / as_f64(a.len())
}

/// Scores in their order, and where each stands in it.
struct Grades {
    /// Indexes of the scores, ascending; those of equal scores stand together.
    order: Vec<usize>,
    /// Ends of the runs of equal scores in `order`.
    ends: Vec<usize>,
    /// Of each score its rank over n, less the mean: from -1/2 to 1/2, equal for equal scores.
    grades: Vec<f64>,
}

impl Grades {
    fn of(scores: impl Iterator<Item = f32>) -> Self {
        // -0 and 0 are equal scores.
        let scores: Vec<f32> = scores.map(|score| score + 0.0).collect();
        let n = scores.len();
        let mut order: Vec<usize> = (0..n).collect();
        order.sort_unstable_by(|&i, &j| scores[i].total_cmp(&scores[j]));
        let mut ends = Vec::new();
        let mut grades = vec![0.0; n];
        let mut start = 0;
        for end in 1..=n {
            if end < n && scores[order[end]] == scores[order[start]] {
                continue;
            }
            // Ranks from 1: the mean of start + 1 to end, less that of 1 to n.
            let grade = 0.5 * (as_f64(start + end) - as_f64(n)) / as_f64(n);
            order[start..end].iter().for_each(|&i| grades[i] = grade);
            ends.push(end);
            start = end;
        }
        Self { order, ends, grades }
    }

    /// For each record the mean over all records of what it lifts: all of `of` that stand above it and
    /// half of those beside it. One more record there would raise their grades.
    fn moved(&self, of: &[f64]) -> Vec<f64> {
        let mut moved = vec![0.0; of.len()];
        let mut above = 0.0;
        for (at, &end) in self.ends.iter().enumerate().rev() {
            let start = if at == 0 { 0 } else { self.ends[at - 1] };
            let beside: f64 = self.order[start..end].iter().map(|&i| of[i]).sum();
            let mean = (above + 0.5 * beside) / as_f64(of.len());
            self.order[start..end].iter().for_each(|&i| moved[i] = mean);
            above += beside;
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validation::tests::Random;

    /// Ranks by counting, correlation by its definition.
    fn slowly(pairs: &[(f32, f32)]) -> f64 {
        let rank = |all: &[f32], of: f32| {
            let count = |which: fn(f32, f32) -> bool| all.iter().filter(|x| which(**x, of)).count();
            as_f64(count(|x, of| x < of)) + 0.5 * as_f64(count(|x, of| x == of)) + 0.5
        };
        let ranks = |side: fn(&(f32, f32)) -> f32| {
            let all: Vec<f32> = pairs.iter().map(side).collect();
            all.iter().map(|&of| rank(&all, of)).collect::<Vec<f64>>()
        };
        let (x, y) = (ranks(|pair| pair.0), ranks(|pair| pair.1));
        let mean = |of: &[f64]| of.iter().sum::<f64>() / as_f64(of.len());
        let (mx, my) = (mean(&x), mean(&y));
        let sum = |a: &[f64], ma: f64, b: &[f64], mb: f64| {
            a.iter().zip(b).map(|(a, b)| (a - ma) * (b - mb)).sum::<f64>()
        };
        sum(&x, mx, &y, my) / (sum(&x, mx, &x, mx) * sum(&y, my, &y, my)).sqrt()
    }

    /// Pairs of several kinds: near, tied, unrelated, of two clusters.
    fn kinds(random: &mut Random, n: usize) -> [Vec<(f32, f32)>; 4] {
        let near = (0..n).map(|_| {
            let x = random.normal();
            (x, x + 0.5 * random.normal())
        });
        let near: Vec<_> = near.collect();
        let tied = near.iter().map(|(x, y)| ((2.0 * x).round(), y.max(0.0))).collect();
        let unrelated = (0..n).map(|_| (random.normal(), random.normal())).collect();
        let clusters = (0..n).map(|_| {
            let far = if random.uniform() < 0.1 { 10.0 } else { 0.0 };
            (far + random.normal(), far + random.normal())
        });
        let clusters = clusters.collect();
        [near, tied, unrelated, clusters]
    }

    #[test]
    fn it_is_the_correlation_of_the_ranks() {
        let mut random = Random::new(1);
        for n in [8, 9, 100, 501] {
            for pairs in kinds(&mut random, n) {
                let found = correlation(&pairs, 3.0).expect("enough");
                let expected = slowly(&pairs);
                assert!((found.value - expected).abs() < 1e-12, "{} {expected}", found.value);
                assert!(found.low <= found.value && found.value <= found.high, "{found:?}");
            }
        }
        let known = [(1.0, 2.0), (2.0, 1.0), (3.0, 4.0), (4.0, 3.0), (5.0, 5.0), (5.0, 6.0)];
        let known: Vec<(f32, f32)> = known.into_iter().chain([(6.0, 7.0), (7.0, 7.0)]).collect();
        let found = correlation(&known, 3.0).expect("enough");
        assert!((found.value - slowly(&known)).abs() < 1e-12);
    }

    /// The variance by leaving one record out after the other.
    fn jackknife(pairs: &[(f32, f32)]) -> f64 {
        let n = pairs.len();
        let without = |i: usize| slowly(&[&pairs[..i], &pairs[i + 1..]].concat());
        let values: Vec<f64> = (0..n).map(without).collect();
        let mean = values.iter().sum::<f64>() / as_f64(n);
        let sum: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        sum * as_f64(n - 1) / as_f64(n)
    }

    #[test]
    fn its_variance_is_that_of_leaving_one_record_out_unless_the_plain_one_is_larger() {
        let mut random = Random::new(2);
        for pairs in kinds(&mut random, 200) {
            let one = correlation(&pairs, 1.0).expect("enough");
            let reach = one.high.atanh() - one.value.atanh();
            let plain = (1.0 + 0.5 * one.value.powi(2)) / 197.0;
            let by_leaving_out = jackknife(&pairs) / (1.0 - one.value.powi(2)).powi(2);
            let expected = by_leaving_out.max(plain).sqrt();
            assert!((reach / expected - 1.0).abs() < 0.03, "{reach} for {expected}");
        }
    }

    #[test]
    fn scores_that_say_nothing() {
        let constant: Vec<(f32, f32)> = (0..100_u8).map(|i| (1.0, f32::from(i))).collect();
        let found = correlation(&constant, 3.0).expect("one varies");
        assert!(found.value == 0.0 && found.low < -0.2 && found.high > 0.2, "{found:?}");
        let both: Vec<(f32, f32)> = vec![(1.0, 2.0); 100];
        assert_eq!(correlation(&both, 3.0), None);
        assert_eq!(correlation(&constant[..7], 3.0), None);
        let same: Vec<(f32, f32)> = (0..100_u8).map(|i| (f32::from(i), f32::from(i))).collect();
        let found = correlation(&same, 3.0).expect("both vary");
        assert!(found.value > 1.0 - 1e-12 && found.low > 0.99 && found.high <= 1.0, "{found:?}");
    }

    #[test]
    fn the_truth_lies_beyond_a_bound_as_seldom_as_was_said() {
        // At 1.645 deviations one in twenty on either side. The truth is that of very many pairs.
        let mut random = Random::new(3);
        let names = ["near", "tied", "unrelated", "clusters"];
        let truth = kinds(&mut random, 200_000)
            .map(|pairs| correlation(&pairs, 1.0).expect("enough").value);
        for n in [50, 400] {
            let mut beyond = [(0, 0); 4];
            for _run in 0..300 {
                for (kind, pairs) in kinds(&mut random, n).into_iter().enumerate() {
                    let found = correlation(&pairs, 1.645).expect("enough");
                    beyond[kind].0 += usize::from(truth[kind] < found.low);
                    beyond[kind].1 += usize::from(truth[kind] > found.high);
                }
            }
            for (name, (low, high)) in names.iter().zip(beyond) {
                println!("{name}, {n} pairs: truth below in {low}, above in {high} of 300");
                assert!(low <= 30 && high <= 30, "{name} {n}: expected about 15, got {low} {high}");
            }
        }
    }
}
