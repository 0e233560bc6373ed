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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Behind {
    /// It is told how many entries it missed.
    IsTold,
    /// Its stream ends. It connects again with the number of its last entry and gets the rest from the
    /// database. How many of the dropped entries were for it is not known.
    ComesAgain,
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

/// Carries the number after which a follower that got nothing yet goes on. It has no data, so that nobody
/// takes it for an entry.
pub(super) fn position(id: u64) -> Event {
    Event::default().id(id.to_string())
}

/// Streams `opening` and `tail`, then what arrives at `feed` and `pick` wants. The feed must have been subscribed
/// to before the tail was read. Ends when `stop` is cancelled.
pub(super) fn follow<S, T>(
    opening: Option<Event>,
    tail: Vec<Numbered<T>>,
    feed: broadcast::Receiver<Arc<S>>,
    behind: Behind,
    pick: impl Fn(&S) -> Option<Numbered<T>> + Send + 'static,
    stop: CancellationToken,
) -> Response
where
    S: Send + Sync + 'static,
    T: Serialize + Send + 'static,
{
    let last = tail.last().map_or(0, |numbered| numbered.id);
    let news = BroadcastStream::new(feed).take_while(move |received| {
        let goes_on = received.is_ok() || behind == Behind::IsTold;
        std::future::ready(goes_on)
    });
    let news = news.filter_map(move |received| {
        let event = match received {
            Ok(value) => pick(&value)
                .filter(|numbered| numbered.id > last)
                .map(encode),
            Err(BroadcastStreamRecvError::Lagged(missed)) => Some(lag(Some(missed))),
        };
        std::future::ready(event)
    });
    let events = stream::iter(opening.into_iter().chain(tail.into_iter().map(encode)))
        .chain(news)
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
