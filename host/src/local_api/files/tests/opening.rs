//! What a guest finds in a directory that is neither file nor directory, and the ways to procfs.

use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::sync::atomic::AtomicBool;

use rustix::fs::{FileType, Mode, mknodat};

use super::*;

fn make_fifo(path: &Path) {
    let mode = Mode::from_raw_mode(0o600);
    mknodat(rustix::fs::CWD, path, FileType::Fifo, mode, 0).unwrap();
}

impl Guest {
    /// What comes of opening a file for reading, links followed.
    async fn read_only(&mut self, path: &str) -> Result<Fd, ErrorCode> {
        let (root, follow) = (self.root(), PathFlags::SYMLINK_FOLLOW);
        let (flags, access) = (OpenFlags::empty(), DescriptorFlags::READ);
        self.view()
            .open_at(root, follow, path.into(), flags, access)
            .await
            .map_err(|error| error.downcast().unwrap())
    }

    async fn is_refused(&mut self, path: &str) -> bool {
        matches!(self.read_only(path).await, Err(ErrorCode::NotPermitted))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fifos_and_sockets_are_refused_at_once_and_can_be_listed_renamed_and_removed() {
    let mut guest = Guest::new().await;
    let tree = guest.tree.path().to_owned();
    make_fifo(&tree.join("fifo"));
    symlink("fifo", tree.join("link")).unwrap();
    let _socket = UnixListener::bind(tree.join("socket")).unwrap();
    let through = guest.read_only("fifo/x").await;
    assert!(matches!(through, Err(ErrorCode::NotDirectory)));
    for path in ["fifo", "link", "socket"] {
        assert!(guest.is_refused(path).await, "{path}");
        let written = guest.open(path, OpenFlags::CREATE | OpenFlags::TRUNCATE);
        assert!(written.await.is_err(), "{path}");
    }
    for (root, path) in [(guest.root(), "fifo"), (guest.root(), "socket")] {
        let flags = PathFlags::empty();
        guest
            .view()
            .stat_at(root, flags, path.into())
            .await
            .unwrap();
    }
    let root = guest.root();
    guest.view().read_directory(root).await.unwrap();
    let (root, again) = (guest.root(), guest.root());
    guest
        .view()
        .rename_at(root, "fifo".into(), again, "other".into())
        .await
        .unwrap();
    let root = guest.root();
    guest
        .view()
        .unlink_file_at(root, "other".into())
        .await
        .unwrap();
    assert!(!tree.join("other").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_becomes_a_fifo_is_waited_for_by_nobody() {
    let mut guest = Guest::new().await;
    let tree = guest.tree.path().to_owned();
    std::fs::write(tree.join("file"), b"1").unwrap();
    make_fifo(&tree.join("fifo"));
    std::fs::write(tree.join("changing"), b"1").unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let stop = Arc::clone(&is_over);
    let changing = std::thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            for name in ["fifo", "file"] {
                std::fs::hard_link(tree.join(name), tree.join("next")).unwrap();
                std::fs::rename(tree.join("next"), tree.join("changing")).unwrap();
                let _ = std::fs::remove_file(tree.join("next")); // links of one file are not moved
            }
        }
    });
    for _ in 0..500 {
        match guest.read_only("changing").await {
            Ok(fd) => guest.close(fd),
            Err(error) => assert!(matches!(error, ErrorCode::NotPermitted), "{error:?}"),
        }
    }
    is_over.store(true, Ordering::Relaxed);
    changing.join().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_are_not_opened() {
    let mut guest = Guest::reading("/dev").await.unwrap();
    for path in ["null", "zero", "tty", "full"] {
        assert!(guest.is_refused(path).await, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_way_leads_into_procfs() {
    for root in ["/proc", "/proc/self", "/proc/sys"] {
        let error = Guest::reading(root).await.err().unwrap();
        assert!(format!("{error:#}").contains("grant `system`"), "{error:#}");
    }
    let mut guest = Guest::reading("/").await.unwrap();
    let pid = std::process::id();
    let files = ["mem", "maps", "environ", "cmdline", "exe", "task"];
    let below = files.map(|file| format!("proc/self/{file}"));
    let by_id = files.map(|file| format!("proc/{pid}/{file}"));
    for path in below.iter().chain(&by_id) {
        assert!(guest.is_refused(path).await, "{path}");
    }
    for path in [
        "proc",
        "proc/",
        "proc/.",
        "proc/self",
        "proc/stat",
        "usr/../proc/self/mem",
    ] {
        assert!(guest.is_refused(path).await, "{path}");
    }
    let through_link = guest.read_only("proc/self/cwd/Cargo.toml").await;
    assert!(through_link.is_err(), "the kernel follows it nowhere");
    for path in ["proc/self", "proc/self/exe"] {
        let root = guest.root();
        assert!(
            guest.view().readlink_at(root, path.into()).await.is_err(),
            "{path}"
        );
        let (root, flags) = (guest.root(), PathFlags::SYMLINK_FOLLOW);
        let below = format!("{path}/.");
        let stat = guest.view().stat_at(root, flags, below).await;
        assert!(stat.is_err(), "{path}");
    }
    let tree = tempfile::tempdir().unwrap();
    let up = "../".repeat(tree.path().components().count() - 1);
    symlink(format!("{up}proc/self"), tree.path().join("link")).unwrap();
    let link = tree.path().join("link");
    let link = link.to_str().unwrap().trim_start_matches('/').to_owned();
    assert!(guest.is_refused(&link).await);
    let (root, flags) = (guest.root(), PathFlags::SYMLINK_FOLLOW);
    assert!(guest.view().stat_at(root, flags, link).await.is_err());
    assert!(
        guest.read_only("etc/passwd").await.is_ok(),
        "the rest is there"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn links_are_followed_inside_the_tree_and_not_out_of_it() {
    let mut guest = Guest::new().await;
    let tree = guest.tree.path().to_owned();
    std::fs::create_dir(tree.join("inner")).unwrap();
    std::fs::write(tree.join("file"), b"1").unwrap();
    for (target, link) in [
        ("file", "one"),
        ("../file", "inner/two"),
        ("inner/two", "three"),
        ("loop", "loop"),
        ("/etc/passwd", "absolute"),
        ("../../etc/passwd", "inner/out"),
        ("new", "dangling"),
    ] {
        symlink(target, tree.join(link)).unwrap();
    }
    for path in ["one", "inner/two", "three", "inner/../three"] {
        guest.read_only(path).await.unwrap();
    }
    let looped = guest.read_only("loop").await;
    assert!(matches!(looped, Err(ErrorCode::Loop)));
    for path in ["absolute", "inner/out", "../x", "/etc/passwd"] {
        assert!(guest.is_refused(path).await, "{path}");
    }
    let missing = guest.read_only("dangling").await;
    assert!(matches!(missing, Err(ErrorCode::NoEntry)));
    let not_followed = guest.open("one", OpenFlags::empty()).await.unwrap_err();
    assert!(matches!(not_followed.downcast().unwrap(), ErrorCode::Loop));
    let (root, follow) = (guest.root(), PathFlags::SYMLINK_FOLLOW);
    let access = DescriptorFlags::READ | DescriptorFlags::WRITE;
    guest
        .view()
        .open_at(root, follow, "dangling".into(), OpenFlags::CREATE, access)
        .await
        .unwrap();
    assert!(tree.join("new").exists());
}
