//! Which starts of a node's agent are alive. An agent that was succeeded by another start of itself and
//! then reports again runs beside it: the node's directory was copied. Pure.

use std::collections::HashMap;

use haar_protocol::ids::{Name, NodeId};
use haar_protocol::status::Status;

use super::events::Told;

/// While two agents run, the site says so once in this time.
const TOLD_EVERY_MS: u64 = 3_600_000;
/// Starts of one node that are remembered.
const STARTS_MAX: usize = 8;
/// Nodes that are remembered.
const NODES_MAX: usize = 100_000;
/// Longer ids are of no agent of ours.
const ID_BYTES_MAX: usize = 64;
/// Characters of an address that are repeated in an event.
const ADDRESS_CHARACTERS_MAX: usize = 64;

/// Two agents run with one identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Clash {
    /// What to say of it.
    pub(crate) told: Told,
    /// Whether to say it: not again within the hour.
    pub(crate) is_due: bool,
}

/// A start of an agent, as its last status told.
#[derive(Debug, Clone)]
struct Seen {
    id: String,
    address: Option<String>,
    started_ms: u64,
    sequence: u64,
    uptime_ms: u64,
}

#[derive(Debug, Default)]
struct Starts {
    /// The one that reported last is the last.
    seen: Vec<Seen>,
    told_ms: Option<u64>,
}

/// The starts of all nodes. Forgotten with the controller: two live agents show themselves again.
#[derive(Debug, Default)]
pub(crate) struct AllStarts(HashMap<NodeId, Starts>);

impl AllStarts {
    /// Takes a status that a node has just sent. `kept` are statuses of the relay from before.
    /// Returns what is seen when two agents run.
    pub(crate) fn note(
        &mut self,
        status: &Status,
        name: &Name,
        is_kept: bool,
        now_ms: u64,
    ) -> Option<Clash> {
        let start = status.start.as_ref();
        let start = start.filter(|start| start.id.len() <= ID_BYTES_MAX)?;
        let seen = Seen {
            id: start.id.clone(),
            address: start.address.as_deref().map(cut),
            started_ms: status.started_ms,
            sequence: status.sequence,
            uptime_ms: status.sent_ms.saturating_sub(status.started_ms),
        };
        if self.0.len() > NODES_MAX {
            self.0.clear(); // nodes that were deleted are still among them
        }
        let starts = self.0.entry(status.node.clone()).or_default();
        let known = starts.seen.iter().position(|one| one.id == seen.id);
        let Some(index) = known else {
            if starts.seen.len() == STARTS_MAX {
                starts.seen.remove(0);
            }
            starts.seen.push(seen);
            return None;
        };
        let is_newer = status.sequence > starts.seen[index].sequence;
        if is_kept || !is_newer {
            return None; // an old one, from wherever it was kept
        }
        starts.seen[index] = seen.clone();
        // Sent after the other one had begun: not the last words of an agent that has ended.
        let mut successors = starts.seen[index + 1..].iter().rev();
        let other = successors.find(|other| status.sent_ms > other.started_ms);
        let other = other.cloned()?;
        starts.seen.remove(index);
        starts.seen.push(seen.clone());
        let is_due = starts
            .told_ms
            .is_none_or(|told_ms| now_ms.saturating_sub(told_ms) >= TOLD_EVERY_MS);
        if is_due {
            starts.told_ms = Some(now_ms);
        }
        let told = Told {
            kind: "identity_in_use",
            subject: name.to_string(),
            message: format!(
                "two agents run with the identity of node `{name}`: one at {}, one at {}; stop one of them",
                place(&other),
                place(&seen)
            ),
        };
        Some(Clash { told, is_due })
    }
}

/// Where an agent is, for a person.
fn place(seen: &Seen) -> String {
    let address = seen.address.as_deref().unwrap_or("an unknown address");
    format!("{address} (up {} s)", seen.uptime_ms / 1_000)
}

/// As much of an address as people are shown.
fn cut(address: &str) -> String {
    let characters = address.chars().filter(|character| !character.is_control());
    characters.take(ADDRESS_CHARACTERS_MAX).collect()
}
