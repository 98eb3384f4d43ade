//! The release `bootstrap` as Lambda runs it: a process under a Runtime API, invoked over a socket,
//! with S3, DynamoDB, SQS and SNS servers beside it on loopback; and `sawlog serve`. `tests/run` sets up what these tests
//! need; without it they fail and say so, and none is skipped.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "in the code that the tests share a failure must end the test as it does in a test"
)]

mod alerts;
mod batch;
mod broker;
mod cold_start;
mod concurrent;
mod dead_letters;
mod deployment;
mod doctor;
mod endpoint;
mod events;
mod faults;
mod faults_model;
mod faults_process;
mod faults_s3;
mod faults_sinks;
mod from_s3;
mod from_topic;
mod function;
mod http;
mod kafka;
mod lambda;
mod ledger;
mod mapping;
mod process;
mod proxy;
mod publish;
mod publish_race;
mod results;
#[path = "../../training/tests/cli/rows.rs"]
mod rows;
mod serve;
mod serve_hostile;
mod servers;
mod shingle;
mod sources;
mod spark;
mod validation;
mod warm;
