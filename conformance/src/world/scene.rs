//! Where the checks play: a site with one node, a broker of others that it knows as the relay
//! `world`, and a client of others as the device.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use haar_conformance_artifacts::Guest;
use serde_json::{Value, json};

use super::broker::Tried;
use super::client::Client;
use super::devices::{Protocol, Publish};
use super::witness::Witness;
use crate::application::{Application, TYPE};
use crate::attack::Measuring;
use crate::broker::HOST;
use crate::interrupt;
use crate::scene::Scene;
use crate::site::{Agent, Site};

/// How long something may take to come true.
const DEADLINE: Duration = Duration::from_secs(240);
/// How long a message may take before another probe is sent.
const PROBE_PAUSE: Duration = Duration::from_millis(300);
/// When nothing more may come, nothing comes for this long.
const QUIET: Duration = Duration::from_millis(700);
/// The body of a message that only asks whether its topic is heard yet.
const PROBE: &[u8] = b"probe";

/// The site and its node, for all checks.
pub(super) struct World<'s> {
    pub(super) site: &'s mut Site,
    pub(super) agent: Agent,
    /// Counts the witnesses, each of which has a folder of its own.
    pub(super) witnesses: u32,
    /// The application that runs.
    pub(super) running: Option<String>,
    /// The folder that is granted.
    pub(super) folder: PathBuf,
}

/// One check.
pub(super) struct Stage<'w, 's> {
    pub(super) world: &'w mut World<'s>,
    pub(super) broker: &'w mut Tried,
    pub(super) client: &'w Client,
    pub(super) protocol: Protocol,
    /// How many messages a burst has.
    pub(super) burst: u32,
    /// What the broker does otherwise, as it is known to, and the check goes round.
    pub(super) deviations: Vec<String>,
}

/// An application that runs, with what its witness sees.
pub(super) struct Running {
    pub(super) witness: Witness,
}

/// A route from a topic.
pub(super) struct From<'t> {
    pub(super) filter: &'t str,
    pub(super) delivery: &'t str,
    /// The type of the inlet.
    pub(super) content_type: &'t str,
}

impl<'t> From<'t> {
    /// A durable one, for any bytes.
    pub(super) fn durable(filter: &'t str) -> Self {
        Self {
            filter,
            delivery: "durable",
            content_type: TYPE,
        }
    }
}

impl World<'_> {
    /// Tells the site of a broker.
    pub(super) fn apply_relay(&mut self, port: u16) -> anyhow::Result<()> {
        let manifest = json!({
            "api_version": "haar/v1",
            "kind": "Relay",
            "name": "world",
            "carries": "topics",
            "url": format!("mqtt://{HOST}:{port}"),
            "credentials": "anonymous",
        });
        self.write("world.yaml", &manifest)?;
        self.site
            .haar(&["apply", "-f", "world.yaml", "--yes"])?
            .ok()?;
        Ok(())
    }

    fn write(&self, file: &str, manifest: &Value) -> anyhow::Result<()> {
        Ok(std::fs::write(
            self.site.folder().join(file),
            manifest.to_string(),
        )?)
    }

    /// An application with one witness, and its folder.
    fn application(
        &mut self,
        from: &[From<'_>],
        to: &[Value],
    ) -> anyhow::Result<(Application, PathBuf)> {
        self.witnesses += 1;
        let name = format!("world-{}", self.witnesses);
        let folder = self.folder.join(&name);
        std::fs::create_dir_all(&folder)?;
        let mut inlets = serde_json::Map::new();
        let mut routes = to.to_vec();
        for (at, route) in from.iter().enumerate() {
            let inlet = format!("in-{at}");
            inlets.insert(inlet.clone(), route.content_type.into());
            routes.push(json!({
                "from": format!("mqtt:{}", route.filter),
                "relay": "world",
                "to": format!("witness.{inlet}"),
                "delivery": route.delivery,
            }));
        }
        let witness = json!({
            "inlets": inlets,
            "configuration": { "repeat": if to.is_empty() { "false" } else { "true" } },
            "grants": {
                "directories": [{ "host": folder, "guest": "/witness", "access": "read-write" }],
            },
            "limits": { "message_size": "512KiB" },
        });
        let mut application = Application::new(&name).with("witness", Guest::Witness, witness);
        for route in routes {
            application = application.any_route(route);
        }
        Ok((application, folder))
    }

    fn scene(
        &mut self,
        work: impl FnOnce(&mut Scene<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let agent = Agent {
            name: self.agent.name.clone(),
            data: self.agent.data.clone(),
            process: self.agent.process.take(),
        };
        let measuring = Measuring {
            rounds: 1,
            samples: 1,
        };
        let mut scene = Scene::new(self.site, agent, "world", measuring);
        let done = work(&mut scene);
        self.agent = scene.agent;
        done
    }

    /// Ends the application that runs, so that the broker forgets its subscriptions.
    pub(super) fn end(&mut self) -> anyhow::Result<()> {
        match self.running.take() {
            Some(name) => self.scene(|scene| scene.delete(&name)),
            None => Ok(()),
        }
    }

    /// Why the site refuses a route from a topic, if it does.
    pub(super) fn refusal(&mut self, from: From<'_>) -> anyhow::Result<Option<String>> {
        self.site.push(Guest::Witness)?;
        let (application, _) = self.application(&[from], &[])?;
        self.write("refusal.yaml", &application.manifest(&self.agent.name))?;
        let output = self
            .site
            .haar(&["apply", "-f", "refusal.yaml", "--dry-run"])?;
        Ok((output.code != 0).then_some(output.stderr))
    }
}

impl Stage<'_, '_> {
    /// Starts a witness for these routes, without waiting for their subscriptions.
    pub(super) fn start(&mut self, from: &[From<'_>], to: &[Value]) -> anyhow::Result<Running> {
        let (application, folder) = self.world.application(from, to)?;
        self.world.running = Some(application.name.clone());
        self.world.scene(|scene| scene.run(&application))?;
        Ok(Running {
            witness: Witness::of(&folder),
        })
    }

    /// Publishes messages in their order.
    pub(super) fn publish(&self, messages: &[Publish]) -> anyhow::Result<()> {
        self.client
            .publish(self.broker.port(self.protocol), self.protocol, messages)
    }

    /// Waits until messages to each of these topics reach the witness.
    pub(super) fn wait_subscribed(
        &self,
        witness: &mut Witness,
        topics: &[&str],
    ) -> anyhow::Result<()> {
        let end = Instant::now() + DEADLINE;
        loop {
            let seen = witness.seen()?;
            let is_missing = |topic: &&&str| !seen.iter().any(|one| one.topic() == **topic);
            let missing: Vec<&str> = topics.iter().filter(is_missing).copied().collect();
            if missing.is_empty() {
                break;
            }
            ensure!(Instant::now() < end, "nothing arrives from {missing:?}");
            let probe = |topic: &&str| Publish::plain(topic, PROBE, 1);
            self.publish(&missing.iter().map(probe).collect::<Vec<_>>())?;
            let again = Instant::now() + PROBE_PAUSE;
            while Instant::now() < again {
                interrupt::pause()?;
            }
        }
        // Probes that were sent twice are on their way still.
        self.wait_quiet(witness)
    }

    /// Waits until the witness sees nothing more.
    pub(super) fn wait_quiet(&self, witness: &mut Witness) -> anyhow::Result<()> {
        let end = Instant::now() + DEADLINE;
        let (mut count, mut since) = (witness.seen()?.len(), Instant::now());
        while since.elapsed() < QUIET {
            interrupt::pause()?;
            let now = witness.seen()?.len();
            if now != count {
                (count, since) = (now, Instant::now());
            }
            ensure!(
                Instant::now() < end,
                "messages come again and again: {count} until now"
            );
        }
        Ok(())
    }

    /// Waits until something is so.
    pub(super) fn wait(
        &self,
        what: &str,
        mut is_so: impl FnMut() -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        let end = Instant::now() + DEADLINE;
        while !is_so()? {
            if Instant::now() >= end {
                bail!("it never came true that {what}");
            }
            interrupt::pause()?;
        }
        Ok(())
    }

    /// Ends the agent as a power cut does, and starts it again.
    pub(super) fn cut_power(&mut self) -> anyhow::Result<()> {
        self.world.agent.kill()?;
        self.world.site.start_agent(&mut self.world.agent)
    }
}

/// Whether a witness saw a probe.
pub(super) fn is_probe(body: &[u8]) -> bool {
    body == PROBE
}
