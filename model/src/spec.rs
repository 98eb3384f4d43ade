//! The feature specification: what a log record looks like and which of its fields become
//! features.
//!
//! A user writes it as TOML ([`ValidSpec::from_toml`]); every error names the line. Checked, it is a
//! [`ValidSpec`], which can't be wrong: the regex compiles, the pointers parse, the names are
//! distinct. It travels inside the snapshot as the plain [`Spec`] and is checked again when read.

use std::collections::HashSet;

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::record::Extractor;
use crate::tree::MAX_DIMENSIONS;

mod written;

/// Most features a specification may have; SageMaker's RCF takes up to 10,000 dimensions, and a
/// feature is at least one.
pub const MAX_FEATURES: usize = 10_000;

/// Longest name, field or column in bytes: they are repeated in every stored result.
const MAX_NAME_LEN: usize = 256;

/// Most memory one compiled regex may take, in bytes.
const MAX_REGEX_SIZE: usize = 1 << 20;

/// The format of one record's bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Encode, Decode)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum Format {
    /// One JSON value a record; `field` is a JSON pointer (RFC 6901).
    Json,
    /// One delimited line a record; `field` is the name of a column.
    Csv {
        /// The byte between two columns, `,` unless the specification says otherwise.
        delimiter: u8,
        /// The columns in the order of the file; empty until a header line has been read.
        columns: Vec<String>,
    },
    /// `key=value key="quoted value" flag` on one line; `field` is a key.
    Logfmt,
    /// One line that matches a regular expression; `field` is a named group.
    Regex {
        /// The expression, searched anywhere in the line unless it is anchored.
        pattern: String,
    },
}

/// How a field's value becomes coordinates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Encode, Decode)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// A number, through a transform.
    Number(Transform),
    /// A category: one coordinate for each category seen in training, and one for any other.
    OneHot,
    /// A category: one coordinate, the surprise -ln(share in training) in nats, so that a rare
    /// category lies far out.
    Frequency,
}

/// How a number is brought to the scale of the other features. An RCF cuts a side in proportion
/// to its length, so the scale is the weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, Encode, Decode)]
#[serde(rename_all = "snake_case")]
pub enum Transform {
    /// Chosen from the training data; the choice is stored and shown.
    Auto,
    /// As it is.
    None,
    /// sign(x) * ln(1 + |x|), then scaled as `robust` does.
    Log1p,
    /// (x - mean) / standard deviation.
    Standard,
    /// (x - median) / spread, the spread from quantiles, which outliers can't move.
    Robust,
}

/// What to do with a record that lacks a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, Encode, Decode)]
#[serde(rename_all = "snake_case")]
pub enum MissingRule {
    /// Take the median of the training values (for a category: the bucket "other").
    #[default]
    Median,
    /// Take 0 (for a category: the bucket "other").
    Zero,
    /// Reject the record.
    Reject,
}

/// One feature: a field of the record and how it is encoded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Encode, Decode)]
pub struct FeatureSpec {
    /// The name under which results show it, unique in the specification.
    pub name: String,
    /// JSON pointer, column, key or group, by the format.
    pub field: String,
    /// How its value becomes coordinates.
    pub encoding: Encoding,
    /// What to do where it is missing.
    pub missing: MissingRule,
}

/// How many consecutive records of a series make a point: see [`crate::shingle`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shingle {
    /// Records a point is made of: at least 2 in a checked specification, and times the number of
    /// features at most [`MAX_DIMENSIONS`].
    pub size: u32,
    /// The field whose values tell the series of a stream apart; without it a stream is one series.
    pub key: Option<String>,
}

/// A specification as plain data, not yet checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Spec {
    /// What a record looks like.
    pub format: Format,
    /// The features, in the order in which values and results list them.
    pub features: Vec<FeatureSpec>,
    /// What a point is made of: of one record if there is none.
    pub shingle: Option<Shingle>,
}

/// Where in a specification something is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpecPlace {
    /// The key `pattern`.
    Pattern,
    /// The key `columns`.
    Columns,
    /// The key `delimiter`.
    Delimiter,
    /// The list of features.
    Features,
    /// The name of the feature with this index.
    Name(usize),
    /// The field of the feature with this index.
    Field(usize),
    /// The size of the shingle.
    ShingleSize,
    /// The key of the shingle.
    ShingleKey,
}

impl std::fmt::Display for SpecPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Pattern => write!(f, "pattern"),
            Self::Columns => write!(f, "columns"),
            Self::Delimiter => write!(f, "delimiter"),
            Self::Features => write!(f, "feature list"),
            Self::Name(index) => write!(f, "name of feature {}", index + 1),
            Self::Field(index) => write!(f, "field of feature {}", index + 1),
            Self::ShingleSize => write!(f, "size of the shingle"),
            Self::ShingleKey => write!(f, "key of the shingle"),
        }
    }
}

/// Why a specification is refused.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// Not TOML, an unknown key, a value of the wrong type: the parser names line and key.
    #[error("specification: {0}")]
    Toml(#[source] Box<toml::de::Error>),
    /// The TOML is well formed and something in it can't be.
    #[error("specification, line {line}: {place}: {fault}")]
    AtLine {
        /// Line in the TOML text, from 1.
        line: usize,
        /// The key at fault.
        place: SpecPlace,
        /// What is wrong with it.
        #[source]
        fault: SpecFault,
    },
    /// The same for a specification that has no text, such as one inside a snapshot.
    #[error("specification: {place}: {fault}")]
    At {
        /// The key at fault.
        place: SpecPlace,
        /// What is wrong with it.
        #[source]
        fault: SpecFault,
    },
}

/// What is wrong with one key of a specification.
#[derive(Debug, thiserror::Error)]
pub enum SpecFault {
    /// A JSON pointer that RFC 6901 does not know.
    #[error("`{pointer}` is not a JSON pointer: {reason}")]
    Pointer {
        /// As written.
        pointer: String,
        /// What RFC 6901 asks for.
        reason: &'static str,
    },
    /// The regular expression does not compile.
    #[error("the regular expression does not compile: {0}")]
    Regex(#[source] Box<regex::Error>),
    /// `format = "regex"` without `pattern`.
    #[error("format \"regex\" needs a pattern with named groups")]
    PatternMissing,
    /// A key that the format does not use.
    #[error("only format \"{format}\" takes it")]
    NotForThisFormat {
        /// The format that does.
        format: &'static str,
    },
    /// A field that names no group of the pattern.
    #[error("the pattern has no group named `{field}`; it has {groups}")]
    NoSuchGroup {
        /// As written.
        field: String,
        /// The groups there are.
        groups: String,
    },
    /// A field that names no column.
    #[error("there is no column named `{field}`; there are {columns}")]
    NoSuchColumn {
        /// As written.
        field: String,
        /// The columns there are.
        columns: String,
    },
    /// A field that names no column, in a header that looks as if its columns were divided otherwise.
    #[error(
        "there is no column named `{field}`; there are {columns}: is the delimiter {other:?}? \
         (`delimiter = \"{}\"` in the specification)",
        other.escape_default()
    )]
    OtherDelimiter {
        /// As written.
        field: String,
        /// The columns there are.
        columns: String,
        /// What may divide them.
        other: char,
    },
    /// A column name that occurs twice.
    #[error("the column `{0}` occurs twice")]
    DuplicateColumn(String),
    /// A delimiter that isn't one ASCII character.
    #[error("`{0}` is not one ASCII character other than a quote or a line end")]
    Delimiter(String),
    /// Two features of one name.
    #[error("the name `{0}` is taken by an earlier feature")]
    DuplicateName(String),
    /// An empty or overlong name.
    #[error("it has {len} bytes; 1 to {MAX_NAME_LEN} are allowed")]
    NameLength {
        /// Its length in bytes.
        len: usize,
    },
    /// No feature, or too many.
    #[error("there are {count} features; 1 to {MAX_FEATURES} are allowed")]
    FeatureCount {
        /// How many there are.
        count: usize,
    },
    /// No record a point, or too many.
    #[error(
        "{size} records a point; 1 to {most} are allowed: a point has at most {MAX_DIMENSIONS} \
         dimensions, and {features} features are as many a record"
    )]
    ShingleSize {
        /// Records a point.
        size: u32,
        /// Most records allowed.
        most: usize,
        /// Features a record has.
        features: usize,
    },
    /// A key that does not go with a category.
    #[error("a feature with `encode` takes no `transform`: a category has no scale")]
    TransformOfCategory,
}

/// A checked specification with its extractor compiled.
#[derive(Debug, Clone)]
pub struct ValidSpec {
    spec: Spec,
    extractor: Extractor,
}

impl PartialEq for ValidSpec {
    fn eq(&self, other: &Self) -> bool {
        self.spec == other.spec
    }
}

impl ValidSpec {
    /// Checks a plain specification.
    ///
    /// # Errors
    /// [`SpecError::At`] with the place and the fault.
    pub fn new(spec: Spec) -> Result<Self, SpecError> {
        Self::check(spec).map_err(|(place, fault)| SpecError::At { place, fault })
    }

    /// Parses and checks a specification written as TOML.
    ///
    /// # Errors
    /// [`SpecError::Toml`] names line and key for anything the parser refuses, unknown keys among
    /// them; [`SpecError::AtLine`] names the line for everything else.
    pub fn from_toml(text: &str) -> Result<Self, SpecError> {
        written::read(text, Self::check)
    }

    fn check(mut spec: Spec) -> Result<Self, (SpecPlace, SpecFault)> {
        let count = spec.features.len();
        if count == 0 || count > MAX_FEATURES {
            return Err((SpecPlace::Features, SpecFault::FeatureCount { count }));
        }
        let mut names = HashSet::new();
        for (index, feature) in spec.features.iter().enumerate() {
            let len = feature.name.len();
            if len == 0 || len > MAX_NAME_LEN {
                return Err((SpecPlace::Name(index), SpecFault::NameLength { len }));
            }
            if !names.insert(feature.name.as_str()) {
                let name = feature.name.clone();
                return Err((SpecPlace::Name(index), SpecFault::DuplicateName(name)));
            }
        }
        if let Format::Csv { delimiter, columns } = &spec.format {
            check_delimiter(*delimiter)?;
            let mut seen = HashSet::new();
            if let Some(twice) = columns.iter().find(|column| !seen.insert(column.as_str())) {
                return Err((SpecPlace::Columns, SpecFault::DuplicateColumn(twice.clone())));
            }
        }
        if let Some(Shingle { size, key }) = &spec.shingle {
            let (size, most) = (*size, MAX_DIMENSIONS / count);
            if size == 0 || size as usize > most {
                let fault = SpecFault::ShingleSize { size, most, features: count };
                return Err((SpecPlace::ShingleSize, fault));
            }
            let len = key.as_ref().map_or(1, String::len);
            if len == 0 || len > MAX_NAME_LEN {
                return Err((SpecPlace::ShingleKey, SpecFault::NameLength { len }));
            }
        }
        // A point of one record has no history, and so no series.
        spec.shingle = spec.shingle.filter(|shingle| shingle.size > 1);
        let extractor = Extractor::compile(&spec)?;
        Ok(Self { spec, extractor })
    }

    /// The plain data.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// What a record looks like.
    pub fn format(&self) -> &Format {
        &self.spec.format
    }

    /// The features, in order.
    pub fn features(&self) -> &[FeatureSpec] {
        &self.spec.features
    }

    /// What a point is made of; `None` if of one record.
    pub fn shingle(&self) -> Option<&Shingle> {
        self.spec.shingle.as_ref()
    }

    /// Records a point is made of, at least 1.
    pub fn shingle_size(&self) -> usize {
        self.shingle().map_or(1, |shingle| shingle.size as usize)
    }

    /// The same specification with points made of other records.
    ///
    /// # Errors
    /// A size out of its range, a key that the format does not have.
    pub fn with_shingle(&self, shingle: Option<Shingle>) -> Result<Self, SpecError> {
        Self::new(Spec { shingle, ..self.spec.clone() })
    }

    /// The compiled reader of records.
    pub(crate) fn extractor(&self) -> &Extractor {
        &self.extractor
    }

    /// True if the columns of a CSV are not known yet, so that a header line must come first.
    pub fn needs_header(&self) -> bool {
        matches!(&self.spec.format, Format::Csv { columns, .. } if columns.is_empty())
    }

    /// The same specification for a CSV with other columns, given by its header line. Columns that
    /// no feature names are passed over.
    ///
    /// # Errors
    /// A header that isn't a CSV record, a column that occurs twice, a feature whose column is not
    /// there.
    pub fn with_header(&self, header: &str) -> Result<Self, SpecError> {
        let Format::Csv { delimiter, .. } = self.spec.format else {
            return Ok(self.clone());
        };
        let columns = crate::record::split_csv(header, delimiter).map_err(|_| SpecError::At {
            place: SpecPlace::Columns,
            fault: SpecFault::Delimiter(header.chars().take(80).collect()),
        })?;
        let columns = columns.iter().map(|column| column.trim().to_owned()).collect();
        let mut spec = self.spec.clone();
        spec.format = Format::Csv { delimiter, columns };
        Self::new(spec)
    }
}

fn check_delimiter(delimiter: u8) -> Result<(), (SpecPlace, SpecFault)> {
    if delimiter.is_ascii() && !matches!(delimiter, b'"' | b'\n' | b'\r' | 0) {
        return Ok(());
    }
    let shown = char::from(delimiter).escape_default().to_string();
    Err((SpecPlace::Delimiter, SpecFault::Delimiter(shown)))
}

/// Compiles a pattern within the memory limit.
pub(crate) fn compile_regex(pattern: &str) -> Result<regex::Regex, (SpecPlace, SpecFault)> {
    regex::RegexBuilder::new(pattern)
        .size_limit(MAX_REGEX_SIZE)
        .build()
        .map_err(|error| (SpecPlace::Pattern, SpecFault::Regex(Box::new(error))))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
format = "json"
[[feature]]
name = "duration"
field = "/duration_us"
transform = "log1p"
missing = "reject"
[[feature]]
name = "method"
field = "/request/method"
encode = "one_hot"
"#;

    fn fault(text: &str) -> String {
        ValidSpec::from_toml(text).expect_err("it must be refused").to_string()
    }

    #[test]
    fn a_good_specification_keeps_what_it_says() {
        let spec = ValidSpec::from_toml(GOOD).expect("good");
        assert_eq!(spec.features()[0].encoding, Encoding::Number(Transform::Log1p));
        assert_eq!(spec.features()[0].missing, MissingRule::Reject);
        assert_eq!(spec.features()[1].encoding, Encoding::OneHot);
        assert_eq!(ValidSpec::new(spec.spec().clone()).expect("again"), spec);
    }

    #[test]
    fn every_fault_names_its_line() {
        let cases = [
            (GOOD.replace("missing =", "mising ="), "line 7", "mising"),
            (GOOD.replace("\"/duration_us\"", "\"duration_us\""), "line 5", "starts with '/'"),
            (GOOD.replace("/duration_us", "/a~2b"), "line 5", "~0"),
            (GOOD.replace("\"method\"", "\"duration\""), "line 9", "taken"),
            (GOOD.replace("\"log1p\"", "\"log\""), "line 6", "log1p"),
            (GOOD.replace("\"json\"", "\"xml\""), "line 2", "logfmt"),
            (format!("pattern = \"a\"{GOOD}"), "line 1", "regex"),
            (
                "format = \"regex\"\npattern = '(?<status>\\d+'\n[[feature]]\nname = \"s\"\nfield = \"status\"".into(),
                "line 2",
                "does not compile",
            ),
            (
                "format = \"regex\"\npattern = '(?<status>\\d+)'\n[[feature]]\nname = \"s\"\nfield = \"stat\"".into(),
                "line 5",
                "status",
            ),
            (
                "format = \"csv\"\ncolumns = [\"a\", \"a\"]\n[[feature]]\nname = \"s\"\nfield = \"a\"".into(),
                "line 2",
                "twice",
            ),
            (
                "format = \"csv\"\ncolumns = [\"a\"]\n[[feature]]\nname = \"s\"\nfield = \"b\"".into(),
                "line 5",
                "no column",
            ),
            ("format = \"csv\"\ndelimiter = \"ab\"\n[[feature]]\nname = \"s\"\nfield = \"b\"".into(), "line 2", "ab"),
            (format!("{GOOD}[shingle]\nsize = 0"), "line 13", "1 to 5000 are allowed"),
            (format!("{GOOD}[shingle]\nsize = 5001"), "line 13", "2 features"),
            (format!("{GOOD}[shingle]\nsize = 4\nkey = \"host\""), "line 14", "starts with '/'"),
            (format!("{GOOD}[shingle]\nsize = 4\nkey = \"\""), "line 14", "0 bytes"),
            (format!("{GOOD}[shingle]\nkey = \"/host\""), "line 12", "size"),
            ("format = \"json\"".into(), "line 1", "0 features"),
            ("format = \"regex\"\n[[feature]]\nname = \"s\"\nfield = \"b\"".into(), "line 1", "pattern"),
        ];
        for (text, line, word) in cases {
            let said = fault(&text);
            assert!(
                said.contains(line) && said.contains(word),
                "want {line} and {word}, got: {said}"
            );
        }
    }

    #[test]
    fn a_shingle_of_one_record_is_none() {
        let spec = |size: u32| {
            let text = format!("{GOOD}[shingle]\nsize = {size}\nkey = \"/host\"");
            ValidSpec::from_toml(&text).expect("good")
        };
        assert_eq!(spec(1), ValidSpec::from_toml(GOOD).expect("good"));
        let shingle = Shingle { size: 5, key: Some("/host".into()) };
        assert_eq!(spec(5).shingle(), Some(&shingle));
        assert_eq!((spec(1).shingle_size(), spec(5).shingle_size()), (1, 5));
        assert_eq!(spec(1).with_shingle(Some(shingle)).expect("good"), spec(5));
    }

    #[test]
    fn a_header_sets_the_columns_and_must_have_them_all() {
        let text = "format = \"csv\"\n[[feature]]\nname = \"s\"\nfield = \"b\"";
        let spec = ValidSpec::from_toml(text).expect("good");
        assert!(spec.needs_header());
        assert!(!spec.with_header("a,b,c").expect("has b").needs_header());
        let said = spec.with_header("a,c").expect_err("has no b").to_string();
        assert!(said.contains("`b`") && said.contains("`a`, `c`"), "got: {said}");
    }
}
