//! What happened between two statuses of a node, as events for people and programs: each once, when
//! something becomes so, not for as long as it is.

use haar_protocol::ids::Name;
use haar_protocol::quantity::ByteSize;
use haar_protocol::status::{
    BacklogStatus, FlashStatus, MicroserviceStatus, Overflow, RouteStatus, State, Status,
    StoreDamage, StoreStatus,
};

/// Events that one status may cause; a node that makes more is broken or hostile.
const EVENTS_MAX: usize = 50;
const DETAILS_CHARACTERS_MAX: usize = 200;

/// An event to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    /// For programs.
    pub(crate) kind: &'static str,
    /// What it is about.
    pub(crate) subject: String,
    /// For people.
    pub(crate) message: String,
}

/// What has changed since the last status, if there was one.
pub(super) fn changes(before: Option<&Status>, after: &Status, node: &Name) -> Vec<Told> {
    let mut events = Vec::new();
    if let Some(refused) = &after.refused
        && before.and_then(|before| before.refused.as_ref()) != Some(refused)
    {
        let number = refused
            .number
            .map_or_else(String::new, |number| format!(" {number}"));
        events.push(Told {
            kind: "assignment_refused",
            subject: node.to_string(),
            message: format!(
                "node `{node}` refused assignment{number}: {}",
                refused.reason
            ),
        });
    }
    for microservice in &after.microservices {
        let last = before.and_then(|before| {
            before
                .microservices
                .iter()
                .find(|other| other.name == microservice.name)
        });
        events.extend(change(last, microservice, node));
        events.extend(failure(last, microservice, node));
    }
    events.extend(discarded(before, after, node));
    events.extend(wear(before, after, node));
    events.extend(store(before, after, node));
    events.extend(routes(before, after, node));
    // What an agent has counted begins anew with it.
    let before = before.filter(|before| before.started_ms == after.started_ms);
    for backlog in &after.backlogs {
        let last = before.and_then(|before| {
            let mut others = before.backlogs.iter();
            others.find(|other| other.name == backlog.name && other.outlet == backlog.outlet)
        });
        events.extend(overflows(last, backlog, node));
    }
    events.truncate(EVENTS_MAX);
    events
}

/// Messages were discarded because somebody has changed or deleted what they waited for.
fn discarded(before: Option<&Status>, after: &Status, node: &Name) -> Option<Told> {
    let known = before?.discarded;
    let messages = after.discarded.messages.saturating_sub(known.messages);
    let routes = after.discarded.episodes.saturating_sub(known.episodes);
    let plural = |count| if count == 1 { "" } else { "s" };
    (messages > 0).then(|| Told {
        kind: "messages_discarded",
        subject: node.to_string(),
        message: format!(
            "node `{node}` discarded {messages} message{}, which waited on {routes} route{} that somebody has changed or deleted",
            plural(messages),
            plural(routes)
        ),
    })
}

/// A route from or to a topic does less than its manifest says, or all of it again.
fn routes(before: Option<&Status>, after: &Status, node: &Name) -> Vec<Told> {
    let problem_of = |status: &Status, like: &RouteStatus| {
        let mut routes = status.routes.iter();
        let found = routes.find(|one| (one.id, &one.peer) == (like.id, &like.peer))?;
        found.problem.clone()
    };
    let of_topics = after.routes.iter().filter(|route| route.topic.is_some());
    let changed = of_topics.filter_map(|route| {
        let last = before.and_then(|before| problem_of(before, route));
        let topic = route.topic.as_deref().unwrap_or_default();
        let (kind, what) = match &route.problem {
            now if *now == last => return None,
            // An agent that has started does not know yet.
            None if before.is_some_and(|one| one.started_ms != after.started_ms) => return None,
            Some(problem) => ("route_limited", line(problem)),
            None => (
                "route_restored",
                "it does all that its manifest says".to_owned(),
            ),
        };
        Some(Told {
            kind,
            subject: node.to_string(),
            message: format!("route `{}` on node `{node}`: {what}", line(topic)),
        })
    });
    changed.collect()
}

/// The agent's database was found damaged, or can't be used.
fn store(before: Option<&Status>, after: &Status, node: &Name) -> Vec<Told> {
    let known = before.and_then(|before| before.store.as_ref());
    let mut told = Vec::new();
    let problem = |store: Option<&StoreStatus>| store.is_some_and(|store| store.problem.is_some());
    if problem(known) && !problem(after.store.as_ref()) {
        told.push(Told {
            kind: "store_usable",
            subject: node.to_string(),
            message: format!("node `{node}` can use its database again"),
        });
    }
    let Some(store) = &after.store else {
        return told;
    };
    if let Some(damage) = &store.damage
        && known.and_then(|known| known.damage.as_ref()) != Some(damage)
    {
        told.push(Told {
            kind: "store_damaged",
            subject: node.to_string(),
            message: format!(
                "the database of node `{node}` was damaged: {}",
                loss(damage)
            ),
        });
    }
    if let Some(problem) = &store.problem
        && known.is_none_or(|known| {
            known.problem.is_none() || known.free_bytes.is_some() != store.free_bytes.is_some()
        })
    {
        let problem = line(problem);
        let (kind, message) = match store.free_bytes {
            Some(free) => (
                "disk_full",
                format!(
                    "the disk with the data of node `{node}` is full, {} are free: {problem}",
                    ByteSize(free)
                ),
            ),
            None => (
                "store_unusable",
                format!("node `{node}` can't use its database: {problem}"),
            ),
        };
        told.push(Told {
            kind,
            subject: node.to_string(),
            message,
        });
    }
    told
}

/// What is lost with a damaged database, and what is not.
fn loss(damage: &StoreDamage) -> String {
    let missing = match damage.missing.is_empty() {
        true => "everything could be copied".to_owned(),
        false => format!(
            "not all could be copied of its {}",
            line(&damage.missing.join(", "))
        ),
    };
    let lost = match damage.messages_missing {
        0 => String::new(),
        lost => format!(", at least {lost} are lost"),
    };
    format!(
        "{}; {missing}; of the messages that waited on durable routes {} are there{lost}",
        line(&damage.reason),
        damage.messages
    )
}

/// As much of a text from a node as an event shows.
fn line(text: &str) -> String {
    text.lines()
        .next()
        .unwrap_or_default()
        .chars()
        .filter(|character| !character.is_control())
        .take(DETAILS_CHARACTERS_MAX)
        .collect()
}

/// More was written to the flash today than its owner wants.
fn wear(before: Option<&Status>, after: &Status, node: &Name) -> Option<Told> {
    let flash = after.flash.filter(FlashStatus::is_over_budget)?;
    let was_over = before
        .and_then(|before| before.flash)
        .is_some_and(|flash| flash.is_over_budget());
    (!was_over).then(|| Told {
        kind: "flash_budget_exceeded",
        subject: node.to_string(),
        message: format!(
            "node `{node}` has written {} to its flash today, more than its `flash_budget` of {}",
            ByteSize(flash.today_bytes),
            ByteSize(flash.budget_bytes.unwrap_or_default())
        ),
    })
}

fn change(
    before: Option<&MicroserviceStatus>,
    after: &MicroserviceStatus,
    node: &Name,
) -> Option<Told> {
    let reason = after
        .reason
        .as_ref()
        .map_or_else(String::new, |reason| format!(": {reason}"));
    let restarts = before.map_or(0, |before| before.restarts);
    let is_new_state = before.is_none_or(|before| {
        // Hibernating and waking up is all in a day's work.
        let is_up_still = before.state.is_up() && after.state.is_up();
        (before.state != after.state && !is_up_still) || before.module != after.module
    });
    let was_refused = before.and_then(|before| before.refused_module);
    let (kind, what) = match after.state {
        _ if after.refused_module.is_some() && after.refused_module != was_refused => (
            "microservice_refused",
            format!("goes on as before on `{node}`: the change was refused{reason}"),
        ),
        State::Running if is_new_state && after.restarts > 0 => (
            "microservice_running",
            format!("runs again on `{node}`, {}", after.module_label),
        ),
        State::Running if is_new_state => (
            "microservice_running",
            format!("runs on `{node}`, {}", after.module_label),
        ),
        State::Running if after.restarts > restarts => (
            "microservice_restarted",
            format!("was restarted on `{node}`{reason}"),
        ),
        State::BackOff if is_new_state || after.restarts > restarts => (
            "microservice_back_off",
            format!("failed on `{node}` and waits{reason}"),
        ),
        State::Refused if is_new_state => (
            "microservice_refused",
            format!("does not run on `{node}`{reason}"),
        ),
        _ => return None,
    };
    Some(Told {
        kind,
        subject: after.name.to_string(),
        message: what,
    })
}

/// A failure of another cause than the last one is worth an event of its own: what fails in one
/// way again and again is told by its restarts.
fn failure(
    before: Option<&MicroserviceStatus>,
    after: &MicroserviceStatus,
    node: &Name,
) -> Option<Told> {
    let report = after.last_failure.as_ref()?;
    let known = before.and_then(|before| before.last_failure.as_ref());
    if known.is_some_and(|known| known.cause == report.cause || known.time_ms == report.time_ms) {
        return None;
    }
    let details = line(&report.details);
    Some(Told {
        kind: "microservice_failed",
        subject: after.name.to_string(),
        message: format!("failed on `{node}`: {}: {details}", report.cause),
    })
}

/// A log that has become full since: once for as long as it stays so.
fn overflows(
    before: Option<&BacklogStatus>,
    after: &BacklogStatus,
    node: &Name,
) -> impl Iterator<Item = Told> {
    let began = |of: fn(&BacklogStatus) -> Overflow| {
        let known = before.map_or(0, |before| of(before).episodes);
        let told = of(after).episodes;
        told > known || (told > 0 && told < known) // or it is another log, which counts anew
    };
    let size = ByteSize(after.bytes_max);
    let outlet = &after.outlet;
    let told = |kind, what| Told {
        kind,
        subject: after.name.to_string(),
        message: format!("the backlog of outlet `{outlet}` on `{node}` is full ({size}): {what}"),
    };
    let refused = began(|backlog| backlog.refused)
        .then(|| told("backlog_full", "what it publishes is refused"));
    let dropped = began(|backlog| backlog.dropped)
        .then(|| told("backlog_dropped", "the oldest messages are dropped"));
    refused.into_iter().chain(dropped)
}
