//! Bodies of the controller's REST API, `/api/v1`. JSON in both directions; unknown fields of
//! answers are ignored, so that releases can be mixed.
//!
//! ```text
//! GET    /api/v1/site                         SiteInfo            open to everybody
//! GET    /api/v1/health                       SiteHealth: how the site does as a whole
//! GET    /api/v1/site/ca                      the CA in PEM       open to everybody
//! GET    /api/v1/openapi.json                 OpenAPI document    open to everybody
//! GET    /api/v1/schemas/application.json     JSON Schema of the manifest, open to everybody
//! GET    /api/v1/schemas/relay.json           JSON Schema of a relay's manifest, open to everybody
//! POST   /api/v1/enrolments                   EnrolmentRequest -> Enrolment      (the token in it authorises)
//! POST   /api/v1/tokens                       TokenRequest -> Token
//! GET    /api/v1/nodes                        List<Node>
//! GET    /api/v1/nodes/{name}                 NodeDetail
//! DELETE /api/v1/nodes/{name}?dry_run=&careful=    revokes the node's key
//! POST   /api/v1/nodes/{name}/link-key/rotate LinkKeyRotation: the node makes another key for its links
//! GET    /api/v1/nodes/{name}/dead-letters?application=&microservice=&after=&limit=   DeadLetterPage, asked of the node
//! GET    /api/v1/nodes/{name}/dead-letters/{id}     WholeDeadLetter
//! POST   /api/v1/nodes/{name}/dead-letters/replay   DeadLetterSelection -> Replayed
//! POST   /api/v1/nodes/{name}/dead-letters/drop     DeadLetterSelection -> Dropped
//! GET    /api/v1/publishers                   List<TrustedPublisher>
//! PUT    /api/v1/publishers/{name}?dry_run=&careful=   PublisherRequest -> TrustedPublisher
//! DELETE /api/v1/publishers/{name}?dry_run=&careful=
//! PUT    /api/v1/publishers/{name}/keys/{key} TrustedPublisher; beside the keys that it has
//! DELETE /api/v1/publishers/{name}/keys/{key}?dry_run=&careful=
//! GET    /api/v1/relays                       List<RelayInfo>
//! GET    /api/v1/relays/{name}                RelayDetail
//! PUT    /api/v1/relays/{name}?dry_run=&careful=   the manifest in YAML -> RelayApplied
//! DELETE /api/v1/relays/{name}?dry_run=&careful=
//! GET    /api/v1/relays/{name}/trial          RelayTrial: what it takes to try a broker
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
//! PUT    /api/v1/applications/{name}?dry_run=&careful=&keep_data=   the manifest in YAML -> ApplyResult
//! DELETE /api/v1/applications/{name}?dry_run=&careful=&keep_data=
//! GET    /api/v1/microservices?application=   List<Microservice>: one entry for every instance, desired and reported
//! GET    /api/v1/routes?application=          List<Route>
//! GET    /api/v1/routes/{route}               RouteDetail: each pair of its ends, the worst of very many
//! GET    /api/v1/logs?application=&microservice=&node=&tail=&since_ms=&follow=   List<LogEntry>, or server-sent events with follow=true; Last-Event-ID is honoured
//! GET    /api/v1/events?tail=&since_ms=&follow=         List<Event>, or server-sent events with follow=true
//! ```
//! A change with `dry_run=true` changes nothing and answers what it would do; one that takes something
//! away answers with a `Preview`. With `careful=true` it is refused with 409 `would_lose` when
//! something would stop or be lost; the message says what. `keep_data=true` keeps what is stored for
//! microservices that go.
//!
//! People authenticate with `Authorization: Bearer TOKEN`, nodes with
//! `Authorization: Haar-Proof PROOF` ([`crate::proof`], audience `controller`). Bodies about dead
//! letters stand in [`crate::dead_letters`], those about relays in [`crate::relay`]; a node that is offline is answered with 409
//! `node_offline`, one that does not answer with 504 `node_did_not_answer`.

mod nodes;
mod modules;
mod applications;
mod routes;
mod health;
mod differences;
mod losses;
mod relays;

use serde::{Deserialize, Serialize};

use crate::ids::{Name, SiteId};
use crate::keys::PublicKey;
use crate::log::LogLine;

pub use applications::{
    Application, ApplicationDetail, ApplyResult, Counted, Microservice, Placement, Route,
    RouteProblem,
};
pub use differences::{Change, Difference, DifferenceKind, KeyDifference};
pub use health::{Cause, Health, HealthCount, HealthState, Observation, SiteHealth, Unplaced};
pub use losses::{Loss, LossKind, Preview};
pub use modules::{Module, ModuleCode, PublisherRequest, TrustedPublisher, UploadState};
pub use nodes::{
    Enrolment, EnrolmentRequest, LinkKeyRotation, Node, NodeDetail, Token, TokenRequest,
};
pub use relays::{Grade, RelayDetail, RelayFinding, RelaySession, RelayTrial};
pub use routes::{
    ROUTE_PAIRS_TOLD_MAX, RouteDetail, RoutePair, RouteReceiver, RouteRelay, RouteReport,
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
