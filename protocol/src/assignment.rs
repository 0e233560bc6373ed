//! Everything that one node must run: a complete, numbered snapshot, signed by the site.
//! The controller compiles it, the relay keeps it retained, the node verifies and stores it
//! before acting on it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::demand::{self, Demand};
use crate::grants::Grants;
use crate::ids::{Digest, MediaType, Name, NodeId, RouteId, SiteId};
use crate::keys::{LinkKey, PublicKey};
use crate::limits::{Backlog, Limits, RestartPolicy, Retention, RetryPolicy};
use crate::log::Level;
use crate::manifest::Delivery;
use crate::signed::Document;

/// The assignment of one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// The site that it comes from.
    pub site: SiteId,
    /// The node that it is for.
    pub node: NodeId,
    /// The node's name in the site.
    pub node_name: Name,
    /// The node's labels.
    pub labels: BTreeMap<String, String>,
    /// Counts the assignments of this node, from 1 up. A node refuses a number lower than the
    /// one it has, and a second assignment of the same number with other content.
    pub number: u64,
    /// When it was made: milliseconds since the Unix epoch by the controller's clock.
    pub issued_ms: u64,
    /// Publishers whose modules may run.
    pub publishers: Vec<Publisher>,
    /// The least generation of the node's key for links: a node whose key is older makes another one.
    #[serde(default)]
    pub link_key_generation: u64,
    /// Nodes that this one exchanges messages with.
    pub peers: Vec<Peer>,
    /// What runs, sorted by application and name.
    pub microservices: Vec<Microservice>,
    /// The routes that begin or end here, sorted by id and ends.
    pub routes: Vec<Route>,
}

impl Document for Assignment {
    const KIND: u8 = 1;
    const VERSION: u8 = 1;
    const WHAT: &'static str = "assignment";
}

/// A trusted publisher of modules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Publisher {
    /// Its name in the site.
    pub name: Name,
    /// Its key.
    pub key: PublicKey,
}

/// Another node of the site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Its id.
    pub id: NodeId,
    /// Its name in the site.
    pub name: Name,
    /// Its key for links, once it has told the site: without it nothing passes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_key: Option<LinkKey>,
}

/// Names an instance on a node: application and microservice.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct MicroserviceName {
    /// The application.
    pub application: Name,
    /// The microservice in it.
    pub microservice: Name,
}

impl std::fmt::Display for MicroserviceName {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}/{}", self.application, self.microservice)
    }
}

/// One microservice that the node must run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Microservice {
    /// What it is called.
    #[serde(flatten)]
    pub name: MicroserviceName,
    /// The module's digest: what is fetched and verified.
    pub module: Digest,
    /// The module's size in bytes: how much is fetched at most.
    pub module_bytes: u64,
    /// The module's name and version, for people.
    pub module_label: String,
    /// What it may use.
    pub limits: Limits,
    /// What it may reach.
    pub grants: Grants,
    /// Values behind `wasi:config`.
    pub configuration: BTreeMap<String, String>,
    /// Ways out with their media types.
    pub outlets: BTreeMap<Name, MediaType>,
    /// Ways in with their media types.
    pub inlets: BTreeMap<Name, MediaType>,
    /// Log lines below this level are not taken.
    #[serde(default)]
    pub log_level: Level,
    /// What happens after a failure.
    #[serde(default)]
    pub restart: RestartPolicy,
    /// What happens to a message that was not handled.
    #[serde(default)]
    pub retry: RetryPolicy,
    /// How much is kept of what enters inlets; nothing of those that are not named.
    #[serde(default)]
    pub inlet_history: BTreeMap<Name, Retention>,
    /// How much is kept of what outlets publish.
    #[serde(default)]
    pub outlet_history: BTreeMap<Name, Retention>,
}

impl Microservice {
    /// Bytes that it may store on the node in all: key-value data, private files, histories.
    pub fn storage_bytes(&self) -> u64 {
        demand::storage_bytes(&self.limits, &self.grants, self.histories())
    }

    /// What it sets aside of the node.
    pub fn demand(&self) -> Demand {
        Demand::of(&self.limits, &self.grants, self.histories())
    }

    fn histories(&self) -> impl Iterator<Item = &Retention> {
        self.inlet_history
            .values()
            .chain(self.outlet_history.values())
    }
}

/// One end of a route: a port on a node.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Port {
    /// The node.
    pub node: NodeId,
    /// The microservice.
    #[serde(flatten)]
    pub microservice: MicroserviceName,
    /// The outlet or inlet.
    pub port: Name,
}

/// A route from one instance to one other. A route of a manifest becomes as many of these as
/// there are pairs of instances; they share the id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The route of the manifest that it belongs to.
    pub id: RouteId,
    /// Where messages come from.
    pub from: Port,
    /// Where they go.
    pub to: Port,
    /// The only type that passes.
    pub content_type: MediaType,
    /// How messages are kept on their way.
    pub delivery: Delivery,
    /// What becomes of those that can't be delivered yet, on a durable route.
    #[serde(default)]
    pub backlog: Backlog,
}
