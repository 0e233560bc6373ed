//! How fast one client may go: so many bytes and so many messages a second, and a burst of a few
//! seconds' worth. A client that goes faster is made to wait, so that its own TCP connection slows
//! it down; nothing of it is lost. Pure: the time is an argument.

use std::time::Duration;

use tokio::time::Instant;

/// What a client may send.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    /// Bytes a second.
    pub bytes_per_second: u32,
    /// Messages a second.
    pub messages_per_second: u32,
    /// How far it may run ahead of that.
    pub burst: Duration,
}

/// What one client has sent. Each message takes the time that its rate gives it; the client is
/// ahead by what that adds up to beyond now.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pace {
    paid_until: Option<Instant>,
}

impl Pace {
    /// Counts a message and returns how long its sender has to wait after it.
    pub fn count(&mut self, rate: &Rate, bytes: usize, now: Instant) -> Duration {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let cost = Duration::from_secs(u64::from(bytes)) / rate.bytes_per_second.max(1)
            + Duration::from_secs(1) / rate.messages_per_second.max(1);
        let paid_until = self.paid_until.map_or(now, |paid| paid.max(now)) + cost;
        self.paid_until = Some(paid_until);
        self.wait(rate, now)
    }

    /// How long the client has to wait before its next message.
    pub fn wait(&self, rate: &Rate, now: Instant) -> Duration {
        self.paid_until.map_or(Duration::ZERO, |paid| {
            paid.saturating_duration_since(now + rate.burst)
        })
    }

    /// True when the client is not ahead: then it need not be remembered.
    pub fn is_even(&self, now: Instant) -> bool {
        self.paid_until.is_none_or(|paid| paid <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate {
        bytes_per_second: 1_000,
        messages_per_second: 10,
        burst: Duration::from_secs(2),
    };

    #[test]
    fn a_burst_is_free_and_what_follows_goes_at_the_rate() {
        let now = Instant::now();
        let mut pace = Pace::default();
        // 100 bytes take 0.1 s, and a message 0.1 s: ten of them are the burst.
        for _ in 0..10 {
            assert_eq!(pace.count(&RATE, 100, now), Duration::ZERO);
        }
        assert_eq!(pace.count(&RATE, 100, now), Duration::from_millis(200));
        assert_eq!(pace.count(&RATE, 900, now), Duration::from_millis(1_200));
        let later = now + Duration::from_millis(1_200);
        assert_eq!(pace.count(&RATE, 100, later), Duration::from_millis(200));
    }

    #[test]
    fn time_that_passes_is_not_saved_beyond_the_burst() {
        let now = Instant::now();
        let mut pace = Pace::default();
        pace.count(&RATE, 100, now);
        let later = now + Duration::from_secs(3_600);
        assert!(pace.is_even(later));
        for _ in 0..10 {
            assert_eq!(pace.count(&RATE, 100, later), Duration::ZERO);
        }
        assert!(!pace.count(&RATE, 100, later).is_zero());
        assert!(!pace.is_even(later));
    }
}
