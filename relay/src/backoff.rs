//! How long a session waits before it tries the relay again. Pure: the caller measures the time and
//! draws the random number.

use std::time::Duration;

use crate::reason::DisconnectReason;

const FIRST_DELAY_MS: u64 = 100;
const DELAY_MS_MAX: u64 = 30_000;
/// From this count on the delay is at its cap, whatever the count.
const FAILURES_MAX: u32 = 9;
/// A connection that lasted this long was a good one: the next retry is quick again.
const GOOD_CONNECTION: Duration = Duration::from_secs(60);

/// How long a session leaves the relay to another process with its identity. Two of them must not
/// throw each other out again and again, and one must go on when the other stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TakeoverPauses {
    /// After the first time; it doubles each time.
    pub first: Duration,
    /// The longest pause.
    pub max: Duration,
    /// After a connection that lasted this long the pause is the first one again. Longer than the
    /// longest pause: otherwise the one that waits would always interrupt a calm one.
    pub calm: Duration,
}

impl Default for TakeoverPauses {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(5),
            max: Duration::from_secs(300),
            calm: Duration::from_secs(600),
        }
    }
}

/// The pauses of one session.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    pauses: TakeoverPauses,
    /// Connections in a row that were short, or did not come about.
    failures: u32,
    takeovers: u32,
}

impl Backoff {
    pub(crate) fn new(pauses: TakeoverPauses) -> Self {
        Self {
            pauses,
            ..Self::default()
        }
    }

    /// The pause after a connection that lasted so long, between half of the nominal one and all of
    /// it. Where a takeover is only likely, it never exceeds the pause after any other failure: a proxy
    /// that cuts connections looks the same.
    pub(crate) fn after(
        &mut self,
        reason: &DisconnectReason,
        lasted: Duration,
        random: u32,
    ) -> Duration {
        self.failures = match lasted >= GOOD_CONNECTION {
            true => 1,
            false => self.failures.saturating_add(1),
        };
        let (max, calm) = match reason {
            DisconnectReason::TakenOver => (self.pauses.max, self.pauses.calm),
            DisconnectReason::Displaced => {
                let max = Duration::from_millis(DELAY_MS_MAX);
                (self.pauses.max.min(max), GOOD_CONNECTION)
            }
            _ => return delay(self.failures, random),
        };
        if lasted >= calm {
            self.takeovers = 0;
        }
        let doublings = self.takeovers.min(16);
        self.takeovers = self.takeovers.saturating_add(1);
        let half = self.pauses.first.saturating_mul(1 << doublings).min(max) / 2;
        half + half.mul_f64(f64::from(random) / f64::from(u32::MAX))
    }
}

/// The delay after `failures` attempts in a row that failed, between half of the nominal delay and
/// all of it: nodes that lost the same relay don't come back at the same instant.
pub(crate) fn delay(failures: u32, random: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(FAILURES_MAX);
    let nominal_ms = (FIRST_DELAY_MS << doublings).min(DELAY_MS_MAX);
    let half_ms = nominal_ms / 2;
    Duration::from_millis(half_ms + u64::from(random) % (half_ms + 1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_delay_lies_between_half_the_first_and_the_cap(failures in any::<u32>(), random in any::<u32>()) {
            let delay = delay(failures, random);
            prop_assert!(delay >= Duration::from_millis(FIRST_DELAY_MS / 2));
            prop_assert!(delay <= Duration::from_millis(DELAY_MS_MAX));
        }

        #[test]
        fn a_later_delay_is_never_below_half_an_earlier_one(failures in 1u32..20, random in any::<u32>()) {
            prop_assert!(delay(failures + 1, random) * 2 >= delay(failures, random));
        }
    }

    #[test]
    fn the_first_retry_is_quick_and_the_last_ones_are_capped() {
        assert!(delay(1, u32::MAX) <= Duration::from_millis(100));
        assert!(delay(40, 0) >= Duration::from_millis(DELAY_MS_MAX / 2));
    }

    #[test]
    fn an_identity_in_use_is_left_alone_for_longer_and_longer_until_a_calm_connection() {
        let mut backoff = Backoff::default();
        let mut seconds = |lasted| {
            let lasted = Duration::from_secs(lasted);
            let pause = backoff.after(&DisconnectReason::TakenOver, lasted, u32::MAX);
            (pause + Duration::from_millis(1)).as_secs()
        };
        let pauses: Vec<u64> = (0..8).map(|_| seconds(100)).collect();
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(seconds(600), 5);
        let mut backoff = Backoff::default();
        let first = backoff.after(&DisconnectReason::TakenOver, Duration::ZERO, 0);
        assert!(first >= Duration::from_millis(2_500), "never at once");
        let cut = DisconnectReason::ClosedInOrder;
        assert!(backoff.after(&cut, Duration::ZERO, 0) < Duration::from_secs(1));
        let second = backoff.after(&DisconnectReason::TakenOver, Duration::ZERO, 0);
        assert!(second >= Duration::from_secs(5), "it still grows");
    }
}
