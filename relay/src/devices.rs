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
mod driver;
mod forget;
mod poller;

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use haar_protocol::mqtt::{TopicFilter, TopicName};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Publish;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::endpoint::Endpoint;
use crate::reason::DisconnectReason;
use crate::session::Identity;
use budget::Budget;
pub use budget::Held;
use driver::Driver;

/// How long the broker keeps the session, and what waits in it, after a connection ended: a day.
pub(crate) const SESSION_EXPIRY_S: u32 = 86_400;
/// Publishes that may wait for the session.
const QUEUE_MESSAGES: usize = 32;
/// Receipts that may wait to be sent: those of two connections. A broker may exceed the window, but
/// it has a packet id for each message in flight. Room that is not used takes no memory.
const RECEIPTS_MAX: usize = 2 * u16::MAX as usize;
/// Bytes of a PUBLISH beside topic, payload and properties, at most (MQTT 5 section 3.3).
const PUBLISH_OVERHEAD_BYTES: usize = 24;

/// What a session for devices does.
#[derive(Debug, Clone)]
pub struct DeviceOptions {
    /// Where to connect.
    pub endpoint: Endpoint,
    /// As whom.
    pub identity: Identity,
}

/// What is wanted of the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceSubscription {
    /// Of which topics.
    pub filter: TopicFilter,
    /// True to get each message until it is acknowledged (QoS 1), over connections.
    pub at_least_once: bool,
}

/// What happens to a session for devices.
#[derive(Debug)]
pub enum DeviceEvent {
    /// There is a connection. What was published on an earlier one and not acknowledged is lost.
    Connected {
        /// Its number.
        connection: u64,
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
    /// The broker does not let the session subscribe. Tried again after a minute.
    SubscriptionRefused {
        /// To what.
        filter: TopicFilter,
        /// Why, for a person.
        why: String,
    },
    /// The connection ended, or an attempt failed. The session tries again by itself.
    Disconnected {
        /// Why.
        reason: DisconnectReason,
    },
}

/// What became of a publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The broker has it.
    Taken,
    /// The broker refused it, and may take it later: it has no right, or no room.
    Refused(String),
    /// No broker like this one ever takes it.
    Never(String),
}

/// A message of a device. Nothing about it was checked but its form.
#[derive(Debug)]
pub struct DeviceMessage {
    /// The topic that it was published to.
    pub topic: String,
    /// Its bytes.
    pub payload: Bytes,
    /// True when the broker had kept it from before the subscription.
    pub retained: bool,
    /// True when the broker has sent it before (DUP): it may be a repeat.
    pub duplicate: bool,
    /// The property of that name.
    pub content_type: Option<String>,
    /// The properties that the publisher made up.
    pub user_properties: Vec<(String, String)>,
    /// For which subscription it came ([`TopicFilter::subscription_id`]); none when the broker does
    /// not say.
    pub subscription: Option<u32>,
    /// What acknowledges it; none at QoS 0.
    pub receipt: Option<Receipt>,
    /// Its share of the session's budget: drop it when the message is stored, or let go.
    pub held: Held,
}

/// Acknowledges one message.
#[derive(Debug)]
pub struct Receipt {
    /// The connection that the message came on: on another one it means nothing.
    connection: u64,
    packet_id: u16,
    quality: QoS,
}

impl Receipt {
    /// What rumqttc acknowledges.
    fn publish(&self) -> Publish {
        let mut publish = Publish::new("", self.quality, Bytes::new(), None);
        publish.pkid = self.packet_id;
        publish
    }
}

/// A message for devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DevicePublish {
    /// The topic.
    pub topic: TopicName,
    /// Its bytes.
    pub payload: Bytes,
    /// True when the broker keeps it for later subscribers.
    pub retain: bool,
    /// Its media type.
    pub content_type: String,
    /// Names and values.
    pub user_properties: Vec<(String, String)>,
    /// True to be told what became of it (QoS 1).
    pub at_least_once: bool,
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
    subscriptions: watch::Sender<Vec<DeviceSubscription>>,
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
    /// [`DeviceSession::forget`], which goes on until `stop` is cancelled. Whoever holds the receiver of `events`
    /// reads it until it ends.
    pub fn start(
        options: DeviceOptions,
        subscriptions: Vec<DeviceSubscription>,
        events: mpsc::Sender<DeviceEvent>,
        stop: CancellationToken,
    ) -> (DeviceSession, DeviceTask) {
        let (publishes, submitted) = mpsc::channel(QUEUE_MESSAGES);
        let (receipts, given) = mpsc::channel(RECEIPTS_MAX);
        let (subscriptions, wanted) = watch::channel(subscriptions);
        let session = DeviceSession {
            publishes,
            receipts,
            subscriptions,
            closing: CancellationToken::new(),
            forgetting: CancellationToken::new(),
        };
        let driver = Driver {
            options,
            events,
            submitted,
            given,
            wanted,
            known: Vec::new(),
            connection: 0,
            budget: Budget::new(),
            numbers_subscriptions: true,
            closing: session.closing.clone(),
            forgetting: session.forgetting.clone(),
            stop,
        };
        (session, DeviceTask(Box::pin(driver.run())))
    }

    /// Other subscriptions from now on. The broker hears of what has changed.
    pub fn subscribe(&self, subscriptions: Vec<DeviceSubscription>) {
        self.subscriptions.send_if_modified(|now| {
            let differs = *now != subscriptions;
            *now = subscriptions;
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
            tracing::warn!("a message can't be acknowledged: the broker sends it again");
        }
    }

    /// Ends the session with what was published, within seconds; the broker keeps it for a day.
    pub fn close(&self) {
        self.closing.cancel();
    }

    /// Ends the session, and has the broker forget it: also later, when the broker is away now.
    pub fn forget(&self) {
        self.forgetting.cancel();
        self.closing.cancel();
    }
}

/// The size of the packet that carries `message`, at most.
fn packet_bytes(message: &DevicePublish) -> usize {
    let properties = message.user_properties.iter();
    let properties: usize = properties
        .map(|(name, value)| 5 + name.len() + value.len())
        .sum();
    let topic = message.topic.as_str().len();
    PUBLISH_OVERHEAD_BYTES + topic + message.payload.len() + message.content_type.len() + properties
}
