//! What others may ask of the control state.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use haar_protocol::assignment::{Assignment, Microservice, MicroserviceName};
use haar_protocol::status::{MicroserviceStatus, RefusedAssignment};
use tokio::time::Instant;

use super::node::Node;
use super::preparing::Order;
use super::slot::Slot;
use crate::accept::InForce;
use crate::local_api::files::thread::FileThread;
use crate::local_api::logging::Logger;
use crate::runtime::guest::Counters;

impl Node {
    /// The assignment in force.
    pub fn assignment(&self) -> Option<&Assignment> {
        self.assignment.as_ref()
    }

    /// The assignment in force, as the next one is compared with it.
    pub fn in_force(&self) -> Option<InForce> {
        self.in_force
    }

    /// The last assignment that was refused.
    pub fn refused(&self) -> Option<&RefusedAssignment> {
        self.refused.as_ref()
    }

    /// True when nothing runs and nothing is being stopped.
    pub fn is_idle(&self) -> bool {
        self.slots.values().all(|slot| slot.running.is_none())
    }

    /// True while an instance of the microservice runs.
    pub fn has_instance(&self, name: &MicroserviceName) -> bool {
        self.slots
            .get(name)
            .is_some_and(|slot| slot.running.is_some())
    }

    /// True while a module is fetched, verified, or about to take the place of another one.
    pub fn is_preparing(&self) -> bool {
        let mut slots = self.slots.values();
        slots.any(|slot| slot.preparing.is_some() || slot.ready.is_some())
    }

    /// Names of instances that run.
    pub fn running(&self) -> Vec<String> {
        self.slots
            .iter()
            .filter(|(_, slot)| slot.running.is_some())
            .map(|(name, _)| name.to_string())
            .collect()
    }

    /// What a new instance writes its lines and counts to, and where it waits for disks.
    pub fn instruments(
        &self,
        name: &MicroserviceName,
    ) -> Option<(Logger, Arc<Counters>, Arc<FileThread>)> {
        self.slots.get(name).map(|slot| {
            let counters = Arc::clone(&slot.counters);
            (slot.logger.clone(), counters, Arc::clone(&slot.file_thread))
        })
    }

    /// Where the grants of a microservice are checked, and in which order with its module.
    pub(super) fn order(&self, spec: &Microservice) -> Option<(Arc<FileThread>, Order)> {
        let slot = self.slots.get(&spec.name)?;
        Some((Arc::clone(&slot.grant_thread), slot.order(spec)))
    }

    /// Ends an instance that does not listen. Its end comes as [`Node::exited`].
    pub fn abort(&self, name: &MicroserviceName) {
        if let Some(running) = self.slots.get(name).and_then(|slot| slot.running.as_ref()) {
            running.abort.abort();
        }
    }

    /// The microservices in the status. `began` is when the agent started.
    pub fn microservices(&self, began: Instant) -> Vec<MicroserviceStatus> {
        self.slots
            .iter()
            .filter_map(|(name, slot)| {
                slot.status(
                    name,
                    self.wanted.get(name),
                    self.registry.existing_inbox(name),
                    began,
                )
            })
            .collect()
    }

    /// Notes how many dead letters each microservice has, for the status.
    pub fn count_dead_letters(&self, letters: &BTreeMap<MicroserviceName, u64>) {
        for (name, slot) in &self.slots {
            let kept = letters.get(name).copied().unwrap_or(0);
            slot.counters.dead_letters.store(kept, Ordering::Relaxed);
        }
    }

    /// When something waits for its time.
    pub fn wake(&self) -> Option<Instant> {
        self.slots.values().filter_map(Slot::wake).min()
    }
}
