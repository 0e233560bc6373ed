//! The last call of an instance.

use haar_conformance_artifacts as artifacts;
use haar_protocol::quantity::Millis;
use haar_protocol::status::State;

use crate::node::{Node, configured, microservice, of};
use crate::site::Site;

/// Withdraws an instance that takes `stop_ms` to stop, and waits until it is gone.
async fn withdraw(site: &Site, node: &mut Node, stop_ms: &str, grace: Millis) {
    let guest = node.install(&artifacts::read(artifacts::STOPPER), &site.publisher);
    let mut guest = microservice("it", guest, &[], &[]);
    guest.limits.stop_grace = grace;
    guest.limits.call_timeout = Millis(1_000);
    let mut assignment = node.assignment(site, 1);
    assignment.microservices = vec![configured(guest, &[("stop_ms", stop_ms)])];
    node.start();
    site.assign(&assignment).await;
    site.status(&node.id, |status| {
        of(status, "it").is_some_and(|one| one.state == State::Running)
    })
    .await;
    assignment.number = 2;
    assignment.microservices.clear();
    site.assign(&assignment).await;
    site.status(&node.id, |status| {
        status.applied == 2 && status.microservices.is_empty()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_gets_its_grace_for_the_last_call_even_where_other_calls_are_shorter() {
    let site = Site::start().await;
    let mut node = Node::enrol(&site, "one");
    withdraw(&site, &mut node, "2000", Millis(60_000)).await;
    site.line(&node.id, |line| line.text == "stopped").await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_takes_longer_than_its_grace_is_ended() {
    let site = Site::start().await;
    let mut node = Node::enrol(&site, "one");
    // Ten minutes: longer than this test waits for anything.
    withdraw(&site, &mut node, "600000", Millis(200)).await;
    site.line(&node.id, |line| line.text == "stopping").await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_instance_says_while_the_agent_ends_reaches_the_site() {
    let site = Site::start().await;
    let mut node = Node::enrol(&site, "one");
    let guest = node.install(&artifacts::read(artifacts::STOPPER), &site.publisher);
    let mut assignment = node.assignment(&site, 1);
    // The first line goes at once, and the last one would wait for others.
    let guest = microservice("it", guest, &[], &[]);
    assignment.microservices = vec![configured(guest, &[("stop_ms", "20")])];
    node.start();
    site.assign(&assignment).await;
    site.status(&node.id, |status| {
        of(status, "it").is_some_and(|one| one.state == State::Running)
    })
    .await;
    node.stop().await;
    site.line(&node.id, |line| line.text == "stopped").await;
}
