//! When the timers of an instance tick: pure, time is an argument. While an instance lives its
//! timers run on the monotonic clock, so a step of the wall clock moves none of them. Only what is
//! kept is resumed by the wall clock, which may have been wrong when it was written or be wrong
//! now: whatever is stored, a timer ticks once and then in its rhythm.

use std::collections::BTreeMap;

use tokio::time::{Duration, Instant};

use crate::runtime::rate::Rate;
use crate::store::timers::KeptTimer;

/// The longest delay or period in milliseconds: a year. What is kept and further away than that
/// was written, or is read, by a wrong clock.
pub(super) const DELAY_MS_MAX: u64 = 365 * 86_400_000;
/// A wall clock that deviates by more than this from where it should be has been stepped.
const STEP_MS_MIN: u64 = 1_000;

/// The timers of one instance, by name.
#[derive(Debug, Default)]
pub struct Timers {
    timers: BTreeMap<String, Timer>,
    /// A kept timer that ticks once, and whose tick is being handled. It is still stored.
    ticking: Option<String>,
    /// How fast kept timers are set.
    pub(super) kept_changes: Rate,
    /// The instance wakes up, and sets again what is set already.
    is_waking: bool,
}

/// One timer.
#[derive(Debug)]
pub(super) struct Timer {
    due: Instant,
    /// When it is due by the wall clock: milliseconds since the Unix epoch.
    scheduled_ms: u64,
    period_ms: Option<u64>,
    /// Ticks that passed unseen before the timer was resumed.
    missed: u32,
    /// What the store has of it, when it is kept.
    stored: Option<Stored>,
}

#[derive(Debug)]
struct Stored {
    scheduled_ms: u64,
    at: Instant,
}

/// A tick that is due.
#[derive(Debug, PartialEq, Eq)]
pub struct DueTick {
    /// The timer.
    pub name: String,
    /// When it should have ticked: milliseconds since the Unix epoch.
    pub scheduled_ms: u64,
    /// Ticks that passed unseen since the last one.
    pub missed: u32,
}

impl Timers {
    /// Timers as they were kept.
    pub(super) fn resume(kept: Vec<KeptTimer>, now: Instant, now_ms: u64) -> Self {
        let timers = kept.into_iter().map(|one| {
            let timer = Timer::resume(&one, now, now_ms);
            (one.name, timer)
        });
        Self {
            timers: timers.collect(),
            ..Self::default()
        }
    }

    /// When the next timer is due.
    pub fn next(&self) -> Option<Instant> {
        self.timers.values().map(|timer| timer.due).min()
    }

    /// Takes the timer that has been due for longest, if one is due at `now`, and sets it anew
    /// when it repeats. `now_ms` is the same instant by the wall clock.
    pub fn take_due(&mut self, now: Instant, now_ms: u64) -> Option<DueTick> {
        let (name, timer) = self
            .timers
            .iter_mut()
            .filter(|(_, timer)| timer.due <= now)
            .min_by_key(|(_, timer)| timer.due)?;
        let name = name.clone();
        timer.realign(now, now_ms);
        let (scheduled_ms, missed) = match timer.period_ms {
            Some(period_ms) => timer.tick(period_ms, now),
            None => (timer.scheduled_ms, timer.missed),
        };
        if timer.period_ms.is_none() {
            self.ticking = timer.stored.is_some().then(|| name.clone());
            self.timers.remove(&name);
        }
        Some(DueTick {
            name,
            scheduled_ms,
            missed,
        })
    }

    /// The instance that they were set by is gone, and another one begins with them: from now on to
    /// [`awake`](Self::awake) a timer that is set again as it was goes on in its rhythm. Otherwise one
    /// that is longer than the pauses between two messages would never tick.
    pub fn wake(&mut self) {
        self.is_waking = true;
    }

    /// Its `start` has returned.
    pub fn awake(&mut self) {
        self.is_waking = false;
    }

    /// True when a timer need not be set, because it goes on as it is.
    pub(super) fn goes_on(&self, name: &str, period_ms: Option<u64>, is_kept: bool) -> bool {
        let is_same =
            |timer: &Timer| timer.period_ms == period_ms && timer.stored.is_some() == is_kept;
        self.is_waking && self.timers.get(name).is_some_and(is_same)
    }

    /// True when one more timer of this name may be set.
    pub(super) fn has_room(&self, name: &str, most: u32) -> bool {
        self.timers.contains_key(name) || self.timers.len() < most as usize
    }

    /// True when the store has a timer of this name.
    pub(super) fn is_stored(&self, name: &str) -> bool {
        self.ticking.as_deref() == Some(name)
            || self
                .timers
                .get(name)
                .is_some_and(|timer| timer.stored.is_some())
    }

    /// Sets a timer, in the place of one of the same name.
    pub(super) fn set(&mut self, name: String, timer: Timer) {
        self.ticking.take_if(|ticking| *ticking == name);
        self.timers.insert(name, timer);
    }

    /// Removes a timer. False when there is none of this name.
    pub(super) fn remove(&mut self, name: &str) -> bool {
        self.ticking.take_if(|ticking| ticking == name);
        self.timers.remove(name).is_some()
    }

    /// A tick was handled. The name of a kept timer that has ticked for the last time.
    pub(super) fn take_ticked(&mut self) -> Option<String> {
        self.ticking.take()
    }

    /// What the store should have of the timer, when it is kept, has moved on, and was last written
    /// `age` or longer ago. It is taken for written.
    pub(super) fn take_unsaved(
        &mut self,
        name: &str,
        age: Duration,
        now: Instant,
        now_ms: u64,
    ) -> Option<KeptTimer> {
        let timer = self.timers.get_mut(name)?;
        timer.realign(now, now_ms);
        let stored = timer.stored.as_mut()?;
        if stored.scheduled_ms == timer.scheduled_ms || now < stored.at + age {
            return None;
        }
        *stored = Stored {
            scheduled_ms: timer.scheduled_ms,
            at: now,
        };
        Some(timer.to_kept(name))
    }

    /// The same of all timers, however lately they were written.
    pub(super) fn take_all_unsaved(&mut self, now: Instant, now_ms: u64) -> Vec<KeptTimer> {
        let names: Vec<String> = self.timers.keys().cloned().collect();
        names
            .iter()
            .filter_map(|name| self.take_unsaved(name, Duration::ZERO, now, now_ms))
            .collect()
    }
}

impl Timer {
    /// A timer that is set at `now`, which is `now_ms` by the wall clock.
    pub(super) fn new(delay_ms: u64, period_ms: Option<u64>, now: Instant, now_ms: u64) -> Self {
        Self {
            due: now + Duration::from_millis(delay_ms),
            scheduled_ms: now_ms.saturating_add(delay_ms),
            period_ms,
            missed: 0,
            stored: None,
        }
    }

    /// The same timer, of which the store has what [`to_kept`](Self::to_kept) says.
    pub(super) fn stored(mut self, at: Instant) -> Self {
        self.stored = Some(Stored {
            scheduled_ms: self.scheduled_ms,
            at,
        });
        self
    }

    pub(super) fn to_kept(&self, name: &str) -> KeptTimer {
        KeptTimer {
            name: name.to_owned(),
            scheduled_ms: self.scheduled_ms,
            period_ms: self.period_ms,
        }
    }

    fn resume(kept: &KeptTimer, now: Instant, now_ms: u64) -> Self {
        let period_ms = kept.period_ms.map(|period| period.clamp(1, DELAY_MS_MAX));
        let late_ms = now_ms.saturating_sub(kept.scheduled_ms);
        let ahead_ms = kept.scheduled_ms.saturating_sub(now_ms);
        let ago = |ms| now.checked_sub(Duration::from_millis(ms)).unwrap_or(now);
        let (due, scheduled_ms, missed) = match period_ms {
            // It stays in its rhythm: the tick that is due is the last one that passed.
            Some(period_ms) if ahead_ms == 0 => {
                let since_last_ms = late_ms % period_ms;
                let missed = late_ms.min(DELAY_MS_MAX) / period_ms;
                (ago(since_last_ms), now_ms - since_last_ms, missed)
            }
            // The next tick is never more than a period away, unless a clock was wrong.
            Some(period_ms) => {
                let ahead_ms = (ahead_ms - 1) % period_ms + 1;
                let due = now + Duration::from_millis(ahead_ms);
                (due, now_ms.saturating_add(ahead_ms), 0)
            }
            None if ahead_ms > DELAY_MS_MAX => (now, now_ms, 0),
            None if ahead_ms > 0 => {
                let due = now + Duration::from_millis(ahead_ms);
                (due, kept.scheduled_ms, 0)
            }
            None => {
                let late_ms = late_ms.min(DELAY_MS_MAX);
                (ago(late_ms), now_ms - late_ms, 0)
            }
        };
        Self {
            due,
            scheduled_ms,
            period_ms,
            missed: u32::try_from(missed).unwrap_or(u32::MAX),
            stored: Some(Stored {
                scheduled_ms: kept.scheduled_ms,
                at: now,
            }),
        }
    }

    /// Goes on to the next tick in the future. Returns when the one that is reported was due, and
    /// how many passed unseen before it.
    fn tick(&mut self, period_ms: u64, now: Instant) -> (u64, u32) {
        let late_ms = milliseconds(now.saturating_duration_since(self.due));
        let passed = late_ms / period_ms;
        let reported_ms = self.scheduled_ms.saturating_add(passed * period_ms);
        let missed = u32::try_from(passed).unwrap_or(u32::MAX);
        let missed = missed.saturating_add(std::mem::take(&mut self.missed));
        self.due += Duration::from_millis((passed + 1) * period_ms);
        self.scheduled_ms = reported_ms.saturating_add(period_ms);
        (reported_ms, missed)
    }

    /// After a step of the wall clock, what it will show when the timer is due.
    fn realign(&mut self, now: Instant, now_ms: u64) {
        let late_ms = milliseconds(now.saturating_duration_since(self.due));
        let ahead_ms = milliseconds(self.due.saturating_duration_since(now));
        let shown_ms = now_ms.saturating_sub(late_ms).saturating_add(ahead_ms);
        if shown_ms.abs_diff(self.scheduled_ms) > STEP_MS_MIN {
            self.scheduled_ms = shown_ms;
        }
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
