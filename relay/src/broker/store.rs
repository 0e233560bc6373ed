//! What the relay keeps of clients and messages: mqtt5's router, and its storage in a folder that
//! only the owner may read. The broker opens and closes it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use haar_protocol::ids::NodeId;
use mqtt5::broker::router::MessageRouter;
use mqtt5::broker::storage::{DynamicStorage, FileBackend, QueueLimits, StorageBackend as _};

use super::options::{BrokerError, BrokerLimits};
use crate::PACKET_BYTES_MAX;

/// How long a close waits for mqtt5 to let go of the folder.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(4);
const RELEASE_POLL_INTERVAL: Duration = Duration::from_millis(5);

/// What the relay knows of clients and messages: mqtt5's router and its storage.
#[derive(Clone)]
pub(super) struct Store {
    pub(super) router: Arc<MessageRouter>,
    pub(super) storage: Arc<DynamicStorage>,
    path: PathBuf,
}

impl fmt::Debug for Store {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Store")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Store {
    pub(super) async fn open(path: &Path, limits: &BrokerLimits) -> Result<Store, BrokerError> {
        let failed = |error: &dyn fmt::Display| BrokerError::Storage {
            path: path.to_owned(),
            error: error.to_string(),
        };
        make_private(path).map_err(|error| failed(&error))?;
        let queue_limits = QueueLimits {
            max_messages: limits.queue_messages_max,
            max_bytes: limits.queue_bytes_max,
        };
        let files = FileBackend::with_queue_limits(path, queue_limits)
            .await
            .map_err(|error| failed(&error))?;
        let storage = Arc::new(DynamicStorage::File(files));
        let packet_bytes_max = usize::try_from(PACKET_BYTES_MAX).unwrap_or(usize::MAX);
        let router = MessageRouter::with_storage(Arc::clone(&storage))
            .with_retained_limits(limits.retained_messages_max, packet_bytes_max);
        router
            .recover_sessions(limits.session_life_s)
            .await
            .map_err(|error| failed(&error))?;
        storage
            .cleanup_expired()
            .await
            .map_err(|error| failed(&error))?;
        router.initialize().await.map_err(|error| failed(&error))?;
        Ok(Store {
            router: Arc::new(router),
            storage,
            path: path.to_owned(),
        })
    }

    /// Writes everything and waits until nobody uses the folder: mqtt5 unlocks it when the last of
    /// its own detached tasks lets go, and a relay that starts again must find it unlocked.
    pub(super) async fn close(self) {
        if let Err(error) = self.storage.shutdown().await {
            tracing::error!(%error, "the relay could not write its state");
        }
        drop(self.router);
        let alone = async {
            while Arc::strong_count(&self.storage) > 1 {
                tokio::time::sleep(RELEASE_POLL_INTERVAL).await;
            }
        };
        if tokio::time::timeout(RELEASE_TIMEOUT, alone).await.is_err() {
            tracing::warn!(path = %self.path.display(), "the relay's folder is still in use");
        }
    }

    /// The directory already denies the node; disconnecting alone would still deliver what waits.
    pub(super) async fn forget(&self, node: &NodeId) -> Result<(), BrokerError> {
        let failed = |error: mqtt5::MqttError| BrokerError::Storage {
            path: self.path.clone(),
            error: error.to_string(),
        };
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

/// Makes the folder, for its owner only.
fn make_private(path: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(path)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}
