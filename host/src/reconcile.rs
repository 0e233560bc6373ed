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
    /// Bytes of memory that the running instance has.
    pub held_bytes: u64,
    /// The module that is being prepared, or is ready and not started yet.
    pub preparing: Option<Digest>,
    /// A module that was refused, or can't run here: not tried again until the assignment changes
    /// what concerns it.
    pub refused: Option<Arc<Microservice>>,
    /// What is wanted failed, or could not be had, and waits for its next attempt, which is the control
    /// loop's timer.
    pub backing_off: bool,
    /// What runs was verified with another trust than there is now.
    pub unverified: bool,
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
    /// Give the running instance everything else that changed, without a restart: limits, ports,
    /// policies, the level of its log.
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
    // Memory that an instance has is never given back while it runs: one that has more than it may have
    // from now on would take what the site gives to others.
    if needs_restart(running, spec) || state.held_bytes > spec.limits.memory.0 {
        if state.refused.is_some() || !state.backing_off {
            actions.push(Action::Prepare(Arc::clone(spec)));
        }
        return;
    }
    if state.unverified && !state.backing_off {
        actions.push(Action::Prepare(Arc::clone(spec)));
        return;
    }
    if needs_adjusting(running, spec) {
        actions.push(Action::Adjust(Arc::clone(spec)));
    }
    if running.configuration != spec.configuration {
        actions.push(Action::Configure(Arc::clone(spec)));
    }
}

/// True when something differs that changes in a running instance, other than its configuration.
fn needs_adjusting(running: &Microservice, wanted: &Microservice) -> bool {
    // Every field stands here, so that a new one can't be forgotten.
    let Microservice {
        name: _,
        module: _, // these three need a restart
        grants: _,
        unknown: _,
        configuration: _, // told to the guest
        life: _,          // another one begins when nothing runs
        module_bytes,
        module_label,
        limits,
        outlets,
        inlets,
        log_level,
        restart,
        retry,
        inlet_history,
        outlet_history,
    } = wanted;
    running.module_bytes != *module_bytes
        || running.module_label != *module_label
        || running.limits != *limits
        || running.outlets != *outlets
        || running.inlets != *inlets
        || running.log_level != *log_level
        || running.restart != *restart
        || running.retry != *retry
        || running.inlet_history != *inlet_history
        || running.outlet_history != *outlet_history
}

/// True when a difference can't be changed in a running instance: another module, other grants, or
/// something that this release does not know and must refuse.
pub fn needs_restart(running: &Microservice, wanted: &Microservice) -> bool {
    running.module != wanted.module
        || running.grants != wanted.grants
        || running.unknown != wanted.unknown
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
            held_bytes: 0,
            preparing: None,
            refused: None,
            backing_off: false,
            unverified: false,
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

    /// One change of each part of a microservice that a running instance takes.
    const LIVE_CHANGES: [fn(&mut Microservice); 10] = [
        |spec| spec.limits.stop_grace.0 += 1,
        |spec| spec.limits.log_bytes_per_second.0 += 1,
        |spec| spec.log_level = haar_protocol::log::Level::Error,
        |spec| spec.restart.pauses.clear(),
        |spec| spec.retry.attempts += 1,
        |spec| {
            spec.inlet_history
                .insert("in".parse().unwrap(), retention());
        },
        |spec| {
            spec.outlet_history
                .insert("out".parse().unwrap(), retention());
        },
        |spec| {
            spec.outlets
                .insert("out".parse().unwrap(), "text/plain".parse().unwrap());
        },
        |spec| {
            spec.inlets
                .insert("in".parse().unwrap(), "text/plain".parse().unwrap());
        },
        |spec| spec.module_label.push('x'),
    ];

    fn retention() -> haar_protocol::limits::Retention {
        serde_json::from_value(serde_json::json!({ "size": "1MiB", "age": "1h" })).unwrap()
    }

    fn running(spec: &Microservice) -> Node {
        let observed = Observed {
            running: Some(Arc::new(spec.clone())),
            ..idle()
        };
        Node::from([(spec.name.clone(), observed)])
    }

    #[test]
    fn limits_ports_policies_and_the_log_level_change_in_a_running_instance() {
        let before = microservice(1, 1, 1, 1);
        for (index, change) in LIVE_CHANGES.iter().enumerate() {
            let mut after = before.clone();
            change(&mut after);
            let after = Arc::new(after);
            let wanted = Wanted::from([(after.name.clone(), Arc::clone(&after))]);
            assert_eq!(
                plan(&wanted, &running(&before)),
                [Action::Adjust(after)],
                "change {index}"
            );
        }
    }

    #[test]
    fn another_grant_needs_another_instance() {
        let before = microservice(1, 1, 1, 1);
        let mut after = before.clone();
        after.grants.key_value = true;
        let after = Arc::new(after);
        let wanted = Wanted::from([(after.name.clone(), Arc::clone(&after))]);
        assert_eq!(plan(&wanted, &running(&before)), [Action::Prepare(after)]);
    }

    #[test]
    fn what_this_release_does_not_know_is_looked_at_by_whoever_refuses_it() {
        let before = microservice(1, 1, 1, 1);
        let mut after = before.clone();
        after.unknown.push("the limit `flash_per_day`".into());
        let after = Arc::new(after);
        let wanted = Wanted::from([(after.name.clone(), Arc::clone(&after))]);
        assert_eq!(plan(&wanted, &running(&before)), [Action::Prepare(after)]);
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
