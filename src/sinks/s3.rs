//! Bytes of dead letters that are too large for a message, as objects in S3.
//!
//! An object's key is made of the record's identity: delivered again, the same bytes are put under the
//! same key. It is a hash, since an identity may be longer than a key and have characters that S3 or
//! its users trip over.

use std::fmt::Write as _;
use std::sync::Arc;

use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::ByteStream;
use sha2::{Digest as _, Sha256};

use super::SinkError;
use super::retries::Retries;
use crate::config::S3Prefix;
use crate::deadline::Until;

/// A place in S3 for payloads.
#[derive(Debug, Clone)]
pub struct S3Payloads {
    client: Client,
    place: S3Prefix,
    retries: Retries,
}

impl S3Payloads {
    /// Payloads under a prefix.
    pub fn new(client: Client, place: S3Prefix) -> Self {
        Self { client, place, retries: Retries::default() }
    }

    /// Counts its tries after the first there: the client, which models and objects are read with too,
    /// does not.
    pub fn counting(self, retries: Retries) -> Self {
        Self { retries, ..self }
    }

    /// Where the payload of a record is put, as `s3://bucket/key`.
    pub fn uri(&self, identity: &str) -> String {
        format!("s3://{}/{}", self.place.bucket, self.key(identity))
    }

    /// Puts the payload of a record there.
    ///
    /// # Errors
    /// [`SinkError`]: why it is not there.
    pub async fn put(&self, identity: &str, payload: &[u8], until: Until) -> Result<(), SinkError> {
        let call = self.client.put_object().bucket(&self.place.bucket).key(self.key(identity));
        let call = call.body(ByteStream::from(payload.to_vec()));
        let call = call.customize().interceptor(self.retries.clone());
        match until.limit(call.send()).await {
            None => Err(SinkError::OutOfTime),
            Some(Ok(_)) => Ok(()),
            Some(Err(error)) => Err(SinkError::S3(Arc::new(error))),
        }
    }

    fn key(&self, identity: &str) -> String {
        format!("{}{}", self.place.prefix, sha256(identity.as_bytes()))
    }
}

/// SHA-256 in 64 hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    let mut hex = String::with_capacity(64);
    for byte in Sha256::digest(bytes) {
        // Writing to a string can't fail.
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_of_the_identity_alone() {
        let settings = aws_sdk_s3::Config::builder()
            .behavior_version_latest()
            .region(aws_sdk_s3::config::Region::new("eu-west-1"));
        let client = Client::from_conf(settings.build());
        let place = S3Prefix { bucket: "dead".into(), prefix: "letters/".into() };
        let uri = S3Payloads::new(client, place).uri("abc");
        // NIST's example.
        let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(uri, format!("s3://dead/letters/{hash}"));
    }
}
