//! What a microservice stores on its node, and what becomes of it.

use haar_conformance_artifacts as artifacts;
use haar_protocol::assignment::{Assignment, Microservice};
use haar_protocol::ids::RouteId;
use haar_protocol::limits::Retention;
use haar_protocol::log::LogLine;
use haar_protocol::quantity::{ByteSize, Millis};
use haar_protocol::status::{MicroserviceStatus, State, Status};

use crate::driver::Driver;
use crate::node::{Node, microservice, of, route};
use crate::site::Site;

/// A node that runs one microservice called `it`, with ways in from a driver.
struct Scene {
    site: Site,
    node: Node,
    driver: Driver,
    assignment: Assignment,
    routes: Vec<RouteId>,
}

impl Scene {
    async fn start(guest: &str, change: impl Fn(&mut Microservice)) -> Self {
        let site = Site::start().await;
        let (mut node, other) = (Node::enrol(&site, "one"), Node::enrol(&site, "other"));
        let module = node.install(&artifacts::read(guest), &site.publisher);
        let mut it = microservice("it", module, &["out"], &["in", "ask"]);
        it.grants.key_value = true;
        change(&mut it);
        let mut assignment = node.assignment(&site, 1);
        assignment.microservices = vec![it];
        assignment.routes = ["in", "ask"]
            .map(|inlet| route(other.port("driver", "out"), node.port("it", inlet)))
            .to_vec();
        assignment.peers = vec![other.peer()];
        node.start();
        site.assign(&assignment).await;
        let driver = Driver::connect(&site, &other).await;
        let scene = Self {
            routes: assignment.routes.iter().map(|route| route.id).collect(),
            site,
            node,
            driver,
            assignment,
        };
        scene.runs(1).await;
        scene
    }

    async fn runs(&self, number: u64) -> MicroserviceStatus {
        let status = self
            .site
            .status(&self.node.id, |status| {
                let it = of(status, "it");
                status.applied == number && it.is_some_and(|it| it.state == State::Running)
            })
            .await;
        of(&status, "it").unwrap().clone()
    }

    async fn is(&self, is_so: impl Fn(&MicroserviceStatus) -> bool) -> MicroserviceStatus {
        let status = self
            .site
            .status(&self.node.id, |status| of(status, "it").is_some_and(&is_so))
            .await;
        of(&status, "it").unwrap().clone()
    }

    async fn send(&self, inlet: usize, body: &str) {
        let route = self.routes[inlet];
        self.driver.send(&self.node, route, body).await;
    }

    /// Sends a command, and waits until its answer is logged. Each command only once in a test.
    async fn answer(&self, inlet: usize, command: &str) -> String {
        self.send(inlet, command).await;
        let begin = format!("{command} -> ");
        let line = self
            .site
            .line(&self.node.id, |line| line.text.starts_with(&begin))
            .await;
        line.text[begin.len()..].to_owned()
    }

    async fn tell(&self, command: &str) -> String {
        self.answer(0, command).await
    }

    /// Cuts the power: what is on the disk now is what the next agent finds.
    async fn cut_power(&mut self) {
        const FILES: [&str; 3] = ["agent.db", "agent.db-wal", "message-numbers"];
        let path = |file: &str| self.node.data.path().join(file);
        let at_the_cut = FILES.map(|file| std::fs::read(path(file)).ok());
        self.node.stop().await;
        let path = |file: &str| self.node.data.path().join(file);
        for (file, bytes) in FILES.into_iter().zip(at_the_cut) {
            match bytes {
                Some(bytes) => std::fs::write(path(file), bytes).unwrap(),
                None => drop(std::fs::remove_file(path(file))), // it was not there
            }
        }
        let stopped = |status: &Status| status.microservices.is_empty();
        self.site.status(&self.node.id, stopped).await;
        self.node.start();
        self.runs(1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pairs_survive_a_power_cut_and_an_update_of_the_module() {
    let mut scene = Scene::start(artifacts::KEY_VALUE, |_| ()).await;
    assert_eq!(scene.tell("set colour grey").await, "done");
    scene.cut_power().await;
    assert_eq!(scene.tell("get colour").await, "grey");
    // Its key, its value, and 64 bytes.
    let bytes = |it: &MicroserviceStatus| it.key_value_bytes == 6 + 4 + 64;
    scene.is(bytes).await;

    // The same component with a custom section: another module.
    let mut updated = artifacts::read(artifacts::KEY_VALUE);
    updated.extend([0, 2, 1, b'x']);
    let (module, module_bytes) = scene.node.install(&updated, &scene.site.publisher);
    let mut assignment = scene.assignment.clone();
    assignment.number = 2;
    assignment.microservices[0].module = module;
    assignment.microservices[0].module_bytes = module_bytes;
    scene.site.assign(&assignment).await;
    scene
        .is(|it| it.module == module && it.state == State::Running)
        .await;
    assert_eq!(scene.tell("exists colour").await, "true");
    scene.node.stop().await;
}

const TOO_MANY_HANDLES: &str = "Other(\"1024 handles of buckets and swaps are open, which is the limit: open a bucket once and keep it, or drop what is not needed\")";

#[tokio::test(flavor = "multi_thread")]
async fn every_function_of_the_newer_draft_does_what_it_says() {
    let more = |it: &mut Microservice| it.limits.key_value_per_second = 100_000;
    let mut scene = Scene::start(artifacts::KEY_VALUE, more).await;
    for (command, answer) in [
        ("get a", "none"),
        ("set a 1", "done"),
        ("in default get a", "1"),
        ("in other get a", "none"),
        ("increment a 41", "42"),
        ("increment a -50", "-8"),
        ("swap a 1 x", "false"),
        ("swap a -8 x", "true"),
        ("swap new - y", "true"),
        ("swap new - z", "false"),
        ("set-many b 1 c 2", "done"),
        ("get-many c nothing b", "2,none,1"),
        ("keys", "a,b,c,new"),
        ("delete-many a nothing b", "done"),
        ("delete new", "done"),
        ("in default keys", "c"),
        ("count visits 30", "30"),
        ("race visits 30", "60"),
        ("hold 1025", TOO_MANY_HANDLES),
        ("hold 1024", TOO_MANY_HANDLES),
        ("hold 1023", "1023"),
    ] {
        assert_eq!(scene.tell(command).await, answer, "{command}");
    }
    let not_a_number = scene.tell("in words set a many").await;
    assert_eq!(not_a_number, "done");
    let refused = scene.tell("in words increment a 1").await;
    assert!(refused.contains("neither a decimal number"), "{refused}");
    let long = "k".repeat(513);
    let refused = scene.tell(&format!("get {long}")).await;
    assert!(
        refused.contains("a key has 1 to 512 bytes, not 513"),
        "{refused}"
    );
    let name = "b".repeat(65);
    assert_eq!(scene.tell(&format!("in {name} get a")).await, "NoSuchStore");
    scene.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_with_bindings_of_its_own_uses_the_older_draft() {
    let mut scene = Scene::start(artifacts::KEY_VALUE_DRAFT, |it| {
        it.limits.key_value_per_second = 100_000;
        it.limits.key_value_writes_per_second = 100_000;
    })
    .await;
    scene.send(0, "go").await;
    scene
        .site
        .line(&scene.node.id, |line| {
            line.text == "colour=grey sum=2 got=truefalse pages=1000+102 end=true exists=false"
        })
        .await;
    scene.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_store_refuses_more_whole_batches_and_says_so() {
    let mut scene = Scene::start(artifacts::KEY_VALUE, |it| {
        it.limits.key_value_size = ByteSize(1_000);
    })
    .await;
    let full = "Other(\"the limit `key_value_size` of 1000 bytes is reached\")";
    assert_eq!(scene.tell("fill a 935").await, "done");
    assert_eq!(scene.tell("fill a 936").await, full);
    assert_eq!(scene.tell("fill b 0").await, full);
    assert_eq!(scene.tell("in other fill b 0").await, full);
    assert_eq!(scene.tell("fill a 300").await, "done");
    assert_eq!(scene.tell("fill-many 300 x y z").await, full);
    assert_eq!(scene.tell("get-many x y").await, "none,none");
    assert_eq!(scene.tell("fill-many 200 x y").await, "done");
    let bytes = 365 + 2 * 265;
    let is_so =
        |it: &MicroserviceStatus| it.exceeded.key_value_size == 4 && it.key_value_bytes == bytes;
    scene.is(is_so).await;
    scene.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_is_refused_by_rate_and_by_size_and_a_batch_counts_as_many() {
    let mut scene = Scene::start(artifacts::KEY_VALUE_FLOOD, |it| {
        it.limits.key_value_per_second = 25;
        it.limits.key_value_writes_per_second = 100_000;
        it.limits.key_value_size = ByteSize(200 << 10);
    })
    .await;
    let logged = async |text: &str| {
        let line = scene
            .site
            .line(&scene.node.id, |line| line.text.contains(text));
        line.await.text
    };
    logged("too many operations: try again in ").await;
    let full = logged("the limit `key_value_size` of 204800 bytes is reached").await;
    assert!(full.starts_with("refused after 192: "), "{full}");
    let status = scene
        .is(|it| it.exceeded.key_value_size > 0 && it.exceeded.key_value_per_second > 0)
        .await;
    assert!(status.key_value_bytes <= 200 << 10);
    scene.node.stop().await;

    let mut scene = Scene::start(artifacts::KEY_VALUE, |it| {
        it.limits.key_value_per_second = 2;
    })
    .await;
    let refused = scene.tell("get-many a b c").await;
    let reason = "3 operations are more than the limit `key_value_per_second` of 2";
    assert!(refused.contains(reason), "{refused}");
    scene.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_that_come_too_fast_wait_and_reads_do_not() {
    let mut scene = Scene::start(artifacts::KEY_VALUE, |it| {
        it.limits.key_value_writes_per_second = 2;
    })
    .await;
    // The first is due at once, each of the others half a second after the one before.
    let writes = ["set a 1", "set a 2", "delete a", "increment b 1"];
    for write in writes {
        scene.send(0, write).await;
    }
    for write in writes {
        let answer = format!("{write} -> ");
        let is_answer = |line: &LogLine| line.text.starts_with(&answer);
        let line = scene.site.line(&scene.node.id, is_answer).await;
        assert!(!line.text.contains("Other"), "{}", line.text);
    }
    let reads = ["get b", "exists b", "keys", "get-many a b"];
    for read in reads {
        scene.send(0, read).await;
    }
    let last = |line: &LogLine| line.text == "get-many a b -> none,1";
    scene.site.line(&scene.node.id, last).await;
    let status = scene
        .is(|it| it.exceeded.key_value_writes_per_second == 3)
        .await;
    assert_eq!(
        (status.failures, status.exceeded.key_value_per_second),
        (0, 0)
    );
    scene.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_without_the_grant_is_refused_by_the_name_of_the_interface() {
    for guest in [artifacts::KEY_VALUE, artifacts::KEY_VALUE_DRAFT] {
        let site = Site::start().await;
        let mut node = Node::enrol(&site, "one");
        let module = node.install(&artifacts::read(guest), &site.publisher);
        let mut assignment = node.assignment(&site, 1);
        assignment.microservices = vec![microservice("it", module, &[], &["in"])];
        node.start();
        site.assign(&assignment).await;
        let refused = site
            .status(&node.id, |status| {
                of(status, "it").is_some_and(|it| it.state == State::Refused)
            })
            .await;
        let reason = of(&refused, "it").unwrap().reason.clone().unwrap();
        assert!(reason.contains("wasi:keyvalue/"), "{reason}");

        // With the grant the same module runs, without anything else.
        assignment.number = 2;
        assignment.microservices[0].grants.key_value = true;
        site.assign(&assignment).await;
        site.status(&node.id, |status| {
            of(status, "it").is_some_and(|it| it.state == State::Running)
        })
        .await;
        node.stop().await;
    }
}

fn with_history(it: &mut Microservice) {
    let retention = Retention {
        size: ByteSize(1 << 20),
        age: Millis(3_650 * 86_400_000 * 20), // the driver publishes in 1970
    };
    it.inlet_history = [("in".parse().unwrap(), retention.clone())].into();
    it.outlet_history = [("out".parse().unwrap(), retention)].into();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_has_what_passed_in_pages_and_over_a_restart() {
    let mut scene = Scene::start(artifacts::HISTORY, with_history).await;
    for body in ["a", "b", "c"] {
        scene.send(0, body).await;
    }
    scene
        .site
        .status(&scene.node.id, |status| {
            status.routes.iter().map(|route| route.handled).sum::<u64>() == 3
        })
        .await;
    let ask = async |scene: &Scene, query: &str| scene.answer(1, query).await;
    let (a, b, c) = ("1:a:driver:-", "1:b:driver:-", "1:c:driver:-");
    let expected = format!("{a},{b},{c} pages=1");
    assert_eq!(ask(&scene, "inlet in").await, expected);
    assert_eq!(
        ask(&scene, "inlet in limit=2").await,
        format!("{a},{b},{c} pages=2")
    );
    assert_eq!(
        ask(&scene, "inlet in newest limit=1").await,
        format!("{c},{b},{a} pages=3")
    );
    assert_eq!(
        ask(&scene, "outlet out first=2").await,
        "2:b:it:echo,3:c:it:echo pages=1"
    );
    assert_eq!(ask(&scene, "inlet in from=app/other").await, " pages=1");
    assert_eq!(
        ask(&scene, "inlet in node=other since=1 until=2").await,
        expected
    );
    assert_eq!(ask(&scene, "inlet in until=1").await, " pages=1");
    assert_eq!(ask(&scene, "inlet ask").await, "NoHistory");
    assert_eq!(ask(&scene, "outlet in").await, "NoHistory");
    assert_eq!(ask(&scene, "inlet in token=1-0").await, "BadToken");

    scene.cut_power().await;
    assert_eq!(ask(&scene, "inlet in last=1").await, expected);
    scene.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_that_is_no_longer_wanted_is_forgotten() {
    let mut scene = Scene::start(artifacts::HISTORY, with_history).await;
    scene.send(0, "a").await;
    assert_eq!(scene.answer(1, "inlet in").await, "1:a:driver:- pages=1");
    let mut assignment = scene.assignment.clone();
    assignment.number = 2;
    assignment.microservices[0].inlet_history.clear();
    scene.site.assign(&assignment).await;
    scene.runs(2).await;
    assert_eq!(scene.answer(1, "inlet in limit=9").await, "NoHistory");

    assignment.number = 3;
    with_history(&mut assignment.microservices[0]);
    scene.site.assign(&assignment).await;
    scene.runs(3).await;
    assert_eq!(scene.answer(1, "inlet in limit=8").await, " pages=1");
    assert_eq!(scene.answer(1, "outlet out").await, "1:a:it:echo pages=1");
    scene.node.stop().await;
}
