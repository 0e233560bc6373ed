//! Server-sent events: first the newest entries from the database, then each new one as it is
//! committed. Nobody waits for a follower that is too slow ([`Behind`]). The id of each event is the number
//! of its entry, so that a follower can go on behind the last one it got.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt as _, stream};
use serde::Serialize;
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;
use tokio_util::sync::CancellationToken;

const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Entries that a request gets at most before it follows.
pub(super) const TAIL_MAX: u32 = 10_000;

/// An entry and its number, by which nothing is sent twice.
pub(super) struct Numbered<T> {
    pub(super) id: u64,
    pub(super) entry: T,
}

/// What happens to a follower that fell so far behind that the feed has dropped entries for it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Behind<S> {
    /// It is told how many entries it missed.
    IsTold,
    /// Its stream ends. It connects again with the number up to which it has heard and gets the rest from the
    /// database. How many of the dropped entries were for it is not known.
    ComesAgain {
        /// The number of a new entry, also of one that the follower does not want.
        number: fn(&S) -> u64,
        /// Up to where the tail has all that the follower wants.
        up_to: u64,
    },
}

/// The number of the last entry that a follower got before its connection was cut.
pub(super) fn last_event_id(headers: &HeaderMap) -> Option<u64> {
    headers.get("last-event-id")?.to_str().ok()?.parse().ok()
}

/// Says that entries are missing here; how many, when that is known.
pub(super) fn lag(missed: Option<u64>) -> Event {
    let data = serde_json::json!({ "missed": missed });
    Event::default().event("lag").data(data.to_string())
}

/// Carries the number behind which a follower goes on, when its last entry has another one or it has none. It
/// has no data, so that nobody takes it for an entry.
fn position(id: u64) -> Event {
    Event::default().id(id.to_string())
}

/// Streams `opening` and `tail`, then what arrives at `feed` and `pick` wants. The feed must have been subscribed
/// to before the tail was read. Ends when `stop` is cancelled.
pub(super) fn follow<S, T>(
    opening: Option<Event>,
    tail: Vec<Numbered<T>>,
    feed: broadcast::Receiver<Arc<S>>,
    behind: Behind<S>,
    pick: impl Fn(&S) -> Option<Numbered<T>> + Send + 'static,
    stop: CancellationToken,
) -> Response
where
    S: Send + Sync + 'static,
    T: Serialize + Send + 'static,
{
    let last = tail.last().map_or(0, |numbered| numbered.id);
    let heard = match behind {
        Behind::IsTold => last,
        Behind::ComesAgain { up_to, .. } => last.max(up_to),
    };
    let known = (heard > last).then(|| position(heard));
    let begun = (heard, false);
    let news = BroadcastStream::new(feed).scan(begun, move |(heard, is_over), received| {
        std::future::ready(match (received, &behind) {
            _ if *is_over => None,
            (Ok(value), behind) => {
                if let Behind::ComesAgain { number, .. } = behind {
                    *heard = number(&value).max(*heard);
                }
                let new = pick(&value).filter(|numbered| numbered.id > last);
                Some(new.map(encode))
            }
            (Err(BroadcastStreamRecvError::Lagged(missed)), Behind::IsTold) => {
                Some(Some(lag(Some(missed))))
            }
            (Err(_), Behind::ComesAgain { .. }) => {
                *is_over = true;
                Some(Some(position(*heard)))
            }
        })
    });
    let tail = tail.into_iter().map(encode).chain(known);
    let events = stream::iter(opening.into_iter().chain(tail))
        .chain(news.filter_map(std::future::ready))
        .map(Ok::<_, Infallible>)
        .take_until(stop.cancelled_owned());
    Sse::new(events)
        .keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
        .into_response()
}

fn encode<T: Serialize>(numbered: Numbered<T>) -> Event {
    let event = Event::default().id(numbered.id.to_string());
    match serde_json::to_string(&numbered.entry) {
        Ok(json) => event.data(json),
        Err(error) => event.event("error").data(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    /// Entries are odd numbers.
    fn odd(number: &u64) -> Option<Numbered<u64>> {
        let (id, entry) = (*number, *number);
        (id % 2 == 1).then_some(Numbered { id, entry })
    }

    #[tokio::test]
    async fn who_falls_behind_gets_the_number_up_to_which_it_has_heard() {
        let (news, feed) = broadcast::channel(2);
        let send = |number: u64| news.send(Arc::new(number)).unwrap();
        let tail = vec![Numbered { id: 1, entry: 1 }];
        let behind = Behind::ComesAgain {
            number: |number: &u64| *number,
            up_to: 2,
        };
        let stop = CancellationToken::new();
        let response = follow(None, tail, feed, behind, odd, stop);
        let mut events = response.into_body().into_data_stream();
        send(3);
        send(4); // heard of, and not wanted
        for expected in ["id: 1\ndata: 1\n\n", "id: 2\n\n", "id: 3\ndata: 3\n\n"] {
            assert_eq!(events.next().await.unwrap().unwrap(), expected);
        }
        assert!(events.next().now_or_never().is_none());
        for number in 5..10 {
            send(number);
        }
        assert_eq!(events.next().await.unwrap().unwrap(), "id: 4\n\n");
        assert!(events.next().await.is_none());
    }
}
