//! The state of the session with one broker of devices, as statuses report it. The session's task
//! writes it, the control loop reads it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use haar_protocol::ids::Name;
use haar_protocol::status::RelayStatus;
use haar_protocol::text;
use tokio::sync::mpsc;

use super::Event;
use super::links::REASON_BYTES_MAX;
use crate::local_api::state::now_ms;

/// For so long a session takes what the broker has kept for an agent of an earlier release, and nobody
/// need know.
const TAKEOVER_UNSAID: Duration = Duration::from_secs(60);
const TAKEOVER: &str = "it still takes what the broker kept for an agent of an earlier release, and live messages arrive afterwards: where this does not end, the log of a route is full (see its backlog)";

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Health {
    /// Locked for a copy or an assignment, by the session's task and the control loop.
    state: Mutex<State>,
    events: mpsc::Sender<Event>,
}

#[derive(Debug)]
struct State {
    status: RelayStatus,
    /// Since when the session takes over that of an agent of an earlier release.
    takes_over_since: Option<Instant>,
}

impl Health {
    /// Not connected yet.
    pub(super) fn new(relay: Name, events: mpsc::Sender<Event>) -> Self {
        let status = RelayStatus {
            name: relay,
            connected: false,
            reason: None,
            since_ms: Some(now_ms()),
        };
        let state = State {
            status,
            takes_over_since: None,
        };
        Self {
            state: Mutex::new(state),
            events,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn status(&self) -> RelayStatus {
        self.status_at(Instant::now())
    }

    fn status_at(&self, now: Instant) -> RelayStatus {
        let state = self.state();
        let mut status = state.status.clone();
        let since = state.takes_over_since.filter(|_| status.connected);
        let is_said = since.is_some_and(|since| now >= since + TAKEOVER_UNSAID);
        if is_said && status.reason.is_none() {
            status.reason = Some(text::line(TAKEOVER, REASON_BYTES_MAX));
        }
        status
    }

    /// The session takes over that of an agent of an earlier release, also over several connections; or
    /// it does not, or no longer.
    pub(super) fn takes_over(&self, is_so: bool) {
        let mut state = self.state();
        let since = state.takes_over_since.unwrap_or_else(Instant::now);
        state.takes_over_since = is_so.then_some(since);
    }

    /// There is a connection, or there is none for a reason.
    pub(super) fn set(&self, connected: bool, reason: Option<&str>) {
        let mut state = self.state();
        let status = &mut state.status;
        if status.connected != connected {
            status.connected = connected;
            status.since_ms = Some(now_ms());
        }
        status.reason = reason.map(|reason| text::line(reason, REASON_BYTES_MAX));
        drop(state);
        // A control loop with a full queue sends a status soon anyway; this task never waits for it.
        let _ = self.events.try_send(Event::Changed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_takeover_that_does_not_end_is_told() {
        let (events, _received) = mpsc::channel(8);
        let health = Health::new("plant".parse().unwrap(), events);
        let reason = |after: Duration| health.status_at(Instant::now() + after).reason;
        health.takes_over(true);
        health.set(true, None);
        assert_eq!(reason(Duration::ZERO), None);
        assert_eq!(reason(TAKEOVER_UNSAID).as_deref(), Some(TAKEOVER));
        // What is known of a route comes first, and so does a cut.
        health.set(true, Some("it takes no wildcards"));
        assert_eq!(
            reason(TAKEOVER_UNSAID).as_deref(),
            Some("it takes no wildcards")
        );
        health.set(false, None);
        assert_eq!(reason(TAKEOVER_UNSAID), None);
        health.takes_over(false);
        health.set(true, None);
        assert_eq!(reason(TAKEOVER_UNSAID), None);
    }
}
