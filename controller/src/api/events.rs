//! `/events`: what happened in the site.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use haar_protocol::number::Number;
use haar_protocol::rest::{Event, List};
use serde::Deserialize;

use super::App;
use super::answers::{Answer, Parameters, json};
use super::following::{Behind, Numbered, follow};
use crate::db;

const TAIL: u32 = 100;
/// All that the site keeps: so many of people, and so many of nodes.
const TAIL_MAX: u32 = 2 * db::events::EVENTS_MAX;

/// How many, since when, and whether to go on.
#[derive(Deserialize)]
pub(super) struct EventQuery {
    tail: Option<u32>,
    since_ms: Option<Number>,
    #[serde(default)]
    follow: bool,
}

/// `GET /events`
pub(super) async fn list(
    State(app): State<App>,
    Parameters(query): Parameters<EventQuery>,
) -> Answer<Response> {
    let since_ms = query.since_ms.map(|Number(since_ms)| since_ms);
    let all = since_ms.map_or(TAIL, |_| TAIL_MAX);
    let count = query.tail.unwrap_or(all).min(TAIL_MAX);
    let feed = app.database.feeds.events.subscribe();
    let events = app
        .database
        .read(move |sql| db::events::tail(sql, since_ms.unwrap_or(0), count))
        .await?;
    if !query.follow {
        return Ok(json(StatusCode::OK, List { items: events }));
    }
    let number = |event: Event| Numbered {
        id: event.id,
        entry: event,
    };
    let tail = events.into_iter().map(number).collect();
    Ok(follow(
        None,
        tail,
        feed,
        Behind::IsTold,
        move |event: &Event| Some(number(event.clone())),
        app.stop.clone(),
    ))
}
