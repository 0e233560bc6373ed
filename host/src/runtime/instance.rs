//! The task of one instance: waits for orders, ticks and messages, and makes one call at a time.
//!
//! ```text
//! instantiate ─► start ─► ┌─ orders ─ tick ─ retry ─ message ──┐ ─► stop ─► Exit::Stopped
//!      │           │      └────────── one call at a time ──────┘
//!      └───────────┴─────────── a call fails ───────────────────────────► Exit::Failed
//! ```

mod aftermath;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use haar_protocol::assignment::Microservice;
use haar_protocol::limits::{Limits, RetryPolicy};
use haar_protocol::log::Level;
use haar_protocol::status::FailureCause as Cause;
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use wasmtime::component::InstancePre;

use super::background::Anywhere;
use super::cpu::{Metered, Share};
use super::failure::Failure;
use super::guest::{Counters, Guest};
use super::memory::MemoryLimiter;
use super::rate::Rate;
use super::surroundings::Surroundings;
use crate::bus::PortCache;
use crate::bus::inbox::Inbox;
use crate::bus::message::{Delivery, count};
use crate::local_api::bindings::handler::exports::haar::local::handler::Rejection;
use crate::local_api::files::resource_table;
use crate::local_api::key_value::{self, KeyValue};
use crate::local_api::logging::Logger;
use crate::local_api::state::{State, now_ms};
use crate::local_api::timers::{self, Timers};
use crate::local_api::wasi;

/// Messages that are taken out of the inbox at a time; as many of durable routes beside them.
const BATCH: usize = 64;
/// After a store that can't be read.
const STORE_PAUSE: Duration = Duration::from_secs(1);
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
}

impl Orders {
    /// Run as assigned.
    pub fn of(spec: &Microservice) -> Self {
        Self {
            configuration: Arc::new(spec.configuration.clone()),
            limits: spec.limits.clone(),
            retry: spec.retry.clone(),
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

/// Runs the instance until it is stopped or fails, within its share of the processor; its long calls
/// in the background.
pub(super) async fn run(setup: Setup, background: Handle) -> Exit {
    let share: Arc<Share> = Arc::default();
    share.set(setup.spec.limits.cpu.map(|percent| percent.0));
    let counters = Arc::clone(&setup.counters);
    let task = Metered::new(live(setup, Arc::clone(&share)), share, counters);
    Anywhere::new(task, background).await
}

async fn live(setup: Setup, share: Arc<Share>) -> Exit {
    let open = Arc::new(AtomicBool::new(true));
    let name = &setup.spec.name;
    let timers = match timers::load(&setup.surroundings.store, name).await {
        Ok(timers) => timers,
        Err(error) => {
            return Exit::NotStartable(format!("its kept timers can't be read: {error:#}"));
        }
    };
    key_value::count_bytes(&setup.spec, &setup.surroundings.store, &setup.counters).await;
    let state = match state(&setup, timers, Arc::clone(&open)).await {
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
        spec,
        ..
    } = setup;
    let mut instance = Instance {
        guest,
        inbox,
        logger,
        counters,
        orders,
        share,
        retry: spec.retry.clone(),
        failed_over: None,
        batch: VecDeque::new(),
        retries: VecDeque::new(),
    };
    instance.inbox.begin();
    let exit = instance.live(started).await;
    open.store(false, Ordering::Relaxed);
    timers::save(instance.guest.state()).await;
    instance.leave_the_rest(&exit).await;
    exit
}

/// The data behind the store of a new instance, which may publish while `open` is true.
///
/// # Errors
/// When a granted directory can't be opened.
pub async fn state(setup: &Setup, timers: Timers, open: Arc<AtomicBool>) -> anyhow::Result<State> {
    let spec = &setup.spec;
    let (wasi, files) =
        wasi::context(spec, &setup.surroundings, &setup.counters, &setup.logger).await?;
    Ok(State {
        name: spec.name.clone(),
        limits: spec.limits.clone(),
        memory: MemoryLimiter::new(&spec.limits, Arc::clone(&setup.counters)),
        configuration: Arc::new(spec.configuration.clone()),
        surroundings: Arc::clone(&setup.surroundings),
        counters: Arc::clone(&setup.counters),
        handling: None,
        ports: PortCache::default(),
        publish_rate: Rate::default(),
        open,
        key_value: KeyValue::default(),
        history_rate: Rate::default(),
        timers,
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
    share: Arc<Share>,
    retry: RetryPolicy,
    /// The message over which the instance failed.
    failed_over: Option<Delivery>,
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
                return Exit::Failed(Failure::new(Cause::Start, reason));
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
        let attempt = self.inbox.next_attempt();
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
            () = until(attempt), if handles && !has_more => self.handle_batch().await?,
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
        self.retry = orders.retry;
        self.share.set(orders.limits.cpu.map(|percent| percent.0));
        let state = self.guest.state();
        state.memory.set_limits(&orders.limits);
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
        let Some(tick) = self.guest.state().timers.take_due(Instant::now(), now_ms()) else {
            return Ok(());
        };
        if let Err(reason) = self.guest.tick(&tick).await? {
            self.logger.agent(
                Level::Warn,
                &format!("the tick `{}` returned an error: {reason}", tick.name),
            );
        }
        timers::ticked(self.guest.state(), &tick).await;
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
        if let Some(place) = &delivery.place {
            if place.stream.is_closed() {
                return Ok(()); // withdrawn: its messages went with it
            }
            if delivery.is_expired(now_ms()) {
                count(&delivery.entry.counters.dropped);
                place.stream.done(place.position);
                return Ok(());
            }
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

/// Waits until `time`, or for ever.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}
