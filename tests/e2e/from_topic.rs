//! From a real topic to the table and the queue, as an event source mapping brings it.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicUsize;

use crate::batch::TOPIC;
use crate::broker::{Broker, Produced};
use crate::deployment::Deployment;
use crate::function::MAX_EVENT_LEN;
use crate::lambda::Lambda;
use crate::ledger::{Balance, Kind, Ledger, log_records, produce};
use crate::mapping::{Delivered, Mapping, Reading};
use crate::proxy::{Fault, denied};

fn deliver(mapping: &Mapping, broker: &Broker, lambda: &Lambda) -> Delivered {
    mapping.deliver(broker, &|event| lambda.invoke(event), &AtomicUsize::new(0))
}

/// A topic of three partitions with records.
fn topic(records: Vec<(Produced, Kind)>) -> (Broker, Ledger) {
    let broker = Broker::start();
    broker.create_topic(TOPIC, 3);
    let mut ledger = Ledger::default();
    produce(&broker, records, &mut ledger);
    (broker, ledger)
}

#[test]
fn a_batch_that_was_not_committed_comes_again_and_changes_nothing() {
    let (broker, ledger) = topic(log_records(2500, 3).collect());
    let deployment = Deployment::with_file(1);
    let lambda = deployment.lambda();
    let lost = Mapping { lost_after: Some(2), ..Mapping::default() };
    assert_eq!(deliver(&lost, &broker, &lambda).invocations, 2);
    assert_eq!(deployment.stored().len() + deployment.letters().len(), 2000);

    let delivered = deliver(&Mapping::default(), &broker, &lambda);
    let balance = ledger.balance(&deployment.stored(), &deployment.letters(), &[]);
    let expected = Balance { stored: 2475, dead_lettered: 25, on_failure: 0, letters_again: 0 };
    assert_eq!(balance, expected);
    // The second thousand, which was not committed, and the rest.
    assert_eq!((delivered.invocations, delivered.max_records), (2, 1000));
    assert_eq!((delivered.errors, delivered.partial_answers), (0, 0));
    assert_eq!(deliver(&Mapping::default(), &broker, &lambda).invocations, 0, "all is committed");
}

/// A table that refuses three calls in ten, each for good: the SDK doesn't try again, the mapping does.
fn refused_now_and_then(partial: Option<Reading>) {
    let (broker, ledger) = topic(log_records(1500, 3).collect());
    let deployment = Deployment::with_queue(2);
    let variables = deployment.variables().set("PARTIAL_BATCH", partial.is_some().to_string());
    let lambda = Lambda::new(&variables, crate::deployment::TIMEOUT);
    deployment.proxy.rule(|_, draw| if draw.in_thousand(300) { denied() } else { Fault::None });
    let mapping = Mapping { batch_size: 100, pollers: 3, partial, ..Mapping::default() };
    let delivered = deliver(&mapping, &broker, &lambda);
    let balance = ledger.balance(&deployment.stored(), &deployment.letters(), &[]);
    assert_eq!((balance.stored, balance.dead_lettered), (1485, 15));
    match partial {
        None => assert!(delivered.errors > 5, "{delivered:?}"),
        Some(_) => {
            assert!(delivered.partial_answers > 5, "{delivered:?}");
            assert_eq!(delivered.errors, 0, "{delivered:?}");
        }
    }
}

#[test]
fn without_partial_answers_whole_batches_come_again_until_all_is_stored() {
    refused_now_and_then(None);
}

#[test]
fn partial_answers_read_as_items_that_come_again_lose_nothing() {
    refused_now_and_then(Some(Reading::ItemsAgain));
}

#[test]
fn partial_answers_read_as_the_offset_to_resume_at_lose_nothing() {
    refused_now_and_then(Some(Reading::ResumeAtOffset));
}

#[test]
fn bisecting_leaves_only_the_records_that_the_table_refuses_to_on_failure() {
    let (broker, ledger) = topic(log_records(300, 3).collect());
    let deployment = Deployment::with_file(3);
    let refused = ["kafka/requests/0/7", "kafka/requests/2/93"];
    deployment.proxy.rule(move |request, _| {
        let body = String::from_utf8_lossy(&request.body);
        let has = |id: &&str| body.contains(&format!("\"{id}\""));
        if refused.iter().any(has) { denied() } else { Fault::None }
    });
    let mapping =
        Mapping { batch_size: 100, bisect: true, max_retries: Some(1), ..Mapping::default() };
    let delivered = deliver(&mapping, &broker, &deployment.lambda());
    let given_up: BTreeSet<&str> = delivered.on_failure.iter().map(String::as_str).collect();
    assert_eq!(given_up, BTreeSet::from(refused), "given up");
    let balance =
        ledger.balance(&deployment.stored(), &deployment.letters(), &delivered.on_failure);
    let expected = Balance { stored: 295, dead_lettered: 3, on_failure: 2, letters_again: 0 };
    assert_eq!(balance, expected);
}

#[test]
fn large_records_come_in_events_of_six_megabytes() {
    // Real records with a field of 100 kB that no feature reads.
    let padded = |(mut record, kind): (Produced, Kind)| {
        if let Some(value) = &mut record.value {
            let pad = format!("{{\"pad\":\"{}\",", "x".repeat(100_000));
            value.splice(..1, pad.into_bytes());
        }
        (record, kind)
    };
    let (broker, ledger) = topic(log_records(120, 3).map(padded).collect());
    let deployment = Deployment::with_file(4);
    let mapping = Mapping { batch_size: 10_000, ..Mapping::default() };
    let delivered = deliver(&mapping, &broker, &deployment.lambda());
    let balance = ledger.balance(&deployment.stored(), &deployment.letters(), &[]);
    assert_eq!((balance.stored, balance.dead_lettered), (119, 1));
    let nearly = MAX_EVENT_LEN - 200_000..=MAX_EVENT_LEN;
    assert!(nearly.contains(&delivered.max_bytes), "{delivered:?}");
    assert_eq!(delivered.invocations, 3, "{delivered:?}");
}
