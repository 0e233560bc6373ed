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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Wanted = BTreeMap<MicroserviceName, Arc<Microservice>>;
    type Node = BTreeMap<MicroserviceName, Observed>;

    fn microservice(index: u8, module: u8, memory: u64, value: u8) -> Microservice {
        let json = serde_json::json!({
            "application": "app",
            "microservice": format!("m{index}"),
            "module": Digest::of(&[module]),
            "module_bytes": 1,
            "module_label": "m@1",
            "limits": { "memory": format!("{memory}MiB") },
            "grants": {},
            "configuration": { "value": value.to_string() },
            "outlets": {},
            "inlets": {},
        });
        serde_json::from_value(json).unwrap()
    }

    fn wanted() -> impl Strategy<Value = Wanted> {
        let one = (0..5u8, 0..3u8, 1..3u64, 0..3u8);
        proptest::collection::vec(one, 0..5).prop_map(|list| {
            let specs = list
                .into_iter()
                .map(|(i, module, memory, value)| microservice(i, module, memory, value));
            specs
                .map(|spec| (spec.name.clone(), Arc::new(spec)))
                .collect()
        })
    }

    fn idle() -> Observed {
        Observed {
            running: None,
            preparing: None,
            refused: None,
            backing_off: false,
            stopping: false,
        }
    }

    /// Carries an action out as the agent does, at once and without a mishap.
    fn carry_out(action: &Action, node: &mut Node) {
        match action {
            Action::Prepare(spec) | Action::Configure(spec) | Action::Adjust(spec) => {
                let one = node.entry(spec.name.clone()).or_insert_with(idle);
                *one = Observed {
                    running: Some(Arc::clone(spec)),
                    ..idle()
                };
            }
            Action::Stop(name) => {
                node.remove(name);
            }
        }
    }

    proptest! {
        #[test]
        fn acting_on_the_plan_converges_to_what_is_wanted(first in wanted(), second in wanted()) {
            let mut node = Node::new();
            for wanted in [&first, &second] {
                for action in plan(wanted, &node) {
                    carry_out(&action, &mut node);
                }
                // Configuration and limits may take a round each.
                for action in plan(wanted, &node) {
                    carry_out(&action, &mut node);
                }
                prop_assert_eq!(plan(wanted, &node), vec![]);
                let running: Wanted = node
                    .iter()
                    .filter_map(|(name, one)| Some((name.clone(), one.running.clone()?)))
                    .collect();
                prop_assert_eq!(&running, wanted);
            }
        }

        #[test]
        fn what_did_not_change_is_left_alone(before in wanted(), after in wanted()) {
            let mut node = Node::new();
            for action in plan(&before, &node) {
                carry_out(&action, &mut node);
            }
            for action in plan(&after, &node) {
                let name = match &action {
                    Action::Prepare(spec) => {
                        let same_code = before.get(&spec.name)
                            .is_some_and(|old| !needs_restart(old, spec));
                        prop_assert!(!same_code, "restarted without need: {}", spec.name);
                        &spec.name
                    }
                    Action::Configure(spec) | Action::Adjust(spec) => &spec.name,
                    Action::Stop(name) => {
                        prop_assert!(!after.contains_key(name), "stopped although wanted: {name}");
                        name
                    }
                };
                prop_assert_ne!(before.get(name), after.get(name));
            }
        }
    }

    #[test]
    fn a_refused_module_is_not_tried_again_until_another_one_is_wanted() {
        let refused = Arc::new(microservice(1, 1, 1, 1));
        let observed = Observed {
            refused: Some(Arc::clone(&refused)),
            ..idle()
        };
        let node = Node::from([(refused.name.clone(), observed)]);
        let same = Wanted::from([(refused.name.clone(), Arc::clone(&refused))]);
        assert_eq!(plan(&same, &node), vec![]);
        let other = Arc::new(microservice(1, 2, 1, 1));
        let changed = Wanted::from([(other.name.clone(), Arc::clone(&other))]);
        assert_eq!(plan(&changed, &node), vec![Action::Prepare(other)]);
    }

    #[test]
    fn an_instance_that_waits_for_its_next_start_is_not_started_early() {
        let spec = Arc::new(microservice(1, 1, 1, 1));
        let node = Node::from([(
            spec.name.clone(),
            Observed {
                backing_off: true,
                ..idle()
            },
        )]);
        let wanted = Wanted::from([(spec.name.clone(), spec)]);
        assert_eq!(plan(&wanted, &node), vec![]);
    }
}
