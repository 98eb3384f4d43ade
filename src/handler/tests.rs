use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sawlog_model::{Model, Shingle, ThresholdRule};
use serde_json::Value;

use super::*;
use crate::config::{Config, DeadLettersUri, ModelUri, ResultsUri};
use crate::response::Item;
use crate::scorer::tests::{model, shingled_model};

pub(super) struct Fixture {
    folder: tempfile::TempDir,
    pub(super) app: App,
}

impl Fixture {
    pub(super) async fn start(partial_batch: bool) -> Self {
        Self::keeping(Kept::All, partial_batch).await
    }

    async fn keeping(kept: Kept, partial_batch: bool) -> Self {
        let model = model(Some(ThresholdRule::Value(1.0)));
        Self::with(&model, kept, partial_batch).await
    }

    async fn with(model: &Model, kept: Kept, partial_batch: bool) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("m.model"), model.encode()).expect("written");
        let config = Config {
            model_refresh_secs: 0,
            results_kept: kept,
            partial_batch,
            log_fields: false,
            deadline_reserve_ms: 100,
            ..Config::new(
                ModelUri::File(path("m.model")),
                ResultsUri::File(path("results.jsonl")),
                DeadLettersUri::File(path("dead.jsonl")),
            )
        };
        let app = App::start(config).await.expect("started");
        Self { folder, app }
    }

    fn lines(&self, name: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(Path::join(self.folder.path(), name)).expect("text");
        text.lines().map(|line| serde_json::from_str(line).expect("json")).collect()
    }
}

fn base64(payload: &str) -> String {
    base64_simd::STANDARD.encode_to_string(payload)
}

fn event(records: &[String]) -> Box<RawValue> {
    let records = records.join(",");
    let json = format!(r#"{{"eventSource":"aws:kafka","records":{{"t-0":[{records}]}}}}"#);
    RawValue::from_string(json).expect("json")
}

fn record(offset: usize, payload: &str) -> String {
    let value = base64(payload);
    format!(r#"{{"topic":"t","partition":0,"offset":{offset},"timestamp":5,"value":"{value}"}}"#)
}

/// Every kind of poison, each between sound records.
fn mixed() -> (Box<RawValue>, usize, usize) {
    let poison = [
        r#"{"topic":"t","partition":0,"offset":OFFSET,"value":"*"}"#.to_owned(),
        r#"{"topic":"t","partition":0,"offset":OFFSET,"value":null}"#.to_owned(),
        r#"{"topic":"t","partition":0,"offset":OFFSET,"value":{"path":"/1"}}"#.to_owned(),
        r#"{"topic":"t","partition":1,"offset":OFFSET,"value":"YQ=="}"#.to_owned(),
        r#"{"topic":"t","partition":0,"value":"YQ=="}"#.to_owned(),
        "7".to_owned(),
        record(0, "not json").replace(r#""offset":0"#, r#""offset":OFFSET"#),
        record(0, r#"{"ms":"x"}"#).replace(r#""offset":0"#, r#""offset":OFFSET"#),
    ];
    let mut records = vec![record(0, r#"{"ms":20,"path":"/1"}"#)];
    for (index, poison) in poison.iter().enumerate() {
        records.push(poison.replace("OFFSET", &(2 * index + 1).to_string()));
        records.push(record(2 * index + 2, r#"{"ms":1e6,"path":"/1"}"#));
    }
    (event(&records), poison.len() + 1, poison.len())
}

#[tokio::test]
async fn every_record_has_one_outcome_and_no_poison_fails_its_neighbours() {
    let fixture = Fixture::start(false).await;
    let (raw, sound, poison) = mixed();
    let event = Event::decode(&raw).expect("event");
    let (outcomes, report) = fixture.app.process(&event, Until::FOREVER).await.expect("processed");
    assert_eq!(outcomes.len(), event.records.len());
    for (index, outcome) in outcomes.iter().enumerate() {
        let as_it_should = if index % 2 == 0 {
            matches!(outcome, Outcome::Stored)
        } else {
            matches!(outcome, Outcome::DeadLettered)
        };
        assert!(as_it_should, "record {index}: {outcome:?}");
    }
    assert_eq!((report.records, report.stored), (sound + poison, sound));
    assert_eq!((report.dead_lettered, report.failed), (poison, 0));
    assert_eq!(report.anomalies, sound - 1, "all but the first are far out");
    let results = fixture.lines("results.jsonl");
    assert_eq!(results.len(), sound);
    assert_eq!(results[1]["id"], "kafka/t/0/2");
    assert_eq!((&results[0]["anomaly"], &results[1]["anomaly"]), (&false.into(), &true.into()));
    let dead = fixture.lines("dead.jsonl");
    assert_eq!(dead.len(), poison);
    assert_eq!(dead[6]["payload_base64"], base64("not json"), "the decoded payload is kept");
    assert_eq!(dead[5]["payload_base64"], base64("7"), "else the text");
    assert!(dead.iter().all(|letter| letter["reason"].as_str().is_some_and(|r| r.len() > 10)));
}

#[tokio::test]
async fn what_is_normal_is_stored_with_the_summary_of_its_batch() {
    let fixture = Fixture::keeping(Kept::Anomalies, false).await;
    let (raw, sound, poison) = mixed();
    for delivery in 0..2 {
        let report = fixture.app.handle(&raw, None).await.expect("handled").report;
        assert_eq!((report.records, report.failed), (sound + poison, 0), "{delivery}");
        assert_eq!((report.stored, report.dead_lettered), (sound, poison), "{delivery}");
        let results = fixture.lines("results.jsonl");
        assert_eq!(results.len(), sound - 1 + 1, "the anomalies and the summary");
        assert!(results[..sound - 1].iter().all(|result| result["anomaly"] == true));
        let summary = &results[sound - 1];
        assert!(summary["id"].as_str().is_some_and(|id| id.starts_with("batch/")));
        let counts = ["records", "stored", "dead_lettered", "failed", "anomalies"]
            .map(|name| summary[name].as_u64().expect("a count") as usize);
        assert_eq!(counts, [sound + poison, sound, poison, 0, sound - 1], "{summary}");
        assert!(summary["scores"]["max"].as_f64() > Some(1.0), "above the threshold: {summary}");
        assert_eq!(
            summary["models"],
            serde_json::json!([fixture.app.model_for("t").expect("a model").id()])
        );
    }
}

#[tokio::test]
async fn a_normal_record_whose_summary_is_not_stored_is_failed() {
    let mut fixture = Fixture::keeping(Kept::Anomalies, true).await;
    // A table that no server has: what is sent there fails at once.
    let settings = aws_sdk_dynamodb::Config::builder()
        .behavior_version_latest()
        .endpoint_url("http://127.0.0.1:1")
        .region(aws_sdk_dynamodb::config::Region::new("eu-west-1"))
        .allow_no_auth();
    let client = aws_sdk_dynamodb::Client::from_conf(settings.build());
    let table = crate::sinks::dynamodb::DynamoDbResults::new(client, "results".into(), 0);
    fixture.app.results = crate::sinks::ResultsSink::DynamoDb(table);
    let raw = event(&[record(8, r#"{"ms":20,"path":"/1"}"#), record(9, "poison")]);
    let handled = fixture.app.handle(&raw, None).await.expect("answered");
    let report = handled.report;
    assert_eq!((report.stored, report.dead_lettered, report.failed), (0, 1, 1));
    let answer = serde_json::to_value(&handled.response).expect("json");
    let failed = serde_json::json!([{"itemIdentifier": {"partition": "t-0", "offset": 8}}]);
    assert_eq!(answer["batchItemFailures"], failed);
    assert!(report.reasons[0].contains("writing to DynamoDB failed"), "{:?}", report.reasons);
}

#[tokio::test]
async fn without_results_every_record_that_can_be_scored_is_done() {
    let fixture = Fixture::keeping(Kept::Nothing, false).await;
    let (raw, sound, poison) = mixed();
    let report = fixture.app.handle(&raw, None).await.expect("handled").report;
    assert_eq!((report.stored, report.dead_lettered), (sound, poison));
    assert!(!fixture.folder.path().join("results.jsonl").exists(), "not even a file");
    assert_eq!(fixture.lines("dead.jsonl").len(), poison);
}

#[tokio::test]
async fn redelivery_changes_nothing() {
    let fixture = Fixture::start(false).await;
    let (raw, sound, poison) = mixed();
    for _delivery in 0..3 {
        let handled = fixture.app.handle(&raw, None).await.expect("handled");
        assert!(handled.response.failures().is_empty());
        assert_eq!((handled.report.stored, handled.report.dead_lettered), (sound, poison));
    }
    assert_eq!(fixture.lines("results.jsonl").len(), sound);
    assert_eq!(fixture.lines("dead.jsonl").len(), poison);
}

#[tokio::test]
async fn a_record_that_begins_its_series_is_not_written_and_takes_nothing_back() {
    let shingle = Shingle { size: 3, key: Some("/host".into()) };
    let model = shingled_model(Some(ThresholdRule::Value(100.0)), Some(shingle));
    let fixture = Fixture::with(&model, Kept::All, false).await;
    let text = |ms: usize| format!(r#"{{"host":"a","ms":{ms},"path":"/{}"}}"#, ms % 2);
    let mut records: Vec<String> = (0..8).map(|at| record(at, &text(at))).collect();
    // A key that is known and a field that is not: poison, and a gap.
    records[5] = record(5, r#"{"host":"a","path":"/1"}"#);
    let handle = async |records: &[String]| {
        let raw = event(records);
        let report = fixture.app.handle(&raw, None).await.expect("handled").report;
        assert_eq!(report.anomalies, 0);
        let BatchReport { stored, dead_lettered, failed, no_history, .. } = report;
        [stored, dead_lettered, failed, no_history]
    };
    assert_eq!(handle(&records).await, [3, 1, 0, 4]);
    let ids = || -> Vec<Value> {
        fixture.lines("results.jsonl").iter().map(|line| line["id"].clone()).collect()
    };
    assert_eq!(ids(), ["kafka/t/0/2", "kafka/t/0/3", "kafka/t/0/4"]);
    let before = fixture.lines("results.jsonl");
    // The later part comes again, with less before it.
    assert_eq!(handle(&records[2..5]).await, [1, 0, 0, 2]);
    assert_eq!(fixture.lines("results.jsonl"), before);
}

#[tokio::test]
async fn without_time_every_record_is_failed_and_nothing_is_written() {
    let raw = event(&[record(8, r#"{"ms":20,"path":"/1"}"#), record(9, "poison")]);
    // Before the reserve of 100 ms begins, there are 50 ms left.
    let deadline = || Some(Instant::now() + Duration::from_millis(50));
    let whole = Fixture::start(false).await;
    let error = whole.app.handle(&raw, deadline()).await.expect_err("no time");
    let HandlerError::Incomplete { report } = &error else { panic!("{error:?}") };
    assert_eq!((report.records, report.failed), (2, 2));
    let message = Diagnostic::from(error).error_message;
    assert!(message.contains("2 of 2 records failed: kafka/t/0/8 failed: there was no time"));
    let partial = Fixture::start(true).await;
    let handled = partial.app.handle(&raw, deadline()).await.expect("answered");
    let item = |offset| Item::Kafka { partition: "t-0".into(), offset };
    assert_eq!(handled.response.failures(), [item(8), item(9)]);
    for fixture in [whole, partial] {
        assert!(fixture.lines("results.jsonl").is_empty());
        assert!(fixture.lines("dead.jsonl").is_empty());
    }
}

#[tokio::test]
async fn an_empty_batch_is_done() {
    let fixture = Fixture::start(false).await;
    let handled = fixture.app.handle(&event(&[]), None).await.expect("handled");
    assert_eq!((handled.response.failures(), handled.report.records), (&[][..], 0));
}

fn messages(queue: &str, bodies: &[&str]) -> Box<RawValue> {
    let message = |(at, body): (usize, &&str)| {
        serde_json::json!({
            "eventSource": "aws:sqs",
            "eventSourceARN": format!("arn:aws:sqs:eu-central-1:1:{queue}"),
            "messageId": format!("m-{at}"),
            "body": body,
        })
    };
    let records: Vec<Value> = bodies.iter().enumerate().map(message).collect();
    serde_json::value::to_raw_value(&serde_json::json!({ "Records": records })).expect("json")
}

#[tokio::test]
async fn a_redriven_dead_letter_is_stored_under_its_first_name() {
    let fixture = Fixture::start(true).await;
    let (raw, _, poison) = mixed();
    fixture.app.handle(&raw, None).await.expect("handled");
    // As they are in the queue; of one the payload is mended, as a new specification would.
    let mut letters = fixture.lines("dead.jsonl");
    letters[6]["payload_base64"] = base64(r#"{"ms":20,"path":"/1"}"#).into();
    let bodies: Vec<String> = letters.iter().map(Value::to_string).collect();
    let bodies: Vec<&str> = bodies.iter().map(String::as_str).collect();
    let redriven = messages("redrive", &bodies);
    let handled = fixture.app.handle(&redriven, None).await.expect("handled");
    let report = handled.report;
    assert_eq!((report.stored, report.dead_lettered), (1, poison - 1), "{report:?}");
    let results = fixture.lines("results.jsonl");
    assert_eq!(results.last().expect("a result")["id"], letters[6]["id"]);
    assert_eq!(fixture.lines("dead.jsonl").len(), poison, "none came again under another name");
}

#[tokio::test]
async fn what_is_still_poison_stays_in_the_dead_letter_queue() {
    let mut fixture = Fixture::start(true).await;
    fixture.app.dead_letter_queue =
        crate::event::Queue::of_url("https://sqs.eu-central-1.amazonaws.com/1/dead");
    let sound = r#"{"ms":20,"path":"/1"}"#;
    let handled = fixture.app.handle(&messages("dead", &["poison", sound]), None).await;
    let handled = handled.expect("answered");
    assert_eq!(handled.response.failures(), [Item::Named("m-0".into())]);
    assert_eq!((handled.report.stored, handled.report.failed), (1, 1));
    assert!(fixture.lines("dead.jsonl").is_empty());
    let other = fixture.app.handle(&messages("other", &["poison"]), None).await;
    assert!(other.expect("answered").response.failures().is_empty());
    assert_eq!(fixture.lines("dead.jsonl").len(), 1);
}

#[tokio::test]
async fn a_direct_request_is_answered_and_stored_only_with_an_id() {
    let fixture = Fixture::start(false).await;
    let ask = async |json: &str| {
        let raw = RawValue::from_string(json.to_owned()).expect("json");
        let handled = fixture.app.handle(&raw, None).await;
        handled.map(|handled| {
            let answer = serde_json::to_string(&handled.response).expect("json");
            (serde_json::from_str::<Value>(&answer).expect("json"), handled.report)
        })
    };
    let (answer, report) = ask(r#"{"instances":[{"features":[20,"/1"]},{"features":[1e6,"/1"]}]}"#)
        .await
        .expect("scores");
    assert_eq!((report.records, report.answered, report.anomalies), (2, 2, 1));
    let scores = answer["scores"].as_array().expect("scores");
    let score = |at: usize| scores[at]["score"].as_f64().expect("a score");
    assert!(score(1) > 1.5 * score(0), "{answer}");

    let records = r#""records":[{"ms":20,"path":"/1"},"{\"ms\":1e6,\"path\":\"/1\"}","x"]}"#;
    let (answer, report) = ask(&format!("{{{records}")).await.expect("verdicts");
    assert_eq!((report.records, report.answered, report.stored), (3, 3, 0));
    let verdicts = answer["verdicts"].as_array().expect("verdicts");
    assert_eq!((verdicts.len(), &verdicts[0]["id"]), (3, &"direct//0".into()));
    assert_eq!(
        (&verdicts[0]["score"], &verdicts[1]["anomaly"]),
        (&scores[0]["score"], &true.into())
    );
    assert!(verdicts[2]["error"].as_str().is_some_and(|error| error.contains("JSON")));
    assert!(fixture.lines("results.jsonl").is_empty() && fixture.lines("dead.jsonl").is_empty());

    for _again in 0..2 {
        let with_id = ask(&format!(r#"{{"id":"b-1",{records}"#)).await;
        let (_, report) = with_id.expect("verdicts");
        assert_eq!((report.answered, report.stored, report.dead_lettered), (0, 2, 1));
        assert_eq!(fixture.lines("results.jsonl").len(), 2);
        assert_eq!(fixture.lines("dead.jsonl")[0]["id"], "direct/b-1/2");
    }

    let error = ask(r#"{"instances":[{"features":[1,"/1"]},{"features":[1]}]}"#).await;
    let diagnostic = Diagnostic::from(error.expect_err("one value"));
    assert_eq!(diagnostic.error_type, "Sawlog.Request");
    assert!(diagnostic.error_message.starts_with("instances[1]: it has 1 values"));
}

#[tokio::test]
async fn a_suspect_model_scores_and_its_items_say_so_until_it_is_cleared() {
    let fixture = Fixture::start(false).await;
    let id = fixture.app.model_for("t").expect("a model").id().to_owned();
    let suspects = fixture.app.trust.suspects();
    let payload = r#"{"ms":20,"path":"/1"}"#;
    for (offset, is_suspect) in [(1, false), (2, true), (3, false)] {
        assert_eq!(suspects.set(&id, is_suspect), offset > 1, "news");
        let raw = event(&[record(offset, payload)]);
        let report = fixture.app.handle(&raw, None).await.expect("handled").report;
        let reason = if is_suspect { Reason::Suspect } else { Reason::Fresh };
        assert_eq!((report.reason, report.by_local, report.degraded), (reason, 1, 0));
    }
    let reasons: Vec<Value> =
        fixture.lines("results.jsonl").iter().map(|line| line["reason"].clone()).collect();
    assert_eq!(reasons, [Value::Null, "suspect".into(), Value::Null]);
}

#[tokio::test]
async fn an_event_of_another_source_fails_the_invocation() {
    let fixture = Fixture::start(true).await;
    let raw = RawValue::from_string(r#"{"Records":[]}"#.to_owned()).expect("json");
    let error = fixture.app.handle(&raw, None).await.expect_err("unknown");
    assert_eq!(Diagnostic::from(error).error_type, "Sawlog.Event");
}

#[test]
fn a_verdict_that_will_never_be_taken_becomes_a_dead_letter() {
    let model = Arc::new(model(None));
    let raw = event(&[record(1, "{}"), record(2, "{}"), record(3, "{}")]);
    let event = Event::decode(&raw).expect("event");
    let models = Chosen::new(["t"; 3].into_iter(), |_| {
        Some(Held::Model { model: Arc::clone(&model), age: None })
    });
    let mut batch = Batch::new(&models, &event);
    let large = SinkError::TooLarge { service: "DynamoDB", bytes: 500_000, limit: 409_600 };
    let written = vec![Ok(()), Err(large), Err(SinkError::OutOfTime)];
    let poison = batch.settle(&[0, 1, 2], written, Outcome::Stored);
    let letters = batch.letters(poison);
    assert_eq!(letters.records, [1]);
    assert_eq!(
        letters.entries[0].reason,
        "its verdict can't be stored: it has 500000 bytes; DynamoDB takes 409600"
    );
    batch.settle(&letters.records, vec![Ok(())], Outcome::DeadLettered);
    let (outcomes, report) = batch.finish();
    assert!(matches!(
        outcomes[..],
        [Outcome::Stored, Outcome::DeadLettered, Outcome::Failed { .. }]
    ));
    assert_eq!((report.stored, report.dead_lettered, report.failed), (1, 1, 1));
}

#[test]
fn a_cause_that_is_said_already_is_not_said_again() {
    #[derive(Debug, thiserror::Error)]
    #[error("header: {0}")]
    struct Quoting(#[source] std::fmt::Error);
    #[derive(Debug, thiserror::Error)]
    #[error("model")]
    struct Plain(#[source] Quoting);
    let error = Plain(Quoting(std::fmt::Error));
    assert_eq!(chain(&error), format!("model: header: {}", std::fmt::Error));
}

#[test]
fn an_app_is_shared_between_threads_and_so_is_its_work() {
    fn send<T: Send>(value: T) -> T {
        value
    }
    fn shared<T: Send + Sync>() {}
    shared::<App>();
    // Compiles only if the future of an invocation may move between threads.
    let check = |app: &'static App, event: &'static RawValue| drop(send(app.handle(event, None)));
    let _: fn(&'static App, &'static RawValue) = check;
}
