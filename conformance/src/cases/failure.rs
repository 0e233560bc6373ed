//! What happens after a failure.

use anyhow::ensure;
use haar_conformance_artifacts::Guest;
use haar_protocol::status::State;
use serde_json::json;

use crate::case::{Case, Node};
use crate::scene::Scene;
use crate::talk::{SUBJECT, Talk};

const NODE: Node = Node::Shared("failure");

pub(super) static CASES: &[&Case] = &[&BACK_OFF, &INBOX];

pub(super) static BACK_OFF: Case = Case::new(
    "a_failed_instance_starts_again_at_once_and_then_with_back_off",
    &["R-FAIL-01", "R-FAIL-02", "R-LIMIT-06"],
    &[Guest::Trap],
    NODE,
    back_off,
);

fn back_off(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let mut talk = Talk::start(scene, Guest::Trap, json!({}))?;
    talk.say(scene, "panic")?;
    let name = talk.name().to_owned();
    scene.wait_for(&name, SUBJECT, "was started again", |one| {
        one.restarts == 1 && one.state == State::Running
    })?;
    talk.say(scene, "trap")?;
    let waits = scene.wait_for(&name, SUBJECT, "backs off", |one| {
        one.state == State::BackOff
    })?;
    let reason = waits.reason.unwrap_or_default();
    ensure!(reason.starts_with("panicked"), "the reason is `{reason}`");
    scene.wait_line(&name, SUBJECT, "panicked")?;
    let again = scene.wait_for(&name, SUBJECT, "was started a second time", |one| {
        one.restarts == 2 && one.state == State::Running
    })?;
    let pause_ms = again.since_ms.saturating_sub(waits.since_ms);
    // Not a measurement: the pause is what is promised, by the node's own clock.
    ensure!(pause_ms >= 10_000, "it started again after {pause_ms} ms");
    Ok(())
}

pub(super) static INBOX: Case = Case::new(
    "messages_that_wait_outlive_the_instance_that_failed",
    &["R-FAIL-03"],
    &[Guest::Trap],
    NODE,
    inbox,
);

fn inbox(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let mut talk = Talk::start(scene, Guest::Trap, json!({}))?;
    talk.say(scene, "panic\nfirst\nsecond\nthird")?;
    for text in ["handled first", "handled second", "handled third"] {
        scene.wait_line(talk.name(), SUBJECT, text)?;
    }
    Ok(())
}
