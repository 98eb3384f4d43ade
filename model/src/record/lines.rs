//! One line of CSV or logfmt to its fields.

use std::borrow::Cow;

use super::{RecordError, Row, Scalar, line_of};

/// Which columns of a CSV the features read.
#[derive(Debug, Clone)]
pub(crate) struct CsvColumns {
    pub(super) delimiter: u8,
    /// Number of columns, 0 until a header is known.
    pub(super) count: usize,
    /// For each feature the index of its column.
    pub(super) of_feature: Vec<usize>,
}

impl CsvColumns {
    pub(super) fn read(&self, line: &str, row: &mut Row<'_>) -> Result<(), RecordError> {
        if self.count == 0 {
            return Err(RecordError::NoColumns);
        }
        let fields = CsvFields::split(line, self.delimiter)?;
        if fields.ends.len() != self.count {
            return Err(RecordError::Columns { expected: self.count, got: fields.ends.len() });
        }
        for (feature, &column) in self.of_feature.iter().enumerate() {
            row.set(feature, Scalar::Text(fields.get(column)));
        }
        Ok(())
    }
}

/// The fields of one CSV line: their unquoted text end to end, and where each ends.
struct CsvFields<'a> {
    text: Cow<'a, str>,
    ends: Vec<usize>,
    /// Bytes between two fields in `text`: the delimiter where nothing was unquoted.
    between: usize,
}

impl<'a> CsvFields<'a> {
    fn get(&self, column: usize) -> &str {
        let start = if column == 0 { 0 } else { self.ends[column - 1] + self.between };
        self.text.get(start..self.ends[column]).unwrap_or_default()
    }

    fn split(line: &'a str, delimiter: u8) -> Result<Self, RecordError> {
        if line.contains('"') {
            return Self::unquote(line, delimiter);
        }
        let is_delimiter = |&(_, byte): &(usize, u8)| byte == delimiter;
        let mut ends: Vec<usize> =
            line.bytes().enumerate().filter(is_delimiter).map(|(at, _)| at).collect();
        ends.push(line.len());
        Ok(Self { text: Cow::Borrowed(line), ends, between: 1 })
    }

    /// A reader is made for each quoted line: it takes less than the line's parsing does, and one
    /// can't be cloned (csv-core 0.1.13 clones it without its character classes).
    fn unquote(line: &str, delimiter: u8) -> Result<Self, RecordError> {
        if in_open_quote(line) {
            return Err(RecordError::UnclosedQuote);
        }
        let mut reader = csv_core::ReaderBuilder::new().delimiter(delimiter).build();
        // Unquoted text is never longer than its source, and there is at most one field more than
        // delimiters, so both buffers are bounded by the line.
        let mut text = vec![0; line.len() + 1];
        let mut ends = vec![0; line.len() + 2];
        let (_, read, written, ended) = reader.read_record(line.as_bytes(), &mut text, &mut ends);
        // No input left tells the reader that the last field ends here.
        let (_, _, _, last) = reader.read_record(&[], &mut [], &mut ends[ended..]);
        if read != line.len() {
            return Err(RecordError::UnclosedQuote);
        }
        text.truncate(written);
        ends.truncate(ended + last);
        let text = String::from_utf8(text)
            .map_err(|error| RecordError::NotUtf8 { at: error.utf8_error().valid_up_to() })?;
        Ok(Self { text: Cow::Owned(text), ends, between: 0 })
    }
}

/// True if the line ends inside a quoted field: quotes come in pairs, doubled ones included.
fn in_open_quote(line: &str) -> bool {
    line.bytes().filter(|&byte| byte == b'"').count() % 2 == 1
}

/// Splits one CSV line into its columns.
pub(crate) fn split_csv(line: &str, delimiter: u8) -> Result<Vec<String>, RecordError> {
    let fields = CsvFields::split(line_of(line), delimiter)?;
    Ok((0..fields.ends.len()).map(|column| fields.get(column).to_owned()).collect())
}

/// Reads `key=value`, `key="quoted \" value"` and bare `key` (true) pairs.
///
/// By hand: the format has no standard and its crates no upkeep; this is go-logfmt's reading of it.
pub(super) fn read_logfmt(
    keys: &[(String, Vec<usize>)],
    line: &str,
    row: &mut Row<'_>,
) -> Result<(), RecordError> {
    let mut rest = line.trim_start();
    while !rest.is_empty() {
        let key_len = rest.find(|c: char| c == '=' || c.is_whitespace()).unwrap_or(rest.len());
        let (key, after) = rest.split_at(key_len);
        let (value, next): (Option<Cow<'_, str>>, &str) = match after.strip_prefix('=') {
            None => (None, after),
            Some(after) => match after.strip_prefix('"') {
                Some(quoted) => {
                    let (value, next) = unquote(quoted).ok_or(RecordError::UnclosedQuote)?;
                    (Some(value), next)
                }
                None => {
                    let len = after.find(char::is_whitespace).unwrap_or(after.len());
                    (Some(Cow::Borrowed(&after[..len])), &after[len..])
                }
            },
        };
        if let Ok(at) = keys.binary_search_by(|(known, _)| known.as_str().cmp(key)) {
            for &feature in &keys[at].1 {
                match &value {
                    Some(text) => row.set(feature, Scalar::Text(text)),
                    None => row.set(feature, Scalar::Bool(true)),
                }
            }
        }
        rest = next.trim_start();
    }
    Ok(())
}

/// The text up to the closing quote with its escapes undone, and what follows it.
fn unquote(quoted: &str) -> Option<(Cow<'_, str>, &str)> {
    let end = quoted.find(['"', '\\'])?;
    if quoted[end..].starts_with('"') {
        return Some((Cow::Borrowed(&quoted[..end]), &quoted[end + 1..]));
    }
    let mut text = quoted[..end].to_owned();
    let mut chars = quoted[end..].char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((Cow::Owned(text), &quoted[end + at + 1..])),
            '\\' => text.push(match chars.next()?.1 {
                'n' => '\n',
                't' => '\t',
                'r' => '\r',
                other => other,
            }),
            other => text.push(other),
        }
    }
    None
}
