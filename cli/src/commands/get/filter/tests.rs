//! Which things of each kind a filter shows.

use clap::Parser as _;
use serde_json::json;

use super::*;

#[derive(Debug, clap::Parser)]
struct Line {
    #[command(flatten)]
    filter: Filter,
}

fn filter(line: &str) -> Filter {
    let words = std::iter::once("get").chain(line.split_whitespace());
    Line::try_parse_from(words).unwrap().filter
}

fn node(role: &str, online: bool, health: &str) -> Node {
    let key = haar_protocol::keys::SecretKey::from_seed([1; 32]).public();
    serde_json::from_value(json!({
        "name": "gw-1", "id": haar_protocol::ids::NodeId::of(&key), "labels": { "role": role, "zone": "a" },
        "online": online, "last_seen_ms": null, "health": { "state": health }, "assignment": 0,
        "applied": 0, "refused": null, "agent_version": "1", "target": "t",
        "budget": { "memory": "1MiB", "microservices": 1 }, "resident_bytes": null,
        "clock_skew_ms": null,
    }))
    .unwrap()
}

#[test]
fn nodes_are_filtered_by_labels_state_and_problems() {
    let well = node("edge", true, "healthy");
    let away = node("edge", false, "unknown");
    for (line, shows_well, shows_away) in [
        ("", true, true),
        ("--problems", false, true),
        ("--state online", true, false),
        ("--state offline", false, true),
        ("--state unknown,failed", false, true),
        ("--state healthy --state offline", true, true),
        ("-l role=edge", true, true),
        ("-l role=edge,zone=b", false, false),
        ("--label role=edge --label zone=a --problems", false, true),
        ("-l role=hub", false, false),
    ] {
        let filter = filter(line);
        assert_eq!(filter.has_node(&well), shows_well, "{line}");
        assert_eq!(filter.has_node(&away), shows_away, "{line}");
    }
    assert!(filter("").is_none() && !filter("--problems").is_none());
}

#[test]
fn instances_are_filtered_by_their_node_its_labels_and_their_state() {
    let digest = haar_protocol::ids::Digest::of(b"m");
    let instance: Microservice = serde_json::from_value(json!({
        "application": "plant", "microservice": "filter", "node": "gw-1", "node_online": true,
        "module": digest, "module_label": "filter@1.0.0", "wanted": true,
        "health": { "state": "failed", "cause": "back-off" },
        "status": {
            "application": "plant", "microservice": "filter", "module": digest,
            "module_label": "filter@1.0.0", "state": "back-off", "reason": null, "since_ms": 1,
            "restarts": 0, "calls": 0, "failures": 0, "fuel": 0, "memory_bytes": 0,
            "log_lines_dropped": 0,
        },
    }))
    .unwrap();
    let labels = BTreeMap::from([("role".to_owned(), "edge".to_owned())]);
    for (line, shows) in [
        ("--node gw-1", true),
        ("--node gw-2", false),
        ("--state back-off", true),
        ("--state failed", true),
        ("--state running", false),
        ("--problems --node gw-1 -l role=edge", true),
        ("-l role=hub", false),
    ] {
        assert_eq!(
            filter(line).has_instance(&instance, Some(&labels)),
            shows,
            "{line}"
        );
    }
    assert!(!filter("-l role=edge").has_instance(&instance, None));
}
