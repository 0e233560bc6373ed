//! `wasi:logging`, and the one door through which all lines of an instance pass: level, rate,
//! length and characters are bounded here, whatever the stream.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use haar_protocol::assignment::{Microservice, MicroserviceName};
use haar_protocol::log::{GapCause, Level, LogLine, Stream};
use haar_protocol::text;

use super::bindings::imports::wasi::logging::logging;
use super::state::{State, now_ms};
use crate::bus::message::count;
use crate::logs::{Logs, gap};
use crate::runtime::guest::Counters;
use crate::runtime::rate::Rate;

/// The longest line in bytes; what is over is cut and marked.
const LINE_BYTES_MAX: usize = 4_096;
/// The longest context in bytes.
const CONTEXT_BYTES_MAX: usize = 128;

/// The shortest time between two lines that report how many were kept out.
const GAP_PAUSE: Duration = Duration::from_secs(1);

/// Lines that are kept for the report of a failure.
const LAST_LINES_MAX: usize = 10;
/// Bytes that are kept of each of them.
const LAST_LINE_BYTES_MAX: usize = 512;
/// Lines of standard error that are taken for the reason of a failure when there is no panic message.
const LAST_WORDS_LINES: usize = 3;

/// Writes log lines of one microservice, whatever instance of it runs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Logger(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: MicroserviceName,
    logs: Arc<Logs>,
    counters: Arc<Counters>,
    dropped: AtomicU64,
    /// Taken by the calls of the instance, one at a time, and by the control loop when limits
    /// change or an instance has failed.
    gate: Mutex<Gate>,
}

/// What decides whether a line is taken.
#[derive(Debug)]
struct Gate {
    level: Level,
    lines_per_second: u32,
    bytes_per_second: u32,
    lines: Rate,
    bytes: Rate,
    last: VecDeque<Said>,
    /// Lines that were kept out and not reported yet.
    kept_out: u64,
    /// When such lines were last reported.
    said: Option<Instant>,
}

/// A line that is kept for the report of a failure.
#[derive(Debug)]
struct Said {
    /// Calls into the microservice that had ended before.
    calls: u64,
    is_error: bool,
    text: String,
}

impl Gate {
    /// How many lines were kept out, when it is time to report it.
    fn take_kept_out(&mut self) -> Option<u64> {
        let is_due = self.said.is_none_or(|said| said.elapsed() >= GAP_PAUSE);
        if self.kept_out == 0 || !is_due {
            return None;
        }
        self.said = Some(Instant::now());
        Some(std::mem::take(&mut self.kept_out))
    }

    /// True when the rates allow a line of this many bytes.
    fn passes(&mut self, bytes: usize) -> bool {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.lines.take(self.lines_per_second).is_ok()
            && self.bytes.take_many(self.bytes_per_second, bytes).is_ok()
    }

    fn remember(&mut self, calls: u64, is_error: bool, text: &str) {
        if self.last.len() == LAST_LINES_MAX {
            self.last.pop_front();
        }
        self.last.push_back(Said {
            calls,
            is_error,
            text: text::line(text, LAST_LINE_BYTES_MAX),
        });
    }
}

impl Logger {
    /// A logger of a microservice, with its level and limits. Lines that exceed the limits are counted in
    /// `counters`.
    pub fn new(spec: &Microservice, logs: Arc<Logs>, counters: Arc<Counters>) -> Self {
        let gate = Gate {
            level: spec.log_level,
            lines_per_second: spec.limits.log_lines_per_second,
            bytes_per_second: bytes_per_second(spec),
            lines: Rate::default(),
            bytes: Rate::default(),
            last: VecDeque::new(),
            kept_out: 0,
            said: None,
        };
        Self(Arc::new(Inner {
            name: spec.name.clone(),
            logs,
            counters,
            dropped: AtomicU64::new(0),
            gate: Mutex::new(gate),
        }))
    }

    /// Puts the level and the limits of `spec` in force, from the next line on.
    pub fn follow(&self, spec: &Microservice) {
        let mut gate = self.gate();
        gate.level = spec.log_level;
        gate.lines_per_second = spec.limits.log_lines_per_second;
        gate.bytes_per_second = bytes_per_second(spec);
    }

    /// Lines dropped by the limits.
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }

    /// The last lines that the running instance wrote, or the one that has just failed; the oldest
    /// first. At most 10, long ones cut. Lines that the level or the limits kept out are not among them,
    /// except for those of standard error.
    pub fn last_lines(&self) -> Vec<String> {
        let gate = self.gate();
        gate.last.iter().map(|line| line.text.clone()).collect()
    }

    /// What the instance wrote to standard error in the call that has just failed: a panic message from
    /// its first line on, otherwise the last lines. Joined to one line, cut; empty when it wrote nothing.
    pub fn last_words(&self) -> String {
        let call = self
            .0
            .counters
            .calls
            .load(Ordering::Relaxed)
            .saturating_sub(1);
        let gate = self.gate();
        let said = gate.last.iter();
        let said: Vec<&str> = said
            .filter(|line| line.is_error && line.calls >= call)
            .map(|line| line.text.trim())
            .filter(|text| !text.is_empty() && !text.starts_with("note: run with"))
            .collect();
        let panic = said.iter().rposition(|text| text.contains("panicked at"));
        let from = panic.unwrap_or(said.len().saturating_sub(LAST_WORDS_LINES));
        text::line(&said[from..].join(" "), LAST_LINE_BYTES_MAX)
    }

    /// The instance has ended, or hibernates: reports at once how many of its lines were kept out, because
    /// no line of it may follow for long.
    pub fn end_instance(&self) {
        let lines = std::mem::take(&mut self.gate().kept_out);
        if lines > 0 {
            self.report_kept_out(lines);
        }
    }

    /// Another instance begins: it has no lines yet.
    pub fn begin_instance(&self) {
        self.gate().last.clear();
    }

    /// Writes a line of the instance, if it is important enough and the rates allow. Lines below
    /// the level don't count.
    pub fn write(&self, level: Level, stream: Stream, context: &str, text: &str) {
        {
            let mut gate = self.gate();
            let calls = self.0.counters.calls.load(Ordering::Relaxed);
            let is_error = stream == Stream::Stderr;
            if is_error {
                gate.remember(calls, is_error, text); // the report of a failure needs it, whatever the level
            }
            let bytes = text.len().min(LINE_BYTES_MAX) + context.len().min(CONTEXT_BYTES_MAX);
            if level < gate.level || !self.admits(&mut gate, bytes) {
                return;
            }
            if !is_error {
                gate.remember(calls, is_error, text);
            }
        }
        self.append(level, stream, context, text);
    }

    /// A line of the agent about one message or tick. The rates apply as to a line of the instance, because
    /// the guest decides how often that happens.
    pub fn about_message(&self, level: Level, text: &str) {
        let bytes = text.len().min(LINE_BYTES_MAX);
        if self.admits(&mut self.gate(), bytes) {
            self.agent(level, text);
        }
    }

    /// True when the rates allow a line of this many bytes. Before it goes a line that reports how many
    /// were kept out.
    fn admits(&self, gate: &mut Gate, bytes: usize) -> bool {
        if !gate.passes(bytes) {
            gate.kept_out += 1;
            count(&self.0.dropped);
            count(&self.0.counters.exceeded.log);
            return false;
        }
        if let Some(lines) = gate.take_kept_out() {
            self.report_kept_out(lines);
        }
        true
    }

    fn report_kept_out(&self, lines: u64) {
        let why = "more than `log_lines_per_second` or `log_bytes_per_second` allows";
        let name = self.0.name.clone();
        let line = gap(name, now_ms(), lines, GapCause::Rate, why);
        self.0.logs.append(line);
    }

    /// A line of the agent about the instance. Not limited: the agent writes few of them, and restarts
    /// are paced.
    pub fn agent(&self, level: Level, text: &str) {
        self.append(level, Stream::Agent, "", text);
    }

    fn append(&self, level: Level, stream: Stream, context: &str, text: &str) {
        self.0.logs.append(LogLine {
            name: self.0.name.clone(),
            sequence: 0,
            time_ms: now_ms(),
            level,
            stream,
            context: text::line(context, CONTEXT_BYTES_MAX),
            text: text::line(text, LINE_BYTES_MAX),
            gap: None,
        });
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.0.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// More bytes a second than the type holds are no limit.
fn bytes_per_second(spec: &Microservice) -> u32 {
    u32::try_from(spec.limits.log_bytes_per_second.0).unwrap_or(u32::MAX)
}

impl logging::Host for State {
    fn log(
        &mut self,
        level: logging::Level,
        context: String,
        message: String,
    ) -> wasmtime::Result<()> {
        let level = match level {
            logging::Level::Trace => Level::Trace,
            logging::Level::Debug => Level::Debug,
            logging::Level::Info => Level::Info,
            logging::Level::Warn => Level::Warn,
            logging::Level::Error => Level::Error,
            logging::Level::Critical => Level::Critical,
        };
        self.logger
            .write(level, Stream::Log, &context, message.trim_end_matches('\n'));
        Ok(())
    }
}

#[cfg(test)]
mod tests;
