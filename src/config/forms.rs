//! The forms that the values of variables have, and what is said of one that has another.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};

use super::{
    AlertsUri, ConfigError, DeadLettersUri, Kept, ModelUri, ModelUris, ResultsUri, S3Prefix,
};

/// The topic that stands for all that have no model of their own.
const ANY_TOPIC: &str = "*";

/// A value that says what it expects to be written as.
pub(super) trait Parsed: FromStr<Err = Refused> {
    const EXPECTED: &'static str;
}

/// Not what was expected; the variable's name, value and expectation say the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not in a form that is known")]
pub struct Refused;

pub(super) fn required<T: Parsed>(
    name: &'static str,
    get: &impl Fn(&str) -> Option<String>,
) -> Result<T, ConfigError> {
    optional(name, get)?.ok_or(ConfigError::Missing { name, expected: T::EXPECTED })
}

pub(super) fn optional<T: Parsed>(
    name: &'static str,
    get: &impl Fn(&str) -> Option<String>,
) -> Result<Option<T>, ConfigError> {
    let Some(value) = get(name) else { return Ok(None) };
    match value.parse() {
        Ok(parsed) => Ok(Some(parsed)),
        Err(Refused) => Err(ConfigError::Malformed { name, value, expected: T::EXPECTED.into() }),
    }
}

/// A number within a range, of the unit that errors name; the default if it is not set.
pub(super) fn number<T: FromStr + PartialOrd + fmt::Display>(
    name: &'static str,
    unit: &str,
    range: RangeInclusive<T>,
    default: T,
    get: &impl Fn(&str) -> Option<String>,
) -> Result<T, ConfigError> {
    Ok(optional_number(name, unit, range, get)?.unwrap_or(default))
}

/// A number within a range, of the unit that errors name; none if it is not set.
pub(super) fn optional_number<T: FromStr + PartialOrd + fmt::Display>(
    name: &'static str,
    unit: &str,
    range: RangeInclusive<T>,
    get: &impl Fn(&str) -> Option<String>,
) -> Result<Option<T>, ConfigError> {
    let Some(value) = get(name) else { return Ok(None) };
    match value.parse() {
        Ok(number) if range.contains(&number) => Ok(Some(number)),
        _ => {
            let expected = format!("{} to {} {unit}", range.start(), range.end()).into();
            Err(ConfigError::Malformed { name, value, expected })
        }
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

pub(super) struct Flag(pub(super) bool);

impl Parsed for Flag {
    const EXPECTED: &'static str = "true or false";
}

impl FromStr for Flag {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        text.parse().map(Self).map_err(|_| Refused)
    }
}

pub(super) fn file_path(text: &str) -> Result<PathBuf, Refused> {
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
