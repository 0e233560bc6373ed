//! `/nodes`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use haar_protocol::ids::Name;
use haar_protocol::rest::{LinkKeyRotation, List, Node, NodeDetail};

use haar_protocol::status::Status;

use super::App;
use super::answers::{self, Answer, Named};
use crate::db::statuses::StatusRow;
use crate::{change, db, overview};

/// `GET /nodes`
pub(super) async fn list(State(app): State<App>) -> Answer<Json<List<Node>>> {
    let nodes = app
        .database
        .read(|sql| {
            let statuses = db::statuses::all(sql)?;
            let numbers = db::assignments::numbers(sql)?;
            let node = |row: &db::nodes::NodeRow| {
                overview::node(
                    row,
                    statuses.get(&row.id),
                    numbers.get(&row.id).copied().unwrap_or(0),
                )
            };
            Ok(db::nodes::list(sql)?.iter().map(node).collect())
        })
        .await?;
    Ok(answers::list(nodes))
}

/// `GET /nodes/{name}`
pub(super) async fn show(
    State(app): State<App>,
    Named(name): Named<Name>,
) -> Answer<Json<NodeDetail>> {
    let detail = app
        .database
        .read(move |sql| {
            let row = db::nodes::by_name(sql, name.as_str())?
                .ok_or_else(|| change::unknown_node(sql, &name))?;
            let status = db::statuses::get(sql, &row.id)?;
            let number = db::assignments::made(sql, &row.id)?.map_or(0, |made| made.number);
            Ok(NodeDetail {
                node: overview::node(&row, status.as_ref(), number),
                enrolled_ms: row.enrolled_ms,
                engine: status.as_ref().and_then(|row| row.status.engine.clone()),
                memory_source: status
                    .as_ref()
                    .and_then(|row| row.status.memory_source.clone()),
                policy: status.as_ref().and_then(|row| row.status.policy.clone()),
                status_sequence: status.as_ref().map(|row| row.status.sequence),
                statuses_missed: status.as_ref().map_or(0, |row| row.missed),
                microservices: of_status(&status, |status| &status.microservices),
                routes: of_status(&status, |status| &status.routes),
                backlogs: of_status(&status, |status| &status.backlogs),
                frames_refused: status.as_ref().map_or(0, |row| row.status.frames_refused),
                relays: of_status(&status, |status| &status.relays),
                serves: of_status(&status, |status| &status.serves),
                omitted: status.as_ref().and_then(|row| row.status.omitted.clone()),
            })
        })
        .await?;
    Ok(Json(detail))
}

/// A list of the last status; empty without one.
fn of_status<T: Clone>(row: &Option<StatusRow>, list: impl Fn(&Status) -> &Vec<T>) -> Vec<T> {
    row.as_ref()
        .map_or_else(Vec::new, |row| list(&row.status).clone())
}

/// `POST /nodes/{name}/link-key/rotate`
pub(super) async fn rotate_link_key(
    State(app): State<App>,
    Named(name): Named<Name>,
) -> Answer<Json<LinkKeyRotation>> {
    let (site, node) = (Arc::clone(&app.site), name.clone());
    let generation = app
        .database
        .write(move |write| change::rotate_link_key(write, &site, &name))
        .await?;
    Ok(Json(LinkKeyRotation { node, generation }))
}

/// `DELETE /nodes/{name}`
pub(super) async fn revoke(State(app): State<App>, Named(name): Named<Name>) -> Answer<StatusCode> {
    let node = app
        .database
        .write(move |write| change::revoke(write, &name))
        .await?;
    app.relay.revoke(node.clone()).await;
    let site = Arc::clone(&app.site);
    let cleared = app
        .database
        .write(move |write| change::clear_revoked(write, &site))
        .await;
    if let Err(failure) = cleared {
        // The key is gone in any case; the rest is tried again at the next start.
        tracing::error!(%node, %failure, "the node is revoked, but the plan still has it");
    }
    Ok(StatusCode::NO_CONTENT)
}
