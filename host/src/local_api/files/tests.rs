//! Every function that makes a tree grow, called as a guest calls it; and what may not be opened.

mod opening;

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use haar_protocol::assignment::Microservice;
use haar_protocol::grants::Access;
use wasmtime::component::Resource;
use wasmtime_wasi::WasiCtx;
use wasmtime_wasi::filesystem::{Descriptor, WasiFilesystemCtxView};
use wasmtime_wasi::p2::bindings::filesystem::preopens::Host as _;
use wasmtime_wasi::p2::bindings::filesystem::types::{
    DescriptorFlags, ErrorCode, Host as _, HostDescriptor as _, OpenFlags, PathFlags,
};
use wasmtime_wasi::p2::{DynOutputStream, FsResult, StreamError};

use super::ledger::BLOCK;
use super::view::FilesView;
use super::{Files, Granted, Resources};
use crate::local_api::logging::Logger;
use crate::logs::Logs;
use crate::policy::{Policy, Rules};
use crate::runtime::guest::Counters;

/// Room for sixteen blocks.
const QUOTA: u64 = 16 * BLOCK;

type Fd = Resource<Descriptor>;

/// An instance with one private directory.
struct Guest {
    tree: tempfile::TempDir,
    context: WasiCtx,
    table: Resources,
    files: Files,
    counters: Arc<Counters>,
    root: u32,
}

impl Guest {
    async fn new() -> Self {
        let tree = tempfile::tempdir().unwrap();
        let granted = Granted::private(tree.path().to_owned(), "/data".into(), QUOTA);
        Self::with(tree, granted).await.unwrap()
    }

    /// An instance that reads a directory of the node.
    async fn reading(host: &str) -> anyhow::Result<Self> {
        let granted = Granted {
            access: Access::ReadOnly,
            quota: None,
            // As one that the device's policy has let through.
            is_private: true,
            ..Granted::private(host.into(), "/data".into(), QUOTA)
        };
        Self::with(tempfile::tempdir()?, granted).await
    }

    async fn with(tree: tempfile::TempDir, granted: Granted) -> anyhow::Result<Self> {
        let spec: Microservice = serde_json::from_value(serde_json::json!({
            "application": "app",
            "microservice": "it",
            "module": haar_protocol::ids::Digest::of(b"it"),
            "module_bytes": 1,
            "module_label": "it@1",
            "limits": {},
            "grants": {},
            "configuration": {},
            "outlets": {},
            "inlets": {},
        }))
        .unwrap();
        let counters: Arc<Counters> = Arc::default();
        let logger = Logger::new(&spec, Arc::<Logs>::default(), Arc::clone(&counters));
        let policy = Policy::new(Rules::default(), "agent.toml".into(), "/nowhere".into());
        let files = Files::open(
            vec![granted],
            Arc::default(),
            &Arc::new(policy),
            &counters,
            &logger,
        )
        .await?;
        let mut guest = Self {
            tree,
            context: WasiCtx::builder().build(),
            table: Resources::new(Arc::default()),
            files,
            counters,
            root: 0,
        };
        guest.root = guest.view().get_directories().unwrap()[0].0.rep();
        Ok(guest)
    }

    fn view(&mut self) -> FilesView<'_> {
        FilesView {
            inner: WasiFilesystemCtxView {
                ctx: self.context.filesystem(),
                table: &mut self.table,
            },
            files: &mut self.files,
        }
    }

    fn root(&self) -> Fd {
        Resource::new_borrow(self.root)
    }

    async fn open(&mut self, path: &str, flags: OpenFlags) -> FsResult<Fd> {
        let root = self.root();
        let access = DescriptorFlags::READ | DescriptorFlags::WRITE;
        self.view()
            .open_at(root, PathFlags::empty(), path.into(), flags, access)
            .await
    }

    async fn create(&mut self, path: &str) -> Fd {
        self.open(path, OpenFlags::CREATE).await.unwrap()
    }

    fn close(&mut self, fd: Fd) {
        self.view().drop(fd).unwrap();
    }

    /// The last error of a full tree, as a guest sees it; the tree is within its quota.
    fn is_full<T: std::fmt::Debug>(&self, outcome: FsResult<T>) -> bool {
        assert!(held(self.tree.path()) <= QUOTA);
        matches!(outcome.unwrap_err().downcast().unwrap(), ErrorCode::Quota)
    }

    fn exceeded(&self) -> u64 {
        self.counters.exceeded.files_size.load(Ordering::Relaxed)
    }

    fn shown(&self) -> u64 {
        self.counters.files_bytes.load(Ordering::Relaxed)
    }
}

fn same(fd: &Fd) -> Fd {
    Resource::new_borrow(fd.rep())
}

/// What a directory holds, by another reckoning than the walk's.
fn held(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).unwrap();
    entries
        .map(|entry| {
            let metadata = entry.unwrap().path().symlink_metadata().unwrap();
            metadata.size().next_multiple_of(BLOCK).max(BLOCK)
        })
        .sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_at_a_place_are_charged_by_what_they_add() {
    let mut guest = Guest::new().await;
    let file = guest.create("file").await;
    let full = vec![0; usize::try_from(QUOTA).unwrap()];
    assert_eq!(
        guest
            .view()
            .write(same(&file), full.clone(), 0)
            .await
            .unwrap(),
        QUOTA
    );
    // Over what is there as often as one likes.
    for _ in 0..3 {
        guest
            .view()
            .write(same(&file), full.clone(), 0)
            .await
            .unwrap();
    }
    assert_eq!(guest.exceeded(), 0);
    let one_more = guest.view().write(same(&file), vec![0], QUOTA).await;
    assert!(guest.is_full(one_more));
    let far_out = guest.view().write(same(&file), vec![0], u64::MAX - 1).await;
    assert!(guest.is_full(far_out));
    assert_eq!((guest.exceeded(), guest.shown()), (2, QUOTA));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_size_is_charged_also_where_nothing_is_stored_and_freed_when_it_shrinks() {
    let mut guest = Guest::new().await;
    let file = guest.create("file").await;
    let too_large = guest.view().set_size(same(&file), QUOTA + 1).await;
    assert!(guest.is_full(too_large));
    for _ in 0..100 {
        guest.view().set_size(same(&file), QUOTA).await.unwrap();
        assert_eq!(guest.shown(), QUOTA);
        guest.view().set_size(same(&file), 1).await.unwrap();
        assert_eq!(guest.shown(), BLOCK);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_charged_and_freed() {
    let mut guest = Guest::new().await;
    let root = guest.root();
    for number in 0..4 {
        let file = guest.create(&format!("file{number}")).await;
        guest.close(file);
        let path = |kind: &str| format!("{kind}{number}");
        guest
            .view()
            .create_directory_at(same(&root), path("directory"))
            .await
            .unwrap();
        guest
            .view()
            .symlink_at(same(&root), "x".into(), path("symlink"))
            .await
            .unwrap();
        let flags = PathFlags::empty();
        guest
            .view()
            .link_at(same(&root), flags, path("file"), same(&root), path("link"))
            .await
            .unwrap();
    }
    assert_eq!((guest.shown(), guest.exceeded()), (QUOTA, 0));
    let created = guest.open("more", OpenFlags::CREATE).await;
    assert!(guest.is_full(created));
    let made = guest
        .view()
        .create_directory_at(same(&root), "more".into())
        .await;
    assert!(guest.is_full(made));
    let linked = guest
        .view()
        .symlink_at(same(&root), "x".into(), "more".into())
        .await;
    assert!(guest.is_full(linked));
    // Opening what is there needs no room.
    let file = guest.create("file0").await;
    guest.close(file);
    guest
        .view()
        .remove_directory_at(same(&root), "directory0".into())
        .await
        .unwrap();
    guest
        .view()
        .unlink_file_at(same(&root), "symlink0".into())
        .await
        .unwrap();
    guest
        .view()
        .unlink_file_at(same(&root), "link0".into())
        .await
        .unwrap();
    assert_eq!(guest.shown(), QUOTA - 3 * BLOCK);
    // What fails costs nothing.
    let exists = guest
        .view()
        .create_directory_at(same(&root), "directory1".into())
        .await;
    assert!(exists.is_err());
    assert_eq!(guest.shown(), QUOTA - 3 * BLOCK);
}

#[tokio::test(flavor = "multi_thread")]
async fn moving_a_file_over_another_frees_the_other_and_over_itself_nothing() {
    let mut guest = Guest::new().await;
    let root = guest.root();
    for name in ["one", "two"] {
        let file = guest.create(name).await;
        guest.view().set_size(same(&file), 4 * BLOCK).await.unwrap();
        guest.close(file);
    }
    assert_eq!(guest.shown(), 8 * BLOCK);
    for _ in 0..3 {
        guest
            .view()
            .rename_at(same(&root), "one".into(), same(&root), "./one".into())
            .await
            .unwrap();
    }
    assert_eq!(guest.shown(), 8 * BLOCK);
    guest
        .view()
        .rename_at(same(&root), "one".into(), same(&root), "two".into())
        .await
        .unwrap();
    assert_eq!(guest.shown(), 4 * BLOCK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_without_a_name_takes_its_place_until_it_is_closed() {
    let mut guest = Guest::new().await;
    let root = guest.root();
    let file = guest.create("file").await;
    guest.view().set_size(same(&file), QUOTA).await.unwrap();
    guest
        .view()
        .unlink_file_at(same(&root), "file".into())
        .await
        .unwrap();
    let created = guest.open("more", OpenFlags::CREATE).await;
    assert!(matches!(
        created.unwrap_err().downcast().unwrap(),
        ErrorCode::Quota
    ));
    guest.close(file);
    let mut counted = guest.exceeded();
    // The tree is looked at once a second.
    while guest.open("more", OpenFlags::CREATE).await.is_err() {
        assert!(guest.exceeded() > counted);
        counted = guest.exceeded();
    }
    assert_eq!(guest.shown(), BLOCK);
}

/// Opens a stream, at the start of a file or at its end.
fn stream(guest: &mut Guest, file: &Fd, appends: bool) -> Resource<DynOutputStream> {
    let mut view = guest.view();
    if appends {
        view.append_via_stream(same(file)).unwrap()
    } else {
        view.write_via_stream(same(file), 0).unwrap()
    }
}

/// What a guest is told of a failed stream.
fn code(guest: &mut Guest, error: StreamError) -> Option<ErrorCode> {
    let StreamError::LastOperationFailed(error) = error else {
        panic!("it failed otherwise: {error}");
    };
    let error = guest.table.push(error).unwrap();
    guest.view().filesystem_error_code(error).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_wait_for_each_write_are_charged() {
    for appends in [false, true] {
        let mut guest = Guest::new().await;
        let file = guest.create("file").await;
        let stream = stream(&mut guest, &file, appends);
        let mut written = 0;
        let error = loop {
            let stream = guest.table.get_mut(&stream).unwrap();
            match stream.blocking_write_and_flush(vec![0; 4_096].into()).await {
                Ok(()) => written += BLOCK,
                Err(error) => break error,
            }
        };
        assert!((QUOTA - BLOCK..=QUOTA).contains(&written), "{written}");
        assert!(held(guest.tree.path()) <= QUOTA);
        assert!(matches!(code(&mut guest, error), Some(ErrorCode::Quota)));
        let closed = guest.table.get_mut(&stream).unwrap().check_write();
        assert!(matches!(closed, Err(StreamError::Closed)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_do_not_wait_are_charged() {
    for appends in [false, true] {
        let mut guest = Guest::new().await;
        let file = guest.create("file").await;
        let stream = stream(&mut guest, &file, appends);
        let mut written = 0;
        let error = loop {
            let stream = guest.table.get_mut(&stream).unwrap();
            match stream.write_ready().await {
                Ok(permit) => {
                    let bytes = permit.min(5_000);
                    stream.write(vec![0; bytes].into()).unwrap();
                    written += bytes as u64;
                }
                Err(error) => break error,
            }
        };
        assert!(written > QUOTA / 2, "{written}");
        assert!(held(guest.tree.path()) <= QUOTA);
        assert!(matches!(code(&mut guest, error), Some(ErrorCode::Quota)));
        assert_eq!(guest.exceeded(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_open_at_once_is_bounded() {
    let mut guest = Guest::new().await;
    let first = guest.create("file").await;
    let error = loop {
        if let Err(error) = guest.open("file", OpenFlags::empty()).await {
            break error;
        }
    };
    let error = error.downcast().unwrap();
    assert!(matches!(error, ErrorCode::InsufficientMemory), "{error:?}");
    guest.close(first);
    guest.open("file", OpenFlags::empty()).await.unwrap();
}
