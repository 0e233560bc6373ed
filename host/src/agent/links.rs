//! Links to other nodes: takes frames off relays, and keeps a task for each node with which this
//! one shares a route ([`super::peer_link`]). Beside the control loop, not through it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use haar_link::paths::RelayNumber;
use haar_link::session::{Boot, Ends};
use haar_protocol::assignment::Peer;
use haar_protocol::ids::{Name, NodeId, SiteId};
use haar_protocol::keys::LinkKey;
use haar_protocol::relay::RelayRole;
use haar_protocol::text;
use haar_protocol::topics::Topic;
use haar_relay::SessionEvent;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use super::Event;
use super::peer_link::{PeerLink, Ways};
use super::relays::Table;
use crate::bus::Bus;
use crate::bus::logs::LinkPlan;
use crate::identity::LinkSecret;
use crate::local_api::state::now_ms;
use crate::store::Store;

/// Sealed frames of one node that may wait to be opened.
const FRAMES_MAX: usize = 64;
/// Bytes of a broker's reason that are kept.
pub(super) const REASON_BYTES_MAX: usize = 512;

/// Where what relays deliver goes.
#[derive(Clone)]
pub(super) struct Intake {
    pub(super) site: SiteId,
    pub(super) node: NodeId,
    pub(super) bus: Arc<Bus>,
    pub(super) table: Arc<watch::Sender<Table>>,
    pub(super) connected: Arc<watch::Sender<bool>>,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) requests: mpsc::Sender<Bytes>,
    pub(super) doors: Arc<Doors>,
}

impl Intake {
    /// Sorts what one relay delivers: frames go to the task of their link, requests to the task that
    /// answers them, the rest to the control loop.
    pub(super) async fn receive(
        self,
        relay: RelayNumber,
        mut events: mpsc::Receiver<SessionEvent>,
    ) {
        while let Some(event) = events.recv().await {
            let event = match event {
                SessionEvent::Message { topic, payload, .. } => {
                    match self.sort(relay, &topic, payload).await {
                        Some(event) => event,
                        None => continue,
                    }
                }
                SessionEvent::Connected => {
                    self.note(relay, None);
                    Event::Connected(relay)
                }
                SessionEvent::Disconnected { reason } => {
                    // A broker's words, of any length.
                    let words = text::line(&reason.to_string(), REASON_BYTES_MAX);
                    self.note(relay, Some(words));
                    Event::Disconnected(relay, reason)
                }
            };
            if self.events.send(event).await.is_err() {
                return; // the control loop has ended
            }
        }
    }

    /// Returns what is for the control loop.
    async fn sort(&self, relay: RelayNumber, topic: &str, payload: Bytes) -> Option<Event> {
        match Topic::parse(&self.site, topic)? {
            Topic::Link { from, to } if to == self.node => {
                let door = self.doors.load().get(&from).cloned();
                let taken = match door {
                    // The task of a link never waits while frames wait for it.
                    Some(door) => door.send((relay, payload)).await.is_ok(),
                    None => false,
                };
                if !taken {
                    self.bus.refuse();
                }
                None
            }
            Topic::Assignment(to) if to == self.node => Some(Event::Assignment(payload)),
            Topic::Request(to) if to == self.node => {
                if self.requests.try_send(payload).is_err() {
                    tracing::warn!("too many requests wait: one of the site is dropped");
                }
                None
            }
            _ => None,
        }
    }

    /// Notes that a relay is there, or why it is not.
    fn note(&self, relay: RelayNumber, reason: Option<String>) {
        self.table.send_modify(|table| {
            let mut attachments = table.as_ref().clone();
            if let Some(one) = attachments.iter_mut().find(|one| one.number == relay) {
                if one.connected != reason.is_none() {
                    one.connected = !one.connected;
                    one.since_ms = now_ms();
                }
                one.connections += u64::from(one.connected);
                one.reason = reason;
            }
            *table = Arc::new(attachments);
        });
        self.tell_connected();
    }

    /// Tells who waits for it whether the site can be reached.
    pub(super) fn tell_connected(&self) {
        let table = self.table.borrow().clone();
        let mut sites = table.iter().filter(|one| one.role == RelayRole::Everything);
        self.connected.send_replace(sites.any(|one| one.connected));
    }
}

/// Where sealed frames of other nodes go, each with the relay that brought it.
pub(super) type Doors = ArcSwap<HashMap<NodeId, mpsc::Sender<(RelayNumber, Bytes)>>>;

/// What the tasks of all links need.
#[derive(Debug, Clone)]
pub(super) struct Means {
    pub(super) site: SiteId,
    pub(super) node: NodeId,
    pub(super) relays: watch::Receiver<Table>,
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
    /// The relays that the other node attaches to, too; empty for all.
    shared: watch::Sender<Vec<Name>>,
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
        let shared = |node: &NodeId| {
            let peer = peers.iter().find(|peer| &peer.id == node);
            peer.map_or_else(Vec::new, |peer| peer.relays.clone())
        };
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
                link.shared.send_replace(shared(node));
                link.plan.send_replace(plan.clone());
                continue;
            }
            let Some(key) = key(node) else {
                if self.missed.insert(node.clone()) {
                    tracing::warn!("routes wait: node {node} has not told its key for links");
                }
                continue;
            };
            match self.open(node, key, plan, shared(node)) {
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
        shared: Vec<Name>,
    ) -> anyhow::Result<(OpenLink, mpsc::Sender<(RelayNumber, Bytes)>)> {
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
        let (shared, sharing) = watch::channel(shared);
        let (door, frames) = mpsc::channel(FRAMES_MAX);
        let ways = Ways {
            bus: Arc::clone(&means.bus),
            store: means.store.clone(),
            node: node.clone(),
            topic: topic.text(&means.site),
            relays: means.relays.clone(),
            shared: sharing,
            plan: planned,
            frames,
            began: means.began,
        };
        let task = self.tasks.spawn(PeerLink::new(ways, seals).run());
        let link = OpenLink {
            key,
            plan,
            shared,
            task,
        };
        Ok((link, door))
    }
}
