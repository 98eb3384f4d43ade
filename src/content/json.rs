//! `application/json` and `application/jsonlines`.
//!
//! Lists are read entry by entry, not as a whole: a list of a million zeros would otherwise take many
//! times the length of its text.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::error::Category;
use serde_json::value::RawValue;

use super::rows::{Row, RowFault, Rows};
use super::{ContentError, Place, text};
use crate::event::Form;

pub(super) fn read(body: &[u8], rows: &mut Rows<'_>) -> Result<(), ContentError> {
    #[derive(Deserialize)]
    struct Request<'a> {
        #[serde(borrow)]
        instances: &'a RawValue,
    }
    let request: Request<'_> =
        serde_json::from_str(text(body)?).map_err(|error| match error.classify() {
            Category::Data => ContentError::NoInstances,
            _ => ContentError::Syntax { line: error.line(), column: error.column() },
        })?;
    let mut index = 0;
    let read = each(request.instances, |instance| {
        let place = Place::Instance(index);
        index += 1;
        rows.add(place, |row| fill(instance, row))
    });
    read.unwrap_or(Err(ContentError::NoInstances))
}

pub(super) fn read_lines(body: &[u8], rows: &mut Rows<'_>) -> Result<(), ContentError> {
    for (index, line) in text(body)?.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        rows.add(Place::Line(index + 1), |row| {
            let instance = serde_json::from_str(line)
                .map_err(|error| RowFault::Syntax { column: error.column() })?;
            fill(instance, row)
        })?;
    }
    Ok(())
}

/// Reads one instance.
fn fill(instance: &RawValue, row: &mut Row) -> Result<(), RowFault> {
    let form = Form::read(instance).ok_or(RowFault::Form)?;
    let width = row.width;
    let keys = match form.keys {
        None => Vec::new(),
        Some(keys) => indexes(keys, width).ok_or(RowFault::Keys { expected: width })?,
    };
    if let Some(shape) = form.shape {
        // A list without entries says nothing.
        let shape = indexes(shape, width).ok_or(RowFault::Shape { expected: width })?;
        if shape.last().is_some_and(|last| *last != width) {
            return Err(RowFault::Shape { expected: width });
        }
    }
    each(form.values, |number| match number.get() {
        "null" => row.text(""),
        text if text.starts_with(['-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9']) => {
            row.text(text)
        }
        // What is no number in JSON, such as "7", must not pass as one.
        _ => Err(row.not_a_number()),
    })
    .unwrap_or(Err(RowFault::Form))?;
    if keys.is_empty() { Ok(()) } else { row.scatter(&keys) }
}

/// A list of indexes that is no longer than a row.
fn indexes(list: &RawValue, width: usize) -> Option<Vec<usize>> {
    let mut out = Vec::new();
    let read = each(list, |raw| {
        let index = raw.get().parse::<usize>().map_err(|_| ())?;
        out.push(index);
        if out.len() > width { Err(()) } else { Ok(()) }
    });
    read.and_then(Result::ok).map(|()| out)
}

/// Hands out the entries of a list until one is refused; `None` if it is no list.
fn each<'a, E>(
    list: &'a RawValue,
    take: impl FnMut(&'a RawValue) -> Result<(), E>,
) -> Option<Result<(), E>> {
    struct Each<F, E> {
        take: F,
        refused: Option<E>,
    }
    impl<'de, E, F: FnMut(&'de RawValue) -> Result<(), E>> Visitor<'de> for &mut Each<F, E> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
            while let Some(entry) = list.next_element::<&'de RawValue>()? {
                if let Err(refused) = (self.take)(entry) {
                    self.refused = Some(refused);
                    return Err(A::Error::custom("refused"));
                }
            }
            Ok(())
        }
    }
    impl<'de, E, F: FnMut(&'de RawValue) -> Result<(), E>> DeserializeSeed<'de> for &mut Each<F, E> {
        type Value = ();

        fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
            deserializer.deserialize_seq(self)
        }
    }
    let mut each = Each { take, refused: None };
    let read = each.deserialize(&mut serde_json::Deserializer::from_str(list.get()));
    match (each.refused, read) {
        (Some(refused), _) => Some(Err(refused)),
        (None, Ok(())) => Some(Ok(())),
        (None, Err(_)) => None,
    }
}

#[derive(Serialize)]
struct Score {
    score: f32,
}

pub(super) fn write(scores: &[f32]) -> Vec<u8> {
    #[derive(Serialize)]
    struct Scores {
        scores: Vec<Score>,
    }
    let scores = Scores { scores: scores.iter().map(|&score| Score { score }).collect() };
    // Numbers in a list: nothing in them can fail.
    serde_json::to_vec(&scores).unwrap_or_default()
}

pub(super) fn write_lines(scores: &[f32]) -> Vec<u8> {
    let mut out = Vec::new();
    for &score in scores {
        let _ = serde_json::to_writer(&mut out, &Score { score });
        out.push(b'\n');
    }
    out
}
