//! Records aggregated by the Kinesis Producer Library: many user records in one of the stream.
//!
//! Four bytes of magic, a protobuf message, and the MD5 of that message. Of the message only the user
//! records' data is read; their partition keys and hash keys say nothing of what was logged.

use md5::{Digest as _, Md5};
use prost::Message;

use super::DecodeFault;

const MAGIC: [u8; 4] = [0xf3, 0x89, 0x9a, 0xc2];
const DIGEST_LEN: usize = 16;

/// `AggregatedRecord` of the library's messages.proto, as far as it is read.
#[derive(Message)]
struct Aggregate {
    #[prost(message, repeated, tag = "3")]
    records: Vec<UserRecord>,
}

/// `Record` of the same.
#[derive(Message)]
struct UserRecord {
    #[prost(bytes = "vec", required, tag = "3")]
    data: Vec<u8>,
}

/// The data of the user records in an aggregate; `None` for a payload that is none.
///
/// # Errors
/// [`DecodeFault::Aggregate`] for what begins as an aggregate and is damaged.
pub(super) fn user_records(payload: &[u8]) -> Option<Result<Vec<Vec<u8>>, DecodeFault>> {
    let rest = payload.strip_prefix(&MAGIC)?;
    Some(take_apart(rest).map_err(|what| DecodeFault::Aggregate { what }))
}

fn take_apart(rest: &[u8]) -> Result<Vec<Vec<u8>>, &'static str> {
    let (message, digest) =
        rest.split_last_chunk::<DIGEST_LEN>().ok_or("it is shorter than its digest")?;
    if Md5::digest(message).as_slice() != digest.as_slice() {
        return Err("its digest is another");
    }
    let aggregate = Aggregate::decode(message).map_err(|_| "its message can't be read")?;
    Ok(aggregate.records.into_iter().map(|record| record.data).collect())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// An aggregate with every field that the library writes.
    pub(in super::super) fn aggregate(records: &[&[u8]]) -> Vec<u8> {
        #[derive(Message)]
        struct Whole {
            #[prost(string, repeated, tag = "1")]
            partition_keys: Vec<String>,
            #[prost(string, repeated, tag = "2")]
            hash_keys: Vec<String>,
            #[prost(message, repeated, tag = "3")]
            records: Vec<Record>,
        }
        #[derive(Message)]
        struct Record {
            #[prost(uint64, required, tag = "1")]
            partition_key: u64,
            #[prost(uint64, optional, tag = "2")]
            hash_key: Option<u64>,
            #[prost(bytes = "vec", required, tag = "3")]
            data: Vec<u8>,
        }
        let record =
            |data: &&[u8]| Record { partition_key: 1, hash_key: Some(0), data: data.to_vec() };
        let message = Whole {
            partition_keys: vec!["a".into(), "b".into()],
            hash_keys: vec!["340282366920938463463374607431768211455".into()],
            records: records.iter().map(record).collect(),
        }
        .encode_to_vec();
        [&MAGIC[..], &message, &Md5::digest(&message)].concat()
    }

    #[test]
    fn an_aggregate_is_taken_apart_in_its_order() {
        assert!(user_records(b"{\"a\":1}").is_none());
        let whole = aggregate(&[b"one", b"", b"\xff"]);
        let records = user_records(&whole).expect("an aggregate").expect("sound");
        assert_eq!(records, [&b"one"[..], b"", b"\xff"]);
    }

    #[test]
    fn a_damaged_aggregate_is_no_other_payload() {
        let whole = aggregate(&[b"one", b"two"]);
        for len in MAGIC.len()..whole.len() {
            let fault = user_records(&whole[..len]).expect("an aggregate");
            assert!(matches!(fault, Err(DecodeFault::Aggregate { .. })), "{len}");
        }
        for at in MAGIC.len()..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            let fault = user_records(&damaged).expect("an aggregate");
            assert!(matches!(fault, Err(DecodeFault::Aggregate { .. })), "{at}");
        }
        // A digest that is right over a message that is not.
        let message = b"\xff\xff\xff";
        let wrong = [&MAGIC[..], message, &Md5::digest(message)].concat();
        let fault = user_records(&wrong).expect("an aggregate").expect_err("no message");
        assert_eq!(
            fault.to_string(),
            "it is a broken aggregate of the Kinesis Producer Library: its message can't be read"
        );
    }
}
