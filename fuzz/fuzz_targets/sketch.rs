//! Any bytes as a sketch. A checksum guards against accidents, so the envelope is made right here:
//! magic, version, length and SHA-256. What is behind it is then taken apart, or is a sketch that is
//! the same bytes when written again, and can be merged with nothing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sawlog_fuzz::{sealed, within};
use sawlog_model::TrainingSketch;

const MAGIC: &[u8; 8] = b"SAWLOGSK";
/// The newest version that is written.
const NEWEST_VERSION: u8 = 2;

/// Memory a sketch may take: of each record a place in each of 10,000 trees, at least 17 bytes of the
/// file a record, in heaps that double; and the compiled pattern of the format "regex".
const A_BYTE: usize = 10_000 * 80 / 17;
const BASE: usize = 26 << 20;

fuzz_target!(|data: &[u8]| {
    let _ = TrainingSketch::decode(data).map_err(|error| error.to_string());
    let Some(bytes) = sealed(data, MAGIC, NEWEST_VERSION) else { return };
    match within(A_BYTE * bytes.len() + BASE, || TrainingSketch::decode(&bytes)) {
        Ok(sketch) => {
            let again = sketch.encode();
            assert!(again == bytes, "another file is the same sketch: {again:02x?}");
            let mut merged = TrainingSketch::decode(&again).expect("its own bytes");
            let disjoint = sketch.inputs.is_empty();
            assert_eq!(merged.merge(sketch).is_ok(), disjoint, "a sketch with itself");
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
