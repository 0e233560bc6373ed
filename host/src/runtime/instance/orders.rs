//! What the control loop asks of an instance, and how the instance obeys.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use haar_protocol::assignment::Microservice;
use haar_protocol::limits::{Limits, RetryPolicy};
use haar_protocol::log::Level;
use haar_protocol::text;
use tokio::time::Instant;

use super::{End, Exit, Instance};
use crate::local_api::state::State;
use crate::runtime::cpu::Share;
use crate::runtime::failure::Failure;
use crate::runtime::guest::Configured;

/// Bytes of a guest's reason to refuse its configuration that are kept.
const REFUSAL_BYTES_MAX: usize = 2_048;

/// What the control loop asks of an instance: a whole snapshot, of which the newest counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orders {
    /// Values behind `wasi:config`.
    pub configuration: Arc<BTreeMap<String, String>>,
    /// Limits; what depends on them changes with the next call.
    pub limits: Limits,
    /// What happens to messages that are not handled.
    pub retry: RetryPolicy,
    /// To finish: one last call, no longer than this.
    pub stop: Option<Duration>,
    /// Others are trusted than when its module was verified: what runs goes on, and no other instance begins
    /// before it is verified again.
    pub unverified: bool,
}

impl Orders {
    /// Run as assigned.
    pub fn of(spec: &Microservice) -> Self {
        Self {
            configuration: Arc::new(spec.configuration.clone()),
            limits: spec.limits.clone(),
            retry: spec.retry.clone(),
            stop: None,
            unverified: false,
        }
    }
}

/// Puts in force what orders say of a running instance, except its configuration. Returns what happens
/// to messages that are not handled.
pub(super) fn adopt(state: &mut State, orders: &Orders, share: &Share) -> RetryPolicy {
    share.set(orders.limits.cpu.map(|percent| percent.0));
    state.memory.set_limits(&orders.limits);
    state.files.set_private_limit(orders.limits.files_size.0);
    state.limits = orders.limits.clone();
    orders.retry.clone()
}

impl Instance<'_> {
    /// Does what the newest orders say.
    pub(super) async fn obey(&mut self) -> Result<Option<End>, Failure> {
        let orders = self.orders.borrow_and_update().clone();
        if let Some(grace) = orders.stop {
            self.guest.stop(grace).await?;
            return Ok(Some(End::Exit(Exit::Stopped)));
        }
        let state = self.guest.state();
        self.retry = adopt(state, &orders, self.share);
        if state.configuration == orders.configuration {
            return Ok(None);
        }
        state.configuration = orders.configuration;
        let refusal = self.guest.configuration_changed().await?.err();
        self.idle_since = Instant::now();
        let refusal = refusal.map(|reason| {
            let reason = text::paragraph(&reason, REFUSAL_BYTES_MAX);
            format!("`configuration-changed` returned an error: {reason}")
        });
        if let Some(reason) = &refusal {
            self.logger.agent(Level::Warn, reason);
        }
        self.configured(refusal);
        self.tell();
        Ok(None)
    }

    /// The guest has its configuration, or refuses it. True when it had another one before.
    pub(super) fn configured(&mut self, refusal: Option<String>) -> bool {
        let values = Arc::clone(&self.guest.state().configuration);
        let mut configured = self.counters.configured();
        let is_other = configured.values != values;
        *configured = Configured { values, refusal };
        is_other
    }

    pub(super) fn tell(&self) {
        let _ = self.answered.try_send(()); // it is told already, or the agent is gone
    }
}
