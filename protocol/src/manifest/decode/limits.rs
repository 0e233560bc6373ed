//! Limits, and what happens after failures and to messages that were not handled.

use crate::limits::{Backlog, Limits, RESTART_PAUSES_MAX, RestartPolicy, RetryPolicy, WhenFull};

use super::super::errors::KeyPath;
use super::super::tree::Node;
use super::super::values::{Decoded, Decoder};

impl Decoder {
    pub(super) fn limits(&mut self, node: &Node, at: &KeyPath) -> Decoded<Limits> {
        let known = [
            "memory",
            "table_elements",
            "core_instances",
            "cpu",
            "fuel_per_call",
            "call_timeout",
            "stop_grace",
            "inbox_messages",
            "message_size",
            "publish_per_second",
            "log_lines_per_second",
            "log_bytes_per_second",
            "key_value_size",
            "key_value_per_second",
            "key_value_writes_per_second",
            "files_size",
            "timers",
            "hibernate_after",
        ];
        let fields = self.fields(node, at, &known)?;
        let mut limits = Limits::default();
        let Limits {
            memory,
            table_elements,
            core_instances,
            cpu,
            fuel_per_call,
            call_timeout,
            stop_grace,
            inbox_messages,
            message_size,
            publish_per_second,
            log_lines_per_second,
            log_bytes_per_second,
            key_value_size,
            key_value_per_second,
            key_value_writes_per_second,
            files_size,
            timers,
            hibernate_after,
        } = &mut limits;
        self.set(&fields, "memory", memory, Self::formed);
        self.set(&fields, "table_elements", table_elements, Self::number);
        self.set(&fields, "core_instances", core_instances, Self::number);
        self.set(&fields, "cpu", cpu, |this, node, at| {
            this.formed(node, at).map(Some)
        });
        self.set(&fields, "fuel_per_call", fuel_per_call, Self::number);
        self.set(&fields, "call_timeout", call_timeout, Self::formed);
        self.set(&fields, "stop_grace", stop_grace, Self::formed);
        self.set(&fields, "inbox_messages", inbox_messages, Self::number);
        self.set(&fields, "message_size", message_size, Self::formed);
        let rate = publish_per_second;
        self.set(&fields, "publish_per_second", rate, Self::number);
        let lines = log_lines_per_second;
        self.set(&fields, "log_lines_per_second", lines, Self::number);
        let bytes = log_bytes_per_second;
        self.set(&fields, "log_bytes_per_second", bytes, Self::formed);
        self.set(&fields, "key_value_size", key_value_size, Self::formed);
        let rate = key_value_per_second;
        self.set(&fields, "key_value_per_second", rate, Self::number);
        let (key, rate) = ("key_value_writes_per_second", key_value_writes_per_second);
        self.set(&fields, key, rate, Self::number);
        self.set(&fields, "files_size", files_size, Self::formed);
        self.set(&fields, "timers", timers, Self::number);
        let idle = hibernate_after;
        self.set(&fields, "hibernate_after", idle, |this, node, at| {
            this.formed(node, at).map(Some)
        });
        Some(limits)
    }

    pub(super) fn restart(&mut self, node: &Node, at: &KeyPath) -> Decoded<RestartPolicy> {
        let fields = self.fields(node, at, &["pauses", "jitter", "recovered_after"])?;
        let mut policy = RestartPolicy::default();
        self.set(&fields, "pauses", &mut policy.pauses, |this, node, at| {
            this.list(node, at, RESTART_PAUSES_MAX, Self::formed)
        });
        self.set(&fields, "jitter", &mut policy.jitter, Self::formed);
        let recovered = &mut policy.recovered_after;
        self.set(&fields, "recovered_after", recovered, Self::formed);
        Some(policy)
    }

    pub(super) fn retry(&mut self, node: &Node, at: &KeyPath) -> Decoded<RetryPolicy> {
        let fields = self.fields(node, at, &["attempts", "pause", "dead_letters"])?;
        let mut policy = RetryPolicy::default();
        self.set(&fields, "attempts", &mut policy.attempts, Self::number);
        self.set(&fields, "pause", &mut policy.pause, Self::formed);
        let kept = &mut policy.dead_letters;
        self.set(&fields, "dead_letters", kept, Self::number);
        Some(policy)
    }

    pub(super) fn backlog(&mut self, node: &Node, at: &KeyPath) -> Decoded<Backlog> {
        let known = ["size", "when_full", "expiry", "priority"];
        let fields = self.fields(node, at, &known)?;
        let mut backlog = Backlog::default();
        self.set(&fields, "size", &mut backlog.size, Self::formed);
        let when_full = &mut backlog.when_full;
        self.set(&fields, "when_full", when_full, |this, node, at| {
            let choices = [
                ("refuse", WhenFull::Refuse),
                ("drop-oldest", WhenFull::DropOldest),
            ];
            this.one_of(node, at, &choices)
        });
        self.set(&fields, "expiry", &mut backlog.expiry, |this, node, at| {
            this.formed(node, at).map(Some)
        });
        self.set(&fields, "priority", &mut backlog.priority, Self::number);
        Some(backlog)
    }
}
