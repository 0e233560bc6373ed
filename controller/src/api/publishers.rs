//! `/publishers`: whose modules the site runs. A publisher has one key, or several while it goes over to
//! another one.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use haar_protocol::ids::Name;
use haar_protocol::keys::PublicKey;
use haar_protocol::rest::{List, Preview, PublisherRequest, TrustedPublisher};

use super::App;
use super::answers::{self, Answer, JsonBody, Named, Parameters};
use super::changing::{self, ChangeQuery};
use crate::change::{Care, OtherKeys};
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
    Parameters(query): Parameters<ChangeQuery>,
    JsonBody(request): JsonBody<PublisherRequest>,
) -> Answer<Response> {
    let site = Arc::clone(&app.site);
    let work = move |write: &db::Write<'_>| {
        let trust = || change::trust(write, &site, &name, request.key, OtherKeys::Remove);
        change::careful(write, &site, query.care(Care::LoseNothing), trust)
    };
    if query.dry_run {
        let (_, losses) = app.database.rehearse(work).await?;
        return Ok(Json(Preview { losses }).into_response());
    }
    let (publisher, _) = app.database.write(work).await?;
    Ok(Json(publisher).into_response())
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
    Parameters(query): Parameters<ChangeQuery>,
) -> Answer<Response> {
    changing::take_away(&app, query, move |write, site| {
        change::distrust(write, site, &name, Some(key))
    })
    .await
}

/// `DELETE /publishers/{name}`
pub(super) async fn distrust(
    State(app): State<App>,
    Named(name): Named<Name>,
    Parameters(query): Parameters<ChangeQuery>,
) -> Answer<Response> {
    changing::take_away(&app, query, move |write, site| {
        change::distrust(write, site, &name, None)
    })
    .await
}
