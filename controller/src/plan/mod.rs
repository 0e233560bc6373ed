//! Decides what runs where, and what each node is told. Pure: it sees the whole site as one value,
//! reads no clock and no database, and the same site always gives the same plan. `change` calls it
//! inside a transaction and acts on the result.
//!
//! ```text
//! manifest ─resolve─► modules, or problems
//! site ─place─► Placements (keeps what is in place, never over budget) + what found no place
//! site + Placements + node ─compile─► Assignment without number and date
//! ```

mod resolve;
mod place;
mod compile;
mod topics;
mod relays;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use haar_protocol::assignment::{MicroserviceName, Publisher};
use haar_protocol::ids::{Digest, MediaType, Name, NodeId, RouteId, SiteId};
use haar_protocol::keys::{LinkKey, PublicKey, SecretKey};
use haar_protocol::limits::Budget;
use haar_protocol::manifest::{self, Manifest, RouteEnd};

pub(crate) use compile::compile;
pub(crate) use place::{Placed, Unplaced, place};
pub(crate) use relays::{Relay, RelayPlace, attached_relays, relays_of};
pub(crate) use resolve::{notices, resolve, route_pairs_problem};
pub(crate) use topics::{relay_problems, topic_rights};

/// Which nodes each microservice runs on. A microservice without nodes has no entry.
pub(crate) type Placements = BTreeMap<MicroserviceName, BTreeSet<NodeId>>;

/// Everything that a plan depends on.
#[derive(Debug, Clone)]
pub(crate) struct Fleet {
    /// The site.
    pub(crate) site: SiteId,
    /// Its key, with which it seals what only one node may read.
    pub(crate) site_key: SecretKey,
    /// Its relays.
    pub(crate) relays: Vec<Relay>,
    /// Its nodes.
    pub(crate) nodes: BTreeMap<NodeId, Node>,
    /// Its trusted publishers, by name.
    pub(crate) publishers: Vec<Publisher>,
    /// The modules that its applications use.
    pub(crate) modules: BTreeMap<Digest, Module>,
    /// Its applications.
    pub(crate) applications: BTreeMap<Name, Application>,
    /// Where instances are now.
    pub(crate) placements: Placements,
    /// The lives of microservices, other than first ones.
    pub(crate) lives: BTreeMap<MicroserviceName, u64>,
    /// What each node is told to delete, as `APPLICATION/MICROSERVICE`.
    pub(crate) ended: BTreeMap<NodeId, Vec<String>>,
}

impl Fleet {
    /// The life of a microservice.
    pub(crate) fn life(&self, name: &MicroserviceName) -> u64 {
        self.lives.get(name).copied().unwrap_or(0)
    }

    /// The id of a route of an application.
    pub(crate) fn route_id(
        &self,
        application: &Name,
        route: &manifest::Route,
        content_type: &MediaType,
    ) -> RouteId {
        let life = |end: &RouteEnd| {
            end.port().map_or(0, |port| {
                self.life(&MicroserviceName {
                    application: application.clone(),
                    microservice: port.microservice.clone(),
                })
            })
        };
        let id = route.id(application, content_type);
        id.in_lives([life(&route.from), life(&route.to)])
    }
}

/// A node, as far as plans care.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    /// Its name.
    pub(crate) name: Name,
    /// Its labels.
    pub(crate) labels: BTreeMap<String, String>,
    /// What it has to give.
    pub(crate) budget: Budget,
    /// Its key.
    pub(crate) key: PublicKey,
    /// Its key for links.
    pub(crate) link_key: Option<LinkKey>,
    /// The least generation that this key must have.
    pub(crate) link_key_generation: u64,
}

/// A module, as far as plans care.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Module {
    /// Its digest.
    pub(crate) digest: Digest,
    /// Digests of files with the same code and other signatures.
    pub(crate) resigned: Vec<Digest>,
    /// Its signatures, when some of them are not in its file, as an assignment has them.
    pub(crate) later: Option<String>,
    /// Its name.
    pub(crate) name: Name,
    /// Its version.
    pub(crate) version: String,
    /// Its size.
    pub(crate) bytes: u64,
    /// Bytes that its memories have when it starts, when that is known.
    pub(crate) memory_bytes: Option<u64>,
    /// Who signed it.
    pub(crate) signers: Vec<PublicKey>,
    /// What it imports.
    pub(crate) imports: Vec<String>,
    /// What it exports.
    pub(crate) exports: Vec<String>,
}

impl Module {
    /// Its name and version, for people.
    pub(crate) fn label(&self) -> String {
        format!("{}@{}", self.name, self.version)
    }
}

/// An application, as far as plans care.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Application {
    /// Its manifest.
    pub(crate) manifest: Manifest,
    /// The module of each of its microservices.
    pub(crate) modules: BTreeMap<Name, Digest>,
}

/// One reason why an application can't be applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// For programs.
    pub(crate) code: &'static str,
    /// For people: what is wrong, and where.
    pub(crate) message: String,
    /// For people: what to do.
    pub(crate) hint: Option<String>,
}
