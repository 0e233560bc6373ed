//! The bus of a node: takes messages out of outlets, stamps them, and puts them into the inboxes
//! of local instances or the queues towards other nodes. It runs on the path of every message, so
//! it shares nothing with the control loop but the route table, an immutable snapshot.
//!
//! ```text
//! guest ─ publish ─► outlet known? size? ─► sequence + source stamped ─┬─► inbox of a local instance
//!                                                                      └─► queue towards a peer ─► link ─► relay
//! relay ─► link ─► route known from that node? ─► inbox of a local instance
//! ```

pub mod message;
pub mod durable;
pub mod history;
pub mod inbox;
pub mod log;
pub mod logs;
pub mod overflow;
pub mod peer;
pub mod registry;
pub mod stream;
pub mod table;
pub mod topics;
pub mod topic_queue;
mod topic_routes;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use haar_protocol::assignment::MicroserviceName;
use haar_protocol::frame::LiveMessage;
use haar_protocol::ids::NodeId;

use history::{HistoryPort, Recorder};
use inbox::Inbox;
use message::{Delivery, Entry, Headers, Message, count};
use peer::Outbound;
use table::{InstancePorts, Outlet, RouteTable, Target};

/// The bus. One for the agent.
#[derive(Debug)]
pub struct Bus {
    table: ArcSwap<RouteTable>,
    frames_refused: AtomicU64,
    /// Messages of devices that no route takes.
    pub device_messages_dropped: AtomicU64,
    /// User properties of such messages that did not become headers.
    pub device_properties_dropped: AtomicU64,
}

/// A publisher's view of the table: looked up again only when the table has changed.
#[derive(Debug, Default)]
pub struct PortCache {
    seen: Option<(Arc<RouteTable>, Option<Arc<InstancePorts>>)>,
}

/// The microservice has no outlet of the name.
#[derive(Debug, PartialEq, Eq)]
pub struct UnknownOutlet;

impl Default for Bus {
    fn default() -> Self {
        Self {
            table: ArcSwap::from_pointee(RouteTable::default()),
            frames_refused: AtomicU64::new(0),
            device_messages_dropped: AtomicU64::new(0),
            device_properties_dropped: AtomicU64::new(0),
        }
    }
}

impl Bus {
    /// Puts another table in force, for every publisher at once.
    pub fn set_table(&self, table: RouteTable) {
        self.table.store(Arc::new(table));
    }

    /// What records the messages of a port; none when nothing is kept of them.
    pub fn recorder(&self, port: &HistoryPort) -> Option<Arc<Recorder>> {
        self.table.load().recorder(port)
    }

    /// Everything that records messages.
    pub fn recorders(&self) -> Vec<Arc<Recorder>> {
        self.table.load().recorders().cloned().collect()
    }

    /// Frames or messages of other nodes that were refused.
    pub fn frames_refused(&self) -> u64 {
        self.frames_refused.load(Ordering::Relaxed)
    }

    /// The outlet, when a route of it is durable: messages go through [`durable::publish`] then.
    ///
    /// # Errors
    /// When the microservice has no such outlet.
    pub fn durable_outlet(
        &self,
        cache: &mut PortCache,
        publisher: &MicroserviceName,
        outlet: &str,
    ) -> Result<Option<Arc<Outlet>>, UnknownOutlet> {
        let outlet = self.outlet(cache, publisher, outlet)?;
        let is_durable = outlet.log.is_some() || outlet.lacks_log;
        Ok(is_durable.then(|| Arc::clone(outlet)))
    }

    /// Counts something of another node that was refused.
    pub fn refuse(&self) {
        count(&self.frames_refused);
    }

    /// Publishes on every route of an outlet without a log. Never waits. Returns the sequence.
    ///
    /// # Errors
    /// When the microservice has no such outlet.
    pub fn publish(
        &self,
        cache: &mut PortCache,
        publisher: &MicroserviceName,
        outlet: &str,
        headers: Headers,
        body: Vec<u8>,
        now_ms: u64,
    ) -> Result<u64, UnknownOutlet> {
        let outlet = self.outlet(cache, publisher, outlet)?;
        let sequence = outlet.sequence.fetch_add(1, Ordering::Relaxed) + 1;
        send(outlet, sequence, headers, body, now_ms);
        Ok(sequence)
    }

    /// Publishes messages, each as headers and body, in their order. Returns the sequence of the
    /// first one; the others follow it without a gap. None: the sequence that comes next.
    ///
    /// # Errors
    /// When the microservice has no such outlet.
    pub fn publish_batch(
        &self,
        cache: &mut PortCache,
        publisher: &MicroserviceName,
        outlet: &str,
        messages: Vec<(Headers, Vec<u8>)>,
        now_ms: u64,
    ) -> Result<u64, UnknownOutlet> {
        let outlet = self.outlet(cache, publisher, outlet)?;
        let count = messages.len() as u64;
        let first = outlet.sequence.fetch_add(count, Ordering::Relaxed) + 1;
        for (sequence, (headers, body)) in (first..).zip(messages) {
            send(outlet, sequence, headers, body, now_ms);
        }
        Ok(first)
    }

    /// The outlet as the table in force has it.
    fn outlet<'a>(
        &self,
        cache: &'a mut PortCache,
        publisher: &MicroserviceName,
        outlet: &str,
    ) -> Result<&'a Arc<Outlet>, UnknownOutlet> {
        let table = self.table.load();
        let current = matches!(&cache.seen, Some((seen, _)) if Arc::ptr_eq(seen, &table));
        if !current {
            cache.seen = Some((table.clone(), table.ports(publisher)));
        }
        let Some((_, Some(ports))) = &cache.seen else {
            return Err(UnknownOutlet);
        };
        ports.outlet(outlet).ok_or(UnknownOutlet)
    }

    /// Takes live messages that node `from` sent: each enters the inlets that this node's own
    /// assignment lists for its route from that node, and no other. Anything else is counted and
    /// dropped; so is a message that newer ones of its route have overtaken, as `is_newest` says.
    pub fn receive(
        &self,
        from: &NodeId,
        messages: &[LiveMessage<'_>],
        mut is_newest: impl FnMut(u64) -> bool,
    ) {
        let table = self.table.load();
        for live in messages {
            let Some(arrivals) = table.arrivals(from, live.route) else {
                count(&self.frames_refused);
                continue;
            };
            let Some(first) = arrivals.first() else {
                continue;
            };
            if !is_newest(live.route) {
                count(&first.entry.counters.dropped);
                continue;
            }
            let message = Arc::new(Message {
                source: Arc::clone(&first.source),
                sequence: live.sequence,
                published_ms: live.published_ms,
                headers: live
                    .headers
                    .iter()
                    .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                    .collect(),
                body: live.body.to_vec(),
            });
            for arrival in arrivals {
                deliver(&message, &arrival.inbox, &arrival.entry, None);
            }
        }
    }
}

/// Sends one message to everything that the outlet leads to.
fn send(outlet: &Outlet, sequence: u64, headers: Headers, body: Vec<u8>, now_ms: u64) {
    if outlet.targets.is_empty() && outlet.history.is_none() {
        return;
    }
    let message = Arc::new(Message {
        source: Arc::clone(&outlet.source),
        sequence,
        published_ms: now_ms,
        headers,
        body,
    });
    pass_on(outlet, &message);
}

/// Passes a message to the outlet's history and its live routes.
fn pass_on(outlet: &Outlet, message: &Arc<Message>) {
    if let Some(history) = &outlet.history {
        history.record(message);
    }
    for target in &outlet.targets {
        match target {
            Target::Local { inbox, entry } => {
                count(&entry.counters.sent);
                deliver(message, inbox, entry, None);
            }
            Target::Topic { queue, counters } => {
                count(&counters.sent);
                queue.push(Arc::clone(message), counters);
            }
            Target::Remote { queue, counters } => {
                count(&counters.sent);
                queue.push(Outbound {
                    message: Arc::clone(message),
                    counters: Arc::clone(counters),
                });
            }
        }
    }
}

/// Puts a message into an inbox, unless it is larger than the microservice takes.
pub(crate) fn deliver(
    message: &Arc<Message>,
    inbox: &Inbox,
    entry: &Arc<Entry>,
    taken_ms: Option<u64>,
) {
    if message.body.len() as u64 > entry.message_bytes_max {
        count(&entry.counters.dropped);
        return;
    }
    if let Some(history) = &entry.history {
        history.record(message);
    }
    inbox.push(Delivery {
        message: Arc::clone(message),
        entry: Arc::clone(entry),
        attempt: 1,
        place: None,
        taken_ms,
    });
}
