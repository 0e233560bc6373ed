//! Which relay frames to the other node go over, when the two share several. Both know the same
//! relays in the same order, and neither knows at which of them the other one is.
//!
//! A frame goes over the most preferred relay that works: one to which this node is connected, and
//! over which nothing was left without an answer for long. Who only answers follows the other one:
//! what is heard over a relay is answered there. A relay that was given up is tried again after a
//! pause, which grows while it stays silent.

/// How long a relay may leave something without an answer.
const PATIENCE_MS: u64 = 3_000;
/// The first pause before a silent relay is tried again.
const PAUSE_MS_MIN: u64 = 10_000;
/// The longest such pause.
const PAUSE_MS_MAX: u64 = 300_000;

/// Names a relay: its place in a table of the caller's.
pub type RelayNumber = u32;

#[derive(Debug, Clone)]
struct Path {
    relay: RelayNumber,
    connected: bool,
    heard_ms: Option<u64>,
    /// Given up; to be asked again then.
    silent_until_ms: Option<u64>,
    pause_ms: u64,
}

impl Path {
    fn new(relay: RelayNumber) -> Self {
        Self {
            relay,
            connected: false,
            heard_ms: None,
            silent_until_ms: None,
            pause_ms: PAUSE_MS_MIN,
        }
    }

    fn give_up(&mut self, now_ms: u64) {
        self.silent_until_ms = Some(now_ms.saturating_add(self.pause_ms));
    }

    fn works(&mut self) {
        self.silent_until_ms = None;
    }
}

/// The relays that two nodes share, and the one that is used now.
#[derive(Debug, Clone, Default)]
pub struct Paths {
    /// The most preferred first.
    paths: Vec<Path>,
    current: Option<RelayNumber>,
    chosen_ms: u64,
}

impl Paths {
    /// The relays are these now, the most preferred first, each with whether this node is connected
    /// to it.
    pub fn set(&mut self, relays: &[(RelayNumber, bool)]) {
        let before = std::mem::take(&mut self.paths);
        let known = |relay| before.iter().find(|path| path.relay == relay).cloned();
        self.paths = relays
            .iter()
            .map(|(relay, connected)| {
                let mut path = known(*relay).unwrap_or_else(|| Path::new(*relay));
                if *connected && !path.connected {
                    path.works(); // a new connection is a new chance
                    path.pause_ms = PAUSE_MS_MIN;
                }
                path.connected = *connected;
                path
            })
            .collect();
    }

    /// An authentic frame of the other node came over `relay`.
    pub fn heard(&mut self, relay: RelayNumber, now_ms: u64) {
        let Some(place) = self.paths.iter().position(|path| path.relay == relay) else {
            return;
        };
        let path = &mut self.paths[place];
        path.heard_ms = Some(now_ms);
        path.works();
        path.pause_ms = PAUSE_MS_MIN;
        // The other one prefers the others too: it is not there, or can't be heard.
        for path in &mut self.paths[..place] {
            let lately = path
                .heard_ms
                .is_some_and(|heard| heard.saturating_add(PATIENCE_MS) > now_ms);
            if !lately && path.silent_until_ms.is_none() {
                path.give_up(now_ms);
            }
        }
    }

    /// The relay to use. `unanswered_since_ms` is since when the other node owes an answer. None when
    /// this node is connected to none of them.
    pub fn choose(&mut self, unanswered_since_ms: Option<u64>, now_ms: u64) -> Option<RelayNumber> {
        let waits = unanswered_since_ms.map(|since| since.max(self.chosen_ms));
        let is_silent = waits.is_some_and(|since| since.saturating_add(PATIENCE_MS) <= now_ms);
        if is_silent
            && self.paths.len() > 1
            && let Some(path) = self
                .paths
                .iter_mut()
                .find(|path| Some(path.relay) == self.current)
        {
            path.give_up(now_ms);
        }
        let connected = self.paths.iter().filter(|path| path.connected);
        // Where all are silent, the one that was given up first.
        let best = connected
            .enumerate()
            .min_by_key(|(place, path)| (path.silent_until_ms.unwrap_or(0), *place))
            .map(|(_, path)| path.relay);
        if best != self.current || is_silent {
            self.chosen_ms = now_ms;
        }
        self.current = best;
        best
    }

    /// A relay that was given up, is preferred to the one in use, and is to be asked now: by one frame
    /// that wants an answer. Call it until there is none.
    pub fn ask(&mut self, now_ms: u64) -> Option<RelayNumber> {
        let current = self.current?;
        let mut preferred = self
            .paths
            .iter_mut()
            .take_while(|path| path.relay != current);
        let path = preferred.find(|path| {
            let is_due = path.silent_until_ms.is_some_and(|until| until <= now_ms);
            is_due && path.connected
        })?;
        path.pause_ms = (2 * path.pause_ms).min(PAUSE_MS_MAX);
        path.give_up(now_ms);
        Some(path.relay)
    }

    /// When to choose or ask again although nothing has happened.
    pub fn wake_ms(&self, unanswered_since_ms: Option<u64>) -> Option<u64> {
        if self.paths.len() < 2 {
            return None;
        }
        let waits = unanswered_since_ms.map(|since| since.max(self.chosen_ms) + PATIENCE_MS);
        let preferred = self
            .paths
            .iter()
            .take_while(|path| Some(path.relay) != self.current)
            .filter(|path| path.connected)
            .filter_map(|path| path.silent_until_ms);
        preferred.chain(waits).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_preferred_relay_is_used_while_it_answers_and_again_when_it_comes_back() {
        let mut paths = Paths::default();
        assert_eq!(paths.choose(None, 0), None);
        paths.set(&[(1, true), (2, true)]);
        assert_eq!(paths.choose(None, 0), Some(1));
        assert_eq!(paths.choose(Some(0), PATIENCE_MS - 1), Some(1));
        assert_eq!(paths.choose(Some(0), PATIENCE_MS), Some(2));
        // The new one gets its time, too; then the first again, given up the longest ago.
        assert_eq!(paths.choose(Some(0), 2 * PATIENCE_MS - 1), Some(2));
        assert_eq!(paths.choose(Some(0), 2 * PATIENCE_MS), Some(1));
        paths.heard(2, 2 * PATIENCE_MS);
        assert_eq!(paths.choose(None, 2 * PATIENCE_MS), Some(2));
        let again = paths.wake_ms(None).unwrap();
        assert!(again > 2 * PATIENCE_MS);
        assert_eq!(paths.ask(again - 1), None);
        assert_eq!((paths.ask(again), paths.ask(again)), (Some(1), None));
        assert_eq!(paths.choose(None, again), Some(2));
        assert!(paths.wake_ms(None).unwrap() >= again + 2 * PAUSE_MS_MIN);
        paths.heard(1, again);
        assert_eq!(paths.choose(None, again + 1), Some(1));
        assert_eq!(paths.wake_ms(None), None);
    }

    #[test]
    fn a_relay_that_is_left_is_not_used_and_one_that_is_connected_anew_is_tried_at_once() {
        let mut paths = Paths::default();
        paths.set(&[(1, true), (2, true)]);
        assert_eq!(paths.choose(None, 0), Some(1));
        paths.set(&[(1, false), (2, true)]);
        assert_eq!(paths.choose(None, 1), Some(2));
        paths.heard(2, PATIENCE_MS);
        paths.set(&[(1, true), (2, true)]);
        assert_eq!(paths.choose(None, PATIENCE_MS + 1), Some(1));
        paths.set(&[(1, false), (2, false)]);
        assert_eq!(paths.choose(None, PATIENCE_MS + 2), None);
    }

    #[test]
    fn the_only_relay_is_used_whether_it_answers_or_not() {
        let mut paths = Paths::default();
        paths.set(&[(7, true)]);
        for now_ms in [0, PATIENCE_MS, 100 * PATIENCE_MS] {
            assert_eq!(paths.choose(Some(0), now_ms), Some(7));
        }
        assert_eq!(paths.wake_ms(Some(0)), None);
    }

    /// Two nodes over relays of which some work for one, some for the other, and at last one for
    /// both: they find it, whoever of them sends.
    #[test]
    fn two_nodes_find_a_relay_at_which_both_are() {
        const RELAYS: u32 = 3;
        for seed in 0..2_000_u64 {
            let mut random = seed;
            let mut next = |below: u64| {
                random = random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                (random >> 33) % below
            };
            let (mut one, mut two) = (Paths::default(), Paths::default());
            let (mut at_one, mut at_two) = ([false; 3], [false; 3]);
            let mut unanswered = None;
            let mut answered_ms = 0;
            let changes_until = 60_000;
            let until = changes_until + 8 * PATIENCE_MS;
            for now in (0..until).step_by(100) {
                if now < changes_until && next(20) == 0 {
                    let relay = usize::try_from(next(u64::from(RELAYS))).unwrap();
                    match next(2) {
                        0 => at_one[relay] = next(2) == 0,
                        _ => at_two[relay] = next(2) == 0,
                    }
                }
                if now == changes_until {
                    let relay = usize::try_from(next(u64::from(RELAYS))).unwrap();
                    (at_one[relay], at_two[relay]) = (true, true);
                }
                let table = |at: &[bool; 3]| {
                    (0..RELAYS)
                        .map(|relay| (relay, at[relay as usize]))
                        .collect::<Vec<_>>()
                };
                one.set(&table(&at_one));
                two.set(&table(&at_two));
                // One sends; two answers what it hears.
                let Some(over) = one.choose(unanswered, now) else {
                    continue;
                };
                unanswered.get_or_insert(now);
                let asked = one.ask(now);
                for over in asked.into_iter().chain([over]) {
                    if !at_two[over as usize] {
                        continue;
                    }
                    two.heard(over, now);
                    let Some(back) = two.choose(None, now) else {
                        continue;
                    };
                    if at_one[back as usize] {
                        one.heard(back, now);
                        unanswered = None;
                        answered_ms = now;
                    }
                }
            }
            assert!(answered_ms >= until - 1_000, "seed {seed}: {answered_ms}");
        }
    }
}
