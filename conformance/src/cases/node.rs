//! What a microservice may know of its node and of time.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, ensure};
use haar_conformance_artifacts::Guest;
use haar_protocol::rest::LogEntry;
use serde_json::json;

use crate::case::{Case, Node};
use crate::scene::Scene;
use crate::talk::{SUBJECT, Talk};

pub(super) static CASES: &[&Case] = &[&FACTS, &CLOCKS];

/// The facts of a line `NAME=VALUE NAME=VALUE`, where a value may stand in brackets.
fn facts(line: &str) -> BTreeMap<String, String> {
    let mut facts = BTreeMap::new();
    let mut rest = line;
    while let Some((name, after)) = rest.split_once('=') {
        let end = if after.starts_with('[') { "] " } else { " " };
        let (value, next) = after.split_once(end).unwrap_or((after, ""));
        let value = value.trim_start_matches('[').trim_end_matches(']');
        facts.insert(name.to_owned(), value.to_owned());
        rest = next;
    }
    facts
}

/// So many lines of a guest, once there are as many.
fn lines(count: usize) -> impl FnMut(&[LogEntry]) -> Option<Vec<BTreeMap<String, String>>> {
    move |lines| {
        let all: Vec<_> = lines.iter().map(|entry| facts(&entry.line.text)).collect();
        (all.len() >= count).then_some(all)
    }
}

pub(super) static FACTS: Case = Case::new(
    "a_microservice_reads_the_facts_of_its_node",
    &["R-NODE-01"],
    &[Guest::NodeFacts],
    Node::Own {
        enrol: &["--memory", "1GiB", "--label", "line=7", "--label", "hall=b"],
        settings: "location = { latitude = 53.5, longitude = 8.125, altitude = 2.5 }",
    },
    node_facts,
);

fn node_facts(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let application = scene
        .application("app")
        .with(SUBJECT, Guest::NodeFacts, json!({}));
    scene.run(&application)?;
    let told = scene.wait_lines(&application.name, SUBJECT, "the facts", lines(1))?;
    let node = scene.status()?.node;
    let site = scene.site.rest().get("site")?;
    let expected = [
        ("id", node.id.to_string()),
        ("name", node.name.to_string()),
        ("site", site["id"].as_str().unwrap_or_default().to_owned()),
        ("labels", "hall=b line=7".to_owned()),
        ("location", "53.5 8.125 Some(2.5)".to_owned()),
    ];
    for (name, value) in expected {
        ensure!(
            told[0].get(name) == Some(&value),
            "{name} should be `{value}`: {told:?}"
        );
    }
    let uptime: u64 = told[0]["uptime_ms"].parse()?;
    let ours = std::fs::read_to_string("/proc/uptime")?;
    let seconds = ours.split('.').next().context("no seconds")?;
    ensure!(
        uptime > 0 && uptime <= (seconds.parse::<u64>()? + 1) * 1_000,
        "an uptime of {uptime} ms, and the machine's is {ours}"
    );
    let is_synchronised = &told[0]["synchronised"];
    ensure!(
        ["true", "false"].contains(&is_synchronised.as_str()),
        "{told:?}"
    );
    scene.note(format!("clock synchronised: {is_synchronised}"));
    Ok(())
}

pub(super) static CLOCKS: Case = Case::new(
    "clocks_go_forward_and_randomness_differs_from_instance_to_instance",
    &["R-CLOCK-01", "R-CLOCK-02"],
    &[Guest::NodeFacts],
    Node::Shared("node"),
    clocks,
);

fn clocks(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let before = now()?;
    let mut talk = Talk::start(scene, Guest::NodeFacts, json!({}))?;
    talk.application = talk
        .application
        .clone()
        .with("other", Guest::NodeFacts, json!({}));
    talk.say(scene, "tell\ntell")?;
    let told = scene.wait_lines(talk.name(), SUBJECT, "three lines", lines(3))?;
    let other = scene.wait_lines(talk.name(), "other", "a line", lines(1))?;
    let after = now()?;
    let mut last = (before.as_millis(), 0);
    for line in &told {
        let time_ms: u128 = line["time_ms"].parse()?;
        let elapsed_ns: u128 = line["since_start_ns"].parse()?;
        ensure!(time_ms >= last.0 && elapsed_ns > last.1, "{told:#?}");
        last = (time_ms, elapsed_ns);
    }
    ensure!(last.0 <= after.as_millis(), "{told:#?}");
    let elapsed = Duration::from_nanos(u64::try_from(last.1)?);
    ensure!(elapsed <= after - before, "{elapsed:?} since its start");
    ensure!(told[0]["random"] != other[0]["random"], "no randomness");
    Ok(())
}
