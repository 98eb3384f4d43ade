//! Where a record comes from: enough to name it forever, report it and find it again.
//!
//! The origin travels beside the record from the event to its outcome. Its [`Origin::identity`] is
//! the key of the stored item and of the dead letter: the same record delivered again has the same
//! identity, and no two records share one.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Longest identity, in bytes: DynamoDB's limit for a key is 2048. One that would be longer (a name of
/// many escaped characters) is cut, and the hash of the whole is put behind it.
pub const MAX_IDENTITY_LEN: usize = 1024;

/// The place of one record. As JSON an object with `source` and the fields below. It is read back from
/// dead letters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "source", rename_all = "snake_case")]
pub enum Origin {
    /// A record of a Kafka topic.
    Kafka {
        /// The last part of the event source's ARN, for MSK the cluster's unique id; none for a
        /// self-managed cluster. It is part of the identity, so that topics of the same name in two
        /// MSK clusters may share a table. Self-managed clusters have no stable name (the list of
        /// brokers changes): two of them with the same topic need a table each.
        #[serde(skip_serializing_if = "Option::is_none")]
        cluster: Option<Arc<str>>,
        /// The topic: 1 to 249 of `A-Z a-z 0-9 . _ -`.
        topic: Arc<str>,
        /// The partition, 0 or more.
        partition: i32,
        /// The offset in the partition, 0 or more.
        offset: i64,
    },
    /// A record from Kafka whose topic, partition or offset can't be read.
    KafkaUnplaced {
        /// As for [`Origin::Kafka`].
        #[serde(skip_serializing_if = "Option::is_none")]
        cluster: Option<Arc<str>>,
        /// The key it is filed under in the event, as a rule `topic-partition`.
        topic_partition: Arc<str>,
        /// Its index under that key, from 0.
        index: usize,
        /// Hash of its JSON text: the index alone would name another record in the next batch.
        #[serde(serialize_with = "hex", deserialize_with = "from_hex")]
        content_hash: u128,
    },
    /// A log record in a record of a Kinesis stream.
    Kinesis {
        /// The stream's name.
        stream: Arc<str>,
        /// The shard, `shardId-000000000006`.
        shard: Arc<str>,
        /// The sequence number in the shard.
        sequence_number: Arc<str>,
        /// Which of the log records in it, from 0.
        index: usize,
    },
    /// A line of an object in S3.
    S3 {
        /// The bucket.
        bucket: Arc<str>,
        /// The key, not URL-encoded.
        key: Arc<str>,
        /// The version's id; of an object without versions the ETag.
        version: Arc<str>,
        /// Number of the line, from 1.
        line: u64,
    },
    /// A message of an SQS queue that is a log record itself.
    Sqs {
        /// The queue's name.
        queue: Arc<str>,
        /// The message's id.
        message_id: Arc<str>,
    },
    /// A record that was given in the invocation itself.
    Direct {
        /// The id that the caller gave to the invocation's records; none if nothing is stored.
        #[serde(skip_serializing_if = "Option::is_none")]
        batch: Option<Arc<str>>,
        /// What the caller gave as `model`.
        #[serde(skip_serializing_if = "Option::is_none")]
        model: Option<Arc<str>>,
        /// Which of the records, from 0.
        index: usize,
    },
    /// A record of Kinesis, S3 or SQS whose place can't be read.
    Unplaced {
        /// The source, `aws:kinesis`, `aws:s3` or `aws:sqs`.
        service: Arc<str>,
        /// Its index in the event, from 0.
        index: usize,
        /// Hash of its JSON text, as for [`Origin::KafkaUnplaced`].
        #[serde(serialize_with = "hex", deserialize_with = "from_hex")]
        content_hash: u128,
    },
    /// A line of a log file.
    File {
        /// The path as it was given.
        path: Arc<str>,
        /// Number of the line, from 1.
        line: u64,
        /// Offset of its first byte in the decompressed file.
        offset: u64,
    },
}

impl Origin {
    /// The record's name: the same whenever it is delivered, and no other record's.
    ///
    /// - `kafka/orders/3/12345`: topic, partition, offset;
    /// - `kafka/751d2973-a626-431c-9d4e-d7975eb44dd7-2/orders/3/12345`: with the MSK cluster;
    /// - `kafka-unplaced/…`: cluster (may be empty), key, index and hash of the text;
    /// - `kinesis/logs/shardId-000000000006/49590338…/0`: stream, shard, sequence number, index;
    /// - `s3/landed-logs/web/a.log/fd1e…/17`: bucket, key, version, line;
    /// - `sqs/redrive/059f36b4-…`: queue, message;
    /// - `direct/batch-17/0`: id of the invocation's records, index;
    /// - `unplaced/aws%3Akinesis/…`: source, index and hash of the text;
    /// - `file//var/log/app.log/17`: path, line.
    ///
    /// Bytes other than `A-Z a-z 0-9 . _ -` are written as `%XX` (in a path or key `/` stays). At most
    /// [`MAX_IDENTITY_LEN`] bytes; a longer one ends in `~` and the hash of its whole.
    pub fn identity(&self) -> String {
        let mut out = String::new();
        // Writing to a string can't fail.
        let _ = self.write_identity(&mut out);
        if out.len() > MAX_IDENTITY_LEN {
            let hash = format!("~{:032x}", xxhash_rust::xxh3::xxh3_128(out.as_bytes()));
            // It is all ASCII.
            out.truncate(MAX_IDENTITY_LEN - hash.len());
            out.push_str(&hash);
        }
        out
    }

    /// What the record's model is chosen by: the Kafka topic, the Kinesis stream, the S3 bucket, the SQS
    /// queue, what a direct invocation gave as `model`. Empty where there is none.
    pub fn topic(&self) -> &str {
        match self {
            Self::Kafka { topic, .. } => topic,
            Self::KafkaUnplaced { topic_partition, .. } => {
                topic_partition.rsplit_once('-').map_or("", |(topic, _)| topic)
            }
            Self::Kinesis { stream, .. } => stream,
            Self::S3 { bucket, .. } => bucket,
            Self::Sqs { queue, .. } => queue,
            Self::Direct { model, .. } => model.as_deref().unwrap_or_default(),
            Self::File { .. } | Self::Unplaced { .. } => "",
        }
    }

    /// Splits the record's [`identity`](Self::identity) in what it shares with its neighbours
    /// (`kafka/orders/3`) and its own place there (`12345`).
    pub fn split<'i>(&self, identity: &'i str) -> (&'i str, &'i str) {
        let parts_of_place = match self {
            Self::Kafka { .. }
            | Self::S3 { .. }
            | Self::Sqs { .. }
            | Self::Direct { .. }
            | Self::File { .. } => 1,
            Self::KafkaUnplaced { .. } | Self::Kinesis { .. } | Self::Unplaced { .. } => 2,
        };
        let slash = identity.rmatch_indices('/').nth(parts_of_place - 1);
        slash.map_or((identity, ""), |(at, _)| (&identity[..at], &identity[at + 1..]))
    }

    fn write_identity(&self, out: &mut String) -> fmt::Result {
        match self {
            Self::Kafka { cluster, topic, partition, offset } => {
                out.push_str("kafka/");
                if let Some(cluster) = cluster {
                    write_escaped(out, cluster, false)?;
                    out.push('/');
                }
                write_escaped(out, topic, false)?;
                write!(out, "/{partition}/{offset}")
            }
            Self::KafkaUnplaced { cluster, topic_partition, index, content_hash } => {
                out.push_str("kafka-unplaced/");
                write_escaped(out, cluster.as_deref().unwrap_or_default(), false)?;
                out.push('/');
                write_escaped(out, topic_partition, false)?;
                write!(out, "/{index}/{content_hash:032x}")
            }
            Self::Kinesis { stream, shard, sequence_number, index } => {
                out.push_str("kinesis/");
                for part in [stream, shard, sequence_number] {
                    write_escaped(out, part, false)?;
                    out.push('/');
                }
                write!(out, "{index}")
            }
            Self::S3 { bucket, key, version, line } => {
                out.push_str("s3/");
                write_escaped(out, bucket, false)?;
                out.push('/');
                write_escaped(out, key, true)?;
                out.push('/');
                write_escaped(out, version, false)?;
                write!(out, "/{line}")
            }
            Self::Sqs { queue, message_id } => {
                out.push_str("sqs/");
                write_escaped(out, queue, false)?;
                out.push('/');
                write_escaped(out, message_id, false)
            }
            Self::Direct { batch, index, .. } => {
                out.push_str("direct/");
                write_escaped(out, batch.as_deref().unwrap_or_default(), false)?;
                write!(out, "/{index}")
            }
            Self::Unplaced { service, index, content_hash } => {
                out.push_str("unplaced/");
                write_escaped(out, service, false)?;
                write!(out, "/{index}/{content_hash:032x}")
            }
            Self::File { path, line, .. } => {
                out.push_str("file/");
                write_escaped(out, path, true)?;
                write!(out, "/{line}")
            }
        }
    }
}

fn write_escaped(out: &mut String, text: &str, keep_slash: bool) -> fmt::Result {
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-' => {
                out.push(char::from(byte))
            }
            b'/' if keep_slash => out.push('/'),
            _ => write!(out, "%{byte:02X}")?,
        }
    }
    Ok(())
}

fn hex<S: Serializer>(hash: &u128, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{hash:032x}"))
}

fn from_hex<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u128, D::Error> {
    let text = String::deserialize(deserializer)?;
    u128::from_str_radix(&text, 16).map_err(|_| de::Error::custom("a hash is hexadecimal"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kafka(cluster: Option<&str>, topic: &str) -> Origin {
        Origin::Kafka {
            cluster: cluster.map(Arc::from),
            topic: topic.into(),
            partition: 3,
            offset: 12345,
        }
    }

    #[test]
    fn identities_are_stable() {
        assert_eq!(kafka(None, "orders").identity(), "kafka/orders/3/12345");
        assert_eq!(kafka(Some("751d-2"), "orders").identity(), "kafka/751d-2/orders/3/12345");
        let file = Origin::File { path: "/var/log/a b.log".into(), line: 17, offset: 900 };
        assert_eq!(file.identity(), "file//var/log/a%20b.log/17");
        let unplaced = Origin::KafkaUnplaced {
            cluster: None,
            topic_partition: "orders-3".into(),
            index: 4,
            content_hash: 0xab,
        };
        let identity = unplaced.identity();
        assert_eq!(identity, "kafka-unplaced//orders-3/4/000000000000000000000000000000ab");
        let place = "4/000000000000000000000000000000ab";
        assert_eq!(unplaced.split(&identity), ("kafka-unplaced//orders-3", place));
        let orders = kafka(None, "orders");
        assert_eq!(orders.split(&orders.identity()), ("kafka/orders/3", "12345"));
    }

    /// One of each kind, with its name.
    fn all() -> Vec<(Origin, &'static str)> {
        vec![
            (kafka(Some("c-2"), "orders"), "kafka/c-2/orders/3/12345"),
            (
                Origin::KafkaUnplaced {
                    cluster: None,
                    topic_partition: "orders-3".into(),
                    index: 4,
                    content_hash: u128::MAX,
                },
                "kafka-unplaced//orders-3/4/ffffffffffffffffffffffffffffffff",
            ),
            (
                Origin::Kinesis {
                    stream: "logs".into(),
                    shard: "shardId-000000000006".into(),
                    sequence_number: "4959".into(),
                    index: 2,
                },
                "kinesis/logs/shardId-000000000006/4959/2",
            ),
            (
                Origin::S3 {
                    bucket: "landed".into(),
                    key: "a b/c+d.log".into(),
                    version: "v.1".into(),
                    line: 17,
                },
                "s3/landed/a%20b/c%2Bd.log/v.1/17",
            ),
            (Origin::Sqs { queue: "q".into(), message_id: "m-1".into() }, "sqs/q/m-1"),
            (
                Origin::Direct { batch: Some("b/17".into()), model: Some("web".into()), index: 3 },
                "direct/b%2F17/3",
            ),
            (Origin::Direct { batch: None, model: None, index: 3 }, "direct//3"),
            (
                Origin::Unplaced { service: "aws:sqs".into(), index: 1, content_hash: 0xab },
                "unplaced/aws%3Asqs/1/000000000000000000000000000000ab",
            ),
            (Origin::File { path: "x.log".into(), line: 2, offset: 40 }, "file/x.log/2"),
        ]
    }

    #[test]
    fn each_kind_has_its_name_and_is_read_back_from_json() {
        for (origin, identity) in all() {
            assert_eq!(origin.identity(), identity);
            let json = serde_json::to_string(&origin).expect("json");
            let back: Origin = serde_json::from_str(&json).expect(&json);
            assert_eq!(back, origin);
        }
    }

    #[test]
    fn a_name_too_long_for_a_key_is_cut_and_stays_its_own() {
        let line = |line| Origin::S3 {
            bucket: "landed".into(),
            key: "\u{e9}".repeat(512).into(),
            version: "v".into(),
            line,
        };
        let (one, other) = (line(1).identity(), line(2).identity());
        assert_eq!((one.len(), other.len()), (MAX_IDENTITY_LEN, MAX_IDENTITY_LEN));
        assert!(one.starts_with("s3/landed/%C3%A9") && one != other);
    }

    #[test]
    fn no_name_can_pass_for_another() {
        let mut seen = std::collections::HashSet::new();
        for origin in [
            kafka(None, "a/b"),
            kafka(Some("a"), "b"),
            kafka(None, "a%2Fb"),
            kafka(Some("a/b"), "b"),
            kafka(Some("b"), "b"),
        ] {
            assert!(seen.insert(origin.identity()), "{}", origin.identity());
        }
    }

    #[test]
    fn as_json_an_origin_names_its_source() {
        let json = |origin: &Origin| serde_json::to_string(origin).expect("json");
        assert_eq!(
            json(&kafka(None, "orders")),
            r#"{"source":"kafka","topic":"orders","partition":3,"offset":12345}"#
        );
        assert_eq!(
            json(&Origin::File { path: "x.log".into(), line: 2, offset: 40 }),
            r#"{"source":"file","path":"x.log","line":2,"offset":40}"#
        );
    }
}
