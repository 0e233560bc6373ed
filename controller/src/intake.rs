//! Decides what to believe of what nodes report, and what it means. Pure: the relay is not trusted,
//! so a report counts only when its topic, its content and the node's signature agree. `relay_link`
//! feeds it and acts on the outcome.

mod events;
pub(crate) mod gaps;
mod starts;
#[cfg(test)]
mod tests;

use haar_protocol::ids::{Name, NodeId, SiteId};
use haar_protocol::keys::{LinkKey, PublicKey};
use haar_protocol::limits::Budget;
use haar_protocol::log::{LogBatch, LogLine};
use haar_protocol::number;
use haar_protocol::signed;
use haar_protocol::status::Status;

use crate::db::nodes::NodeRow;
use crate::db::statuses::StatusRow;

pub(crate) use events::Told;
pub(crate) use starts::{AllStarts, Clash};

/// How far one report of a node raises a number that the site counts.
const COUNT_STEP_MAX: u64 = 1 << 20;
/// Bytes of the longest word on `up/alive` that is read.
pub(crate) const ALIVE_BYTES_MAX: usize = 16;
const BATCH_LINES_MAX: usize = 2_000;
const LINE_BYTES_MAX: usize = 8 * 1024;
const CONTEXT_BYTES_MAX: usize = 256;

/// What a believed status changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Accepted {
    /// What is kept of it.
    pub(crate) row: StatusRow,
    /// What happened since the last one.
    pub(crate) events: Vec<Told>,
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
/// tell nothing about the node's clock.
pub(crate) fn accept(
    last: Option<&StatusRow>,
    status: Status,
    name: &Name,
    retained: bool,
    now_ms: u64,
) -> Option<Accepted> {
    let missed = missed(last, &status, retained)?;
    let skew = i64::try_from(i128::from(status.sent_ms) - i128::from(now_ms)).ok();
    let clock_skew_ms = if retained {
        last.and_then(|last| last.clock_skew_ms)
    } else {
        skew
    };
    // What a broker has kept was sent some time ago, by a clock that may be wrong.
    let kept_ms = i64::try_from(status.sent_ms)
        .ok()
        .and_then(|sent_ms| u64::try_from(sent_ms.saturating_sub(clock_skew_ms.unwrap_or(0))).ok());
    let received_ms = match (retained, kept_ms) {
        (true, Some(kept_ms)) => kept_ms.min(now_ms),
        _ => now_ms,
    };
    let events = events::changes(last.map(|last| &last.status), &status, name);
    Some(Accepted {
        row: StatusRow {
            status,
            missed,
            clock_skew_ms,
            received_ms,
        },
        events,
    })
}

/// What a node says of itself, plans depend on, and the site has not taken over yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct News {
    /// It has something else to give.
    pub(crate) budget: Option<Budget>,
    /// It uses another key for its links.
    pub(crate) link_key: Option<LinkKey>,
    /// The site must ask for keys of this generation at least: it asked for it before its database
    /// was restored from an older copy.
    pub(crate) link_key_generation: Option<u64>,
    /// The next assignment needs a number above this one.
    pub(crate) above: Option<u64>,
}

impl News {
    /// Whether a new plan must be made.
    pub(crate) fn changes_plan(&self) -> bool {
        self.budget.is_some() || self.link_key.is_some() || self.above.is_some()
    }
}

/// Compares what a node says of itself with what the site took over of it. None when it is the same.
/// `number` is that of the node's newest assignment.
pub(crate) fn news(row: &NodeRow, status: &Status, number: u64) -> Option<News> {
    let generation = count_on(row.link_key_generation, status.link_key_generation);
    let news = News {
        budget: (status.budget != row.budget).then(|| status.budget.clone()),
        link_key: status.link_key.filter(|key| row.link_key != Some(*key)),
        link_key_generation: (generation > row.link_key_generation).then_some(generation),
        above: seen_above(status, number),
    };
    (news != News::default()).then_some(news)
}

/// How many statuses of the node never arrived; none when this one is older than the last, or the same
/// again. Every start of an agent takes numbers by the thousand, so only a gap within one tells of lost
/// statuses.
fn missed(last: Option<&StatusRow>, status: &Status, retained: bool) -> Option<u64> {
    let Some(last) = last else {
        return Some(0);
    };
    let (before, missed) = (&last.status, last.missed);
    match (&before.start, &status.start) {
        (Some(one), Some(other)) if one.id != other.id => {
            let is_later =
                status.sequence > before.sequence || status.started_ms > before.started_ms;
            // Of two agents with one identity the one that is served speaks; the last words of one
            // that has ended were sent before the other began.
            let is_alive = !retained && status.sent_ms > before.started_ms;
            (is_later || is_alive).then_some(missed)
        }
        _ if status.sequence > before.sequence => {
            let lost = match before.started_ms == status.started_ms {
                true => status.sequence - before.sequence - 1,
                false => 0,
            };
            Some(number::capped(missed.saturating_add(lost)))
        }
        // The same key enrolled again and counts anew: its agent must have started since.
        _ => (status.started_ms > before.started_ms).then_some(missed),
    }
}

/// A node only ever takes higher numbers. It is ahead of us when our database was restored from an
/// older copy: then it refuses what we issue, until that has a higher number.
fn seen_above(status: &Status, number: u64) -> Option<u64> {
    let refused = status.refused.as_ref().and_then(|refused| refused.number);
    let is_stuck = refused == Some(number) && status.applied == number;
    (status.applied > number || is_stuck).then(|| count_on(number, status.applied))
}

/// Where the site counts on when a node has seen `seen` and the site is at `ours`. One step is more
/// than a site ever counts between two backups, and a node that is still further ahead says so again;
/// but at one step a minute no node gets the site to the end of numbers.
fn count_on(ours: u64, seen: u64) -> u64 {
    seen.min(ours.saturating_add(COUNT_STEP_MAX))
}

/// Reads a batch of log lines. Nothing in it is signed: it is only as true as the relay.
///
/// # Errors
/// Why it is not believed.
pub(crate) fn open_logs(payload: &[u8]) -> Result<Vec<LogLine>, String> {
    let batch: LogBatch = number::from_slice(payload).map_err(|error| error.to_string())?;
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
