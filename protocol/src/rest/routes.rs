//! A route as `describe` shows it: each pair of its ends, with what the nodes have counted there.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Counted, Health, Route};
use crate::ids::Name;
use crate::status::BacklogStatus;

/// Pairs of a route that are told; of more only the worst.
pub const ROUTE_PAIRS_TOLD_MAX: usize = 1_000;

/// Everything about a route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RouteDetail {
    /// As lists show it.
    #[serde(flatten)]
    pub route: Route,
    /// How it does.
    pub health: Health,
    /// Its pairs of ends, by name; of more than 1,000 only the worst.
    pub pairs: Vec<RoutePair>,
    /// How many more pairs it has. None of them does worse than those in `pairs`.
    #[serde(default)]
    pub pairs_omitted: u64,
    /// The logs of its outlet, by node, if it is durable. Other routes of the outlet wait in them too.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub backlogs: BTreeMap<Name, BacklogStatus>,
    /// What became of messages at the microservice where it ends, by node.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub receivers: BTreeMap<Name, RouteReceiver>,
}

/// Two ends between which messages of a route pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RoutePair {
    /// Where messages come from: a node, or the relay that has the topic.
    pub from: Name,
    /// Where they go, likewise.
    pub to: Name,
    /// The relays over which they can pass, the most preferred first; none within one node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub relays: Vec<RouteRelay>,
    /// How the pair does.
    pub health: Health,
    /// What its nodes have counted of it, by node.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub reports: BTreeMap<Name, RouteReport>,
}

/// A relay between two ends of a route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RouteRelay {
    /// Its name.
    pub name: Name,
    /// Whether all nodes of the pair are connected to it, as they last reported; none when one has not
    /// told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connected: Option<bool>,
}

/// What a node has counted of one pair of a route's ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RouteReport {
    /// Over which time.
    pub counted: Counted,
    /// Messages that entered there.
    pub sent: u64,
    /// Messages that were put into an inbox there.
    pub delivered: u64,
    /// Messages that a handler acknowledged there.
    pub handled: u64,
    /// Messages that were dropped there.
    pub dropped: u64,
    /// Messages that wait there: to be acknowledged by the other node, or to be handled.
    pub waiting: u64,
    /// Why the route does not do all that its manifest says, for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Since when: milliseconds since the Unix epoch by the controller's clock. None from agents of
    /// earlier releases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem_since_ms: Option<u64>,
}

/// What became of messages of all inlets of a microservice on one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RouteReceiver {
    /// Over which time `discarded` was counted.
    pub counted: Counted,
    /// Messages that were discarded for good: its handler said so, or they are larger than it takes.
    pub discarded: u64,
    /// Dead letters that are kept there.
    pub dead_letters: u64,
}
