//! Validation sampling: a share of the records goes to the endpoint too. The answer is the same whatever
//! the endpoint says of them, and an endpoint that disagrees makes the model suspect.

use std::collections::BTreeSet;
use std::io::{self, BufReader, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use ndarray::{Array1, ArrayView2};
use sawlog_model::Model;
use serde_json::{Value, json};

use crate::batch::{Batch, Kafka};
use crate::deployment::TIMEOUT;
use crate::faults::ALL_DONE;
use crate::function::{Variables, failed_cold_start, model};
use crate::http::{self, Message};
use crate::lambda::{Lambda, lock};
use crate::servers::S3;

/// Records of a batch, five of them poison.
const LEN: usize = 125;
/// The others.
const SOUND: usize = LEN - 5;

/// What the endpoint does with the scores of the model, which it has too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Says {
    /// The same.
    Same,
    /// The least unusual is the most unusual.
    Reverse,
    /// It never answers.
    Nothing,
    /// It has a fault.
    Fault,
}

/// An endpoint over HTTP that has the same model.
struct Endpoint {
    url: String,
    says: Arc<Mutex<Says>>,
    requests: Arc<AtomicUsize>,
}

impl Endpoint {
    fn start(says: Says) -> Self {
        let says = Arc::new(Mutex::new(says));
        let requests = Arc::new(AtomicUsize::new(0));
        let (saying, count) = (Arc::clone(&says), Arc::clone(&requests));
        let model = Model::decode(model()).expect("a model");
        let port = http::serve(move |stream| serve(stream, &model, &saying, &count));
        Self { url: format!("http://127.0.0.1:{port}"), says, requests }
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

fn serve(
    mut stream: BufReader<TcpStream>,
    model: &Model,
    says: &Mutex<Says>,
    count: &AtomicUsize,
) -> io::Result<()> {
    while let Some(request) = Message::read(&mut stream)? {
        count.fetch_add(1, Ordering::SeqCst);
        let says = *lock(says);
        let answer = match says {
            Says::Nothing => continue,
            Says::Fault => Message::answer(500, "{}").with("x-amzn-errortype", "InternalFailure"),
            Says::Same | Says::Reverse => {
                let scores = scores(model, &request.body);
                let said = |score: f32| if says == Says::Reverse { 1.0 / score } else { score };
                let scores: Vec<Value> =
                    scores.into_iter().map(|score| json!({"score": said(score)})).collect();
                Message::answer(200, json!({"scores": scores}).to_string())
            }
        };
        stream.get_mut().write_all(&answer.bytes())?;
    }
    Ok(())
}

/// The model's scores of rows of CSV.
fn scores(model: &Model, rows: &[u8]) -> Vec<f32> {
    let rows = std::str::from_utf8(rows).expect("text").split(['\n', ',']);
    let numbers = rows.filter(|number| !number.trim().is_empty());
    let numbers: Vec<f32> =
        numbers.map(|number| number.trim().parse().expect("a number")).collect();
    let dimensions = model.forest().dimensions();
    let points = ArrayView2::from_shape((numbers.len() / dimensions, dimensions), &numbers);
    let points = points.expect("whole rows");
    let mut scores = Array1::zeros(points.nrows());
    model.forest().score_batch(points, scores.view_mut()).expect("points of the model");
    scores.to_vec()
}

/// A function with its model in a file, results and dead letters in files, and an endpoint.
struct Shop {
    folder: tempfile::TempDir,
    endpoint: Endpoint,
}

impl Shop {
    fn new(says: Says) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("model"), model()).expect("written");
        Self { folder, endpoint: Endpoint::start(says) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn variables(&self) -> Variables {
        let file = |name: &str| format!("file://{}", self.path(name).display());
        Variables::default()
            .set("MODEL_URI", file("model"))
            .set("RESULTS", "all")
            .set("RESULTS_URI", file("results.jsonl"))
            .set("DEAD_LETTERS_URI", file("dead.jsonl"))
            .set("PARTIAL_BATCH", "true")
            .set("AWS_LAMBDA_LOG_FORMAT", "JSON")
            .set("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", &self.endpoint.url)
            .set("ENDPOINT_NAME", "rcf")
            .set("VALIDATE_SHARE", "1")
    }

    fn items(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.path("results.jsonl")).unwrap_or_default();
        json_lines(&text).into_iter().filter(|item| item["origin"].is_object()).collect()
    }

    /// Begins with empty results, as another deployment would.
    fn empty(&self) {
        for name in ["results.jsonl", "dead.jsonl"] {
            let _ = std::fs::remove_file(self.path(name));
        }
    }

    /// The ids of the records captured in a folder.
    fn captured(&self, name: &str) -> BTreeSet<String> {
        let mut ids = BTreeSet::new();
        for folder in std::fs::read_dir(self.path(name)).expect("a folder of captures") {
            for file in std::fs::read_dir(folder.expect("a model's").path()).expect("its files") {
                let text = std::fs::read_to_string(file.expect("a file").path()).expect("text");
                ids.extend(json_lines(&text).iter().map(id));
            }
        }
        ids
    }
}

fn id(line: &Value) -> String {
    line["id"].as_str().expect("an id").to_owned()
}

fn json_lines(text: &str) -> Vec<Value> {
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    text.lines().map(parse).collect()
}

fn last_metrics(lambda: &Lambda) -> Value {
    let lines = json_lines(&lambda.log());
    lines.into_iter().rfind(|line| line.get("_aws").is_some()).expect("a line of metrics")
}

/// The batch of the same records at other offsets, by a number from 1 to 99.
fn renumbered(batch: &Batch, number: usize) -> String {
    batch.event.replace("\"offset\":100", &format!("\"offset\":{number}100"))
}

fn done(lambda: &Lambda, event: &str) -> Value {
    let answer = lambda.invoke(event);
    assert_eq!((answer.status, answer.body.as_str()), (200, ALL_DONE), "{}", lambda.log());
    last_metrics(lambda)
}

#[test]
fn whatever_the_endpoint_says_of_sampled_records_the_answer_is_the_same() {
    let shop = Shop::new(Says::Same);
    let batch = Batch::new(Kafka::SelfManaged, LEN);
    let unsampled = Lambda::new(&shop.variables().set("VALIDATE_SHARE", "0"), TIMEOUT);
    let line = done(&unsampled, &batch.event);
    assert!(line.get("ValidationSampled").is_none(), "{line}");
    let expected = shop.items();
    assert_eq!((expected.len(), shop.endpoint.requests()), (SOUND, 0));
    drop(unsampled);
    for (says, failed) in
        [(Says::Same, 0), (Says::Reverse, 0), (Says::Fault, SOUND), (Says::Nothing, SOUND)]
    {
        shop.empty();
        *lock(&shop.endpoint.says) = says;
        let lambda = Lambda::new(&shop.variables().set("ENDPOINT_TIMEOUT_MS", "100"), TIMEOUT);
        let line = done(&lambda, &batch.event);
        assert_eq!(shop.items(), expected, "{says:?}");
        for (name, expected) in [
            ("scorer", json!("local")),
            ("agreement", json!("too few to say")),
            ("ValidationSampled", json!(SOUND)),
            ("ValidationCompared", json!(SOUND - failed)),
            ("ValidationFailed", json!(failed)),
            ("ValidationDropped", json!(0)),
            ("ValidationWindow", json!(SOUND - failed)),
            ("ModelDisagrees", json!(0)),
        ] {
            assert_eq!(line[name], expected, "{says:?}, {name}: {line}");
        }
    }
}

#[test]
fn an_endpoint_that_disagrees_makes_the_model_suspect_until_they_agree() {
    let shop = Shop::new(Says::Reverse);
    let variables = shop.variables().set("FALLBACK", "suspect=endpoint");
    let lambda = Lambda::new(&variables, TIMEOUT);
    let batch = Batch::new(Kafka::SelfManaged, LEN);
    // Two batches have enough records, but what they have in common may be their fault.
    for number in 1..=2 {
        let line = done(&lambda, &renumbered(&batch, number));
        assert_eq!(line["agreement"], "too few to say", "{line}");
    }
    let line = done(&lambda, &renumbered(&batch, 3));
    assert_eq!((&line["agreement"], &line["ModelDisagrees"]), (&json!("disagree"), &json!(1)));
    assert!(line["ValidationRankCorrelation"].as_f64() < Some(-0.99), "{line}");
    assert_eq!((&line["scorer"], &line["reason"]), (&json!("local"), &json!("fresh")), "{line}");
    let line = done(&lambda, &renumbered(&batch, 4));
    assert_eq!(
        (&line["scorer"], &line["reason"], &line["ModelSuspect"]),
        (&json!("endpoint"), &json!("suspect"), &json!(1)),
        "{line}"
    );
    assert_eq!(line["ValidationCompared"], SOUND, "its own scores make pairs too: {line}");
    let requests = shop.endpoint.requests();
    // The endpoint comes to its senses, and the window fills with that.
    *lock(&shop.endpoint.says) = Says::Same;
    let large = Batch::new(Kafka::SelfManaged, 1005);
    let agreed =
        (5..30).find(|number| done(&lambda, &renumbered(&large, *number))["agreement"] == "agree");
    let rounds = agreed.unwrap_or_else(|| panic!("expected agreement: {}", last_metrics(&lambda)));
    assert!(rounds <= 8, "2,048 records are three batches: {rounds}");
    assert_eq!(shop.endpoint.requests() - requests, rounds - 4, "one call a batch");
    let line = done(&lambda, &renumbered(&batch, 40));
    assert_eq!((&line["scorer"], &line["reason"]), (&json!("local"), &json!("fresh")), "{line}");
}

#[test]
fn a_suspect_model_scores_on_by_default_and_says_so() {
    let shop = Shop::new(Says::Reverse);
    let lambda = Lambda::new(&shop.variables(), TIMEOUT);
    let batch = Batch::new(Kafka::SelfManaged, LEN);
    for number in 1..=4 {
        done(&lambda, &renumbered(&batch, number));
    }
    let items = shop.items();
    assert_eq!(items.len(), 4 * SOUND);
    assert!(items[..3 * SOUND].iter().all(|item| item.get("reason").is_none()), "{}", items[0]);
    for item in &items[3 * SOUND..] {
        assert_eq!((&item["scorer"], &item["reason"]), (&json!("local"), &json!("suspect")));
    }
    let log = json_lines(&lambda.log());
    let told = log.iter().find(|line| line["message"] == "validation").expect("it is told");
    assert_eq!((&told["level"], &told["agreement"]), (&json!("WARN"), &json!("disagree")));
    assert!(told["reason"].as_str().expect("why").contains("rank correlation -1.00"), "{told}");
}

#[test]
fn a_hanging_endpoint_is_left_alone_after_three_batches() {
    let shop = Shop::new(Says::Nothing);
    let lambda = Lambda::new(&shop.variables(), TIMEOUT);
    let batch = Batch::new(Kafka::SelfManaged, LEN);
    for number in 1..=3 {
        let line = done(&lambda, &renumbered(&batch, number));
        assert_eq!(line["ValidationFailed"], SOUND, "{line}");
    }
    let requests = shop.endpoint.requests();
    assert!(requests >= 3, "{requests}");
    for number in 4..=6 {
        let line = done(&lambda, &renumbered(&batch, number));
        assert_eq!(line["ValidationFailed"], SOUND, "{line}");
    }
    assert_eq!(shop.endpoint.requests(), requests, "nobody waits for it any more");
    assert_eq!(shop.items().len(), 6 * SOUND);
}

#[test]
fn redelivery_samples_the_same_and_a_greater_share_all_of_a_smaller() {
    let shop = Shop::new(Says::Same);
    let batch = Batch::new(Kafka::SelfManaged, 505);
    let deployment = |share: &str, name: &str| {
        let variables = shop.variables().set("VALIDATE_SHARE", share);
        let place = format!("file://{}", shop.path(name).display());
        shop.empty();
        Lambda::new(&variables.set("CAPTURE_URI", place), TIMEOUT)
    };
    let small = deployment("0.2", "a");
    let line = done(&small, &batch.event);
    let first = shop.captured("a");
    assert!((60..=140).contains(&first.len()), "a fifth of 500: {}", first.len());
    assert_eq!(line["ValidationSampled"], first.len());
    let again = done(&small, &batch.event);
    assert_eq!(shop.captured("a"), first);
    assert_eq!(again["ValidationWindow"], first.len(), "counted once: {again}");
    drop(small);
    let large = deployment("0.6", "b");
    done(&large, &batch.event);
    let second = shop.captured("b");
    assert!(second.len() > 200 && first.is_subset(&second), "{}", second.len());
    let stored: BTreeSet<String> = batch.stored().into_iter().map(str::to_owned).collect();
    assert!(second.is_subset(&stored));
}

#[test]
fn pairs_are_captured_in_s3_with_features_only_if_these_may_be_logged() {
    let (shop, s3) = (Shop::new(Says::Same), S3::start());
    let batch = Batch::new(Kafka::SelfManaged, LEN);
    for (bucket, log_fields) in [("plain", "false"), ("full", "true")] {
        s3.create_bucket(bucket);
        shop.empty();
        let variables = shop
            .variables()
            .set("LOG_FIELDS", log_fields)
            .set("AWS_ENDPOINT_URL_S3", &s3.url)
            .set("CAPTURE_URI", format!("s3://{bucket}/pairs"));
        let lambda = Lambda::new(&variables, TIMEOUT);
        for _delivery in 0..2 {
            assert_eq!(done(&lambda, &batch.event)["CaptureFailed"], 0);
        }
        let objects = s3.objects(bucket);
        let keys: Vec<&String> = objects.keys().collect();
        assert_eq!(keys.len(), 1, "delivered again, it is the same object: {keys:?}");
        assert!(keys[0].starts_with("pairs/") && keys[0].ends_with(".jsonl"), "{keys:?}");
        let pairs = json_lines(std::str::from_utf8(&objects[keys[0]]).expect("text"));
        assert_eq!(pairs.len(), SOUND);
        for pair in pairs {
            let scores = [&pair["local"]["score"], &pair["endpoint"]["score"]];
            let [local, endpoint] = scores.map(|score| score.as_f64().expect("a score"));
            assert!((local - endpoint).abs() < 1e-4, "{pair}");
            assert_eq!(pair["local"]["anomaly"], pair["endpoint"]["anomaly"], "{pair}");
            assert_eq!(pair.get("features").is_some(), log_fields == "true", "{pair}");
        }
    }
}

#[test]
fn without_an_endpoint_the_features_alone_are_watched() {
    let shop = Shop::new(Says::Same);
    let variables = shop.variables().unset("ENDPOINT_NAME").set("AWS_LAMBDA_LOG_LEVEL", "WARN");
    let lambda = Lambda::new(&variables, TIMEOUT);
    // A third of the requests take hours.
    let mut batch = Batch::new(Kafka::SelfManaged, 305);
    batch.make_unusual(100);
    let mut line = Value::Null;
    for number in 1..=5 {
        line = done(&lambda, &renumbered(&batch, number));
    }
    assert_eq!((&line["ValidationCompared"], shop.endpoint.requests()), (&json!(0), 0), "{line}");
    assert!(line["FeaturesShifted"].as_u64() >= Some(1), "{line}");
    assert!(line["FeatureShiftMax"].as_f64() > Some(0.25), "{line}");
    assert!(line["FeatureOutsideMax"].as_f64() > Some(0.2), "{line}");
    let log = lambda.log();
    assert!(log.contains("\"feature\":\"duration_us\""), "it is named in the log:\n{log}");

    let (status, log) = failed_cold_start(&variables.set("CAPTURE_URI", "file:///pairs"));
    assert!(!status.success() && log.contains("CAPTURE_URI is set, which needs ENDPOINT_NAME"));
}
