//! `/nodes`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use haar_protocol::ids::Name;
use haar_protocol::rest::{LinkKeyRotation, List, Node, NodeDetail, Preview};
use haar_protocol::status::Status;
use rusqlite::Connection;

use super::App;
use super::answers::{self, Answer, Named, Parameters};
use super::changing::ChangeQuery;
use crate::change::Care;
use crate::db::statuses::StatusRow;
use crate::health::NodeFacts;
use crate::{change, clock, db, overview, relay_link};

/// `GET /nodes`
pub(super) async fn list(State(app): State<App>) -> Answer<Json<List<Node>>> {
    let nodes = app.database.read(|sql| load_nodes(sql)).await?;
    Ok(answers::list(nodes))
}

/// All nodes, by name.
fn load_nodes(sql: &Connection) -> Answer<Vec<Node>> {
    let statuses = db::statuses::all(sql)?;
    let numbers = db::assignments::numbers(sql)?;
    let observations = db::observations::all(sql)?;
    let now_ms = clock::now_ms();
    let nodes = db::nodes::list(sql)?;
    let facts = nodes.iter().map(|row| NodeFacts {
        row,
        status: statuses.get(&row.id),
        assignment: numbers.get(&row.id).copied().unwrap_or(0),
        observations: observations.get(&row.id).map_or(&[], Vec::as_slice),
        now_ms,
    });
    Ok(facts.map(|facts| overview::node(&facts)).collect())
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
            let node = overview::node(&NodeFacts {
                row: &row,
                status: status.as_ref(),
                assignment: db::assignments::made(sql, &row.id)?.map_or(0, |made| made.number),
                observations: &db::observations::of(sql, &row.id)?,
                now_ms: clock::now_ms(),
            });
            Ok(NodeDetail {
                node,
                enrolled_ms: row.enrolled_ms,
                engine: status.as_ref().and_then(|row| row.status.engine.clone()),
                memory_source: status
                    .as_ref()
                    .and_then(|row| row.status.memory_source.clone()),
                policy: status.as_ref().and_then(|row| row.status.policy.clone()),
                status_sequence: status.as_ref().map(|row| row.status.sequence),
                statuses_missed: status.as_ref().map_or(0, |row| row.missed),
                counted: status.as_ref().map(|row| overview::counted(row, 0)),
                microservices: of_status(&status, |status| &status.microservices),
                routes: of_status(&status, |status| &status.routes),
                backlogs: of_status(&status, |status| &status.backlogs),
                frames_refused: status.as_ref().map_or(0, |row| row.status.frames_refused),
                relays: of_status(&status, |status| &status.relays),
                brokers: of_status(&status, |status| &status.brokers),
                device_messages_dropped: status
                    .as_ref()
                    .map_or(0, |row| row.status.device_messages_dropped),
                device_properties_dropped: status
                    .as_ref()
                    .map_or(0, |row| row.status.device_properties_dropped),
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
pub(super) async fn revoke(
    State(app): State<App>,
    Named(name): Named<Name>,
    Parameters(query): Parameters<ChangeQuery>,
) -> Answer<Response> {
    if query.dry_run || query.careful {
        // Revoking itself is not held up by a plan, so that is tried as a whole before.
        let (site, name) = (Arc::clone(&app.site), name.clone());
        let work = move |write: &db::Write<'_>| {
            change::careful(write, &site, query.care(Care::LoseNothing), || {
                change::revoke(write, &name)?;
                change::clear_revoked(write, &site)
            })
        };
        let (_, losses) = app.database.rehearse(work).await?;
        if query.dry_run {
            return Ok(Json(Preview { losses }).into_response());
        }
    }
    let (site, of) = (Arc::clone(&app.site), name.clone());
    let sessions = app
        .database
        .read(move |sql| relay_link::device_sessions(sql, &site, &of))
        .await
        .unwrap_or_else(|failure| {
            tracing::error!(%failure, "what brokers keep for the node is not known");
            Vec::new()
        });
    let of = name.clone();
    let node = app
        .database
        .write(move |write| change::revoke(write, &name))
        .await?;
    app.relay.revoke(node.clone(), of, sessions).await;
    let site = Arc::clone(&app.site);
    let cleared = app
        .database
        .write(move |write| change::clear_revoked(write, &site))
        .await;
    if let Err(failure) = cleared {
        // The key is gone in any case; the rest is tried again at the next start.
        tracing::error!(%node, %failure, "the node is revoked, but the plan still has it");
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}
