//! What waits for an instance: a bounded queue for `live` routes, where the newest wins (when it is
//! full, the oldest message makes room and is counted as dropped on its route), and the streams of
//! durable routes, which lose nothing.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::message::{Delivery, count};
use super::stream::Stream;
use crate::store::Store;

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
    /// Durable routes that end here.
    streams: ArcSwap<Vec<Arc<Stream>>>,
    /// The stream that is served next.
    turn: AtomicU32,
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
            streams: ArcSwap::default(),
            turn: AtomicU32::new(0),
        }
    }

    /// The durable routes that end here from now on.
    pub fn set_streams(&self, streams: Vec<Arc<Stream>>) {
        self.streams.store(Arc::new(streams));
        self.tell();
    }

    /// An instance begins: see [`Stream::begin`].
    pub fn begin(&self) {
        for stream in self.streams.load().iter() {
            stream.begin();
        }
    }

    /// There may be something.
    pub fn tell(&self) {
        self.arrived.notify_one();
    }

    /// Moves up to `most` messages of durable routes to the end of `batch`: from each in its turn.
    ///
    /// # Errors
    /// When the store can't be read.
    pub async fn take_durable(
        &self,
        store: &Store,
        batch: &mut VecDeque<Delivery>,
        most: usize,
    ) -> anyhow::Result<()> {
        let streams = self.streams.load_full();
        if streams.is_empty() {
            return Ok(());
        }
        let first = self.turn.fetch_add(1, Ordering::Relaxed) as usize;
        for offset in 0..streams.len() {
            let left = most.saturating_sub(batch.len());
            if left == 0 {
                break;
            }
            let stream = &streams[(first + offset) % streams.len()];
            stream.take(store, batch, left).await?;
        }
        Ok(())
    }

    /// When a message of a durable route is due although nothing has come.
    pub fn next_attempt(&self) -> Option<Instant> {
        let streams = self.streams.load();
        streams.iter().filter_map(|one| one.paused_until()).min()
    }

    fn has_message(&self) -> bool {
        let streams = self.streams.load();
        if !streams.is_empty() {
            let now = Instant::now();
            if streams.iter().any(|stream| stream.is_ready(now)) {
                return true;
            }
        }
        !self.lock().deliveries.is_empty()
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
    pub fn put_back(&self, rest: VecDeque<Delivery>) {
        if rest.is_empty() {
            return;
        }
        let capacity = self.capacity.load(Ordering::Relaxed) as usize;
        let mut live = VecDeque::with_capacity(rest.len());
        let mut durable: Vec<Delivery> = Vec::new();
        for delivery in rest {
            match delivery.place {
                Some(_) => durable.push(delivery),
                None => live.push_back(delivery),
            }
        }
        put_back_durable(durable, None);
        let mut rest = live;
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
            if self.has_message() {
                return;
            }
            arrived.await;
        }
    }

    /// Messages that wait, also on the disk.
    pub fn len(&self) -> usize {
        let streams = self.streams.load();
        let durable: u64 = streams.iter().map(|stream| stream.len()).sum();
        self.lock().deliveries.len() + usize::try_from(durable).unwrap_or(usize::MAX)
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

/// Gives messages of durable routes back to their streams, in their order.
pub fn put_back_durable(mut deliveries: Vec<Delivery>, until: Option<Instant>) {
    while let Some(place) = deliveries.first().and_then(|first| first.place.as_ref()) {
        let stream = Arc::clone(&place.stream);
        let is_its = |delivery: &Delivery| {
            let place = delivery.place.as_ref();
            place.is_some_and(|place| Arc::ptr_eq(&place.stream, &stream))
        };
        let (its, others) = deliveries.into_iter().partition(is_its);
        stream.put_back(its, until);
        deliveries = others;
    }
}
