//! The same records as JSON and as Parquet.

use std::path::Path;
use std::sync::Arc;

use parquet::basic::Compression;
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

pub const SPEC: &str = r#"format = "json"
[[feature]]
name = "duration"
field = "/duration"
missing = "reject"
[[feature]]
name = "path"
field = "/request/path"
encode = "frequency"
"#;

/// A record: duration, path if it has one, time in milliseconds.
pub type Row = (f64, Option<String>, i64);

/// The first record's time: 2026-11-21T10:00:00Z.
const START_MS: i64 = 1_795_255_200_000;

pub fn rows(count: u32) -> Vec<Row> {
    let row = |i: u32| {
        let path = (!i.is_multiple_of(11)).then(|| format!("/{}\"é", i * 31 % 7));
        (f64::from(i * 7919 % 1013) / 8.0, path, START_MS + i64::from(i) * 1000)
    };
    (0..count).map(row).collect()
}

pub fn json(rows: &[Row]) -> String {
    let line = |(duration, path, ms): &Row| {
        let request = path
            .as_ref()
            .map_or("null".to_owned(), |path| serde_json::json!({ "path": path }).to_string());
        format!("{{\"duration\":{duration},\"request\":{request},\"at\":{ms}}}\n")
    };
    rows.iter().map(line).collect()
}

const SCHEMA: &str = "message records {
    required double duration;
    optional group request { optional binary path (UTF8); }
    required int64 at (TIMESTAMP_MILLIS);
    optional binary unused (UTF8);
}";

/// Writes row groups of a thousand rows each.
pub fn write_parquet(path: &Path, compression: Compression, rows: &[Row]) {
    let schema = Arc::new(parse_message_type(SCHEMA).expect("a schema"));
    let properties = WriterProperties::builder().set_compression(compression).build();
    let file = std::fs::File::create(path).expect("created");
    let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties)).expect("begun");
    for rows in rows.chunks(1000) {
        let mut group = writer.next_row_group().expect("begun");
        let mut at = 0;
        while let Some(mut column) = group.next_column().expect("a column") {
            match (at, column.untyped()) {
                (0, ColumnWriter::DoubleColumnWriter(column)) => {
                    let values: Vec<f64> = rows.iter().map(|row| row.0).collect();
                    column.write_batch(&values, None, None).expect("written");
                }
                (1, ColumnWriter::ByteArrayColumnWriter(column)) => {
                    let there = |row: &Row| i16::from(row.1.is_some()) * 2;
                    let levels: Vec<i16> = rows.iter().map(there).collect();
                    let paths = rows.iter().filter_map(|row| row.1.as_deref());
                    let values: Vec<ByteArray> = paths.map(ByteArray::from).collect();
                    column.write_batch(&values, Some(&levels), None).expect("written");
                }
                (2, ColumnWriter::Int64ColumnWriter(column)) => {
                    let values: Vec<i64> = rows.iter().map(|row| row.2).collect();
                    column.write_batch(&values, None, None).expect("written");
                }
                (3, ColumnWriter::ByteArrayColumnWriter(column)) => {
                    column.write_batch(&[], Some(&vec![0; rows.len()]), None).expect("written");
                }
                _ => panic!("column {at} is of another type"),
            }
            column.close().expect("closed");
            at += 1;
        }
        group.close().expect("closed");
    }
    writer.close().expect("closed");
}
