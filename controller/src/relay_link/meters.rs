//! How much each node may report: messages and bytes at the door of the intake, and events. Generous
//! for every honest node; one that exceeds it loses its own reports and nobody else's.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use haar_protocol::ids::NodeId;
use tokio::time::Instant;

use crate::bucket::{Bucket, Rate};

/// An agent sends a status when something changes and every few seconds, and logs in batches.
const MESSAGES: Rate = Rate {
    per_minute: 100 * 60,
    burst: 2_000,
};
const BYTES: Rate = Rate {
    per_minute: (4 << 20) * 60,
    burst: 64 << 20,
};
/// One status may cause 50 events; a node that starts everything has room for two of them.
const EVENTS: Rate = Rate {
    per_minute: 10,
    burst: 100,
};
/// Beyond this number, nodes that are gone are looked for.
const METERS_MIN: usize = 64;

/// What becomes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Door {
    /// It is taken.
    Open,
    /// It is dropped, and it is the first one.
    Closes,
    /// It is dropped.
    Closed,
}

/// What can be wrong with reports of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flaw {
    /// A status is not believed.
    Status = 0,
    /// A batch of log lines is not taken.
    Logs = 1,
    /// Log lines name a microservice that was never assigned to the node.
    ForeignLines = 2,
}

#[derive(Debug)]
struct Meter {
    messages: Bucket,
    bytes: Bucket,
    events: Bucket,
    /// Messages that were dropped since the last time that the node was within its rates for long.
    dropped: u64,
    /// Events that were left out since the last one that was not.
    left_out: u64,
    /// Whether an event that the node came or went was left out: the next one says where it is now.
    owes_presence: bool,
    /// What is wrong with its reports and was logged, until it is right again.
    flaws: [bool; 3],
}

impl Meter {
    fn new(now: Instant) -> Self {
        Self {
            messages: Bucket::full(MESSAGES, now),
            bytes: Bucket::full(BYTES, now),
            events: Bucket::full(EVENTS, now),
            dropped: 0,
            left_out: 0,
            owes_presence: false,
            flaws: [false; 3],
        }
    }
}

/// The meters of all nodes, over all relays. Taken for single look-ups, never across an await.
#[derive(Clone, Default)]
pub(super) struct Meters(Arc<Mutex<HashMap<NodeId, Meter>>>);

impl Meters {
    /// Whether a message of `bytes` bytes is taken.
    pub(super) fn admit(&self, node: &NodeId, bytes: usize, now: Instant) -> Door {
        self.with(node, now, |meter| {
            if meter.dropped > 0 && meter.messages.is_full(MESSAGES, now) {
                tracing::info!(%node, dropped = meter.dropped, "a node is within its rates again");
                meter.dropped = 0;
            }
            let is_admitted =
                meter.messages.take(MESSAGES, 1, now) && meter.bytes.take(BYTES, bytes as u64, now);
            if is_admitted {
                return Door::Open;
            }
            meter.dropped += 1;
            match meter.dropped {
                1 => Door::Closes,
                _ => Door::Closed,
            }
        })
    }

    /// Whether an event of a node is recorded: if so, how many were left out before it.
    pub(super) fn event(&self, node: &NodeId, now: Instant) -> Option<u64> {
        self.with(node, now, |meter| {
            if meter.events.take(EVENTS, 1, now) {
                return Some(std::mem::take(&mut meter.left_out));
            }
            meter.left_out += 1;
            None
        })
    }

    /// As [`Meters::event`], for whether the node is there. None also when nothing has `changed`, unless
    /// an event of that was left out: what people saw last must not stay wrong.
    pub(super) fn presence_event(&self, node: &NodeId, changed: bool, now: Instant) -> Option<u64> {
        self.with(node, now, |meter| {
            if !changed && !meter.owes_presence {
                return None;
            }
            meter.owes_presence = !meter.events.take(EVENTS, 1, now);
            if meter.owes_presence {
                meter.left_out += u64::from(changed);
                return None;
            }
            Some(std::mem::take(&mut meter.left_out))
        })
    }

    /// Notes whether a report of a node has a flaw. True when it has and the last one did not.
    pub(super) fn is_new(&self, node: &NodeId, flaw: Flaw, has_it: bool, now: Instant) -> bool {
        self.with(node, now, |meter| {
            let had_it = std::mem::replace(&mut meter.flaws[flaw as usize], has_it);
            has_it && !had_it
        })
    }

    /// Forgets the nodes that are gone, when there are more meters than `nodes` of the site.
    pub(super) fn tidy(&self, nodes: usize, is_there: impl Fn(&NodeId) -> bool) {
        let mut meters = self.lock();
        if meters.len() > nodes.max(METERS_MIN) {
            meters.retain(|node, _| is_there(node));
        }
    }

    fn with<T>(&self, node: &NodeId, now: Instant, work: impl FnOnce(&mut Meter) -> T) -> T {
        let mut meters = self.lock();
        if let Some(meter) = meters.get_mut(node) {
            return work(meter);
        }
        work(meters.entry(node.clone()).or_insert(Meter::new(now)))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<NodeId, Meter>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use haar_protocol::keys::SecretKey;

    use super::*;

    fn node(seed: u8) -> NodeId {
        NodeId::of(&SecretKey::from_seed([seed; 32]).public())
    }

    #[test]
    fn a_flood_closes_the_door_for_its_node_alone_and_once() {
        let (meters, now) = (Meters::default(), Instant::now());
        let doors: Vec<Door> = (0..5_000).map(|_| meters.admit(&node(1), 1, now)).collect();
        let count = |door| doors.iter().filter(|one| **one == door).count();
        assert_eq!(count(Door::Open), 2_000);
        assert_eq!(count(Door::Closes), 1);
        assert_eq!(meters.admit(&node(2), 1, now), Door::Open);
        assert_eq!(meters.admit(&node(2), 65 << 20, now), Door::Closes);
        let later = now + Duration::from_secs(60);
        assert_eq!(meters.admit(&node(1), 1, later), Door::Open);
    }

    #[test]
    fn events_that_are_left_out_are_counted_with_the_next_one() {
        let (meters, now) = (Meters::default(), Instant::now());
        let recorded = (0..150).filter(|_| meters.event(&node(1), now).is_some());
        assert_eq!(recorded.count(), 100);
        let later = now + Duration::from_secs(7);
        assert_eq!(meters.event(&node(1), later), Some(50));
        assert_eq!(meters.event(&node(1), later), None);
    }

    #[test]
    fn where_a_node_is_becomes_an_event_later_if_it_could_not_at_once() {
        let (meters, now) = (Meters::default(), Instant::now());
        let later = now + Duration::from_secs(7);
        assert_eq!(meters.presence_event(&node(1), false, now), None);
        for _ in 0..100 {
            assert_eq!(meters.presence_event(&node(1), true, now), Some(0));
        }
        assert_eq!(meters.presence_event(&node(1), true, now), None);
        assert_eq!(meters.presence_event(&node(1), false, now), None);
        assert_eq!(meters.presence_event(&node(1), false, later), Some(1));
        assert_eq!(meters.presence_event(&node(1), false, later), None);
    }

    #[test]
    fn nodes_that_are_gone_are_forgotten() {
        let (meters, now) = (Meters::default(), Instant::now());
        for seed in 0..=64 {
            meters.event(&node(seed), now);
        }
        meters.tidy(1, |one| one == &node(7));
        assert_eq!(meters.lock().len(), 1);
    }
}
