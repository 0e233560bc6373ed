//! `/site`: what anybody may know.

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use haar_protocol::rest::SiteInfo;

use super::App;
use crate::clock;

/// `GET /site`
pub(super) async fn show(State(app): State<App>) -> Json<SiteInfo> {
    Json(SiteInfo {
        id: app.site.id.clone(),
        name: app.site.name.clone(),
        key: app.site.key.public(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ca_sha256: app.site.ca_sha256.clone(),
        time_ms: clock::now_ms(),
    })
}

/// `GET /site/ca`
pub(super) async fn authority(State(app): State<App>) -> Response {
    (
        [(header::CONTENT_TYPE, "application/x-pem-file")],
        app.site.ca_pem.clone(),
    )
        .into_response()
}
