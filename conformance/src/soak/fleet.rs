//! What a soak runs on: a controller with its relay, two agents that reach it through proxies, and
//! what can be done to them.
//!
//! ```text
//!   sender                                                    receiver
//!   publisher-1 ─┬──────────────── proxy ─ relay ─ proxy ───► receiver
//!   publisher-2 ─│────────────────────────────────────────────►
//!                └─► local
//! ```

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use haar_conformance_artifacts::Guest;
use serde_json::json;

use super::account::{Account, compare};
use super::disk::Disk;
use super::journals::{self, Published, RECEIVED_BYTES};
use super::plan::{End, Fault, Kind};
use crate::application::Application;
use crate::chaos::{Cut, Proxy};
use crate::interrupt;
use crate::process::Process;
use crate::programs::Programs;
use crate::site::{self, Agent, Site};

/// How many publishers there are, numbered from 1.
const PUBLISHERS: u64 = 2;
/// Publishers end when they are told to.
const ENDLESS: u64 = 1 << 40;
/// What may wait of a route: so little that publishers are never far ahead of the faults.
const BACKLOG: &str = "1MiB";
/// The receiver rejects the first attempt of each message with such a number.
const REJECT_EVERY: u64 = 10_000;
/// How much later bytes come.
const DELAY: Duration = Duration::from_millis(120);
/// Bytes in a second of a slow connection.
const THROTTLE: u32 = 64 << 10;
/// After so long without an entry in any journal it has come to rest, and will not go on.
const STALL: Duration = Duration::from_secs(120);

/// The route from a publisher to a receiver, and what came of it.
pub(crate) type Ledger = Vec<(&'static str, Account)>;

/// Everything that runs.
pub(crate) struct Fleet {
    // In the order in which they end.
    sender: Node,
    receiver: Node,
    site: Site,
    journals: PathBuf,
    /// The most bytes of all journals, and since when.
    progress: (u64, Instant),
}

struct Node {
    agent: Agent,
    proxy: Proxy,
    disk: Option<Disk>,
}

impl Fleet {
    /// Starts everything.
    pub(crate) fn start(programs: Programs, folder: &Path, disks: bool) -> anyhow::Result<Self> {
        let mut site = Site::start(programs, folder)?;
        let journals = folder.join("journals");
        for name in ["publisher-1", "publisher-2", "receiver", "local"] {
            std::fs::create_dir_all(journals.join(name))?;
        }
        let sender = Node::start(&site, "sender", disks)?;
        let receiver = Node::start(&site, "receiver", disks)?;
        let application = application(&journals);
        for guest in &application.guests {
            site.push(*guest)?;
        }
        let manifest = application.manifest(&sender.agent.name);
        let manifest = serde_json::to_string_pretty(&manifest)?;
        std::fs::write(folder.join("soak.yaml"), manifest)?;
        site.haar(&["apply", "-f", "soak.yaml", "--no-wait", "--yes"])?
            .ok()?;
        Ok(Self {
            sender,
            receiver,
            site,
            journals,
            progress: (0, Instant::now()),
        })
    }

    /// Messages that the receiver has handled, repeats too.
    pub(crate) fn handled(&self) -> u64 {
        journals::length(&self.file("receiver")) / RECEIVED_BYTES
    }

    /// Has the publishers publish nothing more.
    pub(crate) fn stop_publishers(&self) -> anyhow::Result<()> {
        for publisher in ["publisher-1", "publisher-2"] {
            std::fs::write(self.journals.join(publisher).join("stop"), "")?;
        }
        Ok(())
    }

    /// Bytes of all journals: the same as long as nothing happens.
    pub(crate) fn journal_bytes(&self) -> u64 {
        let names = ["publisher-1", "publisher-2", "receiver", "local"];
        let lengths = names.map(|name| journals::length(&self.file(name)));
        lengths.iter().sum()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.journals.join(name).join("journal")
    }

    /// An error when something has ended by itself, or when nothing has come for too long.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        interrupt::check()?;
        for node in [&mut self.sender, &mut self.receiver] {
            node.agent.process.as_mut().map_or(Ok(()), Process::check)?;
        }
        let bytes = self.journal_bytes();
        if bytes > self.progress.0 {
            self.progress = (bytes, Instant::now());
        }
        ensure!(
            self.progress.1.elapsed() < STALL,
            "nothing has happened for {} s; {}",
            STALL.as_secs(),
            self.diagnosis()
        );
        Ok(())
    }

    /// What came of each route until now.
    pub(crate) fn account(&self) -> anyhow::Result<Ledger> {
        let receiver = journals::received(&self.file("receiver"))?;
        let local = journals::received(&self.file("local"))?;
        let first = Published::read(&self.file("publisher-1"))?;
        let second = Published::read(&self.file("publisher-2"))?;
        Ok(vec![
            (
                "publisher-1 to the other node",
                compare(1, &first, &receiver),
            ),
            (
                "publisher-2 to the other node",
                compare(2, &second, &receiver),
            ),
            ("publisher-1 on its own node", compare(1, &first, &local)),
        ])
    }

    /// Bytes that connections took and lost.
    pub(crate) fn swallowed_bytes(&self) -> u64 {
        self.sender.proxy.swallowed_bytes() + self.receiver.proxy.swallowed_bytes()
    }

    /// Does it, and undoes it.
    pub(crate) fn inject(&mut self, fault: &Fault) -> anyhow::Result<()> {
        match fault.kind {
            Kind::KillRelay => {
                self.site.kill_controller()?;
                hold(fault.time)?;
                return self.site.ensure_controller();
            }
            Kind::KillAll => return self.kill_all(fault.time),
            _ => {}
        }
        let node = match fault.end {
            End::Sender => &mut self.sender,
            End::Receiver => &mut self.receiver,
        };
        match fault.kind {
            Kind::Reset => node.proxy.cut(Cut::Reset),
            Kind::Finish => node.proxy.cut(Cut::Finish),
            Kind::HalfOpen => node.half_open(fault)?,
            Kind::Delay => {
                node.proxy.delay(DELAY);
                hold(fault.time)?;
                node.proxy.delay(Duration::ZERO);
            }
            Kind::Throttle => {
                node.proxy.throttle(Some(THROTTLE));
                hold(fault.time)?;
                node.proxy.throttle(None);
            }
            Kind::KillAgent => {
                node.agent.kill()?;
                hold(fault.time)?;
                self.site.start_agent(&mut node.agent)?;
            }
            Kind::DiskFull => {
                let disk = node.disk.as_ref().context("it has no disk of its own")?;
                disk.fill()?;
                hold(fault.time)?;
                disk.free()?;
            }
            Kind::DiskFullKill => {
                let disk = node.disk.as_ref().context("it has no disk of its own")?;
                disk.fill()?;
                hold(fault.time)?;
                node.agent.kill()?;
                self.site.start_agent(&mut node.agent)?;
                hold(fault.time)?;
                disk.free()?;
            }
            Kind::KillRelay | Kind::KillAll => {}
        }
        Ok(())
    }

    fn kill_all(&mut self, time: Duration) -> anyhow::Result<()> {
        let agents = &mut [&mut self.sender.agent, &mut self.receiver.agent];
        self.site.kill_all(agents)?;
        hold(time)?;
        self.site.start_agent(&mut self.receiver.agent)?;
        self.site.start_agent(&mut self.sender.agent)?;
        self.site.ensure_controller()
    }

    /// The ends of the logs.
    pub(crate) fn diagnosis(&self) -> String {
        let processes = [&self.sender.agent.process, &self.receiver.agent.process];
        let tails: Vec<String> = processes
            .into_iter()
            .flatten()
            .map(Process::log_tail)
            .collect();
        tails.join("\n")
    }
}

impl Node {
    fn start(site: &Site, name: &str, disks: bool) -> anyhow::Result<Self> {
        let data = site.data(name);
        let disk = disks.then(|| Disk::mount(&data)).transpose()?;
        let settings = site::policy(&site.folder().join("journals"));
        let mut agent = site.enrolled_agent(name, &["--memory", "256MiB"], &settings)?;
        let proxy = Proxy::start(site.relay_address()?)?;
        agent.set_relay(proxy.address())?;
        site.start_agent(&mut agent)?;
        Ok(Self { agent, proxy, disk })
    }

    fn half_open(&self, fault: &Fault) -> anyhow::Result<()> {
        let connections = self.proxy.connections();
        self.proxy.deafen();
        if !fault.is_left {
            hold(fault.time)?;
            self.proxy.cut(Cut::Reset);
            return Ok(());
        }
        let end = Instant::now() + STALL;
        while self.proxy.connections() == connections {
            interrupt::pause()?;
            ensure!(
                Instant::now() < end,
                "the agent never noticed a half-open connection"
            );
        }
        Ok(())
    }
}

/// Lets a fault last.
fn hold(time: Duration) -> anyhow::Result<()> {
    let end = Instant::now() + time;
    while Instant::now() < end {
        interrupt::pause()?;
    }
    Ok(())
}

fn application(journals: &Path) -> Application {
    let grants = |name: &str| {
        let folder = journals.join(name);
        json!({ "directories": [{ "host": folder, "guest": "/journal", "access": "read-write" }] })
    };
    let mut application = Application::new("soak");
    for source in 1..=PUBLISHERS {
        let name = format!("publisher-{source}");
        let publisher = json!({
            "configuration": { "source": source, "messages": ENDLESS },
            "limits": { "publish_per_second": 100_000 },
            "grants": grants(&name),
        });
        application = application
            .with(&name, Guest::Numbering, publisher)
            .route_with_backlog(
                &format!("{name}.out"),
                "receiver.in",
                json!({ "size": BACKLOG }),
            );
    }
    let receiver = json!({
        "place": { "node": "receiver" },
        "configuration": { "reject_every": REJECT_EVERY },
        "grants": grants("receiver"),
    });
    application
        .with("receiver", Guest::Journal, receiver)
        .with(
            "local",
            Guest::Journal,
            json!({ "grants": grants("local") }),
        )
        .route_with_backlog("publisher-1.out", "local.in", json!({ "size": BACKLOG }))
}
