//! Keys for links: told by nodes, handed to those that they talk to, made anew when somebody says so.

use haar_protocol::keys::LinkKey;

use crate::support::device::{Device, Link};
use crate::support::modules::recipe;
use crate::support::site::TestSite;

const APPLICATION: &str = "api_version: haar/v1\nkind: Application\nname: app\nmicroservices:\n\
     - {name: source, module: source@1.0.0, outlets: {out: text/plain}, place: {node: left}}\n\
     - {name: sink, module: sink@1.0.0, inlets: {in: text/plain}, place: {node: right}}\n\
     routes:\n- {from: source.out, to: sink.in}\n";

fn key(byte: u8) -> LinkKey {
    LinkKey::from_bytes([byte; 32])
}

/// The device reports a key.
fn tell(device: &Device, link: &Link, sequence: u64, byte: u8, generation: u64) {
    let mut status = device.status(sequence, 0, vec![]);
    status.link_key = Some(key(byte));
    status.link_key_generation = generation;
    link.publish(device.sealed(&status, &device.key));
}

fn site() -> (TestSite, Device, Device) {
    let site = TestSite::with_publisher();
    for name in ["source", "sink"] {
        site.push(&recipe(name, "1.0.0"));
    }
    let left = Device::join(&site, 1, "left", &[]);
    let right = Device::join(&site, 2, "right", &[]);
    site.apply("app", APPLICATION);
    (site, left, right)
}

#[test]
fn a_node_makes_another_key_when_somebody_says_so_and_its_peers_are_told() {
    let (site, left, right) = site();
    let (mut to_left, mut to_right) = (left.connect(&site), right.connect(&site));
    let (assignment, _) = to_left.assignment(|assignment| !assignment.routes.is_empty());
    assert_eq!(assignment.link_key_generation, 0);
    tell(&left, &to_left, 1, 10, 0);
    let knows = |byte| {
        move |it: &haar_protocol::assignment::Assignment| {
            it.peers.iter().any(|peer| peer.link_key == Some(key(byte)))
        }
    };
    to_right.assignment(knows(10));

    let answer = site
        .client
        .post_json("/nodes/left/link-key/rotate", &serde_json::json!({}))
        .json();
    assert_eq!(
        answer,
        serde_json::json!({ "node": "left", "generation": 1 })
    );
    let (assignment, _) = to_left.assignment(|assignment| assignment.link_key_generation == 1);
    assert!(!assignment.routes.is_empty());
    tell(&left, &to_left, 2, 11, 1);
    to_right.assignment(knows(11));
    for kind in ["link_key_rotation", "link_key_changed"] {
        assert!(site.event_kinds().contains(&kind.to_owned()), "{kind}");
    }
    site.client
        .post_json("/nodes/nobody/link-key/rotate", &serde_json::json!({}))
        .refused(404, "unknown_node");
}

#[test]
fn a_generation_that_the_node_is_ahead_with_is_not_asked_for_again() {
    let (site, left, right) = site();
    let (mut to_left, mut to_right) = (left.connect(&site), right.connect(&site));
    // As after our database was restored from an older copy.
    tell(&left, &to_left, 1, 10, 5);
    to_right.assignment(|it| it.peers.iter().any(|peer| peer.link_key == Some(key(10))));
    let answer = site
        .client
        .post_json("/nodes/left/link-key/rotate", &serde_json::json!({}))
        .json();
    assert_eq!(answer["generation"], 6);
    to_left.assignment(|assignment| assignment.link_key_generation == 6);
}
