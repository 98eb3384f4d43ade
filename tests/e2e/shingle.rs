//! A model whose points are made of several records, on real servers: which records have a score, and that
//! faults and redelivery change nothing about them.

use std::collections::BTreeSet;

use crate::batch::{Batch, Fate, Kafka, assert_same_ids, lines};
use crate::deployment::{Deployment, TIMEOUT};
use crate::faults::ALL_DONE;
use crate::function::model_of;
use crate::lambda::Lambda;
use crate::proxy::{Fault, throttled};
use crate::servers::S3;

const LEN: usize = 200;
/// Where a record is that can't be read.
const GAP: usize = 100;

const SPEC: &str = r#"
format = "json"
[[feature]]
name = "duration_us"
field = "/duration_us"
[[feature]]
name = "n_spans"
field = "/n_spans"
missing = "zero"
[shingle]
size = 4
"#;

/// One partition with a record in its middle that can't be read.
fn batch() -> Batch {
    let records = lines(LEN).into_iter().enumerate().map(|(offset, line)| match offset {
        GAP => {
            let payload = line[..line.len() / 2].to_vec();
            (payload.clone(), Fate::DeadLettered { reason: "json", payload: Some(payload) })
        }
        _ => (line, Fate::Stored),
    });
    Batch::of(Kafka::SelfManaged, records)
}

/// The first three records of a series have no score, at the beginning and after a gap.
fn scored(batch: &Batch) -> BTreeSet<String> {
    let early = [0, 1, 2, GAP, GAP + 1, GAP + 2, GAP + 3];
    let early = early.map(|offset| Kafka::SelfManaged.identity(0, offset));
    let ids = batch.fates.keys().filter(|id| !early.contains(id));
    ids.cloned().collect()
}

#[test]
fn each_record_with_history_is_stored_once_and_the_same_however_often_it_comes() {
    let (deployment, s3) = (Deployment::with_queue(61), S3::start());
    s3.create_bucket("models");
    s3.put("models", "shingled", model_of(SPEC));
    let variables = deployment.variables();
    let variables =
        variables.set("MODEL_URI", "s3://models/shingled").set("AWS_ENDPOINT_URL_S3", &s3.url);
    let lambda = Lambda::new(&variables, TIMEOUT);
    let batch = batch();
    let expected = scored(&batch);
    assert_eq!(expected.len(), LEN - 7);

    // Some of it is written, the rest fails the whole batch.
    let mut calls = 0;
    deployment.proxy.rule(move |_, _| {
        calls += 1;
        if calls > 3 { throttled() } else { Fault::None }
    });
    let answer = lambda.invoke(&batch.event);
    assert_eq!(answer.status, 500, "{}", answer.body);
    let before = deployment.dynamodb.items("results");
    assert!((1..expected.len()).contains(&before.len()), "{} stored", before.len());

    deployment.proxy.rule(|_, _| Fault::None);
    let mut items = Vec::new();
    for _delivery in 0..2 {
        let answer = lambda.invoke(&batch.event);
        assert_eq!((answer.status, answer.body.as_str()), (200, ALL_DONE));
        let stored = deployment.dynamodb.items("results");
        let ids = stored.keys().map(String::as_str);
        assert_same_ids("stored", expected.iter().map(String::as_str), ids);
        items.push(stored);
        let log = lambda.log();
        let line = log.lines().rfind(|line| line.contains(r#""NoHistory":"#)).expect("metrics");
        let line: serde_json::Value = serde_json::from_str(line).expect("a line of json");
        let counts = ["Records", "Stored", "DeadLettered", "NoHistory", "Failed"];
        let counts = counts.map(|name| line[name].as_u64().expect("a count"));
        assert_eq!(counts, [200, 193, 1, 6, 0], "{line}");
    }
    assert!(items[0] == items[1], "an item has changed");
    for (id, item) in before {
        assert!(items[0][&id] == item, "{id} has changed");
    }
    // One delivery failed after its letters were sent: three letters with one id.
    let letters: BTreeSet<String> = deployment.letters().into_iter().collect();
    assert_same_ids("dead-lettered", batch.dead(), letters.iter().map(String::as_str));
}
