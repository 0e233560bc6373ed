//! The relays that this node runs for its neighbours: nodes on one LAN keep talking when the way to
//! everybody else is down. A broker for each, with the certificate that the site has made for it;
//! who may connect stands in the assignment. Both may change while it runs.

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
    relay: watch::Sender<ServedRelay>,
    nodes: watch::Sender<Arc<NodeDirectory>>,
    reason: watch::Receiver<Reason>,
    stop: CancellationToken,
    /// Its task has ended, and its port is free.
    ended: CancellationToken,
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
        self.run(&assignment.serves);
    }

    fn run(&mut self, wanted: &[ServedRelay]) {
        while self.tasks.try_join_next().is_some() {} // those that were stopped
        let mut leaving = Vec::new();
        self.served.retain(|served| {
            let mut relays = wanted.iter();
            let kept = relays.find(|relay| is_same(relay, &served.relay.borrow()));
            match kept {
                Some(relay) => {
                    served.nodes.send_replace(directory(relay));
                    served.relay.send_if_modified(|held| {
                        let parts = |relay: &ServedRelay| {
                            (relay.certificate_pem.clone(), relay.key.clone())
                        };
                        let is_other = parts(held) != parts(relay);
                        held.clone_from(relay);
                        is_other
                    });
                }
                None => {
                    served.stop.cancel();
                    leaving.push(served.ended.clone());
                }
            }
            kept.is_some()
        });
        for relay in wanted {
            let is_it = |one: &Served| is_same(relay, &one.relay.borrow());
            if !self.served.iter().any(is_it) {
                self.serve(relay, leaving.clone());
            }
        }
    }

    /// `leaving` are relays that may still have its port.
    fn serve(&mut self, relay: &ServedRelay, leaving: Vec<CancellationToken>) {
        let (nodes, directory) = watch::channel(directory(relay));
        let (reasons, reason) = watch::channel(Some("it is starting".to_owned()));
        let (relay, wanted) = watch::channel(relay.clone());
        let (stop, ended) = (CancellationToken::new(), CancellationToken::new());
        let task = Task {
            account: self.account.clone(),
            relay: wanted,
            nodes: directory,
            reasons,
        };
        let (stopped, has_ended) = (stop.clone(), ended.clone().drop_guard());
        self.tasks.spawn(async move {
            for one in leaving {
                one.cancelled().await;
            }
            task.run(stopped).await;
            drop(has_ended);
        });
        self.served.push(Served {
            relay,
            nodes,
            reason,
            stop,
            ended,
        });
    }

    /// What statuses say of them.
    pub(super) fn statuses(&self) -> Vec<ServedStatus> {
        let served = self.served.iter();
        served
            .map(|served| ServedStatus {
                name: served.relay.borrow().name.clone(),
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

/// True when a running relay can follow the change: only who may connect or its certificate differs. The
/// certificate changes with the host of its address, and a year before it expires.
fn is_same(one: &ServedRelay, other: &ServedRelay) -> bool {
    (&one.name, one.listen) == (&other.name, other.listen)
}

fn directory(relay: &ServedRelay) -> Arc<NodeDirectory> {
    let nodes = relay.nodes.iter();
    let nodes: HashMap<_, _> = nodes.map(|node| (node.id.clone(), node.key)).collect();
    Arc::new(nodes)
}

/// Keeps one relay running.
struct Task {
    account: Account,
    relay: watch::Receiver<ServedRelay>,
    nodes: watch::Receiver<Arc<NodeDirectory>>,
    reasons: watch::Sender<Reason>,
}

impl Task {
    async fn run(mut self, stop: CancellationToken) {
        let name = self.relay.borrow().name.clone();
        loop {
            match self.start().await {
                Ok(broker) => {
                    tracing::info!("running the relay {name} at {}", broker.address());
                    self.reasons.send_replace(None);
                    while let Some(Ok(())) = stop.run_until_cancelled(self.relay.changed()).await {
                        self.renew(&broker, &name);
                    }
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

    /// Its certificate may be another one; its listener and its connections stay.
    fn renew(&self, broker: &Broker, name: &Name) {
        let relay = self.relay.borrow().clone();
        let renewed = self
            .certificate(&relay)
            .and_then(|tls| Ok(broker.set_certificate(&tls)?));
        let reason = renewed.err().map(|error| {
            tracing::error!("the relay {name} shows its old certificate: {error:#}");
            format!("it shows its old certificate: {error:#}")
        });
        self.reasons.send_replace(reason);
    }

    fn certificate(&self, relay: &ServedRelay) -> anyhow::Result<ServerTls> {
        let shared = self.account.key.shared_with(&self.account.site_key);
        Ok(ServerTls {
            cert_pem: relay.certificate_pem.clone(),
            key_pem: shared.open(CERTIFICATE_PURPOSE, &relay.key)?,
        })
    }

    async fn start(&mut self) -> anyhow::Result<Broker> {
        let relay = self.relay.borrow_and_update().clone();
        let options = BrokerOptions {
            listen: relay.listen,
            tls: Some(self.certificate(&relay)?),
            site: self.account.site.clone(),
            name: Some(relay.name),
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

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use haar_protocol::ids::{NodeId, SiteId};
    use haar_protocol::keys::SecretKey;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(60);

    fn relay(name: &str, listen: SocketAddr, host: &str) -> ServedRelay {
        let (site, node) = (SecretKey::from_seed([1; 32]), SecretKey::from_seed([2; 32]));
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new([host.to_owned()]).unwrap();
        let shared = site.shared_with(&node.public());
        ServedRelay {
            name: name.parse().unwrap(),
            listen,
            certificate_pem: certificate.self_signed(&key).unwrap().pem(),
            key: shared
                .seal(CERTIFICATE_PURPOSE, &key.serialize_pem())
                .unwrap(),
            nodes: Vec::new(),
        }
    }

    /// The next thing that the first relay says of itself.
    async fn next(serving: &mut Serving) -> Reason {
        let reason = &mut serving.served[0].reason;
        let changed = tokio::time::timeout(DEADLINE, reason.changed()).await;
        changed.unwrap().unwrap();
        reason.borrow().clone()
    }

    #[tokio::test]
    async fn another_host_keeps_the_listener_and_another_name_takes_it_over_without_a_pause() {
        let (site, node) = (SecretKey::from_seed([1; 32]), SecretKey::from_seed([2; 32]));
        let directory = tempfile::tempdir().unwrap();
        let account = Account {
            site: SiteId::of(&site.public()),
            site_key: site.public(),
            node: NodeId::of(&node.public()),
            key: node,
            enrolled: None,
            ca_pem: String::new(),
        };
        let mut serving = Serving::new(account, directory.path());
        // The system gives the port to nobody else as long as this socket, which does not listen, has it.
        let reserved = tokio::net::TcpSocket::new_v4().unwrap();
        reserved.set_reuseaddr(true).unwrap();
        reserved.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listen = reserved.local_addr().unwrap();
        serving.run(&[relay("hall", listen, "192.0.2.1")]);
        assert_eq!(next(&mut serving).await, None);
        let ended = serving.served[0].ended.clone();

        serving.run(&[relay("hall", listen, "192.0.2.2")]);
        assert_eq!(next(&mut serving).await, None);
        assert!(!ended.is_cancelled(), "it is the same listener");
        let mut broken = relay("hall", listen, "192.0.2.3");
        broken.certificate_pem = "nothing".to_owned();
        serving.run(&[broken]);
        let reason = next(&mut serving).await.unwrap();
        assert!(
            reason.starts_with("it shows its old certificate: "),
            "{reason}"
        );

        serving.run(&[relay("foyer", listen, "192.0.2.2")]);
        assert_eq!(next(&mut serving).await, None, "the port was free");
        assert!(ended.is_cancelled());
        serving.finish().await;
    }
}
