//! Files: granted directories, and every way out of them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use haar_conformance_artifacts::{self as artifacts, Guest};
use haar_protocol::status::State;
use serde_json::{Value, json};

use crate::case::{Case, Node};
use crate::scene::Scene;
use crate::talk::{SUBJECT, Talk};

const NODE: Node = Node::Shared("files");
const SECRET: &str = "the secret of the node";
/// Longer than a case may ask: nobody says that it is over when the case panics.
const SWAPPING_MOST: Duration = Duration::from_secs(300);

pub(super) static CASES: &[&Case] = &[&GRANTS, &ESCAPES, &RENAME_RACE, &MISSING, &QUOTA, &PRIVATE];

/// The grant of a directory as `/data`.
fn grant(host: &Path, access: &str) -> Value {
    json!({ "grants": { "directories": [{ "host": host, "guest": "/data", "access": access }] } })
}

pub(super) static GRANTS: Case = Case::new(
    "a_granted_directory_is_read_or_written_as_granted",
    &["R-FILE-01", "R-FILE-02"],
    &[Guest::Files],
    NODE,
    grants,
);

fn grants(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let folder = scene.folder("granted")?;
    fs::write(folder.join("file"), "content")?;
    let mut talk = Talk::start(scene, Guest::Files, grant(&folder, "read-only"))?;
    let read = talk.ask(scene, "/data/file")?;
    ensure!(read.text() == "content", "{read:?}");
    for command in [
        "write /data/new text",
        "write /data/file text",
        "remove /data/file",
    ] {
        let refused = talk.ask(scene, command)?;
        ensure!(
            refused.header("outcome") == Some("error"),
            "{command}: {refused:?}"
        );
    }
    ensure!(
        fs::read_to_string(folder.join("file"))? == "content",
        "it was changed"
    );
    ensure!(!folder.join("new").exists(), "a file was made");
    let before = scene.wait_for(talk.name(), SUBJECT, "runs", |one| {
        one.state == State::Running
    })?;
    talk.application.set(
        SUBJECT,
        "grants",
        grant(&folder, "read-write")["grants"].clone(),
    );
    scene.apply(&talk.application)?;
    // Other grants need another instance: it has the newest assignment when the node has applied it.
    scene.wait_until("the new grants are in force", |node| {
        node.node.applied == node.node.assignment
            && crate::scene::of(node, talk.name(), SUBJECT)
                .is_some_and(|one| one.state == State::Running && one.since_ms > before.since_ms)
    })?;
    let written = talk.ask(scene, "write /data/new text")?;
    ensure!(written.header("outcome") == Some("ok"), "{written:?}");
    ensure!(fs::read_to_string(folder.join("new"))? == "text");
    Ok(())
}

/// A granted directory with ways out of it, and a secret beside it.
fn with_ways_out(scene: &Scene<'_>) -> anyhow::Result<std::path::PathBuf> {
    let outside = scene.folder("outside")?;
    fs::write(outside.join("secret"), SECRET)?;
    let granted = outside.join("granted");
    fs::create_dir_all(granted.join("inner"))?;
    symlink(outside.join("secret"), granted.join("absolute"))?;
    symlink("../secret", granted.join("relative"))?;
    symlink("../..", granted.join("inner/up"))?;
    symlink("/", granted.join("root"))?;
    Ok(granted)
}

pub(super) static ESCAPES: Case = Case::new(
    "no_path_leads_out_of_a_granted_directory",
    &["R-FILE-03", "R-FILE-04", "R-FILE-05", "R-HOSTILE-10"],
    &[Guest::Files],
    NODE,
    escapes,
);

fn escapes(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let granted = with_ways_out(scene)?;
    let outside = granted.parent().context("it is in a directory")?.to_owned();
    let mut talk = Talk::start(scene, Guest::Files, grant(&granted, "read-write"))?;
    let secret = outside.join("secret");
    let secret = secret.to_str().context("not UTF-8")?;
    let commands = [
        "/data/../secret".to_owned(),
        "/data/inner/../../secret".to_owned(),
        "/data/./.././secret".to_owned(),
        "../secret".to_owned(),
        secret.to_owned(),
        format!("/data/{secret}"),
        "/etc/passwd".to_owned(),
        "/data/absolute".to_owned(),
        "/data/relative".to_owned(),
        "/data/inner/up/secret".to_owned(),
        "/data/root/etc/passwd".to_owned(),
        "list /data/..".to_owned(),
        "list /data/inner/up".to_owned(),
        "list /data/root".to_owned(),
        "write /data/../planted text".to_owned(),
        "write /data/inner/up/planted text".to_owned(),
        "write /data/relative text".to_owned(),
        "write /data/absolute text".to_owned(),
        "remove /data/../secret".to_owned(),
        "remove /data/inner/up/secret".to_owned(),
    ];
    let replies = talk.ask_all(scene, &commands.join("\n"), commands.len())?;
    for (command, reply) in commands.iter().zip(&replies) {
        ensure!(
            reply.header("outcome") == Some("error"),
            "`{command}` went out: {reply:?}"
        );
    }
    ensure!(
        fs::read_to_string(outside.join("secret"))? == SECRET,
        "the secret was changed"
    );
    ensure!(
        !outside.join("planted").exists(),
        "a file was planted outside"
    );
    Ok(())
}

pub(super) static RENAME_RACE: Case = Case::new(
    "swapping_a_directory_for_a_symlink_never_lets_a_read_out",
    &["R-FILE-06", "R-HOSTILE-11"],
    &[Guest::Race],
    NODE,
    rename_race,
);

fn rename_race(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let outside = scene.folder("outside")?;
    let granted = outside.join("granted");
    fs::create_dir_all(granted.join("inner"))?;
    fs::write(granted.join("inner/file"), "inside")?;
    fs::create_dir_all(outside.join("target"))?;
    fs::write(outside.join("target/file"), "outside")?;
    symlink(outside.join("target"), granted.join("link"))?;
    let mut talk = Talk::start(scene, Guest::Race, grant(&granted, "read-only"))?;
    let is_over = AtomicBool::new(false);
    let reply = std::thread::scope(|threads| {
        let swapping = threads.spawn(|| swap(&granted, &is_over));
        let reply = talk.ask(scene, "/data/inner/file 10000");
        is_over.store(true, Ordering::Relaxed);
        let swaps = swapping.join().expect("swapping does not panic")?;
        scene.note(format!("{swaps} swaps"));
        reply
    })?;
    let text = reply.text();
    ensure!(!text.contains("outside"), "a read went out: {text}");
    ensure!(text.contains("inside="), "nothing was read at all: {text}");
    scene.note(text);
    Ok(())
}

/// Swaps the directory and the link until it is over. Returns how often.
fn swap(granted: &Path, is_over: &AtomicBool) -> anyhow::Result<u32> {
    let [inner, link, aside] = ["inner", "link", "aside"].map(|name| granted.join(name));
    let (mut swaps, end) = (0, Instant::now() + SWAPPING_MOST);
    while !is_over.load(Ordering::Relaxed) && Instant::now() < end {
        fs::rename(&inner, &aside)?;
        fs::rename(&link, &inner)?;
        fs::rename(&aside, &link)?;
        swaps += 1;
    }
    Ok(swaps)
}

pub(super) static MISSING: Case = Case::new(
    "a_granted_directory_that_is_not_there_is_told",
    &["R-FILE-07"],
    &[Guest::Files],
    NODE,
    missing,
);

fn missing(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let more = grant(Path::new("/does/not/exist"), "read-only");
    let application = scene.application("app").with("subject", Guest::Files, more);
    scene.apply(&application)?;
    scene.wait_for(&application.name, "subject", "names the directory", |one| {
        let reason = one.reason.as_deref().unwrap_or_default();
        one.state == State::BackOff && reason.contains("/does/not/exist")
    })?;
    Ok(())
}

pub(super) static QUOTA: Case = Case::new(
    "a_write_beyond_the_quota_of_a_directory_is_an_error",
    &["R-FILE-08", "R-LIMIT-14"],
    &[Guest::Files],
    NODE,
    quota,
);

fn quota(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    const QUOTA_BYTES: u64 = 64 << 10;
    let folder = scene.folder("granted")?;
    let mut more = grant(&folder, "read-write");
    more["grants"]["directories"][0]["quota"] = "64KiB".into();
    more["grants"]["data_directory"] = "/own".into();
    more["limits"] = json!({ "files_size": "64KiB" });
    let mut talk = Talk::start(scene, Guest::Files, more)?;
    for directory in ["/data", "/own"] {
        let beyond = talk.ask(scene, &format!("fill {directory}/much 100000"))?;
        ensure!(
            beyond.header("outcome") == Some("error") && beyond.text().starts_with("65536: "),
            "{directory}: {beyond:?}"
        );
        talk.ask(scene, &format!("remove {directory}/much"))?;
        let fits = talk.ask(scene, &format!("fill {directory}/little 30000"))?;
        ensure!(
            fits.header("outcome") == Some("ok"),
            "{directory} after room was made: {fits:?}"
        );
        let beyond = talk.ask(scene, &format!("resize {directory}/sparse 1000000"))?;
        ensure!(beyond.header("outcome") == Some("error"), "{beyond:?}");
    }
    let mut taken = 0;
    for entry in fs::read_dir(&folder)? {
        taken += entry?.metadata()?.len();
    }
    ensure!(taken <= QUOTA_BYTES, "{taken} bytes are taken");
    scene.wait_for(talk.name(), SUBJECT, "counts what was refused", |one| {
        one.exceeded.files_size >= 4
    })?;
    Ok(())
}

pub(super) static PRIVATE: Case = Case::new(
    "the_private_data_directory_outlives_a_power_cut_and_another_module",
    &["R-FILE-09"],
    &[Guest::Files],
    NODE,
    private,
);

fn private(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let same = artifacts::read(Guest::Files.path());
    scene.site.push_component("files-again", &same)?;
    let more = json!({ "grants": { "data_directory": "/own" } });
    let mut talk = Talk::start(scene, Guest::Files, more)?;
    let name = talk.name().to_owned();
    talk.say(scene, "#1 write /own/kept text")?;
    scene.wait_line(&name, SUBJECT, "#1 ok")?;
    scene.kill_agent()?;
    scene.start_agent()?;
    // In a round of its own, as the driver says its last words again when it starts again.
    talk.say(scene, "#2 /own/kept")?;
    scene.wait_line(&name, SUBJECT, "#2 ok text")?;

    let exact = format!("files-again@{}", crate::modules::VERSION);
    talk.application
        .set(SUBJECT, "module", exact.as_str().into());
    scene.apply(&talk.application)?;
    scene.wait_for(&name, SUBJECT, "runs the other module", |one| {
        one.state == State::Running && one.module_label == exact
    })?;
    talk.say(scene, "#3 /own/kept")?;
    scene.wait_line(&name, SUBJECT, "#3 ok text")?;
    Ok(())
}
