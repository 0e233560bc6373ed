//! Whoever has a node's way to the relay, or the relay itself, and not its key for links, gets nothing
//! but counted refusals: on durable routes as on live ones.

use haar_conformance_artifacts as artifacts;
use haar_host::identity::LinkSecret;
use haar_link::frame::{Batch, Frame, LiveMessage, Message, encode};
use haar_link::session::{Ends, Opened, Session};
use haar_protocol::manifest::Delivery;

use crate::driver::Driver;
use crate::node::{Node, microservice, of, route};
use crate::site::Site;

/// A message on the route, as it would be inside the seal.
fn forged(route: u64, delivery: Delivery) -> Frame<'static> {
    match delivery {
        Delivery::Live => Frame::Live(vec![LiveMessage {
            route,
            sequence: 1,
            published_ms: 1,
            headers: vec![],
            body: b"forged",
        }]),
        Delivery::Durable => Frame::Batches(vec![Batch {
            route,
            epoch: u64::MAX,
            base: 0,
            after: 0,
            messages: vec![Message {
                sequence: 1,
                published_ms: 1,
                headers: vec![],
                body: b"forged",
            }],
        }]),
    }
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
    let Ok(Opened::Answer(answer)) = opening.open(&hello, true) else {
        panic!("a hello is answered");
    };
    assert!(matches!(sealing.open(&answer, true), Ok(Opened::Begun(_))));
    [hello, sealing.seal(plain).unwrap()]
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_enters_a_durable_route_without_the_keys_of_its_nodes() {
    nothing_enters(Delivery::Durable).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_enters_a_live_route_without_the_keys_of_its_nodes() {
    nothing_enters(Delivery::Live).await;
}

async fn nothing_enters(delivery: Delivery) {
    let site = Site::start().await;
    let (left, mut right) = (Node::enrol(&site, "left"), Node::enrol(&site, "right"));
    let stranger = Node::enrol(&site, "stranger");
    let sink = right.install(&artifacts::read(artifacts::SINK), &site.publisher);
    let mut crossing = route(left.port("source", "out"), right.port("sink", "in"));
    crossing.delivery = delivery;
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

    let forged_frame = forged(number, delivery);
    let plain = encode(&forged_frame).unwrap();
    // As the node that the route comes from: its place at the relay, and not its key.
    let impostor = Driver::connect(&site, &left).await;
    let [hello, sealed] = seal(&left, &right, &site, &plain);
    for payload in [hello, sealed, plain.clone(), vec![], vec![0; 100_000]] {
        impostor.send_bytes(&right, payload).await;
    }
    // As a node of the site that has no route to this one.
    let outsider = Driver::connect(&site, &stranger).await;
    outsider.send_bytes(&right, plain).await;
    // As the node itself: a message of the other kind than the route's.
    let other = match delivery {
        Delivery::Live => Delivery::Durable,
        Delivery::Durable => Delivery::Live,
    };
    impostor.send_frame(&right, &forged(number, other)).await;
    let status = site
        .status(&right.id, |status| status.frames_refused == 7)
        .await;
    assert!(status.routes.iter().all(|route| route.delivered == 0));
    right.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_message_that_is_repeated_or_altered_on_its_way_arrives_once() {
    let site = Site::start().await;
    let (left, mut right) = (Node::enrol(&site, "left"), Node::enrol(&site, "right"));
    let sink = right.install(&artifacts::read(artifacts::SINK), &site.publisher);
    let crossing = route(left.port("source", "out"), right.port("sink", "in"));
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
    let driver = Driver::connect(&site, &left).await;
    let frame = forged(number, Delivery::Live);
    let sealed = driver.seal(&right, &frame).await;
    let mut altered = driver.seal(&right, &frame).await;
    altered[60] ^= 1;
    for payload in [sealed.clone(), sealed, altered] {
        driver.send_bytes(&right, payload).await;
    }
    let status = site
        .status(&right.id, |status| status.frames_refused == 2)
        .await;
    assert_eq!(status.routes[0].delivered, 1);
    right.stop().await;
}
