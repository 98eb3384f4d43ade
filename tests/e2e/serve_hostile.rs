//! Requests to `sawlog serve` that are too long, too slow or too many: each gets an HTTP error or its
//! end, memory stays bounded, and sound requests are answered beside them and after them.

use std::io::{BufReader, Read as _, Write as _};
use std::net::TcpStream;

use crate::http::Message;
use crate::serve::{Server, post, text};

const MAX_BODY_LEN: usize = 6_291_456;
const ROW: &str = "1,1,0,0,0\n";

fn head(length: &str) -> String {
    format!("POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\n{length}\r\n\r\n")
}

fn answer(stream: TcpStream) -> Message {
    Message::read(&mut BufReader::new(stream)).expect("read").expect("an answer")
}

fn assert_refused(answer: &Message, status: &str, words: &str) {
    assert_eq!(answer.first[1], status, "{}", text(answer));
    assert!(text(answer).contains(words), "expected {words:?}, got {:?}", text(answer));
}

fn assert_still_answers(server: &Server) {
    let answer = server.ask(&post("/invocations", "text/csv", ROW));
    assert_eq!(answer.first[1], "200", "{}", text(&answer));
}

#[test]
fn a_body_may_have_6_mib_and_no_more() {
    let server = Server::golden(&[]);
    // Blank lines count as bytes, not as rows.
    let mut body = ROW.as_bytes().to_vec();
    body.resize(MAX_BODY_LEN, b'\n');
    let whole = server.ask(&post("/invocations", "text/csv", body.clone()));
    assert_eq!(whole.first[1], "200", "{}", text(&whole));
    body.push(b'\n');
    let too_long = "longer than 6291456 bytes";
    assert_refused(&server.ask(&post("/invocations", "text/csv", body.clone())), "413", too_long);
    assert_refused(
        &server.ask(&post("/endpoints/e/invocations", "text/csv", body.clone())),
        "413",
        too_long,
    );

    // In chunks, with no length announced.
    let mut stream = server.connect();
    stream.write_all(head("Transfer-Encoding: chunked").as_bytes()).expect("sent");
    for chunk in body.chunks(1 << 20) {
        write!(stream, "{:x}\r\n", chunk.len()).expect("sent");
        stream.write_all(chunk).and_then(|()| stream.write_all(b"\r\n")).expect("sent");
    }
    stream.write_all(b"0\r\n\r\n").expect("sent");
    assert_refused(&answer(stream), "413", too_long);

    // Announced, and not waited for.
    for length in ["Content-Length: 9999999999", "Content-Length: 6291457\r\nExpect: 100-continue"]
    {
        let mut stream = server.connect();
        stream.write_all(head(length).as_bytes()).expect("sent");
        assert_refused(&answer(stream), "413", too_long);
    }
    assert_still_answers(&server);
}

#[test]
fn what_is_no_http_is_refused() {
    let server = Server::golden(&[]);
    let long = format!("GET /ping HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(300_000));
    let many = format!("GET /ping HTTP/1.1\r\nHost: x\r\n{}\r\n", "X: x\r\n".repeat(200));
    for (bytes, status) in [
        ("\0\0\0\0\r\n\r\n", "400"),
        (&long, "431"),
        (&many, "431"),
        (&head("Content-Length: -1"), "400"),
        (&head("Content-Length: 1\r\nContent-Length: 2"), "400"),
    ] {
        let mut stream = server.connect();
        let sent = stream.write_all(bytes.as_bytes());
        match Message::read(&mut BufReader::new(stream)) {
            Ok(Some(answer)) => {
                assert_eq!(answer.first[1], status, "{:?}", &bytes[..40.min(bytes.len())]);
            }
            // Whoever is refused while it is still sending may be cut off before it can read.
            Ok(None) | Err(_) => assert!(bytes.len() > 1000, "{sent:?}: no answer to {bytes:?}"),
        }
    }
    assert_still_answers(&server);
}

#[test]
fn slow_senders_are_not_waited_for() {
    let server = Server::golden(&["--timeout-secs=1"]);
    let mut header = server.connect();
    header.write_all(b"POST /invocations HTTP/1.1\r\nHost:").expect("sent");
    let mut nothing = server.connect();
    let mut body = server.connect();
    body.write_all(head("Content-Length: 20").as_bytes()).expect("sent");
    body.write_all(ROW.as_bytes()).expect("sent");
    assert_still_answers(&server);
    assert_refused(&answer(body), "408", "too slow");
    let mut end = Vec::new();
    header.read_to_end(&mut end).expect("closed");
    nothing.read_to_end(&mut end).expect("closed");
    assert!(!end.starts_with(b"HTTP/1.1 2"), "{}", String::from_utf8_lossy(&end));
    assert_still_answers(&server);
}

#[test]
fn connections_beyond_the_limit_wait_for_those_before_them() {
    let server = Server::golden(&["--connections=4", "--timeout-secs=2"]);
    let _idle: Vec<TcpStream> = (0..16).map(|_| server.connect()).collect();
    // Behind all of them, each of which is closed for its silence.
    assert_still_answers(&server);
}

/// Threads of this many senders each hold nearly a whole body.
const SENDERS: usize = 40;
/// The model, the program, the bodies with what their buffers have in reserve, the sockets'.
const MEMORY: u64 = 400 << 20;

#[test]
fn bodies_that_never_end_hold_bounded_memory() {
    let server = Server::golden(&["--timeout-secs=60"]);
    let mut body = ROW.repeat(MAX_BODY_LEN / ROW.len());
    body.pop();
    let mut senders = Vec::new();
    let mut refused = 0;
    for _ in 0..SENDERS {
        let mut stream = server.connect();
        let length = format!("Content-Length: {MAX_BODY_LEN}");
        stream.write_all(head(&length).as_bytes()).expect("sent");
        // One that is refused is cut off in the middle.
        if stream.write_all(body.as_bytes()).is_err() {
            refused += 1;
        }
        senders.push(stream);
    }
    let answer = server.ask(&post("/invocations", "text/csv", ROW));
    let peak = server.process.peak_memory();
    assert!(peak < MEMORY, "{} MiB were held", peak >> 20);
    assert!(refused > 0 || answer.first[1] == "503", "expected some to be refused: none was");
    if answer.first[1] == "503" {
        assert_refused(&answer, "503", "try again");
    }
    drop(senders);
    // What the senders held is free again once the server has noticed that they are gone.
    let body = post("/invocations", "text/csv", ROW.repeat(10_000));
    while server.ask(&body).first[1] == "503" {}
}
