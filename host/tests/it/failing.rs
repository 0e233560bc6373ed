//! A guest that fails hurts only itself, says why, and starts again.

use haar_conformance_artifacts as artifacts;
use haar_protocol::limits::Limits;
use haar_protocol::log::Stream;
use haar_protocol::quantity::{ByteSize, Millis};
use haar_protocol::status::{State, Status};

use crate::driver::Driver;
use crate::node::{Node, configured, microservice, of, route};
use crate::site::Site;

/// Sends one message to a guest beside a healthy one, and returns what the agent logs of its end.
async fn failure(guest: &str, body: &str, limit: impl Fn(&mut Limits)) -> String {
    let site = Site::start().await;
    let (mut node, other) = (Node::enrol(&site, "one"), Node::enrol(&site, "other"));
    let bad = node.install(&artifacts::read(guest), &site.publisher);
    let source = node.install(&artifacts::read(artifacts::SOURCE), &site.publisher);
    let sink = node.install(&artifacts::read(artifacts::SINK), &site.publisher);
    let mut victim = microservice("victim", bad, &["out"], &["in"]);
    limit(&mut victim.limits);
    victim.retry.attempts = 1;
    let mut assignment = node.assignment(&site, 1);
    assignment.microservices = vec![
        victim,
        configured(
            microservice("source", source, &["out"], &[]),
            &[("period_ms", "10")],
        ),
        microservice("sink", sink, &[], &["in"]),
    ];
    let poison = route(other.port("driver", "out"), node.port("victim", "in"));
    assignment.routes = vec![
        route(node.port("source", "out"), node.port("sink", "in")),
        poison.clone(),
    ];
    assignment.peers = vec![other.peer()];
    node.start();
    site.assign(&assignment).await;
    let runs =
        |status: &Status| of(status, "victim").is_some_and(|one| one.state == State::Running);
    site.status(&node.id, runs).await;
    let driver = Driver::connect(&site, &other).await;
    driver.send(&node, poison.id, body).await;

    // It is started again at once.
    let again =
        |status: &Status| runs(status) && of(status, "victim").is_some_and(|one| one.restarts == 1);
    let status = site.status(&node.id, again).await;
    assert_eq!(of(&status, "victim").unwrap().failures, 1);
    // The neighbour goes on, and the agent with it.
    let handled = |status: &Status| status.routes.iter().map(|route| route.handled).sum::<u64>();
    let before = handled(&status);
    site.status(&node.id, |status| handled(status) > before + 10)
        .await;
    let line = site
        .line(&node.id, |line| {
            line.stream == Stream::Agent && !line.text.contains("dead letter")
        })
        .await;
    node.stop().await;
    line.text
}

fn as_usual(_: &mut Limits) {}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_spins_runs_out_of_fuel() {
    let text = failure(artifacts::SPIN, "spin", |limits| {
        limits.fuel_per_call = 50_000_000
    })
    .await;
    assert!(text.starts_with("victim@0.1.0: out of fuel"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_spins_with_fuel_to_spare_runs_out_of_time() {
    let limit = |limits: &mut Limits| {
        limits.fuel_per_call = 1_000_000_000_000;
        limits.call_timeout = Millis(300);
    };
    let text = failure(artifacts::SPIN, "spin", limit).await;
    assert!(text.starts_with("victim@0.1.0: took too long"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_waits_in_a_host_function_runs_out_of_time() {
    let limit = |limits: &mut Limits| limits.call_timeout = Millis(300);
    let text = failure(artifacts::SLEEPER, "600000", limit).await;
    assert!(text.starts_with("victim@0.1.0: took too long"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_eats_memory_is_stopped_at_its_limit() {
    let limit = |limits: &mut Limits| limits.memory = ByteSize(4 << 20);
    let text = failure(artifacts::MEMORY, "grow", limit).await;
    assert!(text.starts_with("victim@0.1.0: out of memory"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_panics_says_so() {
    let text = failure(artifacts::TRAP, "panic", as_usual).await;
    let expected = "victim@0.1.0: panicked: thread '";
    assert!(text.starts_with(expected), "{text}");
    assert!(text.contains("trap.rs:"), "{text}");
    assert!(text.contains(": the message asks for a panic ("), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_recurses_without_end_overflows_its_own_stack_only() {
    let text = failure(artifacts::TRAP, "recurse", as_usual).await;
    assert!(
        text.contains("stack overflow") || text.contains("recursed too deep"),
        "{text}"
    );
}

/// A node with a microservice that has failed and waits an hour for its next start.
async fn backing_off(site: &Site) -> (Node, haar_protocol::assignment::Assignment) {
    let mut node = Node::enrol(site, "one");
    let trap = node.install(&artifacts::read(artifacts::TRAP), &site.publisher);
    let mut victim = microservice("victim", trap, &[], &["in"]);
    victim.configuration = [("start".to_owned(), "panic".to_owned())].into();
    victim.restart.pauses = vec![Millis(3_600_000)];
    let mut assignment = node.assignment(site, 1);
    assignment.microservices = vec![victim];
    node.start();
    site.assign(&assignment).await;
    let waits =
        |status: &Status| of(status, "victim").is_some_and(|one| one.state == State::BackOff);
    let status = site.status(&node.id, waits).await;
    let reason = of(&status, "victim").unwrap().reason.clone().unwrap();
    assert!(
        reason.starts_with("victim@0.1.0: panicked: thread '")
            && reason.contains("the configuration asks for a panic at the start"),
        "{reason}"
    );
    assignment.number = 2;
    (node, assignment)
}

#[tokio::test(flavor = "multi_thread")]
async fn another_module_starts_at_once_whatever_the_one_before_waited_for() {
    let site = Site::start().await;
    let (mut node, mut assignment) = backing_off(&site).await;
    let sink = node.install(&artifacts::read(artifacts::SINK), &site.publisher);
    let victim = &mut assignment.microservices[0];
    (victim.module, victim.module_bytes) = sink;
    site.assign(&assignment).await;
    let runs =
        |status: &Status| of(status, "victim").is_some_and(|one| one.state == State::Running);
    let status = site.status(&node.id, runs).await;
    let one = of(&status, "victim").unwrap();
    assert_eq!((one.module, one.reason.as_deref()), (sink.0, None));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_revision_of_what_failed_starts_at_once_and_an_equal_one_does_not() {
    let site = Site::start().await;
    let (mut node, mut assignment) = backing_off(&site).await;
    // Nothing that concerns it has changed: it goes on waiting.
    site.assign(&assignment).await;
    let status = site.status(&node.id, |status| status.applied == 2).await;
    let one = of(&status, "victim").unwrap();
    assert_eq!((one.state, one.restarts), (State::BackOff, 0));
    assignment.number = 3;
    assignment.microservices[0].configuration.clear();
    site.assign(&assignment).await;
    let runs =
        |status: &Status| of(status, "victim").is_some_and(|one| one.state == State::Running);
    site.status(&node.id, runs).await;
    node.stop().await;
}
