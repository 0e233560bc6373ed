//! What the plan says, done to the control state.

use std::sync::Arc;

use haar_protocol::assignment::{Microservice, MicroserviceName};
use haar_protocol::status::State as Phase;

use super::node::{Effect, Node};
use super::slot::Slot;
use crate::local_api::logging::Logger;
use crate::reconcile::{self, Action};
use crate::runtime::guest::Counters;
use crate::runtime::instance::Orders;

impl Node {
    /// Makes a plan and does what it says.
    pub(super) fn reconcile(&mut self, now_ms: u64) -> Vec<Effect> {
        let observed = self
            .slots
            .iter()
            .map(|(name, slot)| (name.clone(), slot.observed()))
            .collect();
        let actions = reconcile::plan(&self.wanted, &observed);
        actions
            .into_iter()
            .filter_map(|action| self.act(action, now_ms))
            .collect()
    }

    fn act(&mut self, action: Action, now_ms: u64) -> Option<Effect> {
        self.changed = true;
        match action {
            Action::Prepare(spec) => return Some(self.prepare(spec, now_ms)),
            Action::Configure(spec) => self.respecify(&spec, |running| {
                running.configuration = spec.configuration.clone();
            }),
            Action::Adjust(spec) => self.respecify(&spec, |running| {
                let configuration = std::mem::take(&mut running.configuration);
                *running = Microservice {
                    configuration,
                    ..Microservice::clone(&spec)
                };
            }),
            Action::Stop(name) => self.stop(&name, now_ms),
        }
        None
    }

    fn prepare(&mut self, spec: Arc<Microservice>, now_ms: u64) -> Effect {
        let logs = Arc::clone(&self.logs);
        let slot = self.slots.entry(spec.name.clone()).or_insert_with(|| {
            let counters = Arc::<Counters>::default();
            let logger = Logger::new(&spec, logs, Arc::clone(&counters));
            Slot::new(logger, counters, now_ms)
        });
        slot.logger.follow(&spec);
        slot.preparing = Some(Arc::clone(&spec));
        slot.refused = None;
        slot.waiting = None;
        slot.failures = 0;
        if slot.running.is_none() {
            slot.show(Phase::Preparing, None, now_ms);
        }
        Effect::Prepare(spec)
    }

    /// Changes what a running instance is told.
    fn respecify(&mut self, spec: &Microservice, change: impl FnOnce(&mut Microservice)) {
        let Some(slot) = self.slots.get_mut(&spec.name) else {
            return;
        };
        slot.logger.follow(spec);
        if let Some(running) = slot.running.as_mut() {
            change(Arc::make_mut(&mut running.spec));
            let orders = Orders {
                unverified: slot.unverified,
                ..Orders::of(&running.spec)
            };
            running.orders.send_replace(orders);
        }
    }

    fn stop(&mut self, name: &MicroserviceName, now_ms: u64) {
        let Some(slot) = self.slots.get_mut(name) else {
            return;
        };
        slot.preparing = None;
        slot.ready = None;
        slot.waiting = None;
        if slot.running.is_none() {
            self.slots.remove(name);
        } else {
            slot.ask_to_stop(now_ms);
        }
    }

    /// The agent stops: so do all instances.
    pub fn stop_all(&mut self, now_ms: u64) {
        self.wanted.clear();
        let names: Vec<_> = self.slots.keys().cloned().collect();
        for name in names {
            self.stop(&name, now_ms);
        }
    }
}
