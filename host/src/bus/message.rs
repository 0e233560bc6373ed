//! A message inside the node, and what is counted of a route.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use haar_protocol::ids::RouteId;
use tokio::time::Instant;

use super::history::Recorder;
use super::stream::Stream;
use crate::store::ages::AgeClock;

/// Where a message comes from: stamped by the agent, shared by all messages of one outlet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Source {
    /// Id of the site.
    pub site: String,
    /// Name of the node.
    pub node: String,
    /// Name of the application.
    pub application: String,
    /// Name of the microservice.
    pub microservice: String,
    /// Name of the outlet.
    pub outlet: String,
}

/// Pairs of name and value, in the publisher's order.
pub type Headers = Vec<(String, String)>;

/// A message as it was published. One allocation, shared by all its receivers on the node.
#[derive(Debug)]
pub struct Message {
    /// Who published it.
    pub source: Arc<Source>,
    /// Its number among the messages of its outlet.
    pub sequence: u64,
    /// When it was published: milliseconds since the Unix epoch by the publishing node's clock.
    pub published_ms: u64,
    /// Headers that the publisher set.
    pub headers: Headers,
    /// The message itself.
    pub body: Vec<u8>,
}

impl Message {
    /// What it takes of memory, roughly.
    pub fn bytes(&self) -> usize {
        let headers = self.headers.iter();
        let headers: usize = headers.map(|(name, value)| name.len() + value.len()).sum();
        size_of::<Self>()
            + self.headers.len() * size_of::<(String, String)>()
            + headers
            + self.body.len()
    }
}

/// The end of a route in an inlet of this node.
#[derive(Debug)]
pub struct Entry {
    /// What stands for inlet, type and source where they would cost too much: see
    /// `origin-number` in `wit/types.wit`.
    pub origin: u32,
    /// Name of the inlet.
    pub inlet: String,
    /// The only type that passes.
    pub content_type: String,
    /// The largest body that the microservice takes, in bytes.
    pub message_bytes_max: u64,
    /// Messages of a durable route that are older than so many milliseconds are not delivered.
    pub expiry_ms: Option<u64>,
    /// What is counted of the route here.
    pub counters: Arc<RouteCounters>,
    /// What remembers its messages, when they are kept.
    pub history: Option<Arc<Recorder>>,
}

/// A message on its way into an inlet.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The message.
    pub message: Arc<Message>,
    /// Where it enters.
    pub entry: Arc<Entry>,
    /// 1 on the first delivery.
    pub attempt: u32,
    /// Where it stands on a durable route; none on a live one.
    pub place: Option<Place>,
}

impl Delivery {
    /// True when the message has waited on this node for longer than its route allows.
    pub fn is_expired(&self, ages: &AgeClock) -> bool {
        let Some((place, expiry_ms)) = self.place.as_ref().zip(self.entry.expiry_ms) else {
            return false;
        };
        ages.now_ms().saturating_sub(place.stored_ms) > expiry_ms
    }
}

/// Where a message stands on a durable route.
#[derive(Debug, Clone)]
pub struct Place {
    /// The route's end here.
    pub stream: Arc<Stream>,
    /// Its position in the log.
    pub position: u64,
    /// When this node stored it, by its [`AgeClock`].
    pub stored_ms: u64,
}

/// Counters of one route towards one other node (or within this one), since it was put in force.
#[derive(Debug)]
pub struct RouteCounters {
    /// The route.
    pub id: RouteId,
    /// The topic at its other end, for people: `mqtt:TOPIC`.
    pub topic: Option<String>,
    /// See [`Entry::origin`]: a route from one node has one as long as its counters live.
    pub origin: u32,
    /// Since when it counts.
    pub began: Instant,
    /// Messages that entered the route here.
    pub sent: AtomicU64,
    /// Messages that were put into an inbox here.
    pub delivered: AtomicU64,
    /// Messages that a handler acknowledged here.
    pub handled: AtomicU64,
    /// Messages that were dropped here.
    pub dropped: AtomicU64,
}

impl RouteCounters {
    /// The same of a route whose other end is a topic.
    pub fn with_topic(id: RouteId, topic: String) -> Self {
        Self {
            topic: Some(topic),
            ..Self::new(id)
        }
    }

    /// All zero.
    pub fn new(id: RouteId) -> Self {
        Self {
            id,
            topic: None,
            origin: next_origin(),
            began: Instant::now(),
            sent: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            handled: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        }
    }
}

/// A number that stands for no other origin in this process.
pub fn next_origin() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Adds one. Counters are read for people only, so no order with other memory is needed.
pub fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Takes everything off a counter.
pub fn take_count(counter: &AtomicU64) -> u64 {
    counter.swap(0, Ordering::Relaxed)
}
