//! The route table: which outlet leads where on this node, compiled from an assignment. What lives on
//! from table to table is in the [`Registry`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use haar_protocol::assignment::{Assignment, Microservice, MicroserviceName, Port, Route};
use haar_protocol::ids::{Name, NodeId, RouteId};
use haar_protocol::manifest::Delivery;

use super::history::{Direction, HistoryPort, Recorder};
use super::inbox::Inbox;
use super::log::{Listener, Log, Reader};
use super::logs::{IncomingStream, LinkPlan, OutgoingStream};
use super::message::{Entry, RouteCounters, Source};
use super::peer::PeerQueue;
use super::registry::Registry;
use super::stream::Stream;
use super::topics::{BrokerPlan, TopicQueue};
use crate::store::log::LogId;

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

/// Builds one table.
pub(super) struct Builder<'a> {
    pub(super) registry: &'a mut Registry,
    pub(super) assignment: &'a Assignment,
    names: HashMap<&'a NodeId, &'a Name>,
    pub(super) outlets: BTreeMap<(MicroserviceName, Name), Outlet>,
    arrivals: HashMap<(NodeId, u64), Vec<Arrival>>,
    links: BTreeMap<NodeId, LinkPlan>,
    pub(super) brokers: BTreeMap<Name, BrokerPlan>,
    /// Who is told of more in a log.
    listeners: BTreeMap<LogId, (Arc<Log>, Vec<Listener>)>,
    /// Durable routes by the microservice where they end.
    pub(super) streams: BTreeMap<MicroserviceName, Vec<Arc<Stream>>>,
    /// The counters that the table uses.
    pub(super) used: BTreeSet<(RouteId, Name)>,
}

impl<'a> Builder<'a> {
    pub(super) fn new(registry: &'a mut Registry, assignment: &'a Assignment) -> Self {
        let mut names: HashMap<&NodeId, &Name> = assignment
            .peers
            .iter()
            .map(|peer| (&peer.id, &peer.name))
            .collect();
        names.insert(&assignment.node, &assignment.node_name);
        Self {
            registry,
            assignment,
            names,
            outlets: BTreeMap::new(),
            arrivals: HashMap::new(),
            links: BTreeMap::new(),
            brokers: BTreeMap::new(),
            listeners: BTreeMap::new(),
            streams: BTreeMap::new(),
            used: BTreeSet::new(),
        }
    }

    fn source(&self, node: &Name, name: &MicroserviceName, outlet: &Name) -> Arc<Source> {
        Arc::new(Source {
            site: self.assignment.site.to_string(),
            node: node.to_string(),
            application: name.application.to_string(),
            microservice: name.microservice.to_string(),
            outlet: outlet.to_string(),
        })
    }

    pub(super) fn add_outlets(&mut self, microservice: &Microservice) {
        for outlet in microservice.outlets.keys() {
            let key = (microservice.name.clone(), outlet.clone());
            let sequence = Arc::clone(self.registry.sequences.entry(key.clone()).or_default());
            let source = self.source(&self.assignment.node_name, &microservice.name, outlet);
            let history = self
                .registry
                .recorder(&microservice.name, Direction::Outlet, outlet);
            self.outlets.insert(
                key,
                Outlet {
                    source,
                    sequence,
                    targets: Vec::new(),
                    log: None,
                    lacks_log: false,
                    durable: Vec::new(),
                    history,
                },
            );
        }
    }

    fn microservice(&self, port: &Port) -> Option<&'a Microservice> {
        let here = port.node == self.assignment.node;
        here.then(|| {
            self.assignment
                .microservices
                .iter()
                .find(|one| one.name == port.microservice)
        })
        .flatten()
    }

    fn counters(&mut self, route: &Route, peer: &Name) -> Arc<RouteCounters> {
        let key = (route.id, peer.clone());
        self.used.insert(key.clone());
        let counters = self
            .registry
            .counters
            .entry(key)
            .or_insert_with(|| Arc::new(RouteCounters::new(route.id)));
        Arc::clone(counters)
    }

    /// A route of which neither end is here, or whose peer has no name, leads nowhere: the
    /// controller has no reason to send one, so it is passed over.
    pub(super) fn add_route(&mut self, route: &Route) {
        let other = if route.from.node == self.assignment.node {
            &route.to.node
        } else {
            &route.from.node
        };
        let Some(peer_name) = self.names.get(other).map(|name| (*name).clone()) else {
            return;
        };
        let counters = self.counters(route, &peer_name);
        let target = self.microservice(&route.to).map(|microservice| {
            let entry = Arc::new(Entry {
                origin: counters.origin,
                inlet: route.to.port.to_string(),
                content_type: route.content_type.to_string(),
                message_bytes_max: microservice.limits.message_size.0,
                expiry_ms: route.backlog.expiry.map(|expiry| expiry.0),
                counters: Arc::clone(&counters),
                history: self.registry.recorder(
                    &microservice.name,
                    Direction::Inlet,
                    &route.to.port,
                ),
            });
            (
                self.registry
                    .inbox(&microservice.name, &microservice.limits),
                entry,
            )
        });
        let from_here = route.from.node == self.assignment.node;
        if route.delivery == Delivery::Durable {
            self.add_durable(route, counters, target.map(|(_, entry)| entry));
            return;
        }
        match (from_here, target) {
            (true, Some((inbox, entry))) => self.add_target(route, Target::Local { inbox, entry }),
            (true, None) if route.to.node != self.assignment.node => {
                let node = route.to.node.clone();
                let queue = self
                    .registry
                    .peers
                    .entry(node.clone())
                    .or_insert_with(|| Arc::new(PeerQueue::new(node)));
                let queue = Arc::clone(queue);
                self.link(&route.to.node).live = Some(Arc::clone(&queue));
                self.add_target(route, Target::Remote { queue, counters });
            }
            (false, Some((inbox, entry))) => {
                self.link(&route.from.node);
                let source = self.source(&peer_name, &route.from.microservice, &route.from.port);
                let key = (route.from.node.clone(), route.id.to_u64());
                self.arrivals.entry(key).or_default().push(Arrival {
                    source,
                    inbox,
                    entry,
                });
            }
            _ => {}
        }
    }

    /// A durable route. What the store could not open leads nowhere, and its outlet refuses.
    fn add_durable(
        &mut self,
        route: &Route,
        counters: Arc<RouteCounters>,
        entry: Option<Arc<Entry>>,
    ) {
        let from_here = route.from.node == self.assignment.node;
        let key = (route.from.microservice.clone(), route.from.port.clone());
        let outlet = self.outlets.get_mut(&key).filter(|_| from_here);
        let Some(opened) = self.registry.logs.find(self.assignment, route) else {
            if let Some(outlet) = outlet {
                outlet.lacks_log = true;
            }
            return;
        };
        let (number, log) = (route.id.to_u64(), opened.log);
        let expiry_ms = route.backlog.expiry.map(|expiry| expiry.0);
        if let Some(outlet) = outlet {
            outlet.log = Some(Arc::clone(&log));
            outlet.durable.push(DurableRoute {
                counters: Arc::clone(&counters),
                reader: Arc::clone(&opened.reader),
            });
        } else if !from_here {
            let link = self.link(&route.from.node);
            link.incoming.push(IncomingStream {
                route: number,
                log: Arc::clone(&log),
            });
            let arrived = Arc::clone(&link.arrived);
            self.listen(&log, Listener::Link(arrived));
        }
        match (entry, self.microservice(&route.to)) {
            (Some(entry), Some(microservice)) => {
                let stream = self.registry.logs.stream(&opened.reader, entry);
                let name = microservice.name.clone();
                let inbox = self.registry.inbox(&name, &microservice.limits);
                self.streams.entry(name).or_default().push(stream);
                self.listen(&log, Listener::Inbox(inbox));
            }
            _ if route.to.node != self.assignment.node => {
                let link = self.link(&route.to.node);
                link.outgoing.push(OutgoingStream {
                    route: number,
                    reader: opened.reader,
                    priority: route.backlog.priority,
                    expiry_ms,
                    counters,
                });
                let arrived = Arc::clone(&link.arrived);
                self.listen(&log, Listener::Link(arrived));
            }
            _ => {}
        }
    }

    fn link(&mut self, node: &NodeId) -> &mut LinkPlan {
        let arrived = self.registry.logs.link(node);
        self.links.entry(node.clone()).or_insert_with(|| LinkPlan {
            arrived,
            ..LinkPlan::default()
        })
    }

    pub(super) fn listen(&mut self, log: &Arc<Log>, listener: Listener) {
        let (_, listeners) = self
            .listeners
            .entry(log.id)
            .or_insert_with(|| (Arc::clone(log), Vec::new()));
        listeners.push(listener);
    }

    fn add_target(&mut self, route: &Route, target: Target) {
        let key = (route.from.microservice.clone(), route.from.port.clone());
        if let Some(outlet) = self.outlets.get_mut(&key) {
            outlet.targets.push(target);
        }
    }

    pub(super) fn finish(mut self) -> (RouteTable, BTreeSet<(RouteId, Name)>) {
        for (log, listeners) in self.listeners.into_values() {
            log.set_listeners(listeners);
        }
        for (name, inbox) in &self.registry.inboxes {
            inbox.set_streams(self.streams.remove(name).unwrap_or_default());
        }
        let mut ports: HashMap<MicroserviceName, InstancePorts> = HashMap::new();
        for ((name, outlet_name), outlet) in self.outlets {
            ports
                .entry(name)
                .or_default()
                .outlets
                .push((outlet_name.to_string(), Arc::new(outlet)));
        }
        let ports = ports
            .into_iter()
            .map(|(name, ports)| (name, Arc::new(ports)))
            .collect();
        let table = RouteTable {
            ports,
            arrivals: self.arrivals,
            recorders: self.registry.recorders.clone(),
            links: self.links,
            brokers: self.brokers,
        };
        (table, self.used)
    }
}
