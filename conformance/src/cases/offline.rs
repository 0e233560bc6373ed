//! Power cuts and no network.

use std::path::{Path, PathBuf};

use anyhow::ensure;
use haar_conformance_artifacts::Guest;
use haar_protocol::rest::NodeDetail;
use serde_json::json;

use crate::case::{Case, Node};
use crate::scene::{Scene, of};

const NODE: Node = Node::OWN;

pub(super) static CASES: &[&Case] = &[&WITHOUT_NETWORK, &DAMAGED, &KILLED, &STATUS, &TAKEN];

pub(super) static WITHOUT_NETWORK: Case = Case::new(
    "a_node_that_starts_without_a_network_runs_its_last_assignment_with_its_messages",
    &["R-OFFLINE-01", "R-OFFLINE-02", "R-OFFLINE-04"],
    &[Guest::Config, Guest::Files],
    NODE,
    without_network,
);

fn without_network(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let seen = run_writer(scene)?;
    let before = scene.status()?.status_sequence;
    scene.site.kill_controller()?;
    scene.kill_agent()?;
    std::fs::remove_file(&seen)?;
    start_offline(scene, &seen, before)?;
    Ok(())
}

/// Starts the agent, waits until it has written a file, and only then starts the controller. Returns what
/// the controller says of the node after the status with this sequence.
fn start_offline(
    scene: &mut Scene<'_>,
    seen: &Path,
    status: Option<u64>,
) -> anyhow::Result<NodeDetail> {
    scene.start_agent()?;
    scene.wait_for_file(seen, "")?;
    scene.site.ensure_controller()?;
    let node = scene.wait_until("it is back", |node| {
        node.node.online && node.status_sequence > status
    })?;
    ensure!(
        node.node.applied == node.node.assignment,
        "it has something else"
    );
    Ok(node)
}

/// Runs a microservice whose message at its start makes another one write a file. Returns the file.
fn run_writer(scene: &mut Scene<'_>) -> anyhow::Result<PathBuf> {
    let folder = scene.folder("granted")?;
    // The one tells its configuration, which is a command to the other.
    let application = scene
        .application("app")
        .with(
            "config",
            Guest::Config,
            json!({ "configuration": { "write /data/seen": "yes" } }),
        )
        .with(
            "files",
            Guest::Files,
            json!({ "grants": { "directories": [{ "host": folder, "guest": "/data", "access": "read-write" }] } }),
        )
        .route("config.out", "files.in");
    scene.run(&application)?;
    let seen = folder.join("seen=yes");
    scene.wait_for_file(&seen, "")?;
    Ok(seen)
}

pub(super) static DAMAGED: Case = Case::new(
    "a_node_whose_database_is_damaged_runs_its_last_assignment_without_a_network_and_the_site_hears_of_it",
    &["R-OFFLINE-06"],
    &[Guest::Config, Guest::Files],
    NODE,
    damaged,
);

fn damaged(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let seen = run_writer(scene)?;
    let name = scene.status()?.node.name.to_string();
    let database = scene.site.data(&name).join("agent.db");
    let mut told = 0;
    // The first page, a half of it, all of it.
    let damages: [fn(&mut Vec<u8>); 3] = [
        |bytes| bytes.iter_mut().take(4_096).for_each(|byte| *byte ^= 0xa5),
        |bytes| bytes.truncate(bytes.len() / 2),
        Vec::clear,
    ];
    for damage in damages {
        let before = scene.status()?.status_sequence;
        scene.site.kill_controller()?;
        scene.kill_agent()?;
        std::fs::remove_file(&seen)?;
        for end in ["-wal", "-shm"] {
            let _ = std::fs::remove_file(database.with_file_name(format!("agent.db{end}")));
        }
        let mut bytes = std::fs::read(&database)?;
        damage(&mut bytes);
        std::fs::write(&database, bytes)?;
        let node = start_offline(scene, &seen, before)?;
        let store = node.node.store.unwrap_or_default();
        ensure!(
            store.problem.is_none() && store.damage.is_some(),
            "it does not tell of its damage: {store:?}"
        );
        let events = scene.wait_events("store_damaged", &name)?;
        ensure!(events > told, "the site did not hear of it");
        told = events;
    }
    Ok(())
}

pub(super) static KILLED: Case = Case::new(
    "a_killed_agent_goes_on_where_it_was",
    &["R-OFFLINE-03"],
    &[Guest::Source, Guest::Sink],
    NODE,
    killed,
);

fn killed(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let application = scene
        .application("app")
        .with(
            "source",
            Guest::Source,
            json!({ "configuration": { "period_ms": 10 } }),
        )
        .with("sink", Guest::Sink, json!({}))
        .route("source.out", "sink.in");
    scene.run(&application)?;
    let handled = |node: &NodeDetail| node.routes.iter().map(|route| route.handled).sum::<u64>();
    for _ in 0..3 {
        let before = scene.wait_until("messages flow", |node| handled(node) > 20)?;
        scene.kill_agent()?;
        scene.start_agent()?;
        scene.wait_until("messages flow in the new process", |node| {
            node.status_sequence > before.status_sequence
                && handled(node) > 20
                && handled(node) < handled(&before).max(21) * 1_000
                && node.node.applied == before.node.applied
        })?;
    }
    Ok(())
}

pub(super) static STATUS: Case = Case::new(
    "statuses_are_counted_over_restarts_of_the_agent",
    &["R-STATUS-01", "R-STATUS-02"],
    &[Guest::Sink],
    NODE,
    status,
);

fn status(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let application = scene
        .application("app")
        .with("sink", Guest::Sink, json!({}));
    scene.run(&application)?;
    let first = scene.status()?.status_sequence;
    let later = scene.wait_until("five more statuses have come", |node| {
        node.status_sequence > first.map(|sequence| sequence + 5)
    })?;
    ensure!(
        later.statuses_missed == 0,
        "{} statuses of a connected node are missing",
        later.statuses_missed
    );
    scene.kill_agent()?;
    scene.start_agent()?;
    scene.wait_until("the count goes on", |node| {
        node.status_sequence > later.status_sequence && node.node.online
    })?;
    Ok(())
}

pub(super) static TAKEN: Case = Case::new(
    "every_assignment_is_taken_and_told_also_after_a_restart",
    &["R-STATUS-05"],
    &[Guest::Sink],
    NODE,
    taken,
);

/// Whether the microservice runs makes no difference: an agent without a compiler proves this, too.
fn taken(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let application = scene
        .application("app")
        .with("sink", Guest::Sink, json!({}));
    let name = application.name.clone();
    let is_told = |node: &NodeDetail| {
        node.node.online
            && node.node.assignment > 0
            && node.node.applied == node.node.assignment
            && of(node, &name, "sink").is_some()
    };
    scene.apply(&application)?;
    let before = scene.wait_until("the assignment is in force", is_told)?;
    scene.kill_agent()?;
    scene.start_agent()?;
    let after = scene.wait_until("the new process tells the same", |node| {
        is_told(node) && node.status_sequence > before.status_sequence
    })?;
    ensure!(
        after.node.applied == before.node.applied,
        "after a restart {} is in force instead of {}",
        after.node.applied,
        before.node.applied
    );
    scene.delete(&name)?;
    scene.wait_until("the next assignment is in force", |node| {
        node.node.applied == node.node.assignment && node.node.applied > before.node.applied
    })?;
    Ok(())
}
