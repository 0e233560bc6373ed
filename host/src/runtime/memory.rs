//! Bounds the memory of one instance: the sum of its linear memories, and the size of its tables.

use wasmtime::ResourceLimiter;

/// Table elements that an instance may have in each table. A reference takes 8 bytes of the host.
const TABLE_ELEMENTS_MAX: usize = 65_536;
/// Core instances, memories and tables inside one component; a Rust component needs 3, 1 and 2.
const PARTS_MAX: usize = 64;

/// Counts what the linear memories take and denies what is over the limit.
#[derive(Debug)]
pub struct MemoryLimiter {
    /// Bytes that all linear memories together may take.
    pub bytes_max: u64,
    /// Bytes that they take now.
    pub bytes: u64,
    /// The last growth that was denied, in bytes wanted: the likely cause of a trap that follows.
    pub denied_bytes: Option<u64>,
}

impl MemoryLimiter {
    /// Nothing taken yet, of at most `bytes_max`.
    pub fn new(bytes_max: u64) -> Self {
        Self {
            bytes_max,
            bytes: 0,
            denied_bytes: None,
        }
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
            self.denied_bytes = Some(wanted);
            return Ok(false);
        }
        self.bytes = wanted;
        Ok(true)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ELEMENTS_MAX)
    }

    fn instances(&self) -> usize {
        PARTS_MAX
    }

    fn tables(&self) -> usize {
        PARTS_MAX
    }

    fn memories(&self) -> usize {
        PARTS_MAX
    }
}
