//! What stands around a microservice under test: one `World` per harness, entered for the length of
//! a call. The imports find it through a thread-local, because they are plain functions.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use super::{BEGINNING_MS, LogLine, Published};
use crate::history::Direction;
use crate::message::Message;
use crate::publish::PublishError;
use crate::timers::Tick;

/// A timer that a microservice has set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timer {
    /// Ticks once, after this time.
    Once(Duration),
    /// Ticks again and again, with this time between two ticks.
    Every(Duration),
}

/// Everything that one microservice sees and leaves behind.
#[derive(Debug, Default)]
pub(super) struct World {
    pub(super) configuration: BTreeMap<String, String>,
    pub(super) timers: BTreeMap<String, Timer>,
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

impl World {
    /// Lets time go on until the timer `name` has run out, and then as many times as were missed.
    pub(super) fn run_out(&mut self, name: &str, missed: u32) -> Tick {
        let passed = match self.timers.get(name) {
            None => panic!("no timer `{name}` is set, so it cannot tick"),
            Some(Timer::Every(period)) => *period * missed.saturating_add(1),
            Some(Timer::Once(delay)) => *delay,
        };
        if let Some(Timer::Once(_)) = self.timers.get(name) {
            self.timers.remove(name);
        }
        self.passed += passed;
        Tick {
            name: name.to_owned(),
            scheduled_ms: self.now_ms(),
            missed,
        }
    }

    fn now_ms(&self) -> u64 {
        let passed_ms = u64::try_from(self.passed.as_millis()).unwrap_or(u64::MAX);
        BEGINNING_MS.saturating_add(passed_ms)
    }

    /// What was published enters the outlet's history.
    pub(super) fn remember_published(&mut self, published: &Published) {
        let mut message = super::message("", &published.body);
        "microservice".clone_into(&mut message.source.microservice);
        message.source.outlet.clone_from(&published.outlet);
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
            .push((Direction::Inlet, inlet, message));
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
