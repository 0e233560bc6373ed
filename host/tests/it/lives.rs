//! What is stored belongs to one life of a microservice.

mod numbers;

use std::time::Duration;

use haar_conformance_artifacts as artifacts;
use haar_protocol::assignment::Assignment;
use haar_protocol::ids::RouteId;
use haar_protocol::log::LogLine;
use haar_protocol::quantity::{ByteSize, Millis};
use haar_protocol::signed;
use haar_protocol::status::{State, Status};

use crate::driver::Driver;
use crate::node::{Node, microservice, name, of, route};
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

#[tokio::test(flavor = "multi_thread")]
async fn what_waited_for_a_life_without_an_instance_does_not_reach_the_next_one() {
    let mut scene = Scene::start().await;
    let guest = scene.assignment.microservices[0].clone();
    // It fails at its start, and messages wait for the next one.
    let trap = artifacts::read(artifacts::TRAP);
    let trap = scene.node.install(&trap, &scene.site.publisher);
    let it = &mut scene.assignment.microservices[0];
    (it.module, it.module_bytes) = trap;
    it.configuration = [("start".to_owned(), "panic".to_owned())].into();
    it.restart.pauses = vec![Millis(3_600_000)];
    scene.assignment.number = 2;
    scene.site.assign(&scene.assignment).await;
    let waits = |status: &Status| {
        let it = of(status, "it");
        it.is_some_and(|it| it.state == State::BackOff && it.inbox_messages > 0)
    };
    {
        let waits = scene.site.status(&scene.node.id, waits);
        tokio::pin!(waits);
        loop {
            let command = "set colour grey";
            scene.driver.send(&scene.node, scene.route, command).await;
            let soon = tokio::time::timeout(Duration::from_secs(1), &mut waits).await;
            if soon.is_ok() {
                break;
            }
        }
    }

    scene.assignment.microservices[0] = guest;
    scene.assign(3, Some(17)).await;
    assert_eq!(scene.tell("get colour").await, "none");
    let it = scene.site.status(&scene.node.id, |status| {
        of(status, "it").is_some_and(|it| it.calls > 0)
    });
    let it = of(&it.await, "it").unwrap().clone();
    assert_eq!((it.failures, it.last_failure.is_none()), (0, true));
    scene.node.stop().await;
}

/// What a full disk refuses to those who end a life.
const FULL: &str = "CREATE TRIGGER full BEFORE UPDATE OF application ON owner
                    BEGIN SELECT RAISE(ABORT, 'the disk is full'); END";

/// The disk is full when a node that is back learns of another life.
#[tokio::test(flavor = "multi_thread")]
async fn a_life_that_can_not_begin_does_not_run_on_the_data_of_the_one_before() {
    let mut scene = Scene::start().await;
    assert_eq!(scene.tell("set colour grey").await, "done");
    scene.node.stop().await;
    scene.assignment.number = 2;
    scene.assignment.lives = Some([(name("it").to_string(), 17)].into());
    let mut beside = scene.assignment.microservices[0].clone();
    beside.name = name("beside");
    scene.assignment.microservices.push(beside);
    scene.site.assign(&scene.assignment).await;
    let data = scene.node.data.path();
    let envelope = signed::seal(&scene.assignment, &scene.site.key).unwrap();
    std::fs::write(data.join("assignment"), envelope).unwrap();
    let database = rusqlite::Connection::open(data.join("agent.db")).unwrap();
    database.execute_batch(FULL).unwrap();
    scene.node.start();
    let status = scene.site.status(&scene.node.id, waits_beside(2)).await;
    assert_eq!(of(&status, "it"), None);

    database.execute_batch("DROP TRIGGER full").unwrap();
    scene.runs(2).await;
    assert_eq!(scene.tell("get colour").await, "none");
    scene
        .site
        .status(&scene.node.id, |status| status.refused.is_none())
        .await;
    scene.node.stop().await;
}

/// The same of a node that is there, and has nothing of the next life to stop.
#[tokio::test(flavor = "multi_thread")]
async fn a_life_that_can_not_begin_does_not_keep_the_rest_of_an_assignment_from_running() {
    let mut scene = Scene::start().await;
    assert_eq!(scene.tell("set colour grey").await, "done");
    let microservices = std::mem::take(&mut scene.assignment.microservices);
    let routes = std::mem::take(&mut scene.assignment.routes);
    scene.assignment.number = 2;
    scene.site.assign(&scene.assignment).await;
    let gone = |status: &Status| status.applied == 2 && status.microservices.is_empty();
    scene.site.status(&scene.node.id, gone).await;

    let database = scene.node.data.path().join("agent.db");
    let database = rusqlite::Connection::open(database).unwrap();
    database.execute_batch(FULL).unwrap();
    let mut beside = microservices[0].clone();
    beside.name = name("beside");
    scene.assignment.microservices = microservices;
    scene.assignment.microservices.push(beside);
    scene.assignment.routes = routes;
    scene.assignment.lives = Some([(name("it").to_string(), 17)].into());
    scene.assignment.number = 3;
    scene.site.assign(&scene.assignment).await;
    let status = scene.site.status(&scene.node.id, waits_beside(3)).await;
    assert_eq!(of(&status, "it"), None);

    database.execute_batch("DROP TRIGGER full").unwrap();
    scene.runs(3).await;
    assert_eq!(scene.tell("get colour").await, "none");
    scene.node.stop().await;
}

/// Of an assignment in force the microservice `beside` runs, and the status says why the other waits.
fn waits_beside(applied: u64) -> impl Fn(&Status) -> bool {
    move |status| {
        let beside = of(status, "beside");
        let reason = status.refused.as_ref().map(|refused| &*refused.reason);
        status.applied == applied
            && beside.is_some_and(|beside| beside.state == State::Running)
            && reason.is_some_and(|reason| reason.contains("the disk is full"))
    }
}
