//! Brokers of others, as their packages or crates bring them: each on a port of loopback, without
//! users, with a queue that drops nothing.

use std::path::Path;
use std::process::Command;

use anyhow::Context as _;

use super::devices::Protocol;
use super::tools::Tools;
use crate::broker::{Broker, HOST, free_port};
use crate::{child, mosquitto};

/// A broker that others make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Kind {
    /// Eclipse Mosquitto, of the distribution
    Mosquitto,
    /// RMQTT, the crate `rmqttd`
    Rmqtt,
    /// rumqttd, the crate of that name
    Rumqttd,
}

impl Kind {
    /// Its name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Mosquitto => "Mosquitto",
            Kind::Rmqtt => "RMQTT",
            Kind::Rumqttd => "rumqttd",
        }
    }
}

/// A broker of others, running.
pub(super) struct Tried {
    pub(super) kind: Kind,
    pub(super) version: String,
    broker: Broker,
    /// The port for clients of MQTT 3.1.1, which may be another one.
    old_port: u16,
}

impl Tried {
    /// Writes its settings into `folder` and starts it.
    pub(super) fn start(kind: Kind, tools: &Tools, folder: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let port = free_port()?;
        let old_port = match kind {
            Kind::Mosquitto | Kind::Rmqtt => port,
            Kind::Rumqttd => free_port()?,
        };
        let program = tools.broker(kind)?;
        let mut broker = match kind {
            Kind::Mosquitto => mosquitto::open(folder, port)?,
            Kind::Rmqtt => {
                let file = folder.join("rmqtt.toml");
                std::fs::write(&file, rmqtt(port, folder)?)?;
                let file = file.to_str().context("the path is not UTF-8")?;
                Broker::new(&program, &["-f", file], folder, port)
            }
            Kind::Rumqttd => {
                let file = folder.join("rumqttd.toml");
                std::fs::write(&file, rumqttd(port, old_port))?;
                let file = file.to_str().context("the path is not UTF-8")?;
                Broker::new(&program, &["-c", file, "-q"], folder, port)
            }
        };
        broker.start()?;
        Ok(Self {
            kind,
            version: version(kind, &program)?,
            broker,
            old_port,
        })
    }

    /// The port for clients of a protocol.
    pub(super) fn port(&self, protocol: Protocol) -> u16 {
        match protocol {
            Protocol::V5 => self.broker.port(),
            Protocol::V311 => self.old_port,
        }
    }

    /// Starts it again, whether or not it has ended by itself.
    pub(super) fn renew(&mut self) -> anyhow::Result<()> {
        self.broker.kill()?;
        self.broker.start()
    }

    /// Ends it in order and starts it again.
    pub(super) fn restart(&mut self) -> anyhow::Result<()> {
        self.broker.stop()?;
        self.broker.start()
    }
}

fn version(kind: Kind, program: &Path) -> anyhow::Result<String> {
    let option = match kind {
        Kind::Mosquitto => "-h",
        Kind::Rmqtt | Kind::Rumqttd => "--version",
    };
    let output = child::output(Command::new(program).arg(option), child::SHORT)?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = said.lines().next().unwrap_or_default();
    // RMQTT writes `rmqtt/0.24.0-BUILD`.
    let number = line
        .split([' ', '/', '-'])
        .map(|word| word.trim_start_matches('v'))
        .find(|word| word.starts_with(|first: char| first.is_ascii_digit()));
    let number = number.with_context(|| format!("{} says no version: {line}", kind.name()))?;
    Ok(number.to_owned())
}

/// RMQTT stores retained messages and sessions in plugins, none of which starts by default.
fn rmqtt(port: u16, folder: &Path) -> anyhow::Result<String> {
    let plugins = folder.join("plugins");
    std::fs::create_dir_all(&plugins)?;
    let folder = folder.to_str().context("the path is not UTF-8")?;
    for plugin in ["rmqtt-retainer", "rmqtt-session-storage"] {
        let storage = format!(
            "storage.type = \"sled\"\n\
             storage.sled.path = \"{folder}/{plugin}\"\n\
             storage.sled.cache_capacity = \"64MB\"\n"
        );
        std::fs::write(plugins.join(format!("{plugin}.toml")), storage)?;
    }
    // Its other services use fixed ports by default.
    let (api, nodes) = (free_port()?, free_port()?);
    let api = format!("http_laddr = \"{HOST}:{api}\"\n");
    std::fs::write(plugins.join("rmqtt-http-api.toml"), api)?;
    Ok(format!(
        "[node]\n\
         id = 1\n\
         [rpc]\n\
         server_addr = \"{HOST}:{nodes}\"\n\
         [plugins]\n\
         dir = \"{folder}/plugins\"\n\
         default_startups = [\"rmqtt-retainer\", \"rmqtt-session-storage\", \"rmqtt-shared-subscription\"]\n\
         [log]\n\
         to = \"console\"\n\
         level = \"warn\"\n\
         [listener.tcp.external]\n\
         enable = true\n\
         addr = \"{HOST}:{port}\"\n\
         allow_anonymous = true\n\
         max_mqueue_len = 100000\n\
         max_packet_size = \"1m\"\n"
    ))
}

fn rumqttd(port: u16, old_port: u16) -> String {
    let connections = "connection_timeout_ms = 60000\n\
         max_payload_size = 1048576\n\
         max_inflight_count = 100\n\
         dynamic_filters = true\n";
    format!(
        "id = 0\n\
         [router]\n\
         id = 0\n\
         max_connections = 100\n\
         max_outgoing_packet_count = 10000\n\
         max_segment_size = 104857600\n\
         max_segment_count = 10\n\
         [v5.1]\n\
         name = \"v5\"\n\
         listen = \"{HOST}:{port}\"\n\
         next_connection_delay_ms = 1\n\
         [v5.1.connections]\n\
         {connections}\
         [v4.1]\n\
         name = \"v4\"\n\
         listen = \"{HOST}:{old_port}\"\n\
         next_connection_delay_ms = 1\n\
         [v4.1.connections]\n\
         {connections}"
    )
}
