//! The client session: connection after connection to one relay, a bounded queue of publishes in
//! front of it, and events out of it. Agents and controllers hold one for each of their relays.
//!
//! ```text
//!            fail: back off            SUBACK                    error
//!   waiting ◄──────────── connecting ─────────► connected ─────────────► waiting
//!      │                      │                     │ finish, stop
//!      └──────────────────────┴─► ended ◄── flush, DISCONNECT
//! ```
//! It keeps nothing on disk and acknowledges nothing end to end: publishes that wait for a PUBACK
//! when a connection ends are sent again on the next, and the others may be lost with it.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use haar_protocol::ids::{Name, SiteId};
use haar_protocol::keys::SecretKey;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::backoff::TakeoverPauses;
use crate::connection::Liveness;
use crate::driver::Driver;
use crate::endpoint::Endpoint;
use crate::reason::DisconnectReason;

/// How long a session that ends waits for its last publishes to be acknowledged.
pub(crate) const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);
/// Bytes of a PUBLISH beside topic and payload, at most: fixed header, lengths, packet id (MQTT 5
/// section 3.3).
const PUBLISH_OVERHEAD_BYTES: usize = 16;

/// Who connects.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The MQTT client id.
    pub client_id: String,
    /// How it is proved.
    pub credentials: Credentials,
}

impl Identity {
    /// Somebody at the relay that the controller embeds: a node or the site, by its id and key.
    pub fn of_key(id: String, site: SiteId, key: SecretKey) -> Self {
        Self {
            client_id: id,
            credentials: Credentials::Proof {
                site,
                relay: None,
                key: Box::new(key),
            },
        }
    }
}

/// How a client tells a relay who it is.
#[derive(Clone)]
pub enum Credentials {
    /// The client id is the user name, and every connection carries a fresh proof as its password:
    /// relays of ours.
    Proof {
        /// The site that the relay serves.
        site: SiteId,
        /// The relay's name, when a node runs it.
        relay: Option<Name>,
        /// The key that proves it.
        key: Box<SecretKey>,
    },
    /// A name and a password.
    Password {
        /// The user name.
        user: String,
        /// The password.
        password: String,
    },
    /// Nothing.
    Anonymous,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Credentials::Proof { key, .. } => write!(formatter, "Proof({})", key.public()),
            Credentials::Password { user, .. } => write!(formatter, "Password(of {user})"),
            Credentials::Anonymous => formatter.write_str("Anonymous"),
        }
    }
}

/// What a session does.
#[derive(Debug, Clone)]
pub struct SessionOptions {
    /// Where to connect.
    pub endpoint: Endpoint,
    /// As whom.
    pub identity: Identity,
    /// What the relay publishes for us, two seconds after the connection broke unexpectedly.
    pub will: Option<Outgoing>,
    /// Topic filters to subscribe to on every connection.
    pub subscriptions: Vec<String>,
    /// How many publishes may wait; at least 1.
    pub queue_messages: usize,
}

/// A message to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// The full topic.
    pub topic: String,
    /// The bytes, whatever they mean.
    pub payload: Bytes,
    /// True to send it until the relay acknowledges it (QoS 1), over connections.
    pub at_least_once: bool,
    /// True when the relay keeps it for later subscribers; an empty payload then clears the topic.
    pub retain: bool,
}

/// What happens to a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionEvent {
    /// Connected and subscribed. Retained messages of the subscriptions follow, each time.
    Connected,
    /// A message arrived.
    Message {
        /// Its full topic.
        topic: String,
        /// Its bytes. Nothing about them was checked.
        payload: Bytes,
        /// True when the relay had kept it from before the subscription.
        retained: bool,
    },
    /// The connection ended, or an attempt failed. The session tries again by itself.
    Disconnected {
        /// Why.
        reason: DisconnectReason,
    },
}

/// Why a message was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The queue is full.
    #[error("the queue to the relay is full")]
    Full,
    /// There is no connection now.
    #[error("not connected to the relay")]
    NotConnected,
    /// The session has ended, or is ending.
    #[error("the session with the relay has ended")]
    Stopped,
    /// No relay would take the topic.
    #[error("`{0}` is not a topic to publish to")]
    Topic(String),
    /// The relay would cut the connection for it.
    #[error("a packet of {bytes} bytes exceeds the relay's limit of {limit_bytes}")]
    TooLarge {
        /// The size of the packet, at most.
        bytes: usize,
        /// The relay's limit or ours, less 1 KiB for what relays add.
        limit_bytes: usize,
    },
}

/// Room for one message in the queue of a session.
#[derive(Debug)]
pub struct Room<'a> {
    session: &'a Session,
    place: mpsc::Permit<'a, Queued>,
}

impl Room<'_> {
    /// Queues a message. It is sent on this connection or a later one.
    ///
    /// # Errors
    /// `Topic` or `TooLarge`.
    pub fn publish(self, message: Outgoing) -> Result<(), PublishError> {
        self.session.check(&message)?;
        self.place.send(Queued {
            message,
            only_on_connection: None,
        });
        Ok(())
    }
}

/// A publish that waits in the queue.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) message: Outgoing,
    /// Set for live messages, which are worthless on any later connection.
    pub(crate) only_on_connection: Option<u64>,
}

/// How a session ended: whether everything that it took was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    Flushed,
    Unsent,
}

/// A handle to publish through a session. Cheap to clone; the session goes on without it.
#[derive(Debug, Clone)]
pub struct Session {
    queue: mpsc::Sender<Queued>,
    liveness: Arc<Liveness>,
    closing: CancellationToken,
    ending: watch::Receiver<Option<Ending>>,
}

/// The session's work: await it, or spawn it in a `JoinSet`. Dropping it cuts the connection.
#[must_use = "a session does nothing until its task is polled"]
pub struct SessionTask(Pin<Box<dyn Future<Output = ()> + Send>>);

impl Future for SessionTask {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(context)
    }
}

impl Session {
    /// Prepares a session. Its task connects again and again until `stop` is cancelled or
    /// [`Session::finish`] is called, then sends what is queued, within three seconds, and
    /// disconnects so that the will is not published. Whoever holds the receiver of `events` keeps
    /// reading it: a full channel holds the connection back until the relay cuts it.
    pub fn start(
        options: SessionOptions,
        events: mpsc::Sender<SessionEvent>,
        stop: CancellationToken,
    ) -> (Session, SessionTask) {
        Self::start_with(options, TakeoverPauses::default(), events, stop)
    }

    /// The same with other pauses for when another process uses the identity.
    pub fn start_with(
        options: SessionOptions,
        pauses: TakeoverPauses,
        events: mpsc::Sender<SessionEvent>,
        stop: CancellationToken,
    ) -> (Session, SessionTask) {
        let (queue, queued) = mpsc::channel(options.queue_messages.max(1));
        let (ended, ending) = watch::channel(None);
        let liveness = Arc::new(Liveness::new());
        let closing = stop.child_token();
        let session = Session {
            queue,
            liveness: Arc::clone(&liveness),
            closing,
            ending,
        };
        let driver = Driver {
            options,
            events,
            queued,
            resend: VecDeque::new(),
            liveness,
            closing: session.closing.clone(),
            pauses,
        };
        let task = async move {
            let ending = driver.run().await;
            ended.send_replace(Some(ending));
        };
        (session, SessionTask(Box::pin(task)))
    }

    /// Waits for room in the queue, for those who decide as late as they can what to send.
    ///
    /// # Errors
    /// `Stopped`.
    pub async fn room(&self) -> Result<Room<'_>, PublishError> {
        let place = tokio::select! {
            biased;
            () = self.closing.cancelled() => return Err(PublishError::Stopped),
            place = self.queue.reserve() => place.map_err(|_| PublishError::Stopped)?,
        };
        Ok(Room {
            session: self,
            place,
        })
    }

    /// Queues a message, waiting for room. It is sent on this connection or a later one.
    ///
    /// # Errors
    /// `Stopped`, `Topic` or `TooLarge`.
    pub async fn publish(&self, message: Outgoing) -> Result<(), PublishError> {
        self.check(&message)?;
        self.room().await?.publish(message)
    }

    /// Queues a message for the current connection only, without waiting: for live messages, of
    /// which the newest wins. The caller counts errors as drops.
    ///
    /// # Errors
    /// All of [`PublishError`].
    pub fn try_publish(&self, message: Outgoing) -> Result<(), PublishError> {
        self.check(&message)?;
        let connection = self.liveness.connection();
        if self.closing.is_cancelled() {
            return Err(PublishError::Stopped);
        }
        if !self.is_connected() {
            return Err(PublishError::NotConnected);
        }
        let queued = Queued {
            message,
            only_on_connection: Some(connection),
        };
        self.queue.try_send(queued).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => PublishError::Full,
            mpsc::error::TrySendError::Closed(_) => PublishError::Stopped,
        })
    }

    /// True between [`SessionEvent::Connected`] and [`SessionEvent::Disconnected`].
    pub fn is_connected(&self) -> bool {
        self.liveness.is_connected()
    }

    /// Ends the session: queues `last` behind everything else, sends all of it within three
    /// seconds, disconnects so that the will is not published, and waits for the end. No event
    /// follows.
    ///
    /// # Errors
    /// `NotConnected` when something was left unsent; the session has ended all the same. `Topic`
    /// or `TooLarge` for `last`: then it goes on.
    pub async fn finish(&self, last: Option<Outgoing>) -> Result<(), PublishError> {
        let mut taken = Ok(());
        if let Some(last) = last {
            self.check(&last)?;
            let queued = Queued {
                message: last,
                only_on_connection: None,
            };
            taken = match tokio::time::timeout(FLUSH_TIMEOUT, self.queue.send(queued)).await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(_)) => Err(PublishError::Stopped),
                Err(_) => Err(PublishError::NotConnected),
            };
        }
        self.closing.cancel();
        let mut ending = self.ending.clone();
        let flushed = match ending.wait_for(Option::is_some).await {
            Ok(ending) => *ending == Some(Ending::Flushed),
            Err(_) => false,
        };
        taken.and(if flushed {
            Ok(())
        } else {
            Err(PublishError::NotConnected)
        })
    }

    fn check(&self, message: &Outgoing) -> Result<(), PublishError> {
        let topic = &message.topic;
        if topic.is_empty() || topic.len() > 65_535 || topic.contains(['+', '#', '\0']) {
            return Err(PublishError::Topic(topic.chars().take(200).collect()));
        }
        let limit_bytes = self.liveness.publish_bytes_max();
        match packet_bytes(message) {
            bytes if bytes > limit_bytes => Err(PublishError::TooLarge { bytes, limit_bytes }),
            _ => Ok(()),
        }
    }
}

/// The size of the packet that carries `message`, at most.
pub(crate) fn packet_bytes(message: &Outgoing) -> usize {
    PUBLISH_OVERHEAD_BYTES + message.topic.len() + message.payload.len()
}
