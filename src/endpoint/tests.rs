//! The client against a server that misbehaves, over a socket.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Mutex;

use aws_sdk_sagemakerruntime::config::SharedCredentialsProvider;
use aws_sdk_sagemakerruntime::config::{BehaviorVersion, Credentials, Region};
use ndarray::{Array2, array};

use super::*;
use crate::config::RowFormat;

/// A request as the server saw it.
#[derive(Debug, Clone, Default)]
struct Request {
    path: String,
    headers: Vec<(String, String)>,
    body: String,
}

impl Request {
    fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value.as_str())
    }

    /// One score a row of CSV: its first number.
    fn scores(&self) -> String {
        let first = |line: &str| line.split(',').next().unwrap_or_default().to_owned();
        let scores: Vec<String> =
            self.body.lines().map(|line| format!("{{\"score\":{}}}", first(line))).collect();
        format!("{{\"scores\":[{}]}}", scores.join(","))
    }
}

/// What the server does with a request.
enum Act {
    /// Answers with a status, an error's code and a body.
    Answer(u16, &'static str, String),
    /// Says nothing and keeps the connection.
    Hang,
    /// Closes the connection with a reset, after half of an answer.
    Reset,
}

fn ok(body: impl Into<String>) -> Act {
    Act::Answer(200, "", body.into())
}

/// A server, the requests that it has seen, and a client for it.
struct Server {
    seen: Arc<Mutex<Vec<Request>>>,
    endpoint: Endpoint,
}

impl Server {
    fn start(act: impl Fn(usize, &Request) -> Act + Send + Sync + 'static) -> Self {
        Self::with(EndpointConfig::new("rcf"), act)
    }

    fn with(
        config: EndpointConfig,
        act: impl Fn(usize, &Request) -> Act + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let seen: Arc<Mutex<Vec<Request>>> = Arc::default();
        let (act, requests) = (Arc::new(act), Arc::clone(&seen));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (act, requests) = (Arc::clone(&act), Arc::clone(&requests));
                std::thread::spawn(move || answer(stream.expect("connected"), &*act, &requests));
            }
        });
        let credentials = Credentials::new("a", "b", None, None, "test");
        let aws = SdkConfig::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new("eu-west-1"))
            .endpoint_url(url)
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .build();
        Self { seen, endpoint: Endpoint::new(&aws, config) }
    }

    async fn scores(&self, rows: &Array2<f32>) -> Vec<Result<f32, EndpointFault>> {
        self.endpoint.scores(rows.view(), "0123abcd", Until::FOREVER).await
    }

    fn seen(&self) -> Vec<Request> {
        self.seen.lock().expect("sound").clone()
    }
}

fn answer(
    stream: TcpStream,
    act: &(impl Fn(usize, &Request) -> Act + ?Sized),
    seen: &Mutex<Vec<Request>>,
) {
    let mut reader = BufReader::new(stream);
    let (mut request, mut line) = (Request::default(), String::new());
    reader.read_line(&mut line).expect("a first line");
    request.path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    line.clear();
    while reader.read_line(&mut line).expect("a header") > 2 {
        if let Some((name, value)) = line.split_once(": ") {
            request.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        line.clear();
    }
    let mut body = vec![0; request.header("content-length").parse().expect("a length")];
    reader.read_exact(&mut body).expect("a body");
    request.body = String::from_utf8(body).expect("text");
    let index = {
        let mut seen = seen.lock().expect("sound");
        seen.push(request.clone());
        seen.len() - 1
    };
    let mut stream = reader.into_inner();
    match act(index, &request) {
        Act::Answer(status, code, body) => {
            let code = if code.is_empty() {
                String::new()
            } else {
                format!("x-amzn-errortype: {code}\r\n")
            };
            let head = format!(
                "HTTP/1.1 {status} .\r\nConnection: close\r\n{code}Content-Length: {}\r\n\r\n",
                body.len()
            );
            // Whoever has had enough of an answer hangs up.
            let _ =
                stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
        }
        Act::Hang => std::thread::sleep(Duration::from_secs(60)),
        Act::Reset => {
            stream.write_all(b"HTTP/1.1 200 .\r\nContent-Length: 100\r\n\r\n{").expect("written");
        }
    }
}

fn rows(count: u16) -> Array2<f32> {
    Array2::from_shape_fn((usize::from(count), 2), |(row, column)| (row * 2 + column) as f32)
}

fn finite(scores: Vec<Result<f32, EndpointFault>>) -> Vec<f32> {
    scores.into_iter().map(|score| score.expect("a score")).collect()
}

fn reasons(scores: Vec<Result<f32, EndpointFault>>) -> Vec<String> {
    let reason = |fault: EndpointFault| crate::handler::chain(&fault);
    let mut reasons: Vec<String> = scores.into_iter().filter_map(Result::err).map(reason).collect();
    reasons.dedup();
    reasons
}

#[tokio::test]
async fn rows_go_out_in_chunks_and_scores_come_back_in_their_places() {
    for format in [RowFormat::Csv, RowFormat::Json] {
        let config = EndpointConfig {
            variant: Some("blue".into()),
            format,
            chunk_rows: 100,
            ..EndpointConfig::new("rcf")
        };
        let server = Server::with(config, |index, request| {
            // Later chunks are answered before earlier ones.
            std::thread::sleep(Duration::from_millis(if index % 3 == 0 { 30 } else { 0 }));
            if request.header("content-type") == "text/csv" {
                return ok(request.scores());
            }
            let body: serde_json::Value = serde_json::from_str(&request.body).expect("json");
            let score = |row: &serde_json::Value| row["features"][0].to_string();
            let scores = body["instances"].as_array().expect("a list").iter().map(score);
            ok(scores.collect::<Vec<_>>().join("\n"))
        });
        let scores = finite(server.scores(&rows(1050)).await);
        let expected: Vec<f32> = (0..1050_u16).map(|row| f32::from(row) * 2.0).collect();
        assert_eq!(scores, expected);
        let seen = server.seen();
        assert_eq!(seen.len(), 11);
        let mut ids: Vec<&str> =
            seen.iter().map(|it| it.header("x-amzn-sagemaker-inference-id")).collect();
        ids.sort_unstable_by_key(|id| (id.len(), id.to_owned()));
        assert_eq!((ids[0], ids[10]), ("0123abcd-0", "0123abcd-10"));
        assert_eq!(seen[0].path, "/endpoints/rcf/invocations");
        assert_eq!(seen[0].header("x-amzn-sagemaker-target-variant"), "blue");
        assert_eq!(seen[0].header("accept"), "application/json");
        let counts = EndpointCounts { calls: 11, failed: 0, not_asked: 0 };
        assert_eq!(server.endpoint.take_counts(), counts);
        assert_eq!(server.endpoint.take_counts(), EndpointCounts::default());
    }
    let none = Server::start(|_, _| ok("")).scores(&rows(0)).await;
    assert!(none.is_empty());
}

/// A container's error as SageMaker hands it on.
fn of_container(status: u16) -> Act {
    let body = format!(
        r#"{{"ErrorCode":"x","Message":"could not read 17.25","OriginalMessage":"17.25","OriginalStatusCode":{status}}}"#
    );
    Act::Answer(424, "ModelError", body)
}

#[tokio::test]
async fn what_may_pass_is_tried_again_and_what_will_not_is_not() {
    type Fault = fn() -> Act;
    let faults: [(Fault, usize, &str); 11] = [
        (|| of_container(500), 3, "the endpoint answered 424 ModelError, its container 500"),
        (|| of_container(400), 1, "the endpoint answered 424 ModelError, its container 400"),
        (|| Act::Answer(429, "ModelNotReadyException", "{}".into()), 3, "429 ModelNotReady"),
        (|| Act::Answer(500, "InternalFailure", "{}".into()), 3, "500 InternalFailure"),
        (|| Act::Answer(503, "ServiceUnavailable", "{}".into()), 3, "503 ServiceUnavailable"),
        (|| Act::Answer(530, "InternalDependencyException", "{}".into()), 3, "530 Internal"),
        (|| Act::Answer(400, "ThrottlingException", "{}".into()), 3, "400 ThrottlingException"),
        (|| Act::Answer(400, "ValidationError", "{}".into()), 1, "400 ValidationError"),
        (|| Act::Answer(413, "", "<html>too large</html>".into()), 1, "the endpoint answered 413"),
        (|| Act::Answer(403, "AccessDeniedException", "{}".into()), 1, "403 AccessDenied"),
        (|| Act::Reset, 3, "the endpoint gave no answer"),
    ];
    for (fault, attempts, words) in faults {
        // For good.
        let server = Server::start(move |_, _| fault());
        let said = reasons(server.scores(&rows(2)).await);
        assert!(matches!(&said[..], [one] if one.contains(words)), "{words}: {said:?}");
        assert!(!said[0].contains("17.25"), "a container's message quotes the record: {said:?}");
        assert_eq!(server.seen().len(), attempts, "{words}");
        // Once.
        let server = Server::start(move |index, request| match index {
            0 => fault(),
            _ => ok(request.scores()),
        });
        let scores = server.scores(&rows(2)).await;
        assert_eq!(scores.iter().all(Result::is_ok), attempts > 1, "{words}: {scores:?}");
    }
}

#[tokio::test]
async fn an_endpoint_that_hangs_is_given_up_after_its_tries_or_at_the_deadline() {
    let config = EndpointConfig { timeout_ms: 50, ..EndpointConfig::new("rcf") };
    let server = Server::with(config, |_, _| Act::Hang);
    let said = reasons(server.scores(&rows(2)).await);
    assert!(said[0].starts_with("the endpoint gave no answer: "), "{said:?}");
    assert_eq!(server.seen().len(), 3);
    let server = Server::start(|_, _| Act::Hang);
    let soon = Until::FOREVER.within(Duration::from_millis(100));
    let scores = server.endpoint.scores(rows(2).view(), "", soon).await;
    assert_eq!(reasons(scores), ["the endpoint had no time left to answer"]);
    let over = Until::FOREVER.within(Duration::ZERO);
    let asked = server.seen().len();
    assert!(server.endpoint.scores(rows(2).view(), "", over).await.iter().all(Result::is_err));
    assert_eq!(server.seen().len(), asked, "nothing is begun");
}

#[tokio::test]
async fn an_answer_that_is_not_one_score_a_row_is_refused_whole_and_not_asked_for_again() {
    for (answer, words) in [
        ("1.0", "it has 1 scores for 2 rows"),
        ("1.0\n2.0\n3.0", "it has 3 scores for 2 rows"),
        ("<html>", "it can't be read at line 1"),
        ("1.0\nNaN", "score 1 is not finite"),
        ("", "it has 0 scores for 2 rows"),
    ] {
        let server = Server::start(move |_, _| ok(answer));
        let said = reasons(server.scores(&rows(2)).await);
        assert!(matches!(&said[..], [one] if one.contains(words)), "{words}: {said:?}");
        assert_eq!(server.seen().len(), 1);
    }
}

#[tokio::test]
async fn an_answer_without_an_end_is_broken_off() {
    let server = Server::start(|_, _| ok("1".repeat(MAX_ANSWER_BYTES + 1)));
    let said = reasons(server.scores(&rows(1)).await);
    assert!(said[0].contains("length limit exceeded"), "{said:?}");
}

#[tokio::test]
async fn one_bad_row_or_chunk_costs_no_other_its_score() {
    let config = EndpointConfig { chunk_rows: 2, ..EndpointConfig::new("rcf") };
    let server = Server::with(config, |_, request| {
        if request.body.starts_with("5.0") { of_container(400) } else { ok(request.scores()) }
    });
    let rows = array![[1.0], [2.0], [f32::INFINITY], [3.0], [4.0], [5.0], [6.0]];
    let scores = server.scores(&rows).await;
    let got: Vec<Option<f32>> = scores.iter().map(|score| score.as_ref().ok().copied()).collect();
    assert_eq!(got, [Some(1.0), Some(2.0), None, Some(3.0), Some(4.0), None, None]);
    assert!(matches!(scores[2], Err(EndpointFault::NotFinite)), "{scores:?}");
}

#[tokio::test]
async fn after_failures_in_a_row_it_is_not_asked_until_one_call_finds_it_answers() {
    let config = EndpointConfig { chunk_rows: 1, cooldown_secs: 60, ..EndpointConfig::new("rcf") };
    let server = Server::with(config, |_, _| ok("nonsense"));
    for _each in 0..2 {
        let said = reasons(server.scores(&rows(10)).await);
        assert!(said.last().expect("none").contains("not asked for 60 s"), "{said:?}");
    }
    let EndpointCounts { calls, failed, not_asked } = server.endpoint.take_counts();
    assert_eq!((calls, calls + not_asked), (failed, 20));
    assert!((3..=6).contains(&calls), "three in a row, and those in flight with them: {calls}");
    assert_eq!(server.endpoint.breaker(), BreakerState::Open);

    let config = EndpointConfig { chunk_rows: 1, cooldown_secs: 0, ..EndpointConfig::new("rcf") };
    let server = Server::with(config, |index, request| match index {
        0..6 => Act::Answer(403, "AccessDeniedException", "{}".into()),
        _ => ok(request.scores()),
    });
    let mut batches = 0;
    while server.scores(&rows(20)).await.iter().any(Result::is_err) {
        batches += 1;
        assert!(batches < 8, "{:?}", server.endpoint);
    }
    assert!(batches > 0);
    assert_eq!(server.endpoint.breaker(), BreakerState::Closed);
}

#[tokio::test]
async fn no_more_calls_are_under_way_than_allowed() {
    let config = EndpointConfig { chunk_rows: 1, in_flight: 3, ..EndpointConfig::new("rcf") };
    let (under_way, most) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let peak = Arc::clone(&most);
    let server = Server::with(config, move |_, request| {
        peak.fetch_max(under_way.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(5));
        under_way.fetch_sub(1, Ordering::SeqCst);
        ok(request.scores())
    });
    assert_eq!(finite(server.scores(&rows(30)).await).len(), 30);
    assert_eq!(most.load(Ordering::SeqCst), 3);
}

#[test]
fn an_inference_id_fits_whatever_the_batch_is_called() {
    assert_eq!(inference_id("0123", 7), "0123-7");
    let long = inference_id(&"é x".repeat(100), 12_345);
    assert_eq!((long.len(), long.ends_with("x-12345")), (64, true));
}
