//! A file of JSON lines, for development and for replaying logs: one process writes it, and nothing
//! spreads it over machines.
//!
//! One line an entry, each beginning with `{"id":"`. An entry whose id is in the file already is not
//! written again, so that redelivery and restarts change nothing: at the start the ids are read back,
//! and a last line that broke off is cut. The file is locked while it is open.

use std::collections::HashSet;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use super::{SinkError, Written};
use crate::deadline::Until;

/// How every line begins; a last line that doesn't is none of ours and is not cut.
const LINE_START: &[u8] = b"{\"id\":\"";
/// Lines are written in pieces of about so many bytes.
const PIECE_LEN: usize = 1 << 20;

/// An open file of JSON lines.
#[derive(Debug)]
pub struct JsonlFile {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    file: File,
    /// Length in bytes of the lines that are whole.
    len: u64,
    /// Hashes of the ids in the file. At 128 bits no two of any number that fits a disk are equal.
    ids: HashSet<u128>,
    /// A failed write that could not be taken back: the file's end is unknown.
    broken: Option<Arc<std::io::Error>>,
}

/// Why a file can't be used.
#[derive(Debug, thiserror::Error)]
#[error("file {}", path.display())]
pub struct JsonlError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub fault: JsonlFault,
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum JsonlFault {
    /// It can't be opened, read or cut.
    #[error("can't be opened")]
    Open(#[source] std::io::Error),
    /// Another process, or another sink of this one, has it.
    #[error("is in use: another process or another sink writes it")]
    Locked,
    /// A line that Sawlog didn't write; appending to the file would spoil it.
    #[error("line {line} is no json object that begins with an id; it is not a file of Sawlog's")]
    Foreign {
        /// The line, from 1.
        line: u64,
    },
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    id: std::borrow::Cow<'a, str>,
}

impl JsonlFile {
    /// Opens a file or makes it, locks it, and reads the ids that are in it.
    ///
    /// # Errors
    /// [`JsonlError`] names the file and what is wrong with it.
    pub fn open(path: &Path) -> Result<Self, JsonlError> {
        let opened = open(path).map_err(|fault| JsonlError { path: path.to_owned(), fault });
        Ok(Self { state: Mutex::new(opened?) })
    }

    /// Appends the entries whose ids are not there yet; one answer for each, in their order. Nothing
    /// is begun when the time is over.
    pub fn append<T: Serialize>(
        &self,
        entries: &[T],
        id: impl Fn(&T) -> String,
        until: Until,
    ) -> Vec<Written> {
        // A writer that panicked left whole lines: `len` is only moved when a piece is written.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut written = vec![Err(SinkError::OutOfTime); entries.len()];
        let mut piece = Piece::default();
        for (index, entry) in entries.iter().enumerate() {
            if until.is_over() {
                break;
            }
            let hash = xxh3_128(id(entry).as_bytes());
            if state.ids.contains(&hash) || piece.ids.contains(&hash) {
                piece.entries.push(index);
                continue;
            }
            let start = piece.bytes.len();
            if let Err(error) = serde_json::to_writer(&mut piece.bytes, entry) {
                piece.bytes.truncate(start);
                written[index] = Err(SinkError::Json(Arc::new(error)));
                continue;
            }
            piece.bytes.push(b'\n');
            piece.ids.insert(hash);
            piece.entries.push(index);
            if piece.bytes.len() >= PIECE_LEN {
                state.write(std::mem::take(&mut piece), &mut written);
            }
        }
        state.write(piece, &mut written);
        written
    }
}

/// Lines that are written together.
#[derive(Default)]
struct Piece {
    bytes: Vec<u8>,
    ids: HashSet<u128>,
    /// Indexes of the entries that are written when it is.
    entries: Vec<usize>,
}

impl State {
    fn write(&mut self, piece: Piece, written: &mut [Written]) {
        let outcome = self.write_bytes(&piece.bytes).map_err(SinkError::File);
        if outcome.is_ok() {
            self.ids.extend(piece.ids);
        }
        for index in piece.entries {
            written[index] = outcome.clone();
        }
    }

    fn write_bytes(&mut self, bytes: &[u8]) -> Result<(), Arc<std::io::Error>> {
        if let Some(error) = &self.broken {
            return Err(Arc::clone(error));
        }
        match self.file.write_all(bytes) {
            Ok(()) => {
                self.len += bytes.len() as u64;
                Ok(())
            }
            Err(error) => {
                let error = Arc::new(error);
                // Half a line must not stay in front of the next one.
                if self.file.set_len(self.len).is_err() {
                    self.broken = Some(Arc::clone(&error));
                }
                Err(error)
            }
        }
    }
}

fn open(path: &Path) -> Result<State, JsonlFault> {
    let file = OpenOptions::new().read(true).append(true).create(true).open(path);
    let file = file.map_err(JsonlFault::Open)?;
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => JsonlFault::Locked,
        TryLockError::Error(error) => JsonlFault::Open(error),
    })?;
    let (ids, len) = read_ids(&file)?;
    if file.metadata().map_err(JsonlFault::Open)?.len() > len {
        file.set_len(len).map_err(JsonlFault::Open)?;
    }
    Ok(State { file, len, ids, broken: None })
}

/// The ids of the whole lines, and the length of these in bytes.
fn read_ids(file: &File) -> Result<(HashSet<u128>, u64), JsonlFault> {
    let (mut ids, mut len) = (HashSet::new(), 0);
    let mut reader = BufReader::new(file);
    let mut bytes = Vec::new();
    for line in 1.. {
        bytes.clear();
        let read = reader.read_until(b'\n', &mut bytes).map_err(JsonlFault::Open)?;
        let starts_as_ours = bytes.iter().zip(LINE_START).all(|(got, ours)| got == ours);
        if !bytes.ends_with(b"\n") && starts_as_ours {
            break;
        }
        match serde_json::from_slice::<Line<'_>>(&bytes) {
            Ok(parsed) if starts_as_ours => ids.insert(xxh3_128(parsed.id.as_bytes())),
            _ => return Err(JsonlFault::Foreign { line }),
        };
        len += read as u64;
    }
    Ok((ids, len))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[derive(Serialize)]
    struct Entry {
        id: String,
        text: &'static str,
    }

    fn entry(id: &str, text: &'static str) -> Entry {
        Entry { id: id.to_owned(), text }
    }

    fn append(file: &JsonlFile, entries: &[Entry]) -> Vec<Written> {
        file.append(entries, |entry| entry.id.clone(), Until::FOREVER)
    }

    fn temporary() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("out.jsonl");
        (folder, path)
    }

    fn lines(path: &Path) -> Vec<String> {
        std::fs::read_to_string(path).expect("text").lines().map(str::to_owned).collect()
    }

    #[test]
    fn an_id_is_written_once_within_a_batch_across_batches_and_restarts() {
        let (_folder, path) = temporary();
        for _restart in 0..2 {
            let file = JsonlFile::open(&path).expect("opened");
            for _redelivery in 0..2 {
                let batch = [entry("a", "1"), entry("b", "2"), entry("a", "3")];
                assert!(append(&file, &batch).iter().all(Result::is_ok));
            }
        }
        assert_eq!(lines(&path), [r#"{"id":"a","text":"1"}"#, r#"{"id":"b","text":"2"}"#]);
    }

    #[test]
    fn a_torn_last_line_is_cut_wherever_it_broke_off_and_written_again() {
        let (_folder, path) = temporary();
        append(&JsonlFile::open(&path).expect("new"), &[entry("a", "1"), entry("b", "\n\"2")]);
        let whole = std::fs::read(&path).expect("bytes");
        let first = whole.iter().position(|&byte| byte == b'\n').expect("a line") + 1;
        for torn in first..whole.len() {
            std::fs::write(&path, &whole[..torn]).expect("torn");
            let file = JsonlFile::open(&path).expect("opened");
            assert_eq!(std::fs::metadata(&path).expect("there").len() as usize, first);
            append(&file, &[entry("a", "1"), entry("b", "\n\"2")]);
            assert_eq!(std::fs::read(&path).expect("bytes"), whole, "torn at {torn}");
        }
    }

    #[test]
    fn a_file_of_something_else_is_refused_and_left_as_it_is() {
        for (text, line) in [
            ("hello", 1),
            ("hello\n", 1),
            ("{\"ID\":\"a\"}\n", 1),
            ("{\"id\":\"a\"}\n\n", 2),
            ("{\"id\":\"a\"}\n{\"id\":7}\n", 2),
            ("{\"id\":\"a\"}\n{\"id\":\"b\"\n", 2),
            ("{\"id\":\"a\"}\nnotes", 2),
        ] {
            let (_folder, path) = temporary();
            std::fs::write(&path, text).expect("written");
            let error = JsonlFile::open(&path).expect_err(text);
            assert!(
                matches!(error.fault, JsonlFault::Foreign { line: got } if got == line),
                "{text}: {error:?}"
            );
            assert_eq!(std::fs::read_to_string(&path).expect("text"), text);
        }
    }

    #[test]
    fn two_writers_are_refused() {
        let (_folder, path) = temporary();
        let first = JsonlFile::open(&path).expect("opened");
        assert!(matches!(
            JsonlFile::open(&path),
            Err(JsonlError { fault: JsonlFault::Locked, .. })
        ));
        drop(first);
        JsonlFile::open(&path).expect("free again");
    }

    #[test]
    fn a_missing_folder_is_an_error_that_names_the_file() {
        let (folder, _) = temporary();
        let path = folder.path().join("no/such/out.jsonl");
        let error = JsonlFile::open(&path).expect_err("no folder");
        assert!(error.to_string().contains("no/such/out.jsonl"));
    }

    #[test]
    fn a_disk_that_is_full_fails_the_entries_each_time() {
        // Every write to this device fails for want of space, and it can't be cut.
        let device = OpenOptions::new().write(true).open("/dev/full").expect("a device");
        let state = State { file: device, len: 0, ids: HashSet::new(), broken: None };
        let file = JsonlFile { state: Mutex::new(state) };
        for _again in 0..2 {
            let written = append(&file, &[entry("a", "1")]);
            assert!(matches!(written[..], [Err(SinkError::File(_))]), "{written:?}");
        }
    }

    #[test]
    fn nothing_is_begun_when_the_time_is_over() {
        let (_folder, path) = temporary();
        let file = JsonlFile::open(&path).expect("opened");
        let over = Until::before(Some(Instant::now()), Duration::ZERO);
        let written = file.append(&[entry("a", "1")], |entry| entry.id.clone(), over);
        assert!(matches!(written[..], [Err(SinkError::OutOfTime)]));
        assert!(lines(&path).is_empty());
    }

    #[test]
    fn a_batch_of_many_pieces_is_written_whole() {
        let (_folder, path) = temporary();
        let long: &'static str = "x".repeat(700_000).leak();
        let batch: Vec<Entry> = (0..5).map(|id| entry(&id.to_string(), long)).collect();
        let file = JsonlFile::open(&path).expect("opened");
        assert!(append(&file, &batch).iter().all(Result::is_ok));
        assert_eq!(lines(&path).len(), 5);
    }
}
