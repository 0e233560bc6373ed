//! The bounded queue in front of an instance. For `live` routes the newest wins: when it is full,
//! the oldest message makes room and is counted as dropped on its route.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use tokio::sync::Notify;

use super::message::{Delivery, count};

/// Bytes of messages that wait at most, roughly: a number of messages alone would let a neighbour
/// that publishes large ones take the node's memory.
const BYTES_MAX: usize = 4 << 20;

/// The inbox of one microservice. It outlives instances: what waits in it is there for the next.
#[derive(Debug)]
pub struct Inbox {
    /// Taken by publishers (other instances, the link receiver) and by the instance's own task,
    /// for the few instructions of a push or a batch of pops, never across an await.
    queue: Mutex<Queue>,
    capacity: AtomicU32,
    overflowed: AtomicU64,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    deliveries: VecDeque<Delivery>,
    /// What the messages take, roughly.
    bytes: usize,
}

impl Queue {
    fn push(&mut self, delivery: Delivery) {
        self.bytes += delivery.message.bytes();
        self.deliveries.push_back(delivery);
    }

    fn pop(&mut self) -> Option<Delivery> {
        let delivery = self.deliveries.pop_front()?;
        self.bytes -= delivery.message.bytes();
        Some(delivery)
    }

    /// Drops and counts the oldest messages until no more wait than may; the newest one may be of
    /// any size. Returns how many.
    fn shrink(&mut self, capacity: usize) -> u64 {
        let mut dropped = 0;
        while self.deliveries.len() > capacity
            || (self.bytes > BYTES_MAX && self.deliveries.len() > 1)
        {
            let Some(oldest) = self.pop() else {
                break;
            };
            count(&oldest.entry.counters.dropped);
            dropped += 1;
        }
        dropped
    }
}

impl Inbox {
    /// An empty inbox for at most `capacity` messages, of 4 MiB together.
    pub fn new(capacity: u32) -> Self {
        Self {
            queue: Mutex::default(),
            capacity: AtomicU32::new(capacity),
            overflowed: AtomicU64::new(0),
            arrived: Notify::new(),
        }
    }

    /// Changes how many messages may wait. What is over is dropped at the next push.
    pub fn set_capacity(&self, capacity: u32) {
        self.capacity.store(capacity, Ordering::Relaxed);
    }

    /// Puts a message in; the oldest ones leave when it is full.
    pub fn push(&self, delivery: Delivery) {
        let capacity = self.capacity.load(Ordering::Relaxed) as usize;
        count(&delivery.entry.counters.delivered);
        let was_empty = {
            let mut queue = self.lock();
            let was_empty = queue.deliveries.is_empty();
            queue.push(delivery);
            self.overflowed
                .fetch_add(queue.shrink(capacity), Ordering::Relaxed);
            was_empty
        };
        if was_empty {
            self.arrived.notify_one();
        }
    }

    /// Puts a message in if nothing has to leave for it. False when there is no room.
    pub fn push_where_room(&self, delivery: Delivery) -> bool {
        let capacity = self.capacity.load(Ordering::Relaxed) as usize;
        let mut queue = self.lock();
        let bytes = queue.bytes + delivery.message.bytes();
        let is_first = queue.deliveries.is_empty();
        if queue.deliveries.len() >= capacity || (bytes > BYTES_MAX && !is_first) {
            return false;
        }
        count(&delivery.entry.counters.delivered);
        queue.push(delivery);
        drop(queue);
        self.arrived.notify_one();
        true
    }

    /// Moves up to `most` messages to the end of `batch`. Returns how many.
    pub fn take(&self, batch: &mut VecDeque<Delivery>, most: usize) -> usize {
        let mut queue = self.lock();
        let before = batch.len();
        batch.extend(std::iter::from_fn(|| queue.pop()).take(most));
        batch.len() - before
    }

    /// Puts messages back to the front, in their order: they were taken and not handled. What does
    /// not fit any more is dropped, the oldest first, and counted.
    pub fn put_back(&self, mut rest: VecDeque<Delivery>) {
        if rest.is_empty() {
            return;
        }
        let capacity = self.capacity.load(Ordering::Relaxed) as usize;
        let mut queue = self.lock();
        rest.append(&mut queue.deliveries);
        queue.bytes = rest.iter().map(|delivery| delivery.message.bytes()).sum();
        queue.deliveries = rest;
        self.overflowed
            .fetch_add(queue.shrink(capacity), Ordering::Relaxed);
        drop(queue);
        self.arrived.notify_one();
    }

    /// Waits until there may be a message. One waiter at a time: the instance's task.
    pub async fn wait(&self) {
        loop {
            let arrived = self.arrived.notified();
            if !self.lock().deliveries.is_empty() {
                return;
            }
            arrived.await;
        }
    }

    /// Messages that wait.
    pub fn len(&self) -> usize {
        self.lock().deliveries.len()
    }

    /// Messages dropped because there were more than may wait.
    pub fn overflowed(&self) -> u64 {
        self.overflowed.load(Ordering::Relaxed)
    }

    /// True when none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Drops everything that waits, counted: the microservice is gone.
    pub fn clear(&self) {
        self.lock().shrink(0);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.queue
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
