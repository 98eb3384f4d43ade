//! Points of several consecutive records: what a value follows tells whether it is unusual.
//!
//! With a shingle of N, a point is the values of the last N records of a series, the oldest first. A
//! series is the records of one stream with the same key, and a stream is records in their order: a
//! file in training, one partition's records of one batch in serving. [`Shingler`] holds the
//! histories of one stream; a new stream takes a new one, so that nothing reaches from a file or a
//! batch into another. A point then depends on its N records and on nothing else: wherever a record
//! has N - 1 before it, the point and its score are the same.
//!
//! - The first N - 1 records of a series make no point.
//! - A record that can't be read leaves a gap, and values on both sides of a gap are not consecutive.
//!   So it ends the history of its series, which begins anew with the next record. That is not
//!   done where the record's key can't be read either: such a record may be of any series or of none,
//!   and one line of garbage would end them all.

use std::collections::HashMap;

use crate::record::{Reading, Value};
use crate::spec::{Shingle, ValidSpec};

/// Most series of one stream: a key with more values is no name of a metric but of a request, or of
/// a customer, whose records are too few to have a history.
pub const MAX_SERIES: usize = 1 << 16;

/// Most memory that the histories of one stream may take, in bytes: those of 65,536 series of a
/// number over 48 records fit.
pub const MAX_HISTORY_BYTES: usize = 1 << 28;

/// Why a record can't be added to its series. Its series has no history then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SeriesError {
    /// Too many different keys.
    #[error(
        "field `{key}`, the key of the shingle, has more than {MAX_SERIES} values: choose a field \
         with fewer"
    )]
    TooMany {
        /// The key.
        key: String,
    },
    /// Too much to remember.
    #[error(
        "the histories of {series} series take more than {MAX_HISTORY_BYTES} bytes: choose a key \
         with fewer values, or a smaller shingle"
    )]
    TooLarge {
        /// Series in the stream.
        series: usize,
    },
}

/// The histories of a stream's series.
#[derive(Debug)]
pub struct Shingler {
    shingle: Option<Shingle>,
    /// Values of a point.
    window: usize,
    /// Values of a record.
    step: usize,
    /// Of each series the values of its last records, up to two points' worth: the older half is
    /// dropped when it is full, so that a point is always one slice.
    histories: HashMap<Box<str>, Vec<Value>>,
    /// What the histories take.
    bytes: usize,
}

impl Shingler {
    /// For a new stream of records read by a specification.
    pub fn new(spec: &ValidSpec) -> Self {
        let step = spec.features().len();
        Self {
            shingle: spec.shingle().cloned(),
            window: step * spec.shingle_size(),
            step,
            histories: HashMap::new(),
            bytes: 0,
        }
    }

    /// Takes the next record of the stream. Returns the values of the point that it completes, its
    /// own the last; `None` if it can't be read or has too few records before it.
    ///
    /// # Errors
    /// [`SeriesError`] for histories beyond their limits.
    pub fn take<'s>(&'s mut self, next: &'s Reading) -> Result<Option<&'s [Value]>, SeriesError> {
        let values = next.values.as_deref().ok();
        let (Some(shingle), Some(name)) = (&self.shingle, &next.series) else {
            return Ok(values);
        };
        let Some(values) = values else {
            self.end(name);
            return Ok(None);
        };
        if !self.histories.contains_key(name) {
            if self.histories.len() == MAX_SERIES {
                let key = shingle.key.clone().unwrap_or_default();
                return Err(SeriesError::TooMany { key });
            }
            self.histories.insert(name.clone(), Vec::new());
            self.bytes += name.len();
        }
        if self.bytes + bytes_of(values) > MAX_HISTORY_BYTES {
            self.end(name);
            return Err(SeriesError::TooLarge { series: self.histories.len() });
        }
        let Some(history) = self.histories.get_mut(name) else { return Ok(None) };
        if history.len() == 2 * self.window {
            let kept = self.window - self.step;
            self.bytes -= bytes_of(&history[..history.len() - kept]);
            history.drain(..history.len() - kept);
        }
        history.extend_from_slice(values);
        self.bytes += bytes_of(values);
        Ok(history.len().checked_sub(self.window).map(|start| &history[start..]))
    }

    /// Takes note of a record of which nothing is known: it ends the history of a stream's only
    /// series, and of none where there are keys.
    pub fn gap(&mut self) {
        if self.shingle.as_ref().is_some_and(|shingle| shingle.key.is_none()) {
            self.end("");
        }
    }

    /// Ends the history of a series.
    fn end(&mut self, name: &str) {
        if let Some(history) = self.histories.get_mut(name) {
            self.bytes -= bytes_of(history);
            *history = Vec::new();
        }
    }
}

fn bytes_of(values: &[Value]) -> usize {
    let text = |value: &Value| match value {
        Value::Category(name) => name.len(),
        Value::Missing | Value::Number(_) => 0,
    };
    size_of_val(values) + values.iter().map(text).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::RecordError;

    fn spec(size: usize, key: bool) -> ValidSpec {
        let toml = format!(
            "format = \"logfmt\"\n[[feature]]\nname = \"n\"\nfield = \"n\"\n\
             [[feature]]\nname = \"c\"\nfield = \"c\"\nencode = \"one_hot\"\n\
             [shingle]\nsize = {size}\n{}",
            if key { "key = \"k\"" } else { "" }
        );
        ValidSpec::from_toml(&toml).expect("good specification")
    }

    /// A record of a series, its values told by a number; `None` for one that can't be read, with
    /// or without its key.
    fn reading(series: Option<u8>, number: Option<u16>) -> Reading {
        let values = |number: u16| {
            vec![Value::Number(number.into()), Value::Category(number.to_string().into())]
        };
        Reading {
            series: series.map(|name| name.to_string().into()),
            values: match (series, number) {
                (Some(_), Some(number)) => Ok(values(number)),
                _ => Err(RecordError::NoMatch),
            },
        }
    }

    /// The points of a stream, one entry a record.
    fn points(spec: &ValidSpec, stream: &[Reading]) -> Vec<Option<Vec<Value>>> {
        let mut shingler = Shingler::new(spec);
        let mut take = |record| shingler.take(record).expect("small").map(<[Value]>::to_vec);
        stream.iter().map(&mut take).collect()
    }

    /// Cut by hand: the last N records of the series, if it has so many since its last gap.
    fn by_hand(size: usize, stream: &[Reading], at: usize) -> Option<Vec<Value>> {
        stream[at].values.as_ref().ok()?;
        let series = stream[at].series.as_ref()?;
        let of_series =
            stream[..=at].iter().filter(|record| record.series.as_ref() == Some(series));
        let since_gap: Vec<_> =
            of_series.rev().map_while(|record| record.values.as_ref().ok()).take(size).collect();
        let full = since_gap.len() == size;
        full.then(|| since_gap.into_iter().rev().flatten().cloned().collect())
    }

    fn records() -> impl Strategy<Value = Vec<(Option<u8>, Option<u16>)>> {
        let series = prop::option::weighted(0.95, 0_u8..4);
        prop::collection::vec((series, prop::option::weighted(0.95, any::<u16>())), 0..120)
    }

    proptest! {
        #[test]
        fn points_are_the_windows_cut_by_hand(size in 1_usize..9, records in records()) {
            let spec = spec(size, true);
            let stream: Vec<Reading> = records.iter().map(|&(s, n)| reading(s, n)).collect();
            let got = points(&spec, &stream);
            for (at, point) in got.iter().enumerate() {
                let alone = stream[at].values.as_ref().ok().cloned();
                let want = if size == 1 { alone } else { by_hand(size, &stream, at) };
                prop_assert_eq!(point, &want, "record {}", at);
            }
        }

        #[test]
        fn a_series_has_the_same_points_however_others_stand_between(
            size in 2_usize..6, records in records(),
        ) {
            let spec = spec(size, true);
            let whole: Vec<Reading> = records.iter().map(|&(s, n)| reading(s, n)).collect();
            let whole = points(&spec, &whole);
            for series in 0..4 {
                let of_series = |(at, (s, _)): (usize, &(Option<u8>, _))| (*s == Some(series)).then_some(at);
                let at: Vec<usize> = records.iter().enumerate().filter_map(of_series).collect();
                let alone: Vec<Reading> = at.iter().map(|&at| reading(records[at].0, records[at].1)).collect();
                let want: Vec<_> = at.iter().map(|&at| whole[at].clone()).collect();
                prop_assert_eq!(points(&spec, &alone), want);
            }
        }

        /// So a record that comes again in another batch has the same point, or none.
        #[test]
        fn a_point_depends_on_its_own_records_only(size in 2_usize..6, records in records(), from in 0_usize..120) {
            let spec = spec(size, true);
            let stream: Vec<Reading> = records.iter().map(|&(s, n)| reading(s, n)).collect();
            let from = from.min(stream.len());
            let whole = points(&spec, &stream);
            for (late, full) in points(&spec, &stream[from..]).iter().zip(&whole[from..]) {
                prop_assert!(late.is_none() || late == full);
            }
        }
    }

    #[test]
    fn histories_keep_within_their_limits() {
        let numbered = |number: usize| Reading {
            series: Some(number.to_string().into()),
            values: Ok(vec![Value::Number(1.0), Value::Missing]),
        };
        let keyed = spec(3, true);
        let mut shingler = Shingler::new(&keyed);
        for number in 0..MAX_SERIES {
            assert_eq!(shingler.take(&numbered(number)), Ok(None));
        }
        let said = shingler.take(&numbered(MAX_SERIES)).expect_err("one too many").to_string();
        assert!(said.contains("`k`") && said.contains("65536 values"), "{said}");
        assert_eq!(shingler.take(&numbered(7)), Ok(None), "the others go on");
        assert!(shingler.take(&numbered(7)).expect("known").is_some());

        let large = Reading {
            series: Some("".into()),
            values: Ok(vec![Value::Missing, Value::Category("x".repeat(1 << 20).into())]),
        };
        let mut shingler = Shingler::new(&spec(1000, false));
        let refused = (0..1000).find_map(|_| shingler.take(&large).err()).expect("too much");
        assert_eq!(refused, SeriesError::TooLarge { series: 1 });
        assert_eq!(shingler.bytes, 0);
        assert_eq!(shingler.take(&large), Ok(None), "and it begins anew");
    }

    #[test]
    fn a_long_stream_takes_no_more_than_two_points_a_series() {
        let spec = spec(5, false);
        let mut shingler = Shingler::new(&spec);
        let record = reading(Some(0), Some(7));
        for _ in 0..1000 {
            shingler.take(&record).expect("small");
            let held: usize = shingler.histories.values().map(|values| bytes_of(values)).sum();
            assert_eq!(held + 1, shingler.bytes, "and the name of the series");
            assert!(shingler.histories.values().all(|values| values.len() <= 20));
        }
    }
}
