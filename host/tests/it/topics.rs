//! Plain MQTT devices as ends of routes, with a real Mosquitto and its tools. Here what devices
//! publish; what they receive, QoS and bursts have modules of their own.

mod bursts;
mod outlets;
mod qos;
mod requests;
mod retained;
mod sessions;
mod terms;
mod reported;

use haar_conformance_artifacts as artifacts;
use haar_protocol::assignment::{Assignment, TopicEnd, TopicRoute};
use haar_protocol::ids::{Digest, PortName, RouteId};
use haar_protocol::limits::Backlog;
use haar_protocol::log::LogLine;
use haar_protocol::manifest::Delivery;
use haar_protocol::mqtt::Retained;
use haar_protocol::quantity::ByteSize;
use haar_protocol::relay::{NodeCredentials, RelayAccess, device_user};
use haar_protocol::status::Status;

use crate::mosquitto::Mosquitto;
use crate::node::{Node, TYPE, microservice, name};
use crate::site::Site;

const READINGS: &str = "plant/+/temperature";

fn from(filter: &str) -> TopicEnd {
    TopicEnd::From(filter.parse().unwrap())
}

fn topic_route(topic: TopicEnd, microservice: &str, port: &str) -> TopicRoute {
    let microservice = name(microservice);
    let end = PortName {
        microservice: microservice.microservice.clone(),
        port: port.parse().unwrap(),
    };
    let id = RouteId::of(
        &microservice.application,
        &topic,
        &end,
        &TYPE.parse().unwrap(),
    );
    TopicRoute {
        id,
        relay: "plant".parse().unwrap(),
        topic,
        microservice,
        port: port.parse().unwrap(),
        content_type: TYPE.parse().unwrap(),
        delivery: Delivery::Durable,
        backlog: Backlog::default(),
        retained: None,
    }
}

fn driver(node: &Node, site: &Site) -> (Digest, u64) {
    node.install(&artifacts::read(artifacts::DRIVER), &site.publisher)
}

/// A driver on the node that hears the readings of devices.
fn listening(node: &Node, site: &Site, access: RelayAccess, filter: &str) -> Assignment {
    let mut assignment = node.assignment(site, 1);
    let module = driver(node, site);
    assignment.microservices = vec![microservice("driver", module, &["out"], &["in"])];
    assignment.topics = vec![topic_route(from(filter), "driver", "in")];
    assignment.brokers = vec![access];
    assignment
}

fn says(line: &LogLine, text: &str) -> bool {
    line.text.ends_with(&format!("\"text\":\"{text}\"}}"))
}

fn texts(site: &Site, node: &Node) -> Vec<String> {
    let lines = site.lines(&node.id).into_iter();
    let texts = lines.filter_map(|line| {
        let (_, text) = line.text.split_once("\"text\":\"")?;
        Some(text.trim_end_matches("\"}").to_owned())
    });
    texts.collect()
}

/// A site with a broker and a node that listens there.
async fn scene(filter: &str) -> (Site, Mosquitto, Node, Assignment) {
    let site = Site::start().await;
    let broker = Mosquitto::start().await;
    let mut node = Node::enrol(&site, "one");
    let access = broker.access(NodeCredentials::Anonymous);
    let assignment = listening(&node, &site, access, filter);
    node.start();
    site.assign(&assignment).await;
    broker.subscribed(&node.id, 1).await;
    (site, broker, node, assignment)
}

async fn reading(broker: &Mosquitto, text: &str) {
    let topic = ["-q", "1", "-t", "plant/7/temperature", "-m", text];
    broker.publish(&topic).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reading_arrives_with_topic_and_user_properties_and_nothing_of_another_type_does() {
    let (site, broker, mut node, _) = scene(READINGS).await;
    let property = ["-D", "publish", "user-property"];
    let content_type = ["-D", "publish", "content-type"];
    let reading = ["-q", "1", "-t", "plant/7/temperature", "-m"];
    let first = [
        &reading[..],
        &["21"],
        &property,
        &["unit", "C"],
        &property,
        &["mqtt-topic", "forged"],
        &content_type,
        &["Application/Octet-Stream; charset=none"],
    ];
    broker.publish(&first.concat()).await;
    let wrong = [&reading[..], &["22"], &content_type, &["text/plain"]];
    broker.publish(&wrong.concat()).await;
    broker.publish(&[&reading[..], &["23"]].concat()).await;
    let line = site.line(&node.id, |line| says(line, "23")).await;
    assert!(line.text.contains("\"sequence\":2,"), "{}", line.text);
    let line = site.line(&node.id, |line| says(line, "21")).await;
    let source = format!(
        "\"one/{}/mqtt:plant.{READINGS}\"",
        name("driver").application
    );
    for expected in [
        &source,
        "\"sequence\":1,",
        "\"headers\":{\"mqtt-topic\":\"plant/7/temperature\",\"mqtt-content-type\":\"Application/Octet-Stream; charset=none\",\"unit\":\"C\"}",
    ] {
        assert!(line.text.contains(expected), "{expected} in {}", line.text);
    }
    let counted = |status: &Status| {
        let mut routes = status.routes.iter();
        routes.any(|route| (route.sent, route.handled, route.dropped) == (2, 2, 1))
    };
    let status = site.status(&node.id, counted).await;
    let topic = status.routes[0].topic.as_deref();
    assert_eq!(topic, Some("mqtt:plant/+/temperature"));
    assert_eq!(status.routes[0].peer.as_str(), "plant");
    assert_eq!(texts(&site, &node), ["21", "23"]);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_devices_publish_while_the_agent_is_down_arrives_afterwards() {
    let (site, broker, mut node, _) = scene(READINGS).await;
    node.stop().await;
    broker.left(&node.id, 1).await;
    for text in ["1", "2", "3"] {
        reading(&broker, text).await;
    }
    node.start();
    site.line(&node.id, |line| says(line, "3")).await;
    assert_eq!(texts(&site, &node), ["1", "2", "3"]);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_stored_is_not_acknowledged_and_comes_again() {
    let site = Site::start().await;
    let broker = Mosquitto::start().await;
    let mut node = Node::enrol(&site, "one");
    let access = broker.access(NodeCredentials::Anonymous);
    let mut assignment = listening(&node, &site, access, READINGS);
    assignment.topics[0].backlog.size = ByteSize(4 << 10);
    // Nobody handles anything: the module is not there.
    let module = assignment.microservices[0].module;
    node.put_aside(module);
    node.start();
    site.assign(&assignment).await;
    broker.subscribed(&node.id, 1).await;
    let long = |number: u32| format!("{number}{}", "x".repeat(999));
    for number in 0..8 {
        reading(&broker, &long(number)).await;
    }
    // Three fit; the others have arrived, and wait.
    let words = format!(
        "Sending PUBLISH to {}",
        device_user(&node.id, &"plant".parse().unwrap())
    );
    broker.logged(8, |line| line.contains(&words)).await;
    let full = |status: &Status| status.routes.iter().any(|route| route.sent == 3);
    site.status(&node.id, full).await;
    node.stop().await;
    node.put_back(module);
    node.start();
    site.line(&node.id, |line| says(line, &long(7))).await;
    let expected: Vec<String> = (0..8).map(long).collect();
    assert_eq!(texts(&site, &node), expected);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retained_message_arrives_with_the_first_connection_and_says_so() {
    let site = Site::start().await;
    let broker = Mosquitto::start().await;
    let topic = ["-r", "-q", "1", "-t", "plant/7/temperature", "-m", "kept"];
    broker.publish(&topic).await;
    let mut node = Node::enrol(&site, "one");
    let access = broker.access(NodeCredentials::Anonymous);
    let mut assignment = listening(&node, &site, access, READINGS);
    assignment.topics[0].retained = Some(Retained::First);
    node.start();
    site.assign(&assignment).await;
    let line = site.line(&node.id, |line| says(line, "kept")).await;
    let flag = "\"mqtt-retained\":\"true\"";
    assert!(line.text.contains(flag), "{}", line.text);
    node.stop().await;
    node.start();
    broker.subscribed(&node.id, 2).await;
    reading(&broker, "new").await;
    let line = site.line(&node.id, |line| says(line, "new")).await;
    assert!(!line.text.contains(flag), "{}", line.text);
    assert_eq!(texts(&site, &node), ["kept", "new"]);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_subscription_divides_the_readings_among_nodes() {
    let site = Site::start().await;
    let broker = Mosquitto::start().await;
    let mut nodes = [Node::enrol(&site, "one"), Node::enrol(&site, "two")];
    for node in &mut nodes {
        let access = broker.access(NodeCredentials::Anonymous);
        let filter = "$share/all/plant/+/temperature";
        let assignment = listening(node, &site, access, filter);
        node.start();
        site.assign(&assignment).await;
        broker.subscribed(&node.id, 1).await;
    }
    let [one, two] = &nodes;
    for number in 0..20 {
        let text = number.to_string();
        reading(&broker, &text).await;
        tokio::select! {
            _ = site.line(&one.id, |line| says(line, &text)) => {}
            _ = site.line(&two.id, |line| says(line, &text)) => {}
        }
    }
    let (first, second) = (texts(&site, one).len(), texts(&site, two).len());
    assert_eq!(first + second, 20);
    assert!(first > 0 && second > 0, "{first} and {second}");
    for node in &mut nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_is_withdrawn_stops_and_the_broker_forgets_the_session() {
    let (site, broker, mut node, mut assignment) = scene(READINGS).await;
    assignment.number = 2;
    assignment
        .topics
        .push(topic_route(from("hall/#"), "driver", "in"));
    site.assign(&assignment).await;
    broker.subscribed(&node.id, 2).await;
    assignment.number = 3;
    assignment.topics.remove(0);
    site.assign(&assignment).await;
    let words = format!(
        "Sending UNSUBACK to {}",
        device_user(&node.id, &"plant".parse().unwrap())
    );
    broker.logged(1, |line| line.contains(&words)).await;
    reading(&broker, "unheard").await;
    broker
        .publish(&["-q", "1", "-t", "hall/door", "-m", "heard"])
        .await;
    site.line(&node.id, |line| says(line, "heard")).await;
    assert_eq!(texts(&site, &node), ["heard"]);
    assignment.number = 4;
    assignment.topics.clear();
    assignment.brokers.clear();
    site.assign(&assignment).await;
    // It ends the session that it has, and then one that begins clean (`c1`) in its place.
    broker.left(&node.id, 2).await;
    let user = device_user(&node.id, &"plant".parse().unwrap());
    let clean = |line: &str| line.contains(&user) && line.contains("c1");
    broker.logged(1, clean).await;
    node.stop().await;
}
