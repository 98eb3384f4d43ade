//! Functions that are killed, batches that come twice at once, batches of an unlikely form, and
//! clocks that can't be right.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::batch::{Batch, Fate, Kafka, assert_same_ids, lines};
use crate::deployment::{Deployment, TIMEOUT};
use crate::faults::ALL_DONE;
use crate::faults_sinks::{Unsure, account, epoch_ms_in, mend};
use crate::lambda::Lambda;
use crate::proxy::Fault;

#[test]
fn a_function_killed_in_the_middle_of_a_batch_leaves_nothing_that_redelivery_does_not_mend() {
    let deployment = Deployment::with_file(21);
    let lambda = deployment.lambda();
    let batch = Batch::new(Kafka::Msk, 1000);
    // Of 40 calls some go through and the others wait: the middle of the batch.
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    deployment.proxy.rule(move |_, _| {
        if counted.fetch_add(1, Ordering::Relaxed) < 12 { Fault::None } else { Fault::Hang }
    });
    let answer = std::thread::scope(|scope| {
        let invocation = scope.spawn(|| lambda.invoke(&batch.event));
        let patience = Instant::now() + TIMEOUT;
        while calls.load(Ordering::Relaxed) < 12 + 16 {
            assert!(Instant::now() < patience, "{calls:?} calls");
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(lambda.kill_one(0), "no function at work");
        invocation.join().expect("an answer")
    });
    assert_eq!(answer.status, 500, "{}", answer.body);
    let stored = deployment.stored().len();
    assert!((1..batch.stored().len()).contains(&stored), "{stored} stored before the kill");
    mend(&batch, &deployment, &lambda);
    assert_eq!(lambda.counts().cold_starts, 2);
}

#[test]
fn a_batch_delivered_twice_at_once_is_stored_once() {
    let deployment = Deployment::with_queue(22);
    let lambda = deployment.lambda();
    let batch = Batch::new(Kafka::SelfManaged, 1000);
    // Slow enough that the two are at work at the same time.
    deployment.proxy.rule(|_, _| Fault::Delay(Duration::from_millis(50)));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let answer = lambda.invoke(&batch.event);
                assert_eq!((answer.status, answer.body.as_str()), (200, ALL_DONE));
            });
        }
    });
    assert_eq!(lambda.counts().cold_starts, 2, "two functions");
    let stored = deployment.stored();
    assert_same_ids("stored", batch.stored(), stored.iter().map(String::as_str));
    // A standard queue has each letter once for each delivery, with the same id.
    let letters = deployment.letters();
    let distinct: BTreeSet<&str> = letters.iter().map(String::as_str).collect();
    assert_same_ids("dead-lettered", batch.dead(), distinct);
    assert_eq!(letters.len(), 2 * batch.dead().len());
}

#[test]
fn a_batch_of_poison_only_is_dead_lettered_and_done() {
    let deployment = Deployment::with_file(23);
    let poison = |reason| Fate::DeadLettered { reason, payload: None };
    let batch = Batch::of(
        Kafka::Msk,
        lines(300).into_iter().enumerate().map(|(index, line)| match index % 3 {
            0 => (line[..20].to_vec(), poison("json")),
            1 => (Vec::new(), poison("json")),
            _ => (b"{\"n_spans\": 3}".to_vec(), poison("duration_us")),
        }),
    );
    let lambda = deployment.lambda();
    mend(&batch, &deployment, &lambda);
    mend(&batch, &deployment, &lambda);
}

#[test]
fn an_empty_batch_is_done_without_a_call() {
    let deployment = Deployment::with_file(24);
    let lambda = deployment.lambda();
    for records in ["{}", r#"{"requests-0":[]}"#, r#"{"requests-0":[],"requests-1":[]}"#] {
        let event = format!(r#"{{"eventSource":"SelfManagedKafka","records":{records}}}"#);
        let answer = lambda.invoke(&event);
        assert_eq!((answer.status, answer.body.as_str()), (200, ALL_DONE), "{records}");
    }
    assert_eq!(deployment.proxy.counts().calls, 0);
    assert_eq!(deployment.letters(), Vec::<String>::new());
}

#[test]
fn ten_thousand_records_with_one_of_a_megabyte_end_where_they_belong() {
    let deployment = Deployment::with_file(25);
    let lambda = deployment.lambda();
    // What the features read of a request, for 10,000 of the whole would be more than an event holds.
    let short = |line: Vec<u8>| {
        let request: serde_json::Value = serde_json::from_slice(&line).expect("a json line");
        format!(r#"{{"duration_us":{},"n_spans":{}}}"#, request["duration_us"], request["n_spans"])
    };
    let megabyte = "x".repeat(1_000_000);
    let sound = format!(r#"{{"pad":"{megabyte}","duration_us":400000,"n_spans":40}}"#);
    let poison = format!(r#"{{"pad":"{megabyte}","n_spans":40}}"#);
    let payloads = lines(10_000).into_iter().enumerate().map(|(index, line)| match index {
        4000 => (sound.clone().into_bytes(), Fate::Stored),
        8000 => {
            let payload = poison.clone().into_bytes();
            let fate = Fate::DeadLettered { reason: "duration_us", payload: Some(payload.clone()) };
            (payload, fate)
        }
        _ => (short(line).into_bytes(), Fate::Stored),
    });
    let batch = Batch::of(Kafka::SelfManaged, payloads);
    mend(&batch, &deployment, &lambda);
}

#[test]
fn a_deadline_that_can_not_be_is_taken_for_none() {
    let deployment = Deployment::with_file(26);
    let lambda = deployment.lambda();
    let batch = Batch::new(Kafka::SelfManaged, 200);
    let hour = Duration::from_secs(3600);
    let now = epoch_ms_in(Duration::ZERO);
    for deadline_ms in [0, 600_000, now - 3_600_000, epoch_ms_in(hour), u64::MAX] {
        let answer = lambda.invoke_until(&batch.event, deadline_ms);
        assert_eq!((answer.status, answer.body.as_str()), (200, ALL_DONE), "{deadline_ms}");
        assert_eq!(account(&batch, &deployment, &answer, Unsure::No), 0);
    }
}

#[test]
fn records_of_any_time_are_stored_and_expire_within_the_term() {
    let deployment = Deployment::with_file(28);
    let lambda = deployment.lambda();
    let mut batch =
        Batch::of(Kafka::SelfManaged, lines(9).into_iter().map(|line| (line, Fate::Stored)));
    // Producers whose clocks are in 1970, before it, a year off, at the end of all numbers; and one right.
    let now = i64::try_from(epoch_ms_in(Duration::ZERO)).expect("a time of this age");
    let (day, year) = (86_400_000, 365 * 86_400_000);
    let times = [0, 1, -1, i64::MIN, now - year, now - day, now + day / 2, now + year, i64::MAX];
    let mut event: serde_json::Value = serde_json::from_str(&batch.event).expect("json");
    for (offset, time) in times.iter().enumerate() {
        event["records"]["requests-0"][offset]["timestamp"] = (*time).into();
    }
    batch.event = event.to_string();
    mend(&batch, &deployment, &lambda);
    // RESULTS_TTL_DAYS is 30; half of it at least is left, and a day may be begun.
    let term = now / 1000 + 15 * 86_400..=now / 1000 + 32 * 86_400;
    for (id, item) in deployment.dynamodb.items("results") {
        let expires_at: i64 = item["expires_at"].as_n().expect("a number").parse().expect("whole");
        assert!(term.contains(&expires_at), "{id} expires at {expires_at}, not in {term:?}");
    }
}

#[test]
fn a_deadline_already_near_is_answered_by_every_record_and_nothing_is_begun() {
    let deployment = Deployment::with_file(27);
    let variables = deployment.variables();
    let batch = Batch::new(Kafka::Msk, 200);
    let lambda = Lambda::new(&variables.clone().set("PARTIAL_BATCH", "true"), TIMEOUT);
    lambda.warm_up();
    // Less is left than the reserve of a second.
    let answer = lambda.invoke_until(&batch.event, epoch_ms_in(Duration::from_millis(800)));
    assert_eq!(account(&batch, &deployment, &answer, Unsure::No), batch.fates.len());
    assert_eq!(deployment.proxy.counts().calls, 0);
    mend(&batch, &deployment, &lambda);
    drop(lambda);

    let lambda = Lambda::new(&variables, TIMEOUT);
    lambda.warm_up();
    let answer = lambda.invoke_until(&batch.event, epoch_ms_in(Duration::from_millis(800)));
    assert_eq!(answer.status, 500, "without partial answers: {}", answer.body);
    mend(&batch, &deployment, &lambda);
}
