//! What a site has, for people: one table for each kind, and below it what is worth a remark.

use std::collections::BTreeMap;

use haar_protocol::ids::Name;
use haar_protocol::relay::{RelayInfo, RelayRole, RelaySort};
use haar_protocol::rest::{
    Application, Event, Health, HealthState, Microservice, Module, Node, TrustedPublisher,
};

use super::long::{self, Remarks};
use super::routes::counted;
use crate::output::{self, Table};

pub(super) fn nodes(nodes: &[Node], now: u64, wide: bool, all_remarks: bool, none: &str) -> String {
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
    if wide {
        table = table.with(&["ID", "GIVES", "INSTANCES", "STORAGE", "CLOCK"]);
    }
    let mut remarks = Remarks::new(all_remarks);
    for node in long::worst_first(nodes, |node| &node.health) {
        let mut cells = vec![
            node.name.to_string(),
            node_cell(node),
            node.last_seen_ms
                .map_or_else(|| "never".into(), |seen| output::age(now, seen)),
            labels(&node.labels),
            assignment(node),
            node.resident_bytes
                .map_or_else(|| "?".into(), output::bytes),
            output::printable(&node.agent_version),
            output::printable(&node.target),
        ];
        if wide {
            cells.extend([
                node.id.to_string(),
                output::bytes(node.budget.memory.0),
                node.budget.microservices.to_string(),
                match node.budget.storage.0 {
                    u64::MAX => "unbounded".to_owned(),
                    storage => output::bytes(storage),
                },
                node.clock_skew_ms
                    .map_or_else(|| "?".into(), |skew| format!("{skew:+} ms")),
            ]);
        }
        table.row(cells);
        remarks.add(&node.name, &node.health, now);
    }
    let summary = long::summary("nodes", nodes.iter().map(|node| &node.health));
    let table = summary + &table.render(none);
    remarks.below(table, "`haar get nodes --problems`")
}

/// Whether a relay has a connection to a node, and how it does where that is not all.
pub(crate) fn node_state(node: &Node) -> String {
    let state = node.health.state;
    match (node.online, state) {
        (false, _) => "offline".to_owned(),
        (true, HealthState::Healthy) => "online".to_owned(),
        (true, _) => format!("online, {state}"),
    }
}

/// The same in its colour.
pub(in crate::commands) fn node_cell(node: &Node) -> String {
    let state = match node.online {
        true => node.health.state,
        false => HealthState::Failed,
    };
    output::colored(node_state(node), state)
}

/// Since when something is as it is.
pub(in crate::commands) fn since(health: &Health, now: u64) -> Option<String> {
    let since_ms = health.since_ms?;
    Some(format!(
        "since {}, {} ago",
        output::timestamp(since_ms),
        output::age(now, since_ms)
    ))
}

/// The health of something, for `describe`.
pub(in crate::commands) fn health(health: &Health, now: u64) -> String {
    let reason = health
        .reason
        .as_ref()
        .map(|reason| output::printable(reason));
    let rests = health
        .age_ms
        .filter(|_| health.is_healthy())
        .map(|age_ms| format!("as reported {} ago", output::duration(age_ms)));
    let hint = health
        .hint
        .as_ref()
        .map(|hint| format!("hint: {}", output::printable(hint)));
    let parts = [since(health, now), rests, reason, hint]
        .into_iter()
        .flatten();
    std::iter::once(health_cell(health))
        .chain(parts)
        .collect::<Vec<_>>()
        .join("; ")
}

/// The state of something in its colour.
pub(in crate::commands) fn health_cell(health: &Health) -> String {
    output::colored(health.state, health.state)
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

pub(super) fn applications(
    applications: &[Application],
    now: u64,
    all_remarks: bool,
    none: &str,
) -> String {
    let mut table = Table::new(&["NAME", "REVISION", "HEALTH", "RUNNING", "APPLIED"]);
    let mut remarks = Remarks::new(all_remarks);
    for application in long::worst_first(applications, |one| &one.health) {
        table.row([
            application.name.to_string(),
            application.revision.to_string(),
            health_cell(&application.health),
            running(application),
            output::age(now, application.applied_ms),
        ]);
        remarks.add(&application.name, &application.health, now);
    }
    let healths = applications.iter().map(|one| &one.health);
    let table = long::summary("applications", healths) + &table.render(none);
    remarks.below(table, "`haar get applications --problems`")
}

/// How many instances run, and of how many nothing is known or which have no place.
pub(in crate::commands) fn running(application: &Application) -> String {
    let others = [
        (application.count.unknown, "unknown"),
        (application.without_place, "without a place"),
    ];
    let others = others.iter().filter(|(count, _)| *count > 0);
    let others: Vec<String> = others
        .map(|(count, what)| format!(", {count} {what}"))
        .collect();
    format!(
        "{} of {}{}",
        application.running,
        application.instances,
        others.concat()
    )
}

pub(in crate::commands) fn with_remarks(table: String, remarks: &str) -> String {
    match remarks.is_empty() {
        true => table,
        false => format!("{table}\n{remarks}"),
    }
}

/// Instances as a table, those first that are not as they should be.
pub(in crate::commands) fn instances(
    microservices: &[Microservice],
    now: u64,
    all_remarks: bool,
    none: &str,
) -> String {
    let mut table = Table::new(&[
        "MICROSERVICE",
        "NODE",
        "STATE",
        "SINCE",
        "MODULE",
        "CALLS",
        "FAILURES",
        "RESTARTS",
        "DISCARDED",
        "COUNTED",
        "MEMORY",
    ]);
    for microservice in long::worst_first(microservices, |one| &one.health) {
        let status = microservice.status.as_ref();
        let number = |value: fn(&haar_protocol::status::MicroserviceStatus) -> u64| {
            status.map_or_else(|| "-".into(), |status| value(status).to_string())
        };
        table.row([
            microservice.name.to_string(),
            microservice.node.to_string(),
            state_cell(microservice),
            since_age(microservice, now),
            output::printable(&microservice.module_label),
            number(|status| status.calls),
            number(|status| status.failures),
            number(|status| status.restarts),
            number(|status| status.discarded),
            counted(microservice.counted.as_ref(), now),
            status.map_or_else(|| "-".into(), |status| output::bytes(status.memory_bytes)),
        ]);
    }
    remarks(microservices, now, all_remarks, &table.render(none))
}

/// A table of instances with the summary above it and the remarks below it.
pub(in crate::commands) fn remarks(
    microservices: &[Microservice],
    now: u64,
    all_remarks: bool,
    table: &str,
) -> String {
    let mut remarks = Remarks::new(all_remarks);
    for one in long::worst_first(microservices, |one| &one.health) {
        remarks.add(&format!("{} on {}", one.name, one.node), &one.health, now);
    }
    let summary = long::summary("instances", microservices.iter().map(|one| &one.health));
    remarks.below(summary + table, "`haar get instances --problems`")
}

/// The instances of these applications that are in no table of instances: they have no place.
pub(super) fn without_place(applications: &[Application]) -> String {
    let lacking = applications.iter().filter(|one| one.without_place > 0);
    let lines = lacking.map(|one| {
        let (name, count) = (&one.name, one.without_place);
        format!("{name}: {count} without a place: `haar describe application {name}` says why\n")
    });
    lines.collect()
}

/// How long an instance is as it is.
pub(in crate::commands) fn since_age(microservice: &Microservice, now: u64) -> String {
    let since_ms = microservice.health.since_ms;
    since_ms.map_or_else(|| "-".into(), |since_ms| output::age(now, since_ms))
}

/// The state of an instance: as reported while that is known to be true, otherwise what is known.
pub(crate) fn state(microservice: &Microservice) -> String {
    let known = match microservice.health.state {
        HealthState::Unknown => "unknown".to_owned(),
        _ => microservice.state().to_string(),
    };
    match microservice.wanted {
        true => known,
        false => format!("{known} (not wanted)"),
    }
}

/// The same in the colour of its health.
pub(in crate::commands) fn state_cell(microservice: &Microservice) -> String {
    output::colored(state(microservice), microservice.health.state)
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

pub(super) fn relays(relays: &[RelayInfo], now: u64, all_remarks: bool, none: &str) -> String {
    let mut table = Table::new(&[
        "NAME",
        "HEALTH",
        "PLACE",
        "ADDRESS",
        "CARRIES",
        "PREFERENCE",
        "CONTROLLER",
        "CONNECTED NODES",
    ]);
    let mut remarks = Remarks::new(all_remarks);
    for relay in long::worst_first(relays, |relay| &relay.health) {
        table.row([
            relay.name.to_string(),
            health_cell(&relay.health),
            relay_place(relay),
            relay
                .url
                .as_ref()
                .map_or_else(|| "-".into(), ToString::to_string),
            relay_role(relay.carries).to_owned(),
            relay.preference.to_string(),
            relay_controller(relay).to_owned(),
            match relay.nodes_unknown {
                0 => format!("{} of {}", relay.nodes_connected, relay.nodes),
                unknown => format!(
                    "{} of {}, {unknown} unknown",
                    relay.nodes_connected, relay.nodes
                ),
            },
        ]);
        remarks.add(&relay.name, &relay.health, now);
    }
    let table =
        long::summary("relays", relays.iter().map(|relay| &relay.health)) + &table.render(none);
    remarks.below(table, "`haar get relays --problems`")
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

pub(super) fn names(names: &[Name]) -> String {
    if names.is_empty() {
        return "-".into();
    }
    names.iter().map(Name::as_str).collect::<Vec<_>>().join(",")
}
