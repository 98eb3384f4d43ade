//! The `sawlog` command as a user runs it: the real binary on real files.
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "in the code that the tests share a failure must end the test as it does in a test"
)]

mod commands;
mod compare;
mod diff;
mod evaluate;
mod folder;
mod formats;
mod half_life;
mod import;
mod manual;
mod reading;
mod report;
mod rows;
mod seeds;
mod sketch;
mod thresholds;
mod tune;
