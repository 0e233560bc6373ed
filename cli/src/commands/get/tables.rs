//! What a site has, for people: one table for each kind, and below it what is worth a remark.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use haar_protocol::ids::Name;
use haar_protocol::manifest::Delivery;
use haar_protocol::proof::CLOCK_SKEW_MS;
use haar_protocol::relay::{RelayInfo, RelayRole, RelaySort};
use haar_protocol::rest::{
    Application, Event, Microservice, Module, Node, Route, TrustedPublisher,
};

use crate::output::{self, Table};

pub(super) fn nodes(nodes: &[Node], now: u64) -> String {
    let mut table = Table::new(&[
        "NAME",
        "STATE",
        "SEEN",
        "LABELS",
        "ASSIGNMENT",
        "MEMORY",
        "AGENT",
        "TARGET",
    ]);
    let mut remarks = String::new();
    for node in nodes {
        table.row([
            node.name.to_string(),
            if node.online { "online" } else { "offline" }.to_owned(),
            node.last_seen_ms
                .map_or_else(|| "never".into(), |seen| output::age(now, seen)),
            labels(&node.labels),
            assignment(node),
            node.resident_bytes
                .map_or_else(|| "?".into(), output::bytes),
            output::printable(&node.agent_version),
            output::printable(&node.target),
        ]);
        // Writing to a string never fails.
        if let Some(refused) = &node.refused {
            let _ = writeln!(
                remarks,
                "{} refused its assignment: {}",
                node.name,
                output::printable(&refused.reason)
            );
        }
        if let Some(remark) = clock_remark(node) {
            let _ = writeln!(remarks, "{} {remark}", node.name);
        }
    }
    let table = table.render("No nodes. Let one join: `haar node token`.");
    if remarks.is_empty() {
        table
    } else {
        format!("{table}\n{remarks}")
    }
}

/// What to tell of a node's clock, when it is too far from the controller's.
pub(in crate::commands) fn clock_remark(node: &Node) -> Option<String> {
    let skew = node
        .clock_skew_ms
        .filter(|skew| skew.unsigned_abs() > CLOCK_SKEW_MS / 2)?;
    let direction = if skew > 0 { "ahead of" } else { "behind" };
    Some(format!(
        "has a clock {} {direction} the controller's: above {} it can't connect",
        output::duration(skew.unsigned_abs()),
        output::duration(CLOCK_SKEW_MS)
    ))
}

/// `3`, or `2 of 3` while the node has not applied the newest.
pub(in crate::commands) fn assignment(node: &Node) -> String {
    match (node.assignment, node.applied) {
        (0, _) => "none".into(),
        (newest, applied) if newest == applied => newest.to_string(),
        (newest, applied) => format!("{applied} of {newest}"),
    }
}

pub(crate) fn labels(labels: &BTreeMap<String, String>) -> String {
    if labels.is_empty() {
        return "-".into();
    }
    let pairs: Vec<String> = labels
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    output::printable(&pairs.join(","))
}

pub(super) fn modules(modules: &[Module], now: u64) -> String {
    let mut table = Table::new(&["NAME", "VERSION", "DIGEST", "SIZE", "PUBLISHERS", "PUSHED"]);
    for module in modules {
        table.row([
            module.name.to_string(),
            output::printable(&module.version),
            module.digest.short(),
            output::bytes(module.bytes),
            names(&module.publishers),
            output::age(now, module.pushed_ms),
        ]);
    }
    table.render("No modules. Push one: `haar push FILE`.")
}

pub(super) fn applications(applications: &[Application], now: u64) -> String {
    let mut table = Table::new(&["NAME", "REVISION", "RUNNING", "APPLIED"]);
    for application in applications {
        table.row([
            application.name.to_string(),
            application.revision.to_string(),
            format!("{} of {}", application.running, application.instances),
            output::age(now, application.applied_ms),
        ]);
    }
    table.render("No applications. Apply one: `haar apply -f FILE`.")
}

/// Instances as a table.
pub(in crate::commands) fn microservices(microservices: &[Microservice], now: u64) -> String {
    let mut table = Table::new(&[
        "MICROSERVICE",
        "NODE",
        "STATE",
        "SINCE",
        "MODULE",
        "CALLS",
        "FAILURES",
        "RESTARTS",
        "MEMORY",
    ]);
    let mut remarks = String::new();
    for microservice in microservices {
        let status = microservice.status.as_ref();
        let number = |value: fn(&haar_protocol::status::MicroserviceStatus) -> u64| {
            status.map_or_else(|| "-".into(), |status| value(status).to_string())
        };
        table.row([
            microservice.name.to_string(),
            microservice.node.to_string(),
            state(microservice),
            status.map_or_else(|| "-".into(), |status| output::age(now, status.since_ms)),
            output::printable(&microservice.module_label),
            number(|status| status.calls),
            number(|status| status.failures),
            number(|status| status.restarts),
            status.map_or_else(|| "-".into(), |status| output::bytes(status.memory_bytes)),
        ]);
        if let Some(reason) = status.and_then(|status| status.reason.as_deref()) {
            let _ = writeln!(
                remarks,
                "{} on {}: {}",
                microservice.name,
                microservice.node,
                output::printable(reason)
            );
        }
    }
    let table = table.render("No microservices. Apply an application: `haar apply -f FILE`.");
    if remarks.is_empty() {
        table
    } else {
        format!("{table}\n{remarks}")
    }
}

/// The state of an instance with what a person must know to trust it.
pub(crate) fn state(microservice: &Microservice) -> String {
    if microservice.omitted {
        return "no room in the status".to_owned();
    }
    let state = microservice.state();
    match (microservice.wanted, microservice.node_online) {
        (true, true) => state.to_string(),
        (true, false) => format!("{state} (node offline)"),
        (false, _) => format!("{state} (not wanted)"),
    }
}

/// One end of a route with where it is: the nodes with instances, or the relay that has the topic.
fn end(route: &Route, end: &str, nodes: &[Name]) -> String {
    match &route.relay {
        Some(relay) if end.starts_with("mqtt:") => {
            format!("{} (relay {relay})", output::printable(end))
        }
        _ => format!("{end} ({})", names(nodes)),
    }
}

pub(super) fn routes(routes: &[Route]) -> String {
    let mut table = Table::new(&[
        "APPLICATION",
        "FROM",
        "TO",
        "DELIVERY",
        "SENT",
        "DELIVERED",
        "HANDLED",
        "DROPPED",
        "TYPE",
    ]);
    for route in routes {
        table.row([
            route.application.to_string(),
            end(route, &route.from, &route.from_nodes),
            end(route, &route.to, &route.to_nodes),
            match route.delivery {
                Delivery::Durable => "durable".to_owned(),
                Delivery::Live => "live".to_owned(),
            },
            route.sent.to_string(),
            route.delivered.to_string(),
            route.handled.to_string(),
            route.dropped.to_string(),
            route.content_type.to_string(),
        ]);
    }
    table.render("No routes.")
}

pub(super) fn publishers(publishers: &[TrustedPublisher], now: u64) -> String {
    let mut table = Table::new(&["NAME", "FINGERPRINT", "TRUSTED"]);
    for publisher in publishers {
        table.row([
            publisher.name.to_string(),
            publisher.key.fingerprint(),
            output::age(now, publisher.added_ms),
        ]);
    }
    table.render("No publishers: no module runs. Trust one: `haar publisher trust NAME KEY.pub`.")
}

pub(super) fn relays(relays: &[RelayInfo]) -> String {
    let mut table = Table::new(&[
        "NAME",
        "PLACE",
        "ADDRESS",
        "CARRIES",
        "PREFERENCE",
        "CONTROLLER",
        "CONNECTED NODES",
    ]);
    let mut remarks = String::new();
    for relay in relays {
        table.row([
            relay.name.to_string(),
            relay_place(relay),
            relay
                .url
                .as_ref()
                .map_or_else(|| "-".into(), ToString::to_string),
            relay_role(relay.carries).to_owned(),
            relay.preference.to_string(),
            relay_controller(relay).to_owned(),
            format!("{} of {}", relay.nodes_connected, relay.nodes),
        ]);
        if let Some(problem) = &relay.problem {
            let _ = writeln!(remarks, "{}: {}", relay.name, output::printable(problem));
        }
    }
    let table = table.render("No relays.");
    match remarks.is_empty() {
        true => table,
        false => format!("{table}\n{remarks}"),
    }
}

/// Where a relay is.
pub(in crate::commands) fn relay_place(relay: &RelayInfo) -> String {
    match (relay.place, &relay.node) {
        (RelaySort::Embedded, _) => "controller".to_owned(),
        (RelaySort::External, _) => "broker".to_owned(),
        (RelaySort::Neighbourhood, Some(node)) => format!("node {node}"),
        (RelaySort::Neighbourhood, None) => "node".to_owned(),
    }
}

/// What passes over a relay.
pub(in crate::commands) fn relay_role(role: RelayRole) -> &'static str {
    match role {
        RelayRole::Everything => "everything",
        RelayRole::Links => "links",
        RelayRole::Topics => "topics",
    }
}

/// Whether the controller is connected to a relay.
pub(in crate::commands) fn relay_controller(relay: &RelayInfo) -> &'static str {
    match relay.controller_connected {
        Some(true) => "connected",
        Some(false) => "not connected",
        None => "-",
    }
}

pub(super) fn events(events: &[Event]) -> String {
    let mut table = Table::new(&["TIME", "KIND", "SUBJECT", "MESSAGE"]);
    for event in events {
        table.row([
            output::timestamp(event.time_ms),
            output::printable(&event.kind),
            output::printable(&event.subject),
            output::printable(&event.message),
        ]);
    }
    table.render("No events.")
}

fn names(names: &[Name]) -> String {
    if names.is_empty() {
        return "-".into();
    }
    names.iter().map(Name::as_str).collect::<Vec<_>>().join(",")
}
