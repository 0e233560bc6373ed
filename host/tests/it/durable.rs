//! Durable routes: what was published arrives, in order and once, whatever is down meanwhile.

use haar_conformance_artifacts as artifacts;
use haar_protocol::assignment::{Assignment, Route};
use haar_protocol::manifest::Delivery;

use crate::node::{Node, configured, microservice, route};
use crate::site::Site;

fn durable(mut route: Route) -> Route {
    route.delivery = Delivery::Durable;
    route
}

/// Two nodes: a source on the one that publishes 50 messages at each start, a sink on the other.
struct Scene {
    site: Site,
    left: Node,
    right: Node,
    to_left: Assignment,
    to_right: Assignment,
}

impl Scene {
    async fn new() -> Self {
        let site = Site::start().await;
        let (left, right) = (Node::enrol(&site, "left"), Node::enrol(&site, "right"));
        let source = left.install(&artifacts::read(artifacts::SOURCE), &site.publisher);
        let sink = right.install(&artifacts::read(artifacts::SINK), &site.publisher);
        let crossing = durable(route(left.port("source", "out"), right.port("sink", "in")));
        let mut to_right = right.assignment(&site, 1);
        to_right.microservices = vec![configured(
            microservice("sink", sink, &[], &["in"]),
            &[("report_ms", "50")],
        )];
        to_right.routes = vec![crossing.clone()];
        to_right.peers = vec![left.peer()];
        let mut to_left = left.assignment(&site, 1);
        to_left.microservices = vec![configured(
            microservice("source", source, &["out"], &[]),
            &[("period_ms", "2"), ("total", "50")],
        )];
        to_left.routes = vec![crossing];
        to_left.peers = vec![right.peer()];
        Self {
            site,
            left,
            right,
            to_left,
            to_right,
        }
    }

    async fn start_right(&mut self) {
        self.right.start();
        self.site.assign(&self.to_right).await;
    }

    async fn start_left(&mut self) {
        self.left.start();
        self.site.assign(&self.to_left).await;
    }

    async fn published(&self, messages: u64) {
        self.site
            .status(&self.left.id, |status| {
                status.routes.iter().any(|route| route.sent == messages)
            })
            .await;
    }

    async fn arrived(&self, messages: u64) {
        let begin = format!("messages={messages} ");
        let line = self
            .site
            .line(&self.right.id, |line| line.text.starts_with(&begin))
            .await;
        assert!(
            line.text.contains("missing=0 disordered=0"),
            "{}",
            line.text
        );
    }

    async fn stop(mut self) {
        self.left.stop().await;
        self.right.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_reach_an_inlet_of_the_same_node() {
    let site = Site::start().await;
    let mut node = Node::enrol(&site, "one");
    let source = node.install(&artifacts::read(artifacts::SOURCE), &site.publisher);
    let sink = node.install(&artifacts::read(artifacts::SINK), &site.publisher);
    let mut assignment = node.assignment(&site, 1);
    assignment.microservices = vec![
        configured(
            microservice("sink", sink, &[], &["in"]),
            &[("report_ms", "50")],
        ),
        configured(
            microservice("source", source, &["out"], &[]),
            &[("period_ms", "2"), ("total", "50")],
        ),
    ];
    assignment.routes = vec![durable(route(
        node.port("source", "out"),
        node.port("sink", "in"),
    ))];
    node.start();
    site.assign(&assignment).await;
    let line = site
        .line(&node.id, |line| line.text.starts_with("messages=50 "))
        .await;
    assert!(
        line.text.contains("missing=0 disordered=0"),
        "{}",
        line.text
    );
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_cross_nodes_once_and_in_order() {
    let mut scene = Scene::new().await;
    scene.start_right().await;
    scene.start_left().await;
    scene.arrived(50).await;
    let handled = |status: &haar_protocol::status::Status| {
        status.routes.iter().any(|route| route.handled == 50)
    };
    let status = scene.site.status(&scene.right.id, handled).await;
    assert_eq!(status.routes[0].delivered, 50);
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_while_the_other_node_is_away_arrives_when_it_comes() {
    let mut scene = Scene::new().await;
    scene.start_left().await;
    scene.published(50).await;
    // The publisher's sequences go on after a restart.
    scene.left.stop().await;
    scene.start_left().await;
    scene.published(50).await;
    scene.start_right().await;
    scene.arrived(100).await;
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_while_the_relay_is_away_arrives_when_it_comes() {
    let mut scene = Scene::new().await;
    scene.start_right().await;
    scene.start_left().await;
    scene.arrived(50).await;
    scene.left.stop().await;
    scene.site.stop_relay().await;
    scene.left.start();
    scene.site.start_relay().await;
    scene.arrived(100).await;
    scene.stop().await;
}
