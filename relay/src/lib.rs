//! Haar's only MQTT code: the session with which agents and controllers talk to a relay, the one with
//! which agents talk to plain MQTT devices, and the relay that a controller embeds. `host` and `controller` call it; nobody else names an MQTT crate.
//!
//! A relay is a pipe that may lose, repeat, reorder, delay or read: a PUBACK means "left the node"
//! and nothing more. So this crate never promises delivery, never touches what is in a payload and
//! keeps nothing on the node's disk; callers send whole snapshots, and links acknowledge end to end.

#![cfg_attr(
    test,
    allow(clippy::unwrap_used, reason = "a test that can't go on fails")
)]

mod backoff;
#[cfg(feature = "broker")]
mod broker;
#[cfg(feature = "check")]
mod check;
mod clock;
mod connection;
mod descriptors;
mod devices;
#[cfg(feature = "broker")]
mod door;
mod driver;
mod endpoint;
#[cfg(feature = "broker")]
mod pace;
mod reason;
mod session;
mod tls;
mod window;

pub use backoff::TakeoverPauses;
#[cfg(feature = "broker")]
pub use broker::{
    Broker, BrokerError, BrokerLimits, BrokerOptions, NodeDirectory, Refusal, RefusedNode,
    ServerTls, remove_earlier_state,
};
#[cfg(feature = "check")]
pub use check::{CheckOptions, check};
pub use descriptors::raise_descriptor_limit;
pub use devices::{
    DeviceEvent, DeviceMessage, DeviceOptions, DevicePublish, DevicePublishError, DeviceSession,
    DeviceSubscription, DeviceTask, DeviceTerms, DeviceWants, FORMER_SILENCE, Former, Held,
    MessageProperties, Outcome, Receipt, SESSION_EXPIRY_S, end_session,
};
#[cfg(feature = "broker")]
pub use door::{Door, DoorLimits, Full, Place, Progress, Source};
pub use endpoint::{ClientCertificate, Endpoint, RelayError, TlsTrust};
#[cfg(feature = "broker")]
pub use pace::{Pace, Rate};
pub use reason::DisconnectReason;
pub use session::{
    Credentials, Identity, Outgoing, PublishError, Room, Session, SessionEvent, SessionOptions,
    SessionTask,
};

/// The largest MQTT packet that a session or the embedded relay takes, in bytes.
pub const PACKET_BYTES_MAX: u32 = 1024 * 1024;
