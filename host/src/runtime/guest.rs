//! One instantiated component and the calls into it. Every call is bounded in fuel and in wall
//! clock; after a failed call the guest can't be entered again and is thrown away.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use haar_protocol::status::FailureCause as Cause;
use wasmtime::Store;
use wasmtime::component::InstancePre;

use super::YIELD_FUEL;
use super::exceeded::Exceeded;
use super::failure::{Failure, classify, has_too_many_parts};
use crate::bus::message::{Delivery, EXPIRY_HEADER, count};
use crate::local_api::bindings::handler::exports::haar::local::handler::{self, Rejection};
use crate::local_api::bindings::ticks::exports::haar::local::ticks::Tick;
use crate::local_api::bindings::{handler::Handling, lifecycle::Living, ticks::Ticking};
use crate::local_api::state::State;
use crate::local_api::timers::DueTick;

/// Bytes that a guest may hand to the host in one call. Lists whose elements overlap in the guest's
/// memory could otherwise make the host allocate far more than the guest has.
const HOSTCALL_BYTES_MAX: usize = 8 << 20;

const HANDLER: &str = "haar:local/handler@0.1.0";
const LIFECYCLE: &str = "haar:local/lifecycle@0.1.0";
const TICKS: &str = "haar:local/ticks@0.1.0";

/// What is counted of a microservice, over all its instances since the agent started. Written by
/// the instance's task, read for the status.
#[derive(Debug, Default)]
pub struct Counters {
    /// How often it hibernated.
    pub hibernations: AtomicU64,
    /// When it went into hibernation, in milliseconds since the Unix epoch; 0 while it does not
    /// hibernate.
    pub hibernating_since_ms: AtomicU64,
    /// Calls into the instance.
    pub calls: AtomicU64,
    /// Calls that ended the instance or were rejected.
    pub failures: AtomicU64,
    /// Messages that were discarded.
    pub discarded: AtomicU64,
    /// Fuel burnt.
    pub fuel: AtomicU64,
    /// Linear memory now, in bytes.
    pub memory_bytes: AtomicU64,
    /// Processor time used, in nanoseconds.
    pub cpu_ns: AtomicU64,
    /// Bytes in the key-value store, when last looked at.
    pub key_value_bytes: AtomicU64,
    /// Bytes in the private data directory, when last looked at.
    pub files_bytes: AtomicU64,
    /// Dead letters that are kept, when last looked at.
    pub dead_letters: AtomicU64,
    /// How often each limit was exceeded.
    pub exceeded: Exceeded,
    /// What it said to its configuration.
    pub configured: Mutex<Configured>,
}

/// What a guest said to its configuration: it was started with it, or told of it.
#[derive(Debug, Default)]
pub struct Configured {
    /// The values.
    pub values: Arc<BTreeMap<String, String>>,
    /// The error of `configuration-changed`, if it returned one.
    pub refusal: Option<String>,
}

impl Counters {
    /// What it said to its configuration.
    pub fn configured(&self) -> MutexGuard<'_, Configured> {
        self.configured
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a failure and the limit that was exceeded.
    pub(super) fn failed(&self, failure: Failure) -> Failure {
        self.failures.fetch_add(1, Ordering::Relaxed);
        let limit = match failure.cause {
            Cause::Fuel => Some(&self.exceeded.fuel),
            Cause::Deadline => Some(&self.exceeded.call_timeout),
            Cause::Stack => Some(&self.exceeded.stack),
            _ => None,
        };
        if let Some(limit) = limit {
            limit.fetch_add(1, Ordering::Relaxed);
        }
        failure
    }
}

/// A component that runs.
pub struct Guest {
    store: Store<State>,
    handler: Option<Handling>,
    lifecycle: Option<Living>,
    ticks: Option<Ticking>,
    counters: Arc<Counters>,
}

impl Guest {
    /// Instantiates the component.
    ///
    /// # Errors
    /// When its memory is over the limit from the start, or its start code fails.
    pub async fn new(
        pre: &InstancePre<State>,
        state: State,
        counters: Arc<Counters>,
    ) -> Result<Self, Failure> {
        let mut store = Store::new(pre.engine(), state);
        store.limiter(|state| &mut state.memory);
        store.set_hostcall_fuel(HOSTCALL_BYTES_MAX);
        let plain = |error: wasmtime::Error| classify(&error, None);
        store
            .fuel_async_yield_interval(Some(YIELD_FUEL))
            .map_err(plain)?;
        store
            .set_fuel(store.data().limits.fuel_per_call)
            .map_err(plain)?;
        let limit = Duration::from_millis(store.data().limits.call_timeout.0);
        let instance = match tokio::time::timeout(limit, pre.instantiate_async(&mut store)).await {
            Ok(Ok(instance)) => instance,
            Ok(Err(error)) => {
                if has_too_many_parts(&error) {
                    count(&counters.exceeded.core_instances);
                }
                let state = store.data();
                let failure = classify(&error, state.memory.denied);
                let failure = failure.with_words(&state.logger.last_words());
                return Err(counters.failed(failure));
            }
            Err(_) => {
                let operation = store.data().files.unfinished();
                return Err(counters.failed(too_late(limit, operation)));
            }
        };
        let mut has = |name: &str| instance.get_export_index(&mut store, None, name).is_some();
        let (handles, lives, ticks) = (has(HANDLER), has(LIFECYCLE), has(TICKS));
        let handler = handles
            .then(|| Handling::new(&mut store, &instance))
            .transpose()
            .map_err(plain)?;
        let lifecycle = lives
            .then(|| Living::new(&mut store, &instance))
            .transpose()
            .map_err(plain)?;
        let ticks = ticks
            .then(|| Ticking::new(&mut store, &instance))
            .transpose()
            .map_err(plain)?;
        Ok(Self {
            store,
            handler,
            lifecycle,
            ticks,
            counters,
        })
    }

    /// The instance's data.
    pub fn state(&mut self) -> &mut State {
        self.store.data_mut()
    }

    /// Gives its memory back, and everything else that was made for it.
    pub(super) fn into_state(self) -> State {
        self.store.into_data()
    }

    /// True when the component has a handler for messages.
    pub fn handles(&self) -> bool {
        self.handler.is_some()
    }

    /// Calls `start`. The inner error is the guest's own refusal.
    ///
    /// # Errors
    /// When the call ended the instance; so for all calls below.
    pub async fn start(&mut self) -> Result<Result<(), String>, Failure> {
        let Some(lifecycle) = &self.lifecycle else {
            return Ok(Ok(()));
        };
        let limit = begin(&mut self.store)?;
        let call = lifecycle.haar_local_lifecycle().call_start(&mut self.store);
        let outcome = tokio::time::timeout(limit, call).await;
        self.finish(outcome, limit)
    }

    /// Calls `configuration-changed`.
    pub async fn configuration_changed(&mut self) -> Result<Result<(), String>, Failure> {
        let Some(lifecycle) = &self.lifecycle else {
            return Ok(Ok(()));
        };
        let limit = begin(&mut self.store)?;
        let call = lifecycle
            .haar_local_lifecycle()
            .call_configuration_changed(&mut self.store);
        let outcome = tokio::time::timeout(limit, call).await;
        self.finish(outcome, limit)
    }

    /// Calls `stop`, which may take as long as `grace`, whatever the limit of other calls.
    pub async fn stop(&mut self, grace: Duration) -> Result<(), Failure> {
        let Some(lifecycle) = &self.lifecycle else {
            return Ok(());
        };
        begin(&mut self.store)?;
        let call = lifecycle.haar_local_lifecycle().call_stop(&mut self.store);
        let outcome = tokio::time::timeout(grace, call).await;
        self.finish(outcome, grace)
    }

    /// Calls `handle` with a message.
    pub async fn handle(&mut self, delivery: &Delivery) -> Result<Result<(), Rejection>, Failure> {
        let Some(handler) = &self.handler else {
            return Ok(Err(Rejection::Discard(
                "the component exports no handler".into(),
            )));
        };
        let limit = begin(&mut self.store)?;
        self.store.data_mut().handling = Some(delivery.clone());
        // Who passes the headers on passes on what is left of the time.
        let left_s = delivery.left_s(self.store.data().surroundings.store.ages());
        let left_s = left_s.map(|seconds| seconds.to_string());
        let headers = delivery.message.headers.iter();
        let headers = headers.map(|(name, value)| match &left_s {
            Some(left_s) if name == EXPIRY_HEADER => (name.as_str(), left_s.as_str()),
            _ => (name.as_str(), value.as_str()),
        });
        let headers: Vec<(&str, &str)> = headers.collect();
        let call = handler
            .haar_local_handler()
            .call_handle(&mut self.store, to_wit(delivery, &headers));
        let outcome = tokio::time::timeout(limit, call).await;
        self.store.data_mut().handling = None;
        self.finish(outcome, limit)
    }

    /// Calls `handle-tick`.
    pub async fn tick(&mut self, tick: &DueTick) -> Result<Result<(), String>, Failure> {
        let Some(ticks) = &self.ticks else {
            return Ok(Err("the component exports no ticks".into()));
        };
        let limit = begin(&mut self.store)?;
        let tick = Tick {
            name: tick.name.clone(),
            scheduled: tick.scheduled_ms,
            missed: tick.missed,
        };
        let call = ticks
            .haar_local_ticks()
            .call_handle_tick(&mut self.store, &tick);
        let outcome = tokio::time::timeout(limit, call).await;
        self.finish(outcome, limit)
    }

    /// Counts the call and tells why it failed.
    fn finish<T>(
        &mut self,
        outcome: Result<wasmtime::Result<T>, tokio::time::error::Elapsed>,
        limit: Duration,
    ) -> Result<T, Failure> {
        let left = self.store.get_fuel().unwrap_or(0);
        let state = self.store.data();
        let burnt = state.limits.fuel_per_call.saturating_sub(left);
        self.counters.calls.fetch_add(1, Ordering::Relaxed);
        self.counters.fuel.fetch_add(burnt, Ordering::Relaxed);
        self.counters
            .memory_bytes
            .store(state.memory.bytes, Ordering::Relaxed);
        let failure = match outcome {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => {
                let words = state.logger.last_words();
                classify(&error, state.memory.denied).with_words(&words)
            }
            Err(_) => too_late(limit, state.files.unfinished()),
        };
        Err(self.counters.failed(failure))
    }
}

/// Fills the tank for one call. Returns how long the call may take.
fn begin(store: &mut Store<State>) -> Result<Duration, Failure> {
    let fuel = store.data().limits.fuel_per_call;
    store
        .set_fuel(fuel)
        .map_err(|error| classify(&error, None))?;
    let state = store.data_mut();
    state.memory.denied = None;
    Ok(Duration::from_millis(state.limits.call_timeout.0))
}

/// `operation` is the file operation that the call waited for, if it did.
fn too_late(limit: Duration, operation: Option<String>) -> Failure {
    let mut details = format!("the limit `call_timeout` is {} ms", limit.as_millis());
    if let Some(operation) = operation {
        let _ = write!(details, "; a file operation has not ended: {operation}"); // never fails
    }
    Failure::new(Cause::Deadline, &details)
}

fn to_wit<'a>(delivery: &'a Delivery, headers: &'a [(&'a str, &'a str)]) -> handler::Delivery<'a> {
    let message = &delivery.message;
    handler::Delivery {
        origin: delivery.entry.origin,
        sequence: message.sequence,
        published: message.published_ms,
        headers,
        body: &message.body,
        attempt: delivery.attempt,
    }
}
