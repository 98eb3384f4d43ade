//! `application/x-recordio-protobuf`: frames of MXNet's RecordIO, each with a `Record` of SageMaker's
//! algorithms.
//!
//! ```text
//! frame    magic 0xced7230a, u32 of (part << 29 | length), the bytes, zeros up to a multiple of 4;
//!          all little-endian
//! part     0 whole; 1, 2, 3 the first, a middle and the last part of a record that has the magic in it,
//!          which is left out where the parts meet
//! Record   features["values"] of a request, label["score"] of an answer: a tensor of float32, float64
//!          or int32; with keys a sparse one
//! ```

use std::collections::BTreeMap;

use prost::{Message, Oneof};

use super::rows::{Row, RowFault, Rows};
use super::{ContentError, Place};

const MAGIC: u32 = 0xced7_230a;
const HEADER_LEN: usize = 8;
const PART_SHIFT: u32 = 29;
/// Longest record, in bytes: 10,000 numbers of 8 bytes with their keys take less than half of it. As a
/// message it takes many times its length, so it is bounded well below the body.
const MAX_RECORD_LEN: usize = 256 << 10;

#[derive(Clone, PartialEq, Message)]
struct Record {
    #[prost(btree_map = "string, message", tag = "1")]
    features: BTreeMap<String, Tensor>,
    #[prost(btree_map = "string, message", tag = "2")]
    label: BTreeMap<String, Tensor>,
}

#[derive(Clone, PartialEq, Message)]
struct Tensor {
    #[prost(oneof = "Numbers", tags = "2, 3, 7")]
    numbers: Option<Numbers>,
}

#[derive(Clone, PartialEq, Oneof)]
enum Numbers {
    #[prost(message, tag = "2")]
    Float32(Float32Tensor),
    #[prost(message, tag = "3")]
    Float64(Float64Tensor),
    #[prost(message, tag = "7")]
    Int32(Int32Tensor),
}

#[derive(Clone, PartialEq, Message)]
struct Float32Tensor {
    #[prost(float, repeated, tag = "1")]
    values: Vec<f32>,
    #[prost(uint64, repeated, tag = "2")]
    keys: Vec<u64>,
    #[prost(uint64, repeated, tag = "3")]
    shape: Vec<u64>,
}

#[derive(Clone, PartialEq, Message)]
struct Float64Tensor {
    #[prost(double, repeated, tag = "1")]
    values: Vec<f64>,
    #[prost(uint64, repeated, tag = "2")]
    keys: Vec<u64>,
    #[prost(uint64, repeated, tag = "3")]
    shape: Vec<u64>,
}

#[derive(Clone, PartialEq, Message)]
struct Int32Tensor {
    #[prost(int32, repeated, tag = "1")]
    values: Vec<i32>,
    #[prost(uint64, repeated, tag = "2")]
    keys: Vec<u64>,
    #[prost(uint64, repeated, tag = "3")]
    shape: Vec<u64>,
}

pub(super) fn read(body: &[u8], rows: &mut Rows<'_>) -> Result<(), ContentError> {
    let mut rest = body;
    let mut record = 0;
    while !rest.is_empty() {
        let offset = body.len() - rest.len();
        let frame = |fault| ContentError::Frame { record, offset, fault };
        let (part, bytes) = next_part(&mut rest).map_err(frame)?;
        let add = |bytes: &[u8], rows: &mut Rows<'_>| {
            rows.add(Place::Record(record), |row| fill(bytes, row))
        };
        match part {
            0 => add(bytes, rows)?,
            1 => {
                let mut joined = bytes.to_vec();
                loop {
                    let (part, bytes) = next_part(&mut rest).map_err(frame)?;
                    if !matches!(part, 2 | 3) {
                        return Err(frame("its last part is missing"));
                    }
                    joined.extend_from_slice(&MAGIC.to_le_bytes());
                    joined.extend_from_slice(bytes);
                    if joined.len() > MAX_RECORD_LEN {
                        return Err(frame(TOO_LONG));
                    }
                    if part == 3 {
                        break;
                    }
                }
                add(&joined, rows)?;
            }
            _ => return Err(frame("its first part is missing")),
        }
        record += 1;
    }
    Ok(())
}

const TOO_LONG: &str = "it is longer than 262144 bytes";

/// Takes a part off the front: its kind and its bytes.
fn next_part<'a>(rest: &mut &'a [u8]) -> Result<(u32, &'a [u8]), &'static str> {
    let Some((header, body)) = rest.split_at_checked(HEADER_LEN) else {
        return Err("the body ends within its header");
    };
    let word = |at: usize| {
        u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    if word(0) != MAGIC {
        return Err("it does not begin with RecordIO's magic");
    }
    let (part, len) = (word(4) >> PART_SHIFT, word(4) & ((1 << PART_SHIFT) - 1));
    let len = usize::try_from(len).map_err(|_| TOO_LONG)?;
    if len > MAX_RECORD_LEN {
        return Err(TOO_LONG);
    }
    let bytes = body.get(..len).ok_or("the body ends within it")?;
    *rest = body.get(len.next_multiple_of(4)..).unwrap_or_default();
    Ok((part, bytes))
}

fn fill(bytes: &[u8], row: &mut Row) -> Result<(), RowFault> {
    let record = Record::decode(bytes).map_err(|_| RowFault::Proto)?;
    let tensor = record.features.get("values").and_then(|tensor| tensor.numbers.as_ref());
    let (keys, shape) = match tensor.ok_or(RowFault::NoTensor)? {
        Numbers::Float32(Float32Tensor { values, keys, shape }) => {
            values.iter().try_for_each(|&number| row.single(number))?;
            (keys, shape)
        }
        Numbers::Float64(Float64Tensor { values, keys, shape }) => {
            values.iter().try_for_each(|&number| row.double(number))?;
            (keys, shape)
        }
        Numbers::Int32(Int32Tensor { values, keys, shape }) => {
            values.iter().try_for_each(|&number| row.double(number.into()))?;
            (keys, shape)
        }
    };
    let expected = row.width;
    if shape.last().is_some_and(|last| usize::try_from(*last) != Ok(expected)) {
        return Err(RowFault::Shape { expected });
    }
    if keys.is_empty() {
        return Ok(());
    }
    // An index beyond usize is beyond the row.
    let keys: Vec<usize> =
        keys.iter().map(|&key| usize::try_from(key).unwrap_or(usize::MAX)).collect();
    row.scatter(&keys)
}

pub(super) fn write(scores: &[f32]) -> Vec<u8> {
    let mut out = Vec::new();
    for &score in scores {
        let tensor = Float32Tensor { values: vec![score], ..Float32Tensor::default() };
        let score = Tensor { numbers: Some(Numbers::Float32(tensor)) };
        let record = Record { label: [("score".to_owned(), score)].into(), ..Record::default() };
        let bytes = record.encode_to_vec();
        out.extend_from_slice(&MAGIC.to_le_bytes());
        #[expect(clippy::cast_possible_truncation, reason = "the message of one number")]
        out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        out.extend_from_slice(&bytes);
        out.resize(out.len().next_multiple_of(4), 0);
    }
    out
}
