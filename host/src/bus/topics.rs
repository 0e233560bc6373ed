//! Routes between microservices of this node and topics of brokers, as the route table has them, and
//! what a message of a device becomes on its way in. Who talks to the brokers is in
//! [`crate::agent`].
//!
//! A message from a topic has a source of its own: the node that took it, the application of the
//! route, `mqtt:RELAY` for the microservice (no microservice has a colon in its name), and the filter
//! of the route for the outlet. Its sequence counts what the node has taken for this route.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use haar_protocol::assignment::{Assignment, TopicEnd, TopicRoute, TopicTarget};
use haar_protocol::mqtt::{Retained, TopicFilter};
use haar_relay::{DeviceSubscription, MessageProperties};
use tokio::sync::Notify;

use super::durable::{Refused, make_room};
use super::inbox::Inbox;
use super::log::{Log, Reader};
use super::message::{EXPIRY_HEADER, Entry, Headers, Message, RouteCounters, Source, count};
use super::table::DurableRoute;
use super::topic_queue::TopicQueue;
use crate::store::Store;
use crate::store::log::message_bytes;

/// Header that says the topic of a device's message.
const TOPIC_HEADER: &str = "mqtt-topic";
/// Header of a message that the broker had kept from before the subscription.
const RETAINED_HEADER: &str = "mqtt-retained";
/// Header of a message that the broker has sent before: it may be a repeat.
const DUPLICATE_HEADER: &str = "mqtt-dup";
/// Header with the topic to which a device wants its answer (MQTT 5.0 section 3.3.2.3.5).
const RESPONSE_HEADER: &str = "mqtt-response-topic";
/// Header with what an answer must carry, in hexadecimal (section 3.3.2.3.6).
const CORRELATION_HEADER: &str = "mqtt-correlation-data";
/// Header with the content type as the device says it (section 3.3.2.3.9).
const TYPE_HEADER: &str = "mqtt-content-type";
/// Header of a message whose payload is said to be text (section 3.3.2.3.2).
const FORMAT_HEADER: &str = "mqtt-payload-format";
const TEXT: &str = "utf-8";
/// What the names of headers of ours begin with: no property of a device has such a name, in whatever
/// case.
const OWN_HEADERS: &str = "mqtt-";
/// Bytes that a header costs beside name and value, as when a microservice publishes.
const HEADER_BYTES: usize = 8;

/// The routes of this node from and to the topics of one broker.
#[derive(Debug, Clone, Default)]
pub struct BrokerPlan {
    /// Told when there is more to publish, or room for more of what arrived.
    pub arrived: Arc<Notify>,
    /// Routes from its topics.
    pub incoming: Vec<IncomingTopic>,
    /// Routes to its topics.
    pub outgoing: Vec<OutgoingTopic>,
}

/// A route from topics into an inlet of this node.
#[derive(Debug, Clone)]
pub struct IncomingTopic {
    /// Which topics.
    pub filter: TopicFilter,
    /// What becomes of messages that the broker retains.
    pub retained: Retained,
    /// The inlet.
    pub entry: Arc<Entry>,
    /// What becomes of its messages.
    pub intake: Intake,
}

/// Where messages from a topic go.
#[derive(Debug, Clone)]
pub enum Intake {
    /// Into a log, before they are acknowledged.
    Log(DurableRoute),
    /// The log could not be opened: they wait at the broker.
    Nowhere,
    /// Straight into an inbox.
    Inbox {
        /// Stamped on every message.
        source: Arc<Source>,
        /// Number of the last message.
        sequence: Arc<AtomicU64>,
        /// The inbox.
        inbox: Arc<Inbox>,
    },
}

/// A route from an outlet of this node to a topic.
#[derive(Debug, Clone)]
pub struct OutgoingTopic {
    /// Number of the route.
    pub route: u64,
    /// Where its messages go.
    pub target: TopicTarget,
    /// Whether the broker forgets what it retains when the route is deleted.
    pub clears: bool,
    /// Their type.
    pub content_type: String,
    /// Routes of a higher one are served first.
    pub priority: u8,
    /// What is counted of the route here.
    pub counters: Arc<RouteCounters>,
    /// Where they come from.
    pub supply: Supply,
}

/// Where messages for a topic wait.
#[derive(Debug, Clone)]
pub enum Supply {
    /// In the outlet's log.
    Log {
        /// How far the broker is.
        reader: Arc<Reader>,
        /// Messages that are older than so many milliseconds are not sent.
        expiry_ms: Option<u64>,
    },
    /// In memory, on a live route.
    Queue(Arc<TopicQueue>),
}

/// A message of a device that takes more than the microservice, or the log, takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{bytes} bytes with its headers are more than the {limit} that are taken")]
pub struct TooLarge {
    /// What it takes.
    pub bytes: u64,
    /// What there may be.
    pub limit: u64,
}

/// Where messages from topics say that they come from.
pub fn source(assignment: &Assignment, route: &TopicRoute) -> Source {
    let outlet = match &route.topic {
        TopicEnd::From(filter) => filter.to_string(),
        TopicEnd::To(_) => route.port.to_string(),
    };
    Source {
        site: assignment.site.to_string(),
        node: assignment.node_name.to_string(),
        application: route.microservice.application.to_string(),
        microservice: format!("mqtt:{}", route.relay),
        outlet,
    }
}

/// The headers of a device's message. Returns also how many of its properties are left out: those
/// whose names are ours. All others are taken: their size counts as that of the message.
pub fn headers(
    topic: &str,
    retained: bool,
    duplicate: bool,
    said: MessageProperties,
) -> (Headers, usize) {
    let is_ours = |name: &str| {
        let start = name.get(..OWN_HEADERS.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(OWN_HEADERS))
    };
    let flag = |is_so: bool, text: &str| is_so.then(|| text.to_owned());
    let all = said.user.len();
    let own = [
        (TOPIC_HEADER, Some(topic.to_owned())),
        (RETAINED_HEADER, flag(retained, "true")),
        (DUPLICATE_HEADER, flag(duplicate, "true")),
        (TYPE_HEADER, said.content_type),
        (FORMAT_HEADER, flag(said.is_text, TEXT)),
        (RESPONSE_HEADER, said.response_topic),
        (CORRELATION_HEADER, said.correlation_data.map(hex::encode)),
        (
            EXPIRY_HEADER,
            said.expiry_s.map(|seconds| seconds.to_string()),
        ),
    ];
    let own = own.into_iter();
    let own = own.filter_map(|(name, value)| Some((name.to_owned(), value?)));
    let mut headers: Headers = own.collect();
    let own = headers.len();
    let theirs = said.user.into_iter();
    let theirs = theirs.filter(|(name, _)| !is_ours(name));
    headers.extend(theirs);
    let left_out = all + own - headers.len();
    (headers, left_out)
}

/// What a message to a topic says about itself: what its headers say of MQTT, and the others, as far
/// as MQTT can carry them (MQTT 5.0 section 1.5.4). A broker ends the connection over the rest, each
/// time again. Its type is that of the route; a header may add parameters to it.
pub fn properties(content_type: &str, headers: &Headers) -> MessageProperties {
    let is_non_character =
        |one: char| matches!(u32::from(one), 0xfdd0..=0xfdef) || u32::from(one) & 0xfffe == 0xfffe;
    let is_text = |text: &str| {
        text.len() <= usize::from(u16::MAX)
            && !text
                .chars()
                .any(|one| one.is_control() || is_non_character(one))
    };
    let mut said = MessageProperties {
        content_type: Some(content_type.to_owned()),
        ..MessageProperties::default()
    };
    for (name, value) in headers {
        if !is_text(name) || !is_text(value) {
            continue;
        }
        match name.as_str() {
            TYPE_HEADER if bare(value) == bare(content_type) => {
                said.content_type = Some(value.clone());
            }
            TYPE_HEADER => {}
            FORMAT_HEADER => said.is_text = value == TEXT,
            RESPONSE_HEADER if value.is_empty() || value.contains(['+', '#']) => {}
            RESPONSE_HEADER => said.response_topic = Some(value.clone()),
            CORRELATION_HEADER => said.correlation_data = hex::decode(value).ok().map(Bytes::from),
            EXPIRY_HEADER => said.expiry_s = value.parse().ok(),
            _ => said.user.push((name.clone(), value.clone())),
        }
    }
    said
}

/// A media type without its parameters.
fn bare(text: &str) -> String {
    let bare = text.split(';').next().unwrap_or_default();
    bare.trim().to_ascii_lowercase()
}

impl IncomingTopic {
    /// Number of the route.
    pub fn number(&self) -> u64 {
        self.entry.counters.id.to_u64()
    }

    /// True when it wants what the broker retains.
    pub fn wants_retained(&self) -> bool {
        self.retained != Retained::None
    }

    /// True when the property `content_type` of a message, if it has one, names the inlet's type.
    /// Parameters aside: `text/plain; charset=utf-8` is `text/plain`.
    pub fn takes(&self, content_type: Option<&str>) -> bool {
        content_type.is_none_or(|told| bare(told) == bare(&self.entry.content_type))
    }

    /// Whether the message is small enough, as one that a microservice publishes must be.
    ///
    /// # Errors
    /// `TooLarge`.
    pub fn check_size(&self, headers: &Headers, body: &[u8]) -> Result<(), TooLarge> {
        let of_headers = headers.iter();
        let of_headers: usize = of_headers
            .map(|(name, value)| name.len() + value.len() + HEADER_BYTES)
            .sum();
        let (bytes, mut limit) = (
            (of_headers + body.len()) as u64,
            self.entry.message_bytes_max,
        );
        if let Intake::Log(route) = &self.intake {
            limit = limit.min(route.reader.log.limit_bytes().saturating_sub(64));
        }
        match bytes > limit {
            true => Err(TooLarge { bytes, limit }),
            false => Ok(()),
        }
    }
}

impl BrokerPlan {
    /// What its routes subscribe to.
    pub fn subscriptions(&self) -> Vec<DeviceSubscription> {
        let mut subscriptions: BTreeMap<&TopicFilter, DeviceSubscription> = BTreeMap::new();
        for route in &self.incoming {
            let at_least_once = !matches!(route.intake, Intake::Inbox { .. });
            let subscription = subscriptions.entry(&route.filter);
            let subscription = subscription.or_insert_with(|| DeviceSubscription {
                filter: route.filter.clone(),
                at_least_once,
                retained: route.retained,
                receivers: BTreeSet::new(),
            });
            subscription.at_least_once |= at_least_once;
            subscription.retained = subscription.retained.max(route.retained);
            if route.wants_retained() {
                subscription.receivers.insert(route.number());
            }
        }
        subscriptions.into_values().collect()
    }

    /// The routes of a message: those of the subscription for which the broker sent it, or all that
    /// its topic fits when the broker does not say. One that the broker has retained is not for all.
    pub fn routes(
        &self,
        topic: &str,
        subscription: Option<u32>,
        is_retained: bool,
    ) -> Vec<&IncomingTopic> {
        let is_meant = |route: &&IncomingTopic| {
            let filter = &route.filter;
            subscription.is_none_or(|number| filter.subscription_id() == number)
                && filter.matches(topic)
                && (!is_retained || route.wants_retained())
        };
        self.incoming.iter().filter(is_meant).collect()
    }
}

/// Sets room aside for a message in the log of a durable route; the oldest messages go where the route
/// says so. False when it is full.
///
/// # Errors
/// When the store can't be written.
pub async fn reserve(
    store: &Store,
    route: &DurableRoute,
    headers: &Headers,
    body: usize,
) -> anyhow::Result<bool> {
    let log = &route.reader.log;
    let bytes = message_bytes(headers, body);
    if log.reserve(bytes) {
        return Ok(true);
    }
    match make_room(store, std::slice::from_ref(route), log, bytes).await {
        Ok(has_room) => Ok(has_room),
        Err(Refused::NotStored(error)) => Err(error),
        Err(Refused::Full) => Ok(false),
    }
}

/// Gives back what was set aside for a message.
pub fn give_back(route: &DurableRoute, headers: &Headers, body: usize) {
    route.reader.log.release(message_bytes(headers, body));
}

/// Stores messages for which room was set aside. They are on the disk when it returns.
///
/// # Errors
/// When the store can't be written: then none of them is there, and their room is given back.
pub async fn keep(
    store: &Store,
    route: DurableRoute,
    messages: Vec<(Headers, Vec<u8>)>,
    now_ms: u64,
) -> anyhow::Result<()> {
    let log: Arc<Log> = Arc::clone(&route.reader.log);
    let bytes = messages.iter();
    let bytes = bytes
        .map(|(headers, body)| message_bytes(headers, body.len()))
        .sum();
    let committed = {
        let (log, ages) = (Arc::clone(&log), store.ages().clone());
        move |first: u64, messages: Vec<(Headers, Vec<u8>)>| {
            let stamped = (first..).zip(messages).map(|(sequence, (headers, body))| {
                count(&route.counters.sent);
                Arc::new(Message {
                    source: Arc::clone(&log.source),
                    sequence,
                    published_ms: now_ms,
                    headers,
                    body,
                })
            });
            log.committed(first, stamped.collect::<Vec<_>>(), None, ages.now_ms());
        }
    };
    let stored = store.append(log.id, now_ms, messages, committed).await;
    stored.map(drop).inspect_err(|_| log.release(bytes))
}

#[cfg(test)]
mod tests;
