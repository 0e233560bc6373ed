//! The site's side of its relay: the embedded broker, and the site's own session with it. Publishes
//! the newest assignments, and brings what nodes report into the database.
//!
//! ```text
//! commits ──generation──► publisher ──retained, QoS 1──► relay ──► nodes
//! database ◄──one transaction per batch── intake ◄──events── session ◄── relay
//!    ▲                                       └─ who has news ─► adoption ─┐
//!    └──────────────────── now and then, one plan for all of them ────────┘
//! ```
//! Publisher and intake are two tasks: a session that waits for its events to be read sends nothing.
//! With each broker that is not ours and carries everything there is such a session too.

mod site_session;
mod publisher;
mod reports;
mod attached;
mod meters;
mod taking;
mod presence;
mod adoption;
mod renewal;
mod requests;
mod external;
mod leaving;
mod refusals;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use haar_protocol::ids::{Name, NodeId};
use haar_protocol::relay::EMBEDDED;
use haar_protocol::request::{Operation, Outcome};
use haar_protocol::topics;
use haar_relay::{
    Broker, BrokerLimits, BrokerOptions, Endpoint, Identity, ServerTls, SessionOptions, TlsTrust,
};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::db::Database;
use crate::db::nodes::NodeRow;
use crate::failure::Failure;
use crate::site::Site;
use adoption::Adoption;
use external::{Externals, Sessions};
use leaving::Leaving;
pub(crate) use leaving::{DeviceSession, device_sessions};
use presence::Presence;
use reports::{Reports, Shared};
use requests::Requests;
use site_session::SiteSession;

const QUEUE_MESSAGES: usize = 256;
const REVOCATIONS_MAX: usize = 16;
/// How long a request waits for the relay to forget a node; the relay goes on by itself.
const REVOKE_TIMEOUT: Duration = Duration::from_secs(5);

struct Revocation {
    node: NodeId,
    name: Name,
    sessions: Vec<DeviceSession>,
    done: oneshot::Sender<()>,
}

/// How requests reach the relay. Cheap to clone.
#[derive(Clone)]
pub(crate) struct RelayLink {
    revocations: mpsc::Sender<Revocation>,
    sessions: Sessions,
    requests: Requests,
    presence: Presence,
}

impl RelayLink {
    /// Asks a node and waits for its answer.
    ///
    /// # Errors
    /// When it does not answer in time, or too many requests wait.
    pub(crate) async fn ask(
        &self,
        site: &Site,
        node: &NodeRow,
        operation: Operation,
    ) -> Result<Outcome, Failure> {
        self.requests
            .ask(site, &self.sessions.usable(), node, operation)
            .await
    }

    /// The relays to which the controller itself connects, and why it is not connected; none when it
    /// is.
    pub(crate) fn problems(&self) -> BTreeMap<Name, Option<String>> {
        self.sessions.problems()
    }

    /// At which relays each node is, of those to which the controller has a session.
    pub(crate) fn presence(&self) -> HashMap<NodeId, BTreeSet<Name>> {
        self.presence.everybody()
    }

    /// Waits until the relay has cut off a node that is no longer in the directory. What it had at
    /// brokers of devices is ended in the background.
    pub(crate) async fn revoke(&self, node: NodeId, name: Name, sessions: Vec<DeviceSession>) {
        let (done, is_done) = oneshot::channel();
        let asked = async {
            if self
                .revocations
                .send(Revocation {
                    node: node.clone(),
                    name,
                    sessions,
                    done,
                })
                .await
                .is_ok()
            {
                let _ = is_done.await; // the relay has stopped: nobody is connected
            }
        };
        if tokio::time::timeout(REVOKE_TIMEOUT, asked).await.is_err() {
            tracing::warn!(%node, "the relay has not confirmed yet that a revoked node is cut off");
        }
    }
}

/// The running relay and the tasks around it.
pub(crate) struct Relay {
    address: SocketAddr,
    session: SiteSession,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Relay {
    /// Starts the relay and connects to it.
    ///
    /// # Errors
    /// When the relay can't listen.
    pub(crate) async fn start(
        listen: SocketAddr,
        limits: BrokerLimits,
        site: &Arc<Site>,
        database: &Database,
    ) -> anyhow::Result<(Relay, RelayLink)> {
        haar_relay::remove_earlier_state(&site.directory.join("relay"));
        let (refusals, refused) = mpsc::channel(refusals::QUEUE_REFUSALS);
        let broker = Broker::start(BrokerOptions {
            listen,
            tls: Some(ServerTls {
                cert_pem: site.server.certificate_pem.clone(),
                key_pem: site.server.key_pem.clone(),
            }),
            site: site.id.clone(),
            name: None,
            site_key: site.key.public(),
            nodes: database.feeds.nodes.subscribe(),
            limits,
            refusals: Some(refusals),
        })
        .await
        .context("starting the relay (its address is set with --relay-listen)")?;
        let address = broker.address();
        let stop = CancellationToken::new();
        let (shared, sessions) = (Shared::default(), Sessions::default());
        let embedded: Name = EMBEDDED.parse().context("the name of the embedded relay")?;
        let session = SiteSession::start(
            &embedded,
            session_options(site, address),
            site,
            database,
            Reports::new(&embedded, site, database, &shared),
        );
        sessions.set(embedded, &session);
        let (revocations, asked) = mpsc::channel(REVOCATIONS_MAX);
        let externals = Externals::new(site, database, &shared, &sessions);
        let adoption = Adoption::new(site, database, &shared.newsworthy);
        let link = RelayLink {
            revocations,
            sessions,
            requests: shared.requests,
            presence: shared.presence,
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(externals.run(stop.clone()));
        tasks.spawn(adoption.run(stop.clone()));
        tasks.spawn(renewal::run(
            Arc::clone(site),
            database.clone(),
            stop.clone(),
        ));
        tasks.spawn(refusals::run(database.clone(), refused, stop.clone()));
        tasks.spawn(keep_broker(broker, asked, database.clone(), stop.clone()));
        Ok((
            Relay {
                address,
                session,
                stop,
                tasks,
            },
            link,
        ))
    }

    /// Where it listens, with the real port.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until a part of it fails; none does by itself.
    pub(crate) async fn failed(&mut self) {
        tokio::select! {
            _ = self.tasks.join_next() => {}
            () = self.session.failed() => {}
        }
    }

    /// Sends what is queued, disconnects, and ends the relay.
    pub(crate) async fn stop(mut self) {
        self.session.stop().await;
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

fn session_options(site: &Site, relay: SocketAddr) -> SessionOptions {
    let host = match relay.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.to_string(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.to_string(),
        ip => ip.to_string(),
    };
    SessionOptions {
        endpoint: Endpoint {
            host,
            port: relay.port(),
            tls: Some(TlsTrust {
                ca_pem: site.ca_pem.clone(),
                server_name: "localhost".into(),
                client: None,
            }),
        },
        identity: Identity::of_key(site.id.to_string(), site.id.clone(), site.key.clone()),
        will: None,
        subscriptions: topics::site_subscriptions(&site.id),
        queue_messages: QUEUE_MESSAGES,
    }
}

/// Owns the broker: revokes nodes, and shuts it down at the end.
async fn keep_broker(
    broker: Broker,
    mut asked: mpsc::Receiver<Revocation>,
    database: Database,
    stop: CancellationToken,
) {
    let mut leaving = Leaving::new(database, stop.clone());
    loop {
        let revocation = tokio::select! {
            () = stop.cancelled() => break,
            revocation = asked.recv() => revocation,
            Some(()) = leaving.next_done() => continue,
        };
        let Some(revocation) = revocation else {
            stop.cancelled().await;
            break;
        };
        if let Err(error) = broker.revoke(&revocation.node).await {
            tracing::warn!(node = %revocation.node, %error, "the relay could not forget a revoked node");
        }
        leaving.end(&revocation.node, &revocation.name, revocation.sessions);
        let _ = revocation.done.send(()); // the request has given up waiting: that is fine
    }
    while let Ok(revocation) = asked.try_recv() {
        leaving.end(&revocation.node, &revocation.name, revocation.sessions);
    }
    leaving.close().await;
    broker.shutdown().await;
}
