//! The files of compiled code: `code/DIGEST/ENGINE.TARGET.packed3`, and `….refused` with the reason
//! of what can't be compiled. A file gets its name only when it is whole and on the disk.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use haar_protocol::ids::Digest;
use haar_protocol::rest::ModuleCode;

use super::Platform;
use crate::failure::{Failure, Kind};

/// With the version of the format: what an earlier release has kept is compiled anew.
const PACKED: &str = "packed3";
const REFUSED: &str = "refused";

/// The folder of compiled code.
#[derive(Debug)]
pub(super) struct CodeStore {
    folder: PathBuf,
}

/// What is kept for one module and platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kept {
    /// Code, in this file.
    Code(PathBuf),
    /// Why there is none.
    Refused(String),
}

impl CodeStore {
    /// Opens the store in `directory`. Removes what belongs to no `known` module or to an engine
    /// that is not among `engines`, what was cut off, and refusals: limits may be others now.
    ///
    /// # Errors
    /// When the folder can't be used.
    pub(super) fn open(
        directory: &Path,
        known: &BTreeSet<Digest>,
        engines: &BTreeSet<&str>,
    ) -> anyhow::Result<Self> {
        let folder = directory.join("code");
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        let expected: BTreeSet<String> = known.iter().map(|digest| digest.to_hex()).collect();
        let clean = || -> io::Result<()> {
            for entry in fs::read_dir(&folder)? {
                let entry = entry?;
                if !expected.contains(&*entry.file_name().to_string_lossy()) {
                    fs::remove_dir_all(entry.path())?;
                    continue;
                }
                for file in fs::read_dir(entry.path())? {
                    let path = file?.path();
                    let is_wanted = described(&path).is_some_and(|code| {
                        code.packed_bytes.is_some() && engines.contains(&*code.engine)
                    });
                    if !is_wanted {
                        fs::remove_file(path)?;
                    }
                }
            }
            Ok(())
        };
        clean().with_context(|| format!("cleaning {}", folder.display()))?;
        Ok(Self { folder })
    }

    /// What is kept.
    pub(super) fn get(&self, digest: Digest, platform: &Platform) -> Option<Kept> {
        let packed = self.path(digest, platform, PACKED);
        if packed.exists() {
            return Some(Kept::Code(packed));
        }
        let why = fs::read_to_string(self.path(digest, platform, REFUSED)).ok()?;
        Some(Kept::Refused(why))
    }

    /// All that is kept of a module.
    pub(super) fn list(&self, digest: Digest) -> Vec<ModuleCode> {
        let Ok(files) = fs::read_dir(self.folder.join(digest.to_hex())) else {
            return Vec::new();
        };
        let mut list: Vec<ModuleCode> = files
            .flatten()
            .filter_map(|file| described(&file.path()))
            .collect();
        list.sort_by(|a, b| (&a.target, &a.engine).cmp(&(&b.target, &b.engine)));
        list
    }

    /// Where a compiler may write.
    pub(super) fn part(&self, digest: Digest, platform: &Platform) -> Result<PathBuf, Failure> {
        let path = self.path(digest, platform, "part");
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(|error| failed(&error))?;
        }
        Ok(path)
    }

    /// Keeps packed code.
    pub(super) fn keep(
        &self,
        digest: Digest,
        platform: &Platform,
        packed: &[u8],
    ) -> Result<(), Failure> {
        self.write(digest, platform, PACKED, packed)
    }

    /// Keeps why there is none.
    pub(super) fn refuse(
        &self,
        digest: Digest,
        platform: &Platform,
        why: &str,
    ) -> Result<(), Failure> {
        self.write(digest, platform, REFUSED, why.as_bytes())
    }

    /// Forgets all code of a module.
    pub(super) fn remove(&self, digest: Digest) {
        let folder = self.folder.join(digest.to_hex());
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::error!(folder = %folder.display(), %error, "can't remove compiled code");
            }
            _ => {}
        }
    }

    fn write(
        &self,
        digest: Digest,
        platform: &Platform,
        end: &str,
        content: &[u8],
    ) -> Result<(), Failure> {
        let path = self.path(digest, platform, end);
        let new = self.part(digest, platform)?.with_extension("new");
        let written = || -> io::Result<()> {
            let mut file = File::create(&new)?;
            file.write_all(content)?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            path.parent()
                .map_or(Ok(()), |folder| File::open(folder)?.sync_all())
        };
        written().map_err(|error| failed(&error))
    }

    fn path(&self, digest: Digest, platform: &Platform, end: &str) -> PathBuf {
        let Platform { engine, target } = platform;
        let folder = self.folder.join(digest.to_hex());
        folder.join(format!("{engine}.{target}.{end}"))
    }
}

/// A file of the store as the API shows it.
fn described(path: &Path) -> Option<ModuleCode> {
    let name = path.file_name()?.to_str()?;
    let mut parts = name.split('.');
    let (engine, target, end) = (parts.next()?, parts.next()?, parts.next()?);
    let (packed_bytes, refused) = match end {
        PACKED => (Some(path.metadata().ok()?.len()), None),
        REFUSED => (None, fs::read_to_string(path).ok()),
        _ => return None,
    };
    Some(ModuleCode {
        engine: engine.to_owned(),
        target: target.to_owned(),
        packed_bytes,
        refused,
        progress: None,
    })
}

fn failed(error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::StorageFull {
        return Failure::new(
            Kind::Overloaded,
            "disk_full",
            "the controller's disk is full",
        )
        .hint("free some space on the disk of its data directory");
    }
    Failure::internal(format_args!("compiled code: {error}"))
}
