//! What stands around a microservice under test: one `World` per harness, entered for the length of
//! a call. The imports find it through a thread-local, because they are plain functions.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::{BEGINNING_MS, LogLine, Measurements, Published};
use crate::history::Direction;
use crate::message::Message;
use crate::node::Facts;
use crate::publish::PublishError;
use crate::timers::{Lifetime, Tick};

/// A timer that a microservice has set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timer {
    /// Ticks once, after this time.
    Once(Duration),
    /// Ticks again and again, with this time between two ticks.
    Every(Duration),
}

/// Everything that one microservice sees and leaves behind.
#[derive(Debug)]
pub(super) struct World {
    pub(super) configuration: BTreeMap<String, String>,
    pub(super) facts: Facts,
    pub(super) clock_synchronised: bool,
    pub(super) measurements: Measurements,
    pub(super) timers: BTreeMap<String, Timer>,
    /// Names of those that outlive the microservice.
    pub(super) kept: BTreeSet<String>,
    pub(super) published: Vec<Published>,
    pub(super) sequences: BTreeMap<String, u64>,
    pub(super) logs: Vec<LogLine>,
    pub(super) refusal: Option<PublishError>,
    /// Pairs by bucket and key.
    pub(super) pairs: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    /// What entered inlets and was published, in the order of passing.
    pub(super) passed_messages: Vec<(Direction, String, Message)>,
    /// Time since the beginning: only ticks make it go on.
    passed: Duration,
}

impl Default for World {
    fn default() -> Self {
        let text = |text: &str| text.to_owned();
        Self {
            configuration: BTreeMap::new(),
            facts: Facts {
                id: text("n-test"),
                name: text("node-1"),
                site: text("s-test"),
                labels: Vec::new(),
                location: None,
            },
            clock_synchronised: true,
            measurements: Measurements::default(),
            timers: BTreeMap::new(),
            kept: BTreeSet::new(),
            published: Vec::new(),
            sequences: BTreeMap::new(),
            logs: Vec::new(),
            refusal: None,
            pairs: BTreeMap::new(),
            passed_messages: Vec::new(),
            passed: Duration::ZERO,
        }
    }
}

impl World {
    /// The sequence that the outlet's next message will have.
    pub(super) fn next_sequence(&self, outlet: &str) -> u64 {
        self.sequences.get(outlet).copied().unwrap_or_default() + 1
    }

    pub(super) fn publish(
        &mut self,
        outlet: &str,
        body: &[u8],
        headers: &[(&str, &str)],
    ) -> Result<u64, PublishError> {
        if let Some(refusal) = self.refusal {
            return Err(refusal);
        }
        let sequence = self.next_sequence(outlet);
        self.sequences.insert(outlet.to_owned(), sequence);
        let published = Published {
            outlet: outlet.to_owned(),
            sequence,
            headers: headers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            body: body.to_vec(),
        };
        self.remember_published(&published);
        self.published.push(published);
        Ok(sequence)
    }

    pub(super) fn set_timer(&mut self, name: &str, timer: Timer, lifetime: Lifetime) {
        self.timers.insert(name.to_owned(), timer);
        match lifetime {
            Lifetime::Instance => self.kept.remove(name),
            Lifetime::Kept => self.kept.insert(name.to_owned()),
        };
    }

    /// The microservice has stopped: what it set and was not to be kept is gone.
    pub(super) fn forget_timers(&mut self) {
        self.timers.retain(|name, _| self.kept.contains(name));
    }

    /// Milliseconds since the beginning.
    pub(super) fn passed_ms(&self) -> u64 {
        u64::try_from(self.passed.as_millis()).unwrap_or(u64::MAX)
    }

    /// Lets time go on until the timer `name` has run out, and then as many times as were missed.
    pub(super) fn run_out(&mut self, name: &str, missed: u32) -> Tick {
        let passed = match self.timers.get(name) {
            None => panic!("no timer `{name}` is set, so it cannot tick"),
            Some(Timer::Every(period)) => *period * missed.saturating_add(1),
            Some(Timer::Once(delay)) => *delay,
        };
        if let Some(Timer::Once(_)) = self.timers.get(name) {
            self.timers.remove(name);
            self.kept.remove(name);
        }
        self.passed += passed;
        Tick {
            name: name.to_owned(),
            scheduled_ms: self.now_ms(),
            missed,
        }
    }

    fn now_ms(&self) -> u64 {
        BEGINNING_MS.saturating_add(self.passed_ms())
    }

    /// What was published enters the outlet's history.
    pub(super) fn remember_published(&mut self, published: &Published) {
        let mut message = super::message("", &published.body);
        let source = Arc::make_mut(&mut message.source);
        "microservice".clone_into(&mut source.microservice);
        source.outlet.clone_from(&published.outlet);
        message.sequence = published.sequence;
        message.headers.clone_from(&published.headers);
        message.published_ms = self.now_ms();
        message.attempt = 0;
        self.passed_messages
            .push((Direction::Outlet, published.outlet.clone(), message));
    }

    /// What is delivered enters the inlet's history.
    pub(super) fn remember_delivered(&mut self, message: &Message) {
        let (inlet, attempt) = (message.inlet.clone(), 0);
        let message = Message {
            attempt,
            ..message.clone()
        };
        self.passed_messages
            .push((Direction::Inlet, inlet.to_string(), message));
    }
}

pub(super) type SharedWorld = Rc<RefCell<World>>;

thread_local! {
    static ENTERED: RefCell<Option<SharedWorld>> = const { RefCell::new(None) };
}

/// Leaves the world when dropped, also when a test panics in the middle of a call.
struct Leave;

impl Drop for Leave {
    fn drop(&mut self) {
        ENTERED.set(None);
    }
}

/// Runs `call` with `world` around it.
pub(super) fn enter<R>(world: &SharedWorld, call: impl FnOnce() -> R) -> R {
    let before = ENTERED.replace(Some(Rc::clone(world)));
    assert!(
        before.is_none(),
        "a microservice under test was called from inside another one"
    );
    let _leave = Leave;
    call()
}

/// The world that the running call stands in, if any.
pub(super) fn entered() -> Option<SharedWorld> {
    ENTERED.with_borrow(Clone::clone)
}
