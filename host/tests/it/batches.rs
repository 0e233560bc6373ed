//! A batch is published as a whole or not at all.

use haar_conformance_artifacts as artifacts;
use haar_protocol::quantity::ByteSize;

use crate::driver::Driver;
use crate::node::{Node, configured, microservice, of, route};
use crate::site::Site;

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_published_in_order_or_refused_as_a_whole_with_the_limit() {
    let site = Site::start().await;
    let (mut node, other) = (Node::enrol(&site, "one"), Node::enrol(&site, "other"));
    let batch = node.install(&artifacts::read(artifacts::BATCH), &site.publisher);
    let sink = node.install(&artifacts::read(artifacts::SINK), &site.publisher);
    let mut batch = microservice("batch", batch, &["out"], &["in"]);
    batch.limits.publish_per_second = 200;
    batch.limits.message_size = ByteSize(1_000);
    let commands = route(other.port("driver", "out"), node.port("batch", "in"));
    let mut assignment = node.assignment(&site, 1);
    assignment.microservices = vec![
        batch,
        configured(
            microservice("sink", sink, &[], &["in"]),
            &[("report_ms", "100")],
        ),
    ];
    assignment.routes = vec![
        commands.clone(),
        route(node.port("batch", "out"), node.port("sink", "in")),
    ];
    assignment.peers = vec![other.peer()];
    node.start();
    site.assign(&assignment).await;
    site.status(&node.id, |status| of(status, "batch").is_some())
        .await;
    let driver = Driver::connect(&site, &other).await;
    let told = async |command: &str| {
        driver.send(&node, commands.id, command).await;
        let prefix = format!("{command}: ");
        let line = site
            .line(&node.id, |line| line.text.starts_with(&prefix))
            .await;
        line.text[prefix.len()..].to_owned()
    };

    // Too large, all of it: nothing is published, and no number is used up.
    let large = told("3 10 1001").await;
    assert!(large.contains("limit of 1000 bytes"), "{large}");
    let many = told("201 1").await;
    assert!(many.contains("at most 200 messages"), "{many}");
    assert_eq!(told("0 0").await, "first 1");
    assert_eq!(told("100 10").await, "first 1");
    assert_eq!(told("0 1").await, "first 101");
    let sum = site
        .line(&node.id, |line| line.text.starts_with("messages=100 "))
        .await;
    assert!(
        sum.text.contains("bytes=1000 ") && sum.text.contains("missing=0 disordered=0"),
        "{}",
        sum.text
    );
    let flooded = told("flood 150").await;
    assert!(flooded.contains("try again in"), "{flooded}");
    let status = site
        .status(&node.id, |status| {
            of(status, "batch").is_some_and(|one| one.exceeded.publish_per_second == 2)
        })
        .await;
    assert_eq!(of(&status, "batch").unwrap().exceeded.message_size, 1);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_has_an_upper_bound_whatever_the_rate() {
    let site = Site::start().await;
    let (mut node, other) = (Node::enrol(&site, "one"), Node::enrol(&site, "other"));
    let batch = node.install(&artifacts::read(artifacts::BATCH), &site.publisher);
    let commands = route(other.port("driver", "out"), node.port("batch", "in"));
    let mut assignment = node.assignment(&site, 1);
    assignment.microservices = vec![microservice("batch", batch, &["out"], &["in"])];
    assignment.routes = vec![commands.clone()];
    assignment.peers = vec![other.peer()];
    node.start();
    site.assign(&assignment).await;
    site.status(&node.id, |status| of(status, "batch").is_some())
        .await;
    let driver = Driver::connect(&site, &other).await;
    driver.send(&node, commands.id, "1025 1").await;
    driver.send(&node, commands.id, "1024 1").await;
    let refused = site
        .line(&node.id, |line| line.text.starts_with("1025 1: "))
        .await;
    assert!(
        refused.text.contains("at most 1024 messages"),
        "{}",
        refused.text
    );
    site.line(&node.id, |line| line.text == "1024 1: first 1")
        .await;
    node.stop().await;
}
