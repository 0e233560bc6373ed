//! Makes a status fit into one document. What matters most arrives whatever happens: who, when, which
//! assignment is in force, keys, the budget, and how many microservices are in which state. The rest
//! is left out step by step, and the status says what.
//!
//! ```text
//! everything ─► no backtraces ─► no last lines ─► short reasons ─► fewer entries: first routes, then
//!                                                 backlogs, then microservices that are up
//! ```

use std::collections::BTreeMap;
use std::io;

use serde::{Deserialize, Serialize};

use super::{MicroserviceStatus, State, Status};
use crate::text;

/// What stays of a reason when there is no room for more, in bytes.
const SHORT_REASON_BYTES: usize = 120;
/// What `omitted` itself may take, in bytes.
const OMITTED_BYTES_MAX: usize = 512;

/// What a status leaves out because there is no room for it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Omitted {
    /// Failures without their backtraces.
    pub backtraces: u64,
    /// Failures without the last lines before them.
    pub last_lines: u64,
    /// Reasons that were cut, and failures without their details.
    pub reasons: u64,
    /// Microservices that are not listed, by their state.
    pub microservices: BTreeMap<State, u64>,
    /// Logs of outlets that are not listed.
    pub backlogs: u64,
    /// Routes that are not listed.
    pub routes: u64,
}

impl Omitted {
    /// What is left out, for people: a list such as `3 backtraces, 12 routes`.
    pub fn described(&self) -> String {
        let states = self.microservices.iter();
        let microservices = states.map(|(state, count)| format!("{count} {state} microservices"));
        let counts = [
            (self.backtraces, "backtraces"),
            (self.last_lines, "failures' last lines"),
            (self.reasons, "reasons"),
            (self.backlogs, "backlogs"),
            (self.routes, "routes"),
        ];
        let others = counts.iter().filter(|(count, _)| *count > 0);
        let others = others.map(|(count, what)| format!("{count} {what}"));
        microservices.chain(others).collect::<Vec<_>>().join(", ")
    }
}

/// The same status in at most `bytes_max` bytes of JSON. Unchanged when it fits.
pub fn fit(mut status: Status, bytes_max: usize) -> Status {
    let steps = [without_backtraces, without_last_lines, with_short_reasons];
    for step in steps {
        if json_bytes(&status) <= bytes_max {
            return status;
        }
        let mut omitted = status.omitted.take().unwrap_or_default();
        step(&mut status, &mut omitted);
        status.omitted = Some(omitted);
    }
    if json_bytes(&status) > bytes_max {
        leave_out_entries(&mut status, bytes_max);
    }
    status
}

fn without_backtraces(status: &mut Status, omitted: &mut Omitted) {
    for failure in failures(status) {
        if !std::mem::take(&mut failure.backtrace).is_empty() {
            omitted.backtraces += 1;
        }
    }
}

fn without_last_lines(status: &mut Status, omitted: &mut Omitted) {
    for failure in failures(status) {
        if !std::mem::take(&mut failure.last_lines).is_empty() {
            omitted.last_lines += 1;
        }
    }
}

fn with_short_reasons(status: &mut Status, omitted: &mut Omitted) {
    for failure in failures(status) {
        if !std::mem::take(&mut failure.details).is_empty() {
            omitted.reasons += 1;
        }
    }
    let refused = status.refused.iter_mut().map(|refused| &mut refused.reason);
    let microservices = status.microservices.iter_mut();
    let microservices = microservices.filter_map(|one| one.reason.as_mut());
    let relays = status.relays.iter_mut().chain(&mut status.brokers);
    let relays = relays.filter_map(|one| one.reason.as_mut());
    let serves = status
        .serves
        .iter_mut()
        .filter_map(|one| one.reason.as_mut());
    for reason in refused.chain(microservices).chain(relays).chain(serves) {
        let short = text::line(reason, SHORT_REASON_BYTES);
        if short != *reason {
            *reason = short;
            omitted.reasons += 1;
        }
    }
}

fn failures(status: &mut Status) -> impl Iterator<Item = &mut super::FailureReport> {
    let microservices = status.microservices.iter_mut();
    microservices.filter_map(|one| one.last_failure.as_mut())
}

/// Keeps as many entries of the lists as there is room for: microservices before backlogs before
/// routes, and of the microservices first those that are not up.
fn leave_out_entries(status: &mut Status, bytes_max: usize) {
    let microservices = std::mem::take(&mut status.microservices);
    let backlogs = std::mem::take(&mut status.backlogs);
    let routes = std::mem::take(&mut status.routes);
    let mut omitted = status.omitted.take().unwrap_or_default();
    let mut room = bytes_max.saturating_sub(json_bytes(status) + OMITTED_BYTES_MAX);

    let is_up = |one: &MicroserviceStatus| one.state.is_up();
    let listed = those_with_room(&microservices, &mut room, is_up);
    for (microservice, is_listed) in microservices.into_iter().zip(listed) {
        match is_listed {
            true => status.microservices.push(microservice),
            false => *omitted.microservices.entry(microservice.state).or_default() += 1,
        }
    }
    (status.backlogs, omitted.backlogs) = as_many_as_fit(backlogs, &mut room);
    (status.routes, omitted.routes) = as_many_as_fit(routes, &mut room);
    status.omitted = Some(omitted);
}

/// For each entry whether there is room for it. Those that `may_go` come last.
fn those_with_room<T: Serialize>(
    entries: &[T],
    room: &mut usize,
    may_go: impl Fn(&T) -> bool,
) -> Vec<bool> {
    let mut listed = vec![false; entries.len()];
    for is_their_turn in [false, true] {
        for (entry, is_listed) in entries.iter().zip(&mut listed) {
            let bytes = json_bytes(entry) + 1; // and a comma
            if may_go(entry) == is_their_turn && bytes <= *room {
                *room -= bytes;
                *is_listed = true;
            }
        }
    }
    listed
}

/// The entries for which there is room, and how many are not among them.
fn as_many_as_fit<T: Serialize>(entries: Vec<T>, room: &mut usize) -> (Vec<T>, u64) {
    let all = entries.len();
    let listed = those_with_room(&entries, room, |_| false);
    let kept = entries.into_iter().zip(listed);
    let kept: Vec<T> = kept
        .filter_map(|(entry, is_listed)| is_listed.then_some(entry))
        .collect();
    let left_out = (all - kept.len()) as u64;
    (kept, left_out)
}

/// Bytes of a value as JSON.
fn json_bytes<T: Serialize>(value: &T) -> usize {
    let mut counter = Counter(0);
    // Neither writing to the counter nor serialising our own types fails; if it did, nothing would fit.
    match serde_json::to_writer(&mut counter, value) {
        Ok(()) => counter.0,
        Err(_) => usize::MAX / 4,
    }
}

struct Counter(usize);

impl io::Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
