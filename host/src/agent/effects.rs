//! Carries out what the control state decided.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use haar_protocol::assignment::Microservice;
use tokio::sync::{mpsc, watch};
use wasmtime::component::InstancePre;

use super::Event;
use super::node::Effect;
use super::run::Agent;
use super::slot::Running;
use crate::local_api::state::State;
use crate::runtime::instance::{Orders, Setup};

impl Agent {
    pub(super) fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Prepare(spec) => self.prepare(spec),
                Effect::Start(spec, pre) => self.launch(spec, pre),
                Effect::Abort(name) => self.node.abort(&name),
                Effect::SetTable(table) => {
                    let peers = self.node.assignment().map(|assignment| &assignment.peers);
                    let peers = peers.map_or(&[][..], Vec::as_slice);
                    let plans = table.links().clone();
                    // First, so that what a new link brings finds its route.
                    let brokers = self.node.assignment().map(|one| &one.brokers);
                    let brokers = brokers.map_or(&[][..], Vec::as_slice);
                    self.devices.follow(table.brokers(), brokers);
                    self.surroundings.bus.set_table(table);
                    self.links.follow(&plans, peers);
                }
                Effect::Sweep(keep) => {
                    let modules = Arc::clone(&self.modules);
                    self.work.spawn_blocking(move || modules.sweep(&keep));
                }
            }
        }
    }

    fn launch(&mut self, spec: Arc<Microservice>, pre: InstancePre<State>) {
        self.runs += 1;
        let run = self.runs;
        let (orders, given) = watch::channel(Orders::of(&spec));
        let (answered, mut answers) = mpsc::channel(1);
        let Some((logger, counters, file_thread)) = self.node.instruments(&spec.name) else {
            return;
        };
        logger.follow(&spec); // it may have changed while nothing ran
        logger.begin_instance();
        counters.memory_bytes.store(0, Ordering::Relaxed); // the last instance has freed its own
        let setup = Setup {
            pre,
            spec: Arc::clone(&spec),
            inbox: self.node.registry.inbox(&spec.name, &spec.limits),
            surroundings: Arc::clone(&self.surroundings),
            logger,
            counters,
            file_thread,
            orders: given,
            answered,
        };
        let abort = self.runtime.spawn(&mut self.instances, setup);
        self.instance_names
            .insert(abort.id(), (spec.name.clone(), run));
        let (events, name) = (self.events.clone(), spec.name.clone());
        self.work.spawn(async move {
            while answers.recv().await.is_some() {
                let answered = Event::Answered(name.clone(), run);
                let _ = events.send(answered).await; // or the control loop has ended
            }
        });
        self.node.launched(Running {
            spec,
            run,
            orders,
            abort,
            started: None,
        });
    }
}
