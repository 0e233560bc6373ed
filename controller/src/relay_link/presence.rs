//! At which relays each node is. It is online while it is at one of them.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use haar_protocol::ids::{Name, NodeId};
use haar_protocol::status::Status;

use crate::intake::{AllStarts, Clash};

/// Who is where, as the relays tell it, and which agents speak for a node. Each is taken for single
/// look-ups, never across an await.
#[derive(Clone, Default)]
pub(super) struct Presence {
    nodes: Arc<Mutex<HashMap<NodeId, BTreeSet<Name>>>>,
    starts: Arc<Mutex<AllStarts>>,
}

impl Presence {
    /// Notes whether a node is at a relay, and says whether it is anywhere.
    pub(super) fn note(&self, node: &NodeId, relay: &Name, is_there: bool) -> bool {
        let mut nodes = self.lock();
        let at = nodes.entry(node.clone()).or_default();
        match is_there {
            true => drop(at.insert(relay.clone())),
            false => drop(at.remove(relay)),
        }
        let is_anywhere = !at.is_empty();
        if !is_anywhere {
            nodes.remove(node);
        }
        is_anywhere
    }

    /// At which relays each node is.
    pub(super) fn everybody(&self) -> HashMap<NodeId, BTreeSet<Name>> {
        self.lock().clone()
    }

    /// Forgets that the nodes that `which` selects are at a relay. Returns those of them that are
    /// nowhere now.
    pub(super) fn forget(&self, relay: &Name, which: impl Fn(&NodeId) -> bool) -> Vec<NodeId> {
        let mut gone = Vec::new();
        self.lock().retain(|node, at| {
            if which(node) && at.remove(relay) && at.is_empty() {
                gone.push(node.clone());
            }
            !at.is_empty()
        });
        gone
    }

    /// Notes which start of its agent a status of a node is from; see [`AllStarts::note`].
    pub(super) fn note_start(
        &self,
        status: &Status,
        name: &Name,
        is_kept: bool,
        now_ms: u64,
    ) -> Option<Clash> {
        let mut starts = self.starts.lock().unwrap_or_else(PoisonError::into_inner);
        starts.note(status, name, is_kept, now_ms)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<NodeId, BTreeSet<Name>>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use haar_protocol::keys::SecretKey;

    use super::*;

    #[test]
    fn a_node_is_online_while_one_relay_has_it() {
        let presence = Presence::default();
        let [one, two] = [1, 2].map(|seed| NodeId::of(&SecretKey::from_seed([seed; 32]).public()));
        let [plant, own]: [Name; 2] = ["plant", "controller"].map(|name| name.parse().unwrap());
        assert!(presence.note(&one, &plant, true));
        assert!(presence.note(&one, &own, true));
        assert!(presence.note(&one, &plant, false));
        assert!(!presence.note(&one, &own, false));
        assert!(presence.note(&one, &plant, true));
        assert!(presence.note(&one, &own, true));
        assert!(presence.note(&two, &plant, true));
        assert!(presence.forget(&plant, |_| false).is_empty());
        assert_eq!(presence.forget(&plant, |_| true), vec![two]);
        assert_eq!(presence.forget(&own, |_| true), vec![one]);
        assert!(presence.forget(&own, |_| true).is_empty());
    }
}
