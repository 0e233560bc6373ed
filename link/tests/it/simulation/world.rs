//! The network and the course of events.

use std::collections::BTreeSet;

use super::agents::{Agent, Agents};
use super::dice::Dice;
use super::nodes::{ROUTES, Sink, Source};
use super::totals::Totals;

/// Things that happen while the network is bad.
const STEPS: u32 = 400;
/// After it has healed everything must arrive in so many milliseconds.
const HEALED_MS: u64 = 600_000;

#[derive(Clone, Copy, PartialEq, Eq)]
enum To {
    Source,
    Sink,
}

pub(super) struct World {
    dice: Dice,
    now_ms: u64,
    sources: Agents<Source>,
    sinks: Agents<Sink>,
    /// What is on its way, in the order of sending.
    network: Vec<(To, Vec<u8>)>,
    /// Streams and tags that arrived at agents that are gone.
    elsewhere: BTreeSet<(u64, u64)>,
    /// How bad the network is, in percent.
    loss: u64,
    repeat: u64,
    reorder: u64,
    /// How often a cut or a crash does not happen, in percent.
    calm: u64,
    /// Live messages that were sent.
    live: u64,
    totals: Totals,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let (loss, repeat, reorder) = (dice.roll(60), dice.roll(30), dice.roll(100));
        // With two relays both agents of one identity may be connected.
        let (relays, calm) = (1 + dice.roll(2), dice.roll(100));
        Self {
            dice,
            now_ms: 0,
            sources: Agents::new(Source::new(), relays),
            sinks: Agents::new(Sink::new(), relays),
            network: Vec::new(),
            elsewhere: BTreeSet::new(),
            loss,
            repeat,
            reorder,
            calm,
            live: 0,
            totals: Totals::default(),
        }
    }

    pub(super) fn play(mut self) -> Totals {
        for _ in 0..STEPS {
            self.step();
        }
        self.heal();
        self.totals.live = self.sinks.one().node.live.len() as u64;
        self.totals
    }

    fn step(&mut self) {
        let step = match self.dice.roll(102) {
            90..98 if self.dice.chance(self.calm) => 40,
            80..82 => 90, // who is cut off connects soon
            step => step,
        };
        match step {
            0..17 => self.publish(),
            17 => self.expire(),
            18..38 => self.pump(),
            38..40 => self.send_live(),
            40..64 => self.deliver(),
            64..74 => {
                let fails = self.dice.chance(5);
                let sink = self.sinks.any(&mut self.dice);
                if sink.node.finish_write(fails) && fails {
                    self.totals.failed_writes += 1;
                }
            }
            74..82 => {
                let route = self.dice.route();
                self.sinks.any(&mut self.dice).node.handle(route);
            }
            82..90 => self.now_ms += self.dice.roll(400),
            90..94 => self.toggle_connection(),
            94..96 => {
                let count = usize::try_from(self.dice.roll(3)).unwrap();
                let sink = self.sinks.any(&mut self.dice);
                sink.node.crash(count);
                sink.connected = false;
                self.totals.crashes_of_the_receiver += 1;
            }
            96..98 => {
                let source = self.sources.any(&mut self.dice);
                source.node.start();
                source.connected = false;
                self.totals.crashes_of_the_sender += 1;
            }
            98 => {
                let route = self.dice.route();
                let source = self.sources.any(&mut self.dice);
                if let Some(tag) = source.node.drop_oldest(route) {
                    self.totals.dropped_by_policy += self.sources.forget((route, tag));
                }
            }
            99 => {
                // A broker that restarts empty.
                self.totals.lost += self.network.len() as u64;
                self.network.clear();
            }
            100 => match self.sources.are_two() {
                true => self.end_source(),
                false => {
                    self.sources.copy(Source::copy);
                    self.totals.copies_of_the_sender += 1;
                }
            },
            _ => match self.sinks.are_two() {
                true => self.end_sink(),
                false => {
                    self.sinks.copy(Sink::copy);
                    self.totals.copies_of_the_receiver += 1;
                }
            },
        }
    }

    /// One of two agents with the identity of the source stops for ever.
    fn end_source(&mut self) {
        let gone = self.sources.end(&mut self.dice);
        for (route, tag) in &gone.expected {
            assert!(
                self.has_arrived(*route, *tag) || gone.node.has(*route, *tag),
                "message {tag} is nowhere"
            );
        }
    }

    /// The same of the sink. What it has stored has arrived at an agent with the identity of the sink.
    fn end_sink(&mut self) {
        let gone = self.sinks.end(&mut self.dice);
        for (route, inbox) in gone.node.inboxes {
            let arrived = inbox.all.into_iter().map(|tag| (route, tag));
            self.elsewhere.extend(arrived);
        }
    }

    fn has_arrived(&self, route: u64, tag: u64) -> bool {
        let mut sinks = self.sinks.iter();
        self.elsewhere.contains(&(route, tag))
            || sinks.any(|sink| sink.node.inboxes[&route].all.contains(&tag))
    }

    fn publish(&mut self) {
        let route = self.dice.route();
        let are_two = self.sources.are_two();
        let count = self.dice.roll(8);
        let source = self.sources.any(&mut self.dice);
        for _ in 0..=count {
            let bytes = 1 + self.dice.roll(60);
            // A node may crash between the disk and the link.
            let is_told = self.dice.chance(95);
            self.totals.published += 1;
            self.totals.messages_of_copies += u64::from(are_two);
            let tag = self.totals.published;
            source.node.publish(route, bytes, tag, is_told);
            source.expected.insert((route, tag));
        }
    }

    fn expire(&mut self) {
        let (route, nth) = (self.dice.route(), self.dice.roll(12));
        let nth = usize::try_from(nth).unwrap();
        let source = self.sources.any(&mut self.dice);
        if let Some(tag) = source.node.expire(route, nth) {
            self.totals.expired += self.sources.forget((route, tag));
        }
    }

    fn send_live(&mut self) {
        for _ in 0..=self.dice.roll(4) {
            self.live += 1;
            let source = self.sources.any(&mut self.dice);
            if let Some(bytes) = source.node.live(self.live, self.now_ms) {
                self.send(To::Sink, bytes);
            }
        }
    }

    fn toggle_connection(&mut self) {
        self.totals.cuts += 1;
        let now_ms = self.now_ms;
        if self.dice.chance(50) {
            let connect = |agent: &mut Agent<Source>| {
                agent.node.link.connected(agent.connected, now_ms);
            };
            self.sources.toggle(&mut self.dice, connect);
        } else {
            let connect = |agent: &mut Agent<Sink>| {
                agent.node.link.connected(agent.connected, now_ms);
            };
            self.sinks.toggle(&mut self.dice, connect);
        }
    }

    fn pump(&mut self) {
        for _ in 0..=self.dice.roll(6) {
            let bytes = match self.dice.chance(50) {
                true => {
                    let source = self.sources.any(&mut self.dice);
                    let bytes = source.node.pump(self.now_ms);
                    bytes.map(|bytes| (To::Sink, bytes))
                }
                false => {
                    let sink = self.sinks.any(&mut self.dice);
                    let bytes = sink.node.link.outgoing(self.now_ms);
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

    /// With one relay at most one agent of an identity is connected, with two maybe both: a frame
    /// reaches one of them.
    fn arrive(&mut self, to: To, bytes: &[u8]) {
        let is_taken = match to {
            To::Source => {
                let keeps = self.dice.chance(80);
                let source = self.sources.connected(&mut self.dice);
                source.map(|source| source.node.receive(bytes, keeps, self.now_ms))
            }
            To::Sink => {
                let sink = self.sinks.connected(&mut self.dice);
                sink.map(|sink| sink.node.receive(bytes, self.now_ms))
            }
        };
        self.totals.lost += u64::from(is_taken.is_none());
    }

    /// The network is good again, copies stop, and nobody crashes: everything arrives.
    fn heal(&mut self) {
        (self.loss, self.repeat) = (0, 0);
        if self.sources.are_two() {
            self.end_source();
        }
        if self.sinks.are_two() {
            self.end_sink();
        }
        let now_ms = self.now_ms;
        let source = self.sources.one();
        if !source.connected {
            source.connected = true;
            source.node.link.connected(true, now_ms);
        }
        let sink = self.sinks.one();
        if !sink.connected {
            sink.connected = true;
            sink.node.link.connected(true, now_ms);
        }
        // What the link was not told of is told with the next message.
        for route in ROUTES {
            self.totals.published += 1;
            let tag = self.totals.published;
            let source = self.sources.one();
            source.node.publish(route, 1, tag, true);
            source.expected.insert((route, tag));
        }
        while !self.is_complete() {
            self.go_on();
            assert!(
                self.now_ms - now_ms < HEALED_MS,
                "it is stuck: {:?} {:?}",
                self.sources.one().node.link,
                self.sinks.one().node.link,
            );
        }
    }

    /// Everything that wants to go does.
    fn go_on(&mut self) {
        while let Some(bytes) = self.sources.one().node.pump(self.now_ms) {
            self.network.push((To::Sink, bytes));
        }
        while let Some(bytes) = self.sinks.one().node.link.outgoing(self.now_ms) {
            self.network.push((To::Source, bytes));
        }
        for (to, bytes) in std::mem::take(&mut self.network) {
            self.arrive(to, &bytes);
        }
        let sink = self.sinks.one();
        while sink.node.finish_write(false) {}
        for route in ROUTES {
            sink.node.handle(route);
        }
        self.now_ms += 10;
    }

    fn is_complete(&mut self) -> bool {
        let expected = self.sources.one().expected.clone();
        let is_there = |(route, tag): &(u64, u64)| self.has_arrived(*route, *tag);
        if !expected.iter().all(is_there) {
            return false;
        }
        self.totals.arrived += expected.len() as u64;
        true
    }
}
