//! A conversation with a guest: the driver says what the case tells it by its configuration, and
//! logs what comes back.

use anyhow::{Context as _, ensure};
use haar_conformance_artifacts::Guest;
use haar_protocol::rest::LogEntry;
use serde_json::{Value, json};

use crate::application::Application;
use crate::scene::{Scene, json_line};

/// The subject's name in its application.
pub(crate) const SUBJECT: &str = "subject";
const DRIVER: &str = "driver";

/// A driver and a subject with routes both ways.
pub(crate) struct Talk {
    /// The application; a case may change it and apply it again.
    pub(crate) application: Application,
    round: u32,
}

/// A message that came back.
#[derive(Debug)]
pub(crate) struct Reply(pub(crate) Value);

impl Reply {
    /// Its body.
    pub(crate) fn text(&self) -> &str {
        self.0["text"].as_str().unwrap_or_default()
    }

    /// One of its headers.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.0["headers"][name].as_str()
    }
}

impl Talk {
    /// Starts a driver and the guest that it talks with, and waits until both run.
    pub(crate) fn start(scene: &mut Scene<'_>, guest: Guest, more: Value) -> anyhow::Result<Self> {
        let application = scene.application("app").with(SUBJECT, guest, more);
        Self::begin(scene, application)
    }

    /// The same with a module that was pushed under this name.
    pub(crate) fn with_module(
        scene: &mut Scene<'_>,
        module: &str,
        more: Value,
    ) -> anyhow::Result<Self> {
        let application = scene.application("app").with_module(SUBJECT, module, more);
        Self::begin(scene, application)
    }

    fn begin(scene: &mut Scene<'_>, application: Application) -> anyhow::Result<Self> {
        let application = application
            .with(DRIVER, Guest::Driver, json!({}))
            .route("driver.out", "subject.in")
            .route("subject.out", "driver.in");
        scene.run(&application)?;
        Ok(Self {
            application,
            round: 0,
        })
    }

    /// The application's name.
    pub(crate) fn name(&self) -> &str {
        &self.application.name
    }

    /// Says lines to the subject, and waits for nothing.
    pub(crate) fn say(&mut self, scene: &mut Scene<'_>, lines: &str) -> anyhow::Result<()> {
        self.round += 1;
        self.application.say(DRIVER, self.round, lines);
        scene.apply(&self.application)
    }

    /// Says lines to the subject, and waits for so many answers.
    pub(crate) fn ask_all(
        &mut self,
        scene: &mut Scene<'_>,
        lines: &str,
        count: usize,
    ) -> anyhow::Result<Vec<Reply>> {
        self.say(scene, lines)?;
        self.wait(scene, count)
    }

    /// Waits for so many answers to what was said last.
    pub(crate) fn wait(&self, scene: &mut Scene<'_>, count: usize) -> anyhow::Result<Vec<Reply>> {
        let replies = self.wait_at_least(scene, count)?;
        ensure!(
            replies.len() == count,
            "{count} answers were to come, and these came: {replies:#?}"
        );
        Ok(replies)
    }

    /// Says one line to the subject, and waits for its answer.
    pub(crate) fn ask(&mut self, scene: &mut Scene<'_>, line: &str) -> anyhow::Result<Reply> {
        let mut replies = self.ask_all(scene, line, 1)?;
        replies.pop().context("no answer")
    }

    /// Waits for so many answers to what was said last, or more.
    pub(crate) fn wait_at_least(
        &self,
        scene: &mut Scene<'_>,
        count: usize,
    ) -> anyhow::Result<Vec<Reply>> {
        let round = self.round.to_string();
        let what = format!("{count} answers in round {round}");
        scene.wait_lines(self.name(), DRIVER, &what, |lines| {
            let replies = replies(lines, &round);
            (replies.len() >= count).then_some(replies)
        })
    }

    /// Waits for an answer with a header, in whatever round.
    pub(crate) fn wait_any(
        &self,
        scene: &mut Scene<'_>,
        header: &str,
        value: &str,
    ) -> anyhow::Result<Reply> {
        let what = format!("an answer with {header}: {value}");
        scene.wait_lines(self.name(), DRIVER, &what, |lines| {
            let mut replies = lines.iter().filter_map(json_line).map(Reply);
            replies.find(|reply| reply.header(header) == Some(value))
        })
    }
}

/// The answers of one round among the driver's lines.
fn replies(lines: &[LogEntry], round: &str) -> Vec<Reply> {
    lines
        .iter()
        .filter_map(json_line)
        .filter(|line| line["round"] == round)
        .map(Reply)
        .collect()
}
