//! `haar:local/messaging`: the way out of a microservice.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use haar_protocol::log::Level;

use super::bindings::imports::haar::local::messaging::{self, PublishError};
use super::bindings::imports::haar::local::types;
use super::state::{State, now_ms};
use crate::bus::UnknownOutlet;
use crate::bus::durable::{self, Refused};
use crate::bus::message::{Headers, Source, count};
use crate::bus::table::Outlet;

/// Bytes that a header costs beside its name and value.
const HEADER_BYTES: u64 = 8;
/// Messages in one batch. As in `wit/messaging.wit`.
const BATCH_MESSAGES_MAX: u32 = 1_024;

impl types::Host for State {}

impl messaging::Host for State {
    async fn publish(
        &mut self,
        outlet: String,
        body: Vec<u8>,
        headers: Vec<(String, String)>,
    ) -> wasmtime::Result<Result<u64, PublishError>> {
        Ok(self.publish_one(&outlet, body, headers).await)
    }

    async fn publish_batch(
        &mut self,
        outlet: String,
        messages: Vec<messaging::Outgoing>,
    ) -> wasmtime::Result<Result<u64, PublishError>> {
        Ok(self.publish_all(&outlet, messages).await)
    }

    fn origin_of(&mut self, number: u32) -> wasmtime::Result<Option<messaging::Origin>> {
        let handling = self.handling.as_ref();
        Ok(handling
            .filter(|delivery| delivery.entry.origin == number)
            .map(|delivery| {
                let source = &delivery.message.source;
                messaging::Origin {
                    inlet: delivery.entry.inlet.clone(),
                    source: source.as_ref().into(),
                    content_type: delivery.entry.content_type.clone(),
                }
            }))
    }
}

impl From<&Source> for messaging::Source {
    fn from(source: &Source) -> Self {
        Self {
            site: source.site.clone(),
            node: source.node.clone(),
            application: source.application.clone(),
            microservice: source.microservice.clone(),
            outlet: source.outlet.clone(),
        }
    }
}

impl State {
    async fn publish_one(
        &mut self,
        outlet: &str,
        body: Vec<u8>,
        headers: Vec<(String, String)>,
    ) -> Result<u64, PublishError> {
        self.check_open()?;
        self.check_size(&body, &headers)?;
        self.take_publishes(1)?;
        if let Some(durable) = self.durable_outlet(outlet)? {
            return self.publish_durable(durable, vec![(headers, body)]).await;
        }
        self.surroundings
            .bus
            .publish(&mut self.ports, &self.name, outlet, headers, body, now_ms())
            .map_err(|UnknownOutlet| PublishError::UnknownOutlet)
    }

    /// Every check comes before the first message leaves: all of them go, or none.
    async fn publish_all(
        &mut self,
        outlet: &str,
        messages: Vec<messaging::Outgoing>,
    ) -> Result<u64, PublishError> {
        self.check_open()?;
        let per_second = self.limits.publish_per_second;
        let messages_count = u32::try_from(messages.len()).unwrap_or(u32::MAX);
        if messages_count > per_second {
            count(&self.counters.exceeded.publish_per_second);
        }
        let most = per_second.min(BATCH_MESSAGES_MAX);
        if messages_count > most {
            return Err(PublishError::TooMany(most));
        }
        for message in &messages {
            self.check_size(&message.body, &message.headers)?;
        }
        self.take_publishes(messages_count)?;
        let messages = messages
            .into_iter()
            .map(|message| (message.headers, message.body))
            .collect();
        if let Some(durable) = self.durable_outlet(outlet)? {
            return self.publish_durable(durable, messages).await;
        }
        self.surroundings
            .bus
            .publish_batch(&mut self.ports, &self.name, outlet, messages, now_ms())
            .map_err(|UnknownOutlet| PublishError::UnknownOutlet)
    }

    fn durable_outlet(&mut self, outlet: &str) -> Result<Option<Arc<Outlet>>, PublishError> {
        let bus = &self.surroundings.bus;
        bus.durable_outlet(&mut self.ports, &self.name, outlet)
            .map_err(|UnknownOutlet| PublishError::UnknownOutlet)
    }

    async fn publish_durable(
        &mut self,
        outlet: Arc<Outlet>,
        messages: Vec<(Headers, Vec<u8>)>,
    ) -> Result<u64, PublishError> {
        let name = outlet.source.outlet.clone();
        let store = &self.surroundings.store;
        let published = durable::publish(store, outlet, messages, now_ms()).await;
        published.map_err(|refused| {
            count(&self.counters.exceeded.backlog);
            if let Refused::NotStored(error) = refused {
                let line = format!("outlet `{name}`: not published: {error:#}");
                self.logger.about_message(Level::Error, &line);
            }
            PublishError::BacklogFull
        })
    }

    fn check_open(&self) -> Result<(), PublishError> {
        if self.open.load(Ordering::Relaxed) {
            Ok(())
        } else {
            Err(PublishError::NotReady)
        }
    }

    fn check_size(&self, body: &[u8], headers: &[(String, String)]) -> Result<(), PublishError> {
        let limit = self.limits.message_size.0;
        let headers_bytes: u64 = headers
            .iter()
            .map(|(name, value)| (name.len() + value.len()) as u64 + HEADER_BYTES)
            .sum();
        if body.len() as u64 + headers_bytes > limit {
            count(&self.counters.exceeded.message_size);
            return Err(PublishError::TooLarge(limit));
        }
        Ok(())
    }

    fn take_publishes(&mut self, messages: u32) -> Result<(), PublishError> {
        self.publish_rate
            .take_many(self.limits.publish_per_second, messages)
            .map_err(|wait_ms| {
                count(&self.counters.exceeded.publish_per_second);
                PublishError::RateLimited(wait_ms)
            })
    }
}
