//! Makes the node's status: a complete, sequenced snapshot.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use haar_engine::configuration;
use haar_protocol::ids::{Name, NodeId};
use haar_protocol::keys::{LinkKey, SecretKey};
use haar_protocol::signed::{self, DOCUMENT_BYTES_MAX, EnvelopeError};
use haar_protocol::status::{
    self, BacklogStatus, EngineStatus, FlashStatus, PolicyStatus, RelayStatus, RouteStatus,
    ServedStatus, StartStatus, Status, StoreStatus,
};

use tokio::time::Instant;

use super::node::Node;
use crate::bus::Bus;
use crate::bus::message::RouteCounters;
use crate::store::Store;

/// With fewer bytes free, the database may not be able to go on.
const FREE_BYTES_MIN: u64 = 1 << 20;
/// With fewer bytes free, a database that fails does so because the disk is full.
const FREE_BYTES_LOW: u64 = 16 << 20;

/// What a status says beside the control state.
pub(super) struct Frame {
    /// Its number.
    pub(super) sequence: u64,
    /// Milliseconds since the Unix epoch.
    pub(super) now_ms: u64,
    /// When the agent started, likewise.
    pub(super) started_ms: u64,
    /// The same by the monotonic clock.
    pub(super) began: Instant,
    /// How long it pauses between statuses at most.
    pub(super) interval_ms: u64,
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
    /// Its sessions with brokers of devices.
    pub(super) brokers: Vec<RelayStatus>,
    /// The relays that it runs.
    pub(super) serves: Vec<ServedStatus>,
    /// What it has written.
    pub(super) flash: Option<FlashStatus>,
    /// Its generation.
    pub(super) link_key_generation: u64,
    /// How the budget's memory was determined.
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
        uptime_ms: u64::try_from(frame.began.elapsed().as_millis()).ok(),
        interval_ms: Some(frame.interval_ms),
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
        microservices: node.microservices(frame.began),
        routes: routes(node, frame.began),
        backlogs: backlogs(node),
        discarded: node.discarded,
        frames_refused: bus.frames_refused(),
        relays: frame.relays.clone(),
        brokers: frame.brokers.clone(),
        device_messages_dropped: bus.device_messages_dropped.load(Ordering::Relaxed),
        device_properties_dropped: bus.device_properties_dropped.load(Ordering::Relaxed),
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

/// What a status says of the database; nothing when all is well. `free` are the free bytes of its file
/// system, where they are known; `since` is kept by the caller.
pub(super) fn store(
    store: &Store,
    free: Option<u64>,
    since: &mut Option<u64>,
    now_ms: u64,
) -> Option<StoreStatus> {
    let slow = || {
        let seconds = store.slow_for()?.as_secs();
        Some(format!("the disk has not answered for {seconds} s"))
    };
    let problem = store.health().borrow().problem().map(str::to_owned);
    let problem = problem.or_else(slow);
    let status = StoreStatus {
        damage: store.damage().cloned(),
        ..trouble(problem, free, since, now_ms)
    };
    (status != StoreStatus::default()).then_some(status)
}

/// What is wrong: the reason why the database fails, or that the disk is too full for it to go on.
fn trouble(
    failing: Option<String>,
    free: Option<u64>,
    since: &mut Option<u64>,
    now_ms: u64,
) -> StoreStatus {
    let is_full = free.is_some_and(|free| free < FREE_BYTES_MIN);
    let problem = failing.or_else(|| is_full.then(|| "what is stored next may not fit".into()));
    *since = problem.as_ref().map(|_| since.unwrap_or(now_ms));
    StoreStatus {
        free_bytes: free.filter(|free| problem.is_some() && *free < FREE_BYTES_LOW),
        problem,
        since_ms: *since,
        damage: None,
    }
}

fn routes(node: &Node, began: Instant) -> Vec<RouteStatus> {
    let waiting = waiting(node);
    // A route from or to a topic has one end here; `peer` names the relay where the other one is.
    let waits = |counters: &RouteCounters, peer: &Name| {
        let ends = waiting.get(&counters.id.to_u64())?.iter();
        let is_its = |other: &Option<&Name>| counters.topic.is_some() || *other == Some(peer);
        Some(
            ends.filter(|(other, _)| is_its(other))
                .map(|end| end.1)
                .sum(),
        )
    };
    let after_s = |then: Instant| then.saturating_duration_since(began).as_secs();
    let route = |(peer, counters): (&Name, &RouteCounters)| {
        let problem = counters.problem.load();
        RouteStatus {
            id: counters.id,
            peer: peer.clone(),
            topic: counters.topic.clone(),
            counted_after_s: after_s(counters.began),
            sent: counters.sent.load(Ordering::Relaxed),
            delivered: counters.delivered.load(Ordering::Relaxed),
            handled: counters.handled.load(Ordering::Relaxed),
            dropped: counters.dropped.load(Ordering::Relaxed),
            waiting: waits(counters, peer).unwrap_or(0),
            problem: problem.as_deref().map(|problem| problem.why.clone()),
            problem_after_s: problem.as_deref().map(|problem| after_s(problem.began)),
        }
    };
    node.registry.counters().map(route).collect()
}

/// How many messages wait on durable routes, by the route's number, each with the name of the node at
/// the other end.
fn waiting(node: &Node) -> BTreeMap<u64, Vec<(Option<&Name>, u64)>> {
    let mut waiting: BTreeMap<u64, Vec<_>> = BTreeMap::new();
    let Some(assignment) = node.assignment() else {
        return waiting;
    };
    let names: BTreeMap<&NodeId, &Name> = assignment
        .peers
        .iter()
        .map(|peer| (&peer.id, &peer.name))
        .chain([(&assignment.node, &assignment.node_name)])
        .collect();
    for (route, other, messages) in node.registry.logs.waiting() {
        let name = names.get(other).copied();
        waiting.entry(route).or_default().push((name, messages));
    }
    waiting
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_with_its_free_bytes_and_since_when_before_anything_fails() {
        let mut since = None;
        let mut told = |failing: Option<&str>, free, now_ms| {
            let status = trouble(failing.map(str::to_owned), Some(free), &mut since, now_ms);
            (status.problem.is_some(), status.free_bytes, status.since_ms)
        };
        assert_eq!(told(None, 20 << 20, 1), (false, None, None));
        assert_eq!(told(None, 4_096, 2), (true, Some(4_096), Some(2)));
        assert_eq!(
            told(Some("full"), 2 << 20, 3),
            (true, Some(2 << 20), Some(2))
        );
        assert_eq!(told(Some("no sync"), 20 << 20, 4), (true, None, Some(2)));
        assert_eq!(told(None, 20 << 20, 5), (false, None, None));
    }
}
