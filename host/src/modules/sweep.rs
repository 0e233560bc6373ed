//! Room on the disk: files that no assignment names are removed, but for the newest ones.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use haar_protocol::ids::Digest;

use super::Modules;

/// Bytes of modules and code that no assignment names and that are kept all the same.
const SPARE_BYTES_MAX: u64 = 32 << 20;

impl Modules {
    /// Removes what is not needed: files of modules outside of `keep`, but for the newest ones, which
    /// are likely to be wanted again (a rollback, an application that comes back).
    pub fn sweep(&self, keep: &BTreeSet<Digest>) {
        self.loaded
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|digest, _| keep.contains(digest));
        let names: BTreeSet<String> = keep.iter().map(|digest| digest.to_hex()).collect();
        let mut spare_bytes = SPARE_BYTES_MAX;
        for folder in [&self.modules, &self.compiled] {
            for (path, bytes) in unneeded(folder, &names) {
                if bytes <= spare_bytes && path.extension().is_none_or(|end| end != "part") {
                    spare_bytes -= bytes;
                } else if let Err(error) = std::fs::remove_file(&path) {
                    tracing::warn!("can't remove {}: {error}", path.display());
                }
            }
        }
    }
}

/// The files of a folder whose stems are not among `names`, the newest first, with their sizes.
fn unneeded(folder: &Path, names: &BTreeSet<String>) -> Vec<(PathBuf, u64)> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut found: Vec<_> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            !path
                .file_stem()
                .and_then(|stem| stem.to_str())
                .is_some_and(|stem| names.contains(stem))
        })
        .filter_map(|path| {
            let metadata = path.metadata().ok()?;
            Some((metadata.modified().ok()?, path, metadata.len()))
        })
        .collect();
    found.sort();
    found
        .into_iter()
        .rev()
        .map(|(_, path, bytes)| (path, bytes))
        .collect()
}
