//! The model's store on a bad day: refused, gone, slow, cut short, damaged, replaced between two
//! starts or under a warm function, and a new model that reads other features. A function that has no
//! sound model does not start, so that no record is lost to it; a warm one keeps the model that it has
//! until there is a sound one.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::batch::{Batch, Kafka, assert_same_ids};
use crate::deployment::{Deployment, TIMEOUT};
use crate::faults::ALL_DONE;
use crate::faults_sinks::mend;
use crate::function::{Variables, binary, failed_cold_start, model, repository};
use crate::http::Message;
use crate::lambda::Lambda;
use crate::proxy::{Fault, Proxy, status};
use crate::servers::S3;

const PLACE: &str = "s3://models/prod/requests.model";

/// A deployment whose model is in S3, behind a proxy.
struct Store {
    deployment: Deployment,
    s3: S3,
    proxy: Proxy,
}

impl Store {
    fn start(seed: u64) -> Self {
        let s3 = S3::start();
        s3.create_bucket("models");
        let proxy = Proxy::before(&s3.url, seed);
        let store = Self { deployment: Deployment::with_file(seed), s3, proxy };
        store.put(model().to_vec());
        store
    }

    fn put(&self, model: Vec<u8>) {
        self.s3.put("models", "prod/requests.model", model);
    }

    fn variables(&self) -> Variables {
        let variables = self.deployment.variables().set("MODEL_URI", PLACE);
        variables.set("AWS_ENDPOINT_URL_S3", &self.proxy.url)
    }
}

/// An error as S3 gives it.
pub(crate) fn s3_error(code: u16, name: &str) -> Fault {
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{name}</Code>\
         <Message>as the test wants it</Message></Error>"
    );
    Fault::Answer(Message::answer(code, body).with("Content-Type", "application/xml"))
}

/// A model of the same log with another specification: it doesn't read how long a request took.
fn other_model() -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let [spec, path] = ["spec.toml", "model"].map(|name| folder.path().join(name));
    let text = "format = \"json\"\n[[feature]]\nname = \"spans\"\nfield = \"/n_spans\"\n\
                [[feature]]\nname = \"pod\"\nfield = \"/pod\"\nencode = \"one_hot\"\n";
    std::fs::write(&spec, text).expect("a file");
    let mut train = Command::new(binary("SAWLOG_CLI", "sawlog"));
    train.arg("train").arg("--spec").arg(&spec).arg("--input");
    train.arg(repository("examples/nezha/requests.jsonl.gz")).arg("--output").arg(&path);
    let run = train.output().expect("sawlog runs");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    std::fs::read(&path).expect("a model")
}

#[test]
fn a_store_that_refuses_or_damages_the_model_keeps_the_function_from_starting() {
    let store = Store::start(31);
    for (fault, words) in [
        (s3_error(404, "NoSuchKey"), "NoSuchKey"),
        (s3_error(403, "AccessDenied"), "AccessDenied"),
        // What S3 says to a clock that is a quarter of an hour off.
        (s3_error(403, "RequestTimeTooSkewed"), "RequestTimeTooSkewed"),
        (s3_error(500, "InternalError"), "InternalError"),
        (status(503), "HTTP 503"),
        (s3_error(503, "SlowDown"), "SlowDown"),
        (Fault::Corrupt, "checksum"),
        (Fault::Truncate, ""),
        (Fault::Close, ""),
    ] {
        let what = format!("{fault:?}");
        store.proxy.rule(move |_, _| fault.clone());
        let (status, log) = failed_cold_start(&store.variables());
        assert!(!status.success(), "{what}: expected a failed start, got {status}");
        for words in ["MODEL_URI", PLACE, words] {
            assert!(log.contains(words), "{what}: expected {words:?} in the log, got:\n{log}");
        }
        assert!(!log.contains("panicked"), "{what}: {log}");
    }
    // The event source tries again, and by then the store is well.
    store.proxy.rule(|_, _| Fault::None);
    let batch = Batch::new(Kafka::Msk, 100);
    mend(&batch, &store.deployment, &Lambda::new(&store.variables(), TIMEOUT));
}

#[test]
fn a_store_that_fails_twice_hangs_once_or_is_slow_only_delays_the_start() {
    let store = Store::start(32);
    let batch = Batch::new(Kafka::SelfManaged, 100);
    let faults = [
        vec![status(503), status(500)],
        vec![Fault::Close],
        vec![Fault::Hang],
        vec![Fault::Delay(Duration::from_secs(1))],
    ];
    for faults in faults {
        let mut left = faults;
        store.proxy.rule(move |_, _| left.pop().unwrap_or(Fault::None));
        mend(&batch, &store.deployment, &Lambda::new(&store.variables(), TIMEOUT));
    }
}

#[test]
fn a_model_with_other_features_takes_over_at_the_next_start_and_the_records_stay_the_same() {
    let store = Store::start(33);
    let batch = Batch::new(Kafka::SelfManaged, 200);
    let before = Lambda::new(&store.variables(), TIMEOUT);
    mend(&batch, &store.deployment, &before);
    let old = store.deployment.dynamodb.items("results");

    store.put(other_model());
    // A function that runs keeps the model that it started with.
    mend(&batch, &store.deployment, &before);
    assert!(old == store.deployment.dynamodb.items("results"), "items have changed");

    drop(before);
    let after = Lambda::new(&store.variables(), TIMEOUT);
    let answer = after.invoke(&batch.event);
    assert_eq!((answer.status, answer.body.as_str()), (200, ALL_DONE));
    let new = store.deployment.dynamodb.items("results");
    // The record without a duration is sound for the new model: it is stored now as well, its letter
    // stays where it is.
    let gained: Vec<&str> =
        new.keys().filter(|id| !old.contains_key(*id)).map(String::as_str).collect();
    let letters = store.deployment.letters();
    assert_same_ids("dead-lettered", batch.dead(), letters.iter().map(String::as_str));
    assert!(gained.len() == 1 && batch.dead().contains(&gained[0]), "{gained:?}");
    for (id, item) in &new {
        let features = item["features"].as_m().expect("a map");
        let mut names: Vec<&str> = features.keys().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["pod", "spans"], "{id}");
        assert!(old.get(id).is_none_or(|before| before["model"] != item["model"]), "{id}");
    }
}

/// Ids of the models that the stored records were scored with.
fn models(deployment: &Deployment) -> BTreeSet<String> {
    let items = deployment.dynamodb.items("results");
    items.values().map(|item| item["model"].as_s().expect("a string").clone()).collect()
}

#[test]
fn a_warm_function_keeps_its_model_until_there_is_a_sound_one() {
    let store = Store::start(34);
    let variables = store.variables().set("MODEL_REFRESH_SECS", "1");
    let lambda = Lambda::new(&variables, TIMEOUT);
    let batch = Batch::new(Kafka::SelfManaged, 100);
    mend(&batch, &store.deployment, &lambda);
    let old = models(&store.deployment);
    assert_eq!(old.len(), 1, "{old:?}");

    // A check is due at every invocation from here on.
    let invoke = || {
        std::thread::sleep(Duration::from_millis(1100));
        mend(&batch, &store.deployment, &lambda);
    };
    let other = other_model();
    store.put(other.clone());
    for fault in [
        s3_error(404, "NoSuchKey"),
        s3_error(403, "AccessDenied"),
        s3_error(500, "InternalError"),
        Fault::Truncate,
        Fault::Close,
    ] {
        let what = format!("{fault:?}");
        store.proxy.rule(move |_, _| fault.clone());
        invoke();
        assert_eq!(models(&store.deployment), old, "{what}");
    }
    let mut damaged = other.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 0x10;
    store.put(damaged);
    store.proxy.rule(|_, _| Fault::None);
    let patience = Instant::now() + TIMEOUT;
    while !lambda.log().contains("new model refused") {
        assert!(Instant::now() < patience, "the damaged model was not refused:\n{}", lambda.log());
        invoke();
    }
    assert_eq!(models(&store.deployment), old, "a damaged model");
    assert!(lambda.log().contains("model check failed"), "{}", lambda.log());

    // Sound, and slow to come: batches go on with the old model, and then with the new one.
    store.put(other);
    store.proxy.rule(|_, _| Fault::Delay(Duration::from_secs(2)));
    let patience = Instant::now() + TIMEOUT;
    while models(&store.deployment) == old {
        assert!(Instant::now() < patience, "the new model was not taken:\n{}", lambda.log());
        std::thread::sleep(Duration::from_millis(500));
        let answer = lambda.invoke(&batch.event);
        assert_eq!((answer.status, answer.body.as_str()), (200, ALL_DONE));
    }
    let new = models(&store.deployment);
    assert!(new.len() == 1 && new.is_disjoint(&old), "one batch, two models: {new:?}, {old:?}");
    assert_eq!(lambda.counts().cold_starts, 1);
}
