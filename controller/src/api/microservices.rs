//! `/microservices` and `/routes`: what should be, joined with what was reported.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use haar_protocol::ids::{Name, RouteId};
use haar_protocol::rest::{List, Microservice, Route, RouteDetail};
use serde::Deserialize;

use super::App;
use super::answers::{self, Answer, Named, Parameters};
use crate::failure::{Failure, Kind};
use crate::{change, route_view};

/// Whose microservices or routes.
#[derive(Deserialize)]
pub(super) struct OfApplication {
    application: Option<Name>,
}

/// `GET /microservices`
pub(super) async fn list(
    State(app): State<App>,
    Parameters(query): Parameters<OfApplication>,
) -> Answer<Json<List<Microservice>>> {
    let site = Arc::clone(&app.site);
    let items = app
        .database
        .read(move |sql| {
            let application = query.application.as_ref();
            change::check_names(sql, application, None, None)?;
            Ok(change::load_view(sql, &site)?.microservices(application))
        })
        .await?;
    Ok(answers::list(items))
}

/// `GET /routes`
pub(super) async fn routes(
    State(app): State<App>,
    Parameters(query): Parameters<OfApplication>,
) -> Answer<Json<List<Route>>> {
    let site = Arc::clone(&app.site);
    let items = app
        .database
        .read(move |sql| {
            let application = query.application.as_ref();
            change::check_names(sql, application, None, None)?;
            Ok(change::load_view(sql, &site)?.routes(application))
        })
        .await?;
    Ok(answers::list(items))
}

/// `GET /routes/{route}`
pub(super) async fn route(
    State(app): State<App>,
    Named(id): Named<RouteId>,
) -> Answer<Json<RouteDetail>> {
    let site = Arc::clone(&app.site);
    let view = app
        .database
        .read(move |sql| change::load_view(sql, &site))
        .await?;
    // Pair by pair, of which there may be very many: beside the database.
    let viewing = tokio::task::spawn_blocking(move || route_view::route(&view, id));
    let found = viewing.await.map_err(Failure::internal)?;
    found.map(Json).ok_or_else(|| {
        let message = format!("there is no route `{id}`");
        Failure::new(Kind::NotFound, "unknown_route", message)
            .hint("see them with `haar get routes --output wide`")
    })
}
