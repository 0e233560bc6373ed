//! What is remembered of messages that pass a port. Recording happens on the path of every message
//! and never waits: it puts the message into a bounded buffer, from which the database thread takes
//! it, once a second, when the buffer is half full, or when somebody asks what passed.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use haar_protocol::assignment::MicroserviceName;
use haar_protocol::ids::{MediaType, Name};
use haar_protocol::limits::Retention;
use tokio::sync::Notify;

use super::message::{Message, count};

/// Messages of one port that wait to be stored.
const PENDING_MESSAGES_MAX: usize = 1_024;
/// Bytes of them, one message aside.
const PENDING_BYTES_MAX: u64 = 256 << 10;
/// Bytes that a message costs beside its body and headers.
const MESSAGE_BYTES: u64 = 64;

/// Which way messages go through a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// They enter an inlet.
    Inlet,
    /// They are published to an outlet.
    Outlet,
}

/// A port of a microservice of this node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HistoryPort {
    /// The microservice.
    pub owner: MicroserviceName,
    /// Whether `port` is an inlet or an outlet.
    pub direction: Direction,
    /// Name of the port.
    pub port: Name,
}

/// Records what passes one port.
#[derive(Debug)]
pub struct Recorder {
    /// The port.
    pub port: HistoryPort,
    /// How much is kept.
    pub retention: Retention,
    /// The type of its messages.
    pub content_type: MediaType,
    /// The life of the microservice that they belong to; none where the site tells none.
    pub life: Option<u64>,
    /// Taken by publishers for a push, and by the database thread to take what waits.
    pending: Mutex<Pending>,
    /// False until what is kept was brought within the retention once.
    pub settled: AtomicBool,
    /// Messages that were dropped because the database did not follow.
    pub dropped: AtomicU64,
    wakes: Arc<Wakes>,
}

#[derive(Debug, Default)]
struct Pending {
    messages: VecDeque<Arc<Message>>,
    bytes: u64,
}

/// Wakes the task that has messages stored. Shared by all recorders.
#[derive(Debug, Default)]
pub struct Wakes {
    /// Something waits that did not before.
    pub arrived: Notify,
    /// Something should not wait any longer.
    pub urgent: Notify,
}

impl Recorder {
    /// A recorder of a port, with nothing waiting.
    pub fn new(
        port: HistoryPort,
        retention: Retention,
        content_type: MediaType,
        wakes: Arc<Wakes>,
    ) -> Self {
        wakes.arrived.notify_one(); // what is kept may have to shrink
        Self {
            port,
            retention,
            content_type,
            life: None,
            pending: Mutex::default(),
            settled: AtomicBool::new(false),
            dropped: AtomicU64::new(0),
            wakes,
        }
    }

    /// The same, of one life of its microservice.
    pub fn of_life(mut self, life: Option<u64>) -> Self {
        self.life = life;
        self
    }

    /// Remembers a message; the oldest that wait leave when there are too many.
    pub fn record(&self, message: &Arc<Message>) {
        let (first, urgent) = {
            let mut pending = self.lock();
            let first = pending.messages.is_empty();
            pending.bytes += bytes(message);
            pending.messages.push_back(Arc::clone(message));
            while pending.messages.len() > 1
                && (pending.messages.len() > PENDING_MESSAGES_MAX
                    || pending.bytes > PENDING_BYTES_MAX)
            {
                let oldest = pending.messages.pop_front();
                pending.bytes -= oldest.map_or(0, |oldest| bytes(&oldest));
                count(&self.dropped);
            }
            let urgent = pending.messages.len() >= PENDING_MESSAGES_MAX / 2
                || pending.bytes >= PENDING_BYTES_MAX / 2;
            (first, urgent)
        };
        if first {
            self.wakes.arrived.notify_one();
        }
        if urgent {
            self.wakes.urgent.notify_one();
        }
    }

    /// True when messages wait, or what is kept was not yet brought within the retention.
    pub fn has_work(&self) -> bool {
        !self.settled.load(Ordering::Relaxed) || !self.lock().messages.is_empty()
    }

    /// Takes all messages that wait, in their order.
    pub fn take(&self) -> VecDeque<Arc<Message>> {
        std::mem::take(&mut *self.lock()).messages
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Pending> {
        self.pending
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Bytes that a message counts in a history.
pub fn bytes(message: &Message) -> u64 {
    let headers = message.headers.iter();
    let headers: usize = headers.map(|(name, value)| name.len() + value.len()).sum();
    (message.body.len() + headers) as u64 + MESSAGE_BYTES
}
