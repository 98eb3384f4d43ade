//! Alerts about anomalies: once, not too often, and never in the way of the records.

use std::net::TcpListener;

use serde_json::Value;

use crate::batch::{Batch, Kafka, TOPIC};
use crate::function::{Function, Variables, model};
use crate::http::Message;
use crate::proxy::{Fault, Proxy, denied, status};
use crate::servers::{DynamoDb, Sns};

const ALL_DONE: &str = r#"{"batchItemFailures":[]}"#;
const LEN: usize = 60;

struct Setting {
    folder: tempfile::TempDir,
    dynamodb: DynamoDb,
    sns: Sns,
}

impl Setting {
    fn start() -> Self {
        let (dynamodb, sns) = (DynamoDb::start(), Sns::start());
        dynamodb.create_table("results");
        dynamodb.warm_up("results");
        Self { folder: tempfile::tempdir().expect("a temporary folder"), dynamodb, sns }
    }

    fn variables(&self, topic_arn: &str) -> Variables {
        let file = |name: &str| format!("file://{}", self.folder.path().join(name).display());
        std::fs::write(self.folder.path().join("model"), model()).expect("the model written");
        Variables::default()
            .set("MODEL_URI", file("model"))
            .set("DEAD_LETTERS_URI", file("dead.jsonl"))
            .set("RESULTS_URI", "dynamodb://results")
            .set("ALERTS_URI", topic_arn)
            .set("AWS_ENDPOINT_URL_DYNAMODB", &self.dynamodb.url)
            .set("AWS_ENDPOINT_URL_SNS", &self.sns.url)
    }
}

/// A batch whose last `unusual` records of a partition take hours, and their identities; each longer
/// than the one before. `moved` offsets further on.
fn batch(unusual: usize, moved: usize) -> (String, Vec<String>) {
    let mut batch = Batch::new(Kafka::Msk, LEN);
    let ids = batch.make_unusual(unusual);
    let at = |offset: usize| format!("{}", 1_000_000 + moved + offset);
    let mut event: Value = serde_json::from_str(&batch.event).expect("json");
    for records in event["records"].as_object_mut().expect("partitions").values_mut() {
        for record in records.as_array_mut().expect("records") {
            let offset = record["offset"].as_u64().expect("an offset");
            record["offset"] = (offset + u64::try_from(moved).expect("small")).into();
        }
    }
    let ids = ids.iter().map(|id| {
        let (partition, offset) = id.rsplit_once('/').expect("an offset");
        let offset: usize = offset.parse().expect("a number");
        format!("{partition}/{}", at(offset - 1_000_000))
    });
    (event.to_string(), ids.collect())
}

/// Invokes the function; what it says of the alerts: sent, held back, failed.
fn invoke(function: &Function, event: &str) -> [u64; 3] {
    let answer = function.invoke(event);
    assert_eq!((answer.status, answer.body.as_str()), (200, ALL_DONE), "{}", function.log());
    let log = function.log();
    let line = log.lines().rev().find(|line| line.contains(r#""AlertsSent""#));
    let line = line.unwrap_or_else(|| panic!("no line of metrics in {log}"));
    let line: Value = serde_json::from_str(line).expect("a line of json");
    ["AlertsSent", "AlertsHeldBack", "AlertsFailed"]
        .map(|name| line[name].as_u64().unwrap_or_else(|| panic!("no {name} in {line}")))
}

#[test]
fn an_alert_says_what_is_unusual_and_comes_once_for_all_instances() {
    let setting = Setting::start();
    let (topic, queue) = setting.sns.create_topic("on-call");
    let variables = setting.variables(&topic).set("ALERT_MAX_ANOMALIES", "2");
    let function = Function::start(&variables);
    let (event, ids) = batch(3, 0);
    assert_eq!(invoke(&function, &event), [1, 0, 0]);
    let messages = setting.sns.drain(&queue);
    assert_eq!(messages.len(), 1, "{messages:?}");
    let headline = format!("3 of {LEN} records of topic {TOPIC} are unusual");
    assert_eq!(messages[0]["Subject"], format!("Sawlog: {headline}"));
    let body = messages[0]["Message"].as_str().expect("a text");
    let body: Value = serde_json::from_str(body).expect("json");
    assert_eq!((&body["records"], &body["anomalies"]), (&LEN.into(), &3.into()));
    assert_eq!(body["topic"], TOPIC);
    assert_eq!(body["held_back"]["alerts"], 0);
    let shown = body["most_unusual"].as_array().expect("a list");
    assert_eq!(shown.len(), 2);
    for one in shown {
        assert!(ids.iter().any(|id| *id == one["id"]), "{one}");
        let (score, threshold) = (one["score"].as_f64(), one["threshold"].as_f64());
        let times = score.expect("a score") / threshold.expect("a threshold");
        assert!(times > 1.0, "{one}");
        let told = one["times_threshold"].as_f64().expect("a number");
        assert!((told / times - 1.0).abs() < 1e-6, "{told} for {times}");
        assert_eq!(one["because"][0]["feature"], "duration_us", "{one}");
        let (high, low) = (&one["because"][0]["high"], &one["because"][0]["low"]);
        assert!(high.as_f64() > low.as_f64(), "{one}");
    }
    let text = body["text"].as_str().expect("a text");
    assert!(text.starts_with(&format!("{headline}.\n\n1. Partition 2 offset ")), "{text}");
    assert!(text.contains(" times the threshold (score "), "{text}");
    assert!(text.contains("is far above what is usual"), "{text}");
    assert!(text.contains("\n1 more is not shown.\n"), "{text}");

    // The same batch again, to this instance and to another.
    assert_eq!(invoke(&function, &event), [0, 0, 0]);
    drop(function);
    assert_eq!(invoke(&Function::start(&variables), &event), [0, 0, 0]);
    assert_eq!(setting.sns.drain(&queue), Vec::<Value>::new());
    let ids = setting.dynamodb.ids("results");
    for (prefix, expected) in [("alert/", 1), ("cooldown/", 1), ("kafka/", 3), ("batch/", 1)] {
        let count = ids.iter().filter(|id| id.starts_with(prefix)).count();
        assert_eq!(count, expected, "{prefix}: {ids:?}");
    }
}

#[test]
fn after_an_alert_a_topic_is_quiet_and_the_next_alert_says_how_many_there_were() {
    let setting = Setting::start();
    let (topic, queue) = setting.sns.create_topic("on-call");
    let variables = setting.variables(&topic);
    let function = Function::start(&variables.clone().set("ALERT_COOLDOWN_SECS", "3600"));
    assert_eq!(invoke(&function, &batch(1, 0).0), [1, 0, 0]);
    assert_eq!(invoke(&function, &batch(2, 100).0), [0, 1, 0]);
    assert_eq!(invoke(&function, &batch(2, 100).0), [0, 0, 0], "delivered again");
    assert_eq!(invoke(&function, &batch(3, 200).0), [0, 1, 0]);
    assert_eq!(setting.sns.drain(&queue).len(), 1);
    drop(function);

    // An hour later.
    setting.dynamodb.set_number("results", &format!("cooldown/topic {TOPIC}"), "until_ms", 1);
    let function = Function::start(&variables);
    for (moved, held_back) in [(300, (2, 5)), (400, (0, 0))] {
        assert_eq!(invoke(&function, &batch(1, moved).0), [1, 0, 0]);
        let messages = setting.sns.drain(&queue);
        assert_eq!(messages.len(), 1, "{messages:?}");
        let body = messages[0]["Message"].as_str().expect("a text");
        let body: Value = serde_json::from_str(body).expect("json");
        let told = (&body["held_back"]["alerts"], &body["held_back"]["anomalies"]);
        assert_eq!(told, (&held_back.0.into(), &held_back.1.into()));
        let words = format!(
            "Held back since the last message about topic {TOPIC}: 2 alerts, about 5 unusual records."
        );
        let text = body["text"].as_str().expect("a text");
        assert_eq!(text.contains(&words), held_back.0 > 0, "{text}");
        setting.dynamodb.set_number("results", &format!("cooldown/topic {TOPIC}"), "until_ms", 1);
    }
}

#[test]
fn an_alert_that_fails_is_counted_and_keeps_no_record_and_no_later_alert() {
    let setting = Setting::start();
    let (topic, queue) = setting.sns.create_topic("on-call");
    let missing = topic.replace("on-call", "missing");
    let function = Function::start(&setting.variables(&missing));
    let (event, ids) = batch(2, 0);
    assert_eq!(invoke(&function, &event), [0, 0, 1]);
    assert!(function.log().contains("alert not sent"), "{}", function.log());
    let stored = setting.dynamodb.ids("results");
    assert!(ids.iter().all(|id| stored.contains(id)), "{stored:?}");
    drop(function);

    // With the right topic, the same batch and another one.
    let function = Function::start(&setting.variables(&topic).set("ALERT_COOLDOWN_SECS", "0"));
    assert_eq!(invoke(&function, &batch(1, 100).0), [1, 0, 0]);
    assert_eq!(invoke(&function, &event), [1, 0, 0]);
    assert_eq!(setting.sns.drain(&queue).len(), 2);
}

#[test]
fn a_topic_that_throttles_or_fails_is_told_when_the_batch_comes_again() {
    let setting = Setting::start();
    let (topic, queue) = setting.sns.create_topic("on-call");
    let proxy = Proxy::before(&setting.sns.url, 71);
    let variables = setting.variables(&topic).set("ALERT_COOLDOWN_SECS", "0");
    let function = Function::start(&variables.set("AWS_ENDPOINT_URL_SNS", &proxy.url));
    let throttled = "<ErrorResponse><Error><Type>Sender</Type><Code>Throttling</Code>\
                     <Message>Rate exceeded</Message></Error></ErrorResponse>";
    let throttled = Message::answer(400, throttled).with("Content-Type", "text/xml");
    let faults = [Fault::Answer(throttled), status(500), status(503), Fault::Close];
    for (fault, moved) in faults.into_iter().zip((0..).step_by(100)) {
        let what = format!("{fault:?}");
        proxy.rule(move |_, _| fault.clone());
        let (event, ids) = batch(2, moved);
        assert_eq!(invoke(&function, &event), [0, 0, 1], "{what}");
        let stored = setting.dynamodb.ids("results");
        assert!(ids.iter().all(|id| stored.contains(id)), "{what}: {stored:?}");
        assert_eq!(setting.sns.drain(&queue), Vec::<Value>::new(), "{what}");
        proxy.rule(|_, _| Fault::None);
        assert_eq!(invoke(&function, &event), [1, 0, 0], "{what}");
        assert_eq!(invoke(&function, &event), [0, 0, 0], "{what}");
        assert_eq!(setting.sns.drain(&queue).len(), 1, "{what}");
    }
}

#[test]
fn a_table_that_hangs_or_refuses_what_was_sent_keeps_no_record() {
    let setting = Setting::start();
    let (topic, queue) = setting.sns.create_topic("on-call");
    let proxy = Proxy::before(&setting.dynamodb.url, 72);
    let variables = setting.variables(&topic).set("ALERT_COOLDOWN_SECS", "0");
    let variables = variables.set("AWS_ENDPOINT_URL_DYNAMODB", &proxy.url);
    for (fault, moved) in [(denied(), 0), (Fault::Hang, 100)] {
        let what = format!("{fault:?}");
        proxy.rule(move |request, _| {
            let target = request.header("x-amz-target").unwrap_or_default();
            if target.ends_with("BatchWriteItem") { Fault::None } else { fault.clone() }
        });
        let function = Function::start(&variables);
        let (event, ids) = batch(2, moved);
        assert_eq!(invoke(&function, &event), [0, 0, 1], "{what}");
        let stored = setting.dynamodb.ids("results");
        assert!(ids.iter().all(|id| stored.contains(id)), "{what}: {stored:?}");
        drop(function);
        proxy.rule(|_, _| Fault::None);
        assert_eq!(invoke(&Function::start(&variables), &event), [1, 0, 0], "{what}");
        assert!(!setting.sns.drain(&queue).is_empty(), "{what}");
    }
}

#[test]
fn a_topic_that_does_not_answer_holds_up_one_batch_a_moment_and_then_none() {
    let setting = Setting::start();
    // Takes connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    silent.set_nonblocking(true).expect("a listener that does not wait");
    let address = silent.local_addr().expect("an address");
    let variables = setting.variables("arn:aws:sns:eu-central-1:123456789012:on-call");
    let variables = variables.set("AWS_ENDPOINT_URL_SNS", format!("http://{address}"));
    let function = Function::start(&variables);
    let mut asked = Vec::new();
    for moved in [0, 100] {
        let (event, ids) = batch(2, moved);
        assert_eq!(invoke(&function, &event), [0, 0, 1]);
        // Kept open: whoever finds a connection closed was answered in a way.
        let connections: Vec<_> = std::iter::from_fn(|| silent.accept().ok()).collect();
        asked.push(connections);
        let stored = setting.dynamodb.ids("results");
        assert!(ids.iter().all(|id| stored.contains(id)), "{stored:?}");
    }
    assert!(!asked[0].is_empty(), "SNS was asked for the first batch");
    assert!(asked[1].is_empty(), "nor is it asked for the second, a moment later");
}

#[test]
fn without_results_an_instance_remembers_what_it_sent() {
    let setting = Setting::start();
    let (topic, queue) = setting.sns.create_topic("on-call");
    let variables = setting.variables(&topic).set("RESULTS", "none").unset("RESULTS_URI");
    let function = Function::start(&variables);
    assert_eq!(invoke(&function, &batch(2, 0).0), [1, 0, 0]);
    assert_eq!(invoke(&function, &batch(2, 0).0), [0, 0, 0]);
    assert_eq!(invoke(&function, &batch(2, 100).0), [0, 1, 0]);
    assert_eq!(setting.sns.drain(&queue).len(), 1);
}
