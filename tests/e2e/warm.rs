//! A function that stays warm: models published while it runs, what it tells of each invocation in
//! metrics and logs, and the memory that it takes.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::batch::{Batch, Kafka, base64, lines};
use crate::function::{Function, MAX_EVENT_LEN, Variables, model, model_of};
use crate::servers::{DynamoDb, S3};

/// Another model for the same records, with other features.
const OTHER_SPEC: &str = r#"
format = "json"
[[feature]]
name = "spans"
field = "/n_spans"
[[feature]]
name = "operation"
field = "/operation"
encode = "one_hot"
"#;

/// A check that was due is made within so long, on a loaded machine.
const TAKEN_OVER: Duration = Duration::from_secs(30);

/// Results and dead letters in files.
fn on_files(folder: &Path) -> Variables {
    let file = |name: &str| format!("file://{}", folder.join(name).display());
    std::fs::write(folder.join("model"), model()).expect("the model written");
    Variables::default()
        .set("MODEL_URI", file("model"))
        .set("RESULTS", "all")
        .set("RESULTS_URI", file("results.jsonl"))
        .set("RESULTS", "all")
        .set("DEAD_LETTERS_URI", file("dead.jsonl"))
        .set("AWS_LAMBDA_LOG_FORMAT", "JSON")
}

/// What was logged, line by line, each of which is JSON.
fn log(function: &Function) -> Vec<Value> {
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    function.log().lines().map(parse).collect()
}

/// The lines of metrics, the last one last.
fn metrics(function: &Function) -> Vec<Value> {
    log(function).into_iter().filter(|line| line.get("_aws").is_some()).collect()
}

fn sum(lines: &[Value], name: &str) -> u64 {
    lines.iter().map(|line| line[name].as_u64().expect("a count")).sum()
}

/// Invokes until the sum of a metric is what is expected.
fn invoke_until(function: &Function, event: &str, name: &str, expected: u64) {
    let deadline = Instant::now() + TAKEN_OVER;
    loop {
        let answer = function.invoke(event);
        assert_eq!(answer.status, 200, "{}", answer.body);
        let got = sum(&metrics(function), name);
        if got == expected {
            return;
        }
        assert!(Instant::now() < deadline, "expected {expected} {name} by now, got {got}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_model_published_is_used_without_a_restart_and_a_bad_one_is_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let s3 = S3::start();
    s3.create_bucket("models");
    s3.put("models", "current", model().to_vec());
    let variables = on_files(folder.path())
        .set("MODEL_URI", "s3://models/current")
        .set("MODEL_REFRESH_SECS", "1")
        .set("AWS_ENDPOINT_URL_S3", &s3.url);
    let function = Function::start(&variables);
    let model_in_use = || metrics(&function).last().expect("a line")["model"].clone();
    let event = |seed: usize| Batch::new(Kafka::Msk, 100 + seed).event;

    invoke_until(&function, &event(0), "Records", 100);
    let first = model_in_use();
    let other = model_of(OTHER_SPEC);
    s3.put("models", "current", other.clone());
    invoke_until(&function, &event(0), "ModelsReplaced", 1);
    // The invocation that brought it was scored before it came, the next one after.
    assert_eq!(function.invoke(&event(50)).status, 200);
    let second = model_in_use();
    assert_ne!(second, first);
    let results = std::fs::read_to_string(folder.path().join("results.jsonl")).expect("a file");
    let last: Value = serde_json::from_str(results.lines().last().expect("a line")).expect("json");
    assert_eq!(last["model"], second);
    assert!(last["features"]["operation"].is_string(), "the new model's features: {last}");

    let mut bad = other.clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 1;
    s3.put("models", "current", bad);
    invoke_until(&function, &event(0), "ModelsRefused", 1);
    let refusals = || {
        let refused = |line: &Value| line["message"] == "new model refused";
        log(&function).into_iter().filter(refused).collect::<Vec<_>>()
    };
    let refused = refusals();
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert!(
        refused[0]["reason"].as_str().is_some_and(|why| why.contains("checksum")),
        "{refused:?}"
    );
    assert_eq!(refused[0]["kept"], second);
    // It is known now: checks go on and find it unchanged.
    for _check in 0..3 {
        std::thread::sleep(Duration::from_millis(1100));
        assert_eq!(function.invoke(&event(0)).status, 200);
    }
    assert_eq!((refusals().len(), model_in_use()), (1, second));

    s3.put("models", "current", model().to_vec());
    invoke_until(&function, &event(0), "ModelsReplaced", 2);
    assert_eq!(function.invoke(&event(0)).status, 200);
    assert_eq!(model_in_use(), first);
    let lines = metrics(&function);
    assert_eq!((sum(&lines, "ModelsRefused"), sum(&lines, "ModelChecksFailed")), (1, 0));
}

#[test]
fn a_line_of_metrics_for_each_invocation_balances() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let variables = on_files(folder.path()).set("POWERTOOLS_METRICS_NAMESPACE", "Shop");
    let function = Function::start(&variables.set("POWERTOOLS_SERVICE_NAME", "web"));
    let batch = Batch::new(Kafka::SelfManaged, 1000);
    for cold_start in [1, 0] {
        assert_eq!(function.invoke(&batch.event).status, 200);
        let line = metrics(&function).pop().expect("a line");
        let count = |name: &str| line[name].as_u64().unwrap_or_else(|| panic!("{name}: {line}"));
        assert_eq!(count("Records"), 1000);
        assert_eq!(count("Stored"), batch.stored().len() as u64);
        assert_eq!(count("DeadLettered"), batch.dead().len() as u64);
        assert_eq!((count("Failed"), count("NoHistory")), (0, 0));
        assert_eq!(count("EventBytes"), batch.event.len() as u64);
        assert_eq!(count("ColdStart"), cold_start);
        let scores = line["Score"]["Counts"].as_array().expect("a list");
        let scored: u64 = scores.iter().map(|count| count.as_u64().expect("a count")).sum();
        assert_eq!(scored, count("Stored"), "every record stored has a score");
        assert!(scores.len() <= 100 && count("ModelAgeSecs") < 3600, "{line}");
        let directive = &line["_aws"]["CloudWatchMetrics"][0];
        assert_eq!((&directive["Namespace"], &line["service"]), (&json!("Shop"), &json!("web")));
        assert_eq!(line["Source"], "SelfManagedKafka");
        for metric in directive["Metrics"].as_array().expect("a list") {
            let name = metric["Name"].as_str().expect("a name");
            assert!(line.get(name).is_some(), "{name} is declared and absent: {line}");
        }
    }
    assert_eq!(metrics(&function).len(), 2);
}

/// What is in records and could be somebody's: each word of each line that names something.
fn values(batch: usize) -> Vec<String> {
    let mut values = Vec::new();
    for line in lines(batch) {
        values.push(base64(&line)[..40].to_owned());
        let record: Value = serde_json::from_slice(&line).expect("a json line");
        for key in ["ts", "trace_id", "pod", "operation"] {
            values.push(record[key].as_str().expect("a string").to_owned());
        }
        values.push(record["duration_us"].to_string());
    }
    // Shorter numbers may be counts or times of the log's own.
    values.retain(|value| value.len() > 6);
    values.sort_unstable();
    values.dedup();
    values
}

#[test]
fn no_value_of_a_record_is_in_the_log_unless_it_is_asked_for() {
    const LEN: usize = 1000;
    let batch = Batch::new(Kafka::Msk, LEN);
    for level in ["INFO", "TRACE"] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let variables = on_files(folder.path()).set("AWS_LAMBDA_LOG_LEVEL", level);
        let dynamodb = DynamoDb::start();
        dynamodb.create_table("results");
        let variables = variables
            .set("RESULTS", "all")
            .set("RESULTS_URI", "dynamodb://results")
            .set("AWS_ENDPOINT_URL_DYNAMODB", &dynamodb.url);
        let function = Function::start(&variables);
        assert_eq!(function.invoke(&batch.event).status, 200);
        // An event of nobody is refused, in words.
        assert_eq!(function.invoke(r#"{"secret":"jane.doe@example.com"}"#).status, 500);
        let text = function.log();
        let values = values(LEN);
        assert!(values.len() > LEN, "enough to look for: {}", values.len());
        for value in values.iter().map(String::as_str).chain(["jane.doe"]) {
            if let Some(line) = text.lines().find(|line| line.contains(value)) {
                panic!("at level {level} {value:?} is in the log: {line}");
            }
        }
        let of_invocation = |line: &&Value| line["message"] == "batch";
        let log = log(&function);
        let lines: Vec<&Value> = log.iter().filter(of_invocation).collect();
        assert_eq!(lines.len(), 1, "one line a batch: {lines:?}");
        let id = &lines[0]["span"]["requestId"];
        assert!(id.as_str().is_some_and(|id| id.len() > 8), "{}", lines[0]);
        assert_eq!(&metrics(&function)[0]["requestId"], id);
    }
}

#[test]
fn anomalies_are_logged_with_their_features_when_that_is_asked_for() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let function = Function::start(&on_files(folder.path()).set("LOG_FIELDS", "true"));
    // One record in a thousand is unusual.
    assert_eq!(function.invoke(&Batch::new(Kafka::Msk, 10_000).event).status, 200);
    let anomalies = sum(&metrics(&function), "Anomalies");
    let logged: Vec<Value> = log(&function)
        .into_iter()
        .filter(|line| line["message"] == "anomaly")
        .map(|line| serde_json::from_str(line["verdict"].as_str().expect("json")).expect("json"))
        .collect();
    assert!(anomalies > 0, "the batch has some");
    assert_eq!(logged.len() as u64, anomalies.min(100));
    for verdict in logged {
        assert_eq!(verdict["anomaly"], true);
        assert!(verdict["features"]["duration_us"].is_number(), "{verdict}");
    }
}

/// The smallest function that a full event must run in has 256 MB for everything in it. Half is left:
/// for what Lambda keeps beside the process, for a larger model than this one, which has 6 MB in
/// memory, and for the second one while it is replaced.
const MAX_PEAK_BYTES: u64 = 128 << 20;

#[test]
fn a_full_event_fits_a_function_of_256_mb() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let dynamodb = DynamoDb::start();
    dynamodb.create_table("results");
    let variables = on_files(folder.path())
        .set("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256")
        .set("RESULTS", "all")
        .set("RESULTS_URI", "dynamodb://results")
        .set("AWS_ENDPOINT_URL_DYNAMODB", &dynamodb.url);
    let function = Function::start(&variables);
    let headers = format!(r#""headers":[{{"trace":{:?}}}]"#, [100_u8; 20]).replace(' ', "");
    let event = Batch::new(Kafka::Msk, 10_000).event.replace(r#""headers":[]"#, &headers);
    let least = MAX_EVENT_LEN / 100 * 90;
    assert!(event.len() > least, "expected a full event, got {} bytes", event.len());
    // The second time nothing is new, but what was freed may lie in pieces.
    for delivery in 1..=2 {
        assert_eq!(function.invoke(&event).status, 200, "delivery {delivery}");
        let peak = function.peak_memory();
        let (peak_mb, event_mb) = (peak >> 20, event.len() >> 20);
        println!("delivery {delivery}: {peak_mb} MB at most, for an event of {event_mb} MB");
        assert!(
            peak < MAX_PEAK_BYTES,
            "expected a peak below {MAX_PEAK_BYTES} bytes, got {peak} after delivery {delivery}"
        );
    }
}
