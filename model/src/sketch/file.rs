//! A sketch as a file, which workers send and who goes on from yesterday keeps.
//!
//! Little-endian, fixed width:
//!
//! ```text
//! offset  bytes   what
//! 0       8       magic "SAWLOGSK"
//! 8       4       version, u32: 2 if there is a half-life, else 1
//! 12      4       H, length of the header, u32, at most 16 MiB
//! 16      8       L, length of the whole file, u64
//! 24      H       header: `Header` in bincode 2, fixed integers, little-endian; in version 2 then
//!                 the half-life in milliseconds, u64, and the time's field, a string
//! then    names   of the inputs, ascending, none twice: count, u64; each its length, u32, and UTF-8
//! then    records of the trees' samples, then those held out: count, u64; each, by ascending key, the
//!                 key, 16 bytes, in version 2 the natural logarithm of its weight, a finite
//!                 f64, and one value for each feature of each record of its point: a byte
//!                 for its kind (0 missing, 1 number, 2 category), then for a number an f64, for a
//!                 category its length, u32, and UTF-8
//! L-32    32      SHA-256 of everything before
//! ```
//!
//! Which tree holds which record is not stored: it follows from the keys. A reader offers each record
//! again, which gives the sketch that was written, and refuses a file with a record that no sample
//! keeps. Nothing is allocated for a count before the bytes are there; a record takes at most 60 bytes a
//! tree beside its own.

use bincode::{Decode, Encode};
use sha2::{Digest, Sha256};

use super::{Decay, MIN_HALF_LIFE_MS, TrainingSketch};
use crate::forest::{ParamError, Params};
use crate::record::Value;
use crate::sample::{Kept, RecordKey, Sketch};
use crate::snapshot::{MAX_HEADER, decode_plain, encode_header, u32_at};
use crate::spec::{FeatureSpec, Format, Shingle, Spec, SpecError, ValidSpec};

const MAGIC: [u8; 8] = *b"SAWLOGSK";
/// The version of sketches whose records weigh the same.
const VERSION: u32 = 1;
/// The version of sketches with a half-life.
const VERSION_DECAYED: u32 = 2;
/// Bytes before the header.
const PREFIX: usize = 24;
/// Bytes of the checksum at the end.
const CHECKSUM: usize = 32;

#[derive(Encode, Decode)]
struct Header {
    format: Format,
    features: Vec<FeatureSpec>,
    /// Records a point is made of, 1 without a shingle, and the key of their series.
    shingle: (u32, Option<String>),
    seed: u64,
    trees: u32,
    samples: Option<u32>,
    read: u64,
    rejected: u64,
    no_history: u64,
    sampled_from: u64,
}

/// Why bytes are no sketch.
#[derive(Debug, thiserror::Error)]
pub enum SketchError {
    /// Fewer bytes than a part needs.
    #[error("sketch truncated: {part} at offset {offset} needs more bytes than the {got} there")]
    Truncated {
        /// The part.
        part: &'static str,
        /// Where it begins.
        offset: usize,
        /// Bytes there are.
        got: usize,
    },
    /// Not a sketch at all.
    #[error("not a sawlog sketch: the magic at offset 0 is {got:02x?}")]
    Magic {
        /// The first bytes.
        got: [u8; 8],
    },
    /// Written by another version.
    #[error(
        "sketch version {got} at offset 8; this program reads versions {VERSION} and {VERSION_DECAYED}"
    )]
    Version {
        /// Its version.
        got: u32,
    },
    /// Another length than the sketch says.
    #[error("sketch length at offset 16 is {expected}, but there are {got} bytes")]
    Length {
        /// As it says.
        expected: u64,
        /// As it is.
        got: u64,
    },
    /// Bytes changed since it was written.
    #[error("checksum at offset {offset} does not match: the sketch is damaged")]
    Checksum {
        /// Where the checksum stands.
        offset: usize,
    },
    /// The header can't be decoded.
    #[error("header at offset {PREFIX}: {reason}")]
    Header {
        /// Why.
        reason: String,
    },
    /// A parameter out of its range.
    #[error("header at offset {PREFIX}: {0}")]
    Params(#[source] ParamError),
    /// A half-life that is too short.
    #[error(
        "header at offset {PREFIX}: a half-life of {half_life_ms} ms, least is {MIN_HALF_LIFE_MS}"
    )]
    HalfLife {
        /// In milliseconds.
        half_life_ms: u64,
    },
    /// The specification doesn't hold.
    #[error("header at offset {PREFIX}: {0}")]
    Spec(#[source] SpecError),
    /// An entry that can't be.
    #[error("{part} at offset {offset}: {fault}")]
    Entry {
        /// The part.
        part: &'static str,
        /// Where the entry begins.
        offset: usize,
        /// What is wrong with it.
        fault: &'static str,
    },
}

impl TrainingSketch {
    /// The sketch as bytes, as the module describes them: the same for the same input, seed and
    /// parameters.
    pub fn encode(&self) -> Vec<u8> {
        let Params { trees, seed, .. } = self.params();
        let spec = self.spec.spec().clone();
        let header = Header {
            format: spec.format,
            features: spec.features,
            shingle: spec.shingle.map_or((1, None), |shingle| (shingle.size, shingle.key)),
            seed,
            trees,
            samples: self.samples,
            read: self.read,
            rejected: self.rejected,
            no_history: self.no_history,
            sampled_from: self.sampled_from,
        };
        let (version, header) = match &self.decay {
            None => (VERSION, encode_header(header)),
            Some(decay) => (VERSION_DECAYED, encode_header((header, decay))),
        };
        let mut bytes = Vec::new();
        bytes.extend(MAGIC);
        bytes.extend(version.to_le_bytes());
        bytes.extend(len_u32(header.len()));
        bytes.extend([0; 8]);
        bytes.extend(header);
        bytes.extend((self.inputs.len() as u64).to_le_bytes());
        for name in &self.inputs {
            push_text(&mut bytes, name);
        }
        for sketch in [&self.sampled, &self.held_out] {
            let records = sketch.kept();
            bytes.extend((records.len() as u64).to_le_bytes());
            for Kept { key, log_weight, record, .. } in records {
                bytes.extend(key.to_le_bytes());
                if self.decay.is_some() {
                    bytes.extend(log_weight.to_le_bytes());
                }
                for value in record {
                    match value {
                        Value::Missing => bytes.push(0),
                        Value::Number(number) => {
                            bytes.push(1);
                            bytes.extend(number.to_le_bytes());
                        }
                        Value::Category(text) => {
                            bytes.push(2);
                            push_text(&mut bytes, text);
                        }
                    }
                }
            }
        }
        let len = (bytes.len() + CHECKSUM) as u64;
        bytes[16..PREFIX].copy_from_slice(&len.to_le_bytes());
        let checksum = Sha256::digest(&bytes);
        bytes.extend(checksum);
        bytes
    }

    /// Bytes at the beginning of a sketch that say how long it is.
    pub const PREFIX_LEN: usize = PREFIX;

    /// The length of a sketch of which the first [`TrainingSketch::PREFIX_LEN`] bytes are given, in
    /// bytes, these included.
    ///
    /// # Errors
    /// [`SketchError`] if they are not the beginning of a sketch that this program reads.
    pub fn encoded_len(prefix: &[u8]) -> Result<u64, SketchError> {
        check_prefix(prefix, PREFIX)
    }

    /// Reads and checks a sketch. No bytes make it panic.
    ///
    /// # Errors
    /// [`SketchError`] with the part, its offset and the fault.
    pub fn decode(bytes: &[u8]) -> Result<Self, SketchError> {
        let end = check_envelope(bytes)?;
        let mut parts = Parts { bytes: &bytes[..end], at: PREFIX };
        let header = parts.take("header", u32_at(bytes, 12) as usize)?;
        if header.len() > MAX_HEADER {
            return Err(SketchError::Header { reason: "it is longer than 16 MiB".into() });
        }
        let (header, decay): (Header, Option<Decay>) = match u32_at(bytes, 8) {
            VERSION_DECAYED => {
                decode_plain(header).map(|(header, decay): (_, Decay)| (header, Some(decay)))
            }
            _ => decode_plain(header).map(|header| (header, None)),
        }
        .map_err(|error| SketchError::Header { reason: error.to_string() })?;
        if let Some(&Decay { half_life_ms, .. }) = decay.as_ref()
            && half_life_ms < MIN_HALF_LIFE_MS
        {
            return Err(SketchError::HalfLife { half_life_ms });
        }
        let shingle = match header.shingle {
            (1, None) => None,
            // Written so, one sketch would be two files.
            (1, Some(_)) => {
                let reason = "a point of one record has no key of a series".to_owned();
                return Err(SketchError::Header { reason });
            }
            (size, key) => Some(Shingle { size, key }),
        };
        let spec = Spec { format: header.format, features: header.features, shingle };
        let spec = ValidSpec::new(spec).map_err(SketchError::Spec)?;
        let mut sketch = Self::new(spec, header.seed, header.trees, header.samples)
            .map_err(SketchError::Params)?
            .with_decay(decay);
        (sketch.read, sketch.rejected) = (header.read, header.rejected);
        (sketch.no_history, sketch.sampled_from) = (header.no_history, header.sampled_from);
        let names = "names of inputs";
        for _ in 0..parts.u64(names)? {
            let offset = parts.at;
            let name = parts.text(names)?;
            if sketch.inputs.last().is_some_and(|last| last.as_str() >= name) {
                let fault = "not in ascending order";
                return Err(SketchError::Entry { part: names, offset, fault });
            }
            sketch.inputs.insert(name.to_owned());
        }
        let values = sketch.spec.features().len() * sketch.spec.shingle_size();
        let is_weighted = sketch.decay.is_some();
        parts.records("sampled records", values, is_weighted, &mut sketch.sampled)?;
        parts.records("held-out records", values, is_weighted, &mut sketch.held_out)?;
        if parts.at != end {
            let fault = "bytes too many";
            return Err(SketchError::Entry { part: "end", offset: parts.at, fault });
        }
        Ok(sketch)
    }
}

fn len_u32(len: usize) -> [u8; 4] {
    // Texts are of records, headers of specifications: both are far below 4 GiB.
    u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes()
}

fn push_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend(len_u32(text.len()));
    bytes.extend(text.as_bytes());
}

/// Checks magic and version of a sketch of which at least so many bytes must be there; returns the length
/// that it says it has.
fn check_prefix(bytes: &[u8], least: usize) -> Result<u64, SketchError> {
    if let Some(&magic) = bytes.first_chunk::<8>()
        && magic != MAGIC
    {
        return Err(SketchError::Magic { got: magic });
    }
    let got = bytes.len();
    if got < least {
        return Err(SketchError::Truncated { part: "prefix", offset: 0, got });
    }
    let version = u32_at(bytes, 8);
    if ![VERSION, VERSION_DECAYED].contains(&version) {
        return Err(SketchError::Version { got: version });
    }
    Ok(u64::from(u32_at(bytes, 16)) | u64::from(u32_at(bytes, 20)) << 32)
}

/// Checks magic, version, length and checksum, in this order, and returns where the checksum begins.
fn check_envelope(bytes: &[u8]) -> Result<usize, SketchError> {
    let got = bytes.len();
    let expected = check_prefix(bytes, PREFIX + CHECKSUM)?;
    if expected != got as u64 {
        return Err(SketchError::Length { expected, got: got as u64 });
    }
    let offset = got - CHECKSUM;
    if Sha256::digest(&bytes[..offset])[..] != bytes[offset..] {
        return Err(SketchError::Checksum { offset });
    }
    Ok(offset)
}

/// The parts behind the prefix.
struct Parts<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Parts<'a> {
    fn take(&mut self, part: &'static str, len: usize) -> Result<&'a [u8], SketchError> {
        let there = &self.bytes[self.at..];
        let taken = there.get(..len).ok_or(SketchError::Truncated {
            part,
            offset: self.at,
            got: there.len(),
        })?;
        self.at += len;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, part: &'static str) -> Result<[u8; N], SketchError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(part, N)?);
        Ok(array)
    }

    fn u64(&mut self, part: &'static str) -> Result<u64, SketchError> {
        self.array(part).map(u64::from_le_bytes)
    }

    fn text(&mut self, part: &'static str) -> Result<&'a str, SketchError> {
        let offset = self.at;
        let len = u32::from_le_bytes(self.array(part)?);
        let fault = SketchError::Entry { part, offset, fault: "not UTF-8" };
        std::str::from_utf8(self.take(part, len as usize)?).map_err(|_| fault)
    }

    /// Reads records of so many values and offers them to `sketch`.
    fn records(
        &mut self,
        part: &'static str,
        values: usize,
        is_weighted: bool,
        sketch: &mut Sketch<Vec<Value>>,
    ) -> Result<(), SketchError> {
        let mut last = None;
        let count = self.u64(part)?;
        for _ in 0..count {
            let offset = self.at;
            let entry = |fault| SketchError::Entry { part, offset, fault };
            let key = RecordKey::from_le_bytes(self.array(part)?);
            if last.is_some_and(|last| last >= key) {
                return Err(entry("not in the order of the keys"));
            }
            last = Some(key);
            let log_weight = match is_weighted {
                true => f64::from_le_bytes(self.array(part)?),
                false => 0.0,
            };
            if !log_weight.is_finite() {
                return Err(entry("a weight that is not finite"));
            }
            // A value has at least a byte.
            let mut point = Vec::with_capacity(values.min(self.bytes.len() - self.at));
            for _ in 0..values {
                point.push(match self.array(part)? {
                    [0] => Value::Missing,
                    [1] => Some(f64::from_le_bytes(self.array(part)?))
                        .filter(|number| number.is_finite())
                        .map(Value::Number)
                        .ok_or(entry("a number that is not finite"))?,
                    [2] => Value::Category(self.text(part)?.into()),
                    [_] => return Err(entry("a value of no known kind")),
                });
            }
            sketch.offer(key, log_weight, || point);
        }
        sketch.settle();
        if sketch.kept().len() as u64 != count {
            let fault = "records that no sample keeps";
            return Err(SketchError::Entry { part, offset: self.at, fault });
        }
        Ok(())
    }
}
