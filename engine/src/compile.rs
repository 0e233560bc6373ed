//! Turns a module into machine code for the target of this build. Only in builds with the
//! compiler; whoever calls this has verified the module before.

use wasmtime::Engine;

/// Compiles `module`. Takes tens of milliseconds for small modules: never call it on a thread
/// that others wait for.
///
/// # Errors
/// When the engine can't compile the module; the text is the engine's.
pub fn compile(engine: &Engine, module: &[u8]) -> wasmtime::Result<Vec<u8>> {
    engine.precompile_component(module)
}
