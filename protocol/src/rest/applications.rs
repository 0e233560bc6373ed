//! Applications in the API: what an apply did, and the instances and routes that came of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Difference, Loss};
use crate::assignment::MicroserviceName;
use crate::ids::{Digest, MediaType, Name, RouteId};
use crate::manifest::{Delivery, Manifest};
use crate::rest::{Health, HealthCount, Unplaced};
use crate::status::{MicroserviceStatus, State};

/// An application as lists show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Application {
    /// Its name.
    pub name: Name,
    /// Counts the times that it was applied with a change.
    pub revision: u64,
    /// When it was last applied: milliseconds since the Unix epoch.
    pub applied_ms: u64,
    /// How many instances it should have, with those that have no place.
    pub instances: u32,
    /// How many of them run, as reports tell that are not old.
    pub running: u32,
    /// How many have no place; they count as failed too.
    #[serde(default)]
    pub without_place: u32,
    /// Its instances by their health.
    #[serde(default)]
    pub count: HealthCount,
    /// How it does.
    #[serde(default)]
    pub health: Health,
}

/// Everything about an application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ApplicationDetail {
    /// As lists show it.
    #[serde(flatten)]
    pub application: Application,
    /// Its manifest, with defaults filled in.
    pub manifest: Manifest,
    /// Its instances.
    pub microservices: Vec<Microservice>,
    /// Instances that have no place.
    #[serde(default)]
    pub unplaced: Vec<Unplaced>,
    /// Its routes.
    pub routes: Vec<Route>,
}

/// What an apply did, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ApplyResult {
    /// The application.
    pub name: Name,
    /// Its revision now; on a dry run the one that it would have.
    pub revision: u64,
    /// False when the manifest is what was applied before and nothing moved.
    pub changed: bool,
    /// True when nothing was done.
    pub dry_run: bool,
    /// Where each instance runs.
    pub placements: Vec<Placement>,
    /// In what the application differs from what was applied before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub differences: Vec<Difference>,
    /// What stops or is lost with it; only told of a dry run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub losses: Vec<Loss>,
    /// Instances that have no place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unplaced: Vec<Unplaced>,
    /// Things that work but may not be meant, for people.
    pub warnings: Vec<String>,
    /// New assignment numbers by node; empty on a dry run.
    pub assignments: BTreeMap<Name, u64>,
}

/// An instance and its node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Placement {
    /// The microservice.
    pub microservice: Name,
    /// The node.
    pub node: Name,
}

/// Over which time counters have counted, by the controller's clock: milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Counted {
    /// Since when: since the node's agent started, or what is counted was put in force there.
    pub since_ms: u64,
    /// Until when: the node's last report.
    pub until_ms: u64,
}

/// One instance: what should be, and what its node last said of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Microservice {
    /// What it is called.
    #[serde(flatten)]
    pub name: MicroserviceName,
    /// Its node.
    pub node: Name,
    /// Whether the node is connected.
    pub node_online: bool,
    /// The module that it should run.
    pub module: Digest,
    /// The module's name and version.
    pub module_label: String,
    /// False when the site no longer wants it and the node still reports it.
    pub wanted: bool,
    /// How it does now. What follows is what the node last said, however long ago.
    #[serde(default)]
    pub health: Health,
    /// When the node's last status was received: milliseconds since the Unix epoch by the
    /// controller's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reported_ms: Option<u64>,
    /// What the node last said; none when it has said nothing of it yet.
    pub status: Option<MicroserviceStatus>,
    /// Over which time its counters have counted; none when the node has said nothing of it yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counted: Option<Counted>,
    /// True when its node's last status had no room for it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub omitted: bool,
}

impl Microservice {
    /// The state that its node reported last, or `preparing` before the node's first word. Old when
    /// `health` says so.
    pub fn state(&self) -> State {
        self.status
            .as_ref()
            .map_or(State::Preparing, |status| status.state)
    }
}

/// A route of an application with the sums of its counters over all nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Route {
    /// Its id.
    pub id: RouteId,
    /// The application.
    pub application: Name,
    /// `MICROSERVICE.OUTLET`, or `mqtt:FILTER`.
    pub from: String,
    /// `MICROSERVICE.INLET`, or `mqtt:TOPIC`.
    pub to: String,
    /// The relay that has the topic, when one end is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay: Option<Name>,
    /// The only type that passes.
    pub content_type: MediaType,
    /// How messages are kept.
    pub delivery: Delivery,
    /// Nodes with an instance of the source.
    pub from_nodes: Vec<Name>,
    /// Nodes with an instance of the target.
    pub to_nodes: Vec<Name>,
    /// Messages that entered, each counted once for every receiver.
    pub sent: u64,
    /// Messages that reached an inbox.
    pub delivered: u64,
    /// Messages that a handler acknowledged.
    pub handled: u64,
    /// Messages that were dropped.
    pub dropped: u64,
    /// Messages that wait on it, if it is durable.
    #[serde(default)]
    pub waiting: u64,
    /// The nodes that have counted, each with the time over which it did. Sums of nodes that have counted
    /// over different times do not add up.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub counted: BTreeMap<Name, Counted>,
    /// Nodes at an end of it whose last report does not mention it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uncounted: Vec<Name>,
    /// On which nodes it does not do all that its manifest says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<RouteProblem>,
}

/// What a node says of a route that does not do all that its manifest says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RouteProblem {
    /// The node.
    pub node: Name,
    /// Why, for a person.
    pub problem: String,
}
