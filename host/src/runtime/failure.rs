//! How a call into a guest fails, in words that a person can act on.

use std::fmt;

use haar_protocol::status::FailureCause as Cause;
use haar_protocol::text;
use wasmtime::{FrameInfo, Trap, WasmBacktrace};

use super::memory::Denied;

/// Frames of a backtrace that are kept.
const FRAMES_MAX: usize = 16;
/// Bytes of a frame's text that are kept: names of generic functions are long.
const FRAME_BYTES_MAX: usize = 256;
/// Bytes of the details that are kept.
const DETAILS_BYTES_MAX: usize = 1_024;

/// How the engine says that a component has more instances, memories or tables than its limiter
/// lets it have; there is no type of error for it (wasmtime's `StoreOpaque::bump_resource_counts`).
const PARTS: &str = "count too high at";

/// A call that ended the instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Why.
    pub cause: Cause,
    /// What exceeded which limit, or the engine's own words.
    pub details: String,
    /// Frames of the guest, the innermost first.
    pub backtrace: Vec<String>,
}

impl Failure {
    /// A failure without a backtrace. `details` may be a guest's own words, of any length: they are
    /// cut here, before they reach a status, a log or the journal.
    pub fn new(cause: Cause, details: &str) -> Self {
        Self {
            cause,
            details: text::paragraph(details, DETAILS_BYTES_MAX),
            backtrace: Vec::new(),
        }
    }

    /// The same with what the guest itself said of it, where the cause does not say it all.
    pub fn with_words(self, words: &str) -> Self {
        if words.is_empty() || !matches!(self.cause, Cause::Unreachable | Cause::Other) {
            return self;
        }
        let details = format!("{words} ({})", self.details);
        Self {
            backtrace: self.backtrace,
            ..Self::new(self.cause, &details)
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.cause, self.details)?;
        match self.backtrace.first() {
            Some(frame) => write!(formatter, ", in {frame}"),
            None => Ok(()),
        }
    }
}

/// Tells why `error` came out of a call. `denied` is the growth that was denied in this call, if
/// any: a guest that can't allocate panics, and the panic alone would hide the cause.
pub fn classify(error: &wasmtime::Error, denied: Option<Denied>) -> Failure {
    let trap = error.downcast_ref::<Trap>();
    let cause = match trap {
        Some(Trap::OutOfFuel) => Cause::Fuel,
        Some(Trap::StackOverflow) => Cause::Stack,
        // Compilers that use LLVM keep the data of frames at the start of linear memory: when that
        // stack overflows, an address below zero is touched.
        Some(Trap::MemoryOutOfBounds) if denied.is_none() => Cause::OutOfBounds,
        Some(_) | None if denied.is_some() => Cause::Memory,
        Some(Trap::UnreachableCodeReached) => Cause::Unreachable,
        Some(_) | None => Cause::Other,
    };
    let words = match trap {
        Some(trap) => trap.to_string(),
        None => without_backtrace(error),
    };
    let details = match denied {
        Some(denied) => format!("{denied} ({words})"),
        None if has_too_many_parts(error) => {
            format!("more parts than the limit `core_instances` allows ({words})")
        }
        None => words,
    };
    let backtrace = error.downcast_ref::<WasmBacktrace>().map(|backtrace| {
        let frames = backtrace.frames().iter();
        frames.flat_map(frame_lines).take(FRAMES_MAX).collect()
    });
    Failure {
        backtrace: backtrace.unwrap_or_default(),
        ..Failure::new(cause, &details)
    }
}

/// True when a component has more parts than `core_instances` allows.
pub fn has_too_many_parts(error: &wasmtime::Error) -> bool {
    error.chain().any(|cause| cause.to_string().contains(PARTS))
}

/// The error and its causes in one line; the engine puts its own text of the backtrace among them.
fn without_backtrace(error: &wasmtime::Error) -> String {
    let causes: Vec<String> = error
        .chain()
        .map(|cause| cause.to_string())
        .filter(|text| !text.starts_with("error while executing"))
        .collect();
    causes.join(": ")
}

/// A frame as people read it: function, file and line. A compiler may have inlined several
/// functions into one frame; each has a line of its own then.
fn frame_lines(frame: &FrameInfo) -> Vec<String> {
    if frame.symbols().is_empty() {
        let name = frame.func_name().map_or_else(
            || format!("function {}", frame.func_index()),
            |name| rustc_demangle::demangle(name).to_string(),
        );
        return vec![text::line(&without_hash(&name), FRAME_BYTES_MAX)];
    }
    let symbols = frame.symbols().iter();
    symbols
        .map(|symbol| {
            let name = symbol.name().or(frame.func_name()).unwrap_or("?");
            let name = without_hash(&rustc_demangle::demangle(name).to_string());
            let line = match (symbol.file(), symbol.line()) {
                (Some(file), Some(line)) => format!("{name} ({file}:{line})"),
                (Some(file), None) => format!("{name} ({file})"),
                _ => name,
            };
            text::line(&line, FRAME_BYTES_MAX)
        })
        .collect()
}

/// Rust's legacy names end in `::h` and 16 digits that say nothing to people.
fn without_hash(name: &str) -> String {
    match name.rsplit_once("::h") {
        Some((path, hash)) if hash.len() == 16 && hash.bytes().all(|b| b.is_ascii_hexdigit()) => {
            path.to_owned()
        }
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_guest_says_of_its_failure_is_bounded_and_clean() {
        let failure = Failure::new(Cause::Start, &"\u{1b}x".repeat(500_000));
        assert!(failure.details.len() <= DETAILS_BYTES_MAX + '…'.len_utf8());
        assert!(!failure.details.contains('\u{1b}'));
        assert!(failure.to_string().len() < DETAILS_BYTES_MAX + 64);
    }
}
