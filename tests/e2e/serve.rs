//! `sawlog serve` as a container and as an endpoint: what it answers, and to whom.

use std::io::{BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use ndarray::{Array1, Array2};
use sawlog_model::{Model, Value};
use serde_json::json;

use crate::function::{binary, model, repository};
use crate::http::{self, Message};
use crate::process::{Process, free_port, local};
use crate::servers::{ACCESS_KEY, REGION, SECRET_KEY, installed};

/// A model that never changes: five coordinates.
const GOLDEN: &str = "model/tests/golden/v1.sawlog";
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// A server with a model in a folder as SageMaker unpacks it.
pub(crate) struct Server {
    pub(crate) process: Process,
    pub(crate) port: u16,
}

impl Server {
    pub(crate) fn start(model: &[u8], arguments: &[&str]) -> Self {
        let port = free_port();
        let mut process = spawn(arguments, |folder| {
            std::fs::create_dir(folder.join("model")).expect("a folder");
            std::fs::write(folder.join("model/any-name.sawlog"), model).expect("a model");
            vec![format!("--port={port}")]
        });
        process.wait_until_listening(port);
        Self { process, port }
    }

    pub(crate) fn golden(arguments: &[&str]) -> Self {
        Self::start(&std::fs::read(repository(GOLDEN)).expect("it is committed"), arguments)
    }

    pub(crate) fn ask(&self, request: &Message) -> Message {
        http::exchange(self.port, request).expect("an answer")
    }

    /// A connection that gives up waiting in the end.
    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(local(self.port)).expect("a connection");
        stream.set_read_timeout(Some(ANSWER_TIMEOUT)).expect("a time-out");
        stream
    }
}

fn spawn(arguments: &[&str], prepare: impl FnOnce(&Path) -> Vec<String>) -> Process {
    Process::start("sawlog serve", &binary("SAWLOG_CLI", "sawlog"), |command, folder| {
        let more = prepare(folder);
        command.env_clear().args(["serve", "--host=127.0.0.1"]).args(more).args(arguments);
        if !arguments.iter().any(|one| one.starts_with("--model")) {
            command.arg("--model=model");
        }
    })
}

pub(crate) fn post(path: &str, content_type: &str, body: impl Into<Vec<u8>>) -> Message {
    let first = ["POST", path, "HTTP/1.1"].map(str::to_owned);
    Message { first, headers: Vec::new(), body: body.into() }.with("Content-Type", content_type)
}

fn status(answer: &Message) -> &str {
    &answer.first[1]
}

pub(crate) fn text(answer: &Message) -> &str {
    std::str::from_utf8(&answer.body).expect("text")
}

#[test]
fn a_client_of_sagemaker_is_answered_in_every_content_type() {
    let server = Server::golden(&[]);
    let run = Command::new(installed().join("python/bin/python"))
        .arg(repository("tests/e2e/serve_client.py"))
        .env_clear()
        .env("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", format!("http://127.0.0.1:{}", server.port))
        .env("AWS_REGION", REGION)
        .env("AWS_DEFAULT_REGION", REGION)
        .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        .output()
        .expect("python runs");
    let got = String::from_utf8(run.stdout).expect("text");
    let error = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{}\n{got}\n{error}", run.status);
    let path = repository("tests/e2e/serve_client.txt");
    if std::env::var_os("SAWLOG_WRITE_TRANSCRIPT").is_some() {
        std::fs::write(&path, &got).expect("written");
    }
    let want = std::fs::read_to_string(&path).expect("the transcript");
    assert_eq!(got, want, "what boto3 prints differs from {}", path.display());
}

/// Values of the shipped log as the model reads them, and the scores that the Lambda gives them.
fn requests(count: usize) -> (Vec<Vec<Value>>, Array2<f32>, Array1<f32>) {
    let model = Model::decode(model()).expect("a model");
    let features = model.features();
    let values: Vec<Vec<Value>> = crate::batch::lines(count)
        .iter()
        .map(|line| features.read(line).expect("a request"))
        .collect();
    let mut points = Array2::zeros((count, features.dimensions()));
    for (values, mut row) in values.iter().zip(points.rows_mut()) {
        features.encode(values, row.as_slice_mut().expect("whole")).expect("a point");
    }
    let mut scores = Array1::zeros(count);
    model.forest().score_batch(points.view(), scores.view_mut()).expect("its dimensions");
    (values, points, scores)
}

fn assert_scores(answer: &Message, want: &Array1<f32>) {
    assert_eq!(status(answer), "200", "{}", text(answer));
    let got: Vec<u32> =
        text(answer).lines().map(|line| line.parse::<f32>().expect("a score").to_bits()).collect();
    let want: Vec<u32> = want.iter().map(|score| score.to_bits()).collect();
    assert_eq!(got, want, "the bits of the scores");
}

#[test]
fn scores_of_points_and_of_values_are_the_lambdas_to_the_bit() {
    let (values, points, scores) = requests(1000);
    let server = Server::start(model(), &[]);
    let rows: Vec<String> = points
        .rows()
        .into_iter()
        .map(|row| row.iter().map(f32::to_string).collect::<Vec<_>>().join(","))
        .collect();
    let request = post("/invocations", "text/csv", rows.join("\n")).with("Accept", "text/csv");
    assert_scores(&server.ask(&request), &scores);
    drop(server);

    let server = Server::start(model(), &["--rows=values"]);
    let instance = |values: &Vec<Value>| {
        let numbers: Vec<serde_json::Value> = values
            .iter()
            .map(|value| match value {
                Value::Number(number) => json!(number),
                _ => serde_json::Value::Null,
            })
            .collect();
        json!({ "features": numbers })
    };
    let instances: Vec<_> = values.iter().map(instance).collect();
    let body = json!({ "instances": instances }).to_string();
    let request = post("/invocations", "application/json", body).with("Accept", "text/csv");
    assert_scores(&server.ask(&request), &scores);
}

#[test]
fn what_is_not_answered_says_why() {
    let server = Server::golden(&[]);
    let sound = "1,1,0,0,0";
    let with = |mut request: Message, method: &str| {
        request.first[0] = method.to_owned();
        request
    };
    let csv = |path| post(path, "text/csv", sound);
    let long_name = format!("/endpoints/{}/invocations", "x".repeat(64));
    for (request, want, words) in [
        (with(csv("/ping"), "GET"), "200", ""),
        (csv("/ping"), "405", "only GET is answered here"),
        (with(csv("/invocations"), "GET"), "405", "only POST is answered here"),
        (csv("/"), "404", "GET /ping"),
        (csv("/endpoints//invocations"), "400", "the name of an endpoint"),
        (csv("/endpoints/a_b/invocations"), "400", "the name of an endpoint"),
        (csv(&long_name), "400", "the name of an endpoint"),
        (csv("/invocations"), "200", "{\"scores\":[{\"score\":"),
        (csv("/invocations?a=b"), "200", "{\"scores\":[{\"score\":"),
        (csv("/invocations").with("Accept", "text/html, */*;q=0.1"), "200", "{\"scores\":"),
        (csv("/invocations").with("Accept", "text/html"), "406", "takes none of text/csv"),
        (csv("/invocations").with("Content-Encoding", "gzip"), "415", "Content-Encoding"),
        (post("/invocations", "text/plain", sound), "415", "none of text/csv"),
        (post("/invocations", "", sound), "415", "none of text/csv"),
        (post("/invocations", "text/csv", ""), "400", "the body has no row"),
        (
            post("/invocations", "text/csv", "1,2"),
            "400",
            "line 1: it has 2 values, and a row has 5",
        ),
        (post("/invocations", "text/csv", &b"\xff"[..]), "400", "not UTF-8 from byte 0"),
        (post("/invocations", "application/json", "{"), "400", "not JSON at line 1 column 1"),
    ] {
        let answer = server.ask(&request);
        let said = format!("{:?} {:?}", request.first, text(&answer));
        assert_eq!(status(&answer), want, "{said}");
        assert!(text(&answer).contains(words), "expected {words:?}, got {said}");
        if want.starts_with('4') {
            assert_eq!(answer.header("content-type"), Some("application/json"), "{said}");
            let body: serde_json::Value = serde_json::from_slice(&answer.body).expect("json");
            assert!(body["error"].is_string() || body["Message"].is_string(), "{said}");
        }
    }
    let error = server.ask(&csv(&long_name));
    assert_eq!(error.header("x-amzn-errortype"), Some("ValidationError"));
}

#[test]
fn what_can_not_be_served_is_said_before_anything_is_listened_to() {
    let golden = std::fs::read(repository(GOLDEN)).expect("it is committed");
    let fails = |models: &[(&str, &[u8])], arguments: &[&str], words: &str| {
        let mut process = spawn(arguments, |folder| {
            std::fs::create_dir(folder.join("model")).expect("a folder");
            for (name, bytes) in models {
                std::fs::write(folder.join("model").join(name), bytes).expect("a file");
            }
            vec!["--port=0".to_owned()]
        });
        let status = process.wait_until_ended();
        let log = process.output();
        assert!(
            !status.success() && log.contains(words),
            "expected {words:?}, got {status}:\n{log}"
        );
    };
    fails(&[], &[], "folder model has no *.sawlog");
    fails(&[("a.sawlog", &golden), ("b.sawlog", &golden)], &[], "folder model has 2 models");
    fails(&[("a.sawlog", &golden[..99])], &[], "model model/a.sawlog: snapshot");
    fails(&[("a.sawlog", &golden)], &["--rows=values"], "feature `method` is a category");
    fails(&[], &["--model=nowhere"], "model nowhere");
}

#[test]
fn a_request_that_has_begun_is_answered_before_the_server_ends() {
    let mut server = Server::golden(&[]);
    let body = "1,1,0,0,0\n";
    let mut begun = server.connect();
    write!(
        begun,
        "POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\nAccept: text/csv\r\n\
         Expect: 100-continue\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .expect("sent");
    let mut leave = [0; 25];
    begun.read_exact(&mut leave).expect("leave to go on");
    assert_eq!(&leave, b"HTTP/1.1 100 Continue\r\n\r\n");
    let mut idle = server.connect();
    server.process.terminate();
    let mut end = Vec::new();
    assert_eq!(idle.read_to_end(&mut end).expect("closed"), 0, "an idle connection is closed");
    while TcpStream::connect(local(server.port)).is_ok() {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(!server.process.has_ended(), "ended before it answered:\n{}", server.process.output());
    begun.write_all(body.as_bytes()).expect("sent");
    let answer = Message::read(&mut BufReader::new(begun)).expect("read").expect("an answer");
    assert_eq!(status(&answer), "200", "{}", text(&answer));
    let ended = server.process.wait_until_ended();
    let log = server.process.output();
    assert!(ended.success(), "{ended}\n{log}");
    assert!(log.contains("stopped: 1 requests answered, 0 refused; 1 rows scored"), "{log}");
}

#[test]
fn variables_stand_for_arguments_in_a_container() {
    let port = free_port();
    let mut process =
        Process::start("sawlog serve", &binary("SAWLOG_CLI", "sawlog"), |command, folder| {
            std::fs::write(folder.join("m.sawlog"), model()).expect("a model");
            command.env_clear().args(["serve", "--host=127.0.0.1", "--model=."]);
            command.env("SAGEMAKER_BIND_TO_PORT", port.to_string()).env("ENDPOINT_ROWS", "values");
        });
    process.wait_until_listening(port);
    let log = process.output();
    assert!(log.contains("rows of 2 values"), "{log}");
}

#[test]
fn an_endpoint_is_measured_by_its_name() {
    let server = Server::start(model(), &[]);
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("model"), model()).expect("a model");
    let run = Command::new(binary("SAWLOG_CLI", "sawlog"))
        .current_dir(folder.path())
        .args(["bench-endpoint", "--endpoint-name=any", "--model=model", "--json"])
        .args(["--rounds=2", "--batches=1,50"])
        .arg("--input")
        .arg(repository("examples/nezha/requests.jsonl.gz"))
        .env("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", format!("http://127.0.0.1:{}", server.port))
        .env("AWS_REGION", REGION)
        .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        .output()
        .expect("sawlog runs");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let report: serde_json::Value = serde_json::from_slice(&run.stdout).expect("json");
    assert_eq!(report["scores_equal"], true, "{report:#}");
    let measured = report["measured"].as_array().expect("a list");
    let batches: Vec<_> = measured.iter().map(|one| one["batch"].as_u64()).collect();
    assert_eq!(batches, [Some(1), Some(50)], "{report:#}");
    assert!(measured.iter().all(|one| one["ratio"].as_f64() > Some(0.0)), "{report:#}");
}
