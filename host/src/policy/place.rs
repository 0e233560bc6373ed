//! Where a directory really is: which one it is and which ones contain it, by number rather than by
//! name, and where it lies on its file system. Links, `..`, upper and lower case and mounts make one
//! directory look like two.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::fs::{Mode, OFlags};

use super::mounts::{Mount, Mounts};

/// Directories above one another at most; PATH_MAX of Linux has room for half of them.
const DEPTH_MAX: usize = 4_096;

/// See the module.
#[derive(Debug)]
pub(super) struct Place {
    /// What this process calls it now.
    pub(super) path: PathBuf,
    /// The mount through which it is seen.
    pub(super) mount: Mount,
    /// Where it lies on the file system of that mount.
    pub(super) inside: PathBuf,
    /// The directory itself, then each that contains it, up to the root.
    chain: Vec<Identity>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
}

impl Place {
    /// Of a directory that is open.
    pub(super) fn of(opened: &File, mounts: &Mounts) -> anyhow::Result<Self> {
        let link = format!("/proc/self/fd/{}", opened.as_raw_fd());
        let path = std::fs::read_link(&link).with_context(|| format!("can't read {link}"))?;
        let mount = mounts.of(opened)?.clone();
        Ok(Self {
            inside: mount.inside(&path)?,
            chain: chain(opened).context("can't look at what contains it")?,
            path,
            mount,
        })
    }

    /// Of the directory at a path.
    pub(super) fn open(path: &Path, mounts: &Mounts) -> anyhow::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::open(path, flags, Mode::empty());
        let opened = opened.with_context(|| format!("can't open {}", path.display()))?;
        Self::of(&opened.into(), mounts)
    }

    /// True when it is this other directory or one below it, as this process sees them.
    pub(super) fn is_at_or_below(&self, other: &Place) -> bool {
        self.chain.contains(&other.chain[0])
    }

    /// The same, by whatever mounts the two are seen.
    pub(super) fn lies_in(&self, other: &Place) -> bool {
        let is_on_the_same = self.mount.device == other.mount.device;
        self.is_at_or_below(other) || (is_on_the_same && self.inside.starts_with(&other.inside))
    }
}

/// The directory, and each above it.
fn chain(opened: &File) -> io::Result<Vec<Identity>> {
    let mut chain = vec![identity(opened)?];
    let mut above = parent(opened.as_fd())?;
    while chain.len() < DEPTH_MAX {
        let identity = identity(&above)?;
        if chain.last() == Some(&identity) {
            return Ok(chain); // the root is its own parent
        }
        chain.push(identity);
        above = parent(above.as_fd())?;
    }
    Err(io::Error::other("it lies too deep"))
}

fn parent(of: std::os::fd::BorrowedFd<'_>) -> io::Result<std::os::fd::OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(of, "..", flags, Mode::empty())?)
}

fn identity(of: impl AsFd) -> io::Result<Identity> {
    let about = rustix::fs::fstat(of)?;
    Ok(Identity {
        device: about.st_dev,
        inode: about.st_ino,
    })
}
