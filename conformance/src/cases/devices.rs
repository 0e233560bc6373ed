//! Plain MQTT devices at a broker that is not ours: `mosquitto_pub`, which has the defaults of most.

use std::io::Write as _;
use std::ops::RangeInclusive;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use haar_conformance_artifacts::Guest;
use serde_json::json;

use super::relays::apply;
use crate::case::{Case, Node};
use crate::mosquitto::{MISSING, Mosquitto, free_port};
use crate::soak::journals::{Entry, received};

const TOPIC: &str = "plant/1/t";
/// The broker drops nothing by itself.
const SETTINGS: &str = "allow_anonymous true\nmax_queued_messages 0\n";
/// Number of the messages that ask whether anybody listens.
const PROBE: u64 = 0;

pub(super) static CASES: &[&Case] = &[&BURSTS];

pub(super) static BURSTS: Case = Case::new(
    "readings_of_qos_0_and_bursts_beyond_the_window_arrive_in_order_also_when_the_agent_is_killed",
    &["R-MQTT-08", "R-MQTT-09"],
    &[Guest::Journal],
    Node::OWN,
    |scene| {
        let port = free_port()?;
        let folder = scene.folder("broker")?;
        let mut mosquitto = Mosquitto::plain(&folder, port, SETTINGS)?;
        mosquitto.start()?;
        scene.wait("Mosquitto listens", || mosquitto.is_listening())?;
        let relay = scene.name("plant");
        let manifest = json!({
            "api_version": "haar/v1",
            "kind": "Relay",
            "name": relay,
            "carries": "topics",
            "url": format!("mqtt://127.0.0.1:{port}"),
            "credentials": "anonymous",
        });
        apply(scene, &relay, &manifest)?;
        let journal = scene.folder("journal")?;
        let grant = json!({ "host": journal, "guest": "/journal", "access": "read-write" });
        let application = scene
            .application("app")
            .with(
                "journal",
                Guest::Journal,
                json!({ "grants": { "directories": [grant] } }),
            )
            .topic_route(&relay, "mqtt:plant/#", "journal.in");
        scene.run(&application)?;
        let journal = journal.join("journal");
        scene.wait("the node hears the device", || {
            publish(port, "1", PROBE..=PROBE)?;
            Ok(!numbers(&journal)?.is_empty())
        })?;

        publish(port, "0", 1..=200)?;
        let has = |number: u64| Ok(numbers(&journal)?.contains(&number));
        scene.wait("all messages of QoS 0 are handled", || has(200))?;
        publish(port, "1", 201..=1_260)?;
        scene.wait("some of the burst is handled", || has(260))?;
        scene.kill_agent()?;
        scene.start_agent()?;
        scene.wait("all of the burst is handled", || has(1_260))?;
        let mut found = numbers(&journal)?;
        let mut seen = std::collections::BTreeSet::new();
        found.retain(|number| *number != PROBE && seen.insert(*number)); // QoS 1: at least once
        let expected: Vec<u64> = (1..=1_260).collect();
        ensure!(
            found == expected,
            "{} of 1260, or out of order: {found:?}",
            found.len()
        );
        Ok(())
    },
);

/// Numbered messages, as a device publishes them.
fn publish(port: u16, quality: &str, numbers: RangeInclusive<u64>) -> anyhow::Result<()> {
    let mut device = Command::new("mosquitto_pub")
        .args(["-h", "127.0.0.1", "-p", &port.to_string()])
        .args(["-q", quality, "-t", TOPIC, "-l"])
        .stdin(Stdio::piped())
        .spawn()
        .context(MISSING)?;
    let mut lines = device.stdin.take().context("it has no standard input")?;
    for number in numbers {
        writeln!(lines, "reading {number:08}")?;
    }
    drop(lines);
    let status = device.wait()?;
    ensure!(status.success(), "mosquitto_pub: {status}");
    Ok(())
}

/// The numbers in the journal. Its guest reads two numbers of eight bytes from a message: here the
/// second is text.
fn numbers(journal: &Path) -> anyhow::Result<Vec<u64>> {
    let entries = received(journal)?.into_iter();
    let bodies = entries.filter_map(|entry| match entry {
        Entry::Damaged(receipt) => Some(receipt.number.to_be_bytes()),
        _ => None,
    });
    let numbers = bodies.map(|body| {
        let text = std::str::from_utf8(&body).context("not a reading")?;
        text.parse()
            .with_context(|| format!("`{text}` is not a number"))
    });
    numbers.collect()
}
