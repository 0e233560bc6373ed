//! Outlets whose routes end at topics: what they publish reaches devices.

use haar_conformance_artifacts as artifacts;
use haar_protocol::assignment::{Assignment, TopicEnd, TopicTarget};
use haar_protocol::manifest::Delivery;
use haar_protocol::relay::{NodeCredentials, RelayAccess, device_user};
use haar_protocol::status::Status;

use super::{READINGS, driver, from, reading, topic_route};
use crate::mosquitto::{Mosquitto, write_passwords};
use crate::node::{Node, TYPE, configured, microservice};
use crate::site::Site;

pub(super) fn to(topic: &str, retain: bool) -> TopicEnd {
    let topic = topic.parse().unwrap();
    TopicEnd::To(TopicTarget {
        topic,
        retain,
        will: None,
    })
}

/// Readings go through an echo to another topic, with their properties.
pub(super) fn echoing(node: &Node, site: &Site, access: RelayAccess) -> Assignment {
    let mut assignment = node.assignment(site, 1);
    let module = node.install(&artifacts::read(artifacts::ECHO), &site.publisher);
    assignment.microservices = vec![microservice("echo", module, &["out"], &["in"])];
    assignment.topics = vec![
        topic_route(from(READINGS), "echo", "in"),
        topic_route(to("plant/echo", true), "echo", "out"),
    ];
    assignment.brokers = vec![access];
    assignment
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_outlet_publishes_reaches_devices_with_its_properties_and_is_retained() {
    let generated = "allow_anonymous false\npassword_file FOLDER/passwords\nacl_file FOLDER/acl\n\
                     use_username_as_clientid true\n";
    let site = Site::start().await;
    let mut node = Node::enrol(&site, "one");
    let user = device_user(&node.id, &"plant".parse().unwrap());
    let secret = site.key.shared_with(&node.key.public());
    let password = secret.relay_password(&"plant".parse().unwrap());
    let broker = Mosquitto::start_with(generated, |folder| {
        write_passwords(folder, &[(&user, &password), ("device", "secret")]);
        let acl = format!(
            "user {user}\ntopic read plant/+/temperature\ntopic write plant/echo\n\
             user device\ntopic readwrite plant/#\n"
        );
        std::fs::write(folder.join("acl"), acl).unwrap();
    })
    .await;
    node.start();
    let access = broker.access(NodeCredentials::Generated);
    site.assign(&echoing(&node, &site, access)).await;
    broker.subscribed(&node.id, 1).await;
    let device = ["-u", "device", "-P", "secret", "-q", "1"];
    let reading = ["-t", "plant/7/temperature", "-m", "21"];
    let property = ["-D", "publish", "user-property", "unit", "C"];
    broker
        .publish(&[&device[..], &reading, &property].concat())
        .await;
    let words = "Received PUBLISH from ".to_owned() + &user;
    broker.logged(1, |line| line.contains(&words)).await;
    let echo = ["-t", "plant/echo", "-C", "1", "-F", "%t %r %C %P %p"];
    let printed = broker.subscribe(&[&device[..], &echo].concat()).await;
    let expected = format!("plant/echo 1 {TYPE} mqtt-topic:plant/7/temperature unit:C 21\n");
    assert_eq!(printed, expected);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_during_an_outage_of_the_broker_reaches_devices_in_order() {
    let site = Site::start().await;
    let mut broker = Mosquitto::start().await;
    let mut node = Node::enrol(&site, "one");
    let mut assignment = node.assignment(&site, 1);
    let module = driver(&node, &site);
    let said = |first: u32| {
        let lines: Vec<String> = (first..first + 50).map(|one| one.to_string()).collect();
        lines.join("\n")
    };
    let say = |lines: &str| {
        let driver = microservice("driver", module, &["out"], &["in"]);
        configured(driver, &[("say", lines), ("round", lines)])
    };
    assignment.microservices = vec![say(&said(0))];
    assignment.topics = vec![topic_route(to("plant/alerts", false), "driver", "out")];
    assignment.brokers = vec![broker.access(NodeCredentials::Anonymous)];
    // The device has a session of its own, which the broker keeps.
    let device = [
        "-c",
        "-i",
        "device",
        "-x",
        "3600",
        "-q",
        "1",
        "-t",
        "plant/alerts",
    ];
    broker.subscribe(&[&device[..], &["-E"]].concat()).await;
    node.start();
    site.assign(&assignment).await;
    let delivered = |messages: u64| {
        move |status: &Status| status.routes.iter().any(|one| one.delivered == messages)
    };
    site.status(&node.id, delivered(50)).await;
    broker.stop();
    assignment.number = 2;
    assignment.microservices = vec![say(&said(50))];
    site.assign(&assignment).await;
    let sent = |status: &Status| status.routes.iter().any(|route| route.sent == 100);
    site.status(&node.id, sent).await;
    broker.start_again().await;
    site.status(&node.id, delivered(100)).await;
    let printed = broker
        .subscribe(&[&device[..], &["-C", "100"]].concat())
        .await;
    let expected = format!("{}\n{}\n", said(0), said(50));
    assert_eq!(printed, expected);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_route_carries_readings_in_and_out() {
    let site = Site::start().await;
    let broker = Mosquitto::start().await;
    let mut node = Node::enrol(&site, "one");
    let mut assignment = echoing(&node, &site, broker.access(NodeCredentials::Anonymous));
    for route in &mut assignment.topics {
        route.delivery = Delivery::Live;
    }
    node.start();
    site.assign(&assignment).await;
    broker.subscribed(&node.id, 1).await;
    let running = |status: &Status| {
        let mut all = status.microservices.iter();
        all.any(|one| one.state == haar_protocol::status::State::Running)
    };
    site.status(&node.id, running).await;
    reading(&broker, "21").await;
    let words = format!(
        "Received PUBLISH from {}",
        device_user(&node.id, &"plant".parse().unwrap())
    );
    broker.logged(1, |line| line.contains(&words)).await;
    let printed = broker.subscribe(&["-t", "plant/echo", "-C", "1"]).await;
    assert_eq!(printed, "21\n");
    node.stop().await;
}
