//! A node of the site that is no agent: the test sends messages through it, over links of its own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use haar_host::identity::LinkSecret;
use haar_link::frame::{Frame, LiveMessage};
use haar_link::link::Link;
use haar_link::sender::Settings;
use haar_link::session::{Ends, Session as Seals};
use haar_protocol::ids::{NodeId, RouteId, SiteId};
use haar_protocol::topics::{Topic, node_subscriptions};
use haar_relay::{Endpoint, Identity, Outgoing, Session, SessionEvent, SessionOptions};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::node::Node;
use crate::site::{DEADLINE, Site};

/// The session of such a node, and its links.
pub struct Driver {
    ends: Arc<LinkEnds>,
    secret: LinkSecret,
    /// Which start of each node it has a link to.
    starts: Mutex<HashMap<NodeId, u32>>,
    _tasks: JoinSet<()>,
}

/// The links with what moves them on.
struct LinkEnds {
    site: SiteId,
    node: NodeId,
    session: Session,
    /// Taken by the test that sends, and by the task that answers what comes.
    links: Mutex<HashMap<NodeId, Link>>,
    changed: Notify,
    began: Instant,
}

impl LinkEnds {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap()
    }

    /// Does something to the link to a node, and sends what it then has to say.
    async fn with<T>(&self, other: &NodeId, act: impl FnOnce(&mut Link, u64) -> T) -> Option<T> {
        let now_ms = self.now_ms();
        let (done, frames) = {
            let mut links = self.links.lock().unwrap();
            let link = links.get_mut(other)?;
            let done = act(link, now_ms);
            let frames: Vec<_> = std::iter::from_fn(|| link.outgoing(now_ms)).collect();
            (done, frames)
        };
        for frame in frames {
            self.send(other, frame).await;
        }
        Some(done)
    }

    fn seal(&self, other: &NodeId, frame: &Frame<'_>) -> Option<Vec<u8>> {
        let mut links = self.links.lock().unwrap();
        links.get_mut(other)?.seal(frame, self.now_ms())
    }

    async fn send(&self, to: &NodeId, payload: Vec<u8>) {
        let (from, to) = (self.node.clone(), to.clone());
        let outgoing = Outgoing {
            topic: Topic::Link { from, to }.text(&self.site),
            payload: payload.into(),
            at_least_once: true,
            retain: false,
        };
        self.session.publish(outgoing).await.unwrap();
    }

    fn wake(&self) -> Instant {
        let links = self.links.lock().unwrap();
        match links.values().filter_map(Link::wake_ms).min() {
            Some(ms) => self.began + Duration::from_millis(ms),
            None => Instant::now() + DEADLINE,
        }
    }

    /// Answers what comes, and says hello again where nobody has answered.
    async fn serve(&self, mut received: mpsc::Receiver<SessionEvent>) {
        loop {
            let changed = self.changed.notified();
            let wake = self.wake();
            tokio::select! {
                event = received.recv() => match event {
                    Some(event) => self.received(event).await,
                    None => return,
                },
                () = tokio::time::sleep_until(wake.into()) => {
                    let nodes: Vec<_> = self.links.lock().unwrap().keys().cloned().collect();
                    for node in nodes {
                        self.with(&node, |_, _| ()).await;
                    }
                }
                () = changed => {}
            }
        }
    }

    async fn received(&self, event: SessionEvent) {
        let SessionEvent::Message { topic, payload, .. } = event else {
            return;
        };
        if let Some(Topic::Link { from, .. }) = Topic::parse(&self.site, &topic) {
            // What can't be opened is nothing to a test.
            self.with(&from, |link, now_ms| link.open(&payload, now_ms).is_ok())
                .await;
            self.changed.notify_waiters();
        }
    }
}

impl Driver {
    pub async fn connect(site: &Site, node: &Node) -> Self {
        let (events, mut received) = mpsc::channel(16);
        let options = SessionOptions {
            endpoint: Endpoint::parse(&site.relay_url(), None).unwrap(),
            identity: Identity::of_key(node.id.to_string(), site.id(), node.key.clone()),
            will: None,
            subscriptions: node_subscriptions(&site.id(), &node.id),
            queue_messages: 16,
        };
        let (session, task) = Session::start(options, events, CancellationToken::new());
        let mut tasks = JoinSet::new();
        tasks.spawn(task);
        let first = tokio::time::timeout(DEADLINE, received.recv()).await;
        assert_eq!(first.unwrap(), Some(SessionEvent::Connected));
        let ends = Arc::new(LinkEnds {
            site: site.id(),
            node: node.id.clone(),
            session,
            links: Mutex::default(),
            changed: Notify::new(),
            began: Instant::now(),
        });
        let serving = Arc::clone(&ends);
        tasks.spawn(async move { serving.serve(received).await });
        Self {
            ends,
            secret: node.link_secret(),
            starts: Mutex::default(),
            _tasks: tasks,
        }
    }

    /// Sends one message on a live route.
    pub async fn send(&self, to: &Node, route: RouteId, body: &str) {
        let message = LiveMessage {
            route: route.to_u64(),
            sequence: 1,
            published_ms: 1,
            headers: vec![],
            body: body.as_bytes(),
        };
        self.send_frame(to, &Frame::Live(vec![message])).await;
    }

    /// Seals a frame, once the other node has answered, and sends it.
    pub async fn send_frame(&self, to: &Node, frame: &Frame<'_>) {
        let sealed = self.seal(to, frame).await;
        self.send_bytes(to, sealed).await;
    }

    /// Seals a frame, once the other node has answered.
    pub async fn seal(&self, to: &Node, frame: &Frame<'_>) -> Vec<u8> {
        let open = async {
            self.open(to).await;
            loop {
                let changed = self.ends.changed.notified();
                let sealed = self.ends.seal(&to.id, frame);
                if let Some(sealed) = sealed {
                    return sealed;
                }
                changed.await;
            }
        };
        tokio::time::timeout(DEADLINE, open).await.unwrap()
    }

    /// Sends any bytes where sealed frames go.
    pub async fn send_bytes(&self, to: &Node, payload: Vec<u8>) {
        self.ends.send(&to.id, payload).await;
    }

    async fn open(&self, to: &Node) {
        let ends = &self.ends;
        // What is sealed for an earlier start of a node would be lost, as between agents.
        let known = self.starts.lock().unwrap().insert(to.id.clone(), to.starts);
        if known == Some(to.starts) {
            return;
        }
        let mut boot = [0; 16];
        getrandom::fill(&mut boot).unwrap();
        let names = Ends {
            site: ends.site.as_str(),
            own: ends.node.as_str(),
            other: to.id.as_str(),
        };
        let key = to.link_secret().public();
        let seals: Seals = self.secret.session(names, boot, &key).unwrap();
        let link = Link::new(seals, Settings::default());
        ends.links.lock().unwrap().insert(to.id.clone(), link);
        ends.with(&to.id, |link, now_ms| link.connected(true, now_ms))
            .await;
        ends.changed.notify_waiters();
    }
}
