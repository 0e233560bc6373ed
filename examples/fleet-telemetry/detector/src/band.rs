//! The band of one quantity of one node: what is expected of its values, learnt from them. Pure.
//!
//! ```text
//!             warm-up over              |value - mean| > band
//!   Learning ─────────────► Inside ──────────────────────────► Outside
//!   (Welford's mean           ▲   (mean and variance follow       │   (the mean follows,
//!    and variance)            │    in an exponential window)      │    the band is frozen)
//!                             └───────────────────────────────────┘
//!                               |value - mean| <= RETURN x band
//! ```
//!
//! While a value is outside, the mean still follows it, so a level that stays becomes the expected
//! one; the variance does not, because the step itself is no noise.

use fleet_types::Change;

/// Part of the band that a value must come back into before it counts as returned. Less than one,
/// so that a value on the edge does not go back and forth.
const RETURN: f64 = 0.7;

/// How bands are made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Rules {
    /// How many standard deviations the band is wide, on each side.
    pub(crate) sigmas: f64,
    /// How many values are learnt from before the first alert.
    pub(crate) warm_up: u32,
    /// How many values the expectation looks back on, about.
    pub(crate) window: u32,
}

/// What is expected of one quantity.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Band {
    minimum: f64,
    seen: u32,
    mean: f64,
    variance: f64,
    outside: bool,
}

impl Band {
    /// A band that knows nothing yet and never gets narrower than `minimum` on each side.
    pub(crate) fn new(minimum: f64) -> Self {
        Self {
            minimum,
            seen: 0,
            mean: 0.0,
            variance: 0.0,
            outside: false,
        }
    }

    /// Takes one value in. Says when it left the band or came back.
    pub(crate) fn observe(&mut self, value: f64, rules: &Rules) -> Option<Change> {
        if self.seen < rules.warm_up {
            self.learn(value);
            return None;
        }
        let distance = (value - self.mean).abs();
        let width = self.width(rules);
        let change = match self.outside {
            false if distance > width => Some(Change::Left),
            true if distance <= RETURN * width => Some(Change::Returned),
            _ => None,
        };
        if change.is_some() {
            self.outside = !self.outside;
        }
        // The return is judged by the old variance; the value itself is taken in from the next on.
        let variance_follows = !self.outside && change.is_none();
        self.follow(value, rules, variance_follows);
        change
    }

    /// How far a value may be from the mean.
    pub(crate) fn width(&self, rules: &Rules) -> f64 {
        (rules.sigmas * self.variance.sqrt()).max(self.minimum)
    }

    /// The middle of the band.
    pub(crate) fn mean(&self) -> f64 {
        self.mean
    }

    /// Whether the last value was outside.
    pub(crate) fn is_outside(&self) -> bool {
        self.outside
    }

    /// Welford's mean and variance (Knuth, The Art of Computer Programming, volume 2, 4.2.2).
    fn learn(&mut self, value: f64) {
        let before = f64::from(self.seen);
        self.seen += 1;
        let count = f64::from(self.seen);
        let delta = value - self.mean;
        self.mean += delta / count;
        self.variance = (self.variance * before + delta * (value - self.mean)) / count;
    }

    /// Exponentially weighted mean and variance (West, Updating mean and variance estimates, 1979).
    fn follow(&mut self, value: f64, rules: &Rules, variance_too: bool) {
        let weight = 2.0 / (f64::from(rules.window) + 1.0);
        let delta = value - self.mean;
        self.mean += weight * delta;
        if variance_too {
            self.variance = (1.0 - weight) * (self.variance + weight * delta * delta);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RULES: Rules = Rules {
        sigmas: 4.0,
        warm_up: 20,
        window: 60,
    };

    fn changes(
        band: &mut Band,
        rules: &Rules,
        values: impl IntoIterator<Item = f64>,
    ) -> Vec<Change> {
        values
            .into_iter()
            .filter_map(|value| band.observe(value, rules))
            .collect()
    }

    fn rules() -> impl Strategy<Value = Rules> {
        (1.0..6.0f64, 2..100u32, 2..200u32).prop_map(|(sigmas, warm_up, window)| Rules {
            sigmas,
            warm_up,
            window,
        })
    }

    #[test]
    fn the_warm_up_learns_mean_and_deviation_and_never_alerts() {
        let mut band = Band::new(0.1);
        let values = (0..RULES.warm_up).map(|index| if index % 2 == 0 { 8.0 } else { 12.0 });
        assert_eq!(changes(&mut band, &RULES, values), []);
        assert!((band.mean() - 10.0).abs() < 1e-9);
        assert!(
            (band.width(&RULES) - 8.0).abs() < 1e-9,
            "four times a deviation of 2"
        );
    }

    #[test]
    fn a_value_on_the_edge_does_not_go_back_and_forth() {
        let mut band = Band::new(1.0);
        changes(&mut band, &RULES, std::iter::repeat_n(10.0, 20));
        assert_eq!(band.observe(11.1, &RULES), Some(Change::Left));
        assert_eq!(
            band.observe(10.95, &RULES),
            None,
            "inside of the band, not yet well inside"
        );
        assert_eq!(band.observe(11.1, &RULES), None);
        assert_eq!(band.observe(10.3, &RULES), Some(Change::Returned));
    }

    #[test]
    fn a_short_peak_leaves_and_returns() {
        let mut band = Band::new(1.0);
        changes(&mut band, &RULES, std::iter::repeat_n(10.0, 40));
        let peak = [90.0, 95.0]
            .into_iter()
            .chain(std::iter::repeat_n(10.0, 200));
        assert_eq!(
            changes(&mut band, &RULES, peak),
            [Change::Left, Change::Returned]
        );
    }

    proptest! {
        #[test]
        fn a_constant_signal_never_alerts(value in -1e9..1e9f64, rules in rules()) {
            let mut band = Band::new(0.5);
            prop_assert_eq!(changes(&mut band, &rules, std::iter::repeat_n(value, 1_000)), []);
        }

        #[test]
        fn a_step_alerts_once_and_returns_once(
            level in -1_000.0..1_000.0f64,
            step in prop_oneof![-1_000.0..-1.0f64, 1.0..1_000.0f64],
            before in 0..500usize,
            rules in rules(),
        ) {
            let mut band = Band::new(0.5);
            let calm = usize::try_from(rules.warm_up).unwrap() + before;
            prop_assert_eq!(changes(&mut band, &rules, std::iter::repeat_n(level, calm)), []);
            let stepped = changes(&mut band, &rules, std::iter::repeat_n(level + step, 5_000));
            prop_assert_eq!(stepped, [Change::Left, Change::Returned]);
        }

        #[test]
        fn noise_within_the_minimum_never_alerts(noise in prop::collection::vec(-0.24..0.24f64, 500), rules in rules()) {
            let mut band = Band::new(0.5);
            prop_assert_eq!(changes(&mut band, &rules, noise), []);
        }

        #[test]
        fn leaving_and_returning_always_take_turns(values in prop::collection::vec(-1e6..1e6f64, 0..500), rules in rules()) {
            let mut band = Band::new(0.5);
            let changes = changes(&mut band, &rules, values);
            for (index, change) in changes.iter().enumerate() {
                let expected = if index % 2 == 0 { Change::Left } else { Change::Returned };
                prop_assert_eq!(*change, expected);
            }
        }
    }
}
