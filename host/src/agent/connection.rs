//! The way to a relay, and small things that the control loop needs.

use anyhow::Context as _;
use bytes::Bytes;
use haar_link::runs;
use haar_protocol::ids::{NodeId, SiteId};
use haar_protocol::keys::{PublicKey, SecretKey};
use haar_protocol::relay::{
    CLIENT_PURPOSE, ClientAccess, NodeCredentials, PASSWORD_PURPOSE, RelayAccess, RelayRole,
    client_among_many,
};
use haar_protocol::topics::{self, Topic};
use haar_relay::{
    ClientCertificate, Credentials, Endpoint, Identity, Outgoing, Session, SessionEvent,
    SessionOptions, SessionTask,
};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::identity::Membership;
use crate::local_api::state::now_ms;

/// Events of a relay that may wait to be sorted.
const RELAY_EVENTS_MAX: usize = 256;
/// Publishes that may wait for a relay.
const RELAY_QUEUE_MESSAGES: usize = 64;

/// Who this node is at relays.
#[derive(Debug, Clone)]
pub(super) struct Account {
    pub(super) site: SiteId,
    pub(super) site_key: PublicKey,
    pub(super) node: NodeId,
    pub(super) key: SecretKey,
    /// The relay that it knows since it enrolled.
    pub(super) enrolled: Option<String>,
    /// The site's certificate authority.
    pub(super) ca_pem: String,
}

impl Account {
    pub(super) fn new(membership: &Membership, key: &SecretKey) -> Self {
        Self {
            site: membership.site.clone(),
            site_key: membership.site_key,
            node: membership.node.clone(),
            key: key.clone(),
            enrolled: membership.relays.first().cloned(),
            ca_pem: membership.ca_pem.clone(),
        }
    }

    /// Where a relay is, and what is trusted and shown there.
    ///
    /// # Errors
    /// When it can't be used.
    pub(super) fn endpoint(&self, access: &RelayAccess) -> anyhow::Result<Endpoint> {
        let ca_pem = access.ca_pem.as_ref().unwrap_or(&self.ca_pem);
        let endpoint = match &access.url {
            Some(url) => Endpoint::new(url, Some(ca_pem))?,
            None => {
                let url = self.enrolled.as_ref();
                let url = url.context("the enrolment names no relay: enrol again")?;
                Endpoint::parse(url, Some(ca_pem))?
            }
        };
        let open = |client: &ClientAccess| -> anyhow::Result<_> {
            let shared = self.key.shared_with(&self.site_key);
            Ok(ClientCertificate {
                certificate_pem: client.certificate_pem.clone(),
                key_pem: shared.open(CLIENT_PURPOSE, &client.key)?,
            })
        };
        let client = access.client.as_ref().map(open).transpose()?;
        Ok(endpoint.showing(client)?)
    }

    /// Who the node is at a relay, as `user` where it has a password of its own.
    ///
    /// # Errors
    /// When it can't be used.
    pub(super) fn identity(&self, access: &RelayAccess, user: String) -> anyhow::Result<Identity> {
        Ok(Identity {
            credentials: self.credentials(access, &user)?,
            client_id: user,
        })
    }

    fn credentials(&self, access: &RelayAccess, own: &str) -> anyhow::Result<Credentials> {
        let shared = || self.key.shared_with(&self.site_key);
        Ok(match &access.credentials {
            NodeCredentials::Proof => Credentials::Proof {
                site: self.site.clone(),
                relay: access.url.is_some().then(|| access.name.clone()),
                key: Box::new(self.key.clone()),
            },
            NodeCredentials::Generated => Credentials::Password {
                user: own.to_owned(),
                password: shared().relay_password(&access.name),
            },
            NodeCredentials::Given { user, password } => Credentials::Password {
                user: user.clone(),
                password: shared().open(PASSWORD_PURPOSE, password)?,
            },
            NodeCredentials::Anonymous => Credentials::Anonymous,
        })
    }
}

/// Prepares the session with a relay.
///
/// # Errors
/// When the relay can't be used.
pub(super) fn connect(
    account: &Account,
    access: &RelayAccess,
) -> anyhow::Result<(Session, SessionTask, mpsc::Receiver<SessionEvent>)> {
    let (site, node) = (&account.site, &account.node);
    let sees_site = access.role == RelayRole::Everything;
    let mut identity = account.identity(access, node.to_string())?;
    if let NodeCredentials::Given { .. } | NodeCredentials::Anonymous = access.credentials {
        identity.client_id = client_among_many(node, &access.name);
    }
    let options = SessionOptions {
        endpoint: account.endpoint(access)?,
        identity,
        will: sees_site.then(|| alive(site, node, "offline")),
        subscriptions: match sees_site {
            true => topics::node_subscriptions(site, node),
            false => topics::link_subscriptions(site, node),
        },
        queue_messages: RELAY_QUEUE_MESSAGES,
    };
    let (events, received) = mpsc::channel(RELAY_EVENTS_MAX);
    let (session, task) = Session::start(options, events, CancellationToken::new());
    Ok((session, task, received))
}

pub(super) fn alive(site: &SiteId, node: &NodeId, word: &'static str) -> Outgoing {
    Outgoing {
        topic: Topic::Alive(node.clone()).text(site),
        payload: Bytes::from_static(word.as_bytes()),
        at_least_once: true,
        retain: true,
    }
}

/// Names a run of logs that begins now.
pub(super) fn fresh_epoch() -> u64 {
    // Without random bytes it is still later than those of earlier starts.
    runs::epoch(now_ms(), getrandom::u32().unwrap_or(0))
}

/// One random byte; no matter if the machine has none to give.
pub(super) fn jitter() -> u8 {
    let mut byte = [0];
    match getrandom::fill(&mut byte) {
        Ok(()) => byte[0],
        Err(_) => 0,
    }
}

pub(super) async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}
