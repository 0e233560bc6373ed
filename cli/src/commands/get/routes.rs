//! The routes of a site with their counters, for people: over which time those have counted, and which
//! of them do not add up.

use std::fmt::Write as _;

use haar_protocol::ids::Name;
use haar_protocol::manifest::Delivery;
use haar_protocol::rest::{Counted, Route};

use super::tables::names;
use crate::output::{self, Table};

/// Nodes that have counted over times further apart than this have sums that do not compare.
const COUNTED_APART_MS: u64 = 60_000;
/// Counts that are older than this are worth a remark.
const COUNTED_OLD_MS: u64 = 10 * 60_000;

/// One end of a route with where it is: the nodes with instances, or the relay that has the topic.
pub(in crate::commands) fn end(route: &Route, end: &str, nodes: &[Name]) -> String {
    const SHOWN: usize = 3;
    match &route.relay {
        Some(relay) if end.starts_with("mqtt:") => {
            format!("{} (relay {relay})", output::printable(end))
        }
        _ if nodes.len() > SHOWN => format!("{end} ({} nodes)", nodes.len()),
        _ => format!("{end} ({})", names(nodes)),
    }
}

pub(super) fn routes(routes: &[Route], now: u64, wide: bool, none: &str) -> String {
    let mut table = Table::new(&[
        "ID",
        "APPLICATION",
        "FROM",
        "TO",
        "DELIVERY",
        "SENT",
        "DELIVERED",
        "HANDLED",
        "DROPPED",
        "WAITING",
        "COUNTED",
        "TYPE",
    ]);
    for route in routes {
        table.row([
            route.id.to_string(),
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
            route.waiting.to_string(),
            counted_by_all(route, now),
            route.content_type.to_string(),
        ]);
    }
    if !wide {
        table.drop_first();
    }
    let table = table.render(none);
    match route_problems(routes) + &count_remarks(routes, now) {
        remarks if remarks.is_empty() => table,
        remarks => format!("{table}\n{remarks}"),
    }
}

/// What nodes say of routes that do not do all that their manifests say: a line each.
pub(in crate::commands) fn route_problems(routes: &[Route]) -> String {
    let mut lines = String::new();
    for route in routes {
        for problem in &route.problems {
            let (from, to, node) = (&route.from, &route.to, &problem.node);
            let problem = output::printable(&problem.problem);
            lines.push_str(&format!("{from} to {to}, on node {node}: {problem}\n"));
        }
    }
    lines
}

/// The node that has counted a route for the shortest time, and the one that has for the longest.
fn extremes(route: &Route) -> Option<[(&Name, &Counted); 2]> {
    let since = |(_, counted): &(&Name, &Counted)| counted.since_ms;
    let youngest = route.counted.iter().max_by_key(since)?;
    Some([youngest, route.counted.iter().min_by_key(since)?])
}

/// For how long the counters of a route have counted: `3 d`, or `12 s to 3 d`.
pub(in crate::commands) fn counted_by_all(route: &Route, now: u64) -> String {
    output::ages(now, route.counted.values().map(|counted| counted.since_ms))
}

/// Which numbers of routes do not add up, and why: a line for each reason.
pub(in crate::commands) fn count_remarks(routes: &[Route], now: u64) -> String {
    let mut remarks = String::new();
    for route in routes {
        let ends = format!(
            "{}: {} to {}",
            route.application,
            output::printable(&route.from),
            output::printable(&route.to)
        );
        let age = |at_ms| output::age(now, at_ms);
        // Writing to a string never fails.
        if let Some([(young, last), (old, first)]) = extremes(route)
            && last.since_ms - first.since_ms > COUNTED_APART_MS
        {
            let _ = writeln!(
                remarks,
                "{ends}: {young} has counted for {}, {old} for {}; the sums do not compare",
                age(last.since_ms),
                age(first.since_ms)
            );
        }
        let oldest = route.counted.iter().min_by_key(|(_, one)| one.until_ms);
        if let Some((node, one)) = oldest
            && now.saturating_sub(one.until_ms) > COUNTED_OLD_MS
        {
            let _ = writeln!(
                remarks,
                "{ends}: {node} last reported its counts {} ago",
                age(one.until_ms)
            );
        }
        if !route.uncounted.is_empty() {
            let nodes = names(&route.uncounted);
            let _ = writeln!(remarks, "{ends}: not reported by {nodes}");
        }
    }
    remarks
}

/// For how long counters have counted.
pub(in crate::commands) fn counted(counted: Option<&Counted>, now: u64) -> String {
    counted.map_or_else(|| "-".into(), |counted| output::age(now, counted.since_ms))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_that_do_not_compare_are_never_shown_without_the_words() {
        const NOW_MS: u64 = 1_700_000_000_000;
        let route = |counted: serde_json::Value, uncounted: &[&str]| -> Route {
            serde_json::from_value(json!({
                "id": "0123456789abcdef", "application": "plant", "from": "filter.out",
                "to": "store.in", "content_type": "text/plain", "delivery": "live",
                "from_nodes": ["edge-1"], "to_nodes": ["edge-2"], "sent": 0, "delivered": 2_038,
                "handled": 2_038, "dropped": 0, "counted": counted, "uncounted": uncounted,
            }))
            .unwrap()
        };
        let counted = |since_s: u64, until_s: u64| json!({ "since_ms": NOW_MS - since_s * 1_000, "until_ms": NOW_MS - until_s * 1_000 });
        let all = [
            route(
                json!({ "edge-1": counted(90, 3), "edge-2": counted(88, 2) }),
                &[],
            ),
            route(
                json!({ "edge-1": counted(12, 3), "edge-2": counted(300_000, 2) }),
                &[],
            ),
            route(json!({ "edge-1": counted(9_000, 8_000) }), &["edge-2"]),
            route(json!({}), &[]),
        ];
        insta::assert_snapshot!(routes(&all, NOW_MS, false, "No routes."));
    }
}
