//! The site that the cases run in: one controller with its relay, and agents as they are needed.
//! All of it lives in one directory, and ends with this value.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use haar_conformance_artifacts::{self as artifacts, Guest};
use serde_json::Value;

use crate::child;
use crate::modules;
use crate::process::Process;
use crate::programs::{Program, Programs};
use crate::rest::Client;

/// How often agents send a status: often, so that cases need not wait.
const STATUS_INTERVAL: &str = "200ms";

/// How long a command may take: longer than the longest `--wait` of a case.
const COMMAND_TIME: Duration = Duration::from_secs(300);

/// Compilers get a minute by default, and what is refused after ten seconds is refused then.
const CONTROLLER_SETTINGS: &str = "compile = { time = \"10s\" }\n";

/// A line of `agent.toml` with which a device's owner allows a directory, and all below it.
pub(crate) fn policy(directory: &Path) -> String {
    format!("\n[policy]\ndirectories = [{{ path = {directory:?}, access = \"read-write\" }}]\n")
}

/// A running site.
pub(crate) struct Site {
    folder: PathBuf,
    programs: Programs,
    /// Agents that several cases share, by name.
    shared: BTreeMap<&'static str, Agent>,
    controller: Option<Process>,
    /// Where the controller and its relay listen, so that they listen there again.
    addresses: (String, String),
    client: Client,
    pushed: BTreeSet<String>,
    /// Counts the shared agents: one that a failed case used is replaced under another name.
    generation: u32,
}

/// A node of the site with its process.
pub(crate) struct Agent {
    /// Its name in the site.
    pub(crate) name: String,
    /// Its data directory.
    pub(crate) data: PathBuf,
    /// None while it is not running.
    pub(crate) process: Option<Process>,
}

impl Agent {
    /// Has it reach the relay by another address, from its next start on: through a proxy.
    pub(crate) fn set_relay(&self, address: SocketAddr) -> anyhow::Result<()> {
        let file = self.data.join("enrolment.json");
        let mut enrolment: Value = serde_json::from_str(&std::fs::read_to_string(&file)?)?;
        let relay = enrolment["relays"][0].as_str();
        let scheme = relay.and_then(|url| url.split("://").next());
        let scheme = scheme.with_context(|| format!("{} names no relay", file.display()))?;
        enrolment["relays"] = serde_json::json!([format!("{scheme}://{address}")]);
        std::fs::write(&file, serde_json::to_string_pretty(&enrolment)?)?;
        Ok(())
    }

    /// Ends it as a power cut does.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        let process = self.process.take();
        process.context("the agent is not running")?.kill()
    }
}

/// What a command did.
pub(crate) struct Output {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Output {
    /// An error with everything it said, unless it went well.
    pub(crate) fn ok(self) -> anyhow::Result<Self> {
        if self.code != 0 {
            bail!("exit code {}: {}{}", self.code, self.stdout, self.stderr);
        }
        Ok(self)
    }

    /// What it said to programs.
    pub(crate) fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_str(&self.stdout).with_context(|| format!("not JSON: {}", self.stdout))
    }
}

impl Site {
    /// Starts a controller, and makes a publisher that it trusts.
    pub(crate) fn start(programs: Programs, folder: &Path) -> anyhow::Result<Self> {
        let free = "127.0.0.1:0".to_owned();
        let (process, said) = start_controller(&programs, folder, &(free.clone(), free))?;
        let text = |key: &str| -> anyhow::Result<String> {
            let value = said[key].as_str();
            Ok(value
                .with_context(|| format!("the controller did not say its `{key}`"))?
                .to_owned())
        };
        let address = |url: String| -> anyhow::Result<String> {
            let address = url.split("://").nth(1).map(|rest| rest.trim_matches('/'));
            Ok(address
                .with_context(|| format!("{url} is not a URL"))?
                .to_owned())
        };
        let addresses = (address(text("url")?)?, address(text("relay")?)?);
        let site = Self {
            client: Client::new(&context(folder))?,
            folder: folder.to_owned(),
            programs,
            shared: BTreeMap::new(),
            controller: Some(process),
            addresses,
            pushed: BTreeSet::new(),
            generation: 0,
        };
        site.haar(&["key", "new", "team"])?.ok()?;
        site.haar(&["publisher", "trust", "team", "team.pub"])?
            .ok()?;
        Ok(site)
    }

    /// The directory of the whole run.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The REST API.
    pub(crate) fn rest(&self) -> &Client {
        &self.client
    }

    /// The REST API, for another thread.
    pub(crate) fn another_client(&self) -> anyhow::Result<Client> {
        Client::new(&context(&self.folder))
    }

    /// Runs `haar` in the directory of the run.
    pub(crate) fn haar(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        self.command(&self.programs.haar, arguments)
    }

    fn command(&self, program: &Program, arguments: &[&str]) -> anyhow::Result<Output> {
        let mut command = program.command();
        command
            .args(arguments)
            .current_dir(&self.folder)
            .env("HAAR_CONTEXT", context(&self.folder))
            .env("HOME", &self.folder)
            .env("NO_COLOR", "1");
        let output = child::output(&mut command, COMMAND_TIME)?;
        Ok(Output {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Pushes a guest, once.
    pub(crate) fn push(&mut self, guest: Guest) -> anyhow::Result<()> {
        self.push_component(guest.name(), &artifacts::read(guest.path()))
    }

    /// Names, signs and pushes a component, once.
    pub(crate) fn push_component(&mut self, name: &str, component: &[u8]) -> anyhow::Result<()> {
        if self.pushed.contains(name) {
            return Ok(());
        }
        let file = self.signed(name, component, "team.key")?;
        self.haar(&["push", &file, "--quiet"])?
            .ok()
            .with_context(|| format!("pushing {name}"))?;
        self.pushed.insert(name.to_owned());
        Ok(())
    }

    /// Names a component and signs it with a key file. Returns the module's file.
    pub(crate) fn signed(&self, name: &str, component: &[u8], key: &str) -> anyhow::Result<String> {
        let file = format!("{name}.wasm");
        std::fs::write(
            self.folder.join(&file),
            modules::with_name(component, name)?,
        )?;
        self.haar(&["sign", &file, "--key", key])?
            .ok()
            .with_context(|| format!("signing {name}"))?;
        Ok(file)
    }

    /// The agent that all cases of this name share.
    pub(crate) fn take_shared(&mut self, name: &'static str) -> anyhow::Result<Agent> {
        match self.shared.remove(name) {
            Some(agent) => Ok(agent),
            None => {
                self.generation += 1;
                let name = format!("{name}-{}", self.generation);
                self.new_agent(&name, &["--memory", "1GiB"], "")
            }
        }
    }

    /// Gives a shared agent back.
    pub(crate) fn give_back(&mut self, name: &'static str, agent: Agent) {
        self.shared.insert(name, agent);
    }

    /// Enrols a device, writes its `agent.toml`, and starts its agent.
    pub(crate) fn new_agent(
        &self,
        name: &str,
        enrol: &[&str],
        settings: &str,
    ) -> anyhow::Result<Agent> {
        let mut agent = self.enrolled_agent(name, enrol, settings)?;
        self.start_agent(&mut agent)?;
        Ok(agent)
    }

    /// Enrols a device and writes its `agent.toml`. Its owner allows the directories of the cases when
    /// the settings have no policy.
    pub(crate) fn enrolled_agent(
        &self,
        name: &str,
        enrol: &[&str],
        settings: &str,
    ) -> anyhow::Result<Agent> {
        let token = self.token(name)?;
        self.enrol_with(&token, name, enrol)?
            .ok()
            .with_context(|| format!("enrolling {name}"))?;
        let agent = Agent {
            name: name.to_owned(),
            data: self.data(name),
            process: None,
        };
        let mut settings = settings.to_owned();
        if !settings.contains("[policy]") {
            settings += &policy(&self.folder.join("files"));
        }
        std::fs::write(agent.data.join("agent.toml"), settings)?;
        Ok(agent)
    }

    /// Where the relay listens.
    pub(crate) fn relay_address(&self) -> anyhow::Result<SocketAddr> {
        let (_, relay) = &self.addresses;
        relay
            .parse()
            .with_context(|| format!("{relay} is not an address"))
    }

    /// An enrolment token for a node of this name.
    pub(crate) fn token(&self, name: &str) -> anyhow::Result<String> {
        let arguments = ["node", "token", "--name", name, "--output", "json"];
        let made = self.haar(&arguments)?.ok()?.json()?;
        let token = made["token"].as_str().context("no token was made")?;
        Ok(token.to_owned())
    }

    /// Enrols a device with a token.
    pub(crate) fn enrol(&self, token: &str, name: &str) -> anyhow::Result<Output> {
        self.enrol_with(token, name, &[])
    }

    fn enrol_with(&self, token: &str, name: &str, more: &[&str]) -> anyhow::Result<Output> {
        let data = self.data(name);
        let data = data.to_str().context("the path is not UTF-8")?;
        let mut arguments = vec!["enrol", token, "--data", data];
        arguments.extend(more);
        self.command(&self.programs.agent, &arguments)
    }

    /// The data directory of an agent of this name.
    pub(crate) fn data(&self, name: &str) -> PathBuf {
        self.folder.join("nodes").join(name)
    }

    /// Starts an agent that is not running.
    pub(crate) fn start_agent(&self, agent: &mut Agent) -> anyhow::Result<()> {
        self.start_agent_under(agent, &[])
    }

    /// The same under a wrapper program such as `env`.
    pub(crate) fn start_agent_under(
        &self,
        agent: &mut Agent,
        words: &[&str],
    ) -> anyhow::Result<()> {
        let data = agent.data.to_str().context("the path is not UTF-8")?;
        let (process, _) = Process::start(
            &agent.name,
            &self.programs.agent.under(words),
            &["run", "--data", data, "--status-interval", STATUS_INTERVAL],
            self.folder.join(format!("{}.log", agent.name)),
        )?;
        agent.process = Some(process);
        Ok(())
    }

    /// Kills the controller, and with it the relay.
    pub(crate) fn kill_controller(&mut self) -> anyhow::Result<()> {
        match self.controller.take() {
            Some(process) => process.kill(),
            None => Ok(()),
        }
    }

    /// Kills the controller and these agents at once, as a power cut of all of them does.
    pub(crate) fn kill_all(&mut self, agents: &mut [&mut Agent]) -> anyhow::Result<()> {
        let agents = agents.iter_mut().filter_map(|agent| agent.process.take());
        Process::kill_all(agents.chain(self.controller.take()).collect())
    }

    /// Starts the controller again where it was, if it is not running.
    pub(crate) fn ensure_controller(&mut self) -> anyhow::Result<()> {
        if let Some(process) = &mut self.controller {
            return process.check();
        }
        let (process, _) = start_controller(&self.programs, &self.folder, &self.addresses)?;
        self.controller = Some(process);
        Ok(())
    }

    /// Ends everything in order, agents first, so that the controller hears their last status.
    pub(crate) fn stop(&mut self) {
        self.shared.clear();
        self.controller = None;
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.stop();
    }
}

fn start_controller(
    programs: &Programs,
    folder: &Path,
    (listen, relay): &(String, String),
) -> anyhow::Result<(Process, Value)> {
    let data = folder.join("controller");
    std::fs::create_dir_all(&data)?;
    std::fs::write(data.join("controller.toml"), CONTROLLER_SETTINGS)?;
    let arguments = [
        "run",
        "--data",
        data.to_str().context("the path is not UTF-8")?,
        "--name",
        "conformance",
        "--listen",
        listen,
        "--relay-listen",
        relay,
    ];
    let log = folder.join("controller.log");
    Process::start("controller", &programs.controller, &arguments, log)
}

fn context(folder: &Path) -> PathBuf {
    folder.join("controller/context.toml")
}
