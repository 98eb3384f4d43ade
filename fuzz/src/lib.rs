//! What the targets share: a limit on memory, and what must hold of a forest whatever it was read
//! from.
//!
//! The targets attack what reads bytes from outside, by what an attacker or an accident controls:
//!
//! ```text
//! snapshot   a model from a bucket: its bytes
//! sketch     what a training worker sends: its bytes
//! import     a file of AWS's library: its bytes
//! spec       a specification written by hand, and the records read by it
//! record     one record of a log, by specifications as people write them
//! event      an invocation of the Lambda: its text, or what a record in it carries
//! csv, json, jsonlines, recordio   a request to `sawlog serve`: its body in each content type
//! ```
//!
//! Each ends in a value or an error, never in a panic, an endless loop or an allocation out of
//! proportion; and a value must then do what it promises. `fuzz/run` says how they are run.

use ndarray::{Array1, ArrayView2};
use peak_alloc::PeakAlloc;
use sawlog_model::{Features, MAX_COORDINATE, Model};
use sha2::{Digest, Sha256};

pub mod bodies;
// The Lambda's own modules, by symbolic links: its crate would bring the AWS SDK along.
#[allow(dead_code)]
pub mod content;
#[allow(dead_code)]
pub mod event;
#[allow(dead_code)]
pub mod origin;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// The fast path sums in f32: it agrees with the plain one to about 1e-6 on usual data, and to this
/// where coordinates lie 60 orders of magnitude apart, as here.
const BATCH_TOLERANCE: f64 = 1e-4;

/// Does the work and panics if it takes more than so many bytes at any time.
pub fn within<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    let done = work();
    let taken = MEMORY.peak_usage().saturating_sub(before);
    assert!(taken <= bytes, "took {taken} bytes, {bytes} are allowed");
    done
}

/// Bytes of the envelope before the header: magic, version, lengths of the header and of the whole.
pub const PREFIX: usize = 24;
const CHECKSUM: usize = 32;

/// The bytes with the envelope of a snapshot or a sketch, in the places of what was there; none if they are
/// fewer than an envelope has. The version stays if it is one of 1 to `newest`, and is 1 otherwise.
pub fn sealed(data: &[u8], magic: &[u8; 8], newest: u8) -> Option<Vec<u8>> {
    let mut bytes = data.to_vec();
    let body_len = bytes.len().checked_sub(CHECKSUM).filter(|&len| len >= PREFIX)?;
    bytes[..8].copy_from_slice(magic);
    let version = if (1..=newest).contains(&bytes[8]) { bytes[8] } else { 1 };
    bytes[8..12].copy_from_slice(&u32::from(version).to_le_bytes());
    let len = bytes.len() as u64;
    bytes[16..PREFIX].copy_from_slice(&len.to_le_bytes());
    let checksum = Sha256::digest(&bytes[..body_len]);
    bytes[body_len..].copy_from_slice(&checksum);
    Some(bytes)
}

/// Coordinates on both sides of every limit.
const COORDINATES: [f32; 16] = [
    0.0,
    1.0,
    -1.0,
    0.5,
    7.25,
    -3e5,
    f32::MIN_POSITIVE,
    1e-45,
    MAX_COORDINATE,
    -MAX_COORDINATE,
    3e30,
    f32::MAX,
    f32::MIN,
    f32::INFINITY,
    f32::NEG_INFINITY,
    f32::NAN,
];

/// Least magnitude, other than 0, at which the two paths are compared: below it ranges and gaps are
/// subnormal in f32, where the fast path rounds coarsely.
const TINY: f32 = 1e-30;

/// What must hold of a model whatever it was read from: it scores and explains any point, alone and
/// in a batch, and it is the same when written and read again.
pub fn works(model: &Model) {
    let forest = model.forest();
    let d = forest.dimensions();
    let written = model.encode();
    // A snapshot ends with the leaves' points and its checksum.
    let end = written.len() - 32;
    let leaves: Vec<f32> = written[end - 4 * d * forest.leaves()..end]
        .as_chunks()
        .0
        .iter()
        .map(|&four| f32::from_le_bytes(four))
        .collect();
    let points = queries(d, &leaves);
    let rows = points.len() / d;
    let view = ArrayView2::from_shape((rows, d), &points).expect("whole rows");
    let mut scores = Array1::from_elem(rows, f32::NAN);
    forest.score_batch(view, scores.view_mut()).expect("its dimensions");
    let is_plain = |x: &f32| *x == 0.0 || (TINY..=MAX_COORDINATE).contains(&x.abs());
    let leaves_are_plain = leaves.iter().all(is_plain);
    for (row, &batch) in points.chunks_exact(d).zip(&scores) {
        assert!(batch.is_finite() && batch >= 0.0, "batch: {batch} at {row:?}");
        let plain = forest.score(row).expect("its dimensions");
        if row.iter().all(|x| x.is_finite()) {
            assert!(plain.is_finite() && plain >= 0.0, "plain: {plain} at {row:?}");
        }
        let agree = |a: f64, b: f64| (a - b).abs() <= BATCH_TOLERANCE * a.max(1.0);
        if leaves_are_plain && row.iter().all(is_plain) {
            assert!(agree(plain, batch.into()), "plain {plain}, batch {batch}: {row:?}");
        }
        let mut alone = [f32::NAN];
        let view = ArrayView2::from_shape((1, d), row).expect("one row");
        forest.score_batch(view, (&mut alone).into()).expect("its dimensions");
        assert_eq!(alone[0].to_bits(), batch.to_bits(), "{alone:?} alone, {batch}: {row:?}");
        let shares = model.explain(row).expect("its dimensions");
        assert!(shares.iter().all(|share| share.high >= 0.0 && share.low >= 0.0), "{shares:?}");
        let total: f32 = shares.iter().map(|share| share.high + share.low).sum();
        assert!(total == 0.0 || (total - 1.0).abs() < 1e-3, "shares add up to {total}: {row:?}");
    }
    assert!(forest.score(&points[..d - 1]).is_err(), "a coordinate less");
    let read = Model::decode(&written).expect("just written");
    assert_eq!(read.encode(), written);
}

/// Points of all kinds, row after row: beyond every limit, equal to a leaf and next to one.
fn queries(d: usize, leaves: &[f32]) -> Vec<f32> {
    let mut points: Vec<f32> = Vec::new();
    for &coordinate in &COORDINATES {
        points.extend(std::iter::repeat_n(coordinate, d));
    }
    // Every coordinate another one.
    points.extend(COORDINATES.iter().cycle().take(2 * d));
    for leaf in leaves.chunks_exact(d).take(4) {
        points.extend(leaf);
        points.extend(leaf.iter().map(|x| x.next_up()));
        points.extend(leaf.iter().map(|x| x + 1.0));
    }
    points
}

/// Turns a record into a point if it can be read: finite and within the forest's limits.
pub fn encodes(features: &Features, payload: &[u8]) -> Option<Vec<f32>> {
    let values = match features.read(payload) {
        Ok(values) => values,
        Err(error) => {
            assert!(!error.to_string().is_empty() && !error.class().is_empty());
            return None;
        }
    };
    let mut point = vec![f32::NAN; features.dimensions()];
    // A series of the same record.
    let values = vec![values; features.spec().shingle_size()].concat();
    features.encode(&values, &mut point).expect("what `read` takes can be encoded");
    assert!(point.iter().all(|x| x.abs() <= MAX_COORDINATE), "{point:?} of {values:?}");
    Some(point)
}
