//! What makes long lists readable: what is wrong stands first, a long one begins with how many there
//! are of what, and remarks below a table end before they hide it.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};

use haar_protocol::rest::{Health, HealthState};

use super::tables::since;
use crate::output;

/// Lists of more lines than this begin with a summary.
pub(in crate::commands) const LONG: usize = 20;
/// Things about which something is remarked below a table, unless all are wanted.
const REMARKED_MAX: usize = 10;

/// Things of a list, the worst first, those that are alike in the order that they have.
pub(in crate::commands) fn worst_first<T>(items: &[T], health: impl Fn(&T) -> &Health) -> Vec<&T> {
    let mut items: Vec<&T> = items.iter().collect();
    items.sort_by_key(|item| Reverse(health(item).state.severity()));
    items
}

/// How many of what there are in which state, and why, above a list that is long; else nothing.
pub(in crate::commands) fn summary<'a>(
    what: &str,
    healths: impl Iterator<Item = &'a Health>,
) -> String {
    let mut states: BTreeMap<Reverse<u8>, (HealthState, usize, BTreeMap<String, usize>)> =
        BTreeMap::new();
    let mut all = 0;
    for health in healths {
        all += 1;
        let key = Reverse(health.state.severity());
        let (_, count, causes) = states
            .entry(key)
            .or_insert_with(|| (health.state, 0, BTreeMap::new()));
        *count += 1;
        if let Some(cause) = health.cause.filter(|_| !health.is_healthy()) {
            let cause = serde_json::to_value(cause).unwrap_or_default();
            let cause = cause.as_str().unwrap_or("other").to_owned();
            *causes.entry(cause).or_default() += 1;
        }
    }
    if all <= LONG {
        return String::new();
    }
    let parts = states.into_values().map(|(state, count, causes)| {
        let mut causes: Vec<(String, usize)> = causes.into_iter().collect();
        causes.sort_by_key(|(_, count)| Reverse(*count));
        let causes: Vec<String> = causes
            .into_iter()
            .map(|(cause, of_cause)| match of_cause == count {
                true => cause,
                false => format!("{cause} {of_cause}"),
            })
            .collect();
        match causes.is_empty() {
            true => format!("{count} {state}"),
            false => format!("{count} {state} ({})", causes.join(", ")),
        }
    });
    let parts: Vec<String> = parts.collect();
    format!("{all} {what}: {}\n\n", parts.join(", "))
}

/// What is worth a remark below a table.
#[derive(Debug, Default)]
pub(in crate::commands) struct Remarks {
    lines: String,
    remarked: usize,
    left_out: usize,
    all: bool,
}

impl Remarks {
    /// None yet; of all things in the end, or of the first.
    pub(in crate::commands) fn new(all: bool) -> Self {
        Self {
            all,
            ..Self::default()
        }
    }

    /// What is wrong with something, on a line of its own; nothing where all is well.
    pub(in crate::commands) fn add(&mut self, what: &impl Display, health: &Health, now: u64) {
        if health.reason.is_none() && health.hint.is_none() {
            return;
        }
        if !self.all && self.remarked == REMARKED_MAX {
            self.left_out += 1;
            return;
        }
        self.remarked += 1;
        // Writing to a string never fails.
        if let Some(reason) = &health.reason {
            let since = since(health, now).map_or_else(String::new, |since| format!(" ({since})"));
            let reason = output::printable(reason);
            let _ = writeln!(self.lines, "{what}: {reason}{since}");
        }
        if let Some(hint) = &health.hint {
            let _ = writeln!(self.lines, "  Hint: {}", output::printable(hint));
        }
    }

    /// A table with the remarks below it; `how` is the command that shows all of them.
    pub(in crate::commands) fn below(self, table: String, how: &str) -> String {
        let Self {
            mut lines,
            left_out,
            ..
        } = self;
        if left_out > 0 {
            let _ = writeln!(lines, "And {left_out} more: {how} shows all of them."); // never fails
        }
        match lines.is_empty() {
            true => table,
            false => format!("{table}\n{lines}"),
        }
    }
}
