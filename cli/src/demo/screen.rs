//! How the demo looks: a page that is drawn over itself on a terminal, single lines elsewhere.
//! Rendering is pure; only [`draw`] writes.

use serde_json::Value;

use super::watch::{Kind, View};
use crate::commands::get;
use crate::error::Result;
use crate::output::{self, Table};

/// Goes to the first line.
const HOME: &str = "\u{1b}[H";
/// Clears what is left of a line.
const CLEAR_LINE: &str = "\u{1b}[K";
/// Clears everything below.
const CLEAR_BELOW: &str = "\u{1b}[J";

/// Makes room for the page: what is on the terminal scrolls away and stays readable.
pub(super) fn make_room() -> Result<()> {
    let (rows, _) = console::Term::stdout().size();
    output::text(&"\n".repeat(usize::from(rows)))
}

/// Draws the page over the last one.
pub(super) fn draw(view: &View) -> Result<()> {
    let (rows, columns) = console::Term::stdout().size();
    let mut page = String::from(HOME);
    // The last row stays free: a line end in it would scroll.
    for line in render(view)
        .lines()
        .take(usize::from(rows).saturating_sub(1))
    {
        page.push_str(&console::truncate_str(line, usize::from(columns), "…"));
        page.push_str(CLEAR_LINE);
        page.push('\n');
    }
    page.push_str(CLEAR_BELOW);
    output::text(&page)
}

/// The whole page.
pub(super) fn render(view: &View) -> String {
    let heading = format!(
        "Haar demo, for {} s now. Ctrl-C ends it.\nLook around from another terminal: haar --context {} get nodes\n",
        view.watched.as_secs(),
        view.context
    );
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
            newest(&recorded.alerts, 3)
        ),
        format!(
            "Summaries: {}\n{}",
            counts(&recorded.summaries),
            newest(&recorded.summaries, 1)
        ),
    ]
    .join("\n")
}

/// The whole state in one line.
pub(super) fn line(view: &View) -> String {
    let running = view
        .microservices
        .iter()
        .filter(|microservice| microservice.health.is_healthy())
        .count();
    let rate: f64 = view.routes.iter().map(|route| route.rate).sum();
    let resident: u64 = view
        .nodes
        .iter()
        .filter_map(|node| node.resident_bytes)
        .sum();
    let recorded = &view.recorded;
    format!(
        "{:>4} s: {running} of {} run; {rate:.1} messages/s; {} readings, {} alerts, {} summaries; agents {}",
        view.watched.as_secs(),
        view.microservices.len(),
        recorded.readings.count(),
        recorded.alerts.count(),
        recorded.summaries.count(),
        output::bytes(resident)
    )
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
    kind.latest_by_node
        .values()
        .map(|message| format!("  {}\n", describe(message)))
        .collect()
}

fn newest(kind: &Kind, most: usize) -> String {
    kind.latest
        .iter()
        .rev()
        .take(most)
        .map(|message| format!("  {}\n", describe(message)))
        .collect()
}

/// A message as `NODE name value, …`: numbers rounded, nothing nested.
fn describe(message: &Value) -> String {
    let Value::Object(fields) = message else {
        return output::printable(&message.to_string());
    };
    let node = fields
        .get("node")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let others = fields
        .iter()
        .filter(|(name, _)| *name != "node")
        .map(|(name, value)| match (name.as_str(), value) {
            (name, Value::Number(number)) => quantity(name, number),
            (name, Value::String(text)) => format!("{name} {text}"),
            (name, Value::Array(items)) => format!("{name} {}", items.len()),
            (name, other) => format!("{name} {other}"),
        });
    output::printable(&format!(
        "{node:<10} {}",
        others.collect::<Vec<_>>().join(", ")
    ))
}

/// `cpu_percent: 12.3` as `cpu 12.3 %`, and likewise for the other units that names end with.
fn quantity(name: &str, number: &serde_json::Number) -> String {
    let value = number.as_f64().unwrap_or_default();
    let plain = || {
        if number.is_u64() {
            number.to_string()
        } else {
            format!("{value:.1}")
        }
    };
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a float that is out of range becomes the nearest number"
    )]
    let bytes = || output::bytes(value as u64);
    let units: [(&str, &dyn Fn() -> String); 4] = [
        ("_bytes_per_second", &|| format!("{}/s", bytes())),
        ("_per_second", &|| format!("{}/s", plain())),
        ("_bytes", &bytes),
        ("_percent", &|| format!("{} %", plain())),
    ];
    for (ending, write) in units {
        if let Some(name) = name.strip_suffix(ending) {
            return format!("{} {}", name.replace('_', " "), write());
        }
    }
    format!("{} {}", name.replace('_', " "), plain())
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::watch::{NodeView, Recorded, RouteView};
    use super::*;
    use serde_json::json;

    /// A fleet of two nodes with one microservice in the state given.
    pub(in crate::demo) fn view(state: &str) -> View {
        let node = serde_json::from_value(json!({
            "name": "sensor", "id": format!("n{}", "a".repeat(26)), "labels": {"role": "sensor"}, "online": true,
            "health": {"state": "healthy"}, "last_seen_ms": 1, "assignment": 7, "applied": 7, "refused": null, "agent_version": "0.1.0",
            "target": "x", "budget": {"memory": "1MiB", "microservices": 4}, "resident_bytes": null, "clock_skew_ms": null
        }));
        let microservice = serde_json::from_value(json!({
            "application": "fleet", "microservice": "sampler", "node": "sensor", "node_online": true,
            "health": health(state), "module": format!("sha256:{}", "a".repeat(64)), "module_label": "sampler@1.0.0", "wanted": true,
            "status": {
                "application": "fleet", "microservice": "sampler", "module": format!("sha256:{}", "a".repeat(64)),
                "module_label": "sampler@1.0.0", "state": state, "reason": null, "since_ms": 1, "restarts": 0,
                "calls": 12, "failures": 0, "fuel": 0, "memory_bytes": 131_072, "log_lines_dropped": 0
            }
        }));
        let route = serde_json::from_value(json!({
            "id": "00000000000000aa", "application": "fleet", "from": "sampler.readings", "to": "recorder.readings",
            "content_type": "application/json", "delivery": "live", "from_nodes": ["sensor"], "to_nodes": ["recorder"],
            "sent": 20, "delivered": 19, "handled": 19, "dropped": 1
        }));
        fn health(state: &str) -> Value {
            match state {
                "running" => json!({"state": "healthy"}),
                _ => json!({"state": "failed", "cause": "back-off", "reason": "it failed"}),
            }
        }
        let reading = json!({"node": "sensor", "load": 0.25, "memory_total_bytes": 1_048_576, "cpu_percent": 12.34});
        let mut recorded = Recorded::default();
        recorded.readings.count_by_node.insert("sensor".into(), 19);
        recorded.readings.latest.push_back(reading.clone());
        recorded
            .readings
            .latest_by_node
            .insert("sensor".into(), reading);
        View {
            context: "/tmp/demo/context.toml".into(),
            watched: std::time::Duration::from_secs(12),
            nodes: vec![NodeView {
                node: node.unwrap(),
                resident_bytes: Some(9 << 20),
            }],
            microservices: vec![microservice.unwrap()],
            routes: vec![RouteView {
                route: route.unwrap(),
                rate: 1.0,
            }],
            recorded,
        }
    }

    #[test]
    fn the_page_shows_where_what_runs_and_what_was_said() {
        insta::assert_snapshot!(render(&view("running")));
    }

    #[test]
    fn the_line_is_short() {
        insta::assert_snapshot!(line(&view("running")), @"  12 s: 1 of 1 run; 1.0 messages/s; 19 readings, 0 alerts, 0 summaries; agents 9.0 MiB");
    }
}
