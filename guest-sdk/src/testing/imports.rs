//! The functions of the agent as tests have them: they act on the world of the harness that is
//! running. Without one there is nothing to act on, and they say so.

use std::time::Duration;

use super::world::{Timer, World, entered};
use super::{LogLine, Published};
use crate::log::Level;
use crate::publish::PublishError;
use crate::timers::TimerError;

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
    world("publish", |world| {
        if let Some(refusal) = world.refusal {
            return Err(refusal);
        }
        let sequence = world.sequences.entry(outlet.to_owned()).or_default();
        *sequence += 1;
        let sequence = *sequence;
        let published = Published {
            outlet: outlet.to_owned(),
            sequence,
            headers: headers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            body: body.to_vec(),
        };
        world.remember_published(&published);
        world.published.push(published);
        Ok(sequence)
    })
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

#[allow(
    clippy::unnecessary_wraps,
    reason = "the agent can fail where a test cannot"
)]
pub(crate) fn set_timer_once(name: &str, delay_ms: u64) -> Result<(), TimerError> {
    set_timer(
        "timers::once",
        name,
        Timer::Once(Duration::from_millis(delay_ms)),
    )
}

#[allow(
    clippy::unnecessary_wraps,
    reason = "the agent can fail where a test cannot"
)]
pub(crate) fn set_timer_repeating(name: &str, period_ms: u64) -> Result<(), TimerError> {
    set_timer(
        "timers::every",
        name,
        Timer::Every(Duration::from_millis(period_ms)),
    )
}

#[allow(
    clippy::unnecessary_wraps,
    reason = "the agent can fail where a test cannot"
)]
fn set_timer(function: &str, name: &str, timer: Timer) -> Result<(), TimerError> {
    world(function, |world| {
        world.timers.insert(name.to_owned(), timer)
    });
    Ok(())
}

pub(crate) fn cancel_timer(name: &str) -> bool {
    world("timers::cancel", |world| {
        world.timers.remove(name).is_some()
    })
}
