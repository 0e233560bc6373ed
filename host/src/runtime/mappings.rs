//! Mappings of memory: the kernel lets a process have so many (`vm.max_map_count`), and each instance
//! takes some. A node refuses what would need more of them, because nobody can do without: an agent that
//! gets no more memory ends.

/// What one instance takes at most, a plain one: its linear memory and its tables, the stack of its calls,
/// each with what is kept free around it. Measured (docs/benchmarks.md).
const PER_INSTANCE: u64 = 8;
/// What the agent itself takes, with its threads, its store and the code of modules.
const AGENT: u64 = 2_000;

/// How many mappings this kernel allows; none where it does not say.
pub fn allowed() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/sys/vm/max_map_count").ok()?;
    text.trim().parse().ok()
}

/// How many instances a process may have that may have so many mappings.
pub fn instances(allowed: u64) -> u64 {
    allowed.saturating_sub(AGENT) / PER_INSTANCE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_as_it_comes_has_room_for_thousands_of_instances() {
        assert_eq!(instances(65_530), 7_941);
        assert_eq!(instances(100), 0);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_kernel_says_how_many_mappings_it_allows() {
        assert!(allowed() > Some(0));
    }
}
