//! Where verdicts, dead letters and alerts go.
//!
//! Every sink is given a batch and answers entry by entry: written for good, or why not. Writes are
//! keyed by the record's identity, so writing one again changes nothing. (SQS has no such keys: a
//! dead letter may come twice, with the same `id` in it.)
//!
//! The AWS SDK retries calls that fail as a whole. What is retried here is only what a call that
//! went through says it did not do: unprocessed items, failed entries.

pub mod alerts;
pub mod dynamodb;
pub mod jsonl;
pub mod retries;
pub mod s3;
pub mod sqs;

use std::borrow::Cow;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_dynamodb::operation::batch_write_item::BatchWriteItemError;
use aws_sdk_s3::operation::put_object::PutObjectError;
use aws_sdk_sns::operation::publish::PublishError;
use aws_sdk_sqs::operation::send_message_batch::SendMessageBatchError;
use aws_sdk_sqs::{error::BuildError, error::SdkError};
use futures_util::{StreamExt as _, stream};
use serde::Serialize;

use crate::deadline::Until;
use crate::handler::status_of;
use crate::origin::Origin;
use crate::summary::Summary;
use crate::verdict::Verdict;

/// Calls of one sink at the same time: 10,000 items are 400 calls of a few milliseconds, and the
/// items of these 16 are all that is in memory of them.
const MAX_CALLS_IN_FLIGHT: usize = 16;
/// Rounds in which what a call left undone is tried again; with the pauses between, about 6 s.
const MAX_ROUNDS: u32 = 8;
/// Longest pause before the second round; it doubles up to [`MAX_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Longest pause between two rounds.
const MAX_PAUSE: Duration = Duration::from_secs(2);

/// What became of one entry.
pub type Written = Result<(), SinkError>;

/// Where verdicts go.
#[derive(Debug)]
pub enum ResultsSink {
    /// Nowhere: no results are kept.
    Nowhere,
    /// A DynamoDB table.
    DynamoDb(dynamodb::DynamoDbResults),
    /// A file of JSON lines.
    Jsonl(jsonl::JsonlFile),
}

impl ResultsSink {
    /// Stores verdicts; one answer for each, in their order.
    pub async fn store(&self, verdicts: &[Verdict<'_>], until: Until) -> Vec<Written> {
        match self {
            Self::Nowhere => vec![Ok(()); verdicts.len()],
            Self::DynamoDb(table) => table.store(verdicts, until).await,
            Self::Jsonl(file) => file.append(verdicts, |verdict| verdict.id(), until),
        }
    }

    /// Stores a batch's summary. A table then has the last one of that id, a file keeps the first.
    ///
    /// # Errors
    /// [`SinkError`]: why it is not stored.
    pub async fn store_summary(&self, summary: &Summary, until: Until) -> Written {
        match self {
            Self::Nowhere => Ok(()),
            Self::DynamoDb(table) => table.store_summary(summary, until).await,
            Self::Jsonl(file) => file
                .append(std::slice::from_ref(summary), |summary| summary.id.clone(), until)
                .pop()
                .unwrap_or(Err(SinkError::OutOfTime)),
        }
    }
}

/// Where records go that can't be read.
#[derive(Debug)]
pub enum DeadLettersSink {
    /// An SQS queue.
    Sqs(sqs::SqsDeadLetters),
    /// A file of JSON lines.
    Jsonl(jsonl::JsonlFile),
}

impl DeadLettersSink {
    /// Sends dead letters; one answer for each, in their order.
    pub async fn send(&self, letters: &[DeadLetter<'_>], until: Until) -> Vec<Written> {
        match self {
            Self::Sqs(queue) => queue.send(letters, until).await,
            Self::Jsonl(file) => file.append(letters, |letter| letter.origin.identity(), until),
        }
    }
}

/// A record that no retry will make readable. As JSON
/// `{"id":…,"origin":{…},"reason":…,"time_ms":…,"payload_base64":…}`, and `"undecoded":true` where that
/// is so; with its bytes in S3, `payload_s3` (`s3://bucket/key`), `payload_bytes` and `payload_sha256`
/// stand in place of `payload_base64`.
#[derive(Debug, Clone)]
pub struct DeadLetter<'a> {
    /// Where it comes from.
    pub origin: &'a Origin,
    /// Why it can't be read; quotes nothing of it.
    pub reason: Cow<'a, str>,
    /// When it was given up, in milliseconds since 1970.
    pub time_ms: u64,
    /// Its bytes as they came.
    pub payload: &'a [u8],
    /// True if these are no payload, since none could be taken out of the event, but the text of the
    /// event's record. Such a letter is no log record when it is redriven.
    pub undecoded: bool,
}

impl Serialize for DeadLetter<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let payload_base64 = base64_simd::STANDARD.encode_to_string(self.payload);
        self.with(Payload::Here { payload_base64 }).serialize(serializer)
    }
}

impl DeadLetter<'_> {
    fn with(&self, payload: Payload) -> Body<'_> {
        Body {
            id: self.origin.identity(),
            origin: self.origin,
            reason: &self.reason,
            time_ms: self.time_ms,
            payload,
            undecoded: self.undecoded,
        }
    }
}

/// What a dead letter is written as.
#[derive(Serialize)]
struct Body<'a> {
    id: String,
    origin: &'a Origin,
    reason: &'a str,
    time_ms: u64,
    #[serde(flatten)]
    payload: Payload,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    undecoded: bool,
}

/// Where a dead letter's bytes are.
#[derive(Serialize)]
#[serde(untagged)]
enum Payload {
    Here { payload_base64: String },
    InS3 { payload_s3: String, payload_bytes: usize, payload_sha256: String },
}

/// Why an entry was not written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SinkError {
    /// The time was over before it was written, or before the answer came that it was.
    #[error("there was no time left")]
    OutOfTime,
    /// The service accepted the call but not the entry, again and again.
    #[error("{service} did not accept it in {MAX_ROUNDS} rounds")]
    NotAccepted {
        /// Which service.
        service: &'static str,
    },
    /// The service refused the entry for what it is.
    #[error("SQS refused it: {code}")]
    Refused {
        /// The service's code.
        code: String,
    },
    /// No sink of this kind takes an entry so large.
    #[error("it has {bytes} bytes; {service} takes {limit}")]
    TooLarge {
        /// Which service.
        service: &'static str,
        /// Its size.
        bytes: usize,
        /// The greatest size.
        limit: usize,
    },
    /// A dead letter that a message has no room for, with no other place for its bytes.
    #[error(
        "its dead letter has {bytes} bytes; SQS takes {limit}, and DEAD_LETTERS_S3_URI is not set"
    )]
    NoPlaceInS3 {
        /// Its size.
        bytes: usize,
        /// The greatest size.
        limit: usize,
    },
    /// The call to S3 failed.
    #[error("putting its bytes in S3 failed{}", status_of(.0))]
    S3(#[source] Arc<SdkError<PutObjectError>>),
    /// The call to DynamoDB failed.
    #[error("writing to DynamoDB failed{}", status_of(.0))]
    DynamoDb(#[source] Arc<SdkError<BatchWriteItemError>>),
    /// The call to SQS failed.
    #[error("sending to SQS failed{}", status_of(.0))]
    Sqs(#[source] Arc<SdkError<SendMessageBatchError>>),
    /// The call to SNS failed.
    #[error("publishing to SNS failed{}", status_of(.0))]
    Sns(#[source] Arc<SdkError<PublishError>>),
    /// It let an alert wait shortly before.
    #[error("SNS or the table didn't answer shortly before, and is not asked for a minute")]
    NotAsked,
    /// What was sent already can't be looked up or noted down.
    #[error("the table of what was sent can't be used")]
    Ledger(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// A request that can't be made.
    #[error("the request can't be made")]
    Request(#[source] Arc<BuildError>),
    /// An entry that can't be written as JSON.
    #[error("it can't be written as json")]
    Json(#[source] Arc<serde_json::Error>),
    /// The file can't be written.
    #[error("writing the file failed")]
    File(#[source] Arc<std::io::Error>),
}

/// Puts entries of known size together into calls of at most so many entries and bytes. An entry that
/// is too large by itself gets a call of its own.
fn in_calls<T>(
    entries: impl Iterator<Item = (T, usize)>,
    max_entries: usize,
    max_bytes: usize,
) -> impl Iterator<Item = Vec<T>> {
    let mut entries = entries.peekable();
    std::iter::from_fn(move || {
        let (first, mut bytes) = entries.next()?;
        let mut call = vec![first];
        let fits = |bytes: usize, len: usize| bytes <= max_bytes && len < max_entries;
        while let Some((entry, size)) =
            entries.next_if(|(_, size)| fits(bytes.saturating_add(*size), call.len()))
        {
            bytes += size;
            call.push(entry);
        }
        Some(call)
    })
}

/// Makes calls, several at a time, and gathers what became of `count` entries. Each call answers with
/// the indexes of its entries.
async fn make_calls<C, F: Future<Output = Vec<(usize, Written)>>>(
    count: usize,
    calls: impl Iterator<Item = C>,
    make: impl Fn(C) -> F,
) -> Vec<Written> {
    let mut written = vec![Err(SinkError::OutOfTime); count];
    let mut answers = pin!(stream::iter(calls.map(make)).buffer_unordered(MAX_CALLS_IN_FLIGHT));
    while let Some(answer) = answers.next().await {
        for (index, outcome) in answer {
            written[index] = outcome;
        }
    }
    written
}

/// Waits before another round, a random time up to a bound that doubles from round to round, so that
/// the calls of many functions spread out. `None` when the time is over.
async fn pause(round: u32, until: Until) -> Option<()> {
    let longest = FIRST_PAUSE.saturating_mul(1 << round.min(16)).min(MAX_PAUSE);
    // The standard library seeds its hashers at random; that is random enough here.
    let random = RandomState::new().build_hasher().finish() % 1024;
    let pause = longest.mul_f64((random as f64 + 1.0) / 1024.0);
    until.limit(tokio::time::sleep(pause)).await
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Read as _, Write as _};
    use std::net::TcpListener;

    use serde_json::Value;

    use super::*;

    /// A server on loopback that answers JSON to every JSON request. Real servers don't leave entries
    /// of a call undone when asked to; this one does.
    pub(super) fn serve(mut answer: impl FnMut(Value) -> Value + Send + 'static) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let address = listener.local_addr().expect("bound");
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut reader = BufReader::new(stream.expect("connected"));
                let (mut len, mut line) = (0, String::new());
                while reader.read_line(&mut line).expect("a header") > 2 {
                    let header = line.to_ascii_lowercase();
                    if let Some(value) = header.strip_prefix("content-length:") {
                        len = value.trim().parse().expect("a length");
                    }
                    line.clear();
                }
                let mut body = vec![0; len];
                reader.read_exact(&mut body).expect("a body");
                let body = answer(serde_json::from_slice(&body).expect("json")).to_string();
                let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length:";
                let mut stream = reader.into_inner();
                write!(stream, "{head} {}\r\n\r\n{body}", body.len()).expect("answered");
            }
        });
        format!("http://{address}")
    }

    fn calls(sizes: &[usize], max_entries: usize, max_bytes: usize) -> Vec<Vec<usize>> {
        let entries = sizes.iter().enumerate().map(|(index, &size)| (index, size));
        in_calls(entries, max_entries, max_bytes).collect()
    }

    #[test]
    fn calls_keep_both_limits_and_every_entry() {
        assert_eq!(calls(&[], 25, 100), Vec::<Vec<usize>>::new());
        let by_25: Vec<usize> = calls(&[1; 60], 25, 1000).iter().map(Vec::len).collect();
        assert_eq!(by_25, [25, 25, 10]);
        assert_eq!(calls(&[40, 60, 1], 25, 100), [vec![0, 1], vec![2]]);
        assert_eq!(calls(&[10, 500, 10, 10], 25, 100), [vec![0], vec![1], vec![2, 3]]);
        assert_eq!(calls(&[500, usize::MAX], 25, 100), [vec![0], vec![1]]);
    }

    #[tokio::test]
    async fn an_entry_without_an_answer_is_not_written() {
        let written = make_calls(3, [0, 2].into_iter(), async |index| vec![(index, Ok(()))]).await;
        assert!(matches!(written[..], [Ok(()), Err(SinkError::OutOfTime), Ok(())]), "{written:?}");
    }

    #[tokio::test]
    async fn a_pause_ends_with_the_time() {
        assert_eq!(pause(0, Until::FOREVER).await, Some(()));
        let over = Until::before(Some(std::time::Instant::now()), Duration::ZERO);
        assert_eq!(pause(7, over).await, None);
    }

    #[test]
    fn a_dead_letter_carries_its_bytes() {
        let origin = Origin::Kafka { cluster: None, topic: "t".into(), partition: 0, offset: 7 };
        let letter = DeadLetter {
            origin: &origin,
            reason: "why".into(),
            time_ms: 5,
            payload: b"\xff\0",
            undecoded: false,
        };
        assert_eq!(
            serde_json::to_string(&letter).expect("json"),
            r#"{"id":"kafka/t/0/7","origin":{"source":"kafka","topic":"t","partition":0,"offset":7},"reason":"why","time_ms":5,"payload_base64":"/wA="}"#
        );
    }
}
