//! The ledger: every record produced, against what became of it. And the long proof: real log
//! records through a real topic, with poison, while functions are killed and the table throttles.
//!
//! `tests/ledger --records 1000000` runs it at length; among the other tests it is shorter.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::batch::{Kafka, TOPIC, lines};
use crate::broker::{Broker, Produced};
use crate::deployment::Deployment;
use crate::mapping::Mapping;
use crate::proxy::{Draw, Fault, throttled};

/// Set by `tests/ledger`.
const RECORDS_VARIABLE: &str = "SAWLOG_LEDGER_RECORDS";
const DEFAULT_RECORDS: usize = 20_000;
/// Lines of the shipped log that are used; from there it begins again.
const LINES: usize = 46_874;
const PARTITIONS: usize = 8;
const SEED: u64 = 20_260_601;
/// A kill comes after a random time up to this.
const MAX_KILL_PAUSE_MS: u64 = 3000;
const THROTTLED_IN_THOUSAND: u64 = 50;

/// What a record is, and so where it must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Sound,
    Poison,
}

/// Every record produced, by identity.
#[derive(Default)]
pub(crate) struct Ledger(BTreeMap<String, Kind>);

/// What became of the records.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Balance {
    pub(crate) stored: usize,
    pub(crate) dead_lettered: usize,
    pub(crate) on_failure: usize,
    /// Dead letters that are there once more: a standard queue takes a redelivered one again.
    pub(crate) letters_again: usize,
}

impl Ledger {
    pub(crate) fn enter(&mut self, identity: String, kind: Kind) {
        let doubled = self.0.insert(identity, kind);
        assert!(doubled.is_none(), "two records of one place");
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    fn ids(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Counts, item by item. Fails unless every record is in exactly one place, the right one for
    /// its kind or the OnFailure destination, and nothing is anywhere that was not produced.
    pub(crate) fn balance(
        &self,
        stored: &BTreeSet<String>,
        letters: &[String],
        on_failure: &[String],
    ) -> Balance {
        let dead: BTreeSet<&str> = letters.iter().map(String::as_str).collect();
        let given_up: BTreeSet<&str> = on_failure.iter().map(String::as_str).collect();
        let mut wrong: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (id, kind) in &self.0 {
            let id = id.as_str();
            let places = (stored.contains(id), dead.contains(id), given_up.contains(id));
            let fault = match (kind, places) {
                (Kind::Sound, (true, false, false)) | (Kind::Poison, (false, true, false)) => {
                    continue;
                }
                (_, (false, false, true)) => continue,
                (_, (false, false, false)) => "lost",
                (Kind::Sound, (false, true, false)) => "sound, but dead-lettered",
                (Kind::Poison, (true, false, false)) => "poison, but stored",
                _ => "in several places",
            };
            wrong.entry(fault).or_default().push(id);
        }
        let everywhere = stored.iter().map(String::as_str).chain(dead.iter().copied());
        for id in everywhere.chain(given_up.iter().copied()) {
            if !self.0.contains_key(id) {
                wrong.entry("never produced").or_default().push(id);
            }
        }
        if !wrong.is_empty() {
            let mut message = format!("the ledger of {} records does not balance:", self.0.len());
            for (fault, ids) in wrong {
                let _ = write!(
                    message,
                    " {} {fault}, such as {:?};",
                    ids.len(),
                    &ids[..ids.len().min(5)]
                );
            }
            panic!("{message}");
        }
        Balance {
            stored: stored.len(),
            dead_lettered: dead.len(),
            on_failure: given_up.len(),
            letters_again: letters.len() - dead.len(),
        }
    }
}

/// Records of the shipped log for a topic of so many partitions; one in a hundred is poison, each
/// time of another kind.
pub(crate) fn log_records(len: usize, partitions: usize) -> impl Iterator<Item = (Produced, Kind)> {
    let lines = lines(len.min(LINES));
    (0..len).map(move |index| {
        let line = &lines[index % lines.len()];
        let (value, kind) = match index % 100 {
            37 => (poisoned(line, index / 100), Kind::Poison),
            _ => (Some(line.clone()), Kind::Sound),
        };
        let record = Produced {
            partition: i32::try_from(index % partitions).expect("a partition"),
            key: (index % 3 == 0).then(|| format!("key-{index}").into_bytes()),
            value,
            headers: if index % 5 == 0 { vec![("trace", vec![0, 200, 255])] } else { Vec::new() },
        };
        (record, kind)
    })
}

fn poisoned(line: &[u8], number: usize) -> Option<Vec<u8>> {
    match number % 4 {
        0 => None,
        1 => Some(line[..line.len() / 2].to_vec()),
        2 => {
            let mut bytes = line.to_vec();
            bytes[10] = 0xff;
            Some(bytes)
        }
        _ => {
            let text = String::from_utf8(line.to_vec()).expect("text");
            Some(text.replace("\"duration_us\"", "\"duration\"").into_bytes())
        }
    }
}

/// Produces records and enters them.
pub(crate) fn produce(broker: &Broker, records: Vec<(Produced, Kind)>, ledger: &mut Ledger) {
    let places: Vec<_> = records.iter().map(|(record, kind)| (record.partition, *kind)).collect();
    let offsets = broker.produce(TOPIC, records.into_iter().map(|(record, _)| record));
    for ((partition, kind), offset) in places.into_iter().zip(offsets) {
        ledger.enter(Kafka::SelfManaged.identity(partition, offset), kind);
    }
}

#[test]
fn the_ledger_balances_while_functions_are_killed_and_the_table_throttles() {
    let len = match std::env::var(RECORDS_VARIABLE) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{RECORDS_VARIABLE}={text}")),
        Err(_) => DEFAULT_RECORDS,
    };
    let started = Instant::now();
    let say = |text: &str| eprintln!("{:7.1} s  {text}", started.elapsed().as_secs_f64());
    let broker = Broker::start();
    broker.create_topic(TOPIC, i32::try_from(PARTITIONS).expect("a number"));
    let deployment = Deployment::with_queue(SEED);
    deployment.proxy.rule(|_, draw| {
        if draw.in_thousand(THROTTLED_IN_THOUSAND) { throttled() } else { Fault::None }
    });
    let lambda = deployment.lambda();

    let mut ledger = Ledger::default();
    let mut records = log_records(len, PARTITIONS);
    while ledger.len() < len {
        // A share at a time, to hold no more of a million in memory.
        produce(&broker, records.by_ref().take(50_000).collect(), &mut ledger);
    }
    drop(records);
    say(&format!("{len} records produced"));

    let mapping = Mapping { batch_size: 500, pollers: 4, ..Mapping::default() };
    let (progress, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let delivering = Instant::now();
    let delivered = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut draw = Draw::new(SEED + 1);
            while !over.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(draw.number() % MAX_KILL_PAUSE_MS));
                lambda.kill_one(draw.number());
            }
        });
        scope.spawn(|| show_progress(&progress, len, &over));
        // However the delivery ends: the other threads must see it.
        let _over = SetAtEnd(&over);
        mapping.deliver(&broker, &|event| lambda.invoke(event), &progress)
    });
    let seconds = delivering.elapsed().as_secs_f64();
    say(&format!("delivered in {seconds:.0} s; counting"));

    let stored = deployment.dynamodb.which_of("results", ledger.ids());
    let unexpected = deployment.dynamodb.count("results") - stored.len();
    assert_eq!(unexpected, 0, "items of records that were never produced");
    let balance = ledger.balance(&stored, &deployment.letters(), &delivered.on_failure);
    let (counts, calls) = (lambda.counts(), deployment.proxy.counts());
    say(&format!(
        "{len} records = {} stored + {} dead-lettered + {} given up; {} dead letters came twice",
        balance.stored, balance.dead_lettered, balance.on_failure, balance.letters_again
    ));
    say(&format!(
        "{} invocations, {} failed; {} functions killed, {} cold starts; \
         {} of {} calls of the table throttled",
        delivered.invocations,
        delivered.errors,
        counts.killed,
        counts.cold_starts,
        calls.faults,
        calls.calls
    ));
    let poison = len / 100 + usize::from(len % 100 > 37);
    assert_eq!((balance.stored, balance.dead_lettered), (len - poison, poison));
    assert!(counts.killed > 0 && calls.faults > 0, "nothing went wrong: {counts:?} {calls:?}");
}

struct SetAtEnd<'a>(&'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One line that moves, or on no terminal a line now and then.
fn show_progress(progress: &AtomicUsize, len: usize, over: &AtomicBool) {
    let terminal = std::io::stderr().is_terminal();
    let (started, mut shown) = (Instant::now(), 0);
    while !over.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(200));
        let done = progress.load(Ordering::Relaxed);
        let rate = done as f64 / started.elapsed().as_secs_f64();
        let left = (len - done.min(len)) as f64 / rate.max(1.0);
        let line =
            format!("{done} of {len} records delivered, {rate:.0} a second, {left:.0} s left");
        if terminal {
            eprint!("\r{line}   ");
            let _ = std::io::stderr().flush();
        } else if (done - shown) * 20 >= len {
            shown = done;
            eprintln!("{line}");
        }
    }
    if terminal {
        eprintln!();
    }
}
