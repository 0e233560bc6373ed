//! Lists of a thousand: what is wrong stands first, and a table is no longer than it must be.

use haar_protocol::rest::Node;
use serde_json::{Value, json};

use super::*;
use crate::commands::get::tables;

const NOW_MS: u64 = 1_700_000_000_000;

fn healthy() -> Value {
    json!({ "state": "healthy", "since_ms": NOW_MS - 3_600_000 })
}

/// The health of what is on or is the node with this number: the site has two kinds of trouble.
fn health(number: usize) -> Value {
    let since_ms = NOW_MS - 60_000;
    match number {
        17 => json!({ "state": "failed", "cause": "back-off", "since_ms": since_ms,
                      "reason": "it failed, and starts again after a pause: it panicked" }),
        500..515 => json!({ "state": "unknown", "cause": "not-reached", "since_ms": since_ms,
                            "reason": format!("no relay has a connection to `gw-{number:04}`"),
                            "hint": format!("bring `gw-{number:04}` back") }),
        _ => healthy(),
    }
}

fn nodes() -> Vec<Node> {
    let node = |number: usize| {
        json!({
            "name": format!("gw-{number:04}"), "id": format!("node-{number}"),
            "labels": { "role": "edge" }, "online": !(500..515).contains(&number),
            "last_seen_ms": NOW_MS - 5_000, "health": health(number), "assignment": 3, "applied": 3,
            "refused": null, "agent_version": "0.1.0", "target": "aarch64-unknown-linux-musl",
            "budget": { "memory": "64MiB", "microservices": 16 }, "resident_bytes": 9 << 20,
            "clock_skew_ms": null,
        })
    };
    let id = |number: usize| {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&(number as u64).to_be_bytes());
        let key = haar_protocol::keys::SecretKey::from_seed(seed);
        haar_protocol::ids::NodeId::of(&key.public())
    };
    let all = (1..=1_000).map(|number| {
        let mut node = node(number);
        node["id"] = json!(id(number));
        serde_json::from_value(node).unwrap()
    });
    all.collect()
}

fn instance(name: &str, number: usize, health: &Value) -> Microservice {
    let state = match health["cause"].as_str() {
        Some("back-off") => "back-off",
        _ => "running",
    };
    let digest = haar_protocol::ids::Digest::of(name.as_bytes());
    serde_json::from_value(json!({
        "application": "plant", "microservice": name, "node": format!("gw-{number:04}"),
        "node_online": true, "module": digest, "module_label": format!("{name}@1.0.0"),
        "wanted": true, "health": health,
        "counted": { "since_ms": NOW_MS - 3_600_000, "until_ms": NOW_MS - 1_000 },
        "status": {
            "application": "plant", "microservice": name, "module": digest,
            "module_label": format!("{name}@1.0.0"), "state": state, "reason": null,
            "since_ms": NOW_MS - 3_600_000, "restarts": 1, "calls": 100, "failures": 2, "fuel": 0,
            "memory_bytes": 1 << 20, "log_lines_dropped": 0,
        },
    }))
    .unwrap()
}

fn instances() -> Vec<Microservice> {
    let one = |number| instance("filter", number, &health(number));
    let mut all: Vec<_> = (1..=1_000).map(one).collect();
    all.push(instance("archive", 1, &healthy()));
    all
}

/// The first lines, and how many there are.
fn beginning(text: &str, lines: usize) -> String {
    let first: Vec<&str> = text.lines().take(lines).collect();
    format!("{}\n[{} lines]\n", first.join("\n"), text.lines().count())
}

#[test]
fn a_list_of_a_thousand_nodes_begins_with_a_summary_and_what_is_wrong() {
    let text = tables::nodes(&nodes(), NOW_MS, false, false, "None.");
    let end: Vec<&str> = text.lines().skip(1_003).collect();
    insta::assert_snapshot!(format!("{}…\n{}\n", beginning(&text, 24), end.join("\n")));
    let all = tables::nodes(&nodes(), NOW_MS, false, true, "None.");
    assert_eq!(
        all.matches("  Hint: ").count(),
        15,
        "every problem has its remark"
    );
    assert!(!all.contains("And "));
}

#[test]
fn a_microservice_with_a_thousand_instances_is_one_line() {
    let text = microservices(&instances(), NOW_MS, false, "None.");
    insta::assert_snapshot!(text);
}

#[test]
fn instances_that_are_not_as_they_should_be_stand_first() {
    let text = tables::instances(&instances(), NOW_MS, false, "None.");
    insta::assert_snapshot!(beginning(&text, 20));
    let described = crate::commands::instances::described(&instances(), NOW_MS);
    assert_eq!(
        described.matches("  Dead letters:").count(),
        10,
        "{described}"
    );
    assert!(described.ends_with("`haar describe microservice NAME --node NODE`\n"));
}

#[test]
fn a_short_list_has_no_summary() {
    let two = [
        instance("filter", 17, &health(17)),
        instance("archive", 1, &healthy()),
    ];
    insta::assert_snapshot!(microservices(&two, NOW_MS, false, "None."));
    assert_eq!(microservices(&[], NOW_MS, false, "None."), "None.\n");
}
