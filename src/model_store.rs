//! Fetches a model's snapshot, from S3 or from a file, and verifies it.
//!
//! What stands in S3 may be a [pointer](crate::pointer): then the snapshot that it names is fetched from
//! beside it, and must be the one. What is known of the place, its version and when it was published, is
//! what is known of the pointer.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use aws_sdk_s3::error::SdkError;
use aws_sdk_s3::operation::get_object::GetObjectError;
use sawlog_model::{Model, SnapshotError};
use tokio::io::AsyncReadExt as _;

use crate::handler::status_of;
use crate::metrics::ms;
use crate::pointer::{ModelId, Pointer, PointerError, beside};

/// Longest snapshot that is loaded, in bytes. A forest of 100 trees of 256 samples has under a
/// megabyte; this is room for the largest, and less than a function of usual memory would die of.
pub const MAX_SNAPSHOT_LEN: u64 = 512 << 20;

/// Longest time for a whole snapshot to arrive. Small ones take a tenth of a second; one of the
/// greatest length has it at the rate a full-sized function gets from S3.
const FETCH_TIMEOUT: Duration = Duration::from_secs(20);

/// S3's answer to a conditional GET of what is known already.
const NOT_MODIFIED: u16 = 304;

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

/// What tells one content of a place from another without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Version {
    /// An object's entity tag.
    Tag(String),
    /// A file's state.
    File {
        /// When it was changed last.
        modified: SystemTime,
        /// Its length in bytes.
        len: u64,
    },
}

/// A model that can be used.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The model.
    pub model: Arc<Model>,
    /// When it was published: the Last-Modified of the object or of the pointer, the file's time of
    /// change.
    pub published: Option<SystemTime>,
}

/// What is in the place of a model.
#[derive(Debug)]
pub struct Found {
    /// Which content it is, if the place tells.
    pub version: Option<Version>,
    /// The model, or why this content will never be one.
    pub model: Result<Loaded, ModelFault>,
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
    #[error("can't be fetched{}", status_of(.0))]
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
    /// Over the limit: for a model [`MAX_SNAPSHOT_LEN`].
    #[error("has more bytes than the limit of {limit}")]
    TooLong {
        /// The limit, in bytes.
        limit: u64,
    },
    /// A text that is none.
    #[error("is not UTF-8")]
    NotText,
    /// Not here in time.
    #[error("did not arrive within {} s", FETCH_TIMEOUT.as_secs())]
    Timeout,
    /// What is there is what was there before.
    #[error("has not changed")]
    Unchanged,
    /// No snapshot that can be used.
    #[error("can't be used")]
    Snapshot(#[from] SnapshotError),
    /// The thread that decoded it did not come to an end.
    #[error("can't be decoded")]
    Decoder(#[source] tokio::task::JoinError),
    /// Begins as a pointer does, and is none.
    #[error(transparent)]
    Pointer(#[from] PointerError),
    /// The snapshot that a pointer names can't be had.
    #[error("points to {uri}")]
    Pointed {
        /// Where it is.
        uri: String,
        /// Why it can't.
        #[source]
        fault: Box<Self>,
    },
    /// A snapshot that isn't what its name says.
    #[error("is another model, {id}")]
    OtherModel {
        /// The id of the one that is there.
        id: String,
    },
    /// It was trained on a CSV whose columns it doesn't know, and records carry no header.
    #[error("does not name the columns of its csv; train it with `columns` in the specification")]
    NoColumns,
}

impl ModelStore {
    /// Where the model is, as the configuration has it.
    pub fn uri(&self) -> String {
        match self {
            Self::S3 { bucket, key, .. } => format!("s3://{bucket}/{key}"),
            Self::File(path) => format!("file://{}", path.display()),
        }
    }

    /// Fetches and verifies what is there, unless it is the content that is known already.
    ///
    /// # Errors
    /// [`ModelFault::Unchanged`] for the known content; any other if nothing can be had just now.
    pub async fn find(&self, known: Option<&Version>) -> Result<Found, ModelFault> {
        let fetch = async {
            match self {
                Self::S3 { client, bucket, key } => {
                    let content = fetch_object(client, bucket, key, MAX_SNAPSHOT_LEN, known);
                    follow(client, bucket, key, content.await?).await
                }
                Self::File(path) => {
                    let content = read_file(path, MAX_SNAPSHOT_LEN, known).await?;
                    Ok((content, None))
                }
            }
        };
        let started = Instant::now();
        let content = tokio::time::timeout(FETCH_TIMEOUT, fetch).await;
        let (content, named) = content.unwrap_or(Err(ModelFault::Timeout))?;
        let Content { version, published, bytes } = content;
        let fetch_ms = ms(started.elapsed());
        let model = match bytes {
            Ok(bytes) => {
                let (started, len) = (Instant::now(), bytes.len());
                let model = decode(bytes).await;
                let model = match named {
                    Some(named) => named.check(model),
                    None => model,
                };
                let decode_ms = ms(started.elapsed());
                tracing::info!(uri = self.uri(), bytes = len, fetch_ms, decode_ms, "model fetched");
                model
            }
            Err(fault) => Err(fault),
        };
        let model = model.map(|model| Loaded { model: Arc::new(model), published });
        Ok(Found { version, model })
    }
}

/// What is in a place that is no model: at most so many bytes of text.
///
/// # Errors
/// [`ModelStoreError`] names the place and the fault.
pub async fn fetch_text(store: &ModelStore, max_len: u64) -> Result<String, ModelStoreError> {
    let fetch = async {
        let content = match store {
            ModelStore::S3 { client, bucket, key } => {
                fetch_object(client, bucket, key, max_len, None).await
            }
            ModelStore::File(path) => read_file(path, max_len, None).await,
        };
        String::from_utf8(content?.bytes?).map_err(|_| ModelFault::NotText)
    };
    let text = tokio::time::timeout(FETCH_TIMEOUT, fetch).await;
    let text = text.unwrap_or(Err(ModelFault::Timeout));
    text.map_err(|fault| ModelStoreError { uri: store.uri(), fault })
}

/// The snapshot that a pointer names.
struct Named {
    id: ModelId,
    uri: String,
}

impl Named {
    fn fault(&self, fault: ModelFault) -> ModelFault {
        ModelFault::Pointed { uri: self.uri.clone(), fault: Box::new(fault) }
    }

    /// What was decoded, if it is the one.
    fn check(&self, model: Result<Model, ModelFault>) -> Result<Model, ModelFault> {
        match model {
            Ok(model) if model.id() == self.id.as_str() => Ok(model),
            Ok(other) => Err(self.fault(ModelFault::OtherModel { id: other.id().to_owned() })),
            Err(fault) => Err(self.fault(fault)),
        }
    }
}

/// If an object is a pointer, what it points to in its place. A pointer that can't be followed just now
/// is an error; one that is no good is the content's fault.
async fn follow(
    client: &aws_sdk_s3::Client,
    bucket: &str,
    key: &str,
    content: Content,
) -> Result<(Content, Option<Named>), ModelFault> {
    let Content { version, published, bytes } = content;
    let pointer = match bytes {
        Ok(bytes) if Pointer::is_one(&bytes) => Pointer::parse(&bytes),
        bytes => return Ok((Content { version, published, bytes }, None)),
    };
    let id = match pointer {
        Ok(pointer) => pointer.current.model,
        Err(error) => {
            return Ok((Content { version, published, bytes: Err(error.into()) }, None));
        }
    };
    let key = beside(key, &id.file_name());
    let named = Named { id, uri: format!("s3://{bucket}/{key}") };
    let snapshot = fetch_object(client, bucket, &key, MAX_SNAPSHOT_LEN, None).await;
    let bytes = snapshot.map_err(|fault| named.fault(fault))?.bytes;
    let bytes = bytes.map_err(|fault| named.fault(fault));
    Ok((Content { version, published, bytes }, Some(named)))
}

/// What is in the place of a model, not yet looked into.
struct Content {
    version: Option<Version>,
    published: Option<SystemTime>,
    /// Its bytes, or why they are not wanted.
    bytes: Result<Vec<u8>, ModelFault>,
}

/// Decodes a snapshot: milliseconds of nothing but work, so on a thread where no invocation waits.
async fn decode(bytes: Vec<u8>) -> Result<Model, ModelFault> {
    let decoded = tokio::task::spawn_blocking(move || {
        let model = Model::decode(&bytes)?;
        if model.features().spec().needs_header() {
            return Err(ModelFault::NoColumns);
        }
        Ok(model)
    });
    decoded.await.unwrap_or_else(|stopped| Err(ModelFault::Decoder(stopped)))
}

async fn fetch_object(
    client: &aws_sdk_s3::Client,
    bucket: &str,
    key: &str,
    max_len: u64,
    known: Option<&Version>,
) -> Result<Content, ModelFault> {
    let known = known.and_then(|version| match version {
        Version::Tag(tag) => Some(tag.clone()),
        Version::File { .. } => None,
    });
    let call = client.get_object().bucket(bucket).key(key).set_if_none_match(known);
    let mut object = call.send().await.map_err(|error| match error.raw_response() {
        Some(response) if response.status().as_u16() == NOT_MODIFIED => ModelFault::Unchanged,
        _ => ModelFault::Get(Box::new(error)),
    })?;
    let content = |bytes, tag: Option<String>| Content {
        version: tag.map(Version::Tag),
        published: object.last_modified.and_then(|time| SystemTime::try_from(time).ok()),
        bytes,
    };
    let announced = object.content_length.and_then(|len| u64::try_from(len).ok()).unwrap_or(0);
    let mut bytes = match checked_len(announced, max_len) {
        Ok(len) => Vec::with_capacity(len),
        Err(fault) => return Ok(content(Err(fault), object.e_tag)),
    };
    while let Some(chunk) = object.body.next().await {
        let chunk = chunk.map_err(|source| ModelFault::Body { got: bytes.len(), source })?;
        // What was announced need not be what comes.
        if let Err(fault) = checked_len((bytes.len() + chunk.len()) as u64, max_len) {
            return Ok(content(Err(fault), object.e_tag));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(content(Ok(bytes), object.e_tag))
}

async fn read_file(
    path: &Path,
    max_len: u64,
    known: Option<&Version>,
) -> Result<Content, ModelFault> {
    let file = tokio::fs::File::open(path).await.map_err(ModelFault::Read)?;
    // Asked before it is read: a file that changes meanwhile is read again at the next check.
    let metadata = file.metadata().await.map_err(ModelFault::Read)?;
    let published = metadata.modified().ok();
    let version = published.map(|modified| Version::File { modified, len: metadata.len() });
    if version.is_some() && version.as_ref() == known {
        return Err(ModelFault::Unchanged);
    }
    let content = |bytes| Ok(Content { version, published, bytes });
    let mut bytes = match checked_len(metadata.len(), max_len) {
        Ok(len) => Vec::with_capacity(len),
        Err(fault) => return content(Err(fault)),
    };
    let mut limited = file.take(max_len + 1);
    limited.read_to_end(&mut bytes).await.map_err(ModelFault::Read)?;
    content(checked_len(bytes.len() as u64, max_len).map(|_| bytes))
}

fn checked_len(len: u64, max_len: u64) -> Result<usize, ModelFault> {
    if len > max_len {
        return Err(ModelFault::TooLong { limit: max_len });
    }
    usize::try_from(len).map_err(|_| ModelFault::TooLong { limit: max_len })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scorer::tests::model;

    fn place() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("m.model");
        (folder, path)
    }

    #[tokio::test]
    async fn a_snapshot_is_loaded_from_a_file_and_known_again() {
        let (_folder, path) = place();
        let model = model(None);
        std::fs::write(&path, model.encode()).expect("written");
        let store = ModelStore::File(path.clone());
        let Found { version, model: found } = store.find(None).await.expect("there");
        assert_eq!(*found.expect("a model").model, model);
        let again = store.find(version.as_ref()).await.expect_err("known");
        assert!(matches!(again, ModelFault::Unchanged), "{again:?}");
        std::fs::write(&path, b"other").expect("written");
        let other = store.find(version.as_ref()).await.expect("changed");
        assert_ne!(other.version, version);
        assert!(matches!(other.model, Err(ModelFault::Snapshot(_))), "{other:?}");
    }

    #[tokio::test]
    async fn what_is_not_there_may_come_and_what_is_damaged_will_not_mend() {
        let (_folder, path) = place();
        let store = ModelStore::File(path.clone());
        let missing = store.find(None).await.expect_err("missing");
        assert!(matches!(missing, ModelFault::Read(_)), "{missing:?}");
        let mut bytes = model(None).encode();
        bytes[40] ^= 1;
        std::fs::write(&path, bytes).expect("written");
        let damaged = store.find(None).await.expect("there").model.expect_err("damaged");
        assert!(matches!(damaged, ModelFault::Snapshot(SnapshotError::Checksum { .. })));
    }

    #[tokio::test]
    async fn no_more_than_the_limit_is_read() {
        let (_folder, path) = place();
        std::fs::write(&path, [0; 11]).expect("written");
        let read = async |path: &Path, max_len| {
            read_file(path, max_len, None).await.expect("read").bytes.map(|bytes| bytes.len())
        };
        assert!(matches!(read(&path, 10).await, Err(ModelFault::TooLong { limit: 10 })));
        assert_eq!(read(&path, 11).await.expect("fits"), 11);
        // A device announces no length and never ends.
        assert!(matches!(read(Path::new("/dev/zero"), 10).await, Err(ModelFault::TooLong { .. })));
    }
}
