//! The controller as a whole: real TLS, the real embedded relay, a real database, on loopback.
//! Nothing is mocked and nothing sleeps; what takes time is waited for with a deadline.

#![allow(
    clippy::unwrap_used,
    reason = "unwrap is for tests, and for what tests share"
)]

mod support;

mod applying;
mod asking;
mod compiling;
mod counting;
mod contract;
mod deleting;
mod describing;
mod differing;
mod losing;
mod enrolling;
mod flooding;
mod following;
mod health;
mod link_keys;
mod numbers;
mod process;
mod pushing;
mod naming;
mod relays;
mod relays_losing;
mod reporting;
mod restarting;
mod rotating;
