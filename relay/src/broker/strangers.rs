//! Counts the connections that have not proved who they are, so that they can't take the room of
//! those that have. The listener enters each; the provider lets the admitted ones out.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// The strangers at the door, by the address and port that they came from.
#[derive(Debug)]
pub(super) struct Strangers {
    max: usize,
    per_address_max: usize,
    /// The listener's task, the connections' tasks and the provider each take it for an instant.
    present: Mutex<HashSet<SocketAddr>>,
}

/// A stranger's place at the door; dropping it frees the place.
#[derive(Debug)]
pub(super) struct Place {
    strangers: Arc<Strangers>,
    peer: SocketAddr,
}

impl Strangers {
    pub(super) fn new(max: usize, per_address_max: usize) -> Arc<Self> {
        Arc::new(Self {
            max,
            per_address_max,
            present: Mutex::new(HashSet::new()),
        })
    }

    /// A place for `peer`, or none when there are too many strangers, or too many from its address.
    pub(super) fn enter(self: &Arc<Self>, peer: SocketAddr) -> Option<Place> {
        let mut present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        let from_address = present
            .iter()
            .filter(|other| other.ip() == peer.ip())
            .count();
        if present.len() >= self.max || from_address >= self.per_address_max {
            return None;
        }
        present.insert(peer);
        Some(Place {
            strangers: Arc::clone(self),
            peer,
        })
    }

    /// Notes that `peer` has proved who it is.
    pub(super) fn admitted(&self, peer: SocketAddr) {
        self.present
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&peer);
    }
}

impl Place {
    /// True while the peer has not proved who it is.
    pub(super) fn is_taken(&self) -> bool {
        let present = self
            .strangers
            .present
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        present.contains(&self.peer)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.strangers.admitted(self.peer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_are_bounded_in_total_and_by_address() {
        let strangers = Strangers::new(3, 2);
        let peer = |host: u8, port: u16| SocketAddr::from(([10, 0, 0, host], port));
        let places = [strangers.enter(peer(1, 1)), strangers.enter(peer(1, 2))];
        assert!(places.iter().all(Option::is_some));
        assert!(
            strangers.enter(peer(1, 3)).is_none(),
            "too many from this address"
        );
        let third = strangers.enter(peer(2, 1));
        assert!(third.is_some());
        assert!(strangers.enter(peer(3, 1)).is_none(), "too many in total");
        strangers.admitted(peer(1, 1));
        assert!(strangers.enter(peer(3, 1)).is_some());
        drop(third);
        assert!(strangers.enter(peer(3, 1)).is_some());
    }
}
