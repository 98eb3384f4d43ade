//! Where results, dead letters, alerts and pairs go: table, queue, topic, buckets and files.
//!
//! That a table takes writes is tried by deleting an item that isn't there, in a BatchWriteItem as the
//! function sends; that a bucket does, by a write on the condition that an object which isn't there is as it
//! was. For queues and topics there is no such write, so it is only seen whether they are there.

use std::path::Path;

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::types::{
    AttributeValue, DeleteRequest, KeyType, ScalarAttributeType, TableDescription, TableStatus,
    TimeToLiveStatus, WriteRequest,
};
use aws_sdk_sqs::types::QueueAttributeName;
use sawlog_lambda::Config;
use sawlog_lambda::app::Aws;
use sawlog_lambda::config::{AlertsUri, CaptureUri, DeadLettersUri, ResultsUri, S3Prefix};
use sawlog_lambda::handler::{chain, status_of};

use super::Finding;
use crate::aws::{self, Service};

/// The id of an item, and the end of an object's key, that nothing has.
const NOTHING: &str = "sawlog-doctor";
/// The attribute by which items expire.
const TTL_ATTRIBUTE: &str = "expires_at";
/// Bytes of the longest dead letter that the function sends as a message.
const DEAD_LETTER_LEN: u64 = 256 << 10;

/// What a call was answered, with the service's own code; or where it was tried in vain.
fn answer<E>(service: Service, error: &SdkError<E>) -> String
where
    E: std::error::Error + ProvideErrorMetadata + 'static,
{
    aws::unreached(service, error)
        .unwrap_or_else(|| format!("{}{}", chain(error), status_of(error)))
}

/// True if these credentials may not do it.
fn is_denied<E: ProvideErrorMetadata>(error: &SdkError<E>) -> bool {
    let code = error.code().unwrap_or_default();
    ["AccessDenied", "NotAuthorized", "AuthorizationError", "Forbidden"]
        .iter()
        .any(|denied| code.contains(denied))
}

/// A file's folder must be there and take new files.
fn file(what: &str, path: &Path) -> Finding {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let name = path.display();
    if path.is_dir() {
        return Finding::fail(what, format!("{name} is a folder"), "name a file");
    }
    // Without a name, and gone at once.
    match tempfile::tempfile_in(folder) {
        Ok(_) => Finding::ok(what, format!("{name}: its folder takes files")),
        Err(error) => Finding::fail(
            what,
            format!("{name}: its folder takes no files: {error}"),
            "make the folder, and let the function write there",
        ),
    }
}

/// The table or file for results.
pub(super) async fn results(aws: &Aws, config: &Config, findings: &mut Vec<Finding>) {
    let what = "RESULTS_URI";
    match &config.results {
        ResultsUri::Nowhere => {}
        ResultsUri::File(path) => findings.push(file(what, path)),
        ResultsUri::DynamoDb { table } => {
            let client = aws_sdk_dynamodb::Client::new(aws.config().await);
            let described = client.describe_table().table_name(table).send().await;
            let described = match described {
                Ok(answer) => answer.table,
                Err(error)
                    if error
                        .as_service_error()
                        .is_some_and(|it| it.is_resource_not_found_exception()) =>
                {
                    let said = format!("there is no table {table} in this account and region");
                    let mend =
                        "create it as template.yaml does, or correct its name and AWS_REGION";
                    return findings.push(Finding::fail(what, said, mend));
                }
                Err(error) if is_denied(&error) => {
                    let said = format!(
                        "table {table} can't be looked at: {}",
                        answer(Service::DynamoDb, &error)
                    );
                    let mend = "grant dynamodb:DescribeTable to who runs this; the function doesn't need it";
                    return findings.push(Finding::warn(what, said, mend));
                }
                Err(error) => {
                    let said = format!(
                        "table {table} can't be looked at: {}",
                        answer(Service::DynamoDb, &error)
                    );
                    let mend = "see that DynamoDB can be reached from here";
                    return findings.push(Finding::fail(what, said, mend));
                }
            };
            let described = described.unwrap_or_else(|| TableDescription::builder().build());
            if let Some(fault) = shape(table, &described) {
                return findings.push(fault);
            }
            findings.push(writable(&client, table).await);
            if config.results_ttl_days > 0 {
                findings.push(expiry(&client, table).await);
            }
        }
    }
}

/// Is its key the one that items have?
fn shape(table: &str, described: &TableDescription) -> Option<Finding> {
    let what = "RESULTS_URI";
    let kind = |name: &str| {
        let attributes = described.attribute_definitions();
        let found = attributes.iter().find(|it| it.attribute_name() == name);
        found.map(|it| it.attribute_type().clone())
    };
    let keys = described.key_schema();
    let is_sound = match keys {
        [key] => {
            key.attribute_name() == "id"
                && *key.key_type() == KeyType::Hash
                && kind("id") == Some(ScalarAttributeType::S)
        }
        _ => false,
    };
    if !is_sound {
        let keys: Vec<String> = keys
            .iter()
            .map(|key| {
                let kind = kind(key.attribute_name());
                let kind = kind.as_ref().map_or("?", ScalarAttributeType::as_str);
                format!("{} ({}, {kind})", key.attribute_name(), key.key_type().as_str())
            })
            .collect();
        let said = format!("table {table} has the key {}", keys.join(" and "));
        let mend = "create a table whose only key is the partition key `id`, a string (S): a key can't be changed";
        return Some(Finding::fail(what, said, mend));
    }
    match described.table_status() {
        None | Some(TableStatus::Active | TableStatus::Updating) => None,
        Some(other) => {
            let said = format!("table {table} is {}", other.as_str());
            Some(Finding::fail(what, said, "wait until it is ACTIVE, or create it again"))
        }
    }
}

/// Does it take writes from these credentials?
async fn writable(client: &aws_sdk_dynamodb::Client, table: &str) -> Finding {
    let what = "RESULTS_URI";
    let id = AttributeValue::S(NOTHING.to_owned());
    let said = format!("table {table}: its key is `id`, and it takes writes");
    let Ok(delete) = DeleteRequest::builder().key("id", id).build() else {
        return Finding::ok(what, said);
    };
    let delete = WriteRequest::builder().delete_request(delete).build();
    match client.batch_write_item().request_items(table, vec![delete]).send().await {
        Ok(_) => Finding::ok(what, said),
        Err(error) => Finding::fail(
            what,
            format!("table {table} takes no writes: {}", answer(Service::DynamoDb, &error)),
            "grant dynamodb:BatchWriteItem on it to the function's role",
        ),
    }
}

/// Do its items expire?
async fn expiry(client: &aws_sdk_dynamodb::Client, table: &str) -> Finding {
    let what = "RESULTS_TTL_DAYS";
    let mend = format!(
        "aws dynamodb update-time-to-live --table-name {table} --time-to-live-specification \
         Enabled=true,AttributeName={TTL_ATTRIBUTE}; or set RESULTS_TTL_DAYS=0"
    );
    let described = match client.describe_time_to_live().table_name(table).send().await {
        Ok(described) => described.time_to_live_description,
        Err(error) => {
            let said = format!(
                "whether items of {table} expire can't be seen: {}",
                answer(Service::DynamoDb, &error)
            );
            let mend = "grant dynamodb:DescribeTimeToLive to who runs this";
            return Finding::warn(what, said, mend);
        }
    };
    let is_on = described.as_ref().and_then(|it| it.time_to_live_status()).is_some_and(|status| {
        matches!(status, TimeToLiveStatus::Enabled | TimeToLiveStatus::Enabling)
    });
    match described.as_ref().and_then(|it| it.attribute_name()) {
        Some(TTL_ATTRIBUTE) if is_on => {
            Finding::ok(what, format!("items of {table} expire by `{TTL_ATTRIBUTE}`"))
        }
        Some(other) if is_on => {
            let said = format!("items of {table} expire by `{other}`, not by `{TTL_ATTRIBUTE}`");
            Finding::fail(what, said, mend)
        }
        _ => Finding::fail(what, format!("items of {table} never expire"), mend),
    }
}

/// The queue or file for dead letters.
pub(super) async fn dead_letters(aws: &Aws, config: &Config, findings: &mut Vec<Finding>) {
    let what = "DEAD_LETTERS_URI";
    let queue_url = match &config.dead_letters {
        DeadLettersUri::File(path) => return findings.push(file(what, path)),
        DeadLettersUri::Sqs { queue_url } => queue_url,
    };
    let client = aws_sdk_sqs::Client::new(aws.config().await);
    let call = client.get_queue_attributes().queue_url(queue_url);
    let got = call.attribute_names(QueueAttributeName::All).send().await;
    let attributes = match got {
        Ok(got) => got.attributes.unwrap_or_default(),
        Err(error) => {
            let code = error.code().unwrap_or_default().to_owned();
            findings.push(if code.contains("NonExistentQueue") || code.contains("QueueDoesNotExist") {
                let said = format!("there is no queue {queue_url}");
                let mend = "create it as template.yaml does, or correct the URL and AWS_REGION";
                Finding::fail(what, said, mend)
            } else if is_denied(&error) {
                let said = format!("queue {queue_url} can't be looked at: {}", answer(Service::Sqs, &error));
                let mend = "grant sqs:GetQueueAttributes to who runs this; the function needs sqs:SendMessage";
                Finding::warn(what, said, mend)
            } else {
                let said = format!("queue {queue_url} can't be looked at: {}", answer(Service::Sqs, &error));
                Finding::fail(what, said, "see that SQS can be reached from here")
            });
            return;
        }
    };
    let number = |name: QueueAttributeName| -> Option<u64> { attributes.get(&name)?.parse().ok() };
    let waiting = number(QueueAttributeName::ApproximateNumberOfMessages).unwrap_or(0);
    let longest = number(QueueAttributeName::MaximumMessageSize);
    findings.push(match longest.filter(|longest| *longest < DEAD_LETTER_LEN) {
        Some(longest) => Finding::warn(
            what,
            format!("queue {queue_url} takes messages of {longest} bytes at most, dead letters have up to {DEAD_LETTER_LEN}"),
            format!("raise its MaximumMessageSize to {DEAD_LETTER_LEN}"),
        ),
        None => Finding::ok(what, format!("queue {queue_url} is there; {waiting} messages wait in it")),
    });
}

/// The buckets and folders that are written to.
pub(super) async fn buckets(aws: &Aws, config: &Config, findings: &mut Vec<Finding>) {
    if let Some(place) = &config.dead_letters_s3 {
        findings.push(bucket(aws, "DEAD_LETTERS_S3_URI", place).await);
    }
    match &config.validation.capture {
        None => {}
        Some(CaptureUri::S3(place)) => findings.push(bucket(aws, "CAPTURE_URI", place).await),
        Some(CaptureUri::Folder(path)) => findings.push(file("CAPTURE_URI", &path.join(NOTHING))),
    }
}

async fn bucket(aws: &Aws, what: &str, place: &S3Prefix) -> Finding {
    let S3Prefix { bucket, prefix } = place;
    let uri = format!("s3://{bucket}/{prefix}");
    let put = aws.s3().await.put_object().bucket(bucket).key(format!("{prefix}{NOTHING}"));
    // A tag that no object has.
    let put = put.if_match("\"0\"").send().await;
    let error = match put {
        Ok(_) => {
            let said = format!(
                "{uri} takes writes; its server knows no conditions, and there is now an empty {NOTHING}"
            );
            return Finding::warn(what, said, format!("delete {uri}{NOTHING}"));
        }
        Err(error) => error,
    };
    let status = error.raw_response().map(|answer| answer.status().as_u16());
    match (error.code().unwrap_or_default(), status) {
        ("NoSuchBucket", _) => no_bucket(what, place),
        ("NoSuchKey" | "PreconditionFailed", _) => {
            // Some servers look at the condition first.
            let head = aws.s3().await.head_bucket().bucket(bucket).send().await;
            let is_gone =
                |error: &SdkError<aws_sdk_s3::operation::head_bucket::HeadBucketError>| {
                    error.raw_response().is_some_and(|answer| answer.status().as_u16() == 404)
                };
            match head {
                Err(error) if is_gone(&error) => no_bucket(what, place),
                _ => Finding::ok(what, format!("{uri} takes writes")),
            }
        }
        (_, Some(403)) => Finding::fail(
            what,
            format!("{uri} takes no writes: {}", answer(Service::S3, &error)),
            "grant s3:PutObject on it to the function's role (and s3:GetObject, for this check alone)",
        ),
        _ => Finding::fail(
            what,
            format!("{uri} takes no writes: {}", answer(Service::S3, &error)),
            "see that S3 can be reached from here",
        ),
    }
}

fn no_bucket(what: &str, place: &S3Prefix) -> Finding {
    let S3Prefix { bucket, prefix } = place;
    Finding::fail(
        what,
        format!("s3://{bucket}/{prefix}: there is no bucket {bucket}"),
        "create it, or correct its name and AWS_REGION",
    )
}

/// The topic or file for alerts.
pub(super) async fn alerts(aws: &Aws, config: &Config, findings: &mut Vec<Finding>) {
    let what = "ALERTS_URI";
    let (topic_arn, region) = match &config.alerts {
        None => return,
        Some(AlertsUri::File(path)) => return findings.push(file(what, path)),
        Some(AlertsUri::Sns { topic_arn, region }) => (topic_arn, region),
    };
    let sns = aws_sdk_sns::config::Builder::from(aws.config().await);
    let sns = sns.region(aws_sdk_sns::config::Region::new(region.clone()));
    let client = aws_sdk_sns::Client::from_conf(sns.build());
    let got = client.get_topic_attributes().topic_arn(topic_arn).send().await;
    findings.push(match got {
        Ok(_) => subscribers(&client, topic_arn).await,
        Err(error) if error.as_service_error().is_some_and(|it| it.is_not_found_exception()) => {
            let mend = "create it as template.yaml does, or correct the ARN";
            Finding::fail(what, format!("there is no topic {topic_arn}"), mend)
        }
        Err(error) if is_denied(&error) => {
            let said =
                format!("topic {topic_arn} can't be looked at: {}", answer(Service::Sns, &error));
            let mend =
                "grant sns:GetTopicAttributes to who runs this; the function needs sns:Publish";
            Finding::warn(what, said, mend)
        }
        Err(error) => {
            let said =
                format!("topic {topic_arn} can't be looked at: {}", answer(Service::Sns, &error));
            Finding::fail(what, said, "see that SNS can be reached from here")
        }
    });
}

/// Does anybody listen?
async fn subscribers(client: &aws_sdk_sns::Client, topic_arn: &str) -> Finding {
    let what = "ALERTS_URI";
    let listed = match client.list_subscriptions_by_topic().topic_arn(topic_arn).send().await {
        Ok(listed) => listed.subscriptions.unwrap_or_default(),
        Err(error) => {
            let said = format!(
                "topic {topic_arn} is there; who subscribes can't be seen: {}",
                answer(Service::Sns, &error)
            );
            let mend = "grant sns:ListSubscriptionsByTopic to who runs this";
            return Finding::warn(what, said, mend);
        }
    };
    // One that nobody has confirmed has no name yet.
    let is_confirmed = |arn: Option<&str>| arn.is_some_and(|arn| arn.starts_with("arn:"));
    let confirmed = listed.iter().filter(|one| is_confirmed(one.subscription_arn())).count();
    if confirmed == 0 {
        let mend = format!(
            "aws sns subscribe --topic-arn {topic_arn} --protocol email --notification-endpoint ADDRESS, \
             and confirm"
        );
        return Finding::warn(what, format!("nobody subscribes to topic {topic_arn}"), mend);
    }
    Finding::ok(what, format!("topic {topic_arn} is there and has subscribers"))
}
