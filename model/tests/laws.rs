//! Laws that a Random Cut Forest keeps, beside slow and obvious oracles.
#![expect(clippy::expect_used, reason = "helpers of tests")]

use ndarray::{Array1, Array2, ArrayView2};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use sawlog_model::{Forest, LeafRule, Params, ValidParams};

/// A small deterministic cloud: `count` points of a few coordinates.
fn cloud(count: usize, dimensions: usize, seed: u64) -> Vec<Vec<f32>> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32
    };
    // The sum of four uniforms: roughly bell shaped.
    (0..count)
        .map(|_| (0..dimensions).map(|_| (0..4).map(|_| next()).sum::<f32>() - 2.0).collect())
        .collect()
}

fn forest(rows: &[Vec<f32>], trees: u32, seed: u64) -> Forest {
    let params = Params { trees, seed, samples: 256, ..Params::default() };
    let params = ValidParams::new(params).expect("in range");
    Forest::build(rows[0].len(), &params, |_| rows.iter().map(Vec::as_slice)).expect("sound points")
}

fn score(forest: &Forest, point: &[f32]) -> f64 {
    forest.score(point).expect("the forest's dimensions")
}

/// So many cases, the same in every run: laws in distribution hold but for a chance, and a test must
/// not fail by chance.
fn cases(count: u32) -> ProptestConfig {
    ProptestConfig { rng_seed: RngSeed::Fixed(42), ..ProptestConfig::with_cases(count) }
}

/// The numbers below `count`, in any order.
fn orders(count: impl Strategy<Value = usize>) -> impl Strategy<Value = Vec<usize>> {
    count.prop_flat_map(|count| Just((0..count).collect::<Vec<_>>()).prop_shuffle())
}

/// The score of `x` in each of many trees, each a forest of its own.
fn scores_by_tree(rows: &[Vec<f32>], x: &[f32], seeds: std::ops::Range<u64>) -> Vec<f64> {
    seeds.map(|seed| score(&forest(rows, 1, seed), x)).collect()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn variance(values: &[f64]) -> f64 {
    let mean = mean(values);
    values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / values.len() as f64
}

/// The forest's score by definition, from nothing but sets of points: build many trees over the
/// sample by random cuts, and average the formula over them, without stored boxes or stopping early.
mod oracle {
    pub(super) struct Random(pub u64);

    impl Random {
        pub(super) fn uniform(&mut self) -> f64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
        }
    }

    fn sides(points: &[Vec<f32>]) -> Vec<(f32, f32)> {
        (0..points[0].len())
            .map(|i| {
                let column = || points.iter().map(|point| point[i]);
                (column().fold(f32::MAX, f32::min), column().fold(f32::MIN, f32::max))
            })
            .collect()
    }

    fn cut(sides: &[(f32, f32)], random: &mut Random) -> (usize, f64) {
        let total: f64 = sides.iter().map(|(low, high)| f64::from(high - low)).sum();
        let mut at = random.uniform() * total;
        for (i, (low, high)) in sides.iter().enumerate() {
            let side = f64::from(high - low);
            if at < side {
                return (i, f64::from(*low) + at);
            }
            at -= side;
        }
        unreachable!("a uniform below the total falls on a side")
    }

    /// What one random tree says of `x`: the box of the points and of x is cut until x is apart
    /// from them all, or until only copies of it are left, which are a leaf's mass.
    pub(super) fn score(points: &[Vec<f32>], x: &[f32], random: &mut Random) -> f64 {
        let tree_mass = points.len() as f64;
        let factor = (tree_mass + 1.0).log2();
        let mut points = points.to_vec();
        let mut depth = 0.0;
        loop {
            if points.iter().all(|point| point == x) {
                let mass = points.len() as f64;
                let damp = 1.0 - mass / (2.0 * tree_mass);
                return factor * damp / (depth + (mass + 1.0).log2());
            }
            let mut with_x = points.clone();
            with_x.push(x.to_vec());
            let (i, value) = cut(&sides(&with_x), random);
            let side = |point: &[f32]| f64::from(point[i]) <= value;
            let kept: Vec<Vec<f32>> =
                points.iter().filter(|point| side(point) == side(x)).cloned().collect();
            if kept.is_empty() {
                return factor / (depth + 1.0);
            }
            if kept.len() < points.len() {
                depth += 1.0;
            }
            points = kept;
        }
    }
}

proptest! {
    #![proptest_config(cases(24))]

    /// A point apart from the sample scores the mean of log2(n + 1) / (depth + 1) over random
    /// insertions, one of the sample what its leaf says, with its copies as the leaf's mass: the
    /// formula over fixed trees is that average.
    #[test]
    fn the_expected_score_is_the_average_over_random_trees(
        seed: u64, dimensions in 1_usize..4, copies in prop::collection::vec(1_usize..5, 1..10),
        spread in 0.0_f32..4.0, is_of_the_sample: bool,
    ) {
        let distinct = cloud(copies.len() + 1, dimensions, seed);
        let (x, distinct) = distinct.split_last().expect("one at least");
        let x: Vec<f32> = if is_of_the_sample {
            distinct[0].clone()
        } else {
            x.iter().map(|x| x * spread).collect()
        };
        let rows = repeated(distinct, &copies);
        let mut random = oracle::Random(seed);
        let (draws, trees) = (4000, 800);
        let scores: Vec<f64> = (0..draws).map(|_| oracle::score(&rows, &x, &mut random)).collect();
        let (want, got) = (mean(&scores), score(&forest(&rows, trees, seed), &x));
        // Five standard errors of both: a tree's score is a mean over its insertions, and varies no
        // more than they do. And a little for what is too rare to be drawn.
        let share = 1.0 / f64::from(draws) + 1.0 / f64::from(trees);
        let tolerance = 5.0 * (variance(&scores) * share).sqrt() + 0.005;
        prop_assert!(
            (got - want).abs() <= tolerance,
            "average over random trees {want}, got {got}, tolerance {tolerance}"
        );
    }

    /// A score is another number where the features stand in another order, but one drawn from the
    /// same distribution: a cut picks a feature by its side, not by its place.
    #[test]
    fn the_order_of_features_makes_no_difference_in_distribution(
        seed: u64, count in 2_usize..16, order in orders(2_usize..6), stretch in 0.0_f32..4.0,
    ) {
        // Sides of very different lengths, so that a feature preferred for its place would tell.
        let stretched = |row: &Vec<f32>| -> Vec<f32> {
            row.iter().zip(0_u8..).map(|(x, i)| x * (stretch * f32::from(i)).exp2()).collect()
        };
        let moved = |row: &Vec<f32>| order.iter().map(|&from| row[from]).collect();
        let rows: Vec<Vec<f32>> = cloud(count + 1, order.len(), seed).iter().map(stretched).collect();
        let there: Vec<Vec<f32>> = rows.iter().map(moved).collect();
        // The last is not of the sample, the first is.
        for at in [count, 0] {
            let trees = 600;
            let a = scores_by_tree(&rows[..count], &rows[at], 0..trees);
            let b = scores_by_tree(&there[..count], &there[at], trees..2 * trees);
            // Kolmogorov and Smirnov: larger by chance once in a million.
            let limit = (1e-6_f64 / 2.0).ln().abs().sqrt() / (trees as f64).sqrt();
            let distance = greatest_distance(&a, &b);
            prop_assert!(
                distance <= limit,
                "in the order {order:?} the scores' distribution differs by {distance}, at most \
                 {limit} is chance; means {} and {}", mean(&a), mean(&b)
            );
        }
    }

    /// As long as the copies are no more than the rest: a tree of little else has no anomalies.
    #[test]
    fn scores_fall_as_a_point_is_repeated(
        seed: u64, rest in 20_usize..60, dimensions in 1_usize..4, away in 0.0_f32..4.0,
    ) {
        let base = cloud(rest, dimensions, seed);
        let x = vec![away; dimensions];
        let mut last = f64::MAX;
        for copies in [0, 1, 4, 16, rest] {
            let rows = [base.clone(), vec![x.clone(); copies]].concat();
            let got = score(&forest(&rows, 150, seed), &x);
            prop_assert!(got < last, "{copies} copies score {got}, fewer scored {last}");
            last = got;
        }
    }

    /// The cuts are those of the distinct points. To a point apart, copies are a larger tree and
    /// nothing else; to one of the sample, they are its leaf's mass.
    #[test]
    fn copies_are_mass(
        seed: u64, dimensions in 1_usize..5, copies in prop::collection::vec(1_usize..9, 1..30),
    ) {
        let distinct = cloud(copies.len(), dimensions, seed);
        let rows = repeated(&distinct, &copies);
        let (alone, repeated) = (forest(&distinct, 1, seed), forest(&rows, 1, seed));
        let (n, total) = (distinct.len() as f64, rows.len() as f64);
        let factor = |mass: f64| (mass + 1.0).log2();
        for (x, copies) in distinct.iter().zip(copies) {
            // Of one tree without copies, (1 - 1 / 2n) / (depth + 1) gives the leaf's depth away.
            let depth = factor(n) * (1.0 - 0.5 / n) / score(&alone, x) - 1.0;
            prop_assert!((depth - depth.round()).abs() < 1e-9, "depth {depth} is a whole number");
            let mass = copies as f64;
            let want = factor(total) * (1.0 - mass / (2.0 * total)) / (depth + factor(mass));
            let got = score(&repeated, x);
            prop_assert!((got - want).abs() < 1e-9, "{copies} copies: want {want}, got {got}");
            let apart: Vec<f32> = x.iter().map(|x| x + 0.3).collect();
            let want = score(&alone, &apart) / factor(n) * factor(total);
            let got = score(&repeated, &apart);
            prop_assert!((got - want).abs() < 1e-9, "apart: want {want}, got {got}");
        }
    }
}

/// Each row as often as is said.
fn repeated(rows: &[Vec<f32>], copies: &[usize]) -> Vec<Vec<f32>> {
    let each = rows.iter().zip(copies);
    each.flat_map(|(row, &copies)| std::iter::repeat_n(row.clone(), copies)).collect()
}

/// The greatest difference, over all values, between the shares of `a` and of `b` up to the value.
fn greatest_distance(a: &[f64], b: &[f64]) -> f64 {
    // Equal scores of different sums of the same parts may differ in their last bits.
    let up_to = |value: f64, of: &[f64]| {
        of.iter().filter(|&&x| x <= value + 1e-9).count() as f64 / of.len() as f64
    };
    a.iter().chain(b).map(|&value| (up_to(value, a) - up_to(value, b)).abs()).fold(0.0, f64::max)
}

#[test]
fn a_tree_of_one_point_scores_one_for_any_other() {
    let forest = forest(&[vec![1.0, 2.0]], 3, 1);
    assert_eq!(score(&forest, &[5.0, 5.0]), 1.0, "unseen at depth 0, times log2(2)");
    // The only point: damp 1/2, 1 / log2(2), times log2(2).
    assert_eq!(score(&forest, &[1.0, 2.0]), 0.5);
}

/// AWS's Java library and the formulas say 0.5158 for {0, 0, 1} at 0 (a known fault of a port reads
/// the leaf's mass one too low and says 0.8333).
#[test]
fn a_duplicate_counts_as_mass() {
    let forest = forest(&[vec![0.0], vec![0.0], vec![1.0]], 10, 3);
    let want = (1.0 - 2.0 / 6.0) / (1.0 + 3.0_f64.log2()) * 2.0;
    assert!((score(&forest, &[0.0]) - want).abs() < 1e-12, "want {want}");
    assert!((want - 0.5158).abs() < 5e-5);
}

proptest! {
    #![proptest_config(cases(48))]

    #[test]
    fn attribution_adds_up_to_the_score(
        seed: u64, count in 1_usize..60, dimensions in 1_usize..5, inside: bool, at in 0_usize..60,
    ) {
        let mut rows = cloud(count, dimensions, seed);
        rows.push(rows[0].clone());
        let forest = forest(&rows, 20, seed);
        let mut x = rows[at % rows.len()].clone();
        if !inside {
            x[0] += 0.7;
        }
        let attribution = forest.attribution(&x).expect("its dimensions");
        let (got, want) = (attribution.total(), score(&forest, &x));
        // AWS takes the merged side as one f32 difference, the score as side plus gap.
        prop_assert!((got - want).abs() < 1e-6, "attribution {got}, score {want}");
        prop_assert!(attribution.high.iter().chain(&attribution.low).all(|part| *part >= 0.0));
    }

    #[test]
    fn an_attribution_does_not_depend_on_its_batch(
        seed: u64, count in 2_usize..60, dimensions in 1_usize..20,
    ) {
        let rows = cloud(count, dimensions, seed);
        let forest = forest(&rows[..count.div_ceil(2)], 10, seed);
        let alone: Vec<_> =
            rows.iter().map(|row| forest.attribution(row).expect("its dimensions")).collect();
        let together = forest.attributions(rows.iter().map(Vec::as_slice));
        prop_assert_eq!(alone, together.expect("their dimensions"));
    }

    #[test]
    fn the_order_of_rows_makes_no_difference(
        seed: u64, order in orders(2_usize..50), dimensions in 1_usize..5, distinct in 1_usize..50,
    ) {
        let cloud = cloud(distinct, dimensions, seed);
        let rows = |order: &mut dyn Iterator<Item = usize>| -> Vec<Vec<f32>> {
            order.map(|at| cloud[at % distinct].clone()).collect()
        };
        let sorted = forest(&rows(&mut (0..order.len())), 10, seed);
        prop_assert_eq!(&sorted, &forest(&rows(&mut order.iter().copied()), 10, seed));
    }

    /// Scaling by a power of two is exact in f32, and so are the scores.
    #[test]
    fn a_power_of_two_as_scale_of_all_features_leaves_scores_unchanged(
        seed: u64, count in 2_usize..40, dimensions in 1_usize..5, power in -60_i32..60,
    ) {
        let scaled = |row: &[f32]| -> Vec<f32> {
            row.iter().map(|x| x * 2.0_f32.powi(power)).collect()
        };
        let rows = cloud(count + 1, dimensions, seed);
        let there: Vec<Vec<f32>> = rows.iter().map(|row| scaled(row)).collect();
        let (a, b) = (forest(&rows[..count], 20, seed), forest(&there[..count], 20, seed));
        for (here, there) in rows.iter().zip(&there) {
            prop_assert_eq!(score(&a, here), score(&b, there), "at {:?}", here);
        }
    }

    #[test]
    fn shift_and_positive_scale_of_all_features_leave_scores_unchanged(
        seed: u64, count in 2_usize..40, scale in 0.01_f32..100.0,
        shift in prop::collection::vec(-50.0_f32..50.0, 1..5),
    ) {
        // Coordinates on a grid: none is nearer to another than rounding moves it.
        let on_grid = |row: &Vec<f32>| row.iter().map(|x| (x * 64.0).round() / 64.0).collect();
        let rows: Vec<Vec<f32>> = cloud(count, shift.len(), seed).iter().map(on_grid).collect();
        let moved = |row: &[f32]| -> Vec<f32> {
            row.iter().zip(&shift).map(|(x, shift)| (x + shift) * scale).collect()
        };
        let there: Vec<Vec<f32>> = rows.iter().map(|row| moved(row)).collect();
        let (a, b) = (forest(&rows, 60, seed), forest(&there, 60, seed));
        for x in [vec![0.25; shift.len()], vec![3.0; shift.len()], rows[0].clone()] {
            let (want, got) = (score(&a, &x), score(&b, &moved(&x)));
            // The same breaks of the same boxes, but for a cut rounded to the other side of a point:
            // then one tree in sixty is another.
            prop_assert!((want - got).abs() < 0.02 * want, "want {want}, got {got}");
        }
    }

    #[test]
    fn the_far_point_scores_highest(
        seed: u64, count in 20_usize..200, direction in prop::collection::vec(-1.0_f32..1.0, 1..5),
    ) {
        let dimensions = direction.len();
        let rows = cloud(count, dimensions, seed);
        let forest = forest(&rows, 40, seed);
        let length = direction.iter().fold(1e-3_f32, |most, x| most.max(x.abs()));
        let at: Vec<f32> = direction.iter().map(|x| x / length * 50.0).collect();
        let far = score(&forest, &at);
        for row in rows.iter().chain(&cloud(50, dimensions, !seed)) {
            let near = score(&forest, row);
            prop_assert!(near < far, "{row:?} scores {near}, the far point {at:?} only {far}");
        }
    }

    #[test]
    fn a_batch_scores_as_its_points_do(seed: u64, count in 1_usize..40) {
        let rows = cloud(count, 3, seed);
        let forest = forest(&rows, 15, seed);
        let flat: Vec<f32> = rows.concat();
        let mut scores = Array1::zeros(count);
        let points = ArrayView2::from_shape((count, 3), &flat).expect("its shape");
        forest.score_batch(points, scores.view_mut()).expect("its dimensions");
        for (row, got) in rows.iter().zip(&scores) {
            let want = score(&forest, row);
            prop_assert!((want - f64::from(*got)).abs() < 1e-6, "want {want}, got {got}");
        }
    }
}

#[test]
fn points_of_other_dimensions_are_refused() {
    let forest = forest(&cloud(20, 3, 1), 5, 1);
    let said = forest.score(&[1.0, 2.0]).expect_err("two of three").to_string();
    assert_eq!(said, "the points have 2 dimensions, the forest 3");
    assert!(forest.attribution(&[1.0; 4]).is_err());
    let mut scores = Array1::zeros(5);
    assert!(forest.score_batch(Array2::zeros((5, 2)).view(), scores.view_mut()).is_err());
}

#[test]
fn parameters_out_of_range_are_refused_by_name() {
    let cases = [
        (Params { trees: 0, ..Params::default() }, "trees is 0; 1 to"),
        (Params { samples: 1, ..Params::default() }, "samples is 1; 2 to"),
        (Params { trees: u32::MAX, ..Params::default() }, "trees is 4294967295"),
    ];
    for (params, want) in cases {
        let said = ValidParams::new(params).expect_err("out of range").to_string();
        assert!(said.starts_with(want), "want {want}, got {said}");
    }
    assert_eq!(Params::default().leaf_rule, LeafRule::Damped);
}
