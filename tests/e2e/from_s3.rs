//! Training from objects in S3: the same model as from files, whatever the network does; and errors that
//! name the object.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parquet::basic::Compression;
use tempfile::TempDir;

use crate::function::binary;
use crate::http::Message;
use crate::process::{free_port, local};
use crate::proxy::{Fault, Proxy, status};
use crate::rows;
use crate::servers::{ACCESS_KEY, REGION, S3, SECRET_KEY};

const SPEC: &str = r#"format = "json"
[[feature]]
name = "duration"
field = "/value/duration"
missing = "reject"
"#;
const BUCKET: &str = "archive";

struct Archive {
    s3: S3,
    proxy: Proxy,
    folder: TempDir,
}

impl Archive {
    fn start(seed: u64) -> Self {
        let s3 = S3::start();
        s3.create_bucket(BUCKET);
        let proxy = Proxy::before(&s3.url, seed);
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("spec.toml"), SPEC).expect("written");
        Self { s3, proxy, folder }
    }

    fn put(&self, key: &str, bytes: Vec<u8>) {
        self.s3.put(BUCKET, key, bytes);
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(binary("SAWLOG_CLI", "sawlog"));
        command.env_clear().args(line.split(' ')).current_dir(self.folder.path());
        command.env("AWS_ACCESS_KEY_ID", ACCESS_KEY).env("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
        command.env("AWS_REGION", REGION).env("AWS_EC2_METADATA_DISABLED", "true");
        command.env("AWS_ENDPOINT_URL_S3", &self.proxy.url);
        command
    }

    fn run(&self, line: &str) -> Output {
        self.command(line).output().expect("it starts")
    }

    fn ok(&self, line: &str) -> String {
        let run = self.run(line);
        assert!(run.status.success(), "{line}: {}", String::from_utf8_lossy(&run.stderr));
        String::from_utf8_lossy(&[run.stdout, run.stderr].concat()).into_owned()
    }

    fn fails(&self, line: &str) -> String {
        let run = self.run(line);
        let said = String::from_utf8_lossy(&run.stderr).into_owned();
        assert_eq!(run.status.code(), Some(1), "{line}: {said}");
        assert!(!said.contains("panicked"), "{said}");
        said
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.folder.path().join(name)).expect("it is there")
    }
}

/// Records as Kafka Connect wraps them.
fn lines(records: std::ops::Range<u64>) -> Vec<u8> {
    let line =
        |i: u64| format!("{{\"value\":{{\"duration\":{}}},\"offset\":{i}}}\n", i * 7919 % 9973);
    records.map(line).collect::<String>().into_bytes()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("compressed");
    encoder.finish().expect("compressed")
}

fn is_get_of_object(call: &Message) -> bool {
    call.first[0] == "GET" && !call.first[1].contains("list-type")
}

#[test]
fn all_objects_of_a_prefix_are_read_once_page_by_page() {
    let archive = Archive::start(61);
    // More than one page of a listing has.
    for at in 0..1_010_u64 {
        archive.put(&format!("logs/2026/11/21/{at:04}"), lines(3 * at..3 * at + 3));
    }
    archive.put("logs/", Vec::new());
    archive.put("logs/2026/11/22/a.gz", gzip(&lines(10_000..15_000)));
    archive.put("other/a", lines(0..1));
    let prefix = format!("s3://{BUCKET}/logs/");
    let said = archive.ok(&format!("sketch --spec spec.toml --input {prefix} --output whole"));
    assert!(said.contains("read       8,030 records"), "{said}");
    let day = format!("sketch --spec spec.toml --input {prefix} --since 2026-11-22 --output day");
    let said = archive.ok(&day);
    assert!(said.contains("read       5,000 records"), "{said}");
    // In parts, as workers that are given objects do it: one key may begin another.
    archive.put("logs/2026/11/21/0000.gz", gzip(&lines(20_000..20_500)));
    let first = format!("{prefix}2026/11/21/0000");
    let said = archive.ok(&format!("sketch --spec spec.toml --input {first} --output one"));
    assert!(said.contains("read       3 records"), "{said}");
    // All the others: their beginnings, as far as they are not the first one's.
    let rest =
        ["000", "00", "0"].iter().flat_map(|begin| (1..10).map(move |at| format!("{begin}{at}")));
    let rest = rest.chain(["1".to_owned()]).map(|begin| format!("{prefix}2026/11/21/{begin}"));
    let rest = rest.collect::<Vec<_>>().join(" ");
    let last = format!("{prefix}2026/11/22/a.gz");
    archive.ok(&format!("sketch --spec spec.toml --input {rest} {last} --output rest"));
    archive.ok("merge rest one --output merged");
    assert!(archive.bytes("merged") == archive.bytes("whole"));
    archive.ok(&format!("train --spec spec.toml --input {last} --output model"));
    let said = archive.ok(&format!("score --model model --input {first} --output scores"));
    assert!(said.contains("scored 3 of 3"), "{said}");
}

#[test]
fn what_breaks_off_is_taken_up_where_it_broke_off() {
    let archive = Archive::start(62);
    archive.put("logs/a.gz", gzip(&lines(0..100_000)));
    archive.put("logs/b", lines(100_000..200_000));
    let line = format!("sketch --spec spec.toml --input s3://{BUCKET}/logs/ --output");
    archive.ok(&format!("{line} well"));
    let taken_up = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&taken_up);
    archive.proxy.rule(move |call, _| {
        // The second half, then the third quarter and so on: each call gives half of what is left.
        let range = call.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("range"));
        if is_get_of_object(call) && counted.load(Ordering::SeqCst) < 4 {
            counted.fetch_add(u32::from(range.is_some()), Ordering::SeqCst);
            return Fault::Truncate;
        }
        Fault::None
    });
    archive.ok(&format!("{line} ill"));
    assert!(taken_up.load(Ordering::SeqCst) > 0, "nothing was taken up");
    assert!(archive.bytes("ill") == archive.bytes("well"));
}

#[test]
fn parquet_objects_are_read_as_files_are() {
    let archive = Archive::start(64);
    let path = |name: &str| archive.folder.path().join(name);
    let all = rows::rows(5000);
    std::fs::write(path("rows.toml"), rows::SPEC).expect("written");
    std::fs::write(path("rows.jsonl"), rows::json(&all)).expect("written");
    rows::write_parquet(&path("rows.parquet"), Compression::SNAPPY, &all);
    let bytes = archive.bytes("rows.parquet");
    archive.put("rows/a.parquet", bytes.clone());
    archive.put("cut/a.parquet", bytes[..bytes.len() / 2].to_vec());
    archive.ok("train --spec rows.toml --input rows.jsonl --trees 10 --output model");
    let scores = |input: &str| {
        archive.ok(&format!("score --model model --input {input} --format csv --output scores"));
        let text = String::from_utf8(archive.bytes("scores")).expect("text");
        let score = |line: &str| line.split(',').next().expect("a score").to_owned();
        text.lines().skip(1).map(score).collect::<Vec<_>>()
    };
    let want = scores("rows.jsonl");
    assert_eq!(want.len(), 5000);
    assert!(scores("rows.parquet") == want, "other scores of the file");
    // Its end comes by a second call.
    let gets = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&gets);
    archive.proxy.rule(move |call, _| {
        if is_get_of_object(call) && counted.fetch_add(1, Ordering::SeqCst) == 0 {
            return Fault::Truncate;
        }
        Fault::None
    });
    assert!(scores(&format!("s3://{BUCKET}/rows/")) == want, "other scores of the object");
    assert_eq!(gets.load(Ordering::SeqCst), 2, "not taken up where it broke off");
    let train = |prefix: &str, output: &str| {
        format!(
            "train --spec rows.toml --input s3://{BUCKET}/{prefix}/ --trees 10 --output {output}"
        )
    };
    let said = archive.ok(&train("rows", "other"));
    assert!(said.contains("kept       5,000"), "{said}");
    let said = archive.fails(&train("cut", "out"));
    assert!(
        said.contains("input s3://archive/cut/a.parquet: ") && said.contains("footer"),
        "{said}"
    );
    assert!(!path("out").exists());
}

#[test]
fn an_object_that_cannot_be_had_is_named() {
    let archive = Archive::start(63);
    archive.put("logs/a", lines(0..100));
    let gz = gzip(&lines(0..5_000));
    archive.put("cut/a.gz", gz[..gz.len() - 9].to_vec());
    let fails = |input: &str| {
        let said = archive.fails(&format!("train --spec spec.toml --input {input} --output model"));
        assert!(!Path::new(&archive.folder.path().join("model")).exists());
        said
    };
    let expect = |input: &str, words: &[&str]| {
        let said = fails(input);
        for words in words {
            assert!(said.contains(words), "{input}: want {words}, got {said}");
        }
    };
    expect(
        "s3://none/logs",
        &["input s3://none/logs: there is no bucket none: NoSuchBucket (HTTP 404)"],
    );
    expect("s3://archive/none", &["input s3://archive/none: it has no files"]);
    expect("s3:///none", &["input s3:///none: not s3://BUCKET/PREFIX"]);
    expect("s3://archive/cut", &["input s3://archive/cut/a.gz: at byte "]);
    // Without a region, and with nobody there.
    let nowhere = format!("http://{}", local(free_port()));
    for (name, value, words) in [
        ("AWS_REGION", None, "there is no AWS region: set AWS_REGION"),
        ("AWS_ENDPOINT_URL_S3", Some(&nowhere), &format!("S3 at {nowhere} can't be reached: ")),
    ] {
        let mut command = archive.command("score --model model --input s3://archive/logs");
        let model = archive.folder.path().join("model");
        std::fs::write(&model, crate::function::model()).expect("written");
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
        let run = command.output().expect("it starts");
        std::fs::remove_file(model).expect("removed");
        let said = String::from_utf8_lossy(&run.stderr);
        assert!(said.starts_with(&format!("sawlog: input s3://archive/logs: {words}")), "{said}");
    }
    let denied = || {
        let body = "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>";
        Fault::Answer(Message::answer(403, body.to_owned()).with("Content-Type", "application/xml"))
    };
    archive.proxy.rule(move |call, _| if is_get_of_object(call) { denied() } else { Fault::None });
    let words = "can't be fetched: AccessDenied: Access Denied (HTTP 403)";
    expect("s3://archive/logs", &["input s3://archive/logs/a: at byte 0", words]);
    archive.proxy.rule(move |_, _| denied());
    expect("s3://archive/logs", &["input s3://archive/logs: can't be listed: AccessDenied"]);
    archive.proxy.rule(|call, _| match is_get_of_object(call) {
        true => status(404),
        false => Fault::None,
    });
    expect("s3://archive/logs", &["input s3://archive/logs/a: at byte 0", "HTTP 404"]);
    archive.proxy.rule(|call, _| match is_get_of_object(call) {
        true => Fault::Truncate,
        false => Fault::None,
    });
    // Half of the rest each time, until there is no half.
    archive.proxy.rule(|call, _| {
        let is_range = call.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("range"));
        match is_get_of_object(call) {
            true if is_range => status(403),
            true => Fault::Truncate,
            false => Fault::None,
        }
    });
    expect(
        "s3://archive/logs",
        &["input s3://archive/logs/a: at byte ", "broke off after ", "HTTP 403"],
    );
}
