//! Log lines of the node's microservices: a bounded ring that guests write to and the shipper
//! reads from. When the shipper can't keep up, or there is no network, the oldest lines go; their
//! sequence numbers show the gap.

use std::collections::VecDeque;
use std::sync::Mutex;

use haar_protocol::log::LogLine;
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
}

impl Logs {
    /// Numbers a line and puts it in.
    pub fn append(&self, mut line: LogLine) {
        {
            let mut ring = self.lock();
            ring.last_sequence += 1;
            line.sequence = ring.last_sequence;
            ring.bytes += line.text.len() + LINE_BYTES;
            ring.lines.push_back(line);
            while ring.lines.len() > LINES_MAX || ring.bytes > BYTES_MAX {
                let Some(oldest) = ring.lines.pop_front() else {
                    break;
                };
                ring.bytes -= oldest.text.len() + LINE_BYTES;
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

    /// Takes the oldest lines, at most so many and about so many bytes.
    pub fn take(&self, lines_max: usize, bytes_max: usize) -> Vec<LogLine> {
        let mut ring = self.lock();
        let mut taken = Vec::new();
        let mut bytes = 0;
        while taken.len() < lines_max && bytes < bytes_max {
            let Some(line) = ring.lines.pop_front() else {
                break;
            };
            ring.bytes -= line.text.len() + LINE_BYTES;
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
