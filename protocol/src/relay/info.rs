//! Relays as people see them.

use serde::{Deserialize, Serialize};

use super::{RelayRole, RelaySort, RelayUrl};
use crate::ids::Name;
use crate::rest::Health;

/// A relay of the site and how it fares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RelayInfo {
    /// Its name.
    pub name: Name,
    /// Where it is.
    pub place: RelaySort,
    /// Its address, as nodes use it.
    pub url: Option<RelayUrl>,
    /// The node that runs it.
    pub node: Option<Name>,
    /// What passes over it.
    pub carries: RelayRole,
    /// Nodes use the one with the lowest number that works.
    pub preference: u16,
    /// Whether the controller is connected to it; none where it has nothing to do.
    pub controller_connected: Option<bool>,
    /// Why it is not, for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controller_reason: Option<String>,
    /// How many nodes need it: those that attach to it, and those whose routes begin or end at its
    /// topics.
    pub nodes: u64,
    /// How many of them are connected to it, as reports tell that are not old.
    pub nodes_connected: u64,
    /// Of how many of them this is not known now.
    #[serde(default)]
    pub nodes_unknown: u64,
    /// How it does.
    #[serde(default)]
    pub health: Health,
    /// What is wrong with it, for a person.
    pub problem: Option<String>,
}
