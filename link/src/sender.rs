//! The sending side of a link: which stream to read next, from where, and when to send again.
//!
//! Cumulative acknowledgements and go-back-N: the receiver takes what follows what it has, and
//! nothing else, so order needs no buffer on its side. What is not acknowledged in time is sent again
//! from the last acknowledgement, first in one batch, then at full speed when that was answered.
//!
//! A batch and an acknowledgement speak of one run of the log ([`crate::runs`]); the next run begins
//! when all of the one before it is acknowledged, so the order holds over runs too.

mod stream;

use std::collections::BTreeMap;

use crate::frame::Ack;
use crate::runs::Run;
use stream::Stream;

/// How a link behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// The first pause before what is not acknowledged is sent again; it doubles each time.
    pub resend_ms_min: u64,
    /// The longest one.
    pub resend_ms_max: u64,
    /// Bytes of messages in one batch, unless one message alone is larger.
    pub batch_bytes: u64,
    /// Bytes of messages of one stream that are sent and not acknowledged, at most.
    pub in_flight_bytes: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            resend_ms_min: 500,
            resend_ms_max: 30_000,
            batch_bytes: 128 << 10,
            in_flight_bytes: 1 << 20,
        }
    }
}

/// What is to be read from the log and sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Want {
    /// The stream.
    pub route: u64,
    /// For the batch.
    pub epoch: u64,
    /// For the batch.
    pub base: u64,
    /// For the batch: the last message that was sent. What the log had after it and did not send is
    /// not waited for.
    pub after: u64,
    /// Messages with larger sequences are wanted, from the smallest up.
    pub from: u64,
    /// Messages with larger sequences than this are of the next run, and not wanted.
    pub upto: u64,
    /// So many bytes of them; the first one is sent whatever its size. Zero: a batch of no message,
    /// to be answered.
    pub bytes: u64,
}

/// What an acknowledgement did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acknowledged {
    /// Nothing new.
    Nothing,
    /// Everything up to here is with the receiver: the log may forget it.
    Upto(u64),
    /// The receiver has what this run never had: the agent's memory is an older copy of itself, and
    /// the log must begin another run.
    Beyond,
}

/// The sending side of the link to one node.
#[derive(Debug)]
pub struct Sender {
    settings: Settings,
    connected: bool,
    streams: BTreeMap<u64, Stream>,
    /// The stream that was served last: the next one of its priority comes first.
    last: u64,
}

impl Sender {
    /// No streams yet, and no connection.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            connected: false,
            streams: BTreeMap::new(),
            last: 0,
        }
    }

    /// Bytes of messages in one batch; see [`Settings`].
    pub fn batch_bytes(&self) -> u64 {
        self.settings.batch_bytes
    }

    /// Adds a stream as the log has it, or changes its priority. `runs` are those of the log in their
    /// order; the last one goes on.
    pub fn open(&mut self, route: u64, runs: &[Run], base: u64, head: u64, priority: u8) {
        if let Some(stream) = self.streams.get_mut(&route)
            && stream.runs.back().map(|run| run.epoch) == runs.last().map(|run| run.epoch)
        {
            stream.priority = priority;
            stream.head = stream.head.max(head);
            return;
        }
        let mut stream = Stream::new(runs, base, head, priority, self.settings.batch_bytes);
        stream.follow_runs();
        self.streams.insert(route, stream);
    }

    /// Forgets a stream: nothing of it is sent any more.
    pub fn close(&mut self, route: u64) {
        self.streams.remove(&route);
    }

    /// The log has more: up to `head`.
    pub fn stored(&mut self, route: u64, head: u64) {
        if let Some(stream) = self.streams.get_mut(&route) {
            stream.head = stream.head.max(head);
        }
    }

    /// There is a way to the node, or there is none, or the node at its other end has begun anew:
    /// everything that is not acknowledged is sent again.
    pub fn connected(&mut self, connected: bool) {
        self.connected = connected;
        for stream in self.streams.values_mut() {
            stream.go_back();
            stream.failures = u32::from(connected);
            stream.resend_ms = None;
            stream.went_back_to = None;
            stream.room = stream.room.max(self.settings.batch_bytes);
            stream.ask = false;
        }
    }

    /// What to send next; none when there is nothing to send now. Answer with [`sent`](Self::sent).
    pub fn next(&mut self, now_ms: u64) -> Option<Want> {
        if !self.connected {
            return None;
        }
        self.time_out(now_ms);
        let settings = self.settings;
        let route = self
            .streams
            .iter()
            .filter(|(_, stream)| stream.ask || stream.budget(&settings) > 0)
            .min_by_key(|(route, stream)| (255 - stream.priority, **route <= self.last, **route))
            .map(|(route, _)| *route)?;
        self.last = route;
        let stream = self.streams.get_mut(&route)?;
        let bytes = stream.budget(&settings);
        Some(Want {
            route,
            epoch: stream.epoch(),
            base: stream.base,
            after: stream
                .in_flight
                .back()
                .map_or(stream.base, |(last, _)| *last),
            from: stream.sent,
            upto: stream.end(),
            bytes,
        })
    }

    /// What was sent for `want`: sequence and bytes of each message, and how far the log was read.
    /// Returns how far the log may forget where what was read had no message to send.
    pub fn sent(
        &mut self,
        want: &Want,
        messages: &[(u64, u64)],
        read_to: u64,
        now_ms: u64,
    ) -> Option<u64> {
        let settings = self.settings;
        let stream = self.streams.get_mut(&want.route)?;
        if stream.epoch() != want.epoch || stream.sent != want.from {
            return None; // it has gone back meanwhile
        }
        stream.ask = false;
        if want.bytes == 0 {
            stream.resend_ms = Some(now_ms + stream.pause_ms(&settings));
            return None;
        }
        // The log may have more than the link was told of: what is acknowledged of it is nothing odd.
        stream.head = stream.head.max(read_to);
        stream.sent = read_to.min(want.upto).max(stream.sent);
        stream.in_flight.extend(messages);
        stream.in_flight_bytes += messages.iter().map(|(_, bytes)| bytes).sum::<u64>();
        if stream.in_flight.is_empty() {
            let moved = stream.sent > stream.base;
            stream.base = stream.sent;
            stream.follow_runs();
            return moved.then_some(stream.base);
        }
        if stream.resend_ms.is_none() {
            stream.resend_ms = Some(now_ms + stream.pause_ms(&settings));
        }
        None
    }

    /// The receiver says what it has.
    pub fn acknowledged(&mut self, ack: &Ack, now_ms: u64) -> Acknowledged {
        let settings = self.settings;
        let Some(stream) = self.streams.get_mut(&ack.route) else {
            return Acknowledged::Nothing;
        };
        // A copy of this node may have sent more of a run that has ended here.
        let stored = ack.stored.min(stream.end());
        if ack.epoch != stream.epoch() || stored < stream.base {
            return Acknowledged::Nothing; // an old one
        }
        if stored > stream.head {
            return Acknowledged::Beyond;
        }
        let progress = stored > stream.base;
        stream.land(stored);
        stream.base = stored;
        stream.sent = stream.sent.max(stored);
        if stream.in_flight.is_empty() {
            // What follows in the log up to there had nothing to send.
            stream.base = stream.sent;
        }
        stream.room = ack.room;
        if progress {
            stream.failures = 0;
            stream.went_back_to = None;
        }
        if ack.resend && stream.went_back_to != Some(stream.base) {
            stream.went_back_to = Some(stream.base);
            stream.go_back();
        }
        stream.resend_ms = match stream.in_flight.is_empty() {
            // A receiver that is full is asked now and then: its word that it has room again may
            // be lost.
            true if stream.room == 0 && stream.has_more() => {
                Some(now_ms + stream.pause_ms(&settings))
            }
            true => None,
            false if progress => Some(now_ms + stream.pause_ms(&settings)),
            false => stream.resend_ms,
        };
        let base = stream.base;
        stream.follow_runs();
        if progress {
            Acknowledged::Upto(base)
        } else {
            Acknowledged::Nothing
        }
    }

    /// Nothing up to `base` is to be sent any more: it expired, or made room for newer messages.
    pub fn skip(&mut self, route: u64, base: u64) {
        let Some(stream) = self.streams.get_mut(&route) else {
            return;
        };
        if base > stream.base {
            stream.base = base;
            stream.sent = stream.sent.max(base);
            stream.land(base);
            // A receiver that is full is still to be asked.
            if stream.in_flight.is_empty() && stream.room > 0 {
                stream.resend_ms = None;
            }
            stream.follow_runs();
        }
    }

    /// True while something was sent that is not acknowledged.
    pub fn is_waiting(&self) -> bool {
        let mut streams = self.streams.values();
        self.connected && streams.any(|stream| !stream.in_flight.is_empty())
    }

    /// True when nothing has happened to the stream since it asked for `want`: what was read for it
    /// may be sent.
    pub fn is_current(&self, want: &Want) -> bool {
        let stream = self.streams.get(&want.route);
        self.connected
            && stream.is_some_and(|stream| stream.epoch() == want.epoch && stream.sent == want.from)
    }

    /// When [`next`](Self::next) has something to do although nothing has happened.
    pub fn wake_ms(&self) -> Option<u64> {
        let streams = self.streams.values().filter(|_| self.connected);
        streams.filter_map(|stream| stream.resend_ms).min()
    }

    fn time_out(&mut self, now_ms: u64) {
        for stream in self.streams.values_mut() {
            if stream.resend_ms.is_none_or(|due| due > now_ms) {
                continue;
            }
            stream.resend_ms = None;
            stream.failures = stream.failures.saturating_add(1);
            if stream.room == 0 {
                stream.ask = true;
            } else {
                stream.go_back();
            }
        }
    }
}
