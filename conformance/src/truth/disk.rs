//! A disk that can be filled, for an agent's data.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

const SIZE: &str = "size=64m";

/// A small file system in memory.
pub(super) struct Disk(PathBuf);

impl Disk {
    /// `None` without the right to mount.
    pub(super) fn mount(path: &Path) -> anyhow::Result<Option<Self>> {
        std::fs::create_dir_all(path)?;
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", SIZE, "tmpfs"])
            .arg(path)
            .stderr(std::process::Stdio::null())
            .status();
        Ok(mounted
            .is_ok_and(|status| status.success())
            .then(|| Self(path.to_owned())))
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }

    /// Fills the remaining space.
    pub(super) fn fill(&self) -> anyhow::Result<()> {
        let mut file = File::create(self.filler())?;
        let block = vec![1; 64 << 10];
        while file.write_all(&block).is_ok() {}
        while file.write_all(&block[..512]).is_ok() {}
        Ok(())
    }

    /// Gives that space back.
    pub(super) fn free(&self) -> anyhow::Result<()> {
        Ok(std::fs::remove_file(self.filler())?)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a process with an open file keeps it until it ends.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
