//! Messages that brokers retain: those of devices after each connection, and those of routes that are
//! gone.

use haar_protocol::assignment::{Assignment, TopicEnd, TopicTarget};
use haar_protocol::log::LogLine;
use haar_protocol::mqtt::Retained;
use haar_protocol::quantity::ByteSize;
use haar_protocol::relay::{NodeCredentials, device_user};
use haar_protocol::status::Status;

use super::outlets::{echoing, to};
use super::{READINGS, driver, from, listening, reading, says, scene, texts, topic_route};
use crate::mosquitto::Mosquitto;
use crate::node::{Node, microservice};
use crate::site::Site;
use crate::supervised;

const TOPIC: [&str; 3] = ["-r", "-t", "plant/7/temperature"];

async fn state(broker: &Mosquitto, quality: &str, text: &str) {
    broker
        .publish(&[&TOPIC[..], &["-q", quality, "-m", text]].concat())
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_changes_with_qos_0_while_the_agent_is_away_arrives() {
    let (site, broker, mut node, _) = scene(READINGS).await;
    state(&broker, "0", "on").await;
    site.line(&node.id, |line| says(line, "on")).await;
    node.stop().await;
    broker.left(&node.id, 1).await;
    state(&broker, "0", "off").await;
    node.start();
    site.line(&node.id, |line| says(line, "off")).await;
    assert_eq!(texts(&site, &node), ["on", "off"]);
    node.stop().await;
}

/// The broker sends sixteen at a time of what it has kept.
#[tokio::test(flavor = "multi_thread")]
async fn the_present_state_comes_after_all_that_the_broker_kept_of_former_ones() {
    let (site, broker, mut node, _) = scene(READINGS).await;
    node.stop().await;
    broker.left(&node.id, 1).await;
    for number in 0..40 {
        state(&broker, "1", &number.to_string()).await;
    }
    state(&broker, "0", "present").await;
    node.start();
    site.line(&node.id, |line| says(line, "present")).await;
    let mut expected: Vec<String> = (0..40).map(|number| number.to_string()).collect();
    expected.push("present".to_owned());
    assert_eq!(texts(&site, &node), expected);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_is_the_same_does_not_come_with_each_connection() {
    let site = Site::start().await;
    let mut broker = Mosquitto::start().await;
    state(&broker, "1", "on").await;
    let mut node = Node::enrol(&site, "one");
    let access = broker.access(NodeCredentials::Anonymous);
    node.start();
    site.assign(&listening(&node, &site, access, READINGS))
        .await;
    site.line(&node.id, |line| says(line, "on")).await;
    broker.stop();
    broker.start_again().await;
    broker.subscribed(&node.id, 1).await;
    let words = format!("Sending PUBLISH to {}", user(&node));
    broker.logged(1, |line| line.contains(&words)).await;
    reading(&broker, "21").await;
    site.line(&node.id, |line| says(line, "21")).await;
    assert_eq!(texts(&site, &node), ["on", "21"]);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_without_retained_messages_gets_none() {
    let site = Site::start().await;
    let broker = Mosquitto::start().await;
    state(&broker, "1", "on").await;
    let mut node = Node::enrol(&site, "one");
    let access = broker.access(NodeCredentials::Anonymous);
    let mut assignment = listening(&node, &site, access, READINGS);
    assignment.topics[0].retained = Some(Retained::None);
    node.start();
    site.assign(&assignment).await;
    broker.subscribed(&node.id, 1).await;
    reading(&broker, "21").await;
    site.line(&node.id, |line| says(line, "21")).await;
    assert_eq!(texts(&site, &node), ["21"]);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_that_join_a_filter_get_what_is_retained_as_each_of_them_says() {
    let site = Site::start().await;
    let broker = Mosquitto::start().await;
    state(&broker, "1", "on").await;
    let mut node = Node::enrol(&site, "one");
    let access = broker.access(NodeCredentials::Anonymous);
    let mut assignment = listening(&node, &site, access, READINGS);
    let module = driver(&node, &site);
    let inlets = ["in", "joining", "first", "deaf"];
    assignment.microservices = vec![microservice("driver", module, &["out"], &inlets)];
    node.start();
    site.assign(&assignment).await;
    site.line(&node.id, |line| says(line, "on")).await;
    for (inlet, retained) in [
        ("joining", None),
        ("first", Some(Retained::First)),
        ("deaf", Some(Retained::None)),
    ] {
        let mut route = topic_route(from(READINGS), "driver", inlet);
        route.retained = retained;
        assignment.topics.push(route);
    }
    assignment.number = 2;
    site.assign(&assignment).await;
    broker.subscribed(&node.id, 2).await;
    reading(&broker, "21").await;
    for inlet in inlets {
        let inlet = format!("\"inlet\":\"{inlet}\"");
        let is_heard = |line: &LogLine| says(line, "21") && line.text.contains(&inlet);
        site.line(&node.id, is_heard).await;
    }
    let texts = texts(&site, &node);
    assert_eq!(texts.iter().filter(|text| *text == "on").count(), 3);
    node.stop().await;
}

/// The broker sends sixteen at a time, and the log has room for three.
#[tokio::test(flavor = "multi_thread")]
async fn retained_messages_that_wait_when_the_connection_ends_come_on_the_next_one() {
    let site = Site::start().await;
    let mut broker = Mosquitto::start().await;
    // The driver logs no more than a thousand characters.
    let states: Vec<String> = (0..40).map(|number| format!("{number:x<1000}")).collect();
    for (number, text) in states.iter().enumerate() {
        let topic = format!("plant/{number}/temperature");
        broker
            .publish(&["-r", "-q", "1", "-t", &topic, "-m", text])
            .await;
    }
    let mut node = Node::enrol(&site, "one");
    let access = broker.access(NodeCredentials::Anonymous);
    let mut assignment = listening(&node, &site, access, READINGS);
    assignment.topics[0].retained = Some(Retained::First);
    assignment.topics[0].backlog.size = ByteSize(4 << 10);
    // Nobody handles anything: the module is not there.
    let module = assignment.microservices[0].module;
    node.put_aside(module);
    node.start();
    site.assign(&assignment).await;
    broker.subscribed(&node.id, 1).await;
    let full = |status: &Status| status.routes.iter().any(|route| route.sent == 3);
    site.status(&node.id, full).await;
    broker.stop();
    broker.start_again().await;
    // What waits comes again, in a session that is not new.
    let words = format!("Sending PUBLISH to {}", user(&node));
    broker.logged(13, |line| line.contains(&words)).await;
    node.stop().await;
    node.put_back(module);
    node.start();
    for text in &states {
        site.line(&node.id, |line| says(line, text)).await;
    }
    node.stop().await;
}

fn user(node: &Node) -> String {
    device_user(&node.id, &"plant".parse().unwrap())
}

async fn retained(broker: &Mosquitto, node: &Node, topic: &str, bytes: usize) {
    let words = format!("Received PUBLISH from {}", user(node));
    let end = format!("'{topic}', ... ({bytes} bytes)");
    let is_it = |line: &str| {
        [words.as_str(), "r1, m", &end]
            .iter()
            .all(|text| line.contains(text))
    };
    broker.logged(1, is_it).await;
}

/// Two topics that say what was read last, one of them cleared with its route.
async fn echoes() -> (Site, Mosquitto, Node, Assignment) {
    let site = Site::start().await;
    let broker = Mosquitto::start().await;
    let mut node = Node::enrol(&site, "one");
    let access = broker.access(NodeCredentials::Anonymous);
    let mut assignment = echoing(&node, &site, access);
    let mut cleared = topic_route(to("plant/cleared", true), "echo", "out");
    cleared.retained = Some(Retained::ClearOnDelete);
    assignment.topics.push(cleared);
    node.start();
    site.assign(&assignment).await;
    broker.subscribed(&node.id, 1).await;
    reading(&broker, "21").await;
    for topic in ["plant/echo", "plant/cleared"] {
        retained(&broker, &node, topic, 2).await;
    }
    (site, broker, node, assignment)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_is_cleared_with_its_route_where_it_is_asked_for() {
    let (site, broker, mut node, mut assignment) = echoes().await;
    assignment.number = 2;
    assignment.topics.truncate(1);
    site.assign(&assignment).await;
    retained(&broker, &node, "plant/cleared", 0).await;
    node.stop().await;
    let all = ["-t", "plant/#", "-C", "1", "-F", "%t"];
    assert_eq!(broker.subscribe(&all).await, "plant/echo\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_is_cleared_with_the_last_route_at_its_broker() {
    let (site, broker, mut node, mut assignment) = echoes().await;
    assignment.number = 2;
    assignment.topics.clear();
    assignment.brokers.clear();
    site.assign(&assignment).await;
    retained(&broker, &node, "plant/cleared", 0).await;
    let clean = format!("as {} (p5, c1", user(&node));
    broker.logged(1, |line| line.contains(&clean)).await;
    node.stop().await;
}

/// What the node last read, on a topic that says when it is gone.
fn reporting(node: &Node, site: &Site, broker: &Mosquitto) -> Assignment {
    let access = broker.access(NodeCredentials::Anonymous);
    let mut assignment = echoing(node, site, access);
    let target = TopicTarget {
        topic: "plant/state".parse().unwrap(),
        retain: true,
        will: Some("offline".to_owned()),
    };
    assignment.topics[1] = topic_route(TopicEnd::To(target), "echo", "out");
    assignment
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_says_that_its_node_is_gone_and_what_it_said_before_when_it_is_back() {
    let site = Site::start().await;
    let mut broker = Mosquitto::start().await;
    let mut node = Node::enrol(&site, "one");
    let assignment = reporting(&node, &site, &broker);
    node.start();
    site.assign(&assignment).await;
    broker.subscribed(&node.id, 1).await;
    reading(&broker, "online").await;
    retained(&broker, &node, "plant/state", 6).await;
    broker.stop();
    broker.start_again().await;
    retained(&broker, &node, "plant/state", 6).await;
    node.stop().await;
    let topic = ["-t", "plant/state", "-C", "1"];
    assert_eq!(broker.subscribe(&topic).await, "offline\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_says_that_its_node_is_gone_after_a_power_cut() {
    let site = Site::start().await;
    let broker = Mosquitto::start().await;
    let node = Node::enrol(&site, "one");
    node.write_enrolment();
    let assignment = reporting(&node, &site, &broker);
    let mut agent = supervised::start(&node, &[]);
    site.assign(&assignment).await;
    broker.subscribed(&node.id, 1).await;
    reading(&broker, "online").await;
    retained(&broker, &node, "plant/state", 6).await;
    // It listens before the power is cut: later it may find the last message only.
    let topic = ["-i", "listener", "-t", "plant/state", "-C", "2"];
    let heard = broker.subscribe(&topic);
    let cut = async {
        let words = "Sending SUBACK to listener";
        broker.logged(1, |line| line.contains(words)).await;
        agent.kill().await.unwrap();
    };
    let (heard, ()) = tokio::join!(heard, cut);
    assert_eq!(heard, "online\noffline\n");
}
