//! Sampled pairs written down: one object in S3, or one file in a folder, a batch and model.
//!
//! Its name is made of the model and of the sampled records' identities, so that a batch delivered
//! again replaces what it wrote before.

use std::path::PathBuf;
use std::sync::Arc;

use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::ByteStream;

use super::pair::Pair;
use crate::config::S3Prefix;
use crate::summary::Identities;

/// Digits of a model's id in a name: enough to tell models apart, and to find one's pairs.
const MODEL_DIGITS: usize = 8;

/// A place for pairs.
#[derive(Debug)]
pub enum Capture {
    /// A prefix in S3.
    S3 {
        /// The client.
        client: Client,
        /// Bucket and prefix.
        place: S3Prefix,
    },
    /// A folder, made if it isn't there.
    Folder(PathBuf),
}

/// Why pairs were not written.
#[derive(Debug, thiserror::Error)]
pub enum CaptureFault {
    /// They are no JSON.
    #[error("the pairs can't be written as json")]
    Json(#[source] serde_json::Error),
    /// S3 did not take them.
    #[error("the pairs can't be put to s3{}", crate::handler::status_of(.0))]
    S3(
        #[source]
        Arc<aws_sdk_s3::error::SdkError<aws_sdk_s3::operation::put_object::PutObjectError>>,
    ),
    /// The folder did not.
    #[error("the pairs can't be written to their folder")]
    File(#[source] std::io::Error),
}

impl Capture {
    /// Writes the pairs of one batch and model.
    ///
    /// # Errors
    /// [`CaptureFault`]: why they are not there.
    pub async fn write(&self, pairs: &[Pair<'_>]) -> Result<(), CaptureFault> {
        let Some(name) = name(pairs) else { return Ok(()) };
        let mut lines = Vec::new();
        for pair in pairs {
            pair.write(&mut lines).map_err(CaptureFault::Json)?;
        }
        match self {
            Self::S3 { client, place } => {
                let key = format!("{}{name}", place.prefix);
                let call = client.put_object().bucket(&place.bucket).key(key);
                let call = call.content_type("application/x-ndjson").body(ByteStream::from(lines));
                call.send().await.map(drop).map_err(|error| CaptureFault::S3(Arc::new(error)))
            }
            Self::Folder(folder) => {
                let path = folder.join(name);
                // Beside its place first: a reader never sees half of it.
                let beside = path.with_extension("part");
                let written = async {
                    if let Some(folder) = path.parent() {
                        tokio::fs::create_dir_all(folder).await?;
                    }
                    tokio::fs::write(&beside, lines).await?;
                    tokio::fs::rename(&beside, &path).await
                };
                written.await.map_err(CaptureFault::File)
            }
        }
    }
}

/// `05ad4ba1/9d1c….jsonl`; none without pairs.
fn name(pairs: &[Pair<'_>]) -> Option<String> {
    let model: String = pairs.first()?.model.chars().take(MODEL_DIGITS).collect();
    let mut identities = Identities::default();
    pairs.iter().for_each(|pair| identities.add(&pair.id));
    Some(format!("{model}/{}.jsonl", identities.hash()))
}
