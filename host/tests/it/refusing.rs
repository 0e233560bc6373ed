//! What a node refuses: assignments that are not for it, modules that nobody trusted has signed.

use haar_conformance_artifacts as artifacts;
use haar_protocol::grants::{Access, DirectoryGrant};
use haar_protocol::ids::Digest;
use haar_protocol::keys::SecretKey;
use haar_protocol::log::Stream;
use haar_protocol::module;
use haar_protocol::quantity::ByteSize;
use haar_protocol::signed;
use haar_protocol::status::{State, Status};

use crate::driver::Driver;
use crate::node::{Node, microservice, of, route};
use crate::site::Site;

fn refused(status: &Status, number: Option<u64>, text: &str) -> bool {
    status
        .refused
        .as_ref()
        .is_some_and(|refused| refused.number == number && refused.reason.contains(text))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_assignment_that_is_not_the_sites_next_one_for_this_node_is_refused_and_reported() {
    let site = Site::start().await;
    let (mut node, other) = (Node::enrol(&site, "one"), Node::enrol(&site, "other"));
    node.start();
    site.assign(&node.assignment(&site, 5)).await;
    site.status(&node.id, |status| status.applied == 5).await;

    site.assign(&node.assignment(&site, 4)).await;
    site.status(&node.id, |status| refused(status, Some(4), "older than 5"))
        .await;

    let mut changed = node.assignment(&site, 5);
    changed.issued_ms = 7;
    site.assign(&changed).await;
    site.status(&node.id, |status| refused(status, Some(5), "other content"))
        .await;

    let foreign = signed::seal(&other.assignment(&site, 9), &site.key).unwrap();
    site.send_envelope(&node.id, foreign).await;
    site.status(&node.id, |status| refused(status, Some(9), "this node is"))
        .await;

    let forged = signed::seal(&node.assignment(&site, 9), &SecretKey::from_seed([99; 32])).unwrap();
    site.send_envelope(&node.id, forged).await;
    site.status(&node.id, |status| refused(status, None, "signature"))
        .await;

    let mut heavy = node.assignment(&site, 9);
    let mut big = microservice("big", (Digest::of(b""), 1), &[], &[]);
    big.limits.memory = ByteSize(3 << 30);
    heavy.microservices = vec![big];
    site.assign(&heavy).await;
    let status = site
        .status(&node.id, |status| refused(status, Some(9), "over by 2GiB"))
        .await;
    assert_eq!(status.applied, 5);
    node.stop().await;
}

/// Runs one module file on a fresh node and returns the reason for which it is refused.
async fn reason(file: &[u8]) -> String {
    let site = Site::start().await;
    let mut node = Node::enrol(&site, "one");
    let digest = node.install_as_is(file);
    let mut assignment = node.assignment(&site, 1);
    assignment.microservices = vec![microservice(
        "it",
        (digest, file.len() as u64),
        &[],
        &["in"],
    )];
    node.start();
    site.assign(&assignment).await;
    let status = site
        .status(&node.id, |status| {
            of(status, "it").is_some_and(|one| one.state == State::Refused)
        })
        .await;
    node.stop().await;
    let one = of(&status, "it").unwrap();
    assert_eq!(one.calls, 0);
    one.reason.clone().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_that_is_not_wholly_right_is_refused_with_the_reason() {
    let publisher = SecretKey::from_seed([2; 32]);
    let echo = artifacts::read(artifacts::ECHO);
    let good = module::sign(&echo, &publisher).unwrap();
    let mut flipped = good.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    let foreign = module::sign(&echo, &SecretKey::from_seed([77; 32])).unwrap();
    let http = artifacts::component_importing("wasi:http/outgoing-handler@0.2.6");
    let http = module::sign(&http, &publisher).unwrap();

    assert!(reason(&echo).await.contains("not signed"));
    assert!(reason(&flipped).await.contains("no trusted publisher"));
    assert!(reason(&foreign).await.contains("no trusted publisher"));
    assert!(
        reason(&good[..good.len() - 1])
            .await
            .contains("no trusted publisher")
    );
    assert!(
        reason(&artifacts::core_module())
            .await
            .contains("core module")
    );
    let lacking = reason(&http).await;
    assert!(
        lacking.contains("not granted") && lacking.contains("wasi:http/"),
        "{lacking}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_not_the_module_of_its_name_is_removed_and_not_run() {
    let site = Site::start().await;
    let mut node = Node::enrol(&site, "one");
    let (digest, bytes) = node.install(&artifacts::read(artifacts::ECHO), &site.publisher);
    let path = node
        .data
        .path()
        .join("modules")
        .join(format!("{}.wasm", digest.to_hex()));
    std::fs::write(&path, b"something else").unwrap();
    let mut assignment = node.assignment(&site, 1);
    assignment.microservices = vec![microservice("echo", (digest, bytes), &["out"], &["in"])];
    node.start();
    site.assign(&assignment).await;
    // It can't be fetched anew, because this site has no controller.
    let unreachable = |status: &Status| {
        of(status, "echo").is_some_and(|one| {
            one.state == State::Preparing
                && one
                    .reason
                    .as_deref()
                    .is_some_and(|reason| reason.contains("can't be reached"))
        })
    };
    site.status(&node.id, unreachable).await;
    assert!(!path.exists());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn compiled_code_that_was_changed_is_not_loaded_but_made_anew() {
    let site = Site::start().await;
    let mut node = Node::enrol(&site, "one");
    let module = node.install(&artifacts::read(artifacts::ECHO), &site.publisher);
    let mut assignment = node.assignment(&site, 1);
    assignment.microservices = vec![microservice("echo", module, &["out"], &["in"])];
    let runs = |status: &Status| of(status, "echo").is_some_and(|one| one.state == State::Running);
    node.start();
    site.assign(&assignment).await;
    site.status(&node.id, runs).await;
    node.stop().await;
    site.status(&node.id, |status| status.microservices.is_empty())
        .await;
    let code = node
        .data
        .path()
        .join("compiled")
        .join(format!("{}.code", module.0.to_hex()));
    let good = std::fs::read(&code).unwrap();
    let mut bad = good.clone();
    let last = bad.len() - 1;
    bad[last] ^= 1;
    std::fs::write(&code, &bad).unwrap();
    node.start();
    site.status(&node.id, runs).await;
    node.stop().await;
    assert_eq!(std::fs::read(&code).unwrap().len(), good.len());
    assert_ne!(std::fs::read(&code).unwrap(), bad);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_granted_directory_that_is_not_there_is_told() {
    let site = Site::start().await;
    let mut node = Node::enrol(&site, "one");
    let module = node.install(&artifacts::read(artifacts::FILES), &site.publisher);
    let mut assignment = node.assignment(&site, 1);
    let mut files = microservice("files", module, &["out"], &["in"]);
    files.grants.directories.push(DirectoryGrant {
        host: "/does/not/exist".into(),
        guest: "/data".into(),
        access: Access::ReadOnly,
        quota: None,
        optional: false,
        mount: Default::default(),
    });
    assignment.microservices = vec![files];
    node.start();
    site.assign(&assignment).await;
    let told = |status: &Status| {
        of(status, "files").is_some_and(|one| {
            one.state == State::BackOff
                && one
                    .reason
                    .as_deref()
                    .is_some_and(|reason| reason.contains("/does/not/exist"))
        })
    };
    site.status(&node.id, told).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_that_needs_a_socket_is_denied_and_nothing_gets_through() {
    let site = Site::start().await;
    let (mut node, other) = (Node::enrol(&site, "one"), Node::enrol(&site, "other"));
    let sockets = node.install(&artifacts::read(artifacts::SOCKETS), &site.publisher);
    let mut assignment = node.assignment(&site, 1);
    assignment.microservices = vec![microservice("sockets", sockets, &[], &["in"])];
    let talk = route(other.port("driver", "out"), node.port("sockets", "in"));
    assignment.routes = vec![talk.clone()];
    assignment.peers = vec![other.peer()];
    node.start();
    site.assign(&assignment).await;
    let runs =
        |status: &Status| of(status, "sockets").is_some_and(|one| one.state == State::Running);
    site.status(&node.id, runs).await;

    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let receiver = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    receiver.set_nonblocking(true).unwrap();
    let targets = format!(
        "{} {}",
        listener.local_addr().unwrap(),
        receiver.local_addr().unwrap()
    );
    let driver = Driver::connect(&site, &other).await;
    driver.send(&node, talk.id, &targets).await;
    let line = site.line(&node.id, |line| line.stream == Stream::Log).await;
    assert_eq!(line.text, "7 of 7 denied");
    let nobody = std::io::ErrorKind::WouldBlock;
    assert_eq!(listener.accept().unwrap_err().kind(), nobody);
    assert_eq!(receiver.recv(&mut [0; 16]).unwrap_err().kind(), nobody);
    node.stop().await;
}
