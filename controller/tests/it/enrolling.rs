//! Devices join: tokens, proofs, clocks and names.

use haar_protocol::rest::{Node, NodeDetail, Token};
use haar_protocol::token::EnrolmentToken;
use serde_json::json;

use crate::support::device::{Device, now_ms, post, token};
use crate::support::site::TestSite;
use crate::support::wait::until;

#[test]
fn a_device_joins_with_a_token_and_the_token_works_once() {
    let site = TestSite::start();
    let secret = token(&site, Some("gw-1"), &[("room", "attic"), ("arch", "token")]);
    let first = Device::new(&site, 1);
    let enrolment: haar_protocol::rest::Enrolment =
        post(&site, &first.request(&secret, Some("wish"))).ok();
    assert_eq!(
        (enrolment.node, enrolment.name.as_str()),
        (first.id.clone(), "gw-1")
    );
    assert_eq!(
        (enrolment.site_key, enrolment.relays),
        (site.key, vec![site.relay_url()])
    );
    let second = Device::new(&site, 2);
    let text = post(&site, &second.request(&secret, None)).refused(409, "token_used");
    assert!(text.contains("haar node token"), "{text}");
    let node: NodeDetail = site.client.get("/nodes/gw-1").ok();
    assert_eq!(node.node.labels["room"], "attic");
    assert_eq!(node.node.labels["arch"], "token");
    assert_eq!(
        (node.node.assignment, node.node.applied, node.node.online),
        (1, 0, false)
    );
}

#[test]
fn a_device_whose_answer_was_lost_may_ask_again() {
    let site = TestSite::start();
    let secret = token(&site, None, &[]);
    let device = Device::new(&site, 1);
    post(&site, &device.request(&secret, Some("gw"))).done();
    post(&site, &device.request(&secret, Some("gw"))).done();
    site.client.delete("/nodes/gw").done();
    post(&site, &device.request(&secret, Some("gw"))).refused(409, "token_used");
}

#[test]
fn an_expired_token_is_told_from_an_unknown_one() {
    let site = TestSite::start();
    let device = Device::new(&site, 1);
    post(&site, &device.request("0123", None)).refused(401, "unknown_token");
    let made: Token = site
        .client
        .post_json("/tokens", &json!({ "expires_in_s": 1 }))
        .ok();
    let secret = made.token.parse::<EnrolmentToken>().unwrap().secret;
    let mut request = device.request(&secret, None);
    request.proof = "no proof".into(); // so that no attempt uses the token up
    until("the token expires", || {
        (post(&site, &request).json()["code"] == "token_expired").then_some(())
    });
    site.client
        .post_json("/tokens", &json!({ "expires_in_s": 0 }))
        .refused(400, "bad_expiry");
}

#[test]
fn a_wrong_proof_does_not_use_the_token_up() {
    let site = TestSite::start();
    let secret = token(&site, None, &[]);
    let device = Device::new(&site, 1);
    let other = Device::new(&site, 2);
    for proof in ["", "haar-proof-1.e30.e30", &other.proof(now_ms())] {
        let mut request = device.request(&secret, None);
        request.proof = proof.into();
        post(&site, &request).refused(401, "bad_proof");
    }
    post(&site, &device.request(&secret, None)).done();
}

#[test]
fn a_wrong_clock_is_named_with_its_distance() {
    let site = TestSite::start();
    let secret = token(&site, None, &[]);
    let device = Device::new(&site, 1);
    for (issued_ms, direction) in [
        (now_ms() - 3_600_000, "behind"),
        (now_ms() + 3_600_000, "ahead of"),
        (0, "behind"),
    ] {
        let mut request = device.request(&secret, None);
        request.proof = device.proof(issued_ms);
        let text = post(&site, &request).refused(403, "clock_skew");
        assert!(text.contains(direction) && text.contains("NTP"), "{text}");
    }
    post(&site, &device.request(&secret, None)).done();
}

#[test]
fn a_name_belongs_to_one_node_and_a_key_to_one_name() {
    let site = TestSite::start();
    let device = Device::join(&site, 1, "gw-1", &[]);
    let secret = token(&site, Some("gw-1"), &[]);
    let other = Device::new(&site, 2);
    let text = post(&site, &other.request(&secret, None)).refused(409, "name_taken");
    assert!(
        text.contains("gw-1") && text.contains(device.id.as_str()),
        "{text}"
    );
    let again = token(&site, Some("gw-one"), &[("new", "yes")]);
    post(&site, &device.request(&again, None)).done();
    let nodes: haar_protocol::rest::List<Node> = site.client.get("/nodes").ok();
    assert_eq!(nodes.items.len(), 1);
    assert_eq!(nodes.items[0].name.as_str(), "gw-one");
    assert_eq!(nodes.items[0].labels["new"], "yes");
}

#[test]
fn a_device_that_enrols_again_keeps_what_neither_it_nor_its_token_says() {
    let site = TestSite::start();
    let device = Device::new(&site, 1);
    let first = token(&site, None, &[("room", "attic"), ("zone", "north")]);
    post(&site, &device.request(&first, Some("edge"))).done();
    let before: NodeDetail = site.client.get("/nodes/edge").ok();
    let again = token(&site, None, &[("zone", "south")]);
    let mut request = device.request(&again, None);
    request.labels.clear();
    request.budget.memory.0 *= 2;
    post(&site, &request).done();
    let after: NodeDetail = site.client.get("/nodes/edge").ok();
    let mut labels = before.node.labels.clone();
    labels.insert("zone".into(), "south".into());
    assert_eq!(after.node.labels, labels);
    assert_eq!(after.node.id, before.node.id);
    assert_eq!(after.node.budget.memory.0, before.node.budget.memory.0 * 2);
}

#[test]
fn a_device_without_any_name_gets_one_of_its_id() {
    let site = TestSite::start();
    let device = Device::new(&site, 1);
    let enrolment: haar_protocol::rest::Enrolment =
        post(&site, &device.request(&token(&site, None, &[]), None)).ok();
    assert!(enrolment.name.as_str().starts_with("node-"));
}

#[test]
fn many_devices_with_one_token_race_and_one_wins() {
    let site = TestSite::start();
    let secret = token(&site, None, &[]);
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let threads: Vec<_> = (1..=8)
            .map(|seed| {
                let (site, secret) = (&site, &secret);
                scope.spawn(move || {
                    post(site, &Device::new(site, seed).request(secret, None)).status
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert_eq!(
        statuses.iter().filter(|status| **status == 201).count(),
        1,
        "{statuses:?}"
    );
    assert_eq!(
        statuses.iter().filter(|status| **status == 409).count(),
        7,
        "{statuses:?}"
    );
}
