//! What a full log makes of messages: how many it refused and how many it let go, and how often that
//! began. A log that is full refuses thousands of messages a second; people want to hear of it once.
//!
//! ```text
//!           a message does not fit
//! has room ───────────────────────► full: an episode has begun
//!          ◄───────────────────────
//!           half of it is free again
//! ```

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use haar_protocol::status;

/// Counts of one log. Written by publishers and by who releases bytes; read for the status.
#[derive(Debug, Default)]
pub struct Overflow {
    refused: Episodes,
    dropped: Episodes,
}

#[derive(Debug, Default)]
struct Episodes {
    is_on: AtomicBool,
    begun: AtomicU64,
    messages: AtomicU64,
}

impl Overflow {
    /// Messages were refused.
    pub fn refused(&self, messages: u64) {
        self.refused.add(messages);
    }

    /// The oldest messages made room.
    pub fn dropped(&self, messages: u64) {
        self.dropped.add(messages);
    }

    /// There is room again: the next message that does not fit begins another episode.
    pub(super) fn end(&self) {
        self.refused.is_on.store(false, Ordering::Relaxed);
        self.dropped.is_on.store(false, Ordering::Relaxed);
    }

    /// For the status: what was refused, and what was dropped.
    pub fn counts(&self) -> (status::Overflow, status::Overflow) {
        (self.refused.counts(), self.dropped.counts())
    }
}

impl Episodes {
    fn add(&self, messages: u64) {
        if messages == 0 {
            return;
        }
        self.messages.fetch_add(messages, Ordering::Relaxed);
        if !self.is_on.swap(true, Ordering::Relaxed) {
            self.begun.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn counts(&self) -> status::Overflow {
        status::Overflow {
            episodes: self.begun.load(Ordering::Relaxed),
            messages: self.messages.load(Ordering::Relaxed),
        }
    }
}
