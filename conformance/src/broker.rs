//! A broker that others make, as a process of ours on a port of loopback.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

use crate::{child, interrupt};

/// Where brokers and neighbourhood relays of the suite are: the site issues no certificate for an address
/// of its controller, and every controller of the suite is at 127.0.0.1.
pub(crate) const HOST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// How long a broker may take to listen.
const READY_TIME: Duration = Duration::from_secs(60);
/// How long one connection to it may take to be made: one that is frozen answers none.
const CONNECT_TIME: Duration = Duration::from_secs(1);
/// How long it may take to end in order, before it is killed.
const STOP_TIME: Duration = Duration::from_secs(30);

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
        let address = SocketAddr::from((HOST, self.port));
        let end = Instant::now() + READY_TIME;
        while TcpStream::connect_timeout(&address, CONNECT_TIME).is_err() {
            let said = || std::fs::read_to_string(&path).unwrap_or_default();
            let program = self.program.display();
            if let Some(status) = child.try_wait()? {
                bail!("{program} ended with {status}: {}", said());
            }
            ensure!(
                Instant::now() < end,
                "{program} does not listen at {address}: {}",
                said()
            );
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
            let program = self.program.display().to_string();
            child::wait(&mut child, &program, STOP_TIME)?;
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
