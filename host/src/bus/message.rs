//! A message inside the node, and what is counted of a route.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use haar_protocol::ids::RouteId;
use tokio::time::Instant;

use super::history::Recorder;
use super::stream::Stream;
use crate::store::ages::AgeClock;
use crate::store::log::Logged;

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

/// Header that says for how many seconds a message is of use, from when this node has it. Devices say
/// so by the property of MQTT 5, microservices as they like.
pub const EXPIRY_HEADER: &str = "mqtt-message-expiry";

/// How long a message with these headers is of use, in milliseconds, if they say so.
pub fn expiry_ms(headers: &Headers) -> Option<u64> {
    let mut headers = headers.iter();
    let (_, seconds) = headers.find(|(name, _)| name == EXPIRY_HEADER)?;
    Some(u64::from(seconds.parse::<u32>().ok()?) * 1_000)
}

/// For how many more seconds a message with these headers is of use when it has waited here, if they
/// say so. What leaves the node says this instead.
pub fn left_s(headers: &Headers, waited_ms: u64) -> Option<u64> {
    let left_ms = expiry_ms(headers)?.saturating_sub(waited_ms);
    Some(left_ms.div_ceil(1_000))
}

/// True when a stored message has waited on this node for longer than its route allows, or its
/// publisher.
pub fn is_expired(logged: &Logged, of_route_ms: Option<u64>, now_ms: u64) -> bool {
    let of_publisher_ms = expiry_ms(&logged.message.headers);
    let expiry_ms = of_route_ms.into_iter().chain(of_publisher_ms).min();
    expiry_ms.is_some_and(|age_ms| logged.is_older(age_ms, now_ms))
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
    /// When this node has taken it on a live route from a device, by its [`AgeClock`].
    pub taken_ms: Option<u64>,
}

impl Delivery {
    /// For how many more seconds its publisher says that it is of use.
    pub fn left_s(&self, ages: &AgeClock) -> Option<u64> {
        let since_ms = self.place.as_ref().map(|place| place.stored_ms);
        let since_ms = since_ms.or(self.taken_ms)?;
        let waited_ms = ages.now_ms().saturating_sub(since_ms);
        left_s(&self.message.headers, waited_ms)
    }

    /// True when the message has waited on this node for longer than its route allows, or its
    /// publisher.
    pub fn is_expired(&self, ages: &AgeClock) -> bool {
        let since_ms = self.place.as_ref().map(|place| place.stored_ms);
        let Some(since_ms) = since_ms.or(self.taken_ms) else {
            return false;
        };
        let of_route = self.entry.expiry_ms.filter(|_| self.place.is_some());
        let expiry_ms = of_route.into_iter().chain(expiry_ms(&self.message.headers));
        let expiry_ms = expiry_ms.min();
        expiry_ms.is_some_and(|expiry_ms| ages.now_ms().saturating_sub(since_ms) > expiry_ms)
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
    /// Why a route from or to a topic does not do all that its manifest says.
    pub problem: ArcSwapOption<RouteProblem>,
}

/// Why a route does not do all that its manifest says.
#[derive(Debug)]
pub struct RouteProblem {
    /// For a person.
    pub why: String,
    /// Since when.
    pub began: Instant,
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
            problem: ArcSwapOption::empty(),
        }
    }

    /// Says why the route does not do all that its manifest says, or that it does. False when that
    /// was said before.
    pub fn report(&self, problem: Option<String>) -> bool {
        let differs = self.problem.load().as_deref().map(|known| &known.why) != problem.as_ref();
        if differs {
            let began = Instant::now();
            let problem = problem.map(|why| Arc::new(RouteProblem { why, began }));
            self.problem.store(problem);
        }
        differs
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
