//! A table and a queue that throttle, fail, hang or are slow. After each: every record is stored,
//! dead-lettered or reported, item by item; and once the sink is well, redelivery mends the rest.

use std::collections::BTreeSet;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::batch::{Batch, Kafka, assert_same_ids};
use crate::deployment::{Deployment, TIMEOUT};
use crate::faults::{ALL_DONE, place, reported};
use crate::function::Answer;
use crate::lambda::Lambda;
use crate::proxy::{Fault, Proxy, denied, dynamodb_error, status, throttled};

/// Eight calls of the table.
const LEN: usize = 200;

/// A function that answers in part.
fn lambda(deployment: &Deployment) -> Lambda {
    let lambda = Lambda::new(&deployment.variables().set("PARTIAL_BATCH", "true"), TIMEOUT);
    lambda.warm_up();
    lambda
}

/// Calls of the sinks that the last invocation's metrics say were made again.
fn sink_retries(lambda: &Lambda) -> u64 {
    let log = lambda.log();
    let line = log.lines().rfind(|line| line.contains(r#""SinkRetries":"#)).expect("metrics");
    let line: serde_json::Value = serde_json::from_str(line).expect("a line of json");
    line["SinkRetries"].as_u64().expect("a count")
}

/// Milliseconds since 1970 so long from now.
pub(crate) fn epoch_ms_in(time: Duration) -> u64 {
    let then = (SystemTime::now() + time).duration_since(UNIX_EPOCH).expect("after 1970");
    u64::try_from(then.as_millis()).expect("a time of this age")
}

/// Whether a record that is reported may be written all the same: where the sink did what it was
/// asked to and the answer was lost or late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unsure {
    No,
    Yes,
}

/// Counts the batch against table, dead letters and answer; returns how many records are reported.
pub(crate) fn account(
    batch: &Batch,
    deployment: &Deployment,
    answer: &Answer,
    unsure: Unsure,
) -> usize {
    let reported = reported(answer);
    let distinct: BTreeSet<&str> = reported.iter().map(String::as_str).collect();
    assert_eq!(distinct.len(), reported.len(), "a record reported twice: {}", answer.body);
    let stored = deployment.stored();
    let letters = deployment.letters();
    let dead: BTreeSet<&str> = letters.iter().map(String::as_str).collect();
    assert_eq!(dead.len(), letters.len(), "a dead letter twice: {letters:?}");
    for id in batch.fates.keys() {
        let written = [stored.contains(id), dead.contains(id.as_str())];
        let places = written.iter().filter(|there| **there).count();
        let is_reported = distinct.contains(place(id));
        assert!(places <= 1, "{id} is stored and dead-lettered");
        assert!(places == 1 || is_reported, "{id} is lost");
        assert!(
            places == 0 || !is_reported || unsure == Unsure::Yes,
            "{id} is written, and reported too"
        );
    }
    let dead_ids = dead.iter().copied();
    let all: BTreeSet<&str> = stored.iter().map(String::as_str).chain(dead_ids).collect();
    assert!(all.iter().all(|id| batch.fates.contains_key(*id)), "records that were not sent");
    reported.len()
}

/// The batch is delivered again to a function whose sinks are well: all is done, and once.
pub(crate) fn mend(batch: &Batch, deployment: &Deployment, lambda: &Lambda) {
    deployment.proxy.rule(|_, _| Fault::None);
    let answer = lambda.invoke(&batch.event);
    assert_eq!((answer.status, answer.body.as_str()), (200, ALL_DONE), "delivered again");
    let (stored, letters) = (deployment.stored(), deployment.letters());
    assert_same_ids("stored", batch.stored(), stored.iter().map(String::as_str));
    assert_same_ids("dead-lettered", batch.dead(), letters.iter().map(String::as_str));
}

#[test]
fn a_table_that_throttles_or_fails_now_and_then_ends_stored() {
    let deployment = Deployment::with_file(11);
    let lambda = lambda(&deployment);
    let batch = Batch::new(Kafka::SelfManaged, LEN);
    let mut count = 0;
    deployment.proxy.rule(move |_, _| {
        // Every call fails once or twice in some way that passes; the SDK tries three times.
        count += 1;
        match count % 3 {
            0 => Fault::None,
            1 => throttled(),
            _ => [
                status(500),
                status(503),
                dynamodb_error(500, "InternalServerError"),
                Fault::Close,
                Fault::LoseAnswer,
                Fault::Truncate,
                Fault::Corrupt,
            ][count / 3 % 7]
                .clone(),
        }
    });
    let answer = lambda.invoke(&batch.event);
    let reported = account(&batch, &deployment, &answer, Unsure::Yes);
    assert!(reported < LEN, "nothing was stored: {}", answer.body);
    assert!(deployment.proxy.counts().faults > 0);
    assert!(sink_retries(&lambda) > 0, "the SDK's tries are counted");
    mend(&batch, &deployment, &lambda);
}

#[test]
fn a_table_that_only_throttles_or_fails_is_answered_by_every_record() {
    let deployment = Deployment::with_file(12);
    let lambda = lambda(&deployment);
    let batch = Batch::new(Kafka::Msk, LEN);
    // The last is what DynamoDB says to a clock that is off.
    let skewed = dynamodb_error(400, "InvalidSignatureException");
    for fault in [throttled(), status(500), status(503), denied(), Fault::Close, skewed] {
        let what = format!("{fault:?}");
        deployment.proxy.rule(move |_, _| fault.clone());
        let answer = lambda.invoke(&batch.event);
        let reported = account(&batch, &deployment, &answer, Unsure::No);
        assert_eq!(reported, batch.stored().len(), "{what}");
    }
    mend(&batch, &deployment, &lambda);
}

#[test]
fn items_left_unprocessed_are_written_in_later_rounds() {
    let deployment = Deployment::with_file(13);
    let lambda = lambda(&deployment);
    let batch = Batch::new(Kafka::SelfManaged, LEN);
    deployment.proxy.rule(|_, _| Fault::Unprocessed(400));
    let answer = lambda.invoke(&batch.event);
    assert_eq!((answer.status, answer.body.as_str()), (200, ALL_DONE));
    assert_eq!(account(&batch, &deployment, &answer, Unsure::No), 0);
    let calls = deployment.proxy.counts().calls;
    assert!(calls > 8, "{calls} calls");
    assert_eq!(sink_retries(&lambda), calls as u64 - 8, "every round after the first is counted");
    mend(&batch, &deployment, &lambda);
    assert_eq!(sink_retries(&lambda), 0);
}

#[test]
fn items_that_stay_unprocessed_are_reported_and_no_other() {
    let deployment = Deployment::with_file(14);
    let lambda = lambda(&deployment);
    let batch = Batch::new(Kafka::SelfManaged, LEN);
    deployment.proxy.rule(|_, _| Fault::Unprocessed(1000));
    let deadline = Instant::now() + Duration::from_secs(4);
    let answer = lambda.invoke_until(&batch.event, epoch_ms_in(Duration::from_secs(4)));
    assert!(Instant::now() < deadline, "answered after the deadline");
    assert_eq!(account(&batch, &deployment, &answer, Unsure::No), batch.stored().len());
    mend(&batch, &deployment, &lambda);
}

#[test]
fn a_slow_table_stores_what_it_can_before_the_deadline() {
    let deployment = Deployment::with_file(15);
    let lambda = lambda(&deployment);
    let batch = Batch::new(Kafka::SelfManaged, 2000);
    // Every second call takes longer than there is time, until all those in flight are such.
    let mut count = 0;
    deployment.proxy.rule(move |_, _| {
        count += 1;
        if count % 2 == 0 { Fault::Delay(Duration::from_secs(6)) } else { Fault::None }
    });
    let time = Duration::from_secs(5);
    let deadline = Instant::now() + time;
    let answer = lambda.invoke_until(&batch.event, epoch_ms_in(time));
    assert!(Instant::now() < deadline, "answered after the deadline");
    // What the proxy holds back when the function has answered still reaches the table.
    std::thread::sleep(Duration::from_secs(4));
    let reported = account(&batch, &deployment, &answer, Unsure::Yes);
    assert!((1..batch.stored().len()).contains(&reported), "{reported} reported");
    mend(&batch, &deployment, &lambda);
}

#[test]
fn a_table_that_hangs_is_tried_again_or_given_up_before_the_deadline() {
    let deployment = Deployment::with_file(16);
    let lambda = lambda(&deployment);
    let batch = Batch::new(Kafka::SelfManaged, LEN);
    deployment.proxy.rule(|_, _| Fault::Hang);
    let time = Duration::from_secs(3);
    let deadline = Instant::now() + time;
    let answer = lambda.invoke_until(&batch.event, epoch_ms_in(time));
    assert!(Instant::now() < deadline, "answered after the deadline");
    assert_eq!(account(&batch, &deployment, &answer, Unsure::No), batch.stored().len());

    // With time enough a try that hangs ends by the client's own time-out, and the next one goes through.
    let mut first = true;
    deployment.proxy.rule(
        move |_, _| {
            if std::mem::take(&mut first) { Fault::Hang } else { Fault::None }
        },
    );
    let answer = lambda.invoke(&batch.event);
    assert_eq!((answer.status, answer.body.as_str()), (200, ALL_DONE));
    assert_eq!(account(&batch, &deployment, &answer, Unsure::No), 0);
    mend(&batch, &deployment, &lambda);
}

#[test]
fn a_queue_that_fails_or_hangs_is_answered_by_every_poisoned_record() {
    let deployment = Deployment::with_queue(17);
    let proxy = Proxy::before(deployment.queue_server(), 17);
    let queue = deployment.queue().replace(deployment.queue_server(), &proxy.url);
    let variables = deployment
        .variables()
        .set("PARTIAL_BATCH", "true")
        .set("DEAD_LETTERS_URI", queue)
        .set("AWS_ENDPOINT_URL_SQS", &proxy.url);
    let lambda = Lambda::new(&variables, TIMEOUT);
    lambda.warm_up();
    let batch = Batch::new(Kafka::SelfManaged, LEN);
    for fault in [status(500), status(503), Fault::Close, Fault::Hang] {
        let what = format!("{fault:?}");
        proxy.rule(move |_, _| fault.clone());
        let time = Duration::from_secs(8);
        let deadline = Instant::now() + time;
        let answer = lambda.invoke_until(&batch.event, epoch_ms_in(time));
        assert!(Instant::now() < deadline, "{what}: answered after the deadline");
        let reported = account(&batch, &deployment, &answer, Unsure::No);
        assert_eq!(reported, batch.dead().len(), "{what}");
    }
    proxy.rule(|_, _| Fault::None);
    mend(&batch, &deployment, &lambda);
}
