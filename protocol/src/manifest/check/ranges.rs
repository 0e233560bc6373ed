//! Ranges of amounts.

use std::fmt::Display;
use std::ops::RangeInclusive;

use crate::limits::{self, Backlog, Limits, RestartPolicy, Retention, RetryPolicy};
use crate::quantity::{ByteSize, Millis, Percent};

use super::super::errors::{KeyPath, Problem};

/// Reports the amounts below one key that are out of their ranges.
struct Ranges<'a> {
    at: &'a KeyPath,
    problems: &'a mut Vec<Problem>,
}

impl Ranges<'_> {
    fn check<T, A>(&mut self, key: &str, value: A, range: RangeInclusive<A>, show: impl Fn(A) -> T)
    where
        T: Display,
        A: PartialOrd + Copy,
    {
        if !range.contains(&value) {
            self.problems
                .push(out_of_range(&self.at.key(key), value, &range, show));
        }
    }

    fn count<A: PartialOrd + Copy + Display>(
        &mut self,
        key: &str,
        value: A,
        range: RangeInclusive<A>,
    ) {
        self.check(key, value, range, |value| value);
    }

    fn bytes(&mut self, key: &str, value: ByteSize, range: RangeInclusive<u64>) {
        self.check(key, value.0, range, ByteSize);
    }

    fn time(&mut self, key: &str, value: Millis, range: RangeInclusive<u64>) {
        self.check(key, value.0, range, Millis);
    }
}

fn out_of_range<T: Display, A: Copy>(
    at: &KeyPath,
    value: A,
    range: &RangeInclusive<A>,
    show: impl Fn(A) -> T,
) -> Problem {
    let message = format!(
        "{} is out of range: from {} to {}",
        show(value),
        show(*range.start()),
        show(*range.end())
    );
    Problem::new(at, message)
}

pub(super) fn check_limits(limits: &Limits, at: &KeyPath, problems: &mut Vec<Problem>) {
    let mut ranges = Ranges { at, problems };
    ranges.bytes("memory", limits.memory, limits::MEMORY_BYTES);
    let (key, range) = ("table_elements", limits::TABLE_ELEMENTS);
    ranges.count(key, limits.table_elements, range);
    let (key, range) = ("core_instances", limits::CORE_INSTANCES);
    ranges.count(key, limits.core_instances, range);
    if let Some(cpu) = limits.cpu {
        ranges.check("cpu", cpu.0, limits::CPU_PERCENT, Percent);
    }
    let (key, range) = ("fuel_per_call", limits::FUEL_PER_CALL);
    ranges.count(key, limits.fuel_per_call, range);
    let (key, range) = ("call_timeout", limits::CALL_TIMEOUT_MS);
    ranges.time(key, limits.call_timeout, range);
    ranges.time("stop_grace", limits.stop_grace, limits::STOP_GRACE_MS);
    let (key, range) = ("inbox_messages", limits::INBOX_MESSAGES);
    ranges.count(key, limits.inbox_messages, range);
    ranges.bytes("message_size", limits.message_size, limits::MESSAGE_BYTES);
    let (key, range) = ("publish_per_second", limits::PUBLISH_PER_SECOND);
    ranges.count(key, limits.publish_per_second, range);
    let (key, range) = ("log_lines_per_second", limits::LOG_LINES_PER_SECOND);
    ranges.count(key, limits.log_lines_per_second, range);
    let (key, range) = ("log_bytes_per_second", limits::LOG_BYTES_PER_SECOND);
    ranges.bytes(key, limits.log_bytes_per_second, range);
    let (key, range) = ("key_value_size", limits::KEY_VALUE_BYTES);
    ranges.bytes(key, limits.key_value_size, range);
    let (key, range) = ("key_value_per_second", limits::KEY_VALUE_PER_SECOND);
    ranges.count(key, limits.key_value_per_second, range);
    let key = "key_value_writes_per_second";
    let range = limits::KEY_VALUE_WRITES_PER_SECOND;
    ranges.count(key, limits.key_value_writes_per_second, range);
    ranges.bytes("files_size", limits.files_size, limits::FILES_BYTES);
    ranges.count("timers", limits.timers, limits::TIMERS);
    if let Some(idle) = limits.hibernate_after {
        ranges.time("hibernate_after", idle, limits::HIBERNATE_AFTER_MS);
    }
}

pub(super) fn check_restart(policy: &RestartPolicy, at: &KeyPath, problems: &mut Vec<Problem>) {
    let range = 0..=limits::RESTART_PAUSE_MS_MAX;
    if policy.pauses.is_empty() {
        problems.push(Problem::with_hint(
            &at.key("pauses"),
            "must list at least one pause",
            "write `pauses: [0s]` to start again at once, every time",
        ));
    }
    for (index, pause) in policy.pauses.iter().enumerate() {
        if !range.contains(&pause.0) {
            let at = at.key("pauses").index(index);
            problems.push(out_of_range(&at, pause.0, &range, Millis));
        }
    }
    Ranges { at, problems }.time("recovered_after", policy.recovered_after, range);
}

pub(super) fn check_retry(policy: &RetryPolicy, at: &KeyPath, problems: &mut Vec<Problem>) {
    let mut ranges = Ranges { at, problems };
    ranges.count("attempts", policy.attempts, limits::RETRY_ATTEMPTS);
    ranges.time("pause", policy.pause, 0..=limits::RETRY_PAUSE_MS_MAX);
    ranges.count("dead_letters", policy.dead_letters, limits::DEAD_LETTERS);
}

pub(super) fn check_retention(retention: &Retention, at: &KeyPath, problems: &mut Vec<Problem>) {
    let mut ranges = Ranges { at, problems };
    ranges.bytes("size", retention.size, limits::RETENTION_BYTES);
    ranges.time("age", retention.age, 1..=limits::RETENTION_AGE_MS_MAX);
}

pub(in crate::manifest) fn check_backlog(
    backlog: &Backlog,
    at: &KeyPath,
    problems: &mut Vec<Problem>,
) {
    let mut ranges = Ranges { at, problems };
    ranges.bytes("size", backlog.size, limits::BACKLOG_BYTES);
    if let Some(expiry) = backlog.expiry {
        ranges.time("expiry", expiry, 1..=limits::EXPIRY_MS_MAX);
    }
    ranges.count("priority", backlog.priority, limits::PRIORITY);
}
