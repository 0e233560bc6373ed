//! Configuration, for microservices that were made for other hosts.

use haar_conformance_artifacts as artifacts;
use haar_protocol::grants::{CONFIG_RUNTIME_VERSIONS, CONFIG_STORE_VERSIONS};

use crate::node::{Node, configured, microservice};
use crate::site::Site;

#[tokio::test(flavor = "multi_thread")]
async fn every_version_of_the_interface_tells_the_same_values() {
    let site = Site::start().await;
    let mut node = Node::enrol(&site, "one");
    let guest = node.install(
        &artifacts::read(artifacts::CONFIG_VERSIONS),
        &site.publisher,
    );
    let mut assignment = node.assignment(&site, 1);
    assignment.microservices = vec![configured(
        microservice("it", guest, &[], &[]),
        &[("colour", "blue"), ("size", "3")],
    )];
    node.start();
    site.assign(&assignment).await;
    let stores = CONFIG_STORE_VERSIONS.map(|version| format!("{version} store"));
    let runtimes = CONFIG_RUNTIME_VERSIONS.map(|version| format!("{version} runtime"));
    for interface in stores.iter().chain(&runtimes) {
        let expected = format!("{interface}: blue 2 true");
        site.line(&node.id, |line| line.text == expected).await;
    }
    node.stop().await;
}
