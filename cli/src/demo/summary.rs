//! What the demo says at its end, and whether it was what it should have been.

use std::collections::BTreeMap;

use haar_protocol::ids::Name;
use haar_protocol::rest::{Health, HealthState};
use haar_protocol::status::State;
use serde::Serialize;

use super::screen;
use super::watch::View;
use crate::config::Options;
use crate::error::{CommandError, Result};
use crate::output;

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
    if output::is_watched() {
        return output::line(screen::line(view)); // the page above says the rest
    }
    output::text(&screen::render(view))
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
    fn what_does_not_run_is_an_error() {
        assert_eq!(check(&view("running")), Ok(()));
        let error = check(&view("back-off")).unwrap_err();
        assert_eq!(
            error.message,
            "not everything runs:\nfleet/sampler on sensor is failed: it failed"
        );
    }
}
