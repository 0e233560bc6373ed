//! The brokers whose topics are ends of routes: keeps a task for each ([`super::device_link`]), with a
//! session of its own, beside the control loop.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use haar_protocol::ids::{Name, NodeId};
use haar_protocol::keys::{PublicKey, SecretKey};
use haar_protocol::relay::{
    NodeCredentials, PASSWORD_PURPOSE, RelayAccess, device_user, former_device_user,
};
use haar_relay::{Credentials, DeviceOptions, Endpoint, Identity};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::device_link;
use crate::bus::Bus;
use crate::bus::topics::BrokerPlan;
use crate::store::Store;

/// How long the end of all sessions may take when the agent stops.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// What the tasks of all brokers need.
#[derive(Debug, Clone)]
pub(super) struct Means {
    pub(super) node: NodeId,
    pub(super) key: SecretKey,
    pub(super) site_key: PublicKey,
    /// Whom to trust where a relay says nothing else.
    pub(super) ca_pem: String,
    pub(super) bus: Arc<Bus>,
    pub(super) store: Store,
}

/// The tasks that talk to devices.
#[derive(Debug)]
pub(super) struct Devices {
    means: Means,
    tasks: JoinSet<()>,
    brokers: HashMap<Name, Broker>,
    /// Tasks that have a session forgotten.
    leaving: HashMap<Name, AbortHandle>,
    stop: CancellationToken,
}

#[derive(Debug)]
struct Broker {
    access: RelayAccess,
    plan: watch::Sender<BrokerPlan>,
    forget: CancellationToken,
    task: AbortHandle,
}

impl Devices {
    pub(super) fn new(means: Means) -> Self {
        Self {
            means,
            tasks: JoinSet::new(),
            brokers: HashMap::new(),
            leaving: HashMap::new(),
            stop: CancellationToken::new(),
        }
    }

    /// Keeps a session with each broker of `plans`, and has the others forgotten.
    pub(super) fn follow(&mut self, plans: &BTreeMap<Name, BrokerPlan>, brokers: &[RelayAccess]) {
        while self.tasks.try_join_next().is_some() {} // those that have ended
        self.leaving.retain(|_, task| !task.is_finished());
        let gone = self
            .brokers
            .keys()
            .filter(|name| !plans.contains_key(*name));
        for name in gone.cloned().collect::<Vec<_>>() {
            if let Some(broker) = self.brokers.remove(&name) {
                broker.forget.cancel();
                self.leaving.insert(name, broker.task);
            }
        }
        for (name, plan) in plans {
            let Some(access) = brokers.iter().find(|access| &access.name == name) else {
                tracing::warn!(relay = %name, "its topics wait: the assignment does not say how to reach it");
                continue;
            };
            let known = self.brokers.get(name);
            if let Some(broker) = known.filter(|broker| &broker.access == access) {
                broker.plan.send_replace(plan.clone());
                continue;
            }
            // Somebody else, or somewhere else: what the broker keeps for the session stays there.
            let others = self.brokers.remove(name).map(|broker| broker.task);
            for task in others.into_iter().chain(self.leaving.remove(name)) {
                task.abort();
            }
            match self.open(access, plan) {
                Ok(broker) => drop(self.brokers.insert(name.clone(), broker)),
                Err(error) => tracing::error!(relay = %name, "its topics wait: {error:#}"),
            }
        }
    }

    fn open(&mut self, access: &RelayAccess, plan: &BrokerPlan) -> anyhow::Result<Broker> {
        let options = self.means.options(access)?;
        let (plan, planned) = watch::channel(plan.clone());
        let forget = CancellationToken::new();
        let work = device_link::run(
            access.clone(),
            options,
            planned,
            Arc::clone(&self.means.bus),
            self.means.store.clone(),
            device_link::Ends {
                forget: forget.clone(),
                stop: self.stop.clone(),
            },
        );
        Ok(Broker {
            access: access.clone(),
            plan,
            forget,
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
        let url = access.url.as_ref().context("it has no address")?;
        let ca_pem = access.ca_pem.as_deref().unwrap_or(&self.ca_pem);
        let shared = self.key.shared_with(&self.site_key);
        let credentials = |user: &str| match &access.credentials {
            NodeCredentials::Generated => Ok(Credentials::Password {
                user: user.to_owned(),
                password: shared.relay_password(&access.name),
            }),
            NodeCredentials::Given { user, password } => Ok(Credentials::Password {
                user: user.clone(),
                password: shared.open(PASSWORD_PURPOSE, password)?,
            }),
            NodeCredentials::Anonymous => Ok(Credentials::Anonymous),
            NodeCredentials::Proof => anyhow::bail!("it is a relay of ours, without devices"),
        };
        let identity = |client_id: String| {
            anyhow::Ok(Identity {
                credentials: credentials(&client_id)?,
                client_id,
            })
        };
        Ok(DeviceOptions {
            endpoint: Endpoint::new(url, Some(ca_pem))?,
            identity: identity(device_user(&self.node, &access.name))?,
            former: Some(identity(former_device_user(&self.node))?),
        })
    }
}
