//! What is looked at before a microservice starts, or goes on after trust has changed: its module, and whether
//! the policy allows its grants; in an order in which neither keeps the other from what it has to say.

use std::future::Future;
use std::sync::Arc;

use haar_protocol::assignment::Microservice;
use tokio::task::JoinSet;

use super::Event;
use super::run::Agent;
use super::slot::Slot;
use crate::local_api::files::thread::FileThread;
use crate::modules::{PrepareError, Trust};
use crate::policy::Policy;
use crate::runtime::instance::OPENING_MAX;

/// What is looked at, in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// What is not allowed is not fetched.
    GrantsFirst,
    /// It runs, and its publisher may be trusted no more: a directory that does not answer must not keep it
    /// running.
    ModuleFirst,
    /// The same, and it has the directories already that it is to have.
    ModuleAlone,
}

impl Slot {
    /// What has to be looked at before it becomes `wanted`.
    pub(super) fn order(&self, wanted: &Microservice) -> Order {
        match self.unverified && self.running.is_some() {
            false => Order::GrantsFirst,
            true if self.must_restart(wanted) => Order::ModuleFirst,
            true => Order::ModuleAlone,
        }
    }
}

impl Agent {
    pub(super) fn prepare(&mut self, spec: Arc<Microservice>) {
        let Some(assignment) = self.node.assignment() else {
            return; // nothing is wanted without one
        };
        let Some((thread, order)) = self.node.order(&spec) else {
            return;
        };
        let trust = Trust::of(assignment, &spec.module);
        let policy = Arc::clone(&self.options.policy);
        let (modules, runtime) = (Arc::clone(&self.modules), Arc::clone(&self.runtime));
        let (events, permits) = (self.events.clone(), Arc::clone(&self.preparing));
        let (granted, wanted) = (Arc::clone(&spec), Arc::clone(&spec));
        let grants = async move { check_grants(&granted, policy, &thread).await };
        let module = async move {
            let _permit = permits.acquire().await;
            let prepare = move || modules.prepare(&wanted, trust, &runtime);
            let prepared = tokio::task::spawn_blocking(prepare).await;
            prepared.unwrap_or_else(|panic| {
                Err(PrepareError::Refused(format!(
                    "loading the module failed badly: {panic}"
                )))
            })
        };
        self.work.spawn(async move {
            let outcome = guarded(in_order(order, grants, module)).await;
            // The control loop has ended: nobody is interested.
            let _ = events.send(Event::Prepared(spec, outcome)).await;
        });
    }
}

async fn in_order<T>(
    order: Order,
    grants: impl Future<Output = Result<(), PrepareError>>,
    module: impl Future<Output = Result<T, PrepareError>>,
) -> Result<T, PrepareError> {
    if order == Order::GrantsFirst {
        grants.await?;
        return module.await;
    }
    let module = module.await?;
    if order == Order::ModuleFirst {
        grants.await?;
    }
    Ok(module)
}

/// Answers also when looking panics, as where no thread can be created: the microservice would wait for ever.
async fn guarded<T: Send + 'static>(
    look: impl Future<Output = Result<T, PrepareError>> + Send + 'static,
) -> Result<T, PrepareError> {
    let mut tasks = JoinSet::new();
    tasks.spawn(look);
    match tasks.join_next().await {
        Some(Ok(outcome)) => outcome,
        Some(Err(panic)) => Err(PrepareError::NotYet(format!(
            "looking at it failed badly: {panic}"
        ))),
        None => unreachable!("it has one task"),
    }
}

/// Whether the policy allows what the microservice is granted. Apart from the preparation of others: nobody
/// waits for a file server of which only this one has files.
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

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use futures_util::FutureExt as _;
    use haar_protocol::ids::Digest;
    use tokio::sync::watch;

    use super::super::slot::Running;
    use super::*;
    use crate::local_api::logging::Logger;
    use crate::logs::Logs;
    use crate::runtime::guest::Counters;
    use crate::runtime::instance::Orders;

    fn microservice(module: &[u8]) -> Arc<Microservice> {
        let json = serde_json::json!({
            "application": "app",
            "microservice": "it",
            "module": Digest::of(module),
            "module_bytes": 1,
            "module_label": "it@1",
            "limits": {},
            "grants": {},
            "configuration": {},
            "outlets": {},
            "inlets": {},
        });
        Arc::new(serde_json::from_value(json).unwrap())
    }

    fn refused() -> Result<u8, PrepareError> {
        Err(PrepareError::Refused("nobody is trusted".to_owned()))
    }

    #[test]
    fn what_runs_and_is_trusted_no_more_waits_for_no_directory() {
        for order in [Order::ModuleFirst, Order::ModuleAlone] {
            let looked = in_order(order, pending(), ready(refused())).now_or_never();
            assert!(matches!(looked, Some(Err(PrepareError::Refused(_)))));
        }
        let looked = in_order(Order::ModuleAlone, pending(), ready(Ok(7))).now_or_never();
        assert!(matches!(looked, Some(Ok(7))));
        let looked = in_order(Order::ModuleFirst, pending(), ready(Ok(7))).now_or_never();
        assert!(looked.is_none());
    }

    #[test]
    fn what_is_not_allowed_is_not_fetched() {
        let forbidden = ready(Err(PrepareError::Refused("the policy".to_owned())));
        let fetched = async { unreachable!("it is not fetched") };
        let looked = in_order::<u8>(Order::GrantsFirst, forbidden, fetched).now_or_never();
        assert!(matches!(looked, Some(Err(PrepareError::Refused(_)))));
    }

    #[tokio::test]
    async fn a_look_that_panics_is_tried_again() {
        let looked = guarded::<u8>(async { panic!("no thread") }).await;
        assert!(
            matches!(looked, Err(PrepareError::NotYet(reason)) if reason.contains("no thread"))
        );
    }

    #[tokio::test]
    async fn an_instance_is_told_that_it_must_be_looked_at_before_it_begins_again() {
        let (spec, counters) = (microservice(b"it"), Arc::<Counters>::default());
        let logger = Logger::new(&spec, Arc::<Logs>::default(), Arc::clone(&counters));
        let mut slot = Slot::new(logger, counters, 0);
        slot.distrust();
        assert_eq!(slot.order(&spec), Order::GrantsFirst, "nothing runs");
        slot.trust();
        let (orders, given) = watch::channel(Orders::of(&spec));
        let mut tasks = JoinSet::new();
        slot.running = Some(Running {
            spec: Arc::clone(&spec),
            run: 1,
            orders,
            abort: tasks.spawn(pending::<()>()),
            started: None,
        });
        assert_eq!(slot.order(&spec), Order::GrantsFirst);
        slot.distrust();
        assert!(given.borrow().unverified);
        assert_eq!(slot.order(&spec), Order::ModuleAlone);
        assert_eq!(slot.order(&microservice(b"other")), Order::ModuleFirst);
        slot.trust();
        assert!(!given.borrow().unverified);
    }
}
