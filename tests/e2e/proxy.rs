//! A server's bad days: stands between the function and a server, and does to each call what a rule
//! says. The rule draws from a generator with a seed, so that the same calls in the same order fare
//! the same.

use std::io::{self, BufReader, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};

use crate::http::{self, Message};
use crate::lambda::lock;

/// Longer than any client waits.
const HANG: Duration = Duration::from_secs(120);

/// What is done to a call.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// Answered with this in the server's stead, which never hears of it.
    Answer(Message),
    /// Of a BatchWriteItem every item whose draw is below the share, in thousandths, is left
    /// unprocessed; the others are written.
    Unprocessed(u64),
    /// Done, but late.
    Delay(Duration),
    /// Done once the flag is set.
    DelayUntil(Arc<AtomicBool>),
    /// Done by the server; half of the answer's body arrives at once, the rest by ten kilobytes a second.
    Drip,
    /// Taken and never answered. The server does not hear of it.
    Hang,
    /// The connection is closed without an answer; the server does not hear of it.
    Close,
    /// Done by the server, but the answer is lost.
    LoseAnswer,
    /// Done by the server; half of the answer's body arrives.
    Truncate,
    /// Done by the server; a bit in the middle of the answer's body is flipped.
    Corrupt,
}

/// An error as DynamoDB gives it.
pub(crate) fn dynamodb_error(status: u16, kind: &str) -> Fault {
    let body = json!({
        "__type": format!("com.amazonaws.dynamodb.v20120810#{kind}"),
        "message": "as the test wants it",
    });
    let answer = Message::answer(status, body.to_string());
    Fault::Answer(answer.with("Content-Type", "application/x-amz-json-1.0"))
}

/// DynamoDB's answer to a role that may not write: one that no client tries again by itself.
pub(crate) fn denied() -> Fault {
    dynamodb_error(400, "AccessDeniedException")
}

/// DynamoDB's answer to more than a table's capacity.
pub(crate) fn throttled() -> Fault {
    dynamodb_error(400, "ProvisionedThroughputExceededException")
}

/// Any service's answer when it is in trouble.
pub(crate) fn status(status: u16) -> Fault {
    Fault::Answer(Message::answer(status, ""))
}

/// Numbers drawn for a rule.
pub(crate) struct Draw(Xoshiro256PlusPlus);

impl Draw {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Xoshiro256PlusPlus::seed_from_u64(seed))
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// True for so many of a thousand.
    pub(crate) fn in_thousand(&mut self, share: u64) -> bool {
        self.number() % 1000 < share
    }
}

type Rule = Box<dyn FnMut(&Message, &mut Draw) -> Fault + Send>;

/// A proxy before a server of this machine.
pub(crate) struct Proxy {
    pub(crate) url: String,
    shared: Arc<Shared>,
}

struct Shared {
    server_port: u16,
    rule: Mutex<(Rule, Draw)>,
    counts: Mutex<Counts>,
}

/// Calls so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) calls: usize,
    pub(crate) faults: usize,
}

impl Proxy {
    /// Before the server at a URL of this machine; does no harm yet.
    pub(crate) fn before(server_url: &str, seed: u64) -> Self {
        let port = server_url.rsplit(':').next().and_then(|port| port.parse().ok());
        let shared = Arc::new(Shared {
            server_port: port.unwrap_or_else(|| panic!("no port in {server_url}")),
            rule: Mutex::new((Box::new(|_, _| Fault::None), Draw::new(seed))),
            counts: Mutex::default(),
        });
        let served = Arc::clone(&shared);
        let port = http::serve(move |stream| served.serve(stream));
        Self { url: format!("http://127.0.0.1:{port}"), shared }
    }

    /// From now on does what the rule says.
    pub(crate) fn rule(&self, rule: impl FnMut(&Message, &mut Draw) -> Fault + Send + 'static) {
        lock(&self.shared.rule).0 = Box::new(rule);
    }

    pub(crate) fn counts(&self) -> Counts {
        *lock(&self.shared.counts)
    }
}

impl Shared {
    fn serve(&self, mut stream: BufReader<TcpStream>) -> io::Result<()> {
        while let Some(request) = Message::read(&mut stream)? {
            let fault = {
                let (rule, draw) = &mut *lock(&self.rule);
                rule(&request, draw)
            };
            {
                let mut counts = lock(&self.counts);
                counts.calls += 1;
                counts.faults += usize::from(!matches!(fault, Fault::None));
            }
            let out = stream.get_mut();
            match fault {
                Fault::None => out.write_all(&self.forward(&request)?.bytes())?,
                Fault::Answer(answer) => out.write_all(&answer.bytes())?,
                Fault::Unprocessed(share) => {
                    out.write_all(&self.forward_some(&request, share)?.bytes())?;
                }
                Fault::Delay(delay) => {
                    std::thread::sleep(delay);
                    out.write_all(&self.forward(&request)?.bytes())?;
                }
                Fault::DelayUntil(flag) => {
                    while !flag.load(Ordering::Acquire) {
                        std::thread::sleep(Duration::from_millis(5));
                    }
                    out.write_all(&self.forward(&request)?.bytes())?;
                }
                Fault::Drip => {
                    let answer = self.forward(&request)?;
                    let bytes = answer.bytes();
                    let (at_once, rest) = bytes.split_at(bytes.len() - answer.body.len() / 2);
                    out.write_all(at_once)?;
                    for drop in rest.chunks(1000) {
                        std::thread::sleep(Duration::from_millis(100));
                        out.write_all(drop)?;
                    }
                }
                Fault::Hang => {
                    std::thread::sleep(HANG);
                    return Ok(());
                }
                Fault::Close => return Ok(()),
                Fault::LoseAnswer => {
                    self.forward(&request)?;
                    return Ok(());
                }
                Fault::Truncate => {
                    let answer = self.forward(&request)?;
                    let bytes = answer.bytes();
                    return out.write_all(&bytes[..bytes.len() - answer.body.len() / 2]);
                }
                Fault::Corrupt => {
                    let mut answer = self.forward(&request)?;
                    let middle = answer.body.len() / 2;
                    if let Some(byte) = answer.body.get_mut(middle) {
                        *byte ^= 0x10;
                    }
                    out.write_all(&answer.bytes())?;
                }
            }
        }
        Ok(())
    }

    fn forward(&self, request: &Message) -> io::Result<Message> {
        http::exchange(self.server_port, request)
    }

    /// Forwards a BatchWriteItem of some of the items; the answer has the others as unprocessed.
    fn forward_some(&self, request: &Message, share: u64) -> io::Result<Message> {
        let target = request.header("x-amz-target").unwrap_or_default();
        assert!(target.ends_with("BatchWriteItem"), "no items in a {target}");
        let mut body: Value = serde_json::from_slice(&request.body).expect("json");
        let mut left = json!({});
        let mut some = false;
        for (table, items) in body["RequestItems"].as_object_mut().expect("tables") {
            let mut drawn = Vec::new();
            items.as_array_mut().expect("items").retain(|item| {
                let stays = lock(&self.rule).1.in_thousand(share);
                if stays {
                    drawn.push(item.clone());
                }
                !stays
            });
            some |= items.as_array().is_some_and(|items| !items.is_empty());
            if !drawn.is_empty() {
                left[table] = Value::from(drawn);
            }
        }
        let mut answer = if some {
            let mut request = request.clone();
            request.body = body.to_string().into_bytes();
            self.forward(&request)?
        } else {
            Message::answer(200, "{}").with("Content-Type", "application/x-amz-json-1.0")
        };
        let mut body: Value = serde_json::from_slice(&answer.body).expect("json");
        body["UnprocessedItems"] = left;
        answer.body = body.to_string().into_bytes();
        // The checksum was of the body as it was.
        answer.without("x-amz-crc32");
        Ok(answer)
    }
}
