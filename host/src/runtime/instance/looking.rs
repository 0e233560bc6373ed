//! An instance has the directories that were there when it began. When one is made, mounted or removed
//! later, another instance begins: nothing else brings a guest a directory that it has not begun with,
//! and what it writes would go below a file system that is mounted above it.

use std::sync::Arc;
use std::time::Duration;

use haar_protocol::log::Level;
use tokio::time::Instant;

use super::{End, Instance, OPENING_MAX};
use crate::runtime::failure::Failure;

impl Instance<'_> {
    /// Looks at its directories again after a while.
    pub(super) fn look_later(&mut self) {
        let state = self.guest.state();
        let pause = state.surroundings.look_pause;
        self.looks_at = state.files.may_change().then(|| Instant::now() + pause);
    }

    /// Has another instance begin, in order, when a directory is there that was not, or is another one.
    /// What waits for another attempt is tried again at once then.
    pub(super) async fn look(&mut self) -> Result<Option<End>, Failure> {
        let state = self.guest.state();
        let policy = Arc::clone(&state.surroundings.policy);
        let looked = tokio::time::timeout(OPENING_MAX, state.files.changed(&policy)).await;
        let Ok(Some(change)) = looked else {
            self.look_later();
            return Ok(None);
        };
        let grace = state.limits.stop_grace;
        let text = format!("{change}: it is stopped, and starts again with what is there");
        self.logger.agent(Level::Info, &text);
        self.guest.stop(Duration::from_millis(grace.0)).await?;
        Ok(Some(End::BeginsAgain))
    }
}
