//! One record's bytes to one [`Value`] a feature, by the specification's format.
//!
//! The same code reads a line of a training file and the payload of a Kafka record, so what was
//! learned and what is scored can't differ. Only the fields that a feature names are kept; the rest
//! of the record is passed over without being stored. Messages name fields and reasons and never
//! quote the record's own text, which may be personal data.

use std::borrow::Cow;
use std::fmt;

use regex::Regex;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::spec::{Encoding, Format, Spec, SpecFault, SpecPlace, compile_regex};

/// Longest record in bytes; a longer one is refused before it is parsed. Kafka's default for a
/// message is 1 MiB.
pub const MAX_RECORD_LEN: usize = 1 << 20;

/// One field of a record, as the log had it, before any transform.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Absent, null, empty, `-` (the Common Log Format's nothing) or NaN.
    Missing,
    /// A finite number; booleans are 0 and 1.
    Number(f64),
    /// The text of a category.
    Category(Box<str>),
}

/// Why a record can't be turned into a point.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Over [`MAX_RECORD_LEN`].
    #[error("the record has {len} bytes; at most {MAX_RECORD_LEN} are read")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// Not UTF-8.
    #[error("not UTF-8 at byte {at}")]
    NotUtf8 {
        /// Offset of the first bad byte in the record.
        at: usize,
    },
    /// Not JSON.
    #[error("not JSON: {0}")]
    Json(#[source] serde_json::Error),
    /// A CSV record with another number of columns.
    #[error("it has {got} columns where {expected} are expected")]
    Columns {
        /// As in the header.
        expected: usize,
        /// As found.
        got: usize,
    },
    /// A quote that is not closed on the line.
    #[error("a quoted value is not closed (a record is one line)")]
    UnclosedQuote,
    /// A line that the pattern does not match.
    #[error("it does not match the pattern")]
    NoMatch,
    /// A field with a value that its feature can't take.
    #[error("field `{field}` {fault}")]
    Field {
        /// The field as the specification names it.
        field: String,
        /// What is wrong with its value.
        fault: FieldFault,
    },
    /// The columns of the CSV are not known.
    #[error("the columns of the csv are not known: name them by `columns` or give a header")]
    NoColumns,
}

impl RecordError {
    /// The message without what differs from record to record, for counting the commonest reasons.
    pub fn class(&self) -> String {
        match self {
            Self::TooLong { .. } => format!("longer than {MAX_RECORD_LEN} bytes"),
            Self::NotUtf8 { .. } => "not UTF-8".into(),
            Self::Json(_) => "not JSON".into(),
            Self::Columns { expected, .. } => format!("other than {expected} columns"),
            other => other.to_string(),
        }
    }
}

/// What is wrong with a field's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FieldFault {
    /// Missing where the specification says `missing = "reject"`.
    #[error("is missing")]
    Missing,
    /// Text that is no number.
    #[error("is not a number")]
    NotANumber,
    /// An infinity.
    #[error("is infinite")]
    Infinite,
    /// A JSON object or array.
    #[error("is an object or a list")]
    NotAScalar,
}

/// The compiled reader of one specification's records.
#[derive(Debug, Clone)]
pub(crate) enum Extractor {
    Json(PointerTree),
    Csv(CsvColumns),
    /// Keys, each with the features that read it, sorted by key.
    Logfmt(Vec<(String, Vec<usize>)>),
    /// For each feature the index of its group.
    Regex(Regex, Vec<usize>),
}

#[derive(Debug, Clone)]
pub(crate) struct CsvColumns {
    delimiter: u8,
    /// Number of columns, 0 until a header is known.
    count: usize,
    /// For each feature the index of its column.
    of_feature: Vec<usize>,
}

impl Extractor {
    pub(crate) fn compile(spec: &Spec) -> Result<Self, (SpecPlace, SpecFault)> {
        let fields = || spec.features.iter().map(|feature| feature.field.as_str()).enumerate();
        match &spec.format {
            Format::Json => {
                let mut tree = PointerTree::default();
                for (feature, pointer) in fields() {
                    tree.insert(pointer, feature)
                        .map_err(|fault| (SpecPlace::Field(feature), fault))?;
                }
                Ok(Self::Json(tree))
            }
            Format::Logfmt => {
                let mut keys: Vec<(String, Vec<usize>)> = Vec::new();
                for (feature, key) in fields() {
                    match keys.binary_search_by(|(known, _)| known.as_str().cmp(key)) {
                        Ok(at) => keys[at].1.push(feature),
                        Err(at) => keys.insert(at, (key.to_owned(), vec![feature])),
                    }
                }
                Ok(Self::Logfmt(keys))
            }
            Format::Regex { pattern } => {
                let regex = compile_regex(pattern)?;
                let names: Vec<Option<&str>> = regex.capture_names().collect();
                let mut groups = Vec::new();
                for (feature, field) in fields() {
                    let Some(group) = names.iter().position(|&name| name == Some(field)) else {
                        let groups = listed(names.iter().flatten().copied());
                        let fault = SpecFault::NoSuchGroup { field: field.to_owned(), groups };
                        return Err((SpecPlace::Field(feature), fault));
                    };
                    groups.push(group);
                }
                Ok(Self::Regex(regex, groups))
            }
            Format::Csv { delimiter, columns } => {
                let mut of_feature = Vec::new();
                for (feature, field) in fields() {
                    match columns.iter().position(|column| column == field) {
                        Some(column) => of_feature.push(column),
                        None if columns.is_empty() => of_feature.push(0),
                        None => {
                            let columns = listed(columns.iter().map(String::as_str));
                            let fault =
                                SpecFault::NoSuchColumn { field: field.to_owned(), columns };
                            return Err((SpecPlace::Field(feature), fault));
                        }
                    }
                }
                Ok(Self::Csv(CsvColumns {
                    delimiter: *delimiter,
                    count: columns.len(),
                    of_feature,
                }))
            }
        }
    }

    /// Reads one record: one value a feature, in the order of the specification.
    pub(crate) fn read(&self, spec: &Spec, payload: &[u8]) -> Result<Vec<Value>, RecordError> {
        if payload.len() > MAX_RECORD_LEN {
            return Err(RecordError::TooLong { len: payload.len() });
        }
        let text = std::str::from_utf8(payload)
            .map_err(|error| RecordError::NotUtf8 { at: error.valid_up_to() })?;
        let mut row = Row { spec, values: vec![Value::Missing; spec.features.len()], fault: None };
        match self {
            Self::Json(tree) => {
                let mut reader = serde_json::Deserializer::from_str(text);
                let seed = NodeSeed { tree, node: 0, row: &mut row };
                seed.deserialize(&mut reader)
                    .and_then(|()| reader.end())
                    .map_err(RecordError::Json)?;
            }
            Self::Csv(columns) => columns.read(line_of(text), &mut row)?,
            Self::Logfmt(keys) => read_logfmt(keys, line_of(text), &mut row)?,
            Self::Regex(regex, groups) => {
                let found = regex.captures(line_of(text)).ok_or(RecordError::NoMatch)?;
                for (feature, &group) in groups.iter().enumerate() {
                    if let Some(group) = found.get(group) {
                        row.set(feature, Scalar::Text(group.as_str()));
                    }
                }
            }
        }
        match row.fault {
            Some((feature, fault)) => {
                Err(RecordError::Field { field: spec.features[feature].field.clone(), fault })
            }
            None => Ok(row.values),
        }
    }
}

fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let shown: Vec<String> = names.map(|name| format!("`{name}`")).collect();
    if shown.is_empty() { "none".to_owned() } else { shown.join(", ") }
}

fn line_of(text: &str) -> &str {
    let line = text.strip_suffix('\n').unwrap_or(text);
    line.strip_suffix('\r').unwrap_or(line)
}

/// A field's value as the format gives it, before its feature decides what it is.
enum Scalar<'a> {
    Null,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(&'a str),
    Structure,
}

/// The values of one record on their way in.
struct Row<'a> {
    spec: &'a Spec,
    values: Vec<Value>,
    /// The first fault; kept aside so that a format's parser has one error type less.
    fault: Option<(usize, FieldFault)>,
}

impl Row<'_> {
    fn set(&mut self, feature: usize, scalar: Scalar<'_>) {
        let value = match self.spec.features[feature].encoding {
            Encoding::Number(_) => number(scalar),
            Encoding::OneHot | Encoding::Frequency => category(scalar),
        };
        match value {
            Ok(value) => self.values[feature] = value,
            Err(fault) => {
                self.fault.get_or_insert((feature, fault));
            }
        }
    }
}

fn number(scalar: Scalar<'_>) -> Result<Value, FieldFault> {
    #[expect(clippy::cast_precision_loss, reason = "coordinates are f32 in the end")]
    let number = match scalar {
        Scalar::Null => return Ok(Value::Missing),
        Scalar::Structure => return Err(FieldFault::NotAScalar),
        Scalar::Bool(flag) => f64::from(u8::from(flag)),
        Scalar::Unsigned(number) => number as f64,
        Scalar::Signed(number) => number as f64,
        Scalar::Float(number) => number,
        Scalar::Text(text) => match text.trim() {
            "" | "-" => return Ok(Value::Missing),
            "true" | "True" | "TRUE" => 1.0,
            "false" | "False" | "FALSE" => 0.0,
            text => text.parse::<f64>().map_err(|_| FieldFault::NotANumber)?,
        },
    };
    if number.is_nan() {
        return Ok(Value::Missing);
    }
    if number.is_infinite() {
        return Err(FieldFault::Infinite);
    }
    Ok(Value::Number(number))
}

fn category(scalar: Scalar<'_>) -> Result<Value, FieldFault> {
    let text: Cow<'_, str> = match scalar {
        Scalar::Null => return Ok(Value::Missing),
        Scalar::Structure => return Err(FieldFault::NotAScalar),
        Scalar::Bool(flag) => Cow::Borrowed(if flag { "true" } else { "false" }),
        Scalar::Unsigned(number) => Cow::Owned(number.to_string()),
        Scalar::Signed(number) => Cow::Owned(number.to_string()),
        Scalar::Float(number) => Cow::Owned(number.to_string()),
        Scalar::Text(text) => Cow::Borrowed(text.trim()),
    };
    match text.as_ref() {
        "" | "-" => Ok(Value::Missing),
        text => Ok(Value::Category(text.into())),
    }
}

/// The pointers of a specification as a tree over their tokens, so that one pass over a JSON text
/// visits the named fields and nothing else. (A `serde_json::Value` would store the whole record.)
#[derive(Debug, Clone)]
pub(crate) struct PointerTree {
    nodes: Vec<PointerNode>,
}

#[derive(Debug, Clone, Default)]
struct PointerNode {
    /// Next token and the node it leads to.
    children: Vec<(String, usize)>,
    /// Features whose pointer ends here.
    features: Vec<usize>,
}

impl Default for PointerTree {
    fn default() -> Self {
        Self { nodes: vec![PointerNode::default()] }
    }
}

/// Deepest pointer; serde_json itself stops at 128 levels.
const MAX_POINTER_DEPTH: usize = 100;

impl PointerTree {
    fn insert(&mut self, pointer: &str, feature: usize) -> Result<(), SpecFault> {
        let bad = |reason| SpecFault::Pointer { pointer: pointer.to_owned(), reason };
        let tokens = match pointer.strip_prefix('/') {
            Some(rest) => rest.split('/'),
            None => return Err(bad("it starts with '/', as in \"/request/duration_ms\"")),
        };
        let mut node = 0;
        for (depth, token) in tokens.enumerate() {
            if depth == MAX_POINTER_DEPTH {
                return Err(bad("it is more than 100 levels deep"));
            }
            if token.replace("~0", "").replace("~1", "").contains('~') {
                return Err(bad("'~' is written ~0 and '/' inside a name ~1"));
            }
            let token = token.replace("~1", "/").replace("~0", "~");
            let next = self.nodes.len();
            let children = &mut self.nodes[node].children;
            node = match children.iter().find(|(known, _)| *known == token) {
                Some(&(_, child)) => child,
                None => {
                    children.push((token, next));
                    self.nodes.push(PointerNode::default());
                    next
                }
            };
        }
        self.nodes[node].features.push(feature);
        Ok(())
    }

    fn child(&self, node: usize, token: &str) -> Option<usize> {
        let children = &self.nodes[node].children;
        children.iter().find(|(known, _)| known == token).map(|&(_, child)| child)
    }
}

/// Reads one JSON value at a node of the tree.
struct NodeSeed<'t, 'r, 's> {
    tree: &'t PointerTree,
    node: usize,
    row: &'r mut Row<'s>,
}

impl NodeSeed<'_, '_, '_> {
    fn set(&mut self, scalar: impl Fn() -> Scalar<'static>) {
        for &feature in &self.tree.nodes[self.node].features {
            self.row.set(feature, scalar());
        }
    }
}

impl<'de> DeserializeSeed<'de> for NodeSeed<'_, '_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for NodeSeed<'_, '_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(mut self) -> Result<(), E> {
        self.set(|| Scalar::Null);
        Ok(())
    }

    fn visit_bool<E>(mut self, flag: bool) -> Result<(), E> {
        self.set(|| Scalar::Bool(flag));
        Ok(())
    }

    fn visit_u64<E>(mut self, number: u64) -> Result<(), E> {
        self.set(|| Scalar::Unsigned(number));
        Ok(())
    }

    fn visit_i64<E>(mut self, number: i64) -> Result<(), E> {
        self.set(|| Scalar::Signed(number));
        Ok(())
    }

    fn visit_f64<E>(mut self, number: f64) -> Result<(), E> {
        self.set(|| Scalar::Float(number));
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        for &feature in &self.tree.nodes[self.node].features {
            self.row.set(feature, Scalar::Text(text));
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        self.set(|| Scalar::Structure);
        for index in 0_usize.. {
            let child = match self.tree.nodes[self.node].children.is_empty() {
                true => None,
                false => self.tree.child(self.node, &index.to_string()),
            };
            let more = match child {
                Some(node) => items
                    .next_element_seed(NodeSeed { tree: self.tree, node, row: self.row })?
                    .is_some(),
                None => items.next_element::<IgnoredAny>()?.is_some(),
            };
            if !more {
                break;
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut entries: A) -> Result<(), A::Error> {
        self.set(|| Scalar::Structure);
        while let Some(child) =
            entries.next_key_seed(KeySeed { tree: self.tree, node: self.node })?
        {
            match child {
                Some(node) => {
                    entries.next_value_seed(NodeSeed { tree: self.tree, node, row: self.row })?;
                }
                None => {
                    entries.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

/// Reads an object's key as the child node it leads to, without storing it.
struct KeySeed<'t> {
    tree: &'t PointerTree,
    node: usize,
}

impl<'de> DeserializeSeed<'de> for KeySeed<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeySeed<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.tree.child(self.node, key))
    }
}

impl CsvColumns {
    fn read(&self, line: &str, row: &mut Row<'_>) -> Result<(), RecordError> {
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
fn read_logfmt(
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::ValidSpec;

    fn read(toml: &str, payload: &[u8]) -> Result<Vec<Value>, RecordError> {
        let spec = ValidSpec::from_toml(toml).expect("good specification");
        spec.extractor().read(spec.spec(), payload)
    }

    fn number_spec(format: &str, fields: &[&str]) -> String {
        let mut text = format.to_owned();
        for (index, field) in fields.iter().enumerate() {
            text += &format!("\n[[feature]]\nname = \"n{index}\"\nfield = \"{field}\"\n");
        }
        text
    }

    use Value::{Missing, Number};

    #[test]
    fn json_fields_are_found_wherever_they_stand() {
        let spec = number_spec(
            "format = \"json\"",
            &["/a", "/b/c~1d/1", "/b", "/t", "/s", "/none", "/nul"],
        );
        let got = read(
            &spec.replace("\"/b\"", "\"/b/e\""),
            br#"{"x":[1,{"a":9}],"b":{"c/d":[7,8.5,9],"e":-3},"a":1,"t":true,"s":" 2.5e1 ","nul":null}"#,
        );
        assert_eq!(
            got.expect("good record"),
            [Number(1.0), Number(8.5), Number(-3.0), Number(1.0), Number(25.0), Missing, Missing]
        );
    }

    #[test]
    fn json_faults_name_field_and_reason_but_no_value() {
        let spec = number_spec("format = \"json\"", &["/a"]);
        let cases: [(&[u8], &str); 9] = [
            (br#"{"a":"secret"}"#, "field `/a` is not a number"),
            (br#"{"a":{"secret":1}}"#, "field `/a` is an object or a list"),
            (br#"{"a":"inf"}"#, "field `/a` is infinite"),
            (br#"{"a":1} secret"#, "not JSON: trailing characters at line 1 column 9"),
            (br#"{"a":1"#, "not JSON: EOF"),
            (br#"{"a":1e999}"#, "not JSON: number out of range"),
            (b"{\"a\":\"\xff\"}", "not UTF-8 at byte 6"),
            (b"", "not JSON: EOF"),
            (b"nul", "not JSON"),
        ];
        for (payload, want) in cases {
            let got = read(&spec, payload).expect_err("must be refused").to_string();
            assert!(got.starts_with(want) && !got.contains("secret"), "want {want}, got {got}");
        }
        let long = vec![b' '; MAX_RECORD_LEN + 1];
        assert!(matches!(read(&spec, &long), Err(RecordError::TooLong { .. })));
        let deep = "[".repeat(100_000);
        assert!(matches!(read(&spec, deep.as_bytes()), Err(RecordError::Json(_))));
        let deep = format!("{{\"b\":{}{}}}", "[".repeat(400_000), "]".repeat(400_000));
        let got = read(&spec, deep.as_bytes())
            .expect("what no feature names is passed over at any depth");
        assert_eq!(got, [Missing]);
    }

    #[test]
    fn nothing_and_nan_are_missing() {
        let spec =
            number_spec("format = \"csv\"\ncolumns = [\"a\", \"b\", \"c\"]", &["c", "a", "b"]);
        assert_eq!(read(&spec, b"-,NaN,\r\n").expect("good"), [Missing, Missing, Missing]);
    }

    #[test]
    fn csv_quotes_and_column_counts() {
        let spec = number_spec("format = \"csv\"\ncolumns = [\"a\", \"b\"]", &["b"]);
        assert_eq!(read(&spec, b"\"x, \"\"y\"\"\",4").expect("good"), [Number(4.0)]);
        assert!(matches!(read(&spec, b"1,2,3"), Err(RecordError::Columns { expected: 2, got: 3 })));
        assert!(matches!(read(&spec, b"\"1,2"), Err(RecordError::UnclosedQuote)));
        assert!(matches!(read(&spec, b""), Err(RecordError::Columns { .. })));
        assert_eq!(split_csv("a;\"b;c\";", b';').expect("good"), ["a", "b;c", ""]);
    }

    #[test]
    fn logfmt_pairs_quotes_and_flags() {
        let spec = number_spec("format = \"logfmt\"", &["dur", "ok", "q", "absent"]);
        let got = read(&spec, b"ts=1 msg=\"a \\\"dur=9\\\" b\" dur=12.5 ok q=\"7\" =x");
        assert_eq!(got.expect("good"), [Number(12.5), Number(1.0), Number(7.0), Missing]);
        assert!(matches!(read(&spec, b"a=\"x"), Err(RecordError::UnclosedQuote)));
    }

    #[test]
    fn regex_groups_that_take_no_part_are_missing() {
        let spec = "format = \"regex\"\npattern = '^(?<s>\\d+)( (?<b>\\d+|-))?$'\n[[feature]]\nname = \"s\"\nfield = \"s\"\n[[feature]]\nname = \"b\"\nfield = \"b\"";
        assert_eq!(read(spec, b"200 17").expect("good"), [Number(200.0), Number(17.0)]);
        assert_eq!(read(spec, b"200 -").expect("good"), [Number(200.0), Missing]);
        assert_eq!(read(spec, b"200").expect("good"), [Number(200.0), Missing]);
        assert!(matches!(read(spec, b"x"), Err(RecordError::NoMatch)));
    }

    #[test]
    fn categories_keep_their_text() {
        let spec =
            "format = \"json\"\n[[feature]]\nname = \"m\"\nfield = \"/m\"\nencode = \"one_hot\"";
        let category = |text: &str| Value::Category(text.into());
        for (payload, want) in [
            (&br#"{"m":"GET"}"#[..], category("GET")),
            (br#"{"m":404}"#, category("404")),
            (br#"{"m":true}"#, category("true")),
            (br#"{"m":""}"#, Missing),
            (br#"{}"#, Missing),
        ] {
            assert_eq!(read(spec, payload).expect("good"), [want]);
        }
    }
}
