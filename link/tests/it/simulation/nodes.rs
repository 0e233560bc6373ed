//! The two nodes: a sender with its log, a receiver with its inbox, and what their disks hold. Each
//! can be copied with its disk. A message is known by its *tag*, which no other one has.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use haar_link::frame::{Batch, Frame, LiveMessage, Message, decode};
use haar_link::link::Link;
use haar_link::receiver::Verdict;
use haar_link::runs::{Run, Runs};
use haar_link::sender::{Acknowledged, Settings};
use haar_link::session::{Boot, Ends, Session};
use x25519_dalek::{PublicKey, StaticSecret};

/// Streams between the two.
pub(super) const ROUTES: [u64; 3] = [11, 22, 33];
/// Bytes of messages that a stream's inbox takes.
const ROOM_BYTES: u64 = 400;
/// The boots of a copy begin here, and its epochs with them; those of the next one later.
const COPY_BOOTS: u64 = 1_000;
/// A live route between the two.
const LIVE: u64 = 44;

pub(super) const SETTINGS: Settings = Settings {
    resend_ms_min: 50,
    resend_ms_max: 2_000,
    batch_bytes: 100,
    in_flight_bytes: 300,
};

fn link(own: (&str, u8), other: (&str, u8), boot: u64) -> Link {
    let ends = Ends {
        site: "s",
        own: own.0,
        other: other.0,
    };
    let secret = |seed: u8| StaticSecret::from([seed; 32]);
    let mut id: Boot = [own.1; 16];
    id[..8].copy_from_slice(&boot.to_le_bytes());
    let key = PublicKey::from(&secret(other.1));
    let session = Session::new(ends, id, &secret(own.1), &key).unwrap();
    Link::new(session, SETTINGS)
}

/// What the sender's disk has of a stream.
#[derive(Debug, Default, Clone)]
pub(super) struct Log {
    /// Sequences that were published and not forgotten, with their sizes and tags.
    pub(super) messages: BTreeMap<u64, (u64, u64)>,
    /// The last one goes on.
    runs: Vec<Run>,
    pub(super) head: u64,
    pub(super) base: u64,
    /// Sequences that are not to be sent any more.
    pub(super) expired: BTreeSet<u64>,
}

/// The sending node. Its log is on the disk; everything else goes with a crash.
pub(super) struct Source {
    pub(super) logs: BTreeMap<u64, Log>,
    pub(super) link: Link,
    boots: u64,
}

impl Source {
    pub(super) fn new() -> Self {
        let logs = ROUTES.map(|route| (route, Log::default())).into();
        let mut source = Self {
            logs,
            link: link(("a", 1), ("b", 2), 0),
            boots: 0,
        };
        source.start();
        source
    }

    /// After a crash: from what the disk has. What is published from now on is another run.
    pub(super) fn start(&mut self) {
        self.boots += 1;
        self.link = link(("a", 1), ("b", 2), self.boots);
        for (index, (route, log)) in (0..).zip(&mut self.logs) {
            if let Some(run) = log.runs.last_mut() {
                run.upto = log.head;
            }
            log.runs.retain(|run| run.upto > log.base);
            log.runs.push(Run {
                epoch: self.boots,
                upto: u64::MAX,
            });
            self.link
                .sender
                .open(*route, &log.runs, log.base, log.head, index);
        }
    }

    /// Another agent starts from a copy of the disk; it is the `number`th.
    pub(super) fn copy(&self, number: u64) -> Self {
        let boots = COPY_BOOTS * number;
        let mut copy = Self {
            logs: self.logs.clone(),
            link: link(("a", 1), ("b", 2), boots),
            boots,
        };
        copy.start();
        copy
    }

    /// Whether the log of a stream has a message with this tag.
    pub(super) fn has(&self, route: u64, tag: u64) -> bool {
        let mut messages = self.logs[&route].messages.values();
        messages.any(|(_, one)| *one == tag)
    }

    pub(super) fn publish(&mut self, route: u64, bytes: u64, tag: u64, is_told: bool) {
        let log = self.logs.get_mut(&route).unwrap();
        log.head += 1;
        log.messages.insert(log.head, (bytes, tag));
        if is_told {
            self.link.sender.stored(route, log.head);
        }
    }

    /// Drops the oldest message by policy. Returns its tag.
    pub(super) fn drop_oldest(&mut self, route: u64) -> Option<u64> {
        let log = self.logs.get_mut(&route).unwrap();
        let (sequence, (_, tag)) = log.messages.pop_first()?;
        log.base = log.base.max(sequence);
        self.link.sender.skip(route, sequence);
        Some(tag)
    }

    /// One of the messages expires, the `nth` from the oldest. Returns its tag.
    pub(super) fn expire(&mut self, route: u64, nth: usize) -> Option<u64> {
        let log = self.logs.get_mut(&route).unwrap();
        let (sequence, (_, tag)) = log.messages.iter().nth(nth)?;
        log.expired.insert(*sequence).then_some(*tag)
    }

    /// The next sealed bytes to send, if any.
    pub(super) fn pump(&mut self, now_ms: u64) -> Option<Vec<u8>> {
        if let Some(bytes) = self.link.outgoing(now_ms) {
            return Some(bytes);
        }
        let want = self.link.next(now_ms)?;
        let log = self.logs.get_mut(&want.route).unwrap();
        let (mut taken, mut tags, mut bytes) = (Vec::new(), Vec::new(), 0);
        let mut read_to = want.from;
        if want.bytes > 0 {
            read_to = log.head;
            for (sequence, (size, tag)) in log.messages.range(want.from + 1..) {
                if log.expired.contains(sequence) || *sequence > want.upto {
                    continue;
                }
                if !taken.is_empty() && bytes + size > want.bytes {
                    read_to = taken.last().map_or(want.from, |(last, _)| *last);
                    break;
                }
                bytes += size;
                taken.push((*sequence, *size));
                tags.push(*tag);
            }
        }
        let body = [b'x'; 256];
        let messages = taken
            .iter()
            .zip(&tags)
            .map(|((sequence, size), tag)| Message {
                sequence: *sequence,
                published_ms: *tag,
                headers: vec![],
                body: &body[..usize::try_from(*size).unwrap()],
            })
            .collect();
        let frame = Frame::Batches(vec![Batch {
            route: want.route,
            epoch: want.epoch,
            base: want.base,
            after: want.after,
            messages,
        }]);
        let is_empty = taken.is_empty() && want.bytes > 0;
        let sealed = (!is_empty).then(|| self.link.seal(&frame, now_ms).unwrap());
        if let Some(base) = self.link.sender.sent(&want, &taken, read_to, now_ms) {
            log.base = base;
        }
        sealed
    }

    /// A sealed live message, when the link is open. It is never kept.
    pub(super) fn live(&mut self, sequence: u64, now_ms: u64) -> Option<Vec<u8>> {
        if !self.link.is_open() {
            return None;
        }
        let message = LiveMessage {
            route: LIVE,
            sequence,
            published_ms: now_ms,
            headers: vec![],
            body: &sequence.to_le_bytes(),
        };
        self.link.seal(&Frame::Live(vec![message]), now_ms)
    }

    /// What came from the receiver. `keeps` tells whether the disk hears of it before a crash.
    pub(super) fn receive(&mut self, bytes: &[u8], keeps: bool, now_ms: u64) {
        let Ok(Some(frame)) = self.link.open(bytes, now_ms) else {
            return;
        };
        let Ok(Frame::Acks(acks)) = decode(&frame) else {
            panic!("the receiver sends acknowledgements only");
        };
        for ack in acks {
            match self.link.acknowledged(&ack, now_ms) {
                Acknowledged::Upto(base) if keeps => {
                    let log = self.logs.get_mut(&ack.route).unwrap();
                    log.base = base;
                    log.messages = log.messages.split_off(&(base + 1));
                }
                Acknowledged::Beyond => panic!("nobody restored a copy"),
                _ => {}
            }
        }
    }
}

/// What the receiver's disk has of a stream.
#[derive(Debug, Default, Clone)]
pub(super) struct Inbox {
    runs: Runs,
    /// Sizes of messages, as they were stored.
    waiting: VecDeque<u64>,
    /// The tag of every message that was ever stored.
    pub(super) all: BTreeSet<u64>,
}

/// Messages on their way to the disk.
#[derive(Debug, Clone)]
struct Write {
    route: u64,
    epoch: u64,
    /// Sequences, sizes and tags.
    messages: Vec<(u64, u64, u64)>,
}

/// The receiving node.
pub(super) struct Sink {
    pub(super) inboxes: BTreeMap<u64, Inbox>,
    pub(super) link: Link,
    /// Live messages that came, over all starts.
    pub(super) live: BTreeSet<u64>,
    writes: VecDeque<Write>,
    boots: u64,
}

impl Sink {
    pub(super) fn new() -> Self {
        let inboxes = ROUTES.map(|route| (route, Inbox::default())).into();
        let mut sink = Self {
            inboxes,
            link: link(("b", 2), ("a", 1), 0),
            live: BTreeSet::new(),
            writes: VecDeque::new(),
            boots: 0,
        };
        sink.start();
        sink
    }

    /// After a crash.
    pub(super) fn start(&mut self) {
        self.boots += 1;
        self.writes.clear();
        self.link = link(("b", 2), ("a", 1), self.boots);
        for (route, inbox) in &self.inboxes {
            self.link
                .receiver
                .open(*route, inbox.runs.iter(), room(inbox));
        }
    }

    pub(super) fn receive(&mut self, bytes: &[u8], now_ms: u64) {
        let Ok(Some(frame)) = self.link.open(bytes, now_ms) else {
            return;
        };
        let batches = match decode(&frame) {
            Ok(Frame::Batches(batches)) => batches,
            Ok(Frame::Live(messages)) => return self.receive_live(&messages),
            other => panic!("the sender sends messages only: {other:?}"),
        };
        for batch in batches {
            match self.link.batch(&batch) {
                Verdict::Take(first) => {
                    let messages = batch.messages[first..].iter();
                    self.writes.push_back(Write {
                        route: batch.route,
                        epoch: batch.epoch,
                        messages: messages
                            .map(|message| {
                                let bytes = message.body.len() as u64;
                                (message.sequence, bytes, message.published_ms)
                            })
                            .collect(),
                    });
                }
                Verdict::Nothing => {}
                Verdict::Refused => panic!("it has a stream for every route"),
            }
        }
    }

    fn receive_live(&mut self, messages: &[LiveMessage<'_>]) {
        for message in messages {
            let sequence = message.sequence;
            assert_eq!(message.body, sequence.to_le_bytes(), "altered");
            assert!(self.live.insert(sequence), "{sequence} came twice");
        }
    }

    /// The disk finishes the oldest write, or fails: then nothing that was written after it counts.
    /// False when there is none.
    pub(super) fn finish_write(&mut self, fails: bool) -> bool {
        let Some(write) = self.writes.pop_front() else {
            return false;
        };
        if fails {
            let all = std::iter::once(write).chain(self.writes.drain(..));
            for write in all {
                self.link.receiver.failed(write.route, write.epoch);
            }
            return true;
        }
        let last = write.messages.last().unwrap().0;
        let (route, epoch) = (write.route, write.epoch);
        self.keep(write);
        self.link.receiver.stored(route, epoch, last);
        let room = room(&self.inboxes[&route]);
        self.link.receiver.set_room(route, room);
        true
    }

    /// What was on its way when the node crashed: the first `count` writes made it.
    pub(super) fn crash(&mut self, count: usize) {
        for write in std::mem::take(&mut self.writes).into_iter().take(count) {
            self.keep(write);
        }
        self.start();
    }

    fn keep(&mut self, write: Write) {
        let inbox = self.inboxes.get_mut(&write.route).unwrap();
        for (sequence, bytes, tag) in write.messages {
            let last = inbox.runs.upto(write.epoch).unwrap_or(0);
            assert!(
                sequence > last,
                "{sequence} came after {last} on {}",
                write.route
            );
            inbox.runs.reached(write.epoch, sequence);
            assert!(inbox.all.insert(tag), "message {tag} came twice");
            inbox.waiting.push_back(bytes);
        }
    }

    /// Another agent starts from a copy of the disk; it is the `number`th.
    pub(super) fn copy(&self, number: u64) -> Self {
        let boots = COPY_BOOTS * number;
        let mut copy = Self {
            inboxes: self.inboxes.clone(),
            link: link(("b", 2), ("a", 1), boots),
            live: BTreeSet::new(),
            writes: VecDeque::new(),
            boots,
        };
        copy.start();
        copy
    }

    /// The handler takes the oldest message.
    pub(super) fn handle(&mut self, route: u64) {
        let inbox = self.inboxes.get_mut(&route).unwrap();
        if inbox.waiting.pop_front().is_some() {
            self.link.receiver.set_room(route, room(inbox));
        }
    }
}

fn room(inbox: &Inbox) -> u64 {
    let waiting: u64 = inbox.waiting.iter().sum();
    ROOM_BYTES.saturating_sub(waiting)
}
