//! A model that can't be trusted, and an endpoint that stands in for it: who scored is in every item,
//! in the log and in the metrics, and whatever the endpoint does, no record is lost to it.

use std::io::{self, BufReader, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use crate::batch::{Batch, Kafka, assert_same_ids, lines};
use crate::deployment::TIMEOUT;
use crate::faults::{ALL_DONE, place, reported};
use crate::function::{Variables, binary, failed_cold_start, model, model_of, repository};
use crate::http::{self, Message};
use crate::lambda::{Lambda, lock};
use crate::servers::{ACCESS_KEY, REGION, SECRET_KEY};

/// Records of a batch, five of them poison.
const LEN: usize = 60;
/// What a model of these tests is older than, if it is stale.
const DAY: Duration = Duration::from_secs(86_400);

/// What the endpoint does with a call.
enum Act {
    Answer(Message),
    /// Answers after a while.
    Late(Duration),
    Hang,
    /// Closes the connection in the middle of an answer.
    Reset,
}

type Rule = Box<dyn FnMut(usize) -> Act + Send>;

/// An endpoint over HTTP whose score of a row is the row's last number.
struct Endpoint {
    url: String,
    rule: Arc<Mutex<Rule>>,
    calls: Arc<AtomicUsize>,
}

impl Endpoint {
    fn start() -> Self {
        let rule: Arc<Mutex<Rule>> = Arc::new(Mutex::new(Box::new(|_| Act::Late(Duration::ZERO))));
        let calls = Arc::new(AtomicUsize::new(0));
        let (acts, count) = (Arc::clone(&rule), Arc::clone(&calls));
        let port = http::serve(move |stream| serve(stream, &acts, &count));
        Self { url: format!("http://127.0.0.1:{port}"), rule, calls }
    }

    /// What it does from now on, given how many calls it was asked before.
    fn rule(&self, rule: impl FnMut(usize) -> Act + Send + 'static) {
        *lock(&self.rule) = Box::new(rule);
        self.calls.store(0, Ordering::SeqCst);
    }

    fn is_well(&self) {
        self.rule(|_| Act::Late(Duration::ZERO));
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

fn serve(
    mut stream: BufReader<TcpStream>,
    rule: &Mutex<Rule>,
    calls: &AtomicUsize,
) -> io::Result<()> {
    while let Some(request) = Message::read(&mut stream)? {
        assert_eq!(request.path(), "/endpoints/rcf/invocations");
        assert_eq!(request.header("content-type"), Some("text/csv"));
        let act = (*lock(rule))(calls.fetch_add(1, Ordering::SeqCst));
        let answer = match act {
            Act::Answer(answer) => answer,
            Act::Late(by) => {
                std::thread::sleep(by);
                Message::answer(200, scores(&request.body))
            }
            // The client gives up; the connection is its to close.
            Act::Hang => continue,
            Act::Reset => {
                return stream.get_mut().write_all(b"HTTP/1.1 200 -\r\nContent-Length: 9\r\n\r\n{");
            }
        };
        stream.get_mut().write_all(&answer.bytes())?;
    }
    Ok(())
}

fn scores(rows: &[u8]) -> String {
    let rows = std::str::from_utf8(rows).expect("text").lines();
    let score = |row: &str| row.rsplit(',').next().expect("a number").to_owned();
    let scores: Vec<String> = rows.map(|row| format!("{{\"score\":{}}}", score(row))).collect();
    format!("{{\"scores\":[{}]}}", scores.join(","))
}

/// A function with its model in a file, results and dead letters in files, and an endpoint.
struct Shop {
    folder: tempfile::TempDir,
    endpoint: Endpoint,
}

impl Shop {
    /// The model is a day too old.
    fn stale() -> Self {
        let shop =
            Self { folder: tempfile::tempdir().expect("a folder"), endpoint: Endpoint::start() };
        shop.publish(DAY * 2);
        shop
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Puts the model in its place, published so long ago.
    fn publish(&self, age: Duration) {
        let path = self.path("model");
        std::fs::write(self.path("new"), model()).expect("written");
        let file = std::fs::File::options().write(true).open(self.path("new")).expect("there");
        file.set_modified(SystemTime::now() - age).expect("set");
        std::fs::rename(self.path("new"), path).expect("published");
    }

    fn variables(&self) -> Variables {
        let file = |name: &str| format!("file://{}", self.path(name).display());
        Variables::default()
            .set("MODEL_URI", file("model"))
            .set("MODEL_MAX_AGE_SECS", DAY.as_secs().to_string())
            .set("MODEL_REFRESH_SECS", "1")
            .set("RESULTS", "all")
            .set("RESULTS_URI", file("results.jsonl"))
            .set("DEAD_LETTERS_URI", file("dead.jsonl"))
            .set("PARTIAL_BATCH", "true")
            .set("AWS_LAMBDA_LOG_FORMAT", "JSON")
            .set("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", &self.endpoint.url)
            .set("ENDPOINT_NAME", "rcf")
            .set("ENDPOINT_ROWS", "values")
            .set("ENDPOINT_CHUNK_ROWS", "7")
            .set("ENDPOINT_TIMEOUT_MS", "100")
            .set("ENDPOINT_THRESHOLD", "30")
    }

    /// Begins with empty results, as another deployment would.
    fn empty(&self) {
        for name in ["results.jsonl", "dead.jsonl"] {
            let _ = std::fs::remove_file(self.path(name));
        }
    }

    fn lines(&self, name: &str) -> Vec<Value> {
        json_lines(&std::fs::read_to_string(self.path(name)).unwrap_or_default())
    }

    fn items(&self) -> Vec<Value> {
        self.lines("results.jsonl").into_iter().filter(|item| item["origin"].is_object()).collect()
    }

    /// Every record of the batch is where it belongs, and was scored as is said here.
    fn assert_done(&self, what: &str, batch: &Batch, expected: &Value) {
        let (items, letters) = (self.items(), self.lines("dead.jsonl"));
        let id = |line: &Value| line["id"].as_str().expect("an id").to_owned();
        let stored: Vec<String> = items.iter().map(id).collect();
        assert_same_ids(what, batch.stored(), stored.iter().map(String::as_str));
        let dead: Vec<String> = letters.iter().map(id).collect();
        assert_same_ids(what, batch.dead(), dead.iter().map(String::as_str));
        for item in &items {
            assert_eq!(&how(item), expected, "{what}: {item}");
            if item["scorer"] == "endpoint" {
                let last = item["features"]["n_spans"].as_f64();
                assert_eq!(item["score"].as_f64(), last, "{what}: of another row: {item}");
            }
        }
    }
}

/// How an item's score came about.
fn how(item: &Value) -> Value {
    let keys = ["scorer", "endpoint", "reason", "threshold_of", "degraded"];
    let there = keys.iter().filter(|key| item.get(**key).is_some());
    there.map(|key| ((*key).to_owned(), item[*key].clone())).collect()
}

fn local() -> Value {
    json!({"scorer": "local"})
}

fn by_endpoint(reason: &str) -> Value {
    json!({"scorer": "endpoint", "endpoint": "rcf", "reason": reason,
           "threshold_of": "configured", "degraded": false})
}

fn by_local(reason: &str, degraded: bool) -> Value {
    json!({"scorer": "local", "reason": reason, "threshold_of": "local", "degraded": degraded})
}

fn json_lines(text: &str) -> Vec<Value> {
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    text.lines().map(parse).collect()
}

/// The lines of metrics.
fn metrics(lambda: &Lambda) -> Vec<Value> {
    json_lines(&lambda.log()).into_iter().filter(|line| line.get("_aws").is_some()).collect()
}

fn last_metrics(lambda: &Lambda) -> Value {
    metrics(lambda).pop().expect("a line of metrics")
}

/// The batch of the same records at other offsets, by a number from 1 to 9.
fn renumbered(batch: &Batch, number: usize) -> String {
    batch.event.replace("\"offset\":1000", &format!("\"offset\":{number}1000"))
}

fn done(lambda: &Lambda, event: &str) {
    let answer = lambda.invoke(event);
    assert_eq!((answer.status, answer.body.as_str()), (200, ALL_DONE), "{}", lambda.log());
}

/// Invokes with one batch after the other until the last was scored by this scorer for this reason.
fn invoke_until(lambda: &Lambda, batch: &Batch, scorer: &str, reason: &str) {
    let patience = Instant::now() + TIMEOUT;
    loop {
        done(lambda, &batch.event);
        let line = last_metrics(lambda);
        if line["scorer"] == scorer && line["reason"] == reason {
            return;
        }
        assert!(Instant::now() < patience, "expected {scorer} as {reason}, got {line}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn refusal(status: u16, code: &'static str) -> impl Fn() -> Act {
    move || Act::Answer(Message::answer(status, "{}").with("x-amzn-errortype", code))
}

fn of_container(status: u16) -> impl Fn() -> Act {
    move || {
        let body = json!({"Message": "no", "OriginalStatusCode": status}).to_string();
        Act::Answer(Message::answer(424, body).with("x-amzn-errortype", "ModelError"))
    }
}

fn says(body: &'static str) -> impl Fn() -> Act {
    move || Act::Answer(Message::answer(200, body))
}

#[test]
fn a_stale_model_is_stood_in_for_and_scores_again_when_it_is_published_anew() {
    let shop = Shop::stale();
    let lambda = Lambda::new(&shop.variables().set("AWS_LAMBDA_LOG_LEVEL", "INFO"), TIMEOUT);
    let batch = Batch::new(Kafka::SelfManaged, LEN);
    done(&lambda, &batch.event);
    shop.assert_done("stale", &batch, &by_endpoint("stale"));
    // An anomaly is explained by the model that is there.
    let anomalies: Vec<Value> =
        shop.items().into_iter().filter(|item| item["anomaly"] == true).collect();
    let above = |item: &&Value| item["score"].as_f64() > Some(30.0);
    assert_eq!(anomalies.len(), shop.items().iter().filter(above).count());
    assert!(!anomalies.is_empty() && anomalies.iter().all(|item| item["attribution"].is_object()));
    let line = last_metrics(&lambda);
    let (scored, calls) = (LEN - batch.dead().len(), (LEN - batch.dead().len()).div_ceil(7));
    for (name, expected) in [
        ("scorer", json!("endpoint")),
        ("reason", json!("stale")),
        ("breaker", json!("closed")),
        ("ScoredByEndpoint", json!(scored)),
        ("Degraded", json!(0)),
        ("ModelStale", json!(1)),
        ("EndpointCalls", json!(calls)),
        ("EndpointFailed", json!(0)),
        ("EndpointBreakerOpen", json!(0)),
    ] {
        assert_eq!(line[name], expected, "{name}: {line}");
    }
    let log = json_lines(&lambda.log());
    let said = |message: &str| {
        log.iter().find(|line| line["message"] == message).unwrap_or_else(|| panic!("{message}"))
    };
    assert_eq!(said("batch")["scorer"], "endpoint");
    assert_eq!(said("batch")["reason"], "stale");
    assert_eq!(said("the local model can't be trusted")["level"], "WARN");

    shop.publish(Duration::ZERO);
    invoke_until(&lambda, &batch, "local", "fresh");
    shop.endpoint.rule(|_| refusal(500, "InternalFailure")());
    let before = shop.items().len();
    done(&lambda, &renumbered(&batch, 2));
    let items = shop.items();
    assert_eq!(items.len(), before + scored);
    assert!(items[before..].iter().all(|item| how(item) == local()), "{}", items[before]);
    assert_eq!((shop.endpoint.calls(), lambda.counts().cold_starts), (0, 1));
}

#[test]
fn a_model_goes_stale_while_the_function_is_warm() {
    let shop = Shop::stale();
    shop.publish(DAY - Duration::from_secs(3));
    let lambda = Lambda::new(&shop.variables(), TIMEOUT);
    let batch = Batch::new(Kafka::SelfManaged, LEN);
    done(&lambda, &batch.event);
    invoke_until(&lambda, &batch, "endpoint", "stale");
    let first = &metrics(&lambda)[0];
    assert_eq!((&first["scorer"], &first["reason"]), (&json!("local"), &json!("fresh")), "{first}");
    assert_eq!(lambda.counts().cold_starts, 1);
}

#[test]
fn whatever_the_endpoint_does_a_stale_model_scores_and_says_so() {
    let shop = Shop::stale();
    let batch = Batch::new(Kafka::SelfManaged, LEN);
    type Fault = Box<dyn Fn() -> Act + Send>;
    let faults: [(&str, Fault, &str); 13] = [
        ("hangs", Box::new(|| Act::Hang), "gave no answer"),
        ("resets", Box::new(|| Act::Reset), "gave no answer"),
        ("424, its container 500", Box::new(of_container(500)), "its container 500"),
        ("424, its container 400", Box::new(of_container(400)), "its container 400"),
        ("429", Box::new(refusal(429, "ModelNotReadyException")), "answered 429"),
        ("503", Box::new(refusal(503, "ServiceUnavailable")), "answered 503"),
        ("530", Box::new(refusal(530, "InternalDependencyException")), "answered 530"),
        ("raw 413", Box::new(|| Act::Answer(Message::answer(413, "<html>"))), "answered 413"),
        ("403", Box::new(refusal(403, "AccessDeniedException")), "answered 403"),
        ("short by one", Box::new(says("1\n1\n1\n1\n1\n1")), "6 scores for 7 rows"),
        ("one too many", Box::new(says("1\n1\n1\n1\n1\n1\n1\n1")), "8 scores for 7 rows"),
        ("out of JSON", Box::new(says("{\"scores\":[{\"sc")), "can't be read at line 1"),
        ("NaN", Box::new(says("NaN\n1\n1\n1\n1\n1\n1")), "is not finite"),
    ];
    for (what, fault, words) in faults {
        shop.empty();
        shop.endpoint.rule(move |_| fault());
        let lambda = Lambda::new(&shop.variables(), TIMEOUT);
        done(&lambda, &batch.event);
        shop.assert_done(what, &batch, &by_local("stale", true));
        let line = last_metrics(&lambda);
        assert_eq!(line["Degraded"], json!(LEN - batch.dead().len()), "{what}: {line}");
        assert!(line["EndpointFailed"].as_u64() >= Some(1), "{what}: {line}");
        let log = lambda.log();
        assert!(log.contains(words), "{what}: expected {words:?} in the log:\n{log}");
    }
}

#[test]
fn what_passes_is_waited_for_and_the_endpoint_scores() {
    let shop = Shop::stale();
    let batch = Batch::new(Kafka::SelfManaged, LEN);
    type Fault = fn(usize) -> Act;
    let faults: [(&str, Fault); 5] = [
        ("slow", |_| Act::Late(Duration::from_millis(50))),
        ("hangs once in three", |call| match call % 3 {
            0 => Act::Hang,
            _ => Act::Late(Duration::ZERO),
        }),
        ("503 once in two", |call| match call % 2 {
            0 => refusal(503, "ServiceUnavailable")(),
            _ => Act::Late(Duration::ZERO),
        }),
        ("424 of a 500, and resets, once in four", |call| match call % 4 {
            0 => of_container(500)(),
            2 => Act::Reset,
            _ => Act::Late(Duration::ZERO),
        }),
        ("429 once", |call| match call {
            0 => refusal(429, "ModelNotReadyException")(),
            _ => Act::Late(Duration::ZERO),
        }),
    ];
    for (what, fault) in faults {
        shop.empty();
        shop.endpoint.rule(fault);
        // One call at a time, so that no call meets its neighbours' faults.
        let variables = shop.variables().set("ENDPOINT_IN_FLIGHT", "1");
        let lambda = Lambda::new(&variables, TIMEOUT);
        done(&lambda, &batch.event);
        shop.assert_done(what, &batch, &by_endpoint("stale"));
    }
}

#[test]
fn an_endpoint_that_fails_is_left_alone_and_asked_again_after_a_while() {
    let shop = Shop::stale();
    let variables =
        shop.variables().set("ENDPOINT_COOLDOWN_SECS", "2").set("ENDPOINT_IN_FLIGHT", "1");
    let lambda = Lambda::new(&variables, TIMEOUT);
    let batch = Batch::new(Kafka::SelfManaged, LEN);
    shop.endpoint.rule(|_| says("nonsense")());
    done(&lambda, &batch.event);
    let line = last_metrics(&lambda);
    assert_eq!(line["EndpointCalls"], 3, "three in a row and no more: {line}");
    assert_eq!((&line["EndpointBreakerOpen"], &line["breaker"]), (&json!(1), &json!("open")));
    assert!(line["EndpointNotAsked"].as_u64() > Some(0), "{line}");
    shop.endpoint.is_well();
    done(&lambda, &renumbered(&batch, 2));
    assert_eq!(shop.endpoint.calls(), 0, "the while is not over");
    assert!(shop.items().iter().all(|item| how(item) == by_local("stale", true)));
    invoke_until(&lambda, &batch, "endpoint", "stale");
    assert_eq!(last_metrics(&lambda)["EndpointBreakerOpen"], 0);
    assert_eq!(lambda.counts().cold_starts, 1);
}

#[test]
fn an_endpoint_that_hangs_near_the_deadline_leaves_time_to_score_and_to_store() {
    let shop = Shop::stale();
    shop.endpoint.rule(|_| Act::Hang);
    let variables = shop.variables().set("ENDPOINT_TIMEOUT_MS", "60000");
    let lambda = Lambda::new(&variables, Duration::from_secs(6));
    let batch = Batch::new(Kafka::SelfManaged, LEN);
    lambda.warm_up();
    done(&lambda, &batch.event);
    shop.assert_done("hangs", &batch, &by_local("stale", true));
    assert_eq!(lambda.counts().timed_out, 0);
}

#[test]
fn without_an_endpoint_a_stale_model_scores_on_and_says_so() {
    let shop = Shop::stale();
    let batch = Batch::new(Kafka::SelfManaged, LEN);
    for (fallback, endpoint, expected) in [
        ("endpoint", "", by_local("stale", true)),
        ("stale=local", "", by_local("stale", false)),
        ("local", "rcf", by_local("stale", false)),
    ] {
        shop.empty();
        let variables = shop.variables().set("FALLBACK", fallback).set("ENDPOINT_NAME", endpoint);
        let lambda = Lambda::new(&variables, TIMEOUT);
        done(&lambda, &batch.event);
        shop.assert_done(fallback, &batch, &expected);
    }
    assert_eq!(shop.endpoint.calls(), 0);
}

#[test]
fn where_nobody_is_to_score_records_come_again_until_there_is_a_fresh_model() {
    let shop = Shop::stale();
    let lambda = Lambda::new(&shop.variables().set("FALLBACK", "fail"), TIMEOUT);
    let batch = Batch::new(Kafka::SelfManaged, LEN);
    let expected: Vec<&str> = batch.stored().into_iter().map(place).collect();
    let got = reported(&lambda.invoke(&batch.event));
    assert_same_ids("reported", expected, got.iter().map(String::as_str));
    assert!(lambda.log().contains("its model is stale, and FALLBACK lets nobody score it"));
    shop.publish(Duration::ZERO);
    let patience = Instant::now() + TIMEOUT;
    while shop.items().is_empty() {
        assert!(Instant::now() < patience, "{}", lambda.log());
        std::thread::sleep(Duration::from_millis(100));
        lambda.invoke(&batch.event);
    }
    shop.assert_done("published", &batch, &local());
    assert_eq!(shop.endpoint.calls(), 0);
}

/// The shipped specification, with no need of a model.
const SPEC: &str = "format = \"json\"\n\
    [[feature]]\nname = \"duration_us\"\nfield = \"/duration_us\"\nmissing = \"reject\"\n\
    [[feature]]\nname = \"n_spans\"\nfield = \"/n_spans\"\nmissing = \"zero\"\n";

#[test]
fn a_missing_model_is_stood_in_for_and_taken_when_it_comes() {
    let shop = Shop::stale();
    std::fs::remove_file(shop.path("model")).expect("removed");
    std::fs::write(shop.path("spec.toml"), SPEC).expect("written");
    let features = format!("file://{}", shop.path("spec.toml").display());
    let variables = shop.variables().set("FEATURES_URI", features);
    let batch = Batch::new(Kafka::SelfManaged, LEN);

    // Neither a model nor an endpoint: poison is done, all others come again.
    shop.endpoint.rule(|_| says("nonsense")());
    let lambda = Lambda::new(&variables.clone().set("ENDPOINT_COOLDOWN_SECS", "0"), TIMEOUT);
    let expected: Vec<&str> = batch.stored().into_iter().map(place).collect();
    let got = reported(&lambda.invoke(&batch.event));
    assert_same_ids("reported", expected, got.iter().map(String::as_str));
    let failed = last_metrics(&lambda);
    assert_eq!((&failed["scorer"], &failed["ModelMissing"]), (&json!("none"), &json!(1)));

    shop.endpoint.is_well();
    let patience = Instant::now() + TIMEOUT;
    while lambda.invoke(&batch.event).body != ALL_DONE {
        assert!(Instant::now() < patience, "{}", lambda.log());
    }
    shop.assert_done("missing", &batch, &by_endpoint("missing"));
    assert!(shop.items().iter().all(|item| item["model"].is_null()), "{}", shop.items()[0]);
    assert!(shop.items().iter().all(|item| item.get("attribution").is_none()));

    shop.publish(Duration::ZERO);
    invoke_until(&lambda, &batch, "local", "fresh");
    done(&lambda, &renumbered(&batch, 2));
    assert_eq!(how(shop.items().last().expect("an item")), local());
    assert_eq!(lambda.counts().cold_starts, 1);
}

#[test]
fn what_can_not_stand_in_keeps_the_function_from_starting_and_is_named() {
    let shop = Shop::stale();
    let spec = |name: &str, text: &str| {
        std::fs::write(shop.path(name), text).expect("written");
        format!("file://{}", shop.path(name).display())
    };
    let category = "format = \"json\"\n[[feature]]\nname = \"pod\"\nfield = \"/pod\"\n\
                    encode = \"one_hot\"\n[[feature]]\nname = \"n\"\nfield = \"/n_spans\"\n";
    std::fs::write(shop.path("category"), model_of(category)).expect("written");
    let with_category = format!("file://{}", shop.path("category").display());
    let missing = format!("file://{}", shop.path("nothing").display());
    let variables = shop.variables();
    for (variables, words) in [
        (variables.clone().set("MODEL_URI", with_category), "feature `pod` is a category"),
        (variables.clone().set("MODEL_URI", &missing), "can't be read"),
        (
            variables.clone().set("FEATURES_URI", spec("a", &SPEC.replace("zero", "median"))),
            "feature `n_spans` has missing = \"median\"",
        ),
        (
            variables.clone().set("FEATURES_URI", spec("b", "format = 7")),
            "FEATURES_URI: specification: TOML parse error at line 1",
        ),
        (
            variables.clone().set("FEATURES_URI", spec("c", SPEC)).unset("ENDPOINT_THRESHOLD"),
            "FEATURES_URI is set, which needs ENDPOINT_THRESHOLD",
        ),
        (
            variables
                .clone()
                .set("FEATURES_URI", spec("c", SPEC))
                .set("MODEL_URI", &missing)
                .set("FALLBACK", "missing=fail"),
            "can't be read",
        ),
    ] {
        let (status, log) = failed_cold_start(&variables);
        assert!(!status.success(), "{words}: expected a failed start, got {status}");
        assert!(log.contains(&words.replace('"', "\\\"")), "expected {words:?}, got:\n{log}");
        assert!(!log.contains("panicked"), "{log}");
    }
}

#[test]
fn a_threshold_learned_from_the_endpoint_is_what_its_scores_are_held_against() {
    let shop = Shop::stale();
    let records = lines(2000);
    std::fs::write(shop.path("records.jsonl"), records.join(&b'\n')).expect("written");
    let run = std::process::Command::new(binary("SAWLOG_CLI", "sawlog"))
        .args(["calibrate", "--endpoint", "rcf", "--threshold", "quantile:0.9", "--model"])
        .arg(shop.path("model"))
        .arg("--input")
        .arg(shop.path("records.jsonl"))
        .env("AWS_REGION", REGION)
        .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        .env("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", &shop.endpoint.url)
        .env("ENDPOINT_ROWS", "values")
        .env("ENDPOINT_CHUNK_ROWS", "300")
        .output()
        .expect("sawlog runs");
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{said}\n{}", String::from_utf8_lossy(&run.stderr));
    assert!(said.contains("endpoint   rcf\nthreshold  "), "{said}");
    assert_eq!(shop.endpoint.calls(), 7, "2,000 rows in calls of 300");
    // The server's scores are numbers of spans: nine in ten have at most so many.
    let spans = |line: &Vec<u8>| {
        serde_json::from_slice::<Value>(line).expect("json")["n_spans"].as_f64().expect("a number")
    };
    let mut spans: Vec<f64> = records.iter().map(spans).collect();
    spans.sort_unstable_by(f64::total_cmp);
    let threshold = spans[(0.9 * 2001.0_f64).ceil() as usize - 1];

    let model = std::fs::File::options().write(true).open(shop.path("model")).expect("there");
    model.set_modified(SystemTime::now() - DAY * 2).expect("set");
    let lambda = Lambda::new(&shop.variables().unset("ENDPOINT_THRESHOLD"), TIMEOUT);
    let batch = Batch::new(Kafka::SelfManaged, LEN);
    done(&lambda, &batch.event);
    let mut expected = by_endpoint("stale");
    expected["threshold_of"] = json!("endpoint");
    shop.assert_done("calibrated", &batch, &expected);
    for item in shop.items() {
        assert_eq!(item["threshold"].as_f64(), Some(threshold), "{item}");
        assert_eq!(item["anomaly"], json!(item["score"].as_f64() > Some(threshold)), "{item}");
    }
    // The distribution is on the model's scale: its scores are small numbers, those of spans are not.
    let scores = last_metrics(&lambda)["Score"]["Values"].clone();
    let greatest = scores.as_array().expect("a list").iter().filter_map(Value::as_f64);
    assert!(greatest.fold(0.0, f64::max) < 5.0, "{scores}");
}

#[test]
fn the_example_of_the_fallback_is_as_it_says() {
    let run = std::process::Command::new(repository("examples/fallback/run"))
        .env("SAWLOG_BOOTSTRAP", binary("SAWLOG_BOOTSTRAP", "bootstrap"))
        .env("SAWLOG_CLI", binary("SAWLOG_CLI", "sawlog"))
        .output()
        .expect("python3");
    let [said, wrong] = [&run.stdout, &run.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    assert!(run.status.success(), "{}\n{said}\n{wrong}", run.status);
    for words in [
        "\"reason\": \"stale\"",
        "\"scorer\": \"local\"",
        "\"agreement\": \"disagree\"",
        "all of it is so",
    ] {
        assert!(said.contains(words), "expected {words:?} in:\n{said}");
    }
}

#[test]
fn a_summary_says_who_scored_the_records_that_it_counts() {
    let shop = Shop::stale();
    let lambda = Lambda::new(&shop.variables().set("RESULTS", "anomalies"), TIMEOUT);
    let batch = Batch::new(Kafka::SelfManaged, LEN);
    done(&lambda, &batch.event);
    let lines = shop.lines("results.jsonl");
    let summary = lines.iter().find(|line| line["partitions"].is_array()).expect("a summary");
    assert_eq!(summary["by_endpoint"], json!(LEN - batch.dead().len()), "{summary}");
    assert_eq!(summary["reason"], "stale");
    assert!(summary.get("degraded").is_none(), "{summary}");
}

#[test]
fn a_direct_request_is_scored_by_the_endpoint_too() {
    let shop = Shop::stale();
    let lambda = Lambda::new(&shop.variables(), TIMEOUT);
    let answer = lambda.invoke(r#"{"instances":[{"features":[203,4]},{"features":[9,31]}]}"#);
    assert_eq!(answer.json(), json!({"scores": [{"score": 4.0}, {"score": 31.0}]}));
    let records = r#"{"records":[{"duration_us":203,"n_spans":31},{"duration_us":9,"n_spans":2}]}"#;
    let answer = lambda.invoke(records);
    let verdicts = answer.json()["verdicts"].as_array().expect("a list").clone();
    for (verdict, anomaly) in verdicts.iter().zip([true, false]) {
        assert_eq!(how(verdict), by_endpoint("stale"), "{verdict}");
        assert_eq!(verdict["anomaly"], anomaly, "{verdict}");
    }
    assert_eq!((verdicts.len(), last_metrics(&lambda)["scorer"].clone()), (2, json!("endpoint")));
}
