//! More messages at a time than a broker may send before it is answered. Mosquitto 2.0.11 does: after
//! each of the first acknowledgements it sends a whole window more.

use std::ops::RangeInclusive;
use std::path::Path;

use haar_conformance_artifacts as artifacts;
use haar_host::policy::Rules;
use haar_protocol::grants::{Access, DirectoryGrant};
use haar_protocol::limits::Backlog;
use haar_protocol::quantity::ByteSize;
use haar_protocol::relay::NodeCredentials;
use haar_protocol::status::Status;

use super::{from, topic_route};
use crate::mosquitto::Mosquitto;
use crate::node::{Node, microservice};
use crate::site::Site;

/// Nothing that the broker itself may drop.
const KEEPS_ALL: &str = "allow_anonymous true\nmax_queued_messages 0\n";
const FILTER: &str = "plant/#";
const TOPIC: &str = "plant/1/t";
/// Bytes of an entry of the journal: five numbers of eight bytes.
const ENTRY_BYTES: usize = 40;

/// A node that writes down what it handles.
struct Scene {
    site: Site,
    broker: Mosquitto,
    node: Node,
    journal: tempfile::TempDir,
}

impl Scene {
    /// Everything is there, but the agent.
    async fn prepare() -> Self {
        let site = Site::start().await;
        Self {
            broker: Mosquitto::start_with(KEEPS_ALL, |_| {}).await,
            node: Node::enrol(&site, "one"),
            site,
            journal: tempfile::tempdir().unwrap(),
        }
    }

    /// The agent listens.
    async fn listen(&mut self) {
        self.listen_with(Backlog::default()).await;
    }

    async fn listen_with(&mut self, backlog: Backlog) {
        let (node, site) = (&self.node, &self.site);
        let module = node.install(&artifacts::read(artifacts::JOURNAL), &site.publisher);
        let mut journal = microservice("journal", module, &[], &["in"]);
        journal.grants.directories.push(DirectoryGrant {
            host: self.journal.path().to_str().unwrap().into(),
            guest: "/journal".into(),
            access: Access::ReadWrite,
            quota: None,
            optional: false,
            mount: Default::default(),
        });
        let mut assignment = node.assignment(site, 1);
        assignment.microservices = vec![journal];
        let mut route = topic_route(from(FILTER), "journal", "in");
        route.backlog = backlog;
        assignment.topics = vec![route];
        assignment.brokers = vec![self.broker.access(NodeCredentials::Anonymous)];
        self.node.rules = Rules::default().allowing(self.journal.path(), Access::ReadWrite);
        self.node.start();
        self.site.assign(&assignment).await;
        self.broker.subscribed(&self.node.id, 1).await;
    }

    async fn publish(&self, numbers: RangeInclusive<u32>) {
        let lines: String = numbers
            .map(|number| format!("{}\n", body(number)))
            .collect();
        let arguments = ["-q", "1", "-t", TOPIC, "-l"];
        self.broker.publish_lines(&arguments, lines).await;
    }

    /// Waits until so many messages were handled.
    async fn handled(&self, messages: usize) {
        let journal = self.journal.path();
        let are_there = |_: &Status| handled(journal).len() >= messages;
        self.site.status(&self.node.id, are_there).await;
    }

    /// Waits for the last of so many messages: all were handled then, in order. The agent ends.
    async fn all_in_order(&mut self, messages: u32) {
        let (last, journal) = (body(messages), self.journal.path());
        let has_come = |_: &Status| handled(journal).contains(&last);
        self.site.status(&self.node.id, has_come).await;
        self.node.stop().await;
        let mut found = handled(self.journal.path());
        let mut seen = std::collections::BTreeSet::new();
        found.retain(|body| seen.insert(body.clone())); // QoS 1: at least once
        let expected: Vec<String> = (1..=messages).map(body).collect();
        assert!(
            found == expected,
            "{} of {messages}: {found:?}",
            found.len()
        );
    }
}

/// Two numbers for the journal, as text.
fn body(number: u32) -> String {
    format!("reading {number:08}")
}

/// The bodies that were handled.
fn handled(journal: &Path) -> Vec<String> {
    let bytes = std::fs::read(journal.join("journal")).unwrap_or_default();
    let entries = bytes.chunks_exact(ENTRY_BYTES);
    let bodies = entries.filter(|entry| entry[..8] != [0; 8]); // an instance has begun
    bodies
        .map(|entry| String::from_utf8(entry[8..24].to_vec()).unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_beyond_the_window_arrives_complete_and_in_order() {
    let mut scene = Scene::prepare().await;
    scene.listen().await;
    scene.publish(1..=60).await;
    scene.handled(60).await;
    scene.publish(61..=1_120).await;
    scene.all_in_order(1_120).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_into_a_small_log_that_refuses_waits_and_arrives_in_order() {
    let mut scene = Scene::prepare().await;
    let small = Backlog {
        size: ByteSize(4 << 10),
        ..Backlog::default()
    };
    scene.listen_with(small).await;
    scene.publish(1..=1_500).await;
    scene.handled(100).await;
    scene.node.stop().await;
    scene.node.start();
    scene.all_in_order(1_500).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_outlasts_restarts_of_the_agent() {
    let mut scene = Scene::prepare().await;
    scene.listen().await;
    scene.publish(1..=600).await;
    for part in 1..=2 {
        scene.handled(part * 100).await;
        scene.node.stop().await;
        scene.node.start();
    }
    scene.publish(601..=1_200).await;
    scene.all_in_order(1_200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_outlasts_a_restart_of_the_broker() {
    let mut scene = Scene::prepare().await;
    scene.listen().await;
    scene.publish(1..=600).await;
    scene.handled(50).await;
    scene.broker.stop();
    scene.broker.start_again().await;
    scene.publish(601..=1_200).await;
    scene.all_in_order(1_200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_retained_topics_arrive_when_the_agent_subscribes() {
    let mut scene = Scene::prepare().await;
    for number in 1..=200 {
        let (topic, body) = (format!("plant/{number}/state"), body(number));
        let quality = if number % 2 == 0 { "0" } else { "1" };
        let retained = ["-r", "-q", quality, "-t", &topic, "-m", &body];
        scene.broker.publish(&retained).await;
    }
    scene.listen().await;
    scene.handled(200).await;
    scene.node.stop().await;
    let mut found = handled(scene.journal.path());
    found.sort(); // a broker sends them in an order of its own
    let expected: Vec<String> = (1..=200).map(body).collect();
    assert_eq!(found, expected);
}
