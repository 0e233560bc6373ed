//! Files: a guest stays below the directories that it is granted, and within their quotas.

mod office;
mod hanging;

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use haar_conformance_artifacts as artifacts;
use haar_protocol::assignment::Microservice;
use haar_protocol::grants::{Access, DirectoryGrant};
use haar_protocol::log::Stream;
use haar_protocol::quantity::ByteSize;

use crate::node::of;
use crate::site::DEADLINE;
use office::{Office, Told};

const SECRET: &str = "secret";

fn directory(host: &Path, guest: &str, access: Access) -> DirectoryGrant {
    DirectoryGrant {
        host: host.to_str().unwrap().into(),
        guest: guest.into(),
        access,
        quota: None,
        optional: false,
        mount: Default::default(),
    }
}

fn with_private_directory(spec: &mut Microservice) {
    spec.grants.data_directory = Some("/data".into());
    spec.limits.files_size = ByteSize(64 << 10);
}

/// What the files of a directory hold, those in directories below it too.
fn held(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).unwrap();
    entries
        .map(|entry| {
            let entry = entry.unwrap();
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                4_096 + held(&entry.path())
            } else {
                entry
                    .metadata()
                    .unwrap()
                    .len()
                    .next_multiple_of(4_096)
                    .max(4_096)
            }
        })
        .sum()
}

/// True for what a Rust guest makes of `error-code::quota`. The C library of its target does not
/// ask why a stream failed: it says "I/O error" of each.
fn is_full(error: &str) -> bool {
    error.contains("Quota exceeded") || error.contains("I/O error")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_directory_holds_no_more_than_its_quota_whatever_the_guest_does() {
    let mut office = Office::open(&["files"], with_private_directory).await;
    let private = office.private("files");
    for (command, undo) in [
        ("fill /data/big 1000000", Some("remove /data/big")),
        ("append /data/big 1000000", Some("remove /data/big")),
        ("resize /data/big 1000000", None),
        ("resize /data/big 4000000000000", Some("remove /data/big")),
        ("create /data/empty 100", None),
        ("make /data/folder 100", None),
        ("symlink x /data/link", None),
        ("link /data/empty1 /data/hard", None),
    ] {
        let error = office.ask("files", command).await.unwrap_err();
        assert!(is_full(&error), "{command}: {error}");
        let held = held(&private);
        assert!(held <= 64 << 10, "{command}: {held} bytes are there");
        if let Some(undo) = undo {
            office.ask("files", undo).await.unwrap();
        }
    }
    // What was removed is free again.
    office.ask("files", "remove /data/empty0").await.unwrap();
    office
        .ask("files", "write /data/new something")
        .await
        .unwrap();
    let status = office
        .site
        .status(&office.node.id, |status| {
            of(status, "files").is_some_and(|one| one.exceeded.files_size >= 8)
        })
        .await;
    assert_eq!(of(&status, "files").unwrap().restarts, 0);
    office.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_granted_directory_holds_no_more_than_its_quota_and_a_larger_limit_comes_live() {
    let granted = tempfile::tempdir().unwrap();
    std::fs::write(granted.path().join("before"), [0; 30_000]).unwrap();
    let mut office = Office::open(&["files"], |spec| {
        with_private_directory(spec);
        let mut grant = directory(granted.path(), "/granted", Access::ReadWrite);
        grant.quota = Some(ByteSize(64 << 10));
        spec.grants.directories.push(grant);
    })
    .await;
    let error = office.ask("files", "fill /granted/a 100000").await;
    assert!(is_full(&error.unwrap_err()));
    assert!(held(granted.path()) <= 64 << 10);
    assert!(held(granted.path()) > 60 << 10);
    // The host makes room, which the next look at the directory finds.
    std::fs::remove_file(granted.path().join("before")).unwrap();
    let written = async {
        while office
            .ask("files", "append /granted/a 20000")
            .await
            .is_err()
        {}
    };
    tokio::time::timeout(DEADLINE, written).await.unwrap();
    // Between two quotas nothing is moved unseen.
    let moved = office.ask("files", "rename /granted/a /data/a").await;
    assert!(moved.is_err(), "{moved:?}");

    let error = office.ask("files", "fill /data/a 100000").await;
    assert!(is_full(&error.unwrap_err()));
    office.assignment.number = 2;
    office.assignment.microservices[0].limits.files_size = ByteSize(1 << 20);
    office.site.assign(&office.assignment).await;
    office.until_all_run().await;
    office.ask("files", "fill /data/a 100000").await.unwrap();
    office.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_directory_outlives_restart_and_update_and_is_seen_by_nobody_else() {
    let mut office = Office::open(&["mine", "theirs"], with_private_directory).await;
    office.ask("mine", "write /data/note kept").await.unwrap();
    assert!(office.ask("theirs", "/data/note").await.is_err());
    assert_eq!(office.ask("theirs", "list /data").await.unwrap(), "");
    let mode = std::fs::metadata(office.private("mine")).unwrap();
    assert_eq!(mode.permissions().mode() & 0o777, 0o700);

    office.node.stop().await;
    office
        .site
        .status(&office.node.id, |status| status.microservices.is_empty())
        .await;
    office.node.start();
    office.until_all_run().await;
    assert_eq!(office.ask("mine", "/data/note").await.unwrap(), "kept");

    // Another module: the same with a custom section more.
    let mut other = artifacts::read(artifacts::FILES);
    other.extend_from_slice(&[0, 2, 1, b'x']);
    let module = office.node.install(&other, &office.site.publisher);
    office.assignment.number = 2;
    for spec in &mut office.assignment.microservices {
        (spec.module, spec.module_bytes) = module;
    }
    office.site.assign(&office.assignment).await;
    let status = office.until_all_run().await;
    assert_eq!(office.ask("mine", "/data/note").await.unwrap(), "kept");
    assert_eq!(of(&status, "mine").unwrap().files_bytes, 4_096);
    office.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_leads_out_of_a_granted_directory() {
    let (outside, granted) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let secret = outside.path().join("secret");
    std::fs::write(&secret, SECRET).unwrap();
    std::fs::create_dir(granted.path().join("inner")).unwrap();
    symlink(&secret, granted.path().join("planted")).unwrap();
    symlink(outside.path(), granted.path().join("folder")).unwrap();
    let mut office = Office::open(&["files"], |spec| {
        let grant = directory(granted.path(), "/granted", Access::ReadWrite);
        spec.grants.directories.push(grant);
    })
    .await;
    let up = "../".repeat(20);
    let path = secret.display();
    // By `..`, by absolute paths, by links of the host, by links of its own.
    for command in [
        format!(
            "/granted/../{}",
            outside.path().file_name().unwrap().display()
        ),
        format!("/granted/{up}{path}"),
        format!("/granted/inner/{up}{path}"),
        format!("{path}"),
        "/granted/planted".into(),
        "/granted/folder/secret".into(),
        "list /granted/folder".into(),
        "write /granted/planted changed".into(),
        "write /granted/folder/new x".into(),
        "link /granted/planted/../../secret /granted/hard".into(),
        format!("link {path} /granted/hard"),
        format!("rename {path} /granted/moved"),
        format!("rename /granted/inner {}/inner", outside.path().display()),
    ] {
        let outcome = office.ask("files", &command).await;
        assert!(outcome.is_err(), "{command}: {outcome:?}");
    }
    for target in [format!("{path}"), format!("{up}{path}"), "planted".into()] {
        // It may make such a link, or not: it leads nowhere.
        let _ = office
            .ask("files", &format!("symlink {target} /granted/own"))
            .await;
        let outcome = office.ask("files", "/granted/own").await;
        assert!(outcome.is_err(), "{target}: {outcome:?}");
        let _ = office.ask("files", "remove /granted/own").await;
    }
    // A hard link to a link is a link.
    let _ = office
        .ask("files", "link /granted/planted /granted/hard")
        .await;
    assert!(office.ask("files", "/granted/hard").await.is_err());
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), SECRET);
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
    office.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_turns_into_a_link_while_it_is_opened_leads_nowhere() {
    let (outside, granted) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(outside.path().join("file"), SECRET).unwrap();
    let (door, inner) = (granted.path().join("door"), granted.path().join("inner"));
    std::fs::create_dir(&inner).unwrap();
    std::fs::write(inner.join("file"), "harmless").unwrap();
    let link = granted.path().join("link");
    symlink(outside.path(), &link).unwrap();
    let mut office = Office::open(&["files"], |spec| {
        let grant = directory(granted.path(), "/granted", Access::ReadOnly);
        spec.grants.directories.push(grant);
    })
    .await;
    let is_over = AtomicBool::new(false);
    let (mut harmless, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                for disguise in [&inner, &link] {
                    std::fs::rename(disguise, &door).unwrap();
                    std::fs::rename(&door, disguise).unwrap();
                }
            }
        });
        let _over = Told(&is_over);
        tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async {
                // One question opens the file a thousand times.
                for _ in 0..20 {
                    let answer = office.ask("files", "race /granted/door/file 1000").await;
                    let answer = answer.unwrap();
                    assert!(!answer.contains(SECRET), "{answer}");
                    let counts: Vec<u64> = answer
                        .split(' ')
                        .map(|word| word.parse().unwrap())
                        .collect();
                    harmless += counts[0];
                    refused += counts[1];
                }
            });
        });
    });
    assert!(harmless > 0 && refused > 0, "{harmless} {refused}");
    office.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_directory_is_read_and_nothing_else() {
    let granted = tempfile::tempdir().unwrap();
    std::fs::write(granted.path().join("file"), "content").unwrap();
    std::fs::create_dir(granted.path().join("folder")).unwrap();
    let mut office = Office::open(&["files"], |spec| {
        let grant = directory(granted.path(), "/granted", Access::ReadOnly);
        spec.grants.directories.push(grant);
    })
    .await;
    assert_eq!(
        office.ask("files", "/granted/file").await.unwrap(),
        "content"
    );
    for command in [
        "write /granted/file x",
        "write /granted/new x",
        "append /granted/file 10",
        "resize /granted/file 0",
        "remove /granted/file",
        "rename /granted/file /granted/other",
        "link /granted/file /granted/other",
        "symlink file /granted/other",
        "make /granted/new 1",
    ] {
        let outcome = office.ask("files", command).await;
        assert!(outcome.is_err(), "{command}: {outcome:?}");
    }
    assert_eq!(
        office.ask("files", "list /granted").await.unwrap(),
        "file\u{fffd}folder"
    );
    assert_eq!(
        std::fs::read_to_string(granted.path().join("file")).unwrap(),
        "content"
    );
    office.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_optional_directory_may_be_missing_or_there() {
    let granted = tempfile::tempdir().unwrap();
    std::fs::write(granted.path().join("file"), "content").unwrap();
    let mut office = Office::open(&["files"], |spec| {
        for (host, guest) in [
            ("/does/not/exist".as_ref(), "/absent"),
            (granted.path(), "/there"),
        ] {
            let mut grant = directory(host, guest, Access::ReadOnly);
            grant.optional = true;
            spec.grants.directories.push(grant);
        }
    })
    .await;
    assert!(office.ask("files", "list /absent").await.is_err());
    assert_eq!(office.ask("files", "/there/file").await.unwrap(), "content");
    let told = |line: &haar_protocol::log::LogLine| {
        line.stream == Stream::Agent && line.text.contains("/does/not/exist")
    };
    office.site.line(&office.node.id, told).await;
    office.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_made_or_replaced_or_removed_later_is_seen_and_told() {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in [("first", "one"), ("second", "two")] {
        std::fs::create_dir(folder.path().join(name)).unwrap();
        std::fs::write(folder.path().join(name).join("file"), content).unwrap();
    }
    let late = folder.path().join("late");
    // What stands there is another one at once, as by a mount.
    let point_to = |name: &str| {
        let link = folder.path().join("link");
        symlink(folder.path().join(name), &link).unwrap();
        std::fs::rename(&link, &late).unwrap();
    };
    let mut office = Office::looking(&["files"], Duration::from_millis(100), |spec| {
        let mut grant = directory(&late, "/late", Access::ReadOnly);
        grant.optional = true;
        spec.grants.directories.push(grant);
    })
    .await;
    // With its whole path: it is in lines about what it was told, too.
    let told = |what: &'static str| {
        let start = match what {
            "another" => format!("another directory is at {}", late.display()),
            _ => format!("the directory {} {what}", late.display()),
        };
        move |line: &haar_protocol::log::LogLine| {
            line.stream == Stream::Agent && line.text.starts_with(&start)
        }
    };
    assert!(office.ask("files", "list /late").await.is_err());
    point_to("first");
    office
        .site
        .line(&office.node.id, told("is there now"))
        .await;
    assert_eq!(office.ask("files", "/late/file").await.unwrap(), "one");
    point_to("second");
    office.site.line(&office.node.id, told("another")).await;
    assert_eq!(office.ask("files", "/late/file").await.unwrap(), "two");
    std::fs::remove_file(&late).unwrap();
    office
        .site
        .line(&office.node.id, told("can't be opened"))
        .await;
    assert!(office.ask("files", "list /late").await.is_err());
    office.close().await;
}
