//! Durable routes: what was published arrives, in order and once, whatever is down meanwhile.

mod backlogs;

use haar_conformance_artifacts as artifacts;
use haar_protocol::assignment::{Assignment, Route};
use haar_protocol::limits::Backlog;
use haar_protocol::manifest::Delivery;
use haar_protocol::status::Status;

use crate::node::{Node, configured, microservice, of, route};
use crate::site::Site;

fn durable(mut route: Route) -> Route {
    route.delivery = Delivery::Durable;
    route
}

/// Two nodes: a source on the one that publishes 50 messages at each start, a sink on the other.
pub struct Scene {
    pub site: Site,
    pub left: Node,
    pub right: Node,
    pub to_left: Assignment,
    pub to_right: Assignment,
}

impl Scene {
    async fn new() -> Self {
        let source = [("period_ms", "2"), ("total", "50")];
        Self::with(Backlog::default(), &source).await
    }

    pub async fn with(backlog: Backlog, source_configuration: &[(&str, &str)]) -> Self {
        let site = Site::start().await;
        let (left, right) = (Node::enrol(&site, "left"), Node::enrol(&site, "right"));
        let source = left.install(&artifacts::read(artifacts::SOURCE), &site.publisher);
        let sink = right.install(&artifacts::read(artifacts::SINK), &site.publisher);
        let mut crossing = durable(route(left.port("source", "out"), right.port("sink", "in")));
        crossing.backlog = backlog;
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
            source_configuration,
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

    pub async fn start_right(&mut self) {
        self.right.start();
        self.site.assign(&self.to_right).await;
    }

    pub async fn start_left(&mut self) {
        self.left.start();
        self.site.assign(&self.to_left).await;
    }

    pub async fn published(&self, messages: u64) {
        self.site
            .status(&self.left.id, |status| {
                status.routes.iter().any(|route| route.sent == messages)
            })
            .await;
    }

    pub async fn arrived(&self, messages: u64) {
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

    pub async fn stop(mut self) {
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

#[tokio::test(flavor = "multi_thread")]
async fn a_key_for_links_that_is_made_anew_under_way_loses_nothing_and_repeats_nothing() {
    let source = [("period_ms", "5"), ("total", "400")];
    let mut scene = Scene::with(Backlog::default(), &source).await;
    scene.start_right().await;
    scene.start_left().await;
    let (left, right) = (scene.left.id.clone(), scene.right.id.clone());
    let moves = |status: &Status| status.routes.iter().any(|route| route.delivered > 0);
    scene.site.status(&right, moves).await;
    let first = scene.left.peer().link_key;

    // The sender makes another one; the receiver does not know it and refuses.
    scene.to_left.number = 2;
    scene.to_left.link_key_generation = 1;
    scene.site.assign(&scene.to_left).await;
    let renewed = |status: &Status| status.link_key_generation == 1;
    let left_key = scene.site.status(&left, renewed).await.link_key;
    assert_ne!(left_key, first);
    scene
        .site
        .status(&right, |status| status.frames_refused > 0)
        .await;

    // The receiver hears of it, and makes another one at the same time.
    scene.to_right.number = 2;
    scene.to_right.link_key_generation = 1;
    scene.to_right.peers[0].link_key = left_key;
    scene.site.assign(&scene.to_right).await;
    let right_key = scene.site.status(&right, renewed).await.link_key;
    scene.to_left.number = 3;
    scene.to_left.peers[0].link_key = right_key;
    scene.site.assign(&scene.to_left).await;
    scene.arrived(400).await;

    // It is the node's key from now on.
    scene.left.stop().await;
    scene.left.start();
    let restarted = |status: &Status| status.started_ms > 0 && status.link_key == left_key;
    scene.site.status(&left, restarted).await;
    scene.arrived(800).await;
    let handled = |status: &Status| status.routes.iter().any(|route| route.handled == 800);
    let status = scene.site.status(&right, handled).await;
    assert_eq!(status.routes[0].delivered, 800);
    scene.stop().await;
}

fn copy_database(from: &std::path::Path, to: &std::path::Path) {
    for end in ["", "-wal", "-shm"] {
        let name = format!("agent.db{end}");
        let _ = std::fs::remove_file(to.join(&name));
        if from.join(&name).exists() {
            std::fs::copy(from.join(&name), to.join(&name)).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_after_an_old_copy_of_the_database_was_restored_arrives() {
    let mut scene = Scene::new().await;
    scene.start_right().await;
    scene.start_left().await;
    scene.arrived(50).await;
    scene.left.stop().await;
    let backup = tempfile::tempdir().unwrap();
    copy_database(scene.left.data.path(), backup.path());
    scene.left.start();
    scene.arrived(100).await;
    scene.left.stop().await;
    copy_database(backup.path(), scene.left.data.path());
    scene.left.start();
    scene
        .site
        .line(&scene.right.id, |line| {
            line.text.starts_with("messages=150 ")
        })
        .await;
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_its_own_route_passes_a_message_that_waits_for_another_attempt() {
    let site = Site::start().await;
    let mut node = Node::enrol(&site, "one");
    let driver = node.install(&artifacts::read(artifacts::DRIVER), &site.publisher);
    let reject = node.install(&artifacts::read(artifacts::REJECT), &site.publisher);
    let mut assignment = node.assignment(&site, 1);
    let say = |name: &str, lines: &str| {
        let driver = microservice(name, driver, &["out"], &["in"]);
        configured(driver, &[("say", lines)])
    };
    // The one with a long way to its last attempt is held up alone.
    let mut subject = microservice("reject", reject, &["out"], &["in"]);
    subject.retry.attempts = 3;
    assignment.microservices = vec![
        subject,
        say("first", "retry 2\nplain\nretry\nplain"),
        say("second", "plain"),
    ];
    assignment.routes = vec![
        durable(route(node.port("first", "out"), node.port("reject", "in"))),
        durable(route(node.port("second", "out"), node.port("reject", "in"))),
        durable(route(node.port("reject", "out"), node.port("first", "in"))),
    ];
    node.start();
    site.assign(&assignment).await;
    let buried = |status: &haar_protocol::status::Status| {
        of(status, "reject").is_some_and(|one| one.dead_letters == 1)
    };
    site.status(&node.id, buried).await;
    site.line(&node.id, |line| line.text.contains("\"sequence\":4,"))
        .await;
    let attempts: Vec<String> = site
        .lines(&node.id)
        .iter()
        .filter(|line| line.text.contains("first") || line.text.contains("reject.out"))
        .filter_map(|line| line.text.split_once("\"text\":"))
        .map(|(_, text)| text.trim_matches(['"', '}']).to_owned())
        .collect();
    let (ones, threes) = (vec!["1"; 3], vec!["3"; 1]);
    let mut sorted = attempts.clone();
    sorted.sort();
    assert_eq!(sorted, [ones, threes].concat(), "{attempts:?}");
    // The line of `second` may pass the one that waits; those of `first` do not.
    let waited = attempts.iter().position(|attempt| attempt == "3");
    assert!(waited.is_some_and(|before| before <= 1), "{attempts:?}");
    node.stop().await;
}
