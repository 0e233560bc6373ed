//! Decides what to do so that the node runs its assignment: a pure function from what is wanted
//! and what is observed to a list of actions. No clock, no I/O. Called by the control loop after
//! every event; acting on the list and observing again must converge to an empty list.

use std::collections::BTreeMap;
use std::sync::Arc;

use haar_protocol::assignment::{Microservice, MicroserviceName};
use haar_protocol::ids::Digest;

/// What the control loop knows of one microservice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// The instance that runs (or is starting), as it was told to run.
    pub running: Option<Arc<Microservice>>,
    /// The module that is being prepared, or is ready and not started yet.
    pub preparing: Option<Digest>,
    /// A module that was refused, or can't run here: not tried again until the assignment changes
    /// what concerns it.
    pub refused: Option<Arc<Microservice>>,
    /// It failed and waits for its next start. The start itself is the control loop's timer.
    pub backing_off: bool,
    /// It was asked to stop and has not ended.
    pub stopping: bool,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Fetch, verify and load the module, then start it in the place of what runs.
    Prepare(Arc<Microservice>),
    /// Give the running instance other configuration values.
    Configure(Arc<Microservice>),
    /// Give the running instance other limits or ports, without a restart.
    Adjust(Arc<Microservice>),
    /// Stop the instance, or give up preparing it, and forget it.
    Stop(MicroserviceName),
}

/// Compares what is wanted with what is observed.
pub fn plan(
    wanted: &BTreeMap<MicroserviceName, Arc<Microservice>>,
    observed: &BTreeMap<MicroserviceName, Observed>,
) -> Vec<Action> {
    let mut actions = Vec::new();
    for (name, state) in observed {
        if !wanted.contains_key(name) && !state.stopping {
            actions.push(Action::Stop(name.clone()));
        }
    }
    for (name, spec) in wanted {
        match observed.get(name) {
            None => actions.push(Action::Prepare(Arc::clone(spec))),
            Some(state) => plan_one(spec, state, &mut actions),
        }
    }
    actions
}

fn plan_one(spec: &Arc<Microservice>, state: &Observed, actions: &mut Vec<Action>) {
    if state.preparing == Some(spec.module) || state.stopping {
        return; // the answer comes as an event; what else changed is planned then
    }
    if let Some(refused) = &state.refused
        && !needs_restart(refused, spec)
    {
        return;
    }
    let Some(running) = &state.running else {
        if state.refused.is_some() || !state.backing_off {
            actions.push(Action::Prepare(Arc::clone(spec)));
        }
        return;
    };
    if needs_restart(running, spec) {
        actions.push(Action::Prepare(Arc::clone(spec)));
        return;
    }
    if running.limits != spec.limits
        || running.outlets != spec.outlets
        || running.inlets != spec.inlets
    {
        actions.push(Action::Adjust(Arc::clone(spec)));
    }
    if running.configuration != spec.configuration {
        actions.push(Action::Configure(Arc::clone(spec)));
    }
}

/// True when a difference can't be changed in a running instance: another module, other grants.
pub fn needs_restart(running: &Microservice, wanted: &Microservice) -> bool {
    running.module != wanted.module || running.grants != wanted.grants
}
