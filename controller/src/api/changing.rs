//! What requests that change something have in common: trying them, and asking before something is lost.

use std::sync::Arc;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use haar_protocol::rest::Preview;
use serde::Deserialize;

use super::App;
use super::answers::Answer;
use crate::change::{self, Care};
use crate::db::Write;
use crate::failure::Failure;
use crate::site::Site;

/// The query of a change.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
pub(super) struct ChangeQuery {
    #[serde(default)]
    pub(super) dry_run: bool,
    #[serde(default)]
    pub(super) careful: bool,
    #[serde(default)]
    pub(super) keep_data: bool,
}

impl ChangeQuery {
    /// How the change is made; `careful` when it is asked for.
    pub(super) fn care(self, careful: Care) -> Care {
        match (self.dry_run, self.careful) {
            (true, _) => Care::Tell,
            (false, true) => careful,
            (false, false) => Care::None,
        }
    }
}

/// Makes a change that takes something away, or tells what it would take.
///
/// # Errors
/// Those of `change`, or `would_lose`.
pub(super) async fn take_away(
    app: &App,
    query: ChangeQuery,
    change: impl FnOnce(&Write<'_>, &Site) -> Result<(), Failure> + Send + 'static,
) -> Answer<Response> {
    let site = Arc::clone(&app.site);
    let work = move |write: &Write<'_>| {
        let care = query.care(Care::LoseNothing);
        change::careful(write, &site, care, || change(write, &site))
    };
    if query.dry_run {
        let ((), losses) = app.database.rehearse(work).await?;
        return Ok(Json(Preview { losses }).into_response());
    }
    app.database.write(work).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
