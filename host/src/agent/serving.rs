//! The relays that this node runs for its neighbours: nodes on one LAN keep talking when the way to
//! everybody else is down. A broker for each, with the certificate that the site has made for it;
//! who may connect stands in the assignment.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use haar_protocol::assignment::Assignment;
use haar_protocol::ids::Name;
use haar_protocol::relay::{CERTIFICATE_PURPOSE, ServedRelay};
use haar_protocol::status::ServedStatus;
use haar_relay::{Broker, BrokerLimits, BrokerOptions, NodeDirectory, ServerTls};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::connection::Account;

/// After a relay that could not be started.
const PAUSE: Duration = Duration::from_secs(10);
/// Connections to one relay: a neighbourhood is small, and each costs memory.
const CONNECTIONS_MAX: usize = 256;
/// The same of those that have not proved who they are.
const STRANGERS_MAX: usize = 64;
/// Bytes of frames that wait to be read by one neighbour, and by all of them.
const CLIENT_BYTES_MAX: usize = 4 << 20;
const LINKS_BYTES_MAX: usize = 16 << 20;
/// File descriptors that are left to the agent's own files and connections, and to those of its
/// microservices.
const OTHER_DESCRIPTORS: u64 = 512;

/// Why a relay does not run; none when it runs.
type Reason = Option<String>;

/// A relay that runs, or is to.
struct Served {
    relay: ServedRelay,
    nodes: watch::Sender<Arc<NodeDirectory>>,
    reason: watch::Receiver<Reason>,
    stop: CancellationToken,
}

/// The relays that this node runs.
pub(super) struct Serving {
    account: Account,
    served: Vec<Served>,
    tasks: JoinSet<()>,
}

impl Serving {
    /// `directory` is where relays of release 0.1 kept files.
    pub(super) fn new(account: Account, directory: &Path) -> Self {
        haar_relay::remove_earlier_state(directory);
        Self {
            account,
            served: Vec::new(),
            tasks: JoinSet::new(),
        }
    }

    /// Runs the relays of an assignment, and no others.
    pub(super) fn follow(&mut self, assignment: &Assignment) {
        while self.tasks.try_join_next().is_some() {} // those that were stopped
        self.served.retain(|served| {
            let wanted = assignment
                .serves
                .iter()
                .find(|relay| is_same(relay, &served.relay));
            match wanted {
                Some(relay) => drop(served.nodes.send_replace(directory(relay))),
                None => served.stop.cancel(),
            }
            wanted.is_some()
        });
        for relay in &assignment.serves {
            if !self.served.iter().any(|one| is_same(relay, &one.relay)) {
                self.serve(relay);
            }
        }
    }

    fn serve(&mut self, relay: &ServedRelay) {
        let (nodes, directory) = watch::channel(directory(relay));
        let (reasons, reason) = watch::channel(Some("it is starting".to_owned()));
        let stop = CancellationToken::new();
        let task = Task {
            account: self.account.clone(),
            relay: relay.clone(),
            nodes: directory,
            reasons,
        };
        self.tasks.spawn(task.run(stop.clone()));
        self.served.push(Served {
            relay: relay.clone(),
            nodes,
            reason,
            stop,
        });
    }

    /// What statuses say of them.
    pub(super) fn statuses(&self) -> Vec<ServedStatus> {
        let served = self.served.iter();
        served
            .map(|served| ServedStatus {
                name: served.relay.name.clone(),
                reason: served.reason.borrow().clone(),
            })
            .collect()
    }

    /// Ends all of them in order.
    pub(super) async fn finish(mut self) {
        for served in &self.served {
            served.stop.cancel();
        }
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Who may connect may change while a relay runs; everything else makes it another one.
fn is_same(one: &ServedRelay, other: &ServedRelay) -> bool {
    let parts = |relay: &ServedRelay| {
        let ServedRelay {
            name,
            listen,
            certificate_pem,
            key,
            nodes: _,
        } = relay.clone();
        (name, listen, certificate_pem, key)
    };
    parts(one) == parts(other)
}

fn directory(relay: &ServedRelay) -> Arc<NodeDirectory> {
    let nodes = relay.nodes.iter();
    let nodes: HashMap<_, _> = nodes.map(|node| (node.id.clone(), node.key)).collect();
    Arc::new(nodes)
}

/// Keeps one relay running.
struct Task {
    account: Account,
    relay: ServedRelay,
    nodes: watch::Receiver<Arc<NodeDirectory>>,
    reasons: watch::Sender<Reason>,
}

impl Task {
    async fn run(self, stop: CancellationToken) {
        let name: &Name = &self.relay.name;
        loop {
            match self.start().await {
                Ok(broker) => {
                    tracing::info!("running the relay {name} at {}", broker.address());
                    self.reasons.send_replace(None);
                    stop.cancelled().await;
                    broker.shutdown().await;
                    return;
                }
                Err(error) => {
                    tracing::error!("the relay {name} does not run: {error:#}; tried again");
                    self.reasons.send_replace(Some(format!("{error:#}")));
                }
            }
            let pause = stop.run_until_cancelled(tokio::time::sleep(PAUSE));
            if pause.await.is_none() {
                return;
            }
        }
    }

    async fn start(&self) -> anyhow::Result<Broker> {
        let shared = self.account.key.shared_with(&self.account.site_key);
        let key_pem = shared.open(CERTIFICATE_PURPOSE, &self.relay.key)?;
        let options = BrokerOptions {
            listen: self.relay.listen,
            tls: Some(ServerTls {
                cert_pem: self.relay.certificate_pem.clone(),
                key_pem,
            }),
            site: self.account.site.clone(),
            name: Some(self.relay.name.clone()),
            site_key: self.account.site_key,
            nodes: self.nodes.clone(),
            limits: limits(),
            refusals: None,
        };
        Ok(Broker::start(options).await?)
    }
}

fn limits() -> BrokerLimits {
    let descriptors = haar_relay::raise_descriptor_limit()
        .map_or(u64::MAX, |limit| limit.saturating_sub(OTHER_DESCRIPTORS));
    BrokerLimits {
        connections_max: CONNECTIONS_MAX,
        connections_per_address_max: CONNECTIONS_MAX,
        strangers_max: STRANGERS_MAX,
        client_bytes_max: CLIENT_BYTES_MAX,
        links_bytes_max: LINKS_BYTES_MAX,
        retained_messages_max: 1,
        ..BrokerLimits::default()
    }
    .within(usize::try_from(descriptors).unwrap_or(usize::MAX))
}
