//! What the owner of a device allows its site, as the device reports it.

use serde::{Deserialize, Serialize};

use crate::grants::Access;
use crate::keys::PublicKey;

/// The most entries of each list that a status repeats.
pub const OUTLINE_ENTRIES_MAX: usize = 16;

/// The policy of a node, in outline: at most [`OUTLINE_ENTRIES_MAX`] entries of each list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PolicyStatus {
    /// A module needs the signature of one of these, beside that of a publisher that the site trusts.
    /// Null: the site's publishers are enough.
    pub publishers: Option<Vec<PublicKey>>,
    /// The directories that may be granted.
    pub directories: Vec<AllowedDirectory>,
    /// Entries of both lists that do not stand here.
    #[serde(default)]
    pub left_out: u32,
}

/// A directory of the node that the site may grant, with everything below it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AllowedDirectory {
    /// Absolute path on the node.
    pub path: String,
    /// What a grant may ask for at most.
    #[serde(default)]
    pub access: Access,
}
