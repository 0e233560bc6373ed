//! Walks a directory tree to learn what it takes. Follows no links, crosses no more than it can
//! bear, and says so: what can't be measured counts as full. Blocks.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::ledger::{BLOCK, blocks};

/// Entries that a walk looks at, at most: it takes about a second then.
const ENTRIES_MAX: u64 = 262_144;
/// Directories inside directories; each one on the way down is an open file.
const DEPTH_MAX: usize = 64;

/// What everything below `root` takes, without `root` itself: each entry its size in whole blocks,
/// and at least one. A file with several names counts once, its further names one block each.
/// Files among `open` that have no name any more count too.
///
/// # Errors
/// When the tree is too large or too deep, or a part of it can't be read.
pub(super) fn usage(root: &File, open: &[Arc<File>]) -> io::Result<u64> {
    let mut walk = Walk::default();
    for file in open {
        let metadata = file.metadata()?;
        if metadata.nlink() == 0 && walk.linked.insert((metadata.dev(), metadata.ino())) {
            walk.bytes = walk.bytes.saturating_add(blocks(metadata.len()));
        }
    }
    let mut below = vec![Dir::read_from(root)?];
    while let Some(directory) = below.last_mut() {
        match directory.read() {
            None => {
                below.pop();
            }
            Some(entry) => {
                if let Some(inner) = walk.look_at(directory, entry?.file_name())? {
                    below.push(inner);
                }
                if below.len() > DEPTH_MAX {
                    let what = format!("it has more than {DEPTH_MAX} levels of directories");
                    return Err(io::Error::other(what));
                }
            }
        }
    }
    Ok(walk.bytes)
}

#[derive(Default)]
struct Walk {
    bytes: u64,
    entries: u64,
    /// Files with several names, or none, that were counted: device and number.
    linked: HashSet<(u64, u64)>,
}

impl Walk {
    /// Counts an entry. Returns the directory that it is.
    fn look_at(&mut self, directory: &Dir, name: &std::ffi::CStr) -> io::Result<Option<Dir>> {
        if matches!(name.to_bytes(), b"." | b"..") {
            return Ok(None);
        }
        self.entries += 1;
        if self.entries > ENTRIES_MAX {
            let what = format!("it has more than {ENTRIES_MAX} entries");
            return Err(io::Error::other(what));
        }
        let descriptor = directory.fd()?;
        let stat = match rustix::fs::statat(descriptor, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(None), // removed meanwhile
            Err(error) => return Err(error.into()),
        };
        let kind = FileType::from_raw_mode(stat.st_mode);
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let is_first_name = stat.st_nlink <= 1 || self.linked.insert((stat.st_dev, stat.st_ino));
        let takes = if kind.is_file() && is_first_name {
            blocks(size)
        } else {
            BLOCK
        };
        self.bytes = self.bytes.saturating_add(takes);
        if !kind.is_dir() {
            return Ok(None);
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(descriptor, name, flags, Mode::empty()) {
            Ok(inner) => Ok(Some(Dir::new(inner)?)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None), // replaced meanwhile
            Err(error) => Err(error.into()),
        }
    }
}

/// How many entries a directory has; no more than `most` and one are counted.
///
/// # Errors
/// When it can't be read.
pub(super) fn entries(directory: &File, most: usize) -> io::Result<usize> {
    let entries = Dir::read_from(directory)?.take(most.saturating_add(3));
    let mut count = 0;
    for entry in entries {
        if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
            count += 1;
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn usage_of(root: &std::path::Path, open: &[Arc<File>]) -> io::Result<u64> {
        usage(&File::open(root).unwrap(), open)
    }

    #[test]
    fn everything_counts_in_blocks_and_links_lead_nowhere() {
        let (outside, tree) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(outside.path().join("large"), vec![0; 100_000]).unwrap();
        let root = tree.path();
        assert_eq!(usage_of(root, &[]).unwrap(), 0);
        std::fs::create_dir(root.join("inner")).unwrap();
        std::fs::write(root.join("inner/file"), [0; 5_000]).unwrap();
        std::fs::write(root.join("empty"), []).unwrap();
        symlink(outside.path(), root.join("link")).unwrap();
        symlink(outside.path().join("large"), root.join("inner/link")).unwrap();
        assert_eq!(usage_of(root, &[]).unwrap(), 6 * BLOCK);
        File::create(root.join("sparse"))
            .unwrap()
            .set_len(1 << 20)
            .unwrap();
        assert_eq!(usage_of(root, &[]).unwrap(), 6 * BLOCK + (1 << 20));
    }

    #[test]
    fn a_file_counts_once_by_whatever_names_and_also_without_one_while_it_is_open() {
        let tree = tempfile::tempdir().unwrap();
        let (one, two) = (tree.path().join("one"), tree.path().join("two"));
        std::fs::write(&one, [0; 10_000]).unwrap();
        std::fs::hard_link(&one, &two).unwrap();
        let open = [Arc::new(File::open(&one).unwrap())];
        assert_eq!(usage_of(tree.path(), &open).unwrap(), 4 * BLOCK);
        std::fs::remove_file(&one).unwrap();
        assert_eq!(usage_of(tree.path(), &open).unwrap(), 3 * BLOCK);
        std::fs::remove_file(&two).unwrap();
        assert_eq!(usage_of(tree.path(), &open).unwrap(), 3 * BLOCK);
        assert_eq!(usage_of(tree.path(), &[]).unwrap(), 0);
    }

    #[test]
    fn a_tree_that_is_too_deep_is_not_measured() {
        let tree = tempfile::tempdir().unwrap();
        let deep = vec!["d"; DEPTH_MAX].join("/");
        std::fs::create_dir_all(tree.path().join(deep)).unwrap();
        let error = usage_of(tree.path(), &[]).unwrap_err();
        assert!(error.to_string().contains("64 levels"), "{error}");
    }

    #[test]
    fn entries_are_counted_no_further_than_asked() {
        let tree = tempfile::tempdir().unwrap();
        for number in 0..10 {
            std::fs::write(tree.path().join(number.to_string()), []).unwrap();
        }
        let directory = File::open(tree.path()).unwrap();
        assert_eq!(entries(&directory, 100).unwrap(), 10);
        assert!(entries(&directory, 4).unwrap() > 4);
    }
}
