//! Results in a DynamoDB table, one item a record, and one a batch for its summary.
//!
//! The table's partition key is `id` (a string), the record's identity; it has no sort key. Beside
//! it an item has `score` and `threshold` (numbers; the latter null without calibration), `anomaly`
//! (boolean), `features` (name to number, string or null), for an anomaly `attribution` (name to
//! `high`, `low`, `share`; with a shingle `lag`, `lag_share`), `model`, `scorer`, where no fresh model
//! scored `endpoint`, `reason`, `threshold_of`, `degraded` as [`crate::verdict`] says, `timestamp_ms` when
//! known, and the fields of the origin (`source`, and for Kafka `topic`, `partition`, `offset`,
//! `cluster`). A summary's item has the names of its JSON, lists and maps included.
//!
//! Either has `expires_at` (a number, seconds since 1970) unless items are kept for good: the attribute
//! that the table's time to live reads. It counts from the record's own time, so that a record
//! delivered again is the same item to the last attribute. Logs that are old when they are read would
//! be deleted as soon as they are written, and a wrong clock would keep them for ever: where the
//! record's time is unknown, in the future, or so long ago that half of the term is over, the end of
//! the present day counts in its place. Then a delivery on another day changes `expires_at`, and
//! nothing else.
//!
//! DynamoDB's numbers have 38 digits and lie between 1E-130 and 9.99E+125 in magnitude. Every f64 has
//! few enough digits; the rare one outside the range is stored as a string, exactly.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{AttributeValue, PutRequest, WriteRequest};
use sawlog_model::Value;

use super::retries::Retries;
use super::{MAX_ROUNDS, SinkError, Written, in_calls, make_calls, pause};
use crate::deadline::Until;
use crate::origin::Origin;
use crate::summary::Summary;
use crate::verdict::{Share, Verdict};

/// Most items in one BatchWriteItem.
const MAX_ITEMS: usize = 25;
/// Most bytes in one BatchWriteItem.
const MAX_CALL_BYTES: usize = 16 << 20;
/// Most bytes of one item, names and values.
const MAX_ITEM_BYTES: usize = 400 << 10;

const SERVICE: &str = "DynamoDB";
const KEY: &str = "id";

const SECONDS_A_DAY: i64 = 86_400;

/// A table for results.
#[derive(Debug, Clone)]
pub struct DynamoDbResults {
    client: Client,
    table: String,
    ttl: Ttl,
    retries: Retries,
}

/// How long items are kept, in days; 0 for good.
#[derive(Debug, Clone, Copy)]
struct Ttl {
    days: u32,
}

impl Ttl {
    /// When an item may be deleted, in seconds since 1970, given the record's time and the present
    /// one. See the head of this module.
    fn expires_at(self, timestamp_ms: Option<i64>, now: i64) -> Option<i64> {
        let term = i64::from(self.days) * SECONDS_A_DAY;
        let believable = now - term / 2..now + SECONDS_A_DAY;
        let own = timestamp_ms.map(|ms| ms / 1000).filter(|time| believable.contains(time));
        let from = own.unwrap_or_else(|| (now / SECONDS_A_DAY + 1) * SECONDS_A_DAY);
        (self.days > 0).then_some(from + term)
    }
}

fn now() -> i64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_1970.as_secs()).unwrap_or(i64::MAX / 2)
}

type Attributes = HashMap<String, AttributeValue>;

/// An item on its way: its entry's index, its id and size.
struct Item {
    index: usize,
    id: String,
    bytes: usize,
    attributes: Attributes,
}

impl DynamoDbResults {
    /// Results into `table`, to be deleted after so many days; never if 0.
    pub fn new(client: Client, table: String, ttl_days: u32) -> Self {
        Self { client, table, ttl: Ttl { days: ttl_days }, retries: Retries::default() }
    }

    /// Counts its rounds after the first there; the client's tries are the client's to count.
    pub fn counting(self, retries: Retries) -> Self {
        Self { retries, ..self }
    }

    /// Stores verdicts; one answer for each, in their order. Of those with the same identity one is
    /// written, and the answer is the same for all.
    pub async fn store(&self, verdicts: &[Verdict<'_>], until: Until) -> Vec<Written> {
        let (unique, first_of) = distinct(verdicts.iter().map(Verdict::id));
        let now = now();
        // Items are made as their calls are, so that only those in flight are in memory.
        let items = unique.into_iter().map(|(id, index)| {
            let verdict = &verdicts[index];
            let expires_at = self.ttl.expires_at(verdict.timestamp_ms(), now);
            let item = Item::new(index, attributes(&id, verdict), id, expires_at);
            let bytes = item.bytes;
            (item, bytes)
        });
        let calls = in_calls(items, MAX_ITEMS, MAX_CALL_BYTES);
        let written = make_calls(verdicts.len(), calls, |items| self.write(items, until)).await;
        first_of.into_iter().map(|index| written[index].clone()).collect()
    }

    /// Stores a batch's summary, over an earlier one of the same id.
    ///
    /// # Errors
    /// [`SinkError`]: why it is not stored.
    pub async fn store_summary(&self, summary: &Summary, until: Until) -> Written {
        let json = serde_json::to_value(summary).map_err(|e| SinkError::Json(Arc::new(e)))?;
        let AttributeValue::M(attributes) = of_json(json) else { return Ok(()) };
        let expires_at = self.ttl.expires_at(summary.last_timestamp_ms, now());
        let item = Item::new(0, attributes, summary.id.clone(), expires_at);
        let mut written = self.write(vec![item], until).await;
        written.pop().map_or(Err(SinkError::OutOfTime), |(_, written)| written)
    }

    /// Writes the items of one call, those left unprocessed again.
    async fn write(&self, items: Vec<Item>, until: Until) -> Vec<(usize, Written)> {
        let mut outcomes = Vec::with_capacity(items.len());
        let mut pending = Vec::with_capacity(items.len());
        let mut requests = Vec::with_capacity(items.len());
        for Item { index, id, bytes, attributes } in items {
            if bytes > MAX_ITEM_BYTES {
                let limit = MAX_ITEM_BYTES;
                outcomes.push((index, Err(SinkError::TooLarge { service: SERVICE, bytes, limit })));
                continue;
            }
            match PutRequest::builder().set_item(Some(attributes)).build() {
                Ok(put) => {
                    requests.push(WriteRequest::builder().put_request(put).build());
                    pending.push((id, index));
                }
                Err(error) => outcomes.push((index, Err(SinkError::Request(Arc::new(error))))),
            }
        }
        let mut fault = SinkError::NotAccepted { service: SERVICE };
        for round in 0..MAX_ROUNDS {
            if requests.is_empty() {
                break;
            }
            if round > 0 {
                if pause(round - 1, until).await.is_none() {
                    fault = SinkError::OutOfTime;
                    break;
                }
                self.retries.count();
            }
            let call = self.client.batch_write_item().request_items(&self.table, requests).send();
            requests = match until.limit(call).await {
                None => {
                    fault = SinkError::OutOfTime;
                    break;
                }
                Some(Err(error)) => {
                    fault = SinkError::DynamoDb(Arc::new(error));
                    break;
                }
                Some(Ok(answer)) => {
                    let left = answer.unprocessed_items.unwrap_or_default();
                    left.into_values().flatten().collect()
                }
            };
            pending.retain(|(id, index)| {
                let stays = requests.iter().any(|request| id_of(request) == Some(id));
                if !stays {
                    outcomes.push((*index, Ok(())));
                }
                stays
            });
        }
        outcomes.extend(pending.into_iter().map(|(_, index)| (index, Err(fault.clone()))));
        outcomes
    }
}

impl Item {
    fn new(index: usize, mut attributes: Attributes, id: String, expires_at: Option<i64>) -> Self {
        if let Some(expires_at) = expires_at {
            attributes.insert("expires_at".to_owned(), AttributeValue::N(expires_at.to_string()));
        }
        let bytes = attributes.iter().map(|(name, value)| name.len() + size(value)).sum();
        Self { index, id, bytes, attributes }
    }
}

/// The distinct ids with the index of each one's first entry, and for every entry the index of the
/// first with its id. BatchWriteItem refuses a call that names a key twice.
fn distinct(ids: impl Iterator<Item = String>) -> (Vec<(String, usize)>, Vec<usize>) {
    let mut seen = HashMap::new();
    let first_of: Vec<usize> =
        ids.enumerate().map(|(index, id)| *seen.entry(id).or_insert(index)).collect();
    let mut unique: Vec<(String, usize)> = seen.into_iter().collect();
    unique.sort_unstable_by_key(|(_, index)| *index);
    (unique, first_of)
}

fn id_of(request: &WriteRequest) -> Option<&String> {
    request.put_request.as_ref()?.item.get(KEY)?.as_s().ok()
}

fn attributes(id: &str, verdict: &Verdict<'_>) -> Attributes {
    let string = |text: &str| AttributeValue::S(text.to_owned());
    let mut item = Attributes::new();
    let mut put = |name: &str, value| item.insert(name.to_owned(), value);
    put(KEY, string(id));
    put("score", AttributeValue::N(verdict.score().to_string()));
    put("threshold", verdict.threshold().map_or(AttributeValue::Null(true), number));
    put("anomaly", AttributeValue::Bool(verdict.is_anomaly()));
    let features = verdict.features().map(|(name, value)| (name.to_owned(), feature(value)));
    put("features", AttributeValue::M(features.collect()));
    if let Some(shares) = verdict.attribution() {
        let shares = shares.map(|(name, part)| (name.to_owned(), share(part)));
        put("attribution", AttributeValue::M(shares.collect()));
    }
    put("model", verdict.model_id().map_or(AttributeValue::Null(true), string));
    put("scorer", string(verdict.scorer()));
    if let Some(endpoint) = verdict.endpoint() {
        put("endpoint", string(endpoint));
    }
    if let Some(by) = verdict.exception() {
        put("reason", string(by.reason.name()));
        put("threshold_of", string(by.threshold_of.name()));
        put("degraded", AttributeValue::Bool(by.degraded));
    }
    if let Some(timestamp_ms) = verdict.timestamp_ms() {
        put("timestamp_ms", AttributeValue::N(timestamp_ms.to_string()));
    }
    match verdict.origin() {
        Origin::Kafka { cluster, topic, partition, offset } => {
            put("source", string("kafka"));
            put("topic", string(topic));
            put("partition", AttributeValue::N(partition.to_string()));
            put("offset", AttributeValue::N(offset.to_string()));
            if let Some(cluster) = cluster {
                put("cluster", string(cluster));
            }
        }
        Origin::KafkaUnplaced { cluster, topic_partition, .. } => {
            put("source", string("kafka_unplaced"));
            put("topic_partition", string(topic_partition));
            if let Some(cluster) = cluster {
                put("cluster", string(cluster));
            }
        }
        Origin::Kinesis { stream, shard, sequence_number, index } => {
            put("source", string("kinesis"));
            put("stream", string(stream));
            put("shard", string(shard));
            put("sequence_number", string(sequence_number));
            put("index", AttributeValue::N(index.to_string()));
        }
        Origin::S3 { bucket, key, version, line } => {
            put("source", string("s3"));
            put("bucket", string(bucket));
            put("key", string(key));
            put("version", string(version));
            put("line", AttributeValue::N(line.to_string()));
        }
        Origin::Sqs { queue, message_id } => {
            put("source", string("sqs"));
            put("queue", string(queue));
            put("message_id", string(message_id));
        }
        Origin::Direct { batch, index, .. } => {
            put("source", string("direct"));
            if let Some(batch) = batch {
                put("batch", string(batch));
            }
            put("index", AttributeValue::N(index.to_string()));
        }
        Origin::Unplaced { service, index, .. } => {
            put("source", string("unplaced"));
            put("service", string(service));
            put("index", AttributeValue::N(index.to_string()));
        }
        Origin::File { path, line, offset } => {
            put("source", string("file"));
            put("path", string(path));
            put("line", AttributeValue::N(line.to_string()));
            put("offset", AttributeValue::N(offset.to_string()));
        }
    }
    item
}

/// JSON as DynamoDB has it.
fn of_json(json: serde_json::Value) -> AttributeValue {
    use serde_json::Value as Json;
    match json {
        Json::Null => AttributeValue::Null(true),
        Json::Bool(flag) => AttributeValue::Bool(flag),
        Json::Number(number) => AttributeValue::N(number.to_string()),
        Json::String(text) => AttributeValue::S(text),
        Json::Array(list) => AttributeValue::L(list.into_iter().map(of_json).collect()),
        Json::Object(map) => {
            AttributeValue::M(map.into_iter().map(|(name, value)| (name, of_json(value))).collect())
        }
    }
}

fn feature(value: &Value) -> AttributeValue {
    match value {
        Value::Missing => AttributeValue::Null(true),
        Value::Number(value) => number(*value),
        Value::Category(name) => AttributeValue::S(name.to_string()),
    }
}

fn share(part: Share) -> AttributeValue {
    let parts = [("high", part.high), ("low", part.low), ("share", part.share)];
    // As f32: its shortest text, and always in range.
    let parts = parts.into_iter().chain(part.lag_share.map(|share| ("lag_share", share)));
    let parts = parts.map(|(name, part)| (name, part.to_string()));
    let parts = parts.chain(part.lag.map(|lag| ("lag", lag.to_string())));
    let number = |(name, text): (&str, String)| (name.to_owned(), AttributeValue::N(text));
    AttributeValue::M(parts.map(number).collect())
}

/// A finite number, as a number if DynamoDB has it, else as a string.
fn number(value: f64) -> AttributeValue {
    const LEAST: f64 = 1e-130;
    const GREATEST: f64 = 9.9e125;
    let magnitude = value.abs();
    if magnitude == 0.0 {
        AttributeValue::N("0".to_owned())
    } else if (1e-6..1e16).contains(&magnitude) {
        AttributeValue::N(value.to_string())
    } else if (LEAST..=GREATEST).contains(&magnitude) {
        AttributeValue::N(format!("{value:e}"))
    } else {
        AttributeValue::S(format!("{value:e}"))
    }
}

/// The size that DynamoDB counts, or a little more: text in UTF-8, a number at most its digits, an
/// overhead for a map and each of its entries.
fn size(value: &AttributeValue) -> usize {
    match value {
        AttributeValue::S(text) | AttributeValue::N(text) => text.len() + 1,
        AttributeValue::M(map) => {
            3 + map.iter().map(|(name, value)| 1 + name.len() + size(value)).sum::<usize>()
        }
        AttributeValue::L(list) => 3 + list.iter().map(|value| 1 + size(value)).sum::<usize>(),
        // Booleans and nulls; no other kind is made here.
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use sawlog_model::{FeatureShare, ThresholdRule};

    use super::*;
    use crate::scorer::Scored;
    use crate::scorer::tests::model;

    #[test]
    fn numbers_are_within_dynamodbs_range_or_strings() {
        for (value, text) in [
            (0.0, "0"),
            (-0.0, "0"),
            (200.0, "200"),
            (-1.5, "-1.5"),
            (0.1, "0.1"),
            (1e-130, "1e-130"),
            (9.9e125, "9.9e125"),
            (1.234_567_890_123_456_7e100, "1.2345678901234567e100"),
        ] {
            assert_eq!(number(value), AttributeValue::N(text.to_owned()));
        }
        for value in [9.91e125, -1e300, 9e-131, 5e-324] {
            assert_eq!(number(value), AttributeValue::S(format!("{value:e}")));
        }
    }

    #[test]
    fn an_item_holds_the_verdict() {
        let model = model(Some(ThresholdRule::Value(1.0)));
        let attribution = vec![
            FeatureShare { feature: 0, high: 0.75, low: 0.0, peak: None },
            FeatureShare { feature: 1, high: 0.0, low: 0.25, peak: None },
        ];
        let values = vec![Value::Number(930.5), Value::Missing];
        let scored = Scored {
            score: 1.5,
            by: crate::trust::By::local(&model),
            values,
            attribution: Some(attribution),
        };
        let origin = Origin::Kafka {
            cluster: Some("c-2".into()),
            topic: "t".into(),
            partition: 3,
            offset: 7,
        };
        let verdict = Verdict::new(&model, Cow::Owned(origin), Some(5), scored);
        let item = attributes(&verdict.id(), &verdict);
        let n = |text: &str| AttributeValue::N(text.to_owned());
        let s = |text: &str| AttributeValue::S(text.to_owned());
        let map = |entries: &[(&str, AttributeValue)]| {
            entries.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
        };
        let parts = |high: &str, low: &str, share: &str| {
            AttributeValue::M(map(&[("high", n(high)), ("low", n(low)), ("share", n(share))]))
        };
        let expected: Attributes = map(&[
            ("id", s("kafka/c-2/t/3/7")),
            ("score", n("1.5")),
            ("threshold", n("1")),
            ("anomaly", AttributeValue::Bool(true)),
            (
                "features",
                AttributeValue::M(map(&[
                    ("duration_ms", n("930.5")),
                    ("path", AttributeValue::Null(true)),
                ])),
            ),
            (
                "attribution",
                AttributeValue::M(map(&[
                    ("duration_ms", parts("0.75", "0", "0.75")),
                    ("path", parts("0", "0.25", "0.25")),
                ])),
            ),
            ("model", s(model.id())),
            ("scorer", s("local")),
            ("timestamp_ms", n("5")),
            ("source", s("kafka")),
            ("cluster", s("c-2")),
            ("topic", s("t")),
            ("partition", n("3")),
            ("offset", n("7")),
        ]);
        assert_eq!(item, expected);
    }

    #[test]
    fn an_item_expires_after_its_records_time_or_after_a_day_that_can_be_believed() {
        const DAY: i64 = SECONDS_A_DAY;
        let month = Ttl { days: 30 };
        let now = 20_000 * DAY + 5000;
        let of = |seconds: i64| month.expires_at(Some(seconds * 1000 + 999), now);
        for own in [now, now - 14 * DAY, now + DAY - 1] {
            assert_eq!(of(own), Some(own + 30 * DAY));
        }
        for unbelievable in [0, now - 16 * DAY, now + DAY, i64::MAX / 1000 - 1] {
            assert_eq!(of(unbelievable), Some(20_001 * DAY + 30 * DAY), "{unbelievable}");
        }
        assert_eq!(month.expires_at(None, now), Some(20_031 * DAY));
        assert_eq!(month.expires_at(None, now), month.expires_at(None, now + 3600), "the same day");
        assert_eq!(Ttl { days: 0 }.expires_at(Some(now * 1000), now), None);
        assert!(Ttl { days: 36_500 }.expires_at(Some(i64::MIN), now).is_some());
    }

    #[test]
    fn json_is_written_as_attributes() {
        let json = serde_json::json!({"a": [1, -2.5, null], "b": {"c": true, "d": "e"}});
        let n = |text: &str| AttributeValue::N(text.to_owned());
        let a = AttributeValue::L(vec![n("1"), n("-2.5"), AttributeValue::Null(true)]);
        let b = Attributes::from([
            ("c".to_owned(), AttributeValue::Bool(true)),
            ("d".to_owned(), AttributeValue::S("e".to_owned())),
        ]);
        let b = AttributeValue::M(b);
        let expected = AttributeValue::M([("a".to_owned(), a), ("b".to_owned(), b)].into());
        assert_eq!(of_json(json), expected);
    }

    #[test]
    fn an_identity_that_comes_again_is_written_once() {
        let ids = ["a", "b", "a", "c", "b"].into_iter().map(str::to_owned);
        let (unique, first_of) = distinct(ids);
        assert_eq!(unique, [("a".to_owned(), 0), ("b".to_owned(), 1), ("c".to_owned(), 3)]);
        assert_eq!(first_of, [0, 1, 0, 3, 1]);
    }

    #[test]
    fn a_size_counts_names_and_values() {
        let map = AttributeValue::M([("ab".to_owned(), AttributeValue::S("xyz".into()))].into());
        assert!(size(&map) >= 3 + 1 + 2 + 3);
        assert!(size(&AttributeValue::S("é".repeat(100))) >= 200);
    }

    fn client(endpoint_url: String) -> Client {
        let config = aws_sdk_dynamodb::Config::builder()
            .behavior_version_latest()
            .endpoint_url(endpoint_url)
            .region(aws_sdk_dynamodb::config::Region::new("eu-west-1"))
            .allow_no_auth();
        Client::from_conf(config.build())
    }

    fn verdicts(model: &sawlog_model::Model, offsets: std::ops::Range<i64>) -> Vec<Verdict<'_>> {
        let verdict = |offset| {
            let origin = Origin::Kafka { cluster: None, topic: "t".into(), partition: 0, offset };
            let values = vec![Value::Number(1.0), Value::Missing];
            let scored = Scored {
                score: 0.5,
                by: crate::trust::By::local(model),
                values,
                attribution: None,
            };
            Verdict::new(model, Cow::Owned(origin), None, scored)
        };
        offsets.map(verdict).collect()
    }

    #[tokio::test]
    async fn what_is_left_unprocessed_is_written_in_a_later_round() {
        let (calls, seen) = std::sync::mpsc::channel();
        // Takes the first item of each call.
        let url = super::super::tests::serve(move |request| {
            let items = request["RequestItems"]["results"].as_array().expect("items").clone();
            calls.send(items.len()).expect("a listener");
            serde_json::json!({ "UnprocessedItems": { "results": items[1..] } })
        });
        let sink = DynamoDbResults::new(client(url), "results".into(), 30);
        let model = model(None);
        let written = sink.store(&verdicts(&model, 0..3), Until::FOREVER).await;
        assert!(matches!(written[..], [Ok(()), Ok(()), Ok(())]), "{written:?}");
        assert_eq!(seen.try_iter().collect::<Vec<_>>(), [3, 2, 1]);
        assert_eq!((sink.retries.take(), sink.retries.take()), (2, 0));
    }

    #[tokio::test]
    async fn an_item_that_stays_unprocessed_fails_alone_when_the_time_is_over() {
        let url = super::super::tests::serve(|request| {
            let items = request["RequestItems"]["results"].as_array().expect("items");
            let left = items.iter().filter(|item| {
                item["PutRequest"]["Item"]["offset"]["N"].as_str().expect("an offset") == "1"
            });
            let left: Vec<_> = left.cloned().collect();
            serde_json::json!({ "UnprocessedItems": { "results": left } })
        });
        let sink = DynamoDbResults::new(client(url), "results".into(), 30);
        let model = model(None);
        let until = Until::FOREVER.within(std::time::Duration::from_secs(5));
        let written = sink.store(&verdicts(&model, 0..60), until).await;
        let failed: Vec<usize> = (0..60).filter(|&index| written[index].is_err()).collect();
        assert_eq!(failed, [1]);
        // The pauses are drawn by chance: once in a while so short that the rounds are over first.
        assert!(
            matches!(written[1], Err(SinkError::OutOfTime | SinkError::NotAccepted { .. })),
            "{:?}",
            written[1]
        );
    }

    #[tokio::test]
    async fn an_item_over_the_limit_is_refused_without_a_call() {
        let model = model(None);
        let mut verdicts = verdicts(&model, 0..1);
        let values = vec![Value::Number(1.0), Value::Category("x".repeat(500_000).into())];
        let scored =
            Scored { score: 0.5, by: crate::trust::By::local(&model), values, attribution: None };
        verdicts[0] = Verdict::new(&model, Cow::Owned(verdicts[0].origin().clone()), None, scored);
        let sink = DynamoDbResults::new(client("http://127.0.0.1:1".into()), "results".into(), 30);
        let written = sink.store(&verdicts, Until::FOREVER).await;
        assert!(
            matches!(written[..], [Err(SinkError::TooLarge { limit: 409_600, .. })]),
            "{written:?}"
        );
    }
}
