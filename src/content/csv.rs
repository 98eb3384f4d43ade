//! `text/csv`: rows of numbers, a line each, without a header.

use super::rows::Rows;
use super::{ContentError, Place, text};

pub(super) fn read(body: &[u8], rows: &mut Rows<'_>) -> Result<(), ContentError> {
    for (index, line) in text(body)?.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        rows.add(Place::Line(index + 1), |row| {
            line.split(',').try_for_each(|field| row.text(field.trim()))
        })?;
    }
    Ok(())
}

pub(super) fn write(scores: &[f32]) -> Vec<u8> {
    let mut out = Vec::new();
    for score in scores {
        // As in JSON: with an exponent where that is shorter. A number in memory can't fail.
        let _ = serde_json::to_writer(&mut out, score);
        out.push(b'\n');
    }
    out
}
