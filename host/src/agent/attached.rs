//! What the agent does when a relay comes and goes.

use std::time::Duration;

use haar_link::paths::RelayNumber;
use haar_protocol::relay::{NodeCredentials, RelayRole};
use haar_relay::DisconnectReason;
use tokio::time::Instant;

use super::clock;
use super::connection::alive;
use super::run::Agent;

/// The clock is asked about no more often than this.
const DIAGNOSIS_PAUSE: Duration = Duration::from_secs(60);

impl Agent {
    pub(super) fn connected_to(&mut self, relay: RelayNumber) {
        let table = self.relays.table().borrow().clone();
        let Some(attachment) = table.iter().find(|one| one.number == relay) else {
            return; // it was left meanwhile
        };
        tracing::info!("connected to the relay {}", attachment.name);
        self.node.changed = true;
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
        tracing::warn!("relay {name}: {reason}");
        self.node.changed = true;
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
