//! `/modules`: what is known of modules. Their files are in `module_content` and `uploads`.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use haar_protocol::ids::Digest;
use haar_protocol::rest::{List, Module};

use super::App;
use super::answers::{self, Answer, Named};
use crate::failure::{Failure, Kind};
use crate::{change, db};

/// `GET /modules`
pub(super) async fn list(State(app): State<App>) -> Answer<Json<List<Module>>> {
    let modules = app
        .database
        .read(|sql| {
            let publishers = db::publishers::list(sql)?;
            Ok(db::modules::list(sql)?
                .iter()
                .map(|row| row.to_rest(&publishers))
                .collect())
        })
        .await?;
    Ok(answers::list(modules))
}

/// `GET /modules/{digest}`
pub(super) async fn show(
    State(app): State<App>,
    Named(digest): Named<Digest>,
) -> Answer<Json<Module>> {
    find(&app, digest)
        .await?
        .map(Json)
        .ok_or_else(|| unknown_module(digest))
}

/// `DELETE /modules/{digest}`
pub(super) async fn remove(
    State(app): State<App>,
    Named(digest): Named<Digest>,
) -> Answer<StatusCode> {
    let digest = find(&app, digest)
        .await?
        .ok_or_else(|| unknown_module(digest))?
        .digest;
    // Nobody may push the same module between the two steps and lose its file.
    let _claim = app.modules.claim(digest)?;
    app.database
        .write(move |write| change::delete_module(write, &digest))
        .await?;
    app.modules.remove(digest).await;
    app.compilation.remove(digest);
    Ok(StatusCode::NO_CONTENT)
}

/// The module, when it was pushed: under this digest, or in a file with other signatures.
pub(super) async fn find(app: &App, digest: Digest) -> Answer<Option<Module>> {
    app.database
        .read(move |sql| {
            let publishers = db::publishers::list(sql)?;
            Ok(db::modules::find(sql, &digest)?.map(|row| row.to_rest(&publishers)))
        })
        .await
}

/// There is no such module.
pub(super) fn unknown_module(digest: Digest) -> Failure {
    Failure::new(
        Kind::NotFound,
        "unknown_module",
        format!("there is no module {digest}"),
    )
    .hint("see them with `haar get modules`")
}
