//! Sends the log lines of microservices to the site, in batches, while there is a connection.

use std::sync::Arc;

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

/// Ships until the agent ends.
pub(super) async fn ship(
    site: SiteId,
    node: NodeId,
    logs: Arc<Logs>,
    uplink: Uplink,
    mut connected: watch::Receiver<bool>,
) {
    let topic = Topic::Log(node).text(&site);
    loop {
        logs.wait().await;
        if connected.wait_for(|connected| *connected).await.is_err() {
            return;
        }
        let lines = logs.take(BATCH_LINES_MAX, BATCH_BYTES_MAX);
        if lines.is_empty() {
            continue;
        }
        let payload = serde_json::to_vec(&LogBatch { version: 1, lines })
            .expect("log lines always serialise");
        let outgoing = Outgoing {
            topic: topic.clone(),
            payload: Bytes::from(payload),
            at_least_once: true,
            retain: false,
        };
        if let Err(error) = uplink.publish(outgoing).await {
            tracing::debug!("log lines were not sent: {error}");
        }
    }
}
