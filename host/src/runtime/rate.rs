//! Rates: so many things a second. What exceeds a [`Rate`] is refused, what exceeds a [`Pace`] waits.

use std::time::{Duration, Instant};

/// What a [`Pace`] lets pass at once: this time's worth.
const BURST: Duration = Duration::from_millis(250);

/// Counts what was taken. A token bucket that holds one second's worth.
#[derive(Debug, Default)]
pub struct Rate {
    /// Thousandths of things that may be taken now.
    available_thousandths: u64,
    refilled: Option<Instant>,
}

impl Rate {
    /// Takes one thing, of at most `per_second`.
    ///
    /// # Errors
    /// The milliseconds to wait until one may be taken.
    pub fn take(&mut self, per_second: u32) -> Result<(), u64> {
        self.take_many(per_second, 1)
    }

    /// Takes so many things at once, or none. More than a second's worth are never there: the
    /// caller asks for no more than `per_second`, or takes the wait for a refusal.
    ///
    /// # Errors
    /// The milliseconds to wait until they may be taken.
    pub fn take_many(&mut self, per_second: u32, count: u32) -> Result<(), u64> {
        self.take_many_at(per_second, count, Instant::now)
    }

    /// The same at a given time, which is asked for only when too little is left.
    fn take_many_at(
        &mut self,
        per_second: u32,
        count: u32,
        now: impl FnOnce() -> Instant,
    ) -> Result<(), u64> {
        let wanted = u64::from(count) * 1_000;
        // What a higher limit has left is not there under a lower one.
        let full = u64::from(per_second) * 1_000;
        self.available_thousandths = self.available_thousandths.min(full);
        if self.available_thousandths < wanted {
            self.refill(per_second, now());
        }
        if self.available_thousandths >= wanted {
            self.available_thousandths -= wanted;
            return Ok(());
        }
        let lacking = wanted - self.available_thousandths;
        Err(lacking.div_ceil(u64::from(per_second).max(1)))
    }

    /// `per_second` things a second are as many thousandths a millisecond.
    fn refill(&mut self, per_second: u32, now: Instant) {
        let full = u64::from(per_second) * 1_000;
        let Some(refilled) = self.refilled else {
            self.available_thousandths = full;
            self.refilled = Some(now);
            return;
        };
        let elapsed_us = u64::try_from((now - refilled).as_micros()).unwrap_or(u64::MAX);
        let gained = elapsed_us.saturating_mul(u64::from(per_second)) / 1_000;
        if gained > 0 {
            self.available_thousandths =
                self.available_thousandths.saturating_add(gained).min(full);
            self.refilled = Some(now);
        }
    }
}

/// Spreads things over time: the generic cell rate algorithm (ITU-T I.371, annex A), as a scheduler.
#[derive(Debug, Default)]
pub struct Pace {
    /// When the next thing would come, if they came evenly.
    due: Option<Instant>,
}

impl Pace {
    /// Takes one thing of `per_second`, at least one. How long it has to wait, if it has to.
    pub fn take(&mut self, per_second: u32) -> Option<Duration> {
        self.take_at(per_second, Instant::now())
    }

    fn take_at(&mut self, per_second: u32, now: Instant) -> Option<Duration> {
        let due = self.due.map_or(now, |due| due.max(now));
        self.due = Some(due + Duration::from_secs(1) / per_second.max(1));
        (due - now)
            .checked_sub(BURST)
            .filter(|wait| !wait.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seconds_worth_is_there_at_once_and_then_it_refills_with_time() {
        let mut rate = Rate::default();
        let start = Instant::now();
        rate.refill(10, start);
        assert_eq!(rate.available_thousandths, 10_000);
        rate.available_thousandths = 0;
        rate.refill(10, start + Duration::from_millis(250));
        assert_eq!(rate.available_thousandths, 2_500);
        rate.refill(10, start + Duration::from_secs(100));
        assert_eq!(rate.available_thousandths, 10_000);
    }

    #[test]
    fn many_things_are_taken_at_once_or_not_at_all() {
        let (mut rate, start) = (Rate::default(), Instant::now());
        let mut take = |count| rate.take_many_at(10, count, || start);
        assert_eq!(take(8), Ok(()));
        assert_eq!(take(10), Err(800));
        assert_eq!(take(2), Ok(()), "a refused request takes nothing");
        assert_eq!(rate.take_many_at(0, 0, || start), Ok(()));
    }

    #[test]
    fn a_lower_limit_holds_at_once_and_a_higher_one_gives_nothing_in_advance() {
        let (mut rate, start) = (Rate::default(), Instant::now());
        let mut take = |per_second, count| rate.take_many_at(per_second, count, || start);
        assert_eq!(take(10_000, 1), Ok(()));
        assert_eq!(take(100, 100), Ok(()), "a second's worth");
        assert!(take(100, 50).is_err());
        assert!(take(10_000, 10_000).is_err());
        assert!(take(0, 1).is_err());
    }

    #[test]
    fn a_rate_of_nothing_lets_nothing_pass() {
        let mut rate = Rate::default();
        assert!(rate.take(0).is_err());
    }

    #[test]
    fn what_comes_too_fast_is_spread_over_time() {
        let mut pace = Pace::default();
        let start = Instant::now();
        let ms = Duration::from_millis;
        for _ in 0..26 {
            assert_eq!(
                pace.take_at(100, start),
                None,
                "a quarter of a second's worth"
            );
        }
        assert_eq!(pace.take_at(100, start), Some(ms(10)));
        assert_eq!(pace.take_at(100, start), Some(ms(20)));
        assert_eq!(pace.take_at(100, start + ms(30)), None);
        assert_eq!(pace.take_at(100, start + ms(30)), Some(ms(10)));
        // Another limit counts from now on.
        assert_eq!(pace.take_at(1, start + ms(40)), Some(ms(10)));
        assert_eq!(pace.take_at(1, start + ms(40)), Some(ms(1_010)));
        // Time that passed unused is not saved up.
        let later = start + Duration::from_secs(1_000);
        for _ in 0..26 {
            assert_eq!(pace.take_at(100, later), None);
        }
        assert_eq!(pace.take_at(100, later), Some(ms(10)));
    }
}
