//! The receiving side of a link: which messages to take, and what to acknowledge. A message is taken
//! when it follows what is there; it is acknowledged when it is on the disk.

use std::collections::BTreeMap;

use crate::frame::{Ack, Batch, STREAMS_MAX};

/// What to do with a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Store its messages from this index on, then say [`stored`](Receiver::stored) or
    /// [`failed`](Receiver::failed) with the sequence of the last one.
    Take(usize),
    /// There is nothing new in it, or it can't be taken now. It is answered.
    Nothing,
    /// No stream of this route comes from that node, or its log is older than one that was seen.
    Refused,
}

#[derive(Debug)]
struct Stream {
    epoch: u64,
    /// On the disk.
    stored: u64,
    /// On the disk, or on its way there.
    taken: u64,
    room: u64,
    /// The room that the sender was last told of.
    room_told: u64,
    due: bool,
    resend: bool,
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

    /// Adds a stream as the disk has it: the epoch and the last sequence, both zero when there was
    /// none. `room` is how many bytes it takes.
    pub fn open(&mut self, route: u64, epoch: u64, stored: u64, room: u64) {
        self.streams.entry(route).or_insert(Stream {
            epoch,
            stored,
            taken: stored,
            room,
            room_told: room,
            due: false,
            resend: false,
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
        if batch.epoch < stream.epoch {
            return Verdict::Refused;
        }
        if batch.epoch > stream.epoch {
            stream.epoch = batch.epoch;
            stream.stored = batch.base;
            stream.taken = batch.base;
        }
        // What the sender will never send again is not waited for.
        stream.taken = stream.taken.max(batch.base);
        if stream.stored < batch.base {
            stream.stored = batch.base;
        }
        stream.due = true;
        if batch.after > stream.taken {
            stream.resend = true;
            return Verdict::Nothing;
        }
        let first = batch
            .messages
            .partition_point(|message| message.sequence <= stream.taken);
        let Some(last) = batch.messages[first..].last() else {
            return Verdict::Nothing;
        };
        if stream.room == 0 {
            return Verdict::Nothing;
        }
        stream.taken = last.sequence;
        stream.due = false; // when it is on the disk
        Verdict::Take(first)
    }

    /// The messages of a batch up to `upto` are on the disk.
    pub fn stored(&mut self, route: u64, epoch: u64, upto: u64) {
        if let Some(stream) = self.streams.get_mut(&route)
            && stream.epoch == epoch
        {
            stream.stored = stream.stored.max(upto);
            stream.due = true;
        }
    }

    /// Messages that were taken could not be stored: they are asked for again, when there is room.
    pub fn failed(&mut self, route: u64, epoch: u64) {
        if let Some(stream) = self.streams.get_mut(&route)
            && stream.epoch == epoch
        {
            stream.taken = stream.stored;
            stream.due = true;
            stream.resend = true;
        }
    }

    /// How many bytes the stream takes from now on. The sender is told when there is room again, or
    /// twice as much as it knows of.
    pub fn set_room(&mut self, route: u64, room: u64) {
        if let Some(stream) = self.streams.get_mut(&route) {
            stream.room = room;
            if room / 2 > stream.room_told || (room > 0 && stream.room_told == 0) {
                stream.due = true;
            }
        }
    }

    /// The node at the other end has begun anew, or the way to it: tell it everything.
    pub fn connected(&mut self) {
        for stream in self.streams.values_mut() {
            stream.due = stream.epoch > 0;
        }
    }

    /// What to acknowledge now.
    pub fn acks(&mut self) -> Vec<Ack> {
        let due = self.streams.iter_mut().filter(|(_, stream)| stream.due);
        due.take(STREAMS_MAX)
            .map(|(route, stream)| {
                stream.due = false;
                stream.room_told = stream.room;
                Ack {
                    route: *route,
                    epoch: stream.epoch,
                    stored: stream.stored,
                    room: stream.room,
                    resend: std::mem::take(&mut stream.resend),
                }
            })
            .collect()
    }
}
