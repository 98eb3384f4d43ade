//! A stream in blocks of whole lines: what one thread reads and any thread can take apart.
//!
//! A block knows the number and the place of its first line, so its records are the same whoever takes it
//! apart, and whenever. A line longer than [`MAX_RECORD_LEN`] is a block of its own that holds its
//! beginning only, so memory does not depend on the input.

use std::io::{self, Read};

use sawlog_model::MAX_RECORD_LEN;

/// Bytes of lines in a block: a thousand records, so that handing it on costs nothing beside taking it
/// apart, and little enough for a core's cache.
pub(crate) const BLOCK_LEN: usize = 256 << 10;

/// Whole lines of a stream.
#[derive(Debug)]
pub(crate) struct Block {
    bytes: Vec<u8>,
    /// Number of the first line, from 1.
    line: u64,
    /// Where it begins, from 0.
    offset: u64,
    /// What places count.
    unit: Unit,
    /// The whole length of the only line, of which `bytes` are the beginning.
    cut: Option<u64>,
}

/// What the places of a stream's records count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Bytes of the decompressed stream.
    Bytes,
    /// Rows of a table, each of which is a line here.
    Rows,
}

/// One line of a block.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Line<'b> {
    /// Its number, from 1.
    pub number: u64,
    /// Where it begins: a byte or a row, from 0.
    pub offset: u64,
    /// Its bytes without its end, cut off after [`MAX_RECORD_LEN`] + 1.
    pub bytes: &'b [u8],
    /// How long it is without its end.
    pub len: u64,
}

impl Line<'_> {
    /// Nothing but white space.
    pub(crate) fn is_blank(&self) -> bool {
        self.bytes.trim_ascii().is_empty() && self.len <= MAX_RECORD_LEN as u64
    }
}

impl Block {
    /// Rows of a table, one JSON line each, the first of which has this number from 0.
    pub(crate) fn of_rows(bytes: Vec<u8>, first: u64) -> Self {
        Self { bytes, line: first + 1, offset: first, unit: Unit::Rows, cut: None }
    }

    /// Its lines in order, blank ones among them.
    pub(crate) fn lines(&self) -> impl Iterator<Item = Line<'_>> {
        let (mut at, mut number, mut offset) = (0, self.line, self.offset);
        std::iter::from_fn(move || {
            let rest = self.bytes.get(at..).filter(|rest| !rest.is_empty())?;
            let (mut bytes, used) = match memchr::memchr(b'\n', rest) {
                Some(end) => (&rest[..end], end + 1),
                None => (rest, rest.len()),
            };
            let mut len = self.cut.unwrap_or(bytes.len() as u64);
            if len <= MAX_RECORD_LEN as u64
                && let Some(without) = bytes.strip_suffix(b"\r")
            {
                (bytes, len) = (without, len - 1);
            }
            if number == 1 {
                bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
            }
            let line = Line { number, offset, bytes, len };
            at += used;
            number += 1;
            offset += match self.unit {
                Unit::Bytes => used as u64,
                Unit::Rows => 1,
            };
            Some(line)
        })
    }

    /// Leaves out the lines up to that with this number, which isn't the last of a cut one.
    pub(crate) fn leave_out(&mut self, through: u64) {
        let next = self.lines().find(|line| line.number > through).map(|line| line.offset);
        let next = next.unwrap_or(self.offset + self.bytes.len() as u64);
        let bytes = usize::try_from(next - self.offset).unwrap_or(usize::MAX);
        self.bytes.drain(..bytes.min(self.bytes.len()));
        (self.line, self.offset) = (through + 1, next);
    }

    /// Its memory, to be used again.
    pub(crate) fn into_buffer(self) -> Vec<u8> {
        self.bytes
    }
}

/// A stream that is read block by block.
pub(crate) struct Blocks<'a> {
    input: Box<dyn Read + Send + 'a>,
    /// What is read of the next block.
    rest: Vec<u8>,
    /// Number and place of the next line.
    line: u64,
    offset: u64,
    /// Bytes read of the decompressed stream.
    reached: u64,
    ended: bool,
}

impl<'a> Blocks<'a> {
    pub(crate) fn new(input: Box<dyn Read + Send + 'a>) -> Self {
        Self { input, rest: Vec::new(), line: 1, offset: 0, reached: 0, ended: false }
    }

    /// Bytes read of the decompressed stream: where reading stopped if it failed.
    pub(crate) fn reached(&self) -> u64 {
        self.reached
    }

    /// The next block, in the memory of `bytes`; `None` at the end.
    ///
    /// # Errors
    /// Of the disk or the decoder.
    pub(crate) fn next(&mut self, mut bytes: Vec<u8>) -> io::Result<Option<Block>> {
        bytes.clear();
        bytes.append(&mut self.rest);
        let mut searched = 0;
        loop {
            self.fill(&mut bytes)?;
            if self.ended {
                break;
            }
            if let Some(end) = memchr::memrchr(b'\n', &bytes[searched..]) {
                self.rest.extend_from_slice(&bytes[searched + end + 1..]);
                bytes.truncate(searched + end + 1);
                break;
            }
            if bytes.len() > MAX_RECORD_LEN + 1 {
                return self.cut(bytes).map(Some);
            }
            searched = bytes.len();
        }
        if bytes.is_empty() {
            return Ok(None);
        }
        let (line, offset) = (self.line, self.offset);
        self.line += memchr::memchr_iter(b'\n', &bytes).count() as u64;
        self.offset += bytes.len() as u64;
        Ok(Some(Block { bytes, line, offset, unit: Unit::Bytes, cut: None }))
    }

    /// Reads on to the end of a line that is too long, of which `bytes` is the beginning.
    fn cut(&mut self, mut bytes: Vec<u8>) -> io::Result<Block> {
        let mut len = bytes.len() as u64;
        bytes.truncate(MAX_RECORD_LEN + 1);
        let mut part = Vec::new();
        let end = loop {
            part.clear();
            self.fill(&mut part)?;
            if let Some(end) = memchr::memchr(b'\n', &part) {
                self.rest.extend_from_slice(&part[end + 1..]);
                len += end as u64;
                break 1;
            }
            len += part.len() as u64;
            if self.ended {
                break 0;
            }
        };
        let (line, offset) = (self.line, self.offset);
        self.line += 1;
        self.offset += len + end;
        Ok(Block { bytes, line, offset, unit: Unit::Bytes, cut: Some(len) })
    }

    /// Reads until there is a block's length, or another one more.
    fn fill(&mut self, bytes: &mut Vec<u8>) -> io::Result<()> {
        if self.ended {
            return Ok(());
        }
        let room = BLOCK_LEN - bytes.len() % BLOCK_LEN;
        bytes.reserve(room);
        let before = bytes.len();
        let read = (&mut self.input).take(room as u64).read_to_end(bytes);
        self.reached += (bytes.len() - before) as u64;
        self.ended = read? < room;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Number, offset, bytes and length of every line.
    fn lines(text: &[u8]) -> Vec<(u64, u64, Vec<u8>, u64)> {
        let mut blocks = Blocks::new(Box::new(io::Cursor::new(text.to_vec())));
        let mut lines = Vec::new();
        let mut buffer = Vec::new();
        while let Some(block) = blocks.next(buffer).expect("readable") {
            let of = |line: Line<'_>| (line.number, line.offset, line.bytes.to_vec(), line.len);
            lines.extend(block.lines().map(of));
            buffer = block.into_buffer();
        }
        lines
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        /// Lines of lengths around a block's and a record's, cut by hand.
        #[test]
        fn blocks_have_the_lines_of_the_stream(
            lengths in prop::collection::vec(
                prop_oneof![
                    0_usize..200,
                    BLOCK_LEN - 3..BLOCK_LEN + 3,
                    MAX_RECORD_LEN - 3..MAX_RECORD_LEN + 3,
                    MAX_RECORD_LEN + BLOCK_LEN - 3..MAX_RECORD_LEN + BLOCK_LEN + 3,
                ],
                0..12,
            ),
            last_has_end: bool,
        ) {
            let mut text = Vec::new();
            let mut want = Vec::new();
            for (at, &len) in lengths.iter().enumerate() {
                let is_last = at + 1 == lengths.len();
                if !(is_last && !last_has_end && len == 0) {
                    let line = vec![b'a' + at as u8; len];
                    let kept = line[..len.min(MAX_RECORD_LEN + 1)].to_vec();
                    want.push((at as u64 + 1, text.len() as u64, kept, len as u64));
                    text.extend(line);
                }
                if !is_last || last_has_end {
                    text.push(b'\n');
                }
            }
            let got = lines(&text);
            prop_assert_eq!(got.len(), want.len());
            for (got, want) in got.into_iter().zip(want) {
                let kept = got.2.len().min(MAX_RECORD_LEN + 1);
                prop_assert!((got.0, got.1, &got.2[..kept], got.3) == (want.0, want.1, &want.2[..], want.3),
                    "line {} at {} of {}, not {} at {} of {}", got.0, got.1, got.3, want.0, want.1, want.3);
            }
        }
    }
}
