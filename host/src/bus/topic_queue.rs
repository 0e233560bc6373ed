//! What waits in memory for a topic on a live route: bounded, and the newest messages win. Publishers
//! put messages in, the task of the broker takes them out.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

use super::message::{Message, RouteCounters, count};

/// Messages on live routes to a topic that wait at most.
const QUEUE_MESSAGES_MAX: usize = 1_024;
/// Bytes of them.
const QUEUE_BYTES_MAX: usize = 1 << 20;

/// What waits for a topic on a live route: bounded, the newest wins.
#[derive(Debug)]
pub struct TopicQueue {
    /// Taken by publishers and by the broker's task, for a push or a pop.
    queue: Mutex<Queue>,
    arrived: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Queue {
    messages: VecDeque<(Instant, Arc<Message>)>,
    bytes: usize,
}

impl TopicQueue {
    /// An empty queue, whose reader `arrived` tells.
    pub fn new(arrived: Arc<Notify>) -> Self {
        Self {
            queue: Mutex::default(),
            arrived,
        }
    }

    /// Puts a message in; the oldest ones leave when it is full, counted.
    pub fn push(&self, message: Arc<Message>, counters: &RouteCounters) {
        let was_empty = {
            let mut queue = self.lock();
            let was_empty = queue.messages.is_empty();
            queue.bytes += message.bytes();
            queue.messages.push_back((Instant::now(), message));
            while queue.messages.len() > QUEUE_MESSAGES_MAX || queue.bytes > QUEUE_BYTES_MAX {
                let Some((_, oldest)) = queue.messages.pop_front() else {
                    break;
                };
                queue.bytes -= oldest.bytes();
                count(&counters.dropped);
            }
            was_empty
        };
        if was_empty {
            self.arrived.notify_one();
        }
    }

    /// The oldest message, and for how many milliseconds it has waited.
    pub fn pop(&self) -> Option<(u64, Arc<Message>)> {
        let mut queue = self.lock();
        let (since, message) = queue.messages.pop_front()?;
        queue.bytes -= message.bytes();
        let waited_ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
        Some((waited_ms, message))
    }

    /// True when nothing waits.
    pub fn is_empty(&self) -> bool {
        self.lock().messages.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
