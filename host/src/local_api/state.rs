//! What the agent keeps for one instance while it runs: the data behind its store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use haar_protocol::assignment::MicroserviceName;
use haar_protocol::grants::SystemPart;
use haar_protocol::limits::Limits;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use super::files::{Files, Resources};
use super::key_value::KeyValue;
use super::logging::Logger;
use super::timers::Timers;
use crate::bus::PortCache;
use crate::bus::message::Delivery;
use crate::runtime::guest::Counters;
use crate::runtime::memory::MemoryLimiter;
use crate::runtime::rate::Rate;
use crate::runtime::surroundings::Surroundings;

/// The data of one instance's store.
pub struct State {
    /// What the instance is called.
    pub name: MicroserviceName,
    /// Its limits now; they change without a restart.
    pub limits: Limits,
    /// Counts and bounds its memory.
    pub memory: MemoryLimiter,
    /// Values behind `wasi:config`.
    pub configuration: Arc<BTreeMap<String, String>>,
    /// What it shares with the node's other instances: its way out, the store.
    pub surroundings: Arc<Surroundings>,
    /// What is counted of the microservice.
    pub counters: Arc<Counters>,
    /// The message that it handles now.
    pub handling: Option<Delivery>,
    /// Its view of the route table.
    pub ports: PortCache,
    /// How fast it publishes.
    pub publish_rate: Rate,
    /// True from the moment that it may publish to the moment that it stops.
    pub open: Arc<AtomicBool>,
    /// How it uses its key-value store.
    pub key_value: KeyValue,
    /// How fast it reads histories.
    pub history_rate: Rate,
    /// Its timers.
    pub timers: Timers,
    /// Where its log lines go.
    pub logger: Logger,
    /// Directories, clocks, randomness, standard streams.
    pub wasi: WasiCtx,
    /// The parts of the node's measurements that it may read.
    pub system: BTreeSet<SystemPart>,
    /// What it has open below its directories, and their quotas.
    pub files: Files,
    /// Resources of `wasi:*` that it holds.
    pub table: Resources,
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

/// Milliseconds since the Unix epoch by this node's clock.
pub fn now_ms() -> u64 {
    let since_epoch = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}
