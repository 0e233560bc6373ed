//! Sends the log lines of microservices to the site, in batches, while there is a connection.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use haar_protocol::ids::{NodeId, SiteId};
use haar_protocol::log::LogBatch;
use haar_protocol::topics::Topic;
use haar_relay::Outgoing;
use tokio::sync::watch;

use super::relays::Uplink;
use crate::logs::Logs;

/// Lines in one batch.
const BATCH_LINES_MAX: usize = 500;
/// Bytes in one batch, roughly.
const BATCH_BYTES_MAX: usize = 128 << 10;
/// A line that comes after a pause goes at once; those that follow it within this time go together.
/// Each batch is a message to every hop, and a commit on the controller.
const PAUSE: Duration = Duration::from_millis(100);

/// The way of log lines to the site.
#[derive(Debug)]
pub(super) struct LogShipper {
    topic: String,
    logs: Arc<Logs>,
    uplink: Uplink,
}

impl LogShipper {
    pub(super) fn new(site: &SiteId, node: &NodeId, logs: Arc<Logs>, uplink: Uplink) -> Self {
        let topic = Topic::Log(node.clone()).text(site);
        Self {
            topic,
            logs,
            uplink,
        }
    }

    /// Ships until the agent ends.
    pub(super) async fn ship(self, mut connected: watch::Receiver<bool>) {
        loop {
            self.logs.wait().await;
            if connected.wait_for(|connected| *connected).await.is_err() {
                return;
            }
            let Some((batch, is_full)) = self.batch() else {
                continue;
            };
            let sent = self.uplink.publish(batch).await;
            if let Err(error) = &sent {
                tracing::debug!("log lines were not sent: {error}");
            }
            if !is_full || sent.is_err() {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Hands over what is left, as far as it is taken without waiting. For the agent's end.
    pub(super) fn ship_rest(&self) {
        while let Some((batch, _)) = self.batch() {
            if let Err(error) = self.uplink.try_publish(batch) {
                tracing::debug!("the last log lines were not sent: {error}");
                return;
            }
        }
    }

    /// The oldest lines, and whether there may be more that need not wait.
    fn batch(&self) -> Option<(Outgoing, bool)> {
        let lines = self.logs.take(BATCH_LINES_MAX, BATCH_BYTES_MAX);
        if lines.is_empty() {
            return None;
        }
        let is_full = lines.len() == BATCH_LINES_MAX;
        let payload = serde_json::to_vec(&LogBatch { version: 1, lines })
            .expect("log lines always serialise");
        let outgoing = Outgoing {
            topic: self.topic.clone(),
            payload: Bytes::from(payload),
            at_least_once: true,
            retain: false,
        };
        Some((outgoing, is_full))
    }
}
