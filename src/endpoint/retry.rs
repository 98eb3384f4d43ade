//! What is done about a call that failed: one decision, which the SDK's retries and the circuit
//! breaker both follow.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_sagemakerruntime::config::interceptors::InterceptorContext;
use aws_sdk_sagemakerruntime::config::retry::{ClassifyRetry, RetryAction};
use aws_sdk_sagemakerruntime::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_sagemakerruntime::operation::invoke_endpoint::InvokeEndpointError;
use aws_smithy_runtime_api::client::retries::classifiers::RetryClassifierPriority;
use aws_smithy_types::retry::ErrorKind;

use super::pace::Pace;

/// Codes by which AWS says "too fast", whatever the service.
const THROTTLING: [&str; 5] = [
    "ThrottlingException",
    "Throttling",
    "TooManyRequestsException",
    "RequestLimitExceeded",
    "SlowDown",
];

/// What is done about a call that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// It is made again, not sooner than the endpoint asks for.
    After(Option<Duration>),
    /// Its rows are given up: the endpoint works and won't have them.
    GiveUpChunk,
    /// The endpoint is given up for now: no call will fare better.
    GiveUpEndpoint,
}

/// How an endpoint refused a call. Its message is left out: containers quote what they were sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP's status.
    pub status: u16,
    /// AWS's code, if it gives one.
    pub code: Option<String>,
    /// For a ModelError, the status that the container answered.
    pub original_status: Option<i32>,
}

impl Refusal {
    pub(super) fn new(status: u16, error: &InvokeEndpointError) -> Self {
        let original_status = match error {
            InvokeEndpointError::ModelError(error) => error.original_status_code,
            _ => None,
        };
        // Raw bodies of gateways have no code; a ModelError may come without its name.
        Self { status, code: error.code().map(str::to_owned), original_status }
    }

    /// What is done about it, given how long the endpoint asks to wait.
    pub fn retry(&self, asked: Option<Duration>) -> Retry {
        let code = self.code.as_deref().unwrap_or_default();
        match self.status {
            _ if THROTTLING.contains(&code) => Retry::After(asked),
            424 if self.original_status.is_some_and(|status| (400..500).contains(&status)) => {
                Retry::GiveUpChunk
            }
            424 | 429 | 500 | 502..=504 | 530 => Retry::After(asked),
            400 | 413 => Retry::GiveUpChunk,
            // Not allowed, not there, or no endpoint at all.
            _ => Retry::GiveUpEndpoint,
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.status)?;
        if let Some(code) = &self.code {
            write!(f, " {code}")?;
        }
        match self.original_status {
            Some(status) => write!(f, ", its container {status}"),
            None => Ok(()),
        }
    }
}

/// What is done about a call that was not answered at all.
pub(super) fn unanswered(error: &SdkError<InvokeEndpointError>) -> Retry {
    match error {
        SdkError::TimeoutError(_) | SdkError::ResponseError(_) => Retry::After(None),
        SdkError::DispatchFailure(failure) if failure.is_timeout() || failure.is_io() => {
            Retry::After(None)
        }
        // No credentials, a name that can't be resolved to a url, a request that can't be made.
        _ => Retry::GiveUpEndpoint,
    }
}

/// Tells the SDK what to do about what the endpoint answered; what isn't answered it retries itself.
#[derive(Debug)]
pub(super) struct Classifier {
    pub(super) pace: Arc<Pace>,
}

impl ClassifyRetry for Classifier {
    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        let Some(Err(error)) = context.output_or_error() else {
            return RetryAction::NoActionIndicated;
        };
        let refused = error.as_operation_error();
        let refused = refused.and_then(|error| error.downcast_ref::<InvokeEndpointError>());
        let (Some(response), Some(error)) = (context.response(), refused) else {
            // A time-out or a broken connection: the SDK tries it again.
            self.pace.take();
            return RetryAction::NoActionIndicated;
        };
        let asked = response.headers().get("retry-after").and_then(|secs| secs.parse().ok());
        let refusal = Refusal::new(response.status().as_u16(), error);
        match refusal.retry(asked.map(Duration::from_secs)) {
            Retry::GiveUpChunk | Retry::GiveUpEndpoint => RetryAction::RetryForbidden,
            Retry::After(asked) => {
                self.pace.take();
                let kind = match refusal.status {
                    429 => ErrorKind::ThrottlingError,
                    _ => ErrorKind::ServerError,
                };
                match asked {
                    Some(delay) => RetryAction::retryable_error_with_explicit_delay(kind, delay),
                    None => RetryAction::retryable_error(kind),
                }
            }
        }
    }

    fn name(&self) -> &'static str {
        "what SageMaker's contract says of each status"
    }

    fn priority(&self) -> RetryClassifierPriority {
        // The last word, since it alone reads the container's status and what the endpoint asks for.
        RetryClassifierPriority::run_after(RetryClassifierPriority::transient_error_classifier())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_of_the_contract_has_its_decision() {
        let wait = Some(Duration::from_secs(2));
        let (after, chunk, endpoint) =
            (Retry::After(wait), Retry::GiveUpChunk, Retry::GiveUpEndpoint);
        for (status, code, original_status, expected) in [
            (429, Some("ModelNotReadyException"), None, after),
            (429, None, None, after),
            (500, Some("InternalFailure"), None, after),
            (503, Some("ServiceUnavailable"), None, after),
            (530, Some("InternalDependencyException"), None, after),
            (400, Some("ThrottlingException"), None, after),
            (424, Some("ModelError"), Some(500), after),
            (424, Some("ModelError"), Some(503), after),
            (424, Some("ModelError"), None, after),
            (424, Some("ModelError"), Some(400), chunk),
            (424, Some("ModelError"), Some(413), chunk),
            (400, Some("ValidationError"), None, chunk),
            (413, None, None, chunk),
            (403, Some("AccessDeniedException"), None, endpoint),
            (404, None, None, endpoint),
            (301, None, None, endpoint),
        ] {
            let refusal = Refusal { status, code: code.map(str::to_owned), original_status };
            assert_eq!(refusal.retry(wait), expected, "{refusal}");
        }
    }

    #[test]
    fn a_refusal_is_said_in_a_few_words() {
        let refusal =
            Refusal { status: 424, code: Some("ModelError".into()), original_status: Some(500) };
        assert_eq!(refusal.to_string(), "424 ModelError, its container 500");
        assert_eq!(Refusal { status: 413, code: None, original_status: None }.to_string(), "413");
    }
}
