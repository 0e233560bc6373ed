//! The session that agents of earlier releases had at the broker: one client id for all relays of a
//! node. With its first connection a session looks whether the broker still keeps one. Its messages
//! are taken, in order, before those of the present one, and then it is forgotten. An agent that ends
//! meanwhile goes on when it is started again.
//!
//! ```text
//!            it is there        subscribed               silent
//!   looking ────────────► own ──────────────► draining ─────────► own
//!      │ there is none     ▲                (unsubscribes)
//!      └───────────────────┘      own ◄── refused ──► as before, for brokers with the former users
//! ```

use crate::reason::DisconnectReason;

/// As whom, and what for, a connection is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// As agents before: to see whether the broker keeps a session for them.
    Looking,
    /// As itself.
    Own,
    /// As agents before: to take what waits in that session.
    Draining,
    /// As agents before, since the broker refuses the present identity.
    Before,
}

impl Phase {
    /// What follows when the broker has accepted the connection, and whether it has kept a session
    /// of agents before; none where nothing new is known of that.
    pub(super) fn accepted(self, session_present: bool) -> (Phase, Option<bool>) {
        match self {
            Phase::Looking => (Phase::Own, Some(session_present)),
            phase => (phase, None),
        }
    }

    /// The same when no connection came about.
    pub(super) fn failed(self, reason: &DisconnectReason) -> (Phase, Option<bool>) {
        if !matches!(reason, DisconnectReason::Refused(_)) {
            return (self, None);
        }
        match self {
            Phase::Own => (Phase::Before, None),
            Phase::Before => (Phase::Own, None),
            Phase::Looking | Phase::Draining => (Phase::Own, Some(false)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_of_agents_before_is_looked_for_once() {
        for present in [true, false] {
            assert_eq!(
                Phase::Looking.accepted(present),
                (Phase::Own, Some(present))
            );
            assert_eq!(Phase::Own.accepted(present), (Phase::Own, None));
        }
        // One that is gone has nothing to drain.
        assert_eq!(Phase::Draining.accepted(false), (Phase::Draining, None));
    }

    #[test]
    fn a_broker_with_the_former_users_serves_the_session_as_before() {
        let refused = DisconnectReason::Refused("bad user name or password".to_owned());
        assert_eq!(Phase::Looking.failed(&refused), (Phase::Own, Some(false)));
        assert_eq!(Phase::Own.failed(&refused), (Phase::Before, None));
        assert_eq!(Phase::Before.failed(&refused), (Phase::Own, None));
        let cut = DisconnectReason::ClosedInOrder;
        for phase in [Phase::Looking, Phase::Own, Phase::Draining, Phase::Before] {
            assert_eq!(phase.failed(&cut), (phase, None));
        }
    }
}
