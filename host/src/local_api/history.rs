//! `haar:local/history`: what passed the microservice's own ports.

use haar_protocol::ids::Digest;

use super::bindings::imports::haar::local::history::{self, HistoryError, Page};
use super::state::State;
use crate::bus::history::{Direction, HistoryPort};
use crate::bus::message::Message;
use crate::store::history::{Position, Query};

/// Pages that an instance may read in a second, on average over a second.
const READS_PER_SECOND: u32 = 100;
/// Messages in one page at most.
const PAGE_MESSAGES_MAX: u32 = 1_000;

impl history::Host for State {
    async fn read(
        &mut self,
        query: history::Query,
        token: Option<String>,
    ) -> wasmtime::Result<Result<Page, HistoryError>> {
        Ok(self.read_history(query, token).await)
    }
}

impl State {
    async fn read_history(
        &mut self,
        query: history::Query,
        token: Option<String>,
    ) -> Result<Page, HistoryError> {
        if let Err(wait_ms) = self.history_rate.take(READS_PER_SECOND) {
            let reason = format!("too many reads: try again in {wait_ms} ms");
            return Err(HistoryError::Unavailable(reason));
        }
        let recorder = query.port.parse().ok().and_then(|port| {
            self.surroundings.bus.recorder(&HistoryPort {
                owner: self.name.clone(),
                direction: match query.direction {
                    history::Direction::Inlet => Direction::Inlet,
                    history::Direction::Outlet => Direction::Outlet,
                },
                port,
            })
        });
        let recorder = recorder.ok_or(HistoryError::NoHistory)?;
        let check = check(&query);
        let after = match token {
            None => None,
            Some(token) => Some(position(&token, &check).ok_or(HistoryError::BadToken)?),
        };
        let inlet = match query.direction {
            history::Direction::Inlet => query.port.clone(),
            history::Direction::Outlet => String::new(),
        };
        let store = self.surroundings.store.clone();
        let recalled = store
            .recall(recorder, self.wanted(query, after))
            .await
            .map_err(|error| HistoryError::Unavailable(format!("{error:#}")))?;
        Ok(Page {
            messages: recalled
                .messages
                .into_iter()
                .map(|(message, content_type)| remembered(message, content_type, &inlet))
                .collect(),
            next: recalled.next.map(|next| format!("{next}-{check}")),
        })
    }

    fn wanted(&self, query: history::Query, after: Option<Position>) -> Query {
        Query {
            since_ms: query.since,
            until_ms: query.until,
            node: query.node,
            // Names hold no `/`, so what has none fits nobody.
            microservice: query.microservice.map(|name| match name.split_once('/') {
                Some((application, microservice)) => (application.into(), microservice.into()),
                None => (name, String::new()),
            }),
            first_sequence: query.first_sequence,
            last_sequence: query.last_sequence,
            newest_first: query.newest_first,
            limit: query.limit.clamp(1, PAGE_MESSAGES_MAX) as usize,
            bytes_max: self.limits.message_size.0,
            after,
            site: self.surroundings.facts.load().site.clone(),
        }
    }
}

fn remembered(message: Message, content_type: String, inlet: &str) -> history::Message {
    history::Message {
        inlet: inlet.to_owned(),
        source: message.source.as_ref().into(),
        sequence: message.sequence,
        published: message.published_ms,
        content_type,
        headers: message.headers,
        body: message.body,
        attempt: 0,
    }
}

/// Tells queries apart in tokens. How many messages a page has makes no other query.
fn check(query: &history::Query) -> String {
    let history::Query {
        direction,
        port,
        since,
        until,
        node,
        microservice,
        first_sequence,
        last_sequence,
        newest_first,
        limit: _,
    } = query;
    let text = format!(
        "{direction:?} {port:?} {since:?} {until:?} {node:?} {microservice:?} \
         {first_sequence:?} {last_sequence:?} {newest_first}"
    );
    let mut digest = Digest::of(text.as_bytes()).to_hex();
    digest.truncate(16);
    digest
}

/// The position in a token of this query.
fn position(token: &str, check: &str) -> Option<Position> {
    let (position, of_query) = token.split_once('-')?;
    (of_query == check).then(|| position.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(port: &str, limit: u32) -> history::Query {
        history::Query {
            direction: history::Direction::Inlet,
            port: port.into(),
            since: None,
            until: None,
            node: None,
            microservice: None,
            first_sequence: None,
            last_sequence: None,
            newest_first: false,
            limit,
        }
    }

    #[test]
    fn a_token_is_good_for_its_query_whatever_the_size_of_the_page() {
        let token = format!("7-{}", check(&query("in", 1)));
        assert_eq!(position(&token, &check(&query("in", 9))), Some(7));
        assert_eq!(position(&token, &check(&query("other", 1))), None);
        for broken in ["", "7", "-", "x-y", "99999999999999999999999-"] {
            assert_eq!(position(broken, &check(&query("in", 1))), None, "{broken}");
        }
    }
}
