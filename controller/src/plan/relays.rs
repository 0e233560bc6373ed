//! Which relays a node attaches to, as whom, and which of them it shares with another node.

use std::collections::BTreeMap;

use haar_protocol::assignment::Assignment;
use haar_protocol::ids::{Name, NodeId};
use haar_protocol::manifest::{ClientCertificate, Credentials, EMBEDDED_PREFERENCE, Place};
use haar_protocol::relay::{
    CERTIFICATE_PURPOSE, CLIENT_PURPOSE, ClientAccess, EMBEDDED, HostPort, NodeCredentials,
    PASSWORD_PURPOSE, RELAYS_OF_NODE_MAX, RelayAccess, RelayMember, RelayRole, RelayUrl,
    ServedRelay,
};

use super::{Fleet, Node};

/// A relay, as far as plans care.
#[derive(Debug, Clone)]
pub(crate) struct Relay {
    /// Its name.
    pub(crate) name: Name,
    /// Nodes use the one with the lowest number that works.
    pub(crate) preference: u16,
    /// Which nodes attach to it.
    pub(crate) nodes: Place,
    /// What passes over it.
    pub(crate) role: RelayRole,
    /// Where it is.
    pub(crate) place: RelayPlace,
}

/// Where a relay is.
#[derive(Debug, Clone)]
pub(crate) enum RelayPlace {
    /// In the controller.
    Embedded,
    /// Somewhere else.
    External {
        /// Its address.
        url: RelayUrl,
        /// The authority of its certificate, when it is not the site's.
        ca_pem: Option<String>,
        /// As whom to connect.
        credentials: Credentials,
        /// How long it keeps a node's session for devices, if anybody has said so.
        session_expiry_s: Option<u32>,
        /// What is shown to it in TLS.
        client: Option<ClientCertificate>,
        /// When the last certificate ends that the site issued for it, if any.
        issued_until_ms: Option<u64>,
    },
    /// In the agent of a node.
    Neighbourhood {
        /// The node.
        node: Name,
        /// Where its neighbours reach it.
        address: HostPort,
        /// Where it listens.
        listen: std::net::SocketAddr,
        /// The certificate that it shows.
        certificate_pem: String,
        /// That certificate's key.
        key_pem: String,
    },
}

impl Relay {
    /// The relay in the controller, of which nobody has said anything.
    pub(crate) fn embedded() -> Self {
        Relay {
            name: EMBEDDED.parse().expect("it is a name"),
            preference: EMBEDDED_PREFERENCE,
            nodes: Place {
                node: None,
                labels: Some(Default::default()),
                count: None,
            },
            role: RelayRole::Everything,
            place: RelayPlace::Embedded,
        }
    }

    /// True when the node with this name and these labels attaches to it: it is meant to, or runs
    /// it.
    fn is_for(&self, name: &Name, labels: &BTreeMap<String, String>) -> bool {
        if self.role == RelayRole::Topics {
            return false; // it is for devices
        }
        let runs_it =
            matches!(&self.place, RelayPlace::Neighbourhood { node: host, .. } if host == name);
        let is_named = self.nodes.node.as_ref() == Some(name);
        let wanted = self.nodes.labels.iter().flatten();
        let has_labels = self.nodes.labels.is_some()
            && wanted
                .clone()
                .all(|(key, value)| labels.get(key) == Some(value));
        runs_it || is_named || has_labels
    }
}

/// The relays of a node, the most preferred first.
pub(crate) fn relays_of<'f>(fleet: &'f Fleet, node: &Node) -> Vec<&'f Relay> {
    attached_relays(&fleet.relays, &node.name, &node.labels)
}

/// Those of `relays` to which the node with this name and these labels attaches, the most preferred
/// first.
pub(crate) fn attached_relays<'r>(
    relays: &'r [Relay],
    name: &Name,
    labels: &BTreeMap<String, String>,
) -> Vec<&'r Relay> {
    let mut relays: Vec<&Relay> = relays
        .iter()
        .filter(|relay| relay.is_for(name, labels))
        .collect();
    relays.sort_by_key(|relay| (relay.preference, &relay.name));
    relays.truncate(RELAYS_OF_NODE_MAX);
    relays
}

/// True when there is only what nodes know since they enrolled: then assignments name no relays.
fn is_plain(fleet: &Fleet) -> bool {
    let is_embedded = |relay: &Relay| matches!(relay.place, RelayPlace::Embedded);
    fleet.relays.iter().all(|relay| {
        is_embedded(relay) && relay.nodes.labels.as_ref().is_some_and(|l| l.is_empty())
    })
}

/// Says in the assignment of a node what it is to know of relays.
pub(super) fn tell(fleet: &Fleet, id: &NodeId, node: &Node, assignment: &mut Assignment) {
    if is_plain(fleet) {
        return;
    }
    let own = relays_of(fleet, node);
    assignment.relays = own
        .iter()
        .filter_map(|relay| access(fleet, node, relay))
        .collect();
    assignment.serves = own
        .iter()
        .filter_map(|relay| served(fleet, id, node, relay))
        .collect();
    for peer in &mut assignment.peers {
        if let Some(other) = fleet.nodes.get(&peer.id) {
            let theirs = relays_of(fleet, other);
            peer.relays = own
                .iter()
                .filter(|relay| theirs.iter().any(|other| other.name == relay.name))
                .map(|relay| relay.name.clone())
                .collect();
        }
    }
}

/// How `node` gets to `relay`. None when its secret can't be sealed, which its length forbids.
pub(crate) fn access(fleet: &Fleet, node: &Node, relay: &Relay) -> Option<RelayAccess> {
    let mut access = RelayAccess {
        name: relay.name.clone(),
        role: relay.role,
        url: None,
        ca_pem: None,
        credentials: NodeCredentials::Proof,
        client: None,
        session_expiry_s: None,
    };
    match &relay.place {
        RelayPlace::Embedded => {}
        RelayPlace::External {
            url,
            ca_pem,
            credentials,
            client,
            session_expiry_s,
            ..
        } => {
            access.session_expiry_s = *session_expiry_s;
            access.url = Some(url.clone());
            access.ca_pem.clone_from(ca_pem);
            access.credentials = node_credentials(fleet, node, credentials)?;
            if let Some(client) = client {
                let shared = fleet.site_key.shared_with(&node.key);
                access.client = Some(ClientAccess {
                    certificate_pem: client.certificate.clone(),
                    key: shared.seal(CLIENT_PURPOSE, &client.key).ok()?,
                });
            }
        }
        RelayPlace::Neighbourhood { address, .. } => {
            access.url = Some(RelayUrl {
                encrypted: true,
                address: address.clone(),
            });
        }
    }
    Some(access)
}

fn node_credentials(
    fleet: &Fleet,
    node: &Node,
    credentials: &Credentials,
) -> Option<NodeCredentials> {
    Some(match credentials {
        Credentials::Generated => NodeCredentials::Generated,
        Credentials::Anonymous => NodeCredentials::Anonymous,
        Credentials::Given { user, password } => {
            let shared = fleet.site_key.shared_with(&node.key);
            NodeCredentials::Given {
                user: user.clone(),
                password: shared.seal(PASSWORD_PURPOSE, password).ok()?,
            }
        }
    })
}

fn served(fleet: &Fleet, id: &NodeId, node: &Node, relay: &Relay) -> Option<ServedRelay> {
    let RelayPlace::Neighbourhood {
        node: host,
        listen,
        certificate_pem,
        key_pem,
        ..
    } = &relay.place
    else {
        return None;
    };
    if host != &node.name {
        return None;
    }
    let shared = fleet.site_key.shared_with(&node.key);
    let members = fleet.nodes.iter().filter(|(other, node)| {
        *other == id
            || relays_of(fleet, node)
                .iter()
                .any(|one| one.name == relay.name)
    });
    Some(ServedRelay {
        name: relay.name.clone(),
        listen: *listen,
        certificate_pem: certificate_pem.clone(),
        key: shared.seal(CERTIFICATE_PURPOSE, key_pem).ok()?,
        nodes: members
            .map(|(id, node)| RelayMember {
                id: id.clone(),
                key: node.key,
            })
            .collect(),
    })
}
