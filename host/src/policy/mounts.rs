//! The mounts that this process sees (`/proc/self/mountinfo`, proc(5)): what kind of file system a
//! directory is on, and which part of it. Two paths may lead to one directory by mounts alone.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::place::Place;

/// All of them.
#[derive(Debug)]
pub(crate) struct Mounts(Vec<Mount>);

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    /// Its number.
    id: u64,
    /// The file system, as `major:minor`.
    pub(super) device: String,
    /// Which directory of the file system it shows.
    pub(crate) root: PathBuf,
    /// Where it shows it.
    pub(crate) point: PathBuf,
    /// The type of the file system.
    kind: String,
}

/// What a file system holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Files that somebody has written.
    Files,
    /// The kernel's own files, such as sysfs.
    Kernel,
    /// procfs.
    Processes,
    /// Devices.
    Devices,
}

/// True when an open directory is the root of a mount.
///
/// # Errors
/// When the kernel does not say.
pub(crate) fn is_mount_point(opened: &File) -> anyhow::Result<bool> {
    let link = format!("/proc/self/fd/{}", opened.as_raw_fd());
    let path = std::fs::read_link(&link).with_context(|| format!("can't read {link}"))?;
    Ok(Mounts::read()?.of(opened)?.point == path)
}

impl Mounts {
    /// As they are now.
    pub(super) fn read() -> anyhow::Result<Self> {
        let text = std::fs::read("/proc/self/mountinfo").context("can't read the mounts")?;
        Ok(Self::parse(&text))
    }

    /// Lines that are not understood are passed over: what lies there is not found, and refused.
    pub(crate) fn parse(text: &[u8]) -> Self {
        let lines = text.split(|byte| *byte == b'\n');
        Self(lines.filter_map(Mount::parse).collect())
    }

    /// The mount through which a directory was opened.
    pub(super) fn of(&self, opened: &File) -> anyhow::Result<&Mount> {
        let about = format!("/proc/self/fdinfo/{}", opened.as_raw_fd());
        let about =
            std::fs::read_to_string(&about).with_context(|| format!("can't read {about}"))?;
        let id = about.lines().find_map(|line| line.strip_prefix("mnt_id:"));
        let id: u64 = id
            .and_then(|id| id.trim().parse().ok())
            .context("the kernel does not name its mount")?;
        let found = self.0.iter().find(|mount| mount.id == id);
        found.context("its mount is not among those of this process")
    }

    /// Those of file systems of a type.
    pub(crate) fn of_type(&self, kind: &str) -> impl Iterator<Item = &Mount> {
        self.0.iter().filter(move |mount| mount.kind == kind)
    }

    /// Those at or below a path. Below, because a directory shows what is mounted in it.
    pub(super) fn below(&self, path: &Path) -> impl Iterator<Item = &Mount> {
        let path = path.to_owned();
        self.0
            .iter()
            .filter(move |mount| mount.point.starts_with(&path))
    }
}

impl Mount {
    /// `36 35 98:0 /root /point rw,noatime master:1 - ext4 /dev/sda1 rw`
    fn parse(line: &[u8]) -> Option<Self> {
        let mut words = line.split(|byte| *byte == b' ');
        let id = std::str::from_utf8(words.next()?).ok()?.parse().ok()?;
        let device = String::from_utf8(words.nth(1)?.to_vec()).ok()?;
        let (root, point) = (path(words.next()?), path(words.next()?));
        let kind = words.skip_while(|word| *word != b"-").nth(1)?;
        Some(Self {
            id,
            device,
            root,
            point,
            kind: String::from_utf8(kind.to_vec()).ok()?,
        })
    }

    /// What it holds. The devices of a container lie on a file system in memory, in their usual place.
    pub(super) fn kind(&self) -> Kind {
        match self.kind.as_str() {
            "proc" => Kind::Processes,
            "devtmpfs" | "devpts" => Kind::Devices,
            _ if self.point.starts_with("/dev") => Kind::Devices,
            "sysfs" | "cgroup" | "cgroup2" | "debugfs" | "tracefs" | "securityfs" | "configfs"
            | "efivarfs" | "bpf" | "pstore" | "selinuxfs" | "smackfs" | "fusectl"
            | "binfmt_misc" | "mqueue" | "nsfs" | "nfsd" | "rpc_pipefs" | "resctrl" => Kind::Kernel,
            _ => Kind::Files,
        }
    }

    /// Where a path below the mount point lies on the file system.
    pub(super) fn inside(&self, path: &Path) -> anyhow::Result<PathBuf> {
        let below = path.strip_prefix(&self.point);
        let below = below
            .with_context(|| format!("{} is not below {}", path.display(), self.point.display()))?;
        // Joining nothing would leave a slash at the end.
        Ok(self.root.components().chain(below.components()).collect())
    }

    /// True when a part of `place`, or what contains it, is seen through this mount.
    pub(super) fn shows(&self, place: &Place) -> bool {
        self.device == place.mount.device
            && (self.root.starts_with(&place.inside) || place.inside.starts_with(&self.root))
    }
}

/// Blanks and backslashes are written as three octal digits.
fn path(word: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((first, behind)) = rest.split_first() {
        let octal = behind.get(..3).filter(|_| *first == b'\\');
        let code = octal
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(byte) => {
                bytes.push(byte);
                rest = &behind[3..];
            }
            None => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_point_is_told_from_a_directory() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!is_mount_point(&File::open(folder.path()).unwrap()).unwrap());
        assert!(is_mount_point(&File::open("/proc").unwrap()).unwrap());
        assert!(!is_mount_point(&File::open("/proc/self").unwrap()).unwrap());
    }

    #[test]
    fn a_line_is_read_with_its_optional_fields_and_its_escapes() {
        let text = b"36 35 98:0 /mnt\\0401 /srv/my\\040maps rw,noatime master:1 shared:2 - ext4 /dev/root rw\n\
            40 35 0:5 / /dev rw - devtmpfs udev rw\n\
            41 35 0:6 / /dev rw - tmpfs tmpfs rw\n\
            42 35 0:7 / /proc rw - proc proc rw\n\
            43 35 0:8 / /sys rw - sysfs sysfs rw\n\
            broken\n";
        let mounts = Mounts::parse(text);
        assert_eq!(mounts.0.len(), 5);
        let first = &mounts.0[0];
        assert_eq!(first.root, Path::new("/mnt 1"));
        assert_eq!(first.point, Path::new("/srv/my maps"));
        let kinds: Vec<Kind> = mounts.0.iter().map(Mount::kind).collect();
        let expected = [
            Kind::Files,
            Kind::Devices,
            Kind::Devices,
            Kind::Processes,
            Kind::Kernel,
        ];
        assert_eq!(kinds, expected);
        let inside = first.inside(Path::new("/srv/my maps/north")).unwrap();
        assert_eq!(inside, Path::new("/mnt 1/north"));
        assert_eq!(first.inside(&first.point).unwrap().as_os_str(), "/mnt 1");
        assert!(first.inside(Path::new("/srv")).is_err());
        assert_eq!(mounts.below(Path::new("/srv")).count(), 1);
        assert_eq!(mounts.below(Path::new("/sr")).count(), 0);
    }
}
