//! What the relay keeps of clients and messages: mqtt5's router and its storage, in memory. A relay
//! that restarts begins empty, and loses nothing by it: nodes and the site connect again with a
//! clean session and say again what counts ([decision 018](../../../docs/decisions/018-what-the-relay-holds.md)).

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use haar_protocol::ids::NodeId;
use mqtt5::broker::router::MessageRouter;
use mqtt5::broker::storage::{DynamicStorage, MemoryBackend, QueueLimits, StorageBackend as _};

use super::options::{BrokerError, BrokerLimits};
use crate::PACKET_BYTES_MAX;

/// Removes the folder in which relays of release 0.1 kept their state: nothing in it is of use.
pub fn remove_earlier_state(folder: &Path) {
    match std::fs::remove_dir_all(folder) {
        Ok(()) => {
            tracing::info!(folder = %folder.display(), "removed: the relay keeps nothing on the disk any more");
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => {
            tracing::warn!(folder = %folder.display(), %error, "the folder of an earlier relay can't be removed: it is of no use, remove it by hand");
        }
    }
}

/// What the relay knows of clients and messages.
#[derive(Clone)]
pub(super) struct Store {
    pub(super) router: Arc<MessageRouter>,
    pub(super) storage: Arc<DynamicStorage>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Store(..)")
    }
}

impl Store {
    pub(super) fn new(limits: &BrokerLimits) -> Store {
        let memory = MemoryBackend::with_queue_limits(QueueLimits {
            max_messages: limits.queue_messages_max,
            max_bytes: limits.queue_bytes_max,
        });
        let storage = Arc::new(DynamicStorage::Memory(memory));
        let packet_bytes_max = usize::try_from(PACKET_BYTES_MAX).unwrap_or(usize::MAX);
        let router = MessageRouter::with_storage(Arc::clone(&storage))
            .with_retained_limits(limits.retained_messages_max, packet_bytes_max);
        Store {
            router: Arc::new(router),
            storage,
        }
    }

    /// The directory already denies the node; disconnecting alone would still deliver what waits.
    pub(super) async fn forget(&self, node: &NodeId) -> Result<(), BrokerError> {
        let failed = |error: mqtt5::MqttError| BrokerError::Storage(error.to_string());
        self.router.unregister_client(node.as_str()).await;
        self.storage
            .remove_session(node.as_str())
            .await
            .map_err(failed)?;
        self.storage
            .remove_queued_messages(node.as_str())
            .await
            .map_err(failed)?;
        self.storage
            .remove_all_inflight_messages(node.as_str())
            .await
            .map_err(failed)
    }
}
