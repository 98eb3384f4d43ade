//! An input that is being read: opened, decompressed, in blocks, with the specification as its header
//! completes it.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::sync::Arc;

use sawlog_model::spec::Format;
use sawlog_model::{MAX_RECORD_LEN, RecordError, Shingler, SourceKey, ValidSpec, read_in_series};

use super::blocks::{Block, Blocks};
use super::{InputError, Location, Place, Record, Source, read_error};

/// Bytes read at a time.
const BUFFER_LEN: usize = 1 << 17;

/// Told the bytes read from disk or network since the last call.
pub(crate) type Moved<'a> = &'a (dyn Fn(u64) + Sync);

/// How the records of a stream are read: what is known of it before its blocks.
#[derive(Debug, Clone)]
pub(crate) struct Head<'a> {
    pub source: &'a Source,
    pub spec: Arc<ValidSpec>,
    key: SourceKey,
}

/// An input that is being read.
pub(crate) struct Stream<'a> {
    pub head: Head<'a>,
    blocks: Blocks<'a>,
    /// The first block, which was read for its header.
    first: Option<Block>,
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
        spec: &Arc<ValidSpec>,
        moved: Moved<'a>,
    ) -> Result<Self, InputError> {
        let input = decoded(source, moved).map_err(|error| read_error(&source.name, 0, error))?;
        let key = SourceKey::new(&source.name);
        let head = Head { source, spec: Arc::clone(spec), key };
        let mut stream = Self { head, blocks: Blocks::new(input), first: None };
        if matches!(spec.format(), Format::Csv { .. }) {
            stream.find_header()?;
        }
        Ok(stream)
    }

    fn find_header(&mut self) -> Result<(), InputError> {
        while let Some(mut block) = self.next(Vec::new())? {
            let Some(line) = block.lines().find(|line| !line.is_blank()) else { continue };
            let number = line.number;
            match self.head.spec.with_header(&String::from_utf8_lossy(line.bytes)) {
                Ok(spec) => {
                    self.head.spec = Arc::new(spec);
                    block.leave_out(number);
                }
                Err(source) if self.head.spec.needs_header() => {
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
        let next = self.blocks.next(buffer);
        next.map_err(|error| read_error(&self.head.source.name, self.blocks.reached(), error))
    }
}

impl Head<'_> {
    /// The histories of the stream's series: without a shingle there are none.
    pub(crate) fn shingler(&self) -> Shingler {
        Shingler::new(&self.spec)
    }

    /// Whether a record's point is made of it alone, so that blocks can be taken apart in any order.
    pub(crate) fn is_in_any_order(&self) -> bool {
        self.spec.shingle().is_none()
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
            let mut next = read_in_series(&self.spec, line.bytes);
            if line.len > MAX_RECORD_LEN as u64 {
                // Only its beginning is there, which is too long already.
                let len = usize::try_from(line.len).unwrap_or(usize::MAX);
                next.values = Err(RecordError::TooLong { len });
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
            each(Record { place, key: self.key.record(line.offset), point, bytes: line.bytes });
        }
        Ok(())
    }
}

/// A stream without its compression.
pub(crate) fn decoded<'a>(
    source: &Source,
    moved: Moved<'a>,
) -> io::Result<Box<dyn Read + Send + 'a>> {
    let raw: Box<dyn Read + Send> = match &source.location {
        Location::Standard => Box::new(io::stdin()),
        Location::File => Box::new(File::open(&source.name)?),
        Location::Object(object) => Box::new(object.open()?),
    };
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
