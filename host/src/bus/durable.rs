//! Publishing on durable routes: a message is in the log before the publisher hears of it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::log::Log;
use super::message::{Headers, Message, count};
use super::pass_on;
use super::table::{DurableRoute, Outlet};
use crate::store::Store;
use crate::store::log::message_bytes;

/// Why messages were not published.
#[derive(Debug)]
pub enum Refused {
    /// The log of the outlet is full.
    Full,
    /// The store can't take them.
    NotStored(anyhow::Error),
}

/// Publishes messages, each as headers and body, on every route of an outlet that has a log. Returns
/// the sequence of the first one; the others follow it without a gap. None: the sequence that comes
/// next, as far as is known.
///
/// # Errors
/// See [`Refused`]: then none of them is published. Who does not wait for the answer does not know.
pub async fn publish(
    store: &Store,
    outlet: Arc<Outlet>,
    messages: Vec<(Headers, Vec<u8>)>,
    now_ms: u64,
) -> Result<u64, Refused> {
    let log = match &outlet.log {
        Some(log) if !outlet.lacks_log => Arc::clone(log),
        _ => {
            let why = "its log could not be opened: see the agent's own log";
            return Err(Refused::NotStored(anyhow::anyhow!(why)));
        }
    };
    if messages.is_empty() {
        return Ok(log.head() + 1);
    }
    let bytes = messages
        .iter()
        .map(|(headers, body)| message_bytes(headers, body.len()))
        .sum();
    if !log.reserve(bytes) && !make_room(store, &outlet.durable, &log, bytes).await? {
        log.overflow.refused(messages.len() as u64);
        return Err(Refused::Full);
    }
    let committed = {
        let (log, ages) = (Arc::clone(&log), store.ages().clone());
        move |first: u64, messages: Vec<(Headers, Vec<u8>)>| {
            let stamped = (first..).zip(messages).map(|(sequence, (headers, body))| {
                let message = Arc::new(Message {
                    source: Arc::clone(&outlet.source),
                    sequence,
                    published_ms: now_ms,
                    headers,
                    body,
                });
                for route in &outlet.durable {
                    count(&route.counters.sent);
                }
                pass_on(&outlet, &message);
                message
            });
            log.committed(first, stamped.collect::<Vec<_>>(), None, ages.now_ms());
        }
    };
    let stored = store.append(log.id, now_ms, messages, committed).await;
    stored.map_err(|error| {
        log.release(bytes);
        Refused::NotStored(error)
    })
}

/// Lets the oldest messages go where the routes say so, a sixteenth of the log at a time: one by one
/// would be a deletion for every message. False when that is no help.
pub(super) async fn make_room(
    store: &Store,
    routes: &[DurableRoute],
    log: &Log,
    bytes: u64,
) -> Result<bool, Refused> {
    if !log.drops_oldest() || bytes > log.limit_bytes() {
        return Ok(false);
    }
    let share = bytes.max(log.limit_bytes() / 16);
    let dropped = store.drop_oldest(log.id, share).await;
    let dropped = dropped.map_err(Refused::NotStored)?;
    for route in routes {
        let before = route.reader.skip_to(dropped.upto);
        let lost = dropped.upto.saturating_sub(before).min(dropped.messages);
        route.counters.dropped.fetch_add(lost, Ordering::Relaxed);
    }
    log.overflow.dropped(dropped.messages);
    log.release(dropped.bytes);
    Ok(log.reserve(bytes))
}
