//! An assignment comes into force and changes, on one node.

use haar_conformance_artifacts as artifacts;
use haar_protocol::assignment::Publisher;
use haar_protocol::keys::SecretKey;
use haar_protocol::status::{State, Status};

use crate::driver::Driver;
use crate::node::{Node, configured, microservice, of, route};
use crate::site::Site;

fn is(status: &Status, microservice: &str, state: State) -> bool {
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
    let handled = |status: &Status| {
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
    let both = |status: &Status| is(status, "a", State::Running) && is(status, "b", State::Running);
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

#[tokio::test(flavor = "multi_thread")]
async fn a_new_module_goes_on_with_the_messages_that_waited_for_the_old_one() {
    const MESSAGES: u64 = 40;
    let site = Site::start().await;
    let (mut node, other) = (Node::enrol(&site, "one"), Node::enrol(&site, "other"));
    let sleeper = node.install(&artifacts::read(artifacts::SLEEPER), &site.publisher);
    let echo = node.install(&artifacts::read(artifacts::ECHO), &site.publisher);
    let sink = node.install(&artifacts::read(artifacts::SINK), &site.publisher);
    let incoming = route(other.port("driver", "out"), node.port("it", "in"));
    let mut assignment = node.assignment(&site, 1);
    assignment.microservices = vec![
        microservice("it", sleeper, &["out"], &["in"]),
        configured(
            microservice("sink", sink, &[], &["in"]),
            &[("report_ms", "100")],
        ),
    ];
    assignment.routes = vec![
        incoming.clone(),
        route(node.port("it", "out"), node.port("sink", "in")),
    ];
    assignment.peers = vec![other.peer()];
    node.start();
    site.assign(&assignment).await;
    site.status(&node.id, |status| is(status, "it", State::Running))
        .await;
    let driver = Driver::connect(&site, &other).await;
    for _ in 0..MESSAGES {
        driver.send(&node, incoming.id, "100").await;
    }
    // The old module sleeps for each message and then says `slept`; the new one says the message.
    let handled_some =
        |text: &str| text.starts_with("messages=") && !text.starts_with("messages=0 ");
    site.line(&node.id, |line| handled_some(&line.text)).await;
    assignment.number = 2;
    assignment.microservices[0].module = echo.0;
    assignment.microservices[0].module_bytes = echo.1;
    site.assign(&assignment).await;

    let all = format!("messages={MESSAGES} ");
    let line = site
        .line(&node.id, |line| line.text.starts_with(&all))
        .await;
    let bytes = line
        .text
        .split(' ')
        .find_map(|word| word.strip_prefix("bytes="));
    let bytes: u64 = bytes.unwrap().parse().unwrap();
    assert!(
        bytes < MESSAGES * 5,
        "the old module handled everything first: {}",
        line.text
    );
    assert!(line.text.contains("missing=0 "), "{}", line.text);
    let status = site
        .status(&node.id, |status| {
            status.routes.iter().all(|route| route.handled == MESSAGES)
        })
        .await;
    assert!(status.routes.iter().all(|route| route.dropped == 0));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_that_is_no_longer_trusted_has_its_microservices_stopped() {
    let site = Site::start().await;
    let mut node = Node::enrol(&site, "one");
    let sink = node.install(&artifacts::read(artifacts::SINK), &site.publisher);
    let foreign = SecretKey::from_seed([44; 32]);
    let echo = node.install(&artifacts::read(artifacts::ECHO), &foreign);
    let mut assignment = node.assignment(&site, 1);
    assignment.publishers.push(Publisher {
        name: "others".parse().unwrap(),
        key: foreign.public(),
    });
    assignment.microservices = vec![
        microservice("ours", sink, &[], &["in"]),
        microservice("theirs", echo, &["out"], &["in"]),
    ];
    node.start();
    site.assign(&assignment).await;
    let both = |status: &Status| {
        is(status, "ours", State::Running) && is(status, "theirs", State::Running)
    };
    let before = site.status(&node.id, both).await;

    assignment.number = 2;
    let distrusted = assignment.publishers.pop().unwrap();
    site.assign(&assignment).await;
    let status = site
        .status(&node.id, |status| is(status, "theirs", State::Refused))
        .await;
    let reason = of(&status, "theirs").unwrap().reason.clone().unwrap();
    assert!(reason.contains("no trusted publisher"), "{reason}");
    let since = |status: &Status| of(status, "ours").unwrap().since_ms;
    assert_eq!(since(&status), since(&before), "ours was touched");

    assignment.number = 3;
    assignment.publishers.push(distrusted);
    site.assign(&assignment).await;
    site.status(&node.id, both).await;
    node.stop().await;
}
