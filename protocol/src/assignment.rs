//! Everything that one node must run: a complete, numbered snapshot, signed by the site.
//! The controller compiles it, the relay keeps it retained, the node verifies and stores it
//! before acting on it.

mod decode;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::demand::Demand;
use crate::grants::Grants;
use crate::ids::{Digest, MediaType, Name, NodeId, RouteId, SiteId};
use crate::keys::{LinkKey, PublicKey};
use crate::limits::{Backlog, Limits, RestartPolicy, Retention, RetryPolicy};
use crate::log::Level;
use crate::manifest::Delivery;
use crate::mqtt::{Retained, TopicFilter, TopicName};
use crate::quantity::ByteSize;
use crate::relay::{RelayAccess, ServedRelay};
use crate::signed::Document;

/// The assignment of one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "decode::Wire")]
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
    /// Publishers whose modules may run. One with several keys stands here once for each.
    pub publishers: Vec<Publisher>,
    /// Signatures of modules that publishers made after the file was pushed, by the module's digest: see
    /// [`Signatures::to_text`](crate::module::Signatures::to_text). They count like those in the file.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub signatures: BTreeMap<String, String>,
    /// The relays that the node attaches to, the most preferred first. None: the one that it knows
    /// since it enrolled.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub relays: Vec<RelayAccess>,
    /// The relays that it runs for its neighbours.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub serves: Vec<ServedRelay>,
    /// The least generation of the node's key for links: a node whose key is older makes another one.
    pub link_key_generation: u64,
    /// Nodes that this one exchanges messages with.
    pub peers: Vec<Peer>,
    /// What runs, sorted by application and name.
    pub microservices: Vec<Microservice>,
    /// The routes that begin or end here, sorted by id and ends.
    pub routes: Vec<Route>,
    /// The routes between microservices that run here and topics of brokers, sorted by id.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub topics: Vec<TopicRoute>,
    /// How to reach the relays whose topics `topics` names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub brokers: Vec<RelayAccess>,
    /// The lives of its microservices, as `APPLICATION/MICROSERVICE`: what is stored belongs to one
    /// life. Left out of it are first lives, which are 0. None from controllers that know of no
    /// lives: then what is stored belongs to the name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lives: Option<BTreeMap<String, u64>>,
    /// Microservices that ran here and that somebody has deleted, likewise: what is stored of them
    /// is deleted too.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ended: Vec<String>,
}

impl Document for Assignment {
    const KIND: u8 = 1;
    const VERSION: u8 = 1;
    const WHAT: &'static str = "assignment";
}

impl Assignment {
    /// What all of it sets aside of the node.
    pub fn demand(&self) -> Demand {
        let microservices = self.microservices.iter().map(Microservice::demand);
        let logs = self.outlet_logs().into_values();
        let logs = logs.map(|backlogs| Demand::of_outlet_log(backlogs.into_iter()));
        let arrivals = self
            .routes
            .iter()
            .filter(|route| route.delivery == Delivery::Durable && route.from.node != self.node)
            .map(|_| Demand::of_arrivals());
        let of_devices = self.topics.iter().filter(|route| {
            route.delivery == Delivery::Durable && matches!(route.topic, TopicEnd::From(_))
        });
        let topics =
            of_devices.map(|route| Demand::of_outlet_log(std::iter::once(route.backlog.size)));
        microservices
            .chain(logs)
            .chain(topics)
            .chain(arrivals)
            .fold(Demand::default(), Demand::plus)
    }

    /// The outlets of this node that have a log, with the sizes that their routes say.
    fn outlet_logs(&self) -> BTreeMap<(&MicroserviceName, &Name), Vec<ByteSize>> {
        let mut logs: BTreeMap<_, Vec<ByteSize>> = BTreeMap::new();
        for route in &self.routes {
            if route.delivery == Delivery::Durable && route.from.node == self.node {
                let outlet = (&route.from.microservice, &route.from.port);
                logs.entry(outlet).or_default().push(route.backlog.size);
            }
        }
        for route in &self.topics {
            if route.delivery == Delivery::Durable && matches!(route.topic, TopicEnd::To(_)) {
                let outlet = (&route.microservice, &route.port);
                logs.entry(outlet).or_default().push(route.backlog.size);
            }
        }
        logs
    }
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
    /// The relays that both nodes attach to, the most preferred first. None: the one that nodes
    /// know since they enrolled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub relays: Vec<Name>,
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
///
/// A field that is added after the first release, here or in a part, is left out when it says what
/// holds without it: agents that do not know it refuse only the microservices that use it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
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
    pub log_level: Level,
    /// What happens after a failure.
    pub restart: RestartPolicy,
    /// What happens to a message that was not handled.
    pub retry: RetryPolicy,
    /// How much is kept of what enters inlets; nothing of those that are not named.
    pub inlet_history: BTreeMap<Name, Retention>,
    /// How much is kept of what outlets publish.
    pub outlet_history: BTreeMap<Name, Retention>,
    /// What this release does not know of it and of its routes, such as "the grant `camera`". It must
    /// not run. Empty on the side that writes the assignment.
    #[serde(skip)]
    pub unknown: Vec<String>,
    /// The life that its data belong to; none when the site does not tell. It crosses in
    /// [`Assignment::lives`].
    #[serde(skip)]
    pub life: Option<u64>,
}

impl Microservice {
    /// What it sets aside of the node, beside the logs of its routes.
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
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
    pub backlog: Backlog,
}

/// A route between an instance of this node and a topic of a broker. The node talks to the broker
/// itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TopicRoute {
    /// The route of the manifest that it belongs to.
    pub id: RouteId,
    /// The relay that has the topic, among the assignment's brokers.
    pub relay: Name,
    /// The topic, and which way messages go.
    #[serde(flatten)]
    pub topic: TopicEnd,
    /// The microservice.
    #[serde(flatten)]
    pub microservice: MicroserviceName,
    /// Its inlet, or its outlet.
    pub port: Name,
    /// The only type that passes.
    pub content_type: MediaType,
    /// How messages are kept on their way.
    pub delivery: Delivery,
    /// What becomes of those that can't be delivered yet, on a durable route.
    pub backlog: Backlog,
    /// What becomes of messages that the broker retains; none for what is usual.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retained: Option<Retained>,
}

/// The end of a route at a broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TopicEnd {
    /// Messages come from topics that the filter matches.
    From(TopicFilter),
    /// Messages go to a topic.
    To(TopicTarget),
}

/// Where messages go at a broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicTarget {
    /// The topic.
    pub topic: TopicName,
    /// Whether the broker keeps the last message for later subscribers.
    #[serde(default)]
    pub retain: bool,
    /// What the broker publishes there when the node is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub will: Option<String>,
}

impl TopicEnd {
    /// True when messages come from it.
    pub fn is_source(&self) -> bool {
        matches!(self, TopicEnd::From(_))
    }
}

impl std::fmt::Display for TopicEnd {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            TopicEnd::From(filter) => write!(formatter, "mqtt:{filter}"),
            TopicEnd::To(target) => write!(formatter, "mqtt:{}", target.topic),
        }
    }
}
