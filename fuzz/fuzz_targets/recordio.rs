//! The body of a request to `sawlog serve` in recordio frames of protobuf: see [`sawlog_fuzz::bodies`].
#![no_main]

use libfuzzer_sys::fuzz_target;
use sawlog_fuzz::{bodies, content::ContentType};

fuzz_target!(|data: &[u8]| bodies::read(ContentType::Recordio, data));
