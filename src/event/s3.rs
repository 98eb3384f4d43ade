//! Notifications of S3: which objects are new. Their lines are read elsewhere (`object.rs`).
//!
//! ```json
//! {"Records": [{"eventSource": "aws:s3", "eventName": "ObjectCreated:Put",
//!   "s3": {"bucket": {"name": "landed-logs"},
//!     "object": {"key": "web/a+b%2Bc.log", "versionId": "…", "eTag": "…"}}}]}
//! ```
//!
//! When notifications are set up, S3 sends `{"Event": "s3:TestEvent"}` once. It has no records.

use std::sync::Arc;

use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{DecodeFault, Envelope, Event, EventError, Source, name};

/// An object that is new.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The bucket.
    pub bucket: Arc<str>,
    /// The key, decoded.
    pub key: Arc<str>,
    /// Which version, in a bucket that keeps versions.
    pub version_id: Option<Arc<str>>,
    /// The ETag of what was put there, without quotes.
    pub etag: Option<Arc<str>>,
    /// Index of the key that it is filed under.
    pub(super) group: usize,
}

pub(super) fn decode<'a>(envelope: &Envelope<'a>) -> Result<Event<'a>, EventError> {
    let mut event = Event::empty(Source::S3, 0);
    if envelope.is_s3_test() {
        return Ok(event);
    }
    for (index, text) in envelope.list()?.into_iter().enumerate() {
        let text = text.get();
        let group = event.groups.len();
        event.groups.push(String::new());
        match read(text, group) {
            Ok(Some(notice)) => event.notices.push(notice),
            // Removed, tagged, restored: nothing new to read.
            Ok(None) => {}
            Err(fault) => event.push_unplaced(group, index, text, fault),
        }
    }
    Ok(event)
}

/// What is read of a notification; fields of any type.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields<'a> {
    #[serde(borrow)]
    event_name: Option<&'a RawValue>,
    #[serde(borrow)]
    s3: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Place<'a> {
    #[serde(borrow)]
    bucket: Option<&'a RawValue>,
    #[serde(borrow)]
    object: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Bucket<'a> {
    #[serde(borrow)]
    name: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Object<'a> {
    #[serde(borrow)]
    key: Option<&'a RawValue>,
    #[serde(borrow)]
    version_id: Option<&'a RawValue>,
    #[serde(borrow)]
    e_tag: Option<&'a RawValue>,
}

/// An object of JSON; anything else is a fault that names the field.
fn object<'a, T: Deserialize<'a>>(
    field: &'static str,
    raw: Option<&'a RawValue>,
) -> Result<T, DecodeFault> {
    let raw = raw.filter(|raw| raw.get().starts_with('{'));
    let raw = raw.ok_or(DecodeFault::Place { field, expected: "an object" })?;
    serde_json::from_str(raw.get()).map_err(|error| DecodeFault::Record(Arc::new(error)))
}

fn read(text: &str, group: usize) -> Result<Option<Notice>, DecodeFault> {
    if !text.starts_with('{') {
        return Err(DecodeFault::NotAnObject);
    }
    let fields: Fields<'_> =
        serde_json::from_str(text).map_err(|error| DecodeFault::Record(Arc::new(error)))?;
    let what = name(fields.event_name).unwrap_or_default();
    let what = what.strip_prefix("s3:").unwrap_or(&what);
    if !what.is_empty() && !what.starts_with("ObjectCreated:") {
        return Ok(None);
    }
    let place: Place<'_> = object("s3", fields.s3)?;
    let bucket: Bucket<'_> = object("s3.bucket", place.bucket)?;
    let object: Object<'_> = object("s3.object", place.object)?;
    let expected = "a string that is not empty";
    let bucket =
        name(bucket.name).ok_or(DecodeFault::Place { field: "s3.bucket.name", expected })?;
    let key = name(object.key).and_then(|key| decoded(&key));
    let key = key.ok_or(DecodeFault::Place { field: "s3.object.key", expected: "a key" })?;
    Ok(Some(Notice {
        bucket: bucket.into(),
        key: key.into(),
        // Of an object from before its bucket kept versions it is `null`.
        version_id: name(object.version_id).map(Arc::from),
        etag: name(object.e_tag).map(|etag| etag.trim_matches('"').into()),
        group,
    }))
}

/// A key as notifications have it: `+` for a space, `%XX` for other bytes.
fn decoded(key: &str) -> Option<String> {
    let spaces = key.replace('+', " ");
    percent_decode_str(&spaces).decode_utf8().ok().map(|key| key.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> Box<RawValue> {
        RawValue::from_string(json.to_owned()).expect("json")
    }

    fn event(record: &str) -> Box<RawValue> {
        raw(&format!(r#"{{"Records":[{{"eventSource":"aws:s3",{record}}}]}}"#))
    }

    #[test]
    fn a_notice_has_its_key_decoded_and_its_version() {
        let raw = event(
            r#""eventName":"ObjectCreated:Put","s3":{"bucket":{"name":"landed"},"object":{
            "key":"a%2Fb/2026-09-03+19%3A37%2B%C3%A9.gz","versionId":"v1","eTag":"b21b"}}"#,
        );
        let event = Event::decode(&raw).expect("an event");
        assert!(event.records.is_empty());
        assert_eq!(
            event.notices,
            [Notice {
                bucket: "landed".into(),
                key: "a/b/2026-09-03 19:37+é.gz".into(),
                version_id: Some("v1".into()),
                etag: Some("b21b".into()),
                group: 0,
            }]
        );
    }

    #[test]
    fn what_makes_no_object_is_passed_over() {
        for name in ["ObjectRemoved:Delete", "s3:ObjectTagging:Put", "LifecycleExpiration:Delete"] {
            let raw = event(&format!(r#""eventName":"{name}""#));
            let event = Event::decode(&raw).expect("an event");
            assert!(event.records.is_empty() && event.notices.is_empty(), "{name}");
        }
        let raw = raw(r#"{"Service":"Amazon S3","Event":"s3:TestEvent","Bucket":"landed"}"#);
        let event = Event::decode(&raw).expect("the test event");
        assert!(event.records.is_empty() && event.notices.is_empty());
    }

    #[test]
    fn a_notice_that_names_no_object_is_poison() {
        for (record, fault) in [
            (r#""s3":7"#, "its s3 is not an object"),
            (r#""s3":{"bucket":{"name":""},"object":{"key":"k"}}"#, "its s3.bucket.name is not"),
            (r#""s3":{"bucket":{"name":"b"},"object":{}}"#, "its s3.object.key is not"),
            (r#""s3":{"bucket":{"name":"b"},"object":{"key":"%FF"}}"#, "its s3.object.key is not"),
            (r#""s3":{"bucket":{"name":"b"}}"#, "its s3.object is not an object"),
        ] {
            let raw = event(record);
            let event = Event::decode(&raw).expect("an event");
            assert!(event.notices.is_empty());
            let got = event.payload(&event.records[0]).expect_err(record).to_string();
            assert!(got.contains(fault), "{record}: {got}");
            assert!(event.records[0].origin.identity().starts_with("unplaced/aws%3As3/0/"));
        }
    }
}
