//! In the place of `serving` in agents that are built without relays for neighbours, which cost a
//! gateway that runs none of them: says so in statuses, for each relay that the node is to run.

use std::path::Path;

use haar_protocol::assignment::Assignment;
use haar_protocol::ids::Name;
use haar_protocol::status::ServedStatus;

use super::connection::Account;

/// What people read of a relay that this node can't run.
const REASON: &str = "this agent was built without relays for neighbours: run one that was built \
    with the feature `neighbourhood-relay`, or have another node run the relay";

/// The relays that this node was to run.
pub(super) struct Serving {
    asked: Vec<Name>,
}

impl Serving {
    pub(super) fn new(_: Account, _: &Path) -> Self {
        Self { asked: Vec::new() }
    }

    /// Remembers the relays of an assignment.
    pub(super) fn follow(&mut self, assignment: &Assignment) {
        let asked = assignment.serves.iter();
        self.asked = asked.map(|relay| relay.name.clone()).collect();
        for name in &self.asked {
            tracing::error!("the relay {name} does not run: {REASON}");
        }
    }

    /// What statuses say of them.
    pub(super) fn statuses(&self) -> Vec<ServedStatus> {
        let asked = self.asked.iter();
        asked
            .map(|name| ServedStatus {
                name: name.clone(),
                reason: Some(REASON.to_owned()),
            })
            .collect()
    }

    /// There is nothing to end.
    pub(super) async fn finish(self) {}
}
