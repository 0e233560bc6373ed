//! Counts the bytes of messages that the relay holds for clients that have not read them yet: by
//! node, and in all. mqtt5 bounds messages, not bytes. So each payload carries what it was charged,
//! wherever mqtt5 puts it, and gives it back when the last copy is dropped.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use haar_protocol::ids::NodeId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::NodeDirectory;
use super::options::BrokerLimits;

/// What a message takes beside its payload: topic, places in queues, the charge itself.
const MESSAGE_BYTES: usize = 1024;
/// How long a report waits for room: as long as mqtt5 itself waits for a client that is behind.
const REPORT_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a message is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoRoom {
    /// Its receiver has not read what came before.
    #[error("its receiver reads too slowly")]
    Receiver,
    /// All receivers together have not.
    #[error("the relay holds all that it may")]
    Relay,
}

/// The bytes that are held.
#[derive(Debug)]
pub(super) struct Buffered {
    link_bytes_max: usize,
    report_bytes_max: usize,
    control_bytes_max: usize,
    links: Arc<Semaphore>,
    reports: Arc<Semaphore>,
    /// Publishing clients take it to look up a node, housekeeping to forget one.
    nodes: Mutex<HashMap<NodeId, Arc<NodeRoom>>>,
}

/// The room that one node has.
#[derive(Debug)]
struct NodeRoom {
    /// Frames of other nodes that it has not read.
    links: Arc<Semaphore>,
    /// What it reported and the site has not read.
    reports: Arc<Semaphore>,
    /// Assignments and requests of the site that it has not read.
    control: Arc<Semaphore>,
}

/// A payload and what it was charged.
struct Charged {
    payload: Box<[u8]>,
    _of_node: OwnedSemaphorePermit,
    _of_relay: Option<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for Charged {
    fn as_ref(&self) -> &[u8] {
        &self.payload
    }
}

impl Buffered {
    pub(super) fn new(limits: &BrokerLimits) -> Self {
        let semaphore = |bytes: usize| Arc::new(Semaphore::new(bytes.min(Semaphore::MAX_PERMITS)));
        Self {
            link_bytes_max: limits.client_bytes_max,
            report_bytes_max: limits.client_bytes_max,
            control_bytes_max: limits.client_bytes_max,
            links: semaphore(limits.links_bytes_max),
            reports: semaphore(limits.reports_bytes_max),
            nodes: Mutex::default(),
        }
    }

    /// Charges a frame to the node that receives it. Without waiting: links send again what is
    /// lost, and a slow receiver must not hold up what its peer sends to others.
    pub(super) fn link(&self, to: &NodeId, payload: &[u8]) -> Result<Bytes, NoRoom> {
        let cost = cost(payload);
        let of_node = Arc::clone(&self.room(to).links).try_acquire_many_owned(cost);
        let of_node = of_node.map_err(|_| NoRoom::Receiver)?;
        let of_relay = Arc::clone(&self.links).try_acquire_many_owned(cost);
        let of_relay = of_relay.map_err(|_| NoRoom::Relay)?;
        Ok(charged(payload, of_node, Some(of_relay)))
    }

    /// Charges a report to the node that sends it, and waits for room: its sender reads an
    /// acknowledgement as "left the node".
    pub(super) async fn report(&self, from: &NodeId, payload: &[u8]) -> Result<Bytes, NoRoom> {
        let cost = cost(payload);
        let node = self.room(from);
        let both = async {
            let of_node = Arc::clone(&node.reports).acquire_many_owned(cost).await;
            let of_relay = Arc::clone(&self.reports).acquire_many_owned(cost).await;
            Some((of_node.ok()?, of_relay.ok()?))
        };
        match tokio::time::timeout(REPORT_TIMEOUT, both).await {
            Ok(Some((of_node, of_relay))) => Ok(charged(payload, of_node, Some(of_relay))),
            Ok(None) | Err(_) => Err(NoRoom::Receiver),
        }
    }

    /// Charges what the site sends to the node that receives it.
    pub(super) fn control(&self, to: &NodeId, payload: &[u8]) -> Result<Bytes, NoRoom> {
        let of_node = Arc::clone(&self.room(to).control).try_acquire_many_owned(cost(payload));
        let of_node = of_node.map_err(|_| NoRoom::Receiver)?;
        Ok(charged(payload, of_node, None))
    }

    /// Forgets the nodes that are not in the directory.
    pub(super) fn forget(&self, directory: &NodeDirectory) {
        self.lock().retain(|node, _| directory.contains_key(node));
    }

    fn room(&self, node: &NodeId) -> Arc<NodeRoom> {
        let mut nodes = self.lock();
        if let Some(room) = nodes.get(node) {
            return Arc::clone(room);
        }
        let room = Arc::new(NodeRoom {
            links: Arc::new(Semaphore::new(self.link_bytes_max)),
            reports: Arc::new(Semaphore::new(self.report_bytes_max)),
            control: Arc::new(Semaphore::new(self.control_bytes_max)),
        });
        nodes.insert(node.clone(), Arc::clone(&room));
        room
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<NodeId, Arc<NodeRoom>>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn cost(payload: &[u8]) -> u32 {
    u32::try_from(payload.len() + MESSAGE_BYTES).unwrap_or(u32::MAX)
}

/// A copy of its own: mqtt5's payload is a part of its read buffer and would keep all of it.
fn charged(
    payload: &[u8],
    of_node: OwnedSemaphorePermit,
    of_relay: Option<OwnedSemaphorePermit>,
) -> Bytes {
    Bytes::from_owner(Charged {
        payload: payload.into(),
        _of_node: of_node,
        _of_relay: of_relay,
    })
}

#[cfg(test)]
mod tests {
    use haar_protocol::keys::SecretKey;

    use super::*;

    fn node(seed: u8) -> NodeId {
        NodeId::of(&SecretKey::from_seed([seed; 32]).public())
    }

    fn buffered(client_bytes_max: usize, links_bytes_max: usize) -> Buffered {
        Buffered::new(&BrokerLimits {
            client_bytes_max,
            links_bytes_max,
            ..BrokerLimits::default()
        })
    }

    #[test]
    fn what_a_node_has_not_read_is_bounded_in_bytes_and_given_back() {
        let buffered = buffered(10 * MESSAGE_BYTES, 100 * MESSAGE_BYTES);
        let body = vec![7; MESSAGE_BYTES];
        let held: Vec<_> = (0..5)
            .map(|_| buffered.link(&node(1), &body).unwrap())
            .collect();
        assert_eq!(buffered.link(&node(1), &body), Err(NoRoom::Receiver));
        assert!(
            buffered.link(&node(2), &body).is_ok(),
            "another node has its own room"
        );
        let copy = held[0].clone();
        drop(held);
        assert!((0..4).all(|_| buffered.link(&node(1), &body).is_ok()));
        let rest: Vec<_> = (0..4)
            .map(|_| buffered.link(&node(1), &body).unwrap())
            .collect();
        assert_eq!(
            buffered.link(&node(1), &body),
            Err(NoRoom::Receiver),
            "a copy is still held"
        );
        assert_eq!(copy, body);
        drop((copy, rest));
    }

    #[test]
    fn small_messages_are_not_free() {
        let buffered = buffered(10 * MESSAGE_BYTES, 100 * MESSAGE_BYTES);
        let held = (0..100)
            .filter_map(|_| buffered.link(&node(1), b"x").ok())
            .collect::<Vec<_>>();
        assert_eq!(held.len(), 9);
    }

    #[test]
    fn all_nodes_together_are_bounded_too() {
        let buffered = buffered(10 * MESSAGE_BYTES, 15 * MESSAGE_BYTES);
        let body = vec![7; 9 * MESSAGE_BYTES];
        let _first = buffered.link(&node(1), &body).unwrap();
        assert_eq!(buffered.link(&node(2), &body), Err(NoRoom::Relay));
        assert!(buffered.link(&node(2), b"small").is_ok());
    }

    #[tokio::test]
    async fn a_report_waits_for_room_and_is_given_up() {
        let buffered = buffered(4 * MESSAGE_BYTES, MESSAGE_BYTES);
        let body = vec![7; 2 * MESSAGE_BYTES];
        let one = node(1);
        let first = buffered.report(&one, &body).await.unwrap();
        assert_eq!(buffered.report(&one, &body).await, Err(NoRoom::Receiver));
        let (second, ()) = tokio::join!(buffered.report(&one, &body), async { drop(first) });
        assert!(second.is_ok());
    }

    #[test]
    fn nodes_that_left_are_forgotten() {
        let buffered = buffered(4 * MESSAGE_BYTES, 40 * MESSAGE_BYTES);
        assert!(buffered.control(&node(1), b"x").is_ok());
        buffered.forget(&NodeDirectory::new());
        assert!(buffered.lock().is_empty());
    }
}
