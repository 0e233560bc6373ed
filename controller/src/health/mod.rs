//! How everything in the site does, from what the controller knows and since when it knows it: the one
//! place that decides what people are told. Pure: the facts and the time are arguments. `overview`
//! and `api` call it; commands print what it says.
//!
//! ```text
//! presence at relays, last status and its age ─► node ─┬─► relay ────────┐
//! observations, newest assignment ─────────────────────┤                 ├─► site
//! what should be, in which assignment ─────────────────┴─► instance ─┐   │
//! what has no place ─────────────────────────────────────────────────┴─► application
//! ```
//! Two rules hold everywhere: nothing is healthy by an old status, and what is said comes with since
//! when it is so and how old the report is that it rests on.

mod node;
mod instance;
mod application;
mod relay;
mod route;
mod site;
#[cfg(test)]
mod tests;

pub(crate) use application::application;
pub(crate) use instance::{Instance, Wanted, instance};
pub(crate) use node::{NodeFacts, is_heard, node};
pub(crate) use relay::{RelayFacts, relay};
pub(crate) use route::{PairFacts, PairsHealth, pair};
pub(crate) use site::site;

use haar_protocol::text::duration;

/// How long ago `then_ms` was, for people.
fn age(now_ms: u64, then_ms: u64) -> String {
    duration(now_ms.saturating_sub(then_ms))
}
