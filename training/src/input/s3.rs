//! Objects in S3 as inputs: found by the beginning of their keys, read as streams.
//!
//! An object is never in memory as a whole, nor on disk. Whatever breaks off is taken up again where it
//! broke off, and only if the object is still the one that was begun.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::primitives::ByteStream;
use bytes::{Buf, Bytes};
use sawlog_lambda::handler::chain;
use tokio::runtime::Runtime;

use super::InputError;
use crate::aws;

/// Threads that hold the connections and decrypt: those that parse wait in [`Read::read`].
const CONNECTION_THREADS: usize = 2;
/// How often reading is taken up again in the same place before the object is given up. The SDK tries each
/// of these calls three times by itself.
const MAX_RESUMES: u32 = 4;
/// The pause before it is first taken up; doubled each time.
const RESUME_PAUSE: Duration = Duration::from_millis(200);

/// The client of S3, for threads that are not asynchronous.
#[derive(Debug)]
pub(crate) struct S3 {
    runtime: Runtime,
    client: Client,
}

impl S3 {
    /// By the process's own environment: region, credentials and address. Nothing is asked yet.
    ///
    /// # Errors
    /// If no thread can be started.
    pub(crate) fn connect() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(CONNECTION_THREADS)
            .enable_all()
            .build()?;
        let client = runtime.block_on(sawlog_lambda::app::s3_client());
        Ok(Self { runtime, client })
    }
}

/// An object that may be read.
#[derive(Debug, Clone)]
pub(crate) struct Object {
    s3: Arc<S3>,
    bucket: Arc<str>,
    key: String,
}

/// Finds the objects of `bucket/prefix`, with their sizes in bytes, in the order of their keys: all whose
/// keys begin with the prefix, or the one whose key it is. Keys that end in `/` are folders' place-holders.
///
/// # Errors
/// [`InputError`] with `argument` and what S3 says, or if there is no object.
pub(crate) fn find(
    s3: &Arc<S3>,
    argument: &str,
    url: &str,
) -> Result<Vec<(Object, u64)>, InputError> {
    let path = argument.to_owned();
    let (bucket, prefix) = split(argument, url)?;
    let bucket: Arc<str> = bucket.into();
    let list = async {
        let call = s3.client.list_objects_v2().bucket(&*bucket).prefix(prefix);
        let mut pages = call.into_paginator().send();
        let mut found = Vec::new();
        while let Some(page) = pages.try_next().await? {
            for listed in page.contents.unwrap_or_default() {
                let size = listed.size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0);
                let Some(key) = listed.key.filter(|key| !key.ends_with('/')) else { continue };
                let is_it = key == prefix;
                found.push((Object { s3: Arc::clone(s3), bucket: Arc::clone(&bucket), key }, size));
                // The first in order: no other key is shorter.
                if is_it {
                    return Ok(found);
                }
            }
        }
        Ok(found)
    };
    let found = s3.runtime.block_on(list);
    let found = found.map_err(|error: SdkError<_>| InputError::S3 {
        path: path.clone(),
        reason: aws::plain(&s3.client, &bucket, &error)
            .unwrap_or_else(|| format!("can't be listed: {}", said(&error))),
    })?;
    if found.is_empty() {
        return Err(InputError::Empty { path });
    }
    Ok(found)
}

/// The object of `bucket/key`, which is not looked for.
///
/// # Errors
/// [`InputError::Url`] with `name` if there is no bucket.
pub(crate) fn object(s3: &Arc<S3>, name: &str, url: &str) -> Result<Object, InputError> {
    let (bucket, key) = split(name, url)?;
    Ok(Object { s3: Arc::clone(s3), bucket: bucket.into(), key: key.to_owned() })
}

fn split<'u>(argument: &str, url: &'u str) -> Result<(&'u str, &'u str), InputError> {
    let (bucket, key) = url.split_once('/').unwrap_or((url, ""));
    match bucket {
        "" => Err(InputError::Url { path: argument.to_owned() }),
        bucket => Ok((bucket, key)),
    }
}

/// What S3 says in few words, or what happened to the call.
fn said<E: ProvideErrorMetadata + std::error::Error + 'static>(error: &SdkError<E>) -> String {
    let status = match error.raw_response() {
        Some(response) => format!(" (HTTP {})", response.status().as_u16()),
        None => String::new(),
    };
    match (error.code(), error.message()) {
        (Some(code), Some(message)) => format!("{code}: {message}{status}"),
        (Some(code), None) => format!("{code}{status}"),
        (None, _) => format!("{}{status}", chain(error)),
    }
}

impl Object {
    /// As records' places name it.
    pub(crate) fn url(&self) -> String {
        format!("s3://{}/{}", self.bucket, self.key)
    }

    /// Begins to read it.
    ///
    /// # Errors
    /// What S3 says.
    pub(crate) fn open(&self) -> io::Result<ObjectStream> {
        let got = self.get(0, None)?;
        let len = got.content_length.and_then(|len| u64::try_from(len).ok());
        Ok(ObjectStream {
            object: self.clone(),
            e_tag: got.e_tag,
            len,
            body: got.body,
            part: Bytes::new(),
            offset: 0,
            resumes: 0,
        })
    }

    /// Asks for its bytes from `offset` on, of the version with that tag.
    fn get(&self, offset: u64, e_tag: Option<&str>) -> io::Result<GetObjectOutput> {
        let call = self.s3.client.get_object().bucket(&*self.bucket).key(&self.key);
        let range = (offset > 0).then(|| format!("bytes={offset}-"));
        let call = call.set_range(range).set_if_match(e_tag.map(str::to_owned));
        let got = self.s3.runtime.block_on(call.send());
        got.map_err(|error| {
            let plain = aws::plain(&self.s3.client, &self.bucket, &error);
            let said = plain.unwrap_or_else(|| format!("can't be fetched: {}", said(&error)));
            io::Error::other(said)
        })
    }
}

/// The bytes of an object, as they come.
pub(crate) struct ObjectStream {
    object: Object,
    e_tag: Option<String>,
    /// Bytes of the whole object, if S3 has told.
    len: Option<u64>,
    body: ByteStream,
    /// What has come and is not read yet.
    part: Bytes,
    /// Bytes that have come.
    offset: u64,
    /// How often it was taken up since bytes last came.
    resumes: u32,
}

impl ObjectStream {
    fn resume(&mut self, why: &str) -> io::Result<()> {
        let gone = |why: &str| {
            let of = self.len.map(|len| format!(" of {len}")).unwrap_or_default();
            let kind = io::ErrorKind::UnexpectedEof;
            io::Error::new(
                kind,
                format!("broke off after {} bytes{of} as stored: {why}", self.offset),
            )
        };
        if self.resumes == MAX_RESUMES || self.len.is_some_and(|len| self.offset >= len) {
            return Err(gone(why));
        }
        std::thread::sleep(RESUME_PAUSE * 2_u32.pow(self.resumes));
        let got = self.object.get(self.offset, self.e_tag.as_deref());
        self.body = got.map_err(|error| gone(&error.to_string()))?.body;
        self.resumes += 1;
        Ok(())
    }
}

impl Read for ObjectStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.part.is_empty() {
            let next = self.object.s3.runtime.block_on(self.body.next());
            match next {
                Some(Ok(part)) => {
                    self.offset += part.len() as u64;
                    self.part = part;
                    self.resumes = 0;
                }
                Some(Err(error)) => self.resume(&chain(&error))?,
                None if self.len.is_some_and(|len| self.offset < len) => {
                    self.resume("the connection was closed")?;
                }
                None => return Ok(0),
            }
        }
        let count = self.part.len().min(buffer.len());
        self.part.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}
