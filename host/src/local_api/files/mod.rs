//! `wasi:filesystem`: wasmtime-wasi's implementation, which keeps a guest below its directories,
//! with quotas in front of everything that makes a directory tree grow, and bounds on what an
//! instance may have open.
//!
//! ```text
//! guest ─► types (charges) ─► wasmtime-wasi ─► disk
//!              └─► account ─► ledger: is there room? ─► no: walk the tree, once a second at most
//! ```

mod account;
mod ledger;
mod stream;
mod types;
mod view;
mod walk;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use haar_protocol::grants::{Access, DirectoryGrant};
use haar_protocol::log::Level;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use wasmtime::component::{HasData, Linker, ResourceTable};
use wasmtime_wasi::filesystem::WasiFilesystemCtxView;
use wasmtime_wasi::p2::bindings::filesystem;
use wasmtime_wasi::{FsPerms, WasiCtxBuilder};

use self::account::{Account, Opening};
use self::view::FilesView;
use super::logging::Logger;
use super::state::State;
use crate::policy::Policy;
use crate::runtime::guest::Counters;

/// Resources of `wasi:*` that an instance may hold. One more ends it.
pub const RESOURCES_MAX: usize = 1_024;
/// Files and directories that it may have open; one more is answered with an error.
const DESCRIPTORS_MAX: usize = 256;
/// Entries of directories that it may have open for listing, all together; they are kept in memory.
const LISTED_ENTRIES_MAX: usize = 20_000;

/// What one instance has open below its directories.
#[derive(Default)]
pub struct Files {
    /// The account of each granted directory, in the order of the grants.
    grants: Vec<Option<Arc<Account>>>,
    /// The account of each descriptor, by the number of its resource.
    descriptors: HashMap<u32, Option<Arc<Account>>>,
    /// How many entries each open listing holds, by the number of its resource.
    listings: HashMap<u32, usize>,
}

/// A directory that an instance shall see.
pub struct Granted {
    /// Where it is.
    pub host: PathBuf,
    /// What the guest calls it.
    pub guest: String,
    /// Whether it may write there.
    pub access: Access,
    /// Bytes that it may take.
    pub quota: Option<u64>,
    /// The instance runs without it where there is none.
    pub is_optional: bool,
    /// True for the microservice's own, which is made when there is none.
    pub is_private: bool,
}

impl Granted {
    /// As an assignment has it.
    pub fn of(grant: &DirectoryGrant) -> Self {
        Self {
            host: grant.host.clone().into(),
            guest: grant.guest.clone(),
            access: grant.access,
            quota: match grant.access {
                Access::ReadOnly => None,
                Access::ReadWrite => grant.quota.map(|quota| quota.0),
            },
            is_optional: grant.optional,
            is_private: false,
        }
    }

    /// A microservice's own directory.
    pub fn private(host: PathBuf, guest: String, quota: u64) -> Self {
        Self {
            host,
            guest,
            access: Access::ReadWrite,
            quota: Some(quota),
            is_optional: false,
            is_private: true,
        }
    }
}

impl Files {
    /// Opens the directories of an instance into `context`, and walks those with a quota.
    ///
    /// # Errors
    /// When a directory can't be opened, or with a [`Refusal`](crate::policy::Refusal) when `policy`
    /// does not allow it; the text says which and why.
    pub async fn open(
        directories: Vec<Granted>,
        policy: &Policy,
        context: &mut WasiCtxBuilder,
        counters: &Arc<Counters>,
        logger: &Logger,
    ) -> anyhow::Result<Self> {
        let mut files = Self::default();
        for granted in directories {
            let opened = open(&granted).with_context(|| {
                format!(
                    "the granted directory {} of this node can't be opened",
                    granted.host.display()
                )
            });
            let Some(root) = opened? else {
                let text = format!(
                    "this node has no directory {}: it runs without {}",
                    granted.host.display(),
                    granted.guest
                );
                logger.agent(Level::Info, &text);
                continue;
            };
            if !granted.is_private {
                policy.check(&root, &granted.host, granted.access)?;
            }
            let permissions = match granted.access {
                Access::ReadOnly => FsPerms::ReadOnly,
                Access::ReadWrite => FsPerms::ReadWrite,
            };
            // By the descriptor that was looked at: the path may lead elsewhere by now.
            let checked = format!("/proc/self/fd/{}", root.as_raw_fd());
            context
                .preopened_dir(checked, &granted.guest, permissions)
                .map_err(|error| anyhow::anyhow!("{error:#}"))?;
            files.grants.push(match granted.quota {
                None => None,
                Some(limit) => {
                    let opening = Opening {
                        root,
                        guest_path: granted.guest,
                        limit,
                        is_private: granted.is_private,
                    };
                    Some(Account::open(opening, Arc::clone(counters), logger.clone()).await)
                }
            });
        }
        Ok(files)
    }

    /// Changes what the private directory may take.
    pub fn set_private_limit(&self, limit: u64) {
        for account in self.grants.iter().flatten() {
            account.set_private_limit(limit);
        }
    }
}

/// Opens a directory; none when it is optional and not there.
fn open(granted: &Granted) -> io::Result<Option<File>> {
    if granted.is_private {
        make_private(&granted.host)?;
    }
    // Nothing but a directory: opening a FIFO would block, and a device might act.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match rustix::fs::open(&granted.host, flags, Mode::empty()) {
        Ok(root) => Ok(Some(root.into())),
        Err(Errno::NOENT) if granted.is_optional => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Makes a directory that nobody else may look into.
fn make_private(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

struct HasFiles;

impl HasData for HasFiles {
    type Data<'a> = FilesView<'a>;
}

/// Links `wasi:filesystem`.
pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    filesystem::types::add_to_linker::<State, HasFiles>(linker, view)?;
    filesystem::preopens::add_to_linker::<State, HasFiles>(linker, view)
}

fn view(state: &mut State) -> FilesView<'_> {
    FilesView {
        inner: WasiFilesystemCtxView {
            ctx: state.wasi.filesystem(),
            table: &mut state.table,
        },
        files: &mut state.files,
    }
}

/// The table of an instance's resources.
pub fn resource_table() -> ResourceTable {
    let mut table = ResourceTable::new();
    table.set_max_capacity(RESOURCES_MAX);
    table
}
