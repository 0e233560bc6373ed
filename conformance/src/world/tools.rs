//! Brokers, clients and toolchains of others, from the registries that have them: what is missing is
//! installed below the target folder, with exact versions. Mosquitto and its tools are the
//! distribution's.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;

use super::broker::Kind;
use crate::{child, mosquitto};

const PAHO: &str = "2.1.0";
const MQTT_JS: &str = "5.16.0";
const ZIG: &str = "0.17.1";
const COMPONENTIZE_PY: &str = "0.25.1";
const COMPONENTIZE_JS: &str = "0.23.0";
const RMQTT: &str = "0.24.0";
const RUMQTTD: &str = "0.20.0";

/// How long one step of an installation from a registry may take.
const INSTALL_TIME: Duration = Duration::from_secs(10 * 60);
/// The same for one that cargo compiles.
const BUILD_TIME: Duration = Duration::from_secs(30 * 60);

/// Where things are installed.
pub(crate) struct Tools {
    folder: PathBuf,
}

impl Tools {
    /// Beside this program, which is in the target folder.
    pub(crate) fn beside_us() -> anyhow::Result<Self> {
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
            // Its build needs a C++ library and a protocol compiler.
            Kind::Rmqtt => self.cargo("rmqttd", RMQTT, &["--locked"]).context(
                "RMQTT needs cmake and protoc (Debian: apt-get install cmake protobuf-compiler)",
            ),
            // The versions in its own lock file do not compile with Rust 1.95 (its crate `metrics`).
            Kind::Rumqttd => self.cargo("rumqttd", RUMQTTD, &[]),
        }
    }

    /// The Python that has Paho, and Paho's version.
    pub(super) fn paho(&self) -> anyhow::Result<(PathBuf, &'static str)> {
        let folder = self.python_package("paho-mqtt", PAHO)?;
        Ok((folder.join("bin/python"), PAHO))
    }

    /// The folder whose `node_modules` has MQTT.js, and its version.
    pub(super) fn mqtt_js(&self) -> anyhow::Result<(PathBuf, &'static str)> {
        Ok((self.node_package("mqtt", MQTT_JS)?, MQTT_JS))
    }

    /// The C compiler of Zig, as a command.
    pub(crate) fn zig_cc(&self) -> anyhow::Result<Command> {
        let folder = self.python_package("ziglang", ZIG)?;
        let mut command = Command::new(folder.join("bin/python"));
        command.args(["-m", "ziglang", "cc"]);
        Ok(command)
    }

    /// Where Rust has its linkers, and the C library of its target wasm32-wasip2.
    pub(crate) fn wasip2(&self) -> anyhow::Result<(PathBuf, PathBuf)> {
        let mut rustc = Command::new("rustc");
        rustc.current_dir(env!("CARGO_MANIFEST_DIR")).args([
            "--print",
            "sysroot",
            "--print",
            "host-tuple",
        ]);
        let said = child::output(&mut rustc, INSTALL_TIME).context("rustc is needed")?;
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        let (sysroot, host) = said.trim().split_once('\n').unwrap_or_default();
        let rustlib = Path::new(sysroot).join("lib/rustlib");
        let linkers = rustlib.join(host).join("bin");
        let library = rustlib.join("wasm32-wasip2/lib/self-contained");
        for folder in [&linkers.join("wasm-component-ld"), &library] {
            anyhow::ensure!(
                folder.exists(),
                "{} is missing: `rustup target add wasm32-wasip2`",
                folder.display()
            );
        }
        Ok((linkers, library))
    }

    /// The tool that builds components from Python.
    pub(crate) fn componentize_py(&self) -> anyhow::Result<Command> {
        let folder = self.python_package("componentize-py", COMPONENTIZE_PY)?;
        Ok(Command::new(folder.join("bin/componentize-py")))
    }

    /// The tool that builds components from JavaScript.
    pub(crate) fn componentize_js(&self) -> anyhow::Result<Command> {
        let package = "@bytecodealliance/componentize-js";
        let folder = self.node_package(package, COMPONENTIZE_JS)?;
        Ok(Command::new(
            folder.join("node_modules/.bin/componentize-js"),
        ))
    }

    /// Installs a package of PyPI into an environment of its own.
    fn python_package(&self, package: &str, version: &str) -> anyhow::Result<PathBuf> {
        let folder = self.folder.join(format!("{package}-{version}"));
        let done = folder.join("installed");
        if !done.exists() {
            let mut venv = Command::new("python3");
            venv.args(["-m", "venv"]).arg(&folder);
            child::run(&mut venv, INSTALL_TIME).context(
                "python3 with its module venv is needed (Debian: apt-get install python3-venv)",
            )?;
            let mut pip = Command::new(folder.join("bin/python"));
            pip.args(["-m", "pip", "install", "--quiet"])
                .args(["--disable-pip-version-check"])
                .arg(format!("{package}=={version}"));
            child::run(&mut pip, INSTALL_TIME)?;
            std::fs::write(done, "")?;
        }
        Ok(folder)
    }

    /// Installs a package of npm. Returns its folder.
    fn node_package(&self, package: &str, version: &str) -> anyhow::Result<PathBuf> {
        let name = package.replace(['@', '/'], "");
        let folder = self.folder.join(format!("{name}-{version}"));
        let done = folder.join("installed");
        if !done.exists() {
            std::fs::create_dir_all(&folder)?;
            let mut npm = Command::new("npm");
            npm.args(["install", "--silent", "--no-audit", "--no-fund", "--prefix"])
                .arg(&folder)
                .arg(format!("{package}@{version}"));
            child::run(&mut npm, INSTALL_TIME)
                .context("Node.js with npm is needed (Debian: apt-get install nodejs npm)")?;
            std::fs::write(done, "")?;
        }
        Ok(folder)
    }

    fn cargo(&self, package: &str, version: &str, more: &[&str]) -> anyhow::Result<PathBuf> {
        let folder = self.folder.join(format!("{package}-{version}"));
        let program = folder.join("bin").join(package);
        if !program.exists() {
            eprintln!("building {package} {version} with cargo: some minutes ...");
            let mut cargo = Command::new("cargo");
            cargo
                .args(["install", package, "--version", version, "--quiet"])
                .args(more)
                .arg("--root")
                .arg(&folder);
            child::run(&mut cargo, BUILD_TIME)?;
        }
        Ok(program)
    }
}
