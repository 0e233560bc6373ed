//! The health of one instance on one node.

use haar_protocol::ids::Digest;
use haar_protocol::manifest::Place;
use haar_protocol::rest::{Cause, Health, HealthState};
use haar_protocol::status::{MicroserviceStatus, State};

use super::node::{NodeFacts, unheard};

/// What is known of an instance.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Instance<'a> {
    /// Its node.
    pub(crate) node: NodeFacts<'a>,
    /// What the node last said of it.
    pub(crate) status: Option<&'a MicroserviceStatus>,
    /// What it should be; none when the site does not want it any more.
    pub(crate) wanted: Option<Wanted<'a>>,
    /// True when the node's last status has no room for it.
    pub(crate) is_omitted: bool,
}

/// What an instance should be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    /// Its module.
    pub(crate) module: Digest,
    /// The assignment of its node in which it was last changed.
    pub(crate) assignment: u64,
    /// Where it may run.
    pub(crate) place: &'a Place,
}

/// The health of an instance.
pub(crate) fn instance(instance: &Instance<'_>) -> Health {
    let facts = &instance.node;
    let health = match unheard(facts) {
        Some(unknown) => unreached(instance, unknown),
        None => match instance.wanted {
            Some(wanted) => as_reported(instance, wanted),
            None => left_over(instance),
        },
    };
    Health {
        age_ms: facts.age_ms(),
        ..health
    }
}

/// Its node is not heard: what it was is all that is known.
fn unreached(instance: &Instance<'_>, unknown: Health) -> Health {
    let reason = unknown.reason.unwrap_or_default();
    let then = match (instance.status, instance.wanted) {
        (Some(status), Some(_)) => format!("; it was {} then", status.state),
        (Some(_), None) => "; it may still run there, though it is not wanted any more".to_owned(),
        (None, _) => "; nothing was ever reported of it".to_owned(),
    };
    Health {
        reason: Some(format!("{reason}{then}")),
        hint: instance.wanted.map(|wanted| how_to_move(instance, &wanted)),
        ..unknown
    }
}

/// Nothing moves by itself: a node that can't be reached may still run what it was assigned.
fn how_to_move(instance: &Instance<'_>, wanted: &Wanted<'_>) -> String {
    let node = instance.node.name();
    match (&wanted.place.node, wanted.place.count) {
        (Some(_), _) => format!(
            "it runs where its `place` says: bring `{node}` back, or apply it with another `place`"
        ),
        (None, Some(_)) => format!(
            "it stays placed on `{node}`: bring that back, or `haar delete node {node}` to have it placed on another node that matches (its device must enrol again then)"
        ),
        (None, None) => format!(
            "it runs on every node that matches: bring `{node}` back, or `haar delete node {node}` if it does not come back"
        ),
    }
}

fn as_reported(instance: &Instance<'_>, wanted: Wanted<'_>) -> Health {
    let facts = &instance.node;
    let name = facts.name();
    let progressing = |cause, reason| Health::because(HealthState::Progressing, cause, reason);
    let failed = |cause, reason| Health::because(HealthState::Failed, cause, reason);
    let Some(node) = facts.status.map(|row| &row.status) else {
        let reason = format!("`{name}` is connected and has not reported yet");
        return progressing(Cause::NotReported, reason);
    };
    if node.applied < wanted.assignment {
        let refused = node.refused.as_ref().filter(|refused| {
            refused
                .number
                .is_none_or(|number| number >= wanted.assignment)
        });
        return match refused {
            Some(refused) => failed(
                Cause::AssignmentRefused,
                format!("`{name}` refuses its assignment: {}", refused.reason),
            ),
            None => progressing(
                Cause::AssignmentPending,
                format!("`{name}` has not taken its assignment yet"),
            ),
        };
    }
    let Some(status) = instance.status else {
        return match instance.is_omitted {
            true => Health::because(
                HealthState::Unknown,
                Cause::NoRoomInStatus,
                format!("the status of `{name}` has no room for it"),
            ),
            false => progressing(
                Cause::NotReported,
                format!("`{name}` has not reported it yet"),
            ),
        };
    };
    let why = |what: &str| match &status.reason {
        Some(reason) => format!("{what}: {reason}"),
        None => what.to_owned(),
    };
    let mut health = if status.refused_module == Some(wanted.module) {
        failed(
            Cause::ChangeRefused,
            why(&format!(
                "`{name}` refuses the change, and it goes on as before"
            )),
        )
    } else {
        match status.state {
            State::Refused => failed(Cause::Refused, why(&format!("`{name}` does not run it"))),
            _ if status.module != wanted.module => progressing(
                Cause::OtherModule,
                format!("it still is {}, {}", status.module_label, status.state),
            ),
            _ if status.configuring => progressing(
                Cause::Configuring,
                "it has not answered to its configuration yet".to_owned(),
            ),
            State::Running | State::Hibernating => Health::new(HealthState::Healthy),
            State::Preparing => progressing(
                Cause::Preparing,
                why("its module is fetched, verified or compiled"),
            ),
            State::BackOff => failed(
                Cause::BackOff,
                why("it failed, and starts again after a pause"),
            ),
            State::Stopping => progressing(Cause::Stopping, why("it stops")),
        }
    };
    health.since_ms = facts.by_our_clock(status.since_ms);
    health
}

/// The site does not want it any more, and its node still reports it.
fn left_over(instance: &Instance<'_>) -> Health {
    let state = instance.status.map(|status| status.state);
    let what = state.map_or_else(String::new, |state| format!(", and is {state} yet"));
    Health {
        since_ms: instance
            .status
            .and_then(|status| instance.node.by_our_clock(status.since_ms)),
        ..Health::because(
            HealthState::Progressing,
            Cause::Stopping,
            format!("it is not wanted any more{what}"),
        )
    }
}
