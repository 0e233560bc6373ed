//! Requests and replies over two routes: one leads from the requester's outlet to the responder,
//! the other from the responder's outlet back. A header ties them together. Nothing here needs more
//! of the agent than messages: a responder in another language copies the header
//! [`CORRELATION_HEADER`], and that is all.
//!
//! ```
//! use std::time::{Duration, Instant};
//!
//! use haar_guest::request::{self, Requests};
//! use haar_guest::{Message, Microservice, Rejection, Tick, publish, timers};
//!
//! /// Asks for the temperature of each room that it is told of.
//! struct Asker {
//!     /// What is asked, with the name of the room.
//!     requests: Requests<String>,
//! }
//!
//! impl Default for Asker {
//!     fn default() -> Self {
//!         Self { requests: Requests::new("requests") }
//!     }
//! }
//!
//! impl Microservice for Asker {
//!     fn start(&mut self) -> Result<(), String> {
//!         Ok(timers::every("expire", Duration::from_secs(1))?)
//!     }
//!
//!     fn handle(&mut self, message: Message) -> Result<(), Rejection> {
//!         if message.inlet == "rooms" {
//!             let room = message.text()?.to_owned();
//!             self.requests.send(room.clone(), &[], room, Duration::from_secs(10))?;
//!         } else if let Some(room) = self.requests.take_reply(&message) {
//!             publish("temperatures", format!("{room}: {}", message.text()?), &[])?;
//!         }
//!         Ok(()) // a reply to somebody else, or one that came too late, is let go
//!     }
//!
//!     fn tick(&mut self, _tick: Tick) -> Result<(), String> {
//!         for room in self.requests.expire(Instant::now()) {
//!             publish("temperatures", format!("{room}: no answer"), &[])?;
//!         }
//!         Ok(())
//!     }
//! }
//!
//! /// Answers.
//! #[derive(Default)]
//! struct Thermometer;
//!
//! impl Microservice for Thermometer {
//!     fn handle(&mut self, message: Message) -> Result<(), Rejection> {
//!         request::reply(&message, "replies", "21.5", &[])?;
//!         Ok(())
//!     }
//! }
//!
//! # use haar_guest::testing::{self, Harness};
//! let mut asker = Harness::<Asker>::new();
//! let mut thermometer = Harness::<Thermometer>::new();
//! asker.deliver(testing::message("rooms", "attic")).unwrap();
//! for request in asker.published() {
//!     thermometer.deliver(request.into_message("node-1", "requests")).unwrap();
//! }
//! for reply in thermometer.published() {
//!     asker.deliver(reply.into_message("node-2", "replies")).unwrap();
//! }
//! assert_eq!(asker.published()[0].text(), "attic: 21.5");
//! ```

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::time::{Duration, Instant};

use crate::message::{Message, Rejection};
use crate::publish::{PublishError, publish};

/// The header that a request carries, and that its reply carries too.
pub const CORRELATION_HEADER: &str = "haar-correlation-id";

/// Requests that may wait for a reply, where nothing else was said.
const PENDING_MAX: usize = 64;

/// The requests of one instance that wait for a reply. `T` is whatever the requester wants to have
/// at hand when the reply comes.
///
/// A new instance knows nothing of the requests of the one before it: their replies are not for it.
#[derive(Debug)]
pub struct Requests<T> {
    outlet: String,
    /// Random, so that no two requesters share it.
    prefix: String,
    /// The number of the last request.
    last: u64,
    pending_max: usize,
    pending: BTreeMap<u64, Pending<T>>,
}

#[derive(Debug)]
struct Pending<T> {
    context: T,
    expires: Instant,
}

impl<T> Requests<T> {
    /// No requests yet. They will be published on `outlet`; at most 64 wait for a reply.
    pub fn new(outlet: &str) -> Self {
        // The standard library seeds it from the agent's randomness.
        let random = RandomState::new().hash_one(outlet);
        Self {
            outlet: outlet.to_owned(),
            prefix: format!("{random:016x}"),
            last: 0,
            pending_max: PENDING_MAX,
            pending: BTreeMap::new(),
        }
    }

    /// At most so many requests wait for a reply.
    #[must_use]
    pub fn with_pending_max(mut self, requests: usize) -> Self {
        self.pending_max = requests;
        self
    }

    /// Publishes a request. Its reply may come until `timeout` has passed.
    pub fn send(
        &mut self,
        body: impl AsRef<[u8]>,
        headers: &[(&str, &str)],
        context: T,
        timeout: Duration,
    ) -> Result<(), RequestError> {
        if self.pending.len() >= self.pending_max {
            let limit = self.pending_max;
            return Err(RequestError::TooManyPending { limit });
        }
        let number = self.last + 1;
        let id = format!("{}-{number}", self.prefix);
        let headers = with_correlation(&id, headers);
        publish(&self.outlet, body, &headers)?;
        self.last = number;
        // Further away than the clock goes is as good as never.
        let now = Instant::now();
        let expires = now.checked_add(timeout).unwrap_or(now + FAR_AWAY);
        self.pending.insert(number, Pending { context, expires });
        Ok(())
    }

    /// Takes the request that `message` replies to, and returns what was given with it. `None` when
    /// the message is no reply to a request that waits: it is something else, or for another
    /// requester, or the second reply, or the request has expired.
    pub fn take_reply(&mut self, message: &Message) -> Option<T> {
        let id = message.header(CORRELATION_HEADER)?;
        let (prefix, number) = id.split_once('-')?;
        if prefix != self.prefix {
            return None;
        }
        let pending = self.pending.remove(&number.parse().ok()?)?;
        Some(pending.context)
    }

    /// Gives up the requests whose time has passed at `now`, and returns what was given with them,
    /// in the order in which they were sent. Until it is called, late replies are still taken.
    pub fn expire(&mut self, now: Instant) -> Vec<T> {
        let expired = self
            .pending
            .extract_if(.., |_, pending| pending.expires <= now);
        expired.map(|(_, pending)| pending.context).collect()
    }

    /// How many requests wait for a reply.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }
}

/// A century.
const FAR_AWAY: Duration = Duration::from_secs(100 * 365 * 86_400);

/// Publishes a reply to `request` on `outlet`. Returns the sequence that it was given.
pub fn reply(
    request: &Message,
    outlet: &str,
    body: impl AsRef<[u8]>,
    headers: &[(&str, &str)],
) -> Result<u64, ReplyError> {
    let id = request
        .header(CORRELATION_HEADER)
        .ok_or(ReplyError::NoRequest)?;
    let headers = with_correlation(id, headers);
    Ok(publish(outlet, body, &headers)?)
}

fn with_correlation<'a>(id: &'a str, headers: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let correlation = std::iter::once((CORRELATION_HEADER, id));
    correlation.chain(headers.iter().copied()).collect()
}

/// Why a request was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestError {
    /// So many requests wait for a reply already.
    TooManyPending {
        /// The limit.
        limit: usize,
    },
    /// It was not published.
    Publish(PublishError),
}

impl std::fmt::Display for RequestError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            RequestError::TooManyPending { limit } => write!(
                formatter,
                "the request was not sent: {limit} wait for a reply already"
            ),
            RequestError::Publish(error) => error.fmt(formatter),
        }
    }
}

impl std::error::Error for RequestError {}

impl From<PublishError> for RequestError {
    fn from(error: PublishError) -> Self {
        RequestError::Publish(error)
    }
}

/// For `?` in the functions of a microservice whose errors are texts.
impl From<RequestError> for String {
    fn from(error: RequestError) -> String {
        error.to_string()
    }
}

/// A handler that cannot ask because of the moment wants its message again.
impl From<RequestError> for Rejection {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::TooManyPending { .. } => Rejection::retry(error),
            RequestError::Publish(error) => error.into(),
        }
    }
}

/// Why a reply was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyError {
    /// The message is no request: it has no correlation header.
    NoRequest,
    /// It was not published.
    Publish(PublishError),
}

impl std::fmt::Display for ReplyError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ReplyError::NoRequest => write!(
                formatter,
                "the message can't be replied to: it has no header `{CORRELATION_HEADER}`"
            ),
            ReplyError::Publish(error) => error.fmt(formatter),
        }
    }
}

impl std::error::Error for ReplyError {}

impl From<PublishError> for ReplyError {
    fn from(error: PublishError) -> Self {
        ReplyError::Publish(error)
    }
}

/// For `?` in the functions of a microservice whose errors are texts.
impl From<ReplyError> for String {
    fn from(error: ReplyError) -> String {
        error.to_string()
    }
}

/// What is no request never becomes one; a reply that cannot go out because of the moment can later.
impl From<ReplyError> for Rejection {
    fn from(error: ReplyError) -> Self {
        match error {
            ReplyError::NoRequest => Rejection::discard(error),
            ReplyError::Publish(error) => error.into(),
        }
    }
}
