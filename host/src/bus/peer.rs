//! What waits for the way to one other node on live routes: bounded, the newest wins.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use haar_link::frame::{LiveMessage, PLAIN_BYTES_MAX};
use haar_protocol::frame::{self, FRAME_MESSAGES_MAX};
use haar_protocol::ids::NodeId;
use tokio::sync::Notify;

use super::message::{Message, RouteCounters, count};

/// Messages that wait at most.
const QUEUE_MESSAGES_MAX: usize = 8_192;
/// Bytes that wait at most.
const QUEUE_BYTES_MAX: usize = 4 << 20;

/// A message and the route that takes it away.
#[derive(Debug)]
pub struct Outbound {
    /// The message.
    pub message: Arc<Message>,
    /// The route's counters, and its id.
    pub counters: Arc<RouteCounters>,
}

impl Outbound {
    /// The message as it stands in a frame.
    pub fn wire(&self) -> LiveMessage<'_> {
        let message = &self.message;
        let headers = message.headers.iter();
        LiveMessage {
            route: self.counters.id.to_u64(),
            sequence: message.sequence,
            published_ms: message.published_ms,
            headers: headers
                .map(|(name, value)| (name.as_str(), value.as_str()))
                .collect(),
            body: &message.body,
        }
    }

    fn bytes(&self) -> usize {
        frame::encoded_bytes_max(&self.message.headers, self.message.body.len())
    }
}

#[derive(Debug, Default)]
struct Queue {
    messages: VecDeque<Outbound>,
    bytes: usize,
}

/// The queue towards one node.
#[derive(Debug)]
pub struct PeerQueue {
    /// The other node.
    pub node: NodeId,
    /// Taken by publishers and by the task of the link, for a push or for filling one frame.
    queue: Mutex<Queue>,
    arrived: Notify,
}

impl PeerQueue {
    /// An empty queue towards `node`.
    pub fn new(node: NodeId) -> Self {
        Self {
            node,
            queue: Mutex::default(),
            arrived: Notify::new(),
        }
    }

    /// Puts a message in; the oldest ones leave when it is full.
    pub fn push(&self, outbound: Outbound) {
        let was_empty = {
            let mut queue = self.lock();
            let was_empty = queue.messages.is_empty();
            queue.bytes += outbound.bytes();
            queue.messages.push_back(outbound);
            while queue.messages.len() > QUEUE_MESSAGES_MAX || queue.bytes > QUEUE_BYTES_MAX {
                let Some(oldest) = queue.messages.pop_front() else {
                    break;
                };
                queue.bytes -= oldest.bytes();
                count(&oldest.counters.dropped);
            }
            was_empty
        };
        if was_empty {
            self.arrived.notify_one();
        }
    }

    /// Waits until there may be a message.
    pub async fn wait(&self) {
        loop {
            let arrived = self.arrived.notified();
            if !self.lock().messages.is_empty() {
                return;
            }
            arrived.await;
        }
    }

    /// Takes as many of the oldest messages as fit into one frame.
    pub fn take(&self) -> Vec<Outbound> {
        let mut taken = Vec::new();
        let mut queue = self.lock();
        let mut bytes = 16;
        while let Some(next) = queue.messages.front() {
            let size = next.bytes();
            if !taken.is_empty()
                && (bytes + size > PLAIN_BYTES_MAX || taken.len() == FRAME_MESSAGES_MAX)
            {
                break;
            }
            bytes += size;
            queue.bytes -= size;
            taken.extend(queue.messages.pop_front());
        }
        taken
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.queue
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
