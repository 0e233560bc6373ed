//! The agent's own reports while it runs, and its end.

use std::sync::Arc;
use std::time::Duration;

use haar_protocol::topics::Topic;
use haar_relay::Outgoing;
use tokio::sync::watch;
use tokio::time::Instant;

use super::connection::{jitter, sleep_until};
use super::flash;
use super::housekeeping;
use super::log_shipper::LogShipper;
use super::node::Effect;
use super::reporter::{self, Frame};
use super::reports::Obstacle;
use super::run::Agent;
use crate::config::Precompiled;
use crate::identity::Membership;
use crate::local_api::state::now_ms;
use crate::machine::pages;
use crate::modules::compile::Compiler;
use crate::service_manager::DISK_IS_SLOW;
use crate::store::Health;

/// How long the end of the agent may take in all.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(30);

/// Why an agent has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// It was asked to.
    Stopped,
    /// Its database is damaged: it has to be set aside, and the agent started again.
    StoreDamaged(String),
    /// Its database could not be used when it started, and can be now: it has to be started again.
    StoreBack,
    /// The thread of its database has ended: it has to be started again.
    StoreDead,
}

/// Waits until the database is one that the agent can't go on with.
pub(super) async fn store_ended(health: &mut watch::Receiver<Health>) -> Ended {
    let is_end = |health: &Health| match health {
        Health::Well | Health::Failing(_) | Health::Absent(_) => false,
        Health::Damaged(_) | Health::Back | Health::Dead => true,
    };
    match health.wait_for(is_end).await.as_deref() {
        Ok(Health::Damaged(reason)) => Ended::StoreDamaged(reason.clone()),
        Ok(Health::Back) => Ended::StoreBack,
        _ => Ended::StoreDead,
    }
}

impl Agent {
    pub(super) async fn report(&mut self) {
        self.report_at = Instant::now() + self.options.status_interval;
        if let Some(envelope) = self.unstored.take() {
            self.assignment(&envelope).await;
        }
        if self.lacks_logs {
            self.open_logs_again().await; // first: they go into the table whatever else has to wait
        }
        self.end_lives().await;
        if self.store.is_known_to_fail() {
            // Nothing else may write for a long time: only a write shows that it works again.
            let store = self.store.clone();
            self.work
                .spawn(async move { drop(store.keep_ages().await) });
        }
        self.relays.look();
        self.renew_link_key().await;
        if !*self.connected.borrow() {
            return; // a whole snapshot is sent as soon as there is a connection
        }
        self.count_dead_letters().await;
        self.send_status().await;
        self.give_pages_back();
    }

    /// After a start and after each assignment, with the first status when nothing of it is prepared any more,
    /// and with the next one: until then links to other nodes have begun.
    fn give_pages_back(&mut self) {
        let number = self.node.assignment().map(|assignment| assignment.number);
        if number != self.pages_given_back.0 {
            self.pages_given_back = (number, 0);
        }
        if self.pages_given_back.1 < 2 && !self.node.is_preparing() {
            pages::give_back();
            self.pages_given_back.1 += 1;
        }
    }

    /// A disk that does not answer must not hold up the status, which then lacks these counts.
    async fn count_dead_letters(&mut self) {
        if self.store.slow_for().is_some() {
            return;
        }
        match tokio::time::timeout(DISK_IS_SLOW, self.store.count_dead_letters()).await {
            Ok(Ok(letters)) => self.node.count_dead_letters(&letters),
            Ok(Err(_)) if self.store.is_known_to_fail() => {}
            Ok(Err(error)) => tracing::warn!("dead letters can't be counted: {error:#}"),
            Err(_) => {}
        }
    }

    /// Never waits for the relay: when it does not take the status, it gets the next one, which is a
    /// whole snapshot too.
    async fn send_status(&mut self) {
        let sent = match self.status().await {
            Ok(status) => self
                .uplink
                .try_publish(status)
                .map_err(|error| (Obstacle::NotTaken, error.into())),
            Err(obstacle) => Err(obstacle),
        };
        match sent {
            Ok(()) => {
                self.node.changed = false;
                self.reports.sent();
            }
            Err((obstacle, error)) => {
                if self.reports.failed(obstacle, Instant::now(), jitter()) {
                    tracing::warn!(
                        "no status is sent: {error:#}; retried with growing pauses, logged once"
                    );
                }
            }
        }
    }

    async fn open_logs_again(&mut self) {
        let Some(assignment) = self.node.assignment().cloned() else {
            return;
        };
        if self.open_logs(&assignment).await.is_ok() {
            let table = self.node.registry.compile(&assignment);
            self.perform(vec![Effect::SetTable(table)]);
        }
    }

    async fn status(&mut self) -> Result<Outgoing, (Obstacle, anyhow::Error)> {
        let sequence = self.reports.number(&self.store).await;
        let now_ms = now_ms();
        let written = flash::written_bytes();
        let measurements = Arc::clone(&self.surroundings.measurements);
        let free = measurements.free_bytes(&self.data).await;
        let frame = Frame {
            sequence,
            now_ms,
            flash: written.map(|written| self.flash.status(written, now_ms)),
            started_ms: self.started_ms,
            began: self.began,
            interval_ms: u64::try_from(self.options.status_interval.as_millis())
                .unwrap_or(u64::MAX),
            start: self.start.status(),
            link_key: self.options.link_secret.public(),
            compiler: self.options.compiler != Compiler::None,
            precompiled: self.options.precompiled == Precompiled::Accept,
            policy: self.options.policy.outline(),
            relays: self.relays.statuses(),
            brokers: self.devices.statuses(),
            serves: self.serving.statuses(),
            link_key_generation: self.options.link_secret.generation(),
            memory_source: self.options.membership.memory_source.clone(),
            store: reporter::store(&self.store, free, &mut self.store_since, now_ms),
        };
        let membership = &self.options.membership;
        let (bus, key) = (&self.surroundings.bus, &self.options.key);
        let envelope = reporter::status(&self.node, bus, &frame, key)
            .map_err(|error| (Obstacle::NotSealed, error.into()))?;
        Ok(Outgoing {
            topic: Topic::Status(membership.node.clone()).text(&membership.site),
            payload: envelope.into(),
            at_least_once: true,
            retain: true,
        })
    }

    /// Stop taking work, finish calls, final status, disconnect.
    pub(super) async fn shut_down(mut self) {
        let deadline = Instant::now() + SHUTDOWN_DEADLINE;
        self.node.stop_all(now_ms());
        while !self.node.is_idle() {
            let wake = self.node.wake();
            tokio::select! {
                Some(ended) = self.instances.join_next_with_id() => self.ended(ended),
                () = sleep_until(wake) => {
                    let effects = self.node.woken(Instant::now(), now_ms());
                    self.perform(effects);
                }
                () = tokio::time::sleep_until(deadline) => {
                    tracing::warn!("still running, and given up: {}", self.node.running().join(", "));
                    break;
                }
            }
        }
        self.devices.close().await;
        if let Err(error) = self.node.registry.logs.bases().store(&self.store).await
            && !self.store.is_known_to_fail()
        {
            tracing::error!("how far messages were delivered can't be stored: {error:#}");
        }
        housekeeping::store_waiting(&self.store, &self.surroundings.bus.recorders()).await;
        if self.node.is_idle() {
            let registry = &self.node.registry;
            self.numbers.end(&self.store, registry).await;
        }
        if let Err(error) = self.store.keep_ages().await
            && !self.store.is_known_to_fail()
        {
            tracing::error!("the clock of ages can't be stored: {error:#}");
        }
        self.send_status().await;
        if *self.connected.borrow() {
            let Membership { site, node, .. } = &self.options.membership;
            let (logs, uplink) = (Arc::clone(&self.logs), self.uplink.clone());
            LogShipper::new(site, node, logs, uplink).ship_rest();
        }
        self.relays.finish().await;
        self.serving.finish().await;
        drop(self.logs);
        self.instances.abort_all();
        self.work.shutdown().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_agent_ends_with_the_thread_of_its_database_and_not_for_what_may_pass() {
        let (health, mut watched) = watch::channel(Health::Well);
        for passing in [
            Health::Failing("full".into()),
            Health::Well,
            Health::Absent("newer".into()),
        ] {
            health.send_replace(passing);
            let ended = store_ended(&mut watched);
            assert!(futures_util::FutureExt::now_or_never(ended).is_none());
        }
        for (end, expected) in [
            (Health::Dead, Ended::StoreDead),
            (Health::Back, Ended::StoreBack),
            (
                Health::Damaged("malformed".into()),
                Ended::StoreDamaged("malformed".into()),
            ),
        ] {
            health.send_replace(end);
            assert_eq!(store_ended(&mut watched).await, expected);
        }
        health.send_replace(Health::Well);
        drop(health);
        assert_eq!(store_ended(&mut watched).await, Ended::StoreDead);
    }
}
