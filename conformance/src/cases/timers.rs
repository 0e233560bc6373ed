//! Timers.

use anyhow::ensure;
use haar_conformance_artifacts::Guest;
use serde_json::json;

use crate::case::{Case, Node};
use crate::scene::Scene;
use crate::talk::{SUBJECT, Talk};

const NODE: Node = Node::Shared("timers");

pub(super) static CASES: &[&Case] = &[&TICKS, &MISSED, &TOO_MANY, &KEPT];

pub(super) static TICKS: Case = Case::new(
    "one_shot_and_repeating_timers_tick_by_name_until_cancelled",
    &["R-TIMER-01"],
    &[Guest::Timers],
    NODE,
    ticks,
);

fn ticks(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let mut talk = Talk::start(scene, Guest::Timers, json!({}))?;
    let replies = talk.ask_all(scene, "once kettle 20", 2)?;
    ensure!(replies[0].text() == "set", "{replies:?}");
    ensure!(replies[1].text() == "kettle missed=0", "{replies:?}");
    talk.say(scene, "every pulse 30")?;
    let beats = talk.wait_at_least(scene, 5)?;
    ensure!(
        beats[1..]
            .iter()
            .all(|beat| beat.text().starts_with("pulse missed=")),
        "{beats:?}"
    );
    talk.say(scene, "cancel pulse")?;
    talk.wait_any(scene, "answer", "cancel pulse")?;
    // Nothing ticks any more: a one-shot timer is the only thing that is heard.
    let replies = talk.ask_all(scene, "once after 300", 2)?;
    ensure!(replies[1].text() == "after missed=0", "{replies:?}");
    Ok(())
}

pub(super) static MISSED: Case = Case::new(
    "missed_ticks_are_reported_as_such_and_never_come_in_a_burst",
    &["R-TIMER-02"],
    &[Guest::Timers],
    NODE,
    missed,
);

fn missed(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let mut talk = Talk::start(scene, Guest::Timers, json!({}))?;
    talk.say(scene, "every pulse 100")?;
    talk.wait_at_least(scene, 2)?;
    talk.say(scene, "busy 1500")?;
    let replies = talk.wait_at_least(scene, 4)?;
    let busy = replies.iter().position(|reply| reply.text() == "was busy");
    let busy = busy.ok_or_else(|| anyhow::anyhow!("it was not busy: {replies:?}"))?;
    let first = replies.get(busy + 1).map(missed_of);
    ensure!(
        first >= Some(10),
        "the first tick after 1,500 ms at 100 ms had to report what it missed: {replies:?}"
    );
    Ok(())
}

fn missed_of(reply: &crate::talk::Reply) -> u64 {
    let missed = reply.text().split("missed=").nth(1);
    missed.and_then(|text| text.parse().ok()).unwrap_or(0)
}

pub(super) static TOO_MANY: Case = Case::new(
    "one_timer_too_many_is_a_typed_answer",
    &["R-TIMER-03", "R-LIMIT-09"],
    &[Guest::Limits],
    NODE,
    too_many,
);

fn too_many(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let limits = json!({ "limits": { "timers": 3 } });
    let mut talk = Talk::start(scene, Guest::Limits, limits)?;
    let answer = talk.ask(scene, "timers 10")?;
    ensure!(
        answer.text().starts_with("3 ") && !answer.text().ends_with("ok"),
        "{answer:?}"
    );
    Ok(())
}

pub(super) static KEPT: Case = Case::new(
    "a_kept_timer_ticks_on_after_a_power_cut",
    &["R-TIMER-04"],
    &[Guest::KeptTimers],
    NODE,
    kept,
);

fn kept(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let mut talk = Talk::start(scene, Guest::KeptTimers, json!({}))?;
    let name = talk.name().to_owned();
    talk.say(scene, "every pulse 100")?;
    scene.wait_line(&name, SUBJECT, "pulse missed=")?;
    // From now on nobody asks for a timer any more.
    talk.say(scene, "cancel nothing")?;
    scene.wait_line(&name, SUBJECT, "cancel nothing: false")?;
    let before = scene.status()?.status_sequence;
    scene.kill_agent()?;
    scene.start_agent()?;
    scene.wait_until("the new agent has reported", |node| {
        node.status_sequence > before
    })?;
    scene.wait_lines(&name, SUBJECT, "a tick in the second life", |lines| {
        let texts: Vec<&str> = lines.iter().map(|entry| entry.line.text.as_str()).collect();
        let second = texts.iter().rposition(|text| *text == "started")?;
        let is_second = texts.iter().filter(|text| **text == "started").count() == 2;
        let ticks = texts[second..]
            .iter()
            .any(|text| text.starts_with("pulse missed="));
        (is_second && ticks).then_some(())
    })
}
