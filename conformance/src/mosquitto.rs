//! Mosquitto with the files that `haar relay credentials` writes, or open to everybody on loopback, and the
//! tools that come with it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::broker::{Broker, HOST};

/// A Mosquitto in `folder`, with the rules and passwords that are there. Not running yet.
pub(crate) fn with_rules(folder: &Path, port: u16) -> anyhow::Result<Broker> {
    let written = folder.join("zz-haar.conf");
    let text = std::fs::read_to_string(&written)
        .with_context(|| format!("can't read {}", written.display()))?;
    let everywhere = format!("listener {port}\n");
    if !text.contains(&everywhere) {
        bail!("{} has no `{}`", written.display(), everywhere.trim());
    }
    broker(
        folder,
        port,
        &text.replace(&everywhere, &format!("listener {port} {HOST}\n")),
    )
}

/// A Mosquitto in `folder` that anybody on loopback may use, and that drops nothing. Not running yet.
pub(crate) fn open(folder: &Path, port: u16) -> anyhow::Result<Broker> {
    let location = folder.to_str().context("the path is not UTF-8")?;
    let text = format!(
        "listener {port} {HOST}\n\
         allow_anonymous true\n\
         persistence true\n\
         persistence_location {location}/\n\
         max_queued_messages 0\n"
    );
    broker(folder, port, &text)
}

fn broker(folder: &Path, port: u16, settings: &str) -> anyhow::Result<Broker> {
    std::fs::create_dir_all(folder)?;
    let file = folder.join("mosquitto.conf");
    let own = "user root\nlog_dest stderr\n";
    std::fs::write(&file, format!("{own}{settings}"))?;
    let file = file.to_str().context("the path is not UTF-8")?;
    Ok(Broker::new(
        &program("mosquitto")?,
        &["-c", file],
        folder,
        port,
    ))
}

/// One of its tools, as a user of a broker with rules.
pub(crate) fn tool(
    name: &str,
    broker: &Broker,
    user: &str,
    password: &str,
) -> anyhow::Result<Command> {
    let mut command = open_tool(name, broker)?;
    command
        .args(["-u", user, "-P", password, "--cafile"])
        .arg(broker.folder().join("ca.pem"));
    Ok(command)
}

/// One of its tools, at a broker that is open to everybody.
pub(crate) fn open_tool(name: &str, broker: &Broker) -> anyhow::Result<Command> {
    let mut command = Command::new(program(name)?);
    let port = broker.port().to_string();
    command.args(["-V", "5", "-h", &HOST.to_string(), "-p", &port]);
    Ok(command)
}

/// Where the system has the broker (`mosquitto`) or one of its tools.
pub(crate) fn program(name: &str) -> anyhow::Result<PathBuf> {
    let usual = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"];
    let mut places = usual.iter().map(|folder| Path::new(folder).join(name));
    places.find(|path| path.exists()).with_context(|| {
        format!("{name} is missing: apt-get install -y --no-install-recommends mosquitto mosquitto-clients")
    })
}
