//! The route table: which outlet leads where on this node. The builder compiles it from an
//! assignment; what lives on from table to table is in the [`Registry`](super::registry::Registry).

mod builder;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use haar_protocol::assignment::MicroserviceName;
use haar_protocol::ids::{Name, NodeId};

use super::history::{HistoryPort, Recorder};
use super::inbox::Inbox;
use super::log::{Log, Reader};
use super::logs::LinkPlan;
use super::message::{Entry, RouteCounters, Source};
use super::peer::PeerQueue;
use super::topic_queue::TopicQueue;
use super::topics::BrokerPlan;

pub(super) use builder::Builder;

/// Which outlet leads where. Immutable.
#[derive(Debug, Default)]
pub struct RouteTable {
    ports: HashMap<MicroserviceName, Arc<InstancePorts>>,
    arrivals: HashMap<(NodeId, u64), Vec<Arrival>>,
    recorders: BTreeMap<HistoryPort, Arc<Recorder>>,
    links: BTreeMap<NodeId, LinkPlan>,
    brokers: BTreeMap<Name, BrokerPlan>,
}

/// The outlets of one microservice.
#[derive(Debug, Default)]
pub struct InstancePorts {
    outlets: Vec<(String, Arc<Outlet>)>,
}

/// One outlet with everything that it leads to.
#[derive(Debug)]
pub struct Outlet {
    /// Stamped on every message.
    pub source: Arc<Source>,
    /// Number of the last message, when none of its routes is durable.
    pub sequence: Arc<AtomicU64>,
    /// Where messages go on live routes.
    pub targets: Vec<Target>,
    /// Where messages go first, when one of its routes is durable.
    pub log: Option<Arc<Log>>,
    /// A route of it is durable, and the store could not open its log: nothing can be published.
    pub lacks_log: bool,
    /// Its durable routes.
    pub durable: Vec<DurableRoute>,
    /// What remembers them, when they are kept.
    pub history: Option<Arc<Recorder>>,
}

/// A durable route from an outlet, or from a topic.
#[derive(Debug, Clone)]
pub struct DurableRoute {
    /// What is counted of it here.
    pub counters: Arc<RouteCounters>,
    /// How far it is.
    pub reader: Arc<Reader>,
}

/// One receiver.
#[derive(Debug)]
pub enum Target {
    /// An inlet on this node.
    Local {
        /// Its microservice's inbox.
        inbox: Arc<Inbox>,
        /// The inlet.
        entry: Arc<Entry>,
    },
    /// An inlet on another node.
    Remote {
        /// The queue towards the node.
        queue: Arc<PeerQueue>,
        /// The route.
        counters: Arc<RouteCounters>,
    },
    /// A topic of a broker.
    Topic {
        /// What waits for the topic.
        queue: Arc<TopicQueue>,
        /// The route.
        counters: Arc<RouteCounters>,
    },
}

/// An inlet of this node that a route from another node leads to.
#[derive(Debug)]
pub struct Arrival {
    /// Stamped on every message: from the assignment, not from the frame.
    pub source: Arc<Source>,
    /// The inlet's inbox.
    pub inbox: Arc<Inbox>,
    /// The inlet.
    pub entry: Arc<Entry>,
}

impl RouteTable {
    /// The outlets of a microservice, if it has any.
    pub fn ports(&self, name: &MicroserviceName) -> Option<Arc<InstancePorts>> {
        self.ports.get(name).cloned()
    }

    /// The inlets that the route leads to from that node; none when there is no such route.
    pub fn arrivals(&self, from: &NodeId, route: u64) -> Option<&[Arrival]> {
        self.arrivals.get(&(from.clone(), route)).map(Vec::as_slice)
    }

    /// What records the messages of a port; none when nothing is kept of them.
    pub fn recorder(&self, port: &HistoryPort) -> Option<Arc<Recorder>> {
        self.recorders.get(port).cloned()
    }

    /// The routes to and from other nodes.
    pub fn links(&self) -> &BTreeMap<NodeId, LinkPlan> {
        &self.links
    }

    /// The routes from and to topics, by the relay that has them.
    pub fn brokers(&self) -> &BTreeMap<Name, BrokerPlan> {
        &self.brokers
    }

    /// Everything that records messages.
    pub fn recorders(&self) -> impl Iterator<Item = &Arc<Recorder>> {
        self.recorders.values()
    }
}

impl InstancePorts {
    /// The outlet of that name. A microservice has a handful: a list is faster than a hash.
    pub fn outlet(&self, name: &str) -> Option<&Arc<Outlet>> {
        self.outlets
            .iter()
            .find(|(outlet, _)| outlet == name)
            .map(|(_, outlet)| outlet)
    }
}
