//! Parquet files as inputs: each row is the JSON record of its columns.
//!
//! Archives are often Parquet while the same records arrive as JSON. So a specification of JSON records reads
//! both: a pointer's first token names a column, what follows leads into a nested one. Only the columns
//! that are named are read. A row is written as a JSON line and read as any other, so training from an
//! archive can't see a record otherwise than serving does; times become numbers, in the column's unit
//! since 1970, as Kafka Connect writes them. A record's place is its row.

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Once};

use parquet::basic::{ConvertedType, LogicalType, Type as PhysicalType};
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::record::{Field, Row, reader::RowIter};
use parquet::schema::types::Type;
use sawlog_model::ValidSpec;
use sawlog_model::spec::{Encoding, Format};

use super::blocks::{BLOCK_LEN, Block};

/// The reader checks much of a file by assertions. Whatever a file makes of it is an error of the file.
fn guarded<T>(work: impl FnOnce() -> parquet::errors::Result<T>) -> Result<T, String> {
    thread_local!(static IS_INSIDE: Cell<bool> = const { Cell::new(false) });
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !IS_INSIDE.get() {
                before(panic);
            }
        }));
    });
    IS_INSIDE.set(true);
    let done = std::panic::catch_unwind(AssertUnwindSafe(work));
    IS_INSIDE.set(false);
    match done {
        Ok(done) => done.map_err(|error| error.to_string()),
        Err(_) => Err("it is damaged, or made in a way that is not known here".into()),
    }
}

/// A Parquet file that is being read.
pub(crate) struct Rows {
    rows: RowIter<'static>,
    /// Rows read.
    read: u64,
    /// For each row group the rows up to its end.
    group_ends: Vec<u64>,
}

impl Rows {
    /// Opens a file for the columns that a specification names.
    ///
    /// # Errors
    /// In words: no Parquet, damaged, or a column that no record can have.
    pub(crate) fn open(file: File, spec: &ValidSpec) -> Result<Self, String> {
        if !matches!(spec.format(), Format::Json) {
            return Err("a Parquet file is read by a specification of JSON records".into());
        }
        let reader = guarded(|| SerializedFileReader::new(file))?;
        let metadata = reader.metadata();
        let root = metadata.file_metadata().schema();
        let projection = projection(root, spec)?;
        let mut end = 0_u64;
        let group_ends = metadata.row_groups().iter().map(|group| {
            end += u64::try_from(group.num_rows()).unwrap_or(0);
            end
        });
        let group_ends = group_ends.collect();
        let rows = || RowIter::from_file_into(Box::new(reader)).project(Some(projection));
        let rows = guarded(rows)?;
        Ok(Self { rows, read: 0, group_ends })
    }

    /// The share of the rows that is read.
    #[expect(clippy::cast_precision_loss, reason = "progress")]
    pub(crate) fn share_read(&self) -> f64 {
        self.read as f64 / self.group_ends.last().copied().unwrap_or(0).max(1) as f64
    }

    /// The next rows, in the memory of `buffer`; `None` at the end.
    ///
    /// # Errors
    /// Row group and row, and what is wrong there.
    pub(crate) fn next(&mut self, mut bytes: Vec<u8>) -> Result<Option<Block>, String> {
        bytes.clear();
        let first = self.read;
        while bytes.len() < BLOCK_LEN {
            let written = guarded(|| match self.rows.next() {
                Some(row) => Ok(write_row(&row?, &mut bytes).map(|()| true)?),
                None => Ok(false),
            });
            if !written.map_err(|error| self.at(&error))? {
                break;
            }
            bytes.push(b'\n');
            self.read += 1;
        }
        // A file that is cut off in a page may only seem to end.
        let rows = self.group_ends.last().copied().unwrap_or(0);
        if bytes.is_empty() && self.read < rows {
            return Err(self.at(&format!("the file ends before its {rows} rows")));
        }
        Ok((!bytes.is_empty()).then(|| Block::of_rows(bytes, first)))
    }

    fn at(&self, what: &str) -> String {
        let group = self.group_ends.partition_point(|end| *end <= self.read);
        format!("row group {}, row {}: {what}", group + 1, self.read + 1)
    }
}

/// The columns of a file that the pointers of a specification lead into.
fn projection(root: &Type, spec: &ValidSpec) -> Result<Type, String> {
    let key = spec.shingle().and_then(|shingle| shingle.key.as_deref());
    let features = spec
        .features()
        .iter()
        .map(|feature| (feature.field.as_str(), matches!(feature.encoding, Encoding::Number(_))));
    let mut wanted: Vec<String> = Vec::new();
    for (pointer, is_number) in features.chain(key.map(|key| (key, false))) {
        let mut tokens =
            pointer.split('/').skip(1).map(|token| token.replace("~1", "/").replace("~0", "~"));
        let Some(name) = tokens.next() else { continue };
        let mut found = root.get_fields().iter().find(|field| field.name() == name);
        for token in tokens {
            found = found
                .filter(|field| field.is_group())
                .and_then(|field| field.get_fields().iter().find(|inner| inner.name() == token))
                .or(found.filter(|field| is_list_or_map(field)));
        }
        if let Some(column) = found {
            check(pointer, column, is_number)?;
        }
        wanted.push(name);
    }
    let columns: Vec<Arc<Type>> = root
        .get_fields()
        .iter()
        .filter(|field| wanted.iter().any(|name| name == field.name()))
        .cloned()
        .collect();
    if columns.is_empty() {
        let there: Vec<String> =
            root.get_fields().iter().map(|field| format!("`{}`", field.name())).collect();
        return Err(format!(
            "no feature's pointer leads to a column; there are {}",
            there.join(", ")
        ));
    }
    Type::group_type_builder(root.name())
        .with_fields(columns)
        .build()
        .map_err(|error| error.to_string())
}

fn is_list_or_map(column: &Type) -> bool {
    let logical = column.get_basic_info().logical_type_ref();
    let converted = column.get_basic_info().converted_type();
    matches!(logical, Some(LogicalType::List | LogicalType::Map))
        || matches!(
            converted,
            ConvertedType::LIST | ConvertedType::MAP | ConvertedType::MAP_KEY_VALUE
        )
}

/// Refuses a column whose values are never what a feature takes.
fn check(pointer: &str, column: &Type, is_number: bool) -> Result<(), String> {
    if is_list_or_map(column) {
        return Ok(());
    }
    let bad = |what: &str| {
        let wants = if is_number { "a number" } else { "a category" };
        Err(format!(
            "column `{}`, to which `{pointer}` leads, {what}; its feature takes {wants}",
            column.name()
        ))
    };
    if column.is_group() {
        return bad("is a group of columns");
    }
    let info = column.get_basic_info();
    let is_text = matches!(
        info.logical_type_ref(),
        Some(LogicalType::String | LogicalType::Enum | LogicalType::Json)
    ) || matches!(
        info.converted_type(),
        ConvertedType::UTF8 | ConvertedType::ENUM | ConvertedType::JSON
    );
    let is_numeric =
        matches!(info.logical_type_ref(), Some(LogicalType::Decimal(_) | LogicalType::Float16))
            || info.converted_type() == ConvertedType::DECIMAL;
    match column.get_physical_type() {
        // Text may be of a number. Bytes that are not said to be text often are.
        PhysicalType::FIXED_LEN_BYTE_ARRAY if is_number && !is_text && !is_numeric => {
            bad("is bytes")
        }
        _ => Ok(()),
    }
}

fn write_row(row: &Row, out: &mut Vec<u8>) -> io::Result<()> {
    let mut before = b'{';
    for (name, field) in row.get_column_iter() {
        out.push(before);
        serde_json::to_writer(&mut *out, name)?;
        out.push(b':');
        write_field(field, out)?;
        before = b',';
    }
    if before == b'{' {
        out.push(b'{');
    }
    out.push(b'}');
    Ok(())
}

fn write_field(field: &Field, out: &mut Vec<u8>) -> io::Result<()> {
    let out = &mut *out;
    match field {
        Field::Null => out.extend_from_slice(b"null"),
        Field::Bool(flag) => serde_json::to_writer(out, flag)?,
        Field::Byte(number) => serde_json::to_writer(out, number)?,
        Field::Short(number) => serde_json::to_writer(out, number)?,
        Field::Int(number) => serde_json::to_writer(out, number)?,
        Field::Long(number) => serde_json::to_writer(out, number)?,
        Field::UByte(number) => serde_json::to_writer(out, number)?,
        Field::UShort(number) => serde_json::to_writer(out, number)?,
        Field::UInt(number) => serde_json::to_writer(out, number)?,
        Field::ULong(number) => serde_json::to_writer(out, number)?,
        Field::Float(number) => serde_json::to_writer(out, number)?,
        Field::Double(number) => serde_json::to_writer(out, number)?,
        Field::TimeMillis(number) => serde_json::to_writer(out, number)?,
        Field::TimeMicros(number)
        | Field::TimestampMillis(number)
        | Field::TimestampMicros(number) => {
            serde_json::to_writer(out, number)?;
        }
        Field::Str(text) => serde_json::to_writer(out, text)?,
        Field::Bytes(bytes) => match bytes.as_utf8() {
            Ok(text) => serde_json::to_writer(out, text)?,
            Err(_) => out.extend_from_slice(b"null"),
        },
        Field::Group(row) => write_row(row, out)?,
        Field::ListInternal(list) => {
            out.push(b'[');
            for (at, item) in list.elements().iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                write_field(item, out)?;
            }
            out.push(b']');
        }
        Field::MapInternal(map) => {
            out.push(b'{');
            for (at, (key, value)) in map.entries().iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                match key {
                    Field::Str(text) => serde_json::to_writer(&mut *out, text)?,
                    key => serde_json::to_writer(&mut *out, &key.to_string())?,
                }
                out.push(b':');
                write_field(value, out)?;
            }
            out.push(b'}');
        }
        // Decimals, dates and half floats: as they are written.
        other => serde_json::to_writer(out, &other.to_string())?,
    }
    Ok(())
}
