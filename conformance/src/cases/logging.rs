//! Log lines.

use anyhow::ensure;
use haar_conformance_artifacts::Guest;
use haar_protocol::log::Stream;
use serde_json::json;

use crate::case::{Case, Node};
use crate::scene::Scene;
use crate::talk::{SUBJECT, Talk};

const NODE: Node = Node::Shared("logging");
/// A line may have so many bytes, and be marked as cut.
const LINE_BYTES_MAX: usize = 4_096 + '…'.len_utf8();

pub(super) static CASES: &[&Case] = &[&STREAMS, &RATE];

pub(super) static STREAMS: Case = Case::new(
    "standard_output_and_error_are_log_lines_of_bounded_size",
    &["R-LOG-01", "R-LOG-02"],
    &[Guest::Stdio],
    NODE,
    streams,
);

fn streams(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let mut talk = Talk::start(scene, Guest::Stdio, json!({}))?;
    talk.say(scene, "lines\ninvalid\nlong\nlines")?;
    let lines = scene.wait_lines(talk.name(), SUBJECT, "all streams twice", |lines| {
        let of = |stream| {
            lines
                .iter()
                .filter(|entry| entry.line.stream == stream)
                .count()
        };
        (of(Stream::Stderr) >= 2 && of(Stream::Stdout) >= 4).then(|| lines.to_vec())
    })?;
    let has = |stream: Stream, text: &str| {
        let mut lines = lines.iter();
        lines.any(|entry| entry.line.stream == stream && entry.line.text == text)
    };
    ensure!(
        has(Stream::Stdout, "a line on standard output"),
        "{lines:#?}"
    );
    ensure!(
        has(Stream::Stderr, "a line on standard error"),
        "{lines:#?}"
    );
    let longest = lines.iter().map(|entry| entry.line.text.len()).max();
    ensure!(
        longest <= Some(LINE_BYTES_MAX),
        "a line of {longest:?} bytes"
    );
    ensure!(
        lines
            .iter()
            .any(|entry| entry.line.text.starts_with("before ")
                && entry.line.text.ends_with(" after")),
        "bytes that are not UTF-8 took the line with them: {lines:#?}"
    );
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
