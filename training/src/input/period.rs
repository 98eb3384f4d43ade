//! Which part of the inputs is read: by the dates in their names, and by the records' own times.
//!
//! Who writes logs to S3 puts the hour or the day into the key: Firehose `2026/11/21/10/`, Kafka Connect
//! `year=2026/month=11/day=21/hour=10/`, Hive and Spark `dt=2026-11-21/hour=10/`, all in UTC. So a month of
//! years of logs is found without opening the rest. Where a record's own time counts, `--time-field` names
//! it; names then only say what is surely not wanted.

use std::str::FromStr;
use std::sync::Arc;

use anyhow::Context;
use chrono::{DateTime, NaiveDate, NaiveDateTime};
use sawlog_model::record::FieldFault;
use sawlog_model::sketch::{Decay, MIN_HALF_LIFE_MS};
use sawlog_model::spec::{Encoding, FeatureSpec, MissingRule};
use sawlog_model::{SpecError, ValidSpec, Value};

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// What part of the inputs is read.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct PeriodArgs {
    /// Read only what is from this time on: a date (in UTC) or a time with its zone, as 2026-11-21 or
    /// 2026-11-21T10:00:00Z. Inputs are chosen by the date in their names (2026/11/21/10/,
    /// year=2026/month=11/day=21/, dt=2026-11-21/hour=10/); with --time-field records are, by their own time
    #[arg(long, value_name = "TIME")]
    since: Option<Instant>,
    /// Read only what is from before this time
    #[arg(long, value_name = "TIME")]
    until: Option<Instant>,
    /// The field with a record's time, for --since, --until and --half-life; records without it are rejected:
    /// seconds, milli-, micro- or nanoseconds since 1970, or a text with its
    /// zone, as RFC 3339 or web servers write it
    #[arg(long, value_name = "FIELD")]
    time_field: Option<String>,
}

/// The age at which a record weighs half as much, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HalfLife(pub u64);

impl FromStr for HalfLife {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let len = humantime::parse_duration(text)
            .map_err(|error| format!("{error}; write 7d, 12h or 30min"))?;
        let half_life_ms = u64::try_from(len.as_millis()).unwrap_or(u64::MAX);
        if half_life_ms < MIN_HALF_LIFE_MS {
            return Err(format!("{text} is shorter than a minute"));
        }
        Ok(Self(half_life_ms))
    }
}

/// A point in time, in milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Instant(i64);

impl FromStr for Instant {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(date) = NaiveDate::parse_from_str(text, "%Y-%m-%d") {
            return Ok(Self(midnight_ms(date)));
        }
        match time_ms(text) {
            Ok(ms) => Ok(Self(ms)),
            Err(FieldFault::NoZone) => Err("it has no zone: add Z or an offset such as +01:00"),
            Err(_) => {
                Err("neither a date such as 2026-11-21 nor a time such as 2026-11-21T10:00:00Z")
            }
        }
    }
}

fn midnight_ms(date: NaiveDate) -> i64 {
    date.and_time(chrono::NaiveTime::MIN).and_utc().timestamp_millis()
}

/// A record's time in milliseconds since 1970. Numbers of today tell their unit by their size.
///
/// # Errors
/// [`FieldFault::NoZone`] for a time that may be that of any place on earth, [`FieldFault::NotATime`].
pub(crate) fn time_ms(text: &str) -> Result<i64, FieldFault> {
    if let Ok(number) = text.parse::<f64>() {
        let ms = match number.abs() {
            // To the year 5138 in seconds, and so on.
            seconds if seconds < 1e11 => number * 1e3,
            ms if ms < 1e14 => number,
            us if us < 1e17 => number / 1e3,
            ns if ns < 1e20 => number / 1e6,
            _ => return Err(FieldFault::NotATime),
        };
        #[expect(clippy::cast_possible_truncation, reason = "below 1e14")]
        return Ok(ms.floor() as i64);
    }
    let zoned = DateTime::parse_from_rfc3339(text)
        .or_else(|_| DateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f%z"))
        .or_else(|_| DateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f %z"))
        .or_else(|_| DateTime::parse_from_str(text, "%d/%b/%Y:%H:%M:%S %z"));
    if let Ok(time) = zoned {
        return Ok(time.timestamp_millis());
    }
    let naive = NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f")
        .or_else(|_| NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f"))
        .or_else(|_| NaiveDateTime::parse_from_str(text, "%d/%b/%Y:%H:%M:%S"));
    Err(if naive.is_ok() { FieldFault::NoZone } else { FieldFault::NotATime })
}

/// From when until before when, in milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    since_ms: i64,
    until_ms: i64,
}

impl PeriodArgs {
    /// Records of all times, which are read from this field.
    pub(crate) fn timed_by(time_field: Option<String>) -> Self {
        Self { time_field, ..Self::default() }
    }

    /// The field with a record's time, if it is read.
    pub(crate) fn time_field(&self) -> Option<&str> {
        self.time_field.as_deref()
    }

    /// How much a record of some age weighs.
    ///
    /// # Errors
    /// A half-life without the field that has the times.
    pub(crate) fn decay(&self, half_life: Option<HalfLife>) -> anyhow::Result<Option<Decay>> {
        let Some(HalfLife(half_life_ms)) = half_life else { return Ok(None) };
        let time_field = self.time_field.clone();
        let time_field =
            time_field.context("--half-life goes with --time-field, which has a record's time")?;
        Ok(Some(Decay { half_life_ms, time_field }))
    }

    fn span(&self) -> Option<Span> {
        if self.since.is_none() && self.until.is_none() {
            return None;
        }
        let since_ms = self.since.map_or(i64::MIN, |Instant(ms)| ms);
        let until_ms = self.until.map_or(i64::MAX, |Instant(ms)| ms);
        Some(Span { since_ms, until_ms })
    }

    /// Whether an input can have records of the period, by the date in its name; `None` if it has no date and
    /// nothing else tells. Where records have times of their own an input may be a day early or late.
    pub(crate) fn chooses(&self, name: &str) -> Option<bool> {
        let Some(span) = self.span() else { return Some(true) };
        let margin_ms = if self.time_field.is_some() { DAY_MS } else { 0 };
        match date_of(name) {
            Some((start_ms, len_ms)) => Some(
                start_ms.saturating_sub(margin_ms) < span.until_ms
                    && start_ms.saturating_add(len_ms + margin_ms) > span.since_ms,
            ),
            None => self.time_field.is_some().then_some(true),
        }
    }

    /// How records are read by a specification.
    ///
    /// # Errors
    /// A time field that the format doesn't have.
    pub(crate) fn way(&self, spec: ValidSpec) -> Result<Way, SpecError> {
        let spec = Arc::new(spec);
        let Some(field) = &self.time_field else { return Ok(Way { spec, times: None }) };
        let timed = Arc::new(with_time(&spec, field)?);
        Ok(Way { spec, times: Some(Times { timed, span: self.span() }) })
    }
}

/// The start and the length of what a name says that it holds, in milliseconds: the last date in its folders.
fn date_of(name: &str) -> Option<(i64, i64)> {
    let folders = name.rsplit_once('/')?.0;
    let parts: Vec<&str> =
        folders.split('/').map(|part| part.rsplit('=').next().unwrap_or(part)).collect();
    let number = |at: usize, digits: usize| {
        let part = parts.get(at).filter(|part| part.len() == digits)?;
        part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse::<u32>().ok()).flatten()
    };
    (0..parts.len()).rev().find_map(|at| {
        let whole = Some(parts[at]).filter(|part| part.len() == 10);
        let whole = whole.and_then(|part| NaiveDate::parse_from_str(part, "%Y-%m-%d").ok());
        let (date, next) = match whole {
            Some(date) => (date, at + 1),
            None => {
                let year = i32::try_from(number(at, 4)?).ok()?;
                (NaiveDate::from_ymd_opt(year, number(at + 1, 2)?, number(at + 2, 2)?)?, at + 3)
            }
        };
        let start_ms = midnight_ms(date);
        Some(match number(next, 2).filter(|hour| *hour < 24) {
            Some(hour) => (start_ms + i64::from(hour) * HOUR_MS, HOUR_MS),
            None => (start_ms, DAY_MS),
        })
    })
}

/// How the records of an input are read.
#[derive(Debug, Clone)]
pub(crate) struct Way {
    /// As points are made.
    pub spec: Arc<ValidSpec>,
    times: Option<Times>,
}

#[derive(Debug, Clone)]
struct Times {
    /// The specification with the time as its last feature.
    timed: Arc<ValidSpec>,
    span: Option<Span>,
}

impl Way {
    /// By a specification, all of them.
    pub(crate) fn all(spec: ValidSpec) -> Self {
        Self { spec: Arc::new(spec), times: None }
    }

    /// What records are read by: with the time, if it is read.
    pub(crate) fn read_by(&self) -> &ValidSpec {
        self.times.as_ref().map_or(&self.spec, |times| &times.timed)
    }

    /// The same for a CSV with this header.
    ///
    /// # Errors
    /// As [`ValidSpec::with_header`]; columns without the time are none of these records.
    pub(crate) fn with_header(&self, header: &str) -> Result<Self, SpecError> {
        let times = match &self.times {
            Some(Times { timed, span }) => {
                Some(Times { timed: Arc::new(timed.with_header(header)?), span: *span })
            }
            None => None,
        };
        Ok(Self { spec: Arc::new(self.spec.with_header(header)?), times })
    }

    /// Takes a record's time out of its values: milliseconds since 1970, 0 if no times are read. `None` if the
    /// record is not of the period.
    ///
    /// # Errors
    /// The time's field and its fault.
    pub(crate) fn take_time(
        &self,
        values: &mut Vec<Value>,
    ) -> Result<Option<i64>, (String, FieldFault)> {
        let Some(Times { timed, span }) = &self.times else { return Ok(Some(0)) };
        let time = match values.pop() {
            Some(Value::Category(text)) => time_ms(&text),
            Some(Value::Number(number)) => time_ms(&number.to_string()),
            Some(Value::Missing) | None => Err(FieldFault::Missing),
        };
        let field = || timed.features().last().map(|last| last.field.clone()).unwrap_or_default();
        let ms = time.map_err(|fault| (field(), fault))?;
        Ok(span.is_none_or(|span| (span.since_ms..span.until_ms).contains(&ms)).then_some(ms))
    }
}

fn with_time(spec: &ValidSpec, field: &str) -> Result<ValidSpec, SpecError> {
    let mut spec = spec.spec().clone();
    let mut name = "time".to_owned();
    while spec.features.iter().any(|feature| feature.name == name) {
        name.push('_');
    }
    // Text, as it stands in the record.
    let encoding = Encoding::OneHot;
    let (field, missing) = (field.to_owned(), MissingRule::Reject);
    spec.features.push(FeatureSpec { name, field, encoding, missing });
    ValidSpec::new(spec)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(since: &str, until: &str, time_field: Option<&str>) -> PeriodArgs {
        let instant = |text: &str| (!text.is_empty()).then(|| text.parse().expect("a time"));
        PeriodArgs {
            since: instant(since),
            until: instant(until),
            time_field: time_field.map(str::to_owned),
        }
    }

    #[test]
    fn times_are_read_in_the_forms_that_logs_have() {
        let ms = 1_795_255_200_000;
        for text in [
            "1795255200",
            "1795255200.0",
            "1795255200000",
            "1795255200000000",
            "1795255200000000000",
            "2026-11-21T10:00:00Z",
            "2026-11-21 10:00:00Z",
            "2026-11-21T11:00:00.000+01:00",
            "2026-11-21T11:00:00+0100",
            "2026-11-21 11:00:00 +0100",
            "21/Nov/2026:11:00:00 +0100",
        ] {
            assert_eq!(time_ms(text), Ok(ms), "{text}");
        }
        assert_eq!(time_ms("1795255200.25"), Ok(ms + 250));
        for text in ["2026-11-21T10:00:00", "2026-11-21 10:00:00.5", "21/Nov/2026:11:00:00"] {
            assert_eq!(time_ms(text), Err(FieldFault::NoZone), "{text}");
        }
        for text in ["", "yesterday", "nan", "inf", "1e300", "2026-13-01T10:00:00Z"] {
            assert_eq!(time_ms(text), Err(FieldFault::NotATime), "{text}");
        }
    }

    #[test]
    fn names_tell_their_hour_or_day() {
        let day = midnight_ms(NaiveDate::from_ymd_opt(2026, 11, 21).expect("a day"));
        for (name, want) in [
            ("s3://b/p/2026/11/21/10/stream-1-2026-11-21-10-05-33-x.gz", Some((10, HOUR_MS))),
            ("s3://b/t/year=2026/month=11/day=21/hour=07/t+0+000.json", Some((7, HOUR_MS))),
            ("s3://b/t/dt=2026-11-21/hour=23/part-0.json", Some((23, HOUR_MS))),
            ("s3://b/t/dt=2026-11-21/part-0.json", Some((0, DAY_MS))),
            ("logs/2026-11-21/a", Some((0, DAY_MS))),
            ("s3://b/2025/01/01/t/2026/11/21/a", Some((0, DAY_MS))),
            ("s3://b/2026/11/21/99/a", Some((0, DAY_MS))),
            ("s3://b/2026/11/a", None),
            ("s3://b/2026/13/21/a", None),
            ("s3://b/a-2026-11-21.gz", None),
            ("2026-11-21", None),
        ] {
            let want = want.map(|(hour, len)| (day + hour * HOUR_MS, len));
            assert_eq!(date_of(name), want, "{name}");
        }
    }

    #[test]
    fn a_period_has_its_beginning_and_not_its_end() {
        let name = |hour: u32| format!("s3://b/2026/11/21/{hour:02}/a");
        let chosen = |args: &PeriodArgs| -> Vec<u32> {
            (0..24).filter(|&hour| args.chooses(&name(hour)).expect("a date")).collect()
        };
        let hours = args("2026-11-21T05:00:00Z", "2026-11-21T07:00:00Z", None);
        assert_eq!(chosen(&hours), [5, 6]);
        let within = args("2026-11-21T05:30:00Z", "2026-11-21T06:30:00+00:00", None);
        assert_eq!(chosen(&within), [5, 6], "what may have a record of it");
        assert_eq!(chosen(&args("2026-11-21", "2026-11-22", None)).len(), 24);
        assert!(chosen(&args("2026-11-22", "", None)).is_empty());
        assert!(chosen(&args("", "2026-11-21", None)).is_empty());
        assert_eq!(chosen(&args("2026-11-22", "", Some("/t"))).len(), 24, "records may be late");
        assert_eq!(args("2026-11-22", "", None).chooses("s3://b/a"), None);
        assert_eq!(args("2026-11-22", "", Some("/t")).chooses("s3://b/a"), Some(true));
        assert_eq!(args("", "", None).chooses("s3://b/a"), Some(true));
        for (text, want) in [("2026-11-21T10:00:00", "no zone"), ("soon", "neither a date")] {
            let said = text.parse::<Instant>().expect_err("no time");
            assert!(said.contains(want), "{said}");
        }
    }
}
