//! Routes as `haar describe` shows them: from where to where messages pass, over which relays, what was
//! counted on the way, what waits, and what is wrong.

use haar_protocol::manifest::{Delivery, meant};
use haar_protocol::rest::{List, Route, RouteDetail, RoutePair, RouteReport};

use crate::client::Client;
use crate::commands::get::{self, Remarks};
use crate::config::Options;
use crate::error::{CommandError, Result};
use crate::output::{self, Table, facts};

/// Pairs of ends that are shown, unless all are wanted.
const PAIRS_MAX: usize = 50;

/// Describes the routes that `name` names: an id, an application, or an end that may have its
/// application before it; with `to`, those that end there.
pub(super) fn run(client: &Client, options: &Options, name: &str, to: Option<&str>) -> Result<()> {
    let routes: Vec<Route> = client.list("routes")?;
    let wanted: Vec<&Route> = routes
        .iter()
        .filter(|one| is_named(one, name, to))
        .collect();
    if wanted.is_empty() {
        let written = to.map_or_else(|| name.to_owned(), |to| format!("{name} -> {to}"));
        let mut known: Vec<String> = routes.iter().map(called).collect();
        known.extend(routes.iter().map(|route| route.from.clone()));
        let message = format!("there is no route `{written}`");
        let near = meant(name, known.iter().map(String::as_str)).unwrap_or_else(|| {
            "`haar get routes` lists them: name one as APPLICATION/FROM, or APPLICATION/FROM TO."
                .to_owned()
        });
        return Err(CommandError::not_found("unknown_route", message).hinted(near));
    }
    let mut items = Vec::new();
    for route in wanted {
        items.push(client.get_text(&format!("routes/{}", route.id))?);
    }
    if options.is_json() {
        let items: Result<Vec<serde_json::Value>> =
            items.iter().map(|item| client.parse(item)).collect();
        return output::json(&List { items: items? });
    }
    let now = output::now_ms();
    let texts: Result<Vec<String>> = items
        .iter()
        .map(|item| Ok(described(&client.parse(item)?, now, options.is_wide())))
        .collect();
    output::text(&texts?.join("\n"))
}

/// How a route is named: by its application and where it begins.
fn called(route: &Route) -> String {
    format!("{}/{}", route.application, route.from)
}

fn is_named(route: &Route, name: &str, to: Option<&str>) -> bool {
    // As reports of what would be lost write it.
    let (name, to) = match name.split_once(" -> ") {
        Some((from, end)) => (from, to.or(Some(end))),
        None => (name, to),
    };
    let (application, end) = match name.split_once('/') {
        Some((application, end)) if !name.starts_with("mqtt:") => (Some(application), end),
        _ => (None, name),
    };
    let is_of = application.is_none_or(|application| route.application.as_str() == application);
    let is_end = |end: &str, whole: &str| {
        let microservice = whole.split_once('.').map(|(microservice, _)| microservice);
        whole == end || (!whole.starts_with("mqtt:") && microservice == Some(end))
    };
    match to {
        Some(to) => is_of && is_end(end, &route.from) && is_end(to, &route.to),
        None => {
            let is_whole = route.id.to_string() == name || route.application.as_str() == name;
            is_whole || (is_of && (is_end(end, &route.from) || is_end(end, &route.to)))
        }
    }
}

/// Everything about a route, for people.
pub(super) fn described(detail: &RouteDetail, now: u64, wide: bool) -> String {
    let route = &detail.route;
    let mut pairs = vec![
        ("Route", called(route)),
        ("Id", route.id.to_string()),
        ("From", get::end(route, &route.from, &route.from_nodes)),
        ("To", get::end(route, &route.to, &route.to_nodes)),
        ("Type", route.content_type.to_string()),
        (
            "Delivery",
            match route.delivery {
                Delivery::Durable => "durable".to_owned(),
                Delivery::Live => "live".to_owned(),
            },
        ),
        ("Health", get::health(&detail.health, now)),
        (
            "Counted",
            format!(
                "{} sent, {} delivered, {} handled, {} dropped, for {}",
                route.sent,
                route.delivered,
                route.handled,
                route.dropped,
                get::counted_by_all(route, now)
            ),
        ),
        ("Waiting", format!("{} messages", route.waiting)),
    ];
    for (node, log) in &detail.backlogs {
        let text = format!(
            "on {node} {} of {} wait, {} messages refused, {} dropped",
            output::bytes(log.bytes),
            output::bytes(log.bytes_max),
            log.refused.messages,
            log.dropped.messages
        );
        pairs.push(("Outlet's log", text));
    }
    for (node, receiver) in &detail.receivers {
        if receiver.discarded == 0 && receiver.dead_letters == 0 {
            continue;
        }
        let text = format!(
            "on {node} {} messages of all its inlets in {}; dead letters: {}",
            receiver.discarded,
            output::age(now, receiver.counted.since_ms),
            receiver.dead_letters
        );
        pairs.push(("Discarded", text));
    }
    for (node, report) in detail.pairs.iter().flat_map(|pair| &pair.reports) {
        if let Some(problem) = &report.problem {
            let since = report
                .problem_since_ms
                .map_or_else(String::new, |since_ms| {
                    let (since, age) = (output::timestamp(since_ms), output::age(now, since_ms));
                    format!(" (since {since}, {age} ago)")
                });
            let text = format!("on {node}: {}{since}", output::printable(problem));
            pairs.push(("Problem", text));
        }
    }
    let (table, remarks) = pairs_table(detail, now, wide);
    let table = remarks.below(table, "`--output wide`");
    format!(
        "{}\n{table}{}",
        facts(&pairs),
        get::count_remarks(std::slice::from_ref(route), now)
    )
}

/// A line for each pair of ends, those first that do not pass everything.
fn pairs_table(detail: &RouteDetail, now: u64, wide: bool) -> (String, Remarks) {
    let mut table = Table::new(&[
        "FROM",
        "TO",
        "HEALTH",
        "RELAYS",
        "SENT",
        "DELIVERED",
        "HANDLED",
        "DROPPED",
        "WAITING",
        "COUNTED",
    ]);
    let mut remarks = Remarks::new(wide);
    let pairs = get::worst_first(&detail.pairs, |pair| &pair.health);
    let shown = if wide { pairs.len() } else { PAIRS_MAX };
    for pair in pairs.iter().take(shown) {
        let sum = |count: fn(&RouteReport) -> u64| match pair.reports.is_empty() {
            true => "-".to_owned(),
            false => {
                let counts = pair.reports.values().map(count);
                counts.fold(0, u64::saturating_add).to_string()
            }
        };
        table.row([
            pair.from.to_string(),
            pair.to.to_string(),
            get::health_cell(&pair.health),
            relays(pair),
            sum(|report| report.sent),
            sum(|report| report.delivered),
            sum(|report| report.handled),
            sum(|report| report.dropped),
            sum(|report| report.waiting),
            output::ages(now, pair.reports.values().map(|one| one.counted.since_ms)),
        ]);
    }
    for pair in &pairs {
        let what = format!("{} to {}", pair.from, pair.to);
        remarks.add(&what, &pair.health, now);
    }
    let mut table = table.render("No messages can pass: one of its ends has no instance.");
    table += &more(pairs.len(), shown, detail.pairs_omitted);
    (table, remarks)
}

/// How many pairs are not in the table, of which the site has told so many and left out the others.
fn more(told: usize, shown: usize, omitted: u64) -> String {
    let left = told.saturating_sub(shown) as u64;
    let more = left.saturating_add(omitted);
    match (left, omitted) {
        (0, 0) => String::new(),
        (0, _) => format!("And {more} more pairs, none of which does worse.\n"),
        (_, 0) => format!("And {more} more pairs: `--output wide` shows all of them.\n"),
        _ => format!("And {more} more pairs: `--output wide` shows the {told} worst of all.\n"),
    }
}

/// The relays between two ends, with what is wrong with each.
fn relays(pair: &RoutePair) -> String {
    if pair.relays.is_empty() {
        return "-".into();
    }
    let relays = pair.relays.iter().map(|relay| match relay.connected {
        Some(false) => format!("{} (not connected)", relay.name),
        Some(true) | None => relay.name.to_string(),
    });
    relays.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW_MS: u64 = 1_700_000_000_000;

    fn route(application: &str, from: &str, to: &str) -> serde_json::Value {
        json!({
            "id": "0123456789abcdef", "application": application, "from": from, "to": to,
            "content_type": "text/plain", "delivery": "durable", "from_nodes": ["edge-1", "edge-2"],
            "to_nodes": ["hub"], "sent": 12, "delivered": 9, "handled": 8, "dropped": 1, "waiting": 3,
            "counted": {
                "edge-1": { "since_ms": NOW_MS - 90_000, "until_ms": NOW_MS - 2_000 },
                "edge-2": { "since_ms": NOW_MS - 90_000, "until_ms": NOW_MS - 2_000 },
                "hub": { "since_ms": NOW_MS - 95_000, "until_ms": NOW_MS - 1_000 },
            },
        })
    }

    #[test]
    fn pairs_that_are_not_shown_are_counted_also_where_the_site_does_not_tell_them() {
        assert_eq!(more(7, 50, 0), "");
        assert_eq!(
            more(60, 50, 0),
            "And 10 more pairs: `--output wide` shows all of them.\n"
        );
        assert_eq!(
            more(1_000, 50, 9_000),
            "And 9950 more pairs: `--output wide` shows the 1000 worst of all.\n"
        );
        assert_eq!(
            more(1_000, 1_000, 9_000),
            "And 9000 more pairs, none of which does worse.\n"
        );
    }

    #[test]
    fn a_route_is_named_by_its_id_its_application_or_its_ends() {
        let one: Route = serde_json::from_value(route("plant", "filter.out", "store.in")).unwrap();
        for (name, to) in [
            ("0123456789abcdef", None),
            ("plant", None),
            ("plant/filter.out", None),
            ("filter.out", None),
            ("plant/store.in", None),
            ("plant/store", None),
            ("plant/filter.out -> store.in", None),
            ("filter.out", Some("store.in")),
            ("plant/filter", Some("store")),
        ] {
            assert!(is_named(&one, name, to), "{name} {to:?}");
        }
        for (name, to) in [
            ("0123456789abcde", None),
            ("other/filter.out", None),
            ("filter.o", None),
            ("store.in", Some("filter.out")),
            ("filter.out -> store.out", None),
        ] {
            assert!(!is_named(&one, name, to), "{name} {to:?}");
        }
        let topic: Route =
            serde_json::from_value(route("plant", "mqtt:hall/+/t.x", "store.in")).unwrap();
        for name in ["mqtt:hall/+/t.x", "plant/mqtt:hall/+/t.x"] {
            assert!(is_named(&topic, name, None), "{name}");
        }
        assert!(!is_named(&topic, "hall", None));
    }

    #[test]
    fn what_is_wrong_with_a_route_stands_with_its_cause_and_since_when() {
        let report = |sent: u64, delivered: u64, waiting: u64| {
            json!({
                "counted": { "since_ms": NOW_MS - 90_000, "until_ms": NOW_MS - 2_000 },
                "sent": sent, "delivered": delivered, "handled": delivered, "dropped": 0,
                "waiting": waiting,
            })
        };
        let away = "`edge-2` is not connected to relay `plant`: refused\u{1b}[2J";
        let mut detail = route("plant", "filter.out", "store.in");
        for (key, value) in json!({
            "health": {
                "state": "degraded", "cause": "relay", "since_ms": NOW_MS - 60_000, "reason": away,
            },
            "pairs": [
                {
                    "from": "edge-1", "to": "hub", "relays": [{ "name": "plant", "connected": true }],
                    "health": { "state": "healthy" },
                    "reports": { "edge-1": report(9, 0, 0), "hub": report(0, 9, 1) },
                },
                {
                    "from": "edge-2", "to": "hub", "relays": [{ "name": "plant", "connected": false }],
                    "health": {
                        "state": "failed", "cause": "relay", "since_ms": NOW_MS - 60_000, "reason": away,
                    },
                    "reports": { "edge-2": {
                        "counted": { "since_ms": NOW_MS - 90_000, "until_ms": NOW_MS - 2_000 },
                        "sent": 3, "delivered": 0, "handled": 0, "dropped": 1, "waiting": 2,
                        "problem": "the broker refused a message", "problem_since_ms": NOW_MS - 30_000,
                    } },
                },
            ],
            "backlogs": { "edge-2": {
                "application": "plant", "microservice": "filter", "outlet": "out", "bytes": 4_096,
                "bytes_max": 16_777_216, "refused": { "episodes": 0, "messages": 0 },
                "dropped": { "episodes": 1, "messages": 7 },
            } },
            "receivers": { "hub": {
                "counted": { "since_ms": NOW_MS - 95_000, "until_ms": NOW_MS - 1_000 },
                "discarded": 1, "dead_letters": 2,
            } },
        })
        .as_object()
        .unwrap()
        {
            detail[key] = value.clone();
        }
        let detail: RouteDetail = serde_json::from_value(detail).unwrap();
        insta::assert_snapshot!(described(&detail, NOW_MS, false));
    }
}
