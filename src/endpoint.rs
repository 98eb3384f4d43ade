//! A SageMaker endpoint, asked for scores.
//!
//! It is for the times when the local model can't be trusted, and for comparing the two; never for
//! the everyday. What goes there is a row of numbers a record; what comes back is a score a row, or
//! why there is none, in the rows' order.
//!
//! - `rows` puts rows into requests of a bounded size, of which a bounded number is under way.
//! - `values` makes rows of records' own values, where points won't do.
//! - `answer` reads what comes back, and refuses what isn't one finite score a row.
//! - `retry` decides what is done about a call that failed.
//! - `breaker` leaves an endpoint alone that failed again and again.
//! - `pace` limits the calls a second.
//!
//! The address is the region's own unless `AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME` names another.

mod answer;
mod breaker;
mod pace;
mod retry;
mod rows;
mod values;

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use aws_config::SdkConfig;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_sagemakerruntime::Client;
use aws_sdk_sagemakerruntime::config::interceptors::BeforeDeserializationInterceptorContextMut;
use aws_sdk_sagemakerruntime::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_sagemakerruntime::error::{BoxError, SdkError};
use aws_sdk_sagemakerruntime::operation::invoke_endpoint::InvokeEndpointError;
use aws_sdk_sagemakerruntime::primitives::Blob;
use aws_smithy_types::body::SdkBody;
use futures_util::{StreamExt as _, stream};
use http_body_util::Limited;
use ndarray::ArrayView2;

use crate::config::EndpointConfig;
use crate::deadline::Until;

pub use answer::AnswerFault;
pub use breaker::BreakerState;
pub use retry::{Refusal, Retry};
pub use values::{ValuesFault, value_features};

use breaker::Breaker;
use pace::Pace;
use retry::{Classifier, unanswered};
use rows::{Chunk, chunks};

/// A connection within a region stands in milliseconds; after two seconds it won't.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Tries of a call.
const MAX_ATTEMPTS: u32 = 3;
/// Longest pause before the second try; it doubles for the third.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Most bytes of an answer: SageMaker's own limit.
const MAX_ANSWER_BYTES: usize = 6 << 20;
/// Most characters of an inference id.
const MAX_ID_CHARS: usize = 64;

/// An endpoint. One serves any number of batches at the same time.
#[derive(Debug)]
pub struct Endpoint {
    client: Client,
    config: EndpointConfig,
    breaker: Breaker,
    pace: Arc<Pace>,
    calls: AtomicU64,
    failed: AtomicU64,
    not_asked: AtomicU64,
}

/// What became of calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EndpointCounts {
    /// Calls that were made, each with its retries.
    pub calls: u64,
    /// Those of them that gave no scores.
    pub failed: u64,
    /// Calls that were not made, since the circuit breaker was open.
    pub not_asked: u64,
}

/// Why a row has no score from the endpoint. Quotes nothing of the row or of the answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EndpointFault {
    /// The time was over before it was asked, or before it answered.
    #[error("the endpoint had no time left to answer")]
    OutOfTime,
    /// The circuit breaker is open.
    #[error("the endpoint failed shortly before, and is not asked for {cooldown_secs} s")]
    NotAsked {
        /// How long it isn't.
        cooldown_secs: u64,
    },
    /// A number that can't be sent.
    #[error("a number in its row is not finite")]
    NotFinite,
    /// No request has room for it.
    #[error("its row has {bytes} bytes; ENDPOINT_MAX_BYTES is {limit}")]
    RowTooLong {
        /// Its length.
        bytes: usize,
        /// The greatest length.
        limit: usize,
    },
    /// Records of these features can't be sent as the endpoint's rows.
    #[error(transparent)]
    Values(#[from] ValuesFault),
    /// It answered that it won't, or can't.
    #[error("the endpoint answered {0}")]
    Refused(Refusal),
    /// It can't be reached, or broke off.
    #[error("the endpoint gave no answer")]
    Unanswered(#[source] Arc<SdkError<InvokeEndpointError>>),
    /// It answered something else than scores.
    #[error("the endpoint's answer can't be used")]
    Answer(#[from] AnswerFault),
}

impl EndpointFault {
    /// What is done about it; `None` if no call was made.
    pub fn retry(&self) -> Option<Retry> {
        match self {
            Self::NotAsked { .. } | Self::NotFinite | Self::RowTooLong { .. } | Self::Values(_) => {
                None
            }
            Self::OutOfTime => Some(Retry::After(None)),
            Self::Refused(refusal) => Some(refusal.retry(None)),
            Self::Unanswered(error) => Some(unanswered(error)),
            Self::Answer(_) => Some(Retry::GiveUpChunk),
        }
    }
}

impl Endpoint {
    /// An endpoint by the settings of all clients.
    pub fn new(aws: &SdkConfig, config: EndpointConfig) -> Self {
        let pace = Arc::new(Pace::new(config.calls_per_sec));
        // A call has no time-out of its own: its tries are counted, and the invocation's deadline
        // ends it.
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .operation_attempt_timeout(Duration::from_millis(config.timeout_ms))
            .disable_operation_timeout()
            .build();
        let retries = RetryConfig::standard()
            .with_max_attempts(MAX_ATTEMPTS)
            .with_initial_backoff(FIRST_PAUSE);
        let sagemaker = aws_sdk_sagemakerruntime::config::Builder::from(aws)
            .timeout_config(timeouts)
            .retry_config(retries)
            .retry_classifier(Classifier { pace: Arc::clone(&pace) })
            .interceptor(LimitAnswer);
        Self {
            client: Client::from_conf(sagemaker.build()),
            breaker: Breaker::new(Duration::from_secs(config.cooldown_secs)),
            config,
            pace,
            calls: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            not_asked: AtomicU64::new(0),
        }
    }

    /// The same endpoint for other purposes: its calls are counted apart and have a circuit breaker of
    /// their own; the limit on calls a second is shared.
    pub fn beside(&self) -> Self {
        Self {
            client: self.client.clone(),
            breaker: Breaker::new(Duration::from_secs(self.config.cooldown_secs)),
            config: self.config.clone(),
            pace: Arc::clone(&self.pace),
            calls: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            not_asked: AtomicU64::new(0),
        }
    }

    /// An endpoint by the process's own environment: region, credentials and address.
    pub async fn connect(config: EndpointConfig) -> Self {
        Self::new(&crate::app::load_aws().await, config)
    }

    /// What the endpoint was configured as.
    pub fn config(&self) -> &EndpointConfig {
        &self.config
    }

    /// Whether the endpoint is called at present.
    pub fn breaker(&self) -> BreakerState {
        self.breaker.state()
    }

    /// What became of the calls since this was last asked.
    pub fn take_counts(&self) -> EndpointCounts {
        let take = |counter: &AtomicU64| counter.swap(0, Ordering::Relaxed);
        EndpointCounts {
            calls: take(&self.calls),
            failed: take(&self.failed),
            not_asked: take(&self.not_asked),
        }
    }

    /// Asks for the scores of rows, of shape (records, numbers a record). There is one answer a row,
    /// in their order. `batch` is what the batch is called: with the number of the call, it is what
    /// SageMaker knows each call by (its InferenceId).
    ///
    /// A score is finite. Nothing is said of its scale.
    pub async fn scores(
        &self,
        rows: ArrayView2<'_, f32>,
        batch: &str,
        until: Until,
    ) -> Vec<Result<f32, EndpointFault>> {
        let EndpointConfig { format, chunk_rows, max_bytes, in_flight, .. } = self.config;
        let mut scores = vec![Err(EndpointFault::OutOfTime); rows.nrows()];
        let mut take = |(rows, answer): (std::ops::Range<usize>, Answer)| match answer {
            Ok(answer) => rows.zip(answer).for_each(|(row, score)| scores[row] = Ok(score)),
            Err(fault) => rows.for_each(|row| scores[row] = Err(fault.clone())),
        };
        let mut chunks = chunks(rows, format, chunk_rows, max_bytes);
        // One call finds out whether the endpoint is back; the others wait for what it finds.
        if self.breaker.state() != BreakerState::Closed {
            for chunk in chunks.by_ref().take(1) {
                take(self.call(chunk, batch, until).await);
            }
        }
        let calls = chunks.map(|chunk| self.call(chunk, batch, until));
        let mut answers = pin!(stream::iter(calls).buffer_unordered(in_flight));
        while let Some(answer) = answers.next().await {
            take(answer);
        }
        scores
    }

    async fn call(
        &self,
        chunk: Chunk,
        batch: &str,
        until: Until,
    ) -> (std::ops::Range<usize>, Answer) {
        let Chunk { index, rows, body } = chunk;
        let answer = match body {
            Ok(body) => self.invoke(body, rows.len(), inference_id(batch, index), until).await,
            Err(fault) => Err(fault),
        };
        (rows, answer)
    }

    /// Makes a call when the breaker and the pace allow it.
    async fn invoke(&self, body: Vec<u8>, rows: usize, id: String, until: Until) -> Answer {
        let cooldown_secs = self.config.cooldown_secs;
        if self.breaker.state() == BreakerState::Closed && self.pace.wait(until).await.is_none() {
            return Err(EndpointFault::OutOfTime);
        }
        let Some(permit) = self.breaker.admit() else {
            self.not_asked.fetch_add(1, Ordering::Relaxed);
            return Err(EndpointFault::NotAsked { cooldown_secs });
        };
        if until.is_over() {
            return Err(EndpointFault::OutOfTime);
        }
        self.calls.fetch_add(1, Ordering::Relaxed);
        let started = Instant::now();
        let answer = until.limit(self.ask(body, rows, id)).await;
        let answer = answer.unwrap_or(Err(EndpointFault::OutOfTime));
        match &answer {
            Ok(_) => permit.answered(),
            Err(fault) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(
                    reason = crate::handler::chain(fault),
                    ms = crate::metrics::ms(started.elapsed()),
                    rows,
                    "the endpoint gave no scores"
                );
                match (fault, fault.retry()) {
                    // An endpoint that answers nonsense is no better than one that is down.
                    (EndpointFault::Answer(_), _) => permit.failed(),
                    (_, Some(Retry::GiveUpEndpoint)) => permit.refused(),
                    (_, Some(Retry::GiveUpChunk)) => permit.answered(),
                    (_, Some(Retry::After(_)) | None) => permit.failed(),
                }
            }
        }
        answer
    }

    async fn ask(&self, body: Vec<u8>, rows: usize, id: String) -> Answer {
        let EndpointConfig { name, variant, format, .. } = &self.config;
        let call = self
            .client
            .invoke_endpoint()
            .endpoint_name(name)
            .set_target_variant(variant.clone())
            .content_type(format.content_type())
            // All containers of the algorithm answer JSON; CSV some leave out.
            .accept("application/json")
            .inference_id(id)
            .body(Blob::new(body));
        match call.send().await {
            Ok(output) => {
                let body = output.body.map(Blob::into_inner).unwrap_or_default();
                Ok(answer::scores(&body, rows)?)
            }
            Err(SdkError::ServiceError(refused)) => {
                let status = refused.raw().status().as_u16();
                Err(EndpointFault::Refused(Refusal::new(status, refused.err())))
            }
            Err(error) => Err(EndpointFault::Unanswered(Arc::new(error))),
        }
    }
}

type Answer = Result<Vec<f32>, EndpointFault>;

/// The batch's name with the call's number, in the characters and the length that SageMaker takes.
fn inference_id(batch: &str, index: usize) -> String {
    let number = format!("-{index}");
    let batch = batch.chars().filter(char::is_ascii_graphic).take(MAX_ID_CHARS - number.len());
    batch.chain(number.chars()).collect()
}

/// Ends an answer that is longer than any can be, before it is in memory.
#[derive(Debug)]
struct LimitAnswer;

impl Intercept for LimitAnswer {
    fn name(&self) -> &'static str {
        "LimitAnswer"
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let response = context.response_mut();
        let limited = Limited::new(response.take_body(), MAX_ANSWER_BYTES);
        *response.body_mut() = SdkBody::from_body_1_x(limited);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
