//! The cold start: from a [`Config`] to everything that an invocation needs.

use std::sync::Arc;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, SdkConfig};
use sawlog_model::{Features, Model, SpecError, ValidSpec};
use tokio::sync::OnceCell;

use crate::config::{
    AlertsUri, CaptureUri, Config, DeadLettersUri, Kept, ModelUri, ResultsUri, RowKind,
    ValidationConfig,
};
use crate::endpoint::{Endpoint, ValuesFault, value_features};
use crate::event::Queue;
use crate::model_store::{ModelStore, ModelStoreError, fetch_text};
use crate::models::{Held, Models, ModelsError};
use crate::sinks::alerts::{Alerts, AlertsSink, Ledger};
use crate::sinks::dynamodb::DynamoDbResults;
use crate::sinks::jsonl::{JsonlError, JsonlFile};
use crate::sinks::retries::Retries;
use crate::sinks::s3::S3Payloads;
use crate::sinks::sqs::SqsDeadLetters;
use crate::sinks::{DeadLettersSink, ResultsSink};
use crate::trust::{Fallback, Trust};
use crate::validation::Validation;
use crate::validation::capture::Capture;

/// A connection within a region stands in milliseconds; after two seconds it won't.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// One try of a call: a full BatchWriteItem takes a few tens of milliseconds.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);
/// All tries of a call with the pauses between; the invocation's deadline may end it sooner.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);
/// Tries of a call that fails as a whole.
const MAX_ATTEMPTS: u32 = 3;

/// Longest specification that is read, in bytes: 10,000 features of 100 bytes each.
const MAX_SPEC_LEN: u64 = 1 << 20;

/// A function that is ready to be invoked. One serves any number of invocations at the same time.
#[derive(Debug)]
pub struct App {
    pub(crate) models: Models,
    pub(crate) trust: Trust,
    /// None: the function is on its own.
    pub(crate) endpoint: Option<Arc<Endpoint>>,
    /// None: nothing is sampled.
    pub(crate) validation: Option<Arc<Validation>>,
    pub(crate) results: ResultsSink,
    pub(crate) results_kept: Kept,
    pub(crate) dead_letters: DeadLettersSink,
    /// None if nobody wants to be told.
    pub(crate) alerts: Option<Alerts>,
    /// The queue that dead letters go to, if it is one.
    pub(crate) dead_letter_queue: Option<Queue>,
    pub(crate) aws: Aws,
    /// Calls of the sinks that were made again.
    pub(crate) retries: Retries,
    pub(crate) partial_batch: bool,
    pub(crate) log_fields: bool,
    pub(crate) deadline_reserve: Duration,
}

/// Why a function can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A model can't be had.
    #[error(transparent)]
    Models(#[from] ModelsError),
    /// The specification can't be fetched.
    #[error("FEATURES_URI")]
    FeaturesStore(#[source] ModelStoreError),
    /// It is none.
    #[error("FEATURES_URI")]
    Spec(#[source] SpecError),
    /// Records of it are no rows of values.
    #[error("FEATURES_URI")]
    Features(#[source] ValuesFault),
    /// Records of a model are no rows of values.
    #[error("ENDPOINT_ROWS=values, model {id}")]
    Values {
        /// The model's id.
        id: String,
        /// Why.
        #[source]
        source: ValuesFault,
    },
    /// The results' file can't be used.
    #[error("RESULTS_URI")]
    Results(#[source] JsonlError),
    /// The dead letters' file can't be used.
    #[error("DEAD_LETTERS_URI")]
    DeadLetters(#[source] JsonlError),
    /// The alerts' file can't be used.
    #[error("ALERTS_URI")]
    Alerts(#[source] JsonlError),
}

impl App {
    /// Loads the models and makes the clients that the configuration asks for. Nothing of AWS is
    /// touched if it names files only.
    ///
    /// # Errors
    /// [`StartError`] names the variable, the place and what is wrong with it.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let aws = Aws::new(config.s3_path_style);
        let retries = Retries::default();
        let period = Duration::from_secs(config.model_refresh_secs);
        let period = (!period.is_zero()).then_some(period);
        let store = async |uri| match uri {
            ModelUri::S3 { bucket, key } => {
                ModelStore::S3 { client: aws.s3().await.clone(), bucket, key }
            }
            ModelUri::File(path) => ModelStore::File(path),
        };
        let without_model = match config.features {
            Some(uri) if config.fallback.missing == Fallback::Endpoint => {
                Some(fetch_features(&store(uri).await).await?)
            }
            _ => None,
        };
        let models = Models::load(config.models, period, without_model, store).await?;
        let endpoint = match config.endpoint {
            Some(endpoint) => Some(Arc::new(Endpoint::new(aws.config().await, endpoint))),
            None => None,
        };
        if endpoint.as_ref().is_some_and(|it| it.config().rows == RowKind::Values) {
            for model in models.loaded() {
                let features = model.features();
                if let Err(source) = value_features(features.spec(), Some(features.fitted())) {
                    return Err(StartError::Values { id: model.id().to_owned(), source });
                }
            }
        }
        let ValidationConfig { share, capture } = config.validation;
        let validation = if share > 0.0 {
            let capture = match capture {
                Some(CaptureUri::S3(place)) => {
                    Some(Capture::S3 { client: aws.s3().await.clone(), place })
                }
                Some(CaptureUri::Folder(path)) => Some(Capture::Folder(path)),
                None => None,
            };
            let beside = endpoint.as_ref().map(|endpoint| endpoint.beside());
            Some(Arc::new(Validation::new(share, beside, capture, config.log_fields)))
        } else {
            None
        };
        let max_age = config.model_max_age_secs.map(Duration::from_secs);
        let trust = Trust::new(config.fallback, max_age, endpoint.as_deref());
        let alerts = match config.alerts {
            None => None,
            Some(uri) => {
                let sink = match uri {
                    AlertsUri::Sns { topic_arn, region } => {
                        let sns = aws_sdk_sns::config::Builder::from(aws.config().await);
                        let sns = sns.region(aws_sdk_sns::config::Region::new(region));
                        let sns = sns.interceptor(retries.clone()).build();
                        AlertsSink::Sns { client: aws_sdk_sns::Client::from_conf(sns), topic_arn }
                    }
                    AlertsUri::File(path) => {
                        AlertsSink::Jsonl(JsonlFile::open(&path).map_err(StartError::Alerts)?)
                    }
                };
                let ledger = match &config.results {
                    ResultsUri::DynamoDb { table } => {
                        Ledger::Table { client: aws.dynamodb(&retries).await, table: table.clone() }
                    }
                    ResultsUri::Nowhere | ResultsUri::File(_) => Ledger::memory(),
                };
                let cooldown = Duration::from_secs(config.alert_cooldown_secs);
                Some(Alerts::new(sink, ledger, config.alert_max_anomalies, cooldown))
            }
        };
        let results = match config.results {
            _ if config.results_kept == Kept::Nothing => ResultsSink::Nowhere,
            ResultsUri::Nowhere => ResultsSink::Nowhere,
            ResultsUri::DynamoDb { table } => {
                let client = aws.dynamodb(&retries).await;
                let table = DynamoDbResults::new(client, table, config.results_ttl_days);
                ResultsSink::DynamoDb(table.counting(retries.clone()))
            }
            ResultsUri::File(path) => {
                ResultsSink::Jsonl(JsonlFile::open(&path).map_err(StartError::Results)?)
            }
        };
        let dead_letter_queue = match &config.dead_letters {
            DeadLettersUri::Sqs { queue_url } => Queue::of_url(queue_url),
            DeadLettersUri::File(_) => None,
        };
        let dead_letters = match config.dead_letters {
            DeadLettersUri::Sqs { queue_url } => {
                let sqs = aws_sdk_sqs::config::Builder::from(aws.config().await);
                let sqs = sqs.interceptor(retries.clone()).build();
                let client = aws_sdk_sqs::Client::from_conf(sqs);
                let s3 = match config.dead_letters_s3 {
                    Some(place) => {
                        let payloads = S3Payloads::new(aws.s3().await.clone(), place);
                        Some(payloads.counting(retries.clone()))
                    }
                    None => None,
                };
                let queue = SqsDeadLetters::new(client, queue_url, s3);
                DeadLettersSink::Sqs(queue.counting(retries.clone()))
            }
            DeadLettersUri::File(path) => {
                DeadLettersSink::Jsonl(JsonlFile::open(&path).map_err(StartError::DeadLetters)?)
            }
        };
        Ok(Self {
            models,
            trust,
            endpoint,
            validation,
            results,
            results_kept: config.results_kept,
            dead_letters,
            alerts,
            dead_letter_queue,
            aws,
            retries,
            partial_batch: config.partial_batch,
            log_fields: config.log_fields,
            deadline_reserve: Duration::from_millis(config.deadline_reserve_ms),
        })
    }

    /// The model that the next records of a topic are scored with; `None` if `MODEL_URI` names none
    /// for it, or it is missing.
    pub fn model_for(&self, topic: &str) -> Option<Arc<Model>> {
        match self.held_for(topic)? {
            Held::Model { model, .. } => Some(model),
            Held::Missing { .. } => None,
        }
    }

    /// What the next records of a topic are read by; `None` if `MODEL_URI` names no model for it.
    pub(crate) fn held_for(&self, topic: &str) -> Option<Held> {
        self.models.of(topic)
    }

    /// The name of the endpoint, if there is one.
    pub(crate) fn endpoint_name(&self) -> Option<&str> {
        self.endpoint.as_ref().map(|endpoint| endpoint.config().name.as_str())
    }
}

/// The features of a specification, as rows of values.
async fn fetch_features(store: &ModelStore) -> Result<Features, StartError> {
    let text = fetch_text(store, MAX_SPEC_LEN).await.map_err(StartError::FeaturesStore)?;
    let spec = ValidSpec::from_toml(&text).map_err(StartError::Spec)?;
    value_features(&spec, None).map_err(StartError::Features)
}

/// The clients' settings and the clients that several have, each made when it is first asked for.
#[derive(Debug)]
pub struct Aws {
    config: OnceCell<SdkConfig>,
    s3: OnceCell<aws_sdk_s3::Client>,
    s3_path_style: bool,
}

impl Aws {
    /// Clients by the process's environment, as a function with this configuration has them. With
    /// `s3_path_style` the bucket is put in S3's path: see [`Config::s3_path_style`].
    pub fn new(s3_path_style: bool) -> Self {
        Self { config: OnceCell::new(), s3: OnceCell::new(), s3_path_style }
    }

    /// What all clients share: region, credentials, endpoints, time-outs and retries.
    pub async fn config(&self) -> &SdkConfig {
        self.config.get_or_init(load_aws).await
    }

    /// A client of DynamoDB whose tries are counted.
    async fn dynamodb(&self, retries: &Retries) -> aws_sdk_dynamodb::Client {
        let dynamodb = aws_sdk_dynamodb::config::Builder::from(self.config().await);
        let dynamodb = dynamodb.interceptor(retries.clone()).build();
        aws_sdk_dynamodb::Client::from_conf(dynamodb)
    }

    /// The client of S3.
    pub async fn s3(&self) -> &aws_sdk_s3::Client {
        self.s3
            .get_or_init(|| async {
                let s3 = aws_sdk_s3::config::Builder::from(self.config().await);
                aws_sdk_s3::Client::from_conf(s3.force_path_style(self.s3_path_style).build())
            })
            .await
    }
}

/// A client of S3 by the process's own environment: region, credentials and address.
pub async fn s3_client() -> aws_sdk_s3::Client {
    // A server of one's own has one name for all buckets.
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let path_style = is_set("AWS_ENDPOINT_URL_S3") || is_set("AWS_ENDPOINT_URL");
    Aws::new(path_style).s3().await.clone()
}

pub(crate) async fn load_aws() -> SdkConfig {
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
