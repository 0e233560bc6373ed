//! The functions of `wasi:filesystem`, each handed on to wasmtime-wasi. Those that make a tree grow
//! are charged first, those that make it smaller are credited afterwards.

use std::sync::Arc;

use wasmtime::component::Resource;
use wasmtime_wasi::filesystem::Descriptor;
use wasmtime_wasi::p2::bindings::filesystem::{preopens, types};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, FsError, FsResult};

use self::types::{ErrorCode, HostDescriptor, HostDirectoryEntryStream};
use super::account::QuotaExceeded;
use super::ledger::{BLOCK, Charge, blocks};
use super::stream::Position;
use super::view::{Fd, FilesView, again, begin_entry, end_entry};
use super::{DESCRIPTORS_MAX, LISTED_ENTRIES_MAX, walk};

impl preopens::Host for FilesView<'_> {
    fn get_directories(&mut self) -> wasmtime::Result<Vec<(Fd, String)>> {
        let directories = preopens::Host::get_directories(&mut self.inner)?;
        for ((descriptor, _), account) in directories.iter().zip(&self.files.grants) {
            let account = account.clone();
            self.files.descriptors.insert(descriptor.rep(), account);
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
        let (Some(account), Some(file)) = (self.account(&fd), self.file(&fd)?) else {
            return self.inner.write(fd, bytes, offset).await;
        };
        let end = offset.saturating_add(bytes.len() as u64);
        let charge = Charge::up_to(file.metadata()?.len(), end);
        let _under_way = account.charge(charge).await?;
        let written = self.inner.write(fd, bytes, offset).await;
        if written.is_err() {
            account.freed();
        }
        written
    }

    async fn set_size(&mut self, fd: Fd, size: u64) -> FsResult<()> {
        let (Some(account), Some(file)) = (self.account(&fd), self.file(&fd)?) else {
            return self.inner.set_size(fd, size).await;
        };
        let before = file.metadata()?.len();
        let under_way = account.charge(Charge::up_to(before, size)).await?;
        let resized = self.inner.set_size(fd, size).await;
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
            let stat = self.inner.stat_at(again(&fd), path_flags, path.clone());
            before = stat.await.ok();
        }
        let mut under_way = None;
        if creates && before.is_none() {
            under_way = begin_entry(account.as_ref()).await?;
        }
        let opened = self.inner.open_at(fd, path_flags, path, open_flags, flags);
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
        let made = self.inner.create_directory_at(fd, path).await;
        end_entry(under_way, &made);
        made
    }

    async fn symlink_at(&mut self, fd: Fd, old_path: String, new_path: String) -> FsResult<()> {
        let account = self.account(&fd);
        let under_way = begin_entry(account.as_ref()).await?;
        let made = self.inner.symlink_at(fd, old_path, new_path).await;
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
        let made = self
            .inner
            .link_at(fd, old_path_flags, old_path, new_fd, new_path)
            .await;
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
        self.inner.rename_at(fd, old_path, new_fd, new_path).await?;
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
        self.inner.unlink_file_at(fd, path).await?;
        if let Some((account, bytes)) = removed {
            account.unlinked(bytes);
        }
        Ok(())
    }

    async fn remove_directory_at(&mut self, fd: Fd, path: String) -> FsResult<()> {
        let account = self.account(&fd);
        self.inner.remove_directory_at(fd, path).await?;
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
            let counted = tokio::task::spawn_blocking(move || walk::entries(&directory, most));
            entries = counted.await.map_err(FsError::trap)??;
            if entries > most {
                return Err(ErrorCode::InsufficientMemory.into());
            }
        }
        let listing = self.inner.read_directory(fd).await?;
        self.files.listings.insert(listing.rep(), entries);
        Ok(listing)
    }

    fn drop(&mut self, fd: Fd) -> wasmtime::Result<()> {
        self.files.descriptors.remove(&fd.rep());
        HostDescriptor::drop(&mut self.inner, fd)
    }

    // From here on nothing grows and nothing is kept.

    async fn advise(
        &mut self,
        fd: Fd,
        offset: u64,
        length: u64,
        advice: types::Advice,
    ) -> FsResult<()> {
        self.inner.advise(fd, offset, length, advice).await
    }

    async fn sync_data(&mut self, fd: Fd) -> FsResult<()> {
        self.inner.sync_data(fd).await
    }

    async fn sync(&mut self, fd: Fd) -> FsResult<()> {
        self.inner.sync(fd).await
    }

    async fn get_flags(&mut self, fd: Fd) -> FsResult<types::DescriptorFlags> {
        self.inner.get_flags(fd).await
    }

    async fn get_type(&mut self, fd: Fd) -> FsResult<types::DescriptorType> {
        self.inner.get_type(fd).await
    }

    async fn set_times(
        &mut self,
        fd: Fd,
        accessed: types::NewTimestamp,
        modified: types::NewTimestamp,
    ) -> FsResult<()> {
        self.inner.set_times(fd, accessed, modified).await
    }

    async fn set_times_at(
        &mut self,
        fd: Fd,
        path_flags: types::PathFlags,
        path: String,
        accessed: types::NewTimestamp,
        modified: types::NewTimestamp,
    ) -> FsResult<()> {
        self.inner
            .set_times_at(fd, path_flags, path, accessed, modified)
            .await
    }

    async fn read(&mut self, fd: Fd, length: u64, offset: u64) -> FsResult<(Vec<u8>, bool)> {
        self.inner.read(fd, length, offset).await
    }

    fn read_via_stream(&mut self, fd: Fd, offset: u64) -> FsResult<Resource<DynInputStream>> {
        self.inner.read_via_stream(fd, offset)
    }

    async fn stat(&mut self, fd: Fd) -> FsResult<types::DescriptorStat> {
        self.inner.stat(fd).await
    }

    async fn stat_at(
        &mut self,
        fd: Fd,
        path_flags: types::PathFlags,
        path: String,
    ) -> FsResult<types::DescriptorStat> {
        self.inner.stat_at(fd, path_flags, path).await
    }

    async fn readlink_at(&mut self, fd: Fd, path: String) -> FsResult<String> {
        self.inner.readlink_at(fd, path).await
    }

    async fn is_same_object(&mut self, one: Fd, other: Fd) -> wasmtime::Result<bool> {
        self.inner.is_same_object(one, other).await
    }

    async fn metadata_hash(&mut self, fd: Fd) -> FsResult<types::MetadataHashValue> {
        self.inner.metadata_hash(fd).await
    }

    async fn metadata_hash_at(
        &mut self,
        fd: Fd,
        path_flags: types::PathFlags,
        path: String,
    ) -> FsResult<types::MetadataHashValue> {
        self.inner.metadata_hash_at(fd, path_flags, path).await
    }
}
