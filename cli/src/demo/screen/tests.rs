//! Pages as people see them.

use std::time::Duration;

use serde_json::{Value, json};

use super::super::spike::{Shown, State};
use super::super::watch::{NodeView, Recorded, RouteView, View};
use super::*;

const PLAIN: Look = Look {
    has_colours: false,
    is_unicode: true,
};
const READY: Shown = Shown {
    node: "sensor",
    state: State::Ready,
};

/// A fleet of one node with one microservice in the state given.
pub(in crate::demo) fn view(state: &str) -> View {
    let mut recorded = Recorded::default();
    let reading = json!({"node": "sensor", "load": 0.25, "memory_total_bytes": 1_048_576, "cpu_percent": 12.34});
    recorded.readings.add("sensor".into(), 1_000, reading);
    recorded.readings.count_by_node.insert("sensor".into(), 19);
    View {
        context: "/tmp/demo/context.toml".into(),
        watched: Duration::from_secs(12),
        now_ms: 100_000,
        nodes: vec![node("sensor")],
        microservices: vec![microservice("sampler", "sensor", state)],
        routes: vec![route("sampler.readings", "recorder.readings")],
        recorded,
    }
}

/// What the demo runs, after half a minute and so many alerts.
fn fleet(alerts: u32) -> View {
    let names = ["gateway", "recorder", "sensor"];
    let mut recorded = Recorded::default();
    for second in 0..30_u32 {
        for (index, name) in names.into_iter().enumerate() {
            let spikes = name == "sensor" && alerts > 0 && (20..24).contains(&second);
            let load = if spikes { 8.6 } else { 0.3 };
            let processor = match spikes {
                true => 100,
                false => 5 + (second * 7 + u32::try_from(index).unwrap() * 11) % 30,
            };
            let reading = json!({"node": name, "load": load, "cpu_percent": processor});
            recorded.readings.add(name.into(), 0, reading);
        }
    }
    for index in 0..alerts {
        let (change, value) = match index % 2 {
            0 => ("left", 8.6),
            _ => ("returned", 0.3),
        };
        let alert = json!({"node": "sensor", "quantity": "load", "change": change, "value": value, "mean": 0.31, "band": 1.0});
        recorded.alerts.add(
            "sensor".into(),
            90_000 + u64::from(index) * 4_000 / 3,
            alert,
        );
    }
    View {
        context: "/tmp/haar-demo-abcdef/controller/context.toml".into(),
        watched: Duration::from_secs(31),
        now_ms: 100_000,
        nodes: names.into_iter().map(node).collect(),
        microservices: names
            .into_iter()
            .map(|node| microservice("sampler", node, "running"))
            .chain([
                microservice("detector", "gateway", "running"),
                microservice("recorder", "recorder", "running"),
            ])
            .collect(),
        routes: vec![
            route("sampler.readings", "detector.readings"),
            route("sampler.readings", "recorder.readings"),
            route("detector.alerts", "recorder.alerts"),
            route("detector.summaries", "recorder.summaries"),
        ],
        recorded,
    }
}

/// A fleet whose names are as long as names may be, and which is in trouble.
fn long_names() -> View {
    let long = |name: &str| format!("{name}-{}", "x".repeat(62 - name.len()));
    let mut view = fleet(0);
    let names = ["gateway", "recorder", "sensor"].map(long);
    view.nodes = names.iter().map(|name| node(name)).collect();
    view.microservices = names
        .iter()
        .map(|name| microservice(&long("sampler"), name, "back-off"))
        .collect();
    view.routes = vec![route(
        &format!("{0}.{0}", long("readings")),
        &format!("{0}.{0}", long("recorder")),
    )];
    let quantity = format!("temperature_celsius.{}", "zone\u{1b}\t".repeat(40));
    let alert = json!({"node": names[2], "quantity": quantity, "change": "left", "value": 1e300, "mean": -1e300});
    view.recorded.alerts.add(names[2].clone(), 0, alert);
    view.context = format!("/{}/context.toml", "x".repeat(200));
    view
}

fn node(name: &str) -> NodeView {
    let node = serde_json::from_value(json!({
        "name": name, "id": format!("n{}", "a".repeat(26)), "labels": {"role": name}, "online": true,
        "health": {"state": "healthy"}, "last_seen_ms": 1, "assignment": 7, "applied": 7, "refused": null, "agent_version": "0.1.0",
        "target": "x", "budget": {"memory": "1MiB", "microservices": 4}, "resident_bytes": null, "clock_skew_ms": null
    }));
    NodeView {
        node: node.unwrap(),
        resident_bytes: Some(9 << 20),
    }
}

fn microservice(name: &str, node: &str, state: &str) -> haar_protocol::rest::Microservice {
    let health = match state {
        "running" => json!({"state": "healthy"}),
        _ => json!({"state": "failed", "cause": "back-off", "reason": "it failed"}),
    };
    let module = format!("sha256:{}", "a".repeat(64));
    let microservice = json!({
        "application": "fleet", "microservice": name, "node": node, "node_online": true,
        "health": health, "module": module, "module_label": "sampler@1.0.0", "wanted": true,
        "status": {
            "application": "fleet", "microservice": name, "module": module,
            "module_label": "sampler@1.0.0", "state": state, "reason": null, "since_ms": 1, "restarts": 0,
            "calls": 12, "failures": 0, "fuel": 0, "memory_bytes": 131_072, "log_lines_dropped": 0
        }
    });
    serde_json::from_value(microservice).unwrap()
}

fn route(from: &str, to: &str) -> RouteView {
    let route: Value = json!({
        "id": "00000000000000aa", "application": "fleet", "from": from, "to": to,
        "content_type": "application/json", "delivery": "live", "from_nodes": ["sensor"], "to_nodes": ["recorder"],
        "sent": 20, "delivered": 19, "handled": 19, "dropped": 1
    });
    RouteView {
        route: serde_json::from_value(route).unwrap(),
        rate: 1.0,
    }
}

/// The page with a border, so that a snapshot shows where it ends.
fn drawn(view: &View, spike: Shown, columns: usize, rows: usize, look: Look) -> String {
    let lines = page(view, spike, Size { rows, columns }, look, true);
    assert_eq!(lines.len(), rows);
    let mut text = String::new();
    for line in lines {
        let width = console::measure_text_width(&line);
        assert!(width <= columns, "{width} columns: {line}");
        text.push_str(&format!("|{line}{}|\n", " ".repeat(columns - width)));
    }
    text
}

#[test]
fn a_page_of_80_columns_and_24_rows_has_everything() {
    let learning = Shown {
        state: State::Learning {
            readings: 7,
            is_wanted: false,
        },
        ..READY
    };
    let sent = Shown {
        state: State::Sent(Duration::from_secs(2)),
        ..READY
    };
    insta::assert_snapshot!("80_begins", drawn(&fleet(0), learning, 80, 24, PLAIN));
    insta::assert_snapshot!("80_one_alert", drawn(&fleet(1), sent, 80, 24, PLAIN));
    insta::assert_snapshot!("80_many_alerts", drawn(&fleet(5), READY, 80, 24, PLAIN));
}

#[test]
fn an_alert_stays_on_the_page_when_everything_is_unusual_at_once() {
    let mut view = fleet(0);
    for (node, quantity) in [
        ("sensor", "load"),
        ("sensor", "cpu_percent"),
        ("gateway", "cpu_percent"),
        ("recorder", "cpu_percent"),
    ] {
        let alert =
            json!({"node": node, "quantity": quantity, "change": "left", "value": 90, "mean": 10});
        view.recorded.alerts.add(node.into(), 99_500, alert);
    }
    let page = drawn(&view, READY, 80, 24, PLAIN);
    let rows = page.lines().filter_map(|line| line.strip_prefix("|!"));
    let rows: Vec<&str> = rows.map(|row| row.trim_end_matches(['|', ' '])).collect();
    assert_eq!(
        rows,
        [
            "       now  recorder cpu is 90 %, usually 10 %",
            "       now  gateway  cpu is 90 %, usually 10 %",
            "       now  sensor   cpu is 90 %, usually 10 %; load is 90, usually 10",
        ]
    );
}

#[test]
fn a_small_page_has_what_matters_most_and_a_large_one_uses_the_room() {
    insta::assert_snapshot!("60", drawn(&fleet(2), READY, 60, 20, PLAIN));
    insta::assert_snapshot!("120", drawn(&fleet(9), READY, 120, 40, PLAIN));
    insta::assert_snapshot!(
        "before_the_first_look",
        drawn(
            &View {
                nodes: Vec::new(),
                microservices: Vec::new(),
                routes: Vec::new(),
                recorded: Recorded::default(),
                ..fleet(0)
            },
            READY,
            80,
            24,
            PLAIN
        )
    );
}

#[test]
fn long_names_are_cut() {
    insta::assert_snapshot!("80_long_names", drawn(&long_names(), READY, 80, 24, PLAIN));
}

#[test]
fn no_size_breaks_a_page() {
    for columns in (0..140).step_by(7) {
        for rows in (0..50).step_by(3) {
            for view in [fleet(0), fleet(9), long_names()] {
                drawn(&view, READY, columns, rows, PLAIN);
            }
        }
    }
}

#[test]
fn without_unicode_a_page_is_ascii() {
    let ascii = Look {
        is_unicode: false,
        ..PLAIN
    };
    let text = drawn(&fleet(5), READY, 80, 24, ascii);
    assert!(text.is_ascii(), "{text}");
    insta::assert_snapshot!("80_ascii", text);
    let cut = drawn(&fleet(5), READY, 40, 24, ascii);
    assert!(cut.is_ascii(), "{cut}");
}

#[test]
fn what_is_outside_of_its_band_is_red_until_it_returns() {
    let coloured = Look {
        has_colours: true,
        ..PLAIN
    };
    let is_red = |alerts: u32| {
        let view = fleet(alerts);
        let lines = page(
            &view,
            READY,
            Size {
                rows: 24,
                columns: 80,
            },
            coloured,
            true,
        );
        let row = lines
            .iter()
            .find(|line| console::strip_ansi_codes(line).starts_with("sensor"))
            .unwrap();
        row.contains("\u{1b}[31m")
    };
    assert!(is_red(1));
    assert!(!is_red(2));
    assert!(!drawn(&fleet(1), READY, 80, 24, PLAIN).contains('\u{1b}'));
    assert_eq!(
        console::strip_ansi_codes(&drawn(&fleet(1), READY, 80, 24, coloured)),
        drawn(&fleet(1), READY, 80, 24, PLAIN)
    );
}

#[test]
fn the_line_is_short() {
    insta::assert_snapshot!(line(&view("running")), @"  12 s: 1 of 1 run; 1.0 messages/s; 19 readings, 0 alerts, 0 summaries; agents 9.0 MiB");
}
