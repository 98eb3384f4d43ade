//! Dead letters in an SQS queue, one message a record.
//!
//! A message's body is the [`DeadLetter`] as JSON. The bytes of a record so large that its message
//! would not fit are put in S3 before the message is sent, and the message says where; without a place
//! in S3 the record is reported with that reason.

use std::sync::Arc;

use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::SendMessageBatchRequestEntry;

use super::retries::Retries;
use super::s3::{S3Payloads, sha256};
use super::{DeadLetter, MAX_ROUNDS, Payload, SinkError, Written, in_calls, make_calls, pause};
use crate::deadline::Until;

/// Most messages in one SendMessageBatch.
const MAX_MESSAGES: usize = 10;
/// Most bytes of one SendMessageBatch, and of one message: AWS takes 1 MiB since 2025, but servers
/// and queues set up for the older 256 KiB are still about.
const MAX_CALL_BYTES: usize = 256 << 10;

const SERVICE: &str = "SQS";

/// A queue for dead letters.
#[derive(Debug, Clone)]
pub struct SqsDeadLetters {
    client: Client,
    queue_url: String,
    s3: Option<S3Payloads>,
    retries: Retries,
}

/// A message on its way: its letter's index, and the body or why there is none.
struct Message {
    index: usize,
    body: Result<String, SinkError>,
    /// True if the letter's bytes have to be in S3 first.
    in_s3: bool,
}

impl SqsDeadLetters {
    /// Dead letters into the queue, and what it has no room for into S3.
    pub fn new(client: Client, queue_url: String, s3: Option<S3Payloads>) -> Self {
        Self { client, queue_url, s3, retries: Retries::default() }
    }

    /// Counts its rounds after the first there; the client's tries are the client's to count.
    pub fn counting(self, retries: Retries) -> Self {
        Self { retries, ..self }
    }

    /// Sends letters; one answer for each, in their order.
    pub async fn send(&self, letters: &[DeadLetter<'_>], until: Until) -> Vec<Written> {
        // Bodies are made as their calls are, so that only those in flight are in memory.
        let messages = (0..letters.len()).map(|index| {
            let message = self.message(index, &letters[index]);
            let bytes = message.body.as_ref().map_or(0, String::len);
            (message, bytes)
        });
        let calls = in_calls(messages, MAX_MESSAGES, MAX_CALL_BYTES);
        make_calls(letters.len(), calls, |messages| self.send_call(letters, messages, until)).await
    }

    fn message(&self, index: usize, letter: &DeadLetter<'_>) -> Message {
        let json = |error| SinkError::Json(Arc::new(error));
        let whole = serde_json::to_string(letter).map_err(json);
        let bytes = whole.as_ref().map_or(0, String::len);
        if bytes <= MAX_CALL_BYTES {
            return Message { index, body: whole, in_s3: false };
        }
        let Some(s3) = &self.s3 else {
            let fault = SinkError::NoPlaceInS3 { bytes, limit: MAX_CALL_BYTES };
            return Message { index, body: Err(fault), in_s3: false };
        };
        let pointer = letter.with(Payload::InS3 {
            payload_s3: s3.uri(&letter.origin.identity()),
            payload_bytes: letter.payload.len(),
            payload_sha256: sha256(letter.payload),
        });
        let body = serde_json::to_string(&pointer).map_err(json);
        Message { index, body, in_s3: true }
    }

    /// The message as the call has it, once its letter's bytes are where it says.
    async fn entry(
        &self,
        letter: &DeadLetter<'_>,
        message: Message,
        until: Until,
    ) -> Result<SendMessageBatchRequestEntry, SinkError> {
        let entry = entry(message.index, message.body?)?;
        if let (true, Some(s3)) = (message.in_s3, &self.s3) {
            s3.put(&letter.origin.identity(), letter.payload, until).await?;
        }
        Ok(entry)
    }

    /// Sends the messages of one call, those that failed again.
    async fn send_call(
        &self,
        letters: &[DeadLetter<'_>],
        messages: Vec<Message>,
        until: Until,
    ) -> Vec<(usize, Written)> {
        let mut outcomes = Vec::with_capacity(messages.len());
        let mut pending = Vec::with_capacity(messages.len());
        // If S3 hangs, the messages that don't need it still go out.
        let until_sent = until.half();
        for message in messages {
            let index = message.index;
            match self.entry(&letters[index], message, until_sent).await {
                Ok(entry) => pending.push((index, entry)),
                Err(fault) => outcomes.push((index, Err(fault))),
            }
        }
        let mut fault = SinkError::NotAccepted { service: SERVICE };
        for round in 0..MAX_ROUNDS {
            if pending.is_empty() {
                break;
            }
            if round > 0 {
                if pause(round - 1, until).await.is_none() {
                    fault = SinkError::OutOfTime;
                    break;
                }
                self.retries.count();
            }
            let entries = pending.iter().map(|(_, entry)| entry.clone()).collect();
            let call = self.client.send_message_batch().queue_url(&self.queue_url);
            let answer = match until.limit(call.set_entries(Some(entries)).send()).await {
                None => {
                    fault = SinkError::OutOfTime;
                    break;
                }
                Some(Err(error)) => {
                    fault = SinkError::Sqs(Arc::new(error));
                    break;
                }
                Some(Ok(answer)) => answer,
            };
            // Sent is only what the answer says was sent; what it passes over is tried again.
            pending.retain(|(index, entry)| {
                let refused = answer
                    .failed
                    .iter()
                    .find(|failed| failed.id == entry.id && failed.sender_fault);
                let outcome = match refused {
                    Some(refused) => Err(SinkError::Refused { code: refused.code.clone() }),
                    None if answer.successful.iter().any(|sent| sent.id == entry.id) => Ok(()),
                    None => return true,
                };
                outcomes.push((*index, outcome));
                false
            });
        }
        outcomes.extend(pending.into_iter().map(|(index, _)| (index, Err(fault.clone()))));
        outcomes
    }
}

fn entry(index: usize, body: String) -> Result<SendMessageBatchRequestEntry, SinkError> {
    if body.len() > MAX_CALL_BYTES {
        let (bytes, limit) = (body.len(), MAX_CALL_BYTES);
        return Err(SinkError::TooLarge { service: SERVICE, bytes, limit });
    }
    let entry = SendMessageBatchRequestEntry::builder().id(index.to_string()).message_body(body);
    entry.build().map_err(|error| SinkError::Request(Arc::new(error)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::origin::Origin;

    #[test]
    fn a_message_that_does_not_fit_is_refused_with_its_size() {
        let fits = "x".repeat(MAX_CALL_BYTES);
        let sent = entry(3, fits.clone()).expect("fits");
        assert_eq!((sent.id.as_str(), sent.message_body.len()), ("3", MAX_CALL_BYTES));
        let error = entry(3, fits + "x").expect_err("too large");
        assert_eq!(error.to_string(), "it has 262145 bytes; SQS takes 262144");
    }

    #[tokio::test]
    async fn a_letter_without_room_or_place_is_refused_with_the_variables_name() {
        let settings = aws_sdk_sqs::Config::builder()
            .behavior_version_latest()
            .region(aws_sdk_sqs::config::Region::new("eu-west-1"));
        let client = Client::from_conf(settings.build());
        let sink = SqsDeadLetters::new(client, "http://127.0.0.1:1/1/dead".into(), None);
        let origin = Origin::Sqs { queue: "q".into(), message_id: "m".into() };
        let payload = vec![b'x'; 300_000];
        let letter = DeadLetter {
            origin: &origin,
            reason: "why".into(),
            time_ms: 5,
            payload: &payload,
            undecoded: false,
        };
        let written = sink.send(&[letter], Until::FOREVER).await;
        let [Err(fault)] = &written[..] else { panic!("{written:?}") };
        let message = fault.to_string();
        assert!(message.contains("400") && message.contains("262144"), "{message}");
        assert!(message.ends_with("DEAD_LETTERS_S3_URI is not set"), "{message}");
    }

    #[tokio::test]
    async fn a_failed_entry_is_sent_again_and_a_refused_one_is_not() {
        let (calls, seen) = std::sync::mpsc::channel();
        // Refuses the first message for good, fails the second once, passes over the third once.
        let mut round = 0;
        let url = super::super::tests::serve(move |request| {
            let ids: Vec<String> = request["Entries"]
                .as_array()
                .expect("entries")
                .iter()
                .map(|entry| entry["Id"].as_str().expect("an id").to_owned())
                .collect();
            calls.send(ids.join(",")).expect("a listener");
            round += 1;
            if round == 1 {
                return serde_json::json!({ "Successful": [], "Failed": [
                    { "Id": "0", "SenderFault": true, "Code": "InvalidMessageContents" },
                    { "Id": "1", "SenderFault": false, "Code": "InternalError" },
                ]});
            }
            let sent = ids.iter().map(
                |id| serde_json::json!({ "Id": id, "MessageId": "m", "MD5OfMessageBody": "" }),
            );
            serde_json::json!({ "Successful": sent.collect::<Vec<_>>(), "Failed": [] })
        });
        let config = aws_sdk_sqs::Config::builder()
            .behavior_version_latest()
            .endpoint_url(&url)
            .region(aws_sdk_sqs::config::Region::new("eu-west-1"))
            .allow_no_auth();
        let sink =
            SqsDeadLetters::new(Client::from_conf(config.build()), format!("{url}/1/dead"), None);
        let origins: Vec<Origin> = (0..3)
            .map(|offset| Origin::Kafka { cluster: None, topic: "t".into(), partition: 0, offset })
            .collect();
        let letter = |origin| DeadLetter {
            origin,
            reason: "why".into(),
            time_ms: 5,
            payload: b"p",
            undecoded: false,
        };
        let letters: Vec<DeadLetter<'_>> = origins.iter().map(letter).collect();
        let written = sink.send(&letters, Until::FOREVER).await;
        assert!(
            matches!(&written[..], [Err(SinkError::Refused { code }), Ok(()), Ok(())]
                if code == "InvalidMessageContents"),
            "{written:?}"
        );
        assert_eq!(seen.try_iter().collect::<Vec<_>>(), ["0,1,2", "1,2"]);
        assert_eq!(sink.retries.take(), 1);
    }
}
