//! Kafka: a real broker, one node in KRaft mode.

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::config::ClientConfig;
use rdkafka::message::{DeliveryResult, Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode;

use crate::lambda::lock;
use crate::process::{Process, free_port};
use crate::servers::{SHORT_LIVED_JVM, installed, runtime};

/// A broker does as a rule what it is asked to in milliseconds; right after its start, in seconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// The id of the cluster: any 16 bytes.
const CLUSTER_ID: &str = "c2F3bG9nLXRlc3RzLTAwMA";

/// A broker that keeps its topics until the test ends.
pub(crate) struct Broker {
    _process: Process,
    pub(crate) address: String,
}

/// A record to be produced; `value` is none for a tombstone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Produced {
    pub(crate) partition: i32,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(&'static str, Vec<u8>)>,
}

impl Broker {
    pub(crate) fn start() -> Self {
        let (port, controller_port) = (free_port(), free_port());
        let jars = format!("{}/*", installed().join("kafka/lib").display());
        // Small: it is one broker for a few topics.
        let jvm = |command: &mut Command| {
            command.args(SHORT_LIVED_JVM).args(["-Xms64m", "-Xmx512m"]);
            command.arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn").args(["-cp", &jars]);
        };
        let mut process = Process::start("kafka", Path::new("java"), |command, folder| {
            let settings = folder.join("server.properties");
            let data = folder.join("data");
            let text = settings_of(port, controller_port, &data);
            std::fs::write(&settings, text).expect("a file");
            let mut format = Command::new("java");
            jvm(&mut format);
            format.args(["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c"]);
            let run = format.arg(&settings).output().expect("java runs");
            assert!(
                run.status.success(),
                "kafka.tools.StorageTool: {}\n{}",
                run.status,
                String::from_utf8_lossy(&run.stderr)
            );
            jvm(command);
            command.arg("kafka.Kafka").arg(&settings);
        });
        process.wait_until_listening(port);
        Self { _process: process, address: format!("127.0.0.1:{port}") }
    }

    /// Settings of a client.
    pub(crate) fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &self.address);
        client
    }

    pub(crate) fn create_topic(&self, topic: &str, partitions: i32) {
        let admin: AdminClient<DefaultClientContext> = self.client().create().expect("a client");
        let made = NewTopic::new(topic, partitions, TopicReplication::Fixed(1))
            .set("max.message.bytes", "8388608");
        let made = [made];
        let call = admin
            .create_topics(&made, &AdminOptions::new().operation_timeout(Some(ANSWER_TIMEOUT)));
        for answer in runtime().block_on(call).expect("an answer") {
            answer.unwrap_or_else(|(topic, error)| panic!("topic {topic}: {error}"));
        }
    }

    /// Produces records; the offset of each, in their order. Fails unless the broker has them all.
    pub(crate) fn produce(
        &self,
        topic: &str,
        records: impl IntoIterator<Item = Produced>,
    ) -> Vec<i64> {
        let offsets = Offsets::default();
        let producer: ThreadedProducer<Offsets> = self
            .client()
            .set("enable.idempotence", "true")
            .set("message.max.bytes", "8388608")
            .set("queue.buffering.max.kbytes", "131072")
            .set("linger.ms", "20")
            .create_with_context(offsets.clone())
            .expect("a producer");
        let mut count = 0;
        for record in records {
            let headers =
                record.headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
                    headers.insert(Header { key, value: Some(value) })
                });
            let mut base = BaseRecord::<[u8], [u8], usize>::with_opaque_to(topic, count)
                .partition(record.partition)
                .headers(headers);
            base.key = record.key.as_deref();
            base.payload = record.value.as_deref();
            // The queue is bounded: when it is full the producer sends first.
            while let Err((error, back)) = producer.send(base) {
                let full = error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull);
                assert!(full, "record {count}: {error}");
                base = back;
                std::thread::sleep(Duration::from_millis(5));
            }
            count += 1;
        }
        producer.flush(ANSWER_TIMEOUT).expect("everything sent");
        let mut delivered = std::mem::take(&mut *lock(&offsets.0));
        delivered.sort_unstable();
        assert_eq!(delivered.len(), count, "records delivered");
        delivered.into_iter().map(|(_, offset)| offset).collect()
    }
}

/// Number of a record and the offset that the broker gave it.
#[derive(Clone, Default)]
struct Offsets(Arc<Mutex<Vec<(usize, i64)>>>);

impl ClientContext for Offsets {}

impl ProducerContext for Offsets {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        // One that failed is missed afterwards; nothing may panic here.
        if let Ok(message) = result {
            lock(&self.0).push((number, message.offset()));
        }
    }
}

fn settings_of(port: u16, controller_port: u16, data: &Path) -> String {
    format!(
        "process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
controller.listener.names=CONTROLLER
controller.quorum.voters=1@127.0.0.1:{controller_port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={}
auto.create.topics.enable=false
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
",
        data.display()
    )
}
