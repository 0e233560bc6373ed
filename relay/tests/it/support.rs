//! A site with its keys, certificates and relay. Every wait has a deadline, and nothing sleeps.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use haar_protocol::ids::{NodeId, SiteId};
use haar_protocol::keys::SecretKey;
use haar_protocol::proof::{self, Audience, Claims};
use haar_protocol::topics::{self, Topic};
use haar_relay::{
    Broker, BrokerLimits, BrokerOptions, Endpoint, Identity, NodeDirectory, Outgoing, ServerTls,
    SessionOptions,
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rumqttc::v5::MqttOptions;
use rumqttc::{TlsConfiguration, Transport};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::sync::watch;

pub(crate) use crate::clients::{Client, RawClient};

/// The deadline of every wait: long, because the machine may be busy; a pass never takes it.
const DEADLINE: Duration = Duration::from_secs(30);

/// Waits, and fails the test with `what` when it takes too long.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited in vain: {what}"),
    }
}

/// A certificate authority and a certificate of it for the loopback addresses.
pub(crate) struct Certificates {
    pub(crate) ca_pem: String,
    pub(crate) server: ServerTls,
}

pub(crate) fn certificates() -> Certificates {
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_key = KeyPair::generate().unwrap();
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let issuer = Issuer::new(ca, ca_key);
    let names = vec![
        "relay.test".to_owned(),
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
    ];
    let key = KeyPair::generate().unwrap();
    let cert = CertificateParams::new(names)
        .unwrap()
        .signed_by(&key, &issuer)
        .unwrap();
    Certificates {
        ca_pem,
        server: ServerTls {
            cert_pem: cert.pem(),
            key_pem: key.serialize_pem(),
        },
    }
}

/// A node's key and id.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) key: SecretKey,
    pub(crate) id: NodeId,
}

pub(crate) fn node(seed: u8) -> Node {
    let key = SecretKey::from_seed([seed; 32]);
    Node {
        id: NodeId::of(&key.public()),
        key,
    }
}

/// A site with two enrolled nodes and a running relay.
pub(crate) struct Site {
    pub(crate) key: SecretKey,
    pub(crate) id: SiteId,
    pub(crate) certificates: Certificates,
    pub(crate) nodes: watch::Sender<Arc<NodeDirectory>>,
    pub(crate) broker: Broker,
    pub(crate) one: Node,
    pub(crate) two: Node,
}

impl Site {
    pub(crate) async fn start() -> Site {
        Site::start_with(BrokerLimits::default()).await
    }

    pub(crate) async fn start_with(limits: BrokerLimits) -> Site {
        let key = SecretKey::from_seed([1; 32]);
        let (one, two) = (node(2), node(3));
        let directory: NodeDirectory = HashMap::from([
            (one.id.clone(), one.key.public()),
            (two.id.clone(), two.key.public()),
        ]);
        let (nodes, _) = watch::channel(Arc::new(directory));
        let certificates = certificates();
        let options = BrokerOptions {
            listen: "127.0.0.1:0".parse().unwrap(),
            tls: Some(certificates.server.clone()),
            site: SiteId::of(&key.public()),
            name: None,
            site_key: key.public(),
            nodes: nodes.subscribe(),
            limits,
            refusals: None,
        };
        let broker = Broker::start(options).await.unwrap();
        Site {
            id: SiteId::of(&key.public()),
            key,
            certificates,
            nodes,
            broker,
            one,
            two,
        }
    }

    /// What starts this relay again, where it is.
    pub(crate) fn broker_options(&self) -> BrokerOptions {
        BrokerOptions {
            listen: self.broker.address(),
            tls: Some(self.certificates.server.clone()),
            site: self.id.clone(),
            name: None,
            site_key: self.key.public(),
            nodes: self.nodes.subscribe(),
            limits: BrokerLimits::default(),
            refusals: None,
        }
    }

    /// Stops the relay and starts it on the same port.
    pub(crate) async fn restart(self) -> Site {
        self.restart_after(async {}).await
    }

    /// The same; the relay starts again when `meanwhile` is over. One that is back within a moment can't
    /// be told from one that serves somebody else.
    pub(crate) async fn restart_after(self, meanwhile: impl Future<Output = ()>) -> Site {
        let options = self.broker_options();
        let Site {
            key,
            id,
            certificates,
            nodes,
            broker,
            one,
            two,
        } = self;
        broker.shutdown().await;
        meanwhile.await;
        let broker = Broker::start(options).await.unwrap();
        Site {
            key,
            id,
            certificates,
            nodes,
            broker,
            one,
            two,
        }
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        let url = format!("mqtts://{}", self.broker.address());
        Endpoint::parse(&url, Some(&self.certificates.ca_pem)).unwrap()
    }

    pub(crate) fn text(&self, topic: &Topic) -> String {
        topic.text(&self.id)
    }

    /// The topic of the link from node one to node two.
    pub(crate) fn link(&self) -> String {
        self.text(&Topic::Link {
            from: self.one.id.clone(),
            to: self.two.id.clone(),
        })
    }

    pub(crate) fn node_options(&self, node: &Node) -> SessionOptions {
        SessionOptions {
            endpoint: self.endpoint(),
            identity: Identity::of_key(node.id.to_string(), self.id.clone(), node.key.clone()),
            will: Some(message(&self.text(&Topic::Alive(node.id.clone())), "offline").retained()),
            subscriptions: topics::node_subscriptions(&self.id, &node.id),
            queue_messages: 64,
        }
    }

    pub(crate) fn site_options(&self) -> SessionOptions {
        SessionOptions {
            endpoint: self.endpoint(),
            identity: Identity::of_key(self.id.to_string(), self.id.clone(), self.key.clone()),
            will: None,
            subscriptions: topics::site_subscriptions(&self.id),
            queue_messages: 64,
        }
    }

    pub(crate) async fn connect_node(&self, node: &Node) -> Client {
        Client::connected(self.node_options(node)).await
    }

    pub(crate) async fn connect_site(&self) -> Client {
        Client::connected(self.site_options()).await
    }

    /// A fresh proof for this relay.
    pub(crate) fn proof(&self, key: &SecretKey, subject: &str) -> String {
        self.proof_at(key, subject, now_ms())
    }

    pub(crate) fn proof_at(&self, key: &SecretKey, subject: &str, issued_ms: u64) -> String {
        let mut nonce = [0; 16];
        getrandom::fill(&mut nonce).unwrap();
        let claims = Claims {
            audience: Audience::Relay,
            site: self.id.clone(),
            subject: subject.to_owned(),
            issued_ms,
            nonce: format!("{:032x}", u128::from_be_bytes(nonce)),
            relay: None,
        };
        proof::make(&claims, key)
    }

    /// The options of a raw client that claims to be `client_id`.
    pub(crate) fn raw_options(&self, client_id: &str) -> MqttOptions {
        let address = self.broker.address();
        let mut options = MqttOptions::new(client_id, address.ip().to_string(), address.port());
        let config = TlsConfiguration::Rustls(Arc::new(client_config(&self.certificates.ca_pem)));
        options.set_transport(Transport::tls_with_config(config));
        options.set_connection_timeout(DEADLINE.as_secs());
        options
    }

    /// A raw client with a node's own identity.
    pub(crate) async fn raw_node(&self, node: &Node) -> RawClient {
        let mut options = self.raw_options(node.id.as_str());
        options.set_credentials(node.id.as_str(), self.proof(&node.key, node.id.as_str()));
        RawClient::connect(options).await.unwrap()
    }
}

pub(crate) fn now_ms() -> u64 {
    let since_epoch = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    u64::try_from(since_epoch.as_millis()).unwrap()
}

/// What trusts the site's CA; for raw clients.
pub(crate) fn client_config(ca_pem: &str) -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(ca_pem.as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// A message that is sent at least once.
pub(crate) fn message(topic: &str, payload: &str) -> Outgoing {
    let payload = payload.to_owned().into();
    Outgoing {
        topic: topic.to_owned(),
        payload,
        at_least_once: true,
        retain: false,
    }
}

pub(crate) trait Retained {
    fn retained(self) -> Self;
}

impl Retained for Outgoing {
    fn retained(mut self) -> Self {
        self.retain = true;
        self
    }
}

/// An address where nobody listens.
pub(crate) async fn free_address() -> SocketAddr {
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    socket.local_addr().unwrap()
}
