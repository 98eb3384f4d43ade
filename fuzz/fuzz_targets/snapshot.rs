//! Any bytes as a snapshot. A checksum guards against accidents and not against someone who can
//! write to the bucket, so what surrounds the sections is made right here: magic, version, length
//! and SHA-256. What is behind them is then taken apart, or is a model that scores any point, reads
//! any record and is the same model when written and read again.
#![no_main]

use libfuzzer_sys::{Corpus, fuzz_target};
use sawlog_fuzz::{PREFIX, encodes, sealed, within, works};
use sawlog_model::Model;

const MAGIC: &[u8; 8] = b"SAWLOGRF";
/// The newest version that is written.
const NEWEST_VERSION: u8 = 3;

/// Memory a model may take for each byte of its snapshot: about 21 at one dimension, where the
/// kernel pads boxes to four, twice that while arrays grow.
const FACTOR: usize = 64;
/// And beyond: a header's strings and maps.
const BASE: usize = 64 << 10;
/// For the compiled pattern of the format "regex", which is limited by itself.
const REGEX: usize = 24 << 20;
/// The one model with a pattern that is kept to start from. Others are tried and let go: what a
/// pattern can be is for the target `spec`, and here most inputs kept, and most of the time, would be
/// the regex compiler's.
const WITH_PATTERN: &[u8] = include_bytes!("../seeds/snapshot/pattern");

fuzz_target!(|data: &[u8]| -> Corpus {
    let _ = Model::decode(data).map_err(|error| error.to_string());
    let Some(bytes) = sealed(data, MAGIC, NEWEST_VERSION) else { return Corpus::Keep };
    // The header begins with the number of the format's variant.
    let is_regex = bytes.get(PREFIX) == Some(&3);
    let limit = FACTOR * bytes.len() + BASE + if is_regex { REGEX } else { 0 };
    let is_kept = !is_regex || bytes == WITH_PATTERN;
    let verdict = if is_kept { Corpus::Keep } else { Corpus::Reject };
    let model = match within(limit, || Model::decode(&bytes)) {
        Ok(model) => model,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return verdict;
        }
    };
    works(&model);
    for record in ["1,GET,7", "a=1 b=\"x\" c", r#"{"a":1,"duration":2,"method":"GET"}"#, ""] {
        encodes(model.features(), record.as_bytes());
        let _ = model.features().with_header(record);
    }
    verdict
});
