//! A broker that others make, as a process of ours on a port of loopback.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, bail, ensure};

use crate::interrupt;

/// Where brokers and neighbourhood relays of the suite are: the site issues no certificate for an address
/// of its controller, and every controller of the suite is at 127.0.0.1.
pub(crate) const HOST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// A port there that nobody uses. The system hands out others first.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind((HOST, 0))?;
    Ok(listener.local_addr()?.port())
}

/// A broker. It ends with this value.
pub(crate) struct Broker {
    program: PathBuf,
    arguments: Vec<String>,
    /// Its working directory, with its log.
    folder: PathBuf,
    port: u16,
    child: Option<Child>,
}

impl Broker {
    /// A broker that is not running yet.
    pub(crate) fn new(program: &Path, arguments: &[&str], folder: &Path, port: u16) -> Self {
        Self {
            program: program.to_owned(),
            arguments: arguments.iter().map(|one| (*one).to_owned()).collect(),
            folder: folder.to_owned(),
            port,
            child: None,
        }
    }

    /// Where it listens.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Its working directory.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Starts it, and returns when it takes connections.
    pub(crate) fn start(&mut self) -> anyhow::Result<()> {
        let path = self.folder.join("broker.log");
        let log = File::options().create(true).append(true).open(&path)?;
        let child = Command::new(&self.program)
            .args(&self.arguments)
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("can't start {}", self.program.display()))?;
        let child = self.child.insert(child);
        while TcpStream::connect((HOST, self.port)).is_err() {
            if let Some(status) = child.try_wait()? {
                let said = std::fs::read_to_string(&path).unwrap_or_default();
                bail!("{} ended with {status}: {said}", self.program.display());
            }
            interrupt::pause()?;
        }
        Ok(())
    }

    /// Ends it as a power cut does.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Ends it in order, which is when brokers write what they keep.
    pub(crate) fn stop(&mut self) -> anyhow::Result<()> {
        self.signal("-TERM")?;
        if let Some(mut child) = self.child.take() {
            child.wait()?;
        }
        Ok(())
    }

    /// Lets it keep its connections and say nothing more, or go on.
    pub(crate) fn freeze(&self, freeze: bool) -> anyhow::Result<()> {
        self.signal(if freeze { "-STOP" } else { "-CONT" })
    }

    fn signal(&self, signal: &str) -> anyhow::Result<()> {
        let child = self.child.as_ref().context("the broker is not running")?;
        let id = child.id().to_string();
        let status = Command::new("kill").args([signal, &id]).status()?;
        ensure!(status.success(), "kill {signal} failed");
        Ok(())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.kill(); // it has ended already, then
    }
}
