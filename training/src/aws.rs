//! What AWS says, in plain words: whoever runs a command is told first what is the case, and then, if it helps,
//! the SDK's own text, which often names neither the service nor the address that was tried.

use std::error::Error;

use aws_sdk_s3::Client;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use sawlog_lambda::handler::{chain, status_of};
use sawlog_lambda::model_store::ModelFault;

/// What AWS's clients read their addresses from, for all services and, with a service's name behind it, for one.
pub(crate) const ENDPOINT_URL: &str = "AWS_ENDPOINT_URL";

/// Layers of a connection's error that say nothing.
const LAYERS: [&str; 3] = ["dispatch failure", "io error", "client error"];

/// A service that is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Service {
    /// Objects.
    S3,
    /// Tables.
    DynamoDb,
    /// Queues.
    Sqs,
    /// Topics.
    Sns,
    /// Endpoints that score.
    SageMaker,
}

impl Service {
    /// Its name, and its address if it is not AWS's own: `S3 at http://127.0.0.1:9000`.
    pub(crate) fn place(self) -> String {
        self.place_by(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn place_by(self, get: impl Fn(&str) -> Option<String>) -> String {
        let (name, id) = match self {
            Self::S3 => ("S3", "S3"),
            Self::DynamoDb => ("DynamoDB", "DYNAMODB"),
            Self::Sqs => ("SQS", "SQS"),
            Self::Sns => ("SNS", "SNS"),
            Self::SageMaker => ("SageMaker", "SAGEMAKER_RUNTIME"),
        };
        match get(&format!("{ENDPOINT_URL}_{id}")).or_else(|| get(ENDPOINT_URL)) {
            Some(url) => format!("{name} at {url}"),
            None => name.to_owned(),
        }
    }
}

/// That a service can't be reached, where it was tried and why; `None` for any other error.
pub(crate) fn unreached<E: Error + 'static>(
    service: Service,
    error: &SdkError<E>,
) -> Option<String> {
    match error {
        SdkError::DispatchFailure(failure) if failure.is_io() || failure.is_timeout() => {
            Some(format!("{} can't be reached: {}", service.place(), causes(error)))
        }
        SdkError::TimeoutError(_) => Some(format!("{} gave no answer in time", service.place())),
        _ => None,
    }
}

/// The error's causes without the layers that all have.
fn causes(error: &(dyn Error + 'static)) -> String {
    let (mut said, mut next) = (Vec::new(), Some(error));
    while let Some(error) = next {
        said.push(error.to_string());
        next = error.source();
    }
    said.retain(|said| !LAYERS.iter().any(|layer| said.starts_with(layer)));
    if said.is_empty() { chain(error) } else { said.join(": ") }
}

/// What S3 says of a bucket or what is in it, if there are plain words for it: there is no region, no such
/// bucket, or no way there.
pub(crate) fn plain<E>(client: &Client, bucket: &str, error: &SdkError<E>) -> Option<String>
where
    E: Error + ProvideErrorMetadata + 'static,
{
    if client.config().region().is_none() {
        return Some("there is no AWS region: set AWS_REGION".to_owned());
    }
    if error.code() == Some("NoSuchBucket") {
        let status = status_of(error);
        return Some(format!("there is no bucket {bucket}: NoSuchBucket{status}"));
    }
    unreached(Service::S3, error)
}

/// Why a model in a bucket can't be had.
pub(crate) fn model_fault(client: &Client, bucket: &str, fault: &ModelFault) -> String {
    match fault {
        ModelFault::Get(error) => plain(client, bucket, error).unwrap_or_else(|| chain(fault)),
        ModelFault::Pointed { uri, fault } => {
            format!("points to {uri}: {}", model_fault(client, bucket, fault))
        }
        fault => chain(fault),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_named_with_the_address_of_its_own_or_of_all() {
        let get = |name: &str| match name {
            "AWS_ENDPOINT_URL" => Some("http://all".to_owned()),
            "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME" => Some("http://one".to_owned()),
            _ => None,
        };
        assert_eq!(Service::SageMaker.place_by(get), "SageMaker at http://one");
        assert_eq!(Service::DynamoDb.place_by(get), "DynamoDB at http://all");
        assert_eq!(Service::Sqs.place_by(|_| None), "SQS");
    }
}
