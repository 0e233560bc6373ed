//! The one configuration of the engine. Whoever compiles a module and whoever loads the result
//! build their engine here: any difference makes the engine refuse the code.

use sha2::{Digest as _, Sha256};
use wasmtime::{Config, Engine};

/// Virtual memory kept behind each linear memory for growth in place, in bytes. Memories are
/// otherwise exactly as large as they are: never the engine's default of 4 GiB each, which small
/// address spaces and `vm.overcommit_memory=2` do not bear.
const GROWTH_RESERVATION_BYTES: u64 = 1 << 20;
/// Unmapped bytes behind each linear memory.
const GUARD_BYTES: u64 = if cfg!(feature = "other-engine") {
    128 << 10
} else {
    64 << 10
};
/// Stack of WebAssembly frames of one call, in bytes.
const WASM_STACK_BYTES: usize = 512 << 10;
/// The fiber that a call runs on: its frames and those of the host functions that it calls.
const FIBER_STACK_BYTES: usize = 1 << 20;

/// What code can be compiled for: how it is called here, and the engine's own name of it. armv7 has
/// no native code: it runs the bytecode of Pulley, the engine's interpreter.
#[cfg(feature = "compiler")]
const TARGETS: [(&str, &str); 4] = [
    ("x86_64-linux", "x86_64-unknown-linux-gnu"),
    ("aarch64-linux", "aarch64-unknown-linux-gnu"),
    (RISCV64, "riscv64gc-unknown-linux-gnu"),
    (PULLEY32, "pulley32"),
];
const RISCV64: &str = "riscv64-linux";
const PULLEY32: &str = "pulley32";

/// Builds the engine that runs modules on this machine.
///
/// # Errors
/// When the engine refuses the machine (an instruction set that it does not know).
pub fn engine() -> wasmtime::Result<Engine> {
    Engine::new(&configuration(&target()))
}

/// Whether the processors of `target` are taken to have no vectors: 64-bit RISC-V without its
/// extension V. Modules with vector instructions of their own are refused there.
pub(crate) fn is_without_vectors(target: &str) -> bool {
    target == RISCV64
}

/// An engine for a process that compiles and shall stay small: it starts no threads. For this
/// machine with all that its processor can do when `target` is none; for any processor of that
/// target otherwise.
///
/// # Errors
/// When the target is not known, or this build can't compile for it.
#[cfg(feature = "compiler")]
pub fn engine_that_compiles(target: Option<&str>) -> wasmtime::Result<Engine> {
    let mut config = configuration(target.unwrap_or(&self::target()));
    config.parallel_compilation(false);
    if let Some(target) = target {
        let known = TARGETS.iter().find(|(name, _)| *name == target);
        let (_, triple) =
            known.ok_or_else(|| wasmtime::format_err!("nobody compiles for `{target}`"))?;
        config.target(triple)?;
    }
    Engine::new(&config)
}

/// The targets that this build can compile for.
#[cfg(feature = "compiler")]
pub fn targets() -> Vec<&'static str> {
    let names = TARGETS.iter().map(|(name, _)| *name);
    names
        .filter(|name| engine_that_compiles(Some(name)).is_ok())
        .collect()
}

fn configuration(target: &str) -> Config {
    let mut config = Config::new();
    config.wasm_component_model(true);
    if is_without_vectors(target) {
        config.wasm_simd(false);
        config.wasm_relaxed_simd(false);
    }
    // Component-model async makes every call two to five times dearer, and feature unification
    // can switch it on from elsewhere.
    config.concurrency_support(false);
    // No collector is built in: no language that makes components needs one yet, and each costs
    // size on the agent.
    config.gc_support(false);
    config.consume_fuel(true);
    config.memory_reservation(0);
    config.memory_reservation_for_growth(GROWTH_RESERVATION_BYTES);
    config.memory_guard_size(GUARD_BYTES);
    config.memory_may_move(true);
    config.max_wasm_stack(WASM_STACK_BYTES);
    config.async_stack_size(FIBER_STACK_BYTES);
    // For other programs' unwinders, of which there is none here: smaller code, faster loads.
    config.native_unwind_info(false);
    // File and line in backtraces, where the module brings debug information.
    config.wasm_backtrace_details(wasmtime::WasmBacktraceDetails::Enable);
    config.wasm_backtrace_max_frames(std::num::NonZeroUsize::new(32));
    #[cfg(feature = "compiler")]
    config.parallel_compilation(true);
    config
}

/// The engine's major version, and the settings of [`configuration`] that code depends on. To be
/// changed together with them.
#[cfg(not(feature = "other-engine"))]
const FINGERPRINT: &str = "wasmtime 48, fuel, no gc, no concurrency, memory 0 + 1 MiB + guard 64 KiB, debug information, no unwind information";
#[cfg(feature = "other-engine")]
const FINGERPRINT: &str = "for tests: the engine of another release, guard 128 KiB";

/// Identifies the engine and its settings, as 64 hexadecimal digits. Code that was compiled under
/// another fingerprint is not given to the engine. The engine compares more (each setting, each
/// feature of the processor) when it loads code, but only builds with a compiler can tell that
/// beforehand.
pub fn fingerprint() -> String {
    hex::encode(Sha256::digest(FINGERPRINT))
}

/// The target whose code this build loads, such as `x86_64-linux`.
pub fn target() -> String {
    if cfg!(target_arch = "arm") {
        return PULLEY32.to_owned();
    }
    format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS)
}

/// The machine that this build runs on, such as `arm-linux`.
pub fn machine() -> String {
    format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS)
}
