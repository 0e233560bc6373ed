//! A relay of the site as a person describes it: a broker that is there already, one that a node
//! runs for its neighbours, or the controller's own.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::ids::Name;
use crate::quantity::Millis;
use crate::relay::{EMBEDDED, HostPort, RelayRole, RelayUrl};

use super::errors::{KeyPath, Problem};
use super::{ApiVersion, Place};

/// Longest user name or password, in bytes.
pub const CREDENTIAL_BYTES_MAX: usize = 1024;
/// Longest CA certificate, in bytes.
pub(super) const CA_BYTES_MAX: usize = 32 * 1024;
/// How a certificate in PEM begins.
const CERTIFICATE_LINE: &str = "-----BEGIN CERTIFICATE-----";
/// The preference of a relay of which nothing else is said.
pub(super) const PREFERENCE: u16 = 100;
/// The same of the controller's own: behind the others.
pub const EMBEDDED_PREFERENCE: u16 = 1_000;

/// How long brokers keep sessions for devices: milliseconds.
const SESSION_EXPIRY_MS: RangeInclusive<u64> = 1_000..=30 * 86_400_000;

/// One relay of the site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(deny_unknown_fields))]
pub struct Relay {
    /// Version of the manifest's format: `haar/v1`.
    pub api_version: ApiVersion,
    /// What the document describes: `Relay`.
    pub kind: RelayKind,
    /// Its name in the site; `controller` is the relay that the controller embeds.
    pub name: Name,
    /// Which nodes attach to it; all when left out.
    #[serde(default = "everywhere")]
    pub nodes: Place,
    /// Nodes use the relay with the lowest number that works. 100 when left out; 1000 for the
    /// controller's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "u16"))]
    pub preference: Option<u16>,
    /// The address of a broker that is there already: `mqtts://host:port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "RelayUrl"))]
    pub url: Option<RelayUrl>,
    /// The CA certificate that the broker's certificate must come from, in PEM; the site's own
    /// authority when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub ca: Option<String>,
    /// How nodes and the controller tell the broker who they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Credentials"))]
    pub credentials: Option<Credentials>,
    /// The certificate that nodes and the controller show to a broker which wants one in TLS, beside
    /// their `credentials`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "ClientCertificate"))]
    pub client_certificate: Option<ClientCertificate>,
    /// What passes over it: `everything`; `links` for messages between nodes only, where the
    /// controller does not reach it; `topics` for plain MQTT devices only. A neighbourhood relay
    /// carries links.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "RelayRole"))]
    pub carries: Option<RelayRole>,
    /// How long the broker keeps a node's session for plain MQTT devices after its connection, with
    /// what waits in it: from 1s to 30d. A day when left out; a minute on nodes with shared
    /// subscriptions (`$share`), whose messages others take when the session has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Millis"))]
    pub session_expiry: Option<Millis>,
    /// The node that runs it for its neighbours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Name"))]
    pub node: Option<Name>,
    /// Where its neighbours reach it: `HOST:PORT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "HostPort"))]
    pub address: Option<HostPort>,
    /// Where it listens; on the port of `address` of every interface when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub listen: Option<SocketAddr>,
}

/// The kind of a relay's document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum RelayKind {
    /// A relay.
    Relay,
}

/// A certificate that TLS clients show.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(deny_unknown_fields))]
pub struct ClientCertificate {
    /// The certificate in PEM, followed by those between it and its authority.
    pub certificate: String,
    /// Its private key in PEM: PKCS #8, SEC1 or PKCS #1.
    pub key: String,
}

impl std::fmt::Debug for ClientCertificate {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("ClientCertificate(..)")
    }
}

/// How nodes and the controller tell a broker who they are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(from = "Form", into = "Form")]
pub enum Credentials {
    /// Each by its id and a password of its own; `haar relay credentials` writes them down for
    /// the broker.
    #[default]
    Generated,
    /// Not at all.
    Anonymous,
    /// All by one name and one password.
    Given {
        /// The user name.
        user: String,
        /// The password.
        password: String,
    },
}

/// The two ways to write credentials.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(untagged)]
enum Form {
    /// A word.
    Word(Word),
    /// A name and a password.
    Given(Given),
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
enum Word {
    /// A password for each node and the controller.
    Generated,
    /// None.
    Anonymous,
}

#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(
    feature = "schema",
    schemars(rename = "GivenCredentials", deny_unknown_fields)
)]
struct Given {
    /// The user name.
    user: String,
    /// The password.
    password: String,
}

impl From<Form> for Credentials {
    fn from(form: Form) -> Self {
        match form {
            Form::Word(Word::Generated) => Credentials::Generated,
            Form::Word(Word::Anonymous) => Credentials::Anonymous,
            Form::Given(Given { user, password }) => Credentials::Given { user, password },
        }
    }
}

impl From<Credentials> for Form {
    fn from(credentials: Credentials) -> Self {
        match credentials {
            Credentials::Generated => Form::Word(Word::Generated),
            Credentials::Anonymous => Form::Word(Word::Anonymous),
            Credentials::Given { user, password } => Form::Given(Given { user, password }),
        }
    }
}

/// Every node of the site.
pub(super) fn everywhere() -> Place {
    Place {
        node: None,
        labels: Some(BTreeMap::new()),
        count: None,
    }
}

impl Relay {
    /// The number by which nodes choose.
    pub fn preference(&self) -> u16 {
        self.preference.unwrap_or(match self.name.as_str() {
            EMBEDDED => EMBEDDED_PREFERENCE,
            _ => PREFERENCE,
        })
    }

    /// What passes over it.
    pub fn role(&self) -> RelayRole {
        match self.node {
            Some(_) => RelayRole::Links,
            None => self.carries.unwrap_or(RelayRole::Everything),
        }
    }

    /// Where the node that runs it listens.
    pub fn listening(&self) -> Option<SocketAddr> {
        let port = self.address.as_ref()?.port;
        let every = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port);
        Some(self.listen.unwrap_or(every))
    }
}

/// What is wrong with the relay as a whole.
pub(super) fn check(relay: &Relay) -> Vec<Problem> {
    let mut problems = Vec::new();
    let top = KeyPath::default();
    let mut wrong = |key: &str, message: &str, hint: &str| {
        problems.push(Problem::with_hint(&top.key(key), message, hint));
    };
    let is_embedded = relay.name.as_str() == EMBEDDED;
    match (is_embedded, &relay.url, &relay.node) {
        (true, None, None) => {}
        (true, _, _) => wrong(
            "name",
            "`controller` is the relay that the controller embeds: only `nodes` and `preference` can be said of it",
            "give this relay another name",
        ),
        (false, Some(_), Some(_)) => wrong(
            "node",
            "has both `url` and `node`",
            "write `url` for a broker that is there already, `node` for one that a node runs",
        ),
        (false, None, None) => wrong(
            "name",
            "says no place",
            "write `url: mqtts://HOST:PORT` for a broker that is there already, or `node: NAME` and `address: HOST:PORT` for one that a node runs",
        ),
        _ => {}
    }
    if let Some(url) = &relay.url
        && !url.encrypted
        && !url.address.is_loopback()
    {
        wrong(
            "url",
            "names and passwords would pass in clear over the network",
            "use mqtts, or a loopback address",
        );
    }
    let url = relay.url.as_ref().map(|url| &url.address);
    for (key, address) in [("url", url), ("address", relay.address.as_ref())] {
        if address.is_some_and(HostPort::is_nowhere) {
            wrong(
                key,
                "names no machine that anybody could connect to",
                "write the name or the address of the machine in its network; `listen: 0.0.0.0:PORT` says that a node listens on every interface",
            );
        }
    }
    if relay.listen.is_some_and(|listen| listen.port() == 0) {
        wrong(
            "listen",
            "has the port 0: nobody would know which one it is",
            "write the port that its neighbours reach, or leave `listen` out",
        );
    }
    if relay.node.is_some() && relay.address.is_none() {
        wrong(
            "node",
            "nobody can reach it",
            "add `address: HOST:PORT`, where its neighbours reach the node",
        );
    }
    let of_url = [
        ("ca", relay.ca.is_some()),
        ("credentials", relay.credentials.is_some()),
        ("client_certificate", relay.client_certificate.is_some()),
        ("carries", relay.carries.is_some()),
        ("session_expiry", relay.session_expiry.is_some()),
    ];
    for (key, _) in of_url
        .iter()
        .filter(|(_, is_there)| *is_there && relay.url.is_none())
    {
        wrong(key, "goes with `url` only", "remove it");
    }
    let of_node = [
        ("address", relay.address.is_some()),
        ("listen", relay.listen.is_some()),
    ];
    for (key, _) in of_node
        .iter()
        .filter(|(_, is_there)| *is_there && relay.node.is_none())
    {
        wrong(key, "goes with `node` only", "remove it");
    }
    if relay
        .ca
        .as_ref()
        .is_some_and(|ca| ca.len() > CA_BYTES_MAX || !ca.contains(CERTIFICATE_LINE))
    {
        wrong(
            "ca",
            "is not a certificate in PEM",
            "write `ca: |` and the certificate below it, indented",
        );
    }
    if let Some(ClientCertificate { certificate, key }) = &relay.client_certificate {
        let is_bad = |text: &str, word: &str| text.len() > CA_BYTES_MAX || !text.contains(word);
        if is_bad(certificate, CERTIFICATE_LINE) || is_bad(key, "PRIVATE KEY-----") {
            wrong(
                "client_certificate",
                "is not a certificate and its private key in PEM",
                "write `certificate: |` and `key: |`, each with the PEM text below it, indented",
            );
        }
        if relay.url.as_ref().is_some_and(|url| !url.encrypted) {
            wrong(
                "client_certificate",
                "is shown in TLS only",
                "use mqtts, or remove it",
            );
        }
    }
    if let Some(Credentials::Given { user, password }) = &relay.credentials {
        let is_bad = |text: &str| text.is_empty() || text.len() > CREDENTIAL_BYTES_MAX;
        if is_bad(user) || is_bad(password) {
            wrong(
                "credentials",
                "name and password must have 1 to 1024 bytes",
                "write `credentials: {user: NAME, password: SECRET}`",
            );
        }
    }
    if let Some(expiry) = relay.session_expiry
        && !SESSION_EXPIRY_MS.contains(&expiry.0)
    {
        wrong(
            "session_expiry",
            "is less than a second, or more than 30 days",
            "write how long the broker keeps what waits for a node that is away, such as `1h`",
        );
    }
    if relay.nodes.count.is_some() {
        wrong(
            "nodes",
            "takes no `count`",
            "all nodes with the labels attach to the relay",
        );
    }
    super::check::check_place(&relay.nodes, &top.key("nodes"), &mut problems);
    problems
}
