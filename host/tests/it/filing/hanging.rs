//! A file server that never answers holds up the microservices that asked it, and nobody else.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use haar_protocol::grants::Access;
use haar_protocol::keys::SecretKey;
use haar_protocol::log::LogLine;
use haar_protocol::quantity::Millis;
use haar_protocol::status::{FailureCause, State, Status};

use super::office::Office;
use super::{directory, with_private_directory};
use crate::node::of;

/// A file system (FUSE) whose server answers nothing, not even its first question.
struct DeadServer {
    folder: PathBuf,
    server: Option<File>,
}

/// How long unmounting may take.
const UNMOUNT_MAX: Duration = Duration::from_secs(30);

impl DeadServer {
    /// None where this process may not mount anything.
    fn mount(folder: &Path) -> Option<Self> {
        let device = File::options().read(true).write(true).open("/dev/fuse");
        let server = device.ok()?;
        let options = "fd=0,rootmode=40000,user_id=0,group_id=0";
        let mounted = Command::new("mount")
            .args(["-i", "-t", "fuse", "-o", options, "none"])
            .arg(folder)
            .stdin(server.try_clone().unwrap())
            .output();
        let is_mounted = mounted.is_ok_and(|mounted| mounted.status.success());
        is_mounted.then(|| Self {
            folder: folder.to_owned(),
            server: Some(server),
        })
    }
}

impl Drop for DeadServer {
    fn drop(&mut self) {
        // The kernel answers for a server that is gone: nothing that has asked it waits any more.
        self.server.take();
        let mut unmount = Command::new("umount");
        unmount.arg("--lazy").arg(&self.folder);
        let (done, is_done) = sync_channel(1);
        std::thread::spawn(move || {
            let _ = done.send(unmount.output()); // or the test has ended
        });
        let _ = is_done.recv_timeout(UNMOUNT_MAX); // or the test has failed before
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_server_that_never_answers_holds_up_only_those_who_ask_it() {
    const HANGING: [&str; 6] = ["one", "two", "three", "four", "five", "six"];
    let tree = tempfile::tempdir().unwrap();
    let dead = tree.path().join("dead");
    std::fs::create_dir(&dead).unwrap();
    let Some(_server) = DeadServer::mount(&dead) else {
        eprintln!("nothing can be mounted here: not tried");
        return;
    };
    let names = [HANGING.as_slice(), &["neighbour"]].concat();
    let mut office = Office::open(&names, |spec| {
        if spec.name.microservice.as_str() == "neighbour" {
            with_private_directory(spec);
        } else {
            spec.grants.directories = vec![directory(tree.path(), "/shared", Access::ReadOnly)];
            spec.limits.call_timeout = Millis(1_000);
        }
    })
    .await;
    for name in HANGING {
        office.tell(name, "/shared/dead/file").await;
    }
    for name in HANGING {
        let has_failed =
            |status: &Status| of(status, name).is_some_and(|one| one.last_failure.is_some());
        let status = office.site.status(&office.node.id, has_failed).await;
        let failure = of(&status, name).unwrap().last_failure.clone().unwrap();
        assert_eq!(failure.cause, FailureCause::Deadline);
        let names_it = failure
            .details
            .contains("a file operation has not ended: `open` of `dead");
        assert!(names_it, "{}", failure.details);
    }
    office
        .ask("neighbour", "write /data/file text")
        .await
        .unwrap();
    assert_eq!(office.ask("neighbour", "/data/file").await.unwrap(), "text");
    office.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_granted_directory_that_no_longer_answers_is_reported_and_holds_up_nothing_else() {
    let granted = tempfile::tempdir().unwrap();
    let pause = Duration::from_millis(100);
    let mut office = Office::looking(&["files"], pause, |spec| {
        with_private_directory(spec);
        let grant = directory(granted.path(), "/granted", Access::ReadOnly);
        spec.grants.directories.push(grant);
    })
    .await;
    let Some(server) = DeadServer::mount(granted.path()) else {
        eprintln!("nothing can be mounted here: not tried");
        return office.close().await;
    };
    let place = granted.path().display();
    let start = format!("a granted directory does not answer: `open` of `{place}`, for ");
    let reported = |line: &LogLine| line.text.starts_with(&start);
    office.site.line(&office.node.id, reported).await;
    // With the instance that it had before, and on its own thread for files.
    office.ask("files", "write /data/file text").await.unwrap();
    assert_eq!(office.ask("files", "/data/file").await.unwrap(), "text");
    let lines = office.site.lines(&office.node.id);
    assert_eq!(lines.iter().filter(|line| reported(line)).count(), 1);

    // What it waits for is over, and the next look goes on from there.
    drop(server);
    std::fs::remove_dir(granted.path()).unwrap();
    let gone = format!("the directory {place} can't be opened any more");
    let told = |line: &LogLine| line.text.starts_with(&gone);
    office.site.line(&office.node.id, told).await;
    std::fs::create_dir(granted.path()).unwrap();
    office.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_trusted_no_more_stops_although_its_directory_does_not_answer() {
    let granted = tempfile::tempdir().unwrap();
    let mut office = Office::open(&["files"], |spec| {
        spec.grants.directories = vec![directory(granted.path(), "/granted", Access::ReadOnly)];
    })
    .await;
    let Some(server) = DeadServer::mount(granted.path()) else {
        eprintln!("nothing can be mounted here: not tried");
        return office.close().await;
    };
    office.assignment.number += 1;
    office.assignment.publishers[0].key = SecretKey::from_seed([44; 32]).public();
    office.site.assign(&office.assignment).await;
    let refused =
        |status: &Status| of(status, "files").is_some_and(|one| one.state == State::Refused);
    office.site.status(&office.node.id, refused).await;
    drop(server);
    office.close().await;
}
