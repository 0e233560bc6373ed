//! The embedded relay: an MQTT 5 broker out of the parts of the crate `mqtt5`, with our own
//! listener, identities and rules. The controller starts one; only this folder names `mqtt5`, so
//! that another broker can replace it.
//!
//! It never reads a payload and trusts no client. It uses the crate's connection handler, router and
//! storage but not its `MqttBroker`, because that one does TLS handshakes in its accept loop (one
//! silent client locks everybody out), and turns a TLS port in use into a warning.

mod options;

mod admission;
mod buffered;
mod first_packet;
mod listener;
mod provider;
mod store;
mod traffic;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use haar_protocol::ids::NodeId;
use mqtt5::broker::BrokerConfig;
use mqtt5::broker::resource_monitor::{ResourceLimits, ResourceMonitor};
use mqtt5::broker::storage::StorageBackend as _;
use mqtt5::broker::sys_topics::BrokerStats;
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{PACKET_BYTES_MAX, tls};
pub use admission::Refusal;
use listener::{Listener, Parts};
pub use options::{
    BrokerError, BrokerLimits, BrokerOptions, NodeDirectory, RefusedNode, ServerTls,
};
use provider::Gatekeeper;
use store::Store;
pub use store::remove_earlier_state;
use traffic::Traffic;

const HOUSEKEEPING_INTERVAL: Duration = Duration::from_secs(60);
/// How long a shutdown waits for connections to close.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);
/// Filters of one client, each of which may be delivered a message of its own; ours use two.
const SUBSCRIPTIONS_PER_CLIENT_MAX: usize = 4;
/// Publishes that a client may have in flight towards us; sessions of ours use fewer.
const RECEIVE_MAXIMUM: u16 = 64;
/// Publishes that we have in flight towards a client. mqtt5 keeps a copy of each.
const IN_FLIGHT_MAX: u16 = 16;
/// What every client is told to keep, whatever it asked for: that of sessions of ours. mqtt5 gives up
/// a client that does not read after 1.25 times, and one that says nothing after 1.5 times as long.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// A running relay. Dropping it cuts every connection; [`Broker::shutdown`] closes them.
#[derive(Debug)]
pub struct Broker {
    address: SocketAddr,
    store: Store,
    nodes: watch::Receiver<Arc<NodeDirectory>>,
    tls: watch::Sender<Option<Arc<ServerConfig>>>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Broker {
    /// Starts to listen, and returns when clients can connect.
    ///
    /// # Errors
    /// See [`BrokerError`].
    pub async fn start(options: BrokerOptions) -> Result<Broker, BrokerError> {
        let tls = match &options.tls {
            Some(tls) => Some(config(tls)?),
            None if options.listen.ip().is_loopback() => None,
            None => return Err(BrokerError::Plaintext(options.listen)),
        };
        let in_use = |error| BrokerError::Listen {
            address: options.listen,
            error,
        };
        let socket = TcpListener::bind(options.listen).await.map_err(in_use)?;
        let address = socket.local_addr().map_err(in_use)?;
        let store = Store::new(&options.limits);

        let gatekeeper = Arc::new(Gatekeeper::new(&options));
        let traffic = Arc::new(Traffic::new(&options, &store.router));
        let parts = Parts {
            config: Arc::new(broker_config(&options.limits, &traffic)),
            router: Arc::clone(&store.router),
            storage: Arc::clone(&store.storage),
            gatekeeper: Arc::clone(&gatekeeper),
            stats: Arc::new(BrokerStats::new()),
            monitor: Arc::new(ResourceMonitor::new(ResourceLimits {
                // Rates are ours, and kept by reading more slowly: mqtt5 would drop.
                max_message_rate_per_client: 0,
                max_bandwidth_per_client: 0,
                ..ResourceLimits::default()
            })),
        };
        let (tls, shown) = watch::channel(tls);
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(keep_house(store.clone(), gatekeeper, traffic, stop.clone()));
        tasks.spawn(revoke_leavers(
            store.clone(),
            options.nodes.clone(),
            stop.clone(),
        ));
        tasks.spawn(
            Listener {
                socket,
                tls: shown,
                parts,
                stop: stop.clone(),
            }
            .run(),
        );
        Ok(Broker {
            address,
            store,
            nodes: options.nodes,
            tls,
            stop,
            tasks,
        })
    }

    /// Where it listens, with the real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Shows another certificate from the next connection on; those that are there stay.
    ///
    /// # Errors
    /// `Tls` when it can't be used: the one before is shown on.
    pub fn set_certificate(&self, tls: &ServerTls) -> Result<(), BrokerError> {
        self.tls.send_replace(Some(config(tls)?));
        Ok(())
    }

    /// Forgets a node: cuts its connection and drops its session and what waits for it. The relay
    /// does so by itself when a node leaves the directory; here one can wait for it.
    ///
    /// # Errors
    /// `StillListed` when the directory still has the node, `Storage` when its session stays.
    pub async fn revoke(&self, node: &NodeId) -> Result<(), BrokerError> {
        if self.nodes.borrow().contains_key(node) {
            return Err(BrokerError::StillListed(node.clone()));
        }
        self.store.forget(node).await
    }

    /// Closes every connection and ends, within ten seconds; then the address is free. Wills are not told: a relay that ends says nothing about
    /// its clients, and they come back to the next one by themselves.
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        let drained = tokio::time::timeout(SHUTDOWN_TIMEOUT + Duration::from_secs(1), async {
            while self.tasks.join_next().await.is_some() {}
        });
        if drained.await.is_err() {
            tracing::warn!(tasks = self.tasks.len(), "relay tasks did not end in time");
            self.tasks.shutdown().await;
        }
        for node in self.nodes.borrow().keys() {
            self.store.router.cancel_pending_will(node.as_str());
        }
    }
}

fn config(tls: &ServerTls) -> Result<Arc<ServerConfig>, BrokerError> {
    let config = tls::server_config(&tls.cert_pem, &tls.key_pem);
    Ok(Arc::new(config.map_err(BrokerError::Tls)?))
}

fn broker_config(limits: &BrokerLimits, traffic: &Arc<Traffic>) -> BrokerConfig {
    BrokerConfig {
        max_clients: limits.connections_max,
        session_expiry_interval: Duration::from_secs(u64::from(limits.session_life_s)),
        max_packet_size: usize::try_from(PACKET_BYTES_MAX).unwrap_or(usize::MAX),
        // An alias is stored before its topic is checked, so there are none.
        topic_alias_maximum: 0,
        maximum_qos: 1,
        shared_subscription_available: false,
        max_subscriptions_per_client: SUBSCRIPTIONS_PER_CLIENT_MAX,
        client_channel_capacity: limits.client_messages_max,
        server_receive_maximum: Some(RECEIVE_MAXIMUM),
        max_outbound_inflight: IN_FLIGHT_MAX,
        server_keep_alive: Some(KEEP_ALIVE),
        sys_topics_enabled: false,
        event_handler: Some(Arc::clone(traffic) as Arc<_>),
        ..BrokerConfig::default()
    }
}

async fn keep_house(
    store: Store,
    gatekeeper: Arc<Gatekeeper>,
    traffic: Arc<Traffic>,
    stop: CancellationToken,
) {
    while stop
        .run_until_cancelled(tokio::time::sleep(HOUSEKEEPING_INTERVAL))
        .await
        .is_some()
    {
        gatekeeper.forget_old_proofs();
        traffic.forget();
        if let Err(error) = store.storage.cleanup_expired().await {
            tracing::warn!(%error, "the relay could not forget expired sessions");
        }
        store.router.sweep_sessions().await;
    }
}

/// Forgets each node that left the directory, or whose key changed.
async fn revoke_leavers(
    store: Store,
    mut nodes: watch::Receiver<Arc<NodeDirectory>>,
    stop: CancellationToken,
) {
    let mut known = Arc::clone(&nodes.borrow_and_update());
    while let Some(Ok(())) = stop.run_until_cancelled(nodes.changed()).await {
        let current = Arc::clone(&nodes.borrow_and_update());
        for (node, key) in known.iter() {
            if current.get(node) == Some(key) {
                continue;
            }
            match store.forget(node).await {
                Ok(()) => tracing::info!(%node, "revoked: the node is no longer in the directory"),
                Err(error) => tracing::error!(%node, %error, "could not forget a revoked node"),
            }
        }
        known = current;
    }
}
