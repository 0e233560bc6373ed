//! The task of the link to one other node: carries out what [`haar_link`] decides, with the bus and
//! the node's logs on one side and the relay on the other. It waits in one place, for whatever
//! happens first; nothing of the network waits for the disk.
//!
//! ```text
//! bus ─ live queue ──┐                                                    ┌─► bus ─► inboxes
//!                    ├─► leaving ─ sealed frame ─► relay ─► frames ─► arriving
//! logs ─ read ───────┘      ▲                                     │       └─► logs ─ stored ─┐
//!                           └── acknowledgements ◄────────────────┴──────────────────────────┘
//! ```

mod arriving;
mod crossing;
mod leaving;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod waiting;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use haar_link::link::Link;
use haar_link::paths::RelayNumber;
use haar_link::sender::Settings;
use haar_link::session::Session as Seals;
use haar_protocol::ids::{Name, NodeId};
use haar_relay::{Outgoing, PublishError, Room, Session};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use self::arriving::Arriving;
use self::crossing::Crossing;
use self::leaving::Leaving;
use super::connection::sleep_until;
use super::relays::Table;
use crate::bus::Bus;
use crate::bus::logs::LinkPlan;
use crate::bus::message::count;
use crate::bus::peer::PeerQueue;
use crate::store::Store;

/// Frames that are opened before anything else happens.
const FRAMES_MAX: usize = 64;

/// After a store that can't be read or written.
const STORE_PAUSE: Duration = Duration::from_secs(1);

/// Something that the disk does meanwhile.
type Work<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What a link needs of its node.
pub(super) struct Ways {
    pub(super) bus: Arc<Bus>,
    pub(super) store: Store,
    /// The other node.
    pub(super) node: NodeId,
    /// Where frames to the other node go.
    pub(super) topic: String,
    /// The relays that this node attaches to.
    pub(super) relays: watch::Receiver<Table>,
    /// The names of those that the other one attaches to, too; empty for all.
    pub(super) shared: watch::Receiver<Vec<Name>>,
    pub(super) plan: watch::Receiver<LinkPlan>,
    /// What relays deliver of the other node.
    pub(super) frames: mpsc::Receiver<(RelayNumber, Bytes)>,
    /// Since when time is counted.
    pub(super) began: Instant,
}

/// The task of one link.
pub(super) struct PeerLink {
    ways: Ways,
    link: Link,
    crossing: Crossing,
    plan: LinkPlan,
    arriving: Arriving,
    leaving: Leaving,
}

impl PeerLink {
    pub(super) fn new(mut ways: Ways, seals: Seals) -> Self {
        ways.plan.mark_changed();
        ways.relays.mark_changed();
        Self {
            crossing: Crossing::default(),
            link: Link::new(seals, Settings::default()),
            plan: LinkPlan::default(),
            arriving: Arriving::new(Arc::clone(&ways.bus), ways.store.clone(), ways.node.clone()),
            leaving: Leaving::new(ways.store.clone()),
            ways,
        }
    }

    /// Runs until the agent stops.
    pub(super) async fn run(mut self) {
        let mut has_more = true;
        loop {
            self.choose();
            let relay = self.crossing.chosen();
            let wake = self.wake_ms(has_more).map(|ms| self.instant(ms));
            let arrived = Arc::clone(&self.plan.arrived);
            let live = match self.link.is_open() && !has_more {
                true => self.plan.live.clone(),
                false => None,
            };
            tokio::select! {
                room = room(relay.as_ref()), if has_more => {
                    match room {
                        Some(room) => has_more = self.send(room),
                        None => self.crossing.ended(),
                    }
                    continue;
                }
                Some(first) = self.ways.frames.recv() => self.receive(first),
                changed = self.ways.plan.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.follow();
                }
                changed = self.ways.relays.changed() => {
                    if changed.is_err() {
                        return; // the agent is stopping
                    }
                    self.meet();
                }
                changed = self.ways.shared.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.meet();
                }
                done = self.leaving.done() => self.leaving.apply(&mut self.link, &self.plan, done),
                done = self.arriving.done() => self.arriving.apply(&mut self.link, &self.plan, done),
                () = arrived.notified() => {}
                () = filled(live) => {}
                () = sleep_until(wake) => {}
            }
            self.look_at_logs();
            has_more = true;
        }
    }

    /// The relays that both nodes attach to may be others now.
    fn meet(&mut self) {
        let relays = self.ways.relays.borrow_and_update().clone();
        let shared = self.ways.shared.borrow_and_update().clone();
        self.crossing.meet(&relays, &shared);
        self.link.set_probes(self.crossing.has_choice());
    }

    /// Chooses the relay for what is sent next. Over another one everything begins anew: what was not
    /// answered is sent again at once.
    fn choose(&mut self) {
        let now_ms = self.now_ms();
        let unanswered = self.link.unanswered_since_ms();
        if let Some(connected) = self.crossing.choose(unanswered, now_ms) {
            self.link.connected(connected, now_ms);
        }
        while let Some(session) = self.crossing.ask(now_ms) {
            if let Some(bytes) = self.link.probe(now_ms) {
                self.send_over(&session, bytes);
            }
        }
    }

    /// When to go on although nothing has happened. What is due already and waits for room at the
    /// relay, or for the disk, is no reason: that would be to ask again and again.
    fn wake_ms(&self, has_more: bool) -> Option<u64> {
        let unanswered = self.link.unanswered_since_ms();
        let choice = self.crossing.wake_ms(unanswered);
        let link = match (has_more, self.leaving.is_reading()) {
            (true, _) => None,
            (false, true) => self.link.hello_ms(),
            (false, false) => self.link.wake_ms(),
        };
        link.into_iter().chain(choice).min()
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.ways.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn instant(&self, ms: u64) -> Instant {
        self.ways.began + Duration::from_millis(ms)
    }

    /// Hands the next frame to the relay, which has room for it. False when there is none.
    fn send(&mut self, room: Room<'_>) -> bool {
        let now_ms = self.now_ms();
        let Some(frame) = self.leaving.next(&mut self.link, &self.plan, now_ms) else {
            return false;
        };
        if let Err(error) = self.publish(room, frame.bytes) {
            tracing::error!("a frame to node {} is lost: {error}", self.ways.node);
            for outbound in frame.live {
                count(&outbound.counters.dropped);
            }
        }
        true
    }

    fn publish(&self, room: Room<'_>, bytes: Vec<u8>) -> Result<(), PublishError> {
        room.publish(self.outgoing(bytes))
    }

    /// Sends over a certain relay what does not matter when it has no room.
    fn send_over(&self, session: &Session, bytes: Vec<u8>) {
        if let Err(error) = session.try_publish(self.outgoing(bytes)) {
            tracing::debug!("not sent to node {}: {error}", self.ways.node);
        }
    }

    fn outgoing(&self, bytes: Vec<u8>) -> Outgoing {
        Outgoing {
            topic: self.ways.topic.clone(),
            payload: Bytes::from(bytes),
            at_least_once: false,
            retain: false,
        }
    }

    /// Takes what came, and what came meanwhile.
    fn receive(&mut self, first: (RelayNumber, Bytes)) {
        self.take(first);
        for _ in 1..FRAMES_MAX {
            let Ok(next) = self.ways.frames.try_recv() else {
                break;
            };
            self.take(next);
        }
        self.arriving.write(&mut self.link, &self.plan);
    }

    fn take(&mut self, (relay, bytes): (RelayNumber, Bytes)) {
        let now_ms = self.now_ms();
        let heard = self.arriving.heard();
        let acks = self
            .arriving
            .take(&mut self.link, &self.plan, &bytes, now_ms);
        if self.arriving.heard() > heard {
            self.crossing.heard(relay, now_ms);
        }
        // A hello is answered where it came from: the other one may be nowhere else.
        while let Some(answer) = self.link.take_answer() {
            if let Some(session) = self.crossing.session(relay) {
                self.send_over(&session, answer);
            }
        }
        for ack in acks {
            self.leaving
                .acknowledged(&mut self.link, &self.plan, &ack, now_ms);
        }
    }

    /// How far logs are, and what room they have.
    fn look_at_logs(&mut self) {
        for stream in &self.plan.outgoing {
            self.link.sender.skip(stream.route, stream.reader.base());
            self.link
                .sender
                .stored(stream.route, stream.reader.log.head());
        }
        for stream in &self.plan.incoming {
            self.link.receiver.set_room(stream.route, stream.log.room());
        }
    }

    /// Opens streams that are new, and closes those that are gone.
    fn follow(&mut self) {
        let now = self.ways.plan.borrow_and_update().clone();
        let before = std::mem::replace(&mut self.plan, now);
        let (now, link) = (&self.plan, &mut self.link);
        let is_kept = |route| now.outgoing.iter().any(|one| one.route == route);
        for stream in before.outgoing.iter().filter(|one| !is_kept(one.route)) {
            link.sender.close(stream.route);
        }
        let is_kept = |route| now.incoming.iter().any(|one| one.route == route);
        for stream in before.incoming.iter().filter(|one| !is_kept(one.route)) {
            link.receiver.close(stream.route);
        }
        for stream in &now.outgoing {
            leaving::open(link, stream);
        }
        for stream in &now.incoming {
            let (runs, room) = (stream.log.runs(), stream.log.room());
            link.receiver.open(stream.route, runs.iter(), room);
        }
    }
}

/// Waits for room at a relay; for ever when there is none. None when the session has ended.
async fn room(relay: Option<&Session>) -> Option<Room<'_>> {
    match relay {
        Some(relay) => relay.room().await.ok(),
        None => std::future::pending().await,
    }
}

/// Waits until something is in the queue.
async fn filled(queue: Option<Arc<PeerQueue>>) {
    match queue {
        Some(queue) => queue.wait().await,
        None => std::future::pending().await,
    }
}

/// Waits for the disk, when it has something to do.
async fn finished<T>(work: &mut Option<Work<T>>) -> T {
    match work {
        Some(running) => {
            let done = running.await;
            *work = None;
            done
        }
        None => std::future::pending().await,
    }
}
