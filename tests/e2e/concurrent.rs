//! One process with several invocations at once, as Lambda's managed instances have it: they share the
//! models, the clients and the counts, and each answers for its own records.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::batch::{Batch, Kafka, assert_same_ids};
use crate::deployment::{Deployment, TIMEOUT};
use crate::faults::ALL_DONE;
use crate::function::Function;
use crate::proxy::Fault;

const LEN: usize = 60;

#[test]
fn an_invocation_that_waits_for_its_table_lets_others_through_and_each_answers_for_its_own() {
    let deployment = Deployment::with_file(91);
    let variables = deployment.variables().set("AWS_LAMBDA_MAX_CONCURRENCY", "4");
    let function = Function::start(&variables);
    // The writes of one batch wait until the other three are answered.
    let (is_open, waits) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (opened, waiting) = (Arc::clone(&is_open), Arc::clone(&waits));
    deployment.proxy.rule(move |request, _| {
        let is_of_msk = String::from_utf8_lossy(&request.body).contains("kafka/751d2973");
        if is_of_msk && !opened.load(Ordering::Acquire) {
            waiting.store(true, Ordering::Release);
            return Fault::DelayUntil(Arc::clone(&opened));
        }
        Fault::None
    });
    let slow = Batch::new(Kafka::Msk, LEN);
    let quick = Batch::new(Kafka::SelfManaged, 2 * LEN);
    std::thread::scope(|scope| {
        let slow_answer = scope.spawn(|| function.invoke(&slow.event));
        let patience = Instant::now() + TIMEOUT;
        while !waits.load(Ordering::Acquire) {
            assert!(Instant::now() < patience, "no write of the batch that is to wait");
            std::thread::sleep(Duration::from_millis(5));
        }
        let quick_answers = [(); 3].map(|()| scope.spawn(|| function.invoke(&quick.event)));
        for answer in quick_answers {
            let answer = answer.join().expect("an answer");
            assert_eq!((answer.status, answer.body.as_str()), (200, ALL_DONE));
        }
        assert!(!slow_answer.is_finished(), "the others were answered before it");
        is_open.store(true, Ordering::Release);
        let answer = slow_answer.join().expect("an answer");
        assert_eq!((answer.status, answer.body.as_str()), (200, ALL_DONE), "{}", function.log());
    });
    let expected = slow.stored().into_iter().chain(quick.stored());
    let stored = deployment.stored();
    assert_same_ids("stored", expected, stored.iter().map(String::as_str));
    let letters = deployment.letters();
    let expected = slow.dead().into_iter().chain(quick.dead());
    assert_same_ids("dead-lettered", expected, letters.iter().map(String::as_str));

    // A line of metrics each, of its own records; the process started once.
    let log = function.log();
    let lines = log.lines().filter(|line| line.contains(r#""SinkRetries":"#));
    let lines: Vec<Value> =
        lines.map(|line| serde_json::from_str(line).expect("a line of json")).collect();
    let mut sizes: Vec<&Value> = lines.iter().map(|line| &line["Records"]).collect();
    sizes.sort_by_key(|size| size.as_u64());
    assert_eq!(sizes, [LEN, 2 * LEN, 2 * LEN, 2 * LEN]);
    let by_id: BTreeMap<&str, &Value> =
        lines.iter().map(|line| (line["requestId"].as_str().expect("an id"), line)).collect();
    assert_eq!(by_id.len(), 4, "an id each: {lines:?}");
    let cold: u64 = lines.iter().map(|line| line["ColdStart"].as_u64().expect("a count")).sum();
    assert_eq!(cold, 1);
}
