//! The function: the release binary under a Runtime API, invoked over a socket.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::Value;

use crate::process::{Process, free_port, local};
use crate::servers::{ACCESS_KEY, REGION, RuntimeApi, SECRET_KEY};

/// Lambda's own limit for a synchronous invocation.
pub(crate) const MAX_EVENT_LEN: usize = 6 << 20;

/// The longest that a test waits for an answer: 10,000 records into DynamoDB Local on a loaded
/// machine take some ten seconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(180);

/// Variables of the function, as a deployment would set them.
#[derive(Clone, Default)]
pub(crate) struct Variables(Vec<(&'static str, String)>);

impl Variables {
    /// Sets a variable, again if need be.
    pub(crate) fn set(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self = self.unset(name);
        self.0.push((name, value.into()));
        self
    }

    pub(crate) fn unset(mut self, name: &'static str) -> Self {
        self.0.retain(|(known, _)| *known != name);
        self
    }
}

/// A function that waits for invocations.
pub(crate) struct Function {
    process: Process,
    api: RuntimeApi,
}

/// What an invocation gave.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body)
            .unwrap_or_else(|error| panic!("expected json, got {error}: {}", self.body))
    }
}

impl Function {
    pub(crate) fn start(variables: &Variables) -> Self {
        let api = RuntimeApi::start();
        Self { process: spawn(variables, &format!("http://127.0.0.1:{}/.rt", api.port)), api }
    }

    /// Invokes the function with an event, which may be of any form.
    pub(crate) fn invoke(&self, event: &str) -> Answer {
        assert!(event.len() <= MAX_EVENT_LEN, "Lambda would not deliver {} bytes", event.len());
        // HTTP/1.0: the answer comes whole and ends with the connection.
        let head = format!(
            "POST /2015-03-31/functions/_/invocations HTTP/1.0\r\nHost: 127.0.0.1:{}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            self.api.port,
            event.len()
        );
        let mut socket = TcpStream::connect(local(self.api.port)).expect("a connection");
        socket.set_read_timeout(Some(ANSWER_TIMEOUT)).expect("a time-out");
        socket.write_all(head.as_bytes()).expect("the request taken");
        socket.write_all(event.as_bytes()).expect("the event taken");
        let mut answer = Vec::new();
        if let Err(error) = socket.read_to_end(&mut answer) {
            panic!("no answer within {ANSWER_TIMEOUT:?}: {error}");
        }
        let answer = String::from_utf8(answer).expect("an answer that is text");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        Answer { status: status.expect("a status"), body: body.to_owned() }
    }

    /// The most memory that the function has had so far, in bytes.
    pub(crate) fn peak_memory(&self) -> u64 {
        self.process.peak_memory()
    }

    /// What the function has logged.
    pub(crate) fn log(&self) -> String {
        self.process.output()
    }
}

/// Starts a function that must not come up: how it ended, and what it logged.
pub(crate) fn failed_cold_start(variables: &Variables) -> (ExitStatus, String) {
    // Nothing listens there: a function that came up would wait for its first invocation in vain.
    let mut process = spawn(variables, &local(free_port()).to_string());
    let status = process.wait_until_ended();
    (status, process.output())
}

/// Starts the binary with the address of its Runtime API.
pub(crate) fn spawn(variables: &Variables, api: &str) -> Process {
    Process::start("bootstrap", &binary("SAWLOG_BOOTSTRAP", "bootstrap"), |command, _| {
        // As bare as Lambda's: nothing of the machine's own profile, keys or proxies.
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("AWS_LAMBDA_RUNTIME_API", api)
            .env("AWS_LAMBDA_FUNCTION_NAME", "_")
            .env("AWS_LAMBDA_FUNCTION_VERSION", "1")
            .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "1769")
            .env("AWS_REGION", REGION)
            .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
            .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
            .envs(variables.0.iter().map(|(name, value)| (name, value)));
    })
}

/// A release binary: the one named by a variable, or the one where Cargo puts it.
pub(crate) fn binary(variable: &str, name: &str) -> PathBuf {
    let path = match std::env::var_os(variable) {
        Some(path) => PathBuf::from(path),
        // Tests run as target/debug/deps/e2e-….
        None => std::env::current_exe()
            .expect("the test's own path")
            .ancestors()
            .nth(3)
            .expect("a target folder")
            .join("release")
            .join(name),
    };
    assert!(path.is_file(), "{} is not there: run tests/run", path.display());
    path
}

/// A folder of the repository.
pub(crate) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The model of the shipped example, trained once for all tests by the release `sawlog`.
pub(crate) fn model() -> &'static [u8] {
    static MODEL: OnceLock<Vec<u8>> = OnceLock::new();
    MODEL.get_or_init(|| train(&repository("examples/nezha/spec.toml")))
}

/// A model of the shipped log by another specification.
pub(crate) fn model_of(spec: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("spec.toml");
    std::fs::write(&path, spec).expect("the specification written");
    train(&path)
}

fn train(spec: &Path) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("model");
    let run = Command::new(binary("SAWLOG_CLI", "sawlog"))
        .arg("train")
        .arg("--spec")
        .arg(spec)
        .arg("--input")
        .arg(repository("examples/nezha/requests.jsonl.gz"))
        .arg("--output")
        .arg(&path)
        .output()
        .expect("sawlog runs");
    assert!(
        run.status.success(),
        "sawlog train: {}\n{}",
        run.status,
        String::from_utf8_lossy(&run.stderr)
    );
    std::fs::read(&path).expect("a model")
}
