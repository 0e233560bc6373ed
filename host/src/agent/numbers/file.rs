//! The file that has a number above all numbers of the node, when the database is lost, older or not to be
//! written. A file that can't be written is tried again after growing pauses.

use std::time::Duration;

use tokio::time::Instant;

use crate::store::Store;

/// The pause after the first failure.
const PAUSE: Duration = Duration::from_secs(5);
/// The longest one.
const PAUSE_MAX: Duration = Duration::from_secs(300);

/// What is known of it.
#[derive(Debug, Default)]
pub(super) struct NumbersFile {
    /// It has more than the database, which could not be written.
    pub(super) is_ahead: bool,
    /// After it could not be written: when it is tried again.
    pub(super) again: Option<Instant>,
    pause: Duration,
}

impl NumbersFile {
    /// Has it say `number` at least. False when it does not.
    pub(super) async fn write(&mut self, store: &Store, number: u64) -> bool {
        if store.numbers_in_file() >= number {
            return true;
        }
        if self.again.is_some_and(|again| Instant::now() < again) {
            return false;
        }
        match store.bound_numbers_in_file(number).await {
            Ok(()) => {
                (self.again, self.pause) = (None, Duration::ZERO);
                true
            }
            Err(error) => {
                if self.again.is_none() {
                    tracing::error!(
                        "the numbers of messages can't be kept in their file: {error:#}; tried again with growing pauses, logged once"
                    );
                }
                self.pause = (self.pause * 2).clamp(PAUSE, PAUSE_MAX);
                self.again = Some(Instant::now() + self.pause);
                false
            }
        }
    }
}
