//! The servers beside the function, each with what a test asks of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, KeysAndAttributes,
    PutRequest, ScalarAttributeType, WriteRequest,
};
use aws_sdk_sqs::types::DeleteMessageBatchRequestEntry;
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::process::{Process, START_TIMEOUT, free_port};

/// What the servers are told; they take any key and region. DynamoDB Local wants letters and digits.
pub(crate) const ACCESS_KEY: &str = "AKIALOOPBACK";
/// One who may read only, where a server knows the difference.
pub(crate) const READER_KEY: &str = "AKIAREADER";
pub(crate) const SECRET_KEY: &str = "loopback";
pub(crate) const REGION: &str = "eu-central-1";

/// For a JVM that lives for seconds: half the work until it listens.
pub(crate) const SHORT_LIVED_JVM: [&str; 2] = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"];

/// The folder that `tests/servers/setup` filled.
pub(crate) fn installed() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers/setup");
        let run = Command::new(&script).arg("--where").output();
        let run = run.unwrap_or_else(|error| panic!("{}: {error}", script.display()));
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        PathBuf::from(String::from_utf8_lossy(&run.stdout).trim())
    })
}

fn url(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

/// The settings that the clients of all services share.
macro_rules! settings {
    ($sdk:ident, $url:expr) => {
        $sdk::Config::builder()
            .behavior_version($sdk::config::BehaviorVersion::v2026_01_12())
            .region($sdk::config::Region::new(REGION))
            .credentials_provider($sdk::config::Credentials::new(
                ACCESS_KEY, SECRET_KEY, None, None, "tests",
            ))
            .endpoint_url($url)
    };
}

pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// The Lambda Runtime API, and the endpoint that invokes the function: cargo-lambda's.
pub(crate) struct RuntimeApi {
    _process: Process,
    pub(crate) port: u16,
}

impl RuntimeApi {
    pub(crate) fn start() -> Self {
        let port = free_port();
        let program = installed().join("python/bin/cargo-lambda");
        let mut process = Process::start("runtime api", &program, |command, folder| {
            // It wants to stand in a package, of which it then takes no notice.
            std::fs::create_dir(folder.join("src")).expect("a folder");
            std::fs::write(folder.join("src/main.rs"), "fn main() {}\n").expect("a file");
            std::fs::write(
                folder.join("Cargo.toml"),
                "[package]\nname = \"none\"\nversion = \"0.0.0\"\nedition = \"2024\"\n[workspace]\n",
            )
            .expect("a file");
            command.args([
                "lambda",
                "watch",
                "--only-lambda-apis",
                "--invoke-address",
                "127.0.0.1",
            ]);
            command.args(["--invoke-port", &port.to_string()]);
        });
        process.wait_until_listening(port);
        Self { _process: process, port }
    }
}

/// S3: moto, or SeaweedFS.
pub(crate) struct S3 {
    _process: Process,
    pub(crate) url: String,
    client: aws_sdk_s3::Client,
    runtime: Runtime,
}

impl S3 {
    pub(crate) fn start() -> Self {
        let port = free_port();
        let program = installed().join("python/bin/python");
        let mut process = Process::start("s3", &program, |command, _| {
            command.args(["-m", "moto.server", "--host", "127.0.0.1", "--port", &port.to_string()]);
        });
        process.wait_until_listening(port);
        Self::at(process, port)
    }

    /// SeaweedFS, which knows who may do what, and whose conditional writes are atomic: moto looks first
    /// and writes then, and of two that come at once both may get through.
    pub(crate) fn start_atomic() -> Self {
        let program = installed().join("python/bin/weed");
        let s3_port = free_port();
        let mut process = Process::start("seaweedfs", &program, |command, folder| {
            let keys = folder.join("keys.json");
            let who = |name: &str, key: &str, actions: &[&str]| {
                json!({
                    "name": name,
                    "credentials": [{"accessKey": key, "secretKey": SECRET_KEY}],
                    "actions": actions,
                })
            };
            let may =
                [who("all", ACCESS_KEY, &["Admin"]), who("reader", READER_KEY, &["Read", "List"])];
            std::fs::write(&keys, json!({"identities": may}).to_string()).expect("a file");
            let at = |name: &str| folder.join(name).display().to_string();
            // Without telemetry, and without what speaks to others than these tests.
            command.args(["-logtostderr=true", "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]);
            command.args(["-master.telemetry=false", "-master.volumeSizeLimitMB=64", "-s3"]);
            command.args([
                "-volume.max=20",
                "-s3.autoCreateBucket=false",
                "-s3.port.iceberg=0",
                "-s3.port.lance=0",
            ]);
            command.arg(format!("-dir={}", folder.display()));
            command.arg(format!("-s3.config={}", keys.display()));
            command.arg(format!("-s3.port={s3_port}"));
            command.arg(format!("-s3.localSocket={}", at("s3.sock")));
            command.arg(format!("-filer.localSocket={}", at("filer.sock")));
            for port in ["master.port", "volume.port", "filer.port"] {
                command.arg(format!("-{port}={}", free_port()));
                command.arg(format!("-{port}.grpc={}", free_port()));
            }
            command.arg(format!("-s3.port.grpc={}", free_port()));
        });
        process.wait_until_listening(s3_port);
        let s3 = Self::at(process, s3_port);
        s3.wait_until_writable();
        s3
    }

    fn at(process: Process, port: u16) -> Self {
        let url = url(port);
        let settings = settings!(aws_sdk_s3, &url).force_path_style(true).build();
        let client = aws_sdk_s3::Client::from_conf(settings);
        Self { _process: process, url, client, runtime: runtime() }
    }

    /// SeaweedFS listens before its parts have found each other.
    fn wait_until_writable(&self) {
        let deadline = Instant::now() + START_TIMEOUT;
        self.runtime.block_on(async {
            loop {
                let _ = self.client.create_bucket().bucket("warm-up").send().await;
                let call = self.client.put_object().bucket("warm-up").key("k");
                let Err(error) = call.body(b"v".to_vec().into()).send().await else { return };
                assert!(Instant::now() < deadline, "seaweedfs: can't be written to: {error:?}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
    }

    /// A client for another runtime: connections belong to the one that they were made on.
    pub(crate) fn new_client(&self) -> aws_sdk_s3::Client {
        let settings = settings!(aws_sdk_s3, &self.url).force_path_style(true).build();
        aws_sdk_s3::Client::from_conf(settings)
    }

    /// An object's bytes; `None` if it isn't there.
    pub(crate) fn get(&self, bucket: &str, key: &str) -> Option<Vec<u8>> {
        self.runtime.block_on(async {
            let object = match self.client.get_object().bucket(bucket).key(key).send().await {
                Ok(object) => object,
                Err(error) if error.as_service_error()?.is_no_such_key() => return None,
                Err(error) => panic!("{bucket}/{key}: {error:?}"),
            };
            Some(object.body.collect().await.expect("bytes").to_vec())
        })
    }

    pub(crate) fn delete(&self, bucket: &str, key: &str) {
        let call = self.client.delete_object().bucket(bucket).key(key);
        self.runtime.block_on(call.send()).expect("deleted");
    }

    pub(crate) fn create_bucket(&self, bucket: &str) {
        use aws_sdk_s3::types::{BucketLocationConstraint, CreateBucketConfiguration};
        let place = CreateBucketConfiguration::builder()
            .location_constraint(BucketLocationConstraint::from(REGION))
            .build();
        let call = self.client.create_bucket().bucket(bucket).create_bucket_configuration(place);
        self.runtime.block_on(call.send()).expect("bucket");
    }

    /// Puts an object; returns its ETag without quotes and, if the bucket keeps versions, its version.
    pub(crate) fn put(&self, bucket: &str, key: &str, bytes: Vec<u8>) -> (String, Option<String>) {
        let call = self.client.put_object().bucket(bucket).key(key).body(bytes.into());
        let put = self.runtime.block_on(call.send()).expect("object");
        let etag = put.e_tag.as_deref().expect("an ETag").trim_matches('"').to_owned();
        (etag, put.version_id)
    }

    /// From now on the bucket keeps versions.
    pub(crate) fn keep_versions(&self, bucket: &str) {
        use aws_sdk_s3::types::{BucketVersioningStatus, VersioningConfiguration};
        let enabled =
            VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled).build();
        let call = self.client.put_bucket_versioning().bucket(bucket);
        let call = call.versioning_configuration(enabled);
        self.runtime.block_on(call.send()).expect("versions");
    }
}

impl S3 {
    /// All objects of a bucket by key.
    pub(crate) fn objects(&self, bucket: &str) -> BTreeMap<String, Vec<u8>> {
        self.runtime.block_on(async {
            let listed = self.client.list_objects_v2().bucket(bucket).send().await.expect("keys");
            let mut objects = BTreeMap::new();
            for key in listed.contents.unwrap_or_default().into_iter().filter_map(|it| it.key) {
                let call = self.client.get_object().bucket(bucket).key(&key);
                let object = call.send().await.expect("object").body.collect().await;
                objects.insert(key, object.expect("bytes").to_vec());
            }
            objects
        })
    }
}

/// Most keys of one BatchGetItem.
const MAX_KEYS: usize = 100;

/// An item of a table.
pub(crate) type Item = BTreeMap<String, AttributeValue>;

/// DynamoDB: Amazon's DynamoDB Local, in memory.
pub(crate) struct DynamoDb {
    _process: Process,
    pub(crate) url: String,
    client: aws_sdk_dynamodb::Client,
    runtime: Runtime,
}

impl DynamoDb {
    pub(crate) fn start() -> Self {
        Self::start_at(free_port())
    }

    pub(crate) fn start_at(port: u16) -> Self {
        let folder = installed().join("dynamodb");
        let lib = folder.join("lib");
        let mut process = Process::start("dynamodb", Path::new("java"), |command, _| {
            command
                .args(SHORT_LIVED_JVM)
                .arg("-Xmx1g")
                .arg(format!("-Djava.library.path={}", lib.display()));
            command.arg("-cp").arg(format!("{0}/classes:{0}/lib/*", folder.display()));
            command.args(["LoopbackServer", "-inMemory", "-sharedDb", "-disableTelemetry"]);
            command.args(["-port", &port.to_string()]);
        });
        process.wait_until_listening(port);
        let url = url(port);
        let settings = settings!(aws_sdk_dynamodb, &url).build();
        let client = aws_sdk_dynamodb::Client::from_conf(settings);
        Self { _process: process, url, client, runtime: runtime() }
    }

    /// A table as template.yaml has it.
    pub(crate) fn create_table(&self, table: &str) {
        self.create_table_with_key(table, "id");
    }

    /// A table whose items have another key.
    pub(crate) fn create_table_with_key(&self, table: &str, key: &str) {
        let attribute = AttributeDefinition::builder()
            .attribute_name(key)
            .attribute_type(ScalarAttributeType::S)
            .build()
            .expect("an attribute");
        let key = KeySchemaElement::builder().attribute_name(key).key_type(KeyType::Hash).build();
        let call = self
            .client
            .create_table()
            .table_name(table)
            .attribute_definitions(attribute)
            .key_schema(key.expect("a key"))
            .billing_mode(BillingMode::PayPerRequest);
        self.runtime.block_on(call.send()).expect("table");
    }

    /// From now on items expire by an attribute.
    pub(crate) fn expire_by(&self, table: &str, attribute: &str) {
        let by = aws_sdk_dynamodb::types::TimeToLiveSpecification::builder();
        let by = by.enabled(true).attribute_name(attribute).build().expect("a specification");
        let call = self.client.update_time_to_live().table_name(table);
        self.runtime.block_on(call.time_to_live_specification(by).send()).expect("a table");
    }

    /// Writes an item and deletes it. At the first write the server loads much of itself, which on a
    /// busy machine takes longer than a client waits.
    pub(crate) fn warm_up(&self, table: &str) {
        let id = AttributeValue::S("warm-up".to_owned());
        self.runtime.block_on(async {
            let put = PutRequest::builder().item("id", id.clone()).build().expect("an item");
            let put = WriteRequest::builder().put_request(put).build();
            let call = self.client.batch_write_item().request_items(table, vec![put]);
            call.send().await.expect("written");
            let call = self.client.delete_item().table_name(table).key("id", id);
            call.send().await.expect("deleted");
        });
    }

    /// The ids of all items of a table.
    pub(crate) fn ids(&self, table: &str) -> BTreeSet<String> {
        self.runtime.block_on(async {
            let mut ids = BTreeSet::new();
            let call = self.client.scan().table_name(table).consistent_read(true);
            let mut pages = call.projection_expression("id").into_paginator().send();
            while let Some(page) = pages.next().await {
                for item in page.expect("a page").items.unwrap_or_default() {
                    let new = ids.insert(item["id"].as_s().expect("a string").clone());
                    assert!(new, "the table gave an id twice");
                }
            }
            ids
        })
    }

    /// Those of the ids that a table has items of, looked up one by one: of a large table the server
    /// can't give all items.
    pub(crate) fn which_of<'a>(
        &self,
        table: &str,
        ids: impl IntoIterator<Item = &'a str>,
    ) -> BTreeSet<String> {
        let ids: Vec<&str> = ids.into_iter().collect();
        let look_up = async |ids: &[&str]| {
            let keys = ids.iter().map(|id| HashMap::from([key(id)])).collect();
            let keys = KeysAndAttributes::builder()
                .set_keys(Some(keys))
                .projection_expression("id")
                .consistent_read(true)
                .build()
                .expect("keys");
            let call = self.client.batch_get_item().request_items(table, keys).send();
            let answer = call.await.expect("items");
            let left = answer.unprocessed_keys.unwrap_or_default();
            assert!(left.is_empty(), "not looked up: {left:?}");
            answer.responses.unwrap_or_default().remove(table).unwrap_or_default()
        };
        self.runtime.block_on(async {
            let mut found = BTreeSet::new();
            let calls = stream::iter(ids.chunks(MAX_KEYS)).map(look_up);
            let mut answers = pin!(calls.buffer_unordered(4));
            while let Some(items) = answers.next().await {
                found.extend(items.iter().map(|item| item["id"].as_s().expect("text").clone()));
            }
            found
        })
    }

    /// Number of a table's items.
    pub(crate) fn count(&self, table: &str) -> usize {
        let call = self.client.describe_table().table_name(table);
        let answer = self.runtime.block_on(call.send()).expect("a table");
        let count = answer.table.and_then(|table| table.item_count).expect("a count");
        usize::try_from(count).expect("a count")
    }

    /// All items of a table by id.
    pub(crate) fn items(&self, table: &str) -> BTreeMap<String, Item> {
        self.runtime.block_on(async {
            let mut items = BTreeMap::new();
            let mut pages =
                self.client.scan().table_name(table).consistent_read(true).into_paginator().send();
            while let Some(page) = pages.next().await {
                for item in page.expect("a page").items.unwrap_or_default() {
                    let id = item["id"].as_s().expect("an id that is a string").clone();
                    let doubled = items.insert(id, Item::from_iter(item));
                    assert!(doubled.is_none(), "the table gave an id twice");
                }
            }
            items
        })
    }
}

impl DynamoDb {
    /// Sets a number of an item that is there.
    pub(crate) fn set_number(&self, table: &str, id: &str, name: &str, number: i64) {
        let (id_name, id) = key(id);
        let call = self
            .client
            .update_item()
            .table_name(table)
            .key(id_name, id)
            .update_expression("SET #name = :number")
            .condition_expression("attribute_exists(id)")
            .expression_attribute_names("#name", name)
            .expression_attribute_values(":number", AttributeValue::N(number.to_string()));
        self.runtime.block_on(call.send()).expect("an item");
    }
}

/// SNS: moto, and its SQS for what subscribers get.
pub(crate) struct Sns {
    _process: Process,
    pub(crate) url: String,
    topics: aws_sdk_sns::Client,
    queues: aws_sdk_sqs::Client,
    runtime: Runtime,
}

impl Sns {
    pub(crate) fn start() -> Self {
        let port = free_port();
        let program = installed().join("python/bin/python");
        let mut process = Process::start("sns", &program, |command, _| {
            command.args(["-m", "moto.server", "--host", "127.0.0.1", "--port", &port.to_string()]);
        });
        process.wait_until_listening(port);
        let url = url(port);
        let topics = aws_sdk_sns::Client::from_conf(settings!(aws_sdk_sns, &url).build());
        let queues = aws_sdk_sqs::Client::from_conf(settings!(aws_sdk_sqs, &url).build());
        Self { _process: process, url, topics, queues, runtime: runtime() }
    }

    /// Makes a topic and a queue that subscribes to it; returns the ARN of the one and the URL of the
    /// other.
    pub(crate) fn create_topic(&self, topic: &str) -> (String, String) {
        use aws_sdk_sqs::types::QueueAttributeName::QueueArn;
        self.runtime.block_on(async {
            let made = self.topics.create_topic().name(topic).send().await.expect("a topic");
            let topic_arn = made.topic_arn.expect("the arn of the topic");
            let made = self.queues.create_queue().queue_name(topic).send().await.expect("a queue");
            let queue_url = made.queue_url.expect("the url of the queue");
            let call = self.queues.get_queue_attributes().queue_url(&queue_url);
            let got = call.attribute_names(QueueArn).send().await.expect("attributes");
            let queue_arn = got.attributes.and_then(|mut all| all.remove(&QueueArn));
            let call = self.topics.subscribe().topic_arn(&topic_arn).protocol("sqs");
            let call = call.endpoint(queue_arn.expect("the arn of the queue"));
            call.send().await.expect("a subscription");
            (topic_arn, queue_url)
        })
    }

    /// Takes all messages out of a subscriber's queue: SNS's envelopes.
    pub(crate) fn drain(&self, queue_url: &str) -> Vec<Value> {
        self.runtime.block_on(drain(&self.queues, queue_url))
    }
}

/// SQS: ElasticMQ, with the limits of the real one.
pub(crate) struct Sqs {
    _process: Process,
    pub(crate) url: String,
    client: aws_sdk_sqs::Client,
    runtime: Runtime,
}

impl Sqs {
    pub(crate) fn start() -> Self {
        let port = free_port();
        let lib = installed().join("elasticmq/lib");
        let mut process = Process::start("sqs", Path::new("java"), |command, folder| {
            let settings = folder.join("elasticmq.conf");
            std::fs::write(&settings, elasticmq_settings(port)).expect("a file");
            command
                .args(SHORT_LIVED_JVM)
                .arg("-Xmx512m")
                .arg(format!("-Dconfig.file={}", settings.display()));
            command.arg("-cp").arg(format!("{}/*", lib.display()));
            command.arg("org.elasticmq.server.Main");
        });
        process.wait_until_listening(port);
        let url = url(port);
        let client = aws_sdk_sqs::Client::from_conf(settings!(aws_sdk_sqs, &url).build());
        Self { _process: process, url, client, runtime: runtime() }
    }

    /// Makes a queue; returns its URL.
    pub(crate) fn create_queue(&self, queue: &str) -> String {
        let call = self.client.create_queue().queue_name(queue);
        let made = self.runtime.block_on(call.send()).expect("queue");
        made.queue_url.expect("the url of the queue")
    }

    /// Takes all messages out of a queue; their bodies, which are JSON.
    pub(crate) fn drain(&self, queue_url: &str) -> Vec<Value> {
        self.runtime.block_on(drain(&self.client, queue_url))
    }
}

async fn drain(client: &aws_sdk_sqs::Client, queue_url: &str) -> Vec<Value> {
    let mut bodies = Vec::new();
    loop {
        let call = client.receive_message().queue_url(queue_url);
        let received = call.max_number_of_messages(10).send().await.expect("messages");
        let messages = received.messages.unwrap_or_default();
        if messages.is_empty() {
            return bodies;
        }
        let mut call = client.delete_message_batch().queue_url(queue_url);
        for (number, message) in messages.into_iter().enumerate() {
            let body = message.body.expect("a body");
            bodies.push(serde_json::from_str(&body).expect("a body of json"));
            let entry = DeleteMessageBatchRequestEntry::builder()
                .id(number.to_string())
                .receipt_handle(message.receipt_handle.expect("a receipt"));
            call = call.entries(entry.build().expect("an entry"));
        }
        let deleted = call.send().await.expect("deleted");
        assert!(deleted.failed.is_empty(), "not deleted: {:?}", deleted.failed);
    }
}

fn key(id: &str) -> (String, AttributeValue) {
    ("id".to_owned(), AttributeValue::S(id.to_owned()))
}

fn elasticmq_settings(port: u16) -> String {
    format!(
        r#"include classpath("application.conf")
node-address {{ protocol = http, host = "127.0.0.1", port = {port}, context-path = "" }}
rest-sqs {{ enabled = true, bind-hostname = "127.0.0.1", bind-port = {port}, sqs-limits = strict }}
rest-stats.enabled = false
"#
    )
}
