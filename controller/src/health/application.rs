//! The health of an application: that of its instances, and of those that have no place.

use std::cmp::Reverse;

use haar_protocol::rest::{Cause, Health, HealthCount, HealthState, Microservice, Unplaced};

/// Parts that the reason names.
const NAMED_MAX: usize = 3;

/// Counts the instances of an application by their health, and judges it as a whole.
pub(crate) fn application(
    microservices: &[Microservice],
    unplaced: &[Unplaced],
) -> (HealthCount, Health) {
    let wanted: Vec<&Microservice> = microservices.iter().filter(|one| one.wanted).collect();
    let mut count: HealthCount = wanted.iter().map(|one| one.health.state).collect();
    for one in unplaced {
        count.add(HealthState::Failed, one.instances);
    }
    let age_ms = wanted.iter().filter_map(|one| one.health.age_ms).max();
    let all = count.all();
    let state = state(&count);
    if state == HealthState::Healthy {
        let health = Health {
            since_ms: wanted.iter().filter_map(|one| one.health.since_ms).max(),
            age_ms,
            ..Health::new(state)
        };
        return (count, health);
    }
    // The worst first, and of these the oldest.
    let mut parts: Vec<(HealthState, Option<u64>, String, Cause)> = Vec::new();
    for one in unplaced {
        let what = match one.instances {
            1 => String::new(),
            instances => format!("{instances} of "),
        };
        let reason = format!(
            "{what}`{}` without a place: {}",
            one.microservice, one.reason
        );
        parts.push((
            HealthState::Failed,
            Some(one.since_ms),
            reason,
            Cause::Unplaced,
        ));
    }
    for one in wanted.iter().filter(|one| !one.health.is_healthy()) {
        let health = &one.health;
        let reason = format!(
            "`{}` on `{}`: {}",
            one.name.microservice,
            one.node,
            health.reason.as_deref().unwrap_or("no reason is known")
        );
        let cause = health.cause.unwrap_or(Cause::Parts);
        parts.push((health.state, health.since_ms, reason, cause));
    }
    parts.sort_by_key(|(state, since_ms, ..)| (Reverse(state.severity()), *since_ms));
    let named: Vec<&str> = parts
        .iter()
        .take(NAMED_MAX)
        .map(|(.., reason, _)| reason.as_str())
        .collect();
    let more = match parts.len().saturating_sub(NAMED_MAX) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    let first = parts.first();
    let is_one_cause = parts
        .iter()
        .all(|(.., cause)| Some(cause) == first.map(|(.., cause)| cause));
    let cause = match first {
        Some((.., cause)) if is_one_cause => *cause,
        _ => Cause::Parts,
    };
    let health = Health {
        hint: hint(&wanted, unplaced),
        since_ms: parts.iter().filter_map(|(_, since_ms, ..)| *since_ms).min(),
        age_ms,
        ..Health::because(
            state,
            cause,
            format!(
                "{} of {all} instances run; {}{more}",
                count.healthy,
                named.join("; ")
            ),
        )
    };
    (count, health)
}

pub(super) fn state(count: &HealthCount) -> HealthState {
    let some_run = count.healthy > 0;
    match count {
        _ if count.healthy == count.all() && some_run => HealthState::Healthy,
        HealthCount {
            degraded: 0,
            failed: 0,
            unknown: 0,
            ..
        } => HealthState::Progressing,
        _ if some_run || count.degraded > 0 => HealthState::Degraded,
        HealthCount { failed: 0, .. } => HealthState::Unknown,
        _ => HealthState::Failed,
    }
}

fn hint(wanted: &[&Microservice], unplaced: &[Unplaced]) -> Option<String> {
    let of_unplaced = unplaced.iter().filter_map(|one| one.hint.clone());
    let of_others = wanted.iter().filter_map(|one| one.health.hint.clone());
    let mut hints: Vec<String> = of_unplaced.chain(of_others).collect();
    hints.sort();
    hints.dedup();
    hints.truncate(NAMED_MAX);
    (!hints.is_empty()).then(|| hints.join("; "))
}
