//! Laws that a Random Cut Forest keeps, beside slow and obvious oracles.
#![expect(clippy::expect_used, reason = "helpers of tests")]

use ndarray::{Array1, Array2, ArrayView2};
use proptest::prelude::*;
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

    /// Depth and leaf mass at which `x`, inserted into `points` as one more point, comes to stand
    /// alone in one random tree over all of them: cut the box of both until x is apart.
    pub(super) fn insertion_depth(points: &[Vec<f32>], x: &[f32], random: &mut Random) -> usize {
        let mut points = points.to_vec();
        let mut depth = 0;
        loop {
            let mut with_x = points.clone();
            with_x.push(x.to_vec());
            let (i, value) = cut(&sides(&with_x), random);
            let side = |point: &[f32]| f64::from(point[i]) <= value;
            let kept: Vec<Vec<f32>> =
                points.iter().filter(|point| side(point) == side(x)).cloned().collect();
            if kept.is_empty() {
                return depth;
            }
            if kept.len() < points.len() {
                depth += 1;
            }
            points = kept;
        }
    }
}

/// A point apart from the sample scores the mean of 1 / (depth + 1) over random insertions, times
/// log2(n + 1): the closed formula over fixed trees is that average.
#[test]
fn the_expected_score_is_the_average_over_random_insertions() {
    let rows = cloud(12, 2, 5);
    let forest = forest(&rows, 4000, 9);
    let mut random = oracle::Random(17);
    for x in [[0.1, 0.05], [1.3, -0.4], [4.0, 4.0]] {
        let draws = 20_000;
        let scores: Vec<f64> = (0..draws)
            .map(|_| {
                let depth = oracle::insertion_depth(&rows, &x, &mut random);
                13.0_f64.log2() / (depth as f64 + 1.0)
            })
            .collect();
        let mean = scores.iter().sum::<f64>() / f64::from(draws);
        let got = score(&forest, &x);
        // Standard errors: below 0.012 of the draws, below 0.012 of 4,000 trees.
        assert!((got - mean).abs() < 0.06, "{x:?}: formula {got}, average over insertions {mean}");
    }
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
    #![proptest_config(ProptestConfig::with_cases(48))]

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
    fn the_order_of_rows_makes_no_difference(seed: u64, count in 2_usize..50) {
        let mut rows = cloud(count, 3, seed);
        let a = forest(&rows, 10, seed);
        rows.reverse();
        prop_assert_eq!(&a, &forest(&rows, 10, seed));
    }

    #[test]
    fn shift_and_positive_scale_of_all_features_leave_scores_unchanged(
        seed: u64, count in 2_usize..40, power in -8_i32..8, shift in -8_i32..8,
    ) {
        // Powers of two and small whole shifts of coarse coordinates are exact in f32.
        let coarse = |row: &Vec<f32>| row.iter().map(|x| (x * 64.0).round() / 64.0).collect();
        let rows: Vec<Vec<f32>> = cloud(count, 2, seed).iter().map(coarse).collect();
        let scale = 2.0_f32.powi(power);
        let moved = |row: &[f32]| -> Vec<f32> { row.iter().map(|x| (x + shift as f32) * scale).collect() };
        let (a, b) = (forest(&rows, 60, seed), {
            let rows: Vec<Vec<f32>> = rows.iter().map(|row| moved(row)).collect();
            forest(&rows, 60, seed)
        });
        for x in [[0.25, -0.5], [3.0, 1.0], [rows[0][0], rows[0][1]]] {
            let (want, got) = (score(&a, &x), score(&b, &moved(&x)));
            // The same breaks of the same boxes, but for a cut rounded to the other side of a point.
            prop_assert!((want - got).abs() < 0.05 * want, "want {want}, got {got}");
        }
    }

    #[test]
    fn the_far_point_scores_highest(seed: u64, count in 20_usize..200, dimensions in 1_usize..5) {
        let rows = cloud(count, dimensions, seed);
        let forest = forest(&rows, 40, seed);
        let far = score(&forest, &vec![50.0; dimensions]);
        for row in &rows {
            prop_assert!(score(&forest, row) < far, "{row:?} scores no lower than the far point, {far}");
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
fn scores_fall_as_a_point_is_repeated() {
    let base = cloud(100, 2, 8);
    let x = vec![3.0, 3.0];
    let mut last = f64::MAX;
    for copies in [0, 1, 4, 16, 64] {
        let mut rows = base.clone();
        rows.extend(std::iter::repeat_n(x.clone(), copies));
        let got = score(&forest(&rows, 100, 2), &x);
        assert!(got < last, "{copies} copies score {got}, fewer scored {last}");
        last = got;
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
        (Params { shingle: 0, ..Params::default() }, "shingle is 0"),
    ];
    for (params, want) in cases {
        let said = ValidParams::new(params).expect_err("out of range").to_string();
        assert!(said.starts_with(want), "want {want}, got {said}");
    }
    assert_eq!(Params::default().leaf_rule, LeafRule::Damped);
}
