//! Lambda's side of the Runtime API: instances of the release `bootstrap`, each given one invocation
//! at a time over a socket, with a deadline. As in Lambda an instance that dies or is late fails its
//! invocation, and the next invocation starts a fresh one.
//!
//! Beside cargo-lambda's server, which the other tests use, because the deadline is ours to choose
//! here, and because an invocation whose function is killed must be answered.

use std::io::{self, BufReader, Write as _};
use std::net::TcpStream;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::json;

use crate::function::{Answer, MAX_EVENT_LEN, Variables, spawn};
use crate::http::{self, Message};
use crate::process::{Process, local};

const POLL: Duration = Duration::from_millis(5);

/// A function that scales: each invocation at the same time as another has its own instance.
pub(crate) struct Lambda {
    /// Asks for an instance. They are children of a thread that lives as long as this, for the kernel
    /// ends a child with the very thread that started it.
    starter: Sender<Sender<Instance>>,
    timeout: Duration,
    idle: Mutex<Vec<Instance>>,
    busy: Mutex<Vec<Arc<Mutex<Process>>>>,
    counts: Mutex<Counts>,
}

/// What has happened so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) invocations: usize,
    pub(crate) cold_starts: usize,
    pub(crate) killed: usize,
    pub(crate) timed_out: usize,
}

/// One process and its Runtime API.
struct Instance {
    process: Arc<Mutex<Process>>,
    api: Arc<Api>,
}

#[derive(Default)]
struct Api {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Invocation that the function has not taken yet: id, deadline, event.
    next: Option<(String, u64, String)>,
    /// Id of the invocation that the function works on.
    current: String,
    answer: Option<Answer>,
    closed: bool,
}

/// A lock that a failed test leaves poisoned is as good as any: the test has failed already.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Lambda {
    pub(crate) fn new(variables: &Variables, timeout: Duration) -> Self {
        let (starter, requests) = mpsc::channel::<Sender<Instance>>();
        let variables = variables.clone();
        std::thread::spawn(move || {
            for request in requests {
                // Nobody waits any more: the test has ended.
                let _ = request.send(Instance::start(&variables));
            }
        });
        Self {
            starter,
            timeout,
            idle: Mutex::default(),
            busy: Mutex::default(),
            counts: Mutex::default(),
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        *lock(&self.counts)
    }

    /// Starts a function ahead of the invocations whose time is measured.
    pub(crate) fn warm_up(&self) {
        let answer = self.invoke(r#"{"eventSource":"SelfManagedKafka","records":{}}"#);
        assert_eq!(answer.status, 200, "{}", answer.body);
    }

    /// Invokes the function with the deadline that its time-out gives.
    pub(crate) fn invoke(&self, event: &str) -> Answer {
        let deadline = SystemTime::now() + self.timeout;
        let deadline = deadline.duration_since(UNIX_EPOCH).expect("after 1970").as_millis();
        self.invoke_until(event, u64::try_from(deadline).expect("a time of this age"))
    }

    /// Invokes the function and tells it any deadline, in milliseconds since 1970. It is ended after
    /// its time-out, whatever it was told.
    pub(crate) fn invoke_until(&self, event: &str, deadline_ms: u64) -> Answer {
        assert!(event.len() <= MAX_EVENT_LEN, "Lambda would not deliver {} bytes", event.len());
        let id = {
            let mut counts = lock(&self.counts);
            counts.invocations += 1;
            format!("00000000-0000-4000-8000-{:012x}", counts.invocations)
        };
        let instance = lock(&self.idle).pop();
        let instance = instance.unwrap_or_else(|| {
            lock(&self.counts).cold_starts += 1;
            let (request, started) = mpsc::channel();
            self.starter.send(request).expect("a thread that starts functions");
            started.recv().expect("an instance")
        });
        lock(&self.busy).push(Arc::clone(&instance.process));
        let answer = instance.invoke(id, deadline_ms, event.to_owned(), self.timeout);
        lock(&self.busy).retain(|process| !Arc::ptr_eq(process, &instance.process));
        match answer {
            Ok(answer) => {
                lock(&self.idle).push(instance);
                answer
            }
            Err(Gone::TimedOut) => {
                lock(&self.counts).timed_out += 1;
                let seconds = self.timeout.as_secs_f64();
                failed("Sandbox.Timedout", &format!("Task timed out after {seconds:.2} seconds"))
            }
            Err(Gone::Died) => {
                let log = lock(&instance.process).output();
                let last = log.lines().next_back().unwrap_or_default();
                failed("Runtime.ExitError", &format!("Runtime exited; last it said: {last}"))
            }
        }
    }

    /// Kills one of the functions that are at work, the `draw`-th; false if none is.
    pub(crate) fn kill_one(&self, draw: u64) -> bool {
        let busy = lock(&self.busy);
        let Some(len) = u64::try_from(busy.len()).ok().filter(|len| *len > 0) else { return false };
        let index = usize::try_from(draw % len).expect("an index");
        lock(&busy[index]).kill();
        lock(&self.counts).killed += 1;
        true
    }

    /// What the functions that wait for an invocation have logged.
    pub(crate) fn log(&self) -> String {
        let idle = lock(&self.idle);
        idle.iter().map(|instance| lock(&instance.process).output()).collect()
    }
}

/// Why there is no answer.
enum Gone {
    Died,
    TimedOut,
}

/// A function error as Lambda itself gives it.
fn failed(kind: &str, message: &str) -> Answer {
    Answer { status: 500, body: json!({"errorType": kind, "errorMessage": message}).to_string() }
}

impl Instance {
    fn start(variables: &Variables) -> Self {
        let api = Arc::new(Api::default());
        let served = Arc::clone(&api);
        let port = http::serve(move |stream| served.serve(stream));
        Self { process: Arc::new(Mutex::new(spawn(variables, &local(port).to_string()))), api }
    }

    fn invoke(
        &self,
        id: String,
        deadline_ms: u64,
        event: String,
        timeout: Duration,
    ) -> Result<Answer, Gone> {
        let end = Instant::now() + timeout;
        let mut state = lock(&self.api.state);
        state.next = Some((id, deadline_ms, event));
        self.api.changed.notify_all();
        loop {
            if let Some(answer) = state.answer.take() {
                return Ok(answer);
            }
            if lock(&self.process).has_ended() {
                return Err(Gone::Died);
            }
            if Instant::now() >= end {
                lock(&self.process).kill();
                return Err(Gone::TimedOut);
            }
            let waited = self.api.changed.wait_timeout(state, POLL);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        lock(&self.api.state).closed = true;
        self.api.changed.notify_all();
    }
}

impl Api {
    /// One connection of the function's.
    fn serve(&self, mut stream: BufReader<TcpStream>) -> io::Result<()> {
        while let Some(request) = Message::read(&mut stream)? {
            let Some(answer) = self.answer(request) else { return Ok(()) };
            stream.get_mut().write_all(&answer.bytes())?;
        }
        Ok(())
    }

    /// The answer to a request of the function's; `None` when the instance is gone.
    fn answer(&self, request: Message) -> Option<Message> {
        let path = request.path().strip_prefix("/2018-06-01/runtime/").unwrap_or_default();
        if (request.method(), path) == ("GET", "invocation/next") {
            return self.next();
        }
        let Some((id, what)) =
            path.strip_prefix("invocation/").and_then(|rest| rest.split_once('/'))
        else {
            // A function that can't start says so and ends; that it ends is what is looked at.
            return Some(Message::answer(if path == "init/error" { 202 } else { 404 }, ""));
        };
        let status = match what {
            "response" => 200,
            "error" => 500,
            _ => return Some(Message::answer(404, "")),
        };
        let mut state = lock(&self.state);
        if state.current != id {
            return Some(Message::answer(400, "not the invocation at hand"));
        }
        let body = String::from_utf8(request.body).expect("an answer that is text");
        state.answer = Some(Answer { status, body });
        self.changed.notify_all();
        Some(Message::answer(202, r#"{"status":"OK"}"#))
    }

    fn next(&self) -> Option<Message> {
        let mut state = lock(&self.state);
        loop {
            if state.closed {
                return None;
            }
            if let Some((id, deadline_ms, event)) = state.next.take() {
                state.current.clone_from(&id);
                let answer = Message::answer(200, event)
                    .with("Content-Type", "application/json")
                    .with("Lambda-Runtime-Aws-Request-Id", id)
                    .with("Lambda-Runtime-Deadline-Ms", deadline_ms.to_string())
                    .with(
                        "Lambda-Runtime-Invoked-Function-Arn",
                        "arn:aws:lambda:eu-central-1:123456789012:function:_",
                    );
                return Some(answer);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
