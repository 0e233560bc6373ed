//! Log lines of the node's microservices: a bounded ring that guests write to and the shipper
//! reads from. When the shipper can't keep up, or there is no network, the oldest lines are dropped, and a
//! line in their place says how many. Lines are numbered when they leave, so that the site sees which ones
//! did not arrive.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;

use haar_protocol::assignment::MicroserviceName;
use haar_protocol::log::{GapCause, Level, LogGap, LogLine, Stream};
use tokio::sync::Notify;

/// Lines that the ring holds.
const LINES_MAX: usize = 4_096;
/// Bytes that the ring holds, counted roughly.
const BYTES_MAX: usize = 1 << 20;
/// Bytes that a line costs beside its text.
const LINE_BYTES: usize = 160;

/// The ring.
#[derive(Debug, Default)]
pub struct Logs {
    /// Taken by whoever writes a line, and by the shipper for a batch.
    ring: Mutex<Ring>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Ring {
    lines: VecDeque<LogLine>,
    bytes: usize,
    last_sequence: u64,
    /// How many lines were dropped in front of the oldest one that waits.
    lost: BTreeMap<MicroserviceName, u64>,
}

impl Ring {
    fn pop(&mut self) -> Option<LogLine> {
        let line = self.lines.pop_front()?;
        self.bytes -= line.text.len() + LINE_BYTES;
        Some(line)
    }

    fn lose(&mut self, line: LogLine) {
        let lines = line.gap.and_then(|gap| gap.lines).unwrap_or(1);
        *self.lost.entry(line.name).or_default() += lines;
    }

    /// The next line to send.
    fn next(&mut self) -> Option<LogLine> {
        let Some((name, lines)) = self.lost.pop_first() else {
            return self.pop();
        };
        let time_ms = self.lines.front().map_or(0, |line| line.time_ms);
        let why = "they waited for the site, and the node's buffer was full";
        Some(gap(name, time_ms, lines, GapCause::Buffer, why))
    }
}

/// A line that stands for lines that are missing.
pub fn gap(
    name: MicroserviceName,
    time_ms: u64,
    lines: u64,
    cause: GapCause,
    why: &str,
) -> LogLine {
    LogLine {
        name,
        sequence: 0,
        time_ms,
        level: Level::Warn,
        stream: Stream::Agent,
        context: String::new(),
        text: format!("lines are missing here, {lines}: {why}"),
        gap: Some(LogGap {
            lines: Some(lines),
            cause,
        }),
    }
}

impl Logs {
    /// Appends a line.
    pub fn append(&self, line: LogLine) {
        {
            let mut ring = self.lock();
            ring.bytes += line.text.len() + LINE_BYTES;
            ring.lines.push_back(line);
            while ring.lines.len() > LINES_MAX || ring.bytes > BYTES_MAX {
                let Some(oldest) = ring.pop() else {
                    break;
                };
                ring.lose(oldest);
            }
        }
        self.arrived.notify_one();
    }

    /// Waits until there may be lines to ship.
    pub async fn wait(&self) {
        loop {
            let arrived = self.arrived.notified();
            if !self.lock().lines.is_empty() {
                return;
            }
            arrived.await;
        }
    }

    /// Takes the oldest lines, at most `lines_max` and about `bytes_max`, and numbers them.
    pub fn take(&self, lines_max: usize, bytes_max: usize) -> Vec<LogLine> {
        let mut ring = self.lock();
        let mut taken = Vec::new();
        let mut bytes = 0;
        while taken.len() < lines_max && bytes < bytes_max {
            let Some(mut line) = ring.next() else {
                break;
            };
            ring.last_sequence += 1;
            line.sequence = ring.last_sequence;
            bytes += line.text.len() + LINE_BYTES;
            taken.push(line);
        }
        taken
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Ring> {
        self.ring
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(microservice: &str, text: &str) -> LogLine {
        let name = MicroserviceName {
            application: "app".parse().unwrap(),
            microservice: microservice.parse().unwrap(),
        };
        LogLine {
            level: Level::Info,
            stream: Stream::Log,
            text: text.to_owned(),
            gap: None,
            ..gap(name, 7, 0, GapCause::Buffer, "")
        }
    }

    #[test]
    fn what_had_to_go_is_told_in_its_place_for_each_microservice_and_numbers_have_no_gap() {
        let logs = Logs::default();
        logs.append(line("quiet", "first"));
        for index in 0..2 * LINES_MAX {
            logs.append(line("loud", &index.to_string()));
        }
        let taken = logs.take(usize::MAX, usize::MAX);
        let gaps = taken.iter().map_while(|line| {
            let lines = line.gap?.lines?;
            Some((line.name.microservice.as_str(), lines, line.sequence))
        });
        let gaps: Vec<_> = gaps.collect();
        assert_eq!(gaps, [("loud", LINES_MAX as u64, 1), ("quiet", 1, 2)]);
        assert_eq!(
            taken[0].text,
            "lines are missing here, 4096: they waited for the site, and the node's buffer was full"
        );
        assert_eq!(taken[2].text, LINES_MAX.to_string());
        assert_eq!(taken.len(), LINES_MAX + 2);
        assert!(
            (1..)
                .zip(&taken)
                .all(|(number, line)| line.sequence == number)
        );
        logs.append(line("loud", "next"));
        let next = logs.take(usize::MAX, usize::MAX);
        assert_eq!(
            (next.len(), next[0].sequence),
            (1, 2 + LINES_MAX as u64 + 1)
        );
    }

    #[test]
    fn a_gap_that_has_to_go_counts_on() {
        let logs = Logs::default();
        let name = line("m", "").name;
        logs.append(gap(name, 1, 50, GapCause::Rate, "too fast"));
        for _ in 0..LINES_MAX {
            logs.append(line("m", ""));
        }
        let taken = logs.take(1, usize::MAX);
        assert_eq!(taken[0].gap.unwrap().lines, Some(50));
    }
}
