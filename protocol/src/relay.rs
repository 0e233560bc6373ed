//! Relays as assignments name them: where each is, whom to trust there, and as whom to connect.
//! What a person writes about them stands in [`crate::manifest::Relay`].

mod address;
mod info;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::ids::{Name, NodeId, SiteId};
use crate::keys::PublicKey;
use crate::rest::{Difference, Loss};
use crate::secret::SealedText;

pub use address::{HostPort, RelayUrl};
pub use info::RelayInfo;

/// The name of the relay that is embedded in the controller.
pub const EMBEDDED: &str = "controller";
/// Relays that one node attaches to, at most: the most preferred ones.
pub const RELAYS_OF_NODE_MAX: usize = 4;

/// The purpose for which passwords of relays are sealed.
pub const PASSWORD_PURPOSE: &str = "relay credentials";
/// The purpose for which keys of client certificates are sealed.
pub const CLIENT_PURPOSE: &str = "relay client certificate";
/// The purpose for which the key of a neighbourhood relay's certificate is sealed.
pub const CERTIFICATE_PURPOSE: &str = "relay certificate";

/// As whom a node talks to plain MQTT devices over one relay: user name and client id. Not as itself,
/// so that what devices may do and what nodes may do never mixes; and with the relay's name, so that
/// two relays that are one broker do not end each other's sessions.
pub fn device_user(node: &NodeId, relay: &Name) -> String {
    format!("{}.{relay}", former_device_user(node))
}

/// The client id of a node, or of the site, at a relay where its user name is not its own. Such a
/// broker cannot tell two relay resources apart that are one broker, so the id contains the relay's
/// name: else each session would end the other.
pub fn client_among_many(who: &impl fmt::Display, relay: &Name) -> String {
    format!("{who}.{relay}")
}

/// The same of agents of earlier releases, for all relays.
pub fn former_device_user(node: &NodeId) -> String {
    format!("{node}.devices")
}

/// As whom a person tries a broker whose users are generated: with this number and client id.
pub fn trial_user(site: &SiteId, number: u8) -> String {
    format!("{site}.trial-{number}")
}

/// A relay that a node attaches to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayAccess {
    /// Its name in the site.
    pub name: Name,
    /// What the node does there.
    pub role: RelayRole,
    /// Where it is; none for the embedded one, whose address the node knows since it enrolled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<RelayUrl>,
    /// The CA certificate that its certificate must come from, in PEM; the site's when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_pem: Option<String>,
    /// As whom to connect.
    pub credentials: NodeCredentials,
    /// How long the broker keeps the node's session for devices after a connection: seconds. None
    /// where the manifest says nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_expiry_s: Option<u32>,
    /// The certificate that the node shows in TLS, where the broker wants one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<ClientAccess>,
}

/// A certificate that all nodes show to a broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientAccess {
    /// The certificate, and those between it and its authority, in PEM.
    pub certificate_pem: String,
    /// Its private key in PEM, sealed for the node.
    pub key: SealedText,
}

/// What passes over a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum RelayRole {
    /// Everything: assignments, requests, statuses, logs and messages between nodes.
    Everything,
    /// Messages between nodes only.
    Links,
    /// Nothing of Haar's own: only topics of plain devices, at which routes begin or end.
    Topics,
}

/// How a node tells a relay who it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeCredentials {
    /// By a proof of its key: relays of ours.
    Proof,
    /// By its id and the password that it shares with the site
    /// ([`SharedSecret::relay_password`](crate::secret::SharedSecret::relay_password)).
    Generated,
    /// By a name and a password that a person has given to all nodes.
    Given {
        /// The user name.
        user: String,
        /// The password, sealed for the node.
        password: SealedText,
    },
    /// Not at all.
    Anonymous,
}

/// A relay that a node runs for its neighbours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServedRelay {
    /// Its name in the site.
    pub name: Name,
    /// Where to listen.
    pub listen: SocketAddr,
    /// The certificate to show, in PEM; the site's authority has signed it.
    pub certificate_pem: String,
    /// The certificate's private key in PEM, sealed for the node.
    pub key: SealedText,
    /// Who may connect.
    pub nodes: Vec<RelayMember>,
}

/// A node that may use a neighbourhood relay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayMember {
    /// The node.
    pub id: NodeId,
    /// Its key.
    pub key: PublicKey,
}

/// What came of applying a relay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RelayApplied {
    /// Its name.
    pub name: Name,
    /// Whether anything is different now.
    pub changed: bool,
    /// Nothing was changed, only tried.
    pub dry_run: bool,
    /// In what the relay differs from what was applied before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub differences: Vec<Difference>,
    /// What stops or is lost with it; only told of a dry run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub losses: Vec<Loss>,
    /// Numbers of the new assignments, by node.
    pub assignments: BTreeMap<Name, u64>,
}

/// Where a relay is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum RelaySort {
    /// In the controller.
    Embedded,
    /// A broker that is not ours.
    External,
    /// In the agent of a node.
    Neighbourhood,
}

/// Who may do what at a broker that is not ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RelayCredentials {
    /// The site.
    pub site: SiteId,
    /// The relay's name.
    pub relay: Name,
    /// Its address.
    pub url: RelayUrl,
    /// The site's CA certificate in PEM.
    pub ca_pem: String,
    /// A certificate of the site's authority for the broker, when it was asked for.
    pub certificate: Option<IssuedCertificate>,
    /// Who may connect: the controller first, then the nodes by name.
    pub users: Vec<RelayUser>,
}

/// A certificate and its key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct IssuedCertificate {
    /// The certificate in PEM.
    pub certificate_pem: String,
    /// Its private key in PEM.
    pub key_pem: String,
    /// When it ends: milliseconds since the Unix epoch. 0 from controllers of an earlier release.
    #[serde(default)]
    pub until_ms: u64,
}

impl fmt::Debug for IssuedCertificate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("IssuedCertificate(..)")
    }
}

/// A user of a broker that is not ours.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RelayUser {
    /// User name and MQTT client id.
    pub user: String,
    /// The password.
    pub password: String,
    /// Who it is, for people: a node's name, or the site.
    pub name: String,
    /// Topic filters that it may publish to.
    pub publish: Vec<String>,
    /// Topic filters that it may subscribe to.
    pub subscribe: Vec<String>,
}

impl fmt::Debug for RelayUser {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "RelayUser({})", self.user)
    }
}
