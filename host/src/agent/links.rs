//! Routes to and from other nodes: takes frames off the relay, and keeps two tasks for each peer, one
//! that fills frames of live routes and hands them to the relay, and one for the durable ones
//! ([`super::peer_link`]). Beside the control loop, not through it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use haar_link::session::{Boot, Ends};
use haar_protocol::assignment::Peer;
use haar_protocol::ids::{NodeId, SiteId};
use haar_protocol::keys::LinkKey;
use haar_protocol::topics::Topic;
use haar_relay::{Outgoing, Session, SessionEvent};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use super::Event;
use super::peer_link::PeerLink;
use crate::bus::Bus;
use crate::bus::logs::LinkPlan;
use crate::bus::message::count;
use crate::bus::peer::PeerQueue;
use crate::identity::LinkSecret;
use crate::store::Store;

/// Sealed frames of one node that may wait to be opened.
const FRAMES_MAX: usize = 64;

/// Where what the relay delivers goes.
pub(super) struct Intake {
    pub(super) site: SiteId,
    pub(super) node: NodeId,
    pub(super) bus: Arc<Bus>,
    pub(super) connected: watch::Sender<bool>,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) requests: mpsc::Sender<Bytes>,
    pub(super) doors: Arc<Doors>,
}

/// Sorts what the relay delivers: live frames go to the bus, sealed ones to the task of their link,
/// requests to the task that answers them, the rest to the control loop.
pub(super) async fn receive(intake: Intake, mut relay: mpsc::Receiver<SessionEvent>) {
    let Intake {
        site,
        node,
        bus,
        connected,
        events,
        requests,
        doors,
    } = intake;
    while let Some(event) = relay.recv().await {
        let event = match event {
            SessionEvent::Message { topic, payload, .. } => match Topic::parse(&site, &topic) {
                Some(Topic::Live { from, to }) if to == node => {
                    bus.receive(&from, &payload);
                    continue;
                }
                Some(Topic::Link { from, to }) if to == node => {
                    match doors.load().get(&from) {
                        // What does not fit is sent again.
                        Some(door) => drop(door.try_send(payload)),
                        None => bus.refuse(),
                    }
                    continue;
                }
                Some(Topic::Assignment(to)) if to == node => Event::Assignment(payload),
                Some(Topic::Request(to)) if to == node => {
                    if requests.try_send(payload).is_err() {
                        tracing::warn!("too many requests wait: one of the site is dropped");
                    }
                    continue;
                }
                _ => continue,
            },
            SessionEvent::Connected => {
                connected.send_replace(true);
                Event::Connected
            }
            SessionEvent::Disconnected { reason } => {
                connected.send_replace(false);
                Event::Disconnected(reason)
            }
        };
        if events.send(event).await.is_err() {
            return; // the control loop has ended
        }
    }
}

/// Where sealed frames of other nodes go.
pub(super) type Doors = ArcSwap<HashMap<NodeId, mpsc::Sender<Bytes>>>;

/// What the tasks of all links need.
#[derive(Debug, Clone)]
pub(super) struct Means {
    pub(super) site: SiteId,
    pub(super) node: NodeId,
    pub(super) session: Session,
    pub(super) connected: watch::Receiver<bool>,
    pub(super) bus: Arc<Bus>,
    pub(super) store: Store,
    pub(super) secret: LinkSecret,
    pub(super) began: Instant,
    pub(super) doors: Arc<Doors>,
}

/// The tasks that exchange messages with other nodes.
#[derive(Debug)]
pub(super) struct Links {
    means: Means,
    tasks: JoinSet<()>,
    peers: HashMap<NodeId, (Arc<PeerQueue>, AbortHandle)>,
    durable: HashMap<NodeId, DurableLink>,
}

/// The task of the durable routes of one peer.
#[derive(Debug)]
struct DurableLink {
    key: LinkKey,
    plan: watch::Sender<LinkPlan>,
    task: AbortHandle,
}

impl Links {
    pub(super) fn new(means: Means) -> Self {
        Self {
            means,
            tasks: JoinSet::new(),
            peers: HashMap::new(),
            durable: HashMap::new(),
        }
    }

    /// Keeps a task for each of `plans` whose key is known, and for no other.
    pub(super) fn follow_durable(&mut self, plans: &BTreeMap<NodeId, LinkPlan>, peers: &[Peer]) {
        let key = |node: &NodeId| peers.iter().find(|peer| &peer.id == node)?.link_key;
        let mut doors = self.means.doors.load().as_ref().clone();
        self.durable.retain(|node, link| {
            let keep = plans.contains_key(node) && key(node) == Some(link.key);
            if !keep {
                link.task.abort();
                doors.remove(node);
            }
            keep
        });
        for (node, plan) in plans {
            if let Some(link) = self.durable.get(node) {
                link.plan.send_replace(plan.clone());
                continue;
            }
            let Some(key) = key(node) else {
                tracing::warn!("durable routes wait: node {node} has not told its key for links");
                continue;
            };
            match self.open(node, key, plan) {
                Ok((link, door)) => {
                    self.durable.insert(node.clone(), link);
                    doors.insert(node.clone(), door);
                }
                Err(error) => tracing::error!("no link to node {node}: {error:#}"),
            }
        }
        self.means.doors.store(Arc::new(doors));
    }

    fn open(
        &mut self,
        node: &NodeId,
        key: LinkKey,
        plan: &LinkPlan,
    ) -> anyhow::Result<(DurableLink, mpsc::Sender<Bytes>)> {
        let means = &self.means;
        // One for each session, not for each start of the agent: a link that is closed and opened
        // again would count its frames from zero under the keys that it had before.
        let mut boot: Boot = [0; 16];
        getrandom::fill(&mut boot)
            .map_err(|error| anyhow::anyhow!("the machine has no randomness: {error}"))?;
        let ends = Ends {
            site: means.site.as_str(),
            own: means.node.as_str(),
            other: node.as_str(),
        };
        let seals = means.secret.session(ends, boot, &key)?;
        let topic = Topic::Link {
            from: means.node.clone(),
            to: node.clone(),
        };
        let (plan, planned) = watch::channel(plan.clone());
        let (door, frames) = mpsc::channel(FRAMES_MAX);
        let link = PeerLink {
            bus: Arc::clone(&means.bus),
            store: means.store.clone(),
            session: means.session.clone(),
            topic: topic.text(&means.site),
            connected: means.connected.clone(),
            plan: planned,
            frames,
            began: means.began,
            outdated: Vec::new(),
        };
        let task = self.tasks.spawn(link.run(seals));
        Ok((DurableLink { key, plan, task }, door))
    }

    /// Keeps a task for each of `queues`, and for no other.
    pub(super) fn follow<'a>(&mut self, queues: impl Iterator<Item = &'a Arc<PeerQueue>>) {
        let queues: Vec<_> = queues.collect();
        self.peers.retain(|_, (queue, task)| {
            let keep = queues.iter().any(|other| Arc::ptr_eq(queue, other));
            if !keep {
                task.abort();
            }
            keep
        });
        for queue in queues {
            if self.peers.contains_key(&queue.node) {
                continue;
            }
            let topic = Topic::Live {
                from: self.means.node.clone(),
                to: queue.node.clone(),
            }
            .text(&self.means.site);
            let (session, connected) = (self.means.session.clone(), self.means.connected.clone());
            let task = self
                .tasks
                .spawn(send(Arc::clone(queue), topic, session, connected));
            self.peers
                .insert(queue.node.clone(), (Arc::clone(queue), task));
        }
        while self.tasks.try_join_next().is_some() {} // those that were ended
    }
}

/// Sends what waits in the queue, frame by frame. While there is no connection the queue holds the
/// newest messages, within its bounds.
async fn send(
    queue: Arc<PeerQueue>,
    topic: String,
    session: Session,
    mut connected: watch::Receiver<bool>,
) {
    loop {
        queue.wait().await;
        if connected.wait_for(|connected| *connected).await.is_err() {
            return; // the agent is stopping
        }
        let Some((frame, taken)) = queue.take_frame() else {
            continue;
        };
        let outgoing = Outgoing {
            topic: topic.clone(),
            payload: Bytes::from(frame),
            at_least_once: false,
            retain: false,
        };
        if session.publish(outgoing).await.is_err() {
            for outbound in taken {
                count(&outbound.counters.dropped);
            }
        }
    }
}
