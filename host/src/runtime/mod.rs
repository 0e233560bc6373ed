//! Where guests run: on their own threads, never on the runtime that owns sockets and timers of
//! the agent. Each instance is one task here: its store, its inbox, its calls in order. Calls that
//! take long go on in the background: on threads of a lower priority.

pub mod exceeded;
pub mod surroundings;
pub mod rate;
pub mod memory;
pub mod mappings;
pub mod cpu;
mod background;
pub mod failure;
pub mod guest;
pub mod instance;

use std::sync::Arc;

use haar_protocol::grants::Grants;
use tokio::runtime::{Builder, Runtime};
use tokio::task::{AbortHandle, JoinSet};
use wasmtime::Engine;
use wasmtime::component::{Component, InstancePre, Linker};

use self::instance::{Exit, Setup};
use crate::local_api;
use crate::local_api::state::State;

/// Units of fuel after which a guest lets others run: about a tenth of a millisecond, at a cost
/// of 0 to 30 % on ordinary code (measured in RUNTIME.md; below 10,000 it doubles the cost).
pub(crate) const YIELD_FUEL: u64 = 100_000;
/// Turns after which a thread looks for tasks that others have woken, and for timers and sockets.
/// Tokio's own numbers are for tasks that give way at once: with turns of a tenth of a millisecond,
/// spinning guests would keep the others waiting for several milliseconds.
const TURNS_TO_WOKEN: u32 = 3;
const TURNS_TO_TIMERS: u32 = 7;
/// Threads for what blocks: nothing does here. Each microservice waits for disks on a thread of its own
/// (`local_api::files::thread`).
const BLOCKING_THREADS: usize = 1;

/// The threads of guests, the engine and the local API.
pub struct GuestRuntime {
    runtime: Threads,
    background: Threads,
    engine: Engine,
    linker: Linker<State>,
    fingerprint: String,
}

/// Threads that end without being waited for, wherever the value is dropped: tokio panics when a
/// runtime that waits is dropped on a thread of another one, such as after a start that failed.
struct Threads(Option<Runtime>);

impl Threads {
    fn handle(&self) -> &tokio::runtime::Handle {
        let runtime = self.0.as_ref();
        runtime.expect("it is taken when it is dropped").handle()
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl GuestRuntime {
    /// Starts `threads` threads, and as many for the background.
    ///
    /// # Errors
    /// When the machine can't start them, or the engine does not know the machine.
    pub fn new(threads: usize) -> anyhow::Result<Arc<Self>> {
        let engine =
            haar_engine::configuration::engine().map_err(|error| anyhow::anyhow!("{error:#}"))?;
        let linker = local_api::linker(&engine).map_err(|error| anyhow::anyhow!("{error:#}"))?;
        let runtime = threads_of_guests(threads, "haar-guest").build()?;
        let background = threads_of_guests(threads, "haar-background")
            .on_thread_start(lower_priority)
            .build()?;
        let fingerprint = haar_engine::configuration::fingerprint();
        Ok(Arc::new(Self {
            runtime: Threads(Some(runtime)),
            background: Threads(Some(background)),
            engine,
            linker,
            fingerprint,
        }))
    }

    /// Runs an instance among `instances`.
    pub fn spawn(&self, instances: &mut JoinSet<Exit>, setup: Setup) -> AbortHandle {
        let instance = instance::run(setup, self.background.handle().clone());
        instances.spawn_on(instance, self.handle())
    }

    /// Where instances' tasks are spawned.
    pub fn handle(&self) -> &tokio::runtime::Handle {
        self.runtime.handle()
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// See [`haar_engine::configuration::fingerprint`].
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Connects a component's imports to the parts of the local API that it is granted.
    ///
    /// # Errors
    /// When it imports what is not offered, or not granted; the text names it.
    pub fn link(
        &self,
        component: &Component,
        grants: &Grants,
    ) -> wasmtime::Result<InstancePre<State>> {
        let mut linker = self.linker.clone();
        local_api::add_granted(&mut linker, grants)?;
        linker.instantiate_pre(component)
    }
}

fn threads_of_guests(threads: usize, name: &str) -> Builder {
    let mut builder = Builder::new_multi_thread();
    builder
        .worker_threads(threads.max(1))
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_name(name)
        .global_queue_interval(TURNS_TO_WOKEN)
        .event_interval(TURNS_TO_TIMERS)
        .enable_time();
    builder
}

/// Lets the others go first. Without it guests are only fair to each other.
fn lower_priority() {
    // On Linux a priority belongs to a thread: this one.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, background::NICENESS) {
        tracing::warn!("can't lower the priority of a thread of the background: {error}");
    }
}
