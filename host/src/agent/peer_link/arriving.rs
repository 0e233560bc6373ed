//! What arrives from another node: opened, live messages handed to the bus at once, those of durable
//! routes stored, and only then acknowledged. While the disk stores some, the next ones are opened
//! and wait for their turn, together.

use std::sync::Arc;

use haar_link::frame::{Ack, Batch, Frame, Message as Wire, decode};
use haar_link::link::Link;
use haar_link::receiver::Verdict;
use haar_protocol::ids::NodeId;

use super::{Work, finished};
use crate::bus::Bus;
use crate::bus::log::Log;
use crate::bus::logs::LinkPlan;
use crate::bus::message::Message;
use crate::store::Store;
use crate::store::log::{Arrived, message_bytes};

/// Bytes of messages that wait for the disk at most. What comes beyond is sent again.
const WAITING_BYTES_MAX: u64 = 8 << 20;

/// Messages on their way to the disk.
struct Taken {
    place: Place,
    log: Arc<Log>,
    arrived: Arrived,
}

/// Where a stream will be when they are there.
#[derive(Clone, Copy)]
struct Place {
    route: u64,
    epoch: u64,
    upto: u64,
}

/// What the disk has stored, or could not.
pub(super) struct Written {
    places: Vec<Place>,
    are_kept: bool,
}

/// The part of a link that receives.
pub(super) struct Arriving {
    bus: Arc<Bus>,
    store: Store,
    /// The other node.
    node: NodeId,
    waiting: Vec<Taken>,
    waiting_bytes: u64,
    /// What the disk stores now.
    writing: Option<Work<Written>>,
    /// Counts authentic frames.
    heard: u64,
}

impl Arriving {
    pub(super) fn new(bus: Arc<Bus>, store: Store, node: NodeId) -> Self {
        Self {
            bus,
            store,
            node,
            waiting: Vec::new(),
            waiting_bytes: 0,
            writing: None,
            heard: 0,
        }
    }

    /// How many frames came that only the other node can have made, and only now.
    pub(super) fn heard(&self) -> u64 {
        self.heard
    }

    /// Takes a sealed frame. Returns the acknowledgements in it.
    pub(super) fn take(
        &mut self,
        link: &mut Link,
        plan: &LinkPlan,
        bytes: &[u8],
        link_ms: u64,
    ) -> Vec<Ack> {
        let was_open = link.is_open();
        let frame = match link.open(bytes, link_ms) {
            Ok(Some(frame)) => {
                self.heard += 1;
                frame
            }
            Ok(None) => {
                // The other one's first answer, which opens the session, is one of them.
                self.heard += u64::from(!was_open && link.is_open());
                return Vec::new();
            }
            Err(_) => {
                self.bus.refuse();
                return Vec::new();
            }
        };
        match decode(&frame) {
            Ok(Frame::Live(messages)) => {
                let is_newest = |route| link.is_newest(route);
                self.bus.receive(&self.node, &messages, is_newest);
            }
            Ok(Frame::Acks(acks)) => return acks,
            Ok(Frame::Probe) => link.asked(),
            Ok(Frame::Batches(batches)) => {
                for batch in batches {
                    self.take_batch(link, plan, &batch);
                }
            }
            Err(_) => self.bus.refuse(),
        }
        Vec::new()
    }

    fn take_batch(&mut self, link: &mut Link, plan: &LinkPlan, batch: &Batch<'_>) {
        let stream = plan.incoming.iter().find(|one| one.route == batch.route);
        let Some(stream) = stream else {
            return self.bus.refuse();
        };
        if self.waiting_bytes > WAITING_BYTES_MAX {
            return; // as if it had been lost
        }
        let first = match link.batch(batch) {
            Verdict::Take(first) => first,
            Verdict::Nothing => return,
            Verdict::Refused => return self.bus.refuse(),
        };
        let log = &stream.log;
        let messages: Vec<_> = batch.messages[first..]
            .iter()
            .map(|wire| Arc::new(message(wire, log)))
            .collect();
        self.waiting_bytes += bytes(&messages);
        self.waiting.push(Taken {
            place: Place {
                route: batch.route,
                epoch: batch.epoch,
                upto: messages.last().map_or(0, |last| last.sequence),
            },
            log: Arc::clone(log),
            arrived: Arrived {
                log: log.id,
                epoch: batch.epoch,
                messages,
            },
        });
    }

    /// Lets the disk store what waits, unless it has something to do.
    pub(super) fn write(&mut self, link: &mut Link, plan: &LinkPlan) {
        if self.writing.is_some() {
            return;
        }
        self.waiting_bytes = 0;
        let mut taken = std::mem::take(&mut self.waiting);
        // A route may have been withdrawn while they waited.
        taken.retain(|taken| {
            let mut logs = plan.incoming.iter().map(|stream| &stream.log);
            let keep = logs.any(|log| Arc::ptr_eq(log, &taken.log));
            if !keep {
                link.receiver.failed(taken.place.route, taken.place.epoch);
            }
            keep
        });
        if taken.is_empty() {
            return;
        }
        let store = self.store.clone();
        self.writing = Some(Box::pin(async move {
            let places = taken.iter().map(|taken| taken.place).collect();
            let kept = keep(&store, taken).await;
            if let Err(error) = &kept
                && !store.is_known_to_fail()
            {
                tracing::error!("messages of another node can't be stored: {error:#}");
            }
            Written {
                places,
                are_kept: kept.is_ok(),
            }
        }));
    }

    /// Waits until the disk has stored something.
    pub(super) async fn done(&mut self) -> Written {
        finished(&mut self.writing).await
    }

    pub(super) fn apply(
        &mut self,
        link: &mut Link,
        plan: &LinkPlan,
        Written { places, are_kept }: Written,
    ) {
        for place in places {
            match are_kept {
                true => link.receiver.stored(place.route, place.epoch, place.upto),
                false => link.receiver.failed(place.route, place.epoch),
            }
        }
        if !are_kept {
            // What follows them can't be stored without them.
            for taken in self.waiting.drain(..) {
                link.receiver.failed(taken.place.route, taken.place.epoch);
            }
        }
        self.write(link, plan);
    }
}

/// Stores messages, and tells the logs.
async fn keep(store: &Store, taken: Vec<Taken>) -> anyhow::Result<()> {
    let (logs, arrived): (Vec<_>, Vec<_>) = taken
        .into_iter()
        .map(|taken| (taken.log, taken.arrived))
        .unzip();
    let ages = store.ages().clone();
    let committed = move |kept: Vec<(u64, Arrived)>| {
        for ((first, arrived), log) in kept.into_iter().zip(logs) {
            log.occupy(bytes(&arrived.messages));
            log.committed(first, arrived.messages, Some(arrived.epoch), ages.now_ms());
        }
    };
    store.keep_arrived(arrived, committed).await
}

fn bytes(messages: &[Arc<Message>]) -> u64 {
    let messages = messages.iter();
    messages
        .map(|message| message_bytes(&message.headers, message.body.len()))
        .sum()
}

fn message(wire: &Wire<'_>, log: &Log) -> Message {
    let headers = wire.headers.iter();
    Message {
        source: Arc::clone(&log.source),
        sequence: wire.sequence,
        published_ms: wire.published_ms,
        headers: headers
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        body: wire.body.to_vec(),
    }
}
