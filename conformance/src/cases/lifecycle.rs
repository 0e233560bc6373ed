//! Start, change of configuration, update, stop.

use anyhow::ensure;
use haar_conformance_artifacts::Guest;
use haar_protocol::status::State;
use serde_json::json;

use crate::case::{Case, Node};
use crate::modules::VERSION;
use crate::scene::Scene;
use crate::talk::{SUBJECT, Talk};

const NODE: Node = Node::Shared("lifecycle");

pub(super) static CASES: &[&Case] = &[&CONFIGURATION, &UPDATE, &START_ERROR, &STOP];

pub(super) static CONFIGURATION: Case = Case::new(
    "a_new_configuration_reaches_the_instance_without_a_restart",
    &["R-LIFE-01", "R-LIFE-02", "R-CONF-01"],
    &[Guest::Config],
    NODE,
    configuration,
);

fn configuration(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let colour = json!({ "configuration": { "colour": "blue", "count": 3 } });
    let mut talk = Talk::start(scene, Guest::Config, colour)?;
    let first = talk.wait_any(scene, "because", "start")?;
    ensure!(first.text() == "colour=blue\ncount=3", "{first:?}");
    let before = scene.wait_for(talk.name(), SUBJECT, "runs", |one| {
        one.state == State::Running
    })?;
    talk.application.configure(SUBJECT, "colour", "green");
    scene.apply(&talk.application)?;
    let second = talk.wait_any(scene, "because", "changed")?;
    ensure!(second.text() == "colour=green\ncount=3", "{second:?}");
    let after = scene.wait_for(talk.name(), SUBJECT, "runs", |one| {
        one.state == State::Running
    })?;
    ensure!(
        after.since_ms == before.since_ms && after.restarts == 0,
        "it was started again"
    );
    Ok(())
}

pub(super) static UPDATE: Case = Case::new(
    "another_module_takes_the_place_of_the_old_one",
    &["R-LIFE-03"],
    &[Guest::Echo, Guest::Reject],
    NODE,
    update,
);

fn update(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let mut talk = Talk::start(scene, Guest::Reject, json!({}))?;
    let old = talk.ask(scene, "hello")?;
    ensure!(old.text() == "1", "{old:?}");
    scene.site.push(Guest::Echo)?;
    let module = format!("{}@{VERSION}", Guest::Echo.name());
    talk.application
        .set(SUBJECT, "module", module.as_str().into());
    scene.apply(&talk.application)?;
    scene.wait_for(talk.name(), SUBJECT, "runs the new module", |one| {
        one.state == State::Running && one.module_label == module && one.restarts == 0
    })?;
    let new = talk.ask(scene, "hello")?;
    ensure!(new.text() == "hello", "{new:?}");
    Ok(())
}

pub(super) static START_ERROR: Case = Case::new(
    "an_error_of_start_is_told_and_started_again_with_back_off",
    &["R-LIFE-04"],
    &[Guest::Trap],
    NODE,
    start_error,
);

fn start_error(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let application = scene.application("app").with(
        "subject",
        Guest::Trap,
        json!({ "configuration": { "start": "error" } }),
    );
    scene.apply(&application)?;
    let one = scene.wait_for(&application.name, "subject", "backs off", |one| {
        one.state == State::BackOff && one.restarts >= 1
    })?;
    let reason = one.reason.unwrap_or_default();
    ensure!(
        reason.contains("the configuration asks for an error at the start"),
        "{reason}"
    );
    Ok(())
}

pub(super) static STOP: Case = Case::new(
    "stop_is_the_last_call_and_does_not_last_for_ever",
    &["R-LIFE-05", "R-LIFE-06"],
    &[Guest::Trap, Guest::Sink],
    NODE,
    stop,
);

fn stop(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let application = scene
        .application("app")
        .with(
            "stubborn",
            Guest::Trap,
            json!({
                "configuration": { "stop": "spin" },
                "limits": { "call_timeout": "1s", "fuel_per_call": 1_000_000_000_000u64 },
            }),
        )
        // It says so often that it has something to say only when it stops.
        .with(
            "polite",
            Guest::Sink,
            json!({ "configuration": { "report_ms": 3_600_000 } }),
        );
    scene.run(&application)?;
    let name = application.name.clone();
    scene.delete(&name)?;
    scene.wait_line(&name, "polite", "messages=0 ")?;
    Ok(())
}
