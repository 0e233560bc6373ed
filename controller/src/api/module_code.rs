//! `/modules/{digest}/code`: what the controller has compiled of a module, for people to see and
//! for nodes to run. Nodes get only that of their assignment.

use axum::Extension;
use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use haar_protocol::ids::Digest;
use haar_protocol::rest::{List, ModuleCode};
use serde::Deserialize;

use super::App;
use super::answers::{self, Answer, Named, Parameters};
use super::authentication::Caller;
use super::files;
use super::module_content::check_assigned;
use super::modules::{find, unknown_module};
use crate::compilation::Platform;
use crate::failure::{Failure, Kind};

/// Which engine the code is for.
#[derive(Debug, Deserialize)]
pub(super) struct Engine {
    engine: String,
}

/// `GET /modules/{digest}/code`
pub(super) async fn list(
    State(app): State<App>,
    Named(digest): Named<Digest>,
) -> Answer<Json<List<ModuleCode>>> {
    find(&app, digest)
        .await?
        .filter(|module| module.digest == digest)
        .ok_or_else(|| unknown_module(digest))?;
    Ok(answers::list(app.compilation.list(digest)))
}

/// `GET /modules/{digest}/code/{target}?engine=`
pub(super) async fn download(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Named((digest, target)): Named<(Digest, String)>,
    Parameters(Engine { engine }): Parameters<Engine>,
    headers: HeaderMap,
) -> Answer<Response> {
    check_assigned(&app, caller, digest).await?;
    find(&app, digest)
        .await?
        .filter(|module| module.digest == digest)
        .ok_or_else(|| unknown_module(digest))?;
    let platform = Platform::new(&engine, &target).ok_or_else(|| {
        Failure::new(
            Kind::Invalid,
            "bad_platform",
            "an engine is 64 hexadecimal digits, a target a short word such as aarch64-linux",
        )
    })?;
    let path = app.compilation.code(digest, platform).await?;
    files::send(&path, "application/octet-stream", &headers).await
}
