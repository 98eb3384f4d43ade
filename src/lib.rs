//! The Lambda: scores a batch of log records with a Random Cut Forest, inside the function.
//!
//! A Lambda is handed bytes and must answer which records failed. Between the two there is one
//! pass, in one direction, and each step has a room of its own:
//!
//! ```text
//! bytes -> Event -> Record -> Point -> Score -> Verdict -> Outcome -> response
//!          event    event     scorer   scorer   verdict    sinks      response
//! ```
//!
//! - [`event`] finds out which source called and takes every record out by itself, so that a record
//!   that can't be read never fails its neighbours. Each record carries its [`origin`] to the end.
//!   [`object`] does the same for the lines of objects in S3.
//! - [`scorer`] makes points of the payloads, by the features that the model was trained with, and
//!   scores the whole batch in one call.
//! - [`verdict`] is what is said of one record: its score, the threshold, and for an anomaly the
//!   features that it comes from.
//! - [`sinks`] store verdicts and keep dead letters: records that no retry will ever make readable.
//! - [`summary`] is what is said of the records of a batch together.
//! - [`alert`] is what a person on call is told of the anomalies that are stored.
//! - [`response`] turns the outcomes into the answer that the event source expects.
//!
//! - [`trust`] says whether the local model can be trusted with a batch, and who scores it if not.
//! - [`endpoint`] is the SageMaker endpoint that stands in for it then.
//!
//! Only [`handler`] knows the whole way. [`config`] and [`app`] are the cold start, with
//! [`models`] and [`model_store`], which choose and fetch the models, [`mod@pointer`], by which one of several
//! is in use, and [`model_slot`], which keeps each of them fresh; [`deadline`] says until when work may go on.
//!
//! [`content`] is what SageMaker's endpoints are asked and answer, for `sawlog serve`.
//! [`validation`] compares what the local model says with what an endpoint says of a share of the records.
//!
//! [`metrics`] writes one line an invocation for CloudWatch.
//!
//! Every record ends as exactly one [`handler::Outcome`]: stored, dead-lettered or failed. What is
//! failed is handed out again by the source, and writes are keyed by the record's identity, so that
//! the second time changes nothing.
#![forbid(unsafe_code)]

pub mod alert;
pub mod app;
pub mod config;
pub mod content;
pub mod deadline;
pub mod endpoint;
pub mod event;
pub mod handler;
pub mod metrics;
pub mod model_slot;
pub mod model_store;
pub mod models;
pub mod object;
pub mod origin;
pub mod pointer;
pub mod response;
pub mod scorer;
pub mod sinks;
pub mod summary;
pub mod trust;
pub mod validation;
pub mod verdict;

pub use app::App;
pub use config::Config;
pub use metrics::Metrics;
pub use origin::Origin;
pub use verdict::Verdict;
