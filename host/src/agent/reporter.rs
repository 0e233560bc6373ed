//! Makes the node's status: a complete, sequenced snapshot.

use std::sync::atomic::Ordering;

use haar_engine::configuration;
use haar_protocol::keys::{LinkKey, SecretKey};
use haar_protocol::signed::{self, DOCUMENT_BYTES_MAX, EnvelopeError};
use haar_protocol::status::{
    self, BacklogStatus, EngineStatus, FlashStatus, PolicyStatus, RelayStatus, RouteStatus,
    ServedStatus, StartStatus, Status, StoreStatus,
};

use super::node::Node;
use crate::bus::Bus;
use crate::store::Store;

/// What a status says beside the control state.
pub(super) struct Frame {
    /// Its number.
    pub(super) sequence: u64,
    /// Milliseconds since the Unix epoch.
    pub(super) now_ms: u64,
    /// When the agent started, likewise.
    pub(super) started_ms: u64,
    /// What tells this start from others.
    pub(super) start: StartStatus,
    /// The node's key for links.
    pub(super) link_key: LinkKey,
    /// Whether it can compile modules itself.
    pub(super) compiler: bool,
    /// Whether it takes code that the controller has compiled.
    pub(super) precompiled: bool,
    /// What its owner allows the site.
    pub(super) policy: PolicyStatus,
    /// The relays that it attaches to.
    pub(super) relays: Vec<RelayStatus>,
    /// The relays that it runs.
    pub(super) serves: Vec<ServedStatus>,
    /// What it has written.
    pub(super) flash: Option<FlashStatus>,
    /// Its generation.
    pub(super) link_key_generation: u64,
    /// Where the budget's memory comes from.
    pub(super) memory_source: Option<String>,
    /// What is wrong with its database.
    pub(super) store: Option<StoreStatus>,
}

/// Makes and signs a status. One that is too large leaves out what matters least, and says so.
///
/// # Errors
/// Never in practice: a status always serialises, and what is left of a large one fits.
pub(super) fn status(
    node: &Node,
    bus: &Bus,
    frame: &Frame,
    key: &SecretKey,
) -> Result<Vec<u8>, EnvelopeError> {
    let status = Status {
        site: node.allegiance.site.clone(),
        node: node.allegiance.node.clone(),
        sequence: frame.sequence,
        sent_ms: frame.now_ms,
        started_ms: frame.started_ms,
        start: Some(frame.start.clone()),
        agent_version: env!("CARGO_PKG_VERSION").into(),
        target: configuration::machine(),
        engine: Some(EngineStatus {
            fingerprint: configuration::fingerprint(),
            target: configuration::target(),
            compiler: frame.compiler,
            precompiled: frame.precompiled,
        }),
        applied: node.in_force().map_or(0, |in_force| in_force.number),
        refused: node.refused().cloned(),
        budget: node.allegiance.budget.clone(),
        memory_source: frame.memory_source.clone(),
        policy: Some(frame.policy.clone()),
        link_key: Some(frame.link_key),
        link_key_generation: frame.link_key_generation,
        resident_bytes: resident_bytes(),
        flash: frame.flash,
        store: frame.store.clone(),
        microservices: node.microservices(),
        routes: routes(node),
        backlogs: backlogs(node),
        frames_refused: bus.frames_refused(),
        relays: frame.relays.clone(),
        serves: frame.serves.clone(),
        omitted: None,
    };
    match signed::seal(&status, key) {
        Err(EnvelopeError::TooLarge { .. }) => {
            signed::seal(&status::fit(status, DOCUMENT_BYTES_MAX), key)
        }
        sealed => sealed,
    }
}

/// What there is to tell of the database.
pub(super) fn store(store: &Store) -> Option<StoreStatus> {
    let slow = || {
        let seconds = store.slow_for()?.as_secs();
        Some(format!("the disk has not answered for {seconds} s"))
    };
    let problem = store.health().borrow().problem().map(str::to_owned);
    let status = StoreStatus {
        problem: problem.or_else(slow),
        damage: store.damage().cloned(),
    };
    (status != StoreStatus::default()).then_some(status)
}

fn routes(node: &Node) -> Vec<RouteStatus> {
    node.registry
        .counters()
        .map(|(peer, counters)| RouteStatus {
            id: counters.id,
            peer: peer.clone(),
            topic: counters.topic.clone(),
            sent: counters.sent.load(Ordering::Relaxed),
            delivered: counters.delivered.load(Ordering::Relaxed),
            handled: counters.handled.load(Ordering::Relaxed),
            dropped: counters.dropped.load(Ordering::Relaxed),
        })
        .collect()
}

fn backlogs(node: &Node) -> Vec<BacklogStatus> {
    let logs = node.registry.logs.outlets();
    logs.map(|(owner, outlet, log)| {
        let (refused, dropped) = log.overflow.counts();
        BacklogStatus {
            name: owner.clone(),
            outlet: outlet.clone(),
            bytes: log.bytes(),
            bytes_max: log.limit_bytes(),
            refused,
            dropped,
        }
    })
    .collect()
}

/// Resident memory of this process in bytes, as Linux tells (`/proc/self/smaps_rollup` is dearer;
/// `statm` counts pages); 0 where it does not.
pub(super) fn resident_bytes() -> u64 {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else {
        return 0;
    };
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line
        .and_then(|line| line.split_whitespace().next())
        .and_then(|kib| kib.parse::<u64>().ok());
    kib.map_or(0, |kib| kib * 1024)
}
