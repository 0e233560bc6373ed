//! Histories in the memory of a test: of every port, everything, in one page.

use super::imports::world;
use crate::history::{HistoryError, Page, Query};
use crate::message::Message;

pub(crate) fn read(query: &Query, next: Option<&str>) -> Result<Page, HistoryError> {
    if next.is_some() {
        return Err(HistoryError::BadToken); // every page is the last one here
    }
    let mut messages: Vec<Message> = world("history", |world| {
        world
            .passed_messages
            .iter()
            .filter(|(direction, port, message)| {
                *direction == query.direction && *port == query.port && is_wanted(query, message)
            })
            .map(|(_, _, message)| message.clone())
            .collect()
    });
    if query.newest_first {
        messages.reverse();
    }
    Ok(Page {
        messages,
        next: None,
    })
}

fn is_wanted(query: &Query, message: &Message) -> bool {
    let source = &message.source;
    let from = |name: &String| *name == format!("{}/{}", source.application, source.microservice);
    query
        .since_ms
        .is_none_or(|since| message.published_ms >= since)
        && query
            .until_ms
            .is_none_or(|until| message.published_ms < until)
        && query.node.as_ref().is_none_or(|node| *node == source.node)
        && query.microservice.as_ref().is_none_or(from)
        && query
            .first_sequence
            .is_none_or(|first| message.sequence >= first)
        && query
            .last_sequence
            .is_none_or(|last| message.sequence <= last)
}
