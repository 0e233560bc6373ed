//! A durable route on its way into an inlet: in order, one message after the other, each until it is
//! handled or given up. A message that waits for another attempt holds up its own stream, and no other.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use tokio::time::Instant;

use super::log::Reader;
use super::message::{Delivery, Entry, Place, count};
use crate::store::Store;

/// Bytes that are read from the log at a time.
const READ_BYTES: u64 = 256 << 10;

/// The end of a durable route in an inlet of this node.
#[derive(Debug)]
pub struct Stream {
    reader: Arc<Reader>,
    /// The inlet; it changes with the route table.
    entry: ArcSwap<Entry>,
    /// The route is withdrawn: what was taken from it is not delivered any more.
    closed: AtomicBool,
    /// Taken by the instance's task, and by who asks whether there is something.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Up to here messages may have been delivered by an instance that nothing is known of: before
    /// the agent started, or one that was ended by force.
    delivered_before: u64,
    /// Read, and not taken.
    ready: VecDeque<Delivery>,
    /// Position of the last one that was read.
    read_to: u64,
    /// After the first of these nothing is there any more, up to the second.
    lost: Option<(u64, u64)>,
    /// The first of those that are ready waits for another attempt until then.
    paused_until: Option<Instant>,
}

impl Stream {
    /// From where `reader` is.
    pub fn new(reader: Arc<Reader>, entry: Arc<Entry>) -> Self {
        let (base, head) = (reader.base(), reader.log.head());
        Self {
            reader,
            entry: ArcSwap::new(entry),
            closed: AtomicBool::new(false),
            state: Mutex::new(State {
                delivered_before: head,
                ready: VecDeque::new(),
                read_to: base,
                lost: None,
                paused_until: None,
            }),
        }
    }

    /// Follows a new route table.
    pub fn set_entry(&self, entry: Arc<Entry>) {
        self.entry.store(entry);
    }

    /// An instance begins. What the one before it had taken and neither finished nor given back,
    /// because it was ended by force, is read again.
    pub fn begin(&self) {
        let base = self.reader.base();
        let mut state = self.state();
        let next = state.ready.front().and_then(|first| first.place.as_ref());
        let next = next.map_or(state.read_to + 1, |place| place.position);
        if next > base + 1 {
            state.delivered_before = state.delivered_before.max(state.read_to);
            state.ready.clear();
            state.read_to = base;
            state.lost = None;
            state.paused_until = None;
        }
    }

    /// The route is withdrawn.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    /// True when the route is withdrawn.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// True when there is a message that may be taken now.
    pub fn is_ready(&self, now: Instant) -> bool {
        let state = self.state();
        let is_paused = state.paused_until.is_some_and(|until| until > now);
        !is_paused && (!state.ready.is_empty() || state.read_to < self.reader.log.head())
    }

    /// When there will be one although nothing has come.
    pub fn paused_until(&self) -> Option<Instant> {
        self.state().paused_until
    }

    /// Messages that are not handled.
    pub fn len(&self) -> u64 {
        self.reader.log.head().saturating_sub(self.reader.base())
    }

    /// True when all are handled.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Moves up to `most` messages to the end of `batch`.
    ///
    /// # Errors
    /// When the store can't be read.
    pub async fn take(
        self: &Arc<Self>,
        store: &Store,
        batch: &mut VecDeque<Delivery>,
        most: usize,
    ) -> anyhow::Result<()> {
        if !self.is_ready(Instant::now()) {
            return Ok(());
        }
        let read_to = {
            let mut state = self.state();
            // What made room for newer messages is gone.
            state.read_to = state.read_to.max(self.reader.base());
            state.ready.is_empty().then_some(state.read_to)
        };
        if let Some(read_to) = read_to {
            let log = &self.reader.log;
            let head = log.head();
            let messages = log.read(store, read_to, READ_BYTES).await?;
            let entry = self.entry.load_full();
            let mut state = self.state();
            let delivered_before = state.delivered_before;
            if messages.is_empty() {
                state.read_to = state.read_to.max(head); // the last ones are lost: nothing comes up to here
                state.lost = Some((read_to, head));
                self.pass_lost(&mut state);
            }
            for logged in messages {
                state.read_to = logged.position;
                let stored_ms = logged.stored_ms;
                let message = logged.message;
                if let Some(history) = &entry.history {
                    history.record(&message);
                }
                count(&entry.counters.delivered);
                state.ready.push_back(Delivery {
                    message,
                    entry: Arc::clone(&entry),
                    attempt: 1 + u32::from(logged.position <= delivered_before),
                    place: Some(Place {
                        stream: Arc::clone(self),
                        position: logged.position,
                        stored_ms,
                    }),
                    taken_ms: None,
                });
            }
        }
        let mut state = self.state();
        state.paused_until = None;
        let most = most.min(state.ready.len());
        batch.extend(state.ready.drain(..most));
        Ok(())
    }

    /// The message at `position` is done with: handled, or given up.
    pub fn done(&self, position: u64) {
        self.reader.advance(position);
        self.pass_lost(&mut self.state());
    }

    /// What is lost waits for nobody, once all before it is done with.
    fn pass_lost(&self, state: &mut State) {
        let base = self.reader.base();
        if let Some((_, upto)) = state.lost.take_if(|(after, _)| *after <= base) {
            self.reader.advance(upto);
        }
    }

    /// Messages come back that were taken and are not done with, in their order. The first one waits
    /// until `until`, if it must.
    pub fn put_back(&self, deliveries: Vec<Delivery>, until: Option<Instant>) {
        let mut state = self.state();
        for delivery in deliveries.into_iter().rev() {
            state.ready.push_front(delivery);
        }
        state.paused_until = until.or(state.paused_until);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
