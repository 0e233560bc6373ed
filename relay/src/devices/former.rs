//! The session that agents of earlier releases had at the broker: one client id for all relays of a
//! node. With its first connection a session looks whether the broker still keeps one. Its messages
//! are taken, in order, before those of the present one, and then it is forgotten. An agent that ends
//! meanwhile goes on when it is started again.
//!
//! ```text
//!            it is there           subscribed, takes nothing          silent
//!   looking ────────────► preparing ────────────────► draining ─────────────► own
//!    │  └───────────────►  │  ▲  │ ▲       refused      │                     ▲  │
//!    │      refused        │  │  │ └────────────────────┘                     │  │
//!    │                     │  │  └─────► as before ◄─────────────────────────┼──┘
//!    │                     │  │ refused      │                               │ refused
//!    │                     │  │ twice        │                               │ twice
//!    │                     │  └──────────────┘ the next connection           │
//!    └─────────────────────┴─────────────────────────────────────────────────┘
//!     none, or refused where the present identity was accepted
//! ```
//! As before: for brokers that know the former users only. A broker may refuse for a moment whom it
//! knows: its password file is half written, what it asks for users is away. So what one refusal
//! means is read from what the broker has accepted and refused in this run: see [`Answers`]. One that
//! refuses both knows nobody, and is asked again. When it refuses the former user while the session is
//! drained, it is looked once more whether there still is one.

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

    /// What the next connection is for, by what the broker has answered up to now.
    pub(super) fn after(self, course: Course, answers: Answers) -> Phase {
        match (self, course) {
            (
                Phase::Looking,
                Course::Answered {
                    session_present: true,
                },
            ) => Phase::Preparing,
            (Phase::Looking, Course::Answered { .. }) => Phase::Own,
            // A broker that does not know the former users accepts the present identity: then it is
            // looked for once more.
            (Phase::Looking, Course::Refused) => match answers.accepts_own {
                true => Phase::Own,
                false => Phase::Preparing,
            },
            (Phase::Preparing, Course::Done) => match answers.accepts_former {
                true => Phase::Draining,
                false => Phase::Looking,
            },
            (Phase::Preparing | Phase::Own, Course::Refused) if answers.accepts_own => self,
            (Phase::Preparing | Phase::Own, Course::Refused) if answers.accepts_former => {
                match answers.refuses_own {
                    true => Phase::Before,
                    false => self,
                }
            }
            (Phase::Preparing, Course::Refused) => Phase::Looking,
            (Phase::Draining, Course::Refused) => Phase::Preparing,
            (Phase::Draining, Course::Done) => Phase::Own,
            // The broker may know the present identity by now.
            (Phase::Before, _) => Phase::Preparing,
            (phase, _) => phase,
        }
    }

    /// True when the next connection follows at once, and the session's owner does not hear of the
    /// end of this one.
    pub(super) fn passes_to(self, next: Phase) -> bool {
        let is_again = (self, next) == (Phase::Preparing, Phase::Looking);
        !self.is_announced() && next != self && !is_again
    }
}

/// How the broker has answered to both identities in this run. One that it has accepted is expected to be
/// accepted again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Answers {
    /// It has accepted the present one.
    pub(super) accepts_own: bool,
    /// It has accepted that of agents before.
    pub(super) accepts_former: bool,
    /// It has refused the present one with the last connection as such.
    has_refused_own: bool,
    /// With the last two.
    pub(super) refuses_own: bool,
}

impl Answers {
    /// Notes what a connection has led to.
    pub(super) fn note(&mut self, phase: Phase, course: Course) {
        match (phase, course) {
            // It may know the present identity only by now.
            (Phase::Before | Phase::Draining, Course::Refused) => self.accepts_former = false,
            (Phase::Looking, Course::Refused) => {}
            (_, Course::Refused) => {
                self.refuses_own = self.has_refused_own;
                self.has_refused_own = true;
            }
            (phase, _) if phase.is_former() => self.accepts_former = true,
            _ => {
                self.accepts_own = true;
                (self.has_refused_own, self.refuses_own) = (false, false);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Phase::{Before, Draining, Looking, Own, Preparing};
    use super::*;

    const REFUSED: Course = Course::Refused;
    const NONE: Course = Course::Answered {
        session_present: false,
    };
    const THERE: Course = Course::Answered {
        session_present: true,
    };
    const DONE: Course = Course::Done;

    /// Goes through the connections of a run: what each leads to, and the phase after it.
    fn run(connections: &[(Course, Phase)]) {
        let (mut phase, mut answers) = (Looking, Answers::default());
        for (number, (course, expected)) in connections.iter().enumerate() {
            answers.note(phase, *course);
            phase = phase.after(*course, answers);
            assert_eq!(phase, *expected, "after connection {number}");
        }
    }

    #[test]
    fn a_former_session_is_drained_after_the_present_one_has_subscribed() {
        run(&[
            (THERE, Preparing),
            (NONE, Preparing), // cut off
            (DONE, Draining),
            (THERE, Draining), // cut off
            (DONE, Own),
            (THERE, Own),
        ]);
        run(&[(NONE, Own), (NONE, Own), (THERE, Own)]);
    }

    #[test]
    fn a_refusal_for_a_moment_does_not_change_who_connects() {
        run(&[
            (NONE, Own),
            (NONE, Own),
            (REFUSED, Own),
            (REFUSED, Own),
            (THERE, Own),
        ]);
        run(&[
            (THERE, Preparing),
            (NONE, Preparing),
            (REFUSED, Preparing),
            (REFUSED, Preparing),
            (DONE, Draining),
            (REFUSED, Preparing),
            (REFUSED, Preparing),
            (DONE, Looking),
            (THERE, Preparing),
            (DONE, Draining),
            (DONE, Own),
            (REFUSED, Own),
        ]);
    }

    #[test]
    fn a_broker_that_refuses_everybody_is_asked_until_it_knows_somebody() {
        run(&[
            (REFUSED, Preparing),
            (REFUSED, Looking),
            (REFUSED, Preparing),
            (DONE, Looking),
            (THERE, Preparing),
            (DONE, Draining),
            (DONE, Own),
        ]);
        run(&[
            (REFUSED, Preparing),
            (REFUSED, Looking),
            (THERE, Preparing),
            (DONE, Draining),
        ]);
    }

    #[test]
    fn at_a_broker_with_the_present_users_only_nothing_is_taken_over() {
        run(&[
            (REFUSED, Preparing),
            (DONE, Looking),
            (REFUSED, Own),
            (THERE, Own),
        ]);
        // The former ones go while a session of theirs is drained.
        run(&[
            (THERE, Preparing),
            (DONE, Draining),
            (REFUSED, Preparing),
            (DONE, Looking),
            (REFUSED, Own),
            (THERE, Own),
        ]);
    }

    #[test]
    fn one_refusal_of_the_present_identity_does_not_make_it_the_former_one() {
        run(&[(NONE, Own), (REFUSED, Own), (THERE, Own), (REFUSED, Own)]);
        run(&[(THERE, Preparing), (REFUSED, Preparing), (DONE, Draining)]);
    }

    #[test]
    fn a_broker_with_the_former_users_serves_the_session_as_before() {
        run(&[
            (NONE, Own),
            (REFUSED, Own),
            (REFUSED, Before),
            (NONE, Preparing),
            (REFUSED, Before),
            (THERE, Preparing),
            // It has the present ones, too.
            (DONE, Draining),
            (DONE, Own),
        ]);
        run(&[
            (THERE, Preparing),
            (REFUSED, Preparing),
            (REFUSED, Before),
            (THERE, Preparing),
            (REFUSED, Before),
            // It has the present ones instead.
            (REFUSED, Preparing),
            (DONE, Looking),
            (REFUSED, Own),
        ]);
    }

    #[test]
    fn a_broker_that_refuses_everybody_is_not_asked_without_a_pause() {
        assert!(Looking.passes_to(Preparing) && Preparing.passes_to(Draining));
        assert!(Preparing.passes_to(Before) && Looking.passes_to(Own));
        assert!(!Preparing.passes_to(Looking) && !Preparing.passes_to(Preparing));
        assert!(!Before.passes_to(Preparing) && !Draining.passes_to(Own));
        assert!(!Draining.passes_to(Preparing) && !Own.passes_to(Own));
    }
}
