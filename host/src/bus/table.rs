//! The route table: which outlet leads where on this node, compiled from an assignment. Inboxes,
//! sequences and counters live on from table to table in the [`Registry`], which the control loop
//! owns.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use haar_protocol::assignment::{Assignment, Microservice, MicroserviceName, Port, Route};
use haar_protocol::ids::{MediaType, Name, NodeId, RouteId};
use haar_protocol::limits::{Limits, Retention};

use super::history::{Direction, HistoryPort, Recorder, Wakes};
use super::inbox::Inbox;
use super::message::{Entry, RouteCounters, Source};
use super::peer::PeerQueue;

/// Which outlet leads where. Immutable.
#[derive(Debug, Default)]
pub struct RouteTable {
    ports: HashMap<MicroserviceName, Arc<InstancePorts>>,
    arrivals: HashMap<(NodeId, u64), Vec<Arrival>>,
    recorders: BTreeMap<HistoryPort, Arc<Recorder>>,
}

/// The outlets of one microservice.
#[derive(Debug, Default)]
pub struct InstancePorts {
    outlets: Vec<(String, Outlet)>,
}

/// One outlet with everything that it leads to.
#[derive(Debug)]
pub struct Outlet {
    /// Stamped on every message.
    pub source: Arc<Source>,
    /// Number of the last message.
    pub sequence: Arc<AtomicU64>,
    /// Where messages go.
    pub targets: Vec<Target>,
    /// What remembers them, when they are kept.
    pub history: Option<Arc<Recorder>>,
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

    /// Everything that records messages.
    pub fn recorders(&self) -> impl Iterator<Item = &Arc<Recorder>> {
        self.recorders.values()
    }
}

impl InstancePorts {
    /// The outlet of that name. A microservice has a handful: a list is faster than a hash.
    pub fn outlet(&self, name: &str) -> Option<&Outlet> {
        self.outlets
            .iter()
            .find(|(outlet, _)| outlet == name)
            .map(|(_, outlet)| outlet)
    }
}

/// What lives on from table to table. Owned by the control loop.
#[derive(Debug, Default)]
pub struct Registry {
    inboxes: BTreeMap<MicroserviceName, Arc<Inbox>>,
    sequences: BTreeMap<(MicroserviceName, Name), Arc<AtomicU64>>,
    counters: BTreeMap<(RouteId, Name), Arc<RouteCounters>>,
    peers: BTreeMap<NodeId, Arc<PeerQueue>>,
    recorders: BTreeMap<HistoryPort, Arc<Recorder>>,
    wakes: Arc<Wakes>,
}

impl Registry {
    /// What wakes the task that stores histories.
    pub fn wakes(&self) -> Arc<Wakes> {
        Arc::clone(&self.wakes)
    }

    /// The inbox of a microservice, made when it has none yet.
    pub fn inbox(&mut self, name: &MicroserviceName, limits: &Limits) -> Arc<Inbox> {
        let inbox = self
            .inboxes
            .entry(name.clone())
            .or_insert_with(|| Arc::new(Inbox::new(limits.inbox_messages)));
        inbox.set_capacity(limits.inbox_messages);
        Arc::clone(inbox)
    }

    /// The inbox of a microservice that has one.
    pub fn existing_inbox(&self, name: &MicroserviceName) -> Option<&Arc<Inbox>> {
        self.inboxes.get(name)
    }

    /// The counters of all routes, with the name of the node at the other end.
    pub fn counters(&self) -> impl Iterator<Item = (&Name, &RouteCounters)> {
        self.counters
            .iter()
            .map(|((_, peer), counters)| (peer, counters.as_ref()))
    }

    /// The counters of a route towards the node called `peer`.
    pub fn route_counters(&self, route: RouteId, peer: &Name) -> Option<Arc<RouteCounters>> {
        self.counters.get(&(route, peer.clone())).cloned()
    }

    /// The queues towards other nodes.
    pub fn peers(&self) -> impl Iterator<Item = &Arc<PeerQueue>> {
        self.peers.values()
    }

    /// Compiles the table of `assignment`, and forgets what it no longer names.
    pub fn compile(&mut self, assignment: &Assignment) -> RouteTable {
        self.follow_histories(assignment);
        let mut builder = Builder::new(self, assignment);
        for microservice in &assignment.microservices {
            builder.add_outlets(microservice);
        }
        for route in &assignment.routes {
            builder.add_route(route);
        }
        let (table, used) = builder.finish();
        self.forget(assignment, &used);
        table
    }

    /// A recorder for each port that is kept. One lives on as long as nothing changes for its port.
    fn follow_histories(&mut self, assignment: &Assignment) {
        let mut before = std::mem::take(&mut self.recorders);
        for microservice in &assignment.microservices {
            for (port, retention, content_type) in histories(microservice) {
                let recorder = before
                    .remove(&port)
                    .filter(|recorder| {
                        recorder.retention == *retention && recorder.content_type == *content_type
                    })
                    .unwrap_or_else(|| {
                        let (retention, content_type) = (retention.clone(), content_type.clone());
                        let wakes = Arc::clone(&self.wakes);
                        Arc::new(Recorder::new(port.clone(), retention, content_type, wakes))
                    });
                self.recorders.insert(port, recorder);
            }
        }
    }

    fn recorder(
        &self,
        owner: &MicroserviceName,
        direction: Direction,
        port: &Name,
    ) -> Option<Arc<Recorder>> {
        let port = HistoryPort {
            owner: owner.clone(),
            direction,
            port: port.clone(),
        };
        self.recorders.get(&port).cloned()
    }

    fn forget(&mut self, assignment: &Assignment, used: &BTreeSet<(RouteId, Name)>) {
        let here =
            |name: &MicroserviceName| assignment.microservices.iter().any(|one| &one.name == name);
        self.inboxes.retain(|name, inbox| {
            let keep = here(name);
            if !keep {
                inbox.clear();
            }
            keep
        });
        self.sequences.retain(|(name, _), _| here(name));
        self.counters.retain(|key, _| used.contains(key));
        self.peers
            .retain(|node, _| assignment.peers.iter().any(|peer| &peer.id == node));
    }
}

/// The ports of a microservice that are kept, with how much and their types.
pub fn histories(
    microservice: &Microservice,
) -> impl Iterator<Item = (HistoryPort, &Retention, &MediaType)> {
    let inlets = (
        Direction::Inlet,
        &microservice.inlet_history,
        &microservice.inlets,
    );
    let outlets = (
        Direction::Outlet,
        &microservice.outlet_history,
        &microservice.outlets,
    );
    [inlets, outlets]
        .into_iter()
        .flat_map(move |(direction, kept, types)| {
            kept.iter().filter_map(move |(port, retention)| {
                let owner = microservice.name.clone();
                let content_type = types.get(port)?;
                let port = port.clone();
                let port = HistoryPort {
                    owner,
                    direction,
                    port,
                };
                Some((port, retention, content_type))
            })
        })
}

/// Builds one table.
struct Builder<'a> {
    registry: &'a mut Registry,
    assignment: &'a Assignment,
    names: HashMap<&'a NodeId, &'a Name>,
    outlets: BTreeMap<(MicroserviceName, Name), Outlet>,
    arrivals: HashMap<(NodeId, u64), Vec<Arrival>>,
    /// The counters that the table uses.
    used: BTreeSet<(RouteId, Name)>,
}

impl<'a> Builder<'a> {
    fn new(registry: &'a mut Registry, assignment: &'a Assignment) -> Self {
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

    fn add_outlets(&mut self, microservice: &Microservice) {
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
    fn add_route(&mut self, route: &Route) {
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
                self.add_target(route, Target::Remote { queue, counters });
            }
            (false, Some((inbox, entry))) => {
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

    fn add_target(&mut self, route: &Route, target: Target) {
        let key = (route.from.microservice.clone(), route.from.port.clone());
        if let Some(outlet) = self.outlets.get_mut(&key) {
            outlet.targets.push(target);
        }
    }

    fn finish(self) -> (RouteTable, BTreeSet<(RouteId, Name)>) {
        let mut ports: HashMap<MicroserviceName, InstancePorts> = HashMap::new();
        for ((name, outlet_name), outlet) in self.outlets {
            ports
                .entry(name)
                .or_default()
                .outlets
                .push((outlet_name.to_string(), outlet));
        }
        let ports = ports
            .into_iter()
            .map(|(name, ports)| (name, Arc::new(ports)))
            .collect();
        let table = RouteTable {
            ports,
            arrivals: self.arrivals,
            recorders: self.registry.recorders.clone(),
        };
        (table, self.used)
    }
}
