//! Bodies of the controller's REST API, `/api/v1`. JSON in both directions; unknown fields of
//! answers are ignored, so that releases can be mixed.
//!
//! ```text
//! GET    /api/v1/site                         SiteInfo            open to everybody
//! GET    /api/v1/site/ca                      the CA in PEM       open to everybody
//! GET    /api/v1/openapi.json                 OpenAPI document    open to everybody
//! GET    /api/v1/schemas/application.json     JSON Schema of the manifest, open to everybody
//! GET    /api/v1/schemas/relay.json           JSON Schema of a relay's manifest, open to everybody
//! POST   /api/v1/enrolments                   EnrolmentRequest -> Enrolment      (the token in it authorises)
//! POST   /api/v1/tokens                       TokenRequest -> Token
//! GET    /api/v1/nodes                        List<Node>
//! GET    /api/v1/nodes/{name}                 NodeDetail
//! DELETE /api/v1/nodes/{name}                 revokes the node's key
//! POST   /api/v1/nodes/{name}/link-key/rotate LinkKeyRotation: the node makes another key for its links
//! GET    /api/v1/nodes/{name}/dead-letters?application=&microservice=&after=&limit=   DeadLetterPage, asked of the node
//! GET    /api/v1/nodes/{name}/dead-letters/{id}     WholeDeadLetter
//! POST   /api/v1/nodes/{name}/dead-letters/replay   DeadLetterSelection -> Replayed
//! POST   /api/v1/nodes/{name}/dead-letters/drop     DeadLetterSelection -> Dropped
//! GET    /api/v1/publishers                   List<TrustedPublisher>
//! PUT    /api/v1/publishers/{name}            PublisherRequest -> TrustedPublisher
//! DELETE /api/v1/publishers/{name}
//! GET    /api/v1/relays                       List<RelayInfo>
//! GET    /api/v1/relays/{name}                RelayInfo
//! PUT    /api/v1/relays/{name}?dry_run=       the manifest in YAML -> RelayApplied
//! DELETE /api/v1/relays/{name}
//! GET    /api/v1/relays/{name}/credentials?certificate=   RelayCredentials
//! GET    /api/v1/modules                      List<Module>
//! GET    /api/v1/modules/{digest}             Module
//! DELETE /api/v1/modules/{digest}
//! GET    /api/v1/modules/{digest}/content     the file; Range is honoured; people and nodes (proof)
//! PUT    /api/v1/modules/{digest}/content     the file, or the rest of it with Content-Range -> Module (201) or UploadState (202)
//! GET    /api/v1/modules/{digest}/code        List<ModuleCode>
//! GET    /api/v1/modules/{digest}/code/{target}?engine=   compiled code, sealed and packed; people and nodes (proof)
//! GET    /api/v1/modules/{digest}/upload      UploadState: how much of an upload has arrived
//! GET    /api/v1/applications                 List<Application>
//! GET    /api/v1/applications/{name}          ApplicationDetail
//! PUT    /api/v1/applications/{name}?dry_run= the manifest in YAML -> ApplyResult
//! DELETE /api/v1/applications/{name}
//! GET    /api/v1/microservices?application=   List<Microservice>: one entry for every instance, desired and reported
//! GET    /api/v1/routes?application=          List<Route>
//! GET    /api/v1/logs?application=&microservice=&node=&tail=&follow=   List<LogEntry>, or server-sent events with follow=true
//! GET    /api/v1/events?tail=&follow=         List<Event>, or server-sent events with follow=true
//! ```
//! People authenticate with `Authorization: Bearer TOKEN`, nodes with
//! `Authorization: Haar-Proof PROOF` ([`crate::proof`], audience `controller`). Bodies about dead
//! letters stand in [`crate::dead_letters`], those about relays in [`crate::relay`]; a node that is offline is answered with 409
//! `node_offline`, one that does not answer with 504 `node_did_not_answer`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::assignment::MicroserviceName;
use crate::ids::{Digest, MediaType, Name, NodeId, RouteId, SiteId};
use crate::keys::PublicKey;
use crate::limits::Budget;
use crate::log::LogLine;
use crate::manifest::{Delivery, Manifest};
use crate::status::{
    BacklogStatus, EngineStatus, FlashStatus, MicroserviceStatus, RefusedAssignment, RelayStatus,
    RouteStatus, ServedStatus, State,
};

/// The body of every answer that is not a success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ErrorBody {
    /// For programs: stable, in snake case, such as `unknown_module`.
    pub code: String,
    /// For people: what failed, and which one.
    pub message: String,
    /// For people: what to do next.
    pub hint: Option<String>,
}

/// All entries of a collection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct List<T> {
    /// The entries, sorted by name or time.
    pub items: Vec<T>,
}

/// What anybody may know about a site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SiteInfo {
    /// Its id.
    pub id: SiteId,
    /// Its name.
    pub name: Name,
    /// Its public key.
    pub key: PublicKey,
    /// Version of the controller.
    pub version: String,
    /// SHA-256 of its CA certificate (DER) in hexadecimal digits.
    pub ca_sha256: String,
    /// The controller's clock: milliseconds since the Unix epoch.
    pub time_ms: u64,
}

/// A device asks to join.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct EnrolmentRequest {
    /// The secret of the enrolment token.
    pub secret: String,
    /// The device's own public key.
    pub key: PublicKey,
    /// A controller proof ([`crate::proof`]) with the node's id as subject: the device owns the key.
    pub proof: String,
    /// The name that it would like; the token's name wins. Must be free in the site.
    pub name: Option<Name>,
    /// Labels that it brings; those of the token win.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// What it has to give.
    pub budget: Budget,
    /// Version of its agent.
    pub agent_version: String,
    /// The target that its agent was built for.
    pub target: String,
}

/// A device has joined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Enrolment {
    /// The site that it belongs to now.
    pub site: SiteId,
    /// The site's key: the device pins it.
    pub site_key: PublicKey,
    /// The device's id, derived from its key.
    pub node: NodeId,
    /// Its name in the site.
    pub name: Name,
    /// URLs of the site's relays, best first, such as `mqtts://192.0.2.7:7421`.
    pub relays: Vec<String>,
    /// The site's CA certificate in PEM.
    pub ca_pem: String,
}

/// Asks for an enrolment token.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TokenRequest {
    /// Name of the node that will use it; the device chooses when left out.
    #[serde(default)]
    pub name: Option<Name>,
    /// Labels that the node gets.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// How long it may be used, in seconds; an hour when left out.
    #[serde(default)]
    pub expires_in_s: Option<u64>,
}

/// A new enrolment token. It is shown once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Token {
    /// The text for `haar-agent enrol`.
    pub token: String,
    /// When it stops working: milliseconds since the Unix epoch.
    pub expires_ms: u64,
}

/// A node as lists show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Node {
    /// Its name in the site.
    pub name: Name,
    /// Its id.
    pub id: NodeId,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Whether it is connected now, as the relay knows.
    pub online: bool,
    /// When something was last heard of it: milliseconds since the Unix epoch.
    pub last_seen_ms: Option<u64>,
    /// Number of the newest assignment made for it; 0 when there is none.
    pub assignment: u64,
    /// Number of the assignment that it has applied.
    pub applied: u64,
    /// An assignment that it refused, and why.
    pub refused: Option<RefusedAssignment>,
    /// Version of its agent.
    pub agent_version: String,
    /// The target that its agent was built for.
    pub target: String,
    /// What it has to give.
    pub budget: Budget,
    /// Resident memory of its agent in bytes, as last reported.
    pub resident_bytes: Option<u64>,
    /// What its agent has written to its flash, as last reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flash: Option<FlashStatus>,
    /// How far its clock is ahead of the controller's in milliseconds, as last reported.
    pub clock_skew_ms: Option<i64>,
}

/// Everything about a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct NodeDetail {
    /// As lists show it.
    #[serde(flatten)]
    pub node: Node,
    /// When it joined: milliseconds since the Unix epoch.
    pub enrolled_ms: u64,
    /// The engine that runs modules there, when it has told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<EngineStatus>,
    /// Sequence of its last status.
    pub status_sequence: Option<u64>,
    /// Statuses that never arrived.
    pub statuses_missed: u64,
    /// What it reported to run.
    pub microservices: Vec<MicroserviceStatus>,
    /// Its counters per route.
    pub routes: Vec<RouteStatus>,
    /// What waits in the logs of its outlets.
    #[serde(default)]
    pub backlogs: Vec<BacklogStatus>,
    /// Frames from other nodes that it refused: not sealed by them, repeated, or of no route from
    /// them.
    #[serde(default)]
    pub frames_refused: u64,
    /// The relays that it attaches to, the most preferred first; none for the controller's alone.
    #[serde(default)]
    pub relays: Vec<RelayStatus>,
    /// The relays that it runs for its neighbours.
    #[serde(default)]
    pub serves: Vec<ServedStatus>,
}

/// A node makes another key for its links as soon as it gets its assignment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LinkKeyRotation {
    /// The node.
    pub node: Name,
    /// The generation of the new key.
    pub generation: u64,
}

/// A key whose modules the site runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TrustedPublisher {
    /// Its name in the site.
    pub name: Name,
    /// Its key.
    pub key: PublicKey,
    /// Since when: milliseconds since the Unix epoch.
    pub added_ms: u64,
}

/// Trusts a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PublisherRequest {
    /// The key.
    pub key: PublicKey,
}

/// A pushed module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Module {
    /// Its digest.
    pub digest: Digest,
    /// Its name, from its metadata.
    pub name: Name,
    /// Its version, from its metadata.
    pub version: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// Names of the trusted publishers that signed it.
    pub publishers: Vec<Name>,
    /// Interfaces that it imports, with versions.
    pub imports: Vec<String>,
    /// Interfaces that it exports, with versions.
    pub exports: Vec<String>,
    /// When it was pushed: milliseconds since the Unix epoch.
    pub pushed_ms: u64,
}

/// What the controller has compiled of a module for one kind of node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ModuleCode {
    /// The fingerprint of the engine that the code is for.
    pub engine: String,
    /// The target that it is for, such as `aarch64-linux`.
    pub target: String,
    /// Its size in bytes as nodes fetch it, when there is code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packed_bytes: Option<u64>,
    /// Why there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// How much of an upload has arrived.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct UploadState {
    /// Bytes that are there; the next part begins here.
    pub offset: u64,
    /// True when the module is whole and was accepted.
    pub complete: bool,
}

/// An application as lists show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Application {
    /// Its name.
    pub name: Name,
    /// Counts the times that it was applied with a change.
    pub revision: u64,
    /// When it was last applied: milliseconds since the Unix epoch.
    pub applied_ms: u64,
    /// How many instances it should have.
    pub instances: u32,
    /// How many instances run, as last reported.
    pub running: u32,
}

/// Everything about an application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ApplicationDetail {
    /// As lists show it.
    #[serde(flatten)]
    pub application: Application,
    /// Its manifest, with defaults filled in.
    pub manifest: Manifest,
    /// Its instances.
    pub microservices: Vec<Microservice>,
    /// Its routes.
    pub routes: Vec<Route>,
}

/// What an apply did, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ApplyResult {
    /// The application.
    pub name: Name,
    /// Its revision now; on a dry run the one that it would have.
    pub revision: u64,
    /// False when the manifest is what was applied before and nothing moved.
    pub changed: bool,
    /// True when nothing was done.
    pub dry_run: bool,
    /// Where each instance runs.
    pub placements: Vec<Placement>,
    /// Things that work but may not be meant, for people.
    pub warnings: Vec<String>,
    /// New assignment numbers by node; empty on a dry run.
    pub assignments: BTreeMap<Name, u64>,
}

/// An instance and its node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Placement {
    /// The microservice.
    pub microservice: Name,
    /// The node.
    pub node: Name,
}

/// One instance: what should be, and what its node last said of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Microservice {
    /// What it is called.
    #[serde(flatten)]
    pub name: MicroserviceName,
    /// Its node.
    pub node: Name,
    /// Whether the node is connected.
    pub node_online: bool,
    /// The module that it should run.
    pub module: Digest,
    /// The module's name and version.
    pub module_label: String,
    /// False when the site no longer wants it and the node still reports it.
    pub wanted: bool,
    /// What the node last said; none when it has said nothing of it yet.
    pub status: Option<MicroserviceStatus>,
}

impl Microservice {
    /// The state to show: as reported, or `preparing` before the node's first word.
    pub fn state(&self) -> State {
        self.status
            .as_ref()
            .map_or(State::Preparing, |status| status.state)
    }
}

/// A route of an application with the sums of its counters over all nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Route {
    /// Its id.
    pub id: RouteId,
    /// The application.
    pub application: Name,
    /// `MICROSERVICE.OUTLET`, or `mqtt:FILTER`.
    pub from: String,
    /// `MICROSERVICE.INLET`, or `mqtt:TOPIC`.
    pub to: String,
    /// The relay that has the topic, when one end is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay: Option<Name>,
    /// The only type that passes.
    pub content_type: MediaType,
    /// How messages are kept.
    pub delivery: Delivery,
    /// Nodes with an instance of the source.
    pub from_nodes: Vec<Name>,
    /// Nodes with an instance of the target.
    pub to_nodes: Vec<Name>,
    /// Messages that entered, each counted once for every receiver.
    pub sent: u64,
    /// Messages that reached an inbox.
    pub delivered: u64,
    /// Messages that a handler acknowledged.
    pub handled: u64,
    /// Messages that were dropped.
    pub dropped: u64,
}

/// A log line with its node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LogEntry {
    /// The node's name.
    pub node: Name,
    /// The line.
    #[serde(flatten)]
    pub line: LogLine,
}

/// Something that happened in the site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Event {
    /// Counts the site's events.
    pub id: u64,
    /// When: milliseconds since the Unix epoch by the controller's clock.
    pub time_ms: u64,
    /// For programs: stable, in snake case, such as `node_enrolled`, `application_applied`.
    pub kind: String,
    /// What it is about, such as a node's or an application's name.
    pub subject: String,
    /// For people.
    pub message: String,
}
