//! Numbers that come from outside: none of them makes a node that can't be revoked.

use haar_protocol::number::NUMBER_MAX;
use haar_relay::{DisconnectReason, SessionEvent};
use serde_json::json;

use crate::support::device::{Device, Link, post, token};
use crate::support::site::TestSite;
use crate::support::wait::until;

/// As `intake` has it.
const COUNT_STEP_MAX: u64 = 1 << 20;

fn is_cut_off(link: &mut Link) {
    link.until("the revoked node is refused", |event| match event {
        SessionEvent::Disconnected {
            reason: DisconnectReason::Refused(_),
        } => Some(()),
        _ => None,
    });
}

#[test]
fn a_node_with_an_impossible_number_is_revoked_all_the_same() {
    let site = TestSite::start();
    let device = Device::join(&site, 1, "gw", &[]);
    let mut link = device.connect(&site);
    link.assignment(|assignment| assignment.number == 1);
    for (sequence, number) in [(5, u64::MAX), (6, 1 << 63), (7, (1 << 53) + 1)] {
        let mut status = serde_json::to_value(device.status(sequence, 1, Vec::new())).unwrap();
        status["applied"] = json!(number);
        link.publish(device.sealed_json(&status));
    }
    until("the refusal is an event", || {
        let kinds = site.event_kinds();
        kinds.contains(&"status_refused".to_owned()).then_some(())
    });
    link.publish(device.sealed(&device.status(8, 1, Vec::new()), &device.key));
    until("a good status counts", || {
        let node = site.client.get("/nodes/gw").json();
        (node["status_sequence"] == 8 && node["applied"] == 1).then_some(())
    });
    let events = site.client.get("/events").json();
    let refused: Vec<&str> = events["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|event| event["kind"] == "status_refused")
        .map(|event| event["message"].as_str().unwrap())
        .collect();
    let [refused] = refused.as_slice() else {
        panic!("once, not per message: {refused:?}");
    };
    assert!(
        refused.contains("`applied` is 18446744073709551615"),
        "{refused}"
    );
    site.client.delete("/nodes/gw").done();
    is_cut_off(&mut link);
    site.client.get("/nodes/gw").refused(404, "unknown_node");
}

#[test]
fn a_node_that_claims_the_largest_number_is_lifted_by_a_step_and_revoked() {
    let site = TestSite::start();
    let device = Device::join(&site, 1, "gw", &[]);
    let mut link = device.connect(&site);
    link.assignment(|assignment| assignment.number == 1);
    let mut status = device.status(1, NUMBER_MAX, Vec::new());
    status.link_key_generation = NUMBER_MAX;
    link.publish(device.sealed(&status, &device.key));
    let (assignment, _) = link.assignment(|assignment| assignment.number > 1);
    assert_eq!(assignment.number, 1 + COUNT_STEP_MAX + 1);
    assert_eq!(assignment.link_key_generation, COUNT_STEP_MAX);
    site.client.delete("/nodes/gw").done();
    is_cut_off(&mut link);
    // The same key may come back, and is counted on for.
    post(&site, &device.request(&token(&site, Some("gw"), &[]), None)).done();
    let mut link = device.connect(&site);
    link.assignment(|again| again.number > assignment.number);
}

#[test]
fn what_an_earlier_release_stored_of_a_node_does_not_keep_it() {
    let mut site = TestSite::start();
    Device::join(&site, 1, "gw", &[]);
    Device::join(&site, 2, "other", &[]);
    site.stop();
    let database = rusqlite::Connection::open(site.directory.path().join("controller.db")).unwrap();
    let poison = "UPDATE assignments SET number = 9223372036854775807;
        UPDATE nodes SET link_key_generation = 9223372036854775807, budget = '{\"memory\":1}' WHERE name = 'gw';
        INSERT INTO statuses SELECT id, '{\"applied\":18446744073709551615}', 1, NULL, 0 FROM nodes WHERE name = 'gw'";
    database.execute_batch(poison).unwrap();
    drop(database);
    let site = site.restart();
    assert_eq!(
        site.client.get("/nodes").json()["items"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    site.client.delete("/nodes/gw").done();
    site.client.delete("/nodes/other").done();
}

#[test]
fn numbers_of_requests_are_bounded_where_they_are_read() {
    let site = TestSite::start();
    Device::join(&site, 1, "gw", &[]);
    for number in [u64::MAX, 1 << 63, (1 << 53) + 1] {
        let letters = "/nodes/gw/dead-letters";
        site.client
            .get(&format!("{letters}?after={number}"))
            .refused(400, "bad_query");
        site.client
            .get(&format!("{letters}/{number}"))
            .refused(400, "bad_name");
        for (path, body) in [
            ("/tokens".to_owned(), json!({ "expires_in_s": number })),
            (format!("{letters}/replay"), json!({ "ids": [number] })),
            (format!("{letters}/drop"), json!({ "ids": [1, number] })),
        ] {
            let why = site.client.post_json(&path, &body).refused(400, "bad_json");
            assert!(why.contains(&number.to_string()), "{path}: {why}");
        }
        let device = Device::new(&site, 9);
        let mut request = serde_json::to_value(device.request("", None)).unwrap();
        request["budget"]["memory"] = json!(format!("{number}B"));
        site.client
            .post_json("/enrolments", &request)
            .refused(400, "bad_json");
    }
}
