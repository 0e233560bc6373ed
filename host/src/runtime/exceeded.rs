//! How often each limit of a microservice was exceeded: written where the limit is enforced, read
//! for the status.

use std::sync::atomic::{AtomicU64, Ordering};

use haar_protocol::status;

/// See [`status::Exceeded`], field by field.
#[allow(missing_docs, reason = "as in the status")]
#[derive(Debug, Default)]
pub struct Exceeded {
    pub fuel: AtomicU64,
    pub call_timeout: AtomicU64,
    pub memory: AtomicU64,
    pub table_elements: AtomicU64,
    pub core_instances: AtomicU64,
    pub stack: AtomicU64,
    pub cpu: AtomicU64,
    pub publish_per_second: AtomicU64,
    pub message_size: AtomicU64,
    pub inbox_messages: AtomicU64,
    pub log: AtomicU64,
    pub backlog: AtomicU64,
    pub timers: AtomicU64,
    pub key_value_size: AtomicU64,
    pub key_value_per_second: AtomicU64,
    pub key_value_writes_per_second: AtomicU64,
    pub files_size: AtomicU64,
}

impl Exceeded {
    /// As the status has it.
    pub fn snapshot(&self) -> status::Exceeded {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        status::Exceeded {
            fuel: read(&self.fuel),
            call_timeout: read(&self.call_timeout),
            memory: read(&self.memory),
            table_elements: read(&self.table_elements),
            core_instances: read(&self.core_instances),
            stack: read(&self.stack),
            cpu: read(&self.cpu),
            publish_per_second: read(&self.publish_per_second),
            message_size: read(&self.message_size),
            inbox_messages: read(&self.inbox_messages),
            log: read(&self.log),
            backlog: read(&self.backlog),
            timers: read(&self.timers),
            key_value_size: read(&self.key_value_size),
            key_value_per_second: read(&self.key_value_per_second),
            key_value_writes_per_second: read(&self.key_value_writes_per_second),
            files_size: read(&self.files_size),
        }
    }
}
