//! A Mosquitto of a case's own, at a loopback address that is not the controller's, with the files that `haar relay credentials` writes, and
//! the tools that come with it.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, bail};

const MISSING: &str =
    "Mosquitto is missing: apt-get install -y --no-install-recommends mosquitto mosquitto-clients";

/// Where brokers and neighbourhood relays of cases are: the site issues no certificate for an address of
/// the controller, and every controller is at 127.0.0.1.
pub(crate) const HOST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// A port of this machine that nobody uses. The system hands out others first.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind((HOST, 0))?;
    Ok(listener.local_addr()?.port())
}

/// A broker. It ends with this value.
pub(crate) struct Mosquitto {
    folder: PathBuf,
    port: u16,
    child: Option<Child>,
}

impl Mosquitto {
    /// A broker with the files in `folder`, not running yet.
    pub(crate) fn new(folder: &Path, port: u16) -> anyhow::Result<Self> {
        let written = folder.join("haar.conf");
        let text = std::fs::read_to_string(&written)
            .with_context(|| format!("can't read {}", written.display()))?;
        let everywhere = format!("listener {port}\n");
        if !text.contains(&everywhere) {
            bail!("{} has no `{}`", written.display(), everywhere.trim());
        }
        let text = text.replace(&everywhere, &format!("listener {port} {HOST}\n"));
        let own = "user root\nlog_dest stderr\n";
        std::fs::write(folder.join("mosquitto.conf"), format!("{own}{text}"))?;
        Ok(Self {
            folder: folder.to_owned(),
            port,
            child: None,
        })
    }

    /// Starts it. The caller waits until [`is_listening`](Self::is_listening).
    pub(crate) fn start(&mut self) -> anyhow::Result<()> {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.folder.join("mosquitto.log"))?;
        let child = Command::new("mosquitto")
            .arg("-c")
            .arg(self.folder.join("mosquitto.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context(MISSING)?;
        self.child = Some(child);
        Ok(())
    }

    /// True when it takes connections; an error when it has ended.
    pub(crate) fn is_listening(&mut self) -> anyhow::Result<bool> {
        if let Some(child) = &mut self.child
            && let Some(status) = child.try_wait()?
        {
            let log = std::fs::read_to_string(self.folder.join("mosquitto.log"));
            bail!("mosquitto ended with {status}: {}", log.unwrap_or_default());
        }
        Ok(TcpStream::connect((HOST, self.port)).is_ok())
    }

    /// Ends it as a power cut does.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Lets it keep its connections and say nothing more, or go on.
    pub(crate) fn freeze(&self, freeze: bool) -> anyhow::Result<()> {
        let child = self.child.as_ref().context("mosquitto is not running")?;
        let signal = if freeze { "-STOP" } else { "-CONT" };
        let status = Command::new("kill")
            .args([signal, &child.id().to_string()])
            .status()?;
        anyhow::ensure!(status.success(), "kill {signal} failed");
        Ok(())
    }

    /// One of its tools, as a user of the broker.
    pub(crate) fn tool(&self, name: &str, user: &str, password: &str) -> Command {
        let mut command = Command::new(name);
        command
            .args(["-V", "5", "-h", &HOST.to_string()])
            .args(["-p", &self.port.to_string()])
            .args(["-u", user, "-P", password, "--cafile"])
            .arg(self.folder.join("ca.pem"));
        command
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.kill(); // it has ended already, then
    }
}
