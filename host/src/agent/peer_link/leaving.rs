//! What leaves for another node: live messages as they wait in the queue, messages of logs as the
//! link wants them, and in turns when there are both, so that neither holds up the other.

use std::sync::Arc;

use haar_link::frame::{Ack, Batch, Frame, Message as Wire, STREAMS_MAX};
use haar_link::link::Link;
use haar_link::sender::{Acknowledged, Want};

use super::{STORE_PAUSE, Work, finished};
use crate::agent::connection::fresh_epoch;
use crate::bus::logs::{LinkPlan, OutgoingStream};
use crate::bus::message::{self, EXPIRY_HEADER, count};
use crate::bus::peer::Outbound;
use crate::store::Store;
use crate::store::ages::AgeClock;
use crate::store::log::{Logged, message_bytes};

/// A frame for the relay.
pub(super) struct Sealed {
    pub(super) bytes: Vec<u8>,
    /// Messages of live routes in it.
    pub(super) live: Vec<Outbound>,
}

/// What a log has for the link.
pub(super) struct Read {
    want: Want,
    logged: Vec<Logged>,
    read_to: u64,
}

/// Messages of one stream that leave in a frame.
struct Sent {
    want: Want,
    logged: Vec<Leaves>,
}

/// A message that leaves.
struct Leaves {
    logged: Logged,
    /// What its expiry header says then: the other node counts from there.
    left_s: Option<String>,
}

impl Sent {
    fn batch(&self) -> Batch<'_> {
        Batch {
            route: self.want.route,
            epoch: self.want.epoch,
            base: self.want.base,
            after: self.want.after,
            messages: self.logged.iter().map(wire).collect(),
        }
    }
}

/// What the disk has done.
pub(super) enum Done {
    /// Read a log, if it could be read.
    Read(Option<Read>),
    /// Made the log of this route another one.
    Renewed(u64),
}

/// The part of a link that sends.
pub(super) struct Leaving {
    store: Store,
    /// Read, and to be sent.
    read: Option<Read>,
    /// On its way from the disk.
    reading: Option<Work<Option<Read>>>,
    /// Streams whose log is an old copy.
    outdated: Vec<u64>,
    /// A log that becomes another one.
    renewing: Option<Work<u64>>,
    /// Live messages are sent next, when there are some.
    live_is_next: bool,
}

impl Leaving {
    pub(super) fn new(store: Store) -> Self {
        Self {
            store,
            read: None,
            reading: None,
            outdated: Vec::new(),
            renewing: None,
            live_is_next: true,
        }
    }

    /// The next frame to send; none when nothing can be sent before something happens.
    pub(super) fn next(
        &mut self,
        link: &mut Link,
        plan: &LinkPlan,
        link_ms: u64,
    ) -> Option<Sealed> {
        let durable = |bytes| Sealed {
            bytes,
            live: Vec::new(),
        };
        if let Some(bytes) = link.outgoing(link_ms) {
            return Some(durable(bytes));
        }
        if !link.is_open() {
            return None;
        }
        if self.live_is_next
            && let Some(live) = live(link, plan, link_ms)
        {
            self.live_is_next = false;
            return Some(live);
        }
        self.live_is_next = true;
        match self.batches(link, plan, link_ms) {
            Some(bytes) => Some(durable(bytes)),
            None => live(link, plan, link_ms),
        }
    }

    /// The next messages of logs, of as many streams as fit into one frame, without those that are on
    /// their way from the disk: what a frame costs by itself, here, at the relay and at the other
    /// node, many messages share.
    fn batches(&mut self, link: &mut Link, plan: &LinkPlan, link_ms: u64) -> Option<Vec<u8>> {
        let bytes_max = link.sender.batch_bytes();
        let (mut batches, mut bytes) = (Vec::new(), 0);
        while batches.len() < STREAMS_MAX {
            let Some(read) = self.read.take() else {
                match self.read(link, plan, link_ms) {
                    Some(()) => continue,
                    None => break,
                }
            };
            // It may have gone back meanwhile, or be gone.
            let stream = outgoing(plan, read.want.route);
            let Some(stream) = stream.filter(|_| link.sender.is_current(&read.want)) else {
                continue;
            };
            let more = bytes_of(&read.logged);
            if bytes + more > bytes_max && !batches.is_empty() {
                self.read = Some(read); // for the next frame
                break;
            }
            bytes += more;
            batches.extend(send(link, stream, read, self.store.ages(), link_ms));
        }
        if batches.is_empty() {
            return None;
        }
        let frame = Frame::Batches(batches.iter().map(Sent::batch).collect());
        link.seal(&frame, link_ms)
    }

    /// Reads what the link wants next. None when it wants nothing, or when it has to wait.
    fn read(&mut self, link: &mut Link, plan: &LinkPlan, link_ms: u64) -> Option<()> {
        if self.reading.is_some() {
            return None;
        }
        let want = link.next(link_ms)?;
        let Some(stream) = outgoing(plan, want.route) else {
            link.sender.close(want.route);
            return Some(());
        };
        let log = &stream.reader.log;
        // Where the log has nothing to send, it has nothing up to here: what is stored while it is
        // read is not passed over.
        let head = log.head();
        let read = move |mut logged: Vec<Logged>| {
            let read_to = logged.last().map_or(head, |last| last.position);
            logged.retain(|one| one.position <= want.upto); // the rest is of the next run
            Read {
                read_to,
                want,
                logged,
            }
        };
        let at_hand = match want.bytes {
            0 => Some(Vec::new()),
            bytes => log.at_hand(want.from, bytes),
        };
        if let Some(logged) = at_hand {
            self.read = Some(read(logged));
            return Some(());
        }
        let (log, store) = (Arc::clone(log), self.store.clone());
        self.reading = Some(Box::pin(async move {
            match log.read(&store, want.from, want.bytes).await {
                Ok(logged) => Some(read(logged)),
                Err(error) => {
                    if !store.is_known_to_fail() {
                        tracing::error!("a log can't be read: {error:#}; tried again");
                    }
                    tokio::time::sleep(STORE_PAUSE).await;
                    None
                }
            }
        }));
        None
    }

    /// Whether a log is being read: nothing else of logs is sent until then.
    pub(super) fn is_reading(&self) -> bool {
        self.reading.is_some()
    }

    /// Waits until the disk has done something for this side.
    pub(super) async fn done(&mut self) -> Done {
        tokio::select! {
            read = finished(&mut self.reading) => Done::Read(read),
            route = finished(&mut self.renewing) => Done::Renewed(route),
        }
    }

    pub(super) fn apply(&mut self, link: &mut Link, plan: &LinkPlan, done: Done) {
        match done {
            Done::Read(read) => self.read = read,
            Done::Renewed(route) => {
                if let Some(stream) = outgoing(plan, route) {
                    open(link, stream);
                }
                self.renew(link, plan);
            }
        }
    }

    pub(super) fn acknowledged(
        &mut self,
        link: &mut Link,
        plan: &LinkPlan,
        ack: &Ack,
        link_ms: u64,
    ) {
        let stream = outgoing(plan, ack.route);
        match (link.acknowledged(ack, link_ms), stream) {
            (Acknowledged::Upto(base), Some(stream)) => stream.reader.advance(base),
            (Acknowledged::Beyond, Some(_)) => {
                link.sender.close(ack.route);
                self.outdated.push(ack.route);
                self.renew(link, plan);
            }
            _ => {}
        }
    }

    /// The other node has messages that the log of a stream never had: an old copy of the log was
    /// restored. Its sequences would be taken for those that the other node has; so it becomes
    /// another log, whose messages are all new. Until then nothing of it is sent.
    fn renew(&mut self, link: &mut Link, plan: &LinkPlan) {
        while self.renewing.is_none() {
            let Some(route) = self.outdated.pop() else {
                return;
            };
            let Some(stream) = outgoing(plan, route) else {
                continue;
            };
            link.sender.close(route);
            let (log, store) = (Arc::clone(&stream.reader.log), self.store.clone());
            tracing::error!(
                "the log of {} is an old copy: it was restored from a backup? What was published since is sent as new",
                log.source.outlet
            );
            self.renewing = Some(Box::pin(async move {
                if let Err(error) = log.renew(&store, fresh_epoch()).await {
                    tracing::error!("the log can't be renewed: {error:#}; tried again");
                    tokio::time::sleep(STORE_PAUSE).await;
                }
                route
            }));
        }
    }
}

/// Opens a stream as its log is.
pub(super) fn open(link: &mut Link, stream: &OutgoingStream) {
    let reader = &stream.reader;
    let runs: Vec<_> = reader.log.runs().iter().collect();
    let (base, head) = (reader.base(), reader.log.head());
    link.sender
        .open(stream.route, &runs, base, head, stream.priority);
}

fn outgoing(plan: &LinkPlan, route: u64) -> Option<&OutgoingStream> {
    plan.outgoing.iter().find(|one| one.route == route)
}

/// As many live messages as fit into one frame.
fn live(link: &mut Link, plan: &LinkPlan, link_ms: u64) -> Option<Sealed> {
    let live = plan.live.as_ref()?.take();
    if live.is_empty() {
        return None;
    }
    let frame = Frame::Live(live.iter().map(Outbound::wire).collect());
    let bytes = link
        .seal(&frame, link_ms)
        .expect("the link is open, and messages are limited far below a frame's size");
    Some(Sealed { bytes, live })
}

/// Tells the link that what was read is sent. None when nothing of it is to be.
fn send(
    link: &mut Link,
    stream: &OutgoingStream,
    read: Read,
    ages: &AgeClock,
    link_ms: u64,
) -> Option<Sent> {
    let Read {
        want,
        logged,
        read_to,
    } = read;
    let now_ms = ages.now_ms();
    let logged = without_expired(stream, logged, now_ms);
    let sent: Vec<(u64, u64)> = logged
        .iter()
        .map(|one| (one.message.sequence, size(one)))
        .collect();
    if let Some(base) = link.sender.sent(&want, &sent, read_to, link_ms) {
        stream.reader.advance(base);
    }
    let is_nothing = want.bytes > 0 && logged.is_empty();
    let logged = logged.into_iter().map(|one| leaves(one, now_ms));
    let logged = logged.collect();
    (!is_nothing).then_some(Sent { want, logged })
}

fn bytes_of(logged: &[Logged]) -> u64 {
    logged.iter().map(size).sum()
}

fn size(logged: &Logged) -> u64 {
    message_bytes(&logged.message.headers, logged.message.body.len())
}

/// Leaves out what is too old to be sent, and counts it the first time.
fn without_expired(stream: &OutgoingStream, mut logged: Vec<Logged>, now_ms: u64) -> Vec<Logged> {
    logged.retain(|one| {
        let is_expired = message::is_expired(one, stream.expiry_ms, now_ms);
        if is_expired && stream.reader.expired(one.position) {
            count(&stream.counters.dropped);
        }
        !is_expired
    });
    logged
}

fn leaves(logged: Logged, now_ms: u64) -> Leaves {
    let waited_ms = now_ms.saturating_sub(logged.stored_ms);
    let left_s = message::left_s(&logged.message.headers, waited_ms);
    Leaves {
        logged,
        left_s: left_s.map(|seconds| seconds.to_string()),
    }
}

fn wire(leaves: &Leaves) -> Wire<'_> {
    let message = &leaves.logged.message;
    let headers = message.headers.iter();
    let headers = headers.map(|(name, value)| match &leaves.left_s {
        Some(left_s) if name == EXPIRY_HEADER => (name.as_str(), left_s.as_str()),
        _ => (name.as_str(), value.as_str()),
    });
    Wire {
        sequence: message.sequence,
        published_ms: message.published_ms,
        headers: headers.collect(),
        body: &message.body,
    }
}

#[cfg(test)]
mod tests;
