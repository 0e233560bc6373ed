//! The relays that this node and the other one share, and the choice among them.

use haar_link::paths::{Paths, RelayNumber};
use haar_protocol::ids::Name;
use haar_relay::Session;

use crate::agent::relays::{Attachment, Table};

/// See the module.
#[derive(Default)]
pub(super) struct Crossing {
    relays: Vec<Attachment>,
    paths: Paths,
    /// The relay over which frames go, and which connection with it that is.
    chosen: Option<(RelayNumber, u64)>,
}

impl Crossing {
    /// `relays` are those of this node, `shared` the names of those of the other one, too; empty for
    /// all.
    pub(super) fn meet(&mut self, relays: &Table, shared: &[Name]) {
        let is_shared = |one: &&Attachment| shared.is_empty() || shared.contains(&one.name);
        self.relays = relays.iter().filter(is_shared).cloned().collect();
        self.set_paths();
    }

    /// The session over which frames went has ended: there is no such relay until [`meet`](Self::meet)
    /// says so again.
    pub(super) fn ended(&mut self) {
        let chosen = self.chosen.map(|(relay, _)| relay);
        self.relays.retain(|one| Some(one.number) != chosen);
        self.set_paths();
    }

    fn set_paths(&mut self) {
        let paths: Vec<_> = self
            .relays
            .iter()
            .map(|one| (one.number, one.connected))
            .collect();
        self.paths.set(&paths);
    }

    /// True when there are several.
    pub(super) fn has_choice(&self) -> bool {
        self.relays.len() > 1
    }

    /// Chooses. When it is another relay or connection than before, says whether there is one at all.
    pub(super) fn choose(&mut self, unanswered_since_ms: Option<u64>, now_ms: u64) -> Option<bool> {
        let relay = self.paths.choose(unanswered_since_ms, now_ms);
        let chosen = self.relays.iter().find(|one| Some(one.number) == relay);
        let chosen = chosen.map(|one| (one.number, one.connections));
        let is_other = chosen != self.chosen;
        self.chosen = chosen;
        is_other.then_some(chosen.is_some())
    }

    /// The session over which frames go.
    pub(super) fn chosen(&self) -> Option<Session> {
        let (relay, _) = self.chosen?;
        self.session(relay)
    }

    /// The session with a certain relay.
    pub(super) fn session(&self, relay: RelayNumber) -> Option<Session> {
        let found = self.relays.iter().find(|one| one.number == relay);
        found.map(|one| one.session.clone())
    }

    /// A relay that is to be asked whether the other node is there again.
    pub(super) fn ask(&mut self, now_ms: u64) -> Option<Session> {
        let relay = self.paths.ask(now_ms)?;
        self.session(relay)
    }

    /// An authentic frame came over `relay`.
    pub(super) fn heard(&mut self, relay: RelayNumber, now_ms: u64) {
        self.paths.heard(relay, now_ms);
    }

    /// When to choose or ask again.
    pub(super) fn wake_ms(&self, unanswered_since_ms: Option<u64>) -> Option<u64> {
        self.paths.wake_ms(unanswered_since_ms)
    }
}
