//! A publisher goes over to another key, and nothing that it has signed stops for it.

use std::time::Duration;

use haar_conformance_artifacts as artifacts;
use haar_protocol::assignment::Publisher;
use haar_protocol::keys::SecretKey;
use haar_protocol::module::{self, Signatures};
use haar_protocol::quantity::Millis;
use haar_protocol::status::{State, Status};

use crate::driver::Driver;
use crate::node::{Node, microservice, of, route};
use crate::site::Site;

#[tokio::test(flavor = "multi_thread")]
async fn a_module_that_is_signed_again_goes_on_without_its_first_publisher() {
    let site = Site::start().await;
    let mut node = Node::enrol(&site, "one");
    let component = artifacts::read(artifacts::ECHO);
    let echo = node.install(&component, &site.publisher);
    let new_key = SecretKey::from_seed([44; 32]);
    let resigned = module::sign(&component, &new_key).unwrap();
    let later = Signatures::of(&resigned).unwrap().to_text();
    let mut assignment = node.assignment(&site, 1);
    assignment.microservices = vec![microservice("echo", echo, &["out"], &["in"])];
    node.start();
    site.assign(&assignment).await;
    let runs = |applied: u64| {
        move |status: &Status| {
            status.applied == applied
                && of(status, "echo").is_some_and(|one| one.state == State::Running)
        }
    };
    let before = site.status(&node.id, runs(1)).await;
    let before = of(&before, "echo").unwrap();

    // Both keys; signed with both; the old key goes.
    assignment.publishers.push(Publisher {
        name: "team".parse().unwrap(),
        key: new_key.public(),
    });
    let digest = echo.0.to_string();
    let steps: [fn(&mut _, &str, &str); 3] = [
        |_: &mut haar_protocol::assignment::Assignment, _, _| {},
        |assignment, digest, later| {
            assignment.signatures.insert(digest.into(), later.into());
        },
        |assignment, _, _| {
            assignment.publishers.remove(0);
        },
    ];
    for step in steps {
        assignment.number += 1;
        step(&mut assignment, &digest, &later);
        site.assign(&assignment).await;
        let status = site.status(&node.id, runs(assignment.number)).await;
        let echo = of(&status, "echo").unwrap();
        assert_eq!(
            (echo.since_ms, echo.restarts),
            (before.since_ms, before.restarts),
            "it was stopped with assignment {}",
            assignment.number
        );
    }

    // Neither does it need the old key after a restart.
    node.stop().await;
    node.start();
    site.status(&node.id, runs(assignment.number)).await;

    // Without the later signatures nobody who is trusted has signed it.
    assignment.number += 1;
    assignment.signatures.clear();
    site.assign(&assignment).await;
    let refused =
        |status: &Status| of(status, "echo").is_some_and(|one| one.state == State::Refused);
    site.status(&node.id, refused).await;
    node.stop().await;
}

/// Its publisher is trusted no more, and the node can't look at its module: the files are gone, and so is
/// the controller.
#[tokio::test(flavor = "multi_thread")]
async fn a_module_that_can_not_be_verified_again_does_not_start_again() {
    let site = Site::start().await;
    let (mut node, other) = (Node::enrol(&site, "one"), Node::enrol(&site, "other"));
    let component = artifacts::read(artifacts::TRAP);
    let trap = node.install(&component, &site.publisher);
    let mut victim = microservice("victim", trap, &[], &["in"]);
    victim.restart.pauses = vec![Millis(1)];
    let mut assignment = node.assignment(&site, 1);
    assignment.microservices = vec![victim];
    assignment.routes = vec![route(
        other.port("driver", "out"),
        node.port("victim", "in"),
    )];
    assignment.peers = vec![other.peer()];
    node.start();
    site.assign(&assignment).await;
    let runs =
        |status: &Status| of(status, "victim").is_some_and(|one| one.state == State::Running);
    site.status(&node.id, runs).await;
    let driver = Driver::connect(&site, &other).await;

    for folder in ["modules", "compiled"] {
        let folder = node.data.path().join(folder);
        std::fs::remove_dir_all(&folder).unwrap();
        std::fs::create_dir(&folder).unwrap();
    }
    assignment.number = 2;
    assignment.publishers[0].key = SecretKey::from_seed([44; 32]).public();
    site.assign(&assignment).await;
    let is_looked_at = |status: &Status| {
        let victim = of(status, "victim");
        runs(status) && victim.is_some_and(|one| one.reason.is_some())
    };
    site.status(&node.id, is_looked_at).await;
    // Another revision of it does not make the node forget that.
    assignment.number = 3;
    assignment.microservices[0].configuration = [("round".to_owned(), "2".to_owned())].into();
    site.assign(&assignment).await;
    site.status(&node.id, |status| status.applied == 3).await;

    // It fails.
    let failed = |status: &Status| {
        of(status, "victim").is_some_and(|one| one.failures == 1 && !runs(status))
    };
    let id = node.id.clone();
    let failed = site.status(&id, failed);
    tokio::pin!(failed);
    loop {
        driver.send(&node, assignment.routes[0].id, "panic").await;
        let soon = tokio::time::timeout(Duration::from_secs(1), &mut failed).await;
        if soon.is_ok() {
            break;
        }
    }
    node.install(&component, &site.publisher);
    let refused =
        |status: &Status| of(status, "victim").is_some_and(|one| one.state == State::Refused);
    let status = site.status(&node.id, refused).await;
    assert_eq!(of(&status, "victim").unwrap().failures, 1);
    node.stop().await;
}

/// The same of one that hibernates: what comes for it waits until it is verified.
#[tokio::test(flavor = "multi_thread")]
async fn a_module_that_hibernates_and_can_not_be_verified_again_does_not_wake() {
    let site = Site::start().await;
    let (mut node, other) = (Node::enrol(&site, "one"), Node::enrol(&site, "other"));
    let component = artifacts::read(artifacts::QUIET);
    let quiet = node.install(&component, &site.publisher);
    let mut sleeper = microservice("sleeper", quiet, &[], &["in"]);
    sleeper.limits.hibernate_after = Some(Millis(50));
    let mut assignment = node.assignment(&site, 1);
    assignment.microservices = vec![sleeper];
    assignment.routes = vec![route(
        other.port("driver", "out"),
        node.port("sleeper", "in"),
    )];
    assignment.peers = vec![other.peer()];
    node.start();
    site.assign(&assignment).await;
    let is =
        |status: &Status, state: State| of(status, "sleeper").is_some_and(|one| one.state == state);
    let sleeps = |status: &Status| is(status, State::Hibernating);
    site.status(&node.id, sleeps).await;
    let driver = Driver::connect(&site, &other).await;

    for folder in ["modules", "compiled"] {
        let folder = node.data.path().join(folder);
        std::fs::remove_dir_all(&folder).unwrap();
        std::fs::create_dir(&folder).unwrap();
    }
    assignment.number = 2;
    let trusted = assignment.publishers[0].key;
    assignment.publishers[0].key = SecretKey::from_seed([44; 32]).public();
    site.assign(&assignment).await;
    let is_looked_at = |status: &Status| {
        let sleeper = of(status, "sleeper");
        sleeps(status) && sleeper.is_some_and(|one| one.reason.is_some())
    };
    let before = site.status(&node.id, is_looked_at).await;
    let calls = |status: &Status| of(status, "sleeper").unwrap().calls;

    {
        let waits = |status: &Status| is(status, State::Preparing);
        let waits = site.status(&node.id, waits);
        tokio::pin!(waits);
        let status = loop {
            driver.send(&node, assignment.routes[0].id, "hello").await;
            let soon = tokio::time::timeout(Duration::from_secs(1), &mut waits).await;
            if let Ok(status) = soon {
                break status;
            }
        };
        assert_eq!(calls(&status), calls(&before), "nothing of it has run");
    }

    node.install(&component, &site.publisher);
    assignment.number = 3;
    assignment.publishers[0].key = trusted;
    site.assign(&assignment).await;
    let handles = |status: &Status| calls(status) > calls(&before);
    site.status(&node.id, handles).await;
    node.stop().await;
}
