//! The health of a route: that of its pairs of ends, each that of its two instances, of what joins
//! them, and of what their nodes say of it.

use std::cmp::Reverse;

use haar_protocol::rest::{Cause, Health, HealthCount, HealthState, RouteRelay, Unplaced};

use super::application::state;

/// What is known of a pair of a route's ends.
#[derive(Debug, Clone, Default)]
pub(crate) struct PairFacts<'a> {
    /// The instances at its ends: how people call them, and their health.
    pub(crate) ends: Vec<(String, &'a Health)>,
    /// What joins the ends, and what the nodes are to it, when it is not one node: the relays, and the
    /// words for the nodes.
    pub(crate) between: Option<(&'a [RouteRelay], String)>,
    /// Why a node is not connected to one of the relays, and since when.
    pub(crate) away: Option<(String, Option<u64>)>,
    /// What a node says that the route does not do, and since when.
    pub(crate) problem: Option<(String, Option<u64>)>,
}

/// The health of a pair of a route's ends.
pub(crate) fn pair(facts: &PairFacts<'_>) -> Health {
    let age_ms = facts.ends.iter().filter_map(|(_, end)| end.age_ms).max();
    let healths = facts.ends.iter();
    let worst = healths
        .filter(|(_, health)| !health.is_healthy())
        .max_by_key(|(_, health)| health.state.severity());
    if let Some((what, health)) = worst {
        let reason = health.reason.as_deref().unwrap_or("no reason is known");
        return Health {
            reason: Some(format!("{what}: {reason}")),
            age_ms,
            ..(*health).clone()
        };
    }
    let of = |state, cause, (reason, since_ms): &(String, Option<u64>)| Health {
        since_ms: *since_ms,
        age_ms,
        ..Health::because(state, cause, reason.clone())
    };
    if let Some((relays, nodes)) = &facts.between
        && relays.iter().all(|relay| relay.connected == Some(false))
    {
        let nothing = (format!("no relay joins {nodes}"), None);
        let why = facts.away.as_ref().unwrap_or(&nothing);
        return of(HealthState::Failed, Cause::Relay, why);
    }
    match &facts.problem {
        Some(problem) => of(HealthState::Degraded, Cause::Parts, problem),
        None => Health {
            since_ms: facts.ends.iter().filter_map(|(_, end)| end.since_ms).max(),
            age_ms,
            ..Health::new(HealthState::Healthy)
        },
    }
}

/// The health of a route's pairs, added up one by one.
#[derive(Debug, Clone, Default)]
pub(crate) struct PairsHealth {
    count: HealthCount,
    age_ms: Option<u64>,
    since_ms: Option<u64>,
    /// How many parts are not healthy.
    ill: usize,
    /// Of these the worst, and the one for which it is so the longest.
    worst: Option<Health>,
}

impl PairsHealth {
    pub(crate) fn add(&mut self, pair: &Health) {
        self.count.add(pair.state, 1);
        self.age_ms = self.age_ms.max(pair.age_ms);
        self.since_ms = self.since_ms.max(pair.since_ms);
        if !pair.is_healthy() {
            self.add_ill(pair);
        }
    }

    fn add_ill(&mut self, part: &Health) {
        let rank = |part: &Health| (Reverse(part.state.severity()), part.since_ms);
        self.ill += 1;
        let worst = self.worst.as_ref();
        if worst.is_none_or(|worst| rank(part) < rank(worst)) {
            self.worst = Some(part.clone());
        }
    }

    /// The health of the route with these pairs, of whose microservices something may have no place.
    pub(crate) fn of_route(mut self, unplaced: &[&Unplaced]) -> Health {
        let has_pairs = self.count.all() > 0;
        for one in unplaced {
            let (name, reason) = (&one.microservice, &one.reason);
            let reason = format!("`{name}` without a place: {reason}");
            self.count.add(HealthState::Failed, one.instances.max(1));
            self.add_ill(&Health {
                since_ms: Some(one.since_ms),
                hint: one.hint.clone(),
                ..Health::because(HealthState::Failed, Cause::Unplaced, reason)
            });
        }
        let Some(first) = self.worst else {
            return match has_pairs {
                false => {
                    let reason = "one of its ends has no instance";
                    Health::because(HealthState::Failed, Cause::Unplaced, reason)
                }
                true => Health {
                    since_ms: self.since_ms,
                    age_ms: self.age_ms,
                    ..Health::new(HealthState::Healthy)
                },
            };
        };
        let reason = first.reason.as_deref().unwrap_or("no reason is known");
        let more = match self.ill - 1 {
            0 => String::new(),
            more => format!("; and {more} more"),
        };
        Health {
            state: state(&self.count),
            reason: Some(format!("{reason}{more}")),
            age_ms: self.age_ms,
            ..first
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health(state: HealthState, since_ms: u64) -> Health {
        Health {
            since_ms: Some(since_ms),
            age_ms: Some(5),
            reason: (state != HealthState::Healthy).then(|| format!("{state} since {since_ms}")),
            ..Health::new(state)
        }
    }

    fn relay(connected: Option<bool>) -> RouteRelay {
        RouteRelay {
            name: "plant".parse().unwrap(),
            connected,
        }
    }

    fn facts<'a>(ends: [&'a Health; 2], relays: &'a [RouteRelay]) -> PairFacts<'a> {
        let names = ["`a` on `x`", "`b` on `y`"].map(str::to_owned);
        PairFacts {
            ends: std::iter::zip(names, ends).collect(),
            between: Some((relays, "`x` and `y`".into())),
            away: Some(("`y` is not connected".into(), Some(7))),
            problem: Some(("`x`: not retained".into(), Some(8))),
        }
    }

    #[test]
    fn a_pair_is_as_its_worse_end_then_as_what_joins_it_then_as_its_nodes_say() {
        let well = &health(HealthState::Healthy, 3);
        let failed = &health(HealthState::Failed, 4);
        let unknown = &health(HealthState::Unknown, 9);
        let all = &[Some(false), Some(true), None].map(relay);
        for (facts, state, reason, since_ms) in [
            (
                facts([failed, unknown], &all[..]),
                HealthState::Failed,
                "`a` on `x`: failed since 4",
                4,
            ),
            (
                facts([well, unknown], &all[..]),
                HealthState::Unknown,
                "`b` on `y`: unknown since 9",
                9,
            ),
            (
                facts([well, well], &all[..1]),
                HealthState::Failed,
                "`y` is not connected",
                7,
            ),
            (
                facts([well, well], &all[..]),
                HealthState::Degraded,
                "`x`: not retained",
                8,
            ),
        ] {
            let found = pair(&facts);
            assert_eq!((found.state, found.since_ms), (state, Some(since_ms)));
            assert_eq!(found.reason.as_deref(), Some(reason));
            assert_eq!(found.age_ms, Some(5));
        }
        let apart = pair(&PairFacts {
            away: None,
            ..facts([well, well], &[])
        });
        assert_eq!(apart.reason.as_deref(), Some("no relay joins `x` and `y`"));
        let good = pair(&PairFacts {
            problem: None,
            ..facts([well, well], &all[1..])
        });
        assert!(good.is_healthy());
    }

    fn route(pairs: &[&Health], unplaced: &[&Unplaced]) -> Health {
        let mut sum = PairsHealth::default();
        for pair in pairs {
            sum.add(pair);
        }
        sum.of_route(unplaced)
    }

    #[test]
    fn a_route_is_healthy_when_all_pairs_are_and_says_what_is_worst_otherwise() {
        let (well, failed) = (
            health(HealthState::Healthy, 3),
            health(HealthState::Failed, 4),
        );
        let unknown = health(HealthState::Unknown, 1);
        assert!(route(&[&well, &well], &[]).is_healthy());
        let some = route(&[&well, &unknown, &failed], &[]);
        assert_eq!(some.state, HealthState::Degraded);
        assert_eq!(some.reason.as_deref(), Some("failed since 4; and 1 more"));
        assert_eq!(some.since_ms, Some(4));
        assert_eq!(route(&[&unknown], &[]).state, HealthState::Unknown);
        assert_eq!(route(&[], &[]).cause, Some(Cause::Unplaced));
        let unplaced = Unplaced {
            microservice: "b".parse().unwrap(),
            node: None,
            instances: 1,
            code: "no_node".into(),
            reason: "no node matches".into(),
            hint: None,
            since_ms: 2,
        };
        let lacking = route(&[&well], &[&unplaced]);
        assert_eq!(lacking.state, HealthState::Degraded);
        assert_eq!(
            lacking.reason.as_deref(),
            Some("`b` without a place: no node matches")
        );
    }
}
