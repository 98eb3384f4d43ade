//! Alerts to an SNS topic or a file, each once, and not too many.
//!
//! What was sent is remembered, so that a batch delivered again is silent; and after an alert its
//! feed is quiet for a cool-down, whose alerts are counted and told with the next one. Both memories
//! are in the results table if there is one, so that all instances of the function share them:
//!
//! - `alert/<hash>` is there once the alert was sent or held back;
//! - `cooldown/<feed>` has `until_ms`, `holder` (the alert that began it), and `held_back` and
//!   `held_back_anomalies`, which the next alert tells.
//!
//! Without a table they are in this process's memory, and each instance has its own.
//!
//! One that fails loses nothing: its anomalies are stored. It is logged and counted, and told if its batch
//! comes again.
//!
//! An alert is marked after it was published: a function killed in between publishes it once more. The
//! holder of a cool-down is let through it for that reason, so a batch delivered twice at once may be
//! told once for each delivery, and never not at all. FIFO topics and receivers that look at the
//! `id` drop the second.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::types::{AttributeValue, Put, ReturnValue, TransactWriteItem, Update};
use aws_sdk_sns::types::MessageAttributeValue;
use serde_json::json;

use super::SinkError;
use super::jsonl::JsonlFile;
use crate::alert::{Alert, HeldBack};
use crate::deadline::Until;

/// Most bytes of an SNS message with its attributes, less some for these.
const MAX_MESSAGE_BYTES: usize = (256 << 10) - 1024;
/// Longest that a batch waits for its alerts: results matter more.
const MAX_WAIT: Duration = Duration::from_secs(5);
/// How long nothing is tried after that: a topic that can't be reached (a VPC without a way to SNS) must
/// not cost every batch its wait.
const REST: Duration = Duration::from_secs(60);
/// Longest that it then waits to end the cool-down of an alert that failed.
const MAX_RELEASE_WAIT: Duration = Duration::from_secs(1);
/// How long a sent alert is remembered, in seconds: as long as a queue keeps a batch.
const MEMORY_SECS: i64 = 14 * 86_400;
/// Alerts that a process remembers at most.
const MAX_REMEMBERED: usize = 10_000;
/// SNS's limit for a message group.
const MAX_GROUP_CHARS: usize = 128;

/// Where alerts go.
#[derive(Debug)]
pub enum AlertsSink {
    /// An SNS topic.
    Sns {
        /// The client, of the topic's region.
        client: aws_sdk_sns::Client,
        /// The topic.
        topic_arn: String,
    },
    /// A file of JSON lines.
    Jsonl(JsonlFile),
}

/// Sends alerts, each once, and not too many. Nothing of it is ever in the way of the records.
#[derive(Debug)]
pub struct Alerts {
    sink: AlertsSink,
    ledger: Ledger,
    max_anomalies: usize,
    cooldown: Duration,
    /// Until then nothing is tried: a batch waited in vain.
    rests_until: Mutex<Option<Instant>>,
}

/// What became of a batch's alerts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AlertCounts {
    /// Sent now.
    pub sent: usize,
    /// Held back by a cool-down.
    pub held_back: usize,
    /// Neither; they are tried again if their batch comes again.
    pub failed: usize,
}

impl AlertCounts {
    /// Adds those of another batch.
    pub fn add(&mut self, other: Self) {
        self.sent += other.sent;
        self.held_back += other.held_back;
        self.failed += other.failed;
    }
}

/// What may be done with an alert.
#[derive(Debug, PartialEq, Eq)]
enum Leave {
    /// Send it, and tell of those held back.
    Send(HeldBack),
    /// It is held back, and counted.
    HeldBack,
    /// Nothing: it was sent or held back before.
    Known,
}

impl Alerts {
    /// Alerts that show so many anomalies at most, and after which a feed is quiet for the cool-down.
    pub fn new(sink: AlertsSink, ledger: Ledger, max_anomalies: usize, cooldown: Duration) -> Self {
        Self { sink, ledger, max_anomalies, cooldown, rests_until: Mutex::default() }
    }

    fn rests_until(&self) -> MutexGuard<'_, Option<Instant>> {
        self.rests_until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a batch's alerts, as far as there is time.
    pub async fn send(&self, alerts: &[Alert<'_>], until: Until) -> AlertCounts {
        let mut counts = AlertCounts::default();
        let (started, soon) = (Instant::now(), until.within(MAX_WAIT));
        for alert in alerts {
            let rests = self.rests_until().is_some_and(|at| at > Instant::now());
            let sent = if rests {
                Err(SinkError::NotAsked)
            } else {
                let sent = soon.limit(self.send_one(alert, soon)).await;
                sent.unwrap_or(Err(SinkError::OutOfTime))
            };
            match sent {
                Ok(Leave::Send(_)) => counts.sent += 1,
                Ok(Leave::HeldBack) => counts.held_back += 1,
                Ok(Leave::Known) => {}
                Err(fault) => {
                    counts.failed += 1;
                    let reason = crate::handler::chain(&fault);
                    tracing::error!(reason, id = alert.hash, feed = alert.feed, "alert not sent");
                    if rests {
                        continue;
                    }
                    if started.elapsed() >= MAX_WAIT {
                        *self.rests_until() = Some(Instant::now() + REST);
                    }
                    // So that the next one isn't held back for nothing.
                    let _ = until.within(MAX_RELEASE_WAIT).limit(self.ledger.release(alert)).await;
                }
            }
        }
        counts
    }

    async fn send_one(&self, alert: &Alert<'_>, until: Until) -> Result<Leave, SinkError> {
        let cooldown_ms = i64::try_from(self.cooldown.as_millis()).unwrap_or(i64::MAX / 2);
        let leave = self.ledger.ask(alert, cooldown_ms).await?;
        if let Leave::Send(held_back) = leave {
            self.publish(alert, held_back, until).await?;
            if let Err(fault) = self.ledger.sent(alert, held_back).await {
                let reason = crate::handler::chain(&fault);
                tracing::warn!(reason, id = alert.hash, "alert sent, but not remembered");
            }
        }
        Ok(leave)
    }

    async fn publish(
        &self,
        alert: &Alert<'_>,
        held_back: HeldBack,
        until: Until,
    ) -> Result<(), SinkError> {
        let (client, topic_arn) = match &self.sink {
            AlertsSink::Jsonl(file) => {
                let body = alert.body(self.max_anomalies, held_back);
                let id = format!("alert/{}", alert.hash);
                return file.append(&[body], |_| id.clone(), until).pop().unwrap_or(Ok(()));
            }
            AlertsSink::Sns { client, topic_arn } => (client, topic_arn),
        };
        let topic = MessageAttributeValue::builder().data_type("String");
        // An attribute can't be empty.
        let topic = topic.string_value(if alert.topic.is_empty() { "-" } else { &alert.topic });
        let topic = topic.build().map_err(|error| SinkError::Request(Arc::new(error)))?;
        let mut call = client
            .publish()
            .topic_arn(topic_arn)
            .subject(alert.subject())
            .message_structure("json")
            .message(message(alert, self.max_anomalies, held_back)?)
            .message_attributes("topic", topic);
        if topic_arn.ends_with(".fifo") {
            let group = alert.feed.chars().map(|c| if c.is_ascii_graphic() { c } else { '-' });
            call = call.message_deduplication_id(&alert.hash);
            call = call.message_group_id(group.take(MAX_GROUP_CHARS).collect::<String>());
        }
        match call.send().await {
            Ok(_) => Ok(()),
            Err(error) => Err(SinkError::Sns(Arc::new(error))),
        }
    }
}

/// The message for every kind of subscriber: JSON for programs, a subject for telephones, and the text
/// for all others; with fewer records if it would be too large.
fn message(
    alert: &Alert<'_>,
    max_anomalies: usize,
    held_back: HeldBack,
) -> Result<String, SinkError> {
    let mut shown = max_anomalies.min(alert.anomalies.len());
    loop {
        let body = serde_json::to_string(&alert.body(shown, held_back));
        let body = body.map_err(|error| SinkError::Json(Arc::new(error)))?;
        let text = alert.text(shown, held_back);
        let message = json!({
            "default": text, "sms": alert.subject(),
            "http": body, "https": body, "sqs": body, "lambda": body, "firehose": body,
        });
        let message = message.to_string();
        if message.len() <= MAX_MESSAGE_BYTES || shown == 0 {
            return Ok(message);
        }
        shown /= 2;
    }
}

fn now_ms() -> i64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX / 2)
}

/// What was sent and what is quiet.
#[derive(Debug)]
pub enum Ledger {
    /// In the results table.
    Table {
        /// The client.
        client: aws_sdk_dynamodb::Client,
        /// The table.
        table: String,
    },
    /// In this process.
    Memory(Mutex<Memory>),
}

/// What a process remembers.
#[derive(Debug, Default)]
pub struct Memory {
    known: VecDeque<String>,
    cooldowns: HashMap<String, Cooldown>,
}

#[derive(Debug, Default)]
struct Cooldown {
    until_ms: i64,
    holder: String,
    held_back: HeldBack,
}

impl Ledger {
    /// One in this process, empty.
    pub fn memory() -> Self {
        Self::Memory(Mutex::default())
    }

    async fn ask(&self, alert: &Alert<'_>, cooldown_ms: i64) -> Result<Leave, SinkError> {
        match self {
            Self::Table { client, table } => ask_table(client, table, alert, cooldown_ms).await,
            Self::Memory(memory) => {
                let mut memory = memory.lock().unwrap_or_else(PoisonError::into_inner);
                Ok(memory.ask(alert, now_ms(), cooldown_ms))
            }
        }
    }

    async fn sent(&self, alert: &Alert<'_>, told: HeldBack) -> Result<(), SinkError> {
        match self {
            Self::Table { client, table } => {
                let told = (-i128::from(told.alerts), -i128::from(told.anomalies));
                record(client, table, alert, told, None).await
            }
            Self::Memory(memory) => {
                let mut memory = memory.lock().unwrap_or_else(PoisonError::into_inner);
                memory.remember(alert);
                if let Some(cooldown) = memory.cooldowns.get_mut(&alert.feed) {
                    let left = &mut cooldown.held_back;
                    left.alerts = left.alerts.saturating_sub(told.alerts);
                    left.anomalies = left.anomalies.saturating_sub(told.anomalies);
                }
                Ok(())
            }
        }
    }

    async fn release(&self, alert: &Alert<'_>) -> Result<(), SinkError> {
        match self {
            Self::Table { client, table } => {
                let call = client
                    .update_item()
                    .table_name(table)
                    .key("id", text(cooldown_id(alert)))
                    .update_expression("SET until_ms = :zero")
                    .condition_expression("holder = :me")
                    .expression_attribute_values(":zero", int(0))
                    .expression_attribute_values(":me", text(&alert.hash));
                call.send().await.map(drop).map_err(ledger)
            }
            Self::Memory(memory) => {
                let mut memory = memory.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(cooldown) = memory.cooldowns.get_mut(&alert.feed)
                    && cooldown.holder == alert.hash
                {
                    cooldown.until_ms = 0;
                }
                Ok(())
            }
        }
    }
}

impl Memory {
    fn ask(&mut self, alert: &Alert<'_>, now: i64, cooldown_ms: i64) -> Leave {
        if self.known.iter().any(|hash| *hash == alert.hash) {
            return Leave::Known;
        }
        if self.cooldowns.len() >= MAX_REMEMBERED {
            self.cooldowns.retain(|_, cooldown| cooldown.until_ms > now);
        }
        let cooldown = self.cooldowns.entry(alert.feed.clone()).or_default();
        if cooldown.until_ms > now && cooldown.holder != alert.hash {
            cooldown.held_back.alerts += 1;
            cooldown.held_back.anomalies += alert.anomalies.len() as u64;
            self.remember(alert);
            return Leave::HeldBack;
        }
        cooldown.until_ms = now + cooldown_ms;
        alert.hash.clone_into(&mut cooldown.holder);
        Leave::Send(cooldown.held_back)
    }

    fn remember(&mut self, alert: &Alert<'_>) {
        if self.known.len() >= MAX_REMEMBERED {
            self.known.pop_front();
        }
        self.known.push_back(alert.hash.clone());
    }
}

async fn ask_table(
    client: &aws_sdk_dynamodb::Client,
    table: &str,
    alert: &Alert<'_>,
    cooldown_ms: i64,
) -> Result<Leave, SinkError> {
    let known = client.get_item().table_name(table).key("id", text(alert_id(alert)));
    let known = known.consistent_read(true).send().await.map_err(ledger)?;
    if known.item.is_some() {
        return Ok(Leave::Known);
    }
    let now = now_ms();
    let call = client
        .update_item()
        .table_name(table)
        .key("id", text(cooldown_id(alert)))
        .update_expression("SET until_ms = :until, holder = :me, expires_at = :expires")
        .condition_expression("attribute_not_exists(until_ms) OR until_ms <= :now OR holder = :me")
        .expression_attribute_values(":until", int(now + cooldown_ms))
        .expression_attribute_values(":now", int(now))
        .expression_attribute_values(":me", text(&alert.hash))
        .expression_attribute_values(":expires", int(now / 1000 + MEMORY_SECS))
        .return_values(ReturnValue::AllNew);
    match call.send().await {
        Ok(answer) => {
            let count = |name: &str| {
                let value = answer.attributes.as_ref().and_then(|item| item.get(name));
                value.and_then(|value| value.as_n().ok()?.parse().ok()).unwrap_or(0)
            };
            let held = (count("held_back"), count("held_back_anomalies"));
            Ok(Leave::Send(HeldBack { alerts: held.0, anomalies: held.1 }))
        }
        Err(error) => {
            let held = |error: &aws_sdk_dynamodb::operation::update_item::UpdateItemError| {
                error.is_conditional_check_failed_exception()
            };
            if !error.as_service_error().is_some_and(held) {
                return Err(ledger(error));
            }
            let count = (1, alert.anomalies.len() as i128);
            let fresh = Some("attribute_not_exists(id)");
            record(client, table, alert, count, fresh).await?;
            Ok(Leave::HeldBack)
        }
    }
}

/// Marks an alert as known and counts those held back, both or neither.
async fn record(
    client: &aws_sdk_dynamodb::Client,
    table: &str,
    alert: &Alert<'_>,
    (alerts, anomalies): (i128, i128),
    condition: Option<&str>,
) -> Result<(), SinkError> {
    let request = |error| SinkError::Request(Arc::new(error));
    let mark = Put::builder()
        .table_name(table)
        .item("id", text(alert_id(alert)))
        .item("feed", text(&alert.feed))
        .item("anomalies", int(alert.anomalies.len() as i64))
        .item("expires_at", int(now_ms() / 1000 + MEMORY_SECS))
        .set_condition_expression(condition.map(str::to_owned))
        .build()
        .map_err(request)?;
    let count = Update::builder()
        .table_name(table)
        .key("id", text(cooldown_id(alert)))
        .update_expression("ADD held_back :alerts, held_back_anomalies :anomalies")
        .expression_attribute_values(":alerts", AttributeValue::N(alerts.to_string()))
        .expression_attribute_values(":anomalies", AttributeValue::N(anomalies.to_string()))
        .build()
        .map_err(request)?;
    let call = client
        .transact_write_items()
        .transact_items(TransactWriteItem::builder().put(mark).build())
        .transact_items(TransactWriteItem::builder().update(count).build());
    match call.send().await {
        Ok(_) => Ok(()),
        // Another delivery of the batch was quicker.
        Err(error) if condition.is_some() && is_canceled(&error) => Ok(()),
        Err(error) => Err(ledger(error)),
    }
}

fn is_canceled(
    error: &SdkError<aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError>,
) -> bool {
    use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError as Error;
    let Some(Error::TransactionCanceledException(canceled)) = error.as_service_error() else {
        return false;
    };
    canceled.cancellation_reasons().iter().any(|it| it.code() == Some("ConditionalCheckFailed"))
}

fn ledger(error: impl std::error::Error + Send + Sync + 'static) -> SinkError {
    SinkError::Ledger(Arc::new(error))
}

fn alert_id(alert: &Alert<'_>) -> String {
    format!("alert/{}", alert.hash)
}

fn cooldown_id(alert: &Alert<'_>) -> String {
    format!("cooldown/{}", alert.feed)
}

fn text(text: impl Into<String>) -> AttributeValue {
    AttributeValue::S(text.into())
}

fn int(value: i64) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use sawlog_model::{FeatureShare, Model, ThresholdRule, Value};

    use super::*;
    use crate::origin::Origin;
    use crate::scorer::Scored;
    use crate::scorer::tests::model;
    use crate::verdict::Verdict;

    fn verdicts<'m>(
        model: &'m Model,
        topic: &str,
        offsets: &[i64],
        path: &str,
    ) -> Vec<Verdict<'m>> {
        let verdict = |&offset: &i64| {
            let attribution = vec![
                FeatureShare { feature: 0, high: 0.5, low: 0.0, peak: None },
                FeatureShare { feature: 1, high: 0.25, low: 0.25, peak: None },
            ];
            let values = vec![Value::Number(60.0), Value::Category(path.into())];
            let scored = Scored {
                score: 1.5,
                by: crate::trust::By::local(model),
                values,
                attribution: Some(attribution),
            };
            let origin = Origin::Kafka { cluster: None, topic: topic.into(), partition: 0, offset };
            Verdict::new(model, Cow::Owned(origin), None, scored)
        };
        offsets.iter().map(verdict).collect()
    }

    fn alert<'a>(verdicts: &'a [Verdict<'a>]) -> Alert<'a> {
        let alerts = Alert::of_batch(verdicts.iter().map(Verdict::origin), verdicts.iter());
        alerts.into_iter().next().expect("an alert")
    }

    fn held(alerts: u64, anomalies: u64) -> Leave {
        Leave::Send(HeldBack { alerts, anomalies })
    }

    #[tokio::test]
    async fn a_topic_is_quiet_after_an_alert_and_the_next_one_counts_those_held_back() {
        let model = model(Some(ThresholdRule::Value(1.0)));
        let of = |topic, offsets: &[i64]| verdicts(&model, topic, offsets, "/1");
        let (a, b, c) = (of("t", &[1]), of("t", &[2, 3]), of("t", &[4, 5, 6]));
        let (d, other) = (of("t", &[7]), of("u", &[1]));
        let (a, b, c, d, other) = (alert(&a), alert(&b), alert(&c), alert(&d), alert(&other));
        let mut memory = Memory::default();
        assert_eq!(memory.ask(&a, 0, 100), held(0, 0));
        // Not sent after all, and delivered again.
        assert_eq!(memory.ask(&a, 10, 100), held(0, 0));
        memory.remember(&a);
        assert_eq!(memory.ask(&a, 20, 100), Leave::Known);
        assert_eq!(memory.ask(&b, 30, 100), Leave::HeldBack);
        assert_eq!(memory.ask(&b, 40, 100), Leave::Known, "held back is counted once");
        assert_eq!(memory.ask(&other, 50, 100), held(0, 0), "another topic isn't quiet");
        assert_eq!(memory.ask(&c, 109, 100), Leave::HeldBack);
        assert_eq!(memory.ask(&d, 110, 100), held(2, 5));
        let ledger = Ledger::Memory(Mutex::new(memory));
        ledger.sent(&d, HeldBack { alerts: 2, anomalies: 5 }).await.expect("remembered");
        let late = of("t", &[8]);
        let Ledger::Memory(memory) = ledger else { unreachable!() };
        let mut memory = memory.into_inner().expect("sound");
        assert_eq!(memory.ask(&alert(&late), 1000, 100), held(0, 0), "told once");
    }

    #[tokio::test]
    async fn an_alert_that_failed_makes_nothing_quiet() {
        let model = model(Some(ThresholdRule::Value(1.0)));
        let (a, b) = (verdicts(&model, "t", &[1], "/1"), verdicts(&model, "t", &[2], "/1"));
        let ledger = Ledger::memory();
        assert_eq!(ledger.ask(&alert(&a), 60_000).await.expect("asked"), held(0, 0));
        ledger.release(&alert(&a)).await.expect("released");
        assert_eq!(ledger.ask(&alert(&b), 60_000).await.expect("asked"), held(0, 0));
    }

    #[test]
    fn what_a_process_remembers_is_bounded() {
        let model = model(Some(ThresholdRule::Value(1.0)));
        let verdicts = verdicts(&model, "t", &[1], "/1");
        let mut alert = alert(&verdicts);
        let mut memory = Memory::default();
        let count = i64::try_from(MAX_REMEMBERED).expect("small") + 10;
        for index in 0..count {
            (alert.hash, alert.feed) = (index.to_string(), format!("topic {index}"));
            assert_eq!(memory.ask(&alert, index, 1), held(0, 0));
            memory.remember(&alert);
        }
        assert_eq!(memory.known.len(), MAX_REMEMBERED);
        assert!(memory.cooldowns.len() <= MAX_REMEMBERED, "{}", memory.cooldowns.len());
        assert_eq!(memory.ask(&alert, count, 1), Leave::Known);
    }

    #[test]
    fn a_message_keeps_to_the_limit_with_as_many_anomalies_as_have_room() {
        let model = model(Some(ThresholdRule::Value(1.0)));
        let offsets: Vec<i64> = (0..1000).collect();
        // Every character is six when JSON stands in JSON.
        let verdicts = verdicts(&model, "t", &offsets, &"\u{1}\"".repeat(500));
        let alert = alert(&verdicts);
        let all = message(&alert, 3, HeldBack::default()).expect("a message");
        let all: serde_json::Value = serde_json::from_str(&all).expect("json");
        let body: serde_json::Value =
            serde_json::from_str(all["sqs"].as_str().expect("text")).expect("json");
        assert_eq!(body["most_unusual"].as_array().map(Vec::len), Some(3));
        assert_eq!(body["anomalies"], 1000);
        assert_eq!(all["sms"], "Sawlog: 1000 of 1000 records of topic t are unusual");
        let most = message(&alert, 1000, HeldBack::default()).expect("a message");
        assert!(most.len() <= MAX_MESSAGE_BYTES, "{}", most.len());
        assert!(most.len() > MAX_MESSAGE_BYTES / 3, "{}", most.len());
    }

    #[tokio::test]
    async fn a_file_has_each_alert_once_with_its_text() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("alerts.jsonl");
        let sink = AlertsSink::Jsonl(JsonlFile::open(&path).expect("a file"));
        let alerts = Alerts::new(sink, Ledger::memory(), 2, Duration::from_secs(60));
        let model = model(Some(ThresholdRule::Value(1.0)));
        let (a, b) = (verdicts(&model, "t", &[1, 2, 3], "/1"), verdicts(&model, "t", &[4], "/1"));
        for (verdicts, sent, held_back) in [(&a, 1, 0), (&a, 0, 0), (&b, 0, 1)] {
            let counts = alerts.send(&[alert(verdicts)], Until::FOREVER).await;
            assert_eq!(counts, AlertCounts { sent, held_back, failed: 0 });
        }
        let text = std::fs::read_to_string(&path).expect("text");
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("json")).collect();
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0]["most_unusual"].as_array().map(Vec::len), Some(2));
        let words = lines[0]["text"].as_str().expect("text");
        assert!(words.starts_with("3 of 3 records of topic t are unusual.\n"), "{words}");
        assert!(words.contains("\n1 more is not shown.\n"), "{words}");
        let over = Until::before(Some(std::time::Instant::now()), Duration::ZERO);
        let c = verdicts(&model, "u", &[5], "/1");
        let counts = alerts.send(&[alert(&c)], over).await;
        assert_eq!(counts, AlertCounts { sent: 0, held_back: 0, failed: 1 });
    }
}
