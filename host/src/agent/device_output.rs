//! Messages of outlets on their way to topics. On a durable route the outlet's log keeps a message
//! until the broker has acknowledged it; what was not acknowledged when a connection ended is
//! published again on the next one, in its order.

use std::sync::Arc;
use std::time::Duration;

use haar_protocol::ids::Name;
use haar_relay::{DeviceSession, DeviceTerms, Outcome};
use tokio::time::Instant;

use super::device_errands::Errands;
use super::device_link::STORE_PAUSE;
use super::device_stream::{InFlight, Stream, publish};
use crate::bus::message::count;
use crate::bus::topics::{BrokerPlan, Supply};
use crate::store::Store;

/// Messages of durable routes that the broker has not acknowledged, at most.
const IN_FLIGHT_MAX: usize = 32;
/// How long a route waits when the broker has refused its message: doubled each time.
const REFUSED_PAUSES: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(30);

pub(super) struct Output {
    relay: Name,
    store: Store,
    /// What the broker allows.
    terms: Option<DeviceTerms>,
    errands: Errands,
    /// Only errands are sent any more.
    is_leaving: bool,
    streams: Vec<Stream>,
    tokens: u64,
    /// The stream that is served next.
    turn: usize,
    /// A log could not be read: tried again then.
    paused_until: Option<Instant>,
}

impl Output {
    pub(super) fn new(relay: Name, store: Store) -> Self {
        Self {
            relay,
            store,
            terms: None,
            errands: Errands::default(),
            is_leaving: false,
            streams: Vec::new(),
            tokens: 0,
            turn: 0,
            paused_until: None,
        }
    }

    /// A session begins.
    pub(super) fn begin(&mut self, plan: &BrokerPlan) {
        self.is_leaving = false;
        self.disconnected();
        self.follow(plan);
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
                None => {
                    let mut stream = Stream::new(route.clone());
                    if let Some(terms) = self.terms {
                        stream.connected(&self.relay, terms);
                    }
                    stream
                }
            };
            self.streams.push(stream);
        }
        for gone in before {
            self.errands.withdrawn(&gone.route);
        }
        for stream in &self.streams {
            self.errands.cancel(&stream.route.target.topic);
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

    /// Prepares the last messages to the broker: the agent ends, or no route needs the broker any more.
    pub(super) fn leave(&mut self, is_withdrawn: bool) {
        if is_withdrawn {
            self.follow(&BrokerPlan::default());
        }
        for stream in &self.streams {
            self.errands.leave(&stream.route);
        }
        self.is_leaving = true;
    }

    /// True while messages about withdrawn routes wait for the broker.
    pub(super) fn has_errands(&self) -> bool {
        !self.errands.is_empty()
    }

    /// Begins a connection.
    pub(super) fn connected(&mut self, terms: DeviceTerms) {
        self.terms = Some(terms);
        for stream in &mut self.streams {
            stream.connected(&self.relay, terms);
        }
    }

    /// What was handed over on a connection that has ended is published again.
    pub(super) fn disconnected(&mut self) {
        self.terms = None;
        self.errands.disconnected();
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
        let mut has_some = self.errands.is_waiting();
        if self.is_leaving {
            return has_some;
        }
        for stream in &mut self.streams {
            has_some |= stream.is_last_due();
            if let Some(queue) = stream.queue() {
                has_some |= !queue.is_empty();
                continue;
            }
            if stream.is_paused() || !has_room || self.paused_until.is_some() {
                continue;
            }
            if let Err(error) = stream.read(&self.store).await {
                if !self.store.is_known_to_fail() {
                    tracing::error!("a log can't be read: {error:#}; tried again");
                }
                self.paused_until = Some(Instant::now() + STORE_PAUSE);
            }
            has_some |= !stream.ready.is_empty() || stream.is_last_due();
        }
        has_some
    }

    /// Publishes one message: errands first, then of the live routes, then of the durable ones in their
    /// turn among those of one priority. What is told when the agent leaves is the last word.
    pub(super) fn send(&mut self, session: &DeviceSession, connection: u64) {
        let Some(terms) = self.terms else {
            return;
        };
        self.tokens += 1;
        let token = self.tokens;
        let is_sent = self.errands.send(session, connection, token, terms)
            || self.is_leaving
            || self.send_live(session, connection, token, terms);
        if !is_sent {
            self.send_durable(session, connection, token);
        }
    }

    /// False when there was nothing to send.
    fn send_live(
        &mut self,
        session: &DeviceSession,
        connection: u64,
        token: u64,
        terms: DeviceTerms,
    ) -> bool {
        let now_ms = self.store.ages().now_ms();
        for stream in &mut self.streams {
            if stream.is_last_due()
                && let Some(last) = stream.take_last(now_ms, terms.acknowledges)
            {
                // An error means that the connection has ended. The next connection sends it again.
                let _ = session.publish(connection, token, last);
                return true;
            }
            let next = stream.queue().and_then(|queue| queue.pop());
            if let Some((waited_ms, message)) = next {
                let outgoing = publish(&stream.route, &message, waited_ms, false);
                let sent = outgoing.map(|outgoing| session.publish(connection, token, outgoing));
                match sent {
                    Some(Ok(())) => {
                        count(&stream.route.counters.delivered);
                        let last = stream.last_of(&message, now_ms.saturating_sub(waited_ms));
                        stream.says(last);
                    }
                    Some(Err(_)) | None => count(&stream.route.counters.dropped),
                }
                return true;
            }
        }
        false
    }

    fn send_durable(&mut self, session: &DeviceSession, connection: u64, token: u64) {
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
        let now_ms = self.store.ages().now_ms();
        let Some(logged) = stream.ready.pop_front() else {
            return;
        };
        let waited_ms = now_ms.saturating_sub(logged.stored_ms);
        let outgoing = publish(&stream.route, &logged.message, waited_ms, true);
        let is_expired = outgoing.is_none();
        let sent = outgoing.map(|outgoing| session.publish(connection, token, outgoing));
        if let Some(Err(_)) = sent {
            stream.ready.push_front(logged);
            return;
        }
        let position = logged.position;
        stream.in_flight.push_back(InFlight {
            token,
            position,
            is_done: is_expired,
            last: stream.last_of(&logged.message, logged.stored_ms),
        });
        if !is_expired {
            return;
        }
        if stream
            .reader()
            .is_some_and(|reader| reader.expired(position))
        {
            count(&stream.route.counters.dropped);
        }
        stream.advance();
    }

    /// The broker has answered, or no broker will.
    pub(super) fn published(&mut self, token: u64, outcome: Outcome) {
        let relay = &self.relay;
        if self.errands.published(relay, token, &outcome) {
            return;
        }
        let found = self.streams.iter_mut().find_map(|stream| {
            let index = stream.in_flight.iter().position(|one| one.token == token);
            index.map(|index| (stream, index))
        });
        let Some((stream, index)) = found else {
            // Of a live route, sent again for a will, or published again by now.
            if let Outcome::Never(why) = outcome {
                tracing::warn!(%relay, "a message is dropped: {why}");
            }
            return;
        };
        let (route, topic) = (&stream.route, &stream.route.target.topic);
        match outcome {
            Outcome::Taken => {
                count(&route.counters.delivered);
                let last = stream.in_flight[index].last.take();
                stream.says(last);
                if stream.refused.take().is_some() {
                    stream.report(relay, stream.lack);
                }
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
                let problem = format!("refused a message: {why}");
                stream.report(relay, Some(&problem));
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
