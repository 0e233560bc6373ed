//! Durable routes, through everything that can happen to their nodes.

use std::path::Path;

use anyhow::{Context as _, ensure};
use haar_conformance_artifacts::Guest;
use serde_json::{Value, json};

use crate::application::Application;
use crate::case::{Case, Node};
use crate::chaos::{Cut, Proxy};
use crate::scene::{Scene, json_line};
use crate::soak::account::compare;
use crate::soak::journals::{Entry, Published, received};

const NODE: Node = Node::OWN;
/// How often nodes are killed in a case.
const KILLS: u32 = 4;
/// Messages of a backlog, and the bytes in a second at which it is drained: for some seconds.
const BACKLOG: u64 = 20_000;
const DRAIN: u32 = 512 << 10;
/// Bytes that a connection takes and loses.
const SWALLOWED: u64 = 64 << 10;

pub(super) static CASES: &[&Case] = &[&KILLED, &ACROSS, &SILENT_CUT, &FULL];

/// A source that publishes steadily, and a ledger of what arrives, on these nodes.
fn application(scene: &Scene<'_>, source_node: Option<&str>) -> Application {
    let mut source = json!({ "configuration": { "period_ms": 5, "messages": 2 } });
    if let Some(node) = source_node {
        source["place"] = json!({ "node": node });
    }
    scene
        .application("app")
        .with("source", Guest::Source, source)
        .with("ledger", Guest::Ledger, ledger())
        .durable_route("source.out", "ledger.in")
}

fn ledger() -> Value {
    json!({
        "grants": { "key_value": true },
        "limits": { "key_value_per_second": 100_000, "key_value_writes_per_second": 100_000 },
    })
}

/// Waits until the ledger has so many messages more than now, and returns its account.
fn more(scene: &mut Scene<'_>, application: &Application, more: u64) -> anyhow::Result<Value> {
    let lines = scene.lines(&application.name, "ledger")?;
    let before = lines
        .iter()
        .filter_map(json_line)
        .map(|line| messages(&line));
    let wanted = before.max().unwrap_or(0) + more;
    account(scene, application, wanted)
}

/// Waits until the ledger has so many messages, and returns its account.
fn account(scene: &mut Scene<'_>, application: &Application, wanted: u64) -> anyhow::Result<Value> {
    let name = application.name.clone();
    let what = format!("{wanted} messages are in the ledger");
    scene.wait_lines(&name, "ledger", &what, |lines| {
        let mut lines = lines.iter().filter_map(json_line);
        lines.find(|line| messages(line) >= wanted)
    })
}

fn messages(account: &Value) -> u64 {
    account["messages"].as_u64().unwrap_or(0)
}

fn check(scene: &mut Scene<'_>, account: &Value) -> anyhow::Result<()> {
    scene.note(format!(
        "{} messages, {} missing, {} repeats",
        account["messages"], account["missing"], account["repeats"]
    ));
    ensure!(account["missing"] == 0, "messages are missing: {account}");
    ensure!(
        account["unexplained"] == 0,
        "messages came again as if for the first time: {account}"
    );
    Ok(())
}

pub(super) static KILLED: Case = Case::new(
    "a_durable_route_loses_nothing_when_its_node_is_killed",
    &["R-MSG-15"],
    &[Guest::Source, Guest::Ledger],
    NODE,
    |scene| {
        let application = application(scene, None);
        scene.run(&application)?;
        for _ in 0..KILLS {
            more(scene, &application, 100)?;
            scene.kill_agent()?;
            scene.start_agent()?;
        }
        let last = more(scene, &application, 100)?;
        check(scene, &last)
    },
);

pub(super) static ACROSS: Case = Case::new(
    "a_durable_route_between_nodes_loses_nothing_when_nodes_and_relay_are_killed",
    &["R-MSG-15", "R-OFFLINE-05"],
    &[Guest::Source, Guest::Ledger],
    NODE,
    |scene| {
        let mut sender = scene
            .site
            .new_agent("durable-sender", &["--memory", "256MiB"], "")?;
        let application = application(scene, Some(&sender.name));
        scene.apply(&application)?;
        for round in 0..KILLS {
            more(scene, &application, 100)?;
            match round % 4 {
                0 => {
                    scene.kill_agent()?;
                    scene.start_agent()?;
                }
                1 => {
                    sender.kill()?;
                    scene.site.start_agent(&mut sender)?;
                }
                2 => {
                    scene.site.kill_controller()?;
                    scene.site.ensure_controller()?;
                }
                _ => {
                    scene.site.kill_controller()?;
                    scene.kill_agent()?;
                    sender.kill()?;
                    scene.site.start_agent(&mut sender)?;
                    scene.start_agent()?;
                    scene.site.ensure_controller()?;
                }
            }
        }
        let last = more(scene, &application, 100).context("after the last kill")?;
        check(scene, &last)?;
        sender.kill()
    },
);

pub(super) static FULL: Case = Case::new(
    "a_full_log_refuses_the_publisher_once_an_event_and_loses_nothing_that_it_took",
    &["R-MSG-14"],
    &[Guest::Source, Guest::Ledger],
    NODE,
    full,
);

/// Publishes more than the log holds while the other node is away.
fn full(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    const MESSAGES: u64 = 200;
    let mut sender = scene
        .site
        .new_agent("full-sender", &["--memory", "256MiB"], "")?;
    let source = json!({
        "place": { "node": sender.name },
        "configuration": { "period_ms": 100, "burst": MESSAGES, "size": 1_024 },
    });
    let application = scene
        .application("app")
        .with("source", Guest::Source, source)
        .with("ledger", Guest::Ledger, ledger())
        .route_with_backlog("source.out", "ledger.in", json!({ "size": "16KiB" }));
    scene.kill_agent()?;
    scene.apply(&application)?;
    let name = application.name.clone();
    let (took, refused) =
        scene.wait_lines_of(&sender.name, &name, "source", "a burst", |lines| {
            lines.iter().find_map(|entry| burst(&entry.line.text))
        })?;
    ensure!(
        took > 0 && refused > 0 && took + refused == MESSAGES,
        "it took {took} messages and refused {refused} with `backlog-full`"
    );
    let events = scene.wait_events("backlog_full", &format!("{name}/source"))?;
    ensure!(events == 1, "one full log was told {events} times");
    scene.start_agent()?;
    let last = account(scene, &application, took)?;
    ensure!(messages(&last) == took, "it took {took}: {last}");
    check(scene, &last)?;
    sender.kill()
}

/// What the guest `source` says of a burst: messages that were published, and refused.
fn burst(line: &str) -> Option<(u64, u64)> {
    let mut words = line.strip_prefix("burst ")?.split(' ');
    let mut number = |name: &str| words.next()?.strip_prefix(name)?.parse().ok();
    Some((number("messages=")?, number("refused=")?))
}

pub(super) static SILENT_CUT: Case = Case::new(
    "messages_handed_to_a_connection_that_is_cut_silently_are_not_lost",
    &["R-MSG-15", "R-MSG-18"],
    &[Guest::Numbering, Guest::Journal],
    NODE,
    silent_cut,
);

/// Three steps: a backlog grows while there is no relay; the relay comes back and the backlog is
/// drained; and in the middle of that the connection takes bytes that never arrive. A sender that
/// deletes what it has handed over loses it here.
fn silent_cut(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let proxy = Proxy::start(scene.site.relay_address()?)?;
    proxy.throttle(Some(DRAIN));
    let enrol = &["--memory", "256MiB"];
    let mut sender = scene.site.enrolled_agent("silent-cut-sender", enrol, "")?;
    sender.set_relay(proxy.address())?;
    scene.site.start_agent(&mut sender)?;
    let (left, right) = (scene.folder("left")?, scene.folder("right")?);
    let application = numbered(scene, &sender.name, &left, &right);
    scene.apply(&application)?;
    let (left, right) = (left.join("journal"), right.join("journal"));
    let stored = || anyhow::Ok(Published::read(&left)?.stored());
    let handled = || {
        let entries = received(&right)?;
        let handled = entries.iter().filter(|it| matches!(it, Entry::Handled(_)));
        anyhow::Ok(handled.count() as u64)
    };

    scene.wait("the first message is handled", || Ok(handled()? > 0))?;
    scene.site.kill_controller()?;
    scene.wait("the backlog is stored", || Ok(stored()? >= BACKLOG))?;
    let before = handled()?;
    scene.site.ensure_controller()?;
    scene.wait("the backlog is drained", || Ok(handled()? > before))?;
    proxy.deafen();
    scene.wait("bytes are lost", || Ok(proxy.swallowed_bytes() > SWALLOWED))?;
    let then = handled()?;
    ensure!(then < BACKLOG, "the backlog was gone before the cut");
    proxy.cut(Cut::Reset);
    proxy.throttle(None);

    let account = || anyhow::Ok(compare(1, &Published::read(&left)?, &received(&right)?));
    scene.wait("every message is handled", || {
        let account = account()?;
        Ok(account.handled >= account.stored)
    })?;
    let (account, swallowed) = (account()?, proxy.swallowed_bytes());
    scene.note(format!(
        "{} messages, {then} before the cut, {swallowed} bytes swallowed",
        account.handled
    ));
    ensure!(account.violations().is_empty(), "{account:?}");
    ensure!(account.repeats == 0, "a cut is no reason for repeats");
    sender.kill()
}

/// A publisher on one node and a receiver on the other, with a journal each.
fn numbered(scene: &Scene<'_>, sender: &str, left: &Path, right: &Path) -> Application {
    let grants = |folder: &Path| json!({ "directories": [{ "host": folder, "guest": "/journal", "access": "read-write" }] });
    let publisher = json!({
        "place": { "node": sender },
        "configuration": { "source": 1, "messages": BACKLOG },
        "limits": { "publish_per_second": 100_000 },
        "grants": grants(left),
    });
    scene
        .application("app")
        .with("publisher", Guest::Numbering, publisher)
        .with(
            "receiver",
            Guest::Journal,
            json!({ "grants": grants(right) }),
        )
        .durable_route("publisher.out", "receiver.in")
}
