//! What happens after a failure.

use anyhow::{Context as _, ensure};
use haar_conformance_artifacts::{self as artifacts, Guest};
use haar_protocol::status::State;
use serde_json::{Value, json};

use crate::case::{Case, Node};
use crate::scene::Scene;
use crate::talk::{SUBJECT, Talk};

const NODE: Node = Node::Shared("failure");

pub(super) static CASES: &[&Case] = &[
    &BACK_OFF,
    &INBOX,
    &REPORT,
    &DEAD_LETTER,
    &LETTERS,
    &POLICY,
    &MUTE,
];

/// Without another attempt a message is not what an instance dies of again.
fn once() -> Value {
    json!({ "retry": { "attempts": 1 } })
}

pub(super) static BACK_OFF: Case = Case::new(
    "a_failed_instance_starts_again_at_once_and_then_with_back_off",
    &["R-FAIL-01", "R-FAIL-02", "R-LIMIT-06"],
    &[Guest::Trap],
    NODE,
    back_off,
);

fn back_off(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let mut talk = Talk::start(scene, Guest::Trap, once())?;
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
    ensure!(reason.contains(": panicked: "), "the reason is `{reason}`");
    scene.wait_line(&name, SUBJECT, "panicked")?;
    let again = scene.wait_for(&name, SUBJECT, "was started a second time", |one| {
        one.restarts == 2 && one.state == State::Running
    })?;
    let pause_ms = again.since_ms.saturating_sub(waits.since_ms);
    // Not a measurement: the pause is what is promised, by the node's own clock.
    ensure!(pause_ms >= 10_000, "it started again after {pause_ms} ms");
    Ok(())
}

pub(super) static MUTE: Case = Case::new(
    "endless_words_of_a_failure_are_cut_and_the_node_stays_visible",
    &["R-STATUS-06"],
    &[Guest::Mute, Guest::Trap],
    Node::OWN,
    mute,
);

/// Three microservices whose last words together would fill a status twice.
fn mute(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let mut application = scene.application("app");
    for number in 1..=3 {
        let more = json!({ "configuration": { "bytes": "500000" } });
        application = application.with(&format!("mute-{number}"), Guest::Mute, more);
    }
    scene.apply(&application)?;
    for number in 1..=3 {
        let name = format!("mute-{number}");
        let failed = scene.wait_for(&application.name, &name, "says why", |one| {
            one.state == State::BackOff
        })?;
        let reason = failed.reason.unwrap_or_default();
        ensure!(
            reason.contains("xxx") && reason.len() < 4_096,
            "{} bytes",
            reason.len()
        );
    }
    let missed = scene.status()?.statuses_missed;
    ensure!(missed == 0, "{missed} statuses never arrived");
    let other = scene
        .application("other")
        .with(SUBJECT, Guest::Trap, json!({}));
    scene.run(&other)?;
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
    let mut talk = Talk::start(scene, Guest::Trap, once())?;
    talk.say(scene, "panic\nfirst\nsecond\nthird")?;
    for text in ["handled first", "handled second", "handled third"] {
        scene.wait_line(talk.name(), SUBJECT, text)?;
    }
    Ok(())
}

pub(super) static REPORT: Case = Case::new(
    "a_failure_is_reported_with_file_and_line_and_the_last_log_lines",
    &["R-FAIL-04"],
    &[Guest::Trap],
    NODE,
    report,
);

fn report(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let module = artifacts::read(artifacts::TRAP_WITH_DEBUG_INFORMATION);
    scene.site.push_component("trap-with-lines", &module)?;
    let mut talk = Talk::start(scene, Guest::Trap, once())?;
    let exact = format!("trap-with-lines@{}", crate::modules::VERSION);
    talk.application
        .set(SUBJECT, "module", exact.as_str().into());
    scene.apply(&talk.application)?;
    let name = talk.name().to_owned();
    scene.wait_for(&name, SUBJECT, "runs the other module", |one| {
        one.state == State::Running && one.module_label == exact
    })?;
    talk.say(scene, "the last words\ntrap")?;
    let one = scene.wait_for(&name, SUBJECT, "reports a failure", |one| {
        one.last_failure.is_some()
    })?;
    let report = one
        .last_failure
        .unwrap_or_else(|| unreachable!("it was just there"));
    ensure!(
        report
            .backtrace
            .iter()
            .any(|frame| frame.contains("trap.rs:")),
        "no file and line: {:#?}",
        report.backtrace
    );
    ensure!(
        report
            .last_lines
            .iter()
            .any(|line| line.contains("the last words")),
        "no last lines: {:#?}",
        report.last_lines
    );
    Ok(())
}

pub(super) static DEAD_LETTER: Case = Case::new(
    "a_message_that_is_never_handled_becomes_a_dead_letter",
    &["R-FAIL-05"],
    &[Guest::Reject],
    NODE,
    dead_letter,
);

fn dead_letter(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let more = json!({ "retry": { "attempts": 2, "pause": "10ms" } });
    let mut talk = Talk::start(scene, Guest::Reject, more)?;
    talk.say(scene, "retry")?;
    let one = scene.wait_for(talk.name(), SUBJECT, "has a dead letter", |one| {
        one.dead_letters == 1
    })?;
    ensure!(one.failures == 2, "it was delivered {} times", one.failures);
    Ok(())
}

pub(super) static LETTERS: Case = Case::new(
    "dead_letters_are_listed_shown_replayed_and_dropped",
    &["R-FAIL-05", "R-FAIL-06"],
    &[Guest::Trap],
    NODE,
    letters,
);

fn letters(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let more = json!({
        "retry": { "attempts": 2, "pause": "10ms" },
        "restart": { "pauses": ["0ms"], "jitter": "0%" },
    });
    let mut talk = Talk::start(scene, Guest::Trap, more)?;
    let name = talk.name().to_owned();
    talk.say(scene, "panic")?;
    scene.wait_for(&name, SUBJECT, "died of it twice", |one| {
        one.restarts == 2 && one.dead_letters == 1 && one.state == State::Running
    })?;
    let first = the_letter(scene, &name)?;
    let id = first["id"].to_string();
    ensure!(first["attempts"] == 2, "{first}");
    let reason = first["reason"].as_str().unwrap_or_default();
    ensure!(reason.contains("panicked"), "{first}");
    let shown = dead_letters(scene, "show", &[&id])?;
    // In base64 (RFC 4648 section 4): `panic`.
    ensure!(shown["body"] == "cGFuaWM=", "{shown}");
    ensure!(shown["source"]["microservice"] == "driver", "{shown}");

    let replayed = dead_letters(scene, "replay", &[&id])?;
    ensure!(replayed["replayed"] == 1, "{replayed}");
    scene.wait_for(&name, SUBJECT, "died of it twice more", |one| {
        one.restarts == 4 && one.dead_letters == 1 && one.state == State::Running
    })?;
    let second = the_letter(scene, &name)?;
    ensure!(second["id"] != first["id"], "an id was used twice");

    let dropped = dead_letters(scene, "drop", &[&second["id"].to_string()])?;
    ensure!(dropped["dropped"] == 1, "{dropped}");
    scene.wait_for(&name, SUBJECT, "has no dead letter", |one| {
        one.dead_letters == 0
    })?;
    let none = dead_letters(scene, "list", &["--application", &name])?;
    ensure!(none["items"] == json!([]), "{none}");
    Ok(())
}

/// The one dead letter of an application.
fn the_letter(scene: &Scene<'_>, application: &str) -> anyhow::Result<Value> {
    let survey = dead_letters(scene, "list", &["--application", application])?;
    let items = survey["items"].as_array().context("no items")?;
    ensure!(items.len() == 1, "{survey}");
    Ok(items[0].clone())
}

/// What `haar dead-letters` says of our node.
fn dead_letters(scene: &Scene<'_>, verb: &str, more: &[&str]) -> anyhow::Result<Value> {
    let node = scene.agent.name.as_str();
    let begin = ["dead-letters", verb, "--node", node, "--output", "json"];
    scene.site.haar(&[&begin, more].concat())?.ok()?.json()
}

pub(super) static POLICY: Case = Case::new(
    "the_pauses_of_the_manifest_are_the_pauses_of_the_restarts",
    &["R-FAIL-07"],
    &[Guest::Trap],
    NODE,
    policy,
);

fn policy(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let more = json!({
        "retry": { "attempts": 1 },
        "restart": { "pauses": ["0ms", "50ms"], "jitter": "0%" },
    });
    let mut talk = Talk::start(scene, Guest::Trap, more)?;
    let name = talk.name().to_owned();
    // By default the second failure in a row would cost ten seconds, the fifth a minute.
    for restarts in 1..=5 {
        talk.say(scene, "panic")?;
        scene.wait_for(&name, SUBJECT, "was started again", |one| {
            one.restarts == restarts && one.state == State::Running
        })?;
    }
    Ok(())
}
