//! The models, and the features by which records are read without one.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use sawlog_lambda::Config;
use sawlog_lambda::app::Aws;
use sawlog_lambda::config::{ModelUri, ModelUris, RowKind};
use sawlog_lambda::endpoint::value_features;
use sawlog_lambda::handler::chain;
use sawlog_lambda::model_store::{Loaded, ModelFault, ModelStore, fetch_text};
use sawlog_model::{Model, ValidSpec};

use super::Finding;
use crate::aws;
use crate::describe::grouped;
use crate::publish::gate::differences;
use crate::publish::registry::Which;

/// Longest specification that is read, in bytes: as in the Lambda.
const MAX_SPEC_LEN: u64 = 1 << 20;

async fn store(aws: &Aws, uri: &ModelUri) -> ModelStore {
    match uri {
        ModelUri::S3 { bucket, key } => ModelStore::S3 {
            client: aws.s3().await.clone(),
            bucket: bucket.clone(),
            key: key.clone(),
        },
        ModelUri::File(path) => ModelStore::File(path.clone()),
    }
}

/// Why what is there can't be had.
fn said(store: &ModelStore, fault: &ModelFault) -> String {
    match store {
        ModelStore::S3 { client, bucket, .. } => aws::model_fault(client, bucket, fault),
        ModelStore::File(_) => chain(fault),
    }
}

/// The pointer in the folder that was taken for a model. Where people make folders in S3, there may be an empty object of
/// the folder's name.
async fn pointer_below(store: &ModelStore, fault: &ModelFault) -> Option<String> {
    let (ModelStore::S3 { client, bucket, key }, ModelFault::Get(_) | ModelFault::Snapshot(_)) =
        (store, fault)
    else {
        return None;
    };
    let key = format!("{}/{}", key.trim_end_matches('/'), Which::Current.file_name());
    client.head_object().bucket(bucket).key(&key).send().await.ok()?;
    Some(format!("s3://{bucket}/{key}"))
}

/// What to do about a model that can't be had.
fn mend_of(fault: &ModelFault) -> &'static str {
    let text = chain(fault);
    match fault {
        ModelFault::Pointer(_) => {
            "restore an earlier version of the pointer, or delete it and `sawlog publish` again"
        }
        ModelFault::Pointed { .. } => {
            "`sawlog history` says which models there were, `sawlog rollback` goes back to one"
        }
        ModelFault::Snapshot(_) | ModelFault::NoColumns | ModelFault::TooLong { .. } => {
            "train or publish it again; `sawlog inspect` says what is in a file"
        }
        _ if text.contains("NoSuchBucket") => {
            "create the bucket, or correct its name and AWS_REGION"
        }
        _ if text.contains("NoSuchKey") => "upload a model there, or `sawlog publish` one",
        _ if text.contains("HTTP 403") => {
            "grant s3:GetObject on it, and s3:ListBucket on the bucket to tell that it isn't there"
        }
        _ => "see that it is there and can be reached from here",
    }
}

/// Opens every model.
pub(super) async fn check(
    aws: &Aws,
    config: &Config,
    findings: &mut Vec<Finding>,
) -> Vec<Arc<Model>> {
    let ModelUris { by_topic, otherwise } = &config.models;
    let uris: BTreeSet<&ModelUri> = by_topic.values().chain(otherwise).collect();
    let what = "MODEL_URI";
    if otherwise.is_none() {
        let topics: Vec<&str> = by_topic.keys().map(String::as_str).collect();
        let said = format!(
            "models for {} alone: records of all other topics are dead-lettered",
            topics.join(", ")
        );
        let mend = "add \"*\" with a model for them, unless nothing else comes";
        findings.push(Finding::warn(what, said, mend));
    }
    let mut models = Vec::new();
    for uri in uris {
        let store = store(aws, uri).await;
        let uri = store.uri();
        let found = store.find(None).await.and_then(|found| found.model);
        let Loaded { model, published } = match found {
            Ok(loaded) => loaded,
            Err(fault) => {
                let said = format!("{uri}: {}", said(&store, &fault));
                findings.push(match pointer_below(&store, &fault).await {
                    Some(pointer) => Finding::fail(
                        what,
                        format!("{said}; there is a pointer below it"),
                        format!("set it to {pointer}"),
                    ),
                    None => Finding::fail(what, said, mend_of(&fault)),
                });
                continue;
            }
        };
        let age = published.and_then(|at| at.elapsed().ok());
        let published = age.map(|age| format!(", published {} ago", words(age)));
        let said = format!(
            "{uri}: model {} ({} bytes{})",
            model.id(),
            grouped(model.snapshot_len() as u64),
            published.unwrap_or_default()
        );
        let max_age = config.model_max_age_secs.map(Duration::from_secs);
        findings.push(if model.calibration().is_none() {
            let mend = "`sawlog calibrate` sets a threshold";
            Finding::warn(what, format!("{said} has no threshold and flags nothing"), mend)
        } else if max_age.zip(age).is_some_and(|(max, age)| age > max) {
            let mend = "publish a new one, or raise MODEL_MAX_AGE_SECS";
            Finding::warn(what, format!("{said} is stale by MODEL_MAX_AGE_SECS"), mend)
        } else {
            Finding::ok(what, said)
        });
        let rows = config.endpoint.as_ref().map(|endpoint| endpoint.rows);
        if rows == Some(RowKind::Values) {
            let features = model.features();
            if let Err(fault) = value_features(features.spec(), Some(features.fitted())) {
                let said = format!("model {}: {fault}", model.id());
                let mend = "set ENDPOINT_ROWS=points, or train without what can't be sent";
                findings.push(Finding::fail("ENDPOINT_ROWS", said, mend));
            }
        }
        models.push(model);
    }
    models
}

/// Reads the specification for records without a model, and holds it against the models.
pub(super) async fn features(
    aws: &Aws,
    config: &Config,
    models: &[Arc<Model>],
    findings: &mut Vec<Finding>,
) -> Option<ValidSpec> {
    let what = "FEATURES_URI";
    let store = store(aws, config.features.as_ref()?).await;
    let uri = store.uri();
    let text = match fetch_text(&store, MAX_SPEC_LEN).await {
        Ok(text) => text,
        Err(error) => {
            let mend =
                mend_of(&error.fault).replace("a model there, or `sawlog publish` one", "it there");
            findings.push(Finding::fail(
                what,
                format!("{uri}: {}", said(&store, &error.fault)),
                mend,
            ));
            return None;
        }
    };
    let spec = match ValidSpec::from_toml(&text) {
        Ok(spec) => spec,
        Err(error) => {
            let mend = "correct the specification: it is the one that `sawlog train --spec` takes";
            findings.push(Finding::fail(what, format!("{uri}: {error}"), mend));
            return None;
        }
    };
    if let Err(fault) = value_features(&spec, None) {
        let mend = "write a specification of numbers, each with missing = \"zero\" or \"reject\"";
        findings.push(Finding::fail(what, format!("{uri}: {fault}"), mend));
        return None;
    }
    // The rule for what is missing may differ: without a model there is no median.
    let differs = models.iter().find_map(|model| {
        let mut found = differences(model.features().spec(), &spec);
        found.retain(|difference| !difference.ends_with("another rule for what is missing"));
        found.first().map(|first| (model.id().to_owned(), first.clone()))
    });
    findings.push(match differs {
        Some((id, difference)) => Finding::fail(
            what,
            format!("{uri}: does not read what model {id} reads: {difference}"),
            "use the specification that the model was trained with",
        ),
        None => Finding::ok(what, format!("{uri}: {} features", spec.features().len())),
    });
    Some(spec)
}

/// A time as a person says it.
fn words(age: Duration) -> String {
    let secs = age.as_secs();
    match secs {
        0..120 => format!("{secs} s"),
        120..7200 => format!("{} min", secs / 60),
        7200..172_800 => format!("{} h", secs / 3600),
        _ => format!("{} days", secs / 86_400),
    }
}
