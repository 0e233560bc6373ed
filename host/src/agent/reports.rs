//! When the next status may be sent, with which number, and what was already logged about statuses
//! that could not be sent: a status that fails is retried after growing pauses, and each kind of
//! failure is logged once until a status is sent again.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use super::pauses;
use crate::store::{StatusSequence, Store};

/// Why a status was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Obstacle {
    /// It can't be sealed.
    NotSealed,
    /// The queue to the relay is full.
    NotTaken,
}

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Reports {
    sequence: StatusSequence,
    /// Failures in a row.
    failures: u32,
    /// Before this time nothing is tried again.
    not_before: Option<Instant>,
    logged: BTreeSet<Obstacle>,
}

impl Reports {
    /// The number of the next status: the same one until it is sent.
    pub(super) async fn number(&mut self, store: &Store) -> u64 {
        self.sequence.peek(store).await
    }

    /// The status was handed to the relay.
    pub(super) fn sent(&mut self) {
        self.sequence.advance();
        self.failures = 0;
        self.not_before = None;
        self.logged.clear();
    }

    /// The status was not sent. True when that should be logged.
    pub(super) fn failed(&mut self, obstacle: Obstacle, now: Instant, chance: u8) -> bool {
        self.not_before = Some(now + pauses::before_fetch(self.failures, chance));
        self.failures = self.failures.saturating_add(1);
        self.logged.insert(obstacle)
    }

    /// When a change is reported that happens `now`.
    pub(super) fn next_after_change(&self, now: Instant, pause: Duration) -> Instant {
        self.not_before
            .map_or(now + pause, |at| at.max(now + pause))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_millis(20);

    #[test]
    fn a_status_that_fails_is_retried_after_growing_pauses_and_logged_once() {
        let (mut reports, start) = (Reports::default(), Instant::now());
        let mut now = start;
        let mut logged = 0;
        for _ in 0..7 {
            logged += u32::from(reports.failed(Obstacle::NotSealed, now, 0));
            now = reports.next_after_change(now, PAUSE);
        }
        assert_eq!(logged, 1);
        assert_eq!((now - start).as_secs(), 1 + 2 + 5 + 10 + 30 + 30 + 30);
        assert!(reports.failed(Obstacle::NotTaken, now, 0), "another kind");
    }

    #[test]
    fn after_one_that_is_sent_changes_are_reported_soon_again_and_failures_logged_again() {
        let (mut reports, now) = (Reports::default(), Instant::now());
        assert!(reports.failed(Obstacle::NotTaken, now, 0));
        reports.sent();
        assert_eq!(reports.next_after_change(now, PAUSE), now + PAUSE);
        assert!(reports.failed(Obstacle::NotTaken, now, 0));
    }

    #[tokio::test]
    async fn a_status_that_is_not_sent_uses_no_number() {
        let data = tempfile::tempdir().unwrap();
        let (store, _thread) = Store::open(data.path()).unwrap();
        let mut reports = Reports::default();
        let first = reports.number(&store).await;
        reports.failed(Obstacle::NotTaken, Instant::now(), 0);
        assert_eq!(reports.number(&store).await, first);
        reports.sent();
        assert_eq!(reports.number(&store).await, first + 1);
    }
}
