//! What the store's thread knows of logs without asking the disk: how far each is, who wants its
//! messages, and where those stand that are in batches. No I/O; [`super::batches`] makes it at the
//! start, and again when a change could not be kept.

use std::collections::{BTreeMap, VecDeque};

use anyhow::ensure;
use haar_link::runs::{Run, Runs};

use super::{Consumer, LogId};

/// Where a message stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) batch: u64,
    /// Where it begins there.
    pub(super) offset: u32,
    /// What it counts for.
    pub(super) bytes: u32,
}

/// A log.
#[derive(Debug, Default)]
pub(super) struct Indexed {
    pub(super) epoch: u64,
    /// Position of the last message.
    pub(super) head: u64,
    /// Sequence of the last message.
    pub(super) sequence: u64,
    /// All runs, that of `epoch` among them.
    pub(super) runs: Runs,
    /// Those that have rows of their own.
    pub(super) stored_runs: Vec<Run>,
    /// The head that the log's row has: a batch tells what is newer.
    pub(super) stored_head: u64,
    /// Up to here messages are in rows of their own, if anywhere.
    pub(super) filed_to: u64,
    /// Up to here such rows are deleted.
    pub(super) passed: u64,
    /// How far those are who want the messages.
    pub(super) consumers: Vec<(Consumer, u64)>,
    /// Position of the first message that is in a batch.
    first: u64,
    /// Where that one and those after it are, up to the last.
    places: VecDeque<Place>,
}

impl Indexed {
    /// As its row says.
    pub(super) fn new(epoch: u64, head: u64, sequence: u64, filed_to: u64) -> Self {
        Self {
            epoch,
            head,
            sequence,
            stored_head: head,
            filed_to,
            ..Self::default()
        }
    }

    /// Its last message now is this one.
    pub(super) fn reached(&mut self, epoch: u64, sequence: u64) {
        (self.epoch, self.sequence) = (epoch, sequence);
        self.runs.reached(epoch, sequence);
    }

    /// Nobody needs what is up to here.
    pub(super) fn base(&self) -> u64 {
        let bases = self.consumers.iter().map(|(_, base)| *base);
        bases.min().unwrap_or(self.head)
    }

    pub(super) fn base_of(&mut self, consumer: &Consumer) -> Option<&mut u64> {
        let mut consumers = self.consumers.iter_mut();
        let found = consumers.find(|(known, _)| known == consumer);
        found.map(|(_, base)| base)
    }

    /// Messages after a position that are in batches.
    pub(super) fn after(&self, position: u64) -> impl Iterator<Item = (u64, Place)> {
        let skipped = (position + 1).saturating_sub(self.first);
        let skipped = usize::try_from(skipped).unwrap_or(usize::MAX);
        let range = skipped.min(self.places.len())..;
        (self.first + range.start as u64..).zip(self.places.range(range).copied())
    }
}

/// A batch on the disk, or the one that is being made.
#[derive(Debug, Default)]
struct Batch {
    bytes: u64,
    /// Messages that somebody needs.
    needed: u64,
}

/// All logs and batches.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) logs: BTreeMap<LogId, Indexed>,
    batches: BTreeMap<u64, Batch>,
    /// Of all batches.
    bytes: u64,
    /// Of those that nobody needs.
    unneeded_bytes: u64,
}

impl Index {
    /// Bytes of all batches.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of batches that nobody needs.
    pub(super) fn unneeded_bytes(&self) -> u64 {
        self.unneeded_bytes
    }

    /// The number of the next batch.
    pub(super) fn next_batch(&self) -> u64 {
        let last = self.batches.last_key_value();
        last.map_or(1, |(number, _)| number + 1)
    }

    /// A message of a log is in a batch that is being made, or read.
    ///
    /// # Errors
    /// When it does not follow the one before it.
    pub(super) fn put(&mut self, log: LogId, position: u64, place: Place) -> anyhow::Result<()> {
        let indexed = self.logs.entry(log).or_default();
        if indexed.places.is_empty() {
            indexed.first = position;
        }
        let expected = indexed.first + indexed.places.len() as u64;
        ensure!(
            position == expected,
            "message {expected} of log {} is missing: {position} comes next",
            log.0
        );
        indexed.places.push_back(place);
        indexed.head = indexed.head.max(position);
        self.batches.entry(place.batch).or_default().needed += 1;
        Ok(())
    }

    /// A batch is complete, and on the disk.
    pub(super) fn complete(&mut self, batch: u64, bytes: u64) {
        let complete = self.batches.entry(batch).or_default();
        complete.bytes = bytes + complete.needed * size_of::<Place>() as u64;
        self.bytes += complete.bytes;
        if complete.needed == 0 {
            self.unneeded_bytes += complete.bytes;
        }
    }

    /// Forgets messages of a log up to a position. Returns what they counted for.
    pub(super) fn pass(&mut self, log: LogId, base: u64) -> u64 {
        let Some(indexed) = self.logs.get_mut(&log) else {
            return 0;
        };
        let mut bytes = 0;
        while indexed.first <= base
            && let Some(place) = indexed.places.pop_front()
        {
            indexed.first += 1;
            bytes += u64::from(place.bytes);
            self.unneeded_bytes += no_longer_needed(&mut self.batches, place.batch);
        }
        bytes
    }

    /// Forgets a log.
    pub(super) fn forget(&mut self, log: LogId) {
        self.pass(log, u64::MAX);
        self.logs.remove(&log);
    }

    /// Forgets the batches that nobody needs. Returns their numbers: from, and up to.
    pub(super) fn take_unneeded(&mut self) -> Vec<(u64, u64)> {
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        let mut is_range_open = false;
        self.batches.retain(|number, batch| {
            let is_needed = batch.needed > 0;
            match ranges.last_mut() {
                _ if is_needed => {}
                Some((_, last)) if is_range_open => *last = *number,
                _ => ranges.push((*number, *number)),
            }
            is_range_open = !is_needed;
            is_needed
        });
        self.bytes -= self.unneeded_bytes;
        self.unneeded_bytes = 0;
        ranges
    }

    /// Forgets the oldest batches, so many that the others have no more than `bytes`. Returns the
    /// number of the last of them, and the messages in them that somebody needs, log by log.
    pub(super) fn take_oldest(&mut self, bytes: u64) -> (u64, Vec<(LogId, u64, Place)>) {
        let mut upto = 0;
        while self.bytes > bytes
            && let Some((number, batch)) = self.batches.pop_first()
        {
            upto = number;
            self.bytes -= batch.bytes;
            if batch.needed == 0 {
                self.unneeded_bytes -= batch.bytes;
            }
        }
        let mut messages = Vec::new();
        for (log, indexed) in &mut self.logs {
            while let Some(place) = indexed.places.pop_front_if(|place| place.batch <= upto) {
                messages.push((*log, indexed.first, place));
                indexed.filed_to = indexed.first;
                indexed.first += 1;
            }
        }
        (upto, messages)
    }
}

/// Counts a message of a batch out. Returns the bytes of a batch that nobody needs any more.
fn no_longer_needed(batches: &mut BTreeMap<u64, Batch>, number: u64) -> u64 {
    match batches.get_mut(&number) {
        Some(batch) => {
            batch.needed -= 1;
            if batch.needed == 0 { batch.bytes } else { 0 }
        }
        None => 0,
    }
}
