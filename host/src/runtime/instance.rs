//! The task of one instance: waits for orders, ticks and messages, and makes one call at a time.
//!
//! ```text
//! instantiate ─► start ─► ┌─ orders ─ tick ─ retry ─ message ──┐ ─► stop ─► Exit::Stopped
//!   ▲  │           │      └────────── one call at a time ──────┘
//!   │  └───────────┴─────────── a call fails ───────────────────────────► Exit::Failed
//!   └────── hibernation (see its file) ◄── stop ◄── idle for long
//! ```

mod messages;
mod orders;
mod aftermath;
mod hibernation;
mod looking;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use haar_protocol::assignment::Microservice;
use haar_protocol::limits::RetryPolicy;
use haar_protocol::log::Level;
use haar_protocol::status::FailureCause as Cause;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use wasmtime::component::InstancePre;

use self::looking::Look;
pub use self::orders::Orders;
use self::orders::adopt;
use super::background::Anywhere;
use super::cpu::{Metered, Share};
use super::failure::Failure;
use super::guest::{Counters, Guest};
use super::memory::MemoryLimiter;
use super::rate::Rate;
use super::surroundings::Surroundings;
use crate::bus::PortCache;
use crate::bus::inbox::Inbox;
use crate::bus::message::Delivery;
use crate::local_api::files::Resources;
use crate::local_api::files::thread::FileThread;
use crate::local_api::key_value::{self, KeyValue};
use crate::local_api::logging::Logger;
use crate::local_api::state::{State, now_ms};
use crate::local_api::timers::{self, DueTick, Timers};
use crate::local_api::wasi;
use crate::policy::Refusal;

/// The longest time in which an instance's directories are opened and measured.
pub const OPENING_MAX: Duration = Duration::from_secs(30);

/// How an instance ended.
#[derive(Debug)]
pub enum Exit {
    /// It was asked to, or has to be verified before it begins again.
    Stopped,
    /// It could not be started as it is: a granted directory is not there.
    NotStartable(String),
    /// The policy of the device does not allow what it is granted. It is not tried again.
    Refused(String),
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
    /// Where it waits for disks.
    pub file_thread: Arc<FileThread>,
    /// What the control loop asks of it.
    pub orders: watch::Receiver<Orders>,
    /// Told when `start` has returned for the first time, and when other values of the configuration were
    /// answered.
    pub answered: mpsc::Sender<()>,
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

/// One instance after the other, for as long as each ends by hibernating.
async fn live(mut setup: Setup, share: Arc<Share>) -> Exit {
    let open = Arc::new(AtomicBool::new(true));
    let name = &setup.spec.name;
    let mut timers = match timers::load(&setup.surroundings.store, name).await {
        Ok(timers) => timers,
        Err(error) => {
            return Exit::NotStartable(format!("its kept timers can't be read: {error:#}"));
        }
    };
    key_value::count_bytes(&setup.spec, &setup.surroundings.store, &setup.counters).await;
    let (mut tick, mut is_told) = (None, false);
    loop {
        if setup.orders.borrow().unverified {
            return Exit::Stopped;
        }
        let since = &setup.counters.hibernating_since_ms;
        since.store(0, Ordering::Relaxed);
        let mut orders = setup.orders.clone();
        let mut state = tokio::select! {
            biased;
            // Either way there is nothing to finish.
            _ = orders.wait_for(|orders| orders.stop.is_some()) => return Exit::Stopped,
            opened = opened(&setup, timers, Arc::clone(&open)) => match opened {
                Ok(state) => state,
                Err(error) if error.is::<Refusal>() => return Exit::Refused(error.to_string()),
                Err(error) => return Exit::NotStartable(format!("{error:#}")),
            },
        };
        let retry = adopt(&mut state, &setup.orders.borrow(), &share);
        let guest = match Guest::new(&setup.pre, state, Arc::clone(&setup.counters)).await {
            Ok(guest) => guest,
            Err(failure) => return Exit::Failed(failure),
        };
        let mut instance = Instance::new(&mut setup, guest, retry, &share, &mut is_told);
        instance.inbox.begin();
        let end = instance.live(tick).await;
        timers::save(instance.guest.state()).await;
        if let End::Exit(exit) = end {
            open.store(false, Ordering::Relaxed);
            instance.leave_the_rest(&exit).await;
            return exit;
        }
        if let End::BeginsAgain = end {
            instance.leave_the_rest(&Exit::Stopped).await;
            timers = instance.guest.into_state().timers;
            timers.wake();
            tick = None;
            continue;
        }
        let handles = instance.guest.handles();
        // Nothing else of it stays: neither open files nor the line that it did not end.
        let State {
            timers: kept,
            configuration,
            ..
        } = instance.guest.into_state();
        timers = kept;
        tick = match hibernation::wait(&mut setup, &mut timers, &configuration, handles).await {
            Some(wake) => wake,
            None => return Exit::Stopped,
        };
    }
}

/// The same as [`state`], when no file operation of an earlier instance goes on any more.
async fn opened(setup: &Setup, timers: Timers, open: Arc<AtomicBool>) -> anyhow::Result<State> {
    let thread = &setup.file_thread;
    let opened = async {
        thread.until_free().await;
        state(setup, timers, open).await
    };
    match tokio::time::timeout(OPENING_MAX, opened).await {
        Ok(opened) => opened,
        Err(_) => {
            let operation = thread.unfinished().unwrap_or_default();
            anyhow::bail!(
                "its directories can't be opened: a file operation does not end: {operation}"
            )
        }
    }
}

/// The data behind the store of a new instance, which may publish while `open` is true.
///
/// # Errors
/// When a granted directory can't be opened, or may not be.
pub async fn state(setup: &Setup, timers: Timers, open: Arc<AtomicBool>) -> anyhow::Result<State> {
    let (spec, thread) = (&setup.spec, Arc::clone(&setup.file_thread));
    let (wasi, files) = wasi::context(
        spec,
        &setup.surroundings,
        &setup.counters,
        &setup.logger,
        thread,
    )
    .await?;
    Ok(State {
        name: spec.name.clone(),
        limits: spec.limits.clone(),
        memory: MemoryLimiter::new(&spec.limits, Arc::clone(&setup.counters)),
        configuration: Arc::clone(&setup.orders.borrow().configuration),
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
        system: spec.grants.system.clone(),
        files,
        table: Resources::new(Arc::clone(&setup.file_thread)),
    })
}

/// How an instance ended, as its task sees it.
enum End {
    /// For good.
    Exit(Exit),
    /// To begin again when something comes for it.
    Hibernates,
    /// To begin again now.
    BeginsAgain,
}

struct Instance<'a> {
    guest: Guest,
    inbox: Arc<Inbox>,
    logger: Logger,
    counters: Arc<Counters>,
    orders: &'a mut watch::Receiver<Orders>,
    answered: mpsc::Sender<()>,
    is_told: &'a mut bool,
    share: &'a Share,
    retry: RetryPolicy,
    /// When its last call ended.
    idle_since: Instant,
    look: Look,
    /// The message over which the instance failed.
    failed_over: Option<Delivery>,
    /// Messages taken out of the inbox and not handled yet.
    batch: VecDeque<Delivery>,
    /// Rejected messages with the time of their next attempt.
    retries: VecDeque<(Instant, Delivery)>,
}

impl<'a> Instance<'a> {
    fn new(
        setup: &'a mut Setup,
        guest: Guest,
        retry: RetryPolicy,
        share: &'a Share,
        is_told: &'a mut bool,
    ) -> Self {
        Self {
            guest,
            inbox: Arc::clone(&setup.inbox),
            logger: setup.logger.clone(),
            counters: Arc::clone(&setup.counters),
            orders: &mut setup.orders,
            answered: setup.answered.clone(),
            is_told,
            share,
            retry,
            idle_since: Instant::now(),
            look: Look::Never,
            failed_over: None,
            batch: VecDeque::new(),
            retries: VecDeque::new(),
        }
    }

    /// From `start` on; then first handles the tick for which it was woken.
    async fn live(&mut self, tick: Option<DueTick>) -> End {
        match self.begin(tick).await {
            Ok(()) => {}
            Err(failure) => return End::Exit(Exit::Failed(failure)),
        }
        loop {
            match self.step().await {
                Ok(None) => {}
                Ok(Some(end)) => return end,
                Err(failure) => return End::Exit(Exit::Failed(failure)),
            }
        }
    }

    async fn begin(&mut self, tick: Option<DueTick>) -> Result<(), Failure> {
        if let Err(reason) = self.guest.start().await? {
            return Err(Failure::new(Cause::Start, &reason));
        }
        self.guest.state().timers.awake();
        let is_other = self.configured(None);
        if !std::mem::replace(self.is_told, true) || is_other {
            self.tell();
        }
        self.look_later();
        match tick {
            Some(tick) => self.handle_tick(tick).await,
            None => Ok(()),
        }
    }

    /// Waits for the next thing to do and does it.
    async fn step(&mut self) -> Result<Option<End>, Failure> {
        let timer = self.guest.state().timers.next();
        let retry = self.retries.front().map(|(due, _)| *due);
        let attempt = self.inbox.next_attempt();
        let (handles, has_more) = (self.guest.handles(), !self.batch.is_empty());
        let drowsy = self.hibernates_at();
        tokio::select! {
            biased;
            changed = self.orders.changed() => {
                if changed.is_err() {
                    return Ok(Some(End::Exit(Exit::Stopped))); // the control loop is gone
                }
                return self.obey().await;
            }
            event = self.look.next() => return self.looked(event).await,
            () = until(timer) => self.tick().await?,
            () = until(retry) => self.retry().await?,
            () = self.inbox.wait(), if handles && !has_more => self.handle_batch().await?,
            () = until(attempt), if handles && !has_more => self.handle_batch().await?,
            () = std::future::ready(()), if has_more => self.handle_batch().await?,
            () = until(drowsy) => return self.hibernate().await.map(Some),
        }
        self.idle_since = Instant::now();
        Ok(None)
    }

    async fn tick(&mut self) -> Result<(), Failure> {
        let due = self.guest.state().timers.take_due(Instant::now(), now_ms());
        match due {
            Some(tick) => self.handle_tick(tick).await,
            None => Ok(()),
        }
    }

    async fn handle_tick(&mut self, tick: DueTick) -> Result<(), Failure> {
        if let Err(reason) = self.guest.tick(&tick).await? {
            self.logger.about_message(
                Level::Warn,
                &format!("the tick `{}` returned an error: {reason}", tick.name),
            );
        }
        timers::ticked(self.guest.state(), &tick).await;
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
