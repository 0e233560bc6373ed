//! Small disks that can be filled: one `tmpfs` for the data directory of each node, in a mount
//! namespace of this process and its children, so that nothing of it is left however we end. Where
//! a machine gives us no such namespace there are none.

use std::ffi::OsString;
use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};

/// Says that this process is in its namespace.
pub(crate) const IN_NAMESPACE: &str = "--in-namespace";
/// Enough for modules, their code, and a log that is full.
const SIZE: &str = "size=64m";

/// Begins this program anew in a namespace where it may mount, as the same process. Returns when
/// there is none to be had.
pub(crate) fn enter_namespace() -> anyhow::Result<()> {
    let us = std::env::current_exe().context("can't find this program")?;
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    for flags in [&["--mount"][..], &["--mount", "--map-root-user"]] {
        let can = Command::new("unshare")
            .args(flags)
            .args(["mount", "-t", "tmpfs", "-o", SIZE, "tmpfs", "/mnt"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if can.is_ok_and(|status| status.success()) {
            let mut again = Command::new("unshare");
            again.args(flags).arg(us).args(arguments).arg(IN_NAMESPACE);
            return Err(again.exec()).context("can't start `unshare`");
        }
    }
    Ok(())
}

/// A small disk.
pub(crate) struct Disk {
    folder: PathBuf,
}

impl Disk {
    /// Makes `folder` a disk of its own.
    pub(crate) fn mount(folder: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", SIZE, "tmpfs"])
            .arg(folder)
            .status()
            .context("can't start `mount`")?;
        ensure!(status.success(), "can't mount {}", folder.display());
        Ok(Self {
            folder: folder.to_owned(),
        })
    }

    /// Leaves not a byte.
    pub(crate) fn fill(&self) -> anyhow::Result<()> {
        let mut file = File::options()
            .append(true)
            .create(true)
            .open(self.filling())?;
        for size in [1 << 20, 4 << 10, 1] {
            let chunk = vec![0; size];
            loop {
                match file.write_all(&chunk) {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => return Err(error).context("filling a disk"),
                }
            }
        }
        Ok(())
    }

    /// There is room again.
    pub(crate) fn free(&self) -> anyhow::Result<()> {
        std::fs::remove_file(self.filling()).context("freeing a disk")
    }

    fn filling(&self) -> PathBuf {
        self.folder.join("filling")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Whether it could or not, the namespace ends with us.
        let mut unmount = Command::new("umount");
        let _ = unmount.arg("--lazy").arg(&self.folder).status();
    }
}
