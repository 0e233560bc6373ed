//! The only unsafe code of Haar: handing checked, compiled code to the engine.

use wasmtime::Engine;
use wasmtime::component::Component;

use crate::artifact::CheckedCode;

/// Loads code that [`crate::artifact::open`] has checked.
///
/// # Errors
/// When the engine itself refuses the code (it compares versions and settings once more).
pub fn load(engine: &Engine, code: &CheckedCode<'_>) -> wasmtime::Result<Component> {
    // SAFETY: `Component::deserialize` runs whatever machine code the bytes hold, so they must
    // come unchanged from `Engine::precompile_component`. A `CheckedCode` exists only when a
    // trusted key (this node's own, or the site's) has signed the SHA-256 of exactly these bytes
    // together with the engine's fingerprint and target. The bytes are borrowed memory of ours,
    // not a file that somebody may change between check and use.
    #[allow(
        unsafe_code,
        reason = "the one place that loads compiled code; checked above"
    )]
    let component = unsafe { Component::deserialize(engine, code.bytes()) };
    component
}
