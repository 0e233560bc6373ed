//! Brokers that do not take all of MQTT 5, and say so when a connection begins: a route that asks for
//! more says why, and the others go on.

use haar_protocol::manifest::Delivery;
use haar_protocol::relay::NodeCredentials;
use haar_protocol::status::Status;

use super::outlets::{echoing, to};
use super::{reading, topic_route};
use crate::mosquitto::Mosquitto;
use crate::node::Node;
use crate::site::Site;

/// A session of a device that the broker keeps.
const DEVICE: [&str; 8] = ["-c", "-i", "device", "-x", "3600", "-q", "1", "-F"];

fn problem(status: &Status, topic: &str) -> Option<String> {
    let mut routes = status.routes.iter();
    let found = routes.find(|route| route.topic.as_deref() == Some(topic))?;
    found.problem.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_is_retained_messages_are_sent_all_the_same_and_the_route_says_so() {
    let site = Site::start().await;
    let configuration = "allow_anonymous true\nretain_available false\n";
    let broker = Mosquitto::start_with(configuration, |_| {}).await;
    let mut node = Node::enrol(&site, "one");
    let access = broker.access(NodeCredentials::Anonymous);
    let mut assignment = echoing(&node, &site, access);
    assignment
        .topics
        .push(topic_route(to("plant/plain", false), "echo", "out"));
    let topics = ["%t %r", "-t", "plant/echo", "-t", "plant/plain"];
    let device = [&DEVICE[..], &topics].concat();
    broker.subscribe(&[&device[..], &["-E"]].concat()).await;
    node.start();
    site.assign(&assignment).await;
    broker.subscribed(&node.id, 1).await;
    reading(&broker, "21").await;
    let printed = broker
        .subscribe(&[&device[..], &["-C", "2"]].concat())
        .await;
    let mut printed: Vec<&str> = printed.lines().collect();
    printed.sort_unstable();
    assert_eq!(printed, ["plant/echo 0", "plant/plain 0"]);
    let is_said = |status: &Status| problem(status, "mqtt:plant/echo").is_some();
    let status = site.status(&node.id, is_said).await;
    let said = problem(&status, "mqtt:plant/echo").unwrap();
    assert!(said.contains("does not retain"), "{said}");
    assert_eq!(problem(&status, "mqtt:plant/plain"), None);
    let log = broker.log();
    let connections = log.iter().filter(|line| line.contains("p5, c0"));
    let own = format!("{}.devices.plant", node.id);
    let connections = connections.filter(|line| line.contains(&own)).count();
    assert_eq!(connections, 1, "{log:#?}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_only_qos_0_is_taken_a_durable_route_waits_and_a_live_one_goes_on() {
    let site = Site::start().await;
    let configuration = "allow_anonymous true\nmax_qos 0\n";
    let broker = Mosquitto::start_with(configuration, |_| {}).await;
    let mut node = Node::enrol(&site, "one");
    let access = broker.access(NodeCredentials::Anonymous);
    let mut assignment = echoing(&node, &site, access);
    let mut live = topic_route(to("plant/live", true), "echo", "out");
    live.delivery = Delivery::Live;
    assignment.topics.push(live);
    node.start();
    site.assign(&assignment).await;
    broker.subscribed(&node.id, 1).await;
    let message = ["-q", "0", "-t", "plant/7/temperature", "-m", "21"];
    broker.publish(&message).await;
    let live = ["-q", "0", "-C", "1", "-t", "plant/live"];
    assert_eq!(broker.subscribe(&live).await, "21\n");
    let is_said = |status: &Status| {
        problem(status, "mqtt:plant/echo").is_some()
            && problem(status, "mqtt:plant/+/temperature").is_some()
    };
    let status = site.status(&node.id, is_said).await;
    for topic in ["mqtt:plant/echo", "mqtt:plant/+/temperature"] {
        let said = problem(&status, topic).unwrap();
        assert!(said.contains("QoS 0 only"), "{said}");
    }
    assert_eq!(problem(&status, "mqtt:plant/live"), None);
    let waits = |status: &Status| status.backlogs.iter().any(|backlog| backlog.bytes > 0);
    site.status(&node.id, waits).await;
    node.stop().await;
}
