//! Inputs: paths, folders, globs and standard input to lines, plain or compressed.
//!
//! A record is one line. Lines longer than [`MAX_RECORD_LEN`] are reported with their length and
//! never stored whole, so memory does not depend on the input. With a shingle each input is one stream:
//! a point's records all stand in the same file.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use sawlog_model::{
    MAX_RECORD_LEN, RecordError, SeriesError, Shingler, SpecError, ValidSpec, Value, read_in_series,
};

/// Bytes read at a time.
const BUFFER_LEN: usize = 1 << 17;

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
    /// A fault of the disk, or of a compressed stream.
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

/// One input file, or standard input, which is named `-`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Source {
    /// As records' places and the model's provenance name it.
    pub name: String,
    /// Bytes on disk; 0 for standard input.
    pub size: u64,
}

/// Finds the files that arguments name: files as they are, folders with all they hold (but hidden
/// files), globs with what they match, `-` for standard input. Sorted within each argument.
///
/// # Errors
/// [`InputError`] names the argument that leads nowhere.
pub(crate) fn resolve(arguments: &[String]) -> Result<Vec<Source>, InputError> {
    let mut sources = Vec::new();
    for argument in arguments {
        if argument == "-" {
            sources.push(Source { name: "-".into(), size: 0 });
            continue;
        }
        let mut paths = Vec::new();
        let path = Path::new(argument);
        if path.exists() {
            collect(path, &mut paths).map_err(|source| read_error(argument, 0, source))?;
        } else if argument.contains(['*', '?', '[']) {
            let glob_error = |source| InputError::Glob { path: argument.clone(), source };
            for found in glob::glob(argument).map_err(glob_error)? {
                let found = found.map_err(|error| read_error(argument, 0, error.into()))?;
                collect(&found, &mut paths).map_err(|source| read_error(argument, 0, source))?;
            }
        } else {
            return Err(InputError::NotFound { path: argument.clone() });
        }
        if paths.is_empty() {
            return Err(InputError::Empty { path: argument.clone() });
        }
        paths.sort();
        for path in paths {
            let name = path.display().to_string();
            let size = path.metadata().map_err(|source| read_error(&name, 0, source))?.len();
            sources.push(Source { name, size });
        }
    }
    // A file that two arguments name is read once.
    let mut seen = std::collections::HashSet::new();
    sources.retain(|source| seen.insert(source.name.clone()));
    Ok(sources)
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
    /// Line, from 1.
    pub line: u64,
    /// Byte in the decompressed stream, from 0.
    pub offset: u64,
}

/// A line as the reader found it.
pub(crate) struct Record<'a> {
    /// Where it stands.
    pub place: Place<'a>,
    /// The values of the point that it completes, as [`Shingler::take`] gives them, none if it has too
    /// few records of its series before it; or why it is refused.
    pub point: Result<Option<&'a [Value]>, &'a RecordError>,
    /// Its bytes without the line end, cut off after [`MAX_RECORD_LEN`] + 1.
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
    moved: &dyn Fn(u64),
    mut each: impl FnMut(Record<'_>),
) -> Result<ValidSpec, InputError> {
    let name = source.name.as_str();
    let mut spec = spec.clone();
    let is_csv = matches!(spec.format(), sawlog_model::spec::Format::Csv { .. });
    let mut lines = Lines::open(name, moved).map_err(|error| read_error(name, 0, error))?;
    let mut first = true;
    let mut shingler = Shingler::new(&spec);
    loop {
        let (line, offset) = (lines.line + 1, lines.offset);
        let len = match lines.next() {
            Ok(Some(len)) => len,
            Ok(None) => break,
            Err(error) => return Err(read_error(name, lines.offset, error)),
        };
        let mut bytes = lines.buffer.as_slice();
        if line == 1 {
            bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        }
        if bytes.trim_ascii().is_empty() && len <= MAX_RECORD_LEN as u64 {
            continue;
        }
        if std::mem::take(&mut first) && is_csv {
            match spec.with_header(&String::from_utf8_lossy(bytes)) {
                Ok(with_header) => {
                    spec = with_header;
                    continue;
                }
                Err(source) if spec.needs_header() => {
                    return Err(InputError::Header { path: name.to_owned(), source });
                }
                Err(_) => {}
            }
        }
        let mut next = read_in_series(&spec, bytes);
        if len > MAX_RECORD_LEN as u64 {
            // Only its beginning is there, which is too long already.
            let len = usize::try_from(len).unwrap_or(usize::MAX);
            next.values = Err(RecordError::TooLong { len });
        }
        let point = shingler.take(&next).map_err(|source| {
            let path = name.to_owned();
            InputError::Series { path, line, source }
        })?;
        let point = next.values.as_ref().map(|_| point);
        each(Record { place: Place { source: name, line, offset }, point, bytes });
    }
    Ok(spec)
}

/// Reads every line of a source in order; blank ones are passed over. Of a line over
/// [`MAX_RECORD_LEN`] only the beginning is given. `moved` is told the bytes read from disk since the
/// last call.
///
/// # Errors
/// [`InputError`] with the file and how far reading came.
pub(crate) fn read_lines(
    source: &Source,
    moved: &dyn Fn(u64),
    mut each: impl FnMut(Place<'_>, &[u8]),
) -> Result<(), InputError> {
    let name = source.name.as_str();
    let mut lines = Lines::open(name, moved).map_err(|error| read_error(name, 0, error))?;
    loop {
        let (line, offset) = (lines.line + 1, lines.offset);
        match lines.next() {
            Ok(Some(_)) if lines.buffer.trim_ascii().is_empty() => {}
            Ok(Some(_)) => each(Place { source: name, line, offset }, &lines.buffer),
            Ok(None) => return Ok(()),
            Err(error) => return Err(read_error(name, lines.offset, error)),
        }
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
    let stream = decoded(name, &|_| {}).map_err(|error| read_error(name, 0, error))?;
    let mut bytes = Vec::new();
    // One more than the limit, to tell a file that is as long from a longer one.
    let read = stream.take(limit.saturating_add(1)).read_to_end(&mut bytes);
    read.map_err(|error| read_error(name, bytes.len() as u64, error))?;
    if bytes.len() as u64 > limit {
        return Err(InputError::TooLong { path: name.to_owned(), limit });
    }
    Ok(bytes)
}

/// A stream without its compression. `moved` is told the bytes read from disk since the last call.
fn decoded<'a>(name: &str, moved: &'a dyn Fn(u64)) -> io::Result<Box<dyn Read + 'a>> {
    let raw: Box<dyn Read> =
        if name == "-" { Box::new(io::stdin()) } else { Box::new(File::open(name)?) };
    let mut raw = BufReader::with_capacity(BUFFER_LEN, Counted { raw, moved });
    // By the first bytes rather than by the name: what arrives by a pipe has none.
    let head = raw.fill_buf()?;
    if head.starts_with(&[0x1f, 0x8b]) {
        Ok(Box::new(flate2::bufread::MultiGzDecoder::new(raw)))
    } else if head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        Ok(Box::new(zstd::Decoder::with_buffer(raw)?))
    } else {
        Ok(Box::new(raw))
    }
}

/// The lines of a stream, with bounded memory.
struct Lines<'a> {
    input: BufReader<Box<dyn Read + 'a>>,
    /// The current line without its end.
    buffer: Vec<u8>,
    /// Lines read.
    line: u64,
    /// Bytes read of the decompressed stream.
    offset: u64,
}

impl<'a> Lines<'a> {
    fn open(name: &str, moved: &'a dyn Fn(u64)) -> io::Result<Self> {
        let input = BufReader::with_capacity(BUFFER_LEN, decoded(name, moved)?);
        Ok(Self { input, buffer: Vec::new(), line: 0, offset: 0 })
    }

    /// Reads the next line and returns its length; only the first [`MAX_RECORD_LEN`] + 1 bytes are
    /// kept.
    fn next(&mut self) -> io::Result<Option<u64>> {
        self.buffer.clear();
        let mut len = 0_u64;
        let mut ended = false;
        while !ended {
            let available = match self.input.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            if available.is_empty() {
                break;
            }
            let (part, used) = match memchr::memchr(b'\n', available) {
                Some(at) => {
                    ended = true;
                    (&available[..at], at + 1)
                }
                None => (available, available.len()),
            };
            let room = (MAX_RECORD_LEN + 1).saturating_sub(self.buffer.len());
            self.buffer.extend_from_slice(&part[..part.len().min(room)]);
            len += part.len() as u64;
            self.offset += used as u64;
            self.input.consume(used);
        }
        if len == 0 && !ended {
            return Ok(None);
        }
        self.line += 1;
        if self.buffer.last() == Some(&b'\r') && len <= MAX_RECORD_LEN as u64 {
            self.buffer.pop();
            len -= 1;
        }
        Ok(Some(len))
    }
}

/// Tells how many bytes go by.
struct Counted<'a> {
    raw: Box<dyn Read>,
    moved: &'a dyn Fn(u64),
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.raw.read(buffer)?;
        (self.moved)(count as u64);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const SPEC: &str = "format = \"csv\"\n[[feature]]\nname = \"b\"\nfield = \"b\"";

    /// Line, offset, and values or why there are none.
    type Read = (u64, u64, Result<Vec<Value>, String>);

    fn read_all(path: &Path) -> Result<Vec<Read>, InputError> {
        let spec = ValidSpec::from_toml(SPEC).expect("good");
        let source = Source { name: path.display().to_string(), size: 0 };
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
