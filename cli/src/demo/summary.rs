//! What the demo says at its end, and whether it was what it should have been.

use std::collections::BTreeMap;

use haar_protocol::ids::Name;
use haar_protocol::rest::{Health, HealthState};
use haar_protocol::status::State;
use serde::Serialize;
use serde_json::Value;

use super::watch::{Kind, View};
use super::words;
use crate::commands::get;
use crate::config::Options;
use crate::error::{CommandError, Result};
use crate::output::{self, Table};

/// The end of the demo, for programs.
#[derive(Debug, Serialize)]
struct Summary<'a> {
    seconds: f64,
    nodes: Vec<Node<'a>>,
    microservices: Vec<Microservice<'a>>,
    routes: Vec<Route<'a>>,
    /// How many of each the recorder saw, by the node that they came from.
    readings: &'a BTreeMap<String, u64>,
    summaries: &'a BTreeMap<String, u64>,
    alerts: &'a BTreeMap<String, u64>,
}

#[derive(Debug, Serialize)]
struct Node<'a> {
    name: &'a Name,
    labels: &'a BTreeMap<String, String>,
    resident_bytes: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Microservice<'a> {
    application: &'a Name,
    name: &'a Name,
    node: &'a Name,
    state: State,
    health: &'a Health,
}

#[derive(Debug, Serialize)]
struct Route<'a> {
    from: &'a str,
    to: &'a str,
    from_nodes: &'a [Name],
    to_nodes: &'a [Name],
    sent: u64,
    delivered: u64,
    handled: u64,
    dropped: u64,
}

/// Prints the summary.
pub(super) fn tell(view: &View, options: &Options) -> Result<()> {
    if options.is_json() {
        return output::json(&summary(view));
    }
    output::text(&render(view))
}

/// An error when something that must run does not.
pub(super) fn check(view: &View) -> Result<()> {
    let offline = view
        .nodes
        .iter()
        .filter(|seen| seen.node.health.state == HealthState::Unknown)
        .map(|seen| (format!("the node {}", seen.node.name), &seen.node.health));
    let stopped = view
        .microservices
        .iter()
        .filter(|one| one.wanted && !one.health.is_healthy())
        .map(|one| (format!("{} on {}", one.name, one.node), &one.health));
    let wrong: Vec<String> = offline
        .chain(stopped)
        .map(|(what, health)| {
            let reason = health.reason.as_deref().unwrap_or("no reason is known");
            format!("{what} is {}: {}", health.state, output::printable(reason))
        })
        .collect();
    if wrong.is_empty() {
        return Ok(());
    }
    let mut error = CommandError::failure(format!("not everything runs:\n{}", wrong.join("\n")));
    error.code = "not_running".into();
    Err(error)
}

/// Everything, for people.
fn render(view: &View) -> String {
    let heading = format!("Haar demo, for {} s.\n", view.watched.as_secs());
    let recorded = &view.recorded;
    [
        heading,
        nodes(view),
        microservices(view),
        routes(view),
        format!(
            "Readings at the recorder: {}\n{}",
            counts(&recorded.readings),
            newest_readings(&recorded.readings)
        ),
        format!(
            "Alerts: {}\n{}",
            counts(&recorded.alerts),
            newest(&recorded.alerts, 3, alert)
        ),
        format!(
            "Summaries: {}\n{}",
            counts(&recorded.summaries),
            newest(&recorded.summaries, 1, words::describe)
        ),
    ]
    .join("\n")
}

fn nodes(view: &View) -> String {
    let mut table = Table::new(&["NODE", "STATE", "LABELS", "AGENT'S MEMORY"]);
    for seen in &view.nodes {
        table.row([
            seen.node.name.to_string(),
            get::node_state(&seen.node),
            get::labels(&seen.node.labels),
            seen.resident_bytes
                .map_or_else(|| "?".into(), output::bytes),
        ]);
    }
    table.render("No nodes.")
}

fn microservices(view: &View) -> String {
    let mut table = Table::new(&[
        "MICROSERVICE",
        "NODE",
        "STATE",
        "CALLS",
        "FAILURES",
        "MEMORY",
    ]);
    for microservice in &view.microservices {
        let status = microservice.status.as_ref();
        table.row([
            microservice.name.microservice.to_string(),
            microservice.node.to_string(),
            get::state(microservice),
            status.map_or(0, |status| status.calls).to_string(),
            status.map_or(0, |status| status.failures).to_string(),
            output::bytes(status.map_or(0, |status| status.memory_bytes)),
        ]);
    }
    table.render("No microservices.")
}

fn routes(view: &View) -> String {
    let mut table = Table::new(&["FROM", "TO", "PER SECOND", "SENT", "HANDLED", "DROPPED"]);
    for seen in &view.routes {
        let route = &seen.route;
        table.row([
            output::printable(&route.from),
            output::printable(&route.to),
            format!("{:.1}", seen.rate),
            route.sent.to_string(),
            route.handled.to_string(),
            route.dropped.to_string(),
        ]);
    }
    table.render("No routes.")
}

fn counts(kind: &Kind) -> String {
    if kind.count_by_node.is_empty() {
        return "none yet".into();
    }
    let counts: Vec<String> = kind
        .count_by_node
        .iter()
        .map(|(node, count)| format!("{node} {count}"))
        .collect();
    output::printable(&counts.join(", "))
}

/// The newest reading of each node.
fn newest_readings(kind: &Kind) -> String {
    kind.by_node
        .values()
        .filter_map(|messages| messages.back())
        .map(|message| format!("  {}\n", words::describe(message)))
        .collect()
}

fn newest(kind: &Kind, most: usize, words: fn(&Value) -> String) -> String {
    kind.latest
        .iter()
        .rev()
        .take(most)
        .map(|message| format!("  {}\n", words(&message.value)))
        .collect()
}

fn alert(message: &Value) -> String {
    let node = output::printable(words::text(message, "node"));
    format!("{node:<10} {}", words::alert(message))
}

fn summary(view: &View) -> Summary<'_> {
    Summary {
        seconds: (view.watched.as_secs_f64() * 10.0).round() / 10.0,
        nodes: view
            .nodes
            .iter()
            .map(|seen| Node {
                name: &seen.node.name,
                labels: &seen.node.labels,
                resident_bytes: seen.resident_bytes,
            })
            .collect(),
        microservices: view
            .microservices
            .iter()
            .map(|seen| Microservice {
                application: &seen.name.application,
                name: &seen.name.microservice,
                node: &seen.node,
                state: seen.state(),
                health: &seen.health,
            })
            .collect(),
        routes: view
            .routes
            .iter()
            .map(|seen| Route {
                from: &seen.route.from,
                to: &seen.route.to,
                from_nodes: &seen.route.from_nodes,
                to_nodes: &seen.route.to_nodes,
                sent: seen.route.sent,
                delivered: seen.route.delivered,
                handled: seen.route.handled,
                dropped: seen.route.dropped,
            })
            .collect(),
        readings: &view.recorded.readings.count_by_node,
        summaries: &view.recorded.summaries.count_by_node,
        alerts: &view.recorded.alerts.count_by_node,
    }
}

#[cfg(test)]
mod tests {
    use super::super::screen::tests::view;
    use super::*;

    #[test]
    fn programs_get_everything() {
        insta::assert_json_snapshot!(summary(&view("running")));
    }

    #[test]
    fn people_read_where_what_runs_and_what_was_said() {
        insta::assert_snapshot!(render(&view("running")));
    }

    #[test]
    fn what_does_not_run_is_an_error() {
        assert_eq!(check(&view("running")), Ok(()));
        let error = check(&view("back-off")).unwrap_err();
        assert_eq!(
            error.message,
            "not everything runs:\nfleet/sampler on sensor is failed: it failed"
        );
    }
}
