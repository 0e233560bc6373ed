//! Offline is normal: a node that starts without a network runs its last assignment.

use std::path::Path;
use std::time::Duration;

use haar_conformance_artifacts as artifacts;
use haar_host::policy::Rules;
use haar_protocol::grants::{Access, DirectoryGrant};
use haar_protocol::status::{State, Status};

use crate::node::{Node, configured, microservice, of, route};
use crate::site::{DEADLINE, Site};

/// Waits until a file is there: nobody else can see what an offline node does.
pub async fn appears(path: &Path) {
    let mut often = tokio::time::interval(Duration::from_millis(10));
    let found = async {
        while !path.exists() {
            often.tick().await;
        }
    };
    assert!(
        tokio::time::timeout(DEADLINE, found).await.is_ok(),
        "{} never appeared",
        path.display()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_starts_with_no_relay_runs_its_last_assignment_with_its_messages() {
    let mut site = Site::start().await;
    let mut node = Node::enrol(&site, "one");
    let config = node.install(&artifacts::read(artifacts::CONFIG), &site.publisher);
    let files = node.install(&artifacts::read(artifacts::FILES), &site.publisher);
    let granted = tempfile::tempdir().unwrap();
    node.rules = Rules::default().allowing(granted.path(), Access::ReadWrite);
    let mut assignment = node.assignment(&site, 1);
    // The one tells its configuration, which is a command to the other.
    let mut writer = microservice("files", files, &["out"], &["in"]);
    writer.grants.directories.push(DirectoryGrant {
        host: granted.path().to_str().unwrap().into(),
        guest: "/data".into(),
        access: Access::ReadWrite,
        quota: None,
        optional: false,
        mount: Default::default(),
    });
    let command = [("write /data/seen", "yes")];
    assignment.microservices = vec![
        configured(microservice("config", config, &["out"], &[]), &command),
        writer,
    ];
    assignment.routes = vec![route(node.port("config", "out"), node.port("files", "in"))];
    let seen = granted.path().join("seen=yes");

    node.start();
    site.assign(&assignment).await;
    let runs = |status: &Status| of(status, "files").is_some_and(|one| one.state == State::Running);
    let first = site.status(&node.id, runs).await;
    appears(&seen).await;
    node.stop().await;
    site.stop_relay().await;
    std::fs::remove_file(&seen).unwrap();

    node.start();
    appears(&seen).await;
    site.start_relay().await;
    let restarted = |status: &Status| runs(status) && status.started_ms > first.started_ms;
    let status = site.status(&node.id, restarted).await;
    assert_eq!(status.applied, 1);
    assert!(status.sequence > first.sequence);
    node.stop().await;
}
