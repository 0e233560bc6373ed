//! Messages of outlets on their way to topics. On a durable route the outlet's log keeps a message
//! until the broker has acknowledged it; what was not acknowledged when a connection ended is
//! published again on the next one, in its order.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use haar_protocol::ids::Name;
use haar_relay::{DevicePublish, DeviceSession, Outcome};
use tokio::time::Instant;

use super::device_link::STORE_PAUSE;
use crate::bus::log::Reader;
use crate::bus::message::{Message, count};
use crate::bus::topic_queue::TopicQueue;
use crate::bus::topics::{self, BrokerPlan, OutgoingTopic, Supply};
use crate::store::Store;
use crate::store::log::Logged;

/// Bytes that are read from a log at a time.
const READ_BYTES: u64 = 64 << 10;
/// Messages of durable routes that the broker has not acknowledged, at most.
const IN_FLIGHT_MAX: usize = 32;
/// How long a route waits when the broker has refused its message: doubled each time.
const REFUSED_PAUSES: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(30);

pub(super) struct Output {
    store: Store,
    streams: Vec<Stream>,
    tokens: u64,
    /// The stream that is served next.
    turn: usize,
    /// A log could not be read: tried again then.
    paused_until: Option<Instant>,
}

/// A route on its way out.
struct Stream {
    route: OutgoingTopic,
    /// Position of the last message that was read.
    read_to: u64,
    ready: VecDeque<Logged>,
    in_flight: VecDeque<InFlight>,
    /// The broker has refused a message.
    refused: Option<(Instant, Duration)>,
}

struct InFlight {
    token: u64,
    position: u64,
    is_done: bool,
}

impl Stream {
    fn new(route: OutgoingTopic) -> Self {
        let read_to = match &route.supply {
            Supply::Log { reader, .. } => reader.base(),
            Supply::Queue(_) => 0,
        };
        Self {
            route,
            read_to,
            ready: VecDeque::new(),
            in_flight: VecDeque::new(),
            refused: None,
        }
    }

    fn reader(&self) -> Option<&Arc<Reader>> {
        match &self.route.supply {
            Supply::Log { reader, .. } => Some(reader),
            Supply::Queue(_) => None,
        }
    }

    fn queue(&self) -> Option<&Arc<TopicQueue>> {
        match &self.route.supply {
            Supply::Log { .. } => None,
            Supply::Queue(queue) => Some(queue),
        }
    }

    /// From the first message that is not acknowledged.
    fn begin_again(&mut self) {
        self.ready.clear();
        self.in_flight.clear();
        self.read_to = self.reader().map_or(0, |reader| reader.base());
    }

    fn is_paused(&self) -> bool {
        self.refused
            .is_some_and(|(until, _)| until > Instant::now())
    }

    /// The log lets go of what is done with.
    fn advance(&mut self) {
        let mut base = 0;
        while let Some(first) = self.in_flight.pop_front_if(|first| first.is_done) {
            base = first.position;
        }
        if self.in_flight.is_empty() && self.ready.is_empty() {
            base = self.read_to; // also what has expired
        }
        if let Some(reader) = self.reader().filter(|reader| base > reader.base()) {
            reader.advance(base);
        }
    }
}

impl Output {
    pub(super) fn new(store: Store) -> Self {
        Self {
            store,
            streams: Vec::new(),
            tokens: 0,
            turn: 0,
            paused_until: None,
        }
    }

    /// Serves these routes from now on: those of a higher priority first.
    pub(super) fn follow(&mut self, plan: &BrokerPlan) {
        let mut before = std::mem::take(&mut self.streams);
        for route in &plan.outgoing {
            let known = before.iter().position(|stream| {
                stream.route.route == route.route
                    && match (stream.reader(), &route.supply) {
                        (Some(reader), Supply::Log { reader: other, .. }) => {
                            Arc::ptr_eq(reader, other)
                        }
                        (None, Supply::Queue(_)) => true,
                        _ => false,
                    }
            });
            let stream = match known {
                Some(index) => {
                    let mut stream = before.swap_remove(index);
                    stream.route = route.clone();
                    stream
                }
                None => Stream::new(route.clone()),
            };
            self.streams.push(stream);
        }
        self.streams
            .sort_by_key(|stream| std::cmp::Reverse(stream.route.priority));
    }

    pub(super) fn wake(&self) -> Option<Instant> {
        let now = Instant::now();
        let refused = self.streams.iter().filter_map(|stream| stream.refused);
        let refused = refused.map(|(until, _)| until).filter(|until| *until > now);
        let paused = self.paused_until.filter(|until| *until > now);
        refused.chain(paused).min()
    }

    /// What was handed over on a connection that has ended is published again.
    pub(super) fn disconnected(&mut self) {
        for stream in &mut self.streams {
            stream.begin_again();
        }
    }

    /// Reads what is to be published next. True when there is something.
    pub(super) async fn fill(&mut self) -> bool {
        let in_flight: usize = self.streams.iter().map(|one| one.in_flight.len()).sum();
        let has_room = in_flight < IN_FLIGHT_MAX;
        if self
            .paused_until
            .is_some_and(|until| until <= Instant::now())
        {
            self.paused_until = None;
        }
        let mut has_some = false;
        for stream in &mut self.streams {
            if let Some(queue) = stream.queue() {
                has_some |= !queue.is_empty();
                continue;
            }
            if stream.is_paused() || !has_room || self.paused_until.is_some() {
                continue;
            }
            if let Err(error) = read(&self.store, stream).await {
                if !self.store.is_known_to_fail() {
                    tracing::error!("a log can't be read: {error:#}; tried again");
                }
                self.paused_until = Some(Instant::now() + STORE_PAUSE);
            }
            has_some |= !stream.ready.is_empty();
        }
        has_some
    }

    /// Publishes one message: of the live routes first, then of the durable ones in their turn among
    /// those of one priority.
    pub(super) fn send(&mut self, session: &DeviceSession, connection: u64) {
        self.tokens += 1;
        let token = self.tokens;
        for stream in &self.streams {
            if let Some(message) = stream.queue().and_then(|queue| queue.pop()) {
                let outgoing = publish(&stream.route, &message, false);
                match session.publish(connection, token, outgoing) {
                    Ok(()) => count(&stream.route.counters.delivered),
                    Err(_) => count(&stream.route.counters.dropped),
                }
                return;
            }
        }
        let is_ready = |stream: &&mut Stream| !stream.ready.is_empty() && !stream.is_paused();
        let highest = self.streams.iter_mut().filter(is_ready);
        let highest = highest.map(|stream| stream.route.priority).max();
        let equals = self.streams.iter_mut().filter(is_ready);
        let mut equals: Vec<_> = equals
            .filter(|stream| Some(stream.route.priority) == highest)
            .collect();
        if equals.is_empty() {
            return;
        }
        self.turn = self.turn.wrapping_add(1);
        let index = self.turn % equals.len();
        let stream = &mut equals[index];
        let Some(logged) = stream.ready.pop_front() else {
            return;
        };
        let outgoing = publish(&stream.route, &logged.message, true);
        match session.publish(connection, token, outgoing) {
            Ok(()) => stream.in_flight.push_back(InFlight {
                token,
                position: logged.position,
                is_done: false,
            }),
            Err(_) => stream.ready.push_front(logged),
        }
    }

    /// The broker has answered, or no broker will.
    pub(super) fn published(&mut self, relay: &Name, token: u64, outcome: Outcome) {
        let found = self.streams.iter_mut().find_map(|stream| {
            let index = stream.in_flight.iter().position(|one| one.token == token);
            index.map(|index| (stream, index))
        });
        let Some((stream, index)) = found else {
            // Of a live route, or published again by now.
            if let Outcome::Never(why) = outcome {
                tracing::warn!(%relay, "a message of a live route is dropped: {why}");
            }
            return;
        };
        let (route, topic) = (&stream.route, &stream.route.target.topic);
        match outcome {
            Outcome::Taken => {
                count(&route.counters.delivered);
                stream.refused = None;
            }
            Outcome::Never(why) => {
                tracing::warn!(%relay, %topic, "a message is dropped: {why}");
                count(&route.counters.dropped);
            }
            Outcome::Refused(why) => {
                let pause = stream
                    .refused
                    .map_or(*REFUSED_PAUSES.start(), |(_, before)| {
                        (before * 2).min(*REFUSED_PAUSES.end())
                    });
                tracing::warn!(%relay, %topic, "the broker refused a message: {why}; published again in {pause:?}");
                stream.refused = Some((Instant::now() + pause, pause));
                stream.begin_again();
                return;
            }
        }
        if let Some(answered) = stream.in_flight.get_mut(index) {
            answered.is_done = true;
        }
        stream.advance();
    }
}

/// Reads on where a stream has nothing ready. What has expired is passed over, and counted once.
async fn read(store: &Store, stream: &mut Stream) -> anyhow::Result<()> {
    let Supply::Log { reader, expiry_ms } = stream.route.supply.clone() else {
        return Ok(());
    };
    // What made room for newer messages is gone.
    stream.read_to = stream.read_to.max(reader.base());
    if !stream.ready.is_empty() || stream.read_to >= reader.log.head() {
        return Ok(());
    }
    let messages = reader.log.read(store, stream.read_to, READ_BYTES).await?;
    let now_ms = store.ages().now_ms();
    for logged in messages {
        stream.read_to = logged.position;
        let is_expired = expiry_ms.is_some_and(|age| logged.is_older(age, now_ms));
        if !is_expired {
            stream.ready.push_back(logged);
            continue;
        }
        if reader.expired(logged.position) {
            count(&stream.route.counters.dropped);
        }
    }
    stream.advance();
    Ok(())
}

fn publish(route: &OutgoingTopic, message: &Message, at_least_once: bool) -> DevicePublish {
    DevicePublish {
        topic: route.target.topic.clone(),
        payload: Bytes::from(message.body.clone()),
        retain: route.target.retain,
        content_type: route.content_type.clone(),
        user_properties: topics::properties(&message.headers),
        at_least_once,
    }
}
