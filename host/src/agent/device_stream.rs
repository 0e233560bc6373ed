//! One route on its way to a topic: what of its log was read, what the broker has not acknowledged, and
//! what the broker does not do for it. [`super::device_output`] shares a connection among them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use haar_protocol::ids::Name;
use haar_relay::{DevicePublish, DeviceTerms};
use tokio::time::Instant;

use crate::bus::log::Reader;
use crate::bus::message::{self, Message, count};
use crate::bus::topic_queue::TopicQueue;
use crate::bus::topics::{self, OutgoingTopic, Supply};
use crate::store::Store;
use crate::store::log::Logged;

/// Bytes that are read from a log at a time.
const READ_BYTES: u64 = 64 << 10;
/// See [`DeviceTerms::acknowledges`].
const NO_ACKNOWLEDGEMENTS: &str =
    "takes QoS 0 only: a durable route waits for another broker, `delivery: live` does with QoS 0";
/// See [`DeviceTerms::retains`].
const NO_RETAINING: &str =
    "does not retain messages: they reach those who listen now, and nobody later";

/// A route on its way out.
pub(super) struct Stream {
    pub(super) route: OutgoingTopic,
    /// Position of the last message that was read.
    pub(super) read_to: u64,
    pub(super) ready: VecDeque<Logged>,
    pub(super) in_flight: VecDeque<InFlight>,
    /// Until when the route pauses because the broker has refused a message, and the length of that pause.
    pub(super) refused: Option<(Instant, Duration)>,
    /// What the route needs and the broker does not support on this connection.
    pub(super) lack: Option<&'static str>,
    /// What the topic of a route with a will says: sent again when the will may be in its place.
    last: Option<Last>,
    is_last_due: bool,
}

pub(super) struct InFlight {
    pub(super) token: u64,
    pub(super) position: u64,
    pub(super) is_done: bool,
    /// What the topic says when the broker has taken it.
    pub(super) last: Option<Last>,
}

/// A message of a route with a will.
pub(super) struct Last {
    message: Arc<Message>,
    /// When this node had it, by its [`AgeClock`](crate::store::ages::AgeClock).
    since_ms: u64,
}

impl Stream {
    pub(super) fn new(route: OutgoingTopic) -> Self {
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
            lack: None,
            last: None,
            is_last_due: false,
        }
    }

    pub(super) fn reader(&self) -> Option<&Arc<Reader>> {
        match &self.route.supply {
            Supply::Log { reader, .. } => Some(reader),
            Supply::Queue(_) => None,
        }
    }

    pub(super) fn queue(&self) -> Option<&Arc<TopicQueue>> {
        match &self.route.supply {
            Supply::Log { .. } => None,
            Supply::Queue(queue) => Some(queue),
        }
    }

    /// From the first message that is not acknowledged.
    pub(super) fn begin_again(&mut self) {
        self.ready.clear();
        self.in_flight.clear();
        self.read_to = self.reader().map_or(0, |reader| reader.base());
    }

    pub(super) fn is_paused(&self) -> bool {
        self.lack == Some(NO_ACKNOWLEDGEMENTS)
            || self
                .refused
                .is_some_and(|(until, _)| until > Instant::now())
    }

    /// Notes what the route needs and the broker of this connection does not support, and reports it.
    pub(super) fn connected(&mut self, relay: &Name, terms: DeviceTerms) {
        self.lack = if !terms.acknowledges && self.reader().is_some() {
            Some(NO_ACKNOWLEDGEMENTS)
        } else if !terms.retains && self.route.target.retain {
            Some(NO_RETAINING)
        } else {
            None
        };
        self.is_last_due = self.last.is_some();
        self.report(relay, self.lack);
    }

    pub(super) fn report(&self, relay: &Name, problem: Option<&str>) {
        let problem = problem.map(|why| format!("the broker of relay `{relay}` {why}"));
        let is_new = self.route.counters.report(problem.clone());
        if let Some(problem) = problem.filter(|_| is_new) {
            let topic = &self.route.target.topic;
            tracing::warn!(%topic, "{problem}");
        }
    }

    /// What is to be kept of a message in case that the broker publishes the will.
    pub(super) fn last_of(&self, message: &Arc<Message>, since_ms: u64) -> Option<Last> {
        self.route.target.will.as_ref().map(|_| Last {
            message: Arc::clone(message),
            since_ms,
        })
    }

    /// The topic says this now, unless it says something later: acknowledgements may come in another
    /// order than that of the messages.
    pub(super) fn says(&mut self, last: Option<Last>) {
        let Some(last) = last else {
            return;
        };
        let before = self.last.as_ref();
        if before.is_none_or(|before| before.message.sequence <= last.message.sequence) {
            self.last = Some(last);
        }
        self.is_last_due = false;
    }

    /// True when the last message is to be sent again. Not while later ones are on their way: they
    /// take its place.
    pub(super) fn is_last_due(&self) -> bool {
        let is_through = match &self.route.supply {
            Supply::Log { reader, .. } => {
                let is_read = self.read_to >= reader.log.head();
                is_read && self.ready.is_empty() && self.in_flight.is_empty()
            }
            Supply::Queue(queue) => queue.is_empty(),
        };
        self.is_last_due && is_through
    }

    /// The last message, to be sent again; none when it is of no use any more.
    pub(super) fn take_last(&mut self, now_ms: u64, at_least_once: bool) -> Option<DevicePublish> {
        self.is_last_due = false;
        let last = self.last.as_ref()?;
        let waited_ms = now_ms.saturating_sub(last.since_ms);
        let expiry_ms = match &self.route.supply {
            Supply::Log { expiry_ms, .. } => *expiry_ms,
            Supply::Queue(_) => None,
        };
        if expiry_ms.is_some_and(|age| waited_ms > age) {
            return None;
        }
        publish(&self.route, &last.message, waited_ms, at_least_once)
    }

    /// Lets the log delete what is finished.
    pub(super) fn advance(&mut self) {
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

    /// Reads more when nothing is ready. Expired messages are skipped, and counted once.
    pub(super) async fn read(&mut self, store: &Store) -> anyhow::Result<()> {
        let Supply::Log { reader, expiry_ms } = self.route.supply.clone() else {
            return Ok(());
        };
        // What made room for newer messages is gone.
        self.read_to = self.read_to.max(reader.base());
        if !self.ready.is_empty() || self.read_to >= reader.log.head() {
            return Ok(());
        }
        let head = reader.log.head();
        let messages = reader.log.read(store, self.read_to, READ_BYTES).await?;
        if messages.is_empty() {
            self.read_to = self.read_to.max(head); // the last ones are lost: nothing comes up to here
        }
        let now_ms = store.ages().now_ms();
        for logged in messages {
            self.read_to = logged.position;
            if !message::is_expired(&logged, expiry_ms, now_ms) {
                self.ready.push_back(logged);
                continue;
            }
            if reader.expired(logged.position) {
                count(&self.route.counters.dropped);
            }
        }
        self.advance();
        Ok(())
    }
}

/// A message as it is published to devices after it has waited here; none when it has expired.
pub(super) fn publish(
    route: &OutgoingTopic,
    message: &Message,
    waited_ms: u64,
    at_least_once: bool,
) -> Option<DevicePublish> {
    let mut properties = topics::properties(&route.content_type, &message.headers);
    // Brokers may look whether it is.
    properties.is_text &= std::str::from_utf8(&message.body).is_ok();
    if let Some(seconds) = properties.expiry_s {
        let left_ms = (u64::from(seconds) * 1_000).checked_sub(waited_ms)?;
        properties.expiry_s = u32::try_from(left_ms.div_ceil(1_000)).ok();
    }
    Some(DevicePublish {
        topic: route.target.topic.clone(),
        payload: Bytes::from(message.body.clone()),
        retain: route.target.retain,
        properties,
        at_least_once,
    })
}
