//! `wasi:logging`, and the one door through which all lines of an instance pass: rate, length and
//! characters are bounded here, whatever the stream.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use haar_protocol::assignment::MicroserviceName;
use haar_protocol::log::{Level, LogLine, Stream};

use super::bindings::imports::wasi::logging::logging;
use super::state::{State, now_ms};
use crate::logs::Logs;
use crate::runtime::rate::Rate;

/// The longest line in bytes; what is over is cut and marked.
const LINE_BYTES_MAX: usize = 4_096;
/// The longest context in bytes.
const CONTEXT_BYTES_MAX: usize = 128;

/// Writes log lines of one instance. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Logger(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: MicroserviceName,
    logs: Arc<Logs>,
    /// Taken by the instance's own calls, and by the agent when it speaks about the instance.
    rate: Mutex<Rate>,
    lines_per_second: AtomicU64,
    dropped: AtomicU64,
}

impl Logger {
    /// A logger of `name` that lets so many lines a second pass.
    pub fn new(name: MicroserviceName, logs: Arc<Logs>, lines_per_second: u32) -> Self {
        Self(Arc::new(Inner {
            name,
            logs,
            rate: Mutex::default(),
            lines_per_second: AtomicU64::new(lines_per_second.into()),
            dropped: AtomicU64::new(0),
        }))
    }

    /// Changes the limit.
    pub fn set_limit(&self, lines_per_second: u32) {
        self.0
            .lines_per_second
            .store(lines_per_second.into(), Ordering::Relaxed);
    }

    /// Lines dropped by the limit.
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }

    /// Writes a line of the instance, if its rate allows.
    pub fn write(&self, level: Level, stream: Stream, context: &str, text: &str) {
        let limit =
            u32::try_from(self.0.lines_per_second.load(Ordering::Relaxed)).unwrap_or(u32::MAX);
        let allowed = self
            .0
            .rate
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .take(limit);
        if allowed.is_err() {
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.append(level, stream, context, text);
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
            context: clean(context, CONTEXT_BYTES_MAX),
            text: clean(text, LINE_BYTES_MAX),
        });
    }
}

/// Cuts a text to `most` bytes at a character's border, and replaces control characters, which
/// would let a guest write to the terminal of whoever reads its log.
fn clean(text: &str, most: usize) -> String {
    let mut cut = text.len().min(most);
    while !text.is_char_boundary(cut) {
        cut -= 1;
    }
    let mut cleaned: String = text[..cut]
        .chars()
        .map(|c| {
            if c.is_control() && c != '\t' {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect();
    if cut < text.len() {
        cleaned.push('…');
    }
    cleaned
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

    #[test]
    fn a_long_line_is_cut_at_a_character_and_marked() {
        let line = "ä".repeat(LINE_BYTES_MAX);
        let cleaned = clean(&line, 5);
        assert_eq!(cleaned, "ää…");
    }

    #[test]
    fn control_characters_do_not_reach_a_terminal() {
        assert_eq!(clean("a\u{1b}[2Jb\tc", 100), "a\u{fffd}[2Jb\tc");
    }
}
