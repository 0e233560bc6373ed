//! `/microservices` and `/routes`: what should be, joined with what was reported.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use haar_protocol::ids::Name;
use haar_protocol::rest::{List, Microservice, Route};
use serde::Deserialize;

use super::App;
use super::answers::{self, Answer, Parameters};
use crate::change::load_view;

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
        .read(move |sql| Ok(load_view(sql, &site)?.microservices(query.application.as_ref())))
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
        .read(move |sql| Ok(load_view(sql, &site)?.routes(query.application.as_ref())))
        .await?;
    Ok(answers::list(items))
}
