//! How a call into a guest fails, in words that a person can act on.

use std::fmt;

use wasmtime::Trap;

/// Why a call ended the instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// It burnt more fuel than one call may.
    Fuel,
    /// It needed more memory than its limit.
    Memory,
    /// It recursed too deep.
    Stack,
    /// It took longer than one call may.
    Deadline,
    /// It ran into `unreachable`: a panic, usually.
    Unreachable,
    /// It touched memory that it does not have: too deep a recursion, usually.
    OutOfBounds,
    /// Anything else that WebAssembly traps on, or a failing host function.
    Other,
}

impl fmt::Display for Cause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Cause::Fuel => "out of fuel",
            Cause::Memory => "out of memory",
            Cause::Stack => "stack overflow",
            Cause::Deadline => "took too long",
            Cause::Unreachable => "panicked",
            Cause::OutOfBounds => "touched memory out of bounds (recursed too deep?)",
            Cause::Other => "trapped",
        })
    }
}

/// A call that ended the instance.
#[derive(Debug, Clone)]
pub struct Failure {
    /// Why.
    pub cause: Cause,
    /// The details: limits, the trap's text and the guest's backtrace.
    pub details: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.cause, self.details)
    }
}

/// Lines of the engine's text that are kept: the trap and the top of the backtrace.
const DETAIL_LINES_MAX: usize = 12;

/// Tells why `error` came out of a call. `denied_bytes` is the growth that was denied in this
/// call, if any: a guest that can't allocate panics, and the panic alone would hide the cause.
pub fn classify(error: &wasmtime::Error, denied_bytes: Option<u64>) -> Failure {
    let text = format!("{error:?}");
    let mut details: Vec<&str> = text.lines().take(DETAIL_LINES_MAX).collect();
    let denied = denied_bytes
        .map(|bytes| format!("a growth to {bytes} bytes was denied by the limit `memory`"));
    if let Some(denied) = &denied {
        details.insert(0, denied);
    }
    let cause = match error.downcast_ref::<Trap>() {
        Some(Trap::OutOfFuel) => Cause::Fuel,
        Some(Trap::StackOverflow) => Cause::Stack,
        // Compilers that use LLVM keep the data of frames at the start of linear memory: when that
        // stack overflows, an address below zero is touched.
        Some(Trap::MemoryOutOfBounds) if denied_bytes.is_none() => Cause::OutOfBounds,
        Some(_) | None if denied_bytes.is_some() => Cause::Memory,
        Some(Trap::UnreachableCodeReached) => Cause::Unreachable,
        Some(_) | None => Cause::Other,
    };
    Failure {
        cause,
        details: details.join("\n"),
    }
}
