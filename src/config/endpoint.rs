//! The variables of the SageMaker endpoint, and of when it takes a model's place. Without
//! `ENDPOINT_NAME` there is none, and the others that begin so are not read.

use std::str::FromStr;

use super::forms::{Parsed, Refused, number, optional, optional_number};
use super::{ConfigError, ModelUri};
pub use crate::content::RowKind;
use crate::trust::Policy;

/// Rows of one call unless said otherwise: what a container scores in some tens of milliseconds, and a
/// hundredth of what a request has room for.
const CHUNK_ROWS: usize = 1000;
/// More would not fit a request.
const MAX_CHUNK_ROWS: usize = 100_000;
/// Bytes of one request unless said otherwise: SageMaker's limit. Serverless endpoints take 4 MB.
const MAX_BYTES: usize = 6 << 20;
/// A request of less has no room for a row of a few features.
const LEAST_MAX_BYTES: usize = 1024;
/// Calls at the same time unless said otherwise: enough to keep one instance at work.
const IN_FLIGHT: usize = 4;
/// More than endpoints of a few instances answer, each with a request in memory.
const MAX_IN_FLIGHT: usize = 64;
/// One try unless said otherwise: an endpoint that has not answered by then is queueing.
const TIMEOUT_MS: u64 = 5000;
/// SageMaker's own limit.
const MAX_TIMEOUT_MS: u64 = 60_000;
/// How long an endpoint that failed is left alone unless said otherwise.
const COOLDOWN_SECS: u64 = 30;
/// An hour; whoever wants longer wants no endpoint.
const MAX_COOLDOWN_SECS: u64 = 3600;
/// Calls a second that are no limit any more.
const MAX_CALLS_PER_SEC: f64 = 10_000.0;
/// One call in a thousand seconds: less is none.
const MIN_CALLS_PER_SEC: f64 = 0.001;
/// Ten years: who wants a model for longer wants no limit.
const MAX_MODEL_MAX_AGE_SECS: u64 = 315_360_000;
/// SageMaker's own limit for a name.
const MAX_NAME_LEN: usize = 63;

/// An endpoint and how it is called.
#[derive(Debug, Clone, PartialEq)]
pub struct EndpointConfig {
    /// Its name.
    pub name: String,
    /// The variant that is called, instead of one by weight.
    pub variant: Option<String>,
    /// What rows are written as.
    pub format: RowFormat,
    /// What a row is.
    pub rows: RowKind,
    /// Most rows of one call.
    pub chunk_rows: usize,
    /// Most bytes of one request.
    pub max_bytes: usize,
    /// Most calls of one batch at the same time.
    pub in_flight: usize,
    /// How long one try of a call may take, in milliseconds.
    pub timeout_ms: u64,
    /// Most calls a second, over all invocations of a warm function; none for no limit.
    pub calls_per_sec: Option<f64>,
    /// How long an endpoint that failed again and again is left alone, in seconds.
    pub cooldown_secs: u64,
    /// The endpoint's score above which a record is an anomaly, instead of the model's own.
    pub threshold: Option<f64>,
}

/// What rows are written as.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RowFormat {
    /// `text/csv`
    #[default]
    Csv,
    /// `application/json`
    Json,
}

impl EndpointConfig {
    /// An endpoint with the defaults of everything else.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            variant: None,
            format: RowFormat::default(),
            rows: RowKind::default(),
            chunk_rows: CHUNK_ROWS,
            max_bytes: MAX_BYTES,
            in_flight: IN_FLIGHT,
            timeout_ms: TIMEOUT_MS,
            calls_per_sec: None,
            cooldown_secs: COOLDOWN_SECS,
            threshold: None,
        }
    }

    /// The endpoint of this name; how it is called is read from the process's environment, as the
    /// Lambda reads it.
    ///
    /// # Errors
    /// [`ConfigError`] for a name or a variable that is malformed.
    pub fn from_env(name: &str) -> Result<Self, ConfigError> {
        let found = Self::from_vars(&|variable: &str| match variable {
            "ENDPOINT_NAME" => Some(name.to_owned()),
            _ => std::env::var(variable).ok().filter(|value| !value.is_empty()),
        })?;
        found.ok_or(ConfigError::Missing { name: "ENDPOINT_NAME", expected: Name::EXPECTED })
    }

    /// Reads variables from a lookup; `None` without `ENDPOINT_NAME`.
    pub(super) fn from_vars(
        get: &impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, ConfigError> {
        let Some(Name(name)) = optional("ENDPOINT_NAME", get)? else { return Ok(None) };
        let default = Self::new(name);
        let calls_per_sec = MIN_CALLS_PER_SEC..=MAX_CALLS_PER_SEC;
        Ok(Some(Self {
            variant: optional("ENDPOINT_VARIANT", get)?.map(|Name(name)| name),
            format: optional("ENDPOINT_FORMAT", get)?.unwrap_or_default(),
            rows: optional("ENDPOINT_ROWS", get)?.unwrap_or_default(),
            chunk_rows: number(
                "ENDPOINT_CHUNK_ROWS",
                "rows",
                1..=MAX_CHUNK_ROWS,
                default.chunk_rows,
                get,
            )?,
            max_bytes: number(
                "ENDPOINT_MAX_BYTES",
                "bytes",
                LEAST_MAX_BYTES..=MAX_BYTES,
                default.max_bytes,
                get,
            )?,
            in_flight: number(
                "ENDPOINT_IN_FLIGHT",
                "calls",
                1..=MAX_IN_FLIGHT,
                default.in_flight,
                get,
            )?,
            timeout_ms: number(
                "ENDPOINT_TIMEOUT_MS",
                "milliseconds",
                1..=MAX_TIMEOUT_MS,
                default.timeout_ms,
                get,
            )?,
            calls_per_sec: optional_number(
                "ENDPOINT_CALLS_PER_SEC",
                "calls a second",
                calls_per_sec,
                get,
            )?,
            cooldown_secs: number(
                "ENDPOINT_COOLDOWN_SECS",
                "seconds",
                0..=MAX_COOLDOWN_SECS,
                default.cooldown_secs,
                get,
            )?,
            threshold: optional("ENDPOINT_THRESHOLD", get)?.map(|Threshold(score)| score),
            ..default
        }))
    }
}

/// `MODEL_MAX_AGE_SECS`, if a model can be stale at all.
pub(super) fn model_max_age_secs(
    get: &impl Fn(&str) -> Option<String>,
) -> Result<Option<u64>, ConfigError> {
    optional_number("MODEL_MAX_AGE_SECS", "seconds", 1..=MAX_MODEL_MAX_AGE_SECS, get)
}

/// `FEATURES_URI`, if what it needs is there: an endpoint that takes values, and a threshold that is
/// not the missing model's.
pub(super) fn features_uri(
    endpoint: Option<&EndpointConfig>,
    get: &impl Fn(&str) -> Option<String>,
) -> Result<Option<ModelUri>, ConfigError> {
    let name = "FEATURES_URI";
    let Some(FeaturesUri(uri)) = optional(name, get)? else { return Ok(None) };
    let needs = match endpoint {
        None => "ENDPOINT_NAME",
        Some(endpoint) if endpoint.rows != RowKind::Values => "ENDPOINT_ROWS=values",
        Some(endpoint) if endpoint.threshold.is_none() => "ENDPOINT_THRESHOLD",
        Some(_) => return Ok(Some(uri)),
    };
    Err(ConfigError::Needs { name, needs })
}

struct FeaturesUri(ModelUri);

impl Parsed for FeaturesUri {
    const EXPECTED: &'static str = "s3://bucket/key or file:///path of a specification";
}

impl FromStr for FeaturesUri {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        text.parse().map(Self)
    }
}

impl Parsed for Policy {
    const EXPECTED: &'static str = "endpoint, local or fail, or a list like \
                                    stale=endpoint,missing=endpoint,suspect=local";
}

struct Name(String);

impl Parsed for Name {
    const EXPECTED: &'static str = "a name of letters, digits and hyphens, 1 to 63";
}

impl FromStr for Name {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let sound = text.len() <= MAX_NAME_LEN
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !text.starts_with('-')
            && !text.ends_with('-')
            && !text.is_empty();
        if sound { Ok(Self(text.to_owned())) } else { Err(Refused) }
    }
}

impl Parsed for RowFormat {
    const EXPECTED: &'static str = "csv or json";
}

impl FromStr for RowFormat {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        match text {
            "csv" => Ok(Self::Csv),
            "json" => Ok(Self::Json),
            _ => Err(Refused),
        }
    }
}

impl Parsed for RowKind {
    const EXPECTED: &'static str = "points or values";
}

impl FromStr for RowKind {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        match text {
            "points" => Ok(Self::Points),
            "values" => Ok(Self::Values),
            _ => Err(Refused),
        }
    }
}

struct Threshold(f64);

impl Parsed for Threshold {
    const EXPECTED: &'static str = "a score, 0 or more";
}

impl FromStr for Threshold {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let score = text.parse().ok().filter(|score| (0.0..=f64::MAX).contains(score));
        score.map(Self).ok_or(Refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(vars: &[(&str, &str)]) -> Result<Option<EndpointConfig>, ConfigError> {
        EndpointConfig::from_vars(&|name: &str| {
            let found = vars.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn a_name_alone_gives_the_defaults_and_without_one_there_is_no_endpoint() {
        let config = with(&[("ENDPOINT_NAME", "rcf-1")]).expect("sound");
        assert_eq!(config, Some(EndpointConfig::new("rcf-1")));
        assert_eq!(with(&[("ENDPOINT_FORMAT", "csv")]), Ok(None));
    }

    #[test]
    fn every_variable_is_read() {
        let config = with(&[
            ("ENDPOINT_NAME", "rcf"),
            ("ENDPOINT_VARIANT", "AllTraffic"),
            ("ENDPOINT_FORMAT", "json"),
            ("ENDPOINT_ROWS", "values"),
            ("ENDPOINT_CHUNK_ROWS", "10"),
            ("ENDPOINT_MAX_BYTES", "4194304"),
            ("ENDPOINT_IN_FLIGHT", "2"),
            ("ENDPOINT_TIMEOUT_MS", "700"),
            ("ENDPOINT_CALLS_PER_SEC", "0.5"),
            ("ENDPOINT_COOLDOWN_SECS", "0"),
            ("ENDPOINT_THRESHOLD", "1.25"),
        ]);
        let expected = EndpointConfig {
            name: "rcf".into(),
            variant: Some("AllTraffic".into()),
            format: RowFormat::Json,
            rows: RowKind::Values,
            chunk_rows: 10,
            max_bytes: 4 << 20,
            in_flight: 2,
            timeout_ms: 700,
            calls_per_sec: Some(0.5),
            cooldown_secs: 0,
            threshold: Some(1.25),
        };
        assert_eq!(config, Ok(Some(expected)));
    }

    #[test]
    fn a_malformed_variable_is_named_with_its_value() {
        for (name, value) in [
            ("ENDPOINT_NAME", "an endpoint"),
            ("ENDPOINT_NAME", "-a"),
            ("ENDPOINT_NAME", "arn:aws:sagemaker:eu-west-1:1:endpoint/a"),
            ("ENDPOINT_VARIANT", "a/b"),
            ("ENDPOINT_FORMAT", "text/csv"),
            ("ENDPOINT_ROWS", "both"),
            ("ENDPOINT_CHUNK_ROWS", "0"),
            ("ENDPOINT_CHUNK_ROWS", "100001"),
            ("ENDPOINT_MAX_BYTES", "1023"),
            ("ENDPOINT_MAX_BYTES", "6291457"),
            ("ENDPOINT_IN_FLIGHT", "0"),
            ("ENDPOINT_IN_FLIGHT", "65"),
            ("ENDPOINT_TIMEOUT_MS", "0"),
            ("ENDPOINT_TIMEOUT_MS", "60001"),
            ("ENDPOINT_CALLS_PER_SEC", "0"),
            ("ENDPOINT_CALLS_PER_SEC", "NaN"),
            ("ENDPOINT_CALLS_PER_SEC", "inf"),
            ("ENDPOINT_COOLDOWN_SECS", "3601"),
            ("ENDPOINT_THRESHOLD", "-1"),
            ("ENDPOINT_THRESHOLD", "NaN"),
        ] {
            let name_first = [(name, value), ("ENDPOINT_NAME", "rcf")];
            let error = with(&name_first).expect_err(value);
            let ConfigError::Malformed { name: got, value: shown, .. } = &error else {
                panic!("{name}={value}: {error:?}");
            };
            assert_eq!((*got, shown.as_str()), (name, value));
        }
    }
}
