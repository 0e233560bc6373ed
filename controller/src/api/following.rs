//! Server-sent events: first the newest entries from the database, then each new one as it is
//! committed. Nobody waits for a slow follower: it is told how many entries it missed.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

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

/// Streams `tail`, then what arrives at `feed` and `pick` wants. The feed must have been subscribed
/// to before the tail was read. Ends when `stop` is cancelled.
pub(super) fn follow<S, T>(
    tail: Vec<Numbered<T>>,
    feed: broadcast::Receiver<Arc<S>>,
    pick: impl Fn(&S) -> Option<Numbered<T>> + Send + 'static,
    stop: CancellationToken,
) -> Response
where
    S: Send + Sync + 'static,
    T: Serialize + Send + 'static,
{
    let last = tail.last().map_or(0, |numbered| numbered.id);
    let news = BroadcastStream::new(feed).filter_map(move |received| {
        let event = match received {
            Ok(value) => pick(&value)
                .filter(|numbered| numbered.id > last)
                .map(encode),
            Err(BroadcastStreamRecvError::Lagged(missed)) => Some(
                Event::default()
                    .event("lag")
                    .data(format!("{{\"missed\":{missed}}}")),
            ),
        };
        std::future::ready(event)
    });
    let events = stream::iter(tail.into_iter().map(encode))
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
