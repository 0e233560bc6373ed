//! `/publishers`: whose modules the site runs.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use haar_protocol::ids::Name;
use haar_protocol::rest::{List, PublisherRequest, TrustedPublisher};

use super::App;
use super::answers::{self, Answer, JsonBody, Named};
use crate::{change, db};

/// `GET /publishers`
pub(super) async fn list(State(app): State<App>) -> Answer<Json<List<TrustedPublisher>>> {
    Ok(answers::list(
        app.database.read(|sql| db::publishers::list(sql)).await?,
    ))
}

/// `PUT /publishers/{name}`
pub(super) async fn trust(
    State(app): State<App>,
    Named(name): Named<Name>,
    JsonBody(request): JsonBody<PublisherRequest>,
) -> Answer<Json<TrustedPublisher>> {
    let site = Arc::clone(&app.site);
    let publisher = app
        .database
        .write(move |write| change::trust(write, &site, &name, request.key))
        .await?;
    Ok(Json(publisher))
}

/// `DELETE /publishers/{name}`
pub(super) async fn distrust(
    State(app): State<App>,
    Named(name): Named<Name>,
) -> Answer<StatusCode> {
    let site = Arc::clone(&app.site);
    app.database
        .write(move |write| change::distrust(write, &site, &name))
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
