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

/// Between two lines that say how many were kept out.
const GAP_PAUSE: Duration = Duration::from_secs(1);

/// Lines that are kept for the report of a failure.
const LAST_LINES_MAX: usize = 10;
/// Bytes that are kept of each of them.
const LAST_LINE_BYTES_MAX: usize = 512;
/// Lines of standard error that tell why a guest gave up, where it does not say so itself.
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
    /// Lines that were kept out since the last time that a line said so.
    kept_out: u64,
    /// When that was.
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
    /// How many lines were kept out, when it is time to say so.
    fn say_kept_out(&mut self) -> Option<u64> {
        let is_due = self.said.is_none_or(|said| said.elapsed() >= GAP_PAUSE);
        if self.kept_out == 0 || !is_due {
            return None;
        }
        self.said = Some(Instant::now());
        Some(std::mem::take(&mut self.kept_out))
    }

    /// True when the rates allow a line of so many bytes.
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
    /// A logger of a microservice, with its level and limits. What they keep out is counted in
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
    /// first. At most 10, long ones cut. Without those that the level or the limits kept out, but with
    /// all of standard error.
    pub fn last_lines(&self) -> Vec<String> {
        let gate = self.gate();
        gate.last.iter().map(|line| line.text.clone()).collect()
    }

    /// What the instance wrote to standard error in the call that has just failed: a panic from its
    /// first line on, of anything else the last lines. One line, cut; empty when it wrote nothing.
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
                gate.remember(calls, is_error, text); // a panic is told whatever is logged
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

    /// The agent says something about one message or tick: within the rates, as if the instance had said
    /// it, because a guest decides how often.
    pub fn about_message(&self, level: Level, text: &str) {
        let bytes = text.len().min(LINE_BYTES_MAX);
        if self.admits(&mut self.gate(), bytes) {
            self.agent(level, text);
        }
    }

    /// Whether the rates allow a line of so many bytes. Says in its place what they kept out before.
    fn admits(&self, gate: &mut Gate, bytes: usize) -> bool {
        if !gate.passes(bytes) {
            gate.kept_out += 1;
            count(&self.0.dropped);
            count(&self.0.counters.exceeded.log);
            return false;
        }
        if let Some(lines) = gate.say_kept_out() {
            let why = "more than `log_lines_per_second` or `log_bytes_per_second` allows";
            let name = self.0.name.clone();
            let line = gap(name, now_ms(), lines, GapCause::Rate, why);
            self.0.logs.append(line);
        }
        true
    }

    /// The agent says something about the instance; not limited, because the agent is the one
    /// who speaks and restarts are paced.
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
mod tests {
    use super::*;

    /// A logger of a microservice, and the ring that its lines go to.
    fn logger(change: impl FnOnce(&mut Microservice)) -> (Logger, Arc<Logs>, Arc<Counters>) {
        let (logs, counters) = (Arc::<Logs>::default(), Arc::<Counters>::default());
        let logger = Logger::new(&spec(change), Arc::clone(&logs), Arc::clone(&counters));
        (logger, logs, counters)
    }

    fn spec(change: impl FnOnce(&mut Microservice)) -> Microservice {
        let json = serde_json::json!({
            "application": "app",
            "microservice": "m",
            "module": haar_protocol::ids::Digest::of(b"m"),
            "module_bytes": 1,
            "module_label": "m@1",
            "limits": {},
            "grants": {},
            "configuration": {},
            "outlets": {},
            "inlets": {},
        });
        let mut spec: Microservice = serde_json::from_value(json).unwrap();
        change(&mut spec);
        spec
    }

    fn taken(logs: &Logs) -> Vec<String> {
        let lines = logs.take(usize::MAX, usize::MAX);
        lines.into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn lines_below_the_level_are_not_taken_and_use_up_no_rate() {
        let (logger, logs, counters) = logger(|spec| {
            spec.log_level = Level::Warn;
            spec.limits.log_lines_per_second = 1;
        });
        for _ in 0..10 {
            logger.write(Level::Info, Stream::Stdout, "", "quiet");
        }
        logger.write(Level::Warn, Stream::Stderr, "", "loud");
        assert_eq!(taken(&logs), ["loud"]);
        assert_eq!(logger.dropped(), 0);
        assert_eq!(counters.exceeded.snapshot().log, 0);
    }

    #[test]
    fn the_level_changes_with_the_next_line() {
        let (logger, logs, _) = logger(|_| {});
        logger.write(Level::Debug, Stream::Log, "", "one");
        logger.follow(&spec(|spec| spec.log_level = Level::Debug));
        logger.write(Level::Debug, Stream::Log, "", "two");
        logger.follow(&spec(|spec| spec.log_level = Level::Critical));
        logger.write(Level::Error, Stream::Log, "", "three");
        assert_eq!(taken(&logs), ["two"]);
    }

    #[test]
    fn more_bytes_than_allowed_are_dropped_and_counted_by_whole_lines() {
        let (logger, logs, counters) = logger(|spec| {
            spec.limits.log_bytes_per_second = haar_protocol::quantity::ByteSize(1_000);
        });
        logger.write(Level::Info, Stream::Log, "", &"a".repeat(600));
        logger.write(Level::Info, Stream::Log, "", &"b".repeat(2_000));
        logger.write(Level::Info, Stream::Log, "c", &"c".repeat(399));
        let lines = taken(&logs);
        assert_eq!((lines[0].len(), lines[2].len()), (600, 399));
        let gap = "lines are missing here, 1: more than `log_lines_per_second` or `log_bytes_per_second` allows";
        assert_eq!(lines[1], gap);
        logger.write(Level::Info, Stream::Log, "", &"d".repeat(2_000));
        logger.write(Level::Info, Stream::Log, "", "");
        assert_eq!(taken(&logs), [""], "said once in a second");
        assert_eq!((logger.dropped(), counters.exceeded.snapshot().log), (2, 2));
    }

    #[test]
    fn the_last_words_are_those_of_standard_error_in_the_call_that_failed() {
        let (logger, logs, counters) = logger(|spec| {
            spec.log_level = Level::Critical;
            spec.limits.log_lines_per_second = 1;
        });
        let say = |text: &str| logger.write(Level::Warn, Stream::Stderr, "", text);
        assert_eq!(logger.last_words(), "");
        say("a warning of the call before");
        counters.calls.fetch_add(1, Ordering::Relaxed);
        logger.write(Level::Info, Stream::Stdout, "", "all is well");
        say("");
        say("thread '<unnamed>' (1) panicked at src/lib.rs:3:5:");
        say("no reading");
        say("in this message");
        say("note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace");
        counters.calls.fetch_add(1, Ordering::Relaxed);
        assert_eq!(
            logger.last_words(),
            "thread '<unnamed>' (1) panicked at src/lib.rs:3:5: no reading in this message"
        );
        counters.calls.fetch_add(1, Ordering::Relaxed);
        assert_eq!(logger.last_words(), "");
        logger.begin_instance();
        for index in 0..5 {
            say(&format!("line {index}"));
        }
        assert_eq!(logger.last_words(), "line 2 line 3 line 4");
        say(&"x".repeat(10_000));
        assert!(logger.last_words().len() <= LAST_LINE_BYTES_MAX + '…'.len_utf8());
        assert_eq!(taken(&logs), Vec::<String>::new());
    }

    #[test]
    fn what_the_agent_says_of_single_messages_keeps_to_the_rates_whatever_the_level() {
        let (logger, logs, _) = logger(|spec| {
            spec.log_level = Level::Critical;
            spec.limits.log_lines_per_second = 2;
        });
        for number in 0..5 {
            logger.about_message(Level::Warn, &format!("message {number}"));
        }
        logger.agent(Level::Warn, "always");
        assert_eq!(taken(&logs), ["message 0", "message 1", "always"]);
        assert_eq!(logger.dropped(), 3);
    }

    #[test]
    fn the_last_lines_are_those_of_one_instance_and_bounded() {
        let (logger, _, _) = logger(|_| {});
        for index in 0..15 {
            logger.write(Level::Info, Stream::Log, "", &format!("line {index}"));
        }
        logger.agent(Level::Error, "the agent's own words");
        let last = logger.last_lines();
        assert_eq!(last.len(), LAST_LINES_MAX);
        assert_eq!((last[0].as_str(), last[9].as_str()), ("line 5", "line 14"));
        logger.begin_instance();
        logger.write(Level::Info, Stream::Stdout, "", &"x".repeat(100_000));
        let last = logger.last_lines();
        assert_eq!(last.len(), 1);
        assert!(last[0].len() < LAST_LINE_BYTES_MAX + 4, "{}", last[0].len());
    }
}
