//! A record that both scored, written down: the format of captures.
//!
//! One JSON object a line, always with the same keys in the same order, so that a batch delivered again
//! is captured as the same record (but for the times):
//!
//! ```json
//! {"id":"kafka/orders/3/12345","timestamp_ms":1545084650987,
//!  "local":{"model":"05ad4ba1…","score":1.91,"threshold":1.4,"anomaly":true,"ms":0.8,"rows":400},
//!  "endpoint":{"name":"rcf-prod","score":2.03,"threshold":1.5,"anomaly":true,"ms":14.2,"rows":20},
//!  "features":{"duration_ms":930250,"path":"/cart"}}
//! ```
//!
//! - `id` is the record's identity ([`Origin::identity`](crate::Origin::identity)); `timestamp_ms` is
//!   there when the record's time is known, in milliseconds since 1970.
//! - `threshold` and `anomaly` are each scorer's own at the time, and null where it has no threshold.
//! - `ms` is how long the scores of `rows` records took together, in milliseconds: locally those of the
//!   whole batch, of the endpoint the sampled ones.
//! - Where the endpoint gave no score, `error` says why and stands for the three keys of a decision:
//!   `"endpoint":{"name":"rcf-prod","error":"timed out","ms":2000.0,"rows":20}`.
//! - `features` are there with `LOG_FIELDS=true` only.
//!
//! A reader passes over keys that it doesn't know.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::agreement::{Flagged, Sample};

/// One sampled record.
#[derive(Debug, Clone, PartialEq)]
pub struct Pair<'a> {
    /// The record's identity, not empty.
    pub id: Cow<'a, str>,
    /// When the record was made, in milliseconds since 1970.
    pub timestamp_ms: Option<i64>,
    /// The model that scored it here.
    pub model: Cow<'a, str>,
    /// What it said.
    pub local: Decision,
    /// How long it took.
    pub local_time: Time,
    /// The endpoint's name.
    pub endpoint_name: Cow<'a, str>,
    /// What the endpoint said, or why it said nothing.
    pub endpoint: Result<Decision, Cow<'a, str>>,
    /// How long it took.
    pub endpoint_time: Time,
    /// The record's features as a JSON object.
    pub features: Option<Cow<'a, str>>,
}

/// A score and what follows from it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Decision {
    /// The score, finite.
    pub score: f32,
    /// The score above which a record is an anomaly, finite; none if it isn't known.
    pub threshold: Option<f64>,
}

impl Decision {
    /// True for a score above the threshold; none without one.
    pub fn is_anomaly(self) -> Option<bool> {
        self.threshold.map(|threshold| f64::from(self.score) > threshold)
    }
}

/// How long the scores of a number of records took together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Time {
    /// In milliseconds, 0 or more.
    pub ms: f64,
    /// The records.
    pub rows: usize,
}

/// Why a line is no pair.
#[derive(Debug, thiserror::Error)]
pub enum PairError {
    /// It is not such an object.
    #[error("not a captured pair: {what} at column {column}")]
    Json {
        /// What is wrong with it.
        what: String,
        /// Where.
        column: usize,
    },
    /// A part of it can't be.
    #[error("not a captured pair: {part} {fault}")]
    Part {
        /// The key, with those that it stands in.
        part: &'static str,
        /// What is wrong with it.
        fault: &'static str,
    },
}

#[derive(Serialize, Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp_ms: Option<i64>,
    #[serde(borrow)]
    local: LocalPart<'a>,
    #[serde(borrow)]
    endpoint: EndpointPart<'a>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    features: Option<&'a RawValue>,
}

#[derive(Serialize, Deserialize)]
struct LocalPart<'a> {
    #[serde(borrow)]
    model: Cow<'a, str>,
    score: f32,
    threshold: Option<f64>,
    anomaly: Option<bool>,
    ms: f64,
    rows: usize,
}

#[derive(Serialize, Deserialize)]
struct EndpointPart<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    decision: Option<DecisionPart>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    error: Option<Cow<'a, str>>,
    ms: f64,
    rows: usize,
}

#[derive(Serialize, Deserialize)]
struct DecisionPart {
    score: f32,
    threshold: Option<f64>,
    anomaly: Option<bool>,
}

impl From<Decision> for DecisionPart {
    fn from(decision: Decision) -> Self {
        let Decision { score, threshold } = decision;
        Self { score, threshold, anomaly: decision.is_anomaly() }
    }
}

/// What the parser says, but for what it quotes.
fn json_fault(error: &serde_json::Error) -> PairError {
    let said = error.to_string();
    let what = if said.starts_with("invalid type") || said.starts_with("invalid value") {
        let expected = said.split("expected ").nth(1).unwrap_or("another value");
        format!("expected {}", expected.split(" at line").next().unwrap_or_default())
    } else {
        said.split(" at line").next().unwrap_or_default().to_owned()
    };
    PairError::Json { what, column: error.column() }
}

fn decision(part: &'static str, score: f32, threshold: Option<f64>) -> Result<Decision, PairError> {
    // JSON has no NaN, but 1e99 is infinite as an f32.
    if !score.is_finite() || threshold.is_some_and(|threshold| !threshold.is_finite()) {
        return Err(PairError::Part { part, fault: "has a number that is not finite" });
    }
    Ok(Decision { score, threshold })
}

fn time(part: &'static str, ms: f64, rows: usize) -> Result<Time, PairError> {
    if ms.is_finite() && ms >= 0.0 {
        Ok(Time { ms, rows })
    } else {
        Err(PairError::Part { part, fault: "must be 0 or more" })
    }
}

impl<'a> Pair<'a> {
    /// Reads a line of a capture, without its end.
    ///
    /// # Errors
    /// [`PairError`] names the part that can't be; never a record's values.
    pub fn read(line: &'a [u8]) -> Result<Self, PairError> {
        let line: Line<'a> = serde_json::from_slice(line).map_err(|e| json_fault(&e))?;
        let Line { id, timestamp_ms, local, endpoint, features } = line;
        if id.is_empty() {
            return Err(PairError::Part { part: "`id`", fault: "is empty" });
        }
        let told = match (endpoint.decision, endpoint.error) {
            (Some(told), None) => Ok(decision("`endpoint`", told.score, told.threshold)?),
            (None, Some(error)) => Err(error),
            _ => {
                let fault = "must have either `score` (with `threshold` and `anomaly`) or `error`";
                return Err(PairError::Part { part: "`endpoint`", fault });
            }
        };
        Ok(Self {
            id,
            timestamp_ms,
            model: local.model,
            local: decision("`local`", local.score, local.threshold)?,
            local_time: time("`local.ms`", local.ms, local.rows)?,
            endpoint_name: endpoint.name,
            endpoint: told,
            endpoint_time: time("`endpoint.ms`", endpoint.ms, endpoint.rows)?,
            features: features.map(|features| Cow::Borrowed(features.get())),
        })
    }

    /// Writes the pair as a line, its end included.
    ///
    /// # Errors
    /// If `features` is not JSON, or for a writer that fails.
    pub fn write(&self, out: &mut impl std::io::Write) -> Result<(), serde_json::Error> {
        let (told, error) = match &self.endpoint {
            Ok(told) => (Some(DecisionPart::from(*told)), None),
            Err(error) => (None, Some(Cow::Borrowed(error.as_ref()))),
        };
        let features: Option<&RawValue> =
            self.features.as_deref().map(serde_json::from_str).transpose()?;
        let DecisionPart { score, threshold, anomaly } = self.local.into();
        let line = Line {
            id: Cow::Borrowed(&self.id),
            timestamp_ms: self.timestamp_ms,
            local: LocalPart {
                model: Cow::Borrowed(&self.model),
                score,
                threshold,
                anomaly,
                ms: self.local_time.ms,
                rows: self.local_time.rows,
            },
            endpoint: EndpointPart {
                name: Cow::Borrowed(&self.endpoint_name),
                decision: told,
                error,
                ms: self.endpoint_time.ms,
                rows: self.endpoint_time.rows,
            },
            features,
        };
        serde_json::to_writer(&mut *out, &line)?;
        out.write_all(b"\n").map_err(serde_json::Error::io)
    }

    /// The pair without the line that it was read from.
    pub fn into_owned(self) -> Pair<'static> {
        let own = |text: Cow<'a, str>| Cow::Owned(text.into_owned());
        Pair {
            id: own(self.id),
            timestamp_ms: self.timestamp_ms,
            model: own(self.model),
            local: self.local,
            local_time: self.local_time,
            endpoint_name: own(self.endpoint_name),
            endpoint: self.endpoint.map_err(own),
            endpoint_time: self.endpoint_time,
            features: self.features.map(own),
        }
    }

    /// The pair as it is compared; `None` if the endpoint gave no score.
    pub fn sample(&self) -> Option<Sample> {
        let told = self.endpoint.as_ref().ok()?;
        let both = self.local.is_anomaly().zip(told.is_anomaly());
        let flagged = both.map(|(local, endpoint)| Flagged { local, endpoint });
        Some(Sample { local: self.local.score, endpoint: told.score, flagged })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> Pair<'static> {
        Pair {
            id: "kafka/orders/3/12345".into(),
            timestamp_ms: Some(5),
            model: "05ad".into(),
            local: Decision { score: 1.5, threshold: Some(1.0) },
            local_time: Time { ms: 0.5, rows: 400 },
            endpoint_name: "rcf".into(),
            endpoint: Ok(Decision { score: 0.5, threshold: None }),
            endpoint_time: Time { ms: 14.25, rows: 20 },
            features: Some(r#"{"ms":930250}"#.into()),
        }
    }

    fn text(pair: &Pair<'_>) -> String {
        let mut out = Vec::new();
        pair.write(&mut out).expect("written");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn a_pair_is_read_as_it_was_written() {
        let line = text(&pair());
        let expected = concat!(
            r#"{"id":"kafka/orders/3/12345","timestamp_ms":5,"local":{"model":"05ad","score":1.5,"#,
            r#""threshold":1.0,"anomaly":true,"ms":0.5,"rows":400},"endpoint":{"name":"rcf","#,
            r#""score":0.5,"threshold":null,"anomaly":null,"ms":14.25,"rows":20},"#,
            r#""features":{"ms":930250}}"#,
            "\n"
        );
        assert_eq!(line, expected);
        assert_eq!(Pair::read(line.trim_end().as_bytes()).expect("a pair"), pair());
        let failed = Pair {
            endpoint: Err("timed out \"here\"".into()),
            timestamp_ms: None,
            features: None,
            ..pair()
        };
        let line = text(&failed);
        assert!(
            line.contains(r#""endpoint":{"name":"rcf","error":"timed out \"here\"","ms":14.25"#)
        );
        assert_eq!(Pair::read(line.trim_end().as_bytes()).expect("a pair"), failed);
        assert_eq!(failed.sample(), None);
    }

    #[test]
    fn both_decisions_are_known_or_none() {
        let sample = pair().sample().expect("two scores");
        assert_eq!((sample.local, sample.endpoint, sample.flagged), (1.5, 0.5, None));
        let endpoint = Ok(Decision { score: 0.5, threshold: Some(0.5) });
        let flagged = Pair { endpoint, ..pair() }.sample().expect("two scores").flagged;
        assert_eq!(flagged, Some(Flagged { local: true, endpoint: false }));
    }

    #[test]
    fn what_is_no_pair_is_refused_without_its_values() {
        let good = text(&pair());
        for (what, with, said) in [
            (r#""score":1.5"#, r#""score":1e99"#, "`local` has a number that is not finite"),
            (r#""score":0.5"#, r#""error":"x","score":0.5"#, "`endpoint` must have either"),
            (r#""score":0.5,"threshold":null,"anomaly":null,"#, "", "`endpoint` must have either"),
            (r#""ms":0.5"#, r#""ms":-1"#, "`local.ms` must be 0 or more"),
            (r#"kafka/orders/3/12345"#, "", "`id` is empty"),
            (r#""score":1.5"#, r#""score":"secret""#, "expected f32"),
            (r#"{"id""#, r#""id""#, "not a captured pair: "),
        ] {
            let bad = good.replacen(what, with, 1);
            assert_ne!(bad, good, "{what}");
            let error = Pair::read(bad.trim_end().as_bytes()).expect_err(&bad).to_string();
            assert!(error.contains(said), "expected {said:?}, got {error:?}");
            assert!(!error.contains("secret"), "{error}");
        }
        assert!(Pair::read(b"\xff\xfe").is_err() && Pair::read(b"").is_err());
    }
}
