//! A request to its answer.
//!
//! What requests may hold of memory, all together: [`MAX_HELD`] for bodies that arrive and answers that
//! leave, counted as they come, so that a slow sender holds what it has sent and no more; and for each
//! thread that scores, the points and scores of one request. A request for which nothing is left is
//! answered at once with 503.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use hyper::header::{
    ACCEPT, CONTENT_ENCODING, CONTENT_TYPE, EXPECT, HeaderMap, HeaderName, HeaderValue,
};
use hyper::{Method, Request};
use ndarray::{Array1, ArrayView2};
use sawlog_lambda::content::{self, ContentType, MAX_BODY_LEN, RowKind};
use sawlog_model::Model;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::answer::{self, Answer, Caller, Failure};
use crate::describe::grouped;

/// Bytes of bodies and answers at any one time: some twenty of the longest.
const MAX_HELD: usize = 128 << 20;
/// A body that is too long is read to its end up to this length, and forgotten: a client that is still
/// sending when it is answered takes the closed connection for the answer.
const MAX_DRAINED: u64 = 32 << 20;
/// Longest name of an endpoint.
const MAX_NAME_LEN: usize = 63;

const TARGET_VARIANT: HeaderName = HeaderName::from_static("x-amzn-sagemaker-target-variant");
/// SageMaker's name for an endpoint's only variant.
const ONLY_VARIANT: HeaderValue = HeaderValue::from_static("AllTraffic");

/// A model and what its requests share.
#[derive(Debug)]
pub(super) struct Service {
    model: Model,
    rows: RowKind,
    timeout: Duration,
    delay: Duration,
    /// A permit a byte.
    held: Arc<Semaphore>,
    /// A permit a core: more threads would make all of them slower.
    scorers: Arc<Semaphore>,
    answered: AtomicU64,
    refused: AtomicU64,
    scored: AtomicU64,
}

/// How many requests there were so far.
#[derive(Debug)]
pub(super) struct Counts {
    answered: u64,
    refused: u64,
    scored: u64,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [answered, refused, scored] = [self.answered, self.refused, self.scored].map(grouped);
        write!(f, "{answered} requests answered, {refused} refused; {scored} rows scored")
    }
}

/// What is asked.
enum Asked {
    Ping,
    Scores,
}

impl Service {
    pub(super) fn new(model: Model, rows: RowKind, timeout: Duration, delay: Duration) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            model,
            rows,
            timeout,
            delay,
            held: Arc::new(Semaphore::new(MAX_HELD)),
            scorers: Arc::new(Semaphore::new(cores)),
            answered: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            scored: AtomicU64::new(0),
        }
    }

    pub(super) fn counts(&self) -> Counts {
        let [answered, refused, scored] = [&self.answered, &self.refused, &self.scored]
            .map(|count| count.load(Ordering::Relaxed));
        Counts { answered, refused, scored }
    }

    /// Answers a request, whatever it is.
    pub(super) async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Answer {
        let (caller, asked) = asked(&request);
        let answered = match asked {
            Ok(Asked::Ping) => return answer::pong(),
            Ok(Asked::Scores) => self.scores(request, &caller).await,
            Err(failure) => Err(failure),
        };
        let count = if answered.is_ok() { &self.answered } else { &self.refused };
        count.fetch_add(1, Ordering::Relaxed);
        answered.unwrap_or_else(|failure| failure.answer(&caller))
    }

    async fn scores(
        self: &Arc<Self>,
        request: Request<Incoming>,
        caller: &Caller,
    ) -> Result<Answer, Failure> {
        let headers = request.headers();
        let header = |name| header(headers, name);
        if !matches!(header(CONTENT_ENCODING), Some("" | "identity")) {
            return Err(Failure::Encoding);
        }
        let content_type = header(CONTENT_TYPE).and_then(ContentType::of_header);
        let content_type = content_type.ok_or(Failure::ContentType)?;
        let accepted = header(ACCEPT).and_then(ContentType::accepted).ok_or(Failure::Accept)?;
        let body = tokio::time::timeout(self.timeout, self.body(request));
        let (body, held) = body.await.map_err(|_| Failure::Slow)??;
        let permit = Arc::clone(&self.scorers).acquire_owned().await;
        let service = Arc::clone(self);
        let scored = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let _held = held;
            service.score(content_type, &body, accepted)
        });
        // A panic ends the request, not the service.
        let bytes = scored.await.map_err(|_| Failure::Internal)??;
        let held = self.hold(bytes.len())?;
        tokio::time::sleep(self.delay).await;
        Ok(answer::scores(accepted, bytes, held, caller))
    }

    /// Takes the body in.
    async fn body(
        &self,
        request: Request<Incoming>,
    ) -> Result<(Vec<u8>, OwnedSemaphorePermit), Failure> {
        let waits_for_leave = request.headers().contains_key(EXPECT);
        let mut body = request.into_body();
        let announced = body.size_hint().lower();
        let is_too_long = |len: u64| len > MAX_BODY_LEN as u64;
        if announced > MAX_DRAINED || waits_for_leave && is_too_long(announced) {
            return Err(Failure::TooLong);
        }
        let mut held = self.hold(0)?;
        let mut bytes = Vec::new();
        let mut len = 0;
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|_| Failure::BrokenOff)?.into_data() else { continue };
            len += data.len() as u64;
            if is_too_long(len) {
                (held, bytes) = (self.hold(0)?, Vec::new());
                if len > MAX_DRAINED {
                    return Err(Failure::TooLong);
                }
            } else {
                held.merge(self.hold(data.len())?);
                bytes.extend_from_slice(&data);
            }
        }
        if is_too_long(len) { Err(Failure::TooLong) } else { Ok((bytes, held)) }
    }

    fn hold(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Failure> {
        let bytes = u32::try_from(bytes).map_err(|_| Failure::Busy)?;
        Arc::clone(&self.held).try_acquire_many_owned(bytes).map_err(|_| Failure::Busy)
    }

    fn score(&self, of: ContentType, body: &[u8], to: ContentType) -> Result<Vec<u8>, Failure> {
        let points = content::points(of, body, self.rows, self.model.features())?;
        let dimensions = self.model.features().dimensions();
        let points = ArrayView2::from_shape((points.len() / dimensions, dimensions), &points)
            .map_err(|_| Failure::Internal)?;
        let mut scores = Array1::zeros(points.nrows());
        self.model
            .forest()
            .score_batch(points, scores.view_mut())
            .map_err(|_| Failure::Internal)?;
        if !scores.iter().all(|score| score.is_finite()) {
            return Err(Failure::Internal);
        }
        self.scored.fetch_add(scores.len() as u64, Ordering::Relaxed);
        Ok(content::answer(to, &scores.to_vec()))
    }
}

/// Who asks for what.
fn asked(request: &Request<Incoming>) -> (Caller, Result<Asked, Failure>) {
    let is = |method| request.method() == method;
    let scores = || {
        if is(Method::POST) { Ok(Asked::Scores) } else { Err(Failure::Method { allowed: "POST" }) }
    };
    let path = request.uri().path();
    let endpoint =
        path.strip_prefix("/endpoints/").and_then(|rest| rest.strip_suffix("/invocations"));
    match (path, endpoint) {
        ("/ping", _) if is(Method::GET) => (Caller::Platform, Ok(Asked::Ping)),
        ("/ping", _) => (Caller::Platform, Err(Failure::Method { allowed: "GET" })),
        ("/invocations", _) => (Caller::Platform, scores()),
        (_, Some(name)) => {
            let variant = request.headers().get(TARGET_VARIANT).cloned().unwrap_or(ONLY_VARIANT);
            let is_letter = |c: u8| c.is_ascii_alphanumeric() || c == b'-';
            let is_name = (1..=MAX_NAME_LEN).contains(&name.len()) && name.bytes().all(is_letter);
            let asked = if is_name { scores() } else { Err(Failure::EndpointName) };
            (Caller::Client { variant }, asked)
        }
        _ => (Caller::Platform, Err(Failure::NotFound)),
    }
}

/// The value of a header: empty if it is not there, `None` if it is no text.
fn header(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name).map_or(Some(""), |value| value.to_str().ok())
}
