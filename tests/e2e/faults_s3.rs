//! S3 on a bad day where it has the logs themselves: refused, failing, damaged, slow, and a deadline that
//! comes in the middle of an object. An object that isn't read to its end fails the invocation; what was
//! stored of it is written again with the rest, under the same names.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::time::{Duration, Instant};

use crate::batch::assert_same_ids;
use crate::deployment::TIMEOUT;
use crate::faults_model::s3_error;
use crate::faults_sinks::epoch_ms_in;
use crate::function::Variables;
use crate::lambda::Lambda;
use crate::proxy::{Fault, Proxy, status};
use crate::servers::S3;
use crate::sources::{BUCKET, assert_refused, entries, ids, notice, request, variables};

/// As the notification in tests/events/s3.json has it, decoded.
const KEY: &str = "requests/2026-09-03 19:37.jsonl.gz";
const PLACE: &str = "s3://landed-logs/requests/2026-09-03 19:37.jsonl.gz";

/// An object of log lines behind a proxy, of which the first is poison.
struct Landed {
    folder: tempfile::TempDir,
    _s3: S3,
    proxy: Proxy,
    notice: String,
    /// Names of its lines, the poisoned one first.
    ids: Vec<String>,
}

impl Landed {
    fn start(seed: u64, len: usize, compress: impl FnOnce(&[u8]) -> Vec<u8>) -> Self {
        let s3 = S3::start();
        s3.create_bucket(BUCKET);
        let mut text = String::from("not json\n");
        (1..len).for_each(|at| text.push_str(&request(at)));
        let put = s3.put(BUCKET, KEY, compress(text.as_bytes()));
        let id = |line| {
            format!("s3/landed-logs/requests/2026-09-03%2019%3A37.jsonl.gz/{}/{line}", put.0)
        };
        Self {
            folder: tempfile::tempdir().expect("a temporary folder"),
            proxy: Proxy::before(&s3.url, seed),
            _s3: s3,
            notice: notice("s3.json", &put),
            ids: (1..=len).map(id).collect(),
        }
    }

    fn variables(&self) -> Variables {
        variables(self.folder.path()).set("AWS_ENDPOINT_URL_S3", &self.proxy.url)
    }

    /// How many lines are stored: lines of the object, each once.
    fn stored(&self) -> usize {
        let results = entries(self.folder.path(), "results.jsonl");
        let distinct: BTreeSet<&str> = ids(&results).collect();
        assert_eq!(distinct.len(), results.len(), "a line stored twice");
        let known: BTreeSet<&str> = self.ids[1..].iter().map(String::as_str).collect();
        assert!(distinct.is_subset(&known), "stored what is no line of the object");
        results.len()
    }

    /// The notification comes again and S3 is well: every line is where it belongs, once.
    fn mend(&self, lambda: &Lambda) {
        self.proxy.rule(|_, _| Fault::None);
        let answer = lambda.invoke(&self.notice);
        assert_eq!((answer.status, answer.body.as_str()), (200, "{}"), "{}", lambda.log());
        let results = entries(self.folder.path(), "results.jsonl");
        assert_same_ids("stored", self.ids[1..].iter().map(String::as_str), ids(&results));
        let dead = entries(self.folder.path(), "dead.jsonl");
        assert_same_ids("dead-lettered", [self.ids[0].as_str()], ids(&dead));
    }
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text).expect("compressed");
    encoder.finish().expect("compressed")
}

#[test]
fn an_object_that_s3_refuses_or_damages_fails_the_invocation_and_is_read_again() {
    let landed = Landed::start(51, 3000, gzip);
    let lambda = Lambda::new(&landed.variables(), TIMEOUT);
    for (fault, words) in [
        (s3_error(403, "AccessDenied"), "AccessDenied"),
        (s3_error(403, "RequestTimeTooSkewed"), "RequestTimeTooSkewed"),
        (s3_error(500, "InternalError"), "InternalError"),
        (status(503), "HTTP 503"),
        (Fault::Close, "can't be fetched"),
        (Fault::Truncate, "reading stopped at line"),
        (Fault::Corrupt, "reading stopped at line"),
    ] {
        let what = format!("{fault:?}");
        landed.proxy.rule(move |_, _| fault.clone());
        assert_refused(&lambda.invoke(&landed.notice), &[PLACE, words, "1 object is not read"]);
        // It fits one piece, and what can't be read to its end is not scored.
        assert_eq!(landed.stored(), 0, "{what}");
    }
    landed.mend(&lambda);
    landed.mend(&lambda);
    assert_eq!(lambda.counts().cold_starts, 1);
}

#[test]
fn an_object_that_comes_late_or_hangs_once_is_read_in_the_same_invocation() {
    let landed = Landed::start(52, 300, <[u8]>::to_vec);
    let lambda = Lambda::new(&landed.variables(), TIMEOUT);
    for fault in [Fault::Delay(Duration::from_secs(2)), Fault::Hang] {
        let what = format!("{fault:?}");
        let mut left = Some(fault);
        landed.proxy.rule(move |_, _| left.take().unwrap_or(Fault::None));
        let answer = lambda.invoke(&landed.notice);
        assert_eq!((answer.status, answer.body.as_str()), (200, "{}"), "{what}");
        assert_eq!(landed.stored(), 299, "{what}");
    }
    landed.mend(&lambda);
}

#[test]
fn a_deadline_in_the_middle_of_an_object_keeps_what_is_stored_and_reports_the_rest() {
    let landed = Landed::start(53, 25_000, <[u8]>::to_vec);
    let lambda = Lambda::new(&landed.variables(), TIMEOUT);
    lambda.warm_up();
    // Half of the object comes at once, and the other half would take most of a minute.
    for (fault, secs, words, stored) in [
        (Fault::Hang, 6, "there was no time left at line 1;", 0..1),
        (Fault::Drip, 20, "there was no time left at line 1", 9_999..24_999),
    ] {
        let what = format!("{fault:?}");
        landed.proxy.rule(move |_, _| fault.clone());
        let time = Duration::from_secs(secs);
        let deadline = Instant::now() + time;
        let answer = lambda.invoke_until(&landed.notice, epoch_ms_in(time));
        assert!(Instant::now() < deadline, "{what}: answered after the deadline");
        assert_refused(&answer, &[PLACE, words]);
        assert!(stored.contains(&landed.stored()), "{what}: {} stored", landed.stored());
    }
    landed.mend(&lambda);
    assert_eq!(lambda.counts().cold_starts, 1);
}
