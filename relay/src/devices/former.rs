//! The session that agents of earlier releases had at the broker: one client id for all relays of a
//! node. With its first connection a session looks whether the broker still keeps one. Its messages
//! are taken, in order, before those of the present one, and then it is forgotten. An agent that ends
//! meanwhile goes on when it is started again.
//!
//! ```text
//!            it is there           subscribed, takes nothing          silent
//!   looking ────────────► preparing ────────────────► draining ─────────────► own
//!      │ none, refused        │ refused                  │ refused            ▲ ▲
//!      └──────────────────────┼──────────────────────────┴────────────────────┘ │ refused
//!                             └───────────────► as before ◄─────────────────────┘
//! ```
//! As before: for brokers that know the former users only.

use tokio::time::Duration;

use crate::connection::KEEP_ALIVE;

/// A broker has delivered all that it kept in a former session when nothing more has come for this
/// time. Longer than the keep-alive interval: a connection without a living broker behind it ends
/// before.
pub const FORMER_SILENCE: Duration = Duration::from_secs(KEEP_ALIVE.as_secs() + 5);

/// As whom, and what for, a connection is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// As agents before: to see whether the broker keeps a session for them.
    Looking,
    /// As itself: to subscribe. Messages of QoS 1 are left to the broker, since those of the former
    /// session are older.
    Preparing,
    /// As agents before: to take what waits in that session.
    Draining,
    /// As itself.
    Own,
    /// As agents before, since the broker refuses the present identity.
    Before,
}

/// What a connection has led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Course {
    /// The broker refused the identity.
    Refused,
    /// It has answered whether it keeps a session.
    Answered { session_present: bool },
    /// The purpose of the phase is fulfilled.
    Done,
}

impl Phase {
    /// True when the identity is that of agents before.
    pub(super) fn is_former(self) -> bool {
        matches!(self, Phase::Looking | Phase::Draining | Phase::Before)
    }

    /// True when the session's owner hears of the connection.
    pub(super) fn is_announced(self) -> bool {
        !matches!(self, Phase::Looking | Phase::Preparing)
    }

    /// What the next connection is for.
    pub(super) fn after(self, course: Course) -> Phase {
        match (self, course) {
            (Phase::Looking, Course::Answered { session_present }) => match session_present {
                true => Phase::Preparing,
                false => Phase::Own,
            },
            (Phase::Preparing, Course::Done) => Phase::Draining,
            (Phase::Draining, Course::Done)
            | (Phase::Looking | Phase::Draining | Phase::Before, Course::Refused) => Phase::Own,
            (Phase::Preparing | Phase::Own, Course::Refused) => Phase::Before,
            (phase, _) => phase,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Phase; 5] = [
        Phase::Looking,
        Phase::Preparing,
        Phase::Draining,
        Phase::Own,
        Phase::Before,
    ];

    #[test]
    fn a_former_session_is_drained_after_the_present_one_has_subscribed() {
        let mut phase = Phase::Looking.after(Course::Answered {
            session_present: true,
        });
        assert_eq!(phase, Phase::Preparing);
        for expected in [Phase::Draining, Phase::Own, Phase::Own] {
            phase = phase.after(Course::Done);
            assert_eq!(phase, expected);
        }
        let none = Course::Answered {
            session_present: false,
        };
        assert_eq!(Phase::Looking.after(none), Phase::Own);
        for phase in &ALL[1..] {
            assert_eq!(phase.after(none), *phase);
        }
    }

    #[test]
    fn a_broker_with_the_former_users_serves_the_session_as_before() {
        let refused = ALL.map(|phase| phase.after(Course::Refused));
        let expected = [
            Phase::Own,
            Phase::Before,
            Phase::Own,
            Phase::Before,
            Phase::Own,
        ];
        assert_eq!(refused, expected);
    }
}
