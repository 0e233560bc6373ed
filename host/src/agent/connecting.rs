//! What it means for the control loop that a relay is there, or is gone; and what tells this start of
//! the agent from another agent with the same identity.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use haar_link::paths::RelayNumber;
use haar_protocol::relay::{NodeCredentials, RelayRole};
use haar_protocol::status::StartStatus;
use haar_protocol::text;
use haar_relay::DisconnectReason;
use tokio::time::Instant;

use super::clock;
use super::connection::alive;
use super::links::REASON_BYTES_MAX;
use super::run::Agent;

/// The clock is asked about no more often than this.
const DIAGNOSIS_PAUSE: Duration = Duration::from_secs(60);

/// This start of the agent.
#[derive(Debug)]
pub(super) struct Start {
    id: String,
    /// The address of this machine on the way to the relay that it met last.
    address: Arc<ArcSwapOption<String>>,
}

impl Default for Start {
    fn default() -> Self {
        // Without random bytes every start looks the same: two agents are not noticed then.
        let id = getrandom::u64().unwrap_or(0);
        Self {
            id: format!("{id:016x}"),
            address: Arc::default(),
        }
    }
}

impl Start {
    /// What statuses say of it.
    pub(super) fn status(&self) -> StartStatus {
        StartStatus {
            id: self.id.clone(),
            address: self.address.load_full().map(|address| address.to_string()),
        }
    }
}

impl Agent {
    pub(super) fn connected_to(&mut self, relay: RelayNumber) {
        let table = self.relays.table().borrow().clone();
        let Some(attachment) = table.iter().find(|one| one.number == relay) else {
            return; // it was left meanwhile
        };
        tracing::info!("connected to the relay {}", attachment.name);
        self.node.changed = true;
        if let Some(endpoint) = self.relays.endpoint(relay) {
            let address = Arc::clone(&self.start.address);
            self.work.spawn(async move {
                if let Some(found) = endpoint.local_address().await {
                    address.store(Some(Arc::new(found.to_string())));
                }
            });
        }
        if attachment.role != RelayRole::Everything {
            return;
        }
        let (site, node) = (&self.options.membership.site, &self.options.membership.node);
        let (session, alive) = (attachment.session.clone(), alive(site, node, "online"));
        // Beside the loop: the queue to the relay may be full.
        self.work.spawn(async move {
            if let Err(error) = session.publish(alive).await {
                tracing::debug!("not sent: {error}");
            }
        });
    }

    pub(super) fn disconnected(&mut self, relay: RelayNumber, reason: &DisconnectReason) {
        let Some(access) = self.relays.access(relay) else {
            return; // it was left meanwhile
        };
        let name = &access.name;
        let words = text::line(&reason.to_string(), REASON_BYTES_MAX);
        tracing::warn!("relay {name}: {words}");
        self.node.changed = true;
        if reason.is_takeover() {
            let node = &self.options.membership.node;
            let what = match reason {
                DisconnectReason::TakenOver => "another agent runs",
                _ => "another agent may be running",
            };
            tracing::error!(
                "{what} with the identity of this node, {node}: run only one of them. This one keeps what it has stored and tries again later"
            );
        }
        if !matches!(reason, DisconnectReason::Refused(_)) {
            return;
        }
        if access.credentials != NodeCredentials::Proof {
            tracing::warn!(
                "relay {name} is a broker with users of its own: `haar relay credentials {name}` writes them down for it"
            );
            return;
        }
        let asked_lately = self
            .diagnosed
            .is_some_and(|asked| asked.elapsed() < DIAGNOSIS_PAUSE);
        if !asked_lately {
            self.diagnosed = Some(Instant::now());
            let controller = self.controller.clone();
            self.work
                .spawn_blocking(move || clock::diagnose(&controller));
        }
    }
}
