//! Routes between microservices of this node and topics of brokers, as the route table has them, and
//! what a message of a device becomes on its way in. Who talks to the brokers is in
//! [`crate::agent`].
//!
//! A message from a topic has a source of its own: the node that took it, the application of the
//! route, `mqtt:RELAY` for the microservice (no microservice has a colon in its name), and the filter
//! of the route for the outlet. Its sequence counts what the node has taken for this route.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use haar_protocol::assignment::{Assignment, TopicEnd, TopicRoute, TopicTarget};
use haar_protocol::mqtt::TopicFilter;
use tokio::sync::Notify;

use super::durable::{Refused, make_room};
use super::inbox::Inbox;
use super::log::{Log, Reader};
use super::message::{Entry, Headers, Message, RouteCounters, Source, count};
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
    properties: Vec<(String, String)>,
) -> (Headers, usize) {
    let all = properties.len();
    let is_ours = |name: &str| {
        let start = name.get(..OWN_HEADERS.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(OWN_HEADERS))
    };
    let mut headers = vec![(TOPIC_HEADER.to_owned(), topic.to_owned())];
    if retained {
        headers.push((RETAINED_HEADER.to_owned(), "true".to_owned()));
    }
    if duplicate {
        headers.push((DUPLICATE_HEADER.to_owned(), "true".to_owned()));
    }
    let own = headers.len();
    let theirs = properties.into_iter().filter(|(name, _)| !is_ours(name));
    headers.extend(theirs);
    let left_out = all + own - headers.len();
    (headers, left_out)
}

/// The headers of a message that MQTT can carry (MQTT 5.0 section 1.5.4): a broker ends the connection
/// over others, each time anew.
pub fn properties(headers: &Headers) -> Vec<(String, String)> {
    let is_non_character =
        |one: char| matches!(u32::from(one), 0xfdd0..=0xfdef) || u32::from(one) & 0xfffe == 0xfffe;
    let is_text = |text: &str| {
        text.len() <= usize::from(u16::MAX)
            && !text
                .chars()
                .any(|one| one.is_control() || is_non_character(one))
    };
    let headers = headers.iter();
    headers
        .filter(|(name, value)| is_text(name) && is_text(value))
        .cloned()
        .collect()
}

impl IncomingTopic {
    /// True when the property `content_type` of a message, if it has one, names the inlet's type.
    /// Parameters aside: `text/plain; charset=utf-8` is `text/plain`.
    pub fn takes(&self, content_type: Option<&str>) -> bool {
        let bare = |text: &str| {
            let bare = text.split(';').next().unwrap_or_default();
            bare.trim().to_ascii_lowercase()
        };
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
    /// The filters of its routes, and whether messages come until they are acknowledged.
    pub fn subscriptions(&self) -> BTreeMap<&TopicFilter, bool> {
        let mut subscriptions = BTreeMap::new();
        for route in &self.incoming {
            let is_durable = !matches!(route.intake, Intake::Inbox { .. });
            *subscriptions.entry(&route.filter).or_default() |= is_durable;
        }
        subscriptions
    }

    /// The routes of a message: those of the subscription for which the broker sent it, or all that
    /// its topic fits when the broker does not say.
    pub fn routes(&self, topic: &str, subscription: Option<u32>) -> Vec<&IncomingTopic> {
        let is_meant = |route: &&IncomingTopic| {
            let filter = &route.filter;
            subscription.is_none_or(|number| filter.subscription_id() == number)
                && filter.matches(topic)
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
mod tests {
    use super::*;

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn properties_of_a_device_never_pass_for_headers_of_ours() {
        let properties = vec![
            pair("mqtt-topic", "forged"),
            pair("unit", "C"),
            pair("mqtt-retained", "true"),
            pair("MQTT-Topic", "forged"),
            pair("mqtt", "°"),
            pair("mqtt°-", "x"),
        ];
        let (found, left_out) = headers("plant/7", false, false, properties);
        let expected = [
            pair("mqtt-topic", "plant/7"),
            pair("unit", "C"),
            pair("mqtt", "°"),
            pair("mqtt°-", "x"),
        ];
        assert_eq!(found, expected);
        assert_eq!(left_out, 3);
        let (found, _) = headers("plant/7", true, false, Vec::new());
        let expected = [pair("mqtt-topic", "plant/7"), pair("mqtt-retained", "true")];
        assert_eq!(found, expected);
        let (found, _) = headers("plant/7", false, true, Vec::new());
        let expected = [pair("mqtt-topic", "plant/7"), pair("mqtt-dup", "true")];
        assert_eq!(found, expected);
    }

    #[test]
    fn every_property_of_a_device_becomes_a_header() {
        let many = vec![pair("a", "b"); 1_000];
        let (found, left_out) = headers("t", false, false, many);
        assert_eq!((found.len(), left_out), (1_001, 0));
    }

    #[test]
    fn headers_over_which_a_broker_ends_the_connection_stay_here() {
        let headers = vec![
            pair("unit", "°C"),
            pair("nul", "a\0b"),
            pair("line\n", "a"),
            pair("high", "\u{9f}"),
            pair("none", "\u{ffff}"),
            pair("long", &"x".repeat(65_536)),
        ];
        assert_eq!(properties(&headers), [pair("unit", "°C")]);
    }
}
