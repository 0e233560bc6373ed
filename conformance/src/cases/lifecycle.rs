//! Start, change of configuration, update, stop.

use anyhow::{Context as _, ensure};
use haar_conformance_artifacts::Guest;
use haar_protocol::status::State;
use serde_json::json;

use crate::case::{Case, Node};
use crate::modules::VERSION;
use crate::scene::Scene;
use crate::talk::{SUBJECT, Talk};

const NODE: Node = Node::Shared("lifecycle");

pub(super) static CASES: &[&Case] = &[
    &CONFIGURATION,
    &VERSIONS,
    &SCHEMA,
    &UPDATE,
    &START_ERROR,
    &STOP,
    &GRACE,
    &IMPORTS,
    &TOGETHER,
    &HIBERNATION,
];

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

pub(super) static HIBERNATION: Case = Case::new(
    "an_idle_microservice_hibernates_until_something_comes_for_it",
    &["R-LIFE-09"],
    &[Guest::Timers, Guest::Config],
    NODE,
    hibernation,
);

fn hibernation(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let limits = json!({ "limits": { "hibernate_after": "1s" } });
    let hibernates = |scene: &mut Scene<'_>, name: &str, times| {
        scene.wait_for(name, SUBJECT, "hibernates", |one| {
            one.state == State::Hibernating && one.hibernations >= times
        })
    };
    let mut timers = Talk::start(scene, Guest::Timers, limits.clone())?;
    let asleep = hibernates(scene, timers.name(), 1)?;
    ensure!(asleep.memory_bytes == 0, "its memory is still there");
    let replies = timers.ask_all(scene, "once alarm 2500", 2)?;
    ensure!(
        replies[0].text() == "set",
        "a message wakes it: {replies:?}"
    );
    let (tick, expected) = (replies[1].text(), "alarm missed=0");
    ensure!(
        tick == expected,
        "a timer that is not kept ticks: {replies:?}"
    );
    let asleep = hibernates(scene, timers.name(), 3)?;
    ensure!(asleep.restarts == 0, "that is no failure");

    let mut configured = Talk::start(scene, Guest::Config, limits)?;
    hibernates(scene, configured.name(), 1)?;
    configured.application.configure(SUBJECT, "colour", "green");
    scene.apply(&configured.application)?;
    hibernates(scene, configured.name(), 2)?;
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

pub(super) static GRACE: Case = Case::new(
    "an_instance_has_its_grace_period_to_stop_and_no_more",
    &["R-LIFE-05", "R-LIFE-06"],
    &[Guest::Stopper],
    NODE,
    grace,
);

fn grace(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let application = scene
        .application("app")
        .with(
            "quick",
            Guest::Stopper,
            json!({ "configuration": { "stop_ms": 200 }, "limits": { "stop_grace": "30s" } }),
        )
        .with(
            "slow",
            Guest::Stopper,
            json!({ "configuration": { "stop_ms": 60_000 }, "limits": { "stop_grace": "200ms" } }),
        );
    scene.run(&application)?;
    let name = application.name.clone();
    scene.delete(&name)?;
    scene.wait_line(&name, "quick", "stopped")?;
    scene.wait_line(&name, "slow", "stopping")?;
    let lines = scene.lines(&name, "slow")?;
    ensure!(
        lines.iter().all(|entry| entry.line.text != "stopped"),
        "it had more than its grace"
    );
    Ok(())
}

pub(super) static VERSIONS: Case = Case::new(
    "the_configuration_is_read_in_every_version_of_its_interface",
    &["R-CONF-02"],
    &[Guest::ConfigVersions],
    NODE,
    versions,
);

fn versions(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let application = scene.application("app").with(
        "subject",
        Guest::ConfigVersions,
        json!({ "configuration": { "colour": "blue" } }),
    );
    scene.run(&application)?;
    for interface in [
        "0.2.0-rc.1 store",
        "0.2.0-draft store",
        "0.2.0-draft-2024-09-27 store",
        "0.2.0-draft runtime",
    ] {
        let line = format!("{interface}: blue 1 true");
        scene.wait_line(&application.name, "subject", &line)?;
    }
    Ok(())
}

pub(super) static SCHEMA: Case = Case::new(
    "a_configuration_that_does_not_fit_its_schema_is_refused",
    &["R-CONF-03"],
    &[Guest::Config],
    NODE,
    schema,
);

fn schema(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let more = |threshold: &str| {
        json!({
            "configuration": { "threshold": threshold },
            "configuration_schema": { "threshold": { "type": "integer" } },
        })
    };
    let wrong = scene
        .application("app")
        .with("subject", Guest::Config, more("warm"));
    let refusal = scene.refusal(&wrong)?;
    let file = format!("{}.yaml", wrong.name);
    let text = std::fs::read_to_string(scene.site.folder().join(&file))?;
    let mut lines = text.lines().zip(1..);
    let (line, number) = lines
        .find(|(line, _)| line.contains("\"warm\""))
        .context("it is written in JSON, with a line for each value")?;
    let column = line.find("\"warm\"").map_or(0, |index| index + 1);
    let place = format!("{file}:{number}:{column}: ");
    ensure!(
        refusal.contains(&place) && refusal.contains("threshold"),
        "it does not say `{place}`: {refusal}"
    );
    let right = scene
        .application("app")
        .with("subject", Guest::Config, more("40"));
    scene.run(&right)
}

pub(super) static IMPORTS: Case = Case::new(
    "every_import_answers_again_and_again",
    &["R-CLOCK-01", "R-CONF-01"],
    &[Guest::Costs],
    NODE,
    imports,
);

fn imports(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let mut talk = Talk::start(
        scene,
        Guest::Costs,
        json!({ "configuration": { "key": "value" }, "grants": { "key_value": true } }),
    )?;
    talk.say(
        scene,
        "nothing 10\nconfig 10000\nnow 10000\npublish 20\nbatch 1\nset 5\nget 5\nlog 20",
    )?;
    talk.wait_at_least(scene, 20)?;
    scene.wait_line(talk.name(), SUBJECT, "line 19")?;
    scene.wait_for(talk.name(), SUBJECT, "has handled all of it", |one| {
        one.calls >= 9 && one.failures == 0
    })?;
    Ok(())
}

pub(super) static TOGETHER: Case = Case::new(
    "microservices_of_one_module_that_come_together_all_run",
    &["R-LIFE-08"],
    &[Guest::Echo],
    // A fresh one: it has not fetched the module yet.
    Node::OWN,
    together,
);

fn together(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let mut application = scene.application("app");
    for number in 0..16 {
        application = application.with(&format!("echo-{number}"), Guest::Echo, json!({}));
    }
    scene.run(&application)
}
