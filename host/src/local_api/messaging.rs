//! `haar:local/messaging`: the way out of a microservice.

use std::sync::atomic::Ordering;

use super::bindings::imports::haar::local::{messaging, types};
use super::state::{State, now_ms};

/// Bytes that a header costs beside its name and value.
const HEADER_BYTES: u64 = 8;

impl types::Host for State {}

impl messaging::Host for State {
    fn publish(
        &mut self,
        outlet: String,
        body: Vec<u8>,
        headers: Vec<(String, String)>,
    ) -> wasmtime::Result<Result<u64, messaging::PublishError>> {
        if !self.open.load(Ordering::Relaxed) {
            return Ok(Err(messaging::PublishError::NotReady));
        }
        let limit = self.limits.message_size.0;
        let headers_bytes: u64 = headers
            .iter()
            .map(|(name, value)| (name.len() + value.len()) as u64 + HEADER_BYTES)
            .sum();
        if body.len() as u64 + headers_bytes > limit {
            return Ok(Err(messaging::PublishError::TooLarge(limit)));
        }
        if let Err(wait_ms) = self.publish_rate.take(self.limits.publish_per_second) {
            return Ok(Err(messaging::PublishError::RateLimited(wait_ms)));
        }
        let published = self.surroundings.bus.publish(
            &mut self.ports,
            &self.name,
            &outlet,
            headers,
            body,
            now_ms(),
        );
        Ok(published.map_err(|_| messaging::PublishError::UnknownOutlet))
    }

    fn publish_batch(
        &mut self,
        _outlet: String,
        _messages: Vec<messaging::Outgoing>,
    ) -> wasmtime::Result<Result<u64, messaging::PublishError>> {
        Ok(Err(messaging::PublishError::NotReady)) // replaced in the next commit
    }
}
