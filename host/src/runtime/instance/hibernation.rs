//! An instance that has nothing to do for as long as its limits say is dropped, with its memory; its
//! task stays, and waits for what it would have waited for.
//!
//! ```text
//!         idle for `hibernate_after`
//! running ──────────────────────────► stop ─► dropped: a task, an inbox, timers
//!    ▲                                                  │ message, tick, other configuration
//!    └──────── start ◄── instantiate ◄──────────────────┘
//! ```
//!
//! For the guest it is an orderly stop, and a start like any other: what it wants to have again it keeps
//! in its key-value store. Its timers stay set, those that are not kept in the store too, and tick when
//! they are due. It does not hibernate while messages wait for another attempt. One whose module has to be
//! verified again ends instead of waking up.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::{End, Instance, Setup, until};
use crate::bus::message::count;
use crate::local_api::state::now_ms;
use crate::local_api::timers::{DueTick, Timers};
use crate::runtime::failure::Failure;

impl Instance<'_> {
    /// When it has been idle for long enough, if it may hibernate at all.
    pub(super) fn hibernates_at(&mut self) -> Option<Instant> {
        let after = self.guest.state().limits.hibernate_after?;
        let waits = !self.retries.is_empty() || self.inbox.next_attempt().is_some();
        (!waits).then(|| self.idle_since + Duration::from_millis(after.0))
    }

    /// The last call.
    pub(super) async fn hibernate(&mut self) -> Result<End, Failure> {
        let grace = self.guest.state().limits.stop_grace;
        self.guest.stop(Duration::from_millis(grace.0)).await?;
        Ok(End::Hibernates)
    }
}

/// Waits until the microservice has to run again. Returns the tick for which it wakes up, if that is
/// why; none at all when it was asked to stop.
pub(super) async fn wait(
    setup: &mut Setup,
    timers: &mut Timers,
    configuration: &BTreeMap<String, String>,
    handles: bool,
) -> Option<Option<DueTick>> {
    setup.logger.end_instance();
    let counters = &setup.counters;
    count(&counters.hibernations);
    counters.memory_bytes.store(0, Ordering::Relaxed);
    let since = &counters.hibernating_since_ms;
    since.store(now_ms().max(1), Ordering::Relaxed);
    let tick = loop {
        tokio::select! {
            biased;
            changed = setup.orders.changed() => {
                let orders = setup.orders.borrow();
                if changed.is_err() || orders.stop.is_some() {
                    return None; // the control loop has ended, or has asked for it
                }
                if *orders.configuration != *configuration {
                    break None;
                }
            }
            () = until(timers.next()) => break timers.take_due(Instant::now(), now_ms()),
            () = setup.inbox.wait(), if handles => break None,
        }
    };
    timers.wake();
    Some(tick)
}
