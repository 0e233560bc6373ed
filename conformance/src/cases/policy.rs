//! The device's own policy: what its owner does not allow does not run there, whatever the site signs.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use anyhow::{Context as _, ensure};
use haar_conformance_artifacts::{self as artifacts, Guest};
use haar_protocol::status::State;
use serde_json::{Value, json};

use crate::application::Application;
use crate::case::{Case, Node};
use crate::scene::Scene;

pub(super) static CASES: &[&Case] = &[&NEVER, &DIRECTORIES, &PUBLISHERS, &MODES];

fn grant(host: &Path, access: &str) -> Value {
    json!({ "grants": { "directories": [{ "host": host, "guest": "/data", "access": access }] } })
}

/// Starts the agent again with another `agent.toml`.
fn restart_with(scene: &mut Scene<'_>, settings: &str) -> anyhow::Result<()> {
    scene.kill_agent()?;
    fs::write(scene.agent.data.join("agent.toml"), settings)?;
    scene.start_agent()
}

/// Waits until a microservice is refused, and has never run; the reason.
fn refused(scene: &mut Scene<'_>, application: &str, name: &str) -> anyhow::Result<String> {
    let one = scene.wait_for(application, name, "is refused", |one| {
        one.state == State::Refused
    })?;
    ensure!(one.calls == 0, "{name} was called {} times", one.calls);
    one.reason.context("refused without a reason")
}

pub(super) static NEVER: Case = Case::new(
    "the_agents_own_data_procfs_devices_and_the_root_are_never_granted_by_whatever_path",
    &["R-POLICY-01", "R-POLICY-02"],
    &[Guest::Files],
    // As generous as an owner can be.
    Node::Own {
        enrol: &["--memory", "1GiB"],
        settings: "[policy]\ndirectories = [{ path = \"/tmp\", access = \"read-write\" }, \
            { path = \"/var\", access = \"read-write\" }, { path = \"/proc\" }, { path = \"/dev\" }, \
            { path = \"/home\", access = \"read-write\" }, { path = \"/root\", access = \"read-write\" }]\n",
    },
    never,
);

fn never(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let data = scene.agent.data.clone();
    let above = data.parent().context("it has a parent")?.to_owned();
    let links = scene.folder("links")?;
    symlink(&data, links.join("data"))?;
    symlink("/", links.join("root"))?;
    symlink("/proc/self", links.join("self"))?;
    let mut application = scene
        .application("app")
        .with("neighbour", Guest::Files, json!({}));
    let own = "the agent's own data directory";
    let wanted = [
        ("data", data.clone(), own),
        ("above", above, own),
        ("below", data.join("modules"), own),
        ("dots", data.join("modules/.//"), own),
        ("link", links.join("data"), own),
        ("through", links.join("data/compiled"), own),
        ("root", "/".into(), "the whole file system"),
        ("linked-root", links.join("root"), "the whole file system"),
        ("proc", "/proc".into(), "procfs"),
        ("self", links.join("self"), "procfs"),
        ("devices", "/dev".into(), "devices"),
    ];
    for (name, host, _) in &wanted {
        application = application.with(name, Guest::Files, grant(host, "read-only"));
    }
    scene.apply(&application)?;
    for (name, _, text) in &wanted {
        let reason = refused(scene, &application.name, name)?;
        ensure!(reason.contains(text), "{name}: {reason}");
        ensure!(reason.contains("no policy allows that"), "{name}: {reason}");
    }
    scene.wait_for(&application.name, "neighbour", "runs", |one| {
        one.state == State::Running
    })?;
    scene.wait_events(
        "microservice_refused",
        &format!("{}/data", application.name),
    )?;
    Ok(())
}

pub(super) static DIRECTORIES: Case = Case::new(
    "a_directory_is_granted_when_the_devices_own_policy_names_it_with_that_access",
    &["R-TRUST-07", "R-POLICY-01", "R-POLICY-03", "R-POLICY-04"],
    &[Guest::Files],
    Node::OWN,
    directories,
);

fn directories(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let allowed = scene.folder("allowed")?;
    let outside = scene.folder("outside")?;
    fs::create_dir_all(allowed.join("inner"))?;
    symlink(&outside, allowed.join("out"))?;
    let read_only = format!("[policy]\ndirectories = [{{ path = {allowed:?} }}]\n");
    restart_with(scene, &read_only)?;
    let application = scene
        .application("app")
        .with(
            "inner",
            Guest::Files,
            grant(&allowed.join("inner"), "read-only"),
        )
        .with("writes", Guest::Files, grant(&allowed, "read-write"))
        .with("outside", Guest::Files, grant(&outside, "read-only"))
        .with(
            "link",
            Guest::Files,
            grant(&allowed.join("out"), "read-only"),
        );
    scene.apply(&application)?;
    let name = application.name.clone();
    scene.wait_for(&name, "inner", "runs", |one| one.state == State::Running)?;
    let writes = refused(scene, &name, "writes")?;
    ensure!(
        writes.contains("allows to read it, not to write to it"),
        "{writes}"
    );
    for part in ["outside", "link"] {
        let reason = refused(scene, &name, part)?;
        let entry = format!("`{{ path = {outside:?} }}`");
        ensure!(reason.contains(&entry), "{part}: {reason}");
        ensure!(reason.contains("agent.toml"), "{part}: {reason}");
    }
    apply_says_why(scene, &application, "agent.toml")?;

    // The owner adds the line that was printed.
    let both =
        format!("[policy]\ndirectories = [{{ path = {allowed:?} }}, {{ path = {outside:?} }}]\n");
    restart_with(scene, &both)?;
    for part in ["inner", "outside", "link"] {
        scene.wait_for(&name, part, "runs", |one| one.state == State::Running)?;
    }
    let node = scene.status()?;
    let policy = node.policy.context("the node does not tell its policy")?;
    let told: Vec<_> = policy
        .directories
        .iter()
        .map(|one| one.path.as_str())
        .collect();
    ensure!(
        told == [allowed.to_str(), outside.to_str()].map(Option::unwrap_or_default),
        "{told:?}"
    );
    let described = scene
        .site
        .haar(&["describe", "node", &scene.agent.name])?
        .ok()?;
    ensure!(
        described.stdout.contains("to be read"),
        "{}",
        described.stdout
    );

    // And takes all of it back: what ran before, with its code on the disk, does not run again.
    restart_with(scene, "")?;
    for part in ["inner", "outside", "writes", "link"] {
        let reason = refused(scene, &name, part)?;
        ensure!(
            reason.contains("with the line `directories = [{ path ="),
            "{reason}"
        );
    }
    Ok(())
}

/// `haar apply` ends by itself, says why, and not that all is well.
fn apply_says_why(
    scene: &mut Scene<'_>,
    application: &Application,
    text: &str,
) -> anyhow::Result<()> {
    let file = format!("{}.yaml", application.name);
    let output = scene
        .site
        .haar(&["apply", "-f", &file, "--wait=2min", "--yes"])?;
    ensure!(
        output.code == 3,
        "exit code {}: {}",
        output.code,
        output.stderr
    );
    ensure!(output.stderr.contains(text), "{}", output.stderr);
    let listed = scene.site.haar(&["get", "microservices"])?.ok()?;
    ensure!(listed.stdout.contains("refused"), "{}", listed.stdout);
    Ok(())
}

pub(super) static PUBLISHERS: Case = Case::new(
    "a_module_of_a_trusted_publisher_that_the_devices_own_policy_does_not_name_never_runs_there",
    &["R-TRUST-07", "R-POLICY-04", "R-POLICY-05"],
    &[Guest::Sink],
    Node::OWN,
    publishers,
);

fn publishers(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let made = scene
        .site
        .haar(&["key", "new", "owners", "--output", "json"])?;
    let owners = made.ok()?.json()?["key"]
        .as_str()
        .context("no key")?
        .to_owned();
    scene
        .site
        .haar(&["publisher", "trust", "owners", "owners.pub"])?
        .ok()?;
    let sink = artifacts::read(Guest::Sink.path());
    let file = scene.site.signed("approved", &sink, "owners.key")?;
    scene.site.haar(&["push", &file])?.ok()?;
    let application = scene
        .application("app")
        .with_module("approved", "approved", json!({}))
        .with("other", Guest::Sink, json!({}));
    scene.run(&application)?;
    let name = application.name.clone();

    // Both have run, so their code lies on the disk with its seal.
    restart_with(scene, &format!("[policy]\npublishers = [{owners:?}]\n"))?;
    let reason = refused(scene, &name, "other")?;
    ensure!(
        reason.contains("signed by ed25519:") && reason.contains("agent.toml"),
        "{reason}"
    );
    scene.wait_for(&name, "approved", "runs", |one| one.state == State::Running)?;
    apply_says_why(scene, &application, "signed by ed25519:")?;

    // The text of a `.pub` file means the same key.
    let pem = fs::read_to_string(scene.site.folder().join("owners.pub"))?;
    restart_with(
        scene,
        &format!("[policy]\npublishers = [\"\"\"{pem}\"\"\"]\n"),
    )?;
    scene.wait_for(&name, "approved", "runs", |one| one.state == State::Running)?;
    refused(scene, &name, "other")?;

    restart_with(scene, "[policy]\npublishers = []\n")?;
    for part in ["approved", "other"] {
        refused(scene, &name, part)?;
    }
    Ok(())
}

pub(super) static MODES: Case = Case::new(
    "nobody_but_its_user_reads_what_an_agent_keeps",
    &["R-POLICY-06"],
    &[Guest::Files],
    Node::OWN,
    modes,
);

fn modes(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let more = json!({ "grants": { "data_directory": "/own", "key_value": true } });
    let application = scene.application("app").with("subject", Guest::Files, more);
    scene.run(&application)?;
    let data = scene.agent.data.clone();
    closed(&data)?;
    scene.kill_agent()?;
    // As an earlier release left it.
    for (path, mode) in [
        ("agent.db", 0o644),
        ("enrolment.json", 0o644),
        ("modules", 0o755),
        ("", 0o755),
    ] {
        let path = if path.is_empty() {
            data.clone()
        } else {
            data.join(path)
        };
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    }
    scene.start_agent()?;
    scene.wait_for(&application.name, "subject", "runs", |one| {
        one.state == State::Running
    })?;
    closed(&data)
}

/// An error when others may do anything with something in a directory, or with itself.
fn closed(path: &Path) -> anyhow::Result<()> {
    let about = fs::symlink_metadata(path)?;
    let mode = about.permissions().mode() & 0o7777;
    ensure!(
        mode & 0o077 == 0,
        "{} has the mode {mode:o}",
        path.display()
    );
    if about.is_dir() {
        for entry in fs::read_dir(path)? {
            closed(&entry?.path())?;
        }
    }
    Ok(())
}
