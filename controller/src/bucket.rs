//! A token bucket: so much in a second on average, and so much at once. Time is an argument.

use tokio::time::Instant;

/// How much a bucket holds, and how fast it fills.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rate {
    /// Tokens that come back in a minute.
    pub(crate) per_minute: u64,
    /// Tokens of a full bucket.
    pub(crate) burst: u64,
}

/// See the module.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bucket {
    /// Thousandths of tokens; a token a minute is one in 60,000 ms.
    left_thousandths: u64,
    filled_at: Instant,
}

impl Bucket {
    /// A full one.
    pub(crate) fn full(rate: Rate, now: Instant) -> Self {
        Self {
            left_thousandths: rate.burst * 1_000,
            filled_at: now,
        }
    }

    /// Takes `tokens` if they are there.
    pub(crate) fn take(&mut self, rate: Rate, tokens: u64, now: Instant) -> bool {
        self.fill(rate, now);
        match self
            .left_thousandths
            .checked_sub(tokens.saturating_mul(1_000))
        {
            Some(left) => {
                self.left_thousandths = left;
                true
            }
            None => false,
        }
    }

    /// True when nothing is missing.
    pub(crate) fn is_full(&mut self, rate: Rate, now: Instant) -> bool {
        self.fill(rate, now);
        self.left_thousandths == rate.burst * 1_000
    }

    fn fill(&mut self, rate: Rate, now: Instant) {
        let passed_ms = now.saturating_duration_since(self.filled_at).as_millis();
        let passed_ms = u64::try_from(passed_ms).unwrap_or(u64::MAX);
        let filled = passed_ms.saturating_mul(rate.per_minute) / 60;
        if filled > 0 {
            self.left_thousandths = self.left_thousandths.saturating_add(filled);
            self.filled_at = now;
        }
        self.left_thousandths = self.left_thousandths.min(rate.burst * 1_000);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const RATE: Rate = Rate {
        per_minute: 6,
        burst: 3,
    };

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::full(RATE, start);
        let mut taken = |at_ms| bucket.take(RATE, 1, start + Duration::from_millis(at_ms));
        assert_eq!(
            [taken(0), taken(0), taken(0), taken(0)],
            [true, true, true, false]
        );
        assert!(!taken(9_990));
        assert!(taken(10_001), "one in ten seconds, asked for often or not");
        assert!(!taken(10_002));
        assert!(bucket.is_full(RATE, start + Duration::from_secs(100)));
        assert!(!bucket.take(RATE, 4, start + Duration::from_secs(100)));
    }

    #[test]
    fn a_smaller_bucket_holds_less_at_once() {
        let start = Instant::now();
        let mut bucket = Bucket::full(RATE, start);
        let smaller = Rate { burst: 1, ..RATE };
        assert!(bucket.take(smaller, 1, start));
        assert!(!bucket.take(smaller, 1, start));
    }
}
