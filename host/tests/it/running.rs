//! An assignment comes into force and changes, on one node.

use haar_conformance_artifacts as artifacts;
use haar_protocol::status::State;

use crate::node::{Node, configured, microservice, of, route};
use crate::site::Site;

fn is(status: &haar_protocol::status::Status, microservice: &str, state: State) -> bool {
    of(status, microservice).is_some_and(|one| one.state == state)
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_flow_from_outlet_to_inlet_on_one_node() {
    let site = Site::start().await;
    let mut node = Node::enrol(&site, "one");
    let source = node.install(&artifacts::read(artifacts::SOURCE), &site.publisher);
    let echo = node.install(&artifacts::read(artifacts::ECHO), &site.publisher);
    let sink = node.install(&artifacts::read(artifacts::SINK), &site.publisher);
    let mut assignment = node.assignment(&site, 1);
    assignment.microservices = vec![
        configured(
            microservice("source", source, &["out"], &[]),
            &[("period_ms", "10"), ("total", "100")],
        ),
        microservice("echo", echo, &["out"], &["in"]),
        configured(
            microservice("sink", sink, &[], &["in"]),
            &[("report_ms", "100")],
        ),
    ];
    assignment.routes = vec![
        route(node.port("source", "out"), node.port("echo", "in")),
        route(node.port("echo", "out"), node.port("sink", "in")),
    ];
    node.start();
    site.assign(&assignment).await;
    let all = site
        .line(&node.id, |line| line.text.starts_with("messages=100 "))
        .await;
    assert!(all.text.contains("missing=0 disordered=0"), "{}", all.text);
    let handled = |status: &haar_protocol::status::Status| {
        status
            .routes
            .iter()
            .all(|route| route.sent == 100 && route.handled == 100 && route.dropped == 0)
    };
    let status = site.status(&node.id, handled).await;
    assert_eq!(status.applied, 1);
    assert_eq!(status.routes.len(), 2);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_configuration_reaches_the_instance_without_a_restart() {
    let site = Site::start().await;
    let mut node = Node::enrol(&site, "one");
    let config = node.install(&artifacts::read(artifacts::CONFIG), &site.publisher);
    let stdio = node.install(&artifacts::read(artifacts::SINK), &site.publisher);
    let mut assignment = node.assignment(&site, 1);
    assignment.microservices = vec![
        configured(
            microservice("config", config, &["out"], &[]),
            &[("colour", "blue")],
        ),
        configured(
            microservice("sink", stdio, &[], &["in"]),
            &[("report_ms", "100")],
        ),
    ];
    assignment.routes = vec![route(node.port("config", "out"), node.port("sink", "in"))];
    node.start();
    site.assign(&assignment).await;
    let before = site
        .status(&node.id, |status| is(status, "config", State::Running))
        .await;
    assignment.number = 2;
    assignment.microservices[0]
        .configuration
        .insert("colour".into(), "green".into());
    site.assign(&assignment).await;
    site.line(&node.id, |line| line.text.starts_with("messages=2 "))
        .await;
    let after = site.status(&node.id, |status| status.applied == 2).await;
    let (before, after) = (
        of(&before, "config").unwrap(),
        of(&after, "config").unwrap(),
    );
    assert_eq!(before.since_ms, after.since_ms);
    assert_eq!(after.restarts, 0);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_module_takes_the_place_of_the_old_one_and_a_withdrawn_microservice_goes() {
    let site = Site::start().await;
    let mut node = Node::enrol(&site, "one");
    let source = node.install(&artifacts::read(artifacts::SOURCE), &site.publisher);
    let echo = node.install(&artifacts::read(artifacts::ECHO), &site.publisher);
    let sink = node.install(&artifacts::read(artifacts::SINK), &site.publisher);
    let mut assignment = node.assignment(&site, 1);
    assignment.microservices = vec![
        microservice("b", echo, &["out"], &["in"]),
        microservice("a", source, &["out"], &[]),
    ];
    node.start();
    site.assign(&assignment).await;
    let both = |status: &haar_protocol::status::Status| {
        is(status, "a", State::Running) && is(status, "b", State::Running)
    };
    site.status(&node.id, both).await;
    assignment.number = 2;
    assignment.microservices = vec![microservice("b", sink, &["out"], &["in"])];
    site.assign(&assignment).await;
    let status = site
        .status(&node.id, |status| {
            status.microservices.len() == 1
                && of(status, "b")
                    .is_some_and(|one| one.state == State::Running && one.module == sink.0)
        })
        .await;
    assert_eq!(of(&status, "b").unwrap().restarts, 0);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_stops_in_order_says_so_in_its_last_status() {
    let site = Site::start().await;
    let mut node = Node::enrol(&site, "one");
    let sink = node.install(&artifacts::read(artifacts::SINK), &site.publisher);
    let mut assignment = node.assignment(&site, 1);
    assignment.microservices = vec![microservice("sink", sink, &[], &["in"])];
    node.start();
    site.assign(&assignment).await;
    site.status(&node.id, |status| is(status, "sink", State::Running))
        .await;
    node.stop().await;
    site.status(&node.id, |status| status.microservices.is_empty())
        .await;
}
