//! A device: a key, an enrolment, and a real session with the site's relay.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use haar_protocol::assignment::Assignment;
use haar_protocol::ids::{NodeId, SiteId};
use haar_protocol::keys::SecretKey;
use haar_protocol::limits::Budget;
use haar_protocol::proof::{self, Audience, Claims};
use haar_protocol::quantity::ByteSize;
use haar_protocol::rest::{Enrolment, EnrolmentRequest, Token, TokenRequest};
use haar_protocol::signed;
use haar_protocol::status::{MicroserviceStatus, Status};
use haar_protocol::token::EnrolmentToken;
use haar_protocol::topics::{self, Topic};
use haar_relay::{Endpoint, Identity, Outgoing, Session, SessionEvent, SessionOptions};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::http::{Client, Reply};
use super::site::TestSite;
use super::wait::DEADLINE;

pub(crate) fn now_ms() -> u64 {
    u64::try_from(
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_millis(),
    )
    .unwrap()
}

pub(crate) struct Device {
    pub(crate) key: SecretKey,
    pub(crate) id: NodeId,
    pub(crate) site: SiteId,
    pub(crate) enrolment: Option<Enrolment>,
}

impl Device {
    pub(crate) fn new(site: &TestSite, seed: u8) -> Self {
        Self::with_key(site, SecretKey::from_seed([seed; 32]))
    }

    fn with_key(site: &TestSite, key: SecretKey) -> Self {
        Self {
            id: NodeId::of(&key.public()),
            key,
            site: site.id(),
            enrolment: None,
        }
    }

    pub(crate) fn proof(&self, issued_ms: u64) -> String {
        let claims = Claims {
            audience: Audience::Controller,
            site: self.site.clone(),
            subject: self.id.to_string(),
            issued_ms,
            nonce: format!("{:032x}", rand_u64()),
            relay: None,
        };
        proof::make(&claims, &self.key)
    }

    pub(crate) fn request(&self, secret: &str, name: Option<&str>) -> EnrolmentRequest {
        EnrolmentRequest {
            secret: secret.into(),
            key: self.key.public(),
            proof: self.proof(now_ms()),
            name: name.map(|name| name.parse().unwrap()),
            labels: BTreeMap::from([("arch".to_owned(), "arm".to_owned())]),
            budget: Budget::new(ByteSize(64 << 20), 4),
            agent_version: "0.1.0".into(),
            target: "aarch64-linux".into(),
        }
    }

    /// Joins the site under `name` with `labels`.
    pub(crate) fn join(site: &TestSite, seed: u8, name: &str, labels: &[(&str, &str)]) -> Self {
        let mut device = Self::new(site, seed);
        let secret = token(site, Some(name), labels);
        device.enrolment = Some(post(site, &device.request(&secret, None)).ok());
        device
    }

    /// Joins the site as one of a large fleet.
    pub(crate) fn join_as(site: &TestSite, number: u16) -> Self {
        let mut seed = [0; 32];
        seed[..2].copy_from_slice(&number.to_be_bytes());
        let device = Self::with_key(site, SecretKey::from_seed(seed));
        let secret = token(site, Some(&format!("gw-{number}")), &[]);
        post(site, &device.request(&secret, None)).done();
        device
    }

    /// A client that authenticates as this device.
    pub(crate) fn client(&self, site: &TestSite) -> Client {
        site.client
            .with_authorization(Some(format!("Haar-Proof {}", self.proof(now_ms()))))
    }

    pub(crate) fn connect(&self, site: &TestSite) -> Link {
        let (events, received) = mpsc::channel(256);
        let options = SessionOptions {
            endpoint: Endpoint::parse(&site.relay_url(), Some(&site.context.ca_pem)).unwrap(),
            identity: Identity::of_key(self.id.to_string(), self.site.clone(), self.key.clone()),
            will: Some(self.alive("offline")),
            subscriptions: topics::node_subscriptions(&self.site, &self.id),
            queue_messages: 64,
        };
        let (session, task) = Session::start(options, events, CancellationToken::new());
        let mut tasks = JoinSet::new();
        tasks.spawn_on(task, site.runtime.handle());
        let handle = site.runtime.handle().clone();
        let mut link = Link {
            session,
            received,
            tasks,
            handle,
            key: site.key,
        };
        link.until("connected", |event| {
            matches!(event, SessionEvent::Connected).then_some(())
        });
        link
    }

    pub(crate) fn alive(&self, text: &'static str) -> Outgoing {
        Outgoing {
            topic: Topic::Alive(self.id.clone()).text(&self.site),
            payload: text.as_bytes().into(),
            at_least_once: true,
            retain: true,
        }
    }

    pub(crate) fn status(
        &self,
        sequence: u64,
        applied: u64,
        microservices: Vec<MicroserviceStatus>,
    ) -> Status {
        Status {
            site: self.site.clone(),
            node: self.id.clone(),
            sequence,
            sent_ms: now_ms(),
            started_ms: 1,
            uptime_ms: None,
            interval_ms: None,
            start: None,
            link_key: None,
            link_key_generation: 0,
            agent_version: "0.1.1".into(),
            target: "aarch64-linux".into(),
            engine: None,
            applied,
            refused: None,
            budget: Budget::new(ByteSize(64 << 20), 4),
            memory_source: None,
            policy: None,
            resident_bytes: 9_000_000,
            flash: None,
            store: None,
            microservices,
            routes: Vec::new(),
            backlogs: Vec::new(),
            discarded: Default::default(),
            frames_refused: 0,
            relays: Vec::new(),
            brokers: Vec::new(),
            device_messages_dropped: 0,
            device_properties_dropped: 0,
            serves: Vec::new(),
            omitted: None,
        }
    }

    /// A status of any content, as the device's key would sign it: also one that no agent sends.
    pub(crate) fn sealed_json(&self, json: &serde_json::Value) -> Outgoing {
        let json = serde_json::to_vec(json).unwrap();
        let mut covered = b"haar signed document\n\x02\x01".to_vec();
        covered.extend_from_slice(&json);
        let mut envelope = b"HAAR\x02\x01".to_vec();
        envelope.extend_from_slice(&self.key.sign(&covered));
        envelope.extend_from_slice(&json);
        Outgoing {
            topic: Topic::Status(self.id.clone()).text(&self.site),
            payload: envelope.into(),
            at_least_once: true,
            retain: true,
        }
    }

    pub(crate) fn sealed(&self, status: &Status, key: &SecretKey) -> Outgoing {
        Outgoing {
            topic: Topic::Status(self.id.clone()).text(&self.site),
            payload: signed::seal(status, key).unwrap().into(),
            at_least_once: true,
            retain: true,
        }
    }
}

/// A device's connection to the relay.
pub(crate) struct Link {
    pub(crate) session: Session,
    received: mpsc::Receiver<SessionEvent>,
    tasks: JoinSet<()>,
    handle: tokio::runtime::Handle,
    key: haar_protocol::keys::PublicKey,
}

impl Link {
    /// Reads events until `pick` wants one.
    pub(crate) fn until<T>(
        &mut self,
        what: &str,
        mut pick: impl FnMut(SessionEvent) -> Option<T>,
    ) -> T {
        let received = &mut self.received;
        let wait = async {
            loop {
                let event = received.recv().await.expect("the session goes on");
                if let Some(value) = pick(event) {
                    return value;
                }
            }
        };
        let timed = async { tokio::time::timeout(DEADLINE, wait).await };
        self.handle
            .block_on(timed)
            .unwrap_or_else(|_| panic!("waited too long: {what}"))
    }

    /// The next assignment that `wanted` accepts; its signature is checked. With it, whether the
    /// relay had kept it.
    pub(crate) fn assignment(
        &mut self,
        wanted: impl Fn(&Assignment) -> bool,
    ) -> (Assignment, bool) {
        let key = self.key;
        self.until("an assignment", |event| match event {
            SessionEvent::Message {
                topic,
                payload,
                retained,
            } if topic.ends_with("/ctl/assignment") && !payload.is_empty() => {
                let assignment: Assignment = signed::open(&payload, &key).unwrap();
                wanted(&assignment).then_some((assignment, retained))
            }
            _ => None,
        })
    }

    pub(crate) fn publish(&self, message: Outgoing) {
        let publish = self.session.publish(message);
        let timed = async { tokio::time::timeout(DEADLINE, publish).await };
        let published = self.handle.block_on(timed);
        published.expect("there is room in the queue").unwrap();
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // A device that dies says nothing any more. A session that is told to stop would still leave in
        // order, and then nobody publishes its will.
        self.tasks.abort_all();
    }
}

/// The secret of a new enrolment token.
pub(crate) fn token(site: &TestSite, name: Option<&str>, labels: &[(&str, &str)]) -> String {
    let request = TokenRequest {
        name: name.map(|name| name.parse().unwrap()),
        labels: labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
        expires_in_s: None,
    };
    let token: Token = site.client.post_json("/tokens", &request).ok();
    let token: EnrolmentToken = token.token.parse().unwrap();
    assert_eq!(token.site, site.id());
    token.secret
}

/// Sends an enrolment as a device does: without any other authorisation.
pub(crate) fn post(site: &TestSite, request: &EnrolmentRequest) -> Reply {
    site.client
        .with_authorization(None)
        .post_json("/enrolments", request)
}

fn rand_u64() -> u64 {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).unwrap();
    u64::from_be_bytes(bytes)
}
