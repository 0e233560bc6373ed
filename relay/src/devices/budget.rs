//! How many bytes of received messages may be in memory: read from the broker, and still held by the
//! session's owner. A session whose budget is spent reads nothing more from its socket, so that TCP
//! holds the broker back.
//!
//! Messages of QoS 1 within the receive maximum of the connection are always taken: a broker that
//! respects the window never stops a session, whose pings and publishes share the socket.

use std::sync::Arc;

use rumqttc::v5::mqttbytes::v5::Publish;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Duration, timeout};

/// Bytes of messages that a session holds beyond the window. One message may be as large as all of it.
const HELD_BYTES_MAX: u32 = 1 << 20;
/// Memory of a message beside its topic, payload and properties, roughly.
const MESSAGE_BYTES: usize = 512;

/// The budget of one session, over all of its connections.
#[derive(Debug, Clone)]
pub(super) struct Budget(Arc<Semaphore>);

/// The share of one message in the budget of its session. Dropping it gives the bytes back.
#[derive(Debug)]
pub struct Held(
    #[expect(dead_code, reason = "held until it is dropped")] Option<OwnedSemaphorePermit>,
);

impl Budget {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(HELD_BYTES_MAX as usize)))
    }

    /// Waits until there is room for a message. None when there is none in time.
    pub(super) async fn take(&self, bytes: u32, patience: Duration) -> Option<Held> {
        let permit = Arc::clone(&self.0).acquire_many_owned(bytes.min(HELD_BYTES_MAX));
        let permit = timeout(patience, permit).await.ok()?;
        Some(Held(permit.ok())) // the semaphore is never closed
    }

    /// Charges a message of the window as far as there is room; it is taken in any case.
    pub(super) fn take_anyway(&self, bytes: u32) -> Held {
        let permit = Arc::clone(&self.0).try_acquire_many_owned(bytes.min(HELD_BYTES_MAX));
        Held(permit.ok())
    }
}

/// What a message costs in memory, about. Its topic is there twice: it becomes a header, too.
pub(super) fn cost(publish: &Publish) -> u32 {
    let properties = publish.properties.as_ref();
    let properties = properties.map_or(0, |properties| {
        let pairs = properties.user_properties.iter();
        let pairs: usize = pairs
            .map(|(name, value)| 64 + name.len() + value.len())
            .sum();
        let texts = [&properties.content_type, &properties.response_topic];
        let texts: usize = texts.into_iter().flatten().map(String::len).sum();
        let correlation = properties.correlation_data.as_ref();
        pairs + texts + 2 * correlation.map_or(0, bytes::Bytes::len)
    });
    let bytes = MESSAGE_BYTES + 2 * publish.topic.len() + publish.payload.len() + properties;
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn has_room(budget: &Budget, bytes: u32) -> bool {
        budget.take(bytes, Duration::ZERO).await.is_some()
    }

    #[tokio::test]
    async fn a_spent_budget_takes_messages_of_the_window_only() {
        let budget = Budget::new();
        let all = budget.take(u32::MAX, Duration::ZERO).await;
        assert!(all.is_some());
        assert!(!has_room(&budget, 1).await);
        let of_the_window = budget.take_anyway(1);
        assert!(!has_room(&budget, 1).await);
        drop(of_the_window);
        assert!(!has_room(&budget, 1).await, "it was not charged");
        drop(all);
        assert!(has_room(&budget, HELD_BYTES_MAX).await);
    }

    #[tokio::test]
    async fn messages_of_the_window_leave_less_for_others() {
        let budget = Budget::new();
        let of_the_window = budget.take_anyway(HELD_BYTES_MAX - 10);
        assert!(has_room(&budget, 10).await);
        assert!(!has_room(&budget, 11).await);
        drop(of_the_window);
        assert!(has_room(&budget, 11).await);
    }
}
