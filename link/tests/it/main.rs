//! The links as a whole, from outside.

#![allow(
    clippy::unwrap_used,
    reason = "a test that can't go on ends at once, with the line"
)]

mod frames;
mod hearing;
mod senders;
mod sessions;
mod simulation;
