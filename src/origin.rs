//! Where a record comes from: enough to name it forever, report it and find it again.
//!
//! The origin travels beside the record from the event to its outcome. Its [`Origin::identity`] is
//! the key of the stored item and of the dead letter: the same record delivered again has the same
//! identity, and no two records share one.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use serde::{Serialize, Serializer};

/// The place of one record. As JSON an object with `source` and the fields below.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
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
        #[serde(serialize_with = "hex")]
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
    /// - `file//var/log/app.log/17`: path, line.
    ///
    /// Bytes other than `A-Z a-z 0-9 . _ -` are written as `%XX` (in a path `/` stays).
    pub fn identity(&self) -> String {
        let mut out = String::new();
        // Writing to a string can't fail.
        let _ = self.write_identity(&mut out);
        out
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
        assert_eq!(
            unplaced.identity(),
            "kafka-unplaced//orders-3/4/000000000000000000000000000000ab"
        );
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
