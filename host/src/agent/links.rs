//! Live routes to and from other nodes: takes frames off the relay, and keeps one task for each
//! peer that fills frames and hands them to the relay. Beside the control loop, not through it.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use haar_protocol::ids::{NodeId, SiteId};
use haar_protocol::topics::Topic;
use haar_relay::{Outgoing, Session, SessionEvent};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};

use super::Event;
use crate::bus::Bus;
use crate::bus::message::count;
use crate::bus::peer::PeerQueue;

/// Sorts what the relay delivers: frames go to the bus, requests
/// to the task that answers them, the rest to the control loop.
pub(super) async fn receive(
    site: SiteId,
    node: NodeId,
    bus: Arc<Bus>,
    mut relay: mpsc::Receiver<SessionEvent>,
    connected: watch::Sender<bool>,
    events: mpsc::Sender<Event>,
    requests: mpsc::Sender<Bytes>,
) {
    while let Some(event) = relay.recv().await {
        let event = match event {
            SessionEvent::Message { topic, payload, .. } => match Topic::parse(&site, &topic) {
                Some(Topic::Live { from, to }) if to == node => {
                    bus.receive(&from, &payload);
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

/// The tasks that send to other nodes.
#[derive(Debug)]
pub(super) struct Links {
    site: SiteId,
    node: NodeId,
    session: Session,
    connected: watch::Receiver<bool>,
    tasks: JoinSet<()>,
    peers: HashMap<NodeId, (Arc<PeerQueue>, AbortHandle)>,
}

impl Links {
    pub(super) fn new(
        site: SiteId,
        node: NodeId,
        session: Session,
        connected: watch::Receiver<bool>,
    ) -> Self {
        Self {
            site,
            node,
            session,
            connected,
            tasks: JoinSet::new(),
            peers: HashMap::new(),
        }
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
                from: self.node.clone(),
                to: queue.node.clone(),
            }
            .text(&self.site);
            let (session, connected) = (self.session.clone(), self.connected.clone());
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
