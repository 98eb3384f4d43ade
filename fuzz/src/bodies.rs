//! The body of a request to `sawlog serve`: what the targets of the content types share. What comes of it
//! are points that the forest can score, or a reason; and the points are the same once more when they
//! are written down and read.

use std::sync::LazyLock;

use sawlog_model::{Features, MAX_COORDINATE, ValidSpec, Value, read_record};

use crate::content::{ContentType, RowKind, answer, points};
use crate::within;

static FEATURES: LazyLock<Features> = LazyLock::new(|| {
    let toml = "format = \"csv\"\ncolumns = [\"a\", \"b\", \"c\"]\n\
                [[feature]]\nname = \"a\"\nfield = \"a\"\ntransform = \"log1p\"\n\
                [[feature]]\nname = \"b\"\nfield = \"b\"\ntransform = \"none\"\nmissing = \"reject\"\n\
                [[feature]]\nname = \"c\"\nfield = \"c\"\n";
    let spec = ValidSpec::from_toml(toml).expect("good specification");
    let records = [&b"1,2,3"[..], b"9,4,0.5", b"2,3,70"];
    let rows: Vec<Vec<Value>> =
        records.iter().map(|record| read_record(&spec, record).expect("good record")).collect();
    let rows: Vec<&[Value]> = rows.iter().map(Vec::as_slice).collect();
    Features::fit(spec, &rows).expect("not constant")
});

/// A message of protobuf is a map of names, each with a tensor, whose shortest takes a few bytes of
/// the body; text gives a number of 4 bytes for two of its own.
const FACTOR: usize = 64;
const BASE: usize = 64 << 10;

/// Reads a body of a content type, which the first byte is not part of: it says what a row is.
pub fn read(of: ContentType, data: &[u8]) {
    let Some((&first, body)) = data.split_first() else { return };
    let kind = if first & 4 == 0 { RowKind::Points } else { RowKind::Values };
    let dimensions = FEATURES.dimensions();
    within(FACTOR * data.len() + BASE, || match points(of, body, kind, &FEATURES) {
        Ok(points) => {
            assert!(
                !points.is_empty() && points.len() % dimensions == 0,
                "{} numbers",
                points.len()
            );
            assert!(points.iter().all(|x| x.abs() <= MAX_COORDINATE), "{points:?}");
            again(&points);
            // The type of an answer is no matter of that of the request.
            assert!(!answer(of, &points[..1]).is_empty());
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    });
}

fn again(rows: &[f32]) {
    let lines: Vec<String> = rows
        .chunks_exact(FEATURES.dimensions())
        .map(|row| row.iter().map(f32::to_string).collect::<Vec<_>>().join(","))
        .collect();
    let read = points(ContentType::Csv, lines.join("\n").as_bytes(), RowKind::Points, &FEATURES);
    let bits = |rows: &[f32]| rows.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&read.expect("numbers")), bits(rows));
}
