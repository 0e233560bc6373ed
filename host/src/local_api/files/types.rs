//! The functions of `wasi:filesystem`, each handed on to wasmtime-wasi. Those that make a tree grow
//! are charged first, those that make it smaller are credited afterwards.

use std::sync::Arc;

use wasmtime::component::Resource;
use wasmtime_wasi::filesystem::Descriptor;
use wasmtime_wasi::p2::bindings::filesystem::{preopens, types};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, FsError, FsResult};

use self::types::{ErrorCode, HostDescriptor, HostDirectoryEntryStream};
use super::account::QuotaExceeded;
use super::admission::known_size;
use super::ledger::{BLOCK, Charge, blocks};
use super::stream::{OnThread, Position};
use super::view::{Fd, FilesView, again, begin_entry, end_entry};
use super::{DESCRIPTORS_MAX, LISTED_ENTRIES_MAX, walk};

impl preopens::Host for FilesView<'_> {
    fn get_directories(&mut self) -> wasmtime::Result<Vec<(Fd, String)>> {
        let mut directories = Vec::with_capacity(self.files.roots.len());
        for root in &self.files.roots {
            let directory = Descriptor::Dir(root.directory.clone());
            let descriptor = self.inner.table.push(directory)?;
            let account = root.account.clone();
            self.files.descriptors.insert(descriptor.rep(), account);
            directories.push((descriptor, root.guest.clone()));
        }
        Ok(directories)
    }
}

impl types::Host for FilesView<'_> {
    fn convert_error_code(&mut self, error: FsError) -> wasmtime::Result<ErrorCode> {
        error.downcast()
    }

    fn filesystem_error_code(
        &mut self,
        error: Resource<wasmtime::Error>,
    ) -> wasmtime::Result<Option<ErrorCode>> {
        if self.inner.table.get(&error)?.is::<QuotaExceeded>() {
            return Ok(Some(ErrorCode::Quota));
        }
        self.inner.filesystem_error_code(error)
    }
}

impl HostDirectoryEntryStream for FilesView<'_> {
    async fn read_directory_entry(
        &mut self,
        stream: Resource<types::DirectoryEntryStream>,
    ) -> FsResult<Option<types::DirectoryEntry>> {
        self.inner.read_directory_entry(stream).await
    }

    fn drop(&mut self, stream: Resource<types::DirectoryEntryStream>) -> wasmtime::Result<()> {
        self.files.listings.remove(&stream.rep());
        HostDirectoryEntryStream::drop(&mut self.inner, stream)
    }
}

impl HostDescriptor for FilesView<'_> {
    async fn write(&mut self, fd: Fd, bytes: Vec<u8>, offset: u64) -> FsResult<u64> {
        let thread = self.thread();
        let (Some(account), Some(file)) = (self.account(&fd), self.file(&fd)?) else {
            return thread
                .run("write", "", self.inner.write(fd, bytes, offset))
                .await;
        };
        let end = offset.saturating_add(bytes.len() as u64);
        let charge = Charge::up_to(known_size(&file)?, end);
        let _under_way = account.charge(charge).await?;
        let written = self.inner.write(fd, bytes, offset);
        let written = thread.run("write", "", written).await;
        if written.is_err() {
            account.freed();
        }
        written
    }

    async fn set_size(&mut self, fd: Fd, size: u64) -> FsResult<()> {
        let thread = self.thread();
        let (Some(account), Some(file)) = (self.account(&fd), self.file(&fd)?) else {
            return thread
                .run("set-size", "", self.inner.set_size(fd, size))
                .await;
        };
        let before = known_size(&file)?;
        let under_way = account.charge(Charge::up_to(before, size)).await?;
        let resized = thread
            .run("set-size", "", self.inner.set_size(fd, size))
            .await;
        match resized {
            Ok(()) => {
                drop(under_way);
                account.credit(blocks(before).saturating_sub(blocks(size)));
            }
            Err(_) => under_way.undo(),
        }
        resized
    }

    fn write_via_stream(&mut self, fd: Fd, offset: u64) -> FsResult<Resource<DynOutputStream>> {
        let stream = self.inner.write_via_stream(again(&fd), offset)?;
        self.meter(&fd, stream, Position::At(offset))
    }

    fn append_via_stream(&mut self, fd: Fd) -> FsResult<Resource<DynOutputStream>> {
        let stream = self.inner.append_via_stream(again(&fd))?;
        self.meter(&fd, stream, Position::End)
    }

    async fn open_at(
        &mut self,
        fd: Fd,
        path_flags: types::PathFlags,
        path: String,
        open_flags: types::OpenFlags,
        flags: types::DescriptorFlags,
    ) -> FsResult<Fd> {
        if self.files.descriptors.len() >= DESCRIPTORS_MAX {
            return Err(ErrorCode::InsufficientMemory.into());
        }
        let account = self.account(&fd);
        let creates = open_flags.contains(types::OpenFlags::CREATE);
        let truncates = open_flags.contains(types::OpenFlags::TRUNCATE);
        let mut before = None;
        if account.is_some() && (creates || truncates) {
            before = self.stat_below(&fd, path_flags, &path).await.ok();
        }
        let mut under_way = None;
        if creates && before.is_none() {
            under_way = begin_entry(account.as_ref()).await?;
        }
        let opened = self.open_safely(fd, path_flags, path, open_flags, flags);
        let opened = opened.await;
        end_entry(under_way, &opened);
        let opened = opened?;
        if let (Some(account), Some(before), true) = (&account, before, truncates)
            && before.type_ == types::DescriptorType::RegularFile
        {
            account.credit(blocks(before.size) - BLOCK);
        }
        self.remember(&opened, account)?;
        Ok(opened)
    }

    async fn create_directory_at(&mut self, fd: Fd, path: String) -> FsResult<()> {
        let account = self.account(&fd);
        let under_way = begin_entry(account.as_ref()).await?;
        let (thread, shown) = (self.thread(), path.clone());
        let made = self.inner.create_directory_at(fd, path);
        let made = thread.run("create-directory", &shown, made).await;
        end_entry(under_way, &made);
        made
    }

    async fn symlink_at(&mut self, fd: Fd, old_path: String, new_path: String) -> FsResult<()> {
        let account = self.account(&fd);
        let under_way = begin_entry(account.as_ref()).await?;
        let (thread, shown) = (self.thread(), new_path.clone());
        let made = self.inner.symlink_at(fd, old_path, new_path);
        let made = thread.run("symlink", &shown, made).await;
        end_entry(under_way, &made);
        made
    }

    async fn link_at(
        &mut self,
        fd: Fd,
        old_path_flags: types::PathFlags,
        old_path: String,
        new_fd: Fd,
        new_path: String,
    ) -> FsResult<()> {
        let account = self.common_account(&fd, &new_fd)?;
        let under_way = begin_entry(account.as_ref()).await?;
        let (thread, shown) = (self.thread(), new_path.clone());
        let made = self
            .inner
            .link_at(fd, old_path_flags, old_path, new_fd, new_path);
        let made = thread.run("link", &shown, made).await;
        end_entry(under_way, &made);
        made
    }

    async fn rename_at(
        &mut self,
        fd: Fd,
        old_path: String,
        new_fd: Fd,
        new_path: String,
    ) -> FsResult<()> {
        let account = self.common_account(&fd, &new_fd)?;
        let mut replaced = None;
        if account.is_some() && !self.is_same((&fd, &old_path), (&new_fd, &new_path)).await {
            replaced = self.takes(&new_fd, &new_path).await;
        }
        let (thread, shown) = (self.thread(), old_path.clone());
        let moved = self.inner.rename_at(fd, old_path, new_fd, new_path);
        thread.run("rename", &shown, moved).await?;
        if let (Some(account), Some(bytes)) = (account, replaced) {
            account.unlinked(bytes);
        }
        Ok(())
    }

    async fn unlink_file_at(&mut self, fd: Fd, path: String) -> FsResult<()> {
        let mut removed = None;
        if let Some(account) = self.account(&fd) {
            removed = self.takes(&fd, &path).await.map(|bytes| (account, bytes));
        }
        let (thread, shown) = (self.thread(), path.clone());
        let unlinked = self.inner.unlink_file_at(fd, path);
        thread.run("unlink", &shown, unlinked).await?;
        if let Some((account, bytes)) = removed {
            account.unlinked(bytes);
        }
        Ok(())
    }

    async fn remove_directory_at(&mut self, fd: Fd, path: String) -> FsResult<()> {
        let account = self.account(&fd);
        let (thread, shown) = (self.thread(), path.clone());
        let unlinked = self.inner.remove_directory_at(fd, path);
        thread.run("remove-directory", &shown, unlinked).await?;
        if let Some(account) = account {
            account.unlinked(BLOCK);
        }
        Ok(())
    }

    async fn read_directory(&mut self, fd: Fd) -> FsResult<Resource<types::DirectoryEntryStream>> {
        let mut entries = 0;
        if let Descriptor::Dir(directory) = self.inner.table.get(&fd)? {
            let listed: usize = self.files.listings.values().sum();
            let most = LISTED_ENTRIES_MAX.saturating_sub(listed);
            let directory = Arc::clone(&directory.dir);
            let count = move || walk::entries(&directory, most);
            entries = self.on_thread("read-directory", "", count).await?;
            if entries > most {
                return Err(ErrorCode::InsufficientMemory.into());
            }
        }
        let thread = self.thread();
        let listing = self.inner.read_directory(fd);
        let listing = thread.run("read-directory", "", listing).await?;
        self.files.listings.insert(listing.rep(), entries);
        Ok(listing)
    }

    fn drop(&mut self, fd: Fd) -> wasmtime::Result<()> {
        self.files.descriptors.remove(&fd.rep());
        let descriptor = self.inner.table.delete(fd)?;
        // Closing may wait for a file server that has not yet got everything.
        let _ = self.thread().begin_call(move || drop(descriptor)); // closed all the same
        Ok(())
    }

    // From here on nothing grows and nothing is kept.

    async fn advise(
        &mut self,
        fd: Fd,
        offset: u64,
        length: u64,
        advice: types::Advice,
    ) -> FsResult<()> {
        let thread = self.thread();
        thread
            .run("advise", "", self.inner.advise(fd, offset, length, advice))
            .await
    }

    async fn sync_data(&mut self, fd: Fd) -> FsResult<()> {
        let thread = self.thread();
        thread.run("sync-data", "", self.inner.sync_data(fd)).await
    }

    async fn sync(&mut self, fd: Fd) -> FsResult<()> {
        let thread = self.thread();
        thread.run("sync", "", self.inner.sync(fd)).await
    }

    async fn get_flags(&mut self, fd: Fd) -> FsResult<types::DescriptorFlags> {
        let thread = self.thread();
        thread.run("get-flags", "", self.inner.get_flags(fd)).await
    }

    async fn get_type(&mut self, fd: Fd) -> FsResult<types::DescriptorType> {
        let thread = self.thread();
        thread.run("get-type", "", self.inner.get_type(fd)).await
    }

    async fn set_times(
        &mut self,
        fd: Fd,
        accessed: types::NewTimestamp,
        modified: types::NewTimestamp,
    ) -> FsResult<()> {
        let thread = self.thread();
        thread
            .run(
                "set-times",
                "",
                self.inner.set_times(fd, accessed, modified),
            )
            .await
    }

    async fn set_times_at(
        &mut self,
        fd: Fd,
        path_flags: types::PathFlags,
        path: String,
        accessed: types::NewTimestamp,
        modified: types::NewTimestamp,
    ) -> FsResult<()> {
        let (thread, shown) = (self.thread(), path.clone());
        let set = self
            .inner
            .set_times_at(fd, path_flags, path, accessed, modified);
        thread.run("set-times", &shown, set).await
    }

    async fn read(&mut self, fd: Fd, length: u64, offset: u64) -> FsResult<(Vec<u8>, bool)> {
        let thread = self.thread();
        thread
            .run("read", "", self.inner.read(fd, length, offset))
            .await
    }

    fn read_via_stream(&mut self, fd: Fd, offset: u64) -> FsResult<Resource<DynInputStream>> {
        let stream = self.inner.read_via_stream(fd, offset)?;
        let inner = self.inner.table.delete(stream)?;
        let stream: DynInputStream = Box::new(OnThread::new(inner, self.thread()));
        Ok(self.inner.table.push(stream)?)
    }

    async fn stat(&mut self, fd: Fd) -> FsResult<types::DescriptorStat> {
        let thread = self.thread();
        thread.run("stat", "", self.inner.stat(fd)).await
    }

    async fn stat_at(
        &mut self,
        fd: Fd,
        path_flags: types::PathFlags,
        path: String,
    ) -> FsResult<types::DescriptorStat> {
        let (directory, name) = self.place(&fd, path_flags, &path).await?;
        let stat = self.stat_below(&directory, path_flags, &name).await;
        self.leave(directory)?;
        stat
    }

    async fn readlink_at(&mut self, fd: Fd, path: String) -> FsResult<String> {
        let (directory, name) = self.parent(&fd, &path).await?;
        let thread = self.thread();
        let target = self.inner.readlink_at(again(&directory), name);
        let target = thread.run("readlink", &path, target).await;
        self.leave(directory)?;
        target
    }

    async fn is_same_object(&mut self, one: Fd, other: Fd) -> wasmtime::Result<bool> {
        let thread = self.thread();
        thread
            .run("is-same-object", "", self.inner.is_same_object(one, other))
            .await
    }

    async fn metadata_hash(&mut self, fd: Fd) -> FsResult<types::MetadataHashValue> {
        let thread = self.thread();
        thread
            .run("metadata-hash", "", self.inner.metadata_hash(fd))
            .await
    }

    async fn metadata_hash_at(
        &mut self,
        fd: Fd,
        path_flags: types::PathFlags,
        path: String,
    ) -> FsResult<types::MetadataHashValue> {
        let (directory, name) = self.place(&fd, path_flags, &path).await?;
        let thread = self.thread();
        let hash = self
            .inner
            .metadata_hash_at(again(&directory), path_flags, name);
        let hash = thread.run("metadata-hash", &path, hash).await;
        self.leave(directory)?;
        hash
    }
}
