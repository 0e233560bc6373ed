//! `haar:local/timers`: timers of an instance. A repeating timer that comes late ticks once and
//! reports what it missed; it never ticks in a burst.

use std::collections::BTreeMap;

use tokio::time::{Duration, Instant};

use super::bindings::imports::haar::local::timers;
use super::state::{State, now_ms};

/// The shortest period of a repeating timer in milliseconds.
const PERIOD_MS_MIN: u64 = 1;
/// The longest delay or period in milliseconds: a year.
const DELAY_MS_MAX: u64 = 365 * 86_400_000;

/// The timers of one instance, by name.
#[derive(Debug, Default)]
pub struct Timers {
    timers: BTreeMap<String, Timer>,
}

#[derive(Debug)]
struct Timer {
    due: Instant,
    scheduled_ms: u64,
    period_ms: Option<u64>,
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
    /// When the next timer is due.
    pub fn next(&self) -> Option<Instant> {
        self.timers.values().map(|timer| timer.due).min()
    }

    /// Takes the timer that has been due for longest, if one is due at `now`, and sets it anew
    /// when it repeats.
    pub fn take_due(&mut self, now: Instant) -> Option<DueTick> {
        let (name, timer) = self
            .timers
            .iter_mut()
            .filter(|(_, timer)| timer.due <= now)
            .min_by_key(|(_, timer)| timer.due)?;
        let mut tick = DueTick {
            name: name.clone(),
            scheduled_ms: timer.scheduled_ms,
            missed: 0,
        };
        let Some(period_ms) = timer.period_ms else {
            self.timers.remove(&tick.name);
            return Some(tick);
        };
        let late_ms = u64::try_from((now - timer.due).as_millis()).unwrap_or(u64::MAX);
        let missed = late_ms / period_ms;
        tick.missed = u32::try_from(missed).unwrap_or(u32::MAX);
        tick.scheduled_ms += missed * period_ms;
        let ahead_ms = (missed + 1).saturating_mul(period_ms);
        timer.due += Duration::from_millis(ahead_ms);
        timer.scheduled_ms = timer.scheduled_ms.saturating_add(ahead_ms);
        Some(tick)
    }

    fn set(
        &mut self,
        name: String,
        delay_ms: u64,
        period_ms: Option<u64>,
        most: u32,
    ) -> Result<(), timers::TimerError> {
        if !self.timers.contains_key(&name) && self.timers.len() >= most as usize {
            return Err(timers::TimerError::TooMany(most));
        }
        let delay_ms = delay_ms.min(DELAY_MS_MAX);
        let due = Instant::now() + Duration::from_millis(delay_ms);
        self.timers.insert(
            name,
            Timer {
                due,
                scheduled_ms: now_ms().saturating_add(delay_ms),
                period_ms,
            },
        );
        Ok(())
    }
}

impl timers::Host for State {
    fn set_once(
        &mut self,
        name: String,
        delay: u64,
        _lifetime: timers::Lifetime,
    ) -> wasmtime::Result<Result<(), timers::TimerError>> {
        Ok(self.timers.set(name, delay, None, self.limits.timers))
    }

    fn set_repeating(
        &mut self,
        name: String,
        period: u64,
        _lifetime: timers::Lifetime,
    ) -> wasmtime::Result<Result<(), timers::TimerError>> {
        if period < PERIOD_MS_MIN {
            return Ok(Err(timers::TimerError::TooShort(PERIOD_MS_MIN)));
        }
        let period = period.min(DELAY_MS_MAX);
        Ok(self
            .timers
            .set(name, period, Some(period), self.limits.timers))
    }

    fn cancel(&mut self, name: String) -> wasmtime::Result<bool> {
        Ok(self.timers.timers.remove(&name).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timers_at(due: Instant, period_ms: Option<u64>) -> Timers {
        let timer = Timer {
            due,
            scheduled_ms: 1_000,
            period_ms,
        };
        Timers {
            timers: BTreeMap::from([("t".to_owned(), timer)]),
        }
    }

    #[test]
    fn a_late_repeating_timer_ticks_once_and_reports_what_it_missed() {
        let start = Instant::now();
        let mut timers = timers_at(start, Some(100));
        let now = start + Duration::from_millis(350);
        let tick = timers.take_due(now);
        assert_eq!(
            tick,
            Some(DueTick {
                name: "t".into(),
                scheduled_ms: 1_300,
                missed: 3
            })
        );
        assert_eq!(timers.take_due(now), None);
        assert_eq!(timers.next(), Some(start + Duration::from_millis(400)));
    }

    #[test]
    fn a_one_shot_timer_ticks_once_and_is_gone() {
        let start = Instant::now();
        let mut timers = timers_at(start, None);
        assert_eq!(timers.take_due(start - Duration::from_millis(1)), None);
        assert!(
            timers
                .take_due(start + Duration::from_secs(9))
                .is_some_and(|tick| tick.missed == 0)
        );
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn no_more_timers_than_allowed_are_set_but_one_may_be_replaced() {
        let mut timers = Timers::default();
        assert!(timers.set("a".into(), 1, None, 1).is_ok());
        assert!(timers.set("a".into(), 2, None, 1).is_ok());
        assert!(matches!(
            timers.set("b".into(), 1, None, 1),
            Err(timers::TimerError::TooMany(1))
        ));
    }
}
