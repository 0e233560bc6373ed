//! How many files and connections this process may have open. Agents and controllers call it once,
//! at their start.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit of open files to the hard one, which needs no right, and returns the
/// limit; none when there is none. The soft one is often 1,024, for the sake of old programs that
/// call `select`.
pub fn raise_descriptor_limit() -> Option<u64> {
    let before = getrlimit(Resource::Nofile);
    if before.current == before.maximum {
        return before.current;
    }
    let raised = Rlimit {
        current: before.maximum,
        maximum: before.maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => before.maximum,
        Err(error) => {
            tracing::warn!(%error, limit = before.current, "the limit of open files could not be raised");
            before.current
        }
    }
}
