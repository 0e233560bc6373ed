//! A publisher goes over to another key, and nothing that it has signed stops for it.

use haar_conformance_artifacts as artifacts;
use haar_protocol::assignment::Publisher;
use haar_protocol::keys::SecretKey;
use haar_protocol::module::{self, Signatures};
use haar_protocol::status::{State, Status};

use crate::node::{Node, microservice, of};
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
