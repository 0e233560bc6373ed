//! What the site claims, as programs read it: `get`, `describe` and `apply` with `--output json`.

use anyhow::Context as _;
use haar_protocol::rest::{
    Application, ApplicationDetail, List, Microservice, Node, NodeDetail, SiteHealth,
};
use serde::de::DeserializeOwned;

use crate::site::Site;

/// Everything that was read in one round.
#[derive(Debug, Clone)]
pub(super) struct Claims {
    pub(super) nodes: Vec<Node>,
    pub(super) described_nodes: Vec<NodeDetail>,
    pub(super) applications: Vec<Application>,
    pub(super) detail: ApplicationDetail,
    pub(super) microservices: Vec<Microservice>,
    pub(super) site: SiteHealth,
    /// When the round began and ended: milliseconds since the Unix epoch.
    pub(super) from_ms: u64,
    pub(super) until_ms: u64,
}

/// What `apply` said at the end of its wait.
#[derive(Debug, Clone)]
pub(super) struct Applied {
    pub(super) code: i32,
    pub(super) application: Application,
    pub(super) unplaced: u32,
}

/// Reads everything of the application `name`.
pub(super) fn read(site: &Site, name: &str) -> anyhow::Result<Claims> {
    let from_ms = now_ms();
    let nodes: List<Node> = said(site, &["get", "nodes"])?;
    let mut described_nodes = Vec::new();
    for node in &nodes.items {
        described_nodes.push(said(site, &["describe", "node", node.name.as_str()])?);
    }
    let applications: List<Application> = said(site, &["get", "applications"])?;
    let microservices: List<Microservice> = said(site, &["get", "microservices"])?;
    Ok(Claims {
        nodes: nodes.items,
        described_nodes,
        applications: applications.items,
        detail: said(site, &["describe", "application", name])?,
        microservices: microservices.items,
        site: said(site, &["describe", "site"])?,
        from_ms,
        until_ms: now_ms(),
    })
}

/// Applies a manifest and reads what it said at the end of a wait of `wait`.
pub(super) fn apply(site: &Site, file: &str, wait: &str) -> anyhow::Result<Applied> {
    let wait = format!("--wait={wait}");
    let output = site.haar(&["apply", "-f", file, &wait, "--yes", "--output", "json"])?;
    let value = output
        .json()
        .with_context(|| format!("apply: {}", output.stderr))?;
    let application = serde_json::from_value(value["application"].clone())
        .with_context(|| format!("apply said {value}"))?;
    let unplaced = value["unplaced"].as_array().into_iter().flatten();
    let unplaced = unplaced.filter_map(|one| one["instances"].as_u64());
    Ok(Applied {
        code: output.code,
        application,
        unplaced: u32::try_from(unplaced.sum::<u64>())?,
    })
}

fn said<T: DeserializeOwned>(site: &Site, arguments: &[&str]) -> anyhow::Result<T> {
    let mut all = arguments.to_vec();
    all.extend(["--output", "json"]);
    let output = site.haar(&all)?.ok()?;
    serde_json::from_str(&output.stdout)
        .with_context(|| format!("{arguments:?} said {}", output.stdout))
}

pub(super) fn now_ms() -> u64 {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
