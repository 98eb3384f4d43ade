//! Rows of numbers to the bodies of requests, each under a number of rows and of bytes.

use std::io::Write as _;
use std::ops::Range;

use ndarray::{ArrayView1, ArrayView2};

use super::EndpointFault;
use crate::config::RowFormat;

/// What one call sends: consecutive rows, or one row that can't be sent.
#[derive(Debug)]
pub(super) struct Chunk {
    /// Which call of the batch it is, from 0.
    pub(super) index: usize,
    /// Its rows.
    pub(super) rows: Range<usize>,
    /// The body, or why there is none.
    pub(super) body: Result<Vec<u8>, EndpointFault>,
}

impl RowFormat {
    /// What a request is sent as.
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Csv => "text/csv",
            Self::Json => "application/json",
        }
    }

    /// What stands before the first row, between two rows and after the last.
    fn frame(self) -> [&'static [u8]; 3] {
        match self {
            Self::Csv => [b"", b"\n", b"\n"],
            Self::Json => [br#"{"instances":["#, b",", b"]}"],
        }
    }

    fn write_row(self, row: ArrayView1<'_, f32>, out: &mut Vec<u8>) {
        if self == Self::Json {
            out.extend_from_slice(br#"{"features":["#);
        }
        for (at, number) in row.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            // The shortest text that is read back as this number. Writing to memory can't fail.
            let _ = write!(out, "{number:?}");
        }
        if self == Self::Json {
            out.extend_from_slice(b"]}");
        }
    }
}

/// Puts rows into chunks, in their order. A chunk is made when it is asked for, so that only those in
/// flight are in memory.
pub(super) fn chunks(
    rows: ArrayView2<'_, f32>,
    format: RowFormat,
    max_rows: usize,
    max_bytes: usize,
) -> impl Iterator<Item = Chunk> {
    let [before, between, after] = format.frame();
    let (mut next, mut index) = (0, 0);
    let mut text = Vec::new();
    std::iter::from_fn(move || {
        let start = next;
        let mut body = Vec::new();
        let mut fault = None;
        while next < rows.nrows() && next - start < max_rows {
            let row = rows.row(next);
            text.clear();
            format.write_row(row, &mut text);
            let alone = before.len() + text.len() + after.len();
            let joined = body.len() + between.len() + text.len() + after.len();
            let unfit = if row.iter().any(|number| !number.is_finite()) {
                Some(EndpointFault::NotFinite)
            } else if alone > max_bytes {
                Some(EndpointFault::RowTooLong { bytes: alone, limit: max_bytes })
            } else {
                None
            };
            if next > start && (unfit.is_some() || joined > max_bytes) {
                break;
            }
            next += 1;
            if unfit.is_some() {
                fault = unfit;
                break;
            }
            body.extend_from_slice(if next - start == 1 { before } else { between });
            body.extend_from_slice(&text);
        }
        if next == start {
            return None;
        }
        body.extend_from_slice(after);
        let chunk = Chunk { index, rows: start..next, body: fault.map_or(Ok(body), Err) };
        index += 1;
        Some(chunk)
    })
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, array};

    use super::*;

    fn texts(
        rows: &Array2<f32>,
        format: RowFormat,
        max_rows: usize,
        max_bytes: usize,
    ) -> Vec<String> {
        let chunks = chunks(rows.view(), format, max_rows, max_bytes);
        let text = |chunk: Chunk| match chunk.body {
            Ok(body) => String::from_utf8(body).expect("text"),
            Err(fault) => format!("{:?} {fault}", chunk.rows),
        };
        chunks.map(text).collect()
    }

    #[test]
    fn rows_are_written_as_the_contract_has_them() {
        let rows = array![[1.5, 16.0], [-0.1, 1e30], [3.0, f32::MIN_POSITIVE]];
        let csv = ["1.5,16.0\n-0.1,1e30\n", "3.0,1.1754944e-38\n"];
        assert_eq!(texts(&rows, RowFormat::Csv, 2, 1000), csv);
        let json = [
            r#"{"instances":[{"features":[1.5,16.0]},{"features":[-0.1,1e30]}]}"#,
            r#"{"instances":[{"features":[3.0,1.1754944e-38]}]}"#,
        ];
        assert_eq!(texts(&rows, RowFormat::Json, 2, 1000), json);
    }

    #[test]
    fn chunks_keep_both_limits_and_every_row_in_its_order() {
        let rows =
            Array2::from_shape_fn((1000, 3), |(row, column)| (row * 7 + column) as f32 / 3.0);
        for format in [RowFormat::Csv, RowFormat::Json] {
            for (max_rows, max_bytes) in [(1, 10_000), (7, 10_000), (1000, 300), (1000, 1 << 20)] {
                let mut next = 0;
                for (index, chunk) in chunks(rows.view(), format, max_rows, max_bytes).enumerate() {
                    assert_eq!((chunk.index, chunk.rows.start), (index, next));
                    next = chunk.rows.end;
                    let body = chunk.body.expect("it fits");
                    assert!(chunk.rows.len() <= max_rows && body.len() <= max_bytes);
                }
                assert_eq!(next, 1000, "{format:?}, {max_rows} rows, {max_bytes} bytes");
            }
        }
        assert_eq!(texts(&Array2::zeros((0, 3)), RowFormat::Json, 10, 100), Vec::<String>::new());
    }

    #[test]
    fn a_row_that_can_not_be_sent_stands_alone() {
        let rows =
            array![[1.0, 2.0], [f32::NAN, 2.0], [3.0, 4.0], [1.234_567_9, 8.765_432], [5.0, 6.0]];
        let expected = [
            "1.0,2.0\n",
            "1..2 a number in its row is not finite",
            "3.0,4.0\n",
            "3..4 its row has 19 bytes; ENDPOINT_MAX_BYTES is 12",
            "5.0,6.0\n",
        ];
        let got = texts(&rows, RowFormat::Csv, 10, 12);
        assert_eq!(got, expected);
    }
}
