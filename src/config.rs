//! The environment, parsed once. A name that is missing or a value that can't be fails the cold
//! start with an error that names it.
//!
//! | variable | value | default |
//! |---|---|---|
//! | `MODEL_URI` | `s3://bucket/key` or `file:///path`, or a JSON object of topics to these, `{"orders": "s3://…", "*": "s3://…"}` | required |
//! | `RESULTS` | `all`: every verdict; `anomalies`: those and one summary a batch; `none` | `anomalies` |
//! | `RESULTS_URI` | `dynamodb://table` or `file:///path.jsonl` | required, but with `RESULTS=none` |
//! | `RESULTS_TTL_DAYS` | 0 to 36500: days after which DynamoDB may delete an item, 0 for never | `30` |
//! | `DEAD_LETTERS_URI` | URL of a standard SQS queue (`https://…`, `http://…`) or `file:///path.jsonl` | required |
//! | `DEAD_LETTERS_S3_URI` | `s3://bucket/prefix` for the bytes of dead letters that SQS has no room for | such records are reported failed |
//! | `ALERTS_URI` | ARN of an SNS topic (`arn:aws:sns:…`) or `file:///path.jsonl` that is told of anomalies | nobody is told |
//! | `ALERT_MAX_ANOMALIES` | 1 to 100: most anomalies that one alert shows | `10` |
//! | `ALERT_COOLDOWN_SECS` | 0 to 86400: how long a topic is quiet after an alert about it | `300` |
//! | `MODEL_REFRESH_SECS` | 0 to 86400: how often a warm function looks for a new model; 0 is never | `300` |
//! | `PARTIAL_BATCH` | `true` or `false`: answer with the records that failed, instead of failing the whole batch. The mapping must have `ReportBatchItemFailures`, for Kafka in provisioned mode | `false` |
//! | `LOG_FIELDS` | `true` or `false`: log anomalies with their features, and let libraries log below INFO, where they quote records | `false` |
//! | `MODEL_MAX_AGE_SECS` | 1 to 315360000: age beyond which a model is stale | never |
//! | `FALLBACK` | `endpoint`, `local` or `fail`: what is done when a model can't be trusted; or by reason | `stale=endpoint,missing=endpoint,suspect=local` |
//! | `FEATURES_URI` | `s3://bucket/key` or `file:///path` of a specification, by which records are read while their model is missing | a missing model fails the cold start |
//! | `ENDPOINT_NAME` | a SageMaker endpoint that stands in for a model that can't be trusted | none |
//! | `ENDPOINT_VARIANT` | the variant of it that is called | by weight |
//! | `ENDPOINT_FORMAT` | `csv` or `json`: how rows are written | `csv` |
//! | `ENDPOINT_ROWS` | `points`: what the forest sees; `values`: what the record has | `points` |
//! | `ENDPOINT_CHUNK_ROWS` | 1 to 100000: most rows of one call | `1000` |
//! | `ENDPOINT_MAX_BYTES` | 1024 to 6291456: most bytes of one request; serverless endpoints take 4194304 | `6291456` |
//! | `ENDPOINT_IN_FLIGHT` | 1 to 64: most calls of a batch at the same time | `4` |
//! | `ENDPOINT_TIMEOUT_MS` | 1 to 60000: how long one try of a call may take | `5000` |
//! | `ENDPOINT_CALLS_PER_SEC` | 0.001 to 10000: most calls a second of a warm function | no limit |
//! | `ENDPOINT_COOLDOWN_SECS` | 0 to 3600: how long an endpoint that failed three times is left alone | `30` |
//! | `ENDPOINT_THRESHOLD` | the endpoint's score above which a record is an anomaly | the model's |
//! | `VALIDATE_SHARE` | 0 to 1: the share of records that are also scored by the endpoint, and compared; without an endpoint, of which the features alone are watched | `0` |
//! | `CAPTURE_URI` | `s3://bucket/prefix` or `file:///folder` for the compared pairs | nowhere |
//! | `DEADLINE_RESERVE_MS` | 100 to 60000: how long before the invocation's deadline work stops | `1000` |
//!
//! Required are all three places, since without one of them records would be lost. (Without results
//! there is nothing to lose: with `RESULTS=none` a table serves the alerts alone.) A `file` path is
//! absolute and taken as it stands, without percent-decoding.
//!
//! Read by others: `AWS_REGION`, credentials and `AWS_ENDPOINT_URL`, `AWS_ENDPOINT_URL_S3`,
//! `AWS_ENDPOINT_URL_DYNAMODB`, `AWS_ENDPOINT_URL_SQS`, `AWS_ENDPOINT_URL_SNS` by the AWS SDK (with one of the first two, S3
//! is addressed by path); `AWS_LAMBDA_LOG_FORMAT`, `AWS_LAMBDA_LOG_LEVEL` and `RUST_LOG` by the
//! binary.

mod endpoint;
mod forms;
#[cfg(test)]
mod tests;
mod validation;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;

pub use endpoint::{EndpointConfig, RowFormat, RowKind};
pub use forms::Refused;
use forms::{Flag, number, optional, required};

pub use validation::{CaptureUri, ValidationConfig};

use crate::trust::Policy;

/// Work stops this long before the deadline unless said otherwise: enough for calls in flight to be
/// dropped and 10,000 outcomes to be answered.
const DEADLINE_RESERVE_MS: u64 = 1000;
/// Less leaves no time to answer; more would keep a function with Lambda's usual time-outs from working
/// at all.
const DEADLINE_RESERVES_MS: RangeInclusive<u64> = 100..=60_000;

/// How often a warm function looks for a new model unless said otherwise: a check costs a GET that
/// finds nothing new, some 9,000 a month for an instance that is always warm.
const MODEL_REFRESH_SECS: u64 = 300;
/// Up to a day: no instance lives much longer than a few hours.
const MODEL_REFRESHES_SECS: RangeInclusive<u64> = 0..=86_400;
/// Days that items are kept unless said otherwise: a month to look into an anomaly.
const RESULTS_TTL_DAYS: u32 = 30;
/// Up to a hundred years; more is a slip of the hand.
const RESULTS_TTLS_DAYS: RangeInclusive<u32> = 0..=36_500;

/// Anomalies that an alert shows unless said otherwise: about a screen.
const ALERT_MAX_ANOMALIES: usize = 10;
/// Nobody reads more, and a message has room for some hundreds.
const ALERTS_MAX_ANOMALIES: RangeInclusive<usize> = 1..=100;
/// How long a topic is quiet after an alert unless said otherwise: what goes wrong seldom stops with
/// one batch, and a batch comes every second.
const ALERT_COOLDOWN_SECS: u64 = 300;
/// Up to a day.
const ALERT_COOLDOWNS_SECS: RangeInclusive<u64> = 0..=86_400;

/// What the function is told by its environment.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where the models are.
    pub models: ModelUris,
    /// Shortest time between two looks for a new model, in seconds; 0 for never.
    pub model_refresh_secs: u64,
    /// Where results go.
    pub results: ResultsUri,
    /// Which results go there.
    pub results_kept: Kept,
    /// Days after which DynamoDB may delete a result; 0 for never.
    pub results_ttl_days: u32,
    /// Where records go that can't be read.
    pub dead_letters: DeadLettersUri,
    /// Where the bytes of those records go that a message of SQS has no room for.
    pub dead_letters_s3: Option<S3Prefix>,
    /// Who is told of anomalies; none for nobody.
    pub alerts: Option<AlertsUri>,
    /// Most anomalies that one alert shows.
    pub alert_max_anomalies: usize,
    /// How long a topic is quiet after an alert about it, in seconds.
    pub alert_cooldown_secs: u64,
    /// The SageMaker endpoint that stands in for a model, if there is one.
    pub endpoint: Option<EndpointConfig>,
    /// What is done when a model can't be trusted.
    pub fallback: Policy,
    /// Age of a model, in seconds since it was published, beyond which it is stale; none for never.
    pub model_max_age_secs: Option<u64>,
    /// Where the specification is by which records are read while their model is missing.
    pub features: Option<ModelUri>,
    /// Which records are also looked at.
    pub validation: ValidationConfig,
    /// True to answer with the records that failed, instead of failing the invocation.
    pub partial_batch: bool,
    /// True to log anomalies with their features.
    pub log_fields: bool,
    /// How long before the deadline work stops, in milliseconds.
    pub deadline_reserve_ms: u64,
    /// True to put the bucket in S3's path instead of its host name, as local servers need it.
    pub s3_path_style: bool,
}

/// Where the models are: one for all records, or by topic. What a topic is to Kafka is for Kinesis the
/// stream, for S3 the bucket, for SQS the queue, for a direct invocation what it gives as `model`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModelUris {
    /// Models of single topics.
    pub by_topic: BTreeMap<String, ModelUri>,
    /// The model of every other topic.
    pub otherwise: Option<ModelUri>,
}

impl From<ModelUri> for ModelUris {
    /// One model for all.
    fn from(uri: ModelUri) -> Self {
        Self { by_topic: BTreeMap::new(), otherwise: Some(uri) }
    }
}

/// Where a model is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ModelUri {
    /// `s3://bucket/key`
    S3 {
        /// The bucket.
        bucket: String,
        /// The key, without a leading slash.
        key: String,
    },
    /// `file:///path`
    File(PathBuf),
}

/// Which results are kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Kept {
    /// Every record's verdict.
    All,
    /// The verdicts on anomalies, and a summary of each batch.
    #[default]
    Anomalies,
    /// None.
    Nothing,
}

/// Where results go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResultsUri {
    /// Not given, which [`Kept::Nothing`] alone allows.
    Nowhere,
    /// `dynamodb://table`
    DynamoDb {
        /// The table.
        table: String,
    },
    /// `file:///path.jsonl`
    File(PathBuf),
}

/// Where records go that can't be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeadLettersUri {
    /// The URL of a standard queue.
    Sqs {
        /// The URL as SQS gives it.
        queue_url: String,
    },
    /// `file:///path.jsonl`
    File(PathBuf),
}

/// Who is told of anomalies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AlertsUri {
    /// The ARN of a topic.
    Sns {
        /// The ARN as SNS gives it.
        topic_arn: String,
        /// The region that is in it.
        region: String,
    },
    /// `file:///path`
    File(PathBuf),
}

/// A place for objects in S3, `s3://bucket/prefix`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Prefix {
    /// The bucket.
    pub bucket: String,
    /// What keys begin with: empty, or with a slash at its end.
    pub prefix: String,
}

/// A variable that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Not set, or empty.
    #[error("environment variable {name} is not set; expected {expected}")]
    Missing {
        /// The variable.
        name: &'static str,
        /// What it may be.
        expected: &'static str,
    },
    /// Set, and of no use without others.
    #[error("environment variable {name} is set, which needs {needs}")]
    Needs {
        /// The variable.
        name: &'static str,
        /// What it needs.
        needs: &'static str,
    },
    /// Set to something else.
    #[error("environment variable {name} is `{value}`; expected {expected}")]
    Malformed {
        /// The variable.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        expected: Cow<'static, str>,
    },
}

impl ConfigError {
    /// The variable.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Missing { name, .. }
            | Self::Needs { name, .. }
            | Self::Malformed { name, .. } => name,
        }
    }
}

impl Config {
    /// Reads the process's environment.
    ///
    /// # Errors
    /// [`ConfigError`] for the first variable that is missing or malformed.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::from_vars(|name| {
            // Bytes that aren't UTF-8 are shown in the error rather than taken for "not set".
            std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
        })
    }

    /// Reads variables from a lookup.
    ///
    /// # Errors
    /// As [`Config::from_env`].
    pub fn from_vars(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let get = |name: &str| lookup(name).filter(|value| !value.is_empty());
        let is_set = |name: &str| get(name).is_some();
        let models: ModelUris = required("MODEL_URI", &get)?;
        let results_kept = optional("RESULTS", &get)?.unwrap_or_default();
        let results = match results_kept {
            Kept::Nothing => optional("RESULTS_URI", &get)?.unwrap_or(ResultsUri::Nowhere),
            Kept::All | Kept::Anomalies => required("RESULTS_URI", &get)?,
        };
        let dead_letters = required("DEAD_LETTERS_URI", &get)?;
        let default = Self::new(models, results, dead_letters);
        let endpoint = EndpointConfig::from_vars(&get)?;
        Ok(Self {
            dead_letters_s3: optional("DEAD_LETTERS_S3_URI", &get)?,
            alerts: optional("ALERTS_URI", &get)?,
            alert_max_anomalies: number(
                "ALERT_MAX_ANOMALIES",
                "anomalies",
                ALERTS_MAX_ANOMALIES,
                default.alert_max_anomalies,
                &get,
            )?,
            alert_cooldown_secs: number(
                "ALERT_COOLDOWN_SECS",
                "seconds",
                ALERT_COOLDOWNS_SECS,
                default.alert_cooldown_secs,
                &get,
            )?,
            model_refresh_secs: number(
                "MODEL_REFRESH_SECS",
                "seconds",
                MODEL_REFRESHES_SECS,
                default.model_refresh_secs,
                &get,
            )?,
            results_kept,
            results_ttl_days: number(
                "RESULTS_TTL_DAYS",
                "days",
                RESULTS_TTLS_DAYS,
                default.results_ttl_days,
                &get,
            )?,
            fallback: optional("FALLBACK", &get)?.unwrap_or_default(),
            model_max_age_secs: endpoint::model_max_age_secs(&get)?,
            features: endpoint::features_uri(endpoint.as_ref(), &get)?,
            validation: ValidationConfig::from_vars(endpoint.is_some(), &get)?,
            endpoint,
            partial_batch: optional("PARTIAL_BATCH", &get)?.is_some_and(|Flag(flag)| flag),
            log_fields: optional("LOG_FIELDS", &get)?.is_some_and(|Flag(flag)| flag),
            deadline_reserve_ms: number(
                "DEADLINE_RESERVE_MS",
                "milliseconds",
                DEADLINE_RESERVES_MS,
                default.deadline_reserve_ms,
                &get,
            )?,
            s3_path_style: is_s3_path_style(is_set),
            ..default
        })
    }

    /// True if S3 is to be addressed by path, by the process's environment.
    pub fn s3_path_style_from_env() -> bool {
        is_s3_path_style(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
    }

    /// The three places that have no default, and the defaults of everything else.
    pub fn new(
        models: impl Into<ModelUris>,
        results: ResultsUri,
        dead_letters: DeadLettersUri,
    ) -> Self {
        Self {
            models: models.into(),
            model_refresh_secs: MODEL_REFRESH_SECS,
            results,
            results_kept: Kept::default(),
            results_ttl_days: RESULTS_TTL_DAYS,
            dead_letters,
            dead_letters_s3: None,
            alerts: None,
            alert_max_anomalies: ALERT_MAX_ANOMALIES,
            alert_cooldown_secs: ALERT_COOLDOWN_SECS,
            endpoint: None,
            fallback: Policy::default(),
            model_max_age_secs: None,
            features: None,
            validation: ValidationConfig::default(),
            partial_batch: false,
            log_fields: false,
            deadline_reserve_ms: DEADLINE_RESERVE_MS,
            s3_path_style: false,
        }
    }
}

/// Another endpoint than AWS's own has no host for each bucket.
fn is_s3_path_style(is_set: impl Fn(&str) -> bool) -> bool {
    is_set("AWS_ENDPOINT_URL_S3") || is_set("AWS_ENDPOINT_URL")
}
