//! Compiles a route table from an assignment: outlets, the routes that lead on from them, and what
//! arrives from other nodes. What must outlive the table it takes out of the [`Registry`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use haar_protocol::assignment::{Assignment, Microservice, MicroserviceName, Port, Route};
use haar_protocol::ids::{Name, NodeId, RouteId};
use haar_protocol::manifest::Delivery;

use super::{Arrival, DurableRoute, InstancePorts, Outlet, RouteTable, Target};
use crate::bus::history::Direction;
use crate::bus::log::{Listener, Log};
use crate::bus::logs::{IncomingStream, LinkPlan, OutgoingStream};
use crate::bus::message::{Entry, RouteCounters, Source};
use crate::bus::peer::PeerQueue;
use crate::bus::registry::Registry;
use crate::bus::stream::Stream;
use crate::bus::topics::BrokerPlan;
use crate::store::log::LogId;

/// Builds one table. What routes from and to topics add stands in `topic_routes`.
pub(in crate::bus) struct Builder<'a> {
    pub(in crate::bus) registry: &'a mut Registry,
    pub(in crate::bus) assignment: &'a Assignment,
    names: HashMap<&'a NodeId, &'a Name>,
    pub(in crate::bus) outlets: BTreeMap<(MicroserviceName, Name), Outlet>,
    arrivals: HashMap<(NodeId, u64), Vec<Arrival>>,
    links: BTreeMap<NodeId, LinkPlan>,
    pub(in crate::bus) brokers: BTreeMap<Name, BrokerPlan>,
    /// Who is told of more in a log.
    listeners: BTreeMap<LogId, (Arc<Log>, Vec<Listener>)>,
    /// Durable routes by the microservice where they end.
    pub(in crate::bus) streams: BTreeMap<MicroserviceName, Vec<Arc<Stream>>>,
    /// The counters that the table uses.
    pub(in crate::bus) used: BTreeSet<(RouteId, Name)>,
}

impl<'a> Builder<'a> {
    pub(in crate::bus) fn new(registry: &'a mut Registry, assignment: &'a Assignment) -> Self {
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

    pub(in crate::bus) fn add_outlets(&mut self, microservice: &Microservice) {
        for outlet in microservice.outlets.keys() {
            let key = (microservice.name.clone(), outlet.clone());
            let sequence = self.registry.sequence(key.clone());
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
    pub(in crate::bus) fn add_route(&mut self, route: &Route) {
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

    pub(in crate::bus) fn listen(&mut self, log: &Arc<Log>, listener: Listener) {
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

    pub(in crate::bus) fn finish(mut self) -> (RouteTable, BTreeSet<(RouteId, Name)>) {
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
