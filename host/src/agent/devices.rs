//! The brokers whose topics are ends of routes: keeps a task for each ([`super::device_link`]), with a
//! session of its own, beside the control loop.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use haar_protocol::ids::Name;
use haar_protocol::relay::{NodeCredentials, RelayAccess, device_user, former_device_user};
use haar_protocol::status::RelayStatus;
use haar_relay::{DeviceOptions, FORMER_SILENCE, Former};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::Event;
use super::connection::Account;
use super::device_health::Health;
use super::device_link;
use crate::bus::Bus;
use crate::bus::topics::BrokerPlan;
use crate::store::Store;

/// How long the end of all sessions may take when the agent stops.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// What the tasks of all brokers need.
#[derive(Debug, Clone)]
pub(super) struct Means {
    pub(super) account: Account,
    pub(super) bus: Arc<Bus>,
    pub(super) store: Store,
    pub(super) events: mpsc::Sender<Event>,
}

/// The tasks that talk to devices.
#[derive(Debug)]
pub(super) struct Devices {
    means: Means,
    tasks: JoinSet<()>,
    brokers: HashMap<Name, Broker>,
    /// What statuses report of each broker that is needed, also of those that can't be used.
    healths: BTreeMap<Name, Arc<Health>>,
    /// Those that have a session forgotten.
    leaving: HashMap<Name, Broker>,
    stop: CancellationToken,
}

#[derive(Debug)]
struct Broker {
    access: RelayAccess,
    /// None when no route needs it any more: the broker is told to forget the session.
    plan: watch::Sender<Option<BrokerPlan>>,
    health: Arc<Health>,
    task: AbortHandle,
}

impl Devices {
    pub(super) fn new(means: Means) -> Self {
        Self {
            means,
            tasks: JoinSet::new(),
            brokers: HashMap::new(),
            healths: BTreeMap::new(),
            leaving: HashMap::new(),
            stop: CancellationToken::new(),
        }
    }

    /// Keeps a session with each broker of `plans`, and has the others forgotten.
    pub(super) fn follow(&mut self, plans: &BTreeMap<Name, BrokerPlan>, brokers: &[RelayAccess]) {
        while self.tasks.try_join_next().is_some() {} // those that have ended
        self.leaving.retain(|_, broker| !broker.task.is_finished());
        let gone = self
            .brokers
            .keys()
            .filter(|name| !plans.contains_key(*name));
        for name in gone.cloned().collect::<Vec<_>>() {
            if let Some(broker) = self.brokers.remove(&name) {
                broker.plan.send_replace(None);
                self.leaving.insert(name, broker);
            }
        }
        self.healths.retain(|name, _| plans.contains_key(name));
        for (name, plan) in plans {
            let Some(access) = brokers.iter().find(|access| &access.name == name) else {
                self.can_not_use(name, "the assignment does not say how to reach it");
                continue;
            };
            let known = self.brokers.remove(name);
            match known.or_else(|| self.leaving.remove(name)) {
                Some(broker) if &broker.access == access => {
                    broker.plan.send_replace(Some(plan.clone()));
                    let health = Arc::clone(&broker.health);
                    self.healths.insert(name.clone(), health);
                    self.brokers.insert(name.clone(), broker);
                    continue;
                }
                // Somebody else, or somewhere else: what the broker keeps for the session stays there.
                Some(broker) => broker.task.abort(),
                None => {}
            }
            match self.open(access, plan) {
                Ok(broker) => drop(self.brokers.insert(name.clone(), broker)),
                Err(error) => self.can_not_use(name, &format!("{error:#}")),
            }
        }
    }

    fn can_not_use(&mut self, name: &Name, why: &str) {
        tracing::error!(relay = %name, "its topics wait: {why}");
        self.health(name).set(false, Some(why));
    }

    /// The state of a session that begins.
    fn health(&mut self, name: &Name) -> Arc<Health> {
        let health = Health::new(name.clone(), self.means.events.clone());
        let health = Arc::new(health);
        self.healths.insert(name.clone(), Arc::clone(&health));
        health
    }

    /// What statuses report of the brokers.
    pub(super) fn statuses(&self) -> Vec<RelayStatus> {
        self.healths
            .values()
            .map(|health| health.status())
            .collect()
    }

    fn open(&mut self, access: &RelayAccess, plan: &BrokerPlan) -> anyhow::Result<Broker> {
        let options = self.means.options(access)?;
        let (plan, planned) = watch::channel(Some(plan.clone()));
        let health = self.health(&access.name);
        let work = device_link::run(
            access.clone(),
            options,
            planned,
            Arc::clone(&self.means.bus),
            self.means.store.clone(),
            device_link::Ends {
                health: Arc::clone(&health),
                stop: self.stop.clone(),
            },
        );
        Ok(Broker {
            access: access.clone(),
            plan,
            health,
            task: self.tasks.spawn(work),
        })
    }

    /// Ends all sessions; the brokers keep them. What is then not acknowledged comes again.
    pub(super) async fn close(&mut self) {
        self.stop.cancel();
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(CLOSE_TIMEOUT, ended).await.is_err() {
            tracing::debug!("a session with a broker was cut off");
        }
        self.tasks.shutdown().await;
    }
}

impl Means {
    fn options(&self, access: &RelayAccess) -> anyhow::Result<DeviceOptions> {
        anyhow::ensure!(
            access.credentials != NodeCredentials::Proof,
            "it is a relay of ours, without devices"
        );
        let account = &self.account;
        let former = former_device_user(&account.node);
        Ok(DeviceOptions {
            endpoint: account.endpoint(access)?,
            identity: account.identity(access, device_user(&account.node, &access.name))?,
            former: Some(Former {
                identity: account.identity(access, former)?,
                silence: FORMER_SILENCE,
            }),
            begins_clean: false,
        })
    }
}
