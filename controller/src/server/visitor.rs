//! Whose connection a request came on: its place at the door, and the address that its attempts
//! count for. Stands in the extensions of every request.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use haar_relay::{Pace, Place, Rate, Source};
use tokio::time::Instant;

/// Wrong tokens, and enrolments that were refused, of one address.
const RATE: Rate = Rate {
    bytes_per_second: u32::MAX,
    messages_per_second: 10,
    burst: Duration::from_secs(5),
};
/// How long a request waits for its turn.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// Addresses that are remembered; all others share one.
const ADDRESSES_MAX: usize = 4_096;

/// The connection of a request.
#[derive(Clone)]
pub(crate) struct Visitor {
    place: Arc<Place>,
    source: Source,
    attempts: Arc<Attempts>,
}

/// The address has made too many attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooManyAttempts;

impl Visitor {
    pub(super) fn new(place: &Arc<Place>, source: Source, attempts: &Arc<Attempts>) -> Self {
        Self {
            place: Arc::clone(place),
            source,
            attempts: Arc::clone(attempts),
        }
    }

    /// Notes that the request proved who sent it: the connection keeps its place from now on. False
    /// when there are too many of its kind.
    pub(crate) fn admit(&self) -> bool {
        self.place.admit()
    }

    /// Waits until the address of the connection may try to guess something again.
    pub(crate) async fn turn(&self) -> Result<(), TooManyAttempts> {
        let wait = self.attempts.wait(self.source, Instant::now());
        if wait > WAIT_MAX {
            return Err(TooManyAttempts);
        }
        tokio::time::sleep(wait).await;
        Ok(())
    }

    /// Counts a wrong guess.
    pub(crate) fn failed(&self) {
        self.attempts.count(self.source, Instant::now());
    }
}

/// What addresses have guessed wrong lately. Bounded.
#[derive(Default)]
pub(super) struct Attempts(Mutex<Paces>);

#[derive(Default)]
struct Paces {
    of: HashMap<Source, Pace>,
    of_others: Pace,
}

impl Attempts {
    fn wait(&self, source: Source, now: Instant) -> Duration {
        let paces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let pace = match paces.of.get(&source) {
            None if paces.of.len() >= ADDRESSES_MAX => paces.of_others,
            pace => pace.copied().unwrap_or_default(),
        };
        pace.wait(&RATE, now)
    }

    fn count(&self, source: Source, now: Instant) {
        let mut paces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_unknown = !paces.of.contains_key(&source);
        if is_unknown && paces.of.len() >= ADDRESSES_MAX {
            paces.of.retain(|_, pace| !pace.is_even(now));
        }
        let is_full = is_unknown && paces.of.len() >= ADDRESSES_MAX;
        let pace = match is_full {
            true => &mut paces.of_others,
            false => paces.of.entry(source).or_default(),
        };
        // Those that wait already do not put off the next beyond what anybody waits.
        if pace.wait(&RATE, now) <= WAIT_MAX {
            pace.count(&RATE, 0, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    fn source(number: u32) -> Source {
        Source::from(IpAddr::from(Ipv4Addr::from(number)))
    }

    #[test]
    fn an_address_that_guesses_waits_and_is_refused_and_others_are_not() {
        let attempts = Attempts::default();
        let now = Instant::now();
        let guess = |source| {
            let wait = attempts.wait(source, now);
            attempts.count(source, now);
            wait
        };
        let waits: Vec<_> = (0..1_000).map(|_| guess(source(1))).collect();
        assert!(waits[..50].iter().all(Duration::is_zero), "a burst is free");
        assert!(waits[51..150].iter().all(|wait| !wait.is_zero()));
        assert!(waits[200..].iter().all(|wait| *wait > WAIT_MAX));
        assert_eq!(attempts.wait(source(2), now), Duration::ZERO);
        let later = now + Duration::from_secs(60);
        assert_eq!(attempts.wait(source(1), later), Duration::ZERO);
    }

    #[test]
    fn addresses_beyond_those_remembered_share_one_rate() {
        let attempts = Attempts::default();
        let now = Instant::now();
        let address = |number: usize| source(u32::try_from(number).unwrap());
        for number in 0..ADDRESSES_MAX + 1_000 {
            attempts.count(address(number), now);
        }
        assert!(attempts.wait(address(0), now).is_zero());
        assert!(attempts.wait(address(ADDRESSES_MAX + 2_000), now) > WAIT_MAX);
        assert_eq!(attempts.0.lock().unwrap().of.len(), ADDRESSES_MAX);
        let later = now + Duration::from_secs(60);
        assert_eq!(attempts.wait(source(u32::MAX), later), Duration::ZERO);
    }
}
