//! The session with a broker for plain MQTT devices, whose topics are ends of routes. Unlike
//! [`crate::Session`] it is kept by the broker while nobody is connected, a message is acknowledged
//! when its receiver says so, and properties pass both ways. Agents hold one for each broker.
//!
//! ```text
//!            fail: back off          CONNACK               SUBACKs               error
//!   waiting ◄──────────── connecting ────────► subscribing ────────► connected ────────► waiting
//!      │                                            ▲  other filters    │
//!      │                                            └───────────────────┤ close, forget
//!      └──────────────────────────────► ended ◄── flush, DISCONNECT ◄───┘
//! ```
//! Nothing is sent twice by itself: what has no PUBACK when a connection ends is for the caller to
//! publish again, and what was not acknowledged the broker sends again.

mod budget;
mod message;
mod former;
mod driver;
mod open;
mod steps;
mod forget;
mod poller;

use std::collections::BTreeSet;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use haar_protocol::mqtt::{Retained, TopicFilter};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::endpoint::Endpoint;
use crate::reason::DisconnectReason;
use crate::session::Identity;
use budget::Budget;
pub use budget::Held;
use driver::Driver;
pub use forget::end_session;
pub use former::FORMER_SILENCE;
use former::{Answers, Phase};
pub use message::{DeviceMessage, DevicePublish, MessageProperties, Outcome, Receipt};

/// For how many seconds Haar asks brokers to keep a session of which nobody says anything: a day.
pub const SESSION_EXPIRY_S: u32 = 86_400;
/// Publishes that may wait for the session.
const QUEUE_MESSAGES: usize = 32;
/// Receipts that may wait to be sent: those of two connections. A broker may exceed the window, but
/// it has a packet id for each message in flight. Room that is not used takes no memory.
const RECEIPTS_MAX: usize = 2 * u16::MAX as usize;

/// What a session for devices does.
#[derive(Debug, Clone)]
pub struct DeviceOptions {
    /// Where to connect.
    pub endpoint: Endpoint,
    /// As whom.
    pub identity: Identity,
    /// As whom agents of earlier releases connected. What the broker keeps for them is taken over,
    /// and the session goes on as they did where the broker refuses the present identity.
    pub former: Option<Former>,
    /// True to begin a session in place of one that the broker may still keep.
    pub begins_clean: bool,
}

/// The session of agents of earlier releases.
#[derive(Debug, Clone)]
pub struct Former {
    /// As whom they connected.
    pub identity: Identity,
    /// Nothing waits in it any more when the broker has sent nothing for this time: see
    /// [`FORMER_SILENCE`].
    pub silence: Duration,
}

/// What is wanted of the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceWants {
    /// What is subscribed to.
    pub subscriptions: Vec<DeviceSubscription>,
    /// For how many seconds the broker keeps the session, and what waits in it, after a connection.
    pub expiry_s: u32,
    /// What the broker publishes when a connection breaks and no other follows within seconds.
    pub will: Option<DevicePublish>,
}

impl DeviceWants {
    /// True when the same connection serves both.
    fn has_terms_of(&self, other: &Self) -> bool {
        self.expiry_s == other.expiry_s && self.will == other.will
    }
}

/// What is wanted of some topics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceSubscription {
    /// Of which topics.
    pub filter: TopicFilter,
    /// True to get each message until it is acknowledged (QoS 1), over connections.
    pub at_least_once: bool,
    /// What becomes of messages that the broker retains.
    pub retained: Retained,
    /// Numbers of those who want these: for one that is new the subscription is made again.
    pub receivers: BTreeSet<u64>,
}

impl DeviceSubscription {
    /// True when the broker does for this one what it does for `wanted`, and has sent what it retains
    /// to all who want it.
    fn serves(&self, wanted: &Self) -> bool {
        self.filter == wanted.filter
            && self.at_least_once == wanted.at_least_once
            && self.retained == wanted.retained
            && self.receivers.is_superset(&wanted.receivers)
    }
}

/// What the broker of a connection allows (MQTT 5.0 section 3.2.2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceTerms {
    /// Whether it retains messages. Where it does not, they are sent as others.
    pub retains: bool,
    /// Whether it acknowledges messages. Where it does not, those of QoS 1 are refused.
    pub acknowledges: bool,
    /// For how many seconds it keeps the session.
    pub keeps_s: u32,
}

/// What happens to a session for devices.
#[derive(Debug)]
pub enum DeviceEvent {
    /// There is a connection. What was published on an earlier one and not acknowledged is lost.
    Connected {
        /// Its number.
        connection: u64,
        /// True when the broker had kept no session: what it sends is the first of this one.
        is_new_session: bool,
        /// True when it is there to take what the broker has kept for an agent of an earlier release.
        drains_former: bool,
        /// What the broker allows on it.
        terms: DeviceTerms,
    },
    /// A message arrived.
    Message(DeviceMessage),
    /// The broker has more messages in flight than the session's receive maximum allows (MQTT 5
    /// section 4.9). All of them are taken. Reported once for each connection.
    WindowExceeded {
        /// The receive maximum.
        messages: u16,
    },
    /// The broker has answered a publish of QoS 1, or it was not sent at all.
    Published {
        /// As given to [`DeviceSession::publish`].
        token: u64,
        /// What became of it.
        outcome: Outcome,
    },
    /// A subscription was answered. One that was refused is tried again after a minute.
    Subscribed {
        /// To what.
        filter: TopicFilter,
        /// Why it is refused, or less than was asked for. For a person.
        problem: Option<String>,
    },
    /// The connection ended, or an attempt failed. The session tries again by itself.
    Disconnected {
        /// Why; none when the session needs another connection, and makes it at once.
        reason: Option<DisconnectReason>,
    },
}

/// Why a message was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DevicePublishError {
    /// The queue is full.
    #[error("the queue to the broker is full")]
    Full,
    /// The session has ended.
    #[error("the session with the broker has ended")]
    Stopped,
}

/// A publish on its way to the driver.
#[derive(Debug)]
struct Submitted {
    connection: u64,
    token: u64,
    message: DevicePublish,
}

/// A handle to a session for devices.
#[derive(Debug)]
pub struct DeviceSession {
    publishes: mpsc::Sender<Submitted>,
    receipts: mpsc::Sender<Receipt>,
    wants: watch::Sender<DeviceWants>,
    closing: CancellationToken,
    forgetting: CancellationToken,
}

/// The session's work: await it, or spawn it in a `JoinSet`. Dropping it cuts the connection.
#[must_use = "a session does nothing until its task is polled"]
pub struct DeviceTask(Pin<Box<dyn Future<Output = ()> + Send>>);

impl Future for DeviceTask {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(context)
    }
}

impl DeviceSession {
    /// Prepares a session. Its task connects again and again until [`DeviceSession::close`] or
    /// [`DeviceSession::forget`], which goes on until `stop` is cancelled. The owner of the receiver
    /// of `events` reads it until it ends.
    pub fn start(
        options: DeviceOptions,
        wants: DeviceWants,
        events: mpsc::Sender<DeviceEvent>,
        stop: CancellationToken,
    ) -> (DeviceSession, DeviceTask) {
        let (publishes, submitted) = mpsc::channel(QUEUE_MESSAGES);
        let (receipts, given) = mpsc::channel(RECEIPTS_MAX);
        let (wants, wanted) = watch::channel(wants);
        let session = DeviceSession {
            publishes,
            receipts,
            wants,
            closing: CancellationToken::new(),
            forgetting: CancellationToken::new(),
        };
        let is_clean = options.begins_clean;
        let phase = match options.former {
            Some(_) => Phase::Looking,
            None => Phase::Own,
        };
        let driver = Driver {
            options,
            phase,
            answers: Answers::default(),
            is_clean,
            events,
            submitted,
            given,
            wanted,
            known: Vec::new(),
            connection: 0,
            budget: Budget::new(),
            retains_will: true,
            numbers_subscriptions: true,
            closing: session.closing.clone(),
            forgetting: session.forgetting.clone(),
            stop,
        };
        (session, DeviceTask(Box::pin(driver.run())))
    }

    /// Wants something else from now on. The broker hears of what has changed; where that takes
    /// another connection there is one.
    pub fn want(&self, wants: DeviceWants) {
        self.wants.send_if_modified(|now| {
            let differs = *now != wants;
            *now = wants;
            differs
        });
    }

    /// Waits until a publish has room in the queue. One waiter at a time.
    pub async fn room(&self) {
        if self.publishes.reserve().await.is_err() {
            std::future::pending::<()>().await; // the session has ended: there never will be
        }
    }

    /// Queues a message for one connection, without waiting. What becomes of one of QoS 1 is told by
    /// [`DeviceEvent::Published`] with its `token`, unless the connection ends before.
    ///
    /// # Errors
    /// See [`DevicePublishError`].
    pub fn publish(
        &self,
        connection: u64,
        token: u64,
        message: DevicePublish,
    ) -> Result<(), DevicePublishError> {
        let submitted = Submitted {
            connection,
            token,
            message,
        };
        self.publishes
            .try_send(submitted)
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => DevicePublishError::Full,
                mpsc::error::TrySendError::Closed(_) => DevicePublishError::Stopped,
            })
    }

    /// Acknowledges a message: the broker forgets it. Acknowledge messages in the order in which they
    /// came (MQTT 5 section 4.6).
    pub fn acknowledge(&self, receipt: Receipt) {
        // Only a broker that uses a packet id twice at a time can fill the queue: see `RECEIPTS_MAX`.
        if self.receipts.try_send(receipt).is_err() {
            tracing::warn!(
                "a message can't be acknowledged: the broker sends it again on the next connection"
            );
        }
    }

    /// Sends what was published, within seconds, and ends the session; the broker keeps it as long
    /// as is wanted.
    pub fn close(&self) {
        self.closing.cancel();
    }

    /// Ends the session, and has the broker forget it: also later, when the broker is away now.
    pub fn forget(&self) {
        self.forgetting.cancel();
        self.closing.cancel();
    }
}
