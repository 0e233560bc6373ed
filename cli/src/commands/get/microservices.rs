//! Microservices for people: one line for each, however many instances it has.

use std::collections::{BTreeMap, BTreeSet};

use haar_protocol::assignment::MicroserviceName;
use haar_protocol::rest::{HealthState, Microservice};
use haar_protocol::status::MicroserviceStatus;

use super::long::{self, Remarks};
use super::tables::state;
use crate::output::{self, Table};

/// The instances of one microservice.
struct Group<'a> {
    name: &'a MicroserviceName,
    instances: Vec<&'a Microservice>,
}

/// One line for each microservice, those first of which something does not run.
pub(super) fn microservices(
    instances: &[Microservice],
    now: u64,
    all_remarks: bool,
    none: &str,
) -> String {
    let mut table = Table::new(&[
        "MICROSERVICE",
        "RUNNING",
        "NOT RUNNING",
        "NODES",
        "MODULE",
        "CALLS",
        "FAILURES",
        "RESTARTS",
        "DISCARDED",
        "COUNTED",
        "MEMORY",
    ]);
    for group in groups(instances) {
        let sum = |count: fn(&MicroserviceStatus) -> u64| {
            let statuses = group.instances.iter().filter_map(|one| one.status.as_ref());
            let counts: Vec<u64> = statuses.map(count).collect();
            let sum = counts
                .iter()
                .fold(0, |sum: u64, one| sum.saturating_add(*one));
            (!counts.is_empty()).then_some(sum)
        };
        let number = |count: fn(&MicroserviceStatus) -> u64| {
            sum(count).map_or_else(|| "-".into(), |sum: u64| sum.to_string())
        };
        table.row([
            group.name.to_string(),
            group.running(),
            group.not_running(),
            group.nodes(),
            group.module(),
            number(|status| status.calls),
            number(|status| status.failures),
            number(|status| status.restarts),
            number(|status| status.discarded),
            group.counted(now),
            sum(|status| status.memory_bytes).map_or_else(|| "-".into(), output::bytes),
        ]);
    }
    let summary = long::summary("instances", instances.iter().map(|one| &one.health));
    let mut remarks = Remarks::new(all_remarks);
    for one in long::worst_first(instances, |one| &one.health) {
        remarks.add(&format!("{} on {}", one.name, one.node), &one.health, now);
    }
    let table = summary + &table.render(none);
    remarks.below(table, "`haar get microservices --problems`")
}

fn groups(instances: &[Microservice]) -> Vec<Group<'_>> {
    let mut by_name: BTreeMap<&MicroserviceName, Vec<&Microservice>> = BTreeMap::new();
    for one in instances {
        by_name.entry(&one.name).or_default().push(one);
    }
    let groups = by_name.into_iter();
    let mut groups: Vec<Group<'_>> = groups
        .map(|(name, instances)| Group { name, instances })
        .collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.severity()));
    groups
}

impl Group<'_> {
    fn severity(&self) -> u8 {
        let all = self.instances.iter();
        all.map(|one| one.health.state.severity())
            .max()
            .unwrap_or(0)
    }

    /// `998 of 1000`, of those that should be.
    fn running(&self) -> String {
        let wanted: Vec<_> = self.instances.iter().filter(|one| one.wanted).collect();
        let healthy = wanted.iter().filter(|one| one.health.is_healthy()).count();
        format!("{healthy} of {}", wanted.len())
    }

    /// What the others are, the most frequent first.
    fn not_running(&self) -> String {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for one in self.instances.iter().filter(|one| !one.health.is_healthy()) {
            // What is up and not as it should be is what its health says.
            let is_up = one.health.state != HealthState::Unknown && one.state().is_up();
            let word = match is_up && one.wanted {
                true => one.health.state.to_string(),
                false => state(one),
            };
            *counts.entry(word).or_default() += 1;
        }
        if counts.is_empty() {
            return "-".into();
        }
        let mut counts: Vec<(String, usize)> = counts.into_iter().collect();
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let parts: Vec<String> = counts
            .iter()
            .map(|(word, count)| format!("{count} {word}"))
            .collect();
        parts.join(", ")
    }

    fn nodes(&self) -> String {
        match self.instances.as_slice() {
            [one] => one.node.to_string(),
            more => more.len().to_string(),
        }
    }

    /// Its module, or how many it is between.
    fn module(&self) -> String {
        let labels: BTreeSet<&str> = self
            .instances
            .iter()
            .map(|one| one.module_label.as_str())
            .collect();
        match labels.len() {
            1 => output::printable(labels.first().copied().unwrap_or_default()),
            more => format!("{more} modules"),
        }
    }

    /// For how long its instances have counted: the shortest, and the longest.
    fn counted(&self, now: u64) -> String {
        let counted = self.instances.iter().filter_map(|one| one.counted);
        let since = counted.map(|counted| counted.since_ms);
        output::ages(now, since)
    }
}

#[cfg(test)]
mod tests;
