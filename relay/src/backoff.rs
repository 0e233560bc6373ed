//! How long a session waits before it tries the relay again. Pure: the caller counts the failures
//! and draws the random number.

use std::time::Duration;

const FIRST_DELAY_MS: u64 = 100;
const DELAY_MS_MAX: u64 = 30_000;
/// From this count on the delay is at its cap, whatever the count.
const FAILURES_MAX: u32 = 9;
/// The count to start from after another process took the identity over: two processes that share
/// an identity must not throw each other out ten times a second.
pub(crate) const FAILURES_AFTER_TAKEOVER: u32 = 7;

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
        assert!(delay(FAILURES_AFTER_TAKEOVER, 0) >= Duration::from_secs(3));
    }
}
