//! Inputs: paths, folders, globs, objects in S3 and standard input to records, plain or compressed.
//!
//! A record is one line. An input is read in blocks of whole lines ([`blocks`]): in order, or by all cores
//! ([`read_all`]). Lines longer than [`sawlog_model::MAX_RECORD_LEN`] are reported with their length and
//! never stored whole, so memory does not depend on the input. With a shingle each input is one stream:
//! a point's records all stand in the same file.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sawlog_model::{RecordError, RecordKey, SeriesError, SpecError, ValidSpec, Value};

mod all_cores;
mod blocks;
mod parquet;
mod period;
mod s3;
mod stream;

pub(crate) use all_cores::{Taker, read_all};
use blocks::Blocks;
pub(crate) use period::{HalfLife, PeriodArgs, Way};
use s3::{Object, S3};
pub(crate) use stream::Moved;
use stream::{Stream, decoded};

/// Why an input can't be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InputError {
    /// Nothing there.
    #[error("input {path}: there is no such file or folder")]
    NotFound {
        /// As named.
        path: String,
    },
    /// A folder or a glob without files.
    #[error("input {path}: it has no files")]
    Empty {
        /// As named.
        path: String,
    },
    /// A glob that can't be read.
    #[error("input {path}: not a glob: {source}")]
    Glob {
        /// As named.
        path: String,
        /// What is wrong with it.
        #[source]
        source: glob::PatternError,
    },
    /// S3 can't be reached or refuses.
    #[error("input {path}: {reason}")]
    S3 {
        /// As named.
        path: String,
        /// What S3 or its client says.
        reason: String,
    },
    /// An address in S3 without a bucket.
    #[error("input {path}: not s3://BUCKET/PREFIX")]
    Url {
        /// As named.
        path: String,
    },
    /// An input without a date in its name, where that decides.
    #[error(
        "input {path}: no folder of it is a date, such as 2026/11/21/10/ or dt=2026-11-21/: --since and \
         --until need one, or the records' own times by --time-field"
    )]
    NoDate {
        /// Its name.
        path: String,
    },
    /// No input is of the period.
    #[error("none of the {count} inputs is of the time between --since and --until")]
    NoneChosen {
        /// Inputs there are.
        count: usize,
    },
    /// A file of this program's own where records should be.
    #[error("input {path}: it is {what}, not records")]
    NotRecords {
        /// Its name.
        path: String,
        /// What it is, and what takes it.
        what: &'static str,
    },
    /// A Parquet file that isn't what it should be.
    #[error("input {path}: {reason}")]
    Parquet {
        /// Its name.
        path: String,
        /// Where, and what is wrong.
        reason: String,
    },
    /// A fault of the disk, of the network, or of a compressed stream.
    #[error("input {path}: at byte {offset} (decompressed): {source}")]
    Read {
        /// The file.
        path: String,
        /// How far reading had come.
        offset: u64,
        /// What the system or the decoder says.
        #[source]
        source: io::Error,
    },
    /// A file that is read whole and is too long for it.
    #[error("input {path}: it has more than {limit} bytes (decompressed)")]
    TooLong {
        /// The file.
        path: String,
        /// Most bytes read.
        limit: u64,
    },
    /// Histories beyond their limits.
    #[error("input {path}: line {line}: {source}")]
    Series {
        /// The file.
        path: String,
        /// The line, from 1.
        line: u64,
        /// The limit.
        #[source]
        source: SeriesError,
    },
    /// A CSV whose header doesn't have the columns, or isn't there.
    #[error("input {path}: line 1: {source}")]
    Header {
        /// The file.
        path: String,
        /// What is wrong with it.
        #[source]
        source: SpecError,
    },
}

/// One input: a file, an object, or standard input, which is named `-`.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    /// As records' places and the model's provenance name it.
    pub name: String,
    /// Bytes as they are stored; 0 for standard input.
    pub size: u64,
    /// Its place among the run's inputs, from 0.
    at: usize,
    location: Location,
}

/// Where an input's bytes are.
#[derive(Debug, Clone)]
enum Location {
    Standard,
    /// The file of that name.
    File,
    Object(Object),
}

/// Finds the inputs that arguments name: files as they are, folders with all they hold (but hidden
/// files), globs with what they match, `s3://bucket/prefix` with the objects whose keys begin so (or the
/// one whose key is just that), `-` for standard input. Sorted within each argument.
///
/// # Errors
/// [`InputError`] names the argument that leads nowhere.
pub(crate) fn resolve(arguments: &[String]) -> Result<Vec<Source>, InputError> {
    let mut sources: Vec<Source> = Vec::new();
    // An input that two arguments name is read once.
    let mut seen = std::collections::HashSet::new();
    let mut add = |name: String, size, location| {
        if seen.insert(name.clone()) {
            sources.push(Source { name, size, at: sources.len(), location });
        }
    };
    let mut s3 = None;
    for argument in arguments {
        if argument == "-" {
            add("-".into(), 0, Location::Standard);
        } else if let Some(url) = argument.strip_prefix("s3://") {
            let s3 = connected(&mut s3, argument)?;
            for (object, size) in s3::find(s3, argument, url)? {
                add(object.url(), size, Location::Object(object));
            }
        } else {
            for path in find_files(argument)? {
                let name = path.display().to_string();
                let size = path.metadata().map_err(|source| read_error(&name, 0, source))?.len();
                add(name, size, Location::File);
            }
        }
    }
    Ok(sources)
}

/// The inputs of these names and sizes, in this order, as [`resolve`] has named them: files and objects,
/// which are not looked for.
///
/// # Errors
/// [`InputError`] names an address in S3 that is none.
pub(crate) fn named(names: Vec<(String, u64)>) -> Result<Vec<Source>, InputError> {
    let mut s3 = None;
    let source = |(at, (name, size)): (usize, (String, u64))| {
        let location = match name.strip_prefix("s3://") {
            Some(url) => Location::Object(s3::object(connected(&mut s3, &name)?, &name, url)?),
            None => Location::File,
        };
        Ok(Source { name, size, at, location })
    };
    names.into_iter().enumerate().map(source).collect()
}

/// The client of S3, made when it is first asked for.
fn connected<'s>(s3: &'s mut Option<Arc<S3>>, path: &str) -> Result<&'s Arc<S3>, InputError> {
    match s3 {
        Some(s3) => Ok(s3),
        None => {
            let made = S3::connect().map_err(|error| read_error(path, 0, error))?;
            Ok(s3.insert(Arc::new(made)))
        }
    }
}

/// Keeps the inputs that may have records of a period.
///
/// # Errors
/// [`InputError`] if an input's name doesn't tell, or nothing is left.
pub(crate) fn choose(sources: &mut Vec<Source>, period: &PeriodArgs) -> Result<(), InputError> {
    let count = sources.len();
    let mut unknown = None;
    sources.retain(|source| {
        let is_chosen = period.chooses(&source.name);
        if is_chosen.is_none() {
            unknown.get_or_insert_with(|| source.name.clone());
        }
        is_chosen.unwrap_or(false)
    });
    match unknown {
        Some(path) => Err(InputError::NoDate { path }),
        None if sources.is_empty() && count > 0 => Err(InputError::NoneChosen { count }),
        None => Ok(()),
    }
}

fn find_files(argument: &str) -> Result<Vec<PathBuf>, InputError> {
    let mut paths = Vec::new();
    let path = Path::new(argument);
    if path.exists() {
        collect(path, &mut paths).map_err(|source| read_error(argument, 0, source))?;
    } else if argument.contains(['*', '?', '[']) {
        let glob_error = |source| InputError::Glob { path: argument.to_owned(), source };
        for found in glob::glob(argument).map_err(glob_error)? {
            let found = found.map_err(|error| read_error(argument, 0, error.into()))?;
            collect(&found, &mut paths).map_err(|source| read_error(argument, 0, source))?;
        }
    } else {
        return Err(InputError::NotFound { path: argument.to_owned() });
    }
    if paths.is_empty() {
        return Err(InputError::Empty { path: argument.to_owned() });
    }
    paths.sort();
    Ok(paths)
}

fn collect(path: &Path, into: &mut Vec<PathBuf>) -> io::Result<()> {
    if !path.is_dir() {
        into.push(path.to_owned());
        return Ok(());
    }
    for entry in path.read_dir()? {
        let entry = entry?;
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            collect(&entry.path(), into)?;
        }
    }
    Ok(())
}

fn read_error(path: &str, offset: u64, source: io::Error) -> InputError {
    InputError::Read { path: path.to_owned(), offset, source }
}

/// Where a record stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    /// The source's name.
    pub source: &'a str,
    /// The source's place among the run's inputs, from 0.
    pub at: usize,
    /// Line, from 1.
    pub line: u64,
    /// Byte in the decompressed stream, from 0.
    pub offset: u64,
}

/// A line as the reader found it.
pub(crate) struct Record<'a> {
    /// Where it stands.
    pub place: Place<'a>,
    /// Its identity.
    pub key: RecordKey,
    /// Its time in milliseconds since 1970, 0 unless times are read.
    pub time_ms: i64,
    /// The values of the point that it completes, as [`sawlog_model::Shingler::take`] gives them, none if
    /// it has too few records of its series before it; or why it is refused.
    pub point: Result<Option<&'a [Value]>, &'a RecordError>,
    /// Its bytes without the line end, cut off after [`sawlog_model::MAX_RECORD_LEN`] + 1.
    pub bytes: &'a [u8],
}

/// Reads every record of a source in order. Blank lines are passed over. `moved` is told the bytes
/// read from disk since the last call.
///
/// In a CSV the first line is a header if it has every column that a feature names; columns may then
/// stand in another order than elsewhere. Where the columns are not known yet it must be one.
/// Returns the specification as the header completed it.
///
/// # Errors
/// [`InputError`] with the file and how far reading came. A bad record is no error.
pub(crate) fn read_source(
    source: &Source,
    spec: &ValidSpec,
    moved: Moved<'_>,
    each: impl FnMut(Record<'_>),
) -> Result<ValidSpec, InputError> {
    let way = read_by(source, &Way::all(spec.clone()), moved, each)?;
    Ok(Arc::unwrap_or_clone(way.spec))
}

/// The same by a way that may choose records by their times.
///
/// # Errors
/// As [`read_source`].
pub(crate) fn read_by(
    source: &Source,
    way: &Way,
    moved: Moved<'_>,
    mut each: impl FnMut(Record<'_>),
) -> Result<Way, InputError> {
    let mut stream = Stream::open(source, way, moved)?;
    let mut shingler = stream.head.shingler();
    let mut buffer = Vec::new();
    while let Some(block) = stream.next(buffer)? {
        stream.head.read(&block, &mut shingler, &mut each)?;
        buffer = block.into_buffer();
    }
    Ok(stream.head.way)
}

/// The same for the first `count` records only.
///
/// # Errors
/// As [`read_source`].
pub(crate) fn read_beginning(
    source: &Source,
    way: &Way,
    count: usize,
    mut each: impl FnMut(Record<'_>),
) -> Result<Way, InputError> {
    let mut stream = Stream::open(source, way, &|_| {})?;
    let mut shingler = stream.head.shingler();
    let mut read = 0;
    while read < count
        && let Some(block) = stream.next(Vec::new())?
    {
        stream.head.read(&block, &mut shingler, |record| {
            if read < count {
                each(record);
            }
            read += 1;
        })?;
    }
    Ok(stream.head.way)
}

/// Reads every line of a source in order; blank ones are passed over. Of a line over
/// [`sawlog_model::MAX_RECORD_LEN`] only the beginning is given. `moved` is told the bytes read from disk
/// since the last call.
///
/// # Errors
/// [`InputError`] with the file and how far reading came.
pub(crate) fn read_lines(
    source: &Source,
    moved: Moved<'_>,
    mut each: impl FnMut(Place<'_>, &[u8]),
) -> Result<(), InputError> {
    let name = source.name.as_str();
    let mut blocks =
        Blocks::new(decoded(source, moved).map_err(|error| read_error(name, 0, error))?);
    let mut buffer = Vec::new();
    loop {
        let next = blocks.next(buffer).map_err(|error| read_error(name, blocks.reached(), error));
        let Some(block) = next? else { return Ok(()) };
        for line in block.lines().filter(|line| !line.is_blank()) {
            let (at, offset) = (source.at, line.offset);
            each(Place { source: name, at, line: line.number, offset }, line.bytes);
        }
        buffer = block.into_buffer();
    }
}

/// Reads a whole file, plain or compressed, or standard input, which is named `-`; at most `limit`
/// bytes.
///
/// # Errors
/// [`InputError`] with the file and how far reading came.
pub(crate) fn read_whole(name: &str, limit: u64) -> Result<Vec<u8>, InputError> {
    if name != "-" && !Path::new(name).exists() {
        return Err(InputError::NotFound { path: name.to_owned() });
    }
    let location = if name == "-" { Location::Standard } else { Location::File };
    let source = Source { name: name.to_owned(), size: 0, at: 0, location };
    let stream = decoded(&source, &|_| {}).map_err(|error| read_error(name, 0, error))?;
    let mut bytes = Vec::new();
    // One more than the limit, to tell a file that is as long from a longer one.
    let read = stream.take(limit.saturating_add(1)).read_to_end(&mut bytes);
    read.map_err(|error| read_error(name, bytes.len() as u64, error))?;
    if bytes.len() as u64 > limit {
        return Err(InputError::TooLong { path: name.to_owned(), limit });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;

    use super::*;

    const SPEC: &str = "format = \"csv\"\n[[feature]]\nname = \"b\"\nfield = \"b\"";

    /// Line, offset, and values or why there are none.
    type Read = (u64, u64, Result<Vec<Value>, String>);

    fn read_all(path: &Path) -> Result<Vec<Read>, InputError> {
        let spec = ValidSpec::from_toml(SPEC).expect("good");
        let name = path.display().to_string();
        let source = Source { name, size: 0, at: 0, location: Location::File };
        let mut got = Vec::new();
        read_source(&source, &spec, &|_| {}, |record| {
            let point = record.point.map_err(ToString::to_string);
            let values = point.map(|point| point.expect("no shingle").to_vec());
            got.push((record.place.line, record.place.offset, values));
        })?;
        Ok(got)
    }

    fn number(x: f64) -> Result<Vec<Value>, String> {
        Ok(vec![Value::Number(x)])
    }

    #[test]
    fn plain_gzip_and_zstd_read_the_same() {
        let folder = tempfile::tempdir().expect("a folder");
        let text = b"\xef\xbb\xbfb,a\r\n1,2\n\n3,4\r\nx,5\n6,7";
        let want = vec![
            (2, 8, number(1.0)),
            (4, 13, number(3.0)),
            (5, 18, Err("field `b` is not a number".to_owned())),
            (6, 22, number(6.0)),
        ];
        let plain = folder.path().join("plain");
        std::fs::write(&plain, text).expect("written");
        let zipped = folder.path().join("zipped");
        // Two members, as rotated logs are joined.
        let file = File::create(&zipped).expect("created");
        let mut file = text.chunks(10).fold(file, |file, part| {
            let mut member = flate2::write::GzEncoder::new(file, flate2::Compression::default());
            member.write_all(part).expect("written");
            member.finish().expect("finished")
        });
        file.flush().expect("flushed");
        let zstd = folder.path().join("zstd");
        std::fs::write(&zstd, zstd::encode_all(&text[..], 3).expect("encoded")).expect("written");
        for path in [plain, zipped, zstd] {
            assert_eq!(read_all(&path).expect("readable"), want, "{}", path.display());
        }
    }

    #[test]
    fn a_long_line_is_one_reject_and_the_next_line_is_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("long");
        let text = format!("a,b\n1,{}\n1,2\n", "9".repeat(10 << 20));
        std::fs::write(&path, text).expect("written");
        let got = read_all(&path).expect("readable");
        assert_eq!(got.len(), 2);
        let said = got[0].2.as_ref().expect_err("too long");
        assert!(said.contains("10485762 bytes"), "got: {said}");
        assert_eq!((got[1].0, &got[1].2), (3, &number(2.0)));
    }

    #[test]
    fn a_cut_off_stream_names_file_and_place() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("cut.gz");
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        let lines: String = (0..9000).map(|i| format!("{i},{}\n", i * 7919 % 6151)).collect();
        encoder.write_all(format!("a,b\n{lines}").as_bytes()).expect("written");
        let bytes = encoder.finish().expect("finished");
        std::fs::write(&path, &bytes[..bytes.len() / 2]).expect("written");
        let said = read_all(&path).expect_err("cut off").to_string();
        assert!(said.contains("cut.gz") && said.contains("at byte"), "got: {said}");
    }

    #[test]
    fn a_header_without_the_column_is_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("f.csv");
        std::fs::write(&path, "a,c\n1,2\n").expect("written");
        let said = read_all(&path).expect_err("no b").to_string();
        assert!(
            said.contains("f.csv") && said.contains("line 1") && said.contains("`b`"),
            "got: {said}"
        );
    }

    #[test]
    fn folders_globs_and_files_are_found_in_order() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("sub")).expect("created");
        for name in ["b.log", "a.log", "sub/c.log", ".hidden"] {
            std::fs::write(folder.path().join(name), "x").expect("written");
        }
        let names = |argument: &str| -> Vec<String> {
            let argument = folder.path().join(argument).display().to_string();
            let prefix = format!("{}/", folder.path().display());
            let sources = resolve(&[argument]).expect("found");
            sources.iter().map(|source| source.name.replace(&prefix, "")).collect()
        };
        assert_eq!(names(""), ["a.log", "b.log", "sub/c.log"]);
        assert_eq!(names("?.log"), ["a.log", "b.log"]);
        assert!(matches!(resolve(&["none".into()]), Err(InputError::NotFound { .. })));
        assert!(matches!(resolve(&["none*".into()]), Err(InputError::Empty { .. })));
    }
}
