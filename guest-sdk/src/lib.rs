//! Haar's guest contract, pleasant from Rust: a microservice is a struct, one trait whose functions
//! all have defaults, and one line that exports it.
//!
//! ```
//! use std::time::Duration;
//!
//! use haar_guest::{Message, Microservice, Rejection, Tick, config, log, publish, timers};
//!
//! /// Counts the messages that mention a word, and publishes the count every ten seconds.
//! #[derive(Default)]
//! struct Counter {
//!     word: String,
//!     count: u64,
//! }
//!
//! impl Microservice for Counter {
//!     fn start(&mut self) -> Result<(), String> {
//!         self.word = config::get("word")?.ok_or("the configuration has no `word`")?;
//!         timers::every("publish", Duration::from_secs(10))?;
//!         log::info!("counting `{}`", self.word);
//!         Ok(())
//!     }
//!
//!     fn handle(&mut self, message: Message) -> Result<(), Rejection> {
//!         if message.text()?.contains(&self.word) {
//!             self.count += 1;
//!         }
//!         Ok(())
//!     }
//!
//!     fn tick(&mut self, _tick: Tick) -> Result<(), String> {
//!         publish("counts", self.count.to_string(), &[("word", &self.word)])?;
//!         Ok(())
//!     }
//! }
//!
//! haar_guest::export!(Counter);
//!
//! // The logic is tested on the development machine, with plain `cargo test`:
//! # fn main() {
//! use haar_guest::testing::{self, Harness};
//!
//! let mut harness = Harness::<Counter>::new().configure("word", "fog");
//! harness.deliver(testing::message("lines", "a cold fog")).unwrap();
//! harness.deliver(testing::message("lines", "sunshine")).unwrap();
//! harness.tick("publish").unwrap();
//!
//! let published = harness.published();
//! assert_eq!(published[0].outlet, "counts");
//! assert_eq!(published[0].text(), "1");
//! # }
//! ```
//!
//! With the feature `json`, bodies are values: `let reading: Reading = message.json()?` and
//! `json::publish("readings", &reading)?`.
//!
//! Requests and their replies are two routes and the module [`request`]; timers that outlive the
//! instance are in [`timers`]; what the node is, in [`node`]; what it measures, in [`system`].
//!
//! Build it with `crate-type = ["cdylib"]` for the target `wasm32-wasip2`.
//!
//! # What the agent promises
//! - `start` is the first call into an instance, `stop` the last.
//! - Calls come one at a time; while one runs, no other begins.
//! - Messages of one source come in the order in which it published them.
//! - An instance that traps (a panic is a trap) is thrown away: a new one begins with `start`.

mod microservice;

mod message;
mod publish;
mod text;

pub mod config;
pub mod history;
pub mod key_value;
#[cfg(feature = "json")]
pub mod json;
pub mod log;
pub mod node;
pub mod request;
pub mod system;
pub mod timers;

#[cfg(not(target_arch = "wasm32"))]
pub mod testing;

#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub mod component;

/// The functions of the agent that this crate calls: imports in a component, a recorder in tests.
#[cfg(target_arch = "wasm32")]
use component::imports as agent;
#[cfg(not(target_arch = "wasm32"))]
use testing::imports as agent;

#[cfg(target_arch = "wasm32")]
use component::{history as agent_history, key_value as agent_key_value, system as agent_system};
#[cfg(not(target_arch = "wasm32"))]
use testing::{history as agent_history, key_value as agent_key_value, system as agent_system};

pub use message::{Message, Rejection, Source};
pub use microservice::Microservice;
pub use publish::{Outgoing, PublishError, publish, publish_batch};
pub use text::Text;
pub use timers::Tick;

/// Makes a type that implements [`Microservice`] the microservice of this component. Write it
/// once, at the top of the crate.
#[cfg(target_arch = "wasm32")]
#[macro_export]
macro_rules! export {
    ($service:ty) => {
        const _: () = {
            type Component = $crate::component::Exported<$service>;
            $crate::component::bindings::export_component!(
                Component with_types_in $crate::component::bindings
            );
        };
    };
}

/// Makes a type that implements [`Microservice`] the microservice of this component. Write it
/// once, at the top of the crate. (On this target nothing is exported: tests hand the type to
/// [`testing::Harness`].)
#[cfg(not(target_arch = "wasm32"))]
#[macro_export]
macro_rules! export {
    ($service:ty) => {
        const _: fn() -> $crate::testing::Harness<$service> = $crate::testing::Harness::new;
    };
}
