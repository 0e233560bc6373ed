//! A status always fits into one document, whatever guests have written into it.

use haar_protocol::signed::{DOCUMENT_BYTES_MAX, open, seal};
use haar_protocol::status::{FailureCause, FailureReport, MicroserviceStatus, State, Status, fit};
use proptest::prelude::*;

use crate::fixtures::{key, microservice_status, route_status, status};

/// As many as one node was shown to run.
const MICROSERVICES_MAX: usize = 1_001;

fn failing(text: &str) -> MicroserviceStatus {
    MicroserviceStatus {
        state: State::BackOff,
        reason: Some(text.to_owned()),
        last_failure: Some(FailureReport {
            time_ms: haar_protocol::number::NUMBER_MAX,
            cause: FailureCause::Unreachable,
            details: text.to_owned(),
            backtrace: vec![text.to_owned(); 16],
            last_lines: vec![text.to_owned(); 10],
        }),
        ..microservice_status()
    }
}

fn running() -> MicroserviceStatus {
    MicroserviceStatus {
        state: State::Running,
        ..microservice_status()
    }
}

/// What arrives of a status. What matters most must be as it was.
fn arrives(sent: Status) -> Status {
    let essential = |status: &Status| {
        let counts = (status.sequence, status.applied, status.frames_refused);
        (
            counts,
            status.budget.clone(),
            status.link_key,
            status.engine.clone(),
        )
    };
    let before = essential(&sent);
    let envelope = seal(&fit(sent, DOCUMENT_BYTES_MAX), &key(2)).unwrap();
    let received: Status = open(&envelope, &key(2).public()).unwrap();
    assert_eq!(essential(&received), before);
    received
}

#[test]
fn a_status_that_fits_is_left_as_it_is() {
    assert_eq!(fit(status(), DOCUMENT_BYTES_MAX), status());
}

#[test]
fn backtraces_go_first_and_reasons_stay_while_there_is_room() {
    let mut sent = status();
    sent.microservices = vec![failing(&"x".repeat(500)); 80];
    let received = arrives(sent);
    let omitted = received.omitted.unwrap();
    assert_eq!((omitted.backtraces, omitted.last_lines), (80, 0));
    assert_eq!(omitted.described(), "80 backtraces");
    assert_eq!(
        received.microservices[79].reason.as_ref().unwrap().len(),
        500
    );
}

#[test]
fn one_endless_reason_costs_no_entry() {
    let mut sent = status();
    sent.microservices = vec![failing(&"x".repeat(500_000)), running()];
    let received = arrives(sent);
    assert_eq!(received.microservices.len(), 2);
    assert!(
        received.microservices[0]
            .reason
            .as_ref()
            .unwrap()
            .starts_with("xxx")
    );
    assert_eq!(
        received.omitted.unwrap().reasons,
        2,
        "the reason and the details"
    );
}

#[test]
fn entries_that_are_left_out_are_counted_by_state_and_troubled_ones_are_listed() {
    let mut sent = status();
    sent.microservices = vec![running(); 5_000];
    sent.microservices.push(failing("why"));
    sent.routes = vec![route_status(); 10_000];
    let received = arrives(sent);
    let omitted = received.omitted.unwrap();
    assert!(
        received
            .microservices
            .iter()
            .any(|one| one.state == State::BackOff)
    );
    let listed = received.microservices.len() as u64;
    assert_eq!(omitted.microservices[&State::Running] + listed, 5_001);
    assert_eq!(omitted.routes + received.routes.len() as u64, 10_000);
    assert!(listed > 500, "the room is used: {listed}");
}

fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![Just("\u{1}"), Just("\""), Just("\u{fffd}"), Just("x")];
    (piece, 0_usize..300).prop_map(|(piece, times)| piece.repeat(times))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]
    #[test]
    fn any_set_of_failures_fits_and_every_microservice_is_accounted_for(
        texts in proptest::collection::vec(text(), 1..6),
        count in 0..=MICROSERVICES_MAX,
        routes in 0_usize..6_000,
    ) {
        let mut sent = status();
        let each = texts.iter().cycle().take(count);
        sent.microservices = each.map(|text| failing(text)).collect();
        sent.routes = vec![route_status(); routes];
        for relay in &mut sent.relays {
            relay.reason = Some(texts[0].repeat(100));
        }
        sent.refused.as_mut().unwrap().reason = texts[0].repeat(100);
        let received = arrives(sent);
        let omitted = received.omitted.unwrap_or_default();
        let left_out: u64 = omitted.microservices.values().sum();
        prop_assert_eq!(received.microservices.len() as u64 + left_out, count as u64);
        prop_assert_eq!(received.routes.len() as u64 + omitted.routes, routes as u64);
    }
}
