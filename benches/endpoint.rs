//! The same batches scored in process and through an endpoint: `sawlog bench-endpoint` asks `sawlog
//! serve` over loopback by the Lambda's own client, so both ends are the programs that people run.
//!
//!     cargo bench --bench endpoint | python3 benches/endpoint.py docs/endpoint.svg
//!     cargo bench --bench endpoint -- --rounds 20   # arguments go to bench-endpoint
//!
//! Loopback is the least that any endpoint can cost: no network, no TLS, no queue, no authorisation. Then
//! the same once more with each answer held back by some milliseconds, to stand in for those.
#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout, missing_docs)]

mod rounds;

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rounds::Points;

const SAWLOG: &str = env!("CARGO_BIN_EXE_sawlog");
const FEATURES: usize = 3;
const DELAYS_MS: [u32; 4] = [0, 5, 20, 50];

fn main() {
    let given: Vec<String> = std::env::args().skip(1).filter(|one| one != "--bench").collect();
    let is_test = given.iter().any(|one| one == "--test");
    let arguments =
        if is_test { vec!["--rounds=1".into(), "--batches=1,10".into()] } else { given };
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let (training, queries) = rounds::points(FEATURES);
    std::fs::write(at("training.csv"), csv(&training)).expect("written");
    std::fs::write(at("queries.csv"), csv(&queries)).expect("written");
    let names = ["x", "y", "z"];
    let mut spec = format!("format = \"csv\"\ncolumns = {names:?}\n");
    for name in names {
        let _ = writeln!(spec, "[[feature]]\nname = \"{name}\"\nfield = \"{name}\"");
    }
    std::fs::write(at("spec.toml"), spec).expect("written");
    let trained = Command::new(SAWLOG)
        .current_dir(folder.path())
        .args(["train", "--spec=spec.toml", "--input=training.csv", "--output=model.sawlog"])
        .output()
        .expect("sawlog runs");
    assert!(trained.status.success(), "{}", String::from_utf8_lossy(&trained.stderr));
    for delay_ms in DELAYS_MS {
        let server = Server::start(folder.path(), delay_ms);
        let measured = Command::new(SAWLOG)
            .current_dir(folder.path())
            .args(["bench-endpoint", "--json", "--endpoint-name=loopback"])
            .args(["--model=model.sawlog", "--input=queries.csv"])
            .args(&arguments)
            .env("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", &server.url)
            // What the client signs with; the server takes any.
            .env("AWS_REGION", "eu-central-1")
            .env("AWS_ACCESS_KEY_ID", "loopback")
            .env("AWS_SECRET_ACCESS_KEY", "loopback")
            .output()
            .expect("sawlog runs");
        assert!(measured.status.success(), "{}", String::from_utf8_lossy(&measured.stderr));
        let report: serde_json::Value = serde_json::from_slice(&measured.stdout).expect("json");
        assert_eq!(report["scores_equal"], true, "the endpoint's scores are the model's");
        println!("{}", serde_json::json!({ "delay_ms": delay_ms, "report": report }));
    }
}

fn csv(points: &Points) -> String {
    let mut out = String::new();
    for row in points.rows() {
        let numbers: Vec<String> = row.iter().map(f32::to_string).collect();
        let _ = writeln!(out, "{}", numbers.join(","));
    }
    out
}

/// `sawlog serve` on a free port of this machine, until it is dropped.
struct Server {
    process: Child,
    url: String,
}

impl Server {
    fn start(folder: &Path, delay_ms: u32) -> Self {
        let mut process = Command::new(SAWLOG)
            .current_dir(folder)
            .args(["serve", "--host=127.0.0.1", "--port=0", "--model=model.sawlog"])
            .arg(format!("--delay-ms={delay_ms}"))
            .stderr(Stdio::piped())
            .spawn()
            .expect("sawlog runs");
        let mut line = String::new();
        let said = process.stderr.as_mut().expect("piped");
        BufReader::new(said).read_line(&mut line).expect("a line");
        let url = line.split_whitespace().nth(2).map(|word| word.trim_end_matches(':').to_owned());
        let url = url.unwrap_or_else(|| panic!("not listening: {line}"));
        Self { process, url }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
