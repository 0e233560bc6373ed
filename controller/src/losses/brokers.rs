//! What brokers keep for nodes that go elsewhere, since a relay has another address. How much that is,
//! only the broker knows; and nobody knows whether both addresses are of one broker.

use std::collections::BTreeSet;

use haar_protocol::assignment::MicroserviceName;
use haar_protocol::ids::{Name, NodeId};
use haar_protocol::manifest::Delivery;
use haar_protocol::relay::RelayUrl;
use haar_protocol::rest::{Loss, LossKind};

use super::{Change, listed};
use crate::plan::{Relay, RelayPlace};

impl Change<'_> {
    /// What waits for durable routes from topics at brokers that nodes leave.
    pub(super) fn left_at_brokers(&self) -> Vec<Loss> {
        let mut losses = Vec::new();
        for relay in &self.before.fleet.relays {
            let mut later = self.after.relays.iter();
            let later = later.find(|one| one.name == relay.name);
            // One that is deleted is in no route.
            let Some((before, after)) = url(relay).zip(later.and_then(url)) else {
                continue;
            };
            let nodes = self.readers(&relay.name);
            if before.address == after.address || nodes.is_empty() {
                continue;
            }
            let (known_ms, age) = self.known(&nodes);
            let nodes = self.before_names(&nodes);
            losses.push(Loss {
                kind: LossKind::Messages,
                subject: relay.name.to_string(),
                count: 0,
                known_ms,
                message: format!(
                    "what waits for {} at {before} (relay `{}`) will be lost, unless {after} is the same broker{age}",
                    listed(&nodes),
                    relay.name
                ),
                nodes,
            });
        }
        losses
    }

    /// The nodes for which a relay may keep messages: they have read topics there. Most waits for those that
    /// are cut off.
    fn readers(&self, relay: &Name) -> BTreeSet<&NodeId> {
        let mut readers = BTreeSet::new();
        for application in self.before.fleet.applications.values() {
            let routes = application.manifest.routes.iter();
            let kept = routes.filter(|route| {
                route.relay.as_ref() == Some(relay)
                    && route.delivery == Delivery::Durable
                    && route.from.topic().is_some()
            });
            for port in kept.filter_map(|route| route.to.port()) {
                let name = MicroserviceName {
                    application: application.manifest.name.clone(),
                    microservice: port.microservice.clone(),
                };
                let nodes = self.before.fleet.placements.get(&name);
                let nodes = nodes.into_iter().flatten();
                readers.extend(nodes.filter(|node| self.has_reported(node, relay)));
            }
        }
        readers
    }

    fn has_reported(&self, node: &NodeId, relay: &Name) -> bool {
        let row = self.before.statuses.get(node);
        let mut brokers = row.into_iter().flat_map(|row| &row.status.brokers);
        brokers.any(|broker| &broker.name == relay)
    }
}

fn url(relay: &Relay) -> Option<&RelayUrl> {
    match &relay.place {
        RelayPlace::External { url, .. } => Some(url),
        RelayPlace::Embedded | RelayPlace::Neighbourhood { .. } => None,
    }
}
