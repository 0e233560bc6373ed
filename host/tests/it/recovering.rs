//! What happens after a failure: the report, the next start, the message.

use haar_conformance_artifacts as artifacts;
use haar_protocol::assignment::Microservice;
use haar_protocol::ids::NodeId;
use haar_protocol::quantity::{Millis, Percent};
use haar_protocol::status::{FailureCause, State, Status};

use crate::driver::Driver;
use crate::node::{Node, microservice, of, route};
use crate::site::Site;

/// A node that runs one microservice called `victim`, with a way in from a driver.
struct Scene {
    site: Site,
    node: Node,
    driver: Driver,
    route: haar_protocol::ids::RouteId,
}

impl Scene {
    async fn start(guest: &str, change: impl Fn(&mut Microservice)) -> Self {
        let site = Site::start().await;
        let (mut node, other) = (Node::enrol(&site, "one"), Node::enrol(&site, "other"));
        let module = node.install(&artifacts::read(guest), &site.publisher);
        let mut victim = microservice("victim", module, &[], &["in"]);
        change(&mut victim);
        let mut assignment = node.assignment(&site, 1);
        assignment.microservices = vec![victim];
        let poison = route(other.port("driver", "out"), node.port("victim", "in"));
        assignment.routes = vec![poison.clone()];
        assignment.peers = vec![other.peer()];
        node.start();
        site.assign(&assignment).await;
        site.status(&node.id, runs).await;
        let driver = Driver::connect(&site, &other).await;
        Self {
            site,
            node,
            driver,
            route: poison.id,
        }
    }

    async fn send(&self, body: &str) {
        self.driver.send(&self.node, self.route, body).await;
    }

    fn id(&self) -> &NodeId {
        &self.node.id
    }
}

fn runs(status: &Status) -> bool {
    of(status, "victim").is_some_and(|one| one.state == State::Running)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_kills_is_tried_again_and_then_put_aside_and_the_next_one_is_handled() {
    let mut scene = Scene::start(artifacts::TRAP, |victim| {
        victim.restart.pauses = vec![Millis(0)];
        victim.retry.attempts = 3;
    })
    .await;
    scene.send("panic").await;
    scene.send("hello").await;
    let line = scene
        .site
        .line(scene.id(), |line| line.text == "handled hello");
    line.await;
    let put_aside = |line: &haar_protocol::log::LogLine| {
        line.text.contains("a dead letter after 3 attempts") && line.text.contains("panicked")
    };
    scene.site.line(scene.id(), put_aside).await;
    let kept = |status: &Status| of(status, "victim").is_some_and(|one| one.dead_letters == 1);
    scene.site.status(scene.id(), kept).await;
    let after = |status: &Status| of(status, "victim").is_some_and(|one| one.restarts == 3);
    let status = scene.site.status(scene.id(), after).await;
    assert_eq!(of(&status, "victim").unwrap().failures, 3);
    scene.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_reported_with_cause_and_function_and_line() {
    let guest = artifacts::TRAP_WITH_DEBUG_INFORMATION;
    let mut scene = Scene::start(guest, |victim| victim.retry.attempts = 1).await;
    scene.send("trap").await;
    let failed =
        |status: &Status| of(status, "victim").is_some_and(|one| one.last_failure.is_some());
    let status = scene.site.status(scene.id(), failed).await;
    let report = of(&status, "victim").unwrap().last_failure.clone().unwrap();
    assert_eq!(report.cause, FailureCause::Unreachable);
    let frames = report.backtrace.join("\n");
    assert!(
        frames.contains("trap") && frames.contains("examples/trap.rs:"),
        "{report:#?}"
    );
    scene.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_with_a_share_of_the_processor_gets_no_more() {
    let mut scene = Scene::start(artifacts::SPIN, |victim| {
        victim.limits.cpu = Some(Percent(10));
        victim.limits.fuel_per_call = 1_000_000_000_000;
        victim.limits.call_timeout = Millis(600_000);
    })
    .await;
    scene.send("spin").await;
    let used = |status: &Status| of(status, "victim").map_or(0, |one| one.cpu_ms);
    let first = scene
        .site
        .status(scene.id(), |status| used(status) > 20)
        .await;
    let later = |status: &Status| used(status) > used(&first) + 100;
    let second = scene.site.status(scene.id(), later).await;
    let percent = (used(&second) - used(&first)) * 100 / (second.sent_ms - first.sent_ms);
    assert!(percent <= 20, "{percent} %");
    assert!(of(&second, "victim").unwrap().exceeded.cpu > 0);
    scene.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn discarded_messages_are_counted_and_a_restart_counts_from_its_own_beginning() {
    let mut scene = Scene::start(artifacts::REJECT, |_| ()).await;
    for _ in 0..3 {
        scene.send("discard").await;
    }
    let discarded = |count: u64| {
        move |status: &Status| of(status, "victim").is_some_and(|one| one.discarded == count)
    };
    let status = scene.site.status(scene.id(), discarded(3)).await;
    assert_eq!(of(&status, "victim").unwrap().failures, 3);
    let route = &status.routes[0];
    assert_eq!((route.delivered, route.handled, route.dropped), (3, 0, 3));
    let before = status.start.unwrap();
    scene.node.stop().await;
    scene.node.start();
    let restarted = |status: &Status| {
        status.start.as_ref().is_some_and(|start| *start != before) && runs(status)
    };
    let status = scene.site.status(scene.id(), restarted).await;
    assert!(discarded(0)(&status));
    let uptime_ms = status.uptime_ms.unwrap();
    assert!(
        uptime_ms <= status.sent_ms - status.started_ms + 100,
        "{uptime_ms}"
    );
    scene.node.stop().await;
}
