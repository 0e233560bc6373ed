//! Microservices that are dropped while they have nothing to do.

use std::time::Duration;

use haar_conformance_artifacts as artifacts;
use haar_host::policy::Rules;
use haar_protocol::assignment::{Assignment, Microservice, Route};
use haar_protocol::grants::{Access, DirectoryGrant};
use haar_protocol::manifest::Delivery;
use haar_protocol::quantity::Millis;
use haar_protocol::status::{MicroserviceStatus, State};

use crate::driver::Driver;
use crate::node::{Node, configured, microservice, of, route};
use crate::site::Site;

/// Shorter than a manifest may say.
const SOON: Option<Millis> = Some(Millis(50));

/// A node with one microservice.
struct Stage {
    site: Site,
    node: Node,
    assignment: Assignment,
}

impl Stage {
    fn new(site: Site, node: Node, mut spec: Microservice) -> Self {
        spec.limits.hibernate_after = SOON;
        let mut assignment = node.assignment(&site, 1);
        assignment.microservices = vec![spec];
        Self {
            site,
            node,
            assignment,
        }
    }

    async fn assign(&mut self) {
        self.site.assign(&self.assignment).await;
        self.assignment.number += 1;
    }

    /// Waits until the microservice is as it should be.
    async fn is(&self, is_so: impl Fn(&MicroserviceStatus) -> bool) -> MicroserviceStatus {
        let is_so = |one: Option<&MicroserviceStatus>| one.is_some_and(&is_so);
        let status = self
            .site
            .status(&self.node.id, |status| is_so(of(status, "it")));
        of(&status.await, "it").unwrap().clone()
    }

    async fn hibernates(&self, times: u64) -> MicroserviceStatus {
        self.is(|one| one.state == State::Hibernating && one.hibernations >= times)
            .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_instance_is_stopped_and_gives_its_memory_back_until_a_message_comes() {
    let site = Site::start().await;
    let (node, other) = (Node::enrol(&site, "one"), Node::enrol(&site, "other"));
    let module = node.install(&artifacts::read(artifacts::KEPT_TIMERS), &site.publisher);
    let commands = route(other.port("driver", "out"), node.port("it", "in"));
    let mut stage = Stage::new(site, node, microservice("it", module, &[], &["in"]));
    stage.assignment.routes = vec![commands.clone()];
    stage.assignment.peers = vec![other.peer()];
    stage.node.start();
    stage.assign().await;
    let asleep = stage.hibernates(1).await;
    assert_eq!((asleep.memory_bytes, asleep.restarts), (0, 0));
    let driver = Driver::connect(&stage.site, &other).await;
    driver.send(&stage.node, commands.id, "cancel none").await;
    let answer = |line: &haar_protocol::log::LogLine| line.text == "cancel none: false";
    stage.site.line(&stage.node.id, answer).await;
    let asleep = stage.hibernates(2).await;
    // Twice `start` and `stop`, and once `handle`.
    assert_eq!(asleep.calls, 5);
    stage.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn looks_at_granted_directories_keep_no_instance_awake() {
    let (site, folder) = (Site::start().await, tempfile::tempdir().unwrap());
    let mut node = Node::enrol(&site, "one");
    // Far more often than it would have to be idle.
    node.look_pause = Duration::from_millis(5);
    node.rules = Rules::default().allowing(folder.path(), Access::ReadOnly);
    let module = node.install(&artifacts::read(artifacts::QUIET), &site.publisher);
    let mut it = microservice("it", module, &[], &["in"]);
    it.grants.directories = vec![DirectoryGrant {
        host: folder.path().to_str().unwrap().into(),
        guest: "/granted".into(),
        access: Access::ReadOnly,
        quota: None,
        optional: false,
        mount: Default::default(),
    }];
    let mut stage = Stage::new(site, node, it);
    stage.node.start();
    stage.assign().await;
    stage.hibernates(1).await;
    stage.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_durable_routes_wake_the_instance_too() {
    let site = Site::start().await;
    let node = Node::enrol(&site, "one");
    let quiet = node.install(&artifacts::read(artifacts::QUIET), &site.publisher);
    let source = node.install(&artifacts::read(artifacts::SOURCE), &site.publisher);
    let durable = Route {
        delivery: Delivery::Durable,
        ..route(node.port("source", "out"), node.port("it", "in"))
    };
    let mut stage = Stage::new(site, node, microservice("it", quiet, &[], &["in"]));
    // Long after the other has fallen asleep.
    let source = microservice("source", source, &["out"], &[]);
    let source = configured(source, &[("period_ms", "400")]);
    stage.assignment.microservices.push(source);
    stage.assignment.routes = vec![durable];
    stage.node.start();
    stage.assign().await;
    let asleep = stage.hibernates(3).await;
    // Each time `start`, `stop`, and `handle` at least once but for the first time.
    assert!(asleep.calls >= 8, "{} calls", asleep.calls);
    assert_eq!((asleep.restarts, asleep.failures), (0, 0));
    stage.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn timers_that_are_not_kept_wake_the_instance_and_go_on_in_their_rhythm() {
    let site = Site::start().await;
    let node = Node::enrol(&site, "one");
    let module = node.install(&artifacts::read(artifacts::SOURCE), &site.publisher);
    let spec = configured(
        microservice("it", module, &["out"], &[]),
        &[("period_ms", "400")],
    );
    let mut stage = Stage::new(site, node, spec);
    stage.node.start();
    stage.assign().await;
    let asleep = stage.hibernates(3).await;
    // With each hibernation a `start` and a `stop`, and a tick before each but the first.
    assert!(asleep.calls >= 3 * asleep.hibernations - 1, "{asleep:?}");
    stage.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_configuration_wakes_the_instance_and_other_limits_do_not() {
    let site = Site::start().await;
    let node = Node::enrol(&site, "one");
    let module = node.install(&artifacts::read(artifacts::STOPPER), &site.publisher);
    let mut stage = Stage::new(site, node, microservice("it", module, &[], &[]));
    stage.node.start();
    stage.assign().await;
    stage.hibernates(1).await;
    stage.assignment.microservices[0].limits.timers += 1;
    stage.assign().await;
    let applied = |status: &haar_protocol::status::Status| status.applied == 2;
    stage.site.status(&stage.node.id, applied).await;
    assert_eq!(stage.hibernates(1).await.hibernations, 1);
    let values = &mut stage.assignment.microservices[0].configuration;
    values.insert("stop_ms".to_owned(), "1".to_owned());
    stage.assign().await;
    assert_eq!(stage.hibernates(2).await.calls, 4);
    stage.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_hibernates_is_withdrawn_and_another_module_takes_its_place() {
    let site = Site::start().await;
    let node = Node::enrol(&site, "one");
    let module = node.install(&artifacts::read(artifacts::STOPPER), &site.publisher);
    let quiet = node.install(&artifacts::read(artifacts::QUIET), &site.publisher);
    let mut stage = Stage::new(site, node, microservice("it", module, &[], &[]));
    stage.node.start();
    stage.assign().await;
    stage.hibernates(1).await;
    let spec = &mut stage.assignment.microservices[0];
    (spec.module, spec.module_bytes) = quiet;
    spec.limits.hibernate_after = None;
    stage.assign().await;
    let other = quiet.0;
    stage
        .is(|one| one.state == State::Running && one.module == other)
        .await;
    stage.assignment.microservices.clear();
    stage.assign().await;
    let is_gone = |status: &haar_protocol::status::Status| {
        status.applied == 3 && status.microservices.is_empty()
    };
    stage.site.status(&stage.node.id, is_gone).await;
    stage.node.stop().await;
}
