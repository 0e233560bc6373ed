//! An agent whose files are damaged: it comes back by itself, without a network, and says so when it
//! has one.

use std::path::{Path, PathBuf};

use haar_conformance_artifacts as artifacts;
use haar_host::agent::ending::Ended;
use haar_host::agent::run::Agent;
use haar_host::identity::DataDirectory;
use haar_host::policy::Rules;
use haar_host::store::Store;
use haar_protocol::grants::{Access, DirectoryGrant};
use haar_protocol::status::{State, Status};

use crate::node::{Node, configured, microservice, of, route};
use crate::offline::appears;
use crate::site::Site;

/// A node that has run one microservice that writes a file at its start by a message to another.
struct Scene {
    site: Site,
    node: Node,
    _granted: tempfile::TempDir,
    seen: PathBuf,
    first: Status,
}

impl Scene {
    async fn new() -> Self {
        let site = Site::start().await;
        let mut node = Node::enrol(&site, "one");
        let config = node.install(&artifacts::read(artifacts::CONFIG), &site.publisher);
        let files = node.install(&artifacts::read(artifacts::FILES), &site.publisher);
        let granted = tempfile::tempdir().unwrap();
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
        let mut assignment = node.assignment(&site, 1);
        assignment.microservices = vec![
            configured(microservice("config", config, &["out"], &[]), &command),
            writer,
        ];
        assignment.routes = vec![route(node.port("config", "out"), node.port("files", "in"))];
        let seen = granted.path().join("seen=yes");
        node.rules = Rules::default().allowing(granted.path(), Access::ReadWrite);
        node.start();
        site.assign(&assignment).await;
        let first = site.status(&node.id, runs).await;
        appears(&seen).await;
        assert_eq!(node.stop().await, Some(Ended::Stopped));
        std::fs::remove_file(&seen).unwrap();
        Self {
            site,
            node,
            _granted: granted,
            seen,
            first,
        }
    }

    fn database(&self) -> PathBuf {
        self.node.data.path().join("agent.db")
    }

    /// Starts the node without a network, and waits until its assignment runs.
    async fn run_offline(&mut self) {
        self.node.start();
        appears(&self.seen).await;
        std::fs::remove_file(&self.seen).unwrap();
    }

    /// The first status after the damage.
    async fn status(&self) -> Status {
        let first = &self.first;
        let restarted = |status: &Status| runs(status) && status.started_ms > first.started_ms;
        self.site.status(&self.node.id, restarted).await
    }
}

fn runs(status: &Status) -> bool {
    of(status, "files").is_some_and(|one| one.state == State::Running)
}

fn overwrite(path: &Path, page: usize) {
    use std::os::unix::fs::FileExt as _;
    let noise: Vec<u8> = (0..4_096_u64)
        .map(|byte| ((byte * 2_654_435_761) >> 9).to_le_bytes()[0])
        .collect();
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&noise, page as u64 * 4_096).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn with_any_page_of_its_database_overwritten_a_node_runs_its_assignment_offline_and_reports_it()
 {
    let mut scene = Scene::new().await;
    scene.site.stop_relay().await;
    let sound = std::fs::read(scene.database()).unwrap();
    let pages = sound.len() / 4_096;
    assert!(pages >= 20, "{pages}");
    for page in 0..pages {
        let data = scene.node.data.path();
        for name in ["agent.db-wal", "agent.db-shm"] {
            let _ = std::fs::remove_file(data.join(name)); // or there is none
        }
        std::fs::write(scene.database(), &sound).unwrap();
        overwrite(&scene.database(), page);
        scene.run_offline().await;
        assert_eq!(scene.node.stop().await, Some(Ended::Stopped), "page {page}");
    }
    // The first page, without which the file is not a database.
    overwrite(&scene.database(), 0);
    scene.run_offline().await;
    scene.site.start_relay().await;
    let status = scene.status().await;
    assert_eq!(status.applied, 1);
    assert!(status.sequence > scene.first.sequence);
    let damage = status.store.unwrap().damage.unwrap();
    assert!(damage.reason.contains("not a database"), "{damage:?}");
    assert!(!damage.missing.is_empty());
    scene.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_database_can_not_be_opened_runs_its_assignment_and_says_why() {
    let mut scene = Scene::new().await;
    scene.site.stop_relay().await;
    std::fs::remove_file(scene.database()).unwrap();
    // As of a file system that gives nothing: what stands there can't be opened or replaced.
    std::fs::create_dir(scene.database()).unwrap();
    scene.run_offline().await;
    scene.site.start_relay().await;
    let status = scene.status().await;
    assert!(status.sequence > scene.first.sequence);
    let problem = status.store.unwrap().problem.unwrap();
    assert!(problem.contains("agent.db"), "{problem}");
    scene.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_database_is_of_a_newer_release_runs_its_assignment_and_says_what_to_do() {
    let mut scene = Scene::new().await;
    scene.site.stop_relay().await;
    // Its `user_version`, by the format of the file.
    let mut newer = std::fs::read(scene.database()).unwrap();
    newer[60..64].copy_from_slice(&99_u32.to_be_bytes());
    std::fs::write(scene.database(), &newer).unwrap();
    scene.run_offline().await;
    scene.site.start_relay().await;
    let problem = scene.status().await.store.unwrap().problem.unwrap();
    for part in ["version 99", "update haar-agent", "agent.db.before-update"] {
        assert!(problem.contains(part), "{problem}");
    }
    scene.node.stop().await;
    assert_eq!(
        std::fs::read(scene.database()).unwrap()[60..64],
        newer[60..64]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_assignment_in_the_database_does_not_come_back_and_a_damaged_file_is_no_harm() {
    let mut scene = Scene::new().await;
    let old = std::fs::read(scene.database()).unwrap();
    // A newer one, which runs nothing; then a copy of the database from before it.
    scene.node.start();
    let newer = scene.node.assignment(&scene.site, 2);
    scene.site.assign(&newer).await;
    let applied = |status: &Status| status.applied == 2;
    scene.site.status(&scene.node.id, applied).await;
    scene.node.stop().await;
    scene.site.stop_relay().await;
    std::fs::write(scene.database(), &old).unwrap();
    scene.node.start();
    scene.site.start_relay().await;
    let again = |status: &Status| status.started_ms > scene.first.started_ms && runs(status);
    let status = scene.site.status(&scene.node.id, applied).await;
    assert!(!again(&status), "{status:?}");
    scene.node.stop().await;

    let file = scene.node.data.path().join("assignment");
    for damaged in [&b""[..], b"noise", &[0xff; 9_000]] {
        std::fs::write(&file, damaged).unwrap();
        scene.node.start();
        scene.site.status(&scene.node.id, applied).await;
        scene.node.stop().await;
        assert!(
            std::fs::read(&file).unwrap().len() > 100,
            "it is written again"
        );
    }
}

#[tokio::test]
async fn a_start_that_fails_says_why_and_panics_nowhere() {
    let site = Site::start().await;
    let mut node = Node::enrol(&site, "one");
    node.attach_to("mqtt://");
    let (store, thread) = Store::open(node.data.path()).unwrap();
    // On a runtime, as in the program: there, dropping the runtime of guests was a panic.
    let options = node.options();
    let started = Agent::start(node.data.path(), options, store).await;
    assert!(started.is_err());
    drop(started);
    thread.join();
}

#[test]
fn a_damaged_file_that_can_not_be_made_again_is_named_with_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let data = DataDirectory::open(directory.path()).unwrap();
    for content in [&b""[..], b"x", &[0xff; 100]] {
        std::fs::write(directory.path().join("node.key"), content).unwrap();
        let key = data.key(|| panic!("another key would be another node"));
        let error = format!("{:#}", key.unwrap_err());
        assert!(error.contains("node.key is damaged: restore it"), "{error}");
        std::fs::write(directory.path().join("enrolment.json"), content).unwrap();
        let error = format!("{:#}", data.membership().unwrap_err());
        assert!(
            error.contains("enrolment.json is damaged: enrol again"),
            "{error}"
        );
    }
}
