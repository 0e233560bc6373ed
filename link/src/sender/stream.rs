//! What the sending side knows of one stream: which run of the log it sends, what is in flight, and
//! when to send again. [`super::Sender`] decides by it.

use std::collections::VecDeque;

use super::Settings;
use crate::runs::Run;

#[derive(Debug)]
pub(super) struct Stream {
    /// The runs that are not acknowledged as a whole, in their order; one at least. The last one goes
    /// on, whatever it says.
    pub(super) runs: VecDeque<Run>,
    pub(super) priority: u8,
    /// The last sequence in the log.
    pub(super) head: u64,
    /// Acknowledged, or not to be sent any more.
    pub(super) base: u64,
    /// Handed to the network, since it last went back.
    pub(super) sent: u64,
    /// Sent and not acknowledged: sequence and bytes.
    pub(super) in_flight: VecDeque<(u64, u64)>,
    pub(super) in_flight_bytes: u64,
    /// Bytes that the receiver takes beyond `base`.
    pub(super) room: u64,
    /// When to send again from `base`, or to ask.
    pub(super) resend_ms: Option<u64>,
    /// Times in a row that nothing came back.
    pub(super) failures: u32,
    /// It has gone back to this base already for a receiver that misses something.
    pub(super) went_back_to: Option<u64>,
    /// A batch without messages is due.
    pub(super) ask: bool,
}

impl Stream {
    pub(super) fn new(runs: &[Run], base: u64, head: u64, priority: u8, room: u64) -> Self {
        Self {
            runs: runs.iter().copied().collect(),
            priority,
            head,
            base,
            sent: base,
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            room,
            resend_ms: None,
            failures: 0,
            went_back_to: None,
            ask: false,
        }
    }

    pub(super) fn go_back(&mut self) {
        self.sent = self.base;
        self.in_flight.clear();
        self.in_flight_bytes = 0;
    }

    /// Nothing up to `base` is in flight any more.
    pub(super) fn land(&mut self, base: u64) {
        while let Some((sequence, bytes)) = self.in_flight.front() {
            if *sequence > base {
                break;
            }
            self.in_flight_bytes -= bytes;
            self.in_flight.pop_front();
        }
    }

    pub(super) fn has_more(&self) -> bool {
        self.sent < self.head.min(self.end())
    }

    /// The run that is being sent.
    pub(super) fn epoch(&self) -> u64 {
        self.runs.front().map_or(0, |run| run.epoch)
    }

    /// Where that run ends.
    pub(super) fn end(&self) -> u64 {
        match self.runs.front() {
            Some(run) if self.runs.len() > 1 => run.upto,
            _ => u64::MAX,
        }
    }

    /// Goes on to the next run where all of one is acknowledged, or not to be sent any more.
    pub(super) fn follow_runs(&mut self) {
        while self.base >= self.end() {
            self.runs.pop_front();
            self.go_back();
            self.went_back_to = None;
            self.resend_ms = None;
            // Its word that it has room may speak of the run before.
            self.ask = self.room == 0 && self.has_more();
        }
    }

    /// Bytes that may be sent of the stream now.
    pub(super) fn budget(&self, settings: &Settings) -> u64 {
        if !self.has_more() {
            return 0;
        }
        let window = match self.failures {
            0 => self.room.min(settings.in_flight_bytes),
            // Nobody may be listening: one batch, until it is answered.
            _ => self.room.min(settings.batch_bytes),
        };
        window
            .saturating_sub(self.in_flight_bytes)
            .min(settings.batch_bytes)
    }

    /// How long to wait for an answer.
    pub(super) fn pause_ms(&self, settings: &Settings) -> u64 {
        let doubled = settings
            .resend_ms_min
            .saturating_mul(1 << self.failures.saturating_sub(1).min(16));
        doubled.min(settings.resend_ms_max)
    }
}
