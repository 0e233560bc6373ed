//! The functions of the agent as tests have them: they act on the world of the harness that is
//! running. Without one there is nothing to act on, and they say so.

use std::time::Duration;

use super::LogLine;
use super::world::{Timer, World, entered};
use crate::log::Level;
use crate::node::Facts;
use crate::publish::{Outgoing, PublishError};
use crate::timers::{Lifetime, TimerError};

pub(super) fn world<R>(function: &str, act: impl FnOnce(&mut World) -> R) -> R {
    let Some(world) = entered() else {
        panic!(
            "haar_guest's {function} was called where there is no agent: in tests call the \
             microservice through haar_guest::testing::Harness"
        );
    };
    act(&mut world.borrow_mut())
}

pub(crate) fn publish(
    outlet: &str,
    body: &[u8],
    headers: &[(&str, &str)],
) -> Result<u64, PublishError> {
    world("publish", |world| world.publish(outlet, body, headers))
}

pub(crate) fn publish_batch(outlet: &str, messages: &[Outgoing<'_>]) -> Result<u64, PublishError> {
    world("publish_batch", |world| {
        let first = world.next_sequence(outlet);
        for message in messages {
            world.publish(outlet, message.body, message.headers)?;
        }
        Ok(first)
    })
}

pub(crate) fn node_facts() -> Facts {
    world("node::facts", |world| world.facts.clone())
}

pub(crate) fn node_uptime_ms() -> u64 {
    world("node::uptime", |world| world.passed_ms())
}

pub(crate) fn node_clock_synchronised() -> bool {
    world("node::clock_synchronised", |world| world.clock_synchronised)
}

#[allow(
    clippy::unnecessary_wraps,
    reason = "the agent can fail where a test cannot"
)]
pub(crate) fn configuration(key: &str) -> Result<Option<String>, String> {
    world("config::get", |world| {
        Ok(world.configuration.get(key).cloned())
    })
}

#[allow(
    clippy::unnecessary_wraps,
    reason = "the agent can fail where a test cannot"
)]
pub(crate) fn configuration_all() -> Result<Vec<(String, String)>, String> {
    world("config::get_all", |world| {
        Ok(world.configuration.clone().into_iter().collect())
    })
}

/// Lines logged outside of a harness go to standard error: a test of a plain function that happens
/// to log needs no harness.
pub(crate) fn log(level: Level, context: &str, text: &str) {
    match entered() {
        Some(world) => world.borrow_mut().logs.push(LogLine {
            level,
            context: context.to_owned(),
            text: text.to_owned(),
        }),
        None => eprintln!("{level:?} {context}: {text}"),
    }
}

pub(crate) fn set_timer_once(
    name: &str,
    delay_ms: u64,
    lifetime: Lifetime,
) -> Result<(), TimerError> {
    let timer = Timer::Once(Duration::from_millis(delay_ms));
    set_timer("timers::once", name, timer, lifetime)
}

pub(crate) fn set_timer_repeating(
    name: &str,
    period_ms: u64,
    lifetime: Lifetime,
) -> Result<(), TimerError> {
    let timer = Timer::Every(Duration::from_millis(period_ms));
    set_timer("timers::every", name, timer, lifetime)
}

/// The longest delay or period of a timer.
const YEAR: Duration = Duration::from_secs(365 * 86_400);

fn set_timer(
    function: &str,
    name: &str,
    timer: Timer,
    lifetime: Lifetime,
) -> Result<(), TimerError> {
    let (Timer::Once(time) | Timer::Every(time)) = timer;
    if time > YEAR {
        let reason = format!("{} ms is more than a year", time.as_millis());
        return Err(TimerError::NotStored { reason });
    }
    world(function, |world| world.set_timer(name, timer, lifetime));
    Ok(())
}

pub(crate) fn cancel_timer(name: &str) -> bool {
    world("timers::cancel", |world| {
        world.kept.remove(name);
        world.timers.remove(name).is_some()
    })
}
