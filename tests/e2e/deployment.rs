//! A function with all that it needs, its table behind a proxy: what the tests of faults begin with.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use crate::function::{Variables, model};
use crate::lambda::Lambda;
use crate::proxy::Proxy;
use crate::servers::{DynamoDb, Sqs};

/// Ten times what a batch of these tests takes on a loaded machine.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);

/// Model in a file, results in a table behind a proxy, dead letters in a file or in a queue.
pub(crate) struct Deployment {
    folder: tempfile::TempDir,
    pub(crate) dynamodb: DynamoDb,
    /// Before the table.
    pub(crate) proxy: Proxy,
    queue: Option<(Sqs, String)>,
}

impl Deployment {
    /// Dead letters go to a file, which takes one function at a time.
    pub(crate) fn with_file(seed: u64) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("model"), model()).expect("the model written");
        let dynamodb = DynamoDb::start();
        dynamodb.create_table("results");
        dynamodb.warm_up("results");
        let proxy = Proxy::before(&dynamodb.url, seed);
        Self { folder, dynamodb, proxy, queue: None }
    }

    /// Dead letters go to a queue.
    pub(crate) fn with_queue(seed: u64) -> Self {
        let sqs = Sqs::start();
        let queue = sqs.create_queue("dead");
        Self { queue: Some((sqs, queue)), ..Self::with_file(seed) }
    }

    /// Every verdict is stored, so that every record can be counted.
    pub(crate) fn variables(&self) -> Variables {
        let file = |name: &str| format!("file://{}", self.folder.path().join(name).display());
        let variables = Variables::default()
            .set("MODEL_URI", file("model"))
            .set("RESULTS_URI", "dynamodb://results")
            .set("RESULTS", "all")
            .set("AWS_ENDPOINT_URL_DYNAMODB", &self.proxy.url);
        match &self.queue {
            Some((sqs, queue)) => {
                variables.set("DEAD_LETTERS_URI", queue).set("AWS_ENDPOINT_URL_SQS", &sqs.url)
            }
            None => variables.set("DEAD_LETTERS_URI", file("dead.jsonl")),
        }
    }

    /// URL of the queue for dead letters.
    pub(crate) fn queue(&self) -> &str {
        let (_, queue) = self.queue.as_ref().expect("a queue");
        queue
    }

    /// URL of the server that has it.
    pub(crate) fn queue_server(&self) -> &str {
        let (sqs, _) = self.queue.as_ref().expect("a queue");
        &sqs.url
    }

    pub(crate) fn lambda(&self) -> Lambda {
        Lambda::new(&self.variables(), TIMEOUT)
    }

    /// Identities of the records stored.
    pub(crate) fn stored(&self) -> BTreeSet<String> {
        self.dynamodb.ids("results")
    }

    /// Identities of the dead letters, one that was sent again as often as it was; takes them out of
    /// a queue.
    pub(crate) fn letters(&self) -> Vec<String> {
        let id = |letter: &Value| letter["id"].as_str().expect("an id").to_owned();
        match &self.queue {
            Some((sqs, queue)) => sqs.drain(queue).iter().map(id).collect(),
            None => {
                let path = self.folder.path().join("dead.jsonl");
                let text = std::fs::read_to_string(path).unwrap_or_default();
                let letter = |line| serde_json::from_str(line).expect("a json line");
                text.lines().map(letter).map(|letter| id(&letter)).collect()
            }
        }
    }
}
