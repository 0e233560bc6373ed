//! What is done to the site, one trial after the other, and what it says of itself all the while.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use haar_conformance_artifacts::Guest;
use haar_protocol::rest::Cause;
use serde_json::{Value, json};

use super::checker::{NOTICED_MS, SETTLED_MS, Truth, World, check, check_applied};
use super::claims::{self, now_ms};
use super::disk::Disk;
use crate::application::Application;
use crate::case::Skipped;
use crate::chaos::Proxy;
use crate::interrupt;
use crate::site::{Agent, Site};

const APPLICATION: &str = "truth";
/// How far behind a wrong clock is: beyond the tolerance of every relay.
const BEHIND: &str = "-2h";
/// How long the last round waits before it reports false words.
const PATIENCE_MS: u64 = 90_000;
/// How many lines an agent may log while its disk is full.
const FULL_LINES_MAX: usize = 40;

/// The site, what is true of it, and what it said that was not.
pub(super) struct Trials<'s> {
    site: &'s mut Site,
    world: World,
    pub(super) answers: u64,
    pub(super) false_words: Vec<String>,
    /// Trials that this machine does not allow, and why.
    pub(super) skipped: Vec<Skipped>,
    one: Agent,
    two: Agent,
    three: Agent,
    proxy: Option<Proxy>,
}

impl<'s> Trials<'s> {
    /// Three nodes, of which the third is behind a proxy, and an application on all of them.
    pub(super) fn begin(site: &'s mut Site) -> anyhow::Result<Self> {
        site.push(Guest::NodeFacts)?;
        let enrol = ["--memory", "256MiB", "--label", "role=edge"];
        let one = site.new_agent("one", &enrol, "")?;
        let two = site.new_agent("two", &enrol, "")?;
        let proxy = Proxy::start(site.relay_address()?)?;
        let mut three = site.enrolled_agent("three", &["--memory", "256MiB"], "")?;
        three.set_relay(proxy.address())?;
        site.start_agent(&mut three)?;
        let since_ms = now_ms();
        let nodes =
            ["one", "two", "three"].map(|name| (name.to_owned(), Truth::Serves { since_ms }));
        let trials = Self {
            site,
            world: World {
                nodes: nodes.into(),
                instances: 4,
                unplaced: 0,
            },
            answers: 0,
            false_words: Vec::new(),
            skipped: Vec::new(),
            one,
            two,
            three,
            proxy: Some(proxy),
        };
        trials.write_manifest()?;
        trials
            .site
            .haar(&["apply", "-f", "truth.yaml", "--wait=150s", "--yes"])?
            .ok()?;
        Ok(trials)
    }

    /// One instance on each `edge`, one on any `edge`, and one on the third node.
    fn write_manifest(&self) -> anyhow::Result<()> {
        let place = |place: Value| json!({ "place": place, "limits": { "memory": "48MiB" } });
        let application = Application::new(APPLICATION)
            .with(
                "everywhere",
                Guest::NodeFacts,
                place(json!({ "labels": { "role": "edge" } })),
            )
            .with(
                "chosen",
                Guest::NodeFacts,
                place(json!({ "labels": { "role": "edge" }, "count": 1 })),
            )
            .with(
                "pinned",
                Guest::NodeFacts,
                place(json!({ "node": "three" })),
            );
        let text = application.manifest("").to_string();
        Ok(std::fs::write(self.site.folder().join("truth.yaml"), text)?)
    }

    /// All trials.
    pub(super) fn all(&mut self) -> anyhow::Result<()> {
        self.settle("all of it runs")?;
        self.applied("all of it runs", 4)?;
        self.killed()?;
        self.stopped()?;
        self.cut()?;
        self.controller_killed()?;
        self.no_room()?;
        self.wrong_clock()?;
        self.full_disk()?;
        self.deleted()
    }

    fn killed(&mut self) -> anyhow::Result<()> {
        self.one.kill()?;
        self.gone("one", None);
        self.watch("a node is killed")?;
        self.applied("a node is killed", 2)?;
        self.site.start_agent(&mut self.one)?;
        self.serves("one");
        self.settle("a killed node is back")?;
        self.applied("a killed node is back", 4)
    }

    fn stopped(&mut self) -> anyhow::Result<()> {
        signal(&self.two, "-STOP")?;
        self.gone("two", None);
        let watched = self.watch("a node is stopped");
        signal(&self.two, "-CONT")?;
        watched?;
        self.serves("two");
        self.settle("a stopped node goes on")
    }

    fn cut(&mut self) -> anyhow::Result<()> {
        self.proxy = None;
        self.gone("three", None);
        self.watch("a node is cut off")?;
        self.applied("a node is cut off", 3)?;
        self.three.kill()?;
        self.three.set_relay(self.site.relay_address()?)?;
        self.site.start_agent(&mut self.three)?;
        self.serves("three");
        self.settle("a node that was cut off is back")
    }

    fn controller_killed(&mut self) -> anyhow::Result<()> {
        self.one.kill()?;
        self.gone("one", None);
        self.site.kill_controller()?;
        self.site.ensure_controller()?;
        for name in ["two", "three"] {
            self.serves(name); // as far as a site that begins again can know
        }
        self.watch("the controller was killed, and a node with it")?;
        self.site.start_agent(&mut self.one)?;
        self.serves("one");
        self.settle("all are back")
    }

    /// A node that matches the placement and has no room.
    fn no_room(&mut self) -> anyhow::Result<()> {
        let enrol = ["--memory", "16MiB", "--label", "role=edge"];
        let mut small = self.site.new_agent("small", &enrol, "")?;
        self.serves("small");
        (self.world.instances, self.world.unplaced) = (5, 1);
        self.settle("a node has no room")?;
        self.applied("a node has no room", 4)?;
        self.site
            .haar(&["delete", "node", "small", "--yes"])?
            .ok()?;
        small.kill()?;
        self.world.nodes.remove("small");
        (self.world.instances, self.world.unplaced) = (4, 0);
        self.settle("it is deleted")
    }

    fn wrong_clock(&mut self) -> anyhow::Result<()> {
        let Some(library) = faketime() else {
            self.skip("a wrong clock needs faketime (Debian: apt-get install faketime)".into());
            return Ok(());
        };
        self.two.kill()?;
        self.gone("two", Some(Cause::Clock));
        let preload = format!("LD_PRELOAD={}", library.display());
        let behind = format!("FAKETIME={BEHIND}");
        let words = ["env", &preload, &behind, "DONT_FAKE_MONOTONIC=1"];
        self.site.start_agent_under(&mut self.two, &words)?;
        self.watch("a node's clock is wrong")?;
        self.two.kill()?;
        self.site.start_agent(&mut self.two)?;
        self.serves("two");
        self.settle("its clock is right again")
    }

    fn full_disk(&mut self) -> anyhow::Result<()> {
        let Some(disk) = Disk::mount(&self.site.data("full"))? else {
            self.skip("a full disk needs root, for a small file system".into());
            return Ok(());
        };
        let mut agent = self.site.new_agent("full", &["--memory", "64MiB"], "")?;
        self.serves("full");
        self.settle("a node with a small disk joins")?;
        disk.fill()?;
        let since_ms = now_ms();
        self.world
            .nodes
            .insert("full".into(), Truth::Full { since_ms });
        self.settle("its disk is full")?;
        agent.kill()?;
        let log = self.site.folder().join("full.log");
        let before = lines(&log)?;
        self.site.start_agent(&mut agent)?;
        let since_ms = now_ms();
        self.world
            .nodes
            .insert("full".into(), Truth::Full { since_ms });
        self.settle("it starts with a full disk")?;
        let logged = lines(&log)? - before;
        if logged > FULL_LINES_MAX {
            self.note(
                "a full disk",
                vec![format!(
                    "log: an agent with a full disk logged {logged} lines"
                )],
            );
        }
        disk.free()?;
        self.serves("full");
        self.settle("its disk has room again")?;
        self.site.haar(&["delete", "node", "full", "--yes"])?.ok()?;
        self.world.nodes.remove("full");
        agent.kill()
    }

    fn deleted(&mut self) -> anyhow::Result<()> {
        self.site
            .haar(&["delete", "node", "three", "--yes"])?
            .ok()?;
        self.world.nodes.remove("three");
        self.world.unplaced = 1;
        self.settle("a node is deleted")?;
        self.applied("a node is deleted", 3)?;
        self.three.kill()
    }

    fn serves(&mut self, node: &str) {
        let since_ms = now_ms();
        self.world
            .nodes
            .insert(node.to_owned(), Truth::Serves { since_ms });
    }

    fn gone(&mut self, node: &str, cause: Option<Cause>) {
        let since_ms = now_ms();
        self.world
            .nodes
            .insert(node.to_owned(), Truth::Gone { since_ms, cause });
    }

    /// Checks every answer until the site must have noticed the change, and once more.
    fn watch(&mut self, trial: &str) -> anyhow::Result<()> {
        let end_ms = now_ms() + NOTICED_MS.max(SETTLED_MS) + 500;
        loop {
            let is_last = now_ms() > end_ms;
            self.look(trial)?;
            if is_last {
                return Ok(());
            }
        }
    }

    /// Checks every answer until the site has settled, or time is up.
    fn settle(&mut self, trial: &str) -> anyhow::Result<()> {
        let began_ms = now_ms();
        loop {
            self.look(trial)?;
            // Judged as if the settling time had passed.
            let claims = claims::read(self.site, APPLICATION)?;
            let mut strict = self.world.clone();
            for truth in strict.nodes.values_mut() {
                if let Truth::Serves { since_ms } | Truth::Full { since_ms } = truth {
                    *since_ms = since_ms.saturating_sub(SETTLED_MS);
                }
            }
            let wrong = check(&strict, &claims);
            self.answers += 1;
            if wrong.is_empty() {
                return Ok(());
            }
            if now_ms() > began_ms + PATIENCE_MS {
                self.note(trial, wrong);
                return Ok(());
            }
        }
    }

    fn look(&mut self, trial: &str) -> anyhow::Result<()> {
        interrupt::pause()?;
        let claims = claims::read(self.site, APPLICATION)?;
        self.answers += 1;
        let wrong = check(&self.world, &claims);
        self.note(trial, wrong);
        Ok(())
    }

    fn applied(&mut self, trial: &str, runs: u32) -> anyhow::Result<()> {
        let applied = claims::apply(self.site, "truth.yaml", "1s")?;
        self.answers += 1;
        let wrong = check_applied(&self.world, &applied, runs);
        self.note(trial, wrong);
        Ok(())
    }

    /// Records false words, each once per trial.
    fn note(&mut self, trial: &str, wrong: Vec<String>) {
        for text in wrong {
            let text = format!("{trial}: {text}");
            if !self.false_words.contains(&text) {
                println!("false: {text}");
                self.false_words.push(text);
            }
        }
    }

    fn skip(&mut self, why: String) {
        let skipped = Skipped(why);
        println!("{skipped}");
        self.skipped.push(skipped);
    }
}

/// The library of faketime for the machine on which we run, where Debian and others have it.
fn faketime() -> Option<PathBuf> {
    let debian = match std::env::consts::ARCH {
        "arm" => "/usr/lib/arm-linux-gnueabihf".to_owned(),
        machine => format!("/usr/lib/{machine}-linux-gnu"),
    };
    let folders = [debian.as_str(), "/usr/lib64", "/usr/lib"];
    let mut files = folders
        .iter()
        .map(|folder| Path::new(folder).join("faketime/libfaketime.so.1"));
    files.find(|file| file.exists())
}

fn signal(agent: &Agent, signal: &str) -> anyhow::Result<()> {
    let process = agent.process.as_ref().context("the agent is not running")?;
    let id = process.id().to_string();
    let status = Command::new("kill").args([signal, &id]).status()?;
    ensure!(status.success(), "kill {signal} ended with {status}");
    Ok(())
}

fn lines(log: &Path) -> anyhow::Result<usize> {
    Ok(std::fs::read_to_string(log)?.lines().count())
}
