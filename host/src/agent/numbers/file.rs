//! The files that have a number above all numbers of the node, when the database is lost, older or not to be
//! written. What can't be written is tried again after growing pauses.

use std::time::Duration;

use tokio::time::Instant;

use crate::store::{KeptNumber, Store};

/// The pause after the first failure.
const PAUSE: Duration = Duration::from_secs(5);
/// The longest one.
const PAUSE_MAX: Duration = Duration::from_secs(300);

/// What is known of them.
#[derive(Debug, Default)]
pub(super) struct NumbersFiles {
    /// The database could not be written, and a file has more.
    pub(super) is_ahead: bool,
    /// After one could not be written: when that is tried again.
    pub(super) again: Option<Instant>,
    pause: Duration,
}

impl NumbersFiles {
    /// Has one say `number` at least. False when it does not.
    pub(super) async fn write(&mut self, store: &Store, kept: KeptNumber, number: u64) -> bool {
        if store.kept_number(kept) >= number {
            return true;
        }
        if self.again.is_some_and(|again| Instant::now() < again) {
            return false;
        }
        match store.keep_number(kept, number).await {
            Ok(()) => {
                (self.again, self.pause) = (None, Duration::ZERO);
                true
            }
            Err(error) => {
                if self.again.is_none() {
                    tracing::error!(
                        "the numbers of messages can't be kept in a file: {error:#}; tried again with growing pauses, logged once"
                    );
                }
                self.pause = (self.pause * 2).clamp(PAUSE, PAUSE_MAX);
                self.again = Some(Instant::now() + self.pause);
                false
            }
        }
    }
}
