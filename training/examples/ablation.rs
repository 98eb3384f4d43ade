//! From a Random Cut Forest to an isolation forest, one difference at a time: which of them decides
//! on which set. The tables of docs/accuracy.md.
//!
//!     cargo run --release -p sawlog-training --example ablation -- POINTS.csv...
//!
//! A file is one that the example `accuracy` writes with --points: transformed coordinates, then 1
//! for an anomaly. Trees here are built and scored plainly, apart from the model's code, since the
//! model has one way only. 100 trees of 256 points, five seeds,
//! ROC-AUC / average precision in per cent.
#![allow(clippy::expect_used, clippy::print_stdout)]

const SEEDS: u64 = 5;
const TREES: usize = 100;
const SAMPLES: usize = 256;

/// Which dimension a cut takes.
#[derive(Clone, Copy, PartialEq)]
enum Cut {
    /// One in proportion to its side, as a Random Cut Forest does.
    ByRange,
    /// Any that varies, as an isolation forest does.
    Uniform,
}

/// What a tree says of a point.
#[derive(Clone, Copy, PartialEq)]
enum Say {
    /// The Random Cut Forest's score.
    Score,
    /// The same with a point that equals a leaf set apart from it, as if it were just beside.
    ScoreUnseen,
    /// The expected depth at which the inserted point is set apart, in place of its inverse: minus
    /// p d + (1 - p) (what is below), from the leaf up.
    ScoreOfDepth,
    /// 1 / (depth + 1), with the depth where the point ends up, boxes left out of account.
    InverseDepth,
    /// Minus the depth where the point ends up; a leaf of m copies counts c(m) more.
    Depth,
    /// The same in a tree cut off at the depth log2(samples), as an isolation forest is.
    CappedDepth,
}

struct Node {
    dimension: usize,
    cut: f32,
    /// Indices of the children; none in a leaf.
    children: Option<(usize, usize)>,
    mass: usize,
    min: Vec<f32>,
    max: Vec<f32>,
}

fn main() {
    let files: Vec<String> = std::env::args().skip(1).collect();
    let columns = [
        ("by range, score", Cut::ByRange, Say::Score),
        ("by range, score, never equal", Cut::ByRange, Say::ScoreUnseen),
        ("by range, inserted depth", Cut::ByRange, Say::ScoreOfDepth),
        ("by range, inverse depth", Cut::ByRange, Say::InverseDepth),
        ("by range, depth", Cut::ByRange, Say::Depth),
        ("by range, depth up to 8", Cut::ByRange, Say::CappedDepth),
        ("uniform, score", Cut::Uniform, Say::Score),
        ("uniform, depth", Cut::Uniform, Say::Depth),
        ("uniform, depth up to 8", Cut::Uniform, Say::CappedDepth),
    ];
    println!("| set | {} |", columns.map(|(name, ..)| name).join(" | "));
    println!("|---|{}", "---|".repeat(columns.len()));
    for file in &files {
        let text = std::fs::read_to_string(file).expect("a file");
        let (points, labels): (Vec<Vec<f32>>, Vec<bool>) = text
            .lines()
            .map(|line| {
                let mut row: Vec<f32> =
                    line.split(',').map(|cell| cell.parse().expect("a number")).collect();
                let label = row.pop() == Some(1.0);
                (row, label)
            })
            .unzip();
        let cells = columns.map(|(_, cut, say)| {
            let runs: Vec<(f64, f64)> = (0..SEEDS)
                .map(|seed| auc_and_precision(&scores(&points, cut, say, seed), &labels))
                .collect();
            format!("{} / {}", spread(&runs, |run| run.0), spread(&runs, |run| run.1))
        });
        let name = file.rsplit('/').next().unwrap_or(file).trim_end_matches("-auto.csv");
        println!("| {name} | {} |", cells.join(" | "));
    }
}

fn scores(points: &[Vec<f32>], cut: Cut, say: Say, seed: u64) -> Vec<f64> {
    let mut random = SplitMix(seed);
    let mut sums = vec![0.0; points.len()];
    let samples = SAMPLES.min(points.len());
    let cap = if say == Say::CappedDepth { samples.ilog2() as usize } else { usize::MAX };
    let mut order: Vec<usize> = (0..points.len()).collect();
    for _ in 0..TREES {
        for at in 0..samples {
            order.swap(at, at + (random.uniform() * (points.len() - at) as f64) as usize);
        }
        let mut nodes = Vec::new();
        build(points, &mut order[..samples].to_vec(), cut, cap, &mut random, &mut nodes);
        for (sum, point) in sums.iter_mut().zip(points) {
            *sum += tree_says(&nodes, point, say);
        }
    }
    sums
}

/// Adds the node of these members and those below it; returns its index.
fn build(
    points: &[Vec<f32>],
    members: &mut [usize],
    how: Cut,
    cap: usize,
    random: &mut SplitMix,
    nodes: &mut Vec<Node>,
) -> usize {
    let (mut min, mut max) = (points[members[0]].clone(), points[members[0]].clone());
    for &member in members.iter() {
        for (at, &x) in points[member].iter().enumerate() {
            min[at] = min[at].min(x);
            max[at] = max[at].max(x);
        }
    }
    let gaps: Vec<f64> = min.iter().zip(&max).map(|(min, max)| f64::from(max - min)).collect();
    let weights: Vec<f64> = match how {
        Cut::ByRange => gaps.clone(),
        Cut::Uniform => gaps.iter().map(|&gap| f64::from(u8::from(gap > 0.0))).collect(),
    };
    let total: f64 = weights.iter().sum();
    let index = nodes.len();
    let mass = members.len();
    nodes.push(Node { dimension: 0, cut: 0.0, children: None, mass, min, max });
    if total == 0.0 || cap == 0 {
        return index;
    }
    let mut rest = random.uniform() * total;
    let mut dimension = 0;
    for (at, &weight) in weights.iter().enumerate().filter(|(_, weight)| **weight > 0.0) {
        dimension = at;
        if rest <= weight {
            break;
        }
        rest -= weight;
    }
    let (low, high) = (nodes[index].min[dimension], nodes[index].max[dimension]);
    let cut = (f64::from(low) + random.uniform() * gaps[dimension]) as f32;
    let cut = if cut >= high { high.next_down() } else { cut };
    members.sort_by_key(|&member| points[member][dimension] > cut);
    let left = members.iter().filter(|&&member| points[member][dimension] <= cut).count();
    let (left, right) = members.split_at_mut(left);
    let left = build(points, left, how, cap.saturating_sub(1), random, nodes);
    let right = build(points, right, how, cap.saturating_sub(1), random, nodes);
    let node = &mut nodes[index];
    (node.dimension, node.cut, node.children) = (dimension, cut, Some((left, right)));
    index
}

fn tree_says(nodes: &[Node], point: &[f32], say: Say) -> f64 {
    let mut path = vec![&nodes[0]];
    while let Some((left, right)) = path[path.len() - 1].children {
        let node = path[path.len() - 1];
        path.push(&nodes[if point[node.dimension] <= node.cut { left } else { right }]);
    }
    let (total, leaf, depth) =
        (nodes[0].mass as f64, path[path.len() - 1], (path.len() - 1) as f64);
    let mass = leaf.mass as f64;
    if matches!(say, Say::Depth | Say::CappedDepth) {
        return -depth - unsuccessful_search(mass);
    }
    if say == Say::InverseDepth {
        return 1.0 / (depth + unsuccessful_search(mass) + 1.0);
    }
    if say == Say::ScoreOfDepth {
        let mut expected = depth + if leaf.min == point { unsuccessful_search(mass) } else { 1.0 };
        for (depth, node) in path.iter().enumerate().rev().skip(1) {
            let p = separation(node, point);
            expected = p * (depth as f64 + 1.0) + (1.0 - p) * expected;
        }
        return -expected;
    }
    let mut score = if leaf.min == point {
        let damped = (1.0 - mass / (2.0 * total)) / (depth + (mass + 1.0).log2());
        if say == Say::Score {
            return damped * (total + 1.0).log2();
        }
        1.0 / (depth + 1.0)
    } else {
        1.0 / (depth + 1.0)
    };
    for (depth, node) in path.iter().enumerate().rev().skip(1) {
        let p = separation(node, point);
        score = p / (depth as f64 + 1.0) + (1.0 - p) * score;
    }
    score * (total + 1.0).log2()
}

/// Probability that a cut by range of the box merged with the point separates the two.
fn separation(node: &Node, point: &[f32]) -> f64 {
    let sides = node.min.iter().zip(&node.max).zip(point);
    let (range, gap) = sides.fold((0.0, 0.0), |(range, gap), ((&min, &max), &x)| {
        let out = (min - x).max(0.0) + (x - max).max(0.0);
        (range + f64::from(max - min), gap + f64::from(out))
    });
    if gap > 0.0 { gap / (range + gap) } else { 0.0 }
}

/// Mean depth at which a search for something else ends in a tree of `mass` points: c(m) of the
/// isolation forest's paper.
fn unsuccessful_search(mass: f64) -> f64 {
    if mass <= 1.0 {
        0.0
    } else {
        2.0 * ((mass - 1.0).ln() + 0.577_215_664_9) - 2.0 * (mass - 1.0) / mass
    }
}

/// Mean and sample deviation, in per cent.
fn spread(runs: &[(f64, f64)], of: fn(&(f64, f64)) -> f64) -> String {
    let n = runs.len() as f64;
    let mean = runs.iter().map(of).sum::<f64>() / n;
    let squares = runs.iter().map(|run| (of(run) - mean).powi(2)).sum::<f64>();
    format!("{:.1} ± {:.1}", 100.0 * mean, 100.0 * (squares / (n - 1.0)).sqrt())
}

/// Area under the ROC curve and average precision; equal scores are taken together.
fn auc_and_precision(scores: &[f64], labels: &[bool]) -> (f64, f64) {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    let positives = labels.iter().filter(|&&label| label).count() as f64;
    let negatives = labels.len() as f64 - positives;
    let (mut hits, mut misses, mut area, mut precision) = (0.0, 0.0, 0.0, 0.0);
    for tie in order.chunk_by(|&a, &b| scores[a] == scores[b]) {
        let tied_hits = tie.iter().filter(|&&at| labels[at]).count() as f64;
        let tied_misses = tie.len() as f64 - tied_hits;
        area += tied_misses * (hits + tied_hits / 2.0);
        hits += tied_hits;
        misses += tied_misses;
        precision += tied_hits / positives * hits / (hits + misses);
    }
    (area / (positives * negatives), precision)
}

struct SplitMix(u64);

impl SplitMix {
    /// Uniform in [0, 1).
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}
