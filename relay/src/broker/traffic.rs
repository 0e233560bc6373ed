//! What becomes of a publish before mqtt5 routes it: too large for its kind of topic, too fast, no
//! room, retained or not. mqtt5 calls it for every publish of every client that it has allowed to
//! write to the topic; wills, which are small, do not pass here.
//!
//! A refused message is dropped and, at QoS 1, acknowledged: mqtt5's hook can't say why. Nobody is
//! hurt by that: an acknowledgement of a relay means "left the node", and what matters is
//! acknowledged end to end.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use haar_protocol::frame::FRAME_BYTES_MAX;
use haar_protocol::ids::{NodeId, SiteId};
use haar_protocol::signed::ENVELOPE_BYTES_MAX;
use haar_protocol::topics::Topic;
use mqtt5::QoS;
use mqtt5::broker::router::MessageRouter;
use mqtt5::broker::{BrokerEventHandler, ClientPublishEvent, PublishAction};
use mqtt5::packet::publish::PublishPacket;
use tokio::sync::watch;
use tokio::time::Instant;

use super::buffered::{Buffered, NoRoom};
use super::options::BrokerLimits;
use super::provider::Answer;
use super::{BrokerOptions, NodeDirectory, admission};
use crate::PACKET_BYTES_MAX;
use crate::pace::{Pace, Rate};

/// "online" and "offline".
const ALIVE_BYTES_MAX: usize = 64;
/// Refused messages of one client are logged this often.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);

/// The hook. One for each relay.
pub(super) struct Traffic {
    site: SiteId,
    nodes: watch::Receiver<Arc<NodeDirectory>>,
    router: Arc<MessageRouter>,
    buffered: Buffered,
    report_rate: Rate,
    link_rate: Rate,
    retained_bytes_max: usize,
    /// Publishing clients take it for an instant each, housekeeping to forget nodes.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    senders: HashMap<NodeId, Sender>,
    /// The sizes of what nodes have had retained, by topic, and their sum.
    retained: HashMap<Arc<str>, usize>,
    retained_bytes: usize,
}

/// What one node has published.
#[derive(Default)]
struct Sender {
    reports: Pace,
    links: Pace,
    complained: Option<Instant>,
    refused: u64,
}

/// Why a message is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Refused {
    #[error("the relay has no such topic")]
    Topic,
    #[error("nothing is retained there")]
    Retained,
    #[error("it is larger than the {0} bytes that its topic may carry")]
    TooLarge(usize),
    #[error("its receiver is no node of this relay")]
    Receiver,
    #[error("{0}")]
    NoRoom(#[from] NoRoom),
}

impl Traffic {
    pub(super) fn new(options: &BrokerOptions, router: &Arc<MessageRouter>) -> Self {
        let BrokerLimits {
            report_rate,
            link_rate,
            retained_bytes_max,
            ..
        } = options.limits;
        Self {
            site: options.site.clone(),
            nodes: options.nodes.clone(),
            router: Arc::clone(router),
            buffered: Buffered::new(&options.limits),
            report_rate,
            link_rate,
            retained_bytes_max,
            state: Mutex::default(),
        }
    }

    /// Forgets nodes that left the directory.
    pub(super) fn forget(&self) {
        let nodes = Arc::clone(&self.nodes.borrow());
        self.buffered.forget(&nodes);
        self.lock()
            .senders
            .retain(|node, _| nodes.contains_key(node));
    }

    async fn judge(&self, event: &ClientPublishEvent) -> Result<PublishAction, Refused> {
        let topic = Topic::parse(&self.site, &event.topic).ok_or(Refused::Topic)?;
        let payload = &event.payload;
        if event.retain && !admission::may_retain(&self.site, &event.topic) {
            return Err(Refused::Retained);
        }
        let limit = payload_bytes_max(&topic);
        if payload.len() > limit {
            return Err(Refused::TooLarge(limit));
        }
        match &topic {
            Topic::Link { from, to } => {
                if !self.nodes.borrow().contains_key(to) {
                    return Err(Refused::Receiver);
                }
                self.pace(from, &topic, payload.len()).await;
                let payload = self.buffered.link(to, payload)?;
                Ok(self.route_once(event, payload).await)
            }
            Topic::Status(from) | Topic::Alive(from) | Topic::Log(from) | Topic::Response(from) => {
                self.pace(from, &topic, payload.len()).await;
                let retain = event.retain && self.retains(&event.topic, payload.len());
                let payload = self.buffered.report(from, payload).await?;
                Ok(PublishAction::Transform(packet(event, payload, retain)))
            }
            Topic::Assignment(to) | Topic::Request(to) => {
                let payload = match self.buffered.control(to, payload) {
                    Ok(payload) => payload,
                    // Retained all the same: the node gets the newest one when it comes back.
                    Err(_) => {
                        tracing::warn!(node = %to, "cut: it does not read what the site sends");
                        self.router.disconnect_client(to.as_str()).await;
                        Bytes::copy_from_slice(payload)
                    }
                };
                Ok(PublishAction::Transform(packet(
                    event,
                    payload,
                    event.retain,
                )))
            }
        }
    }

    /// Delivers a frame at QoS 0, whatever its sender asked for: links acknowledge end to end, and
    /// at QoS 1 mqtt5 keeps two more copies of what a receiver does not acknowledge.
    async fn route_once(&self, event: &ClientPublishEvent, payload: Bytes) -> PublishAction {
        let mut publish = packet(event, payload, false);
        if event.qos == QoS::AtMostOnce {
            return PublishAction::Transform(publish);
        }
        (publish.qos, publish.packet_id) = (QoS::AtMostOnce, None);
        self.router
            .route_message(&publish, Some(&event.client_id))
            .await;
        PublishAction::Handled
    }

    /// Waits when a node publishes faster than it may. Its connection is not read meanwhile.
    async fn pace(&self, from: &NodeId, topic: &Topic, bytes: usize) {
        let wait = {
            let mut state = self.lock();
            let sender = state.senders.entry(from.clone()).or_default();
            let now = Instant::now();
            match topic {
                Topic::Link { .. } => sender.links.count(&self.link_rate, bytes, now),
                _ => sender.reports.count(&self.report_rate, bytes, now),
            }
        };
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }

    /// Notes what nodes have retained. False when there would be too much: the message passes, and
    /// is not kept.
    fn retains(&self, topic: &Arc<str>, bytes: usize) -> bool {
        let mut state = self.lock();
        let before = state.retained.get(topic).copied().unwrap_or_default();
        let after = state.retained_bytes - before + bytes;
        if after > self.retained_bytes_max {
            return false;
        }
        match bytes {
            0 => drop(state.retained.remove(topic)),
            _ => drop(state.retained.insert(Arc::clone(topic), bytes)),
        }
        state.retained_bytes = after;
        true
    }

    /// Logs a refused message, unless one of the same client was logged just now.
    fn complain(&self, event: &ClientPublishEvent, refused: Refused) {
        let Ok(node) = event.client_id.parse::<NodeId>() else {
            tracing::warn!(topic = %event.topic, "dropped a message of the site: {refused}");
            return;
        };
        let mut state = self.lock();
        let sender = state.senders.entry(node).or_default();
        sender.refused += 1;
        let now = Instant::now();
        if sender
            .complained
            .is_none_or(|before| before + COMPLAINT_INTERVAL <= now)
        {
            sender.complained = Some(now);
            let (count, client) = (std::mem::take(&mut sender.refused), &event.client_id);
            drop(state);
            tracing::warn!(%client, topic = %event.topic, count, "dropped messages, the last because {refused}");
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BrokerEventHandler for Traffic {
    fn on_client_publish<'a>(&'a self, event: ClientPublishEvent) -> Answer<'a, PublishAction> {
        Box::pin(async move {
            match self.judge(&event).await {
                Ok(action) => action,
                Err(refused) => {
                    self.complain(&event, refused);
                    PublishAction::Handled
                }
            }
        })
    }
}

/// The largest payload of a topic.
fn payload_bytes_max(topic: &Topic) -> usize {
    match topic {
        Topic::Link { .. } => FRAME_BYTES_MAX,
        Topic::Assignment(_) | Topic::Status(_) | Topic::Request(_) | Topic::Response(_) => {
            ENVELOPE_BYTES_MAX
        }
        // Bounded by its lines, which JSON may make six times as long.
        Topic::Log(_) => usize::try_from(PACKET_BYTES_MAX).unwrap_or(usize::MAX),
        Topic::Alive(_) => ALIVE_BYTES_MAX,
    }
}

/// The message as it goes on: without properties, which nobody reads and which have no limit.
fn packet(event: &ClientPublishEvent, payload: Bytes, retain: bool) -> PublishPacket {
    let mut publish = PublishPacket::new(event.topic.to_string(), payload, event.qos);
    publish.retain = retain;
    publish.packet_id = event.packet_id;
    publish
}
