//! The manifest of an application: what runs where, with which limits and grants, and who may
//! talk to whom; and that of a relay. Written by people in YAML; read here into types, and checked
//! as a whole.

mod parse;
mod tree;
mod decode;
mod values;
mod ports;
mod configuration;
mod check;
mod ends;
mod routes;
mod relay;
mod suggest;
mod errors;
#[cfg(feature = "schema")]
mod schema;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::demand::Demand;
use crate::grants::Grants;
use crate::ids::Name;
use crate::limits::{Backlog, Limits, RestartPolicy, RetryPolicy};
use crate::log::Level;
use crate::mqtt::Retained;
use crate::quantity::ByteSize;

pub use check::{
    CONFIGURATION_BYTES_MAX, CONFIGURATION_CHOICES_MAX, CONFIGURATION_KEY_BYTES_MAX,
    CONFIGURATION_KEYS_MAX, CONFIGURATION_VALUE_BYTES_MAX, DIRECTORIES_MAX, LABELS_MAX,
    MICROSERVICES_MAX, PORTS_MAX, ROUTES_MAX,
};
pub use configuration::{ConfigurationKey, ConfigurationType, Number};
pub use ends::RouteEnd;
pub use errors::{ManifestError, ManifestErrors};
pub use parse::{Document, MANIFEST_BYTES_MAX, parse, parse_document};
pub use ports::Port;
pub use relay::{
    CREDENTIAL_BYTES_MAX, ClientCertificate, Credentials, EMBEDDED_PREFERENCE, Relay, RelayKind,
};
pub use routes::warnings;
#[cfg(feature = "schema")]
pub use schema::{json_schema, relay_json_schema};
pub use suggest::{meant, nearest};

/// One application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(deny_unknown_fields))]
pub struct Manifest {
    /// Version of the manifest's format: `haar/v1`.
    pub api_version: ApiVersion,
    /// What the document describes: `Application`.
    pub kind: Kind,
    /// Name of the application in its site.
    pub name: Name,
    /// Its microservices.
    pub microservices: Vec<Microservice>,
    /// Its routes.
    #[serde(default)]
    pub routes: Vec<Route>,
}

impl Manifest {
    /// What one instance of a microservice sets aside of its node, with the logs of its outlets. What
    /// waits at its inlets depends on where the others run: see [`Demand::of_arrivals`].
    pub fn demand(&self, microservice: &Microservice) -> Demand {
        let logs = microservice.outlets.keys().map(|outlet| {
            let routes = self.routes.iter().filter(|route| {
                let is_its = |from: &crate::ids::PortName| {
                    from.microservice == microservice.name && from.port == *outlet
                };
                route.delivery == Delivery::Durable && route.from.port().is_some_and(is_its)
            });
            Demand::of_outlet_log(routes.map(Route::backlog_size))
        });
        // What comes of devices has a log for each route.
        let of_devices = self.routes.iter().filter(|route| {
            let to = route.to.port();
            route.delivery == Delivery::Durable
                && route.from.port().is_none()
                && to.is_some_and(|to| to.microservice == microservice.name)
        });
        let topics =
            of_devices.map(|route| Demand::of_outlet_log(std::iter::once(route.backlog_size())));
        logs.chain(topics).fold(microservice.demand(), Demand::plus)
    }
}

/// The versions of the format that this release reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum ApiVersion {
    /// The first.
    #[serde(rename = "haar/v1")]
    V1,
}

/// The kinds of documents that this release reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Kind {
    /// Microservices and routes deployed together.
    Application,
}

/// One microservice of the application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(deny_unknown_fields))]
pub struct Microservice {
    /// Its name in the application.
    pub name: Name,
    /// The module: `NAME@VERSION`, or `sha256:…` for one exact file.
    pub module: ModuleReference,
    /// Where it runs.
    pub place: Place,
    /// What it may use at most.
    #[serde(default)]
    pub limits: Limits,
    /// What it may reach.
    #[serde(default)]
    pub grants: Grants,
    /// Values behind `wasi:config`, as texts; numbers, `true` and `false` may stand without
    /// quotes and mean their text. Changing them does not restart the instance.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(schema_with = "schema::configuration"))]
    pub configuration: BTreeMap<String, String>,
    /// What the configuration may say; anything when left out. Without a value a key has its
    /// default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(
        feature = "schema",
        schemars(with = "BTreeMap<String, ConfigurationKey>")
    )]
    pub configuration_schema: Option<BTreeMap<String, ConfigurationKey>>,
    /// Log lines below this level are not taken. Changing it does not restart the instance.
    #[serde(default)]
    pub log_level: Level,
    /// What happens after a failure.
    #[serde(default)]
    pub restart: RestartPolicy,
    /// What happens to a message that was not handled.
    #[serde(default)]
    pub retry: RetryPolicy,
    /// Named ways out, each with its media type.
    #[serde(default)]
    pub outlets: BTreeMap<Name, Port>,
    /// Named ways in, each with its media type.
    #[serde(default)]
    pub inlets: BTreeMap<Name, Port>,
}

impl Microservice {
    /// What one instance sets aside of its node, beside the logs of its routes.
    pub fn demand(&self) -> Demand {
        let ports = self.inlets.values().chain(self.outlets.values());
        let histories = ports.filter_map(|port| port.history.as_ref());
        Demand::of(&self.limits, &self.grants, histories)
    }
}

/// Longest version of a module, in bytes.
const VERSION_BYTES_MAX: usize = 128;

/// Names a module for a person: by name and version, or by digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(with = "String", extend("pattern" = r"^(sha256:[0-9a-f]{64}|[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?@[A-Za-z0-9.+_-]{1,128})$")))]
#[serde(try_from = "String", into = "String")]
pub enum ModuleReference {
    /// The newest pushed module with this name and version.
    Version {
        /// Name in the module's metadata.
        name: Name,
        /// Version in the module's metadata.
        version: String,
    },
    /// One exact file.
    Digest(crate::ids::Digest),
}

/// Where instances of a microservice run: on one named node, or on nodes with all the given
/// labels (every one of them, or `count` of them). `labels: {}` means every node of the site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(deny_unknown_fields))]
#[cfg_attr(feature = "schema", schemars(extend("oneOf" = [{"required": ["node"]}, {"required": ["labels"]}])))]
pub struct Place {
    /// Name of the one node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Name"))]
    pub node: Option<Name>,
    /// Labels that a node must have, all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "BTreeMap<String, String>"))]
    pub labels: Option<BTreeMap<String, String>>,
    /// On how many of the matching nodes; on all of them when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "u32"))]
    pub count: Option<u32>,
}

/// A route of the application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(deny_unknown_fields))]
pub struct Route {
    /// The outlet: `MICROSERVICE.OUTLET`. Or the topics of devices: `mqtt:FILTER`, with wildcards,
    /// and `mqtt:$share/GROUP/FILTER` to divide them among instances.
    pub from: RouteEnd,
    /// The inlet: `MICROSERVICE.INLET`. Or a topic of devices: `mqtt:TOPIC`.
    pub to: RouteEnd,
    /// The relay whose topic one end is: an external broker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Name"))]
    pub relay: Option<Name>,
    /// Whether the broker keeps the last message to the topic for later subscribers.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub retain: bool,
    /// What becomes of messages that the broker retains. At `from`: `each-connection` (usual) brings
    /// them with each connection of the node unless it has the same already, `first` with a new
    /// session only, `none` never. At `to`, with `retain`: `clear-on-delete` has the broker forget
    /// its own when the route is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Retained"))]
    pub retained: Option<Retained>,
    /// What the broker publishes at `to` when the node is gone: its connection is lost, its agent
    /// has ended, or the route is deleted. One route of a node at a relay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub will: Option<String>,
    /// How messages are kept on their way.
    #[serde(default)]
    pub delivery: Delivery,
    /// What a durable route does with messages that can't be delivered yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Backlog"))]
    pub backlog: Option<Backlog>,
}

impl Route {
    /// Bytes that may wait in the log of its outlet, if it is durable.
    fn backlog_size(&self) -> ByteSize {
        let backlog = self.backlog.as_ref();
        backlog.map_or_else(|| Backlog::default().size, |backlog| backlog.size)
    }
}

/// How a route treats its messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Delivery {
    /// Stored before `publish` returns, delivered in order, at least once.
    #[default]
    Durable,
    /// Never stored: bounded queues, drops counted.
    Live,
}

impl std::fmt::Display for ModuleReference {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ModuleReference::Version { name, version } => write!(formatter, "{name}@{version}"),
            ModuleReference::Digest(digest) => write!(formatter, "{digest}"),
        }
    }
}

impl std::str::FromStr for ModuleReference {
    type Err = crate::ids::InvalidId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.starts_with("sha256:") {
            return text.parse().map(ModuleReference::Digest);
        }
        let is_version = |version: &str| {
            (1..=VERSION_BYTES_MAX).contains(&version.len())
                && version
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b".+_-".contains(&byte))
        };
        match text.split_once('@') {
            Some((name, version)) if is_version(version) => Ok(ModuleReference::Version {
                name: name.parse()?,
                version: version.to_owned(),
            }),
            _ => Err(crate::ids::InvalidId(format!(
                "`{text}` does not name a module: write `NAME@VERSION`, such as `sampler@1.4.2`, or `sha256:…`"
            ))),
        }
    }
}

impl TryFrom<String> for ModuleReference {
    type Error = crate::ids::InvalidId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ModuleReference> for String {
    fn from(reference: ModuleReference) -> String {
        reference.to_string()
    }
}
