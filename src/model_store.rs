//! Fetches the model's snapshot, from S3 or from a file, and verifies it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_sdk_s3::error::SdkError;
use aws_sdk_s3::operation::get_object::GetObjectError;
use sawlog_model::{Model, SnapshotError};
use tokio::io::AsyncReadExt as _;

/// Longest snapshot that is loaded, in bytes. A forest of 100 trees of 256 samples has under a
/// megabyte; this is room for the largest, and less than a function of usual memory would die of.
pub const MAX_SNAPSHOT_LEN: u64 = 512 << 20;

/// Longest time for a whole snapshot to arrive. Small ones take a tenth of a second; one of the
/// greatest length has it at the rate a full-sized function gets from S3.
const FETCH_TIMEOUT: Duration = Duration::from_secs(20);

/// Where the model comes from.
#[derive(Debug, Clone)]
pub enum ModelStore {
    /// An object in S3.
    S3 {
        /// The client.
        client: aws_sdk_s3::Client,
        /// The bucket.
        bucket: String,
        /// The key.
        key: String,
    },
    /// A file.
    File(PathBuf),
}

/// A model that can't be had.
#[derive(Debug, thiserror::Error)]
#[error("model {uri}")]
pub struct ModelStoreError {
    /// Where it was looked for.
    pub uri: String,
    /// Why it can't be had.
    #[source]
    pub fault: ModelFault,
}

/// Why a model can't be had.
#[derive(Debug, thiserror::Error)]
pub enum ModelFault {
    /// S3 refuses it, doesn't have it or can't be reached.
    #[error("can't be fetched")]
    Get(#[source] Box<SdkError<GetObjectError>>),
    /// The object's bytes stopped coming.
    #[error("broke off after {got} bytes")]
    Body {
        /// Bytes that came.
        got: usize,
        /// Why no more did.
        #[source]
        source: aws_sdk_s3::primitives::ByteStreamError,
    },
    /// The file can't be read.
    #[error("can't be read")]
    Read(#[source] std::io::Error),
    /// Over [`MAX_SNAPSHOT_LEN`].
    #[error("has more than {MAX_SNAPSHOT_LEN} bytes")]
    TooLong,
    /// Not here in time.
    #[error("did not arrive within {} s", FETCH_TIMEOUT.as_secs())]
    Timeout,
    /// No snapshot that can be used.
    #[error("can't be used")]
    Snapshot(#[from] SnapshotError),
    /// It was trained on a CSV whose columns it doesn't know, and records carry no header.
    #[error("does not name the columns of its csv; train it with `columns` in the specification")]
    NoColumns,
}

impl ModelStore {
    /// Fetches and verifies the model.
    ///
    /// # Errors
    /// [`ModelStoreError`] names the URI and the fault.
    pub async fn load(&self) -> Result<Model, ModelStoreError> {
        let fetched = tokio::time::timeout(FETCH_TIMEOUT, self.fetch()).await;
        let model = fetched.unwrap_or(Err(ModelFault::Timeout)).and_then(|bytes| {
            let model = Model::decode(&bytes)?;
            if model.features().spec().needs_header() {
                Err(ModelFault::NoColumns)
            } else {
                Ok(model)
            }
        });
        model.map_err(|fault| ModelStoreError { uri: self.uri(), fault })
    }

    fn uri(&self) -> String {
        match self {
            Self::S3 { bucket, key, .. } => format!("s3://{bucket}/{key}"),
            Self::File(path) => format!("file://{}", path.display()),
        }
    }

    async fn fetch(&self) -> Result<Vec<u8>, ModelFault> {
        match self {
            Self::S3 { client, bucket, key } => fetch_object(client, bucket, key).await,
            Self::File(path) => read_file(path, MAX_SNAPSHOT_LEN).await,
        }
    }
}

async fn fetch_object(
    client: &aws_sdk_s3::Client,
    bucket: &str,
    key: &str,
) -> Result<Vec<u8>, ModelFault> {
    let object = client.get_object().bucket(bucket).key(key).send().await;
    let mut object = object.map_err(|error| ModelFault::Get(Box::new(error)))?;
    let announced = object.content_length.and_then(|len| u64::try_from(len).ok()).unwrap_or(0);
    let mut bytes = Vec::with_capacity(checked_len(announced, MAX_SNAPSHOT_LEN)?);
    while let Some(chunk) = object.body.next().await {
        let chunk = chunk.map_err(|source| ModelFault::Body { got: bytes.len(), source })?;
        // What was announced need not be what comes.
        checked_len((bytes.len() + chunk.len()) as u64, MAX_SNAPSHOT_LEN)?;
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

async fn read_file(path: &Path, max_len: u64) -> Result<Vec<u8>, ModelFault> {
    let file = tokio::fs::File::open(path).await.map_err(ModelFault::Read)?;
    let announced = file.metadata().await.map_err(ModelFault::Read)?.len();
    let mut bytes = Vec::with_capacity(checked_len(announced, max_len)?);
    let mut limited = file.take(max_len + 1);
    limited.read_to_end(&mut bytes).await.map_err(ModelFault::Read)?;
    checked_len(bytes.len() as u64, max_len)?;
    Ok(bytes)
}

fn checked_len(len: u64, max_len: u64) -> Result<usize, ModelFault> {
    if len > max_len {
        return Err(ModelFault::TooLong);
    }
    usize::try_from(len).map_err(|_| ModelFault::TooLong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scorer::tests::model;

    #[tokio::test]
    async fn a_snapshot_is_loaded_from_a_file() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("m.model");
        let model = model(None);
        std::fs::write(&path, model.encode()).expect("written");
        assert_eq!(ModelStore::File(path).load().await.expect("loaded"), model);
    }

    #[tokio::test]
    async fn what_is_no_snapshot_is_refused_by_name_and_reason() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("m.model");
        let missing = ModelStore::File(path.clone()).load().await.expect_err("missing");
        assert!(matches!(missing.fault, ModelFault::Read(_)));
        let mut bytes = model(None).encode();
        bytes[40] ^= 1;
        std::fs::write(&path, bytes).expect("written");
        let damaged = ModelStore::File(path.clone()).load().await.expect_err("damaged");
        assert!(matches!(damaged.fault, ModelFault::Snapshot(SnapshotError::Checksum { .. })));
        assert_eq!(damaged.to_string(), format!("model file://{}", path.display()));
    }

    #[tokio::test]
    async fn no_more_than_the_limit_is_read() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("long");
        std::fs::write(&path, [0; 11]).expect("written");
        assert!(matches!(read_file(&path, 10).await, Err(ModelFault::TooLong)));
        assert_eq!(read_file(&path, 11).await.expect("fits").len(), 11);
        // A device announces no length and never ends.
        assert!(matches!(read_file(Path::new("/dev/zero"), 10).await, Err(ModelFault::TooLong)));
    }
}
