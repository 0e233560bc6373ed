//! The conformance guests and the examples as components: `build.rs` builds them, here are the paths
//! of the files. Beside them stand files that no agent may run, made here. Tests and benchmarks are
//! the only users.

mod unrunnable;
mod hostile;
mod bombs;

pub use bombs::{component_growing_table, component_with_memory, component_with_table};
pub use hostile::{
    compile_bomb, component_nested_deeply, component_with_doubling_instances,
    component_with_exports, component_with_function_of, component_with_functions,
    component_with_imports, component_with_invalid_utf8_export, component_with_invalid_utf8_name,
    component_with_invalid_utf8_section, component_with_nested_instances, component_with_types,
    component_with_types_nested_deeply,
};
pub use unrunnable::{
    component_importing, component_with_unknown_import, core_module, empty_component,
    spinning_at_instantiation,
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
