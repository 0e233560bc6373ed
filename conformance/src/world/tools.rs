//! Brokers and clients of others, from the registries that have them: what is missing is installed
//! below the target folder, with exact versions. Mosquitto and its tools are the distribution's.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, bail};

use super::broker::Kind;
use crate::mosquitto;

const PAHO: &str = "2.1.0";
const MQTT_JS: &str = "5.16.0";
const RMQTT: &str = "0.24.0";
const RUMQTTD: &str = "0.20.0";

/// Where things are installed.
pub(super) struct Tools {
    folder: PathBuf,
}

impl Tools {
    /// Beside this program, which is in the target folder.
    pub(super) fn beside_us() -> anyhow::Result<Self> {
        let us = std::env::current_exe().context("can't find this program")?;
        let target = us
            .ancestors()
            .nth(2)
            .context("this program has no folder")?;
        Ok(Self {
            folder: target.join("world-tools"),
        })
    }

    /// The program of a broker, installed if it is missing.
    pub(super) fn broker(&self, kind: Kind) -> anyhow::Result<PathBuf> {
        match kind {
            Kind::Mosquitto => mosquitto::program("mosquitto"),
            // It compiles a library of C++ and a protocol of its own.
            Kind::Rmqtt => self.cargo("rmqttd", RMQTT, &["--locked"]).context(
                "RMQTT needs cmake and protoc (Debian: apt-get install cmake protobuf-compiler)",
            ),
            // The versions in its own lock file do not compile with Rust 1.95 (its crate `metrics`).
            Kind::Rumqttd => self.cargo("rumqttd", RUMQTTD, &[]),
        }
    }

    /// The Python that has Paho, and Paho's version.
    pub(super) fn paho(&self) -> anyhow::Result<(PathBuf, &'static str)> {
        let folder = self.folder.join(format!("paho-{PAHO}"));
        let python = folder.join("bin/python");
        let done = folder.join("installed");
        if !done.exists() {
            run(Command::new("python3").args(["-m", "venv"]).arg(&folder)).context(
                "python3 with its module venv is needed (Debian: apt-get install python3-venv)",
            )?;
            run(Command::new(&python)
                .args(["-m", "pip", "install", "--quiet"])
                .args(["--disable-pip-version-check"])
                .arg(format!("paho-mqtt=={PAHO}")))?;
            std::fs::write(done, "")?;
        }
        Ok((python, PAHO))
    }

    /// The folder whose `node_modules` has MQTT.js, and its version.
    pub(super) fn mqtt_js(&self) -> anyhow::Result<(PathBuf, &'static str)> {
        let folder = self.folder.join(format!("mqttjs-{MQTT_JS}"));
        let done = folder.join("installed");
        if !done.exists() {
            std::fs::create_dir_all(&folder)?;
            run(Command::new("npm")
                .args(["install", "--silent", "--no-audit", "--no-fund", "--prefix"])
                .arg(&folder)
                .arg(format!("mqtt@{MQTT_JS}")))
            .context("Node.js with npm is needed (Debian: apt-get install nodejs npm)")?;
            std::fs::write(done, "")?;
        }
        Ok((folder, MQTT_JS))
    }

    fn cargo(&self, package: &str, version: &str, more: &[&str]) -> anyhow::Result<PathBuf> {
        let folder = self.folder.join(format!("{package}-{version}"));
        let program = folder.join("bin").join(package);
        if !program.exists() {
            eprintln!("building {package} {version} with cargo: some minutes ...");
            run(Command::new("cargo")
                .args(["install", package, "--version", version, "--quiet"])
                .args(more)
                .arg("--root")
                .arg(&folder))?;
        }
        Ok(program)
    }
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command.status();
    let status = status.with_context(|| format!("can't start {program}"))?;
    if !status.success() {
        bail!("{program} ended with {status}");
    }
    Ok(())
}
