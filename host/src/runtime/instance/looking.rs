//! A guest learns of its directories once, when it starts. When one of them is created, mounted, replaced
//! or removed later, the instance is stopped and another one is started: without that the guest would
//! never see the new directory, and would write below a file system that is mounted above the old one.
//!
//! ```text
//! Due ── the pause is over ──► UnderWay ── nothing has changed ──► Due
//!                                 └─────── a change ─────────────► stop ─► the next instance
//! ```
//!
//! A directory on a dead file server may not answer for ever. Only the thread of the look waits for it:
//! calls, timers and messages go on, and no other look begins meanwhile.

use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use haar_protocol::log::Level;
use tokio::time::Instant;

use super::{End, Instance, until};
use crate::runtime::failure::Failure;

/// What has changed, for people; none when nothing has.
type Change = Option<String>;

/// See the head of this file.
pub(super) enum Look {
    /// The instance has no directory that may change.
    Never,
    /// The next look begins then.
    Due(Instant),
    UnderWay {
        change: Pin<Box<dyn Future<Output = Change> + Send>>,
        /// When it is reported that the look takes long; none when it was.
        report_at: Option<Instant>,
    },
}

/// What happens to a look.
pub(super) enum Event {
    Begins,
    TakesLong,
    Ends(Change),
}

impl Look {
    /// Waits for what happens next. May be dropped and called again.
    pub(super) async fn next(&mut self) -> Event {
        match self {
            Look::Never => pending().await,
            Look::Due(at) => {
                tokio::time::sleep_until(*at).await;
                Event::Begins
            }
            Look::UnderWay { change, report_at } => tokio::select! {
                biased;
                change = change => Event::Ends(change),
                () = until(*report_at) => Event::TakesLong,
            },
        }
    }
}

impl Instance<'_> {
    /// Has its directories looked at after a pause.
    pub(super) fn look_later(&mut self) {
        let state = self.guest.state();
        let due = Instant::now() + state.surroundings.look_pause;
        self.look = match state.files.may_change() {
            true => Look::Due(due),
            false => Look::Never,
        };
    }

    /// Goes on with a look. After a change the next instance begins, in order, and messages that wait for
    /// another attempt are tried again at once.
    pub(super) async fn looked(&mut self, event: Event) -> Result<Option<End>, Failure> {
        let state = self.guest.state();
        let change = match event {
            Event::Begins => {
                let surroundings = &state.surroundings;
                let change = Box::pin(state.files.look(Arc::clone(&surroundings.policy)));
                let report_at = Some(Instant::now() + surroundings.look_pause);
                self.look = Look::UnderWay { change, report_at };
                return Ok(None);
            }
            Event::TakesLong => {
                if let Some(operation) = state.files.unfinished_look() {
                    let text = format!(
                        "a granted directory does not answer: {operation}; it is not looked at again before it does"
                    );
                    self.logger.agent(Level::Warn, &text);
                }
                if let Look::UnderWay { report_at, .. } = &mut self.look {
                    *report_at = None;
                }
                return Ok(None);
            }
            Event::Ends(change) => change,
        };
        let Some(change) = change else {
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
