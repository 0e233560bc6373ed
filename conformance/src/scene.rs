//! What a case acts in: the site, its node, and the ways to do something and to wait for what comes
//! of it. Nothing here sleeps for luck: everything waits for a condition, with a generous deadline,
//! and says what it saw last when that never came.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use haar_protocol::rest::{Event, List, LogEntry, NodeDetail};
use haar_protocol::status::MicroserviceStatus;
use serde_json::Value;

use crate::application::Application;
use crate::attack::Measuring;
use crate::interrupt;
use crate::process::Process;
use crate::site::{Agent, Site};

/// How long something may take to come true. Machines are shared, builds for development slow, and a
/// compiler may take a minute of processor time before it is ended.
const DEADLINE: Duration = Duration::from_secs(150);
/// Log lines that are looked at.
const LOG_LINES: u32 = 1_000;

/// Events that are looked at.
const EVENTS: u32 = 1_000;

/// One case on one node.
pub(crate) struct Scene<'s> {
    /// The site.
    pub(crate) site: &'s mut Site,
    /// The node.
    pub(crate) agent: Agent,
    /// How long neighbours are measured.
    pub(crate) measuring: Measuring,
    /// For the table: what is worth knowing beside the outcome.
    pub(crate) notes: Vec<String>,
    /// For the reports: what was measured.
    pub(crate) figures: Vec<(String, f64)>,
    case: &'static str,
    /// Applications that are to be deleted at the end.
    applied: Vec<String>,
    last_status: Option<NodeDetail>,
}

impl<'s> Scene<'s> {
    /// A case that begins.
    pub(crate) fn new(
        site: &'s mut Site,
        agent: Agent,
        case: &'static str,
        measuring: Measuring,
    ) -> Self {
        Self {
            site,
            agent,
            measuring,
            notes: Vec::new(),
            figures: Vec::new(),
            case,
            applied: Vec::new(),
            last_status: None,
        }
    }

    /// A name for an application of this case.
    pub(crate) fn name(&self, part: &str) -> String {
        let case = self.case.replace('_', "-");
        let most = 62usize.saturating_sub(part.len());
        let cut = &case[..case.len().min(most)];
        format!("{}-{part}", cut.trim_end_matches('-'))
    }

    /// An application of this case.
    pub(crate) fn application(&self, part: &str) -> Application {
        Application::new(&self.name(part))
    }

    /// An empty directory for the case.
    pub(crate) fn folder(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.site.folder().join("files").join(self.name(name));
        std::fs::create_dir_all(&path)?;
        Ok(path)
    }

    /// Pushes the guests of an application and applies it, without waiting for it to run.
    pub(crate) fn apply(&mut self, application: &Application) -> anyhow::Result<()> {
        self.try_apply(application)?
            .map_err(|refused| anyhow::anyhow!("apply was refused: {refused}"))
    }

    /// Applies what must be refused; the words of the refusal.
    pub(crate) fn refusal(&mut self, application: &Application) -> anyhow::Result<String> {
        match self.try_apply(application)? {
            Ok(()) => bail!("`{}` was applied, and had to be refused", application.name),
            Err(refused) => Ok(refused),
        }
    }

    fn try_apply(&mut self, application: &Application) -> anyhow::Result<Result<(), String>> {
        for guest in &application.guests {
            self.site.push(*guest)?;
        }
        let manifest = application.manifest(&self.agent.name);
        let file = format!("{}.yaml", application.name);
        std::fs::write(
            self.site.folder().join(&file),
            serde_json::to_string_pretty(&manifest)?,
        )?;
        let output = self
            .site
            .haar(&["apply", "-f", &file, "--no-wait", "--yes"])?;
        if output.code != 0 {
            return Ok(Err(output.stderr));
        }
        if !self.applied.contains(&application.name) {
            self.applied.push(application.name.clone());
        }
        Ok(Ok(()))
    }

    /// Applies an application and waits until all of it runs.
    pub(crate) fn run(&mut self, application: &Application) -> anyhow::Result<()> {
        self.apply(application)?;
        let manifest = application.manifest("");
        let names: Vec<String> = manifest["microservices"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|one| one["name"].as_str().map(str::to_owned))
            .collect();
        self.wait_until(&format!("all of {} runs", application.name), |node| {
            names
                .iter()
                .all(|name| of(node, &application.name, name).is_some_and(|one| one.state.is_up()))
        })?;
        Ok(())
    }

    /// Deletes an application and waits until the node has let go of it.
    pub(crate) fn delete(&mut self, name: &str) -> anyhow::Result<()> {
        self.site
            .haar(&["delete", "application", name, "--yes"])?
            .ok()?;
        self.applied.retain(|other| other != name);
        self.wait_until(&format!("{name} is gone"), |node| {
            node.microservices
                .iter()
                .all(|one| one.name.application.as_str() != name)
        })?;
        Ok(())
    }

    /// What the site knows of the node.
    pub(crate) fn status(&mut self) -> anyhow::Result<NodeDetail> {
        let answer = self
            .site
            .rest()
            .get(&format!("nodes/{}", self.agent.name))?;
        let node: NodeDetail = serde_json::from_value(answer)?;
        self.last_status = Some(node.clone());
        Ok(node)
    }

    /// Waits until the node's status is as it should be.
    pub(crate) fn wait_until(
        &mut self,
        what: &str,
        mut is_so: impl FnMut(&NodeDetail) -> bool,
    ) -> anyhow::Result<NodeDetail> {
        let end = Instant::now() + DEADLINE;
        loop {
            let node = self.status()?;
            if is_so(&node) {
                return Ok(node);
            }
            self.check_agent()?;
            if Instant::now() >= end {
                bail!("it never came true that {what}");
            }
            interrupt::pause()?;
        }
    }

    /// Waits until a microservice is as it should be; what its node said of it then.
    pub(crate) fn wait_for(
        &mut self,
        application: &str,
        name: &str,
        what: &str,
        mut is_so: impl FnMut(&MicroserviceStatus) -> bool,
    ) -> anyhow::Result<MicroserviceStatus> {
        let node = self.wait_until(&format!("{application}/{name} {what}"), |node| {
            of(node, application, name).is_some_and(&mut is_so)
        })?;
        of(&node, application, name)
            .cloned()
            .context("it was there a moment ago")
    }

    /// The newest log lines of a microservice, the oldest first.
    pub(crate) fn lines(&self, application: &str, name: &str) -> anyhow::Result<Vec<LogEntry>> {
        self.lines_of(&self.agent.name, application, name)
    }

    fn lines_of(&self, node: &str, application: &str, name: &str) -> anyhow::Result<Vec<LogEntry>> {
        let path = format!(
            "logs?application={application}&microservice={name}&node={node}&tail={LOG_LINES}"
        );
        let lines: List<LogEntry> = serde_json::from_value(self.site.rest().get(&path)?)?;
        Ok(lines.items)
    }

    /// Waits until the log of a microservice has what is looked for.
    pub(crate) fn wait_lines<T>(
        &mut self,
        application: &str,
        name: &str,
        what: &str,
        find: impl FnMut(&[LogEntry]) -> Option<T>,
    ) -> anyhow::Result<T> {
        let node = self.agent.name.clone();
        self.wait_lines_of(&node, application, name, what, find)
    }

    /// The same for a microservice on any node of the site.
    pub(crate) fn wait_lines_of<T>(
        &mut self,
        node: &str,
        application: &str,
        name: &str,
        what: &str,
        mut find: impl FnMut(&[LogEntry]) -> Option<T>,
    ) -> anyhow::Result<T> {
        let end = Instant::now() + DEADLINE;
        loop {
            let lines = self.lines_of(node, application, name)?;
            if let Some(found) = find(&lines) {
                return Ok(found);
            }
            self.check_agent()?;
            if Instant::now() >= end {
                let texts = lines.iter().rev().take(5).map(|entry| &entry.line.text);
                let last: Vec<String> =
                    texts.map(|text| text.chars().take(200).collect()).collect();
                bail!(
                    "the log of {application}/{name} never showed {what}; its last lines, the newest first: {last:#?}"
                );
            }
            interrupt::pause()?;
        }
    }

    /// Waits until the log of a microservice has a line that contains a text; the line.
    pub(crate) fn wait_line(
        &mut self,
        application: &str,
        name: &str,
        text: &str,
    ) -> anyhow::Result<String> {
        self.wait_lines(application, name, &format!("`{text}`"), |lines| {
            let line = lines.iter().find(|one| one.line.text.contains(text));
            line.map(|one| one.line.text.clone())
        })
    }

    /// Waits until the site tells events of a kind about something; as many as there are then.
    pub(crate) fn wait_events(&mut self, kind: &str, subject: &str) -> anyhow::Result<usize> {
        let end = Instant::now() + DEADLINE;
        loop {
            let answer = self.site.rest().get(&format!("events?tail={EVENTS}"))?;
            let events: List<Event> = serde_json::from_value(answer)?;
            let is_one = |event: &&Event| event.kind == kind && event.subject == subject;
            match events.items.iter().filter(is_one).count() {
                0 => {}
                count => return Ok(count),
            }
            if Instant::now() >= end {
                bail!("the site never told `{kind}` about {subject}");
            }
            interrupt::pause()?;
        }
    }

    /// The agent's process.
    pub(crate) fn process(&mut self) -> anyhow::Result<&mut Process> {
        self.agent
            .process
            .as_mut()
            .context("the agent is not running")
    }

    /// An error when the agent has ended by itself.
    pub(crate) fn check_agent(&mut self) -> anyhow::Result<()> {
        self.agent.process.as_mut().map_or(Ok(()), Process::check)
    }

    /// Ends the agent as a power cut does.
    pub(crate) fn kill_agent(&mut self) -> anyhow::Result<()> {
        let process = self.agent.process.take();
        process.context("the agent is not running")?.kill()
    }

    /// Starts the agent again.
    pub(crate) fn start_agent(&mut self) -> anyhow::Result<()> {
        self.site.start_agent(&mut self.agent)
    }

    /// Waits until something is so that the site does not know of.
    pub(crate) fn wait(
        &mut self,
        what: &str,
        mut is_so: impl FnMut() -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        let end = Instant::now() + DEADLINE;
        while !is_so()? {
            self.check_agent()?;
            if Instant::now() >= end {
                bail!("it never came true that {what}");
            }
            interrupt::pause()?;
        }
        Ok(())
    }

    /// Waits until a file has a text in it: how one sees what an offline node does.
    pub(crate) fn wait_for_file(&mut self, path: &Path, text: &str) -> anyhow::Result<()> {
        let end = Instant::now() + DEADLINE;
        loop {
            // What is said around the text need not be one.
            if let Ok(content) = std::fs::read(path)
                && String::from_utf8_lossy(&content).contains(text)
            {
                return Ok(());
            }
            self.check_agent()?;
            if Instant::now() >= end {
                bail!("{} never contained `{text}`", path.display());
            }
            interrupt::pause()?;
        }
    }

    /// Notes something for the table.
    pub(crate) fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// Notes a measurement for the reports.
    pub(crate) fn figure(&mut self, name: &str, value: f64) {
        self.figures.push((name.to_owned(), value));
    }

    /// What helps to find out why a case failed.
    pub(crate) fn diagnosis(&mut self) -> String {
        let status = match &self.last_status {
            Some(status) => serde_json::to_string_pretty(status).unwrap_or_default(),
            None => "none was asked for".to_owned(),
        };
        let log = match &self.agent.process {
            Some(process) => process.log_tail(),
            None => "the agent is not running".to_owned(),
        };
        format!("last status: {status}\n{log}")
    }

    /// Deletes what the case applied, and gives the agent back when it is to be used again.
    pub(crate) fn end(mut self, keep: bool) -> anyhow::Result<Option<Agent>> {
        self.site.ensure_controller()?;
        for name in std::mem::take(&mut self.applied) {
            if keep {
                self.delete(&name)?;
            } else {
                self.site
                    .haar(&["delete", "application", &name, "--yes"])?
                    .ok()?;
            }
        }
        Ok(keep.then_some(self.agent))
    }
}

/// What the node says of a microservice.
pub(crate) fn of<'n>(
    node: &'n NodeDetail,
    application: &str,
    name: &str,
) -> Option<&'n MicroserviceStatus> {
    node.microservices.iter().find(|one| {
        one.name.application.as_str() == application && one.name.microservice.as_str() == name
    })
}

/// A log line that a guest of the suite wrote as JSON.
pub(crate) fn json_line(entry: &LogEntry) -> Option<Value> {
    serde_json::from_str(&entry.line.text).ok()
}
