//! The points of a saved forest, and which of them each tree holds.

use super::json::{Json, Object};
use super::{ImportError, ImportFault, PRECISIONS, Shape, as_u32, check_dimensions, unpacked};
use crate::tree::MAX_SAMPLES;

/// Versions of the point store's state; up to 2.1 its locations are laid out in another way.
const POINT_STORE_VERSIONS: &[&str] = &["2.0", "2.1", "3.0"];

/// Point numbers a file may have beyond one a byte. A point takes at least six bytes, and a point
/// store doubles its room when it is full; but it makes room for two samples before its first point.
const INDICES_BASE: usize = 2 * MAX_SAMPLES;

/// Big-endian floats, read where they stand.
pub(super) struct Floats(Vec<u8>);

impl Floats {
    pub(super) fn read(array: &Json<'_>) -> Result<Self, ImportError> {
        let bytes = array.bytes()?;
        if bytes.len() % 4 != 0 {
            return Err(array.fault(ImportFault::NotFloats { bytes: bytes.len() }));
        }
        Ok(Self(bytes))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len() / 4
    }

    pub(super) fn get(&self, at: usize) -> f32 {
        let bytes = &self.0[4 * at..4 * at + 4];
        f32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    }
}

const POINT_STORE_FIELDS: &[&str] = &[
    "version",
    "precision",
    "dimensions",
    "shingleSize",
    "compressed",
    "directLocationMap",
    "rotationEnabled",
    "indexCapacity",
    "refCount",
    "duplicateRefs",
    "locationList",
    "pointData",
];

/// The points, as they stand in the file.
pub(super) struct PointStore<'a> {
    locations: Json<'a>,
    data_path: String,
    pub(super) dimensions: usize,
    /// With rotation, coordinate `j` of a point that starts at `o` is `(o + j) mod dimensions`.
    rotated: bool,
    /// How often each point is held, by its number; 0 for a number that is not in use. It isn't
    /// compared with the samples, which are what the scores depend on.
    references: Vec<i64>,
    /// Where each point starts in the data; meaningless for a number that is not in use.
    starts: Vec<i64>,
    data: Floats,
}

impl<'a> PointStore<'a> {
    pub(super) fn read(
        state: &Object<'a>,
        shape: &Shape,
        file_len: usize,
    ) -> Result<PointStore<'a>, ImportError> {
        let store = state.need("pointStoreState")?.object(POINT_STORE_FIELDS)?;
        store.need("version")?.one_of(POINT_STORE_VERSIONS)?;
        store.get("precision").map_or(Ok(()), |precision| precision.one_of(PRECISIONS))?;
        check_dimensions(&store, shape)?;
        if store.is_true("directLocationMap")? {
            let direct = store.need("directLocationMap")?;
            let got = "true".to_owned();
            return Err(direct.fault(ImportFault::Unsupported { got, supported: &["false"] }));
        }
        let compressed = store.is_true("compressed")?;
        let most = file_len.saturating_add(INDICES_BASE);
        let capacity = store.need("indexCapacity")?.count(1, most)?;
        let shingle = match store.get("shingleSize") {
            Some(size) => size.count(1, shape.dimensions)?,
            None => 1,
        };
        // Values of one step of the shingle; points start at multiples of it.
        let step = (shape.dimensions / shingle).max(1);
        let references = unpacked(&store.need("refCount")?, compressed, capacity)?;
        let mut references: Vec<i64> = references.into_iter().map(i64::from).collect();
        let locations = store.need("locationList")?;
        let listed = unpacked(&locations, compressed, capacity)?;
        // Compared as text once it is known to be one of the few.
        let starts = if store.need("version")?.text()? == "3.0" {
            if let Some(duplicates) = store.get("duplicateRefs") {
                add_duplicates(&duplicates, compressed, &mut references)?;
            }
            spread(&locations, &listed, &references, step)?
        } else {
            if listed.len() < references.len() {
                let (got, needed) = (listed.len(), references.len());
                return Err(locations.fault(ImportFault::Length {
                    got,
                    other: "refCount",
                    needed,
                }));
            }
            listed.into_iter().map(i64::from).collect()
        };
        let data = store.need("pointData")?;
        Ok(Self {
            locations,
            data_path: data.path().to_owned(),
            dimensions: shape.dimensions,
            rotated: store.is_true("rotationEnabled")?,
            references,
            starts,
            data: Floats::read(&data)?,
        })
    }

    /// The point of a number, if it is in use.
    fn has(&self, point: i64) -> Option<usize> {
        let point = usize::try_from(point).ok()?;
        (*self.references.get(point)? > 0).then_some(point)
    }

    /// Copies a point's coordinates into `row`; -0 becomes +0, as where the library takes points.
    pub(super) fn copy(&self, point: usize, row: &mut [f32]) -> Result<(), ImportError> {
        let (start, got) = (self.starts[point], self.data.len());
        let first = usize::try_from(start).ok();
        let Some(first) = first.filter(|first| first.saturating_add(self.dimensions) <= got) else {
            let dimensions = self.dimensions;
            let fault = ImportFault::Location { point, start, dimensions, got };
            return Err(self.locations.fault(fault));
        };
        let shift = if self.rotated { first % self.dimensions } else { 0 };
        for j in 0..self.dimensions {
            let dimension = (shift + j) % self.dimensions;
            let value = self.data.get(first + j);
            if !value.is_finite() {
                let fault = ImportFault::Coordinate { point, dimension, value };
                return Err(ImportError::At { path: self.data_path.clone(), fault });
            }
            row[dimension] = value + 0.0;
        }
        Ok(())
    }
}

/// Adds (point, extra count) pairs to the counts, which are cut off at the number of trees.
fn add_duplicates(
    duplicates: &Json<'_>,
    compressed: bool,
    references: &mut [i64],
) -> Result<(), ImportError> {
    let pairs = unpacked(duplicates, compressed, 2 * references.len())?;
    for (pair, [point, extra]) in pairs.as_chunks().0.iter().enumerate() {
        let slot = usize::try_from(*point).ok().and_then(|point| references.get_mut(point));
        let Some(slot) = slot else {
            let fault = ImportFault::NoSuchPoint { at: 2 * pair, point: i64::from(*point) };
            return Err(duplicates.fault(fault));
        };
        *slot += i64::from(*extra);
    }
    if pairs.len() % 2 == 1 {
        let (got, needed) = (pairs.len(), pairs.len() + 1);
        return Err(duplicates.fault(ImportFault::Length { got, other: "its last pair", needed }));
    }
    Ok(())
}

/// Version 3.0 lists only the points in use, in order and in steps of the shingle.
fn spread(
    locations: &Json<'_>,
    listed: &[i32],
    references: &[i64],
    step: usize,
) -> Result<Vec<i64>, ImportError> {
    let needed = references.iter().filter(|&&count| count > 0).count();
    if listed.len() != needed {
        let (got, other) = (listed.len(), "refCount, by its values above 0,");
        return Err(locations.fault(ImportFault::Length { got, other, needed }));
    }
    let mut listed = listed.iter();
    let start = |&count: &i64| {
        let location = if count > 0 { listed.next() } else { None };
        location.map_or(-1, |&location| i64::from(location) * step as i64)
    };
    Ok(references.iter().map(start).collect())
}

/// Copies of one point in a sample.
pub(super) struct Run {
    pub(super) point: usize,
    pub(super) copies: u32,
}

/// A tree's sample: points in ascending order of their numbers, with their copies.
pub(super) fn read_sample(
    sampler: &Json<'_>,
    shape: &Shape,
    points: &PointStore<'_>,
) -> Result<Vec<Run>, ImportError> {
    let state = sampler.object(&["size", "pointIndex", "compressed"])?;
    let size = state.need("size")?.count(0, shape.samples)?;
    let list = state.need("pointIndex")?;
    let mut indices = unpacked(&list, state.is_true("compressed")?, shape.samples)?;
    if indices.len() < size {
        let got = indices.len();
        return Err(list.fault(ImportFault::Length { got, other: "size", needed: size }));
    }
    indices.truncate(size);
    for (at, &point) in indices.iter().enumerate() {
        let point = i64::from(point);
        if points.has(point).is_none() {
            return Err(list.fault(ImportFault::NoSuchPoint { at, point }));
        }
    }
    indices.sort_unstable();
    let runs = indices.chunk_by(|a, b| a == b).filter_map(|run| {
        let point = points.has(i64::from(*run.first()?))?;
        Some(Run { point, copies: as_u32(run.len()) })
    });
    Ok(runs.collect())
}
