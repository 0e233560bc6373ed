//! `wasi:filesystem`: wasmtime-wasi's implementation, which keeps a guest below its directories,
//! with quotas in front of everything that makes a directory tree grow, and bounds on what an
//! instance may have open.
//!
//! ```text
//! guest ─► types (charges) ─► wasmtime-wasi ─► thread of the microservice ─► disk
//!              │   └─► opening: only files and directories, without waiting for them
//!              └─► account ─► ledger: is there room? ─► no: walk the tree, once a second at most
//! ```

mod account;
mod admission;
mod ledger;
mod opening;
mod stream;
pub mod thread;
mod types;
mod view;
mod walk;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fs::{DirBuilder, File};
use std::io;
use std::ops::{Deref, DerefMut};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use haar_protocol::grants::{Access, DirectoryGrant, Mount};
use haar_protocol::log::Level;
use rustix::fs::{Mode, OFlags};
use wasmtime::component::{HasData, Linker, ResourceTable};
use wasmtime_wasi::FsPerms;
use wasmtime_wasi::filesystem::{Dir, OpenMode, WasiFilesystemCtxView};
use wasmtime_wasi::p2::bindings::filesystem;

use self::account::{Account, Opening};
use self::thread::FileThread;
use self::view::FilesView;
use super::logging::Logger;
use super::state::State;
use crate::policy::mounts::is_mount_point;
use crate::policy::{Policy, Refusal};
use crate::runtime::guest::Counters;

/// Resources of `wasi:*` that an instance may hold. One more ends it.
pub const RESOURCES_MAX: usize = 1_024;
/// Files and directories that it may have open; one more is answered with an error.
const DESCRIPTORS_MAX: usize = 256;
/// Entries of directories that it may have open for listing, all together; they are kept in memory.
const LISTED_ENTRIES_MAX: usize = 20_000;

/// What one instance has open below its directories.
pub struct Files {
    /// The granted directories, in the order of the grants.
    roots: Vec<Root>,
    /// The granted directories, each with what was found at its path when it was opened.
    seen: Vec<(Granted, Option<Identity>)>,
    /// The thread that waits for disks.
    thread: Arc<FileThread>,
    /// Looks at the directories again, on a thread of their own: a directory that does not answer holds up
    /// no file operation.
    looks: Arc<FileThread>,
    /// The account of each descriptor, by the number of its resource.
    descriptors: HashMap<u32, Option<Arc<Account>>>,
    /// How many entries each open listing holds, by the number of its resource.
    listings: HashMap<u32, usize>,
}

/// Identifies a directory: the numbers of its file system and of its inode.
type Identity = (u64, u64);

/// A granted directory that is open.
struct Root {
    directory: Dir,
    guest: String,
    account: Option<Arc<Account>>,
}

/// A directory that an instance shall see.
#[derive(Debug, Clone)]
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
    /// A directory at which nothing is mounted counts as absent.
    pub is_mount: bool,
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
            is_mount: grant.mount == Mount::Required,
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
            is_mount: false,
            is_private: true,
        }
    }
}

impl Files {
    /// Opens the directories of an instance, and walks those with a quota.
    ///
    /// # Errors
    /// When a directory can't be opened, or with a [`Refusal`](crate::policy::Refusal) when `policy`
    /// does not allow it; the text says which and why.
    pub async fn open(
        directories: Vec<Granted>,
        thread: Arc<FileThread>,
        policy: &Arc<Policy>,
        counters: &Arc<Counters>,
        logger: &Logger,
    ) -> anyhow::Result<Self> {
        let (mut roots, mut seen) = (Vec::new(), Vec::new());
        for granted in directories {
            let host = granted.host.display().to_string();
            let (open, policy) = (granted.clone(), Arc::clone(policy));
            // Checking what was opened may wait for a file server, too.
            let opened = thread.call("open", &host, move || Ok(open_allowed(&open, &policy)));
            let opened = opened.await??;
            if !granted.is_private {
                let identity = opened.as_ref().map(|(_, identity)| *identity);
                seen.push((granted.clone(), identity));
            }
            let Some((root, _)) = opened else {
                let (guest, what) = (&granted.guest, what(&granted));
                let text = format!(
                    "this node has no {what} {host}: it runs without {guest}, and starts again when there is one"
                );
                logger.agent(Level::Info, &text);
                continue;
            };
            let (perms, mode) = match granted.access {
                Access::ReadOnly => (FsPerms::ReadOnly, OpenMode::READ),
                Access::ReadWrite => (FsPerms::ReadWrite, OpenMode::READ | OpenMode::WRITE),
            };
            let directory = Dir::new(root.try_clone()?, perms, mode, false);
            let account = match granted.quota {
                None => None,
                Some(limit) => {
                    let opening = Opening {
                        root,
                        guest_path: granted.guest.clone(),
                        limit,
                        is_private: granted.is_private,
                        thread: Arc::clone(&thread),
                    };
                    Some(Account::open(opening, Arc::clone(counters), logger.clone()).await)
                }
            };
            roots.push(Root {
                directory,
                guest: granted.guest,
                account,
            });
        }
        Ok(Self {
            roots,
            seen,
            thread,
            looks: Arc::default(),
            descriptors: HashMap::new(),
            listings: HashMap::new(),
        })
    }

    /// True when it has directories that may be created, mounted or removed while it runs.
    pub fn may_change(&self) -> bool {
        !self.seen.is_empty()
    }

    /// Compares the directories with what was opened. Returns the first change, for people; none when
    /// nothing has changed, or when that can't be found out.
    pub fn look(&self, policy: Arc<Policy>) -> impl Future<Output = Option<String>> + use<> {
        let (seen, thread) = (self.seen.clone(), Arc::clone(&self.looks));
        async move {
            for (granted, before) in seen {
                let host = granted.host.display().to_string();
                let (open, policy) = (granted.clone(), Arc::clone(&policy));
                let open = move || Ok(open_allowed(&open, &policy));
                let now = match thread.call("open", &host, open).await.ok()? {
                    Ok(opened) => opened.map(|(_, identity)| identity),
                    Err(error) if error.is::<Refusal>() || is_absent(&error) => None,
                    Err(_) => continue,
                };
                let what = what(&granted);
                match (before, now) {
                    (None, Some(_)) => return Some(format!("the {what} {host} is there now")),
                    (Some(_), None) => {
                        return Some(format!("the {what} {host} can't be opened any more"));
                    }
                    (Some(before), Some(now)) if before != now => {
                        return Some(format!("another {what} is at {host} now"));
                    }
                    _ => {}
                }
            }
            None
        }
    }

    /// The directory at which a look waits, for people.
    pub fn unfinished_look(&self) -> Option<String> {
        self.looks.unfinished()
    }

    /// The file operation that was begun and has not ended, for people.
    pub fn unfinished(&self) -> Option<String> {
        self.thread.unfinished()
    }

    /// Changes what the private directory may take.
    pub fn set_private_limit(&self, limit: u64) {
        for account in self.roots.iter().filter_map(|root| root.account.as_ref()) {
            account.set_private_limit(limit);
        }
    }
}

fn what(granted: &Granted) -> &'static str {
    match granted.is_mount {
        true => "mounted directory",
        false => "directory",
    }
}

/// Nothing is mounted at a directory with `mount: required`.
#[derive(Debug, thiserror::Error)]
#[error(
    "nothing is mounted at the granted directory {0} of this node, and the grant says `mount: required`: it starts when something is"
)]
struct NotMounted(String);

/// True for an error that says that a directory does not exist, or that nothing is mounted there.
fn is_absent(error: &anyhow::Error) -> bool {
    let is_not_found = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    error.is::<NotMounted>() || error.downcast_ref().is_some_and(is_not_found)
}

/// Opens a granted directory that `policy` allows; none when it is optional and not there.
fn open_allowed(granted: &Granted, policy: &Policy) -> anyhow::Result<Option<(File, Identity)>> {
    let host = granted.host.display();
    let opened = open_root(granted);
    let opened = opened
        .with_context(|| format!("the granted directory {host} of this node can't be opened"));
    let Some(root) = opened? else {
        return Ok(None);
    };
    if !granted.is_private {
        policy.check(&root, &granted.host, granted.access)?;
    }
    if granted.is_mount && !is_mount_point(&root)? {
        return match granted.is_optional {
            true => Ok(None),
            false => Err(NotMounted(host.to_string()).into()),
        };
    }
    admission::admit(&root).with_context(|| {
        format!("the granted directory {host} can't be opened: it shows the memory of processes or the kernel, and no guest gets it; the grant `system` has what the node measures")
    })?;
    let about = rustix::fs::fstat(&root)?;
    Ok(Some((root, (about.st_dev, about.st_ino))))
}

/// Opens a directory; none when it is optional and not there.
fn open_root(granted: &Granted) -> io::Result<Option<File>> {
    if granted.is_private {
        make_private(&granted.host)?;
    }
    // Nothing but a directory: opening a FIFO would block, and a device might act.
    let directory = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = rustix::fs::open(&granted.host, directory, Mode::empty());
    match opened.map(File::from).map_err(io::Error::from) {
        Ok(root) => Ok(Some(root)),
        Err(error) if granted.is_optional && error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
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

/// The resources of an instance. What is still open when it ends is closed on the thread for files:
/// closing may wait for a file server that has not yet got everything.
pub struct Resources {
    table: ResourceTable,
    thread: Arc<FileThread>,
}

impl Resources {
    /// An empty table, bounded.
    pub fn new(thread: Arc<FileThread>) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(RESOURCES_MAX);
        Self { table, thread }
    }
}

impl Deref for Resources {
    type Target = ResourceTable;

    fn deref(&self) -> &ResourceTable {
        &self.table
    }
}

impl DerefMut for Resources {
    fn deref_mut(&mut self) -> &mut ResourceTable {
        &mut self.table
    }
}

impl Drop for Resources {
    fn drop(&mut self) {
        let table = std::mem::take(&mut self.table);
        if self.thread.is_in_use() {
            let _ = self.thread.begin_call(move || drop(table)); // dropped all the same
        }
    }
}
