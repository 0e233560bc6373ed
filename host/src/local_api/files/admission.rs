//! Which files a guest may have open at all: regular files and directories, and none of the file
//! systems through which the kernel shows the memory of processes. The last wall, behind what site
//! and device allow: it looks at what was opened, never at a path.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, fstat, fstatfs, statx};
use rustix::fs::{FileType, FsWord, PROC_SUPER_MAGIC, StatxFlags};
use rustix::io::Errno;

/// File systems that no guest enters. procfs has `PID/mem`, `maps` and `environ` of the agent itself,
/// which the kernel lets every process read of itself; debugfs and tracefs reach into the kernel
/// (`linux/magic.h`).
const FORBIDDEN: [FsWord; 3] = [PROC_SUPER_MAGIC, 0x6462_6720, 0x7472_6163];

/// Checks a file that was just opened, before anybody gets it. Returns what kind it is of.
///
/// # Errors
/// `EPERM` when no guest may have it.
pub(super) fn admit(file: impl AsFd) -> io::Result<FileType> {
    let kind = FileType::from_raw_mode(fstat(&file)?.st_mode);
    if !is_admissible(kind) || FORBIDDEN.contains(&fstatfs(&file)?.f_type) {
        return Err(Errno::PERM.into());
    }
    Ok(kind)
}

/// True for what a guest may open. Opening a FIFO may wait for ever, and opening a device may do
/// something: a watchdog begins to count.
pub(super) fn is_admissible(kind: FileType) -> bool {
    kind.is_file() || kind.is_dir()
}

/// Size of an open file in bytes, as far as this machine knows it: a file server that does not answer
/// is not waited for.
pub(super) fn known_size(file: &File) -> io::Result<u64> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    match statx(file, c"", flags, StatxFlags::SIZE) {
        Ok(statx) => Ok(statx.stx_size),
        Err(Errno::NOSYS) => Ok(file.metadata()?.len()), // Linux before 4.11
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_directories_are_admitted_and_procfs_is_not() {
        let tree = tempfile::tempdir().unwrap();
        std::fs::write(tree.path().join("file"), b"123").unwrap();
        let file = File::open(tree.path().join("file")).unwrap();
        assert!(admit(&file).unwrap().is_file());
        assert_eq!(known_size(&file).unwrap(), 3);
        assert!(admit(File::open(tree.path()).unwrap()).unwrap().is_dir());
        for path in ["/proc", "/proc/self", "/proc/self/maps", "/dev/null"] {
            let error = admit(File::open(path).unwrap()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{path}");
        }
    }
}
