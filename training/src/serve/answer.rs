//! What is answered: scores, or what is wrong with a request; in the container's words, or in those
//! in which SageMaker's service passes them on.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use sawlog_lambda::content::{ContentError, ContentType, MAX_BODY_LEN};
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;

pub(super) type Answer = Response<Full<Bytes>>;

const VARIANT: HeaderName = HeaderName::from_static("x-amzn-invoked-production-variant");
const ERROR_TYPE: HeaderName = HeaderName::from_static("x-amzn-errortype");

/// Who is answered.
#[derive(Debug, Clone)]
pub(super) enum Caller {
    /// SageMaker, of whose containers this is one.
    Platform,
    /// A client of SageMaker, which is told of this variant.
    Client { variant: HeaderValue },
}

/// Why a request has no scores.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(
        "answered are GET /ping, POST /invocations and POST /endpoints/NAME/invocations, nothing else"
    )]
    NotFound,
    #[error("only {allowed} is answered here")]
    Method { allowed: &'static str },
    #[error("the name of an endpoint is 1 to 63 letters, digits and hyphens")]
    EndpointName,
    #[error("the Content-Type is none of {}", names())]
    ContentType,
    #[error("a Content-Encoding is not taken; send the body as it is")]
    Encoding,
    #[error("the Accept header takes none of {}", names())]
    Accept,
    #[error("the body is longer than {MAX_BODY_LEN} bytes; send fewer rows at once")]
    TooLong,
    #[error("the body was too slow to arrive")]
    Slow,
    #[error("the body broke off")]
    BrokenOff,
    #[error("too much is being answered at once; try again")]
    Busy,
    #[error(transparent)]
    Content(#[from] ContentError),
    #[error("the rows can't be scored")]
    Internal,
}

fn names() -> String {
    ContentType::ALL.map(ContentType::name).join(", ")
}

impl Failure {
    /// As a container answers it.
    fn status(&self) -> StatusCode {
        match self {
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Method { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::ContentType | Self::Encoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Accept => StatusCode::NOT_ACCEPTABLE,
            Self::Slow => StatusCode::REQUEST_TIMEOUT,
            Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::TooLong
            | Self::Content(ContentError::TooManyRows | ContentError::TooManyCoordinates) => {
                StatusCode::PAYLOAD_TOO_LARGE
            }
            Self::EndpointName | Self::BrokenOff | Self::Content(_) => StatusCode::BAD_REQUEST,
        }
    }

    pub(super) fn answer(&self, caller: &Caller) -> Answer {
        let said = self.to_string();
        let status = self.status();
        match (caller, self) {
            // What SageMaker itself refuses, before a container hears of it.
            (Caller::Client { .. }, Self::EndpointName) => typed(status, "ValidationError", &said),
            (Caller::Client { .. }, Self::Busy) => typed(status, "ServiceUnavailable", &said),
            // The container's words, passed on.
            (
                Caller::Client { .. },
                Self::ContentType
                | Self::Encoding
                | Self::Accept
                | Self::Content(_)
                | Self::Internal,
            ) => {
                let kind = if status.is_server_error() { "server" } else { "client" };
                let code = status.as_u16();
                let body = json!({
                    "Message": format!("Received {kind} error ({code}) from model: {said}"),
                    "OriginalStatusCode": code,
                    "OriginalMessage": said,
                });
                let mut answer = json_answer(StatusCode::FAILED_DEPENDENCY, &body);
                answer.headers_mut().insert(ERROR_TYPE, HeaderValue::from_static("ModelError"));
                answer
            }
            _ => {
                let mut answer = json_answer(status, &json!({ "error": said }));
                if let Self::Method { allowed } = self {
                    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
                }
                answer
            }
        }
    }
}

/// An error of SageMaker's service, by the name that its clients know.
fn typed(status: StatusCode, name: &'static str, said: &str) -> Answer {
    let mut answer = json_answer(status, &json!({ "Message": said }));
    answer.headers_mut().insert(ERROR_TYPE, HeaderValue::from_static(name));
    answer
}

fn json_answer(status: StatusCode, body: &serde_json::Value) -> Answer {
    let mut answer = Response::new(Full::from(body.to_string()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

/// Nothing, and that is well.
pub(super) fn pong() -> Answer {
    Response::new(Full::default())
}

/// Scores, whose bytes count as held until they are sent.
pub(super) fn scores(
    content_type: ContentType,
    bytes: Vec<u8>,
    held: OwnedSemaphorePermit,
    caller: &Caller,
) -> Answer {
    struct Held {
        bytes: Vec<u8>,
        _held: OwnedSemaphorePermit,
    }
    impl AsRef<[u8]> for Held {
        fn as_ref(&self) -> &[u8] {
            &self.bytes
        }
    }
    let body = Bytes::from_owner(Held { bytes, _held: held });
    let mut answer = Response::new(Full::new(body));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type.name()));
    if let Caller::Client { variant } = caller {
        headers.insert(VARIANT, variant.clone());
    }
    answer
}
