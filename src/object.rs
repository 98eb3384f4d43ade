//! Objects in S3: log files read line by line, and payloads that were too large for their message.
//!
//! A log file may be larger than the memory. It is read as a stream, decompressed on the way, and
//! handed on in pieces of at most `MAX_PIECE_LINES` lines or `MAX_PIECE_LEN` bytes, each scored and
//! stored before the next is read. What is gzip or zstd is known by its first bytes, whatever its name.
//!
//! A line's number is part of its identity. An object that is read again, from its beginning, gives the
//! same records: so whatever stops the reading, the whole object comes again and nothing is written
//! twice.

use std::io;
use std::pin::Pin;
use std::sync::Arc;

use async_compression::tokio::bufread::{GzipDecoder, ZstdDecoder};
use async_compression::zstd::DParameter;
use aws_sdk_s3::Client;
use aws_sdk_s3::error::SdkError;
use aws_sdk_s3::operation::get_object::GetObjectError;
use sawlog_model::{Features, MAX_RECORD_LEN};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader};

use crate::deadline::Until;
use crate::event::{DecodeFault, Event, Notice, Pointer};
use crate::handler::{chain, status_of};
use crate::origin::Origin;

/// Most lines of one piece: a batch of Kafka's.
const MAX_PIECE_LINES: usize = 10_000;
/// Bytes of lines after which a piece ends; with the last line it may have a megabyte more.
const MAX_PIECE_LEN: usize = 4 << 20;
/// How much is kept of a line that is longer than a record may be, for its dead letter. What is too
/// long to be read is no record, and its beginning says what it is.
const MAX_KEPT_LEN: usize = 64 << 10;
/// Bytes read at a time.
const BUFFER_LEN: usize = 64 << 10;
/// Largest window of zstd, as a power of two: 32 MiB is what `zstd -20` asks for. It is memory.
const MAX_ZSTD_WINDOW_LOG: u32 = 25;

/// Why an object is not read to its end. It comes again with its notification.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// S3 refuses it, doesn't have it (any more) or can't be reached.
    #[error("it can't be fetched{}", status_of(.0))]
    Get(#[source] Box<SdkError<GetObjectError>>),
    /// Its bytes stopped coming, or its compression is damaged.
    #[error("reading stopped at line {line}")]
    Read {
        /// The line, from 1.
        line: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The time was over.
    #[error("there was no time left at line {line}; it is read again from its beginning")]
    OutOfTime {
        /// The line, from 1.
        line: u64,
    },
}

/// An object that is being read.
pub(crate) struct Object {
    bucket: Arc<str>,
    key: Arc<str>,
    version: Arc<str>,
    header: Option<Arc<str>>,
    lines: Lines,
}

impl Object {
    /// Begins to read what a notification tells of: the version that it names, or what is there if
    /// that is still what was put there then.
    ///
    /// # Errors
    /// [`ObjectError`]
    pub(crate) async fn open(
        client: &Client,
        notice: &Notice,
        until: Until,
    ) -> Result<Self, ObjectError> {
        let version_id = notice.version_id.as_deref();
        // Another's content would be taken for this one's, under the names of its lines.
        let etag = notice.etag.as_deref().filter(|_| version_id.is_none());
        let get = client
            .get_object()
            .bucket(&*notice.bucket)
            .key(&*notice.key)
            .set_version_id(version_id.map(str::to_owned))
            .set_if_match(etag.map(|etag| format!("\"{etag}\"")));
        let got = until.limit(get.send()).await.ok_or(ObjectError::OutOfTime { line: 1 })?;
        let got = got.map_err(|error| ObjectError::Get(Box::new(error)))?;
        let version = notice
            .version_id
            .clone()
            .unwrap_or_else(|| got.e_tag.as_deref().unwrap_or_default().trim_matches('"').into());
        let lines = Lines::over(got.body.into_async_read());
        let lines = until.limit(lines).await.ok_or(ObjectError::OutOfTime { line: 1 })?;
        let lines = lines.map_err(|source| ObjectError::Read { line: 1, source })?;
        Ok(Self {
            bucket: Arc::clone(&notice.bucket),
            key: Arc::clone(&notice.key),
            version,
            header: None,
            lines,
        })
    }

    /// The next lines, but for blank ones; `None` at the end. If the model reads CSV and the first line
    /// has every column that a feature names, it is a header and no record.
    ///
    /// # Errors
    /// [`ObjectError`] with the line at which it stopped.
    pub(crate) async fn next_piece(
        &mut self,
        features: Option<&Features>,
        until: Until,
    ) -> Result<Option<Event<'static>>, ObjectError> {
        let read = until.limit(self.read_piece(features)).await;
        let line = self.lines.line + 1;
        match read {
            Some(Ok(event)) => Ok((!event.records.is_empty()).then_some(event)),
            Some(Err(source)) => Err(ObjectError::Read { line, source }),
            None => Err(ObjectError::OutOfTime { line }),
        }
    }

    async fn read_piece(&mut self, features: Option<&Features>) -> io::Result<Event<'static>> {
        let mut event = Event::of_lines(self.header.clone());
        while event.records.len() < MAX_PIECE_LINES && event.decoded_len() < MAX_PIECE_LEN {
            let Some(len) = self.lines.next().await? else { break };
            let mut line = self.lines.buffer.as_slice();
            let is_too_long = len > MAX_RECORD_LEN as u64;
            if self.lines.line == 1 {
                line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
                if !is_too_long && let Some(header) = header(line, features) {
                    self.header = Some(header);
                    event.header = self.header.clone();
                    continue;
                }
            }
            if line.trim_ascii().is_empty() && !is_too_long {
                continue;
            }
            let origin = Origin::S3 {
                bucket: Arc::clone(&self.bucket),
                key: Arc::clone(&self.key),
                version: Arc::clone(&self.version),
                line: self.lines.line,
            };
            if is_too_long {
                let fault = DecodeFault::LineTooLong { len, kept: MAX_KEPT_LEN };
                event.push_line(origin, &line[..line.len().min(MAX_KEPT_LEN)], Some(fault));
            } else {
                event.push_line(origin, line, None);
            }
        }
        Ok(event)
    }
}

/// The line as a header, if it is one.
fn header(line: &[u8], features: Option<&Features>) -> Option<Arc<str>> {
    let features = features?;
    if !matches!(features.spec().format(), sawlog_model::spec::Format::Csv { .. }) {
        return None;
    }
    let line = std::str::from_utf8(line).ok()?;
    features.spec().with_header(line).ok().map(|_| line.into())
}

/// The lines of a stream, with bounded memory.
struct Lines {
    input: Pin<Box<dyn AsyncBufRead + Send>>,
    /// The current line without its end, cut off after [`MAX_RECORD_LEN`] + 1 bytes.
    buffer: Vec<u8>,
    /// Lines read.
    line: u64,
}

impl Lines {
    async fn over(mut raw: impl AsyncRead + Send + Unpin + 'static) -> io::Result<Self> {
        let mut head = Vec::with_capacity(4);
        (&mut raw).take(4).read_to_end(&mut head).await?;
        let is_gzip = head.starts_with(&[0x1f, 0x8b]);
        let is_zstd = head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]);
        let whole = io::Cursor::new(head).chain(raw);
        let whole = BufReader::with_capacity(BUFFER_LEN, whole);
        let input: Pin<Box<dyn AsyncBufRead + Send>> = if is_gzip {
            let mut decoder = GzipDecoder::new(whole);
            // Files that were put together are one after the other.
            decoder.multiple_members(true);
            Box::pin(BufReader::with_capacity(BUFFER_LEN, decoder))
        } else if is_zstd {
            let window = [DParameter::window_log_max(MAX_ZSTD_WINDOW_LOG)];
            let mut decoder = ZstdDecoder::with_params(whole, &window);
            decoder.multiple_members(true);
            Box::pin(BufReader::with_capacity(BUFFER_LEN, decoder))
        } else {
            Box::pin(whole)
        };
        Ok(Self { input, buffer: Vec::new(), line: 0 })
    }

    /// Reads the next line and returns its length; `None` at the end.
    async fn next(&mut self) -> io::Result<Option<u64>> {
        self.buffer.clear();
        let mut len = 0_u64;
        let mut ended = false;
        while !ended {
            let available = self.input.fill_buf().await?;
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
            self.input.as_mut().consume(used);
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

/// Fetches the payload of a dead letter, and checks that it is the one.
///
/// # Errors
/// Why it can't be had; it may come again.
pub(crate) async fn fetch_payload(
    client: &Client,
    pointer: &Pointer,
    until: Until,
) -> Result<Vec<u8>, DecodeFault> {
    let fault = |reason: &str| DecodeFault::Fetch { reason: reason.into() };
    let fetch = async {
        let get = client.get_object().bucket(&pointer.bucket).key(&pointer.key).send().await;
        let got = get.map_err(|error| fault(&chain(&ObjectError::Get(Box::new(error)))))?;
        let mut bytes = Vec::new();
        let body = got.body.into_async_read().take(pointer.len + 1).read_to_end(&mut bytes).await;
        body.map_err(|error| fault(&error.to_string()))?;
        Ok(bytes)
    };
    let bytes = until.limit(fetch).await.ok_or_else(|| fault("there was no time left"))??;
    if bytes.len() as u64 != pointer.len {
        return Err(fault("it has another length"));
    }
    let hash = Sha256::digest(&bytes);
    let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    if hash != pointer.sha256 {
        return Err(fault("it has another hash"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    async fn object(bytes: Vec<u8>) -> Object {
        let lines = Lines::over(io::Cursor::new(bytes)).await.expect("begun");
        let (bucket, key, version) = ("b".into(), "k/l.log".into(), "v".into());
        Object { bucket, key, version, header: None, lines }
    }

    /// Line and payload of every record, piece by piece.
    async fn pieces(bytes: Vec<u8>) -> Result<Vec<Vec<(u64, String)>>, ObjectError> {
        let mut object = object(bytes).await;
        let mut pieces = Vec::new();
        while let Some(event) = object.next_piece(None, Until::FOREVER).await? {
            let of = |record: &crate::event::Record<'_>| {
                let Origin::S3 { line, .. } = record.origin else { panic!("{:?}", record.origin) };
                let payload = event.payload(record).map(<[u8]>::to_vec);
                let text = payload.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
                (line, text.unwrap_or_else(|fault| fault.to_string()))
            };
            pieces.push(event.records.iter().map(of).collect());
        }
        Ok(pieces)
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).expect("written");
        encoder.finish().expect("written")
    }

    #[tokio::test]
    async fn lines_are_numbered_and_blank_ones_passed_over() {
        let text = b"\xef\xbb\xbfone\r\n\n  \ntwo\nthree";
        let line = |at, text: &str| (at, text.to_owned());
        let expected = [vec![line(1, "one"), line(4, "two"), line(5, "three")]];
        let zstd = zstd::encode_all(&text[..], 3).expect("compressed");
        let both = [gzip(&text[..9]), gzip(&text[9..])].concat();
        for (what, bytes) in
            [("plain", text.to_vec()), ("gzip", gzip(text)), ("zstd", zstd), ("two members", both)]
        {
            assert_eq!(pieces(bytes).await.expect(what), expected, "{what}");
        }
        for nothing in [&b""[..], b"\n", b"\n\n "] {
            assert!(pieces(nothing.to_vec()).await.expect("read").is_empty());
        }
    }

    #[tokio::test]
    async fn a_large_object_comes_in_pieces() {
        let lines: String = (0..25_000).map(|at| format!("{at}\n")).collect();
        let got = pieces(gzip(lines.as_bytes())).await.expect("read");
        assert_eq!(got.iter().map(Vec::len).collect::<Vec<_>>(), [10_000, 10_000, 5_000]);
        assert_eq!(got[2][4_999], (25_000, "24999".to_owned()));
        let long = format!("{}\n", "x".repeat(1 << 20));
        let got = pieces(long.repeat(9).into_bytes()).await.expect("read");
        assert_eq!(got.iter().map(Vec::len).collect::<Vec<_>>(), [4, 4, 1]);
    }

    #[tokio::test]
    async fn a_line_that_is_too_long_is_poison_with_its_beginning() {
        let bytes = [&b"one\n"[..], &vec![b'x'; (1 << 20) + 1], b"\ntwo"].concat();
        let mut object = object(bytes).await;
        let event = object.next_piece(None, Until::FOREVER).await.expect("read").expect("lines");
        let poison = &event.records[1];
        let fault = event.payload(poison).expect_err("too long");
        assert!(fault.to_string().contains("the line has 1048577 bytes"), "{fault}");
        assert_eq!(event.original(poison).len(), MAX_KEPT_LEN);
        assert_eq!(poison.origin.identity(), "s3/b/k/l.log/v/2");
        assert_eq!(event.payload(&event.records[2]).expect("sound"), b"two");
    }

    #[tokio::test]
    async fn a_damaged_object_stops_at_its_line() {
        let lines: String = (0..25_000).map(|at| format!("{at}\n")).collect();
        let zstd = zstd::encode_all(lines.as_bytes(), 3).expect("compressed");
        for whole in [gzip(lines.as_bytes()), zstd] {
            let error = pieces(whole[..whole.len() - 9].to_vec()).await.expect_err("broken off");
            let ObjectError::Read { line, .. } = error else { panic!("{error:?}") };
            assert!(line > 20_000, "{line}");
            let mut damaged = whole;
            let half = damaged.len() / 2;
            damaged[half..half + 64].fill(0x55);
            assert!(matches!(pieces(damaged).await, Err(ObjectError::Read { .. })));
        }
    }

    #[tokio::test]
    async fn a_csv_may_have_a_header() {
        let spec = sawlog_model::ValidSpec::from_toml(
            "format = \"csv\"\ncolumns = [\"a\", \"b\"]\n[[feature]]\nname = \"b\"\nfield = \"b\"",
        )
        .expect("spec");
        let read = |line: &[u8]| sawlog_model::read_record(&spec, line).expect("a record");
        let sample = [read(b"1,2"), read(b"1,3")];
        let sample: Vec<&[_]> = sample.iter().map(Vec::as_slice).collect();
        let features = Features::fit(spec.clone(), &sample).expect("features");
        let mut with = object(b"b,c,a\n1,2,3\n".to_vec()).await;
        let event = with.next_piece(Some(&features), Until::FOREVER).await.expect("read");
        let event = event.expect("a line");
        assert_eq!((event.records.len(), event.header.as_deref()), (1, Some("b,c,a")));
        let mut without = object(b"1,2\n".to_vec()).await;
        let event = without.next_piece(Some(&features), Until::FOREVER).await.expect("read");
        let event = event.expect("a line");
        assert_eq!((event.records.len(), event.header.as_deref()), (1, None));
    }
}
