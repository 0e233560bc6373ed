//! The level of a microservice's log, changed while it runs.

use haar_conformance_artifacts as artifacts;
use haar_protocol::log::Level;
use haar_protocol::status::State;

use crate::node::{Node, microservice, of};
use crate::site::Site;

#[tokio::test(flavor = "multi_thread")]
async fn lines_below_the_level_are_not_taken_and_the_level_changes_without_a_restart() {
    let site = Site::start().await;
    let mut node = Node::enrol(&site, "one");
    let guest = node.install(&artifacts::read(artifacts::LEVELS), &site.publisher);
    let mut guest = microservice("it", guest, &[], &[]);
    guest.log_level = Level::Warn;
    let mut assignment = node.assignment(&site, 1);
    assignment.microservices = vec![guest];
    node.start();
    site.assign(&assignment).await;
    // Lines are numbered from 1: before it came `warn`, `error` and `critical`, and no other.
    let first = site.line(&node.id, |line| line.text == "stderr").await;
    assert_eq!((first.sequence, first.level), (4, Level::Warn));
    let running = site
        .status(&node.id, |status| {
            of(status, "it").is_some_and(|one| one.state == State::Running)
        })
        .await;

    assignment.number = 2;
    assignment.microservices[0].log_level = Level::Trace;
    site.assign(&assignment).await;
    let trace = site.line(&node.id, |line| line.text == "trace").await;
    for (text, level) in [("debug", Level::Debug), ("stdout", Level::Info)] {
        let line = site.line(&node.id, |line| line.text == text).await;
        assert_eq!(line.level, level);
        assert!(line.sequence > trace.sequence);
    }
    let after = site.status(&node.id, |status| status.applied == 2).await;
    let (before, after) = (of(&running, "it").unwrap(), of(&after, "it").unwrap());
    assert_eq!((before.since_ms, after.restarts), (after.since_ms, 0));
    assert_eq!(after.log_lines_dropped, 0);
    node.stop().await;
}
