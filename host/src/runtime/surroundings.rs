//! What all instances of a node share: the way out, the store, what the node is.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use haar_protocol::assignment::MicroserviceName;

use crate::bus::Bus;
use crate::config::Location;
use crate::local_api::system::Measurements;
use crate::policy::Policy;
use crate::store::Store;

/// One for the agent.
#[derive(Debug)]
pub struct Surroundings {
    /// The way out of every microservice.
    pub bus: Arc<Bus>,
    /// Key-value data, histories, timers, dead letters.
    pub store: Store,
    /// Below it every microservice with the grant has a directory of its own.
    pub private_directories: PathBuf,
    /// What the node measures of itself.
    pub measurements: Arc<Measurements>,
    /// What the owner of the device allows.
    pub policy: Arc<Policy>,
    /// How often an instance looks whether its granted directories have changed.
    pub look_pause: Duration,
    /// What the node is. Changes with the assignment.
    pub facts: ArcSwap<Facts>,
}

/// What a microservice may know of its node.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Facts {
    /// Id of the node.
    pub id: String,
    /// Its name in the site.
    pub name: String,
    /// Id of the site.
    pub site: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Where it stands.
    pub location: Option<Location>,
}

impl Surroundings {
    /// The directory of a microservice's own. Names of applications and microservices hold no
    /// separators and no dots.
    pub fn private_directory(&self, name: &MicroserviceName) -> PathBuf {
        self.private_directories
            .join(name.application.as_str())
            .join(name.microservice.as_str())
    }
}
