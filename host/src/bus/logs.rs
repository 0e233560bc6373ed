//! The logs that an assignment needs, and what is in use of them from route table to route table.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use haar_protocol::assignment::{Assignment, MicroserviceName, Route, TopicEnd, TopicRoute};
use haar_protocol::demand::{ARRIVAL_LOG_BYTES, Demand};
use haar_protocol::ids::{Name, NodeId};
use haar_protocol::limits::{Backlog, WhenFull};
use haar_protocol::manifest::Delivery;
use tokio::sync::Notify;

use super::log::{Bases, Held, Log, Reader};
use super::message::{Entry, RouteCounters, Source};
use super::peer::PeerQueue;
use super::stream::Stream;
use super::topics;
use crate::store::log::{Consumer, LogId, LogName, OpenLog, WantedLog};

/// What is in use. One for the agent.
#[derive(Debug, Default)]
pub struct Logs {
    logs: BTreeMap<(MicroserviceName, LogName), Arc<Log>>,
    readers: BTreeMap<(LogId, Consumer), Arc<Reader>>,
    streams: BTreeMap<(LogId, Consumer), Arc<Stream>>,
    links: BTreeMap<NodeId, Arc<Notify>>,
    brokers: BTreeMap<Name, Arc<Notify>>,
    /// Outlets whose logs are in use no more, with the last numbers of these.
    dropped: Vec<((MicroserviceName, Name), u64)>,
    bases: Arc<Bases>,
    held: Held,
}

/// The routes between this node and another.
#[derive(Debug, Clone, Default)]
pub struct LinkPlan {
    /// Told when there is more to send, or room for more.
    pub arrived: Arc<Notify>,
    /// What waits for the other node on live routes, when there are such.
    pub live: Option<Arc<PeerQueue>>,
    /// Durable routes to the other node.
    pub outgoing: Vec<OutgoingStream>,
    /// Durable routes from the other node.
    pub incoming: Vec<IncomingStream>,
}

/// A durable route to another node.
#[derive(Debug, Clone)]
pub struct OutgoingStream {
    /// Number of the route.
    pub route: u64,
    /// The outlet's log, and how far the other node is.
    pub reader: Arc<Reader>,
    /// Routes of a higher one are sent first.
    pub priority: u8,
    /// Messages that are older than so many milliseconds are not sent.
    pub expiry_ms: Option<u64>,
    /// What is counted of the route here.
    pub counters: Arc<RouteCounters>,
}

/// A durable route from another node.
#[derive(Debug, Clone)]
pub struct IncomingStream {
    /// Number of the route.
    pub route: u64,
    /// Where its messages are kept until they are handled.
    pub log: Arc<Log>,
}

/// The log that a route needs on this node, with who owns it and who consumes it.
fn needed(assignment: &Assignment, route: &Route) -> Option<(MicroserviceName, LogName, Consumer)> {
    if route.delivery != Delivery::Durable {
        return None;
    }
    let number = route.id.to_u64();
    let (owner, name) = if route.from.node == assignment.node {
        let outlet = LogName::Outlet(route.from.port.clone());
        (route.from.microservice.clone(), outlet)
    } else {
        let arrival = LogName::Arrival {
            route: number,
            from: route.from.node.clone(),
        };
        (route.to.microservice.clone(), arrival)
    };
    let consumer = Consumer {
        route: number,
        node: route.to.node.clone(),
    };
    Some((owner, name, consumer))
}

/// The same of a route from or to a topic.
fn needed_by_topic(
    assignment: &Assignment,
    route: &TopicRoute,
) -> Option<(MicroserviceName, LogName, Consumer)> {
    if route.delivery != Delivery::Durable {
        return None;
    }
    let number = route.id.to_u64();
    let name = match &route.topic {
        TopicEnd::From(_) => LogName::Topic { route: number },
        TopicEnd::To(_) => LogName::Outlet(route.port.clone()),
    };
    let consumer = Consumer {
        route: number,
        node: assignment.node.clone(),
    };
    Some((route.microservice.clone(), name, consumer))
}

/// What the durable routes of an assignment need: owner and name of a log, who consumes it, and how
/// much may wait in it.
fn needs(
    assignment: &Assignment,
) -> impl Iterator<Item = (MicroserviceName, LogName, Consumer, &Backlog)> {
    let routes = assignment.routes.iter().filter_map(|route| {
        let (owner, name, consumer) = needed(assignment, route)?;
        Some((owner, name, consumer, &route.backlog))
    });
    let topics = assignment.topics.iter().filter_map(|route| {
        let (owner, name, consumer) = needed_by_topic(assignment, route)?;
        Some((owner, name, consumer, &route.backlog))
    });
    routes.chain(topics)
}

/// The logs that the assignment needs.
pub fn wanted(assignment: &Assignment) -> Vec<WantedLog> {
    let mut wanted: BTreeMap<(MicroserviceName, LogName), Vec<Consumer>> = BTreeMap::new();
    for (owner, name, consumer, _) in needs(assignment) {
        wanted.entry((owner, name)).or_default().push(consumer);
    }
    wanted
        .into_iter()
        .map(|((owner, name), consumers)| WantedLog {
            owner,
            name,
            consumers,
        })
        .collect()
}

/// How many bytes the routes of an outlet let its log have, and whether the oldest messages make room
/// when they are not enough.
fn backlog(assignment: &Assignment, log: &WantedLog) -> (u64, bool) {
    let is_its =
        |owner: &MicroserviceName, name: &LogName| owner == &log.owner && name == &log.name;
    let needs = needs(assignment).filter(|(owner, name, ..)| is_its(owner, name));
    let backlogs: Vec<&Backlog> = needs.map(|(_, _, _, backlog)| backlog).collect();
    let demand = Demand::of_outlet_log(backlogs.iter().map(|backlog| backlog.size));
    let drops = |backlog: &&Backlog| backlog.when_full == WhenFull::DropOldest;
    (demand.storage, backlogs.iter().all(drops))
}

/// Where the messages of a log come from, as their receivers see it.
fn source(assignment: &Assignment, log: &WantedLog) -> Arc<Source> {
    let of_port = |node: &Name, microservice: &MicroserviceName, outlet: &Name| Source {
        site: assignment.site.to_string(),
        node: node.to_string(),
        application: microservice.application.to_string(),
        microservice: microservice.microservice.to_string(),
        outlet: outlet.to_string(),
    };
    let source = match &log.name {
        LogName::Outlet(outlet) => Some(of_port(&assignment.node_name, &log.owner, outlet)),
        LogName::Topic { route } => {
            let is_it =
                |one: &&TopicRoute| one.id.to_u64() == *route && one.microservice == log.owner;
            let found = assignment.topics.iter().find(is_it);
            found.map(|route| topics::source(assignment, route))
        }
        LogName::Arrival { route, from } => {
            let is_it = |one: &&Route| one.id.to_u64() == *route && &one.from.node == from;
            let found = assignment
                .routes
                .iter()
                .find(is_it)
                .map(|route| &route.from);
            let peer = assignment.peers.iter().find(|peer| &peer.id == from);
            let node = peer.map_or(&assignment.node_name, |peer| &peer.name);
            found.map(|from| of_port(node, &from.microservice, &from.port))
        }
    };
    Arc::new(source.unwrap_or_default()) // it was made from the same assignment
}

/// A log of an assignment, as it is used for one route.
pub(super) struct Use {
    pub(super) log: Arc<Log>,
    pub(super) reader: Arc<Reader>,
}

impl Logs {
    /// What tells how far consumers are.
    pub fn bases(&self) -> Arc<Bases> {
        Arc::clone(&self.bases)
    }

    /// The logs of outlets, with their owners and the outlets' names.
    pub fn outlets(&self) -> impl Iterator<Item = (&MicroserviceName, &Name, &Log)> {
        self.logs
            .iter()
            .filter_map(|((owner, name), log)| match name {
                LogName::Outlet(outlet) => Some((owner, outlet, log.as_ref())),
                LogName::Arrival { .. } | LogName::Topic { .. } => None,
            })
    }

    /// Takes what the store has opened into use, each with where its messages come from, and forgets
    /// what is not among it.
    pub fn follow(
        &mut self,
        wanted: Vec<WantedLog>,
        opened: Vec<OpenLog>,
        assignment: &Assignment,
    ) {
        let mut readers = BTreeSet::new();
        let mut names = BTreeSet::new();
        for (wanted, opened) in wanted.into_iter().zip(opened) {
            let source = source(assignment, &wanted);
            let (limit, drops_oldest) = match wanted.name {
                LogName::Outlet(_) | LogName::Topic { .. } => backlog(assignment, &wanted),
                LogName::Arrival { .. } => (ARRIVAL_LOG_BYTES, false),
            };
            let key = (wanted.owner, wanted.name);
            let known = self.logs.get(&key).filter(|log| log.id == opened.id);
            let log = match known {
                Some(log) => {
                    log.release(opened.deleted);
                    Arc::clone(log)
                }
                None => Arc::new(Log::new(&opened, source, limit, self.held.clone())),
            };
            log.set_limit(limit, drops_oldest);
            for (consumer, (base, _)) in wanted.consumers.into_iter().zip(opened.consumers) {
                let key = (log.id, consumer);
                readers.insert(key.clone());
                let bases = Arc::clone(&self.bases);
                self.readers.entry(key).or_insert_with_key(|(_, consumer)| {
                    Arc::new(Reader::new(Arc::clone(&log), consumer.clone(), base, bases))
                });
            }
            names.insert(key.clone());
            self.logs.insert(key, log);
        }
        let dropped = &mut self.dropped;
        self.logs.retain(|key, log| {
            let keep = names.contains(key);
            if let (false, (owner, LogName::Outlet(outlet))) = (keep, key) {
                dropped.push(((owner.clone(), outlet.clone()), log.head()));
            }
            keep
        });
        self.readers.retain(|key, _| readers.contains(key));
        self.streams.retain(|key, stream| {
            let keep = readers.contains(key);
            if !keep {
                stream.close();
            }
            keep
        });
    }

    /// Outlets that have no log any more, with the last numbers that they gave.
    pub(super) fn take_dropped(&mut self) -> Vec<((MicroserviceName, Name), u64)> {
        std::mem::take(&mut self.dropped)
    }

    /// True when the log is in use.
    pub(super) fn has(&self, owner: &MicroserviceName, name: &LogName) -> bool {
        self.logs.contains_key(&(owner.clone(), name.clone()))
    }

    /// The highest number of a message in a log to which this node appends.
    pub fn highest_head(&self) -> u64 {
        let own = self.logs.iter().filter(|((_, name), _)| name.is_own());
        own.map(|(_, log)| log.head()).max().unwrap_or(0)
    }

    /// How many messages wait on each durable route: its number, and the node at its other end.
    pub fn waiting(&self) -> impl Iterator<Item = (u64, &NodeId, u64)> {
        let names: BTreeMap<LogId, &LogName> = self
            .logs
            .iter()
            .map(|((_, name), log)| (log.id, name))
            .collect();
        self.readers.iter().map(move |((log, consumer), reader)| {
            let other = match names.get(log) {
                Some(LogName::Arrival { from, .. }) => from,
                _ => &consumer.node,
            };
            let waiting = reader.log.head().saturating_sub(reader.base());
            (consumer.route, other, waiting)
        })
    }

    /// What was opened for a route.
    pub(super) fn find(&self, assignment: &Assignment, route: &Route) -> Option<Use> {
        self.opened(needed(assignment, route)?)
    }

    /// The same for a route from or to a topic.
    pub(super) fn find_topic(&self, assignment: &Assignment, route: &TopicRoute) -> Option<Use> {
        self.opened(needed_by_topic(assignment, route)?)
    }

    fn opened(
        &self,
        (owner, name, consumer): (MicroserviceName, LogName, Consumer),
    ) -> Option<Use> {
        let log = Arc::clone(self.logs.get(&(owner, name))?);
        let reader = Arc::clone(self.readers.get(&(log.id, consumer))?);
        Some(Use { log, reader })
    }

    /// The stream into an inlet of this node.
    pub(super) fn stream(&mut self, reader: &Arc<Reader>, entry: Arc<Entry>) -> Arc<Stream> {
        let key = (reader.log.id, reader.consumer.clone());
        let stream = self
            .streams
            .entry(key)
            .or_insert_with(|| Arc::new(Stream::new(Arc::clone(reader), Arc::clone(&entry))));
        stream.set_entry(entry);
        Arc::clone(stream)
    }

    /// What tells the link to a node.
    pub(super) fn link(&mut self, node: &NodeId) -> Arc<Notify> {
        Arc::clone(self.links.entry(node.clone()).or_default())
    }
    /// What tells the session with a broker.
    pub(super) fn broker(&mut self, relay: &Name) -> Arc<Notify> {
        Arc::clone(self.brokers.entry(relay.clone()).or_default())
    }
}
