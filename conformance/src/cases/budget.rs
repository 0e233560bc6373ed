//! What a node has to give.

use anyhow::ensure;
use haar_conformance_artifacts::Guest;
use serde_json::json;

use crate::case::{Case, Node};
use crate::scene::Scene;

pub(super) static CASES: &[&Case] = &[&MEMORY];

pub(super) static MEMORY: Case = Case::new(
    "an_application_that_over_commits_the_nodes_memory_is_refused_with_the_difference",
    &["R-BUDGET-01"],
    &[Guest::Sink],
    Node::Own { memory: "64MiB" },
    memory,
);

fn memory(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let heavy = json!({ "limits": { "memory": "96MiB" } });
    let application = scene.application("heavy").with("sink", Guest::Sink, heavy);
    let refusal = scene.refusal(&application)?;
    ensure!(
        refusal.contains("32MiB") && refusal.contains(&scene.agent.name),
        "it does not say which node and by how much: {refusal}"
    );
    let light = json!({ "limits": { "memory": "48MiB" } });
    let fits = scene
        .application("light")
        .with("sink", Guest::Sink, light.clone());
    scene.run(&fits)?;
    let second = scene.application("second").with("sink", Guest::Sink, light);
    let refusal = scene.refusal(&second)?;
    ensure!(refusal.contains("32MiB"), "{refusal}");
    Ok(())
}
