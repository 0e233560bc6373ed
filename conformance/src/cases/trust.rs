//! Only what a trusted publisher signed runs, and only with what it is granted.

use std::net::{TcpListener, UdpSocket};

use anyhow::ensure;
use haar_conformance_artifacts::{self as artifacts, Guest};
use haar_protocol::status::State;
use serde_json::json;

use crate::case::{Case, Node};
use crate::modules;
use crate::scene::Scene;
use crate::talk::{SUBJECT, Talk};

const NODE: Node = Node::Shared("trust");

pub(super) static CASES: &[&Case] = &[
    &REFUSED_AT_PUSH,
    &NOT_GRANTED,
    &SOCKETS,
    &DISTRUSTED,
    &TOKEN,
];

pub(super) static REFUSED_AT_PUSH: Case = Case::new(
    "what_no_trusted_publisher_signed_is_refused_at_push",
    &["R-TRUST-01", "R-TRUST-02", "R-TRUST-03", "R-TRUST-04"],
    &[Guest::Echo],
    NODE,
    refused_at_push,
);

fn refused_at_push(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let echo = artifacts::read(Guest::Echo.path());
    let unsigned = modules::with_name(&echo, "unsigned")?;
    scene.site.haar(&["key", "new", "stranger"])?.ok()?;
    let path = |name: &str| scene.site.folder().join(name);
    let foreign = std::fs::read(path(&scene.site.signed(
        "foreign",
        &echo,
        "stranger.key",
    )?))?;
    let good = std::fs::read(path(&scene.site.signed("flipped", &echo, "team.key")?))?;
    let mut flipped = good.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    let cut = &good[..good.len() - 1];
    let core = artifacts::core_module();
    for (what, file) in [
        ("an unsigned module", unsigned.as_slice()),
        ("a module of a stranger", &foreign),
        ("a module with one flipped bit", &flipped),
        ("a module without its last byte", cut),
        ("a core module", &core),
        ("no module at all", b"hello"),
    ] {
        let (status, words) = scene.site.rest().push(file)?;
        ensure!((400..500).contains(&status), "{what}: {status} {words}");
    }
    let (status, words) = scene.site.rest().push(&good)?;
    ensure!(status < 300, "the good one was refused: {status} {words}");
    Ok(())
}

pub(super) static NOT_GRANTED: Case = Case::new(
    "a_component_that_imports_what_it_is_not_granted_is_refused_at_apply",
    &["R-GRANT-01"],
    &[],
    NODE,
    not_granted,
);

fn not_granted(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let component = artifacts::component_importing("wasi:http/types@0.2.10");
    scene.site.push_component("http", &component)?;
    let before = scene.status()?;
    let application = scene.application("app").with_module(
        "subject",
        "http",
        json!({ "inlets": {}, "outlets": {} }),
    );
    let refusal = scene.refusal(&application)?;
    ensure!(
        refusal.contains("wasi:http/"),
        "it does not say what it lacks: {refusal}"
    );
    let after = scene.status()?;
    ensure!(
        after.node.assignment == before.node.assignment,
        "the node was told of it"
    );
    Ok(())
}

pub(super) static SOCKETS: Case = Case::new(
    "hostile_guest_that_tries_every_socket_call_is_denied_each_of_them",
    &["R-GRANT-04"],
    &[Guest::Sockets],
    NODE,
    sockets,
);

fn sockets(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let receiver = UdpSocket::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    receiver.set_nonblocking(true)?;
    let targets = format!("{} {}", listener.local_addr()?, receiver.local_addr()?);
    let mut talk = Talk::start(scene, Guest::Sockets, json!({}))?;
    talk.say(scene, &targets)?;
    scene.wait_line(talk.name(), SUBJECT, "7 of 7 denied")?;
    ensure!(listener.accept().is_err(), "it has connected");
    ensure!(receiver.recv(&mut [0; 16]).is_err(), "it has sent");
    Ok(())
}

pub(super) static DISTRUSTED: Case = Case::new(
    "what_a_distrusted_publisher_signed_is_stopped_and_nothing_else",
    &["R-TRUST-05"],
    &[Guest::Echo, Guest::Sink],
    NODE,
    distrusted,
);

fn distrusted(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    scene.site.haar(&["key", "new", "others"])?.ok()?;
    let trust = ["publisher", "trust", "others", "others.pub"];
    scene.site.haar(&trust)?.ok()?;
    let echo = artifacts::read(Guest::Echo.path());
    let file = scene.site.signed("theirs", &echo, "others.key")?;
    scene.site.haar(&["push", &file])?.ok()?;
    let application = scene
        .application("app")
        .with("ours", Guest::Sink, json!({}))
        .with_module("theirs", "theirs", json!({}));
    scene.run(&application)?;
    let name = application.name.clone();
    let before = scene.wait_for(&name, "ours", "runs", |one| one.state == State::Running)?;
    scene
        .site
        .haar(&["delete", "publisher", "others", "--yes"])?
        .ok()?;
    let refused = scene.wait_for(&name, "theirs", "is refused", |one| {
        one.state == State::Refused
    })?;
    let reason = refused.reason.unwrap_or_default();
    ensure!(reason.contains("no trusted publisher"), "{reason}");
    let after = scene.wait_for(&name, "ours", "runs", |one| one.state == State::Running)?;
    ensure!(after.since_ms == before.since_ms, "ours was touched");
    Ok(())
}

pub(super) static TOKEN: Case = Case::new(
    "an_enrolment_token_works_once",
    &["R-TRUST-06"],
    &[],
    NODE,
    token,
);

fn token(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let token = scene.site.token("enrolled-once")?;
    scene.site.enrol(&token, "enrolled-once")?.ok()?;
    let again = scene.site.enrol(&token, "enrolled-twice")?;
    ensure!(
        again.code != 0 && again.stderr.contains("token"),
        "a used token worked: {}{}",
        again.stdout,
        again.stderr
    );
    Ok(())
}
