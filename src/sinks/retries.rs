//! How often the sinks had to make a call again, whoever did: the SDK one that failed as a whole, a sink
//! one that went through and left something undone. In a metric it says that a table or a queue is too
//! small, or ill, before anything fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_sdk_dynamodb::config::interceptors::BeforeTransmitInterceptorContextRef;
use aws_sdk_dynamodb::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_dynamodb::error::BoxError;
use aws_smithy_runtime_api::client::retries::RequestAttempts;

/// A count that all of a function's sinks share. As an interceptor of a client it counts the SDK's tries
/// of a call beyond the first.
#[derive(Debug, Clone, Default)]
pub struct Retries(Arc<AtomicUsize>);

impl Retries {
    /// One call is made again.
    pub fn count(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How many there were since this was asked last. Of invocations at the same time, one is told of
    /// the other's.
    pub fn take(&self) -> usize {
        self.0.swap(0, Ordering::Relaxed)
    }
}

impl Intercept for Retries {
    fn name(&self) -> &'static str {
        "Retries"
    }

    fn read_before_attempt(
        &self,
        _: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let attempts = config.load::<RequestAttempts>().map_or(1, RequestAttempts::attempts);
        if attempts > 1 {
            self.count();
        }
        Ok(())
    }
}
