//! The unsafe code of the engine: handing checked, compiled code to it, and the lease on a file
//! without which a file would not stay checked.

use std::fs::File;

use wasmtime::Engine;
use wasmtime::component::Component;

use crate::artifact::{CheckedCode, Where};

/// Loads code that [`crate::artifact`] has checked. Code in a file is mapped: pages that are never
/// touched are never read, and those that are can be dropped and read again by the system.
///
/// # Errors
/// When the engine itself refuses the code (it compares versions and settings once more).
pub fn load(engine: &Engine, code: CheckedCode) -> wasmtime::Result<Component> {
    // SAFETY: `Component::deserialize` and `deserialize_file` run whatever machine code they are
    // given, so it must come unchanged from `Engine::precompile_component`. A `CheckedCode` exists
    // only when a trusted key (this node's own, or the site's) has signed the SHA-256 of exactly
    // these bytes together with the engine's fingerprint and target. Bytes in memory are ours. A
    // file is the one that was checked, by its open descriptor, and from before the check until it
    // is mapped nobody could open it for writing (`Lease`); afterwards it is as safe as this
    // program's own file, which is mapped in the same way: only this user and root may write it,
    // and we write such files under another name, once, and replace them whole.
    #[allow(
        unsafe_code,
        reason = "the one place that loads compiled code; checked above"
    )]
    match code.0 {
        Where::Memory(bytes) => unsafe { Component::deserialize(engine, bytes) },
        Where::File(lease) => {
            let component = unsafe { Component::deserialize_file(engine, lease.path()) };
            drop(lease); // held until here
            component
        }
    }
}

/// A file open for reading that nobody can open for writing as long as this exists (`fcntl(2)`,
/// "Leases"): whoever tries waits, up to `/proc/sys/fs/lease-break-time` (45 seconds), and reading
/// and mapping take milliseconds.
#[derive(Debug)]
pub(crate) struct Lease {
    file: File,
}

impl Lease {
    /// Takes the lease, or gives the file back when it can't be had: somebody has it open for
    /// writing, it belongs to another user, or the system has no leases.
    pub(crate) fn take(file: File) -> Result<Self, File> {
        if set(&file) {
            Ok(Self { file })
        } else {
            Err(file)
        }
    }

    /// The file, where its last reader stopped.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// A path to this very file, whatever its name now names.
    #[cfg(target_os = "linux")]
    fn path(&self) -> String {
        use std::os::fd::AsRawFd as _;
        format!("/proc/self/fd/{}", self.file.as_raw_fd())
    }

    #[cfg(not(target_os = "linux"))]
    fn path(&self) -> String {
        unreachable!("there are no leases here")
    }
}

/// Of `fcntl`: which signal tells of somebody who waits for a lease (Linux, asm-generic/fcntl.h; the
/// crate libc has it for few targets).
#[cfg(target_os = "linux")]
const F_SETSIG: libc::c_int = 10;

#[cfg(target_os = "linux")]
fn set(file: &File) -> bool {
    use std::os::fd::AsRawFd as _;
    let descriptor = file.as_raw_fd();
    // Where `/proc` is not mounted there is no second way to this very file.
    if !std::path::Path::new("/proc/self/fd").is_dir() {
        return false;
    }
    // SAFETY: `fcntl` with these commands takes a descriptor, which is open as long as `file` is
    // borrowed, and an integer. The signal that tells of somebody who waits to write must be one
    // that is ignored unless somebody listens; the usual one, SIGIO, would end the process.
    #[allow(unsafe_code, reason = "no library offers leases")]
    unsafe {
        libc::fcntl(descriptor, F_SETSIG, libc::SIGURG) == 0
            && libc::fcntl(descriptor, libc::F_SETLEASE, libc::F_RDLCK) == 0
    }
}

#[cfg(not(target_os = "linux"))]
fn set(_file: &File) -> bool {
    false
}
