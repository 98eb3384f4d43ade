//! What a person on call is told of a batch's anomalies: where they are, how unusual, and which
//! features make them so.
//!
//! One alert is about one feed (a topic, a stream, a bucket) in one batch. Its name is made of the
//! identities of all its anomalies, so that the batch delivered again gives the same alert, and a
//! batch of which more could be stored the second time gives another. Values of the features are in
//! it: they are what it is for.

use std::cmp::Ordering;
use std::fmt::Write as _;

use aws_sdk_sns::primitives::{DateTime, DateTimeFormat};
use sawlog_model::{Fitted, Value};
use serde::Serialize;

use crate::origin::Origin;
use crate::summary::Identities;
use crate::verdict::{Share, Verdict};

/// Features that a record's line names at most; the rest hardly matter.
const MAX_FEATURES: usize = 5;
/// Least share of a score that is worth a line.
const LEAST_SHARE: f32 = 0.1;
/// Longest category or name that is quoted, in characters.
const MAX_QUOTED_CHARS: usize = 100;
/// Longest name of a feed, in characters: more than a topic, stream or bucket can have.
const MAX_NAME_CHARS: usize = 256;
/// SNS's own limit for a subject, in characters.
const MAX_SUBJECT_CHARS: usize = 99;

/// The anomalies of one feed in a batch.
#[derive(Debug)]
pub struct Alert<'a> {
    /// A hash of the anomalies' identities.
    pub hash: String,
    /// The feed, in words: `topic orders`.
    pub feed: String,
    /// The feed's own name, `orders`; empty for records that were given directly.
    pub topic: String,
    /// Records of the feed in the batch.
    pub records: usize,
    /// Its anomalies, the most unusual first.
    pub anomalies: Vec<&'a Verdict<'a>>,
}

/// Alerts that the cool-down held back since the last one was sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct HeldBack {
    /// How many alerts.
    pub alerts: u64,
    /// How many anomalies they were about.
    pub anomalies: u64,
}

impl<'a> Alert<'a> {
    /// The alerts about a batch: one a feed that has anomalies.
    pub fn of_batch(
        origins: impl Iterator<Item = &'a Origin> + Clone,
        anomalies: impl Iterator<Item = &'a Verdict<'a>>,
    ) -> Vec<Self> {
        let mut alerts: Vec<(Feed<'_>, Vec<&'a Verdict<'a>>)> = Vec::new();
        for verdict in anomalies {
            let feed = Feed::of(verdict.origin());
            match alerts.iter_mut().find(|(known, _)| *known == feed) {
                Some((_, about)) => about.push(verdict),
                None => alerts.push((feed, vec![verdict])),
            }
        }
        let alert = |(feed, mut anomalies): (Feed<'_>, Vec<&'a Verdict<'a>>)| {
            let mut identities = Identities::default();
            anomalies.iter().for_each(|verdict| identities.add(&verdict.id()));
            anomalies.sort_by(|a, b| by_excess(b, a));
            Self {
                hash: identities.hash(),
                feed: feed.in_words(),
                topic: cut(feed.topic, MAX_NAME_CHARS),
                records: origins.clone().filter(|origin| Feed::of(origin) == feed).count(),
                anomalies,
            }
        };
        alerts.into_iter().map(alert).collect()
    }

    /// What stands in a list of messages: ASCII, at most 99 characters.
    pub fn subject(&self) -> String {
        let text = format!("Sawlog: {}", self.headline());
        let shown = |c: char| if c == ' ' || c.is_ascii_graphic() { c } else { '?' };
        text.chars().map(shown).take(MAX_SUBJECT_CHARS).collect()
    }

    fn headline(&self) -> String {
        let Self { records, feed, .. } = self;
        match self.anomalies.len() {
            1 => format!("1 of {records} records of {feed} is unusual"),
            count => format!("{count} of {records} records of {feed} are unusual"),
        }
    }

    /// The text for a person, with the `shown` most unusual records.
    pub fn text(&self, shown: usize, held_back: HeldBack) -> String {
        let mut out = String::new();
        // Writing to a string can't fail.
        let _ = self.write_text(&mut out, shown, held_back);
        out
    }

    fn write_text(&self, out: &mut String, shown: usize, held_back: HeldBack) -> std::fmt::Result {
        let (count, feed) = (self.anomalies.len(), &self.feed);
        writeln!(out, "{}.", self.headline())?;
        for (index, verdict) in self.anomalies.iter().take(shown).enumerate() {
            write!(out, "\n{}. {}", index + 1, place(verdict.origin()))?;
            if let Some(time) = time(verdict) {
                write!(out, " at {time}")?;
            }
            let (score, threshold) = (verdict.score(), verdict.threshold().unwrap_or_default());
            match times_threshold(verdict) {
                Some(times) => {
                    write!(out, ": {times:.1} times the threshold")?;
                    writeln!(out, " (score {score:.2}, threshold {threshold:.2})")?;
                }
                None => writeln!(out, ": score {score:.2}, threshold {threshold:.2}")?,
            }
            for (name, value, fitted, share) in features(verdict) {
                if share.share >= LEAST_SHARE {
                    let percent = 100.0 * share.share;
                    let words = because(name, value, fitted, share);
                    writeln!(out, "   - {words}: {percent:.0} % of the score")?;
                }
            }
        }
        let left = count.saturating_sub(shown);
        if left > 0 {
            let are = if left == 1 { "is" } else { "are" };
            writeln!(out, "\n{left} more {are} not shown.")?;
        }
        let HeldBack { alerts, anomalies } = held_back;
        if alerts > 0 {
            writeln!(
                out,
                "\nHeld back since the last message about {feed}: {}, about {}.",
                counted(alerts, "alert"),
                counted(anomalies, "unusual record"),
            )?;
        }
        if let Some(first) = self.anomalies.first() {
            write!(out, "\nRecord 1 is {}, scored by ", first.id())?;
            let model = first.model_id().unwrap_or("none");
            match (first.endpoint(), first.exception()) {
                (Some(endpoint), Some(by)) => {
                    writeln!(out, "endpoint {endpoint}: model {model} is {}.", by.reason)?;
                }
                (_, Some(by)) => writeln!(out, "model {model}, which is {}.", by.reason)?,
                (_, None) => writeln!(out, "model {model}.")?,
            }
        }
        Ok(())
    }

    /// The same for a program, as JSON.
    pub fn body(&self, shown: usize, held_back: HeldBack) -> Body<'_> {
        Body {
            id: format!("alert/{}", self.hash),
            summary: self.subject(),
            topic: &self.topic,
            records: self.records,
            anomalies: self.anomalies.len(),
            held_back,
            most_unusual: self.anomalies.iter().take(shown).map(|it| Unusual::of(it)).collect(),
            text: self.text(shown, held_back),
        }
    }
}

/// An alert as JSON. A receiver that knows its `id` already has it for the second time.
#[derive(Debug, Serialize)]
pub struct Body<'a> {
    id: String,
    summary: String,
    topic: &'a str,
    records: usize,
    anomalies: usize,
    held_back: HeldBack,
    most_unusual: Vec<Unusual<'a>>,
    text: String,
}

#[derive(Debug, Serialize)]
struct Unusual<'a> {
    id: String,
    origin: &'a Origin,
    timestamp_ms: Option<i64>,
    score: f32,
    threshold: Option<f64>,
    times_threshold: Option<f64>,
    because: Vec<Because<'a>>,
    model: Option<&'a str>,
    scorer: &'static str,
}

#[derive(Debug, Serialize)]
struct Because<'a> {
    feature: &'a str,
    value: Option<String>,
    high: f32,
    low: f32,
    share: f32,
    words: String,
}

impl<'a> Unusual<'a> {
    fn of(verdict: &'a Verdict<'a>) -> Self {
        let features = features(verdict).into_iter();
        let because = features.map(|(feature, value, fitted, share)| Because {
            feature,
            value: match value {
                Value::Missing => None,
                Value::Number(value) => Some(value.to_string()),
                Value::Category(name) => Some(quoted(name)),
            },
            high: share.high,
            low: share.low,
            share: share.share,
            words: because(feature, value, fitted, share),
        });
        Self {
            id: verdict.id(),
            origin: verdict.origin(),
            timestamp_ms: verdict.timestamp_ms(),
            score: verdict.score(),
            threshold: verdict.threshold(),
            times_threshold: times_threshold(verdict),
            because: because.collect(),
            model: verdict.model_id(),
            scorer: verdict.scorer(),
        }
    }
}

/// How many times the threshold a score is; none where that says nothing.
fn times_threshold(verdict: &Verdict<'_>) -> Option<f64> {
    let threshold = verdict.threshold().filter(|threshold| *threshold > 0.0)?;
    Some(f64::from(verdict.score()) / threshold)
}

fn by_excess(a: &Verdict<'_>, b: &Verdict<'_>) -> Ordering {
    let excess = |verdict: &Verdict<'_>| {
        times_threshold(verdict).unwrap_or_else(|| f64::from(verdict.score()))
    };
    excess(a).total_cmp(&excess(b))
}

/// A verdict's features that matter most, the greatest share first.
fn features<'a>(verdict: &'a Verdict<'a>) -> Vec<(&'a str, &'a Value, &'a Fitted, Share)> {
    let Some(shares) = verdict.attribution() else { return Vec::new() };
    let fitted = verdict.fitted();
    let mut features: Vec<_> = verdict
        .features()
        .zip(fitted)
        .zip(shares)
        .map(|(((name, value), fitted), (_, share))| (name, value, fitted, share))
        .collect();
    features.sort_by(|(.., a), (.., b)| b.share.total_cmp(&a.share));
    features.truncate(MAX_FEATURES);
    features
}

/// Why a feature is unusual, in words, beside what 98 % of the training records had.
fn because(name: &str, value: &Value, fitted: &Fitted, share: Share) -> String {
    let name = quoted(name);
    match (value, fitted) {
        (Value::Number(value), Fitted::Number { p01, p99, .. }) => {
            let (shown, usual) = (number(*value), format!("{} to {}", number(*p01), number(*p99)));
            let width = p99 - p01;
            let place = if *value > p99 + width {
                "is far above what is usual"
            } else if value > p99 {
                "is above what is usual"
            } else if *value < p01 - width {
                "is far below what is usual"
            } else if value < p01 {
                "is below what is usual"
            } else if share.high >= share.low {
                "is high beside the other values, though within what is usual"
            } else {
                "is low beside the other values, though within what is usual"
            };
            format!("{name} {shown} {place} ({usual})")
        }
        (Value::Number(value), _) => format!("{name} {} is unusual", number(*value)),
        (Value::Missing, _) => format!("{name} is missing"),
        (Value::Category(category), fitted) => {
            let known = match fitted {
                Fitted::OneHot { categories } => categories.iter().any(|it| **it == **category),
                Fitted::Frequency { categories, .. } => {
                    categories.iter().any(|(it, _)| **it == **category)
                }
                Fitted::Number { .. } | Fitted::Constant => true,
            };
            let place = if known { "is rare here" } else { "is none of the usual ones" };
            format!("{name} \"{}\" {place}", quoted(category))
        }
    }
}

/// A name or value as it is quoted: not too long, on one line.
fn quoted(text: &str) -> String {
    cut(text, MAX_QUOTED_CHARS)
}

fn cut(text: &str, max_chars: usize) -> String {
    text.chars().take(max_chars).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// A number as a person writes it: thousands parted by commas, four digits of what is not whole.
fn number(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude >= 1e15 || (magnitude > 0.0 && magnitude < 1e-4) {
        return format!("{value:.3e}");
    }
    if value.fract() != 0.0 && magnitude < 1000.0 {
        let text = format!("{value:.4}");
        return text.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    let digits = format!("{magnitude:.0}");
    let mut out = String::from(if value < 0.0 { "-" } else { "" });
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// When a record was made, to the second.
fn time(verdict: &Verdict<'_>) -> Option<String> {
    let seconds = verdict.timestamp_ms()? / 1000;
    DateTime::from_secs(seconds).fmt(DateTimeFormat::DateTime).ok()
}

/// What a record came with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Feed<'a> {
    /// What such a feed is called.
    kind: &'static str,
    /// Its name; may be empty.
    topic: &'a str,
}

impl<'a> Feed<'a> {
    fn of(origin: &'a Origin) -> Self {
        let kind = match origin {
            Origin::Kafka { .. } | Origin::KafkaUnplaced { .. } => "topic",
            Origin::Kinesis { .. } => "stream",
            Origin::S3 { .. } => "bucket",
            Origin::Sqs { .. } => "queue",
            Origin::Direct { .. } | Origin::Unplaced { .. } => "direct invocations",
            Origin::File { .. } => "files",
        };
        Self { kind, topic: origin.topic() }
    }

    fn in_words(self) -> String {
        let words = format!("{} {}", self.kind, cut(self.topic, MAX_NAME_CHARS));
        words.trim_end().to_owned()
    }
}

/// A record's place in its feed, in words.
fn place(origin: &Origin) -> String {
    match origin {
        Origin::Kafka { partition, offset, .. } => format!("Partition {partition} offset {offset}"),
        Origin::Kinesis { shard, sequence_number, .. } => {
            format!("Shard {shard} sequence number {sequence_number}")
        }
        Origin::S3 { key, line, .. } => format!("{} line {line}", quoted(key)),
        Origin::Sqs { message_id, .. } => format!("Message {message_id}"),
        Origin::File { path, line, .. } => format!("{path} line {line}"),
        Origin::KafkaUnplaced { .. } | Origin::Direct { .. } | Origin::Unplaced { .. } => {
            origin.identity()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use sawlog_model::{FeatureShare, Model, ThresholdRule};

    use super::*;
    use crate::scorer::Scored;
    use crate::scorer::tests::model;

    fn origin(topic: &str, offset: i64) -> Origin {
        Origin::Kafka { cluster: None, topic: topic.into(), partition: 3, offset }
    }

    fn verdict<'m>(
        model: &'m Model,
        origin: Origin,
        score: f32,
        ms: f64,
        path: &str,
    ) -> Verdict<'m> {
        let attribution = vec![
            FeatureShare { feature: 0, high: 0.75, low: 0.0, peak: None },
            FeatureShare { feature: 1, high: 0.125, low: 0.125, peak: None },
        ];
        let scored = Scored {
            score,
            by: crate::trust::By::local(model),
            values: vec![Value::Number(ms), Value::Category(path.into())],
            attribution: Some(attribution),
        };
        Verdict::new(model, Cow::Owned(origin), Some(1_661_140_339_572), scored)
    }

    const NONE: HeldBack = HeldBack { alerts: 0, anomalies: 0 };

    #[test]
    fn the_text_says_what_where_how_unusual_and_why() {
        let model = model(Some(ThresholdRule::Value(1.0)));
        let verdicts = [
            verdict(&model, origin("orders", 12_345), 1.5, 60.0, "/1"),
            verdict(&model, origin("orders", 12_346), 2.87, 930_250.0, "/cart"),
            verdict(&model, origin("orders", 12_347), 1.25, 20.5, "/1"),
        ];
        let records: Vec<Origin> =
            (12_340..12_440).map(|offset| origin("orders", offset)).collect();
        let alerts = Alert::of_batch(records.iter(), verdicts.iter());
        assert_eq!(alerts.len(), 1);
        assert_eq!(alerts[0].subject(), "Sawlog: 3 of 100 records of topic orders are unusual");
        let expected = format!(
            "\
3 of 100 records of topic orders are unusual.

1. Partition 3 offset 12346 at 2022-08-22T03:52:19Z: 2.9 times the threshold (score 2.87, threshold 1.00)
   - duration_ms 930,250 is far above what is usual (0 to 49): 75 % of the score
   - path \"/cart\" is none of the usual ones: 25 % of the score

2. Partition 3 offset 12345 at 2022-08-22T03:52:19Z: 1.5 times the threshold (score 1.50, threshold 1.00)
   - duration_ms 60 is above what is usual (0 to 49): 75 % of the score
   - path \"/1\" is rare here: 25 % of the score

1 more is not shown.

Held back since the last message about topic orders: 1 alert, about 4 unusual records.

Record 1 is kafka/orders/3/12346, scored by model {}.
",
            model.id()
        );
        let held_back = HeldBack { alerts: 1, anomalies: 4 };
        assert_eq!(alerts[0].text(2, held_back), expected);
        let text = alerts[0].text(10, NONE);
        assert!(!text.contains("not shown") && !text.contains("Held back"), "{text}");
        let low = "duration_ms 20.5 is high beside the other values, though within what is usual";
        assert!(text.contains(low), "{text}");
    }

    #[test]
    fn the_body_says_the_same_to_a_program() {
        let model = model(Some(ThresholdRule::Value(1.0)));
        let verdicts = [verdict(&model, origin("t", 7), 1.5, 60.0, "/1")];
        let records = [origin("t", 7), origin("t", 8)];
        let alerts = Alert::of_batch(records.iter(), verdicts.iter());
        let mut body = serde_json::to_value(alerts[0].body(10, NONE)).expect("json");
        assert_eq!(body["text"].take(), alerts[0].text(10, NONE));
        let mut identities = Identities::default();
        identities.add("kafka/t/3/7");
        let expected = serde_json::json!({
            "id": format!("alert/{}", identities.hash()),
            "summary": "Sawlog: 1 of 2 records of topic t is unusual",
            "topic": "t", "records": 2, "anomalies": 1,
            "held_back": {"alerts": 0, "anomalies": 0},
            "most_unusual": [{
                "id": "kafka/t/3/7",
                "origin": {"source": "kafka", "topic": "t", "partition": 3, "offset": 7},
                "timestamp_ms": 1_661_140_339_572_i64,
                "score": 1.5, "threshold": 1.0, "times_threshold": 1.5,
                "because": [
                    {"feature": "duration_ms", "value": "60", "high": 0.75, "low": 0.0, "share": 0.75,
                     "words": "duration_ms 60 is above what is usual (0 to 49)"},
                    {"feature": "path", "value": "/1", "high": 0.125, "low": 0.125, "share": 0.25,
                     "words": "path \"/1\" is rare here"},
                ],
                "model": model.id(),
                "scorer": "local",
            }],
            "text": null,
        });
        assert_eq!(body, expected);
    }

    #[test]
    fn each_feed_has_its_alert_and_the_order_of_records_changes_none() {
        let model = model(Some(ThresholdRule::Value(1.0)));
        let s3 =
            |line| Origin::S3 { bucket: "a".into(), key: "k".into(), version: "v".into(), line };
        let mut records = vec![origin("a", 1), s3(1), origin("b", 1), origin("a", 2), s3(2), s3(3)];
        let alerts = |records: &[Origin]| -> Vec<(String, usize, usize, String)> {
            let verdicts: Vec<Verdict<'_>> = records
                .iter()
                .filter(|origin| origin.topic() == "a")
                .map(|origin| verdict(&model, origin.clone(), 1.5, 60.0, "/1"))
                .collect();
            let alerts = Alert::of_batch(records.iter(), verdicts.iter());
            let told = |it: Alert<'_>| (it.feed, it.anomalies.len(), it.records, it.hash);
            let mut told: Vec<_> = alerts.into_iter().map(told).collect();
            told.sort_unstable();
            told
        };
        let first = alerts(&records);
        let counts: Vec<_> = first.iter().map(|it| (it.0.as_str(), it.1, it.2)).collect();
        assert_eq!(counts, [("bucket a", 3, 3), ("topic a", 2, 2)]);
        assert_ne!(first[0].3, first[1].3);
        records.reverse();
        assert_eq!(alerts(&records), first);
        records.pop();
        assert_ne!(alerts(&records)[1].3, first[1].3);
    }

    #[test]
    fn a_subject_is_short_ascii_on_one_line() {
        let model = model(Some(ThresholdRule::Value(1.0)));
        let origin = Origin::Direct {
            batch: None,
            model: Some(format!("Bestellungen für\n{}", "x".repeat(5000)).into()),
            index: 0,
        };
        let verdicts = [verdict(&model, origin.clone(), 1.5, 60.0, "/1")];
        let records = [origin];
        let alerts = Alert::of_batch(records.iter(), verdicts.iter());
        let subject = alerts[0].subject();
        let start = "Sawlog: 1 of 1 records of direct invocations Bestellungen f?r xxx";
        assert!(subject.starts_with(start), "{subject}");
        assert!(subject.len() == 99 && subject.is_ascii(), "{subject}");
        assert!(alerts[0].feed.len() < 400, "{}", alerts[0].feed.len());
    }

    #[test]
    fn numbers_are_written_as_a_person_writes_them() {
        for (value, text) in [
            (0.0, "0"),
            (20.5, "20.5"),
            (0.123_456, "0.1235"),
            (999.0, "999"),
            (1_234.6, "1,235"),
            (-3_600_000_000.0, "-3,600,000,000"),
            (1e-7, "1.000e-7"),
            (1e300, "1.000e300"),
        ] {
            assert_eq!(number(value), text);
        }
    }
}
