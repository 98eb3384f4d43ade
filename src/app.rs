//! The cold start: from a [`Config`] to everything that an invocation needs.

use std::sync::Arc;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, SdkConfig};
use sawlog_model::Model;
use tokio::sync::OnceCell;

use crate::config::{Config, DeadLettersUri, ModelUri, ResultsUri};
use crate::model_store::{ModelStore, ModelStoreError};
use crate::sinks::dynamodb::DynamoDbResults;
use crate::sinks::jsonl::{JsonlError, JsonlFile};
use crate::sinks::sqs::SqsDeadLetters;
use crate::sinks::{DeadLettersSink, ResultsSink};

/// A connection within a region stands in milliseconds; after two seconds it won't.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// One try of a call: a full BatchWriteItem takes a few tens of milliseconds.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);
/// All tries of a call with the pauses between; the invocation's deadline may end it sooner.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);
/// Tries of a call that fails as a whole.
const MAX_ATTEMPTS: u32 = 3;

/// A function that is ready to be invoked. One serves any number of invocations at the same time.
#[derive(Debug)]
pub struct App {
    model: Arc<Model>,
    pub(crate) results: ResultsSink,
    pub(crate) dead_letters: DeadLettersSink,
    pub(crate) partial_batch: bool,
    pub(crate) deadline_reserve: Duration,
}

/// Why a function can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The model can't be had.
    #[error("MODEL_URI")]
    Model(#[from] ModelStoreError),
    /// The results' file can't be used.
    #[error("RESULTS_URI")]
    Results(#[source] JsonlError),
    /// The dead letters' file can't be used.
    #[error("DEAD_LETTERS_URI")]
    DeadLetters(#[source] JsonlError),
}

impl App {
    /// Loads the model and makes the clients that the configuration asks for. Nothing of AWS is
    /// touched if it names files only.
    ///
    /// # Errors
    /// [`StartError`] names the variable, the place and what is wrong with it.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let aws = OnceCell::new();
        let aws = || aws.get_or_init(load_aws);
        let store = match config.model {
            ModelUri::S3 { bucket, key } => {
                let s3 = aws_sdk_s3::config::Builder::from(aws().await);
                let s3 = s3.force_path_style(config.s3_path_style).build();
                ModelStore::S3 { client: aws_sdk_s3::Client::from_conf(s3), bucket, key }
            }
            ModelUri::File(path) => ModelStore::File(path),
        };
        let model = Arc::new(store.load().await?);
        let results = match config.results {
            ResultsUri::DynamoDb { table } => {
                let client = aws_sdk_dynamodb::Client::new(aws().await);
                ResultsSink::DynamoDb(DynamoDbResults::new(client, table))
            }
            ResultsUri::File(path) => {
                ResultsSink::Jsonl(JsonlFile::open(&path).map_err(StartError::Results)?)
            }
        };
        let dead_letters = match config.dead_letters {
            DeadLettersUri::Sqs { queue_url } => {
                let client = aws_sdk_sqs::Client::new(aws().await);
                DeadLettersSink::Sqs(SqsDeadLetters::new(client, queue_url))
            }
            DeadLettersUri::File(path) => {
                DeadLettersSink::Jsonl(JsonlFile::open(&path).map_err(StartError::DeadLetters)?)
            }
        };
        Ok(Self {
            model,
            results,
            dead_letters,
            partial_batch: config.partial_batch,
            deadline_reserve: Duration::from_millis(config.deadline_reserve_ms),
        })
    }

    /// The model that the next batch is scored with.
    pub fn model(&self) -> Arc<Model> {
        Arc::clone(&self.model)
    }
}

async fn load_aws() -> SdkConfig {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .operation_attempt_timeout(ATTEMPT_TIMEOUT)
        .operation_timeout(CALL_TIMEOUT)
        .build();
    aws_config::defaults(BehaviorVersion::v2026_01_12())
        .retry_config(RetryConfig::standard().with_max_attempts(MAX_ATTEMPTS))
        .timeout_config(timeouts)
        .load()
        .await
}
