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

use std::collections::BTreeMap;
mod endpoint;

use std::collections::btree_map::Entry;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};

pub use endpoint::{EndpointConfig, RowFormat, RowKind};

/// Work stops this long before the deadline unless said otherwise: enough for calls in flight to be
/// dropped and 10,000 outcomes to be answered.
const DEADLINE_RESERVE_MS: u64 = 1000;
/// Less leaves no time to answer.
const MIN_DEADLINE_RESERVE_MS: u64 = 100;
/// More would keep a function with Lambda's usual time-outs from working at all.
const MAX_DEADLINE_RESERVE_MS: u64 = 60_000;

/// How often a warm function looks for a new model unless said otherwise: a check costs a GET that
/// finds nothing new, some 9,000 a month for an instance that is always warm.
const MODEL_REFRESH_SECS: u64 = 300;
/// No instance lives much longer than a few hours.
const MAX_MODEL_REFRESH_SECS: u64 = 86_400;
/// Days that items are kept unless said otherwise: a month to look into an anomaly.
const RESULTS_TTL_DAYS: u32 = 30;
/// A hundred years; more is a slip of the hand.
const MAX_RESULTS_TTL_DAYS: u32 = 36_500;

/// Anomalies that an alert shows unless said otherwise: about a screen.
const ALERT_MAX_ANOMALIES: usize = 10;
/// Nobody reads more, and a message has room for some hundreds.
const MAX_ALERT_MAX_ANOMALIES: usize = 100;
/// How long a topic is quiet after an alert unless said otherwise: what goes wrong seldom stops with
/// one batch, and a batch comes every second.
const ALERT_COOLDOWN_SECS: u64 = 300;
/// A day.
const MAX_ALERT_COOLDOWN_SECS: u64 = 86_400;

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
    /// True to answer with the records that failed, instead of failing the invocation.
    pub partial_batch: bool,
    /// True to log anomalies with their features.
    pub log_fields: bool,
    /// How long before the deadline work stops, in milliseconds.
    pub deadline_reserve_ms: u64,
    /// True to put the bucket in S3's path instead of its host name, as local servers need it.
    pub s3_path_style: bool,
}

/// The topic that stands for all that have no model of their own.
const ANY_TOPIC: &str = "*";

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
    /// Set to something else.
    #[error("environment variable {name} is `{value}`; expected {expected}")]
    Malformed {
        /// The variable.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        expected: &'static str,
    },
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
        Ok(Self {
            dead_letters_s3: optional("DEAD_LETTERS_S3_URI", &get)?,
            alerts: optional("ALERTS_URI", &get)?,
            alert_max_anomalies: optional("ALERT_MAX_ANOMALIES", &get)?
                .map_or(default.alert_max_anomalies, |MaxAnomalies(count)| count),
            alert_cooldown_secs: optional("ALERT_COOLDOWN_SECS", &get)?
                .map_or(default.alert_cooldown_secs, |CooldownSecs(secs)| secs),
            model_refresh_secs: optional("MODEL_REFRESH_SECS", &get)?
                .map_or(default.model_refresh_secs, |RefreshSecs(secs)| secs),
            results_kept,
            results_ttl_days: optional("RESULTS_TTL_DAYS", &get)?
                .map_or(default.results_ttl_days, |TtlDays(days)| days),
            endpoint: EndpointConfig::from_vars(&get)?,
            partial_batch: optional("PARTIAL_BATCH", &get)?.is_some_and(|Flag(flag)| flag),
            log_fields: optional("LOG_FIELDS", &get)?.is_some_and(|Flag(flag)| flag),
            deadline_reserve_ms: optional("DEADLINE_RESERVE_MS", &get)?
                .map_or(default.deadline_reserve_ms, |ReserveMs(ms)| ms),
            s3_path_style: is_set("AWS_ENDPOINT_URL_S3") || is_set("AWS_ENDPOINT_URL"),
            ..default
        })
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
            partial_batch: false,
            log_fields: false,
            deadline_reserve_ms: DEADLINE_RESERVE_MS,
            s3_path_style: false,
        }
    }
}

/// A value that says what it expects to be written as.
trait Parsed: FromStr<Err = Refused> {
    const EXPECTED: &'static str;
}

/// Not what was expected; the variable's name, value and expectation say the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not in a form that is known")]
pub struct Refused;

fn required<T: Parsed>(
    name: &'static str,
    get: &impl Fn(&str) -> Option<String>,
) -> Result<T, ConfigError> {
    optional(name, get)?.ok_or(ConfigError::Missing { name, expected: T::EXPECTED })
}

fn optional<T: Parsed>(
    name: &'static str,
    get: &impl Fn(&str) -> Option<String>,
) -> Result<Option<T>, ConfigError> {
    let Some(value) = get(name) else { return Ok(None) };
    match value.parse() {
        Ok(parsed) => Ok(Some(parsed)),
        Err(Refused) => Err(ConfigError::Malformed { name, value, expected: T::EXPECTED }),
    }
}

impl Parsed for ModelUris {
    const EXPECTED: &'static str = "s3://bucket/key or file:///path, or a json object with one of \
                                    these for each topic, \"*\" for all others";
}

impl FromStr for ModelUris {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        if text.trim_start().starts_with('{') {
            serde_json::from_str(text).map_err(|_| Refused)
        } else {
            text.parse::<ModelUri>().map(Self::from)
        }
    }
}

impl<'de> Deserialize<'de> for ModelUris {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ByTopic;
        impl<'de> Visitor<'de> for ByTopic {
            type Value = ModelUris;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of topics to uris")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ModelUris, A::Error> {
                let mut by_topic = BTreeMap::new();
                while let Some((topic, uri)) = map.next_entry::<String, String>()? {
                    let uri: ModelUri = uri.parse().map_err(A::Error::custom)?;
                    // Of a topic that is named twice, one would be scored with the wrong model.
                    match by_topic.entry(topic) {
                        Entry::Vacant(free) => free.insert(uri),
                        Entry::Occupied(_) => return Err(A::Error::custom("a topic twice")),
                    };
                }
                let otherwise = by_topic.remove(ANY_TOPIC);
                if otherwise.is_none() && by_topic.is_empty() {
                    return Err(A::Error::custom("no model"));
                }
                Ok(ModelUris { by_topic, otherwise })
            }
        }
        deserializer.deserialize_map(ByTopic)
    }
}

impl FromStr for ModelUri {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let Some(rest) = text.strip_prefix("s3://") else {
            return file_path(text).map(Self::File);
        };
        match rest.split_once('/') {
            Some((bucket, key)) if is_bucket(bucket) && !key.is_empty() => {
                Ok(Self::S3 { bucket: bucket.to_owned(), key: key.to_owned() })
            }
            _ => Err(Refused),
        }
    }
}

impl Parsed for Kept {
    const EXPECTED: &'static str = "all, anomalies or none";
}

impl FromStr for Kept {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        match text {
            "all" => Ok(Self::All),
            "anomalies" => Ok(Self::Anomalies),
            "none" => Ok(Self::Nothing),
            _ => Err(Refused),
        }
    }
}

impl Parsed for ResultsUri {
    const EXPECTED: &'static str = "dynamodb://table or file:///path.jsonl";
}

impl FromStr for ResultsUri {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        match text.strip_prefix("dynamodb://") {
            Some(table) if is_table(table) => Ok(Self::DynamoDb { table: table.to_owned() }),
            Some(_) => Err(Refused),
            None => file_path(text).map(Self::File),
        }
    }
}

impl Parsed for DeadLettersUri {
    const EXPECTED: &'static str =
        "the url of a standard SQS queue (https://host/account/queue) or file:///path.jsonl";
}

impl FromStr for DeadLettersUri {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let Some(rest) = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"))
        else {
            return file_path(text).map(Self::File);
        };
        // A FIFO queue would want a group for every message.
        let sound = rest.split_once('/').is_some_and(|(host, path)| {
            !host.is_empty() && !path.is_empty() && !path.ends_with(".fifo")
        });
        if sound && rest.bytes().all(|byte| byte.is_ascii_graphic()) {
            Ok(Self::Sqs { queue_url: text.to_owned() })
        } else {
            Err(Refused)
        }
    }
}

impl Parsed for S3Prefix {
    const EXPECTED: &'static str = "s3://bucket/prefix";
}

impl FromStr for S3Prefix {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let rest = text.strip_prefix("s3://").ok_or(Refused)?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
        // The hash that a key ends with wants its place within S3's 1024 bytes, and the whole is
        // written into JSON and read back.
        let sound = prefix.len() <= 512 && prefix.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_bucket(bucket) || !sound || prefix.starts_with('/') {
            return Err(Refused);
        }
        let slash = if prefix.is_empty() { "" } else { "/" };
        Ok(Self { bucket: bucket.to_owned(), prefix: format!("{prefix}{slash}") })
    }
}

impl Parsed for AlertsUri {
    const EXPECTED: &'static str =
        "the arn of an SNS topic (arn:aws:sns:region:account:topic) or file:///path.jsonl";
}

impl FromStr for AlertsUri {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        if !text.starts_with("arn:") {
            return file_path(text).map(Self::File);
        }
        let parts: Vec<&str> = text.split(':').collect();
        let ["arn", partition, "sns", region, account, topic] = parts[..] else {
            return Err(Refused);
        };
        let sound = |part: &str| !part.is_empty() && part.bytes().all(is_name_byte);
        if partition.starts_with("aws")
            && [partition, region, account, topic].into_iter().all(sound)
        {
            Ok(Self::Sns { topic_arn: text.to_owned(), region: region.to_owned() })
        } else {
            Err(Refused)
        }
    }
}

struct MaxAnomalies(usize);

impl Parsed for MaxAnomalies {
    const EXPECTED: &'static str = "anomalies, 1 to 100";
}

impl FromStr for MaxAnomalies {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        match text.parse() {
            Ok(count @ 1..=MAX_ALERT_MAX_ANOMALIES) => Ok(Self(count)),
            _ => Err(Refused),
        }
    }
}

struct CooldownSecs(u64);

impl Parsed for CooldownSecs {
    const EXPECTED: &'static str = "seconds, 0 to 86400";
}

impl FromStr for CooldownSecs {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        match text.parse() {
            Ok(secs @ 0..=MAX_ALERT_COOLDOWN_SECS) => Ok(Self(secs)),
            _ => Err(Refused),
        }
    }
}

struct Flag(bool);

impl Parsed for Flag {
    const EXPECTED: &'static str = "true or false";
}

impl FromStr for Flag {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        text.parse().map(Self).map_err(|_| Refused)
    }
}

struct ReserveMs(u64);

impl Parsed for ReserveMs {
    const EXPECTED: &'static str = "milliseconds, 100 to 60000";
}

impl FromStr for ReserveMs {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        match text.parse() {
            Ok(ms @ MIN_DEADLINE_RESERVE_MS..=MAX_DEADLINE_RESERVE_MS) => Ok(Self(ms)),
            _ => Err(Refused),
        }
    }
}

struct RefreshSecs(u64);

impl Parsed for RefreshSecs {
    const EXPECTED: &'static str = "seconds, 0 to 86400";
}

impl FromStr for RefreshSecs {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        match text.parse() {
            Ok(secs @ 0..=MAX_MODEL_REFRESH_SECS) => Ok(Self(secs)),
            _ => Err(Refused),
        }
    }
}

struct TtlDays(u32);

impl Parsed for TtlDays {
    const EXPECTED: &'static str = "days, 0 to 36500";
}

impl FromStr for TtlDays {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        match text.parse() {
            Ok(days @ 0..=MAX_RESULTS_TTL_DAYS) => Ok(Self(days)),
            _ => Err(Refused),
        }
    }
}

fn file_path(text: &str) -> Result<PathBuf, Refused> {
    match text.strip_prefix("file://") {
        Some(path) if path.starts_with('/') && !path.ends_with('/') => Ok(PathBuf::from(path)),
        _ => Err(Refused),
    }
}

fn is_bucket(name: &str) -> bool {
    // Upper case and underscores live on in old buckets of us-east-1.
    (3..=255).contains(&name.len()) && name.bytes().all(is_name_byte)
}

fn is_table(name: &str) -> bool {
    (3..=255).contains(&name.len()) && name.bytes().all(is_name_byte)
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOUND: [(&str, &str); 3] = [
        ("MODEL_URI", "s3://models/prod/requests.model"),
        ("RESULTS_URI", "dynamodb://results"),
        ("DEAD_LETTERS_URI", "https://sqs.eu-west-1.amazonaws.com/123456789012/dead"),
    ];

    /// The sound variables with some set to other values; "" stands for not set.
    fn with(changes: &[(&str, &str)]) -> Result<Config, ConfigError> {
        Config::from_vars(|name| {
            let found = changes.iter().chain(&SOUND).find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    fn s3(key: &str) -> ModelUri {
        ModelUri::S3 { bucket: "models".into(), key: key.into() }
    }

    #[test]
    fn models_are_read_by_topic() {
        let map = r#" {"orders": "s3://models/a", "*": "s3://models/b", "web": "file:///c"}"#;
        let config = with(&[("MODEL_URI", map)]).expect("sound");
        let by_topic = [("orders", s3("a")), ("web", ModelUri::File("/c".into()))];
        let by_topic = by_topic.map(|(topic, uri)| (topic.to_owned(), uri)).into();
        assert_eq!(config.models, ModelUris { by_topic, otherwise: Some(s3("b")) });
        let config = with(&[("MODEL_URI", r#"{"orders": "s3://models/a"}"#)]).expect("sound");
        assert_eq!(config.models.otherwise, None);
    }

    #[test]
    fn the_least_environment_gives_the_defaults() {
        let config = with(&[]).expect("sound");
        assert_eq!(
            config,
            Config {
                models: s3("prod/requests.model").into(),
                model_refresh_secs: 300,
                results: ResultsUri::DynamoDb { table: "results".into() },
                results_kept: Kept::Anomalies,
                results_ttl_days: 30,
                dead_letters: DeadLettersUri::Sqs { queue_url: SOUND[2].1.into() },
                dead_letters_s3: None,
                alerts: None,
                alert_max_anomalies: 10,
                alert_cooldown_secs: 300,
                endpoint: None,
                partial_batch: false,
                log_fields: false,
                deadline_reserve_ms: 1000,
                s3_path_style: false,
            }
        );
    }

    #[test]
    fn files_flags_and_local_endpoints_are_read() {
        let config = with(&[
            ("MODEL_URI", "file:///m.model"),
            ("RESULTS_URI", "file:///tmp/r.jsonl"),
            ("DEAD_LETTERS_URI", "file:///tmp/d.jsonl"),
            ("MODEL_REFRESH_SECS", "0"),
            ("PARTIAL_BATCH", "true"),
            ("LOG_FIELDS", "true"),
            ("DEADLINE_RESERVE_MS", "250"),
            ("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9000"),
        ])
        .expect("sound");
        assert_eq!(config.models, ModelUri::File("/m.model".into()).into());
        assert_eq!(config.results, ResultsUri::File("/tmp/r.jsonl".into()));
        assert_eq!(config.dead_letters, DeadLettersUri::File("/tmp/d.jsonl".into()));
        assert!(config.partial_batch && config.s3_path_style && config.log_fields);
        assert_eq!((config.deadline_reserve_ms, config.model_refresh_secs), (250, 0));
    }

    #[test]
    fn alerts_go_to_a_topic_in_its_region_or_to_a_file() {
        let arn = "arn:aws-cn:sns:cn-north-1:123456789012:on-call.fifo";
        let config = with(&[("ALERTS_URI", arn), ("ALERT_COOLDOWN_SECS", "0")]).expect("sound");
        let topic = AlertsUri::Sns { topic_arn: arn.into(), region: "cn-north-1".into() };
        assert_eq!((config.alerts, config.alert_cooldown_secs), (Some(topic), 0));
        let config = with(&[("ALERTS_URI", "file:///a.jsonl"), ("ALERT_MAX_ANOMALIES", "100")]);
        let config = config.expect("sound");
        let file = AlertsUri::File("/a.jsonl".into());
        assert_eq!((config.alerts, config.alert_max_anomalies), (Some(file), 100));
    }

    #[test]
    fn without_results_no_place_for_them_is_needed() {
        for (value, kept) in [("all", Kept::All), ("anomalies", Kept::Anomalies)] {
            assert_eq!(with(&[("RESULTS", value)]).expect("sound").results_kept, kept);
            let error = with(&[("RESULTS", value), ("RESULTS_URI", "")]).expect_err("required");
            assert!(error.to_string().contains("RESULTS_URI"), "{error}");
        }
        let table = ResultsUri::DynamoDb { table: "results".into() };
        for (uri, results) in [("", ResultsUri::Nowhere), ("dynamodb://results", table)] {
            let config = with(&[("RESULTS", "none"), ("RESULTS_URI", uri)]).expect("sound");
            assert_eq!((config.results_kept, config.results), (Kept::Nothing, results));
        }
        assert!(with(&[("RESULTS", "none"), ("RESULTS_URI", "results")]).is_err());
        let days = with(&[("RESULTS_TTL_DAYS", "0")]).expect("sound").results_ttl_days;
        assert_eq!(days, 0);
    }

    #[test]
    fn a_prefix_in_s3_ends_with_a_slash_or_is_empty() {
        for (uri, prefix) in [
            ("s3://dead", ""),
            ("s3://dead/", ""),
            ("s3://dead/a/b", "a/b/"),
            ("s3://dead/a/", "a/"),
        ] {
            let place = with(&[("DEAD_LETTERS_S3_URI", uri)]).expect("sound").dead_letters_s3;
            let expected = S3Prefix { bucket: "dead".into(), prefix: prefix.into() };
            assert_eq!(place, Some(expected), "{uri}");
        }
    }

    #[test]
    fn a_missing_variable_is_named() {
        for (name, _) in SOUND {
            let error = with(&[(name, "")]).expect_err("required");
            assert!(matches!(&error, ConfigError::Missing { name: got, .. } if *got == name));
            assert!(error.to_string().contains(name), "{error}");
        }
    }

    #[test]
    fn a_malformed_variable_is_named_with_its_value() {
        for (name, value) in [
            ("MODEL_URI", "s3://bucket"),
            ("MODEL_URI", "s3://bucket/"),
            ("MODEL_URI", "s3:///key"),
            ("MODEL_URI", "file://relative/path"),
            ("MODEL_URI", "file:///folder/"),
            ("MODEL_URI", "model.bin"),
            ("MODEL_URI", "{}"),
            ("MODEL_URI", r#"{"a": "s3://models/a""#),
            ("MODEL_URI", r#"{"a": "s3://models"}"#),
            ("MODEL_URI", r#"{"a": 7}"#),
            ("MODEL_URI", r#"{"a": "s3://models/a", "a": "s3://models/b"}"#),
            ("MODEL_URI", r#"["s3://models/a"]"#),
            ("MODEL_REFRESH_SECS", "-1"),
            ("MODEL_REFRESH_SECS", "86401"),
            ("LOG_FIELDS", "yes"),
            ("RESULTS_URI", "dynamodb://a"),
            ("RESULTS_URI", "dynamodb://a table"),
            ("RESULTS_URI", "s3://bucket/key"),
            ("RESULTS", "some"),
            ("RESULTS", "ALL"),
            ("RESULTS_TTL_DAYS", "36501"),
            ("RESULTS_TTL_DAYS", "-1"),
            ("RESULTS_TTL_DAYS", "a week"),
            ("DEAD_LETTERS_URI", "https://host"),
            ("DEAD_LETTERS_URI", "https://host/1/queue.fifo"),
            ("DEAD_LETTERS_URI", "sqs://queue"),
            ("DEAD_LETTERS_S3_URI", "dead-letters"),
            ("DEAD_LETTERS_S3_URI", "s3://"),
            ("DEAD_LETTERS_S3_URI", "s3://no bucket/x"),
            ("DEAD_LETTERS_S3_URI", "s3://bucket//x"),
            ("DEAD_LETTERS_S3_URI", "s3://bucket/a b"),
            ("ALERTS_URI", "on-call"),
            ("ALERTS_URI", "arn:aws:sqs:eu-west-1:123456789012:queue"),
            ("ALERTS_URI", "arn:aws:sns:eu-west-1:123456789012"),
            ("ALERTS_URI", "arn:aws:sns::123456789012:on-call"),
            ("ALERTS_URI", "arn:aws:sns:eu-west-1:123456789012:on-call:0f3c2b1a"),
            ("ALERT_MAX_ANOMALIES", "0"),
            ("ALERT_MAX_ANOMALIES", "101"),
            ("ALERT_COOLDOWN_SECS", "86401"),
            ("ALERT_COOLDOWN_SECS", "5m"),
            ("PARTIAL_BATCH", "yes"),
            ("PARTIAL_BATCH", "TRUE"),
            ("DEADLINE_RESERVE_MS", "99"),
            ("DEADLINE_RESERVE_MS", "60001"),
            ("DEADLINE_RESERVE_MS", "1s"),
            ("DEADLINE_RESERVE_MS", "-1"),
        ] {
            let error = with(&[(name, value)]).expect_err(value);
            let ConfigError::Malformed { name: got, value: shown, .. } = &error else {
                panic!("{name}={value}: {error:?}");
            };
            assert_eq!((*got, shown.as_str()), (name, value));
            assert!(error.to_string().contains(value), "{error}");
        }
    }
}
