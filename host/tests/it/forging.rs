//! Whoever has a node's way to the relay, or the relay itself, and not its key for links, gets nothing
//! but counted refusals.

use haar_conformance_artifacts as artifacts;
use haar_host::identity::LinkSecret;
use haar_link::frame::{Batch, Frame, Message, encode};
use haar_link::session::{Ends, Opened, Session};
use haar_protocol::frame::{self, LiveMessage};
use haar_protocol::manifest::Delivery;

use crate::driver::Driver;
use crate::node::{Node, microservice, of, route};
use crate::site::Site;

/// What a forger sends: a message on the route, as it would be inside the seal.
fn forged(route: u64) -> Vec<u8> {
    let message = Message {
        sequence: 1,
        published_ms: 1,
        headers: vec![],
        body: b"forged",
    };
    let batch = Batch {
        route,
        epoch: u64::MAX,
        base: 0,
        after: 0,
        messages: vec![message],
    };
    encode(&Frame::Batches(vec![batch])).unwrap()
}

/// Seals with a secret that is not the node's, both ways, so that everything but the key is right.
fn seal(from: &Node, to: &Node, site: &Site, plain: &[u8]) -> [Vec<u8>; 2] {
    let (liar, victim) = (
        LinkSecret::from_bytes([7; 32]),
        LinkSecret::from_bytes([8; 32]),
    );
    let site = site.id();
    let ends = |own, other| Ends {
        site: site.as_str(),
        own,
        other,
    };
    let (own, other) = (from.id.as_str(), to.id.as_str());
    let session = |secret: &LinkSecret, ends: Ends<'_>, boot, key: &LinkSecret| -> Session {
        secret.session(ends, [boot; 16], &key.public()).unwrap()
    };
    let mut sealing = session(&liar, ends(own, other), 1, &victim);
    let mut opening = session(&victim, ends(other, own), 2, &liar);
    let hello = sealing.hello();
    let Ok(Opened::Answer(answer)) = opening.open(&hello) else {
        panic!("a hello is answered");
    };
    assert!(matches!(sealing.open(&answer), Ok(Opened::Begun(_))));
    [hello, sealing.seal(plain).unwrap()]
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_enters_a_durable_route_without_the_keys_of_its_nodes() {
    let site = Site::start().await;
    let (left, mut right) = (Node::enrol(&site, "left"), Node::enrol(&site, "right"));
    let stranger = Node::enrol(&site, "stranger");
    let sink = right.install(&artifacts::read(artifacts::SINK), &site.publisher);
    let mut crossing = route(left.port("source", "out"), right.port("sink", "in"));
    crossing.delivery = Delivery::Durable;
    let number = crossing.id.to_u64();
    let mut assignment = right.assignment(&site, 1);
    assignment.microservices = vec![microservice("sink", sink, &[], &["in"])];
    assignment.routes = vec![crossing];
    assignment.peers = vec![left.peer()];
    right.start();
    site.assign(&assignment).await;
    site.status(&right.id, |status| {
        of(status, "sink").is_some_and(|one| one.calls > 0)
    })
    .await;

    let plain = forged(number);
    // As the node that the route comes from: its place at the relay, and not its key.
    let impostor = Driver::connect(&site, &left).await;
    let [hello, sealed] = seal(&left, &right, &site, &plain);
    for payload in [hello, sealed, plain.clone(), vec![], vec![0; 100_000]] {
        impostor.send_sealed(&site, &right, payload).await;
    }
    // The route is durable: a live message on it is none.
    let live = LiveMessage {
        route: number,
        sequence: 1,
        published_ms: 1,
        headers: vec![],
        body: b"forged",
    };
    let live = frame::encode(&[live]).unwrap();
    impostor.send_frame(&site, &right, live).await;
    // As a node of the site that has no route to this one.
    let stranger = Driver::connect(&site, &stranger).await;
    stranger.send_sealed(&site, &right, plain).await;
    let status = site
        .status(&right.id, |status| status.frames_refused == 7)
        .await;
    assert!(status.routes.iter().all(|route| route.delivered == 0));
    right.stop().await;
}
