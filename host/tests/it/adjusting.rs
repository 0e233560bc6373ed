//! What a running instance makes of a change: a limit below what it has, values that it refuses.

use haar_conformance_artifacts as artifacts;
use haar_protocol::assignment::{Assignment, Microservice};
use haar_protocol::quantity::ByteSize;
use haar_protocol::status::{MicroserviceStatus, State, Status};

use crate::driver::Driver;
use crate::node::{Node, microservice, of, route};
use crate::site::Site;

/// A node that runs one guest as `it`, with a way in from a driver.
async fn one(guest: &str, change: impl Fn(&mut Microservice)) -> (Site, Node, Driver, Assignment) {
    let site = Site::start().await;
    let (mut node, other) = (Node::enrol(&site, "one"), Node::enrol(&site, "other"));
    let module = node.install(&artifacts::read(guest), &site.publisher);
    let mut it = microservice("it", module, &["out"], &["in"]);
    change(&mut it);
    let mut assignment = node.assignment(&site, 1);
    assignment.microservices = vec![it];
    assignment.routes = vec![route(other.port("driver", "out"), node.port("it", "in"))];
    assignment.peers = vec![other.peer()];
    node.start();
    site.assign(&assignment).await;
    let driver = Driver::connect(&site, &other).await;
    (site, node, driver, assignment)
}

async fn is(
    site: &Site,
    node: &Node,
    is_so: impl Fn(&MicroserviceStatus) -> bool,
) -> MicroserviceStatus {
    let status = site
        .status(&node.id, |status| of(status, "it").is_some_and(&is_so))
        .await;
    of(&status, "it").unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_with_more_memory_than_its_new_limit_is_restarted() {
    let change = |it: &mut Microservice| it.limits.memory = ByteSize(8 << 20);
    let (site, mut node, driver, mut assignment) = one(artifacts::MEMORY, change).await;
    driver
        .send(&node, assignment.routes[0].id, "try-grow")
        .await;
    is(&site, &node, |it| it.memory_bytes > 7 << 20).await;
    assignment.number = 2;
    assignment.microservices[0].limits.memory = ByteSize(3 << 20);
    site.assign(&assignment).await;
    let fits = |status: &Status| {
        let it = of(status, "it");
        let fits = |it: &MicroserviceStatus| {
            it.state == State::Running && (1..=3 << 20).contains(&it.memory_bytes)
        };
        status.applied == 2 && it.is_some_and(fits)
    };
    let status = site.status(&node.id, fits).await;
    // It was asked to, and has not failed.
    let it = of(&status, "it").unwrap();
    assert_eq!(
        (it.restarts, it.failures, it.exceeded.memory > 0),
        (0, 0, true)
    );

    // A lower limit that it fits is nothing to it: it keeps the memory that it has taken.
    driver
        .send(&node, assignment.routes[0].id, "try-grow")
        .await;
    let has = is(&site, &node, |it| it.memory_bytes > 2 << 20).await;
    for memory in [8 << 20, 3 << 20] {
        assignment.number += 1;
        assignment.microservices[0].limits.memory = ByteSize(memory);
        site.assign(&assignment).await;
        let number = assignment.number;
        site.status(&node.id, |status| status.applied == number)
            .await;
    }
    driver.send(&node, assignment.routes[0].id, "again").await;
    site.line(&node.id, |line| line.text == "handled again")
        .await;
    let it = is(&site, &node, |it| it.state == State::Running).await;
    assert_eq!(it.memory_bytes, has.memory_bytes);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_the_guest_refuses_is_reported_until_it_takes_another() {
    let (site, mut node, _driver, mut assignment) = one(artifacts::DRIVER, |_| ()).await;
    is(&site, &node, |it| it.state == State::Running).await;
    let configure = |assignment: &mut Assignment, quiet: &str| {
        assignment.number += 1;
        let values = [("quiet".to_owned(), quiet.to_owned())];
        assignment.microservices[0].configuration = values.into();
    };
    configure(&mut assignment, "maybe");
    site.assign(&assignment).await;
    let it = is(&site, &node, |it| it.refused_module.is_some()).await;
    assert_eq!((it.state, it.configuring), (State::Running, false));
    assert_eq!(it.refused_module, Some(it.module));
    let reason = it.reason.unwrap();
    assert!(
        reason.contains("`configuration-changed` returned an error"),
        "{reason}"
    );

    configure(&mut assignment, "true");
    site.assign(&assignment).await;
    let number = assignment.number;
    let taken = |status: &Status| {
        let it = of(status, "it");
        let taken = |it: &MicroserviceStatus| !it.configuring && it.refused_module.is_none();
        status.applied == number && it.is_some_and(taken)
    };
    let status = site.status(&node.id, taken).await;
    assert_eq!(of(&status, "it").unwrap().reason, None);
    node.stop().await;
}
