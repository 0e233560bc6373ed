//! The task of one link: carries out what [`haar_link`] decides, with the node's logs on one side and
//! the relay on the other.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use haar_link::frame::{Ack, Batch, Frame, Message as Wire, decode};
use haar_link::link::Link;
use haar_link::receiver::Verdict;
use haar_link::sender::{Acknowledged, Settings, Want};
use haar_link::session::Session as Seals;
use haar_relay::{Outgoing, Session};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::connection::sleep_until;
use crate::bus::Bus;
use crate::bus::log::Log;
use crate::bus::logs::{LinkPlan, OutgoingStream};
use crate::bus::message::{Message, count};
use crate::local_api::state::now_ms;
use crate::store::Store;
use crate::store::log::{Arrived, Logged, message_bytes};

/// Frames that are opened before what is in them is stored, together.
const FRAMES_MAX: usize = 64;

/// After a store that can't be read.
const STORE_PAUSE: Duration = Duration::from_secs(1);

/// The task of one link.
pub(super) struct PeerLink {
    pub(super) bus: Arc<Bus>,
    pub(super) store: Store,
    pub(super) session: Session,
    /// Where frames to the other node go.
    pub(super) topic: String,
    pub(super) connected: watch::Receiver<bool>,
    pub(super) plan: watch::Receiver<LinkPlan>,
    /// What the relay delivers of the other node.
    pub(super) frames: mpsc::Receiver<Bytes>,
    /// Since when time is counted.
    pub(super) began: Instant,
    /// Streams whose log is an old copy.
    pub(super) outdated: Vec<u64>,
}

/// Messages on their way to the disk.
struct Taken {
    route: u64,
    epoch: u64,
    upto: u64,
    log: Arc<Log>,
    arrived: Arrived,
}

impl PeerLink {
    /// Runs until the agent stops.
    pub(super) async fn run(mut self, seals: Seals) {
        let mut link = Link::new(seals, Settings::default());
        let mut plan = LinkPlan::default();
        self.plan.mark_changed();
        self.connected.mark_changed();
        loop {
            if self.send(&mut link, &plan).await.is_none() {
                return; // the agent is stopping
            }
            let wake = link.wake_ms().map(|ms| self.instant(ms));
            let arrived = Arc::clone(&plan.arrived);
            tokio::select! {
                changed = self.plan.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let next = self.plan.borrow_and_update().clone();
                    follow(&mut link, &plan, &next);
                    plan = next;
                }
                changed = self.connected.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let connected = *self.connected.borrow_and_update();
                    link.connected(connected, self.now_ms());
                }
                Some(first) = self.frames.recv() => self.receive(&mut link, &plan, first).await,
                () = arrived.notified() => {}
                () = sleep_until(wake) => {}
            }
            for stream in &plan.outgoing {
                link.sender.skip(stream.route, stream.reader.base());
                link.sender.stored(stream.route, stream.reader.log.head());
            }
            for stream in &plan.incoming {
                link.receiver.set_room(stream.route, stream.log.room());
            }
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn instant(&self, ms: u64) -> Instant {
        self.began + Duration::from_millis(ms)
    }

    /// Sends what there is to send. None when nothing can be sent any more.
    async fn send(&mut self, link: &mut Link, plan: &LinkPlan) -> Option<()> {
        loop {
            while let Some(bytes) = link.outgoing(self.now_ms()) {
                self.publish(bytes).await?;
            }
            let Some(want) = link.next(self.now_ms()) else {
                return Some(());
            };
            let stream = plan.outgoing.iter().find(|one| one.route == want.route);
            match stream {
                Some(stream) => self.send_batch(link, stream, &want).await?,
                None => link.sender.close(want.route),
            }
            if !self.frames.is_empty() {
                return Some(()); // acknowledgements, perhaps: they come first
            }
        }
    }

    async fn send_batch(
        &mut self,
        link: &mut Link,
        stream: &OutgoingStream,
        want: &Want,
    ) -> Option<()> {
        let log = &stream.reader.log;
        let read = match want.bytes {
            0 => Ok(Vec::new()),
            bytes => log.read(&self.store, want.from, bytes).await,
        };
        let logged = match read {
            Ok(logged) => logged,
            Err(error) => {
                tracing::error!("a log can't be read: {error:#}; tried again");
                tokio::time::sleep(STORE_PAUSE).await;
                return Some(());
            }
        };
        let read_to = logged.last().map_or(log.head(), |last| last.position);
        let logged = without_expired(stream, logged);
        let messages = logged.iter().map(|one| wire(&one.message)).collect();
        let batch = Batch {
            route: want.route,
            epoch: want.epoch,
            base: want.base,
            after: want.after,
            messages,
        };
        let sent: Vec<(u64, u64)> = logged
            .iter()
            .map(|one| {
                let message = &one.message;
                let bytes = message_bytes(&message.headers, message.body.len());
                (message.sequence, bytes)
            })
            .collect();
        let is_nothing = want.bytes > 0 && logged.is_empty();
        let sealed = match is_nothing {
            true => None,
            false => link.seal(&Frame::Batches(vec![batch])),
        };
        let base = link.sender.sent(want, &sent, read_to, self.now_ms());
        if let Some(base) = base {
            stream.reader.advance(base);
        }
        match sealed {
            Some(bytes) => self.publish(bytes).await,
            None => Some(()),
        }
    }

    async fn publish(&self, bytes: Vec<u8>) -> Option<()> {
        let outgoing = Outgoing {
            topic: self.topic.clone(),
            payload: Bytes::from(bytes),
            at_least_once: false,
            retain: false,
        };
        self.session.publish(outgoing).await.ok()
    }

    /// Takes frames that came: stores what is in them, and only then acknowledges.
    async fn receive(&mut self, link: &mut Link, plan: &LinkPlan, first: Bytes) {
        let mut taken = Vec::new();
        self.take(link, plan, &first, &mut taken);
        for _ in 1..FRAMES_MAX {
            let Ok(bytes) = self.frames.try_recv() else {
                break;
            };
            self.take(link, plan, &bytes, &mut taken);
        }
        self.renew(link, plan).await;
        if taken.is_empty() {
            return;
        }
        let arrived = taken.iter().map(|taken| taken.arrived.clone()).collect();
        let logs: Vec<_> = taken.iter().map(|taken| Arc::clone(&taken.log)).collect();
        let committed = move |kept: Vec<(u64, Arrived)>| {
            for ((first, arrived), log) in kept.into_iter().zip(logs) {
                let bytes = arrived.messages.iter();
                let bytes = bytes
                    .map(|message| message_bytes(&message.headers, message.body.len()))
                    .sum();
                log.occupy(bytes);
                log.committed(first, arrived.messages, Some(arrived.epoch));
            }
        };
        let kept = self.store.keep_arrived(arrived, committed).await;
        if let Err(error) = &kept {
            tracing::error!("messages of another node can't be stored: {error:#}");
        }
        for taken in taken {
            match kept {
                Ok(()) => link.receiver.stored(taken.route, taken.epoch, taken.upto),
                Err(_) => link.receiver.failed(taken.route, taken.epoch),
            }
        }
    }

    fn take(&mut self, link: &mut Link, plan: &LinkPlan, bytes: &[u8], taken: &mut Vec<Taken>) {
        let frame = match link.open(bytes, self.now_ms()) {
            Ok(Some(frame)) => frame,
            Ok(None) => return,
            Err(_) => return self.bus.refuse(),
        };
        match decode(&frame) {
            Ok(Frame::Batches(batches)) => {
                for batch in batches {
                    self.take_batch(link, plan, &batch, taken);
                }
            }
            Ok(Frame::Acks(acks)) => {
                for ack in acks {
                    self.acknowledged(link, plan, &ack);
                }
            }
            Err(_) => self.bus.refuse(),
        }
    }

    fn take_batch(
        &self,
        link: &mut Link,
        plan: &LinkPlan,
        batch: &Batch<'_>,
        taken: &mut Vec<Taken>,
    ) {
        let stream = plan.incoming.iter().find(|one| one.route == batch.route);
        let Some(stream) = stream else {
            return self.bus.refuse();
        };
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
        taken.push(Taken {
            route: batch.route,
            epoch: batch.epoch,
            upto: messages.last().map_or(0, |last| last.sequence),
            log: Arc::clone(log),
            arrived: Arrived {
                log: log.id,
                epoch: batch.epoch,
                messages,
            },
        });
    }

    fn acknowledged(&mut self, link: &mut Link, plan: &LinkPlan, ack: &Ack) {
        let stream = plan.outgoing.iter().find(|one| one.route == ack.route);
        match (link.acknowledged(ack, self.now_ms()), stream) {
            (Acknowledged::Upto(base), Some(stream)) => stream.reader.advance(base),
            (Acknowledged::Beyond, Some(_)) => self.outdated.push(ack.route),
            _ => {}
        }
    }

    /// The other node has messages that the log of a stream never had: an old copy of the log was
    /// restored. Its sequences would be taken for those that the other node has; so it becomes
    /// another log, whose messages are all new.
    async fn renew(&mut self, link: &mut Link, plan: &LinkPlan) {
        for route in std::mem::take(&mut self.outdated) {
            let Some(stream) = plan.outgoing.iter().find(|one| one.route == route) else {
                continue;
            };
            let log = &stream.reader.log;
            tracing::error!(
                "the log of {} is an old copy: it was restored from a backup? What was published since is sent as new",
                log.source.outlet
            );
            match log.renew(&self.store, now_ms()).await {
                Ok(epoch) => {
                    link.sender.close(route);
                    let (base, head) = (stream.reader.base(), log.head());
                    link.sender.open(route, epoch, base, head, stream.priority);
                }
                Err(error) => tracing::error!("the log can't be renewed: {error:#}"),
            }
        }
    }
}

/// Opens streams that are new, and closes those that are gone.
fn follow(link: &mut Link, before: &LinkPlan, now: &LinkPlan) {
    let is_kept = |route| now.outgoing.iter().any(|one| one.route == route);
    for stream in before.outgoing.iter().filter(|one| !is_kept(one.route)) {
        link.sender.close(stream.route);
    }
    let is_kept = |route| now.incoming.iter().any(|one| one.route == route);
    for stream in before.incoming.iter().filter(|one| !is_kept(one.route)) {
        link.receiver.close(stream.route);
    }
    for stream in &now.outgoing {
        let reader = &stream.reader;
        let (epoch, _) = reader.log.last();
        let (base, head) = (reader.base(), reader.log.head());
        link.sender
            .open(stream.route, epoch, base, head, stream.priority);
    }
    for stream in &now.incoming {
        let (epoch, sequence) = stream.log.last();
        let room = stream.log.room();
        link.receiver.open(stream.route, epoch, sequence, room);
    }
}

/// Leaves out what is too old to be sent, and counts it the first time.
fn without_expired(stream: &OutgoingStream, mut logged: Vec<Logged>) -> Vec<Logged> {
    if let Some(expiry_ms) = stream.expiry_ms {
        let now_ms = now_ms();
        logged.retain(|one| {
            let is_expired = one.message.is_older(expiry_ms, now_ms);
            if is_expired && stream.reader.expired(one.position) {
                count(&stream.counters.dropped);
            }
            !is_expired
        });
    }
    logged
}

fn wire(message: &Message) -> Wire<'_> {
    let headers = message.headers.iter();
    Wire {
        sequence: message.sequence,
        published_ms: message.published_ms,
        headers: headers
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect(),
        body: &message.body,
    }
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
