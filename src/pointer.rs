//! A pointer: the small object that says which of a place's models is in use.
//!
//! `sawlog publish --to s3://bucket/prefix` keeps there
//!
//! - `ID.sawlog`: snapshots, each under its content's hash, never written twice;
//! - `current.json`: the pointer that `MODEL_URI` names and the function follows;
//! - `candidate.json`: a pointer to a model that is yet to be tried.
//!
//! A pointer carries its own history: the move that made it what it is, and those before. So one
//! conditional write changes both, and there is no moment at which they contradict each other. Every move
//! has a number of its own in it, so no two contents of a pointer are equal, and neither are their entity
//! tags: a write that is conditional on a tag can't mistake a model that came back for one that never left.

use std::time::SystemTime;

use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use serde::{Deserialize, Serialize};

/// Moves before the current one that are kept: three months of nightly models. A move has some 200
/// bytes, and a function reads all of them.
pub const MAX_PREVIOUS: usize = 99;

/// Longest pointer that is read, in bytes: a hundred moves whose reasons are as long as they may be.
pub const MAX_POINTER_LEN: usize = 512 << 10;

/// Longest reason for overruling the gate, in bytes.
pub const MAX_REASON_LEN: usize = 1000;

/// The form that is written.
const VERSION: u32 = 1;

/// Hexadecimal digits of a model's id.
const ID_LEN: usize = 32;

/// Which model is in use, and which were.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pointer {
    /// The version of this form.
    #[serde(rename = "sawlog_pointer")]
    version: u32,
    /// The move that counts.
    pub current: Move,
    /// Those before it, the latest first; at most [`MAX_PREVIOUS`].
    pub previous: Vec<Move>,
}

/// One change of a pointer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// Counts a place's moves, from 1, without a gap.
    pub number: u64,
    /// The model that it led to.
    pub model: ModelId,
    /// Length of its snapshot in bytes.
    pub bytes: u64,
    /// When, in RFC 3339, by the clock of who did it.
    pub at: String,
    /// What was done.
    pub how: How,
    /// Known to who did it alone: whose move stands here after an answer was lost.
    pub token: String,
    /// Why it was done although the gate refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forced: Option<String>,
    /// What the gate had found then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overruled: Vec<String>,
}

/// What moved a pointer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// `sawlog publish`
    Published,
    /// `sawlog promote`: it was the candidate.
    Promoted,
    /// `sawlog rollback`
    RolledBack,
}

impl How {
    /// As written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Published => "published",
            Self::Promoted => "promoted",
            Self::RolledBack => "rolled back",
        }
    }
}

/// A model's id: 32 digits of the hash of its content, and so fit to be a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ModelId(String);

/// Not 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a model's id has {ID_LEN} hexadecimal digits")]
pub struct NoModelId;

impl TryFrom<String> for ModelId {
    type Error = NoModelId;

    fn try_from(text: String) -> Result<Self, NoModelId> {
        let is_digit = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let sound = text.len() == ID_LEN && text.bytes().all(is_digit);
        if sound { Ok(Self(text)) } else { Err(NoModelId) }
    }
}

impl From<ModelId> for String {
    fn from(id: ModelId) -> Self {
        id.0
    }
}

impl ModelId {
    /// The id as [`Model::id`](sawlog_model::Model::id) has it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of its snapshot, beside the pointer.
    pub fn file_name(&self) -> String {
        format!("{}.sawlog", self.0)
    }
}

/// What stands in a pointer's place and is none.
#[derive(Debug, thiserror::Error)]
pub enum PointerError {
    /// Longer than a pointer is.
    #[error("is json of {len} bytes, more than a pointer's {MAX_POINTER_LEN}")]
    TooLong {
        /// Its length.
        len: usize,
    },
    /// Other JSON, or none.
    #[error("is neither a model nor a pointer to one")]
    Json(#[source] serde_json::Error),
    /// Of another version.
    #[error("is a pointer of version {got}; this program reads version {VERSION}")]
    Version {
        /// The version.
        got: u32,
    },
    /// Moves that can't have followed each other.
    #[error("is a pointer whose moves are out of order at number {number}")]
    Order {
        /// The number that does not fit.
        number: u64,
    },
}

impl Pointer {
    /// The pointer after a move, with `before` as its history.
    pub fn after(before: Option<&Self>, moved: Move) -> Self {
        let previous = before.map(|before| {
            let moves = std::iter::once(&before.current).chain(&before.previous);
            moves.take(MAX_PREVIOUS).cloned().collect()
        });
        Self { version: VERSION, current: moved, previous: previous.unwrap_or_default() }
    }

    /// The number of the move that comes next.
    pub fn next_number(before: Option<&Self>) -> u64 {
        before.map_or(0, |before| before.current.number).saturating_add(1)
    }

    /// All moves, the latest first.
    pub fn moves(&self) -> impl Iterator<Item = &Move> {
        std::iter::once(&self.current).chain(&self.previous)
    }

    /// True for what is read as a pointer: a snapshot begins otherwise.
    pub fn is_one(bytes: &[u8]) -> bool {
        bytes.trim_ascii_start().first() == Some(&b'{')
    }

    /// Reads a pointer.
    ///
    /// # Errors
    /// [`PointerError`]
    pub fn parse(bytes: &[u8]) -> Result<Self, PointerError> {
        if bytes.len() > MAX_POINTER_LEN {
            return Err(PointerError::TooLong { len: bytes.len() });
        }
        let pointer: Self = serde_json::from_slice(bytes).map_err(PointerError::Json)?;
        if pointer.version != VERSION {
            return Err(PointerError::Version { got: pointer.version });
        }
        let mut later = pointer.current.number;
        for moved in &pointer.previous {
            if moved.number.checked_add(1) != Some(later) {
                return Err(PointerError::Order { number: moved.number });
            }
            later = moved.number;
        }
        Ok(pointer)
    }

    /// As it is written.
    ///
    /// # Errors
    /// None that is known of: its maps have text as keys.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut json = serde_json::to_vec_pretty(self)?;
        json.push(b'\n');
        Ok(json)
    }
}

/// An instant as moves give it.
pub fn rfc3339(at: SystemTime) -> String {
    let at = DateTime::from(at);
    let whole = DateTime::from_secs(at.secs());
    // Years that the form has no room for are no time that a clock gives.
    whole.fmt(Format::DateTime).unwrap_or_default()
}

/// The key of an object that stands beside another.
pub fn beside(key: &str, name: &str) -> String {
    let folder = key.rfind('/').map_or("", |at| &key[..=at]);
    format!("{folder}{name}")
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    pub(crate) fn moved(number: u64, model: &str) -> Move {
        Move {
            number,
            model: model.to_owned().try_into().expect("an id"),
            bytes: 7,
            at: rfc3339(UNIX_EPOCH + Duration::from_millis(1_700_000_000_900)),
            how: How::Published,
            token: "t".into(),
            forced: None,
            overruled: Vec::new(),
        }
    }

    const A: &str = "00112233445566778899aabbccddeeff";

    #[test]
    fn a_pointer_is_read_as_it_was_written_and_keeps_a_bounded_history() {
        let mut pointer: Option<Pointer> = None;
        for number in 1..=150 {
            assert_eq!(Pointer::next_number(pointer.as_ref()), number);
            pointer = Some(Pointer::after(pointer.as_ref(), moved(number, A)));
        }
        let pointer = pointer.expect("one");
        let numbers: Vec<u64> = pointer.moves().map(|moved| moved.number).collect();
        assert_eq!(numbers, (51..=150).rev().collect::<Vec<_>>());
        let json = pointer.to_json().expect("json");
        assert!(Pointer::is_one(&json) && json.len() < MAX_POINTER_LEN / 8, "{}", json.len());
        assert_eq!(Pointer::parse(&json).expect("a pointer"), pointer);
        assert_eq!(pointer.current.at, "2023-11-14T22:13:20Z");
        assert!(!Pointer::is_one(b"SAWLOGRF"));
    }

    #[test]
    fn what_is_no_pointer_is_told_apart() {
        let json = |change: &dyn Fn(&mut serde_json::Value)| {
            let pointer = Pointer::after(Some(&Pointer::after(None, moved(1, A))), moved(2, A));
            let mut json = serde_json::to_value(pointer).expect("json");
            change(&mut json);
            json.to_string().into_bytes()
        };
        assert!(Pointer::parse(&json(&|_| ())).is_ok());
        for (bytes, words) in [
            (b"{".to_vec(), "neither a model nor a pointer"),
            (b"{\"a\":1}".to_vec(), "neither a model nor a pointer"),
            (json(&|it| it["sawlog_pointer"] = 2.into()), "version 2"),
            (json(&|it| it["current"]["number"] = 3.into()), "out of order at number 1"),
            (json(&|it| it["current"]["number"] = 1.into()), "out of order at number 1"),
            (json(&|it| it["current"]["model"] = "../x".into()), "neither"),
            (vec![b'{'; MAX_POINTER_LEN + 1], "more than a pointer's"),
        ] {
            let error = Pointer::parse(&bytes).expect_err(words).to_string();
            assert!(error.contains(words), "expected {words:?}, got {error}");
        }
    }

    #[test]
    fn a_snapshot_stands_beside_its_pointer() {
        let id: ModelId = A.to_owned().try_into().expect("an id");
        for (key, folder) in [("a/b/current.json", "a/b/"), ("current.json", "")] {
            assert_eq!(beside(key, &id.file_name()), format!("{folder}{A}.sawlog"));
        }
        for text in ["", "a/../b", &A[1..], &A.to_uppercase(), &format!("{A}0")] {
            assert_eq!(ModelId::try_from(text.to_owned()), Err(NoModelId), "{text}");
        }
    }
}
