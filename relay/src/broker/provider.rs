//! The hooks by which mqtt5 asks who may connect, publish and subscribe. They only translate: [`super::admission`] decides.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use haar_protocol::ids::{Name, NodeId, SiteId};
use haar_protocol::keys::PublicKey;
use haar_protocol::proof::ProofError;
use mqtt5::broker::{AuthProvider, AuthResult};
use mqtt5::packet::connect::ConnectPacket;
use mqtt5::protocol::v5::reason_codes::ReasonCode;
use tokio::sync::{mpsc, watch};

use super::admission::{self, Claim, Principal, Refusal, SeenProofs};
use super::{BrokerOptions, NodeDirectory, RefusedNode};
use crate::clock::unix_time_ms;
use crate::door::{Door, DoorLimits};

/// What mqtt5 wants of a hook: a future on the heap.
pub(super) type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Answers for one relay.
#[derive(Debug)]
pub(super) struct Gatekeeper {
    site: SiteId,
    site_key: PublicKey,
    name: Option<Name>,
    nodes: watch::Receiver<Arc<NodeDirectory>>,
    pub(super) door: Arc<Door>,
    refusals: Option<mpsc::Sender<RefusedNode>>,
    /// Connections take it to record their proof, housekeeping to forget old ones.
    seen: Mutex<SeenProofs>,
}

impl Gatekeeper {
    pub(super) fn new(options: &BrokerOptions) -> Self {
        let limits = &options.limits;
        Self {
            site: options.site.clone(),
            site_key: options.site_key,
            name: options.name.clone(),
            nodes: options.nodes.clone(),
            door: Door::new(DoorLimits {
                admitted_max: limits.connections_max,
                admitted_per_address_max: limits.connections_per_address_max,
                strangers_max: limits.strangers_max,
                strangers_per_address_max: limits.strangers_per_address_max,
            }),
            refusals: options.refusals.clone(),
            seen: Mutex::new(SeenProofs::default()),
        }
    }

    pub(super) fn forget_old_proofs(&self) {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .forget(unix_time_ms());
    }

    fn admit(&self, connect: &ConnectPacket, peer: SocketAddr) -> AuthResult {
        let claim = Claim {
            protocol_version: connect.protocol_version,
            client_id: &connect.client_id,
            user_name: connect.username.as_deref(),
            password: connect.password.as_deref(),
            will: connect
                .will
                .as_ref()
                .map(|will| (will.topic.as_str(), will.retain)),
        };
        let nodes = Arc::clone(&self.nodes.borrow());
        let decision = {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            admission::admit(
                &claim,
                &self.site,
                &self.site_key,
                self.name.as_ref(),
                &nodes,
                &mut seen,
                unix_time_ms(),
            )
        };
        match decision {
            Ok(_) if self.door.admit(peer) => {
                AuthResult::success_with_user(connect.client_id.clone())
            }
            Ok(_) => AuthResult::fail(ReasonCode::ServerBusy),
            Err(refusal) => {
                report(&refusal, &connect.client_id, peer);
                self.tell(&refusal, &connect.client_id, &nodes, peer);
                AuthResult::fail(code(&refusal))
            }
        }
    }

    /// Passes on that a node of the site was refused, to whoever wants to know.
    fn tell(&self, refusal: &Refusal, client_id: &str, nodes: &NodeDirectory, peer: SocketAddr) {
        let (Some(refusals), Ok(node)) = (&self.refusals, client_id.parse::<NodeId>()) else {
            return;
        };
        if nodes.contains_key(&node) {
            let refusal = refusal.clone();
            // One that is left out is refused again soon.
            let _ = refusals.try_send(RefusedNode {
                node,
                peer,
                refusal,
            });
        }
    }

    /// Applies `rule` to the principal of a connection; without one, nothing is allowed.
    fn allows(
        &self,
        user: Option<&str>,
        rule: impl Fn(&Principal, &SiteId, &NodeDirectory) -> bool,
    ) -> bool {
        let principal = user.and_then(|user| admission::principal(&self.site, user));
        principal.is_some_and(|principal| rule(&principal, &self.site, &self.nodes.borrow()))
    }
}

impl AuthProvider for Gatekeeper {
    fn authenticate<'a>(
        &'a self,
        connect: &'a ConnectPacket,
        client_addr: SocketAddr,
    ) -> Answer<'a, mqtt5::Result<AuthResult>> {
        Box::pin(std::future::ready(Ok(self.admit(connect, client_addr))))
    }

    fn authorize_publish<'a>(
        &'a self,
        _client_id: &str,
        user_id: Option<&'a str>,
        topic: &'a str,
    ) -> Answer<'a, bool> {
        let allowed = self.allows(user_id, |principal, site, nodes| {
            admission::may_publish(principal, site, nodes, topic)
        });
        Box::pin(std::future::ready(allowed))
    }

    fn authorize_subscribe<'a>(
        &'a self,
        _client_id: &str,
        user_id: Option<&'a str>,
        topic_filter: &'a str,
    ) -> Answer<'a, bool> {
        let allowed = self.allows(user_id, |principal, site, nodes| {
            admission::may_subscribe(principal, site, nodes, topic_filter)
        });
        Box::pin(std::future::ready(allowed))
    }
}

/// Strangers can say anything as often as they like, so only what a key has signed is a warning.
fn report(refusal: &Refusal, client_id: &str, peer: SocketAddr) {
    let client: String = client_id.chars().take(64).collect();
    match refusal {
        Refusal::Proof(ProofError::OutOfTime { skew_ms }) => {
            tracing::warn!(client, %peer, skew_ms, "refused: {refusal}");
        }
        Refusal::Replayed | Refusal::TooOften | Refusal::ForeignWill => {
            tracing::warn!(client, %peer, "refused: {refusal}");
        }
        Refusal::Protocol | Refusal::NoIdentity | Refusal::Unknown | Refusal::Proof(_) => {
            tracing::info!(client, %peer, "refused: {refusal}");
        }
    }
}

fn code(refusal: &Refusal) -> ReasonCode {
    match refusal {
        Refusal::Protocol => ReasonCode::UnsupportedProtocolVersion,
        Refusal::NoIdentity | Refusal::Unknown | Refusal::Proof(_) | Refusal::Replayed => {
            ReasonCode::BadUsernameOrPassword
        }
        Refusal::ForeignWill => ReasonCode::NotAuthorized,
        Refusal::TooOften => ReasonCode::ConnectionRateExceeded,
    }
}
