//! Publishing: `sawlog publish`, `promote`, `rollback` and `history` against an S3 server whose conditional
//! writes are atomic, well and on a bad day, and a function that follows the pointer.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use sawlog_model::{Calibration, Model, ThresholdRule};
use serde_json::Value;

use crate::batch::{Batch, Kafka};
use crate::deployment::TIMEOUT;
use crate::faults_model::s3_error;
use crate::function::{Variables, binary, repository};
use crate::http::Message;
use crate::lambda::Lambda;
use crate::process::{free_port, local};
use crate::proxy::{Fault, Proxy};
use crate::servers::{ACCESS_KEY, READER_KEY, REGION, S3, SECRET_KEY};

pub(crate) const BUCKET: &str = "models";
pub(crate) const PLACE: &str = "s3://models/web";
pub(crate) const CURRENT: &str = "web/current.json";
const LOG: &str = "examples/nezha/requests.jsonl.gz";

/// What a run of `sawlog` said.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) ok: bool,
    pub(crate) text: String,
}

impl Run {
    /// Fails unless the run did, with these words.
    pub(crate) fn refused(self, words: &[&str]) -> Self {
        assert!(!self.ok, "expected a failure, got:\n{}", self.text);
        self.says(words)
    }

    /// Fails unless the run succeeded, with these words.
    pub(crate) fn done(self, words: &[&str]) -> Self {
        assert!(self.ok, "expected success, got:\n{}", self.text);
        self.says(words)
    }

    fn says(self, words: &[&str]) -> Self {
        for words in words {
            assert!(self.text.contains(words), "expected {words:?}, got:\n{}", self.text);
        }
        assert!(!self.text.contains("panicked"), "{}", self.text);
        self
    }
}

/// `sawlog` as a process, with nothing of the machine's own profile, keys or proxies.
pub(crate) fn command(s3_url: &str, args: &[&str]) -> Command {
    // A test that is killed drops nothing; the kernel then ends what it started.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(binary("SAWLOG_CLI", "sawlog")).args(args);
    command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin");
    command.env("AWS_REGION", REGION).env("AWS_ENDPOINT_URL_S3", s3_url);
    command.env("AWS_ACCESS_KEY_ID", ACCESS_KEY).env("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub(crate) fn run(mut command: Command) -> Run {
    let output = command.output().expect("sawlog runs");
    let text = [output.stdout, output.stderr].concat();
    Run { ok: output.status.success(), text: String::from_utf8_lossy(&text).into_owned() }
}

/// The shipped log's features, trained small: these tests are about where models go.
pub(crate) fn small_model() -> &'static Model {
    static MODEL: OnceLock<Model> = OnceLock::new();
    MODEL.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("model");
        let mut train = Command::new(binary("SAWLOG_CLI", "sawlog"));
        // Under the same name wherever the repository is: which records are sampled follows from it.
        train.current_dir(repository("")).args(["train", "--spec", "examples/nezha/spec.toml"]);
        train.args(["--input", LOG, "--trees", "10", "--samples", "64"]);
        let run = train.arg("--output").arg(&path).output().expect("sawlog runs");
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        Model::decode(&std::fs::read(path).expect("a model")).expect("sound")
    })
}

/// The same model with a threshold of its own, and so with an id of its own.
pub(crate) fn variant(threshold: f64) -> Model {
    let calibration = Calibration::new(ThresholdRule::Value(threshold), &[0.5, 1.0]);
    small_model().clone().with_calibration(calibration)
}

/// A server with a bucket, and models as files.
struct Place {
    s3: S3,
    folder: tempfile::TempDir,
}

impl Place {
    fn start() -> Self {
        let s3 = S3::start_atomic();
        s3.create_bucket(BUCKET);
        Self { s3, folder: tempfile::tempdir().expect("a temporary folder") }
    }

    /// Writes a model to a file and returns its path and id.
    fn file(&self, model: &Model) -> (PathBuf, String) {
        write(self.folder.path(), model)
    }

    fn sawlog(&self, args: &[&str]) -> Run {
        run(command(&self.s3.url, args))
    }

    fn publish(&self, model: &Path, more: &[&str]) -> Run {
        let args = ["publish", model.to_str().expect("text"), "--to", PLACE];
        self.sawlog(&[&args, more].concat())
    }

    fn pointer(&self) -> Value {
        pointer(&self.s3).expect("a pointer")
    }
}

/// Writes a model to a file and returns its path and id; the id of what is decoded is that of the bytes.
pub(crate) fn write(folder: &Path, model: &Model) -> (PathBuf, String) {
    let bytes = model.encode();
    let id = Model::decode(&bytes).expect("sound").id().to_owned();
    let path = folder.join(format!("{id}.model"));
    std::fs::write(&path, bytes).expect("a file");
    (path, id)
}

/// The current pointer.
pub(crate) fn pointer(s3: &S3) -> Option<Value> {
    s3.get(BUCKET, CURRENT).map(|bytes| serde_json::from_slice(&bytes).expect("json"))
}

fn current(pointer: &Value) -> &str {
    pointer["current"]["model"].as_str().expect("an id")
}

#[test]
fn a_model_goes_from_candidate_to_current_and_back() {
    let place = Place::start();
    let (files, ids): (Vec<_>, Vec<_>) =
        [1.0, 2.0, 3.0].map(|threshold| place.file(&variant(threshold))).into_iter().unzip();

    place
        .sawlog(&["history", PLACE])
        .refused(&["s3://models/web/current.json", "nothing is published"]);
    place.sawlog(&["promote", PLACE]).refused(&["s3://models/web/candidate.json", "no candidate"]);
    place.publish(&files[0], &[]).done(&[
        "this is the first model",
        "uploaded   s3://models/web/",
        "published as number 1",
        "MODEL_URI  s3://models/web/current.json",
    ]);
    assert_eq!(current(&place.pointer()), ids[0]);
    // Again: nothing moves.
    place.publish(&files[0], &[]).done(&["already, since number 1"]);
    place.sawlog(&["rollback", PLACE]).refused(&["its history has no model before"]);

    place.publish(&files[1], &["--candidate"]).done(&["s3://models/web/candidate.json"]);
    assert_eq!(current(&place.pointer()), ids[0], "the candidate is nobody's model yet");
    place.sawlog(&["promote", PLACE]).done(&["the features are those of", "promoted as number 2"]);
    place.publish(&files[2], &[]).done(&["published as number 3"]);
    let pointer = place.pointer();
    assert_eq!(current(&pointer), ids[2]);
    let before: Vec<&str> = pointer["previous"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|moved| moved["model"].as_str().expect("an id"))
        .collect();
    assert_eq!(before, [ids[1].as_str(), ids[0].as_str()]);

    // One back, and one more.
    place.sawlog(&["rollback", PLACE]).done(&["before     ", &ids[1], "rolled back as number 4"]);
    place.sawlog(&["rollback", PLACE]).done(&[&ids[0], "rolled back as number 5"]);
    place.sawlog(&["rollback", PLACE]).refused(&["its history has no model before", &ids[0]]);
    place.sawlog(&["rollback", PLACE, "--to", &ids[2][..8]]).done(&["number 6", &ids[2]]);
    place.sawlog(&["rollback", PLACE, "--to", &ids[2][..8]]).done(&["already"]);
    let history = place.sawlog(&["history", PLACE]).done(&[&ids[0], &ids[1], "promoted"]);
    let lines: Vec<&str> = history.text.lines().collect();
    assert_eq!(lines.len(), 2 + 6, "{}", history.text);
    assert!(lines[2].contains("now") && lines[2].contains(&ids[2]), "{}", history.text);
    let json = place.sawlog(&["history", PLACE, "--json"]).text;
    assert_eq!(serde_json::from_str::<Value>(&json).expect("json"), place.pointer());
    // Every snapshot is under its hash, once.
    let objects = place.s3.objects(BUCKET);
    let snapshots: Vec<&String> = objects.keys().filter(|key| key.ends_with(".sawlog")).collect();
    assert_eq!(snapshots.len(), 3, "{snapshots:?}");
    for key in snapshots {
        let id = Model::decode(&objects[key]).expect("sound").id().to_owned();
        assert_eq!(*key, format!("web/{id}.sawlog"));
    }
}

#[test]
fn the_gate_refuses_what_would_break_and_keeps_why_it_was_overruled() {
    let place = Place::start();
    let log = repository(LOG);
    let sample = ["--sample", log.to_str().expect("text")];
    let (base, base_id) = place.file(small_model());
    place.publish(&base, &sample).done(&["first model"]);

    // Nearly the same threshold: within bounds.
    let threshold = small_model().calibration().expect("one").threshold;
    let (near, near_id) = place.file(&variant(threshold * 1.02));
    place.publish(&near, &sample).done(&["it flags", "of 46,8", "published as number 2"]);

    let low = small_model().calibration().expect("one").quantiles[0];
    let (loud, loud_id) = place.file(&variant(low));
    place.publish(&loud, &sample).refused(&[
        "the gate refuses this model",
        "s3://models/web/current.json stays as it is",
        "0.33 to 3.00 times as many, and more than chance",
        &format!("aws s3 cp s3://models/web/{near_id}.sawlog current.sawlog\n"),
        &format!("sawlog diff current.sawlog {} --input {}\n", loud.display(), sample[1]),
        &format!("sawlog publish {} --to {PLACE} --candidate\n", loud.display()),
        "--force REASON",
    ]);
    let uploaded = place.s3.get(BUCKET, &format!("web/{loud_id}.sawlog"));
    assert!(uploaded.is_none(), "not even uploaded");
    // The candidate is there already, and may be looked at.
    place.publish(&loud, &["--candidate"]).done(&["candidate "]);
    let promoted = place.sawlog(&["promote", PLACE, sample[0], sample[1]]).refused(&[
        &format!("aws s3 cp s3://models/web/{loud_id}.sawlog candidate.sawlog\n"),
        "sawlog diff current.sawlog candidate.sawlog --input",
        "--force REASON",
    ]);
    assert!(!promoted.text.contains("--candidate"), "{}", promoted.text);
    assert_eq!(current(&place.pointer()), near_id);
    let bounds = [&sample[..], &["--bounds", "0..1000000"]].concat();
    place.publish(&loud, &bounds).done(&["published as number 3"]);

    let few = place.folder.path().join("few.jsonl");
    std::fs::write(&few, crate::batch::lines(999).join(&b'\n')).expect("a file");
    let few = ["--sample", few.to_str().expect("text")];
    place.publish(&base, &few).refused(&["records with a score; 1,000 are needed"]);
    place.publish(&base, &["--sample", "-"]).refused(&["--sample -"]);

    let (silent, _) = place.file(&small_model().clone().with_calibration(None));
    place.publish(&silent, &[]).refused(&["it has no threshold"]);

    let other = crate::function::model_of(
        "format = \"json\"\n[[feature]]\nname = \"spans\"\nfield = \"/n_spans\"\n",
    );
    let other = Model::decode(&other).expect("sound");
    let (file, other_id) = place.file(&other);
    place.publish(&file, &[]).refused(&[
        "feature duration_us is gone",
        "feature spans is new",
        "s3://models/web/current.json stays",
    ]);
    place.publish(&file, &["--force", ""]).refused(&["--force"]);
    place.publish(&file, &["--force", "fewer features"]).done(&["overruled: fewer features"]);
    let pointer = place.pointer();
    assert_eq!(current(&pointer), other_id);
    assert_eq!(pointer["current"]["forced"], "fewer features");
    let found = pointer["current"]["overruled"].to_string();
    assert!(found.contains("feature duration_us is gone"), "{found}");
    place.sawlog(&["history", PLACE]).done(&["number 4 was forced: fewer features", "is gone"]);
    // Back past the gate, without one.
    place.sawlog(&["rollback", PLACE, "--to", &base_id]).done(&["rolled back as number 5"]);
}

#[test]
fn every_fault_is_named_with_its_place() {
    let place = Place::start();
    let (one, one_id) = place.file(&variant(1.0));
    let (two, two_id) = place.file(&variant(2.0));
    let text = |path: &Path| path.to_str().expect("text").to_owned();

    // Refused before anything is asked.
    let missing = place.folder.path().join("none");
    place.publish(&missing, &[]).refused(&["model ", "none"]);
    let garbage = place.folder.path().join("garbage");
    std::fs::write(&garbage, "no model").expect("a file");
    place.publish(&garbage, &[]).refused(&["not a sawlog model"]);
    for (to, words) in [
        ("s3://models/web/current.json", "and their pointer, s3://models/web\n"),
        ("s3://models/web/new.sawlog", "is an object's name (*.sawlog); give the folder"),
        ("models/web", "not s3://bucket/prefix"),
        ("file:///tmp/x", "not s3://bucket/prefix"),
    ] {
        place.sawlog(&["publish", &text(&one), "--to", to]).refused(&[words]);
    }
    // No such bucket.
    place
        .sawlog(&["publish", &text(&one), "--to", "s3://nowhere-at-all/web"])
        .refused(&["s3://nowhere-at-all/web/current.json: there is no bucket nowhere-at-all: "]);
    // No region, and nobody there.
    let nowhere = format!("http://{}", local(free_port()));
    for args in [
        &["publish", &text(&one), "--to", PLACE][..],
        &["history", PLACE],
        &["promote", PLACE],
        &["rollback", PLACE],
    ] {
        let pointer = if args[0] == "promote" { "candidate.json" } else { "current.json" };
        let mut homeless = command(&place.s3.url, args);
        homeless.env_remove("AWS_REGION").env("AWS_EC2_METADATA_DISABLED", "true");
        let words = format!("s3://models/web/{pointer}: there is no AWS region: set AWS_REGION");
        run(homeless).refused(&[&words]);
        let words = format!("s3://models/web/{pointer}: S3 at {nowhere} can't be reached: ");
        run(command(&nowhere, args)).refused(&[&words]);
    }

    // Who may read only.
    let mut denied = command(&place.s3.url, &["publish", &text(&one), "--to", PLACE]);
    denied.env("AWS_ACCESS_KEY_ID", READER_KEY);
    run(denied).refused(&[
        &format!("s3://models/web/{one_id}.sawlog"),
        "can't be written (HTTP 403)",
        "s3:PutObject is needed",
    ]);
    assert!(place.s3.objects(BUCKET).is_empty(), "nothing was written");
    // Nobody at all.
    let mut nobody = command(&place.s3.url, &["history", PLACE]);
    nobody.env("AWS_ACCESS_KEY_ID", "AKIANOBODY");
    run(nobody).refused(&["s3://models/web/current.json", "HTTP 403", "s3:GetObject is needed"]);
    let mut keyless = command(&place.s3.url, &["history", PLACE]);
    keyless.env_remove("AWS_ACCESS_KEY_ID").env("AWS_EC2_METADATA_DISABLED", "true");
    run(keyless).refused(&["s3://models/web/current.json", "credentials"]);

    // Something else under the model's name.
    place.s3.put(BUCKET, &format!("web/{one_id}.sawlog"), variant(2.0).encode());
    place.publish(&one, &[]).refused(&[
        &format!("s3://models/web/{one_id}.sawlog"),
        "holds other bytes than its name says",
        &two_id,
    ]);
    assert!(pointer(&place.s3).is_none(), "nothing points to it");
    place.s3.delete(BUCKET, &format!("web/{one_id}.sawlog"));
    place.publish(&one, &[]).done(&["published as number 1"]);

    // The current model has been damaged since: it can't be compared with, which a person may overrule.
    let mut damaged = variant(1.0).encode();
    damaged[60] ^= 1;
    place.s3.put(BUCKET, &format!("web/{one_id}.sawlog"), damaged);
    let words = ["the current model can't be compared with", &one_id, "checksum"];
    place.publish(&two, &[]).refused(&words);
    place.publish(&two, &["--force", "it is damaged"]).done(&["published as number 2"]);
    place.sawlog(&["rollback", PLACE]).refused(&[&one_id, "checksum"]);
    place.s3.delete(BUCKET, &format!("web/{one_id}.sawlog"));
    place.sawlog(&["rollback", PLACE]).refused(&[&format!("{one_id}.sawlog"), "HTTP 404"]);
    // Published again, it is there again.
    place.publish(&one, &[]).done(&["uploaded", "published as number 3"]);
    place.s3.delete(BUCKET, &format!("web/{one_id}.sawlog"));
    place.publish(&one, &[]).done(&["already, since number 3"]);
    assert!(place.s3.get(BUCKET, &format!("web/{one_id}.sawlog")).is_some(), "mended");

    // What stands in the pointer's place is none.
    for (bytes, words) in [
        (b"{}".to_vec(), "neither a model nor a pointer"),
        (b"<html>".to_vec(), "neither a model nor a pointer"),
        (vec![b'{'; 600 << 10], "more than a pointer's"),
    ] {
        place.s3.put(BUCKET, CURRENT, bytes);
        for args in [&["history", PLACE][..], &["rollback", PLACE]] {
            place.sawlog(args).refused(&["s3://models/web/current.json", words, "earlier version"]);
        }
        place.publish(&two, &[]).refused(&["s3://models/web/current.json", words]);
    }
}

/// True for the write of a pointer.
fn moves_pointer(request: &Message) -> bool {
    request.method() == "PUT" && request.path().contains("/web/current.json")
}

#[test]
fn a_publisher_that_dies_or_is_not_answered_leaves_the_place_whole() {
    let place = Place::start();
    let proxy = Proxy::before(&place.s3.url, 61);
    let files: Vec<(PathBuf, String)> =
        (1..=6).map(|at| place.file(&variant(f64::from(at)))).collect();
    let publish = |at: usize| {
        command(&proxy.url, &["publish", files[at].0.to_str().expect("text"), "--to", PLACE])
    };
    run(publish(0)).done(&["number 1"]);
    let before = place.pointer();

    // Killed between the upload and the pointer.
    proxy.rule(|request, _| if moves_pointer(request) { Fault::Hang } else { Fault::None });
    let faults = proxy.counts().faults;
    let mut child = publish(1).spawn().expect("sawlog runs");
    let patience = Instant::now() + TIMEOUT;
    while proxy.counts().faults == faults {
        assert!(Instant::now() < patience, "no pointer was to be moved");
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().expect("killed");
    child.wait().expect("ended");
    assert_eq!(place.pointer(), before);
    assert!(place.s3.get(BUCKET, &format!("web/{}.sawlog", files[1].1)).is_some(), "uploaded");
    proxy.rule(|_, _| Fault::None);
    run(publish(1)).done(&["is there   s3://models/web/", "published as number 2"]);

    // The answer is lost, once: the next try is told 412, for what it did itself.
    let lose_once = |fault: Fault| {
        let mut left = Some(fault);
        move |request: &Message, _: &mut crate::proxy::Draw| match moves_pointer(request) {
            true => left.take().unwrap_or(Fault::None),
            false => Fault::None,
        }
    };
    proxy.rule(lose_once(Fault::LoseAnswer));
    run(publish(2)).done(&["published as number 3"]);
    // Somebody else writes at this very moment.
    proxy.rule(lose_once(s3_error(409, "ConditionalRequestConflict")));
    run(publish(3)).done(&["published as number 4"]);
    proxy.rule(lose_once(s3_error(503, "SlowDown")));
    run(publish(4)).done(&["published as number 5"]);
    // No answer ever, though it is written: the pointer itself says so.
    proxy.rule(|request, _| if moves_pointer(request) { Fault::LoseAnswer } else { Fault::None });
    run(publish(5)).done(&["published as number 6"]);
    // Refused for good.
    proxy.rule(|request, _| match moves_pointer(request) {
        true => s3_error(403, "AccessDenied"),
        false => Fault::None,
    });
    run(publish(0)).refused(&[
        "s3://models/web/current.json",
        "HTTP 403",
        "s3:PutObject is needed",
    ]);
    // In conflict for good: there is an end.
    proxy.rule(|request, _| match moves_pointer(request) {
        true => s3_error(412, "PreconditionFailed"),
        false => Fault::None,
    });
    run(publish(0)).refused(&["s3://models/web/current.json", "somebody else moved it 20 times"]);

    let pointer = place.pointer();
    let moves = std::iter::once(&pointer["current"]);
    let moves = moves.chain(pointer["previous"].as_array().expect("a list"));
    let models: Vec<&str> = moves.map(|moved| moved["model"].as_str().expect("an id")).collect();
    let expected: Vec<&str> = files.iter().rev().map(|(_, id)| id.as_str()).collect();
    assert_eq!(models, expected, "each publication once, in order");
}

#[test]
fn a_rollback_does_not_go_back_from_what_it_has_not_seen() {
    let place = Place::start();
    let proxy = Proxy::before(&place.s3.url, 62);
    let files: Vec<(PathBuf, String)> =
        (1..=3).map(|at| place.file(&variant(f64::from(at)))).collect();
    place.publish(&files[0].0, &[]).done(&["number 1"]);
    place.publish(&files[1].0, &[]).done(&["number 2"]);
    // Between its look and its move somebody publishes.
    let (url, newest) = (place.s3.url.clone(), files[2].0.clone());
    let meddle = move || {
        let newest = newest.to_str().expect("text").to_owned();
        run(command(&url, &["publish", &newest, "--to", PLACE])).done(&["number"]);
    };
    let mut left = Some(meddle.clone());
    proxy.rule(move |request, _| {
        if moves_pointer(request)
            && let Some(meddle) = left.take()
        {
            meddle();
        }
        Fault::None
    });
    run(command(&proxy.url, &["rollback", PLACE])).refused(&[
        "was moved from",
        &files[1].1,
        &files[2].1,
        "name the model with --to",
    ]);
    assert_eq!(current(&place.pointer()), files[2].1);
    // With a name it is clear what is meant.
    place.publish(&files[1].0, &[]).done(&["number 4"]);
    let mut left = Some(meddle);
    proxy.rule(move |request, _| {
        if moves_pointer(request)
            && let Some(meddle) = left.take()
        {
            meddle();
        }
        Fault::None
    });
    let to = ["rollback", PLACE, "--to", &files[0].1];
    run(command(&proxy.url, &to)).done(&["rolled back as number 6"]);
    assert_eq!(current(&place.pointer()), files[0].1);
}

/// A function that follows the pointer, and looks for news at every invocation.
pub(crate) fn following(s3_url: &str, folder: &Path) -> Variables {
    let file = |name: &str| format!("file://{}", folder.join(name).display());
    Variables::default()
        .set("MODEL_URI", "s3://models/web/current.json")
        .set("MODEL_REFRESH_SECS", "1")
        .set("RESULTS", "all")
        .set("RESULTS_URI", file("results.jsonl"))
        .set("DEAD_LETTERS_URI", file("dead.jsonl"))
        .set("AWS_LAMBDA_LOG_FORMAT", "JSON")
        .set("AWS_ENDPOINT_URL_S3", s3_url)
}

#[test]
fn a_function_follows_the_pointer_and_keeps_its_model_when_that_leads_nowhere() {
    let place = Place::start();
    let (one, one_id) = place.file(&variant(1.0));
    let (two, two_id) = place.file(&variant(2.0));
    place.publish(&one, &[]).done(&["number 1"]);
    let lambda = Lambda::new(&following(&place.s3.url, place.folder.path()), TIMEOUT);
    let batch = Batch::new(Kafka::Msk, 100);
    let in_use = || -> String {
        let answer = lambda.invoke(&batch.event);
        assert_eq!(answer.status, 200, "{}", answer.body);
        let lines: Vec<Value> =
            lambda.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let metrics = lines.iter().rev().find(|line| line.get("_aws").is_some());
        metrics.expect("a line of metrics")["model"].as_str().expect("an id").to_owned()
    };
    let becomes = |id: &str| {
        let patience = Instant::now() + TIMEOUT;
        while in_use() != id {
            assert!(Instant::now() < patience, "{id} was not taken over:\n{}", lambda.log());
            std::thread::sleep(Duration::from_millis(200));
        }
    };
    let logs = |words: &str| {
        let patience = Instant::now() + TIMEOUT;
        while !lambda.log().contains(words) {
            assert!(Instant::now() < patience, "{words:?} was not logged:\n{}", lambda.log());
            in_use();
            std::thread::sleep(Duration::from_millis(200));
        }
    };
    assert_eq!(in_use(), one_id);
    place.publish(&two, &[]).done(&["number 2"]);
    becomes(&two_id);
    place.sawlog(&["rollback", PLACE]).done(&["number 3"]);
    becomes(&one_id);

    // No pointer: refused, once.
    let pointer = place.s3.get(BUCKET, CURRENT).expect("one");
    place.s3.put(BUCKET, CURRENT, b"{\"not\": \"a pointer\"}".to_vec());
    logs("neither a model nor a pointer");
    assert_eq!(in_use(), one_id);
    // A pointer to what isn't there: looked for again until it is.
    let text = String::from_utf8(pointer.clone()).expect("text");
    let nowhere = "0".repeat(32);
    place.s3.put(BUCKET, CURRENT, text.replacen(&one_id, &nowhere, 1).into_bytes());
    logs(&format!("points to s3://models/web/{nowhere}.sawlog: can't be fetched"));
    assert_eq!(in_use(), one_id);
    // What is there is another than the name says.
    place.s3.put(BUCKET, &format!("web/{nowhere}.sawlog"), variant(2.0).encode());
    logs(&format!("is another model, {two_id}"));
    assert_eq!(in_use(), one_id);
    place.s3.put(BUCKET, CURRENT, pointer);
    place.publish(&two, &[]).done(&["number 4"]);
    becomes(&two_id);
    assert_eq!(lambda.counts().cold_starts, 1);
}
