//! The agent: one owner of control state. A closed [`Event`] tells what happened; the state
//! ([`node::Node`]) decides; the owner ([`run`]) acts.

mod pauses;
pub mod slot;
pub mod node;
mod actions;
mod view;

mod links;
mod log_shipper;
mod reporter;
mod clock;
pub mod run;
mod effects;
mod ending;

use std::sync::Arc;

use bytes::Bytes;
use haar_protocol::assignment::{Microservice, MicroserviceName};
use haar_relay::DisconnectReason;
use wasmtime::component::InstancePre;

use crate::local_api::state::State;
use crate::modules::PrepareError;

/// Everything that can happen to the control state.
pub enum Event {
    /// The relay delivered an assignment.
    Assignment(Bytes),
    /// The relay is there.
    Connected,
    /// The relay is gone, or refuses us.
    Disconnected(DisconnectReason),
    /// A module is ready, or is not.
    Prepared(Arc<Microservice>, Result<InstancePre<State>, PrepareError>),
    /// An instance's `start` has returned.
    Started(MicroserviceName, u64),
}
