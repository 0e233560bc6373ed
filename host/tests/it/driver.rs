//! A node of the site that is no agent: the test sends messages through it.

use haar_protocol::frame::{self, LiveMessage};
use haar_protocol::ids::RouteId;
use haar_protocol::topics::Topic;
use haar_relay::{Endpoint, Identity, Outgoing, Session, SessionEvent, SessionOptions};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::node::Node;
use crate::site::Site;

/// The session of such a node.
pub struct Driver {
    from: haar_protocol::ids::NodeId,
    session: Session,
    _tasks: JoinSet<()>,
}

impl Driver {
    pub async fn connect(site: &Site, node: &Node) -> Self {
        let (events, mut received) = mpsc::channel(16);
        let options = SessionOptions {
            endpoint: Endpoint::parse(&site.relay_url(), None).unwrap(),
            identity: Identity::of_key(node.id.to_string(), site.id(), node.key.clone()),
            will: None,
            subscriptions: vec![],
            queue_messages: 16,
        };
        let (session, task) = Session::start(options, events, CancellationToken::new());
        let mut tasks = JoinSet::new();
        tasks.spawn(task);
        assert_eq!(received.recv().await, Some(SessionEvent::Connected));
        tasks.spawn(async move { while received.recv().await.is_some() {} });
        Self {
            from: node.id.clone(),
            session,
            _tasks: tasks,
        }
    }

    /// Sends one message on a route.
    pub async fn send(&self, site: &Site, to: &Node, route: RouteId, body: &str) {
        let message = LiveMessage {
            route: route.to_u64(),
            sequence: 1,
            published_ms: 1,
            headers: vec![],
            body: body.as_bytes(),
        };
        self.send_frame(site, to, frame::encode(&[message]).unwrap())
            .await;
    }

    /// Sends any bytes as a frame of live routes.
    pub async fn send_frame(&self, site: &Site, to: &Node, payload: Vec<u8>) {
        let (from, to) = (self.from.clone(), to.id.clone());
        self.send_to(site, &Topic::Live { from, to }, payload).await;
    }

    /// Sends any bytes as a sealed frame of durable routes.
    pub async fn send_sealed(&self, site: &Site, to: &Node, payload: Vec<u8>) {
        let (from, to) = (self.from.clone(), to.id.clone());
        self.send_to(site, &Topic::Link { from, to }, payload).await;
    }

    async fn send_to(&self, site: &Site, topic: &Topic, payload: Vec<u8>) {
        let outgoing = Outgoing {
            topic: topic.text(&site.id()),
            payload: payload.into(),
            at_least_once: true,
            retain: false,
        };
        self.session.publish(outgoing).await.unwrap();
    }
}
