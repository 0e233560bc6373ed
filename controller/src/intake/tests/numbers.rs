//! Numbers that nodes report: which are believed, and how far the site counts on because of them.

use haar_protocol::number::NUMBER_MAX;

use super::*;

fn row() -> NodeRow {
    NodeRow {
        id: NodeId::of(&key(2).public()),
        name: "gw".parse().unwrap(),
        key: key(2).public(),
        labels: Default::default(),
        budget: status(1, 1).budget,
        agent_version: String::new(),
        target: String::new(),
        enrolled_ms: 0,
        online: false,
        last_seen_ms: None,
        link_key: None,
        link_key_generation: 3,
    }
}

fn above(status: &Status, number: u64) -> Option<u64> {
    news(&row(), status, number).and_then(|news| news.above)
}

#[test]
fn a_node_that_is_ahead_of_us_gets_a_higher_number() {
    let ahead = Status {
        applied: 7,
        ..status(1, 1)
    };
    assert_eq!(above(&ahead, 1), Some(7));
    let refused = Some(RefusedAssignment {
        number: Some(1),
        reason: "other content".into(),
    });
    let stuck = Status {
        applied: 1,
        refused,
        ..status(1, 1)
    };
    assert_eq!(above(&stuck, 1), Some(1));
    assert_eq!(
        take(None, stuck).unwrap().events[0].kind,
        "assignment_refused"
    );
    assert_eq!(above(&status(1, 1), 1), None);
}

#[test]
fn no_node_gets_the_site_to_the_end_of_numbers() {
    let far = Status {
        applied: NUMBER_MAX,
        link_key_generation: NUMBER_MAX,
        ..status(1, 1)
    };
    let taken = news(&row(), &far, 5).unwrap();
    assert_eq!(taken.above, Some(5 + COUNT_STEP_MAX));
    assert_eq!(taken.link_key_generation, Some(3 + COUNT_STEP_MAX));
    // A step a minute: the end is further away than any device lives.
    const { assert!(NUMBER_MAX / COUNT_STEP_MAX > 10_000 * 366 * 24 * 60) };
}

#[test]
fn news_are_what_plans_depend_on_and_the_site_does_not_know() {
    assert_eq!(news(&row(), &status(1, 1), 1), None);
    let mut next = status(2, 1);
    next.budget.microservices = 7;
    let taken = news(&row(), &next, 1).unwrap();
    assert_eq!(taken.budget.as_ref(), Some(&next.budget));
    assert!(taken.changes_plan());
    let mut next = status(2, 1);
    next.link_key_generation = 4;
    let taken = news(&row(), &next, 1).unwrap();
    assert!(!taken.changes_plan() && taken.link_key_generation == Some(4));
}

/// Replaces one number of a document after the other by `number`, and gives each result.
fn with_each_number(document: &serde_json::Value, number: u64) -> Vec<(String, Vec<u8>)> {
    fn pointers(value: &serde_json::Value, at: &str, found: &mut Vec<String>) {
        match value {
            serde_json::Value::Number(_) => found.push(at.to_owned()),
            serde_json::Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    pointers(item, &format!("{at}/{index}"), found);
                }
            }
            serde_json::Value::Object(entries) => {
                for (name, entry) in entries {
                    pointers(entry, &format!("{at}/{name}"), found);
                }
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    pointers(document, "", &mut found);
    let replaced = |pointer: String| {
        let mut document = document.clone();
        *document.pointer_mut(&pointer).unwrap() = number.into();
        (pointer, serde_json::to_vec(&document).unwrap())
    };
    found.into_iter().map(replaced).collect()
}

/// An envelope with whatever JSON, as the node's own key would sign it.
fn signed_json(json: &[u8]) -> Vec<u8> {
    let mut covered = b"haar signed document\n\x02\x01".to_vec();
    covered.extend_from_slice(json);
    let mut envelope = b"HAAR\x02\x01".to_vec();
    envelope.extend_from_slice(&key(2).sign(&covered));
    envelope.extend_from_slice(json);
    envelope
}

#[test]
fn a_number_beyond_all_numbers_is_refused_wherever_it_stands_in_a_status() {
    let (site, node) = (SiteId::of(&key(1).public()), NodeId::of(&key(2).public()));
    let mut full = status(3, 4);
    full.microservices = vec![microservice(State::Running, 1)];
    full.microservices[0].last_failure = Some(FailureReport {
        time_ms: 1,
        cause: FailureCause::Fuel,
        details: String::new(),
        backtrace: Vec::new(),
        last_lines: Vec::new(),
    });
    full.refused = Some(RefusedAssignment {
        number: Some(2),
        reason: String::new(),
    });
    full.flash = Some(FlashStatus {
        written_bytes: 1,
        today_bytes: 1,
        budget_bytes: Some(1),
    });
    full.backlogs = vec![BacklogStatus {
        name: full.microservices[0].name.clone(),
        outlet: "out".parse().unwrap(),
        bytes: 1,
        bytes_max: 1,
        refused: Overflow::default(),
        dropped: Overflow::default(),
    }];
    full.routes = vec![serde_json::from_value(serde_json::json!({
        "id": "0000000000000001", "peer": "gw", "sent": 1, "delivered": 1, "handled": 1, "dropped": 1,
    })).unwrap()];
    let document = serde_json::to_value(&full).unwrap();
    let open = |json: &[u8]| open_status(&signed_json(json), &site, &node, &key(2).public());
    assert!(open(&serde_json::to_vec(&document).unwrap()).is_ok());
    for number in [NUMBER_MAX + 1, (1 << 53) + 1, 1 << 63, u64::MAX] {
        let cases = with_each_number(&document, number);
        assert!(cases.len() > 45, "{}", cases.len());
        for (pointer, json) in cases {
            let why = open(&json).expect_err(&pointer);
            let name = pointer.rsplit('/').next().unwrap();
            assert!(
                why.contains(&format!("`{name}` is {number}")),
                "{pointer}: {why}"
            );
        }
        let mut document = document.clone();
        document["budget"]["memory"] = format!("{number}B").into();
        assert!(open(&serde_json::to_vec(&document).unwrap()).is_err());
        let line = serde_json::json!({"application": "a", "microservice": "m", "sequence": 1,
            "time_ms": 1, "level": "info", "stream": "log", "text": ""});
        let batch = serde_json::json!({"version": 1, "lines": [line]});
        let cases = with_each_number(&batch, number);
        assert_eq!(cases.len(), 3);
        for (pointer, json) in cases {
            assert!(open_logs(&json).is_err(), "{pointer}");
        }
    }
}

#[test]
fn statuses_that_were_missed_are_counted_to_the_end_of_numbers_and_not_beyond() {
    let first = take(None, status(1, 1)).unwrap().row;
    let far = take(Some(&first), status(NUMBER_MAX, 1)).unwrap().row;
    let again = take(Some(&far), status(1, 2)).unwrap().row;
    let far = take(Some(&again), status(NUMBER_MAX, 2)).unwrap().row;
    assert_eq!(far.missed, NUMBER_MAX);
}
