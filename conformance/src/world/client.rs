//! Clients of others, as devices: Mosquitto's tools, Eclipse Paho and MQTT.js. The last two are driven by the
//! scripts in `conformance/world`: `publish` reads a message a line, as [`Publish::line`] writes it, and ends
//! when all are acknowledged; `listen` prints `{"ready": true}` when it is subscribed, and then a
//! line for each message: `{"topic", "qos", "retain", "type", "user": [[name, value]], "body"}`.

mod tool;

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;

use super::devices::{Protocol, Publish};
use super::tools::Tools;
use crate::{child, interrupt, mosquitto};

/// How long a client may take for what it publishes.
const DEADLINE: Duration = Duration::from_secs(240);
/// How long a client may take to subscribe.
const READY_TIME: Duration = Duration::from_secs(60);

/// A client that others make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Kind {
    /// mosquitto_pub and mosquitto_sub
    MosquittoTools,
    /// Eclipse Paho for Python
    Paho,
    /// MQTT.js for Node.js
    MqttJs,
}

impl Kind {
    /// Its name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::MosquittoTools => "mosquitto_pub/sub",
            Kind::Paho => "Paho (Python)",
            Kind::MqttJs => "MQTT.js",
        }
    }
}

/// A client, ready to be started.
pub(super) struct Client {
    pub(super) kind: Kind,
    pub(super) version: String,
    program: PathBuf,
    /// What stands before `publish` or `listen`, and behind it.
    before: Vec<String>,
    behind: Vec<String>,
    folder: PathBuf,
}

/// A message that a client heard.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Heard {
    pub(super) topic: String,
    pub(super) retain: bool,
    #[serde(rename = "type")]
    pub(super) content_type: Option<String>,
    pub(super) user: Vec<(String, String)>,
    /// In hexadecimal.
    pub(super) body: String,
}

impl Client {
    /// Installs what is missing of it. `folder` is for its files.
    pub(super) fn new(kind: Kind, tools: &Tools, folder: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let script = |name: &str| {
            let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("world");
            scripts.join(name).display().to_string()
        };
        let (program, version, before, behind) = match kind {
            Kind::MosquittoTools => {
                let program = mosquitto::program("mosquitto_pub")?;
                let version = tool::version(&program)?;
                (program, version, Vec::new(), Vec::new())
            }
            Kind::Paho => {
                let (python, version) = tools.paho()?;
                let before = vec![script("paho_client.py")];
                (python, version.to_owned(), before, Vec::new())
            }
            Kind::MqttJs => {
                let (modules, version) = tools.mqtt_js()?;
                let before = vec![script("mqttjs_client.cjs")];
                let behind = vec!["--modules".to_owned(), modules.display().to_string()];
                ("node".into(), version.to_owned(), before, behind)
            }
        };
        Ok(Self {
            kind,
            version,
            program,
            before,
            behind,
            folder: folder.to_owned(),
        })
    }

    /// True when it connects again by itself and sends again what was not acknowledged.
    pub(super) fn survives_restarts(&self) -> bool {
        self.kind != Kind::MosquittoTools
    }

    /// Publishes messages in their order, and returns when all are acknowledged.
    pub(super) fn publish(
        &self,
        port: u16,
        protocol: Protocol,
        messages: &[Publish],
    ) -> anyhow::Result<()> {
        if self.kind == Kind::MosquittoTools {
            for group in tool::groups(messages) {
                wait(self.begin_publishing(port, protocol, group)?, self.kind)?;
            }
            return Ok(());
        }
        wait(self.begin_publishing(port, protocol, messages)?, self.kind)
    }

    /// Begins to publish. Messages of Mosquitto's tool must be of one topic, quality and kind.
    pub(super) fn begin_publishing(
        &self,
        port: u16,
        protocol: Protocol,
        messages: &[Publish],
    ) -> anyhow::Result<Child> {
        let input = self.folder.join("publish");
        if self.kind == Kind::MosquittoTools {
            let command = tool::publisher(&self.program, &input, port, protocol, messages)?;
            return self.spawn(command);
        }
        let mut file = std::io::BufWriter::new(File::create(&input)?);
        for message in messages {
            writeln!(file, "{}", message.line())?;
        }
        file.flush()?;
        let mut command = self.script("publish", port, protocol);
        command.stdin(File::open(&input)?);
        self.spawn(command)
    }

    /// Listens to a filter; returns when the broker has taken the subscription.
    pub(super) fn listen(
        &self,
        port: u16,
        protocol: Protocol,
        filter: &str,
    ) -> anyhow::Result<Listener> {
        let output = self.folder.join("heard");
        let mut command = match self.kind {
            Kind::MosquittoTools => tool::subscriber(&self.program, port, protocol, filter),
            Kind::Paho | Kind::MqttJs => {
                let mut command = self.script("listen", port, protocol);
                command.args(["--filter", filter, "--qos", "1"]);
                command
            }
        };
        command.stdin(Stdio::null()).stdout(File::create(&output)?);
        let child = self.spawn(command)?;
        let mut listener = Listener {
            kind: self.kind,
            child,
            output,
        };
        listener.wait_ready()?;
        Ok(listener)
    }

    fn script(&self, mode: &str, port: u16, protocol: Protocol) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(&self.before)
            .arg(mode)
            .args(&self.behind)
            .args(["--port", &port.to_string(), "--mqtt", protocol.name()])
            .args(["--id", &format!("world-{mode}")]);
        command
    }

    fn spawn(&self, mut command: Command) -> anyhow::Result<Child> {
        let said = File::create(self.folder.join("said"))?;
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command.stderr(said).spawn();
        child.with_context(|| format!("can't start {program}"))
    }
}

fn wait(mut child: Child, kind: Kind) -> anyhow::Result<()> {
    let status = child::wait(&mut child, kind.name(), DEADLINE)?;
    ensure!(status.success(), "{} ended with {status}", kind.name());
    Ok(())
}

/// A client that listens. It ends with this value.
pub(super) struct Listener {
    kind: Kind,
    child: Child,
    output: PathBuf,
}

impl Listener {
    fn wait_ready(&mut self) -> anyhow::Result<()> {
        let end = Instant::now() + READY_TIME;
        loop {
            let said = std::fs::read(&self.output)?;
            let said = String::from_utf8_lossy(&said);
            let is_ready = match self.kind {
                Kind::MosquittoTools => said.contains("Subscribed (mid:"),
                Kind::Paho | Kind::MqttJs => said.contains("\"ready\""),
            };
            if is_ready {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status}: {said}", self.kind.name());
            }
            if Instant::now() >= end {
                bail!("{} does not subscribe: {said}", self.kind.name());
            }
            interrupt::pause()?;
        }
    }

    /// What it has heard, in its order.
    pub(super) fn heard(&self) -> anyhow::Result<Vec<Heard>> {
        let text = std::fs::read_to_string(&self.output)?;
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let mut heard = Vec::new();
        for line in whole.lines() {
            match self.kind {
                Kind::MosquittoTools if line.starts_with("heard\t") => {
                    heard.push(tool::heard(line)?)
                }
                Kind::Paho | Kind::MqttJs if line.contains("\"topic\"") => {
                    heard.push(serde_json::from_str(line)?);
                }
                _ => {}
            }
        }
        Ok(heard)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Both fail only when it has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
