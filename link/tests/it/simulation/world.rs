//! The network and the course of events.

use std::collections::BTreeSet;

use super::nodes::{ROUTES, Sink, Source};

/// Things that happen while the network is bad.
const STEPS: u32 = 400;
/// After it has healed everything must arrive in so many milliseconds.
const HEALED_MS: u64 = 600_000;

/// Numbers that look random and come from a seed (SplitMix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.roll(100) < percent
    }

    fn route(&mut self) -> u64 {
        ROUTES[usize::try_from(self.roll(3)).unwrap()]
    }
}

/// How often things happened.
#[derive(Debug, Default)]
pub(super) struct Totals {
    published: u64,
    arrived: u64,
    dropped_by_policy: u64,
    expired: u64,
    lost: u64,
    repeated: u64,
    reordered: u64,
    crashes_of_the_sender: u64,
    crashes_of_the_receiver: u64,
    cuts: u64,
    failed_writes: u64,
    live: u64,
    altered: u64,
}

impl Totals {
    pub(super) fn add(&mut self, other: &Totals) {
        self.published += other.published;
        self.arrived += other.arrived;
        self.dropped_by_policy += other.dropped_by_policy;
        self.expired += other.expired;
        self.lost += other.lost;
        self.repeated += other.repeated;
        self.reordered += other.reordered;
        self.crashes_of_the_sender += other.crashes_of_the_sender;
        self.crashes_of_the_receiver += other.crashes_of_the_receiver;
        self.cuts += other.cuts;
        self.failed_writes += other.failed_writes;
        self.live += other.live;
        self.altered += other.altered;
    }

    pub(super) fn faults(&self) -> [(&'static str, u64); 12] {
        [
            ("message", self.arrived),
            ("drop by policy", self.dropped_by_policy),
            ("expired message", self.expired),
            ("loss", self.lost),
            ("repeat", self.repeated),
            ("change of order", self.reordered),
            ("crash of the sender", self.crashes_of_the_sender),
            ("crash of the receiver", self.crashes_of_the_receiver),
            ("cut", self.cuts),
            ("failed write", self.failed_writes),
            ("live message", self.live),
            ("altered frame", self.altered),
        ]
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum To {
    Source,
    Sink,
}

pub(super) struct World {
    dice: Dice,
    now_ms: u64,
    source: Source,
    sink: Sink,
    /// What is on its way, in the order of sending.
    network: Vec<(To, Vec<u8>)>,
    source_connected: bool,
    sink_connected: bool,
    /// Everything that was published and not dropped by policy since, as stream and sequence.
    expected: BTreeSet<(u64, u64)>,
    /// How bad the network is, in percent.
    loss: u64,
    repeat: u64,
    reorder: u64,
    /// Live messages that were sent.
    live: u64,
    totals: Totals,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let (loss, repeat, reorder) = (dice.roll(60), dice.roll(30), dice.roll(100));
        Self {
            dice,
            now_ms: 0,
            source: Source::new(),
            sink: Sink::new(),
            network: Vec::new(),
            source_connected: false,
            sink_connected: false,
            expected: BTreeSet::new(),
            loss,
            repeat,
            reorder,
            live: 0,
            totals: Totals::default(),
        }
    }

    pub(super) fn play(mut self) -> Totals {
        for _ in 0..STEPS {
            self.step();
        }
        self.heal();
        self.totals.live = self.sink.live.len() as u64;
        self.totals
    }

    fn step(&mut self) {
        match self.dice.roll(100) {
            0..17 => self.publish(),
            17 => self.expire(),
            18..38 => self.pump(),
            38..40 => self.send_live(),
            40..64 => self.deliver(),
            64..74 => {
                let fails = self.dice.chance(5);
                if self.sink.finish_write(fails) && fails {
                    self.totals.failed_writes += 1;
                }
            }
            74..82 => {
                let route = self.dice.route();
                self.sink.handle(route);
            }
            82..90 => self.now_ms += self.dice.roll(400),
            90..94 => self.toggle_connection(),
            94..96 => {
                let count = usize::try_from(self.dice.roll(3)).unwrap();
                self.sink.crash(count);
                self.sink_connected = false;
                self.totals.crashes_of_the_receiver += 1;
            }
            96..98 => {
                self.source.start();
                self.source_connected = false;
                self.totals.crashes_of_the_sender += 1;
            }
            98 => {
                let route = self.dice.route();
                if let Some(sequence) = self.source.drop_oldest(route)
                    && self.expected.remove(&(route, sequence))
                {
                    self.totals.dropped_by_policy += 1;
                }
            }
            _ => {
                // A broker that restarts empty.
                self.totals.lost += self.network.len() as u64;
                self.network.clear();
            }
        }
    }

    fn publish(&mut self) {
        let route = self.dice.route();
        for _ in 0..=self.dice.roll(8) {
            let bytes = 1 + self.dice.roll(60);
            // A node may crash between the disk and the link.
            let is_told = self.dice.chance(95);
            let sequence = self.source.publish(route, bytes, is_told);
            self.expected.insert((route, sequence));
            self.totals.published += 1;
        }
    }

    fn expire(&mut self) {
        let (route, nth) = (self.dice.route(), self.dice.roll(12));
        let nth = usize::try_from(nth).unwrap();
        if let Some(sequence) = self.source.expire(route, nth) {
            self.expected.remove(&(route, sequence));
            self.totals.expired += 1;
        }
    }

    fn send_live(&mut self) {
        for _ in 0..=self.dice.roll(4) {
            self.live += 1;
            if let Some(bytes) = self.source.live(self.live, self.now_ms) {
                self.send(To::Sink, bytes);
            }
        }
    }

    fn toggle_connection(&mut self) {
        self.totals.cuts += 1;
        if self.dice.chance(50) {
            self.source_connected = !self.source_connected;
            self.source
                .link
                .connected(self.source_connected, self.now_ms);
        } else {
            self.sink_connected = !self.sink_connected;
            self.sink.link.connected(self.sink_connected, self.now_ms);
        }
    }

    fn pump(&mut self) {
        for _ in 0..=self.dice.roll(6) {
            let bytes = match self.dice.chance(50) {
                true => self.source.pump(self.now_ms).map(|bytes| (To::Sink, bytes)),
                false => {
                    let bytes = self.sink.link.outgoing(self.now_ms);
                    bytes.map(|bytes| (To::Source, bytes))
                }
            };
            if let Some((to, bytes)) = bytes {
                self.send(to, bytes);
            }
        }
    }

    fn send(&mut self, to: To, bytes: Vec<u8>) {
        if self.dice.chance(self.loss) {
            self.totals.lost += 1;
            return;
        }
        if self.dice.chance(self.repeat) {
            self.totals.repeated += 1;
            self.network.push((to, bytes.clone()));
        }
        if self.dice.chance(2) {
            let mut altered = bytes.clone();
            let at = usize::try_from(self.dice.roll(altered.len() as u64)).unwrap();
            altered[at] ^= 1 << self.dice.roll(8);
            self.totals.altered += 1;
            self.network.push((to, altered));
        }
        self.network.push((to, bytes));
    }

    fn deliver(&mut self) {
        for _ in 0..=self.dice.roll(6) {
            if self.network.is_empty() {
                return;
            }
            let index = match self.dice.chance(self.reorder) {
                true => self.dice.roll(self.network.len() as u64),
                false => 0,
            };
            self.totals.reordered += u64::from(index > 0);
            let (to, bytes) = self.network.remove(usize::try_from(index).unwrap());
            self.arrive(to, &bytes);
        }
    }

    fn arrive(&mut self, to: To, bytes: &[u8]) {
        match to {
            To::Source if self.source_connected => {
                let keeps = self.dice.chance(80);
                self.source.receive(bytes, keeps, self.now_ms);
            }
            To::Sink if self.sink_connected => self.sink.receive(bytes, self.now_ms),
            _ => self.totals.lost += 1,
        }
    }

    /// The network is good again, and nobody crashes: everything arrives.
    fn heal(&mut self) {
        (self.loss, self.repeat) = (0, 0);
        if !self.source_connected {
            self.source_connected = true;
            self.source.link.connected(true, self.now_ms);
        }
        if !self.sink_connected {
            self.sink_connected = true;
            self.sink.link.connected(true, self.now_ms);
        }
        // What the link was not told of is told with the next message.
        for route in ROUTES {
            let sequence = self.source.publish(route, 1, true);
            self.expected.insert((route, sequence));
        }
        let healed_ms = self.now_ms;
        while !self.is_complete() {
            while let Some(bytes) = self.source.pump(self.now_ms) {
                self.network.push((To::Sink, bytes));
            }
            while let Some(bytes) = self.sink.link.outgoing(self.now_ms) {
                self.network.push((To::Source, bytes));
            }
            for (to, bytes) in std::mem::take(&mut self.network) {
                self.arrive(to, &bytes);
            }
            while self.sink.finish_write(false) {}
            for route in ROUTES {
                self.sink.handle(route);
            }
            self.now_ms += 10;
            assert!(
                self.now_ms - healed_ms < HEALED_MS,
                "it is stuck: {:?} {:?}",
                self.source.link,
                self.sink.link,
            );
        }
    }

    fn is_complete(&mut self) -> bool {
        let head = |route: &u64| self.source.logs[route].head;
        let last = |route: &u64| self.sink.inboxes[route].all.last().copied();
        if ROUTES.iter().any(|route| last(route) != Some(head(route))) {
            return false;
        }
        for (route, inbox) in &self.sink.inboxes {
            for sequence in &inbox.all {
                self.expected.remove(&(*route, *sequence));
                self.totals.arrived += 1;
            }
        }
        assert!(self.expected.is_empty(), "lost: {:?}", self.expected);
        true
    }
}
