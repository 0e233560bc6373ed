//! Files that are refused before they reach a node.

use anyhow::ensure;
use haar_conformance_artifacts as artifacts;
use serde_json::json;

use crate::case::{Case, Node};
use crate::scene::Scene;

const NODE: Node = Node::Shared("malformed");

pub(super) static CASES: &[&Case] = &[&UNKNOWN_IMPORT];

pub(super) static UNKNOWN_IMPORT: Case = Case::new(
    "an_import_that_nobody_offers_is_refused_at_apply_by_name",
    &["R-GRANT-02"],
    &[],
    NODE,
    unknown_import,
);

fn unknown_import(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let component = artifacts::component_with_unknown_import();
    scene.site.push_component("unknown-import", &component)?;
    let application = scene.application("app").with_module(
        "subject",
        "unknown-import",
        json!({ "inlets": {}, "outlets": {} }),
    );
    let refusal = scene.refusal(&application)?;
    ensure!(refusal.contains("acme:unknown/thing@1.0.0"), "{refusal}");
    Ok(())
}
