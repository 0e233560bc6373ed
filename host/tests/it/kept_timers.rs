//! Timers that outlive their instance, and the agent.

use haar_conformance_artifacts as artifacts;
use haar_host::store::Store;
use haar_host::store::timers::KeptTimer;
use haar_protocol::assignment::{Assignment, Route};
use haar_protocol::status::State;

use crate::driver::Driver;
use crate::node::{Node, microservice, name, of, route};
use crate::site::Site;

const HOUR_MS: u64 = 3_600_000;

/// A node that runs the guest, and a driver of it.
struct Stage {
    site: Site,
    node: Node,
    driver: Driver,
    commands: Route,
    assignment: Assignment,
}

impl Stage {
    async fn new() -> Self {
        let site = Site::start().await;
        let (mut node, other) = (Node::enrol(&site, "one"), Node::enrol(&site, "other"));
        let guest = node.install(&artifacts::read(artifacts::KEPT_TIMERS), &site.publisher);
        let commands = route(other.port("driver", "out"), node.port("it", "in"));
        let mut guest = microservice("it", guest, &[], &["in"]);
        guest.limits.timers = 2;
        let mut assignment = node.assignment(&site, 1);
        assignment.microservices = vec![guest];
        assignment.routes = vec![commands.clone()];
        assignment.peers = vec![other.peer()];
        node.start();
        site.assign(&assignment).await;
        site.status(&node.id, |status| {
            of(status, "it").is_some_and(|one| one.state == State::Running)
        })
        .await;
        let driver = Driver::connect(&site, &other).await;
        Self {
            site,
            node,
            driver,
            commands,
            assignment,
        }
    }

    /// Gives the guest a command and returns its answer.
    async fn tell(&self, command: &str) -> String {
        let route = self.commands.id;
        self.driver.send(&self.node, route, command).await;
        let prefix = format!("{command}: ");
        let line = self
            .site
            .line(&self.node.id, |line| line.text.starts_with(&prefix))
            .await;
        line.text[prefix.len()..].to_owned()
    }

    async fn logs(&self, text: &str) {
        self.site
            .line(&self.node.id, |line| line.text == text)
            .await;
    }

    /// What is kept, read while no agent runs; one timer may be changed.
    async fn kept(&self, change: Option<KeptTimer>) -> Vec<KeptTimer> {
        let (store, thread) = Store::open(self.node.data.path()).unwrap();
        let kept = store.kept_timers(&name("it")).await.unwrap();
        if let Some(timer) = change {
            store.keep_timer(&name("it"), timer).await.unwrap();
        }
        drop(store);
        thread.join();
        kept
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_timer_that_was_due_while_the_agent_was_off_ticks_once_and_stays_in_its_rhythm() {
    let mut stage = Stage::new().await;
    assert_eq!(stage.tell(&format!("every beat {HOUR_MS}")).await, "set");
    stage.node.stop().await;
    let kept = stage.kept(None).await;
    assert_eq!(kept.len(), 1);
    assert_eq!(
        (kept[0].name.as_str(), kept[0].period_ms),
        ("beat", Some(HOUR_MS))
    );

    // As if the agent had been off for more than four hours: the timer was due five times.
    let moved = KeptTimer {
        scheduled_ms: kept[0].scheduled_ms - 5 * HOUR_MS,
        ..kept[0].clone()
    };
    stage.kept(Some(moved)).await;
    stage.node.start();
    stage.logs("beat missed=4").await;
    stage.node.stop().await;
    assert_eq!(
        stage.kept(None).await,
        kept,
        "the next tick is where it was"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_timer_that_has_ticked_once_is_gone_and_so_is_one_that_was_cancelled() {
    let mut stage = Stage::new().await;
    assert_eq!(stage.tell("once soon 1").await, "set");
    stage.logs("soon missed=0").await;
    assert_eq!(stage.tell(&format!("every beat {HOUR_MS}")).await, "set");
    assert_eq!(stage.tell("cancel beat").await, "true");
    assert_eq!(stage.tell("cancel never").await, "false");
    stage.node.stop().await;
    assert_eq!(stage.kept(None).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tick_in_which_the_instance_fails_is_seen_again_by_the_next_one() {
    let mut stage = Stage::new().await;
    assert_eq!(stage.tell("once fatal 1").await, "set");
    // Two instances in a row failed in the one tick.
    stage
        .site
        .status(&stage.node.id, |status| {
            of(status, "it").is_some_and(|one| one.failures == 2)
        })
        .await;
    stage.node.stop().await;
    let kept = stage.kept(None).await;
    assert_eq!((kept.len(), kept[0].name.as_str()), (1, "fatal"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_instance_of_the_same_agent_finds_its_timers_set() {
    let mut stage = Stage::new().await;
    assert_eq!(stage.tell(&format!("every beat {HOUR_MS}")).await, "set");
    // Other grants need another instance.
    let mut other = stage.assignment.clone();
    other.number = 2;
    other.microservices[0].grants.key_value = true;
    let first = stage.site.status(&stage.node.id, |_| true).await;
    let since_ms = of(&first, "it").unwrap().since_ms;
    stage.site.assign(&other).await;
    stage
        .site
        .status(&stage.node.id, |status| {
            of(status, "it")
                .is_some_and(|one| one.state == State::Running && one.since_ms > since_ms)
        })
        .await;
    assert_eq!(stage.tell("cancel beat").await, "true");
    stage.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kept_timers_are_bounded_in_number_and_name_and_that_is_counted() {
    let mut stage = Stage::new().await;
    let long = "x".repeat(129);
    for (command, answer) in [
        (format!("every {long} {HOUR_MS}"), "more than 128 bytes"),
        ("every beat 0".to_owned(), "at least 1 ms"),
        (
            format!("every beat {}", 8_760 * HOUR_MS + 1),
            "more than a year",
        ),
        (format!("once beat {}", u64::MAX), "more than a year"),
        (format!("every a {HOUR_MS}"), "set"),
        (format!("once b {HOUR_MS}"), "set"),
        (format!("once c {HOUR_MS}"), "already has 2"),
        (format!("every b {HOUR_MS}"), "set"),
    ] {
        let told = stage.tell(&command).await;
        assert!(told.contains(answer), "{command}: {told}");
    }
    let counted = |status: &haar_protocol::status::Status| {
        of(status, "it").is_some_and(|one| one.exceeded.timers == 1)
    };
    stage.site.status(&stage.node.id, counted).await;
    stage.node.stop().await;
    let names: Vec<_> = stage
        .kept(None)
        .await
        .into_iter()
        .map(|timer| (timer.name, timer.period_ms))
        .collect();
    let expected = [
        ("a".to_owned(), Some(HOUR_MS)),
        ("b".to_owned(), Some(HOUR_MS)),
    ];
    assert_eq!(names, expected);
}
