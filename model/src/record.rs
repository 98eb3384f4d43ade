//! One record's bytes to one [`Value`] a feature, by the specification's format.
//!
//! The same code reads a line of a training file and the payload of a Kafka record, so what was
//! learned and what is scored can't differ. Only the fields that a feature names are kept; the rest
//! of the record is passed over without being stored. Messages name fields and reasons and never
//! quote the record's own text, which may be personal data.

use std::borrow::Cow;

use regex::Regex;

use crate::spec::{Encoding, Format, Spec, SpecFault, SpecPlace, compile_regex};

mod json;
mod lines;

use json::PointerTree;
use lines::CsvColumns;
pub(crate) use lines::split_csv;

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

/// What is read of one record.
#[derive(Debug)]
pub struct Reading {
    /// The series that it belongs to: the value of the shingle's key, or nothing if there is no key.
    /// `None` if that can't be read.
    pub series: Option<Box<str>>,
    /// One value a feature, or why the record can't be read.
    pub values: Result<Vec<Value>, RecordError>,
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
    /// Where a time is wanted, something else.
    #[error("is not a time")]
    NotATime,
    /// A time that has no zone: it may be that of any place.
    #[error("is a time without a zone")]
    NoZone,
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

impl Extractor {
    pub(crate) fn compile(spec: &Spec) -> Result<Self, (SpecPlace, SpecFault)> {
        // The key of the series is read like a feature after the last.
        let key = key_of(spec);
        let fields = || {
            let features = spec.features.iter().map(|feature| feature.field.as_str());
            features.chain(key).enumerate()
        };
        let place = |index| match index < spec.features.len() {
            true => SpecPlace::Field(index),
            false => SpecPlace::ShingleKey,
        };
        match &spec.format {
            Format::Json => {
                let mut tree = PointerTree::default();
                for (feature, pointer) in fields() {
                    tree.insert(pointer, feature).map_err(|fault| (place(feature), fault))?;
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
                        return Err((place(feature), fault));
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
                            let other = other_delimiter(columns, *delimiter);
                            let columns = listed(columns.iter().map(String::as_str));
                            let field = field.to_owned();
                            let fault = match other {
                                Some(other) => SpecFault::OtherDelimiter { field, columns, other },
                                None => SpecFault::NoSuchColumn { field, columns },
                            };
                            return Err((place(feature), fault));
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

    /// Reads one record: its series, and one value a feature in the order of the specification.
    pub(crate) fn read(&self, spec: &Spec, payload: &[u8]) -> Reading {
        let key = key_of(spec);
        let fields = spec.features.len() + usize::from(key.is_some());
        let mut row = Row { spec, values: vec![Value::Missing; fields], fault: None };
        let read = self.read_fields(payload, &mut row);
        let mut values = row.values;
        let series = match (key, values.get(spec.features.len())) {
            (None, _) => Some(Box::default()),
            (_, Some(Value::Category(name))) => Some(name.clone()),
            _ => None,
        };
        values.truncate(spec.features.len());
        let fault = |field: &str, fault| RecordError::Field { field: field.to_owned(), fault };
        let values = match (read, row.fault) {
            (Err(error), _) => Err(error),
            (Ok(()), Some((index, found))) => {
                let field = spec.features.get(index).map(|feature| feature.field.as_str());
                Err(fault(field.or(key).unwrap_or_default(), found))
            }
            (Ok(()), None) if series.is_none() => {
                Err(fault(key.unwrap_or_default(), FieldFault::Missing))
            }
            (Ok(()), None) => Ok(values),
        };
        Reading { series, values }
    }

    fn read_fields(&self, payload: &[u8], row: &mut Row<'_>) -> Result<(), RecordError> {
        if payload.len() > MAX_RECORD_LEN {
            return Err(RecordError::TooLong { len: payload.len() });
        }
        let text = std::str::from_utf8(payload)
            .map_err(|error| RecordError::NotUtf8 { at: error.valid_up_to() })?;
        match self {
            Self::Json(tree) => tree.read(text, row).map_err(RecordError::Json),
            Self::Csv(columns) => columns.read(line_of(text), row),
            Self::Logfmt(keys) => lines::read_logfmt(keys, line_of(text), row),
            Self::Regex(regex, groups) => {
                let found = regex.captures(line_of(text)).ok_or(RecordError::NoMatch)?;
                for (feature, &group) in groups.iter().enumerate() {
                    if let Some(group) = found.get(group) {
                        row.set(feature, Scalar::Text(group.as_str()));
                    }
                }
                Ok(())
            }
        }
    }
}

/// The field that tells series apart.
fn key_of(spec: &Spec) -> Option<&str> {
    spec.shingle.as_ref()?.key.as_deref()
}

/// What seems to divide columns of which there is one: its name has a character that elsewhere is a
/// delimiter.
fn other_delimiter(columns: &[String], delimiter: u8) -> Option<char> {
    let [column] = columns else { return None };
    [';', '\t', '|', ',']
        .into_iter()
        .find(|&other| u32::from(other) != u32::from(delimiter) && column.contains(other))
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
        // What is no feature is the key of the series: text.
        let value = match self.spec.features.get(feature).map(|feature| feature.encoding) {
            Some(Encoding::Number(_)) => number(scalar),
            Some(Encoding::OneHot | Encoding::Frequency) | None => category(scalar),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::ValidSpec;

    fn read(toml: &str, payload: &[u8]) -> Result<Vec<Value>, RecordError> {
        let spec = ValidSpec::from_toml(toml).expect("good specification");
        spec.extractor().read(spec.spec(), payload).values
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

    /// The key is read whatever else is wrong with a record, so that its series can be told of it.
    #[test]
    fn the_series_of_a_record_is_its_key() {
        let feature = "[[feature]]\nname = \"n\"\nfield = \"N\"\n[shingle]\nsize = 2\nkey = \"K\"";
        let spec = |format: &str, n: &str, k: &str| {
            let feature = feature.replace('N', n).replace('K', k);
            ValidSpec::from_toml(&format!("format = {format}\n{feature}")).expect("good")
        };
        let json = spec("\"json\"", "/n", "/k");
        let csv = spec("\"csv\"\ncolumns = [\"k\", \"n\"]", "n", "k");
        let logfmt = spec("\"logfmt\"", "n", "k");
        let regex = spec("\"regex\"\npattern = '^(?<k>\\w*) (?<n>\\S+)$'", "n", "k");
        let same = spec("\"json\"", "/n", "/n");
        let cases: [(&ValidSpec, &str, Option<&str>, &str); 12] = [
            (&json, r#"{"k":"a","n":1}"#, Some("a"), ""),
            (&json, r#"{"n":1,"k":7}"#, Some("7"), ""),
            (&json, r#"{"n":"x","k":"a"}"#, Some("a"), "field `/n` is not a number"),
            (&json, r#"{"n":1}"#, None, "field `/k` is missing"),
            (&json, r#"{"n":1,"k":[]}"#, None, "field `/k` is an object or a list"),
            (&json, "no json", None, "not JSON"),
            (&csv, "a,1", Some("a"), ""),
            (&csv, ",1", None, "field `k` is missing"),
            (&logfmt, "n=1 k=a", Some("a"), ""),
            (&regex, "a 1", Some("a"), ""),
            (&regex, "a x", Some("a"), "field `n` is not a number"),
            (&same, r#"{"n":5}"#, Some("5"), ""),
        ];
        for (spec, payload, series, fault) in cases {
            let got = spec.extractor().read(spec.spec(), payload.as_bytes());
            assert_eq!(got.series.as_deref(), series, "{payload}");
            let said = got.values.as_ref().map_or_else(ToString::to_string, |_| String::new());
            assert!(
                said.starts_with(fault) && said.is_empty() == fault.is_empty(),
                "{payload}: {said}"
            );
            assert!(got.values.is_err() || got.values.is_ok_and(|values| values.len() == 1));
        }
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
