//! `/microservices` and `/routes`: what should be, joined with what was reported.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use haar_protocol::ids::Name;
use haar_protocol::rest::{List, Microservice, Route};
use serde::Deserialize;

use super::App;
use super::answers::{self, Answer, Parameters};
use crate::change;

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
