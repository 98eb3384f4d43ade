//! The snapshot: a model as bytes.
//!
//! Little-endian, fixed width:
//!
//! ```text
//! offset  bytes   what
//! 0       8       magic "SAWLOGRF"
//! 8       4       version, u32: 3 if there is an endpoint's calibration, else 2 if a point is made of
//!                 several records, else 1
//! 12      4       H, length of the header, u32, at most 16 MiB
//! 16      8       L, length of the whole snapshot, u64
//! 24      H       header: `Header` in bincode 2, fixed integers, little-endian; in versions 2
//!                 and 3 then the key of the shingle, `Option<String>`; in version 3 then the
//!                 endpoint's calibration, `EndpointCalibration`: its name, the distribution of
//!                 its scores, and 103 pairs of f64, ascending
//! 24+H    ...     zeros up to a multiple of 4
//! then the sections, each padded with zeros to a multiple of 4, for T trees (from the header) and
//! d dimensions (the sum over the features):
//!   leaves       4 T            number of leaves of each tree, u32; N is their sum
//!   shape        sum of ceil((2 n - 1) / 8) over the trees of n leaves: one bit a node in
//!                breadth-first order, lowest bit first, 1 for an internal node; the children of
//!                the j-th internal node of a tree are its nodes 2 j + 1 and 2 j + 2
//!   dimensions   2 (N - T)      dimension of each cut, u16
//!   cuts         4 (N - T)      value of each cut, f32
//!   masses       4 N            mass of each leaf, u32
//!   points       4 d N          coordinates of each leaf's point, f32
//! L-32    32      SHA-256 of everything before
//! ```
//!
//! A model of single records is still written as version 1, so that programs which know nothing of
//! shingles read it, and refuse what they would score wrongly; and one without an endpoint's
//! calibration is written as before there was such a thing.
//!
//! Boxes are not stored: they follow from the points. The shape can't hold a cycle, since a child's
//! place follows from its parent's; that every node hangs on an earlier one is checked. What is
//! wrong is told in this order: magic, length, version, checksum, header, its contents, section lengths
//! against what is there (before anything is allocated), then each tree as
//! [`crate::forest::StructureFault`] lists. The checksum of a large one is worked out on a second thread
//! meanwhile. Nothing is allocated beyond a small multiple of the snapshot's own length, and no bytes
//! make it panic.

use bincode::{Decode, Encode};
use sha2::{Digest, Sha256};

use super::{Model, Provenance};
use crate::beside::beside;
use crate::calibration::{Calibration, EndpointCalibration};
use crate::features::{FeatureError, Features, Fitted};
use crate::forest::{Forest, ParamError, Params, StructureError, TreeSource, ValidParams};
use crate::spec::{FeatureSpec, Format, Shingle, Spec, SpecError, ValidSpec};
use crate::tree::MAX_DIMENSIONS;

const MAGIC: [u8; 8] = *b"SAWLOGRF";
/// The version of models whose points are records.
const VERSION: u32 = 1;
/// The version of models whose points are made of several records.
const VERSION_SHINGLED: u32 = 2;
/// The version of models that hold an endpoint's calibration.
const VERSION_WITH_ENDPOINT: u32 = 3;
/// Bytes before the header.
const PREFIX: usize = 24;
/// Bytes of the checksum at the end.
const CHECKSUM: usize = 32;
/// Longest header: 10,000 features with names and fields of 256 bytes each fit.
pub(crate) const MAX_HEADER: usize = 16 << 20;

#[derive(Encode, Decode)]
struct Header {
    format: Format,
    features: Vec<FeatureSpec>,
    fitted: Vec<Fitted>,
    params: Params,
    /// Records a point is made of; 1 in version 1, at least 2 in version 2, at least 1 in version 3.
    shingle: u32,
    calibration: Option<Calibration>,
    provenance: Provenance,
}

/// Why bytes are no model.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Fewer bytes than a section needs.
    #[error(
        "snapshot truncated: {section} needs {expected} bytes at offset {offset}, {got} are there"
    )]
    Truncated {
        /// The section.
        section: &'static str,
        /// Where it starts.
        offset: usize,
        /// Bytes it needs.
        expected: u64,
        /// Bytes there are.
        got: u64,
    },
    /// Not a snapshot at all.
    #[error("not a sawlog model (`sawlog train` writes one): at offset 0 is {found}")]
    Magic {
        /// What it looks like instead.
        found: &'static str,
    },
    /// Written by another version.
    #[error(
        "snapshot version {got} at offset 8; this program reads versions {VERSION} to {VERSION_WITH_ENDPOINT}"
    )]
    Version {
        /// Its version.
        got: u32,
    },
    /// Another length than the snapshot says.
    #[error("snapshot length at offset 16 is {expected}, but there are {got} bytes")]
    Length {
        /// As it says.
        expected: u64,
        /// As it is.
        got: u64,
    },
    /// Bytes changed since it was written.
    #[error("checksum at offset {offset} does not match: the snapshot is damaged")]
    Checksum {
        /// Where the checksum stands.
        offset: usize,
    },
    /// The header can't be decoded.
    #[error("header at offset {PREFIX}: {source}")]
    Header {
        /// What the decoder says.
        #[source]
        source: bincode::error::DecodeError,
    },
    /// The header is followed by bytes of its own length that mean nothing.
    #[error("header at offset {PREFIX} has {unused} bytes too many")]
    HeaderUnused {
        /// How many.
        unused: usize,
    },
    /// A parameter out of its range.
    #[error("header at offset {PREFIX}: {0}")]
    Params(#[source] ParamError),
    /// The specification doesn't hold.
    #[error("header at offset {PREFIX}: {0}")]
    Spec(#[source] SpecError),
    /// What was learned doesn't go with the specification.
    #[error("header at offset {PREFIX}: {0}")]
    Features(#[source] FeatureError),
    /// The key of a shingle, and no shingle.
    #[error("header at offset {PREFIX}: there is a key of series, but a point is one record")]
    ShingleKey,
    /// A calibration with numbers that can't be.
    #[error("header at offset {PREFIX}: the calibration is not sound")]
    Calibration,
    /// A tree that isn't one.
    #[error("{section} at offset {offset}: {source}")]
    Structure {
        /// The section where the trees begin.
        section: &'static str,
        /// Its offset.
        offset: usize,
        /// The tree and what is wrong with it.
        #[source]
        source: StructureError,
    },
    /// Padding that isn't zero, or bytes between the last section and the checksum.
    #[error("{section} at offset {offset}: there are bytes that mean nothing")]
    Unused {
        /// The section before them.
        section: &'static str,
        /// Where they are.
        offset: usize,
    },
}

impl Model {
    /// The model as bytes, as the module describes them.
    pub fn encode(&self) -> Vec<u8> {
        let spec = self.features.spec().spec().clone();
        let header = Header {
            format: spec.format,
            features: spec.features,
            fitted: self.features.fitted().to_vec(),
            params: *self.params.get(),
            shingle: spec.shingle.as_ref().map_or(1, |shingle| shingle.size),
            calibration: self.calibration.clone(),
            provenance: self.provenance.clone(),
        };
        let (version, header) = match (spec.shingle, &self.endpoint) {
            (None, None) => (VERSION, encode_header(header)),
            (Some(shingle), None) => (VERSION_SHINGLED, encode_header((header, shingle.key))),
            (shingle, Some(endpoint)) => {
                let key = shingle.and_then(|shingle| shingle.key);
                (VERSION_WITH_ENDPOINT, encode_header((header, key, endpoint)))
            }
        };
        let forest = &self.forest;
        let mut out = Vec::with_capacity(
            PREFIX + header.len() + (16 + 4 * forest.dimensions()) * forest.leaves(),
        );
        out.extend_from_slice(&MAGIC);
        put_u32(&mut out, version as usize);
        put_u32(&mut out, header.len());
        out.extend_from_slice(&[0; 8]);
        out.extend_from_slice(&header);
        pad(&mut out);
        forest.trees.iter().for_each(|tree| put_u32(&mut out, tree.leaves));
        for tree in &forest.trees {
            for eight in forest.nodes_of(tree).chunks(8) {
                let bit = |(at, node): (usize, &crate::tree::Node)| u8::from(!node.is_leaf()) << at;
                out.push(eight.iter().enumerate().map(bit).sum());
            }
        }
        pad(&mut out);
        let cuts = || {
            let nodes = forest.trees.iter().flat_map(|tree| forest.nodes_of(tree));
            nodes.filter(|node| !node.is_leaf())
        };
        for node in cuts() {
            #[expect(clippy::cast_possible_truncation, reason = "below MAX_DIMENSIONS")]
            out.extend_from_slice(&(node.dimension() as u16).to_le_bytes());
        }
        pad(&mut out);
        cuts().for_each(|node| out.extend_from_slice(&node.cut.to_le_bytes()));
        forest.leaf_mass.iter().for_each(|mass| out.extend_from_slice(&mass.to_le_bytes()));
        forest.points().flatten().for_each(|x| out.extend_from_slice(&x.to_le_bytes()));
        let len = (out.len() + CHECKSUM) as u64;
        out[16..PREFIX].copy_from_slice(&len.to_le_bytes());
        let checksum = Sha256::digest(&out);
        out.extend_from_slice(&checksum);
        out
    }

    /// Reads a model, verifying its checksum and everything that scoring relies on.
    ///
    /// # Errors
    /// [`SnapshotError`] names the section and the offset; never a panic.
    pub fn decode(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let body_len = check_envelope(bytes)?;
        // The checksum takes as long as a good part of the rest. Whatever that finds, a snapshot that is
        // damaged is called so.
        let (checksum, model) = beside(
            bytes.len(),
            || Sha256::digest(&bytes[..body_len]),
            || Self::decode_body(bytes, body_len),
        );
        if checksum[..] != bytes[body_len..] {
            return Err(SnapshotError::Checksum { offset: body_len });
        }
        let model = model?;
        // Made now, so that the first batch is as fast as the next.
        model.forest.kernel();
        Ok(model)
    }

    /// Reads what stands between the prefix and the checksum.
    fn decode_body(bytes: &[u8], body_len: usize) -> Result<Self, SnapshotError> {
        let mut sections = Sections { bytes: &bytes[..body_len], at: PREFIX };
        let header_len = u32_at(bytes, 12) as usize;
        let (header, shingle, endpoint) =
            decode_header(u32_at(bytes, 8), sections.take("header", header_len as u64)?)?;
        sections.padding("header")?;
        let params = ValidParams::new(header.params).map_err(SnapshotError::Params)?;
        let spec = Spec { format: header.format, features: header.features, shingle };
        let spec = ValidSpec::new(spec).map_err(SnapshotError::Spec)?;
        let features = Features::new(spec, header.fitted).map_err(SnapshotError::Features)?;
        if !header.calibration.as_ref().is_none_or(Calibration::is_sound)
            || !endpoint.as_ref().is_none_or(EndpointCalibration::is_sound)
        {
            return Err(SnapshotError::Calibration);
        }
        let forest = decode_forest(&mut sections, params.get(), features.dimensions())?;
        if sections.at != body_len {
            return Err(SnapshotError::Unused { section: "points", offset: sections.at });
        }
        Ok(Self {
            params,
            features,
            forest,
            calibration: header.calibration,
            endpoint,
            provenance: header.provenance,
            id: id_of(bytes),
            snapshot_len: bytes.len(),
        })
    }
}

/// The id of a whole snapshot: the first half of its checksum as hex digits.
pub(super) fn id_of(snapshot: &[u8]) -> String {
    let checksum = &snapshot[snapshot.len() - CHECKSUM..];
    checksum.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// What a file is that begins so, as far as it helps whoever gave the wrong one.
fn kind_of(beginning: &[u8]) -> &'static str {
    match beginning {
        [] => "the end: it is empty",
        [0x1f, 0x8b, ..] => "gzip",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "zstd",
        [b'P', b'K', ..] => "a zip archive",
        text if text.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace()) => {
            "text"
        }
        _ => "something else",
    }
}

/// Checks what surrounds the sections but the checksum, and returns the length before it.
fn check_envelope(bytes: &[u8]) -> Result<usize, SnapshotError> {
    let got = bytes.len() as u64;
    let beginning = &bytes[..bytes.len().min(MAGIC.len())];
    if beginning.is_empty() || !MAGIC.starts_with(beginning) {
        return Err(SnapshotError::Magic { found: kind_of(beginning) });
    }
    if bytes.len() < PREFIX + CHECKSUM {
        let expected = (PREFIX + CHECKSUM) as u64;
        return Err(SnapshotError::Truncated { section: "prefix", offset: 0, expected, got });
    }
    let version = u32_at(bytes, 8);
    if !(VERSION..=VERSION_WITH_ENDPOINT).contains(&version) {
        return Err(SnapshotError::Version { got: version });
    }
    let expected = u64::from(u32_at(bytes, 16)) | u64::from(u32_at(bytes, 20)) << 32;
    if expected != got {
        return Err(SnapshotError::Length { expected, got });
    }
    Ok(bytes.len() - CHECKSUM)
}

/// The sections, taken one after the other, each only if it is there.
struct Sections<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Sections<'a> {
    fn take(&mut self, section: &'static str, len: u64) -> Result<&'a [u8], SnapshotError> {
        let there = &self.bytes[self.at..];
        let got = there.len() as u64;
        if len > got {
            return Err(SnapshotError::Truncated { section, offset: self.at, expected: len, got });
        }
        // Not longer than the slice, so it fits a usize.
        let (taken, _) = there.split_at(len as usize);
        self.at += taken.len();
        Ok(taken)
    }

    fn padding(&mut self, section: &'static str) -> Result<(), SnapshotError> {
        let offset = self.at;
        let padding = self.take(section, (4 - self.at as u64 % 4) % 4)?;
        if padding.iter().all(|&byte| byte == 0) {
            return Ok(());
        }
        Err(SnapshotError::Unused { section, offset })
    }
}

fn decode_forest(
    sections: &mut Sections<'_>,
    params: &Params,
    d: usize,
) -> Result<Forest, SnapshotError> {
    let trees = u64::from(params.trees);
    let counts = sections.take("leaves", 4 * trees)?;
    let offset = sections.at;
    let leaves_of = |tree: usize| u64::from(u32_at(counts, 4 * tree));
    // At most 10,000 trees of 2^32 leaves: the sums stay far below 2^64.
    let (mut leaves, mut shape_len) = (0, 0);
    for tree in 0..params.trees as usize {
        let of_tree = leaves_of(tree);
        if of_tree == 0 {
            let fault = crate::forest::StructureFault::Leaves { leaves: 0 };
            let source = StructureError { tree, fault };
            return Err(SnapshotError::Structure { section: "leaves", offset, source });
        }
        leaves += of_tree;
        shape_len += (2 * of_tree - 1).div_ceil(8);
    }
    let internals = leaves - trees;
    let shape_at = sections.at;
    let shape = sections.take("shape", shape_len)?;
    sections.padding("shape")?;
    let dimensions = sections.take("dimensions", 2 * internals)?;
    sections.padding("dimensions")?;
    let cuts = sections.take("cuts", 4 * internals)?;
    let masses = sections.take("masses", 4 * leaves)?;
    let points = sections.take("points", 4 * leaves * d as u64)?;

    let mut forest = Forest::empty(d, params.leaf_rule);
    forest.reserve(params.trees as usize, leaves as usize);
    let (mut shape, mut dimensions, mut cuts, mut masses, mut points) =
        (shape, dimensions, cuts, masses, points);
    for tree in 0..params.trees as usize {
        let leaves = leaves_of(tree) as usize;
        let source = TreeSections {
            shape: split_off(&mut shape, (2 * leaves - 1).div_ceil(8)),
            dimensions: split_off(&mut dimensions, 2 * (leaves - 1)).as_chunks().0,
            cuts: split_off(&mut cuts, 4 * (leaves - 1)).as_chunks().0,
            masses: split_off(&mut masses, 4 * leaves).as_chunks().0,
            points: split_off(&mut points, 4 * leaves * d),
        };
        let structure =
            |source| SnapshotError::Structure { section: "shape", offset: shape_at, source };
        forest.push_tree(&source).map_err(structure)?;
    }
    Ok(forest)
}

/// The first `len` bytes of what is left.
fn split_off<'a>(bytes: &mut &'a [u8], len: usize) -> &'a [u8] {
    let (first, rest) = bytes.split_at(len);
    *bytes = rest;
    first
}

/// One tree's part of each section.
struct TreeSections<'a> {
    shape: &'a [u8],
    dimensions: &'a [[u8; 2]],
    cuts: &'a [[u8; 4]],
    masses: &'a [[u8; 4]],
    points: &'a [u8],
}

impl TreeSource for TreeSections<'_> {
    fn leaves(&self) -> usize {
        self.masses.len()
    }
    fn is_internal(&self, node: usize) -> bool {
        self.shape[node / 8] >> (node % 8) & 1 == 1
    }
    fn cut(&self, rank: usize) -> (usize, f32) {
        let dimension = self.dimensions.get(rank).copied().unwrap_or_default();
        let cut = self.cuts.get(rank).copied().unwrap_or_default();
        (usize::from(u16::from_le_bytes(dimension)), f32::from_le_bytes(cut))
    }
    fn mass(&self, rank: usize) -> u32 {
        u32::from_le_bytes(self.masses[rank])
    }
    fn read_point(&self, rank: usize, point: &mut [f32]) {
        let bytes = &self.points[4 * rank * point.len()..][..4 * point.len()];
        for (x, bytes) in point.iter_mut().zip(bytes.as_chunks().0) {
            *x = f32::from_le_bytes(*bytes);
        }
    }
}

/// bincode as the header uses it, with a limit on the bytes that decoding may claim.
macro_rules! codec {
    ($limit:expr) => {
        bincode::config::standard()
            .with_little_endian()
            .with_fixed_int_encoding()
            .with_limit::<{ $limit }>()
    };
}

pub(crate) fn encode_header(header: impl Encode) -> Vec<u8> {
    let codec = bincode::config::standard().with_little_endian().with_fixed_int_encoding();
    #[expect(clippy::expect_used, reason = "plain data into a growing vector can't fail")]
    bincode::encode_to_vec(header, codec).expect("a header is plain data")
}

type WithExtras = (Header, Option<Shingle>, Option<EndpointCalibration>);

/// Decodes the header of a version, the shingle that it says, and the endpoint's calibration.
fn decode_header(version: u32, bytes: &[u8]) -> Result<WithExtras, SnapshotError> {
    let (header, key, endpoint): (Header, Option<String>, _) = match version {
        VERSION_WITH_ENDPOINT => {
            let (header, key, endpoint) = decode_plain(bytes)?;
            (header, key, Some(endpoint))
        }
        VERSION_SHINGLED => {
            let (header, key) = decode_plain(bytes)?;
            (header, key, None)
        }
        _ => (decode_plain(bytes)?, None, None),
    };
    let range = match version {
        VERSION_WITH_ENDPOINT => 1..=MAX_DIMENSIONS as u64,
        VERSION_SHINGLED => 2..=MAX_DIMENSIONS as u64,
        _ => 1..=1,
    };
    let (size, got) = (header.shingle, u64::from(header.shingle));
    if !range.contains(&got) {
        let (low, high) = range.into_inner();
        return Err(SnapshotError::Params(ParamError { name: "shingle", got, low, high }));
    }
    // Nothing that means nothing: written again it is the same bytes.
    if size == 1 && key.is_some() {
        return Err(SnapshotError::ShingleKey);
    }
    Ok((header, (size > 1).then_some(Shingle { size, key }), endpoint))
}

/// Decodes plain data. bincode allocates a list when it has read its length, up to the limit; so
/// that a false length can't claim more than a small multiple of what is there, the limit is the
/// next step above eight times the header's own length.
pub(crate) fn decode_plain<T: Decode<()>>(bytes: &[u8]) -> Result<T, SnapshotError> {
    if bytes.len() > MAX_HEADER {
        let (section, offset) = ("header", 12);
        let (expected, got) = (bytes.len() as u64, MAX_HEADER as u64);
        return Err(SnapshotError::Truncated { section, offset, expected, got });
    }
    const STEPS: [usize; 4] = [1 << 13, 1 << 17, 1 << 22, 8 * MAX_HEADER];
    let decoded = match 8 * bytes.len() {
        need if need <= STEPS[0] => bincode::decode_from_slice(bytes, codec!(STEPS[0])),
        need if need <= STEPS[1] => bincode::decode_from_slice(bytes, codec!(STEPS[1])),
        need if need <= STEPS[2] => bincode::decode_from_slice(bytes, codec!(STEPS[2])),
        _ => bincode::decode_from_slice(bytes, codec!(STEPS[3])),
    };
    let (plain, used): (T, usize) = decoded.map_err(|source| SnapshotError::Header { source })?;
    if used != bytes.len() {
        return Err(SnapshotError::HeaderUnused { unused: bytes.len() - used });
    }
    Ok(plain)
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}

fn put_u32(out: &mut Vec<u8>, number: usize) {
    #[expect(clippy::cast_possible_truncation, reason = "counts within limits far below 2^32")]
    out.extend_from_slice(&(number as u32).to_le_bytes());
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
