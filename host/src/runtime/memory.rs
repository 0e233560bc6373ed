//! Bounds what one instance makes the host allocate: the sum of its linear memories, the sum of
//! its tables, the number of its parts.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use haar_protocol::limits::Limits;
use wasmtime::ResourceLimiter;

use super::guest::Counters;

/// Counts what memories and tables take and denies what is over the limit.
#[derive(Debug)]
pub struct MemoryLimiter {
    /// Bytes that all linear memories together take now.
    pub bytes: u64,
    /// What was denied last: the likely cause of a trap that follows.
    pub denied: Option<Denied>,
    bytes_max: u64,
    elements: u64,
    elements_max: u64,
    parts_max: usize,
    counters: Arc<Counters>,
}

/// A growth that was denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// Linear memory, to so many bytes in all.
    Memory(u64),
    /// Tables, to so many elements in all.
    Tables(u64),
}

impl std::fmt::Display for Denied {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Denied::Memory(bytes) => write!(
                formatter,
                "a growth to {bytes} bytes was denied by the limit `memory`"
            ),
            Denied::Tables(elements) => write!(
                formatter,
                "a growth to {elements} table elements was denied by the limit `table_elements`"
            ),
        }
    }
}

impl MemoryLimiter {
    /// Nothing taken yet.
    pub fn new(limits: &Limits, counters: Arc<Counters>) -> Self {
        let mut limiter = Self {
            bytes: 0,
            denied: None,
            bytes_max: 0,
            elements: 0,
            elements_max: 0,
            parts_max: 0,
            counters,
        };
        limiter.set_limits(limits);
        limiter
    }

    /// Changes the limits. What is taken already stays.
    pub fn set_limits(&mut self, limits: &Limits) {
        self.bytes_max = limits.memory.0;
        self.elements_max = limits.table_elements.into();
        self.parts_max = usize::try_from(limits.core_instances).unwrap_or(usize::MAX);
    }
}

impl ResourceLimiter for MemoryLimiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let wanted = self.bytes + desired.saturating_sub(current) as u64;
        if wanted > self.bytes_max {
            self.denied = Some(Denied::Memory(wanted));
            let exceeded = &self.counters.exceeded;
            exceeded.memory.fetch_add(1, Ordering::Relaxed);
            return Ok(false);
        }
        self.bytes = wanted;
        Ok(true)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let wanted = self.elements + desired.saturating_sub(current) as u64;
        if wanted > self.elements_max {
            self.denied = Some(Denied::Tables(wanted));
            let exceeded = &self.counters.exceeded;
            exceeded.table_elements.fetch_add(1, Ordering::Relaxed);
            return Ok(false);
        }
        self.elements = wanted;
        Ok(true)
    }

    fn instances(&self) -> usize {
        self.parts_max
    }

    fn tables(&self) -> usize {
        self.parts_max
    }

    fn memories(&self) -> usize {
        self.parts_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_over_all_tables_is_bounded_and_the_denial_is_kept_and_counted() {
        let limits = Limits {
            table_elements: 100,
            ..Limits::default()
        };
        let counters: Arc<Counters> = Arc::default();
        let mut limiter = MemoryLimiter::new(&limits, Arc::clone(&counters));
        assert!(limiter.table_growing(0, 60, None).unwrap());
        assert!(limiter.table_growing(0, 40, None).unwrap());
        assert!(!limiter.table_growing(40, 41, None).unwrap());
        assert_eq!(limiter.denied, Some(Denied::Tables(101)));
        assert_eq!(counters.exceeded.snapshot().table_elements, 1);
    }
}
