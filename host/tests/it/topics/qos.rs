//! Devices that publish with QoS 0, as most do, and with QoS 2.

use haar_protocol::assignment::Assignment;
use haar_protocol::ids::Digest;
use haar_protocol::limits::WhenFull;
use haar_protocol::manifest::Delivery;
use haar_protocol::quantity::ByteSize;
use haar_protocol::relay::NodeCredentials;
use haar_protocol::status::Status;

use super::{READINGS, from, listening, says, scene, texts, topic_route};
use crate::mosquitto::Mosquitto;
use crate::node::Node;
use crate::site::Site;

const TOPIC: &str = "plant/7/temperature";

async fn publish(broker: &Mosquitto, quality: &str, text: &str) {
    broker
        .publish(&["-q", quality, "-t", TOPIC, "-m", text])
        .await;
}

/// A node whose microservice does not run: its module is aside.
pub(super) async fn deaf(when_full: WhenFull) -> (Site, Mosquitto, Node, Digest) {
    let site = Site::start().await;
    let broker = Mosquitto::start().await;
    let mut node = Node::enrol(&site, "one");
    let access = broker.access(NodeCredentials::Anonymous);
    let mut assignment = listening(&node, &site, access, READINGS);
    assignment.topics[0].backlog.size = ByteSize(4 << 10);
    assignment.topics[0].backlog.when_full = when_full;
    let module = assignment.microservices[0].module;
    node.put_aside(module);
    node.start();
    site.assign(&assignment).await;
    broker.subscribed(&node.id, 1).await;
    (site, broker, node, module)
}

fn long(number: u32) -> String {
    format!("{number}{}", "x".repeat(999))
}

pub(super) fn counts(sent: u64, dropped: u64) -> impl Fn(&Status) -> bool {
    move |status| {
        let mut routes = status.routes.iter();
        routes.any(|route| (route.sent, route.dropped) == (sent, dropped))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reading_of_qos_0_is_stored_and_outlives_a_restart() {
    let (site, broker, mut node, module) = deaf(WhenFull::Refuse).await;
    for (quality, text) in [("0", "1"), ("1", "2"), ("2", "3"), ("0", "4")] {
        publish(&broker, quality, text).await;
    }
    site.status(&node.id, counts(4, 0)).await;
    node.stop().await;
    node.put_back(module);
    node.start();
    site.line(&node.id, |line| says(line, "4")).await;
    assert_eq!(texts(&site, &node), ["1", "2", "3", "4"]);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_log_that_refuses_drops_and_counts_qos_0_and_keeps_qos_1_waiting() {
    let (site, broker, mut node, module) = deaf(WhenFull::Refuse).await;
    // Three fit.
    for (quality, number) in [
        ("0", 0),
        ("1", 1),
        ("0", 2),
        ("0", 3),
        ("1", 4),
        ("0", 5),
        ("1", 6),
    ] {
        publish(&broker, quality, &long(number)).await;
    }
    site.status(&node.id, counts(3, 2)).await;
    node.stop().await;
    node.put_back(module);
    node.start();
    site.line(&node.id, |line| says(line, &long(6))).await;
    let expected: Vec<String> = [0, 1, 2, 4, 6].map(long).into();
    assert_eq!(texts(&site, &node), expected);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_log_that_drops_the_oldest_takes_qos_0() {
    let (site, broker, mut node, module) = deaf(WhenFull::DropOldest).await;
    for number in 0..5 {
        publish(&broker, "0", &long(number)).await;
    }
    site.status(&node.id, counts(5, 2)).await;
    node.stop().await;
    node.put_back(module);
    node.start();
    site.line(&node.id, |line| says(line, &long(4))).await;
    assert_eq!(texts(&site, &node), [2, 3, 4].map(long));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retained_reading_of_qos_0_arrives() {
    let site = Site::start().await;
    let broker = Mosquitto::start().await;
    broker
        .publish(&["-r", "-q", "0", "-t", TOPIC, "-m", "kept"])
        .await;
    let mut node = Node::enrol(&site, "one");
    let access = broker.access(NodeCredentials::Anonymous);
    node.start();
    site.assign(&listening(&node, &site, access, READINGS))
        .await;
    let line = site.line(&node.id, |line| says(line, "kept")).await;
    let flag = "\"mqtt-retained\":\"true\"";
    assert!(line.text.contains(flag), "{}", line.text);
    node.stop().await;
}

/// Changes the routes of a node that listens, and waits for its subscriptions.
async fn again(site: &Site, broker: &Mosquitto, node: &Node, assignment: &mut Assignment) {
    assignment.number += 1;
    site.assign(assignment).await;
    broker.subscribed(&node.id, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_whose_filters_overlap_get_each_message_once_live_or_durable_at_any_qos() {
    let (site, broker, mut node, mut assignment) = scene(READINGS).await;
    let mut live = topic_route(from("plant/#"), "driver", "in");
    live.delivery = Delivery::Live;
    assignment.topics.push(live);
    again(&site, &broker, &node, &mut assignment).await;
    for (quality, text) in [("0", "1"), ("1", "2"), ("2", "3"), ("0", "4")] {
        publish(&broker, quality, text).await;
    }
    let each = |status: &Status| {
        let all = |route: &haar_protocol::status::RouteStatus| {
            (route.sent, route.handled, route.dropped) == (4, 4, 0)
        };
        status.routes.len() == 2 && status.routes.iter().all(all)
    };
    site.status(&node.id, each).await;
    node.stop().await;
}
