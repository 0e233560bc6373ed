//! Sessions with brokers: how many, whose, and for how long the broker keeps them.

use haar_protocol::relay::{NodeCredentials, device_user, former_device_user};
use haar_protocol::status::Status;

use super::{READINGS, driver, from, listening, reading, says, scene, texts, topic_route};
use crate::mosquitto::{Mosquitto, write_passwords};
use crate::node::{Node, microservice};
use crate::site::Site;

#[tokio::test(flavor = "multi_thread")]
async fn two_relays_that_are_one_broker_do_not_end_each_others_sessions() {
    let site = Site::start().await;
    let broker = Mosquitto::start().await;
    let mut node = Node::enrol(&site, "one");
    let access = broker.access(NodeCredentials::Anonymous);
    let mut other = access.clone();
    other.name = "plant-2".parse().unwrap();
    let mut assignment = listening(&node, &site, access, READINGS);
    let mut doors = topic_route(from("hall/#"), "driver", "in");
    doors.relay = other.name.clone();
    assignment.topics.push(doors);
    assignment.brokers.push(other);
    node.start();
    site.assign(&assignment).await;
    broker
        .logged(2, |line| line.contains("Sending SUBACK"))
        .await;
    let mut expected = Vec::new();
    for number in 0..30 {
        let text = number.to_string();
        let topic = ["plant/7/temperature", "hall/door"][number % 2];
        broker.publish(&["-q", "1", "-t", topic, "-m", &text]).await;
        site.line(&node.id, |line| says(line, &text)).await;
        expected.push(text);
    }
    assert_eq!(texts(&site, &node), expected);
    let log = broker.log();
    // Both look for the session of an agent of an earlier release.
    let own = format!("{}.plant", former_device_user(&node.id));
    let mut log_of_own = log.iter().filter(|line| line.contains(&own));
    let ended = log_of_own.any(|line| line.contains("already connected"));
    assert!(!ended, "{log:#?}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_relays_for_links_that_are_one_broker_do_not_end_each_others_sessions() {
    let site = Site::start().await;
    let broker = Mosquitto::start().await;
    let mut node = Node::enrol(&site, "one");
    let access = broker.access(NodeCredentials::Anonymous);
    let mut other = access.clone();
    other.name = "plant-2".parse().unwrap();
    let mut assignment = node.assignment(&site, 1);
    assignment.relays.extend([access, other]);
    node.start();
    site.assign(&assignment).await;
    broker
        .logged(2, |line| line.contains("Sending SUBACK"))
        .await;
    let log = broker.log();
    let ended = log.iter().any(|line| line.contains("already connected"));
    assert!(!ended, "{log:#?}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_broker_kept_for_an_agent_of_an_earlier_release_is_taken_over_in_order() {
    let site = Site::start().await;
    let broker = Mosquitto::start_with("allow_anonymous true\nmax_queued_messages 0\n", |_| {});
    let broker = broker.await;
    let mut node = Node::enrol(&site, "one");
    let former = former_device_user(&node.id);
    let session = ["-c", "-i", &former, "-x", "3600", "-q", "1"];
    let subscription = ["-t", READINGS, "-E"];
    broker
        .subscribe(&[&session[..], &subscription].concat())
        .await;
    let lines: String = (0..60).map(|number| format!("{number}\n")).collect();
    let topic = ["-q", "1", "-t", "plant/7/temperature", "-l"];
    broker.publish_lines(&topic, lines).await;
    let access = broker.access(NodeCredentials::Anonymous);
    node.start();
    site.assign(&listening(&node, &site, access, READINGS))
        .await;
    site.line(&node.id, |line| says(line, "59")).await;
    // It is begun clean, and so forgotten.
    let clean = format!("as {former} (p5, c1");
    broker.logged(1, |line| line.contains(&clean)).await;
    reading(&broker, "60").await;
    site.line(&node.id, |line| says(line, "60")).await;
    let expected: Vec<String> = (0..=60).map(|number| number.to_string()).collect();
    assert_eq!(texts(&site, &node), expected);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_needed_again_before_it_has_forgotten_a_session_begins_another_one() {
    let (site, mut broker, mut node, mut assignment) = scene(READINGS).await;
    broker.stop();
    let applied = |number: u64| move |status: &Status| status.applied == number;
    let brokers = assignment.brokers.clone();
    assignment.number = 2;
    assignment.topics.clear();
    assignment.brokers.clear();
    site.assign(&assignment).await;
    site.status(&node.id, applied(2)).await;
    assignment.number = 3;
    assignment.topics = vec![topic_route(from("hall/#"), "driver", "in")];
    assignment.brokers = brokers;
    site.assign(&assignment).await;
    site.status(&node.id, applied(3)).await;
    broker.start_again().await;
    broker.subscribed(&node.id, 1).await;
    let user = device_user(&node.id, &"plant".parse().unwrap());
    let clean = format!("as {user} (p5, c1");
    broker.logged(1, |line| line.contains(&clean)).await;
    reading(&broker, "unheard").await;
    broker
        .publish(&["-q", "1", "-t", "hall/door", "-m", "heard"])
        .await;
    site.line(&node.id, |line| says(line, "heard")).await;
    assert_eq!(texts(&site, &node), ["heard"]);
    let log = broker.log();
    let is_one = |line: &String| line.contains(&format!("Sending PUBLISH to {user}"));
    assert_eq!(
        log.iter().filter(|line| is_one(line)).count(),
        1,
        "{log:#?}"
    );
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_knows_the_former_users_only_serves_the_node_as_before() {
    let configuration = "allow_anonymous false\npassword_file FOLDER/passwords\n";
    let site = Site::start().await;
    let mut node = Node::enrol(&site, "one");
    let user = former_device_user(&node.id);
    let secret = site.key.shared_with(&node.key.public());
    let password = secret.relay_password(&"plant".parse().unwrap());
    let broker = Mosquitto::start_with(configuration, |folder| {
        write_passwords(folder, &[(&user, &password), ("device", "secret")]);
    })
    .await;
    let access = broker.access(NodeCredentials::Generated);
    node.start();
    site.assign(&listening(&node, &site, access, READINGS))
        .await;
    let words = format!("Sending SUBACK to {user}");
    broker.logged(1, |line| line.contains(&words)).await;
    let device = ["-u", "device", "-P", "secret", "-q", "1"];
    let message = ["-t", "plant/7/temperature", "-m", "21"];
    broker.publish(&[&device[..], &message].concat()).await;
    site.line(&node.id, |line| says(line, "21")).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_of_a_shared_subscription_that_is_gone_leaves_all_to_the_others() {
    let site = Site::start().await;
    let broker = Mosquitto::start().await;
    let mut nodes = [Node::enrol(&site, "one"), Node::enrol(&site, "two")];
    for node in &mut nodes {
        let mut access = broker.access(NodeCredentials::Anonymous);
        access.session_expiry_s = Some(1);
        let mut assignment = node.assignment(&site, 1);
        let module = driver(node, &site);
        assignment.microservices = vec![microservice("driver", module, &["out"], &["in"])];
        let filter = from("$share/all/plant/+/temperature");
        assignment.topics = vec![topic_route(filter, "driver", "in")];
        assignment.brokers = vec![access];
        node.start();
        site.assign(&assignment).await;
        broker.subscribed(&node.id, 1).await;
    }
    nodes[0].stop().await;
    let user = device_user(&nodes[0].id, &"plant".parse().unwrap());
    let words = format!("Expiring client {user} ");
    broker.logged(1, |line| line.contains(&words)).await;
    let expected: Vec<String> = (0..20).map(|number| number.to_string()).collect();
    for text in &expected {
        reading(&broker, text).await;
    }
    site.line(&nodes[1].id, |line| says(line, "19")).await;
    assert_eq!(texts(&site, &nodes[1]), expected);
    nodes[1].stop().await;
}
