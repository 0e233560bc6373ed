//! What is stored belongs to one life of a microservice; numbers of messages outlive it.

use std::time::Duration;

use haar_conformance_artifacts as artifacts;
use haar_protocol::assignment::{Assignment, Route};
use haar_protocol::ids::RouteId;
use haar_protocol::log::LogLine;
use haar_protocol::manifest::Delivery;
use haar_protocol::quantity::ByteSize;
use haar_protocol::status::{State, Status};

use crate::driver::Driver;
use crate::node::{Node, configured, microservice, name, of, route};
use crate::site::Site;

/// A node that runs the key-value guest as `it`, with a way in from a driver.
struct Scene {
    site: Site,
    node: Node,
    driver: Driver,
    assignment: Assignment,
    route: RouteId,
}

impl Scene {
    async fn start() -> Self {
        let site = Site::start().await;
        let (mut node, other) = (Node::enrol(&site, "one"), Node::enrol(&site, "other"));
        let module = node.install(&artifacts::read(artifacts::KEY_VALUE), &site.publisher);
        let mut it = microservice("it", module, &[], &["in"]);
        it.grants.key_value = true;
        it.limits.files_size = ByteSize(1 << 20);
        let mut assignment = node.assignment(&site, 1);
        assignment.microservices = vec![it];
        assignment.routes = vec![route(other.port("driver", "out"), node.port("it", "in"))];
        assignment.peers = vec![other.peer()];
        node.start();
        let driver = Driver::connect(&site, &other).await;
        let mut scene = Self {
            route: assignment.routes[0].id,
            site,
            node,
            driver,
            assignment,
        };
        scene.assign(1, Some(0)).await;
        scene
    }

    /// Assigns a life of `it`, and waits until it runs. None: the site tells no lives.
    async fn assign(&mut self, number: u64, life: Option<u64>) {
        self.assignment.number = number;
        self.assignment.lives = life.map(|life| match life {
            0 => Default::default(),
            life => [(name("it").to_string(), life)].into(),
        });
        self.site.assign(&self.assignment).await;
        self.runs(number).await;
    }

    async fn runs(&self, number: u64) {
        let runs = |status: &Status| {
            let it = of(status, "it");
            status.applied == number && it.is_some_and(|it| it.state == State::Running)
        };
        self.site.status(&self.node.id, runs).await;
    }

    /// Sends a command, and waits until its answer is logged. Each command only once in a test.
    async fn tell(&self, command: &str) -> String {
        let begin = format!("{command} -> ");
        let is_it = |line: &LogLine| line.text.starts_with(&begin);
        let answer = self.site.line(&self.node.id, is_it);
        tokio::pin!(answer);
        loop {
            // A change of its routes gives the node another link: what is sent over the last one is lost.
            self.driver.send(&self.node, self.route, command).await;
            let soon = tokio::time::timeout(Duration::from_secs(1), &mut answer).await;
            if let Ok(line) = soon {
                return line.text[begin.len()..].to_owned();
            }
        }
    }

    /// Puts a file where the private directory of `it` is.
    fn write_file(&self) -> std::path::PathBuf {
        let directory = self.node.data.path().join("private/app/it");
        std::fs::create_dir_all(&directory).unwrap();
        let file = directory.join("secret");
        std::fs::write(&file, "of the first").unwrap();
        file
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_life_finds_nothing_of_the_one_before() {
    let mut scene = Scene::start().await;
    assert_eq!(scene.tell("set colour grey").await, "done");
    let file = scene.write_file();

    // Online: it is deleted and applied again, and the node hears of both at once.
    scene.assign(2, Some(17)).await;
    assert_eq!(scene.tell("get colour").await, "none");
    assert!(!file.exists());
    assert_eq!(scene.tell("set colour green").await, "done");

    // The same life goes on: another revision, a restart, a site that tells no lives.
    scene.assign(3, Some(17)).await;
    scene.node.stop().await;
    scene.node.start();
    scene.runs(3).await;
    scene.assign(4, None).await;
    assert_eq!(scene.tell("exists colour").await, "true");

    // Offline: the node hears of the end of a life when it is back.
    scene.node.stop().await;
    let file = scene.write_file();
    scene.node.start();
    scene.assign(5, Some(18)).await;
    assert_eq!(scene.tell("keys").await, "");
    assert!(!file.exists());
    scene.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_deleted_is_gone_at_once_and_what_was_moved_stays() {
    let mut scene = Scene::start().await;
    assert_eq!(scene.tell("set colour grey").await, "done");
    let file = scene.write_file();
    let (microservices, routes) = (
        std::mem::take(&mut scene.assignment.microservices),
        std::mem::take(&mut scene.assignment.routes),
    );
    let gone =
        |number| move |status: &Status| status.applied == number && status.microservices.is_empty();

    // It runs elsewhere, and comes back.
    scene.assignment.number = 2;
    scene.site.assign(&scene.assignment).await;
    scene.site.status(&scene.node.id, gone(2)).await;
    scene.assignment.microservices.clone_from(&microservices);
    scene.assignment.routes.clone_from(&routes);
    scene.assign(3, Some(0)).await;
    assert_eq!(scene.tell("get colour").await, "grey");
    assert!(file.exists());

    // Somebody deletes it.
    scene.assignment.microservices.clear();
    scene.assignment.routes.clear();
    scene.assignment.ended = vec![name("it").to_string()];
    scene.assignment.number = 4;
    scene.site.assign(&scene.assignment).await;
    scene.site.status(&scene.node.id, gone(4)).await;
    scene.assignment.microservices = microservices;
    scene.assignment.routes = routes;
    scene.assignment.ended.clear();
    scene.assign(5, None).await;
    assert_eq!(scene.tell("exists colour").await, "false");
    assert!(!file.exists());
    scene.node.stop().await;
}

/// A node with a source of 50 messages at each start, and a driver that logs what reaches it.
struct Numbers {
    site: Site,
    node: Node,
    assignment: Assignment,
    route: Route,
}

impl Numbers {
    async fn start(delivery: Delivery) -> Self {
        let site = Site::start().await;
        let mut node = Node::enrol(&site, "one");
        let driver = node.install(&artifacts::read(artifacts::DRIVER), &site.publisher);
        let mut route = route(node.port("says", "out"), node.port("hears", "in"));
        route.delivery = delivery;
        let mut assignment = node.assignment(&site, 0);
        let say = |name: &str, round: &str| {
            let driver = microservice(name, driver, &["out"], &["in"]);
            configured(driver, &[("say", "a\nb\nc"), ("round", round)])
        };
        assignment.microservices = vec![
            say("says", "0"),
            microservice("hears", driver, &[], &["in"]),
        ];
        assignment.routes = vec![route.clone()];
        node.start();
        Self {
            site,
            node,
            assignment,
            route,
        }
    }

    /// Has three more messages said, and returns the sequence of the last.
    async fn say(&mut self) -> u64 {
        let last = self.last();
        self.assignment.number += 1;
        let round = self.assignment.number.to_string();
        self.assignment.microservices[0]
            .configuration
            .insert("round".to_owned(), round);
        self.site.assign(&self.assignment).await;
        self.hears_after(last).await
    }

    /// Waits for the last of three messages, and returns its sequence.
    async fn hears_after(&self, last: u64) -> u64 {
        let line = self
            .site
            .line(&self.node.id, |line| {
                let is_later = sequence(&line.text).is_some_and(|number| number > last);
                is_later && line.text.ends_with("\"text\":\"c\"}")
            })
            .await;
        sequence(&line.text).unwrap()
    }

    fn sequences(&self) -> Vec<u64> {
        let lines = self.site.lines(&self.node.id);
        lines
            .iter()
            .filter_map(|line| sequence(&line.text))
            .collect()
    }

    fn last(&self) -> u64 {
        self.sequences().last().copied().unwrap_or(0)
    }

    async fn route(&mut self, delivery: Option<Delivery>) {
        self.assignment.routes = delivery
            .map(|delivery| Route {
                delivery,
                ..self.route.clone()
            })
            .into_iter()
            .collect();
        self.assignment.number += 1;
        let number = self.assignment.number;
        self.site.assign(&self.assignment).await;
        self.site
            .status(&self.node.id, |status| status.applied == number)
            .await;
    }

    fn assert_ascending(&self) {
        let sequences = self.sequences();
        let ascends = sequences.windows(2).all(|pair| pair[0] < pair[1]);
        assert!(ascends, "{sequences:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_never_go_back_when_a_durable_route_is_removed_and_put_back() {
    let mut scene = Numbers::start(Delivery::Durable).await;
    assert_eq!(scene.say().await, 3);
    scene.route(None).await;
    scene.route(Some(Delivery::Durable)).await;
    let after = scene.say().await;
    assert!(after > 3, "{after}");
    // The other way of delivery, and back.
    scene.route(Some(Delivery::Live)).await;
    scene.say().await;
    scene.route(Some(Delivery::Durable)).await;
    scene.say().await;
    scene.assert_ascending();
    scene.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_of_a_live_outlet_go_on_after_a_restart_of_the_agent() {
    let mut scene = Numbers::start(Delivery::Live).await;
    let first = scene.say().await;
    let folder = tempfile::tempdir().unwrap();
    let at_the_cut = folder.path().join("agent.db");
    let database = scene.node.data.path().join("agent.db");
    // Of one moment, while the agent writes.
    let connection = rusqlite::Connection::open(&database).unwrap();
    let vacuum = connection.execute("VACUUM INTO ?1", [at_the_cut.to_str().unwrap()]);
    vacuum.unwrap();
    drop(connection);
    scene.node.stop().await;
    scene.node.start();
    let next = scene.hears_after(first).await;
    assert!(
        (first + 1..first + 10).contains(&next),
        "{first} {next}: no gap after an orderly end"
    );

    // A power cut: the database is as it was while the first messages were said.
    scene.node.stop().await;
    for part in ["db-wal", "db-shm"] {
        let _ = std::fs::remove_file(database.with_extension(part)); // or it went with the agent
    }
    std::fs::copy(&at_the_cut, &database).unwrap();
    scene.node.start();
    scene.hears_after(next).await;
    scene.assert_ascending();
    scene.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_on_a_route_is_reported_and_counted_when_the_route_goes() {
    let site = Site::start().await;
    let (mut node, other) = (Node::enrol(&site, "one"), Node::enrol(&site, "other"));
    let source = node.install(&artifacts::read(artifacts::SOURCE), &site.publisher);
    let mut assignment = node.assignment(&site, 1);
    assignment.microservices = vec![configured(
        microservice("source", source, &["out"], &[]),
        &[("period_ms", "2"), ("total", "50")],
    )];
    let mut waits = route(node.port("source", "out"), other.port("sink", "in"));
    waits.delivery = Delivery::Durable;
    assignment.routes = vec![waits];
    assignment.peers = vec![other.peer()];
    node.start();
    site.assign(&assignment).await;
    let waiting = |status: &Status| status.routes.iter().any(|route| route.waiting == 50);
    site.status(&node.id, waiting).await;
    // Its receiver is renamed.
    assignment.number = 2;
    let to = other.port("drain", "in");
    assignment.routes[0].id = route(node.port("source", "out"), to.clone()).id;
    assignment.routes[0].to = to;
    site.assign(&assignment).await;
    let status = site
        .status(&node.id, |status| status.discarded.messages > 0)
        .await;
    assert_eq!(
        (status.discarded.episodes, status.discarded.messages),
        (1, 50)
    );
    node.stop().await;
}

/// The sequence in a line of the driver.
fn sequence(text: &str) -> Option<u64> {
    let (_, rest) = text.split_once("\"sequence\":")?;
    rest.split(',').next()?.parse().ok()
}
