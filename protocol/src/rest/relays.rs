//! A relay as `describe` shows it: with each node that needs it.

use serde::{Deserialize, Serialize};

use crate::ids::Name;
use crate::relay::{RelayInfo, RelayUrl, RelayUser};
use crate::status::RelayStatus;

/// Everything about a relay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RelayDetail {
    /// As lists show it.
    #[serde(flatten)]
    pub relay: RelayInfo,
    /// The sessions that nodes are to have with it, by node.
    #[serde(default)]
    pub sessions: Vec<RelaySession>,
}

/// A session that a node is to have with a relay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RelaySession {
    /// The node.
    pub node: Name,
    /// Whether the node is connected to its site: when it is not, `status` may be old.
    pub node_online: bool,
    /// True for the session with plain MQTT devices, false for the one with nodes and site.
    pub devices: bool,
    /// What the node said of it last; none when it said nothing yet.
    pub status: Option<RelayStatus>,
}

impl RelaySession {
    /// True when the node is there and says that it is connected.
    pub fn is_connected(&self) -> bool {
        self.node_online && self.status.as_ref().is_some_and(|status| status.connected)
    }

    /// What the node says is wrong.
    pub fn reason(&self) -> Option<&str> {
        self.status.as_ref()?.reason.as_deref()
    }
}

/// What somebody needs to connect to a broker and try it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RelayTrial {
    /// Its address.
    pub url: RelayUrl,
    /// The certificates that its own must be, or come from, in PEM.
    pub ca_pem: String,
    /// Two who may publish and subscribe below `$haar-check/` and `haar-check/`; none where the
    /// broker asks nobody, or all nodes share a name.
    pub users: Vec<RelayUser>,
    /// The name that all nodes share, whose password is not told.
    pub shared_user: Option<String>,
    /// Whether a client certificate must be shown.
    pub client_certificate: bool,
}

/// How a broker does one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Grade {
    /// As it should.
    Works,
    /// Less than Haar asks for: something is lost, or can't be used.
    Short,
    /// Not at all.
    Fails,
}

/// What a trial of a broker has shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayFinding {
    /// What was tried.
    pub what: String,
    /// How it does it.
    pub grade: Grade,
    /// What was seen, for a person.
    pub found: String,
    /// What that means, and what to do; empty where it works.
    pub means: String,
}

impl RelayFinding {
    /// It works.
    pub fn works(what: &str, found: impl Into<String>) -> Self {
        Self::new(what, Grade::Works, found, "")
    }

    /// It works in part.
    pub fn short(what: &str, found: impl Into<String>, means: &str) -> Self {
        Self::new(what, Grade::Short, found, means)
    }

    /// It does not work.
    pub fn fails(what: &str, found: impl Into<String>, means: &str) -> Self {
        Self::new(what, Grade::Fails, found, means)
    }

    fn new(what: &str, grade: Grade, found: impl Into<String>, means: &str) -> Self {
        Self {
            what: what.to_owned(),
            grade,
            found: found.into(),
            means: means.to_owned(),
        }
    }
}
