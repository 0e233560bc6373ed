//! Messages of an instance: out of its inbox, into its handler, in their order.

use haar_protocol::log::Level;
use tokio::time::{Duration, Instant};

use super::Instance;
use crate::bus::message::{Delivery, count};
use crate::local_api::bindings::handler::exports::haar::local::handler::Rejection;
use crate::runtime::failure::Failure;

/// Messages that are taken out of the inbox at a time; as many of durable routes beside them.
const BATCH: usize = 64;
/// After a store that can't be read.
const STORE_PAUSE: Duration = Duration::from_secs(1);

impl Instance<'_> {
    pub(super) async fn retry(&mut self) -> Result<(), Failure> {
        let Some((_, delivery)) = self.retries.pop_front() else {
            return Ok(());
        };
        self.handle(delivery).await
    }

    /// Handles messages until the batch is empty, or something more urgent waits.
    pub(super) async fn handle_batch(&mut self) -> Result<(), Failure> {
        if self.batch.is_empty() {
            self.inbox.take(&mut self.batch, BATCH);
            let store = self.guest.state().surroundings.store.clone();
            let durable = self.inbox.take_durable(&store, &mut self.batch, 2 * BATCH);
            if let Err(error) = durable.await {
                self.logger
                    .agent(Level::Error, &format!("the log can't be read: {error:#}"));
                tokio::time::sleep(STORE_PAUSE).await;
            }
        }
        while let Some(delivery) = self.batch.pop_front() {
            self.handle(delivery).await?;
            if self.is_interrupted() {
                return Ok(());
            }
            // Tokio's budget: a task that is always ready lets others run.
            tokio::task::consume_budget().await;
        }
        Ok(())
    }

    /// True when there are new orders, or a tick or another attempt is due.
    fn is_interrupted(&mut self) -> bool {
        if self.orders.has_changed().unwrap_or(true) {
            return true;
        }
        let timer = self.guest.state().timers.next();
        let retry = self.retries.front().map(|(due, _)| *due);
        let next = timer.into_iter().chain(retry).min();
        next.is_some_and(|due| due <= Instant::now())
    }

    async fn handle(&mut self, delivery: Delivery) -> Result<(), Failure> {
        if let Some(place) = &delivery.place
            && place.stream.is_closed()
        {
            return Ok(()); // withdrawn: its messages went with it
        }
        if delivery.is_expired(self.guest.state().surroundings.store.ages()) {
            count(&delivery.entry.counters.dropped);
            if let Some(place) = &delivery.place {
                place.stream.done(place.position);
            }
            return Ok(());
        }
        let (bytes, most) = (
            delivery.message.body.len(),
            delivery.entry.message_bytes_max,
        );
        if bytes as u64 > most {
            // On a live route it would not have entered the inbox.
            let reason = format!("it has {bytes} bytes, `message_size` is {most}");
            self.reject(delivery, Rejection::Discard(reason)).await;
            return Ok(());
        }
        let answer = self.guest.handle(&delivery).await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(failure) => {
                self.failed_over = Some(delivery);
                return Err(failure);
            }
        };
        match answer {
            Ok(()) => {
                count(&delivery.entry.counters.handled);
                if let Some(place) = &delivery.place {
                    place.stream.done(place.position);
                }
            }
            Err(rejection) => self.reject(delivery, rejection).await,
        }
        Ok(())
    }
}
