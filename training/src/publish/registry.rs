//! A place in S3 with models and the pointers to them: what of it is read and written, and what is made of
//! S3's answers.
//!
//! A pointer is written on the condition that it still is what was read (`If-Match`), or still isn't there
//! (`If-None-Match`). 412 says that somebody else has moved it since, 409 that somebody is doing so at this
//! moment; either way it is read again and decided anew. The SDK makes calls again whose answers are lost,
//! and may then be told 412 for its own write: so each move has a token, by which it is found again.

use std::hash::{BuildHasher as _, RandomState};
use std::time::{Duration, SystemTime};

use anyhow::{Context, anyhow, bail, ensure};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use sawlog_lambda::config::S3Prefix;
use sawlog_lambda::handler::{chain, status_of};
use sawlog_lambda::model_store::{Loaded, ModelStore};
use sawlog_lambda::pointer::{MAX_POINTER_LEN, ModelId, Move, Pointer, rfc3339};
use sawlog_model::Model;
use tokio::io::AsyncReadExt as _;
use tokio::runtime::Runtime;

use crate::aws;

/// Tries of a move: each that fails is one that somebody else has made.
const MAX_TRIES: u32 = 20;
/// Longest pause between two tries. One lasts some tens of milliseconds, and two who try in step would
/// trip over each other again.
const MAX_PAUSE: Duration = Duration::from_millis(400);
/// One try of a call, if it carries a snapshot: the largest there may be, at 10 MB/s.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(60);

/// Which pointer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    /// What functions follow.
    Current,
    /// What is yet to be tried.
    Candidate,
}

impl Which {
    /// The pointer's own name in its place.
    pub(crate) fn file_name(self) -> &'static str {
        match self {
            Self::Current => "current.json",
            Self::Candidate => "candidate.json",
        }
    }

    /// As a person reads it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Candidate => "candidate",
        }
    }
}

/// A pointer as it was read.
#[derive(Debug)]
pub(crate) struct Seen {
    /// The pointer.
    pub pointer: Pointer,
    tag: String,
}

/// What is to be done with a pointer that was read.
pub(crate) enum Next {
    /// It is moved.
    Move(Box<Move>),
    /// It is left as it is.
    Stay,
}

/// A place with models.
pub(crate) struct Registry {
    client: Client,
    runtime: Runtime,
    place: S3Prefix,
}

/// Reads the argument that names a place.
pub(crate) fn place(text: &str) -> Result<S3Prefix, String> {
    if let Some(name) = [".json", ".sawlog"].into_iter().find(|end| text.ends_with(end)) {
        // Models have names of their own there, made of their content.
        let folder = text.rsplit_once('/').map_or(text, |(folder, _)| folder);
        return Err(format!(
            "is an object's name (*{name}); give the folder for models and their pointer, {folder}"
        ));
    }
    text.parse().map_err(|_| "not s3://bucket/prefix".to_owned())
}

impl Registry {
    /// The place, with the process's credentials, region and endpoints.
    pub(crate) fn open(place: &S3Prefix) -> anyhow::Result<Self> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let client = runtime.block_on(sawlog_lambda::app::s3_client());
        Ok(Self { client, runtime, place: place.clone() })
    }

    /// Where a pointer is.
    pub(crate) fn uri(&self, which: Which) -> String {
        self.uri_of(which.file_name())
    }

    /// Where a model's snapshot is.
    pub(crate) fn snapshot_uri(&self, id: &ModelId) -> String {
        self.uri_of(&id.file_name())
    }

    /// The place itself, as a user names it.
    pub(crate) fn folder(&self) -> String {
        let S3Prefix { bucket, prefix } = &self.place;
        format!("s3://{bucket}/{}", prefix.trim_end_matches('/'))
    }

    fn uri_of(&self, name: &str) -> String {
        format!("s3://{}/{}{name}", self.place.bucket, self.place.prefix)
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.place.prefix)
    }

    /// Reads a pointer; `None` if there is none yet.
    ///
    /// # Errors
    /// With its place: S3 refuses it, or what is there is no pointer.
    pub(crate) fn read(&self, which: Which) -> anyhow::Result<Option<Seen>> {
        let uri = || self.uri(which);
        let key = self.key(which.file_name());
        let call = self.client.get_object().bucket(&self.place.bucket).key(key);
        let read = async {
            let object = match call.send().await {
                Ok(object) => object,
                Err(error) if error.code() == Some("NoSuchKey") => return Ok(None),
                Err(error) => return Err(self.refused("read", "s3:GetObject", error)),
            };
            let tag = object.e_tag.context("S3 gives no entity tag")?;
            let mut bytes = Vec::new();
            let body = object.body.into_async_read().take(MAX_POINTER_LEN as u64 + 1);
            std::pin::pin!(body).read_to_end(&mut bytes).await.context("broke off")?;
            Ok(Some((tag, bytes)))
        };
        let Some((tag, bytes)) = self.runtime.block_on(read).with_context(uri)? else {
            return Ok(None);
        };
        let pointer = Pointer::parse(&bytes).map_err(|error| {
            anyhow!(error).context(format!(
                "{}: restore an earlier version of it, or delete it and publish again, which begins a \
                 new history",
                uri()
            ))
        })?;
        Ok(Some(Seen { pointer, tag }))
    }

    /// Puts a snapshot under its id, unless it is there; true if it wasn't.
    ///
    /// # Errors
    /// With its place: S3 refuses it, or something else stands there under its name.
    pub(crate) fn upload(&self, id: &ModelId, bytes: Vec<u8>) -> anyhow::Result<bool> {
        let call = self
            .client
            .put_object()
            .bucket(&self.place.bucket)
            .key(self.key(&id.file_name()))
            .if_none_match("*")
            .body(bytes.into());
        let patient = TimeoutConfig::builder()
            .operation_attempt_timeout(SNAPSHOT_TIMEOUT)
            .operation_timeout(3 * SNAPSHOT_TIMEOUT)
            .build();
        let patient = aws_sdk_s3::config::Config::builder().timeout_config(patient);
        let put = self.runtime.block_on(call.customize().config_override(patient).send());
        match put {
            Ok(_) => Ok(true),
            // Somebody has put it there, or is just doing so.
            Err(error) if is_conflict(&error) => {
                self.fetch(id)?;
                Ok(false)
            }
            Err(error) => {
                let refused = self.refused("written", "s3:PutObject", error);
                Err(refused.context(self.snapshot_uri(id)))
            }
        }
    }

    /// The model under an id, verified.
    ///
    /// # Errors
    /// With its place: it can't be had, can't be used, or is another.
    pub(crate) fn fetch(&self, id: &ModelId) -> anyhow::Result<Model> {
        let store = ModelStore::S3 {
            client: self.client.clone(),
            bucket: self.place.bucket.clone(),
            key: self.key(&id.file_name()),
        };
        let uri = self.snapshot_uri(id);
        let found = self.runtime.block_on(store.find(None));
        let Loaded { model, .. } = found.and_then(|found| found.model).map_err(|fault| {
            anyhow!("{uri}: {}", aws::model_fault(&self.client, &self.place.bucket, &fault))
        })?;
        ensure!(
            model.id() == id.as_str(),
            "{uri}: holds other bytes than its name says: they are model {}; delete it and publish again",
            model.id()
        );
        // Decoded just now, so it is nobody else's.
        std::sync::Arc::into_inner(model).context("a model that is held twice")
    }

    /// Moves a pointer as `decide` wants it, which is asked again whenever somebody else was faster.
    /// Returns the pointer as it is then, and whether this moved it.
    ///
    /// # Errors
    /// Of `decide`, or with the pointer's place why it can't be moved.
    pub(crate) fn update(
        &self,
        which: Which,
        mut decide: impl FnMut(Option<&Seen>) -> anyhow::Result<Next>,
    ) -> anyhow::Result<(Option<Pointer>, bool)> {
        let mut tokens: Vec<String> = Vec::new();
        for tried in 0..MAX_TRIES {
            let seen = self.read(which)?;
            let is_mine = |moved: &Move| tokens.contains(&moved.token);
            if let Some(seen) = seen.as_ref().filter(|seen| seen.pointer.moves().any(is_mine)) {
                // Its answer was lost, and the next try found it done.
                return Ok((Some(seen.pointer.clone()), true));
            }
            let moved = match decide(seen.as_ref())? {
                Next::Stay => return Ok((seen.map(|seen| seen.pointer), false)),
                Next::Move(moved) => *moved,
            };
            tokens.push(moved.token.clone());
            let pointer = Pointer::after(seen.as_ref().map(|seen| &seen.pointer), moved);
            if self.write(which, seen.as_ref(), &pointer)? {
                return Ok((Some(pointer), true));
            }
            std::thread::sleep(pause(tried));
        }
        bail!("{}: somebody else moved it {MAX_TRIES} times in a row", self.uri(which))
    }

    /// Writes a pointer if it is as it was seen; false if it isn't.
    fn write(&self, which: Which, seen: Option<&Seen>, pointer: &Pointer) -> anyhow::Result<bool> {
        let uri = || self.uri(which);
        let json = pointer.to_json().with_context(uri)?;
        ensure!(json.len() <= MAX_POINTER_LEN, "{}: its history has grown too long", uri());
        let call = self
            .client
            .put_object()
            .bucket(&self.place.bucket)
            .key(self.key(which.file_name()))
            .content_type("application/json")
            .body(json.into());
        let call = match seen {
            Some(seen) => call.if_match(&seen.tag),
            None => call.if_none_match("*"),
        };
        let Err(error) = self.runtime.block_on(call.send()) else { return Ok(true) };
        // Deleted since it was read: S3 says that there is nothing to match.
        if is_conflict(&error) || (seen.is_some() && error.code() == Some("NoSuchKey")) {
            return Ok(false);
        }
        let refused = self.refused("written", "s3:PutObject", error).context(uri());
        // Without an answer it may have been written all the same.
        match self.read(which) {
            Ok(now) => {
                let is_written = now.is_some_and(|now| {
                    now.pointer.moves().any(|moved| moved.token == pointer.current.token)
                });
                if is_written { Ok(true) } else { Err(refused) }
            }
            Err(_) => Err(refused.context(format!(
                "it is not known whether {} was moved; `sawlog history` says",
                uri()
            ))),
        }
    }

    /// What S3 answered, and what would mend it.
    fn refused<E>(&self, what: &str, permission: &str, error: SdkError<E>) -> anyhow::Error
    where
        E: std::error::Error + ProvideErrorMetadata + 'static,
    {
        let bucket = &self.place.bucket;
        if let Some(plain) = aws::plain(&self.client, bucket, &error) {
            return anyhow!(plain);
        }
        let hint = match status(&error) {
            Some(403) if permission == "s3:GetObject" => format!(
                "; {permission} is needed on it, and s3:ListBucket on {bucket} to tell that it isn't \
                 there yet"
            ),
            Some(403) => format!("; {permission} is needed on it"),
            _ => String::new(),
        };
        anyhow!("can't be {what}{}: {}{hint}", status_of(&error), chain(&error))
    }
}

/// A move by this process, now.
pub(crate) fn new_move(
    seen: Option<&Seen>,
    model: &Model,
    how: sawlog_lambda::pointer::How,
) -> anyhow::Result<Move> {
    let token = RandomState::new().hash_one(std::process::id());
    Ok(Move {
        number: Pointer::next_number(seen.map(|seen| &seen.pointer)),
        model: id_of(model)?,
        bytes: model.snapshot_len() as u64,
        at: rfc3339(SystemTime::now()),
        how,
        token: format!("{token:016x}"),
        forced: None,
        overruled: Vec::new(),
    })
}

/// A model's id as a key.
pub(crate) fn id_of(model: &Model) -> anyhow::Result<ModelId> {
    Ok(ModelId::try_from(model.id().to_owned())?)
}

fn status<E>(error: &SdkError<E>) -> Option<u16> {
    error.raw_response().map(|answer: &HttpResponse| answer.status().as_u16())
}

/// True if a condition did not hold, or somebody else is writing.
fn is_conflict<E>(error: &SdkError<E>) -> bool {
    matches!(status(error), Some(409 | 412))
}

/// A random pause that grows.
fn pause(tried: u32) -> Duration {
    let most = MAX_PAUSE.min(Duration::from_millis(20) * 2_u32.saturating_pow(tried));
    let random = RandomState::new().hash_one(tried) % 1000;
    most * u32::try_from(random).unwrap_or_default() / 1000
}
