//! The agent: one owner of control state. A closed [`Event`] tells what happened; the state
//! ([`node::Node`]) decides; the owner ([`run`]) acts.

mod pauses;
pub mod slot;
pub mod node;
mod numbers;
mod actions;
mod replay;
mod view;

mod connecting;
mod connection;
mod relays;
#[cfg_attr(not(feature = "neighbourhood-relay"), path = "not_serving.rs")]
mod serving;
mod links;
mod peer_link;
mod devices;
mod device_health;
mod device_link;
mod device_intake;
mod device_states;
mod device_commit;
mod device_discards;
mod device_output;
mod device_stream;
mod device_errands;
mod letters;
mod requests;
mod log_shipper;
mod housekeeping;
mod flash;
mod reporter;
mod reports;
mod clock;
pub mod run;
mod assigning;
mod effects;
mod preparing;
pub mod ending;

use std::sync::Arc;

use bytes::Bytes;
use haar_link::paths::RelayNumber;
use haar_protocol::assignment::{Microservice, MicroserviceName};
use haar_relay::DisconnectReason;
use tokio::sync::oneshot;
use wasmtime::component::InstancePre;

use crate::local_api::state::State;
use crate::modules::PrepareError;
use crate::store::dead_letters::DeadLetter;

/// Everything that can happen to the control state.
pub enum Event {
    /// The relay delivered an assignment.
    Assignment(Bytes),
    /// A relay is there.
    Connected(RelayNumber),
    /// A relay is gone, or refuses us.
    Disconnected(RelayNumber, DisconnectReason),
    /// A module is ready, or is not.
    Prepared(Arc<Microservice>, Result<InstancePre<State>, PrepareError>),
    /// An instance's `start` or `configuration-changed` has returned.
    Answered(MicroserviceName, u64),
    /// A dead letter goes back into its inbox; the answer says why not.
    Replay(Box<DeadLetter>, oneshot::Sender<Result<(), String>>),
    /// Something that statuses report has changed: dead letters, or a session with a broker of devices.
    Changed,
}
