//! `haar:local/history` as the component imports it.

use super::bindings::haar::local::history;
use super::origin;
use crate::history::{Direction, HistoryError, Page, Query};
use crate::message::Message;

pub(crate) fn read(query: &Query, next: Option<&str>) -> Result<Page, HistoryError> {
    let query = history::Query {
        direction: match query.direction {
            Direction::Inlet => history::Direction::Inlet,
            Direction::Outlet => history::Direction::Outlet,
        },
        port: &query.port,
        since: query.since_ms,
        until: query.until_ms,
        node: query.node.as_deref(),
        microservice: query.microservice.as_deref(),
        first_sequence: query.first_sequence,
        last_sequence: query.last_sequence,
        newest_first: query.newest_first,
        limit: query.limit,
    };
    match history::read(query, next) {
        Ok(page) => Ok(Page {
            messages: page.messages.into_iter().map(message).collect(),
            next: page.next,
        }),
        Err(history::HistoryError::NoHistory) => Err(HistoryError::NoHistory),
        Err(history::HistoryError::BadToken) => Err(HistoryError::BadToken),
        Err(history::HistoryError::Unavailable(why)) => Err(HistoryError::Unavailable(why)),
    }
}

fn message(message: history::Message) -> Message {
    Message {
        inlet: message.inlet.into(),
        source: origin::source(message.source).into(),
        sequence: message.sequence,
        published_ms: message.published,
        content_type: message.content_type.into(),
        headers: message.headers,
        body: message.body,
        attempt: message.attempt,
    }
}
