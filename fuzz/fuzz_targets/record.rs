//! Any bytes as one record of a log, by specifications as people write them: the one input that a
//! stranger controls, since what a service logs is often what it was sent. The first byte picks the
//! specification; the rest is the record.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use sawlog_fuzz::{encodes, within};
use sawlog_model::{Features, ValidSpec, Value, read_record};

/// Specifications, each with records to learn from.
const CASES: [(&str, &[&str]); 6] = [
    (
        r#"
format = "json"
[[feature]]
name = "duration"
field = "/a"
transform = "log1p"
[[feature]]
name = "deep"
field = "/b/c~1d/1"
missing = "zero"
[[feature]]
name = "code"
field = "/s"
encode = "one_hot"
[[feature]]
name = "host"
field = "/b/h"
encode = "frequency"
"#,
        &[
            r#"{"a":1,"b":{"c/d":[1,2.5],"h":"x"},"s":"GET"}"#,
            r#"{"a":99,"b":{"c/d":[0,-7],"h":"y"},"s":404}"#,
            r#"{"a":"5e2","s":true}"#,
        ],
    ),
    (
        r#"
format = "json"
[[feature]]
name = "required"
field = "/a"
missing = "reject"
transform = "none"
[[feature]]
name = "whole"
field = "/"
[[feature]]
name = "list"
field = "/0"
"#,
        &[r#"{"a":1,"":2,"0":3}"#, r#"{"a":2,"":4,"0":9}"#],
    ),
    (
        r#"
format = "csv"
columns = ["a", "b", "c"]
[[feature]]
name = "c"
field = "c"
transform = "standard"
[[feature]]
name = "a"
field = "a"
encode = "frequency"
"#,
        &["x,1,2", "\"y, \"\"z\"\"\",2,3", "x,,-"],
    ),
    (
        r#"
format = "csv"
delimiter = ";"
columns = ["a"]
[[feature]]
name = "a"
field = "a"
missing = "reject"
"#,
        &["1", "2"],
    ),
    (
        r#"
format = "logfmt"
[[feature]]
name = "dur"
field = "dur"
transform = "robust"
[[feature]]
name = "level"
field = "level"
encode = "one_hot"
[[feature]]
name = "ok"
field = "ok"
missing = "zero"
"#,
        &["dur=1 level=info ok", "level=\"a \\\"b\\\"\" dur=3", "dur=9"],
    ),
    (
        r#"
format = "regex"
pattern = '^(?<host>\S+) \S+ \S+ \[[^\]]*\] "(?<method>\w+)? ?[^"]*" (?<status>\d{3}) (?<bytes>\d+|-)'
[[feature]]
name = "bytes"
field = "bytes"
[[feature]]
name = "status"
field = "status"
encode = "one_hot"
[[feature]]
name = "method"
field = "method"
encode = "frequency"
"#,
        &[
            r#"10.0.0.1 - - [1/Jan/2020:00:00:00 +0000] "GET / HTTP/1.1" 200 17"#,
            r#"10.0.0.2 - - [1/Jan/2020:00:00:00 +0000] "PUT / HTTP/1.1" 404 -"#,
            r#"10.0.0.3 - - [1/Jan/2020:00:00:00 +0000] "" 404 9"#,
        ],
    ),
];

static FEATURES: LazyLock<Vec<Features>> = LazyLock::new(|| {
    let fitted = |(toml, records): &(&str, &[&str])| {
        let spec = ValidSpec::from_toml(toml).expect("good specification");
        let read = |record: &&str| read_record(&spec, record.as_bytes()).expect("good record");
        let rows: Vec<Vec<Value>> = records.iter().map(read).collect();
        let rows: Vec<&[Value]> = rows.iter().map(Vec::as_slice).collect();
        Features::fit(spec.clone(), &rows).expect("not all constant")
    };
    CASES.iter().map(fitted).collect()
});

/// One record in memory: unquoted text, the ends of its columns, values. The search tables of the
/// regex stay, and are 2 MiB each at most.
const BASE: usize = 4 << 20;
const FACTOR: usize = 32;

fuzz_target!(|data: &[u8]| {
    let Some((&first, payload)) = data.split_first() else { return };
    let features = &FEATURES[usize::from(first) % CASES.len()];
    within(FACTOR * payload.len() + BASE, || encodes(features, payload));
});
