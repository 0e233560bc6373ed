//! `/logs`: log lines of microservices.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use haar_protocol::ids::Name;
use haar_protocol::number::Number;
use haar_protocol::rest::List;
use serde::Deserialize;

use super::App;
use super::answers::{Answer, Parameters, json};
use super::following::{Behind, Numbered, TAIL_MAX, follow, lag, last_event_id};
use crate::db::logs::{Filter, Found};
use crate::{change, db};

const TAIL: u32 = 100;

/// Which lines.
#[derive(Deserialize)]
pub(super) struct LogQuery {
    application: Option<Name>,
    microservice: Option<Name>,
    node: Option<Name>,
    tail: Option<u32>,
    since_ms: Option<Number>,
    #[serde(default)]
    follow: bool,
}

/// `GET /logs`
pub(super) async fn list(
    State(app): State<App>,
    Parameters(query): Parameters<LogQuery>,
    headers: HeaderMap,
) -> Answer<Response> {
    let LogQuery {
        application,
        microservice,
        node,
        tail,
        since_ms,
        follow: follows,
    } = query;
    let since_ms = since_ms.map(|Number(since_ms)| since_ms);
    let filter = Filter {
        application,
        microservice,
        node,
        since_ms,
    };
    let all = since_ms.map_or(TAIL, |_| TAIL_MAX);
    let count = tail.unwrap_or(all).min(TAIL_MAX);
    let feed = app.database.feeds.logs.subscribe();
    let wanted = filter.clone();
    let after = last_event_id(&headers).filter(|_| follows);
    let (found, newest) = app
        .database
        .read(move |sql| {
            let found = match after {
                Some(id) => db::logs::after(sql, &wanted, id, TAIL_MAX)?,
                None => Found::Whole(db::logs::tail(sql, &wanted, count)?),
            };
            let newest = db::logs::newest(sql)?;
            if found.lines().is_empty() {
                // What is gone may have left lines; what never was has none.
                let Filter {
                    application,
                    microservice,
                    node,
                    since_ms: _,
                } = &wanted;
                let (application, microservice) = (application.as_ref(), microservice.as_ref());
                change::check_names(sql, application, microservice, node.as_ref())?;
            }
            Ok((found, newest))
        })
        .await?;
    let opening = match &found {
        Found::Whole(_) => None,
        Found::Incomplete(_) => Some(lag(None)),
        Found::Elsewhere(_) => Some(lag(None).id("0")),
    };
    let lines = found.into_lines().into_iter();
    if !follows {
        let items = lines.map(|line| line.entry).collect();
        return Ok(json(StatusCode::OK, List { items }));
    }
    let tail = lines
        .map(|line| Numbered {
            id: line.id,
            entry: line.entry,
        })
        .collect();
    let pick = move |line: &db::logs::StoredLine| {
        filter.admits(&line.entry).then(|| Numbered {
            id: line.id,
            entry: line.entry.clone(),
        })
    };
    let behind = Behind::ComesAgain {
        number: |line: &db::logs::StoredLine| line.id,
        up_to: newest,
    };
    Ok(follow(opening, tail, feed, behind, pick, app.stop.clone()))
}
