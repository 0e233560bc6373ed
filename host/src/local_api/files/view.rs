//! What the functions of `wasi:filesystem` see of an instance: the implementation of wasmtime-wasi
//! and the accounts of the directories.

use std::fs::File;
use std::io;
use std::sync::Arc;

use wasmtime::component::Resource;
use wasmtime_wasi::filesystem::{Descriptor, WasiFilesystemCtxView};
use wasmtime_wasi::p2::bindings::filesystem::types::{
    DescriptorStat, DescriptorType, ErrorCode, HostDescriptor as _, PathFlags,
};
use wasmtime_wasi::p2::{DynOutputStream, FsError, FsResult};

use super::Files;
use super::account::{Account, QuotaExceeded, UnderWay};
use super::ledger::{BLOCK, Charge, blocks};
use super::stream::{MeteredStream, OnThread, Position};
use super::thread::FileThread;

/// See the head of this file.
pub(super) struct FilesView<'a> {
    pub(super) inner: WasiFilesystemCtxView<'a>,
    pub(super) files: &'a mut Files,
}

/// A descriptor, as calls name it.
pub(super) type Fd = Resource<Descriptor>;

impl From<QuotaExceeded> for FsError {
    fn from(_: QuotaExceeded) -> Self {
        ErrorCode::Quota.into()
    }
}

impl FilesView<'_> {
    /// The thread that waits for disks.
    pub(super) fn thread(&self) -> Arc<FileThread> {
        Arc::clone(&self.files.thread)
    }

    /// Runs what blocks on that thread.
    pub(super) async fn on_thread<T: Send + 'static>(
        &mut self,
        what: &'static str,
        path: &str,
        f: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> FsResult<T> {
        Ok(self.thread().call(what, path, f).await?)
    }

    pub(super) fn account(&self, descriptor: &Fd) -> Option<Arc<Account>> {
        self.files.descriptors.get(&descriptor.rep()).cloned()?
    }

    /// The account of two directories between which something is linked or moved. Between trees
    /// with quotas of their own that is refused, as between two disks: so does XFS with its quotas
    /// for projects.
    pub(super) fn common_account(&self, one: &Fd, other: &Fd) -> FsResult<Option<Arc<Account>>> {
        match (self.account(one), self.account(other)) {
            (None, None) => Ok(None),
            (Some(one), Some(other)) if Arc::ptr_eq(&one, &other) => Ok(Some(one)),
            _ => Err(ErrorCode::CrossDevice.into()),
        }
    }

    /// The file behind a descriptor; none when it is a directory.
    pub(super) fn file(&self, descriptor: &Fd) -> FsResult<Option<Arc<File>>> {
        Ok(match self.inner.table.get(descriptor)? {
            Descriptor::File(file) => Some(Arc::clone(&file.file)),
            Descriptor::Dir(_) => None,
        })
    }

    /// What removing a name would free, when nobody has the file open.
    pub(super) async fn takes(&mut self, directory: &Fd, path: &str) -> Option<u64> {
        let stat = self
            .stat_below(directory, PathFlags::empty(), path)
            .await
            .ok()?;
        let is_last_name = stat.link_count <= 1;
        Some(match stat.type_ {
            DescriptorType::RegularFile if is_last_name => blocks(stat.size),
            _ => BLOCK,
        })
    }

    /// True when two names are of the same file, so that moving one to the other does nothing.
    pub(super) async fn is_same(&mut self, one: (&Fd, &str), other: (&Fd, &str)) -> bool {
        let mut hashes = Vec::with_capacity(2);
        for (directory, path) in [one, other] {
            let thread = self.thread();
            let (flags, name) = (PathFlags::empty(), path.to_owned());
            let hash = self.inner.metadata_hash_at(again(directory), flags, name);
            let hash = thread.run("stat", path, hash).await;
            hashes.extend(hash.ok().map(|hash| (hash.lower, hash.upper)));
        }
        hashes.len() == 2 && hashes[0] == hashes[1]
    }

    /// What is at a path, wherever it is on the node.
    pub(super) async fn stat_below(
        &mut self,
        directory: &Fd,
        flags: PathFlags,
        path: &str,
    ) -> FsResult<DescriptorStat> {
        let thread = self.thread();
        let stat = self.inner.stat_at(again(directory), flags, path.to_owned());
        thread.run("stat", path, stat).await
    }

    /// Remembers a new descriptor and the account that it belongs to.
    pub(super) fn remember(
        &mut self,
        descriptor: &Fd,
        account: Option<Arc<Account>>,
    ) -> FsResult<()> {
        if let Some(account) = &account {
            match self.inner.table.get(descriptor)? {
                Descriptor::File(file) => account.opened(&file.file),
                Descriptor::Dir(directory) => account.opened(&directory.dir),
            }
        }
        self.files.descriptors.insert(descriptor.rep(), account);
        Ok(())
    }

    /// Puts a stream that was just opened on the thread for files, and a meter around it.
    pub(super) fn meter(
        &mut self,
        descriptor: &Fd,
        stream: Resource<DynOutputStream>,
        position: Position,
    ) -> FsResult<Resource<DynOutputStream>> {
        let inner = self.inner.table.delete(stream)?;
        let stream: DynOutputStream = Box::new(OnThread::new(inner, self.thread()));
        let stream = match (self.account(descriptor), self.file(descriptor)?) {
            (Some(account), Some(file)) => {
                Box::new(MeteredStream::new(stream, file, position, account))
            }
            _ => stream,
        };
        Ok(self.inner.table.push(stream)?)
    }
}

/// Charges for something that takes one block, before it is made.
pub(super) async fn begin_entry(account: Option<&Arc<Account>>) -> FsResult<Option<UnderWay>> {
    match account {
        Some(account) => Ok(Some(account.charge(Charge::ENTRY).await?)),
        None => Ok(None),
    }
}

/// Gives back what was charged for something that was not made after all.
pub(super) fn end_entry<T>(under_way: Option<UnderWay>, made: &FsResult<T>) {
    if let Some(under_way) = under_way
        && made.is_err()
    {
        under_way.undo();
    }
}

/// The same descriptor, for another call.
pub(super) fn again(descriptor: &Fd) -> Fd {
    Resource::new_borrow(descriptor.rep())
}
