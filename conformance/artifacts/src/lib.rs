//! The conformance guests and the examples as components: `build.rs` builds them, here are the paths
//! of the files. Beside them stand files that no agent may run, made here. Tests and benchmarks are
//! the only users.

mod bombs;
mod unrunnable;

pub use bombs::{component_growing_table, component_with_memory, component_with_table};
pub use unrunnable::{
    component_with_unknown_import, core_module, empty_component, spinning_at_instantiation,
};

include!(concat!(env!("OUT_DIR"), "/artifacts.rs"));

/// The bytes of an artifact.
///
/// # Panics
/// When the file cannot be read: it was there when this crate was built.
pub fn read(path: &str) -> Vec<u8> {
    match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) => {
            panic!("{path} cannot be read ({error}): build `haar-conformance-artifacts` again")
        }
    }
}
