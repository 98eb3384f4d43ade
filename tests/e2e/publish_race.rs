//! Two publishers at once, two hundred times, while functions read: no move of the pointer is lost, no model
//! is torn, and no reader ever sees a bad one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sawlog_lambda::model_store::ModelStore;
use serde_json::Value;

use crate::batch::{Batch, Kafka};
use crate::deployment::TIMEOUT;
use crate::lambda::Lambda;
use crate::publish::{BUCKET, CURRENT, PLACE, Run, command, following, pointer, variant, write};
use crate::servers::S3;

const ROUNDS: usize = 200;
/// Models that take turns, two a round: more than a place of a round before has.
const MODELS: usize = 8;
/// Pauses between looks of a reader that is as eager as a fleet of cold starts.
const LOOK: Duration = Duration::from_millis(20);

/// The models of a pointer's moves by number.
fn moves(pointer: &Value) -> BTreeMap<u64, String> {
    let previous = pointer["previous"].as_array().expect("a list");
    let moves = std::iter::once(&pointer["current"]).chain(previous);
    let moved = |moved: &Value| {
        let number = moved["number"].as_u64().expect("a number");
        (number, moved["model"].as_str().expect("an id").to_owned())
    };
    moves.map(moved).collect()
}

#[test]
fn two_publishers_race_two_hundred_times_and_lose_nothing() {
    let s3 = S3::start_atomic();
    s3.create_bucket(BUCKET);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let models: Vec<(PathBuf, String)> = (1..=MODELS)
        .map(|at| write(folder.path(), &variant(f64::from(u8::try_from(at).expect("few")))))
        .collect();
    let known: BTreeSet<&str> = models.iter().map(|(_, id)| id.as_str()).collect();

    // The first race is for a pointer that isn't there yet.
    let publish = |at: usize| {
        let file = models[at].0.to_str().expect("text");
        command(&s3.url, &["publish", file, "--to", PLACE])
    };
    let race = |round: usize| {
        let pair = [2 * round % MODELS, (2 * round + 1) % MODELS];
        let children = pair.map(|at| publish(at).spawn().expect("sawlog runs"));
        for child in children {
            let output = child.wait_with_output().expect("ended");
            let text = [output.stdout, output.stderr].concat();
            let text = String::from_utf8_lossy(&text).into_owned();
            Run { ok: output.status.success(), text }.done(&["published as number"]);
        }
        pair
    };
    let mut before: BTreeMap<u64, String> = BTreeMap::new();
    let check = |before: &mut BTreeMap<u64, String>, round: usize, pair: [usize; 2]| {
        let after = moves(&pointer(&s3).expect("a pointer"));
        let last = 2 * (round as u64 + 1);
        assert_eq!(after.keys().next_back(), Some(&last), "round {round}: a move is lost");
        let both: BTreeSet<&String> = [&after[&(last - 1)], &after[&last]].into();
        let expected: BTreeSet<&String> = pair.map(|at| &models[at].1).into();
        assert_eq!(both, expected, "round {round}");
        for (number, model) in before.iter() {
            assert!(after.get(number).is_none_or(|now| now == model), "round {round}: {number}");
        }
        assert_eq!(after.len(), 100.min(2 * round + 2), "round {round}");
        *before = after;
    };
    check(&mut before, 0, race(0));

    let lambda = Lambda::new(&following(&s3.url, folder.path()), TIMEOUT);
    let is_over = AtomicBool::new(false);
    let (seen, invocations) = std::thread::scope(|scope| {
        // What a cold start does, again and again.
        let reader = scope.spawn(|| {
            let runtime = crate::servers::runtime();
            let client = s3.new_client();
            let (bucket, key) = (BUCKET.to_owned(), CURRENT.to_owned());
            let store = ModelStore::S3 { client, bucket, key };
            let mut seen: BTreeMap<String, usize> = BTreeMap::new();
            while !is_over.load(Ordering::Acquire) {
                let found =
                    runtime.block_on(store.find(None)).expect("a pointer that leads somewhere");
                let model = found.model.expect("a sound model").model;
                *seen.entry(model.id().to_owned()).or_default() += 1;
                std::thread::sleep(LOOK);
            }
            seen
        });
        // A warm function, whose checks run beside its batches.
        let function = scope.spawn(|| {
            let batch = Batch::new(Kafka::Msk, 20);
            let mut invocations = 0_usize;
            while !is_over.load(Ordering::Acquire) {
                let answer = lambda.invoke(&batch.event);
                assert_eq!(answer.status, 200, "{}", answer.body);
                invocations += 1;
                std::thread::sleep(LOOK);
            }
            invocations
        });
        let over = Over(&is_over);
        for round in 1..ROUNDS {
            check(&mut before, round, race(round));
        }
        drop(over);
        let seen = reader.join().expect("a reader that saw good models only");
        (seen, function.join().expect("a function that never failed"))
    });

    let looks: usize = seen.values().sum();
    assert!(seen.keys().all(|id| known.contains(id.as_str())), "{seen:?}");
    assert!(seen.len() == MODELS && looks >= ROUNDS, "{looks} looks: {seen:?}");
    let lines: Vec<Value> =
        lambda.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let metrics: Vec<&Value> = lines.iter().filter(|line| line.get("_aws").is_some()).collect();
    assert_eq!(metrics.len(), invocations);
    let sum = |name: &str| -> u64 {
        metrics.iter().map(|line| line[name].as_u64().expect("a count")).sum()
    };
    assert_eq!((sum("ModelsRefused"), sum("ModelChecksFailed")), (0, 0), "{}", lambda.log());
    assert!(sum("ModelsReplaced") >= 3, "replaced {} times", sum("ModelsReplaced"));
    let used: BTreeSet<&str> =
        metrics.iter().map(|line| line["model"].as_str().expect("an id")).collect();
    assert!(used.is_subset(&known), "{used:?}");
    assert_eq!(lambda.counts().cold_starts, 1);
    println!(
        "{ROUNDS} races: {looks} cold reads of {} models, {invocations} invocations, {} models replaced",
        seen.len(),
        sum("ModelsReplaced")
    );
}

/// Ends the readers, whatever ends the writers.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}
