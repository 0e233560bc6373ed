//! Nodes run code that the controller has compiled, and only what is wholly what it signed.

use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use haar_conformance_artifacts::Guest;
use haar_protocol::ids::Digest;
use serde_json::json;

use crate::application::Application;
use crate::case::{Case, Node};
use crate::scene::Scene;

pub(super) static CASES: &[&Case] = &[&PRECOMPILED, &DAMAGED];

pub(super) static PRECOMPILED: Case = Case::new(
    "a_node_runs_what_the_controller_has_compiled_and_the_site_has_signed",
    &["R-CODE-01", "R-CODE-02", "R-CODE-04"],
    &[Guest::Sink],
    Node::OWN,
    precompiled,
);

fn precompiled(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    scene.run(&sink(scene))?;
    let module = module(scene)?;
    let node = scene.status()?;
    let engine = node.engine.context("the node does not tell its engine")?;
    let path = format!("modules/{module}/code");
    let listed = scene.site.rest().get(&path)?;
    let is_listed = listed["items"].as_array().is_some_and(|items| {
        items.iter().any(|code| {
            code["engine"] == json!(engine.fingerprint)
                && code["target"] == json!(engine.target)
                && code["packed_bytes"].as_u64() > Some(0)
        })
    });
    ensure!(is_listed, "the controller has no code for it: {listed}");
    let kept = std::fs::read(compiled(scene, &module))?;
    let (rest, size) = kept.split_last_chunk().context("the code has no seal")?;
    let size = u32::from_le_bytes(*size) as usize;
    let seal_at = rest.len().checked_sub(size).context("the seal is cut")?;
    let sent = scene.site.folder().join(format!(
        "controller/code/{}/{}.{}.packed3",
        module.to_hex(),
        engine.fingerprint,
        engine.target
    ));
    ensure!(
        size > 0 && std::fs::read(&sent)?.starts_with(&rest[seal_at..]),
        "the node has other code than the controller"
    );
    let data = scene.site.data(&scene.agent.name);
    let file = data.join(format!("modules/{}.wasm", module.to_hex()));
    ensure!(!file.exists(), "the node has fetched {}", file.display());
    scene.note(format!("for {}", engine.target));
    Ok(())
}

pub(super) static DAMAGED: Case = Case::new(
    "compiled_code_that_was_changed_on_the_disk_is_not_run_but_had_anew",
    &["R-CODE-03"],
    &[Guest::Sink],
    Node::OWN,
    damaged,
);

fn damaged(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let application = sink(scene);
    scene.run(&application)?;
    let module = module(scene)?;
    let path = compiled(scene, &module);
    // In the code, and in its seal.
    for from_the_end in [20_000, 100] {
        let good = std::fs::read(&path)?;
        let before = scene.status()?.status_sequence;
        scene.kill_agent()?;
        let mut bad = good.clone();
        let at = bad.len() - from_the_end;
        bad[at] ^= 1;
        // Whoever can do so can write anything there.
        std::fs::remove_file(&path)?;
        std::fs::write(&path, bad)?;
        scene.start_agent()?;
        scene.wait_until("it runs again", |node| {
            node.status_sequence > before
                && node
                    .microservices
                    .iter()
                    .all(|one| one.state == haar_protocol::status::State::Running)
                && !node.microservices.is_empty()
        })?;
        ensure!(
            std::fs::read(&path)? == good,
            "{} is not what it was",
            path.display()
        );
    }
    Ok(())
}

fn sink(scene: &Scene<'_>) -> Application {
    scene
        .application("app")
        .with("sink", Guest::Sink, json!({}))
}

/// The module of the only microservice on the node.
fn module(scene: &mut Scene<'_>) -> anyhow::Result<Digest> {
    let node = scene.status()?;
    let microservice = node.microservices.first();
    Ok(microservice.context("nothing runs on the node")?.module)
}

/// The node's compiled code of a module, with its seal.
fn compiled(scene: &Scene<'_>, module: &Digest) -> PathBuf {
    let data = scene.site.data(&scene.agent.name);
    data.join(format!("compiled/{}.code", module.to_hex()))
}
