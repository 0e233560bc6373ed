//! How a guest's `open-at` opens: wasmtime-wasi finds the directory, which keeps a guest below its
//! own, and the last name is opened here, because wasmtime-wasi would wait for ever at a FIFO and
//! open devices. What was opened is looked at before the guest gets it, so that nothing can be
//! exchanged in between.
//!
//! ```text
//! a/b/name ─► wasmtime-wasi opens a/b ─► procfs? ─► what is `name`? ─┬─ link ─► again, from its target
//!                                                                     ├─ file, directory ─► open without
//!                                                                     │   waiting ─► look again ─► guest
//!                                                                     └─ FIFO, device, socket ─► refused
//! ```

use std::fs::File;
use std::io;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, openat, readlinkat, statat};
use rustix::io::Errno;
use wasmtime::component::Resource;
use wasmtime_wasi::filesystem::{Descriptor, Dir, File as GuestFile, OpenMode};
use wasmtime_wasi::p2::FsResult;
use wasmtime_wasi::p2::bindings::filesystem::types::{
    DescriptorFlags, ErrorCode, HostDescriptor as _, OpenFlags, PathFlags,
};

use super::admission::{admit, is_admissible};
use super::view::{Fd, FilesView, again};

/// Symbolic links that are followed on the way to one file, as Linux does (`path_resolution(7)`).
const LINKS_MAX: usize = 40;

/// What a name was, when it was opened.
enum Opened {
    File(File),
    Directory(File),
    /// A symbolic link with its target.
    Link(String),
}

/// How a file is opened.
#[derive(Debug, Clone, Copy)]
struct Manner {
    open_flags: OpenFlags,
    mode: OpenMode,
    follows: bool,
}

impl Manner {
    /// As wasmtime-wasi understands the arguments of `open-at`.
    fn of(path_flags: PathFlags, open_flags: OpenFlags, flags: DescriptorFlags) -> FsResult<Self> {
        let synchronised = DescriptorFlags::FILE_INTEGRITY_SYNC
            | DescriptorFlags::DATA_INTEGRITY_SYNC
            | DescriptorFlags::REQUESTED_WRITE_SYNC;
        if flags.intersects(synchronised) {
            return Err(ErrorCode::Unsupported.into());
        }
        let changes = OpenFlags::CREATE | OpenFlags::EXCLUSIVE | OpenFlags::TRUNCATE;
        if open_flags.contains(OpenFlags::DIRECTORY) && open_flags.intersects(changes) {
            return Err(ErrorCode::Invalid.into());
        }
        let mut mode = OpenMode::empty();
        let writes = flags.contains(DescriptorFlags::WRITE);
        if writes || open_flags.intersects(OpenFlags::CREATE | OpenFlags::TRUNCATE) {
            mode |= OpenMode::WRITE;
        }
        if flags.contains(DescriptorFlags::READ) || !writes {
            mode |= OpenMode::READ;
        }
        Ok(Self {
            open_flags,
            mode,
            follows: path_flags.contains(PathFlags::SYMLINK_FOLLOW),
        })
    }

    fn creates_anew(self) -> bool {
        self.open_flags
            .contains(OpenFlags::CREATE | OpenFlags::EXCLUSIVE)
    }

    fn flags(self) -> OFlags {
        let access = if self.mode.contains(OpenMode::READ | OpenMode::WRITE) {
            OFlags::RDWR
        } else if self.mode.contains(OpenMode::WRITE) {
            OFlags::WRONLY
        } else {
            OFlags::RDONLY
        };
        let safely = OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let mut flags = access | safely;
        for (wanted, flag) in [
            (OpenFlags::CREATE, OFlags::CREATE),
            (OpenFlags::EXCLUSIVE, OFlags::EXCL),
            (OpenFlags::TRUNCATE, OFlags::TRUNC),
            (OpenFlags::DIRECTORY, OFlags::DIRECTORY),
        ] {
            flags.set(flag, self.open_flags.contains(wanted));
        }
        // Without O_CREAT the kernel leaves it undefined; wasmtime-wasi ignores it.
        if !self.open_flags.contains(OpenFlags::CREATE) {
            flags.remove(OFlags::EXCL);
        }
        flags
    }
}

impl FilesView<'_> {
    /// See the head of this file.
    pub(super) async fn open_safely(
        &mut self,
        fd: Fd,
        path_flags: PathFlags,
        mut path: String,
        open_flags: OpenFlags,
        flags: DescriptorFlags,
    ) -> FsResult<Fd> {
        let perms = self.directory(&fd)?.perms;
        let manner = Manner::of(path_flags, open_flags, flags)?;
        if perms.write_not_permitted() && manner.mode.contains(OpenMode::WRITE) {
            return Err(ErrorCode::NotPermitted.into());
        }
        for _ in 0..=LINKS_MAX {
            let Some((parent, name)) = split(&path) else {
                return self.open_directory(&fd, &path, open_flags, flags).await;
            };
            let (parent, name) = (parent.to_owned(), name.to_owned());
            let directory = self.enter(&fd, &parent).await?;
            let opened = self
                .on_thread("open", &path, move || open_last(&directory, &name, manner))
                .await?;
            let descriptor = match opened {
                Opened::File(file) => {
                    Descriptor::File(GuestFile::new(file, perms, manner.mode, false))
                }
                Opened::Directory(directory) => {
                    Descriptor::Dir(Dir::new(directory, perms, manner.mode, false))
                }
                Opened::Link(_) if !manner.follows => return Err(ErrorCode::Loop.into()),
                Opened::Link(target) => {
                    path = beside(&path, &target)?;
                    continue;
                }
            };
            return Ok(self.inner.table.push(descriptor)?);
        }
        Err(ErrorCode::Loop.into())
    }

    /// Opens a path whose last part is not a name (`..`, `a/`, `a/.`): the kernel finds only a directory
    /// there, and opening one waits for nothing.
    async fn open_directory(
        &mut self,
        fd: &Fd,
        path: &str,
        open_flags: OpenFlags,
        flags: DescriptorFlags,
    ) -> FsResult<Fd> {
        let follows = PathFlags::SYMLINK_FOLLOW;
        let (thread, path) = (self.thread(), path.to_owned());
        let shown = path.clone();
        let inner = self
            .inner
            .open_at(again(fd), follows, path, open_flags, flags);
        let opened = thread.run("open", &shown, inner).await?;
        match self.admit(&opened).await {
            Ok(()) => Ok(opened),
            Err(error) => {
                self.leave(opened)?;
                Err(error)
            }
        }
    }

    /// The directory at `path`, if a guest may go through it.
    async fn enter(&mut self, fd: &Fd, path: &str) -> FsResult<Arc<File>> {
        if path.is_empty() {
            return Ok(Arc::clone(&self.directory(fd)?.dir));
        }
        let opened = self.open_parent(fd, path).await?;
        let directory = self.directory(&opened).map(|one| Arc::clone(&one.dir));
        self.leave(opened)?;
        directory
    }

    /// The directory that the last part of `path` is in, as a descriptor that the caller drops, and
    /// that part. Functions that take a path are handed on with these, so that none of them reaches
    /// through procfs.
    pub(super) async fn parent(&mut self, fd: &Fd, path: &str) -> FsResult<(Fd, String)> {
        let whole = if path.is_empty() { "" } else { "." };
        let (parent, name) = split(path).unwrap_or((path, whole));
        if parent.is_empty() {
            return Ok((again(fd), name.to_owned()));
        }
        let directory = self.open_parent(fd, parent).await?;
        Ok((directory, name.to_owned()))
    }

    async fn open_parent(&mut self, fd: &Fd, path: &str) -> FsResult<Fd> {
        // Without the dot wasmtime-wasi would open whatever is there, and wait for a FIFO.
        let path = format!("{path}/.");
        self.open_directory(fd, &path, OpenFlags::DIRECTORY, DescriptorFlags::READ)
            .await
    }

    async fn admit(&mut self, fd: &Fd) -> FsResult<()> {
        let file = match self.inner.table.get(fd)? {
            Descriptor::File(file) => Arc::clone(&file.file),
            Descriptor::Dir(directory) => Arc::clone(&directory.dir),
        };
        self.on_thread("open", "", move || admit(&file)).await?;
        Ok(())
    }

    /// The same for a function that follows a link at the end of the path: the place of what it leads
    /// to.
    pub(super) async fn place(
        &mut self,
        fd: &Fd,
        path_flags: PathFlags,
        path: &str,
    ) -> FsResult<(Fd, String)> {
        let mut path = path.to_owned();
        for _ in 0..=LINKS_MAX {
            let (directory, name) = self.parent(fd, &path).await?;
            if !path_flags.contains(PathFlags::SYMLINK_FOLLOW) {
                return Ok((directory, name));
            }
            let (place, last) = (Arc::clone(&self.directory(&directory)?.dir), name.clone());
            let target = self.on_thread("readlink", &path, move || link(&place, &last));
            match target.await {
                Ok(None) => return Ok((directory, name)),
                Ok(Some(target)) => path = beside(&path, &target)?,
                Err(error) => {
                    self.leave(directory)?;
                    return Err(error);
                }
            }
            self.leave(directory)?;
        }
        Err(ErrorCode::Loop.into())
    }

    /// Closes a directory that only the way led through.
    pub(super) fn leave(&mut self, fd: Fd) -> FsResult<()> {
        if fd.owned() {
            self.inner.table.delete(fd)?;
        }
        Ok(())
    }

    fn directory(&self, fd: &Fd) -> FsResult<&Dir> {
        match self
            .inner
            .table
            .get(&Resource::<Descriptor>::new_borrow(fd.rep()))?
        {
            Descriptor::Dir(directory) => Ok(directory),
            Descriptor::File(_) => Err(ErrorCode::NotDirectory.into()),
        }
    }
}

/// A relative path as the path of a directory, empty for the one where it begins, and a name in it;
/// none when the last part is not a name.
fn split(path: &str) -> Option<(&str, &str)> {
    let (parent, name) = match path.rsplit_once('/') {
        Some(("", _)) => return None, // absolute: wasmtime-wasi refuses it
        Some((parent, name)) => (parent, name),
        None => ("", path),
    };
    (!matches!(name, "" | "." | "..")).then_some((parent, name))
}

/// The path of what a link at `path` leads to. Out of the tree leads no link.
fn beside(path: &str, target: &str) -> FsResult<String> {
    if target.starts_with('/') {
        return Err(ErrorCode::NotPermitted.into());
    }
    Ok(match split(path) {
        Some((parent, _)) if !parent.is_empty() => format!("{parent}/{target}"),
        _ => target.to_owned(),
    })
}

/// The target of a link; none when there is something else, or nothing.
fn link(directory: &File, name: &str) -> io::Result<Option<String>> {
    match readlinkat(directory, name, Vec::new()) {
        Ok(target) => Ok(Some(target.into_string().map_err(|_| Errno::ILSEQ)?)),
        Err(Errno::INVAL | Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Opens a name in a directory without waiting for what is behind it. Blocks as long as the file system
/// does.
fn open_last(directory: &File, name: &str, manner: Manner) -> io::Result<Opened> {
    let creates = manner.open_flags.contains(OpenFlags::CREATE);
    match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) if manner.creates_anew() => return Err(Errno::EXIST.into()),
        Ok(stat) => {
            let kind = FileType::from_raw_mode(stat.st_mode);
            if kind.is_symlink() {
                let target = link(directory, name)?.ok_or(Errno::AGAIN)?; // exchanged meanwhile
                return Ok(Opened::Link(target));
            }
            if !is_admissible(kind) {
                return Err(Errno::PERM.into());
            }
        }
        Err(Errno::NOENT) if creates => {}
        Err(error) => return Err(error.into()),
    }
    let file = File::from(openat(
        directory,
        name,
        manner.flags(),
        Mode::from_raw_mode(0o666),
    )?);
    match admit(&file)?.is_dir() {
        true => Ok(Opened::Directory(file)),
        false => Ok(Opened::File(file)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_split_at_their_last_name() {
        assert_eq!(split("a"), Some(("", "a")));
        assert_eq!(split("a/b/c"), Some(("a/b", "c")));
        assert_eq!(split("../a"), Some(("..", "a")));
        for path in ["", ".", "..", "a/", "a/.", "a/..", "/", "/a"] {
            assert_eq!(split(path), None, "{path}");
        }
    }
}
