//! Assignments of newer releases: what an older agent does not know concerns one microservice, never
//! the whole node.

use haar_protocol::assignment::{Assignment, Microservice};
use haar_protocol::ids::Digest;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::fixtures::{assignment, node};

/// An assignment with a second microservice, `other`, which uses nothing new.
fn two() -> Value {
    let mut assignment = assignment();
    let mut other = assignment.microservices[0].clone();
    other.name.microservice = "other".parse().unwrap();
    assignment.microservices.push(other);
    serde_json::to_value(assignment).unwrap()
}

/// What the first microservice is not understood in, after a change by a newer release. The other one
/// is never concerned.
fn notes(change: impl FnOnce(&mut Value)) -> Vec<String> {
    let mut json = two();
    change(&mut json);
    let read: Assignment = serde_json::from_value(json).unwrap();
    assert_eq!(read.microservices[1].unknown, [""; 0]);
    assert_eq!(
        read.microservices[1].limits,
        assignment().microservices[0].limits
    );
    read.microservices[0].unknown.clone()
}

fn first(json: &mut Value) -> &mut Value {
    &mut json["microservices"][0]
}

#[test]
fn a_key_of_the_assignment_that_a_newer_release_adds_is_passed_over() {
    let mut json = serde_json::to_value(assignment()).unwrap();
    json["colour"] = "green".into();
    let read: Assignment = serde_json::from_value(json).unwrap();
    assert_eq!(read, assignment());
}

#[test]
fn a_grant_a_limit_or_a_key_of_a_newer_release_is_noted_at_its_microservice_alone() {
    let grants =
        |json: &mut Value| first(json)["grants"]["camera"] = json!({"device": "/dev/video0"});
    let found = notes(grants);
    assert!(found[0].starts_with("the grant `camera`"), "{found:?}");
    let narrowed = notes(|json| first(json)["grants"]["directories"][0]["files_max"] = 3.into());
    assert!(
        narrowed[0].starts_with("the grant `directories` (unknown field `files_max`"),
        "{narrowed:?}"
    );
    let limit = notes(|json| first(json)["limits"]["flash_per_day"] = "1MiB".into());
    assert_eq!(limit, ["the limit `flash_per_day`"]);
    let key = notes(|json| first(json)["schedule"] = "0 4 * * *".into());
    assert_eq!(key, ["the key `schedule`"]);
    for (part, key) in [("restart", "give_up"), ("retry", "backoff")] {
        let found = notes(|json| first(json)[part][key] = 3.into());
        assert_eq!(found, [format!("the key `{part}.{key}`")]);
    }
    let history = notes(|json| {
        first(json)["outlet_history"] =
            json!({"readings": {"size": "1KiB", "age": "1h", "every": 2}});
    });
    assert_eq!(
        history,
        ["the key `outlet_history.readings` (`every` in it)"]
    );
}

#[test]
fn a_value_of_a_newer_release_is_noted_at_its_microservice_alone() {
    for (change, begins) in [
        (
            (|json| first(json)["grants"]["directories"][0]["access"] = "append".into())
                as fn(&mut Value),
            "the grant `directories` (unknown variant `append`",
        ),
        (
            |json| first(json)["log_level"] = "verbose".into(),
            "the key `log_level` (unknown variant `verbose`",
        ),
        (
            |json| first(json)["configuration"]["token"] = json!({"sealed": "00"}),
            "the key `configuration.token` (invalid type",
        ),
        (
            |json| first(json)["limits"]["memory"] = json!({"least": "1MiB"}),
            "the limit `memory` (",
        ),
        (
            |json| first(json)["limits"] = "small".into(),
            "the key `limits`",
        ),
    ] {
        let found = notes(change);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with(begins), "{found:?}");
    }
}

#[test]
fn what_is_known_beside_it_is_kept_and_counted() {
    let mut json = two();
    first(&mut json)["grants"]["camera"] = true.into();
    first(&mut json)["grants"]["key_value"] = true.into();
    first(&mut json)["limits"]["key_value_size"] = "3MiB".into();
    let read: Assignment = serde_json::from_value(json).unwrap();
    let microservice = &read.microservices[0];
    assert!(microservice.grants.key_value);
    assert_eq!(
        microservice.grants.directories,
        assignment().microservices[0].grants.directories
    );
    assert_eq!(microservice.demand().storage, 3 << 20);
    assert_eq!(microservice.demand().memory, 16 << 20);
}

#[test]
fn what_a_newer_release_says_of_a_route_is_noted_at_its_ends_on_this_node() {
    for (change, note, is_kept) in [
        (
            (|route| route["filter"] = "value > 3".into()) as fn(&mut Value),
            "the key `filter` of a route",
            true,
        ),
        (
            |route| route["backlog"]["spill"] = true.into(),
            "the key `backlog.spill` of a route",
            true,
        ),
        (
            |route| route["delivery"] = "exactly-once".into(),
            "the key `delivery` (unknown variant `exactly-once`",
            true,
        ),
        (
            |route| route["content_type"] = 3.into(),
            "the key `content_type` (",
            false,
        ),
    ] {
        for (list, end) in [("routes", "readings"), ("topics", "readings")] {
            let mut json = two();
            change(&mut json[list][0]);
            let read: Assignment = serde_json::from_value(json).unwrap();
            let unknown = &read.microservices[0].unknown;
            assert_eq!(unknown.len(), 1, "{list} {end}");
            assert!(unknown[0].starts_with(note), "{unknown:?}");
            assert_eq!(read.microservices[1].unknown, [""; 0]);
            let kept = (read.routes.len(), read.topics.len());
            let left_out = if list == "routes" { (0, 1) } else { (1, 0) };
            assert_eq!(kept, if is_kept { (1, 1) } else { left_out });
        }
    }
    let inner = notes(|json| json["routes"][0]["to"]["instance"] = 2.into());
    assert_eq!(inner, ["the key `instance` of a route"]);
    let topic = notes(|json| {
        let route = json["topics"][0].as_object_mut().unwrap();
        route.remove("to");
        route.insert("table".into(), "readings".into());
    });
    assert_eq!(topic.len(), 2, "{topic:?}");
}

#[test]
fn a_route_between_other_nodes_ends_concerns_nobody_here() {
    let mut json = two();
    json["routes"][0]["from"]["node"] = serde_json::to_value(node(3)).unwrap();
    json["routes"][0]["filter"] = "x".into();
    let read: Assignment = serde_json::from_value(json).unwrap();
    assert!(read.microservices.iter().all(|one| one.unknown.is_empty()));
}

#[test]
fn what_names_a_microservice_and_its_module_must_be_understood() {
    for (key, value) in [("module", json!("sha512:00")), ("application", json!(3))] {
        let mut json = two();
        first(&mut json)[key] = value;
        assert!(serde_json::from_value::<Assignment>(json).is_err(), "{key}");
    }
}

/// Agents of the first release refuse what they do not know, so nothing that everybody uses may be new
/// to them. A field that is added is left out unless it is used.
#[test]
fn a_microservice_that_uses_nothing_new_is_written_with_the_keys_of_the_first_release() {
    let plain: Microservice = serde_json::from_value(json!({
        "application": "app", "microservice": "one", "module": Digest::of(b""), "module_bytes": 1,
        "module_label": "one@1",
    }))
    .unwrap();
    let written = serde_json::to_value(plain).unwrap();
    let keys =
        |value: &Value| -> Vec<String> { value.as_object().unwrap().keys().cloned().collect() };
    assert_eq!(
        keys(&written).join(" "),
        "application configuration grants inlet_history inlets limits log_level microservice module \
         module_bytes module_label outlet_history outlets restart retry"
    );
    assert_eq!(keys(&written["grants"]), [""; 0]);
    assert_eq!(
        keys(&written["limits"]).join(" "),
        "call_timeout core_instances files_size fuel_per_call inbox_messages key_value_per_second \
         key_value_size key_value_writes_per_second log_bytes_per_second log_lines_per_second memory \
         message_size publish_per_second stop_grace table_elements timers"
    );
    assert_eq!(
        keys(&written["restart"]).join(" "),
        "jitter pauses recovered_after"
    );
    assert_eq!(
        keys(&written["retry"]).join(" "),
        "attempts dead_letters pause"
    );
}

proptest! {
    /// Whatever one microservice says, the others are read as they are.
    #[test]
    fn no_key_of_a_microservice_takes_another_one_along(
        part in prop::sample::select(vec!["", "limits", "grants", "restart", "retry", "inlets", "configuration"]),
        key in "[a-z_]{1,12}",
        value in prop_oneof![
            Just(Value::Null), any::<bool>().prop_map(Value::from), any::<i64>().prop_map(Value::from),
            "[a-z ]{0,8}".prop_map(Value::from), Just(json!([])), Just(json!({"a": {"b": [1]}})),
        ],
    ) {
        prop_assume!(!["application", "microservice", "module", "module_bytes", "module_label"].contains(&key.as_str()));
        let mut json = two();
        let place = if part.is_empty() { first(&mut json) } else { &mut first(&mut json)[part] };
        place[key] = value;
        let read: Assignment = serde_json::from_value(json).unwrap();
        let same: Assignment = serde_json::from_value(two()).unwrap();
        prop_assert_eq!(&read.microservices[1], &same.microservices[1]);
        prop_assert_eq!(&read.routes, &same.routes);
        let mut first = read.microservices[0].clone();
        first.unknown.clear();
        first.life = None; // the assignment has it
        // What was understood is written as it would be read again.
        let again: Microservice = serde_json::from_value(serde_json::to_value(&first).unwrap()).unwrap();
        prop_assert_eq!(again, first);
    }
}
