//! Who may connect to the relay, and what they may write and read. Pure: the clock, the directory
//! of nodes and the record of seen proofs are arguments. Only [`super::provider`] asks.

use std::collections::HashMap;

use haar_protocol::ids::{Name, NodeId, SiteId};
use haar_protocol::keys::PublicKey;
use haar_protocol::proof::{self, Audience, CLOCK_SKEW_MS, PROOF_LIFE_MS, ProofError};
use haar_protocol::topics::{self, Topic};

use super::NodeDirectory;

/// Proofs remembered of one identity. A session backs off and makes some thirty in their lifetime;
/// more than this is a client that runs wild, and is refused until the oldest are forgotten.
const PROOFS_PER_SUBJECT_MAX: usize = 512;
const NONCE_BYTES_MAX: usize = 64;

/// Who a connection belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Principal {
    Site,
    Node(NodeId),
}

/// What a client says about itself in its CONNECT.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claim<'a> {
    pub(super) protocol_version: u8,
    pub(super) client_id: &'a str,
    pub(super) user_name: Option<&'a str>,
    pub(super) password: Option<&'a [u8]>,
    /// The topic of its will and whether it is to be retained.
    pub(super) will: Option<(&'a str, bool)>,
}

/// Why a relay refused a client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It speaks an older MQTT.
    #[error("it does not speak MQTT 5")]
    Protocol,
    /// It does not say who it is.
    #[error("it has no user name and password, or its user name is not its client id")]
    NoIdentity,
    /// Nobody knows it.
    #[error("no such node or site is known here")]
    Unknown,
    /// Its proof is not good.
    #[error("{0}")]
    Proof(#[from] ProofError),
    /// Its proof was good, and was used before.
    #[error("its proof was used before")]
    Replayed,
    /// Its proof is good, and one too many.
    #[error("it connected too often within minutes")]
    TooOften,
    /// Its will is not its own.
    #[error("its will is on a topic that it may not publish to")]
    ForeignWill,
}

/// The proofs that were accepted and could be sent again: bounded by identity, and by time.
#[derive(Debug, Default)]
pub(super) struct SeenProofs {
    /// By subject and nonce, when to forget it.
    forget_ms: HashMap<String, HashMap<String, u64>>,
}

impl SeenProofs {
    /// Records a proof that was found good.
    fn record(&mut self, claims: &proof::Claims, now_ms: u64) -> Result<(), Refusal> {
        if claims.nonce.len() > NONCE_BYTES_MAX {
            return Err(Refusal::Proof(ProofError::Malformed));
        }
        let nonces = self.forget_ms.entry(claims.subject.clone()).or_default();
        nonces.retain(|_, forget_ms| *forget_ms >= now_ms);
        if nonces.contains_key(&claims.nonce) {
            return Err(Refusal::Replayed);
        }
        if nonces.len() >= PROOFS_PER_SUBJECT_MAX {
            return Err(Refusal::TooOften);
        }
        let forget_ms = claims
            .issued_ms
            .saturating_add(PROOF_LIFE_MS + CLOCK_SKEW_MS);
        nonces.insert(claims.nonce.clone(), forget_ms);
        Ok(())
    }

    /// Drops what can't be sent again.
    pub(super) fn forget(&mut self, now_ms: u64) {
        self.forget_ms.retain(|_, nonces| {
            nonces.retain(|_, forget_ms| *forget_ms >= now_ms);
            !nonces.is_empty()
        });
    }
}

/// Decides on a CONNECT and records its proof.
pub(super) fn admit(
    claim: &Claim<'_>,
    site: &SiteId,
    site_key: &PublicKey,
    relay: Option<&Name>,
    nodes: &NodeDirectory,
    seen: &mut SeenProofs,
    now_ms: u64,
) -> Result<Principal, Refusal> {
    if claim.protocol_version != 5 {
        return Err(Refusal::Protocol);
    }
    let (Some(user_name), Some(password)) = (claim.user_name, claim.password) else {
        return Err(Refusal::NoIdentity);
    };
    if user_name != claim.client_id {
        return Err(Refusal::NoIdentity);
    }
    let principal = principal(site, user_name).ok_or(Refusal::Unknown)?;
    let key = match &principal {
        Principal::Site => site_key,
        Principal::Node(node) => nodes.get(node).ok_or(Refusal::Unknown)?,
    };
    let password = std::str::from_utf8(password).map_err(|_| ProofError::Malformed)?;
    let claims = proof::check(
        password,
        key,
        Audience::Relay,
        site,
        user_name,
        relay,
        now_ms,
    )?;
    let will_allowed = claim.will.is_none_or(|(topic, retain)| {
        may_publish(&principal, site, nodes, topic) && (!retain || may_retain(site, topic))
    });
    if !will_allowed {
        return Err(Refusal::ForeignWill);
    }
    seen.record(&claims, now_ms)?;
    Ok(principal)
}

/// Who `user_name` names; whether it is known is for the directory to say.
pub(super) fn principal(site: &SiteId, user_name: &str) -> Option<Principal> {
    if user_name == site.as_str() {
        return Some(Principal::Site);
    }
    user_name.parse().ok().map(Principal::Node)
}

/// True when the principal may publish to `topic` now: a node only while the directory has it.
pub(super) fn may_publish(
    principal: &Principal,
    site: &SiteId,
    nodes: &NodeDirectory,
    topic: &str,
) -> bool {
    match principal {
        Principal::Site => topics::site_may_publish(site, topic),
        Principal::Node(node) => {
            nodes.contains_key(node) && topics::node_may_publish(site, node, topic)
        }
    }
}

/// True when the principal may subscribe to `filter` now. Shared subscriptions are never allowed:
/// their filters begin with `$share/`, and nobody here shares a topic.
pub(super) fn may_subscribe(
    principal: &Principal,
    site: &SiteId,
    nodes: &NodeDirectory,
    filter: &str,
) -> bool {
    match principal {
        Principal::Site => topics::site_may_subscribe(site, filter),
        Principal::Node(node) => {
            nodes.contains_key(node) && topics::node_may_subscribe(site, node, filter)
        }
    }
}

/// True when a message on `topic` may be kept: three topics of each node. Topics of links are as
/// many as pairs of nodes that anybody can name, and would fill the disk.
pub(super) fn may_retain(site: &SiteId, topic: &str) -> bool {
    match Topic::parse(site, topic) {
        Some(Topic::Assignment(_) | Topic::Status(_) | Topic::Alive(_)) => true,
        Some(Topic::Request(_) | Topic::Response(_) | Topic::Log(_) | Topic::Link { .. })
        | None => false,
    }
}

#[cfg(test)]
mod tests {
    use haar_protocol::keys::SecretKey;
    use haar_protocol::proof::Claims;

    use super::*;

    const NOW_MS: u64 = 1_800_000_000_000;

    struct Site {
        id: SiteId,
        key: SecretKey,
        node: NodeId,
        node_key: SecretKey,
        nodes: NodeDirectory,
    }

    fn site() -> Site {
        let (key, node_key) = (SecretKey::from_seed([1; 32]), SecretKey::from_seed([2; 32]));
        let node = NodeId::of(&node_key.public());
        let nodes = HashMap::from([(node.clone(), node_key.public())]);
        Site {
            id: SiteId::of(&key.public()),
            key,
            node,
            node_key,
            nodes,
        }
    }

    impl Site {
        fn proof(&self, key: &SecretKey, subject: &str, issued_ms: u64, nonce: &str) -> String {
            let claims = Claims {
                audience: Audience::Relay,
                site: self.id.clone(),
                subject: subject.to_owned(),
                issued_ms,
                nonce: nonce.to_owned(),
                relay: None,
            };
            proof::make(&claims, key)
        }

        fn admit(
            &self,
            seen: &mut SeenProofs,
            user: &str,
            password: &str,
            now_ms: u64,
        ) -> Result<Principal, Refusal> {
            let claim = Claim {
                protocol_version: 5,
                client_id: user,
                user_name: Some(user),
                password: Some(password.as_bytes()),
                will: None,
            };
            admit(
                &claim,
                &self.id,
                &self.key.public(),
                None,
                &self.nodes,
                seen,
                now_ms,
            )
        }
    }

    #[test]
    fn a_proof_admits_once_and_is_forgotten_only_when_it_is_out_of_its_time() {
        let site = site();
        let mut seen = SeenProofs::default();
        let node = site.node.as_str();
        // The maker's clock is ahead as far as it may be: the proof lives longest.
        let issued_ms = NOW_MS + CLOCK_SKEW_MS;
        let password = site.proof(&site.node_key, node, issued_ms, "n");
        let admitted = site.admit(&mut seen, node, &password, NOW_MS);
        assert_eq!(admitted, Ok(Principal::Node(site.node.clone())));
        let last_ms = issued_ms + PROOF_LIFE_MS + CLOCK_SKEW_MS;
        for now_ms in [NOW_MS, NOW_MS + 1_000, last_ms] {
            seen.forget(now_ms);
            let again = site.admit(&mut seen, node, &password, now_ms);
            assert_eq!(again, Err(Refusal::Replayed), "{now_ms}");
        }
        seen.forget(last_ms + 1);
        assert!(seen.forget_ms.is_empty());
        let late = site.admit(&mut seen, node, &password, last_ms + 1);
        assert!(
            matches!(late, Err(Refusal::Proof(ProofError::OutOfTime { .. }))),
            "{late:?}"
        );
    }

    #[test]
    fn the_record_of_proofs_is_bounded_for_each_identity() {
        let site = site();
        let mut seen = SeenProofs::default();
        let node = site.node.as_str();
        let mut attempt = |user: &str, key: &SecretKey, number: usize| {
            let password = site.proof(key, user, NOW_MS, &number.to_string());
            site.admit(&mut seen, user, &password, NOW_MS)
        };
        for number in 0..PROOFS_PER_SUBJECT_MAX {
            assert!(attempt(node, &site.node_key, number).is_ok());
        }
        assert_eq!(
            attempt(node, &site.node_key, usize::MAX),
            Err(Refusal::TooOften)
        );
        assert_eq!(attempt(site.id.as_str(), &site.key, 0), Ok(Principal::Site));
    }

    #[test]
    fn nobody_is_admitted_with_another_key_another_name_or_a_long_nonce() {
        let site = site();
        let mut seen = SeenProofs::default();
        let node = site.node.as_str();
        let other = SecretKey::from_seed([3; 32]);
        let unknown = NodeId::of(&other.public());
        let cases = [
            (node, site.proof(&other, node, NOW_MS, "1")),
            (
                site.id.as_str(),
                site.proof(&site.node_key, site.id.as_str(), NOW_MS, "2"),
            ),
            (
                node,
                site.proof(&site.node_key, site.id.as_str(), NOW_MS, "3"),
            ),
            (
                unknown.as_str(),
                site.proof(&other, unknown.as_str(), NOW_MS, "4"),
            ),
            (
                node,
                site.proof(
                    &site.node_key,
                    node,
                    NOW_MS,
                    &"5".repeat(NONCE_BYTES_MAX + 1),
                ),
            ),
            (node, "no proof".to_owned()),
            (
                "anybody",
                site.proof(&site.node_key, "anybody", NOW_MS, "6"),
            ),
        ];
        for (number, (user, password)) in cases.iter().enumerate() {
            assert!(
                site.admit(&mut seen, user, password, NOW_MS).is_err(),
                "case {number}"
            );
        }
        assert!(
            seen.forget_ms.values().all(HashMap::is_empty),
            "a refused proof takes no room"
        );
    }
}
