//! What a person, a workflow or a program asks of the function directly.
//!
//! - `{"instances": [{"features": [1.5, 16.0]}, …]}`, as one asks SageMaker's endpoint, also in its form
//!   `{"data": {"features": {"values": […]}}}`: feature values in the model's order. A number for a
//!   numeric feature, a string for a category, null for a value that is missing. The answer is
//!   `{"scores": [{"score": 0.02}, …]}`, and nothing is stored.
//! - `{"records": ["a line", {"ms": 12}, …]}`: log records, each a string or an object of JSON. The
//!   answer is `{"verdicts": […]}`. With an `"id": "batch-17"` they are stored and dead-lettered too, as
//!   records from anywhere are, and an invocation that is tried again changes nothing.
//!
//! `"model": "orders"` chooses the model as a topic of that name would.

use std::sync::Arc;

use sawlog_model::spec::Encoding;
use sawlog_model::{Features, Value};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{DecodeFault, Envelope, Event, MAX_RECORDS, Payload, Record, Source, name};
use crate::origin::Origin;

/// Most instances in one request: as many as fit one invocation of 6 MB with some sixty bytes each.
const MAX_INSTANCES: usize = 100_000;
/// Longest `id` and `model`, in bytes.
const MAX_NAME_LEN: usize = 256;

/// A request.
#[derive(Debug)]
pub struct Request<'a> {
    /// The topic whose model is asked.
    pub model: Option<Arc<str>>,
    /// The name under which records are stored.
    pub id: Option<Arc<str>>,
    /// What is to be scored.
    pub asked: Asked<'a>,
}

/// What is to be scored.
#[derive(Debug)]
pub enum Asked<'a> {
    /// Feature values, instance by instance.
    Instances(Vec<&'a RawValue>),
    /// Log records.
    Records(Event<'a>),
}

/// A request that can't be answered.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// A list that is none.
    #[error("`{field}` is no list")]
    NotAList {
        /// `instances` or `records`.
        field: &'static str,
    },
    /// Both kinds at once.
    #[error("the request has both `instances` and `records`; send one of them")]
    Both,
    /// A list that is too long.
    #[error("`{field}` has {got} entries; at most {limit} are scored at once")]
    TooMany {
        /// `instances` or `records`.
        field: &'static str,
        /// Its length.
        got: usize,
        /// The most.
        limit: usize,
    },
    /// A name that is none.
    #[error("`{field}` is not a string of 1 to {MAX_NAME_LEN} bytes")]
    Name {
        /// `id` or `model`.
        field: &'static str,
    },
    /// An id where nothing is stored.
    #[error("`id` is for `records`; of `instances` nothing is stored")]
    IdOfInstances,
    /// No model.
    #[error("MODEL_URI names no model for `model` {model:?}")]
    NoModel {
        /// As in the request.
        model: String,
    },
    /// An instance that can't be scored.
    #[error("instances[{index}]: {reason}")]
    Instance {
        /// Which, from 0.
        index: usize,
        /// Why.
        reason: String,
    },
    /// More than Lambda takes as an answer.
    #[error("the answer would have {len} bytes, and Lambda takes {limit}; send fewer records")]
    AnswerTooLong {
        /// Its length.
        len: usize,
        /// The greatest length.
        limit: usize,
    },
}

pub(super) fn read<'a>(envelope: &Envelope<'a>) -> Option<Result<Request<'a>, RequestError>> {
    let is_list = |raw: &&RawValue| raw.get().starts_with('[');
    if envelope.instances.is_none() && !envelope.records.as_ref().is_some_and(is_list) {
        return None;
    }
    Some(request(envelope))
}

fn request<'a>(envelope: &Envelope<'a>) -> Result<Request<'a>, RequestError> {
    let named = |field, raw: Option<&RawValue>| match raw {
        None => Ok(None),
        Some(_) => {
            let name = name(raw).filter(|name| name.len() <= MAX_NAME_LEN);
            name.map(|name| Some(Arc::from(name))).ok_or(RequestError::Name { field })
        }
    };
    let model: Option<Arc<str>> = named("model", envelope.model)?;
    let id: Option<Arc<str>> = named("id", envelope.id)?;
    let asked = match (envelope.instances, envelope.records) {
        (Some(_), Some(_)) => return Err(RequestError::Both),
        (Some(_), None) if id.is_some() => return Err(RequestError::IdOfInstances),
        (Some(instances), None) => Asked::Instances(list("instances", instances, MAX_INSTANCES)?),
        (None, records) => {
            let records = records.ok_or(RequestError::NotAList { field: "records" })?;
            Asked::Records(event(&list("records", records, MAX_RECORDS)?, &id, &model))
        }
    };
    Ok(Request { model, id, asked })
}

fn list<'a>(
    field: &'static str,
    raw: &'a RawValue,
    limit: usize,
) -> Result<Vec<&'a RawValue>, RequestError> {
    let entries: Vec<&'a RawValue> =
        serde_json::from_str(raw.get()).map_err(|_| RequestError::NotAList { field })?;
    if entries.len() > limit {
        return Err(RequestError::TooMany { field, got: entries.len(), limit });
    }
    Ok(entries)
}

fn event<'a>(
    records: &[&'a RawValue],
    id: &Option<Arc<str>>,
    model: &Option<Arc<str>>,
) -> Event<'a> {
    let mut event = Event::empty(Source::Direct, 0);
    for (index, text) in records.iter().enumerate() {
        let text = text.get();
        let (payload, fault) = match text.as_bytes() {
            [b'{', ..] => (Payload::Text(text), None),
            [b'"', ..] => match serde_json::from_str::<String>(text) {
                Ok(line) => (event.keep(line.as_bytes()), None),
                Err(error) => (Payload::Text(text), Some(DecodeFault::Record(Arc::new(error)))),
            },
            _ => (Payload::Text(text), Some(DecodeFault::NeitherTextNorObject)),
        };
        let origin = Origin::Direct { batch: id.clone(), model: model.clone(), index };
        event.records.push(Record {
            origin,
            timestamp_ms: None,
            group: 0,
            stream: 0,
            payload,
            fault,
        });
    }
    event
}

/// What an instance gives its values in.
#[derive(Debug, Clone, Copy)]
pub struct Form<'a> {
    /// The values, a list as a rule.
    pub values: &'a RawValue,
    /// In a sparse instance the index of each.
    pub keys: Option<&'a RawValue>,
    /// How many values there are with those that a sparse instance leaves out.
    pub shape: Option<&'a RawValue>,
}

impl<'a> Form<'a> {
    /// Reads `{"features": [...]}`, or `{"data": {"features": ...}}` with a list or with `values`, `keys`
    /// and `shape`; `None` for anything else.
    pub fn read(instance: &'a RawValue) -> Option<Self> {
        #[derive(Deserialize)]
        struct Instance<'a> {
            #[serde(borrow)]
            features: Option<&'a RawValue>,
            #[serde(borrow)]
            data: Option<Data<'a>>,
        }
        #[derive(Deserialize)]
        struct Data<'a> {
            #[serde(borrow)]
            features: &'a RawValue,
        }
        #[derive(Deserialize)]
        struct Tensor<'a> {
            #[serde(borrow)]
            values: &'a RawValue,
            #[serde(borrow)]
            keys: Option<&'a RawValue>,
            #[serde(borrow)]
            shape: Option<&'a RawValue>,
        }
        let is_object = |raw: &RawValue| raw.get().starts_with('{');
        if !is_object(instance) {
            return None;
        }
        let instance: Instance<'a> = serde_json::from_str(instance.get()).ok()?;
        match (instance.features, instance.data) {
            (None, Some(Data { features })) if is_object(features) => {
                let Tensor { values, keys, shape } = serde_json::from_str(features.get()).ok()?;
                Some(Self { values, keys, shape })
            }
            (Some(values), None) | (None, Some(Data { features: values })) => {
                Some(Self { values, keys: None, shape: None })
            }
            _ => None,
        }
    }
}

/// The values of one instance, one a feature; with a shingle those of each record of the point, the
/// newest last.
///
/// # Errors
/// What is wrong with it, by the name of the feature.
pub fn values(features: &Features, instance: &RawValue) -> Result<Vec<Value>, String> {
    let form = "it is not {\"features\": [...]} or {\"data\": {\"features\": {\"values\": [...]}}}";
    let list = match Form::read(instance).ok_or(form)? {
        Form { keys: Some(_), .. } => {
            return Err("it is sparse (`keys`); send every value".into());
        }
        Form { values, .. } => values,
    };
    let list: Vec<&RawValue> = serde_json::from_str(list.get()).map_err(|_| form)?;
    let specs = features.spec().features();
    let records = features.spec().shingle_size();
    if list.len() != records * specs.len() {
        let names: Vec<&str> = features.names().collect();
        let of =
            if records > 1 { format!(" for each of {records} records") } else { String::new() };
        return Err(format!(
            "it has {} values where the model has {} features ({}){of}",
            list.len(),
            specs.len(),
            names.join(", ")
        ));
    }
    let value = |(spec, raw): (&sawlog_model::spec::FeatureSpec, &&RawValue)| {
        let text = raw.get();
        let wrong = |what: &str| Err(format!("feature `{}` {what}", spec.name));
        match (&spec.encoding, text.as_bytes()) {
            (_, b"null") => Ok(Value::Missing),
            (Encoding::Number(_), [b'-' | b'0'..=b'9', ..]) => match text.parse::<f64>() {
                Ok(number) if number.is_finite() => Ok(Value::Number(number)),
                _ => wrong("is out of range"),
            },
            (Encoding::Number(_), _) => wrong("is not a number"),
            (_, [b'"', ..]) => match serde_json::from_str::<Box<str>>(text) {
                Ok(category) => Ok(Value::Category(category)),
                Err(_) => wrong("is not text"),
            },
            (_, _) => wrong("is a category: give it as a string"),
        }
    };
    specs.iter().cycle().zip(&list).map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{EventError, Invocation};
    use super::*;
    use crate::scorer::tests::model;

    fn raw(json: &str) -> Box<RawValue> {
        RawValue::from_string(json.to_owned()).expect("json")
    }

    #[test]
    fn records_are_lines_or_objects() {
        let raw =
            raw(r#"{"id":"b 1","model":"web","records":["a\tline",{"ms": 1.50},7,null,"\ud800"]}"#);
        let Ok(Invocation::Request(request)) = Invocation::read(&raw) else { panic!("no request") };
        assert_eq!((request.id.as_deref(), request.model.as_deref()), (Some("b 1"), Some("web")));
        let Asked::Records(event) = request.asked else { panic!("no records") };
        let payloads: Vec<_> = event.records.iter().map(|record| event.payload(record)).collect();
        assert_eq!(payloads[0].expect("a line"), b"a\tline");
        assert_eq!(payloads[1].expect("an object"), br#"{"ms": 1.50}"#);
        assert!(payloads[2..].iter().all(Result::is_err), "{payloads:?}");
        assert_eq!(event.records[1].origin.identity(), "direct/b%201/1");
        assert_eq!(event.records[1].origin.topic(), "web");
    }

    #[test]
    fn a_request_that_contradicts_itself_says_how() {
        let long = format!(r#"{{"records":[],"id":"{}"}}"#, "x".repeat(257));
        let many = format!(r#"{{"records":[{}]}}"#, vec!["0"; 10_001].join(","));
        for (json, words) in [
            (r#"{"instances":[],"records":[]}"#, "both"),
            (r#"{"instances":{}}"#, "`instances` is no list"),
            (r#"{"instances":[],"id":"x"}"#, "`id` is for `records`"),
            (r#"{"records":[],"id":7}"#, "`id` is not a string"),
            (r#"{"records":[],"model":""}"#, "`model` is not a string"),
            (&long, "`id` is not a string of 1 to 256 bytes"),
            (&many, "`records` has 10001 entries"),
        ] {
            let error = Invocation::read(&raw(json)).expect_err(words);
            assert!(matches!(error, EventError::Request(_)), "{error:?}");
            assert!(error.to_string().contains(words), "{error}");
        }
    }

    #[test]
    fn values_stand_in_the_order_of_the_features() {
        let model = model(None);
        let read = |json: &str| values(model.features(), &raw(json));
        let expected = Ok(vec![Value::Number(-1.5e3), Value::Category("/1".into())]);
        assert_eq!(read(r#"{"features":[-1.5e3,"/1"]}"#), expected);
        assert_eq!(read(r#"{"data":{"features":{"values":[-1500,"\/1"]}}}"#), expected);
        assert_eq!(read(r#"{"data":{"features":[-1500,"/1"]},"configuration":{}}"#), expected);
        let missing = Ok(vec![Value::Number(0.0), Value::Missing]);
        assert_eq!(read(r#"{"features":[0,null]}"#), missing);
        for (json, words) in [
            ("7", "it is not {\"features\": [...]}"),
            ("{}", "it is not"),
            (r#"{"features":7}"#, "it is not"),
            (
                r#"{"features":[1]}"#,
                "it has 1 values where the model has 2 features (duration_ms, path)",
            ),
            (r#"{"features":["a","b"]}"#, "feature `duration_ms` is not a number"),
            (r#"{"features":[1e999,"b"]}"#, "feature `duration_ms` is out of range"),
            (r#"{"features":[1,2]}"#, "feature `path` is a category"),
            (r#"{"data":{"features":{"values":[1],"keys":[0],"shape":[2]}}}"#, "it is sparse"),
        ] {
            let error = read(json).expect_err(words);
            assert!(error.contains(words), "{json}: {error}");
        }
    }
}
