//! The newest messages of a log at hand, until nobody needs them any more; of all logs together no
//! more than a small device bears, however many there are and whoever is away.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use haar_link::runs::Runs;

use crate::bus::message::Message;
use crate::store::log::{Logged, message_bytes};

/// Bytes that one log holds.
const LOG_BYTES_MAX: u64 = 256 << 10;
/// Bytes that all logs hold together, beyond which a log that gets more holds this much.
const ALL_BYTES_MAX: u64 = 2 << 20;
const LOG_BYTES_MIN: u64 = 16 << 10;
/// Bytes of all logs from which on they are looked at sooner.
const ALL_BYTES_MUCH: u64 = 256 << 10;

/// What all logs hold together.
#[derive(Debug, Clone, Default)]
pub struct Held(Arc<AtomicU64>);

impl Held {
    /// So much that it is worth to look what of it nobody needs.
    pub(super) fn is_much(&self) -> bool {
        self.0.load(Ordering::Relaxed) > ALL_BYTES_MUCH
    }
}

/// The newest messages, without a gap.
#[derive(Debug)]
pub(super) struct Recent {
    /// See [`OpenLog::runs`](crate::store::log::OpenLog::runs), with the one that this node appends.
    pub(super) runs: Runs,
    messages: VecDeque<Logged>,
    bytes: u64,
    held: Held,
}

impl Recent {
    pub(super) fn new(runs: Runs, held: Held) -> Self {
        Self {
            runs,
            messages: VecDeque::new(),
            bytes: 0,
            held,
        }
    }

    pub(super) fn add(&mut self, logged: Logged) {
        let follows = |last: &Logged| last.position + 1 == logged.position;
        if !self.messages.back().is_some_and(follows) {
            self.clear();
        }
        let bytes = bytes_of(&logged.message);
        self.bytes += bytes;
        let all = self.held.0.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.messages.push_back(logged);
        let bytes_max = match all > ALL_BYTES_MAX {
            true => LOG_BYTES_MIN,
            false => LOG_BYTES_MAX,
        };
        while self.bytes > bytes_max {
            self.drop_oldest();
        }
    }

    /// Nobody needs what is up to this position.
    pub(super) fn forget(&mut self, upto: u64) {
        let is_passed = |oldest: &Logged| oldest.position <= upto;
        while self.messages.front().is_some_and(is_passed) {
            self.drop_oldest();
        }
        if self.messages.is_empty() {
            self.messages = VecDeque::new(); // with the room that it took at its busiest
        }
    }

    /// Messages after a position, if the next one is here.
    pub(super) fn after(&self, position: u64, bytes: u64) -> Option<Vec<Logged>> {
        let first = self.messages.front()?.position;
        let index = usize::try_from((position + 1).checked_sub(first)?).ok()?;
        if index >= self.messages.len() {
            return None;
        }
        let mut total = 0;
        let fits = |logged: &&Logged| {
            let is_first = total == 0;
            total += bytes_of(&logged.message);
            is_first || total <= bytes
        };
        let messages = self.messages.range(index..).take_while(fits);
        Some(messages.cloned().collect())
    }

    fn drop_oldest(&mut self) {
        if let Some(oldest) = self.messages.pop_front() {
            let bytes = bytes_of(&oldest.message);
            self.bytes -= bytes;
            self.held.0.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    fn clear(&mut self) {
        while !self.messages.is_empty() {
            self.drop_oldest();
        }
    }
}

impl Drop for Recent {
    fn drop(&mut self) {
        self.held.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

fn bytes_of(message: &Message) -> u64 {
    message_bytes(&message.headers, message.body.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY_BYTES: usize = 1_000;

    fn logged(position: u64) -> Logged {
        Logged {
            position,
            message: Arc::new(Message {
                source: Arc::default(),
                sequence: position,
                published_ms: 0,
                headers: vec![],
                body: vec![0; BODY_BYTES],
            }),
            stored_ms: 0,
        }
    }

    fn filled(held: &Held, messages: u64) -> Recent {
        let mut recent = Recent::new(Runs::new(), held.clone());
        (1..=messages).for_each(|position| recent.add(logged(position)));
        recent
    }

    fn positions(recent: &Recent) -> Vec<u64> {
        let messages = recent.messages.iter();
        messages.map(|one| one.position).collect()
    }

    fn all_bytes(held: &Held) -> u64 {
        held.0.load(Ordering::Relaxed)
    }

    #[test]
    fn holds_the_newest_of_what_somebody_needs() {
        let held = Held::default();
        let mut recent = filled(&held, 1_000);
        assert_eq!(positions(&recent).last(), Some(&1_000));
        assert!(recent.bytes <= LOG_BYTES_MAX && recent.bytes > LOG_BYTES_MAX / 2);
        assert_eq!(all_bytes(&held), recent.bytes);
        recent.forget(998);
        assert_eq!(positions(&recent), [999, 1_000]);
        assert!(recent.after(997, u64::MAX).is_none());
        assert_eq!(recent.after(998, u64::MAX).unwrap().len(), 2);
        assert_eq!(recent.after(998, 1).unwrap().len(), 1);
        recent.forget(2_000);
        assert_eq!((recent.bytes, all_bytes(&held)), (0, 0));
    }

    #[test]
    fn a_gap_ends_what_is_at_hand() {
        let held = Held::default();
        let mut recent = filled(&held, 5);
        recent.add(logged(9));
        assert_eq!(positions(&recent), [9]);
        assert_eq!(all_bytes(&held), recent.bytes);
    }

    #[test]
    fn many_logs_together_hold_little_more_than_a_few_do() {
        let held = Held::default();
        let logs: Vec<Recent> = (0..100).map(|_| filled(&held, 1_000)).collect();
        assert!(all_bytes(&held) <= ALL_BYTES_MAX + 100 * LOG_BYTES_MIN);
        assert!(
            logs.iter()
                .all(|recent| positions(recent).last() == Some(&1_000))
        );
        drop(logs);
        assert_eq!(all_bytes(&held), 0);
    }
}
