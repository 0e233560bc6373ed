//! What the control loop knows of one microservice on this node.
//!
//! ```text
//!            ┌──────────── prepare ◄───────────── other module wanted ─────────┐
//!            ▼                                                                 │
//!       Preparing ──ready──► Running ──fails──► BackOff ──pause over──► Running│
//!            │                  │  └──────────────────────────────────────────►┘
//!            └──refused──► Refused            Stopping ──ended──► (gone, or the next one starts)
//! ```

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use haar_protocol::assignment::{Microservice, MicroserviceName};
use haar_protocol::limits::RestartPolicy;
use haar_protocol::log::Level;
use haar_protocol::number;
use haar_protocol::status::{Exceeded, FailureReport, MicroserviceStatus, State as Phase};
use haar_protocol::text;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use wasmtime::component::InstancePre;

use super::node::Effect;
use super::pauses;
use crate::bus::inbox::Inbox;
use crate::local_api::files::thread::FileThread;
use crate::local_api::logging::Logger;
use crate::local_api::state::State;
use crate::reconcile::{Observed, needs_restart};
use crate::runtime::failure::Failure;
use crate::runtime::guest::Counters;
use crate::runtime::instance::Orders;

/// What an instance has beside its last calls before it is ended by force: it ends by itself when
/// they take too long.
const STOP_SLACK: Duration = Duration::from_secs(1);
/// Bytes of a reason that people are shown.
pub(super) const REASON_BYTES_MAX: usize = 2_048;

/// An instance with its task.
#[derive(Debug)]
pub struct Running {
    /// As it was told to run.
    pub spec: Arc<Microservice>,
    /// Tells this run from earlier ones of the same microservice.
    pub run: u64,
    /// What the control loop asks of it.
    pub orders: watch::Sender<Orders>,
    /// Ends it when it does not listen.
    pub abort: AbortHandle,
    /// When it started to run; none while it is starting.
    pub started: Option<Instant>,
}

/// What waits for its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// The next start after a failure.
    Start(Instant),
    /// The next attempt to get the module.
    Prepare(Instant),
}

/// One microservice.
pub struct Slot {
    /// The instance.
    pub running: Option<Running>,
    /// What is being prepared.
    pub preparing: Option<Arc<Microservice>>,
    /// Prepared, and waiting for the running instance to stop.
    pub ready: Option<(Arc<Microservice>, InstancePre<State>)>,
    /// The code that last ran, for starts after a failure.
    pub last: Option<(Arc<Microservice>, InstancePre<State>)>,
    /// What was refused.
    pub refused: Option<Arc<Microservice>>,
    /// What runs was verified with another trust than there is now. Nothing is kept that could be started
    /// without another look.
    pub unverified: bool,
    /// What waits for its time.
    pub waiting: Option<Waiting>,
    /// For which wanted microservice.
    pub waits_for: Option<Arc<Microservice>>,
    /// When an instance that was asked to stop is ended by force.
    pub stop_deadline: Option<Instant>,
    /// Failures in a row.
    pub failures: u32,
    /// Starts after failures.
    pub restarts: u64,
    /// What people see.
    pub phase: Phase,
    /// Why, for people.
    pub reason: Option<String>,
    /// Since when: milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// The last failure of an instance.
    pub last_failure: Option<FailureReport>,
    /// Where its lines go.
    pub logger: Logger,
    /// What is counted of it.
    pub counters: Arc<Counters>,
    /// When counting began.
    pub counted_from: Instant,
    /// Where its instances wait for disks.
    pub file_thread: Arc<FileThread>,
    /// Where its grants are checked: a directory may be on a file server that does not answer.
    pub grant_thread: Arc<FileThread>,
}

impl Slot {
    /// A microservice that nothing is known of yet.
    pub fn new(logger: Logger, counters: Arc<Counters>, now_ms: u64) -> Self {
        Self {
            running: None,
            preparing: None,
            ready: None,
            last: None,
            refused: None,
            unverified: false,
            waiting: None,
            waits_for: None,
            stop_deadline: None,
            failures: 0,
            restarts: 0,
            phase: Phase::Preparing,
            reason: None,
            since_ms: now_ms,
            last_failure: None,
            logger,
            counters,
            counted_from: Instant::now(),
            file_thread: Arc::default(),
            grant_thread: Arc::default(),
        }
    }

    /// Forgets failures and their pause, unless they are of `wanted`: another module or revision starts at
    /// once, and shows no reason of the last one.
    pub fn forget_failures_unless_of(&mut self, wanted: &Microservice) {
        if self.waiting.is_some() && self.waits_for.as_deref() != Some(wanted) {
            self.waiting = None;
            self.failures = 0;
            self.reason = None;
        }
    }

    /// Begins to prepare `wanted`, unless something is being prepared.
    pub fn prepare(&mut self, wanted: &Arc<Microservice>) -> Option<Effect> {
        if self.preparing.is_some() {
            return None; // the answer leads on
        }
        self.preparing = Some(Arc::clone(wanted));
        Some(Effect::Prepare(Arc::clone(wanted)))
    }

    /// Waits until the next start, or the next attempt to get the module, of `spec`.
    pub fn wait(&mut self, waiting: Waiting, spec: &Arc<Microservice>) {
        self.waiting = Some(waiting);
        self.waits_for = Some(Arc::clone(spec));
    }

    /// Changes what people see. The time is kept when the phase stays.
    /// The reason may have a guest's words in it, of any length.
    pub fn show(&mut self, phase: Phase, reason: Option<&str>, now_ms: u64) {
        if self.phase != phase {
            self.since_ms = now_ms;
        }
        self.phase = phase;
        self.reason = reason.map(|reason| text::paragraph(reason, REASON_BYTES_MAX));
    }

    /// Asks the instance to stop. After its last calls it is ended by force.
    pub fn ask_to_stop(&mut self, now_ms: u64) {
        let Some(running) = &self.running else {
            return;
        };
        let limits = &running.spec.limits;
        let grace = Duration::from_millis(limits.stop_grace.0);
        running
            .orders
            .send_modify(|orders| orders.stop = Some(grace));
        // It may be in the middle of a call, and then has its last one.
        let call = Duration::from_millis(limits.call_timeout.0);
        let grace = match self.file_thread.hangs() {
            true => Duration::ZERO, // its call will not end, and it takes no other
            false => call + grace,
        };
        self.stop_deadline = Some(Instant::now() + grace + STOP_SLACK);
        self.show(Phase::Stopping, None, now_ms);
    }

    /// The module may not run. An instance of another module goes on; one of this module stops.
    pub fn refuse(&mut self, spec: &Arc<Microservice>, reason: &str, now_ms: u64) {
        let reason = text::paragraph(reason, REASON_BYTES_MAX);
        tracing::warn!(microservice = %spec.name, "refused: {reason}");
        self.logger
            .agent(Level::Error, &format!("refused: {reason}"));
        self.refused = Some(Arc::clone(spec));
        self.last = None;
        self.waiting = None;
        match &self.running {
            None => self.show(Phase::Refused, Some(&reason), now_ms),
            Some(running) => {
                if running.spec.module == spec.module {
                    self.ask_to_stop(now_ms);
                }
                self.reason = Some(reason);
            }
        }
    }

    /// Other publishers or signatures are trusted than before: what was prepared has to be prepared again
    /// before it starts. What was refused may be good now, and what runs may not be.
    pub fn distrust(&mut self) {
        self.unverified = true;
        self.refused = None;
        self.preparing = None;
        self.ready = None;
        self.last = None;
        if let Some(running) = &self.running {
            running
                .orders
                .send_modify(|orders| orders.unverified = true);
        }
    }

    /// Its module was verified with the trust that there is now.
    pub fn trust(&mut self) {
        self.unverified = false;
        if let Some(running) = &self.running {
            let trust = |orders: &mut Orders| std::mem::take(&mut orders.unverified);
            running.orders.send_if_modified(trust);
        }
    }

    /// A change that was refused is not wanted any more, and what ran before it goes on: nothing is left
    /// of the refusal.
    pub fn forget_refusal_unless_of(&mut self, wanted: &Microservice) {
        let is_of_another = self
            .refused
            .as_ref()
            .is_some_and(|refused| needs_restart(refused, wanted));
        if is_of_another && self.running.is_some() {
            self.refused = None;
            self.reason = None;
        }
    }

    /// Keeps what people need to know of a failure.
    pub fn report(&mut self, failure: &Failure, now_ms: u64) {
        self.last_failure = Some(FailureReport {
            time_ms: now_ms,
            cause: failure.cause,
            details: failure.details.clone(),
            backtrace: failure.backtrace.clone(),
            last_lines: self.logger.last_lines(),
        });
    }

    /// Bytes of memory that its running instance holds.
    fn held_bytes(&self) -> u64 {
        match self.running {
            Some(_) => self.counters.memory_bytes.load(Ordering::Relaxed),
            None => 0,
        }
    }

    /// True when the running instance must be restarted to become `wanted`.
    pub fn must_restart(&self, wanted: &Microservice) -> bool {
        let running = self.running.as_ref();
        running.is_some_and(|running| needs_restart(&running.spec, wanted))
            || self.held_bytes() > wanted.limits.memory.0
    }

    /// The part of it that the plan is made from.
    pub fn observed(&self) -> Observed {
        Observed {
            running: self
                .running
                .as_ref()
                .map(|running| Arc::clone(&running.spec)),
            preparing: self
                .preparing
                .as_ref()
                .or(self.ready.as_ref().map(|(spec, _)| spec))
                .map(|spec| spec.module),
            held_bytes: self.held_bytes(),
            refused: self.refused.clone(),
            backing_off: self.waiting.is_some(),
            unverified: self.unverified && self.running.is_some(),
            stopping: self.stop_deadline.is_some() && self.ready.is_none(),
        }
    }

    /// When the next start may be, after one more failure at `now`. `chance` is a random number.
    pub fn next_start(
        &mut self,
        policy: &RestartPolicy,
        ran_since: Option<Instant>,
        now: Instant,
        chance: u8,
    ) -> Instant {
        let recovered_after = Duration::from_millis(policy.recovered_after.0);
        if ran_since.is_some_and(|since| now - since >= recovered_after) {
            self.failures = 0;
        }
        let pause = pauses::before_start(policy, self.failures, chance);
        self.failures = self.failures.saturating_add(1);
        now + pause
    }

    /// When the next attempt to get the module may be.
    pub fn next_prepare(&mut self, now: Instant, chance: u8) -> Instant {
        let pause = pauses::before_fetch(self.failures, chance);
        self.failures = self.failures.saturating_add(1);
        now + pause
    }

    /// The time of whatever waits here.
    pub fn wake(&self) -> Option<Instant> {
        let waiting = self.waiting.map(|waiting| match waiting {
            Waiting::Start(at) | Waiting::Prepare(at) => at,
        });
        waiting.into_iter().chain(self.stop_deadline).min()
    }

    /// Its part of the node's status. `began` is when the agent started.
    pub fn status(
        &self,
        name: &MicroserviceName,
        wanted: Option<&Arc<Microservice>>,
        inbox: Option<&Arc<Inbox>>,
        began: Instant,
    ) -> Option<MicroserviceStatus> {
        use Ordering::Relaxed;
        let running = self.running.as_ref().map(|running| &running.spec);
        let spec = running
            .or(self.preparing.as_ref())
            .or(self.refused.as_ref())
            .or(wanted)?;
        let (state, since_ms) = match self.counters.hibernating_since_ms.load(Relaxed) {
            since_ms if since_ms > 0 && self.phase == Phase::Running => {
                (Phase::Hibernating, since_ms)
            }
            _ => (self.phase, self.since_ms),
        };
        let configured = self.counters.configured();
        let is_up = self.phase == Phase::Running;
        let refusal = configured.refusal.as_ref().filter(|_| is_up);
        let orders = self.running.as_ref().filter(|_| is_up);
        Some(MicroserviceStatus {
            name: name.clone(),
            module: spec.module,
            module_label: spec.module_label.clone(),
            state,
            reason: self.reason.as_ref().or(refusal).cloned(),
            refused_module: self
                .refused
                .as_ref()
                .map(|refused| refused.module)
                .filter(|module| *module != spec.module)
                .or(refusal.map(|_| spec.module)),
            configuring: orders
                .is_some_and(|running| running.spec.configuration != *configured.values),
            since_ms,
            counted_after_s: self.counted_from.saturating_duration_since(began).as_secs(),
            restarts: self.restarts,
            hibernations: self.counters.hibernations.load(Relaxed),
            calls: self.counters.calls.load(Relaxed),
            failures: self.counters.failures.load(Relaxed),
            discarded: self.counters.discarded.load(Relaxed),
            fuel: number::capped(self.counters.fuel.load(Relaxed)),
            memory_bytes: self.counters.memory_bytes.load(Relaxed),
            log_lines_dropped: self.logger.dropped(),
            cpu_ms: self.counters.cpu_ns.load(Relaxed) / 1_000_000,
            inbox_messages: inbox.map_or(0, |inbox| inbox.len() as u64),
            key_value_bytes: self.counters.key_value_bytes.load(Relaxed),
            files_bytes: self.counters.files_bytes.load(Relaxed),
            dead_letters: self.counters.dead_letters.load(Relaxed),
            exceeded: Exceeded {
                inbox_messages: inbox.map_or(0, |inbox| inbox.overflowed()),
                log: self.logger.dropped(),
                ..self.counters.exceeded.snapshot()
            },
            last_failure: self.last_failure.clone(),
        })
    }
}
