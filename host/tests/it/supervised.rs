//! The agent's program under a service manager, which is a socket of the test.

use std::process::ExitStatus;
use std::time::Duration;

use haar_faulty_disk::Disk;
use haar_host::config::Supervision;
use tokio::net::UnixDatagram;
use tokio::process::{Child, Command};

use crate::node::Node;
use crate::site::{DEADLINE, Site};

/// What the service manager hears next.
async fn heard(socket: &UnixDatagram) -> String {
    let mut buffer = [0; 256];
    let received = tokio::time::timeout(DEADLINE, socket.recv(&mut buffer)).await;
    let count = received.expect("the agent says something").unwrap();
    String::from_utf8(buffer[..count].to_vec()).unwrap()
}

pub fn start(node: &Node, variables: &[(&str, &str)]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_haar-agent"))
        .args(["run", "--data"])
        .arg(node.data.path())
        .envs(variables.iter().copied())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

pub async fn terminate(child: &mut Child) -> ExitStatus {
    let id = i32::try_from(child.id().unwrap()).unwrap();
    let id = rustix::process::Pid::from_raw(id).unwrap();
    rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
    let ended = tokio::time::timeout(DEADLINE, child.wait()).await;
    ended.expect("the agent ends").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_manager_hears_that_the_agent_runs_goes_round_and_ends() {
    let site = Site::start().await;
    let node = Node::enrol(&site, "one");
    node.write_enrolment();
    let path = node.data.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let mut agent = start(
        &node,
        &[
            ("NOTIFY_SOCKET", path.to_str().unwrap()),
            ("WATCHDOG_USEC", "200000"),
        ],
    );
    assert_eq!(heard(&socket).await, "READY=1");
    for _ in 0..3 {
        assert_eq!(heard(&socket).await, "WATCHDOG=1");
    }
    let ended = terminate(&mut agent).await;
    assert!(ended.success(), "{ended}");
    let mut last = heard(&socket).await;
    while last == "WATCHDOG=1" {
        last = heard(&socket).await;
    }
    assert_eq!(last, "STOPPING=1");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_watchdog_the_service_manager_hears_the_beginning_and_the_end_alone() {
    let site = Site::start().await;
    let node = Node::enrol(&site, "one");
    node.write_enrolment();
    let path = node.data.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let mut agent = start(&node, &[("NOTIFY_SOCKET", path.to_str().unwrap())]);
    assert_eq!(heard(&socket).await, "READY=1");
    assert!(terminate(&mut agent).await.success());
    assert_eq!(heard(&socket).await, "STOPPING=1");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_disk_does_not_answer_the_service_manager_hears_that_the_agent_waits() {
    let site = Site::start().await;
    let mut node = Node::enrol(&site, "one");
    let disk = Disk::of(node.data.path());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    node.supervision = Supervision {
        socket: Some(path.into()),
        watchdog: Some(Duration::from_millis(200)),
    };
    node.start();
    assert_eq!(heard(&socket).await, "READY=1");
    let stall = disk.stall();
    site.assign(&node.assignment(&site, 1)).await;
    tokio::task::block_in_place(|| stall.until_somebody_waits());
    let mut buffer = [0; 64];
    while socket.try_recv(&mut buffer).is_ok() {} // what it said before
    for _ in 0..20 {
        assert_eq!(heard(&socket).await, "WATCHDOG=1");
    }
    drop(stall);
    site.status(&node.id, |status| status.applied == 1).await;
    node.stop().await;
}
