//! The border of a component: the generated bindings, the imports in this crate's own types, and
//! the exports that call the microservice. Exists on WebAssembly only; `export!` is its only user
//! outside of this crate.

use std::any::Any;
use std::cell::RefCell;
use std::marker::PhantomData;

use bindings::exports::haar::local::{handler, lifecycle, ticks};

use crate::message::Rejection;
use crate::microservice::Microservice;
use crate::timers::Tick;

#[allow(
    unsafe_code,
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "generated from wit/"
)]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../wit",
        world: "haar:local/microservice",
        generate_all,
        ownership: Borrowing { duplicate_if_necessary: true },
        pub_export_macro: true,
        export_macro_name: "export_component",
        default_bindings_module: "haar_guest::component::bindings",
    });
}

thread_local! {
    /// The one microservice of this component. Borrowed for the length of a call: the agent never
    /// enters an instance while it is in it.
    static SERVICE: RefCell<Option<Box<dyn Any>>> = const { RefCell::new(None) };
}

fn with<S: Microservice, R>(call: impl FnOnce(&mut S) -> R) -> R {
    SERVICE.with_borrow_mut(|slot| {
        let service = slot.get_or_insert_with(|| Box::new(S::default()));
        call(
            service
                .downcast_mut()
                .expect("a component exports one microservice"),
        )
    })
}

/// The exports of a component whose microservice is `S`.
pub struct Exported<S>(PhantomData<S>);

impl<S: Microservice> lifecycle::Guest for Exported<S> {
    fn start() -> Result<(), String> {
        with(S::start)
    }

    fn configuration_changed() -> Result<(), String> {
        with(S::configuration_changed)
    }

    fn stop() {
        with(S::stop);
    }
}

impl<S: Microservice> handler::Guest for Exported<S> {
    fn handle(message: handler::Delivery) -> Result<(), handler::Rejection> {
        with(|service: &mut S| service.handle(origin::message(message)))
            .map_err(handler::Rejection::from)
    }
}

impl<S: Microservice> ticks::Guest for Exported<S> {
    fn handle_tick(tick: ticks::Tick) -> Result<(), String> {
        let tick = Tick {
            name: tick.name,
            scheduled_ms: tick.scheduled,
            missed: tick.missed,
        };
        with(|service: &mut S| service.tick(tick))
    }
}

impl From<Rejection> for handler::Rejection {
    fn from(rejection: Rejection) -> Self {
        match rejection {
            Rejection::Retry(reason) => handler::Rejection::Retry(reason),
            Rejection::Discard(reason) => handler::Rejection::Discard(reason),
        }
    }
}

pub(crate) mod history;
mod origin;
pub(crate) mod key_value;
pub(crate) mod system;

/// What the agent offers, in this crate's own types.
pub(crate) mod imports {
    use super::bindings::haar::local::timers::{self, TimerError as WitTimerError};
    use super::bindings::haar::local::{messaging, node};
    use super::bindings::wasi::config::store;
    use super::bindings::wasi::logging::logging;
    use crate::log::Level;
    use crate::node::{Facts, Location};
    use crate::publish::{Outgoing, PublishError};
    use crate::timers::{Lifetime, TimerError};

    pub(crate) fn publish(
        outlet: &str,
        body: &[u8],
        headers: &[(&str, &str)],
    ) -> Result<u64, PublishError> {
        messaging::publish(outlet, body, headers).map_err(publish_error)
    }

    pub(crate) fn publish_batch(
        outlet: &str,
        messages: &[Outgoing<'_>],
    ) -> Result<u64, PublishError> {
        let messages: Vec<_> = messages
            .iter()
            .map(|message| messaging::Outgoing {
                body: message.body,
                headers: message.headers,
            })
            .collect();
        messaging::publish_batch(outlet, &messages).map_err(publish_error)
    }

    fn publish_error(error: messaging::PublishError) -> PublishError {
        match error {
            messaging::PublishError::UnknownOutlet => PublishError::UnknownOutlet,
            messaging::PublishError::TooLarge(limit_bytes) => {
                PublishError::TooLarge { limit_bytes }
            }
            messaging::PublishError::TooMany(limit) => PublishError::TooMany { limit },
            messaging::PublishError::RateLimited(retry_ms) => {
                PublishError::RateLimited { retry_ms }
            }
            messaging::PublishError::BacklogFull => PublishError::BacklogFull,
            messaging::PublishError::NotReady => PublishError::NotReady,
        }
    }

    pub(crate) fn node_facts() -> Facts {
        let facts = node::get();
        Facts {
            id: facts.id,
            name: facts.name,
            site: facts.site,
            labels: facts.labels,
            location: facts.location.map(|location| Location {
                latitude: location.latitude,
                longitude: location.longitude,
                altitude: location.altitude,
            }),
        }
    }

    pub(crate) fn node_uptime_ms() -> u64 {
        node::uptime()
    }

    pub(crate) fn node_clock_synchronised() -> bool {
        node::clock_synchronised()
    }

    pub(crate) fn configuration(key: &str) -> Result<Option<String>, String> {
        store::get(key).map_err(configuration_error)
    }

    pub(crate) fn configuration_all() -> Result<Vec<(String, String)>, String> {
        store::get_all().map_err(configuration_error)
    }

    fn configuration_error(error: store::Error) -> String {
        let (store::Error::Upstream(text) | store::Error::Io(text)) = error;
        format!("the configuration cannot be read: {text}")
    }

    pub(crate) fn log(level: Level, context: &str, text: &str) {
        let level = match level {
            Level::Trace => logging::Level::Trace,
            Level::Debug => logging::Level::Debug,
            Level::Info => logging::Level::Info,
            Level::Warn => logging::Level::Warn,
            Level::Error => logging::Level::Error,
            Level::Critical => logging::Level::Critical,
        };
        logging::log(level, context, text);
    }

    pub(crate) fn set_timer_once(
        name: &str,
        delay_ms: u64,
        lifetime: Lifetime,
    ) -> Result<(), TimerError> {
        timers::set_once(name, delay_ms, lifetime.into()).map_err(timer_error)
    }

    pub(crate) fn set_timer_repeating(
        name: &str,
        period_ms: u64,
        lifetime: Lifetime,
    ) -> Result<(), TimerError> {
        timers::set_repeating(name, period_ms, lifetime.into()).map_err(timer_error)
    }

    impl From<Lifetime> for timers::Lifetime {
        fn from(lifetime: Lifetime) -> Self {
            match lifetime {
                Lifetime::Instance => timers::Lifetime::Instance,
                Lifetime::Kept => timers::Lifetime::Kept,
            }
        }
    }

    pub(crate) fn cancel_timer(name: &str) -> bool {
        timers::cancel(name)
    }

    fn timer_error(error: WitTimerError) -> TimerError {
        match error {
            WitTimerError::TooMany(limit) => TimerError::TooMany { limit },
            WitTimerError::TooShort(period_ms_min) => TimerError::TooShort { period_ms_min },
            WitTimerError::NotStored(reason) => TimerError::NotStored { reason },
            WitTimerError::NameTooLong(limit_bytes) => TimerError::NameTooLong { limit_bytes },
        }
    }
}
