//! Revoking nodes, and renewing their keys for links.

use haar_protocol::ids::{Name, NodeId};
use haar_protocol::number::NUMBER_MAX;

use super::{replan, unknown_node};
use crate::db::{self, Write};
use crate::failure::Failure;
use crate::site::Site;

/// Revokes the key of a node and forgets the node. Returns its id. Nothing else is part of this
/// transaction, so that nothing else can undo it: [`clear_revoked`] does the rest.
///
/// # Errors
/// When there is none of this name, or the database fails.
pub(crate) fn revoke(write: &Write<'_>, name: &Name) -> Result<NodeId, Failure> {
    let id =
        db::nodes::id_by_name(&write.sql, name)?.ok_or_else(|| unknown_node(&write.sql, name))?;
    let ran = db::applications::placed_on(&write.sql, &id)?;
    db::nodes::delete(write, &id)?;
    let ran = match ran.is_empty() {
        true => String::new(),
        false => format!("; it was to run {}", ran.join(", ")),
    };
    let message = format!("the key of {id} is revoked{ran}");
    write.event("node_revoked", name.as_str(), &message)?;
    Ok(id)
}

/// Withdraws the assignments of revoked nodes, and makes a plan without these nodes. True when there
/// were any.
///
/// # Errors
/// When the database fails, or a new plan can't be made.
pub(crate) fn clear_revoked(write: &Write<'_>, site: &Site) -> Result<bool, Failure> {
    let is_any = db::assignments::withdraw_orphans(write)?;
    if is_any {
        replan(write, site, None)?;
    }
    Ok(is_any)
}

/// Has a node make another key for its links: it finds the larger generation in its assignment.
/// Returns that generation.
///
/// # Errors
/// When there is none of this name.
pub(crate) fn rotate_link_key(write: &Write<'_>, site: &Site, name: &Name) -> Result<u64, Failure> {
    let node = db::nodes::by_name(&write.sql, name.as_str())?
        .ok_or_else(|| unknown_node(&write.sql, name))?;
    let generation = node.link_key_generation.saturating_add(1).min(NUMBER_MAX);
    db::nodes::set_link_key_generation(&write.sql, &node.id, generation)?;
    replan(write, site, None)?;
    write.event(
        "link_key_rotation",
        name.as_str(),
        &format!("{} is to make key {generation} for its links", node.id),
    )?;
    Ok(generation)
}
