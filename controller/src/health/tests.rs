//! Health over everything that can be known: nothing is healthy by an old status, nothing is wrong
//! without a reason, and what people are told in the usual cases.

use haar_protocol::assignment::MicroserviceName;
use haar_protocol::ids::{Digest, NodeId, SiteId};
use haar_protocol::keys::SecretKey;
use haar_protocol::limits::Budget;
use haar_protocol::manifest::Place;
use haar_protocol::quantity::ByteSize;
use haar_protocol::rest::{Cause, Health, HealthState, Microservice, Observation, Unplaced};
use haar_protocol::status::{MicroserviceStatus, RefusedAssignment, State, Status, StoreStatus};
use proptest::prelude::*;

use super::*;
use crate::db::nodes::NodeRow;
use crate::db::observations::{CLOCK, IDENTITY_IN_USE, RELAY_REFUSED};
use crate::db::statuses::StatusRow;

const NOW_MS: u64 = 1_800_000_000_000;
const MINUTE_MS: u64 = 60_000;
const INTERVAL_MS: u64 = 10_000;

fn module(digit: u8) -> Digest {
    Digest::of(&[digit])
}

fn row(online: bool, seen_ms: Option<u64>) -> NodeRow {
    let key = SecretKey::from_seed([2; 32]).public();
    NodeRow {
        id: NodeId::of(&key),
        name: "gw-1".parse().unwrap(),
        key,
        labels: Default::default(),
        budget: Budget::new(ByteSize(1 << 20), 4),
        agent_version: "1".into(),
        target: "t".into(),
        enrolled_ms: NOW_MS - 90 * MINUTE_MS,
        online,
        last_seen_ms: seen_ms,
        link_key: None,
        link_key_generation: 0,
    }
}

fn microservice_status(state: State) -> MicroserviceStatus {
    serde_json::from_value(serde_json::json!({
        "application": "app", "microservice": "one", "module": module(1), "module_label": "one@1",
        "state": state, "reason": null, "since_ms": NOW_MS - 5 * MINUTE_MS, "restarts": 0, "calls": 0,
        "failures": 0, "fuel": 0, "memory_bytes": 0, "log_lines_dropped": 0
    }))
    .unwrap()
}

fn status_row(age_ms: u64, microservices: Vec<MicroserviceStatus>) -> StatusRow {
    let status: Status = serde_json::from_value(serde_json::json!({
        "site": SiteId::of(&SecretKey::from_seed([1; 32]).public()), "node": row(true, None).id,
        "sequence": 1, "sent_ms": NOW_MS - age_ms, "started_ms": NOW_MS - 10 * MINUTE_MS,
        "interval_ms": INTERVAL_MS, "agent_version": "1", "target": "t", "applied": 3, "refused": null,
        "budget": {"memory": "1MiB", "microservices": 4}, "resident_bytes": 1,
        "microservices": microservices, "routes": [], "frames_refused": 0
    }))
    .unwrap();
    StatusRow {
        status,
        missed: 0,
        clock_skew_ms: Some(0),
        received_ms: NOW_MS - age_ms,
    }
}

fn observation(kind: &str, code: &str, last_ms: u64) -> Observation {
    Observation {
        kind: kind.into(),
        code: code.into(),
        message: "its clock is 60 min ahead".into(),
        since_ms: last_ms - 1,
        last_ms,
    }
}

/// What a test knows of a node and its one instance.
#[derive(Debug, Clone)]
struct Known {
    row: NodeRow,
    status: Option<StatusRow>,
    assignment: u64,
    changed_in: u64,
    observations: Vec<Observation>,
    place: Place,
}

impl Known {
    /// Connected, and reported running a moment ago.
    fn well() -> Self {
        Self {
            row: row(true, Some(NOW_MS - 1_000)),
            status: Some(status_row(1_000, vec![microservice_status(State::Running)])),
            assignment: 3,
            changed_in: 3,
            observations: Vec::new(),
            place: Place {
                node: None,
                labels: Some(Default::default()),
                count: Some(1),
            },
        }
    }

    /// Killed five minutes ago.
    fn dead() -> Self {
        let seen_ms = NOW_MS - 5 * MINUTE_MS;
        let running = vec![microservice_status(State::Running)];
        Self {
            row: row(false, Some(seen_ms)),
            status: Some(status_row(5 * MINUTE_MS, running)),
            ..Self::well()
        }
    }

    fn facts(&self) -> NodeFacts<'_> {
        NodeFacts {
            row: &self.row,
            status: self.status.as_ref(),
            assignment: self.assignment,
            observations: &self.observations,
            now_ms: NOW_MS,
        }
    }

    fn node(&self) -> Health {
        node(&self.facts())
    }

    fn instance(&self) -> Health {
        let reported = self.status.iter().flat_map(|row| &row.status.microservices);
        instance(&Instance {
            node: self.facts(),
            status: reported.into_iter().next(),
            wanted: Some(Wanted {
                module: module(1),
                assignment: self.changed_in,
                place: &self.place,
            }),
            is_omitted: false,
        })
    }

    fn shown(&self) -> Microservice {
        Microservice {
            name: MicroserviceName {
                application: "app".parse().unwrap(),
                microservice: "one".parse().unwrap(),
            },
            node: self.row.name.clone(),
            node_online: self.row.online,
            module: module(1),
            module_label: "one@1".into(),
            wanted: true,
            health: self.instance(),
            reported_ms: None,
            counted: None,
            status: None,
            omitted: false,
        }
    }
}

#[test]
fn what_runs_is_healthy_with_since_when_and_how_old_the_report_is() {
    let known = Known::well();
    let health = known.instance();
    assert_eq!(health.state, HealthState::Healthy);
    assert_eq!(
        (health.since_ms, health.age_ms),
        (Some(NOW_MS - 5 * MINUTE_MS), Some(1_000))
    );
    assert!(known.node().is_healthy());
}

#[test]
fn an_instance_on_a_dead_node_is_unknown_since_it_was_last_heard_of_and_there_is_a_way_to_move_it()
{
    let mut known = Known::dead();
    let health = known.instance();
    assert_eq!(
        (health.state, health.cause),
        (HealthState::Unknown, Some(Cause::NotReached))
    );
    assert_eq!(health.since_ms, Some(NOW_MS - 5 * MINUTE_MS));
    assert_eq!(health.age_ms, Some(5 * MINUTE_MS));
    assert_eq!(
        health.reason.as_deref(),
        Some(
            "no relay has a connection to `gw-1`, which last said something 5 min ago; it was running then"
        )
    );
    assert!(health.hint.unwrap().contains("haar delete node gw-1"));
    known.place.node = Some("gw-1".parse().unwrap());
    assert!(known.instance().hint.unwrap().contains("another `place`"));
    let (count, health) = application(&[Known::dead().shown()], &[]);
    assert_eq!((count.healthy, count.all()), (0, 1));
    assert_eq!(health.state, HealthState::Unknown);
}

#[test]
fn a_node_that_is_connected_and_says_nothing_is_unknown_after_its_own_interval() {
    let mut known = Known::well();
    let limit_ms = 3 * INTERVAL_MS + 10_000;
    for (age_ms, expected) in [
        (limit_ms, HealthState::Healthy),
        (limit_ms + 1, HealthState::Unknown),
    ] {
        let running = vec![microservice_status(State::Running)];
        known.status = Some(status_row(age_ms, running));
        assert_eq!(known.node().state, expected);
        assert_eq!(known.instance().state, expected);
    }
    assert_eq!(known.node().cause, Some(Cause::Silent));
    assert_eq!(known.node().since_ms, Some(NOW_MS - limit_ms - 1));
}

#[test]
fn a_node_that_the_relay_refuses_is_unknown_for_that_reason() {
    let mut known = Known::dead();
    known.observations = vec![observation(RELAY_REFUSED, CLOCK, NOW_MS - 7_000)];
    let health = known.node();
    assert_eq!(health.cause, Some(Cause::Clock));
    assert_eq!(
        health.reason.as_deref(),
        Some(
            "the site's relay refuses `gw-1`, 7 s ago for the last time: its clock is 60 min ahead"
        )
    );
    // It was refused before it was last heard of.
    known.observations = vec![observation(RELAY_REFUSED, CLOCK, NOW_MS - 6 * MINUTE_MS)];
    assert_eq!(known.node().cause, Some(Cause::NotReached));
}

#[test]
fn a_change_counts_when_the_node_has_applied_the_assignment_that_makes_it() {
    let mut known = Known::well();
    (known.assignment, known.changed_in) = (5, 3);
    assert!(known.instance().is_healthy(), "others changed");
    assert_eq!(known.node().cause, Some(Cause::AssignmentPending));
    known.changed_in = 5;
    assert_eq!(known.instance().cause, Some(Cause::AssignmentPending));
    let refused = RefusedAssignment {
        number: Some(5),
        reason: "over its budget".into(),
    };
    known.status.as_mut().unwrap().status.refused = Some(refused);
    let health = known.instance();
    assert_eq!(
        (health.state, health.cause),
        (HealthState::Failed, Some(Cause::AssignmentRefused))
    );
    assert_eq!(known.node().state, HealthState::Degraded);
}

#[test]
fn trouble_of_a_node_that_is_heard_is_told_and_its_instances_are_what_they_report() {
    let mut known = Known::well();
    known.status.as_mut().unwrap().status.store = Some(StoreStatus {
        problem: Some("database or disk is full".into()),
        since_ms: Some(NOW_MS - MINUTE_MS),
        free_bytes: Some(8_192),
        damage: None,
    });
    let health = known.node();
    assert_eq!(
        (health.state, health.cause),
        (HealthState::Degraded, Some(Cause::DiskFull))
    );
    assert_eq!(health.since_ms, Some(NOW_MS - MINUTE_MS));
    assert!(health.reason.unwrap().contains("8KiB are free"));
    assert!(known.instance().is_healthy());
    let mut known = Known::well();
    known.observations = vec![observation(IDENTITY_IN_USE, "", NOW_MS - 10_000)];
    assert_eq!(known.node().cause, Some(Cause::IdentityInUse));
}

#[test]
fn times_of_a_wrong_clock_are_told_by_ours_and_never_in_the_future() {
    let mut known = Known::well();
    let row = known.status.as_mut().unwrap();
    row.clock_skew_ms = Some(110_000);
    row.status.microservices[0].since_ms = NOW_MS - MINUTE_MS + 110_000;
    assert_eq!(known.instance().since_ms, Some(NOW_MS - MINUTE_MS));
    assert_eq!(known.node().cause, Some(Cause::Clock));
    let row = known.status.as_mut().unwrap();
    row.clock_skew_ms = None;
    row.status.microservices[0].since_ms = NOW_MS + MINUTE_MS;
    let received_ms = row.received_ms;
    assert_eq!(known.instance().since_ms, Some(received_ms));
}

#[test]
fn an_application_counts_what_has_no_place_and_says_which_and_why() {
    let unplaced = |microservice: &str| Unplaced {
        microservice: microservice.parse().unwrap(),
        node: None,
        instances: 1,
        code: "unknown_node".into(),
        reason: "the site has no node `gw-2`".into(),
        hint: None,
        since_ms: NOW_MS - MINUTE_MS,
    };
    let (count, health) = application(
        &[Known::well().shown()],
        &[unplaced("two"), unplaced("three")],
    );
    assert_eq!((count.healthy, count.failed, count.all()), (1, 2, 3));
    assert_eq!(
        (health.state, health.cause),
        (HealthState::Degraded, Some(Cause::Unplaced))
    );
    assert_eq!(
        health.reason.as_deref(),
        Some(
            "1 of 3 instances run; `two` without a place: the site has no node `gw-2`; `three` without a place: the site has no node `gw-2`"
        )
    );
    assert_eq!(health.since_ms, Some(NOW_MS - MINUTE_MS));
}

fn any_known() -> impl Strategy<Value = Known> {
    let state = prop::sample::select(vec![
        State::Preparing,
        State::Running,
        State::Hibernating,
        State::BackOff,
        State::Refused,
        State::Stopping,
    ]);
    let age_ms = prop_oneof![0..20_000_u64, 0..3_600_000_u64];
    let status = prop::option::of((age_ms, prop::option::of((state, 1..3_u8)), 0..6_u64));
    let noticed = prop::sample::select(vec![RELAY_REFUSED, IDENTITY_IN_USE]);
    let observations = prop::option::of((noticed, 0..3_600_000_u64));
    (
        any::<bool>(),
        prop::option::of(0..3_600_000_u64),
        status,
        (0..6_u64, 0..6_u64),
        observations,
    )
        .prop_map(
            |(online, seen, status, (assignment, changed_in), noticed)| {
                let status = status.map(|(age_ms, reported, applied)| {
                    let reported = reported.map(|(state, digit)| MicroserviceStatus {
                        module: module(digit),
                        ..microservice_status(state)
                    });
                    let mut row = status_row(age_ms, reported.into_iter().collect());
                    row.status.applied = applied;
                    row
                });
                let observations = noticed.map(|(kind, age)| observation(kind, "", NOW_MS - age));
                Known {
                    row: row(online, seen.map(|age| NOW_MS - age)),
                    status,
                    assignment,
                    changed_in,
                    observations: observations.into_iter().collect(),
                    ..Known::well()
                }
            },
        )
}

proptest! {
    #[test]
    fn nothing_is_healthy_by_an_old_status_and_nothing_is_wrong_without_a_reason(known in any_known()) {
        let limit_ms = 3 * INTERVAL_MS + 10_000;
        let age_ms = known.status.as_ref().map(|row| NOW_MS - row.received_ms);
        let is_fresh = known.row.online && age_ms.is_some_and(|age_ms| age_ms <= limit_ms);
        let runs = known.status.as_ref().is_some_and(|row| {
            let status = &row.status;
            let is_current = status.applied >= known.changed_in;
            is_current && status.microservices.iter().any(|one| one.state.is_up() && one.module == module(1))
        });
        let (node, one) = (known.node(), known.instance());
        prop_assert_eq!(one.is_healthy(), is_fresh && runs);
        if !is_fresh {
            prop_assert!(!node.is_healthy());
            if age_ms.is_some() {
                prop_assert_eq!(one.state, HealthState::Unknown);
            }
        }
        let (count, whole) = application(&[known.shown()], &[]);
        prop_assert_eq!(whole.is_healthy(), one.is_healthy());
        prop_assert_eq!(count.all(), 1);
        for health in [node, one, whole] {
            prop_assert_eq!(health.reason.is_none(), health.is_healthy());
            prop_assert_eq!(health.cause.is_none(), health.is_healthy());
            prop_assert!(health.since_ms.is_none_or(|since_ms| since_ms <= NOW_MS));
            prop_assert!(health.state != HealthState::Unknown || health.since_ms.is_some());
        }
    }
}
