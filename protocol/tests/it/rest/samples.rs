//! What a site has one of, for the bodies that tell of it.

use std::collections::BTreeMap;

use haar_protocol::manifest::Delivery;
use haar_protocol::rest::*;

use crate::fixtures::{
    NOW_MS, budget, digest, media_type, microservice_name, microservice_status, name, node,
    refused, route_id, texts,
};

pub(super) fn health() -> Health {
    Health {
        hint: Some("bring it back".to_owned()),
        since_ms: Some(NOW_MS - 7),
        age_ms: Some(5),
        ..Health::because(HealthState::Unknown, Cause::NotReached, "it is away")
    }
}

pub(super) fn unplaced() -> Unplaced {
    Unplaced {
        microservice: name("sampler"),
        node: Some(name("gateway-03")),
        instances: 1,
        code: "over_budget".to_owned(),
        reason: "it does not fit".to_owned(),
        hint: None,
        since_ms: NOW_MS,
    }
}

pub(super) fn a_node() -> Node {
    Node {
        name: name("gateway-02"),
        id: node(2),
        labels: texts(&[("role", "gateway")]),
        online: true,
        last_seen_ms: Some(NOW_MS),
        health: health(),
        reported_ms: Some(NOW_MS - 5),
        observations: vec![Observation {
            kind: "relay_refused".to_owned(),
            code: "clock".to_owned(),
            message: "its clock is 2 h behind".to_owned(),
            since_ms: NOW_MS - 9,
            last_ms: NOW_MS - 6,
        }],
        assignment: 8,
        applied: 7,
        refused: Some(refused()),
        agent_version: "0.1.0".to_owned(),
        target: "aarch64-unknown-linux-musl".to_owned(),
        budget: budget(),
        resident_bytes: Some(9_000_000),
        flash: None,
        store: None,
        clock_skew_ms: Some(-12),
    }
}

pub(super) fn microservice() -> Microservice {
    Microservice {
        name: microservice_name(),
        node: name("gateway-02"),
        node_online: true,
        module: digest(),
        module_label: "sampler@1.4.2".to_owned(),
        wanted: true,
        counted: None,
        health: health(),
        reported_ms: Some(NOW_MS - 5),
        status: Some(microservice_status()),
        omitted: false,
    }
}

pub(super) fn counted() -> Counted {
    Counted {
        since_ms: NOW_MS - 9_000,
        until_ms: NOW_MS,
    }
}

pub(super) fn route() -> Route {
    Route {
        id: route_id(),
        application: name("plant-monitor"),
        from: "sampler.readings".to_owned(),
        to: "collector.in".to_owned(),
        relay: None,
        content_type: media_type(),
        delivery: Delivery::Live,
        from_nodes: vec![name("gateway-02")],
        to_nodes: vec![name("gateway-03")],
        counted: BTreeMap::from([(name("gateway-02"), counted())]),
        uncounted: vec![name("gateway-03")],
        sent: 4,
        delivered: 3,
        handled: 2,
        dropped: 1,
        waiting: 0,
        problems: Vec::new(),
    }
}

pub(super) fn application() -> Application {
    Application {
        name: name("plant-monitor"),
        revision: 3,
        applied_ms: NOW_MS,
        instances: 2,
        running: 1,
        without_place: 1,
        count: HealthCount {
            healthy: 1,
            failed: 1,
            ..HealthCount::default()
        },
        health: health(),
    }
}
