//! What becomes of messages that were not handled: delivered again, put back for the next instance,
//! or put aside as dead letters.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use haar_protocol::assignment::MicroserviceName;
use haar_protocol::log::Level;
use haar_protocol::text;
use tokio::time::Instant;

use super::{Exit, Instance};
use crate::bus::message::{Delivery, count};
use crate::local_api::bindings::handler::exports::haar::local::handler::Rejection;
use crate::local_api::state::now_ms;
use crate::store::dead_letters::DeadLetter;

/// Rejected messages that wait for another attempt; the oldest becomes a dead letter when there
/// are more.
const RETRIES_MAX: usize = 64;
/// Bytes of the reason that is kept with a dead letter.
const REASON_BYTES_MAX: usize = 2_048;
/// The longest pause before another attempt.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(3_600);

impl Instance<'_> {
    /// What was taken and not handled goes back to the inbox, for the next instance: first the
    /// message over which this one failed, unless that was its last attempt.
    pub(super) async fn leave_the_rest(&mut self, exit: &Exit) {
        let mut rest = VecDeque::new();
        if let (Some(mut delivery), Exit::Failed(failure)) = (self.failed_over.take(), exit) {
            if delivery.attempt < self.retry.attempts {
                delivery.attempt += 1;
                rest.push_back(delivery);
            } else {
                self.bury(delivery, &failure.to_string()).await;
            }
        }
        rest.extend(self.retries.drain(..).map(|(_, delivery)| delivery));
        rest.append(&mut self.batch);
        self.inbox.put_back(rest);
    }

    /// Puts a message aside that was delivered as often as it may be, for people to look at.
    /// The reason may be a guest's words, of any length.
    async fn bury(&mut self, delivery: Delivery, reason: &str) {
        let reason = text::paragraph(reason, REASON_BYTES_MAX);
        let (inlet, attempts) = (&delivery.entry.inlet, delivery.attempt);
        self.logger.about_message(
            Level::Warn,
            &format!("inlet `{inlet}`: a dead letter after {attempts} attempts: {reason}"),
        );
        count(&delivery.entry.counters.dropped);
        let state = self.guest.state();
        let letter = dead_letter(state.name.clone(), &delivery, reason);
        let store = state.surroundings.store.clone();
        if let Err(error) = store.add_dead_letter(letter, self.retry.dead_letters).await {
            self.logger.agent(
                Level::Error,
                &format!("the dead letter can't be kept: {error:#}"),
            );
        }
        done(&delivery);
    }

    pub(super) async fn reject(&mut self, mut delivery: Delivery, rejection: Rejection) {
        count(&self.counters.failures);
        let inlet = &delivery.entry.inlet;
        match rejection {
            Rejection::Retry(reason) if delivery.attempt < self.retry.attempts => {
                self.logger.about_message(
                    Level::Debug,
                    &format!("inlet `{inlet}`: to be retried: {reason}"),
                );
                let doubled = 2u32.saturating_pow(delivery.attempt - 1);
                let pause = Duration::from_millis(self.retry.pause.0)
                    .saturating_mul(doubled)
                    .min(RETRY_PAUSE_MAX);
                delivery.attempt += 1;
                let due = Instant::now() + pause;
                if delivery.place.is_some() {
                    self.hold_back(delivery, due);
                    return;
                }
                let position = self.retries.partition_point(|(other, _)| *other <= due);
                self.retries.insert(position, (due, delivery));
                if self.retries.len() > RETRIES_MAX
                    && let Some((_, oldest)) = self.retries.pop_front()
                {
                    let why = "too many messages wait for another attempt";
                    self.bury(oldest, why).await;
                }
            }
            Rejection::Retry(reason) => self.bury(delivery, &reason).await,
            Rejection::Discard(reason) => {
                self.logger.about_message(
                    Level::Warn,
                    &format!("inlet `{inlet}`: discarded: {reason}"),
                );
                count(&self.counters.discarded);
                count(&delivery.entry.counters.dropped);
                done(&delivery);
            }
        }
    }

    /// Of a durable route nothing passes a message that waits for another attempt.
    fn hold_back(&mut self, delivery: Delivery, due: Instant) {
        let Some(place) = &delivery.place else {
            return;
        };
        let stream = Arc::clone(&place.stream);
        let is_behind = |other: &Delivery| {
            let place = other.place.as_ref();
            place.is_some_and(|place| Arc::ptr_eq(&place.stream, &stream))
        };
        let batch = std::mem::take(&mut self.batch).into_iter();
        let (behind, others): (Vec<_>, Vec<_>) = batch.partition(is_behind);
        self.batch = others.into();
        let mut held_back = vec![delivery];
        held_back.extend(behind);
        stream.put_back(held_back, Some(due));
    }
}

/// A message of a durable route is given up: the next one may come.
fn done(delivery: &Delivery) {
    if let Some(place) = &delivery.place {
        place.stream.done(place.position);
    }
}

fn dead_letter(owner: MicroserviceName, delivery: &Delivery, reason: String) -> DeadLetter {
    let message = &delivery.message;
    DeadLetter {
        owner,
        inlet: delivery.entry.inlet.clone(),
        source: message.source.as_ref().clone(),
        sequence: message.sequence,
        published_ms: message.published_ms,
        content_type: delivery.entry.content_type.clone(),
        headers: message.headers.clone(),
        body: message.body.clone(),
        attempts: delivery.attempt,
        reason,
        died_ms: now_ms(),
    }
}
