//! The pairs of a route, gathered one by one: of very many only the worst are kept.

use std::cmp::Reverse;

use haar_protocol::rest::{ROUTE_PAIRS_TOLD_MAX, RoutePair};

use crate::health::PairsHealth;

/// The pairs of a route that are told, and what is known of all of them.
#[derive(Debug, Default)]
pub(super) struct Pairs {
    /// How many there are.
    all: u64,
    /// Those that may be told, each with its number.
    kept: Vec<(u64, RoutePair)>,
    /// How all of them do.
    pub(super) health: PairsHealth,
}

impl Pairs {
    pub(super) fn add(&mut self, pair: RoutePair) {
        self.health.add(&pair.health);
        self.kept.push((self.all, pair));
        self.all += 1;
        if self.kept.len() >= 2 * ROUTE_PAIRS_TOLD_MAX {
            self.cut();
        }
    }

    /// Leaves the worst; of equal ones the first.
    fn cut(&mut self) {
        self.kept
            .sort_by_key(|(number, pair)| (Reverse(pair.health.state.severity()), *number));
        self.kept.truncate(ROUTE_PAIRS_TOLD_MAX);
    }

    /// Those that are told, as they came; and how many are not.
    pub(super) fn told(mut self) -> (Vec<RoutePair>, u64) {
        self.cut();
        self.kept.sort_by_key(|(number, _)| *number);
        let omitted = self.all - self.kept.len() as u64;
        let pairs = self.kept.into_iter().map(|(_, pair)| pair);
        (pairs.collect(), omitted)
    }
}

#[cfg(test)]
mod tests {
    use haar_protocol::ids::Name;
    use haar_protocol::rest::{Health, HealthState};

    use super::*;

    fn gathered(states: &[HealthState]) -> (Vec<RoutePair>, u64) {
        let mut pairs = Pairs::default();
        for (number, state) in states.iter().enumerate() {
            pairs.add(RoutePair {
                from: format!("gw-{number}").parse().unwrap(),
                to: "hub".parse().unwrap(),
                relays: Vec::new(),
                health: Health::new(*state),
                reports: Default::default(),
            });
        }
        pairs.told()
    }

    #[test]
    fn all_of_a_few_pairs_are_told_as_they_came() {
        let states = [HealthState::Healthy, HealthState::Failed];
        let (pairs, omitted) = gathered(&states);
        let told: Vec<HealthState> = pairs.iter().map(|pair| pair.health.state).collect();
        assert_eq!((told, omitted), (states.to_vec(), 0));
        assert_eq!(gathered(&[]), (Vec::new(), 0));
    }

    #[test]
    fn the_worst_of_many_pairs_are_told_and_how_many_are_not() {
        const LAST: usize = 5 * ROUTE_PAIRS_TOLD_MAX;
        let mut states = vec![HealthState::Healthy; LAST];
        states[LAST - 1] = HealthState::Failed;
        states[LAST - 2] = HealthState::Degraded;
        let (pairs, omitted) = gathered(&states);
        assert_eq!(pairs.len(), ROUTE_PAIRS_TOLD_MAX);
        assert_eq!(omitted, (LAST - ROUTE_PAIRS_TOLD_MAX) as u64);
        let names: Vec<&Name> = pairs.iter().map(|pair| &pair.from).collect();
        let expected = (0..ROUTE_PAIRS_TOLD_MAX - 2).chain(LAST - 2..LAST);
        let expected: Vec<Name> = expected
            .map(|number| format!("gw-{number}").parse().unwrap())
            .collect();
        assert_eq!(names, expected.iter().collect::<Vec<_>>());
    }
}
