//! Links to other nodes: takes frames off the relay, and keeps a task for each node with which this
//! one shares a route ([`super::peer_link`]). Beside the control loop, not through it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use haar_link::session::{Boot, Ends};
use haar_protocol::assignment::Peer;
use haar_protocol::ids::{NodeId, SiteId};
use haar_protocol::keys::LinkKey;
use haar_protocol::topics::Topic;
use haar_relay::{Session, SessionEvent};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use super::Event;
use super::peer_link::{PeerLink, Ways};
use crate::bus::Bus;
use crate::bus::logs::LinkPlan;
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

/// Sorts what the relay delivers: frames go to the task of their link, requests to the task that
/// answers them, the rest to the control loop.
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
                Some(Topic::Link { from, to }) if to == node => {
                    let door = doors.load().get(&from).cloned();
                    let taken = match door {
                        // The task of a link never waits while frames wait for it.
                        Some(door) => door.send(payload).await.is_ok(),
                        None => false,
                    };
                    if !taken {
                        bus.refuse();
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

/// The links to other nodes.
#[derive(Debug)]
pub(super) struct Links {
    means: Means,
    tasks: JoinSet<()>,
    links: HashMap<NodeId, OpenLink>,
    /// Nodes whose key is not known, and of which that was said.
    missed: BTreeSet<NodeId>,
    /// What was followed last.
    plans: BTreeMap<NodeId, LinkPlan>,
    peers: Vec<Peer>,
}

/// The task of one link.
#[derive(Debug)]
struct OpenLink {
    key: LinkKey,
    plan: watch::Sender<LinkPlan>,
    task: AbortHandle,
}

impl Links {
    pub(super) fn new(means: Means) -> Self {
        Self {
            means,
            tasks: JoinSet::new(),
            links: HashMap::new(),
            missed: BTreeSet::new(),
            plans: BTreeMap::new(),
            peers: Vec::new(),
        }
    }

    /// Goes on with another secret: every link begins anew.
    pub(super) fn renew(&mut self, secret: LinkSecret) {
        self.means.secret = secret;
        for (_, link) in self.links.drain() {
            link.task.abort();
        }
        self.means.doors.store(Arc::default());
        let (plans, peers) = (self.plans.clone(), self.peers.clone());
        self.follow(&plans, &peers);
    }

    /// Keeps a link for each of `plans` whose key is known, and no other.
    pub(super) fn follow(&mut self, plans: &BTreeMap<NodeId, LinkPlan>, peers: &[Peer]) {
        (self.plans, self.peers) = (plans.clone(), peers.to_vec());
        let key = |node: &NodeId| peers.iter().find(|peer| &peer.id == node)?.link_key;
        let mut doors = self.means.doors.load().as_ref().clone();
        self.links.retain(|node, link| {
            let keep = plans.contains_key(node) && key(node) == Some(link.key);
            if !keep {
                link.task.abort();
                doors.remove(node);
            }
            keep
        });
        self.missed
            .retain(|node| plans.contains_key(node) && key(node).is_none());
        for (node, plan) in plans {
            if let Some(link) = self.links.get(node) {
                link.plan.send_replace(plan.clone());
                continue;
            }
            let Some(key) = key(node) else {
                if self.missed.insert(node.clone()) {
                    tracing::warn!("routes wait: node {node} has not told its key for links");
                }
                continue;
            };
            match self.open(node, key, plan) {
                Ok((link, door)) => {
                    self.links.insert(node.clone(), link);
                    doors.insert(node.clone(), door);
                }
                Err(error) => tracing::error!("no link to node {node}: {error:#}"),
            }
        }
        self.means.doors.store(Arc::new(doors));
        while self.tasks.try_join_next().is_some() {} // those that were ended
    }

    fn open(
        &mut self,
        node: &NodeId,
        key: LinkKey,
        plan: &LinkPlan,
    ) -> anyhow::Result<(OpenLink, mpsc::Sender<Bytes>)> {
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
        let ways = Ways {
            bus: Arc::clone(&means.bus),
            store: means.store.clone(),
            session: means.session.clone(),
            node: node.clone(),
            topic: topic.text(&means.site),
            connected: means.connected.clone(),
            plan: planned,
            frames,
            began: means.began,
        };
        let task = self.tasks.spawn(PeerLink::new(ways, seals).run());
        Ok((OpenLink { key, plan, task }, door))
    }
}
