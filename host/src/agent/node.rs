//! The control state of the agent and what each event does to it. Nothing here waits: a change
//! returns the effects that the owner ([`super::run`]) then carries out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use haar_protocol::assignment::{Assignment, Microservice, MicroserviceName};
use haar_protocol::ids::Digest;
use haar_protocol::log::Level;
use haar_protocol::status::{Overflow, RefusedAssignment, State as Phase};
use haar_protocol::text;
use tokio::time::Instant;
use wasmtime::component::InstancePre;

use super::assigning::without;
use super::slot::{REASON_BYTES_MAX, Running, Slot, Waiting};
use crate::accept::{Allegiance, InForce};
use crate::bus::registry::Registry;
use crate::bus::table::RouteTable;
use crate::local_api::state::State;
use crate::logs::Logs;
use crate::modules::PrepareError;
use crate::reconcile;
use crate::runtime::instance::Exit;

/// What the owner does for the state.
pub enum Effect {
    /// Get the module ready; the answer comes as [`Node::prepared`].
    Prepare(Arc<Microservice>),
    /// Start an instance; the answer comes as [`Node::launched`].
    Start(Arc<Microservice>, InstancePre<State>),
    /// End an instance that does not listen.
    Abort(MicroserviceName),
    /// Put a route table in force.
    SetTable(RouteTable),
    /// Remove the files of all other modules.
    Sweep(BTreeSet<Digest>),
}

/// The control state.
pub struct Node {
    /// Who this node is.
    pub allegiance: Allegiance,
    /// Where lines of microservices go.
    pub(super) logs: Arc<Logs>,
    /// The assignment in force.
    pub(super) assignment: Option<Assignment>,
    /// The same, as the next one is compared with it.
    pub(super) in_force: Option<InForce>,
    /// The last one that was refused.
    pub(super) refused: Option<RefusedAssignment>,
    pub(super) wanted: BTreeMap<MicroserviceName, Arc<Microservice>>,
    pub(super) slots: BTreeMap<MicroserviceName, Slot>,
    /// Inboxes, sequences, counters.
    pub registry: Registry,
    /// Messages that were discarded with their routes, as the store counts them.
    pub discarded: Overflow,
    /// True when the status says something else than the last one that was sent.
    pub changed: bool,
}

impl Node {
    /// A node that has no assignment yet.
    pub fn new(allegiance: Allegiance, logs: Arc<Logs>) -> Self {
        Self {
            allegiance,
            logs,
            assignment: None,
            in_force: None,
            refused: None,
            wanted: BTreeMap::new(),
            slots: BTreeMap::new(),
            registry: Registry::default(),
            discarded: Overflow::default(),
            changed: true,
        }
    }

    /// An assignment was refused.
    pub fn assignment_refused(&mut self, number: Option<u64>, reason: String) {
        let reason = text::paragraph(&reason, REASON_BYTES_MAX);
        tracing::warn!("assignment refused: {reason}");
        self.refused = Some(RefusedAssignment { number, reason });
        self.changed = true;
    }

    /// An assignment was accepted and stored: it comes into force.
    pub fn assigned(
        &mut self,
        assignment: Assignment,
        envelope: Digest,
        now_ms: u64,
    ) -> Vec<Effect> {
        tracing::info!(
            number = assignment.number,
            microservices = assignment.microservices.len(),
            "assignment in force"
        );
        self.in_force = Some(InForce {
            number: assignment.number,
            envelope,
        });
        self.refused = None;
        self.changed = true;
        self.wanted = assignment
            .microservices
            .iter()
            .map(|one| (one.name.clone(), Arc::new(one.clone())))
            .collect();
        for (name, slot) in &mut self.slots {
            if let Some(wanted) = self.wanted.get(name) {
                slot.forget_refusal_unless_of(wanted);
                slot.forget_failures_unless_of(wanted);
            }
        }
        let mut effects = vec![Effect::SetTable(self.registry.compile(&assignment))];
        let trust_changed = self.assignment.as_ref().is_some_and(|before| {
            before.publishers != assignment.publishers || before.signatures != assignment.signatures
        });
        self.assignment = Some(assignment);
        if trust_changed {
            self.slots.values_mut().for_each(Slot::distrust);
        }
        effects.push(Effect::Sweep(
            self.wanted.values().map(|spec| spec.module).collect(),
        ));
        effects.extend(self.reconcile(now_ms));
        effects
    }

    /// The lives of these microservices have ended, and no instance of them runs. What waited for them goes
    /// with all that is known of them, and the assignment in force goes on without them, so that nothing of
    /// an old life starts on the data of the next one.
    pub fn forget_lives(&mut self, names: &[MicroserviceName]) {
        for name in names {
            self.wanted.remove(name);
            self.slots.remove(name);
            self.registry.forget_inbox(name);
        }
        let in_force = self.assignment.take();
        self.assignment = in_force.map(|assignment| without(assignment, names));
        self.changed = true;
    }

    /// A module is ready, or is not.
    pub fn prepared(
        &mut self,
        spec: &Arc<Microservice>,
        outcome: Result<InstancePre<State>, PrepareError>,
        now: Instant,
        now_ms: u64,
        jitter: u8,
    ) -> Vec<Effect> {
        let Some(slot) = self.slots.get_mut(&spec.name) else {
            return Vec::new();
        };
        if slot
            .preparing
            .as_ref()
            .is_none_or(|preparing| !Arc::ptr_eq(preparing, spec))
        {
            return Vec::new(); // something else is wanted by now
        }
        self.changed = true;
        slot.preparing = None;
        match outcome {
            Ok(pre) => self.start_when_free(spec, pre, now_ms),
            Err(PrepareError::Refused(reason)) => {
                slot.refuse(spec, &reason, now_ms);
                Vec::new()
            }
            Err(PrepareError::NotYet(reason)) => {
                let at = slot.next_prepare(now, jitter);
                tracing::warn!(microservice = %spec.name, "{reason}; tried again in {:?}", at - now);
                slot.wait(Waiting::Prepare(at), spec);
                slot.show(slot.phase, Some(&reason), now_ms);
                Vec::new()
            }
        }
    }

    /// Starts what is ready, after what runs has stopped.
    fn start_when_free(
        &mut self,
        spec: &Arc<Microservice>,
        pre: InstancePre<State>,
        now_ms: u64,
    ) -> Vec<Effect> {
        let Some(slot) = self.slots.get_mut(&spec.name) else {
            return Vec::new();
        };
        slot.failures = 0;
        slot.waiting = None;
        slot.trust();
        slot.last = Some((Arc::clone(spec), pre.clone()));
        match &slot.running {
            None => vec![Effect::Start(Arc::clone(spec), pre)],
            Some(_) if !slot.must_restart(spec) => {
                // It was only looked at again, and may go on.
                self.reconcile(now_ms)
            }
            Some(_) => {
                slot.ready = Some((Arc::clone(spec), pre));
                slot.ask_to_stop(now_ms);
                Vec::new()
            }
        }
    }

    /// An instance's task was spawned.
    pub fn launched(&mut self, running: Running) {
        if let Some(slot) = self.slots.get_mut(&running.spec.name) {
            slot.stop_deadline = None;
            slot.running = Some(running);
        }
    }

    /// An instance has started (its `start` returned), or has answered `configuration-changed`. It gets what
    /// has changed since it was prepared.
    pub fn answered(
        &mut self,
        name: &MicroserviceName,
        run: u64,
        now: Instant,
        now_ms: u64,
    ) -> Vec<Effect> {
        let Some(slot) = self.slots.get_mut(name) else {
            return Vec::new();
        };
        if let Some(running) = slot.running.as_mut()
            && running.run == run
        {
            let is_first = running.started.is_none();
            running.started.get_or_insert(now);
            self.changed = true;
            if is_first && slot.stop_deadline.is_none() {
                slot.show(Phase::Running, None, now_ms);
            }
        }
        self.reconcile(now_ms)
    }

    /// An instance has ended.
    pub fn exited(
        &mut self,
        name: &MicroserviceName,
        run: u64,
        exit: &Exit,
        now: Instant,
        now_ms: u64,
        jitter: u8,
    ) -> Vec<Effect> {
        let Some(slot) = self.slots.get_mut(name) else {
            return Vec::new();
        };
        let Some(running) = slot.running.take_if(|running| running.run == run) else {
            return Vec::new();
        };
        self.changed = true;
        slot.stop_deadline = None;
        slot.logger.end_instance();
        if !self.wanted.contains_key(name) {
            self.slots.remove(name);
            return self.reconcile(now_ms);
        }
        if let Some((spec, pre)) = slot.ready.take() {
            slot.show(Phase::Preparing, None, now_ms);
            return vec![Effect::Start(spec, pre)];
        }
        if slot.refused.is_some()
            && let Some(reason) = slot.reason.take()
        {
            slot.show(Phase::Refused, Some(&reason), now_ms);
            return Vec::new();
        }
        let reason = match exit {
            Exit::Stopped => {
                // It is wanted again by now, or must be looked at before it begins again.
                let reason = slot.reason.take();
                slot.show(Phase::Preparing, reason.as_deref(), now_ms);
                return self.reconcile(now_ms);
            }
            Exit::Refused(reason) => {
                slot.refuse(&running.spec, reason, now_ms);
                return self.reconcile(now_ms); // other grants may be wanted by now
            }
            Exit::NotStartable(reason) => reason.clone(),
            Exit::Failed(failure) => {
                slot.report(failure, now_ms);
                failure.to_string()
            }
        };
        let reason = format!("{}: {reason}", running.spec.module_label);
        tracing::warn!(microservice = %name, "{reason}");
        slot.logger
            .agent(Level::Error, reason.lines().next().unwrap_or_default());
        let wanted = self.wanted.get(name).unwrap_or(&running.spec);
        let at = slot.next_start(&wanted.restart, running.started, now, jitter);
        slot.wait(Waiting::Start(at), wanted);
        slot.show(Phase::BackOff, Some(&reason), now_ms);
        self.woken(now, now_ms)
    }

    /// Does what has waited for its time.
    pub fn woken(&mut self, now: Instant, now_ms: u64) -> Vec<Effect> {
        let mut effects = Vec::new();
        for (name, slot) in &mut self.slots {
            if slot.stop_deadline.is_some_and(|deadline| deadline <= now) {
                slot.stop_deadline = None;
                tracing::warn!(microservice = %name, "did not stop in time: it is ended");
                effects.push(Effect::Abort(name.clone()));
            }
            match slot.waiting {
                Some(Waiting::Start(at)) if at <= now => {
                    slot.waiting = None;
                    slot.restarts += 1;
                    self.changed = true;
                    let Some(wanted) = self.wanted.get(name) else {
                        continue;
                    };
                    match &slot.last {
                        Some((spec, pre)) if !reconcile::needs_restart(spec, wanted) => {
                            effects.push(Effect::Start(Arc::clone(wanted), pre.clone()));
                        }
                        _ => effects.extend(slot.prepare(wanted)),
                    }
                }
                Some(Waiting::Prepare(at)) if at <= now => {
                    slot.waiting = None;
                    let wanted = self.wanted.get(name);
                    effects.extend(wanted.and_then(|wanted| slot.prepare(wanted)));
                }
                _ => {}
            }
        }
        if effects.is_empty() {
            self.reconcile(now_ms)
        } else {
            effects
        }
    }
}
