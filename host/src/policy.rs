//! What the owner of the device allows the site: `[policy]` in `agent.toml`. The device has the last
//! word: whatever a signed assignment says, a module that the owner's publishers have not signed does
//! not run, and a directory that the owner does not name is not opened. What is refused is refused
//! for one microservice; the others run.

pub(crate) mod mounts;
mod place;

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use haar_protocol::grants::{Access, Grants};
use haar_protocol::keys::PublicKey;
use haar_protocol::module::Publishers;
use haar_protocol::status::{AllowedDirectory, OUTLINE_ENTRIES_MAX, PolicyStatus};
use rustix::fs::{Mode, OFlags};
use serde::Deserialize;

use self::mounts::{Kind, Mounts};
use self::place::Place;
use crate::modules::Trust;

/// Entries of one list.
const ENTRIES_MAX: usize = 256;
/// Bytes of a path.
const PATH_BYTES_MAX: usize = 4_095;

/// `[policy]` as people write it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Raw {
    publishers: Option<Vec<Key>>,
    directories: Vec<Directory>,
}

/// A public key: `ed25519:` and 64 hexadecimal digits, or the text of a `.pub` file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
struct Key(PublicKey);

impl TryFrom<String> for Key {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let key = match text.trim().starts_with("-----BEGIN") {
            true => PublicKey::from_pem(&text),
            false => text.trim().parse(),
        };
        key.map(Self).map_err(|error| error.to_string())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Directory {
    path: PathBuf,
    #[serde(default)]
    access: Access,
}

/// What the owner says, checked. One that says nothing allows every publisher of the site and no
/// directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    publishers: Option<Vec<PublicKey>>,
    directories: Vec<AllowedDirectory>,
}

impl Raw {
    /// Checks what a file says.
    ///
    /// # Errors
    /// When a path is not absolute, or could never be granted. The text names it.
    pub fn check(self) -> anyhow::Result<Rules> {
        ensure!(
            self.publishers.as_ref().map_or(0, Vec::len) <= ENTRIES_MAX,
            "policy.publishers: more than {ENTRIES_MAX} entries"
        );
        ensure!(
            self.directories.len() <= ENTRIES_MAX,
            "policy.directories: more than {ENTRIES_MAX} entries"
        );
        let directories = self.directories.into_iter().map(Directory::check);
        Ok(Rules {
            publishers: self
                .publishers
                .map(|keys| keys.into_iter().map(|key| key.0).collect()),
            directories: directories.collect::<anyhow::Result<_>>()?,
        })
    }
}

impl Directory {
    fn check(self) -> anyhow::Result<AllowedDirectory> {
        let path = self.path.to_str().context("a path is not UTF-8")?;
        let wrong = |why: &str| -> anyhow::Result<AllowedDirectory> {
            bail!("policy.directories: the path {path:?} {why}")
        };
        if !path.starts_with('/') {
            return wrong("must be absolute: begin it with `/`");
        }
        if path.split('/').any(|part| part == "..") {
            return wrong("must not contain `..`");
        }
        if path.len() > PATH_BYTES_MAX || path.contains('\0') {
            return wrong("is not a path");
        }
        if self.path.components().count() < 2 {
            return wrong(
                "is the whole file system, which is never granted: name directories in it",
            );
        }
        Ok(AllowedDirectory {
            path: path.to_owned(),
            access: self.access,
        })
    }
}

impl Rules {
    /// Rules that allow one directory more.
    #[must_use]
    pub fn allowing(mut self, path: &Path, access: Access) -> Self {
        self.directories.push(AllowedDirectory {
            path: path.display().to_string(),
            access,
        });
        self
    }

    /// Rules that demand the signature of one of these keys.
    #[must_use]
    pub fn demanding(mut self, publishers: Vec<PublicKey>) -> Self {
        self.publishers = Some(publishers);
        self
    }
}

/// The policy in force. It changes with the next start of the agent.
#[derive(Debug, Clone)]
pub struct Policy {
    rules: Rules,
    /// The file that says so, for people.
    file: PathBuf,
    /// The agent's data directory.
    data: PathBuf,
}

/// Why a directory is not opened for a microservice: a text for a person.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(String);

impl Policy {
    /// The policy of the agent that lives in `data`, as `file` says.
    pub fn new(rules: Rules, file: PathBuf, data: PathBuf) -> Self {
        Self { rules, file, data }
    }

    /// Logs what is likely a mistake. Waits for file systems, of which one may never answer.
    pub fn warn(&self) {
        if self.rules.publishers.as_ref().is_some_and(Vec::is_empty) {
            tracing::warn!(
                "no module runs: `publishers` under [policy] in {} is empty",
                self.file.display()
            );
        }
        for directory in &self.rules.directories {
            if !Path::new(&directory.path).is_dir() {
                tracing::warn!(
                    "the directory {} that {} allows is not there",
                    directory.path,
                    self.file.display()
                );
            }
        }
    }

    /// Whose signatures a module needs, given what the site says of them.
    pub fn publishers<'a>(&'a self, trust: &'a Trust) -> Publishers<'a> {
        Publishers {
            of_site: &trust.publishers,
            of_owner: self.rules.publishers.as_deref(),
            later: trust.later.as_ref(),
        }
    }

    /// What the site is told of it.
    pub fn outline(&self) -> PolicyStatus {
        let Rules {
            publishers,
            directories,
        } = &self.rules;
        let keys = publishers.as_deref().unwrap_or_default();
        let over = |entries: usize| entries.saturating_sub(OUTLINE_ENTRIES_MAX);
        let left_out = over(keys.len()) + over(directories.len());
        PolicyStatus {
            publishers: publishers.as_ref().map(|keys| {
                let first = keys.iter().take(OUTLINE_ENTRIES_MAX);
                first.copied().collect()
            }),
            directories: directories
                .iter()
                .take(OUTLINE_ENTRIES_MAX)
                .cloned()
                .collect(),
            left_out: u32::try_from(left_out).unwrap_or(u32::MAX),
        }
    }

    /// Whether a microservice may have the directory `opened`, which it was granted as `granted`. The
    /// descriptor is looked at, not the path: what it stands for can't change before it is used.
    ///
    /// # Errors
    /// When it may not, or when it can't be found out what the directory is.
    pub fn check(&self, opened: &File, granted: &Path, access: Access) -> Result<(), Refusal> {
        let judge = || -> anyhow::Result<Option<String>> {
            let mounts = Mounts::read()?;
            let place = Place::of(opened, &mounts)?;
            if let Some(why) = self.never(&place, access, &mounts)? {
                return Ok(Some(format!("{why}: no policy allows that")));
            }
            Ok(self.not_allowed(&place, access, &mounts))
        };
        let refused = |why: String| Refusal(format!("the directory {}: {why}", granted.display()));
        match judge() {
            Ok(None) => Ok(()),
            Ok(Some(why)) => Err(refused(why)),
            Err(error) => Err(refused(format!("can't find out what it is: {error:#}"))),
        }
    }

    /// Whether a microservice may have all that it is granted, as the device is now: said before it is
    /// fetched, and before it takes the place of one that runs.
    ///
    /// # Errors
    /// When it may not have one of its directories.
    pub fn check_grants(&self, grants: &Grants) -> Result<(), Refusal> {
        for grant in &grants.directories {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            // One that is not there is found out at the start, which is tried again.
            if let Ok(opened) = rustix::fs::open(&grant.host, flags, Mode::empty()) {
                self.check(&opened.into(), Path::new(&grant.host), grant.access)?;
            }
        }
        Ok(())
    }

    /// Why nobody may have it, whatever the policy says.
    fn never(
        &self,
        place: &Place,
        access: Access,
        mounts: &Mounts,
    ) -> anyhow::Result<Option<String>> {
        if place.path == Path::new("/") {
            return Ok(Some("it is the whole file system".into()));
        }
        match place.mount.kind() {
            Kind::Processes => {
                return Ok(Some(
                    "it is procfs, which shows the memory of processes (the grant `system` has what the node measures)".into(),
                ));
            }
            Kind::Devices => return Ok(Some("it holds devices".into())),
            Kind::Kernel | Kind::Files => {}
        }
        for mount in mounts.below(&place.path) {
            let what = match mount.kind() {
                Kind::Processes => "procfs is",
                Kind::Devices => "devices are",
                Kind::Kernel if place.mount.kind() != Kind::Kernel => {
                    "a file system of the kernel is"
                }
                Kind::Kernel | Kind::Files => continue,
            };
            return Ok(Some(format!(
                "{what} mounted in it, at {}",
                mount.point.display()
            )));
        }
        let data = Place::open(&self.data, mounts)?;
        if data.lies_in(place) {
            return Ok(Some("it contains the agent's own data directory".into()));
        }
        if place.lies_in(&data) {
            return Ok(Some("it lies in the agent's own data directory".into()));
        }
        if mounts.below(&place.path).any(|mount| mount.shows(&data)) {
            return Ok(Some(
                "the agent's own data directory is mounted in it".into(),
            ));
        }
        if access == Access::ReadWrite && self.holds_settings(place, mounts) {
            let file = self.file.display();
            return Ok(Some(format!(
                "{file} lies in it, and must not be written to"
            )));
        }
        Ok(None)
    }

    /// True when the file of the policy lies in a directory, or would if it were there.
    fn holds_settings(&self, place: &Place, mounts: &Mounts) -> bool {
        let file = self
            .file
            .canonicalize()
            .unwrap_or_else(|_| self.file.clone());
        let folder = match file.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        Place::open(folder, mounts).is_ok_and(|folder| folder.lies_in(place))
    }

    /// Why the policy does not allow it.
    fn not_allowed(&self, place: &Place, access: Access, mounts: &Mounts) -> Option<String> {
        let names_it = |one: &&AllowedDirectory| {
            Place::open(Path::new(&one.path), mounts).is_ok_and(|allowed| {
                // Files of the kernel are allowed by their own name only.
                let is_same_kind = allowed.mount.kind() == place.mount.kind();
                is_same_kind && place.is_at_or_below(&allowed)
            })
        };
        // First the entries that name it by its path: another one may be on a file server that does not
        // answer, and is opened only when these do not allow the directory.
        let mut entries: Vec<&AllowedDirectory> = self.rules.directories.iter().collect();
        entries.sort_by_key(|one| !place.path.starts_with(&one.path));
        let mut naming = Vec::new();
        for one in entries.into_iter().filter(names_it) {
            if covers(one.access, access) {
                return None;
            }
            naming.push(one);
        }
        let file = self.file.display();
        let path = toml::Value::String(place.path.display().to_string());
        let entry = match access {
            Access::ReadOnly => format!("{{ path = {path} }}"),
            Access::ReadWrite => format!("{{ path = {path}, access = \"read-write\" }}"),
        };
        if naming.is_empty() && self.rules.directories.is_empty() {
            return Some(format!(
                "the policy of this device allows no directory; its owner allows this one with the line `directories = [{entry}]` under `[policy]` in {file}, and a restart of the agent"
            ));
        }
        let what = if naming.is_empty() {
            "allows other directories only"
        } else {
            "allows to read it, not to write to it"
        };
        Some(format!(
            "the policy of this device {what}; its owner allows this with the entry `{entry}` in `directories` under `[policy]` in {file}, and a restart of the agent"
        ))
    }
}

fn covers(allowed: Access, wanted: Access) -> bool {
    allowed == Access::ReadWrite || wanted == Access::ReadOnly
}

#[cfg(test)]
mod tests;
