//! The module files: `modules/DIGEST.wasm`, and `uploads/DIGEST.part` while they arrive. Owns the
//! two folders; what is known of modules is the database's. Nothing that was refused stays here, and
//! a file gets its final name only when it is whole, checked and on the disk.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::io::{self, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use haar_protocol::ids::Digest;
use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};

use crate::failure::{Failure, Kind};

/// Bytes that unfinished uploads may take together; the oldest go first.
const PARTS_BYTES_MAX: u64 = 512 << 20;
/// Unfinished uploads are forgotten after this.
const PART_LIFE: Duration = Duration::from_secs(24 * 3_600);

/// The module files of a site. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct ModuleStore {
    modules: PathBuf,
    uploads: PathBuf,
    /// Digests that are being uploaded now. Requests take the lock for one look-up each.
    busy: Arc<Mutex<HashSet<Digest>>>,
}

/// The right to write one upload; others have to wait.
#[derive(Debug)]
pub(crate) struct Claim {
    digest: Digest,
    busy: Arc<Mutex<HashSet<Digest>>>,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.busy
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.digest);
    }
}

impl ModuleStore {
    /// Opens the store in `directory` and removes files that `known` does not have: a crash may
    /// leave one between the disk and the database.
    ///
    /// # Errors
    /// When the folders can't be used.
    pub(crate) fn open(directory: &Path, known: &BTreeSet<Digest>) -> anyhow::Result<Self> {
        let (modules, uploads) = (directory.join("modules"), directory.join("uploads"));
        for folder in [&modules, &uploads] {
            fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        }
        let expected: HashSet<String> = known.iter().map(|digest| file_name(*digest)).collect();
        for entry in
            fs::read_dir(&modules).with_context(|| format!("reading {}", modules.display()))?
        {
            let entry = entry?;
            if !expected.contains(&*entry.file_name().to_string_lossy()) {
                tracing::warn!(file = %entry.path().display(), "removing a file that is no module of this site");
                fs::remove_file(entry.path())
                    .with_context(|| format!("removing {}", entry.path().display()))?;
            }
        }
        for digest in known {
            if !modules.join(file_name(*digest)).exists() {
                tracing::error!(%digest, "the file of a module is missing: push it again");
            }
        }
        let store = Self {
            modules,
            uploads,
            busy: Arc::default(),
        };
        store
            .forget_old_parts()
            .with_context(|| format!("cleaning {}", store.uploads.display()))?;
        Ok(store)
    }

    /// Where the module is, when it is there.
    pub(crate) fn path(&self, digest: Digest) -> PathBuf {
        self.modules.join(file_name(digest))
    }

    fn part_path(&self, digest: Digest) -> PathBuf {
        self.uploads.join(format!("{}.part", digest.to_hex()))
    }

    /// How many bytes of an upload have arrived.
    pub(crate) async fn part_bytes(&self, digest: Digest) -> u64 {
        tokio::fs::metadata(self.part_path(digest))
            .await
            .map_or(0, |metadata| metadata.len())
    }

    /// Takes the right to upload `digest`.
    ///
    /// # Errors
    /// When another request is uploading it.
    pub(crate) fn claim(&self, digest: Digest) -> Result<Claim, Failure> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        if !busy.insert(digest) {
            return Err(Failure::new(
                Kind::Conflict,
                "upload_busy",
                "this module is being uploaded by another request",
            )
            .hint("wait until that one ends"));
        }
        Ok(Claim {
            digest,
            busy: Arc::clone(&self.busy),
        })
    }

    /// Opens the unfinished upload to append at `offset`, the number of bytes that are there.
    ///
    /// # Errors
    /// When the disk fails.
    pub(crate) async fn open_part(&self, claim: &Claim, offset: u64) -> io::Result<File> {
        let store = self.clone();
        tokio::task::spawn_blocking(move || store.forget_old_parts())
            .await
            .map_err(io::Error::other)??;
        let path = self.part_path(claim.digest);
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
            .await?;
        file.set_len(offset).await?;
        file.seek(SeekFrom::Start(offset)).await?;
        Ok(file)
    }

    /// Reads the whole upload, which is no larger than a module may be.
    ///
    /// # Errors
    /// When the disk fails.
    pub(crate) async fn read_part(&self, claim: &Claim) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(self.part_path(claim.digest))
            .await?
            .read_to_end(&mut bytes)
            .await?;
        Ok(bytes)
    }

    /// Removes an upload that was refused.
    pub(crate) async fn discard_part(&self, claim: &Claim) {
        remove(&self.part_path(claim.digest)).await;
    }

    /// Gives an upload that is on the disk its final name.
    ///
    /// # Errors
    /// When the disk fails.
    pub(crate) async fn keep(&self, claim: &Claim) -> io::Result<()> {
        tokio::fs::rename(self.part_path(claim.digest), self.path(claim.digest)).await?;
        File::open(&self.modules).await?.sync_all().await
    }

    /// Removes a module's file.
    pub(crate) async fn remove(&self, digest: Digest) {
        remove(&self.path(digest)).await;
    }

    /// Lets the oldest unfinished uploads go when there are too many, and all that are a day old.
    fn forget_old_parts(&self) -> io::Result<()> {
        let mut parts = Vec::new();
        for entry in fs::read_dir(&self.uploads)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            parts.push((modified, metadata.len(), entry.path()));
        }
        parts.sort();
        let mut total: u64 = parts.iter().map(|(_, bytes, _)| bytes).sum();
        let busy: HashSet<PathBuf> = {
            let busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
            busy.iter().map(|digest| self.part_path(*digest)).collect()
        };
        for (modified, bytes, path) in parts {
            let is_old = modified.elapsed().is_ok_and(|age| age > PART_LIFE);
            if (is_old || total > PARTS_BYTES_MAX) && !busy.contains(&path) {
                fs::remove_file(path)?;
                total -= bytes;
            }
        }
        Ok(())
    }
}

fn file_name(digest: Digest) -> String {
    format!("{}.wasm", digest.to_hex())
}

async fn remove(path: &Path) {
    match tokio::fs::remove_file(path).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::error!(file = %path.display(), %error, "can't remove a file of the module store");
        }
        _ => {}
    }
}
