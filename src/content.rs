//! The content types of SageMaker's Random Cut Forest: a request's body to points, scores to the body
//! of an answer.
//!
//! A row of a request is what an endpoint is sent of one record:
//!
//! - `points`: the coordinates that the forest sees, after encoding, transforms and shingling. Any model.
//! - `values`: the numeric features as they were read, one a feature in the model's order. What a
//!   built-in endpoint trained on raw columns takes. An empty field of CSV, `null` or NaN is a missing value.
//!
//! | type | a request | an answer |
//! |---|---|---|
//! | `text/csv` | a row a line | a score a line |
//! | `application/json` | `{"instances":[{"features":[1.5,16]}]}`, also `{"data":{"features":{"values":[…]}}}`, sparse with `keys` and `shape` | `{"scores":[{"score":0.02}]}` |
//! | `application/jsonlines` | an instance a line | `{"score":0.02}` a line |
//! | `application/x-recordio-protobuf` | a `Record` a frame, `features["values"]` | `label["score"]` |
//!
//! Bodies are a stranger's: whatever they hold, there comes a value or an error with its place, in memory
//! bounded by [`MAX_COORDINATES`]. Scores are written with as many digits as give the same f32 again.

use std::fmt;

use sawlog_model::Features;

mod csv;
mod json;
mod recordio;
mod rows;

use self::rows::Rows;
pub use self::rows::{RowFault, RowKind, RowKindError};

/// Longest body of a request, in bytes: SageMaker's limit.
pub const MAX_BODY_LEN: usize = 6 << 20;
/// Most rows of a request: the answer to so many stays below [`MAX_BODY_LEN`] in every type.
pub const MAX_ROWS: usize = 200_000;
/// Most coordinates of a request's points: the most that a body has without sparse rows, a byte each.
pub const MAX_COORDINATES: usize = MAX_BODY_LEN;

/// A content type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentType {
    /// `text/csv`
    Csv,
    /// `application/json`
    Json,
    /// `application/jsonlines`
    JsonLines,
    /// `application/x-recordio-protobuf`
    Recordio,
}

impl ContentType {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Csv, Self::Json, Self::JsonLines, Self::Recordio];

    /// As it stands in a header.
    pub fn name(self) -> &'static str {
        match self {
            Self::Csv => "text/csv",
            Self::Json => "application/json",
            Self::JsonLines => "application/jsonlines",
            Self::Recordio => "application/x-recordio-protobuf",
        }
    }

    /// The type that a `Content-Type` header names, whatever its parameters; `None` for any other.
    pub fn of_header(header: &str) -> Option<Self> {
        let name = header.split(';').next().unwrap_or_default().trim();
        Self::ALL.into_iter().find(|known| known.name().eq_ignore_ascii_case(name))
    }

    /// The type that an `Accept` header asks for: the first in its list that is known, JSON if it takes
    /// anything or is empty; `None` if it takes none of them.
    pub fn accepted(header: &str) -> Option<Self> {
        if header.trim().is_empty() {
            return Some(Self::Json);
        }
        header.split(',').find_map(|one| {
            let name = one.split(';').next().unwrap_or_default().trim();
            let any = name == "*/*" || name.eq_ignore_ascii_case("application/*");
            if any { Some(Self::Json) } else { Self::of_header(name) }
        })
    }
}

/// Where a row stands in its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A line, from 1.
    Line(usize),
    /// An entry of `instances`, from 0.
    Instance(usize),
    /// A frame, from 0.
    Record(usize),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(number) => write!(f, "line {number}"),
            Self::Instance(index) => write!(f, "instances[{index}]"),
            Self::Record(index) => write!(f, "record {index}"),
        }
    }
}

/// Why a body can't be read.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// Bytes that are no text.
    #[error("the body is not UTF-8 from byte {offset} on")]
    NotText {
        /// The first such byte.
        offset: usize,
    },
    /// Not JSON.
    #[error("the body is not JSON at line {line} column {column}")]
    Syntax {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// JSON of another form.
    #[error("the body is not {{\"instances\": [...]}}")]
    NoInstances,
    /// A row that is none.
    #[error("{place}: {fault}")]
    Row {
        /// Which.
        place: Place,
        /// What is wrong with it.
        #[source]
        fault: RowFault,
    },
    /// RecordIO framing that breaks off.
    #[error("record {record} at byte {offset}: {fault}")]
    Frame {
        /// Which, from 0.
        record: usize,
        /// Where its frame begins.
        offset: usize,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// Nothing to score.
    #[error("the body has no row")]
    NoRow,
    /// More rows than are answered at once.
    #[error("the body has more than {MAX_ROWS} rows; send fewer at once")]
    TooManyRows,
    /// Sparse rows of many dimensions.
    #[error("the rows have more than {MAX_COORDINATES} coordinates together; send fewer at once")]
    TooManyCoordinates,
}

/// Reads a body of rows. Returns the points that the forest scores, row after row, each of
/// [`Features::dimensions`] finite coordinates.
///
/// # Errors
/// [`ContentError`] with the place. A body is read as a whole or not at all.
pub fn points(
    content_type: ContentType,
    body: &[u8],
    kind: RowKind,
    features: &Features,
) -> Result<Vec<f32>, ContentError> {
    let mut rows = Rows::new(kind, features);
    match content_type {
        ContentType::Csv => csv::read(body, &mut rows)?,
        ContentType::Json => json::read(body, &mut rows)?,
        ContentType::JsonLines => json::read_lines(body, &mut rows)?,
        ContentType::Recordio => recordio::read(body, &mut rows)?,
    }
    rows.into_points()
}

/// The body of the answer.
pub fn answer(content_type: ContentType, scores: &[f32]) -> Vec<u8> {
    match content_type {
        ContentType::Csv => csv::write(scores),
        ContentType::Json => json::write(scores),
        ContentType::JsonLines => json::write_lines(scores),
        ContentType::Recordio => recordio::write(scores),
    }
}

fn text(body: &[u8]) -> Result<&str, ContentError> {
    std::str::from_utf8(body).map_err(|error| ContentError::NotText { offset: error.valid_up_to() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sawlog_model::{ValidSpec, Value, read_record};

    use super::*;

    /// Two numbers, the second of which may be missing; `a` goes through a logarithm.
    fn features() -> Features {
        fitted(
            "format = \"json\"\n[[feature]]\nname = \"a\"\nfield = \"/a\"\ntransform = \"log1p\"\nmissing = \"reject\"\n\
             [[feature]]\nname = \"b\"\nfield = \"/b\"\ntransform = \"none\"\n",
        )
    }

    fn fitted(toml: &str) -> Features {
        let spec = ValidSpec::from_toml(toml).expect("good specification");
        let records = [r#"{"a":1,"b":2,"c":"x"}"#, r#"{"a":50,"b":6,"c":"y"}"#, r#"{"a":7,"b":4}"#];
        let rows: Vec<Vec<Value>> =
            records.iter().map(|text| read_record(&spec, text.as_bytes()).expect("good")).collect();
        let rows: Vec<&[Value]> = rows.iter().map(Vec::as_slice).collect();
        Features::fit(spec, &rows).expect("not constant")
    }

    fn read(of: ContentType, body: &[u8], kind: RowKind) -> Result<Vec<f32>, String> {
        points(of, body, kind, &features()).map_err(|error| error.to_string())
    }

    /// Frames as SageMaker's SDK writes them.
    fn frames(records: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        for record in records {
            part(&mut out, 0, record);
        }
        out
    }

    fn part(out: &mut Vec<u8>, kind: u32, bytes: &[u8]) {
        out.extend_from_slice(&0xced7_230a_u32.to_le_bytes());
        out.extend_from_slice(
            &(kind << 29 | u32::try_from(bytes.len()).expect("short")).to_le_bytes(),
        );
        out.extend_from_slice(bytes);
        out.resize(out.len().next_multiple_of(4), 0);
    }

    /// A Record by hand: features["values"], a tensor of the kind of number with these fields.
    fn record(tensor: u8, fields: &[(u8, &[u8])]) -> Vec<u8> {
        let message = |tag: u8, bytes: &[u8]| {
            let len = u8::try_from(bytes.len()).expect("short");
            [&[tag << 3 | 2, len], bytes].concat()
        };
        let numbers: Vec<u8> =
            fields.iter().flat_map(|(tag, bytes)| message(*tag, bytes)).collect();
        let entry = [message(1, b"values"), message(2, &message(tensor, &numbers))].concat();
        message(1, &entry)
    }

    fn floats(numbers: &[f32]) -> Vec<u8> {
        numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
    }

    #[test]
    fn every_type_gives_the_same_points() {
        let want = vec![1.5, -16.0, 0.1, 3e30_f32.min(1e30)];
        let doubles: Vec<u8> = [0.1_f64, 3e30].iter().flat_map(|x| x.to_le_bytes()).collect();
        let bodies: [(ContentType, Vec<u8>); 6] = [
            (ContentType::Csv, b"1.5, -16\r\n\n0.1,3e30".to_vec()),
            (
                ContentType::Json,
                br#"{"instances":[{"features":[1.5,-16.0]},{"data":{"features":{"values":[0.1,3E30]}}}]}"#
                    .to_vec(),
            ),
            (
                ContentType::Json,
                br#"{"instances":[{"data":{"features":{"keys":[1,0],"shape":[2],"values":[-16,1.5]}}},
                    {"configuration":{},"data":{"features":[0.1,3e30]}}],"more":1}"#
                    .to_vec(),
            ),
            (
                ContentType::JsonLines,
                b"{\"features\":[1.5,-16.0]}\n\n{\"data\":{\"features\":{\"values\":[0.1,3e30],\"keys\":[],\"shape\":[]}}}"
                    .to_vec(),
            ),
            (
                ContentType::Recordio,
                frames(&[
                    &record(2, &[(1, &floats(&[1.5, -16.0]))]),
                    &record(3, &[(1, &doubles), (3, &[2])]),
                ]),
            ),
            (
                ContentType::Recordio,
                frames(&[
                    &record(2, &[(1, &floats(&[-16.0, 1.5])), (2, &[1, 0]), (3, &[2])]),
                    &record(2, &[(1, &floats(&[0.1, 3e30]))]),
                ]),
            ),
        ];
        for (of, body) in bodies {
            assert_eq!(read(of, &body, RowKind::Points), Ok(want.clone()), "{of:?}");
        }
    }

    #[test]
    fn a_sparse_row_is_zero_elsewhere() {
        let body =
            br#"{"instances":[{"data":{"features":{"keys":[1],"shape":[2],"values":[7]}}}]}"#;
        assert_eq!(read(ContentType::Json, body, RowKind::Points), Ok(vec![0.0, 7.0]));
        let body = frames(&[&record(7, &[(1, &[7]), (2, &[0])])]);
        assert_eq!(read(ContentType::Recordio, &body, RowKind::Points), Ok(vec![7.0, 0.0]));
    }

    #[test]
    fn a_record_with_the_magic_in_it_comes_in_parts() {
        let magic = f32::from_bits(0xced7_230a);
        let whole = record(2, &[(1, &floats(&[magic, 1.0]))]);
        let at = whole.windows(4).position(|four| four == magic.to_le_bytes()).expect("there");
        let mut body = Vec::new();
        part(&mut body, 1, &whole[..at]);
        part(&mut body, 3, &whole[at + 4..]);
        let want = Ok(vec![magic, 1.0]);
        assert_eq!(read(ContentType::Recordio, &body, RowKind::Points), want);
        assert_eq!(read(ContentType::Recordio, &frames(&[&whole]), RowKind::Points), want);
    }

    #[test]
    fn values_go_through_the_features_of_the_model() {
        let features = features();
        let mut want = [0.0; 4];
        let (first, second) = want.split_at_mut(2);
        features.encode(&[Value::Number(3.25), Value::Number(-1.0)], first).expect("good");
        features.encode(&[Value::Number(9.0), Value::Missing], second).expect("good");
        for (of, body) in [
            (ContentType::Csv, b"3.25,-1\n9,".to_vec()),
            (ContentType::JsonLines, b"{\"features\":[3.25,-1]}\n{\"features\":[9,null]}".to_vec()),
            (
                ContentType::Recordio,
                frames(&[
                    &record(2, &[(1, &floats(&[3.25, -1.0]))]),
                    &record(2, &[(1, &floats(&[9.0, f32::NAN]))]),
                ]),
            ),
        ] {
            assert_eq!(read(of, &body, RowKind::Values), Ok(want.to_vec()), "{of:?}");
        }
        let said = read(ContentType::Csv, b"3.25,-1\n,2", RowKind::Values).expect_err("required");
        assert_eq!(said, "line 2: field `/a` is missing");
    }

    #[test]
    fn rows_of_values_are_numbers_of_one_record() {
        assert_eq!(RowKind::Values.width(&features()), Ok(2));
        let number = "format = \"json\"\n[[feature]]\nname = \"a\"\nfield = \"/a\"\n";
        let category = "[[feature]]\nname = \"c\"\nfield = \"/c\"\nencode = \"one_hot\"\n";
        let with_category = fitted(&format!("{number}{category}"));
        let said = RowKind::Values.width(&with_category).expect_err("a category").to_string();
        assert!(said.contains("`c` is a category"), "{said}");
        assert_eq!(RowKind::Points.width(&with_category), Ok(4));
        let spec = ValidSpec::from_toml(&format!("{number}[shingle]\nsize = 3\n")).expect("good");
        let point = [1.0, 2.0, 3.0].map(Value::Number);
        let shingled = Features::fit(spec, &[&point]).expect("not constant");
        let said = RowKind::Values.width(&shingled).expect_err("a shingle").to_string();
        assert!(said.contains("3 records"), "{said}");
        assert_eq!(RowKind::Points.width(&shingled), Ok(3));
    }

    #[test]
    fn faults_name_the_place_and_no_value() {
        use ContentType::{Csv, Json, JsonLines, Recordio};
        let frame = frames(&[&record(2, &[(1, &floats(&[1.0, 2.0]))])]);
        let cut = &frame[..frame.len() - 5];
        let long = [0xce_d7_23_0a_u32.to_le_bytes(), 0x1fff_ffff_u32.to_le_bytes()].concat();
        let mut torn = Vec::new();
        part(&mut torn, 1, b"x");
        let mut late = Vec::new();
        part(&mut late, 2, b"x");
        for (of, body, said) in [
            (Csv, &b""[..], "the body has no row"),
            (Csv, b"\n \n", "the body has no row"),
            (Csv, b"1,2\n4711", "line 2: it has 1 values, and a row has 2"),
            (Csv, b"1,2,4711", "line 1: it has 3 values, and a row has 2"),
            (Csv, b"1,4711x", "line 1: value 2 is not a number"),
            (Csv, b"1 4711", "line 1: value 1 is not a number"),
            (Csv, b"1,", "line 1: value 2 is missing"),
            (Csv, b"nan,1", "line 1: value 1 is not finite"),
            (Csv, b"1,4711e40", "line 1: value 2 is not finite"),
            (Csv, b"1,\xff", "the body is not UTF-8 from byte 2 on"),
            (Json, b"", "the body is not JSON at line 1 column 0"),
            (Json, b"{\"instances\":[}", "the body is not JSON at line 1 column 15"),
            (Json, b"[4711]", "the body is not {\"instances\": [...]}"),
            (Json, br#"{"instances":4711}"#, "the body is not {\"instances\": [...]}"),
            (Json, br#"{"instances":[]}"#, "the body has no row"),
            (
                Json,
                br#"{"instances":[{"features":[1,2]},[1,2]]}"#,
                "instances[1]: it is not {\"features\"",
            ),
            (Json, br#"{"instances":[{"features":7}]}"#, "instances[0]: it is not"),
            (
                Json,
                br#"{"instances":[{"features":[1,"4711"]}]}"#,
                "instances[0]: value 2 is not a number",
            ),
            (Json, br#"{"instances":[{"features":[1,null]}]}"#, "instances[0]: value 2 is missing"),
            (
                Json,
                br#"{"instances":[{"features":[1e99,2]}]}"#,
                "instances[0]: value 1 is not finite",
            ),
            (
                Json,
                br#"{"instances":[{"data":{"features":{"keys":[2],"values":[7]}}}]}"#,
                "instances[0]: its keys are not an index below 2",
            ),
            (
                Json,
                br#"{"instances":[{"data":{"features":{"keys":[0,1],"values":[7]}}}]}"#,
                "instances[0]: its keys",
            ),
            (
                Json,
                br#"{"instances":[{"data":{"features":{"keys":[0],"values":[7],"shape":[3]}}}]}"#,
                "instances[0]: its shape is not [2]",
            ),
            (
                JsonLines,
                b"{\"features\":[1,2]}\n{\"features\":[4711",
                "line 2: it is not JSON at column",
            ),
            (JsonLines, b"\n[1,2]", "line 2: it is not {\"features\""),
            (Recordio, b"1,2", "record 0 at byte 0: the body ends within its header"),
            (Recordio, b"12345678", "record 0 at byte 0: it does not begin with RecordIO's magic"),
            (Recordio, cut, "record 0 at byte 0: the body ends within it"),
            (Recordio, &long, "record 0 at byte 0: it is longer than 262144 bytes"),
            (Recordio, &torn, "record 0 at byte 0: the body ends within its header"),
            (Recordio, &late, "record 0 at byte 0: its first part is missing"),
            (Recordio, &frames(&[b"\x0a\x7f"]), "record 0: it is not a Record in protobuf"),
            (
                Recordio,
                &frames(&[b""]),
                "record 0: it has no tensor of numbers in features[\"values\"]",
            ),
            (
                Recordio,
                &[frame.clone(), frames(&[&record(2, &[(1, &floats(&[1.0]))])])].concat(),
                "record 1: it has 1 values, and a row has 2",
            ),
            (
                Recordio,
                &frames(&[&record(2, &[(1, &floats(&[1.0, f32::NAN]))])]),
                "record 0: value 2 is not finite",
            ),
        ] {
            let error = read(of, body, RowKind::Points).expect_err(said);
            assert!(error.starts_with(said), "expected: {said}\n     got: {error}");
            assert!(!error.contains("4711"), "{error}");
        }
    }

    #[test]
    fn limits_end_a_body_that_grows_beyond_them() {
        let many = "1,2\n".repeat(MAX_ROWS + 1);
        assert!(matches!(
            points(ContentType::Csv, many.as_bytes(), RowKind::Points, &features()),
            Err(ContentError::TooManyRows)
        ));
        assert!(read(ContentType::Csv, &many.as_bytes()[4..], RowKind::Points).is_ok());
        // Ten thousand coordinates a row, one of them sent.
        let columns: Vec<Value> = (0..10_000).map(|at| Value::Number(f64::from(at % 7))).collect();
        let spec = "format = \"json\"\n[[feature]]\nname = \"a\"\nfield = \"/a\"\n[shingle]\nsize = 10000\n";
        let spec = ValidSpec::from_toml(spec).expect("good");
        let wide = Features::fit(spec, &[&columns]).expect("not constant");
        let sparse = "{\"data\":{\"features\":{\"keys\":[0],\"values\":[1]}}}\n";
        let rows = MAX_COORDINATES / 10_000;
        let read = |count| {
            let body = sparse.repeat(count);
            points(ContentType::JsonLines, body.as_bytes(), RowKind::Points, &wide)
        };
        assert!(matches!(read(rows + 1), Err(ContentError::TooManyCoordinates)));
        assert_eq!(read(rows).expect("as many as may be").len(), rows * 10_000);
    }

    #[test]
    fn answers_are_as_sagemaker_gives_them() {
        let text = |of| String::from_utf8(answer(of, &[0.02, 1.5])).expect("text");
        assert_eq!(text(ContentType::Csv), "0.02\n1.5\n");
        assert_eq!(text(ContentType::Json), r#"{"scores":[{"score":0.02},{"score":1.5}]}"#);
        assert_eq!(text(ContentType::JsonLines), "{\"score\":0.02}\n{\"score\":1.5}\n");
        let label = |score: f32| {
            let tensor = [&[0x12, 6, 0x0a, 4][..], &score.to_le_bytes()].concat();
            [&[0x12, 17, 0x0a, 5][..], b"score", &[0x12, 8], &tensor].concat()
        };
        let want = frames(&[&label(0.02), &label(1.5)]);
        assert_eq!(answer(ContentType::Recordio, &[0.02, 1.5]), want);
        for of in ContentType::ALL {
            let longest = answer(of, &[1.175_494_4e-38; 10]).len();
            assert!(
                longest * MAX_ROWS / 10 < MAX_BODY_LEN,
                "{of:?}: {longest} bytes for ten scores"
            );
        }
    }

    #[test]
    fn headers_choose_the_type() {
        for (header, want) in [
            ("text/csv; label_size=0", Some(ContentType::Csv)),
            ("Application/JSON;charset=utf-8", Some(ContentType::Json)),
            ("application/x-recordio-protobuf", Some(ContentType::Recordio)),
            ("", None),
            ("*/*", None),
            ("text/plain", None),
        ] {
            assert_eq!(ContentType::of_header(header), want, "{header}");
        }
        for (header, want) in [
            ("", Some(ContentType::Json)),
            ("*/*", Some(ContentType::Json)),
            ("text/html, application/*;q=0.8", Some(ContentType::Json)),
            ("text/html, application/jsonlines", Some(ContentType::JsonLines)),
            ("text/csv, */*;q=0.1", Some(ContentType::Csv)),
            ("text/html", None),
        ] {
            assert_eq!(ContentType::accepted(header), want, "{header}");
        }
    }

    proptest! {
        #[test]
        fn a_point_arrives_as_it_was_sent(numbers in prop::collection::vec(-1e30_f32..1e30, 2)) {
            let text = format!("{},{}", numbers[0], numbers[1]);
            let got = read(ContentType::Csv, text.as_bytes(), RowKind::Points);
            let bits = |numbers: &[f32]| numbers.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(bits(&got.expect("read")), bits(&numbers));
        }

        #[test]
        fn a_score_arrives_as_it_was_given(bits in 0_u32..0x7f80_0000) {
            let score = f32::from_bits(bits);
            let text = |of| String::from_utf8(answer(of, &[score])).expect("text");
            prop_assert_eq!(text(ContentType::Csv).trim().parse::<f32>().expect("a number"), score);
            let json = text(ContentType::JsonLines);
            let number = json.trim().strip_prefix("{\"score\":").and_then(|rest| rest.strip_suffix('}'));
            prop_assert_eq!(number.expect("a score").parse::<f32>().expect("a number"), score);
        }
    }
}
