//! Requests and replies between microservices, over two routes.

use haar_conformance_artifacts as artifacts;

use crate::node::{Node, configured, microservice, name, route};
use crate::site::Site;

#[tokio::test(flavor = "multi_thread")]
async fn replies_come_to_the_request_and_the_requester_that_asked() {
    let site = Site::start().await;
    let mut node = Node::enrol(&site, "one");
    let requester = node.install(&artifacts::read(artifacts::REQUESTER), &site.publisher);
    let responder = node.install(&artifacts::read(artifacts::RESPONDER), &site.publisher);
    let requester = |name: &str, configuration| {
        let requester = microservice(name, requester, &["requests"], &["replies"]);
        configured(requester, configuration)
    };
    let mut assignment = node.assignment(&site, 1);
    assignment.microservices = vec![
        requester("first", &[("questions", "3")]),
        requester("second", &[("questions", "2")]),
        // Nobody hears it.
        requester("lonely", &[("questions", "1"), ("timeout_ms", "1")]),
        microservice("responder", responder, &["replies"], &["requests"]),
    ];
    for one in ["first", "second"] {
        assignment.routes.extend([
            route(
                node.port(one, "requests"),
                node.port("responder", "requests"),
            ),
            route(node.port("responder", "replies"), node.port(one, "replies")),
        ]);
    }
    node.start();
    site.assign(&assignment).await;
    for (who, says) in [
        ("first", "1: 1"),
        ("first", "2: 4"),
        ("first", "3: 9"),
        ("first", "not ours"),
        ("second", "1: 1"),
        ("second", "2: 4"),
        ("second", "not ours"),
        ("lonely", "1: no reply"),
    ] {
        site.line(&node.id, |line| line.name == name(who) && line.text == says)
            .await;
    }
    node.stop().await;
}
