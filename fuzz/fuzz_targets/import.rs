//! Any bytes as a forest saved by AWS's library: JSON with packed arrays, lengths and indices that
//! refer to one another across the file. It is refused with the place, or it is a forest that
//! scores any point and whose snapshot is read again.
#![no_main]

use std::ops::Range;

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use sawlog_fuzz::{within, works};
use sawlog_model::import::from_aws_json;

/// As the module promises: 64 MiB for shingles, 64 times the file; half as much again for arrays
/// that are turned into others.
const BASE: usize = 96 << 20;
const FACTOR: usize = 96;

fuzz_target!(|data: &[u8]| {
    let imported = match within(FACTOR * data.len() + BASE, || from_aws_json(data)) {
        Ok(imported) => imported,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    works(&imported.into_model("fuzz", "input"));
});

// Bytes changed at random are seldom JSON any more, so every other change is that of one number.
fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let changed =
        seed.is_multiple_of(2).then(|| with_another_number(&data[..size], seed as usize / 2));
    match changed.flatten().filter(|changed| changed.len() <= max_size) {
        Some(changed) => {
            data[..changed.len()].copy_from_slice(&changed);
            changed.len()
        }
        None => fuzzer_mutate(data, size, max_size),
    }
});

/// Numbers at the limits of what the format allows.
const NUMBERS: [&str; 14] = [
    "-2147483648",
    "-1",
    "0",
    "1",
    "2",
    "3",
    "4",
    "8",
    "127",
    "255",
    "10000",
    "131072",
    "2147483647",
    "9223372036854775807",
];

/// The text with one number replaced: by one of the above, its neighbour, or another of the text.
fn with_another_number(text: &[u8], seed: usize) -> Option<Vec<u8>> {
    let numbers = numbers(text);
    let (count, pick) = (numbers.len(), seed.wrapping_mul(0x9e37_79b9) >> 7);
    let at = numbers.get(seed.checked_rem(count)?)?.clone();
    let old = std::str::from_utf8(&text[at.clone()]).ok()?.parse().unwrap_or(0_i64);
    let new = match pick % 4 {
        0 => NUMBERS[pick / 4 % NUMBERS.len()].to_owned(),
        1 => old.saturating_add(1).to_string(),
        2 => old.saturating_sub(1).to_string(),
        _ => String::from_utf8(text[numbers[pick / 4 % count].clone()].to_vec()).ok()?,
    };
    Some([&text[..at.start], new.as_bytes(), &text[at.end..]].concat())
}

/// Where a text has numbers.
fn numbers(text: &[u8]) -> Vec<Range<usize>> {
    let is_part = |byte: &u8| byte.is_ascii_digit() || *byte == b'-';
    let runs = text.chunk_by(|a, b| is_part(a) == is_part(b));
    let ranges = runs.scan(0, |end, run| {
        let start = *end;
        *end += run.len();
        Some(start..*end)
    });
    ranges.filter(|range| is_part(&text[range.start])).collect()
}
