//! Messages from one node to another.

use haar_conformance_artifacts as artifacts;
use haar_link::frame::{Frame, LiveMessage};

use crate::driver::Driver;
use crate::node::{Node, configured, microservice, route};
use crate::site::Site;

#[tokio::test(flavor = "multi_thread")]
async fn messages_cross_nodes_with_the_source_that_the_site_knows() {
    let site = Site::start().await;
    let (mut left, mut right) = (Node::enrol(&site, "left"), Node::enrol(&site, "right"));
    let source = left.install(&artifacts::read(artifacts::SOURCE), &site.publisher);
    let sink = right.install(&artifacts::read(artifacts::SINK), &site.publisher);
    let crossing = route(left.port("source", "out"), right.port("sink", "in"));
    let mut to_right = right.assignment(&site, 1);
    to_right.microservices = vec![configured(
        microservice("sink", sink, &[], &["in"]),
        &[("report_ms", "100")],
    )];
    to_right.routes = vec![crossing.clone()];
    to_right.peers = vec![left.peer()];
    let mut to_left = left.assignment(&site, 1);
    to_left.microservices = vec![configured(
        microservice("source", source, &["out"], &[]),
        &[("period_ms", "10"), ("total", "50")],
    )];
    to_left.routes = vec![crossing];
    to_left.peers = vec![right.peer()];
    right.start();
    site.assign(&to_right).await;
    site.status(&right.id, |status| {
        status.microservices.iter().any(|one| one.calls > 0)
    })
    .await;
    left.start();
    site.assign(&to_left).await;
    let line = site
        .line(&right.id, |line| line.text.starts_with("messages=50 "))
        .await;
    assert!(
        line.text.contains("missing=0 disordered=0"),
        "{}",
        line.text
    );
    let sent = site
        .status(&left.id, |status| {
            status.routes.iter().any(|route| route.sent == 50)
        })
        .await;
    assert_eq!(sent.routes[0].peer.as_str(), "right");
    let handled = site
        .status(&right.id, |status| {
            status.routes.iter().any(|route| route.handled == 50)
        })
        .await;
    assert_eq!(handled.routes[0].peer.as_str(), "left");
    left.stop().await;
    right.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_without_a_route_in_the_receivers_own_assignment_is_counted_and_goes_nowhere() {
    let site = Site::start().await;
    let (stranger, mut right) = (Node::enrol(&site, "stranger"), Node::enrol(&site, "right"));
    let other = Node::enrol(&site, "other");
    let sink = right.install(&artifacts::read(artifacts::SINK), &site.publisher);
    let known = route(other.port("source", "out"), right.port("sink", "in"));
    let mut to_right = right.assignment(&site, 1);
    to_right.microservices = vec![microservice("sink", sink, &[], &["in"])];
    to_right.routes = vec![known.clone()];
    to_right.peers = vec![other.peer()];
    right.start();
    site.assign(&to_right).await;
    site.status(&right.id, |status| {
        status.microservices.iter().any(|one| one.calls > 0)
    })
    .await;

    let stranger = Driver::connect(&site, &stranger).await;
    stranger.send_bytes(&right, b"not a frame".to_vec()).await;
    let message = LiveMessage {
        route: 1 ^ known.id.to_u64(),
        sequence: 1,
        published_ms: 1,
        headers: vec![],
        body: b"x",
    };
    let frame = Frame::Live(vec![message.clone(), message]);
    let other = Driver::connect(&site, &other).await;
    other.send_frame(&right, &frame).await;
    let status = site
        .status(&right.id, |status| status.frames_refused == 3)
        .await;
    assert!(status.routes.iter().all(|route| route.delivered == 0));
    right.stop().await;
}
