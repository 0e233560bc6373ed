//! Who this node is: its key, made here and never sent anywhere, and what it learnt of its site
//! when it enrolled. Files in the data directory, which one process at a time may use.

mod link_secret;
pub mod modes;

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use haar_protocol::ids::{Name, NodeId, SiteId};
use haar_protocol::keys::{PublicKey, SecretKey};
use haar_protocol::limits::Budget;
use serde::{Deserialize, Serialize};

pub use link_secret::LinkSecret;

const KEY_FILE: &str = "node.key";
const ENROLMENT_FILE: &str = "enrolment.json";

/// What a node knows of its site since it enrolled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// The site.
    pub site: SiteId,
    /// The site's key.
    pub site_key: PublicKey,
    /// This node's id.
    pub node: NodeId,
    /// This node's name.
    pub name: Name,
    /// URL of the controller's REST API.
    pub controller: String,
    /// URLs of the site's relays, best first.
    pub relays: Vec<String>,
    /// The site's CA certificate in PEM.
    pub ca_pem: String,
    /// What this node gives to microservices.
    pub budget: Budget,
    /// Where the budget's memory comes from, for people. None from earlier releases.
    #[serde(default)]
    pub memory_source: Option<String>,
    /// Labels that it asked for.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// The data directory of an agent, locked for this process.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    _lock: File,
}

impl DataDirectory {
    /// Opens the directory, makes it when there is none, and keeps other agents and other users out of
    /// it.
    ///
    /// # Errors
    /// When it can't be made or written, belongs to another user, or another process uses it.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        if path.join("controller.db").exists() {
            bail!(
                "{} is the data directory of a controller: give the agent one of its own with --data",
                path.display()
            );
        }
        modes::restrict(path)?;
        let lock = lock_file(&path.join("agent.lock"))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                path: path.to_owned(),
                _lock: lock,
            }),
            Err(std::fs::TryLockError::WouldBlock) => bail!(
                "another haar-agent uses the data directory {}: stop it first, or give this one another with --data",
                path.display()
            ),
            Err(std::fs::TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("can't lock {}", path.display()))
            }
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The node's key. `seed` makes one when there is none yet.
    ///
    /// # Errors
    /// When the file can't be read or written, or holds no key.
    pub fn key(
        &self,
        seed: impl FnOnce() -> anyhow::Result<[u8; 32]>,
    ) -> anyhow::Result<SecretKey> {
        let path = self.path.join(KEY_FILE);
        match std::fs::read(&path) {
            Ok(pem) => SecretKey::from_pem(&String::from_utf8_lossy(&pem)).with_context(|| {
                format!(
                    "{} is damaged: restore it, or enrol with an empty data directory",
                    path.display()
                )
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let key = SecretKey::from_seed(seed()?);
                write_private(&path, key.to_pem().as_bytes())?;
                Ok(key)
            }
            Err(error) => Err(error).with_context(|| format!("can't read {}", path.display())),
        }
    }

    /// The node's secret for links, which never leaves it. `seed` makes it when there is none, and another
    /// one when the file is damaged: the site learns of it as of one that it asked for.
    ///
    /// # Errors
    /// When the file can't be read or written.
    pub fn link_secret(
        &self,
        seed: impl FnOnce() -> anyhow::Result<[u8; 32]>,
    ) -> anyhow::Result<LinkSecret> {
        LinkSecret::open(&self.path, seed)
    }

    /// What the node knows of its site; none before it has enrolled.
    ///
    /// # Errors
    /// When the file is there and can't be read.
    pub fn membership(&self) -> anyhow::Result<Option<Membership>> {
        let path = self.path.join(ENROLMENT_FILE);
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).with_context(|| {
                format!(
                    "{} is damaged: enrol again with a fresh token",
                    path.display()
                )
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("can't read {}", path.display())),
        }
    }

    /// Keeps what the node has learnt.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn set_membership(&self, membership: &Membership) -> anyhow::Result<()> {
        let json = serde_json::to_vec_pretty(membership)?;
        write_private(&self.path.join(ENROLMENT_FILE), &json)
    }
}

/// The file that is locked: it need not be written, on a file system that is read-only.
fn lock_file(path: &Path) -> anyhow::Result<File> {
    private_file(path, false).or_else(|error| File::open(path).map_err(|_| error))
}

pub(crate) fn private_file(path: &Path, truncate: bool) -> anyhow::Result<File> {
    OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(truncate)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("can't write {}", path.display()))
}

/// Writes a file that only its owner reads, whole or not at all, also through a power cut.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let part = path.with_extension("part");
    let mut file = private_file(&part, true)?;
    file.write_all(content)
        .and_then(|()| file.sync_all())
        .with_context(|| format!("can't write {}", part.display()))?;
    std::fs::rename(&part, path).with_context(|| format!("can't write {}", path.display()))?;
    sync_directory(path);
    Ok(())
}

/// Makes a rename survive a power cut, where the file system needs telling.
pub(crate) fn sync_directory(file: &Path) {
    if let Some(directory) = file.parent().and_then(|parent| File::open(parent).ok())
        && let Err(error) = directory.sync_all()
    {
        tracing::warn!("can't sync the directory of {}: {error}", file.display());
    }
}
