//! The site's side of its relay: the embedded broker, and the site's own session with it. Publishes
//! the newest assignments, and brings what nodes report into the database.
//!
//! ```text
//! commits ──generation──► publisher ──retained, QoS 1──► relay ──► nodes
//! database ◄──one transaction per batch── intake ◄──events── session ◄── relay
//! ```
//! Publisher and intake are two tasks: a session that waits for its events to be read sends nothing.

mod publisher;
mod reports;
mod requests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use haar_protocol::ids::NodeId;
use haar_protocol::request::{Operation, Outcome};
use haar_protocol::topics;
use haar_relay::{
    Broker, BrokerLimits, BrokerOptions, Endpoint, Identity, ServerTls, Session, SessionEvent,
    SessionOptions, TlsTrust,
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::db::Database;
use crate::db::nodes::NodeRow;
use crate::failure::Failure;
use crate::site::Site;
use requests::Requests;

const QUEUE_MESSAGES: usize = 256;
const EVENTS_MAX: usize = 256;
const REVOCATIONS_MAX: usize = 16;
/// How long a request waits for the relay to forget a node; the relay goes on by itself.
const REVOKE_TIMEOUT: Duration = Duration::from_secs(5);

struct Revocation {
    node: NodeId,
    done: oneshot::Sender<()>,
}

/// How requests reach the relay. Cheap to clone.
#[derive(Clone)]
pub(crate) struct RelayLink {
    revocations: mpsc::Sender<Revocation>,
    session: Session,
    requests: Requests,
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
            .ask(site, &self.session, node, operation)
            .await
    }

    /// Waits until the relay has cut off a node that is no longer in the directory.
    pub(crate) async fn revoke(&self, node: NodeId) {
        let (done, is_done) = oneshot::channel();
        let asked = async {
            if self
                .revocations
                .send(Revocation {
                    node: node.clone(),
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
    session: Session,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Relay {
    /// Starts the relay and connects to it.
    ///
    /// # Errors
    /// When the relay can't listen or use its folder.
    pub(crate) async fn start(
        listen: SocketAddr,
        site: &Arc<Site>,
        database: &Database,
    ) -> anyhow::Result<(Relay, RelayLink)> {
        let broker = Broker::start(BrokerOptions {
            listen,
            tls: Some(ServerTls {
                cert_pem: site.server.certificate_pem.clone(),
                key_pem: site.server.key_pem.clone(),
            }),
            data_dir: site.directory.join("relay"),
            site: site.id.clone(),
            name: None,
            site_key: site.key.public(),
            nodes: database.feeds.nodes.subscribe(),
            limits: BrokerLimits::default(),
        })
        .await
        .context("starting the relay (its address is set with --relay-listen)")?;
        let address = broker.address();
        let stop = CancellationToken::new();
        let (events, received) = mpsc::channel(EVENTS_MAX);
        let (session, session_task) =
            Session::start(session_options(site, address), events, stop.child_token());
        let (revocations, asked) = mpsc::channel(REVOCATIONS_MAX);
        let connections = watch::Sender::new(0);
        let publisher =
            publisher::Publisher::new(site, database, &session, connections.subscribe());
        let requests = Requests::default();
        let link = RelayLink {
            revocations,
            session: session.clone(),
            requests: requests.clone(),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(session_task);
        tasks.spawn(publish(publisher, stop.clone()));
        tasks.spawn(intake(
            received,
            connections,
            reports::Reports::new(site, database, &requests),
        ));
        tasks.spawn(keep_broker(broker, asked, stop.clone()));
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
        self.tasks.join_next().await;
    }

    /// Sends what is queued, disconnects, and ends the relay.
    pub(crate) async fn stop(mut self) {
        if self.session.finish(None).await.is_err() {
            tracing::warn!(
                "not everything was sent to the relay; it is sent again at the next start"
            );
        }
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
            }),
        },
        identity: Identity::of_key(site.id.to_string(), site.id.clone(), site.key.clone()),
        will: None,
        subscriptions: topics::site_subscriptions(&site.id),
        queue_messages: QUEUE_MESSAGES,
    }
}

async fn publish(publisher: publisher::Publisher, stop: CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = publisher.run() => {}
    }
}

/// Owns the broker: revokes nodes, and shuts it down at the end.
async fn keep_broker(
    broker: Broker,
    mut asked: mpsc::Receiver<Revocation>,
    stop: CancellationToken,
) {
    loop {
        let revocation = tokio::select! {
            () = stop.cancelled() => break,
            revocation = asked.recv() => revocation,
        };
        let Some(revocation) = revocation else {
            stop.cancelled().await;
            break;
        };
        if let Err(error) = broker.revoke(&revocation.node).await {
            tracing::warn!(node = %revocation.node, %error, "the relay could not forget a revoked node");
        }
        let _ = revocation.done.send(()); // the request has given up waiting: that is fine
    }
    broker.shutdown().await;
}

/// Reads what happens to the session until it ends, and brings reports into the database.
async fn intake(
    mut events: mpsc::Receiver<SessionEvent>,
    connections: watch::Sender<u64>,
    reports: reports::Reports,
) {
    let mut batch = Vec::with_capacity(EVENTS_MAX);
    while events.recv_many(&mut batch, EVENTS_MAX).await > 0 {
        let mut messages = Vec::new();
        for event in batch.drain(..) {
            match event {
                SessionEvent::Connected => {
                    tracing::info!("connected to the relay");
                    connections.send_modify(|count| *count += 1);
                }
                SessionEvent::Disconnected { reason } => {
                    tracing::warn!(%reason, "no connection to the relay; trying again");
                }
                SessionEvent::Message {
                    topic,
                    payload,
                    retained,
                } => {
                    messages.push(reports::Message {
                        topic,
                        payload,
                        retained,
                    });
                }
            }
        }
        if !messages.is_empty() {
            let is_first_connection = *connections.borrow() <= 1;
            reports.take(messages, is_first_connection).await;
        }
    }
}
