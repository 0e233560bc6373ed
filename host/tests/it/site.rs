//! A site made of the test: its key, an embedded relay on loopback, and a session that publishes
//! assignments and collects what nodes report.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use haar_protocol::assignment::Assignment;
use haar_protocol::ids::{NodeId, SiteId};
use haar_protocol::keys::{PublicKey, SecretKey};
use haar_protocol::log::{LogBatch, LogLine};
use haar_protocol::request::{Outcome, RequestId, Response};
use haar_protocol::signed;
use haar_protocol::status::Status;
use haar_protocol::topics::{Topic, site_subscriptions};
use haar_relay::{
    Broker, BrokerLimits, BrokerOptions, Endpoint, Identity, NodeDirectory, Outgoing, ServerTls,
    Session, SessionEvent, SessionOptions,
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long a condition may take to come true; generous, because machines are shared.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// What nodes have reported.
#[derive(Debug, Default, Clone)]
pub struct Reports {
    /// The last status of each node.
    pub statuses: HashMap<NodeId, Status>,
    /// The lines of each node.
    pub lines: HashMap<NodeId, Vec<LogLine>>,
    /// Answers to requests, in their order.
    pub responses: Vec<Response>,
}

/// A CA and a certificate of the relay.
pub struct Tls {
    pub ca_pem: String,
    pub cert_pem: String,
    pub key_pem: String,
}

impl Tls {
    pub fn new() -> Self {
        let ca_key = KeyPair::generate().unwrap();
        let mut ca = CertificateParams::new([]).unwrap();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_cert = ca.self_signed(&ca_key).unwrap();
        let issuer = Issuer::new(ca, ca_key);
        let key = KeyPair::generate().unwrap();
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let cert = CertificateParams::new(names)
            .unwrap()
            .signed_by(&key, &issuer)
            .unwrap();
        Self {
            ca_pem: ca_cert.pem(),
            cert_pem: cert.pem(),
            key_pem: key.serialize_pem(),
        }
    }
}

/// The site.
pub struct Site {
    pub key: SecretKey,
    pub publisher: SecretKey,
    tls: Option<Tls>,
    nodes: watch::Sender<Arc<NodeDirectory>>,
    broker: Option<Broker>,
    address: SocketAddr,
    session: Option<Session>,
    reports: watch::Sender<Reports>,
    tasks: JoinSet<()>,
}

impl Site {
    pub async fn start() -> Self {
        Self::start_as(None).await
    }

    /// The same with TLS, as in production.
    #[allow(dead_code, reason = "the benchmarks share this file")]
    pub async fn start_with_tls() -> Self {
        Self::start_as(Some(Tls::new())).await
    }

    async fn start_as(tls: Option<Tls>) -> Self {
        // Seen with `--nocapture`, or when a test fails.
        let _ = tracing_subscriber::fmt()
            .with_test_writer()
            .with_max_level(tracing::Level::INFO)
            .try_init();
        let (nodes, _) = watch::channel(Arc::default());
        let (reports, _) = watch::channel(Reports::default());
        let mut site = Self {
            key: SecretKey::from_seed([1; 32]),
            publisher: SecretKey::from_seed([2; 32]),
            tls,
            nodes,
            broker: None,
            address: "127.0.0.1:0".parse().unwrap(),
            session: None,
            reports,
            tasks: JoinSet::new(),
        };
        site.start_relay().await;
        site
    }

    pub fn id(&self) -> SiteId {
        SiteId::of(&self.key.public())
    }

    pub fn relay_url(&self) -> String {
        let scheme = if self.tls.is_some() { "mqtts" } else { "mqtt" };
        format!("{scheme}://{}", self.address)
    }

    /// The certificate that nodes trust.
    pub fn ca_pem(&self) -> String {
        match &self.tls {
            Some(tls) => tls.ca_pem.clone(),
            None => Tls::new().ca_pem,
        }
    }

    /// A relay beside the first one, as a node runs it.
    #[allow(dead_code, reason = "the benchmarks share this file")]
    pub async fn another_relay(&self, name: &str) -> Broker {
        let options = BrokerOptions {
            listen: "127.0.0.1:0".parse().unwrap(),
            name: Some(name.parse().unwrap()),
            ..self.relay_options()
        };
        Broker::start(options).await.unwrap()
    }

    fn relay_options(&self) -> BrokerOptions {
        BrokerOptions {
            listen: self.address,
            tls: self.tls.as_ref().map(|tls| ServerTls {
                cert_pem: tls.cert_pem.clone(),
                key_pem: tls.key_pem.clone(),
            }),
            site: self.id(),
            name: None,
            site_key: self.key.public(),
            nodes: self.nodes.subscribe(),
            limits: BrokerLimits::default(),
            refusals: None,
        }
    }

    /// Starts the relay, on the port that it had before.
    pub async fn start_relay(&mut self) {
        let broker = Broker::start(self.relay_options()).await.unwrap();
        self.address = broker.address();
        self.broker = Some(broker);
        let (events, received) = mpsc::channel(64);
        let options = SessionOptions {
            endpoint: Endpoint::parse(&self.relay_url(), Some(&self.ca_pem())).unwrap(),
            identity: Identity::of_key(self.id().to_string(), self.id(), self.key.clone()),
            will: None,
            subscriptions: site_subscriptions(&self.id()),
            queue_messages: 64,
        };
        let (session, task) = Session::start(options, events, CancellationToken::new());
        self.session = Some(session);
        self.tasks.spawn(task);
        let nodes = self.nodes.subscribe();
        self.tasks
            .spawn(collect(self.id(), received, self.reports.clone(), nodes));
    }

    pub async fn stop_relay(&mut self) {
        if let Some(session) = self.session.take() {
            let _ = session.finish(None).await;
        }
        if let Some(broker) = self.broker.take() {
            broker.shutdown().await;
        }
    }

    pub fn admit(&self, key: PublicKey) {
        self.nodes.send_modify(|nodes| {
            let mut more = NodeDirectory::clone(nodes);
            more.insert(NodeId::of(&key), key);
            *nodes = Arc::new(more);
        });
    }

    pub async fn assign(&self, assignment: &Assignment) {
        let envelope = signed::seal(assignment, &self.key).unwrap();
        self.send_envelope(&assignment.node, envelope).await;
    }

    pub async fn send_envelope(&self, node: &NodeId, envelope: Vec<u8>) {
        let outgoing = Outgoing {
            topic: Topic::Assignment(node.clone()).text(&self.id()),
            payload: envelope.into(),
            at_least_once: true,
            retain: true,
        };
        self.session
            .as_ref()
            .unwrap()
            .publish(outgoing)
            .await
            .unwrap();
    }

    /// Sends an envelope on the topic of requests to `node`.
    #[allow(dead_code, reason = "the benchmarks share this file")]
    pub async fn send_request(&self, node: &NodeId, envelope: Vec<u8>) {
        let outgoing = Outgoing {
            topic: Topic::Request(node.clone()).text(&self.id()),
            payload: envelope.into(),
            at_least_once: true,
            retain: false,
        };
        let session = self.session.as_ref().unwrap();
        session.publish(outgoing).await.unwrap();
    }

    /// Waits for the answer to a request, and returns all answers that came until then.
    #[allow(dead_code, reason = "the benchmarks share this file")]
    pub async fn answer(&self, id: RequestId) -> (Outcome, Vec<Response>) {
        let mut reports = self.reports.subscribe();
        let is_it = |response: &&Response| response.id == id;
        let answered = reports.wait_for(|reports| reports.responses.iter().any(|one| is_it(&one)));
        let answered = tokio::time::timeout(DEADLINE, answered).await.unwrap();
        let responses = answered.unwrap().responses.clone();
        let outcome = responses.iter().find(is_it).unwrap().outcome.clone();
        (outcome, responses)
    }

    /// Waits until the node's last status is as it should be, and returns it.
    pub async fn status(&self, node: &NodeId, is_so: impl Fn(&Status) -> bool) -> Status {
        let mut reports = self.reports.subscribe();
        let found = reports.wait_for(|reports| reports.statuses.get(node).is_some_and(&is_so));
        match tokio::time::timeout(DEADLINE, found).await {
            Ok(reports) => reports.unwrap().statuses[node].clone(),
            Err(_) => panic!("never so: {:#?}", self.reports.borrow().statuses.get(node)),
        }
    }

    /// What the node has logged.
    pub fn lines(&self, node: &NodeId) -> Vec<LogLine> {
        let reports = self.reports.borrow();
        reports.lines.get(node).cloned().unwrap_or_default()
    }

    /// Waits until the node has logged a line that is as it should be, and returns it.
    pub async fn line(&self, node: &NodeId, is_so: impl Fn(&LogLine) -> bool) -> LogLine {
        let mut reports = self.reports.subscribe();
        let find = |reports: &Reports| {
            let lines = reports.lines.get(node)?;
            lines.iter().find(|line| is_so(line)).cloned()
        };
        let found = reports.wait_for(|reports| find(reports).is_some());
        match tokio::time::timeout(DEADLINE, found).await {
            Ok(reports) => find(&reports.unwrap()).unwrap(),
            Err(_) => panic!("never logged: {:#?}", self.reports.borrow().lines.get(node)),
        }
    }
}

async fn collect(
    site: SiteId,
    mut events: mpsc::Receiver<SessionEvent>,
    reports: watch::Sender<Reports>,
    nodes: watch::Receiver<Arc<NodeDirectory>>,
) {
    while let Some(event) = events.recv().await {
        let SessionEvent::Message { topic, payload, .. } = event else {
            continue;
        };
        match Topic::parse(&site, &topic) {
            Some(Topic::Status(node)) => {
                let key = nodes.borrow().get(&node).copied().unwrap();
                let status: Status = signed::open(&payload, &key).unwrap();
                reports.send_modify(|reports| {
                    reports.statuses.insert(node, status);
                });
            }
            Some(Topic::Response(node)) => {
                let key = nodes.borrow().get(&node).copied().unwrap();
                let response: Response = signed::open(&payload, &key).unwrap();
                reports.send_modify(|reports| reports.responses.push(response));
            }
            Some(Topic::Log(node)) => {
                let batch: LogBatch = serde_json::from_slice(&payload).unwrap();
                reports.send_modify(|reports| {
                    reports.lines.entry(node).or_default().extend(batch.lines);
                });
            }
            _ => {}
        }
    }
}
