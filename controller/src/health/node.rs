//! The health of a node, and whether what it last said can still be taken for true.

use haar_protocol::ids::Name;
use haar_protocol::proof::CLOCK_SKEW_MS;
use haar_protocol::quantity::ByteSize;
use haar_protocol::rest::{Cause, Health, HealthState, Observation};

use super::age;
use crate::db::nodes::NodeRow;
use crate::db::observations::{CLOCK, IDENTITY_IN_USE, RELAY_REFUSED, STATUS_REFUSED, UNASSIGNED};
use crate::db::statuses::StatusRow;

/// A node that missed so many statuses in a row is silent.
const INTERVALS_MISSED: u64 = 3;
/// And this time has passed beyond that, for what the relay and the network need.
const SLACK_MS: u64 = 10_000;
/// How long an agent that does not say how often it reports may be silent.
const SILENCE_MS: u64 = 600_000;
/// How long it is said that two agents use an identity, after that was last seen.
const IDENTITY_MS: u64 = 600_000;

/// What is known of a node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NodeFacts<'a> {
    /// As it enrolled, and whether a relay has a connection to it.
    pub(crate) row: &'a NodeRow,
    /// Its last status.
    pub(crate) status: Option<&'a StatusRow>,
    /// The number of its newest assignment.
    pub(crate) assignment: u64,
    /// What the site has noticed of it.
    pub(crate) observations: &'a [Observation],
    /// The time.
    pub(crate) now_ms: u64,
}

impl<'a> NodeFacts<'a> {
    pub(super) fn name(&self) -> &'a Name {
        &self.row.name
    }

    /// How old its last status is.
    pub(super) fn age_ms(&self) -> Option<u64> {
        let status = self.status?;
        Some(self.now_ms.saturating_sub(status.received_ms))
    }

    /// A time by the node's clock, by ours: no later than when we heard of it.
    pub(crate) fn by_our_clock(&self, node_ms: u64) -> Option<u64> {
        let status = self.status?;
        let skew_ms = i128::from(status.clock_skew_ms.unwrap_or(0));
        let ours = u64::try_from(i128::from(node_ms) - skew_ms).unwrap_or(0);
        Some(ours.min(status.received_ms))
    }

    fn noticed(&self, kind: &str) -> Option<&'a Observation> {
        self.observations.iter().find(|one| one.kind == kind)
    }

    /// When it was last known how it does.
    fn last_known_ms(&self) -> u64 {
        let row = self.row;
        let heard = row.last_seen_ms;
        heard
            .max(self.status.map(|status| status.received_ms))
            .filter(|heard_ms| *heard_ms > 0)
            .unwrap_or(row.enrolled_ms)
    }
}

/// Why nothing can be said of the node, and of what runs on it; none when its last status is true as
/// far as anybody can tell.
pub(super) fn unheard(facts: &NodeFacts<'_>) -> Option<Health> {
    let NodeFacts { row, now_ms, .. } = *facts;
    let name = &row.name;
    let since_ms = facts.last_known_ms();
    let silence = age(now_ms, since_ms);
    let unknown = |cause, reason: String| Health {
        since_ms: Some(since_ms),
        age_ms: facts.age_ms(),
        ..Health::because(HealthState::Unknown, cause, reason)
    };
    let refusal = facts.noticed(RELAY_REFUSED);
    if !row.online {
        if let Some(refusal) = refusal.filter(|refusal| refusal.last_ms >= since_ms) {
            let cause = match refusal.code.as_str() {
                CLOCK => Cause::Clock,
                _ => Cause::RelayRefuses,
            };
            let message = &refusal.message;
            let tried = age(now_ms, refusal.last_ms);
            return Some(unknown(
                cause,
                format!(
                    "the site's relay refuses `{name}`, {tried} ago for the last time: {message}"
                ),
            ));
        }
        let never = row.last_seen_ms.is_none() && facts.status.is_none();
        return Some(match never {
            true => Health {
                hint: Some("start its agent, and see what it logs".into()),
                ..unknown(
                    Cause::NotReached,
                    format!("`{name}` joined {silence} ago and has not connected to a relay since"),
                )
            },
            false => unknown(
                Cause::NotReached,
                format!(
                    "no relay has a connection to `{name}`, which last said something {silence} ago"
                ),
            ),
        });
    }
    let quiet_ms = now_ms.saturating_sub(match facts.status {
        Some(status) => status.received_ms,
        None => since_ms,
    });
    if quiet_ms <= silence_ms(facts.status) {
        return None;
    }
    if let Some(refused) = facts.noticed(STATUS_REFUSED) {
        let message = &refused.message;
        return Some(unknown(
            Cause::StatusRefused,
            format!("what `{name}` reports is not believed: {message}"),
        ));
    }
    let quiet_since_ms = now_ms.saturating_sub(quiet_ms);
    let silent = unknown(
        Cause::Silent,
        format!(
            "`{name}` is connected and has not reported for {}",
            age(now_ms, quiet_since_ms)
        ),
    );
    Some(Health {
        since_ms: Some(quiet_since_ms),
        ..silent
    })
}

/// How long a node may say nothing.
fn silence_ms(status: Option<&StatusRow>) -> u64 {
    let interval_ms = match status {
        Some(row) => row.status.interval_ms,
        None => return SLACK_MS * INTERVALS_MISSED, // it reports as soon as it is connected
    };
    interval_ms.map_or(SILENCE_MS, |interval_ms| {
        interval_ms
            .saturating_mul(INTERVALS_MISSED)
            .saturating_add(SLACK_MS)
    })
}

/// Whether what a node last said can still be taken for true.
pub(crate) fn is_heard(facts: &NodeFacts<'_>) -> bool {
    unheard(facts).is_none()
}

/// The health of a node.
pub(crate) fn node(facts: &NodeFacts<'_>) -> Health {
    if let Some(unknown) = unheard(facts) {
        return unknown;
    }
    let name = facts.name();
    let age_ms = facts.age_ms();
    let Some(row) = facts.status else {
        return Health {
            since_ms: facts.row.last_seen_ms,
            ..Health::because(
                HealthState::Progressing,
                Cause::NotReported,
                format!("`{name}` is connected and has not reported yet"),
            )
        };
    };
    let status = &row.status;
    let mut health = trouble(facts, row).unwrap_or_else(|| {
        if status.applied < facts.assignment {
            let reason = format!(
                "`{name}` has applied assignment {}, and has not taken {} yet",
                status.applied, facts.assignment
            );
            return Health::because(HealthState::Progressing, Cause::AssignmentPending, reason);
        }
        Health {
            since_ms: facts.by_our_clock(status.started_ms),
            ..Health::new(HealthState::Healthy)
        }
    });
    health.age_ms = age_ms;
    health
}

/// What is wrong with a node that is heard, the worst first.
fn trouble(facts: &NodeFacts<'_>, row: &StatusRow) -> Option<Health> {
    let (name, status, now_ms) = (facts.name(), &row.status, facts.now_ms);
    let degraded = |cause, reason| Health::because(HealthState::Degraded, cause, reason);
    let store = status.store.as_ref();
    if let Some((store, problem)) = store.and_then(|store| Some((store, store.problem.as_ref()?))) {
        let since_ms = store.since_ms.and_then(|since| facts.by_our_clock(since));
        return Some(match store.free_bytes {
            Some(free) => Health {
                hint: Some(format!(
                    "free or add space on `{name}`: it goes on by itself then"
                )),
                since_ms,
                ..degraded(
                    Cause::DiskFull,
                    format!(
                        "the disk with the data of `{name}` is full, {} are free: {problem}",
                        ByteSize(free)
                    ),
                )
            },
            None => Health {
                since_ms,
                ..degraded(
                    Cause::Store,
                    format!("the agent of `{name}` can't use its database: {problem}"),
                )
            },
        });
    }
    let identity = facts.noticed(IDENTITY_IN_USE);
    if let Some(seen) = identity.filter(|seen| now_ms.saturating_sub(seen.last_ms) < IDENTITY_MS) {
        return Some(Health {
            since_ms: Some(seen.since_ms),
            ..degraded(Cause::IdentityInUse, seen.message.clone())
        });
    }
    if let Some(seen) = facts.noticed(UNASSIGNED) {
        let reason = format!("no newer assignment is made for `{name}`: {}", seen.message);
        return Some(Health {
            since_ms: Some(seen.since_ms),
            ..degraded(Cause::Unassigned, reason)
        });
    }
    if let Some(refused) = &status.refused
        && status.applied < facts.assignment
    {
        let reason = format!(
            "`{name}` goes on with assignment {}, and refuses {}: {}",
            status.applied, facts.assignment, refused.reason
        );
        return Some(degraded(Cause::AssignmentRefused, reason));
    }
    let skew = row.clock_skew_ms?;
    (skew.unsigned_abs() > CLOCK_SKEW_MS / 2).then(|| {
        let direction = if skew > 0 { "ahead of" } else { "behind" };
        let reason = format!(
            "the clock of `{name}` is {} {direction} the controller's: above {} it can't connect",
            age(skew.unsigned_abs(), 0),
            age(CLOCK_SKEW_MS, 0)
        );
        Health {
            hint: Some(format!("set the clock of `{name}` (NTP)")),
            ..degraded(Cause::Clock, reason)
        }
    })
}
