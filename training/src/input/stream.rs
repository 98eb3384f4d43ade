//! An input that is being read: opened, decompressed, in blocks, with the specification as its header
//! completes it.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};

use sawlog_model::spec::Format;
use sawlog_model::{MAX_RECORD_LEN, RecordError, Shingler, SourceKey, read_in_series};

use super::blocks::{Block, Blocks};
use super::parquet::Rows;
use super::period::Way;
use super::{InputError, Location, Place, Record, Source, read_error};

/// Bytes read at a time.
const BUFFER_LEN: usize = 1 << 17;

/// What this program writes itself, by its first bytes: easily named in the place of what it was made of.
const OWN_FILES: [(&[u8; 8], &str); 2] = [
    (b"SAWLOGSK", "a sketch, which `sawlog merge` and `sawlog train --from-sketch` take"),
    (b"SAWLOGRF", "a model"),
];

/// Told the bytes read from disk or network since the last call.
pub(crate) type Moved<'a> = &'a (dyn Fn(u64) + Sync);

/// How the records of a stream are read: what is known of it before its blocks.
#[derive(Debug, Clone)]
pub(crate) struct Head<'a> {
    pub source: &'a Source,
    pub way: Way,
    key: SourceKey,
}

/// An input that is being read.
pub(crate) struct Stream<'a> {
    pub head: Head<'a>,
    body: Body<'a>,
    /// The first block, which was read for its header.
    first: Option<Block>,
    moved: Moved<'a>,
}

/// What blocks are made of.
enum Body<'a> {
    Lines(Blocks<'a>),
    Rows(Box<Rows>),
}

impl<'a> Stream<'a> {
    /// Opens an input and looks for its header. In a CSV the first line is one if it has every column
    /// that a feature names; columns may then stand in another order than elsewhere. Where the columns
    /// are not known yet it must be one.
    ///
    /// # Errors
    /// [`InputError`] with the input's name.
    pub(crate) fn open(
        source: &'a Source,
        way: &Way,
        moved: Moved<'a>,
    ) -> Result<Self, InputError> {
        let at_start = |error| read_error(&source.name, 0, error);
        let mut raw = raw(source, moved).map_err(at_start)?;
        let head = raw.fill_buf().map_err(at_start)?;
        if let Some((_, what)) = OWN_FILES.iter().find(|(magic, _)| head.starts_with(*magic)) {
            return Err(InputError::NotRecords { path: source.name.clone(), what });
        }
        let body = if head.starts_with(b"PAR1") {
            let file = on_disk(source, raw).map_err(at_start)?;
            let rows = Rows::open(file, way.read_by());
            let path = || source.name.clone();
            let rows = rows.map_err(|reason| InputError::Parquet { path: path(), reason })?;
            Body::Rows(Box::new(rows))
        } else {
            Body::Lines(Blocks::new(without_compression(raw).map_err(at_start)?))
        };
        let head = Head { source, way: way.clone(), key: SourceKey::new(&source.name) };
        let mut stream = Self { head, body, first: None, moved };
        if matches!(way.spec.format(), Format::Csv { .. }) {
            stream.find_header()?;
        }
        Ok(stream)
    }

    fn find_header(&mut self) -> Result<(), InputError> {
        while let Some(mut block) = self.next(Vec::new())? {
            let Some(line) = block.lines().find(|line| !line.is_blank()) else { continue };
            let number = line.number;
            match self.head.way.with_header(&String::from_utf8_lossy(line.bytes)) {
                Ok(way) => {
                    self.head.way = way;
                    block.leave_out(number);
                }
                Err(source) if self.head.way.spec.needs_header() => {
                    let path = self.head.source.name.clone();
                    return Err(InputError::Header { path, source });
                }
                Err(_) => {}
            }
            self.first = Some(block);
            break;
        }
        Ok(())
    }

    /// The next block, in the memory of `buffer`; `None` at the end.
    ///
    /// # Errors
    /// [`InputError`] with the input's name and how far reading came.
    pub(crate) fn next(&mut self, buffer: Vec<u8>) -> Result<Option<Block>, InputError> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        let source = self.head.source;
        match &mut self.body {
            Body::Lines(blocks) => {
                let next = blocks.next(buffer);
                next.map_err(|error| read_error(&source.name, blocks.reached(), error))
            }
            Body::Rows(rows) => {
                let before = rows.share_read();
                let next = rows.next(buffer);
                if matches!(source.location, Location::File) {
                    #[expect(clippy::cast_precision_loss, reason = "progress")]
                    #[expect(
                        clippy::cast_possible_truncation,
                        clippy::cast_sign_loss,
                        reason = "progress"
                    )]
                    (self.moved)((source.size as f64 * (rows.share_read() - before)) as u64);
                }
                next.map_err(|reason| InputError::Parquet { path: source.name.clone(), reason })
            }
        }
    }
}

impl Head<'_> {
    /// The histories of the stream's series: without a shingle there are none.
    pub(crate) fn shingler(&self) -> Shingler {
        Shingler::new(&self.way.spec)
    }

    /// Whether a record's point is made of it alone, so that blocks can be taken apart in any order.
    pub(crate) fn is_in_any_order(&self) -> bool {
        self.way.spec.shingle().is_none()
    }

    /// Reads the records of a block; blank lines are passed over.
    ///
    /// # Errors
    /// Histories beyond their limits.
    pub(crate) fn read(
        &self,
        block: &Block,
        shingler: &mut Shingler,
        mut each: impl FnMut(Record<'_>),
    ) -> Result<(), InputError> {
        for line in block.lines().filter(|line| !line.is_blank()) {
            let mut next = read_in_series(self.way.read_by(), line.bytes);
            if line.len > MAX_RECORD_LEN as u64 {
                // Only its beginning is there, which is too long already.
                let len = usize::try_from(line.len).unwrap_or(usize::MAX);
                next.values = Err(RecordError::TooLong { len });
            }
            let mut time_ms = 0;
            match next.values.as_mut().ok().map(|values| self.way.take_time(values)) {
                Some(Ok(None)) => continue,
                Some(Err((field, fault))) => next.values = Err(RecordError::Field { field, fault }),
                Some(Ok(Some(of_record))) => time_ms = of_record,
                None => {}
            }
            let point = shingler.take(&next).map_err(|source| InputError::Series {
                path: self.source.name.clone(),
                line: line.number,
                source,
            })?;
            let point = next.values.as_ref().map(|_| point);
            let place = Place {
                source: &self.source.name,
                at: self.source.at,
                line: line.number,
                offset: line.offset,
            };
            let key = self.key.record(line.offset);
            each(Record { place, key, time_ms, point, bytes: line.bytes });
        }
        Ok(())
    }
}

type Raw<'a> = BufReader<Counted<'a>>;

/// The bytes of an input as they are stored.
fn raw<'a>(source: &Source, moved: Moved<'a>) -> io::Result<Raw<'a>> {
    let raw: Box<dyn Read + Send> = match &source.location {
        Location::Standard => Box::new(io::stdin()),
        Location::File => Box::new(File::open(&source.name)?),
        Location::Object(object) => Box::new(object.open()?),
    };
    Ok(BufReader::with_capacity(BUFFER_LEN, Counted { raw, moved }))
}

/// The bytes of an input without its compression.
///
/// # Errors
/// If it can't be opened.
pub(crate) fn decoded<'a>(
    source: &Source,
    moved: Moved<'a>,
) -> io::Result<Box<dyn Read + Send + 'a>> {
    without_compression(raw(source, moved)?)
}

fn without_compression<'a>(mut raw: Raw<'a>) -> io::Result<Box<dyn Read + Send + 'a>> {
    // By the first bytes rather than by the name: what arrives by a pipe has none.
    let head = raw.fill_buf()?;
    if head.starts_with(&[0x1f, 0x8b]) {
        Ok(Box::new(flate2::bufread::MultiGzDecoder::new(raw)))
    } else if head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        Ok(Box::new(zstd::Decoder::with_buffer(raw)?))
    } else if head.starts_with(b"BZh") {
        Ok(Box::new(bzip2::bufread::MultiBzDecoder::new(raw)))
    } else {
        Ok(Box::new(raw))
    }
}

/// An input that is read at any place: a Parquet file's table of contents is at its end. What isn't a file
/// is copied to one that has no name and goes with the process.
fn on_disk(source: &Source, mut raw: Raw<'_>) -> io::Result<File> {
    if matches!(source.location, Location::File) {
        return File::open(&source.name);
    }
    let mut copy = || -> io::Result<File> {
        let mut file = tempfile::tempfile()?;
        io::copy(&mut raw, &mut file)?;
        Ok(file)
    };
    copy().map_err(|error| {
        io::Error::new(error.kind(), format!("copied to a temporary file: {error}"))
    })
}

/// Tells how many bytes go by.
struct Counted<'a> {
    raw: Box<dyn Read + Send>,
    moved: Moved<'a>,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.raw.read(buffer)?;
        (self.moved)(count as u64);
        Ok(count)
    }
}
