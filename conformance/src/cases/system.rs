//! What a node measures of itself: by the grant `system`, and in no other way.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use haar_conformance_artifacts::Guest;
use serde_json::json;

use crate::case::{Case, Node};
use crate::scene::Scene;
use crate::talk::{SUBJECT, Talk};

const NODE: Node = Node::Shared("files");

pub(super) static CASES: &[&Case] = &[&GRANTED, &REFUSED, &PROC, &FIFO];

pub(super) static GRANTED: Case = Case::new(
    "the_grant_of_measurements_gives_the_parts_that_it_names",
    &["R-SYSTEM-01", "R-SYSTEM-02"],
    &[Guest::System],
    NODE,
    granted,
);

fn granted(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let application = scene
        .application("app")
        .with(
            "all",
            Guest::System,
            json!({ "grants": { "system": true } }),
        )
        .with(
            "some",
            Guest::System,
            json!({ "grants": { "system": ["memory", "cpu"] } }),
        );
    scene.run(&application)?;
    let name = application.name.clone();
    for part in ["cpu ", "memory ", "network ", "disks ", "temperatures "] {
        let line = scene.wait_line(&name, "all", part)?;
        ensure!(!line.contains("error"), "{line}");
        let line = scene.wait_line(&name, "some", part)?;
        let is_granted = ["cpu ", "memory "].contains(&part);
        ensure!(
            line.contains("does not name this part") != is_granted,
            "{line}"
        );
    }
    let line = scene.wait_line(&name, "all", "memory ")?;
    let ours = fs::read_to_string("/proc/meminfo")?;
    let ours = ours.split_whitespace().nth(1).context("no memory")?;
    let total = format!("total={} ", ours.parse::<u64>()? * 1_024);
    ensure!(line.contains(&total), "{line} instead of {total}");
    Ok(())
}

pub(super) static REFUSED: Case = Case::new(
    "measurements_that_are_not_granted_are_refused_with_the_words_that_grant_them",
    &["R-SYSTEM-03", "R-GRANT-03"],
    &[Guest::System],
    NODE,
    refused,
);

fn refused(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let application = scene
        .application("app")
        .with(SUBJECT, Guest::System, json!({}));
    let words = scene.refusal(&application)?;
    ensure!(
        words.contains("haar:local/system") && words.contains("grants: { system: true }"),
        "{words}"
    );
    Ok(())
}

pub(super) static PROC: Case = Case::new(
    "hostile_proc_self_mem",
    &["R-HOSTILE-19"],
    &[Guest::Files],
    NODE,
    proc_self_mem,
);

/// A guest tries every way to the agent's memory: a grant of procfs, procfs mounted inside a granted
/// directory, and links.
fn proc_self_mem(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let grant =
        |host: &Path| json!({ "grants": { "directories": [{ "host": host, "guest": "/data" }] } });
    for host in ["/proc", "/proc/self"] {
        let application =
            scene
                .application("proc")
                .with(SUBJECT, Guest::Files, grant(host.as_ref()));
        scene.apply(&application)?;
        scene.wait_for(&application.name, SUBJECT, "is kept from procfs", |one| {
            !one.state.is_up()
                && one
                    .reason
                    .as_ref()
                    .is_some_and(|reason| reason.contains("/proc"))
        })?;
        scene.delete(&application.name)?;
    }
    let folder = scene.folder("granted")?;
    symlink("/proc/self/mem", folder.join("link"))?;
    symlink("../../../../../../../../proc/self/mem", folder.join("up"))?;
    fs::write(folder.join("file"), "harmless")?;
    fs::create_dir_all(folder.join("mounted"))?;
    let mut talk = Talk::start(scene, Guest::Files, grant(&folder))?;
    // While it runs: a directory with procfs in it is refused when an instance starts.
    let mounted = Mounted::procfs(&folder.join("mounted"));
    let mut commands = vec!["/data/link".to_owned(), "/data/up".to_owned()];
    if mounted.is_some() {
        for file in ["mem", "maps", "environ", "cmdline"] {
            commands.push(format!("/data/mounted/self/{file}"));
            commands.push(format!("/data/mounted/thread-self/{file}"));
        }
        commands.extend(["list /data/mounted", "list /data/mounted/self"].map(str::to_owned));
    } else {
        scene.note("nothing can be mounted here: that way was not tried");
    }
    let replies = talk.ask_all(scene, &commands.join("\n"), commands.len())?;
    for (command, reply) in commands.iter().zip(&replies) {
        ensure!(
            reply.header("outcome") == Some("error"),
            "`{command}`: {reply:?}"
        );
    }
    let reply = talk.ask(scene, "/data/file")?;
    ensure!(reply.text() == "harmless", "{reply:?}");
    Ok(())
}

/// Procfs in a directory, until this is dropped.
struct Mounted(PathBuf);

impl Mounted {
    /// None where this process may not mount anything.
    fn procfs(folder: &Path) -> Option<Self> {
        let mount = Command::new("mount")
            .args(["--bind", "/proc"])
            .arg(folder)
            .output();
        let is_mounted = mount.is_ok_and(|mount| mount.status.success());
        is_mounted.then(|| Self(folder.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Whatever holds it, the folder of the suite must not show procfs when it is removed.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).output();
    }
}

pub(super) static FIFO: Case = Case::new(
    "hostile_fifos_and_devices_are_refused_and_stop_nobody",
    &["R-FILE-10", "R-HOSTILE-20"],
    &[Guest::Files],
    NODE,
    fifos,
);

/// More microservices than an agent once had threads for files open a FIFO, while a neighbour goes on.
fn fifos(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let folder = scene.folder("granted")?;
    let fifo = folder.join("fifo");
    let made = Command::new("mkfifo")
        .arg(&fifo)
        .status()
        .context("mkfifo")?;
    ensure!(made.success(), "mkfifo failed");
    let directory = json!([{ "host": folder, "guest": "/data", "access": "read-write" }]);
    let more = json!({ "grants": { "directories": directory, "data_directory": "/own" } });
    let mut talk = Talk::start(scene, Guest::Files, more)?;
    for number in 1..=6 {
        let (name, grants) = (
            format!("other-{number}"),
            json!({ "directories": directory }),
        );
        talk.application = talk
            .application
            .clone()
            .with(&name, Guest::Files, json!({ "grants": grants }))
            .route("driver.out", &format!("{name}.in"));
    }
    scene.run(&talk.application.clone())?;
    let opened = talk.ask(scene, "/data/fifo")?;
    ensure!(opened.header("outcome") == Some("error"), "{opened:?}");
    for round in 0..3 {
        let written = talk.ask(scene, &format!("write /own/file {round}"))?;
        ensure!(written.header("outcome") == Some("ok"), "{written:?}");
    }
    let listed = talk.ask(scene, "list /data")?;
    ensure!(listed.text() == "fifo", "{listed:?}");
    let restarted = scene.status()?.microservices.into_iter();
    let restarted: Vec<_> = restarted
        .filter(|one| one.name.application.as_str() == talk.name() && one.restarts > 0)
        .collect();
    ensure!(restarted.is_empty(), "{restarted:?}");
    Ok(())
}
