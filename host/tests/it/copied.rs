//! Two agents with one identity: the directory of a node was copied, and both run.

use std::time::Duration;

use haar_conformance_artifacts as artifacts;
use haar_protocol::manifest::Delivery;
use haar_protocol::relay::NodeCredentials;
use haar_protocol::status::Status;
use haar_relay::{
    Credentials, Endpoint, Identity, Session, SessionEvent, SessionOptions, TakeoverPauses,
};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::mosquitto::Mosquitto;
use crate::node::{Node, configured, microservice, route};
use crate::site::{DEADLINE, Site};

/// What each start of the source publishes, over some seconds.
const MESSAGES: u64 = 60;

async fn arrived(site: &Site, sink: &Node, messages: u64) {
    let begin = format!("messages={messages} ");
    site.line(&sink.id, |line| line.text.starts_with(&begin))
        .await;
}

/// A copy of a node's directory, for another agent with its identity.
fn copy(of: &Node) -> Node {
    let copy = of.twin();
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .arg(of.data.path().join("."))
        .arg(copy.data.path())
        .status()
        .unwrap();
    assert!(copied.success());
    copy
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_two_agents_with_one_identity_have_stored_arrives_once_and_either_goes_on() {
    let site = Site::start().await;
    let (mut left, mut right) = (Node::enrol(&site, "left"), Node::enrol(&site, "right"));
    let source = left.install(&artifacts::read(artifacts::SOURCE), &site.publisher);
    let sink = right.install(&artifacts::read(artifacts::SINK), &site.publisher);
    let mut crossing = route(left.port("source", "out"), right.port("sink", "in"));
    crossing.delivery = Delivery::Durable;
    let mut to_right = right.assignment(&site, 1);
    to_right.microservices = vec![configured(
        microservice("sink", sink, &[], &["in"]),
        &[("report_ms", "50")],
    )];
    to_right.routes = vec![crossing.clone()];
    to_right.peers = vec![left.peer()];
    let mut to_left = left.assignment(&site, 1);
    let total = MESSAGES.to_string();
    to_left.microservices = vec![configured(
        microservice("source", source, &["out"], &[]),
        &[("period_ms", "50"), ("total", total.as_str())],
    )];
    to_left.routes = vec![crossing];
    to_left.peers = vec![right.peer()];
    right.start();
    site.assign(&to_right).await;
    left.start();
    site.assign(&to_left).await;
    arrived(&site, &right, MESSAGES).await;
    left.stop().await;

    // Each of the two publishes under the same sequences, and interrupts the other.
    let mut copy = copy(&left);
    left.start();
    let publishes = |status: &Status| status.routes.iter().any(|route| route.sent > 0);
    let status = site.status(&left.id, publishes).await;
    let own = status.start.unwrap().id;
    copy.start();
    arrived(&site, &right, 3 * MESSAGES).await;

    // Either stops, and the other goes on by itself.
    left.stop().await;
    let is_other = |status: &Status| status.start.as_ref().is_some_and(|start| start.id != own);
    site.status(&left.id, is_other).await;
    copy.stop().await;
    left.start();
    arrived(&site, &right, 4 * MESSAGES).await;
    left.stop().await;
    right.stop().await;
}

/// A session with a broker of somebody else, under one client id.
fn session(
    broker: &Mosquitto,
    stop: &CancellationToken,
    tasks: &mut JoinSet<()>,
) -> mpsc::Receiver<SessionEvent> {
    let url = broker.access(NodeCredentials::Anonymous).url.unwrap();
    let options = SessionOptions {
        endpoint: Endpoint::new(&url, None).unwrap(),
        identity: Identity {
            client_id: "gateway".to_owned(),
            credentials: Credentials::Anonymous,
        },
        will: None,
        subscriptions: vec!["in/#".to_owned()],
        queue_messages: 1,
    };
    let pauses = TakeoverPauses {
        first: Duration::from_millis(100),
        max: Duration::from_millis(400),
        ..TakeoverPauses::default()
    };
    let (events, received) = mpsc::channel(64);
    let (_, task) = Session::start_with(options, pauses, events, stop.clone());
    tasks.spawn(task);
    received
}

async fn next(events: &mut mpsc::Receiver<SessionEvent>) -> SessionEvent {
    let event = tokio::time::timeout(DEADLINE, events.recv()).await;
    event.unwrap().unwrap()
}

#[tokio::test]
async fn at_mosquitto_the_one_that_is_not_served_hears_why_and_goes_on_when_the_other_stops() {
    let broker = Mosquitto::start().await;
    let mut tasks = JoinSet::new();
    let (stop, stop_copy) = (CancellationToken::new(), CancellationToken::new());
    let mut events = session(&broker, &stop, &mut tasks);
    assert_eq!(next(&mut events).await, SessionEvent::Connected);
    let mut of_copy = session(&broker, &stop_copy, &mut tasks);
    assert_eq!(next(&mut of_copy).await, SessionEvent::Connected);
    let SessionEvent::Disconnected { reason } = next(&mut events).await else {
        panic!("it was not interrupted");
    };
    assert!(reason.is_takeover(), "{reason}");
    stop_copy.cancel();
    while next(&mut events).await != SessionEvent::Connected {}
    stop.cancel();
    let ended = tokio::time::timeout(DEADLINE, tasks.join_all()).await;
    assert!(ended.is_ok(), "the sessions do not end");
}
