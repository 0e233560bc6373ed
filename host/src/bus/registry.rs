//! What lives on from route table to route table: inboxes, sequences, counters, logs. The control loop
//! owns it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use haar_protocol::assignment::{Assignment, Microservice, MicroserviceName};
use haar_protocol::ids::{MediaType, Name, NodeId, RouteId};
use haar_protocol::limits::{Limits, Retention};

use super::history::{Direction, HistoryPort, Recorder, Wakes};
use super::inbox::Inbox;
use super::logs::Logs;
use super::message::RouteCounters;
use super::peer::PeerQueue;
use super::table::{Builder, RouteTable};
use super::topic_queue::TopicQueue;

/// What lives on from table to table. Owned by the control loop.
#[derive(Debug, Default)]
pub struct Registry {
    pub(super) inboxes: BTreeMap<MicroserviceName, Arc<Inbox>>,
    pub(super) sequences: BTreeMap<(MicroserviceName, Name), Arc<AtomicU64>>,
    pub(super) counters: BTreeMap<(RouteId, Name), Arc<RouteCounters>>,
    pub(super) peers: BTreeMap<NodeId, Arc<PeerQueue>>,
    /// Numbers of the last messages from topics on live routes.
    pub(super) topic_sequences: BTreeMap<RouteId, Arc<AtomicU64>>,
    /// What waits for topics on live routes.
    pub(super) topic_queues: BTreeMap<RouteId, Arc<TopicQueue>>,
    pub(super) recorders: BTreeMap<HistoryPort, Arc<Recorder>>,
    /// What the store has for durable routes.
    pub logs: Logs,
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
        for route in &assignment.topics {
            builder.add_topic(route);
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

    pub(super) fn recorder(
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
        let has_topic = |id: &RouteId| assignment.topics.iter().any(|route| &route.id == id);
        self.topic_sequences.retain(|id, _| has_topic(id));
        self.topic_queues.retain(|id, _| has_topic(id));
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
