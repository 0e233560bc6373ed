//! Numbers of messages outlive their routes and the ends of the agent, and what goes with a route is counted.

use haar_conformance_artifacts as artifacts;
use haar_protocol::assignment::{Assignment, Route};
use haar_protocol::manifest::Delivery;
use haar_protocol::status::Status;

use crate::node::{Node, configured, microservice, route};
use crate::site::Site;

/// A node with a source of 50 messages at each start, and a driver that logs what reaches it.
struct Numbers {
    site: Site,
    node: Node,
    assignment: Assignment,
    route: Route,
}

impl Numbers {
    async fn start(delivery: Delivery) -> Self {
        let site = Site::start().await;
        let mut node = Node::enrol(&site, "one");
        let driver = node.install(&artifacts::read(artifacts::DRIVER), &site.publisher);
        let mut route = route(node.port("says", "out"), node.port("hears", "in"));
        route.delivery = delivery;
        let mut assignment = node.assignment(&site, 0);
        let say = |name: &str, round: &str| {
            let driver = microservice(name, driver, &["out"], &["in"]);
            configured(driver, &[("say", "a\nb\nc"), ("round", round)])
        };
        assignment.microservices = vec![
            say("says", "0"),
            microservice("hears", driver, &[], &["in"]),
        ];
        assignment.routes = vec![route.clone()];
        node.start();
        Self {
            site,
            node,
            assignment,
            route,
        }
    }

    /// Has three more messages said, and returns the sequence of the last.
    async fn say(&mut self) -> u64 {
        let last = self.last();
        self.assignment.number += 1;
        let round = self.assignment.number.to_string();
        self.assignment.microservices[0]
            .configuration
            .insert("round".to_owned(), round);
        self.site.assign(&self.assignment).await;
        self.hears_after(last).await
    }

    /// Waits for the last of three messages, and returns its sequence.
    async fn hears_after(&self, last: u64) -> u64 {
        let line = self
            .site
            .line(&self.node.id, |line| {
                let is_later = sequence(&line.text).is_some_and(|number| number > last);
                is_later && line.text.ends_with("\"text\":\"c\"}")
            })
            .await;
        sequence(&line.text).unwrap()
    }

    fn sequences(&self) -> Vec<u64> {
        let lines = self.site.lines(&self.node.id);
        lines
            .iter()
            .filter_map(|line| sequence(&line.text))
            .collect()
    }

    fn last(&self) -> u64 {
        self.sequences().last().copied().unwrap_or(0)
    }

    async fn route(&mut self, delivery: Option<Delivery>) {
        self.assignment.routes = delivery
            .map(|delivery| Route {
                delivery,
                ..self.route.clone()
            })
            .into_iter()
            .collect();
        self.assignment.number += 1;
        let number = self.assignment.number;
        self.site.assign(&self.assignment).await;
        self.site
            .status(&self.node.id, |status| status.applied == number)
            .await;
    }

    fn assert_ascending(&self) {
        let sequences = self.sequences();
        let ascends = sequences.windows(2).all(|pair| pair[0] < pair[1]);
        assert!(ascends, "{sequences:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_never_go_back_when_a_durable_route_is_removed_and_put_back() {
    let mut scene = Numbers::start(Delivery::Durable).await;
    assert_eq!(scene.say().await, 3);
    scene.route(None).await;
    scene.route(Some(Delivery::Durable)).await;
    let after = scene.say().await;
    assert!(after > 3, "{after}");
    // The other way of delivery, and back.
    scene.route(Some(Delivery::Live)).await;
    scene.say().await;
    scene.route(Some(Delivery::Durable)).await;
    scene.say().await;
    scene.assert_ascending();
    scene.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_of_a_live_outlet_go_on_after_a_restart_of_the_agent() {
    let mut scene = Numbers::start(Delivery::Live).await;
    let first = scene.say().await;
    const FILES: [&str; 2] = ["agent.db", "message-numbers"];
    let (folder, data) = (tempfile::tempdir().unwrap(), scene.node.data.path());
    let [database, file] = FILES.map(|file| folder.path().join(file));
    // Of one moment, while the agent writes. The file is never above the database, so it comes first.
    std::fs::copy(data.join(FILES[1]), file).unwrap();
    let connection = rusqlite::Connection::open(data.join(FILES[0])).unwrap();
    let vacuum = connection.execute("VACUUM INTO ?1", [database.to_str().unwrap()]);
    vacuum.unwrap();
    drop(connection);
    scene.node.stop().await;
    scene.node.start();
    let next = scene.hears_after(first).await;
    assert!(
        (first + 1..first + 10).contains(&next),
        "{first} {next}: no gap after an orderly end"
    );

    // A power cut: the database is as it was while the first messages were said.
    scene.node.stop().await;
    for part in ["agent.db-wal", "agent.db-shm"] {
        let _ = std::fs::remove_file(scene.node.data.path().join(part)); // or it went with the agent
    }
    for file in FILES {
        std::fs::copy(folder.path().join(file), scene.node.data.path().join(file)).unwrap();
    }
    scene.node.start();
    scene.hears_after(next).await;
    scene.assert_ascending();
    scene.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_on_a_route_is_reported_and_counted_when_the_route_goes() {
    let site = Site::start().await;
    let (mut node, other) = (Node::enrol(&site, "one"), Node::enrol(&site, "other"));
    let source = node.install(&artifacts::read(artifacts::SOURCE), &site.publisher);
    let mut assignment = node.assignment(&site, 1);
    assignment.microservices = vec![configured(
        microservice("source", source, &["out"], &[]),
        &[("period_ms", "2"), ("total", "50")],
    )];
    let mut waits = route(node.port("source", "out"), other.port("sink", "in"));
    waits.delivery = Delivery::Durable;
    assignment.routes = vec![waits];
    assignment.peers = vec![other.peer()];
    node.start();
    site.assign(&assignment).await;
    let waiting = |status: &Status| status.routes.iter().any(|route| route.waiting == 50);
    site.status(&node.id, waiting).await;
    // Its receiver is renamed.
    assignment.number = 2;
    let to = other.port("drain", "in");
    assignment.routes[0].id = route(node.port("source", "out"), to.clone()).id;
    assignment.routes[0].to = to;
    site.assign(&assignment).await;
    let status = site
        .status(&node.id, |status| status.discarded.messages > 0)
        .await;
    assert_eq!(
        (status.discarded.episodes, status.discarded.messages),
        (1, 50)
    );
    node.stop().await;
}

/// The sequence in a line of the driver.
fn sequence(text: &str) -> Option<u64> {
    let (_, rest) = text.split_once("\"sequence\":")?;
    rest.split(',').next()?.parse().ok()
}
