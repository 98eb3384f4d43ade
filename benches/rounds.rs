//! What the benches share: the points, the forest, the clock, and rounds.
//!
//! The machine may be shared. So the pieces of work that are compared take turns, once a round, and
//! medians over the rounds are compared; and single threads are measured in their own CPU time, which
//! leaves out the stretches in which someone else had the core.

// Each bench uses a part.
#![allow(dead_code)]

use std::time::{Duration, Instant};

use criterion::{BenchmarkGroup, SamplingMode, measurement::WallTime};
use ndarray::{Array1, ArrayView2};
use rand_core::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use rustix::time::{ClockId, clock_gettime};
use sawlog_model::{Forest, Params, ValidParams};

pub const TREES: u32 = 100;
pub const SAMPLES: u32 = 256;
/// One point for each place in the trees' samples.
pub const TRAINING: usize = (TREES * SAMPLES) as usize;
pub const BATCH: usize = 10_000;
pub const FEATURES: [usize; 3] = [3, 8, 32];

/// Points in rows.
pub struct Points {
    pub features: usize,
    pub coordinates: Vec<f32>,
}

impl Points {
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[f32]> + Clone {
        self.coordinates.chunks_exact(self.features)
    }

    pub fn view(&self) -> ArrayView2<'_, f32> {
        let rows = self.coordinates.len() / self.features;
        ArrayView2::from_shape((rows, self.features), &self.coordinates).expect("whole rows")
    }
}

/// What request logs look like behind their transforms: a few kinds of requests, from very common to
/// rare, each a normal cloud of its own place and spread, and one request in a hundred with up to
/// three features far out. Training points and queries are drawn from the same.
pub fn points(features: usize) -> (Points, Points) {
    const SHARES: [f64; 5] = [0.45, 0.30, 0.15, 0.08, 0.02];
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(features as u64);
    let kinds: Vec<Vec<(f64, f64)>> = SHARES
        .iter()
        .map(|_| {
            let mut cloud = || (6.0 * uniform(&mut rng) - 3.0, 0.2 + 0.8 * uniform(&mut rng));
            (0..features).map(|_| cloud()).collect()
        })
        .collect();
    let mut draw = |count: usize| {
        let mut coordinates = Vec::with_capacity(count * features);
        for _ in 0..count {
            let mut share = uniform(&mut rng);
            let kind = SHARES.iter().position(|s| {
                share -= s;
                share < 0.0
            });
            let cloud = &kinds[kind.unwrap_or(0)];
            let start = coordinates.len();
            coordinates.extend(cloud.iter().map(|(at, spread)| at + spread * normal(&mut rng)));
            if uniform(&mut rng) < 0.01 {
                for _ in 0..3 {
                    let feature = (uniform(&mut rng) * features as f64) as usize;
                    coordinates[start + feature] -= 6.0 * libm::log(1.0 - uniform(&mut rng));
                }
            }
        }
        Points { features, coordinates: coordinates.iter().map(|&x| x as f32).collect() }
    };
    (draw(TRAINING), draw(BATCH))
}

fn uniform(rng: &mut Xoshiro256PlusPlus) -> f64 {
    (rng.next_u64() >> 11) as f64 * f64::EPSILON / 2.0
}

fn normal(rng: &mut Xoshiro256PlusPlus) -> f64 {
    let radius = libm::sqrt(-2.0 * libm::log(1.0 - uniform(rng)));
    radius * libm::cos(std::f64::consts::TAU * uniform(rng))
}

pub fn params(trees: u32, samples: u32) -> ValidParams {
    ValidParams::new(Params { trees, samples, ..Params::default() }).expect("in range")
}

/// Each tree has the next stretch of the points, which are in no order.
pub fn forest(training: &Points, trees: u32, samples: u32) -> Forest {
    let rows = training.rows();
    let sample = |tree: usize| {
        let start = tree * samples as usize % rows.len();
        rows.clone().cycle().skip(start).take(samples as usize)
    };
    Forest::build(training.features, &params(trees, samples), sample).expect("sound points")
}

pub fn score(forest: &Forest, points: ArrayView2<'_, f32>, scores: &mut Array1<f32>) {
    forest.score_batch(points, scores.view_mut()).expect("its dimensions");
}

/// CPU time of the calling thread.
pub fn cpu_now() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// CPU time that the calling thread takes for it.
pub fn cpu(work: impl FnOnce()) -> Duration {
    let start = cpu_now();
    work();
    cpu_now() - start
}

/// CPU time that all threads of the process take for it.
pub fn cpu_of_all(work: impl FnOnce()) -> Duration {
    let now = || clock_gettime(ClockId::ProcessCPUTime);
    let (start, ()) = (now(), work());
    let end = now();
    Duration::new(end.tv_sec as u64, end.tv_nsec as u32)
        - Duration::new(start.tv_sec as u64, start.tv_nsec as u32)
}

/// Time by the clock on the wall.
pub fn wall(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

/// A piece of work that takes its turn in each round.
pub struct Work<'a> {
    pub name: String,
    /// What one run goes through: points, or 1.
    elements: usize,
    /// Gets the number of the round and returns what it took.
    run: Box<dyn FnMut(usize) -> Duration + 'a>,
    times: Vec<Duration>,
}

impl<'a> Work<'a> {
    pub fn new(name: &str, elements: usize, run: impl FnMut(usize) -> Duration + 'a) -> Self {
        Self { name: name.into(), elements, run: Box::new(run), times: Vec::new() }
    }

    /// Median microseconds an element.
    pub fn micros(&self) -> f64 {
        median(&self.times) * 1e6 / self.elements as f64
    }
}

/// Runs each piece of work once unmeasured and then once a round.
pub fn measure(works: &mut [Work<'_>], rounds: usize) {
    for round in 0..=rounds {
        for work in &mut *works {
            let time = (work.run)(round);
            if round > 0 {
                work.times.push(time);
            }
        }
    }
}

/// Hands criterion the times of the rounds, two a sample, for its estimates and its comparison with
/// the run before. It can't take turns itself: it runs one piece of work after the other.
pub fn report(group: &mut BenchmarkGroup<'_, WallTime>, work: &Work<'_>) {
    let samples = work.times.len() / 2;
    if samples < 10 {
        return;
    }
    // Criterion warms up by one run and takes its length for the rest. One and a half such runs a
    // sample make two of them, rounded up.
    const WARM_UP: Duration = Duration::from_millis(10);
    let mut pairs = work.times.chunks_exact(2).map(|pair| pair[0] + pair[1]).cycle();
    let mut warmed_up = false;
    group.sampling_mode(SamplingMode::Flat).sample_size(samples).nresamples(10_000);
    group.warm_up_time(Duration::from_nanos(1));
    group.measurement_time(WARM_UP.mul_f64(1.5 * samples as f64));
    group.throughput(criterion::Throughput::Elements(work.elements as u64));
    group.bench_function(&work.name, |bencher| {
        bencher.iter_custom(|runs| {
            if !std::mem::replace(&mut warmed_up, true) {
                std::thread::sleep(WARM_UP);
                return WARM_UP;
            }
            pairs.next().map_or(Duration::ZERO, |pair| pair.mul_f64(runs as f64 / 2.0))
        });
    });
}

/// Median in seconds.
pub fn median(times: &[Duration]) -> f64 {
    let mut sorted: Vec<f64> = times.iter().map(Duration::as_secs_f64).collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}
