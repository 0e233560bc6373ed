//! Decides what to believe of what nodes report, and what it means. Pure: the relay is not trusted,
//! so a report counts only when its topic, its content and the node's signature agree. `relay_link`
//! feeds it and acts on the outcome.

use haar_protocol::ids::{Name, NodeId, SiteId};
use haar_protocol::keys::PublicKey;
use haar_protocol::log::{LogBatch, LogLine};
use haar_protocol::signed;
use haar_protocol::status::{MicroserviceStatus, State, Status};

use crate::db::statuses::StatusRow;

/// Events that one status may cause; a node that makes more is broken or hostile.
const EVENTS_MAX: usize = 50;
const DETAILS_CHARACTERS_MAX: usize = 200;
const BATCH_LINES_MAX: usize = 2_000;
const LINE_BYTES_MAX: usize = 8 * 1024;
const CONTEXT_BYTES_MAX: usize = 256;

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

/// What a believed status changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Accepted {
    /// What is kept of it.
    pub(crate) row: StatusRow,
    /// What happened since the last one.
    pub(crate) events: Vec<Told>,
    /// The node has seen this assignment number, and ours is not above it: issue a higher one.
    pub(crate) reissue_above: Option<u64>,
}

/// Reads the envelope of a status that came on the topic of `node`.
///
/// # Errors
/// Why it is not believed.
pub(crate) fn open_status(
    payload: &[u8],
    site: &SiteId,
    node: &NodeId,
    key: &PublicKey,
) -> Result<Status, String> {
    let status: Status = signed::open(payload, key).map_err(|error| error.to_string())?;
    if &status.node != node || &status.site != site {
        return Err("it speaks for another node or site than its topic".into());
    }
    Ok(status)
}

/// Compares a status with the last one. None when it is older, or the same again. `retained` ones
/// tell nothing about the node's clock. `number` is that of the node's newest assignment.
pub(crate) fn accept(
    last: Option<&StatusRow>,
    status: Status,
    name: &Name,
    retained: bool,
    number: u64,
    now_ms: u64,
) -> Option<Accepted> {
    let missed = match last {
        None => 0,
        Some(last) if status.sequence > last.status.sequence => last
            .missed
            .saturating_add(status.sequence - last.status.sequence - 1),
        // The same key enrolled again and counts anew: its agent must have started since.
        Some(last) if status.started_ms > last.status.started_ms => last.missed,
        Some(_) => return None,
    };
    let skew = i64::try_from(i128::from(status.sent_ms) - i128::from(now_ms)).ok();
    let clock_skew_ms = if retained {
        last.and_then(|last| last.clock_skew_ms)
    } else {
        skew
    };
    let events = changes(last.map(|last| &last.status), &status, name);
    let reissue_above = seen_above(&status, number);
    Some(Accepted {
        row: StatusRow {
            status,
            missed,
            clock_skew_ms,
        },
        events,
        reissue_above,
    })
}

/// A node only ever takes higher numbers. It is ahead of us when our database was restored from an
/// older copy: then it refuses what we issue, until that has a higher number.
fn seen_above(status: &Status, number: u64) -> Option<u64> {
    let refused = status.refused.as_ref().and_then(|refused| refused.number);
    let is_stuck = refused == Some(number) && status.applied == number;
    (status.applied > number || is_stuck).then_some(status.applied)
}

fn changes(before: Option<&Status>, after: &Status, node: &Name) -> Vec<Told> {
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
        if events.len() >= EVENTS_MAX {
            break;
        }
    }
    events
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
    let is_new_state =
        before.is_none_or(|before| before.state != after.state || before.module != after.module);
    let (kind, what) = match after.state {
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
    let details: String = report
        .details
        .lines()
        .next()
        .unwrap_or_default()
        .chars()
        .filter(|character| !character.is_control())
        .take(DETAILS_CHARACTERS_MAX)
        .collect();
    Some(Told {
        kind: "microservice_failed",
        subject: after.name.to_string(),
        message: format!("failed on `{node}`: {}: {details}", report.cause),
    })
}

/// Reads a batch of log lines. Nothing in it is signed: it is only as true as the relay.
///
/// # Errors
/// Why it is not believed.
pub(crate) fn open_logs(payload: &[u8]) -> Result<Vec<LogLine>, String> {
    let batch: LogBatch = serde_json::from_slice(payload).map_err(|error| error.to_string())?;
    if batch.version != 1 {
        return Err(format!(
            "its version {} is not read by this release",
            batch.version
        ));
    }
    if batch.lines.len() > BATCH_LINES_MAX {
        return Err(format!(
            "{} lines are more than {BATCH_LINES_MAX}",
            batch.lines.len()
        ));
    }
    let mut lines = batch.lines;
    for line in &mut lines {
        clip(&mut line.text, LINE_BYTES_MAX);
        clip(&mut line.context, CONTEXT_BYTES_MAX);
    }
    Ok(lines)
}

fn clip(text: &mut String, bytes_max: usize) {
    if text.len() > bytes_max {
        let end = (0..=bytes_max)
            .rev()
            .find(|end| text.is_char_boundary(*end))
            .unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
}

/// Whether a node is there, as its topic `up/alive` says; none when it says something else. What the
/// embedded relay kept over a restart is old: nobody has withdrawn the `online` of those that left.
pub(crate) fn open_alive(
    payload: &[u8],
    retained: bool,
    is_first_connection: bool,
) -> Option<bool> {
    match payload {
        b"online" => (!(retained && is_first_connection)).then_some(true),
        b"offline" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use haar_protocol::assignment::MicroserviceName;
    use haar_protocol::ids::Digest;
    use haar_protocol::keys::SecretKey;
    use haar_protocol::limits::Budget;
    use haar_protocol::log::{Level, Stream};
    use haar_protocol::quantity::ByteSize;
    use haar_protocol::status::{FailureCause, FailureReport, RefusedAssignment};

    use super::*;

    fn key(seed: u8) -> SecretKey {
        SecretKey::from_seed([seed; 32])
    }

    fn status(sequence: u64, started_ms: u64) -> Status {
        Status {
            site: SiteId::of(&key(1).public()),
            node: NodeId::of(&key(2).public()),
            sequence,
            sent_ms: 5_000,
            started_ms,
            link_key: None,
            link_key_generation: 0,
            agent_version: "0.1.0".into(),
            target: "t".into(),
            applied: 1,
            refused: None,
            budget: Budget::new(ByteSize(1), 1),
            resident_bytes: 1,
            microservices: Vec::new(),
            routes: Vec::new(),
            frames_refused: 0,
        }
    }

    fn microservice(state: State, restarts: u64) -> MicroserviceStatus {
        MicroserviceStatus {
            name: MicroserviceName {
                application: "app".parse().unwrap(),
                microservice: "one".parse().unwrap(),
            },
            module: Digest::of(b""),
            module_label: "one@1".into(),
            state,
            reason: Some("because".into()),
            since_ms: 0,
            restarts,
            calls: 0,
            failures: 0,
            fuel: 0,
            memory_bytes: 0,
            log_lines_dropped: 0,
            cpu_ms: 0,
            inbox_messages: 0,
            key_value_bytes: 0,
            files_bytes: 0,
            dead_letters: 0,
            exceeded: Default::default(),
            last_failure: None,
        }
    }

    fn take(last: Option<&StatusRow>, status: Status) -> Option<Accepted> {
        accept(last, status, &"gw".parse().unwrap(), false, 1, 4_000)
    }

    #[test]
    fn a_gap_is_counted_and_an_older_status_ignored() {
        let first = take(None, status(5, 100)).unwrap().row;
        assert_eq!((first.missed, first.clock_skew_ms), (0, Some(1_000)));
        let later = take(Some(&first), status(9, 100)).unwrap().row;
        assert_eq!(later.missed, 3);
        assert!(take(Some(&later), status(9, 100)).is_none());
        assert!(take(Some(&later), status(8, 50)).is_none());
        let restarted = take(Some(&later), status(1, 200)).unwrap().row;
        assert_eq!((restarted.status.sequence, restarted.missed), (1, 3));
    }

    #[test]
    fn a_retained_status_tells_nothing_about_the_clock() {
        let row = accept(None, status(1, 1), &"gw".parse().unwrap(), true, 1, 4_000)
            .unwrap()
            .row;
        assert_eq!(row.clock_skew_ms, None);
    }

    #[test]
    fn a_status_counts_only_with_its_node_its_site_and_its_key() {
        let (site, node) = (SiteId::of(&key(1).public()), NodeId::of(&key(2).public()));
        let sealed = signed::seal(&status(1, 1), &key(2)).unwrap();
        assert!(open_status(&sealed, &site, &node, &key(2).public()).is_ok());
        assert!(open_status(&sealed, &site, &node, &key(3).public()).is_err());
        let other = NodeId::of(&key(3).public());
        assert!(
            open_status(&sealed, &site, &other, &key(2).public())
                .unwrap_err()
                .contains("another node")
        );
        assert!(open_status(&sealed[..80], &site, &node, &key(2).public()).is_err());
        assert!(open_status(b"", &site, &node, &key(2).public()).is_err());
    }

    #[test]
    fn changes_of_state_become_events_once() {
        let kinds = |last: Option<&StatusRow>, state, restarts| {
            let mut next = status(last.map_or(1, |last| last.status.sequence + 1), 1);
            next.microservices = vec![microservice(state, restarts)];
            let accepted = take(last, next).unwrap();
            let kinds: Vec<&str> = accepted.events.iter().map(|event| event.kind).collect();
            (accepted.row, kinds)
        };
        let (row, events) = kinds(None, State::Running, 0);
        assert_eq!(events, ["microservice_running"]);
        let (row, events) = kinds(Some(&row), State::Running, 0);
        assert!(events.is_empty());
        let (row, events) = kinds(Some(&row), State::BackOff, 0);
        assert_eq!(events, ["microservice_back_off"]);
        let (row, events) = kinds(Some(&row), State::Running, 1);
        assert_eq!(events, ["microservice_running"]);
        let (row, events) = kinds(Some(&row), State::Running, 2);
        assert_eq!(events, ["microservice_restarted"]);
        let (_, events) = kinds(Some(&row), State::Refused, 2);
        assert_eq!(events, ["microservice_refused"]);
    }

    #[test]
    fn a_failure_with_a_new_cause_becomes_an_event() {
        let failed = |cause, time_ms| {
            let mut one = microservice(State::Running, 0);
            one.last_failure = Some(FailureReport {
                time_ms,
                cause,
                details: "100 units\u{1b}\nmore".into(),
                backtrace: Vec::new(),
                last_lines: Vec::new(),
            });
            one
        };
        let events = |last: Option<&StatusRow>, one: MicroserviceStatus| {
            let mut next = status(last.map_or(1, |last| last.status.sequence + 1), 1);
            next.microservices = vec![one];
            let accepted = take(last, next).unwrap();
            let told = accepted.events.into_iter();
            let failures: Vec<Told> = told
                .filter(|event| event.kind == "microservice_failed")
                .collect();
            (accepted.row, failures)
        };
        let (row, told) = events(None, microservice(State::Running, 0));
        assert!(told.is_empty());
        let (row, told) = events(Some(&row), failed(FailureCause::Fuel, 1));
        assert_eq!(told[0].message, "failed on `gw`: out of fuel: 100 units");
        let (row, told) = events(Some(&row), failed(FailureCause::Fuel, 2));
        assert!(told.is_empty(), "the same cause again");
        let (_, told) = events(Some(&row), failed(FailureCause::Memory, 3));
        assert_eq!(told.len(), 1);
    }

    #[test]
    fn a_node_that_is_ahead_of_us_gets_a_higher_number() {
        let ahead = Status {
            applied: 7,
            ..status(1, 1)
        };
        assert_eq!(take(None, ahead).unwrap().reissue_above, Some(7));
        let refused = Some(RefusedAssignment {
            number: Some(1),
            reason: "other content".into(),
        });
        let stuck = Status {
            applied: 1,
            refused,
            ..status(1, 1)
        };
        let accepted = take(None, stuck).unwrap();
        assert_eq!(accepted.reissue_above, Some(1));
        assert_eq!(accepted.events[0].kind, "assignment_refused");
        assert_eq!(take(None, status(1, 1)).unwrap().reissue_above, None);
    }

    #[test]
    fn log_batches_are_bounded() {
        let line = |text: String| LogLine {
            name: microservice(State::Running, 0).name,
            sequence: 1,
            time_ms: 1,
            level: Level::Info,
            stream: Stream::Log,
            context: String::new(),
            text,
        };
        let encode = |lines| serde_json::to_vec(&LogBatch { version: 1, lines }).unwrap();
        let lines = open_logs(&encode(vec![line("é".repeat(LINE_BYTES_MAX))])).unwrap();
        assert!(lines[0].text.len() <= LINE_BYTES_MAX + 3);
        assert!(open_logs(&encode(vec![line(String::new()); BATCH_LINES_MAX + 1])).is_err());
        assert!(open_logs(b"{}").is_err());
    }

    #[test]
    fn what_a_restarted_relay_kept_does_not_make_a_node_online() {
        assert_eq!(open_alive(b"online", true, true), None);
        assert_eq!(open_alive(b"online", true, false), Some(true));
        assert_eq!(open_alive(b"online", false, true), Some(true));
        assert_eq!(open_alive(b"offline", true, true), Some(false));
        assert_eq!(open_alive(b"whatever", false, false), None);
    }
}
