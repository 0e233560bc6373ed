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
use crate::local_api::files::thread::FileThread;
use crate::local_api::state::State;
use crate::modules::{PrepareError, Trust};
use crate::policy::Policy;
use crate::runtime::instance::{OPENING_MAX, Orders, Setup};

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

    fn prepare(&mut self, spec: Arc<Microservice>) {
        let Some(assignment) = self.node.assignment() else {
            return; // nothing is wanted without one
        };
        let Some(thread) = self.node.grant_thread(&spec.name) else {
            return;
        };
        let trust = Trust::of(assignment, &spec.module);
        let policy = Arc::clone(&self.options.policy);
        let (modules, runtime) = (Arc::clone(&self.modules), Arc::clone(&self.runtime));
        let (events, permits) = (self.events.clone(), Arc::clone(&self.preparing));
        self.work.spawn(async move {
            let outcome = match check_grants(&spec, policy, &thread).await {
                Ok(()) => {
                    let _permit = permits.acquire().await;
                    let wanted = Arc::clone(&spec);
                    let prepare = move || modules.prepare(&wanted, trust, &runtime);
                    let prepared = tokio::task::spawn_blocking(prepare).await;
                    prepared.unwrap_or_else(|panic| {
                        Err(PrepareError::Refused(format!(
                            "loading the module failed badly: {panic}"
                        )))
                    })
                }
                Err(error) => Err(error),
            };
            // The control loop has ended: nobody is interested.
            let _ = events.send(Event::Prepared(spec, outcome)).await;
        });
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

/// Whether the policy allows what the microservice is granted. Before its module is fetched, and apart
/// from the preparation of others: nobody waits for a file server of which only this one has files.
async fn check_grants(
    spec: &Arc<Microservice>,
    policy: Arc<Policy>,
    thread: &Arc<FileThread>,
) -> Result<(), PrepareError> {
    if spec.grants.directories.is_empty() {
        return Ok(());
    }
    let late = || PrepareError::NotYet("one of its granted directories does not answer".to_owned());
    if thread.hangs() {
        return Err(late());
    }
    let granted = Arc::clone(spec);
    let check = move || Ok(policy.check_grants(&granted.grants));
    match tokio::time::timeout(OPENING_MAX, thread.call("open", "", check)).await {
        Ok(Ok(Ok(()))) => Ok(()),
        Ok(Ok(Err(refusal))) => Err(PrepareError::Refused(refusal.to_string())),
        Ok(Err(error)) => Err(PrepareError::NotYet(format!(
            "its granted directories can't be checked: {error}"
        ))),
        Err(_) => Err(late()),
    }
}
