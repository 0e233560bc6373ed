//! Log lines.

use anyhow::ensure;
use haar_conformance_artifacts::Guest;
use haar_protocol::log::{LogLine, Stream};
use haar_protocol::status::State;
use serde_json::json;

use crate::case::{Case, Node};
use crate::scene::Scene;
use crate::talk::{SUBJECT, Talk};

const NODE: Node = Node::Shared("logging");
/// A line may have so many bytes, and be marked as cut.
const LINE_BYTES_MAX: usize = 4_096 + '…'.len_utf8();

pub(super) static CASES: &[&Case] = &[&STREAMS, &RATE, &BYTES, &LEVEL];

pub(super) static STREAMS: Case = Case::new(
    "standard_output_and_error_are_log_lines_of_bounded_size",
    &["R-LOG-01", "R-LOG-02"],
    &[Guest::Stdio],
    NODE,
    streams,
);

fn streams(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let limits = json!({ "limits": { "log_lines_per_second": 10_000 } });
    let mut talk = Talk::start(scene, Guest::Stdio, limits)?;
    let name = talk.name().to_owned();
    let wait = |scene: &mut Scene<'_>, what: &str, is_it: fn(&LogLine) -> bool| {
        scene.wait_lines(&name, SUBJECT, what, |lines| {
            lines.iter().any(|entry| is_it(&entry.line)).then_some(())
        })
    };
    talk.say(scene, "lines\ninvalid")?;
    wait(scene, "standard output", |line| {
        line.stream == Stream::Stdout && line.text == "a line on standard output"
    })?;
    wait(scene, "standard error", |line| {
        line.stream == Stream::Stderr && line.text == "a line on standard error"
    })?;
    wait(scene, "the line with bytes that are not UTF-8", |line| {
        line.text.starts_with("before ") && line.text.ends_with(" after")
    })?;
    // A megabyte without a line's end: cut into lines, or cut off.
    talk.say(scene, "long")?;
    wait(scene, "a long line", |line| line.text.starts_with("xxxx"))?;
    for entry in scene.lines(&name, SUBJECT)? {
        let bytes = entry.line.text.len();
        ensure!(bytes <= LINE_BYTES_MAX, "a line of {bytes} bytes");
    }
    Ok(())
}

pub(super) static RATE: Case = Case::new(
    "log_lines_beyond_the_rate_are_dropped_and_counted",
    &["R-LOG-03", "R-LIMIT-07"],
    &[Guest::Limits],
    NODE,
    rate,
);

fn rate(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let limits = json!({ "limits": { "log_lines_per_second": 10 } });
    let mut talk = Talk::start(scene, Guest::Limits, limits)?;
    let answer = talk.ask(scene, "log 5000")?;
    ensure!(
        answer.text() == "5000 ok",
        "the guest was disturbed: {answer:?}"
    );
    let one = scene.wait_for(talk.name(), SUBJECT, "dropped lines", |one| {
        one.log_lines_dropped > 0
    })?;
    let kept = scene.lines(talk.name(), SUBJECT)?.len() as u64;
    ensure!(
        one.log_lines_dropped >= 4_000 && kept <= 1_000,
        "{} dropped, {kept} kept",
        one.log_lines_dropped
    );
    Ok(())
}

pub(super) static BYTES: Case = Case::new(
    "log_bytes_beyond_the_rate_are_dropped_and_counted",
    &["R-LIMIT-12", "R-LIMIT-14"],
    &[Guest::Limits],
    NODE,
    bytes,
);

fn bytes(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let limits = json!({ "log_lines_per_second": 10_000, "log_bytes_per_second": "1KiB" });
    let mut talk = Talk::start(scene, Guest::Limits, json!({ "limits": limits }))?;
    let answer = talk.ask(scene, "log 5000")?;
    ensure!(
        answer.text() == "5000 ok",
        "the guest was disturbed: {answer:?}"
    );
    let one = scene.wait_for(talk.name(), SUBJECT, "dropped lines", |one| {
        one.log_lines_dropped > 0
    })?;
    // A line has about nine bytes, and the limits for lines let all of them through.
    ensure!(
        one.log_lines_dropped >= 2_500 && one.exceeded.log == one.log_lines_dropped,
        "{} dropped, and counted: {}",
        one.log_lines_dropped,
        one.exceeded.log
    );
    Ok(())
}

pub(super) static LEVEL: Case = Case::new(
    "the_level_of_a_microservice_changes_while_it_runs",
    &["R-LOG-04"],
    &[Guest::Levels],
    NODE,
    level,
);

fn level(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let mut talk = Talk::start(scene, Guest::Levels, json!({ "log_level": "warn" }))?;
    let name = talk.name().to_owned();
    scene.wait_line(&name, SUBJECT, "critical")?;
    let before = scene.wait_for(&name, SUBJECT, "runs", |one| one.state == State::Running)?;
    for entry in scene.lines(&name, SUBJECT)? {
        let text = entry.line.text.as_str();
        ensure!(
            !["trace", "debug", "info"].contains(&text),
            "`{text}` was taken"
        );
    }
    talk.application.set(SUBJECT, "log_level", "debug".into());
    scene.apply(&talk.application)?;
    scene.wait_line(&name, SUBJECT, "debug")?;
    let after = scene.wait_for(&name, SUBJECT, "runs", |one| one.state == State::Running)?;
    ensure!(after.since_ms == before.since_ms, "it was started again");
    Ok(())
}
