//! What lives on from route table to route table: inboxes, sequences, counters, logs. The control loop
//! owns it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

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
use crate::store::log::{LogName, WantedLog};

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
    /// What is numbered from now on begins above this: those who had the numbers below may be gone.
    pub floor: u64,
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

    /// Forgets the inbox of a microservice, with what waits in it: the next one is another. What the route
    /// table in force still puts in is lost.
    pub fn forget_inbox(&mut self, name: &MicroserviceName) {
        if let Some(inbox) = self.inboxes.remove(name) {
            inbox.clear();
        }
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
        for (outlet, head) in self.logs.take_dropped() {
            self.sequence(outlet).fetch_max(head, Ordering::Relaxed);
        }
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

    /// Number of the last message of an outlet without a log.
    pub(super) fn sequence(&mut self, outlet: (MicroserviceName, Name)) -> Arc<AtomicU64> {
        let floor = self.floor;
        let sequence = self.sequences.entry(outlet);
        Arc::clone(sequence.or_insert_with(|| Arc::new(AtomicU64::new(floor))))
    }

    /// The same of a live route from topics.
    pub(super) fn topic_sequence(&mut self, route: RouteId) -> Arc<AtomicU64> {
        let floor = self.floor;
        let sequence = self.topic_sequences.entry(route);
        Arc::clone(sequence.or_insert_with(|| Arc::new(AtomicU64::new(floor))))
    }

    /// The highest number that was given without a log.
    pub fn highest_number(&self) -> u64 {
        let outlets = self.sequences.values().chain(self.topic_sequences.values());
        let numbers = outlets.map(|sequence| sequence.load(Ordering::Relaxed));
        numbers.max().unwrap_or(0).max(self.floor)
    }

    /// The highest number that any outlet or topic has, with a log or without.
    pub fn highest_of_all(&self) -> u64 {
        self.highest_number().max(self.logs.highest_head())
    }

    /// The highest number that outlets among these may have given that get a log only now; none where there
    /// are no such outlets. They publish until the new table is in force: no more than `ahead` messages.
    pub fn highest_before(&self, wanted: &[WantedLog], ahead: u64) -> Option<u64> {
        let numbers = wanted.iter().filter_map(|log| match &log.name {
            LogName::Outlet(outlet) if !self.logs.has(&log.owner, &log.name) => {
                let sequence = self.sequences.get(&(log.owner.clone(), outlet.clone()));
                Some(sequence.map_or(self.floor, |last| last.load(Ordering::Relaxed) + ahead))
            }
            _ => None,
        });
        numbers.max()
    }

    /// Has every number that is given from now on be above this one.
    pub fn begin_above(&mut self, number: u64) {
        self.floor = self.floor.max(number);
        let numbers = self.sequences.values().chain(self.topic_sequences.values());
        for last in numbers {
            last.fetch_max(number, Ordering::Relaxed);
        }
    }

    /// A recorder for each port that is kept. One lives on as long as nothing changes for its port.
    fn follow_histories(&mut self, assignment: &Assignment) {
        let mut before = std::mem::take(&mut self.recorders);
        for microservice in &assignment.microservices {
            for (port, retention, content_type) in histories(microservice) {
                let recorder = before
                    .remove(&port)
                    .filter(|recorder| {
                        recorder.retention == *retention
                            && recorder.content_type == *content_type
                            && recorder.life == microservice.life
                    })
                    .unwrap_or_else(|| {
                        let (retention, content_type) = (retention.clone(), content_type.clone());
                        let wakes = Arc::clone(&self.wakes);
                        let recorder = Recorder::new(port.clone(), retention, content_type, wakes);
                        Arc::new(recorder.of_life(microservice.life))
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
        let floor = &mut self.floor;
        let mut retire = |sequence: &AtomicU64| {
            *floor = (*floor).max(sequence.load(Ordering::Relaxed));
            false
        };
        self.sequences
            .retain(|(name, _), sequence| here(name) || retire(sequence));
        self.counters.retain(|key, _| used.contains(key));
        let has_topic = |id: &RouteId| assignment.topics.iter().any(|route| &route.id == id);
        self.topic_sequences
            .retain(|id, sequence| has_topic(id) || retire(sequence));
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
