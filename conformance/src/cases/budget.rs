//! What a node has to give.

use anyhow::ensure;
use haar_conformance_artifacts::Guest;
use serde_json::json;

use crate::case::{Case, Node};
use crate::scene::Scene;

pub(super) static CASES: &[&Case] = &[&MEMORY, &PROCESSORS_AND_STORAGE];

pub(super) static MEMORY: Case = Case::new(
    "an_application_that_over_commits_the_nodes_memory_is_refused_with_the_difference",
    &["R-BUDGET-01"],
    &[Guest::Sink],
    Node::Own {
        enrol: &["--memory", "64MiB"],
        settings: "",
    },
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

pub(super) static PROCESSORS_AND_STORAGE: Case = Case::new(
    "an_application_that_over_commits_processors_or_storage_is_refused_with_the_difference",
    &["R-BUDGET-02"],
    &[Guest::Sink],
    Node::Own {
        enrol: &["--memory", "1GiB", "--cpu", "50%", "--storage", "8MiB"],
        settings: "",
    },
    processors_and_storage,
);

fn processors_and_storage(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let wanted = |cpu: &str, key_value_size: &str| {
        json!({
            "limits": { "cpu": cpu, "key_value_size": key_value_size },
            "grants": { "key_value": true },
        })
    };
    let over = [
        ("80%", "1MiB", "over by 30%"),
        ("10%", "20MiB", "over by 12MiB"),
    ];
    for (cpu, size, difference) in over {
        let more = wanted(cpu, size);
        let heavy = scene.application("heavy").with("sink", Guest::Sink, more);
        let refusal = scene.refusal(&heavy)?;
        ensure!(
            refusal.contains(difference) && refusal.contains(&scene.agent.name),
            "it does not say which node and `{difference}`: {refusal}"
        );
    }
    let backlog = |size: &str| {
        let name = scene.application("logged");
        name.with("from", Guest::Sink, json!({}))
            .with("to", Guest::Sink, json!({}))
            .route_with_backlog("from.out", "to.in", json!({ "size": size }))
    };
    let (over, fitting) = (backlog("20MiB"), backlog("2MiB"));
    let refusal = scene.refusal(&over)?;
    ensure!(
        refusal.contains("over by 12MiB"),
        "the log of a durable route does not count: {refusal}"
    );
    scene.run(&fitting)?;
    scene.delete(&fitting.name)?;
    let fits = wanted("40%", "6MiB");
    scene.run(&scene.application("fits").with("sink", Guest::Sink, fits))?;
    let more = wanted("20%", "4MiB");
    let second = scene.application("second").with("sink", Guest::Sink, more);
    let refusal = scene.refusal(&second)?;
    for difference in ["over by 10%", "over by 2MiB"] {
        ensure!(
            refusal.contains(difference),
            "no `{difference}` in: {refusal}"
        );
    }
    Ok(())
}
