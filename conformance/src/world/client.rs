//! Clients of others, as devices: Mosquitto's tools, Eclipse Paho and MQTT.js. The last two are driven by the
//! scripts in `conformance/world`: `publish` reads a message a line, as [`Publish::line`] writes it, and ends
//! when all are acknowledged; `listen` prints `{"ready": true}` when it is subscribed, and then a
//! line for each message: `{"topic", "qos", "retain", "type", "user": [[name, value]], "body"}`.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde::Deserialize;

use super::devices::{Protocol, Publish, unhex};
use super::tools::Tools;
use crate::broker::HOST;
use crate::{interrupt, mosquitto};

/// How long a client may take for what it publishes.
const DEADLINE: Duration = Duration::from_secs(240);

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
                let version = mosquitto_version(&program)?;
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
            for group in groups(messages) {
                wait(self.mosquitto_pub(port, protocol, group)?, self.kind)?;
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
        if self.kind == Kind::MosquittoTools {
            return self.mosquitto_pub(port, protocol, messages);
        }
        let input = self.folder.join("publish");
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
            Kind::MosquittoTools => {
                let mut command = Command::new(self.program.with_file_name("mosquitto_sub"));
                // `-d` says when it is subscribed. A topic may have blanks, so it stands last.
                command
                    .args(mosquitto_arguments(port, protocol))
                    .args(["-d", "-q", "1", "-t", filter])
                    .args(["-F", "heard\t%r\t%x\t%C\t%P\t%t"]);
                command
            }
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

    /// Starts `mosquitto_pub` for messages that differ in their bodies only: one, or lines of text.
    fn mosquitto_pub(
        &self,
        port: u16,
        protocol: Protocol,
        messages: &[Publish],
    ) -> anyhow::Result<Child> {
        let first = messages.first().context("there is nothing to publish")?;
        let input = self.folder.join("publish");
        let mut command = Command::new(&self.program);
        command.args(mosquitto_arguments(port, protocol)).args([
            "-t",
            &first.topic,
            "-q",
            &first.qos.to_string(),
        ]);
        if first.retain {
            command.arg("-r");
        }
        if protocol == Protocol::V5 {
            properties(&mut command, first);
        }
        match messages {
            [one] if one.body.is_empty() => {
                command.arg("-n");
            }
            [one] => {
                std::fs::write(&input, &one.body)?;
                command.arg("-s");
            }
            several => {
                let mut file = std::io::BufWriter::new(File::create(&input)?);
                for message in several {
                    file.write_all(&message.body)?;
                    file.write_all(b"\n")?;
                }
                file.flush()?;
                command.arg("-l");
            }
        }
        let stdin = match first.body.is_empty() {
            true => Stdio::null(),
            false => File::open(&input)?.into(),
        };
        command.stdin(stdin).stdout(Stdio::null());
        self.spawn(command)
    }
}

fn wait(mut child: Child, kind: Kind) -> anyhow::Result<()> {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(status) = child.try_wait()? {
            ensure!(status.success(), "{} ended with {status}", kind.name());
            return Ok(());
        }
        let late = anyhow::anyhow!("{} does not end", kind.name());
        let waited = match Instant::now() < end {
            true => interrupt::pause(),
            false => Err(late),
        };
        if let Err(error) = waited {
            let _ = child.kill(); // it has ended already, then
            let _ = child.wait();
            return Err(error);
        }
    }
}

/// Messages that one `mosquitto_pub` can send: lines of text to one topic, or a single message.
fn groups(messages: &[Publish]) -> impl Iterator<Item = &[Publish]> {
    messages.chunk_by(|one, next| {
        let is_line = |message: &Publish| {
            !message.body.is_empty() && !message.body.iter().any(|byte| matches!(byte, b'\n' | 0))
        };
        let differs_in_body_only = Publish {
            body: one.body.clone(),
            ..next.clone()
        } == *one;
        differs_in_body_only && is_line(one) && is_line(next)
    })
}

fn mosquitto_arguments(port: u16, protocol: Protocol) -> [String; 6] {
    let version = match protocol {
        Protocol::V311 => "311",
        Protocol::V5 => "5",
    };
    [
        "-h",
        &HOST.to_string(),
        "-p",
        &port.to_string(),
        "-V",
        version,
    ]
    .map(str::to_owned)
}

fn properties(command: &mut Command, message: &Publish) {
    let told = &message.properties;
    let mut tell = |name: &str, values: &[String]| {
        command.args(["-D", "publish", name]).args(values);
    };
    let text = |value: &Option<String>| value.clone().map(|value| vec![value]);
    let number = |value: Option<u32>| value.map(|value| vec![value.to_string()]);
    let one = [
        ("response-topic", text(&told.response_topic)),
        ("content-type", text(&told.content_type)),
        ("message-expiry-interval", number(told.message_expiry_s)),
        (
            "payload-format-indicator",
            number(told.payload_format.map(u32::from)),
        ),
        ("topic-alias", number(told.topic_alias.map(u32::from))),
    ];
    for (name, values) in one {
        if let Some(values) = values {
            tell(name, &values);
        }
    }
    for (name, value) in &told.user {
        tell("user-property", &[name.clone(), value.clone()]);
    }
}

fn mosquitto_version(program: &Path) -> anyhow::Result<String> {
    let output = Command::new(program).arg("--version").output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = said.split_whitespace().nth(2);
    Ok(version.context("mosquitto_pub says no version")?.to_owned())
}

/// A client that listens. It ends with this value.
pub(super) struct Listener {
    kind: Kind,
    child: Child,
    output: PathBuf,
}

impl Listener {
    fn wait_ready(&mut self) -> anyhow::Result<()> {
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
                anyhow::bail!("{} ended with {status}: {said}", self.kind.name());
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
                Kind::MosquittoTools if line.starts_with("heard\t") => heard.push(tabbed(line)?),
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

/// A line of `mosquitto_sub`: retained, body, content type, user properties (`name:value` with blanks
/// between), topic.
fn tabbed(line: &str) -> anyhow::Result<Heard> {
    let mut parts = line.split('\t').skip(1);
    let mut next = || parts.next().context("a part is missing").map(str::to_owned);
    let (retain, body, content_type, user, topic) = (next()?, next()?, next()?, next()?, next()?);
    unhex(&body)?;
    let pairs = user.split(' ').filter_map(|pair| pair.split_once(':'));
    Ok(Heard {
        topic,
        retain: retain == "1",
        content_type: Some(content_type).filter(|text| !text.is_empty()),
        user: pairs
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        body,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_tool_sends_lines_to_one_topic_and_everything_else_by_itself() {
        let plain = Publish::plain;
        let messages = [
            plain("a", b"1", 1),
            plain("a", b"2", 1),
            plain("a", b"", 1),
            plain("a", b"3", 1),
            plain("a", b"two\nlines", 1),
            plain("b", b"4", 1),
            plain("b", b"5", 0),
        ];
        let sizes: Vec<usize> = groups(&messages).map(<[Publish]>::len).collect();
        assert_eq!(sizes, [2, 1, 1, 1, 1, 1]);
    }

    #[test]
    fn a_line_of_the_tool_is_a_message() {
        let heard = tabbed("heard\t0\t00ff\ttext/plain\ta:1 b:2\tplant/7/with blank").unwrap();
        assert_eq!(heard.topic, "plant/7/with blank");
        assert_eq!(
            heard.user,
            [("a".into(), "1".into()), ("b".into(), "2".into())]
        );
        assert_eq!((heard.body.as_str(), heard.retain), ("00ff", false));
        assert!(tabbed("heard\t0\tnot hexadecimal\t\t\tt").is_err());
    }
}
