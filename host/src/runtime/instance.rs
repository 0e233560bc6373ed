//! The task of one instance: waits for orders, ticks and messages, and makes one call at a time.
//!
//! ```text
//! instantiate ─► start ─► ┌─ orders ─ tick ─ retry ─ message ──┐ ─► stop ─► Exit::Stopped
//!      │           │      └────────── one call at a time ──────┘
//!      └───────────┴─────────── a call fails ───────────────────────────► Exit::Failed
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use haar_protocol::assignment::Microservice;
use haar_protocol::limits::Limits;
use haar_protocol::log::Level;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use wasmtime::component::InstancePre;

use super::failure::{Cause, Failure};
use super::guest::{Counters, Guest};
use super::memory::MemoryLimiter;
use super::rate::Rate;
use super::surroundings::Surroundings;
use crate::bus::PortCache;
use crate::bus::inbox::Inbox;
use crate::bus::message::{Delivery, count};
use crate::local_api::bindings::handler::exports::haar::local::handler::Rejection;
use crate::local_api::files::resource_table;
use crate::local_api::logging::Logger;
use crate::local_api::state::State;
use crate::local_api::timers::Timers;
use crate::local_api::wasi;

/// Messages that are taken out of the inbox at a time.
const BATCH: usize = 64;
/// How often a message of a live route is delivered at most when it is rejected with `retry`.
const ATTEMPTS_MAX: u32 = 5;
/// Rejected messages that wait for another attempt; the oldest is dropped when there are more.
const RETRIES_MAX: usize = 64;
/// The pause before the second attempt; it doubles with each further one.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// What the control loop asks of an instance: a whole snapshot, of which the newest counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orders {
    /// Values behind `wasi:config`.
    pub configuration: Arc<BTreeMap<String, String>>,
    /// Limits; what depends on them changes with the next call.
    pub limits: Limits,
    /// To finish: one last call, no longer than this.
    pub stop: Option<Duration>,
}

impl Orders {
    /// Run as assigned.
    pub fn of(spec: &Microservice) -> Self {
        Self {
            configuration: Arc::new(spec.configuration.clone()),
            limits: spec.limits.clone(),
            stop: None,
        }
    }
}

/// How an instance ended.
#[derive(Debug)]
pub enum Exit {
    /// It was asked to.
    Stopped,
    /// It could not be started as it is: a granted directory is not there.
    NotStartable(String),
    /// A call failed, or `start` returned an error.
    Failed(Failure),
}

/// Everything that an instance needs to run.
pub struct Setup {
    /// The component, linked.
    pub pre: InstancePre<State>,
    /// What was assigned.
    pub spec: Arc<Microservice>,
    /// Its inbox.
    pub inbox: Arc<Inbox>,
    /// What it shares with the node's other instances.
    pub surroundings: Arc<Surroundings>,
    /// Where its lines go.
    pub logger: Logger,
    /// What is counted of it.
    pub counters: Arc<Counters>,
    /// What the control loop asks of it.
    pub orders: watch::Receiver<Orders>,
    /// Told once, when `start` has returned.
    pub started: oneshot::Sender<()>,
}

/// Runs the instance until it is stopped or fails.
pub async fn run(setup: Setup) -> Exit {
    let open = Arc::new(AtomicBool::new(true));
    let state = match state(&setup, Arc::clone(&open)).await {
        Ok(state) => state,
        Err(error) => return Exit::NotStartable(format!("{error:#}")),
    };
    let guest = match Guest::new(&setup.pre, state, Arc::clone(&setup.counters)).await {
        Ok(guest) => guest,
        Err(failure) => return Exit::Failed(failure),
    };
    let Setup {
        inbox,
        logger,
        counters,
        orders,
        started,
        ..
    } = setup;
    let mut instance = Instance {
        guest,
        inbox,
        logger,
        counters,
        orders,
        batch: VecDeque::new(),
        retries: VecDeque::new(),
    };
    let exit = instance.live(started).await;
    open.store(false, Ordering::Relaxed);
    instance.leave_the_rest();
    exit
}

async fn state(setup: &Setup, open: Arc<AtomicBool>) -> anyhow::Result<State> {
    let spec = &setup.spec;
    let (wasi, files) =
        wasi::context(spec, &setup.surroundings, &setup.counters, &setup.logger).await?;
    Ok(State {
        name: spec.name.clone(),
        limits: spec.limits.clone(),
        memory: MemoryLimiter::new(spec.limits.memory.0),
        configuration: Arc::new(spec.configuration.clone()),
        surroundings: Arc::clone(&setup.surroundings),
        counters: Arc::clone(&setup.counters),
        ports: PortCache::default(),
        publish_rate: Rate::default(),
        open,
        timers: Timers::default(),
        logger: setup.logger.clone(),
        wasi,
        files,
        table: resource_table(),
    })
}

struct Instance {
    guest: Guest,
    inbox: Arc<Inbox>,
    logger: Logger,
    counters: Arc<Counters>,
    orders: watch::Receiver<Orders>,
    /// Messages taken out of the inbox and not handled yet.
    batch: VecDeque<Delivery>,
    /// Rejected messages with the time of their next attempt.
    retries: VecDeque<(Instant, Delivery)>,
}

impl Instance {
    async fn live(&mut self, started: oneshot::Sender<()>) -> Exit {
        match self.guest.start().await {
            Ok(Ok(())) => {}
            Ok(Err(reason)) => {
                let details = format!("`start` returned an error: {reason}");
                return Exit::Failed(Failure {
                    cause: Cause::Other,
                    details,
                });
            }
            Err(failure) => return Exit::Failed(failure),
        }
        // The agent may be gone already; then the orders tell.
        let _ = started.send(());
        loop {
            match self.step().await {
                Ok(None) => {}
                Ok(Some(exit)) => return exit,
                Err(failure) => return Exit::Failed(failure),
            }
        }
    }

    /// Waits for the next thing to do and does it.
    async fn step(&mut self) -> Result<Option<Exit>, Failure> {
        let timer = self.guest.state().timers.next();
        let retry = self.retries.front().map(|(due, _)| *due);
        let (handles, has_more) = (self.guest.handles(), !self.batch.is_empty());
        tokio::select! {
            biased;
            changed = self.orders.changed() => {
                if changed.is_err() {
                    return Ok(Some(Exit::Stopped)); // the control loop is gone
                }
                return self.obey().await;
            }
            () = until(timer) => self.tick().await?,
            () = until(retry) => self.retry().await?,
            () = self.inbox.wait(), if handles && !has_more => self.handle_batch().await?,
            () = std::future::ready(()), if has_more => self.handle_batch().await?,
        }
        Ok(None)
    }

    /// Does what the newest orders say.
    async fn obey(&mut self) -> Result<Option<Exit>, Failure> {
        let orders = self.orders.borrow_and_update().clone();
        if let Some(grace) = orders.stop {
            self.guest.stop(grace).await?;
            return Ok(Some(Exit::Stopped));
        }
        let state = self.guest.state();
        state.memory.bytes_max = orders.limits.memory.0;
        state.files.set_private_limit(orders.limits.files_size.0);
        state.limits = orders.limits;
        if state.configuration == orders.configuration {
            return Ok(None);
        }
        state.configuration = orders.configuration;
        if let Err(reason) = self.guest.configuration_changed().await? {
            self.logger.agent(
                Level::Warn,
                &format!("`configuration-changed` returned an error: {reason}"),
            );
        }
        Ok(None)
    }

    async fn tick(&mut self) -> Result<(), Failure> {
        let Some(tick) = self.guest.state().timers.take_due(Instant::now()) else {
            return Ok(());
        };
        if let Err(reason) = self.guest.tick(&tick).await? {
            self.logger.agent(
                Level::Warn,
                &format!("the tick `{}` returned an error: {reason}", tick.name),
            );
        }
        Ok(())
    }

    async fn retry(&mut self) -> Result<(), Failure> {
        let Some((_, delivery)) = self.retries.pop_front() else {
            return Ok(());
        };
        self.handle(delivery).await
    }

    /// Handles messages until the batch is empty, or something more urgent waits.
    async fn handle_batch(&mut self) -> Result<(), Failure> {
        if self.batch.is_empty() {
            self.inbox.take(&mut self.batch, BATCH);
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

    /// What was taken and not handled goes back to the inbox, for the next instance.
    fn leave_the_rest(&mut self) {
        let retries = self.retries.drain(..).map(|(_, delivery)| delivery);
        self.inbox
            .put_back(retries.chain(self.batch.drain(..)).collect());
    }

    async fn handle(&mut self, delivery: Delivery) -> Result<(), Failure> {
        let answer = self.guest.handle(&delivery).await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(failure) => {
                count(&delivery.entry.counters.dropped);
                return Err(failure);
            }
        };
        match answer {
            Ok(()) => count(&delivery.entry.counters.handled),
            Err(rejection) => self.reject(delivery, rejection),
        }
        Ok(())
    }

    fn reject(&mut self, mut delivery: Delivery, rejection: Rejection) {
        count(&self.counters.failures);
        let inlet = &delivery.entry.inlet;
        match rejection {
            Rejection::Retry(reason) if delivery.attempt < ATTEMPTS_MAX => {
                self.logger.agent(
                    Level::Debug,
                    &format!("inlet `{inlet}`: to be retried: {reason}"),
                );
                let pause = RETRY_PAUSE * 2u32.pow(delivery.attempt - 1);
                delivery.attempt += 1;
                let due = Instant::now() + pause;
                let position = self.retries.partition_point(|(other, _)| *other <= due);
                self.retries.insert(position, (due, delivery));
                if self.retries.len() > RETRIES_MAX
                    && let Some((_, oldest)) = self.retries.pop_front()
                {
                    count(&oldest.entry.counters.dropped);
                }
            }
            Rejection::Retry(reason) => {
                self.logger.agent(
                    Level::Warn,
                    &format!("inlet `{inlet}`: dropped after {ATTEMPTS_MAX} attempts: {reason}"),
                );
                count(&delivery.entry.counters.dropped);
            }
            Rejection::Discard(reason) => {
                self.logger.agent(
                    Level::Warn,
                    &format!("inlet `{inlet}`: discarded: {reason}"),
                );
                count(&delivery.entry.counters.dropped);
            }
        }
    }
}

/// Waits until `time`, or for ever.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}
