//! The receiving side of a link: which messages to take, and what to acknowledge. A message is taken
//! when it follows what is there of its run ([`crate::runs`]); it is acknowledged when it is on the
//! disk.

use std::collections::BTreeMap;

use crate::frame::{Ack, Batch, STREAMS_MAX};
use crate::runs::{EPOCH_MAX, RUNS_MAX, Run};

/// What to do with a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Store its messages from this index on, then say [`stored`](Receiver::stored) or
    /// [`failed`](Receiver::failed) with the sequence of the last one.
    Take(usize),
    /// There is nothing new in it, or it can't be taken now. It is answered.
    Nothing,
    /// No stream of this route comes from that node, or its epoch is out of range.
    Refused,
}

/// What is known of one run of a stream.
#[derive(Debug)]
struct Line {
    epoch: u64,
    /// On the disk.
    stored: u64,
    /// On the disk, or on its way there.
    taken: u64,
    due: bool,
    resend: bool,
}

impl Line {
    fn new(epoch: u64, stored: u64) -> Self {
        Self {
            epoch,
            stored,
            taken: stored,
            due: false,
            resend: false,
        }
    }
}

#[derive(Debug)]
struct Stream {
    /// The most recently used last.
    lines: Vec<Line>,
    room: u64,
    /// The room that the sender was last told of.
    room_told: u64,
}

impl Stream {
    fn find(&mut self, epoch: u64) -> Option<&mut Line> {
        self.lines.iter_mut().find(|line| line.epoch == epoch)
    }

    /// The line of a batch that came: nothing up to `base` will be sent of a run that is not known.
    fn used(&mut self, epoch: u64, base: u64) -> &mut Line {
        let known = self.lines.iter().position(|line| line.epoch == epoch);
        let line = match known {
            Some(index) => self.lines.remove(index),
            None => Line::new(epoch, base),
        };
        if self.lines.len() >= RUNS_MAX {
            self.lines.remove(1);
        }
        self.lines.push(line);
        self.lines.last_mut().expect("it was just pushed")
    }
}

/// The receiving side of the link from one node.
#[derive(Debug, Default)]
pub struct Receiver {
    streams: BTreeMap<u64, Stream>,
}

impl Receiver {
    /// No streams yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a stream as the disk has it: its runs, the most recently used last. `room` is how many
    /// bytes it takes.
    pub fn open(&mut self, route: u64, runs: impl IntoIterator<Item = Run>, room: u64) {
        self.streams.entry(route).or_insert_with(|| Stream {
            lines: runs
                .into_iter()
                .map(|run| Line::new(run.epoch, run.upto))
                .collect(),
            room,
            room_told: room,
        });
    }

    /// Forgets a stream: its batches are refused from now on.
    pub fn close(&mut self, route: u64) {
        self.streams.remove(&route);
    }

    /// Judges a batch.
    pub fn batch(&mut self, batch: &Batch<'_>) -> Verdict {
        let Some(stream) = self.streams.get_mut(&batch.route) else {
            return Verdict::Refused;
        };
        if batch.epoch > EPOCH_MAX {
            return Verdict::Refused;
        }
        let room = stream.room;
        let line = stream.used(batch.epoch, batch.base);
        // What the sender will never send again is not waited for.
        line.taken = line.taken.max(batch.base);
        line.stored = line.stored.max(batch.base);
        line.due = true;
        if batch.after > line.taken {
            line.resend = true;
            return Verdict::Nothing;
        }
        let first = batch
            .messages
            .partition_point(|message| message.sequence <= line.taken);
        let Some(last) = batch.messages[first..].last() else {
            return Verdict::Nothing;
        };
        if room == 0 {
            return Verdict::Nothing;
        }
        line.taken = last.sequence;
        line.due = false; // when it is on the disk
        Verdict::Take(first)
    }

    /// The messages of a batch up to `upto` are on the disk.
    pub fn stored(&mut self, route: u64, epoch: u64, upto: u64) {
        if let Some(line) = self.find(route, epoch) {
            line.stored = line.stored.max(upto);
            line.due = true;
        }
    }

    /// Messages that were taken could not be stored: they are asked for again, when there is room.
    pub fn failed(&mut self, route: u64, epoch: u64) {
        if let Some(line) = self.find(route, epoch) {
            line.taken = line.stored;
            line.due = true;
            line.resend = true;
        }
    }

    /// How many bytes the stream takes from now on. The sender is told when there is room again, or
    /// twice as much as it knows of.
    pub fn set_room(&mut self, route: u64, room: u64) {
        if let Some(stream) = self.streams.get_mut(&route) {
            stream.room = room;
            if (room / 2 > stream.room_told || (room > 0 && stream.room_told == 0))
                && let Some(line) = stream.lines.last_mut()
            {
                line.due = true;
            }
        }
    }

    /// The node at the other end has begun anew, or the way to it: tell it everything of the run that
    /// was used last.
    pub fn connected(&mut self) {
        for stream in self.streams.values_mut() {
            if let Some(line) = stream.lines.last_mut() {
                line.due = true;
            }
        }
    }

    /// What to acknowledge now.
    pub fn acks(&mut self) -> Vec<Ack> {
        let mut acks = Vec::new();
        for (route, stream) in &mut self.streams {
            for line in stream.lines.iter_mut().filter(|line| line.due) {
                if acks.len() == STREAMS_MAX {
                    return acks;
                }
                line.due = false;
                stream.room_told = stream.room;
                acks.push(Ack {
                    route: *route,
                    epoch: line.epoch,
                    stored: line.stored,
                    room: stream.room,
                    resend: std::mem::take(&mut line.resend),
                });
            }
        }
        acks
    }

    fn find(&mut self, route: u64, epoch: u64) -> Option<&mut Line> {
        self.streams.get_mut(&route)?.find(epoch)
    }
}
