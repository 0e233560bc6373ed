//! The state of the session with one broker of devices, as statuses report it. The session's task
//! writes it, the control loop reads it.

use std::sync::{Mutex, PoisonError};

use haar_protocol::ids::Name;
use haar_protocol::status::RelayStatus;
use haar_protocol::text;
use tokio::sync::mpsc;

use super::Event;
use super::links::REASON_BYTES_MAX;
use crate::local_api::state::now_ms;

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Health {
    /// Locked for a copy or an assignment, by the session's task and the control loop.
    status: Mutex<RelayStatus>,
    events: mpsc::Sender<Event>,
}

impl Health {
    /// Not connected yet.
    pub(super) fn new(relay: Name, events: mpsc::Sender<Event>) -> Self {
        let status = RelayStatus {
            name: relay,
            connected: false,
            reason: None,
            since_ms: Some(now_ms()),
        };
        Self {
            status: Mutex::new(status),
            events,
        }
    }

    pub(super) fn status(&self) -> RelayStatus {
        let status = self.status.lock();
        status.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// There is a connection, or there is none for a reason.
    pub(super) fn set(&self, connected: bool, reason: Option<&str>) {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        if status.connected != connected {
            status.connected = connected;
            status.since_ms = Some(now_ms());
        }
        status.reason = reason.map(|reason| text::line(reason, REASON_BYTES_MAX));
        drop(status);
        // A control loop with a full queue sends a status soon anyway; this task never waits for it.
        let _ = self.events.try_send(Event::Changed);
    }
}
