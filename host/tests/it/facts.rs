//! What a microservice is told of its node.

use haar_conformance_artifacts as artifacts;
use haar_host::config::Location;

use crate::driver::Driver;
use crate::node::{Node, microservice, route};
use crate::site::Site;

#[tokio::test(flavor = "multi_thread")]
async fn a_microservice_knows_its_node_and_sees_labels_change() {
    let site = Site::start().await;
    let (mut node, other) = (Node::enrol(&site, "one"), Node::enrol(&site, "other"));
    node.location = Some(Location {
        latitude: 53.5,
        longitude: 8.125,
        altitude: Some(2.5),
    });
    let guest = node.install(&artifacts::read(artifacts::NODE_FACTS), &site.publisher);
    let incoming = route(other.port("driver", "out"), node.port("it", "in"));
    let mut assignment = node.assignment(&site, 1);
    assignment.labels = [("line", "7"), ("hall", "b")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    assignment.microservices = vec![microservice("it", guest, &[], &["in"])];
    assignment.routes = vec![incoming.clone()];
    assignment.peers = vec![other.peer()];
    node.start();
    site.assign(&assignment).await;
    let expected = format!(
        "id={} name=one site={} labels=[hall=b line=7] location=[53.5 8.125 Some(2.5)] ",
        node.id,
        site.id()
    );
    let line = site
        .line(&node.id, |line| line.text.starts_with("id="))
        .await;
    let rest = line
        .text
        .strip_prefix(&expected)
        .unwrap_or_else(|| panic!("{}", line.text));
    let uptime = |text: &str| -> u64 {
        let word = text
            .split(' ')
            .find_map(|word| word.strip_prefix("uptime_ms="));
        word.unwrap().parse().unwrap()
    };
    let before = uptime(rest);
    assert!(before > 0);

    assignment.number = 2;
    assignment.labels.insert("line".into(), "8".into());
    site.assign(&assignment).await;
    site.status(&node.id, |status| status.applied == 2).await;
    let driver = Driver::connect(&site, &other).await;
    driver.send(&node, incoming.id, "again").await;
    let line = site
        .line(&node.id, |line| {
            line.text.contains("labels=[hall=b line=8]")
        })
        .await;
    assert!(uptime(&line.text) >= before);
    node.stop().await;
}
