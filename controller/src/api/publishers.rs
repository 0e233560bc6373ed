//! `/publishers`: whose modules the site runs. A publisher has one key, or several while it goes over to
//! another one.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use haar_protocol::ids::Name;
use haar_protocol::keys::PublicKey;
use haar_protocol::rest::{List, PublisherRequest, TrustedPublisher};

use super::App;
use super::answers::{self, Answer, JsonBody, Named};
use crate::change::OtherKeys;
use crate::{change, db};

/// `GET /publishers`
pub(super) async fn list(State(app): State<App>) -> Answer<Json<List<TrustedPublisher>>> {
    Ok(answers::list(
        app.database.read(|sql| db::publishers::list(sql)).await?,
    ))
}

/// `PUT /publishers/{name}`: with this key alone
pub(super) async fn trust(
    State(app): State<App>,
    Named(name): Named<Name>,
    JsonBody(request): JsonBody<PublisherRequest>,
) -> Answer<Json<TrustedPublisher>> {
    let site = Arc::clone(&app.site);
    let publisher = app
        .database
        .write(move |write| change::trust(write, &site, &name, request.key, OtherKeys::Remove))
        .await?;
    Ok(Json(publisher))
}

/// `PUT /publishers/{name}/keys/{key}`: beside the keys that it has
pub(super) async fn add_key(
    State(app): State<App>,
    Named((name, key)): Named<(Name, PublicKey)>,
) -> Answer<Json<TrustedPublisher>> {
    let site = Arc::clone(&app.site);
    let publisher = app
        .database
        .write(move |write| change::trust(write, &site, &name, key, OtherKeys::Keep))
        .await?;
    Ok(Json(publisher))
}

/// `DELETE /publishers/{name}/keys/{key}`
pub(super) async fn remove_key(
    State(app): State<App>,
    Named((name, key)): Named<(Name, PublicKey)>,
) -> Answer<StatusCode> {
    let site = Arc::clone(&app.site);
    app.database
        .write(move |write| change::distrust(write, &site, &name, Some(key)))
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `DELETE /publishers/{name}`
pub(super) async fn distrust(
    State(app): State<App>,
    Named(name): Named<Name>,
) -> Answer<StatusCode> {
    let site = Arc::clone(&app.site);
    app.database
        .write(move |write| change::distrust(write, &site, &name, None))
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
