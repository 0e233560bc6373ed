//! How long to wait before something that failed is tried again.

use std::time::Duration;

use haar_protocol::limits::RestartPolicy;

/// The pauses before a module is tried again that could not be had, in seconds.
const FETCH_PAUSES_S: [u64; 5] = [1, 2, 5, 10, 30];
/// Up to a fifth is added to them by chance, so that a fleet does not ask as one.
const FETCH_JITTER_PERCENT: u32 = 20;

/// The pause before the start after so many `failures` in a row (0: the first one has just
/// happened). `chance` is a random number.
pub(super) fn before_start(policy: &RestartPolicy, failures: u32, chance: u8) -> Duration {
    let pauses = policy.pauses.iter().map(|pause| pause.0);
    let pause = nth_or_last(pauses, failures).unwrap_or(0);
    with_jitter(Duration::from_millis(pause), policy.jitter.0, chance)
}

/// The pause before the next attempt to get a module.
pub(super) fn before_fetch(failures: u32, chance: u8) -> Duration {
    let pause = nth_or_last(FETCH_PAUSES_S.into_iter(), failures).unwrap_or(0);
    with_jitter(Duration::from_secs(pause), FETCH_JITTER_PERCENT, chance)
}

fn nth_or_last(values: impl ExactSizeIterator<Item = u64>, index: u32) -> Option<u64> {
    let last = values.len().checked_sub(1)?;
    let index = usize::try_from(index).unwrap_or(usize::MAX).min(last);
    values.into_iter().nth(index)
}

fn with_jitter(pause: Duration, percent: u32, chance: u8) -> Duration {
    pause + pause * percent / 100 * u32::from(chance) / 255
}

#[cfg(test)]
mod tests {
    use haar_protocol::quantity::{Millis, Percent};

    use super::*;

    #[test]
    fn the_usual_pauses_are_at_once_then_10_30_and_60_seconds() {
        let policy = RestartPolicy::default();
        let pauses: Vec<u64> = (0..6)
            .map(|failures| before_start(&policy, failures, 0).as_secs())
            .collect();
        assert_eq!(pauses, [0, 10, 30, 60, 60, 60]);
    }

    #[test]
    fn chance_adds_no_more_than_the_jitter() {
        let policy = RestartPolicy {
            pauses: vec![Millis(1_000)],
            jitter: Percent(50),
            ..RestartPolicy::default()
        };
        assert_eq!(before_start(&policy, 0, 0), Duration::from_millis(1_000));
        assert_eq!(before_start(&policy, 7, 255), Duration::from_millis(1_500));
    }

    #[test]
    fn a_policy_without_pauses_starts_at_once() {
        let policy = RestartPolicy {
            pauses: Vec::new(),
            ..RestartPolicy::default()
        };
        assert_eq!(before_start(&policy, 3, 255), Duration::ZERO);
    }
}
